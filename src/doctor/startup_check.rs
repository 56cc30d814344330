//! Checks of the configuration that need an outside service: the workspace of the bot token, the account of the access keys, and
//! the regions. The doctor makes them whenever it runs, a watcher once, beside its first tick.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::timeout;

use crate::alicloud::Class;
use crate::alicloud::sts::Sts;
use crate::app::App;
use crate::chat::platform::Platform;
use crate::config::Target;
use crate::credentials::{self, SessionName};
use crate::redaction::KeyProblem;
use crate::{accept, clock};

/// The time for all checks. The end of the tick waits no longer.
const STARTUP_CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// The time to learn whose a key is, and then for each region: one that does not answer hides nothing of the others.
const STARTUP_CALL_TIMEOUT: Duration = Duration::from_millis(1500);

/// Makes the checks once in the life of a process.
#[derive(Debug, Default)]
pub struct StartupCheck(AtomicBool);

impl StartupCheck {
    /// Logs an error for each contradiction. Takes three seconds at most and never fails; later calls do nothing.
    pub async fn run_once(&self, app: &App) {
        if self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        let targets = app.config.targets.iter().map(|(name, target)| async move {
            target_config_errors(app, name, target).await.iter().for_each(log_key_problem);
        });
        let platforms = Platform::ALL.iter().map(|platform| async {
            let asked = timeout(STARTUP_CHECK_TIMEOUT, platform_config_errors(app, *platform)).await;
            asked.unwrap_or_default().iter().for_each(log_key_problem);
        });
        join(join_all(platforms), join_all(targets)).await;
    }
}

fn log_key_problem(KeyProblem { key, problem }: &KeyProblem) {
    tracing::error!(
        outcome = "misconfigured",
        key,
        error = problem,
        "a key of peergate.toml contradicts an outside service"
    );
}

async fn platform_config_errors(app: &App, platform: Platform) -> Vec<KeyProblem> {
    match app.secrets.current(clock::now()).await {
        Ok(secrets) => platform.config_errors(app.chat_context(&secrets)).await,
        Err(_) => vec![],
    }
}

async fn target_config_errors(app: &App, name: &str, target: &Target) -> Vec<KeyProblem> {
    let now = clock::now();
    let reading = SessionName::reading();
    let account = async {
        let key = app.credentials.current_key(&app.secrets, name, &reading, now).await.ok()?;
        let sts = Sts::new(app.http.clone(), target.sts_endpoint.clone(), target.signature);
        sts.caller_account(credentials::credentials(&key)).await.ok()
    };
    if let Ok(Some(account)) = timeout(STARTUP_CALL_TIMEOUT, account).await
        && account != target.account
    {
        let problem =
            format!("the credentials belong to account {account}, so peergate finds no connection of the target");
        return vec![KeyProblem { key: format!("targets.{name}.account"), problem }];
    }
    let config_errors = target.regions.iter().map(async |region: &String| {
        let listed =
            timeout(STARTUP_CALL_TIMEOUT, accept::list_connections(app, name, (region, None), None, clock::now()))
                .await
                .ok()?;
        let error = listed.err()?;
        let code = error.to_problem().code;
        let is_refused = match error.class() {
            Class::Permanent | Class::Missing => true,
            Class::Unknown => code.contains("Region"),
            Class::Retry | Class::ReadStatus | Class::Credentials | Class::DryRunPassed => false,
        };
        let problem = format!("Alibaba Cloud refuses to list {region} with {code}");
        is_refused.then(|| KeyProblem { key: format!("targets.{name}.regions"), problem })
    });
    join_all(config_errors).await.into_iter().flatten().collect()
}

//! Checks the configuration against outside services: the workspace of the bot token, the account of the access keys, and
//! the regions. The watcher makes these checks once, at the same time as its first tick. The doctor makes them in each run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::timeout;

use crate::alicloud::sts::Sts;
use crate::alicloud::{Class, ListScope};
use crate::app::App;
use crate::chat::platform::Platform;
use crate::config::Target;
use crate::credentials::SessionName;
use crate::redaction::KeyProblem;
use crate::{accept, clock};

/// The time for all checks: the end of the tick waits for them.
const STARTUP_CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// The time for the call that finds the account of a key, and then for each region. A region that does not answer must not
/// hide the result of another.
const STARTUP_CALL_TIMEOUT: Duration = Duration::from_millis(1500);

/// Makes the checks once per process.
#[derive(Debug, Default)]
pub struct StartupCheck(AtomicBool);

impl StartupCheck {
    /// Logs an error for each key that contradicts a service. It takes three seconds at most and never fails. Later calls do
    /// nothing.
    pub async fn run_once(&self, app: &App) {
        if self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        let targets = app.config.targets.iter().map(|(name, target)| async move {
            target_config_errors(app, name, target).await.iter().for_each(log_key_problem);
        });
        let platforms = Platform::ALL.iter().map(|platform| async {
            let problems = timeout(STARTUP_CHECK_TIMEOUT, platform_config_errors(app, *platform)).await;
            problems.unwrap_or_default().iter().for_each(log_key_problem);
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
    let reading = SessionName::for_reads();
    let account = async {
        let key = app.credentials.current_key(&app.secrets, name, &reading, now).await.ok()?;
        let sts = Sts::new(app.http.clone(), target.sts_endpoint.clone(), target.signature);
        sts.caller_account(key.as_credentials()).await.ok()
    };
    if let Ok(Some(account)) = timeout(STARTUP_CALL_TIMEOUT, account).await
        && account != target.account
    {
        let problem =
            format!("the credentials belong to account {account}, so peergate finds no connection of the target");
        return vec![KeyProblem { key: format!("targets.{name}.account"), problem }];
    }
    let config_errors = target.regions.iter().map(async |region: &String| {
        let list = accept::list_connections(app, name, ListScope::of_region(region), None, clock::now());
        let error = timeout(STARTUP_CALL_TIMEOUT, list).await.ok()?.err()?;
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

//! Checks of the configuration that need an outside service: the workspace of the bot token, the account of the access keys, and
//! the regions. The doctor makes them whenever it runs, a watcher once, beside its first tick.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::timeout;

use crate::alicloud::Class;
use crate::alicloud::sts::Sts;
use crate::app::App;
use crate::chat::slack::{self, Workspace};
use crate::config::{Slack, Target};
use crate::credentials::{self, SessionName};
use crate::{accept, clock};

/// The time for all checks. The end of the tick waits no longer.
const QUESTIONS: Duration = Duration::from_secs(3);
/// The time to learn whose a key is, and then for each region: one that does not answer hides nothing of the others.
const HALF: Duration = Duration::from_millis(1500);

/// A key of the configuration that an outside service contradicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The key, in full.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

/// Makes the checks once in the life of a process.
#[derive(Debug, Default)]
pub struct FirstTick(AtomicBool);

impl FirstTick {
    /// Logs an error for each contradiction. Takes three seconds at most and never fails; later calls do nothing.
    pub async fn ask(&self, app: &App) {
        if self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        let targets = app.config.targets.iter().map(|(name, target)| async move {
            misfits_of_target(app, name, target).await.iter().for_each(log);
        });
        let slack = async {
            let asked = timeout(QUESTIONS, misfit_of_slack(app)).await;
            asked.unwrap_or_default().iter().for_each(log);
        };
        join(slack, join_all(targets)).await;
    }
}

fn log(Misfit { key, problem }: &Misfit) {
    tracing::error!(
        outcome = "misconfigured",
        key,
        error = problem,
        "a key of peergate.toml contradicts an outside service"
    );
}

async fn misfit_of_slack(app: &App) -> Option<Misfit> {
    let config = app.config.slack.as_ref()?;
    let secrets = app.secrets.current(clock::now()).await.ok()?;
    let token = secrets.slack.as_ref()?.bot_token.as_ref()?;
    let workspace = slack::Api { http: &app.http, url: &config.api, token }.test().await.ok()?;
    misfit_of_workspace(config, &workspace)
}

/// How a bot token contradicts the workspaces of the configuration, if it does.
pub(super) fn misfit_of_workspace(config: &Slack, workspace: &Workspace) -> Option<Misfit> {
    let misfit = |key: &str, problem: String| Some(Misfit { key: format!("slack.{key}"), problem });
    match (&config.enterprise, &workspace.enterprise_id, &workspace.team_id) {
        (Some(named), Some(enterprise), _) if named != enterprise => {
            misfit("enterprise", format!("the bot token belongs to the organization {enterprise}, not to {named}"))
        }
        (Some(named), None, Some(_)) => {
            misfit("enterprise", format!("the bot token belongs to a workspace outside {named}"))
        }
        // A token of the organization is valid for all its workspaces.
        (Some(_), Some(_), _) | (_, _, None) => None,
        (None, _, Some(team)) if config.teams.contains(team) => None,
        (None, _, Some(team)) => {
            misfit("teams", format!("the bot token belongs to the workspace {team}, which is not in `slack.teams`"))
        }
    }
}

async fn misfits_of_target(app: &App, name: &str, target: &Target) -> Vec<Misfit> {
    let now = clock::now();
    let reading = SessionName::reading();
    let account = async {
        let key = app.credentials.current(&app.secrets, name, &reading, now).await.ok()?;
        let sts = Sts::new(app.http.clone(), target.sts_endpoint.clone(), target.signature);
        sts.caller(credentials::credentials(&key)).await.ok()
    };
    if let Ok(Some(account)) = timeout(HALF, account).await
        && account != target.account
    {
        let problem =
            format!("the credentials belong to account {account}, so peergate finds no connection of the target");
        return vec![Misfit { key: format!("targets.{name}.account"), problem }];
    }
    let misfits = target.regions.iter().map(async |region: &String| {
        let listed = timeout(HALF, accept::list(app, name, (region, None), None, clock::now())).await.ok()?;
        let error = listed.err()?;
        let code = error.problem().code;
        let is_refused = match error.class() {
            Class::Permanent | Class::Missing => true,
            Class::Unknown => code.contains("Region"),
            Class::Retry | Class::ReadStatus | Class::Credentials | Class::DryRunPassed => false,
        };
        let problem = format!("Alibaba Cloud refuses to list {region} with {code}");
        is_refused.then(|| Misfit { key: format!("targets.{name}.regions"), problem })
    });
    join_all(misfits).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_bot_token_of_another_workspace_is_noticed() {
        let config = |more: &str| {
            let text = format!(
                "[targets.prod]\naccount = \"2\"\nregions = []\n[slack]\nteams = [\"T1\"]\napp = \"A1\"\n{more}"
            );
            Config::parse(&text).unwrap().slack.unwrap()
        };
        let (plain, grid) = (config(""), config("enterprise = \"E1\""));
        let misfit = |config: &Slack, team: Option<&str>, enterprise: Option<&str>| {
            let workspace =
                Workspace { team_id: team.map(ToOwned::to_owned), enterprise_id: enterprise.map(ToOwned::to_owned) };
            misfit_of_workspace(config, &workspace).map(|misfit| misfit.key)
        };
        assert_eq!(misfit(&plain, Some("T1"), None), None);
        assert_eq!(misfit(&plain, Some("T1"), Some("E1")), None);
        assert_eq!(misfit(&plain, Some("T2"), None).as_deref(), Some("slack.teams"));
        assert_eq!(misfit(&plain, None, None), None, "nothing is known");
        assert_eq!(misfit(&grid, Some("T1"), Some("E1")), None);
        assert_eq!(misfit(&grid, Some("E1"), Some("E1")), None);
        assert_eq!(misfit(&grid, Some("T1"), Some("E2")).as_deref(), Some("slack.enterprise"));
        assert_eq!(misfit(&grid, Some("T1"), None).as_deref(), Some("slack.enterprise"));
    }
}

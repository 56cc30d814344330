//! Looks at everything that can be wrong with a deployment, as the functions would come across it, and says for each what
//! to do. Changes nothing; posts only if asked to.

#[cfg(feature = "local")]
mod aws;
mod buttons;
mod first_tick;

use std::fmt::Write as _;

use futures_util::future::{join, join_all};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::accept;
use crate::alicloud::Class;
use crate::alicloud::sts::Sts;
use crate::app::App;
use crate::approval::{ApprovalId, Approver, Call, ClientToken, Redelivery, Verdict};
use crate::chat::message::{self, Message};
use crate::chat::platform::Channel;
use crate::chat::{ProbeError, Undelivered};
use crate::config::{self, Config, Environment, Target};
use crate::credentials::{self, SessionName};
use crate::logging::Chain;
use crate::peering::{InstanceId, Status};
use crate::policy::Policy;
use crate::secrets::{Secrets, SecretsStore};
use crate::{clock, http};

pub use first_tick::FirstTick;

/// Nobody's connection: whether we may ask for it shows without one.
const NOBODYS: &str = "pcc-peergatedoctor";
/// From here on the clock is to be looked at; Alibaba Cloud refuses at 15 minutes.
const SKEW: [SignedDuration; 2] = [SignedDuration::from_mins(1), SignedDuration::from_mins(14)];
/// Secrets that are older should be rotated.
const OLD_SECRETS: SignedDuration = SignedDuration::from_hours(365 * 24);

/// What to look at besides.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "local", derive(clap::Args))]
#[serde(deny_unknown_fields, default)]
pub struct Wish {
    /// Post a test message to every channel.
    #[cfg_attr(feature = "local", arg(long))]
    pub post: bool,
    /// The rule of `EventBridge` that lets the watcher tick: the stack's output `ScheduleRule`. Only a laptop looks.
    #[cfg_attr(feature = "local", arg(long))]
    #[serde(skip)]
    pub rule: Option<String>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub what: String,
    /// How it is.
    pub found: Found,
    /// In words.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// As it should be.
    Fine,
    /// It works, but should be looked at.
    Warning,
    /// It does not work.
    Problem,
    /// It could not be looked at.
    Unknown,
}

/// Everything that was looked at.
#[derive(Debug, Default)]
pub struct Report(pub Vec<Check>);

impl Report {
    fn add(&mut self, found: Found, what: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) {
        let mend = Some(mend.into()).filter(|mend| !mend.is_empty());
        self.0.push(Check { what: what.into(), found, detail: detail.into(), mend });
    }

    fn fine(&mut self, what: impl Into<String>, detail: impl Into<String>) {
        self.add(Found::Fine, what, detail, "");
    }

    fn problem(&mut self, what: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) {
        self.add(Found::Problem, what, detail, mend);
    }

    /// Whether all of it is seen to work.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.0.iter().all(|check| matches!(check.found, Found::Fine | Found::Warning))
    }

    /// A line for each, with the mend below it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Check { what, found, detail, mend } in &self.0 {
            let mark = match found {
                Found::Fine => "✓",
                Found::Warning => "!",
                Found::Problem => "✗",
                Found::Unknown => "?",
            };
            let _ = writeln!(text, "{mark} {what}: {detail}");
            if let Some(mend) = mend {
                let _ = writeln!(text, "    {mend}");
            }
        }
        text
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({"well": self.is_well(), "checks": self.0})
    }
}

/// Looks at everything that an environment leads to, and after `until` at nothing more over the network.
pub async fn examine(environment: Result<Environment, config::Error>, wish: &Wish, until: Instant) -> Report {
    let mut report = Report::default();
    let environment = match environment {
        Ok(environment) => environment,
        Err(error) => {
            report.problem("environment", Chain(&error).to_string(), "Set it: README.md, “Configuration”.");
            return report;
        }
    };
    report.fine("environment", format!("region {}, table {}", environment.aws.region, environment.table));
    let config = match Config::load(&environment.config) {
        Ok(config) => config,
        Err(error) => {
            let mend = "Compare it with peergate.example.toml, which has every key.";
            report.problem("configuration", Chain(&error).to_string().trim_end(), mend);
            return report;
        }
    };
    let rules = config.policy.rules.len();
    report.fine(
        "configuration",
        format!("{} targets, {rules} rules, {} channels", config.targets.len(), config.channels.len()),
    );
    if rules == 0 {
        report.add(Found::Warning, "rules", "there are none: nothing can be approved", "Add a [[rule]].");
    }
    examine_rules(&config.policy, &mut report);
    let app = match App::new(&environment, config) {
        Ok(app) => app,
        Err(error) => {
            report.problem("HTTP client", Chain(&error).to_string(), "Check the file that PEERGATE_CA_FILE names.");
            return report;
        }
    };
    let now = clock::now();
    // The functions may not look at these, nor need to: they would not run without.
    #[cfg(feature = "local")]
    {
        aws::examine_table(&environment, &app, &mut report).await;
        if let Some(rule) = &wish.rule {
            aws::examine_schedule(&environment, &app, rule, now, &mut report).await;
        }
    }
    examine_store(&app, now, &mut report).await;
    let secrets = match app.secrets.current(now).await {
        Ok(secrets) => secrets,
        Err(error) => {
            let mend = match &error {
                crate::secrets::Error::Unavailable(_) => {
                    "Check PEERGATE_SECRETS, and that the role may call secretsmanager:GetSecretValue on it, and \
                     kms:Decrypt if it has a key of its own."
                }
                crate::secrets::Error::Malformed(_) | crate::secrets::Error::Invalid { .. } => {
                    "Mend the secret's JSON: README.md, “Secrets”."
                }
            };
            report.problem("secrets", error.to_string(), mend);
            return report;
        }
    };
    examine_age(&app.secrets, now, &mut report).await;
    for name in app.config.renamed.iter().chain(&secrets.renamed) {
        let detail = format!("`{name}` has the name of an earlier version");
        report.add(
            Found::Warning,
            "names",
            detail,
            format!("Call it `platforms.{name}`, in peergate.toml and in the secrets."),
        );
    }
    report.0.extend(
        in_time("buttons".into(), until, async |report| buttons::examine(&app, &secrets, report).await).await.0,
    );
    let clock = in_time("clock".into(), until, async |report| examine_clock(&app, now, report).await);
    let targets = app.config.targets.iter().map(|(name, target)| {
        let look = async |report: &mut Report| examine_target(&app, name, target, now, report).await;
        in_time(format!("target {name}"), until, look)
    });
    let channels = app.config.channels.iter().map(|(name, channel)| {
        let look = async |report: &mut Report| {
            report.0.push(examine_channel(&app, &secrets, name, channel, wish.post).await);
        };
        in_time(format!("channel {name}"), until, look)
    });
    let (clock, (targets, channels)) = join(clock, join(join_all(targets), join_all(channels))).await;
    report.0.extend(std::iter::once(clock).chain(targets).chain(channels).flat_map(|found| found.0));
    report
}

/// A rule without `requester_accounts` covers every account, including those whose contacts it needs as approvers.
fn examine_rules(policy: &Policy, report: &mut Report) {
    for rule in policy.rules.iter().filter(|rule| rule.requester_accounts.is_none()) {
        for account in policy.accounts.keys() {
            let left = policy.approvers_of(rule, Some(*account)).len();
            if left < rule.needed() {
                let detail = format!(
                    "{} must approve requests of account {account}, but without its contacts, only {left} may",
                    rule.needed()
                );
                let mend = "Name more approvers, or list the accounts of the rule in `requester_accounts`.";
                report.add(Found::Warning, format!("rule {}", rule.name), detail, mend);
            }
        }
    }
}

/// What is found of one thing until then.
async fn in_time(what: String, until: Instant, look: impl AsyncFnOnce(&mut Report)) -> Report {
    let mut report = Report::default();
    if timeout_at(until, look(&mut report)).await.is_err() {
        report.add(Found::Unknown, what, "there was no time for the rest", "Check the network, and look again.");
    }
    report
}

async fn examine_store(app: &App, now: Timestamp, report: &mut Report) {
    match app.store.due(now, None).await {
        Ok(_) => report.fine("table, query", "allowed"),
        Err(error) => report.problem("table, query", error.to_string(), "Allow dynamodb:Query on the index."),
    }
    let Ok(instance_id) = InstanceId::parse(NOBODYS) else { return };
    let id = ApprovalId { target: "doctor".into(), instance_id };
    match app.store.load(&id).await {
        Ok(_) => report.fine("table, reading", "allowed"),
        Err(error) => report.problem("table, reading", error.to_string(), "Allow dynamodb:GetItem on the table."),
    }
    match app.store.load_many(&[id]).await {
        Ok(_) => report.fine("table, reading many", "allowed"),
        Err(error) => {
            report.problem("table, reading many", error.to_string(), "Allow dynamodb:BatchGetItem on the table.");
        }
    }
    match app.store.may_write().await {
        Ok(()) => report.fine("table, writing", "allowed"),
        Err(error) => report.problem("table, writing", error.to_string(), "Allow dynamodb:PutItem on the table."),
    }
}

async fn examine_age(secrets: &SecretsStore, now: Timestamp, report: &mut Report) {
    match secrets.stored_at().await {
        Some(at) if now.duration_since(at) > OLD_SECRETS => {
            let days = now.duration_since(at).as_hours() / 24;
            report.add(
                Found::Warning,
                "secrets",
                format!("stored {days} days ago"),
                "Rotate them: OPERATING.md, “Runbooks”.",
            );
        }
        Some(at) => report.fine("secrets", format!("stored {} days ago", now.duration_since(at).as_hours() / 24)),
        None => report.fine("secrets", "complete"),
    }
}

async fn examine_clock(app: &App, now: Timestamp, report: &mut Report) {
    let Some((_, target)) = app.config.targets.first_key_value() else { return };
    let answer = app.http.head(target.endpoint.clone()).send().await;
    let date = answer.as_ref().ok().and_then(|answer| answer.headers().get("date")?.to_str().ok());
    let Some(theirs) = date.and_then(http::date) else {
        let detail = answer.err().map_or("Alibaba Cloud does not say what time it is", |error| http::failure(&error));
        report.add(Found::Unknown, "clock", detail, "Check that the network lets us reach the target's endpoint.");
        return;
    };
    let skew = now.duration_since(theirs).abs();
    let detail = format!("{} s from Alibaba Cloud's", skew.as_secs());
    let [warn, refuse] = SKEW;
    match skew {
        _ if skew >= refuse => report.problem("clock", detail, "Set it: calls are refused from 15 minutes on."),
        _ if skew >= warn => {
            report.add(Found::Warning, "clock", detail, "Set it: calls are refused from 15 minutes on.");
        }
        _ => report.fine("clock", detail),
    }
}

async fn examine_target(app: &App, name: &str, target: &Target, now: Timestamp, report: &mut Report) {
    let what = |what: &str| format!("target {name}, {what}");
    let reading = SessionName::reading();
    let key = match app.credentials.current(&app.secrets, name, &reading, now).await {
        Ok(key) => key,
        Err(error) => {
            let passes = matches!(error.class(), Class::Retry | Class::Unknown);
            let found = if passes { Found::Unknown } else { Found::Problem };
            let detail = format!("there are none ({})", error.code());
            report.add(found, what("credentials"), detail, message::advice(error.code()));
            return;
        }
    };
    let sts = Sts::new(app.http.clone(), target.sts_endpoint.clone(), target.signature);
    match sts.caller(credentials::credentials(&key)).await {
        Ok(account) if account == target.account => report.fine(what("credentials"), format!("of account {account}")),
        Ok(account) => {
            let detail = format!("of account {account}, not {}", target.account);
            report.problem(what("credentials"), detail, "Store a key of the target's account, or mend `account`.");
            return;
        }
        Err(error) => {
            let code = error.code();
            let (found, detail) = match error.class() {
                Class::Retry => (Found::Unknown, format!("the Security Token Service does not answer ({code})")),
                Class::ReadStatus
                | Class::Missing
                | Class::Permanent
                | Class::Credentials
                | Class::DryRunPassed
                | Class::Unknown => (Found::Problem, format!("Alibaba Cloud refuses them with {code}")),
            };
            report.add(found, what("credentials"), detail, message::advice(code));
        }
    }
    let Ok(nobodys) = InstanceId::parse(NOBODYS) else { return };
    let read = accept::read(app, name, &nobodys, now).await.err();
    let unreachable = read.as_ref().is_some_and(|error| error.class() == Class::Retry);
    allowed(report, what("vpc:GetVpcPeerConnectionAttribute"), read, true);
    if unreachable {
        return;
    }
    let mut waiting = None;
    for region in &target.regions {
        match accept::list(app, name, (region, None), None, now).await {
            Ok(page) => {
                let open = |it: &&crate::peering::Connection| {
                    it.status == Status::Accepting && it.accepter.account == target.account
                };
                waiting = waiting.or_else(|| page.connections.iter().find(open).map(|it| it.instance_id.clone()));
                let detail = format!(
                    "{} connections",
                    page.total.map_or(page.connections.len().to_string(), |all| all.to_string())
                );
                report.fine(what(&format!("vpc:ListVpcPeerConnections in {region}")), detail);
            }
            Err(error) => allowed(report, what(&format!("vpc:ListVpcPeerConnections in {region}")), Some(error), false),
        }
    }
    let is_nobodys = waiting.is_none();
    let instance_id = waiting.unwrap_or(nobodys);
    let (by, key) = (Approver::peergate(name).principal, clock::nonce());
    let call = Call::DryRun { request_key: &key };
    let token = ClientToken::derive(&by, target.account, &instance_id, Verdict::Approve, call);
    let dry_run = accept::dry_run(app, name, &instance_id, token.as_str(), now).await;
    allowed(report, what("vpc:AcceptVpcPeerConnection (dry run)"), dry_run.err(), is_nobodys);
}

/// That there is no such connection, or that it waits for nobody any more, is said to those who may ask.
fn allowed(report: &mut Report, what: String, error: Option<accept::Error>, is_nobodys: bool) {
    let Some(error) = error else { return report.fine(what, "allowed") };
    let code = error.problem().code;
    match error.class() {
        Class::Retry => {
            let is_away = code.starts_with("Transport");
            let mend = if is_away { "Check the network, and the target's `endpoint`." } else { message::advice(&code) };
            report.add(Found::Unknown, what, format!("no answer ({code})"), mend);
        }
        Class::ReadStatus | Class::Missing | Class::DryRunPassed => report.fine(what, "allowed"),
        Class::Permanent if is_nobodys && code.starts_with("IllegalParam") => report.fine(what, "allowed"),
        Class::Permanent | Class::Unknown if what.contains(" in ") && code.contains("Region") => {
            report.problem(what, format!("refused with {code}"), "Check the target's `regions`, e.g. cn-shanghai.");
        }
        Class::Permanent | Class::Credentials | Class::Unknown => {
            report.problem(what, format!("refused with {code}"), message::advice(&code));
        }
    }
}

async fn examine_channel(app: &App, secrets: &Secrets, name: &str, channel: &Channel, post: bool) -> Check {
    let test = Message { headline: "peergate can post here".into(), ..Message::default() };
    match channel.probe(app.chat(secrets), name, post.then_some(&test)).await {
        Ok(detail) => fine(name, detail),
        Err(ProbeError::Problem { detail, mend }) => problem(name, &detail, mend),
        Err(ProbeError::Undelivered(Undelivered { error, retry: Redelivery::Soon(_) })) => Check {
            found: Found::Unknown,
            ..problem(name, &error, "Look again: it is of the kind that passes. Otherwise check the network.")
        },
        Err(ProbeError::Undelivered(Undelivered { error, .. })) => {
            problem(name, &error, "Check the token or URL, and that the bot is in the channel.")
        }
    }
}

fn fine(name: &str, detail: &str) -> Check {
    Check { what: format!("channel {name}"), found: Found::Fine, detail: detail.into(), mend: None }
}

fn problem(name: &str, detail: &str, mend: &str) -> Check {
    Check { what: format!("channel {name}"), found: Found::Problem, detail: detail.into(), mend: Some(mend.into()) }
}

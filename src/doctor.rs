//! Looks at everything that can be wrong with a deployment, as the functions would come across it, and says for each what
//! to do. Changes nothing; posts only if asked to.

#[cfg(feature = "local")]
mod aws;
mod buttons;
mod startup_check;

use std::fmt::Write as _;

use futures_util::future::{join, join_all};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::accept;
use crate::alicloud::Class;
use crate::alicloud::sts::Sts;
use crate::app::App;
use crate::approval::{ApprovalId, Approver, ClientToken, RetryPolicy, TokenPurpose, Verdict};
use crate::chat::message::{self, Message};
use crate::chat::platform::Channel;
use crate::chat::{DeliveryError, ProbeError};
use crate::config::{self, Config, Environment, Target};
use crate::credentials::{self, SessionName};
use crate::logging::Chain;
use crate::peering::{InstanceId, Status};
use crate::policy::Policy;
use crate::secrets::{SecretSet, SecretsStore};
use crate::{clock, http};

pub use startup_check::StartupCheck;

/// Nobody's connection: whether we may ask for it shows without one.
const NONEXISTENT_ID: &str = "pcc-peergatedoctor";
/// From here on the clock is to be looked at; Alibaba Cloud refuses at 15 minutes.
const CLOCK_SKEW_LIMITS: [SignedDuration; 2] = [SignedDuration::from_mins(1), SignedDuration::from_mins(14)];
/// Secrets that are older should be rotated.
const MAX_SECRETS_AGE: SignedDuration = SignedDuration::from_hours(365 * 24);

/// What to look at besides.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "local", derive(clap::Args))]
#[serde(deny_unknown_fields, default)]
pub struct Options {
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
pub struct Diagnosis {
    /// What.
    #[serde(rename = "what")]
    pub subject: String,
    /// How it is.
    #[serde(rename = "found")]
    pub health: Health,
    /// In words.
    pub detail: String,
    /// What to do about it.
    #[serde(rename = "mend", skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    #[serde(rename = "fine")]
    Healthy,
    /// It works, but should be looked at.
    Warning,
    /// It does not work.
    Problem,
    /// It could not be looked at.
    Unknown,
}

/// Everything that was looked at.
#[derive(Debug, Default)]
pub struct Report(pub Vec<Diagnosis>);

impl Report {
    fn add(&mut self, health: Health, subject: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) {
        let fix = Some(fix.into()).filter(|fix| !fix.is_empty());
        self.0.push(Diagnosis { subject: subject.into(), health, detail: detail.into(), fix });
    }

    fn add_healthy(&mut self, subject: impl Into<String>, detail: impl Into<String>) {
        self.add(Health::Healthy, subject, detail, "");
    }

    fn add_problem(&mut self, subject: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) {
        self.add(Health::Problem, subject, detail, fix);
    }

    /// Whether all of it is seen to work.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.0.iter().all(|check| matches!(check.health, Health::Healthy | Health::Warning))
    }

    /// A line for each, with the mend below it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for Diagnosis { subject: what, health: found, detail, fix: mend } in &self.0 {
            let mark = match found {
                Health::Healthy => "✓",
                Health::Warning => "!",
                Health::Problem => "✗",
                Health::Unknown => "?",
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
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"well": self.is_healthy(), "checks": self.0})
    }
}

/// Looks at everything that an environment leads to, and after `until` at nothing more over the network.
pub async fn examine_deployment(
    environment: Result<Environment, config::Error>,
    options: &Options,
    deadline: Instant,
) -> Report {
    let mut report = Report::default();
    let environment = match environment {
        Ok(environment) => environment,
        Err(error) => {
            report.add_problem("environment", Chain(&error).to_string(), "Set it: README.md, “Configuration”.");
            return report;
        }
    };
    report.add_healthy("environment", format!("region {}, table {}", environment.aws.region, environment.table));
    let config = match Config::load(&environment.config) {
        Ok(config) => config,
        Err(error) => {
            let mend = "Compare it with peergate.example.toml, which has every key.";
            report.add_problem("configuration", Chain(&error).to_string().trim_end(), mend);
            return report;
        }
    };
    let rules = config.policy.rules.len();
    report.add_healthy(
        "configuration",
        format!("{} targets, {rules} rules, {} channels", config.targets.len(), config.channels.len()),
    );
    if rules == 0 {
        report.add(Health::Warning, "rules", "there are none: nothing can be approved", "Add a [[rule]].");
    }
    examine_rules(&config.policy, &mut report);
    let app = match App::new(&environment, config) {
        Ok(app) => app,
        Err(error) => {
            report.add_problem("HTTP client", Chain(&error).to_string(), "Check the file that PEERGATE_CA_FILE names.");
            return report;
        }
    };
    let now = clock::now();
    // The functions may not look at these, nor need to: they would not run without.
    #[cfg(feature = "local")]
    {
        aws::examine_table(&environment, &app, &mut report).await;
        if let Some(rule) = &options.rule {
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
            report.add_problem("secrets", error.to_string(), mend);
            return report;
        }
    };
    examine_secrets_age(&app.secrets, now, &mut report).await;
    for name in app.config.renamed_tables.iter().chain(&secrets.renamed_keys) {
        let detail = format!("`{name}` has the name of an earlier version");
        report.add(
            Health::Warning,
            "names",
            detail,
            format!("Call it `platforms.{name}`, in peergate.toml and in the secrets."),
        );
    }
    report.0.extend(
        run_with_deadline("buttons".into(), deadline, async |report| {
            buttons::examine_buttons(&app, &secrets, report).await;
        })
        .await
        .0,
    );
    let clock = run_with_deadline("clock".into(), deadline, async |report| examine_clock(&app, now, report).await);
    let targets = app.config.targets.iter().map(|(name, target)| {
        let look = async |report: &mut Report| examine_target(&app, name, target, now, report).await;
        run_with_deadline(format!("target {name}"), deadline, look)
    });
    let channels = app.config.channels.iter().map(|(name, channel)| {
        let look = async |report: &mut Report| {
            report.0.push(examine_channel(&app, &secrets, name, channel, options.post).await);
        };
        run_with_deadline(format!("channel {name}"), deadline, look)
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
            if left < rule.needed_approvers() {
                let detail = format!(
                    "{} must approve requests of account {account}, but without its contacts, only {left} may",
                    rule.needed_approvers()
                );
                let mend = "Name more approvers, or list the accounts of the rule in `requester_accounts`.";
                report.add(Health::Warning, format!("rule {}", rule.name), detail, mend);
            }
        }
    }
}

/// What is found of one thing until then.
async fn run_with_deadline(subject: String, deadline: Instant, look: impl AsyncFnOnce(&mut Report)) -> Report {
    let mut report = Report::default();
    if timeout_at(deadline, look(&mut report)).await.is_err() {
        report.add(Health::Unknown, subject, "there was no time for the rest", "Check the network, and look again.");
    }
    report
}

async fn examine_store(app: &App, now: Timestamp, report: &mut Report) {
    match app.store.due_entries(now, None).await {
        Ok(_) => report.add_healthy("table, query", "allowed"),
        Err(error) => report.add_problem("table, query", error.to_string(), "Allow dynamodb:Query on the index."),
    }
    let Ok(instance_id) = InstanceId::parse(NONEXISTENT_ID) else { return };
    let id = ApprovalId { target: "doctor".into(), instance_id };
    match app.store.load(&id).await {
        Ok(_) => report.add_healthy("table, reading", "allowed"),
        Err(error) => report.add_problem("table, reading", error.to_string(), "Allow dynamodb:GetItem on the table."),
    }
    match app.store.load_many(&[id]).await {
        Ok(_) => report.add_healthy("table, reading many", "allowed"),
        Err(error) => {
            report.add_problem("table, reading many", error.to_string(), "Allow dynamodb:BatchGetItem on the table.");
        }
    }
    match app.store.check_write_permission().await {
        Ok(()) => report.add_healthy("table, writing", "allowed"),
        Err(error) => report.add_problem("table, writing", error.to_string(), "Allow dynamodb:PutItem on the table."),
    }
}

async fn examine_secrets_age(secrets: &SecretsStore, now: Timestamp, report: &mut Report) {
    match secrets.stored_at().await {
        Some(at) if now.duration_since(at) > MAX_SECRETS_AGE => {
            let days = now.duration_since(at).as_hours() / 24;
            report.add(
                Health::Warning,
                "secrets",
                format!("stored {days} days ago"),
                "Rotate them: OPERATING.md, “Runbooks”.",
            );
        }
        Some(at) => {
            report.add_healthy("secrets", format!("stored {} days ago", now.duration_since(at).as_hours() / 24));
        }
        None => report.add_healthy("secrets", "complete"),
    }
}

async fn examine_clock(app: &App, now: Timestamp, report: &mut Report) {
    let Some((_, target)) = app.config.targets.first_key_value() else { return };
    let answer = app.http.head(target.endpoint.clone()).send().await;
    let date = answer.as_ref().ok().and_then(|answer| answer.headers().get("date")?.to_str().ok());
    let Some(theirs) = date.and_then(http::parse_date) else {
        let detail =
            answer.err().map_or("Alibaba Cloud does not say what time it is", |error| http::transport_code(&error));
        report.add(Health::Unknown, "clock", detail, "Check that the network lets us reach the target's endpoint.");
        return;
    };
    let skew = now.duration_since(theirs).abs();
    let detail = format!("{} s from Alibaba Cloud's", skew.as_secs());
    let [warn, refuse] = CLOCK_SKEW_LIMITS;
    match skew {
        _ if skew >= refuse => report.add_problem("clock", detail, "Set it: calls are refused from 15 minutes on."),
        _ if skew >= warn => {
            report.add(Health::Warning, "clock", detail, "Set it: calls are refused from 15 minutes on.");
        }
        _ => report.add_healthy("clock", detail),
    }
}

async fn examine_target(app: &App, name: &str, target: &Target, now: Timestamp, report: &mut Report) {
    let what = |what: &str| format!("target {name}, {what}");
    let reading = SessionName::reading();
    let key = match app.credentials.current_key(&app.secrets, name, &reading, now).await {
        Ok(key) => key,
        Err(error) => {
            let passes = matches!(error.class(), Class::Retry | Class::Unknown);
            let found = if passes { Health::Unknown } else { Health::Problem };
            let detail = format!("there are none ({})", error.code());
            report.add(found, what("credentials"), detail, message::advice_for_code(error.code()));
            return;
        }
    };
    let sts = Sts::new(app.http.clone(), target.sts_endpoint.clone(), target.signature);
    match sts.caller_account(credentials::credentials(&key)).await {
        Ok(account) if account == target.account => {
            report.add_healthy(what("credentials"), format!("of account {account}"));
        }
        Ok(account) => {
            let detail = format!("of account {account}, not {}", target.account);
            report.add_problem(what("credentials"), detail, "Store a key of the target's account, or mend `account`.");
            return;
        }
        Err(error) => {
            let code = error.code();
            let (found, detail) = match error.class() {
                Class::Retry => (Health::Unknown, format!("the Security Token Service does not answer ({code})")),
                Class::ReadStatus
                | Class::Missing
                | Class::Permanent
                | Class::Credentials
                | Class::DryRunPassed
                | Class::Unknown => (Health::Problem, format!("Alibaba Cloud refuses them with {code}")),
            };
            report.add(found, what("credentials"), detail, message::advice_for_code(code));
        }
    }
    let Ok(nobodys) = InstanceId::parse(NONEXISTENT_ID) else { return };
    let read = accept::read_connection(app, name, &nobodys, now).await.err();
    let unreachable = read.as_ref().is_some_and(|error| error.class() == Class::Retry);
    report_permission(report, what("vpc:GetVpcPeerConnectionAttribute"), read, true);
    if unreachable {
        return;
    }
    let mut waiting = None;
    for region in &target.regions {
        match accept::list_connections(app, name, (region, None), None, now).await {
            Ok(page) => {
                let open = |it: &&crate::peering::Connection| {
                    it.status == Status::Accepting && it.accepter.account == target.account
                };
                waiting = waiting.or_else(|| page.connections.iter().find(open).map(|it| it.instance_id.clone()));
                let detail = format!(
                    "{} connections",
                    page.total.map_or(page.connections.len().to_string(), |all| all.to_string())
                );
                report.add_healthy(what(&format!("vpc:ListVpcPeerConnections in {region}")), detail);
            }
            Err(error) => {
                report_permission(report, what(&format!("vpc:ListVpcPeerConnections in {region}")), Some(error), false);
            }
        }
    }
    let is_nobodys = waiting.is_none();
    let instance_id = waiting.unwrap_or(nobodys);
    let (by, key) = (Approver::peergate(name).principal, clock::nonce());
    let call = TokenPurpose::DryRun { request_key: &key };
    let token = ClientToken::derive(&by, target.account, &instance_id, Verdict::Approve, call);
    let dry_run = accept::dry_run_accept(app, name, &instance_id, token.as_str(), now).await;
    report_permission(report, what("vpc:AcceptVpcPeerConnection (dry run)"), dry_run.err(), is_nobodys);
}

/// That there is no such connection, or that it waits for nobody any more, is said to those who may ask.
fn report_permission(report: &mut Report, subject: String, error: Option<accept::Error>, is_nobodys: bool) {
    let Some(error) = error else { return report.add_healthy(subject, "allowed") };
    let code = error.to_problem().code;
    match error.class() {
        Class::Retry => {
            let is_away = code.starts_with("Transport");
            let mend = if is_away {
                "Check the network, and the target's `endpoint`."
            } else {
                message::advice_for_code(&code)
            };
            report.add(Health::Unknown, subject, format!("no answer ({code})"), mend);
        }
        Class::ReadStatus | Class::Missing | Class::DryRunPassed => report.add_healthy(subject, "allowed"),
        Class::Permanent if is_nobodys && code.starts_with("IllegalParam") => report.add_healthy(subject, "allowed"),
        Class::Permanent | Class::Unknown if subject.contains(" in ") && code.contains("Region") => {
            report.add_problem(
                subject,
                format!("refused with {code}"),
                "Check the target's `regions`, e.g. cn-shanghai.",
            );
        }
        Class::Permanent | Class::Credentials | Class::Unknown => {
            report.add_problem(subject, format!("refused with {code}"), message::advice_for_code(&code));
        }
    }
}

async fn examine_channel(app: &App, secrets: &SecretSet, name: &str, channel: &Channel, post_test: bool) -> Diagnosis {
    let test = Message { headline: "peergate can post here".into(), ..Message::default() };
    match channel.probe(app.chat_context(secrets), name, post_test.then_some(&test)).await {
        Ok(detail) => healthy_channel(name, detail),
        Err(ProbeError::Problem { detail, fix: mend }) => broken_channel(name, &detail, mend),
        Err(ProbeError::Delivery(DeliveryError { error, retry: RetryPolicy::Backoff(_) })) => Diagnosis {
            health: Health::Unknown,
            ..broken_channel(name, &error, "Look again: it is of the kind that passes. Otherwise check the network.")
        },
        Err(ProbeError::Delivery(DeliveryError { error, .. })) => {
            broken_channel(name, &error, "Check the token or URL, and that the bot is in the channel.")
        }
    }
}

fn healthy_channel(name: &str, detail: &str) -> Diagnosis {
    Diagnosis { subject: format!("channel {name}"), health: Health::Healthy, detail: detail.into(), fix: None }
}

fn broken_channel(name: &str, detail: &str, fix: &str) -> Diagnosis {
    Diagnosis {
        subject: format!("channel {name}"),
        health: Health::Problem,
        detail: detail.into(),
        fix: Some(fix.into()),
    }
}

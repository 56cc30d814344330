//! Checks everything that can be wrong with a deployment, in the way that the functions would meet it. It says how to fix
//! each problem. It changes nothing, and posts only on request.

#[cfg(feature = "local")]
mod aws;
mod buttons;
mod startup_check;
mod surroundings;
mod target;

use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::future::{join, join_all};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::approval::{ApprovalId, RetryPolicy};
use crate::aws::NO_ANSWER;
use crate::chat::message::Message;
use crate::chat::platform::Channel;
use crate::chat::{DeliveryError, ProbeError};
use crate::config::{self, Config, Environment};
use crate::http::Unreachable;
use crate::logging::ErrorChain;
use crate::peering::InstanceId;
use crate::policy::Policy;
use crate::secrets::{self, SecretSet, SecretsStore};
use crate::{clock, http, store};
use surroundings::Surroundings;

pub use startup_check::StartupCheck;

/// A connection that does not exist. Asking for it shows whether peergate has the permission to ask.
const NONEXISTENT_ID: &str = "pcc-peergatedoctor";
/// A smaller difference between our clock and Alibaba Cloud's is healthy.
const MIN_REPORTED_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);
/// A larger difference is a problem: Alibaba Cloud refuses calls at 15 minutes.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(14);
/// Older secrets should be rotated.
const MAX_SECRETS_AGE: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Checks that are made only on request.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "local", derive(clap::Args))]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Post a test message to every channel.
    #[cfg_attr(feature = "local", arg(long))]
    pub post: bool,
    /// Check the EventBridge rule that starts the watcher: the output `ScheduleRule` of the stack. Only on a laptop.
    #[cfg_attr(feature = "local", arg(long))]
    #[serde(skip)]
    pub rule: Option<String>,
}

/// The result of one check.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Diagnosis {
    /// The checked thing, e.g. `target prod, credentials`.
    #[serde(rename = "what")]
    pub subject: String,
    /// The result as one word.
    #[serde(rename = "found")]
    pub health: Health,
    /// The result in words.
    pub detail: String,
    /// How to fix it; `None` if it is healthy.
    #[serde(rename = "mend", skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// How healthy a thing is.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It works.
    #[serde(rename = "fine")]
    Healthy,
    /// It works, but somebody should look at it.
    Warning,
    /// It does not work.
    Problem,
    /// The doctor could not check it.
    Unknown,
}

/// The results of all checks.
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

    fn add_warning(&mut self, subject: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) {
        self.add(Health::Warning, subject, detail, fix);
    }

    fn add_problem(&mut self, subject: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) {
        self.add(Health::Problem, subject, detail, fix);
    }

    fn add_unknown(&mut self, subject: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) {
        self.add(Health::Unknown, subject, detail, fix);
    }

    /// Whether every check passed, perhaps with a warning. A check that could not be made has not passed.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.0.iter().all(|diagnosis| matches!(diagnosis.health, Health::Healthy | Health::Warning))
    }

    /// One line for each check, and the fix on the next line.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for Diagnosis { subject, health, detail, fix } in &self.0 {
            let mark = match health {
                Health::Healthy => "✓",
                Health::Warning => "!",
                Health::Problem => "✗",
                Health::Unknown => "?",
            };
            let _ = writeln!(text, "{mark} {subject}: {detail}");
            if let Some(fix) = fix {
                let _ = writeln!(text, "    {fix}");
            }
        }
        text
    }

    /// The report as JSON: `{"well": …, "checks": […]}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"well": self.is_healthy(), "checks": self.0})
    }
}

/// Checks all that the functions use in this environment. After `deadline`, it makes no more calls.
pub async fn examine_deployment(
    environment: Result<Environment, config::Error>,
    options: &Options,
    deadline: Instant,
) -> Report {
    let mut report = Report::default();
    let Some(environment) = examine_environment(environment, &mut report) else { return report };
    let Some(app) = build_app(&environment, &mut report) else { return report };
    let now = clock::now();
    let surroundings = Surroundings::of(&environment);
    // The functions have no permission for these checks, and need none: they do not run without the table and the rule.
    #[cfg(feature = "local")]
    let has_table = {
        if let Some(rule) = &options.rule {
            aws::examine_schedule(&environment, &app, rule, now, &mut report).await;
        }
        aws::examine_table(&environment, &surroundings, &app, &mut report).await
    };
    #[cfg(not(feature = "local"))]
    let has_table = true;
    if has_table {
        examine_store(&surroundings, &app, now, &mut report).await;
    }
    let Some(secrets) = examine_secrets(&surroundings, &app, now, &mut report).await else { return report };
    report_renamed_keys(&app.config, &secrets, &mut report);
    report.0.extend(
        run_with_deadline("buttons".into(), deadline, async |report| {
            buttons::examine_buttons(&app, &secrets, report).await;
        })
        .await
        .0,
    );
    examine_outside_services(&app, &secrets, options.post, now, deadline, &mut report).await;
    report
}

fn examine_environment(environment: Result<Environment, config::Error>, report: &mut Report) -> Option<Environment> {
    match environment {
        Ok(environment) => {
            // An address that cannot be reached may be that of the proxy.
            let proxy = match http::proxy_variables().as_slice() {
                [] => String::new(),
                names => format!(", proxy of {} for other machines", names.join(" and ")),
            };
            let detail = format!("region {}, table {}{proxy}", environment.aws.region, environment.table);
            report.add_healthy("environment", detail);
            Some(environment)
        }
        Err(error) => {
            let fix = "Correct the variable: see docs/configuration.md#environment.";
            report.add_problem("environment", ErrorChain(&error).to_string(), fix);
            None
        }
    }
}

/// Loads the configuration and builds the app from it.
fn build_app(environment: &Environment, report: &mut Report) -> Option<App> {
    let config = match Config::load(&environment.config) {
        Ok(config) => config,
        Err(error) => {
            let fix = match &error {
                config::Error::Read { .. } => "Name the file in PEERGATE_CONFIG, and let this user read it.",
                config::Error::Invalid { .. }
                | config::Error::MissingVariable { .. }
                | config::Error::MalformedVariable { .. } => {
                    "Correct the file: peergate.example.toml has every key, and docs/configuration.md explains them."
                }
            };
            report.add_problem("configuration", ErrorChain(&error).to_string(), fix);
            return None;
        }
    };
    let rules = config.policy.rules.len();
    report.add_healthy(
        "configuration",
        format!("targets: {}, rules: {rules}, channels: {}", config.targets.len(), config.channels.len()),
    );
    if rules == 0 {
        report.add_warning("rules", "there is no rule, so nothing can be approved", "Add a [[rule]].");
    }
    examine_rules(&config.policy, report);
    match App::new(environment, config) {
        Ok(app) => Some(app),
        Err(error) => {
            let fix = "Correct the variable, or the file that it names.";
            report.add_problem("HTTP client", ErrorChain(&error).to_string(), fix);
            None
        }
    }
}

/// Checks that each rule has enough approvers for each known account. A rule without `requester_accounts` covers every
/// account, and the contacts of the requesting account cannot approve.
fn examine_rules(policy: &Policy, report: &mut Report) {
    for rule in policy.rules.iter().filter(|rule| rule.requester_accounts.is_none()) {
        for account in policy.accounts.keys() {
            let approvers = policy.approvers_of(rule, Some(*account)).len();
            if approvers < rule.needed_approvers() {
                let detail = format!(
                    "the rule requires {} approvers for a request of account {account}, but only {approvers} are not \
                     contacts of the account",
                    rule.needed_approvers()
                );
                let fix = "Name more approvers, or list the accounts of the rule in `requester_accounts`.";
                report.add_warning(format!("rule {}", rule.name), detail, fix);
            }
        }
    }
}

/// Stops if the table gives no answer: each further check would wait for it, too.
async fn examine_store(surroundings: &Surroundings, app: &App, now: Timestamp, report: &mut Report) {
    let Ok(instance_id) = InstanceId::parse(NONEXISTENT_ID) else { return };
    let id = ApprovalId { target: "doctor".into(), instance_id };
    let query = app.store.due_entries(now, None).await.map(|_| ());
    if !report_store_call(surroundings, report, "table, query", "dynamodb:Query on the index", query) {
        return;
    }
    let load = app.store.load(&id).await.map(|_| ());
    report_store_call(surroundings, report, "table, reading", "dynamodb:GetItem on the table", load);
    let load_many = app.store.load_many(&[id]).await.map(|_| ());
    report_store_call(surroundings, report, "table, reading many", "dynamodb:BatchGetItem on the table", load_many);
    let write = app.store.check_write_permission().await;
    report_store_call(surroundings, report, "table, writing", "dynamodb:PutItem on the table", write);
}

/// Reports the result of a call. Returns whether the table gave an answer.
fn report_store_call(
    surroundings: &Surroundings,
    report: &mut Report,
    subject: &str,
    permission: &str,
    result: Result<(), store::Error>,
) -> bool {
    let Err(error) = result else {
        report.add_healthy(subject, "allowed");
        return true;
    };
    let text = error.to_string();
    report.add_problem(
        subject,
        surroundings.describe_table_error(&text),
        surroundings.fix_table_call(&text, permission),
    );
    !text.contains(NO_ANSWER)
}

async fn examine_secrets(
    surroundings: &Surroundings,
    app: &App,
    now: Timestamp,
    report: &mut Report,
) -> Option<Arc<SecretSet>> {
    match app.secrets.current(now).await {
        Ok(secrets) => {
            examine_secrets_age(&app.secrets, now, report).await;
            Some(secrets)
        }
        Err(error) => {
            let text = error.to_string();
            let fix = match &error {
                secrets::Error::Unavailable(_) => surroundings.fix_secrets_fetch(&text),
                secrets::Error::Malformed(_) => "Correct the secrets: see docs/configuration.md#secrets.".to_owned(),
            };
            report.add_problem("secrets", surroundings.describe_secrets_error(&text), fix);
            None
        }
    }
}

async fn examine_secrets_age(secrets: &SecretsStore, now: Timestamp, report: &mut Report) {
    let Some(stored_at) = secrets.stored_at().await else { return report.add_healthy("secrets", "complete") };
    let age = now.duration_since(stored_at);
    let days = age.as_hours() / 24;
    let detail = format!("stored {days} {} ago", if days == 1 { "day" } else { "days" });
    if age > MAX_SECRETS_AGE {
        report.add_warning("secrets", detail, "Rotate them: see docs/operate.md#runbooks.");
    } else {
        report.add_healthy("secrets", detail);
    }
}

fn report_renamed_keys(config: &Config, secrets: &SecretSet, report: &mut Report) {
    for name in config.renamed_tables.iter().chain(&secrets.renamed_keys) {
        let detail = format!("`{name}` is the name that an earlier version used");
        let fix = format!("Rename it to `platforms.{name}`, in peergate.toml and in the secrets.");
        report.add_warning("names", detail, fix);
    }
}

/// Checks the clock, the targets and the channels at the same time.
async fn examine_outside_services(
    app: &App,
    secrets: &SecretSet,
    post_test: bool,
    now: Timestamp,
    deadline: Instant,
    report: &mut Report,
) {
    let clock = run_with_deadline("clock".into(), deadline, async |report| examine_clock(app, now, report).await);
    let targets = app.config.targets.iter().map(|(name, target)| {
        let examine = async |report: &mut Report| target::examine_target(app, name, target, now, report).await;
        run_with_deadline(format!("target {name}"), deadline, examine)
    });
    let channels = app.config.channels.iter().map(|(name, channel)| {
        let examine = async |report: &mut Report| examine_channel(app, secrets, name, channel, post_test, report).await;
        run_with_deadline(format!("channel {name}"), deadline, examine)
    });
    let (clock, (targets, channels)) = join(clock, join(join_all(targets), join_all(channels))).await;
    report.0.extend(std::iter::once(clock).chain(targets).chain(channels).flat_map(|part| part.0));
}

/// The results that a check has by the deadline.
async fn run_with_deadline(subject: String, deadline: Instant, examine: impl AsyncFnOnce(&mut Report)) -> Report {
    let mut report = Report::default();
    if timeout_at(deadline, examine(&mut report)).await.is_err() {
        report.add_unknown(subject, "there was no time for all checks", "Check the network, and run the doctor again.");
    }
    report
}

async fn examine_clock(app: &App, now: Timestamp, report: &mut Report) {
    let Some((_, target)) = app.config.targets.first_key_value() else { return };
    let response = app.http.head(target.endpoint.clone()).send().await;
    let date = response.as_ref().ok().and_then(|response| response.headers().get("date")?.to_str().ok());
    let Some(vendor_time) = date.and_then(http::parse_date) else {
        let host = target.endpoint.host_str().unwrap_or_default();
        match response.err() {
            None => report.add_unknown(
                "clock",
                format!("{host} sends no date"),
                "Check the `endpoint` of the target: another server seems to answer.",
            ),
            Some(error) => {
                report.add_unknown("clock", http::describe_transport(&error), Unreachable::of(&error).fix());
            }
        }
        return;
    };
    let skew = now.duration_since(vendor_time).abs();
    let detail = format!("{} s from Alibaba Cloud's", skew.as_secs());
    let fix = "Set the clock: Alibaba Cloud refuses calls from 15 minutes on.";
    if skew >= MAX_CLOCK_SKEW {
        report.add_problem("clock", detail, fix);
    } else if skew >= MIN_REPORTED_CLOCK_SKEW {
        report.add_warning("clock", detail, fix);
    } else {
        report.add_healthy("clock", detail);
    }
}

async fn examine_channel(
    app: &App,
    secrets: &SecretSet,
    name: &str,
    channel: &Channel,
    post_test: bool,
    report: &mut Report,
) {
    let subject = format!("channel {name}");
    let test = Message { headline: "peergate can post here".into(), ..Message::default() };
    match channel.probe(app.chat_context(secrets), name, post_test.then_some(&test)).await {
        Ok(detail) => report.add_healthy(subject, detail),
        Err(ProbeError::Problem { detail, fix }) => report.add_problem(subject, detail, fix),
        Err(ProbeError::Delivery(DeliveryError { error, retry: RetryPolicy::Backoff(_), .. })) => {
            let fix = Unreachable::named_in(&error)
                .map_or("Run the doctor again: such an error often passes.", Unreachable::fix);
            report.add_unknown(subject, error, fix);
        }
        Err(ProbeError::Delivery(DeliveryError { error, .. })) => {
            let fix = fix_channel_refusal(channel, &error);
            report.add_problem(subject, error, fix);
        }
    }
}

/// What to do when a server answers, but takes no message.
fn fix_channel_refusal(channel: &Channel, error: &str) -> &'static str {
    match (channel.id().is_some(), error) {
        (true, "HTTP 404") => "Check the `api` of the platform in peergate.toml.",
        (true, _) => {
            "Check the app's token or secret, its scopes, the channel's id, and that the bot is in the channel."
        }
        (false, "HTTP 401" | "HTTP 403") => {
            "Check the URL and the signing secrets of the channel: the server refuses them."
        }
        (false, "HTTP 404" | "HTTP 410") => {
            "Check the URL of the channel in the secrets: the server knows no such URL."
        }
        (false, _) => "Check the URL of the channel in the secrets, and the log of the server.",
    }
}

//! Which rule decides about a request, in words.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use super::case::{DescribedConnection, DescribedRequest};
use super::{read_file, shown_path};
use crate::alicloud;
use crate::chat::message::{sanitize_line, sanitize_lines, sanitize_text};
use crate::config::Config;
use crate::fake::Error;
use crate::local::audit::RecordSource;
use crate::local::count_of;
use crate::peering::{Connection, InstanceId};
use crate::policy::{FactExplanation, RuleExplanation, RuleOutcome};

/// Explains a request: a record, or a file.
///
/// # Errors
/// What cannot be read.
pub(super) async fn explain_request(
    config: &Config,
    request: &str,
    target: Option<&str>,
    source: &RecordSource,
) -> Result<String, Error> {
    let path = Path::new(request);
    let is_record = request.rsplit('/').next().is_some_and(|id| InstanceId::parse(id).is_ok()) && !path.exists();
    if !is_record {
        return explain(config, &read_request(config, path, target)?);
    }
    let mut texts = vec![];
    for stored in source.find_records(request).await? {
        let (target, connection) = (stored.approval.id().target.clone(), stored.approval.connection().clone());
        texts.push(explain(config, &DescribedConnection { target, connection })?);
    }
    Ok(texts.join("\n"))
}

/// Reads a request from a file: the vendor's answer as JSON, or the facts as TOML.
fn read_request(config: &Config, path: &Path, target: Option<&str>) -> Result<DescribedConnection, Error> {
    let text = read_file(path)?;
    if !text.trim_start().starts_with('{') {
        let mut described: DescribedRequest = toml::from_str(&text)
            .map_err(|error| format!("{}: {}", shown_path(path), sanitize_lines(&error.to_string())))?;
        described.target = described.target.or_else(|| target.map(ToOwned::to_owned));
        return described.to_connection(config);
    }
    let connection =
        parse_answer(&text).map_err(|problem| format!("{}: {}", shown_path(path), sanitize_line(&problem)))?;
    let (target, _) = match target {
        Some(name) => config.find_target(Some(name)),
        // The account says which target it is.
        None => config
            .targets
            .iter()
            .find(|(_, target)| target.account == connection.accepter.account)
            .map(|(name, target)| (name.as_str(), target)),
    }
    .ok_or_else(|| format!("no target has the account {}", connection.accepter.account))?;
    Ok(DescribedConnection { target: target.to_owned(), connection })
}

fn parse_answer(text: &str) -> Result<Connection, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        instance_id: InstanceId,
    }
    let answer: Answer = serde_json::from_str(text).map_err(|error| error.to_string())?;
    alicloud::parse_connection_body(200, text.as_bytes(), &answer.instance_id).map_err(|error| error.to_string())
}

fn explain(config: &Config, DescribedConnection { target, connection }: &DescribedConnection) -> Result<String, Error> {
    let rules = config.policy.explain_rules(target, connection);
    let mut text = match rules.iter().find(|rule| rule.outcome == RuleOutcome::Decides) {
        Some(deciding) => describe_deciding(config, deciding, connection),
        None => "No rule matches, so nobody can approve this request.\n".to_owned(),
    };
    for explanation in &rules {
        writeln!(text, "\n{}", describe_outcome(explanation))?;
        for FactExplanation { fact, value, allowed, matches } in &explanation.facts {
            let mark = if *matches { '✓' } else { '✗' };
            let (value, allowed) = (sanitize_line(value), sanitize_line(allowed.as_deref().unwrap_or("any")));
            writeln!(text, "  {mark} {:<18} {value} (allowed: {allowed})", fact.to_string())?;
        }
    }
    Ok(text)
}

/// What a rule says about the request, in a sentence.
pub(in crate::local) fn describe_outcome(explanation: &RuleExplanation<'_>) -> String {
    let RuleExplanation { number, rule, facts, outcome } = explanation;
    let said = match outcome {
        RuleOutcome::Decides => "decides".to_owned(),
        RuleOutcome::ComesLater => "matches, but an earlier rule decides".to_owned(),
        RuleOutcome::DoesNotMatch => format!("does not match: {}", join_mismatches(facts)),
    };
    format!("Rule {number}, “{}”, {said}.", sanitize_text(&rule.name))
}

fn join_mismatches(facts: &[FactExplanation]) -> String {
    let differing = facts.iter().filter(|fact| !fact.matches).map(|fact| fact.fact.to_string());
    differing.collect::<Vec<_>>().join(", ")
}

/// Who decides under the rule.
pub(in crate::local) fn describe_deciding(
    config: &Config,
    explanation: &RuleExplanation<'_>,
    connection: &Connection,
) -> String {
    let RuleExplanation { number, rule, .. } = explanation;
    let approvers = config.policy.approvers_of(rule, Some(connection.requester.account));
    let approvers: Vec<_> = approvers.iter().map(|approver| sanitize_line(approver)).collect();
    let who = match (rule.approvals, approvers.is_empty()) {
        (0, true) => "peergate accepts without people if every check passes".to_owned(),
        (0, false) => {
            format!("peergate accepts without people if every check passes; otherwise one of {}", approvers.join(", "))
        }
        (_, true) => "nobody can approve: the rule has no approvers besides the requester's contacts".to_owned(),
        (needed, false) => {
            let needed = usize::try_from(needed).unwrap_or(usize::MAX);
            format!("it requires {} of {}", count_of(needed, "approval", "approvals"), approvers.join(", "))
        }
    };
    let reason = if rule.require_reason { ", each with a reason" } else { "" };
    let channels = if rule.channels.is_empty() { "no channel".to_owned() } else { rule.channels.join(", ") };
    format!("Rule {number}, “{}”, decides: {who}{reason}. Notifications go to {channels}.\n", sanitize_text(&rule.name))
}

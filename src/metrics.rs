//! Metrics for CloudWatch: JSON lines in its embedded metric format on standard output, after each invocation. Without a
//! [`Collector`] nothing is counted; the local tool has none.
//!
//! `docs/operate.md` describes each metric. Most of them are in an alarm or in the dashboard of `template.yaml`.
//!
//! Source: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use ::metrics::{Unit, counter, describe_histogram, histogram};
use http::StatusCode;
use jiff::SignedDuration;

use crate::approval::{Approval, ApprovalState, AuditEvent, Reminder, Verdict, failure_code};
use crate::peering::Status;

/// The namespace of all metrics in CloudWatch. Their dimension is the name of the function.
pub const NAMESPACE: &str = "peergate";

/// Started processes.
pub const COLD_STARTS: &str = "ColdStarts";
/// Responses with a 5xx status.
pub const SERVER_ERRORS: &str = "ServerErrors";
/// Requests that are not authentic.
pub const SIGNATURE_FAILURES: &str = "SignatureFailures";
/// Authentic requests, by sender and by the position of the key in the secrets, from 0.
pub const SIGNING_KEYS: &str = "SigningKeys";
/// Stored decisions, by verdict.
pub const DECISIONS: &str = "Decisions";
/// Acknowledged accepts.
pub const ACCEPTS: &str = "Accepts";
/// Connections that became active after an approval in peergate.
pub const ACTIVATIONS: &str = "Activations";
/// The seconds from the decision to the activation.
pub const TIME_TO_ACTIVATED: &str = "TimeToActivated";
/// Connections that somebody accepted outside peergate, although peergate had to show them to people first.
pub const BYPASSES: &str = "Bypasses";
/// Approvals that people were reminded of because they take too long.
pub const STUCK_APPROVALS: &str = "StuckApprovals";
/// Changes of activated connections that nobody approved.
pub const DRIFTS: &str = "Drifts";
/// Answers of Alibaba Cloud, by code: `OK`, the vendor's code, or a code of peergate for a call without an answer.
pub const API_ANSWERS: &str = "ApiAnswers";
/// Throttled calls: by Alibaba Cloud, or by our own rate limit before they are sent.
pub const THROTTLED: &str = "Throttled";
/// Refused credentials or permissions.
pub const CREDENTIALS_REFUSED: &str = "CredentialsRefused";
/// Notifications that no channel took.
pub const UNDELIVERED_NOTIFICATIONS: &str = "UndeliveredNotices";
/// The age in seconds of the oldest notification that no channel took.
pub const OLDEST_UNDELIVERED_NOTIFICATION: &str = "OldestUndeliveredNotice";
/// Finished ticks.
pub const TICKS: &str = "Ticks";

/// The codes that a process counts by name. Each code is a separate metric and costs money.
static LABELS: CodeLabels = CodeLabels(Mutex::new(BTreeSet::new()));
/// The most codes that are counted by name. All others are counted as `Other`.
const MAX_LABELS: usize = 60;

/// Labels with a limit, because the vendor chooses the codes.
struct CodeLabels(Mutex<BTreeSet<String>>);

impl CodeLabels {
    fn label_for(&self, code: &str) -> String {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(code) {
            return code.to_owned();
        }
        // The codes of peergate are few, and always have a label.
        let is_ours = code == "OK" || ["Throttling", "Transport."].iter().any(|family| code.starts_with(family));
        if known.len() < MAX_LABELS || is_ours && known.len() < MAX_LABELS * 2 {
            known.insert(code.to_owned());
            return code.to_owned();
        }
        "Other".to_owned()
    }
}

/// Collects the metrics of an invocation.
#[derive(Clone, Copy)]
pub struct Collector(&'static metrics_cloudwatch_embedded::Collector);

/// There is a collector already.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be collected: {0}")]
pub struct CollectorError(String);

impl Collector {
    /// Starts to collect the metrics of the function with this name, and counts the cold start.
    ///
    /// # Errors
    /// When there is a collector already.
    pub fn start(function: String) -> Result<Self, CollectorError> {
        let builder = metrics_cloudwatch_embedded::Builder::new().cloudwatch_namespace(NAMESPACE);
        let collector = builder.with_dimension("FunctionName", function).init();
        let collector = collector.map_err(|error| CollectorError(error.to_string()))?;
        describe_histogram!(TIME_TO_ACTIVATED, Unit::Seconds, "");
        describe_histogram!(OLDEST_UNDELIVERED_NOTIFICATION, Unit::Seconds, "");
        counter!(COLD_STARTS).increment(1);
        Ok(Self(collector))
    }

    /// Writes the metrics of an invocation.
    pub fn flush(&self, request_id: &str) {
        self.0.set_property("request_id", request_id);
        if let Err(error) = self.0.flush(std::io::stdout().lock()) {
            tracing::warn!(outcome = "not_counted", %error, "could not write the metrics");
        }
    }
}

/// Counts a response of the webhook.
pub(crate) fn count_response(status: StatusCode) {
    if status == StatusCode::UNAUTHORIZED {
        counter!(SIGNATURE_FAILURES).increment(1);
    } else if status.is_server_error() {
        counter!(SERVER_ERRORS).increment(1);
    }
}

/// Counts an authentic request.
pub(crate) fn count_signing_key(sender: &str, key: usize) {
    counter!(SIGNING_KEYS, "Sender" => sender.to_owned(), "Key" => key.to_string()).increment(1);
}

/// Counts what the new entries of a stored record report. The history had `known` entries before.
pub(crate) fn count_new_entries(approval: &Approval, known: usize) {
    for entry in approval.history().iter().skip(known) {
        match &entry.event {
            AuditEvent::Decided(decision) => counter!(DECISIONS, "Verdict" => decision.verdict.name()).increment(1),
            AuditEvent::Acknowledged { operation, .. } if operation == Verdict::Approve.operation() => {
                counter!(ACCEPTS).increment(1);
            }
            // An approval that is first observed as activated has skipped the acknowledgment.
            AuditEvent::Observed(Status::Activated) if entry.state == ApprovalState::Activated => {
                // A connection that was accepted outside peergate does not count.
                if let Some(winner) = approval.winner().filter(|_| approval.is_accepted_by_us()) {
                    counter!(ACTIVATIONS).increment(1);
                    histogram!(TIME_TO_ACTIVATED).record(entry.at.duration_since(winner.at).as_secs_f64());
                }
            }
            AuditEvent::Observed(Status::Activated) | AuditEvent::Corrected { .. }
                if entry.state == ApprovalState::Activating && !approval.is_accepted_by_us() =>
            {
                counter!(BYPASSES).increment(1);
            }
            AuditEvent::Failed(problem) if problem.code == failure_code::ACCEPTED_ELSEWHERE => {
                counter!(BYPASSES).increment(1);
            }
            AuditEvent::Reminded(Reminder::Stuck) => counter!(STUCK_APPROVALS).increment(1),
            AuditEvent::Drifted { .. } => counter!(DRIFTS).increment(1),
            AuditEvent::Discovered { .. }
            | AuditEvent::Changed { .. }
            | AuditEvent::RuleChanged { .. }
            | AuditEvent::Withdrawn { .. }
            | AuditEvent::Acknowledged { .. }
            | AuditEvent::Observed(_)
            | AuditEvent::Missing
            | AuditEvent::FactsDiffer { .. }
            | AuditEvent::DriftEnded
            | AuditEvent::DriftAcknowledged { .. }
            | AuditEvent::Adopted { .. }
            | AuditEvent::Failed(_)
            | AuditEvent::Reminded(_)
            | AuditEvent::SentBack { .. }
            | AuditEvent::Corrected { .. } => {}
        }
    }
}

/// Counts a call to Alibaba Cloud by its result.
pub(crate) fn count_api_answer(code: &str, credentials_refused: bool) {
    counter!(API_ANSWERS, "Code" => LABELS.label_for(code)).increment(1);
    if code.contains("Throttling") {
        counter!(THROTTLED).increment(1);
    }
    if credentials_refused {
        counter!(CREDENTIALS_REFUSED).increment(1);
    }
}

/// Counts a credentials error that [`count_api_answer`] has not counted.
pub(crate) fn count_credentials_refused() {
    counter!(CREDENTIALS_REFUSED).increment(1);
}

/// Counts the notifications of a tick that no channel took. Only the age of the oldest one is recorded, because the metric
/// format keeps 100 values at most.
pub(crate) fn count_undelivered(notifications: u32, oldest_age: Option<SignedDuration>) {
    if let Some(oldest_age) = oldest_age {
        counter!(UNDELIVERED_NOTIFICATIONS).increment(notifications.into());
        histogram!(OLDEST_UNDELIVERED_NOTIFICATION).record(oldest_age.as_secs_f64());
    }
}

/// Counts a finished tick.
pub(crate) fn count_tick() {
    counter!(TICKS).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excess_codes_are_counted_as_other() {
        let labels = CodeLabels(Mutex::default());
        for number in 0..1000 {
            let label = labels.label_for(&format!("Code{number}"));
            assert_eq!(label == "Other", number >= MAX_LABELS, "{label}");
        }
        assert_eq!((labels.label_for("Code0").as_str(), labels.label_for("OK").as_str()), ("Code0", "OK"));
        assert_eq!(labels.label_for("Throttling.User"), "Throttling.User");
        assert_eq!(labels.label_for("Code999"), "Other");
    }
}

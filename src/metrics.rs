//! What is counted for CloudWatch: JSON lines in its embedded metric format on standard output, written after each
//! invocation. Nothing is counted unless a [`Collector`] is there: the local tool has none.
//!
//! Every name here is one of `OPERATING.md`, and most are in an alarm or the dashboard of `template.yaml`.
//!
//! Source: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use ::metrics::{Unit, counter, describe_histogram, histogram};
use http::StatusCode;
use jiff::SignedDuration;

use crate::approval::{Approval, ApprovalState, AuditEvent, Reminder, Verdict};
use crate::peering::Status;

/// Where all metrics are in CloudWatch, by function.
pub const NAMESPACE: &str = "peergate";

/// Processes that were started.
pub const COLD_STARTS: &str = "ColdStarts";
/// Answers with 5xx.
pub const SERVER_ERRORS: &str = "ServerErrors";
/// Requests that were not authentic.
pub const SIGNATURE_FAILURES: &str = "SignatureFailures";
/// Requests that were, by sender and the place of the key in the secrets' list, from 0.
pub const SIGNING_KEYS: &str = "SigningKeys";
/// Decisions that were stored, by verdict.
pub const DECISIONS: &str = "Decisions";
/// Accepts that Alibaba Cloud acknowledged.
pub const ACCEPTS: &str = "Accepts";
/// Connections that became usable after somebody decided about them here.
pub const ACTIVATIONS: &str = "Activations";
/// Seconds from the decision until then.
pub const TIME_TO_ACTIVATED: &str = "TimeToActivated";
/// Approvals of which people were told that they take too long.
pub const STUCK_APPROVALS: &str = "StuckApprovals";
/// Answers of Alibaba Cloud, by code: `OK`, the vendor's, or ours for what is not the vendor's.
pub const API_ANSWERS: &str = "ApiAnswers";
/// Of these, those that said that we ask too often, or were not even asked for that reason.
pub const THROTTLED: &str = "Throttled";
/// Of these, those that refused our credentials or permissions.
pub const CREDENTIALS_REFUSED: &str = "CredentialsRefused";
/// Posts that no channel took.
pub const UNDELIVERED_NOTIFICATIONS: &str = "UndeliveredNotices";
/// Of these, how many seconds ago happened what they tell of.
pub const OLDEST_UNDELIVERED_NOTIFICATION: &str = "OldestUndeliveredNotice";
/// Ticks that came to their end.
pub const TICKS: &str = "Ticks";

/// The codes that a process has counted by name. Each is a metric and costs money.
static LABELS: CodeLabels = CodeLabels(Mutex::new(BTreeSet::new()));
/// How many codes are counted by name; all others are counted together.
const MAX_LABELS: usize = 60;

/// Metric labels that the vendor chooses, limited in number.
struct CodeLabels(Mutex<BTreeSet<String>>);

impl CodeLabels {
    fn label_for(&self, code: &str) -> String {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(code) {
            return code.to_owned();
        }
        // Our own codes are few and always get a name.
        let is_ours = code == "OK" || ["Throttling", "Transport."].iter().any(|family| code.starts_with(family));
        if known.len() < MAX_LABELS || is_ours && known.len() < MAX_LABELS * 2 {
            known.insert(code.to_owned());
            return code.to_owned();
        }
        "Other".to_owned()
    }
}

/// Collects what is counted between two invocations.
#[derive(Clone, Copy)]
pub struct Collector(&'static metrics_cloudwatch_embedded::Collector);

/// Somebody else counts already.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be collected: {0}")]
pub struct CollectorError(String);

impl Collector {
    /// Begins to count, with the process of a function of this name.
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

    /// Writes down what was counted in an invocation.
    pub fn flush(&self, request_id: &str) {
        self.0.set_property("request_id", request_id);
        if let Err(error) = self.0.flush(std::io::stdout().lock()) {
            tracing::warn!(outcome = "not_counted", %error, "metrics could not be written");
        }
    }
}

/// A request was answered.
pub(crate) fn count_response(status: StatusCode) {
    if status == StatusCode::UNAUTHORIZED {
        counter!(SIGNATURE_FAILURES).increment(1);
    } else if status.is_server_error() {
        counter!(SERVER_ERRORS).increment(1);
    }
}

/// A sender was made sure of.
pub(crate) fn count_signing_key(sender: &str, key: usize) {
    counter!(SIGNING_KEYS, "Sender" => sender.to_owned(), "Key" => key.to_string()).increment(1);
}

/// A record was stored whose history had `known` entries before.
pub(crate) fn count_new_entries(approval: &Approval, known: usize) {
    for entry in approval.history.iter().skip(known) {
        match &entry.event {
            AuditEvent::Decided(decision) => counter!(DECISIONS, "Verdict" => decision.verdict.name()).increment(1),
            AuditEvent::Acknowledged { operation, .. } if operation == Verdict::Approve.operation() => {
                counter!(ACCEPTS).increment(1);
            }
            // Who sees it for the first time when it is activated already, sees it accepted, too.
            AuditEvent::Observed(Status::Activated) if entry.state == ApprovalState::Activated => {
                // Not what others accepted.
                if let Some(winner) = approval.winner().filter(|_| approval.is_accepted_by_us()) {
                    counter!(ACTIVATIONS).increment(1);
                    histogram!(TIME_TO_ACTIVATED).record(entry.at.duration_since(winner.at).as_secs_f64());
                }
            }
            AuditEvent::Reminded(Reminder::Stuck) => counter!(STUCK_APPROVALS).increment(1),
            AuditEvent::Discovered { .. }
            | AuditEvent::Changed { .. }
            | AuditEvent::RuleChanged { .. }
            | AuditEvent::Withdrawn { .. }
            | AuditEvent::Acknowledged { .. }
            | AuditEvent::Observed(_)
            | AuditEvent::Missing
            | AuditEvent::FactsDiffer { .. }
            | AuditEvent::Failed(_)
            | AuditEvent::Reminded(_)
            | AuditEvent::SentBack { .. }
            | AuditEvent::Corrected { .. } => {}
        }
    }
}

/// Alibaba Cloud answered a call, or did not; without an error, with what was asked for.
pub(crate) fn count_api_answer(code: &str, credentials_refused: bool) {
    counter!(API_ANSWERS, "Code" => LABELS.label_for(code)).increment(1);
    if code.contains("Throttling") {
        counter!(THROTTLED).increment(1);
    }
    if credentials_refused {
        counter!(CREDENTIALS_REFUSED).increment(1);
    }
}

/// Counts an error of our credentials that no call to Alibaba Cloud has counted.
pub(crate) fn count_credentials_refused() {
    counter!(CREDENTIALS_REFUSED).increment(1);
}

/// So many posts of a tick were not taken, and the oldest of them told of something that happened so long ago. One value:
/// of a hundred, the format would forget the rest.
pub(crate) fn count_undelivered(posts: u32, oldest: Option<SignedDuration>) {
    if let Some(oldest) = oldest {
        counter!(UNDELIVERED_NOTIFICATIONS).increment(posts.into());
        histogram!(OLDEST_UNDELIVERED_NOTIFICATION).record(oldest.as_secs_f64());
    }
}

/// A tick has come to its end.
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

//! Limits for what people write into a record: each request counts once, and the record always fits into the store.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Approval, ApprovalState, Approver, AuditEvent, Decision, DecisionError, NotificationKind};

/// How many bytes people may write. Above it, a record takes only decisions about a pending request. The store takes
/// 400 KB per record.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
const MAX_PEOPLE_BYTES: usize = 128 * 1024;
/// How many more bytes approvals may use. The decision that completes an approval has no limit, unless it follows a
/// failure.
const APPROVALS_RESERVE_BYTES: usize = 32 * 1024;
/// How often one person may withdraw in one generation.
const MAX_WITHDRAWALS: usize = 20;
/// How many refused requests a record remembers, and for how long.
const MAX_REFUSED: usize = 50;
const REFUSED_TTL: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Identifies a request. The same key with other content is another request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// The sender's id of the request.
    pub key: String,
    /// Hash of the content, see [`super::hash_request`]. `None` if an earlier version stored the request.
    pub content: Option<String>,
}

impl RequestId {
    pub(super) fn of(decision: &Decision) -> Self {
        Self { key: decision.request_key.clone(), content: decision.request_content.clone() }
    }
}

/// A request that stays refused, because its sender had not seen the facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRequest {
    request_key: String,
    request_content: Option<String>,
    at: Timestamp,
}

impl Approval {
    /// Whether this request has already counted. A replay must not count again.
    ///
    /// # Errors
    /// [`DecisionError::IdReused`] if another request has the same id. [`DecisionError::RefusedBefore`] if this request
    /// was refused.
    pub fn check_replay(&self, request: &RequestId) -> Result<bool, DecisionError> {
        let is_other = |content: Option<&String>| {
            content.zip(request.content.as_ref()).is_some_and(|(earlier, now)| earlier != now)
        };
        let mut has_counted = false;
        for earlier in self.history.iter().filter_map(|entry| entry.event.request()) {
            if earlier.key == request.key {
                if is_other(earlier.content.as_ref()) {
                    return Err(DecisionError::IdReused);
                }
                has_counted = true;
            }
        }
        match self.refused.iter().find(|refused| refused.request_key == request.key) {
            Some(refused) if is_other(refused.request_content.as_ref()) => Err(DecisionError::IdReused),
            Some(_) => Err(DecisionError::RefusedBefore),
            None => Ok(has_counted),
        }
    }

    /// Remembers a refused request, so that no retry of it ever counts. Its sender had not seen the facts.
    pub fn refuse_request(&mut self, request: &RequestId, now: Timestamp) {
        self.refused.retain(|refused| now.duration_since(refused.at) < REFUSED_TTL);
        let RequestId { key, content } = request.clone();
        self.refused.push(RefusedRequest { request_key: key, request_content: content, at: now });
        let excess = self.refused.len().saturating_sub(MAX_REFUSED);
        self.refused.drain(..excess);
    }

    /// Checks that the record has room for a decision after a failure.
    pub(super) fn check_room_for_generation(&self) -> Result<(), DecisionError> {
        if self.bytes_from_people() > MAX_PEOPLE_BYTES { Err(DecisionError::RecordFull) } else { Ok(()) }
    }

    /// Checks that the record has room for the decision that was just added. It always has room for a decision that
    /// completes the approval.
    pub(super) fn check_room_for_decision(&self) -> Result<(), DecisionError> {
        let completes = self.state != ApprovalState::Pending;
        let max_bytes = MAX_PEOPLE_BYTES.saturating_add(APPROVALS_RESERVE_BYTES);
        if completes || self.bytes_from_people() <= max_bytes { Ok(()) } else { Err(DecisionError::RecordFull) }
    }

    /// Checks that the person may withdraw once more, and that the record has room for it.
    pub(super) fn check_withdrawal(&self, by: &Approver) -> Result<(), DecisionError> {
        let is_theirs = |event: &AuditEvent| matches!(event, AuditEvent::Withdrawn { by: earlier, .. } if earlier.is_same_person(by));
        let earlier = self.history.entries_of_generation(self.generation).filter(|entry| is_theirs(&entry.event));
        if earlier.count() >= MAX_WITHDRAWALS {
            return Err(DecisionError::TooManyWithdrawals);
        }
        if self.bytes_from_people() > MAX_PEOPLE_BYTES { Err(DecisionError::RecordFull) } else { Ok(()) }
    }

    /// Whether a correction may once more write the approvals that it restores.
    pub(super) fn has_room_to_restore(&self) -> bool {
        self.bytes_from_people() <= MAX_PEOPLE_BYTES.saturating_add(APPROVALS_RESERVE_BYTES)
    }

    /// Size of all parts of the record that people wrote, in bytes.
    fn bytes_from_people(&self) -> usize {
        let history: usize = self.history.iter().filter(|entry| entry.event.request().is_some()).map(json_size).sum();
        let acknowledgments = self.drift().map(|drift| drift.acknowledgments.as_slice()).unwrap_or_default();
        let decisions: usize = self.decisions.iter().chain(acknowledgments).map(json_size).sum();
        let notifications = self.outbox.iter().filter(|notification| {
            matches!(
                notification.kind,
                NotificationKind::Decided { .. }
                    | NotificationKind::Withdrawn { .. }
                    | NotificationKind::DriftAcknowledged { .. }
            )
        });
        let notifications: usize = notifications.map(json_size).sum();
        let refused: usize = self.refused.iter().map(json_size).sum();
        let restored = self
            .history
            .iter()
            .filter(|entry| matches!(entry.event, AuditEvent::Corrected { .. }))
            .map(json_size)
            .sum();
        [decisions, notifications, refused, restored].into_iter().fold(history, usize::saturating_add)
    }
}

fn json_size<T: Serialize>(part: &T) -> usize {
    serde_json::to_vec(part).map_or(0, |json| json.len())
}

//! When a record is due next.

use jiff::{SignedDuration, Timestamp};

use super::{Approval, ApprovalState, UnconfirmedReading};
use crate::peering::FieldHash;
use crate::preflight;

/// Longest `Retry-After` that peergate honors.
pub(super) const MAX_RETRY_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// An activation younger than this is read every [`ACTIVATION_POLL_INTERVAL`].
const ACTIVATION_POLLED_FOR: SignedDuration = SignedDuration::from_mins(5);

/// How often a young activation is read.
const ACTIVATION_POLL_INTERVAL: SignedDuration = SignedDuration::from_millis(2500);

/// When to check a request with an objection again. Somebody may have fixed the cause.
pub(super) const OBJECTION_RECHECK_INTERVAL: SignedDuration = SignedDuration::from_mins(5);

/// When to repeat a check that could not be made.
const MIN_RECHECK_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// The older the request, the longer the wait before such a check is repeated, up to this.
const MAX_RECHECK_INTERVAL: SignedDuration = SignedDuration::from_hours(1);

impl Approval {
    /// Schedules the next step of a pending request: the next reminder, its expiry, or the next check. The watcher
    /// finds changes of the connection by polling.
    pub(super) fn schedule_next_check(&mut self, now: Timestamp) {
        if self.state != ApprovalState::Pending {
            return;
        }
        let recheck_at = if self.findings.is_empty() {
            Some(now)
        } else if preflight::first_objection(&self.findings).is_some() || self.is_past_expiry(now) {
            Some(now + OBJECTION_RECHECK_INTERVAL)
        } else {
            // The older the request, the rarer the check.
            let gap = (now.duration_since(self.since) / 8).clamp(MIN_RECHECK_INTERVAL, MAX_RECHECK_INTERVAL);
            self.needs_recheck().then(|| now + gap)
        };
        let expires_at = self.connection.expires_at;
        let is_open = !self.is_past_expiry(now);
        let remind_at = is_open.then(|| self.reminder_state.next_reminder_at(&self.policy, self.since, expires_at));
        let ends_at = expires_at.filter(|_| is_open);
        let confirm_at = self.unconfirmed.as_ref().map(UnconfirmedReading::next_reading_at);
        self.next_step_at = [remind_at, ends_at, recheck_at, confirm_at].into_iter().flatten().min();
    }

    /// Whether the time for an answer is over, whatever status Alibaba Cloud reports.
    #[must_use]
    pub fn is_past_expiry(&self, now: Timestamp) -> bool {
        self.connection.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// When the record has work to do: a call, a check, a reminder or a delivery. `None` if nothing is left to do.
    #[must_use]
    pub fn work_at(&self) -> Option<Timestamp> {
        self.next_step_at.into_iter().chain(self.outbox.due_at()).min()
    }

    /// When the record has work to do, or its connection must be read. An activation must be read from its start.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        let seen_at = (self.state == ApprovalState::Activating).then_some(self.since);
        self.work_at().into_iter().chain(seen_at).min()
    }

    /// When a watcher that has just worked on the record continues. `None` if the next tick is soon enough.
    #[must_use]
    pub fn recheck_at(&self, now: Timestamp) -> Option<Timestamp> {
        let step = match self.state {
            ApprovalState::Activating => activation_recheck_at(self.since, now),
            ApprovalState::Approved | ApprovalState::Rejecting => self.next_step_at,
            ApprovalState::Pending
            | ApprovalState::Activated
            | ApprovalState::Rejected
            | ApprovalState::Expired
            | ApprovalState::Deleted
            | ApprovalState::Failed { .. } => None,
        };
        step.into_iter().chain(self.outbox.due_at()).min()
    }
}

/// When to read an activation that began at `since` again. `None` if the next tick is soon enough.
#[must_use]
pub fn activation_recheck_at(since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (now.duration_since(since) < ACTIVATION_POLLED_FOR).then_some(now + ACTIVATION_POLL_INTERVAL)
}

/// Returns 1 s, 2 s, 4 s, … up to `max`, minus up to a quarter that depends on `seed`. So records that failed together
/// do not retry together.
pub(super) fn backoff(seed: &str, attempts: u32, max: SignedDuration) -> SignedDuration {
    let full = SignedDuration::from_secs(1_i64 << attempts.min(20)).min(max);
    let mut hash = FieldHash::new("peergate/jitter/1");
    hash.add_field(seed);
    hash.add_field(&attempts.to_string());
    let jitter =
        hash.into_hex().bytes().take(8).fold(0_u32, |sum, digit| sum.wrapping_mul(31).wrapping_add(digit.into()));
    full.mul_f64(1.0 - f64::from(jitter % 1000) / 4000.0)
}

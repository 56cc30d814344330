//! When a record is next worked on.

use jiff::{SignedDuration, Timestamp};

use super::{Approval, ApprovalState, UnconfirmedReading};
use crate::peering::FieldHash;
use crate::preflight;

/// What a vendor or platform may make us wait at most.
pub(super) const MAX_RETRY_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// While an activation is younger than this, the watcher stays and looks every [`LOOK_AGAIN`].
const ACTIVATION_POLLED_FOR: SignedDuration = SignedDuration::from_mins(5);

/// How often a fresh activation is looked at.
const ACTIVATION_POLL_INTERVAL: SignedDuration = SignedDuration::from_millis(2500);

/// What stood against a request may have been mended: it is looked at again after this.
pub(super) const OBJECTION_RECHECK_INTERVAL: SignedDuration = SignedDuration::from_mins(5);

/// What could not be checked is checked again after this.
const MIN_RECHECK_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// If it still could not be after a while, less and less often, up to this.
const MAX_RECHECK_INTERVAL: SignedDuration = SignedDuration::from_hours(1);

impl Approval {
    /// While people have to decide: until somebody is to be reminded, or a check is worth making again. What changes
    /// meanwhile is seen by whoever follows connections.
    pub(super) fn schedule_next_check(&mut self, now: Timestamp) {
        if self.state != ApprovalState::Pending {
            return;
        }
        let again_at = if self.findings.is_empty() {
            Some(now)
        } else if preflight::first_objection(&self.findings).is_some() || self.is_past_expiry(now) {
            Some(now + OBJECTION_RECHECK_INTERVAL)
        } else {
            // What could not be checked for long is checked less often.
            let gap = (now.duration_since(self.since) / 8).clamp(MIN_RECHECK_INTERVAL, MAX_RECHECK_INTERVAL);
            self.needs_recheck().then(|| now + gap)
        };
        let expires_at = self.connection.expires_at;
        let is_open = !self.is_past_expiry(now);
        let remind_at = is_open.then(|| self.reminder_state.next_reminder_at(&self.policy, self.since, expires_at));
        let over_at = expires_at.filter(|_| is_open);
        let confirm_at = self.unconfirmed.as_ref().map(UnconfirmedReading::next_reading_at);
        self.next_step_at = [remind_at, over_at, again_at, confirm_at].into_iter().flatten().min();
    }

    /// Whether the time to answer the request has passed, whatever Alibaba Cloud's status says.
    #[must_use]
    pub fn is_past_expiry(&self, now: Timestamp) -> bool {
        self.connection.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// When there is something to do about the record itself: a call, a look, a reminder, a delivery; `None` when all
    /// is done and told.
    #[must_use]
    pub fn work_at(&self) -> Option<Timestamp> {
        self.next_step_at.into_iter().chain(self.outbox.due_at()).min()
    }

    /// When there is something to do, or to see: an activation is to be seen at any time.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        let seen_at = (self.state == ApprovalState::Activating).then_some(self.since);
        self.work_at().into_iter().chain(seen_at).min()
    }

    /// When a watcher that has just worked on it should look again; `None` if its next tick is soon enough.
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

/// When to see again how far an activation that began at `since` has come; `None` if the next tick is soon enough.
#[must_use]
pub fn activation_recheck_at(since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (now.duration_since(since) < ACTIVATION_POLLED_FOR).then_some(now + ACTIVATION_POLL_INTERVAL)
}

/// 1 s, 2 s, 4 s, … up to `longest`, less up to a quarter that depends on `seed`: what failed together does not come
/// back together.
pub(super) fn backoff(seed: &str, attempts: u32, max: SignedDuration) -> SignedDuration {
    let full = SignedDuration::from_secs(1_i64 << attempts.min(20)).min(max);
    let mut hash = FieldHash::new("peergate/jitter/1");
    hash.add_field(seed);
    hash.add_field(&attempts.to_string());
    let jitter =
        hash.into_hex().bytes().take(8).fold(0_u32, |sum, digit| sum.wrapping_mul(31).wrapping_add(digit.into()));
    full.mul_f64(1.0 - f64::from(jitter % 1000) / 4000.0)
}

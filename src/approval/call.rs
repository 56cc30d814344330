//! The accept and reject calls that peergate makes: whether one may have reached Alibaba Cloud, and its result.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Approval;

/// For this long after a call, a reading that contradicts the call is probably outdated.
const CALL_SETTLE_TIME: SignedDuration = SignedDuration::from_mins(5);
/// For this long after a call begins, no other process makes one.
pub(super) const CALL_LEASE: SignedDuration = SignedDuration::from_secs(8);

/// Result of a call, as far as peergate knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// No call was made.
    NotMade,
    /// Alibaba Cloud refused the call, so it had no effect.
    Refused,
    /// There was no clear answer. The call may have taken effect.
    Unknown,
    /// Alibaba Cloud acknowledged the call.
    Acknowledged,
}

/// The calls of one generation. Stored before the first call, so that a crash between call and answer leaves a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnCall {
    /// All calls carry the client token of this generation.
    pub(super) generation: u32,
    /// When the last call began.
    pub(super) at: Timestamp,
    /// Whether the last call has no result yet.
    pub(super) open: bool,
    /// Whether a call ended with an unknown result.
    pub(super) unsettled: bool,
    /// Whether Alibaba Cloud acknowledged a call.
    pub(super) acknowledged: bool,
}

impl OwnCall {
    pub(super) fn new(earlier: Option<&Self>, generation: u32, now: Timestamp) -> Self {
        let earlier = earlier.filter(|earlier| earlier.generation == generation);
        Self {
            generation,
            at: now,
            open: true,
            // The process that began an open call has died.
            unsettled: earlier.is_some_and(|earlier| earlier.open || earlier.unsettled),
            acknowledged: earlier.is_some_and(|earlier| earlier.acknowledged),
        }
    }

    pub(super) fn record_result(&mut self, result: CallResult) {
        self.open = false;
        match result {
            CallResult::NotMade | CallResult::Refused => {}
            CallResult::Unknown => self.unsettled = true,
            CallResult::Acknowledged => self.acknowledged = true,
        }
    }

    /// Whether a call of this generation may have taken effect.
    pub(super) fn may_have_reached(&self, generation: u32) -> bool {
        self.generation == generation && (self.open || self.unsettled || self.acknowledged)
    }

    /// Whether another process may be making a call now.
    pub(super) fn is_in_progress(&self, generation: u32, now: Timestamp) -> bool {
        let age = now.duration_since(self.at);
        // The clock of another machine may be ahead.
        self.generation == generation && self.open && age.abs() < CALL_LEASE
    }

    pub(super) fn is_recent(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < CALL_SETTLE_TIME
    }
}

impl Approval {
    /// Records that a call begins. The process that stores this makes the call, and no other process does for
    /// [`CALL_LEASE`].
    pub fn begin_call(&mut self, now: Timestamp) {
        self.own_call = Some(OwnCall::new(self.own_call.as_ref(), self.generation, now));
        // Earlier readings say nothing about this call.
        self.unconfirmed = None;
        self.next_step_at = Some(now + CALL_LEASE);
    }

    /// Records the result of the call that has begun.
    pub fn finish_call(&mut self, result: CallResult) {
        if let Some(call) = self.own_call.as_mut().filter(|call| call.generation == self.generation) {
            call.record_result(result);
        }
    }

    /// Whether another process may be making the call now.
    #[must_use]
    pub fn is_call_in_progress(&self, now: Timestamp) -> bool {
        self.own_call.as_ref().is_some_and(|call| call.is_in_progress(self.generation, now))
    }

    /// Whether peergate ever began a call for this connection, in any generation.
    #[must_use]
    pub fn has_called_before(&self) -> bool {
        self.own_call.is_some()
    }

    /// Whether a call of this generation may have reached Alibaba Cloud.
    #[must_use]
    pub fn may_have_called(&self) -> bool {
        self.own_call.as_ref().is_some_and(|call| call.may_have_reached(self.generation))
    }
}

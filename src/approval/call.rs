//! The accept and reject calls that peergate makes: whether one may have reached Alibaba Cloud, and its result.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

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

//! The accept or reject that peergate itself makes: whether one may have reached Alibaba Cloud, and what came of it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long after a call of ours a contradicting reading more likely lags than is true.
const CALL_SETTLE_TIME: SignedDuration = SignedDuration::from_mins(5);
/// How long after a call begins no other process makes one.
pub(super) const CALL_LEASE: SignedDuration = SignedDuration::from_secs(8);

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// None was made.
    NotMade,
    /// Alibaba Cloud refused it: it took no effect.
    Refused,
    /// No answer, or an unclear one: it may have taken effect.
    Unknown,
    /// Alibaba Cloud acknowledged it.
    Acknowledged,
}

/// The calls of a generation. Stored before the first one is made, so that a crash between call and answer leaves a
/// trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnCall {
    /// Whose client token they carry.
    pub(super) generation: u32,
    /// When the last one began.
    pub(super) at: Timestamp,
    /// Whether the last one has no result yet.
    pub(super) open: bool,
    /// Whether one ended without a result.
    pub(super) unsettled: bool,
    /// Whether one was acknowledged.
    pub(super) acknowledged: bool,
}

impl OwnCall {
    pub(super) fn new(earlier: Option<&Self>, generation: u32, now: Timestamp) -> Self {
        let earlier = earlier.filter(|earlier| earlier.generation == generation);
        Self {
            generation,
            at: now,
            open: true,
            // The process of an open call has died.
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

    /// Whether somebody else may be making one now.
    pub(super) fn is_in_progress(&self, generation: u32, now: Timestamp) -> bool {
        let age = now.duration_since(self.at);
        // Another machine's clock may be ahead.
        self.generation == generation && self.open && age.abs() < CALL_LEASE
    }

    pub(super) fn is_recent(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < CALL_SETTLE_TIME
    }
}

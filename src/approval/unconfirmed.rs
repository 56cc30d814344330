//! Readings that require confirmation: "not found" right after a write may only mean that the read was too early.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Minimum time between two readings that confirm each other.
const MIN_CONFIRMATION_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// A result that may be outdated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransientReading {
    /// The connection was not found.
    Missing,
    /// The connection is waiting to be accepted, although peergate made a call.
    Waiting,
}

/// Equal readings that are still too few to be believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedReading {
    /// The result of these readings.
    pub reading: TransientReading,
    /// When the first of them was made.
    pub first_at: Timestamp,
    /// When the last one that counts was made.
    pub last_at: Timestamp,
    /// How many readings count so far.
    pub readings: u32,
    /// How many readings are required.
    pub needed: u32,
}

impl UnconfirmedReading {
    /// Starts with one reading.
    pub(super) fn new(reading: TransientReading, now: Timestamp) -> Self {
        Self { reading, first_at: now, last_at: now, readings: 1, needed: 2 }
    }

    /// Counts another equal reading, unless it comes too soon after the last one. Two readings are required in all, or
    /// three with `after_call`. Returns whether there are enough.
    pub(super) fn count_reading(&mut self, after_call: bool, now: Timestamp) -> bool {
        self.needed = self.needed.max(if after_call { 3 } else { 2 });
        if now >= self.next_reading_at() {
            self.readings = self.readings.saturating_add(1);
            self.last_at = now;
        }
        self.readings >= self.needed
    }

    /// When the next reading can count.
    pub(super) fn next_reading_at(&self) -> Timestamp {
        self.last_at.checked_add(MIN_CONFIRMATION_INTERVAL).unwrap_or(Timestamp::MAX)
    }
}

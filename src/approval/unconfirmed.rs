//! Readings that need confirmation: one "not found" right after a write is eventual consistency.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The least time between two readings that confirm each other.
const MIN_CONFIRMATION_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// What a reading says that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransientReading {
    /// The connection is not there.
    Missing,
    /// The connection waits to be accepted, although a call of ours was made.
    Waiting,
}

/// Readings that say the same, and are too few to be believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedReading {
    /// What they say.
    pub reading: TransientReading,
    /// When the first was made.
    pub first_at: Timestamp,
    /// When the last was made that counts.
    pub last_at: Timestamp,
    /// How many count so far.
    pub readings: u32,
    /// How many are needed.
    pub needed: u32,
}

impl UnconfirmedReading {
    /// The first reading.
    pub(super) fn new(reading: TransientReading, now: Timestamp) -> Self {
        Self { reading, first_at: now, last_at: now, readings: 1, needed: 2 }
    }

    /// Counts another equal reading, unless it comes too soon. Soon after a call of ours, two further ones are needed;
    /// otherwise one. Returns whether there are enough.
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

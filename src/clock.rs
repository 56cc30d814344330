//! The only place that reads the clock and uses randomness. All other code takes both as arguments.

use jiff::Timestamp;

use crate::approval::CardId;

/// The current time. Tests can move it ahead.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn now() -> Timestamp {
    #[cfg(feature = "local")]
    return Timestamp::now().saturating_add(jump::offset()).unwrap_or(Timestamp::MAX);
    #[cfg(not(feature = "local"))]
    Timestamp::now()
}

/// Sets the clock ahead, for tests and demos of what takes days.
#[cfg(feature = "local")]
pub mod jump {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicI64, Ordering};

    use jiff::{SignedDuration, Timestamp};

    /// The most that people can set the clock ahead, in all: ten years. Deadlines are added to the time, and the last time
    /// that a timestamp can hold is in the year 9999.
    pub const MAX_AHEAD: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

    static PROCESS_AHEAD_MS: AtomicI64 = AtomicI64::new(0);

    thread_local! {
        static THREAD_AHEAD_MS: Cell<i64> = const { Cell::new(0) };
    }

    /// Moves the clock of the process ahead.
    pub fn advance(by: SignedDuration) {
        PROCESS_AHEAD_MS.fetch_add(to_millis(by), Ordering::Relaxed);
    }

    /// Sets the clock of the calling thread ahead, so that tests that need another time each run side by side.
    pub fn advance_in_thread(by: SignedDuration) {
        THREAD_AHEAD_MS.set(THREAD_AHEAD_MS.get().saturating_add(to_millis(by)));
    }

    /// Sets the clock of the calling thread back to that of the process.
    pub fn return_in_thread() {
        THREAD_AHEAD_MS.set(0);
    }

    /// The time without jumps, as other programs have it.
    #[must_use]
    pub fn undisturbed_now() -> Timestamp {
        super::now().saturating_sub(offset()).unwrap_or(Timestamp::MIN)
    }

    /// How far the clock of the calling thread is ahead.
    #[must_use]
    pub fn offset() -> SignedDuration {
        let ahead_ms = PROCESS_AHEAD_MS.load(Ordering::Relaxed).saturating_add(THREAD_AHEAD_MS.get());
        SignedDuration::from_millis(ahead_ms)
    }

    fn to_millis(by: SignedDuration) -> i64 {
        i64::try_from(by.as_millis()).unwrap_or_default()
    }
}

/// The id of a new card: 64 random bits.
///
/// # Panics
/// When the operating system has no randomness.
#[must_use]
pub fn new_card_id() -> CardId {
    CardId(u64::from_be_bytes(random_bytes()))
}

/// 128 random bits as 32 hexadecimal digits. It never returns the same text twice.
///
/// # Panics
/// When the operating system has no randomness. Nothing can be signed without it.
#[must_use]
pub fn nonce() -> String {
    hex::encode(random_bytes::<16>())
}

#[expect(clippy::disallowed_methods, reason = "this is the place")]
#[expect(clippy::expect_used, reason = "documented; Lambda reports the panic")]
fn random_bytes<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

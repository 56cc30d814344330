//! The only place that reads the clock and uses randomness. All other code takes both as arguments.

use jiff::Timestamp;

use crate::approval::CardId;

/// The current time. Tests can move it ahead.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn now() -> Timestamp {
    #[cfg(feature = "local")]
    return Timestamp::now() + jump::offset();
    #[cfg(not(feature = "local"))]
    Timestamp::now()
}

/// Moves the clock, for tests and demos of what takes days.
#[cfg(feature = "local")]
pub mod jump {
    use std::sync::atomic::{AtomicI64, Ordering};

    use jiff::SignedDuration;

    static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

    /// Moves the clock of the process ahead.
    pub fn advance(by: SignedDuration) {
        let by = i64::try_from(by.as_millis()).unwrap_or_default();
        AHEAD_MS.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn offset() -> SignedDuration {
        SignedDuration::from_millis(AHEAD_MS.load(Ordering::Relaxed))
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

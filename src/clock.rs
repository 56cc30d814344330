//! The one place that reads the clock and draws randomness; everything else takes them as arguments.

use jiff::Timestamp;

/// The time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// 128 random bits as 32 hexadecimal digits: never the same twice.
///
/// # Panics
/// When the operating system has no randomness: without it nothing can be signed.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
#[expect(clippy::expect_used, reason = "documented; Lambda reports the panic")]
pub fn nonce() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    hex::encode(bytes)
}

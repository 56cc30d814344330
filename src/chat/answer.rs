//! Answers that are sent while a person waits.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::delivery::DeliveryError;
use crate::approval::RetryPolicy;

/// Sends an answer, by `until`. If it fails in a way that may pass, sends it once more while time is left.
///
/// # Errors
/// Why the last try failed.
pub(super) async fn try_twice<Sending: Future<Output = Result<(), DeliveryError>>>(
    send: impl Fn() -> Sending,
    until: Instant,
) -> Result<(), DeliveryError> {
    let timeout = |_| DeliveryError::timed_out();
    let first = timeout_at(until, send()).await.map_err(timeout).flatten();
    let Err(DeliveryError { retry: RetryPolicy::Backoff(wait), .. }) = &first else { return first };
    let again_at = Instant::now() + wait.and_then(|wait| wait.try_into().ok()).unwrap_or(Duration::ZERO);
    if again_at >= until {
        return first;
    }
    sleep_until(again_at).await;
    timeout_at(until, send()).await.map_err(timeout).flatten()
}

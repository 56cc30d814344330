//! Keeps the calls of an account below the vendor's limit for each operation. After a throttled call, the operation backs
//! off.
//!
//! Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/throttling>, 360 calls in 60 s each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const RATE_WINDOW: Duration = Duration::from_mins(1);
/// A call that would have to wait longer fails at once, so that its caller can do something else.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The shortest and the longest pause of an operation after a throttled call.
const MIN_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = RATE_WINDOW;

/// The calls of one account.
#[derive(Debug)]
pub(super) struct RateLimiter {
    /// Per operation, in 60 s.
    max_calls: usize,
    operations: Mutex<BTreeMap<&'static str, OperationCalls>>,
}

#[derive(Debug, Default)]
struct OperationCalls {
    /// The start times of the calls of the last 60 s, and of those that still wait.
    starts: VecDeque<Instant>,
    not_before: Option<Instant>,
}

impl RateLimiter {
    pub(super) fn new(max_calls: usize) -> Self {
        Self { max_calls: max_calls.max(1), operations: Mutex::default() }
    }

    /// Reserves the next free start time for a call.
    ///
    /// # Errors
    /// When the wait would be too long: how long it would be. Nothing is reserved.
    pub(super) fn reserve(&self, operation: &'static str, now: Instant) -> Result<Instant, Duration> {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = operations.entry(operation).or_default();
        while operation.starts.front().is_some_and(|start| *start + RATE_WINDOW <= now) {
            operation.starts.pop_front();
        }
        let limiting = operation.starts.len().checked_sub(self.max_calls).and_then(|over| operation.starts.get(over));
        let window_free_at = limiting.map(|start| *start + RATE_WINDOW);
        let start = [Some(now), window_free_at, operation.not_before].into_iter().flatten().max().unwrap_or(now);
        let wait = start.duration_since(now);
        if wait > MAX_WAIT {
            return Err(wait);
        }
        operation.starts.push_back(start);
        Ok(start)
    }

    /// Pauses an operation after a throttled call; `retry_after` is the pause that the vendor asked for.
    pub(super) fn back_off(&self, operation: &'static str, retry_after: Option<Duration>, now: Instant) {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = operations.entry(operation).or_default();
        let until = now + retry_after.unwrap_or_default().clamp(MIN_BACK_OFF, MAX_BACK_OFF);
        operation.not_before = operation.not_before.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limiter_never_exceeds_the_limit_in_any_minute() {
        let (limiter, start) = (RateLimiter::new(3), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let starts = [0, 10, 20].map(|at| limiter.reserve("List", after(at)));
        assert_eq!(starts, [0, 10, 20].map(|at| Ok(after(at))));
        assert_eq!(limiter.reserve("List", after(20)), Err(Duration::from_secs(40)));
        assert_eq!(limiter.reserve("Get", after(20)), Ok(after(20)), "each operation has its own limit");
        assert_eq!(limiter.reserve("List", after(57)), Ok(after(60)), "a short wait is accepted");
        assert_eq!(limiter.reserve("List", after(58)), Err(Duration::from_secs(12)));
        assert_eq!(limiter.reserve("List", after(70)), Ok(after(70)));
    }

    #[test]
    fn throttled_operation_backs_off_alone() {
        let (limiter, start) = (RateLimiter::new(100), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        limiter.back_off("Accept", Some(Duration::from_secs(4)), start);
        assert_eq!(limiter.reserve("Accept", start), Ok(after(4000)));
        assert_eq!(limiter.reserve("Get", start), Ok(start));
        limiter.back_off("Accept", Some(Duration::from_hours(1)), start);
        assert_eq!(limiter.reserve("Accept", start), Err(RATE_WINDOW), "no back-off is longer than the window");
        limiter.back_off("Get", None, start);
        assert_eq!(limiter.reserve("Get", start), Ok(after(1000)), "the shortest back-off, when the vendor names none");
        assert_eq!(limiter.reserve("Accept", after(60_000)), Ok(after(60_000)));
    }
}

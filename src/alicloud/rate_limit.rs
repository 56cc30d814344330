//! Keeps calls below the vendor's limit, per account and operation, and away from an operation that asked us to wait.
//!
//! Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/throttling>, 360 calls in 60 s each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const RATE_WINDOW: Duration = Duration::from_mins(1);
/// Who would have to wait for longer is told so at once, and can do something else meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// An operation that refused a call for coming too soon is left alone for so long, at least and at most.
const BACK_OFF_LIMITS: [Duration; 2] = [Duration::from_secs(1), RATE_WINDOW];

/// The calls of one account.
#[derive(Debug)]
pub(super) struct RateLimiter {
    /// In 60 s, of each operation.
    max_calls: usize,
    operations: Mutex<BTreeMap<&'static str, OperationCalls>>,
}

#[derive(Debug, Default)]
struct OperationCalls {
    /// The calls of the last 60 s, and those that wait for their turn.
    starts: VecDeque<Instant>,
    backs_off_until: Option<Instant>,
}

impl RateLimiter {
    pub(super) fn new(max_calls: usize) -> Self {
        Self { max_calls: max_calls.max(1), operations: Mutex::default() }
    }

    /// When a call may be made, which has then its turn; or, if that is too long, how long it would be.
    pub(super) fn reserve(&self, operation: &'static str, now: Instant) -> Result<Instant, Duration> {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = operations.entry(operation).or_default();
        while operation.starts.front().is_some_and(|start| *start + RATE_WINDOW <= now) {
            operation.starts.pop_front();
        }
        let full = operation.starts.len().checked_sub(self.max_calls).and_then(|over| operation.starts.get(over));
        let turn =
            [Some(now), full.map(|start| *start + RATE_WINDOW), operation.backs_off_until].into_iter().flatten().max();
        let turn = turn.unwrap_or(now);
        let wait = turn.duration_since(now);
        if wait > MAX_WAIT {
            return Err(wait);
        }
        operation.starts.push_back(turn);
        Ok(turn)
    }

    /// The vendor refused a call for coming too soon, and may have said for how long.
    pub(super) fn back_off(&self, operation: &'static str, asked_for: Option<Duration>, now: Instant) {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = operations.entry(operation).or_default();
        let [shortest, longest] = BACK_OFF_LIMITS;
        let until = now + asked_for.unwrap_or_default().clamp(shortest, longest);
        operation.backs_off_until = operation.backs_off_until.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limiter_never_exceeds_the_limit_in_any_minute() {
        let (pacer, start) = (RateLimiter::new(3), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let turns = [0, 10, 20].map(|at| pacer.reserve("List", after(at)));
        assert_eq!(turns, [0, 10, 20].map(|at| Ok(after(at))));
        assert_eq!(pacer.reserve("List", after(20)), Err(Duration::from_secs(40)));
        assert_eq!(pacer.reserve("Get", after(20)), Ok(after(20)), "each operation has its own");
        assert_eq!(pacer.reserve("List", after(57)), Ok(after(60)), "soon enough to wait for");
        assert_eq!(pacer.reserve("List", after(58)), Err(Duration::from_secs(12)));
        assert_eq!(pacer.reserve("List", after(70)), Ok(after(70)));
    }

    #[test]
    fn throttled_operation_backs_off_alone() {
        let (pacer, start) = (RateLimiter::new(100), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        pacer.back_off("Accept", Some(Duration::from_secs(4)), start);
        assert_eq!(pacer.reserve("Accept", start), Ok(after(4000)));
        assert_eq!(pacer.reserve("Get", start), Ok(start));
        pacer.back_off("Accept", Some(Duration::from_hours(1)), start);
        assert_eq!(pacer.reserve("Accept", start), Err(RATE_WINDOW), "but never for longer than its window");
        pacer.back_off("Get", None, start);
        assert_eq!(pacer.reserve("Get", start), Ok(after(1000)), "also if it does not say for how long");
        assert_eq!(pacer.reserve("Accept", after(60_000)), Ok(after(60_000)));
    }
}

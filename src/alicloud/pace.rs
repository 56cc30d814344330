//! Keeps calls below the vendor's limit, per account and operation, and away from an operation that asked us to wait.
//!
//! Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/throttling>, 360 calls in 60 s each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_mins(1);
/// Who would have to wait for longer is told so at once, and can do something else meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// An operation that refused a call for coming too soon is left alone for so long, at least and at most.
const REST: [Duration; 2] = [Duration::from_secs(1), WINDOW];

/// The calls of one account.
#[derive(Debug)]
pub(super) struct Pacer {
    /// In 60 s, of each operation.
    most: usize,
    operations: Mutex<BTreeMap<&'static str, Operation>>,
}

#[derive(Debug, Default)]
struct Operation {
    /// The calls of the last 60 s, and those that wait for their turn.
    starts: VecDeque<Instant>,
    rests_until: Option<Instant>,
}

impl Pacer {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), operations: Mutex::default() }
    }

    /// When a call may be made, which has then its turn; or, if that is too long, how long it would be.
    pub(super) fn take_turn(&self, operation: &'static str, now: Instant) -> Result<Instant, Duration> {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = operations.entry(operation).or_default();
        while operation.starts.front().is_some_and(|start| *start + WINDOW <= now) {
            operation.starts.pop_front();
        }
        let full = operation.starts.len().checked_sub(self.most).and_then(|over| operation.starts.get(over));
        let turn = [Some(now), full.map(|start| *start + WINDOW), operation.rests_until].into_iter().flatten().max();
        let turn = turn.unwrap_or(now);
        let wait = turn.duration_since(now);
        if wait > PATIENCE {
            return Err(wait);
        }
        operation.starts.push_back(turn);
        Ok(turn)
    }

    /// The vendor refused a call for coming too soon, and may have said for how long.
    pub(super) fn rest(&self, operation: &'static str, asked_for: Option<Duration>, now: Instant) {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = operations.entry(operation).or_default();
        let [shortest, longest] = REST;
        let until = now + asked_for.unwrap_or_default().clamp(shortest, longest);
        operation.rests_until = operation.rests_until.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_of_a_minute_holds_more_calls_than_allowed() {
        let (pacer, start) = (Pacer::new(3), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let turns = [0, 10, 20].map(|at| pacer.take_turn("List", after(at)));
        assert_eq!(turns, [0, 10, 20].map(|at| Ok(after(at))));
        assert_eq!(pacer.take_turn("List", after(20)), Err(Duration::from_secs(40)));
        assert_eq!(pacer.take_turn("Get", after(20)), Ok(after(20)), "each operation has its own");
        assert_eq!(pacer.take_turn("List", after(57)), Ok(after(60)), "soon enough to wait for");
        assert_eq!(pacer.take_turn("List", after(58)), Err(Duration::from_secs(12)));
        assert_eq!(pacer.take_turn("List", after(70)), Ok(after(70)));
    }

    #[test]
    fn an_operation_that_asked_us_to_wait_is_left_alone() {
        let (pacer, start) = (Pacer::new(100), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        pacer.rest("Accept", Some(Duration::from_secs(4)), start);
        assert_eq!(pacer.take_turn("Accept", start), Ok(after(4000)));
        assert_eq!(pacer.take_turn("Get", start), Ok(start));
        pacer.rest("Accept", Some(Duration::from_hours(1)), start);
        assert_eq!(pacer.take_turn("Accept", start), Err(WINDOW), "but never for longer than its window");
        pacer.rest("Get", None, start);
        assert_eq!(pacer.take_turn("Get", start), Ok(after(1000)), "also if it does not say for how long");
        assert_eq!(pacer.take_turn("Accept", after(60_000)), Ok(after(60_000)));
    }
}

//! Spaces the calls about one place, e.g. a chat, so that they stay within the platform's limits. Knows no platform.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The most places whose calls are counted. When it is exceeded, all counts are reset.
const MAX_PLACES: usize = 1000;

/// A limit of the calls about one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallLimit {
    /// The most calls in a period.
    pub(super) calls: usize,
    /// The period. It should have a margin for the network.
    pub(super) period: Duration,
}

/// The times of the last calls about each place, e.g. a chat. They may be in the future.
#[derive(Debug, Default)]
pub(super) struct CallTurns(Mutex<BTreeMap<String, VecDeque<Instant>>>);

impl CallTurns {
    /// Waits until the limits of a place allow one more call. A caller that gives up leaves its turn to others.
    pub(super) async fn wait(&self, place: &str, limits: &[CallLimit]) {
        let at = self.reserve(place, limits);
        let mut turn = CallTurn { turns: self, place, at, is_used: false };
        sleep_until(at).await;
        turn.is_used = true;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, VecDeque<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, place: &str, limits: &[CallLimit]) -> Instant {
        let mut turns = self.lock();
        if turns.len() >= MAX_PLACES && !turns.contains_key(place) {
            turns.clear();
        }
        let own = turns.entry(place.to_owned()).or_default();
        let now = Instant::now();
        let longest = limits.iter().map(|limit| limit.period).max().unwrap_or_default();
        while own.front().is_some_and(|earlier| *earlier + longest <= now) {
            own.pop_front();
        }
        let allowed_at = |limit: &CallLimit| {
            let earlier = own.len().checked_sub(limit.calls).and_then(|over| own.get(over))?;
            Some(*earlier + limit.period)
        };
        let turn = limits.iter().filter_map(allowed_at).fold(now, Instant::max);
        own.push_back(turn);
        turn
    }
}

/// One of the calls about a place. Its turn is free again if its call is never made.
struct CallTurn<'a> {
    turns: &'a CallTurns,
    place: &'a str,
    at: Instant,
    is_used: bool,
}

impl Drop for CallTurn<'_> {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let mut turns = self.turns.lock();
        let Some(own) = turns.get_mut(self.place) else { return };
        if let Some(position) = own.iter().rposition(|turn| *turn == self.at) {
            own.remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: [CallLimit; 3] = [
        CallLimit { calls: 7, period: Duration::from_millis(1100) },
        CallLimit { calls: 8, period: Duration::from_millis(2100) },
        CallLimit { calls: 60, period: Duration::from_millis(30_500) },
    ];

    #[test]
    fn calls_stay_within_every_limit_of_a_place() {
        let turns = CallTurns::default();
        let at: Vec<_> = (0..150).map(|_| turns.reserve("a", &LIMITS)).collect();
        for limit in &LIMITS {
            for window in at.windows(limit.calls + 1) {
                assert!(window[limit.calls] - window[0] >= limit.period, "more than {} calls", limit.calls);
            }
        }
        assert!(at[6] == at[0] || at[6] - at[0] < Duration::from_secs(1), "a few go at once");
        assert!(turns.reserve("b", &LIMITS) < at[20], "another place has its own limits");
    }

    #[test]
    fn turn_of_a_call_that_gave_up_is_free_again() {
        let turns = CallTurns::default();
        let first: Vec<_> = (0..7).map(|_| turns.reserve("a", &LIMITS)).collect();
        let waits = turns.reserve("a", &LIMITS);
        assert_eq!(waits, first[0] + Duration::from_millis(1100));
        drop(CallTurn { turns: &turns, place: "a", at: waits, is_used: false });
        assert_eq!(turns.reserve("a", &LIMITS), waits);
    }

    #[test]
    fn calls_that_were_made_count_although_later_ones_gave_up() {
        let (turns, period) = (CallTurns::default(), Duration::from_secs(1));
        let limits = [CallLimit { calls: 5, period }];
        let first: Vec<_> = (0..5).map(|_| turns.reserve("a", &limits)).collect();
        let waits: Vec<_> = (0..10).map(|_| turns.reserve("a", &limits)).collect();
        assert_eq!((waits[0], waits[5]), (first[0] + period, first[0] + 2 * period));
        for at in waits.iter().copied() {
            drop(CallTurn { turns: &turns, place: "a", at, is_used: false });
        }
        assert_eq!(turns.reserve("a", &limits), waits[0]);
        drop(CallTurn { turns: &turns, place: "a", at: waits[0], is_used: true });
        assert_eq!(turns.reserve("a", &limits), first[1] + period);
    }
}

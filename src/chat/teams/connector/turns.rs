//! The limits of a conversation: calls wait for their turn, so that Teams refuses none.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The most calls of a bot to a conversation, and the time in which. A margin is for the network. After 1800 calls in an hour,
/// Teams refuses more for a while, and peergate tries again later.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/bots/how-to/rate-limit>
const LIMITS: [CallLimit; 3] = [
    CallLimit { calls: 7, period: Duration::from_millis(1400) },
    CallLimit { calls: 8, period: Duration::from_millis(2500) },
    CallLimit { calls: MAX_CALLS, period: Duration::from_millis(30_500) },
];
/// The calls to a conversation that are remembered.
const MAX_CALLS: usize = 60;
/// The most conversations whose calls are counted. When it is exceeded, all counts are reset.
const MAX_CONVERSATIONS: usize = 1000;

struct CallLimit {
    calls: usize,
    period: Duration,
}

/// The times of the last calls to each conversation. They may be in the future.
#[derive(Debug, Default)]
pub(in crate::chat::teams) struct PostTurns(Mutex<BTreeMap<String, VecDeque<Instant>>>);

impl PostTurns {
    /// Waits until the limits of a conversation allow one more call. A caller that gives up leaves its turn to others.
    pub(super) async fn wait(&self, conversation: &str) {
        let at = self.reserve(conversation);
        let mut turn = PostTurn { turns: self, conversation, at, is_used: false };
        sleep_until(at).await;
        turn.is_used = true;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, VecDeque<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, conversation: &str) -> Instant {
        let mut turns = self.lock();
        if turns.len() >= MAX_CONVERSATIONS && !turns.contains_key(conversation) {
            turns.clear();
        }
        let own = turns.entry(conversation.to_owned()).or_default();
        let allowed_at = |limit: &CallLimit| {
            let earlier = own.len().checked_sub(limit.calls).and_then(|over| own.get(over))?;
            Some(*earlier + limit.period)
        };
        let turn = LIMITS.iter().filter_map(allowed_at).fold(Instant::now(), Instant::max);
        own.push_back(turn);
        if own.len() > MAX_CALLS {
            own.pop_front();
        }
        turn
    }
}

/// A place among the calls to a conversation. It is free again if its call is never made.
struct PostTurn<'a> {
    turns: &'a PostTurns,
    conversation: &'a str,
    at: Instant,
    is_used: bool,
}

impl Drop for PostTurn<'_> {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let mut turns = self.turns.lock();
        let Some(own) = turns.get_mut(self.conversation) else { return };
        if let Some(position) = own.iter().rposition(|turn| *turn == self.at) {
            own.remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_stay_within_every_limit_of_a_conversation() {
        let turns = PostTurns::default();
        let at: Vec<_> = (0..150).map(|_| turns.reserve("19:a@thread.tacv2")).collect();
        for limit in &LIMITS {
            for window in at.windows(limit.calls + 1) {
                assert!(window[limit.calls] - window[0] >= limit.period, "more than {} calls", limit.calls);
            }
        }
        assert!(at[6] == at[0] || at[6] - at[0] < Duration::from_secs(1), "a few go at once");
        assert!(turns.reserve("19:b@thread.tacv2") < at[20], "another conversation has its own limits");
    }

    #[test]
    fn turn_of_a_call_that_gave_up_is_free_again() {
        let turns = PostTurns::default();
        let first: Vec<_> = (0..7).map(|_| turns.reserve("a")).collect();
        let waits = turns.reserve("a");
        assert_eq!(waits, first[0] + Duration::from_millis(1400));
        drop(PostTurn { turns: &turns, conversation: "a", at: waits, is_used: false });
        assert_eq!(turns.reserve("a"), waits);
    }
}

//! Limits the cards of one requester account in a channel to 20 an hour. Further cards are delayed, and a digest lists them.
//!
//! Each process counts for itself: a restart resets the count, and loses no card.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::approval::ApprovalId;
use crate::peering::AccountId;

/// The most cards of an account in a channel within [`RATE_PERIOD`].
const MAX_CARDS: usize = 20;
const RATE_PERIOD: SignedDuration = SignedDuration::from_hours(1);
/// The wait after a digest that could not be posted.
const DIGEST_RETRY_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
/// The most delayed cards of an account in a channel. Further ones are posted at once.
const MAX_TURNS: usize = 10_000;

/// The most requests in one digest, as platforms cut long messages. The next digest lists the next ones.
const MAX_DIGEST_IDS: usize = 200;

/// The queues of all accounts and channels.
#[derive(Debug, Default)]
pub struct CardRateLimiter(Mutex<BTreeMap<(AccountId, String), CardQueue>>);

/// The cards of one account in one channel.
#[derive(Debug, Default)]
struct CardQueue {
    /// When each card may be posted.
    turns: BTreeMap<ApprovalId, Timestamp>,
    /// The same times, in order.
    turn_times: VecDeque<Timestamp>,
    /// Delayed cards that no digest has listed.
    undigested: Vec<ApprovalId>,
    last_digest_at: Option<Timestamp>,
    /// When to try a digest again that could not be posted.
    digest_retry_at: Option<Timestamp>,
}

/// The requests of an account whose cards are delayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardDigest {
    /// The requester.
    pub account: AccountId,
    /// The channel's name in the configuration.
    pub channel: String,
    /// The delayed requests.
    pub ids: Vec<ApprovalId>,
}

impl CardRateLimiter {
    /// When the card of a request may be posted; `None` for now. A second call changes nothing.
    pub fn reserve(&self, account: AccountId, channel: &str, id: &ApprovalId, now: Timestamp) -> Option<Timestamp> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry((account, channel.to_owned())).or_default();
        if let Some(turn) = queue.turns.get(id) {
            return Some(*turn).filter(|turn| *turn > now);
        }
        let is_past = |turn: Timestamp| turn + RATE_PERIOD <= now;
        while queue.turn_times.front().is_some_and(|start| is_past(*start)) {
            queue.turn_times.pop_front();
        }
        queue.turns.retain(|_, turn| !is_past(*turn));
        let full = queue.turn_times.len().checked_sub(MAX_CARDS).and_then(|over| queue.turn_times.get(over));
        let turn = full.map_or(now, |start| (*start + RATE_PERIOD).max(now));
        if queue.turns.len() >= MAX_TURNS {
            return None;
        }
        queue.turns.insert(id.clone(), turn);
        queue.turn_times.push_back(turn);
        if turn <= now {
            return None;
        }
        queue.undigested.push(id.clone());
        Some(turn)
    }

    /// The digests that are due: one an hour for each account and channel.
    pub fn due_digests(&self, now: Timestamp) -> Vec<CardDigest> {
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |queue: &CardQueue| {
            !queue.undigested.is_empty()
                && queue.last_digest_at.is_none_or(|last| last + RATE_PERIOD <= now)
                && queue.digest_retry_at.is_none_or(|retry_at| retry_at <= now)
        };
        let due = queues.iter().filter(|(_, queue)| is_due(queue));
        due.map(|((account, channel), queue)| CardDigest {
            account: *account,
            channel: channel.clone(),
            ids: queue.undigested.iter().take(MAX_DIGEST_IDS).cloned().collect(),
        })
        .collect()
    }

    /// Records that a digest could not be posted, or that its answer was lost.
    pub fn mark_digest_failed(&self, digest: &CardDigest, now: Timestamp) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get_mut(&(digest.account, digest.channel.clone())) {
            queue.digest_retry_at = Some(now + DIGEST_RETRY_INTERVAL);
        }
    }

    /// Records that a digest was posted.
    pub fn mark_digest_posted(&self, digest: &CardDigest, now: Timestamp) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get_mut(&(digest.account, digest.channel.clone())) {
            queue.undigested.retain(|id| !digest.ids.contains(id));
            if queue.undigested.is_empty() {
                queue.last_digest_at = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peering::InstanceId;

    fn id(number: usize) -> ApprovalId {
        ApprovalId { target: "prod".into(), instance_id: InstanceId::parse(&format!("pcc-{number}")).unwrap() }
    }

    #[test]
    fn twenty_cards_an_hour_are_posted_and_the_rest_wait() {
        let (rate, account) = (CardRateLimiter::default(), AccountId(1));
        let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        let turns: Vec<_> = (0..45).map(|number| rate.reserve(account, "netops", &id(number), now)).collect();
        let hours = |hours| Some(now + SignedDuration::from_hours(hours));
        assert!(turns[..20].iter().all(Option::is_none));
        assert!(turns[20..40].iter().all(|turn| *turn == hours(1)) && turns[40..].iter().all(|turn| *turn == hours(2)));
        assert_eq!(rate.reserve(account, "netops", &id(21), now), hours(1), "asking again changes nothing");
        assert_eq!(rate.reserve(account, "netops", &id(3), now), None);
        assert_eq!(rate.reserve(account, "oncall", &id(99), now), None, "another channel");
        assert_eq!(rate.reserve(AccountId(2), "netops", &id(99), now), None, "another account");
        let later = now + SignedDuration::from_hours(1);
        assert_eq!(rate.reserve(account, "netops", &id(21), later), None, "its turn has come");
    }

    #[test]
    fn hourly_digest_names_every_waiting_card() {
        let (rate, account) = (CardRateLimiter::default(), AccountId(1));
        let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        for number in 0..23 {
            rate.reserve(account, "netops", &id(number), now);
        }
        let digest = rate.due_digests(now).remove(0);
        assert_eq!(digest.ids, [id(20), id(21), id(22)]);
        assert_eq!(rate.due_digests(now).len(), 1, "it is due until it is posted");
        rate.mark_digest_posted(&digest, now);
        rate.reserve(account, "netops", &id(50), now);
        assert_eq!(rate.due_digests(now), []);
        let later = rate.due_digests(now + RATE_PERIOD);
        assert_eq!(later.iter().map(|digest| digest.ids.clone()).collect::<Vec<_>>(), [[id(50)]]);
    }

    #[test]
    fn failed_digest_is_tried_again_after_a_pause() {
        let (rate, account) = (CardRateLimiter::default(), AccountId(1));
        let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        for number in 0..21 {
            rate.reserve(account, "netops", &id(number), now);
        }
        let digest = rate.due_digests(now).remove(0);
        rate.mark_digest_failed(&digest, now);
        assert_eq!(rate.due_digests(now + SignedDuration::from_mins(4)), []);
        assert_eq!(rate.due_digests(now + SignedDuration::from_mins(5)), [digest]);
    }

    #[test]
    fn long_digest_continues_in_another_at_once() {
        let (rate, account) = (CardRateLimiter::default(), AccountId(1));
        let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        for number in 0..(MAX_CARDS + MAX_DIGEST_IDS + 5) {
            rate.reserve(account, "netops", &id(number), now);
        }
        let named: Vec<_> = std::iter::from_fn(|| {
            let digest = rate.due_digests(now).pop()?;
            rate.mark_digest_posted(&digest, now);
            Some(digest.ids)
        })
        .collect();
        assert_eq!(named.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_DIGEST_IDS, 5]);
        assert_eq!(
            named.concat(),
            (MAX_CARDS..MAX_CARDS + MAX_DIGEST_IDS + 5).map(id).collect::<Vec<_>>(),
            "each once"
        );
    }
}

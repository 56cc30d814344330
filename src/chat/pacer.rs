//! Paces posts, so that no platform refuses them. Posts to a channel keep a distance, in the order in which they were asked
//! for. If a platform still throttles a post, all posts to the channel, or all posts of the app, pause.
//!
//! Each process counts for itself. A post whose turn is later waits in its record, so a restart loses no post, and other
//! processes see the turn, too.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::Pace;

/// The longest time that a claimed post waits for its turn. A longer wait ends in the record.
const MAX_WAIT: SignedDuration = SignedDuration::from_secs(3);
/// The shortest and the longest pause after a throttled post.
const MIN_PAUSE: SignedDuration = SignedDuration::from_secs(1);
const MAX_PAUSE: SignedDuration = SignedDuration::from_mins(15);
/// A turn that nobody has taken for so long is forgotten.
const TURN_LIFETIME: SignedDuration = SignedDuration::from_mins(2);
/// The most posts to a channel that have a turn. Later posts ask again when these are over.
const MAX_TURNS: usize = 1000;

/// Where a post goes, as far as limits are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostLane {
    /// Identifies the channel.
    pub channel: String,
    /// The app that posts. `None` if the channel has a limit of its own.
    pub app: Option<&'static str>,
    /// How often peergate posts.
    pub pace: Pace,
}

/// When a post may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// At this time, which is at most three seconds away. The post has the turn.
    Soon(Timestamp),
    /// Ask again at this time.
    Later(Timestamp),
}

/// Whether a post that has its turn may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostStart {
    /// Yes.
    Now,
    /// The post before it was late: ask again at this time.
    Wait(Timestamp),
    /// A pause has begun since: reserve a turn again at this time.
    Paused(Timestamp),
}

/// The turns of all channels.
#[derive(Debug, Default)]
pub struct Pacer {
    state: Mutex<PacerState>,
    #[cfg(feature = "local")]
    is_off: bool,
}

#[derive(Debug, Default)]
struct PacerState {
    channels: BTreeMap<String, ChannelTurns>,
    apps: BTreeMap<&'static str, LastPost>,
}

/// When the last post actually began, and a pause that the platform asked for.
#[derive(Debug, Default)]
struct LastPost {
    began_at: Option<Timestamp>,
    paused_until: Option<Timestamp>,
}

impl LastPost {
    /// When the next post may begin. A beginning in the future is one from before the clock was set back.
    fn free_at(&self, distance: SignedDuration, now: Timestamp) -> Option<Timestamp> {
        self.began_at.filter(|began_at| *began_at <= now).map(|began_at| began_at + distance)
    }

    /// The end of the pause, if it can still be true: the clock may have been set back.
    fn paused_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.paused_until.filter(|until| *until <= now + MAX_PAUSE)
    }
}

#[derive(Debug, Default)]
struct ChannelTurns {
    app: Option<&'static str>,
    last: LastPost,
    /// The latest turn that a post has taken.
    last_turn: Option<Timestamp>,
    turns: BTreeMap<String, PlannedTurn>,
}

/// A turn of a post.
#[derive(Debug)]
struct PlannedTurn {
    at: Timestamp,
    /// Whether the post has taken it.
    is_taken: bool,
}

impl Pacer {
    /// Lets every post begin at once, so that tests of other things do not wait.
    #[cfg(feature = "local")]
    #[must_use]
    pub fn off() -> Self {
        Self { is_off: true, ..Self::default() }
    }

    /// The turn of a post. `post` identifies it: a second call returns the same turn. `due_at` is the time that this or
    /// another process planned for it before.
    pub fn reserve(&self, lane: &PostLane, post: &str, due_at: Option<Timestamp>, now: Timestamp) -> Turn {
        #[cfg(feature = "local")]
        if self.is_off {
            return Turn::Soon(now.max(due_at.unwrap_or(now)));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let PacerState { channels, apps } = &mut *state;
        let channel = channels.entry(lane.channel.clone()).or_default();
        channel.app = lane.app;
        channel.turns.retain(|_, turn| now.duration_since(turn.at) < TURN_LIFETIME);
        let app_paused_until = lane.app.and_then(|app| apps.get(app)?.paused_until(now));
        let paused_until = channel.last.paused_until(now).max(app_paused_until);
        let last_turn = channel.last_turn.filter(|last| *last <= now + MAX_PAUSE);
        let free_at = last_turn.map(|last| last + lane.pace.per_channel).max(paused_until);
        let planned = channel.turns.get(post).map(|turn| (turn.at.max(due_at.unwrap_or(turn.at)), turn.is_taken));
        let planned = planned.or_else(|| due_at.map(|at| (at, false)));
        let at = match planned {
            Some((at, true)) => return Turn::Soon(at),
            Some((at, false)) if at > now + MAX_WAIT => return Turn::Later(at),
            Some((at, false)) => free_at.max(Some(at)).max(Some(now)).unwrap_or(at),
            None => {
                let behind = channel.turns.values().filter(|turn| !turn.is_taken).map(|turn| turn.at).max();
                let after_others = behind.map(|last| last + lane.pace.per_channel);
                free_at.max(after_others).max(Some(now)).unwrap_or(now)
            }
        };
        if planned.is_none() && channel.turns.len() >= MAX_TURNS {
            return Turn::Later(at);
        }
        let is_taken = at <= now || planned.is_some() && at <= now + MAX_WAIT;
        channel.turns.insert(post.to_owned(), PlannedTurn { at, is_taken });
        if !is_taken {
            return Turn::Later(at);
        }
        channel.last_turn = channel.last_turn.max(Some(at));
        Turn::Soon(at)
    }

    /// Begins a post that has its turn. The distance counts from the actual beginning of the last post.
    pub fn begin(&self, lane: &PostLane, post: &str, now: Timestamp) -> PostStart {
        #[cfg(feature = "local")]
        if self.is_off {
            return PostStart::Now;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let PacerState { channels, apps } = &mut *state;
        let channel = channels.entry(lane.channel.clone()).or_default();
        let app = lane.app.map(|app| apps.entry(app).or_default());
        let app_paused_until = app.as_ref().and_then(|app| app.paused_until(now));
        if let Some(until) = channel.last.paused_until(now).max(app_paused_until).filter(|until| *until > now) {
            channel.turns.insert(post.to_owned(), PlannedTurn { at: until, is_taken: false });
            return PostStart::Paused(until);
        }
        let app_free_at = app.as_ref().and_then(|app| app.free_at(lane.pace.per_app, now));
        let free_at = channel.last.free_at(lane.pace.per_channel, now).max(app_free_at);
        if let Some(free_at) = free_at.filter(|free_at| *free_at > now) {
            return PostStart::Wait(free_at);
        }
        channel.last.began_at = Some(now);
        channel.last_turn = channel.last_turn.max(Some(now));
        if let Some(app) = app {
            app.began_at = Some(now);
        }
        PostStart::Now
    }

    /// Gives the turn of a post back: it was made, or it waits in its record.
    pub fn finish(&self, lane: &PostLane, post: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = state.channels.get_mut(&lane.channel) {
            channel.turns.remove(post);
        }
    }

    /// Pauses all posts to the channel, or all posts of its app, after the platform throttled `post`. Afterwards, `post`
    /// is the first, and the others keep their order.
    pub fn pause(
        &self,
        lane: &PostLane,
        whole_app: bool,
        post: &str,
        retry_after: Option<SignedDuration>,
        now: Timestamp,
    ) {
        #[cfg(feature = "local")]
        if self.is_off {
            return;
        }
        let until = now + retry_after.unwrap_or_default().clamp(MIN_PAUSE, MAX_PAUSE);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let PacerState { channels, apps } = &mut *state;
        if let Some(app) = lane.app.filter(|_| whole_app) {
            let app = apps.entry(app).or_default();
            app.paused_until = app.paused_until.max(Some(until));
        }
        for (name, channel) in channels {
            let is_own = *name == lane.channel;
            let shares_app = whole_app && lane.app.is_some() && channel.app == lane.app;
            if !(is_own || shares_app) {
                continue;
            }
            channel.last.paused_until = channel.last.paused_until.max(Some(until));
            if is_own {
                channel.turns.remove(post);
            }
            let first = if is_own { until + lane.pace.per_channel } else { until };
            channel.begin_turns_at(first);
            if is_own {
                channel.turns.insert(post.to_owned(), PlannedTurn { at: until, is_taken: false });
            }
        }
    }
}

impl ChannelTurns {
    /// Moves the turns that nobody has taken, so that the first one is not before `first`. They keep their distances.
    fn begin_turns_at(&mut self, first: Timestamp) {
        let waiting = || self.turns.values().filter(|turn| !turn.is_taken);
        let Some(delay) = waiting().map(|turn| turn.at).min().map(|earliest| first.duration_since(earliest)) else {
            return;
        };
        if delay > SignedDuration::ZERO {
            for turn in self.turns.values_mut().filter(|turn| !turn.is_taken) {
                turn.at += delay;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLACK: Pace = Pace { per_channel: SignedDuration::from_secs(1), per_app: SignedDuration::ZERO };

    fn lane(channel: &str) -> PostLane {
        PostLane { channel: channel.to_owned(), app: Some("slack"), pace: SLACK }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn clock_that_is_set_back_stalls_no_post() {
        let (pacer, one) = (Pacer::default(), lane("one"));
        assert_eq!(pacer.begin(&one, "0", at(7200)), PostStart::Now);
        pacer.pause(&one, true, "0", None, at(7200));
        pacer.finish(&one, "0");
        assert_eq!(pacer.reserve(&one, "1", None, at(0)), Turn::Soon(at(0)));
        assert_eq!(pacer.begin(&one, "1", at(0)), PostStart::Now);
    }

    #[test]
    fn posts_to_a_channel_keep_their_distance_and_order() {
        let (pacer, one) = (Pacer::default(), lane("one"));
        let turns: Vec<_> = (0..4).map(|post| pacer.reserve(&one, &post.to_string(), None, at(0))).collect();
        assert_eq!(turns, [Turn::Soon(at(0)), Turn::Later(at(1)), Turn::Later(at(2)), Turn::Later(at(3))]);
        assert_eq!(pacer.reserve(&one, "0", None, at(0)), Turn::Soon(at(0)), "asking again changes nothing");
        assert_eq!(pacer.reserve(&lane("other"), "4", None, at(0)), Turn::Soon(at(0)), "another channel");
        pacer.finish(&one, "0");
        assert_eq!(pacer.reserve(&one, "1", Some(at(1)), at(0)), Turn::Soon(at(1)), "claimed a second early");
        assert_eq!(pacer.reserve(&one, "2", Some(at(2)), at(4)), Turn::Soon(at(4)), "late");
        assert_eq!(pacer.reserve(&one, "3", Some(at(3)), at(4)), Turn::Soon(at(5)), "the next is later, too");
    }

    #[test]
    fn turn_that_another_process_planned_is_kept() {
        let (pacer, one) = (Pacer::default(), lane("one"));
        for post in 0..3 {
            pacer.reserve(&one, &post.to_string(), None, at(0));
        }
        assert_eq!(pacer.reserve(&one, "theirs", Some(at(1)), at(0)), Turn::Soon(at(1)));
        assert_eq!(pacer.reserve(&one, "theirs too", Some(at(60)), at(0)), Turn::Later(at(60)));
    }

    #[test]
    fn late_post_delays_the_next_one() {
        let (pacer, one) = (Pacer::default(), lane("one"));
        assert_eq!(pacer.begin(&one, "0", at(5)), PostStart::Now);
        assert_eq!(pacer.begin(&one, "1", at(5)), PostStart::Wait(at(6)));
        assert_eq!(pacer.begin(&one, "1", at(6)), PostStart::Now);
    }

    #[test]
    fn pause_keeps_the_order_behind_the_throttled_post() {
        let (pacer, one) = (Pacer::default(), lane("one"));
        for post in 0..3 {
            pacer.reserve(&one, &post.to_string(), None, at(0));
        }
        pacer.finish(&one, "0");
        pacer.pause(&one, false, "0", Some(SignedDuration::from_secs(30)), at(0));
        assert_eq!(pacer.reserve(&one, "1", Some(at(1)), at(1)), Turn::Later(at(31)));
        assert_eq!(pacer.reserve(&one, "2", Some(at(2)), at(2)), Turn::Later(at(32)));
        assert_eq!(pacer.reserve(&one, "new", None, at(2)), Turn::Later(at(33)));
        assert_eq!(pacer.begin(&one, "1", at(3)), PostStart::Paused(at(30)), "even if it had its turn");
        assert_eq!(pacer.reserve(&one, "0", Some(at(30)), at(30)), Turn::Soon(at(30)));
        assert_eq!(pacer.begin(&one, "0", at(30)), PostStart::Now);
        assert_eq!(pacer.reserve(&lane("other"), "9", None, at(2)), Turn::Soon(at(2)), "another channel goes on");
    }

    #[test]
    fn throttled_app_pauses_in_every_channel() {
        let pacer = Pacer::default();
        let (one, other) = (lane("one"), lane("other"));
        let bot = PostLane { app: None, ..lane("bot") };
        for lane in [&one, &other, &bot] {
            pacer.reserve(lane, "first", None, at(0));
            pacer.finish(lane, "first");
        }
        pacer.pause(&one, true, "first", Some(SignedDuration::from_hours(24)), at(0));
        assert_eq!(pacer.reserve(&other, "second", None, at(5)), Turn::Later(at(15 * 60)), "15 minutes at most");
        assert_eq!(pacer.reserve(&bot, "second", None, at(5)), Turn::Soon(at(5)));
        pacer.pause(&bot, true, "second", None, at(5));
        assert_eq!(
            pacer.begin(&bot, "second", at(5)),
            PostStart::Paused(at(6)),
            "a second, if the platform names none"
        );
        assert_eq!(pacer.begin(&other, "second", at(15 * 60)), PostStart::Now);
    }

    #[test]
    fn turns_are_bounded_and_forgotten() {
        let (pacer, one) = (Pacer::default(), lane("one"));
        for post in 0..MAX_TURNS + 10 {
            pacer.reserve(&one, &post.to_string(), None, at(0));
        }
        let count = |pacer: &Pacer| pacer.state.lock().unwrap().channels["one"].turns.len();
        assert_eq!(count(&pacer), MAX_TURNS);
        pacer.reserve(&one, "later", None, at(20_000));
        assert_eq!(count(&pacer), 1);
    }
}

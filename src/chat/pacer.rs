//! Paces posts, so that a platform refuses nothing: posts to a channel keep a distance, in the order in which they were
//! asked for. If a platform throttles a post all the same, every post to the channel or of the app pauses.
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
/// The most posts to a channel that have a turn. Later ones are tried again when these are over.
const MAX_TURNS: usize = 10_000;

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

/// The last post, and a pause that the platform asked for.
#[derive(Debug, Default)]
struct LastPost {
    began_at: Option<Timestamp>,
    paused_until: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct ChannelTurns {
    app: Option<&'static str>,
    last: LastPost,
    turns: BTreeMap<String, PlannedTurn>,
}

/// A turn of a post.
#[derive(Debug)]
struct PlannedTurn {
    at: Timestamp,
    /// Whether the post has taken it.
    is_taken: bool,
}

impl LastPost {
    /// The earliest time of the next post.
    fn next_at(&self, distance: SignedDuration) -> Option<Timestamp> {
        self.began_at.map(|began_at| began_at + distance).max(self.paused_until)
    }
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
        let app = lane.app.map(|app| apps.entry(app).or_default());
        let app_free_at = app.as_ref().and_then(|app| app.next_at(lane.pace.per_app));
        let free_at = channel.last.next_at(lane.pace.per_channel).max(app_free_at);
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
        channel.last.began_at = channel.last.began_at.max(Some(at));
        if let Some(app) = app {
            app.began_at = app.began_at.max(Some(at));
        }
        Turn::Soon(at)
    }

    /// Gives up the turn of a post if a pause has begun since. Returns the end of the pause, when to ask again.
    pub fn yield_to_pause(&self, lane: &PostLane, post: &str, now: Timestamp) -> Option<Timestamp> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let app = lane.app.and_then(|app| state.apps.get(app)?.paused_until);
        let channel = state.channels.get_mut(&lane.channel)?;
        let until = channel.last.paused_until.max(app).filter(|until| *until > now)?;
        channel.turns.insert(post.to_owned(), PlannedTurn { at: until, is_taken: false });
        Some(until)
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

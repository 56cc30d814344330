//! Story two: a tick. Requests that nobody told us about are discovered, every approval that is due is brought a step
//! further, what is followed is seen, and what channels are owed is delivered.
//!
//! A tick goes on while something moves and time is left, so that people hear of an activation seconds after it; with
//! nothing due it ends at once. What it costs grows with regions and with what changes, and hardly with what waits: the
//! index has a line of each record that may still matter and says what is followed, a page of a list how a hundred
//! connections are, and a record is read only when the two differ. The failure of one connection, region, target or
//! channel stops no other.

mod delivery;
mod job;
mod lanes;
mod record;
mod seen;
mod survey;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Fuse, FusedFuture, FutureExt};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::app::App;
use crate::approval::{ApprovalId, Stage};
use crate::{clock, metrics, store};
use job::{Job, Region};
use lanes::Lanes;

/// A tick waits for what is due this soon.
const HORIZON: SignedDuration = SignedDuration::from_secs(10);
/// The pause between two rounds, at least and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];
/// How long a change may take to reach the index, as a rule.
const INDEX_LAG: SignedDuration = SignedDuration::from_secs(1);
/// What must be left of the invocation to begin another round.
const ROUND: Duration = Duration::from_secs(10);
/// What must be left of it to go on working: time to say what was done.
const END: Duration = Duration::from_secs(2);
/// How long a tick waits for new sessions of roles.
const REFRESH: Duration = Duration::from_secs(6);

/// What a tick did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Rounds that it took.
    pub rounds: u32,
    /// Requests that were new or had changed.
    pub discovered: u32,
    /// Steps of approvals that changed something.
    pub changed: u32,
    /// Notices that reached a channel.
    pub delivered: u32,
    /// Notices that did not.
    pub undelivered: u32,
    /// How long ago happened what the oldest of these tells of.
    pub oldest_undelivered: Option<SignedDuration>,
}

/// What a tick is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Look for requests that nobody told us about, and at everything that is followed.
    pub discover: bool,
    /// A change reaches us at times before it reaches the index that we ask: then one round is not enough.
    pub least_rounds: u32,
}

impl Tick {
    /// Everything, once.
    pub const SCHEDULED: Self = Self { discover: true, least_rounds: 1 };
    /// What is due.
    pub const DUE: Self = Self { discover: false, least_rounds: 1 };
    /// What has just become due.
    pub const CHANGED: Self = Self { discover: false, least_rounds: 2 };
}

impl Summary {
    fn add(&mut self, other: Self) {
        let Self { rounds, discovered, changed, delivered, undelivered, oldest_undelivered } = other;
        self.oldest_undelivered = self.oldest_undelivered.max(oldest_undelivered);
        let sums = [
            (&mut self.rounds, rounds),
            (&mut self.discovered, discovered),
            (&mut self.changed, changed),
            (&mut self.delivered, delivered),
            (&mut self.undelivered, undelivered),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
    }
}

/// Works on what is due, round after round, until nothing moves or `deadline` is near; in the first round, if asked to,
/// looks at everything that is followed and at what is new.
///
/// # Errors
/// When the table can't be asked for what is due. What was begun is ended first.
pub async fn tick(app: &App, tick: Tick, deadline: Instant) -> Result<Summary, store::Error> {
    let started = Instant::now();
    let mut lanes = Lanes::new(app, deadline.checked_sub(END).unwrap_or(deadline));
    let (mut summary, mut failed) = (Summary::default(), None);
    let mut next = Rounds { begun: started, pause: Duration::ZERO, last: None, at: Some(started), deadline };
    let patience = deadline.checked_sub(END).unwrap_or(deadline).min(started + REFRESH);
    let mut refreshing = pin!(timeout_at(patience, app.credentials.refresh(&app.secrets, clock::now())).fuse());
    // While the index is read, what was begun goes on.
    let mut reading = pin!(Fuse::terminated());
    loop {
        let at = next.at(lanes.is_busy()).filter(|_| failed.is_none() && reading.is_terminated());
        tokio::select! {
            Some((did, look_at)) = lanes.next() => {
                summary.add(did);
                next.is_wanted(look_at);
            }
            due = &mut reading, if !reading.is_terminated() => {
                let due: Result<Due, store::Error> = due;
                match due {
                    Ok(due) => {
                        next.is_wanted(due.soonest);
                        due.begin(app, &mut lanes);
                    }
                    Err(error) => failed = Some(error),
                }
                next.pause = next.begun.elapsed() * 10;
                if summary.rounds < tick.least_rounds {
                    next.is_wanted(Some(clock::now() + INDEX_LAG));
                }
            }
            _ = &mut refreshing, if !refreshing.is_terminated() => {}
            () = sleep_until(at.unwrap_or(started)), if at.is_some() => {
                summary.rounds = summary.rounds.saturating_add(1);
                next.begin();
                reading.set(Due::read(app, tick.discover && summary.rounds == 1).fuse());
            }
            else => break,
        }
    }
    let _ = timeout_at(deadline.checked_sub(END / 2).unwrap_or(deadline), delivery::deliver_digests(app)).await;
    let Summary { rounds, discovered, changed, delivered, undelivered, oldest_undelivered } = summary;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(outcome = "ticked", rounds, discovered, changed, delivered, undelivered, duration_ms, "ticked");
    metrics::undelivered(undelivered, oldest_undelivered);
    if let Some(error) = failed {
        return Err(error);
    }
    metrics::ticked();
    Ok(summary)
}

/// When the next round is.
struct Rounds {
    begun: Instant,
    /// To the round after it, if only what is slow is left: reading the index is to take a tenth of the time at most.
    pause: Duration,
    /// The last time at which there will be something to do, as far as that is known.
    last: Option<Instant>,
    at: Option<Instant>,
    deadline: Instant,
}

impl Rounds {
    fn begin(&mut self) {
        self.begun = Instant::now();
        self.at = self.last.take().filter(|last| *last > self.begun);
    }

    /// There is something to do at this time, if it is soon.
    fn is_wanted(&mut self, at: Option<Timestamp>) {
        let wait = at.map(|at| at.duration_since(clock::now())).filter(|wait| *wait <= HORIZON);
        let Some(wait) = wait else { return };
        let wait = Duration::try_from(wait).unwrap_or_default();
        let [shortest, longest] = PAUSE.map(|pause| self.begun + pause);
        let at = (Instant::now() + wait).clamp(shortest, longest.max(Instant::now()));
        if at + ROUND <= self.deadline {
            self.last = self.last.max(Some(at));
            self.at = Some(self.at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// When it is. What has become due meanwhile does not wait for what is slow: while something runs, there is one.
    fn at(&self, busy: bool) -> Option<Instant> {
        let [_, longest] = PAUSE;
        let while_busy = Some(self.begun + longest.max(self.pause));
        let while_busy = while_busy.filter(|at| busy && *at + ROUND <= self.deadline);
        [self.at, while_busy].into_iter().flatten().min()
    }
}

/// What there is to do.
struct Due {
    steps: Vec<ApprovalId>,
    /// By target and region.
    regions: BTreeMap<(String, String), Region>,
    /// When the next thing is due.
    soonest: Option<Timestamp>,
}

impl Due {
    /// Asks the index for what is due now, and for what is being activated; in a `survey`, for everything.
    async fn read(app: &App, survey: bool) -> Result<Self, store::Error> {
        let now = clock::now();
        let mut due = Self { steps: vec![], regions: BTreeMap::new(), soonest: None };
        let mut from = None;
        loop {
            let before = if survey { Timestamp::MAX } else { now + HORIZON };
            let (entries, more) = app.store.due(before, from).await?;
            for entry in entries {
                if entry.stage == Stage::Activating || survey && entry.stage != Stage::Decided {
                    let place = (entry.id.target.clone(), entry.region.clone());
                    due.regions.entry(place).or_default().follow(&entry);
                }
                match entry.work_at {
                    Some(at) if at <= now => due.steps.push(entry.id),
                    Some(at) => due.soonest = Some(due.soonest.map_or(at, |earlier: Timestamp| earlier.min(at))),
                    None => {}
                }
            }
            match more {
                Some(_) => from = more,
                None => break,
            }
        }
        if survey {
            for (name, target) in &app.config.targets {
                for region in &target.regions {
                    due.regions.entry((name.clone(), region.clone())).or_default().discover = true;
                }
            }
        }
        Ok(due)
    }

    /// Begins it.
    fn begin(self, app: &App, lanes: &mut Lanes<'_>) {
        for ((target, region), followed) in self.regions {
            if !app.config.targets.contains_key(&target) {
                if !followed.followed.is_empty() {
                    tracing::error!(
                        outcome = "unknown_target",
                        target,
                        region,
                        "what is followed is of no known target"
                    );
                }
                continue;
            }
            for job in followed.jobs(&target, region) {
                lanes.push(target.clone(), job);
            }
        }
        for id in self.steps {
            lanes.push(id.target.clone(), Job::Step(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_all_is_told() {
        let mut summary = Summary::default();
        for seconds in [Some(2), Some(7), None, Some(5)] {
            let oldest_undelivered = seconds.map(SignedDuration::from_secs);
            summary.add(Summary { undelivered: 1, oldest_undelivered, ..Summary::default() });
        }
        assert_eq!((summary.undelivered, summary.oldest_undelivered), (4, Some(SignedDuration::from_secs(7))));
    }
}

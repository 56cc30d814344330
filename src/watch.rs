//! Story two: a tick. Requests that nobody told us about are discovered, every approval that is due is brought a step
//! further, what is followed is seen, and what channels are owed is delivered.
//!
//! A tick goes on while something moves and time is left, so that people hear of an activation seconds after it; with
//! nothing due it ends at once. What it costs grows with regions and with what changes, not with what waits: the index
//! says what is followed, a page of a list how a hundred connections are, and a record is read only when the two differ.
//! The failure of one connection, region, target or channel stops no other.

mod delivery;
mod lanes;
mod record;
mod survey;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::app::App;
use crate::approval::Stage;
use crate::clock;
use crate::store;
use lanes::{Job, Lanes};
use survey::Region;

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
/// What invokes the watcher: each means "tick".
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Trigger {
    /// A schedule of EventBridge.
    Schedule {
        /// `aws.events` or `aws.scheduler`.
        source: ScheduleSource,
    },
    /// Changes of the table.
    Stream {
        /// What changed; only where it comes from is looked at.
        #[serde(rename = "Records")]
        records: Vec<StreamRecord>,
    },
}

/// Where a schedule's event comes from.
#[derive(Debug, Deserialize)]
pub enum ScheduleSource {
    /// A rule.
    #[serde(rename = "aws.events")]
    Rule,
    /// EventBridge Scheduler.
    #[serde(rename = "aws.scheduler")]
    Scheduler,
}

/// A change of the table.
#[derive(Debug, Deserialize)]
pub struct StreamRecord {
    /// Always `aws:dynamodb`.
    #[serde(rename = "eventSource")]
    pub source: StreamSource,
}

/// Where a change comes from.
#[derive(Debug, Deserialize)]
pub enum StreamSource {
    /// A `DynamoDB` stream.
    #[serde(rename = "aws:dynamodb")]
    DynamoDb,
}

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
        let Self { rounds, discovered, changed, delivered, undelivered } = other;
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

impl Trigger {
    /// What it asks for.
    #[must_use]
    pub fn tick(&self) -> Tick {
        match self {
            Self::Schedule { .. } => Tick::SCHEDULED,
            Self::Stream { .. } => Tick::CHANGED,
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
    let mut next = Rounds { last: started, at: Some(started), deadline };
    loop {
        tokio::select! {
            Some((did, look_at)) = lanes.next() => {
                summary.add(did);
                next.is_wanted(look_at);
            }
            () = sleep_until(next.at.unwrap_or(started)), if next.at.is_some() => {
                summary.rounds = summary.rounds.saturating_add(1);
                next.begun();
                match round(app, &mut lanes, tick.discover && summary.rounds == 1).await {
                    Ok(soonest) => next.is_wanted(soonest),
                    Err(error) => failed = Some(error),
                }
                if summary.rounds < tick.least_rounds {
                    next.is_wanted(Some(clock::now() + INDEX_LAG));
                }
            }
            else => break,
        }
        if failed.is_some() {
            next.at = None;
        }
    }
    let Summary { rounds, discovered, changed, delivered, undelivered } = summary;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(outcome = "ticked", rounds, discovered, changed, delivered, undelivered, duration_ms, "ticked");
    failed.map_or(Ok(summary), Err)
}

/// When the next round is.
struct Rounds {
    last: Instant,
    at: Option<Instant>,
    deadline: Instant,
}

impl Rounds {
    fn begun(&mut self) {
        (self.last, self.at) = (Instant::now(), None);
    }

    /// There is something to do at this time, if it is soon.
    fn is_wanted(&mut self, at: Option<Timestamp>) {
        let wait = at.map(|at| at.duration_since(clock::now())).filter(|wait| *wait <= HORIZON);
        let Some(wait) = wait else { return };
        let wait = Duration::try_from(wait).unwrap_or_default();
        let [shortest, longest] = PAUSE.map(|pause| self.last + pause);
        let at = (Instant::now() + wait).clamp(shortest, longest.max(Instant::now()));
        if at + ROUND <= self.deadline {
            self.at = Some(self.at.map_or(at, |earlier| earlier.min(at)));
        }
    }
}

/// Begins everything that is due now and sees how what is being activated has come on; in a `survey`, how everything
/// is. Says when the next thing is due.
async fn round(app: &App, lanes: &mut Lanes<'_>, survey: bool) -> Result<Option<Timestamp>, store::Error> {
    let now = clock::now();
    let (mut soonest, mut regions, mut from) = (None, BTreeMap::<_, Region>::new(), None);
    loop {
        let before = if survey { Timestamp::MAX } else { now + HORIZON };
        let (entries, more) = app.store.due(before, from).await?;
        for entry in entries {
            if entry.stage == Stage::Activating || survey && entry.stage.is_followed() {
                let place = (entry.id.target.clone(), entry.region.clone());
                regions.entry(place).or_default().follow(&entry);
            }
            match entry.work_at {
                Some(at) if at <= now => lanes.push(entry.id.target.clone(), Job::Step(entry.id)),
                Some(at) => soonest = Some(soonest.map_or(at, |earlier: Timestamp| earlier.min(at))),
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
                regions.entry((name.clone(), region.clone())).or_default().discover = true;
            }
        }
    }
    for ((target, region), followed) in regions {
        for job in followed.jobs(&target, region) {
            lanes.push(target.clone(), job);
        }
    }
    Ok(soonest)
}

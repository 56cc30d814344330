//! Story two: a tick. Requests that nobody told us about are discovered, every approval that is due is brought a step
//! further, and what channels are owed is delivered.
//!
//! A tick goes on while something moves and time is left, so that people hear of an activation seconds after it; with
//! nothing due it ends at once. The failure of one connection or one channel stops no other.

mod delivery;
mod discovery;

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

use crate::accept;
use crate::app::App;
use crate::approval::{Approval, State};
use crate::clock;
use crate::logging::Chain;
use crate::store::{self, Stored};
use delivery::deliver;
use discovery::discover;

/// A tick waits for what is due this soon.
const HORIZON: SignedDuration = SignedDuration::from_secs(10);
/// The pause between two rounds, at least and at most.
const PAUSE: [SignedDuration; 2] = [SignedDuration::from_millis(500), SignedDuration::from_secs(3)];
/// How long a change may take to reach the index, as a rule.
const INDEX_LAG: SignedDuration = SignedDuration::from_secs(1);
/// What must be left of the invocation to begin another round.
const ROUND: Duration = Duration::from_secs(10);
/// What must be left of it to go on working: time to say what was done.
const END: Duration = Duration::from_secs(2);
/// How many connections are worked on at once.
const AT_ONCE: usize = 16;

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
    /// Look for requests that nobody told us about.
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

/// Discovers, and works on what is due, round after round, until nothing moves or `deadline` is near.
///
/// # Errors
/// When the table can't be asked for what is due.
pub async fn tick(app: &App, tick: Tick, deadline: Instant) -> Result<Summary, store::Error> {
    let started = Instant::now();
    let mut summary = Summary::default();
    // Beside the rounds: a target that does not answer delays nothing but its own discovery.
    let discovery = async {
        let stop_at = deadline.checked_sub(END).unwrap_or(deadline);
        if tick.discover { discover(app, clock::now(), stop_at).await } else { 0 }
    };
    let (discovered, worked) = tokio::join!(discovery, rounds(app, &mut summary, tick.least_rounds, deadline));
    worked?;
    summary.discovered = discovered;
    if discovered > 0 {
        rounds(app, &mut summary, Tick::CHANGED.least_rounds, deadline).await?;
    }
    let Summary { rounds, discovered, changed, delivered, undelivered } = summary;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(outcome = "ticked", rounds, discovered, changed, delivered, undelivered, duration_ms, "ticked");
    Ok(summary)
}

/// Round after round, at least so many, until nothing moves or `deadline` is near.
async fn rounds(app: &App, summary: &mut Summary, least: u32, deadline: Instant) -> Result<(), store::Error> {
    for number in 1.. {
        summary.rounds = summary.rounds.saturating_add(1);
        let next = round(app, summary, deadline).await?;
        if next.is_none() && number >= least {
            break;
        }
        let [shortest, longest] = PAUSE;
        let pause = next.map_or(INDEX_LAG, |next| next.duration_since(clock::now())).clamp(shortest, longest);
        let pause = Duration::try_from(pause).unwrap_or_default();
        if Instant::now() + pause + ROUND > deadline {
            break;
        }
        sleep(pause).await;
    }
    Ok(())
}

/// Works on everything that is due now; says when the next thing is, if that is soon.
async fn round(app: &App, summary: &mut Summary, deadline: Instant) -> Result<Option<Timestamp>, store::Error> {
    let stop_at = deadline.checked_sub(END).unwrap_or(deadline);
    let mut next: Option<Timestamp> = None;
    let mut from = None;
    loop {
        let now = clock::now();
        let (page, more) = app.store.due(now + HORIZON, from).await?;
        let is_due = |stored: &Stored| stored.approval.due_at().is_some_and(|due_at| due_at <= now);
        let (due, soon): (Vec<_>, Vec<_>) = page.into_iter().partition(is_due);
        let mut looks: Vec<_> = soon.iter().filter_map(|stored| stored.approval.due_at()).collect();
        let work = due.into_iter().map(|stored| work_on(app, stored, stop_at));
        let mut work = stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some((look_again_at, did)) = work.next().await {
            looks.extend(look_again_at.filter(|at| at.duration_since(now) <= HORIZON));
            summary.changed = summary.changed.saturating_add(did.changed);
            summary.delivered = summary.delivered.saturating_add(did.delivered);
            summary.undelivered = summary.undelivered.saturating_add(did.undelivered);
        }
        next = next.into_iter().chain(looks).min();
        match more {
            Some(_) => from = more,
            None => return Ok(next),
        }
    }
}

/// Brings one approval a step further and delivers what it owes, until `stop_at`; says when to look again.
async fn work_on(app: &App, stored: Stored, stop_at: Instant) -> (Option<Timestamp>, Summary) {
    let mut did = Summary::default();
    let id = stored.approval.id.clone();
    let (target, peering) = (&id.target, id.instance_id.as_str());
    let worked = timeout_at(stop_at, async {
        let stored = step(app, stored, &mut did).await?;
        deliver(app, stored, &mut did).await
    });
    match worked.await {
        Ok(Ok(stored)) => return (stored.approval.look_again_at(clock::now()), did),
        Ok(Err(error)) => {
            tracing::error!(outcome = "store_failed", target, peering.id = peering, error = %Chain(&error), "not stored");
        }
        Err(_elapsed) => tracing::warn!(outcome = "out_of_time", target, peering.id = peering, "left to the next tick"),
    }
    (None, did)
}

async fn step(app: &App, mut stored: Stored, did: &mut Summary) -> Result<Stored, store::Error> {
    let is_due = |stored: &Stored| stored.approval.next_step_at.is_some_and(|at| at <= clock::now());
    if is_due(&stored) && matches!(stored.approval.state, State::Approved | State::Rejecting) {
        // A call is about to be made: not on the word of the index, which lags.
        stored = app.store.load(&stored.approval.id).await?.unwrap_or(stored);
    }
    if !is_due(&stored) {
        return Ok(stored);
    }
    let event = accept::advance(app, &stored.approval, clock::now()).await;
    let (now, generation, mut changed) = (clock::now(), stored.approval.generation, false);
    let apply = |approval: &mut Approval| {
        changed = approval.generation == generation && approval.apply(&event, now);
        changed
    };
    let stored = app.store.update(stored, apply).await?;
    if changed {
        did.changed = did.changed.saturating_add(1);
        accept::log(&stored.approval, &event);
    }
    Ok(stored)
}

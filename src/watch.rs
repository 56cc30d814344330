//! Story two: a tick. Requests that nobody told us about are discovered, every approval that is due is brought a step
//! further, what is followed is seen, and what channels are owed is delivered.
//!
//! A tick goes on while something moves and time is left, so that people hear of an activation seconds after it; with
//! nothing due it ends at once. What it costs grows with regions and with what changes, and hardly with what waits: the
//! index has a line of each record that may still matter and says what is followed, a page of a list how a hundred
//! connections are, and a record is read only when the two differ. The failure of one connection, region, target or
//! channel stops no other.

mod discovery;
mod job;
mod notify;
mod reconcile;
mod repeat_detector;
mod scheduler;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Fuse, FusedFuture, FutureExt};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::app::App;
use crate::approval::{ApprovalId, IndexState};
use crate::{clock, metrics, store};
use job::{Job, RegionWork};
use scheduler::Scheduler;

/// A tick waits for what is due this soon.
const DUE_HORIZON: SignedDuration = SignedDuration::from_secs(10);
/// The pause between two rounds, at least and at most.
const ROUND_PAUSE_LIMITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];
/// How long a change may take to reach the index, as a rule.
const INDEX_LAG: SignedDuration = SignedDuration::from_secs(1);
/// What must be left of the invocation to begin another round.
const MIN_ROUND_TIME: Duration = Duration::from_secs(10);
/// What must be left of it to go on working: time to say what was done.
const SHUTDOWN_RESERVE: Duration = Duration::from_secs(2);
/// How long a tick waits for new sessions of roles.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(6);

/// What a tick did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TickSummary {
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
    pub min_rounds: u32,
}

impl Tick {
    /// Everything, once.
    pub const SCHEDULED: Self = Self { discover: true, min_rounds: 1 };
    /// What is due.
    pub const DUE: Self = Self { discover: false, min_rounds: 1 };
    /// What has just become due.
    pub const CHANGED: Self = Self { discover: false, min_rounds: 2 };
}

impl TickSummary {
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
pub async fn tick(app: &App, tick: Tick, deadline: Instant) -> Result<TickSummary, store::Error> {
    let started = Instant::now();
    let mut lanes = Scheduler::new(app, deadline.checked_sub(SHUTDOWN_RESERVE).unwrap_or(deadline));
    let (mut summary, mut failed) = (TickSummary::default(), None);
    let mut next = RoundTimer {
        began_at: started,
        min_pause_after: Duration::ZERO,
        latest_due: None,
        next_at: Some(started),
        deadline,
    };
    let patience = deadline.checked_sub(SHUTDOWN_RESERVE).unwrap_or(deadline).min(started + REFRESH_TIMEOUT);
    let mut refreshing = pin!(timeout_at(patience, app.credentials.refresh(&app.secrets, clock::now())).fuse());
    // While the index is read, what was begun goes on.
    let mut reading = pin!(Fuse::terminated());
    loop {
        let at = next.next_round_at(lanes.is_busy()).filter(|_| failed.is_none() && reading.is_terminated());
        tokio::select! {
            Some((did, look_at)) = lanes.next_finished() => {
                summary.add(did);
                next.schedule(look_at);
            }
            due = &mut reading, if !reading.is_terminated() => {
                let due: Result<DueWork, store::Error> = due;
                match due {
                    Ok(due) => {
                        next.schedule(due.next_due_at);
                        due.enqueue_jobs(app, &mut lanes);
                    }
                    Err(error) => failed = Some(error),
                }
                next.min_pause_after = next.began_at.elapsed() * 10;
                if summary.rounds < tick.min_rounds {
                    next.schedule(Some(clock::now() + INDEX_LAG));
                }
            }
            _ = &mut refreshing, if !refreshing.is_terminated() => {}
            () = sleep_until(at.unwrap_or(started)), if at.is_some() => {
                summary.rounds = summary.rounds.saturating_add(1);
                next.begin_round();
                reading.set(DueWork::load(app, tick.discover && summary.rounds == 1).fuse());
            }
            else => break,
        }
    }
    let _ =
        timeout_at(deadline.checked_sub(SHUTDOWN_RESERVE / 2).unwrap_or(deadline), notify::deliver_digests(app)).await;
    let TickSummary { rounds, discovered, changed, delivered, undelivered, oldest_undelivered } = summary;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(outcome = "ticked", rounds, discovered, changed, delivered, undelivered, duration_ms, "ticked");
    metrics::count_undelivered(undelivered, oldest_undelivered);
    if let Some(error) = failed {
        return Err(error);
    }
    metrics::count_tick();
    Ok(summary)
}

/// When the next round is.
struct RoundTimer {
    began_at: Instant,
    /// To the round after it, if only what is slow is left: reading the index is to take a tenth of the time at most.
    min_pause_after: Duration,
    /// The last time at which there will be something to do, as far as that is known.
    latest_due: Option<Instant>,
    next_at: Option<Instant>,
    deadline: Instant,
}

impl RoundTimer {
    fn begin_round(&mut self) {
        self.began_at = Instant::now();
        self.next_at = self.latest_due.take().filter(|last| *last > self.began_at);
    }

    /// There is something to do at this time, if it is soon.
    fn schedule(&mut self, at: Option<Timestamp>) {
        let wait = at.map(|at| at.duration_since(clock::now())).filter(|wait| *wait <= DUE_HORIZON);
        let Some(wait) = wait else { return };
        let wait = Duration::try_from(wait).unwrap_or_default();
        let [shortest, longest] = ROUND_PAUSE_LIMITS.map(|pause| self.began_at + pause);
        let at = (Instant::now() + wait).clamp(shortest, longest.max(Instant::now()));
        if at + MIN_ROUND_TIME <= self.deadline {
            self.latest_due = self.latest_due.max(Some(at));
            self.next_at = Some(self.next_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// When it is. What has become due meanwhile does not wait for what is slow: while something runs, there is one.
    fn next_round_at(&self, is_busy: bool) -> Option<Instant> {
        let [_, longest] = ROUND_PAUSE_LIMITS;
        let while_busy = Some(self.began_at + longest.max(self.min_pause_after));
        let while_busy = while_busy.filter(|at| is_busy && *at + MIN_ROUND_TIME <= self.deadline);
        [self.next_at, while_busy].into_iter().flatten().min()
    }
}

/// What there is to do.
struct DueWork {
    records: Vec<ApprovalId>,
    /// By target and region.
    regions: BTreeMap<(String, String), RegionWork>,
    /// When the next thing is due.
    next_due_at: Option<Timestamp>,
}

impl DueWork {
    /// Asks the index for what is due now, and for what is being activated; in a `survey`, for everything.
    async fn load(app: &App, discover: bool) -> Result<Self, store::Error> {
        let now = clock::now();
        let mut due = Self { records: vec![], regions: BTreeMap::new(), next_due_at: None };
        let mut from = None;
        loop {
            let before = if discover { Timestamp::MAX } else { now + DUE_HORIZON };
            let page = app.store.due_entries(before, from).await?;
            for entry in page.items {
                if entry.state == IndexState::Activating || discover && entry.state != IndexState::Decided {
                    let place = (entry.id.target.clone(), entry.region.clone());
                    due.regions.entry(place).or_default().add_entry(&entry);
                }
                match entry.work_at {
                    Some(at) if at <= now => due.records.push(entry.id),
                    Some(at) => {
                        due.next_due_at = Some(due.next_due_at.map_or(at, |earlier: Timestamp| earlier.min(at)));
                    }
                    None => {}
                }
            }
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        if discover {
            for (name, target) in &app.config.targets {
                for region in &target.regions {
                    due.regions.entry((name.clone(), region.clone())).or_default().discover = true;
                }
            }
        }
        Ok(due)
    }

    /// Begins it.
    fn enqueue_jobs(self, app: &App, lanes: &mut Scheduler<'_>) {
        for ((target, region), followed) in self.regions {
            if !app.config.targets.contains_key(&target) {
                if !followed.polled.is_empty() {
                    tracing::error!(
                        outcome = "unknown_target",
                        target,
                        region,
                        "what is followed is of no known target"
                    );
                }
                continue;
            }
            for job in followed.into_jobs(&target, region) {
                lanes.enqueue(target.clone(), job);
            }
        }
        for id in self.records {
            lanes.enqueue(id.target.clone(), Job::Advance(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_keeps_the_oldest_undelivered_notification() {
        let mut summary = TickSummary::default();
        for seconds in [Some(2), Some(7), None, Some(5)] {
            let oldest_undelivered = seconds.map(SignedDuration::from_secs);
            summary.add(TickSummary { undelivered: 1, oldest_undelivered, ..TickSummary::default() });
        }
        assert_eq!((summary.undelivered, summary.oldest_undelivered), (4, Some(SignedDuration::from_secs(7))));
    }
}

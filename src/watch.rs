//! Story two: a tick of the watcher. It discovers requests, takes the due step of every record, reads connections that
//! change, and delivers notifications.
//!
//! A tick goes on while something is due soon and time is left, so that people hear of an activation within seconds. If
//! nothing is due soon, it ends at once.
//!
//! Its cost grows with the number of regions and of changes, and hardly with the number of pending requests. The index
//! says which connections to read. One page of a list shows the state of a hundred connections. A record is loaded only
//! if the index and the list differ.
//!
//! A failure of one connection, region, target or channel stops no other.

mod discovery;
mod job;
mod notify;
mod own_vpcs;
mod post;
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
use crate::{clock, logging, metrics, store};
use job::{Job, RegionKey, RegionWork, VpcCallBudget};
use scheduler::Scheduler;

/// A tick waits for work that is due this soon.
const DUE_HORIZON: SignedDuration = SignedDuration::from_secs(10);
/// A post is claimed this long before it is due, so that it begins on time: other posts keep their distance to it.
const CLAIM_LEAD: SignedDuration = SignedDuration::from_secs(1);
/// Shortest pause between two rounds.
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two rounds, unless reading the index is slow.
const MAX_PAUSE: Duration = Duration::from_secs(3);
/// How long a change of a record usually takes to reach the index.
const INDEX_LAG: SignedDuration = SignedDuration::from_secs(1);
/// Time that must be left for another round.
const MIN_ROUND_TIME: Duration = Duration::from_secs(10);
/// Time that must be left for the end of the tick. Jobs stop before it.
const SHUTDOWN_RESERVE: Duration = Duration::from_secs(2);
/// How long a tick waits for new role sessions.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(6);

/// What a tick did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TickSummary {
    /// Number of rounds.
    pub rounds: u32,
    /// Number of requests that were new or had changed.
    pub discovered: u32,
    /// Number of steps that changed a record.
    pub changed: u32,
    /// Number of notifications that reached a channel.
    pub delivered: u32,
    /// Number of notifications that did not reach a channel.
    pub undelivered: u32,
    /// Age of the oldest event whose notification did not reach a channel. `None` if all did.
    pub oldest_undelivered: Option<SignedDuration>,
}

/// What a tick should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Whether to look for new requests, and to read every connection that peergate follows.
    pub discover: bool,
    /// Minimum number of rounds. A change can start a tick before the index shows it, so that one round may be too
    /// early.
    pub min_rounds: u32,
}

impl Tick {
    /// The tick of the schedule: discovers, and does what is due.
    pub const SCHEDULED: Self = Self { discover: true, min_rounds: 1 };
    /// Does what is due.
    pub const DUE: Self = Self { discover: false, min_rounds: 1 };
    /// Does what a change has just made due. The index may not show it yet, so a second round follows.
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
        for (sum, value) in sums {
            *sum = sum.saturating_add(value);
        }
    }

    fn log(self, duration: Duration) {
        let Self { rounds, discovered, changed, delivered, undelivered, .. } = self;
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        macro_rules! log_tick {
            ($($target:tt)*) => {
                tracing::info!(
                    $($target)*
                    outcome = "ticked",
                    rounds,
                    discovered,
                    changed,
                    delivered,
                    undelivered,
                    duration_ms,
                    "finished the tick"
                )
            };
        }
        if [discovered, changed, delivered, undelivered] == [0; 4] {
            log_tick!(target: logging::ROUTINE,);
        } else {
            log_tick!();
        }
    }
}

/// Does what is due, in rounds, until nothing is due soon or `deadline` is near. The first round discovers requests and
/// reads every connection that peergate follows, if `tick.discover` is set.
///
/// # Errors
/// If the index cannot be read. Jobs that have begun are finished first.
pub async fn tick(app: &App, tick: Tick, deadline: Instant) -> Result<TickSummary, store::Error> {
    let started = Instant::now();
    let stop_at = deadline.checked_sub(SHUTDOWN_RESERVE).unwrap_or(deadline);
    let (mut scheduler, mut timer) = (Scheduler::new(app, stop_at), RoundTimer::new(started, deadline));
    let (mut summary, mut failed) = (TickSummary::default(), None);
    let refresh = app.credentials.renew_expiring_sessions(&app.secrets, clock::now());
    let mut refreshing = pin!(timeout_at(stop_at.min(started + REFRESH_TIMEOUT), refresh).fuse());
    // Jobs go on while the index is read.
    let mut loading = pin!(Fuse::terminated());
    loop {
        let at = timer.next_round_at(scheduler.is_busy()).filter(|_| failed.is_none() && loading.is_terminated());
        tokio::select! {
            Some(job) = scheduler.next_finished() => {
                summary.add(job.summary);
                timer.schedule(job.result.recheck_at);
            }
            due = &mut loading, if !loading.is_terminated() => {
                let due: Result<DueWork, store::Error> = due;
                match due {
                    Ok(due) => {
                        timer.schedule(due.next_due_at.map(|at| at - CLAIM_LEAD));
                        due.enqueue_jobs(app, &mut scheduler);
                    }
                    Err(error) => failed = Some(error),
                }
                timer.min_pause_after = timer.began_at.elapsed() * 10;
                if summary.rounds < tick.min_rounds {
                    timer.schedule(Some(clock::now() + INDEX_LAG));
                }
            }
            _ = &mut refreshing, if !refreshing.is_terminated() => {}
            () = sleep_until(at.unwrap_or(started)), if at.is_some() => {
                summary.rounds = summary.rounds.saturating_add(1);
                timer.begin_round();
                loading.set(DueWork::load(app, tick.discover && summary.rounds == 1).fuse());
            }
            else => break,
        }
    }
    let _ =
        timeout_at(deadline.checked_sub(SHUTDOWN_RESERVE / 2).unwrap_or(deadline), notify::deliver_digests(app)).await;
    summary.log(started.elapsed());
    metrics::count_undelivered(summary.undelivered, summary.oldest_undelivered);
    if let Some(error) = failed {
        return Err(error);
    }
    metrics::count_tick();
    Ok(summary)
}

/// When the next round begins.
struct RoundTimer {
    began_at: Instant,
    /// Pause before the next round if only slow jobs are left. So reading the index takes at most a tenth of the time.
    min_pause_after: Duration,
    /// The latest known time at which something is due.
    latest_due: Option<Instant>,
    next_at: Option<Instant>,
    deadline: Instant,
}

impl RoundTimer {
    /// The first round begins at once.
    fn new(started: Instant, deadline: Instant) -> Self {
        Self { began_at: started, min_pause_after: Duration::ZERO, latest_due: None, next_at: Some(started), deadline }
    }

    fn begin_round(&mut self) {
        self.began_at = Instant::now();
        self.next_at = self.latest_due.take().filter(|last| *last > self.began_at);
    }

    /// Plans a round at this time, if it is soon.
    fn schedule(&mut self, at: Option<Timestamp>) {
        let wait = at.map(|at| at.duration_since(clock::now())).filter(|wait| *wait <= DUE_HORIZON);
        let Some(wait) = wait else { return };
        let wait = Duration::try_from(wait).unwrap_or_default();
        let (earliest, latest) = (self.began_at + MIN_PAUSE, self.began_at + MAX_PAUSE);
        let at = (Instant::now() + wait).clamp(earliest, latest.max(Instant::now()));
        if at + MIN_ROUND_TIME <= self.deadline {
            self.latest_due = self.latest_due.max(Some(at));
            self.next_at = Some(self.next_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// When the next round begins. While jobs run there is always a next round, so that due work does not wait for slow
    /// jobs.
    fn next_round_at(&self, is_busy: bool) -> Option<Instant> {
        let while_busy = Some(self.began_at + MAX_PAUSE.max(self.min_pause_after));
        let while_busy = while_busy.filter(|at| is_busy && *at + MIN_ROUND_TIME <= self.deadline);
        [self.next_at, while_busy].into_iter().flatten().min()
    }
}

/// The work of one round.
struct DueWork {
    records: Vec<ApprovalId>,
    regions: BTreeMap<RegionKey, RegionWork>,
    /// When the next work after this round is due.
    next_due_at: Option<Timestamp>,
}

impl DueWork {
    /// Reads what is due now and what is being activated from the index. With `discover`, reads the whole index.
    async fn load(app: &App, discover: bool) -> Result<Self, store::Error> {
        let now = clock::now();
        let mut due = Self { records: vec![], regions: BTreeMap::new(), next_due_at: None };
        let mut from = None;
        loop {
            let before = if discover { Timestamp::MAX } else { now + DUE_HORIZON };
            let page = app.store.due_entries(before, from).await?;
            for entry in page.items {
                if entry.state == IndexState::Activating || discover && entry.state != IndexState::Decided {
                    let key = RegionKey { target: entry.id.target.clone(), region: entry.region.clone() };
                    due.regions.entry(key).or_default().add_entry(&entry);
                }
                match entry.work_at {
                    Some(at) if at <= now + CLAIM_LEAD => due.records.push(entry.id),
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
            let vpc_calls = VpcCallBudget::new();
            for (name, target) in &app.config.targets {
                for region in &target.regions {
                    let key = RegionKey { target: name.clone(), region: region.clone() };
                    let work = due.regions.entry(key).or_default();
                    work.discover = true;
                    work.vpc_calls = target.read_vpcs.then(|| vpc_calls.clone());
                }
            }
        }
        Ok(due)
    }

    /// Queues the work as jobs.
    fn enqueue_jobs(self, app: &App, scheduler: &mut Scheduler<'_>) {
        for (key, mut work) in self.regions {
            if !work.discover {
                // Nobody lists the region for new requests.
                work.poll_unseen_active();
            }
            if !app.config.targets.contains_key(&key.target) {
                let RegionKey { target, region } = key;
                if !work.polled.is_empty() {
                    tracing::error!(
                        outcome = "unknown_target",
                        target,
                        region,
                        "skipped the connections of a target that is not in the configuration"
                    );
                }
                continue;
            }
            for job in work.into_jobs(key) {
                scheduler.enqueue(job);
            }
        }
        for id in self.records {
            scheduler.enqueue(Job::Advance(id));
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

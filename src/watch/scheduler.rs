//! Runs the jobs of a tick in lanes. Each target has its own lanes, so that a slow target delays no other. Each target
//! has one lane for reading connections, one for applying readings, one for due steps, and one for each channel, so that a
//! slow channel delays nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::job::{Job, JobKey, JobResult, LaneKey, LaneKind, RegionKey};
use super::{TickSummary, discovery, notify, own_vpcs, reconcile};
use crate::app::App;
use crate::logging::ErrorChain;
use crate::store;

/// How many jobs of a lane run at once.
const MAX_CONCURRENT_JOBS: usize = 16;
/// While this many readings of a target wait to be applied, no further page is listed.
const MAX_QUEUED_INGESTS: usize = 200;

/// A job that has ended.
pub(super) struct FinishedJob {
    lane: LaneKey,
    key: JobKey,
    pub(super) summary: TickSummary,
    pub(super) result: JobResult,
}

/// The lanes of all targets.
pub(super) struct Scheduler<'a> {
    app: &'a App,
    stop_at: Instant,
    lanes: BTreeMap<LaneKey, Lane>,
    /// Keys of queued and running jobs. A second job with the same key is not queued.
    queued_or_running: BTreeSet<JobKey>,
    running: FuturesUnordered<BoxFuture<'a, FinishedJob>>,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<Job>,
    running: usize,
}

impl<'a> Scheduler<'a> {
    /// No job runs after `stop_at`.
    pub(super) fn new(app: &'a App, stop_at: Instant) -> Self {
        let (lanes, queued_or_running, running) = (BTreeMap::new(), BTreeSet::new(), FuturesUnordered::new());
        Self { app, stop_at, lanes, queued_or_running, running }
    }

    /// Queues a job, unless one with the same key is queued or runs.
    pub(super) fn enqueue(&mut self, job: Job) {
        if self.queued_or_running.insert(job.key()) {
            self.lanes.entry(job.lane()).or_default().queue.push_back(job);
        }
    }

    /// Waits for the next job to end, and queues its follow-up jobs. `None` if no job is left.
    pub(super) async fn next_finished(&mut self) -> Option<FinishedJob> {
        self.start_jobs();
        let mut finished = self.running.next().await?;
        self.queued_or_running.remove(&finished.key);
        if let Some(lane) = self.lanes.get_mut(&finished.lane) {
            lane.running -= 1;
        }
        for job in std::mem::take(&mut finished.result.follow_ups) {
            self.enqueue(job);
        }
        Some(finished)
    }

    /// Whether any job is queued or runs.
    pub(super) fn is_busy(&self) -> bool {
        !self.queued_or_running.is_empty()
    }

    fn start_jobs(&mut self) {
        let is_late = Instant::now() >= self.stop_at;
        let is_full =
            |(key, lane): &(&LaneKey, &Lane)| key.kind == LaneKind::Ingest && lane.queue.len() >= MAX_QUEUED_INGESTS;
        let full: Vec<_> = self.lanes.iter().filter(is_full).map(|(key, _)| key.target.clone()).collect();
        for (LaneKey { target, kind }, lane) in &mut self.lanes {
            if is_late && !lane.queue.is_empty() {
                let left = lane.queue.len();
                tracing::error!(outcome = "out_of_time", target, left, "left queued jobs to the next tick");
                for job in lane.queue.drain(..) {
                    self.queued_or_running.remove(&job.key());
                }
            }
            while lane.running < MAX_CONCURRENT_JOBS
                && !(*kind == LaneKind::Poll && full.contains(target))
                && let Some(job) = lane.queue.pop_front()
            {
                lane.running += 1;
                self.running.push(Box::pin(run_job(self.app, job, self.stop_at)));
            }
        }
    }
}

async fn run_job(app: &App, job: Job, stop_at: Instant) -> FinishedJob {
    let (lane, key, mut summary) = (job.lane(), job.key(), TickSummary::default());
    let result: Result<Result<JobResult, store::Error>, _> = timeout_at(stop_at, async {
        match job {
            Job::Advance(id) => reconcile::advance_record(app, &id, &mut summary).await,
            Job::Ingest { id, connection, indexed_state } => {
                reconcile::ingest_reading(app, &id, &connection, indexed_state, &mut summary).await
            }
            Job::Poll { id, indexed_state, activating_since } => {
                reconcile::poll_connection(app, id, indexed_state, activating_since).await
            }
            Job::IngestOwnVpc { id, cidrs } => reconcile::ingest_own_vpc(app, &id, cidrs, &mut summary).await,
            Job::ReadOwnVpcs(reading) => Ok(own_vpcs::read_own_vpcs(app, *reading).await),
            Job::MarkDeleted(id) => reconcile::mark_deleted(app, &id, &mut summary).await,
            Job::ReportBypass(id) => reconcile::report_bypass(app, &id, &mut summary).await,
            Job::ListPage(listing) => discovery::list_next_page(app, *listing).await,
            Job::Post(post) => notify::post_claimed(app, *post, stop_at, &mut summary).await,
        }
    })
    .await;
    let target = &lane.target;
    let (peering, region) = match &key {
        JobKey::Advance(id)
        | JobKey::Ingest(id)
        | JobKey::IngestOwnVpc(id)
        | JobKey::Poll(id)
        | JobKey::Post { id, .. } => (Some(id.instance_id.as_str()), None),
        JobKey::List(RegionKey { region, .. }) | JobKey::ReadOwnVpcs(RegionKey { region, .. }) => (None, Some(region)),
    };
    let result = match result {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => {
            let (outcome, error) = (error.log_outcome(), ErrorChain(&error));
            tracing::error!(outcome, target, peering.id = peering, region, %error, "could not finish a job");
            JobResult::default()
        }
        Err(_elapsed) => {
            tracing::error!(
                outcome = "out_of_time",
                target,
                peering.id = peering,
                region,
                "stopped a job that had no time left; the next tick repeats it"
            );
            JobResult::default()
        }
    };
    FinishedJob { lane, key, summary, result }
}

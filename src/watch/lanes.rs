//! What a tick has begun and has still to do: lanes for each target, so that one that is slow delays no other; and for
//! each target one to see, one to take in what was seen, and one for what is due, so that a channel that does not answer
//! keeps nobody from seeing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::job::{Done, Job, Key, Kind};
use super::{Summary, record, survey};
use crate::app::App;
use crate::approval::ApprovalId;
use crate::logging::Chain;
use crate::store;

/// How much of a lane is worked on at once.
const AT_ONCE: usize = 16;
/// No page is listed while so much of what earlier ones showed is not taken in.
const MOST_TO_TAKE: usize = 200;

/// A job that has ended.
struct Ended {
    target: String,
    kind: Kind,
    key: Key,
    did: Summary,
    done: Done,
}

/// The lanes.
pub(super) struct Lanes<'a> {
    app: &'a App,
    stop_at: Instant,
    by_target: BTreeMap<(String, Kind), Lane>,
    /// What is queued or running: it is not begun again meanwhile.
    begun: BTreeSet<Key>,
    running: FuturesUnordered<BoxFuture<'a, Ended>>,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<Job>,
    running: usize,
}

impl<'a> Lanes<'a> {
    /// Lanes in which nothing runs for longer than until `stop_at`.
    pub(super) fn new(app: &'a App, stop_at: Instant) -> Self {
        let (by_target, begun, running) = (BTreeMap::new(), BTreeSet::new(), FuturesUnordered::new());
        Self { app, stop_at, by_target, begun, running }
    }

    /// Queues a job, unless it is begun.
    pub(super) fn push(&mut self, target: String, job: Job) {
        if self.begun.insert(job.key(&target)) {
            self.by_target.entry((target, job.kind())).or_default().queue.push_back(job);
        }
    }

    /// What the next job that ends did, and when to look again; `None` when all have ended.
    pub(super) async fn next(&mut self) -> Option<(Summary, Option<Timestamp>)> {
        self.start();
        let Ended { target, kind, key, did, done } = self.running.next().await?;
        self.begun.remove(&key);
        if let Some(lane) = self.by_target.get_mut(&(target.clone(), kind)) {
            lane.running -= 1;
        }
        for job in done.more {
            self.push(target.clone(), job);
        }
        Some((did, done.look_at))
    }

    /// Whether anything is queued or runs.
    pub(super) fn is_busy(&self) -> bool {
        !self.begun.is_empty()
    }

    fn start(&mut self) {
        let is_late = Instant::now() >= self.stop_at;
        let is_full =
            |((_, kind), lane): &(&(String, Kind), &Lane)| *kind == Kind::Take && lane.queue.len() >= MOST_TO_TAKE;
        let full: Vec<_> = self.by_target.iter().filter(is_full).map(|((target, _), _)| target.clone()).collect();
        for ((target, kind), lane) in &mut self.by_target {
            if is_late && !lane.queue.is_empty() {
                let left = lane.queue.len();
                tracing::error!(outcome = "out_of_time", target, left, "a part is left to the next tick");
                for job in lane.queue.drain(..) {
                    self.begun.remove(&job.key(target));
                }
            }
            while lane.running < AT_ONCE
                && !(*kind == Kind::See && full.contains(target))
                && let Some(job) = lane.queue.pop_front()
            {
                lane.running += 1;
                self.running.push(Box::pin(run(self.app, target.clone(), job, self.stop_at)));
            }
        }
    }
}

async fn run(app: &App, target: String, job: Job, stop_at: Instant) -> Ended {
    let (kind, key, mut did) = (job.kind(), job.key(&target), Summary::default());
    let done: Result<Result<Done, store::Error>, _> = timeout_at(stop_at, async {
        match job {
            Job::Step(id) => record::step(app, &id, &mut did).await,
            Job::News(id, connection, stage) => record::take(app, &id, &connection, stage, &mut did).await,
            Job::Read(id, stage, since) => record::read(app, id, stage, since).await,
            Job::Gone(id) => record::gone(app, &id, &mut did).await,
            Job::List(listing) => survey::list(app, &target, listing).await,
        }
    })
    .await;
    let (peering, region) = match &key {
        Key::Record(ApprovalId { instance_id, .. }) | Key::News(_, instance_id) | Key::Reading(_, instance_id) => {
            (Some(instance_id.as_str()), None)
        }
        Key::Region(_, region) => (None, Some(region)),
    };
    let done = match done {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => {
            let (outcome, error) = (error.outcome(), Chain(&error));
            tracing::error!(outcome, target, peering.id = peering, region, %error, "not stored");
            Done::default()
        }
        Err(_elapsed) => {
            tracing::error!(outcome = "out_of_time", target, peering.id = peering, region, "left to the next tick");
            Done::default()
        }
    };
    Ended { target, kind, key, did, done }
}

//! What a tick has begun and has still to do: lanes for each target, so that one that is slow delays no other; and for
//! each target one to see, one to take in what was seen, and one for what is due, so that a channel that does not answer
//! keeps nobody from seeing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::survey::Listing;
use super::{Summary, record, survey};
use crate::app::App;
use crate::approval::{ApprovalId, Stage};
use crate::logging::Chain;
use crate::peering::{Connection, InstanceId};
use crate::store;

/// How much of a lane is worked on at once.
const AT_ONCE: usize = 16;
/// No page is listed while so much of what earlier ones showed is not taken in.
const MOST_TO_TAKE: usize = 200;

/// Something to do. The failure of one stops no other.
pub(super) enum Job {
    /// A record is due.
    Step(ApprovalId),
    /// A reading says something about a connection that the index, if it has it at this stage, does not.
    News(ApprovalId, Box<Connection>, Option<Stage>),
    /// A connection is to be read: it is followed, and in no list.
    Read(ApprovalId, Stage, Option<Timestamp>),
    /// A connection is not there any more.
    Gone(ApprovalId),
    /// A page of a region is to be listed.
    List(Listing),
}

/// What came of a job.
#[derive(Default)]
pub(super) struct Done {
    /// When to look again.
    pub(super) look_at: Option<Timestamp>,
    /// What is to be done now, in this order.
    pub(super) more: Vec<Job>,
}

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

/// Which of a target's lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    See,
    Take,
    Step,
}

/// What a job is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Record(ApprovalId),
    News(String, InstanceId),
    Reading(String, InstanceId),
    Region(String, String),
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

impl Job {
    fn kind(&self) -> Kind {
        match self {
            Self::Step(_) => Kind::Step,
            Self::News(..) | Self::Gone(_) => Kind::Take,
            Self::Read(..) | Self::List(_) => Kind::See,
        }
    }

    fn key(&self, target: &str) -> Key {
        match self {
            Self::Step(id) => Key::Record(id.clone()),
            Self::News(id, ..) | Self::Gone(id) => Key::News(id.target.clone(), id.instance_id.clone()),
            Self::Read(id, ..) => Key::Reading(id.target.clone(), id.instance_id.clone()),
            Self::List(listing) => Key::Region(target.to_owned(), listing.region.clone()),
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

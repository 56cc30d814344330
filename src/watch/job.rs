//! The jobs of a tick, as data: `record` and `survey` do them, `lanes` schedules them.

use std::collections::HashMap;

use jiff::Timestamp;

use super::repeat_detector::RepeatDetector;
use crate::approval::{ApprovalId, IndexState};
use crate::peering::{Connection, InstanceId};

/// Something to do. The failure of one stops no other.
pub(super) enum Job {
    /// A record is due.
    Advance(ApprovalId),
    /// A reading says something about a connection that the index, if it has it at this stage, does not.
    Ingest(ApprovalId, Box<Connection>, Option<IndexState>),
    /// A connection is to be read: it is followed, and in no list.
    Poll(ApprovalId, IndexState, Option<Timestamp>),
    /// A connection is not there any more.
    MarkDeleted(ApprovalId),
    /// A page of a region is to be listed.
    ListPage(Listing),
}

/// The result of a job.
#[derive(Default)]
pub(super) struct JobResult {
    /// When to look again.
    pub(super) recheck_at: Option<Timestamp>,
    /// The jobs to do now, in this order.
    pub(super) follow_ups: Vec<Job>,
}

/// Which of a target's lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LaneKind {
    Poll,
    Ingest,
    Advance,
}

/// The subject of a job.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum JobKey {
    Record(ApprovalId),
    Ingest(String, InstanceId),
    Poll(String, InstanceId),
    Region(String, String),
}

/// What is looked for in a region.
#[derive(Default)]
pub(super) struct RegionWork {
    /// What is new, too.
    pub(super) discover: bool,
    /// Connections that must be seen: those that no page shows are read.
    pub(super) polled: HashMap<InstanceId, IndexState>,
    /// Finished connections, which are only compared with what a page shows.
    pub(super) finished: HashMap<InstanceId, IndexState>,
    /// When the last of its activations began.
    pub(super) activating_since: Option<Timestamp>,
}

/// A region that is being listed.
pub(super) struct Listing {
    /// e.g. `cn-shanghai`.
    pub(super) region: String,
    /// What no page has shown yet.
    pub(super) remaining: RegionWork,
    pub(super) next_token: Option<String>,
    pub(super) pages: u32,
    pub(super) unreadable: usize,
    /// What the pages so far have brought.
    pub(super) repeat_detector: RepeatDetector,
}

impl Job {
    pub(super) fn lane_kind(&self) -> LaneKind {
        match self {
            Self::Advance(_) => LaneKind::Advance,
            Self::Ingest(..) | Self::MarkDeleted(_) => LaneKind::Ingest,
            Self::Poll(..) | Self::ListPage(_) => LaneKind::Poll,
        }
    }

    pub(super) fn key(&self, target: &str) -> JobKey {
        match self {
            Self::Advance(id) => JobKey::Record(id.clone()),
            Self::Ingest(id, ..) | Self::MarkDeleted(id) => JobKey::Ingest(id.target.clone(), id.instance_id.clone()),
            Self::Poll(id, ..) => JobKey::Poll(id.target.clone(), id.instance_id.clone()),
            Self::ListPage(listing) => JobKey::Region(target.to_owned(), listing.region.clone()),
        }
    }
}

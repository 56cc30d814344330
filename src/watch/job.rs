//! The jobs of a tick, as data. `scheduler` runs them with the functions of `reconcile` and `discovery`.

use std::collections::HashMap;

use jiff::Timestamp;

use super::repeat_detector::RepeatDetector;
use crate::approval::{ApprovalId, IndexState};
use crate::peering::{Connection, InstanceId};

/// A piece of work. A failure of one job stops no other.
pub(super) enum Job {
    /// Takes the due step of a record.
    Advance(ApprovalId),
    /// Applies a reading that differs from the index. `None` if the record is not in the index, or its state there is
    /// unknown.
    Ingest(ApprovalId, Box<Connection>, Option<IndexState>),
    /// Reads a connection that no list shows. Holds when its activation began.
    Poll(ApprovalId, IndexState, Option<Timestamp>),
    /// Records that a connection no longer exists.
    MarkDeleted(ApprovalId),
    /// Lists a page of a region.
    ListPage(Listing),
}

/// What a job leads to.
#[derive(Default)]
pub(super) struct JobResult {
    /// When to work on the same thing again. `None` if the next tick is soon enough.
    pub(super) recheck_at: Option<Timestamp>,
    /// Jobs to queue now, in this order.
    pub(super) follow_ups: Vec<Job>,
}

/// The kinds of lanes that each target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LaneKind {
    Poll,
    Ingest,
    Advance,
}

/// Identifies a job. While a job is queued or runs, no second one with the same key is queued.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum JobKey {
    Record(ApprovalId),
    Ingest(String, InstanceId),
    Poll(String, InstanceId),
    Region(String, String),
}

/// What to look for in a region.
#[derive(Default)]
pub(super) struct RegionWork {
    /// Whether to look for new requests.
    pub(super) discover: bool,
    /// Connections that must be read. Those that no page shows are read one by one.
    pub(super) polled: HashMap<InstanceId, IndexState>,
    /// Finished connections. They are only compared with the pages.
    pub(super) finished: HashMap<InstanceId, IndexState>,
    /// When the youngest activation of the region began. `None` if there is none.
    pub(super) activating_since: Option<Timestamp>,
}

/// A region that is being listed.
pub(super) struct Listing {
    /// Region, e.g. `cn-shanghai`.
    pub(super) region: String,
    /// What no page has shown yet.
    pub(super) remaining: RegionWork,
    pub(super) next_token: Option<String>,
    pub(super) pages: u32,
    pub(super) unreadable: usize,
    /// Detects pages that repeat earlier ones.
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

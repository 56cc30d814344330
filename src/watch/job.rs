//! The jobs of a tick, as data. `scheduler` runs them with the functions of `reconcile`, `discovery`
//! and `notify`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::repeat_detector::RepeatDetector;
use crate::approval::{ApprovalId, Claim, ContentDigest, IndexState};
use crate::peering::{Connection, InstanceId};
use crate::store::Stored;

/// The most calls that read our VPCs in a tick, for all regions together.
const MAX_VPC_CALLS: u32 = 10;

/// A piece of work. A failure of one job stops no other.
pub(super) enum Job {
    /// Takes the due step of a record.
    Advance(ApprovalId),
    /// Applies a reading that differs from the index.
    Ingest {
        id: ApprovalId,
        connection: Box<Connection>,
        /// State of the record in the index. `None` if it is not known.
        indexed_state: Option<IndexState>,
    },
    /// Reads a connection that no list shows.
    Poll {
        id: ApprovalId,
        indexed_state: IndexState,
        /// When the youngest activation of its region began. `None` if there is none.
        activating_since: Option<Timestamp>,
    },
    /// Applies a reading of our VPC that differs from the index.
    IngestOwnVpc { id: ApprovalId, cidrs: BTreeSet<IpNet> },
    /// Reads our own VPCs of a region.
    ReadOwnVpcs(Box<VpcReading>),
    /// Records that a connection no longer exists.
    MarkDeleted(ApprovalId),
    /// Tells people of a connection that was accepted before peergate knew of it.
    ReportBypass(ApprovalId),
    /// Lists a page of a region.
    ListPage(Box<Listing>),
    /// Posts a notification that this process has claimed.
    Post(Box<ClaimedPost>),
}

/// A claimed notification, and when its post may begin.
#[derive(Debug, Clone)]
pub(super) struct PacedClaim {
    pub(super) claim: Claim,
    pub(super) begin_at: Timestamp,
}

/// A notification that this process has claimed.
pub(super) struct ClaimedPost {
    pub(super) id: ApprovalId,
    /// The record as it was stored last. Posts that were claimed together share it, so that their writes do not conflict.
    pub(super) record: Arc<Mutex<Stored>>,
    pub(super) paced: PacedClaim,
    /// When it was claimed. The claim ends 60 s later.
    pub(super) claimed_at: Instant,
}

/// The result of a job.
#[derive(Default)]
pub(super) struct JobResult {
    /// When the tick should begin another round. `None` if the next tick is soon enough.
    pub(super) recheck_at: Option<Timestamp>,
    /// Jobs to queue now, in this order.
    pub(super) follow_ups: Vec<Job>,
}

/// Names a lane. Each target has one of each kind, and one for each channel.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneKey {
    pub(super) target: String,
    pub(super) kind: LaneKind,
}

/// What the jobs of a lane do: read connections, apply readings, take due steps, or post to a channel.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LaneKind {
    Poll,
    Ingest,
    Advance,
    /// By the channel's name in the configuration.
    Post(String),
}

/// Names a job. While a job is queued or runs, no second one with the same key is queued.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum JobKey {
    Advance(ApprovalId),
    Ingest(ApprovalId),
    IngestOwnVpc(ApprovalId),
    ReadOwnVpcs(RegionKey),
    Poll(ApprovalId),
    List(RegionKey),
    Post { id: ApprovalId, channel: String, number: u32 },
}

/// Names a region of a target.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RegionKey {
    pub(super) target: String,
    /// E.g. `cn-shanghai`.
    pub(super) region: String,
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
    /// The calls that read our own VPCs. `None` if they are not read.
    pub(super) vpc_calls: Option<VpcCallBudget>,
}

/// The calls that are left in this tick.
#[derive(Debug, Clone)]
pub(super) struct VpcCallBudget(Arc<AtomicU32>);

impl VpcCallBudget {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU32::new(MAX_VPC_CALLS)))
    }

    pub(super) fn take(&self) -> bool {
        let take = |left: u32| left.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// The activated connections of our own VPCs in a region, by VPC, with the digest of what was read last.
pub(super) type FollowedVpcs = BTreeMap<String, Vec<(InstanceId, ContentDigest)>>;

/// The VPCs of a region, which are read in this tick as far as the budget goes.
pub(super) struct VpcReading {
    pub(super) key: RegionKey,
    pub(super) vpcs: FollowedVpcs,
    pub(super) budget: VpcCallBudget,
}

/// A region that is being listed.
pub(super) struct Listing {
    pub(super) key: RegionKey,
    /// What no page has shown yet.
    pub(super) remaining: RegionWork,
    pub(super) next_token: Option<String>,
    pub(super) pages: u32,
    pub(super) unreadable: usize,
    /// When the region was surveyed first. `None` if this listing looks for no new requests, or the table is unavailable.
    pub(super) first_survey_at: Option<Timestamp>,
    /// Our own VPCs with activated connections, if they are read.
    pub(super) followed_vpcs: Option<FollowedVpcs>,
    /// Detects pages that repeat earlier ones.
    pub(super) repeat_detector: RepeatDetector,
}

impl Job {
    pub(super) fn lane(&self) -> LaneKey {
        let (target, kind) = match self {
            Self::Advance(id) => (&id.target, LaneKind::Advance),
            Self::Ingest { id, .. }
            | Self::IngestOwnVpc { id, .. }
            | Self::MarkDeleted(id)
            | Self::ReportBypass(id) => (&id.target, LaneKind::Ingest),
            Self::ReadOwnVpcs(reading) => (&reading.key.target, LaneKind::Poll),
            Self::Poll { id, .. } => (&id.target, LaneKind::Poll),
            Self::ListPage(listing) => (&listing.key.target, LaneKind::Poll),
            Self::Post(post) => (&post.id.target, LaneKind::Post(post.paced.claim.channel.clone())),
        };
        LaneKey { target: target.clone(), kind }
    }

    pub(super) fn key(&self) -> JobKey {
        match self {
            Self::Advance(id) => JobKey::Advance(id.clone()),
            Self::Ingest { id, .. } | Self::MarkDeleted(id) | Self::ReportBypass(id) => JobKey::Ingest(id.clone()),
            Self::IngestOwnVpc { id, .. } => JobKey::IngestOwnVpc(id.clone()),
            Self::ReadOwnVpcs(reading) => JobKey::ReadOwnVpcs(reading.key.clone()),
            Self::Poll { id, .. } => JobKey::Poll(id.clone()),
            Self::ListPage(listing) => JobKey::List(listing.key.clone()),
            Self::Post(post) => {
                let Claim { notification, channel, .. } = &post.paced.claim;
                JobKey::Post { id: post.id.clone(), channel: channel.clone(), number: notification.number }
            }
        }
    }
}

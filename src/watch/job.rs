//! The jobs of a tick, as data: `record` and `survey` do them, `lanes` schedules them.

use std::collections::HashMap;

use jiff::Timestamp;

use super::seen::Seen;
use crate::approval::{ApprovalId, Stage};
use crate::peering::{Connection, InstanceId};

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

/// The result of a job.
#[derive(Default)]
pub(super) struct Done {
    /// When to look again.
    pub(super) look_at: Option<Timestamp>,
    /// The jobs to do now, in this order.
    pub(super) more: Vec<Job>,
}

/// Which of a target's lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    See,
    Take,
    Step,
}

/// The subject of a job.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Record(ApprovalId),
    News(String, InstanceId),
    Reading(String, InstanceId),
    Region(String, String),
}

/// What is looked for in a region.
#[derive(Default)]
pub(super) struct Region {
    /// What is new, too.
    pub(super) discover: bool,
    /// Connections that must be seen: those that no page shows are read.
    pub(super) followed: HashMap<InstanceId, Stage>,
    /// Finished connections, which are only compared with what a page shows.
    pub(super) over: HashMap<InstanceId, Stage>,
    /// When the last of its activations began.
    pub(super) since: Option<Timestamp>,
}

/// A region that is being listed.
pub(super) struct Listing {
    /// e.g. `cn-shanghai`.
    pub(super) region: String,
    /// What no page has shown yet.
    pub(super) left: Region,
    pub(super) next_token: Option<String>,
    pub(super) pages: u32,
    pub(super) left_out: usize,
    /// What the pages so far have brought.
    pub(super) seen: Seen,
}

impl Job {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Step(_) => Kind::Step,
            Self::News(..) | Self::Gone(_) => Kind::Take,
            Self::Read(..) | Self::List(_) => Kind::See,
        }
    }

    pub(super) fn key(&self, target: &str) -> Key {
        match self {
            Self::Step(id) => Key::Record(id.clone()),
            Self::News(id, ..) | Self::Gone(id) => Key::News(id.target.clone(), id.instance_id.clone()),
            Self::Read(id, ..) => Key::Reading(id.target.clone(), id.instance_id.clone()),
            Self::List(listing) => Key::Region(target.to_owned(), listing.region.clone()),
        }
    }
}

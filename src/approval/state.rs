//! Which record, and how far it has come.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::peering::InstanceId;

/// Which connection of which target a record is about. Written `target/pcc-…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApprovalId {
    /// The configured name of the accepting account.
    pub target: String,
    /// The connection.
    pub instance_id: InstanceId,
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.target, self.instance_id)
    }
}

/// How far an approval has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Seen; people have not decided yet.
    Pending,
    /// Decided; `AcceptVpcPeerConnection` not acknowledged yet.
    Approved,
    /// Acknowledged; Alibaba Cloud is activating it.
    Activating,
    /// Usable. Over.
    Activated,
    /// Decided; `RejectVpcPeerConnection` not acknowledged yet.
    Rejecting,
    /// Refused. Over, unless the connection is seen alive.
    Rejected,
    /// Nobody decided within seven days. Over, unless the connection is seen alive.
    Expired,
    /// The connection is gone. Over, unless it is seen alive.
    Deleted,
    /// Alibaba Cloud, or what happened outside peergate, made it impossible. Over, until somebody decides
    /// again or the connection is seen activated.
    Failed {
        /// The vendor's code, or one of ours: see [`code`].
        code: String,
    },
}

/// Codes of [`State::Failed`] that are not the vendor's.
pub mod failure_code {
    /// It was accepted by somebody else while we were to reject it.
    pub const ACCEPTED_ELSEWHERE: &str = "AcceptedElsewhere";
    /// Its facts changed again and again.
    pub const CHANGED_TOO_OFTEN: &str = "ChangedTooOften";
    /// Alibaba Cloud acknowledged the call again and again, and the connection still waits.
    pub const CALL_UNDONE: &str = "CallUndone";
    /// Alibaba Cloud does not list the other peerings of the VPC, so that one of the checks cannot be made.
    pub const OTHER_PEERINGS_UNKNOWN: &str = "OtherPeerings.Unknown";
    /// An approved request does not pass the current checks; an earlier call may have taken effect.
    pub const NEEDS_PEOPLE_AGAIN: &str = "NeedsPeopleAgain";
}

impl ApprovalState {
    /// Whether it is over: only a reading that proves it wrong, or a new decision after a failure, leads out of it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Pending | Self::Approved | Self::Activating | Self::Rejecting => false,
            Self::Activated | Self::Rejected | Self::Expired | Self::Deleted | Self::Failed { .. } => true,
        }
    }

    /// The word for it in answers, the store and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Activating => "activating",
            Self::Activated => "activated",
            Self::Rejecting => "rejecting",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
            Self::Failed { .. } => "failed",
        }
    }
}

//! Ids of records, and their states.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::peering::InstanceId;

/// Id of a record: one connection of one target. Written `target/pcc-…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApprovalId {
    /// Configured name of the accepting account.
    pub target: String,
    /// The vendor's id of the connection.
    pub instance_id: InstanceId,
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.target, self.instance_id)
    }
}

/// Progress of an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Discovered. People have not decided yet.
    Pending,
    /// Approved. Alibaba Cloud has not acknowledged `AcceptVpcPeerConnection` yet.
    Approved,
    /// Accepted. Alibaba Cloud is activating the connection.
    Activating,
    /// The connection is usable. Final.
    Activated,
    /// Rejected by people. Alibaba Cloud has not acknowledged `RejectVpcPeerConnection` yet.
    Rejecting,
    /// Rejected. Final, unless a reading shows that the connection is waiting or usable.
    Rejected,
    /// Expired before the accept. Final, unless a reading shows that the connection is waiting or usable.
    Expired,
    /// The connection no longer exists. Final, unless a reading shows that it is waiting or usable.
    Deleted,
    /// Alibaba Cloud, or something outside peergate, made the decision impossible. Final, until somebody decides again
    /// or a reading shows that the connection is usable.
    Failed {
        /// The vendor's code, or one of [`failure_code`].
        code: String,
    },
}

/// peergate's own codes of [`ApprovalState::Failed`].
pub mod failure_code {
    /// Somebody else accepted the connection before peergate rejected it.
    pub const ACCEPTED_ELSEWHERE: &str = "AcceptedElsewhere";
    /// The facts changed too often.
    pub const CHANGED_TOO_OFTEN: &str = "ChangedTooOften";
    /// Alibaba Cloud acknowledged the call several times, but the connection is still waiting.
    pub const CALL_UNDONE: &str = "CallUndone";
    /// Alibaba Cloud does not list the other peerings of the VPC, so that one of the checks cannot be made.
    pub const OTHER_PEERINGS_UNKNOWN: &str = "OtherPeerings.Unknown";
    /// An approved request does not pass the current checks, but an earlier call may have taken effect.
    pub const NEEDS_PEOPLE_AGAIN: &str = "NeedsPeopleAgain";
}

impl ApprovalState {
    /// Whether the state is final. Only a reading that proves it wrong, or a new decision after a failure, leads out of
    /// it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Pending | Self::Approved | Self::Activating | Self::Rejecting => false,
            Self::Activated | Self::Rejected | Self::Expired | Self::Deleted | Self::Failed { .. } => true,
        }
    }

    /// Name of the state in replies, the store and logs.
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

//! Events: everything that can happen to a record, except people's decisions.

use jiff::SignedDuration;

use super::{Approver, CardRef, FailedPost, FollowedReading, PolicySnapshot, SendBackReason};
use crate::peering::{Connection, Fingerprint, Problem, RouteReport};
use crate::preflight::Finding;

/// Something that happened to a connection, a call or a notification. Applying an event twice has the same effect as
/// applying it once.
#[derive(Debug, Clone)]
pub enum Event {
    /// Alibaba Cloud acknowledged `AcceptVpcPeerConnection`.
    Accepted {
        /// Alibaba Cloud's id of the call.
        request_id: String,
    },
    /// Alibaba Cloud acknowledged `RejectVpcPeerConnection`.
    Rejected {
        /// Alibaba Cloud's id of the call.
        request_id: String,
    },
    /// A reading of the connection.
    Observed(Box<Connection>),
    /// A reading did not find the connection.
    Missing,
    /// A reading of an activated connection, with everything that is told of it.
    Followed(Box<FollowedReading>),
    /// A reading of the route tables of our VPC, for a connection that is activated or has ended.
    RoutesRead(RouteReport),
    /// The route tables could not be read. Holds when to try again.
    RoutesUnread(SignedDuration),
    /// A reading has other facts than people were shown.
    Changed {
        /// The new reading.
        connection: Box<Connection>,
        /// Results of the checks of this reading.
        findings: Vec<Finding>,
    },
    /// An attempt failed. A later one may succeed.
    Deferred {
        /// Why the attempt failed.
        problem: Problem,
        /// How long the vendor asked us to wait. `None` if it did not ask.
        retry_after: Option<SignedDuration>,
    },
    /// Alibaba Cloud refused our credentials or permissions. A person must act.
    CredentialsRefused(Problem),
    /// The call failed, and no later attempt can succeed.
    Failed(Problem),
    /// The call failed with an unknown code. It is tried again for a limited time.
    FailedUnknown(Problem),
    /// An approved request did not pass the review before a late accept.
    SentBack {
        /// Which part of the review it did not pass.
        why: SendBackReason,
        /// The new reading.
        connection: Box<Connection>,
        /// What the configuration says about it now.
        policy: Box<PolicySnapshot>,
        /// Results of the checks of this reading.
        findings: Vec<Finding>,
        /// People who may no longer approve it.
        void: Vec<Approver>,
    },
    /// A notification reached a channel.
    Delivered {
        /// Number of the notification in the outbox.
        number: u32,
        /// Configured name of the channel.
        channel: String,
        /// What the channel shows after the post.
        display: ChannelDisplay,
    },
    /// A notification did not reach a channel.
    Undelivered {
        /// Number of the notification in the outbox.
        number: u32,
        /// Configured name of the channel.
        channel: String,
        /// Why it did not, and when to try again.
        failed: FailedPost,
        /// What the channel shows now. The card may have been updated before the failure.
        display: ChannelDisplay,
    },
}

/// What a channel shows after a post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelDisplay {
    /// The same as before.
    Unchanged,
    /// This card, which was updated or posted.
    Card(CardRef),
    /// A message that shows all facts of this fingerprint.
    Facts(Fingerprint),
}

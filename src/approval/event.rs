//! What can happen to a record, but for people's decisions.

use jiff::SignedDuration;

use super::{Approver, CardRef, PolicySnapshot, RetryPolicy, SendBackReason};
use crate::peering::{Connection, Fingerprint, Problem};
use crate::preflight::Finding;

/// What can happen to a record. Applying one twice is applying it once.
#[derive(Debug, Clone)]
pub enum Event {
    /// `AcceptVpcPeerConnection` was acknowledged.
    Accepted {
        /// Of the call.
        request_id: String,
    },
    /// `RejectVpcPeerConnection` was acknowledged.
    Rejected {
        /// Of the call.
        request_id: String,
    },
    /// The connection was read.
    Observed(Box<Connection>),
    /// The connection does not exist any more.
    Missing,
    /// The connection is not the one that people were shown.
    Changed {
        /// As it is.
        connection: Box<Connection>,
        /// What the checks say about it.
        findings: Vec<Finding>,
    },
    /// A try failed; another may do.
    Deferred {
        /// Why.
        problem: Problem,
        /// What the vendor asked for.
        retry_after: Option<SignedDuration>,
    },
    /// Our credentials or permissions were refused; a person has to act.
    CredentialsRefused(Problem),
    /// It will never work.
    Failed(Problem),
    /// It failed with a code that nobody knows: it is tried again, but not for ever.
    FailedUnknown(Problem),
    /// An approved request does not pass the review before a late accept.
    SentBack {
        /// Why.
        why: SendBackReason,
        /// As just read.
        connection: Box<Connection>,
        /// What the configuration says about it now.
        policy: Box<PolicySnapshot>,
        /// What the checks found.
        findings: Vec<Finding>,
        /// Who may not approve any more.
        void: Vec<Approver>,
    },
    /// A notice reached a channel.
    Delivered {
        /// Which notice.
        number: u32,
        /// Which channel.
        channel: String,
        /// What the channel shows since then.
        display: ChannelDisplay,
    },
    /// A notice did not reach a channel.
    Undelivered {
        /// Which notice.
        number: u32,
        /// Which channel.
        channel: String,
        /// What the platform said.
        error: String,
        /// When to try again.
        retry: RetryPolicy,
        /// The card may have been drawn all the same.
        display: ChannelDisplay,
    },
}

/// What a channel shows after a post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelDisplay {
    /// What it did before.
    Unchanged,
    /// A card, redrawn or new.
    Card(CardRef),
    /// A message with all facts of this fingerprint.
    Facts(Fingerprint),
}

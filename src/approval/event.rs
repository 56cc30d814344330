//! What can happen to a record, but for people's decisions.

use jiff::SignedDuration;

use super::Redelivery;
use crate::peering::{Connection, Problem};
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
    Seen(Box<Connection>),
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
    /// A card was posted.
    Carded {
        /// In which channel.
        channel: String,
        /// Where the platform put it.
        reference: String,
    },
    /// A notice reached a channel.
    Delivered {
        /// Which notice.
        number: u32,
        /// Which channel.
        channel: String,
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
        retry: Redelivery,
    },
}

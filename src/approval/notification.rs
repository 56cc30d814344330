//! What channels hear of a request.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ApprovalState, Approver, Decision, Delivery, SendBackReason, Verdict};
use crate::peering::{Change, Problem};

/// Something that each of its channels receives once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Unique within the record, in ascending order.
    pub number: u32,
    /// What happened.
    #[serde(rename = "news")]
    pub kind: NotificationKind,
    /// When it happened.
    pub at: Timestamp,
    /// Progress in each channel, by channel name.
    pub deliveries: BTreeMap<String, Delivery>,
}

/// What a notification tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NotificationKind {
    /// A new request.
    Discovered,
    /// The facts of the request changed.
    Changed {
        /// Differences from the old facts.
        changes: Vec<Change>,
        /// People whose approvals are void.
        void: Vec<Approver>,
    },
    /// Another rule matches, no rule matches, or the rule requires something else.
    RuleChanged {
        /// People whose approvals are void.
        void: Vec<Approver>,
    },
    /// The card shows something new, e.g. other results of the checks. No message is posted.
    Checked,
    /// Somebody approved or rejected.
    Decided {
        /// The decision, with its sender and reason.
        decision: Decision,
        /// Number of approvals so far.
        given: u32,
        /// Number of approvals that the rule requires.
        needed: u32,
    },
    /// Somebody withdrew an approval.
    Withdrawn {
        /// Who withdrew it.
        by: Approver,
        /// Number of approvals that are left.
        given: u32,
        /// Number of approvals that the rule requires.
        needed: u32,
    },
    /// The request is still pending.
    Reminder {
        /// How long the request has been pending, in seconds.
        waiting_s: i64,
    },
    /// The request has been pending for so long that other channels hear of it.
    Escalated {
        /// How long the request has been pending, in seconds.
        waiting_s: i64,
    },
    /// The request expires soon.
    ExpiresSoon {
        /// When it expires.
        expires_at: Timestamp,
    },
    /// The connection was accepted. `None` if peergate did not accept it; only earlier versions wrote that.
    Accepted(Option<Decision>),
    /// Somebody accepted the connection outside peergate.
    Bypassed {
        /// Number of approvals so far.
        given: u32,
        /// Number of approvals that the rule requires.
        needed: u32,
        /// Whether peergate knew of the request before the accept.
        was_known: bool,
    },
    /// The activation takes too long or, with a problem, the decision cannot be carried out.
    Stuck {
        /// Seconds since the accept or the decision.
        for_s: i64,
        /// Why the decision cannot be carried out.
        problem: Option<Problem>,
    },
    /// The connection was activated with other facts than those that people decided on.
    #[serde(rename = "differs")]
    FactsDiffer {
        /// Differences from those facts.
        changes: Vec<Change>,
    },
    /// The connection is usable.
    Activated {
        /// Seconds from the approval to the activation.
        took_s: i64,
    },
    /// The activated connection is not as people approved or acknowledged it.
    Drifted {
        /// Differences from what people approved or acknowledged.
        changes: Vec<Change>,
    },
    /// The connection is again as people approved or acknowledged it.
    DriftEnded,
    /// Somebody acknowledged a drift.
    DriftAcknowledged {
        /// The acknowledgment, with its sender and reason.
        decision: Decision,
        /// Number of acknowledgments so far.
        given: u32,
        /// Number of acknowledgments that the rule requires.
        needed: u32,
    },
    /// Nobody has acknowledged a drift for long.
    DriftReminder {
        /// How long ago peergate saw it, in seconds.
        waiting_s: i64,
    },
    /// An operator took over an active connection that nobody had approved here.
    Adopted {
        /// The operator.
        by: String,
        /// Why it may stay.
        reason: String,
    },
    /// The activated connection was deleted.
    Removed {
        /// Seconds since its activation. Of an adopted connection: since its request.
        lived_s: i64,
    },
    /// The connection was rejected. `None` if peergate did not reject it.
    Rejected(Option<Decision>),
    /// The request expired before it was accepted or rejected.
    Expired,
    /// The connection was deleted.
    Deleted,
    /// The request cannot be carried out.
    Failed {
        /// What was decided. `Approve` if nothing was.
        verdict: Verdict,
        /// Why it cannot be carried out.
        problem: Problem,
    },
    /// An approved request requires a new decision.
    SentBack {
        /// Which part of the review it did not pass.
        why: SendBackReason,
        /// People whose approvals are void.
        void: Vec<Approver>,
    },
    /// An earlier notification was wrong.
    Corrected {
        /// The state that channels heard.
        was: ApprovalState,
        /// The true state.
        now: ApprovalState,
    },
}

impl Notification {
    /// Whether it still has to be posted to the channel.
    pub(super) fn is_waiting_for(&self, channel: &str) -> bool {
        matches!(self.deliveries.get(channel), Some(Delivery::Waiting { .. }))
    }
}

impl NotificationKind {
    /// Whether the card shows it as well. Then a channel that was down does not have to hear it later.
    pub(super) fn is_shown_on_card(&self) -> bool {
        match self {
            Self::Changed { .. }
            | Self::RuleChanged { .. }
            | Self::Checked
            | Self::Decided { .. }
            | Self::Withdrawn { .. }
            | Self::Reminder { .. }
            | Self::Escalated { .. }
            | Self::ExpiresSoon { .. }
            | Self::Stuck { .. }
            | Self::DriftAcknowledged { .. }
            | Self::DriftReminder { .. }
            | Self::SentBack { .. } => true,
            Self::Discovered
            | Self::Accepted(_)
            | Self::Bypassed { .. }
            | Self::FactsDiffer { .. }
            | Self::Drifted { .. }
            | Self::DriftEnded
            | Self::Removed { .. }
            | Self::Adopted { .. }
            | Self::Activated { .. }
            | Self::Rejected(_)
            | Self::Expired
            | Self::Deleted
            | Self::Failed { .. }
            | Self::Corrected { .. } => false,
        }
    }
}

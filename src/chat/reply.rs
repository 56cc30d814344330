//! What peergate answers to a command, and what the answer is called in HTTP and in logs.

use http::StatusCode;

use crate::approval::{Approval, ApprovalId, ApprovalState, InventoryLine, Verdict};
use crate::peering::{Connection, Problem};
use crate::policy::Refusal;
use crate::preflight::{Finding, Objection};

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Decided, and Alibaba Cloud acknowledged the call.
    Done(Box<Approval>),
    /// Decided and stored. Alibaba Cloud has not acknowledged the call yet, and the watcher continues.
    InProgress(Box<Approval>),
    /// Counted and stored. More people have to approve.
    Counted(Box<Approval>),
    /// The sender's approval is withdrawn.
    Withdrawn(Box<Approval>),
    /// The sender has no approval to withdraw.
    NothingToWithdraw,
    /// The sender's acknowledgment of a drift counts.
    Acknowledged(Box<Approval>),
    /// The connection has no drift.
    NothingToAcknowledge,
    /// The sender made the same decision before.
    Repeated(Box<Approval>),
    /// Somebody else decided first, or the request has ended. The record says how.
    AlreadyDecided(Box<Approval>),
    /// Alibaba Cloud no longer has the connection. The record may say something else until another reading confirms it.
    Deleted(Box<Approval>),
    /// The dry run passed.
    DryRunPassed {
        /// The reading that was checked.
        connection: Box<Connection>,
        /// The result of each check.
        findings: Vec<Finding>,
    },
    /// The facts and the record of a connection.
    Status {
        /// The current reading.
        connection: Box<Connection>,
        /// The record, if there is one.
        approval: Option<Box<Approval>>,
        /// The accepting account's name.
        target: String,
    },
    /// Words asked for what only buttons can do, so nothing was decided. Holds the status of the connection, whose buttons
    /// decide.
    ButtonsOnly(Box<Reply>),
    /// The requests that are pending or in progress.
    List {
        /// In the order in which they entered their state.
        approvals: Vec<Approval>,
        /// Whether there are more.
        more: bool,
    },
    /// Every peering in the configured regions.
    Inventory {
        /// The account that was asked for; `None` for all.
        target: Option<String>,
        /// Those that need attention are first.
        lines: Vec<InventoryLine>,
        /// What could not be read, and why.
        gaps: Vec<String>,
    },
    /// The rules refuse the sender.
    Refused(Refusal),
    /// The rule requires a reason.
    ReasonRequired {
        /// The rule's name.
        rule: String,
        /// What the sender decided.
        verdict: Verdict,
        /// The record's id.
        id: ApprovalId,
    },
    /// The reason is too long to be stored. Holds its length in characters.
    ReasonTooLong(usize),
    /// A check fails that no rule can waive.
    Objection(Objection),
    /// The platform could not ask the sender for a reason.
    CouldNotAsk {
        /// What the sender decided.
        verdict: Verdict,
        /// The record's id.
        id: ApprovalId,
    },
    /// The button is not one of the current card.
    StaleCard {
        /// The reference of the current card, if the clicked message is another one.
        current_card: Option<String>,
        /// The record, if no channel has a card that can be updated: the sender gets a private one.
        approval: Option<Box<Approval>>,
    },
    /// The connection differs from the one that the sender saw.
    ConnectionChanged,
    /// No channel had shown the current facts when the sender decided, and the request has no fingerprint.
    FactsNotShown,
    /// The sender's decision was stored earlier and no longer counts.
    DecisionVoid,
    /// Another request had the same id.
    IdReused,
    /// The record has no room for more texts of people.
    RecordFull,
    /// The sender has withdrawn too often.
    TooManyWithdrawals,
    /// People have caused too many readings.
    TooManyReads,
    /// No target has that name, or several exist and none was named. Holds the names of all targets.
    UnknownTarget(Vec<String>),
    /// The target has no such connection.
    UnknownConnection,
    /// Alibaba Cloud refuses the operation.
    VendorRefused(Problem),
    /// Alibaba Cloud's answer about the connection cannot be understood.
    NotUnderstood {
        /// The field of the answer.
        field: &'static str,
        /// Identifies the call for the vendor's support.
        problem: Problem,
    },
    /// Our own credentials or permissions are refused.
    CredentialsRefused(Problem),
    /// A dependency does not answer, so nothing was decided.
    Unavailable(Dependency),
}

/// A service that peergate depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// The DynamoDB table.
    Store,
    /// AWS Secrets Manager.
    Secrets,
    /// The VpcPeer API.
    Alicloud,
    /// AWS STS, which issues our identity token for Alibaba Cloud.
    AwsIdentity,
}

/// What an answer is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyOutcome {
    /// The HTTP status.
    pub status: StatusCode,
    /// The `type` of a problem, and the `outcome` of every other answer.
    pub name: &'static str,
}

impl Reply {
    /// The record that the answer shows, if any.
    #[must_use]
    pub fn approval(&self) -> Option<&Approval> {
        match self {
            Self::Done(approval)
            | Self::InProgress(approval)
            | Self::Counted(approval)
            | Self::Withdrawn(approval)
            | Self::Acknowledged(approval)
            | Self::Repeated(approval)
            | Self::AlreadyDecided(approval)
            | Self::Deleted(approval) => Some(approval),
            Self::Status { approval, .. } => approval.as_deref(),
            Self::ButtonsOnly(status) => status.approval(),
            Self::NothingToWithdraw
            | Self::NothingToAcknowledge
            | Self::DryRunPassed { .. }
            | Self::List { .. }
            | Self::Inventory { .. }
            | Self::Refused(_)
            | Self::ReasonRequired { .. }
            | Self::ReasonTooLong(_)
            | Self::Objection(_)
            | Self::CouldNotAsk { .. }
            | Self::StaleCard { .. }
            | Self::ConnectionChanged
            | Self::FactsNotShown
            | Self::DecisionVoid
            | Self::IdReused
            | Self::RecordFull
            | Self::TooManyWithdrawals
            | Self::TooManyReads
            | Self::UnknownTarget(_)
            | Self::UnknownConnection
            | Self::VendorRefused(_)
            | Self::NotUnderstood { .. }
            | Self::CredentialsRefused(_)
            | Self::Unavailable(_) => None,
        }
    }

    /// What the answer is called.
    #[must_use]
    pub fn outcome(&self) -> ReplyOutcome {
        let (status, name) = match self {
            Self::Done(approval) => settled_outcome(approval),
            // Repeating a decision that failed must not look like success.
            Self::Repeated(approval) if *approval.state() == ApprovalState::Pending => (StatusCode::OK, "repeated"),
            Self::Repeated(approval) => match settled_outcome(approval) {
                (StatusCode::OK, _) => (StatusCode::OK, "repeated"),
                failed => failed,
            },
            Self::InProgress(_) => (StatusCode::ACCEPTED, "underway"),
            Self::AlreadyDecided(approval) => {
                outside_end(approval).unwrap_or((StatusCode::CONFLICT, "already-decided"))
            }
            Self::Deleted(_) => (StatusCode::CONFLICT, "deleted"),
            Self::Counted(_) => (StatusCode::OK, "counted"),
            Self::Withdrawn(_) => (StatusCode::OK, "withdrawn"),
            Self::NothingToWithdraw => (StatusCode::CONFLICT, "nothing-to-withdraw"),
            Self::Acknowledged(_) => (StatusCode::OK, "acknowledged"),
            Self::NothingToAcknowledge => (StatusCode::CONFLICT, "nothing-to-acknowledge"),
            Self::CouldNotAsk { .. } => (StatusCode::CONFLICT, "not-asked"),
            Self::ReasonRequired { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "reason-required"),
            Self::ReasonTooLong(_) => (StatusCode::UNPROCESSABLE_ENTITY, "reason-too-long"),
            Self::DryRunPassed { .. } => (StatusCode::OK, "dry-run-passed"),
            Self::Status { .. } => (StatusCode::OK, "status"),
            Self::ButtonsOnly(_) => (StatusCode::CONFLICT, "buttons-only"),
            Self::List { .. } => (StatusCode::OK, "list"),
            Self::Inventory { gaps, .. } if gaps.is_empty() => (StatusCode::OK, "inventory"),
            Self::Inventory { .. } => (StatusCode::OK, "incomplete-inventory"),
            Self::Refused(Refusal::NoRule(_)) => (StatusCode::FORBIDDEN, "no-rule"),
            Self::Refused(Refusal::NotAnApprover { .. }) => (StatusCode::FORBIDDEN, "not-an-approver"),
            Self::Refused(Refusal::Contact { .. }) => (StatusCode::FORBIDDEN, "requesters-contact"),
            Self::Objection(_) => (StatusCode::CONFLICT, "not-acceptable"),
            Self::StaleCard { .. } => (StatusCode::CONFLICT, "old-card"),
            Self::ConnectionChanged => (StatusCode::CONFLICT, "connection-changed"),
            Self::FactsNotShown => (StatusCode::CONFLICT, "not-shown"),
            Self::IdReused => (StatusCode::CONFLICT, "id-reused"),
            Self::DecisionVoid => (StatusCode::CONFLICT, "decision-void"),
            Self::RecordFull => (StatusCode::CONFLICT, "record-full"),
            Self::TooManyWithdrawals => (StatusCode::CONFLICT, "too-many-withdrawals"),
            Self::TooManyReads => (StatusCode::TOO_MANY_REQUESTS, "too-many-reads"),
            Self::UnknownTarget(_) => (StatusCode::NOT_FOUND, "unknown-target"),
            Self::UnknownConnection => (StatusCode::NOT_FOUND, "unknown-connection"),
            Self::VendorRefused(_) => (StatusCode::CONFLICT, "vendor-refused"),
            Self::NotUnderstood { .. } => (StatusCode::BAD_GATEWAY, "not-understood"),
            Self::CredentialsRefused(_) => (StatusCode::BAD_GATEWAY, "credentials-refused"),
            Self::Unavailable(Dependency::Store) => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable"),
            Self::Unavailable(Dependency::Secrets) => (StatusCode::SERVICE_UNAVAILABLE, "secrets-unavailable"),
            Self::Unavailable(Dependency::AwsIdentity) => (StatusCode::SERVICE_UNAVAILABLE, "aws-unavailable"),
            Self::Unavailable(Dependency::Alicloud) => (StatusCode::SERVICE_UNAVAILABLE, "alicloud-unavailable"),
        };
        ReplyOutcome { status, name }
    }
}

/// The outcome of a decision: carried out, in progress, or failed.
fn settled_outcome(approval: &Approval) -> (StatusCode, &'static str) {
    if let Some(end) = outside_end(approval) {
        return end;
    }
    match approval.state() {
        ApprovalState::Failed { .. } => (StatusCode::CONFLICT, "failed"),
        ApprovalState::Rejected | ApprovalState::Expired | ApprovalState::Deleted => (StatusCode::OK, "rejected"),
        ApprovalState::Rejecting => (StatusCode::OK, "rejecting"),
        ApprovalState::Pending => (StatusCode::CONFLICT, "connection-changed"),
        ApprovalState::Approved | ApprovalState::Activating | ApprovalState::Activated => (StatusCode::OK, "accepted"),
    }
}

/// The end of a request that nobody decided through peergate. `None` for every other state.
fn outside_end(approval: &Approval) -> Option<(StatusCode, &'static str)> {
    let is_ours = approval.winner().is_some_and(|winner| winner.verdict == Verdict::Reject);
    match approval.state() {
        ApprovalState::Expired => Some((StatusCode::CONFLICT, "expired")),
        ApprovalState::Deleted => Some((StatusCode::CONFLICT, "deleted")),
        ApprovalState::Rejected if !is_ours => Some((StatusCode::CONFLICT, "rejected-elsewhere")),
        ApprovalState::Pending
        | ApprovalState::Approved
        | ApprovalState::Activating
        | ApprovalState::Activated
        | ApprovalState::Rejecting
        | ApprovalState::Rejected
        | ApprovalState::Failed { .. } => None,
    }
}

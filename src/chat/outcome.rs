//! What answers are called in HTTP and in the log.

use http::StatusCode;

use super::{Dependency, Reply};
use crate::approval::{Approval, ApprovalState, Verdict};
use crate::policy::Refusal;

impl Reply {
    /// The record that it shows, if it shows one.
    #[must_use]
    pub fn approval(&self) -> Option<&Approval> {
        match self {
            Self::Done(approval)
            | Self::InProgress(approval)
            | Self::Counted(approval)
            | Self::Withdrawn(approval)
            | Self::Repeated(approval)
            | Self::AlreadyDecided(approval) => Some(approval),
            Self::Status { approval, .. } => approval.as_deref(),
            Self::NothingToWithdraw
            | Self::DryRunPassed { .. }
            | Self::List { .. }
            | Self::Refused(_)
            | Self::ReasonRequired { .. }
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

    /// The HTTP status of an answer, and its name: the `type` of a problem, the `outcome` of everything else.
    #[must_use]
    pub fn outcome(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Done(approval) => settled_outcome(approval),
            // A sender that repeats what failed must not take it for done.
            Self::Repeated(approval) if approval.state == ApprovalState::Pending => (StatusCode::OK, "repeated"),
            Self::Repeated(approval) => match settled_outcome(approval) {
                (StatusCode::OK, _) => (StatusCode::OK, "repeated"),
                failed => failed,
            },
            Self::InProgress(_) => (StatusCode::ACCEPTED, "underway"),
            Self::AlreadyDecided(_) => (StatusCode::CONFLICT, "already-decided"),
            Self::Counted(_) => (StatusCode::OK, "counted"),
            Self::Withdrawn(_) => (StatusCode::OK, "withdrawn"),
            Self::NothingToWithdraw => (StatusCode::CONFLICT, "nothing-to-withdraw"),
            Self::CouldNotAsk { .. } => (StatusCode::CONFLICT, "not-asked"),
            Self::ReasonRequired { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "reason-required"),
            Self::DryRunPassed { .. } => (StatusCode::OK, "dry-run-passed"),
            Self::Status { .. } => (StatusCode::OK, "status"),
            Self::List { .. } => (StatusCode::OK, "list"),
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
        }
    }
}

/// Whether what was decided has come about, or may yet.
fn settled_outcome(approval: &Approval) -> (StatusCode, &'static str) {
    let verdict = approval.winner().map(|winner| winner.verdict);
    match approval.state {
        ApprovalState::Failed { .. } => (StatusCode::CONFLICT, "failed"),
        ApprovalState::Expired => (StatusCode::CONFLICT, "expired"),
        ApprovalState::Deleted => (StatusCode::CONFLICT, "deleted"),
        ApprovalState::Rejected if verdict == Some(Verdict::Reject) => (StatusCode::OK, "rejected"),
        ApprovalState::Rejected => (StatusCode::CONFLICT, "rejected-elsewhere"),
        ApprovalState::Rejecting => (StatusCode::OK, "rejecting"),
        ApprovalState::Pending => (StatusCode::CONFLICT, "connection-changed"),
        ApprovalState::Approved | ApprovalState::Activating | ApprovalState::Activated => (StatusCode::OK, "accepted"),
    }
}

//! What answers are called in HTTP and in the log.

use http::StatusCode;

use super::{Answer, Part};
use crate::approval::{Approval, State, Verdict};
use crate::policy::Refusal;

impl Answer {
    /// The record that it shows, if it shows one.
    #[must_use]
    pub fn approval(&self) -> Option<&Approval> {
        match self {
            Self::Done(approval)
            | Self::Underway(approval)
            | Self::Counted(approval)
            | Self::Withdrawn(approval)
            | Self::Repeated(approval)
            | Self::Over(approval) => Some(approval),
            Self::Status { approval, .. } => approval.as_deref(),
            Self::NothingToWithdraw
            | Self::DryRunPassed { .. }
            | Self::List { .. }
            | Self::Refused(_)
            | Self::ReasonRequired { .. }
            | Self::Objection(_)
            | Self::NotAsked { .. }
            | Self::OldCard { .. }
            | Self::Changed
            | Self::NotShown
            | Self::Void
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
            Self::Done(approval) => settled(approval),
            // A sender that repeats what failed must not take it for done.
            Self::Repeated(approval) if approval.state == State::Pending => (StatusCode::OK, "repeated"),
            Self::Repeated(approval) => match settled(approval) {
                (StatusCode::OK, _) => (StatusCode::OK, "repeated"),
                failed => failed,
            },
            Self::Underway(_) => (StatusCode::ACCEPTED, "underway"),
            Self::Over(_) => (StatusCode::CONFLICT, "already-decided"),
            Self::Counted(_) => (StatusCode::OK, "counted"),
            Self::Withdrawn(_) => (StatusCode::OK, "withdrawn"),
            Self::NothingToWithdraw => (StatusCode::CONFLICT, "nothing-to-withdraw"),
            Self::NotAsked { .. } => (StatusCode::CONFLICT, "not-asked"),
            Self::ReasonRequired { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "reason-required"),
            Self::DryRunPassed { .. } => (StatusCode::OK, "dry-run-passed"),
            Self::Status { .. } => (StatusCode::OK, "status"),
            Self::List { .. } => (StatusCode::OK, "list"),
            Self::Refused(Refusal::NoRule(_)) => (StatusCode::FORBIDDEN, "no-rule"),
            Self::Refused(Refusal::NotAnApprover { .. }) => (StatusCode::FORBIDDEN, "not-an-approver"),
            Self::Refused(Refusal::Contact { .. }) => (StatusCode::FORBIDDEN, "requesters-contact"),
            Self::Objection(_) => (StatusCode::CONFLICT, "not-acceptable"),
            Self::OldCard { .. } => (StatusCode::CONFLICT, "old-card"),
            Self::Changed => (StatusCode::CONFLICT, "connection-changed"),
            Self::NotShown => (StatusCode::CONFLICT, "not-shown"),
            Self::IdReused => (StatusCode::CONFLICT, "id-reused"),
            Self::Void => (StatusCode::CONFLICT, "decision-void"),
            Self::RecordFull => (StatusCode::CONFLICT, "record-full"),
            Self::TooManyWithdrawals => (StatusCode::CONFLICT, "too-many-withdrawals"),
            Self::TooManyReads => (StatusCode::TOO_MANY_REQUESTS, "too-many-reads"),
            Self::UnknownTarget(_) => (StatusCode::NOT_FOUND, "unknown-target"),
            Self::UnknownConnection => (StatusCode::NOT_FOUND, "unknown-connection"),
            Self::VendorRefused(_) => (StatusCode::CONFLICT, "vendor-refused"),
            Self::NotUnderstood { .. } => (StatusCode::BAD_GATEWAY, "not-understood"),
            Self::CredentialsRefused(_) => (StatusCode::BAD_GATEWAY, "credentials-refused"),
            Self::Unavailable(Part::Store) => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable"),
            Self::Unavailable(Part::Secrets) => (StatusCode::SERVICE_UNAVAILABLE, "secrets-unavailable"),
            Self::Unavailable(Part::AwsIdentity) => (StatusCode::SERVICE_UNAVAILABLE, "aws-unavailable"),
            Self::Unavailable(Part::Alicloud) => (StatusCode::SERVICE_UNAVAILABLE, "alicloud-unavailable"),
        }
    }
}

/// Whether what was decided has come about, or may yet.
fn settled(approval: &Approval) -> (StatusCode, &'static str) {
    let verdict = approval.winner().map(|winner| winner.verdict);
    match approval.state {
        State::Failed { .. } => (StatusCode::CONFLICT, "failed"),
        State::Expired => (StatusCode::CONFLICT, "expired"),
        State::Deleted => (StatusCode::CONFLICT, "deleted"),
        State::Rejected if verdict == Some(Verdict::Reject) => (StatusCode::OK, "rejected"),
        State::Rejected => (StatusCode::CONFLICT, "rejected-elsewhere"),
        State::Rejecting => (StatusCode::OK, "rejecting"),
        State::Pending => (StatusCode::CONFLICT, "connection-changed"),
        State::Approved | State::Activating | State::Activated => (StatusCode::OK, "accepted"),
    }
}

//! Maps each failure to a reply.

use crate::accept;
use crate::alicloud::{self, Class};
use crate::approval::{Approval, ApprovalId, DecisionError};
use crate::aws;
use crate::chat::{Action, Dependency, Reply};
use crate::credentials;
use crate::logging::ErrorChain;
use crate::peering::{Connection, Status};
use crate::preflight::Objection;
use crate::store::{self, Stored};

pub(super) fn decision_error_reply(error: DecisionError, approval: Approval) -> Reply {
    match error {
        DecisionError::Repeated => Reply::Repeated(Box::new(approval)),
        DecisionError::AlreadyDecided => Reply::AlreadyDecided(Box::new(approval)),
        // The sender of the refused request had not seen these facts either.
        DecisionError::FactsChanged | DecisionError::RefusedBefore => Reply::ConnectionChanged,
        DecisionError::NothingToWithdraw => Reply::NothingToWithdraw,
        DecisionError::NothingToAcknowledge => Reply::NothingToAcknowledge,
        DecisionError::IdReused => Reply::IdReused,
        DecisionError::Voided => Reply::DecisionVoid,
        DecisionError::RecordFull => Reply::RecordFull,
        DecisionError::TooManyWithdrawals => Reply::TooManyWithdrawals,
    }
}

pub(super) fn objection_reply(objection: &Objection) -> Reply {
    match objection {
        Objection::DryRun(problem) => Reply::VendorRefused(problem.clone()),
        Objection::NotOurs
        | Objection::Status(_)
        | Objection::Expired
        | Objection::BusinessStatus(_)
        | Objection::ManagedService(_)
        | Objection::Overlap(_) => Reply::Objection(objection.clone()),
    }
}

/// Alibaba Cloud does not have the connection, but there may be a record of it.
pub(super) fn missing_reply(action: Action, stored: Option<Stored>, id: ApprovalId) -> Reply {
    match (action, stored) {
        (Action::Status, Some(Stored { approval, .. })) => {
            let connection = Connection { status: Status::Deleted, ..approval.connection().clone() };
            Reply::Status { connection: Box::new(connection), approval: Some(Box::new(approval)), target: id.target }
        }
        (
            Action::Decide(_) | Action::DryRun | Action::Withdraw | Action::Acknowledge,
            Some(Stored { approval, .. }),
        ) => Reply::Deleted(Box::new(approval)),
        (Action::Status | Action::Decide(_) | Action::DryRun | Action::Withdraw | Action::Acknowledge, None) => {
            Reply::UnknownConnection
        }
    }
}

pub(super) fn store_failure_reply(error: &store::Error) -> Reply {
    tracing::error!(outcome = error.log_outcome(), error = %ErrorChain(error), "the store failed");
    Reply::Unavailable(Dependency::Store)
}

pub(super) fn read_failure_reply(error: &accept::Error) -> Reply {
    let problem = error.to_problem();
    tracing::error!(
        outcome = "alicloud_failed",
        alicloud.code = problem.code,
        alicloud.request_id = problem.request_id,
        error = %ErrorChain(error),
        "could not read a connection for a command"
    );
    match error.class() {
        Class::Credentials => Reply::CredentialsRefused(problem),
        Class::Permanent | Class::ReadStatus => Reply::VendorRefused(problem),
        Class::Missing | Class::Retry | Class::Unknown | Class::DryRunPassed => match error {
            accept::Error::Api(alicloud::Error::NotUnderstood { field, .. }) => {
                Reply::NotUnderstood { field: field.name(), problem }
            }
            accept::Error::Credentials(credentials::Error::Secrets(_)) => Reply::Unavailable(Dependency::Secrets),
            accept::Error::Credentials(_) if aws::is_aws_code(&problem.code) => {
                Reply::Unavailable(Dependency::AwsIdentity)
            }
            accept::Error::Api(_) | accept::Error::Credentials(_) | accept::Error::UnknownTarget => {
                Reply::Unavailable(Dependency::Alicloud)
            }
        },
    }
}

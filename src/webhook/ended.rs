//! Requests that ended outside peergate. The reading for a decision may be the first to show such an end: peergate stores
//! it, and names it in the reply.

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::reply::store_failure_reply;
use crate::accept;
use crate::app::App;
use crate::approval::{Approval, ApprovalState, Event};
use crate::chat::Reply;
use crate::peering::{Connection, Status};
use crate::preflight::Objection;
use crate::store::Stored;

/// The ended connection, if the objection is an end.
pub(super) fn shown_end(objection: &Objection, connection: &Connection) -> Option<Connection> {
    match objection {
        Objection::Status(status @ (Status::Rejected | Status::Expired | Status::Deleted)) => {
            Some(Connection { status: status.clone(), ..connection.clone() })
        }
        Objection::Expired => Some(connection.clone()),
        Objection::Status(_)
        | Objection::NotOurs
        | Objection::BusinessStatus(_)
        | Objection::ManagedService(_)
        | Objection::Overlap(_)
        | Objection::DryRun(_) => None,
    }
}

/// Stores the end that a reading shows, and returns the reply that names it. `None` if it was not stored, or if the record
/// ended in another way.
pub(super) async fn store_end(
    app: &App,
    stored: Stored,
    ended: Connection,
    now: Timestamp,
    deadline: Instant,
) -> Option<Reply> {
    let is_deleted = ended.status == Status::Deleted;
    let event = Event::Observed(Box::new(ended));
    let apply = |approval: &mut Approval| approval.apply_event(&event, now);
    let approval = match timeout_at(deadline, app.store.update(stored, apply)).await {
        Ok(Ok(stored)) => Box::new(stored.approval),
        Ok(Err(error)) => return Some(store_failure_reply(&error)),
        // The watcher finds the end as well.
        Err(_elapsed) => return None,
    };
    accept::log_event(&approval, &event);
    match approval.state() {
        ApprovalState::Rejected | ApprovalState::Expired | ApprovalState::Deleted => {
            Some(Reply::AlreadyDecided(approval))
        }
        ApprovalState::Pending
        | ApprovalState::Approved
        | ApprovalState::Activating
        | ApprovalState::Activated
        | ApprovalState::Rejecting
        | ApprovalState::Failed { .. } => is_deleted.then_some(Reply::Deleted(approval)),
    }
}

//! Lists the open requests, and every peering.

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::reply::store_failure_reply;
use crate::accept::{self, Inventory, InventoryScope};
use crate::app::App;
use crate::approval::{InventoryLine, Principal};
use crate::chat::{Dependency, Reply};
use crate::store::{IndexEntry, UNFINISHED_DUE_BEFORE};

/// The most requests in a list.
const MAX_LISTED: usize = 30;

pub(super) async fn list_open_requests(app: &App, target: Option<&str>, deadline: Instant) -> Reply {
    if let Some(unknown) = refuse_unknown_target(app, target) {
        return unknown;
    }
    let (mut ids, mut from) = (vec![], None);
    loop {
        let page = match timeout_at(deadline, app.store.due_entries(UNFINISHED_DUE_BEFORE, from)).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return store_failure_reply(&error),
            Err(_elapsed) => return Reply::Unavailable(Dependency::Store),
        };
        let wanted =
            |entry: &IndexEntry| !entry.state.is_final() && target.is_none_or(|target| entry.id.target == target);
        ids.extend(page.items.into_iter().filter(wanted).map(|entry| entry.id));
        from = page.next;
        if from.is_none() || ids.len() > MAX_LISTED {
            break;
        }
    }
    let more = ids.len() > MAX_LISTED || from.is_some();
    ids.truncate(MAX_LISTED);
    match timeout_at(deadline, app.store.load_many(&ids)).await {
        Ok(Ok(stored)) => {
            let mut approvals: Vec<_> = stored.into_values().flatten().map(|stored| stored.approval).collect();
            // The index may be behind the record.
            approvals.retain(|approval| !approval.state().is_final());
            approvals.sort_by_key(super::super::approval::Approval::since);
            Reply::List { approvals, more }
        }
        Ok(Err(error)) => store_failure_reply(&error),
        Err(_elapsed) => Reply::Unavailable(Dependency::Store),
    }
}

/// Lists every peering of the configured accounts. What cannot be read by `deadline` is a gap.
pub(super) async fn list_all_peerings(
    app: &App,
    target: Option<&str>,
    by: &Principal,
    now: Timestamp,
    deadline: Instant,
) -> Reply {
    if let Some(unknown) = refuse_unknown_target(app, target) {
        return unknown;
    }
    if !app.read_budget.take_inventory(by, now) {
        return Reply::TooManyReads;
    }
    match accept::list_inventory(app, InventoryScope { target, until: deadline, for_people: true }).await {
        Ok(Inventory { mut lines, gaps }) => {
            lines.sort_by_key(InventoryLine::attention);
            Reply::Inventory { target: target.map(ToOwned::to_owned), lines, gaps }
        }
        Err(error) => store_failure_reply(&error),
    }
}

fn refuse_unknown_target(app: &App, target: Option<&str>) -> Option<Reply> {
    let is_unknown = target.is_some_and(|target| !app.config.targets.contains_key(target));
    is_unknown.then(|| Reply::UnknownTarget(app.config.targets.keys().cloned().collect()))
}

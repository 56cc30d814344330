//! Every peering of the configured accounts, with its record; and how an operator takes one over.

use super::read_connection;
use super::region::visit_region;
use crate::app::App;
use crate::approval::{Approval, ApprovalId, InventoryLine, Principal, Review};
use crate::clock;
use crate::peering::{Connection, Status};
use crate::store::{self, Saved};

/// The peerings of the configured accounts, and what is missing.
#[derive(Debug, Default)]
pub struct Inventory {
    /// In the order of the configuration.
    pub lines: Vec<InventoryLine>,
    /// What could not be listed or read, and why.
    pub gaps: Vec<String>,
}

/// Reads the table, and the list of each region. `target` is `None` for all accounts.
///
/// # Errors
/// When the table cannot be read.
pub async fn list_inventory(app: &App, target: Option<&str>) -> Result<Inventory, store::Error> {
    let mut inventory = Inventory::default();
    for (name, account) in app.config.targets.iter().filter(|(name, _)| target.is_none_or(|it| it == *name)) {
        for region in &account.regions {
            let mut connections = vec![];
            inventory.gaps.extend(visit_region(app, name, region, |connection| connections.push(connection)).await);
            let id = |connection: &Connection| ApprovalId {
                target: name.clone(),
                instance_id: connection.instance_id.clone(),
            };
            let ours = connections.iter().filter(|it| it.accepter.account == account.account);
            let ids: Vec<_> = ours.map(id).collect();
            let records = app.store.load_many(&ids).await?;
            for connection in &connections {
                let id = id(connection);
                let record = match records.get(&id) {
                    Some(Ok(stored)) => Some(&stored.approval),
                    None => None,
                    // Nobody knows whether people approved it.
                    Some(Err(_)) => {
                        inventory.gaps.push(format!("{id}: its record cannot be read"));
                        continue;
                    }
                };
                inventory.lines.push(InventoryLine::new(name, account.account, connection, record));
            }
        }
    }
    Ok(inventory)
}

/// Why a connection was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptionError {
    /// Only an activated connection that the account accepted can be adopted.
    #[error("it is {0}, and only an active peering that this account accepted can be adopted")]
    NotActive(Status),
    /// People have decided, or peergate has not seen yet that it is active.
    #[error("peergate still works on its record: try again after the next tick")]
    InProgress,
    /// People approved it, or an operator adopted it.
    #[error("it was approved or adopted here already")]
    AlreadyApproved,
    /// Somebody wrote the record at the same time.
    #[error("somebody else changed the record: try again")]
    Conflict,
    /// The connection cannot be read.
    #[error("it cannot be read: {0}")]
    Unread(String),
    /// The table cannot be read or written.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Takes over an active connection that nobody approved here. The channels of its rule hear of it.
///
/// # Errors
/// When the connection is not active or was approved here, and when it or the table cannot be read.
pub async fn adopt_connection(app: &App, id: &ApprovalId, by: &str, reason: &str) -> Result<(), AdoptionError> {
    let now = clock::now();
    let connection = read_connection(app, &id.target, &id.instance_id, now).await;
    let connection = connection.map_err(|error| AdoptionError::Unread(error.to_string()))?;
    let account = app.config.targets.get(&id.target).map(|target| target.account);
    if connection.status != Status::Activated || account != Some(connection.accepter.account) {
        return Err(AdoptionError::NotActive(connection.status));
    }
    let stored = app.store.load(id).await?;
    let before = stored.as_ref().map(|stored| &stored.approval);
    if before.is_some_and(|record| record.is_accepted_by_us() || record.adopted_by().is_some()) {
        return Err(AdoptionError::AlreadyApproved);
    }
    // A call of ours may be what activated it.
    if before.is_some_and(|record| !record.state().is_final()) {
        return Err(AdoptionError::InProgress);
    }
    let policy = app.config.policy.snapshot_for(&id.target, &connection);
    let eligible = |principal: &Principal| app.config.policy.eligible_approver(&id.target, &connection, principal);
    let review = Review { id, connection: &connection, policy: &policy, findings: &[], eligible_approver: &eligible };
    match app.store.save(&Approval::adopt(before, &review, by, reason, now), stored.as_ref()).await? {
        Saved::Done(_) => Ok(()),
        Saved::Conflict(_) => Err(AdoptionError::Conflict),
    }
}

//! Every peering of the configured accounts, with its record; and how an operator takes one over.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{StreamExt, iter};
use tokio::time::{Instant, timeout_at};

use super::read_connection;
use super::region::visit_region;
use crate::app::App;
use crate::approval::{Approval, ApprovalId, InventoryLine, Principal, Review};
use crate::clock;
use crate::config::Target;
use crate::peering::{AccountId, Connection, Status};
use crate::store::{self, Saved, Stored};

/// How long the records may take, after the lists.
const RECORDS_TIME: Duration = Duration::from_millis(400);
/// How many records are read in one call, and how many calls run at the same time.
const RECORDS_PER_CALL: usize = 100;
const MAX_PARALLEL_CALLS: usize = 8;

/// Which peerings to list, and how long that may take.
#[derive(Debug, Clone, Copy)]
pub struct InventoryScope<'a> {
    /// `None` for all accounts.
    pub target: Option<&'a str>,
    /// What is not read by then is a gap.
    pub until: Instant,
    /// Whether the calls count as calls that people cause.
    pub for_people: bool,
}

/// The peerings of the configured accounts, and what is missing.
#[derive(Debug, Default)]
pub struct Inventory {
    /// In the order of the configuration.
    pub lines: Vec<InventoryLine>,
    /// What could not be listed or read, and why.
    pub gaps: Vec<String>,
}

/// A connection that the list of an account shows.
struct ListedConnection<'a> {
    target: &'a str,
    account: AccountId,
    connection: Connection,
}

impl ListedConnection<'_> {
    fn id(&self) -> ApprovalId {
        ApprovalId { target: self.target.to_owned(), instance_id: self.connection.instance_id.clone() }
    }
}

/// What the list of a region shows, and what it does not.
struct ListedRegion<'a> {
    connections: Vec<ListedConnection<'a>>,
    gaps: Vec<String>,
}

/// Reads the list of each region, and the records of what the lists show.
///
/// # Errors
/// When the table cannot be read.
pub async fn list_inventory(app: &App, scope: InventoryScope<'_>) -> Result<Inventory, store::Error> {
    let targets = app.config.targets.iter().filter(|(name, _)| scope.target.is_none_or(|it| it == *name));
    let (mut lists, mut gaps) = (vec![], vec![]);
    for (name, target) in targets {
        if target.regions.is_empty() {
            gaps.push(format!("{name}: no region is configured"));
        }
        lists.extend(target.regions.iter().map(|region| list_region(app, scope, name, target, region)));
    }
    let (mut listed, mut seen) = (vec![], HashSet::new());
    for region in join_all(lists).await {
        // Two regions of an account show a peering between them.
        listed.extend(region.connections.into_iter().filter(|it| seen.insert(it.id())));
        gaps.extend(region.gaps);
    }
    let accepting = listed.iter().filter(|it| it.connection.accepter.account == it.account);
    let ids: Vec<_> = accepting.map(ListedConnection::id).collect();
    let records = load_records(app, &ids, scope.until).await?;
    let (mut lines, mut late, mut unread) = (vec![], 0_usize, 0_usize);
    for it in &listed {
        let record = match records.get(&it.id()) {
            Some(RecordReading::Read(stored)) => Some(&stored.approval),
            None => None,
            // Nobody knows whether people approved these.
            Some(RecordReading::Late) => {
                late = late.saturating_add(1);
                continue;
            }
            Some(RecordReading::Failed(store::Error::Unavailable(_) | store::Error::Contention)) => {
                unread = unread.saturating_add(1);
                continue;
            }
            Some(RecordReading::Failed(_)) => {
                gaps.push(format!("{}: its record cannot be read", it.id()));
                continue;
            }
        };
        lines.push(InventoryLine::new(it.target, it.account, &it.connection, record));
    }
    let count = |number: usize, what: &str| (number > 0).then(|| format!("the records of {number} peerings: {what}"));
    gaps.extend(count(late, "no time was left"));
    gaps.extend(count(unread, "the table did not answer"));
    Ok(Inventory { lines, gaps })
}

async fn list_region<'a>(
    app: &App,
    scope: InventoryScope<'_>,
    name: &'a str,
    target: &Target,
    region: &str,
) -> ListedRegion<'a> {
    let mut connections = vec![];
    let may_call = || !scope.for_people || app.read_budget.take_page(name, target.calls_per_minute, clock::now());
    let add = |connection| connections.push(ListedConnection { target: name, account: target.account, connection });
    let until = scope.until.checked_sub(RECORDS_TIME).unwrap_or(scope.until);
    let gaps = timeout_at(until, visit_region(app, name, region, may_call, add)).await;
    let gaps = gaps.unwrap_or_else(|_elapsed| vec![format!("{name} in {region}: the list was not read in time")]);
    ListedRegion { connections, gaps }
}

/// What became of the reading of a record that may exist.
enum RecordReading {
    Read(Box<Stored>),
    Late,
    Failed(store::Error),
}

/// The records that exist, and those that may exist but were not read.
///
/// # Errors
/// When the table refuses every reading.
async fn load_records(
    app: &App,
    ids: &[ApprovalId],
    until: Instant,
) -> Result<BTreeMap<ApprovalId, RecordReading>, store::Error> {
    let mut loads = vec![];
    for batch in ids.chunks(RECORDS_PER_CALL) {
        loads.push(load_batch(app, batch, until));
    }
    let (mut records, mut failure, mut has_read) = (BTreeMap::new(), None, false);
    let mut loads = iter(loads).buffer_unordered(MAX_PARALLEL_CALLS);
    while let Some(BatchReading { loaded, error }) = loads.next().await {
        records.extend(loaded);
        has_read |= error.is_none();
        failure = error.or(failure);
    }
    match failure {
        Some(error) if !has_read => Err(error),
        Some(_) | None => Ok(records),
    }
}

/// Some records, and the error if the table refused to read them.
struct BatchReading {
    loaded: Vec<(ApprovalId, RecordReading)>,
    error: Option<store::Error>,
}

async fn load_batch(app: &App, batch: &[ApprovalId], until: Instant) -> BatchReading {
    let each = |reading: &dyn Fn() -> RecordReading| batch.iter().map(|id| (id.clone(), reading())).collect();
    if Instant::now() >= until {
        return BatchReading { loaded: each(&|| RecordReading::Late), error: None };
    }
    match timeout_at(until, app.store.load_many(batch)).await {
        Ok(Ok(loaded)) => {
            let reading = |loaded: Result<Stored, store::Error>| {
                loaded.map_or_else(RecordReading::Failed, |stored| RecordReading::Read(Box::new(stored)))
            };
            BatchReading { loaded: loaded.into_iter().map(|(id, it)| (id, reading(it))).collect(), error: None }
        }
        Ok(Err(error)) => {
            BatchReading { loaded: each(&|| RecordReading::Failed(error.clone())), error: Some(error.clone()) }
        }
        Err(_elapsed) => BatchReading { loaded: each(&|| RecordReading::Late), error: None },
    }
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

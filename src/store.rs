//! The approvals in a DynamoDB table: one item per connection, and one conditional write per change.
//!
//! The index [`INDEX_NAME`] has an entry for each record. The entry shows whether anything has changed, so that a tick
//! reads a record only when something has. The local tool uses the same API with an embedded table.

mod item;
#[cfg(feature = "local")]
mod scan;
mod survey;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure};
use aws_types::SdkConfig;
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

#[cfg(feature = "local")]
pub use scan::ScannedRecord;

use crate::approval::{Approval, ApprovalId, IndexState};
use crate::notes::Notes;
use crate::{aws, http, metrics};
use item::{DUE_PARTITION, Item, SCHEMA_VERSION, parse_entry, parse_record, record_item, text_attribute};

/// The sparse index: partition key `due`, sort key `due_at` (milliseconds), and [`INDEX_ATTRIBUTES`].
pub const INDEX_NAME: &str = "due";
/// The attributes that the index has besides its keys:
/// - `state`: the state of the record
/// - `region`: the region of the accepting VPC
/// - `mark`: for a pending record, a digest of its content; for an activated one, digests of what was seen last; for a
///   failed one, how it failed
/// - `work_at`: the time of the next work on the record, in milliseconds
pub const INDEX_ATTRIBUTES: [&str; 4] = ["state", "region", "mark", "work_at"];
/// Entries of the index in one page: 10,000 take ten calls, and no page needs much memory.
const INDEX_PAGE_SIZE: i32 = 1000;
/// Every unfinished record is due before this time.
pub const UNFINISHED_DUE_BEFORE: Timestamp = Timestamp::constant(221_845_391_999, 0);
/// The most ids without a record that a process remembers.
const MAX_UNRECORDED: usize = 200_000;
/// Tries of a change, each on the record that another writer stored.
const MAX_UPDATE_TRIES: u32 = 10;

/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>
const MAX_BATCH_SIZE: usize = 100;
/// The pause before each try to read the rest of a batch.
const BATCH_RETRY_PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// The table of the approvals.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    http: Option<reqwest::Client>,
    endpoint: String,
    table: String,
    retention: SignedDuration,
    /// Hashes of the ids that Alibaba Cloud lists and that have no record, so that a tick does not load them again.
    unrecorded: Arc<Mutex<HashSet<u64>>>,
    /// When each region was surveyed first, as far as this process has read it.
    first_surveys: Arc<Mutex<BTreeMap<String, Timestamp>>>,
}

/// A record and the version of it that was read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub approval: Approval,
    /// 1 after the first write, and one more after each further write.
    pub version: u64,
    schema: u32,
}

impl Stored {
    /// A record in the format of this version of peergate.
    #[must_use]
    pub fn new(approval: Approval, version: u64) -> Self {
        Self { approval, version, schema: SCHEMA_VERSION }
    }

    /// Whether an earlier version of peergate wrote it.
    #[must_use]
    pub fn is_from_earlier_version(&self) -> bool {
        self.schema < SCHEMA_VERSION
    }
}

/// An entry of the index: the part of a record that shows what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The id of the record.
    pub id: ApprovalId,
    /// The region of the accepting VPC.
    pub region: String,
    /// The state of the record, as far as the index has it.
    pub state: IndexState,
    /// When to look at the record or its connection next.
    pub due_at: Timestamp,
    /// When to work on the record itself; `None` if only its connection is followed.
    pub work_at: Option<Timestamp>,
}

/// A page of the table or of its index.
#[derive(Debug)]
pub struct StorePage<T> {
    /// What the page has.
    pub items: Vec<T>,
    /// Where the next page starts; `None` on the last page.
    pub next: Option<Item>,
}

/// The result of a conditional write.
#[derive(Debug)]
pub enum Saved {
    /// The record is stored.
    Done(Stored),
    /// Another writer was first. This is the stored record.
    Conflict(Stored),
}

/// Why a call to the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The table cannot be reached, or AWS refuses us: the AWS code, or "no answer".
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// This version of peergate cannot read the item.
    #[error("the record of {id} cannot be read: {problem}")]
    Unreadable {
        /// The id of the item.
        id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Other writers changed the record before each try.
    #[error("other writers changed the record before each try")]
    Contention,
}

impl Error {
    /// The field `outcome` of the log line.
    #[must_use]
    pub fn log_outcome(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable_record",
            Self::Unavailable(_) | Self::Contention => "store_failed",
        }
    }
}

/// The ids that a batch could not read.
struct PartialRead {
    error: Error,
    unread: HashSet<String>,
}

impl Store {
    /// The table named `table`. It keeps finished records for `retention`. `http` opens connections ahead of calls.
    #[must_use]
    pub fn new(
        sdk: &SdkConfig,
        endpoint: Option<&String>,
        http: impl Into<Option<reqwest::Client>>,
        table: String,
        retention: SignedDuration,
    ) -> Self {
        let mut config = aws_sdk_dynamodb::config::Builder::from(sdk);
        config.set_endpoint_url(endpoint.cloned());
        let region = sdk.region().map(AsRef::as_ref).unwrap_or_default();
        let endpoint = endpoint.cloned().unwrap_or_else(|| aws::regional_endpoint("dynamodb", region));
        let client = Client::from_conf(config.build());
        let (unrecorded, first_surveys) = (Arc::default(), Arc::default());
        Self { client, http: http.into(), endpoint, table, retention, unrecorded, first_surveys }
    }

    /// How long finished records are kept.
    #[must_use]
    pub fn retention(&self) -> SignedDuration {
        self.retention
    }

    /// The other items of the table.
    #[must_use]
    pub fn notes(&self) -> Notes {
        Notes::new(self.client.clone(), self.table.clone())
    }

    /// Opens a connection, so that the first call finds one.
    pub async fn prewarm(&self) {
        if let Some(http) = &self.http {
            http::prewarm(http, &self.endpoint).await;
        }
    }

    /// The latest record of a connection.
    pub async fn load(&self, id: &ApprovalId) -> Result<Option<Stored>, Error> {
        let key = AttributeValue::S(id.to_string());
        let response = self.client.get_item().table_name(&self.table).key("id", key).consistent_read(true).send().await;
        response.map_err(to_unavailable)?.item.as_ref().map(parse_record).transpose()
    }

    /// Loads the records of many connections. If a record could not be read, the result has its error. An id without a
    /// record is not in the result.
    ///
    /// # Errors
    /// When no record could be read.
    pub async fn load_many(&self, ids: &[ApprovalId]) -> Result<BTreeMap<ApprovalId, Result<Stored, Error>>, Error> {
        let (mut records, mut failure) = (BTreeMap::new(), None);
        for batch in ids.chunks(MAX_BATCH_SIZE) {
            // After one failure the next batch would probably fail, too, and each failure takes seconds.
            let unread = match &failure {
                Some(_) => batch.iter().map(ToString::to_string).collect(),
                None => match self.load_batch(batch, &mut records).await {
                    Ok(()) => continue,
                    Err(PartialRead { error, unread }) => {
                        failure = Some(error);
                        unread
                    }
                },
            };
            let reason = failure.clone().unwrap_or(Error::Contention);
            let unread = batch.iter().filter(|id| unread.contains(&id.to_string()));
            records.extend(unread.map(|id| (id.clone(), Err(reason.clone()))));
        }
        match failure {
            Some(error) if records.values().all(Result::is_err) => Err(error),
            Some(error) => {
                let unread = records.values().filter(|record| record.is_err()).count();
                tracing::error!(outcome = error.log_outcome(), unread, %error, "could not read some records");
                Ok(records)
            }
            None => Ok(records),
        }
    }

    /// Reads up to 100 records into `records`. If the table returns only a part, the rest is requested again after a
    /// growing pause.
    async fn load_batch(
        &self,
        ids: &[ApprovalId],
        records: &mut BTreeMap<ApprovalId, Result<Stored, Error>>,
    ) -> Result<(), PartialRead> {
        let ids: HashMap<_, _> = ids.iter().map(|id| (id.to_string(), id)).collect();
        let mut unread: HashSet<String> = ids.keys().cloned().collect();
        for pause in BATCH_RETRY_PAUSES {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let keys = unread.iter().map(|id| Item::from([("id".to_owned(), AttributeValue::S(id.clone()))]));
            let keys = KeysAndAttributes::builder().set_keys(Some(keys.collect())).consistent_read(true).build();
            let Ok(keys) = keys else {
                return Err(PartialRead { error: Error::Unavailable("no keys".into()), unread });
            };
            let response = match self.client.batch_get_item().request_items(&self.table, keys).send().await {
                Ok(response) => response,
                Err(error) => return Err(PartialRead { error: to_unavailable(error), unread }),
            };
            for item in response.responses.unwrap_or_default().remove(&self.table).unwrap_or_default() {
                if let Some(id) = text_attribute(&item, "id").and_then(|id| ids.get(id)) {
                    records.insert((*id).clone(), parse_record(&item));
                }
            }
            let rest = response.unprocessed_keys.unwrap_or_default().remove(&self.table);
            unread = rest
                .iter()
                .flat_map(|rest| &rest.keys)
                .filter_map(|key| text_attribute(key, "id"))
                .map(ToOwned::to_owned)
                .collect();
            if unread.is_empty() {
                return Ok(());
            }
        }
        Err(PartialRead { error: Error::Contention, unread })
    }

    /// Whether this process knows that the connection had no record. A later record has an entry in the index.
    #[must_use]
    pub fn is_unrecorded(&self, id: &ApprovalId) -> bool {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash_id(id))
    }

    /// Remembers that the connection has no record.
    pub fn note_unrecorded(&self, id: &ApprovalId) {
        let mut unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        if unrecorded.len() >= MAX_UNRECORDED {
            unrecorded.clear();
        }
        unrecorded.insert(hash_id(id));
    }

    /// Stores a record on condition that the stored one is still `expected`. `None` expects no record.
    pub async fn save(&self, approval: &Approval, expected: Option<&Stored>) -> Result<Saved, Error> {
        let saved = self.put_record(approval, expected.map_or(0, |stored| stored.version)).await;
        if let Ok(Saved::Done(stored)) = &saved {
            metrics::count_new_entries(&stored.approval, expected.map_or(0, |stored| stored.approval.history().len()));
        }
        saved
    }

    async fn put_record(&self, approval: &Approval, expected_version: u64) -> Result<Saved, Error> {
        let item = record_item(approval, expected_version.saturating_add(1), self.retention)?;
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        let put = if expected_version == 0 {
            put.condition_expression("attribute_not_exists(id)")
        } else {
            put.condition_expression("version = :over")
                .expression_attribute_values(":over", AttributeValue::N(expected_version.to_string()))
        };
        let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let written = Stored::new(approval.clone(), expected_version.saturating_add(1));
        match put.send().await {
            Ok(_) => Ok(Saved::Done(written)),
            Err(error) => match conflicting_item(&error) {
                // An equal record is our own: the answer to an earlier try of this write was lost.
                Some(item) => match parse_record(&item)? {
                    current if current == written => Ok(Saved::Done(written)),
                    current => Ok(Saved::Conflict(current)),
                },
                None => Err(to_unavailable(error)),
            },
        }
    }

    /// Checks the permission to write. The write expects an item that never exists, so it changes nothing.
    pub async fn check_write_permission(&self) -> Result<(), Error> {
        let put = self.client.put_item().table_name(&self.table).item("id", AttributeValue::S("nobody".into()));
        match put.condition_expression("attribute_exists(id)").send().await {
            Err(error) if !is_condition_failure(&error) => Err(to_unavailable(error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Applies `change` to a record and stores it. After a conflict it applies `change` to the record of the other writer.
    /// It ends when the record is stored, or when `change` returns `false` because there is nothing to change.
    pub async fn update(&self, stored: Stored, mut change: impl FnMut(&mut Approval) -> bool) -> Result<Stored, Error> {
        let mut current = stored;
        for _ in 0..MAX_UPDATE_TRIES {
            let mut approval = current.approval.clone();
            if !change(&mut approval) {
                return Ok(current);
            }
            match self.save(&approval, Some(&current)).await? {
                Saved::Done(stored) => return Ok(stored),
                Saved::Conflict(theirs) => current = theirs,
            }
        }
        Err(Error::Contention)
    }

    /// A page of the index entries that are due before `before`, the earliest first. `next` is that of the page before.
    /// The index is a little late, so a record may be newer than its entry.
    pub async fn due_entries(&self, before: Timestamp, next: Option<Item>) -> Result<StorePage<IndexEntry>, Error> {
        let response = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(INDEX_NAME)
            .key_condition_expression("due = :due AND due_at <= :before")
            .expression_attribute_values(":due", AttributeValue::S(DUE_PARTITION.into()))
            .expression_attribute_values(":before", AttributeValue::N(before.as_millisecond().to_string()))
            .limit(INDEX_PAGE_SIZE)
            .set_exclusive_start_key(next)
            .send()
            .await
            .map_err(to_unavailable)?;
        let entries = response.items.iter().flatten().filter_map(|item| {
            let entry = parse_entry(item);
            if entry.is_none() {
                // One unreadable entry must not stop the others.
                let id = text_attribute(item, "id");
                tracing::error!(outcome = "unreadable_record", id, "could not read an entry of the index");
            }
            entry
        });
        Ok(StorePage { items: entries.collect(), next: response.last_evaluated_key })
    }
}

fn hash_id(id: &ApprovalId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

fn is_condition_failure(error: &SdkError<PutItemError>) -> bool {
    error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception)
}

fn conflicting_item(error: &SdkError<PutItemError>) -> Option<Item> {
    match error.as_service_error() {
        Some(PutItemError::ConditionalCheckFailedException(failed)) => failed.item.clone(),
        Some(_) | None => None,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn to_unavailable<E: ProvideErrorMetadata, R>(error: SdkError<E, R>) -> Error {
    Error::Unavailable(aws::error_code(&error))
}

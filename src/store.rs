//! The approvals, in a DynamoDB table: one item per connection, one conditional write per change.
//!
//! An item has `id` (the key), `version` (compare and swap), `state`, `ttl`, the record as JSON, and a digest of it;
//! and a line in the index [`INDEX`]: `due`, `due_at`, and [`IN_INDEX`]. The line of what is over is due far away. That
//! is enough to see that nothing has changed, so that a record is read only when something has. What runs on a laptop
//! is the same API, embedded.

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
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::approval::{Approval, ApprovalId, ContentDigest, IndexState, migrate};
#[cfg(feature = "local")]
use crate::notes;
use crate::notes::Notes;
use crate::peering::{FieldHash, InstanceId};
use crate::{aws, http, metrics};

/// The sparse index: partition key `due`, sort key `due_at` (milliseconds), and [`IN_INDEX`].
pub const INDEX_NAME: &str = "due";
/// The attributes that the index holds besides its keys: how far the record has come, where the connection is, what
/// people are shown of it, and when the record itself must be worked on (milliseconds).
pub const INDEX_ATTRIBUTES: [&str; 4] = ["state", "region", "mark", "work_at"];
/// Entries of the index that are read at once: 10,000 are ten pages, and none is large in memory.
const INDEX_PAGE_SIZE: i32 = 1000;
/// Records that are scanned at once: half a megabyte, which a slow link has brought before a call takes too long.
#[cfg(feature = "local")]
const SCAN_PAGE_SIZE: i32 = 100;
/// The only value of `due`.
const DUE_PARTITION: &str = "1";
/// The record's format. A newer one is refused, never rewritten; an older one is rewritten in this one.
const SCHEMA_VERSION: u32 = 2;
/// When the line of a finished record is due: at the beginning of the year 9000.
const FINISHED_DUE_AT: Timestamp = Timestamp::constant(221_845_392_000, 0);
/// Every unfinished record is due before this.
pub const UNFINISHED_DUE_BEFORE: Timestamp = Timestamp::constant(221_845_391_999, 0);
/// Marks in the index of failures that are told apart.
const MARK_ACCEPTED_ELSEWHERE: &str = "elsewhere";
const MARK_SETTLED: &str = "settled";
/// How many ids without a record a process remembers.
const MAX_UNRECORDED: usize = 200_000;
/// How often a change is applied again to what another writer made of the record.
const MAX_UPDATE_TRIES: u32 = 10;

/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>
const MAX_BATCH_SIZE: usize = 100;
/// The pause before each retry of what a batch did not return.
const BATCH_RETRY_PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

type Item = HashMap<String, AttributeValue>;

/// The table.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    http: reqwest::Client,
    endpoint: String,
    table: String,
    retention: SignedDuration,
    /// Hashes of ids that are listed and have no record, so that a tick does not ask for them again.
    unrecorded: Arc<Mutex<HashSet<u64>>>,
}

/// A record and the version of it that was read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub approval: Approval,
    /// 1 for the first write, then one more for each.
    pub version: u64,
    schema: u32,
}

impl Stored {
    /// A record as this version writes it.
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

/// A line of the index: as much of a record as it takes to see what there is to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Which record.
    pub id: ApprovalId,
    /// Where the accepting VPC is.
    pub region: String,
    /// How far it has come.
    pub state: IndexState,
    /// When there is something to do, or to see.
    pub due_at: Timestamp,
    /// When the record itself must be worked on.
    pub work_at: Option<Timestamp>,
}

/// A record as it is stored, and as we read it.
#[cfg(feature = "local")]
#[derive(Debug)]
pub struct ScannedRecord {
    /// `target/pcc-…`.
    pub id: String,
    /// As stored, whichever version wrote it; null when it is not JSON.
    pub record: serde_json::Value,
    /// As this version reads it.
    pub stored: Result<Stored, Error>,
    item: Item,
}

#[cfg(feature = "local")]
impl ScannedRecord {
    /// What is wrong with the item itself, apart from its record.
    #[must_use]
    pub fn item_problems(&self) -> Vec<String> {
        let known = ["id", "version", "state", "record", "digest", "ttl", "due", "due_at"];
        let known = |name: &str| known.contains(&name) || INDEX_ATTRIBUTES.contains(&name);
        let mut unknown: Vec<_> = self.item.keys().filter(|name| !known(name)).collect();
        unknown.sort();
        let mut problems: Vec<_> = unknown.into_iter().map(|name| format!("unknown attribute {name:?}")).collect();
        let json = text_attribute(&self.item, "record").unwrap_or_default();
        match text_attribute(&self.item, "digest") {
            // Earlier versions wrote none.
            None if self.is_from_earlier_version() => {}
            None => problems.push("no digest".to_owned()),
            Some(stored) if stored != record_digest(&self.id, json) => {
                problems.push("the digest is not the record's".to_owned());
            }
            Some(_) => {}
        }
        problems
    }

    /// Whether it says that an earlier version wrote it, which gave no digest.
    #[must_use]
    pub fn is_from_earlier_version(&self) -> bool {
        self.record
            .get("schema")
            .and_then(serde_json::Value::as_u64)
            .is_some_and(|schema| schema < SCHEMA_VERSION.into())
    }

    /// The record as text, as stored.
    #[must_use]
    pub fn record_json(&self) -> &str {
        text_attribute(&self.item, "record").unwrap_or_default()
    }

    /// Whether a newer version of peergate wrote it.
    #[must_use]
    pub fn is_from_newer_version(&self) -> bool {
        self.record
            .get("schema")
            .and_then(serde_json::Value::as_u64)
            .is_some_and(|schema| schema > SCHEMA_VERSION.into())
    }
}

/// How a conditional write ended.
#[derive(Debug)]
pub enum Saved {
    /// It took effect.
    Done(Stored),
    /// Somebody else wrote first: this is theirs.
    Conflict(Stored),
}

/// Why the store could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The table can't be reached, or refuses us. Says with which code, if it does.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// An item is not one that this version reads.
    #[error("the record of {id} can't be read: {problem}")]
    Unreadable {
        /// Which item.
        id: String,
        /// Why.
        problem: &'static str,
    },
    /// Other writers were first, again and again.
    #[error("the record changed too often meanwhile")]
    Contention,
}

impl Error {
    /// The log's `outcome`.
    #[must_use]
    pub fn log_outcome(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable_record",
            Self::Unavailable(_) | Self::Contention => "store_failed",
        }
    }
}

/// As it is written. It is read in two steps, [`Schema`] and then the approval: serde reads what is flattened by way of
/// a copy of all of it.
#[derive(Serialize)]
struct RecordDocument<'a> {
    schema: u32,
    #[serde(flatten)]
    approval: &'a Approval,
}

impl Store {
    /// The table named `table`; finished records are kept for `retention`.
    #[must_use]
    pub fn new(
        sdk: &SdkConfig,
        endpoint: Option<&String>,
        http: reqwest::Client,
        table: String,
        retention: SignedDuration,
    ) -> Self {
        let mut config = aws_sdk_dynamodb::config::Builder::from(sdk);
        config.set_endpoint_url(endpoint.cloned());
        let region = sdk.region().map(AsRef::as_ref).unwrap_or_default();
        let endpoint = endpoint.cloned().unwrap_or_else(|| aws::regional_endpoint("dynamodb", region));
        let client = Client::from_conf(config.build());
        Self { client, http, endpoint, table, retention, unrecorded: Arc::default() }
    }

    /// The other items of the table.
    #[must_use]
    pub fn notes(&self) -> Notes {
        Notes::new(self.client.clone(), self.table.clone())
    }

    /// Opens a connection ahead of the first call.
    pub async fn prewarm(&self) {
        http::prewarm(&self.http, &self.endpoint).await;
    }

    /// The record, as last written.
    pub async fn load(&self, id: &ApprovalId) -> Result<Option<Stored>, Error> {
        let key = AttributeValue::S(id.to_string());
        let answer = self.client.get_item().table_name(&self.table).key("id", key).consistent_read(true).send().await;
        answer.map_err(to_unavailable)?.item.as_ref().map(parse_record).transpose()
    }

    /// The records that there are of `ids`. One that could not be read is there, with the reason: only what is not in the
    /// answer is known not to exist.
    ///
    /// # Errors
    /// When nothing could be read.
    pub async fn load_many(&self, ids: &[ApprovalId]) -> Result<BTreeMap<ApprovalId, Result<Stored, Error>>, Error> {
        let (mut found, mut failure) = (BTreeMap::new(), None);
        for batch in ids.chunks(MAX_BATCH_SIZE) {
            // What failed once would most likely fail again, and each failure takes seconds.
            let unread = match &failure {
                Some(_) => batch.iter().map(ToString::to_string).collect(),
                None => match self.load_batch(batch, &mut found).await {
                    Ok(()) => continue,
                    Err((error, unread)) => {
                        failure = Some(error);
                        unread
                    }
                },
            };
            let reason = failure.clone().unwrap_or(Error::Contention);
            let unread = batch.iter().filter(|id| unread.contains(&id.to_string()));
            found.extend(unread.map(|id| (id.clone(), Err(reason.clone()))));
        }
        match failure {
            Some(error) if found.values().all(Result::is_err) => Err(error),
            Some(error) => {
                let unread = found.values().filter(|record| record.is_err()).count();
                tracing::error!(outcome = error.log_outcome(), unread, %error, "some records could not be read");
                Ok(found)
            }
            None => Ok(found),
        }
    }

    /// Reads up to 100 records into `found`. Where the table gives back a part, the rest is asked for again, later each
    /// time. What could not be read is named, by the text of its id.
    async fn load_batch(
        &self,
        ids: &[ApprovalId],
        found: &mut BTreeMap<ApprovalId, Result<Stored, Error>>,
    ) -> Result<(), (Error, HashSet<String>)> {
        let ids: HashMap<_, _> = ids.iter().map(|id| (id.to_string(), id)).collect();
        let mut wanted: HashSet<String> = ids.keys().cloned().collect();
        for pause in BATCH_RETRY_PAUSES {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let keys = wanted.iter().map(|id| Item::from([("id".to_owned(), AttributeValue::S(id.clone()))]));
            let keys = KeysAndAttributes::builder().set_keys(Some(keys.collect())).consistent_read(true).build();
            let Ok(keys) = keys else { return Err((Error::Unavailable("no keys".into()), wanted)) };
            let answer = match self.client.batch_get_item().request_items(&self.table, keys).send().await {
                Ok(answer) => answer,
                Err(error) => return Err((to_unavailable(error), wanted)),
            };
            for item in answer.responses.unwrap_or_default().remove(&self.table).unwrap_or_default() {
                if let Some(id) = text_attribute(&item, "id").and_then(|id| ids.get(id)) {
                    found.insert((*id).clone(), parse_record(&item));
                }
            }
            let left = answer.unprocessed_keys.unwrap_or_default().remove(&self.table);
            let left: HashSet<String> = left
                .iter()
                .flat_map(|left| &left.keys)
                .filter_map(|key| text_attribute(key, "id"))
                .map(ToOwned::to_owned)
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            wanted = left;
        }
        Err((Error::Contention, wanted))
    }

    /// Whether there was no record of it when this process looked. One that was made since has a line in the index.
    #[must_use]
    pub fn is_unrecorded(&self, id: &ApprovalId) -> bool {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash_id(id))
    }

    /// Remembers that there is no record of it.
    pub fn note_unrecorded(&self, id: &ApprovalId) {
        let mut unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        if unrecorded.len() >= MAX_UNRECORDED {
            unrecorded.clear();
        }
        unrecorded.insert(hash_id(id));
    }

    /// Writes a record over what is stored, if it still is: `None` for nothing.
    pub async fn save(&self, approval: &Approval, expected: Option<&Stored>) -> Result<Saved, Error> {
        let saved = self.put_record(approval, expected.map_or(0, |stored| stored.version)).await;
        if let Ok(Saved::Done(stored)) = &saved {
            metrics::count_new_entries(&stored.approval, expected.map_or(0, |stored| stored.approval.history.len()));
        }
        saved
    }

    async fn put_record(&self, approval: &Approval, expected_version: u64) -> Result<Saved, Error> {
        let item = self.record_item(approval, expected_version.saturating_add(1))?;
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
                // The answer to an earlier try of this very write was lost.
                Some(item) => match parse_record(&item)? {
                    current if current == written => Ok(Saved::Done(written)),
                    current => Ok(Saved::Conflict(current)),
                },
                None => Err(to_unavailable(error)),
            },
        }
    }

    /// Whether records may be written, by a write that is never carried out: no record has this id.
    pub async fn check_write_permission(&self) -> Result<(), Error> {
        let put = self.client.put_item().table_name(&self.table).item("id", AttributeValue::S("nobody".into()));
        match put.condition_expression("attribute_exists(id)").send().await {
            Err(error) if !is_condition_failure(&error) => Err(to_unavailable(error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Applies `change` to a record, and again to what others make of it meanwhile, until it is stored or changes
    /// nothing any more.
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

    /// A page of the records with something to do or to see before `before`, the longest due first, and where the next
    /// page starts. The index lags a little: what it gives may have been written meanwhile.
    pub async fn due_entries(
        &self,
        before: Timestamp,
        from: Option<Item>,
    ) -> Result<(Vec<IndexEntry>, Option<Item>), Error> {
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(INDEX_NAME)
            .key_condition_expression("due = :due AND due_at <= :before")
            .expression_attribute_values(":due", AttributeValue::S(DUE_PARTITION.into()))
            .expression_attribute_values(":before", AttributeValue::N(before.as_millisecond().to_string()))
            .limit(INDEX_PAGE_SIZE)
            .set_exclusive_start_key(from)
            .send()
            .await
            .map_err(to_unavailable)?;
        let entries = answer.items.iter().flatten().filter_map(|item| {
            let entry = parse_entry(item);
            if entry.is_none() {
                // One record that can't be read must not stop the others.
                let id = text_attribute(item, "id");
                tracing::error!(outcome = "unreadable_record", id, "an entry of the index can't be read");
            }
            entry
        });
        Ok((entries.collect(), answer.last_evaluated_key))
    }

    /// A page of all records, in no order, and where the next page starts: for auditors, not for the functions.
    #[cfg(feature = "local")]
    pub async fn scan_records(&self, from: Option<Item>) -> Result<(Vec<ScannedRecord>, Option<Item>), Error> {
        let scan = self.client.scan().table_name(&self.table).consistent_read(true).limit(SCAN_PAGE_SIZE);
        let scan = scan.set_exclusive_start_key(from);
        let answer = scan.send().await.map_err(to_unavailable)?;
        let scanned = |item: &Item| ScannedRecord {
            id: text_attribute(item, "id").unwrap_or_default().to_owned(),
            record: text_attribute(item, "record").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
            stored: parse_record(item),
            item: item.clone(),
        };
        let is_record = |item: &&Item| text_attribute(item, "id").is_none_or(|id| !id.starts_with(notes::ID_PREFIX));
        Ok((answer.items.iter().flatten().filter(is_record).map(scanned).collect(), answer.last_evaluated_key))
    }

    /// Writes `copy` as it was stored elsewhere, over what is stored if that still is `over`: `None` for nothing. Returns
    /// whether it was.
    #[cfg(feature = "local")]
    pub async fn restore_record(&self, copy: &ScannedRecord, expected: Option<&ScannedRecord>) -> Result<bool, Error> {
        let version = |scanned: &ScannedRecord| number_attribute(&scanned.item, "version").unwrap_or(0_u64);
        let newest = version(copy).max(expected.map_or(0, version));
        let mut item = copy.item.clone();
        item.insert("version".into(), AttributeValue::N(newest.saturating_add(1).to_string()));
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        let put = match expected.and_then(|over| over.item.get("version")) {
            Some(over) => {
                put.condition_expression("version = :over").expression_attribute_values(":over", over.clone())
            }
            None => put.condition_expression("attribute_not_exists(version)"),
        };
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) if is_condition_failure(&error) => Ok(false),
            Err(error) => Err(to_unavailable(error)),
        }
    }

    fn record_item(&self, approval: &Approval, version: u64) -> Result<Item, Error> {
        let id = approval.id.to_string();
        let record = RecordDocument { schema: SCHEMA_VERSION, approval };
        let unwritable = |_| Error::Unreadable { id: id.clone(), problem: "not writable as JSON" };
        let json = serde_json::to_string(&record).map_err(unwritable)?;
        let mut item = Item::from([
            ("id".to_owned(), AttributeValue::S(id.clone())),
            ("version".to_owned(), AttributeValue::N(version.to_string())),
            ("state".to_owned(), AttributeValue::S(approval.state.name().to_owned())),
            ("digest".to_owned(), AttributeValue::S(record_digest(&id, &json))),
            ("record".to_owned(), AttributeValue::S(json)),
            ("due".to_owned(), AttributeValue::S(DUE_PARTITION.into())),
            ("region".to_owned(), AttributeValue::S(approval.connection.accepter.region.clone())),
        ]);
        let time = |at: Timestamp| AttributeValue::N(at.as_millisecond().to_string());
        let due_at = approval.due_at();
        item.insert("due_at".into(), time(due_at.unwrap_or(FINISHED_DUE_AT)));
        item.extend(approval.work_at().map(|work_at| ("work_at".into(), time(work_at))));
        let mark = match approval.index_state() {
            IndexState::Pending(mark) => Some(mark.to_hex()),
            IndexState::AcceptedElsewhere => Some(MARK_ACCEPTED_ELSEWHERE.to_owned()),
            IndexState::Settled => Some(MARK_SETTLED.to_owned()),
            IndexState::Decided | IndexState::Activating | IndexState::Ended | IndexState::Failed => None,
        };
        item.extend(mark.map(|mark| ("mark".into(), AttributeValue::S(mark))));
        if due_at.is_none() && approval.state.is_final() {
            let ttl = approval.since.as_second().saturating_add(self.retention.as_secs());
            item.insert("ttl".into(), AttributeValue::N(ttl.to_string()));
        }
        Ok(item)
    }
}

fn hash_id(id: &ApprovalId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// All that is read of a record before its format is known.
#[derive(Deserialize)]
struct SchemaHeader {
    schema: u32,
}

/// A digest of the stored record: an edit must also change it.
fn record_digest(id: &str, json: &str) -> String {
    let mut hash = FieldHash::new("peergate/record/1");
    hash.add_field(id);
    hash.add_field(json);
    hash.into_hex()
}

fn text_attribute<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn number_attribute<T: std::str::FromStr>(item: &Item, name: &str) -> Option<T> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn parse_entry(item: &Item) -> Option<IndexEntry> {
    let (target, instance_id) = text_attribute(item, "id")?.split_once('/')?;
    let time = |name| Timestamp::from_millisecond(number_attribute(item, name)?).ok();
    Some(IndexEntry {
        id: ApprovalId { target: target.to_owned(), instance_id: InstanceId::parse(instance_id).ok()? },
        region: text_attribute(item, "region").unwrap_or_default().to_owned(),
        state: match text_attribute(item, "state")? {
            // Without a mark it is like nothing, so that it is looked at.
            "pending" => {
                IndexState::Pending(text_attribute(item, "mark").and_then(ContentDigest::from_hex).unwrap_or_default())
            }
            "approved" | "rejecting" => IndexState::Decided,
            "activating" => IndexState::Activating,
            "rejected" | "expired" | "deleted" => IndexState::Ended,
            "failed" => match text_attribute(item, "mark") {
                Some(MARK_ACCEPTED_ELSEWHERE) => IndexState::AcceptedElsewhere,
                Some(MARK_SETTLED) => IndexState::Settled,
                Some(_) | None => IndexState::Failed,
            },
            _ => IndexState::Settled,
        },
        due_at: time("due_at")?,
        work_at: time("work_at"),
    })
}

fn parse_record(item: &Item) -> Result<Stored, Error> {
    let id = text_attribute(item, "id").unwrap_or_default().to_owned();
    let unreadable = |problem| Error::Unreadable { id: id.clone(), problem };
    let version = number_attribute(item, "version").ok_or_else(|| unreadable("no version"))?;
    let json = text_attribute(item, "record").ok_or_else(|| unreadable("no record"))?;
    let SchemaHeader { schema } = serde_json::from_str(json).map_err(|_| unreadable("no schema"))?;
    if schema > SCHEMA_VERSION {
        return Err(unreadable("written by a newer version of peergate"));
    }
    let unknown = |_| unreadable("not of the known format");
    let approval = if schema < SCHEMA_VERSION {
        let mut record = serde_json::from_str(json).map_err(unknown)?;
        migrate(&mut record);
        serde_json::from_value(record).map_err(unknown)?
    } else {
        serde_json::from_str(json).map_err(unknown)?
    };
    Ok(Stored { approval, version, schema })
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
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    Error::Unavailable(
        code.map_or("no answer".into(), |code| http::log_safe_word(code).unwrap_or("UnreadableCode".into())),
    )
}

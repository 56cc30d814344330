//! Reads and restores whole records, for auditors and backups. The functions do not use it.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use super::item::{Item, SCHEMA_VERSION, number_attribute, parse_record, record_digest, text_attribute};
use super::{Error, INDEX_ATTRIBUTES, Store, StorePage, Stored, is_condition_failure, to_unavailable};
use crate::notes;

/// Records in one page: half a megabyte, so that a slow link finishes within the timeout of a call.
const SCAN_PAGE_SIZE: i32 = 100;
/// The attributes that this version writes, besides those of the index.
const KNOWN_ATTRIBUTES: [&str; 8] = ["id", "version", "state", "record", "digest", "ttl", "due", "due_at"];

/// A stored record, raw and parsed.
#[derive(Debug)]
pub struct ScannedRecord {
    /// `target/pcc-…`.
    pub id: String,
    /// The raw record, of any version of peergate; null if it is not JSON.
    pub record: Value,
    /// The parsed record.
    pub stored: Result<Stored, Error>,
    item: Item,
}

impl ScannedRecord {
    fn new(item: &Item) -> Self {
        Self {
            id: text_attribute(item, "id").unwrap_or_default().to_owned(),
            record: text_attribute(item, "record").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
            stored: parse_record(item),
            item: item.clone(),
        }
    }

    /// A copy whose record somebody has edited, without its digest.
    #[must_use]
    pub fn with_record(&self, record: &Value) -> Self {
        let mut item = self.item.clone();
        item.insert("record".to_owned(), AttributeValue::S(record.to_string()));
        Self::new(&item)
    }

    /// The problems of the item itself, apart from its record.
    #[must_use]
    pub fn item_problems(&self) -> Vec<String> {
        let is_known = |name: &str| KNOWN_ATTRIBUTES.contains(&name) || INDEX_ATTRIBUTES.contains(&name);
        let mut unknown: Vec<_> = self.item.keys().filter(|name| !is_known(name)).collect();
        unknown.sort();
        let mut problems: Vec<_> = unknown.into_iter().map(|name| format!("unknown attribute {name:?}")).collect();
        match text_attribute(&self.item, "digest") {
            // Earlier versions wrote no digest.
            None if self.is_from_earlier_version() => {}
            None => problems.push("no digest".to_owned()),
            Some(digest) if digest != record_digest(&self.id, self.record_json()) => {
                problems.push("the digest is not the record's".to_owned());
            }
            Some(_) => {}
        }
        problems
    }

    /// Whether the record says that an earlier version of peergate wrote it. Such a record has no digest.
    #[must_use]
    pub fn is_from_earlier_version(&self) -> bool {
        self.schema().is_some_and(|schema| schema < SCHEMA_VERSION.into())
    }

    /// Whether a newer version of peergate wrote it.
    #[must_use]
    pub fn is_from_newer_version(&self) -> bool {
        self.schema().is_some_and(|schema| schema > SCHEMA_VERSION.into())
    }

    fn schema(&self) -> Option<u64> {
        self.record.get("schema").and_then(Value::as_u64)
    }

    /// The raw text of the record; empty if there is none.
    #[must_use]
    pub fn record_json(&self) -> &str {
        text_attribute(&self.item, "record").unwrap_or_default()
    }
}

impl Store {
    /// A page of all records, in no order. `next` is that of the page before.
    pub async fn scan_records(&self, next: Option<Item>) -> Result<StorePage<ScannedRecord>, Error> {
        let scan = self.client.scan().table_name(&self.table).consistent_read(true).limit(SCAN_PAGE_SIZE);
        let response = scan.set_exclusive_start_key(next).send().await.map_err(to_unavailable)?;
        let is_record = |item: &&Item| text_attribute(item, "id").is_none_or(|id| !id.starts_with(notes::ID_PREFIX));
        let items = response.items.iter().flatten().filter(is_record).map(ScannedRecord::new).collect();
        Ok(StorePage { items, next: response.last_evaluated_key })
    }

    /// Stores a copy of a record if the stored one is still `expected`; `None` expects no record. Returns whether it did.
    pub async fn restore_record(&self, copy: &ScannedRecord, expected: Option<&ScannedRecord>) -> Result<bool, Error> {
        let version = |scanned: &ScannedRecord| number_attribute(&scanned.item, "version").unwrap_or(0_u64);
        let newest = version(copy).max(expected.map_or(0, version));
        let mut item = copy.item.clone();
        item.insert("version".into(), AttributeValue::N(newest.saturating_add(1).to_string()));
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        let put = match expected.and_then(|expected| expected.item.get("version")) {
            Some(version) => {
                put.condition_expression("version = :over").expression_attribute_values(":over", version.clone())
            }
            None => put.condition_expression("attribute_not_exists(version)"),
        };
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) if is_condition_failure(&error) => Ok(false),
            Err(error) => Err(to_unavailable(error)),
        }
    }
}

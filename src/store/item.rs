//! How a record and its index entry are written as a DynamoDB item, and read from one.
//!
//! An item has `id` (the key), `version` (for conditional writes), `state`, `ttl`, `record` (JSON), `digest` (of the
//! record), and the attributes of the index. A finished record is due in the far future, so that the index has an entry
//! for it, too.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Error, IndexEntry, Stored};
use crate::approval::{ActiveDigest, Approval, ApprovalId, ApprovalState, ContentDigest, IndexState, migrate};
use crate::peering::{FieldHash, InstanceId};

/// The only value of `due`.
pub(super) const DUE_PARTITION: &str = "1";
/// The format of the record. A newer format is refused and never rewritten. An older one is read, and written in this one.
pub(super) const SCHEMA_VERSION: u32 = 2;
/// When the entry of a finished record is due: at the beginning of the year 9000.
const FINISHED_DUE_AT: Timestamp = Timestamp::constant(221_845_392_000, 0);
/// Values of `mark` for failed records.
const MARK_ACCEPTED_ELSEWHERE: &str = "elsewhere";
const MARK_SETTLED: &str = "settled";

pub(super) type Item = HashMap<String, AttributeValue>;

/// The record as it is written. It is read in two steps, [`SchemaHeader`] and then the approval, because serde copies all
/// of a flattened document before it reads it.
#[derive(Serialize)]
struct RecordDocument<'a> {
    schema: u32,
    #[serde(flatten)]
    approval: &'a Approval,
}

/// The part of a record that is read before its format is known.
#[derive(Deserialize)]
struct SchemaHeader {
    schema: u32,
}

pub(super) fn record_item(approval: &Approval, version: u64, retention: SignedDuration) -> Result<Item, Error> {
    let id = approval.id().to_string();
    let record = RecordDocument { schema: SCHEMA_VERSION, approval };
    let unwritable = |_| Error::Unreadable { id: id.clone(), problem: "not writable as JSON" };
    let json = serde_json::to_string(&record).map_err(unwritable)?;
    let mut item = Item::from([
        ("id".to_owned(), AttributeValue::S(id.clone())),
        ("version".to_owned(), AttributeValue::N(version.to_string())),
        ("state".to_owned(), AttributeValue::S(approval.state().name().to_owned())),
        ("digest".to_owned(), AttributeValue::S(record_digest(&id, &json))),
        ("record".to_owned(), AttributeValue::S(json)),
        ("due".to_owned(), AttributeValue::S(DUE_PARTITION.into())),
        ("region".to_owned(), AttributeValue::S(approval.connection().accepter.region.clone())),
    ]);
    let time = |at: Timestamp| AttributeValue::N(at.as_millisecond().to_string());
    let due_at = approval.due_at();
    item.insert("due_at".into(), time(due_at.unwrap_or(FINISHED_DUE_AT)));
    item.extend(approval.work_at().map(|work_at| ("work_at".into(), time(work_at))));
    let mark = match approval.index_state() {
        IndexState::Pending(digest) => Some(digest.to_hex()),
        IndexState::AcceptedElsewhere => Some(MARK_ACCEPTED_ELSEWHERE.to_owned()),
        IndexState::Settled => Some(MARK_SETTLED.to_owned()),
        IndexState::Active(digest) => Some(digest.to_hex()),
        IndexState::Decided | IndexState::Activating | IndexState::Ended | IndexState::Failed => None,
    };
    item.extend(mark.map(|mark| ("mark".into(), AttributeValue::S(mark))));
    // An activated connection is followed for life.
    if due_at.is_none() && approval.state().is_final() && *approval.state() != ApprovalState::Activated {
        let ttl = approval.since().as_second().saturating_add(retention.as_secs());
        item.insert("ttl".into(), AttributeValue::N(ttl.to_string()));
    }
    Ok(item)
}

/// A digest of the stored record, so that an edit of the record must change the digest, too.
pub(super) fn record_digest(id: &str, json: &str) -> String {
    let mut hash = FieldHash::new("peergate/record/1");
    hash.add_field(id);
    hash.add_field(json);
    hash.into_hex()
}

pub(super) fn parse_record(item: &Item) -> Result<Stored, Error> {
    let id = text_attribute(item, "id").unwrap_or_default().to_owned();
    let unreadable = |problem| Error::Unreadable { id: id.clone(), problem };
    let version = number_attribute(item, "version").ok_or_else(|| unreadable("no version"))?;
    let json = text_attribute(item, "record").ok_or_else(|| unreadable("no record"))?;
    let SchemaHeader { schema } = serde_json::from_str(json).map_err(|_| unreadable("no schema"))?;
    if schema > SCHEMA_VERSION {
        return Err(unreadable("written by a newer version of peergate"));
    }
    let malformed = |_| unreadable("not in the known format");
    let approval = if schema < SCHEMA_VERSION {
        let mut record = serde_json::from_str(json).map_err(malformed)?;
        migrate(&mut record);
        serde_json::from_value(record).map_err(malformed)?
    } else {
        serde_json::from_str(json).map_err(malformed)?
    };
    Ok(Stored { approval, version, schema })
}

pub(super) fn parse_entry(item: &Item) -> Option<IndexEntry> {
    let (target, instance_id) = text_attribute(item, "id")?.split_once('/')?;
    let time = |name| Timestamp::from_millisecond(number_attribute(item, name)?).ok();
    Some(IndexEntry {
        id: ApprovalId { target: target.to_owned(), instance_id: InstanceId::parse(instance_id).ok()? },
        region: text_attribute(item, "region").unwrap_or_default().to_owned(),
        state: match text_attribute(item, "state")? {
            // Without a mark, the digest equals no other, so that the record is read.
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
            // Without a mark, the digests equal no others, so that the record is read.
            "activated" => {
                IndexState::Active(text_attribute(item, "mark").and_then(ActiveDigest::from_hex).unwrap_or_default())
            }
            _ => IndexState::Settled,
        },
        due_at: time("due_at")?,
        work_at: time("work_at"),
    })
}

pub(super) fn text_attribute<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub(super) fn number_attribute<T: std::str::FromStr>(item: &Item, name: &str) -> Option<T> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

//! Migrates records of earlier versions. Works on JSON, so that the types know only one format.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::peering::{FieldHash, Fingerprint};

/// Turns a record of schema 1 into a record of schema 2.
///
/// Schema 2 keeps the facts that people saw apart from the last reading, and the place of a card apart from its
/// content. Schema 1 only recorded acknowledged calls, so any call without an acknowledgment may have reached Alibaba
/// Cloud.
pub fn migrate(record: &mut Value) {
    let connection = record.get("connection").cloned().unwrap_or_default();
    let mut facts = Map::new();
    for field in ["requester", "accepter", "bandwidth_mbps", "link_type"] {
        facts.insert(field.to_owned(), connection.get(field).cloned().unwrap_or_default());
    }
    let shown = shown_by_channel(record);
    let mut cards = Map::new();
    for (channel, reference) in record.get("cards").and_then(Value::as_object).into_iter().flatten() {
        cards.insert(channel.clone(), card_json(record, channel, reference, shown.get(channel)));
    }
    let others = shown.into_iter().filter(|(channel, _)| !cards.contains_key(channel));
    let others = others
        .map(|(channel, shown)| (channel, json!({"fingerprint": shown.fingerprint, "shown_at": shown.at.to_string()})));
    let others: Map<_, _> = others.collect();
    let own_call = own_call_json(record);
    if let Some(fields) = record.as_object_mut() {
        fields.insert("facts".into(), facts.into());
        fields.insert("cards".into(), cards.into());
        fields.insert("shown".into(), others.into());
        fields.extend(own_call.map(|call| ("own_call".to_owned(), call)));
    }
}

/// The facts that a channel shows, and since when.
struct Shown {
    at: Timestamp,
    fingerprint: String,
}

/// What each channel shows. In schema 1, each delivered notification showed the record of that time.
fn shown_by_channel(record: &Value) -> BTreeMap<String, Shown> {
    let list = |name: &str| record.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let fingerprints = list("history").iter().filter_map(|entry| {
        let event = entry.get("what")?;
        let facts = event.get("discovered").or_else(|| event.get("changed"))?;
        Some((parse_time(entry.get("at"))?, facts.get("fingerprint")?.as_str()?))
    });
    let fingerprints: Vec<(Timestamp, &str)> = fingerprints.collect();
    let mut shown: BTreeMap<String, Shown> = BTreeMap::new();
    for notification in list("outbox") {
        for (channel, delivery) in notification.get("deliveries").and_then(Value::as_object).into_iter().flatten() {
            let Some(at) = parse_time(delivery.pointer("/delivered/at")) else { continue };
            let Some((_, fingerprint)) = fingerprints.iter().rev().find(|(since, _)| *since <= at) else { continue };
            let earlier = shown.get(channel);
            if earlier.is_none_or(|earlier| earlier.at < at && earlier.fingerprint != *fingerprint) {
                shown.insert(channel.clone(), Shown { at, fingerprint: (*fingerprint).to_owned() });
            }
        }
    }
    shown
}

fn card_json(record: &Value, channel: &str, reference: &Value, shown: Option<&Shown>) -> Value {
    let mut hash = FieldHash::new("peergate/card/1");
    for part in [record.pointer("/id/instance_id"), Some(reference)] {
        hash.add_field(part.and_then(Value::as_str).unwrap_or_default());
    }
    hash.add_field(channel);
    // Without a delivery, nobody knows what the card shows.
    let at = shown.map_or(Timestamp::UNIX_EPOCH, |shown| shown.at).to_string();
    let fingerprint = shown.map_or_else(|| Fingerprint::of_nothing().to_string(), |shown| shown.fingerprint.clone());
    json!({"reference": reference, "card": format!("{:.16}", hash.into_hex()), "fingerprint": fingerprint, "shown_at": at})
}

fn own_call_json(record: &Value) -> Option<Value> {
    let token = record.get("client_token").filter(|token| !token.is_null());
    token?;
    let history = record.get("history").and_then(Value::as_array)?;
    let decided = history.iter().rposition(|entry| entry.pointer("/what/decided").is_some())?;
    let mut after = history.iter().skip(decided);
    let acknowledged = after.rfind(|entry| entry.pointer("/what/acknowledged").is_some());
    let at = acknowledged.or_else(|| history.get(decided))?.get("at")?;
    Some(json!({
        "generation": record.get("generation")?,
        "at": at,
        "open": false,
        "unsettled": acknowledged.is_none(),
        "acknowledged": acknowledged.is_some(),
    }))
}

fn parse_time(value: Option<&Value>) -> Option<Timestamp> {
    value?.as_str()?.parse().ok()
}

//! Everything that happened to a record, each entry bound to all before it by a hash: who edits one breaks the chain.

use std::ops::Deref;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Approver, Decision, State};
use crate::peering::{Change, FieldHash, Fingerprint, Problem, Status};

/// The entries of a record. Only ever grows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<Entry>);

impl Deref for History {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        &self.0
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
    /// The state that it led to.
    pub state: State,
    /// SHA-256, in hex, over the entry before (the record's id for the first) and this one.
    pub hash: String,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// We heard of the request.
    Discovered {
        /// Of its facts.
        fingerprint: Fingerprint,
        /// Which rule is about it.
        rule: Option<String>,
        /// How many people have to approve.
        approvals: u32,
    },
    /// Its facts changed: earlier approvals do not count any more.
    Changed {
        /// Of its facts now.
        fingerprint: Fingerprint,
        /// What is not as it was.
        changes: Vec<Change>,
        /// Whose approvals are void.
        void: Vec<Approver>,
    },
    /// The configuration changed.
    RuleChanged {
        /// Which rule is about it now.
        rule: Option<String>,
        /// How many people have to approve now.
        approvals: u32,
        /// Whose approvals are void: they may not approve any more.
        void: Vec<Approver>,
    },
    /// Somebody decided.
    Decided(Decision),
    /// Somebody took an approval back.
    Withdrawn {
        /// Who.
        by: Approver,
        /// Of the request that said so.
        request_key: String,
    },
    /// Alibaba Cloud acknowledged a call.
    Acknowledged {
        /// e.g. `AcceptVpcPeerConnection`.
        operation: String,
        /// Of the call.
        request_id: String,
    },
    /// The connection was seen in a status that led to another state.
    Seen(Status),
    /// The connection does not exist any more.
    Missing,
    /// It was activated, but not with the facts that were decided on.
    Differs {
        /// What is not as it was.
        changes: Vec<Change>,
    },
    /// It will never work.
    Failed(Problem),
    /// People were told that it waits, or takes long.
    Told(Alarm),
}

impl What {
    /// Of the facts that it is about, if it is about some.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Self::Discovered { fingerprint, .. } | Self::Changed { fingerprint, .. } => Some(fingerprint),
            Self::Decided(decision) => Some(&decision.fingerprint),
            Self::RuleChanged { .. }
            | Self::Withdrawn { .. }
            | Self::Acknowledged { .. }
            | Self::Seen(_)
            | Self::Missing
            | Self::Differs { .. }
            | Self::Failed(_)
            | Self::Told(_) => None,
        }
    }
}

/// What people are told without anything having happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// It still waits.
    Reminder,
    /// It waits so long that others are told, too.
    Escalation,
    /// It will expire soon.
    ExpiresSoon,
    /// Its activation takes too long.
    Stuck,
}

/// Where a history is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry was changed, added, moved or taken away.
    #[error("entry {0} does not follow from those before it")]
    Chain(usize),
    /// There is none.
    #[error("there is no history")]
    Empty,
    /// The record is in a state that its history does not lead to.
    #[error("the record's state is not that of its last entry")]
    State,
    /// The record counts other decisions than its history.
    #[error("the record's decisions are not those that its history leaves standing")]
    Decision,
    /// The record is about other facts than its history.
    #[error("the record's fingerprint is not the last one of its history")]
    Fingerprint,
}

impl History {
    pub(super) fn push(&mut self, id: &str, at: Timestamp, what: What, state: &State) {
        let before = self.0.last().map_or(id, |entry| entry.hash.as_str());
        let mut entry = Entry { at, what, state: state.clone(), hash: String::new() };
        entry.hash = hash(before, &serde_json::to_value(&entry).unwrap_or_default());
        self.0.push(entry);
    }

    /// Checks the record as it is stored, whichever version wrote it.
    ///
    /// # Errors
    /// The first thing that is not as it was.
    pub fn verify(id: &str, record: &Value) -> Result<(), Broken> {
        let entries = record.get("history").and_then(Value::as_array).filter(|entries| !entries.is_empty());
        let entries = entries.ok_or(Broken::Empty)?;
        let mut before = id;
        for (position, entry) in entries.iter().enumerate() {
            let stored = entry.get("hash").and_then(Value::as_str).ok_or(Broken::Chain(position))?;
            if hash(before, entry) != stored {
                return Err(Broken::Chain(position));
            }
            before = stored;
        }
        if entries.last().and_then(|entry| entry.get("state")) != record.get("state") {
            return Err(Broken::State);
        }
        let (standing, fingerprint) = replay(entries);
        if Some(fingerprint) != record.get("fingerprint") {
            return Err(Broken::Fingerprint);
        }
        let decisions = record.get("decisions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        // Who a principal is may be configured anew; what they said may not.
        let same = |(one, other): (&&Value, &Value)| {
            ["/verdict", "/at", "/reason", "/fingerprint", "/request_key", "/by/principal"]
                .iter()
                .all(|field| one.pointer(field) == other.pointer(field))
        };
        let stand = standing.len() == decisions.len() && standing.iter().zip(decisions).all(same);
        if stand { Ok(()) } else { Err(Broken::Decision) }
    }
}

/// The decisions that a history leaves standing, and the facts that they are about.
fn replay(entries: &[Value]) -> (Vec<&Value>, &Value) {
    let (mut standing, mut fingerprint): (Vec<&Value>, &Value) = (vec![], &Value::Null);
    let (mut was_open, mut was_pending) = (true, true);
    let by_same = |one: &Value, other: &Value| {
        let person = |by: &Value| by.get("person").filter(|person| !person.is_null()).cloned();
        one.get("principal") == other.get("principal") || (person(one).is_some() && person(one) == person(other))
    };
    for entry in entries {
        let what = |path: &str| entry.pointer(&format!("/what/{path}"));
        let pending = entry.get("state").and_then(Value::as_str) == Some("pending");
        if let Some(decision) = what("decided") {
            if !was_open {
                standing.clear();
            }
            let by = decision.get("by").unwrap_or(&Value::Null);
            if decision.get("verdict").and_then(Value::as_str) == Some("reject") {
                standing.retain(|earlier| !by_same(by, earlier.get("by").unwrap_or(&Value::Null)));
            }
            standing.push(decision);
        } else if let Some(by) = what("withdrawn/by") {
            standing.retain(|earlier| !by_same(by, earlier.get("by").unwrap_or(&Value::Null)));
        } else if let Some(new) = what("discovered/fingerprint").or(what("changed/fingerprint")) {
            standing.clear();
            fingerprint = new;
        } else if let Some(void) = what("rule_changed/void").and_then(Value::as_array) {
            if !was_open {
                standing.clear();
            }
            let is_void = |decision: &&Value| {
                let by = decision.pointer("/by/principal");
                void.iter().any(|approver| approver.get("principal") == by)
            };
            standing.retain(|decision| !is_void(decision));
        } else if was_pending && !pending {
            // It came to its end, or was accepted, without us.
            standing.clear();
        }
        was_pending = pending;
        was_open = pending || !is_final(entry.get("state"));
    }
    (standing, fingerprint)
}

fn is_final(state: Option<&Value>) -> bool {
    // A failure is an object: it has a code.
    let finals = ["activated", "rejected", "expired", "deleted"];
    state.is_some_and(|state| state.is_object() || state.as_str().is_some_and(|name| finals.contains(&name)))
}

/// Over JSON with sorted keys and without the hash itself.
fn hash(before: &str, entry: &Value) -> String {
    let mut entry = entry.clone();
    if let Some(fields) = entry.as_object_mut() {
        fields.remove("hash");
    }
    entry.sort_all_objects();
    let mut hash = FieldHash::new("peergate/history/1");
    hash.field(before);
    hash.field(&entry.to_string());
    hash.hex()
}

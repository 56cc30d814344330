//! Checks that a record follows from its history, by deriving the decisions from the history again. Works on JSON, so
//! that it covers records of any version.

use serde::Deserialize;
use serde_json::Value;

use super::history::entry_hash;
use super::{ClientToken, History, Principal, TokenPurpose, Verdict};
use crate::peering::{AccountId, Facts, InstanceId};

/// How a record contradicts its history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryMismatch {
    /// An entry was changed, added, moved or removed. Holds its position.
    #[error("entry {0} does not follow from those before it")]
    Chain(usize),
    /// The history has no entries.
    #[error("the history is empty")]
    Empty,
    /// The record is not in the state that its history leads to.
    #[error("the record's state is not that of its last entry")]
    State,
    /// An entry claims a state that it cannot lead to. Holds its position.
    #[error("entry {0} cannot lead to its state")]
    Transition(usize),
    /// The record counts other decisions than its history.
    #[error("the record's decisions are not those that count in its history")]
    Decision,
    /// The record has another fingerprint than its history.
    #[error("the record's fingerprint is not the last one of its history")]
    Fingerprint,
    /// The record's facts have another fingerprint than the record.
    #[error("the record's facts are not those of its fingerprint")]
    Facts,
    /// The record is in another generation than its history.
    #[error("the record's generation is not that of its history")]
    Generation,
    /// The record's client token was not derived from its decision.
    #[error("the record's client token is not derived from its decision")]
    Token,
}

impl History {
    /// Checks a stored record of any version. `id` is the record's id, `target/pcc-…`.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn verify(id: &str, record: &Value) -> Result<(), HistoryMismatch> {
        let entries = record.get("history").and_then(Value::as_array).filter(|entries| !entries.is_empty());
        let entries = entries.ok_or(HistoryMismatch::Empty)?;
        let mut before = id;
        for (position, entry) in entries.iter().enumerate() {
            let stored = entry.get("hash").and_then(Value::as_str).ok_or(HistoryMismatch::Chain(position))?;
            if entry_hash(before, entry) != stored {
                return Err(HistoryMismatch::Chain(position));
            }
            before = stored;
        }
        if entries.last().and_then(|entry| entry.get("state")) != record.get("state") {
            return Err(HistoryMismatch::State);
        }
        let derived = ReplayedHistory::replay(entries)?;
        if Some(derived.fingerprint) != record.get("fingerprint") {
            return Err(HistoryMismatch::Fingerprint);
        }
        // Earlier versions only kept the last reading.
        let facts =
            record.get("facts").map(|facts| Facts::deserialize(facts).map(|facts| facts.fingerprint().to_string()));
        // Schema 1 kept the facts that were activated, not those that people decided on.
        let differs = entries.iter().any(|entry| entry.pointer("/what/differs").is_some());
        if facts.is_some_and(|facts| !differs && facts.ok().as_deref() != derived.fingerprint.as_str()) {
            return Err(HistoryMismatch::Facts);
        }
        let decisions = record.get("decisions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        // The configuration may change who a principal is, but not what that person said.
        let same = |(one, other): (&&Value, &Value)| {
            let fields = ["/verdict", "/at", "/reason", "/fingerprint", "/request_key"];
            fields.iter().all(|field| one.pointer(field) == other.pointer(field))
                && is_same_user(one.pointer("/by/principal"), other.pointer("/by/principal"))
        };
        let standing = &derived.standing;
        if standing.len() != decisions.len() || !standing.iter().zip(decisions).all(same) {
            return Err(HistoryMismatch::Decision);
        }
        if record.get("generation").and_then(Value::as_u64) != Some(derived.generation) {
            return Err(HistoryMismatch::Generation);
        }
        let token = record.get("client_token").and_then(Value::as_str);
        // A change after a failure voids the decision. Earlier versions kept its token.
        let is_voided = derived.is_decided && derived.standing.is_empty();
        if !is_voided && token.map(ToOwned::to_owned) != derived.expected_token(id, record) {
            return Err(HistoryMismatch::Token);
        }
        Ok(())
    }
}

/// The result of replaying a history.
struct ReplayedHistory<'a> {
    /// Decisions that count.
    standing: Vec<&'a Value>,
    /// Fingerprint of the facts that they are about.
    fingerprint: &'a Value,
    generation: u64,
    /// Whether the current generation is decided.
    is_decided: bool,
    /// How many people must approve.
    needed_approvals: u64,
    state: &'a Value,
    is_open: bool,
    is_pending: bool,
    /// Who has acknowledged the drift that the last entries are about.
    acknowledged: Vec<&'a Value>,
}

impl<'a> ReplayedHistory<'a> {
    fn replay(entries: &'a [Value]) -> Result<Self, HistoryMismatch> {
        let (standing, null) = (vec![], &Value::Null);
        let mut derived = Self {
            standing,
            fingerprint: null,
            generation: 1,
            is_decided: false,
            needed_approvals: 1,
            state: null,
            is_open: true,
            is_pending: true,
            acknowledged: vec![],
        };
        for (position, entry) in entries.iter().enumerate() {
            if !derived.apply_entry(entry, entries.get(..position).unwrap_or_default()) {
                return Err(HistoryMismatch::Transition(position));
            }
        }
        Ok(derived)
    }

    /// Applies an entry. Returns whether it can lead to the state that it claims.
    fn apply_entry(&mut self, entry: &'a Value, earlier: &'a [Value]) -> bool {
        let field = |path: &str| entry.pointer(&format!("/what/{path}"));
        let state = entry.get("state").unwrap_or(&Value::Null);
        let begins = match (state_name(self.state), entry_kind(entry)) {
            (_, "sent_back" | "corrected") => {
                let generation = field("sent_back/generation").or(field("corrected/generation"));
                generation.and_then(Value::as_u64).filter(|generation| *generation > self.generation)
            }
            ("failed" | "deleted", "decided" | "rule_changed" | "discovered") | ("approved", "changed") => {
                Some(self.generation.saturating_add(1))
            }
            _ => None,
        };
        if let Some(generation) = begins {
            (self.generation, self.is_decided) = (generation, false);
        }
        if let Some(approvals) = ["discovered", "rule_changed", "sent_back"]
            .iter()
            .find_map(|kind| field(&format!("{kind}/approvals")).and_then(Value::as_u64))
        {
            self.needed_approvals = approvals.max(1);
        }
        self.update_acknowledged(entry);
        if !self.update_standing(entry, state_name(state) == "pending", earlier) {
            return false;
        }
        let may = self.may_lead_to(entry, state);
        let decided = matches!(state_name(state), "approved" | "rejecting");
        if decided && state_name(self.state) != state_name(state) {
            self.is_decided = true;
        }
        self.state = state;
        self.is_pending = state_name(state) == "pending";
        self.is_open = self.is_pending || !is_final_state(state);
        may
    }

    /// Updates who has acknowledged a drift. With enough people, the facts that they saw count from then on.
    fn update_acknowledged(&mut self, entry: &'a Value) {
        match entry_kind(entry) {
            "drift_acknowledged" => {
                let by = entry.pointer("/what/drift_acknowledged/decision/by/principal").unwrap_or(&Value::Null);
                if !self.acknowledged.iter().any(|earlier| is_same_user(Some(earlier), Some(by))) {
                    self.acknowledged.push(by);
                }
                if let Some(facts) = entry.pointer("/what/drift_acknowledged/facts") {
                    self.fingerprint = facts;
                }
            }
            "drifted" | "drift_ended" => self.acknowledged.clear(),
            _ => {}
        }
    }

    /// Updates the decisions that count. Returns `false` if the entry restores a decision that was never made.
    fn update_standing(&mut self, entry: &'a Value, is_pending: bool, earlier: &'a [Value]) -> bool {
        let field = |path: &str| entry.pointer(&format!("/what/{path}"));
        let by_same = |one: &Value, decision: &Value| {
            let other = decision.get("by").unwrap_or(&Value::Null);
            let person = |by: &Value| by.get("person").filter(|person| !person.is_null()).cloned();
            is_same_user(one.get("principal"), other.get("principal"))
                || (person(one).is_some() && person(one) == person(other))
        };
        if let Some(decision) = field("decided") {
            if !self.is_open {
                self.standing.clear();
            }
            let by = decision.get("by").unwrap_or(&Value::Null);
            if decision.get("verdict").and_then(Value::as_str) == Some("reject") {
                self.standing.retain(|earlier| !by_same(by, earlier));
            }
            self.standing.push(decision);
        } else if let Some(by) = field("withdrawn/by") {
            self.standing.retain(|earlier| !by_same(by, earlier));
        } else if let Some(new) = field("adopted/fingerprint") {
            self.fingerprint = new;
        } else if let Some(new) = field("discovered/fingerprint").or(field("changed/fingerprint")) {
            self.standing.clear();
            self.fingerprint = new;
        } else if let Some(void) = field("rule_changed/void").or(field("sent_back/void")).and_then(Value::as_array) {
            if !self.is_open {
                self.standing.clear();
            }
            let is_voided = |decision: &&Value| {
                let by = decision.pointer("/by/principal");
                void.iter().any(|approver| is_same_user(approver.get("principal"), by))
            };
            self.standing.retain(|decision| !is_voided(decision));
        } else if field("corrected").is_some() {
            if is_pending {
                let restored = field("corrected/approvals").and_then(Value::as_array).map(Vec::as_slice);
                let restored = restored.unwrap_or_default();
                // Only decisions of earlier entries can count again.
                let said =
                    |decision: &&Value| earlier.iter().any(|entry| entry.pointer("/what/decided") == Some(*decision));
                if !restored.iter().all(|decision| said(&decision)) {
                    return false;
                }
                self.standing = restored.iter().collect();
            }
        } else if self.is_pending && !is_pending {
            // The request ended or was accepted without a decision of ours.
            self.standing.clear();
        }
        true
    }

    fn may_lead_to(&self, entry: &Value, state: &Value) -> bool {
        let field = |path: &str| entry.pointer(&format!("/what/{path}"));
        let text = |path: &str| field(path).and_then(Value::as_str).unwrap_or_default();
        let is = |names: &[&str]| names.contains(&state_name(state));
        let approvals = self.standing.iter().filter(|it| it.get("verdict").and_then(Value::as_str) == Some("approve"));
        let complete = u64::try_from(approvals.count()).unwrap_or(u64::MAX) >= self.needed_approvals;
        match entry_kind(entry) {
            "discovered" | "withdrawn" | "sent_back" => is(&["pending"]),
            // Earlier versions also applied changes to deleted connections.
            "changed" => is(&["pending", "failed", "deleted"]),
            "rule_changed" => is(&["pending"]) || complete && is(&["approved"]),
            "decided" if text("decided/verdict") == "reject" => is(&["rejecting"]),
            "decided" => is(&[if complete { "approved" } else { "pending" }]),
            "acknowledged" if text("acknowledged/operation") == Verdict::Reject.operation() => is(&["rejected"]),
            "acknowledged" => is(&["activating"]),
            "seen" => match text("seen") {
                "Rejected" => is(&["rejected"]),
                "Expired" => is(&["expired"]),
                "Deleting" | "Deleted" => is(&["deleted"]),
                "Updating" => is(&["activating"]),
                "Activated" => is(&["activating", "activated"]),
                _ => false,
            },
            "missing" => is(&["deleted"]),
            "failed" => state.pointer("/failed/code") == field("failed/code"),
            "corrected" => is(&["pending", "approved", "rejecting", "activating"]),
            "differs" | "told" => state == self.state,
            "drifted" | "drift_ended" => is(&["activated"]) && state == self.state,
            "adopted" => is(&["activated"]),
            "drift_acknowledged" => is(&["activated"]) && state == self.state && self.is_acknowledged_by_enough(entry),
            // An event of a newer version.
            _ => true,
        }
    }

    /// Whether enough people have acknowledged a drift, if the entry says so.
    fn is_acknowledged_by_enough(&self, entry: &Value) -> bool {
        let field = |path: &str| entry.pointer(&format!("/what/drift_acknowledged/{path}"));
        let given = u64::try_from(self.acknowledged.len()).unwrap_or(u64::MAX);
        field("facts").is_none() || field("needed").and_then(Value::as_u64).is_some_and(|needed| given >= needed)
    }

    /// The token of the decision that counts. `None` if this generation is not decided.
    fn expected_token(&self, id: &str, record: &Value) -> Option<String> {
        let winner = self.standing.last().filter(|_| self.is_decided)?;
        // Use the principal of the record: its organization may have been configured after the decision.
        let winner = record.get("decisions").and_then(Value::as_array)?.last().unwrap_or(winner);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(ToOwned::to_owned);
        let by = Principal::try_from(text(winner.pointer("/by/principal"))?);
        // Text that is not a valid principal belongs to a rule.
        let by = by.unwrap_or_else(|_| super::Approver::peergate(id.split('/').next().unwrap_or_default()).principal);
        let account = record.pointer("/facts/accepter/account").or(record.pointer("/connection/accepter/account"));
        let account = AccountId::try_from(text(account)?).ok()?;
        let instance_id = InstanceId::parse(id.split_once('/')?.1).ok()?;
        let rejects = winner.get("verdict").and_then(Value::as_str) == Some("reject");
        let verdict = if rejects { Verdict::Reject } else { Verdict::Approve };
        let generation = u32::try_from(self.generation).ok()?;
        let token = ClientToken::derive(&by, account, &instance_id, verdict, TokenPurpose::Decided { generation });
        Some(token.as_str().to_owned())
    }
}

/// Whether two principals are the same user of a platform.
fn is_same_user(one: Option<&Value>, other: Option<&Value>) -> bool {
    let principal = |value: Option<&Value>| Principal::try_from(value?.as_str()?.to_owned()).ok();
    one == other || principal(one).zip(principal(other)).is_some_and(|(one, other)| one.is_same_user(&other))
}

/// Name of a state. A failure is an object, because it has a code.
fn state_name(state: &Value) -> &str {
    state.as_str().unwrap_or(if state.is_object() { "failed" } else { "" })
}

/// Kind of an entry: a word, or the only key of an object.
fn entry_kind(entry: &Value) -> &str {
    let event = entry.get("what").unwrap_or(&Value::Null);
    let key = event.as_object().and_then(|fields| fields.keys().next()).map(String::as_str);
    event.as_str().or(key).unwrap_or_default()
}

fn is_final_state(state: &Value) -> bool {
    ["activated", "rejected", "expired", "deleted", "failed"].contains(&state_name(state))
}

//! Everything that happened to a record, each entry bound to all before it by a hash: who edits one breaks the chain.

use std::ops::Deref;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ApprovalState, Approver, Decision, DecisionError};
use crate::peering::{Change, FieldHash, Fingerprint, Problem, Status};
use crate::preflight::Objection;

/// The entries of a record. Only ever grows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<AuditEntry>);

impl Deref for History {
    type Target = [AuditEntry];

    fn deref(&self) -> &[AuditEntry] {
        &self.0
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(rename = "what")]
    pub event: AuditEvent,
    /// The state that it led to.
    pub state: ApprovalState,
    /// SHA-256, in hex, over the entry before (the record's id for the first) and this one.
    pub hash: String,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditEvent {
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
        /// Of what it said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request_content: Option<String>,
    },
    /// Alibaba Cloud acknowledged a call.
    Acknowledged {
        /// e.g. `AcceptVpcPeerConnection`.
        operation: String,
        /// Of the call.
        request_id: String,
    },
    /// The connection was seen in a status that led to another state.
    #[serde(rename = "seen")]
    Observed(Status),
    /// The connection does not exist any more.
    Missing,
    /// It was activated, but not with the facts that were decided on.
    #[serde(rename = "differs")]
    FactsDiffer {
        /// What is not as it was.
        changes: Vec<Change>,
    },
    /// It will never work.
    Failed(Problem),
    /// People were told that it waits, or takes long.
    #[serde(rename = "told")]
    Reminded(Reminder),
    /// An approved request did not pass the review before the accept and needs a new decision.
    SentBack {
        /// Why.
        why: SendBackReason,
        /// The generation that begins.
        generation: u32,
        /// Which rule is about it now.
        rule: Option<String>,
        /// How many people have to approve now.
        approvals: u32,
        /// Whose approvals are void.
        void: Vec<Approver>,
    },
    /// The connection was seen alive, although the record said otherwise.
    Corrected {
        /// What the record said.
        was: ApprovalState,
        /// The generation that goes on or begins.
        generation: u32,
        /// The approvals that count again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        approvals: Vec<Decision>,
    },
}

/// Why an approved request needs a new decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendBackReason {
    /// A check fails.
    Objection(Objection),
    /// A rule without people decided, and not every check that it needs could be made now.
    NotChecked,
    /// The rules ask for more people, or for others.
    #[serde(rename = "rule")]
    RuleNotMet,
}

impl AuditEvent {
    /// Of somebody's request: its id, and the hash of what it said, where that is known.
    #[must_use]
    pub fn request(&self) -> Option<(&str, Option<&String>)> {
        match self {
            Self::Decided(decision) => Some((&decision.request_key, decision.request_content.as_ref())),
            Self::Withdrawn { request_key, request_content, .. } => Some((request_key, request_content.as_ref())),
            Self::Discovered { .. }
            | Self::Changed { .. }
            | Self::RuleChanged { .. }
            | Self::Acknowledged { .. }
            | Self::Observed(_)
            | Self::Missing
            | Self::FactsDiffer { .. }
            | Self::Failed(_)
            | Self::Reminded(_)
            | Self::SentBack { .. }
            | Self::Corrected { .. } => None,
        }
    }

    /// Of the facts that it is about, if it is about some.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Self::Discovered { fingerprint, .. } | Self::Changed { fingerprint, .. } => Some(fingerprint),
            Self::Decided(decision) => Some(&decision.fingerprint),
            Self::RuleChanged { .. }
            | Self::Withdrawn { .. }
            | Self::Acknowledged { .. }
            | Self::Observed(_)
            | Self::Missing
            | Self::FactsDiffer { .. }
            | Self::Failed(_)
            | Self::Reminded(_)
            | Self::SentBack { .. }
            | Self::Corrected { .. } => None,
        }
    }
}

/// What people are told without anything having happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reminder {
    /// It still waits.
    #[serde(rename = "reminder")]
    StillWaiting,
    /// It waits so long that others are told, too.
    Escalation,
    /// It will expire soon.
    ExpiresSoon,
    /// Its activation takes too long.
    Stuck,
}

impl History {
    pub(super) fn append_entry(&mut self, id: &str, at: Timestamp, event: AuditEvent, state: &ApprovalState) {
        let before = self.0.last().map_or(id, |entry| entry.hash.as_str());
        let mut entry = AuditEntry { at, event, state: state.clone(), hash: String::new() };
        entry.hash = entry_hash(before, &serde_json::to_value(&entry).unwrap_or_default());
        self.0.push(entry);
    }

    /// The entries of a generation.
    pub(super) fn entries_of_generation(&self, wanted: u32) -> impl Iterator<Item = &AuditEntry> {
        let (mut generation, mut before) = (1_u32, ApprovalState::Pending);
        self.0.iter().filter(move |entry| {
            let begins = match (&entry.event, &before) {
                (AuditEvent::SentBack { generation, .. } | AuditEvent::Corrected { generation, .. }, _) => {
                    Some(*generation)
                }
                (
                    AuditEvent::Decided(_) | AuditEvent::RuleChanged { .. } | AuditEvent::Discovered { .. },
                    ApprovalState::Failed { .. } | ApprovalState::Deleted,
                )
                | (AuditEvent::Changed { .. }, ApprovalState::Approved) => Some(generation.saturating_add(1)),
                _ => None,
            };
            generation = begins.unwrap_or(generation);
            before.clone_from(&entry.state);
            generation == wanted
        })
    }

    /// How a request that was counted has lost its effect.
    #[must_use]
    pub(super) fn void_reason(&self, request_key: &str) -> DecisionError {
        let is_it = |entry: &&AuditEntry| matches!(&entry.event, AuditEvent::Decided(decision) if decision.request_key == request_key);
        let mut by = None;
        for entry in self.0.iter().skip_while(|entry| !is_it(entry)) {
            match &entry.event {
                AuditEvent::Decided(decision) if decision.request_key == request_key => by = Some(&decision.by),
                AuditEvent::Changed { .. } => return DecisionError::FactsChanged,
                AuditEvent::Withdrawn { by: theirs, .. }
                    if by.is_some_and(|by| by.principal.is_same_user(&theirs.principal)) =>
                {
                    return DecisionError::Repeated;
                }
                AuditEvent::Discovered { .. }
                | AuditEvent::RuleChanged { .. }
                | AuditEvent::Decided(_)
                | AuditEvent::Withdrawn { .. }
                | AuditEvent::Acknowledged { .. }
                | AuditEvent::Observed(_)
                | AuditEvent::Missing
                | AuditEvent::FactsDiffer { .. }
                | AuditEvent::Failed(_)
                | AuditEvent::Reminded(_)
                | AuditEvent::SentBack { .. }
                | AuditEvent::Corrected { .. } => {}
            }
        }
        DecisionError::Voided
    }

    /// The approvals that counted when the request stopped waiting without a decision of ours: a correction restores them.
    #[must_use]
    pub(super) fn restorable_approvals(&self) -> Vec<Decision> {
        let (mut standing, mut set_aside): (Vec<&Decision>, Vec<&Decision>) = (vec![], vec![]);
        let (mut was_pending, mut was_final) = (true, false);
        for entry in &self.0 {
            let pending = entry.state == ApprovalState::Pending;
            if was_final && matches!(entry.event, AuditEvent::Decided(_) | AuditEvent::RuleChanged { .. }) {
                // A decision begins a new generation.
                standing.clear();
            }
            match &entry.event {
                AuditEvent::Decided(decision) => standing.push(decision),
                AuditEvent::Withdrawn { by, .. } => standing.retain(|decision| {
                    !decision.by.is_same_person(by) && !decision.by.principal.is_same_user(&by.principal)
                }),
                AuditEvent::Discovered { .. } | AuditEvent::Changed { .. } => standing.clear(),
                AuditEvent::RuleChanged { void, .. } | AuditEvent::SentBack { void, .. } => {
                    standing
                        .retain(|decision| !void.iter().any(|by| by.principal.is_same_user(&decision.by.principal)));
                }
                AuditEvent::Corrected { approvals, .. } if pending => standing = approvals.iter().collect(),
                AuditEvent::Corrected { .. }
                | AuditEvent::Acknowledged { .. }
                | AuditEvent::Observed(_)
                | AuditEvent::Missing
                | AuditEvent::FactsDiffer { .. }
                | AuditEvent::Failed(_)
                | AuditEvent::Reminded(_) => {
                    if was_pending && !pending {
                        set_aside = std::mem::take(&mut standing);
                    }
                }
            }
            (was_pending, was_final) = (pending, entry.state.is_final());
        }
        set_aside.into_iter().cloned().collect()
    }
}

/// Over JSON with sorted keys and without the hash itself.
pub(super) fn entry_hash(before: &str, entry: &Value) -> String {
    let mut entry = entry.clone();
    if let Some(fields) = entry.as_object_mut() {
        fields.remove("hash");
    }
    entry.sort_all_objects();
    let mut hash = FieldHash::new("peergate/history/1");
    hash.add_field(before);
    hash.add_field(&entry.to_string());
    hash.into_hex()
}

//! The audit log of a record. A hash binds each entry to all earlier ones, so that an edited entry breaks the chain.

use std::ops::Deref;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ApprovalState, Approver, Decision, DecisionError, RequestId};
use crate::peering::{Change, FieldHash, Fingerprint, Problem, Status};
use crate::preflight::Objection;

/// The entries of a record, oldest first. The list only grows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<AuditEntry>);

impl Deref for History {
    type Target = [AuditEntry];

    fn deref(&self) -> &[AuditEntry] {
        &self.0
    }
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(rename = "what")]
    pub event: AuditEvent,
    /// State of the record after the event.
    pub state: ApprovalState,
    /// SHA-256, 64 hexadecimal digits, over this entry and the hash before it. The first entry uses the record's id in
    /// place of that hash.
    pub hash: String,
}

/// What happened. The hash covers the serialized names, so they must not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditEvent {
    /// peergate discovered the request.
    Discovered {
        /// Fingerprint of its facts.
        fingerprint: Fingerprint,
        /// Name of the matching rule. `None` if no rule matches.
        rule: Option<String>,
        /// How many people must approve.
        approvals: u32,
    },
    /// The facts changed. Earlier approvals no longer count.
    Changed {
        /// Fingerprint of the new facts.
        fingerprint: Fingerprint,
        /// Differences from the old facts.
        changes: Vec<Change>,
        /// People whose approvals are void.
        void: Vec<Approver>,
    },
    /// The configuration changed: another rule matches, the rule requires another number of approvals, or approvals
    /// have become void.
    RuleChanged {
        /// Name of the rule that matches now. `None` if no rule matches.
        rule: Option<String>,
        /// How many people must approve now.
        approvals: u32,
        /// People whose approvals are void, because they may no longer approve.
        void: Vec<Approver>,
    },
    /// Somebody approved or rejected.
    Decided(Decision),
    /// Somebody withdrew an approval.
    Withdrawn {
        /// Who withdrew it.
        by: Approver,
        /// Id of the request that withdrew it.
        request_key: String,
        /// Hash of that request's content. `None` in records of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request_content: Option<String>,
    },
    /// Alibaba Cloud acknowledged a call.
    Acknowledged {
        /// Name of the API operation, e.g. `AcceptVpcPeerConnection`.
        operation: String,
        /// Alibaba Cloud's id of the call.
        request_id: String,
    },
    /// A reading had a status that led to another state.
    #[serde(rename = "seen")]
    Observed(Status),
    /// The connection no longer exists.
    Missing,
    /// The connection was activated with other facts than those that people decided on.
    #[serde(rename = "differs")]
    FactsDiffer {
        /// Differences from those facts.
        changes: Vec<Change>,
    },
    /// A reading of the activated connection is not as people approved or acknowledged it.
    Drifted {
        /// Fingerprint of what people acknowledge.
        fingerprint: Fingerprint,
        /// Differences from what people approved or acknowledged.
        changes: Vec<Change>,
    },
    /// The connection is again as people approved or acknowledged it.
    DriftEnded,
    /// Somebody acknowledged a drift.
    DriftAcknowledged {
        /// Who, when and why. The fingerprint is that of the drift.
        decision: Decision,
        /// How many people must acknowledge it.
        needed: u32,
        /// Fingerprint of the facts that later readings are compared with. `None` until enough people have acknowledged
        /// the drift.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        facts: Option<Fingerprint>,
    },
    /// An operator took over an active connection that nobody had approved here.
    Adopted {
        /// Fingerprint of the facts that count as approved from then on.
        fingerprint: Fingerprint,
        /// The operator, as the command names them.
        by: String,
        /// Why it may stay.
        reason: String,
    },
    /// The decision cannot be carried out.
    Failed(Problem),
    /// People were reminded.
    #[serde(rename = "told")]
    Reminded(Reminder),
    /// An approved request did not pass the review before the accept. It requires a new decision.
    SentBack {
        /// Which part of the review it did not pass.
        why: SendBackReason,
        /// The generation that begins.
        generation: u32,
        /// Name of the rule that matches now. `None` if no rule matches.
        rule: Option<String>,
        /// How many people must approve now.
        approvals: u32,
        /// People whose approvals are void.
        void: Vec<Approver>,
    },
    /// A reading showed that the record was wrong.
    Corrected {
        /// State of the record before the correction.
        was: ApprovalState,
        /// Generation after the correction.
        generation: u32,
        /// Approvals that count again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        approvals: Vec<Decision>,
    },
}

/// Why an approved request requires a new decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SendBackReason {
    /// A check has an objection.
    Objection(Objection),
    /// The check of the other peerings has a new warning, or the rule accepts by itself and not every check passed.
    NotChecked,
    /// The current rules require more approvals, or other approvers.
    #[serde(rename = "rule")]
    RuleNotMet,
}

impl AuditEvent {
    /// The request that caused the event. `None` if no person caused it.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Decided(decision) | Self::DriftAcknowledged { decision, .. } => Some(RequestId::of(decision)),
            Self::Withdrawn { request_key: key, request_content: content, .. } => {
                Some(RequestId { key: key.clone(), content: content.clone() })
            }
            Self::Discovered { .. }
            | Self::Changed { .. }
            | Self::RuleChanged { .. }
            | Self::Acknowledged { .. }
            | Self::Observed(_)
            | Self::Missing
            | Self::FactsDiffer { .. }
            | Self::Drifted { .. }
            | Self::DriftEnded
            | Self::Adopted { .. }
            | Self::Failed(_)
            | Self::Reminded(_)
            | Self::SentBack { .. }
            | Self::Corrected { .. } => None,
        }
    }

    /// Fingerprint of the facts that the event is about. `None` if it is not about facts.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Self::Discovered { fingerprint, .. }
            | Self::Changed { fingerprint, .. }
            | Self::Drifted { fingerprint, .. }
            | Self::Adopted { fingerprint, .. } => Some(fingerprint),
            Self::Decided(decision) | Self::DriftAcknowledged { decision, .. } => Some(&decision.fingerprint),
            Self::RuleChanged { .. }
            | Self::Withdrawn { .. }
            | Self::Acknowledged { .. }
            | Self::Observed(_)
            | Self::Missing
            | Self::FactsDiffer { .. }
            | Self::DriftEnded
            | Self::Failed(_)
            | Self::Reminded(_)
            | Self::SentBack { .. }
            | Self::Corrected { .. } => None,
        }
    }
}

/// Why people are reminded although nothing has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reminder {
    /// The request is still pending.
    #[serde(rename = "reminder")]
    StillWaiting,
    /// The request has been pending for so long that other channels hear of it.
    Escalation,
    /// The request expires soon.
    ExpiresSoon,
    /// The call or the activation takes too long.
    Stuck,
}

impl History {
    pub(super) fn append_entry(&mut self, id: &str, at: Timestamp, event: AuditEvent, state: &ApprovalState) {
        let before = self.0.last().map_or(id, |entry| entry.hash.as_str());
        let mut entry = AuditEntry { at, event, state: state.clone(), hash: String::new() };
        entry.hash = entry_hash(before, &serde_json::to_value(&entry).unwrap_or_default());
        self.0.push(entry);
    }

    /// The entries of the generation `wanted`.
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

    /// Why a decision that counted once no longer counts.
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
                | AuditEvent::Drifted { .. }
                | AuditEvent::DriftEnded
                | AuditEvent::DriftAcknowledged { .. }
                | AuditEvent::Adopted { .. }
                | AuditEvent::Failed(_)
                | AuditEvent::Reminded(_)
                | AuditEvent::SentBack { .. }
                | AuditEvent::Corrected { .. } => {}
            }
        }
        DecisionError::Voided
    }

    /// The approvals that counted when the request ended or was accepted without a decision of ours. A correction
    /// restores them.
    #[must_use]
    pub(super) fn restorable_approvals(&self) -> Vec<Decision> {
        let (mut standing, mut set_aside): (Vec<&Decision>, Vec<&Decision>) = (vec![], vec![]);
        let (mut was_pending, mut was_final) = (true, false);
        for entry in &self.0 {
            let pending = entry.state == ApprovalState::Pending;
            if was_final && matches!(entry.event, AuditEvent::Decided(_) | AuditEvent::RuleChanged { .. }) {
                // A decision after the end begins a new generation.
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
                | AuditEvent::Drifted { .. }
                | AuditEvent::DriftEnded
                | AuditEvent::DriftAcknowledged { .. }
                | AuditEvent::Adopted { .. }
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

/// Hashes an entry as JSON, with sorted keys and without its own hash. `before` is the previous hash, or the record's
/// id.
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

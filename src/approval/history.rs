//! Everything that happened to a record, each entry bound to all before it by a hash: who edits one breaks the chain.

use std::ops::Deref;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Approver, Closed, Decision, State};
use crate::peering::{Change, FieldHash, Fingerprint, Problem, Status};
use crate::preflight::Objection;

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
    /// An approved request did not pass the review before the accept and needs a new decision.
    SentBack {
        /// Why.
        why: SentBack,
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
        was: State,
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
pub enum SentBack {
    /// A check fails.
    Objection(Objection),
    /// A rule without people decided, and not every check that it needs could be made now.
    NotChecked,
    /// The rules ask for more people, or for others.
    Rule,
}

impl What {
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
            | Self::Seen(_)
            | Self::Missing
            | Self::Differs { .. }
            | Self::Failed(_)
            | Self::Told(_)
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
            | Self::Seen(_)
            | Self::Missing
            | Self::Differs { .. }
            | Self::Failed(_)
            | Self::Told(_)
            | Self::SentBack { .. }
            | Self::Corrected { .. } => None,
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

impl History {
    pub(super) fn push(&mut self, id: &str, at: Timestamp, what: What, state: &State) {
        let before = self.0.last().map_or(id, |entry| entry.hash.as_str());
        let mut entry = Entry { at, what, state: state.clone(), hash: String::new() };
        entry.hash = hash(before, &serde_json::to_value(&entry).unwrap_or_default());
        self.0.push(entry);
    }

    /// The entries of a generation.
    pub(super) fn of_generation(&self, wanted: u32) -> impl Iterator<Item = &Entry> {
        let (mut generation, mut before) = (1_u32, State::Pending);
        self.0.iter().filter(move |entry| {
            let begins = match (&entry.what, &before) {
                (What::SentBack { generation, .. } | What::Corrected { generation, .. }, _) => Some(*generation),
                (
                    What::Decided(_) | What::RuleChanged { .. } | What::Discovered { .. },
                    State::Failed { .. } | State::Deleted,
                )
                | (What::Changed { .. }, State::Approved) => Some(generation.saturating_add(1)),
                _ => None,
            };
            generation = begins.unwrap_or(generation);
            before.clone_from(&entry.state);
            generation == wanted
        })
    }

    /// How a request that was counted has lost its effect.
    #[must_use]
    pub(super) fn how_void(&self, request_key: &str) -> Closed {
        let is_it =
            |entry: &&Entry| matches!(&entry.what, What::Decided(decision) if decision.request_key == request_key);
        let mut by = None;
        for entry in self.0.iter().skip_while(|entry| !is_it(entry)) {
            match &entry.what {
                What::Decided(decision) if decision.request_key == request_key => by = Some(&decision.by),
                What::Changed { .. } => return Closed::Changed,
                What::Withdrawn { by: theirs, .. }
                    if by.is_some_and(|by| by.principal.is_same_user(&theirs.principal)) =>
                {
                    return Closed::Repeated;
                }
                What::Discovered { .. }
                | What::RuleChanged { .. }
                | What::Decided(_)
                | What::Withdrawn { .. }
                | What::Acknowledged { .. }
                | What::Seen(_)
                | What::Missing
                | What::Differs { .. }
                | What::Failed(_)
                | What::Told(_)
                | What::SentBack { .. }
                | What::Corrected { .. } => {}
            }
        }
        Closed::Void
    }

    /// The approvals that counted when the request stopped waiting without a decision of ours: a correction restores them.
    #[must_use]
    pub(super) fn approvals_set_aside(&self) -> Vec<Decision> {
        let (mut standing, mut set_aside): (Vec<&Decision>, Vec<&Decision>) = (vec![], vec![]);
        let (mut was_pending, mut was_final) = (true, false);
        for entry in &self.0 {
            let pending = entry.state == State::Pending;
            if was_final && matches!(entry.what, What::Decided(_) | What::RuleChanged { .. }) {
                // A decision begins a new generation.
                standing.clear();
            }
            match &entry.what {
                What::Decided(decision) => standing.push(decision),
                What::Withdrawn { by, .. } => standing
                    .retain(|decision| !decision.by.is(by) && !decision.by.principal.is_same_user(&by.principal)),
                What::Discovered { .. } | What::Changed { .. } => standing.clear(),
                What::RuleChanged { void, .. } | What::SentBack { void, .. } => {
                    standing
                        .retain(|decision| !void.iter().any(|by| by.principal.is_same_user(&decision.by.principal)));
                }
                What::Corrected { approvals, .. } if pending => standing = approvals.iter().collect(),
                What::Corrected { .. }
                | What::Acknowledged { .. }
                | What::Seen(_)
                | What::Missing
                | What::Differs { .. }
                | What::Failed(_)
                | What::Told(_) => {
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
pub(super) fn hash(before: &str, entry: &Value) -> String {
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

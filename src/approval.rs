//! The durable record of one connection: its state, who decided, what is due next, and which notifications are pending.
//!
//! Pure: every change is a function of the record, an [`Event`] or a [`Decision`], and the time. Only a new decision,
//! or a reading that proves it wrong, leads out of a final state. Each change adds its notification to the outbox and
//! its entry to the history in the same step, so that one write stores all of it.

mod away;
mod call;
mod card;
mod correction;
mod decision;
mod event;
mod history;
mod index_state;
mod inventory;
mod limits;
mod migrate;
mod notification;
mod outbox;
mod people;
mod policy_snapshot;
mod progress;
mod requester;
mod review;
mod schedule;
mod state;
mod unconfirmed;
mod upkeep;
mod verify;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::peering::{Connection, Facts, Fingerprint, Problem};
use crate::preflight::Finding;

pub use call::CallResult;
use call::OwnCall;
pub use card::{CardId, CardKey, CardRef, InvalidCardId, InvalidCardKey, ShownFacts};
pub use decision::{Approver, ClientToken, Decision, InvalidPrincipal, Principal, TokenPurpose, Verdict, hash_request};
pub use event::{ChannelDisplay, Event};
pub use history::{AuditEntry, AuditEvent, History, Reminder, SendBackReason};
pub use index_state::{ActiveDigest, ContentDigest, IndexState};
pub use inventory::{Attention, InventoryLine, InventoryOrigin, InventoryRole};
pub use limits::{RefusedRequest, RequestId};
pub use migrate::migrate;
pub use notification::{Notification, NotificationKind};
pub use outbox::{Claim, Delivery, DeliveryKey, FailedPost, NextDelivery, Outbox, RetryPolicy};
pub use policy_snapshot::PolicySnapshot;
use policy_snapshot::ReminderState;
use progress::acknowledged_event;
use review::LateReview;
pub use review::Review;
pub use schedule::activation_recheck_at;
use schedule::{MAX_RETRY_AFTER, OBJECTION_RECHECK_INTERVAL, backoff};
pub use state::{ApprovalId, ApprovalState, failure_code};
pub use unconfirmed::{TransientReading, UnconfirmedReading};
use upkeep::Upkeep;
pub use upkeep::{Drift, FollowedReading, changes_for_requester};
pub use verify::HistoryMismatch;

/// The record of one connection. The store keeps it as one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    id: ApprovalId,
    generation: u32,
    state: ApprovalState,
    since: Timestamp,
    connection: Connection,
    facts: Facts,
    fingerprint: Fingerprint,
    #[serde(rename = "terms")]
    policy: PolicySnapshot,
    findings: Vec<Finding>,
    decisions: Vec<Decision>,
    client_token: Option<ClientToken>,
    attempts: u32,
    next_step_at: Option<Timestamp>,
    last_problem: Option<Problem>,
    /// Which reminders were sent in this state.
    #[serde(rename = "told")]
    reminder_state: ReminderState,
    cards: BTreeMap<String, CardRef>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    shown: BTreeMap<String, ShownFacts>,
    #[serde(rename = "doubt", default, skip_serializing_if = "Option::is_none")]
    unconfirmed: Option<UnconfirmedReading>,
    /// The accept or reject calls that peergate made last. They may belong to an earlier generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    own_call: Option<OwnCall>,
    #[serde(default, skip_serializing_if = "Upkeep::is_empty")]
    upkeep: Upkeep,
    /// Channels that heard of the request as the requester's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    requester_channels: BTreeSet<String>,
    /// Requests that stay refused on every retry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused: Vec<RefusedRequest>,
    outbox: Outbox,
    history: History,
}

/// Why a decision or a withdrawal does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// The same person made the same decision before.
    #[error("the same person has already made this decision")]
    Repeated,
    /// The request is decided or has ended. The record says how.
    #[error("the request is already decided or has ended")]
    AlreadyDecided,
    /// The connection has other facts than the sender saw.
    #[error("the connection has changed")]
    FactsChanged,
    /// The person has no approval to withdraw.
    #[error("nothing to withdraw")]
    NothingToWithdraw,
    /// The connection is as people approved it, or it is not activated.
    #[error("nothing to acknowledge")]
    NothingToAcknowledge,
    /// Another request with other content has the same id.
    #[error("another request has the same id")]
    IdReused,
    /// The decision has counted, but a change of the rules or the checks has voided it.
    #[error("the decision counted but is void now")]
    Voided,
    /// The same request was refused before.
    #[error("the request was refused before")]
    RefusedBefore,
    /// People have written so much into the record that it has no room for more.
    #[error("the record is full")]
    RecordFull,
    /// The person has withdrawn too often in this generation.
    #[error("too many withdrawals")]
    TooManyWithdrawals,
}

/// Getters. Only decisions and events change a record.
impl Approval {
    /// Key of the record in the store.
    #[must_use]
    pub fn id(&self) -> &ApprovalId {
        &self.id
    }

    /// Starts at 1. A new generation begins when a decision must not share the client token of an earlier one: after a
    /// failure, after an approved request changed its facts, when a request is sent back, and when an acknowledged call
    /// had no effect.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Progress of the request, from pending to a final state.
    #[must_use]
    pub fn state(&self) -> &ApprovalState {
        &self.state
    }

    /// When the record entered this state.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// The last reading that changed the record.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The facts that people see and decide on.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Fingerprint of `facts`. peergate never accepts a connection with another one. People may acknowledge later facts
    /// of an activated connection.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// What the configuration says about the request: its rule, approvers, channels and times.
    #[must_use]
    pub fn policy(&self) -> &PolicySnapshot {
        &self.policy
    }

    /// Results of the last checks. Empty if they are outdated.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The decisions that count, oldest first, at most one per person.
    #[must_use]
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Sent with every attempt of this generation's call. `None` until the request is decided.
    #[must_use]
    pub fn client_token(&self) -> Option<&ClientToken> {
        self.client_token.as_ref()
    }

    /// How often the next step has failed in a row.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When the next step is due. `None` if no step is left.
    #[must_use]
    pub fn next_step_at(&self) -> Option<Timestamp> {
        self.next_step_at
    }

    /// Why the last attempt failed. `None` if it did not fail.
    #[must_use]
    pub fn last_problem(&self) -> Option<&Problem> {
        self.last_problem.as_ref()
    }

    /// The card of each channel whose platform can edit messages, by channel name.
    #[must_use]
    pub fn cards(&self) -> &BTreeMap<String, CardRef> {
        &self.cards
    }

    /// What the other channels show, by channel name.
    #[must_use]
    pub fn shown(&self) -> &BTreeMap<String, ShownFacts> {
        &self.shown
    }

    /// A reading that another one must confirm.
    #[must_use]
    pub fn unconfirmed(&self) -> Option<&UnconfirmedReading> {
        self.unconfirmed.as_ref()
    }

    /// Notifications for the channels, pending and delivered.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The audit log of the record.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }
}

impl Approval {
    /// Applies an event. Returns whether the record changed.
    pub fn apply_event(&mut self, event: &Event, now: Timestamp) -> bool {
        let before = self.clone();
        match event {
            Event::Accepted { request_id } => {
                if self.state == ApprovalState::Approved {
                    self.finish_call(CallResult::Acknowledged);
                    self.begin_activation(
                        self.winner().cloned(),
                        acknowledged_event(Verdict::Approve, request_id),
                        now,
                    );
                }
            }
            Event::Rejected { request_id } => {
                if self.state == ApprovalState::Rejecting {
                    self.finish_call(CallResult::Acknowledged);
                    let kind = NotificationKind::Rejected(self.winner().cloned());
                    self.finish(ApprovalState::Rejected, kind, acknowledged_event(Verdict::Reject, request_id), now);
                }
            }
            Event::Observed(connection) => self.observe(connection, now),
            Event::Missing => self.observe_missing(AuditEvent::Missing, now),
            Event::Followed(reading) => self.follow(reading, now),
            Event::RoutesRead(report) => self.observe_routes(report, now),
            Event::RoutesUnread(wait) => self.postpone_routes(*wait, now),
            Event::Changed { connection, findings } => self.observe_change(connection, findings, now),
            Event::SentBack { why, connection, policy, findings, void } => {
                if self.state == ApprovalState::Approved {
                    let review = LateReview { connection, policy, findings, void };
                    self.send_back(why, &review, now);
                }
            }
            Event::Failed(problem) => {
                if matches!(self.state, ApprovalState::Approved | ApprovalState::Rejecting) {
                    self.fail(problem.clone(), now);
                }
            }
            Event::FailedUnknown(problem) => self.defer_unknown_failure(problem, now),
            Event::Deferred { problem, retry_after } => self.defer_with_backoff(problem, *retry_after, now),
            Event::CredentialsRefused(problem) => {
                self.defer_for(problem, progress::REFUSED_CREDENTIALS_RETRY_INTERVAL, now);
            }
            Event::Delivered { number, channel, display } => {
                self.outbox.mark_delivered(DeliveryKey { number: *number, channel }, now);
                self.record_display(channel, display, now);
            }
            Event::Undelivered { number, channel, failed, display } => {
                let key = DeliveryKey { number: *number, channel };
                self.outbox.mark_failed(&self.id.to_string(), key, failed, now);
                self.record_display(channel, display, now);
            }
        }
        *self != before
    }

    /// Begins the next generation. Earlier decisions do not count in it.
    fn begin_generation(&mut self, now: Timestamp) {
        self.generation = self.generation.saturating_add(1);
        self.decisions.clear();
        self.client_token = None;
        self.transition_to(ApprovalState::Pending, now);
    }

    fn transition_to(&mut self, state: ApprovalState, now: Timestamp) {
        self.state = state;
        self.since = now;
        self.attempts = 0;
        self.last_problem = None;
        self.unconfirmed = None;
        self.reminder_state.reset();
    }

    fn append_audit_event(&mut self, event: AuditEvent, now: Timestamp) {
        self.history.append_entry(&self.id.to_string(), now, event, &self.state);
    }

    /// Claims the notifications that are due; see [`Outbox::claim_due`].
    pub fn claim_due(
        &mut self,
        now: Timestamp,
        until: Timestamp,
        new_card: impl Fn(&str) -> Option<CardId>,
    ) -> Vec<Claim> {
        self.outbox.claim_due(now, until, new_card)
    }

    /// Postpones a notification; see [`Outbox::postpone_delivery`].
    pub fn postpone_delivery(&mut self, key: DeliveryKey<'_>, until: Timestamp) {
        self.outbox.postpone_delivery(key, until);
    }

    /// Makes failed notifications due now: those of `channel`, or those of all channels. Abandoned ones are due again
    /// only with `include_abandoned`. Returns the number of posts that are due.
    pub fn redrive(&mut self, channel: Option<&str>, include_abandoned: bool, now: Timestamp) -> usize {
        self.outbox.redrive(channel, include_abandoned, now)
    }

    fn enqueue(&mut self, kind: NotificationKind, now: Timestamp) {
        let mut audience = self.policy.channels_to_notify(self.reminder_state.escalated);
        // Every channel that knows of the request hears its end, even if the configuration no longer names the channel.
        audience.extend(self.outbox.informed_channels());
        let audience = self.audience_of(&kind, audience);
        self.outbox.enqueue(kind, &audience, now);
    }
}

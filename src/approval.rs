//! The durable record of one connection: who decided, how far it has come, what is still to be done and to be told.
//!
//! Pure: every change is a function of the record, an [`Event`] or a [`Decision`], and the time. A state that is over
//! is left only by a new decision or a reading that proves it wrong, and each change puts its notice into the outbox
//! and its entry into the history in the same step, so that one write stores all of it.

mod call;
mod card;
mod correction;
mod decision;
mod event;
mod history;
mod index_state;
mod limits;
mod migrate;
mod outbox;
mod people;
mod policy_snapshot;
mod progress;
mod review;
mod schedule;
mod state;
mod unconfirmed;
mod verify;

use std::collections::BTreeMap;

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
pub use index_state::{ContentDigest, IndexState};
pub use limits::{RefusedRequest, RequestId};
pub use migrate::migrate;
pub use outbox::{Claim, Delivery, Notification, NotificationKind, Outbox, RetryPolicy};
pub use policy_snapshot::PolicySnapshot;
use policy_snapshot::ReminderState;
use progress::acknowledged_event;
use review::LateReview;
pub use review::Review;
pub use schedule::activation_recheck_at;
use schedule::{MAX_RETRY_AFTER, OBJECTION_RECHECK_INTERVAL, backoff};
pub use state::{ApprovalId, ApprovalState, failure_code};
pub use unconfirmed::{TransientReading, UnconfirmedReading};
pub use verify::HistoryMismatch;

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Which connection.
    pub id: ApprovalId,
    /// 1, and one more whenever a decision must not share its client token with the last: after a failure, when facts
    /// changed after an approval, when a request is sent back, and when an acknowledged call had no effect.
    pub generation: u32,
    /// How far it has come.
    pub state: ApprovalState,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// The last reading that changed something.
    pub connection: Connection,
    /// What people see and decide on.
    pub facts: Facts,
    /// Of these facts. No other is ever accepted.
    pub fingerprint: Fingerprint,
    /// What the configuration says about it.
    #[serde(rename = "terms")]
    pub policy: PolicySnapshot,
    /// What the checks found last.
    pub findings: Vec<Finding>,
    /// The decisions that count: each person's once, the last one last.
    pub decisions: Vec<Decision>,
    /// Sent with every try of this generation's call; `None` until it is decided.
    pub client_token: Option<ClientToken>,
    /// Failed tries of the next step, in a row.
    pub attempts: u32,
    /// When the next step is due; `None` when none is left.
    pub next_step_at: Option<Timestamp>,
    /// Why the last try failed, if it did.
    pub last_problem: Option<Problem>,
    /// What people were reminded of in this state.
    #[serde(rename = "told")]
    reminder_state: ReminderState,
    /// The card of each channel whose platform lets us change it.
    pub cards: BTreeMap<String, CardRef>,
    /// What other channels were shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shown: BTreeMap<String, ShownFacts>,
    /// A reading that is not believed yet.
    #[serde(rename = "doubt", default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<UnconfirmedReading>,
    /// The calls that peergate made itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    own_call: Option<OwnCall>,
    /// Requests that stay refused on every retry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused: Vec<RefusedRequest>,
    /// What the channels are owed, and were told.
    pub outbox: Outbox,
    /// Everything that happened.
    pub history: History,
}

/// Why a decision does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// The same person said the same before.
    #[error("the same person decided the same before")]
    Repeated,
    /// It was decided, or the connection came to its end; the record says how.
    #[error("already decided, or over")]
    AlreadyDecided,
    /// The connection is not the one that people were shown.
    #[error("the connection has changed")]
    FactsChanged,
    /// There is no approval of theirs to take back.
    #[error("nothing to withdraw")]
    NothingToWithdraw,
    /// Another request had the same id.
    #[error("another request has the same id")]
    IdReused,
    /// It counted, and a change of the rules or the checks has voided it.
    #[error("the decision counted, and does not any more")]
    Voided,
    /// The same request was refused before.
    #[error("the request was refused before")]
    RefusedBefore,
    /// The record has no room for more from people.
    #[error("the record is full")]
    RecordFull,
    /// The same person has withdrawn too often.
    #[error("too many withdrawals")]
    TooManyWithdrawals,
}

impl Approval {
    /// Applies what happened; says whether it changed the record.
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
                self.outbox.mark_delivered(*number, channel, now);
                self.record_display(channel, display, now);
            }
            Event::Undelivered { number, channel, error, retry, display } => {
                self.outbox.mark_failed(&self.id.to_string(), (*number, channel), error, *retry, now);
                self.record_display(channel, display, now);
            }
        }
        *self != before
    }

    /// Begins the next generation: what was decided before counts no more.
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

    /// Has notices that no channel (or not this one) took tried again at once; those that were given up, only if
    /// `given_up`. Returns how many posts that is.
    pub fn redrive(&mut self, channel: Option<&str>, include_abandoned: bool, now: Timestamp) -> usize {
        self.outbox.redrive(channel, include_abandoned, now)
    }

    fn enqueue(&mut self, kind: NotificationKind, now: Timestamp) {
        let mut audience = self.policy.channels_to_notify(self.reminder_state.escalated);
        // Who has heard of it hears the end, whatever the configuration says by then.
        audience.extend(self.outbox.informed_channels());
        self.outbox.enqueue(kind, &audience, now);
    }
}

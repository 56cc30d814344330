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
mod state;
mod unconfirmed;
mod verify;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::peering::{Connection, Facts, FieldHash, Fingerprint, Problem};
use crate::preflight::{self, Finding};

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
pub use state::{ApprovalId, ApprovalState, failure_code};
pub use unconfirmed::{TransientReading, UnconfirmedReading};
pub use verify::HistoryMismatch;

/// What a vendor or platform may make us wait at most.
const MAX_RETRY_AFTER: SignedDuration = SignedDuration::from_mins(15);
/// While an activation is younger than this, the watcher stays and looks every [`LOOK_AGAIN`].
const ACTIVATION_POLLED_FOR: SignedDuration = SignedDuration::from_mins(5);
/// How often a fresh activation is looked at.
const ACTIVATION_POLL_INTERVAL: SignedDuration = SignedDuration::from_millis(2500);
/// What stood against a request may have been mended: it is looked at again after this.
const OBJECTION_RECHECK_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
/// What could not be checked is checked again after this.
const MIN_RECHECK_INTERVAL: SignedDuration = SignedDuration::from_mins(1);
/// If it still could not be after a while, less and less often, up to this.
const MAX_RECHECK_INTERVAL: SignedDuration = SignedDuration::from_hours(1);
/// The least time between two redraws that clicks ask for.
const MIN_REDRAW_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
/// The facts of a request may change so often; then it ends, so that no requester can make us write for ever.
const MAX_FACT_CHANGES: usize = 20;

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

/// The facts that a request is looked at, and decided, on.
pub struct Review<'a> {
    /// Which connection.
    pub id: &'a ApprovalId,
    /// As just read.
    pub connection: &'a Connection,
    /// What the configuration says about it.
    pub policy: &'a PolicySnapshot,
    /// What the checks found.
    pub findings: &'a [Finding],
    /// Who a principal is, if they may approve.
    pub eligible_approver: &'a (dyn Fn(&Principal) -> Option<Approver> + Sync),
}

/// The review of an approved request before a late accept.
struct LateReview<'a> {
    connection: &'a Connection,
    policy: &'a PolicySnapshot,
    findings: &'a [Finding],
    /// Who may not approve any more.
    void: &'a [Approver],
}

impl Approval {
    /// The record of a request that we just heard of, owing its card to the channels.
    #[must_use]
    pub fn discover(review: &Review<'_>, now: Timestamp) -> Self {
        let mut record = Self::discover_for_manual_review(review, now);
        record.accept_by_rule(now);
        record.schedule_next_check(now);
        record
    }

    /// As [`Approval::discover`], but no rule accepts it: the next look does that.
    #[must_use]
    pub fn discover_for_manual_review(review: &Review<'_>, now: Timestamp) -> Self {
        let mut record = Self::new(review, now);
        record.enqueue(NotificationKind::Discovered, now);
        record.schedule_next_check(now);
        record
    }

    /// Looks at a request that waits: takes over what has changed about it, in its facts or in the configuration. One
    /// that was taken for over, and is there, waits again. Says whether anything changed.
    pub fn refresh(&mut self, review: &Review<'_>, now: Timestamp) -> bool {
        let before = self.clone();
        let is_past = |at: Timestamp| at <= now;
        if self.state != ApprovalState::Pending || review.connection.expires_at.is_some_and(is_past) {
            self.observe(review.connection, now);
        }
        if self.state != ApprovalState::Pending {
            return *self != before;
        }
        self.note_reading(review.connection, now);
        if self.fingerprint != review.connection.fingerprint() {
            self.replace_facts(review.connection, review.findings, now);
        }
        if self.state == ApprovalState::Pending {
            self.adopt_review(review, now);
            self.accept_by_rule(now);
        }
        if self.state == ApprovalState::Pending {
            (self.attempts, self.last_problem) = (0, None);
            self.remind_of_request(now);
        }
        let complete = self.approval_count() >= self.policy.needed_approvals()
            && preflight::first_objection(&self.findings).is_none();
        if self.state == ApprovalState::Pending && complete {
            // The rule asks for fewer people than it did: the last one who approved has completed it.
            self.complete_decision(ApprovalState::Approved, now);
            let (rule, approvals) = (self.policy.rule.clone(), self.policy.approvals);
            self.append_audit_event(AuditEvent::RuleChanged { rule, approvals, void: vec![] }, now);
            if let Some(decision) = self.winner().cloned() {
                self.enqueue(
                    NotificationKind::Decided {
                        decision,
                        given: self.approval_count(),
                        needed: self.policy.needed_approvals(),
                    },
                    now,
                );
            }
        }
        self.schedule_next_check(now);
        *self != before
    }

    /// Whether the checks are worth making again although nothing has changed: one objects, or could not be made, or all
    /// passed where that is enough.
    #[must_use]
    pub fn needs_recheck(&self) -> bool {
        self.findings.is_empty()
            || preflight::first_objection(&self.findings).is_some()
            || preflight::is_incomplete(&self.findings)
            || (self.policy.needs_no_approval() && preflight::all_passed(&self.findings))
    }

    /// While people have to decide: until somebody is to be reminded, or a check is worth making again. What changes
    /// meanwhile is seen by whoever follows connections.
    fn schedule_next_check(&mut self, now: Timestamp) {
        if self.state != ApprovalState::Pending {
            return;
        }
        let again_at = if self.findings.is_empty() {
            Some(now)
        } else if preflight::first_objection(&self.findings).is_some() || self.is_past_expiry(now) {
            Some(now + OBJECTION_RECHECK_INTERVAL)
        } else {
            // What could not be checked for long is checked less often.
            let gap = (now.duration_since(self.since) / 8).clamp(MIN_RECHECK_INTERVAL, MAX_RECHECK_INTERVAL);
            self.needs_recheck().then(|| now + gap)
        };
        let expires_at = self.connection.expires_at;
        let is_open = !self.is_past_expiry(now);
        let remind_at = is_open.then(|| self.reminder_state.next_reminder_at(&self.policy, self.since, expires_at));
        let over_at = expires_at.filter(|_| is_open);
        let confirm_at = self.unconfirmed.as_ref().map(UnconfirmedReading::next_reading_at);
        self.next_step_at = [remind_at, over_at, again_at, confirm_at].into_iter().flatten().min();
    }

    /// Whether the time to answer the request has passed, whatever Alibaba Cloud's status says.
    #[must_use]
    pub fn is_past_expiry(&self, now: Timestamp) -> bool {
        self.connection.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

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
                    let news = NotificationKind::Rejected(self.winner().cloned());
                    self.finish(ApprovalState::Rejected, news, acknowledged_event(Verdict::Reject, request_id), now);
                }
            }
            Event::Observed(connection) => self.observe(connection, now),
            Event::Missing => self.observe_missing(AuditEvent::Missing, now),
            Event::Changed { connection, findings } => self.observe_change(connection, findings, now),
            Event::SentBack { why, connection, policy: terms, findings, void } => {
                if self.state == ApprovalState::Approved {
                    let review = LateReview { connection, policy: terms, findings, void };
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

    /// Stores what a channel shows, and since when.
    fn record_display(&mut self, channel: &str, display: &ChannelDisplay, now: Timestamp) {
        match display {
            ChannelDisplay::Unchanged => {}
            ChannelDisplay::Card(card) => {
                let mut card = card.clone();
                let earlier = self.cards.get(channel).filter(|earlier| earlier.reference == card.reference);
                if let Some(earlier) = earlier.filter(|earlier| earlier.fingerprint == card.fingerprint) {
                    card.shown_at = earlier.shown_at;
                }
                self.cards.insert(channel.to_owned(), card);
            }
            ChannelDisplay::Facts(fingerprint) => {
                if self.shown.get(channel).is_none_or(|shown| shown.fingerprint != *fingerprint) {
                    let shown = ShownFacts { fingerprint: fingerprint.clone(), shown_at: now };
                    self.shown.insert(channel.to_owned(), shown);
                }
            }
        }
    }

    /// Has cards redrawn: those of earlier versions, whose buttons decide nothing, or all. All of them at most every five
    /// minutes, since anybody can ask for it. A channel that waits for a notice gets its card with that. Returns whether
    /// the record changed.
    pub fn request_redraw(&mut self, all_cards: bool, now: Timestamp) -> bool {
        let waits = |channel: &String| {
            let delivery = |notice: &Notification| notice.deliveries.get(channel).cloned();
            self.outbox.iter().filter_map(delivery).any(|delivery| matches!(delivery, Delivery::Waiting { .. }))
        };
        let is_recent = |notice: &Notification| now.duration_since(notice.at) < MIN_REDRAW_INTERVAL;
        let was_redrawn =
            self.outbox.iter().any(|notice| notice.kind == NotificationKind::Checked && is_recent(notice));
        let is_due = |(channel, card): (&String, &CardRef)| {
            ((all_cards || card.key.is_none()) && !waits(channel)).then(|| channel.clone())
        };
        let channels: Vec<_> = self.cards.iter().filter_map(is_due).collect();
        if !self.is_open(now) || channels.is_empty() || (all_cards && was_redrawn) {
            return false;
        }
        self.outbox.enqueue(NotificationKind::Checked, &channels, now);
        true
    }

    fn new(review: &Review<'_>, now: Timestamp) -> Self {
        let mut record = Self {
            id: review.id.clone(),
            generation: 1,
            state: ApprovalState::Pending,
            since: now,
            connection: review.connection.clone(),
            facts: review.connection.facts(),
            fingerprint: review.connection.fingerprint(),
            policy: review.policy.clone(),
            findings: review.findings.to_vec(),
            decisions: vec![],
            client_token: None,
            attempts: 0,
            next_step_at: Some(now),
            last_problem: None,
            reminder_state: ReminderState::default(),
            cards: BTreeMap::new(),
            shown: BTreeMap::new(),
            unconfirmed: None,
            own_call: None,
            refused: vec![],
            outbox: Outbox::default(),
            history: History::default(),
        };
        let (rule, approvals) = (record.policy.rule.clone(), record.policy.approvals);
        record.append_audit_event(
            AuditEvent::Discovered { fingerprint: record.fingerprint.clone(), rule, approvals },
            now,
        );
        record
    }

    /// Takes over the reading, the configuration, and what the checks found. Approvals of people who may not approve
    /// any more are void.
    fn adopt_review(&mut self, review: &Review<'_>, now: Timestamp) {
        self.connection = review.connection.clone();
        let others = !preflight::is_same_outcome(&self.findings, review.findings);
        if others {
            self.findings = review.findings.to_vec();
        }
        let told = self.outbox.last().map(|notice| notice.number);
        let mut void = vec![];
        for mut decision in std::mem::take(&mut self.decisions) {
            match (review.eligible_approver)(&decision.by.principal) {
                Some(by) if !self.decisions.iter().any(|earlier| earlier.by.is_same_person(&by)) => {
                    decision.by = by;
                    self.decisions.push(decision);
                }
                Some(_) | None => void.push(decision.by),
            }
        }
        let before = std::mem::replace(&mut self.policy, review.policy.clone());
        let asks_for_else = before.rule != self.policy.rule || before.approvals != self.policy.approvals;
        if asks_for_else || !void.is_empty() {
            let (rule, approvals) = (self.policy.rule.clone(), self.policy.approvals);
            self.append_audit_event(AuditEvent::RuleChanged { rule, approvals, void: void.clone() }, now);
        }
        if asks_for_else || !void.is_empty() || before.channels != self.policy.channels {
            self.enqueue(NotificationKind::RuleChanged { void }, now);
        }
        if others && told.is_some() && told == self.outbox.last().map(|notice| notice.number) {
            self.enqueue(NotificationKind::Checked, now);
        }
    }

    /// The reading has other facts than people saw.
    fn observe_change(&mut self, connection: &Connection, findings: &[Finding], now: Timestamp) {
        if self.state == ApprovalState::Deleted {
            // It is there.
            self.observe(connection, now);
        }
        if self.state == ApprovalState::Pending {
            self.note_reading(connection, now);
        }
        let stale = connection.fingerprint() != self.fingerprint;
        // What was approved all the same fails; all else stays as it ended.
        let bounded = !self.has_changed_too_often() || self.state == ApprovalState::Approved;
        let open = match self.state {
            ApprovalState::Pending
            | ApprovalState::Approved
            | ApprovalState::Failed { .. }
            | ApprovalState::Deleted => true,
            ApprovalState::Activating
            | ApprovalState::Activated
            | ApprovalState::Rejecting
            | ApprovalState::Rejected
            | ApprovalState::Expired => false,
        };
        if !(stale && bounded && open) {
            return;
        }
        if self.state == ApprovalState::Approved && self.may_have_called() && !self.confirm_call_had_no_effect(now) {
            return;
        }
        self.replace_facts(connection, findings, now);
        self.schedule_next_check(now);
    }

    /// The facts are not those that people were shown: nobody has decided about these.
    fn replace_facts(&mut self, connection: &Connection, findings: &[Finding], now: Timestamp) {
        let changes = self.facts.changes_to(&connection.facts());
        let void: Vec<_> = self.decisions.iter().map(|decision| decision.by.clone()).collect();
        self.connection = connection.clone();
        self.facts = connection.facts();
        self.fingerprint = connection.fingerprint();
        self.findings = findings.to_vec();
        if self.state == ApprovalState::Approved {
            self.begin_generation(now);
        }
        self.decisions.clear();
        self.client_token = None;
        let fingerprint = self.fingerprint.clone();
        self.append_audit_event(AuditEvent::Changed { fingerprint, changes: changes.clone(), void: void.clone() }, now);
        if self.has_changed_too_often() {
            self.fail(Problem { code: failure_code::CHANGED_TOO_OFTEN.into(), request_id: None }, now);
        } else {
            self.enqueue(NotificationKind::Changed { changes, void }, now);
        }
    }

    fn has_changed_too_often(&self) -> bool {
        self.history.iter().filter(|entry| matches!(entry.event, AuditEvent::Changed { .. })).count() > MAX_FACT_CHANGES
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

    /// When there is something to do about the record itself: a call, a look, a reminder, a delivery; `None` when all
    /// is done and told.
    #[must_use]
    pub fn work_at(&self) -> Option<Timestamp> {
        self.next_step_at.into_iter().chain(self.outbox.due_at()).min()
    }

    /// When there is something to do, or to see: an activation is to be seen at any time.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        let seen_at = (self.state == ApprovalState::Activating).then_some(self.since);
        self.work_at().into_iter().chain(seen_at).min()
    }

    /// When a watcher that has just worked on it should look again; `None` if its next tick is soon enough.
    #[must_use]
    pub fn recheck_at(&self, now: Timestamp) -> Option<Timestamp> {
        let step = match self.state {
            ApprovalState::Activating => activation_recheck_at(self.since, now),
            ApprovalState::Approved | ApprovalState::Rejecting => self.next_step_at,
            ApprovalState::Pending
            | ApprovalState::Activated
            | ApprovalState::Rejected
            | ApprovalState::Expired
            | ApprovalState::Deleted
            | ApprovalState::Failed { .. } => None,
        };
        step.into_iter().chain(self.outbox.due_at()).min()
    }
}

/// When to see again how far an activation that began at `since` has come; `None` if the next tick is soon enough.
#[must_use]
pub fn activation_recheck_at(since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (now.duration_since(since) < ACTIVATION_POLLED_FOR).then_some(now + ACTIVATION_POLL_INTERVAL)
}

/// 1 s, 2 s, 4 s, … up to `longest`, less up to a quarter that depends on `seed`: what failed together does not come
/// back together.
fn backoff(seed: &str, attempts: u32, max: SignedDuration) -> SignedDuration {
    let full = SignedDuration::from_secs(1_i64 << attempts.min(20)).min(max);
    let mut hash = FieldHash::new("peergate/jitter/1");
    hash.add_field(seed);
    hash.add_field(&attempts.to_string());
    let jitter =
        hash.into_hex().bytes().take(8).fold(0_u32, |sum, digit| sum.wrapping_mul(31).wrapping_add(digit.into()));
    full.mul_f64(1.0 - f64::from(jitter % 1000) / 4000.0)
}

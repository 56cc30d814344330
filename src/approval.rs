//! The durable record of one connection: who decided, how far it has come, what is still to be done and to be told.
//!
//! Pure: every change is a function of the record, an [`Event`] or a [`Decision`], and the time. A state that is over
//! is left only by a new decision or a reading that proves it wrong, and each change puts its notice into the outbox
//! and its entry into the history in the same step, so that one write stores all of it.

mod call;
mod card;
mod correction;
mod deciding;
mod decision;
mod doubt;
mod event;
mod history;
mod limits;
mod migrate;
mod outbox;
mod progress;
mod stage;
mod state;
mod terms;
mod verify;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::peering::{Connection, Facts, FieldHash, Fingerprint, Problem};
use crate::preflight::{self, Finding};

pub use call::CallResult;
use call::OwnCall;
pub use card::{CardId, CardKey, CardRef, InvalidCardId, InvalidCardKey, Shown};
pub use decision::{Approver, Call, ClientToken, Decision, InvalidPrincipal, Principal, Verdict, request_content};
pub use doubt::{Doubt, Doubtful};
pub use event::{Display, Event};
pub use history::{Alarm, Entry, History, SentBack, What};
pub use limits::{RefusedRequest, RequestId};
pub use migrate::migrate;
pub use outbox::{Claim, Delivery, News, Notice, Outbox, Redelivery};
use progress::acknowledged;
pub use stage::{Mark, Stage};
pub use state::{ApprovalId, State, code};
pub use terms::Terms;
use terms::Told;
pub use verify::Broken;

/// What a vendor or platform may make us wait at most.
const LONGEST_RETRY_AFTER: SignedDuration = SignedDuration::from_mins(15);
/// While an activation is younger than this, the watcher stays and looks every [`LOOK_AGAIN`].
const FOLLOWED_CLOSELY: SignedDuration = SignedDuration::from_mins(5);
/// How often a fresh activation is looked at.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_millis(2500);
/// What stood against a request may have been mended: it is looked at again after this.
const LOOK_AT_OBJECTION: SignedDuration = SignedDuration::from_mins(5);
/// What could not be checked is checked again after this.
const LOOK_AT_GAP: SignedDuration = SignedDuration::from_mins(1);
/// If it still could not be after a while, less and less often, up to this.
const LONGEST_LOOK_AT_GAP: SignedDuration = SignedDuration::from_hours(1);
/// The least time between two redraws that clicks ask for.
const BETWEEN_REDRAWS: SignedDuration = SignedDuration::from_mins(5);
/// The facts of a request may change so often; then it ends, so that no requester can make us write for ever.
const MOST_CHANGES: usize = 20;

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Which connection.
    pub id: ApprovalId,
    /// 1, and one more whenever a decision must not share its client token with the last: after a failure, when facts
    /// changed after an approval, when a request is sent back, and when an acknowledged call had no effect.
    pub generation: u32,
    /// How far it has come.
    pub state: State,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// The last reading that changed something.
    pub connection: Connection,
    /// What people see and decide on.
    pub facts: Facts,
    /// Of these facts. No other is ever accepted.
    pub fingerprint: Fingerprint,
    /// What the configuration says about it.
    pub terms: Terms,
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
    told: Told,
    /// The card of each channel whose platform lets us change it.
    pub cards: BTreeMap<String, CardRef>,
    /// What other channels were shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shown: BTreeMap<String, Shown>,
    /// A reading that is not believed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
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
pub enum Closed {
    /// The same person said the same before.
    #[error("the same person decided the same before")]
    Repeated,
    /// It was decided, or the connection came to its end; the record says how.
    #[error("already decided, or over")]
    Over,
    /// The connection is not the one that people were shown.
    #[error("the connection has changed")]
    Changed,
    /// There is no approval of theirs to take back.
    #[error("nothing to withdraw")]
    NothingToWithdraw,
    /// Another request had the same id.
    #[error("another request has the same id")]
    IdReused,
    /// It counted, and a change of the rules or the checks has voided it.
    #[error("the decision counted, and does not any more")]
    Void,
    /// The same request was refused before.
    #[error("the request was refused before")]
    Refused,
    /// The record has no room for more from people.
    #[error("the record is full")]
    Full,
    /// The same person has withdrawn too often.
    #[error("too many withdrawals")]
    TooManyWithdrawals,
}

/// The facts that a request is looked at, and decided, on.
pub struct Grounds<'a> {
    /// Which connection.
    pub id: &'a ApprovalId,
    /// As just read.
    pub connection: &'a Connection,
    /// What the configuration says about it.
    pub terms: &'a Terms,
    /// What the checks found.
    pub findings: &'a [Finding],
    /// Who a principal is, if they may approve.
    pub electorate: &'a (dyn Fn(&Principal) -> Option<Approver> + Sync),
}

/// The review of an approved request before a late accept.
struct Review<'a> {
    connection: &'a Connection,
    terms: &'a Terms,
    findings: &'a [Finding],
    /// Who may not approve any more.
    void: &'a [Approver],
}

impl Approval {
    /// The record of a request that we just heard of, owing its card to the channels.
    #[must_use]
    pub fn discover(grounds: &Grounds<'_>, now: Timestamp) -> Self {
        let mut record = Self::discover_for_people(grounds, now);
        record.accept_by_rule(now);
        record.wait(now);
        record
    }

    /// As [`Approval::discover`], but no rule accepts it: the next look does that.
    #[must_use]
    pub fn discover_for_people(grounds: &Grounds<'_>, now: Timestamp) -> Self {
        let mut record = Self::begin(grounds, now);
        record.tell(News::Discovered, now);
        record.wait(now);
        record
    }

    /// Looks at a request that waits: takes over what has changed about it, in its facts or in the configuration. One
    /// that was taken for over, and is there, waits again. Says whether anything changed.
    pub fn look(&mut self, grounds: &Grounds<'_>, now: Timestamp) -> bool {
        let before = self.clone();
        let is_past = |at: Timestamp| at <= now;
        if self.state != State::Pending || grounds.connection.expires_at.is_some_and(is_past) {
            self.seen(grounds.connection, now);
        }
        if self.state != State::Pending {
            return *self != before;
        }
        self.note_reading(grounds.connection, now);
        if self.fingerprint != grounds.connection.fingerprint() {
            self.change(grounds.connection, grounds.findings, now);
        }
        if self.state == State::Pending {
            self.take(grounds, now);
            self.accept_by_rule(now);
        }
        if self.state == State::Pending {
            (self.attempts, self.last_problem) = (0, None);
            self.remind_of_request(now);
        }
        let complete = self.given() >= self.terms.needed() && preflight::objection(&self.findings).is_none();
        if self.state == State::Pending && complete {
            // The rule asks for fewer people than it did: the last one who approved has completed it.
            self.decided(State::Approved, now);
            let (rule, approvals) = (self.terms.rule.clone(), self.terms.approvals);
            self.log(What::RuleChanged { rule, approvals, void: vec![] }, now);
            if let Some(decision) = self.winner().cloned() {
                self.tell(News::Decided { decision, given: self.given(), needed: self.terms.needed() }, now);
            }
        }
        self.wait(now);
        *self != before
    }

    /// Whether the checks are worth making again although nothing has changed: one objects, or could not be made, or all
    /// passed where that is enough.
    #[must_use]
    pub fn is_worth_a_check(&self) -> bool {
        self.findings.is_empty()
            || preflight::objection(&self.findings).is_some()
            || preflight::is_incomplete(&self.findings)
            || (self.terms.accepts_by_itself() && preflight::all_passed(&self.findings))
    }

    /// While people have to decide: until somebody is to be reminded, or a check is worth making again. What changes
    /// meanwhile is seen by whoever follows connections.
    fn wait(&mut self, now: Timestamp) {
        if self.state != State::Pending {
            return;
        }
        let again_at = if self.findings.is_empty() {
            Some(now)
        } else if preflight::objection(&self.findings).is_some() || self.is_past_expiry(now) {
            Some(now + LOOK_AT_OBJECTION)
        } else {
            // What could not be checked for long is checked less often.
            let gap = (now.duration_since(self.since) / 8).clamp(LOOK_AT_GAP, LONGEST_LOOK_AT_GAP);
            self.is_worth_a_check().then(|| now + gap)
        };
        let expires_at = self.connection.expires_at;
        let is_open = !self.is_past_expiry(now);
        let remind_at = is_open.then(|| self.told.next_at(&self.terms, self.since, expires_at));
        let over_at = expires_at.filter(|_| is_open);
        let confirm_at = self.doubt.as_ref().map(Doubt::next_at);
        self.next_step_at = [remind_at, over_at, again_at, confirm_at].into_iter().flatten().min();
    }

    /// Whether the time to answer the request has passed, whatever Alibaba Cloud's status says.
    #[must_use]
    pub fn is_past_expiry(&self, now: Timestamp) -> bool {
        self.connection.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// Applies what happened; says whether it changed the record.
    pub fn apply(&mut self, event: &Event, now: Timestamp) -> bool {
        let before = self.clone();
        match event {
            Event::Accepted { request_id } => {
                if self.state == State::Approved {
                    self.finish_call(CallResult::Acknowledged);
                    self.accepted(self.winner().cloned(), acknowledged(Verdict::Approve, request_id), now);
                }
            }
            Event::Rejected { request_id } => {
                if self.state == State::Rejecting {
                    self.finish_call(CallResult::Acknowledged);
                    let news = News::Rejected(self.winner().cloned());
                    self.end(State::Rejected, news, acknowledged(Verdict::Reject, request_id), now);
                }
            }
            Event::Seen(connection) => self.seen(connection, now),
            Event::Missing => self.not_there(What::Missing, now),
            Event::Changed { connection, findings } => self.changed(connection, findings, now),
            Event::SentBack { why, connection, terms, findings, void } => {
                if self.state == State::Approved {
                    let review = Review { connection, terms, findings, void };
                    self.send_back(why, &review, now);
                }
            }
            Event::Failed(problem) => {
                if matches!(self.state, State::Approved | State::Rejecting) {
                    self.fail(problem.clone(), now);
                }
            }
            Event::FailedUnknown(problem) => self.defer_unknown(problem, now),
            Event::Deferred { problem, retry_after } => self.defer(problem, *retry_after, now),
            Event::CredentialsRefused(problem) => self.postpone(problem, progress::AFTER_REFUSED_CREDENTIALS, now),
            Event::Delivered { number, channel, display } => {
                self.outbox.delivered(*number, channel, now);
                self.display(channel, display, now);
            }
            Event::Undelivered { number, channel, error, retry, display } => {
                self.outbox.undelivered(&self.id.to_string(), (*number, channel), error, *retry, now);
                self.display(channel, display, now);
            }
        }
        *self != before
    }

    /// Stores what a channel shows, and since when.
    fn display(&mut self, channel: &str, display: &Display, now: Timestamp) {
        match display {
            Display::Unchanged => {}
            Display::Card(card) => {
                let mut card = card.clone();
                let earlier = self.cards.get(channel).filter(|earlier| earlier.reference == card.reference);
                if let Some(earlier) = earlier.filter(|earlier| earlier.fingerprint == card.fingerprint) {
                    card.shown_at = earlier.shown_at;
                }
                self.cards.insert(channel.to_owned(), card);
            }
            Display::Facts(fingerprint) => {
                if self.shown.get(channel).is_none_or(|shown| shown.fingerprint != *fingerprint) {
                    let shown = Shown { fingerprint: fingerprint.clone(), shown_at: now };
                    self.shown.insert(channel.to_owned(), shown);
                }
            }
        }
    }

    /// Has cards redrawn: those of earlier versions, whose buttons decide nothing, or all. All of them at most every five
    /// minutes, since anybody can ask for it. A channel that waits for a notice gets its card with that. Returns whether
    /// the record changed.
    pub fn redraw(&mut self, all: bool, now: Timestamp) -> bool {
        let waits = |channel: &String| {
            let delivery = |notice: &Notice| notice.deliveries.get(channel).cloned();
            self.outbox.iter().filter_map(delivery).any(|delivery| matches!(delivery, Delivery::Waiting { .. }))
        };
        let is_recent = |notice: &Notice| now.duration_since(notice.at) < BETWEEN_REDRAWS;
        let was_redrawn = self.outbox.iter().any(|notice| notice.news == News::Checked && is_recent(notice));
        let is_due = |(channel, card): (&String, &CardRef)| {
            ((all || card.key.is_none()) && !waits(channel)).then(|| channel.clone())
        };
        let channels: Vec<_> = self.cards.iter().filter_map(is_due).collect();
        if !self.is_open(now) || channels.is_empty() || (all && was_redrawn) {
            return false;
        }
        self.outbox.tell(News::Checked, &channels, now);
        true
    }

    fn begin(grounds: &Grounds<'_>, now: Timestamp) -> Self {
        let mut record = Self {
            id: grounds.id.clone(),
            generation: 1,
            state: State::Pending,
            since: now,
            connection: grounds.connection.clone(),
            facts: grounds.connection.facts(),
            fingerprint: grounds.connection.fingerprint(),
            terms: grounds.terms.clone(),
            findings: grounds.findings.to_vec(),
            decisions: vec![],
            client_token: None,
            attempts: 0,
            next_step_at: Some(now),
            last_problem: None,
            told: Told::default(),
            cards: BTreeMap::new(),
            shown: BTreeMap::new(),
            doubt: None,
            own_call: None,
            refused: vec![],
            outbox: Outbox::default(),
            history: History::default(),
        };
        let (rule, approvals) = (record.terms.rule.clone(), record.terms.approvals);
        record.log(What::Discovered { fingerprint: record.fingerprint.clone(), rule, approvals }, now);
        record
    }

    /// Takes over the reading, the configuration, and what the checks found. Approvals of people who may not approve
    /// any more are void.
    fn take(&mut self, grounds: &Grounds<'_>, now: Timestamp) {
        self.connection = grounds.connection.clone();
        let others = !preflight::same(&self.findings, grounds.findings);
        if others {
            self.findings = grounds.findings.to_vec();
        }
        let told = self.outbox.last().map(|notice| notice.number);
        let mut void = vec![];
        for mut decision in std::mem::take(&mut self.decisions) {
            match (grounds.electorate)(&decision.by.principal) {
                Some(by) if !self.decisions.iter().any(|earlier| earlier.by.is(&by)) => {
                    decision.by = by;
                    self.decisions.push(decision);
                }
                Some(_) | None => void.push(decision.by),
            }
        }
        let before = std::mem::replace(&mut self.terms, grounds.terms.clone());
        let asks_for_else = before.rule != self.terms.rule || before.approvals != self.terms.approvals;
        if asks_for_else || !void.is_empty() {
            let (rule, approvals) = (self.terms.rule.clone(), self.terms.approvals);
            self.log(What::RuleChanged { rule, approvals, void: void.clone() }, now);
        }
        if asks_for_else || !void.is_empty() || before.channels != self.terms.channels {
            self.tell(News::RuleChanged { void }, now);
        }
        if others && told.is_some() && told == self.outbox.last().map(|notice| notice.number) {
            self.tell(News::Checked, now);
        }
    }

    /// The reading has other facts than people saw.
    fn changed(&mut self, connection: &Connection, findings: &[Finding], now: Timestamp) {
        if self.state == State::Deleted {
            // It is there.
            self.seen(connection, now);
        }
        if self.state == State::Pending {
            self.note_reading(connection, now);
        }
        let stale = connection.fingerprint() != self.fingerprint;
        // What was approved all the same fails; all else stays as it ended.
        let bounded = !self.has_changed_too_often() || self.state == State::Approved;
        let open = match self.state {
            State::Pending | State::Approved | State::Failed { .. } | State::Deleted => true,
            State::Activating | State::Activated | State::Rejecting | State::Rejected | State::Expired => false,
        };
        if !(stale && bounded && open) {
            return;
        }
        if self.state == State::Approved && self.may_have_called() && !self.call_is_settled(now) {
            return;
        }
        self.change(connection, findings, now);
        self.wait(now);
    }

    /// The facts are not those that people were shown: nobody has decided about these.
    fn change(&mut self, connection: &Connection, findings: &[Finding], now: Timestamp) {
        let changes = self.facts.changes(&connection.facts());
        let void: Vec<_> = self.decisions.iter().map(|decision| decision.by.clone()).collect();
        self.connection = connection.clone();
        self.facts = connection.facts();
        self.fingerprint = connection.fingerprint();
        self.findings = findings.to_vec();
        if self.state == State::Approved {
            self.start_anew(now);
        }
        self.decisions.clear();
        self.client_token = None;
        let fingerprint = self.fingerprint.clone();
        self.log(What::Changed { fingerprint, changes: changes.clone(), void: void.clone() }, now);
        if self.has_changed_too_often() {
            self.fail(Problem { code: code::CHANGED_TOO_OFTEN.into(), request_id: None }, now);
        } else {
            self.tell(News::Changed { changes, void }, now);
        }
    }

    fn has_changed_too_often(&self) -> bool {
        self.history.iter().filter(|entry| matches!(entry.what, What::Changed { .. })).count() > MOST_CHANGES
    }

    /// Begins the next generation: what was decided before counts no more.
    fn start_anew(&mut self, now: Timestamp) {
        self.generation = self.generation.saturating_add(1);
        self.decisions.clear();
        self.client_token = None;
        self.enter(State::Pending, now);
    }

    fn enter(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.since = now;
        self.attempts = 0;
        self.last_problem = None;
        self.doubt = None;
        self.told.start_anew();
    }

    fn log(&mut self, what: What, now: Timestamp) {
        self.history.push(&self.id.to_string(), now, what, &self.state);
    }

    /// Has notices that no channel (or not this one) took tried again at once; those that were given up, only if
    /// `given_up`. Returns how many posts that is.
    pub fn redrive(&mut self, channel: Option<&str>, given_up: bool, now: Timestamp) -> usize {
        self.outbox.redrive(channel, given_up, now)
    }

    fn tell(&mut self, news: News, now: Timestamp) {
        let mut audience = self.terms.audience(self.told.escalated);
        // Who has heard of it hears the end, whatever the configuration says by then.
        audience.extend(self.outbox.channels());
        self.outbox.tell(news, &audience, now);
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
        let seen_at = (self.state == State::Activating).then_some(self.since);
        self.work_at().into_iter().chain(seen_at).min()
    }

    /// When a watcher that has just worked on it should look again; `None` if its next tick is soon enough.
    #[must_use]
    pub fn look_again_at(&self, now: Timestamp) -> Option<Timestamp> {
        let step = match self.state {
            State::Activating => follow_again_at(self.since, now),
            State::Approved | State::Rejecting => self.next_step_at,
            State::Pending
            | State::Activated
            | State::Rejected
            | State::Expired
            | State::Deleted
            | State::Failed { .. } => None,
        };
        step.into_iter().chain(self.outbox.due_at()).min()
    }
}

/// When to see again how far an activation that began at `since` has come; `None` if the next tick is soon enough.
#[must_use]
pub fn follow_again_at(since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (now.duration_since(since) < FOLLOWED_CLOSELY).then_some(now + LOOK_AGAIN)
}

/// 1 s, 2 s, 4 s, … up to `longest`, less up to a quarter that depends on `seed`: what failed together does not come
/// back together.
fn backoff(seed: &str, attempts: u32, longest: SignedDuration) -> SignedDuration {
    let full = SignedDuration::from_secs(1_i64 << attempts.min(20)).min(longest);
    let mut hash = FieldHash::new("peergate/jitter/1");
    hash.field(seed);
    hash.field(&attempts.to_string());
    let jitter = hash.hex().bytes().take(8).fold(0_u32, |sum, digit| sum.wrapping_mul(31).wrapping_add(digit.into()));
    full.mul_f64(1.0 - f64::from(jitter % 1000) / 4000.0)
}

//! The durable record of one connection: who decided, how far it has come, what is still to be done and to be told.
//!
//! Pure: every change is a function of the record, an [`Event`] or a [`Decision`], and the time. A final state stays final,
//! and each change puts its notice into the outbox and its entry into the history in the same step, so that one write
//! stores all of it.

mod decision;
mod event;
mod history;
mod outbox;
mod progress;
mod stage;
mod state;
mod terms;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::peering::{Connection, FieldHash, Fingerprint, Problem};
use crate::preflight::{self, Finding};

pub use decision::{Approver, Call, ClientToken, Decision, InvalidPrincipal, Principal, Verdict};
pub use event::Event;
pub use history::{Alarm, Broken, Entry, History, What};
pub use outbox::{Delivery, News, Notice, Outbox, Redelivery};
use progress::acknowledged;
pub use stage::{Mark, Stage};
pub use state::{ApprovalId, State, code};
pub use terms::Terms;
use terms::Told;

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
/// How long the webhook has the call to itself before the watcher takes it for dead.
const WEBHOOK_LEASE: SignedDuration = SignedDuration::from_secs(8);
/// The facts of a request may change so often; then it ends, so that no requester can make us write for ever.
const MOST_CHANGES: usize = 20;

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Which connection.
    pub id: ApprovalId,
    /// 1, and one more whenever it starts anew: after a failure, or when its facts changed after it was approved.
    pub generation: u32,
    /// How far it has come.
    pub state: State,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// The last reading that changed something.
    pub connection: Connection,
    /// Of what people are shown, and decide on. No other is ever accepted.
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
    /// Where the card is, per channel whose platform lets us change it.
    pub cards: BTreeMap<String, String>,
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

impl Approval {
    /// The record of a request that we just heard of, owing its card to the channels.
    #[must_use]
    pub fn discover(grounds: &Grounds<'_>, now: Timestamp) -> Self {
        let mut record = Self::begin(grounds, now);
        record.tell(News::Discovered, now);
        record.accept_by_rule(now);
        record.wait(now);
        record
    }

    /// Looks at a request that waits: takes over what has changed about it, in its facts or in the configuration. One
    /// that was taken for deleted waits anew. Says whether anything changed.
    pub fn look(&mut self, grounds: &Grounds<'_>, now: Timestamp) -> bool {
        if !matches!(self.state, State::Pending | State::Deleted) {
            return false;
        }
        let before = self.clone();
        if self.state == State::Deleted {
            self.start_anew(now);
            self.fingerprint = grounds.connection.fingerprint();
            let (rule, approvals) = (grounds.terms.rule.clone(), grounds.terms.approvals);
            self.log(What::Discovered { fingerprint: self.fingerprint.clone(), rule, approvals }, now);
            self.tell(News::Discovered, now);
        } else if self.fingerprint != grounds.connection.fingerprint() {
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

    /// The record that `decision` makes of what was there before.
    ///
    /// # Errors
    /// [`Closed`], when the decision does not count any more; the record stays as it is.
    pub fn decide(before: Option<&Self>, grounds: &Grounds<'_>, decision: Decision) -> Result<Self, Closed> {
        let at = decision.at;
        let mut record = match before {
            None => {
                let mut record = Self::begin(grounds, at);
                record.tell(News::Discovered, at);
                record
            }
            Some(record) => {
                record.is_open_to(&decision)?;
                if record.fingerprint != decision.fingerprint {
                    return Err(Closed::Changed);
                }
                record.clone()
            }
        };
        if record.state != State::Pending {
            record.start_anew(at);
        }
        record.take(grounds, at);
        record.is_open_to(&decision)?;
        record.cast(decision);
        record.wait(at);
        Ok(record)
    }

    /// Whether the checks are worth making again although nothing has changed: one objects, or could not be made, or all
    /// passed where that is enough.
    #[must_use]
    pub fn is_worth_a_check(&self) -> bool {
        preflight::objection(&self.findings).is_some()
            || preflight::is_incomplete(&self.findings)
            || (self.terms.accepts_by_itself() && preflight::all_passed(&self.findings))
    }

    /// While people have to decide: until somebody is to be reminded, or a check is worth making again. What changes
    /// meanwhile is seen by whoever follows connections.
    fn wait(&mut self, now: Timestamp) {
        if self.state != State::Pending {
            return;
        }
        let again_at = if preflight::objection(&self.findings).is_some() {
            Some(now + LOOK_AT_OBJECTION)
        } else {
            // What could not be checked for long is checked less often.
            let gap = (now.duration_since(self.since) / 8).clamp(LOOK_AT_GAP, LONGEST_LOOK_AT_GAP);
            self.is_worth_a_check().then(|| now + gap)
        };
        let expires_at = self.connection.expires_at;
        let remind_at = self.told.next_at(&self.terms, self.since, expires_at);
        let over_at = expires_at.filter(|at| *at > now);
        self.next_step_at = [Some(remind_at), over_at, again_at].into_iter().flatten().min();
    }

    /// Whether a decision still counts.
    ///
    /// # Errors
    /// [`Closed`], when it does not.
    pub fn is_open_to(&self, decision: &Decision) -> Result<(), Closed> {
        // Who repeats what others overruled must not take it for done.
        let overruled = self.winner().is_some_and(|winner| winner.verdict != decision.verdict);
        if self.knows_request(&decision.request_key) {
            return Err(if overruled { Closed::Over } else { Closed::Repeated });
        }
        let said_before = |earlier: &Decision| earlier.verdict == decision.verdict && earlier.by.is(&decision.by);
        let said_before = self.decisions.iter().any(said_before);
        match self.state {
            State::Pending if said_before => Err(Closed::Repeated),
            // Whoever decides has just read it: what we took for deleted is there.
            State::Pending | State::Deleted | State::Failed { .. } => Ok(()),
            State::Expired => Err(Closed::Over),
            State::Approved | State::Activating | State::Activated | State::Rejecting | State::Rejected => {
                Err(if said_before && !overruled { Closed::Repeated } else { Closed::Over })
            }
        }
    }

    /// Takes an approval back, while it is not decided.
    ///
    /// # Errors
    /// [`Closed`], when there is nothing to take back any more.
    pub fn withdraw(&mut self, by: &Approver, request_key: &str, now: Timestamp) -> Result<(), Closed> {
        if self.knows_request(request_key) {
            return Err(Closed::Repeated);
        }
        if self.state != State::Pending {
            return Err(Closed::Over);
        }
        let before = self.decisions.len();
        self.decisions.retain(|decision| !decision.by.is(by));
        if self.decisions.len() == before {
            return Err(Closed::NothingToWithdraw);
        }
        self.log(What::Withdrawn { by: by.clone(), request_key: request_key.to_owned() }, now);
        self.tell(News::Withdrawn { by: by.clone(), given: self.given(), needed: self.terms.needed() }, now);
        Ok(())
    }

    /// The decision that counts: the one that completed it.
    #[must_use]
    pub fn winner(&self) -> Option<&Decision> {
        self.decisions.last().filter(|_| self.state != State::Pending)
    }

    /// How many people have approved.
    #[must_use]
    pub fn given(&self) -> u32 {
        let approvals = self.decisions.iter().filter(|decision| decision.verdict == Verdict::Approve);
        u32::try_from(approvals.count()).unwrap_or(u32::MAX)
    }

    /// Whether some channel was shown the facts as they are: if not, nobody can have meant these.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        let last = self.outbox.iter().rev().find(|notice| matches!(notice.news, News::Changed { .. }));
        last.is_none_or(|notice| {
            notice.deliveries.is_empty()
                || notice.deliveries.values().any(|delivery| matches!(delivery, Delivery::Delivered { .. }))
        })
    }

    /// Whether people can decide about it now: its card has buttons.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.terms.rule.is_some()
            && match &self.state {
                State::Pending => true,
                State::Failed { code } => *code != code::ACCEPTED_ELSEWHERE,
                State::Approved
                | State::Activating
                | State::Activated
                | State::Rejecting
                | State::Rejected
                | State::Expired
                | State::Deleted => false,
            }
    }

    /// Applies what happened; says whether it changed the record.
    pub fn apply(&mut self, event: &Event, now: Timestamp) -> bool {
        let before = self.clone();
        match event {
            Event::Accepted { request_id } => {
                if self.state == State::Approved {
                    self.accepted(self.winner().cloned(), acknowledged(Verdict::Approve, request_id), now);
                }
            }
            Event::Rejected { request_id } => {
                if self.state == State::Rejecting {
                    let news = News::Rejected(self.winner().cloned());
                    self.end(State::Rejected, news, acknowledged(Verdict::Reject, request_id), now);
                }
            }
            Event::Seen(connection) => self.seen(connection, now),
            Event::Missing => self.end(State::Deleted, News::Deleted, What::Missing, now),
            Event::Changed { connection, findings } => {
                let stale = connection.fingerprint() != self.fingerprint;
                // What was approved all the same fails; all else stays as it ended.
                let bounded = !self.has_changed_too_often() || self.state == State::Approved;
                let open = match self.state {
                    State::Pending | State::Approved | State::Failed { .. } | State::Deleted => true,
                    State::Activating | State::Activated | State::Rejecting | State::Rejected | State::Expired => false,
                };
                if stale && bounded && open {
                    self.change(connection, findings, now);
                    self.wait(now);
                }
            }
            Event::Failed(problem) => {
                if matches!(self.state, State::Approved | State::Rejecting) {
                    self.fail(problem.clone(), now);
                }
            }
            Event::Deferred { problem, retry_after } => self.defer(problem, *retry_after, now),
            Event::CredentialsRefused(problem) => self.postpone(problem, progress::AFTER_REFUSED_CREDENTIALS, now),
            Event::Carded { channel, reference } => {
                self.cards.insert(channel.clone(), reference.clone());
            }
            Event::Delivered { number, channel } => self.outbox.delivered(*number, channel, now),
            Event::Undelivered { number, channel, error, retry } => {
                self.outbox.undelivered(&self.id.to_string(), (*number, channel), error, *retry, now);
            }
        }
        *self != before
    }

    fn begin(grounds: &Grounds<'_>, now: Timestamp) -> Self {
        let mut record = Self {
            id: grounds.id.clone(),
            generation: 1,
            state: State::Pending,
            since: now,
            connection: grounds.connection.clone(),
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
            outbox: Outbox::default(),
            history: History::default(),
        };
        let (rule, approvals) = (record.terms.rule.clone(), record.terms.approvals);
        record.log(What::Discovered { fingerprint: record.fingerprint.clone(), rule, approvals }, now);
        record
    }

    /// Counts a decision; the one that completes it decides.
    fn cast(&mut self, decision: Decision) {
        let (at, verdict) = (decision.at, decision.verdict);
        if verdict == Verdict::Reject {
            self.decisions.retain(|earlier| !earlier.by.is(&decision.by));
        }
        self.decisions.push(decision.clone());
        let given = self.given();
        let state = match verdict {
            Verdict::Approve if given < self.terms.needed() => None,
            Verdict::Approve => Some(State::Approved),
            Verdict::Reject => Some(State::Rejecting),
        };
        if let Some(state) = state {
            self.decided(state, at);
        }
        self.log(What::Decided(decision.clone()), at);
        self.tell(News::Decided { decision, given, needed: self.terms.needed() }, at);
    }

    fn decided(&mut self, state: State, at: Timestamp) {
        let verdict = if state == State::Rejecting { Verdict::Reject } else { Verdict::Approve };
        self.enter(state, at);
        self.next_step_at = Some(at + WEBHOOK_LEASE);
        let generation = self.generation;
        self.client_token = self.winner().map(|winner| {
            let account = self.connection.accepter.account;
            let call = Call::Decided { generation };
            ClientToken::derive(&winner.by.principal, account, &self.id.instance_id, verdict, call)
        });
    }

    /// Approves it, if its rule needs nobody and nothing at all is odd about it.
    fn accept_by_rule(&mut self, now: Timestamp) {
        if self.terms.accepts_by_itself() && preflight::all_passed(&self.findings) {
            self.cast(Decision {
                verdict: Verdict::Approve,
                by: Approver::peergate(&self.id.target),
                at: now,
                fingerprint: self.fingerprint.clone(),
                reason: None,
                request_key: format!("rule/{}/{}", self.generation, self.fingerprint),
            });
            // Whoever watches does it, at once.
            self.next_step_at = Some(now);
        }
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

    /// The facts are not those that people were shown: nobody has decided about these.
    fn change(&mut self, connection: &Connection, findings: &[Finding], now: Timestamp) {
        let changes = self.connection.changes(connection);
        let void: Vec<_> = self.decisions.iter().map(|decision| decision.by.clone()).collect();
        self.connection = connection.clone();
        self.fingerprint = connection.fingerprint();
        self.findings = findings.to_vec();
        if self.state == State::Approved {
            self.start_anew(now);
        }
        self.decisions.clear();
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

    /// Whether a request was heard before: a replay of it must not count again.
    fn knows_request(&self, request_key: &str) -> bool {
        self.history.iter().any(|entry| match &entry.what {
            What::Decided(decision) => decision.request_key == request_key,
            What::Withdrawn { request_key: earlier, .. } => earlier == request_key,
            What::Discovered { .. }
            | What::Changed { .. }
            | What::RuleChanged { .. }
            | What::Acknowledged { .. }
            | What::Seen(_)
            | What::Missing
            | What::Differs { .. }
            | What::Failed(_)
            | What::Told(_) => false,
        })
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

//! The durable record of one connection: who decided, how far it has come, what is still to be done and to be told.
//!
//! Pure: every change is a function of the record, an [`Event`] and the time. A final state stays final, and each change
//! of state puts its notice into the outbox in the same step, so that one write stores both.

mod decision;
mod outbox;

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::peering::{Connection, FieldHash, Fingerprint, InstanceId, Status};

pub use decision::{Approver, Call, ClientToken, Decision, InvalidPrincipal, Principal, Verdict};
pub use outbox::{Delivery, News, Notice, Outbox, Redelivery};

/// What a vendor or platform may make us wait at most.
const LONGEST_RETRY_AFTER: SignedDuration = SignedDuration::from_mins(15);
/// While an activation is younger than this, the watcher stays and looks every [`LOOK_AGAIN`].
const FOLLOWED_CLOSELY: SignedDuration = SignedDuration::from_mins(5);
/// How often a fresh activation is looked at.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_millis(2500);
/// How long the webhook has the call to itself before the watcher takes it for dead.
const WEBHOOK_LEASE: SignedDuration = SignedDuration::from_secs(8);
/// The wait after Alibaba Cloud refused our credentials or permissions: a person has to act first.
const AFTER_REFUSED_CREDENTIALS: SignedDuration = SignedDuration::from_mins(5);

/// Which connection of which target a record is about. Written `target/pcc-…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApprovalId {
    /// The configured name of the accepting account.
    pub target: String,
    /// The connection.
    pub instance_id: InstanceId,
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.target, self.instance_id)
    }
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Which connection.
    pub id: ApprovalId,
    /// 1, and one more for each decision after a failure.
    pub generation: u32,
    /// How far it has come.
    pub state: State,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// The last reading that changed something; at first, what was decided on.
    pub connection: Connection,
    /// Of the reading that was decided on. No other is ever accepted.
    pub fingerprint: Fingerprint,
    /// The rule that allowed the decision.
    pub rule: String,
    /// Where notices go.
    pub channels: Vec<String>,
    /// Every decision, the one that counts last.
    pub decisions: Vec<Decision>,
    /// Sent with every try of this generation's call.
    pub client_token: ClientToken,
    /// Failed tries of the next step, in a row.
    pub attempts: u32,
    /// When the next step is due; `None` when none is left.
    pub next_step_at: Option<Timestamp>,
    /// Why the last try failed, if it did.
    pub last_problem: Option<Problem>,
    /// What the channels are owed, and were told.
    pub outbox: Outbox,
    /// Every state it was in.
    pub history: Vec<HistoryEntry>,
}

/// How far an approval has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Seen; people have not decided yet.
    Pending,
    /// Decided; `AcceptVpcPeerConnection` not acknowledged yet.
    Approved,
    /// Acknowledged; Alibaba Cloud is activating it.
    Activating,
    /// Usable. Final.
    Activated,
    /// Decided; `RejectVpcPeerConnection` not acknowledged yet.
    Rejecting,
    /// Refused. Final.
    Rejected,
    /// Nobody decided within seven days. Final.
    Expired,
    /// The connection is gone. Final.
    Deleted,
    /// Alibaba Cloud, or a change of the connection, made it impossible. Final until somebody decides anew.
    Failed {
        /// The vendor's code, or one of ours: see [`code`].
        code: String,
    },
}

/// Codes of [`State::Failed`] that are not the vendor's.
pub mod code {
    /// The connection is no longer the one that was decided on.
    pub const CONNECTION_CHANGED: &str = "ConnectionChanged";
    /// It was accepted by somebody else while we were to reject it.
    pub const ACCEPTED_ELSEWHERE: &str = "AcceptedElsewhere";
}

impl State {
    /// Whether nothing but a new decision, and only after a failure, leads out of it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Pending | Self::Approved | Self::Activating | Self::Rejecting => false,
            Self::Activated | Self::Rejected | Self::Expired | Self::Deleted | Self::Failed { .. } => true,
        }
    }

    /// The word for it in answers, the store and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Activating => "activating",
            Self::Activated => "activated",
            Self::Rejecting => "rejecting",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
            Self::Failed { .. } => "failed",
        }
    }
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The vendor's code, or the kind of transport failure.
    pub code: String,
    /// The vendor's request id, if it answered.
    pub request_id: Option<String>,
}

/// A state that the approval entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When.
    pub at: Timestamp,
    /// Which.
    pub state: State,
    /// By whose decision, if it was one.
    pub by: Option<Principal>,
    /// The vendor's request that brought it about, if one did.
    pub request_id: Option<String>,
}

/// What can happen to a record. Applying one twice is applying it once.
#[derive(Debug, Clone)]
pub enum Event {
    /// `AcceptVpcPeerConnection` was acknowledged.
    Accepted {
        /// Of the call.
        request_id: String,
    },
    /// `RejectVpcPeerConnection` was acknowledged.
    Rejected {
        /// Of the call.
        request_id: String,
    },
    /// The connection was read.
    Seen(Box<Connection>),
    /// The connection does not exist any more.
    Missing,
    /// The connection is not the one that was decided on.
    Changed(Box<Connection>),
    /// A try failed; another may do.
    Deferred {
        /// Why.
        problem: Problem,
        /// What the vendor asked for.
        retry_after: Option<SignedDuration>,
    },
    /// Our credentials or permissions were refused; a person has to act.
    CredentialsRefused(Problem),
    /// It will never work.
    Failed(Problem),
    /// A notice reached a channel.
    Delivered {
        /// Which notice.
        number: u32,
        /// Which channel.
        channel: String,
        /// Where the platform put it, if it says.
        reference: Option<String>,
    },
    /// A notice did not reach a channel.
    Undelivered {
        /// Which notice.
        number: u32,
        /// Which channel.
        channel: String,
        /// What the platform said.
        error: String,
        /// When to try again.
        retry: Redelivery,
    },
}

/// Why a decision did not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The same person said the same before.
    #[error("the same person decided the same before")]
    Repeated,
    /// Somebody decided, or the connection came to its end; the record says who and how.
    #[error("already decided, or over")]
    Over,
}

/// The facts that a decision is made on.
#[derive(Debug)]
pub struct Grounds<'a> {
    /// Which connection.
    pub id: &'a ApprovalId,
    /// As just read.
    pub connection: &'a Connection,
    /// The rule that allows it.
    pub rule: &'a str,
    /// Where its notices go.
    pub channels: &'a [String],
}

impl Approval {
    /// The record that `decision` makes of what was there before.
    ///
    /// # Errors
    /// [`Closed`], when the decision does not count any more; the record stays as it is.
    pub fn decide(before: Option<&Self>, grounds: &Grounds<'_>, decision: Decision) -> Result<Self, Closed> {
        let (generation, decisions, outbox, history) = match before {
            None => (1, Vec::new(), Outbox::default(), Vec::new()),
            Some(record) => {
                record.is_open_to(&decision)?;
                let generation = record.generation.saturating_add(u32::from(record.state.is_final()));
                (generation, record.decisions.clone(), record.outbox.clone(), record.history.clone())
            }
        };
        let verdict = decision.verdict;
        let mut record = Self {
            id: grounds.id.clone(),
            generation,
            state: State::Pending,
            since: decision.at,
            connection: grounds.connection.clone(),
            fingerprint: grounds.connection.fingerprint(),
            rule: grounds.rule.to_owned(),
            channels: grounds.channels.to_vec(),
            client_token: ClientToken::derive(
                &decision.by.principal,
                grounds.connection.accepter.account,
                &grounds.id.instance_id,
                verdict,
                Call::Decided { generation },
            ),
            decisions,
            attempts: 0,
            next_step_at: None,
            last_problem: None,
            outbox,
            history,
        };
        let state = match verdict {
            Verdict::Approve => State::Approved,
            Verdict::Reject => State::Rejecting,
        };
        let at = decision.at;
        record.enter(state, at, Some(decision.by.principal.clone()), None);
        record.next_step_at = Some(at + WEBHOOK_LEASE);
        record.decisions.push(decision);
        Ok(record)
    }

    /// Whether a decision still counts.
    ///
    /// # Errors
    /// [`Closed`], when it does not.
    pub fn is_open_to(&self, decision: &Decision) -> Result<(), Closed> {
        if self.decisions.iter().any(|earlier| earlier.request_key == decision.request_key) {
            return Err(Closed::Repeated);
        }
        match self.state {
            // Whoever decides has just read it: what we took for deleted is there.
            State::Pending | State::Deleted | State::Failed { .. } => Ok(()),
            State::Expired => Err(Closed::Over),
            State::Approved | State::Activating | State::Activated | State::Rejecting | State::Rejected => {
                let said_before = |winner: &Decision| winner.verdict == decision.verdict && winner.by.is(&decision.by);
                Err(if self.winner().is_some_and(said_before) { Closed::Repeated } else { Closed::Over })
            }
        }
    }

    /// The decision that counts.
    #[must_use]
    pub fn winner(&self) -> Option<&Decision> {
        self.decisions.last()
    }

    /// Applies what happened; says whether it changed the record.
    pub fn apply(&mut self, event: &Event, now: Timestamp) -> bool {
        let before = self.clone();
        match event {
            Event::Accepted { request_id } => {
                if self.state == State::Approved {
                    self.accepted(self.winner().cloned(), Some(request_id), now);
                }
            }
            Event::Rejected { request_id } => {
                if self.state == State::Rejecting {
                    self.end(State::Rejected, News::Rejected(self.winner().cloned()), Some(request_id), now);
                }
            }
            Event::Seen(connection) => self.seen(connection, now),
            Event::Missing => self.end(State::Deleted, News::Deleted, None, now),
            Event::Changed(connection) => {
                if self.state == State::Approved {
                    self.connection = (**connection).clone();
                    self.fail(Problem { code: code::CONNECTION_CHANGED.into(), request_id: None }, now);
                }
            }
            Event::Failed(problem) => {
                if matches!(self.state, State::Approved | State::Rejecting) {
                    self.fail(problem.clone(), now);
                }
            }
            Event::Deferred { problem, retry_after } => self.defer(problem, *retry_after, now),
            Event::CredentialsRefused(problem) => self.postpone(problem, AFTER_REFUSED_CREDENTIALS, now),
            Event::Delivered { number, channel, reference } => {
                self.outbox.delivered(*number, channel, reference.as_ref(), now);
            }
            Event::Undelivered { number, channel, error, retry } => {
                self.outbox.undelivered(&self.id.to_string(), (*number, channel), error, *retry, now);
            }
        }
        *self != before
    }

    fn seen(&mut self, connection: &Connection, now: Timestamp) {
        let state = self.state.clone();
        match (&state, &connection.status) {
            (State::Approved, Status::Updating) => self.accepted(self.winner().cloned(), None, now),
            (State::Approved, Status::Activated) => {
                self.accepted(self.winner().cloned(), None, now);
                self.activated(connection, now);
            }
            (State::Activating, Status::Activated) => self.activated(connection, now),
            (State::Rejecting, Status::Updating | Status::Activated) => {
                self.fail(Problem { code: code::ACCEPTED_ELSEWHERE.into(), request_id: None }, now);
            }
            (State::Rejecting, Status::Rejected) => {
                self.end(State::Rejected, News::Rejected(self.winner().cloned()), None, now);
            }
            (_, Status::Rejected) => self.end(State::Rejected, News::Rejected(None), None, now),
            (_, Status::Expired) => self.end(State::Expired, News::Expired, None, now),
            (_, Status::Deleting | Status::Deleted) => self.end(State::Deleted, News::Deleted, None, now),
            (State::Approved | State::Rejecting, status) => {
                let problem = Problem { code: format!("Status.{status}"), request_id: None };
                self.defer(&problem, None, now);
            }
            (State::Activating, _) => (self.attempts, self.last_problem) = (0, None),
            (_, Status::Creating | Status::Accepting | Status::Updating | Status::Activated | Status::Other(_)) => {}
        }
    }

    fn accepted(&mut self, by: Option<Decision>, request_id: Option<&String>, now: Timestamp) {
        self.enter(State::Activating, now, None, request_id.cloned());
        self.next_step_at = Some(now);
        self.outbox.tell(News::Accepted(by), &self.channels, now);
    }

    fn activated(&mut self, connection: &Connection, now: Timestamp) {
        let approved_at = self.winner().map_or(self.since, |decision| decision.at);
        self.connection = connection.clone();
        self.end(State::Activated, News::Activated { took_s: now.duration_since(approved_at).as_secs() }, None, now);
    }

    fn fail(&mut self, problem: Problem, now: Timestamp) {
        let verdict = self.winner().map_or(Verdict::Approve, |winner| winner.verdict);
        let news = News::Failed { verdict, problem: problem.clone() };
        self.end(State::Failed { code: problem.code.clone() }, news, problem.request_id.as_ref(), now);
        self.last_problem = Some(problem);
    }

    /// Enters a final state, unless it is in one.
    fn end(&mut self, state: State, news: News, request_id: Option<&String>, now: Timestamp) {
        if self.state.is_final() {
            return;
        }
        self.enter(state, now, None, request_id.cloned());
        self.next_step_at = None;
        self.outbox.tell(news, &self.channels, now);
    }

    fn enter(&mut self, state: State, now: Timestamp, by: Option<Principal>, request_id: Option<String>) {
        self.history.push(HistoryEntry { at: now, state: state.clone(), by, request_id });
        self.state = state;
        self.since = now;
        self.attempts = 0;
        self.last_problem = None;
    }

    fn defer(&mut self, problem: &Problem, retry_after: Option<SignedDuration>, now: Timestamp) {
        let wait = backoff(&self.id.to_string(), self.attempts, SignedDuration::from_mins(1));
        self.postpone(problem, wait.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER)), now);
    }

    fn postpone(&mut self, problem: &Problem, wait: SignedDuration, now: Timestamp) {
        if !self.state.is_final() {
            self.last_problem = Some(problem.clone());
            self.attempts = self.attempts.saturating_add(1);
            self.next_step_at = Some(now + wait);
        }
    }

    /// When there is something to do; `None` when all is done and told.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        self.next_step_at.into_iter().chain(self.outbox.due_at()).min()
    }

    /// When a watcher that has just worked on it should look again; `None` if its next tick is soon enough.
    #[must_use]
    pub fn look_again_at(&self, now: Timestamp) -> Option<Timestamp> {
        let young = now.duration_since(self.since) < FOLLOWED_CLOSELY;
        let step = match self.state {
            State::Activating => young.then_some(now + LOOK_AGAIN),
            State::Pending | State::Approved | State::Rejecting => self.next_step_at,
            State::Activated | State::Rejected | State::Expired | State::Deleted | State::Failed { .. } => None,
        };
        step.into_iter().chain(self.outbox.due_at()).min()
    }
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

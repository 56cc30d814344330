//! The durable record of one connection: who decided, how far it has come, what is still to be done and to be told.
//!
//! Pure: every change is a function of the record, an [`Event`] and the time. A final state stays final, and each change
//! of state puts its notice into the outbox in the same step, so that one write stores both.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::peering::{AccountId, Connection, FieldHash, Fingerprint, InstanceId, Status};

/// While an activation is younger than this, the watcher stays and looks every [`LOOK_AGAIN`].
const FOLLOWED_CLOSELY: SignedDuration = SignedDuration::from_mins(5);
/// How often a fresh activation is looked at.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_millis(2500);
/// How long the webhook has the call to itself before the watcher takes it for dead.
const WEBHOOK_LEASE: SignedDuration = SignedDuration::from_secs(8);
/// What a vendor or platform may make us wait at most.
const LONGEST_RETRY_AFTER: SignedDuration = SignedDuration::from_mins(15);
/// The wait after Alibaba Cloud refused our credentials or permissions: a person has to act first.
const AFTER_REFUSED_CREDENTIALS: SignedDuration = SignedDuration::from_mins(5);
/// How long a watcher has the posts that it claimed to itself.
const CLAIM: SignedDuration = SignedDuration::from_secs(30);
/// The wait after a chat platform refused a message for good, e.g. an archived channel: a person has to act first.
const AFTER_REFUSED_MESSAGE: SignedDuration = SignedDuration::from_hours(1);
/// After so long, a message that is refused for good is given up. One that only failed never is.
const REFUSED_MESSAGE_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

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
    /// The outbox and, once delivered, its memory.
    pub notices: Vec<Notice>,
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

/// What somebody wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Accept the connection.
    Approve,
    /// Refuse it.
    Reject,
}

impl Verdict {
    /// The operation that carries it out.
    #[must_use]
    pub fn operation(self) -> &'static str {
        match self {
            Self::Approve => "AcceptVpcPeerConnection",
            Self::Reject => "RejectVpcPeerConnection",
        }
    }
}

/// What somebody decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What.
    pub verdict: Verdict,
    /// Who.
    pub by: Approver,
    /// When.
    pub at: Timestamp,
    /// Why, in their words: untrusted.
    pub reason: Option<String>,
    /// Names the request that carried it, so that a replay of that request is known.
    pub request_key: String,
}

/// Who decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approver {
    /// The authenticated identity.
    pub principal: Principal,
    /// The person of the configuration that it belongs to, if any.
    pub person: Option<String>,
}

impl Approver {
    fn is(&self, other: &Self) -> bool {
        self.principal == other.principal || (self.person.is_some() && self.person == other.person)
    }
}

/// An authenticated identity, `platform:tenant/user`, e.g. `slack:T0001/U061F7AUR`. The user id is the platform's
/// immutable one, never a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Principal(String);

/// The parts do not make a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a principal: expected `platform:tenant/user`, each of 1 to 128 letters, digits and `-_.@+`")]
pub struct InvalidPrincipal;

impl Principal {
    /// Joins the parts; refuses characters that could make two principals look alike.
    pub fn new(platform: &str, tenant: &str, user: &str) -> Result<Self, InvalidPrincipal> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
        let valid = |part: &str| (1..=128).contains(&part.len()) && part.bytes().all(plain);
        if [platform, tenant, user].into_iter().all(valid) {
            Ok(Self(format!("{platform}:{tenant}/{user}")))
        } else {
            Err(InvalidPrincipal)
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Principal {
    type Error = InvalidPrincipal;

    fn try_from(text: String) -> Result<Self, InvalidPrincipal> {
        let (platform, rest) = text.split_once(':').ok_or(InvalidPrincipal)?;
        let (tenant, user) = rest.split_once('/').ok_or(InvalidPrincipal)?;
        Self::new(platform, tenant, user)
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `ClientToken` of a call, 64 ASCII characters: a retry of the same approval is the same request to Alibaba Cloud,
/// and no two approvals share one.
///
/// Source: <https://www.alibabacloud.com/help/en/ecs/developer-reference/how-to-ensure-idempotence>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientToken(String);

/// What a client token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call<'a> {
    /// Carrying out the decision of a generation: every try has the same token.
    Decided {
        /// Of the approval.
        generation: u32,
    },
    /// A dry run: each request has its own, or the vendor would repeat an old verdict.
    DryRun {
        /// Of the request that asked for it.
        request_key: &'a str,
    },
}

impl ClientToken {
    /// Derives it from the caller and what the call is to do. A dry run has its own: the same token with other
    /// parameters is `IdempotentParameterMismatch`.
    #[must_use]
    pub fn derive(
        caller: &Principal,
        account: AccountId,
        instance_id: &InstanceId,
        verdict: Verdict,
        call: Call<'_>,
    ) -> Self {
        let mut hash = FieldHash::new("peergate/client-token/1");
        hash.field(caller.as_str());
        hash.field(&account.to_string());
        hash.field(instance_id.as_str());
        hash.field(verdict.operation());
        match call {
            Call::Decided { generation } => hash.field(&generation.to_string()),
            Call::DryRun { request_key } => {
                hash.field("dry-run");
                hash.field(request_key);
            }
        }
        Self(format!("pg1-{:.60}", hash.hex()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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

/// Something to tell the channels, once each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Unique within the record, in the order of happening.
    pub number: u32,
    /// What happened.
    pub news: News,
    /// When it happened.
    pub at: Timestamp,
    /// How far it has got, per channel.
    pub deliveries: BTreeMap<String, Delivery>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// Accepted; `None` when not by us.
    Accepted(Option<Decision>),
    /// Usable.
    Activated {
        /// Seconds since it was approved.
        took_s: i64,
    },
    /// Refused; `None` when not by us.
    Rejected(Option<Decision>),
    /// Nobody decided in time.
    Expired,
    /// Gone.
    Deleted,
    /// Impossible.
    Failed {
        /// What was to be done.
        verdict: Verdict,
        /// Why it is not.
        problem: Problem,
    },
}

/// How far a notice has got in one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// To be posted.
    Waiting {
        /// Not before.
        due_at: Timestamp,
        /// Failed tries so far.
        attempts: u32,
        /// What the platform said last.
        error: Option<String>,
    },
    /// Posted.
    Delivered {
        /// When.
        at: Timestamp,
        /// Where the platform put it, if it says.
        reference: Option<String>,
    },
    /// Given up: the receiver is gone, or refused it for too long.
    Gone,
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

/// When to try an undelivered notice again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redelivery {
    /// Soon, with back-off, and not before the time that the platform asked for.
    Soon(Option<SignedDuration>),
    /// Once people had time to mend it.
    Later,
    /// Never: the receiver is gone.
    Never,
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
        let (generation, decisions, notices, history) = match before {
            None => (1, Vec::new(), Vec::new(), Vec::new()),
            Some(record) => {
                record.is_open_to(&decision)?;
                let generation = record.generation.saturating_add(u32::from(record.state.is_final()));
                (generation, record.decisions.clone(), record.notices.clone(), record.history.clone())
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
            notices,
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
                if let Some(delivery) = self.delivery(*number, channel) {
                    *delivery = Delivery::Delivered { at: now, reference: reference.clone() };
                }
            }
            Event::Undelivered { number, channel, error, retry } => {
                self.undelivered(*number, channel, error, *retry, now);
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
        self.tell(News::Accepted(by), now);
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
        self.tell(news, now);
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

    fn tell(&mut self, news: News, now: Timestamp) {
        let waiting = Delivery::Waiting { due_at: now, attempts: 0, error: None };
        let number = self.notices.last().map_or(1, |notice| notice.number.saturating_add(1));
        let deliveries = self.channels.iter().map(|channel| (channel.clone(), waiting.clone())).collect();
        self.notices.push(Notice { number, news, at: now, deliveries });
    }

    /// Where a notice still waits; `None` when it does not.
    fn delivery(&mut self, number: u32, channel: &str) -> Option<&mut Delivery> {
        let notice = self.notices.iter_mut().find(|notice| notice.number == number)?;
        notice.deliveries.get_mut(channel).filter(|delivery| matches!(delivery, Delivery::Waiting { .. }))
    }

    fn undelivered(&mut self, number: u32, channel: &str, error: &str, retry: Redelivery, now: Timestamp) {
        let seed = format!("{}#{number}>{channel}", self.id);
        let told_at = self.notices.iter().find(|notice| notice.number == number).map_or(now, |notice| notice.at);
        let Some(delivery) = self.delivery(number, channel) else { return };
        let Delivery::Waiting { attempts, .. } = *delivery else { return };
        let wait = match retry {
            Redelivery::Soon(retry_after) => backoff(&seed, attempts, SignedDuration::from_mins(5))
                .max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER)),
            Redelivery::Later if now.duration_since(told_at) < REFUSED_MESSAGE_KEPT => AFTER_REFUSED_MESSAGE,
            Redelivery::Later | Redelivery::Never => {
                *delivery = Delivery::Gone;
                return;
            }
        };
        let attempts = attempts.saturating_add(1);
        *delivery = Delivery::Waiting { due_at: now + wait, attempts, error: Some(error.to_owned()) };
    }

    /// The notices that are due, with their channels. A channel hears them in order: a later one waits for the earlier.
    #[must_use]
    pub fn due_notices(&self, now: Timestamp) -> Vec<(&Notice, &str)> {
        self.next_deliveries()
            .filter(|(_, _, due_at)| *due_at <= now)
            .map(|(notice, channel, _)| (notice, channel))
            .collect()
    }

    /// Takes the notices that are due for posting, so that nobody else posts them meanwhile: whoever stores this change
    /// posts them. If they die before they do, the notices are due again after [`CLAIM`].
    pub fn claim(&mut self, now: Timestamp) -> Vec<(Notice, String)> {
        let due = self.due_notices(now).into_iter().map(|(notice, channel)| (notice.clone(), channel.to_owned()));
        let due: Vec<_> = due.collect();
        for (notice, channel) in &due {
            if let Some(Delivery::Waiting { due_at, .. }) = self.delivery(notice.number, channel) {
                *due_at = now + CLAIM;
            }
        }
        due
    }

    /// The first notice that each channel still waits for.
    fn next_deliveries(&self) -> impl Iterator<Item = (&Notice, &str, Timestamp)> {
        let mut first = BTreeMap::new();
        for notice in &self.notices {
            for (channel, delivery) in &notice.deliveries {
                if let Delivery::Waiting { due_at, .. } = delivery {
                    first.entry(channel.as_str()).or_insert((notice, *due_at));
                }
            }
        }
        first.into_iter().map(|(channel, (notice, due_at))| (notice, channel, due_at))
    }

    /// When there is something to do; `None` when all is done and told.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        self.next_step_at.into_iter().chain(self.next_deliveries().map(|(_, _, due_at)| due_at)).min()
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
        step.into_iter().chain(self.next_deliveries().map(|(_, _, due_at)| due_at)).min()
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

//! How a record goes on once it is known what became of its connection: readings, ends, failures, and whom to remind.

use jiff::{SignedDuration, Timestamp};

use super::{
    Alarm, Approval, Decision, Doubtful, LONGEST_RETRY_AFTER, LOOK_AT_OBJECTION, News, State, Verdict, What, backoff,
    code,
};
use crate::peering::{Connection, Problem, Status};

/// The wait after Alibaba Cloud refused our credentials or permissions: a person has to act first.
pub(super) const AFTER_REFUSED_CREDENTIALS: SignedDuration = SignedDuration::from_mins(5);
/// How long a call with an unknown error code is tried again.
const UNKNOWN_TRIED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// After so long past its expiry, a request that can't be read is over.
const EXPIRED_FOR_SURE: SignedDuration = SignedDuration::from_hours(1);

impl Approval {
    pub(super) fn seen(&mut self, connection: &Connection, now: Timestamp) {
        let what = || What::Seen(connection.status.clone());
        match &connection.status {
            Status::Deleted => self.not_there(what(), now),
            Status::Rejected => {
                self.note_reading(connection, now);
                let ours = self.state == State::Rejecting && self.may_have_called();
                let by = if ours { self.winner().cloned() } else { None };
                self.end(State::Rejected, News::Rejected(by), what(), now);
            }
            Status::Expired => {
                self.note_reading(connection, now);
                self.end(State::Expired, News::Expired, what(), now);
            }
            Status::Activated => self.seen_activated(connection, now),
            Status::Accepting if connection.is_waiting(now) => self.seen_waiting(connection, now),
            Status::Accepting => self.seen_past_expiry(now),
            // `Updating` says as well that somebody changes it, and `Deleting` may come to nothing.
            Status::Creating | Status::Updating | Status::Deleting | Status::Other(_) => {
                self.note_reading(connection, now);
                if matches!(self.state, State::Approved | State::Rejecting) {
                    let problem = Problem { code: format!("Status.{}", connection.status), request_id: None };
                    self.defer(&problem, None, now);
                }
            }
        }
        match self.state {
            State::Activating if self.doubt.is_none() => {
                (self.attempts, self.last_problem) = (0, None);
                self.remind_of_decision(None, now);
                self.next_step_at = self.told.stuck_at(&self.terms, self.since);
            }
            State::Pending if self.doubt.is_none() => {
                (self.attempts, self.last_problem) = (0, None);
                self.remind_of_request(now);
                self.wait(now);
            }
            State::Activating => self.remind_of_decision(None, now),
            State::Pending
            | State::Approved
            | State::Activated
            | State::Rejecting
            | State::Rejected
            | State::Expired
            | State::Deleted
            | State::Failed { .. } => {}
        }
    }

    /// Only this proves an accept, whoever made it.
    fn seen_activated(&mut self, connection: &Connection, now: Timestamp) {
        let what = || What::Seen(Status::Activated);
        match &self.state {
            State::Pending => {
                self.accepted(None, what(), now);
                self.activated(connection, now);
            }
            State::Approved => {
                let by = if self.may_have_called() { self.winner().cloned() } else { None };
                self.accepted(by, what(), now);
                self.activated(connection, now);
            }
            State::Activating => self.activated(connection, now),
            State::Rejecting => self.fail(Problem { code: code::ACCEPTED_ELSEWHERE.into(), request_id: None }, now),
            State::Failed { code } if code == code::ACCEPTED_ELSEWHERE || code == code::CHANGED_TOO_OFTEN => {
                self.end_doubt();
            }
            State::Rejected | State::Expired | State::Deleted | State::Failed { .. } => {
                self.correct_to_activated(connection, now);
            }
            State::Activated => {}
        }
    }

    /// It waits, but its time is over: nobody can accept it any more. A call of ours may have been in time.
    fn seen_past_expiry(&mut self, now: Timestamp) {
        let what = || What::Seen(Status::Expired);
        match self.state {
            State::Pending => self.end(State::Expired, News::Expired, what(), now),
            State::Approved | State::Rejecting => {
                if !self.may_have_called() || self.call_is_settled(now) {
                    self.end(State::Expired, News::Expired, what(), now);
                }
            }
            State::Activating => {
                if self.confirm(Doubtful::Waiting, now) {
                    self.end(State::Expired, News::Expired, what(), now);
                }
            }
            State::Activated | State::Rejected | State::Expired | State::Deleted | State::Failed { .. } => {
                self.end_doubt();
            }
        }
    }

    /// Tells whoever should have decided by now.
    pub(super) fn remind_of_request(&mut self, now: Timestamp) {
        if self.is_past_expiry(now) {
            return;
        }
        let alarms = self.told.while_pending(&self.terms, self.since, self.connection.expires_at, now);
        let waiting_s = now.duration_since(self.since).as_secs();
        for alarm in alarms {
            self.log(What::Told(alarm), now);
            self.tell(
                match (alarm, self.connection.expires_at) {
                    (Alarm::ExpiresSoon, Some(expires_at)) => News::ExpiresSoon { expires_at },
                    (Alarm::Escalation, _) => News::Escalated { waiting_s },
                    (Alarm::Reminder | Alarm::ExpiresSoon | Alarm::Stuck, _) => News::Reminder { waiting_s },
                },
                now,
            );
        }
    }

    /// Tells people once that what was decided takes too long.
    pub(super) fn remind_of_decision(&mut self, problem: Option<&Problem>, now: Timestamp) {
        let for_s = now.duration_since(self.since);
        if for_s >= self.terms.stuck_after && self.told.first_of_stuck() {
            self.log(What::Told(Alarm::Stuck), now);
            self.tell(News::Stuck { for_s: for_s.as_secs(), problem: problem.cloned() }, now);
        }
    }

    pub(super) fn accepted(&mut self, by: Option<Decision>, what: What, now: Timestamp) {
        if self.state == State::Pending {
            // Not by us: the approvals that there are have accepted nothing.
            self.decisions.clear();
        }
        self.enter(State::Activating, now);
        self.log(what, now);
        self.next_step_at = self.told.stuck_at(&self.terms, self.since);
        self.tell(News::Accepted(by), now);
    }

    pub(super) fn activated(&mut self, connection: &Connection, now: Timestamp) {
        let approved_at = self.winner().map_or(self.since, |decision| decision.at);
        let changes = self.facts.changes(&connection.facts());
        self.connection = connection.clone();
        if connection.fingerprint() != self.fingerprint {
            // Too late to stop it: people must know.
            self.log(What::Differs { changes: changes.clone() }, now);
            self.tell(News::Differs { changes }, now);
        }
        let news = News::Activated { took_s: now.duration_since(approved_at).as_secs() };
        self.end(State::Activated, news, What::Seen(Status::Activated), now);
    }

    pub(super) fn fail(&mut self, problem: Problem, now: Timestamp) {
        let verdict = self.winner().map_or(Verdict::Approve, |winner| winner.verdict);
        let news = News::Failed { verdict, problem: problem.clone() };
        self.end(State::Failed { code: problem.code.clone() }, news, What::Failed(problem.clone()), now);
        self.last_problem = Some(problem);
    }

    /// Enters a final state, unless it is in one.
    pub(super) fn end(&mut self, state: State, news: News, what: What, now: Timestamp) {
        if self.state.is_final() {
            return;
        }
        if self.state == State::Pending {
            self.decisions.clear();
        }
        self.enter(state, now);
        self.log(what, now);
        self.next_step_at = None;
        self.tell(news, now);
    }

    /// As [`Approval::defer`], for a while; then nobody believes any more that it will ever work.
    pub(super) fn defer_unknown(&mut self, problem: &Problem, now: Timestamp) {
        let decided = matches!(self.state, State::Approved | State::Rejecting);
        if decided && now.duration_since(self.since) >= UNKNOWN_TRIED_FOR {
            self.fail(problem.clone(), now);
        } else {
            self.defer(problem, None, now);
        }
    }

    pub(super) fn defer(&mut self, problem: &Problem, retry_after: Option<SignedDuration>, now: Timestamp) {
        let wait = backoff(&self.id.to_string(), self.attempts, SignedDuration::from_mins(1));
        self.postpone(problem, wait.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER)), now);
    }

    pub(super) fn postpone(&mut self, problem: &Problem, wait: SignedDuration, now: Timestamp) {
        let gone_by = |expires_at: Timestamp| now.duration_since(expires_at) > EXPIRED_FOR_SURE;
        match self.state {
            State::Pending if self.connection.expires_at.is_some_and(gone_by) => {
                // Whatever can't be asked: nobody can accept it any more.
                self.end(State::Expired, News::Expired, What::Seen(Status::Expired), now);
            }
            State::Approved | State::Rejecting
                if !self.may_have_called() && self.connection.expires_at.is_some_and(gone_by) =>
            {
                self.end(State::Expired, News::Expired, What::Seen(Status::Expired), now);
            }
            State::Pending => self.remind_of_request(now),
            State::Approved | State::Rejecting => self.remind_of_decision(Some(problem), now),
            State::Activating
            | State::Activated
            | State::Rejected
            | State::Expired
            | State::Deleted
            | State::Failed { .. } => {}
        }
        if self.state.is_final() {
            // A record in doubt is read again.
            self.next_step_at = self.doubt.as_ref().map(|_| now + wait.max(LOOK_AT_OBJECTION));
        } else {
            self.last_problem = Some(problem.clone());
            self.attempts = self.attempts.saturating_add(1);
            // Nobody waits for the look at what waits for people.
            let shortest = if self.state == State::Pending { LOOK_AT_OBJECTION } else { SignedDuration::ZERO };
            self.next_step_at = Some(now + wait.max(shortest));
        }
    }
}

pub(super) fn acknowledged(verdict: Verdict, request_id: &str) -> What {
    What::Acknowledged { operation: verdict.operation().to_owned(), request_id: request_id.to_owned() }
}

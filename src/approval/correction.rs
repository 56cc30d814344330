//! One reading proves little. A reading that may pass needs a second one to confirm it, and a record that turns out
//! wrong is corrected as soon as a reading shows the connection alive.

use jiff::{SignedDuration, Timestamp};

use super::{Approval, CallResult, Doubt, Doubtful, News, OwnCall, Review, SentBack, State, Verdict, What, code};
use crate::peering::{Connection, Problem, Status};

/// How often a decided record in doubt is read.
const READ_AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// How often a decision is carried out again; then the approval fails.
const MAX_UNDONE: usize = 3;
/// How often a request goes back to the people because it is seen alive; then it fails.
const MAX_REOPENED: usize = 20;

impl Approval {
    /// A reading says that the connection is not there.
    pub(super) fn not_there(&mut self, what: What, now: Timestamp) {
        if self.state.is_final() {
            self.end_doubt();
        } else if self.confirm(Doubtful::Missing, now) {
            self.end(State::Deleted, News::Deleted, what, now);
        }
    }

    /// A reading says that the connection waits, and has not expired: it is alive.
    pub(super) fn seen_waiting(&mut self, connection: &Connection, now: Timestamp) {
        match &self.state {
            // Read before it was decided, or about to be called for.
            State::Pending | State::Approved | State::Rejecting | State::Activated => {
                self.note_reading(connection, now);
            }
            State::Failed { code } if code != code::ACCEPTED_ELSEWHERE => self.note_reading(connection, now),
            State::Rejected if self.is_acknowledged() => {
                if self.confirm(Doubtful::Waiting, now) {
                    self.reopen(connection, now);
                }
            }
            // Accepted, by us or elsewhere.
            State::Activating | State::Failed { .. } => {
                if self.confirm(Doubtful::Waiting, now) {
                    self.reopen(connection, now);
                }
            }
            State::Rejected | State::Expired | State::Deleted => self.reopen(connection, now),
        }
    }

    /// A reading that agrees with the record ends any doubt and updates the expiry.
    pub(super) fn note_reading(&mut self, connection: &Connection, now: Timestamp) {
        self.end_doubt();
        let waits = matches!(self.state, State::Pending | State::Approved | State::Rejecting);
        if waits && connection.status == Status::Accepting {
            self.connection.expires_at = connection.expires_at;
        }
        if self.state == State::Pending {
            self.wait(now);
        }
    }

    pub(super) fn end_doubt(&mut self) {
        if self.doubt.take().is_some() && self.state.is_final() {
            self.next_step_at = None;
        }
    }

    /// The connection is usable, although the record says that it has ended.
    pub(super) fn correct_to_activated(&mut self, connection: &Connection, now: Timestamp) {
        let was = self.state.clone();
        self.enter(State::Activating, now);
        self.log(What::Corrected { was: was.clone(), generation: self.generation, approvals: vec![] }, now);
        self.tell(News::Corrected { was, now: State::Activated }, now);
        self.activated(connection, now);
    }

    /// Whether earlier readings confirm a reading that may pass.
    pub(super) fn confirm(&mut self, reading: Doubtful, now: Timestamp) -> bool {
        let after_call = self.own_call.as_ref().is_some_and(|call| call.is_recent(now));
        let mut doubt = match self.doubt.take().filter(|doubt| doubt.reading == reading) {
            Some(doubt) => doubt,
            None => Doubt::begin(reading, now),
        };
        if doubt.count(after_call, now) {
            return true;
        }
        let again_at = doubt.next_at();
        self.doubt = Some(doubt);
        match self.state {
            State::Pending => self.wait(now),
            State::Activating => {
                let step_at = self.next_step_at.filter(|at| *at > now);
                self.next_step_at = Some(step_at.map_or(again_at, |at| at.min(again_at)));
            }
            // A reading that says otherwise lets the call be made at once.
            State::Approved | State::Rejecting => self.next_step_at = Some(again_at.min(now + READ_AGAIN)),
            State::Activated | State::Rejected | State::Expired | State::Deleted | State::Failed { .. } => {
                self.next_step_at = Some(again_at);
            }
        }
        false
    }

    fn is_acknowledged(&self) -> bool {
        self.own_call.as_ref().is_some_and(|call| call.generation == self.generation && call.acknowledged)
    }

    /// It waits again. If it was decided, the call is made again; otherwise people decide.
    fn reopen(&mut self, connection: &Connection, now: Timestamp) {
        let was = self.state.clone();
        let same_facts = connection.fingerprint() == self.fingerprint;
        let verdict =
            self.client_token.is_some().then(|| self.decisions.last().map(|decision| decision.verdict)).flatten();
        self.connection.expires_at = connection.expires_at;
        if let Some(verdict) = verdict.filter(|_| same_facts) {
            self.carry_out_again(was, verdict, now);
        } else if self.has_reopened_too_often() {
            self.enter(State::Pending, now);
            self.fail(Problem { code: code::CHANGED_TOO_OFTEN.into(), request_id: None }, now);
        } else {
            let mut approvals = vec![];
            let is_decided = |state: &State| matches!(state, State::Approved | State::Rejecting);
            if self.history.of_generation(self.generation).any(|entry| is_decided(&entry.state)) {
                self.generation = self.generation.saturating_add(1);
                self.client_token = None;
            } else if same_facts {
                approvals = self.history.approvals_set_aside();
            }
            self.decisions.clone_from(&approvals);
            self.enter(State::Pending, now);
            // The checks are outdated.
            self.findings.clear();
            let generation = self.generation;
            self.log(What::Corrected { was: was.clone(), generation, approvals }, now);
            self.tell(News::Corrected { was, now: State::Pending }, now);
            self.wait(now);
        }
    }

    fn has_reopened_too_often(&self) -> bool {
        let reopened = self.history.iter().filter(|entry| matches!(entry.what, What::Corrected { .. })).count();
        reopened >= MAX_REOPENED || !self.has_room_to_restore()
    }

    fn carry_out_again(&mut self, was: State, verdict: Verdict, now: Timestamp) {
        let since_decided = self.history.iter().rev().take_while(|entry| !matches!(entry.what, What::Decided(_)));
        let undone = since_decided.filter(|entry| {
            matches!(entry.what, What::Corrected { .. }) && matches!(entry.state, State::Approved | State::Rejecting)
        });
        if undone.count() >= MAX_UNDONE {
            self.enter(if verdict == Verdict::Approve { State::Approved } else { State::Rejecting }, now);
            self.fail(Problem { code: code::CALL_UNDONE.into(), request_id: None }, now);
            return;
        }
        if self.is_acknowledged() {
            // With the old token, Alibaba Cloud would only repeat its answer.
            self.generation = self.generation.saturating_add(1);
            self.client_token = self.derive_token(verdict);
        }
        let state = if verdict == Verdict::Approve { State::Approved } else { State::Rejecting };
        self.enter(state.clone(), now);
        self.next_step_at = Some(now);
        self.log(What::Corrected { was: was.clone(), generation: self.generation, approvals: vec![] }, now);
        self.tell(News::Corrected { was, now: state }, now);
    }

    /// Whether readings have shown that no call of this generation took effect, although one may have arrived.
    pub(super) fn call_is_settled(&mut self, now: Timestamp) -> bool {
        if !self.confirm(Doubtful::Waiting, now) {
            return false;
        }
        if let Some(call) = &mut self.own_call {
            *call = OwnCall { open: false, unsettled: false, ..call.clone() };
            call.finish(CallResult::Refused);
        }
        true
    }

    /// The request needs a new decision. While a call may have taken effect, it waits for readings first.
    pub(super) fn send_back(&mut self, why: &SentBack, review: &Review<'_>, now: Timestamp) {
        if self.may_have_called() && !self.call_is_settled(now) {
            let problem = Problem { code: code::NEEDS_PEOPLE_AGAIN.into(), request_id: None };
            self.remind_of_decision(Some(&problem), now);
            self.last_problem = Some(problem);
            return;
        }
        let is_void = |by: &super::Approver| match why {
            SentBack::Objection(_) | SentBack::NotChecked => true,
            SentBack::Rule => review.void.iter().any(|void| void.principal == by.principal),
        };
        let mut kept = std::mem::take(&mut self.decisions);
        let void: Vec<_> = kept.iter().map(|decision| decision.by.clone()).filter(is_void).collect();
        kept.retain(|decision| !is_void(&decision.by));
        self.start_anew(now);
        self.decisions = kept;
        self.connection = review.connection.clone();
        self.terms = review.terms.clone();
        self.findings = review.findings.to_vec();
        let (generation, rule, approvals) = (self.generation, self.terms.rule.clone(), self.terms.approvals);
        self.log(What::SentBack { why: why.clone(), generation, rule, approvals, void: void.clone() }, now);
        self.tell(News::SentBack { why: why.clone(), void }, now);
        self.wait(now);
    }
}

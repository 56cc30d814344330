//! Readings that may be wrong, and corrections of the record. A reading that may be outdated requires a second one to
//! confirm it. A final record is corrected as soon as a reading shows that the connection is waiting or usable.

use jiff::{SignedDuration, Timestamp};

use super::{
    Approval, ApprovalState, AuditEvent, CallResult, LateReview, NotificationKind, OwnCall, SendBackReason,
    TransientReading, UnconfirmedReading, Verdict, failure_code,
};
use crate::peering::{Connection, Problem, Status};

/// How soon a decided connection is read again while a reading requires confirmation.
const REREAD_INTERVAL: SignedDuration = SignedDuration::from_secs(5);
/// How often a decision is carried out again after its call had no effect. Then the approval fails.
const MAX_UNDONE_CALLS: usize = 3;
/// How often a request is reopened for a new decision. Then it fails.
const MAX_REOPENINGS: usize = 20;

impl Approval {
    /// Handles a reading that did not find the connection.
    pub(super) fn observe_missing(&mut self, event: AuditEvent, now: Timestamp) {
        if self.state == ApprovalState::Activated {
            self.observe_removal(event, now);
        } else if self.state.is_final() {
            self.clear_unconfirmed();
        } else if self.confirm_reading(TransientReading::Missing, now) {
            self.finish(ApprovalState::Deleted, NotificationKind::Deleted, event, now);
        }
    }

    /// Handles a reading of a waiting connection.
    pub(super) fn observe_waiting(&mut self, connection: &Connection, now: Timestamp) {
        match &self.state {
            // The reading agrees with the record, or is older than the decision or the activation.
            ApprovalState::Pending | ApprovalState::Approved | ApprovalState::Rejecting | ApprovalState::Activated => {
                self.note_reading(connection, now);
            }
            ApprovalState::Failed { code } if code != failure_code::ACCEPTED_ELSEWHERE => {
                self.note_reading(connection, now);
            }
            ApprovalState::Rejected if self.is_call_acknowledged() => {
                if self.confirm_reading(TransientReading::Waiting, now) {
                    self.reopen(connection, now);
                }
            }
            // Accepted, by peergate or by somebody else.
            ApprovalState::Activating | ApprovalState::Failed { .. } => {
                if self.confirm_reading(TransientReading::Waiting, now) {
                    self.reopen(connection, now);
                }
            }
            ApprovalState::Rejected | ApprovalState::Expired | ApprovalState::Deleted => self.reopen(connection, now),
        }
    }

    /// Handles a reading that agrees with the record: forgets an unconfirmed reading, and updates the expiry.
    pub(super) fn note_reading(&mut self, connection: &Connection, now: Timestamp) {
        self.clear_unconfirmed();
        let waits = matches!(self.state, ApprovalState::Pending | ApprovalState::Approved | ApprovalState::Rejecting);
        if waits && connection.status == Status::Accepting {
            self.connection.expires_at = connection.expires_at;
        }
        if self.state == ApprovalState::Pending {
            self.schedule_next_check(now);
        }
    }

    pub(super) fn clear_unconfirmed(&mut self) {
        if self.unconfirmed.take().is_some() && self.state.is_final() {
            self.schedule_upkeep();
        }
    }

    /// Corrects a final record whose connection is usable.
    pub(super) fn correct_to_activated(&mut self, connection: &Connection, now: Timestamp) {
        let was = self.state.clone();
        self.transition_to(ApprovalState::Activating, now);
        self.append_audit_event(
            AuditEvent::Corrected { was: was.clone(), generation: self.generation, approvals: vec![] },
            now,
        );
        self.enqueue(NotificationKind::Corrected { was, now: ApprovalState::Activated }, now);
        if !self.is_accepted_by_us() {
            self.report_bypass(self.approval_count(), true, now);
        }
        self.finish_activation(connection, now);
    }

    /// Counts a reading that may be outdated. Returns whether enough readings agree to confirm it.
    pub(super) fn confirm_reading(&mut self, reading: TransientReading, now: Timestamp) -> bool {
        let after_call = self.own_call.as_ref().is_some_and(|call| call.is_recent(now));
        let mut unconfirmed = match self.unconfirmed.take().filter(|unconfirmed| unconfirmed.reading == reading) {
            Some(unconfirmed) => unconfirmed,
            None => UnconfirmedReading::new(reading, now),
        };
        if unconfirmed.count_reading(after_call, now) {
            return true;
        }
        let next_reading_at = unconfirmed.next_reading_at();
        self.unconfirmed = Some(unconfirmed);
        match self.state {
            ApprovalState::Pending => self.schedule_next_check(now),
            ApprovalState::Activating => {
                let step_at = self.next_step_at.filter(|at| *at > now);
                self.next_step_at = Some(step_at.map_or(next_reading_at, |at| at.min(next_reading_at)));
            }
            // Read again soon. If the next reading says otherwise, the call is made at once.
            ApprovalState::Approved | ApprovalState::Rejecting => {
                self.next_step_at = Some(next_reading_at.min(now + REREAD_INTERVAL));
            }
            ApprovalState::Activated
            | ApprovalState::Rejected
            | ApprovalState::Expired
            | ApprovalState::Deleted
            | ApprovalState::Failed { .. } => {
                self.next_step_at = Some(next_reading_at);
            }
        }
        false
    }

    fn is_call_acknowledged(&self) -> bool {
        self.own_call.as_ref().is_some_and(|call| call.generation == self.generation && call.acknowledged)
    }

    /// Reopens a record whose connection is waiting again. If people decided on these facts, the call is made again.
    /// Otherwise people decide.
    fn reopen(&mut self, connection: &Connection, now: Timestamp) {
        let was = self.state.clone();
        let same_facts = connection.fingerprint() == self.fingerprint;
        let verdict =
            self.client_token.is_some().then(|| self.decisions.last().map(|decision| decision.verdict)).flatten();
        self.connection.expires_at = connection.expires_at;
        if let Some(verdict) = verdict.filter(|_| same_facts) {
            self.reinstate_decision(was, verdict, now);
        } else if self.has_reopened_too_often() {
            self.transition_to(ApprovalState::Pending, now);
            self.fail(Problem { code: failure_code::CHANGED_TOO_OFTEN.into(), request_id: None }, now);
        } else {
            let mut approvals = vec![];
            let is_decided =
                |state: &ApprovalState| matches!(state, ApprovalState::Approved | ApprovalState::Rejecting);
            if self.history.entries_of_generation(self.generation).any(|entry| is_decided(&entry.state)) {
                self.generation = self.generation.saturating_add(1);
                self.client_token = None;
            } else if same_facts {
                approvals = self.history.restorable_approvals();
            }
            self.decisions.clone_from(&approvals);
            self.transition_to(ApprovalState::Pending, now);
            // The earlier checks are outdated.
            self.findings.clear();
            let generation = self.generation;
            self.append_audit_event(AuditEvent::Corrected { was: was.clone(), generation, approvals }, now);
            self.enqueue(NotificationKind::Corrected { was, now: ApprovalState::Pending }, now);
            self.schedule_next_check(now);
        }
    }

    fn has_reopened_too_often(&self) -> bool {
        let reopened = self.history.iter().filter(|entry| matches!(entry.event, AuditEvent::Corrected { .. })).count();
        reopened >= MAX_REOPENINGS || !self.has_room_to_restore()
    }

    fn reinstate_decision(&mut self, was: ApprovalState, verdict: Verdict, now: Timestamp) {
        let since_decided =
            self.history.iter().rev().take_while(|entry| !matches!(entry.event, AuditEvent::Decided(_)));
        let undone = since_decided.filter(|entry| {
            matches!(entry.event, AuditEvent::Corrected { .. })
                && matches!(entry.state, ApprovalState::Approved | ApprovalState::Rejecting)
        });
        if undone.count() >= MAX_UNDONE_CALLS {
            self.transition_to(
                if verdict == Verdict::Approve { ApprovalState::Approved } else { ApprovalState::Rejecting },
                now,
            );
            self.fail(Problem { code: failure_code::CALL_UNDONE.into(), request_id: None }, now);
            return;
        }
        if self.is_call_acknowledged() {
            // With the old token, Alibaba Cloud would only repeat its first answer.
            self.generation = self.generation.saturating_add(1);
            self.client_token = self.derive_token(verdict);
        }
        let state = if verdict == Verdict::Approve { ApprovalState::Approved } else { ApprovalState::Rejecting };
        self.transition_to(state.clone(), now);
        self.next_step_at = Some(now);
        self.append_audit_event(
            AuditEvent::Corrected { was: was.clone(), generation: self.generation, approvals: vec![] },
            now,
        );
        self.enqueue(NotificationKind::Corrected { was, now: state }, now);
    }

    /// Counts a reading that shows no effect of this generation's calls. Returns whether enough readings agree on that.
    pub(super) fn confirm_call_had_no_effect(&mut self, now: Timestamp) -> bool {
        if !self.confirm_reading(TransientReading::Waiting, now) {
            return false;
        }
        if let Some(call) = &mut self.own_call {
            *call = OwnCall { open: false, unsettled: false, ..call.clone() };
            call.record_result(CallResult::Refused);
        }
        true
    }

    /// Sends an approved request back to the people for a new decision. If a call may have taken effect, readings must
    /// first show that it has not.
    pub(super) fn send_back(&mut self, why: &SendBackReason, review: &LateReview<'_>, now: Timestamp) {
        if self.may_have_called() && !self.confirm_call_had_no_effect(now) {
            let problem = Problem { code: failure_code::NEEDS_PEOPLE_AGAIN.into(), request_id: None };
            self.remind_of_decision(Some(&problem), now);
            self.last_problem = Some(problem);
            return;
        }
        let is_void = |by: &super::Approver| match why {
            SendBackReason::Objection(_) | SendBackReason::NotChecked => true,
            SendBackReason::RuleNotMet => review.void.iter().any(|void| void.principal == by.principal),
        };
        let mut remaining = std::mem::take(&mut self.decisions);
        let voided: Vec<_> = remaining.iter().map(|decision| decision.by.clone()).filter(is_void).collect();
        remaining.retain(|decision| !is_void(&decision.by));
        self.begin_generation(now);
        self.decisions = remaining;
        self.connection = review.connection.clone();
        self.policy = review.policy.clone();
        self.findings = review.findings.to_vec();
        let (generation, rule, approvals) = (self.generation, self.policy.rule.clone(), self.policy.approvals);
        self.append_audit_event(
            AuditEvent::SentBack { why: why.clone(), generation, rule, approvals, void: voided.clone() },
            now,
        );
        self.enqueue(NotificationKind::SentBack { why: why.clone(), void: voided }, now);
        self.schedule_next_check(now);
    }
}

//! What a reading, an end or a failure changes in a record, and when people are reminded.

use jiff::{SignedDuration, Timestamp};

use super::{
    Approval, ApprovalState, AuditEvent, Decision, MAX_RETRY_AFTER, NotificationKind, OBJECTION_RECHECK_INTERVAL,
    Reminder, TransientReading, Verdict, backoff, failure_code,
};
use crate::peering::{Connection, Problem, Status};

/// Wait after Alibaba Cloud refused our credentials or permissions. A person has to act first.
pub(super) const REFUSED_CREDENTIALS_RETRY_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
/// For how long a call with an unknown error code is tried again.
const MAX_UNKNOWN_ERROR_AGE: SignedDuration = SignedDuration::from_hours(24);
/// A request that cannot be read counts as expired this long after its expiry.
const EXPIRY_GRACE_PERIOD: SignedDuration = SignedDuration::from_hours(1);

impl Approval {
    pub(super) fn observe(&mut self, connection: &Connection, now: Timestamp) {
        let event = || AuditEvent::Observed(connection.status.clone());
        match &connection.status {
            Status::Deleted => self.observe_missing(event(), now),
            Status::Rejected => {
                self.note_reading(connection, now);
                let ours = self.state == ApprovalState::Rejecting && self.may_have_called();
                let by = if ours { self.winner().cloned() } else { None };
                self.finish(ApprovalState::Rejected, NotificationKind::Rejected(by), event(), now);
            }
            Status::Expired => {
                self.note_reading(connection, now);
                self.finish(ApprovalState::Expired, NotificationKind::Expired, event(), now);
            }
            Status::Activated => self.observe_activated(connection, now),
            Status::Accepting if connection.is_waiting(now) => self.observe_waiting(connection, now),
            Status::Accepting => self.observe_past_expiry(now),
            // `Updating` can also mean that somebody changes the connection. `Deleting` does not always end in a
            // deletion.
            Status::Creating | Status::Updating | Status::Deleting | Status::Other(_) => {
                self.note_reading(connection, now);
                if matches!(self.state, ApprovalState::Approved | ApprovalState::Rejecting) {
                    let problem = Problem { code: format!("Status.{}", connection.status), request_id: None };
                    self.defer_with_backoff(&problem, None, now);
                }
            }
        }
        match self.state {
            ApprovalState::Activating if self.unconfirmed.is_none() => {
                (self.attempts, self.last_problem) = (0, None);
                self.remind_of_decision(None, now);
                self.next_step_at = self.reminder_state.stuck_at(&self.policy, self.since);
            }
            ApprovalState::Pending if self.unconfirmed.is_none() => {
                (self.attempts, self.last_problem) = (0, None);
                self.remind_of_request(now);
                self.schedule_next_check(now);
            }
            ApprovalState::Activating => self.remind_of_decision(None, now),
            // A status that passes stops no reminder of a drift.
            ApprovalState::Activated => {
                self.remind_of_drift(now);
                self.schedule_upkeep();
            }
            ApprovalState::Pending
            | ApprovalState::Approved
            | ApprovalState::Rejecting
            | ApprovalState::Rejected
            | ApprovalState::Expired
            | ApprovalState::Deleted
            | ApprovalState::Failed { .. } => {}
        }
    }

    /// Handles a reading of a usable connection. Only such a reading proves an accept, whoever made it.
    fn observe_activated(&mut self, connection: &Connection, now: Timestamp) {
        let event = || AuditEvent::Observed(Status::Activated);
        match &self.state {
            ApprovalState::Pending => {
                self.begin_activation(None, event(), now);
                self.finish_activation(connection, now);
            }
            ApprovalState::Approved => {
                let by = if self.may_have_called() { self.winner().cloned() } else { None };
                self.begin_activation(by, event(), now);
                self.finish_activation(connection, now);
            }
            ApprovalState::Activating => self.finish_activation(connection, now),
            ApprovalState::Rejecting => {
                self.reminder_state.escalated = true;
                self.fail(Problem { code: failure_code::ACCEPTED_ELSEWHERE.into(), request_id: None }, now);
            }
            ApprovalState::Failed { code } if code == failure_code::ACCEPTED_ELSEWHERE => self.clear_unconfirmed(),
            ApprovalState::Rejected
            | ApprovalState::Expired
            | ApprovalState::Deleted
            | ApprovalState::Failed { .. } => {
                self.correct_to_activated(connection, now);
            }
            ApprovalState::Activated => self.clear_unconfirmed(),
        }
    }

    /// Handles a connection that is still waiting after its expiry. Nobody can accept it any more, but a call of ours
    /// may have been in time.
    fn observe_past_expiry(&mut self, now: Timestamp) {
        let event = || AuditEvent::Observed(Status::Expired);
        match self.state {
            ApprovalState::Pending => self.finish(ApprovalState::Expired, NotificationKind::Expired, event(), now),
            ApprovalState::Approved | ApprovalState::Rejecting => {
                if !self.may_have_called() || self.confirm_call_had_no_effect(now) {
                    self.finish(ApprovalState::Expired, NotificationKind::Expired, event(), now);
                }
            }
            ApprovalState::Activating => {
                if self.confirm_reading(TransientReading::Waiting, now) {
                    self.finish(ApprovalState::Expired, NotificationKind::Expired, event(), now);
                }
            }
            ApprovalState::Activated
            | ApprovalState::Rejected
            | ApprovalState::Expired
            | ApprovalState::Deleted
            | ApprovalState::Failed { .. } => {
                self.clear_unconfirmed();
            }
        }
    }

    /// Sends the due reminders of a pending request.
    pub(super) fn remind_of_request(&mut self, now: Timestamp) {
        if self.is_past_expiry(now) {
            return;
        }
        let reminders =
            self.reminder_state.take_due_reminders(&self.policy, self.since, self.connection.expires_at, now);
        let waiting_s = now.duration_since(self.since).as_secs();
        for reminder in reminders {
            self.append_audit_event(AuditEvent::Reminded(reminder), now);
            self.enqueue(
                match (reminder, self.connection.expires_at) {
                    (Reminder::ExpiresSoon, Some(expires_at)) => NotificationKind::ExpiresSoon { expires_at },
                    (Reminder::Escalation, _) => NotificationKind::Escalated { waiting_s },
                    (Reminder::StillWaiting | Reminder::ExpiresSoon | Reminder::Stuck, _) => {
                        NotificationKind::Reminder { waiting_s }
                    }
                },
                now,
            );
        }
    }

    /// Tells people once that a decided request takes too long.
    pub(super) fn remind_of_decision(&mut self, problem: Option<&Problem>, now: Timestamp) {
        let for_s = now.duration_since(self.since);
        if for_s >= self.policy.stuck_after && self.reminder_state.mark_stuck() {
            self.append_audit_event(AuditEvent::Reminded(Reminder::Stuck), now);
            self.enqueue(NotificationKind::Stuck { for_s: for_s.as_secs(), problem: problem.cloned() }, now);
        }
    }

    pub(super) fn begin_activation(&mut self, by: Option<Decision>, event: AuditEvent, now: Timestamp) {
        let given = self.approval_count();
        if self.state == ApprovalState::Pending {
            // Somebody else accepted the connection, so the approvals so far had no effect.
            self.decisions.clear();
        }
        self.transition_to(ApprovalState::Activating, now);
        self.append_audit_event(event, now);
        self.next_step_at = self.reminder_state.stuck_at(&self.policy, self.since);
        match by {
            Some(decision) => self.enqueue(NotificationKind::Accepted(Some(decision)), now),
            None => self.report_bypass(given, true, now),
        }
    }

    /// Tells everybody that somebody accepted the connection outside peergate, also the channels of an escalation.
    pub(super) fn report_bypass(&mut self, given: u32, was_known: bool, now: Timestamp) {
        self.reminder_state.escalated = true;
        // A card that waits for its turn comes before the alarm.
        self.outbox.hasten(now);
        let needed = self.policy.needed_approvals();
        self.enqueue(NotificationKind::Bypassed { given, needed, was_known }, now);
    }

    pub(super) fn finish_activation(&mut self, connection: &Connection, now: Timestamp) {
        let approved_at = self.winner().map_or(self.since, |decision| decision.at);
        let changes = self.facts.changes_to(&connection.facts());
        self.connection = connection.clone();
        if connection.fingerprint() != self.fingerprint {
            // It is too late to stop the connection, so people must know.
            self.append_audit_event(AuditEvent::FactsDiffer { changes: changes.clone() }, now);
            self.enqueue(NotificationKind::FactsDiffer { changes }, now);
        }
        let kind = NotificationKind::Activated { took_s: now.duration_since(approved_at).as_secs() };
        self.finish(ApprovalState::Activated, kind, AuditEvent::Observed(Status::Activated), now);
        let changes = self.changes_since_approval(&self.connection, None);
        if !changes.is_empty() {
            self.drift_at_activation(changes, now);
        }
        self.check_routes(now);
    }

    pub(super) fn fail(&mut self, problem: Problem, now: Timestamp) {
        let verdict = self.winner().map_or(Verdict::Approve, |winner| winner.verdict);
        let kind = NotificationKind::Failed { verdict, problem: problem.clone() };
        self.finish(
            ApprovalState::Failed { code: problem.code.clone() },
            kind,
            AuditEvent::Failed(problem.clone()),
            now,
        );
        self.last_problem = Some(problem);
    }

    /// Enters a final state. Changes nothing if the state is already final.
    pub(super) fn finish(&mut self, state: ApprovalState, kind: NotificationKind, event: AuditEvent, now: Timestamp) {
        if self.state.is_final() {
            return;
        }
        if self.state == ApprovalState::Pending {
            self.decisions.clear();
        }
        self.transition_to(state, now);
        self.append_audit_event(event, now);
        self.next_step_at = None;
        self.enqueue(kind, now);
    }

    /// Like [`Approval::defer_with_backoff`] at first. After `MAX_UNKNOWN_ERROR_AGE`, a decided request fails.
    pub(super) fn defer_unknown_failure(&mut self, problem: &Problem, now: Timestamp) {
        let decided = matches!(self.state, ApprovalState::Approved | ApprovalState::Rejecting);
        if decided && now.duration_since(self.since) >= MAX_UNKNOWN_ERROR_AGE {
            self.fail(problem.clone(), now);
        } else {
            self.defer_with_backoff(problem, None, now);
        }
    }

    pub(super) fn defer_with_backoff(
        &mut self,
        problem: &Problem,
        retry_after: Option<SignedDuration>,
        now: Timestamp,
    ) {
        let wait = backoff(&self.id.to_string(), self.attempts, SignedDuration::from_mins(1));
        self.defer_for(problem, wait.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER)), now);
    }

    pub(super) fn defer_for(&mut self, problem: &Problem, wait: SignedDuration, now: Timestamp) {
        let is_past_grace = |expires_at: Timestamp| now.duration_since(expires_at) > EXPIRY_GRACE_PERIOD;
        match self.state {
            ApprovalState::Pending if self.connection.expires_at.is_some_and(is_past_grace) => {
                // Whatever the problem is, nobody can accept the connection any more.
                self.finish(
                    ApprovalState::Expired,
                    NotificationKind::Expired,
                    AuditEvent::Observed(Status::Expired),
                    now,
                );
            }
            ApprovalState::Approved | ApprovalState::Rejecting
                if !self.may_have_called() && self.connection.expires_at.is_some_and(is_past_grace) =>
            {
                self.finish(
                    ApprovalState::Expired,
                    NotificationKind::Expired,
                    AuditEvent::Observed(Status::Expired),
                    now,
                );
            }
            ApprovalState::Pending => self.remind_of_request(now),
            ApprovalState::Approved | ApprovalState::Rejecting => self.remind_of_decision(Some(problem), now),
            ApprovalState::Activating
            | ApprovalState::Activated
            | ApprovalState::Rejected
            | ApprovalState::Expired
            | ApprovalState::Deleted
            | ApprovalState::Failed { .. } => {}
        }
        if self.state.is_final() {
            self.remind_of_drift(now);
            self.schedule_upkeep();
            // A reading that requires confirmation is repeated.
            self.next_step_at = self.next_step_at.map(|at| at.max(now + wait.max(OBJECTION_RECHECK_INTERVAL)));
        } else {
            self.last_problem = Some(problem.clone());
            self.attempts = self.attempts.saturating_add(1);
            // No sender waits for this check, so it is not urgent.
            let min_wait =
                if self.state == ApprovalState::Pending { OBJECTION_RECHECK_INTERVAL } else { SignedDuration::ZERO };
            self.next_step_at = Some(now + wait.max(min_wait));
        }
    }
}

pub(super) fn acknowledged_event(verdict: Verdict, request_id: &str) -> AuditEvent {
    AuditEvent::Acknowledged { operation: verdict.operation().to_owned(), request_id: request_id.to_owned() }
}

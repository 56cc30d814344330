//! Pending requests: how peergate discovers and refreshes them, and what happens when their facts change.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    Approval, ApprovalId, ApprovalState, Approver, AuditEvent, History, NotificationKind, Outbox, PolicySnapshot,
    Principal, ReminderState, Upkeep, failure_code,
};
use crate::peering::{Connection, Problem, Status};
use crate::preflight::{self, Finding};

/// How often the facts of a request may change. Then the request fails, so that no requester can cause endless writes.
const MAX_FACT_CHANGES: usize = 20;

/// What a request is reviewed and decided on.
pub struct Review<'a> {
    /// The request's record.
    pub id: &'a ApprovalId,
    /// The new reading.
    pub connection: &'a Connection,
    /// What the configuration says about this reading.
    pub policy: &'a PolicySnapshot,
    /// Results of the checks of this reading.
    pub findings: &'a [Finding],
    /// Maps a principal to its approver. `None` if the approver may not approve this connection.
    pub eligible_approver: &'a (dyn Fn(&Principal) -> Option<Approver> + Sync),
}

/// The review of an approved request before a late accept.
pub(super) struct LateReview<'a> {
    pub(super) connection: &'a Connection,
    pub(super) policy: &'a PolicySnapshot,
    pub(super) findings: &'a [Finding],
    /// People who may no longer approve.
    pub(super) void: &'a [Approver],
}

impl Approval {
    /// Creates the record of a new request and its first notification. If its rule requires nobody, it is approved
    /// here.
    #[must_use]
    pub fn discover(review: &Review<'_>, now: Timestamp) -> Self {
        let mut record = Self::discover_for_manual_review(review, now);
        record.accept_by_rule(now);
        record.schedule_next_check(now);
        record
    }

    /// Like [`Approval::discover`], but no rule approves the request. The next refresh may do so.
    #[must_use]
    pub fn discover_for_manual_review(review: &Review<'_>, now: Timestamp) -> Self {
        let mut record = Self::new(review, now);
        record.enqueue(NotificationKind::Discovered, now);
        record.schedule_next_check(now);
        record
    }

    /// Creates the record of a connection that somebody accepted outside peergate, before peergate knew of the request.
    #[must_use]
    pub fn discover_bypass(review: &Review<'_>, now: Timestamp) -> Self {
        let mut record = Self::new(review, now);
        record.transition_to(ApprovalState::Activating, now);
        record.append_audit_event(AuditEvent::Observed(Status::Activated), now);
        record.report_bypass(0, false, now);
        record.finish_activation(review.connection, now);
        record
    }

    /// Refreshes a pending request from a new reading: adopts changes of its facts, its checks and the configuration.
    /// An ended request is reopened first if the reading shows that the connection is waiting. Returns whether the
    /// record changed.
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
            // The rule now requires fewer approvals, so the last approval completes the request.
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

    /// Whether to repeat the checks although nothing has changed: there are none, one has an objection or could not be
    /// made, or all passed and the rule accepts by itself.
    #[must_use]
    pub fn needs_recheck(&self) -> bool {
        self.findings.is_empty()
            || preflight::first_objection(&self.findings).is_some()
            || preflight::is_incomplete(&self.findings)
            || (self.policy.needs_no_approval() && preflight::all_passed(&self.findings))
    }

    pub(super) fn new(review: &Review<'_>, now: Timestamp) -> Self {
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
            upkeep: Upkeep::default(),
            requester_channels: BTreeSet::new(),
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

    /// Adopts the reading, the results of the checks and the configuration. Approvals of people who may no longer
    /// approve become void.
    pub(super) fn adopt_review(&mut self, review: &Review<'_>, now: Timestamp) {
        self.connection = review.connection.clone();
        let results_changed = !preflight::is_same_outcome(&self.findings, review.findings);
        if results_changed {
            self.findings = review.findings.to_vec();
        }
        let last_number = self.outbox.last().map(|notification| notification.number);
        let mut voided = vec![];
        for mut decision in std::mem::take(&mut self.decisions) {
            match (review.eligible_approver)(&decision.by.principal) {
                Some(by) if !self.decisions.iter().any(|earlier| earlier.by.is_same_person(&by)) => {
                    decision.by = by;
                    self.decisions.push(decision);
                }
                Some(_) | None => voided.push(decision.by),
            }
        }
        let before = std::mem::replace(&mut self.policy, review.policy.clone());
        let rule_changed = before.rule != self.policy.rule || before.approvals != self.policy.approvals;
        if rule_changed || !voided.is_empty() {
            let (rule, approvals) = (self.policy.rule.clone(), self.policy.approvals);
            self.append_audit_event(AuditEvent::RuleChanged { rule, approvals, void: voided.clone() }, now);
        }
        if rule_changed || !voided.is_empty() || before.channels != self.policy.channels {
            self.enqueue(NotificationKind::RuleChanged { void: voided }, now);
        }
        if results_changed
            && last_number.is_some()
            && last_number == self.outbox.last().map(|notification| notification.number)
        {
            self.enqueue(NotificationKind::Checked, now);
        }
    }

    /// Handles a reading with other facts than people were shown.
    pub(super) fn observe_change(&mut self, connection: &Connection, findings: &[Finding], now: Timestamp) {
        if self.state == ApprovalState::Deleted {
            // The reading shows that the connection exists.
            self.observe(connection, now);
        }
        if self.state == ApprovalState::Pending {
            self.note_reading(connection, now);
        }
        let stale = connection.fingerprint() != self.fingerprint;
        // After too many changes, an approved request fails on the next one. Requests in other states ignore it.
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

    /// Replaces the facts that people were shown. Nobody has decided about the new facts, so earlier decisions are
    /// void.
    fn replace_facts(&mut self, connection: &Connection, findings: &[Finding], now: Timestamp) {
        let changes = self.facts.changes_to(&connection.facts());
        let voided: Vec<_> = self.decisions.iter().map(|decision| decision.by.clone()).collect();
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
        self.append_audit_event(
            AuditEvent::Changed { fingerprint, changes: changes.clone(), void: voided.clone() },
            now,
        );
        if self.has_changed_too_often() {
            self.fail(Problem { code: failure_code::CHANGED_TOO_OFTEN.into(), request_id: None }, now);
        } else {
            self.enqueue(NotificationKind::Changed { changes, void: voided }, now);
        }
    }

    fn has_changed_too_often(&self) -> bool {
        self.history.iter().filter(|entry| matches!(entry.event, AuditEvent::Changed { .. })).count() > MAX_FACT_CHANGES
    }
}

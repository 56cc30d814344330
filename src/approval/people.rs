//! People's decisions about a request, and the call that carries a decision out.

use jiff::Timestamp;

use super::{
    Approval, ApprovalState, Approver, AuditEvent, ClientToken, Decision, DecisionError, NotificationKind, Principal,
    RequestId, Review, TokenPurpose, Verdict, failure_code,
};
use crate::peering::Fingerprint;
use crate::preflight;

impl Approval {
    /// Returns the record with the decision added. `before` is the stored record, `None` for a new request.
    ///
    /// # Errors
    /// [`DecisionError`] if the decision does not count. Then the stored record must not change.
    pub fn apply_decision(
        before: Option<&Self>,
        review: &Review<'_>,
        decision: Decision,
    ) -> Result<Self, DecisionError> {
        let at = decision.at;
        let mut record = match before {
            None => {
                let mut record = Self::new(review, at);
                record.enqueue(NotificationKind::Discovered, at);
                record
            }
            Some(record) => {
                record.check_decision(&decision)?;
                if record.fingerprint != decision.fingerprint {
                    return Err(DecisionError::FactsChanged);
                }
                record.clone()
            }
        };
        if record.state == ApprovalState::Deleted {
            // The sender's request has just read the connection, so it exists.
            record.observe(review.connection, at);
            record.check_decision(&decision)?;
        }
        if record.state != ApprovalState::Pending {
            record.check_room_for_generation()?;
            record.begin_generation(at);
        }
        record.note_reading(review.connection, at);
        record.adopt_review(review, at);
        record.check_decision(&decision)?;
        record.record_decision(decision);
        record.check_room_for_decision()?;
        if record.state != ApprovalState::Pending {
            // The process that stores this record makes the call.
            record.begin_call(at);
        }
        record.schedule_next_check(at);
        Ok(record)
    }

    /// Checks that a decision would count.
    ///
    /// # Errors
    /// [`DecisionError`] if it would not.
    pub fn check_decision(&self, decision: &Decision) -> Result<(), DecisionError> {
        // Repeating an overruled decision must not look like success.
        let overruled = self.winner().is_some_and(|winner| winner.verdict != decision.verdict);
        if self.check_replay(&RequestId::of(decision))? {
            let still_counts = self.decisions.iter().any(|earlier| earlier.request_key == decision.request_key);
            if self.state == ApprovalState::Pending && !still_counts {
                return Err(self.history.void_reason(&decision.request_key));
            }
            return Err(if overruled { DecisionError::AlreadyDecided } else { DecisionError::Repeated });
        }
        let decided_before =
            |earlier: &Decision| earlier.verdict == decision.verdict && earlier.by.is_same_person(&decision.by);
        let decided_before = self.decisions.iter().any(decided_before);
        match self.state {
            ApprovalState::Pending if decided_before => Err(DecisionError::Repeated),
            // A decision has just read the connection, so it exists.
            ApprovalState::Pending | ApprovalState::Deleted | ApprovalState::Failed { .. } => Ok(()),
            ApprovalState::Expired => Err(DecisionError::AlreadyDecided),
            ApprovalState::Approved
            | ApprovalState::Activating
            | ApprovalState::Activated
            | ApprovalState::Rejecting
            | ApprovalState::Rejected => {
                Err(if decided_before && !overruled { DecisionError::Repeated } else { DecisionError::AlreadyDecided })
            }
        }
    }

    /// Withdraws a person's approval while the request is pending. `approver_of` maps a principal to the current
    /// approver.
    ///
    /// # Errors
    /// [`DecisionError`] if the person has nothing to withdraw, or the request is not pending.
    pub fn withdraw_decision(
        &mut self,
        by: &Approver,
        request: &RequestId,
        approver_of: &dyn Fn(&Principal) -> Approver,
        now: Timestamp,
    ) -> Result<(), DecisionError> {
        if self.check_replay(request)? {
            return Err(DecisionError::Repeated);
        }
        if self.state != ApprovalState::Pending {
            return Err(DecisionError::AlreadyDecided);
        }
        let theirs = |decision: &Decision| {
            decision.by.is_same_person(by) || approver_of(&decision.by.principal).is_same_person(by)
        };
        if !self.decisions.iter().any(theirs) {
            return Err(DecisionError::NothingToWithdraw);
        }
        self.check_withdrawal(by)?;
        let mut withdrawn = by.clone();
        self.decisions.retain(|decision| {
            if theirs(decision) {
                // The same identity as in the history.
                withdrawn = decision.by.clone();
            }
            !theirs(decision)
        });
        let RequestId { key, content } = request.clone();
        self.append_audit_event(
            AuditEvent::Withdrawn { by: withdrawn.clone(), request_key: key, request_content: content },
            now,
        );
        self.enqueue(
            NotificationKind::Withdrawn {
                by: withdrawn,
                given: self.approval_count(),
                needed: self.policy.needed_approvals(),
            },
            now,
        );
        self.schedule_next_check(now);
        Ok(())
    }

    /// The decision that completed the request. `None` while the request is pending.
    #[must_use]
    pub fn winner(&self) -> Option<&Decision> {
        self.decisions.last().filter(|_| self.state != ApprovalState::Pending)
    }

    /// Whether a call of ours may have accepted the connection. Otherwise somebody outside peergate accepted it.
    #[must_use]
    pub fn is_accepted_by_us(&self) -> bool {
        self.may_have_called() && self.winner().is_some_and(|winner| winner.verdict == Verdict::Approve)
    }

    /// How many people have approved.
    #[must_use]
    pub fn approval_count(&self) -> u32 {
        let approvals = self.decisions.iter().filter(|decision| decision.verdict == Verdict::Approve);
        u32::try_from(approvals.count()).unwrap_or(u32::MAX)
    }

    /// Whether one of these channels showed exactly these facts no later than `at`, in whole seconds. Without a
    /// fingerprint, a request can only be about facts that a channel showed.
    #[must_use]
    pub fn was_shown(&self, fingerprint: &Fingerprint, channels: &[String], at: Timestamp) -> bool {
        let in_time =
            |shown: &Fingerprint, shown_at: Timestamp| shown == fingerprint && shown_at.as_second() <= at.as_second();
        channels.iter().any(|channel| {
            self.cards.get(channel).is_some_and(|card| in_time(&card.fingerprint, card.shown_at))
                || self.shown.get(channel).is_some_and(|shown| in_time(&shown.fingerprint, shown.shown_at))
        })
    }

    /// Whether any channel has ever shown the request.
    #[must_use]
    pub fn was_ever_shown(&self) -> bool {
        !self.cards.is_empty() || !self.shown.is_empty()
    }

    /// Whether people can decide about the request now. Then its card has buttons.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.policy.rule.is_some()
            && !self.is_past_expiry(now)
            && match &self.state {
                ApprovalState::Pending => true,
                ApprovalState::Failed { code } => *code != failure_code::ACCEPTED_ELSEWHERE,
                ApprovalState::Approved
                | ApprovalState::Activating
                | ApprovalState::Activated
                | ApprovalState::Rejecting
                | ApprovalState::Rejected
                | ApprovalState::Expired
                | ApprovalState::Deleted => false,
            }
    }

    /// Counts a decision. The decision that completes the request changes the state.
    pub(super) fn record_decision(&mut self, decision: Decision) {
        let (at, verdict) = (decision.at, decision.verdict);
        if verdict == Verdict::Reject {
            self.decisions.retain(|earlier| !earlier.by.is_same_person(&decision.by));
        }
        self.decisions.push(decision.clone());
        let given = self.approval_count();
        let state = match verdict {
            Verdict::Approve if given < self.policy.needed_approvals() => None,
            Verdict::Approve => Some(ApprovalState::Approved),
            Verdict::Reject => Some(ApprovalState::Rejecting),
        };
        if let Some(state) = state {
            self.complete_decision(state, at);
        }
        self.append_audit_event(AuditEvent::Decided(decision.clone()), at);
        self.enqueue(NotificationKind::Decided { decision, given, needed: self.policy.needed_approvals() }, at);
    }

    pub(super) fn complete_decision(&mut self, state: ApprovalState, at: Timestamp) {
        let verdict = if state == ApprovalState::Rejecting { Verdict::Reject } else { Verdict::Approve };
        self.transition_to(state, at);
        self.next_step_at = Some(at);
        self.client_token = self.derive_token(verdict);
    }

    pub(super) fn derive_token(&self, verdict: Verdict) -> Option<ClientToken> {
        let winner = self.decisions.last()?;
        let (account, call) = (self.facts.accepter.account, TokenPurpose::Decided { generation: self.generation });
        Some(ClientToken::derive(&winner.by.principal, account, &self.id.instance_id, verdict, call))
    }

    /// Approves the request if its rule requires nobody and every check passed.
    pub(super) fn accept_by_rule(&mut self, now: Timestamp) {
        if self.policy.needs_no_approval() && preflight::all_passed(&self.findings) {
            self.record_decision(Decision {
                verdict: Verdict::Approve,
                by: Approver::peergate(&self.id.target),
                at: now,
                fingerprint: self.fingerprint.clone(),
                reason: None,
                request_key: format!("rule/{}/{}", self.generation, self.fingerprint),
                request_content: None,
            });
            // The process that stores this record makes the call.
            self.begin_call(now);
        }
    }
}

//! How people decide about a request, and the state of the call that carries their decision out.

use jiff::Timestamp;

use super::call::{CALL_LEASE, OwnCall};
use super::{
    Approval, Approver, Call, CallResult, ClientToken, Closed, Decision, Grounds, News, Principal, RequestId, State,
    Verdict, What, code,
};
use crate::peering::Fingerprint;
use crate::preflight;

impl Approval {
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
        if record.state == State::Deleted {
            // The sender's request has just read it: it exists.
            record.seen(grounds.connection, at);
            record.is_open_to(&decision)?;
        }
        if record.state != State::Pending {
            record.has_room_to_start_anew()?;
            record.start_anew(at);
        }
        record.note_reading(grounds.connection, at);
        record.take(grounds, at);
        record.is_open_to(&decision)?;
        record.cast(decision);
        record.has_room_for_decision()?;
        if record.state != State::Pending {
            // The process that stores this makes the call.
            record.begin_call(at);
        }
        record.wait(at);
        Ok(record)
    }

    /// Whether a decision still counts.
    ///
    /// # Errors
    /// [`Closed`], when it does not.
    pub fn is_open_to(&self, decision: &Decision) -> Result<(), Closed> {
        // Repeating an overruled decision must not look like success.
        let overruled = self.winner().is_some_and(|winner| winner.verdict != decision.verdict);
        if self.knows_request(&RequestId::of(decision))? {
            let stands = self.decisions.iter().any(|earlier| earlier.request_key == decision.request_key);
            if self.state == State::Pending && !stands {
                return Err(self.history.how_void(&decision.request_key));
            }
            return Err(if overruled { Closed::Over } else { Closed::Repeated });
        }
        let said_before = |earlier: &Decision| earlier.verdict == decision.verdict && earlier.by.is(&decision.by);
        let said_before = self.decisions.iter().any(said_before);
        match self.state {
            State::Pending if said_before => Err(Closed::Repeated),
            // A decision has just read it: it is not deleted.
            State::Pending | State::Deleted | State::Failed { .. } => Ok(()),
            State::Expired => Err(Closed::Over),
            State::Approved | State::Activating | State::Activated | State::Rejecting | State::Rejected => {
                Err(if said_before && !overruled { Closed::Repeated } else { Closed::Over })
            }
        }
    }

    /// Takes an approval back, while the request is undecided. `who` maps a principal to the current approver.
    ///
    /// # Errors
    /// [`Closed`], when there is nothing to take back any more.
    pub fn withdraw(
        &mut self,
        by: &Approver,
        request: &RequestId,
        who: &dyn Fn(&Principal) -> Approver,
        now: Timestamp,
    ) -> Result<(), Closed> {
        if self.knows_request(request)? {
            return Err(Closed::Repeated);
        }
        if self.state != State::Pending {
            return Err(Closed::Over);
        }
        let theirs = |decision: &Decision| decision.by.is(by) || who(&decision.by.principal).is(by);
        if !self.decisions.iter().any(theirs) {
            return Err(Closed::NothingToWithdraw);
        }
        self.may_withdraw(by)?;
        let mut withdrawn = by.clone();
        self.decisions.retain(|decision| {
            if theirs(decision) {
                // As in the history.
                withdrawn = decision.by.clone();
            }
            !theirs(decision)
        });
        let RequestId { key, content } = request.clone();
        self.log(What::Withdrawn { by: withdrawn.clone(), request_key: key, request_content: content }, now);
        self.tell(News::Withdrawn { by: withdrawn, given: self.given(), needed: self.terms.needed() }, now);
        self.wait(now);
        Ok(())
    }

    /// The decision that counts: the one that completed it.
    #[must_use]
    pub fn winner(&self) -> Option<&Decision> {
        self.decisions.last().filter(|_| self.state != State::Pending)
    }

    /// Whether a call of ours may have made the accept. Otherwise somebody outside peergate did.
    #[must_use]
    pub fn is_accepted_by_us(&self) -> bool {
        self.may_have_called() && self.winner().is_some_and(|winner| winner.verdict == Verdict::Approve)
    }

    /// How many people have approved.
    #[must_use]
    pub fn given(&self) -> u32 {
        let approvals = self.decisions.iter().filter(|decision| decision.verdict == Verdict::Approve);
        u32::try_from(approvals.count()).unwrap_or(u32::MAX)
    }

    /// Whether one of these channels had shown exactly these facts by the second of `at`: a request without a
    /// fingerprint can only be about them.
    #[must_use]
    pub fn was_shown(&self, fingerprint: &Fingerprint, channels: &[String], at: Timestamp) -> bool {
        let in_time =
            |shown: &Fingerprint, shown_at: Timestamp| shown == fingerprint && shown_at.as_second() <= at.as_second();
        channels.iter().any(|channel| {
            self.cards.get(channel).is_some_and(|card| in_time(&card.fingerprint, card.shown_at))
                || self.shown.get(channel).is_some_and(|shown| in_time(&shown.fingerprint, shown.shown_at))
        })
    }

    /// Whether any channel was ever shown anything of it.
    #[must_use]
    pub fn was_ever_shown(&self) -> bool {
        !self.cards.is_empty() || !self.shown.is_empty()
    }

    /// Whether people can decide about it now: its card has buttons.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.terms.rule.is_some()
            && !self.is_past_expiry(now)
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

    /// Counts a decision; the one that completes it decides.
    pub(super) fn cast(&mut self, decision: Decision) {
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

    pub(super) fn decided(&mut self, state: State, at: Timestamp) {
        let verdict = if state == State::Rejecting { Verdict::Reject } else { Verdict::Approve };
        self.enter(state, at);
        self.next_step_at = Some(at);
        self.client_token = self.derive_token(verdict);
    }

    pub(super) fn derive_token(&self, verdict: Verdict) -> Option<ClientToken> {
        let winner = self.decisions.last()?;
        let (account, call) = (self.facts.accepter.account, Call::Decided { generation: self.generation });
        Some(ClientToken::derive(&winner.by.principal, account, &self.id.instance_id, verdict, call))
    }

    /// A call begins: the process that stores this makes it, and no other process does so for [`CALL_LEASE`].
    pub fn begin_call(&mut self, now: Timestamp) {
        self.own_call = Some(OwnCall::begin(self.own_call.as_ref(), self.generation, now));
        // Earlier readings say nothing about this call.
        self.doubt = None;
        self.next_step_at = Some(now + CALL_LEASE);
    }

    /// The call that was begun has ended.
    pub fn finish_call(&mut self, result: CallResult) {
        if let Some(call) = self.own_call.as_mut().filter(|call| call.generation == self.generation) {
            call.finish(result);
        }
    }

    /// Whether another process may be making the call now.
    #[must_use]
    pub fn is_being_called(&self, now: Timestamp) -> bool {
        self.own_call.as_ref().is_some_and(|call| call.is_under_way(self.generation, now))
    }

    /// Whether a call of this generation may have reached Alibaba Cloud.
    #[must_use]
    pub fn may_have_called(&self) -> bool {
        self.own_call.as_ref().is_some_and(|call| call.may_have_reached(self.generation))
    }

    /// Approves it, if its rule needs nobody and nothing at all is odd about it.
    pub(super) fn accept_by_rule(&mut self, now: Timestamp) {
        if self.terms.accepts_by_itself() && preflight::all_passed(&self.findings) {
            self.cast(Decision {
                verdict: Verdict::Approve,
                by: Approver::peergate(&self.id.target),
                at: now,
                fingerprint: self.fingerprint.clone(),
                reason: None,
                request_key: format!("rule/{}/{}", self.generation, self.fingerprint),
                request_content: None,
            });
            // The process that stores this makes the call.
            self.begin_call(now);
        }
    }
}

//! From an authenticated command to its reply: reads the connection, asks the policy, makes the checks, stores the
//! decision, and carries it out.
//!
//! Knows nothing of HTTP.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::carry_out::{OutdatedReading, store_decision};
use super::ended::{shown_end, store_end};
use super::list::{list_all_peerings, list_open_requests};
use super::old_card::refuse_old_card;
use super::reply::{decision_error_reply, missing_reply, objection_reply, read_failure_reply, store_failure_reply};
use crate::accept;
use crate::alicloud::Class;
use crate::app::App;
use crate::approval::{
    Approval, ApprovalId, Approver, Decision, DecisionError, Event, PolicySnapshot, Principal, RequestId, Review,
    Verdict, hash_request,
};
use crate::chat::{Action, Command, CommandRequest, ConnectionCommand, Dependency, Reply};
use crate::peering::{Connection, Fingerprint};
use crate::preflight::{self, Check, CheckOutcome, Finding, Objection};
use crate::store::{Saved, Stored};

/// How long a sender waits for the checks that call Alibaba Cloud.
const INTERACTIVE_CHECKS_TIMEOUT: Duration = Duration::from_millis(700);

/// Carries out a command and returns its reply, by `deadline`.
pub(super) async fn reply_to_command(app: &App, request: &CommandRequest, now: Timestamp, deadline: Instant) -> Reply {
    let command = match &request.command {
        Command::List { target } => return list_open_requests(app, target.as_deref(), deadline).await,
        Command::Inventory { target } => {
            return list_all_peerings(app, target.as_deref(), &request.by, now, deadline).await;
        }
        Command::Connection(command) => command,
    };
    if let Some(chars) = command.oversized_reason() {
        return Reply::ReasonTooLong(chars);
    }
    let Some(id) = approval_id(app, command) else {
        return Reply::UnknownTarget(app.config.targets.keys().cloned().collect());
    };
    let attempt = Attempt::new(app, request, command, &id, now, deadline);
    match command.action {
        Action::Withdraw => attempt.withdraw_decision().await,
        Action::Decide(_) | Action::Acknowledge | Action::DryRun | Action::Status => attempt.execute_command().await,
    }
}

/// The refusal of a decision that cannot count with any reason. `None` if its sender can be asked for a reason.
pub(super) async fn refusal_before_reason(
    app: &App,
    request: &CommandRequest,
    now: Timestamp,
    deadline: Instant,
) -> Option<Reply> {
    let Command::Connection(command) = &request.command else { return None };
    let Action::Decide(verdict) = command.action else { return None };
    let id = approval_id(app, command)?;
    Attempt::new(app, request, command, &id, now, deadline).refuse_in_advance(verdict).await
}

fn approval_id(app: &App, command: &ConnectionCommand) -> Option<ApprovalId> {
    let (target, _) = app.config.find_target(command.target.as_deref())?;
    Some(ApprovalId { target: target.to_owned(), instance_id: command.instance_id.clone() })
}

/// Id of the request and hash of its content.
fn request_id(request: &CommandRequest, command: &ConnectionCommand) -> RequestId {
    let verb = match command.action {
        Action::Decide(verdict) => verdict.name(),
        Action::Withdraw => "withdraw",
        Action::Acknowledge => "acknowledge",
        Action::DryRun => "dry-run",
        Action::Status => "status",
    };
    let content = hash_request(verb, &request.by, command.reason.as_deref(), command.seen_fingerprint.as_ref());
    RequestId { key: request.origin.request_key.clone(), content: Some(content) }
}

/// A reading of the connection, made for this command.
struct Reading {
    connection: Connection,
    read_at: Instant,
}

/// Why the connection could not be read.
enum ReadError {
    /// The connection does not exist.
    Missing,
    /// The call to Alibaba Cloud failed.
    Failed(accept::Error),
    /// No call was made, because people have used up their readings.
    BudgetSpent,
}

/// A command about one connection, and everything that it requires.
pub(super) struct Attempt<'a> {
    pub(super) app: &'a App,
    request: &'a CommandRequest,
    command: &'a ConnectionCommand,
    pub(super) id: &'a ApprovalId,
    pub(super) by: Approver,
    now: Timestamp,
    pub(super) deadline: Instant,
}

impl<'a> Attempt<'a> {
    fn new(
        app: &'a App,
        request: &'a CommandRequest,
        command: &'a ConnectionCommand,
        id: &'a ApprovalId,
        now: Timestamp,
        deadline: Instant,
    ) -> Self {
        let by = app.config.policy.approver_for(request.by.clone());
        Self { app, request, command, id, by, now, deadline }
    }

    /// Refuses a decision that cannot count, as the record shows. Reads the connection only if there is no record.
    async fn refuse_in_advance(self, verdict: Verdict) -> Option<Reply> {
        let Self { app, id, deadline, .. } = self;
        let stored = match timeout_at(deadline, app.store.load(id)).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => return Some(store_failure_reply(&error)),
            Err(_elapsed) => return Some(Reply::Unavailable(Dependency::Store)),
        };
        if let Some(Stored { approval, .. }) = &stored
            && let Err(error) = approval.check_decision(&self.decision_about(verdict, approval.connection()))
        {
            return Some(decision_error_reply(error, approval.clone()));
        }
        if let Some(old) = self.refuse_old_card(stored.as_ref()).await {
            return Some(old);
        }
        let connection = match stored {
            Some(stored) => stored.approval.connection().clone(),
            None => timeout_at(deadline, self.read_within_budget(true)).await.ok()?.ok()?,
        };
        app.config.policy.authorize_decision(&id.target, &connection, &self.by, verdict).err().map(Reply::Refused)
    }

    /// Carries out a command that requires a reading. Loads the record at the same time.
    async fn execute_command(self) -> Reply {
        let Self { app, command, id, deadline, .. } = self;
        let decides = matches!(command.action, Action::Decide(_) | Action::Acknowledge);
        let (stored, connection) = tokio::join!(
            timeout_at(deadline, app.store.load(id)),
            timeout_at(deadline, self.read_within_budget(decides))
        );
        let stored = match stored {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => return store_failure_reply(&error),
            Err(_elapsed) => return Reply::Unavailable(Dependency::Store),
        };
        if let Some(stored) = &stored {
            // If the request is already decided, the reply says by whom, even if the reading failed.
            let error = match command.action {
                Action::Decide(verdict) => {
                    stored.approval.check_decision(&self.decision_about(verdict, stored.approval.connection())).err()
                }
                Action::Acknowledge | Action::DryRun | Action::Status | Action::Withdraw => {
                    let known = stored.approval.check_replay(&request_id(self.request, command));
                    known.err().filter(|error| *error == DecisionError::IdReused)
                }
            };
            if let Some(error) = error {
                return decision_error_reply(error, stored.approval.clone());
            }
        }
        if let Some(old) = self.refuse_old_card(stored.as_ref()).await {
            return old;
        }
        let connection = match connection {
            Ok(Ok(connection)) => connection,
            Ok(Err(ReadError::BudgetSpent)) => return Reply::TooManyReads,
            Ok(Err(ReadError::Missing)) => return missing_reply(command.action, stored, id.clone()),
            Ok(Err(ReadError::Failed(error))) => return read_failure_reply(&error),
            Err(_elapsed) => return Reply::Unavailable(Dependency::Alicloud),
        };
        match command.action {
            Action::Decide(verdict) => {
                let reading = Reading { connection, read_at: Instant::now() };
                self.make_decision(verdict, stored, &reading).await
            }
            Action::Acknowledge => self.acknowledge_drift(stored, &connection).await,
            Action::DryRun => self.reply_to_dry_run(connection).await,
            Action::Status | Action::Withdraw => {
                let approval = stored.map(|stored| Box::new(stored.approval));
                Reply::Status { connection: Box::new(connection), approval, target: id.target.clone() }
            }
        }
    }

    /// Withdraws an approval. This requires no reading and no permission.
    async fn withdraw_decision(self) -> Reply {
        let Self { app, command, id, now, deadline, ref by, .. } = self;
        let approver_of = |principal: &Principal| app.config.policy.approver_for(principal.clone());
        let request = request_id(self.request, command);
        let withdrawn = async {
            let stored = app.store.load(id).await?;
            if let Some(old) = self.refuse_old_card(stored.as_ref()).await {
                return Ok(old);
            }
            let Some(stored) = stored else { return Ok(Reply::NothingToWithdraw) };
            let mut error = None;
            let stored = app
                .store
                .update(stored, |approval| {
                    error = approval.withdraw_decision(by, &request, &approver_of, now).err();
                    error.is_none()
                })
                .await?;
            Ok(match error {
                None => Reply::Withdrawn(Box::new(stored.approval)),
                Some(error) => decision_error_reply(error, stored.approval),
            })
        };
        match timeout_at(deadline, withdrawn).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => store_failure_reply(&error),
            Err(_elapsed) => Reply::Unavailable(Dependency::Store),
        }
    }

    /// A button only decides on the current message of its card. On another message, the reply brings the current card.
    async fn refuse_old_card(&self, stored: Option<&Stored>) -> Option<Reply> {
        match self.command.action {
            Action::Decide(_) | Action::Withdraw | Action::Acknowledge => {
                refuse_old_card(self.app, self.request, stored, self.now, self.deadline).await
            }
            Action::DryRun | Action::Status => None,
        }
    }

    /// Reads the connection, if the budget for people allows it.
    async fn read_within_budget(&self, is_decision: bool) -> Result<Connection, ReadError> {
        let Self { app, id, now, .. } = *self;
        if !is_decision && app.read_budget.is_known_missing(id, now) {
            return Err(ReadError::Missing);
        }
        let calls_per_minute = app.config.targets.get(&id.target).map_or(0, |target| target.calls_per_minute);
        let may_decide = is_decision && app.config.policy.may_decide_anything(&self.by);
        let taken = app.read_budget.take_reading(&id.target, &self.request.by, may_decide, calls_per_minute, now);
        if !taken {
            return Err(ReadError::BudgetSpent);
        }
        match accept::read_connection(app, &id.target, &id.instance_id, now).await {
            Err(error) if error.class() == Class::Missing => {
                app.read_budget.note_missing(id, now);
                Err(ReadError::Missing)
            }
            read => read.map_err(ReadError::Failed),
        }
    }

    pub(super) fn decision_about(&self, verdict: Verdict, connection: &Connection) -> Decision {
        let RequestId { key, content } = request_id(self.request, self.command);
        Decision {
            verdict,
            by: self.by.clone(),
            at: self.now,
            fingerprint: connection.fingerprint(),
            reason: self.command.reason.clone(),
            request_key: key,
            request_content: content,
        }
    }

    async fn run_checks(&self, connection: &Connection) -> Vec<Finding> {
        let until = self.deadline.min(Instant::now() + INTERACTIVE_CHECKS_TIMEOUT);
        let (by, key) = (&self.request.by, &self.request.origin.request_key);
        accept::run_checks(self.app, &self.id.target, connection, by, key, self.now, until).await
    }

    async fn reply_to_dry_run(self, connection: Connection) -> Reply {
        if let Err(refusal) =
            self.app.config.policy.authorize_decision(&self.id.target, &connection, &self.by, Verdict::Approve)
        {
            return Reply::Refused(refusal);
        }
        if self.command.seen_fingerprint.as_ref().is_some_and(|seen| !seen.is_prefix_of(&connection.fingerprint())) {
            return Reply::ConnectionChanged;
        }
        let findings = self.run_checks(&connection).await;
        if let Some(objection) = preflight::first_objection(&findings) {
            return objection_reply(objection);
        }
        let dry_run = findings.iter().find(|finding| finding.check == Check::DryRun).map(|finding| &finding.outcome);
        match dry_run {
            Some(CheckOutcome::Passed) => Reply::DryRunPassed { connection: Box::new(connection), findings },
            Some(CheckOutcome::Unknown(Some(problem))) if accept::is_credentials_problem(problem) => {
                Reply::CredentialsRefused(problem.clone())
            }
            Some(CheckOutcome::Unknown(_) | CheckOutcome::Warning(_) | CheckOutcome::Objection(_)) | None => {
                Reply::Unavailable(Dependency::Alicloud)
            }
        }
    }

    /// Asks the policy, checks what the sender saw and the connection itself, and stores the decision.
    async fn make_decision(self, verdict: Verdict, stored: Option<Stored>, reading: &Reading) -> Reply {
        let Reading { connection, read_at } = reading;
        let Self { app, command, id, now, deadline, .. } = self;
        let policy = &app.config.policy;
        let rule = match policy.authorize_decision(&id.target, connection, &self.by, verdict) {
            Ok(rule) => rule,
            Err(refusal) => return Reply::Refused(refusal),
        };
        if rule.require_reason && command.reason.is_none() {
            return Reply::ReasonRequired { rule: rule.name.clone(), verdict, id: id.clone() };
        }
        if !connection.is_waiting(now) {
            // Nobody can decide about this connection, so it gets no card.
            let findings = self.check_connection(connection);
            if let Some(objection) = preflight::first_objection_to_rejecting(&findings) {
                return self.reply_to_objection(objection, verdict, connection).await;
            }
        }
        let snapshot = policy.snapshot_for(&id.target, connection);
        if !self.has_seen_facts(stored.as_ref(), &connection.fingerprint(), &snapshot) {
            return self.refuse_unseen_facts(stored, connection, &snapshot).await;
        }
        let stored = match stored {
            Some(stored) if *stored.approval.fingerprint() != connection.fingerprint() => {
                self.store_changed_facts(stored, connection).await
            }
            stored => stored,
        };
        let findings = match verdict {
            Verdict::Approve => self.run_checks(connection).await,
            Verdict::Reject => self.check_connection(connection),
        };
        let objection = match verdict {
            Verdict::Approve => preflight::first_objection(&findings),
            Verdict::Reject => preflight::first_objection_to_rejecting(&findings),
        };
        if let Some(objection) = objection {
            return self.reply_to_objection(objection, verdict, connection).await;
        }
        let decision = self.decision_about(verdict, connection);
        let eligible_approver = |principal: &Principal| policy.eligible_approver(&id.target, connection, principal);
        let review =
            Review { id, connection, policy: &snapshot, findings: &findings, eligible_approver: &eligible_approver };
        match store_decision(app, stored, &review, *read_at, decision, deadline).await {
            Ok(reply) => reply,
            // The record is newer than the reading, so only the refusal is stored.
            Err(OutdatedReading(theirs)) => self.store_refusal(theirs).await,
        }
    }

    /// Refuses a decision about outdated facts, also for later retries of the same request.
    pub(super) async fn store_refusal(&self, stored: Stored) -> Reply {
        let Self { app, command, now, deadline, .. } = *self;
        let request = request_id(self.request, command);
        let refuse = |approval: &mut Approval| {
            approval.refuse_request(&request, now);
            true
        };
        match timeout_at(deadline, app.store.update(stored, refuse)).await {
            Ok(Ok(_)) => Reply::ConnectionChanged,
            Ok(Err(error)) => store_failure_reply(&error),
            Err(_elapsed) => Reply::Unavailable(Dependency::Store),
        }
    }

    /// Whether the sender can have seen these facts. Then the request names their fingerprint, or a channel showed them
    /// before the request was signed.
    pub(super) fn has_seen_facts(
        &self,
        stored: Option<&Stored>,
        fresh: &Fingerprint,
        snapshot: &PolicySnapshot,
    ) -> bool {
        if let Some(seen) = &self.command.seen_fingerprint {
            return seen.is_prefix_of(fresh);
        }
        let channels = [snapshot.channels.as_slice(), &self.app.config.policy.defaults.channels].concat();
        stored.is_some_and(|stored| stored.approval.was_shown(fresh, &channels, self.request.origin.signed_at))
    }

    /// Refuses a decision about facts that its sender cannot have seen. The refusal is stored first, because a retry
    /// may arrive after a channel showed the facts.
    async fn refuse_unseen_facts(
        &self,
        stored: Option<Stored>,
        connection: &Connection,
        snapshot: &PolicySnapshot,
    ) -> Reply {
        let Self { app, command, id, now, deadline, .. } = *self;
        let request = request_id(self.request, command);
        let other_facts_shown = command.seen_fingerprint.is_some()
            || stored.as_ref().is_some_and(|stored| {
                stored.approval.was_ever_shown() || *stored.approval.fingerprint() != connection.fingerprint()
            });
        let known = stored.as_ref().map(|stored| stored.approval.fingerprint().clone());
        let is_known = known.as_ref() == Some(&connection.fingerprint());
        let findings = if is_known { vec![] } else { self.run_checks(connection).await };
        if stored.is_none()
            && let Some(objection) = preflight::first_objection(&findings)
        {
            // Nobody can decide about this connection, so it gets no card.
            return objection_reply(objection);
        }
        let refuse = async {
            let stored = if let Some(stored) = stored {
                stored
            } else {
                let policy = &app.config.policy;
                let eligible_approver =
                    |principal: &Principal| policy.eligible_approver(&id.target, connection, principal);
                let findings = findings.as_slice();
                let review =
                    Review { id, connection, policy: snapshot, findings, eligible_approver: &eligible_approver };
                let mut record = Approval::discover_for_manual_review(&review, now);
                record.refuse_request(&request, now);
                match app.store.save(&record, None).await? {
                    Saved::Done(_) => return Ok(()),
                    Saved::Conflict(theirs) => theirs,
                }
            };
            // The card must show the current facts.
            let event = Event::Changed { connection: Box::new(connection.clone()), findings };
            let refuse = |approval: &mut Approval| {
                // Another process may have stored a later reading.
                let is_current = known.as_ref() == Some(approval.fingerprint());
                if is_current && !is_known && approval.apply_event(&event, now) {
                    accept::log_event(approval, &event);
                }
                approval.refuse_request(&request, now);
                true
            };
            app.store.update(stored, refuse).await.map(|_| ())
        };
        match timeout_at(deadline, refuse).await {
            Ok(Ok(())) if other_facts_shown => Reply::ConnectionChanged,
            Ok(Ok(())) => Reply::FactsNotShown,
            Ok(Err(error)) => store_failure_reply(&error),
            Err(_elapsed) => Reply::Unavailable(Dependency::Store),
        }
    }

    /// Makes the checks that require only the reading.
    fn check_connection(&self, connection: &Connection) -> Vec<Finding> {
        let target = self.app.config.targets.get(&self.id.target);
        target.map(|target| preflight::check_connection(connection, target.account, self.now)).unwrap_or_default()
    }

    /// The reply to an objection. If another decision won since the record was loaded, or the connection has ended, the
    /// reply says so.
    async fn reply_to_objection(&self, objection: &Objection, verdict: Verdict, connection: &Connection) -> Reply {
        let Self { app, id, now, deadline, .. } = *self;
        let stored = timeout_at(deadline, app.store.load(id)).await.ok().and_then(Result::ok).flatten();
        let Some(stored) = stored else { return objection_reply(objection) };
        if let Err(error) = stored.approval.check_decision(&self.decision_about(verdict, connection)) {
            return decision_error_reply(error, stored.approval);
        }
        let Some(ended) = shown_end(objection, connection) else { return objection_reply(objection) };
        store_end(app, stored, ended, now, deadline).await.unwrap_or_else(|| objection_reply(objection))
    }

    /// Stores the new facts, so that the card shows them. Returns `None` if they could not be stored.
    async fn store_changed_facts(&self, stored: Stored, connection: &Connection) -> Option<Stored> {
        let Self { app, now, deadline, .. } = *self;
        let findings = self.run_checks(connection).await;
        let event = Event::Changed { connection: Box::new(connection.clone()), findings };
        let known = stored.approval.fingerprint().clone();
        // Another process may have stored a later reading.
        let redraw = |approval: &mut Approval| *approval.fingerprint() == known && approval.apply_event(&event, now);
        match timeout_at(deadline, app.store.update(stored, redraw)).await {
            Ok(Ok(stored)) => {
                accept::log_event(&stored.approval, &event);
                Some(stored)
            }
            Ok(Err(error)) => {
                store_failure_reply(&error);
                None
            }
            // The watcher finds the new facts as well.
            Err(_elapsed) => None,
        }
    }
}

//! From a command of somebody we know to what comes of it: read, ask the policy, check, write once, carry out.
//!
//! Knows nothing of HTTP.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::accept::{self, CallOutcome, NextStep};
use crate::alicloud::{self, Class};
use crate::app::App;
use crate::approval::{
    Approval, ApprovalId, ApprovalState, Approver, CallResult, Decision, DecisionError, Event, PolicySnapshot,
    Principal, RequestId, Review, Verdict, hash_request,
};
use crate::aws;
use crate::chat::binding;
use crate::chat::{Action, Click, ClickedCard, Command, CommandRequest, ConnectionCommand, Dependency, Reply};
use crate::credentials;
use crate::logging::Chain;
use crate::peering::{Connection, Status};
use crate::preflight::{self, Check, CheckOutcome, Finding, Objection};
use crate::store::{self, IndexEntry, Saved, Stored, UNFINISHED_DUE_BEFORE};

/// How often a decision is made again because the record changed meanwhile.
const MAX_DECISION_TRIES: u32 = 5;
/// What the checks that ask Alibaba Cloud may take of a sender's time.
const INTERACTIVE_CHECKS_TIMEOUT: Duration = Duration::from_millis(700);
/// A reading that is older is made again before the call.
const MAX_READING_AGE: Duration = Duration::from_secs(1);
/// For so many hours after its own, a private answer's buttons decide.
const PRIVATE_REPLY_HOURS: i64 = 11;
/// The most that a list shows.
const MAX_LISTED: usize = 30;

/// Carries out a command, until `deadline`.
pub(super) async fn reply_to_command(app: &App, request: &CommandRequest, now: Timestamp, deadline: Instant) -> Reply {
    let about = match &request.command {
        Command::List { target } => return list_open_requests(app, target.as_deref(), deadline).await,
        Command::Connection(about) => about,
    };
    let Some(id) = approval_id(app, about) else {
        return Reply::UnknownTarget(app.config.targets.keys().cloned().collect());
    };
    let by = app.config.policy.approver_for(request.by.clone());
    match about.action {
        Action::Withdraw => {
            let wish = Attempt { app, request, command: about, id: &id, by, now, deadline };
            wish.withdraw_decision().await
        }
        Action::Decide(_) | Action::DryRun | Action::Status => {
            let wish = Attempt { app, request, command: about, id: &id, by, now, deadline };
            wish.execute_command().await
        }
    }
}

/// What a decision would be told if it is too late for it; what is not too late, is asked for a reason.
pub(super) async fn reply_if_too_late(
    app: &App,
    request: &CommandRequest,
    now: Timestamp,
    deadline: Instant,
) -> Option<Reply> {
    let Command::Connection(about) = &request.command else { return None };
    let Action::Decide(verdict) = about.action else { return None };
    let stored = timeout_at(deadline, app.store.load(&approval_id(app, about)?)).await.ok()?.ok()??;
    let by = app.config.policy.approver_for(request.by.clone());
    let decision = build_decision(verdict, by, request, about, stored.approval.fingerprint.clone(), now);
    stored.approval.check_decision(&decision).err().map(|closed| decision_error_reply(closed, stored.approval))
}

/// Whether the message that somebody clicked on is the one that we know for this card.
fn is_current_card(
    clicked: &ClickedCard,
    by: &Principal,
    id: &ApprovalId,
    record: Option<&Approval>,
    now: Timestamp,
) -> bool {
    let hour = binding::hours_since_epoch(now);
    // A private answer decides for its person.
    if (hour - PRIVATE_REPLY_HOURS..=hour).any(|hour| binding::private_card_id(by.as_str(), hour) == clicked.card_id) {
        return true;
    }
    let Some(record) = record else { return false };
    if let Some(card) = record.cards.values().find(|card| card.id == clicked.card_id) {
        return clicked.message_ref.as_ref() == Some(&card.reference);
    }
    // Each notice is a message of its own. Incoming webhooks do not say where it is.
    let id = id.to_string();
    let is_notice = |channel: &String, number| binding::notification_card_id(&id, channel, number) == clicked.card_id;
    record.outbox.iter().any(|notice| notice.deliveries.keys().any(|channel| is_notice(channel, notice.number)))
}

/// Whether the clicked card was replaced: the record knows another one in the same place.
fn is_replaced(record: Option<&Approval>, message: Option<&str>) -> bool {
    let place = |reference: &str| reference.rsplit_once('/').map(|(channel, _)| channel.to_owned());
    let (Some(record), Some(message)) = (record, message) else { return false };
    let mut here = record.cards.values().filter(|card| place(&card.reference) == place(message)).peekable();
    here.peek().is_some() && here.all(|card| card.reference != message)
}

/// The answer to a click on a button that decides nothing.
fn old_card_reply(record: Option<&Approval>, message: Option<&str>, now: Timestamp) -> Reply {
    let alone = record.filter(|record| record.cards.is_empty() && record.is_open(now));
    Reply::StaleCard { has_new_card: is_replaced(record, message), approval: alone.cloned().map(Box::new) }
}

/// Asks the watcher to redraw the cards.
async fn redraw_cards(app: &App, stored: Stored, now: Timestamp, deadline: Instant) {
    let redraw = app.store.update(stored, |approval| approval.request_redraw(true, now));
    match timeout_at(deadline, redraw).await {
        Ok(Ok(_)) | Err(_) => {}
        Ok(Err(error)) => {
            store_failure_reply(&error);
        }
    }
}

/// Answers a click on a button that is no longer valid. `None` if it is none of ours.
pub(super) async fn reply_to_old_card(
    app: &App,
    click: &Click,
    now: Timestamp,
    deadline: Instant,
) -> Option<(CommandRequest, Reply)> {
    let id = binding::unverified_connection(&click.binding)?;
    app.config.target(Some(&id.target))?;
    let mut answer = old_card_reply(None, None, now);
    if let Ok(Ok(Some(stored))) = timeout_at(deadline, app.store.load(&id)).await {
        answer = old_card_reply(Some(&stored.approval), click.message_ref.as_deref(), now);
        redraw_cards(app, stored, now, deadline).await;
    }
    let about = ConnectionCommand {
        action: Action::Status,
        target: Some(id.target),
        instance_id: id.instance_id,
        seen_fingerprint: None,
        reason: None,
    };
    let Click { by, origin, .. } = click;
    let request = CommandRequest {
        command: Command::Connection(about),
        by: by.clone(),
        origin: origin.clone(),
        clicked_card: None,
    };
    Some((request, answer))
}

fn approval_id(app: &App, command: &ConnectionCommand) -> Option<ApprovalId> {
    let (target, _) = app.config.target(command.target.as_deref())?;
    Some(ApprovalId { target: target.to_owned(), instance_id: command.instance_id.clone() })
}

fn build_decision(
    verdict: Verdict,
    by: Approver,
    request: &CommandRequest,
    command: &ConnectionCommand,
    fingerprint: crate::peering::Fingerprint,
    now: Timestamp,
) -> Decision {
    let RequestId { key, content } = request_id(request, command);
    let reason = command.reason.clone();
    Decision { verdict, by, at: now, fingerprint, reason, request_key: key, request_content: content }
}

/// The id and the content of the request.
fn request_id(request: &CommandRequest, command: &ConnectionCommand) -> RequestId {
    let verb = match command.action {
        Action::Decide(verdict) => verdict.name(),
        Action::Withdraw => "withdraw",
        Action::DryRun => "dry-run",
        Action::Status => "status",
    };
    let content = hash_request(verb, &request.by, command.reason.as_deref(), command.seen_fingerprint.as_ref());
    RequestId { key: request.origin.request_key.clone(), content: Some(content) }
}

/// Why the connection is not known.
enum ReadError {
    /// It is not there.
    Missing,
    /// Alibaba Cloud could not be asked.
    Failed(accept::Error),
    /// Not asked: people have used up their readings.
    BudgetSpent,
}

/// What somebody wants to do, or to know, about one connection.
struct Attempt<'a> {
    app: &'a App,
    request: &'a CommandRequest,
    command: &'a ConnectionCommand,
    id: &'a ApprovalId,
    by: Approver,
    now: Timestamp,
    deadline: Instant,
}

impl Attempt<'_> {
    async fn execute_command(self) -> Reply {
        let Self { app, command: about, id, deadline, .. } = self;
        let decides = matches!(about.action, Action::Decide(_));
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
            // A late decision is answered with the winner, whatever else is wrong now.
            let closed = match about.action {
                Action::Decide(verdict) => {
                    stored.approval.check_decision(&self.decision_about(verdict, &stored.approval.connection)).err()
                }
                Action::DryRun | Action::Status | Action::Withdraw => {
                    let known = stored.approval.has_counted_request(&request_id(self.request, about));
                    known.err().filter(|closed| *closed == DecisionError::IdReused)
                }
            };
            if let Some(closed) = closed {
                return decision_error_reply(closed, stored.approval.clone());
            }
        }
        if let Some(old) = self.refuse_old_card(stored.as_ref()).await {
            return old;
        }
        let connection = match connection {
            Ok(Ok(connection)) => connection,
            Ok(Err(ReadError::BudgetSpent)) => return Reply::TooManyReads,
            Ok(Err(ReadError::Missing)) => return missing_reply(about.action, stored, id.clone()),
            Ok(Err(ReadError::Failed(error))) => return read_failure_reply(&error),
            Err(_elapsed) => return Reply::Unavailable(Dependency::Alicloud),
        };
        match about.action {
            Action::Decide(verdict) => self.make_decision(verdict, stored, (&connection, Instant::now())).await,
            Action::DryRun => self.reply_to_dry_run(connection).await,
            Action::Status | Action::Withdraw => {
                let approval = stored.map(|stored| Box::new(stored.approval));
                Reply::Status { connection: Box::new(connection), approval, target: id.target.clone() }
            }
        }
    }

    /// Takes an approval back: nobody has to be asked for that.
    async fn withdraw_decision(self) -> Reply {
        let Self { app, command: about, id, now, deadline, ref by, .. } = self;
        let who = |principal: &Principal| app.config.policy.approver_for(principal.clone());
        let request = request_id(self.request, about);
        let withdrawn = async {
            let stored = app.store.load(id).await?;
            if let Some(old) = self.refuse_old_card(stored.as_ref()).await {
                return Ok(old);
            }
            let Some(stored) = stored else { return Ok(Reply::NothingToWithdraw) };
            let mut closed = None;
            let stored = app
                .store
                .update(stored, |approval| {
                    closed = approval.withdraw_decision(by, &request, &who, now).err();
                    closed.is_none()
                })
                .await?;
            Ok(match closed {
                None => Reply::Withdrawn(Box::new(stored.approval)),
                Some(closed) => decision_error_reply(closed, stored.approval),
            })
        };
        match timeout_at(deadline, withdrawn).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => store_failure_reply(&error),
            Err(_elapsed) => Reply::Unavailable(Dependency::Store),
        }
    }

    /// A button decides only where its card is. On another message, it decides nothing and brings the card.
    async fn refuse_old_card(&self, stored: Option<&Stored>) -> Option<Reply> {
        let clicked = self.request.clicked_card.as_ref()?;
        let decides = match self.command.action {
            Action::Decide(_) | Action::Withdraw => true,
            Action::DryRun | Action::Status => false,
        };
        let record = stored.map(|stored| &stored.approval);
        if !decides || is_current_card(clicked, &self.request.by, self.id, record, self.now) {
            return None;
        }
        if let Some(stored) = stored {
            redraw_cards(self.app, stored.clone(), self.now, self.deadline).await;
        }
        Some(old_card_reply(record, clicked.message_ref.as_deref(), self.now))
    }

    /// Reads the connection, within the budget for people.
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

    fn decision_about(&self, verdict: Verdict, connection: &Connection) -> Decision {
        build_decision(verdict, self.by.clone(), self.request, self.command, connection.fingerprint(), self.now)
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

    async fn make_decision(
        self,
        verdict: Verdict,
        stored: Option<Stored>,
        (connection, read_at): (&Connection, Instant),
    ) -> Reply {
        let Self { app, command: about, id, now, deadline, .. } = self;
        let policy = &app.config.policy;
        let rule = match policy.authorize_decision(&id.target, connection, &self.by, verdict) {
            Ok(rule) => rule,
            Err(refusal) => return Reply::Refused(refusal),
        };
        if rule.require_reason && about.reason.is_none() {
            let (rule, instance_id) = (rule.name.clone(), id.instance_id.clone());
            return Reply::ReasonRequired { rule, verdict, instance_id };
        }
        if !connection.is_waiting(now) {
            // Nobody is shown what cannot be decided.
            let findings = self.check_connection(connection);
            if let Some(objection) = preflight::first_objection_to_reject(&findings) {
                return self.reply_to_objection(objection, self.decision_about(verdict, connection)).await;
            }
        }
        let terms = policy.snapshot_for(&id.target, connection);
        if !self.has_seen_facts(stored.as_ref(), connection, &terms) {
            return self.refuse_unseen_facts(stored, connection, &terms).await;
        }
        let stored = match stored {
            Some(stored) if stored.approval.fingerprint != connection.fingerprint() => {
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
            Verdict::Reject => preflight::first_objection_to_reject(&findings),
        };
        let decision = self.decision_about(verdict, connection);
        if let Some(objection) = objection {
            return self.reply_to_objection(objection, decision).await;
        }
        let electorate = |principal: &Principal| policy.eligible_approver(&id.target, connection, principal);
        let grounds = Review { id, connection, policy: &terms, findings: &findings, eligible_approver: &electorate };
        match store_decision(app, stored, (&grounds, read_at), decision, deadline).await {
            Ok(answer) => answer,
            // The reading is older than the record: nothing but the refusal is stored.
            Err(OutdatedReading(theirs)) => self.store_refusal(theirs).await,
        }
    }

    async fn store_refusal(&self, stored: Stored) -> Reply {
        let Self { app, command: about, now, deadline, .. } = *self;
        let request = request_id(self.request, about);
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

    /// Whether they can have seen these facts: their fingerprint matches, or a channel had shown them before.
    fn has_seen_facts(&self, stored: Option<&Stored>, connection: &Connection, snapshot: &PolicySnapshot) -> bool {
        let fresh = connection.fingerprint();
        if let Some(seen) = &self.command.seen_fingerprint {
            return seen.is_prefix_of(&fresh);
        }
        let channels = [snapshot.channels.as_slice(), &self.app.config.policy.defaults.channels].concat();
        stored.is_some_and(|stored| stored.approval.was_shown(&fresh, &channels, self.request.origin.signed_at))
    }

    /// Refuses a decision on facts that its sender cannot have seen. Stores the refusal first: a retry comes
    /// later, when the facts may be shown.
    async fn refuse_unseen_facts(
        &self,
        stored: Option<Stored>,
        connection: &Connection,
        snapshot: &PolicySnapshot,
    ) -> Reply {
        let Self { app, command: about, id, now, deadline, .. } = *self;
        let request = request_id(self.request, about);
        let shown_otherwise = about.seen_fingerprint.is_some()
            || stored.as_ref().is_some_and(|stored| {
                stored.approval.was_ever_shown() || stored.approval.fingerprint != connection.fingerprint()
            });
        let known = stored.as_ref().map(|stored| stored.approval.fingerprint.clone());
        let is_known = known.as_ref() == Some(&connection.fingerprint());
        let findings = if is_known { vec![] } else { self.run_checks(connection).await };
        if stored.is_none()
            && let Some(objection) = preflight::first_objection(&findings)
        {
            // Nobody is shown what cannot be decided.
            return objection_reply(objection);
        }
        let refuse = async {
            let stored = if let Some(stored) = stored {
                stored
            } else {
                let policy = &app.config.policy;
                let electorate = |principal: &Principal| policy.eligible_approver(&id.target, connection, principal);
                let findings = findings.as_slice();
                let grounds = Review { id, connection, policy: snapshot, findings, eligible_approver: &electorate };
                let mut record = Approval::discover_for_manual_review(&grounds, now);
                record.refuse_request(&request, now);
                match app.store.save(&record, None).await? {
                    Saved::Done(_) => return Ok(()),
                    Saved::Conflict(theirs) => theirs,
                }
            };
            // The card is to show what is.
            let event = Event::Changed { connection: Box::new(connection.clone()), findings };
            let refuse = |approval: &mut Approval| {
                // Somebody else may have read it later than we did.
                let is_current = known.as_ref() == Some(&approval.fingerprint);
                if is_current && !is_known && approval.apply_event(&event, now) {
                    accept::log_event(approval, &event);
                }
                approval.refuse_request(&request, now);
                true
            };
            app.store.update(stored, refuse).await.map(|_| ())
        };
        match timeout_at(deadline, refuse).await {
            Ok(Ok(())) if shown_otherwise => Reply::ConnectionChanged,
            Ok(Ok(())) => Reply::FactsNotShown,
            Ok(Err(error)) => store_failure_reply(&error),
            Err(_elapsed) => Reply::Unavailable(Dependency::Store),
        }
    }

    /// The checks that need nothing but the reading.
    fn check_connection(&self, connection: &Connection) -> Vec<Finding> {
        let target = self.app.config.targets.get(&self.id.target);
        target.map(|target| preflight::check_connection(connection, target.account, self.now)).unwrap_or_default()
    }

    /// What stands against it; or, if somebody has won between the two readings, that.
    async fn reply_to_objection(&self, objection: &Objection, decision: Decision) -> Reply {
        let Self { app, id, deadline, .. } = *self;
        let stored = timeout_at(deadline, app.store.load(id)).await.ok().and_then(Result::ok).flatten();
        let closed = stored.and_then(|stored| Some((stored.approval.check_decision(&decision).err()?, stored)));
        closed.map_or_else(
            || objection_reply(objection),
            |(closed, stored)| decision_error_reply(closed, stored.approval),
        )
    }

    /// The card shows something else: it is to show what is.
    async fn store_changed_facts(&self, stored: Stored, connection: &Connection) -> Option<Stored> {
        let Self { app, now, deadline, .. } = *self;
        let findings = self.run_checks(connection).await;
        let event = Event::Changed { connection: Box::new(connection.clone()), findings };
        let known = stored.approval.fingerprint.clone();
        // Somebody else may have read it later than we did.
        let redraw = |approval: &mut Approval| approval.fingerprint == known && approval.apply_event(&event, now);
        match timeout_at(deadline, app.store.update(stored, redraw)).await {
            Ok(Ok(stored)) => {
                accept::log_event(&stored.approval, &event);
                Some(stored)
            }
            Ok(Err(error)) => {
                store_failure_reply(&error);
                None
            }
            // The watcher sees it as well.
            Err(_elapsed) => None,
        }
    }
}

async fn list_open_requests(app: &App, target: Option<&str>, deadline: Instant) -> Reply {
    if target.is_some_and(|target| !app.config.targets.contains_key(target)) {
        return Reply::UnknownTarget(app.config.targets.keys().cloned().collect());
    }
    let (mut ids, mut from) = (vec![], None);
    loop {
        let page = match timeout_at(deadline, app.store.due_entries(UNFINISHED_DUE_BEFORE, from)).await {
            Ok(Ok((page, more))) => {
                from = more;
                page
            }
            Ok(Err(error)) => return store_failure_reply(&error),
            Err(_elapsed) => return Reply::Unavailable(Dependency::Store),
        };
        let wanted =
            |entry: &IndexEntry| !entry.state.is_final() && target.is_none_or(|target| entry.id.target == target);
        ids.extend(page.into_iter().filter(wanted).map(|entry| entry.id));
        if from.is_none() || ids.len() > MAX_LISTED {
            break;
        }
    }
    let more = ids.len() > MAX_LISTED || from.is_some();
    ids.truncate(MAX_LISTED);
    match timeout_at(deadline, app.store.load_many(&ids)).await {
        Ok(Ok(stored)) => {
            let mut approvals: Vec<_> = stored.into_values().flatten().map(|stored| stored.approval).collect();
            // The index lags.
            approvals.retain(|approval| !approval.state.is_final());
            approvals.sort_by_key(|approval| approval.since);
            Reply::List { approvals, more }
        }
        Ok(Err(error)) => store_failure_reply(&error),
        Err(_elapsed) => Reply::Unavailable(Dependency::Store),
    }
}

fn decision_error_reply(error: DecisionError, approval: Approval) -> Reply {
    match error {
        DecisionError::Repeated => Reply::Repeated(Box::new(approval)),
        DecisionError::AlreadyDecided => Reply::AlreadyDecided(Box::new(approval)),
        // The refused request had not seen it, either.
        DecisionError::FactsChanged | DecisionError::RefusedBefore => Reply::ConnectionChanged,
        DecisionError::NothingToWithdraw => Reply::NothingToWithdraw,
        DecisionError::IdReused => Reply::IdReused,
        DecisionError::Voided => Reply::DecisionVoid,
        DecisionError::RecordFull => Reply::RecordFull,
        DecisionError::TooManyWithdrawals => Reply::TooManyWithdrawals,
    }
}

fn objection_reply(objection: &Objection) -> Reply {
    match objection {
        Objection::DryRun(problem) => Reply::VendorRefused(problem.clone()),
        Objection::NotOurs
        | Objection::Status(_)
        | Objection::Expired
        | Objection::BusinessStatus(_)
        | Objection::ManagedService(_)
        | Objection::Overlap(_) => Reply::Objection(objection.clone()),
    }
}

/// The connection is gone; what we know of it may still be asked for.
fn missing_reply(action: Action, stored: Option<Stored>, id: ApprovalId) -> Reply {
    match (action, stored) {
        (Action::Status, Some(Stored { approval, .. })) => {
            let connection = Connection { status: Status::Deleted, ..approval.connection.clone() };
            Reply::Status { connection: Box::new(connection), approval: Some(Box::new(approval)), target: id.target }
        }
        (Action::Status | Action::Decide(_) | Action::DryRun | Action::Withdraw, _) => Reply::UnknownConnection,
    }
}

/// The record is about other facts than the decision.
struct OutdatedReading(Stored);

/// Makes the decision durable and, when it completes the approval, has it carried out.
async fn store_decision(
    app: &App,
    mut before: Option<Stored>,
    (grounds, read_at): (&Review<'_>, Instant),
    decision: Decision,
    deadline: Instant,
) -> Result<Reply, OutdatedReading> {
    let now = decision.at;
    for _ in 0..MAX_DECISION_TRIES {
        let earlier = before.as_ref().map(|stored| &stored.approval);
        let approval = match (Approval::apply_decision(earlier, grounds, decision.clone()), before.as_ref()) {
            (Ok(approval), _) => approval,
            (Err(DecisionError::FactsChanged), Some(earlier)) => return Err(OutdatedReading(earlier.clone())),
            (Err(closed), Some(earlier)) => return Ok(decision_error_reply(closed, earlier.approval.clone())),
            // Only a record can be closed.
            (Err(_), None) => return Ok(Reply::Unavailable(Dependency::Store)),
        };
        match timeout_at(deadline, app.store.save(&approval, before.as_ref())).await {
            Ok(Ok(Saved::Done(stored))) if stored.approval.state == ApprovalState::Pending => {
                return Ok(Reply::Counted(Box::new(stored.approval)));
            }
            Ok(Ok(Saved::Done(stored))) => {
                return Ok(carry_out_decision(app, stored, read_at, now, deadline).await);
            }
            Ok(Ok(Saved::Conflict(theirs))) => before = Some(theirs),
            Ok(Err(error)) => return Ok(store_failure_reply(&error)),
            Err(_elapsed) => return Ok(Reply::Unavailable(Dependency::Store)),
        }
    }
    Ok(Reply::Unavailable(Dependency::Store))
}

/// The decision is durable: what happens from here on only decides how much of it the sender hears.
async fn carry_out_decision(app: &App, stored: Stored, read_at: Instant, now: Timestamp, deadline: Instant) -> Reply {
    let decided = Box::new(stored.approval.clone());
    let finish = async {
        let prepared = if read_at.elapsed() < MAX_READING_AGE {
            NextStep::Call
        } else {
            accept::determine_next_step(app, &stored.approval, false, now).await
        };
        let step = match prepared {
            NextStep::Call => accept::make_call(app, &stored.approval, now).await,
            NextStep::Apply(event) => CallOutcome { event, result: CallResult::NotMade },
        };
        let generation = stored.approval.generation;
        let apply = |approval: &mut Approval| step.apply_to(approval, generation, now);
        let stored = app.store.update(stored, apply).await?;
        accept::log_event(&stored.approval, &step.event);
        Ok::<_, store::Error>(stored.approval)
    };
    match timeout_at(deadline, finish).await {
        // Its facts changed meanwhile: the decision does not count any more.
        Ok(Ok(approval)) if approval.generation != decided.generation || approval.state == ApprovalState::Pending => {
            Reply::ConnectionChanged
        }
        Ok(Ok(approval)) if matches!(approval.state, ApprovalState::Approved | ApprovalState::Rejecting) => {
            Reply::InProgress(Box::new(approval))
        }
        Ok(Ok(approval)) => Reply::Done(Box::new(approval)),
        Ok(Err(error)) => {
            tracing::error!(outcome = error.log_outcome(), error = %Chain(&error), "the outcome of a call could not be stored");
            Reply::InProgress(decided)
        }
        Err(_elapsed) => {
            tracing::warn!(
                outcome = "out_of_time",
                peering.id = decided.id.instance_id.as_str(),
                "left to the watcher"
            );
            Reply::InProgress(decided)
        }
    }
}

fn store_failure_reply(error: &store::Error) -> Reply {
    tracing::error!(outcome = error.log_outcome(), error = %Chain(error), "the store failed");
    Reply::Unavailable(Dependency::Store)
}

fn read_failure_reply(error: &accept::Error) -> Reply {
    let problem = error.to_problem();
    tracing::error!(
        outcome = "alicloud_failed",
        alicloud.code = problem.code,
        alicloud.request_id = problem.request_id,
        error = %Chain(error),
        "Alibaba Cloud could not be asked"
    );
    match error.class() {
        Class::Credentials => Reply::CredentialsRefused(problem),
        Class::Permanent | Class::ReadStatus => Reply::VendorRefused(problem),
        Class::Missing | Class::Retry | Class::Unknown | Class::DryRunPassed => match error {
            accept::Error::Api(alicloud::Error::NotUnderstood { field, .. }) => {
                Reply::NotUnderstood { field: field.name(), problem }
            }
            accept::Error::Credentials(credentials::Error::Secrets(_)) => Reply::Unavailable(Dependency::Secrets),
            accept::Error::Credentials(_) if aws::is_aws_code(&problem.code) => {
                Reply::Unavailable(Dependency::AwsIdentity)
            }
            accept::Error::Api(_) | accept::Error::Credentials(_) | accept::Error::UnknownTarget => {
                Reply::Unavailable(Dependency::Alicloud)
            }
        },
    }
}

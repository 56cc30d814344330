//! From a command of somebody we know to what comes of it: read, ask the policy, check, write once, carry out.
//!
//! Knows nothing of HTTP.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::accept::{self, Next, Step};
use crate::alicloud::{self, Class};
use crate::app::App;
use crate::approval::{
    Approval, ApprovalId, Approver, CallResult, Closed, Decision, Event, Grounds, Principal, RequestId, State, Terms,
    Verdict, request_content,
};
use crate::aws;
use crate::chat::binding;
use crate::chat::{About, Answer, Click, Clicked, Command, Part, Request, Verb};
use crate::credentials;
use crate::logging::Chain;
use crate::peering::{Connection, Status};
use crate::preflight::{self, Check, Finding, Found, Objection};
use crate::store::{self, BEFORE_FAR_AWAY, Entry, Saved, Stored};

/// How often a decision is made again because the record changed meanwhile.
const CONFLICTS: u32 = 5;
/// What the checks that ask Alibaba Cloud may take of a sender's time.
const EXAMINATION: Duration = Duration::from_millis(700);
/// A reading that is older is made again before the call.
const FRESH: Duration = Duration::from_secs(1);
/// For so many hours after its own, a private answer's buttons decide.
const PRIVATE_ANSWER_HOURS: i64 = 11;
/// The most that a list shows.
const LONGEST_LIST: usize = 30;

/// Carries out a command, until `deadline`.
pub(super) async fn answer(app: &App, request: &Request, now: Timestamp, deadline: Instant) -> Answer {
    let about = match &request.command {
        Command::List { target } => return list(app, target.as_deref(), deadline).await,
        Command::About(about) => about,
    };
    let Some(id) = approval_id(app, about) else {
        return Answer::UnknownTarget(app.config.targets.keys().cloned().collect());
    };
    let by = app.config.policy.approver(request.by.clone());
    match about.verb {
        Verb::Withdraw => {
            let wish = Wish { app, request, about, id: &id, by, now, deadline };
            wish.withdraw().await
        }
        Verb::Decide(_) | Verb::DryRun | Verb::Status => {
            let wish = Wish { app, request, about, id: &id, by, now, deadline };
            wish.answer().await
        }
    }
}

/// What a decision would be told if it is too late for it; what is not too late, is asked for a reason.
pub(super) async fn too_late_to_ask(app: &App, request: &Request, now: Timestamp, deadline: Instant) -> Option<Answer> {
    let Command::About(about) = &request.command else { return None };
    let Verb::Decide(verdict) = about.verb else { return None };
    let stored = timeout_at(deadline, app.store.load(&approval_id(app, about)?)).await.ok()?.ok()??;
    let by = app.config.policy.approver(request.by.clone());
    let decision = decision(verdict, by, request, about, stored.approval.fingerprint.clone(), now);
    stored.approval.is_open_to(&decision).err().map(|closed| closed_answer(closed, stored.approval))
}

/// Whether the message that somebody clicked on is the one that we know for this card.
fn is_its_card(clicked: &Clicked, by: &Principal, id: &ApprovalId, record: Option<&Approval>, now: Timestamp) -> bool {
    let hour = binding::hour(now);
    // A private answer decides for its person.
    if (hour - PRIVATE_ANSWER_HOURS..=hour).any(|hour| binding::card_of_person(by.as_str(), hour) == clicked.card) {
        return true;
    }
    let Some(record) = record else { return false };
    if let Some(card) = record.cards.values().find(|card| card.card == clicked.card) {
        return clicked.message.as_ref() == Some(&card.reference);
    }
    // Each notice is a message of its own. Incoming webhooks do not say where it is.
    let id = id.to_string();
    let is_notice = |channel: &String, number| binding::card_of_notice(&id, channel, number) == clicked.card;
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
fn old_card(record: Option<&Approval>, message: Option<&str>, now: Timestamp) -> Answer {
    let alone = record.filter(|record| record.cards.is_empty() && record.is_open(now));
    Answer::OldCard { replaced: is_replaced(record, message), approval: alone.cloned().map(Box::new) }
}

/// Asks the watcher to redraw the cards.
async fn redraw_cards(app: &App, stored: Stored, now: Timestamp, deadline: Instant) {
    let redraw = app.store.update(stored, |approval| approval.redraw(true, now));
    match timeout_at(deadline, redraw).await {
        Ok(Ok(_)) | Err(_) => {}
        Ok(Err(error)) => {
            store_failed(&error);
        }
    }
}

/// Answers a click on a button that is no longer valid. `None` if it is none of ours.
pub(super) async fn of_old_card(
    app: &App,
    click: &Click,
    now: Timestamp,
    deadline: Instant,
) -> Option<(Request, Answer)> {
    let (target, instance_id) = binding::names(&click.binding)?;
    let (target, _) = app.config.target(Some(&target))?;
    let id = ApprovalId { target: target.to_owned(), instance_id: instance_id.clone() };
    let mut answer = old_card(None, None, now);
    if let Ok(Ok(Some(stored))) = timeout_at(deadline, app.store.load(&id)).await {
        answer = old_card(Some(&stored.approval), click.message.as_deref(), now);
        redraw_cards(app, stored, now, deadline).await;
    }
    let about = About { verb: Verb::Status, target: Some(id.target), instance_id, seen: None, reason: None };
    let Click { by, request_key, signed_at, key, .. } = click;
    let request = Request {
        command: Command::About(about),
        by: by.clone(),
        request_key: request_key.clone(),
        signed_at: *signed_at,
        key: *key,
        clicked: None,
    };
    Some((request, answer))
}

fn approval_id(app: &App, about: &About) -> Option<ApprovalId> {
    let (target, _) = app.config.target(about.target.as_deref())?;
    Some(ApprovalId { target: target.to_owned(), instance_id: about.instance_id.clone() })
}

fn decision(
    verdict: Verdict,
    by: Approver,
    request: &Request,
    about: &About,
    fingerprint: crate::peering::Fingerprint,
    now: Timestamp,
) -> Decision {
    let RequestId { key, content } = request_id(request, about);
    let reason = about.reason.clone();
    Decision { verdict, by, at: now, fingerprint, reason, request_key: key, request_content: content }
}

/// The id and the content of the request.
fn request_id(request: &Request, about: &About) -> RequestId {
    let verb = match about.verb {
        Verb::Decide(verdict) => verdict.name(),
        Verb::Withdraw => "withdraw",
        Verb::DryRun => "dry-run",
        Verb::Status => "status",
    };
    let content = request_content(verb, &request.by, about.reason.as_deref(), about.seen.as_ref());
    RequestId { key: request.request_key.clone(), content: Some(content) }
}

/// Why the connection is not known.
enum Unread {
    /// It is not there.
    Missing,
    /// Alibaba Cloud could not be asked.
    Failed(accept::Error),
    /// Not asked: people have used up their readings.
    Spent,
}

/// What somebody wants to do, or to know, about one connection.
struct Wish<'a> {
    app: &'a App,
    request: &'a Request,
    about: &'a About,
    id: &'a ApprovalId,
    by: Approver,
    now: Timestamp,
    deadline: Instant,
}

impl Wish<'_> {
    async fn answer(self) -> Answer {
        let Self { app, about, id, deadline, .. } = self;
        let decides = matches!(about.verb, Verb::Decide(_));
        let (stored, connection) =
            tokio::join!(timeout_at(deadline, app.store.load(id)), timeout_at(deadline, self.read(decides)));
        let stored = match stored {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => return store_failed(&error),
            Err(_elapsed) => return Answer::Unavailable(Part::Store),
        };
        if let Some(stored) = &stored {
            // A late decision is answered with the winner, whatever else is wrong now.
            let closed = match about.verb {
                Verb::Decide(verdict) => {
                    stored.approval.is_open_to(&self.decision(verdict, &stored.approval.connection)).err()
                }
                Verb::DryRun | Verb::Status | Verb::Withdraw => {
                    let known = stored.approval.knows_request(&request_id(self.request, about));
                    known.err().filter(|closed| *closed == Closed::IdReused)
                }
            };
            if let Some(closed) = closed {
                return closed_answer(closed, stored.approval.clone());
            }
        }
        if let Some(old) = self.refuse_old_card(stored.as_ref()).await {
            return old;
        }
        let connection = match connection {
            Ok(Ok(connection)) => connection,
            Ok(Err(Unread::Spent)) => return Answer::TooManyReads,
            Ok(Err(Unread::Missing)) => return missing(about.verb, stored, id.clone()),
            Ok(Err(Unread::Failed(error))) => return read_failed(&error),
            Err(_elapsed) => return Answer::Unavailable(Part::Alicloud),
        };
        match about.verb {
            Verb::Decide(verdict) => self.decide(verdict, stored, (&connection, Instant::now())).await,
            Verb::DryRun => self.dry_run(connection).await,
            Verb::Status | Verb::Withdraw => {
                let approval = stored.map(|stored| Box::new(stored.approval));
                Answer::Status { connection: Box::new(connection), approval, target: id.target.clone() }
            }
        }
    }

    /// Takes an approval back: nobody has to be asked for that.
    async fn withdraw(self) -> Answer {
        let Self { app, about, id, now, deadline, ref by, .. } = self;
        let who = |principal: &Principal| app.config.policy.approver(principal.clone());
        let request = request_id(self.request, about);
        let withdrawn = async {
            let stored = app.store.load(id).await?;
            if let Some(old) = self.refuse_old_card(stored.as_ref()).await {
                return Ok(old);
            }
            let Some(stored) = stored else { return Ok(Answer::NothingToWithdraw) };
            let mut closed = None;
            let stored = app
                .store
                .update(stored, |approval| {
                    closed = approval.withdraw(by, &request, &who, now).err();
                    closed.is_none()
                })
                .await?;
            Ok(match closed {
                None => Answer::Withdrawn(Box::new(stored.approval)),
                Some(closed) => closed_answer(closed, stored.approval),
            })
        };
        match timeout_at(deadline, withdrawn).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => store_failed(&error),
            Err(_elapsed) => Answer::Unavailable(Part::Store),
        }
    }

    /// A button decides only where its card is. On another message, it decides nothing and brings the card.
    async fn refuse_old_card(&self, stored: Option<&Stored>) -> Option<Answer> {
        let clicked = self.request.clicked.as_ref()?;
        let decides = match self.about.verb {
            Verb::Decide(_) | Verb::Withdraw => true,
            Verb::DryRun | Verb::Status => false,
        };
        let record = stored.map(|stored| &stored.approval);
        if !decides || is_its_card(clicked, &self.request.by, self.id, record, self.now) {
            return None;
        }
        if let Some(stored) = stored {
            redraw_cards(self.app, stored.clone(), self.now, self.deadline).await;
        }
        Some(old_card(record, clicked.message.as_deref(), self.now))
    }

    /// Reads the connection, within the budget for people.
    async fn read(&self, decides: bool) -> Result<Connection, Unread> {
        let Self { app, id, now, .. } = *self;
        if !decides && app.read_budget.is_unknown(id, now) {
            return Err(Unread::Missing);
        }
        let calls_per_minute = app.config.targets.get(&id.target).map_or(0, |target| target.calls_per_minute);
        let may_decide = decides && app.config.policy.is_named(&self.by);
        let taken = app.read_budget.take(&id.target, &self.request.by, may_decide, calls_per_minute, now);
        if !taken {
            return Err(Unread::Spent);
        }
        match accept::read(app, &id.target, &id.instance_id, now).await {
            Err(error) if error.class() == Class::Missing => {
                app.read_budget.note_unknown(id, now);
                Err(Unread::Missing)
            }
            read => read.map_err(Unread::Failed),
        }
    }

    fn decision(&self, verdict: Verdict, connection: &Connection) -> Decision {
        decision(verdict, self.by.clone(), self.request, self.about, connection.fingerprint(), self.now)
    }

    async fn examine(&self, connection: &Connection) -> Vec<Finding> {
        let until = self.deadline.min(Instant::now() + EXAMINATION);
        let (by, key) = (&self.request.by, &self.request.request_key);
        accept::examine(self.app, &self.id.target, connection, by, key, self.now, until).await
    }

    async fn dry_run(self, connection: Connection) -> Answer {
        if let Err(refusal) = self.app.config.policy.permit(&self.id.target, &connection, &self.by, Verdict::Approve) {
            return Answer::Refused(refusal);
        }
        if self.about.seen.as_ref().is_some_and(|seen| !seen.is(&connection.fingerprint())) {
            return Answer::Changed;
        }
        let findings = self.examine(&connection).await;
        if let Some(objection) = preflight::objection(&findings) {
            return objected(objection);
        }
        let dry_run = findings.iter().find(|finding| finding.check == Check::DryRun).map(|finding| &finding.found);
        match dry_run {
            Some(Found::Passed) => Answer::DryRunPassed { connection: Box::new(connection), findings },
            Some(Found::Unknown(Some(problem))) if accept::is_about_credentials(problem) => {
                Answer::CredentialsRefused(problem.clone())
            }
            Some(Found::Unknown(_) | Found::Warning(_) | Found::Objection(_)) | None => {
                Answer::Unavailable(Part::Alicloud)
            }
        }
    }

    async fn decide(
        self,
        verdict: Verdict,
        stored: Option<Stored>,
        (connection, read_at): (&Connection, Instant),
    ) -> Answer {
        let Self { app, about, id, now, deadline, .. } = self;
        let policy = &app.config.policy;
        let rule = match policy.permit(&id.target, connection, &self.by, verdict) {
            Ok(rule) => rule,
            Err(refusal) => return Answer::Refused(refusal),
        };
        if rule.require_reason && about.reason.is_none() {
            let (rule, instance_id) = (rule.name.clone(), id.instance_id.clone());
            return Answer::ReasonRequired { rule, verdict, instance_id };
        }
        if !connection.is_waiting(now) {
            // Nobody is shown what cannot be decided.
            let findings = self.check(connection);
            if let Some(objection) = preflight::objection_to_reject(&findings) {
                return self.objected(objection, self.decision(verdict, connection)).await;
            }
        }
        let terms = policy.terms(&id.target, connection);
        if !self.has_seen(stored.as_ref(), connection, &terms) {
            return self.refuse(stored, connection, &terms).await;
        }
        let stored = match stored {
            Some(stored) if stored.approval.fingerprint != connection.fingerprint() => {
                self.redraw(stored, connection).await
            }
            stored => stored,
        };
        let findings = match verdict {
            Verdict::Approve => self.examine(connection).await,
            Verdict::Reject => self.check(connection),
        };
        let objection = match verdict {
            Verdict::Approve => preflight::objection(&findings),
            Verdict::Reject => preflight::objection_to_reject(&findings),
        };
        let decision = self.decision(verdict, connection);
        if let Some(objection) = objection {
            return self.objected(objection, decision).await;
        }
        let electorate = |principal: &Principal| policy.electorate(&id.target, connection, principal);
        let grounds = Grounds { id, connection, terms: &terms, findings: &findings, electorate: &electorate };
        match make_durable(app, stored, (&grounds, read_at), decision, deadline).await {
            Ok(answer) => answer,
            // The reading is older than the record: nothing but the refusal is stored.
            Err(Outdated(theirs)) => self.store_refusal(theirs).await,
        }
    }

    async fn store_refusal(&self, stored: Stored) -> Answer {
        let Self { app, about, now, deadline, .. } = *self;
        let request = request_id(self.request, about);
        let refuse = |approval: &mut Approval| {
            approval.refuse(&request, now);
            true
        };
        match timeout_at(deadline, app.store.update(stored, refuse)).await {
            Ok(Ok(_)) => Answer::Changed,
            Ok(Err(error)) => store_failed(&error),
            Err(_elapsed) => Answer::Unavailable(Part::Store),
        }
    }

    /// Whether they can have seen these facts: their fingerprint matches, or a channel had shown them before.
    fn has_seen(&self, stored: Option<&Stored>, connection: &Connection, terms: &Terms) -> bool {
        let fresh = connection.fingerprint();
        if let Some(seen) = &self.about.seen {
            return seen.is(&fresh);
        }
        let channels = [terms.channels.as_slice(), &self.app.config.policy.requests.channels].concat();
        stored.is_some_and(|stored| stored.approval.was_shown(&fresh, &channels, self.request.signed_at))
    }

    /// Refuses a decision on facts that its sender cannot have seen. Stores the refusal first: a retry comes
    /// later, when the facts may be shown.
    async fn refuse(&self, stored: Option<Stored>, connection: &Connection, terms: &Terms) -> Answer {
        let Self { app, about, id, now, deadline, .. } = *self;
        let request = request_id(self.request, about);
        let shown_otherwise = about.seen.is_some()
            || stored.as_ref().is_some_and(|stored| {
                stored.approval.was_ever_shown() || stored.approval.fingerprint != connection.fingerprint()
            });
        let known = stored.as_ref().map(|stored| stored.approval.fingerprint.clone());
        let is_known = known.as_ref() == Some(&connection.fingerprint());
        let findings = if is_known { vec![] } else { self.examine(connection).await };
        if stored.is_none()
            && let Some(objection) = preflight::objection(&findings)
        {
            // Nobody is shown what cannot be decided.
            return objected(objection);
        }
        let refuse = async {
            let stored = if let Some(stored) = stored {
                stored
            } else {
                let policy = &app.config.policy;
                let electorate = |principal: &Principal| policy.electorate(&id.target, connection, principal);
                let findings = findings.as_slice();
                let grounds = Grounds { id, connection, terms, findings, electorate: &electorate };
                let mut record = Approval::discover_for_people(&grounds, now);
                record.refuse(&request, now);
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
                if is_current && !is_known && approval.apply(&event, now) {
                    accept::log(approval, &event);
                }
                approval.refuse(&request, now);
                true
            };
            app.store.update(stored, refuse).await.map(|_| ())
        };
        match timeout_at(deadline, refuse).await {
            Ok(Ok(())) if shown_otherwise => Answer::Changed,
            Ok(Ok(())) => Answer::NotShown,
            Ok(Err(error)) => store_failed(&error),
            Err(_elapsed) => Answer::Unavailable(Part::Store),
        }
    }

    /// The checks that need nothing but the reading.
    fn check(&self, connection: &Connection) -> Vec<Finding> {
        let target = self.app.config.targets.get(&self.id.target);
        target.map(|target| preflight::check(connection, target.account, self.now)).unwrap_or_default()
    }

    /// What stands against it; or, if somebody has won between the two readings, that.
    async fn objected(&self, objection: &Objection, decision: Decision) -> Answer {
        let Self { app, id, deadline, .. } = *self;
        let stored = timeout_at(deadline, app.store.load(id)).await.ok().and_then(Result::ok).flatten();
        let closed = stored.and_then(|stored| Some((stored.approval.is_open_to(&decision).err()?, stored)));
        closed.map_or_else(|| objected(objection), |(closed, stored)| closed_answer(closed, stored.approval))
    }

    /// The card shows something else: it is to show what is.
    async fn redraw(&self, stored: Stored, connection: &Connection) -> Option<Stored> {
        let Self { app, now, deadline, .. } = *self;
        let findings = self.examine(connection).await;
        let event = Event::Changed { connection: Box::new(connection.clone()), findings };
        let known = stored.approval.fingerprint.clone();
        // Somebody else may have read it later than we did.
        let redraw = |approval: &mut Approval| approval.fingerprint == known && approval.apply(&event, now);
        match timeout_at(deadline, app.store.update(stored, redraw)).await {
            Ok(Ok(stored)) => {
                accept::log(&stored.approval, &event);
                Some(stored)
            }
            Ok(Err(error)) => {
                store_failed(&error);
                None
            }
            // The watcher sees it as well.
            Err(_elapsed) => None,
        }
    }
}

async fn list(app: &App, target: Option<&str>, deadline: Instant) -> Answer {
    if target.is_some_and(|target| !app.config.targets.contains_key(target)) {
        return Answer::UnknownTarget(app.config.targets.keys().cloned().collect());
    }
    let (mut ids, mut from) = (vec![], None);
    loop {
        let page = match timeout_at(deadline, app.store.due(BEFORE_FAR_AWAY, from)).await {
            Ok(Ok((page, more))) => {
                from = more;
                page
            }
            Ok(Err(error)) => return store_failed(&error),
            Err(_elapsed) => return Answer::Unavailable(Part::Store),
        };
        let wanted = |entry: &Entry| !entry.stage.is_over() && target.is_none_or(|target| entry.id.target == target);
        ids.extend(page.into_iter().filter(wanted).map(|entry| entry.id));
        if from.is_none() || ids.len() > LONGEST_LIST {
            break;
        }
    }
    let more = ids.len() > LONGEST_LIST || from.is_some();
    ids.truncate(LONGEST_LIST);
    match timeout_at(deadline, app.store.load_many(&ids)).await {
        Ok(Ok(stored)) => {
            let mut approvals: Vec<_> = stored.into_values().flatten().map(|stored| stored.approval).collect();
            // The index lags.
            approvals.retain(|approval| !approval.state.is_final());
            approvals.sort_by_key(|approval| approval.since);
            Answer::List { approvals, more }
        }
        Ok(Err(error)) => store_failed(&error),
        Err(_elapsed) => Answer::Unavailable(Part::Store),
    }
}

fn closed_answer(closed: Closed, approval: Approval) -> Answer {
    match closed {
        Closed::Repeated => Answer::Repeated(Box::new(approval)),
        Closed::Over => Answer::Over(Box::new(approval)),
        // The refused request had not seen it, either.
        Closed::Changed | Closed::Refused => Answer::Changed,
        Closed::NothingToWithdraw => Answer::NothingToWithdraw,
        Closed::IdReused => Answer::IdReused,
        Closed::Void => Answer::Void,
        Closed::Full => Answer::RecordFull,
        Closed::TooManyWithdrawals => Answer::TooManyWithdrawals,
    }
}

fn objected(objection: &Objection) -> Answer {
    match objection {
        Objection::DryRun(problem) => Answer::VendorRefused(problem.clone()),
        Objection::NotOurs
        | Objection::Status(_)
        | Objection::Expired
        | Objection::BusinessStatus(_)
        | Objection::ManagedService(_)
        | Objection::Overlap(_) => Answer::Objection(objection.clone()),
    }
}

/// The connection is gone; what we know of it may still be asked for.
fn missing(verb: Verb, stored: Option<Stored>, id: ApprovalId) -> Answer {
    match (verb, stored) {
        (Verb::Status, Some(Stored { approval, .. })) => {
            let connection = Connection { status: Status::Deleted, ..approval.connection.clone() };
            Answer::Status { connection: Box::new(connection), approval: Some(Box::new(approval)), target: id.target }
        }
        (Verb::Status | Verb::Decide(_) | Verb::DryRun | Verb::Withdraw, _) => Answer::UnknownConnection,
    }
}

/// The record is about other facts than the decision.
struct Outdated(Stored);

/// Makes the decision durable and, when it completes the approval, has it carried out.
async fn make_durable(
    app: &App,
    mut before: Option<Stored>,
    (grounds, read_at): (&Grounds<'_>, Instant),
    decision: Decision,
    deadline: Instant,
) -> Result<Answer, Outdated> {
    let now = decision.at;
    for _ in 0..CONFLICTS {
        let earlier = before.as_ref().map(|stored| &stored.approval);
        let approval = match (Approval::decide(earlier, grounds, decision.clone()), before.as_ref()) {
            (Ok(approval), _) => approval,
            (Err(Closed::Changed), Some(earlier)) => return Err(Outdated(earlier.clone())),
            (Err(closed), Some(earlier)) => return Ok(closed_answer(closed, earlier.approval.clone())),
            // Only a record can be closed.
            (Err(_), None) => return Ok(Answer::Unavailable(Part::Store)),
        };
        match timeout_at(deadline, app.store.save(&approval, before.as_ref())).await {
            Ok(Ok(Saved::Done(stored))) if stored.approval.state == State::Pending => {
                return Ok(Answer::Counted(Box::new(stored.approval)));
            }
            Ok(Ok(Saved::Done(stored))) => {
                return Ok(carry_out(app, stored, read_at, now, deadline).await);
            }
            Ok(Ok(Saved::Conflict(theirs))) => before = Some(theirs),
            Ok(Err(error)) => return Ok(store_failed(&error)),
            Err(_elapsed) => return Ok(Answer::Unavailable(Part::Store)),
        }
    }
    Ok(Answer::Unavailable(Part::Store))
}

/// The decision is durable: what happens from here on only decides how much of it the sender hears.
async fn carry_out(app: &App, stored: Stored, read_at: Instant, now: Timestamp, deadline: Instant) -> Answer {
    let decided = Box::new(stored.approval.clone());
    let finish = async {
        let prepared = if read_at.elapsed() < FRESH {
            Next::Call
        } else {
            accept::prepare(app, &stored.approval, false, now).await
        };
        let step = match prepared {
            Next::Call => accept::call(app, &stored.approval, now).await,
            Next::Happened(event) => Step { event, call: CallResult::NotMade },
        };
        let generation = stored.approval.generation;
        let apply = |approval: &mut Approval| step.apply(approval, generation, now);
        let stored = app.store.update(stored, apply).await?;
        accept::log(&stored.approval, &step.event);
        Ok::<_, store::Error>(stored.approval)
    };
    match timeout_at(deadline, finish).await {
        // Its facts changed meanwhile: the decision does not count any more.
        Ok(Ok(approval)) if approval.generation != decided.generation || approval.state == State::Pending => {
            Answer::Changed
        }
        Ok(Ok(approval)) if matches!(approval.state, State::Approved | State::Rejecting) => {
            Answer::Underway(Box::new(approval))
        }
        Ok(Ok(approval)) => Answer::Done(Box::new(approval)),
        Ok(Err(error)) => {
            tracing::error!(outcome = error.outcome(), error = %Chain(&error), "the outcome of a call could not be stored");
            Answer::Underway(decided)
        }
        Err(_elapsed) => {
            tracing::warn!(
                outcome = "out_of_time",
                peering.id = decided.id.instance_id.as_str(),
                "left to the watcher"
            );
            Answer::Underway(decided)
        }
    }
}

fn store_failed(error: &store::Error) -> Answer {
    tracing::error!(outcome = error.outcome(), error = %Chain(error), "the store failed");
    Answer::Unavailable(Part::Store)
}

fn read_failed(error: &accept::Error) -> Answer {
    let problem = error.problem();
    tracing::error!(
        outcome = "alicloud_failed",
        alicloud.code = problem.code,
        alicloud.request_id = problem.request_id,
        error = %Chain(error),
        "Alibaba Cloud could not be asked"
    );
    match error.class() {
        Class::Credentials => Answer::CredentialsRefused(problem),
        Class::Permanent | Class::ReadStatus => Answer::VendorRefused(problem),
        Class::Missing | Class::Retry | Class::Unknown | Class::DryRunPassed => match error {
            accept::Error::Api(alicloud::Error::NotUnderstood { field, .. }) => {
                Answer::NotUnderstood { field: field.name(), problem }
            }
            accept::Error::Credentials(credentials::Error::Secrets(_)) => Answer::Unavailable(Part::Secrets),
            accept::Error::Credentials(_) if aws::is_of_aws(&problem.code) => Answer::Unavailable(Part::AwsIdentity),
            accept::Error::Api(_) | accept::Error::Credentials(_) | accept::Error::UnknownTarget => {
                Answer::Unavailable(Part::Alicloud)
            }
        },
    }
}

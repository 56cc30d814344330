//! From a command of somebody we know to what comes of it: read, ask the policy, check, write once, carry out.
//!
//! Knows nothing of HTTP.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::accept;
use crate::alicloud::Class;
use crate::app::App;
use crate::approval::{Approval, ApprovalId, Approver, Closed, Decision, Event, Grounds, Stage, State, Verdict};
use crate::chat::{About, Answer, Command, Part, Request, Verb};
use crate::credentials;
use crate::logging::Chain;
use crate::peering::{Connection, Status};
use crate::preflight::{self, Check, Finding, Found, Objection};
use crate::store::{self, Entry, Saved, Stored};

/// How often a decision is made anew because the record changed meanwhile.
const CONFLICTS: u32 = 5;
/// What the checks that ask Alibaba Cloud may take of a sender's time.
const EXAMINATION: Duration = Duration::from_millis(700);
/// A reading that is older is made anew before the call.
const FRESH: Duration = Duration::from_secs(1);
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
        Verb::Withdraw => withdraw(app, &id, &by, &request.request_key, now, deadline).await,
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
    let (reason, request_key) = (about.reason.clone(), request.request_key.clone());
    Decision { verdict, by, at: now, fingerprint, reason, request_key }
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
        let Self { app, about, id, now, deadline, .. } = self;
        let (stored, connection) = tokio::join!(
            timeout_at(deadline, app.store.load(id)),
            timeout_at(deadline, accept::read(app, &id.target, &id.instance_id, now)),
        );
        let stored = match stored {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => return store_failed(&error),
            Err(_elapsed) => return Answer::Unavailable(Part::Store),
        };
        // Who comes too late is told who won, whatever else is the matter by now.
        if let (Verb::Decide(verdict), Some(stored)) = (about.verb, &stored)
            && let Err(closed) = stored.approval.is_open_to(&self.decision(verdict, &stored.approval.connection))
        {
            return closed_answer(closed, stored.approval.clone());
        }
        let connection = match connection {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) if error.class() == Class::Missing => return missing(about.verb, stored, id.clone()),
            Ok(Err(error)) => return read_failed(&error),
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
        if self.about.fingerprint.as_ref().is_some_and(|seen| *seen != connection.fingerprint()) {
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
        let fresh = connection.fingerprint();
        let stored = match stored {
            Some(stored) if stored.approval.fingerprint != fresh => {
                let redrawn = self.redraw(stored, connection).await;
                // Who says nothing about what they saw, saw the card.
                if about.fingerprint.as_ref() != Some(&fresh) {
                    return Answer::Changed;
                }
                redrawn
            }
            stored => {
                let shown = stored.as_ref().is_none_or(|stored| stored.approval.is_shown());
                if about.fingerprint.as_ref().map_or(!shown, |seen| *seen != fresh) {
                    return Answer::Changed;
                }
                stored
            }
        };
        let findings = match verdict {
            Verdict::Approve => self.examine(connection).await,
            Verdict::Reject => match app.config.targets.get(&id.target) {
                Some(target) => preflight::check(connection, target.account, now),
                None => vec![],
            },
        };
        let objection = match verdict {
            Verdict::Approve => preflight::objection(&findings),
            Verdict::Reject => preflight::objection_to_reject(&findings),
        };
        let decision = self.decision(verdict, connection);
        if let Some(objection) = objection {
            // Somebody may have won between the two readings: then that is the reason.
            let stored = timeout_at(deadline, app.store.load(id)).await.ok().and_then(Result::ok).flatten();
            let closed = stored.and_then(|stored| Some((stored.approval.is_open_to(&decision).err()?, stored)));
            return closed
                .map_or_else(|| objected(objection), |(closed, stored)| closed_answer(closed, stored.approval));
        }
        let terms = policy.terms(&id.target, connection);
        let grounds = Grounds {
            id,
            connection,
            terms: &terms,
            findings: &findings,
            electorate: &|principal| policy.electorate(&id.target, connection, principal),
        };
        make_durable(app, stored, (&grounds, read_at), decision, deadline).await
    }

    /// The card shows something else: it is to show what is.
    async fn redraw(&self, stored: Stored, connection: &Connection) -> Option<Stored> {
        let Self { app, now, deadline, .. } = *self;
        let findings = self.examine(connection).await;
        let event = Event::Changed { connection: Box::new(connection.clone()), findings };
        match timeout_at(deadline, app.store.update(stored, |approval| approval.apply(&event, now))).await {
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
        let page = match timeout_at(deadline, app.store.due(Timestamp::MAX, from)).await {
            Ok(Ok((page, more))) => {
                from = more;
                page
            }
            Ok(Err(error)) => return store_failed(&error),
            Err(_elapsed) => return Answer::Unavailable(Part::Store),
        };
        let wanted =
            |entry: &Entry| entry.stage != Stage::Over && target.is_none_or(|target| entry.id.target == target);
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
        Closed::Changed => Answer::Changed,
        Closed::NothingToWithdraw => Answer::NothingToWithdraw,
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

/// Makes the decision durable and, when it completes the approval, has it carried out.
async fn make_durable(
    app: &App,
    mut before: Option<Stored>,
    (grounds, read_at): (&Grounds<'_>, Instant),
    decision: Decision,
    deadline: Instant,
) -> Answer {
    let now = decision.at;
    for _ in 0..CONFLICTS {
        let earlier = before.as_ref().map(|stored| &stored.approval);
        let approval = match (Approval::decide(earlier, grounds, decision.clone()), earlier) {
            (Ok(approval), _) => approval,
            (Err(closed), Some(earlier)) => return closed_answer(closed, earlier.clone()),
            // Only a record can be closed.
            (Err(_), None) => return Answer::Unavailable(Part::Store),
        };
        match timeout_at(deadline, app.store.save(&approval, before.as_ref())).await {
            Ok(Ok(Saved::Done(stored))) if stored.approval.state == State::Pending => {
                return Answer::Counted(Box::new(stored.approval));
            }
            Ok(Ok(Saved::Done(stored))) => {
                return carry_out(app, stored, (grounds.connection, read_at), now, deadline).await;
            }
            Ok(Ok(Saved::Conflict(theirs))) => before = Some(theirs),
            Ok(Err(error)) => return store_failed(&error),
            Err(_elapsed) => return Answer::Unavailable(Part::Store),
        }
    }
    Answer::Unavailable(Part::Store)
}

/// Takes an approval back: nobody has to be asked for that.
async fn withdraw(
    app: &App,
    id: &ApprovalId,
    by: &Approver,
    request_key: &str,
    now: Timestamp,
    deadline: Instant,
) -> Answer {
    let withdrawn = async {
        let Some(stored) = app.store.load(id).await? else {
            return Ok(Answer::NothingToWithdraw);
        };
        let mut closed = None;
        let stored = app
            .store
            .update(stored, |approval| {
                // The record may know them by a workspace of their organization.
                let is_theirs = |given: &&Decision| app.config.policy.approver(given.by.principal.clone()).is(by);
                let given = approval.decisions.iter().find(is_theirs).map(|given| given.by.clone());
                closed = approval.withdraw(given.as_ref().unwrap_or(by), request_key, now).err();
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

/// The decision is durable: what happens from here on only decides how much of it the sender hears.
async fn carry_out(
    app: &App,
    stored: Stored,
    (connection, read_at): (&Connection, Instant),
    now: Timestamp,
    deadline: Instant,
) -> Answer {
    let decided = Box::new(stored.approval.clone());
    let finish = async {
        let event = if read_at.elapsed() < FRESH {
            accept::carry_out(app, &stored.approval, connection, now).await
        } else {
            accept::advance(app, &stored.approval, now).await
        };
        let generation = stored.approval.generation;
        let apply = |approval: &mut Approval| approval.generation == generation && approval.apply(&event, now);
        let stored = app.store.update(stored, apply).await?;
        accept::log(&stored.approval, &event);
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
        Class::Missing | Class::Retry | Class::DryRunPassed => {
            let secrets = matches!(error, accept::Error::Credentials(credentials::Error::Secrets(_)));
            Answer::Unavailable(if secrets { Part::Secrets } else { Part::Alicloud })
        }
    }
}

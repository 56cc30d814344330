//! From a command of somebody we know to what comes of it: read, ask the policy, write once, carry out.
//!
//! Knows nothing of HTTP.

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::accept;
use crate::alicloud::Class;
use crate::app::App;
use crate::approval::{Approval, ApprovalId, Call, ClientToken, Closed, Decision, Grounds, State, Verdict};
use crate::chat::{Answer, Part, Request, Verb};
use crate::logging::Chain;
use crate::peering::{Connection, Status};
use crate::policy;
use crate::store::{self, Saved, Stored};

/// How often a decision is made anew because the record changed meanwhile.
const CONFLICTS: u32 = 5;

/// Carries out a command, until `deadline`.
pub(super) async fn answer(app: &App, request: &Request, now: Timestamp, deadline: Instant) -> Answer {
    let Some((name, target)) = app.config.target(request.command.target.as_deref()) else {
        return Answer::UnknownTarget(app.config.targets.keys().cloned().collect());
    };
    let id = ApprovalId { target: name.to_owned(), instance_id: request.command.instance_id.clone() };
    let (stored, connection) = tokio::join!(
        timeout_at(deadline, app.store.load(&id)),
        timeout_at(deadline, accept::read(app, &id.target, &id.instance_id, now)),
    );
    let stored = match stored {
        Ok(Ok(stored)) => stored,
        Ok(Err(error)) => return store_failed(&error),
        Err(_elapsed) => return Answer::Unavailable(Part::Store),
    };
    let decision = |verdict| Decision {
        verdict,
        by: app.config.policy.approver(request.by.clone()),
        at: now,
        reason: request.command.reason.clone(),
        request_key: request.request_key.clone(),
    };
    // Who comes too late is told who won, whatever else is the matter by now.
    if let (Verb::Decide(verdict), Some(stored)) = (request.command.verb, &stored)
        && let Err(closed) = stored.approval.is_open_to(&decision(verdict))
    {
        return too_late(closed, stored.approval.clone());
    }
    let connection = match connection {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if error.class() == Class::Missing => return missing(request.command.verb, stored, id),
        Ok(Err(error)) => return read_failed(&error),
        Err(_elapsed) => return Answer::Unavailable(Part::Alicloud),
    };
    if request.command.verb == Verb::Status {
        let approval = stored.map(|stored| Box::new(stored.approval));
        return Answer::Status { connection: Box::new(connection), approval, target: id.target };
    }
    let approver = app.config.policy.approver(request.by.clone());
    let rule = match app.config.policy.permit(&id.target, &connection, &approver) {
        Ok(rule) => rule,
        Err(refusal) => return Answer::Refused(refusal),
    };
    if request.command.fingerprint.as_ref().is_some_and(|seen| *seen != connection.fingerprint()) {
        return Answer::Changed;
    }
    let verdict = match request.command.verb {
        Verb::Decide(verdict) => verdict,
        Verb::DryRun | Verb::Status => Verdict::Approve,
    };
    if let Err(objection) = policy::preflight(&connection, target.account, verdict, now) {
        if request.command.verb == Verb::DryRun {
            return Answer::Objection(objection);
        }
        // Somebody may have won between the two readings: then that is the reason.
        let stored = timeout_at(deadline, app.store.load(&id)).await.ok().and_then(Result::ok).flatten();
        let closed = stored.and_then(|stored| Some((stored.approval.is_open_to(&decision(verdict)).err()?, stored)));
        return closed.map_or(Answer::Objection(objection), |(closed, stored)| too_late(closed, stored.approval));
    }
    if request.command.verb == Verb::DryRun {
        return dry_run(app, request, &id, connection, now, deadline).await;
    }
    let grounds = Grounds { id: &id, connection: &connection, rule: &rule.name, channels: &rule.channels };
    decide(app, stored, &grounds, decision(verdict), deadline).await
}

fn too_late(closed: Closed, approval: Approval) -> Answer {
    match closed {
        Closed::Repeated => Answer::Repeated(Box::new(approval)),
        Closed::Over => Answer::Over(Box::new(approval)),
    }
}

/// The connection is gone; what we know of it may still be asked for.
fn missing(verb: Verb, stored: Option<Stored>, id: ApprovalId) -> Answer {
    match (verb, stored) {
        (Verb::Status, Some(Stored { approval, .. })) => {
            let connection = Connection { status: Status::Deleted, ..approval.connection.clone() };
            Answer::Status { connection: Box::new(connection), approval: Some(Box::new(approval)), target: id.target }
        }
        (Verb::Status | Verb::Decide(_) | Verb::DryRun, _) => Answer::UnknownConnection,
    }
}

/// Makes the decision durable, then has it carried out.
async fn decide(
    app: &App,
    mut before: Option<Stored>,
    grounds: &Grounds<'_>,
    decision: Decision,
    deadline: Instant,
) -> Answer {
    let now = decision.at;
    for _ in 0..CONFLICTS {
        let earlier = before.as_ref().map(|stored| &stored.approval);
        let approval = match (Approval::decide(earlier, grounds, decision.clone()), earlier) {
            (Ok(approval), _) => approval,
            (Err(closed), Some(earlier)) => return too_late(closed, earlier.clone()),
            // Only a record can be closed.
            (Err(_), None) => return Answer::Unavailable(Part::Store),
        };
        let over = before.as_ref().map_or(0, |stored| stored.version);
        match timeout_at(deadline, app.store.save(&approval, over)).await {
            Ok(Ok(Saved::Done(stored))) => return carry_out(app, stored, grounds.connection, now, deadline).await,
            Ok(Ok(Saved::Conflict(theirs))) => before = Some(theirs),
            Ok(Err(error)) => return store_failed(&error),
            Err(_elapsed) => return Answer::Unavailable(Part::Store),
        }
    }
    Answer::Unavailable(Part::Store)
}

/// The decision is durable: what happens from here on only decides how much of it the sender hears.
async fn carry_out(app: &App, stored: Stored, connection: &Connection, now: Timestamp, deadline: Instant) -> Answer {
    let decided = Box::new(stored.approval.clone());
    let finish = async {
        let event = accept::carry_out(app, &stored.approval, connection, now).await;
        let generation = stored.approval.generation;
        let apply = |approval: &mut Approval| approval.generation == generation && approval.apply(&event, now);
        let stored = app.store.update(stored, apply).await?;
        accept::log(&stored.approval, &event);
        Ok::<_, store::Error>(stored.approval)
    };
    match timeout_at(deadline, finish).await {
        Ok(Ok(approval)) if matches!(approval.state, State::Approved | State::Rejecting) => {
            Answer::Underway(Box::new(approval))
        }
        Ok(Ok(approval)) => Answer::Done(Box::new(approval)),
        Ok(Err(error)) => {
            tracing::error!(outcome = "store_failed", error = %Chain(&error), "the outcome of a call could not be stored");
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

async fn dry_run(
    app: &App,
    request: &Request,
    id: &ApprovalId,
    connection: Connection,
    now: Timestamp,
    deadline: Instant,
) -> Answer {
    let account = connection.accepter.account;
    let call = Call::DryRun { request_key: &request.request_key };
    let token = ClientToken::derive(&request.by, account, &id.instance_id, Verdict::Approve, call);
    let call = accept::dry_run(app, &id.target, &id.instance_id, token.as_str(), now);
    match timeout_at(deadline, call).await {
        Ok(Ok(())) => Answer::DryRunPassed(Box::new(connection)),
        Ok(Err(error)) if error.class() == Class::Missing => Answer::UnknownConnection,
        Ok(Err(error)) => read_failed(&error),
        Err(_elapsed) => Answer::Unavailable(Part::Alicloud),
    }
}

fn store_failed(error: &store::Error) -> Answer {
    tracing::error!(outcome = "store_failed", error = %Chain(error), "the store failed");
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
            let secrets = matches!(error, accept::Error::Secrets(_));
            Answer::Unavailable(if secrets { Part::Secrets } else { Part::Alicloud })
        }
    }
}

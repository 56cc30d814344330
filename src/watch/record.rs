//! One record: what is due of it, or what a reading says about it; then what it owes its channels.

use jiff::Timestamp;
use tokio::time::Instant;

use super::Summary;
use super::delivery::{claim, claim_with, deliver, post_claims};
use super::job::{Done, Job};
use crate::accept::{self, EXAMINATION, Next};
use crate::alicloud::Class;
use crate::app::App;
use crate::approval::{Approval, ApprovalId, Approver, Claim, Event, Grounds, Stage, State, follow_again_at};
use crate::clock;
use crate::peering::Connection;
use crate::store::{self, Saved, Stored};

/// Brings a record a step further, if one is due. Not on the word of the index, which lags.
pub(super) async fn step(app: &App, id: &ApprovalId, did: &mut Summary) -> Result<Done, store::Error> {
    let Some(stored) = app.store.load(id).await? else { return Ok(Done::default()) };
    let is_due = stored.approval.next_step_at.is_some_and(|at| at <= clock::now());
    let stored = if is_due { advance(app, stored, did).await? } else { stored };
    end(app, stored, did).await
}

/// Takes over what a reading says about a connection that the index has at `stage`.
pub(super) async fn take(
    app: &App,
    id: &ApprovalId,
    connection: &Connection,
    stage: Option<Stage>,
    did: &mut Summary,
) -> Result<Done, store::Error> {
    let stored = app.store.load(id).await?;
    // A finished connection that is there waits again.
    let waits = |stored: &Stored| stored.approval.state == State::Pending || stored.approval.stage() == Stage::Ended;
    let stored = match stored {
        // A list is a reading as well: it ends the doubt.
        Some(stored) if stored.approval.state == State::Pending && stored.approval.doubt.is_some() => {
            Some(apply(app, stored, &seen(connection), did).await?)
        }
        stored if connection.is_waiting(clock::now()) && stored.as_ref().is_none_or(waits) => {
            look_again(app, id, stored, stage, did).await?
        }
        Some(stored) => Some(apply(app, stored, &seen(connection), did).await?),
        None => None,
    };
    match stored {
        Some(stored) => end(app, stored, did).await,
        None => Ok(Done::default()),
    }
}

/// Reads a connection that is followed; what is new is to be taken in. `since` is when its activation began.
pub(super) async fn read(
    app: &App,
    id: ApprovalId,
    stage: Stage,
    since: Option<Timestamp>,
) -> Result<Done, store::Error> {
    let now = clock::now();
    let look_at = since.and_then(|since| follow_again_at(since, now));
    match accept::read(app, &id.target, &id.instance_id, now).await {
        Ok(connection) if stage.is_news(&connection, now, || app.config.policy.terms(&id.target, &connection)) => {
            Ok(Done { look_at, more: vec![Job::News(id, Box::new(connection), Some(stage))] })
        }
        Ok(_) => Ok(Done { look_at, more: vec![] }),
        Err(error) if error.class() == Class::Missing => Ok(Done { look_at, more: vec![Job::Gone(id)] }),
        Err(error) => {
            log_unread(&id, &error);
            Ok(Done { look_at, more: vec![] })
        }
    }
}

/// Takes over that a connection is not there any more.
pub(super) async fn gone(app: &App, id: &ApprovalId, did: &mut Summary) -> Result<Done, store::Error> {
    let Some(stored) = app.store.load(id).await? else { return Ok(Done::default()) };
    let stored = apply(app, stored, &Event::Missing, did).await?;
    end(app, stored, did).await
}

fn seen(connection: &Connection) -> Event {
    Event::Seen(Box::new(connection.clone()))
}

fn log_unread(id: &ApprovalId, error: &accept::Error) {
    let (peering, problem) = (id.instance_id.as_str(), error.problem());
    tracing::warn!(
        outcome = "not_read",
        target = id.target,
        peering.id = peering,
        alicloud.code = problem.code,
        alicloud.request_id = problem.request_id,
        "a connection could not be read"
    );
}

async fn end(app: &App, stored: Stored, did: &mut Summary) -> Result<Done, store::Error> {
    let stored = deliver(app, stored, did).await?;
    Ok(Done { look_at: stored.approval.look_again_at(clock::now()), more: vec![] })
}

async fn advance(app: &App, stored: Stored, did: &mut Summary) -> Result<Stored, store::Error> {
    let (id, now) = (&stored.approval.id, clock::now());
    let event = match stored.approval.state {
        State::Pending => match accept::read(app, &id.target, &id.instance_id, now).await {
            Ok(connection) if worth_a_look(app, &stored.approval, &connection) => {
                let id = id.clone();
                let looked = look(app, &id, Some(stored), &connection, now).await?.ok_or(store::Error::Contention)?;
                did.changed += u32::from(looked.changed);
                return tell_or_call(app, looked, did).await;
            }
            Ok(connection) => seen(&connection),
            Err(error) => accept::unread(&error),
        },
        State::Approved | State::Rejecting => return carry_out(app, stored, true, did).await,
        State::Activating
        | State::Activated
        | State::Rejected
        | State::Expired
        | State::Deleted
        | State::Failed { .. } => match accept::read(app, &id.target, &id.instance_id, now).await {
            Ok(connection) => seen(&connection),
            Err(error) => accept::unread(&error),
        },
    };
    apply(app, stored, &event, did).await
}

/// Makes the decided call, if the connection waits for it. That a call begins is stored before: whoever stores it makes
/// it, and a death leaves a trace.
async fn carry_out(app: &App, stored: Stored, late: bool, did: &mut Summary) -> Result<Stored, store::Error> {
    let (generation, now) = (stored.approval.generation, clock::now());
    if let Next::Happened(event) = accept::prepare(app, &stored.approval, late, now).await {
        return apply(app, stored, &event, did).await;
    }
    let mut begun = false;
    let begin_call = |approval: &mut Approval| {
        let now = clock::now();
        let is_decided = matches!(approval.state, State::Approved | State::Rejecting);
        begun = is_decided && approval.generation == generation && !approval.is_being_called(now);
        if begun {
            approval.begin_call(now);
        }
        begun
    };
    // By a rule, the decision was stored as a call that begins.
    let stored = if late { app.store.update(stored, begin_call).await? } else { stored };
    if late && !begun {
        return Ok(stored);
    }
    let step = accept::call(app, &stored.approval, now).await;
    let (now, mut changed) = (clock::now(), false);
    let apply = |approval: &mut Approval| {
        changed = step.apply(approval, generation, now);
        changed
    };
    let (stored, claims) = claim_with(app, stored, apply).await?;
    if changed {
        did.changed += 1;
        accept::log(&stored.approval, &step.event);
    }
    post_claims(app, stored, claims, did).await
}

/// Whether a request that is due has something about it that is to be checked, and not only told.
fn worth_a_look(app: &App, approval: &Approval, connection: &Connection) -> bool {
    let terms = || app.config.policy.terms(&approval.id.target, connection);
    let now = clock::now();
    connection.is_waiting(now) && (approval.stage().is_news(connection, now, terms) || approval.is_worth_a_check())
}

/// Applies what happened, unless a new generation has begun meanwhile.
async fn apply(app: &App, stored: Stored, event: &Event, did: &mut Summary) -> Result<Stored, store::Error> {
    let (now, generation, mut changed) = (clock::now(), stored.approval.generation, false);
    let apply = |approval: &mut Approval| {
        changed = approval.generation == generation && approval.apply(event, now);
        changed
    };
    let (stored, claims) = claim_with(app, stored, apply).await?;
    if changed {
        did.changed += 1;
        accept::log(&stored.approval, event);
    }
    post_claims(app, stored, claims, did).await
}

/// Looks at a request that a list shows as new, or not as it was, as it is at this moment: the list may be older than
/// what somebody has decided meanwhile.
async fn look_again(
    app: &App,
    id: &ApprovalId,
    stored: Option<Stored>,
    stage: Option<Stage>,
    did: &mut Summary,
) -> Result<Option<Stored>, store::Error> {
    let now = clock::now();
    let connection = match accept::read(app, &id.target, &id.instance_id, now).await {
        Ok(connection) if connection.is_waiting(now) => connection,
        // It is over: the next tick sees that.
        Ok(_) => return Ok(stored),
        Err(error) => {
            log_unread(id, &error);
            return Ok(stored);
        }
    };
    let terms = || app.config.policy.terms(&id.target, &connection);
    let is_known =
        |approval: &Approval| approval.state == State::Pending && !approval.stage().is_news(&connection, now, terms);
    if let Some(known) = stored.as_ref().filter(|stored| is_known(&stored.approval)) {
        if stage.is_none_or(|stage| stage == known.approval.stage()) {
            return Ok(stored);
        }
        // The index has it as an earlier version wrote it: it would be news for ever.
        return match app.store.save(&known.approval, Some(known)).await? {
            Saved::Done(stored) | Saved::Conflict(stored) => Ok(Some(stored)),
        };
    }
    let Some(looked) = look(app, id, stored, &connection, now).await? else { return Ok(None) };
    if looked.changed {
        let approval = &looked.stored.approval;
        did.discovered += 1;
        tracing::info!(
            outcome = "discovered",
            target = id.target,
            peering.id = id.instance_id.as_str(),
            peering.state = approval.state.name(),
            rule = approval.terms.rule.as_deref(),
            "a request was looked at"
        );
    }
    Ok(Some(tell_or_call(app, looked, did).await?))
}

/// A request that was just looked at.
struct Looked {
    stored: Stored,
    /// Whether the look has changed the record.
    changed: bool,
    /// What is to be posted about it.
    claims: Vec<Claim>,
    /// Its rule accepts it by itself: the call has been stored and is to be made.
    is_called: bool,
}

/// Posts what the channels are owed. What a rule accepts by itself is accepted before anybody hears of it.
async fn tell_or_call(app: &App, looked: Looked, did: &mut Summary) -> Result<Stored, store::Error> {
    let Looked { stored, claims, is_called, .. } = looked;
    if is_called { carry_out(app, stored, false, did).await } else { post_claims(app, stored, claims, did).await }
}

/// Makes all checks of a request, writes down what is new, and accepts it if its rule needs nobody. `None` if somebody else
/// was first to write a record.
async fn look(
    app: &App,
    id: &ApprovalId,
    stored: Option<Stored>,
    connection: &Connection,
    now: Timestamp,
) -> Result<Option<Looked>, store::Error> {
    let (policy, by) = (&app.config.policy, Approver::peergate(&id.target).principal);
    let until = Instant::now() + EXAMINATION;
    let findings = accept::examine(app, &id.target, connection, &by, &clock::nonce(), now, until).await;
    let now = clock::now();
    let terms = policy.terms(&id.target, connection);
    let grounds = Grounds {
        id,
        connection,
        terms: &terms,
        findings: &findings,
        electorate: &|principal| policy.electorate(&id.target, connection, principal),
    };
    let is_called = |approval: &Approval| approval.state == State::Approved && approval.is_being_called(now);
    let claim_unless_called =
        |approval: &mut Approval| if is_called(approval) { vec![] } else { claim(app, approval, now) };
    let (mut changed, mut claims) = (false, vec![]);
    let stored = match stored {
        None => {
            let mut approval = Approval::discover(&grounds, now);
            claims = claim_unless_called(&mut approval);
            changed = true;
            match app.store.save(&approval, None).await? {
                Saved::Done(stored) => stored,
                Saved::Conflict(_) => return Ok(None),
            }
        }
        Some(stored) => {
            let known = stored.approval.fingerprint.clone();
            // Somebody else may have read it later than we did.
            let look = |approval: &mut Approval| {
                changed = approval.fingerprint == known && approval.look(&grounds, now);
                claims = if changed { claim_unless_called(approval) } else { vec![] };
                changed
            };
            app.store.update(stored, look).await?
        }
    };
    let is_called = changed && is_called(&stored.approval);
    Ok(Some(Looked { stored, changed, claims, is_called }))
}

//! Reconciles one record with its connection: takes the due step, or applies a reading. Then delivers the
//! notifications.

use std::collections::BTreeSet;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::TickSummary;
use super::job::{Job, JobResult};
use super::notify::{Claimed, claim_due, deliver, update_and_claim};
use crate::accept::{self, BACKGROUND_CHECKS_TIMEOUT, NextStep};
use crate::alicloud::Class;
use crate::app::App;
use crate::approval::{
    Approval, ApprovalId, ApprovalState, Approver, Event, FollowedReading, IndexState, Principal, Review,
    activation_recheck_at,
};
use crate::clock;
use crate::peering::{Connection, RouteReport, Status};
use crate::store::{self, Saved, Stored};

/// When to read route tables again that could not be read: after a passing error, and after a refusal, which a person must
/// fix.
const ROUTES_RETRY_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
const REFUSED_ROUTES_INTERVAL: SignedDuration = SignedDuration::from_hours(6);
/// When to look whether they may be read, if the configuration does not allow it any more.
const UNREAD_ROUTES_INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// Takes the due step of a record. Loads the record first, because the index may be outdated.
pub(super) async fn advance_record(
    app: &App,
    id: &ApprovalId,
    summary: &mut TickSummary,
) -> Result<JobResult, store::Error> {
    let Some(stored) = app.store.load(id).await? else { return Ok(JobResult::default()) };
    let now = clock::now();
    let stored = if stored.approval.are_routes_due(now) { read_routes(app, stored).await? } else { stored };
    if stored.approval.next_step_at().is_none_or(|at| at > now) {
        return deliver(app, Claimed::nothing(stored), summary).await;
    }
    let claimed = match stored.approval.state() {
        ApprovalState::Approved | ApprovalState::Rejecting => carry_out_decision(app, stored, true, summary).await?,
        ApprovalState::Pending
        | ApprovalState::Activating
        | ApprovalState::Activated
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted
        | ApprovalState::Failed { .. } => match accept::read_connection(app, &id.target, &id.instance_id, now).await {
            Ok(connection) if needs_refresh(app, &stored.approval, &connection) => {
                let refreshed = refresh_record(app, id, Some(stored), &connection, now).await?;
                let refreshed = refreshed.ok_or(store::Error::Contention)?;
                summary.changed += u32::from(refreshed.changed);
                make_call_if_due(app, refreshed, summary).await?
            }
            Ok(connection) if is_active(&stored.approval, &connection) => {
                follow_active(app, stored, connection, None, summary).await?
            }
            Ok(connection) => apply_event(app, stored, &observed_event(&connection), summary).await?,
            Err(error) => apply_event(app, stored, &accept::read_error_event(&error), summary).await?,
        },
    };
    deliver(app, claimed, summary).await
}

/// Applies a reading to a record. `indexed_state` is the state of the record in the index, `None` if it is not known.
pub(super) async fn ingest_reading(
    app: &App,
    id: &ApprovalId,
    connection: &Connection,
    indexed_state: Option<IndexState>,
    summary: &mut TickSummary,
) -> Result<JobResult, store::Error> {
    let stored = app.store.load(id).await?;
    let can_refresh = |stored: &Stored| {
        if *stored.approval.state() == ApprovalState::Pending {
            // A list entry counts as a reading: it confirms the earlier one or contradicts it.
            stored.approval.unconfirmed().is_none()
        } else {
            // An ended request whose connection is waiting is reopened.
            stored.approval.index_state() == IndexState::Ended
        }
    };
    let claimed = match stored {
        stored if connection.is_waiting(clock::now()) && stored.as_ref().is_none_or(can_refresh) => {
            refresh_listed(app, id, stored, indexed_state, summary).await?
        }
        Some(stored) if is_active(&stored.approval, connection) => {
            Some(follow_listed(app, stored, None, summary).await?)
        }
        Some(stored) => Some(apply_event(app, stored, &observed_event(connection), summary).await?),
        None => None,
    };
    match claimed {
        Some(claimed) => deliver(app, claimed, summary).await,
        None => Ok(JobResult::default()),
    }
}

/// Reads a connection. If the reading is new, a follow-up job applies it. `activating_since` says when the youngest
/// activation of the region began.
pub(super) async fn poll_connection(
    app: &App,
    id: ApprovalId,
    indexed_state: IndexState,
    activating_since: Option<Timestamp>,
) -> Result<JobResult, store::Error> {
    let now = clock::now();
    let recheck_at = activating_since.and_then(|since| activation_recheck_at(since, now));
    let follow_ups = match accept::read_connection(app, &id.target, &id.instance_id, now).await {
        Ok(connection) if is_outdated(app, indexed_state, &id, &connection, now) => {
            vec![Job::Ingest { id, connection: Box::new(connection), indexed_state: Some(indexed_state) }]
        }
        Ok(_) => vec![],
        Err(error) if error.class() == Class::Missing => vec![Job::MarkDeleted(id)],
        Err(error) => {
            log_read_failure(&id, &error);
            vec![]
        }
    };
    Ok(JobResult { recheck_at, follow_ups })
}

/// Reads our route tables for a connection that is activated or has ended.
async fn read_routes(app: &App, stored: Stored) -> Result<Stored, store::Error> {
    let (id, side) = (stored.approval.id(), &stored.approval.connection().accepter);
    if app.config.targets.get(&id.target).is_none_or(|target| !target.read_vpcs) {
        let (event, now) = (Event::RoutesUnread(UNREAD_ROUTES_INTERVAL), clock::now());
        return app.store.update(stored, |approval| approval.apply_event(&event, now)).await;
    }
    let is_active = *stored.approval.state() == ApprovalState::Activated;
    let event = match accept::list_route_tables(app, &id.target, &side.region, &side.vpc, clock::now()).await {
        // Every VPC that exists has a table. What is not whole would look like missing routes.
        Ok(tables) if tables.is_empty() => {
            tracing::warn!(
                outcome = "routes_not_read",
                target = id.target,
                peering.id = id.instance_id.as_str(),
                "found no route table of our VPC"
            );
            // The VPC of an ended connection may be gone.
            Event::RoutesUnread(if is_active { ROUTES_RETRY_INTERVAL } else { REFUSED_ROUTES_INTERVAL })
        }
        Ok(tables) => {
            let blocks = if is_active { stored.approval.asked_facts().requester.cidrs } else { BTreeSet::new() };
            Event::RoutesRead(RouteReport::new(&tables, &id.instance_id, &blocks))
        }
        Err(error) => {
            let (peering, problem) = (id.instance_id.as_str(), error.to_problem());
            tracing::warn!(
                outcome = "routes_not_read",
                target = id.target,
                peering.id = peering,
                alicloud.code = problem.code,
                alicloud.request_id = problem.request_id,
                "could not read our route tables"
            );
            let wait = if error.is_worth_a_retry() { ROUTES_RETRY_INTERVAL } else { REFUSED_ROUTES_INTERVAL };
            Event::RoutesUnread(wait)
        }
    };
    let now = clock::now();
    // What is due is claimed by the next step.
    app.store.update(stored, |approval| approval.apply_event(&event, now)).await
}

/// Whether the reading is about an activated connection that peergate follows. Its status may be another one now.
fn is_active(approval: &Approval, connection: &Connection) -> bool {
    *approval.state() == ApprovalState::Activated && connection.status != Status::Deleted
}

/// Compares an activated connection with what people approved. Reads it again first, because the list may be older.
async fn follow_listed(
    app: &App,
    stored: Stored,
    own_vpc: Option<BTreeSet<IpNet>>,
    summary: &mut TickSummary,
) -> Result<Claimed, store::Error> {
    let (id, now) = (stored.approval.id(), clock::now());
    match accept::read_connection(app, &id.target, &id.instance_id, now).await {
        Ok(connection) if is_active(&stored.approval, &connection) => {
            follow_active(app, stored, connection, own_vpc, summary).await
        }
        // It was deleted at this moment. The next tick handles that.
        Ok(_) => Ok(Claimed::nothing(stored)),
        Err(error) => {
            log_read_failure(id, &error);
            Ok(Claimed::nothing(stored))
        }
    }
}

/// Applies a reading of our own VPC to one of its connections.
pub(super) async fn ingest_own_vpc(
    app: &App,
    id: &ApprovalId,
    cidrs: BTreeSet<IpNet>,
    summary: &mut TickSummary,
) -> Result<JobResult, store::Error> {
    let Some(stored) = app.store.load(id).await? else { return Ok(JobResult::default()) };
    if *stored.approval.state() != ApprovalState::Activated {
        return Ok(JobResult::default());
    }
    let (approval, now) = (&stored.approval, clock::now());
    let known = approval.connection().clone();
    let claimed = if approval.drift().is_none()
        && !approval.is_away()
        && approval.changes_since_approval(&known, Some(&cidrs)).is_empty()
    {
        // Nothing is told, so that no reading is needed.
        let policy = app.config.policy.snapshot_for(&id.target, &known);
        let reading = FollowedReading { connection: known, own_vpc: Some(cidrs), policy, findings: vec![] };
        let seen = |approval: &mut Approval| approval.apply_event(&Event::Followed(Box::new(reading.clone())), now);
        Claimed::nothing(app.store.update(stored, seen).await?)
    } else {
        follow_listed(app, stored, Some(cidrs), summary).await?
    };
    deliver(app, claimed, summary).await
}

/// Compares a reading of an activated connection with what people approved, and stores what is new. Only a difference is
/// checked.
async fn follow_active(
    app: &App,
    stored: Stored,
    connection: Connection,
    own_vpc: Option<BTreeSet<IpNet>>,
    summary: &mut TickSummary,
) -> Result<Claimed, store::Error> {
    let target = &stored.approval.id().target;
    let is_as_approved = connection.status == Status::Activated
        && stored.approval.changes_since_approval(&connection, own_vpc.as_ref()).is_empty();
    let findings = if is_as_approved {
        vec![]
    } else {
        let mut checked = connection.clone();
        // The peering may not show all of them.
        let own_vpc = own_vpc.as_ref().or(stored.approval.own_vpc());
        checked.accepter.cidrs.extend(own_vpc.into_iter().flatten());
        accept::check_active(app, target, &checked, clock::now()).await
    };
    let policy = app.config.policy.snapshot_for(target, &connection);
    let event = Event::Followed(Box::new(FollowedReading { connection, own_vpc, policy, findings }));
    apply_event(app, stored, &event, summary).await
}

/// Records that a connection no longer exists.
pub(super) async fn mark_deleted(
    app: &App,
    id: &ApprovalId,
    summary: &mut TickSummary,
) -> Result<JobResult, store::Error> {
    let Some(stored) = app.store.load(id).await? else { return Ok(JobResult::default()) };
    let claimed = apply_event(app, stored, &Event::Missing, summary).await?;
    deliver(app, claimed, summary).await
}

/// Tells people of a connection that was accepted before peergate knew of it. Reads it first, because the list may be
/// outdated.
pub(super) async fn report_bypass(
    app: &App,
    id: &ApprovalId,
    summary: &mut TickSummary,
) -> Result<JobResult, store::Error> {
    let now = clock::now();
    let connection = match accept::read_connection(app, &id.target, &id.instance_id, now).await {
        Ok(connection) if connection.status == Status::Activated => connection,
        Ok(_) => return Ok(JobResult::default()),
        Err(error) => {
            log_read_failure(id, &error);
            return Ok(JobResult::default());
        }
    };
    let policy = &app.config.policy;
    let snapshot = policy.snapshot_for(&id.target, &connection);
    let eligible_approver = |principal: &Principal| policy.eligible_approver(&id.target, &connection, principal);
    let review =
        Review { id, connection: &connection, policy: &snapshot, findings: &[], eligible_approver: &eligible_approver };
    let mut approval = Approval::discover_bypass(&review, now);
    let claims = claim_due(app, &mut approval, now, now);
    let stored = match app.store.save(&approval, None).await? {
        Saved::Done(stored) => stored,
        // Another process has just created a record, so people were asked.
        Saved::Conflict(_) => return Ok(JobResult::default()),
    };
    summary.discovered += 1;
    tracing::error!(
        outcome = "bypassed",
        target = id.target,
        peering.id = id.instance_id.as_str(),
        "somebody accepted a connection outside peergate before peergate knew of it"
    );
    deliver(app, Claimed { stored, claims }, summary).await
}

fn observed_event(connection: &Connection) -> Event {
    Event::Observed(Box::new(connection.clone()))
}

fn log_read_failure(id: &ApprovalId, error: &accept::Error) {
    let (peering, problem) = (id.instance_id.as_str(), error.to_problem());
    tracing::warn!(
        outcome = "not_read",
        target = id.target,
        peering.id = peering,
        alicloud.code = problem.code,
        alicloud.request_id = problem.request_id,
        "could not read a connection"
    );
}

/// Makes the decided call if the connection is waiting. First stores that the call begins: the process that stores it
/// makes the call, and a crash leaves a trace.
///
/// Without `recheck`, a rule has just approved the request: its checks are new, and the record already says that the
/// call begins.
async fn carry_out_decision(
    app: &App,
    stored: Stored,
    recheck: bool,
    summary: &mut TickSummary,
) -> Result<Claimed, store::Error> {
    let (generation, now) = (stored.approval.generation(), clock::now());
    if let NextStep::Apply(event) = accept::determine_next_step(app, &stored.approval, recheck, now).await {
        return apply_event(app, stored, &event, summary).await;
    }
    let mut begun = false;
    let begin_call = |approval: &mut Approval| {
        let now = clock::now();
        let is_decided = matches!(approval.state(), ApprovalState::Approved | ApprovalState::Rejecting);
        begun = is_decided && approval.generation() == generation && !approval.is_call_in_progress(now);
        if begun {
            approval.begin_call(now);
        }
        begun
    };
    let stored = if recheck { app.store.update(stored, begin_call).await? } else { stored };
    if recheck && !begun {
        return Ok(Claimed::nothing(stored));
    }
    let outcome = accept::make_call(app, &stored.approval, now).await;
    let now = clock::now();
    let apply = |approval: &mut Approval| outcome.apply_to(approval, generation, now);
    update_and_claim(app, stored, Some(&outcome.event), apply, summary).await
}

/// Whether a due request requires new checks, and not only a reminder.
fn needs_refresh(app: &App, approval: &Approval, connection: &Connection) -> bool {
    let now = clock::now();
    *approval.state() == ApprovalState::Pending
        && connection.is_waiting(now)
        && (is_outdated(app, approval.index_state(), approval.id(), connection, now) || approval.needs_recheck())
}

/// Whether a reading is new to a record in this state, under the current configuration.
pub(super) fn is_outdated(
    app: &App,
    state: IndexState,
    id: &ApprovalId,
    connection: &Connection,
    now: Timestamp,
) -> bool {
    state.is_outdated_by(connection, now, || app.config.policy.snapshot_for(&id.target, connection))
}

/// Applies an event, unless a new generation has begun.
async fn apply_event(
    app: &App,
    stored: Stored,
    event: &Event,
    summary: &mut TickSummary,
) -> Result<Claimed, store::Error> {
    let (now, generation) = (clock::now(), stored.approval.generation());
    let apply = |approval: &mut Approval| approval.generation() == generation && approval.apply_event(event, now);
    update_and_claim(app, stored, Some(event), apply, summary).await
}

/// Refreshes a request that a list shows as new or changed. Reads it again first, because the list may be older than a
/// decision.
async fn refresh_listed(
    app: &App,
    id: &ApprovalId,
    stored: Option<Stored>,
    indexed_state: Option<IndexState>,
    summary: &mut TickSummary,
) -> Result<Option<Claimed>, store::Error> {
    let now = clock::now();
    let connection = match accept::read_connection(app, &id.target, &id.instance_id, now).await {
        Ok(connection) if connection.is_waiting(now) => connection,
        // The connection is no longer waiting. The next tick handles that.
        Ok(_) => return Ok(stored.map(Claimed::nothing)),
        Err(error) => {
            log_read_failure(id, &error);
            return Ok(stored.map(Claimed::nothing));
        }
    };
    let is_known = |approval: &Approval| {
        *approval.state() == ApprovalState::Pending && !is_outdated(app, approval.index_state(), id, &connection, now)
    };
    if let Some(known) = stored.as_ref().filter(|stored| is_known(&stored.approval)) {
        if indexed_state.is_none_or(|state| state == known.approval.index_state()) {
            return Ok(stored.map(Claimed::nothing));
        }
        // An earlier version wrote the index entry. Without a new write, every tick would find a difference.
        return match app.store.save(&known.approval, Some(known)).await? {
            Saved::Done(stored) | Saved::Conflict(stored) => Ok(Some(Claimed::nothing(stored))),
        };
    }
    let Some(refreshed) = refresh_record(app, id, stored, &connection, now).await? else { return Ok(None) };
    if refreshed.changed {
        let approval = &refreshed.claimed.stored.approval;
        summary.discovered += 1;
        tracing::info!(
            outcome = "discovered",
            target = id.target,
            peering.id = id.instance_id.as_str(),
            peering.state = approval.state().name(),
            rule = approval.policy().rule.as_deref(),
            "stored a new or changed request"
        );
    }
    Ok(Some(make_call_if_due(app, refreshed, summary).await?))
}

/// A request that was just refreshed.
struct RefreshedRecord {
    claimed: Claimed,
    /// Whether the refresh changed the record.
    changed: bool,
    /// Whether a rule approved the request. Then the record says that a call begins, and this process must make it.
    must_make_call: bool,
}

/// Makes the call of a rule that accepts by itself. The channels hear of the request after the call.
async fn make_call_if_due(
    app: &App,
    refreshed: RefreshedRecord,
    summary: &mut TickSummary,
) -> Result<Claimed, store::Error> {
    let RefreshedRecord { claimed, must_make_call, .. } = refreshed;
    if must_make_call { carry_out_decision(app, claimed.stored, false, summary).await } else { Ok(claimed) }
}

/// Makes all checks of a request and stores what changed. If its rule requires nobody, this approves it. `None` if
/// another process created the record first.
async fn refresh_record(
    app: &App,
    id: &ApprovalId,
    stored: Option<Stored>,
    connection: &Connection,
    now: Timestamp,
) -> Result<Option<RefreshedRecord>, store::Error> {
    let (policy, by) = (&app.config.policy, Approver::peergate(&id.target).principal);
    let until = Instant::now() + BACKGROUND_CHECKS_TIMEOUT;
    let findings = accept::run_checks(app, &id.target, connection, &by, &clock::nonce(), now, until).await;
    let now = clock::now();
    let snapshot = policy.snapshot_for(&id.target, connection);
    let review = Review {
        id,
        connection,
        policy: &snapshot,
        findings: &findings,
        eligible_approver: &|principal| policy.eligible_approver(&id.target, connection, principal),
    };
    let must_make_call =
        |approval: &Approval| *approval.state() == ApprovalState::Approved && approval.is_call_in_progress(now);
    let claim_unless_called =
        |approval: &mut Approval| if must_make_call(approval) { vec![] } else { claim_due(app, approval, now, now) };
    let (mut changed, mut claims) = (false, vec![]);
    let stored = match stored {
        None => {
            let mut approval = Approval::discover(&review, now);
            claims = claim_unless_called(&mut approval);
            changed = true;
            match app.store.save(&approval, None).await? {
                Saved::Done(stored) => stored,
                Saved::Conflict(_) => return Ok(None),
            }
        }
        Some(stored) => {
            let known = stored.approval.fingerprint().clone();
            // Another process may have stored a later reading.
            let refresh = |approval: &mut Approval| {
                changed = *approval.fingerprint() == known && approval.refresh(&review, now);
                claims = if changed { claim_unless_called(approval) } else { vec![] };
                changed
            };
            app.store.update(stored, refresh).await?
        }
    };
    let must_make_call = changed && must_make_call(&stored.approval);
    Ok(Some(RefreshedRecord { claimed: Claimed { stored, claims }, changed, must_make_call }))
}

//! Steps that the webhook and the watcher share: reading a connection, checking it, and making the decided call.
//!
//! This module never decides anything. It never makes a call for a connection whose facts differ from the decided ones.

mod active;
mod inventory;
mod own_vpc;
mod region;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::alicloud::{self, Alicloud, Class, Credentials, ListScope, Page};
use crate::app::App;
use crate::approval::{
    Approval, ApprovalState, Approver, CallResult, ClientToken, Event, Principal, SendBackReason, TokenPurpose,
    Verdict, failure_code,
};
use crate::aws;
use crate::clock;
use crate::credentials::{self, RefusedKey, SessionName};
use crate::peering::{Connection, InstanceId, Problem, Status};
use crate::preflight::{self, Check, CheckOutcome, Finding, Objection};
use crate::secrets::AccessKey;

pub use active::check_active;
pub use inventory::{AdoptionError, Inventory, InventoryScope, adopt_connection, list_inventory};
pub use own_vpc::{describe_vpcs, list_route_tables, list_routes};

/// How long the watcher waits for the checks that call Alibaba Cloud.
pub const BACKGROUND_CHECKS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a call to Alibaba Cloud failed or was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration does not name the target, or no longer does.
    #[error("the target is not in the configuration")]
    UnknownTarget,
    /// peergate has no credentials for the call.
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
    /// The call failed.
    #[error(transparent)]
    Api(#[from] alicloud::Error),
}

impl Error {
    /// The error as records and people see it.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let (code, request_id) = match self {
            Self::UnknownTarget => ("UnknownTarget", None),
            Self::Credentials(error) => (error.code(), error.request_id()),
            Self::Api(error) => (error.code(), error.request_id()),
        };
        Problem { code: code.to_owned(), request_id: request_id.map(ToOwned::to_owned) }
    }

    /// What peergate should do about the error.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::UnknownTarget => Class::Retry,
            Self::Credentials(error) => error.class(),
            Self::Api(error) => error.class(),
        }
    }

    /// Whether the failed call may still have taken effect.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::UnknownTarget | Self::Credentials(_) => false,
            Self::Api(error) => error.may_have_taken_effect(),
        }
    }

    /// Whether to try again soon. Nothing else helps but a change by a person.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        self.class() == Class::Retry
    }

    /// The event for a failed attempt: a later one may succeed.
    fn to_deferred_event(&self) -> Event {
        let retry_after = match self {
            Self::Api(error) => error.retry_after(),
            Self::UnknownTarget | Self::Credentials(_) => None,
        };
        Event::Deferred { problem: self.to_problem(), retry_after }
    }
}

/// The next step for a decided connection.
#[derive(Debug)]
pub enum NextStep {
    /// No call is due. Apply this event.
    Apply(Event),
    /// The connection is waiting, so the decided call is due.
    Call,
}

/// The result of the decided call.
#[derive(Debug)]
pub struct CallOutcome {
    /// What happened.
    pub event: Event,
    /// Whether the call was made, and whether it may have taken effect.
    pub result: CallResult,
}

impl CallOutcome {
    /// Applies the outcome, unless a new generation has begun. Returns whether the record changed.
    pub fn apply_to(&self, approval: &mut Approval, generation: u32, now: Timestamp) -> bool {
        if approval.generation() != generation {
            return false;
        }
        let before = approval.clone();
        approval.finish_call(self.result);
        approval.apply_event(&self.event, now);
        *approval != before
    }
}

/// Reads the connection and returns the next step. With `recheck`, repeats the checks and applies the current rules,
/// because much may have changed since the approval.
pub async fn determine_next_step(app: &App, approval: &Approval, recheck: bool, now: Timestamp) -> NextStep {
    let connection = match read_connection(app, &approval.id().target, &approval.id().instance_id, now).await {
        Ok(connection) => connection,
        Err(error) => return NextStep::Apply(read_error_event(&error)),
    };
    let waits = connection.is_waiting(now) && approval.client_token().is_some();
    match approval.state() {
        ApprovalState::Approved if waits && connection.fingerprint() != *approval.fingerprint() => {
            NextStep::Apply(change_event(app, approval, &connection, now).await)
        }
        ApprovalState::Approved if waits && recheck => {
            match review_before_accept(app, approval, &connection, now).await {
                Some(sent_back) => NextStep::Apply(sent_back),
                None => NextStep::Call,
            }
        }
        ApprovalState::Approved | ApprovalState::Rejecting if waits => NextStep::Call,
        ApprovalState::Pending
        | ApprovalState::Approved
        | ApprovalState::Activating
        | ApprovalState::Activated
        | ApprovalState::Rejecting
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted
        | ApprovalState::Failed { .. } => NextStep::Apply(Event::Observed(Box::new(connection))),
    }
}

/// The event for a reading with other facts than the decided ones.
async fn change_event(app: &App, approval: &Approval, connection: &Connection, now: Timestamp) -> Event {
    let (target, by) = (&approval.id().target, Approver::peergate(&approval.id().target).principal);
    let findings =
        run_checks(app, target, connection, &by, &clock::nonce(), now, Instant::now() + BACKGROUND_CHECKS_TIMEOUT)
            .await;
    Event::Changed { connection: Box::new(connection.clone()), findings }
}

/// Repeats the checks, except the dry run, and applies the current rules to the people who approved. Returns `None` if
/// the call may be made.
async fn review_before_accept(
    app: &App,
    approval: &Approval,
    connection: &Connection,
    now: Timestamp,
) -> Option<Event> {
    let (target, policy) = (&approval.id().target, &app.config.policy);
    let account = app.config.targets.get(target)?.account;
    let mut findings = preflight::check_connection(connection, account, now);
    let snapshot = policy.snapshot_for(target, connection);
    let (mut counted, mut voided): (Vec<Approver>, Vec<Approver>) = (vec![], vec![]);
    for decision in approval.decisions() {
        match policy.eligible_approver(target, connection, &decision.by.principal) {
            Some(by) if !counted.iter().any(|earlier| earlier.is_same_person(&by)) => counted.push(by),
            Some(_) | None => voided.push(decision.by.clone()),
        }
    }
    let by_rule = approval.winner().is_some_and(|winner| winner.by == Approver::peergate(target));
    let enough =
        snapshot.rule.is_some() && u32::try_from(counted.len()).unwrap_or(u32::MAX) >= snapshot.needed_approvals();
    let why = if let Some(objection) = preflight::first_objection(&findings) {
        SendBackReason::Objection(objection.clone())
    } else if !enough {
        findings.clear();
        SendBackReason::RuleNotMet
    } else {
        let others = find_other_peerings(app, target, connection, now).await;
        let Some(others) = others else {
            // If this check was unknown at the decision, people approved without it. A rule never does.
            let was_unknown =
                |it: &Finding| it.check == Check::OtherPeerings && matches!(it.outcome, CheckOutcome::Unknown(_));
            let problem = Problem { code: failure_code::OTHER_PEERINGS_UNKNOWN.into(), request_id: None };
            let waits = by_rule || !approval.findings().iter().any(was_unknown);
            return waits.then_some(Event::Deferred { problem, retry_after: None });
        };
        let is_new = matches!(others.outcome, CheckOutcome::Warning(_)) && !approval.findings().contains(&others);
        findings.push(others);
        let passed = findings.iter().all(|finding| finding.outcome == CheckOutcome::Passed);
        let may_call = if by_rule { passed } else { !is_new };
        if may_call {
            return None;
        }
        SendBackReason::NotChecked
    };
    Some(Event::SentBack {
        why,
        connection: Box::new(connection.clone()),
        policy: Box::new(snapshot),
        findings,
        void: voided,
    })
}

/// Checks the other peerings of the VPC. `None` if Alibaba Cloud does not list them.
async fn find_other_peerings(app: &App, target: &str, connection: &Connection, now: Timestamp) -> Option<Finding> {
    let scope = ListScope { region: &connection.accepter.region, vpc: Some(&connection.accepter.vpc) };
    let page =
        timeout_at(Instant::now() + BACKGROUND_CHECKS_TIMEOUT, list_connections(app, target, scope, None, now)).await;
    let page = page.ok()?.ok()?;
    let others = page.is_complete().then_some(page.connections);
    Some(preflight::check_other_peerings(connection, others.as_deref()))
}

/// The event for a connection that could not be read.
#[must_use]
pub fn read_error_event(error: &Error) -> Event {
    match error.class() {
        Class::Missing => Event::Missing,
        Class::Credentials => Event::CredentialsRefused(error.to_problem()),
        Class::Retry | Class::Unknown | Class::ReadStatus | Class::Permanent | Class::DryRunPassed => {
            error.to_deferred_event()
        }
    }
}

/// Makes the decided call. The caller has stored that the call begins, and has just read that the connection is
/// waiting.
pub async fn make_call(app: &App, approval: &Approval, now: Timestamp) -> CallOutcome {
    let (target, instance_id) = (&approval.id().target, &approval.id().instance_id);
    let not_made = |problem: &str| CallOutcome {
        event: Event::Deferred { problem: Problem { code: problem.to_owned(), request_id: None }, retry_after: None },
        result: CallResult::NotMade,
    };
    let Some(token) = approval.client_token().map(ClientToken::as_str) else {
        return not_made("NoClientToken");
    };
    let name = SessionName::for_decision(instance_id);
    let result = match approval.state() {
        ApprovalState::Approved => {
            let call = async |caller: Caller| {
                caller.api.accept_connection(caller.credentials(), instance_id, token, false).await
            };
            call_api(app, target, &name, now, call).await.map(|request_id| Event::Accepted { request_id })
        }
        ApprovalState::Rejecting => {
            let call =
                async |caller: Caller| caller.api.reject_connection(caller.credentials(), instance_id, token).await;
            call_api(app, target, &name, now, call).await.map(|request_id| Event::Rejected { request_id })
        }
        ApprovalState::Pending
        | ApprovalState::Activating
        | ApprovalState::Activated
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted
        | ApprovalState::Failed { .. } => return not_made("NotDecided"),
    };
    let error = match result {
        Ok(event) => return CallOutcome { event, result: CallResult::Acknowledged },
        Err(error) => error,
    };
    let result = if error.may_have_taken_effect() { CallResult::Unknown } else { CallResult::Refused };
    let event = match error.class() {
        Class::Retry | Class::DryRunPassed => error.to_deferred_event(),
        // The connection was found a moment ago. This error may be temporary, or the key may belong to another account.
        Class::Unknown | Class::Missing => Event::FailedUnknown(error.to_problem()),
        Class::Permanent => Event::Failed(error.to_problem()),
        Class::Credentials => Event::CredentialsRefused(error.to_problem()),
        Class::ReadStatus => match read_connection(app, target, instance_id, now).await {
            Ok(connection) if connection.status != Status::Accepting => Event::Observed(Box::new(connection)),
            Ok(_) | Err(_) => error.to_deferred_event(),
        },
    };
    CallOutcome { event, result }
}

/// Logs what happened to a record. Refused credentials are an error, because somebody must fix them.
pub fn log_event(approval: &Approval, event: &Event) {
    let (target, peering) = (&approval.id().target, approval.id().instance_id.as_str());
    let (state, problem) = (approval.state().name(), approval.last_problem());
    let code = problem.map(|problem| &problem.code);
    let request_id = problem.and_then(|problem| problem.request_id.as_ref());
    macro_rules! line {
        ($level:ident, $outcome:literal) => {
            tracing::$level!(
                outcome = $outcome,
                target,
                peering.id = peering,
                peering.state = state,
                alicloud.code = code,
                alicloud.request_id = request_id,
                "applied an event to a record"
            )
        };
    }
    match (event, approval.state()) {
        (Event::Observed(_), ApprovalState::Activated) if !approval.is_accepted_by_us() => line!(error, "bypassed"),
        (Event::CredentialsRefused(_), _) => line!(error, "credentials_refused"),
        (_, ApprovalState::Failed { .. }) => line!(error, "failed"),
        (Event::Deferred { .. } | Event::FailedUnknown(_), _) => line!(warn, "deferred"),
        (Event::Followed(_), _) if approval.drift().is_some() => line!(warn, "drifted"),
        (
            Event::Accepted { .. }
            | Event::Rejected { .. }
            | Event::Observed(_)
            | Event::Missing
            | Event::Followed(_)
            | Event::RoutesRead(_)
            | Event::RoutesUnread(_)
            | Event::Changed { .. }
            | Event::Failed(_)
            | Event::SentBack { .. }
            | Event::Delivered { .. }
            | Event::Undelivered { .. },
            _,
        ) => line!(info, "advanced"),
    }
}

/// Reads one connection.
pub async fn read_connection(
    app: &App,
    target: &str,
    instance_id: &InstanceId,
    now: Timestamp,
) -> Result<Connection, Error> {
    let call = async |caller: Caller| caller.api.get_connection(caller.credentials(), instance_id).await;
    call_api(app, target, &SessionName::for_reads(), now, call).await
}

/// Lists a page of the connections of a region, or of one VPC.
pub async fn list_connections(
    app: &App,
    target: &str,
    scope: ListScope<'_>,
    next_token: Option<&str>,
    now: Timestamp,
) -> Result<Page, Error> {
    let call = async |caller: Caller| caller.api.list_connections(caller.credentials(), scope, next_token).await;
    call_api(app, target, &SessionName::for_reads(), now, call).await
}

/// Makes all checks. If Alibaba Cloud does not answer by `deadline`, the result is unknown. `by` and `request_key`
/// determine the client token of the dry run.
pub async fn run_checks(
    app: &App,
    target: &str,
    connection: &Connection,
    by: &Principal,
    request_key: &str,
    now: Timestamp,
    deadline: Instant,
) -> Vec<Finding> {
    let Some(account) = app.config.targets.get(target).map(|target| target.account) else {
        return vec![];
    };
    let mut findings = preflight::check_connection(connection, account, now);
    if preflight::first_objection(&findings).is_some() {
        return findings;
    }
    let (instance_id, accepter) = (&connection.instance_id, &connection.accepter);
    let call = TokenPurpose::DryRun { request_key };
    let token = ClientToken::derive(by, accepter.account, instance_id, Verdict::Approve, call);
    let scope = ListScope { region: &accepter.region, vpc: Some(&accepter.vpc) };
    let (others, dry_run) = tokio::join!(
        timeout_at(deadline, list_connections(app, target, scope, None, now)),
        timeout_at(deadline, dry_run_accept(app, target, instance_id, token.as_str(), now)),
    );
    // A VPC has a quota of 20 peerings. If they do not fit into one page, the result is unknown.
    let complete_page = others.ok().and_then(Result::ok).filter(Page::is_complete);
    let others = complete_page.map(|page| page.connections);
    findings.push(preflight::check_other_peerings(connection, others.as_deref()));
    let outcome = match dry_run {
        Ok(Ok(())) => CheckOutcome::Passed,
        Err(_elapsed) => CheckOutcome::Unknown(None),
        Ok(Err(error)) => match error.class() {
            // It is unknown whether the connection can be accepted. The accept itself is tried again until it is known.
            Class::Retry | Class::Unknown | Class::Credentials | Class::DryRunPassed => {
                CheckOutcome::Unknown(Some(error.to_problem()))
            }
            // The connection or a VPC has an unexpected status. That of a VPC is temporary. That of the connection may
            // follow from a decision elsewhere, so read it.
            Class::ReadStatus => match timeout_at(deadline, read_connection(app, target, instance_id, now)).await {
                Ok(Ok(Connection { status, .. })) if status != Status::Accepting => {
                    CheckOutcome::Objection(Objection::Status(status))
                }
                Ok(Ok(_) | Err(_)) | Err(_) => CheckOutcome::Unknown(Some(error.to_problem())),
            },
            Class::Missing | Class::Permanent => CheckOutcome::Objection(Objection::DryRun(error.to_problem())),
        },
    };
    findings.push(Finding { check: Check::DryRun, outcome });
    findings
}

/// Asks Alibaba Cloud whether a connection could be accepted, without accepting it. Returns `Ok` if it could.
pub async fn dry_run_accept(
    app: &App,
    target: &str,
    instance_id: &InstanceId,
    client_token: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let call = async |caller: Caller| {
        caller.api.accept_connection(caller.credentials(), instance_id, client_token, true).await
    };
    match call_api(app, target, &SessionName::for_reads(), now, call).await {
        Ok(_) => Ok(()),
        Err(error) if error.class() == Class::DryRunPassed => Ok(()),
        Err(error) => Err(error),
    }
}

/// An API client, and the key for one call.
struct Caller {
    api: Alicloud,
    key: AccessKey,
}

impl Caller {
    fn credentials(&self) -> Credentials<'_> {
        self.key.as_credentials()
    }
}

/// Makes a call. If the credentials are refused and others are available, tries once more.
async fn call_api<T, F: Future<Output = Result<T, alicloud::Error>>>(
    app: &App,
    target: &str,
    name: &SessionName,
    now: Timestamp,
    call: impl Fn(Caller) -> F,
) -> Result<T, Error> {
    let api = app.alicloud.get(target).ok_or(Error::UnknownTarget)?;
    let key = app.credentials.current_key(&app.secrets, target, name, now).await?;
    let refused = match call(Caller { api: api.clone(), key: key.clone() }).await {
        Err(error) if error.class() == Class::Credentials => error,
        result => return Ok(result?),
    };
    let refused_key = RefusedKey { key: &key, code: refused.code() };
    match app.credentials.replace_refused_key(&app.secrets, target, name, refused_key, now).await {
        Some(key) => Ok(call(Caller { api: api.clone(), key }).await?),
        None => Err(refused.into()),
    }
}

/// Whether the problem concerns our credentials or permissions.
#[must_use]
pub fn is_credentials_problem(problem: &Problem) -> bool {
    let code = problem.code.as_str();
    if aws::is_aws_code(code) { aws::needs_operator(code) } else { alicloud::classify_code(code) == Class::Credentials }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_credentials_or_target_cannot_have_taken_effect() {
        let unreadable = || alicloud::Error::Unreadable { http_status: 502 };
        assert!(!Error::UnknownTarget.may_have_taken_effect());
        assert!(!Error::Credentials(credentials::Error::NoKey).may_have_taken_effect());
        assert!(!Error::Credentials(credentials::Error::Sts(unreadable())).may_have_taken_effect());
        assert!(Error::Api(unreadable()).may_have_taken_effect());
    }

    #[test]
    fn aws_codes_concern_credentials_unless_transient() {
        let is = |code: &str| is_credentials_problem(&Problem { code: code.into(), request_id: None });
        assert!(is("AwsIdentity.AccessDenied") && is("Forbidden.RAM"));
        assert!(!is("AwsIdentity.ServiceUnavailable") && !is("AwsIdentity.NoAnswer") && !is("Throttling.User"));
    }
}

//! Story one: an approval. A request arrives, its sender is made sure of, the policy is asked, one conditional write makes
//! the decision durable, and the accept runs within the time that the sender waits.
//!
//! Whatever happens after the write, nothing is lost: the watcher finishes it with the same client token.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::accept;
use crate::alicloud::Class;
use crate::app::App;
use crate::approval::{Approval, ApprovalId, Approver, ClientToken, Closed, Decision, Grounds, State, Verdict};
use crate::chat::{Answer, Authentic, Malformed, Part, Unauthentic, Verb, message, slack, standard_webhooks};
use crate::config::Slack;
use crate::logging::Chain;
use crate::peering::Connection;
use crate::policy::{self, Refusal};
use crate::secrets::Secrets;
use crate::store::{Saved, Stored};
use crate::{chat, envelope};

/// A request is a few hundred bytes; this leaves room for any that a platform sends.
const LARGEST_BODY_BYTES: usize = 256 * 1024;
/// How long machines wait for us at most: they retry, and the watcher takes over after eight seconds.
const MACHINE_BUDGET: Duration = Duration::from_secs(6);
/// Slack waits 3 s. This leaves a second for the way, a cold start and the answer to a click.
const SLACK_BUDGET: Duration = Duration::from_millis(1900);
/// How often a decision is made anew because the record changed meanwhile.
const CONFLICTS: u32 = 5;

/// What a request comes to.
enum Outcome {
    /// Nobody asked anything.
    Healthy,
    /// Somebody we know wanted something.
    Answered {
        /// What, and who.
        request: chat::Request,
        /// What came of it.
        answer: Answer,
        /// How they hear of it.
        way: Way,
    },
    /// A slash command that we don't understand.
    Usage,
    /// Slack tests the address.
    Challenge(String),
    /// Not even a command.
    Rejected(Rejection),
}

/// How the sender hears of an answer.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// By status and JSON.
    Machine,
    /// A slash command: by the reply.
    Slash,
    /// A click: it was told at its `response_url`, and the reply is empty.
    Click,
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    #[error("no such path")]
    UnknownPath,
    #[error("another method is needed")]
    Method(&'static str),
    #[error("the body is larger than 256 KiB")]
    TooLarge,
    #[error("another content type is needed")]
    ContentType,
    #[error("not authentic")]
    Unauthentic(#[from] Unauthentic),
    #[error("no such client")]
    UnknownClient,
    #[error("another Slack workspace or app than those of the configuration")]
    WrongTenant,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the secrets cannot be read")]
    NoSecrets(#[from] crate::secrets::Error),
}

/// Answers what Lambda hands us.
pub async fn handle_event(app: &App, event: envelope::Event, now: Timestamp) -> Response<String> {
    match envelope::open(event) {
        Ok(request) => handle(app, request, now).await,
        Err(error) => respond(&Outcome::Rejected(error.into())),
    }
}

/// Answers a request.
pub async fn handle(app: &App, request: Request<Bytes>, now: Timestamp) -> Response<String> {
    let started = Instant::now();
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let outcome = match segments.as_slice() {
        ["healthz"] => health(&request),
        ["webhook", client] => machine(app, request, client, now).await,
        ["slack"] => match &app.config.slack {
            Some(config) => from_slack(app, request, config, now).await,
            None => Err(Rejection::UnknownPath),
        },
        _ => Err(Rejection::UnknownPath),
    };
    let outcome = outcome.unwrap_or_else(Outcome::Rejected);
    let response = respond(&outcome);
    log(&outcome, response.status(), started.elapsed());
    response
}

fn health(request: &Request<Bytes>) -> Result<Outcome, Rejection> {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        Ok(Outcome::Healthy)
    } else {
        Err(Rejection::Method("GET, HEAD"))
    }
}

async fn machine(app: &App, request: Request<Bytes>, client: &str, now: Timestamp) -> Result<Outcome, Rejection> {
    let deadline = Instant::now() + MACHINE_BUDGET;
    check_shape(&request, &["application/json"])?;
    let (parts, body) = request.into_parts();
    let verify = |secrets: &Secrets| {
        let client = secrets.clients.get(client).filter(|_| app.config.clients.contains_key(client));
        let keys = &client.ok_or(Rejection::UnknownClient)?.signing_secrets;
        Ok(standard_webhooks::verify(&parts.headers, body.clone(), keys, now)?)
    };
    let authentic = authenticate(app, verify, now).await?;
    let request = standard_webhooks::parse(authentic, client)?;
    let answer = answer(app, &request, now, deadline).await;
    Ok(Outcome::Answered { request, answer, way: Way::Machine })
}

async fn from_slack(app: &App, request: Request<Bytes>, config: &Slack, now: Timestamp) -> Result<Outcome, Rejection> {
    let deadline = Instant::now() + SLACK_BUDGET;
    let content_type = check_shape(&request, &["application/x-www-form-urlencoded", "application/json"])?;
    let (parts, body) = request.into_parts();
    let verify = |secrets: &Secrets| {
        let keys = secrets.slack.as_ref().map(|slack| slack.signing_secrets.as_slice()).unwrap_or_default();
        Ok(slack::verify(&parts.headers, body.clone(), keys, now)?)
    };
    let authentic = authenticate(app, verify, now).await?;
    let incoming =
        slack::parse(authentic, content_type != "application/json", config).map_err(|error| match error {
            slack::Rejection::WrongTenant => Rejection::WrongTenant,
            slack::Rejection::Malformed(malformed) => malformed.into(),
        })?;
    Ok(match incoming {
        slack::Incoming::Usage => Outcome::Usage,
        slack::Incoming::Challenge(challenge) => Outcome::Challenge(challenge),
        slack::Incoming::Slash(request) => {
            let answer = answer(app, &request, now, deadline).await;
            Outcome::Answered { request, answer, way: Way::Slash }
        }
        slack::Incoming::Click { request, response_url } => {
            let answer = answer(app, &request, now, deadline).await;
            if let Err(undelivered) = slack::respond(&app.http, response_url, &message::answer(&answer)).await {
                tracing::warn!(
                    outcome = "unanswered_click",
                    error = undelivered.error,
                    "a click could not be answered"
                );
            }
            Outcome::Answered { request, answer, way: Way::Click }
        }
    })
}

/// Method, size and content type, in this order; returns the content type.
fn check_shape(request: &Request<Bytes>, allowed: &[&'static str]) -> Result<&'static str, Rejection> {
    if request.method() != Method::POST {
        return Err(Rejection::Method("POST"));
    }
    if request.body().len() > LARGEST_BODY_BYTES {
        return Err(Rejection::TooLarge);
    }
    let mut given = request.headers().get_all(CONTENT_TYPE).iter().filter_map(|value| value.to_str().ok());
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(Rejection::ContentType);
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    let same = |name: &&&str| name.eq_ignore_ascii_case(essence);
    allowed.iter().find(same).copied().ok_or(Rejection::ContentType)
}

/// Verifies with the kept secrets and, when no key matches, once more with fresh ones, which may hold a new key.
async fn authenticate(
    app: &App,
    verify: impl Fn(&Secrets) -> Result<Authentic, Rejection>,
    now: Timestamp,
) -> Result<Authentic, Rejection> {
    let secrets = app.secrets.current(now).await?;
    match verify(&secrets) {
        Err(Rejection::Unauthentic(Unauthentic::Mismatch)) => match app.secrets.refetch(&secrets, now).await {
            Some(fresh) => verify(&fresh),
            None => Err(Unauthentic::Mismatch.into()),
        },
        verified => verified,
    }
}

/// Carries out a command of somebody we know, until `deadline`.
async fn answer(app: &App, request: &chat::Request, now: Timestamp, deadline: Instant) -> Answer {
    let command = &request.command;
    let target = match (&command.target, app.config.targets.keys().collect::<Vec<_>>().as_slice()) {
        (Some(name), _) if app.config.targets.contains_key(name) => name.clone(),
        (None, [only]) => (*only).clone(),
        (_, names) => {
            return Answer::UnknownTarget(names.iter().map(|name| (*name).clone()).collect());
        }
    };
    let id = ApprovalId { target, instance_id: command.instance_id.clone() };
    let (stored, connection) = tokio::join!(
        timeout_at(deadline, app.store.load(&id)),
        timeout_at(deadline, accept::read(app, &id.target, &id.instance_id, now)),
    );
    let stored = match stored {
        Ok(Ok(stored)) => stored,
        Ok(Err(error)) => return store_failed(&error),
        Err(_elapsed) => return Answer::Unavailable(Part::Store),
    };
    let connection = match connection {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return read_failed(&error, stored),
        Err(_elapsed) => return Answer::Unavailable(Part::Alicloud),
    };
    if command.verb == Verb::Status {
        let approval = stored.map(|stored| Box::new(stored.approval));
        return Answer::Status { connection: Box::new(connection), approval, target: id.target };
    }
    let approver = app.config.policy.approver(request.by.clone());
    let rule = match app.config.policy.permit(&id.target, &connection, &approver) {
        Ok(rule) => rule,
        Err(refusal) => return Answer::Refused(refusal),
    };
    if command.fingerprint.as_ref().is_some_and(|seen| *seen != connection.fingerprint()) {
        return Answer::Changed;
    }
    let Verb::Decide(verdict) = command.verb else {
        return dry_run(app, &id, connection, &approver, now, deadline).await;
    };
    let decision = Decision {
        verdict,
        by: approver,
        at: now,
        reason: command.reason.clone(),
        request_key: request.request_key.clone(),
    };
    let grounds = Grounds { id: &id, connection: &connection, rule: &rule.name, channels: &rule.channels };
    decide(app, stored, &grounds, decision, deadline).await
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
        let approval = match (Approval::decide(earlier, grounds, decision.clone()), before.take()) {
            (Ok(approval), stored) => {
                before = stored;
                approval
            }
            (Err(Closed::Repeated), Some(stored)) => {
                return Answer::Repeated(Box::new(stored.approval));
            }
            (Err(Closed::Over), Some(stored)) => return Answer::Over(Box::new(stored.approval)),
            (Err(_), None) => return Answer::Unavailable(Part::Store),
        };
        let Some(target) = app.config.targets.get(&grounds.id.target) else {
            return Answer::UnknownTarget(vec![]);
        };
        if let Err(objection) = policy::preflight(grounds.connection, target.account, decision.verdict, now) {
            return Answer::Objection(objection);
        }
        let over = before.as_ref().map_or(0, |stored| stored.version);
        match timeout_at(deadline, app.store.save(&approval, over)).await {
            Ok(Ok(Saved::Done(stored))) => {
                return carry_out(app, stored, grounds.connection, now, deadline).await;
            }
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
        app.store.update(stored, |approval| approval.apply(&event, now)).await
    };
    match timeout_at(deadline, finish).await {
        Ok(Ok(Stored { approval, .. })) => match approval.state {
            State::Approved | State::Rejecting => Answer::Underway(Box::new(approval)),
            State::Pending
            | State::Activating
            | State::Activated
            | State::Rejected
            | State::Expired
            | State::Deleted
            | State::Failed { .. } => Answer::Done(Box::new(approval)),
        },
        Ok(Err(error)) => {
            tracing::error!(outcome = "store_failed", error = %Chain(&error), "the outcome of a call could not be stored");
            Answer::Underway(decided)
        }
        Err(_elapsed) => Answer::Underway(decided),
    }
}

async fn dry_run(
    app: &App,
    id: &ApprovalId,
    connection: Connection,
    approver: &Approver,
    now: Timestamp,
    deadline: Instant,
) -> Answer {
    let account = connection.accepter.account;
    let configured = app.config.targets.get(&id.target).map(|target| target.account);
    if let Err(objection) = policy::preflight(&connection, configured.unwrap_or(account), Verdict::Approve, now) {
        return Answer::Objection(objection);
    }
    let token = ClientToken::derive(&approver.principal, account, &id.instance_id, Verdict::Approve, true, 0);
    let call = accept::dry_run(app, &id.target, &id.instance_id, token.as_str(), now);
    match timeout_at(deadline, call).await {
        Ok(Ok(())) => Answer::DryRunPassed(Box::new(connection)),
        Ok(Err(error)) => match error.class() {
            Class::Permanent | Class::ReadStatus => Answer::VendorRefused(error.problem()),
            Class::Missing | Class::Credentials | Class::Retry | Class::DryRunPassed => read_failed(&error, None),
        },
        Err(_elapsed) => Answer::Unavailable(Part::Alicloud),
    }
}

fn store_failed(error: &crate::store::Error) -> Answer {
    tracing::error!(outcome = "store_failed", error = %Chain(error), "the store failed");
    Answer::Unavailable(Part::Store)
}

fn read_failed(error: &accept::Error, stored: Option<Stored>) -> Answer {
    let problem = error.problem();
    if error.class() == Class::Missing {
        let over = stored.map(|stored| Answer::Over(Box::new(stored.approval)));
        return over.unwrap_or(Answer::UnknownConnection);
    }
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

/// The HTTP status of an answer, and its name: the `type` of a problem, the `outcome` of everything else.
fn classify(answer: &Answer) -> (StatusCode, &'static str) {
    match answer {
        Answer::Done(approval) => match approval.state {
            State::Failed { .. } => (StatusCode::CONFLICT, "failed"),
            State::Expired => (StatusCode::CONFLICT, "expired"),
            State::Deleted => (StatusCode::CONFLICT, "deleted"),
            State::Rejected => (StatusCode::OK, "rejected"),
            State::Pending | State::Approved | State::Activating | State::Activated | State::Rejecting => {
                (StatusCode::OK, "accepted")
            }
        },
        Answer::Underway(_) => (StatusCode::ACCEPTED, "underway"),
        Answer::Repeated(_) => (StatusCode::OK, "repeated"),
        Answer::Over(_) => (StatusCode::CONFLICT, "already-decided"),
        Answer::DryRunPassed(_) => (StatusCode::OK, "dry-run-passed"),
        Answer::Status { .. } => (StatusCode::OK, "status"),
        Answer::Refused(Refusal::NoRule(_)) => (StatusCode::FORBIDDEN, "no-rule"),
        Answer::Refused(Refusal::NotAnApprover { .. }) => (StatusCode::FORBIDDEN, "not-an-approver"),
        Answer::Objection(_) => (StatusCode::CONFLICT, "not-acceptable"),
        Answer::Changed => (StatusCode::CONFLICT, "connection-changed"),
        Answer::UnknownTarget(_) => (StatusCode::NOT_FOUND, "unknown-target"),
        Answer::UnknownConnection => (StatusCode::NOT_FOUND, "unknown-connection"),
        Answer::VendorRefused(_) => (StatusCode::CONFLICT, "vendor-refused"),
        Answer::CredentialsRefused(_) => (StatusCode::BAD_GATEWAY, "credentials-refused"),
        Answer::Unavailable(Part::Store) => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable"),
        Answer::Unavailable(Part::Secrets) => (StatusCode::SERVICE_UNAVAILABLE, "secrets-unavailable"),
        Answer::Unavailable(Part::Alicloud) => (StatusCode::SERVICE_UNAVAILABLE, "alicloud-unavailable"),
    }
}

/// The HTTP status of a rejection, its name, and what the sender may know.
fn classify_rejection(rejection: &Rejection) -> (StatusCode, &'static str, String) {
    let (status, name) = match rejection {
        Rejection::Envelope(envelope::Error::PayloadVersion) => (StatusCode::BAD_REQUEST, "payload-version"),
        Rejection::Envelope(envelope::Error::Malformed(_)) | Rejection::Malformed(_) => {
            (StatusCode::BAD_REQUEST, "malformed")
        }
        Rejection::UnknownPath => (StatusCode::NOT_FOUND, "unknown-path"),
        Rejection::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method"),
        Rejection::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        Rejection::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type"),
        Rejection::Unauthentic(_) | Rejection::UnknownClient => {
            return (StatusCode::UNAUTHORIZED, "unauthentic", "the request is not authentic".into());
        }
        Rejection::WrongTenant => (StatusCode::FORBIDDEN, "wrong-tenant"),
        Rejection::NoSecrets(_) => (StatusCode::SERVICE_UNAVAILABLE, "secrets-unavailable"),
    };
    (status, name, rejection.to_string())
}

fn respond(outcome: &Outcome) -> Response<String> {
    match outcome {
        Outcome::Healthy => json_response(StatusCode::OK, &json!({"status": "ok"})),
        Outcome::Answered { answer, way, .. } => match way {
            Way::Machine => machine_response(answer),
            Way::Slash => json_response(StatusCode::OK, &slack::ephemeral(&message::answer(answer))),
            Way::Click => response(StatusCode::OK, "text/plain", String::new()),
        },
        Outcome::Usage => json_response(StatusCode::OK, &slack::ephemeral(&message::usage())),
        Outcome::Challenge(challenge) => json_response(StatusCode::OK, &json!({"challenge": challenge})),
        Outcome::Rejected(rejection) => {
            let (status, name, detail) = classify_rejection(rejection);
            let mut response = problem(status, name, &detail, &Value::Null);
            if let Rejection::Method(allowed) = rejection {
                response.headers_mut().insert(ALLOW, http::HeaderValue::from_static(allowed));
            }
            retry_later(response)
        }
    }
}

fn machine_response(answer: &Answer) -> Response<String> {
    let (status, name) = classify(answer);
    let message = message::answer(answer);
    let detail = std::iter::once(message.headline).chain(message.sentences).collect::<Vec<_>>().join(". ");
    let about = match answer {
        Answer::Done(approval) | Answer::Underway(approval) | Answer::Repeated(approval) | Answer::Over(approval) => {
            json!({"approval": standard_webhooks::approval(approval)})
        }
        Answer::DryRunPassed(connection) => {
            json!({"connection": standard_webhooks::connection(connection)})
        }
        Answer::Status { connection, approval, .. } => json!({
            "connection": standard_webhooks::connection(connection),
            "approval": approval.as_deref().map(standard_webhooks::approval),
        }),
        Answer::VendorRefused(problem) | Answer::CredentialsRefused(problem) => {
            json!({"problem": problem})
        }
        Answer::UnknownTarget(targets) => json!({"targets": targets}),
        Answer::Refused(_)
        | Answer::Objection(_)
        | Answer::Changed
        | Answer::UnknownConnection
        | Answer::Unavailable(_) => Value::Null,
    };
    if status.is_success() {
        json_response(status, &merge(json!({"outcome": name, "detail": detail}), &about))
    } else {
        retry_later(problem(status, name, &detail, &about))
    }
}

/// Source: <https://www.rfc-editor.org/rfc/rfc9457>
fn problem(status: StatusCode, name: &str, detail: &str, about: &Value) -> Response<String> {
    let title = status.canonical_reason().unwrap_or_default();
    let members = json!({
        "type": format!("urn:peergate:problem:{name}"), "title": title, "status": status.as_u16(), "detail": detail,
    });
    response(status, "application/problem+json", merge(members, about).to_string())
}

fn merge(mut members: Value, more: &Value) -> Value {
    if let (Some(members), Some(more)) = (members.as_object_mut(), more.as_object()) {
        members.extend(more.clone());
    }
    members
}

fn json_response(status: StatusCode, body: &Value) -> Response<String> {
    response(status, "application/json", body.to_string())
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

fn retry_later(mut response: Response<String>) -> Response<String> {
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("10"));
    }
    response
}

/// The one line about a request.
fn log(outcome: &Outcome, status: StatusCode, took: Duration) {
    let (status, duration_ms) = (status.as_u16(), took.as_millis());
    match outcome {
        Outcome::Answered { request, answer, way } => tracing::info!(
            outcome = classify(answer).1,
            verb = message::verb_name(request.command.verb),
            way = ?way,
            actor.id = request.by.as_str(),
            target = request.command.target,
            peering.id = request.command.instance_id.as_str(),
            http.status = status,
            duration_ms,
            "answered"
        ),
        Outcome::Rejected(rejection) => tracing::warn!(
            outcome = classify_rejection(rejection).1,
            error = %Chain(rejection),
            http.status = status,
            duration_ms,
            "rejected"
        ),
        Outcome::Healthy | Outcome::Usage | Outcome::Challenge(_) => {
            tracing::info!(outcome = "ok", http.status = status, duration_ms, "answered");
        }
    }
}

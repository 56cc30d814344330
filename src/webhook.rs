//! Story one: an approval. A request arrives, its sender is made sure of, the policy is asked, one conditional write makes
//! the decision durable, and the accept runs within the time that the sender waits.
//!
//! Whatever happens after the write, nothing is lost: the watcher finishes it with the same client token.

mod decision;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::app::App;
use crate::approval::{Approval, State, Verdict};
use crate::chat::{Answer, Authentic, Command, Malformed, Part, Unauthentic, Verb, message, slack, standard_webhooks};
use crate::config::Slack;
use crate::logging::Chain;
use crate::policy::Refusal;
use crate::secrets::Secrets;
use crate::{chat, envelope, metrics};
use decision::{answer, too_late_to_ask};

/// A request is a few hundred bytes; this leaves room for any that a platform sends.
const LARGEST_BODY_BYTES: usize = 256 * 1024;
/// How long machines wait for us at most: they retry, and the watcher takes over after eight seconds.
const MACHINE_BUDGET: Duration = Duration::from_secs(6);
/// Slack waits 3 s. This leaves a second for the way, a cold start and the answer to a click.
const SLACK_BUDGET: Duration = Duration::from_millis(1900);

/// What may be spent on finding out that it is too late, before somebody is asked for a reason.
const COURTESY: Duration = Duration::from_millis(600);

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
    /// Somebody is asked for a reason first.
    Asked(chat::Request),
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
    /// A reason, given in a window: in that window.
    Window,
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
    /// Slack shows them an answer, if it has a place for one.
    #[error("another Slack workspace or app than those of the configuration")]
    WrongTenant(Option<slack::Place>),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the secrets cannot be read")]
    NoSecrets(#[from] crate::secrets::Error),
}

/// Answers what Lambda hands us.
pub async fn handle_event(app: &App, event: envelope::Event, now: Timestamp) -> Response<String> {
    match envelope::open(event) {
        Ok(request) => handle(app, request, now).await,
        Err(error) => {
            let outcome = Outcome::Rejected(error.into());
            let response = respond(&outcome, now);
            log(&outcome, response.status(), Duration::ZERO);
            response
        }
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
    let response = respond(&outcome, now);
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
    let claim = standard_webhooks::Claim::read(&parts.headers, now)?;
    // An unknown client is treated as a known one until the end: neither time nor status must show which names exist.
    let known = Some(client).filter(|client| app.config.clients.contains_key(*client));
    let verify = |secrets: &Secrets| claim.verify(body.clone(), &app.secrets.client_keys(secrets, known));
    let authentic = authenticate(app, verify, now).await;
    let authentic = match (known, authentic) {
        (Some(_), Ok(authentic)) => authentic,
        (None, Ok(_) | Err(Rejection::Unauthentic(Unauthentic::Mismatch))) => return Err(Rejection::UnknownClient),
        (Some(_) | None, Err(rejection)) => return Err(rejection),
    };
    metrics::authenticated(client, authentic.key());
    let request = standard_webhooks::parse(&authentic, client)?;
    let answer = answer(app, &request, now, deadline).await;
    Ok(Outcome::Answered { request, answer, way: Way::Machine })
}

async fn from_slack(app: &App, request: Request<Bytes>, config: &Slack, now: Timestamp) -> Result<Outcome, Rejection> {
    let deadline = Instant::now() + SLACK_BUDGET;
    let content_type = check_shape(&request, &["application/x-www-form-urlencoded", "application/json"])?;
    let (parts, body) = request.into_parts();
    let claim = slack::Claim::read(&parts.headers, now)?;
    let verify = |secrets: &Secrets| {
        let keys = secrets.slack.as_ref().map(|slack| slack.signing_secrets.as_slice()).unwrap_or_default();
        claim.verify(body.clone(), keys)
    };
    let authentic = authenticate(app, verify, now).await?;
    metrics::authenticated(slack::PLATFORM, authentic.key());
    let incoming = slack::parse(authentic, content_type != "application/json", config)?;
    Ok(match incoming {
        slack::Incoming::Stranger(place) => return Err(Rejection::WrongTenant(tell_stranger(app, place).await)),
        slack::Incoming::Usage => Outcome::Usage,
        slack::Incoming::Challenge(challenge) => Outcome::Challenge(challenge),
        slack::Incoming::Slash(request) => {
            let answer = answer(app, &request, now, deadline).await;
            Outcome::Answered { request, answer, way: Way::Slash }
        }
        slack::Incoming::Reason(request) => {
            let answer = answer(app, &request, now, deadline).await;
            Outcome::Answered { request, answer, way: Way::Window }
        }
        slack::Incoming::Click { request, response_url, ask } => {
            let late = match &ask {
                // A courtesy: who is asked in vain is told afterwards.
                Some(_) => too_late_to_ask(app, &request, now, Instant::now() + COURTESY).await,
                None => None,
            };
            let answer = match (late, ask) {
                (Some(late), _) => late,
                (None, Some(trigger_id)) => {
                    match open_window(app, config, &request, &trigger_id, now, deadline).await {
                        Window::Open => return Ok(Outcome::Asked(request)),
                        Window::Closed(answer) => *answer,
                        Window::Impossible => answer(app, &request, now, deadline).await,
                    }
                }
                (None, None) => answer(app, &request, now, deadline).await,
            };
            if let Err(undelivered) = slack::respond(&app.http, response_url, &message::answer(&answer, now)).await {
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

/// Posts the answer to a user of another workspace, if it takes a post. Returns the place of the answer.
async fn tell_stranger(app: &App, place: Option<slack::Place>) -> Option<slack::Place> {
    let Some(slack::Place::Url(url)) = &place else { return place };
    let told = slack::respond(&app.http, url.clone(), &message::stranger()).await;
    told.is_ok().then_some(place).flatten()
}

/// Whether somebody is being asked.
enum Window {
    /// They are.
    Open,
    /// Slack did not open it: what they are told.
    Closed(Box<Answer>),
    /// Without a bot token, nobody can be asked: they decide without a reason.
    Impossible,
}

async fn open_window(
    app: &App,
    config: &Slack,
    request: &chat::Request,
    trigger_id: &str,
    now: Timestamp,
    deadline: Instant,
) -> Window {
    let Command::About(about) = &request.command else { return Window::Impossible };
    let Verb::Decide(verdict) = about.verb else { return Window::Impossible };
    let secrets = app.secrets.current(now).await.ok();
    let Some(token) = secrets.as_ref().and_then(|secrets| secrets.slack.as_ref()?.bot_token.as_ref()) else {
        return Window::Impossible;
    };
    let api = slack::Api { http: &app.http, url: &config.api, token };
    match api.ask(trigger_id, verdict, about, deadline.saturating_duration_since(Instant::now())).await {
        Ok(()) => Window::Open,
        Err(undelivered) => {
            tracing::warn!(outcome = "not_asked", error = undelivered.error, "nobody could be asked for a reason");
            Window::Closed(Box::new(Answer::NotAsked { verdict, instance_id: about.instance_id.clone() }))
        }
    }
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

/// Verifies with the cached secrets and, when no key matches, once more with fresh ones, which may hold a new key. Runs
/// after all checks without secrets, so that malformed requests never reach the store.
async fn authenticate(
    app: &App,
    verify: impl Fn(&Secrets) -> Result<Authentic, Unauthentic>,
    now: Timestamp,
) -> Result<Authentic, Rejection> {
    let secrets = app.secrets.current(now).await?;
    match verify(&secrets) {
        Err(Unauthentic::Mismatch) => match app.secrets.refetch(&secrets, now).await {
            Some(fresh) => Ok(verify(&fresh)?),
            None => Err(Unauthentic::Mismatch.into()),
        },
        verified => Ok(verified?),
    }
}

/// The HTTP status of an answer, and its name: the `type` of a problem, the `outcome` of everything else.
fn classify(answer: &Answer) -> (StatusCode, &'static str) {
    match answer {
        Answer::Done(approval) => settled(approval),
        // A sender that repeats what failed must not take it for done.
        Answer::Repeated(approval) if approval.state == State::Pending => (StatusCode::OK, "repeated"),
        Answer::Repeated(approval) => match settled(approval) {
            (StatusCode::OK, _) => (StatusCode::OK, "repeated"),
            failed => failed,
        },
        Answer::Underway(_) => (StatusCode::ACCEPTED, "underway"),
        Answer::Over(_) => (StatusCode::CONFLICT, "already-decided"),
        Answer::Counted(_) => (StatusCode::OK, "counted"),
        Answer::Withdrawn(_) => (StatusCode::OK, "withdrawn"),
        Answer::NothingToWithdraw => (StatusCode::CONFLICT, "nothing-to-withdraw"),
        Answer::NotAsked { .. } => (StatusCode::CONFLICT, "not-asked"),
        Answer::ReasonRequired { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "reason-required"),
        Answer::DryRunPassed { .. } => (StatusCode::OK, "dry-run-passed"),
        Answer::Status { .. } => (StatusCode::OK, "status"),
        Answer::List { .. } => (StatusCode::OK, "list"),
        Answer::Refused(Refusal::NoRule(_)) => (StatusCode::FORBIDDEN, "no-rule"),
        Answer::Refused(Refusal::NotAnApprover { .. }) => (StatusCode::FORBIDDEN, "not-an-approver"),
        Answer::Refused(Refusal::Contact { .. }) => (StatusCode::FORBIDDEN, "requesters-contact"),
        Answer::Objection(_) => (StatusCode::CONFLICT, "not-acceptable"),
        Answer::Changed => (StatusCode::CONFLICT, "connection-changed"),
        Answer::NotShown => (StatusCode::CONFLICT, "not-shown"),
        Answer::IdReused => (StatusCode::CONFLICT, "id-reused"),
        Answer::Void => (StatusCode::CONFLICT, "decision-void"),
        Answer::RecordFull => (StatusCode::CONFLICT, "record-full"),
        Answer::TooManyWithdrawals => (StatusCode::CONFLICT, "too-many-withdrawals"),
        Answer::TooManyReads => (StatusCode::TOO_MANY_REQUESTS, "too-many-reads"),
        Answer::UnknownTarget(_) => (StatusCode::NOT_FOUND, "unknown-target"),
        Answer::UnknownConnection => (StatusCode::NOT_FOUND, "unknown-connection"),
        Answer::VendorRefused(_) => (StatusCode::CONFLICT, "vendor-refused"),
        Answer::NotUnderstood { .. } => (StatusCode::BAD_GATEWAY, "not-understood"),
        Answer::CredentialsRefused(_) => (StatusCode::BAD_GATEWAY, "credentials-refused"),
        Answer::Unavailable(Part::Store) => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable"),
        Answer::Unavailable(Part::Secrets) => (StatusCode::SERVICE_UNAVAILABLE, "secrets-unavailable"),
        Answer::Unavailable(Part::AwsIdentity) => (StatusCode::SERVICE_UNAVAILABLE, "aws-unavailable"),
        Answer::Unavailable(Part::Alicloud) => (StatusCode::SERVICE_UNAVAILABLE, "alicloud-unavailable"),
    }
}

/// Whether what was decided has come about, or may yet.
fn settled(approval: &Approval) -> (StatusCode, &'static str) {
    let verdict = approval.winner().map(|winner| winner.verdict);
    match approval.state {
        State::Failed { .. } => (StatusCode::CONFLICT, "failed"),
        State::Expired => (StatusCode::CONFLICT, "expired"),
        State::Deleted => (StatusCode::CONFLICT, "deleted"),
        State::Rejected if verdict == Some(Verdict::Reject) => (StatusCode::OK, "rejected"),
        State::Rejected => (StatusCode::CONFLICT, "rejected-elsewhere"),
        State::Rejecting => (StatusCode::OK, "rejecting"),
        State::Pending => (StatusCode::CONFLICT, "connection-changed"),
        State::Approved | State::Activating | State::Activated => (StatusCode::OK, "accepted"),
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
        Rejection::WrongTenant(_) => (StatusCode::FORBIDDEN, "wrong-tenant"),
        Rejection::NoSecrets(_) => (StatusCode::SERVICE_UNAVAILABLE, "secrets-unavailable"),
    };
    (status, name, rejection.to_string())
}

fn respond(outcome: &Outcome, now: Timestamp) -> Response<String> {
    match outcome {
        Outcome::Healthy => json_response(StatusCode::OK, &json!({"status": "ok"})),
        Outcome::Answered { answer, way, .. } => match way {
            Way::Machine => machine_response(answer, now),
            Way::Slash => json_response(StatusCode::OK, &slack::ephemeral(&message::answer(answer, now))),
            Way::Click => response(StatusCode::OK, "text/plain", String::new()),
            Way::Window => json_response(StatusCode::OK, &slack::answer_window(&message::answer(answer, now))),
        },
        Outcome::Asked(_) => response(StatusCode::OK, "text/plain", String::new()),
        Outcome::Usage => json_response(StatusCode::OK, &slack::ephemeral(&message::usage())),
        Outcome::Challenge(challenge) => json_response(StatusCode::OK, &json!({"challenge": challenge})),
        Outcome::Rejected(Rejection::WrongTenant(Some(place))) => match place {
            slack::Place::Reply => json_response(StatusCode::OK, &slack::ephemeral(&message::stranger())),
            slack::Place::Url(_) => response(StatusCode::OK, "text/plain", String::new()),
            slack::Place::Window => json_response(StatusCode::OK, &slack::answer_window(&message::stranger())),
        },
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

fn machine_response(answer: &Answer, now: Timestamp) -> Response<String> {
    let (status, name) = classify(answer);
    let message = message::answer(answer, now);
    let detail = std::iter::once(message.headline).chain(message.sentences).collect::<Vec<_>>().join(". ");
    let about = match answer {
        Answer::Done(approval)
        | Answer::Underway(approval)
        | Answer::Counted(approval)
        | Answer::Withdrawn(approval)
        | Answer::Repeated(approval)
        | Answer::Over(approval) => {
            json!({"approval": standard_webhooks::approval(approval)})
        }
        Answer::DryRunPassed { connection, findings } => {
            json!({"connection": standard_webhooks::connection(connection), "findings": findings})
        }
        Answer::List { approvals, more } => json!({
            "approvals": approvals.iter().map(standard_webhooks::approval).collect::<Vec<_>>(), "more": more,
        }),
        Answer::Status { connection, approval, .. } => json!({
            "connection": standard_webhooks::connection(connection),
            "approval": approval.as_deref().map(standard_webhooks::approval),
        }),
        Answer::VendorRefused(problem)
        | Answer::NotUnderstood { problem, .. }
        | Answer::CredentialsRefused(problem) => {
            json!({"problem": problem})
        }
        Answer::UnknownTarget(targets) => json!({"targets": targets}),
        Answer::Objection(objection) => json!({"objection": objection}),
        Answer::Refused(_)
        | Answer::ReasonRequired { .. }
        | Answer::NothingToWithdraw
        | Answer::NotAsked { .. }
        | Answer::Changed
        | Answer::NotShown
        | Answer::IdReused
        | Answer::Void
        | Answer::RecordFull
        | Answer::TooManyWithdrawals
        | Answer::TooManyReads
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
    if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&response.status()) {
        response.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("10"));
    }
    response
}

/// The one line about a request.
fn log(outcome: &Outcome, status: StatusCode, took: Duration) {
    metrics::answered(status);
    let (status, duration_ms) = (status.as_u16(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    match outcome {
        Outcome::Answered { request, answer, way } => {
            log_request(request, classify(answer).1, &format!("{way:?}"), status, duration_ms);
        }
        Outcome::Asked(request) => log_request(request, "asked", "Click", status, duration_ms),
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

fn log_request(request: &chat::Request, outcome: &str, way: &str, status: u16, duration_ms: u64) {
    let (target, instance_id) = match &request.command {
        Command::List { target } => (target.as_ref(), None),
        Command::About(about) => (about.target.as_ref(), Some(about.instance_id.as_str())),
    };
    tracing::info!(
        outcome,
        verb = message::command_name(&request.command),
        way,
        actor.id = request.by.as_str(),
        signing_key = request.key,
        target,
        peering.id = instance_id,
        http.status = status,
        duration_ms,
        "answered"
    );
}

//! Story one: an approval. A request arrives, its sender is made sure of, the policy is asked, one conditional write makes
//! the decision durable, and the accept runs within the time that the sender waits.
//!
//! Whatever happens after the write, nothing is lost: the watcher finishes it with the same client token.

mod decision;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::app::App;
use crate::chat::binding::{self, Binding, BindingError};
use crate::chat::platform::{ChatContext, Platform, ReplyTo};
use crate::chat::response::{add_retry_after, json_response, problem_response, text_response};
use crate::chat::{
    self, Action, AskOutcome, Authentic, Click, Command, Incoming, MalformedRequest, Outgoing, Reply, RequestShape,
    Unauthentic, message,
};
use crate::logging::Chain;
use crate::secrets::SecretSet;
use crate::{envelope, metrics};
use decision::{reply_if_too_late, reply_to_command};

/// A request is a few hundred bytes; this leaves room for any that a platform sends.
const MAX_REQUEST_BYTES: usize = 256 * 1024;
/// What may be spent on finding out that it is too late, before somebody is asked for a reason.
const PRECHECK_BUDGET: Duration = Duration::from_millis(600);

/// What a request comes to, and what the log says of it.
enum RequestOutcome {
    /// Nobody asked anything.
    Healthy,
    /// Somebody we know wanted something.
    Answered {
        /// What, and who.
        request: chat::CommandRequest,
        /// The name of what came of it.
        outcome: &'static str,
        /// How they heard of it.
        reply_kind: &'static str,
    },
    /// A command that we don't understand, or a test of the address.
    Informed,
    /// Not even a command.
    Rejected(Rejection),
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    #[error("no such path")]
    UnknownPath,
    #[error("another method is needed")]
    MethodNotAllowed(&'static [Method]),
    #[error("the body is larger than 256 KiB")]
    TooLarge,
    #[error("another content type is needed")]
    UnsupportedContentType,
    #[error("not authentic")]
    Unauthentic(#[from] Unauthentic),
    #[error("another tenant or app than those of the configuration")]
    WrongTenant,
    #[error(transparent)]
    Malformed(#[from] MalformedRequest),
    #[error("the secrets cannot be read")]
    SecretsUnavailable(#[from] crate::secrets::Error),
}

/// Answers what Lambda hands us.
pub async fn handle_event(app: &App, event: envelope::HttpEvent, now: Timestamp) -> Response<String> {
    match envelope::into_request(event) {
        Ok(request) => handle_request(app, request, now).await,
        Err(error) => {
            let rejection = Rejection::from(error);
            let response = rejection_response(&rejection);
            log_request_outcome(&RequestOutcome::Rejected(rejection), response.status(), Duration::ZERO);
            response
        }
    }
}

/// Answers a request.
pub async fn handle_request(app: &App, request: Request<Bytes>, now: Timestamp) -> Response<String> {
    let started = Instant::now();
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let handled = match segments.as_slice() {
        ["healthz"] => answer_health_check(&request),
        [first, rest @ ..] => match Platform::from_path(first, rest.len(), &app.config.platforms) {
            Some(platform) => handle_platform_request(app, platform, &request, now).await,
            None => Err(Rejection::UnknownPath),
        },
        [] => Err(Rejection::UnknownPath),
    };
    let (outcome, response) = handled.unwrap_or_else(|rejection| {
        let response = rejection_response(&rejection);
        (RequestOutcome::Rejected(rejection), response)
    });
    log_request_outcome(&outcome, response.status(), started.elapsed());
    response
}

fn answer_health_check(request: &Request<Bytes>) -> Result<(RequestOutcome, Response<String>), Rejection> {
    const ALLOWED: &[Method] = &[Method::GET, Method::HEAD];
    if ALLOWED.contains(request.method()) {
        Ok((RequestOutcome::Healthy, json_response(StatusCode::OK, &json!({"status": "ok"}))))
    } else {
        Err(Rejection::MethodNotAllowed(ALLOWED))
    }
}

/// Verifies, understands, carries out, and tells the sender.
async fn handle_platform_request(
    app: &App,
    platform: Platform,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<(RequestOutcome, Response<String>), Rejection> {
    let deadline = Instant::now() + platform.deadline();
    check_request_format(request, platform.request_shape())?;
    platform.precheck_request(request, now)?;
    let (authentic, secrets) = authenticate(app, platform, request, now).await?;
    metrics::count_signing_key(authentic.sender(), authentic.key_index());
    let kept = Arc::clone(&secrets);
    let context = app.chat_context(&kept);
    match platform.parse(&app.config.platforms, authentic)? {
        Incoming::Challenge(reply) => {
            Ok((RequestOutcome::Informed, text_response(StatusCode::OK, "application/json", reply)))
        }
        Incoming::UnknownCommand(to) => Ok((RequestOutcome::Informed, to.reply(context, &Outgoing::Usage).await)),
        Incoming::WrongTenant(None) => Err(Rejection::WrongTenant),
        Incoming::WrongTenant(Some(to)) => {
            Ok((RequestOutcome::Rejected(Rejection::WrongTenant), to.reply(context, &Outgoing::WrongTenant).await))
        }
        Incoming::Command { request, reply_to: to } => {
            let answer = reply_to_command(app, &request, now, deadline).await;
            Ok(reply_to_sender(context, platform, to, &request, &answer, now).await)
        }
        Incoming::Click { click, reply_to: to } => {
            let (binding, secrets) = verify_button(app, platform, secrets, &click.binding, now).await?;
            let context = app.chat_context(&secrets);
            handle_click(app, context, platform, (click, binding), to, now, deadline).await
        }
    }
}

/// Checks what a button carried; if its key is not known, once more with fresh secrets. `None` for a button that is no
/// longer valid.
async fn verify_button(
    app: &App,
    platform: Platform,
    secrets: Arc<SecretSet>,
    text: &str,
    now: Timestamp,
) -> Result<(Option<Binding>, Arc<SecretSet>), Rejection> {
    let forged = || Rejection::Malformed(MalformedRequest("the button is not one of ours".into()));
    match app.chat_context(&secrets).keyring(platform).verify(text) {
        Ok(binding) => Ok((Some(binding), secrets)),
        Err(BindingError::UnknownKey) => {
            let Some(fresh) = app.secrets.refetch(&secrets, now).await else { return Ok((None, secrets)) };
            match app.chat_context(&fresh).keyring(platform).verify(text) {
                Ok(binding) => Ok((Some(binding), fresh)),
                Err(BindingError::UnknownKey) => Ok((None, fresh)),
                Err(BindingError::Forged) => Err(forged()),
            }
        }
        Err(BindingError::Forged) if binding::parse_legacy_binding(text).is_some() => Ok((None, secrets)),
        Err(BindingError::Forged) => Err(forged()),
    }
}

/// Asks for a reason where one is wanted, or carries out what the button says.
async fn handle_click(
    app: &App,
    context: ChatContext<'_>,
    platform: Platform,
    (click, binding): (Click, Option<Binding>),
    to: ReplyTo,
    now: Timestamp,
    deadline: Instant,
) -> Result<(RequestOutcome, Response<String>), Rejection> {
    let Some(binding) = binding else {
        let old = decision::reply_to_old_card(app, &click, now, deadline).await;
        let (request, answer) = old.ok_or_else(|| MalformedRequest("the button is not one of ours".into()))?;
        return Ok(reply_to_sender(context, platform, to, &request, &answer, now).await);
    };
    let asks = click.needs_reason(binding.button);
    let request = click.to_command_request(binding);
    let question = if asks { ask_for_reason(app, context, &request, &click, &to, now, deadline).await } else { None };
    match question {
        Some(ReasonPrompt::Asked) => {
            let way = to.log_label();
            let response = to.reply(context, &Outgoing::ReasonAsked).await;
            Ok((RequestOutcome::Answered { request, outcome: "asked", reply_kind: way }, response))
        }
        Some(ReasonPrompt::Answered(answer)) => {
            Ok(reply_to_sender(context, platform, to, &request, &answer, now).await)
        }
        None => {
            let answer = reply_to_command(app, &request, now, deadline).await;
            Ok(reply_to_sender(context, platform, to, &request, &answer, now).await)
        }
    }
}

/// Tells the sender what came of it.
async fn reply_to_sender(
    context: ChatContext<'_>,
    platform: Platform,
    to: ReplyTo,
    request: &chat::CommandRequest,
    reply: &Reply,
    now: Timestamp,
) -> (RequestOutcome, Response<String>) {
    let (outcome, way) = (reply.outcome().name, to.log_label());
    let keyring = context.keyring(platform);
    let max_chars = platform.max_binding_chars();
    let card = binding::private_card_id(request.by.as_str(), binding::hours_since_epoch(now));
    let message = Box::new(binding::bind_buttons(message::describe_reply(reply, now), &keyring, card, max_chars));
    let drawn = || {
        if let Reply::StaleCard { has_new_card: replaced, .. } = reply {
            return replaced.then(message::card_replaced);
        }
        let (approval, clicked) = (reply.approval()?, request.clicked_card.as_ref()?);
        approval.cards.values().find(|card| card.id == clicked.card_id)?;
        Some(binding::bind_buttons(message::request_card(approval, now), &keyring, clicked.card_id, max_chars))
    };
    let card = if platform.can_redraw_in_reply() { drawn().map(Box::new) } else { None };
    let response = to.reply(context, &Outgoing::Reply { reply, message, card }).await;
    (RequestOutcome::Answered { request: request.clone(), outcome, reply_kind: way }, response)
}

/// What comes of asking for a reason.
enum ReasonPrompt {
    /// It was put; the reason comes in a request of its own.
    Asked,
    /// It is of no use, or could not be put: what they are told.
    Answered(Box<Reply>),
}

/// Asks for a reason, unless it is too late for a decision. `None` if nobody can be asked.
async fn ask_for_reason(
    app: &App,
    context: ChatContext<'_>,
    request: &chat::CommandRequest,
    click: &Click,
    to: &ReplyTo,
    now: Timestamp,
    deadline: Instant,
) -> Option<ReasonPrompt> {
    // Best effort: a late click is answered after the question, too.
    if let Some(late) = reply_if_too_late(app, request, now, Instant::now() + PRECHECK_BUDGET).await {
        return Some(ReasonPrompt::Answered(Box::new(late)));
    }
    let Command::Connection(about) = &request.command else { return None };
    let Action::Decide(verdict) = about.action else { return None };
    match to.ask_reason(context, click, verdict, deadline.saturating_duration_since(Instant::now())).await {
        Ok(AskOutcome::Asked) => Some(ReasonPrompt::Asked),
        Ok(AskOutcome::Impossible) => None,
        Err(undelivered) => {
            tracing::warn!(outcome = "not_asked", error = undelivered.error, "nobody could be asked for a reason");
            Some(ReasonPrompt::Answered(Box::new(Reply::CouldNotAsk {
                verdict,
                instance_id: about.instance_id.clone(),
            })))
        }
    }
}

/// Method, size and content type, in this order.
fn check_request_format(request: &Request<Bytes>, accepted: &RequestShape) -> Result<(), Rejection> {
    if !accepted.methods.contains(request.method()) {
        return Err(Rejection::MethodNotAllowed(accepted.methods));
    }
    if request.body().len() > MAX_REQUEST_BYTES {
        return Err(Rejection::TooLarge);
    }
    if request.method() == Method::GET {
        return Ok(());
    }
    let mut given = request.headers().get_all(CONTENT_TYPE).iter().filter_map(|value| value.to_str().ok());
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(Rejection::UnsupportedContentType);
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    let same = |name: &&str| name.eq_ignore_ascii_case(essence);
    if accepted.content_types.iter().any(same) { Ok(()) } else { Err(Rejection::UnsupportedContentType) }
}

/// Verifies with the cached secrets and, when no key matches, once more with fresh ones, which may hold a new key. Runs
/// after all checks without secrets, so that malformed requests never reach the store.
async fn authenticate(
    app: &App,
    platform: Platform,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<(Authentic, Arc<SecretSet>), Rejection> {
    let secrets = app.secrets.current(now).await?;
    match platform.verify(app.chat_context(&secrets), request, now).await {
        Err(unauthentic) if unauthentic.depends_on_secrets() => match app.secrets.refetch(&secrets, now).await {
            Some(fresh) => Ok((platform.verify(app.chat_context(&fresh), request, now).await?, fresh)),
            None => Err(unauthentic.into()),
        },
        verified => Ok((verified?, secrets)),
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
        Rejection::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "method"),
        Rejection::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        Rejection::UnsupportedContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type"),
        Rejection::Unauthentic(_) => {
            return (StatusCode::UNAUTHORIZED, "unauthentic", "the request is not authentic".into());
        }
        Rejection::WrongTenant => (StatusCode::FORBIDDEN, "wrong-tenant"),
        Rejection::SecretsUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "secrets-unavailable"),
    };
    (status, name, rejection.to_string())
}

fn rejection_response(rejection: &Rejection) -> Response<String> {
    let (status, name, detail) = classify_rejection(rejection);
    let mut response = problem_response(status, name, &detail, &Value::Null);
    if let Rejection::MethodNotAllowed(allowed) = rejection {
        let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        if let Ok(allowed) = HeaderValue::try_from(allowed) {
            response.headers_mut().insert(ALLOW, allowed);
        }
    }
    add_retry_after(response)
}

/// The one line about a request.
fn log_request_outcome(outcome: &RequestOutcome, status: StatusCode, took: Duration) {
    metrics::count_response(status);
    let (status, duration_ms) = (status.as_u16(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    match outcome {
        RequestOutcome::Answered { request, outcome, reply_kind: way } => {
            log_request(request, outcome, way, status, duration_ms);
        }
        RequestOutcome::Rejected(rejection) => tracing::warn!(
            outcome = classify_rejection(rejection).1,
            error = %Chain(rejection),
            http.status = status,
            duration_ms,
            "rejected"
        ),
        RequestOutcome::Healthy | RequestOutcome::Informed => {
            tracing::info!(outcome = "ok", http.status = status, duration_ms, "answered");
        }
    }
}

fn log_request(request: &chat::CommandRequest, outcome: &str, reply_kind: &str, status: u16, duration_ms: u64) {
    let (target, instance_id) = match &request.command {
        Command::List { target } => (target.as_ref(), None),
        Command::Connection(about) => (about.target.as_ref(), Some(about.instance_id.as_str())),
    };
    tracing::info!(
        outcome,
        verb = request.command.log_name(),
        reply_kind,
        actor.id = request.by.as_str(),
        signing_key = request.origin.key_index,
        target,
        peering.id = instance_id,
        http.status = status,
        duration_ms,
        "answered"
    );
}

//! Story one: an approval. A request arrives, and its sender is authenticated. The policy says whether they may decide.
//! One conditional write makes the decision durable, and the accept runs while the sender waits.
//!
//! After the write, nothing is lost: the watcher finishes the call with the same client token.

mod acknowledge;
mod carry_out;
mod decision;
mod ended;
mod list;
mod old_card;
mod rejection;
mod reply;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use crate::app::App;
use crate::approval::ApprovalId;
use crate::chat::binding::{self, Binding, BindingError};
use crate::chat::platform::{ChatContext, Platform, ReplyTo};
use crate::chat::response::{empty_response, json_response, text_response};
use crate::chat::{
    self, Action, AskOutcome, Authentic, Click, Command, CommandScope, ConnectionCommand, ForeignRequest, Incoming,
    MalformedRequest, Outgoing, Reply, ReplyRedraw, RequestShape, SingleUse, message,
};
use crate::logging::ErrorChain;
use crate::notes::NoteId;
use crate::redaction::redact_path;
use crate::secrets::SecretSet;
use crate::{envelope, metrics};
use decision::{refusal_before_reason, reply_to_command};
use old_card::redraw_copy;
use rejection::{Rejection, classify_rejection, rejection_response};

/// Maximum size of a request body. Most have a few hundred bytes, and no platform sends more than this.
const MAX_REQUEST_BYTES: usize = 256 * 1024;

/// The outcome of a request, for the log.
enum RequestOutcome {
    /// A health check was answered.
    Healthy,
    /// An authenticated sender's command was answered.
    Answered {
        /// The command and its sender.
        request: chat::CommandRequest,
        /// Name of the reply in the log.
        outcome: &'static str,
        /// How the reply reached the sender.
        reply_kind: &'static str,
    },
    /// The words were not a command, or the platform tested the address.
    Informed,
    /// The request was rejected before it became a command.
    Rejected(Rejection),
}

/// The response to a request, and its outcome for the log.
struct Handled {
    outcome: RequestOutcome,
    response: Response<String>,
}

/// Something that was verified, and the secrets that verified it.
struct Verified<T> {
    value: T,
    secrets: Arc<SecretSet>,
}

/// Answers an HTTP event of AWS Lambda.
pub async fn handle_event(app: &App, event: envelope::HttpEvent, now: Timestamp) -> Response<String> {
    match envelope::into_request(event) {
        Ok(request) => handle_request(app, request, now).await,
        Err(error) => {
            let rejection = Rejection::from(error);
            let response = rejection_response(&rejection);
            log_request_outcome(&RequestOutcome::Rejected(rejection), response.status(), Duration::ZERO, None);
            response
        }
    }
}

/// Answers an HTTP request.
pub async fn handle_request(app: &App, request: Request<Bytes>, now: Timestamp) -> Response<String> {
    let started = Instant::now();
    let path = request.uri().path().to_owned();
    let handled = match path_segments(&path, &app.config.base_path).as_slice() {
        ["healthz"] => answer_health_check(&request),
        [first, rest @ ..] => match Platform::from_path(first, rest.len(), &app.config.platforms) {
            Some(platform) => handle_platform_request(app, platform, &request, now).await,
            None => Err(Rejection::UnknownPath),
        },
        [] => Err(Rejection::UnknownPath),
    };
    let Handled { outcome, response } = handled.unwrap_or_else(|rejection| {
        let response = rejection_response(&rejection);
        Handled { outcome: RequestOutcome::Rejected(rejection), response }
    });
    log_request_outcome(&outcome, response.status(), started.elapsed(), Some(&request));
    response
}

/// The segments of a path. Empty ones do not count: proxies add and remove slashes. The base path may be absent: not every
/// request comes through the proxy that adds it.
fn path_segments<'a>(path: &'a str, base_path: &str) -> Vec<&'a str> {
    let mut segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let base: Vec<_> = base_path.split('/').filter(|segment| !segment.is_empty()).collect();
    if segments.len() > base.len() && segments.starts_with(&base) {
        segments.drain(..base.len());
    }
    segments
}

fn answer_health_check(request: &Request<Bytes>) -> Result<Handled, Rejection> {
    const ALLOWED: &[Method] = &[Method::GET, Method::HEAD];
    if ALLOWED.contains(request.method()) {
        let response = json_response(StatusCode::OK, &json!({"status": "ok"}));
        Ok(Handled { outcome: RequestOutcome::Healthy, response })
    } else {
        Err(Rejection::MethodNotAllowed(ALLOWED))
    }
}

/// Verifies and parses a platform's request, carries out its command, and replies.
async fn handle_platform_request(
    app: &App,
    platform: Platform,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<Handled, Rejection> {
    let arrived = Instant::now();
    let deadline = arrived + platform.deadline();
    let answer_until = arrived + platform.answer_deadline();
    if platform.is_address_test(request) {
        return Ok(Handled { outcome: RequestOutcome::Informed, response: empty_response() });
    }
    check_request_format(request, platform.request_shape())?;
    platform.precheck_request(request, now)?;
    let Verified { value: authentic, secrets } = authenticate(app, platform, request, now).await?;
    metrics::count_signing_key(authentic.sender(), authentic.key_index());
    let context = app.chat_context(&secrets);
    if let Some(SingleUse::Proof(until)) = authentic.single_use() {
        refuse_second_use(app, &authentic, until, now).await?;
    }
    let incoming = platform.parse(&app.config.platforms, authentic.clone())?;
    // What does nothing, and what a stranger sends, leaves no id in the table.
    let does_nothing = matches!(incoming, Incoming::WrongTenant(_) | Incoming::Challenge(_));
    if let Some(SingleUse::Id(until)) = authentic.single_use().filter(|_| !does_nothing) {
        refuse_second_use(app, &authentic, until, now).await?;
    }
    platform.learn(context, &authentic).await;
    match incoming {
        Incoming::Challenge(reply) => {
            let response = text_response(StatusCode::OK, "application/json", reply);
            Ok(Handled { outcome: RequestOutcome::Informed, response })
        }
        Incoming::UnknownCommand { error, reply_to } => {
            let targets: Vec<_> = app.config.targets.keys().map(String::as_str).collect();
            let message = Box::new(message::describe_unknown_command(&error, platform.command_scope(), &targets));
            let response = reply_to.reply(context, &Outgoing::UnknownCommand(message), answer_until).await;
            Ok(Handled { outcome: RequestOutcome::Informed, response })
        }
        Incoming::WrongTenant(ForeignRequest { reply_to, mismatch }) => {
            let Some(reply_to) = reply_to else { return Err(mismatch.into()) };
            let response = reply_to.reply(context, &Outgoing::WrongTenant, answer_until).await;
            Ok(Handled { outcome: RequestOutcome::Rejected(mismatch.into()), response })
        }
        Incoming::Command { request, reply_to } => {
            let responder = Responder { context, platform, reply_to, now, answer_until };
            let reply = reply_to_words(app, platform, &request, now, deadline).await;
            Ok(responder.send_reply(request, &reply).await)
        }
        Incoming::Click { click, reply_to } => {
            let Verified { value: binding, secrets } =
                verify_button(app, platform, &secrets, &click.binding, now).await?;
            let context = app.chat_context(&secrets);
            let responder = Responder { context, platform, reply_to, now, answer_until };
            if let Some(binding) = binding {
                return Ok(handle_click(app, responder, &click, binding, deadline).await);
            }
            let old = old_card::reply_to_old_card(app, &click, now, deadline).await;
            let (request, reply) = old.ok_or_else(forged_button)?;
            Ok(responder.send_reply(request, &reply).await)
        }
    }
}

/// Verifies the binding of a button. If its key is unknown, tries once more with fresh secrets. The binding is `None`
/// if the button is no longer valid.
async fn verify_button(
    app: &App,
    platform: Platform,
    secrets: &Arc<SecretSet>,
    text: &str,
    now: Timestamp,
) -> Result<Verified<Option<Binding>>, Rejection> {
    let verify = |secrets: &SecretSet| app.chat_context(secrets).keyring(platform).verify(text);
    let mut secrets = Arc::clone(secrets);
    let mut binding = verify(&secrets);
    if matches!(binding, Err(BindingError::UnknownKey))
        && let Some(fresh) = app.secrets.refetch(&secrets, now).await
    {
        binding = verify(&fresh);
        secrets = fresh;
    }
    match binding {
        Ok(binding) => Ok(Verified { value: Some(binding), secrets }),
        Err(BindingError::UnknownKey) => Ok(Verified { value: None, secrets }),
        Err(BindingError::Forged) if binding::parse_legacy_binding(text).is_some() => {
            Ok(Verified { value: None, secrets })
        }
        Err(BindingError::Forged) => Err(forged_button()),
    }
}

/// Refuses a second request with the same proof, where the proof does not cover the body.
async fn refuse_second_use(
    app: &App,
    authentic: &Authentic,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), Rejection> {
    let id = NoteId::new("used", &authentic.origin().request_key)?;
    if app.notes.save_if_absent(&id, until, now).await? { Ok(()) } else { Err(Rejection::UsedBefore) }
}

/// Carries out a command in words. Where nobody signs words, a decision is answered with the buttons for it.
async fn reply_to_words(
    app: &App,
    platform: Platform,
    request: &chat::CommandRequest,
    now: Timestamp,
    deadline: Instant,
) -> Reply {
    match &request.command {
        Command::Connection(command)
            if platform.command_scope() == CommandScope::Questions && !request.command.is_question() =>
        {
            let command = ConnectionCommand { action: Action::Status, reason: None, ..command.clone() };
            let question = chat::CommandRequest { command: Command::Connection(command), ..request.clone() };
            Reply::ButtonsOnly(Box::new(reply_to_command(app, &question, now, deadline).await))
        }
        Command::Connection(_) | Command::List { .. } | Command::Inventory { .. } => {
            reply_to_command(app, request, now, deadline).await
        }
    }
}

fn forged_button() -> Rejection {
    Rejection::Malformed(MalformedRequest("the button is not one of ours".into()))
}

/// Asks for a reason if the decision requires one. Otherwise carries out the command of the button.
async fn handle_click(
    app: &App,
    responder: Responder<'_>,
    click: &Click,
    binding: Binding,
    deadline: Instant,
) -> Handled {
    let needs_reason = click.needs_reason(binding.button);
    let request = click.to_command_request(binding);
    let prompt = if needs_reason { ask_for_reason(app, &responder, &request, click, deadline).await } else { None };
    match prompt {
        Some(ReasonPrompt::Asked) => responder.confirm_question(request).await,
        Some(ReasonPrompt::Answered(reply)) => responder.send_reply(request, &reply).await,
        None => {
            let reply = reply_to_command(app, &request, responder.now, deadline).await;
            responder.send_reply(request, &reply).await
        }
    }
}

/// How the answer to one request goes back to its sender.
struct Responder<'a> {
    context: ChatContext<'a>,
    platform: Platform,
    reply_to: ReplyTo,
    now: Timestamp,
    answer_until: Instant,
}

impl Responder<'_> {
    /// Sends the reply to a command.
    async fn send_reply(self, request: chat::CommandRequest, reply: &Reply) -> Handled {
        let Self { context, platform, reply_to, now, answer_until } = self;
        let (outcome, reply_kind) = (reply.outcome().name, reply_to.log_label());
        let keyring = context.keyring(platform);
        let max_chars = platform.max_binding_chars();
        let card = binding::private_card_id(request.by.as_str(), binding::hours_since_epoch(now));
        let describe = |reply| message::describe_reply(reply, platform.command_scope(), now);
        let message = Box::new(binding::bind_buttons(describe(reply), &keyring, card, max_chars));
        let stale_copy = || redraw_copy(&request, reply, |reference| reply_to.message_link(reference), now);
        let clicked_card = || {
            let (approval, clicked) = (reply.approval()?, request.clicked_card.as_ref()?);
            approval.cards().values().find(|card| card.id == clicked.card_id)?;
            Some(binding::bind_buttons(message::request_card(approval, now), &keyring, clicked.card_id, max_chars))
        };
        let card = match platform.reply_redraw() {
            ReplyRedraw::Nothing => None,
            ReplyRedraw::StaleCopies => stale_copy(),
            ReplyRedraw::AnyCard => stale_copy().or_else(clicked_card),
        };
        let card = card.map(Box::new);
        let response = reply_to.reply(context, &Outgoing::Reply { reply, message, card }, answer_until).await;
        Handled { outcome: RequestOutcome::Answered { request, outcome, reply_kind }, response }
    }

    /// Confirms that the sender was asked for a reason.
    async fn confirm_question(self, request: chat::CommandRequest) -> Handled {
        let reply_kind = self.reply_to.log_label();
        let response = self.reply_to.reply(self.context, &Outgoing::ReasonAsked, self.answer_until).await;
        Handled { outcome: RequestOutcome::Answered { request, outcome: "asked", reply_kind }, response }
    }
}

/// The result of asking for a reason.
enum ReasonPrompt {
    /// The sender was asked. The reason arrives in another request.
    Asked,
    /// The sender was not asked. Holds the reply that says why.
    Answered(Box<Reply>),
}

/// Asks for a reason, unless the decision cannot count with any reason. `None` if the platform cannot ask.
async fn ask_for_reason(
    app: &App,
    responder: &Responder<'_>,
    request: &chat::CommandRequest,
    click: &Click,
    deadline: Instant,
) -> Option<ReasonPrompt> {
    if let Some(refusal) = refusal_before_reason(app, request, responder.now, deadline).await {
        return Some(ReasonPrompt::Answered(Box::new(refusal)));
    }
    let Command::Connection(command) = &request.command else { return None };
    let Action::Decide(verdict) = command.action else { return None };
    let time_left = deadline.saturating_duration_since(Instant::now());
    match responder.reply_to.ask_reason(responder.context, click, verdict, time_left).await {
        Ok(AskOutcome::Asked) => Some(ReasonPrompt::Asked),
        Ok(AskOutcome::Impossible) => None,
        Err(undelivered) => {
            tracing::warn!(outcome = "not_asked", error = undelivered.error, "could not ask the sender for a reason");
            let (target, _) = app.config.find_target(command.target.as_deref())?;
            let id = ApprovalId { target: target.to_owned(), instance_id: command.instance_id.clone() };
            Some(ReasonPrompt::Answered(Box::new(Reply::CouldNotAsk { verdict, id })))
        }
    }
}

/// Checks method, size and content type, in this order.
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
    let Some(essence) = content_type(request) else { return Err(Rejection::UnsupportedContentType) };
    let same = |name: &&str| name.eq_ignore_ascii_case(essence);
    if accepted.content_types.iter().any(same) { Ok(()) } else { Err(Rejection::UnsupportedContentType) }
}

/// The content type without its parameters. `None` if there is none, or more than one.
fn content_type(request: &Request<Bytes>) -> Option<&str> {
    let mut given = request.headers().get_all(CONTENT_TYPE).iter().filter_map(|value| value.to_str().ok());
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    value.split(';').next().map(str::trim)
}

/// Verifies a request with the cached secrets. If no key matches, tries once more with fresh secrets, which may hold a
/// new key. All checks without secrets run before this, so that a malformed request never causes a fetch.
async fn authenticate(
    app: &App,
    platform: Platform,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<Verified<Authentic>, Rejection> {
    let secrets = app.secrets.current(now).await?;
    match platform.verify(app.chat_context(&secrets), request, now).await {
        Err(unauthentic) if unauthentic.depends_on_secrets() => match app.secrets.refetch(&secrets, now).await {
            Some(fresh) => {
                let value = platform.verify(app.chat_context(&fresh), request, now).await?;
                Ok(Verified { value, secrets: fresh })
            }
            None => Err(unauthentic.into()),
        },
        verified => Ok(Verified { value: verified?, secrets }),
    }
}

/// Logs the outcome of a request, in one line.
fn log_request_outcome(outcome: &RequestOutcome, status: StatusCode, took: Duration, request: Option<&Request<Bytes>>) {
    metrics::count_response(status);
    let (status, duration_ms) = (status.as_u16(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    match outcome {
        RequestOutcome::Answered { request, outcome, reply_kind } => {
            log_request(request, outcome, reply_kind, status, duration_ms);
        }
        RequestOutcome::Rejected(rejection) => tracing::warn!(
            outcome = classify_rejection(rejection).name,
            error = %ErrorChain(rejection),
            http.status = status,
            http.method = request.map(|request| redact_path(request.method().as_str())),
            http.path = request.map(|request| redact_path(request.uri().path())),
            http.content_type = request.and_then(content_type).map(redact_path),
            http.body_bytes = request.map(|request| request.body().len()),
            duration_ms,
            "rejected the request"
        ),
        RequestOutcome::Healthy | RequestOutcome::Informed => {
            tracing::info!(outcome = "ok", http.status = status, duration_ms, "answered the request");
        }
    }
}

fn log_request(request: &chat::CommandRequest, outcome: &str, reply_kind: &str, status: u16, duration_ms: u64) {
    let (target, instance_id) = match &request.command {
        Command::List { target } | Command::Inventory { target } => (target.as_ref(), None),
        Command::Connection(command) => (command.target.as_ref(), Some(command.instance_id.as_str())),
    };
    tracing::info!(
        outcome,
        verb = request.command.log_name(),
        way = reply_kind,
        actor.id = request.by.as_str(),
        signing_key = request.origin.key_index,
        target = target.map(|name| redact_path(name)),
        peering.id = instance_id,
        http.status = status,
        duration_ms,
        "answered the request"
    );
}

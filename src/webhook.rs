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
use crate::chat::binding::{self, Binding, Unbound};
use crate::chat::platform::{Context, Platform, ReplyTo};
use crate::chat::response::{json_response, problem, response, retry_later};
use crate::chat::{
    self, Accepted, Answer, Asked, Authentic, Click, Command, Incoming, Malformed, Said, Unauthentic, Verb, message,
};
use crate::logging::Chain;
use crate::secrets::Secrets;
use crate::{envelope, metrics};
use decision::{answer, too_late_to_ask};

/// A request is a few hundred bytes; this leaves room for any that a platform sends.
const LARGEST_BODY_BYTES: usize = 256 * 1024;
/// What may be spent on finding out that it is too late, before somebody is asked for a reason.
const COURTESY: Duration = Duration::from_millis(600);

/// What a request comes to, and what the log says of it.
enum Outcome {
    /// Nobody asked anything.
    Healthy,
    /// Somebody we know wanted something.
    Answered {
        /// What, and who.
        request: chat::Request,
        /// The name of what came of it.
        outcome: &'static str,
        /// How they heard of it.
        way: &'static str,
    },
    /// A command that we don't understand, or a test of the address.
    Said,
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
    Method(&'static [Method]),
    #[error("the body is larger than 256 KiB")]
    TooLarge,
    #[error("another content type is needed")]
    ContentType,
    #[error("not authentic")]
    Unauthentic(#[from] Unauthentic),
    #[error("another tenant or app than those of the configuration")]
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
        Err(error) => {
            let rejection = Rejection::from(error);
            let response = reject(&rejection);
            log(&Outcome::Rejected(rejection), response.status(), Duration::ZERO);
            response
        }
    }
}

/// Answers a request.
pub async fn handle(app: &App, request: Request<Bytes>, now: Timestamp) -> Response<String> {
    let started = Instant::now();
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let handled = match segments.as_slice() {
        ["healthz"] => health(&request),
        [first, rest @ ..] => match Platform::of_path(first, rest.len(), &app.config.platforms) {
            Some(platform) => from_platform(app, platform, &request, now).await,
            None => Err(Rejection::UnknownPath),
        },
        [] => Err(Rejection::UnknownPath),
    };
    let (outcome, response) = handled.unwrap_or_else(|rejection| {
        let response = reject(&rejection);
        (Outcome::Rejected(rejection), response)
    });
    log(&outcome, response.status(), started.elapsed());
    response
}

fn health(request: &Request<Bytes>) -> Result<(Outcome, Response<String>), Rejection> {
    const ALLOWED: &[Method] = &[Method::GET, Method::HEAD];
    if ALLOWED.contains(request.method()) {
        Ok((Outcome::Healthy, json_response(StatusCode::OK, &json!({"status": "ok"}))))
    } else {
        Err(Rejection::Method(ALLOWED))
    }
}

/// Verifies, understands, carries out, and tells the sender.
async fn from_platform(
    app: &App,
    platform: Platform,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<(Outcome, Response<String>), Rejection> {
    let deadline = Instant::now() + platform.deadline();
    check_shape(request, platform.accepted())?;
    platform.check(request, now)?;
    let (authentic, secrets) = authenticate(app, platform, request, now).await?;
    metrics::authenticated(authentic.sender(), authentic.key());
    let kept = Arc::clone(&secrets);
    let context = app.chat(&kept);
    match platform.parse(&app.config.platforms, authentic)? {
        Incoming::Challenge(reply) => Ok((Outcome::Said, response(StatusCode::OK, "application/json", reply))),
        Incoming::Usage(to) => Ok((Outcome::Said, to.reply(context, &Said::Usage).await)),
        Incoming::Stranger(None) => Err(Rejection::WrongTenant),
        Incoming::Stranger(Some(to)) => {
            Ok((Outcome::Rejected(Rejection::WrongTenant), to.reply(context, &Said::Stranger).await))
        }
        Incoming::Request { request, to } => {
            let answer = answer(app, &request, now, deadline).await;
            Ok(tell(context, platform, to, &request, &answer, now).await)
        }
        Incoming::Click { click, to } => {
            let (binding, secrets) = verify_button(app, platform, secrets, &click.binding, now).await?;
            let context = app.chat(&secrets);
            from_click(app, context, platform, (click, binding), to, now, deadline).await
        }
    }
}

/// Checks what a button carried; if its key is not known, once more with fresh secrets. `None` for a button that is no
/// longer valid.
async fn verify_button(
    app: &App,
    platform: Platform,
    secrets: Arc<Secrets>,
    text: &str,
    now: Timestamp,
) -> Result<(Option<Binding>, Arc<Secrets>), Rejection> {
    let forged = || Rejection::Malformed(Malformed("the button is not one of ours".into()));
    match app.chat(&secrets).keyring(platform).verify(text) {
        Ok(binding) => Ok((Some(binding), secrets)),
        Err(Unbound::UnknownKey) => {
            let Some(fresh) = app.secrets.refetch(&secrets, now).await else { return Ok((None, secrets)) };
            match app.chat(&fresh).keyring(platform).verify(text) {
                Ok(binding) => Ok((Some(binding), fresh)),
                Err(Unbound::UnknownKey) => Ok((None, fresh)),
                Err(Unbound::Forged) => Err(forged()),
            }
        }
        Err(Unbound::Forged) if binding::read_earlier(text).is_some() => Ok((None, secrets)),
        Err(Unbound::Forged) => Err(forged()),
    }
}

/// Asks for a reason where one is wanted, or carries out what the button says.
async fn from_click(
    app: &App,
    context: Context<'_>,
    platform: Platform,
    (click, binding): (Click, Option<Binding>),
    to: ReplyTo,
    now: Timestamp,
    deadline: Instant,
) -> Result<(Outcome, Response<String>), Rejection> {
    let Some(binding) = binding else {
        let old = decision::of_old_card(app, &click, now, deadline).await;
        let (request, answer) = old.ok_or_else(|| Malformed("the button is not one of ours".into()))?;
        return Ok(tell(context, platform, to, &request, &answer, now).await);
    };
    let asks = click.asks(binding.button);
    let request = click.request(binding);
    let question = if asks { ask(app, context, &request, &click, &to, now, deadline).await } else { None };
    match question {
        Some(Question::Asked) => {
            let way = to.way();
            let response = to.reply(context, &Said::Asked).await;
            Ok((Outcome::Answered { request, outcome: "asked", way }, response))
        }
        Some(Question::Answered(answer)) => Ok(tell(context, platform, to, &request, &answer, now).await),
        None => {
            let answer = answer(app, &request, now, deadline).await;
            Ok(tell(context, platform, to, &request, &answer, now).await)
        }
    }
}

/// Tells the sender what came of it.
async fn tell(
    context: Context<'_>,
    platform: Platform,
    to: ReplyTo,
    request: &chat::Request,
    answer: &Answer,
    now: Timestamp,
) -> (Outcome, Response<String>) {
    let (outcome, way) = (answer.outcome().1, to.way());
    let keyring = context.keyring(platform);
    let max_chars = platform.max_binding_chars();
    let card = binding::card_of_person(request.by.as_str(), binding::hour(now));
    let message = Box::new(binding::bind(message::answer(answer, now), &keyring, card, max_chars));
    let drawn = || {
        if let Answer::OldCard { replaced, .. } = answer {
            return replaced.then(message::replaced);
        }
        let (approval, clicked) = (answer.approval()?, request.clicked.as_ref()?);
        approval.cards.values().find(|card| card.card == clicked.card)?;
        Some(binding::bind(message::card(approval, now), &keyring, clicked.card, max_chars))
    };
    let card = if platform.redraws_in_reply() { drawn().map(Box::new) } else { None };
    let response = to.reply(context, &Said::Answer { answer, message, card }).await;
    (Outcome::Answered { request: request.clone(), outcome, way }, response)
}

/// What comes of asking for a reason.
enum Question {
    /// It was put; the reason comes in a request of its own.
    Asked,
    /// It is of no use, or could not be put: what they are told.
    Answered(Box<Answer>),
}

/// Asks for a reason, unless it is too late for a decision. `None` if nobody can be asked.
async fn ask(
    app: &App,
    context: Context<'_>,
    request: &chat::Request,
    click: &Click,
    to: &ReplyTo,
    now: Timestamp,
    deadline: Instant,
) -> Option<Question> {
    // Best effort: a late click is answered after the question, too.
    if let Some(late) = too_late_to_ask(app, request, now, Instant::now() + COURTESY).await {
        return Some(Question::Answered(Box::new(late)));
    }
    let Command::About(about) = &request.command else { return None };
    let Verb::Decide(verdict) = about.verb else { return None };
    match to.ask_reason(context, click, verdict, deadline.saturating_duration_since(Instant::now())).await {
        Ok(Asked::Done) => Some(Question::Asked),
        Ok(Asked::Impossible) => None,
        Err(undelivered) => {
            tracing::warn!(outcome = "not_asked", error = undelivered.error, "nobody could be asked for a reason");
            Some(Question::Answered(Box::new(Answer::NotAsked { verdict, instance_id: about.instance_id.clone() })))
        }
    }
}

/// Method, size and content type, in this order.
fn check_shape(request: &Request<Bytes>, accepted: &Accepted) -> Result<(), Rejection> {
    if !accepted.methods.contains(request.method()) {
        return Err(Rejection::Method(accepted.methods));
    }
    if request.body().len() > LARGEST_BODY_BYTES {
        return Err(Rejection::TooLarge);
    }
    if request.method() == Method::GET {
        return Ok(());
    }
    let mut given = request.headers().get_all(CONTENT_TYPE).iter().filter_map(|value| value.to_str().ok());
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(Rejection::ContentType);
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    let same = |name: &&str| name.eq_ignore_ascii_case(essence);
    if accepted.content_types.iter().any(same) { Ok(()) } else { Err(Rejection::ContentType) }
}

/// Verifies with the cached secrets and, when no key matches, once more with fresh ones, which may hold a new key. Runs
/// after all checks without secrets, so that malformed requests never reach the store.
async fn authenticate(
    app: &App,
    platform: Platform,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<(Authentic, Arc<Secrets>), Rejection> {
    let secrets = app.secrets.current(now).await?;
    match platform.verify(app.chat(&secrets), request, now).await {
        Err(unauthentic) if unauthentic.depends_on_secrets() => match app.secrets.refetch(&secrets, now).await {
            Some(fresh) => Ok((platform.verify(app.chat(&fresh), request, now).await?, fresh)),
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
        Rejection::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method"),
        Rejection::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        Rejection::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type"),
        Rejection::Unauthentic(_) => {
            return (StatusCode::UNAUTHORIZED, "unauthentic", "the request is not authentic".into());
        }
        Rejection::WrongTenant => (StatusCode::FORBIDDEN, "wrong-tenant"),
        Rejection::NoSecrets(_) => (StatusCode::SERVICE_UNAVAILABLE, "secrets-unavailable"),
    };
    (status, name, rejection.to_string())
}

fn reject(rejection: &Rejection) -> Response<String> {
    let (status, name, detail) = classify_rejection(rejection);
    let mut response = problem(status, name, &detail, &Value::Null);
    if let Rejection::Method(allowed) = rejection {
        let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        if let Ok(allowed) = HeaderValue::try_from(allowed) {
            response.headers_mut().insert(ALLOW, allowed);
        }
    }
    retry_later(response)
}

/// The one line about a request.
fn log(outcome: &Outcome, status: StatusCode, took: Duration) {
    metrics::answered(status);
    let (status, duration_ms) = (status.as_u16(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    match outcome {
        Outcome::Answered { request, outcome, way } => log_request(request, outcome, way, status, duration_ms),
        Outcome::Rejected(rejection) => tracing::warn!(
            outcome = classify_rejection(rejection).1,
            error = %Chain(rejection),
            http.status = status,
            duration_ms,
            "rejected"
        ),
        Outcome::Healthy | Outcome::Said => {
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

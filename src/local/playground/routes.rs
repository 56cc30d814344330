//! The addresses of the playground: the page at its token, its files below `/page`, its calls below `/api`, and the webhook.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::copy::CopyForm;
use super::guard;
use super::journal::JournalEvent;
use super::page::{INDEX, find_file};
use super::world::World;
use crate::fake::loopback;
use crate::local::Error;
use crate::local::stories::StoryAction;
use crate::{clock, webhook};

/// The largest call of the page: a configuration.
const MAX_CALL_BYTES: usize = 256 * 1024;
/// The webhook refuses bodies over 256 KiB; this much is read to find out.
const MAX_WEBHOOK_BYTES: usize = 256 * 1024 + 1;

/// What the page is answered if something cannot be done.
struct PageCallError(Error);

impl IntoResponse for PageCallError {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": self.0.to_string()}))).into_response()
    }
}

impl<E: Into<Error>> From<E> for PageCallError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

type PageCallResult = Result<Json<Value>, PageCallError>;

/// All addresses.
pub(super) fn router(world: Arc<World>) -> Router {
    let calls = Router::new()
        .route("/api/events", get(stream_events))
        .route("/api/act", post(act))
        .route("/api/step", post(play_step))
        .route("/api/stories", get(list_stories))
        .route("/api/open", post(open_scenario))
        .route("/api/share", post(share))
        .route("/api/reset", post(reset))
        .route("/api/validate", post(validate))
        .route("/api/tamper", post(tamper))
        .route("/api/copy", post(copy))
        .route("/api/export", get(export))
        .layer(DefaultBodyLimit::max(MAX_CALL_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&world), guard::require_token));
    let hook = Router::new().fallback(call_webhook).with_state(Arc::clone(&world));
    let hook = world.recorder().record("webhook", hook).layer(middleware::from_fn(loopback::refuse_web_pages));
    let page = middleware::from_fn_with_state(Arc::clone(&world), serve_page);
    Router::new()
        .merge(calls)
        .route("/", get(explain_address))
        .route("/page/{*path}", get(serve_file))
        .with_state(world)
        .merge(hook.layer(page))
        .layer(middleware::from_fn(guard::refuse_others))
}

/// Answers with the page if the path is the token. Everything else is for the webhook.
async fn serve_page(State(world): State<Arc<World>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    if !guard::is_equal(first.as_bytes(), world.token().as_bytes()) {
        return next.run(request).await;
    }
    if rest.is_empty() && request.method() == Method::GET {
        ([(CONTENT_TYPE, "text/html; charset=utf-8")], INDEX).into_response()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

/// The files are the same for everybody, so they need no token.
async fn serve_file(Path(path): Path<String>) -> Response {
    match find_file(&path) {
        Some(file) => ([(CONTENT_TYPE, file.content_type)], file.text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Where a page comes that was loaded again: its address has no token any more.
async fn explain_address() -> Response {
    (StatusCode::NOT_FOUND, "Open the address that `peergate playground` printed.\n").into_response()
}

/// Hands a request to the webhook's function. If the function is killed, the answer is that of a gateway.
async fn call_webhook(State(world): State<Arc<World>>, request: Request) -> Response {
    if request.method() == Method::CONNECT {
        return StatusCode::FORBIDDEN.into_response();
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_WEBHOOK_BYTES).await;
    // A longer body is cut. It is still too large.
    let body = body.unwrap_or_else(|_| Bytes::from(vec![0; MAX_WEBHOOK_BYTES]));
    let (app, kill_switch) = world.webhook();
    let request = Request::from_parts(parts, body);
    tokio::select! {
        biased;
        () = kill_switch.struck() => {
            tracing::warn!(outcome = "killed", "killed the webhook after it had stored a decision");
            world.mark_dirty();
            (StatusCode::BAD_GATEWAY, Json(json!({"message": "Internal Server Error"}))).into_response()
        }
        response = webhook::handle_request(&app, request, clock::now()) => response.into_response(),
    }
}

/// The events after the one that the page saw last, and each further one.
async fn stream_events(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let position = StreamPosition { signs: world.journal().subscribe(), last: last.unwrap_or(0), world };
    let events = stream::unfold(position, |mut position| async move {
        loop {
            position.signs.borrow_and_update();
            let events = position.world.journal().events_after(position.last);
            if let Some(latest) = events.last() {
                position.last = latest.id;
                return Some((Ok::<_, Infallible>(event_text(&events)), position));
            }
            position.signs.changed().await.ok()?;
        }
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

struct StreamPosition {
    signs: watch::Receiver<u64>,
    last: u64,
    world: Arc<World>,
}

/// Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>
fn event_text(events: &[JournalEvent]) -> String {
    // JSON has no line breaks.
    let text =
        |event: &JournalEvent| format!("id: {}\nevent: {}\ndata: {}\n\n", event.id, event.kind.name(), event.data);
    events.iter().map(text).collect()
}

async fn act(State(world): State<Arc<World>>, Json(action): Json<StoryAction>) -> PageCallResult {
    Ok(Json(world.act(&action).await?))
}

async fn play_step(State(world): State<Arc<World>>) -> PageCallResult {
    Ok(Json(world.play_step().await?))
}

async fn list_stories() -> Json<Value> {
    Json(json!(crate::local::stories::stories()))
}

#[derive(Deserialize)]
struct ScenarioText {
    text: String,
}

async fn open_scenario(
    State(world): State<Arc<World>>,
    Json(ScenarioText { text }): Json<ScenarioText>,
) -> PageCallResult {
    Ok(Json(world.open(&text).await?))
}

async fn share(State(world): State<Arc<World>>) -> PageCallResult {
    Ok(Json(json!({"text": world.share().await?})))
}

async fn reset(State(world): State<Arc<World>>) -> PageCallResult {
    world.reset().await?;
    Ok(Json(json!({})))
}

async fn validate(State(world): State<Arc<World>>, text: String) -> PageCallResult {
    Ok(Json(world.validate(&text).await))
}

#[derive(Deserialize)]
struct TamperedEntry {
    entry: usize,
}

async fn tamper(State(world): State<Arc<World>>, Json(TamperedEntry { entry }): Json<TamperedEntry>) -> PageCallResult {
    Ok(Json(world.tamper(entry).await?))
}

#[derive(Deserialize)]
struct CopiedExchange {
    number: u64,
    form: CopyForm,
}

async fn copy(
    State(world): State<Arc<World>>,
    Json(CopiedExchange { number, form }): Json<CopiedExchange>,
) -> PageCallResult {
    Ok(Json(json!({"text": world.copy(number, form).await?})))
}

async fn export(State(world): State<Arc<World>>) -> PageCallResult {
    Ok(Json(world.export().await?))
}

//! Records the HTTP exchanges that reach a server on this machine, where they arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock;

/// The largest body that is recorded. Larger ones are refused.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The most exchanges that wait for their reader. They are read at once, so this many wait only if somebody floods a server.
const MAX_WAITING_EXCHANGES: usize = 256;

/// A request, and what came of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The server that received it, e.g. `slack`.
    pub server: &'static str,
    /// The step during which it arrived.
    pub step: u32,
    /// When it arrived, by the clock of the sandbox.
    pub at: Timestamp,
    /// The HTTP method.
    pub method: String,
    /// With the query.
    pub path: String,
    /// The headers of the request.
    pub headers: HeaderMap,
    /// The body of the request.
    pub body: Bytes,
    /// The HTTP status of the answer. `None` if there was none.
    pub status: Option<u16>,
    /// The body of the answer.
    pub answer: Bytes,
    /// The time until the answer.
    pub took: Duration,
}

impl Exchange {
    /// Its bytes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        self.path.len() + headers + self.body.len() + self.answer.len()
    }
}

/// Where servers report their exchanges.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Exchange>,
    step: Arc<AtomicU32>,
}

impl Recorder {
    /// A recorder, and what it recorded.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Exchange>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_EXCHANGES);
        (Self { sender, step: Arc::default() }, receiver)
    }

    /// Begins a step. What arrives from now on belongs to it.
    pub fn begin_step(&self, step: u32) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// The router of the server `name`, whose exchanges are recorded.
    pub fn record(&self, name: &'static str, router: Router) -> Router {
        let server = RecordedServer { name, recorder: self.clone() };
        router.layer(middleware::from_fn_with_state(server, record_exchange))
    }
}

#[derive(Debug, Clone)]
struct RecordedServer {
    name: &'static str,
    recorder: Recorder,
}

/// Reports the exchange when it is dropped, so that a request whose sender gives up is recorded, too.
struct OpenExchange {
    exchange: Exchange,
    began: Instant,
    sender: mpsc::Sender<Exchange>,
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        self.exchange.took = self.began.elapsed();
        // It is dropped if too many are waiting, and when the playground ends.
        let _ = self.sender.try_send(self.exchange.clone());
    }
}

async fn record_exchange(State(server): State<RecordedServer>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let exchange = Exchange {
        server: server.name,
        step: server.recorder.step.load(Ordering::Relaxed),
        at: clock::now(),
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: parts.headers.clone(),
        body: body.clone(),
        status: None,
        answer: Bytes::new(),
        took: Duration::ZERO,
    };
    let mut open = OpenExchange { exchange, began: Instant::now(), sender: server.recorder.sender.clone() };
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (parts, body) = response.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    open.exchange.status = Some(parts.status.as_u16());
    open.exchange.answer = body.clone();
    Response::from_parts(parts, Body::from(body))
}

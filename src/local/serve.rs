//! Both functions in one process, without Lambda: for people with one machine.

use std::convert::Infallible;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::CONNECTION;
use ::http::{Request, StatusCode};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::{Error, table};
use crate::app::App;
use crate::config::{Config, Environment};
use crate::doctor::FirstTick;
use crate::logging::Chain;
use crate::watch::Tick;
use crate::{aws, clock, http, watch, webhook};

/// The webhook refuses bodies over 256 KiB; this much is read to find out.
const READ_BYTES: usize = 256 * 1024 + 1;
/// For the first line and the headers of a request together.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The pause after a failed accept of a connection, e.g. without a free file descriptor.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);
/// What the last request of a connection may take besides its headers and body: an answer takes 6 s at most.
const TO_ANSWER: Duration = Duration::from_secs(15);
/// Between two ticks.
const PAUSE: Duration = Duration::from_secs(1);
/// As Lambda would give one.
const TICK: Duration = Duration::from_mins(1);
/// Between two discoveries.
pub const DISCOVERY: Duration = Duration::from_mins(1);

/// The app of the process's environment, with its table embedded in a file.
pub async fn app(store: &Path) -> Result<App, Error> {
    let mut environment = environment()?;
    let endpoint = table::embed(Some(store)).await?;
    let sdk = aws::sdk_config(&environment.aws, &http::client()?);
    table::create(&sdk, &endpoint, &environment.table).await?;
    environment.aws.dynamodb_endpoint = Some(endpoint);
    Ok(App::new(&environment, Config::load(&environment.config)?)?)
}

/// The process's environment. What only AWS would need has defaults.
pub(super) fn environment() -> Result<Environment, Error> {
    let default = |name: &str| match name {
        "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("local".to_owned()),
        "PEERGATE_SECRETS" => Some("file:peergate.secrets.json".to_owned()),
        _ => None,
    };
    #[expect(clippy::disallowed_methods, reason = "the environment of the local tool, read once")]
    Ok(Environment::read(|name| std::env::var(name).ok().or_else(|| default(name)))?)
}

/// Answers approvals on `listener`, and watches, until the process ends.
pub async fn serve(app: Arc<App>, listener: TcpListener) -> Result<(), Error> {
    app.prewarm().await?;
    tokio::spawn(watch(Arc::clone(&app), DISCOVERY));
    answer(app, listener).await
}

/// Limits on what strangers can use of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For the headers of a request, and between two requests of a connection.
    pub headers: Duration,
    /// For the body of a request.
    pub body: Duration,
    /// How long a connection takes new requests.
    pub lifetime: Duration,
    /// How many connections there are at once. Others wait until one ends.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(10),
            body: Duration::from_secs(10),
            lifetime: Duration::from_mins(1),
            connections: 512,
        }
    }
}

/// Answers approvals on `listener` until the task ends.
pub async fn answer(app: Arc<App>, listener: TcpListener) -> Result<(), Error> {
    answer_within(app, listener, Limits::default()).await
}

/// As [`answer`], within other limits.
pub async fn answer_within(app: Arc<App>, listener: TcpListener, limits: Limits) -> Result<(), Error> {
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(|_| "the server takes no more connections")?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = Arc::clone(&app);
                tokio::spawn(async move {
                    answer_connection(app, stream, limits).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(outcome = "not_connected", %error, "could not accept a connection");
                sleep(AFTER_FAILED_ACCEPT).await;
            }
        }
    }
}

/// Answers the requests of a connection. Closes a silent connection; finishes the current request before it closes an old
/// one.
async fn answer_connection(app: Arc<App>, stream: TcpStream, limits: Limits) {
    let service = service_fn(|request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(handle(&app, request, limits.body).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.headers).max_buf_size(MAX_HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Strangers break connections; each request has its own line in the log.
        _ = connection.as_mut() => return,
        () = sleep(limits.lifetime) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(limits.headers + limits.body + TO_ANSWER, connection).await;
}

async fn handle(app: &App, request: Request<Incoming>, patience: Duration) -> Response {
    let (parts, body) = request.into_parts();
    // A body that is longer is cut: still too large.
    let body = match timeout(patience, axum::body::to_bytes(Body::new(body), READ_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => Bytes::from(vec![0; READ_BYTES]),
        Err(_elapsed) => {
            let status = StatusCode::REQUEST_TIMEOUT;
            tracing::warn!(outcome = "slow-body", http.status = status.as_u16(), "a request body took too long");
            return (status, [(CONNECTION, "close")]).into_response();
        }
    };
    webhook::handle(app, Request::from_parts(parts, body), clock::now()).await.into_response()
}

/// Ticks until the task ends, and discovers every so often.
pub async fn watch(app: Arc<App>, discovery: Duration) {
    let mut discover_at = Instant::now();
    let questions = Arc::clone(&app);
    tokio::spawn(async move { FirstTick::default().ask(&questions).await });
    loop {
        let discover = Instant::now() >= discover_at;
        if discover {
            discover_at = Instant::now() + discovery;
        }
        let tick = if discover { Tick::SCHEDULED } else { Tick::DUE };
        if let Err(error) = watch::tick(&app, tick, Instant::now() + TICK).await {
            tracing::error!(outcome = "store_failed", error = %Chain(&error), "the tick failed");
        }
        sleep(PAUSE).await;
    }
}

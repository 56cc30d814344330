//! `peergate serve` and `watch`: both functions in one process, without Lambda.

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
use crate::doctor::StartupCheck;
use crate::logging::ErrorChain;
use crate::watch::Tick;
use crate::{aws, clock, http, watch, webhook};

/// The webhook refuses bodies over 256 KiB; this much is read to find out.
const MAX_READ_BYTES: usize = 256 * 1024 + 1;
/// The largest first line and headers of a request together.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The pause after a connection could not be accepted, e.g. because there is no free file descriptor.
const FAILED_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The time for the reply to the last request of a connection. A reply takes 6 s at most.
const LAST_REPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// The pause between two ticks.
const TICK_PAUSE: Duration = Duration::from_secs(1);
/// The time for a tick, as in Lambda.
const TICK_TIMEOUT: Duration = Duration::from_mins(1);
/// The time between two ticks that discover requests.
pub const DISCOVERY_INTERVAL: Duration = Duration::from_mins(1);

/// Builds the app from the environment of the process, with the embedded table of a file.
pub async fn build_app(store: &Path) -> Result<App, Error> {
    let mut environment = local_environment()?;
    let endpoint = table::spawn_table(Some(store)).await?;
    let sdk = aws::sdk_config(&environment.aws, http::new_client()?);
    table::create_table(&sdk, &endpoint, &environment.table).await?;
    environment.aws.dynamodb_endpoint = Some(endpoint);
    Ok(App::new(&environment, Config::load(&environment.config)?)?)
}

/// The environment of the process, with defaults for what only AWS needs.
pub(super) fn local_environment() -> Result<Environment, Error> {
    let default = |name: &str| match name {
        "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("local".to_owned()),
        "PEERGATE_SECRETS" => Some("file:peergate.secrets.json".to_owned()),
        _ => None,
    };
    #[expect(clippy::disallowed_methods, reason = "the environment of the local tool, read once")]
    Ok(Environment::from_variables(|name| std::env::var(name).ok().or_else(|| default(name)))?)
}

/// Runs the webhook on `listener` and the watcher, until the process ends.
pub async fn serve_and_watch(app: Arc<App>, listener: TcpListener) -> Result<(), Error> {
    app.prewarm().await?;
    tokio::spawn(run_watcher(Arc::clone(&app), DISCOVERY_INTERVAL));
    serve_webhook(app, listener).await
}

/// Limits for callers that are not authenticated yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// The time for the headers of a request, and the longest pause between two requests of a connection.
    pub header_timeout: Duration,
    /// The time for the body of a request.
    pub body_timeout: Duration,
    /// After this time, a connection takes no new requests.
    pub connection_lifetime: Duration,
    /// The most connections at the same time. Others wait until one ends.
    pub max_connections: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            connection_lifetime: Duration::from_mins(1),
            max_connections: 512,
        }
    }
}

/// Runs the webhook on `listener` until the task ends.
pub async fn serve_webhook(app: Arc<App>, listener: TcpListener) -> Result<(), Error> {
    serve_webhook_within(app, listener, ServerLimits::default()).await
}

/// Like [`serve_webhook`], but with other limits.
pub async fn serve_webhook_within(app: Arc<App>, listener: TcpListener, limits: ServerLimits) -> Result<(), Error> {
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.map_err(|_| "the server takes no more connections")?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = Arc::clone(&app);
                tokio::spawn(async move {
                    serve_connection(app, stream, limits).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(outcome = "not_connected", %error, "could not accept a connection");
                sleep(FAILED_ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves the requests of a connection. It closes a silent connection at once, and an old one after its current request.
async fn serve_connection(app: Arc<App>, stream: TcpStream, limits: ServerLimits) {
    let service = service_fn(|request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(handle_request(&app, request, limits.body_timeout).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(MAX_HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Errors of a connection are not logged: anybody can cause them, and each request has its own log line.
        _ = connection.as_mut() => return,
        () = sleep(limits.connection_lifetime) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(limits.header_timeout + limits.body_timeout + LAST_REPLY_TIMEOUT, connection).await;
}

async fn handle_request(app: &App, request: Request<Incoming>, body_timeout: Duration) -> Response {
    let (parts, body) = request.into_parts();
    // A longer body is cut. It is still too large.
    let body = match timeout(body_timeout, axum::body::to_bytes(Body::new(body), MAX_READ_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => Bytes::from(vec![0; MAX_READ_BYTES]),
        Err(_elapsed) => {
            let status = StatusCode::REQUEST_TIMEOUT;
            tracing::warn!(outcome = "slow-body", http.status = status.as_u16(), "the body of a request took too long");
            return (status, [(CONNECTION, "close")]).into_response();
        }
    };
    webhook::handle_request(app, Request::from_parts(parts, body), clock::now()).await.into_response()
}

/// Runs the watcher until the task ends. A tick discovers requests if the last discovery is an interval ago.
pub async fn run_watcher(app: Arc<App>, discovery_interval: Duration) {
    let mut discover_at = Instant::now();
    let checked_app = Arc::clone(&app);
    tokio::spawn(async move { StartupCheck::default().run_once(&checked_app).await });
    loop {
        let discover = Instant::now() >= discover_at;
        if discover {
            discover_at = Instant::now() + discovery_interval;
        }
        let tick = if discover { Tick::SCHEDULED } else { Tick::DUE };
        if let Err(error) = watch::tick(&app, tick, Instant::now() + TICK_TIMEOUT).await {
            tracing::error!(outcome = "store_failed", error = %ErrorChain(&error), "could not finish the tick");
        }
        sleep(TICK_PAUSE).await;
    }
}

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
use crate::doctor::StartupCheck;
use crate::logging::Chain;
use crate::watch::Tick;
use crate::{aws, clock, http, watch, webhook};

/// The webhook refuses bodies over 256 KiB; this much is read to find out.
const MAX_READ_BYTES: usize = 256 * 1024 + 1;
/// For the first line and the headers of a request together.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The pause after a failed accept of a connection, e.g. without a free file descriptor.
const FAILED_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What the last request of a connection may take besides its headers and body: an answer takes 6 s at most.
const LAST_REPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two ticks.
const TICK_PAUSE: Duration = Duration::from_secs(1);
/// As Lambda would give one.
const TICK_TIMEOUT: Duration = Duration::from_mins(1);
/// Between two discoveries.
pub const DISCOVERY_INTERVAL: Duration = Duration::from_mins(1);

/// The app of the process's environment, with its table embedded in a file.
pub async fn build_app(store: &Path) -> Result<App, Error> {
    let mut environment = local_environment()?;
    let endpoint = table::spawn_table(Some(store)).await?;
    let sdk = aws::sdk_config(&environment.aws, http::new_client()?);
    table::create_table(&sdk, &endpoint, &environment.table).await?;
    environment.aws.dynamodb_endpoint = Some(endpoint);
    Ok(App::new(&environment, Config::load(&environment.config)?)?)
}

/// The process's environment. What only AWS would need has defaults.
pub(super) fn local_environment() -> Result<Environment, Error> {
    let default = |name: &str| match name {
        "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("local".to_owned()),
        "PEERGATE_SECRETS" => Some("file:peergate.secrets.json".to_owned()),
        _ => None,
    };
    #[expect(clippy::disallowed_methods, reason = "the environment of the local tool, read once")]
    Ok(Environment::from_variables(|name| std::env::var(name).ok().or_else(|| default(name)))?)
}

/// Answers approvals on `listener`, and watches, until the process ends.
pub async fn serve_and_watch(app: Arc<App>, listener: TcpListener) -> Result<(), Error> {
    app.prewarm().await?;
    tokio::spawn(run_watcher(Arc::clone(&app), DISCOVERY_INTERVAL));
    serve_webhook(app, listener).await
}

/// Limits on what strangers can use of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// For the headers of a request, and between two requests of a connection.
    pub header_timeout: Duration,
    /// For the body of a request.
    pub body_timeout: Duration,
    /// How long a connection takes new requests.
    pub connection_lifetime: Duration,
    /// How many connections there are at once. Others wait until one ends.
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

/// Answers approvals on `listener` until the task ends.
pub async fn serve_webhook(app: Arc<App>, listener: TcpListener) -> Result<(), Error> {
    serve_webhook_within(app, listener, ServerLimits::default()).await
}

/// As [`answer`], within other limits.
pub async fn serve_webhook_within(app: Arc<App>, listener: TcpListener, limits: ServerLimits) -> Result<(), Error> {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(|_| "the server takes no more connections")?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = Arc::clone(&app);
                tokio::spawn(async move {
                    serve_connection(app, stream, limits).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(outcome = "not_connected", %error, "could not accept a connection");
                sleep(FAILED_ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the requests of a connection. Closes a silent connection; finishes the current request before it closes an old
/// one.
async fn serve_connection(app: Arc<App>, stream: TcpStream, limits: ServerLimits) {
    let service = service_fn(|request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(handle_request(&app, request, limits.body_timeout).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(MAX_HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Strangers break connections; each request has its own line in the log.
        _ = connection.as_mut() => return,
        () = sleep(limits.connection_lifetime) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(limits.header_timeout + limits.body_timeout + LAST_REPLY_TIMEOUT, connection).await;
}

async fn handle_request(app: &App, request: Request<Incoming>, body_timeout: Duration) -> Response {
    let (parts, body) = request.into_parts();
    // A body that is longer is cut: still too large.
    let body = match timeout(body_timeout, axum::body::to_bytes(Body::new(body), MAX_READ_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => Bytes::from(vec![0; MAX_READ_BYTES]),
        Err(_elapsed) => {
            let status = StatusCode::REQUEST_TIMEOUT;
            tracing::warn!(outcome = "slow-body", http.status = status.as_u16(), "a request body took too long");
            return (status, [(CONNECTION, "close")]).into_response();
        }
    };
    webhook::handle_request(app, Request::from_parts(parts, body), clock::now()).await.into_response()
}

/// Ticks until the task ends, and discovers every so often.
pub async fn run_watcher(app: Arc<App>, discovery_interval: Duration) {
    let mut discover_at = Instant::now();
    let questions = Arc::clone(&app);
    tokio::spawn(async move { StartupCheck::default().run_once(&questions).await });
    loop {
        let discover = Instant::now() >= discover_at;
        if discover {
            discover_at = Instant::now() + discovery_interval;
        }
        let tick = if discover { Tick::SCHEDULED } else { Tick::DUE };
        if let Err(error) = watch::tick(&app, tick, Instant::now() + TICK_TIMEOUT).await {
            tracing::error!(outcome = "store_failed", error = %Chain(&error), "the tick failed");
        }
        sleep(TICK_PAUSE).await;
    }
}

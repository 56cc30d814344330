//! The webhook on a socket, and the watcher in a loop: both functions without Lambda.

use std::convert::Infallible;
use std::future::pending;
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
use tokio::sync::{Semaphore, watch as channel};
use tokio::time::{Instant, sleep, timeout};

use super::Error;
use super::reload::CurrentApp;
use crate::app::App;
use crate::doctor::StartupCheck;
use crate::logging::ErrorChain;
use crate::watch::Tick;
use crate::{clock, watch, webhook};

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
pub(super) const TICK_TIMEOUT: Duration = Duration::from_mins(1);
/// The time between two ticks that discover requests.
pub const DISCOVERY_INTERVAL: Duration = Duration::from_mins(1);

/// A request to stop, which another task makes. It is never made if the sender is gone.
#[derive(Debug, Clone)]
pub struct Stop(channel::Receiver<bool>);

impl Stop {
    /// Stops once `sender` holds `true`.
    #[must_use]
    pub fn on(sender: &channel::Sender<bool>) -> Self {
        Self(sender.subscribe())
    }

    /// Never stops.
    #[must_use]
    pub fn never() -> Self {
        Self(channel::channel(false).1)
    }

    async fn requested(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            pending::<()>().await;
        }
    }
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
pub async fn serve_webhook(app: impl Into<CurrentApp>, listener: TcpListener) -> Result<(), Error> {
    serve_webhook_until(app, listener, ServerLimits::default(), Stop::never()).await
}

/// Like [`serve_webhook`], but with other limits. On `stop`, it takes no new connection, and ends when the requests that
/// have begun are answered.
pub async fn serve_webhook_until(
    app: impl Into<CurrentApp>,
    listener: TcpListener,
    limits: ServerLimits,
    mut stop: Stop,
) -> Result<(), Error> {
    let app = app.into();
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.requested() => break,
        };
        let permit = permit.map_err(|_| "the server takes no more connections")?;
        match accepted {
            Ok((stream, _)) => {
                let (app, stop) = (app.clone(), stop.clone());
                tokio::spawn(async move {
                    serve_connection(app, stream, limits, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(outcome = "not_connected", %error, "could not accept a connection");
                sleep(FAILED_ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // All permits are back when all connections have ended.
    let all = u32::try_from(limits.max_connections).unwrap_or(u32::MAX);
    permits.acquire_many(all).await.map(drop).map_err(|_| "the server takes no more connections".into())
}

/// Serves the requests of a connection. It closes a silent connection at once, and an old one after its current request.
async fn serve_connection(app: CurrentApp, stream: TcpStream, limits: ServerLimits, mut stop: Stop) {
    let service = service_fn(|request| {
        let app = app.get();
        async move { Ok::<_, Infallible>(handle_request(&app, request, limits.body_timeout).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(MAX_HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Errors of a connection are not logged: anybody can cause them, and each request has its own log line.
        _ = connection.as_mut() => return,
        () = sleep(limits.connection_lifetime) => {}
        () = stop.requested() => {}
    }
    connection.as_mut().graceful_shutdown();
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
pub async fn run_watcher(app: impl Into<CurrentApp>, discovery_interval: Duration) {
    run_watcher_until(app, discovery_interval, Stop::never()).await;
}

/// Like [`run_watcher`], but ends on `stop`, after the current tick.
pub async fn run_watcher_until(app: impl Into<CurrentApp>, discovery_interval: Duration, mut stop: Stop) {
    let app = app.into();
    let mut discover_at = Instant::now();
    let checked_app = app.get();
    tokio::spawn(async move { StartupCheck::default().run_once(&checked_app).await });
    loop {
        let discover = Instant::now() >= discover_at;
        if discover {
            discover_at = Instant::now() + discovery_interval;
        }
        let tick = if discover { Tick::SCHEDULED } else { Tick::DUE };
        if let Err(error) = watch::tick(&app.get(), tick, Instant::now() + TICK_TIMEOUT).await {
            tracing::error!(outcome = "store_failed", error = %ErrorChain(&error), "could not finish the tick");
        }
        tokio::select! {
            () = sleep(TICK_PAUSE) => {}
            () = stop.requested() => return,
        }
    }
}

//! Both functions in one process, without Lambda: for people with one machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::{Error, table};
use crate::app::App;
use crate::config::{Config, Environment};
use crate::logging::Chain;
use crate::watch::Tick;
use crate::{aws, clock, http, watch, webhook};

/// The webhook refuses bodies over 256 KiB; this much is read to find out.
const READ_BYTES: usize = 256 * 1024 + 1;
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

/// Answers approvals on `listener` until the task ends.
pub async fn answer(app: Arc<App>, listener: TcpListener) -> Result<(), Error> {
    axum::serve(listener, Router::new().fallback(handle).with_state(app)).await?;
    Ok(())
}

async fn handle(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    // A body that is longer is cut: still too large.
    let body = match axum::body::to_bytes(body, READ_BYTES).await {
        Ok(body) => body,
        Err(_) => Bytes::from(vec![0; READ_BYTES]),
    };
    webhook::handle(&app, Request::from_parts(parts, body), clock::now()).await.into_response()
}

/// Ticks until the task ends, and discovers every so often.
pub async fn watch(app: Arc<App>, discovery: Duration) {
    let mut discover_at = Instant::now();
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

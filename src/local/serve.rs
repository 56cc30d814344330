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
use crate::{aws, clock, http, watch, webhook};

/// The webhook refuses bodies over 256 KiB; this much is read to find out.
const READ_BYTES: usize = 256 * 1024 + 1;
/// Between two ticks.
const PAUSE: Duration = Duration::from_secs(1);
/// As Lambda would give one.
const TICK: Duration = Duration::from_mins(1);

/// The app of the process's environment, with its table embedded in a file. What only AWS would need has defaults.
pub async fn app(store: &Path) -> Result<App, Error> {
    let default = |name: &str| match name {
        "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("local".to_owned()),
        "PEERGATE_SECRETS" => Some("file:peergate.secrets.json".to_owned()),
        _ => None,
    };
    #[expect(clippy::disallowed_methods, reason = "the environment of the local tool, read once")]
    let mut environment = Environment::read(|name| std::env::var(name).ok().or_else(|| default(name)))?;
    let endpoint = table::embed(Some(store)).await?;
    let sdk = aws::sdk_config(&environment.aws, &http::client()?);
    table::create(&sdk, &endpoint, &environment.table).await?;
    environment.aws.dynamodb_endpoint = Some(endpoint);
    Ok(App::new(&environment, Config::load(&environment.config)?)?)
}

/// Answers approvals on `listener`, and watches, until the process ends.
pub async fn serve(app: Arc<App>, listener: TcpListener) -> Result<(), Error> {
    app.prewarm().await?;
    tokio::spawn(watch(Arc::clone(&app)));
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

/// Ticks until the task ends.
pub async fn watch(app: Arc<App>) {
    loop {
        if let Err(error) = watch::tick(&app, 1, Instant::now() + TICK).await {
            tracing::error!(outcome = "store_failed", error = %Chain(&error), "the tick failed");
        }
        sleep(PAUSE).await;
    }
}

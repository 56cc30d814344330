//! The Lambda function that follows connections and tells the channels. The story is [`peergate::watch`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use jiff::Timestamp;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use peergate::app::App;
use peergate::config::Environment;
use peergate::metrics::Collector;
use peergate::{clock, doctor, logging, trigger, watch};
use tokio::time::Instant;
use tracing::Instrument;

/// Lambda always says until when we may work; cargo-lambda's deadline lies in 1970. This is the template's timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);

/// What the doctor leaves of the time: its report is to be heard.
const REPORT_RESERVE: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // A task of its own: what it waits for wakes it without a system call.
    tokio::spawn(run_watcher()).await?
}

async fn run_watcher() -> Result<(), Error> {
    logging::start();
    let metrics = Collector::start(lambda_runtime::Config::from_env().function_name)?;
    let app = Arc::new(App::from_process().inspect_err(|error| logging::log_not_started(error))?);
    app.prewarm().await.inspect_err(|error| logging::log_not_started(error))?;
    let first_tick = Arc::new(doctor::StartupCheck::default());
    lambda_runtime::run(service_fn(move |event: LambdaEvent<trigger::Trigger>| {
        let (app, first_tick) = (Arc::clone(&app), Arc::clone(&first_tick));
        let LambdaEvent { payload, context } = event;
        let span = logging::invocation_span(&context.request_id, context.xray_trace_id.as_deref());
        async move {
            let deadline = Timestamp::try_from(context.deadline()).unwrap_or_else(|_| clock::now());
            let left = Duration::try_from(deadline.duration_since(clock::now())).unwrap_or(DEFAULT_TIMEOUT);
            let answer = match payload.into_tick() {
                Ok(tick) => {
                    let ticked = watch::tick(&app, tick, Instant::now() + left);
                    join(ticked, first_tick.run_once(&app)).await.0.map(|_| None)
                }
                Err(wish) => {
                    let report = doctor::examine_deployment(
                        Environment::from_process(),
                        &wish,
                        Instant::now() + left.saturating_sub(REPORT_RESERVE),
                    )
                    .await;
                    tracing::info!(outcome = "examined", is_well = report.is_healthy(), "examined");
                    Ok(Some(report.to_json()))
                }
            };
            metrics.flush(&context.request_id);
            answer.map_err(|error| {
                tracing::error!(outcome = "store_failed", error = %logging::Chain(&error), "the tick failed");
                Diagnostic { error_type: "StoreFailed".into(), error_message: error.to_string() }
            })
        }
        .instrument(span)
    }))
    .await
}

//! The Lambda function that discovers requests, follows connections and notifies channels. The story is in
//! [`peergate::watch`].

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

/// The timeout of the template. It is used if the deadline is in the past, as under cargo-lambda.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);

/// The time that the doctor leaves, so that its report arrives.
const REPORT_RESERVE: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // A separate task is woken without a system call.
    tokio::spawn(run_watcher()).await?
}

async fn run_watcher() -> Result<(), Error> {
    logging::start();
    let metrics = Collector::start(lambda_runtime::Config::from_env().function_name)?;
    let app = Arc::new(App::from_process().inspect_err(|error| logging::log_not_started(error))?);
    app.prewarm().await.inspect_err(|error| logging::log_not_started(error))?;
    let startup_check = Arc::new(doctor::StartupCheck::default());
    lambda_runtime::run(service_fn(move |event: LambdaEvent<trigger::Trigger>| {
        let (app, startup_check) = (Arc::clone(&app), Arc::clone(&startup_check));
        let LambdaEvent { payload, context } = event;
        let span = logging::invocation_span(&context.request_id, context.xray_trace_id.as_deref());
        async move {
            let deadline = Timestamp::try_from(context.deadline()).unwrap_or_else(|_| clock::now());
            let left = Duration::try_from(deadline.duration_since(clock::now())).unwrap_or(DEFAULT_TIMEOUT);
            let answer = match payload.into_tick() {
                Ok(tick) => {
                    let ticked = watch::tick(&app, tick, Instant::now() + left);
                    join(ticked, startup_check.run_once(&app)).await.0.map(|_| None)
                }
                Err(options) => {
                    let report = doctor::examine_deployment(
                        Environment::from_process(),
                        &options,
                        Instant::now() + left.saturating_sub(REPORT_RESERVE),
                    )
                    .await;
                    tracing::info!(
                        outcome = "examined",
                        is_well = report.is_healthy(),
                        "the doctor examined the deployment"
                    );
                    Ok(Some(report.to_json()))
                }
            };
            metrics.flush(&context.request_id);
            answer.map_err(|error| {
                tracing::error!(outcome = "store_failed", error = %logging::ErrorChain(&error), "could not finish the tick");
                Diagnostic { error_type: "StoreFailed".into(), error_message: error.to_string() }
            })
        }
        .instrument(span)
    }))
    .await
}

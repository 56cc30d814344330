//! The Lambda function that answers requests from chat. The story is in [`peergate::webhook`].

use std::convert::Infallible;
use std::sync::Arc;

use lambda_http::lambda_runtime::{self, Error, LambdaEvent, service_fn};
use peergate::app::App;
use peergate::metrics::Collector;
use peergate::{clock, envelope, logging, webhook};
use tracing::Instrument;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // A separate task is woken without a system call.
    tokio::spawn(run_webhook()).await?
}

async fn run_webhook() -> Result<(), Error> {
    logging::start();
    let metrics = Collector::start(lambda_runtime::Config::from_env().function_name)?;
    let app = Arc::new(App::from_process().inspect_err(|error| logging::log_not_started(error))?);
    app.prewarm().await.inspect_err(|error| logging::log_not_started(error))?;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<envelope::HttpEvent>| {
        let app = Arc::clone(&app);
        let LambdaEvent { payload, context } = event;
        let span = logging::invocation_span(&context.request_id, context.xray_trace_id.as_deref());
        async move {
            let response = webhook::handle_event(&app, payload, clock::now()).await;
            metrics.flush(&context.request_id);
            Ok::<_, Infallible>(envelope::into_lambda_response(response))
        }
        .instrument(span)
    }))
    .await
}

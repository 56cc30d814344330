//! The Lambda function that answers approvals. The story is [`peergate::webhook`].

use std::convert::Infallible;
use std::sync::Arc;

use lambda_http::lambda_runtime::{self, Error, LambdaEvent, service_fn};
use peergate::app::App;
use peergate::{clock, envelope, logging, webhook};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // A task of its own: what it waits for wakes it without a system call.
    tokio::spawn(answer()).await?
}

async fn answer() -> Result<(), Error> {
    logging::start();
    let app = Arc::new(App::from_process().inspect_err(|error| logging::not_started(error))?);
    app.prewarm().await.inspect_err(|error| logging::not_started(error))?;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<envelope::Event>| {
        let app = Arc::clone(&app);
        async move {
            let response = webhook::handle_event(&app, event.payload, clock::now()).await;
            Ok::<_, Infallible>(envelope::close(response))
        }
    }))
    .await
}

//! The Lambda function that answers approvals. The story is [`peergate::webhook`].

use std::convert::Infallible;

use lambda_http::lambda_runtime::{self, Error, LambdaEvent, service_fn};
use peergate::app::App;
use peergate::{clock, envelope, logging, webhook};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::start();
    let app = App::from_process().inspect_err(|error| logging::not_started(error))?;
    app.prewarm().await.inspect_err(|error| logging::not_started(error))?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<envelope::Event>| {
        let response = webhook::handle_event(&app, event.payload, clock::now()).await;
        Ok::<_, Infallible>(envelope::close(response))
    }))
    .await
}

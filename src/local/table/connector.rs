//! Hands the requests of the SDK to the engine, in the same process.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use tokio::task::spawn_blocking;

use super::{EmbeddedTable, TableAnswer, operation_of};

impl EmbeddedTable {
    /// The HTTP client for the SDK of DynamoDB.
    pub(super) fn sdk_http_client(&self) -> SharedHttpClient {
        SharedHttpClient::new(self.clone())
    }

    pub(super) async fn answer_sdk(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let operation = operation_of(request.headers().get("x-amz-target")).to_owned();
        let body = request.body().bytes().map(<[u8]>::to_vec);
        let body = body.ok_or_else(|| ConnectorError::user("streaming bodies are not supported".into()))?;
        // Another process may hold the file for seconds.
        let answer = spawn_blocking(move || self.answer(&operation, &body)).await;
        let TableAnswer { status, body } = answer.map_err(|error| ConnectorError::other(error.into(), None))?;
        let response = ::http::Response::builder().status(status).body(SdkBody::from(body));
        let response = response.map_err(|error| ConnectorError::user(error.into()))?;
        HttpResponse::try_from(response).map_err(|error| ConnectorError::user(error.into()))
    }
}

impl HttpClient for EmbeddedTable {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for EmbeddedTable {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().answer_sdk(request))
    }
}

//! Workflows of Teams that post what a webhook receives. Their messages cannot be changed, and have no buttons of ours.
//!
//! Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook>

use serde_json::Value;

use super::WorkflowChannel;
use super::card::render_for_workflow;
use crate::chat::delivery::{CHAT_TIMEOUT, probe_url};
use crate::chat::message::Message;
use crate::chat::{ChannelSecrets, DeliveryError, ProbeError};
use crate::secret::SecretUrl;
use crate::{clock, http as our_http};

impl WorkflowChannel {
    /// Posts a message. The answer proves only that the workflow has begun: it may still fail to post.
    pub(in crate::chat) async fn post(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        message: &Message,
    ) -> Result<(), DeliveryError> {
        post_to_workflow(http, &endpoint.url, &render_for_workflow(message)).await
    }

    /// Without a test message, this proves only that a server answers.
    pub(in crate::chat) async fn probe(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        test: Option<&Message>,
    ) -> Result<&'static str, ProbeError> {
        let Some(test) = test else { return probe_url(http, &endpoint.url).await };
        self.post(http, endpoint, test).await?;
        Ok("the workflow has begun with a test message; look whether it is in the channel")
    }
}

async fn post_to_workflow(http: &reqwest::Client, url: &SecretUrl, body: &Value) -> Result<(), DeliveryError> {
    let request = http.post(url.expose().clone()).header("content-type", "application/json").timeout(CHAT_TIMEOUT);
    let sent = request.body(body.to_string()).send().await;
    let response = sent.map_err(|error| DeliveryError::from_transport(&error.without_url()))?;
    let (status, headers) = (response.status(), response.headers().clone());
    if status.is_success() {
        return Ok(());
    }
    let body = our_http::read_body(response).await.unwrap_or_default();
    Err(DeliveryError::from_http_status(status, &headers, &body, clock::now()))
}

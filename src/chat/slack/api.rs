//! Calls of Slack's Web API.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::api_response::SlackResponse;
use super::{Config, Secrets};
use crate::chat::DeliveryError;
use crate::chat::delivery::CHAT_TIMEOUT;
use crate::http as our_http;
use crate::secret::Secret;

/// Slack's Web API, called with our bot token.
pub(super) struct SlackApi<'a> {
    http: &'a reqwest::Client,
    url: &'a Url,
    token: &'a Secret,
}

impl<'a> SlackApi<'a> {
    pub(super) fn new(
        http: &'a reqwest::Client,
        config: &'a Config,
        secrets: &'a Secrets,
    ) -> Result<Self, DeliveryError> {
        let no_token = || DeliveryError::misconfigured("there is no bot token");
        Ok(Self { http, url: &config.api, token: secrets.bot_token.as_ref().ok_or_else(no_token)? })
    }

    pub(super) async fn call_method(&self, method: &str, body: &Value) -> Result<SlackResponse, DeliveryError> {
        self.call_method_within(method, body, CHAT_TIMEOUT).await
    }

    pub(super) async fn call_method_within(
        &self,
        method: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<SlackResponse, DeliveryError> {
        self.send(json_request(self.http, self.method_url(method)?, body).timeout(timeout)).await
    }

    /// Calls a method that takes a form.
    pub(super) async fn query(&self, method: &str, fields: &[(&str, &str)]) -> Result<SlackResponse, DeliveryError> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.http.post(self.method_url(method)?).timeout(CHAT_TIMEOUT);
        self.send(request.header("content-type", "application/x-www-form-urlencoded").body(form)).await
    }

    fn method_url(&self, method: &str) -> Result<Url, DeliveryError> {
        self.url.join(method).map_err(|_| DeliveryError::misconfigured("invalid platforms.slack.api"))
    }

    /// Sends a call. Nearly every failure is an HTTP 200 with `"ok": false`.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<SlackResponse, DeliveryError> {
        let response = request.bearer_auth(self.token.expose()).send().await;
        let response = response.map_err(|error| DeliveryError::from_transport(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = our_http::read_body(response).await.map_err(|error| DeliveryError::from_transport(&error))?;
        SlackResponse::parse(status, &headers, &body)
    }
}

pub(super) fn json_request(http: &reqwest::Client, url: Url, body: &Value) -> reqwest::RequestBuilder {
    http.post(url).header("content-type", "application/json; charset=utf-8").body(body.to_string())
}

//! The bridge from Microsoft's Agents Playground to peergate. The Playground signs nothing, and peergate takes nothing
//! unsigned. So the bridge signs each activity with the key of the fake, and forwards it to a peergate that trusts this key.
//!
//! The bridge changes no activity: the Playground gets the ids of the fake from a file, and is itself the `serviceUrl`. So
//! peergate's messages reach it directly.
//!
//! Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/toolkit/debug-your-agents-playground>

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use url::Url;

use crate::chat::teams::sign_activity;
use crate::fake::Error;
use crate::http;

/// The path of the bridge: the Playground's option `--app-endpoint`.
const BRIDGE_PATH: &str = "/playground";

/// Where the bridge leads.
#[derive(Debug, Clone)]
pub(super) struct PlaygroundBridge {
    http: reqwest::Client,
    /// The app that the tokens are for.
    app: String,
    /// The path `/teams` of a peergate on this machine.
    forward: Url,
}

impl PlaygroundBridge {
    /// The bridge to the peergate at `forward`, e.g. `http://127.0.0.1:8080/teams`.
    ///
    /// # Errors
    /// When the address is not on this machine.
    pub(super) fn new(app: String, forward: &str) -> Result<Self, Error> {
        let forward = Url::parse(forward).map_err(|error| format!("{forward} is not a URL: {error}"))?;
        if forward.scheme() != "http" || !http::is_secure(&forward) {
            return Err("the bridge forwards only to http://localhost, http://127.0.0.0/8 or http://[::1]".into());
        }
        Ok(Self { http: http::new_client()?, app, forward })
    }

    /// Takes activities at `/playground`.
    pub(super) fn router(self) -> Router {
        Router::new().route(BRIDGE_PATH, post(forward_activity)).with_state(self)
    }

    /// Returns the answer of peergate.
    async fn forward(&self, body: Bytes) -> Result<Response, Error> {
        let activity: Value = serde_json::from_slice(&body)?;
        let service_url = activity.get("serviceUrl").and_then(Value::as_str).ok_or("the activity has no serviceUrl")?;
        let signed = sign_activity(&activity, &self.app, service_url)?;
        let request = self.http.post(self.forward.clone()).body(body);
        let request = signed.headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let answer = request.send().await?;
        let (status, media_type) = (answer.status(), answer.headers().get(CONTENT_TYPE).cloned());
        let mut response = Response::new(Body::from(http::read_body(answer).await?));
        *response.status_mut() = status;
        if let Some(media_type) = media_type {
            response.headers_mut().insert(CONTENT_TYPE, media_type);
        }
        Ok(response)
    }
}

async fn forward_activity(State(bridge): State<PlaygroundBridge>, body: Bytes) -> Response {
    bridge.forward(body).await.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response())
}

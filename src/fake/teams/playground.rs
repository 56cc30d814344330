//! The bridge from Microsoft's Agents Playground to peergate. The Playground signs nothing, and peergate takes nothing
//! unsigned. So the bridge signs each activity with the key of the fake, and forwards it.
//!
//! The bridge changes no activity. The Playground's file `.m365agentsplayground.yml` has the ids of the fake, and its own
//! address is the `serviceUrl`, so that peergate's messages reach it directly.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use url::Url;

use crate::chat::teams::sign_activity;
use crate::fake::{Error, loopback};
use crate::http;

/// The path for the Playground's option `--app-endpoint`.
const PATH: &str = "/playground";

/// Where the bridge leads.
#[derive(Debug, Clone)]
struct Bridge {
    http: reqwest::Client,
    /// The app that the tokens are for.
    app: String,
    /// The path `/teams` of a peergate on this machine.
    forward: Url,
}

/// The bridge to the peergate at `forward`.
///
/// # Errors
/// When the address is not on this machine.
pub(super) fn router(app: &str, forward: &str) -> Result<Router, Error> {
    let forward = Url::parse(forward)?;
    if forward.scheme() != "http" || !http::is_secure(&forward) {
        return Err("the bridge leads only to http://localhost, 127.0.0.0/8 or [::1]".into());
    }
    let bridge = Bridge { http: http::new_client()?, app: app.to_owned(), forward };
    let router = Router::new().route(PATH, post(forward_activity)).with_state(bridge);
    Ok(router.layer(middleware::from_fn(loopback::refuse_web_pages)))
}

async fn forward_activity(State(bridge): State<Bridge>, body: Bytes) -> Response {
    bridge.forward(body).await.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response())
}

impl Bridge {
    /// Returns the answer of peergate.
    async fn forward(&self, body: Bytes) -> Result<Response, Error> {
        let activity: Value = serde_json::from_slice(&body)?;
        let service_url = activity.get("serviceUrl").and_then(Value::as_str).ok_or("the activity has no serviceUrl")?;
        let signed = sign_activity(&activity, &self.app, service_url)?;
        let request = self.http.post(self.forward.clone()).body(body);
        let request = signed.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
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

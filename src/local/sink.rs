//! A chat platform that keeps what it is told: Slack's `chat.postMessage`, its webhooks, and any other URL.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A running sink.
#[derive(Debug, Clone, Default)]
pub struct Sink {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    posts: Vec<Post>,
    trouble: Vec<Trouble>,
}

/// Something that was posted and acknowledged.
#[derive(Debug, Clone)]
pub struct Post {
    /// Where to.
    pub path: String,
    /// With what.
    pub headers: HeaderMap,
    /// As sent.
    pub body: Bytes,
}

/// Posts to a path are refused.
#[derive(Debug, Clone, Default)]
pub struct Trouble {
    /// Which path.
    pub path: String,
    /// With this status.
    pub status: u16,
    /// And this body.
    pub body: String,
    /// The header `retry-after`, in seconds.
    pub retry_after: Option<u16>,
}

impl Post {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// All the text that a person would see.
    #[must_use]
    pub fn text(&self) -> String {
        let json = self.json();
        let elements = json.pointer("/blocks/0/elements/0/elements").and_then(Value::as_array).cloned();
        let texts = elements
            .unwrap_or_default()
            .into_iter()
            .filter_map(|element| element.get("text").and_then(Value::as_str).map(ToOwned::to_owned));
        texts.collect()
    }
}

impl Sink {
    /// Answers on `listener` until the task ends.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        axum::serve(listener, Router::new().fallback(take).with_state(self)).await
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was posted to a path so far.
    #[must_use]
    pub fn posts(&self, path: &str) -> Vec<Post> {
        self.lock().posts.iter().filter(|post| post.path == path).cloned().collect()
    }

    /// Refuses posts to a path until [`Sink::heal`].
    pub fn trouble(&self, trouble: Trouble) {
        self.lock().trouble.push(trouble);
    }

    /// Ends all trouble.
    pub fn heal(&self) {
        self.lock().trouble.clear();
    }
}

async fn take(State(sink): State<Sink>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    let mut inner = sink.lock();
    if let Some(trouble) = inner.trouble.iter().find(|trouble| trouble.path == path) {
        let status = StatusCode::from_u16(trouble.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, trouble.body.clone()).into_response();
        if let Some(seconds) = trouble.retry_after {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        return response;
    }
    let post = Post { path, headers, body };
    let token = post.headers.get("authorization").and_then(|value| value.to_str().ok());
    let answer = match post.path.as_str() {
        "/api/chat.postMessage" if !token.is_some_and(|token| token.starts_with("Bearer xoxb-")) => {
            return json!({"ok": false, "error": "not_authed"}).to_string().into_response();
        }
        "/api/chat.postMessage" => {
            let channel = post.json().get("channel").cloned().unwrap_or_default();
            let ts = format!("1700000000.{:06}", inner.posts.len());
            json!({"ok": true, "channel": channel, "ts": ts}).to_string()
        }
        _ => "ok".to_owned(),
    };
    inner.posts.push(post);
    answer.into_response()
}

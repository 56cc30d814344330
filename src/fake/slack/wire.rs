//! The HTTP side of the fake: how requests arrive, and how answers are lost.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{FakeSlack, Outage, RecordedPost, ScheduledOutage};

pub(super) async fn handle_post(State(fake): State<FakeSlack>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    if fake.is_hanging(&path) {
        return std::future::pending().await;
    }
    let (answer, failure) = take_post(&fake, path, headers, body);
    match failure {
        Some(outage) if outage.hangs => std::future::pending().await,
        Some(outage) => outage.into_response(),
        None => answer,
    }
}

/// Does what a post asks for. The second part is the failure that the sender sees instead of the answer.
fn take_post(fake: &FakeSlack, path: String, headers: HeaderMap, body: Bytes) -> (Response, Option<Outage>) {
    let mut state = fake.lock();
    let mut failure = None;
    let scheduled = state.outages.iter_mut().find(|it| it.outage.path == path);
    if let Some(ScheduledOutage { posts_before: posts_before @ 1.., .. }) = scheduled {
        *posts_before -= 1;
    } else if let Some(ScheduledOutage { outage, .. }) = scheduled {
        if !outage.after_effect {
            return (outage.clone().into_response(), None);
        }
        failure = Some(outage.clone());
    }
    let post = RecordedPost { path, headers, body };
    let answer = match post.path.strip_prefix("/api/") {
        Some(method) => {
            let token = post.headers.get("authorization").and_then(|value| value.to_str().ok());
            let is_known = token.is_some_and(|token| token.starts_with("Bearer xoxb-") && !token.ends_with("revoked"));
            let arguments = post.arguments();
            if method == "chat.postMessage"
                && is_known
                && !state.takes_message(arguments.get("channel").and_then(Value::as_str).unwrap_or_default())
            {
                let retry_after = state.limit.map(|limit| limit.retry_after);
                let body = r#"{"ok":false,"error":"ratelimited"}"#.to_owned();
                return (Outage { status: 429, body, retry_after, ..Outage::default() }.into_response(), None);
            }
            match if is_known { state.call_method(method, &arguments) } else { Err("not_authed") } {
                Ok(answer) => answer.to_string(),
                Err(error) => return (refusal_json(error).to_string().into_response(), None),
            }
        }
        None => "ok".to_owned(),
    };
    let bytes = post.body.len();
    state.posts.push(post, bytes);
    (answer.into_response(), failure)
}

/// As Slack refuses: with details for some errors.
fn refusal_json(error: &str) -> Value {
    match error {
        "missing_scope" => json!({"ok": false, "error": error, "needed": "channels:history", "provided": "chat:write"}),
        "invalid_blocks" => json!({"ok": false, "error": error, "response_metadata": {
            "messages": ["[ERROR] must be more than 0 characters [json-pointer:/blocks/0]"],
        }}),
        _ => json!({"ok": false, "error": error}),
    }
}

impl IntoResponse for Outage {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        response
    }
}

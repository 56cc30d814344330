//! HTTP responses, and the JSON objects in them.

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

/// A problem document with the members of `about`.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc9457>
#[must_use]
pub fn problem_response(status: StatusCode, name: &str, detail: &str, about: &Value) -> Response<String> {
    let title = status.canonical_reason().unwrap_or_default();
    let members = json!({
        "type": format!("urn:peergate:problem:{name}"), "title": title, "status": status.as_u16(), "detail": detail,
    });
    text_response(status, "application/problem+json", merge_members(members, about).to_string())
}

/// An object with the members of both. `more` wins.
#[must_use]
pub fn merge_members(mut members: Value, more: &Value) -> Value {
    if let (Some(members), Some(more)) = (members.as_object_mut(), more.as_object()) {
        members.extend(more.clone());
    }
    members
}

/// Sets one member of an object.
pub(in crate::chat) fn set_member(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

/// A response with a JSON body.
#[must_use]
pub fn json_response(status: StatusCode, body: &Value) -> Response<String> {
    text_response(status, "application/json", body.to_string())
}

/// A response with a text body.
#[must_use]
pub fn text_response(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Adds `retry-after` if a later attempt can succeed.
#[must_use]
pub fn add_retry_after(mut response: Response<String>) -> Response<String> {
    if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&response.status()) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
    }
    response
}

/// Status 200 and no body.
#[must_use]
pub fn empty_response() -> Response<String> {
    text_response(StatusCode::OK, "text/plain", String::new())
}

//! Who may use the playground: its own page, and programs on this machine that sign their requests to the webhook.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::world::World;
use crate::fake::loopback;

/// The header with the token.
pub(super) const TOKEN_HEADER: &str = "x-playground-token";
/// The page takes everything from its own server, and nobody can frame it.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                              base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Headers of every answer.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Refuses requests for other hosts, and requests of other pages than the playground's own.
pub(super) async fn refuse_others(request: Request, next: Next) -> Response {
    // A confined client sends what is for another server here, as to a proxy.
    let is_for_another = request.uri().authority().is_some();
    let problem = is_for_another.then_some("This server is no proxy.\n");
    let problem = problem
        .or_else(|| loopback::host_problem(&request))
        .or_else(|| origin_problem(request.headers()))
        .or_else(|| loopback::site_problem(request.headers()));
    let mut response = match problem {
        None => next.run(request).await,
        Some(problem) => (StatusCode::FORBIDDEN, problem).into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn origin_problem(headers: &HeaderMap) -> Option<&'static str> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let origin = origins.next()?;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = origins.next().is_none() && origin.to_str().is_ok_and(|origin| origin == format!("http://{host}"));
    (!is_own).then_some("This server answers its own page only: see the Origin header.\n")
}

/// Refuses calls without the token.
pub(super) async fn require_token(State(world): State<Arc<World>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(TOKEN_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
    if is_equal(given, world.token().as_bytes()) {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, "Open the address that `peergate playground` printed.\n").into_response()
    }
}

/// Compares in a time that depends on the lengths only.
pub(super) fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && differences == 0
}

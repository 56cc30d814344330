//! Why a request is rejected before it becomes a command, and what its sender hears.

use http::header::ALLOW;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::Value;

use crate::chat::response::{add_retry_after, problem_response};
use crate::chat::{MalformedRequest, TenantMismatch, Unauthentic, VerifyError};
use crate::{envelope, notes};

/// Why a request is rejected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejection {
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    #[error("no such path")]
    UnknownPath,
    #[error("the method is not allowed")]
    MethodNotAllowed(&'static [Method]),
    #[error("the body is larger than 256 KiB")]
    TooLarge,
    #[error("the content type is not supported")]
    UnsupportedContentType,
    #[error("the request is not authentic")]
    Unauthentic(#[from] Unauthentic),
    #[error("the keys of the platform are unavailable: {0}")]
    KeysUnavailable(String),
    #[error("another request came with the same proof")]
    UsedBefore,
    #[error("the table cannot say whether the proof was used before")]
    StoreUnavailable(#[from] notes::Error),
    #[error("the tenant or app is not in the configuration")]
    WrongTenant(#[from] TenantMismatch),
    #[error(transparent)]
    Malformed(#[from] MalformedRequest),
    #[error("the secrets cannot be read")]
    SecretsUnavailable(#[from] crate::secrets::Error),
}

impl From<VerifyError> for Rejection {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Unauthentic(unauthentic) => Self::Unauthentic(unauthentic),
            VerifyError::KeysUnavailable(why) => Self::KeysUnavailable(why),
        }
    }
}

/// What a sender and the log learn of a rejection.
pub(super) struct RejectionInfo {
    pub(super) status: StatusCode,
    pub(super) name: &'static str,
    pub(super) detail: String,
}

pub(super) fn classify_rejection(rejection: &Rejection) -> RejectionInfo {
    let (status, name) = match rejection {
        Rejection::Envelope(envelope::Error::PayloadVersion) => (StatusCode::BAD_REQUEST, "payload-version"),
        Rejection::Envelope(envelope::Error::Malformed(_)) | Rejection::Malformed(_) => {
            (StatusCode::BAD_REQUEST, "malformed")
        }
        Rejection::UnknownPath => (StatusCode::NOT_FOUND, "unknown-path"),
        Rejection::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "method"),
        Rejection::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        Rejection::UnsupportedContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type"),
        Rejection::Unauthentic(_) => (StatusCode::UNAUTHORIZED, "unauthentic"),
        Rejection::UsedBefore => (StatusCode::CONFLICT, "used-before"),
        Rejection::KeysUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "keys-unavailable"),
        Rejection::StoreUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable"),
        Rejection::WrongTenant(_) => (StatusCode::FORBIDDEN, "wrong-tenant"),
        Rejection::SecretsUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "secrets-unavailable"),
    };
    RejectionInfo { status, name, detail: rejection.to_string() }
}

pub(super) fn rejection_response(rejection: &Rejection) -> Response<String> {
    let RejectionInfo { status, name, detail } = classify_rejection(rejection);
    let mut response = problem_response(status, name, &detail, &Value::Null);
    if let Rejection::MethodNotAllowed(allowed) = rejection {
        let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        if let Ok(allowed) = HeaderValue::try_from(allowed) {
            response.headers_mut().insert(ALLOW, allowed);
        }
    }
    add_retry_after(response)
}

//! The bot's own token, with which it posts. Processes share it as a note.
//!
//! Source: <https://learn.microsoft.com/en-us/azure/bot-service/rest-api/bot-framework-rest-connector-authentication>

use form_urlencoded::Serializer;
use http::StatusCode;
use jiff::SignedDuration;
use serde::Deserialize;

use super::{ClientSecret, PlatformContext};
use crate::approval::RetryPolicy;
use crate::chat::access_token::AccessToken;
use crate::chat::delivery::{CHAT_TIMEOUT, FailureCause, parse_retry_after};
use crate::chat::{DeliveryError, ThrottleScope};
use crate::secret::Secret;
use crate::{clock, http as our_http};

/// Whose token it is, as [`TokenCache::current`] names it.
fn token_owner(access: PlatformContext<'_>) -> String {
    format!("teams/{}", access.config.app)
}

/// The token of this process, or the one that another process has stored, or a new one.
pub(super) async fn current_token(access: PlatformContext<'_>) -> Result<Secret, DeliveryError> {
    access.state.token.current(access.notes, &token_owner(access), || fetch_token(access)).await
}

/// Replaces a token that Teams refuses, unless another task has already replaced it.
pub(super) async fn replace_token(access: PlatformContext<'_>, refused: &Secret) -> Result<Secret, DeliveryError> {
    access.state.token.replace(access.notes, &token_owner(access), refused, || fetch_token(access)).await
}

/// Fetches a token only to see whether the login service knows the app and its secret.
pub(super) async fn check_app(access: PlatformContext<'_>) -> Result<(), DeliveryError> {
    fetch_token(access).await.map(|_| ())
}

/// Fetches a token with the newest secret. If Entra does not know that one, tries the older ones.
async fn fetch_token(access: PlatformContext<'_>) -> Result<AccessToken, DeliveryError> {
    let mut first_error = None;
    for secret in &access.secrets.client_secrets {
        match fetch_token_with(access, secret).await {
            Err(error) if SECRET_CODES.contains(&error.code()) => first_error = first_error.or(Some(error)),
            fetched => return fetched,
        }
    }
    Err(first_error.unwrap_or_else(|| DeliveryError::misconfigured("there is no client secret")))
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<String>,
    expires_in: Option<i64>,
    error: Option<String>,
    #[serde(default)]
    error_codes: Vec<i64>,
}

async fn fetch_token_with(access: PlatformContext<'_>, secret: &ClientSecret) -> Result<AccessToken, DeliveryError> {
    let now = clock::now();
    let form = Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", &access.config.app)
        .append_pair("client_secret", secret.expose())
        .append_pair("scope", access.config.cloud.scope())
        .finish();
    let request = access.http.post(access.config.token_url()).timeout(CHAT_TIMEOUT).body(form);
    let sent = request.header("content-type", "application/x-www-form-urlencoded").send().await;
    let response = sent.map_err(|error| without_effect(DeliveryError::from_transport(&error)))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = our_http::read_body(response).await;
    let body = body.map_err(|error| without_effect(DeliveryError::from_transport(&error)))?;
    let Ok(answer) = serde_json::from_slice::<TokenAnswer>(&body) else {
        // The words of a page of a proxy could hold what was sent.
        return Err(without_effect(DeliveryError::from_http_status(status, &headers, b"", now)));
    };
    let is_token = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let valid_for = answer.expires_in.filter(|seconds| *seconds > 0).map(SignedDuration::from_secs);
    match (answer.access_token.filter(is_token), valid_for) {
        (Some(token), Some(valid_for)) if status.is_success() => {
            Ok(AccessToken { token: Secret::new(token), valid_for })
        }
        _ if status.is_success() => Err(DeliveryError::misconfigured("the answer has no token")),
        _ => {
            let retry_after = parse_retry_after(&headers, now);
            Err(explain_refusal(status, answer.error.as_deref(), &answer.error_codes, retry_after))
        }
    }
}

/// Nothing was posted yet.
fn without_effect(error: DeliveryError) -> DeliveryError {
    match error.cause {
        FailureCause::AnswerLost => DeliveryError { cause: FailureCause::Refused, ..error },
        FailureCause::Refused | FailureCause::Throttled(_) => error,
    }
}

/// Codes for a client secret that Entra does not take.
const SECRET_CODES: [&str; 2] = ["AADSTS7000215", "AADSTS7000222"];
/// Codes that say that the configuration is wrong, and words for the operator.
///
/// Source: <https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes>
const APP_CODES: [(i64, &str); 7] = [
    (50_034, "the tenant does not know the app"),
    (90_002, "there is no such tenant"),
    (700_016, "the tenant does not know the app"),
    (7_000_112, "the app is disabled"),
    (7_000_215, "the client secret is not valid"),
    (7_000_222, "the client secret has expired"),
    (7_000_229, "the app has no service principal in the tenant"),
];

/// Whether the failure says that the app or its secret is wrong.
pub(super) fn is_wrong_app(error: &DeliveryError) -> bool {
    let code = error.code().strip_prefix("AADSTS").and_then(|code| code.parse().ok());
    code.is_some_and(|code: i64| APP_CODES.iter().any(|(known, _)| *known == code))
}

fn explain_refusal(
    status: StatusCode,
    error: Option<&str>,
    codes: &[i64],
    retry_after: Option<SignedDuration>,
) -> DeliveryError {
    let known = APP_CODES.iter().find(|(code, _)| codes.contains(code));
    let text = match (known, codes.first()) {
        (Some((code, words)), _) => format!("AADSTS{code}: {words}"),
        (None, Some(code)) => format!("AADSTS{code}: no token"),
        (None, None) => {
            let word = error.and_then(our_http::log_safe_word).unwrap_or_else(|| "unreadable".to_owned());
            format!("HTTP {}: no token: {word}", status.as_u16())
        }
    };
    if status == StatusCode::TOO_MANY_REQUESTS {
        DeliveryError::throttled(text, retry_after, ThrottleScope::App)
    } else if status.is_server_error() {
        DeliveryError::refused(text, RetryPolicy::Backoff(retry_after))
    } else {
        DeliveryError::misconfigured(&text)
    }
}

//! What Slack answers to a post, and what each refusal means for the next attempt.

use http::{HeaderMap, StatusCode};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::Value;

use crate::approval::RetryPolicy;
use crate::chat::delivery::{parse_retry_after, refusal_words};
use crate::chat::{DeliveryError, ThrottleScope};
use crate::{clock, http as our_http};

/// The error of an answer that is not Slack's.
pub(super) const UNREADABLE: &str = "unreadable answer";

/// An answer of the Web API.
#[derive(Deserialize)]
pub(super) struct SlackResponse {
    ok: bool,
    error: Option<String>,
    /// The scopes that `missing_scope` is about.
    needed: Option<String>,
    response_metadata: Option<ResponseMetadata>,
    pub(super) channel: Option<String>,
    pub(super) ts: Option<String>,
    pub(super) team_id: Option<String>,
    pub(super) enterprise_id: Option<String>,
    #[serde(default)]
    pub(super) messages: Vec<HistoryMessage>,
}

/// Why Slack refuses the blocks, each with a JSON pointer.
#[derive(Deserialize)]
struct ResponseMetadata {
    #[serde(default)]
    messages: Vec<String>,
}

/// A message of `conversations.history`.
#[derive(Deserialize)]
pub(super) struct HistoryMessage {
    pub(super) ts: String,
    pub(super) app_id: Option<String>,
    pub(super) metadata: Option<Value>,
}

impl SlackResponse {
    /// Reads an answer.
    ///
    /// # Errors
    /// Slack's refusal, in its words.
    pub(super) fn parse(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Self, DeliveryError> {
        let retry_after = parse_retry_after(headers, clock::now());
        let parsed = serde_json::from_slice::<Self>(body);
        if status == StatusCode::TOO_MANY_REQUESTS {
            let code = parsed.ok().and_then(|answer| answer.error).and_then(|code| our_http::log_safe_word(&code));
            let error = code.map_or_else(|| "HTTP 429".to_owned(), |code| format!("HTTP 429: {code}"));
            return Err(DeliveryError::throttled(error, retry_after, ThrottleScope::App));
        }
        if !status.is_success() {
            return Err(DeliveryError::from_http_status(status, headers, body, clock::now()));
        }
        match parsed {
            Ok(answer) if answer.ok => Ok(answer),
            Ok(refusal) => Err(refusal.into_error(retry_after)),
            Err(_) => Err(DeliveryError::answer_lost(UNREADABLE, retry_after)),
        }
    }

    /// What a refusal means.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/chat.postMessage#errors>
    fn into_error(self, retry_after: Option<SignedDuration>) -> DeliveryError {
        let code = self.error.as_deref().and_then(our_http::log_safe_word).unwrap_or_else(|| "no error code".into());
        let details = self.response_metadata.map(|metadata| metadata.messages.join(" ")).unwrap_or_default();
        let needed = self.needed.filter(|scopes| is_scope_list(scopes));
        let needed = needed.map(|scopes| format!(": needs {scopes}")).unwrap_or_default();
        let error = format!("{code}{needed}{}", refusal_words(&details));
        match code.as_str() {
            "ratelimited" | "rate_limited" => DeliveryError::throttled(error, retry_after, ThrottleScope::App),
            // Slack may have done a part of the work.
            "internal_error" | "fatal_error" | "request_timeout" => DeliveryError::answer_lost(error, retry_after),
            "service_unavailable" | "team_added_to_org" | "external_channel_migrating" => {
                DeliveryError::refused(error, RetryPolicy::Backoff(retry_after))
            }
            "invalid_blocks"
            | "invalid_blocks_format"
            | "invalid_arguments"
            | "msg_too_long"
            | "msg_blocks_too_long"
            | "no_text" => DeliveryError::refused(error, RetryPolicy::FewTimes),
            _ => DeliveryError::misconfigured(&error),
        }
    }
}

/// e.g. `channels:history,groups:history`.
fn is_scope_list(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || b":,._".contains(&byte);
    (1..=200).contains(&text.len()) && text.bytes().all(allowed)
}

/// The failure of a post to an incoming webhook. `None` if Slack took the message.
///
/// Source: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors>
pub(super) fn webhook_error(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<DeliveryError> {
    if status.is_success() {
        let words = String::from_utf8_lossy(body);
        let is_taken = words.trim() == "ok";
        return (!is_taken)
            .then(|| DeliveryError::misconfigured(&format!("the answer is not `ok`{}", refusal_words(&words))));
    }
    let undelivered = DeliveryError::from_http_status(status, headers, body, clock::now());
    // Here, 410 means an archived channel, which people can restore. The same is true of an unknown channel or user.
    let is_fixable = status == StatusCode::GONE || undelivered.error.ends_with("_not_found");
    Some(if is_fixable { DeliveryError::misconfigured(&undelivered.error) } else { undelivered })
}

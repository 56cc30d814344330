//! Slack has no idempotency key. peergate puts its own key into the metadata of each message. After a lost answer, it looks
//! for the message in the history. This needs the scope `channels:history` or `groups:history`. Without it, peergate posts
//! again.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::api::SlackApi;
use super::api_response::UNREADABLE;
use crate::approval::RetryPolicy;
use crate::chat::{DeliveryError, PostAttempt};

/// The type of our metadata.
const EVENT_TYPE: &str = "peergate_message";
/// The most messages to look at. Slack's limit is 999.
///
/// Source: <https://docs.slack.dev/reference/methods/conversations.history>
const MAX_LOOKED_AT: &str = "200";
/// How far Slack's clock may be behind ours.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(2);
/// After so many failed attempts, peergate posts the message even if the history cannot be read.
const MAX_DELAYING_ATTEMPTS: u32 = 3;

/// The metadata of a message.
///
/// Source: <https://docs.slack.dev/messaging/message-metadata>
pub(super) fn message_metadata(key: &str) -> Value {
    json!({"event_type": EVENT_TYPE, "event_payload": {"key": key}})
}

impl SlackApi<'_> {
    /// The message of an earlier attempt, in the channel or in a thread of it. `None` if there is none, or if peergate may
    /// not look.
    ///
    /// # Errors
    /// When the history cannot be read now, but soon.
    pub(super) async fn find_earlier(
        &self,
        app: &str,
        channel: &str,
        thread: Option<&str>,
        attempt: PostAttempt<'_>,
    ) -> Result<Option<String>, DeliveryError> {
        let Some(since) = attempt.unconfirmed_since else { return Ok(None) };
        let oldest = (since - CLOCK_SKEW).as_second().to_string();
        let mut fields = vec![
            ("channel", channel),
            ("oldest", oldest.as_str()),
            ("include_all_metadata", "true"),
            ("limit", MAX_LOOKED_AT),
        ];
        fields.extend(thread.map(|ts| ("ts", ts)));
        let method = if thread.is_some() { "conversations.replies" } else { "conversations.history" };
        let history = match self.query(method, &fields).await {
            Ok(history) => history,
            Err(undelivered) => {
                let passes = matches!(undelivered.retry, RetryPolicy::Backoff(_)) && undelivered.error != UNREADABLE;
                if passes && attempt.attempts < MAX_DELAYING_ATTEMPTS {
                    return Err(undelivered);
                }
                tracing::warn!(
                    outcome = "not_looked_up",
                    error = undelivered.error,
                    "could not look for a message whose answer was lost; it may appear twice"
                );
                return Ok(None);
            }
        };
        let wanted = message_metadata(attempt.key);
        let is_it = |metadata: &Value| {
            metadata.get("event_type") == wanted.get("event_type")
                && metadata.pointer("/event_payload/key") == wanted.pointer("/event_payload/key")
        };
        let found = history.messages.into_iter().find(|message| {
            message.app_id.as_deref().is_none_or(|id| id == app) && message.metadata.as_ref().is_some_and(is_it)
        });
        Ok(found.map(|message| message.ts))
    }
}

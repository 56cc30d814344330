//! Calls to the bot service: posts, updates and deletes messages, and opens one-to-one chats.
//!
//! Source: <https://learn.microsoft.com/en-us/azure/bot-service/rest-api/bot-framework-rest-connector-api-reference>

mod code;

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::access_token::{current_token, replace_token};
use super::{PlatformContext, is_teams_id};
use crate::approval::RetryPolicy;
use crate::chat::call_turns::CallLimit;
use crate::chat::delivery::{CHAT_TIMEOUT, parse_retry_after, refusal_words};
use crate::chat::{DeliveryError, MessageRef, ThrottleScope};
use crate::secret::Secret;
use crate::{clock, http as our_http};

use code::{RefusalMeaning, find_code};

/// The most calls of a bot to a conversation. After 1800 calls in an hour, Teams refuses more for a while, and peergate tries
/// again later.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/bots/how-to/rate-limit>
const CALL_LIMITS: [CallLimit; 3] = [
    CallLimit { calls: 7, period: Duration::from_millis(1100) },
    CallLimit { calls: 8, period: Duration::from_millis(2100) },
    CallLimit { calls: 60, period: Duration::from_millis(30_500) },
];

/// Why a call failed.
#[derive(Debug)]
pub(super) enum ConnectorError {
    /// The token is refused: fetch a new one and call again. If that is refused too, the message was not delivered.
    TokenRefused(DeliveryError),
    /// The message does not exist, or its conversation does not.
    NotFound(DeliveryError),
    /// The message was not delivered.
    NotDelivered(DeliveryError),
}

impl ConnectorError {
    /// The error if no further attempt is made.
    pub(super) fn into_delivery_error(self) -> DeliveryError {
        match self {
            Self::TokenRefused(undelivered) | Self::NotFound(undelivered) | Self::NotDelivered(undelivered) => {
                undelivered
            }
        }
    }
}

impl From<DeliveryError> for ConnectorError {
    fn from(undelivered: DeliveryError) -> Self {
        Self::NotDelivered(undelivered)
    }
}

/// The bot service at one address.
#[derive(Clone, Copy)]
pub(super) struct Connector<'a> {
    pub(super) access: PlatformContext<'a>,
    /// A known address: the token may be sent there.
    pub(super) service_url: &'a Url,
}

#[derive(Deserialize)]
struct ResourceAnswer {
    id: Option<String>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: Option<ErrorDetail>,
}

#[derive(Deserialize)]
struct ErrorDetail {
    code: Option<String>,
    message: Option<String>,
}

impl Connector<'_> {
    /// Posts a message to a conversation. Returns the id of the message.
    pub(super) async fn post(self, conversation: &str, activity: &Value) -> Result<String, ConnectorError> {
        let turn = Some(conversation);
        let answer = self.call(Method::POST, &[conversation, "activities"], Some(activity), turn).await?;
        self.parse_id(&answer, "the answer does not name the message")
    }

    /// Posts a message to the thread of another one. In a chat, which has no threads, posts to the chat.
    pub(super) async fn reply(self, place: &MessageRef, activity: &Value) -> Result<String, ConnectorError> {
        let MessageRef { channel, message_id } = place;
        if !super::has_threads(channel) {
            return self.post(channel, activity).await;
        }
        let thread = format!("{channel};messageid={message_id}");
        let mut reply = activity.clone();
        crate::chat::response::set_member(&mut reply, "replyToId", message_id.as_str().into());
        let answer = self.call(Method::POST, &[&thread, "activities"], Some(&reply), Some(channel)).await?;
        self.parse_id(&answer, "the answer does not name the message")
    }

    /// Updates a message for everybody.
    pub(super) async fn update(self, place: &MessageRef, activity: &Value) -> Result<(), ConnectorError> {
        let MessageRef { channel, message_id } = place;
        let mut update = activity.clone();
        crate::chat::response::set_member(&mut update, "id", message_id.as_str().into());
        let path = [channel, "activities", message_id];
        self.call(Method::PUT, &path, Some(&update), Some(channel)).await.map(|_| ())
    }

    /// Deletes a message of the bot.
    pub(super) async fn delete(self, place: &MessageRef) -> Result<(), ConnectorError> {
        let MessageRef { channel, message_id } = place;
        self.call(Method::DELETE, &[channel, "activities", message_id], None, Some(channel)).await.map(|_| ())
    }

    /// Opens the one-to-one chat with a person, or finds it. Returns its id.
    pub(super) async fn open_chat(self, user: &str) -> Result<String, ConnectorError> {
        let config = self.access.config;
        let body = json!({
            "bot": {"id": format!("28:{}", config.app)},
            "members": [{"id": user}],
            "tenantId": config.tenant,
            "channelData": {"tenant": {"id": config.tenant}},
        });
        let answer = self.call(Method::POST, &[], Some(&body), None).await?;
        self.parse_id(&answer, "the answer does not name the chat")
    }

    #[expect(clippy::unused_self, reason = "reads like the calls")]
    fn parse_id(self, answer: &[u8], problem: &str) -> Result<String, ConnectorError> {
        let answer = serde_json::from_slice::<ResourceAnswer>(answer).ok();
        let id = answer.and_then(|answer| answer.id).filter(|id| is_teams_id(id));
        // The message was posted, but nobody could update it.
        id.ok_or_else(|| DeliveryError::answer_lost(problem, None).into())
    }

    /// Makes a call below `v3/conversations`, in its turn among those to a conversation. If the token is refused, calls once
    /// more with a new one.
    async fn call(
        self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
        conversation: Option<&str>,
    ) -> Result<Vec<u8>, ConnectorError> {
        let mut url = self.service_url.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(["v3", "conversations"]).extend(path),
            Err(()) => return Err(DeliveryError::misconfigured("the service URL is malformed").into()),
        };
        // The token comes first: from its turn on, nothing may delay a call.
        let token = current_token(self.access).await?;
        if let Some(conversation) = conversation {
            self.access.state.turns.wait(conversation, &CALL_LIMITS).await;
        }
        match self.call_once(method.clone(), url.clone(), body, &token).await {
            Err(ConnectorError::TokenRefused(_)) => {
                let token = replace_token(self.access, &token).await?;
                self.call_once(method, url, body, &token).await
            }
            answer => answer,
        }
    }

    async fn call_once(
        self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        token: &Secret,
    ) -> Result<Vec<u8>, ConnectorError> {
        let request = self.access.http.request(method, url).timeout(CHAT_TIMEOUT).bearer_auth(token.expose());
        let request = match body {
            Some(body) => request.header("content-type", "application/json; charset=utf-8").body(body.to_string()),
            None => request,
        };
        let response = request.send().await.map_err(|error| DeliveryError::from_transport(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = our_http::read_body(response).await;
        if status.is_success() {
            return Ok(body.map_err(|error| DeliveryError::from_transport(&error))?.to_vec());
        }
        Err(explain_refusal(status, &headers, &body.unwrap_or_default()))
    }
}

/// What a refusal means for the next attempt.
fn explain_refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ConnectorError {
    let detail = serde_json::from_slice::<ErrorAnswer>(body).ok().and_then(|answer| answer.error);
    let (code, message) = detail.map_or((None, None), |detail| (detail.code, detail.message));
    let code = code.as_deref().and_then(our_http::log_safe_word);
    let retry_after = parse_retry_after(headers, clock::now());
    let known = code.as_deref().and_then(|code| find_code(status.as_u16(), code));
    let words = known.map(|known| format!(": {}", known.text)).unwrap_or_default();
    let theirs = message.as_deref().map(refusal_words).unwrap_or_default();
    let error = match &code {
        Some(code) => format!("{code}: HTTP {}{words}{theirs}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    };
    let meaning = known.map_or_else(|| RefusalMeaning::of_status(status), |known| known.meaning);
    let undelivered = match meaning {
        RefusalMeaning::TokenRefused | RefusalMeaning::NotFound | RefusalMeaning::AfterFix => {
            DeliveryError::misconfigured(&error)
        }
        RefusalMeaning::FewTimes => DeliveryError::refused(error, RetryPolicy::FewTimes),
        RefusalMeaning::NotNow => DeliveryError::refused(error, RetryPolicy::Backoff(retry_after)),
        RefusalMeaning::TooMany => DeliveryError::throttled(error, retry_after, ThrottleScope::Channel),
        RefusalMeaning::Unclear => DeliveryError::answer_lost(error, retry_after),
    };
    match meaning {
        RefusalMeaning::TokenRefused => ConnectorError::TokenRefused(undelivered),
        RefusalMeaning::NotFound => ConnectorError::NotFound(undelivered),
        RefusalMeaning::AfterFix
        | RefusalMeaning::FewTimes
        | RefusalMeaning::NotNow
        | RefusalMeaning::TooMany
        | RefusalMeaning::Unclear => ConnectorError::NotDelivered(undelivered),
    }
}

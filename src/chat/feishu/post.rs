//! Calls to Feishu: the tenant's token, messages of our app, and custom bots.

mod code;

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::Mac;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::card::{MAX_BOT_BYTES, render_card_within};
use super::{AppSecret, is_feishu_id};
use crate::approval::RetryPolicy;
use crate::chat::access_token::AccessToken;
use crate::chat::authenticity::hmac_of;
use crate::chat::delivery::{CHAT_TIMEOUT, parse_retry_after, refusal_words};
use crate::chat::message::Message;
use crate::chat::response::set_member;
use crate::chat::{DeliveryError, ThrottleScope};
use crate::secret::{Secret, SecretUrl};
use crate::{clock, http as our_http};

use code::{CodeMeaning, KnownCode, find_code};

/// The longest `uuid`: within an hour, Feishu posts a message with the same one only once.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
pub(super) const MAX_UUID_CHARS: usize = 50;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The token is refused: fetch a new one and call again. If that is refused too, the message was not delivered.
    TokenRefused(DeliveryError),
    /// The message of the thread is deleted: post to the chat instead.
    MessageGone(DeliveryError),
    /// The message was not delivered.
    NotDelivered(DeliveryError),
}

impl CallError {
    /// The error if no further attempt is made.
    #[must_use]
    pub fn into_delivery_error(self) -> DeliveryError {
        match self {
            Self::TokenRefused(undelivered) | Self::MessageGone(undelivered) | Self::NotDelivered(undelivered) => {
                undelivered
            }
        }
    }
}

/// The receiver of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver<'a> {
    /// A chat (`oc_…`).
    Chat(&'a str),
    /// One person, by `open_id` (`ou_…`).
    Person(&'a str),
}

/// A message that was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedMessage {
    /// Its id (`om_…`).
    pub message_id: String,
    /// When Feishu created it. It can be updated for 14 days from then.
    pub created_at: Option<Timestamp>,
}

/// The result of updating a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardUpdate {
    /// Everybody sees the new card.
    Redrawn,
    /// The message is deleted.
    Gone,
    /// The message keeps its old content: it is older than 14 days.
    TooOld,
}

/// The API, called as our app in one tenant.
#[derive(Debug, Clone, Copy)]
pub struct FeishuApi<'a> {
    /// The shared HTTP client.
    pub http: &'a reqwest::Client,
    /// The URL of the API; ends with a slash.
    pub url: &'a Url,
    /// The app's token for the tenant.
    pub token: &'a Secret,
}

/// An answer of the API.
#[derive(Deserialize)]
struct ApiResponse {
    code: i64,
    /// Why Feishu refuses the call, in words.
    msg: Option<String>,
    error: Option<ApiErrorDetail>,
    tenant_access_token: Option<String>,
    expire: Option<i64>,
    data: Option<ApiResponseData>,
}

#[derive(Deserialize)]
struct ApiResponseData {
    message_id: Option<String>,
    create_time: Option<String>,
}

/// Source: <https://open.feishu.cn/document/server-docs/api-call-guide/generic-error-code>
#[derive(Deserialize)]
struct ApiErrorDetail {
    /// Identifies the call for Feishu's support.
    log_id: Option<String>,
}

/// A failed call, and what Feishu's code means.
struct ApiRefusal {
    meaning: CodeMeaning,
    undelivered: DeliveryError,
}

impl From<DeliveryError> for ApiRefusal {
    fn from(undelivered: DeliveryError) -> Self {
        Self { meaning: CodeMeaning::AfterFix, undelivered }
    }
}

impl From<ApiRefusal> for CallError {
    fn from(ApiRefusal { meaning, undelivered }: ApiRefusal) -> Self {
        match meaning {
            CodeMeaning::TokenRefused => Self::TokenRefused(undelivered),
            CodeMeaning::MessageGone => Self::MessageGone(undelivered),
            CodeMeaning::Soon
            | CodeMeaning::TooMany(_)
            | CodeMeaning::AfterFix
            | CodeMeaning::FewTimes
            | CodeMeaning::TooOld
            | CodeMeaning::NoThread
            | CodeMeaning::ReceiverGone => Self::NotDelivered(undelivered),
        }
    }
}

/// Fetches a token. Feishu returns the same one until 30 min before its end; from then on, the old and a new one are valid.
///
/// Source: <https://open.feishu.cn/document/server-docs/authentication-management/access-token/tenant_access_token_internal>
pub async fn fetch_token(
    http: &reqwest::Client,
    url: &Url,
    app: &str,
    secret: &AppSecret,
) -> Result<AccessToken, DeliveryError> {
    let body = json!({"app_id": app, "app_secret": secret.expose()});
    let url = join_url(url, "open-apis/auth/v3/tenant_access_token/internal")?;
    let answer =
        send_request(json_request(http, Method::POST, url, &body)).await.map_err(|refused| refused.undelivered)?;
    let valid_for = answer.expire.filter(|seconds| *seconds > 0).map(SignedDuration::from_secs);
    let token = answer.tenant_access_token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
    match (token, valid_for) {
        (Some(token), Some(valid_for)) if !token.is_empty() => Ok(AccessToken { token: Secret::new(token), valid_for }),
        _ => Err(DeliveryError::misconfigured("the answer has no token")),
    }
}

impl FeishuApi<'_> {
    /// Posts a card to a chat, or to one person.
    ///
    /// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
    pub async fn post(&self, receiver: Receiver<'_>, card: &Value, uuid: &str) -> Result<PostedMessage, CallError> {
        let (kind, id, prefix) = match receiver {
            Receiver::Chat(id) => ("chat_id", id, "oc_"),
            Receiver::Person(id) => ("open_id", id, "ou_"),
        };
        if !is_feishu_id(id, prefix) {
            return Err(CallError::NotDelivered(DeliveryError::misconfigured(
                "the receiver's id is not one of Feishu's",
            )));
        }
        let mut url = join_url(self.url, "open-apis/im/v1/messages").map_err(CallError::NotDelivered)?;
        url.query_pairs_mut().append_pair("receive_id_type", kind);
        let content = card.to_string();
        let body = json!({"receive_id": id, "msg_type": "interactive", "content": content, "uuid": check_uuid(uuid)?});
        parse_posted(self.call_as_app(Method::POST, url, &body).await?)
    }

    /// Posts a card to the thread of a message; in a group without threads, as a reply.
    ///
    /// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/reply>
    pub async fn reply_below(&self, message_id: &str, card: &Value, uuid: &str) -> Result<PostedMessage, CallError> {
        let url = self.message_url(message_id, "/reply")?;
        let content = card.to_string();
        let body = |in_thread: bool| {
            let uuid = check_uuid(uuid)?;
            Ok::<_, CallError>(json!({
                "msg_type": "interactive", "content": content, "reply_in_thread": in_thread, "uuid": uuid,
            }))
        };
        match self.call_as_app(Method::POST, url.clone(), &body(true)?).await {
            Err(ApiRefusal { meaning: CodeMeaning::NoThread, .. }) => {
                parse_posted(self.call_as_app(Method::POST, url, &body(false)?).await?)
            }
            answer => parse_posted(answer?),
        }
    }

    /// Updates a card for everybody.
    ///
    /// Source: <https://open.feishu.cn/document/server-docs/im-v1/message-card/patch>
    pub async fn update(&self, message_id: &str, card: &Value) -> Result<CardUpdate, CallError> {
        let url = self.message_url(message_id, "")?;
        match self.call_as_app(Method::PATCH, url, &json!({"content": card.to_string()})).await {
            Ok(_) => Ok(CardUpdate::Redrawn),
            Err(ApiRefusal { meaning: CodeMeaning::MessageGone, .. }) => Ok(CardUpdate::Gone),
            Err(ApiRefusal { meaning: CodeMeaning::TooOld, .. }) => Ok(CardUpdate::TooOld),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Recalls a message of ours. Feishu allows it for a time that the tenant's administrator sets.
    ///
    /// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/delete>
    pub async fn recall(&self, message_id: &str) -> Result<(), CallError> {
        let url = self.message_url(message_id, "")?;
        Ok(self.call_as_app(Method::DELETE, url, &json!({})).await.map(|_| ())?)
    }

    fn message_url(&self, message_id: &str, rest: &str) -> Result<Url, CallError> {
        if !is_feishu_id(message_id, "om_") {
            return Err(CallError::NotDelivered(DeliveryError::misconfigured(
                "the message's id is not one of Feishu's",
            )));
        }
        join_url(self.url, &format!("open-apis/im/v1/messages/{message_id}{rest}")).map_err(CallError::NotDelivered)
    }

    async fn call_as_app(&self, method: Method, url: Url, body: &Value) -> Result<ApiResponse, ApiRefusal> {
        send_request(json_request(self.http, method, url, body).bearer_auth(self.token.expose())).await
    }
}

fn check_uuid(uuid: &str) -> Result<&str, CallError> {
    let fits = (1..=MAX_UUID_CHARS).contains(&uuid.len()) && uuid.is_ascii();
    if fits {
        Ok(uuid)
    } else {
        Err(CallError::NotDelivered(DeliveryError::misconfigured("the uuid must have 1 to 50 characters")))
    }
}

fn parse_posted(answer: ApiResponse) -> Result<PostedMessage, CallError> {
    let data = answer.data.and_then(|data| Some((data.message_id?, data.create_time)));
    let Some((message_id, create_time)) = data.filter(|(id, _)| is_feishu_id(id, "om_")) else {
        return Err(CallError::NotDelivered(DeliveryError::misconfigured("the answer does not name the message")));
    };
    let millis = create_time.and_then(|time| time.parse().ok());
    Ok(PostedMessage { message_id, created_at: millis.and_then(|millis| Timestamp::from_millisecond(millis).ok()) })
}

/// A signed card for a custom bot. It has no buttons, as nobody would receive their clicks. The signature is not for logs,
/// so there is no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct BotMessage(Value);

impl BotMessage {
    /// The body to post.
    #[must_use]
    pub fn as_json(&self) -> &Value {
        &self.0
    }
}

/// Makes the message of a custom bot. `secret` is the bot's, if the bot checks signatures.
///
/// Source: <https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot>
#[must_use]
pub fn build_bot_message(message: &Message, secret: Option<&Secret>, now: Timestamp) -> BotMessage {
    // The ids of people are those that the app knows, and a custom bot is not the app.
    let message = Message { buttons: None, mentions: vec![], ..message.clone() };
    let card = render_card_within(&message, MAX_BOT_BYTES);
    let mut body = json!({"msg_type": "interactive", "card": card});
    if let Some(secret) = secret {
        let timestamp = now.as_second();
        set_member(&mut body, "timestamp", timestamp.to_string().into());
        set_member(&mut body, "sign", sign_bot_message(secret, timestamp).into());
    }
    BotMessage(body)
}

/// The signature of a custom bot's message. Its key is the timestamp, a line break and the secret; the signed text is empty.
///
/// Source: <https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot>
#[must_use]
pub fn sign_bot_message(secret: &Secret, timestamp: i64) -> String {
    let key = format!("{timestamp}\n{}", secret.expose());
    BASE64_STANDARD.encode(hmac_of(key.as_bytes(), &[]).finalize().into_bytes())
}

/// Posts to a custom bot. The message can never be updated.
pub async fn post_bot(http: &reqwest::Client, url: &SecretUrl, message: &BotMessage) -> Result<(), DeliveryError> {
    let request = json_request(http, Method::POST, url.expose().clone(), message.as_json());
    send_request(request).await.map(|_| ()).map_err(|refused| refused.undelivered)
}

/// Sends a request. A refusal has HTTP status 400, 429 or even 200, so its code decides.
async fn send_request(request: reqwest::RequestBuilder) -> Result<ApiResponse, ApiRefusal> {
    let response = request.send().await.map_err(|error| DeliveryError::from_transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = our_http::read_body(response).await.map_err(|error| DeliveryError::from_transport(&error))?;
    let by_status = || DeliveryError::from_http_status(status, &headers, &body, clock::now());
    let retry_after = parse_retry_after(&headers, clock::now()).or_else(|| parse_limit_reset(&headers));
    let Ok(answer) = serde_json::from_slice::<ApiResponse>(&body) else {
        let unreadable = || DeliveryError::answer_lost("unreadable answer", retry_after);
        return Err(if status.is_success() { unreadable() } else { by_status() }.into());
    };
    if answer.code == 0 {
        return if status.is_success() { Ok(answer) } else { Err(by_status().into()) };
    }
    // An operator has to look an unknown code up.
    let unknown = KnownCode { code: answer.code, meaning: CodeMeaning::AfterFix, text: "" };
    let KnownCode { meaning, text, .. } = find_code(answer.code).unwrap_or(&unknown);
    let error = describe_refusal(&answer, text);
    let undelivered = match meaning {
        CodeMeaning::MessageGone | CodeMeaning::ReceiverGone => DeliveryError::refused(error, RetryPolicy::Never),
        _ if status.is_server_error() => DeliveryError::answer_lost(error, retry_after),
        CodeMeaning::TooMany(scope) => DeliveryError::throttled(error, retry_after, *scope),
        _ if status == StatusCode::TOO_MANY_REQUESTS => {
            DeliveryError::throttled(error, retry_after, ThrottleScope::App)
        }
        CodeMeaning::Soon => DeliveryError::answer_lost(error, retry_after),
        CodeMeaning::TokenRefused | CodeMeaning::AfterFix | CodeMeaning::NoThread | CodeMeaning::TooOld => {
            DeliveryError::misconfigured(&error)
        }
        CodeMeaning::FewTimes => DeliveryError::refused(error, RetryPolicy::FewTimes),
    };
    Err(ApiRefusal { meaning: *meaning, undelivered })
}

/// Code, our words, Feishu's words, and the id of the call.
fn describe_refusal(answer: &ApiResponse, text: &str) -> String {
    let ours = if text.is_empty() { String::new() } else { format!(": {text}") };
    let theirs = answer.msg.as_deref().map(refusal_words).unwrap_or_default();
    let log_id = answer.error.as_ref().and_then(|detail| our_http::log_safe_word(detail.log_id.as_deref()?));
    let log_id = log_id.map(|id| format!("; log_id {id}")).unwrap_or_default();
    format!("{}{ours}{theirs}{log_id}", answer.code)
}

/// When the limit of an API is reset: in so many seconds.
///
/// Source: <https://open.feishu.cn/document/server-docs/api-call-guide/frequency-control>
fn parse_limit_reset(headers: &http::HeaderMap) -> Option<SignedDuration> {
    our_http::parse_retry_after(headers.get("x-ogw-ratelimit-reset")?.to_str().ok()?, clock::now())
}

fn join_url(url: &Url, path: &str) -> Result<Url, DeliveryError> {
    url.join(path).map_err(|_| DeliveryError::misconfigured("invalid feishu.api"))
}

fn json_request(http: &reqwest::Client, method: Method, url: Url, body: &Value) -> reqwest::RequestBuilder {
    let request = http.request(method, url).header("content-type", "application/json; charset=utf-8");
    request.body(body.to_string()).timeout(CHAT_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::message::Link;

    #[test]
    fn bot_signature_matches_the_known_value() {
        let sign = sign_bot_message(&Secret::new("demoSecret".into()), 1_599_360_473);
        assert_eq!(sign, "hE7UQWkmOU/sfLvRNkAU5iTOB+nke6JvdN9pJ9jSvNQ=");
    }

    #[test]
    fn bot_message_has_a_link_but_no_callback_button() {
        let now = Timestamp::from_second(1_599_360_473).unwrap();
        let message = Message {
            headline: "a".into(),
            link: Some(Link { label: "Console", url: "https://a/".into() }),
            ..Message::default()
        };
        let signed = build_bot_message(&message, Some(&Secret::new("demoSecret".into())), now);
        assert_eq!(signed.as_json()["timestamp"], "1599360473");
        assert_eq!(signed.as_json()["sign"], "hE7UQWkmOU/sfLvRNkAU5iTOB+nke6JvdN9pJ9jSvNQ=");
        let text = signed.as_json().to_string();
        assert!(text.contains("open_url") && !text.contains("\"callback\""), "{text}");
        assert_eq!(build_bot_message(&message, None, now).as_json().get("sign"), None);
    }
}

//! How cards get to Feishu: the tenant's token, messages by our app, and custom bots.

mod code;

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use url::Url;

use super::card::{MAX_BOT_BYTES, render_within};
use super::{AppSecret, is_id};
use crate::approval::Redelivery;
use crate::chat::message::Message;
use crate::chat::{POST_TIMEOUT, Undelivered, retry_after};
use crate::secret::{Secret, SecretUrl};
use crate::{clock, http as our_http};

pub use code::{Meaning, meaning};

/// The longest `uuid`: within an hour, Feishu posts a message with the same one only once.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
pub(super) const MAX_UUID_CHARS: usize = 50;

/// The app's token for the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantToken {
    /// The token (`t-…`).
    pub token: Secret,
    /// How long it is still valid: at most 2 h.
    pub valid_for: SignedDuration,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The token is refused: fetch another, and call once more. If that fails as well, it counts as undelivered.
    Token(Undelivered),
    /// The message that this one belongs to is gone: post it to the chat instead.
    Gone(Undelivered),
    /// The message was not delivered.
    Undelivered(Undelivered),
}

impl Failure {
    /// As the result of the last attempt.
    #[must_use]
    pub fn last(self) -> Undelivered {
        match self {
            Self::Token(undelivered) | Self::Gone(undelivered) | Self::Undelivered(undelivered) => undelivered,
        }
    }
}

/// Who gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver<'a> {
    /// A chat (`oc_…`).
    Chat(&'a str),
    /// One person, by `open_id` (`ou_…`).
    Person(&'a str),
}

/// A message that was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Names it (`om_…`).
    pub message_id: String,
    /// When Feishu created it: it can be changed for 14 days from then.
    pub created_at: Option<Timestamp>,
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Updated {
    /// Everybody sees the new card.
    Drawn,
    /// The message is gone.
    Gone,
    /// The message is older than 14 days, and stays as it is.
    WindowClosed,
}

/// The API, as our app in one tenant.
#[derive(Debug, Clone, Copy)]
pub struct Api<'a> {
    /// The one client.
    pub http: &'a reqwest::Client,
    /// Where it is; ends with a slash.
    pub url: &'a Url,
    /// The app's for the tenant.
    pub token: &'a Secret,
}

/// What the API answers.
#[derive(Deserialize)]
struct Answer {
    code: i64,
    tenant_access_token: Option<String>,
    expire: Option<i64>,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    message_id: Option<String>,
    create_time: Option<String>,
}

/// A refusal with Feishu's own code.
struct Refused {
    meaning: Meaning,
    undelivered: Undelivered,
}

impl From<Undelivered> for Refused {
    fn from(undelivered: Undelivered) -> Self {
        Self { meaning: Meaning::Later, undelivered }
    }
}

impl From<Refused> for Failure {
    fn from(Refused { meaning, undelivered }: Refused) -> Self {
        match meaning {
            Meaning::Token => Self::Token(undelivered),
            Meaning::Gone => Self::Gone(undelivered),
            Meaning::Soon
            | Meaning::Later
            | Meaning::Few
            | Meaning::WindowClosed
            | Meaning::NoThread
            | Meaning::Never => Self::Undelivered(undelivered),
        }
    }
}

/// Fetches a token. Feishu gives the same one until 30 min before it ends, and then both are valid.
///
/// Source: <https://open.feishu.cn/document/server-docs/authentication-management/access-token/tenant_access_token_internal>
pub async fn fetch_token(
    http: &reqwest::Client,
    url: &Url,
    app: &str,
    secret: &AppSecret,
) -> Result<TenantToken, Undelivered> {
    let body = json!({"app_id": app, "app_secret": secret.expose()});
    let url = join(url, "open-apis/auth/v3/tenant_access_token/internal")?;
    let answer = call(request(http, Method::POST, url, &body)).await.map_err(|refused| refused.undelivered)?;
    let valid_for = answer.expire.filter(|seconds| *seconds > 0).map(SignedDuration::from_secs);
    let token = answer.tenant_access_token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
    match (token, valid_for) {
        (Some(token), Some(valid_for)) if !token.is_empty() => Ok(TenantToken { token: Secret::new(token), valid_for }),
        _ => Err(refused("the answer has no token")),
    }
}

impl Api<'_> {
    /// Posts a card to a chat, or to one person.
    ///
    /// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
    pub async fn post(&self, receiver: Receiver<'_>, card: &Value, uuid: &str) -> Result<Posted, Failure> {
        let (kind, id, prefix) = match receiver {
            Receiver::Chat(id) => ("chat_id", id, "oc_"),
            Receiver::Person(id) => ("open_id", id, "ou_"),
        };
        if !is_id(id, prefix) {
            return Err(Failure::Undelivered(refused("the receiver's id is not one of Feishu's")));
        }
        let mut url = join(self.url, "open-apis/im/v1/messages").map_err(Failure::Undelivered)?;
        url.query_pairs_mut().append_pair("receive_id_type", kind);
        let content = card.to_string();
        let body = json!({"receive_id": id, "msg_type": "interactive", "content": content, "uuid": checked(uuid)?});
        posted(self.call(Method::POST, url, &body).await?)
    }

    /// Posts a card below a message, in its thread; in a group without threads, as a reply.
    ///
    /// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/reply>
    pub async fn reply_below(&self, message_id: &str, card: &Value, uuid: &str) -> Result<Posted, Failure> {
        let url = self.message(message_id, "/reply")?;
        let content = card.to_string();
        let body = |in_thread: bool| {
            let uuid = checked(uuid)?;
            Ok::<_, Failure>(json!({
                "msg_type": "interactive", "content": content, "reply_in_thread": in_thread, "uuid": uuid,
            }))
        };
        match self.call(Method::POST, url.clone(), &body(true)?).await {
            Err(Refused { meaning: Meaning::NoThread, .. }) => {
                posted(self.call(Method::POST, url, &body(false)?).await?)
            }
            answer => posted(answer?),
        }
    }

    /// Draws a card again, for everybody.
    ///
    /// Source: <https://open.feishu.cn/document/server-docs/im-v1/message-card/patch>
    pub async fn update(&self, message_id: &str, card: &Value) -> Result<Updated, Failure> {
        let url = self.message(message_id, "")?;
        match self.call(Method::PATCH, url, &json!({"content": card.to_string()})).await {
            Ok(_) => Ok(Updated::Drawn),
            Err(Refused { meaning: Meaning::Gone, .. }) => Ok(Updated::Gone),
            Err(Refused { meaning: Meaning::WindowClosed, .. }) => Ok(Updated::WindowClosed),
            Err(refused) => Err(refused.into()),
        }
    }

    fn message(&self, message_id: &str, rest: &str) -> Result<Url, Failure> {
        if !is_id(message_id, "om_") {
            return Err(Failure::Undelivered(refused("the message's id is not one of Feishu's")));
        }
        join(self.url, &format!("open-apis/im/v1/messages/{message_id}{rest}")).map_err(Failure::Undelivered)
    }

    async fn call(&self, method: Method, url: Url, body: &Value) -> Result<Answer, Refused> {
        call(request(self.http, method, url, body).bearer_auth(self.token.expose())).await
    }
}

fn checked(uuid: &str) -> Result<&str, Failure> {
    let fits = (1..=MAX_UUID_CHARS).contains(&uuid.len()) && uuid.is_ascii();
    if fits { Ok(uuid) } else { Err(Failure::Undelivered(refused("the uuid must have 1 to 50 characters"))) }
}

fn posted(answer: Answer) -> Result<Posted, Failure> {
    let data = answer.data.and_then(|data| Some((data.message_id?, data.create_time)));
    let Some((message_id, create_time)) = data.filter(|(id, _)| is_id(id, "om_")) else {
        return Err(Failure::Undelivered(refused("the answer does not say where the message is")));
    };
    let millis = create_time.and_then(|time| time.parse().ok());
    Ok(Posted { message_id, created_at: millis.and_then(|millis| Timestamp::from_millisecond(millis).ok()) })
}

/// A card for a custom bot, signed. It has no buttons: their clicks would reach nobody. The signature is not for logs, so
/// this has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct BotMessage(Value);

impl BotMessage {
    /// The body that is posted.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }
}

/// Makes the message of a custom bot; `secret` is the bot's, if it checks signatures.
///
/// Source: <https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot>
#[must_use]
pub fn bot_message(message: &Message, secret: Option<&Secret>, now: Timestamp) -> BotMessage {
    let message = Message { buttons: None, ..message.clone() };
    let card = render_within(&message, |_| String::new(), MAX_BOT_BYTES);
    let mut body = json!({"msg_type": "interactive", "card": card});
    if let (Some(secret), Some(fields)) = (secret, body.as_object_mut()) {
        let timestamp = now.as_second();
        fields.insert("timestamp".into(), timestamp.to_string().into());
        fields.insert("sign".into(), bot_sign(secret, timestamp).into());
    }
    BotMessage(body)
}

/// The signature of a custom bot's message: the key is the timestamp, a line break and the secret, and what is signed is
/// empty.
///
/// Source: <https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot>
#[must_use]
pub fn bot_sign(secret: &Secret, timestamp: i64) -> String {
    let key = format!("{timestamp}\n{}", secret.expose());
    BASE64_STANDARD.encode(mac(key.as_bytes()).finalize().into_bytes())
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length of key")
}

/// Posts to a custom bot. What is there can't be changed.
pub async fn post_bot(http: &reqwest::Client, url: &SecretUrl, message: &BotMessage) -> Result<(), Undelivered> {
    let request = request(http, Method::POST, url.expose().clone(), message.json());
    call(request).await.map(|_| ()).map_err(|refused| refused.undelivered)
}

/// A refusal comes with HTTP status 400, 429, or even 200; its code says more than the status.
async fn call(request: reqwest::RequestBuilder) -> Result<Answer, Refused> {
    let response = request.send().await.map_err(|error| Undelivered::transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = our_http::read(response).await.map_err(|error| Undelivered::transport(&error))?;
    let by_status = || Undelivered::status(status, &headers, clock::now());
    let soon = Redelivery::Soon(retry_after(&headers, clock::now()));
    let Ok(answer) = serde_json::from_slice::<Answer>(&body) else {
        let unreadable = || Undelivered { error: "unreadable answer".into(), retry: soon };
        return Err(if status.is_success() { unreadable() } else { by_status() }.into());
    };
    if answer.code == 0 {
        return if status.is_success() { Ok(answer) } else { Err(by_status().into()) };
    }
    let (known, words) = meaning(answer.code);
    let is_busy = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let retry = match known {
        Meaning::Token | Meaning::Later | Meaning::NoThread | Meaning::WindowClosed if !is_busy => Redelivery::Later,
        Meaning::Few if !is_busy => Redelivery::Few,
        Meaning::Gone | Meaning::Never => Redelivery::Never,
        Meaning::Soon | Meaning::Token | Meaning::Later | Meaning::NoThread | Meaning::WindowClosed | Meaning::Few => {
            soon
        }
    };
    let error = if words.is_empty() { answer.code.to_string() } else { format!("{}: {words}", answer.code) };
    Err(Refused { meaning: known, undelivered: Undelivered { error, retry } })
}

fn refused(error: &str) -> Undelivered {
    Undelivered { error: error.to_owned(), retry: Redelivery::Later }
}

fn join(url: &Url, path: &str) -> Result<Url, Undelivered> {
    url.join(path).map_err(|_| refused("invalid feishu.api"))
}

fn request(http: &reqwest::Client, method: Method, url: Url, body: &Value) -> reqwest::RequestBuilder {
    let request = http.request(method, url).header("content-type", "application/json; charset=utf-8");
    request.body(body.to_string()).timeout(POST_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bot_signatures_are_the_known_ones() {
        let sign = bot_sign(&Secret::new("demoSecret".into()), 1_599_360_473);
        assert_eq!(sign, "hE7UQWkmOU/sfLvRNkAU5iTOB+nke6JvdN9pJ9jSvNQ=");
    }

    #[test]
    fn a_bot_message_has_a_link_but_no_button_that_calls_back() {
        let now = Timestamp::from_second(1_599_360_473).unwrap();
        let message =
            Message { headline: "a".into(), link: Some(("Console", "https://a/".into())), ..Message::default() };
        let signed = bot_message(&message, Some(&Secret::new("demoSecret".into())), now);
        assert_eq!(signed.json()["timestamp"], "1599360473");
        assert_eq!(signed.json()["sign"], "hE7UQWkmOU/sfLvRNkAU5iTOB+nke6JvdN9pJ9jSvNQ=");
        let text = signed.json().to_string();
        assert!(text.contains("open_url") && !text.contains("\"callback\""), "{text}");
        assert_eq!(bot_message(&message, None, now).json().get("sign"), None);
    }
}

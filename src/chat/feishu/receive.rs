//! Callbacks and events of Feishu: authenticity, decryption, and what somebody wants.

mod envelope;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Request};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{
    BUTTON_NAME_PREFIX, CallbackKeys, Config, MAX_BINDING_CHARS, NAME, PlatformContext, REALM, REASON_FIELD,
    is_feishu_id,
};
use crate::approval::Principal;
use crate::chat::command::parse_command;
use crate::chat::{self, Authentic, Click, CommandRequest as Wanted, Incoming, MalformedRequest, Unauthentic};
#[cfg(feature = "local")]
use crate::clock;
use envelope::{SignedHeaders, decrypt_url_verification};

#[cfg(feature = "local")]
pub use envelope::{CallbackRequest, encrypt_body, encrypt_challenge, sign_callback};

/// A message that was written longer ago decides nothing: Feishu sends an event again for hours.
const MAX_TEXT_AGE: SignedDuration = SignedDuration::from_mins(10);
/// The longest text that somebody sends to the bot as a command, in bytes.
const MAX_TEXT_BYTES: usize = 4096;
/// The longest challenge, in bytes. Feishu's have 36.
const MAX_CHALLENGE_BYTES: usize = 256;

/// What shows without a secret that a request is not Feishu's.
pub(in crate::chat) fn precheck_request(request: &Request<Bytes>, now: Timestamp) -> Result<(), Unauthentic> {
    UnverifiedRequest::from_headers(request.headers(), request.body(), now).map(|_| ())
}

/// Verifies and decrypts a request.
pub(in crate::chat) async fn verify(
    access: PlatformContext<'_>,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    verify_with(&access.secrets.callbacks, request.headers(), request.body(), now)
}

/// Verifies a callback with every configured pair of keys, and decrypts it.
///
/// Source: <https://open.feishu.cn/document/server-docs/event-subscription-guide/event-subscription-configure-/encrypt-key-encryption-configuration-case>
///
/// # Errors
/// Why it is not authentic.
pub fn verify_with(
    keys: &[CallbackKeys],
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    UnverifiedRequest::from_headers(headers, body, now)?.verify(body, keys)
}

/// A request that could be Feishu's. Only the keys can verify it.
pub enum UnverifiedRequest<'a> {
    /// With well-formed and fresh headers.
    Signed(SignedHeaders<'a>),
    /// Without any of the headers: only the test of the address may come so.
    Unsigned {
        /// When it arrived.
        now: Timestamp,
    },
}

impl<'a> UnverifiedRequest<'a> {
    /// Reads the headers; needs no secret. Of an unsigned body only the form is looked at.
    pub fn from_headers(headers: &'a HeaderMap, body: &[u8], now: Timestamp) -> Result<Self, Unauthentic> {
        if envelope::is_unsigned(headers) {
            envelope::check_unsigned(body)?;
            return Ok(Self::Unsigned { now });
        }
        SignedHeaders::parse(headers, now).map(Self::Signed)
    }

    /// Verifies and decrypts the body. What comes of it holds the plaintext.
    pub fn verify(&self, body: &[u8], keys: &[CallbackKeys]) -> Result<Authentic, Unauthentic> {
        let (decrypted, signed_at) = match self {
            Self::Signed(signed) => (signed.verify_and_decrypt(body, keys)?, signed.signed_at()),
            Self::Unsigned { now } => (decrypt_url_verification(body, keys)?, *now),
        };
        // Of Feishu's own events each has an id, whenever and however often it is sent.
        let name = decrypted.event_id.as_deref().map_or(decrypted.plaintext.as_slice(), str::as_bytes);
        let request_key = format!("{REALM}:{:.32}", hex::encode(Sha256::digest(name)));
        let sender = NAME.to_owned();
        Ok(Authentic {
            body: Bytes::from(decrypted.plaintext),
            sender,
            request_key,
            signed_at,
            key_index: decrypted.key_index,
        })
    }
}

/// Where Feishu shows an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// To a click: in the reply, as a toast and the card; what is longer, to the person alone.
    Click {
        /// The person (`ou_…`).
        open_id: String,
    },
    /// To a text command: to the person alone.
    Text {
        /// The person (`ou_…`).
        open_id: String,
        /// The message (`om_…`).
        message_id: String,
    },
}

impl ReplyTo {
    pub(in crate::chat) fn log_label(&self) -> &'static str {
        match self {
            Self::Click { .. } => "Click",
            Self::Text { .. } => "Text",
        }
    }
}

#[derive(Deserialize)]
struct CallbackPayload<'a> {
    r#type: Option<String>,
    challenge: Option<String>,
    schema: Option<String>,
    header: Option<EventHeader>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct EventHeader {
    event_type: String,
    tenant_key: String,
    app_id: String,
}

/// Understands an authentic request.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-callback-communication> and
/// <https://open.feishu.cn/document/server-docs/im-v1/message/events/receive>
///
/// # Errors
/// What is wrong with its form.
pub fn parse(config: &Config, authentic: Authentic) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let Authentic { body, request_key, signed_at, key_index: key, .. } = authentic;
    let payload: CallbackPayload<'_> = parse_json(&body)?;
    if let Some(kind) = &payload.r#type {
        return challenge_reply(kind, payload.challenge);
    }
    let (Some("2.0"), Some(header), Some(event)) = (payload.schema.as_deref(), payload.header, payload.event) else {
        return Err(malformed_request("only events of schema 2.0 are understood"));
    };
    let origin = FeishuOrigin { request_key, signed_at, key_index: key };
    match header.event_type.as_str() {
        "card.action.trigger" => parse_click(event, &header, origin, config),
        "im.message.receive_v1" => parse_text_message(event, &header, origin, config),
        _ => Err(malformed_request("of the events, only card.action.trigger and im.message.receive_v1 are understood")),
    }
}

fn challenge_reply(kind: &str, challenge: Option<String>) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    match challenge {
        Some(challenge) if kind == "url_verification" && challenge.len() <= MAX_CHALLENGE_BYTES => {
            Ok(Incoming::Challenge(json!({"challenge": challenge}).to_string()))
        }
        Some(_) | None => Err(malformed_request("of the requests with a type, only url_verification is understood")),
    }
}

/// What names a request.
struct FeishuOrigin {
    request_key: String,
    signed_at: Timestamp,
    key_index: usize,
}

#[derive(Deserialize)]
struct CardActionEvent<'a> {
    operator: Operator,
    #[serde(borrow)]
    action: CardAction<'a>,
    context: CardLocation,
}

#[derive(Deserialize)]
struct Operator {
    tenant_key: String,
    open_id: String,
}

#[derive(Deserialize)]
struct CardAction<'a> {
    tag: String,
    name: Option<String>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    form_value: Option<BTreeMap<String, &'a RawValue>>,
}

#[derive(Deserialize)]
struct CardLocation {
    open_message_id: String,
    open_chat_id: String,
}

fn parse_click(
    event: &RawValue,
    header: &EventHeader,
    origin: FeishuOrigin,
    config: &Config,
) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let CardActionEvent { operator, action, context } = parse_json(event.get().as_bytes())?;
    let Operator { tenant_key, open_id } = operator;
    let CardLocation { open_message_id, open_chat_id } = context;
    check_ids(&open_message_id, &open_chat_id, &open_id)?;
    let by = allowed_principal(&tenant_key, &open_id, header, config)?;
    let to = ReplyTo::Click { open_id };
    let Some(by) = by else {
        return Ok(wrong_tenant(header, config, to));
    };
    if action.tag != "button" {
        return Err(malformed_request("of the components, only buttons are understood"));
    }
    // A button of somebody else's carries nothing of ours, and nothing is no binding.
    let binding = button_binding(&action)?.unwrap_or_default();
    let reason = action.form_value.as_ref().and_then(|form| form.get(REASON_FIELD));
    let reason: Option<String> = reason.map(|reason| parse_json(reason.get().as_bytes())).transpose()?;
    let reason = reason.as_deref().and_then(chat::normalize_reason);
    let message = Some(format!("{open_chat_id}/{open_message_id}"));
    let FeishuOrigin { request_key, signed_at, key_index: key } = origin;
    // The field for the reason is on the card.
    Ok(Incoming::Click {
        click: Click {
            by,
            request_key,
            signed_at,
            key_index: key,
            binding,
            message_ref: message,
            was_asked: true,
            reason,
        },
        reply_to: to,
    })
}

/// What a button of ours carries: its value is `{"b": BINDING}`, its name `b.BINDING`. Both of them count, since Feishu's
/// documents disagree on whether a button in a form has a value.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-components/interactive-components/button>
fn button_binding(action: &CardAction<'_>) -> Result<Option<String>, MalformedRequest> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ButtonValue {
        b: String,
    }
    let of_value =
        action.value.and_then(|value| serde_json::from_str::<ButtonValue>(value.get()).ok()).map(|ours| ours.b);
    let of_name = action.name.as_deref().and_then(|name| name.strip_prefix(BUTTON_NAME_PREFIX)).map(ToOwned::to_owned);
    let binding = match (of_value, of_name) {
        (Some(one), Some(other)) if one != other => {
            return Err(malformed_request("the button's value and name differ"));
        }
        (one, other) => one.or(other),
    };
    let fits = |binding: &String| (1..=MAX_BINDING_CHARS).contains(&binding.len());
    if binding.as_ref().is_none_or(fits) { Ok(binding) } else { Err(malformed_request("the button carries too much")) }
}

#[derive(Deserialize)]
struct MessageEvent {
    sender: MessageSender,
    message: EventMessage,
}

#[derive(Deserialize)]
struct MessageSender {
    sender_id: Option<MessageSenderId>,
    sender_type: String,
    tenant_key: String,
}

#[derive(Deserialize)]
struct MessageSenderId {
    open_id: String,
}

#[derive(Deserialize)]
struct EventMessage {
    message_id: String,
    chat_id: String,
    chat_type: Option<String>,
    create_time: Option<String>,
    message_type: String,
    content: String,
}

/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/events/receive>
fn parse_text_message(
    event: &RawValue,
    header: &EventHeader,
    origin: FeishuOrigin,
    config: &Config,
) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let MessageEvent { sender, message } = parse_json(event.get().as_bytes())?;
    // An answer to another bot could be answered, and so on.
    let Some(MessageSenderId { open_id }) = sender.sender_id.filter(|_| sender.sender_type == "user") else {
        return Ok(ignored_event());
    };
    // They decide about what they saw when they wrote it, however late it comes.
    let FeishuOrigin { request_key, signed_at: delivered_at, key_index: key } = origin;
    let written_at = message.create_time.as_deref().and_then(parse_millis).unwrap_or(delivered_at);
    let is_late = delivered_at.duration_since(written_at) > MAX_TEXT_AGE;
    let is_mentioned = message.chat_type.as_deref() != Some("group") || message.content.contains("@_user_");
    if is_late || !is_mentioned {
        return Ok(ignored_event());
    }
    check_ids(&message.message_id, &message.chat_id, &open_id)?;
    let by = allowed_principal(&sender.tenant_key, &open_id, header, config)?;
    let to = ReplyTo::Text { open_id, message_id: message.message_id };
    let Some(by) = by else {
        return Ok(wrong_tenant(header, config, to));
    };
    if message.message_type != "text" || message.content.len() > MAX_TEXT_BYTES {
        return Ok(Incoming::UnknownCommand(to));
    }
    Ok(match parse_command(&command_text_of(&message.content)?) {
        Some(command) => {
            let signed_at = delivered_at.min(written_at);
            Incoming::Command {
                request: Wanted { command, by, request_key, signed_at, key_index: key, clicked_card: None },
                reply_to: to,
            }
        }
        None => Incoming::UnknownCommand(to),
    })
}

/// What somebody wrote, without mentions, each white space one space.
fn command_text_of(content: &str) -> Result<String, MalformedRequest> {
    #[derive(Deserialize)]
    struct TextContent {
        text: String,
    }
    let TextContent { text } = parse_json(content.as_bytes())?;
    let words: Vec<_> = text.split_whitespace().filter(|word| !is_mention(word)).collect();
    Ok(words.join(" "))
}

fn ignored_event() -> Incoming<ReplyTo> {
    Incoming::Challenge("{}".to_owned())
}

/// A time in milliseconds.
fn parse_millis(text: &str) -> Option<Timestamp> {
    Timestamp::from_millisecond(text.parse().ok()?).ok()
}

/// Whether a word stands for somebody who is mentioned: `@_user_1`, or `@_all`.
fn is_mention(word: &str) -> bool {
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    word == "@_all" || word.strip_prefix("@_user_").is_some_and(is_number)
}

fn check_ids(message_id: &str, chat_id: &str, open_id: &str) -> Result<(), MalformedRequest> {
    let valid = is_feishu_id(message_id, "om_") && is_feishu_id(chat_id, "oc_") && is_feishu_id(open_id, "ou_");
    if valid { Ok(()) } else { Err(malformed_request("an id is not one of Feishu's")) }
}

/// The person, if they are of our tenant and use our app. The `open_id` names them: Feishu gives one to each user of an
/// app, and never another. The `user_id` can be changed by the tenant and needs a permission of its own; the `union_id` is
/// the same in all apps of one developer, so a click in another app would count as well.
///
/// Source: <https://open.feishu.cn/document/home/user-identity-introduction/introduction>
fn allowed_principal(
    tenant: &str,
    open_id: &str,
    header: &EventHeader,
    config: &Config,
) -> Result<Option<Principal>, MalformedRequest> {
    if header.app_id != config.app || header.tenant_key != config.tenant || tenant != config.tenant {
        return Ok(None);
    }
    let principal = Principal::new(REALM, tenant, open_id);
    principal.map(Some).map_err(|_| malformed_request("the user's id is not one of Feishu's"))
}

/// Somebody of another tenant, or for another app. Only a person who uses our app can be answered.
fn wrong_tenant(header: &EventHeader, config: &Config, to: ReplyTo) -> Incoming<ReplyTo> {
    Incoming::WrongTenant(Some(to).filter(|_| header.app_id == config.app))
}

/// Reads the whole text as one JSON document.
fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, MalformedRequest> {
    serde_json::from_slice(bytes).map_err(|error| MalformedRequest::from_json_error(&error))
}

fn malformed_request(problem: &str) -> MalformedRequest {
    MalformedRequest(problem.to_owned())
}

/// As Feishu would send a text command.
///
/// # Errors
/// When there are no keys.
#[cfg(feature = "local")]
pub fn sign(
    config: &Config,
    secrets: &super::Secrets,
    spec: &chat::EventSpec,
    now: Timestamp,
) -> Result<chat::SignedRequest, String> {
    let content = json!({"text": format!("@_user_1 {}", chat::command::command_text(spec))}).to_string();
    let plaintext = json!({
        "schema": "2.0",
        "header": {
            "event_id": clock::nonce(),
            "event_type": "im.message.receive_v1",
            "create_time": now.as_millisecond().to_string(),
            "token": secrets.callbacks.first().map(|keys| keys.verification_token.expose()),
            "app_id": config.app,
            "tenant_key": config.tenant,
        },
        "event": {
            "sender": {
                "sender_id": {"open_id": spec.actor}, "sender_type": "user", "tenant_key": config.tenant,
            },
            "message": {
                "message_id": "om_peergate", "chat_id": "oc_peergate", "message_type": "text", "content": content,
            },
        },
    });
    sign_plaintext(secrets, &plaintext.to_string(), now)
}

/// Any callback, signed as Feishu signs it.
///
/// # Errors
/// When there are no keys.
#[cfg(feature = "local")]
pub fn sign_plaintext(
    secrets: &super::Secrets,
    plaintext: &str,
    now: Timestamp,
) -> Result<chat::SignedRequest, String> {
    let keys = secrets.callbacks.first().ok_or("platforms.feishu.callbacks is empty")?;
    let (nonce, mut iv) = (clock::nonce(), [0; 16]);
    iv.iter_mut().zip(nonce.bytes()).for_each(|(to, from)| *to = from);
    let CallbackRequest { headers, body } = sign_callback(plaintext, keys, now, &nonce, iv);
    Ok(chat::SignedRequest { path: format!("/{REALM}"), headers, body })
}

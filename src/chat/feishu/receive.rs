//! What Feishu sends: authenticity and decryption, then clicks and text commands.

mod envelope;

use std::collections::{BTreeMap, BTreeSet};

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
#[cfg(feature = "local")]
use crate::chat::command::command_text;
use crate::chat::command::{parse_words, split_reason};
use crate::chat::command_words::{CommandProblem, UnknownCommand};
use crate::chat::request::normalize_reason;
use crate::chat::{
    Authentic, Click, Command, CommandRequest, ForeignRequest, Incoming, MalformedRequest, MessageRef, RequestOrigin,
    TenantMismatch, Unauthentic,
};
#[cfg(feature = "local")]
use crate::chat::{EventSpec, SignedRequest};
#[cfg(feature = "local")]
use crate::clock;
use envelope::{SignedHeaders, decrypt_url_verification};

#[cfg(feature = "local")]
pub use envelope::{CallbackRequest, encrypt_body, encrypt_challenge, sign_callback};

/// The age from which a text command is ignored: Feishu repeats an event for hours.
const MAX_TEXT_AGE: SignedDuration = SignedDuration::from_mins(10);
/// The longest text command, in bytes. A reason can have 400 characters of up to 12 bytes in JSON.
const MAX_TEXT_BYTES: usize = 16 * 1024;
/// The most mentions of a text that are shown by name.
const MAX_MENTIONS: usize = 50;
/// The longest challenge, in bytes. Feishu's have 36.
const MAX_CHALLENGE_BYTES: usize = 256;

/// Feishu's test of the address is encrypted, so it is verified like every other request.
pub(in crate::chat) fn is_address_test(_request: &Request<Bytes>) -> bool {
    false
}

/// Refuses what is not Feishu's under any secret.
pub(in crate::chat) fn precheck_request(request: &Request<Bytes>, now: Timestamp) -> Result<(), Unauthentic> {
    UnverifiedRequest::from_headers(request.headers(), request.body(), now).map(|_| ())
}

/// A request holds nothing about the platform itself.
pub(in crate::chat) async fn learn(_access: PlatformContext<'_>, _authentic: &Authentic) {}

/// Verifies and decrypts a request with the configured secrets.
pub(in crate::chat) async fn verify(
    access: PlatformContext<'_>,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    verify_with(&access.secrets.callbacks, request.headers(), request.body(), now)
}

/// Verifies a callback with every pair of keys, and decrypts it.
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

/// A request that may be Feishu's. Only the keys can verify it.
pub enum UnverifiedRequest<'a> {
    /// The headers are well-formed and fresh.
    Signed(SignedHeaders<'a>),
    /// There are no such headers. Only the test of the address may be unsigned.
    Unsigned {
        /// The time of arrival.
        now: Timestamp,
    },
}

impl<'a> UnverifiedRequest<'a> {
    /// Reads the headers; needs no secret. Of an unsigned body, only the form is checked.
    pub fn from_headers(headers: &'a HeaderMap, body: &[u8], now: Timestamp) -> Result<Self, Unauthentic> {
        if envelope::is_unsigned(headers) {
            envelope::check_unsigned(body)?;
            return Ok(Self::Unsigned { now });
        }
        SignedHeaders::parse(headers, now).map(Self::Signed)
    }

    /// Verifies and decrypts the body. The result holds the plaintext.
    pub fn verify(&self, body: &[u8], keys: &[CallbackKeys]) -> Result<Authentic, Unauthentic> {
        let (decrypted, signed_at) = match self {
            Self::Signed(signed) => (signed.verify_and_decrypt(body, keys)?, signed.signed_at()),
            Self::Unsigned { now } => (decrypt_url_verification(body, keys)?, *now),
        };
        // Feishu repeats an event with the same id.
        let name = decrypted.event_id.as_deref().map_or(decrypted.plaintext.as_slice(), str::as_bytes);
        let request_key = format!("{REALM}:{:.32}", hex::encode(Sha256::digest(name)));
        let origin = RequestOrigin { request_key, signed_at, key_index: decrypted.key_index };
        Ok(Authentic { body: Bytes::from(decrypted.plaintext), sender: NAME.to_owned(), origin, single_use: None })
    }
}

/// Where Feishu shows the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// To a click: a toast and the updated card in the HTTP response. A longer answer is posted to the person.
    Click {
        /// The person's id (`ou_…`).
        open_id: String,
    },
    /// To a text command: posted to the person.
    Text {
        /// The person's id (`ou_…`).
        open_id: String,
        /// The command's message (`om_…`).
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

    /// Feishu's messages have no address.
    #[expect(clippy::unused_self, reason = "other platforms have links")]
    pub(in crate::chat) fn message_link(&self, _place: &MessageRef) -> Option<String> {
        None
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

/// Parses an authentic request.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-callback-communication> and
/// <https://open.feishu.cn/document/server-docs/im-v1/message/events/receive>
///
/// # Errors
/// What is not understood.
pub fn parse(config: &Config, authentic: Authentic) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let Authentic { body, origin, .. } = authentic;
    let payload: CallbackPayload<'_> = MalformedRequest::parse_json(&body)?;
    if let Some(kind) = &payload.r#type {
        return challenge_reply(kind, payload.challenge);
    }
    let (Some("2.0"), Some(header), Some(event)) = (payload.schema.as_deref(), payload.header, payload.event) else {
        return Err(MalformedRequest::new("only events of schema 2.0 are understood"));
    };
    match header.event_type.as_str() {
        "card.action.trigger" => parse_click(event, &header, origin, config),
        "im.message.receive_v1" => parse_text_message(event, &header, origin, config),
        _ => Err(MalformedRequest::new(
            "of the events, only card.action.trigger and im.message.receive_v1 are understood",
        )),
    }
}

fn challenge_reply(kind: &str, challenge: Option<String>) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    match challenge {
        Some(challenge) if kind == "url_verification" && challenge.len() <= MAX_CHALLENGE_BYTES => {
            Ok(Incoming::Challenge(json!({"challenge": challenge}).to_string()))
        }
        Some(_) | None => {
            Err(MalformedRequest::new("of the requests with a type, only url_verification is understood"))
        }
    }
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
    origin: RequestOrigin,
    config: &Config,
) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let CardActionEvent { operator, action, context } = MalformedRequest::parse_json(event.get().as_bytes())?;
    let Operator { tenant_key, open_id } = operator;
    let CardLocation { open_message_id, open_chat_id } = context;
    check_ids(&open_message_id, &open_chat_id, &open_id)?;
    let by = allowed_principal(&tenant_key, &open_id, header, config)?;
    let to = ReplyTo::Click { open_id };
    let Some(by) = by else {
        return Ok(wrong_tenant(header, &tenant_key, config, to));
    };
    if action.tag != "button" {
        return Err(MalformedRequest::new("of the components, only buttons are understood"));
    }
    // The button of another app has no binding.
    let binding = button_binding(&action)?.unwrap_or_default();
    let reason = action.form_value.as_ref().and_then(|form| form.get(REASON_FIELD));
    let reason: Option<String> =
        reason.map(|reason| MalformedRequest::parse_json(reason.get().as_bytes())).transpose()?;
    let reason = reason.as_deref().and_then(normalize_reason);
    let message_ref = Some(MessageRef { channel: open_chat_id, message_id: open_message_id }.to_string());
    // The card itself has the input for the reason.
    let click = Click { by, origin, binding, message_ref, was_asked: true, reason };
    Ok(Incoming::Click { click, reply_to: to })
}

/// The binding of a button of ours: its value is `{"b": BINDING}`, and its name is `b.BINDING`. Both are read, because
/// Feishu's documents disagree on whether a button in a form has a value.
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
            return Err(MalformedRequest::new("the button's value and name differ"));
        }
        (one, other) => one.or(other),
    };
    let fits = |binding: &String| (1..=MAX_BINDING_CHARS).contains(&binding.len());
    if binding.as_ref().is_none_or(fits) {
        Ok(binding)
    } else {
        Err(MalformedRequest::new("the button's binding is too long"))
    }
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
    #[serde(default)]
    mentions: Vec<Mention>,
}

/// What a placeholder in a text stands for.
#[derive(Deserialize)]
struct Mention {
    /// e.g. `@_user_1`.
    key: String,
    /// The name that the sender saw.
    name: Option<String>,
}

/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/events/receive>
fn parse_text_message(
    event: &RawValue,
    header: &EventHeader,
    origin: RequestOrigin,
    config: &Config,
) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let MessageEvent { sender, message } = MalformedRequest::parse_json(event.get().as_bytes())?;
    // Answering another bot could cause an endless exchange.
    let Some(MessageSenderId { open_id }) = sender.sender_id.filter(|_| sender.sender_type == "user") else {
        return Ok(ignored_event());
    };
    // People decide on what they saw when they wrote the command, however late it arrives.
    let written_at = message.create_time.as_deref().and_then(parse_millis).unwrap_or(origin.signed_at);
    let is_late = origin.signed_at.duration_since(written_at) > MAX_TEXT_AGE;
    let is_mentioned = message.chat_type.as_deref() != Some("group") || message.content.contains("@_user_");
    if is_late || !is_mentioned {
        return Ok(ignored_event());
    }
    check_ids(&message.message_id, &message.chat_id, &open_id)?;
    let by = allowed_principal(&sender.tenant_key, &open_id, header, config)?;
    let to = ReplyTo::Text { open_id, message_id: message.message_id.clone() };
    let Some(by) = by else {
        return Ok(wrong_tenant(header, &sender.tenant_key, config, to));
    };
    Ok(match parse_message(&message)? {
        Ok(command) => {
            let origin = RequestOrigin { signed_at: origin.signed_at.min(written_at), ..origin };
            Incoming::Command { request: CommandRequest { command, by, origin, clicked_card: None }, reply_to: to }
        }
        Err(error) => Incoming::UnknownCommand { error, reply_to: to },
    })
}

/// The command of a message. Feishu writes a mention as a placeholder. The only mention before the reason addresses the bot,
/// and is left out.
fn parse_message(message: &EventMessage) -> Result<Result<Command, UnknownCommand>, MalformedRequest> {
    #[derive(Deserialize)]
    struct TextContent {
        text: String,
    }
    let not_understood = |problem| Ok(Err(UnknownCommand::NotUnderstood { problem, suggestions: vec![] }));
    if message.message_type != "text" {
        return not_understood(CommandProblem::NotText);
    }
    if message.content.len() > MAX_TEXT_BYTES {
        return not_understood(CommandProblem::TooLong);
    }
    let TextContent { text } = MalformedRequest::parse_json(message.content.as_bytes())?;
    let (mut words, reason) = split_reason(&text);
    // The bot is one of those whom the message mentions. A command that mentions others, too, may be meant for them.
    let mentioned: BTreeSet<_> = words.iter().filter(|word| is_mention(word)).collect();
    if mentioned.len() == 1 {
        words.retain(|word| !is_mention(word));
    }
    let reason = reason.map(|reason| with_names(reason, &message.mentions));
    Ok(parse_words(&words, reason.as_deref()))
}

/// A text with the names that its sender saw, in place of Feishu's placeholders.
fn with_names(text: &str, mentions: &[Mention]) -> String {
    let mut named: Vec<_> = mentions.iter().filter(|mention| is_mention(&mention.key)).take(MAX_MENTIONS).collect();
    // `@_user_1` is also the beginning of `@_user_12`.
    named.sort_by_key(|mention| std::cmp::Reverse(mention.key.len()));
    let replace = |text: String, mention: &&Mention| match &mention.name {
        Some(name) => text.replace(&mention.key, &format!("@{name}")),
        None => text,
    };
    named.iter().fold(text.to_owned(), replace)
}

fn ignored_event() -> Incoming<ReplyTo> {
    Incoming::Challenge("{}".to_owned())
}

/// Parses a time in milliseconds.
fn parse_millis(text: &str) -> Option<Timestamp> {
    Timestamp::from_millisecond(text.parse().ok()?).ok()
}

/// Whether a word is a mention: `@_user_1`, or `@_all`.
fn is_mention(word: &str) -> bool {
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    word == "@_all" || word.strip_prefix("@_user_").is_some_and(is_number)
}

fn check_ids(message_id: &str, chat_id: &str, open_id: &str) -> Result<(), MalformedRequest> {
    let valid = is_feishu_id(message_id, "om_") && is_feishu_id(chat_id, "oc_") && is_feishu_id(open_id, "ou_");
    if valid { Ok(()) } else { Err(MalformedRequest::new("an id is not one of Feishu's")) }
}

/// The person. `None` unless they belong to our tenant and use our app. The `open_id` identifies them: it never changes and is
/// different in each app. A tenant can change the `user_id`, and reading it requires another permission. The `union_id` is the
/// same in all apps of a developer, so a click in another app would count.
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
    principal.map(Some).map_err(|_| MalformedRequest::new("the user's id is not one of Feishu's"))
}

/// The request is for another tenant or another app. Only a user of our app can be answered.
fn wrong_tenant(header: &EventHeader, tenant: &str, config: &Config, to: ReplyTo) -> Incoming<ReplyTo> {
    // The user and the app can belong to different tenants.
    let tenant = if header.tenant_key == config.tenant { tenant } else { &header.tenant_key };
    let mismatch = TenantMismatch::new([tenant, &header.app_id], [config.tenant.as_str()], &config.app);
    Incoming::WrongTenant(ForeignRequest { reply_to: Some(to).filter(|_| header.app_id == config.app), mismatch })
}

/// Signs a text command as Feishu would.
///
/// # Errors
/// When there are no keys.
#[cfg(feature = "local")]
pub fn sign(
    config: &Config,
    secrets: &super::Secrets,
    spec: &EventSpec,
    now: Timestamp,
) -> Result<SignedRequest, String> {
    let content = json!({"text": format!("@_user_1 {}", command_text(spec))}).to_string();
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

/// Signs any callback as Feishu would.
///
/// # Errors
/// When there are no keys.
#[cfg(feature = "local")]
pub fn sign_plaintext(secrets: &super::Secrets, plaintext: &str, now: Timestamp) -> Result<SignedRequest, String> {
    let keys = secrets.callbacks.first().ok_or("platforms.feishu.callbacks is empty")?;
    let (nonce, mut iv) = (clock::nonce(), [0; 16]);
    iv.iter_mut().zip(nonce.bytes()).for_each(|(to, from)| *to = from);
    let CallbackRequest { headers, body } = sign_callback(plaintext, keys, now, &nonce, iv);
    Ok(SignedRequest { path: format!("/{REALM}"), headers, body })
}

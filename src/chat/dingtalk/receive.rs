//! What DingTalk sends: authenticity, then clicks and messages to the robot.

mod message;
mod proof;

use bytes::Bytes;
use http::Request;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
#[cfg(feature = "local")]
use serde_json::json;

use super::{CONTRACT_BUTTONS, Config, MAX_BINDING_CHARS, PlatformContext, REALM, is_conversation_id, is_dingtalk_id};
use crate::approval::Principal;
use crate::chat::binding::unverified_button;
#[cfg(feature = "local")]
use crate::chat::command::command_text;
use crate::chat::malformed::JsonObject;
use crate::chat::request::normalize_reason;
use crate::chat::{
    Authentic, Click, ForeignRequest, Incoming, MalformedRequest, MessageRef, RequestOrigin, TenantMismatch,
    Unauthentic,
};
#[cfg(feature = "local")]
use crate::chat::{EventSpec, SignedRequest};
#[cfg(feature = "local")]
use crate::clock;

pub use message::ReplyTo;
pub use proof::{RequestKind, UnverifiedRequest, verify_with};
#[cfg(feature = "local")]
pub use proof::{sign_card_callback, sign_robot_message};

/// The `userIdType` of a `userId`. The other one is that of a `unionId`.
///
/// Source: <https://open.dingtalk.com/document/development/event-callback-card>
const USER_ID_TYPE: i64 = 1;

/// DingTalk has no test of the address.
pub(in crate::chat) fn is_address_test(_request: &Request<Bytes>) -> bool {
    false
}

/// Refuses what is not DingTalk's under any secret.
pub(in crate::chat) fn precheck_request(request: &Request<Bytes>, now: Timestamp) -> Result<(), Unauthentic> {
    UnverifiedRequest::from_headers(request.headers(), now).map(|_| ())
}

/// A request holds nothing about the platform itself.
pub(in crate::chat) async fn learn(_access: PlatformContext<'_>, _authentic: &Authentic) {}

/// Verifies a request with the configured secrets.
pub(in crate::chat) async fn verify(
    access: PlatformContext<'_>,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    let path = request.uri().path().trim_end_matches('/');
    let path_secret = path.rsplit('/').next().unwrap_or_default();
    verify_with(access.secrets, path_secret, request.headers(), request.body(), now)
}

/// Parses an authentic request. A signature of one kind proves no request of the other kind.
///
/// # Errors
/// What is not understood.
pub fn parse(config: &Config, authentic: Authentic) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let kind = RequestKind::of(&authentic);
    let Authentic { body, origin, .. } = authentic;
    match kind {
        RequestKind::Card => parse_click(&body, origin, config),
        RequestKind::Robot => message::parse_message(&body, origin, config),
    }
}

/// Source: <https://open.dingtalk.com/document/development/event-callback-card>
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CardCallback {
    r#type: String,
    out_track_id: String,
    corp_id: String,
    user_id: String,
    user_id_type: Option<i64>,
    space_id: Option<String>,
    content: Option<String>,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClickContent {
    card_private_data: ClickedButton,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClickedButton {
    action_ids: Vec<String>,
    #[serde(default)]
    params: ButtonParams,
}

#[derive(Default, Deserialize)]
struct ButtonParams {
    binding: Option<String>,
    reason: Option<String>,
    form: Option<ReasonFields>,
}

#[derive(Deserialize)]
struct ReasonFields {
    reason: Option<String>,
}

fn parse_click(body: &[u8], origin: RequestOrigin, config: &Config) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let JsonObject(callback) = MalformedRequest::parse_json::<JsonObject<CardCallback>>(body)?;
    if callback.r#type != "actionCallback" {
        return Err(MalformedRequest::new("type: of the callbacks, only actionCallback is understood"));
    }
    if callback.user_id_type.is_some_and(|kind| kind != USER_ID_TYPE) {
        return Err(MalformedRequest::new("userIdType: expected 1: the configuration lists people by userId"));
    }
    let CardCallback { out_track_id, corp_id, user_id, space_id, .. } = &callback;
    if !is_dingtalk_id(out_track_id, "") || !is_dingtalk_id(user_id, "") {
        return Err(MalformedRequest::new("an id is not one of DingTalk's"));
    }
    let to = ReplyTo::Click { user_id: user_id.clone() };
    if *corp_id != config.corp {
        return Ok(wrong_tenant(corp_id, config, Some(to)));
    }
    let by = allowed_principal(corp_id, user_id)?;
    let ClickedButton { action_ids, params } = clicked_button(&callback)?;
    let ButtonParams { binding, reason, form } = params;
    let binding = checked_binding(binding, &action_ids)?;
    let reason = match (reason, form.and_then(|form| form.reason)) {
        (Some(one), Some(other)) if one != other => {
            return Err(MalformedRequest::new("the reason and that of the form differ"));
        }
        (one, other) => one.or(other),
    };
    let reason = reason.as_deref().and_then(normalize_reason);
    let channel = space_id.as_deref().and_then(named_conversation).unwrap_or_default().to_owned();
    let message_ref = Some(MessageRef { channel, message_id: out_track_id.clone() }.to_string());
    // The card itself has the input for the reason.
    let click = Click { by, origin, binding, message_ref, was_asked: true, reason };
    Ok(Incoming::Click { click, reply_to: to })
}

/// What was clicked. It is a JSON text in `content`, in `value`, or in both.
fn clicked_button(callback: &CardCallback) -> Result<ClickedButton, MalformedRequest> {
    let mut texts = [&callback.content, &callback.value].into_iter().flatten();
    let text = texts.next().ok_or_else(|| MalformedRequest::new("content: missing"))?;
    if let Some(other) = texts.next() {
        let read = |text: &str| MalformedRequest::parse_json::<Value>(text.as_bytes());
        if read(text)? != read(other)? {
            return Err(MalformedRequest::new("content and value differ"));
        }
        // Members that occur twice are refused in both.
        MalformedRequest::parse_json::<JsonObject<ClickContent>>(other.as_bytes())?;
    }
    let content = MalformedRequest::parse_json::<JsonObject<ClickContent>>(text.as_bytes());
    content.map(|JsonObject(content)| content.card_private_data)
}

/// The binding of a button of ours; empty if the button is not ours. The person read the label that belongs to the action,
/// so a binding for something else is refused.
fn checked_binding(binding: Option<String>, action_ids: &[String]) -> Result<String, MalformedRequest> {
    let Some(binding) = binding.filter(|binding| !binding.is_empty()) else { return Ok(String::new()) };
    if binding.len() > MAX_BINDING_CHARS {
        return Err(MalformedRequest::new("the button's binding is too long"));
    }
    let Some(button) = unverified_button(&binding) else { return Ok(binding) };
    let mut own = CONTRACT_BUTTONS.iter().filter(|own| own.matches(button));
    match action_ids {
        [action] if own.any(|own| own.action_id == action) => Ok(binding),
        _ => Err(MalformedRequest::new("the action of the button and its binding differ")),
    }
}

/// The group of a click, if it is named in the form that the configuration has. Other forms say nothing: the card's id
/// decides.
fn named_conversation(space_id: &str) -> Option<&str> {
    let id = space_id.rsplit_once("IM_GROUP.").map_or(space_id, |(_, id)| id);
    is_conversation_id(id).then_some(id)
}

fn allowed_principal(corp: &str, user_id: &str) -> Result<Principal, MalformedRequest> {
    Principal::new(REALM, corp, user_id).map_err(|_| MalformedRequest::new("the person's id is not one of DingTalk's"))
}

/// The request is of another corporation.
fn wrong_tenant(corp: &str, config: &Config, reply_to: Option<ReplyTo>) -> Incoming<ReplyTo> {
    let mismatch = TenantMismatch::new([corp, &config.app], [config.corp.as_str()], &config.app);
    Incoming::WrongTenant(ForeignRequest { reply_to, mismatch })
}

/// Signs a text command as DingTalk would.
///
/// # Errors
/// When a secret is missing.
#[cfg(feature = "local")]
pub fn sign(
    config: &Config,
    secrets: &super::Secrets,
    spec: &EventSpec,
    now: Timestamp,
) -> Result<SignedRequest, String> {
    let body = json!({
        "msgId": clock::nonce(),
        "createAt": now.as_millisecond(),
        "conversationId": "cidpeergate==",
        "conversationType": "2",
        "senderStaffId": spec.actor,
        "senderCorpId": spec.tenant.as_ref().unwrap_or(&config.corp),
        "chatbotCorpId": config.corp,
        "robotCode": config.app,
        "msgtype": "text",
        "text": {"content": format!(" {}", command_text(spec))},
    });
    sign_robot_message(secrets, &body.to_string(), now)
}

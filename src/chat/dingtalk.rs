//! DingTalk: [`receive`] takes clicks and text commands; [`card`], [`api`] and [`deliver`] send cards and messages.
//!
//! DingTalk's signatures cover only the time, so they prove nothing about the body. Buttons carry a MAC of ours, words
//! never decide, and each signature is taken once.

mod api;
mod card;
mod code;
mod config;
mod deliver;
mod receive;
mod robot;
mod secrets;

use std::time::Duration;

use http::Method;
use jiff::SignedDuration;

use super::{Capabilities, CommandScope, Pace, ReplyRedraw, RequestShape};

pub use api::{AppCallError, CardSpace, DingTalkApi, PostedCard, RegisterOutcome, fetch_token};
pub use card::{
    CONTRACT_BUTTONS, CardVariables, ContractButton, MAX_BODY_VARIABLES, MAX_KEY_BYTES, MAX_VALUE_BYTES,
    PRIVATE_VARIABLE, check_variables, contract_variables, message_text, render_card, reply_json,
};
pub use config::{Channel, Config, RobotChannel};
pub(super) use config::{
    binding_key_material, check_config, check_principal, check_secrets, merged_tenants, request_signers,
    secret_format_hints,
};
pub use deliver::State;
#[cfg(feature = "local")]
pub(super) use deliver::register_webhook;
pub(super) use deliver::{ask_reason, config_errors, reply};
pub use receive::{ReplyTo, RequestKind, UnverifiedRequest, parse, verify_with};
pub(super) use receive::{is_address_test, learn, precheck_request, verify};
#[cfg(feature = "local")]
pub use receive::{sign, sign_card_callback, sign_robot_message};
pub use robot::{post_robot, sign_robot_url};
pub use secrets::{ApiSecret, DingTalkSecret, InvalidDingTalkSecret, PathSecret, Secrets};

/// The name of its table and of its secret.
pub const NAME: &str = "dingtalk";
/// Its name for people.
#[cfg(feature = "local")]
pub(super) const TITLE: &str = "DingTalk";
/// The first part of its principals and of its path.
pub const REALM: &str = "dingtalk";
/// The form of its requests. The second segment is a path secret.
pub(super) const REQUEST_SHAPE: RequestShape =
    RequestShape { extra_segments: 1, methods: &[Method::POST], content_types: &["application/json"] };
/// DingTalk waits 2 s for the answer to a click. This leaves 0.9 s for the network, a cold start and a private answer.
///
/// Source: <https://open.dingtalk.com/document/development/event-callback-card>
pub(super) const DEADLINE: Duration = Duration::from_millis(1100);
/// When a private answer must be posted, and the response must be on its way.
///
/// Source: <https://open.dingtalk.com/document/development/event-callback-card>
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_millis(1700);
/// A `userId` belongs to one corporation: another one may have the same.
pub(super) const USERS_SPAN_TENANTS: Option<&str> = None;
/// The longest binding that we put into a button, in characters.
pub const MAX_BINDING_CHARS: usize = 512;
/// DingTalk signs only the time, so what people write proves nothing.
pub(super) const COMMAND_SCOPE: CommandScope = CommandScope::Questions;
/// The HTTP response to a click can update the card, for the person who clicked.
pub(super) const REPLY_REDRAW: ReplyRedraw = ReplyRedraw::AnyCard;
/// Text commands carry no fingerprint.
#[cfg(feature = "local")]
pub(super) const COMMANDS_CARRY_FINGERPRINTS: bool = false;

/// What a group can do. An app makes about 20 calls of one kind a second, and the processes of peergate share them. There
/// is no modal: the card itself has an input for the reason.
///
/// Source: <https://open.dingtalk.com/document/development/frequency-limit-for-calling-server-apis>
const CARD_CAPABILITIES: Capabilities = Capabilities {
    can_edit: true,
    edit_window: None,
    can_thread: false,
    can_open_modal: false,
    can_reply_privately: true,
    can_mention: true,
    is_for_people: true,
    max_binding_chars: MAX_BINDING_CHARS,
    pace: Pace { per_channel: SignedDuration::from_millis(200), per_app: SignedDuration::from_millis(100) },
};
/// What a custom robot can do. It makes 20 posts a minute; after more, it is silent for ten minutes. It receives no clicks,
/// so its messages have no buttons.
///
/// Source: <https://open.dingtalk.com/document/orgapp/custom-robot-access>
const ROBOT_CAPABILITIES: Capabilities = Capabilities {
    can_edit: false,
    edit_window: None,
    can_thread: false,
    can_open_modal: false,
    can_reply_privately: false,
    can_mention: false,
    is_for_people: true,
    max_binding_chars: 0,
    pace: Pace { per_channel: SignedDuration::from_millis(3200), per_app: SignedDuration::ZERO },
};

/// The parameter of a button that carries the binding.
pub const BINDING_PARAM: &str = "binding";
/// The parameter of a button that carries the reason, and the name of the field if the template has a form.
pub const REASON_PARAM: &str = "reason";
/// The longest id of an app, corporation, person, group or card that we accept, in characters.
const MAX_ID_CHARS: usize = 128;

type PlatformContext<'a> = super::PlatformContext<'a, Config, Secrets, State>;

/// Whether a text can be an id of DingTalk with that prefix: letters, digits, `_`, `-`, `.` and `@`.
fn is_dingtalk_id(text: &str, prefix: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte);
    let rest = text.strip_prefix(prefix).unwrap_or_default();
    !rest.is_empty() && text.len() <= MAX_ID_CHARS && rest.bytes().all(allowed)
}

/// Whether a text can be the id of a group: `cid` and base64.
fn is_conversation_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    let rest = text.strip_prefix("cid").unwrap_or_default();
    !rest.is_empty() && text.len() <= MAX_ID_CHARS && rest.bytes().all(allowed)
}

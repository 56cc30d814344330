//! Feishu and Lark: [`receive`] takes clicks and text commands; [`card`], [`post`] and [`deliver`] send cards. Both sites have
//! the same API, but separate accounts and hosts.

mod card;
mod config;
mod deliver;
mod post;
mod receive;
mod secrets;

use std::time::Duration;

use http::Method;
use jiff::SignedDuration;

use super::{Capabilities, CommandScope, Pace, ReplyRedraw, RequestShape};

pub use card::{
    CardError, MAX_BOT_BYTES, MAX_CARD_BYTES, MAX_ELEMENTS, ToastKind, check_card, render_card, reply_json,
    request_size_bytes, toast_json,
};
pub use config::{BotChannel, Channel, Config, Host};
pub(super) use config::{
    binding_key_material, check_config, check_principal, check_secrets, merged_tenants, request_signers,
    secret_format_hints,
};
pub use deliver::State;
#[cfg(feature = "local")]
pub(super) use deliver::register_webhook;
pub(super) use deliver::{ask_reason, config_errors, reply};
pub use post::{
    BotMessage, CallError, CardUpdate, FeishuApi, PostedMessage, Receiver, build_bot_message, fetch_token, post_bot,
    sign_bot_message,
};
#[cfg(feature = "local")]
pub use receive::{CallbackRequest, encrypt_body, encrypt_challenge, sign, sign_callback, sign_plaintext};
pub use receive::{ReplyTo, UnverifiedRequest, parse, verify_with};
pub(super) use receive::{is_address_test, learn, precheck_request, verify};
pub use secrets::{AppSecret, CallbackKeys, EncryptKey, InvalidFeishuSecret, Secrets, VerificationToken};

/// The name of its table and of its secret.
pub const NAME: &str = "feishu";
/// Its name for people.
#[cfg(feature = "local")]
pub(super) const TITLE: &str = "Feishu and Lark";
/// The first part of its principals and of its path.
pub const REALM: &str = "feishu";
/// The form of its requests.
pub(super) const REQUEST_SHAPE: RequestShape =
    RequestShape { extra_segments: 0, methods: &[Method::POST], content_types: &["application/json"] };
/// Feishu waits 3 s. This leaves a second for the network, a cold start and a private reply.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-callback-communication>
pub(super) const DEADLINE: Duration = Duration::from_millis(1900);
/// When a private reply must be posted, and the response must be on its way.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_millis(2600);
/// An `open_id` belongs to one app in one tenant.
pub(super) const USERS_SPAN_TENANTS: Option<&str> = None;
/// The longest binding that we put into a button, in characters.
pub const MAX_BINDING_CHARS: usize = 512;
/// Feishu signs every request as a whole.
pub(super) const COMMAND_SCOPE: CommandScope = CommandScope::Everything;
/// The HTTP response to a click can update the card for everybody.
pub(super) const REPLY_REDRAW: ReplyRedraw = ReplyRedraw::AnyCard;
/// Text commands carry no fingerprint.
#[cfg(feature = "local")]
pub(super) const COMMANDS_CARRY_FINGERPRINTS: bool = false;

/// How long a card can be updated.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message-card/patch>
const EDIT_WINDOW: SignedDuration = SignedDuration::from_hours(14 * 24);
/// What a chat can do. A chat takes 5 posts a second, and an app makes 1000 a minute. It needs no modal: the card itself
/// has an input for the reason.
const CARD_CAPABILITIES: Capabilities = Capabilities {
    can_edit: true,
    edit_window: Some(EDIT_WINDOW),
    can_thread: true,
    can_open_modal: false,
    can_reply_privately: true,
    can_mention: true,
    is_for_people: true,
    max_binding_chars: MAX_BINDING_CHARS,
    pace: Pace { per_channel: SignedDuration::from_millis(220), per_app: SignedDuration::from_millis(60) },
};
/// What a custom bot can do. It makes 100 posts a minute. It receives no clicks, so its messages have no buttons.
const BOT_CAPABILITIES: Capabilities = Capabilities {
    can_edit: false,
    edit_window: None,
    can_thread: false,
    can_open_modal: false,
    can_reply_privately: false,
    can_mention: false,
    is_for_people: true,
    max_binding_chars: 0,
    pace: Pace { per_channel: SignedDuration::from_millis(600), per_app: SignedDuration::ZERO },
};

/// The name of the input for a reason.
const REASON_FIELD: &str = "reason";
/// The start of the `name` of our buttons; the binding follows it.
const BUTTON_NAME_PREFIX: &str = "b.";
/// The longest id of an app, tenant, user, chat or message that we accept, in characters.
const MAX_ID_CHARS: usize = 128;

type PlatformContext<'a> = super::PlatformContext<'a, Config, Secrets, State>;

/// Whether a text is an id of Feishu with that prefix.
fn is_feishu_id(text: &str, prefix: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let rest = text.strip_prefix(prefix).unwrap_or_default();
    !rest.is_empty() && text.len() <= MAX_ID_CHARS && rest.bytes().all(allowed)
}

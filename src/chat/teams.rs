//! Microsoft Teams: [`receive`] takes clicks and questions of a bot; [`card`], [`connector`] and [`deliver`] send cards.
//! A request has a token of Microsoft ([`token`], [`keys`]) that says who sends it, but does not cover its body.

mod access_token;
mod card;
mod config;
mod connector;
mod deliver;
mod keys;
mod receive;
mod reference;
#[cfg(feature = "local")]
mod register;
mod secrets;
#[cfg(feature = "local")]
mod signing;
mod token;
mod workflow;

use std::time::Duration;

use http::Method;
use jiff::SignedDuration;

use super::{Capabilities, CommandScope, Pace, ReplyRedraw, RequestShape};

pub use card::{
    CardTooLarge, MAX_CARD_BYTES, MAX_WORKFLOW_BYTES, activity_size_bytes, check_size, private_message_json,
    render_activity, render_card, render_for_workflow,
};
pub use config::{Channel, Cloud, Config, WorkflowChannel};
pub(super) use config::{
    binding_key_material, check_config, check_principal, check_secrets, merged_tenants, request_signers,
    secret_format_hints,
};
pub use deliver::State;
pub(super) use deliver::{ask_reason, config_errors, reply};
pub use keys::{KeyCache, SigningKeys};
pub use receive::{ReplyTo, parse, verify_with};
pub(super) use receive::{is_address_test, learn, precheck_request, verify};
#[cfg(feature = "local")]
pub(super) use register::register_webhook;
#[cfg(feature = "local")]
pub use register::{app_package, manifest};
pub use secrets::{ClientSecret, InvalidClientSecret, Secrets};
#[cfg(feature = "local")]
pub use signing::{THROWAWAY_KEY_ID, TokenClaims, json_web_key, sign, sign_activity, sign_activity_with, sign_token};

/// The name of its table and of its secret.
pub const NAME: &str = "teams";
/// Its name for people.
#[cfg(feature = "local")]
pub(super) const TITLE: &str = "Microsoft Teams";
/// The first part of its principals and of its path.
pub const REALM: &str = "teams";
/// The form of its requests.
pub(super) const REQUEST_SHAPE: RequestShape =
    RequestShape { extra_segments: 0, methods: &[Method::POST], content_types: &["application/json"] };
/// Teams gives up a click after 10 to 15 s, but shows an error to people earlier. This is the time of the fastest platform.
///
/// Source: <https://github.com/MicrosoftDocs/msteams-docs/issues/6461>
pub(super) const DEADLINE: Duration = Duration::from_millis(1900);
/// When a private reply must be posted, and the response must be on its way.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_millis(2600);
/// An object id belongs to one tenant.
pub(super) const USERS_SPAN_TENANTS: Option<&str> = None;
/// The longest binding that we put into a button, in characters.
pub const MAX_BINDING_CHARS: usize = 512;
/// The token of a request does not cover what people write.
pub(super) const COMMAND_SCOPE: CommandScope = CommandScope::Questions;
/// A card in the response to a click is shown only to the person who clicked, and then no message is.
pub(super) const REPLY_REDRAW: ReplyRedraw = ReplyRedraw::Nothing;
/// Text commands carry no fingerprint.
#[cfg(feature = "local")]
pub(super) const COMMANDS_CARRY_FINGERPRINTS: bool = false;

/// What a conversation can do. It takes 60 messages of a bot in 30 s, and a tenant 30 in a second. It needs no modal: the
/// card itself has an input for the reason.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/bots/how-to/rate-limit>
const CARD_CAPABILITIES: Capabilities = Capabilities {
    can_edit: true,
    edit_window: None,
    can_thread: true,
    can_open_modal: false,
    can_reply_privately: true,
    can_mention: true,
    is_for_people: true,
    max_binding_chars: MAX_BINDING_CHARS,
    pace: Pace { per_channel: SignedDuration::from_millis(500), per_app: SignedDuration::from_millis(40) },
};
/// What a workflow can do. It takes four requests in a second. Nobody hears of clicks on its messages.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>
const WORKFLOW_CAPABILITIES: Capabilities = Capabilities {
    can_edit: false,
    edit_window: None,
    can_thread: false,
    can_open_modal: false,
    can_reply_privately: false,
    can_mention: false,
    is_for_people: true,
    max_binding_chars: 0,
    pace: Pace { per_channel: SignedDuration::from_millis(300), per_app: SignedDuration::ZERO },
};

/// The channel of Azure Bot Service that we take.
const CHANNEL_ID: &str = "msteams";
/// The longest id of a conversation, user or activity that we accept, in bytes.
const MAX_ID_BYTES: usize = 160;

type PlatformContext<'a> = super::PlatformContext<'a, Config, Secrets, State>;

/// Whether a text is an id of Teams, e.g. `19:…@thread.tacv2`, `29:…` or `f:…`. It has no slash, and no `;`.
fn is_teams_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":@._-".contains(&byte);
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('.')
}

/// Whether a text is a GUID in lower case, e.g. `50703947-19f8-4dd8-af0e-60d29681f7c0`.
fn is_guid(text: &str) -> bool {
    let is_part = |(part, length): (&str, usize)| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    text.split('-').count() == 5 && text.split('-').zip([8, 4, 4, 4, 12]).all(is_part)
}

/// Whether a conversation has threads: a channel of a team has them, a chat has none.
fn has_threads(conversation: &str) -> bool {
    ["@thread.tacv2", "@thread.skype"].iter().any(|end| conversation.ends_with(end))
}

//! Slack: an app with cards, threads and modals; and incoming webhooks, which are channels of their own kind.

mod api;
mod api_response;
mod config;
mod form;
mod lookup;
mod post;
mod receive;

pub use config::{Channel, Config, Secrets, SigningSecret, WebhookChannel};
pub(super) use config::{
    binding_key_material, check_config, check_principal, check_secrets, merged_tenants, request_signers,
    secret_format_hints,
};
pub use form::escape_text;
pub(super) use form::is_address_test;
#[cfg(feature = "local")]
pub(super) use post::register_webhook;
pub use post::{Workspace, render_message, reply_modal, workspace_error};
pub(super) use post::{ask_reason, config_errors, reply};
pub use receive::{ReplyTo, sign_body, verify_with};
pub(super) use receive::{learn, parse, precheck_request, verify};
#[cfg(feature = "local")]
pub use receive::{sign, sign_form, sign_interaction};

use std::time::Duration;

use http::Method;

use super::{CommandScope, ReplyRedraw, RequestShape};

/// The name of its table and of its secret.
pub const NAME: &str = "slack";
/// Its name for people.
#[cfg(feature = "local")]
pub(super) const TITLE: &str = "Slack";
/// The first part of its principals and of its path.
pub const REALM: &str = "slack";
/// The form of its requests.
pub(super) const REQUEST_SHAPE: RequestShape = RequestShape {
    extra_segments: 0,
    methods: &[Method::POST],
    content_types: &["application/x-www-form-urlencoded", "application/json"],
};
/// Slack waits 3 s. This leaves a second for the network, a cold start and the answer to a click.
///
/// Source: <https://docs.slack.dev/interactivity/handling-user-interaction>
pub(super) const DEADLINE: Duration = Duration::from_millis(1900);
/// When the answer to a click must be with Slack, and the response must be on its way.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_millis(2600);
/// A user of an organization has the same id in all its workspaces.
///
/// Source: <https://docs.slack.dev/enterprise>
pub(super) const USERS_SPAN_TENANTS: Option<&str> =
    Some("give them to one person, or name the organization in `platforms.slack.enterprise`");
/// The limit of a button's `value`.
///
/// Source: <https://docs.slack.dev/reference/block-kit/block-elements/button-element>
pub(super) const MAX_BINDING_CHARS: usize = 2000;
/// Slack signs every request as a whole.
pub(super) const COMMAND_SCOPE: CommandScope = CommandScope::Everything;
/// The HTTP response to a click is empty. A post to its `response_url` can replace the clicked message.
pub(super) const REPLY_REDRAW: ReplyRedraw = ReplyRedraw::StaleCopies;

/// The `action_id` of a button, and the `callback_id` of the modal that asks for its reason.
const APPROVE: &str = "peergate.approve";
const APPROVE_WITH_REASON: &str = "peergate.approve.reason";
const REJECT: &str = "peergate.reject";
const WITHDRAW: &str = "peergate.withdraw";
const ACKNOWLEDGE: &str = "peergate.acknowledge";
const DETAILS: &str = "peergate.details";
/// The input for a reason.
const REASON_FIELD: &str = "reason";

/// Slash commands carry no fingerprint.
#[cfg(feature = "local")]
pub(super) const COMMANDS_CARRY_FINGERPRINTS: bool = false;

type PlatformContext<'a> = super::PlatformContext<'a, Config, Secrets, State>;

/// Slack needs no cached data.
#[derive(Debug, Default)]
pub struct State;

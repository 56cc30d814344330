//! Standard Webhooks 1.0.0 with symmetric keys (`v1`): requests of machines, and notifications for machines.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

mod config;
mod post;
mod receive;
mod view;

pub use config::{Channel, Client, ClientSecrets, Config, Secrets, State, WebhookKey};
pub(super) use config::{
    binding_key_material, check_config, check_principal, check_secrets, merged_tenants, request_signers,
    secret_format_hints,
};
pub use post::notification_json;
#[cfg(feature = "local")]
pub(super) use post::register_webhook;
pub(super) use post::{ask_reason, config_errors, reply};
pub use receive::{ReplyTo, sign_body, verify_with};
pub(super) use receive::{is_address_test, learn, parse, precheck_request, verify};
#[cfg(feature = "local")]
pub use receive::{sign, sign_as};

pub use view::NotificationView;

use std::time::Duration;

use http::Method;

use super::{CommandScope, ReplyRedraw, RequestShape};

/// The name of the platform. Its table is `[clients]`.
pub const NAME: &str = "standard-webhooks";
/// Its name for people.
#[cfg(feature = "local")]
pub(super) const TITLE: &str = "Standard Webhooks";
/// The first part of its principals and of its paths.
pub const REALM: &str = "webhook";
/// The form of its requests.
pub(super) const REQUEST_SHAPE: RequestShape =
    RequestShape { extra_segments: 1, methods: &[Method::POST], content_types: &["application/json"] };
/// The time until the answer. Machines retry, and the watcher takes over after eight seconds.
pub(super) const DEADLINE: Duration = Duration::from_secs(6);
/// The answer is the HTTP response.
pub(super) const ANSWER_DEADLINE: Duration = DEADLINE;
/// Each client has its own users.
pub(super) const USERS_SPAN_TENANTS: Option<&str> = None;
/// Machines have no buttons.
pub(super) const MAX_BINDING_CHARS: usize = 0;
/// Machines sign every request as a whole.
pub(super) const COMMAND_SCOPE: CommandScope = CommandScope::Everything;
/// Machines have no cards.
pub(super) const REPLY_REDRAW: ReplyRedraw = ReplyRedraw::Nothing;

/// The names of the headers that sign a request.
#[derive(Debug, Clone, Copy)]
struct SignatureHeaders {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

/// The names of the specification. peergate sends only these.
const STANDARD_HEADERS: SignatureHeaders =
    SignatureHeaders { id: "webhook-id", timestamp: "webhook-timestamp", signature: "webhook-signature" };
/// The names that Svix sends.
///
/// Source: <https://docs.svix.com/receiving/verifying-payloads/how-manual>
const SVIX_HEADERS: SignatureHeaders =
    SignatureHeaders { id: "svix-id", timestamp: "svix-timestamp", signature: "svix-signature" };

/// Machines can send the fingerprint that they saw.
#[cfg(feature = "local")]
pub(super) const COMMANDS_CARRY_FINGERPRINTS: bool = true;

type PlatformContext<'a> = super::PlatformContext<'a, Config, Secrets, State>;

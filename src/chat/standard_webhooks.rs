//! Standard Webhooks 1.0.0, symmetric (`v1`): how machines talk to us, and how we tell machines.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

mod config;
mod post;
mod receive;

pub use config::{Channel, Client, ClientSecrets, Config, Secrets, State, WebhookKey};
pub(super) use config::{
    binding_key_material, check_config, check_principal, check_secrets, merged_tenants, request_signers,
    secret_format_hints,
};
#[cfg(feature = "local")]
pub(super) use post::register_webhook;
pub use post::{approval_json, connection_json, notification_json};
pub(super) use post::{ask_reason, config_errors, reply};
pub use receive::{ReplyTo, sign_body, verify_with};
pub(super) use receive::{parse, precheck_request, verify};
#[cfg(feature = "local")]
pub use receive::{sign, sign_as};

use std::time::Duration;

use http::Method;

use super::RequestShape;

/// The name of it; its table is `[clients]`.
pub const NAME: &str = "standard-webhooks";
/// How its principals and its paths begin.
pub const REALM: &str = "webhook";
/// Its requests.
pub(super) const REQUEST_SHAPE: RequestShape =
    RequestShape { extra_segments: 1, methods: &[Method::POST], content_types: &["application/json"] };
/// How long machines wait for us at most: they retry, and the watcher takes over after eight seconds.
pub(super) const DEADLINE: Duration = Duration::from_secs(6);
/// Each client has users of its own.
pub(super) const USERS_SPAN_TENANTS: Option<&str> = None;
/// Machines have no buttons.
pub(super) const MAX_BINDING_CHARS: usize = 0;
/// Nor cards.
pub(super) const CAN_REDRAW_IN_REPLY: bool = false;

const ID_HEADER: &str = "webhook-id";
const TIMESTAMP_HEADER: &str = "webhook-timestamp";
const SIGNATURE_HEADER: &str = "webhook-signature";

/// Whether a command says which facts its sender saw.
#[cfg(feature = "local")]
pub(super) const COMMANDS_CARRY_FINGERPRINTS: bool = true;

type PlatformContext<'a> = super::PlatformContext<'a, Config, Secrets, State>;

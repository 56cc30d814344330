//! The list of platforms. One is a folder beside this file and a line in the list below; nothing else names it.
//!
//! An *app* can call us: its people decide. A *channel* is where notices go. Each folder supplies the same parts in the
//! same order:
//!
//! | part | what |
//! |---|---|
//! | `NAME`, `REALM`, `REQUEST_SHAPE`, `DEADLINE` | data: its names, and what its requests are like |
//! | `USERS_SPAN_TENANTS`, `MAX_BINDING_CHARS`, `CAN_REDRAW_IN_REPLY` | data: whose ids mean whom; what buttons and replies can do |
//! | `Config`, `Secrets`, `State` | its table `[platforms.NAME]`, its secret `platforms.NAME`, and what a process remembers |
//! | `check_config`, `check_secrets`, `check_principal` | each names the key that is wrong |
//! | `secret_format_hints` | what errors of its types say, so that they may be repeated |
//! | `merged_tenants`, `request_signers`, `binding_key_material` | tenants that are part of another; who signs with what; what binding keys derive from |
//! | `precheck_request` | what shows without a secret that a request is not authentic |
//! | `verify` | over raw bytes, headers and query; the only place that makes an [`Authentic`] |
//! | `parse` | from plaintext to what somebody wants |
//! | `ask_reason`, `reply` | within `DEADLINE` |
//! | `config_errors` | how the platform contradicts the configuration |
//! | `register_webhook`, `sign`, `COMMANDS_CARRY_FINGERPRINTS` (feature `local`) | what to enter where; a request as the platform would send it |
//! | channels: `CAPABILITIES`, `check_id`, `post`, `update`, `reply_below`, `probe` | what a channel can do is data |

mod dispatch;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use serde::Deserialize;
#[cfg(feature = "local")]
use url::Url;

use super::binding::{BindingKey, Keyring};
use super::message::Message;
use super::{
    AskOutcome, Authentic, Capabilities, ChannelSecrets, Click, DeliveryError, Incoming, MalformedRequest, Outgoing,
    PlatformContext, ProbeError, RequestShape, RequestSigner, Unauthentic, UpdateOutcome, feishu, response, slack,
    standard_webhooks,
};
#[cfg(feature = "local")]
use super::{EventSpec, SignedRequest};
use crate::approval::{Approval, Notification, Principal, Verdict};
use crate::notes::Notes;
use crate::redaction::KeyProblem;
use crate::secret::BindingSecret;
use dispatch::platforms;

platforms! {
    apps {
        Slack in slack,
        Feishu in feishu,
        /// Its table is `[clients]`.
        #[serde(skip)]
        StandardWebhooks in standard_webhooks,
    }
    // A message that is redrawn.
    cards {
        "slack" is Slack(slack::Channel) of Slack in slack,
        "feishu" is Feishu(feishu::Channel) of Feishu in feishu,
    }
    // A message each.
    messages {
        "slack-webhook" is SlackWebhook(slack::WebhookChannel) of Slack,
        "feishu-bot" is FeishuBot(feishu::BotChannel) of Feishu,
    }
    // For programs.
    data {
        "standard-webhooks" is StandardWebhooks(standard_webhooks::Channel),
    }
}

/// Tables, and secrets, that stood outside `platforms` in earlier versions.
pub const LEGACY_TABLES: [&str; 1] = [slack::NAME];

/// The table `[clients]`: who may post to `/webhook/{client}`.
pub type ClientConfigs = standard_webhooks::Config;
/// The secrets `clients`.
pub type SecretsByClient = standard_webhooks::Secrets;

impl AppConfigs {
    /// Adds the table `[clients]`.
    pub fn set_clients(&mut self, clients: ClientConfigs) {
        self.standard_webhooks = Some(clients);
    }

    /// The names of the clients.
    pub fn clients(&self) -> impl Iterator<Item = &String> {
        self.standard_webhooks.iter().flat_map(|clients| &clients.0)
    }
}

impl AppSecrets {
    /// Adds the secrets `clients`.
    pub fn set_clients(&mut self, clients: SecretsByClient) {
        self.standard_webhooks = Some(clients);
    }
}

/// The HTTP client, and everything about platforms.
#[derive(Debug, Clone, Copy)]
pub struct ChatContext<'a> {
    /// The one client.
    pub http: &'a reqwest::Client,
    /// What processes share for a while.
    pub notes: &'a Notes,
    /// Of the configuration.
    pub configs: &'a AppConfigs,
    /// Of the secrets.
    pub secrets: &'a AppSecrets,
    /// Of the channels that are reached by a URL.
    pub channel_secrets: &'a BTreeMap<String, ChannelSecrets>,
    /// What this process remembers.
    pub states: &'a AppStates,
    /// The keys of buttons, the newest first; without any, they are derived from each platform's own secrets.
    pub binding_keys: &'a [BindingSecret],
}

impl<'a> ChatContext<'a> {
    /// The keys of a platform's buttons.
    #[must_use]
    pub fn keyring(self, platform: Platform) -> Keyring {
        let label = format!("peergate/binding-key/1/{}", platform.realm());
        let keys = if self.binding_keys.is_empty() {
            platform
                .binding_key_material(self.secrets)
                .into_iter()
                .map(|secret| BindingKey::derive(&secret, &label))
                .collect()
        } else {
            self.binding_keys.iter().map(|secret| BindingKey::derive(secret.expose(), &label)).collect()
        };
        Keyring::new(platform.realm(), keys)
    }

    fn require_endpoint(self, channel: &str) -> Result<&'a ChannelSecrets, DeliveryError> {
        self.channel_secrets.get(channel).ok_or_else(DeliveryError::no_endpoint)
    }
}

impl Platform {
    /// The configured app whose requests come to a path: its first segment, and how many more there are.
    #[must_use]
    pub fn from_path(first: &str, more: usize, configs: &AppConfigs) -> Option<Self> {
        let is_it = |platform: &Self| platform.realm() == first && platform.request_shape().extra_segments == more;
        Self::ALL.iter().copied().find(is_it).filter(|platform| platform.is_configured(configs))
    }

    /// The app of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|platform| platform.name() == name)
    }

    /// The app of a principal.
    #[must_use]
    pub fn from_principal(principal: &Principal) -> Option<Self> {
        let (realm, _) = principal.realm().split_once(':')?;
        Self::ALL.iter().copied().find(|platform| platform.realm() == realm)
    }
}

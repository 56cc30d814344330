//! The list of platforms. A platform is a folder beside this file and a line in the lists below; nothing else names it.
//!
//! An *app* can call us: its people decide. A *channel* is where notifications go. Each folder supplies the same parts in
//! the same order:
//!
//! | part | what |
//! |---|---|
//! | `NAME`, `REALM`, `REQUEST_SHAPE` | data: its names, and the form of its requests |
//! | `DEADLINE`, `ANSWER_DEADLINE` | data: when a command must be carried out, and when its sender must have the answer |
//! | `COMMAND_SCOPE`, `USERS_SPAN_TENANTS`, `MAX_BINDING_CHARS`, `REPLY_REDRAW` | data: what words can do, what its user ids identify, what buttons can carry, and what replies can do |
//! | `Config`, `Secrets`, `State` | the table `[platforms.NAME]`, the secret `platforms.NAME`, and what a process caches |
//! | `check_config`, `check_secrets`, `check_principal` | each error names the wrong key |
//! | `secret_format_hints` | the beginnings of its error messages that contain no secret, so that they may be shown |
//! | `merged_tenants`, `request_signers`, `binding_key_material` | tenants whose users belong to another tenant; who signs with which secrets; what binding keys are derived from |
//! | `is_address_test` | whether a request only tests the address, unsigned |
//! | `precheck_request` | refuses what is not authentic under any secret |
//! | `verify` | checks raw bytes, headers and query; only this makes an [`Authentic`] |
//! | `learn` | keeps what a request says about the platform itself |
//! | `parse` | makes a command or a click of the plaintext |
//! | `ask_reason`, `reply` | within `DEADLINE`; within `ANSWER_DEADLINE` |
//! | `config_errors` | where the platform contradicts the configuration |
//! | `register_webhook`, `sign`, `COMMANDS_CARRY_FINGERPRINTS` (feature `local`) | what an operator has to enter where; a request as the platform would send it |
//! | channels: `CAPABILITIES`, `id`, `check_id`, `post`, `update`, `delete`, `reply_below`, `probe` | what a channel can do is data |

mod apps;
mod channels;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;
#[cfg(feature = "local")]
use url::Url;

use super::binding::{BindingKey, Keyring};
use super::message::Message;
use super::{
    AskOutcome, Authentic, Capabilities, ChannelSecrets, Click, CommandScope, DeliveryError, Incoming,
    MalformedRequest, MergedTenant, MessageRef, Outgoing, PlatformContext, PostAttempt, PostLane, ProbeError,
    ReplyRedraw, RequestShape, RequestSigner, Unauthentic, UpdateOutcome, VerifyError, feishu, response, slack,
    standard_webhooks, teams,
};
#[cfg(feature = "local")]
use super::{EventSpec, SignedRequest};
use crate::approval::{Approval, Notification, Principal, Verdict};
use crate::notes::Notes;
use crate::redaction::KeyProblem;
use crate::secret::BindingSecret;

apps::apps! {
    Slack in slack,
    Feishu in feishu,
    /// Its table is `[clients]`.
    #[serde(skip)]
    StandardWebhooks in standard_webhooks,
    Teams in teams,
}

channels::channels! {
    // One message per request, which is updated.
    cards {
        "slack" is Slack(slack::Channel) of Slack in slack,
        "feishu" is Feishu(feishu::Channel) of Feishu in feishu,
        "teams" is Teams(teams::Channel) of Teams in teams,
    }
    // One message per notification.
    messages {
        "slack-webhook" is SlackWebhook(slack::WebhookChannel) of Slack,
        "feishu-bot" is FeishuBot(feishu::BotChannel) of Feishu,
        "teams-workflow" is TeamsWorkflow(teams::WorkflowChannel) of Teams,
    }
    // For programs.
    data {
        "standard-webhooks" is StandardWebhooks(standard_webhooks::Channel),
    }
}

/// Tables and secrets that were outside `platforms` in earlier versions.
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

/// The shared HTTP client, and everything about platforms.
#[derive(Debug, Clone, Copy)]
pub struct ChatContext<'a> {
    /// The shared HTTP client.
    pub http: &'a reqwest::Client,
    /// Data that processes share for a limited time.
    pub notes: &'a Notes,
    /// The tables of the configuration.
    pub configs: &'a AppConfigs,
    /// The tables of the secrets.
    pub secrets: &'a AppSecrets,
    /// The secrets of channels that are reached by a URL, by the channel's name.
    pub channel_secrets: &'a BTreeMap<String, ChannelSecrets>,
    /// What this process has cached.
    pub states: &'a AppStates,
    /// The keys of buttons, the newest first. If empty, keys are derived from each platform's own secrets.
    pub binding_keys: &'a [BindingSecret],
}

impl<'a> ChatContext<'a> {
    /// The keys that sign a platform's buttons.
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
    /// The configured app whose requests have a path of this first segment and `more` further ones.
    #[must_use]
    pub fn from_path(first: &str, more: usize, configs: &AppConfigs) -> Option<Self> {
        let is_it = |platform: &Self| platform.realm() == first && platform.request_shape().extra_segments == more;
        Self::ALL.iter().copied().find(is_it).filter(|platform| platform.is_configured(configs))
    }

    /// The app with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|platform| platform.name() == name)
    }

    /// The app that a principal uses.
    #[must_use]
    pub fn from_principal(principal: &Principal) -> Option<Self> {
        let (realm, _) = principal.realm().split_once(':')?;
        Self::ALL.iter().copied().find(|platform| platform.realm() == realm)
    }
}

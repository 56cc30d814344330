//! The list of platforms. One is a folder beside this file and a line in the list below; nothing else names it.
//!
//! An *app* can call us: its people decide. A *channel* is where notices go. Each folder supplies the same parts in the
//! same order:
//!
//! | part | what |
//! |---|---|
//! | `NAME`, `REALM`, `ACCEPTED`, `DEADLINE`, `TENANTS_SHARE_USERS` | data: its names, and what its requests are like |
//! | `Config`, `Secrets`, `State` | its table `[platforms.NAME]`, its secret `platforms.NAME`, and what a process remembers |
//! | `check_config`, `check_secrets`, `check_principal` | each names the key that is wrong |
//! | `check` | what shows without a secret that a request is not authentic |
//! | `verify` | over raw bytes, headers and query; the only place that makes an [`Authentic`] |
//! | `parse` | from plaintext to what somebody wants |
//! | `ask_reason`, `reply` | within `DEADLINE` |
//! | `misfits` | how the platform contradicts the configuration |
//! | `sign` (feature `local`) | a request as the platform would send it |
//! | channels: `ABILITIES`, `check`, `post`, `update`, `reply_below`, `probe` | what a channel can do is data |

mod dispatch;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use serde::Deserialize;

use super::message::Message;
use super::{
    Abilities, About, Accepted, Access, Asked, Authentic, ChannelSecrets, Incoming, Malformed, Said, Unauthentic,
    Undelivered, Unfit, Update, slack, standard_webhooks,
};
#[cfg(feature = "local")]
use super::{Signed, Wish};
use crate::approval::{Approval, Notice, Principal};
use crate::shape::KeyProblem;
use dispatch::platforms;

platforms! {
    apps {
        Slack in slack,
        /// Its table is `[clients]`.
        #[serde(skip)]
        StandardWebhooks in standard_webhooks,
    }
    // A message that is drawn anew.
    cards {
        "slack" is Slack(slack::Channel) in slack,
    }
    // A message each.
    messages {
        "slack-webhook" is SlackWebhook(slack::WebhookChannel),
    }
    // For programs.
    data {
        "standard-webhooks" is StandardWebhooks(standard_webhooks::Channel),
    }
}

/// Tables, and secrets, that stood outside `platforms` in earlier versions.
pub const EARLIER_TABLES: [&str; 1] = [slack::NAME];

/// The table `[clients]`: who may post to `/webhook/{client}`.
pub type Clients = standard_webhooks::Config;
/// The secrets `clients`.
pub type ClientSecrets = standard_webhooks::Secrets;

impl Configs {
    /// Adds the table `[clients]`.
    pub fn set_clients(&mut self, clients: Clients) {
        self.standard_webhooks = Some(clients);
    }

    /// The names of the clients.
    pub fn clients(&self) -> impl Iterator<Item = &String> {
        self.standard_webhooks.iter().flat_map(|clients| &clients.0)
    }
}

impl AppSecrets {
    /// Adds the secrets `clients`.
    pub fn set_clients(&mut self, clients: ClientSecrets) {
        self.standard_webhooks = Some(clients);
    }
}

/// The HTTP client, and everything about platforms.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The one client.
    pub http: &'a reqwest::Client,
    /// Of the configuration.
    pub configs: &'a Configs,
    /// Of the secrets.
    pub secrets: &'a AppSecrets,
    /// Of the channels that are reached by a URL.
    pub channels: &'a BTreeMap<String, ChannelSecrets>,
    /// What this process remembers.
    pub states: &'a States,
}

impl<'a> Context<'a> {
    fn endpoint(self, channel: &str) -> Result<&'a ChannelSecrets, Undelivered> {
        self.channels.get(channel).ok_or_else(Undelivered::no_endpoint)
    }
}

impl Platform {
    /// The configured app whose requests come to a path: its first segment, and how many more there are.
    #[must_use]
    pub fn of_path(first: &str, more: usize, configs: &Configs) -> Option<Self> {
        let is_it = |platform: &Self| platform.realm() == first && platform.accepted().segments == more;
        Self::ALL.iter().copied().find(is_it).filter(|platform| platform.is_configured(configs))
    }

    /// The app of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|platform| platform.name() == name)
    }

    /// The app of a principal.
    #[must_use]
    pub fn of_principal(principal: &Principal) -> Option<Self> {
        let (realm, _) = principal.realm().split_once(':')?;
        Self::ALL.iter().copied().find(|platform| platform.realm() == realm)
    }
}

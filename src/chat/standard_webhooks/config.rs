//! The configuration of machines: `[clients]`, the secrets of clients, and channels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::SignedDuration;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::approval::Principal;
use crate::chat::MergedTenant;
use crate::chat::{Capabilities, ChannelSecrets, Pace, RequestSigner};
use crate::clock;
use crate::from_text::from_text;
use crate::redaction::{KeyProblem, redact};
use crate::secret::{FormatProblem, decode_base64};

/// The names of the clients that may post to `/webhook/{client}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "Clients"))]
#[serde(from = "BTreeMap<String, Client>")]
pub struct Config(pub BTreeSet<String>);

#[expect(clippy::zero_sized_map_values, reason = "a client has no keys, but is a table in the file")]
impl From<BTreeMap<String, Client>> for Config {
    fn from(clients: BTreeMap<String, Client>) -> Self {
        Self(clients.into_keys().collect())
    }
}

/// The signing secrets of each client, by name.
pub type Secrets = BTreeMap<String, ClientSecrets>;

/// A sender of Standard Webhooks. Its signing secrets are in the secrets store.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Client {}

/// The secrets of one client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClientSecrets {
    /// A request may be signed by any of them.
    pub signing_secrets: Vec<WebhookKey>,
}

/// A key of Standard Webhooks: `whsec_` and the base64 of 24 to 64 bytes. The prefix is optional.
///
/// Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct WebhookKey(Vec<u8>);

from_text!(WebhookKey);

/// The text is not a key of Standard Webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Standard Webhooks secret: {0}; expected `whsec_` and the base64 of 24 to 64 bytes")]
pub struct InvalidWebhookKey(FormatProblem);

impl WebhookKey {
    /// The key's bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for WebhookKey {
    type Error = InvalidWebhookKey;

    fn try_from(text: String) -> Result<Self, InvalidWebhookKey> {
        let key = decode_base64(&text, "whsec_").map_err(InvalidWebhookKey)?;
        match key.len() {
            24..=64 => Ok(Self(key)),
            found => Err(InvalidWebhookKey(FormatProblem::Bytes(found))),
        }
    }
}

impl WebhookKey {
    /// A key that no sender knows.
    fn random() -> Self {
        Self(Sha256::digest(clock::nonce()).to_vec())
    }
}

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookKey(…)")
    }
}

/// A channel of kind `standard-webhooks`: signed requests to any URL.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "StandardWebhooksChannel"))]
#[serde(deny_unknown_fields)]
pub struct Channel {}

impl Channel {
    /// Programs read it, so it has neither cards nor buttons.
    pub const CAPABILITIES: Capabilities = Capabilities {
        can_edit: false,
        edit_window: None,
        can_thread: false,
        can_open_modal: false,
        can_reply_privately: false,
        can_mention: false,
        is_for_people: false,
        max_binding_chars: 0,
        pace: Pace { per_channel: SignedDuration::ZERO, per_app: SignedDuration::ZERO },
    };

    /// Checks the signing keys.
    pub(in crate::chat) fn check_endpoint(endpoint: &ChannelSecrets, key: &str) -> Result<(), KeyProblem> {
        let key = format!("{key}.signing_secrets");
        if endpoint.signing_secrets.is_empty() {
            return KeyProblem::err_at(key, "name at least one");
        }
        for (position, secret) in endpoint.signing_secrets.iter().enumerate() {
            if let Err(problem) = WebhookKey::try_from(secret.expose().to_owned()) {
                return KeyProblem::err_at(format!("{key}[{position}]"), problem.to_string());
            }
        }
        Ok(())
    }
}

/// The keys of a channel; `None` if one is malformed.
pub(super) fn channel_keys(endpoint: &ChannelSecrets) -> Option<Vec<WebhookKey>> {
    endpoint.signing_secrets.iter().map(|secret| WebhookKey::try_from(secret.expose().to_owned()).ok()).collect()
}

/// The key that replaces those of unknown clients.
#[derive(Debug)]
pub struct State {
    decoy_key: WebhookKey,
}

impl Default for State {
    fn default() -> Self {
        Self { decoy_key: WebhookKey::random() }
    }
}

impl State {
    /// The keys of a client, filled up with decoys to the same number for each client. An unknown client has only decoys.
    /// So the time of verification does not show which clients exist.
    pub(super) fn verification_keys(&self, secrets: &Secrets, client: Option<&str>) -> Vec<WebhookKey> {
        let number = secrets.values().map(|client| client.signing_secrets.len()).max().unwrap_or_default();
        let own = client.and_then(|client| secrets.get(client));
        let mut keys = own.map(|client| client.signing_secrets.clone()).unwrap_or_default();
        keys.resize(number.max(1), self.decoy_key.clone());
        keys
    }
}

/// How the errors about the form of a secret begin.
pub(in crate::chat) fn secret_format_hints() -> Vec<String> {
    vec!["not a Standard Webhooks secret: ".to_owned()]
}

/// Nothing to check here: `config` checks all names.
#[expect(clippy::unnecessary_wraps, reason = "other platforms have more to check")]
pub(in crate::chat) fn check_config(_config: &Config) -> Result<(), KeyProblem> {
    Ok(())
}

/// Each client requires a key.
pub(in crate::chat) fn check_secrets(config: &Config, secrets: &Secrets) -> Result<(), KeyProblem> {
    for name in &config.0 {
        match secrets.get(name) {
            None => return KeyProblem::err_at(format!("clients.{name}"), "missing: expected `signing_secrets`"),
            Some(client) if client.signing_secrets.is_empty() => {
                return KeyProblem::err_at(format!("clients.{name}.signing_secrets"), "name at least one");
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Refuses a principal that can send no request.
pub(in crate::chat) fn check_principal(config: Option<&Config>, principal: &Principal) -> Result<(), String> {
    let client = principal.realm().split_once(':').map_or("", |(_, client)| client);
    if config.is_some_and(|clients| clients.0.contains(client)) {
        Ok(())
    } else {
        Err(format!("the client of {} is not in [clients]", redact(principal.as_str())))
    }
}

/// Each client has users of its own.
pub(in crate::chat) fn merged_tenants(_config: &Config) -> Vec<MergedTenant> {
    vec![]
}

/// Machines have no buttons.
pub(in crate::chat) fn binding_key_material(_secrets: &Secrets) -> Vec<Vec<u8>> {
    vec![]
}

/// The configured clients.
pub(in crate::chat) fn request_signers(config: &Config, secrets: &Secrets) -> Vec<RequestSigner> {
    let configured = secrets.iter().filter(|(name, _)| config.0.contains(*name));
    let sender = |(name, client): (&String, &ClientSecrets)| RequestSigner {
        name: format!("clients.{name}"),
        secrets_key: "signing_secrets",
        secrets: client.signing_secrets.iter().map(|key| key.0.clone()).collect(),
    };
    configured.map(sender).collect()
}

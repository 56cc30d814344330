//! What the operator says about machines: `[clients]`, the secrets of clients, and channels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::approval::Principal;
use crate::chat::{Capabilities, ChannelSecrets, RequestSigner};
use crate::clock;
use crate::redaction::{KeyProblem, redact};

/// Who may post to `/webhook/{client}`, by name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "BTreeMap<String, Client>")]
pub struct Config(pub BTreeSet<String>);

#[expect(clippy::zero_sized_map_values, reason = "a client has no keys yet, but it is a table in the file")]
impl From<BTreeMap<String, Client>> for Config {
    fn from(clients: BTreeMap<String, Client>) -> Self {
        Self(clients.into_keys().collect())
    }
}

/// Signing secrets per client.
pub type Secrets = BTreeMap<String, ClientSecrets>;

/// A sender of Standard Webhooks. Its signing secrets are in the secrets store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {}

/// Of a client of `/webhook/{client}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSecrets {
    /// Any of them may sign.
    pub signing_secrets: Vec<WebhookKey>,
}

/// A key of Standard Webhooks, `whsec_` and the base64 of 24 to 64 bytes; the prefix may be missing.
///
/// Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WebhookKey(Vec<u8>);

/// The text is not a key of Standard Webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Standard Webhooks secret: expected `whsec_` and the base64 of 24 to 64 bytes")]
pub struct InvalidWebhookKey;

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
        let key =
            BASE64_STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(&text)).map_err(|_| InvalidWebhookKey)?;
        if (24..=64).contains(&key.len()) { Ok(Self(key)) } else { Err(InvalidWebhookKey) }
    }
}

impl WebhookKey {
    /// A key that no sender has.
    fn random() -> Self {
        Self(Sha256::digest(clock::nonce()).to_vec())
    }
}

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookKey(…)")
    }
}

/// Signed Standard Webhooks to any URL.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {}

impl Channel {
    /// Programs read it.
    pub const CAPABILITIES: Capabilities = Capabilities {
        can_edit: false,
        can_thread: false,
        can_open_modal: false,
        can_reply_privately: false,
        is_for_people: false,
        max_binding_chars: 0,
    };

    /// Checks the keys that sign.
    pub(in crate::chat) fn check_endpoint(endpoint: &ChannelSecrets, key: &str) -> Result<(), KeyProblem> {
        let key = format!("{key}.signing_secrets");
        if endpoint.signing_secrets.is_empty() {
            return KeyProblem::err_at(key, "name at least one");
        }
        match channel_keys(endpoint) {
            Some(_) => Ok(()),
            None => KeyProblem::err_at(key, InvalidWebhookKey.to_string()),
        }
    }
}

/// The keys of a channel.
pub(super) fn channel_keys(endpoint: &ChannelSecrets) -> Option<Vec<WebhookKey>> {
    endpoint.signing_secrets.iter().map(|secret| WebhookKey::try_from(secret.expose().to_owned()).ok()).collect()
}

/// The key that stands in for those of clients that do not exist.
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
    /// The keys of a client; decoys for an unknown one. Decoys also fill up the keys of each client to the same number,
    /// so that the time of verification does not tell clients apart.
    pub(super) fn verification_keys(&self, secrets: &Secrets, client: Option<&str>) -> Vec<WebhookKey> {
        let number = secrets.values().map(|client| client.signing_secrets.len()).max().unwrap_or_default();
        let own = client.and_then(|client| secrets.get(client));
        let mut keys = own.map(|client| client.signing_secrets.clone()).unwrap_or_default();
        keys.resize(number.max(1), self.decoy_key.clone());
        keys
    }
}

/// What errors say was expected.
pub(in crate::chat) fn secret_format_hints() -> Vec<String> {
    vec![InvalidWebhookKey.to_string()]
}

/// Names are checked with all others.
#[expect(clippy::unnecessary_wraps, reason = "other platforms have more to check")]
pub(in crate::chat) fn check_config(_config: &Config) -> Result<(), KeyProblem> {
    Ok(())
}

/// Each client needs a key.
pub(in crate::chat) fn check_secrets(config: &Config, secrets: &Secrets) -> Result<(), KeyProblem> {
    let has_key = |name: &String| secrets.get(name).is_some_and(|client| !client.signing_secrets.is_empty());
    match config.0.iter().find(|name| !has_key(name)) {
        Some(name) => KeyProblem::err_at(format!("clients.{name}.signing_secrets"), "name at least one"),
        None => Ok(()),
    }
}

/// Whether a user of this principal can send requests.
pub(in crate::chat) fn check_principal(config: Option<&Config>, principal: &Principal) -> Result<(), String> {
    let client = principal.realm().split_once(':').map_or("", |(_, client)| client);
    if config.is_some_and(|clients| clients.0.contains(client)) {
        Ok(())
    } else {
        Err(format!("the client of {} is not in [clients]", redact(principal.as_str())))
    }
}

/// None.
pub(in crate::chat) fn merged_tenants(_config: &Config) -> Vec<(String, String)> {
    vec![]
}

/// Machines have no buttons.
pub(in crate::chat) fn binding_key_material(_secrets: &Secrets) -> Vec<Vec<u8>> {
    vec![]
}

/// The clients of the configuration.
pub(in crate::chat) fn request_signers(config: &Config, secrets: &Secrets) -> Vec<RequestSigner> {
    let configured = secrets.iter().filter(|(name, _)| config.0.contains(*name));
    let sender = |(name, client): (&String, &ClientSecrets)| RequestSigner {
        name: format!("clients.{name}"),
        secrets_key: "signing_secrets",
        secrets: client.signing_secrets.iter().map(|key| key.0.clone()).collect(),
    };
    configured.map(sender).collect()
}

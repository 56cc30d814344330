//! Secrets: what they look like, where they come from, and how long they are kept. Nothing of them is ever logged.
//!
//! One JSON document holds them all. Every signing secret is a list, so that it can be rotated without a gap.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::SdkError;
use aws_types::SdkConfig;
use base64::prelude::{BASE64_STANDARD, Engine};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::error::Category;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::clock;
use crate::config::{Channel, Config, SecretsSource, is_secure};
use crate::http;
use crate::shape::{self, shown};

/// How long a fetched value is used before it is fetched again, plus up to [`FRESH_JITTER`].
const FRESH: SignedDuration = SignedDuration::from_mins(5);
const FRESH_JITTER: SignedDuration = SignedDuration::from_secs(30);
/// While the store is down: the wait after the first failure. Each further failure doubles it.
const FIRST_REST: SignedDuration = SignedDuration::from_secs(1);
/// The longest such wait.
const MAX_REST: SignedDuration = SignedDuration::from_secs(30);
/// The shortest such wait while the last good value serves.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// The longest fetch while there are last good secrets to serve.
const SOMEBODY_WAITS: Duration = Duration::from_millis(700);
/// The least time between two fetches that a refused signature or access key asks for: whoever sends us bad signatures
/// must not be able to make us call the store each time.
const REFETCH: SignedDuration = SignedDuration::from_secs(30);
const SHORTEST_SLACK_SECRET_BYTES: usize = 16;

/// A text that shows itself to nobody by accident.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A signing secret of Slack, of 16 characters or more: Slack's own have 32.
///
/// Source: <https://docs.slack.dev/authentication/verifying-requests-from-slack>
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SlackSigningSecret(String);

/// The text is not a signing secret of Slack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Slack signing secret: expected 16 characters or more, and no space or line break")]
pub struct InvalidSlackSigningSecret;

impl SlackSigningSecret {
    /// The key's bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl TryFrom<String> for SlackSigningSecret {
    type Error = InvalidSlackSigningSecret;

    fn try_from(text: String) -> Result<Self, InvalidSlackSigningSecret> {
        let fits = text.len() >= SHORTEST_SLACK_SECRET_BYTES && is_printable(&text);
        if fits { Ok(Self(text)) } else { Err(InvalidSlackSigningSecret) }
    }
}

impl fmt::Debug for SlackSigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlackSigningSecret(…)")
    }
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

/// Everything secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// Credentials per target.
    #[serde(default)]
    pub targets: BTreeMap<String, AccessKey>,
    /// Signing secrets per client of `/webhook/{client}`.
    #[serde(default)]
    pub clients: BTreeMap<String, ClientSecrets>,
    /// Of the Slack app.
    pub slack: Option<SlackSecrets>,
    /// Per channel that is reached by a URL.
    #[serde(default)]
    pub channels: BTreeMap<String, ChannelSecrets>,
}

/// Credentials of a RAM user or role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// `LTAI…`, or `STS.…` with a security token.
    pub access_key_id: Secret,
    /// Signs calls.
    pub access_key_secret: Secret,
    /// Of temporary credentials.
    pub security_token: Option<Secret>,
}

/// Of a client of `/webhook/{client}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSecrets {
    /// Any of them may sign.
    pub signing_secrets: Vec<WebhookKey>,
}

/// Of the Slack app.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlackSecrets {
    /// Any of them may sign.
    pub signing_secrets: Vec<SlackSigningSecret>,
    /// `xoxb-…`; needed for channels of kind `slack`.
    pub bot_token: Option<Secret>,
}

/// Of a channel that is reached by a URL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelSecrets {
    /// Where to post.
    pub url: SecretUrl,
    /// All of them sign; for channels of kind `standard-webhooks`.
    #[serde(default)]
    pub signing_secrets: Vec<WebhookKey>,
}

/// A URL that is as good as a password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// The URL.
    #[must_use]
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretUrl(…)")
    }
}

/// Why there are no secrets. Never holds a part of one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The store can't be asked. Says with which code it refused, if it did.
    #[error("the secrets store does not answer: {0}")]
    Unavailable(String),
    /// The document is not JSON, or not of the documented shape: at which key and place, and what was expected. Not what
    /// was found.
    #[error("the secrets are not JSON of the documented shape at {0}")]
    Malformed(String),
    /// Something is missing, empty or too short.
    #[error("secrets: {key}: {problem}")]
    Invalid {
        /// The key, in full.
        key: String,
        /// Why.
        problem: String,
    },
}

impl Secrets {
    /// Reads the document and checks that it has what `config` needs.
    pub fn parse(json: &[u8], config: &Config) -> Result<Self, Error> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let secrets: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| malformed(&shape::path(error.path()), error.inner()))?;
        json.end().map_err(|error| malformed("its end", &error))?;
        for (name, target) in &config.targets {
            let Some(name) = target.credentials.key_of(name) else { continue };
            let key = format!("targets.{}", shown(name));
            let Some(target) = secrets.targets.get(name) else {
                return invalid(key, "missing");
            };
            let token = target.security_token.as_ref();
            for part in [Some(&target.access_key_id), Some(&target.access_key_secret), token].into_iter().flatten() {
                if !is_printable(part.expose()) {
                    return invalid(key, "a part of the access key is empty, or has a space or a line break in it");
                }
            }
        }
        for name in config.clients.keys() {
            let key = format!("clients.{}.signing_secrets", shown(name));
            match secrets.clients.get(name) {
                Some(client) if !client.signing_secrets.is_empty() => {}
                Some(_) | None => return invalid(key, "name at least one"),
            }
        }
        if config.slack.is_some() {
            let Some(slack) = &secrets.slack else {
                return invalid("slack", "missing");
            };
            if slack.signing_secrets.is_empty() {
                return invalid("slack.signing_secrets", "name at least one");
            }
        }
        for (name, channel) in &config.channels {
            secrets.check_channel(name, channel)?;
        }
        secrets.check_senders(config)?;
        secrets.check_destinations(config)?;
        Ok(secrets)
    }

    /// Two senders must not share a secret: its holder could act as both.
    fn check_senders(&self, config: &Config) -> Result<(), Error> {
        let slack = self.slack.iter().filter(|_| config.slack.is_some()).flat_map(|slack| &slack.signing_secrets);
        // The same text is other bytes as a secret of Slack's.
        let slack = slack.flat_map(|secret| {
            let decoded = WebhookKey::try_from(secret.0.clone()).ok().map(|key| key.0);
            [Some(secret.expose().to_vec()), decoded].into_iter().flatten()
        });
        let mut senders: Vec<(Vec<u8>, String)> = slack.map(|key| (key, "slack".to_owned())).collect();
        for (name, client) in self.clients.iter().filter(|(name, _)| config.clients.contains_key(*name)) {
            let sender = format!("clients.{}", shown(name));
            for key in &client.signing_secrets {
                if let Some((_, other)) = senders.iter().find(|(other, whose)| *other == key.0 && *whose != sender) {
                    let problem = format!("{other} has the same secret and could act as this client");
                    return invalid(format!("{sender}.signing_secrets"), problem);
                }
            }
            senders.extend(client.signing_secrets.iter().map(|key| (key.0.clone(), sender.clone())));
        }
        Ok(())
    }

    /// Two channels must not share an address: it would get everything twice.
    fn check_destinations(&self, config: &Config) -> Result<(), Error> {
        let mut names: BTreeMap<Url, &str> = BTreeMap::new();
        for (name, channel) in &self.channels {
            match config.channels.get(name) {
                Some(Channel::SlackWebhook {} | Channel::StandardWebhooks {}) => {}
                Some(Channel::Slack { .. }) | None => continue,
            }
            let mut url = channel.url.expose().clone();
            url.set_fragment(None);
            if let Some(other) = names.insert(url, name) {
                let problem = format!("channels.{} has the same address", shown(other));
                return invalid(format!("channels.{}.url", shown(name)), problem);
            }
        }
        Ok(())
    }

    fn check_channel(&self, name: &str, channel: &Channel) -> Result<(), Error> {
        let signed = match channel {
            Channel::Slack { .. } => {
                let token = self.slack.as_ref().and_then(|slack| slack.bot_token.as_ref());
                return match token {
                    Some(token) if is_printable(token.expose()) => Ok(()),
                    Some(token) if !token.expose().is_empty() => {
                        invalid("slack.bot_token", "it has a space or a line break in it")
                    }
                    Some(_) | None => invalid("slack.bot_token", "missing, and a channel of kind `slack` needs it"),
                };
            }
            Channel::SlackWebhook {} => false,
            Channel::StandardWebhooks {} => true,
        };
        let key = format!("channels.{}", shown(name));
        let Some(secrets) = self.channels.get(name) else {
            return invalid(key, "missing");
        };
        if !is_secure(secrets.url.expose()) {
            return invalid(format!("{key}.url"), "only https is allowed, except on loopback");
        }
        if signed && secrets.signing_secrets.is_empty() {
            return invalid(format!("{key}.signing_secrets"), "name at least one");
        }
        Ok(())
    }
}

/// Whoever stores a secret from a file easily stores the file's last line break with it.
fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn invalid<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid { key: key.into(), problem: problem.into() })
}

fn malformed(key: &str, error: &serde_json::Error) -> Error {
    let ours = [InvalidSlackSigningSecret.to_string(), InvalidWebhookKey.to_string()];
    let message = error.to_string();
    let expected = match error.classify() {
        Category::Data => shape::expected(message.rsplit_once(" at line ").map_or("", |(words, _)| words), &ours),
        Category::Syntax | Category::Eof | Category::Io => "not JSON".to_owned(),
    };
    let key = if key.is_empty() { String::new() } else { format!("{key}, ") };
    Error::Malformed(format!("{key}line {}, column {}: {expected}", error.line(), error.column()))
}

/// Fetches and keeps the secrets.
#[derive(Debug)]
pub struct SecretsStore {
    source: Source,
    config: Arc<Config>,
    /// Stands in for keys that do not exist.
    decoy: WebhookKey,
    /// Locked while fetching, so that only one task does.
    kept: Mutex<Kept>,
}

#[derive(Debug)]
enum Source {
    SecretsManager { client: Client, id: String },
    File(std::path::PathBuf),
}

#[derive(Debug, Default)]
struct Kept {
    secrets: Option<Arc<Secrets>>,
    fresh_until: Option<Timestamp>,
    fetched_at: Option<Timestamp>,
    /// How often the store failed since it last answered.
    failures: u32,
    /// The error, and when the store may be asked again.
    failed: Option<(Error, Timestamp)>,
}

impl SecretsStore {
    /// Fetches nothing yet.
    #[must_use]
    pub fn new(source: SecretsSource, aws: &SdkConfig, endpoint: Option<&String>, config: Arc<Config>) -> Self {
        let source = match source {
            SecretsSource::File(path) => Source::File(path),
            SecretsSource::SecretsManager(id) => {
                let mut builder = aws_sdk_secretsmanager::config::Builder::from(aws);
                builder.set_endpoint_url(endpoint.cloned());
                let client = Client::from_conf(builder.build());
                Source::SecretsManager { client, id }
            }
        };
        Self { source, config, decoy: WebhookKey::random(), kept: Mutex::default() }
    }

    /// The keys of a client; decoys for an unknown one. Decoys also fill up the keys of each client to the same number, so
    /// that the time of verification does not tell clients apart.
    #[must_use]
    pub fn client_keys(&self, secrets: &Secrets, client: Option<&str>) -> Vec<WebhookKey> {
        let number = secrets.clients.values().map(|client| client.signing_secrets.len()).max().unwrap_or_default();
        let own = client.and_then(|client| secrets.clients.get(client));
        let mut keys = own.map(|client| client.signing_secrets.clone()).unwrap_or_default();
        keys.resize(number.max(1), self.decoy.clone());
        keys
    }

    /// The secrets: kept for five minutes; the last good ones while the store is down or holds something unusable. After a
    /// failure, the store is not asked for a while. Without good secrets, the last error is returned.
    pub async fn current(&self, now: Timestamp) -> Result<Arc<Secrets>, Error> {
        let mut kept = self.kept.lock().await;
        // A clock that was set back must not keep them for as long.
        let is_fresh = |until: Timestamp| now < until && until < now + FRESH + FRESH;
        if let Some(secrets) = &kept.secrets
            && kept.fresh_until.is_some_and(is_fresh)
        {
            return Ok(Arc::clone(secrets));
        }
        let Some(last_good) = kept.secrets.clone() else {
            let is_rest = |until: Timestamp| now < until && until <= now + MAX_REST + MAX_REST;
            if let Some((error, until)) = &kept.failed
                && is_rest(*until)
            {
                return Err(error.clone());
            }
            let began = Instant::now();
            let fetched = self.fetch(&mut kept, now).await;
            if let Err(error) = &fetched {
                // Callers that queued on the lock arrived before this failure.
                let took = SignedDuration::try_from(began.elapsed()).unwrap_or(SignedDuration::ZERO);
                let until = now + took + kept.next_rest();
                kept.failed = Some((error.clone(), until));
            }
            return fetched;
        };
        if let Ok(Ok(secrets)) = timeout(SOMEBODY_WAITS, self.fetch(&mut kept, now)).await {
            return Ok(secrets);
        }
        kept.fresh_until = Some(now + kept.next_rest().max(RETRY));
        tracing::warn!(outcome = "last_good_secrets", "the secrets store failed; the last good secrets serve");
        Ok(last_good)
    }

    /// Fetches anew because a signature or an access key was refused; at most every 30 s.
    ///
    /// Returns the secrets if they are others than `refused`.
    pub async fn refetch(&self, refused: &Arc<Secrets>, now: Timestamp) -> Option<Arc<Secrets>> {
        let mut kept = self.kept.lock().await;
        let recent = kept.fetched_at.is_some_and(|at| now.duration_since(at).abs() < REFETCH);
        let secrets = if recent {
            kept.secrets.clone()?
        } else {
            timeout(SOMEBODY_WAITS, self.fetch(&mut kept, now)).await.ok()?.ok()?
        };
        (secrets != *refused).then_some(secrets)
    }

    /// When the document was stored, if that can be known.
    pub async fn stored_at(&self) -> Option<Timestamp> {
        match &self.source {
            Source::File(path) => std::fs::metadata(path).ok()?.modified().ok()?.try_into().ok(),
            Source::SecretsManager { client, id } => {
                let value = client.get_secret_value().secret_id(id).send().await.ok()?;
                Timestamp::from_second(value.created_date?.secs()).ok()
            }
        }
    }

    async fn fetch(&self, kept: &mut Kept, now: Timestamp) -> Result<Arc<Secrets>, Error> {
        kept.fetched_at = Some(now);
        let json = self.source.read().await?;
        let secrets = Arc::new(Secrets::parse(&json, &self.config)?);
        kept.fresh_until = Some(now + FRESH + FRESH_JITTER.mul_f64(f64::from(now.subsec_millisecond()) / 1000.0));
        kept.secrets = Some(Arc::clone(&secrets));
        (kept.failures, kept.failed) = (0, None);
        Ok(secrets)
    }
}

impl Kept {
    /// The wait after one more failure.
    fn next_rest(&mut self) -> SignedDuration {
        let doubled = FIRST_REST.checked_mul(1_i32.checked_shl(self.failures).unwrap_or(i32::MAX)).unwrap_or(MAX_REST);
        self.failures = self.failures.saturating_add(1).min(16);
        doubled.min(MAX_REST)
    }
}

impl Source {
    async fn read(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::File(path) => std::fs::read(path).map_err(|error| Error::Unavailable(error.to_string())),
            Self::SecretsManager { client, id } => {
                let answer = client.get_secret_value().secret_id(id).send().await;
                let value = answer.map_err(|error| Error::Unavailable(sdk_code(&error)))?;
                value.secret_string.map(String::into_bytes).ok_or_else(|| Error::Unavailable("no SecretString".into()))
            }
        }
    }
}

fn sdk_code<E: aws_sdk_secretsmanager::error::ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    let code = error.as_service_error().and_then(|refused| refused.code());
    code.map_or_else(|| "no answer".to_owned(), |code| http::word(code).unwrap_or_else(|| "UnreadableCode".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::is_told;

    const CONFIG: &str = r#"
        [targets.prod]
        account = "2222222222222222"
        regions = []
        [clients.ci]
        [slack]
        teams = ["T1"]
        app = "A1"
        [channels.ops]
        kind = "slack"
        channel = "C1"
        [channels.hook]
        kind = "slack-webhook"
        [channels.audit]
        kind = "standard-webhooks"
    "#;

    fn document() -> serde_json::Value {
        let key = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        serde_json::json!({
            "targets": {"prod": {"access_key_id": "LTAI", "access_key_secret": "hush"}},
            "clients": {"ci": {"signing_secrets": [key]}},
            "slack": {"signing_secrets": ["8f742231b10e8888abcd99yyyzzz85a5"], "bot_token": "xoxb-1"},
            "channels": {"hook": {"url": "https://h/"}, "audit": {"url": "https://a/", "signing_secrets": [key]}},
        })
    }

    fn parse(document: &serde_json::Value) -> Result<Secrets, Error> {
        Secrets::parse(document.to_string().as_bytes(), &Config::parse(CONFIG).unwrap())
    }

    #[test]
    fn nothing_shows_in_debug_output() {
        let secrets = format!("{:?}", parse(&document()).unwrap());
        for part in ["LTAI", "hush", "8f74", "xoxb", "https", "C2FV", "11, 97"] {
            assert!(!secrets.contains(part), "{secrets}");
        }
    }

    #[test]
    fn what_is_missing_empty_or_too_short_is_named() {
        let cases: [(&str, serde_json::Value, &str); 13] = [
            ("/targets/prod", serde_json::json!(null), "shape at targets.prod"),
            ("/targets", serde_json::json!({}), "targets.prod: missing"),
            ("/targets/prod/access_key_id", serde_json::json!(" "), "targets.prod: a part"),
            ("/targets/prod/access_key_secret", serde_json::json!(""), "targets.prod: a part"),
            ("/clients/ci/signing_secrets", serde_json::json!([]), "clients.ci.signing_secrets"),
            ("/clients/ci/signing_secrets", serde_json::json!(["whsec_"]), "shape at clients.ci.signing_secrets[0]"),
            (
                "/clients/ci/signing_secrets",
                serde_json::json!(["whsec_c2hvcnQ="]),
                "shape at clients.ci.signing_secrets[0]",
            ),
            ("/slack", serde_json::json!(null), "slack: missing"),
            ("/slack/signing_secrets", serde_json::json!(["short"]), "shape at slack.signing_secrets[0]"),
            ("/slack/signing_secrets", serde_json::json!([]), "slack.signing_secrets: name at least one"),
            ("/slack/bot_token", serde_json::json!(null), "slack.bot_token"),
            ("/channels/hook/url", serde_json::json!("http://hooks.example.com/"), "channels.hook.url"),
            ("/channels/audit/signing_secrets", serde_json::json!([]), "channels.audit.signing_secrets"),
        ];
        for (pointer, value, expected) in cases {
            let mut document = document();
            *document.pointer_mut(pointer).unwrap() = value;
            let error = parse(&document).unwrap_err().to_string();
            assert!(error.contains(expected), "{pointer}: {error}");
        }
    }

    #[test]
    fn a_secret_of_two_senders_is_refused() {
        let config = format!("{CONFIG}\n[clients.other]\n");
        let config = Config::parse(&config).unwrap();
        let parse = |ci: &[&str], other: &[&str], slack: &str| {
            let mut document = document();
            document["clients"] = serde_json::json!({
                "ci": {"signing_secrets": ci}, "other": {"signing_secrets": other}, "unused": {"signing_secrets": other},
            });
            document["slack"]["signing_secrets"] = serde_json::json!([slack]);
            Secrets::parse(document.to_string().as_bytes(), &config).map(|_| ()).map_err(|error| error.to_string())
        };
        let key = |byte: u8| format!("whsec_{}", BASE64_STANDARD.encode([byte; 32]));
        let (one, two, three) = (&*key(b'1'), &*key(b'2'), &*key(b'3'));
        let slack = "8f742231b10e8888abcd99yyyzzz85a5";
        assert_eq!(parse(&[one, two], &[three], slack), Ok(()));
        let told =
            "secrets: clients.other.signing_secrets: clients.ci has the same secret and could act as this client";
        assert_eq!(parse(&[one, two], &[three, two], slack), Err(told.into()));
        // Written in another way.
        assert_eq!(parse(&[one], &[one.strip_prefix("whsec_").unwrap()], slack), Err(told.into()));
        let told = "secrets: clients.ci.signing_secrets: slack has the same secret and could act as this client";
        // The same bytes, and the same text.
        assert_eq!(parse(&[one], &[three], &"1".repeat(32)), Err(told.into()));
        let text = "0123456789abcdef0123456789abcdef";
        assert_eq!(parse(&[&format!("whsec_{text}")], &[three], text), Err(told.into()));
    }

    #[test]
    fn two_channels_with_one_address_are_refused() {
        for (hook, audit) in [("https://h/x", "https://h/x"), ("https://h/x", "https://H:443/x#y")] {
            let mut document = document();
            document["channels"]["hook"]["url"] = hook.into();
            document["channels"]["audit"]["url"] = audit.into();
            let error = parse(&document).unwrap_err().to_string();
            assert_eq!(error, "secrets: channels.hook.url: channels.audit has the same address");
        }
    }

    /// Secrets in the place of each value and key, and where no JSON belongs: no message repeats any of them.
    #[test]
    fn no_message_repeats_a_secret() {
        fn places(value: &serde_json::Value, at: &str, into: &mut Vec<String>) {
            into.push(at.to_owned());
            match value {
                serde_json::Value::Object(fields) => {
                    fields.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), into));
                }
                serde_json::Value::Array(items) => {
                    items.iter().enumerate().for_each(|(key, value)| places(value, &format!("{at}/{key}"), into));
                }
                serde_json::Value::Null
                | serde_json::Value::Bool(_)
                | serde_json::Value::Number(_)
                | serde_json::Value::String(_) => {}
            }
        }
        let (mut pointers, mut refused) = (vec![], 0);
        places(&document(), "", &mut pointers);
        for secret in
            ["xoxb-17653672481-19874698323", "whsec_C2FVsBQIhrscChl", "https://hooks.slack.com/services/T1/B1/ayo83Mkd"]
        {
            let wrong = [
                serde_json::json!(secret),
                serde_json::json!([secret]),
                serde_json::json!({secret: secret}),
                serde_json::json!([[secret]]),
                serde_json::json!({"signing_secrets": [secret], "url": secret}),
            ];
            let mut documents = vec![];
            for pointer in &pointers {
                documents.extend(wrong.iter().map(|wrong| {
                    let mut document = document();
                    *document.pointer_mut(pointer).unwrap() = wrong.clone();
                    document.to_string()
                }));
                let mut document = document();
                if let Some(fields) = document.pointer_mut(pointer).and_then(serde_json::Value::as_object_mut) {
                    fields.insert(secret.to_owned(), serde_json::json!({"url": 7}));
                    documents.push(document.to_string());
                }
            }
            let whole = document().to_string();
            let cut = |(at, _)| whole.split_at(at);
            documents.extend(
                whole.match_indices(['"', ':', '}']).map(cut).map(|(before, after)| format!("{before}{secret}{after}")),
            );
            for document in documents {
                let config = Config::parse(CONFIG).unwrap();
                let Err(error) = Secrets::parse(document.as_bytes(), &config) else { continue };
                refused += 1;
                let told = format!("{error} {error:?}");
                assert!(!is_told(secret, &told), "{document}\n→ {told}");
            }
        }
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn a_malformed_document_says_where_and_what_was_expected() {
        for (text, expected) in [
            (
                "{\"targets\": {\"prod\": 7}}",
                "targets.prod, line 1, column 22: invalid type, expected struct AccessKey",
            ),
            (
                "{\n \"slack\": {\"signing_secrets\": [\"short\"]}}",
                "slack.signing_secrets[0], line 2, column 39: not a Slack",
            ),
            ("{\"x\": 1}", "x, line 1, column 4: unknown field, expected one of `targets`"),
            ("{", "line 1, column 1: not JSON"),
            ("{} 7", "its end, line 1, column 4: not JSON"),
        ] {
            let error = Secrets::parse(text.as_bytes(), &Config::parse(CONFIG).unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn each_failure_doubles_the_rest_up_to_thirty_seconds() {
        let mut kept = Kept::default();
        let rests: Vec<_> = (0..40).map(|_| kept.next_rest().as_secs()).collect();
        assert_eq!(rests[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(rests.last(), Some(&30));
    }

    #[tokio::test]
    async fn a_store_that_was_down_and_is_down_again_rests_shortly_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets.json");
        let store = file_store(&path);
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let after = |millis: i64| now + SignedDuration::from_millis(millis);
        assert!(store.current(now).await.is_err());
        std::fs::write(&path, document().to_string()).unwrap();
        assert!(store.current(after(900)).await.is_err(), "it is not asked yet");
        store.current(after(1500)).await.unwrap();
        assert_eq!(store.kept.lock().await.failures, 0);
        // A clock that was set back must not extend a wait for ever.
        let store = file_store(&directory.path().join("absent"));
        assert!(store.current(after(7_200_000)).await.is_err());
        assert!(store.current(now).await.is_err());
        assert_eq!(store.kept.lock().await.failures, 2);
    }

    fn file_store(path: &std::path::Path) -> SecretsStore {
        let config = Arc::new(Config::parse(CONFIG).unwrap());
        let aws = SdkConfig::builder().build();
        SecretsStore::new(SecretsSource::File(path.into()), &aws, None, config)
    }

    #[tokio::test]
    async fn the_last_good_value_serves_while_the_store_is_down() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let store = file_store(file.path());
        assert!(matches!(store.current(now).await, Err(Error::Malformed(_))));
        std::fs::write(file.path(), document().to_string()).unwrap();
        let later = now + RETRY;
        let good = store.current(later).await.unwrap();
        std::fs::write(file.path(), "{").unwrap();
        assert_eq!(store.current(later + SignedDuration::from_hours(1)).await.unwrap(), good);
    }

    #[tokio::test]
    async fn a_refused_key_refetches_once_and_not_more_often_than_allowed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document().to_string()).unwrap();
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let store = file_store(file.path());
        let old = store.current(now).await.unwrap();
        let mut rotated = document();
        rotated["targets"]["prod"]["access_key_secret"] = "new".into();
        std::fs::write(file.path(), rotated.to_string()).unwrap();
        assert_eq!(store.refetch(&old, now + SignedDuration::from_secs(29)).await, None);
        let new = store.refetch(&old, now + SignedDuration::from_secs(30)).await.unwrap();
        assert_ne!(new, old);
        assert_eq!(store.refetch(&new, now + SignedDuration::from_secs(31)).await, None);
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_keeps_nothing_longer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document().to_string()).unwrap();
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let ahead = now + SignedDuration::from_hours(8);
        for refused in [false, true] {
            let store = file_store(file.path());
            let old = store.current(ahead).await.unwrap();
            let mut rotated = document();
            rotated["targets"]["prod"]["access_key_secret"] = refused.to_string().into();
            std::fs::write(file.path(), rotated.to_string()).unwrap();
            let new = if refused { store.refetch(&old, now).await } else { store.current(now).await.ok() };
            assert_ne!(new.unwrap(), old);
        }
    }
}

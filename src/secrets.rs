//! The secrets: their format, where they come from, and how long they are cached. They are never logged.
//!
//! One JSON document has all secrets. Each signing secret is a list, so that it can be rotated without an interruption.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_types::SdkConfig;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::aws;
use crate::chat::platform::{self, Platform};
use crate::chat::{ChannelSecrets, RequestSigner};
use crate::config::{Config, SecretsSource};
use crate::document::{EncodingProblem, RepeatedKey, TextPlace, decode_text, json_offset, json_path_at, repeated_keys};
use crate::redaction::{self, KeyProblem, redact};
use crate::secret::{BindingSecret, InvalidBindingSecret, Secret, check_printable};

/// The secrets are fetched again after this time, plus up to [`CACHE_TTL_JITTER`].
const CACHE_TTL: SignedDuration = SignedDuration::from_mins(5);
const CACHE_TTL_JITTER: SignedDuration = SignedDuration::from_secs(30);
/// The pause after the first failed fetch. Each further failure doubles the pause, up to the maximum.
const MIN_BACKOFF: SignedDuration = SignedDuration::from_secs(1);
const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(30);
/// The shortest pause while the last good secrets serve.
const MIN_STALE_BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// The timeout of a fetch while the last good secrets can serve.
const INTERACTIVE_TIMEOUT: Duration = Duration::from_millis(700);
/// The shortest time between two fetches because of a refused signature or access key. A sender of bad signatures must not
/// cause a fetch with each of them.
const MIN_REFETCH_INTERVAL: SignedDuration = SignedDuration::from_secs(30);

/// All secrets, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSet {
    /// The access keys, by target.
    pub targets: BTreeMap<String, AccessKey>,
    /// The secrets of the apps on chat platforms, and of the clients of `/webhook/{client}`.
    pub platforms: platform::AppSecrets,
    /// The secrets of the channels that have a URL, by channel.
    pub channels: BTreeMap<String, ChannelSecrets>,
    /// The keys that sign buttons, the newest first.
    pub binding_keys: Vec<BindingSecret>,
    /// The keys with a name that only earlier versions used.
    pub renamed_keys: Vec<&'static str>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct SecretsDocument {
    #[serde(default)]
    targets: BTreeMap<String, AccessKey>,
    #[serde(default)]
    clients: platform::SecretsByClient,
    #[serde(default)]
    platforms: platform::AppSecrets,
    #[serde(default)]
    channels: BTreeMap<String, ChannelSecrets>,
    #[serde(default)]
    binding_keys: Vec<BindingSecret>,
    #[serde(skip)]
    renamed_keys: Vec<&'static str>,
}

impl SecretsDocument {
    /// `as_written` says whether places in the text mean something to its writer.
    fn deserialize_from(json: &str, as_written: bool) -> Result<Self, Error> {
        serde_json::from_str(json).map_err(|error| {
            let key = match error.classify() {
                Category::Data => {
                    let offset = json_offset(json.as_bytes(), error.line(), error.column());
                    redaction::dotted_path(&json_path_at(json.as_bytes(), offset))
                }
                // In a text that is not JSON, a secret can be where a key belongs.
                Category::Syntax | Category::Eof | Category::Io => {
                    let is_at_end = error.to_string().starts_with("trailing characters");
                    if is_at_end { "its end".to_owned() } else { String::new() }
                }
            };
            malformed_at(&key, &error, as_written.then(|| place_of(&error)))
        })
    }

    /// Parses the text. A document with keys of earlier versions is changed before it is parsed, so its errors have no line.
    fn parse(json: &str) -> Result<Self, Error> {
        if json.trim().is_empty() {
            return Err(Error::Malformed("the document is empty: expected a JSON object".into()));
        }
        if json.trim_start().starts_with('[') {
            return Err(Error::Malformed("expected a JSON object, found a list".into()));
        }
        if let Some(RepeatedKey { path, key }) = repeated_keys(json).into_iter().next() {
            let key = if path.is_empty() { key } else { format!("{path}.{key}") };
            return KeyProblem::err_at(key, "this key occurs twice");
        }
        let names: BTreeMap<String, &RawValue> = serde_json::from_str(json).unwrap_or_default();
        let renamed_keys: Vec<_> =
            platform::LEGACY_TABLES.into_iter().filter(|name| names.contains_key(*name)).collect();
        if renamed_keys.is_empty() {
            // Keys of earlier versions are only known in valid JSON, so the mistake in the JSON comes first.
            return Self::deserialize_from(json, true).map_err(|error| match serde_json::from_str::<Value>(json) {
                Err(syntax) if !error.to_string().contains("not JSON") => {
                    malformed_at("", &syntax, Some(place_of(&syntax)))
                }
                Err(_) | Ok(_) => error,
            });
        }
        let mut document: serde_json::Map<String, Value> =
            serde_json::from_str(json).map_err(|error| malformed_at("", &error, Some(place_of(&error))))?;
        for name in &renamed_keys {
            let Some(secret) = document.remove(*name) else { continue };
            let platforms = document.entry("platforms").or_insert_with(|| json!({}));
            if platforms.get(name).is_some() {
                return KeyProblem::err_at(name, format!("`platforms.{name}` exists, too"));
            }
            if let Some(platforms) = platforms.as_object_mut() {
                platforms.insert((*name).to_owned(), secret);
            }
        }
        Ok(Self { renamed_keys, ..Self::deserialize_from(&Value::Object(document).to_string(), false)? })
    }
}

/// An access key of a RAM user, or temporary credentials of a role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// `LTAI…`, or `STS.…` with a security token.
    pub access_key_id: Secret,
    /// The key of the signature.
    pub access_key_secret: Secret,
    /// Only for temporary credentials.
    pub security_token: Option<Secret>,
}

/// Why there are no secrets. Each text names the file or the secret, and contains no part of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store cannot be reached, or it refuses us: with its code, or the error of the operating system.
    #[error("{0}")]
    Unavailable(String),
    /// The document is not JSON, does not have the documented form, or a secret in it is missing, empty, too short, or used
    /// twice: the key, its place if it is known, what was expected and what was found.
    #[error("{0}")]
    Malformed(String),
}

impl From<KeyProblem> for Error {
    fn from(problem: KeyProblem) -> Self {
        Self::Malformed(problem.to_string())
    }
}

impl From<EncodingProblem> for Error {
    fn from(problem: EncodingProblem) -> Self {
        Self::Malformed(problem.to_string())
    }
}

impl Error {
    /// The error of a document, with the name of its file or secret.
    fn in_document(self, name: &str) -> Self {
        match self {
            Self::Malformed(problem) => Self::Malformed(format!("{name}: {problem}")),
            Self::Unavailable(_) => self,
        }
    }
}

impl SecretSet {
    /// The form of the document, as a JSON Schema.
    #[cfg(feature = "local")]
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(SecretsDocument)
    }

    /// Reads and parses a file. Like [`SecretSet::parse`], but the error names the file.
    pub fn load(path: &Path, config: &Config) -> Result<Self, Error> {
        Self::parse(&read_file(path)?, config).map_err(|error| error.in_document(&name_of_file(path)))
    }

    /// Parses the document, and checks that it has what `config` needs.
    pub fn parse(json: &[u8], config: &Config) -> Result<Self, Error> {
        let SecretsDocument { targets, clients, mut platforms, channels, binding_keys, renamed_keys } =
            SecretsDocument::parse(decode_text(json)?)?;
        platforms.set_clients(clients);
        let secrets = Self { targets, platforms, channels, binding_keys, renamed_keys };
        secrets.check_access_keys(config)?;
        for platform in Platform::ALL {
            platform.check_secrets(&config.platforms, &secrets.platforms)?;
        }
        for platform in Platform::ALL.iter().filter(|platform| platform.is_configured(&config.platforms)) {
            let has_key =
                !secrets.binding_keys.is_empty() || !platform.binding_key_material(&secrets.platforms).is_empty();
            if platform.max_binding_chars() > 0 && !has_key {
                let problem = format!("missing, and {} has no secret to derive a key from", platform.name());
                return KeyProblem::err_at("binding_keys", problem);
            }
        }
        for (name, channel) in &config.channels {
            let endpoint = secrets.channels.get(name);
            channel.check_secrets(&secrets.platforms, &format!("channels.{name}"), endpoint)?;
        }
        secrets.check_senders(config)?;
        secrets.check_destinations(config)?;
        Ok(secrets)
    }

    fn check_access_keys(&self, config: &Config) -> Result<(), Error> {
        for (name, target) in &config.targets {
            let Some(name) = target.credentials.key_holder(name) else { continue };
            let key = format!("targets.{}", redact(name));
            let Some(AccessKey { access_key_id, access_key_secret, security_token }) = self.targets.get(name) else {
                let names: Vec<_> = self.targets.keys().map(|name| redact(name)).collect();
                let present = if names.is_empty() { "none".into() } else { names.join(", ") };
                return KeyProblem::err_at(key, format!("missing: expected an access key; `targets` has {present}"));
            };
            let parts = [("access_key_id", access_key_id), ("access_key_secret", access_key_secret)];
            for (part, secret) in parts.into_iter().chain(security_token.iter().map(|token| ("security_token", token)))
            {
                if let Err(problem) = check_printable(secret.expose()) {
                    return KeyProblem::err_at(format!("{key}.{part}"), problem.to_string());
                }
            }
        }
        Ok(())
    }

    /// Two senders must not share a secret: its owner could act as both.
    fn check_senders(&self, config: &Config) -> Result<(), Error> {
        let mut senders: Vec<RequestSigner> = vec![];
        for sender in
            Platform::ALL.iter().flat_map(|platform| platform.request_signers(&config.platforms, &self.platforms))
        {
            let sharing = senders.iter().find(|other| other.secrets.iter().any(|key| sender.secrets.contains(key)));
            if let Some(other) = sharing {
                let problem = format!("{} has the same secret and could act as this sender", redact(&other.name));
                return KeyProblem::err_at(format!("{}.{}", sender.name, sender.secrets_key), problem);
            }
            senders.push(sender);
        }
        Ok(())
    }

    /// Two channels must not share a URL: it would get each message twice.
    fn check_destinations(&self, config: &Config) -> Result<(), Error> {
        let mut names: BTreeMap<Url, &str> = BTreeMap::new();
        for (name, channel) in &self.channels {
            if config.channels.get(name).is_none_or(|channel| channel.id().is_some()) {
                continue;
            }
            let mut url = channel.url.expose().clone();
            url.set_fragment(None);
            if let Some(other) = names.insert(url, name) {
                let problem = format!("channels.{} has the same URL", redact(other));
                return KeyProblem::err_at(format!("channels.{}.url", redact(name)), problem);
            }
        }
        Ok(())
    }
}

fn malformed_at(key: &str, error: &serde_json::Error, place: Option<TextPlace>) -> Error {
    let mut ours = platform::secret_format_hints();
    ours.push(InvalidBindingSecret::HINT.to_owned());
    let message = error.to_string();
    let words = message.rsplit_once(" at line ").map_or(&*message, |(words, _)| words);
    let problem = match error.classify() {
        Category::Data => match redaction::describe_expected(words, &ours) {
            unknown if unknown == redaction::UNKNOWN_FORM && key.rsplit('.').next() == Some("url") => {
                "expected a URL, e.g. https://hooks.example.com/…".to_owned()
            }
            // The words are those of TOML.
            known => known.replace("a table", "an object"),
        },
        // These messages are constants.
        Category::Syntax | Category::Eof | Category::Io => format!("not JSON: {words}"),
    };
    let at = [Some(key.to_owned()), place.map(|place| place.to_string())]
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty());
    Error::Malformed(format!("{}: {problem}", at.collect::<Vec<_>>().join(", ")))
}

fn place_of(error: &serde_json::Error) -> TextPlace {
    TextPlace { line: error.line(), column: error.column() }
}

/// Fetches and caches the secrets.
#[derive(Debug)]
pub struct SecretsStore {
    source: SecretsBackend,
    config: Arc<Config>,
    /// Locked during a fetch, so that only one task fetches.
    cache: Mutex<SecretsCache>,
}

#[derive(Debug)]
enum SecretsBackend {
    SecretsManager { client: Client, id: String },
    File(PathBuf),
}

#[derive(Debug, Default)]
struct SecretsCache {
    secrets: Option<Arc<SecretSet>>,
    fresh_until: Option<Timestamp>,
    fetched_at: Option<Timestamp>,
    /// The number of failed fetches since the last good one.
    failures: u32,
    last_failure: Option<FetchFailure>,
}

#[derive(Debug)]
struct FetchFailure {
    error: Error,
    /// When the secrets may be fetched again.
    retry_at: Timestamp,
}

impl SecretsStore {
    /// Makes no call yet.
    #[must_use]
    pub fn new(source: SecretsSource, aws: &SdkConfig, endpoint: Option<&String>, config: Arc<Config>) -> Self {
        let source = match source {
            SecretsSource::File(path) => SecretsBackend::File(path),
            SecretsSource::SecretsManager(id) => {
                let mut builder = aws_sdk_secretsmanager::config::Builder::from(aws);
                builder.set_endpoint_url(endpoint.cloned());
                let client = Client::from_conf(builder.build());
                SecretsBackend::SecretsManager { client, id }
            }
        };
        Self { source, config, cache: Mutex::default() }
    }

    /// The secrets, from the cache if they are fresh. If they cannot be fetched, or what is fetched is malformed, the last
    /// good secrets serve. After a failure there is a pause before the next fetch.
    ///
    /// # Errors
    /// The last error, when there are no good secrets yet.
    pub async fn current(&self, now: Timestamp) -> Result<Arc<SecretSet>, Error> {
        let mut cache = self.cache.lock().await;
        // The upper bound matters if the clock was set back: the secrets must not stay cached for the same time.
        let is_fresh = |until: Timestamp| now < until && until < now + CACHE_TTL + CACHE_TTL;
        if let Some(secrets) = &cache.secrets
            && cache.fresh_until.is_some_and(is_fresh)
        {
            return Ok(Arc::clone(secrets));
        }
        let Some(last_good) = cache.secrets.clone() else {
            let is_pause = |until: Timestamp| now < until && until <= now + MAX_BACKOFF + MAX_BACKOFF;
            if let Some(FetchFailure { error, retry_at }) = &cache.last_failure
                && is_pause(*retry_at)
            {
                return Err(error.clone());
            }
            let started = Instant::now();
            let fetched = self.fetch(&mut cache, now).await;
            if let Err(error) = &fetched {
                // Callers that queued on the lock took `now` before this failure.
                let duration = SignedDuration::try_from(started.elapsed()).unwrap_or(SignedDuration::ZERO);
                let retry_at = now + duration + cache.next_backoff();
                cache.last_failure = Some(FetchFailure { error: error.clone(), retry_at });
            }
            return fetched;
        };
        if let Ok(Ok(secrets)) = timeout(INTERACTIVE_TIMEOUT, self.fetch(&mut cache, now)).await {
            return Ok(secrets);
        }
        cache.fresh_until = Some(now + cache.next_backoff().max(MIN_STALE_BACKOFF));
        tracing::warn!(outcome = "last_good_secrets", "could not fetch the secrets; using the last good ones");
        Ok(last_good)
    }

    /// Fetches the secrets again after a signature or an access key was refused, at most every 30 s. Returns them if they
    /// differ from `refused`.
    pub async fn refetch(&self, refused: &Arc<SecretSet>, now: Timestamp) -> Option<Arc<SecretSet>> {
        let mut cache = self.cache.lock().await;
        let is_recent = cache.fetched_at.is_some_and(|at| now.duration_since(at).abs() < MIN_REFETCH_INTERVAL);
        let secrets = if is_recent {
            cache.secrets.clone()?
        } else {
            timeout(INTERACTIVE_TIMEOUT, self.fetch(&mut cache, now)).await.ok()?.ok()?
        };
        (secrets != *refused).then_some(secrets)
    }

    /// When the document was stored; `None` if it is unknown.
    pub async fn stored_at(&self) -> Option<Timestamp> {
        match &self.source {
            SecretsBackend::File(path) => std::fs::metadata(path).ok()?.modified().ok()?.try_into().ok(),
            SecretsBackend::SecretsManager { client, id } => {
                let value = client.get_secret_value().secret_id(id).send().await.ok()?;
                Timestamp::from_second(value.created_date?.secs()).ok()
            }
        }
    }

    async fn fetch(&self, cache: &mut SecretsCache, now: Timestamp) -> Result<Arc<SecretSet>, Error> {
        cache.fetched_at = Some(now);
        let json = self.source.read_document().await?;
        let parsed = SecretSet::parse(&json, &self.config);
        let secrets = Arc::new(parsed.map_err(|error| error.in_document(&self.source.name()))?);
        for name in &secrets.renamed_keys {
            tracing::warn!(
                outcome = "old_key",
                key = name,
                "a secret has the name that an earlier version used; store it as platforms.NAME"
            );
        }
        cache.fresh_until =
            Some(now + CACHE_TTL + CACHE_TTL_JITTER.mul_f64(f64::from(now.subsec_millisecond()) / 1000.0));
        cache.secrets = Some(Arc::clone(&secrets));
        (cache.failures, cache.last_failure) = (0, None);
        Ok(secrets)
    }
}

impl SecretsCache {
    /// Counts a failure, and returns the pause after it.
    fn next_backoff(&mut self) -> SignedDuration {
        let doubled =
            MIN_BACKOFF.checked_mul(1_i32.checked_shl(self.failures).unwrap_or(i32::MAX)).unwrap_or(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1).min(16);
        doubled.min(MAX_BACKOFF)
    }
}

impl SecretsBackend {
    /// The name of the document, for errors.
    fn name(&self) -> String {
        match self {
            Self::File(path) => name_of_file(path),
            Self::SecretsManager { id, .. } => format!("the secret {id}"),
        }
    }

    async fn read_document(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::File(path) => read_file(path),
            Self::SecretsManager { client, id } => {
                let failed = |reason: &str| {
                    let is_file = Path::new(id).extension().is_some_and(|extension| extension == "json");
                    let hint = if is_file { "; a file is named as file:PATH" } else { "" };
                    Error::Unavailable(format!("cannot fetch {} from AWS Secrets Manager: {reason}{hint}", self.name()))
                };
                let response = client.get_secret_value().secret_id(id).send().await;
                let value = response.map_err(|error| failed(&aws::error_code(&error)))?;
                let text = value.secret_string.map(String::into_bytes);
                text.ok_or_else(|| failed("it is stored as bytes, without a SecretString"))
            }
        }
    }
}

fn name_of_file(path: &Path) -> String {
    format!("the secrets file {}", path.display())
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Unavailable(format!("cannot read {}: {error}", name_of_file(path))))
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};

    use super::*;
    use crate::redaction::tests::is_leaked;

    const CONFIG: &str = r#"
        [targets.prod]
        account = "2222222222222222"
        regions = []
        [clients.ci]
        [platforms.slack]
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
            "platforms": {"slack": {"signing_secrets": ["8f742231b10e8888abcd99yyyzzz85a5"], "bot_token": "xoxb-1"}},
            "channels": {"hook": {"url": "https://h/"}, "audit": {"url": "https://a/", "signing_secrets": [key]}},
        })
    }

    fn parse(document: &serde_json::Value) -> Result<SecretSet, Error> {
        SecretSet::parse(document.to_string().as_bytes(), &Config::parse(CONFIG).unwrap())
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let secrets = format!("{:?}", parse(&document()).unwrap());
        for part in ["LTAI", "hush", "8f74", "xoxb", "https", "C2FV", "11, 97"] {
            assert!(!secrets.contains(part), "{secrets}");
        }
    }

    #[test]
    fn missing_empty_or_short_secret_is_named() {
        let cases: [(&str, serde_json::Value, &str); 13] = [
            ("/targets/prod", serde_json::json!(null), "targets.prod, line 1"),
            ("/targets", serde_json::json!({}), "targets.prod: missing"),
            (
                "/targets/prod/access_key_id",
                serde_json::json!(" "),
                "targets.prod.access_key_id: it begins with a space",
            ),
            ("/targets/prod/access_key_secret", serde_json::json!(""), "targets.prod.access_key_secret: it is empty"),
            ("/clients/ci/signing_secrets", serde_json::json!([]), "clients.ci.signing_secrets"),
            ("/clients/ci/signing_secrets", serde_json::json!(["whsec_"]), "clients.ci.signing_secrets[0], line 1"),
            (
                "/clients/ci/signing_secrets",
                serde_json::json!(["whsec_c2hvcnQ="]),
                "clients.ci.signing_secrets[0], line 1",
            ),
            ("/platforms/slack", serde_json::json!(null), "platforms.slack: missing"),
            (
                "/platforms/slack/signing_secrets",
                serde_json::json!(["short"]),
                "platforms.slack.signing_secrets[0], line 1",
            ),
            (
                "/platforms/slack/signing_secrets",
                serde_json::json!([]),
                "platforms.slack.signing_secrets: name at least one",
            ),
            ("/platforms/slack/bot_token", serde_json::json!(null), "platforms.slack.bot_token"),
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
    fn secret_shared_by_two_senders_is_refused() {
        let config = format!("{CONFIG}\n[clients.other]\n");
        let config = Config::parse(&config).unwrap();
        let parse = |ci: &[&str], other: &[&str], slack: &str| {
            let mut document = document();
            document["clients"] = serde_json::json!({
                "ci": {"signing_secrets": ci}, "other": {"signing_secrets": other}, "unused": {"signing_secrets": other},
            });
            document["platforms"]["slack"]["signing_secrets"] = serde_json::json!([slack]);
            SecretSet::parse(document.to_string().as_bytes(), &config).map(|_| ()).map_err(|error| error.to_string())
        };
        let key = |byte: u8| format!("whsec_{}", BASE64_STANDARD.encode([byte; 32]));
        let (one, two, three) = (&*key(b'1'), &*key(b'2'), &*key(b'3'));
        let slack = "8f742231b10e8888abcd99yyyzzz85a5";
        assert_eq!(parse(&[one, two], &[three], slack), Ok(()));
        let expected = "clients.other.signing_secrets: clients.ci has the same secret and could act as this sender";
        assert_eq!(parse(&[one, two], &[three, two], slack), Err(expected.into()));
        // Written in another way.
        assert_eq!(parse(&[one], &[one.strip_prefix("whsec_").unwrap()], slack), Err(expected.into()));
        let expected = "clients.ci.signing_secrets: platforms.slack has the same secret and could act as this sender";
        // The same bytes, and the same text.
        assert_eq!(parse(&[one], &[three], &"1".repeat(32)), Err(expected.into()));
        let text = "0123456789abcdef0123456789abcdef";
        assert_eq!(parse(&[&format!("whsec_{text}")], &[three], text), Err(expected.into()));
    }

    #[test]
    fn channels_with_the_same_url_are_refused() {
        for (hook, audit) in [("https://h/x", "https://h/x"), ("https://h/x", "https://H:443/x#y")] {
            let mut document = document();
            document["channels"]["hook"]["url"] = hook.into();
            document["channels"]["audit"]["url"] = audit.into();
            let error = parse(&document).unwrap_err().to_string();
            assert_eq!(error, "channels.hook.url: channels.audit has the same URL");
        }
    }

    /// Short words in lower case look like names.
    #[test]
    fn secret_in_the_place_of_a_key_is_not_named() {
        let text = document().to_string();
        for (at, _) in text.match_indices(':') {
            let (before, after) = text.split_at(at);
            let after = after.replacen(':', ",", 1).replacen('"', "\"hunter", 1);
            let error = SecretSet::parse(format!("{before}{after}").as_bytes(), &Config::parse(CONFIG).unwrap());
            let Err(error) = error else { continue };
            assert!(!error.to_string().contains("hunter"), "{error}");
        }
        let text = r#"{"targets":{"prod":{"access_key_id":"x","access_key_secret","hunter"}}}"#;
        let error = SecretSet::parse(text.as_bytes(), &Config::parse(CONFIG).unwrap()).unwrap_err().to_string();
        assert!(error.contains("not JSON") && !error.contains("hunter"), "{error}");
    }

    /// Puts secrets in the place of each value and key, and where no JSON belongs. No message repeats any of them.
    #[test]
    fn secrets_error_never_repeats_a_secret() {
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
            ["xoxb-17653672481-19874698323", "whsec_C2FVsBQIhrscChl", "https://hooks.chat.test/services/T1/B1/ayo83Mkd"]
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
                let Err(error) = SecretSet::parse(document.as_bytes(), &config) else { continue };
                refused += 1;
                let shown = format!("{error} {error:?}");
                assert!(!is_leaked(secret, &shown), "{document}\n→ {shown}");
            }
        }
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn malformed_document_error_names_place_and_expectation() {
        for (text, expected) in [
            ("{\"targets\": {\"prod\": 7}}", "targets.prod, line 1, column 22: expected an object, found a number"),
            (
                "{\"platforms\":\n {\"slack\": {\"signing_secrets\": [\"short\"]}}}",
                "platforms.slack.signing_secrets[0], line 2, column 39: not a Slack signing secret: it has 5 characters; \
                 expected 16 characters or more",
            ),
            // As earlier versions had it.
            (
                "{\"slack\": {\"signing_secrets\": [\"short\"]}}",
                "platforms.slack.signing_secrets[0]: not a Slack signing secret: it has 5 characters",
            ),
            ("{\"x\": 1}", "x, line 1, column 4: unknown field `x`, expected one of `targets`"),
            (
                "{\"chanels\": {}}",
                "expected one of `targets`, `clients`, `platforms`, `channels`, `binding_keys`; did you mean `channels`?",
            ),
            ("{", "line 1, column 1: not JSON: EOF while parsing an object"),
            ("{\"targets\": {},}", "line 1, column 16: not JSON: trailing comma"),
            ("{\"slack\": {\"signing_secrets\": []},}", "line 1, column 35: not JSON: trailing comma"),
            ("[{}, {}, {}, {}]", "expected a JSON object, found a list"),
            ("", "the document is empty: expected a JSON object"),
            (" \n", "the document is empty: expected a JSON object"),
            ("{} 7", "its end, line 1, column 4: not JSON: trailing characters"),
            ("\u{FEFF}{\"x\": 1}", "x, line 1, column 4: unknown field `x`"),
            ("{\0\"\0", "the text is UTF-16: save it as UTF-8"),
            ("{\"clients\": {\"ci\": {}, \"ci\": {}}}", "clients.ci: this key occurs twice"),
            ("{\"targets\": {}, \"targets\": {}}", "targets: this key occurs twice"),
            (
                "{\"channels\": {\"hook\": {\"url\": \"hooks\"}}}",
                "channels.hook.url, line 1, column 37: expected a URL, e.g.",
            ),
            (
                "{\"binding_keys\": [\"c2hvcnQ=\"]}",
                "binding_keys[0], line 1, column 28: not a binding key: it has 5 bytes; expected",
            ),
            ("{\"binding_keys\": [\"c2hvcnQ\"]}", "not a binding key: it is not base64: after 7 characters, a part"),
        ] {
            let error = SecretSet::parse(text.as_bytes(), &Config::parse(CONFIG).unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_thirty_seconds() {
        let mut cache = SecretsCache::default();
        let pauses: Vec<_> = (0..40).map(|_| cache.next_backoff().as_secs()).collect();
        assert_eq!(pauses[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pauses.last(), Some(&30));
    }

    #[tokio::test]
    async fn successful_fetch_resets_the_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets.json");
        let store = file_store(&path);
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let after = |millis: i64| now + SignedDuration::from_millis(millis);
        assert!(store.current(now).await.is_err());
        std::fs::write(&path, document().to_string()).unwrap();
        assert!(store.current(after(900)).await.is_err(), "the pause is not over");
        store.current(after(1500)).await.unwrap();
        assert_eq!(store.cache.lock().await.failures, 0);
        // A clock that was set back does not extend the pause.
        let store = file_store(&directory.path().join("absent"));
        assert!(store.current(after(7_200_000)).await.is_err());
        assert!(store.current(now).await.is_err());
        assert_eq!(store.cache.lock().await.failures, 2);
    }

    fn file_store(path: &std::path::Path) -> SecretsStore {
        let config = Arc::new(Config::parse(CONFIG).unwrap());
        let aws = SdkConfig::builder().build();
        SecretsStore::new(SecretsSource::File(path.into()), &aws, None, config)
    }

    #[tokio::test]
    async fn last_good_secrets_serve_while_the_store_is_down() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let store = file_store(file.path());
        assert!(matches!(store.current(now).await, Err(Error::Malformed(_))));
        std::fs::write(file.path(), document().to_string()).unwrap();
        let later = now + MIN_STALE_BACKOFF;
        let good = store.current(later).await.unwrap();
        std::fs::write(file.path(), "{").unwrap();
        assert_eq!(store.current(later + SignedDuration::from_hours(1)).await.unwrap(), good);
    }

    #[tokio::test]
    async fn refused_key_triggers_one_refetch_in_thirty_seconds() {
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
    async fn clock_set_back_does_not_extend_the_cache() {
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

//! Secrets: what they look like, where they come from, and how long they are kept. Nothing of them is ever logged.
//!
//! One JSON document holds them all. Every signing secret is a list, so that it can be rotated without a gap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::SdkError;
use aws_types::SdkConfig;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::chat::platform::{self, Platform};
use crate::chat::{ChannelSecrets, RequestSigner};
use crate::config::{Config, SecretsSource};
use crate::http;
use crate::redaction::{self, KeyProblem, redact};
use crate::secret::{BindingSecret, InvalidBindingSecret, Secret, is_printable};

/// How long a fetched value is used before it is fetched again, plus up to [`FRESH_JITTER`].
const CACHE_TTL: SignedDuration = SignedDuration::from_mins(5);
const CACHE_TTL_JITTER: SignedDuration = SignedDuration::from_secs(30);
/// While the store is down: the wait after the first failure. Each further failure doubles it.
const MIN_BACKOFF: SignedDuration = SignedDuration::from_secs(1);
/// The longest such wait.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(30);
/// The shortest such wait while the last good value serves.
const MIN_STALE_BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// The longest fetch while there are last good secrets to serve.
const INTERACTIVE_TIMEOUT: Duration = Duration::from_millis(700);
/// The least time between two fetches that a refused signature or access key asks for: whoever sends us bad signatures
/// must not be able to make us call the store each time.
const MIN_REFETCH_INTERVAL: SignedDuration = SignedDuration::from_secs(30);

/// Everything secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSet {
    /// Credentials per target.
    pub targets: BTreeMap<String, AccessKey>,
    /// Of the apps of chat platforms, and of the clients of `/webhook/{client}`.
    pub platforms: platform::AppSecrets,
    /// Per channel that is reached by a URL.
    pub channels: BTreeMap<String, ChannelSecrets>,
    /// Of the buttons of all platforms, the newest first.
    pub binding_keys: Vec<BindingSecret>,
    /// The keys whose names are those of earlier versions.
    pub renamed_keys: Vec<&'static str>,
}

#[derive(Deserialize)]
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
}

impl SecretsDocument {
    fn deserialize_from<'de, D: Deserializer<'de, Error = serde_json::Error>>(json: D) -> Result<Self, Error> {
        serde_path_to_error::deserialize(json)
            .map_err(|error| malformed_at(&redaction::dotted_path(error.path()), error.inner()))
    }

    /// Reads the text. Returns the keys whose names are those of earlier versions, too.
    fn parse(json: &[u8]) -> Result<(Self, Vec<&'static str>), Error> {
        let names: BTreeMap<String, &RawValue> = serde_json::from_slice(json).unwrap_or_default();
        let renamed: Vec<_> = platform::LEGACY_TABLES.into_iter().filter(|name| names.contains_key(*name)).collect();
        if renamed.is_empty() {
            let mut json = serde_json::Deserializer::from_slice(json);
            let document = Self::deserialize_from(&mut json)?;
            json.end().map_err(|error| malformed_at("its end", &error))?;
            return Ok((document, renamed));
        }
        let mut document: serde_json::Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| malformed_at("", &error))?;
        for name in &renamed {
            let Some(secret) = document.remove(*name) else { continue };
            let platforms = document.entry("platforms").or_insert_with(|| json!({}));
            if platforms.get(name).is_some() {
                return invalid_key(*name, format!("`platforms.{name}` is there, too"));
            }
            if let Some(platforms) = platforms.as_object_mut() {
                platforms.insert((*name).to_owned(), secret);
            }
        }
        Ok((Self::deserialize_from(Value::Object(document))?, renamed))
    }
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

impl From<KeyProblem> for Error {
    fn from(KeyProblem { key, problem }: KeyProblem) -> Self {
        Self::Invalid { key, problem }
    }
}

impl SecretSet {
    /// Reads the document and checks that it has what `config` needs.
    pub fn parse(json: &[u8], config: &Config) -> Result<Self, Error> {
        let (SecretsDocument { targets, clients, mut platforms, channels, binding_keys }, renamed) =
            SecretsDocument::parse(json)?;
        platforms.set_clients(clients);
        let secrets = Self { targets, platforms, channels, binding_keys, renamed_keys: renamed };
        for (name, target) in &config.targets {
            let Some(name) = target.credentials.key_holder(name) else { continue };
            let key = format!("targets.{}", redact(name));
            let Some(target) = secrets.targets.get(name) else {
                return invalid_key(key, "missing");
            };
            let token = target.security_token.as_ref();
            for part in [Some(&target.access_key_id), Some(&target.access_key_secret), token].into_iter().flatten() {
                if !is_printable(part.expose()) {
                    return invalid_key(key, "a part of the access key is empty, or has a space or a line break in it");
                }
            }
        }
        for platform in Platform::ALL {
            platform.check_secrets(&config.platforms, &secrets.platforms)?;
        }
        for platform in Platform::ALL.iter().filter(|it| it.is_configured(&config.platforms)) {
            let has_key =
                !secrets.binding_keys.is_empty() || !platform.binding_key_material(&secrets.platforms).is_empty();
            if platform.max_binding_chars() > 0 && !has_key {
                return invalid_key("binding_keys", format!("{} has no secret to derive a key from", platform.name()));
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

    /// Two senders must not share a secret: its holder could act as both.
    fn check_senders(&self, config: &Config) -> Result<(), Error> {
        let mut senders: Vec<RequestSigner> = vec![];
        for sender in Platform::ALL.iter().flat_map(|it| it.request_signers(&config.platforms, &self.platforms)) {
            let shared = senders.iter().find(|other| other.secrets.iter().any(|key| sender.secrets.contains(key)));
            if let Some(other) = shared {
                let problem = format!("{} has the same secret and could act as this sender", redact(&other.name));
                return invalid_key(format!("{}.{}", sender.name, sender.secrets_key), problem);
            }
            senders.push(sender);
        }
        Ok(())
    }

    /// Two channels must not share an address: it would get everything twice.
    fn check_destinations(&self, config: &Config) -> Result<(), Error> {
        let mut names: BTreeMap<Url, &str> = BTreeMap::new();
        for (name, channel) in &self.channels {
            if config.channels.get(name).is_none_or(|channel| channel.id().is_some()) {
                continue;
            }
            let mut url = channel.url.expose().clone();
            url.set_fragment(None);
            if let Some(other) = names.insert(url, name) {
                let problem = format!("channels.{} has the same address", redact(other));
                return invalid_key(format!("channels.{}.url", redact(name)), problem);
            }
        }
        Ok(())
    }
}

fn invalid_key<T>(key: impl AsRef<str>, problem: impl Into<String>) -> Result<T, Error> {
    Ok(KeyProblem::err_at(key, problem)?)
}

fn malformed_at(key: &str, error: &serde_json::Error) -> Error {
    let mut ours = platform::secret_format_hints();
    ours.push(InvalidBindingSecret.to_string());
    let message = error.to_string();
    let expected = match error.classify() {
        Category::Data => {
            redaction::describe_expected(message.rsplit_once(" at line ").map_or(&*message, |(words, _)| words), &ours)
        }
        Category::Syntax | Category::Eof | Category::Io => "not JSON".to_owned(),
    };
    let key = if key.is_empty() { String::new() } else { format!("{key}, ") };
    // A document with the names of earlier versions is read as a whole first: there are no lines any more.
    if error.line() == 0 {
        return Error::Malformed(format!("{}: {expected}", key.trim_end_matches(", ")));
    }
    Error::Malformed(format!("{key}line {}, column {}: {expected}", error.line(), error.column()))
}

/// Fetches and keeps the secrets.
#[derive(Debug)]
pub struct SecretsStore {
    source: SecretsBackend,
    config: Arc<Config>,
    /// Locked while fetching, so that only one task does.
    cache: Mutex<SecretsCache>,
}

#[derive(Debug)]
enum SecretsBackend {
    SecretsManager { client: Client, id: String },
    File(std::path::PathBuf),
}

#[derive(Debug, Default)]
struct SecretsCache {
    secrets: Option<Arc<SecretSet>>,
    fresh_until: Option<Timestamp>,
    fetched_at: Option<Timestamp>,
    /// How often the store failed since it last answered.
    failures: u32,
    /// The error, and when the store may be asked again.
    last_failure: Option<(Error, Timestamp)>,
}

impl SecretsStore {
    /// Fetches nothing yet.
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

    /// The secrets: kept for five minutes; the last good ones while the store is down or holds something unusable. After a
    /// failure, the store is not asked for a while. Without good secrets, the last error is returned.
    pub async fn current(&self, now: Timestamp) -> Result<Arc<SecretSet>, Error> {
        let mut kept = self.cache.lock().await;
        // A clock that was set back must not keep them for as long.
        let is_fresh = |until: Timestamp| now < until && until < now + CACHE_TTL + CACHE_TTL;
        if let Some(secrets) = &kept.secrets
            && kept.fresh_until.is_some_and(is_fresh)
        {
            return Ok(Arc::clone(secrets));
        }
        let Some(last_good) = kept.secrets.clone() else {
            let is_rest = |until: Timestamp| now < until && until <= now + MAX_BACKOFF + MAX_BACKOFF;
            if let Some((error, until)) = &kept.last_failure
                && is_rest(*until)
            {
                return Err(error.clone());
            }
            let began = Instant::now();
            let fetched = self.fetch(&mut kept, now).await;
            if let Err(error) = &fetched {
                // Callers that queued on the lock arrived before this failure.
                let took = SignedDuration::try_from(began.elapsed()).unwrap_or(SignedDuration::ZERO);
                let until = now + took + kept.next_backoff();
                kept.last_failure = Some((error.clone(), until));
            }
            return fetched;
        };
        if let Ok(Ok(secrets)) = timeout(INTERACTIVE_TIMEOUT, self.fetch(&mut kept, now)).await {
            return Ok(secrets);
        }
        kept.fresh_until = Some(now + kept.next_backoff().max(MIN_STALE_BACKOFF));
        tracing::warn!(outcome = "last_good_secrets", "the secrets store failed; the last good secrets serve");
        Ok(last_good)
    }

    /// Fetches again because a signature or an access key was refused; at most every 30 s.
    ///
    /// Returns the secrets if they are others than `refused`.
    pub async fn refetch(&self, refused: &Arc<SecretSet>, now: Timestamp) -> Option<Arc<SecretSet>> {
        let mut kept = self.cache.lock().await;
        let recent = kept.fetched_at.is_some_and(|at| now.duration_since(at).abs() < MIN_REFETCH_INTERVAL);
        let secrets = if recent {
            kept.secrets.clone()?
        } else {
            timeout(INTERACTIVE_TIMEOUT, self.fetch(&mut kept, now)).await.ok()?.ok()?
        };
        (secrets != *refused).then_some(secrets)
    }

    /// When the document was stored, if that can be known.
    pub async fn stored_at(&self) -> Option<Timestamp> {
        match &self.source {
            SecretsBackend::File(path) => std::fs::metadata(path).ok()?.modified().ok()?.try_into().ok(),
            SecretsBackend::SecretsManager { client, id } => {
                let value = client.get_secret_value().secret_id(id).send().await.ok()?;
                Timestamp::from_second(value.created_date?.secs()).ok()
            }
        }
    }

    async fn fetch(&self, kept: &mut SecretsCache, now: Timestamp) -> Result<Arc<SecretSet>, Error> {
        kept.fetched_at = Some(now);
        let json = self.source.read_document().await?;
        let secrets = Arc::new(SecretSet::parse(&json, &self.config)?);
        for name in &secrets.renamed_keys {
            tracing::warn!(
                outcome = "old_key",
                key = name,
                "a secret has the name of an earlier version: store platforms.NAME"
            );
        }
        kept.fresh_until =
            Some(now + CACHE_TTL + CACHE_TTL_JITTER.mul_f64(f64::from(now.subsec_millisecond()) / 1000.0));
        kept.secrets = Some(Arc::clone(&secrets));
        (kept.failures, kept.last_failure) = (0, None);
        Ok(secrets)
    }
}

impl SecretsCache {
    /// The wait after one more failure.
    fn next_backoff(&mut self) -> SignedDuration {
        let doubled =
            MIN_BACKOFF.checked_mul(1_i32.checked_shl(self.failures).unwrap_or(i32::MAX)).unwrap_or(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1).min(16);
        doubled.min(MAX_BACKOFF)
    }
}

impl SecretsBackend {
    async fn read_document(&self) -> Result<Vec<u8>, Error> {
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
    code.map_or_else(
        || "no answer".to_owned(),
        |code| http::log_safe_word(code).unwrap_or_else(|| "UnreadableCode".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};

    use super::*;
    use crate::redaction::tests::is_told;

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
            ("/platforms/slack", serde_json::json!(null), "platforms.slack: missing"),
            (
                "/platforms/slack/signing_secrets",
                serde_json::json!(["short"]),
                "shape at platforms.slack.signing_secrets[0]",
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
        let told =
            "secrets: clients.other.signing_secrets: clients.ci has the same secret and could act as this sender";
        assert_eq!(parse(&[one, two], &[three, two], slack), Err(told.into()));
        // Written in another way.
        assert_eq!(parse(&[one], &[one.strip_prefix("whsec_").unwrap()], slack), Err(told.into()));
        let told =
            "secrets: clients.ci.signing_secrets: platforms.slack has the same secret and could act as this sender";
        // The same bytes, and the same text.
        assert_eq!(parse(&[one], &[three], &"1".repeat(32)), Err(told.into()));
        let text = "0123456789abcdef0123456789abcdef";
        assert_eq!(parse(&[&format!("whsec_{text}")], &[three], text), Err(told.into()));
    }

    #[test]
    fn channels_with_the_same_address_are_refused() {
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
                let told = format!("{error} {error:?}");
                assert!(!is_told(secret, &told), "{document}\n→ {told}");
            }
        }
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn malformed_document_error_names_place_and_expectation() {
        for (text, expected) in [
            (
                "{\"targets\": {\"prod\": 7}}",
                "targets.prod, line 1, column 22: invalid type, expected struct AccessKey",
            ),
            (
                "{\"platforms\":\n {\"slack\": {\"signing_secrets\": [\"short\"]}}}",
                "platforms.slack.signing_secrets[0], line 2, column 40: not a Slack",
            ),
            // As earlier versions had it.
            ("{\"slack\": {\"signing_secrets\": [\"short\"]}}", "at platforms.slack.signing_secrets[0]: not a Slack"),
            ("{\"x\": 1}", "x, line 1, column 4: unknown field, expected one of `targets`"),
            ("{", "line 1, column 1: not JSON"),
            ("{} 7", "its end, line 1, column 4: not JSON"),
        ] {
            let error = SecretSet::parse(text.as_bytes(), &Config::parse(CONFIG).unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_thirty_seconds() {
        let mut kept = SecretsCache::default();
        let rests: Vec<_> = (0..40).map(|_| kept.next_backoff().as_secs()).collect();
        assert_eq!(rests[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(rests.last(), Some(&30));
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
        assert!(store.current(after(900)).await.is_err(), "it is not asked yet");
        store.current(after(1500)).await.unwrap();
        assert_eq!(store.cache.lock().await.failures, 0);
        // A clock that was set back must not extend a wait for ever.
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

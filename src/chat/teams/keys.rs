//! The public keys of the bot service: fetched when they are needed, and kept for a day. Strangers can cause few fetches.
//!
//! Source: <https://learn.microsoft.com/en-us/azure/bot-service/rest-api/bot-framework-rest-connector-authentication>

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jiff::{SignedDuration, Timestamp};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use url::Url;

use super::config::is_loopback;
use super::token::UnverifiedToken;
use super::{CHANNEL_ID, Config};
use crate::chat::{Unauthentic, VerifyError};
use crate::http::describe_transport;

/// The age from which keys are fetched again.
///
/// Source: <https://learn.microsoft.com/en-us/azure/bot-service/rest-api/bot-framework-rest-connector-authentication>
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// The age until which keys are used if newer ones cannot be fetched.
const MAX_STALE_AGE: SignedDuration = SignedDuration::from_hours(4 * 24);
/// The pause between two fetches for keys that are not known. Everybody can name such a key.
const UNKNOWN_KEY_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// The pause after a failed fetch.
const RETRY_PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// The time for both requests of a fetch, while a person waits.
const FETCH_TIMEOUT: Duration = Duration::from_millis(1500);
/// The largest answer. The keys of the bot service have about 20 KB with their certificates.
const MAX_ANSWER_BYTES: usize = 512 * 1024;
/// The most keys that are kept.
const MAX_KEYS: usize = 100;

/// The keys that this process has fetched.
#[derive(Debug, Default)]
pub struct KeyCache {
    /// Locked during a fetch, so that only one task fetches.
    fetching: tokio::sync::Mutex<()>,
    kept: Mutex<KeptKeys>,
}

#[derive(Debug, Default)]
struct KeptKeys {
    keys: SigningKeys,
    fetched_at: Option<Timestamp>,
    failure: Option<KeyFetchFailure>,
    /// When a fetch last did not find an unknown key.
    missed_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct KeyFetchFailure {
    at: Timestamp,
    reason: String,
}

/// Public keys of the bot service.
#[derive(Debug, Clone, Default)]
pub struct SigningKeys(Arc<Vec<SigningKey>>);

struct SigningKey {
    id: String,
    /// The channels whose requests the key may sign.
    endorsements: Vec<String>,
    components: RsaPublicKeyComponents<Vec<u8>>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: Url,
}

#[derive(Deserialize)]
struct PublicKeys {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct PublicKey {
    kty: String,
    r#use: Option<String>,
    alg: Option<String>,
    kid: String,
    n: String,
    e: String,
    #[serde(default)]
    endorsements: Vec<String>,
}

impl SigningKeys {
    /// Reads a JWK set. Keys that are not for RS256 signatures are left out. `None` if it is none.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Self> {
        let set: PublicKeys = serde_json::from_slice(json).ok()?;
        let keys = set.keys.into_iter().filter_map(|key| parse_key(serde_json::from_value(key).ok()?));
        Some(Self(Arc::new(keys.take(MAX_KEYS).collect())))
    }

    fn has(&self, key_id: &str) -> bool {
        self.0.iter().any(|key| key.id == key_id)
    }

    /// Verifies the signature. Returns whether the key is endorsed for Teams.
    pub(super) fn verify(&self, token: &UnverifiedToken<'_>) -> Result<bool, Unauthentic> {
        let mut is_endorsed = None;
        for key in self.0.iter().filter(|key| key.id == token.key_id) {
            let signed = token.signed.as_bytes();
            if key.components.verify(&RSA_PKCS1_2048_8192_SHA256, signed, &token.signature).is_ok() {
                let endorses = key.endorsements.iter().any(|channel| channel == CHANNEL_ID);
                // The order of keys must not matter.
                is_endorsed = Some(endorses && is_endorsed.unwrap_or(true));
            }
        }
        is_endorsed.ok_or(Unauthentic::InvalidToken("its signature is not that of its key"))
    }
}

fn parse_key(key: PublicKey) -> Option<SigningKey> {
    let PublicKey { kty, r#use, alg, kid, n, e, endorsements } = key;
    let is_for_us = kty == "RSA" && r#use.is_none_or(|it| it == "sig") && alg.is_none_or(|it| it == "RS256");
    let number = |text: &str| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        let begin = bytes.iter().position(|byte| *byte != 0)?;
        bytes.get(begin..).map(<[u8]>::to_vec)
    };
    let components = RsaPublicKeyComponents { n: number(&n)?, e: number(&e)? };
    is_for_us.then_some(SigningKey { id: kid, endorsements, components })
}

/// What to do about a key.
enum KeyLookup {
    /// The keys have it.
    Found(SigningKeys),
    /// The keys may be outdated.
    Fetch,
    /// The keys are new enough, and do not have it.
    Unknown,
    /// Nobody knows: the last fetch has just failed.
    Unavailable(String),
}

impl KeyCache {
    /// The keys, if they have this one. Fetches them if they are missing or old, or if they do not have it. Several callers
    /// wait for one fetch.
    pub(super) async fn find(
        &self,
        http: &reqwest::Client,
        config: &Config,
        key_id: &str,
        now: Timestamp,
    ) -> Result<SigningKeys, VerifyError> {
        if let Some(decided) = self.look(key_id, now).decided() {
            return decided;
        }
        let _fetching = self.fetching.lock().await;
        if let Some(decided) = self.look(key_id, now).decided() {
            return decided;
        }
        let fetched = match timeout(FETCH_TIMEOUT, fetch_keys(http, config)).await {
            Ok(fetched) => fetched,
            Err(_) => Err("Transport.Timeout".to_owned()),
        };
        self.keep(fetched, key_id, now);
        self.look(key_id, now).decided().unwrap_or_else(|| Err(VerifyError::KeysUnavailable("no answer".to_owned())))
    }

    fn lock(&self) -> MutexGuard<'_, KeptKeys> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, key_id: &str, now: Timestamp) -> KeyLookup {
        let kept = self.lock();
        let is_within = |at: Timestamp, time: SignedDuration| now.duration_since(at) < time;
        let is_known = |time| kept.fetched_at.is_some_and(|at| is_within(at, time));
        let (has_key, is_fresh) = (kept.keys.has(key_id), is_known(MAX_AGE));
        if has_key && is_fresh {
            return KeyLookup::Found(kept.keys.clone());
        }
        if let Some(failure) = kept.failure.as_ref().filter(|failure| is_within(failure.at, RETRY_PAUSE)) {
            return if has_key && is_known(MAX_STALE_AGE) {
                KeyLookup::Found(kept.keys.clone())
            } else {
                KeyLookup::Unavailable(failure.reason.clone())
            };
        }
        let was_missed = kept.missed_at.is_some_and(|at| is_within(at, UNKNOWN_KEY_PAUSE));
        if is_fresh && was_missed { KeyLookup::Unknown } else { KeyLookup::Fetch }
    }

    /// Keeps the result of a fetch. A failure leaves the keys as they are.
    fn keep(&self, fetched: Result<SigningKeys, String>, key_id: &str, now: Timestamp) {
        let mut kept = self.lock();
        match fetched {
            Ok(keys) => {
                if !keys.has(key_id) {
                    kept.missed_at = Some(now);
                }
                (kept.keys, kept.fetched_at, kept.failure) = (keys, Some(now), None);
            }
            Err(reason) => kept.failure = Some(KeyFetchFailure { at: now, reason }),
        }
    }
}

impl KeyLookup {
    /// `None` if the keys have to be fetched first.
    fn decided(self) -> Option<Result<SigningKeys, VerifyError>> {
        match self {
            Self::Found(keys) => Some(Ok(keys)),
            Self::Fetch => None,
            Self::Unknown => Some(Err(Unauthentic::InvalidToken("its key is unknown").into())),
            Self::Unavailable(reason) => Some(Err(VerifyError::KeysUnavailable(reason))),
        }
    }
}

/// Fetches the document of the issuer, and the keys that it names. They must be on the same host.
async fn fetch_keys(http: &reqwest::Client, config: &Config) -> Result<SigningKeys, String> {
    let url = config.metadata_url();
    let metadata: Metadata = parse_answer(&fetch(http, url.clone()).await?)?;
    if metadata.issuer != config.cloud.issuer() {
        return Err("the document of the keys is of another issuer".to_owned());
    }
    let keys = metadata.jwks_uri;
    let is_secure = keys.scheme() == "https" || is_loopback(&url) && is_loopback(&keys);
    if !is_secure || keys.host() != url.host() || keys.port() != url.port() {
        return Err("the keys are on another host".to_owned());
    }
    let keys = SigningKeys::parse(&fetch(http, keys).await?).ok_or("the answer is not a set of keys")?;
    if keys.0.is_empty() { Err("there are no keys".to_owned()) } else { Ok(keys) }
}

async fn fetch(http: &reqwest::Client, url: Url) -> Result<Vec<u8>, String> {
    let mut response = http.get(url).send().await.map_err(|error| describe_transport(&error))?;
    if !response.status().is_success() {
        return Err(format!("HTTP {}", response.status().as_u16()));
    }
    let mut body = vec![];
    while let Some(chunk) = response.chunk().await.map_err(|error| describe_transport(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            return Err("the answer is too large".to_owned());
        }
    }
    Ok(body)
}

fn parse_answer<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|_| "the answer is not a document of keys".to_owned())
}

//! The credentials for Alibaba Cloud: an access key of the secrets, or a session of a role. The role is assumed with an
//! access key of the secrets, or with an identity token of AWS.
//!
//! A session is cached until 15 minutes before it ends. One task assumes it at a time. The ticks of the watcher renew it
//! early, so that nobody has to wait. All reads share one session. A decision is carried out in a session that names its
//! connection. So Alibaba Cloud's audit trail shows the approval of each call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout};

use crate::alicloud::sts::{self, Sts};
use crate::alicloud::{self, Class, Credentials};
use crate::aws::AwsEnvironment;
use crate::aws::{self, IdentityToken};
use crate::config::{Config, CredentialsKind, Target};
use crate::http::Clients;
use crate::logging::ErrorChain;
use crate::metrics;
use crate::peering::InstanceId;
use crate::secret::Secret;
use crate::secrets::{self, AccessKey, SecretsStore};

/// The audience of identity tokens, which Alibaba Cloud's OIDC provider expects.
const OIDC_AUDIENCE: &str = "sts.aliyuncs.com";
/// When a person may be waiting.
const INTERACTIVE: Freshness =
    Freshness { min_validity: SignedDuration::from_mins(15), timeout: Duration::from_millis(700) };
/// In a tick, when nobody is waiting.
const BACKGROUND: Freshness =
    Freshness { min_validity: SignedDuration::from_mins(20), timeout: Duration::from_secs(5) };
/// An identity token must be valid for so much longer.
const MIN_TOKEN_VALIDITY: SignedDuration = SignedDuration::from_mins(1);
/// The pause between two tries to renew a session that is still valid.
const RENEWAL_RETRY_INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// For so long after a failure, callers get the same error without another try.
const FAILURE_TTL: SignedDuration = SignedDuration::from_secs(2);
/// The longest time until a try fails: two calls with their timeouts, because the key may have been rotated.
const MAX_TRY_DURATION: SignedDuration = SignedDuration::from_mins(1);
/// A refused session is dropped only if it is at least so old.
const MIN_REFUSED_SESSION_AGE: SignedDuration = SignedDuration::from_secs(30);
/// Refusals that a new session may avoid.
const SESSION_ERROR_PREFIXES: [&str; 4] =
    ["InvalidSecurityToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden.AccessKeyDisabled"];
/// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerole>
const MAX_SESSION_NAME_CHARS: usize = 64;

/// The name of a session in Alibaba Cloud's audit trail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionName(String);

impl SessionName {
    /// For reads and dry runs.
    #[must_use]
    pub fn for_reads() -> Self {
        Self("peergate".into())
    }

    /// For the calls that carry out a decision about a connection.
    #[must_use]
    pub fn for_decision(instance_id: &InstanceId) -> Self {
        Self(format!("peergate-{instance_id}").chars().take(MAX_SESSION_NAME_CHARS).collect())
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The secrets cannot be read.
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    /// The secrets have no access key for this target.
    #[error("the secrets have no access key for the target")]
    NoKey,
    /// The role cannot be assumed.
    #[error(transparent)]
    Sts(#[from] alicloud::Error),
    /// AWS issues no identity token.
    #[error(transparent)]
    Identity(#[from] aws::IdentityError),
    /// Another caller has just got this error.
    #[error("another call for credentials has just failed with {}", .0.code)]
    FailedRecently(RecentFailure),
}

/// The error of another caller.
#[derive(Debug, Clone)]
pub struct RecentFailure {
    code: String,
    request_id: Option<String>,
    class: Class,
}

impl RecentFailure {
    fn of(error: &Error) -> Self {
        let request_id = error.request_id().map(ToOwned::to_owned);
        Self { code: error.code().to_owned(), request_id, class: error.class() }
    }
}

impl Error {
    /// The code in records, logs and messages.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Secrets(_) => "SecretsUnavailable",
            Self::NoKey => "NoAccessKey",
            // In answers to other calls, `NoPermission` is about the operation. Here it is about the role.
            Self::Sts(error) if error.code() == "NoPermission" => "AssumeRole.NoPermission",
            Self::Sts(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::FailedRecently(failure) => &failure.code,
        }
    }

    /// The vendor's id of the call.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Sts(error) => error.request_id(),
            Self::FailedRecently(failure) => failure.request_id.as_deref(),
            Self::Secrets(_) | Self::NoKey | Self::Identity(_) => None,
        }
    }

    /// What the caller must do. An operator has to fix every problem of a role or a token that does not pass.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NoKey => Class::Credentials,
            Self::FailedRecently(failure) => failure.class,
            Self::Sts(error) => match error.class() {
                class @ (Class::Retry | Class::Unknown) => class,
                Class::ReadStatus | Class::Missing | Class::Permanent | Class::Credentials | Class::DryRunPassed => {
                    Class::Credentials
                }
            },
            Self::Identity(error) if error.needs_operator() => Class::Credentials,
            Self::Secrets(_) | Self::Identity(_) => Class::Retry,
        }
    }

    /// Counts the error in the metrics, unless its call is already counted.
    fn count_refusal(&self) {
        let is_counted = match self {
            Self::Sts(error) => error.class() == Class::Credentials,
            Self::FailedRecently(_) => true,
            Self::Secrets(_) | Self::NoKey | Self::Identity(_) => false,
        };
        if !is_counted && self.class() == Class::Credentials {
            metrics::count_credentials_refused();
        }
    }
}

/// Gets and caches credentials.
#[derive(Debug)]
pub struct CredentialsProvider {
    clients: Clients,
    aws: AwsEnvironment,
    config: Arc<Config>,
    sessions: Mutex<BTreeMap<SessionKey, Arc<CacheEntry>>>,
    identity_token: tokio::sync::Mutex<Option<IdentityToken>>,
}

/// Identifies a session in the cache.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SessionKey {
    target: String,
    name: SessionName,
}

/// The target of a session.
#[derive(Clone, Copy)]
struct NamedTarget<'a> {
    name: &'a str,
    config: &'a Target,
}

/// When a session is renewed, and how long a caller waits for that.
#[derive(Clone, Copy)]
struct Freshness {
    /// A session with less remaining validity is renewed.
    min_validity: SignedDuration,
    /// After this time, the caller uses the old session, if it is still valid.
    timeout: Duration,
}

/// A key that Alibaba Cloud refused.
#[derive(Debug, Clone, Copy)]
pub struct RefusedKey<'a> {
    /// The key of the call.
    pub key: &'a AccessKey,
    /// The code of the refusal.
    pub code: &'a str,
}

/// A session. It is locked while a task assumes it, so that only one task does.
#[derive(Default)]
struct CacheEntry(tokio::sync::Mutex<SessionState>);

impl std::fmt::Debug for CacheEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CacheEntry(…)")
    }
}

#[derive(Default)]
struct SessionState {
    session: Option<CachedSession>,
    /// While the session is valid, no renewal is tried before this time.
    retry_not_before: Option<Timestamp>,
    last_failure: Option<SessionFailure>,
}

struct SessionFailure {
    failed_at: Timestamp,
    failure: RecentFailure,
}

impl SessionState {
    /// The failure that a caller need not repeat. `now` may precede the failure: callers that queued on the lock took it
    /// earlier.
    fn recent_failure(&self, now: Timestamp) -> Option<&RecentFailure> {
        let last = self.last_failure.as_ref()?;
        (-MAX_TRY_DURATION..FAILURE_TTL).contains(&now.duration_since(last.failed_at)).then_some(&last.failure)
    }
}

#[derive(Clone)]
struct CachedSession {
    key: AccessKey,
    assumed_at: Timestamp,
    expires_at: Timestamp,
}

impl CredentialsProvider {
    /// Makes no call yet.
    #[must_use]
    pub fn new(clients: impl Into<Clients>, aws: AwsEnvironment, config: Arc<Config>) -> Self {
        Self {
            clients: clients.into(),
            aws,
            config,
            sessions: Mutex::default(),
            identity_token: tokio::sync::Mutex::default(),
        }
    }

    /// The key that signs calls for `target`.
    pub async fn current_key(
        &self,
        secrets: &SecretsStore,
        target: &str,
        name: &SessionName,
        now: Timestamp,
    ) -> Result<AccessKey, Error> {
        let config = self.config.targets.get(target).ok_or(Error::NoKey)?;
        match &config.credentials {
            CredentialsKind::AccessKey {} => {
                stored_key(&*secrets.current(now).await?, target).inspect_err(Error::count_refusal)
            }
            CredentialsKind::AssumeRole { .. } | CredentialsKind::Oidc { .. } => self
                .session_key(secrets, NamedTarget { name: target, config }, name, INTERACTIVE, now)
                .await
                .inspect_err(Error::count_refusal),
        }
    }

    /// Another key to try after a refusal; `None` if there is no other.
    pub async fn replace_refused_key(
        &self,
        secrets: &SecretsStore,
        target: &str,
        name: &SessionName,
        refused: RefusedKey<'_>,
        now: Timestamp,
    ) -> Option<AccessKey> {
        let config = self.config.targets.get(target)?;
        let other = match &config.credentials {
            CredentialsKind::AccessKey {} => {
                let cached = secrets.current(now).await.ok()?;
                let latest = secrets.refetch(&cached, now).await.unwrap_or(cached);
                stored_key(&latest, target).ok()?
            }
            CredentialsKind::AssumeRole { .. } | CredentialsKind::Oidc { .. } => {
                // Another session of the role has the same permissions.
                if !SESSION_ERROR_PREFIXES.iter().any(|prefix| refused.code.starts_with(prefix)) {
                    return None;
                }
                let entry = self.cache_entry(target, name, now);
                let mut state = entry.0.lock().await;
                let is_old =
                    |session: &CachedSession| now.duration_since(session.assumed_at) >= MIN_REFUSED_SESSION_AGE;
                if state.session.as_ref().is_some_and(|session| session.key == *refused.key && is_old(session)) {
                    state.session = None;
                }
                drop(state);
                self.session_key(secrets, NamedTarget { name: target, config }, name, INTERACTIVE, now).await.ok()?
            }
        };
        (other != *refused.key).then_some(other)
    }

    /// Renews the sessions that end soon, so that nobody has to wait for them.
    pub async fn renew_expiring_sessions(&self, secrets: &SecretsStore, now: Timestamp) {
        let reading = SessionName::for_reads();
        let sessions = self.config.targets.iter().filter(|(_, target)| target.credentials.needs_session());
        let refresh = sessions.map(async |(name, config)| {
            if let Err(error) = self.session_key(secrets, NamedTarget { name, config }, &reading, BACKGROUND, now).await
            {
                error.count_refusal();
                tracing::error!(
                    outcome = "no_credentials",
                    target = name,
                    alicloud.code = error.code(),
                    alicloud.request_id = error.request_id(),
                    error = %ErrorChain(&error),
                    "could not get the credentials of a target"
                );
            }
        });
        join_all(refresh).await;
    }

    /// The key of a session that is valid for long enough. If it cannot be renewed in time, the old session serves until it
    /// ends.
    async fn session_key(
        &self,
        secrets: &SecretsStore,
        target: NamedTarget<'_>,
        name: &SessionName,
        Freshness { min_validity, timeout: max_wait }: Freshness,
        now: Timestamp,
    ) -> Result<AccessKey, Error> {
        let entry = self.cache_entry(target.name, name, now);
        let mut state = entry.0.lock().await;
        let usable = state.session.clone().filter(|session| now < session.expires_at);
        let Some(session) = usable else {
            if let Some(failure) = state.recent_failure(now) {
                return Err(Error::FailedRecently(failure.clone()));
            }
            // Other callers wait on the lock for this session.
            let started = Instant::now();
            let assumed = self.assume_session(secrets, target, name, now).await;
            let failed_at = now + SignedDuration::try_from(started.elapsed()).unwrap_or_default();
            let failure = assumed.as_ref().err().map(RecentFailure::of);
            state.last_failure = failure.map(|failure| SessionFailure { failed_at, failure });
            state.session = Some(assumed?);
            state.retry_not_before = None;
            return state.session.as_ref().map(|session| session.key.clone()).ok_or(Error::NoKey);
        };
        // The upper bound matters if the clock was set back: the renewal must not be late by the same time.
        let is_too_early =
            |until: Timestamp| now < until && until < now + RENEWAL_RETRY_INTERVAL + RENEWAL_RETRY_INTERVAL;
        if now + min_validity < session.expires_at || state.retry_not_before.is_some_and(is_too_early) {
            return Ok(session.key);
        }
        // During the renewal, other callers use the old session.
        state.retry_not_before = Some(now + RENEWAL_RETRY_INTERVAL);
        drop(state);
        let code = match timeout(max_wait, self.assume_session(secrets, target, name, now)).await {
            Ok(Ok(new)) => {
                *entry.0.lock().await = SessionState { session: Some(new.clone()), ..SessionState::default() };
                return Ok(new.key);
            }
            Ok(Err(error)) => {
                error.count_refusal();
                Some(error.code().to_owned())
            }
            Err(_elapsed) => None,
        };
        tracing::warn!(
            outcome = "old_session",
            target = target.name,
            alicloud.code = code,
            "could not renew a session; using the old one until it ends"
        );
        Ok(session.key)
    }

    /// The cache entry of a session. A new entry removes those that are no longer of use.
    fn cache_entry(&self, target: &str, name: &SessionName, now: Timestamp) -> Arc<CacheEntry> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = SessionKey { target: target.to_owned(), name: name.clone() };
        if !sessions.contains_key(&key) {
            let is_valid =
                |state: &SessionState| state.session.as_ref().is_some_and(|session| now < session.expires_at);
            let is_useful = |state: &SessionState| is_valid(state) || state.recent_failure(now).is_some();
            let in_use = |entry: &Arc<CacheEntry>| Arc::strong_count(entry) > 1;
            sessions.retain(|_, entry| in_use(entry) || entry.0.try_lock().is_ok_and(|state| is_useful(&state)));
        }
        Arc::clone(sessions.entry(key).or_default())
    }

    async fn assume_session(
        &self,
        secrets: &SecretsStore,
        NamedTarget { name: target, config }: NamedTarget<'_>,
        SessionName(name): &SessionName,
        now: Timestamp,
    ) -> Result<CachedSession, Error> {
        let sts = Sts::new(self.clients.clone(), config.sts_endpoint.clone(), config.signature);
        let session = match &config.credentials {
            CredentialsKind::AccessKey {} => return Err(Error::NoKey),
            CredentialsKind::AssumeRole { role, external_id, key_of } => {
                let key_holder = key_of.as_deref().unwrap_or(target);
                let cached = secrets.current(now).await?;
                let assume = async |key: AccessKey| {
                    sts.assume_role(key.as_credentials(), role, name, external_id.as_deref()).await
                };
                match assume(stored_key(&cached, key_holder)?).await {
                    // The key may have been rotated.
                    Err(error) if error.class() == Class::Credentials => match secrets.refetch(&cached, now).await {
                        Some(latest) => assume(stored_key(&latest, key_holder)?).await?,
                        None => return Err(error.into()),
                    },
                    session => session?,
                }
            }
            CredentialsKind::Oidc { role, provider } => {
                let token = self.identity_token(now).await?;
                sts.assume_role_with_oidc(provider, token.expose(), role, name).await?
            }
        };
        let sts::StsSession { access_key_id, access_key_secret, security_token, expires_at } = session;
        let key = AccessKey {
            access_key_id: Secret::new(access_key_id),
            access_key_secret: Secret::new(access_key_secret),
            security_token: Some(Secret::new(security_token)),
        };
        Ok(CachedSession { key, assumed_at: now, expires_at })
    }

    async fn identity_token(&self, now: Timestamp) -> Result<Secret, aws::IdentityError> {
        let mut cached = self.identity_token.lock().await;
        if let Some(token) = cached.as_ref().filter(|token| now + MIN_TOKEN_VALIDITY < token.expires_at) {
            return Ok(token.token.clone());
        }
        let token = aws::fetch_identity_token(&self.clients.latest().client, &self.aws, OIDC_AUDIENCE, now).await?;
        Ok(cached.insert(token).token.clone())
    }
}

fn stored_key(secrets: &secrets::SecretSet, target: &str) -> Result<AccessKey, Error> {
    secrets.targets.get(target).cloned().ok_or(Error::NoKey)
}

impl AccessKey {
    /// The credentials of a call with this key.
    #[must_use]
    pub fn as_credentials(&self) -> Credentials<'_> {
        Credentials {
            access_key_id: self.access_key_id.expose(),
            access_key_secret: self.access_key_secret.expose(),
            security_token: self.security_token.as_ref().map(Secret::expose),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        [targets.prod]
        account = "2222222222222222"
        regions = []
    "#;

    #[tokio::test]
    async fn failure_is_cached_briefly_even_if_the_clock_goes_back() {
        let config = Arc::new(Config::parse(CONFIG).unwrap());
        let provider = CredentialsProvider::new(crate::http::new_client().unwrap(), AwsEnvironment::default(), config);
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let (one, other) = (SessionName("one".into()), SessionName("other".into()));
        let failure = RecentFailure { code: "Code".into(), request_id: None, class: Class::Retry };
        provider.cache_entry("prod", &one, now).0.lock().await.last_failure =
            Some(SessionFailure { failed_at: now, failure });
        let is_known = async |at: Timestamp| {
            // A new entry removes those that are no longer of use.
            let _ = provider.cache_entry("prod", &other, at);
            provider.sessions.lock().unwrap().retain(|key, _| key.name != other);
            provider.cache_entry("prod", &one, at).0.lock().await.recent_failure(at).is_some()
        };
        let second = SignedDuration::from_secs(1);
        assert!(is_known(now - second * 30).await, "a caller that queued during the try");
        assert!(is_known(now + second).await);
        assert!(!is_known(now - second * 3600).await, "the clock was set back");
        assert!(!is_known(now + second).await, "the entry is removed");
    }
}

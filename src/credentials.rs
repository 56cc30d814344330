//! Who we are to Alibaba Cloud: the access key of the secrets, or a session of a role that is assumed with it or with an
//! identity token of AWS.
//!
//! Sessions are kept until 15 minutes before they end, assumed by one task at a time, and renewed by the watcher's ticks
//! before anybody has to wait for it. What was decided is carried out in a session that names the connection, so that
//! Alibaba Cloud's own audit trail says which approval a call belongs to; reading is done in one session for all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout};

use crate::alicloud::sts::{self, Sts};
use crate::alicloud::{self, Class, Credentials};
use crate::aws::{self, IdentityToken};
use crate::config::{AwsEnvironment, Config, CredentialsKind, Target};
use crate::http::Clients;
use crate::logging::Chain;
use crate::metrics;
use crate::peering::InstanceId;
use crate::secret::Secret;
use crate::secrets::{self, AccessKey, SecretsStore};

/// The audience that Alibaba Cloud's OIDC provider is told to expect.
const OIDC_AUDIENCE: &str = "sts.aliyuncs.com";
/// A session that ends sooner is not used for anything new, if there is another.
const MIN_INTERACTIVE_VALIDITY: SignedDuration = SignedDuration::from_mins(15);
/// One that ends sooner is renewed by a tick.
const RENEW: SignedDuration = SignedDuration::from_mins(20);
/// An identity token that ends sooner is not used.
const MIN_TOKEN_VALIDITY: SignedDuration = SignedDuration::from_mins(1);
/// The longest that somebody waits for a new session while the old one still serves, and how long it then serves on.
const INTERACTIVE_TIMEOUT: Duration = Duration::from_millis(700);
const RENEWAL_RETRY_INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// The longest that a tick waits for one, for nobody waits for the tick.
const NOBODY_WAITS: Duration = Duration::from_secs(5);
/// How long those who come after a failure are told of it, and not made to wait for the next.
const FAILURE_TTL: SignedDuration = SignedDuration::from_secs(2);
/// The longest that it takes to fail: a key that was rotated, twice the time that a call may take.
const MAX_TRY_DURATION: SignedDuration = SignedDuration::from_mins(1);
/// The least age of a session that is given up because it was refused.
const MIN_REFUSED_SESSION_AGE: SignedDuration = SignedDuration::from_secs(30);
/// Codes of refusals that another session may not meet.
const SESSION_ERROR_PREFIXES: [&str; 4] =
    ["InvalidSecurityToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden.AccessKeyDisabled"];
/// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerole>
const MAX_SESSION_NAME_CHARS: usize = 64;

/// In whose name a call is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionName(String);

impl SessionName {
    /// For reading, and for everything that decides nothing.
    #[must_use]
    pub fn reading() -> Self {
        Self("peergate".into())
    }

    /// For carrying out what was decided about a connection.
    #[must_use]
    pub fn for_decision(instance_id: &InstanceId) -> Self {
        Self(format!("peergate-{instance_id}").chars().take(MAX_SESSION_NAME_CHARS).collect())
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The secrets can't be read.
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    /// They hold no key for this target.
    #[error("the secrets hold no access key for the target")]
    NoKey,
    /// The role can't be assumed.
    #[error(transparent)]
    Sts(#[from] alicloud::Error),
    /// AWS issues no identity token.
    #[error(transparent)]
    Identity(#[from] aws::IdentityError),
    /// It failed for somebody else a moment ago.
    #[error("it failed a moment ago with {}", .0.code)]
    FailedRecently(RecentFailure),
}

/// How it failed.
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
    /// As records and people see it.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Secrets(_) => "SecretsUnavailable",
            Self::NoKey => "NoAccessKey",
            // Elsewhere it is about what a call may do, here about who may be whom.
            Self::Sts(error) if error.code() == "NoPermission" => "AssumeRole.NoPermission",
            Self::Sts(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::FailedRecently(failure) => &failure.code,
        }
    }

    /// The vendor's name for the call.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Sts(error) => error.request_id(),
            Self::FailedRecently(failure) => failure.request_id.as_deref(),
            Self::Secrets(_) | Self::NoKey | Self::Identity(_) => None,
        }
    }

    /// What it asks us to do. Whatever is wrong with a role or a token, a person has to mend it.
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

    /// Counts the error, unless its call was counted already.
    fn count(&self) {
        let counted = match self {
            Self::Sts(error) => error.class() == Class::Credentials,
            Self::FailedRecently(_) => true,
            Self::Secrets(_) | Self::NoKey | Self::Identity(_) => false,
        };
        if !counted && self.class() == Class::Credentials {
            metrics::count_credentials_refused();
        }
    }
}

/// Gets and keeps credentials.
#[derive(Debug)]
pub struct CredentialsProvider {
    clients: Clients,
    aws: AwsEnvironment,
    config: Arc<Config>,
    sessions: Mutex<BTreeMap<(String, SessionName), Arc<CacheEntry>>>,
    identity_token: tokio::sync::Mutex<Option<IdentityToken>>,
}

/// A session, locked while it is assumed, so that only one task does.
#[derive(Default)]
struct CacheEntry(tokio::sync::Mutex<SessionState>);

impl std::fmt::Debug for CacheEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot(…)")
    }
}

#[derive(Default)]
struct SessionState {
    session: Option<CachedSession>,
    /// Not to be tried again before, while the session serves.
    retry_not_before: Option<Timestamp>,
    /// When it failed, and how.
    last_failure: Option<(Timestamp, RecentFailure)>,
}

impl SessionState {
    /// How it failed a moment ago. Who came while it was tried came long before it failed.
    fn recent_failure(&self, now: Timestamp) -> Option<&RecentFailure> {
        let (at, failure) = self.last_failure.as_ref()?;
        (-MAX_TRY_DURATION..FAILURE_TTL).contains(&now.duration_since(*at)).then_some(failure)
    }
}

#[derive(Clone)]
struct CachedSession {
    key: AccessKey,
    assumed_at: Timestamp,
    expires_at: Timestamp,
}

impl CredentialsProvider {
    /// Gets nothing yet.
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

    /// What calls of `target` are signed with.
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
                stored_key(&*secrets.current(now).await?, target).inspect_err(Error::count)
            }
            CredentialsKind::AssumeRole { .. } | CredentialsKind::Oidc { .. } => self
                .session(secrets, (target, config), name, (MIN_INTERACTIVE_VALIDITY, INTERACTIVE_TIMEOUT), now)
                .await
                .inspect_err(Error::count),
        }
    }

    /// What to try instead of a key that was refused with `code`: `None` if there is nothing else.
    pub async fn replace_refused_key(
        &self,
        secrets: &SecretsStore,
        target: &str,
        name: &SessionName,
        (refused, code): (&AccessKey, &str),
        now: Timestamp,
    ) -> Option<AccessKey> {
        let config = self.config.targets.get(target)?;
        let other = match &config.credentials {
            CredentialsKind::AccessKey {} => {
                let held = secrets.current(now).await.ok()?;
                let fresh = secrets.refetch(&held, now).await.unwrap_or(held);
                stored_key(&fresh, target).ok()?
            }
            CredentialsKind::AssumeRole { .. } | CredentialsKind::Oidc { .. } => {
                // What it may not do, another session of the role may not do either.
                if !SESSION_ERROR_PREFIXES.iter().any(|prefix| code.starts_with(prefix)) {
                    return None;
                }
                let slot = self.cache_entry(target, name, now);
                let mut kept = slot.0.lock().await;
                let old = |session: &CachedSession| now.duration_since(session.assumed_at) >= MIN_REFUSED_SESSION_AGE;
                if kept.session.as_ref().is_some_and(|session| session.key == *refused && old(session)) {
                    kept.session = None;
                }
                drop(kept);
                self.session(secrets, (target, config), name, (MIN_INTERACTIVE_VALIDITY, INTERACTIVE_TIMEOUT), now)
                    .await
                    .ok()?
            }
        };
        (other != *refused).then_some(other)
    }

    /// Renews what ends soon, so that nobody has to wait for it.
    pub async fn refresh(&self, secrets: &SecretsStore, now: Timestamp) {
        let reading = SessionName::reading();
        let sessions = self.config.targets.iter().filter(|(_, target)| target.credentials.is_a_session());
        let refresh = sessions.map(async |(name, target)| {
            if let Err(error) = self.session(secrets, (name, target), &reading, (RENEW, NOBODY_WAITS), now).await {
                error.count();
                tracing::error!(
                    outcome = "no_credentials",
                    target = name,
                    alicloud.code = error.code(),
                    alicloud.request_id = error.request_id(),
                    error = %Chain(&error),
                    "there are no credentials"
                );
            }
        });
        join_all(refresh).await;
    }

    /// A session that serves for at least `for_at_least`, or, while no new one can be had in time, until it ends.
    async fn session(
        &self,
        secrets: &SecretsStore,
        target: (&str, &Target),
        name: &SessionName,
        (for_at_least, patience): (SignedDuration, Duration),
        now: Timestamp,
    ) -> Result<AccessKey, Error> {
        let slot = self.cache_entry(target.0, name, now);
        let mut kept = slot.0.lock().await;
        let usable = kept.session.clone().filter(|session| now < session.expires_at);
        let Some(session) = usable else {
            if let Some(failure) = kept.recent_failure(now) {
                return Err(Error::FailedRecently(failure.clone()));
            }
            // Whoever comes meanwhile waits for this one.
            let begun = Instant::now();
            let assumed = self.assume_session(secrets, target, name, now).await;
            let took = SignedDuration::try_from(begun.elapsed()).unwrap_or_default();
            kept.last_failure = assumed.as_ref().err().map(|error| (now + took, RecentFailure::of(error)));
            kept.session = Some(assumed?);
            kept.retry_not_before = None;
            return kept.session.as_ref().map(|session| session.key.clone()).ok_or(Error::NoKey);
        };
        // A clock that was set back must not put it off for as long.
        let is_too_early =
            |until: Timestamp| now < until && until < now + RENEWAL_RETRY_INTERVAL + RENEWAL_RETRY_INTERVAL;
        if now + for_at_least < session.expires_at || kept.retry_not_before.is_some_and(is_too_early) {
            return Ok(session.key);
        }
        // Whoever comes meanwhile takes the old one.
        kept.retry_not_before = Some(now + RENEWAL_RETRY_INTERVAL);
        drop(kept);
        let code = match timeout(patience, self.assume_session(secrets, target, name, now)).await {
            Ok(Ok(new)) => {
                *slot.0.lock().await = SessionState { session: Some(new.clone()), ..SessionState::default() };
                return Ok(new.key);
            }
            Ok(Err(error)) => {
                error.count();
                Some(error.code().to_owned())
            }
            Err(_elapsed) => None,
        };
        tracing::warn!(
            outcome = "old_session",
            target = target.0,
            alicloud.code = code,
            "no new session; the old one serves until it ends"
        );
        Ok(session.key)
    }

    /// Where a session is kept. Those that have ended go.
    fn cache_entry(&self, target: &str, name: &SessionName, now: Timestamp) -> Arc<CacheEntry> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.to_owned(), name.clone());
        if !sessions.contains_key(&key) {
            let serves = |kept: &SessionState| kept.session.as_ref().is_some_and(|session| now < session.expires_at);
            let is_known = |kept: &SessionState| serves(kept) || kept.recent_failure(now).is_some();
            let in_use = |slot: &Arc<CacheEntry>| Arc::strong_count(slot) > 1;
            sessions.retain(|_, slot| in_use(slot) || slot.0.try_lock().is_ok_and(|kept| is_known(&kept)));
        }
        Arc::clone(sessions.entry(key).or_default())
    }

    async fn assume_session(
        &self,
        secrets: &SecretsStore,
        (target, config): (&str, &Target),
        SessionName(name): &SessionName,
        now: Timestamp,
    ) -> Result<CachedSession, Error> {
        let sts = Sts::new(self.clients.clone(), config.sts_endpoint.clone(), config.signature);
        let session = match &config.credentials {
            CredentialsKind::AccessKey {} => return Err(Error::NoKey),
            CredentialsKind::AssumeRole { role, external_id, key_of } => {
                let whose = key_of.as_deref().unwrap_or(target);
                let held = secrets.current(now).await?;
                let assume =
                    async |key: AccessKey| sts.assume_role(credentials(&key), role, name, external_id.as_deref()).await;
                match assume(stored_key(&held, whose)?).await {
                    // The key may have been rotated.
                    Err(error) if error.class() == Class::Credentials => match secrets.refetch(&held, now).await {
                        Some(fresh) => assume(stored_key(&fresh, whose)?).await?,
                        None => return Err(error.into()),
                    },
                    answer => answer?,
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
        let mut kept = self.identity_token.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| now + MIN_TOKEN_VALIDITY < token.expires_at) {
            return Ok(token.token.clone());
        }
        let token = aws::fetch_identity_token(&self.clients.latest().client, &self.aws, OIDC_AUDIENCE, now).await?;
        Ok(kept.insert(token).token.clone())
    }
}

fn stored_key(secrets: &secrets::SecretSet, target: &str) -> Result<AccessKey, Error> {
    secrets.targets.get(target).cloned().ok_or(Error::NoKey)
}

/// As the API takes them.
#[must_use]
pub fn credentials(key: &AccessKey) -> Credentials<'_> {
    Credentials {
        access_key_id: key.access_key_id.expose(),
        access_key_secret: key.access_key_secret.expose(),
        security_token: key.security_token.as_ref().map(Secret::expose),
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
        let store = CredentialsProvider::new(crate::http::new_client().unwrap(), AwsEnvironment::default(), config);
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let (one, other) = (SessionName("one".into()), SessionName("other".into()));
        let failure = RecentFailure { code: "Code".into(), request_id: None, class: Class::Retry };
        store.cache_entry("prod", &one, now).0.lock().await.last_failure = Some((now, failure));
        let known = async |at: Timestamp| {
            // A new slot has those go that are of no use any more.
            let _ = store.cache_entry("prod", &other, at);
            store.sessions.lock().unwrap().remove(&("prod".to_owned(), other.clone()));
            store.cache_entry("prod", &one, at).0.lock().await.recent_failure(at).is_some()
        };
        let second = SignedDuration::from_secs(1);
        assert!(known(now - second * 30).await, "who waited while it was tried");
        assert!(known(now + second).await);
        assert!(!known(now - second * 3600).await, "the clock was set back");
        assert!(!known(now + second).await, "it went");
    }
}

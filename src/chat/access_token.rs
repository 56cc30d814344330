//! The access token of a platform's API. A process caches it, and shares it with others as a note. Knows no platform.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::delivery::DeliveryError;
use crate::clock;
use crate::notes::{NoteId, Notes};
use crate::secret::Secret;

/// A token that is valid for less than this is replaced: it must outlast the call.
const MIN_TOKEN_VALIDITY: SignedDuration = SignedDuration::from_mins(10);
/// The pause after a failure to fetch a token. Otherwise each message would wait for another failure.
const TOKEN_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// A token that a platform has issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// The token.
    pub token: Secret,
    /// The remaining validity.
    pub valid_for: SignedDuration,
}

/// The token of one app.
#[derive(Debug, Default)]
pub(super) struct TokenCache {
    token: Mutex<Option<CachedToken>>,
    last_failure: std::sync::Mutex<Option<TokenFailure>>,
}

#[derive(Debug, Clone)]
struct CachedToken {
    token: Secret,
    expires_at: Timestamp,
}

impl CachedToken {
    fn outlasts_a_call(&self, now: Timestamp) -> bool {
        self.expires_at.duration_since(now) > MIN_TOKEN_VALIDITY
    }
}

#[derive(Debug)]
struct TokenFailure {
    error: DeliveryError,
    at: Instant,
}

impl TokenCache {
    /// The token of this process, or the one that another process has stored, or a new one. `app` is `PLATFORM/APP`.
    pub(super) async fn current<Fetching: Future<Output = Result<AccessToken, DeliveryError>>>(
        &self,
        notes: &Notes,
        app: &str,
        fetch: impl FnOnce() -> Fetching,
    ) -> Result<Secret, DeliveryError> {
        let (mut cached, now) = (self.token.lock().await, clock::now());
        if let Some(valid) = cached.as_ref().filter(|cached| cached.outlasts_a_call(now)) {
            return Ok(valid.token.clone());
        }
        let id = note_id(app);
        // Without the table, each process fetches its own.
        let shared = match &id {
            Some(id) => notes.load(id, now).await.ok().flatten(),
            None => None,
        };
        let shared = shared.map(|note| CachedToken { token: Secret::new(note.text), expires_at: note.expires_at });
        if let Some(shared) = shared.filter(|shared| shared.outlasts_a_call(now)) {
            *cached = Some(shared.clone());
            return Ok(shared.token);
        }
        let last_failure = || self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = last_failure().as_ref()
            && failure.at.elapsed() < TOKEN_RETRY_PAUSE
        {
            return Err(failure.error.clone());
        }
        let AccessToken { token, valid_for } = match fetch().await {
            Ok(fetched) => fetched,
            Err(error) => {
                *last_failure() = Some(TokenFailure { error: error.clone(), at: Instant::now() });
                return Err(error);
            }
        };
        *last_failure() = None;
        let expires_at = now.saturating_add(valid_for).unwrap_or(now);
        if let Some(id) = &id {
            // If the table refuses it, only this process uses the token.
            let _ = notes.save(id, token.expose(), expires_at, now).await;
        }
        *cached = Some(CachedToken { token: token.clone(), expires_at });
        Ok(token)
    }

    /// Replaces a token that the platform refuses, unless another task has already replaced it.
    pub(super) async fn replace<Fetching: Future<Output = Result<AccessToken, DeliveryError>>>(
        &self,
        notes: &Notes,
        app: &str,
        refused: &Secret,
        fetch: impl FnOnce() -> Fetching,
    ) -> Result<Secret, DeliveryError> {
        {
            let mut cached = self.token.lock().await;
            if cached.as_ref().is_some_and(|cached| cached.token == *refused) {
                *cached = None;
                if let Some(id) = note_id(app) {
                    let now = clock::now();
                    let _ = notes.save(&id, "", now, now).await;
                }
            }
        }
        self.current(notes, app, fetch).await
    }
}

fn note_id(app: &str) -> Option<NoteId> {
    NoteId::new("token", app).ok()
}

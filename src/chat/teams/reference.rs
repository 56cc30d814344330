//! Where the conversations of the configuration are: the `serviceUrl` of their last activity. Bots must not guess it.
//!
//! Each conversation has at most two notes. The first address is kept for ever: Teams answers at an old address, too. A later
//! one is kept for a month, and again whenever the conversation is heard of.
//!
//! Source: <https://devblogs.microsoft.com/microsoft365dev/updates-for-microsoft-teams-bots-in-multi-geo-environments/>

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::PlatformContext;
use crate::clock;
use crate::notes::{Error, NoteId};

/// How long this process trusts what it knows.
const CACHE_TIME: SignedDuration = SignedDuration::from_hours(1);
/// How long a later address is kept.
const RETENTION: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The most other conversations whose address is tried.
const MAX_OTHERS: usize = 10;

/// What this process knows, by conversation. The configuration limits their number.
#[derive(Debug, Default)]
pub(super) struct References(Mutex<BTreeMap<String, KnownAddress>>);

#[derive(Debug, Clone)]
struct KnownAddress {
    service_url: Url,
    at: Timestamp,
}

impl References {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, KnownAddress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, conversation: &str, now: Timestamp) -> Option<Url> {
        let known = self.lock().get(conversation).cloned()?;
        (now.duration_since(known.at) < CACHE_TIME).then_some(known.service_url)
    }

    fn set(&self, conversation: &str, service_url: &Url, at: Timestamp) {
        self.lock().insert(conversation.to_owned(), KnownAddress { service_url: service_url.clone(), at });
    }
}

/// The notes of a conversation: its first address, and a later one.
struct ReferenceNotes {
    first: NoteId,
    later: NoteId,
}

impl ReferenceNotes {
    fn of(access: PlatformContext<'_>, conversation: &str) -> Option<Self> {
        let owner = format!("teams/{}/{conversation}", access.config.app);
        let (first, later) = (NoteId::new("conversation", &owner).ok()?, NoteId::new("address", &owner).ok()?);
        Some(Self { first, later })
    }
}

/// Keeps the address of a conversation of the configuration. If the table does not answer, a later activity brings it again.
pub(super) async fn keep(access: PlatformContext<'_>, conversation: &str, service_url: &Url, now: Timestamp) {
    let references = &access.state.references;
    if references.get(conversation, now).as_ref() == Some(service_url) {
        return;
    }
    let Some(notes) = ReferenceNotes::of(access, conversation) else { return };
    let kept = match access.notes.save_first(&notes.first, service_url.as_str()).await {
        Ok(first) if first == service_url.as_str() => Ok(()),
        Ok(_) => {
            let until = now.saturating_add(RETENTION).unwrap_or(now);
            access.notes.save(&notes.later, service_url.as_str(), until, now).await
        }
        Err(error) => Err(error),
    };
    match kept {
        Ok(()) => references.set(conversation, service_url, now),
        Err(error) => {
            tracing::warn!(outcome = "unknown_conversation", %error, "could not store where a conversation is");
        }
    }
}

/// The address of a conversation. If nothing was heard of it yet, that of another one of the same tenant. `None` if nothing
/// was heard of any.
///
/// # Errors
/// When the table is unavailable.
pub(super) async fn find(access: PlatformContext<'_>, conversation: &str) -> Result<Option<Url>, Error> {
    let others = access.config.conversations.iter().filter(|other| *other != conversation).take(MAX_OTHERS);
    for id in std::iter::once(conversation).chain(others.map(String::as_str)) {
        if let Some(found) = find_own(access, id).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn find_own(access: PlatformContext<'_>, conversation: &str) -> Result<Option<Url>, Error> {
    let now = clock::now();
    if let Some(known) = access.state.references.get(conversation, now) {
        return Ok(Some(known));
    }
    let Some(notes) = ReferenceNotes::of(access, conversation) else { return Ok(None) };
    let note = match access.notes.load(&notes.later, now).await? {
        Some(later) => Some(later),
        None => access.notes.load(&notes.first, now).await?,
    };
    // The configuration may name other hosts since.
    let service_url = note.and_then(|note| access.config.parse_service_url(&note.text));
    if let Some(service_url) = &service_url {
        access.state.references.set(conversation, service_url, now);
    }
    Ok(service_url)
}

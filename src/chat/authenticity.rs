//! Proof of who sent a request, and the checks that platforms share. Knows no platform and no command.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Method};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

/// The largest difference between a sender's clock and ours, in both directions, inclusive.
///
/// Source: <https://docs.slack.dev/authentication/verifying-requests-from-slack> and
/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(300);

/// What the requests of a platform look like.
#[derive(Debug)]
pub struct RequestShape {
    /// The number of path segments after the first.
    pub extra_segments: usize,
    /// The methods that are accepted.
    pub methods: &'static [Method],
    /// The accepted content types of requests with a body, in lower case.
    pub content_types: &'static [&'static str],
}

/// A sender that signs requests.
#[derive(Debug)]
pub struct RequestSigner {
    /// Its key in the secrets document, e.g. `platforms.slack`.
    pub name: String,
    /// The key of its signing secrets, below `name`.
    pub secrets_key: &'static str,
    /// The bytes of each of its secrets, in every form that the secret has.
    pub secrets: Vec<Vec<u8>>,
}

/// What identifies a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestOrigin {
    /// Identifies the request: equal for a replay, different for every other request.
    pub request_key: String,
    /// The signed time, to the second.
    pub signed_at: Timestamp,
    /// The position of the configured key that matched, from 0.
    pub key_index: usize,
}

/// A body whose sender is known. Only verification makes one, and nothing else is ever parsed.
#[derive(Clone)]
pub struct Authentic {
    /// The signed bytes; decrypted if the platform encrypts.
    pub(super) body: Bytes,
    /// The platform, or the client's name.
    pub(super) sender: String,
    /// Identifies the request.
    pub(super) origin: RequestOrigin,
    /// Set if the signature does not cover the body.
    pub(super) single_use: Option<SingleUse>,
}

/// How a request without a signed body is taken only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SingleUse {
    /// The proof belongs to one request, so no second one with it is taken, whatever the first one said. Holds until when
    /// the proof is remembered.
    Proof(Timestamp),
    /// The proof serves many requests, also those that do nothing. Each that does something has an id, which is taken once.
    /// Holds until when the id is remembered.
    Id(Timestamp),
}

impl SingleUse {
    /// Until when a second request is refused.
    #[must_use]
    pub fn until(self) -> Timestamp {
        match self {
            Self::Proof(until) | Self::Id(until) => until,
        }
    }
}

impl fmt::Debug for Authentic {
    /// Without the body, which may hold a token of the platform.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentic")
            .field("sender", &self.sender)
            .field("key", &self.origin.key_index)
            .finish_non_exhaustive()
    }
}

impl Authentic {
    /// The position of the configured key that matched, from 0.
    #[must_use]
    pub fn key_index(&self) -> usize {
        self.origin.key_index
    }

    /// The platform, or the client's name.
    #[must_use]
    pub fn sender(&self) -> &str {
        &self.sender
    }

    /// Identifies the request.
    #[must_use]
    pub fn origin(&self) -> &RequestOrigin {
        &self.origin
    }

    /// How the request is taken only once, by its `request_key`. `None` if the signature covers the body.
    #[must_use]
    pub fn single_use(&self) -> Option<SingleUse> {
        self.single_use
    }
}

/// Why a request is not verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is not authentic.
    #[error(transparent)]
    Unauthentic(#[from] Unauthentic),
    /// The platform's public keys cannot be fetched, so nobody knows. Holds why.
    #[error("the keys of the platform are unavailable: {0}")]
    KeysUnavailable(String),
}

impl VerifyError {
    /// Whether newer secrets could make the request authentic.
    #[must_use]
    pub fn depends_on_secrets(&self) -> bool {
        matches!(self, Self::Unauthentic(unauthentic) if unauthentic.depends_on_secrets())
    }
}

/// Why a request is not authentic. The sender never hears it, and no part of the signature is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthentic {
    /// A required header is missing.
    #[error("header {0} is missing")]
    MissingHeader(&'static str),
    /// A header occurs more than once.
    #[error("header {0} occurs more than once")]
    DuplicateHeader(&'static str),
    /// A header does not have its documented form.
    #[error(transparent)]
    MalformedHeader(MalformedHeader),
    /// The timestamp is too old, or in the future.
    #[error("the timestamp is {age_s} s old, and more than 300 s away from this clock")]
    StaleTimestamp {
        /// Negative if it is in the future.
        age_s: i64,
    },
    /// No configured key makes this signature.
    #[error("the signature matches none of the {keys} configured keys")]
    SignatureMismatch {
        /// The number of keys that were tried.
        keys: usize,
    },
    /// The body is signed, but is not one JSON document.
    #[error("the signed body is not one JSON document")]
    InvalidEnvelope,
    /// The body is signed, but does not decrypt, has a wrong padding, or lacks our token inside.
    #[error("the signed body does not decrypt to a document with our token")]
    InvalidCiphertext,
    /// The path names a client that is not configured.
    #[error("the client of the path is not in [clients]")]
    UnknownClient,
    /// The path does not end with one of our secrets.
    #[error("the path does not end with a configured path secret")]
    UnknownPathSecret,
    /// A token does not prove that the platform sent the request. Holds why.
    #[error("the token is refused: {0}")]
    InvalidToken(&'static str),
}

/// A header that does not have its documented form. No part of its value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("header {name} is malformed: expected {expected}, found {length} other bytes")]
pub struct MalformedHeader {
    /// The name of the header.
    pub name: &'static str,
    /// Its documented form.
    pub expected: &'static str,
    /// The length of its value, in bytes.
    pub length: usize,
}

impl Unauthentic {
    pub(super) fn malformed(name: &'static str, expected: &'static str, value: &str) -> Self {
        Self::MalformedHeader(MalformedHeader { name, expected, length: value.len() })
    }

    /// Whether newer secrets could make the request authentic.
    #[must_use]
    pub fn depends_on_secrets(self) -> bool {
        match self {
            Self::SignatureMismatch { .. }
            | Self::UnknownClient
            | Self::UnknownPathSecret
            | Self::InvalidCiphertext => true,
            Self::MissingHeader(_)
            | Self::DuplicateHeader(_)
            | Self::MalformedHeader(_)
            | Self::StaleTimestamp { .. }
            | Self::InvalidEnvelope
            | Self::InvalidToken(_) => false,
        }
    }
}

/// The only value of a header. Function URLs join duplicates with a comma.
pub(super) fn only_header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Unauthentic> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Unauthentic::MissingHeader(name))?;
    if values.next().is_some() {
        return Err(Unauthentic::DuplicateHeader(name));
    }
    value.to_str().map_err(|_| {
        let (expected, length) = ("visible characters of ASCII", value.len());
        Unauthentic::MalformedHeader(MalformedHeader { name, expected, length })
    })
}

/// Checks a timestamp: exactly ten digits, so that no digit can move between it and the text that is signed after it.
pub(super) fn check_timestamp(text: &str, name: &'static str, now: Timestamp) -> Result<Timestamp, Unauthentic> {
    let malformed = || Unauthentic::malformed(name, "a Unix time in seconds, of ten digits", text);
    if text.len() != 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let seconds = text.parse().map_err(|_| malformed())?;
    let sent_at = Timestamp::from_second(seconds).map_err(|_| malformed())?;
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let age = now.duration_since(sent_at);
    if age.abs() > MAX_CLOCK_SKEW { Err(Unauthentic::StaleTimestamp { age_s: age.as_secs() }) } else { Ok(sent_at) }
}

/// Checks a timestamp in milliseconds: exactly 13 digits, so that nobody takes seconds for it.
pub(super) fn check_timestamp_millis(text: &str, name: &'static str, now: Timestamp) -> Result<Timestamp, Unauthentic> {
    let malformed = || Unauthentic::malformed(name, "a Unix time in milliseconds, of 13 digits", text);
    if text.len() != 13 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let millis = text.parse().map_err(|_| malformed())?;
    let sent_at = Timestamp::from_millisecond(millis).map_err(|_| malformed())?;
    let age = now.duration_since(sent_at);
    if age.abs() > MAX_CLOCK_SKEW { Err(Unauthentic::StaleTimestamp { age_s: age.as_secs() }) } else { Ok(sent_at) }
}

/// The bytes of a secret: those of the text, and those that the text encodes where a platform decodes it.
pub(super) fn key_forms(text: &str) -> Vec<Vec<u8>> {
    let decoded = BASE64_STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok();
    std::iter::once(text.as_bytes().to_vec()).chain(decoded).collect()
}

/// An HMAC-SHA256 over `parts`, ready to be compared or finished.
#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
pub(super) fn hmac_of(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length of key");
    for part in parts {
        mac.update(part);
    }
    mac
}

/// A tenant whose users belong to another tenant, both as realms of principals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedTenant {
    /// e.g. a Slack workspace, `slack:T0001`.
    pub tenant: String,
    /// e.g. its organization, `slack:E0001`.
    pub into: String,
}

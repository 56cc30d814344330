//! Fingerprints: which facts somebody saw, as a hash.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Facts;

/// SHA-256, in hex, over what an approver must have seen; see [`Connection::fingerprint`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Facts {
    /// A hash of what an approver must have seen: equal fingerprints mean the same decision.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = FieldHash::new("peergate/fingerprint/1");
        for side in [&self.requester, &self.accepter] {
            hash.add_field(&side.vpc);
            hash.add_field(&side.account.to_string());
            hash.add_field(&side.region);
            hash.add_field(&side.cidrs.len().to_string());
            for cidr in &side.cidrs {
                hash.add_field(&cidr.to_string());
            }
        }
        hash.add_field(&self.bandwidth_mbps.map_or_else(String::new, |mbps| mbps.to_string()));
        hash.add_field(&self.link_type);
        Fingerprint(hash.into_hex())
    }
}

/// The text is not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint: expected 64 hexadecimal digits")]
pub struct InvalidFingerprint;

impl Fingerprint {
    /// Of no connection: 64 zeros, which no hash ever gives.
    #[must_use]
    pub fn of_nothing() -> Self {
        Self("0".repeat(64))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = InvalidFingerprint;

    fn try_from(text: String) -> Result<Self, InvalidFingerprint> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(digit) { Ok(Self(text)) } else { Err(InvalidFingerprint) }
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What somebody saw: a fingerprint, or the first half of one, which is what fits into a button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFingerprint(String);

impl SeenFingerprint {
    /// In hexadecimal digits.
    const HALF_DIGITS: usize = 32;

    /// The first half.
    #[must_use]
    pub fn first_half_of(fingerprint: &Fingerprint) -> Self {
        Self(fingerprint.0.chars().take(Self::HALF_DIGITS).collect())
    }

    /// Reads a first half.
    #[must_use]
    pub fn parse_half(text: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == Self::HALF_DIGITS && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }

    /// Whether it is that fingerprint.
    #[must_use]
    pub fn is_prefix_of(&self, fingerprint: &Fingerprint) -> bool {
        fingerprint.0.starts_with(&self.0)
    }

    /// In hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Fingerprint> for SeenFingerprint {
    fn from(fingerprint: Fingerprint) -> Self {
        Self(fingerprint.0)
    }
}

/// SHA-256 over fields, each with its length in front, so that no two lists of fields hash alike.
pub(crate) struct FieldHash(Sha256);

impl FieldHash {
    /// `domain` keeps hashes of one kind from ever being those of another.
    pub(crate) fn new(domain: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.add_field(domain);
        hash
    }

    pub(crate) fn add_field(&mut self, text: &str) {
        self.0.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    /// The first 128 bits.
    pub(crate) fn into_u128(self) -> u128 {
        self.0.finalize().iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
    }

    /// 64 lower-case digits.
    pub(crate) fn into_hex(self) -> String {
        hex::encode(self.0.finalize())
    }
}

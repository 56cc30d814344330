//! Fingerprints: hashes of the facts that a person saw.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Facts;

/// SHA-256 over the facts of a connection, 64 lower-case hexadecimal digits. See [`Facts::fingerprint`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(extend("pattern" = "^[0-9a-f]{64}$")))]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Facts {
    /// Hashes everything that an approver must have seen. A decision counts for equal fingerprints only.
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
    /// The fingerprint of something else that people decide on.
    pub(crate) fn of_hash(hash: FieldHash) -> Self {
        Self(hash.into_hex())
    }

    /// The fingerprint of no facts: 64 zeros. No hash has this value.
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

/// The fingerprint that a sender saw: a whole one, or its first half, which fits into a button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFingerprint(String);

impl SeenFingerprint {
    /// Length of a first half, in hexadecimal digits.
    const HALF_DIGITS: usize = 32;

    /// The first half of a fingerprint.
    #[must_use]
    pub fn first_half_of(fingerprint: &Fingerprint) -> Self {
        Self(fingerprint.0.chars().take(Self::HALF_DIGITS).collect())
    }

    /// Parses a first half. `None` if the text is not 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse_half(text: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == Self::HALF_DIGITS && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }

    /// Whether the sender saw this fingerprint.
    #[must_use]
    pub fn is_prefix_of(&self, fingerprint: &Fingerprint) -> bool {
        fingerprint.0.starts_with(&self.0)
    }

    /// The digits: 32 or 64.
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

/// SHA-256 over fields. Each field follows its length, so that two different lists never hash the same bytes.
pub(crate) struct FieldHash(Sha256);

impl FieldHash {
    /// Starts with a domain, so that hashes of different kinds never match.
    pub(crate) fn new(domain: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.add_field(domain);
        hash
    }

    pub(crate) fn add_field(&mut self, text: &str) {
        self.0.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    /// The first 128 bits of the hash.
    pub(crate) fn into_u128(self) -> u128 {
        self.0.finalize().iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
    }

    /// The hash as 64 lower-case hexadecimal digits.
    pub(crate) fn into_hex(self) -> String {
        hex::encode(self.0.finalize())
    }
}

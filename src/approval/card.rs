//! What channels show of a request, and where the card is.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::peering::Fingerprint;

/// Names a card: 64 random bits of ours, fixed before the post, since platforms name a message only after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CardId(pub u64);

/// The text is not the id of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a card: expected 16 hexadecimal digits")]
pub struct InvalidCardId;

impl fmt::Display for CardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<CardId> for String {
    fn from(id: CardId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for CardId {
    type Error = InvalidCardId;

    fn try_from(text: String) -> Result<Self, InvalidCardId> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let number = (text.len() == 16 && text.bytes().all(digit)).then(|| u64::from_str_radix(&text, 16).ok());
        number.flatten().map(Self).ok_or(InvalidCardId)
    }
}

/// Names the key under which the buttons of a card are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CardKey(pub u32);

/// The text is not the id of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a key: expected 8 hexadecimal digits")]
pub struct InvalidCardKey;

impl fmt::Display for CardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl From<CardKey> for String {
    fn from(key: CardKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for CardKey {
    type Error = InvalidCardKey;

    fn try_from(text: String) -> Result<Self, InvalidCardKey> {
        let number = (text.len() == 8).then(|| u32::from_str_radix(&text, 16).ok()).flatten();
        number.map(Self).filter(|key| key.to_string() == text).ok_or(InvalidCardKey)
    }
}

/// Where a card is, and what it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardRef {
    /// The platform's name for the message, e.g. `channel/ts`.
    pub reference: String,
    /// Ours.
    #[serde(rename = "card")]
    pub id: CardId,
    /// Of the facts that it shows.
    pub fingerprint: Fingerprint,
    /// Since when it shows them.
    pub shown_at: Timestamp,
    /// The key of its buttons; none if it has no buttons, or those of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<CardKey>,
}

/// What a channel without cards was shown last, e.g. a receiver of signed notices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownFacts {
    /// Of the facts.
    pub fingerprint: Fingerprint,
    /// Since when it knows them.
    pub shown_at: Timestamp,
}

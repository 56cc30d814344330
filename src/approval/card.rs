//! Cards: which message of a channel shows a request, and which facts the message shows.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Approval, ChannelDisplay, Delivery, Notification, NotificationKind};
use crate::peering::Fingerprint;

/// Id of a card: 64 random bits, written as 16 lower-case hexadecimal digits. peergate picks it before the post,
/// because a platform names a message only after the post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CardId(pub u64);

/// The text is not a card id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a card id: expected 16 hexadecimal digits")]
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

/// Id of the key that signed a card's buttons, written as 8 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CardKey(pub u32);

/// The text is not a key id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key id: expected 8 hexadecimal digits")]
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

/// A posted card: where it is, and what it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardRef {
    /// The platform's name for the message, e.g. `channel/ts` on Slack.
    pub reference: String,
    /// The id that peergate gave the card.
    #[serde(rename = "card")]
    pub id: CardId,
    /// Fingerprint of the facts that the card shows.
    pub fingerprint: Fingerprint,
    /// Since when the card shows these facts.
    pub shown_at: Timestamp,
    /// Key of the card's buttons. `None` if it has no buttons, or buttons of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<CardKey>,
}

/// What a channel without editable cards showed last, e.g. a receiver of signed notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownFacts {
    /// Fingerprint of the facts that it showed.
    pub fingerprint: Fingerprint,
    /// Since when the channel shows these facts.
    pub shown_at: Timestamp,
}

/// Minimum time between two updates of all cards that clicks ask for.
const MIN_REDRAW_INTERVAL: SignedDuration = SignedDuration::from_mins(5);

impl Approval {
    /// Stores what a channel shows, and since when.
    pub(super) fn record_display(&mut self, channel: &str, display: &ChannelDisplay, now: Timestamp) {
        match display {
            ChannelDisplay::Unchanged => {}
            ChannelDisplay::Card(card) => {
                let mut card = card.clone();
                let earlier = self.cards.get(channel).filter(|earlier| earlier.reference == card.reference);
                if let Some(earlier) = earlier.filter(|earlier| earlier.fingerprint == card.fingerprint) {
                    card.shown_at = earlier.shown_at;
                }
                self.cards.insert(channel.to_owned(), card);
            }
            ChannelDisplay::Facts(fingerprint) => {
                if self.shown.get(channel).is_none_or(|shown| shown.fingerprint != *fingerprint) {
                    let shown = ShownFacts { fingerprint: fingerprint.clone(), shown_at: now };
                    self.shown.insert(channel.to_owned(), shown);
                }
            }
        }
    }

    /// Takes a message as the card that a post without a known result was to create. Nobody knows which facts the message
    /// shows, so only a button that binds them decides. Returns whether the record changed.
    pub fn adopt_card(&mut self, channel: &str, id: CardId, reference: &str, now: Timestamp) -> bool {
        let is_expected = |notification: &Notification| matches!(notification.deliveries.get(channel), Some(Delivery::Waiting { card: Some(card), .. }) if *card == id);
        if self.cards.contains_key(channel) || !self.outbox.iter().any(is_expected) {
            return false;
        }
        let (reference, fingerprint) = (reference.to_owned(), Fingerprint::of_nothing());
        self.cards.insert(channel.to_owned(), CardRef { reference, id, fingerprint, shown_at: now, key: None });
        true
    }

    /// Schedules an update of cards: of all, or only of those without a key, whose buttons decide nothing. Any click
    /// can ask for an update of all cards, so there is at most one in five minutes. A channel with a pending
    /// notification is skipped, because that notification updates its card. Returns whether the record changed.
    pub fn request_redraw(&mut self, all_cards: bool, now: Timestamp) -> bool {
        let is_waited_for = |channel: &str| self.outbox.iter().any(|notification| notification.is_waiting_for(channel));
        let is_recent = |notification: &Notification| now.duration_since(notification.at) < MIN_REDRAW_INTERVAL;
        let was_redrawn = self
            .outbox
            .iter()
            .any(|notification| notification.kind == NotificationKind::Checked && is_recent(notification));
        let is_due = |(channel, card): (&String, &CardRef)| {
            ((all_cards || card.key.is_none()) && !is_waited_for(channel)).then(|| channel.clone())
        };
        let channels: Vec<_> = self.cards.iter().filter_map(is_due).collect();
        if !self.is_open(now) || channels.is_empty() || (all_cards && was_redrawn) {
            return false;
        }
        self.outbox.enqueue(NotificationKind::Checked, &channels, now);
        true
    }
}

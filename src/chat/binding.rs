//! The binding of a button: the connection, the facts on the card, and the card itself, under a MAC of ours.
//!
//! A platform's signature proves who clicked, but on some platforms not on which button. The MAC proves that we made the
//! button, for this platform and this card.
//!
//! A binding is `ACTION TARGET / CONNECTION . BASE64`, without the spaces: one letter, two names, and 44 bytes in base64url.
//! The bytes are 16 of the fingerprint, 8 of the card's id, 4 of the key's id, and 16 of the MAC. A connection's id of 22 and
//! a target's name of 16 characters make 100 characters, the lowest limit of any platform.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::authenticity::hmac_of;
use super::message::{Button, Message, ShownButton};
use crate::approval::{ApprovalId, CardId, CardKey};
use crate::peering::{FieldHash, InstanceId, SeenFingerprint};

/// The length of a MAC. The rest of the HMAC is cut off.
const MAC_BYTES: usize = 16;

/// What a button is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// What a click does.
    pub button: Button,
    /// The accepting account's name.
    pub target: String,
    /// The connection's id.
    pub instance_id: InstanceId,
    /// The first half of the fingerprint of the facts on the card.
    pub seen_fingerprint: SeenFingerprint,
    /// The card's id.
    pub card_id: CardId,
}

/// Why a button decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// No key has the id in the binding: the card is old, or its key was removed.
    #[error("the button's key is not known")]
    UnknownKey,
    /// The MAC is not one of ours.
    #[error("the button is not one of ours")]
    Forged,
}

/// A key, and the id that bindings name it by.
#[derive(Clone)]
pub struct BindingKey {
    id: CardKey,
    secret: [u8; 32],
}

impl std::fmt::Debug for BindingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The keys of a platform: the first one signs, and all of them verify.
#[derive(Debug, Clone)]
pub struct Keyring {
    platform: &'static str,
    keys: Vec<BindingKey>,
}

impl BindingKey {
    /// Derives a key from a secret. A different `label` makes a different key.
    ///
    /// Source: <https://www.rfc-editor.org/rfc/rfc5869>, with SHA-256 and without salt; 32 bytes are its first block.
    #[must_use]
    pub fn derive(secret: &[u8], label: &str) -> Self {
        let extracted: [u8; 32] = hmac_of(&[0; 32], &[secret]).finalize().into_bytes().into();
        let secret: [u8; 32] = hmac_of(&extracted, &[label.as_bytes(), &[1]]).finalize().into_bytes().into();
        let mut id = [0; 4];
        let named = Sha256::new().chain_update("peergate/binding-key-id/1").chain_update(secret).finalize();
        id.iter_mut().zip(named).for_each(|(to, from)| *to = from);
        Self { id: CardKey(u32::from_be_bytes(id)), secret }
    }
}

impl Keyring {
    /// Makes a keyring. Without any key, nothing is signed.
    #[must_use]
    pub fn new(platform: &'static str, keys: Vec<BindingKey>) -> Self {
        Self { platform, keys }
    }

    /// The id of the key that signs.
    #[must_use]
    pub fn signing_key_id(&self) -> Option<CardKey> {
        self.keys.first().map(|key| key.id)
    }

    /// The ids of all keys.
    #[must_use]
    pub fn key_ids(&self) -> Vec<CardKey> {
        self.keys.iter().map(|key| key.id).collect()
    }

    /// The text that a button carries; `None` without a key.
    #[must_use]
    pub fn sign(&self, binding: &Binding) -> Option<String> {
        let key = self.keys.first()?;
        let mut bytes = encode_payload(binding)?;
        bytes.extend(key.id.0.to_be_bytes());
        let mac = self.start_mac(key, binding).finalize().into_bytes();
        bytes.extend(mac.iter().take(MAC_BYTES));
        let Binding { button, target, instance_id, .. } = binding;
        Some(format!("{}{target}/{instance_id}.{}", button_letter(*button), BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Verifies the text that a button carried. A wrong MAC takes as long as a right one.
    ///
    /// # Errors
    /// Why the button decides nothing.
    pub fn verify(&self, text: &str) -> Result<Binding, BindingError> {
        let SignedBinding { binding, key_id, mac } = SignedBinding::decode(text).ok_or(BindingError::Forged)?;
        let mut is_known = false;
        for key in self.keys.iter().filter(|key| key.id == key_id) {
            is_known = true;
            // Compares in constant time.
            if self.start_mac(key, &binding).verify_truncated_left(&mac).is_ok() {
                return Ok(binding);
            }
        }
        Err(if is_known { BindingError::Forged } else { BindingError::UnknownKey })
    }

    /// The HMAC over every field of the binding, each preceded by its length.
    fn start_mac(&self, key: &BindingKey, binding: &Binding) -> Hmac<Sha256> {
        let Binding { button, target, instance_id, seen_fingerprint, card_id } = binding;
        let (letter, card) = (button_letter(*button).to_string(), card_id.to_string());
        let seen = seen_fingerprint.as_str();
        let mut mac = hmac_of(&key.secret, &[]);
        for field in ["peergate/binding/1", self.platform, &letter, target, instance_id.as_str(), seen, &card] {
            mac.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(field.as_bytes());
        }
        mac
    }
}

/// The fingerprint and the card's id.
fn encode_payload(binding: &Binding) -> Option<Vec<u8>> {
    let mut bytes = hex::decode(binding.seen_fingerprint.as_str()).ok()?;
    bytes.extend(binding.card_id.0.to_be_bytes());
    Some(bytes)
}

/// The parts of a binding's text, not yet verified.
struct SignedBinding {
    binding: Binding,
    key_id: CardKey,
    mac: [u8; MAC_BYTES],
}

impl SignedBinding {
    fn decode(text: &str) -> Option<Self> {
        let mut rest = text.chars();
        let button = parse_button(rest.next()?)?;
        let (names, bytes) = rest.as_str().rsplit_once('.')?;
        let (target, instance_id) = names.split_once('/')?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(bytes).ok()?;
        let (seen, bytes) = bytes.split_at_checked(16)?;
        let (card, bytes) = bytes.split_first_chunk()?;
        let (key_id, mac) = bytes.split_first_chunk()?;
        let binding = Binding {
            button,
            target: target.to_owned(),
            instance_id: InstanceId::parse(instance_id).ok()?,
            seen_fingerprint: SeenFingerprint::parse_half(&hex::encode(seen))?,
            card_id: CardId(u64::from_be_bytes(*card)),
        };
        Some(Self { binding, key_id: CardKey(u32::from_be_bytes(*key_id)), mac: mac.try_into().ok()? })
    }
}

fn button_letter(button: Button) -> char {
    match button {
        Button::Approve { needs_reason: false } => 'a',
        Button::Approve { needs_reason: true } => 'A',
        Button::Reject => 'r',
        Button::Withdraw => 'w',
        Button::Acknowledge => 'k',
        Button::Details => 'd',
    }
}

fn parse_button(letter: char) -> Option<Button> {
    [
        Button::Approve { needs_reason: false },
        Button::Approve { needs_reason: true },
        Button::Reject,
        Button::Withdraw,
        Button::Acknowledge,
        Button::Details,
    ]
    .into_iter()
    .find(|button| button_letter(*button) == letter)
}

/// The card id of a notification that is a message of its own.
#[must_use]
pub fn notification_card_id(record: &str, channel: &str, number: u32) -> CardId {
    derive_card_id(&["notice", record, channel, &number.to_string()])
}

/// The card id of a private reply: one for each person and hour.
#[must_use]
pub fn private_card_id(person: &str, hour: i64) -> CardId {
    derive_card_id(&["person", person, &hour.to_string()])
}

/// The hour of a private reply.
#[must_use]
pub fn hours_since_epoch(now: Timestamp) -> i64 {
    now.as_second().div_euclid(3600)
}

fn derive_card_id(parts: &[&str]) -> CardId {
    let mut hash = FieldHash::new("peergate/card/2");
    for part in parts {
        hash.add_field(part);
    }
    CardId(u64::try_from(hash.into_u128() >> 64).unwrap_or_default())
}

/// Binds each button to the message's connection and to the card. Buttons without a binding are removed: all of them
/// without a key, and each whose binding exceeds `max_chars`.
#[must_use]
pub fn bind_buttons(mut message: Message, keyring: &Keyring, card: CardId, max_chars: usize) -> Message {
    if max_chars == 0 {
        return Message { buttons: None, ..message };
    }
    let Some(buttons) = message.buttons.as_mut() else { return message };
    let seen = SeenFingerprint::first_half_of(&buttons.fingerprint);
    let mut is_too_long = false;
    let bound = buttons.shown.iter().filter_map(|ShownButton { button, .. }| {
        let text = keyring.sign(&Binding {
            button: *button,
            target: buttons.target.clone(),
            instance_id: buttons.instance_id.clone(),
            seen_fingerprint: seen.clone(),
            card_id: card,
        })?;
        is_too_long |= text.len() > max_chars;
        (text.len() <= max_chars).then_some(ShownButton { button: *button, binding: Some(text) })
    });
    buttons.shown = bound.collect();
    if buttons.shown.is_empty() {
        message.buttons = None;
    }
    if is_too_long {
        message.sentences.push("The target's name is too long for buttons on this platform: use a command.".into());
    }
    message
}

/// The connection of a button of an earlier version, which decides nothing any more.
#[must_use]
pub fn parse_legacy_binding(text: &str) -> Option<ApprovalId> {
    let (target, instance_id) = text.split_once('#')?.0.split_once('/')?;
    Some(ApprovalId { target: target.to_owned(), instance_id: InstanceId::parse(instance_id).ok()? })
}

/// The connection that a button claims to be for. Nothing is verified.
#[must_use]
pub fn unverified_connection(text: &str) -> Option<ApprovalId> {
    let claimed = || {
        let Binding { target, instance_id, .. } = SignedBinding::decode(text)?.binding;
        Some(ApprovalId { target, instance_id })
    };
    parse_legacy_binding(text).or_else(claimed)
}

/// What a button claims to do. Nothing is verified.
#[must_use]
pub fn unverified_button(text: &str) -> Option<Button> {
    Some(SignedBinding::decode(text)?.binding.button)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chat::message::Buttons;
    use crate::peering::Fingerprint;

    fn key(secret: &str) -> BindingKey {
        BindingKey::derive(secret.as_bytes(), "test")
    }

    fn keyring(platform: &'static str, secrets: &[&str]) -> Keyring {
        Keyring::new(platform, secrets.iter().map(|secret| key(secret)).collect())
    }

    fn binding() -> Binding {
        Binding {
            button: Button::Reject,
            target: "a-target-of-16-ch".chars().take(16).collect(),
            instance_id: InstanceId::parse("pcc-bp1234567890123456").unwrap(),
            seen_fingerprint: SeenFingerprint::parse_half(&"0f".repeat(16)).unwrap(),
            card_id: CardId(u64::MAX - 7),
        }
    }

    /// Source: <https://www.rfc-editor.org/rfc/rfc5869#appendix-A.3>, with a salt of zeros, as without one; 22 bytes of
    /// 0x0b. Its `info` is empty, so the first 32 bytes of OKM are those of our first block without a label.
    #[test]
    fn key_derivation_is_hkdf() {
        let okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d";
        assert_eq!(hex::encode(BindingKey::derive(&[0x0b; 22], "").secret), okm);
    }

    #[test]
    fn overlong_binding_removes_the_button_and_says_so() {
        let Binding { button, target, instance_id, card_id: card, .. } = binding();
        let fingerprint = Fingerprint::try_from("0f".repeat(32)).unwrap();
        let buttons = Buttons { target, instance_id, fingerprint, shown: vec![button.into()] };
        let message = Message { buttons: Some(buttons), ..Message::default() };
        let fits = bind_buttons(message.clone(), &keyring("slack", &["new"]), card, 100);
        assert_eq!(fits.buttons.unwrap().shown.iter().map(|shown| shown.button).collect::<Vec<_>>(), [Button::Reject]);
        assert!(fits.sentences.is_empty(), "{:?}", fits.sentences);
        let too_long = bind_buttons(message.clone(), &keyring("slack", &["new"]), card, 99);
        assert_eq!(too_long.buttons, None);
        assert!(too_long.sentences[0].contains("too long for buttons"), "{:?}", too_long.sentences);
        for without in [
            bind_buttons(message.clone(), &keyring("slack", &[]), card, 100),
            bind_buttons(message, &keyring("slack", &["new"]), card, 0),
        ] {
            assert_eq!((without.buttons, without.sentences.len()), (None, 0));
        }
    }

    #[test]
    fn signed_binding_verifies_and_fits_in_a_hundred_characters() {
        let slack = keyring("slack", &["new", "old"]);
        let text = slack.sign(&binding()).unwrap();
        assert_eq!((text.len(), slack.verify(&text)), (100, Ok(binding())));
        assert_eq!(keyring("slack", &["newer", "new"]).verify(&text), Ok(binding()), "after a rotation");
        assert_eq!(keyring("slack", &["old"]).verify(&text), Err(BindingError::UnknownKey));
        assert_eq!(keyring("slack", &[]).verify(&text), Err(BindingError::UnknownKey));
        assert_eq!(keyring("slack", &[]).sign(&binding()), None);
        assert_eq!(keyring("feishu", &["new"]).verify(&text), Err(BindingError::Forged), "of another platform");
        assert!(!format!("{slack:?}").contains(&hex::encode(key("new").secret)));
    }

    #[test]
    fn binding_with_an_exchanged_part_is_refused() {
        let slack = keyring("slack", &["new"]);
        let text = slack.sign(&binding()).unwrap();
        let (_, bytes) = text.rsplit_once('.').unwrap();
        let id = InstanceId::parse("pcc-bp1234567890123457").unwrap();
        let changed = [
            Binding { button: Button::Approve { needs_reason: false }, ..binding() },
            Binding { target: "another".into(), ..binding() },
            Binding { instance_id: id, ..binding() },
            Binding { seen_fingerprint: SeenFingerprint::parse_half(&"0e".repeat(16)).unwrap(), ..binding() },
            Binding { card_id: CardId(1), ..binding() },
        ];
        for changed in changed {
            let own = slack.sign(&changed).unwrap();
            let (names, _) = own.rsplit_once('.').unwrap();
            let exchanged = format!("{names}.{bytes}");
            if exchanged != text {
                assert_eq!(slack.verify(&exchanged), Err(BindingError::Forged), "{exchanged}");
            }
            let mut mixed = BASE64_URL_SAFE_NO_PAD.decode(own.rsplit_once('.').unwrap().1).unwrap();
            mixed.splice(28.., BASE64_URL_SAFE_NO_PAD.decode(bytes).unwrap().split_off(28));
            let mixed = format!("{names}.{}", BASE64_URL_SAFE_NO_PAD.encode(mixed));
            assert_eq!(slack.verify(&mixed), Err(BindingError::Forged), "the MAC of another button: {mixed}");
        }
        for odd in [
            "",
            "r",
            "r.",
            "rprod/pcc-a.",
            "prod/pcc-a#00",
            text.get(..99).unwrap(),
            &format!("{text}A"),
            &text.replace('.', "#"),
        ] {
            assert_eq!(slack.verify(odd), Err(BindingError::Forged), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn binding_with_one_changed_character_is_refused(at in 0..100_usize, to in "[ -~é]") {
            let slack = keyring("slack", &["new"]);
            let text = slack.sign(&binding()).unwrap();
            let mut changed: Vec<String> = text.chars().map(String::from).collect();
            changed[at] = to;
            let changed = changed.concat();
            prop_assert!(changed == text || slack.verify(&changed).is_err(), "{changed}");
        }
    }
}

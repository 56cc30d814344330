//! What a button carries: which connection, what its card showed, and which card it is, under a MAC of ours.
//!
//! A platform's signature says who clicked; on some it says nothing of the button. The MAC says that we made this button,
//! for this platform and this card.
//!
//! A binding is `ACTION TARGET / CONNECTION . BASE64`, without the spaces: one letter, two names, and 44 bytes in base64url:
//! 16 of the fingerprint, 8 of the card, 4 of the key's id, 16 of the MAC. With a connection's id of 22 and a target's name
//! of 16 characters that is 100, the least that a platform takes.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::message::{Button, Message};
use crate::approval::{CardId, CardKey};
use crate::peering::{FieldHash, InstanceId, SeenFingerprint};

/// Of the MAC, in bytes.
const MAC_BYTES: usize = 16;

/// What a button is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// What it does.
    pub button: Button,
    /// The accepting account's name.
    pub target: String,
    /// The connection.
    pub instance_id: InstanceId,
    /// What was shown beside it.
    pub seen_fingerprint: SeenFingerprint,
    /// The card.
    pub card_id: CardId,
}

/// Why a button decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// No key of ours has that id: an old card, or one of a key that is gone.
    #[error("the button's key is not known")]
    UnknownKey,
    /// No key of ours made it.
    #[error("the button is not one of ours")]
    Forged,
}

/// A key, and the id by which a binding names it.
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

/// The keys of a platform: the first signs, all verify.
#[derive(Debug, Clone)]
pub struct Keyring {
    platform: &'static str,
    keys: Vec<BindingKey>,
}

impl BindingKey {
    /// Derives a key from a secret. `label` keeps the keys of different uses apart.
    ///
    /// Source: <https://www.rfc-editor.org/rfc/rfc5869>, with SHA-256 and without salt; 32 bytes are its first block.
    #[must_use]
    pub fn derive(secret: &[u8], label: &str) -> Self {
        let extracted = hmac_sha256(&[0; 32], &[secret]);
        let secret = hmac_sha256(&extracted, &[label.as_bytes(), &[1]]);
        let mut id = [0; 4];
        let named = Sha256::new().chain_update("peergate/binding-key-id/1").chain_update(secret).finalize();
        id.iter_mut().zip(named).for_each(|(to, from)| *to = from);
        Self { id: CardKey(u32::from_be_bytes(id)), secret }
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length of key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl Keyring {
    /// The keys of a platform. Without one, nothing is signed.
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

    /// What a button carries; `None` without a key.
    #[must_use]
    pub fn sign(&self, binding: &Binding) -> Option<String> {
        let key = self.keys.first()?;
        let mut bytes = encode_payload(binding)?;
        bytes.extend(key.id.0.to_be_bytes());
        let mac = self.compute_mac(key, binding);
        bytes.extend(mac.iter().take(MAC_BYTES));
        let Binding { button, target, instance_id, .. } = binding;
        Some(format!("{}{target}/{instance_id}.{}", button_letter(*button), BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Checks what a button carried. Takes as long for a wrong MAC as for a right one.
    ///
    /// # Errors
    /// Why it decides nothing.
    pub fn verify(&self, text: &str) -> Result<Binding, BindingError> {
        let (binding, id, mac) = decode_binding(text).ok_or(BindingError::Forged)?;
        let mut known = false;
        for key in self.keys.iter().filter(|key| key.id == id) {
            known = true;
            let mut expected =
                <Hmac<Sha256> as KeyInit>::new_from_slice(&key.secret).map_err(|_| BindingError::Forged)?;
            self.feed_mac(&binding, |part| expected.update(part));
            // Compares in constant time.
            if expected.verify_truncated_left(&mac).is_ok() {
                return Ok(binding);
            }
        }
        Err(if known { BindingError::Forged } else { BindingError::UnknownKey })
    }

    fn compute_mac(&self, key: &BindingKey, binding: &Binding) -> [u8; 32] {
        let mut parts: Vec<Vec<u8>> = vec![];
        self.feed_mac(binding, |part| parts.push(part.to_vec()));
        hmac_sha256(&key.secret, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// All that is under the MAC, each with its length in front.
    fn feed_mac(&self, binding: &Binding, mut update: impl FnMut(&[u8])) {
        let Binding { button, target, instance_id, seen_fingerprint: seen, card_id: card } = binding;
        let letter = button_letter(*button).to_string();
        let card = card.to_string();
        for field in ["peergate/binding/1", self.platform, &letter, target, instance_id.as_str(), seen.as_str(), &card]
        {
            update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            update(field.as_bytes());
        }
    }
}

/// The fingerprint and the card.
fn encode_payload(binding: &Binding) -> Option<Vec<u8>> {
    let mut bytes = hex::decode(binding.seen_fingerprint.as_str()).ok()?;
    bytes.extend(binding.card_id.0.to_be_bytes());
    Some(bytes)
}

fn decode_binding(text: &str) -> Option<(Binding, CardKey, Vec<u8>)> {
    let mut rest = text.chars();
    let button = parse_button(rest.next()?)?;
    let (names, bytes) = rest.as_str().rsplit_once('.')?;
    let (target, instance_id) = names.split_once('/')?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(bytes).ok()?;
    let (seen, bytes) = bytes.split_at_checked(16)?;
    let (card, bytes) = bytes.split_first_chunk()?;
    let (key, mac) = bytes.split_first_chunk()?;
    let binding = Binding {
        button,
        target: target.to_owned(),
        instance_id: InstanceId::parse(instance_id).ok()?,
        seen_fingerprint: SeenFingerprint::parse_half(&hex::encode(seen))?,
        card_id: CardId(u64::from_be_bytes(*card)),
    };
    (mac.len() == MAC_BYTES).then(|| (binding, CardKey(u32::from_be_bytes(*key)), mac.to_vec()))
}

fn button_letter(button: Button) -> char {
    match button {
        Button::Approve { needs_reason: false } => 'a',
        Button::Approve { needs_reason: true } => 'A',
        Button::Reject => 'r',
        Button::Withdraw => 'w',
        Button::Details => 'd',
    }
}

fn parse_button(letter: char) -> Option<Button> {
    [
        Button::Approve { needs_reason: false },
        Button::Approve { needs_reason: true },
        Button::Reject,
        Button::Withdraw,
        Button::Details,
    ]
    .into_iter()
    .find(|button| self::button_letter(*button) == letter)
}

/// The card id of a notice that is a message of its own.
#[must_use]
pub fn notification_card_id(record: &str, channel: &str, number: u32) -> CardId {
    derive_card_id(&["notice", record, channel, &number.to_string()])
}

/// The card that a private answer is: by its person and the hour.
#[must_use]
pub fn private_card_id(person: &str, hour: i64) -> CardId {
    derive_card_id(&["person", person, &hour.to_string()])
}

/// The hour of a private answer.
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

/// Gives each button what it carries. Without a key there are no buttons; where it is longer than a platform takes, no
/// buttons that decide.
#[must_use]
pub fn bind_buttons(mut message: Message, keyring: &Keyring, card: CardId, max_chars: usize) -> Message {
    if max_chars == 0 {
        return Message { buttons: None, ..message };
    }
    let Some(buttons) = message.buttons.as_mut() else { return message };
    let seen = SeenFingerprint::first_half_of(&buttons.fingerprint);
    let mut signed = vec![];
    for button in &buttons.shown {
        let binding = Binding {
            button: *button,
            target: buttons.target.clone(),
            instance_id: buttons.instance_id.clone(),
            seen_fingerprint: seen.clone(),
            card_id: card,
        };
        signed.extend(keyring.sign(&binding).map(|text| (*button, text)));
    }
    let all = signed.len();
    signed.retain(|(_, text)| text.len() <= max_chars);
    if signed.len() < all {
        message.sentences.push("The target's name is too long for buttons here: use a command.".into());
    }
    buttons.shown = signed.iter().map(|(button, _)| *button).collect();
    buttons.bindings = signed.into_iter().map(|(_, text)| text).collect();
    if buttons.shown.is_empty() {
        message.buttons = None;
    }
    message
}

/// What a button of an earlier version was about. It decides nothing any more.
#[must_use]
pub fn parse_legacy_binding(text: &str) -> Option<(String, InstanceId)> {
    let (target, instance_id) = text.split_once('#')?.0.split_once('/')?;
    Some((target.to_owned(), InstanceId::parse(instance_id).ok()?))
}

/// What a button says that it is about, whether or not that is true.
#[must_use]
pub fn unverified_connection(text: &str) -> Option<(String, InstanceId)> {
    let unchecked = || decode_binding(text).map(|(binding, ..)| (binding.target, binding.instance_id));
    parse_legacy_binding(text).or_else(unchecked)
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
        let buttons = Buttons { target, instance_id, fingerprint, shown: vec![button], bindings: vec![] };
        let message = Message { buttons: Some(buttons), ..Message::default() };
        let fits = bind_buttons(message.clone(), &keyring("slack", &["new"]), card, 100);
        assert_eq!(
            fits.buttons.unwrap().with_bindings().map(|(button, _)| button).collect::<Vec<_>>(),
            [Button::Reject]
        );
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

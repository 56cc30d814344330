//! The envelope of a callback: its signature and its encryption. Knows no event.

use base64::prelude::{BASE64_STANDARD, Engine};
use cbc::cipher::{Array, BlockModeDecrypt, KeyIvInit};
use hmac::digest::CtOutput;
use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::super::{CallbackKeys, EncryptKey};
use crate::chat::Unauthentic;
use crate::chat::authenticity::{check_timestamp, only_header};

const TIMESTAMP_HEADER: &str = "x-lark-request-timestamp";
const NONCE_HEADER: &str = "x-lark-request-nonce";
const SIGNATURE_HEADER: &str = "x-lark-signature";
const NONCE_FORM: &str = "1 to 128 characters of ASCII, without spaces and `,`";
const SIGNATURE_FORM: &str = "64 lower-case hexadecimal digits";
/// The length of a SHA-256 in hexadecimal digits.
const SIGNATURE_DIGITS: usize = 64;
/// The longest nonce. Feishu's have about ten characters.
const MAX_NONCE_CHARS: usize = 128;
/// The longest unsigned body. A `url_verification` has about 250 bytes.
const MAX_UNSIGNED_BYTES: usize = 2048;
/// The longest id of an event, in bytes. Feishu's have 32.
const MAX_EVENT_ID_BYTES: usize = 128;
/// The block size of AES, and the size of the initialization vector.
const BLOCK_BYTES: usize = 16;

/// An authentic body.
pub(super) struct Decrypted {
    pub(super) plaintext: Vec<u8>,
    /// The position of the pair of keys that matched, from 0.
    pub(super) key_index: usize,
    pub(super) event_id: Option<String>,
}

/// Well-formed and fresh headers.
pub struct SignedHeaders<'a> {
    timestamp: &'a str,
    nonce: &'a str,
    signature: CtOutput<Sha256>,
    signed_at: Timestamp,
}

/// Whether all headers of a signature are missing.
pub(super) fn is_unsigned(headers: &HeaderMap) -> bool {
    [TIMESTAMP_HEADER, NONCE_HEADER, SIGNATURE_HEADER].iter().all(|name| !headers.contains_key(*name))
}

/// An unsigned body must at least look like an encrypted `url_verification`.
pub(super) fn check_unsigned(body: &[u8]) -> Result<(), Unauthentic> {
    let has_form = body.len() <= MAX_UNSIGNED_BYTES && parse_ciphertext(body).is_some();
    if has_form { Ok(()) } else { Err(Unauthentic::MissingHeader(SIGNATURE_HEADER)) }
}

impl<'a> SignedHeaders<'a> {
    pub(super) fn parse(headers: &'a HeaderMap, now: Timestamp) -> Result<Self, Unauthentic> {
        let timestamp = only_header(headers, TIMESTAMP_HEADER)?;
        let nonce = only_header(headers, NONCE_HEADER)?;
        let signature = only_header(headers, SIGNATURE_HEADER)?;
        let signed_at = check_timestamp(timestamp, TIMESTAMP_HEADER, now)?;
        let fits = (1..=MAX_NONCE_CHARS).contains(&nonce.len());
        if !fits || !nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            return Err(Unauthentic::malformed(NONCE_HEADER, NONCE_FORM, nonce));
        }
        let malformed = || Unauthentic::malformed(SIGNATURE_HEADER, SIGNATURE_FORM, signature);
        let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if signature.len() != SIGNATURE_DIGITS || !signature.bytes().all(is_lower_hex) {
            return Err(malformed());
        }
        let mut digest = sha2::digest::Output::<Sha256>::default();
        hex::decode_to_slice(signature, &mut digest).map_err(|_| malformed())?;
        Ok(Self { timestamp, nonce, signature: CtOutput::new(digest), signed_at })
    }

    pub(super) fn signed_at(&self) -> Timestamp {
        self.signed_at
    }

    /// Verifies the signature with every pair of keys, then decrypts the body. An unsigned body is never decrypted here, so
    /// strangers cannot try paddings. Pairs may share an Encrypt Key while the token is rotated.
    pub(super) fn verify_and_decrypt(&self, body: &[u8], keys: &[CallbackKeys]) -> Result<Decrypted, Unauthentic> {
        let mut signers: Vec<(usize, &CallbackKeys)> = vec![];
        for (position, pair) in keys.iter().enumerate() {
            // Compares in constant time, and continues after a match.
            if expected_signature(&pair.encrypt_key, self.timestamp, self.nonce, body) == self.signature {
                signers.push((position, pair));
            }
        }
        let (_, pair) = signers.first().ok_or(Unauthentic::SignatureMismatch { keys: keys.len() })?;
        // Strangers can append bytes to a body that is signed with plain SHA-256, but the result is not JSON.
        if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() {
            return Err(Unauthentic::InvalidEnvelope);
        }
        let ciphertext = parse_ciphertext(body).ok_or(Unauthentic::InvalidCiphertext)?;
        let DecryptedBytes { plaintext, is_padding_valid } = decrypt_cbc(&pair.encrypt_key, &ciphertext);
        let inside = PlaintextHead::parse_prefix(&plaintext);
        let token = inside.as_ref().and_then(PlaintextHead::only_token).unwrap_or_default();
        let mut matched = None;
        for (position, pair) in &signers {
            if has_token(pair, token) {
                matched = Some(*position);
            }
        }
        match (matched, inside) {
            (Some(key_index), Some(inside)) if is_padding_valid => {
                Ok(Decrypted { key_index, event_id: inside.into_event_id()?, plaintext })
            }
            _ => Err(Unauthentic::InvalidCiphertext),
        }
    }
}

/// Decrypts an unsigned `url_verification` with every pair of keys. All failures look the same.
///
/// Source: <https://open.feishu.cn/document/server-docs/event-subscription-guide/event-subscription-configure-/request-url-configuration-case>
pub(super) fn decrypt_url_verification(body: &[u8], keys: &[CallbackKeys]) -> Result<Decrypted, Unauthentic> {
    let ciphertext = parse_ciphertext(body).ok_or(Unauthentic::MissingHeader(SIGNATURE_HEADER))?;
    let mut decrypted = Err(Unauthentic::SignatureMismatch { keys: keys.len() });
    for (key_index, pair) in keys.iter().enumerate() {
        // The token is compared even if the padding is wrong: the time must not show which one failed.
        let DecryptedBytes { plaintext, is_padding_valid } = decrypt_cbc(&pair.encrypt_key, &ciphertext);
        let inside = PlaintextHead::parse_prefix(&plaintext);
        let is_ours = has_token(pair, inside.as_ref().and_then(PlaintextHead::only_token).unwrap_or_default());
        if is_padding_valid && is_ours && inside.is_some_and(|inside| inside.is_url_verification()) {
            decrypted = Ok(Decrypted { plaintext, key_index, event_id: None });
        }
    }
    decrypted
}

/// The encrypted bytes of a body: the initialization vector, and at least one block. `None` unless the body is exactly
/// `{"encrypt": BASE64}`.
fn parse_ciphertext(body: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Envelope {
        encrypt: String,
    }
    // serde would also read an array as the struct.
    let body = body.trim_ascii_start().strip_prefix(b"{").map(|_| body)?;
    let envelope: Envelope = serde_json::from_slice(body).ok()?;
    let bytes = BASE64_STANDARD.decode(envelope.encrypt).ok()?;
    (bytes.len() >= 2 * BLOCK_BYTES && bytes.len().is_multiple_of(BLOCK_BYTES)).then_some(bytes)
}

/// The fields of a plaintext that identify its sender. Other bytes may follow them: the parser checks later that all of it is
/// one JSON document.
#[derive(Deserialize)]
struct PlaintextHead {
    r#type: Option<String>,
    token: Option<String>,
    header: Option<PlaintextHeader>,
}

#[derive(Deserialize)]
struct PlaintextHeader {
    token: Option<String>,
    event_id: Option<String>,
}

impl PlaintextHead {
    fn parse_prefix(plaintext: &[u8]) -> Option<Self> {
        Self::deserialize(&mut serde_json::Deserializer::from_slice(plaintext)).ok()
    }

    /// The token; `None` if there are two.
    fn only_token(&self) -> Option<&str> {
        match (&self.token, self.header.as_ref().and_then(|header| header.token.as_ref())) {
            (Some(token), None) | (None, Some(token)) => Some(token),
            _ => None,
        }
    }

    fn is_url_verification(&self) -> bool {
        self.r#type.as_deref() == Some("url_verification") && self.header.is_none()
    }

    fn into_event_id(self) -> Result<Option<String>, Unauthentic> {
        let event_id = self.header.and_then(|header| header.event_id);
        let fits = event_id.as_ref().is_none_or(|id| (1..=MAX_EVENT_ID_BYTES).contains(&id.len()));
        if fits { Ok(event_id) } else { Err(Unauthentic::InvalidCiphertext) }
    }
}

/// Compares in constant time, even for different lengths.
fn has_token(pair: &CallbackKeys, token: &str) -> bool {
    let hash = |text: &str| CtOutput::<Sha256>::new(Sha256::digest(text));
    hash(pair.verification_token.expose()) == hash(token)
}

fn expected_signature(key: &EncryptKey, timestamp: &str, nonce: &str, body: &[u8]) -> CtOutput<Sha256> {
    let mut hash = Sha256::new();
    for part in [timestamp.as_bytes(), nonce.as_bytes(), key.expose(), body] {
        hash.update(part);
    }
    CtOutput::new(hash.finalize())
}

/// Decrypted bytes. Not a `Result`: the time must not depend on the padding.
#[derive(Debug, PartialEq, Eq)]
struct DecryptedBytes {
    /// Without the padding, if that is valid.
    plaintext: Vec<u8>,
    is_padding_valid: bool,
}

/// Decrypts. Takes the same time for every padding.
fn decrypt_cbc(key: &EncryptKey, ciphertext: &[u8]) -> DecryptedBytes {
    let Some((iv, blocks)) = ciphertext.split_first_chunk::<BLOCK_BYTES>() else {
        return DecryptedBytes { plaintext: vec![], is_padding_valid: false };
    };
    let mut decryptor = cbc::Decryptor::<aes::Aes256>::new(&Sha256::digest(key.expose()), &Array(*iv));
    let mut plaintext = vec![];
    let (blocks, _) = blocks.as_chunks::<BLOCK_BYTES>();
    for block in blocks {
        let mut block = Array(*block);
        decryptor.decrypt_block(&mut block);
        plaintext.extend_from_slice(&block);
    }
    let padding = plaintext.last_chunk::<BLOCK_BYTES>().and_then(count_padding);
    let padded = plaintext.len();
    plaintext.truncate(padded.saturating_sub(padding.unwrap_or_default().into()));
    DecryptedBytes { plaintext, is_padding_valid: padding.is_some() }
}

/// The number of padding bytes in the last block. Each of the last N bytes must be N, from 1 to 16.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc5652#section-6.3>
fn count_padding(last: &[u8; BLOCK_BYTES]) -> Option<u8> {
    let [.., count] = *last;
    let mut wrong = u8::from(count == 0) | u8::from(count > 16);
    for (back, byte) in (0_u8..16).zip(last.iter().rev()) {
        // Every byte is compared, whatever the others are.
        wrong |= (byte ^ count) & u8::from(back < count).wrapping_neg();
    }
    (wrong == 0).then_some(count)
}

#[cfg(feature = "local")]
mod signing {
    use cbc::cipher::BlockModeEncrypt;
    use serde_json::json;

    use super::{
        Array, BASE64_STANDARD, BLOCK_BYTES, CallbackKeys, Digest, EncryptKey, Engine, KeyIvInit, NONCE_HEADER,
        SIGNATURE_HEADER, Sha256, TIMESTAMP_HEADER, Timestamp, expected_signature,
    };

    /// A request as Feishu would send it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct CallbackRequest {
        /// Values by name.
        pub headers: Vec<(&'static str, String)>,
        /// The encrypted envelope.
        pub body: String,
    }

    /// Encrypts and signs a callback. `iv` must never be used twice with one key.
    #[must_use]
    pub fn sign_callback(
        plaintext: &str,
        pair: &CallbackKeys,
        signed_at: Timestamp,
        nonce: &str,
        iv: [u8; 16],
    ) -> CallbackRequest {
        let body = encrypt_body(plaintext, &pair.encrypt_key, iv);
        let timestamp = signed_at.as_second().to_string();
        let signature =
            hex::encode(expected_signature(&pair.encrypt_key, &timestamp, nonce, body.as_bytes()).into_bytes());
        let headers = vec![
            ("content-type", "application/json; charset=utf-8".to_owned()),
            (TIMESTAMP_HEADER, timestamp),
            (NONCE_HEADER, nonce.to_owned()),
            (SIGNATURE_HEADER, signature),
        ];
        CallbackRequest { headers, body }
    }

    /// The test of the address: encrypted, but not signed.
    #[must_use]
    pub fn encrypt_challenge(challenge: &str, pair: &CallbackKeys, iv: [u8; 16]) -> CallbackRequest {
        let token = pair.verification_token.expose();
        let plaintext = json!({"challenge": challenge, "token": token, "type": "url_verification"}).to_string();
        let headers = vec![("content-type", "application/json; charset=utf-8".to_owned())];
        CallbackRequest { headers, body: encrypt_body(&plaintext, &pair.encrypt_key, iv) }
    }

    /// Encrypts a plaintext into a body.
    #[must_use]
    pub fn encrypt_body(plaintext: &str, key: &EncryptKey, iv: [u8; 16]) -> String {
        let mut encryptor = cbc::Encryptor::<aes::Aes256>::new(&Sha256::digest(key.expose()), &Array(iv));
        let mut bytes = iv.to_vec();
        let (blocks, rest) = plaintext.as_bytes().as_chunks::<BLOCK_BYTES>();
        let missing = BLOCK_BYTES.saturating_sub(rest.len());
        let mut last = [u8::try_from(missing).unwrap_or_default(); BLOCK_BYTES];
        for (padded, byte) in last.iter_mut().zip(rest) {
            *padded = *byte;
        }
        for block in blocks.iter().chain([&last]) {
            let mut block = Array(*block);
            encryptor.encrypt_block(&mut block);
            bytes.extend_from_slice(&block);
        }
        json!({"encrypt": BASE64_STANDARD.encode(bytes)}).to_string()
    }
}

#[cfg(feature = "local")]
pub use signing::{CallbackRequest, encrypt_body, encrypt_challenge, sign_callback};

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: <https://open.feishu.cn/document/server-docs/event-subscription-guide/event-subscription-configure-/encrypt-key-encryption-configuration-case>
    #[test]
    fn documented_example_decrypts() {
        let body = br#"{"encrypt":"P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk="}"#;
        let key = EncryptKey::try_from("test key".to_owned()).unwrap();
        let decrypted = decrypt_cbc(&key, &parse_ciphertext(body).unwrap());
        assert_eq!(decrypted, DecryptedBytes { plaintext: b"hello world".to_vec(), is_padding_valid: true });
    }

    #[test]
    fn malformed_padding_is_refused() {
        let block = |last: &[u8]| {
            let mut block = [b'x'; BLOCK_BYTES];
            for (byte, given) in block.iter_mut().rev().zip(last.iter().rev()) {
                *byte = *given;
            }
            count_padding(&block)
        };
        assert_eq!(block(&[1]), Some(1));
        assert_eq!(block(&[3, 3, 3]), Some(3));
        assert_eq!(block(&[16; 16]), Some(16));
        for wrong in [&[0][..], &[17], &[255], &[2], &[3, 2, 3], &[4, 4, 4, 4, 5], &[1, 16]] {
            assert_eq!(block(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn envelope_holds_exactly_one_field() {
        let block = BASE64_STANDARD.encode([0; 32]);
        assert!(parse_ciphertext(format!(" {{\"encrypt\": \"{block}\"}} ").as_bytes()).is_some());
        let odd = BASE64_STANDARD.encode([0; 33]);
        let short = BASE64_STANDARD.encode([0; 16]);
        for wrong in [
            format!("{{\"encrypt\":\"{block}\"}}{{}}"),
            format!("{{\"encrypt\":\"{block}\",\"encrypt\":\"{block}\"}}"),
            format!("{{\"encrypt\":\"{block}\",\"type\":\"url_verification\"}}"),
            format!("{{\"encrypt\":\"{odd}\"}}"),
            format!("{{\"encrypt\":\"{short}\"}}"),
            "{\"encrypt\":\"*\"}".to_owned(),
            "{\"encrypt\":null}".to_owned(),
            format!("[\"{block}\"]"),
            String::new(),
        ] {
            assert_eq!(parse_ciphertext(wrong.as_bytes()), None, "{wrong}");
        }
    }
}

//! The proof of a request: the end of its path, and a signature over the time. It does not cover the body, so each proof is
//! taken once.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use hmac::digest::CtOutput;
use hmac::{Hmac, Mac};
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::super::{ApiSecret, DingTalkSecret, NAME, REALM, Secrets};
use crate::chat::authenticity::{check_timestamp_millis, hmac_of, only_header};
use crate::chat::{Authentic, RequestOrigin, SingleUse, Unauthentic};

/// The headers of a click.
///
/// Source: <https://open.dingtalk.com/document/development/event-callback-card>
const CARD_TIMESTAMP: &str = "x-ddpaas-signature-timestamp";
const CARD_SIGNATURE: &str = "x-ddpaas-signature";
/// The headers of a message to the robot.
///
/// Source: <https://open.dingtalk.com/document/orgapp/receive-message>
const ROBOT_TIMESTAMP: &str = "timestamp";
const ROBOT_SIGNATURE: &str = "sign";
/// The sender of messages to the robot, in the log and in metrics.
const ROBOT_SENDER: &str = "dingtalk-robot";
const SIGNATURE_FORM: &str = "the base64 of 32 bytes";
/// The length of a SHA-256 in base64.
const SIGNATURE_CHARS: usize = 44;
/// How long a proof is remembered after its time. It is accepted for 300 s.
const PROOF_MEMORY: SignedDuration = SignedDuration::from_mins(10);

/// What a signature is for. Each kind has headers, secrets and an algorithm of its own, and proves no request of the other
/// kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// A click on a card: the HMAC of the time, with an `apiSecret`.
    Card,
    /// A message to the robot: the HMAC of the time and an app secret, with the same app secret.
    Robot,
}

impl RequestKind {
    /// The sender of an [`Authentic`] of this kind.
    pub(super) fn sender(self) -> &'static str {
        match self {
            Self::Card => NAME,
            Self::Robot => ROBOT_SENDER,
        }
    }

    /// The kind of an authentic request.
    pub(super) fn of(authentic: &Authentic) -> Self {
        if authentic.sender() == ROBOT_SENDER { Self::Robot } else { Self::Card }
    }

    fn header_names(self) -> ProofHeaders {
        match self {
            Self::Card => ProofHeaders { timestamp: CARD_TIMESTAMP, signature: CARD_SIGNATURE },
            Self::Robot => ProofHeaders { timestamp: ROBOT_TIMESTAMP, signature: ROBOT_SIGNATURE },
        }
    }

    fn start_mac(self, secret: &str, timestamp: &str) -> Hmac<Sha256> {
        match self {
            Self::Card => hmac_of(secret.as_bytes(), &[timestamp.as_bytes()]),
            Self::Robot => hmac_of(secret.as_bytes(), &[timestamp.as_bytes(), b"\n", secret.as_bytes()]),
        }
    }

    fn secrets(self, secrets: &Secrets) -> Vec<&str> {
        match self {
            Self::Card => secrets.api_secrets.iter().map(ApiSecret::expose).collect(),
            Self::Robot => secrets.app_secrets.iter().map(DingTalkSecret::expose).collect(),
        }
    }
}

/// The names of a kind's headers.
struct ProofHeaders {
    timestamp: &'static str,
    signature: &'static str,
}

impl ProofHeaders {
    fn are_in(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(self.timestamp) || headers.contains_key(self.signature)
    }
}

/// A request whose headers are well-formed and fresh. Only the secrets can verify it.
pub struct UnverifiedRequest<'a> {
    kind: RequestKind,
    timestamp: &'a str,
    signature: [u8; 32],
    sent_at: Timestamp,
}

impl<'a> UnverifiedRequest<'a> {
    /// Reads the headers; needs no secret.
    ///
    /// # Errors
    /// When a header is missing, occurs twice or is malformed, or the time is too far from now.
    pub fn from_headers(headers: &'a HeaderMap, now: Timestamp) -> Result<Self, Unauthentic> {
        let (card, robot) = (RequestKind::Card.header_names(), RequestKind::Robot.header_names());
        let kind = match (card.are_in(headers), robot.are_in(headers)) {
            (true, true) => return Err(Unauthentic::malformed(CARD_SIGNATURE, "one kind of signature", "")),
            (false, true) => RequestKind::Robot,
            (_, false) => RequestKind::Card,
        };
        let names = kind.header_names();
        let timestamp = only_header(headers, names.timestamp)?;
        let text = only_header(headers, names.signature)?;
        let sent_at = check_timestamp_millis(timestamp, names.timestamp, now)?;
        let malformed = || Unauthentic::malformed(names.signature, SIGNATURE_FORM, text);
        // One spelling for each signature: another one would be another proof.
        let bytes =
            Some(text).filter(|text| text.len() == SIGNATURE_CHARS).and_then(|text| BASE64_STANDARD.decode(text).ok());
        let signature = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed)?;
        Ok(Self { kind, timestamp, signature, sent_at })
    }

    /// Verifies the request. `path_secret` is the end of its path.
    ///
    /// # Errors
    /// When the path secret is not a configured one, or no secret makes this signature.
    pub fn verify(&self, body: &[u8], path_secret: &str, secrets: &Secrets) -> Result<Authentic, Unauthentic> {
        let hash = |text: &str| CtOutput::<Sha256>::new(Sha256::digest(text));
        let given = hash(path_secret);
        let mut is_known_path = false;
        for known in &secrets.path_secrets {
            // Compares in constant time, and continues after a match.
            is_known_path |= hash(known.expose()) == given;
        }
        let keys = self.kind.secrets(secrets);
        let mut matched = None;
        for (position, key) in keys.iter().enumerate() {
            if self.kind.start_mac(key, self.timestamp).verify(&self.signature.into()).is_ok() {
                matched = matched.or(Some(position));
            }
        }
        if !is_known_path {
            return Err(Unauthentic::UnknownPathSecret);
        }
        let key_index = matched.ok_or(Unauthentic::SignatureMismatch { keys: keys.len() })?;
        let proof = Sha256::new().chain_update(self.kind.sender()).chain_update([0]).chain_update(self.timestamp);
        let proof = proof.chain_update([0]).chain_update(self.signature).finalize();
        let signed_at = Timestamp::from_second(self.sent_at.as_second()).unwrap_or(self.sent_at);
        let origin = RequestOrigin { request_key: format!("{REALM}:{:.32}", hex::encode(proof)), signed_at, key_index };
        Ok(Authentic {
            body: Bytes::copy_from_slice(body),
            sender: self.kind.sender().to_owned(),
            origin,
            single_use: Some(SingleUse::Proof(self.sent_at.checked_add(PROOF_MEMORY).unwrap_or(self.sent_at))),
        })
    }
}

/// Verifies a request with every configured secret. `path_secret` is the end of its path.
///
/// Source: <https://open.dingtalk.com/document/development/event-callback-card> and
/// <https://open.dingtalk.com/document/orgapp/receive-message>
///
/// # Errors
/// Why it is not authentic.
pub fn verify_with(
    secrets: &Secrets,
    path_secret: &str,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    UnverifiedRequest::from_headers(headers, now)?.verify(body, path_secret, secrets)
}

#[cfg(feature = "local")]
mod signing {
    use super::{BASE64_STANDARD, Engine, Mac, REALM, RequestKind, Secrets, Timestamp};
    use crate::chat::SignedRequest;

    /// A click as DingTalk would send it.
    ///
    /// # Errors
    /// When a secret is missing.
    pub fn sign_card_callback(secrets: &Secrets, body: &str, now: Timestamp) -> Result<SignedRequest, String> {
        sign_request(RequestKind::Card, secrets, body, now)
    }

    /// A message to the robot as DingTalk would send it.
    ///
    /// # Errors
    /// When a secret is missing.
    pub fn sign_robot_message(secrets: &Secrets, body: &str, now: Timestamp) -> Result<SignedRequest, String> {
        sign_request(RequestKind::Robot, secrets, body, now)
    }

    fn sign_request(kind: RequestKind, secrets: &Secrets, body: &str, now: Timestamp) -> Result<SignedRequest, String> {
        let secret = kind.secrets(secrets).first().copied().ok_or("platforms.dingtalk has no secret that signs")?;
        let path = secrets.path_secrets.first().ok_or("platforms.dingtalk.path_secrets is empty")?;
        let (names, timestamp) = (kind.header_names(), now.as_millisecond().to_string());
        let signature = BASE64_STANDARD.encode(kind.start_mac(secret, &timestamp).finalize().into_bytes());
        let headers = vec![
            ("content-type", "application/json; charset=utf-8".to_owned()),
            (names.timestamp, timestamp),
            (names.signature, signature),
        ];
        Ok(SignedRequest { path: format!("/{REALM}/{}", path.expose()), headers, body: body.to_owned() })
    }
}

#[cfg(feature = "local")]
pub use signing::{sign_card_callback, sign_robot_message};

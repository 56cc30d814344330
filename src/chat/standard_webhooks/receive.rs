//! What machines send: authenticity, then commands.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use http::{HeaderMap, Request};
use jiff::Timestamp;
use serde::Deserialize;
#[cfg(feature = "local")]
use serde_json::json;
use sha2::Sha256;

use super::{Config, PlatformContext, REALM, STANDARD_HEADERS, SVIX_HEADERS, SignatureHeaders, WebhookKey};
use crate::approval::{Principal, Verdict};
use crate::chat::authenticity::{check_timestamp, hmac_of, only_header};
use crate::chat::malformed::{JsonObject, optional_from_text};
use crate::chat::request::normalize_reason;
#[cfg(feature = "local")]
use crate::chat::response::set_member;
use crate::chat::{
    Action, Authentic, Command, CommandRequest, ConnectionCommand, Incoming, MalformedRequest, MessageRef,
    RequestOrigin, Unauthentic,
};
#[cfg(feature = "local")]
use crate::chat::{EventSpec, SignedRequest};
#[cfg(feature = "local")]
use crate::clock;
use crate::peering::{Fingerprint, InstanceId};

const ID_FORM: &str = "1 to 256 characters of ASCII, without spaces, `.` and `,`";
/// The most signatures that are tried. A sender that rotates its key sends two.
const MAX_SIGNATURES: usize = 16;

/// No sender tests the address.
pub(in crate::chat) fn is_address_test(_request: &Request<Bytes>) -> bool {
    false
}

/// Refuses what is not authentic under any key.
pub(in crate::chat) fn precheck_request(request: &Request<Bytes>, now: Timestamp) -> Result<(), Unauthentic> {
    UnverifiedRequest::from_headers(request.headers(), now).map(|_| ())
}

/// A request holds nothing about the platform itself.
pub(in crate::chat) async fn learn(_access: PlatformContext<'_>, _authentic: &Authentic) {}

/// Verifies a request of the client in its path. An unknown client takes the same path until the end, so neither time nor
/// status shows which names exist.
pub(in crate::chat) async fn verify(
    access: PlatformContext<'_>,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    let client = request.uri().path().rsplit('/').find(|segment| !segment.is_empty()).unwrap_or_default();
    let known = Some(client).filter(|client| access.config.0.contains(*client));
    let keys = access.state.verification_keys(access.secrets, known);
    let verified = verify_with(&keys, request.headers(), request.body().clone(), now);
    match (known, verified) {
        (Some(client), verified) => verified.map(|authentic| Authentic { sender: client.to_owned(), ..authentic }),
        (None, Ok(_) | Err(Unauthentic::SignatureMismatch { .. })) => Err(Unauthentic::UnknownClient),
        (None, Err(unauthentic)) => Err(unauthentic),
    }
}

/// Verifies a request. Every `v1` signature is tried with every key; other versions are ignored.
///
/// # Errors
/// Why it is not authentic.
pub fn verify_with(
    keys: &[WebhookKey],
    headers: &HeaderMap,
    body: Bytes,
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    UnverifiedRequest::from_headers(headers, now)?.verify(body, keys)
}

/// The names of the headers that sign a request. A request with headers of both families could mean two things.
fn signature_headers(headers: &HeaderMap) -> Result<SignatureHeaders, Unauthentic> {
    let SignatureHeaders { id, timestamp, signature } = SVIX_HEADERS;
    if ![id, timestamp, signature].iter().any(|name| headers.contains_key(*name)) {
        return Ok(STANDARD_HEADERS);
    }
    let SignatureHeaders { id, timestamp, signature } = STANDARD_HEADERS;
    match [id, timestamp, signature].into_iter().find(|name| headers.contains_key(*name)) {
        Some(name) => Err(Unauthentic::DuplicateHeader(name)),
        None => Ok(SVIX_HEADERS),
    }
}

/// Well-formed and fresh headers of a request. Only the keys can verify them.
struct UnverifiedRequest<'a> {
    id: &'a str,
    timestamp: &'a str,
    signatures: Vec<Vec<u8>>,
    signed_at: Timestamp,
}

impl<'a> UnverifiedRequest<'a> {
    /// Reads the headers; needs no key.
    fn from_headers(headers: &'a HeaderMap, now: Timestamp) -> Result<Self, Unauthentic> {
        let names = signature_headers(headers)?;
        let id = only_header(headers, names.id)?;
        let timestamp = only_header(headers, names.timestamp)?;
        let signatures = only_header(headers, names.signature)?;
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'.' && byte != b',';
        if !(1..=256).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(Unauthentic::malformed(names.id, ID_FORM, id));
        }
        let signed_at = check_timestamp(timestamp, names.timestamp, now)?;
        let signatures = signatures.split(' ').filter_map(|token| token.strip_prefix("v1,")).take(MAX_SIGNATURES);
        let signatures = signatures.filter_map(|text| BASE64_STANDARD.decode(text).ok()).collect();
        Ok(Self { id, timestamp, signatures, signed_at })
    }

    /// Verifies the body with every key.
    fn verify(&self, body: Bytes, keys: &[WebhookKey]) -> Result<Authentic, Unauthentic> {
        let mut matched = None;
        for (position, key) in keys.iter().enumerate() {
            // Computed once per key, however many signatures there are: strangers must not choose how much we compute.
            let mac = request_mac(key, self.id, self.timestamp, &body);
            for signature in &self.signatures {
                // Compares in constant time, and continues after a match.
                if mac.clone().verify_slice(signature).is_ok() {
                    matched = Some(position);
                }
            }
        }
        let key_index = matched.ok_or(Unauthentic::SignatureMismatch { keys: keys.len() })?;
        let request_key = format!("webhook-id:{}", self.id);
        let origin = RequestOrigin { request_key, signed_at: self.signed_at, key_index };
        Ok(Authentic { body, sender: String::new(), origin, single_use: None })
    }
}

fn request_mac(key: &WebhookKey, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    hmac_of(key.expose(), &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body])
}

/// The header `webhook-signature`, with a signature of every key: a receiver may hold the old or the new one.
#[must_use]
pub fn sign_body(keys: &[WebhookKey], id: &str, timestamp: &str, body: &[u8]) -> String {
    let one =
        |key| format!("v1,{}", BASE64_STANDARD.encode(request_mac(key, id, timestamp, body).finalize().into_bytes()));
    keys.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookPayload {
    r#type: String,
    /// The time of the decision. The header of a retry has a later time.
    #[serde(default, deserialize_with = "optional_from_text")]
    timestamp: Option<DecisionTime>,
    data: JsonObject<WebhookData>,
}

/// Unknown fields are refused: a mistyped `dry_run` must not become a real approval.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookData {
    #[serde(default, deserialize_with = "optional_from_text")]
    instance_id: Option<InstanceId>,
    actor: String,
    target: Option<String>,
    #[serde(default, deserialize_with = "optional_from_text")]
    fingerprint: Option<Fingerprint>,
    reason: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// A time as in RFC 3339.
struct DecisionTime(Timestamp);

#[derive(Debug, thiserror::Error)]
#[error("expected a time as in RFC 3339, e.g. 2026-11-22T10:00:00Z")]
struct InvalidTime;

impl TryFrom<String> for DecisionTime {
    type Error = InvalidTime;

    fn try_from(text: String) -> Result<Self, InvalidTime> {
        text.parse().map(Self).map_err(|_| InvalidTime)
    }
}

/// The answer is the HTTP response.
#[derive(Debug)]
pub struct ReplyTo;

impl ReplyTo {
    #[expect(clippy::unused_self, reason = "other platforms have several places")]
    pub(in crate::chat) fn log_label(&self) -> &'static str {
        "Machine"
    }

    /// There are no messages.
    #[expect(clippy::unused_self, reason = "other platforms have links")]
    pub(in crate::chat) fn message_link(&self, _place: &MessageRef) -> Option<String> {
        None
    }
}

/// Parses a request of a client.
#[expect(clippy::needless_pass_by_value, reason = "other platforms consume it")]
pub(in crate::chat) fn parse(_config: &Config, authentic: Authentic) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let client = authentic.sender.as_str();
    let JsonObject(WebhookPayload { r#type, timestamp, data: JsonObject(data) }) =
        MalformedRequest::parse_json(&authentic.body)?;
    let action = match (r#type.as_str(), data.dry_run) {
        ("peering.approve", false) => Some(Action::Decide(Verdict::Approve)),
        ("peering.approve", true) => Some(Action::DryRun),
        ("peering.reject", false) => Some(Action::Decide(Verdict::Reject)),
        ("peering.withdraw", false) => Some(Action::Withdraw),
        ("peering.acknowledge", false) => Some(Action::Acknowledge),
        ("peering.status", false) => Some(Action::Status),
        ("peering.list" | "peering.inventory", false) => None,
        (
            "peering.reject"
            | "peering.withdraw"
            | "peering.acknowledge"
            | "peering.status"
            | "peering.list"
            | "peering.inventory",
            true,
        ) => {
            return Err(MalformedRequest::new("data.dry_run: only peering.approve has a dry run"));
        }
        _ => {
            let known = "one of peering.approve, peering.reject, peering.withdraw, peering.acknowledge, peering.status, \
                         peering.list, peering.inventory";
            return Err(MalformedRequest::at("type", known, &r#type));
        }
    };
    let command = match (action, data.instance_id) {
        (Some(action), Some(instance_id)) => Command::Connection(ConnectionCommand {
            action,
            target: data.target,
            instance_id,
            seen_fingerprint: data.fingerprint.map(Into::into),
            reason: data.reason.as_deref().and_then(normalize_reason),
        }),
        (None, None) if r#type == "peering.inventory" => Command::Inventory { target: data.target },
        (None, None) => Command::List { target: data.target },
        (Some(_), None) => return Err(MalformedRequest::new("data.instance_id: missing")),
        (None, Some(_)) => {
            return Err(MalformedRequest::new("data.instance_id: peering.list and peering.inventory take none"));
        }
    };
    let by = Principal::new(REALM, client, &data.actor).map_err(|_| {
        MalformedRequest::at("data.actor", "an immutable user id: 1 to 128 letters, digits and -_.@+", &data.actor)
    })?;
    let RequestOrigin { request_key, signed_at, key_index } = &authentic.origin;
    let origin = RequestOrigin {
        // The ids of two clients may be equal.
        request_key: format!("{client}/{request_key}"),
        signed_at: timestamp.map_or(*signed_at, |DecisionTime(at)| at.min(*signed_at)),
        key_index: *key_index,
    };
    let request = CommandRequest { command, by, origin, clicked_card: None };
    Ok(Incoming::Command { request, reply_to: ReplyTo })
}

/// Signs a command as a client would.
///
/// # Errors
/// What is missing in the configuration or the secrets.
#[cfg(feature = "local")]
pub fn sign(
    config: &Config,
    secrets: &super::Secrets,
    spec: &EventSpec,
    now: Timestamp,
) -> Result<SignedRequest, String> {
    let client = spec.tenant.as_ref().or(config.0.first()).ok_or("the configuration has no client")?;
    sign_as(secrets, client, spec, &format!("msg_{}", clock::nonce()), now)
}

/// Signs a command as a client would, with this `webhook-id`.
///
/// # Errors
/// When the secrets have no such client.
#[cfg(feature = "local")]
pub fn sign_as(
    secrets: &super::Secrets,
    client: &str,
    spec: &EventSpec,
    id: &str,
    now: Timestamp,
) -> Result<SignedRequest, String> {
    let (verb, dry_run) = match spec.action.as_str() {
        "dry-run" => ("approve", true),
        verb => (verb, false),
    };
    let mut data = json!({"actor": spec.actor});
    let instance_id = Some(spec.instance_id.clone()).filter(|id| !id.is_empty());
    let optional = [
        ("instance_id", &instance_id),
        ("target", &spec.target),
        ("reason", &spec.reason),
        ("fingerprint", &spec.fingerprint),
    ];
    for (name, text) in optional.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
        set_member(&mut data, name, text.as_str().into());
    }
    if dry_run {
        set_member(&mut data, "dry_run", true.into());
    }
    let body = json!({"type": format!("peering.{verb}"), "timestamp": now, "data": data}).to_string();
    let known = || secrets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let keys = secrets.get(client).ok_or_else(|| format!("the secrets have no client {client}; known: {}", known()))?;
    let keys = &keys.signing_secrets;
    let timestamp = now.as_second().to_string();
    let signature = sign_body(keys.get(..1).unwrap_or_default(), id, &timestamp, body.as_bytes());
    Ok(SignedRequest {
        path: format!("/{REALM}/{client}"),
        headers: vec![
            ("content-type", "application/json".into()),
            (STANDARD_HEADERS.id, id.to_owned()),
            (STANDARD_HEADERS.signature, signature),
            (STANDARD_HEADERS.timestamp, timestamp),
        ],
        body,
    })
}

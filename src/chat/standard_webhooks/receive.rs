//! What machines send: authenticity, then commands.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Request};
use jiff::Timestamp;
use serde::Deserialize;
#[cfg(feature = "local")]
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Access, Config, ID, REALM, SIGNATURE, TIMESTAMP, WebhookKey};
use crate::approval::{Principal, Verdict};
use crate::chat::{self, About, Authentic, Command, Incoming, Malformed, Request as Wanted, Unauthentic, Verb};
#[cfg(feature = "local")]
use crate::chat::{Signed, Wish};
#[cfg(feature = "local")]
use crate::clock;
use crate::peering::{Fingerprint, InstanceId};

/// A sender that rotates signs with two keys; more than this is not one.
const MOST_SIGNATURES: usize = 16;

/// What shows without a key that a request is not authentic.
pub(in crate::chat) fn check(request: &Request<Bytes>, now: Timestamp) -> Result<(), Unauthentic> {
    UnverifiedRequest::read(request.headers(), now).map(|_| ())
}

/// Verifies a request of the client in its path. An unknown client is treated as a known one until the end: neither time
/// nor status shows which names exist.
pub(in crate::chat) async fn verify(
    access: Access<'_>,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    let client = request.uri().path().strip_prefix("/webhook/").unwrap_or_default();
    let known = Some(client).filter(|client| access.config.0.contains(*client));
    let keys = access.state.keys(access.secrets, known);
    let verified = verify_with(&keys, request.headers(), request.body().clone(), now);
    match (known, verified) {
        (Some(client), verified) => verified.map(|authentic| Authentic { sender: client.to_owned(), ..authentic }),
        (None, Ok(_) | Err(Unauthentic::Mismatch)) => Err(Unauthentic::UnknownClient),
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
    UnverifiedRequest::read(headers, now)?.verify(body, keys)
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
    fn read(headers: &'a HeaderMap, now: Timestamp) -> Result<Self, Unauthentic> {
        let id = chat::only_header(headers, ID)?;
        let timestamp = chat::only_header(headers, TIMESTAMP)?;
        let signatures = chat::only_header(headers, SIGNATURE)?;
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'.' && byte != b',';
        if !(1..=256).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(Unauthentic::Malformed(ID));
        }
        let signed_at = chat::check_timestamp(timestamp, TIMESTAMP, now)?;
        let signatures = signatures.split(' ').filter_map(|token| token.strip_prefix("v1,")).take(MOST_SIGNATURES);
        let signatures = signatures.filter_map(|text| BASE64_STANDARD.decode(text).ok()).collect();
        Ok(Self { id, timestamp, signatures, signed_at })
    }

    /// Verifies the body with every key.
    fn verify(&self, body: Bytes, keys: &[WebhookKey]) -> Result<Authentic, Unauthentic> {
        let mut matched = None;
        for (position, key) in keys.iter().enumerate() {
            // Once per key, however many signatures there are: strangers must not choose how long we work.
            let mac = mac(key, self.id, self.timestamp, &body);
            for signature in &self.signatures {
                // Compares in constant time, and goes on after a match.
                if mac.clone().verify_slice(signature).is_ok() {
                    matched = Some(position);
                }
            }
        }
        let key = matched.ok_or(Unauthentic::Mismatch)?;
        let request_key = format!("webhook-id:{}", self.id);
        Ok(Authentic { body, sender: String::new(), request_key, signed_at: self.signed_at, key })
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac(key: &WebhookKey, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key.expose()).expect("any length of key");
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac
}

/// The header `webhook-signature`, made with every key, so that a receiver may hold the old or the new one.
#[must_use]
pub fn sign_body(keys: &[WebhookKey], id: &str, timestamp: &str, body: &[u8]) -> String {
    let one = |key| format!("v1,{}", BASE64_STANDARD.encode(mac(key, id, timestamp, body).finalize().into_bytes()));
    keys.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    r#type: String,
    /// The time of the decision: a retry has a later time in its header.
    timestamp: Option<Timestamp>,
    data: Data,
}

/// Unknown fields are refused: a mistyped `dry_run` must not become the real thing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    instance_id: Option<InstanceId>,
    actor: String,
    target: Option<String>,
    fingerprint: Option<Fingerprint>,
    reason: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// The answer is the reply.
#[derive(Debug)]
pub struct ReplyTo;

impl ReplyTo {
    #[expect(clippy::unused_self, reason = "other platforms have several ways")]
    pub(in crate::chat) fn way(&self) -> &'static str {
        "Machine"
    }
}

/// Understands a request of a client.
#[expect(clippy::needless_pass_by_value, reason = "other platforms take it apart")]
pub(in crate::chat) fn parse(_config: &Config, authentic: Authentic) -> Result<Incoming<ReplyTo>, Malformed> {
    let client = authentic.sender.as_str();
    let Payload { r#type, timestamp, data } =
        serde_json::from_slice(&authentic.body).map_err(|error| Malformed::json(&error))?;
    let verb = match (r#type.as_str(), data.dry_run) {
        ("peering.approve", false) => Some(Verb::Decide(Verdict::Approve)),
        ("peering.approve", true) => Some(Verb::DryRun),
        ("peering.reject", false) => Some(Verb::Decide(Verdict::Reject)),
        ("peering.withdraw", false) => Some(Verb::Withdraw),
        ("peering.status", false) => Some(Verb::Status),
        ("peering.list", false) => None,
        ("peering.reject" | "peering.withdraw" | "peering.status" | "peering.list", true) => {
            return Err(Malformed("only peering.approve has a dry run".into()));
        }
        _ => {
            let known = "peering.approve, peering.reject, peering.withdraw, peering.status, peering.list";
            return Err(Malformed(format!("type is none of {known}")));
        }
    };
    let command = match (verb, data.instance_id) {
        (Some(verb), Some(instance_id)) => Command::About(About {
            verb,
            target: data.target,
            instance_id,
            seen: data.fingerprint.map(Into::into),
            reason: data.reason.as_deref().and_then(chat::reason),
        }),
        (None, None) => Command::List { target: data.target },
        (Some(_), None) => return Err(Malformed("data.instance_id is missing".into())),
        (None, Some(_)) => return Err(Malformed("peering.list has no data.instance_id".into())),
    };
    let request = Wanted {
        command,
        by: Principal::new(REALM, client, &data.actor).map_err(|_| {
            Malformed("data.actor is not an immutable user id: 1 to 128 letters, digits and -_.@+".into())
        })?,
        // Each client has ids of its own.
        request_key: format!("{client}/{}", authentic.request_key),
        signed_at: timestamp.map_or(authentic.signed_at, |at| at.min(authentic.signed_at)),
        key: authentic.key,
        clicked: None,
    };
    Ok(Incoming::Request { request, to: ReplyTo })
}

/// As a client would send it.
///
/// # Errors
/// What the configuration or the secrets lack.
#[cfg(feature = "local")]
pub fn sign(config: &Config, secrets: &super::Secrets, wish: &Wish, now: Timestamp) -> Result<Signed, String> {
    let client = wish.tenant.as_ref().or(config.0.first()).ok_or("the configuration has no client")?;
    sign_as(secrets, client, wish, &format!("msg_{}", clock::nonce()), now)
}

/// As a client would send it, with this `webhook-id`.
///
/// # Errors
/// When the secrets have no such client.
#[cfg(feature = "local")]
pub fn sign_as(
    secrets: &super::Secrets,
    client: &str,
    wish: &Wish,
    id: &str,
    now: Timestamp,
) -> Result<Signed, String> {
    let (verb, dry_run) = match wish.verb.as_str() {
        "dry-run" => ("approve", true),
        verb => (verb, false),
    };
    let mut data = json!({"actor": wish.actor});
    let instance_id = Some(wish.instance_id.clone()).filter(|id| !id.is_empty());
    let optional = [
        ("instance_id", &instance_id),
        ("target", &wish.target),
        ("reason", &wish.reason),
        ("fingerprint", &wish.fingerprint),
    ];
    for (name, text) in optional.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
        insert(&mut data, name, text.as_str().into());
    }
    if dry_run {
        insert(&mut data, "dry_run", true.into());
    }
    let body = json!({"type": format!("peering.{verb}"), "timestamp": now, "data": data}).to_string();
    let keys = &secrets.get(client).ok_or("the secrets have no such client")?.signing_secrets;
    let timestamp = now.as_second().to_string();
    let signature = sign_body(keys.get(..1).unwrap_or_default(), id, &timestamp, body.as_bytes());
    Ok(Signed {
        path: format!("/{REALM}/{client}"),
        headers: vec![
            ("content-type", "application/json".into()),
            (ID, id.to_owned()),
            (SIGNATURE, signature),
            (TIMESTAMP, timestamp),
        ],
        body,
    })
}

#[cfg(feature = "local")]
fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

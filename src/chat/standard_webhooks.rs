//! Standard Webhooks 1.0.0, symmetric (`v1`): how machines talk to us, and how we tell machines.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{About, Authentic, Command, Malformed, Request, Unauthentic, Undelivered, Verb, message};
use crate::approval::{Approval, ClientToken, Decision, Notice, Principal, Verdict};
use crate::peering::{Connection, FieldHash, Fingerprint, InstanceId, Side};
use crate::secrets::{ChannelSecrets, WebhookKey};
use crate::{clock, config, http as our_http};

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";
/// A sender that rotates signs with two keys; more than this is not one.
const MOST_SIGNATURES: usize = 16;
/// The platform, in principals.
const PLATFORM: &str = config::WEBHOOK;

/// Verifies a request. Every `v1` signature is tried with every key; other versions are ignored.
pub fn verify(headers: &HeaderMap, body: Bytes, keys: &[WebhookKey], now: Timestamp) -> Result<Authentic, Unauthentic> {
    Claim::read(headers, now)?.verify(body, keys)
}

/// Well-formed and fresh headers of a request. Only the keys can verify them.
pub struct Claim<'a> {
    id: &'a str,
    timestamp: &'a str,
    signatures: Vec<Vec<u8>>,
    signed_at: Timestamp,
}

impl<'a> Claim<'a> {
    /// Reads the headers; needs no key.
    pub fn read(headers: &'a HeaderMap, now: Timestamp) -> Result<Self, Unauthentic> {
        let id = super::only_header(headers, ID)?;
        let timestamp = super::only_header(headers, TIMESTAMP)?;
        let signatures = super::only_header(headers, SIGNATURE)?;
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'.' && byte != b',';
        if !(1..=256).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(Unauthentic::Malformed(ID));
        }
        let signed_at = super::check_timestamp(timestamp, TIMESTAMP, now)?;
        let signatures = signatures.split(' ').filter_map(|token| token.strip_prefix("v1,")).take(MOST_SIGNATURES);
        let signatures = signatures.filter_map(|text| BASE64_STANDARD.decode(text).ok()).collect();
        Ok(Self { id, timestamp, signatures, signed_at })
    }

    /// Verifies the body with every key.
    pub fn verify(&self, body: Bytes, keys: &[WebhookKey]) -> Result<Authentic, Unauthentic> {
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
        Ok(Authentic { body, request_key, signed_at: self.signed_at, key })
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
pub fn sign(keys: &[WebhookKey], id: &str, timestamp: &str, body: &[u8]) -> String {
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

/// Understands a request of a client.
pub fn parse(authentic: &Authentic, client: &str) -> Result<Request, Malformed> {
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
            fingerprint: data.fingerprint,
            reason: data.reason.as_deref().and_then(super::reason),
        }),
        (None, None) => Command::List { target: data.target },
        (Some(_), None) => return Err(Malformed("data.instance_id is missing".into())),
        (None, Some(_)) => return Err(Malformed("peering.list has no data.instance_id".into())),
    };
    Ok(Request {
        command,
        by: Principal::new(PLATFORM, client, &data.actor).map_err(|_| {
            Malformed("data.actor is not an immutable user id: 1 to 128 letters, digits and -_.@+".into())
        })?,
        // Each client has ids of its own.
        request_key: format!("{client}/{}", authentic.request_key),
        signed_at: timestamp.map_or(authentic.signed_at, |at| at.min(authentic.signed_at)),
        key: authentic.key,
    })
}

/// A notice as JSON: `{type, timestamp, data}`.
#[must_use]
pub fn notice(approval: &Approval, notice: &Notice) -> Value {
    json!({
        "type": format!("peering.{}", message::news_name(&notice.news)),
        "timestamp": notice.at.to_string(),
        "data": {
            "summary": message::notice(approval, notice).headline,
            "news": notice.news,
            "approval": self::approval(approval),
        },
    })
}

/// An approval as machines see it.
#[must_use]
pub fn approval(approval: &Approval) -> Value {
    json!({
        "target": approval.id.target,
        "instance_id": approval.id.instance_id,
        "state": approval.state.name(),
        "since": approval.since,
        "generation": approval.generation,
        "rule": approval.terms.rule,
        "approvals": {
            "given": approval.given(), "needed": approval.terms.needed(), "approvers": approval.terms.approvers,
        },
        "decision": approval.winner().map(decision),
        "decisions": approval.decisions.iter().map(decision).collect::<Vec<_>>(),
        "findings": approval.findings,
        "client_token": approval.client_token.as_ref().map(ClientToken::as_str),
        "problem": approval.last_problem,
        "history_hash": approval.history.last().map(|entry| entry.hash.as_str()),
        "connection": connection(&approval.connection),
    })
}

fn decision(decision: &Decision) -> Value {
    json!({
        "verdict": decision.verdict,
        "by": decision.by.principal,
        "person": decision.by.person,
        "at": decision.at,
        "fingerprint": decision.fingerprint,
        "reason": decision.reason,
    })
}

/// A connection as machines see it.
#[must_use]
pub fn connection(connection: &Connection) -> Value {
    let side =
        |side: &Side| json!({"account": side.account, "region": side.region, "vpc": side.vpc, "cidrs": side.cidrs});
    json!({
        "instance_id": connection.instance_id,
        "status": connection.status,
        "business_status": connection.business_status,
        "fingerprint": connection.fingerprint(),
        "requester": side(&connection.requester),
        "accepter": side(&connection.accepter),
        "bandwidth_mbps": connection.bandwidth_mbps,
        "link_type": connection.link_type,
        "name": connection.name,
        "description": connection.description,
        "expires_at": connection.expires_at,
    })
}

/// Posts a notice, signed. Its `webhook-id` is the same for every try.
pub async fn deliver(
    http: &reqwest::Client,
    secrets: &ChannelSecrets,
    approval: &Approval,
    notice: &Notice,
) -> Result<(), Undelivered> {
    let mut hash = FieldHash::new("peergate/webhook-id/1");
    hash.field(&approval.id.to_string());
    hash.field(&notice.number.to_string());
    let id = format!("msg_{:.32}", hash.hex());
    post(http, secrets, &id, self::notice(approval, notice).to_string()).await
}

/// Posts a message that says nothing, to see whether it is taken.
pub async fn deliver_test(http: &reqwest::Client, secrets: &ChannelSecrets) -> Result<(), Undelivered> {
    let body = json!({"type": "peergate.test", "timestamp": clock::now()}).to_string();
    post(http, secrets, &format!("msg_{}", clock::nonce()), body).await
}

async fn post(http: &reqwest::Client, secrets: &ChannelSecrets, id: &str, body: String) -> Result<(), Undelivered> {
    let timestamp = clock::now().as_second().to_string();
    let request = http
        .post(secrets.url.expose().clone())
        .timeout(super::POST_TIMEOUT)
        .header("content-type", "application/json")
        .header(SIGNATURE, sign(&secrets.signing_secrets, id, &timestamp, body.as_bytes()))
        .header(ID, id)
        .header(TIMESTAMP, timestamp)
        .body(body);
    let response = request.send().await.map_err(|error| Undelivered::transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    our_http::read(response).await.map_err(|error| Undelivered::transport(&error))?;
    if status.is_success() { Ok(()) } else { Err(Undelivered::status(status, &headers, clock::now())) }
}

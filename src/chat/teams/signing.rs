//! Signs activities as the fake of Teams does, with a key that is public. Only a peergate whose `platforms.teams.keys` is the
//! fake takes them: nobody but Microsoft can sign for another.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::config::is_loopback;
use super::{CHANNEL_ID, Cloud, Config, REALM, Secrets};
use crate::chat::command::command_text;
use crate::chat::{EventSpec, SignedRequest};
use crate::clock;

/// A throw-away key, PKCS #8 in base64: anybody can sign with it.
const THROWAWAY_KEY: &str = include_str!("throwaway-key.b64");
/// The id of the key in the fake's first set.
pub const THROWAWAY_KEY_ID: &str = "throwaway-1";
/// The validity of a token, in seconds.
const TOKEN_SECONDS: i64 = 3600;

/// What a token says.
#[derive(Debug, Clone)]
pub struct TokenClaims {
    /// Names the key.
    pub key_id: String,
    /// Who issues the token.
    pub issuer: String,
    /// The app.
    pub audience: String,
    /// The claim `serviceurl`.
    pub service_url: String,
    /// When the token was issued. It ends an hour later.
    pub issued_at: Timestamp,
}

impl TokenClaims {
    /// The claims of the bot service of a cloud, now.
    #[must_use]
    pub fn new(cloud: Cloud, app: &str, service_url: &str) -> Self {
        Self {
            key_id: THROWAWAY_KEY_ID.to_owned(),
            issuer: cloud.issuer().to_owned(),
            audience: app.to_owned(),
            service_url: service_url.to_owned(),
            issued_at: clock::now(),
        }
    }

    fn to_json(&self) -> Value {
        let issued_at = self.issued_at.as_second();
        json!({
            "serviceurl": self.service_url, "nbf": issued_at, "exp": issued_at.saturating_add(TOKEN_SECONDS),
            "iss": self.issuer, "aud": self.audience,
        })
    }
}

/// The public part of the throw-away key, as a JWK.
///
/// # Errors
/// Never.
pub fn json_web_key(key_id: &str, endorsements: &[&str]) -> Result<Value, String> {
    let key = key_pair()?;
    let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    Ok(json!({
        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": key_id, "n": encode(&public.n), "e": encode(&public.e),
        "endorsements": endorsements,
    }))
}

fn key_pair() -> Result<RsaKeyPair, String> {
    let text: String = THROWAWAY_KEY.split_whitespace().collect();
    let key = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
    RsaKeyPair::from_pkcs8(&key).map_err(|error| error.to_string())
}

/// A token with any header and claims.
///
/// # Errors
/// Never.
pub fn sign_token(header: &Value, claims: &Value) -> Result<String, String> {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let key = key_pair()?;
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|error| error.to_string())?;
    Ok(format!("{signed}.{}", encode(&signature)))
}

/// A request with any activity, signed for an app of the public cloud. `service_url` is the claim `serviceurl`: peergate takes
/// the activity only if its `serviceUrl` is the same.
///
/// # Errors
/// Never.
pub fn sign_activity(activity: &Value, app: &str, service_url: &str) -> Result<SignedRequest, String> {
    sign_activity_with(activity, &TokenClaims::new(Cloud::Public, app, service_url))
}

/// As [`sign_activity`], with any claims.
///
/// # Errors
/// Never.
pub fn sign_activity_with(activity: &Value, claims: &TokenClaims) -> Result<SignedRequest, String> {
    let header = json!({"alg": "RS256", "kid": claims.key_id, "x5t": claims.key_id, "typ": "JWT"});
    let token = sign_token(&header, &claims.to_json())?;
    Ok(SignedRequest {
        path: format!("/{REALM}"),
        headers: vec![
            ("content-type", "application/json; charset=utf-8".to_owned()),
            ("authorization", format!("Bearer {token}")),
        ],
        body: activity.to_string(),
    })
}

/// Signs a text command as the fake would. Microsoft's own signature cannot be made.
///
/// # Errors
/// When the keys of the configuration are not those of a fake.
pub fn sign(config: &Config, _secrets: &Secrets, spec: &EventSpec, now: Timestamp) -> Result<SignedRequest, String> {
    config.keys.as_ref().filter(|keys| is_loopback(keys)).ok_or(
        "only Microsoft can sign for Teams: this works with `platforms.teams.keys` of `peergate fake teams` alone",
    )?;
    let local = config.service_hosts.iter().find(|host| host.contains(':'));
    let local = local.ok_or("name the address of `peergate fake teams` in `platforms.teams.service_hosts`")?;
    let service_url = format!("http://{local}/teams/");
    let conversation = config.conversations.first().map(String::as_str).unwrap_or_default();
    let activity = json!({
        "type": "message", "id": clock::nonce(), "timestamp": now.to_string(), "serviceUrl": service_url,
        "channelId": CHANNEL_ID, "from": {"id": format!("29:{}", spec.actor), "aadObjectId": spec.actor},
        "conversation": {"id": conversation, "tenantId": config.tenant, "conversationType": "channel", "isGroup": true},
        "recipient": {"id": format!("28:{}", config.app), "name": "peergate"},
        "text": format!("<at>peergate</at> {}", command_text(spec)),
        "entities": [{
            "type": "mention", "text": "<at>peergate</at>",
            "mentioned": {"id": format!("28:{}", config.app), "name": "peergate"},
        }],
        "channelData": {"tenant": {"id": config.tenant}, "channel": {"id": conversation}},
    });
    let claims = TokenClaims { issued_at: now, ..TokenClaims::new(config.cloud, &config.app, &service_url) };
    sign_activity_with(&activity, &claims)
}

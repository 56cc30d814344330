//! Checks identity tokens: the signature against the keys that the issuer publishes, and the claims against the settings
//! of the provider and the role.
//!
//! Source: <https://www.alibabacloud.com/help/en/ram/user-guide/overview-of-oidc-based-sso>

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jiff::{SignedDuration, Timestamp};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::ApiError;

/// The vendor's default.
const MAX_TOKEN_AGE: SignedDuration = SignedDuration::from_hours(12);

/// An identity provider of an account.
#[derive(Debug, Clone)]
pub struct OidcProvider {
    /// `acs:ram::ACCOUNT:oidc-provider/NAME`.
    pub arn: String,
    /// The URL of the issuer. (The vendor takes only https.)
    pub issuer: String,
    /// The allowed audiences.
    pub client_ids: Vec<String>,
    /// The values of the claim `sub` that the roles of the account trust.
    pub subjects: Vec<String>,
}

#[derive(Deserialize)]
struct OidcDiscovery {
    issuer: String,
    jwks_uri: Url,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: String,
    n: String,
    e: String,
}

#[derive(Deserialize)]
struct JwtHeader {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct JwtClaims {
    iss: String,
    sub: String,
    aud: JwtAudience,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JwtAudience {
    One(String),
    Many(Vec<String>),
}

/// Checks a token for a provider.
pub(super) async fn check_token(
    http: &reqwest::Client,
    provider: &OidcProvider,
    token: &str,
    now: Timestamp,
) -> Result<(), ApiError> {
    let refused = |code: &str| ApiError::new(400, &format!("AuthenticationFail.{code}"), "Simulated.");
    let invalid = || refused("OIDCToken.Invalid");
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(invalid());
    };
    let (signed, _) = token.rsplit_once('.').ok_or_else(invalid)?;
    let header: JwtHeader = decode_part(header).ok_or_else(invalid)?;
    let claims: JwtClaims = decode_part(claims).ok_or_else(invalid)?;
    if claims.iss != provider.issuer {
        return Err(refused("OIDCToken.IssuerNotMatch"));
    }
    let broken = || refused("OIDCToken.IssuerConfigurationBroken");
    let discovery = format!("{}/.well-known/openid-configuration", provider.issuer);
    let discovery: OidcDiscovery = fetch_json(http, &discovery).await.ok_or_else(broken)?;
    let keys: JwkSet = fetch_json(http, discovery.jwks_uri.as_str()).await.ok_or_else(broken)?;
    if discovery.issuer != provider.issuer {
        return Err(broken());
    }
    let key = keys.keys.iter().find(|key| key.kid == header.kid && header.alg == "RS256").ok_or_else(invalid)?;
    let bytes = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid());
    let key = RsaPublicKeyComponents { n: bytes(&key.n)?, e: bytes(&key.e)? };
    key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &bytes(signature)?).map_err(|_| invalid())?;
    let audiences = match claims.aud {
        JwtAudience::One(one) => vec![one],
        JwtAudience::Many(many) => many,
    };
    if !audiences.iter().any(|audience| provider.client_ids.contains(audience)) {
        return Err(refused("OIDCToken.AudienceNotMatch"));
    }
    let time = |seconds: i64| Timestamp::from_second(seconds).map_err(|_| invalid());
    if time(claims.exp)? <= now {
        return Err(refused("OIDCToken.Expired"));
    }
    let age = now.duration_since(time(claims.iat)?);
    if age < -SignedDuration::from_mins(1) || age > MAX_TOKEN_AGE {
        return Err(invalid());
    }
    if provider.subjects.contains(&claims.sub) { Ok(()) } else { Err(refused("NoPermission")) }
}

fn decode_part<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

async fn fetch_json<T: DeserializeOwned>(http: &reqwest::Client, url: &str) -> Option<T> {
    let response = http.get(url).send().await.ok()?;
    serde_json::from_slice(&crate::http::read_body(response).await.ok()?).ok()
}

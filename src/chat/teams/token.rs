//! The token of a request: a JWT of the bot service. It says for which bot and from which service a request is, but its
//! signature does not cover the body. Knows neither keys nor activities.
//!
//! Source: <https://learn.microsoft.com/en-us/azure/bot-service/rest-api/bot-framework-rest-connector-authentication>

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Config;
use crate::chat::Unauthentic;
use crate::chat::authenticity::only_header;
use crate::chat::malformed::JsonObject;

const AUTHORIZATION_HEADER: &str = "authorization";
const TOKEN_FORM: &str = "`Bearer`, a space and a JWT of three parts";
/// The longest token, in bytes. Those of the bot service have about 1 KB.
const MAX_TOKEN_BYTES: usize = 8192;
/// The longest id of a key, in bytes. Those of the bot service have 27.
const MAX_KEY_ID_BYTES: usize = 128;
/// The only algorithm. What the token says must agree, and decides nothing.
const ALGORITHM: &str = "RS256";
/// How far the clocks may differ.
///
/// Source: <https://learn.microsoft.com/en-us/azure/bot-service/rest-api/bot-framework-rest-connector-authentication>
pub(super) const LEEWAY: SignedDuration = SignedDuration::from_secs(300);
/// The longest time until the end of a token. Those of the bot service end after an hour, and for as long as a token is
/// valid, the ids of its requests are kept.
const MAX_VALIDITY: SignedDuration = SignedDuration::from_hours(24);

/// A well-formed token. Only a key can verify it.
pub(super) struct UnverifiedToken<'a> {
    /// Names the key.
    pub(super) key_id: String,
    /// What the signature covers.
    pub(super) signed: &'a str,
    /// The signature over `signed`.
    pub(super) signature: Vec<u8>,
    claims: Vec<u8>,
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    /// Names extensions that must be understood. There are none.
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct IncomingClaims {
    iss: Option<String>,
    /// The bot. A list is refused: the token could be meant for others, too.
    aud: Option<String>,
    exp: Option<i64>,
    nbf: Option<i64>,
    serviceurl: Option<String>,
}

/// What a valid token says.
pub(super) struct TokenContent {
    /// From then on, the token is not accepted.
    pub(super) refused_from: Timestamp,
    /// Equal to the `serviceUrl` of the body, apart from slashes at the end.
    pub(super) service_url: String,
}

impl<'a> UnverifiedToken<'a> {
    /// Reads the token from the headers; needs no key. Keys in the token itself are ignored.
    pub(super) fn parse(headers: &'a HeaderMap) -> Result<Self, Unauthentic> {
        let value = only_header(headers, AUTHORIZATION_HEADER)?;
        let malformed = || Unauthentic::malformed(AUTHORIZATION_HEADER, TOKEN_FORM, value);
        let (scheme, token) = value.split_once(' ').ok_or_else(malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MAX_TOKEN_BYTES {
            return Err(malformed());
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let (header, claims) = (decode(header)?, decode(claims)?);
        let TokenHeader { alg, kid, crit } = parse_object(&header).ok_or_else(malformed)?;
        if alg != ALGORITHM {
            return Err(Unauthentic::InvalidToken("its algorithm is not RS256"));
        }
        if crit.is_some() {
            return Err(Unauthentic::InvalidToken("it has extensions that must be understood"));
        }
        let key_id = kid.filter(|kid| (1..=MAX_KEY_ID_BYTES).contains(&kid.len()));
        let key_id = key_id.ok_or(Unauthentic::InvalidToken("it names no key"))?;
        Ok(Self { key_id, signed, signature: decode(signature)?, claims })
    }

    /// Checks the claims. The signature must have been verified.
    pub(super) fn check_claims(&self, config: &Config, now: Timestamp) -> Result<TokenContent, Unauthentic> {
        let refuse = |problem| Err(Unauthentic::InvalidToken(problem));
        let Some(claims) = parse_object::<IncomingClaims>(&self.claims) else {
            return refuse("its claims are malformed");
        };
        if claims.iss.as_deref() != Some(config.cloud.issuer()) {
            return refuse("its issuer is not the bot service of the cloud");
        }
        if claims.aud.as_deref() != Some(config.app.as_str()) {
            return refuse("its audience is not the app");
        }
        let time = |seconds: i64| Timestamp::from_second(seconds).ok();
        let Some(refused_from) = claims.exp.and_then(time).and_then(|end| end.checked_add(LEEWAY).ok()) else {
            return refuse("it has no end");
        };
        if now >= refused_from {
            return refuse("it has expired");
        }
        if refused_from.duration_since(now) > MAX_VALIDITY.saturating_add(LEEWAY) {
            return refuse("its end is more than a day away");
        }
        if let Some(begin) = claims.nbf {
            match time(begin).and_then(|begin| begin.checked_sub(LEEWAY).ok()) {
                Some(begin) if now.as_second() >= begin.as_second() => {}
                Some(_) => return refuse("it is not valid yet"),
                None => return refuse("its claims are malformed"),
            }
        }
        match claims.serviceurl {
            Some(service_url) => Ok(TokenContent { refused_from, service_url }),
            None => refuse("it names no service URL"),
        }
    }
}

fn parse_object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice::<JsonObject<T>>(json).ok().map(|JsonObject(parsed)| parsed)
}

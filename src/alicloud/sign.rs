//! The signatures of Alibaba Cloud's gateway: V3 (`ACS3-HMAC-SHA256`) and V1 (RPC, HMAC-SHA1). Each stage is a pure
//! function from text to text. The time and the nonce are in the headers or parameters.
//!
//! `tests/vectors/alicloud-signing.json` has known answers for each stage.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// How calls to Alibaba Cloud are signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SignatureVersion {
    /// `ACS3-HMAC-SHA256`.
    #[default]
    V3,
    /// RPC with HMAC-SHA1 (`SignatureVersion=1.0`). The vendor's pages also call it signature method V2.
    V1,
}

/// Parameters by name, in byte order of the names, as both signatures require.
pub type Parameters = BTreeMap<String, String>;

/// Percent-encodes UTF-8 as in RFC 3986: all but `A-Z a-z 0-9 - _ . ~`, with upper-case hexadecimal digits.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// `name=value&…`, sorted by name and percent-encoded. It is both a canonical query and a form body.
#[must_use]
pub fn canonical_query(parameters: &Parameters) -> String {
    let pair = |(name, value): (&String, &String)| format!("{}={}", percent_encode(name), percent_encode(value));
    parameters.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn hmac<M: Mac + KeyInit>(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("any length of key");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `ACS3-HMAC-SHA256`.
///
/// Source: <https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature>
pub mod v3 {
    use super::{BTreeMap, Digest, Hmac, Sha256, hmac};

    /// The name of the algorithm in the string to sign and in the header.
    pub const ALGORITHM: &str = "ACS3-HMAC-SHA256";

    /// Headers to sign, by lower-case name.
    pub type Headers = BTreeMap<String, String>;

    /// SHA-256 of a body, in hexadecimal digits: the header `x-acs-content-sha256`.
    #[must_use]
    pub fn body_hash(body: &[u8]) -> String {
        hex::encode(Sha256::digest(body))
    }

    /// First stage.
    #[must_use]
    pub fn canonical_request(method: &str, uri: &str, query: &str, headers: &Headers, body_hash: &str) -> String {
        let line = |(name, value): (&String, &String)| format!("{name}:{}\n", value.trim());
        let canonical_headers: String = headers.iter().map(line).collect();
        format!("{method}\n{uri}\n{query}\n{canonical_headers}\n{}\n{body_hash}", signed_headers(headers))
    }

    /// Second stage.
    #[must_use]
    pub fn string_to_sign(canonical_request: &str) -> String {
        format!("{ALGORITHM}\n{}", hex::encode(Sha256::digest(canonical_request)))
    }

    /// Third stage: lower-case hexadecimal digits.
    #[must_use]
    pub fn signature(access_key_secret: &str, string_to_sign: &str) -> String {
        hex::encode(hmac::<Hmac<Sha256>>(access_key_secret.as_bytes(), string_to_sign))
    }

    /// The header `Authorization`.
    #[must_use]
    pub fn authorization(access_key_id: &str, headers: &Headers, signature: &str) -> String {
        let signed = signed_headers(headers);
        format!("{ALGORITHM} Credential={access_key_id},SignedHeaders={signed},Signature={signature}")
    }

    fn signed_headers(headers: &Headers) -> String {
        headers.keys().map(String::as_str).collect::<Vec<_>>().join(";")
    }
}

/// RPC with HMAC-SHA1, `SignatureVersion=1.0`.
///
/// Source: <https://www.alibabacloud.com/help/en/sdk/product-overview/rpc-mechanism>
pub mod v1 {
    use super::{BASE64_STANDARD, Engine, Hmac, Parameters, Sha1, canonical_query, hmac, percent_encode};

    /// First stage: over all parameters of query and body, without `Signature`.
    #[must_use]
    pub fn string_to_sign(method: &str, parameters: &Parameters) -> String {
        format!("{method}&%2F&{}", percent_encode(&canonical_query(parameters)))
    }

    /// Second stage: the parameter `Signature`, in base64.
    #[must_use]
    pub fn signature(access_key_secret: &str, string_to_sign: &str) -> String {
        BASE64_STANDARD.encode(hmac::<Hmac<Sha1>>(format!("{access_key_secret}&").as_bytes(), string_to_sign))
    }
}

//! Verifies that requests are signed with AWS's Signature Version 4.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use ::http::request::Parts;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{self, SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4;
use hmac::digest::CtOutput;
use jiff::{SignedDuration, Timestamp, civil, tz};
use sha2::Sha256;

use super::TableAnswer;
use crate::aws::AwsEnvironment;
use crate::clock;
use crate::secret::Secret;

const SERVICE: &str = "dynamodb";
const SIGNATURE_BYTES: usize = 32;
/// The largest difference between the clocks of both sides, as at AWS.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(15);

/// The access key that requests to the table must be signed with.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: Secret,
}

impl KeyPair {
    /// A new pair.
    #[must_use]
    pub fn generate() -> Self {
        let access_key_id = format!("peergate-{:.8}", clock::nonce());
        Self { access_key_id, secret_access_key: Secret::new(format!("{}{}", clock::nonce(), clock::nonce())) }
    }

    /// The pair in the environment of the process; `None` if there is none.
    #[must_use]
    pub fn from_process() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "the environment of the local tool, read once")]
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let secret_access_key = Secret::new(variable("AWS_SECRET_ACCESS_KEY")?);
        Some(Self { access_key_id: variable("AWS_ACCESS_KEY_ID")?, secret_access_key })
    }

    /// The pair with which the SDK signs in this environment.
    #[must_use]
    pub fn of(aws: &AwsEnvironment) -> Self {
        let secret_access_key = Secret::new(aws.secret_access_key.clone());
        Self { access_key_id: aws.access_key_id.clone(), secret_access_key }
    }
}

/// Why a request is refused. The texts say nothing that the sender does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsigned {
    Missing,
    Incomplete(&'static str),
    UnknownKey,
    Expired,
    Mismatch,
}

impl Unsigned {
    /// The answer, with a code of AWS.
    ///
    /// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
    pub(super) fn into_answer(self) -> TableAnswer {
        let (code, message) = match self {
            Self::Missing => ("MissingAuthenticationTokenException", "The request is not signed."),
            Self::Incomplete(what) => ("IncompleteSignatureException", what),
            Self::UnknownKey => ("UnrecognizedClientException", "The access key id is not that of this table."),
            Self::Expired => {
                ("InvalidSignatureException", "The date of the signature is more than 15 minutes off, or is malformed.")
            }
            Self::Mismatch => ("InvalidSignatureException", "The signature is not that of this request and key."),
        };
        TableAnswer::refusal(403, code, message)
    }
}

/// The parts of the header `authorization`.
struct Authorization<'a> {
    access_key_id: &'a str,
    /// `YYYYMMDD`.
    day: &'a str,
    region: &'a str,
    signed_headers: Vec<&'a str>,
    signature: [u8; SIGNATURE_BYTES],
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Result<Self, Unsigned> {
        let fields = header.strip_prefix("AWS4-HMAC-SHA256").ok_or(Unsigned::Missing)?;
        let field = |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        let credential = field("Credential").ok_or(Unsigned::Incomplete("Credential is missing."))?;
        let headers = field("SignedHeaders").ok_or(Unsigned::Incomplete("SignedHeaders is missing."))?;
        let signature = field("Signature").ok_or(Unsigned::Incomplete("Signature is missing."))?;
        let scope: Vec<_> = credential.rsplitn(5, '/').collect();
        let ["aws4_request", SERVICE, region, day, access_key_id] = scope.as_slice() else {
            return Err(Unsigned::Incomplete("Credential is not KEY/DAY/REGION/dynamodb/aws4_request."));
        };
        let malformed = Unsigned::Incomplete("Signature is not 64 hexadecimal digits.");
        Ok(Self {
            access_key_id,
            day,
            region,
            signed_headers: headers.split(';').collect(),
            signature: parse_signature(signature).ok_or(malformed)?,
        })
    }
}

/// Checks that the owner of `keys` has signed the whole request within the last 15 minutes.
pub(super) fn verify(parts: &Parts, body: &[u8], keys: &KeyPair, now: Timestamp) -> Result<(), Unsigned> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = Authorization::parse(header("authorization").ok_or(Unsigned::Missing)?)?;
    if authorization.access_key_id != keys.access_key_id {
        return Err(Unsigned::UnknownKey);
    }
    let is_signed = |name: &str| authorization.signed_headers.contains(&name);
    let mut sent = parts.headers.keys().map(::http::HeaderName::as_str);
    if !is_signed("host")
        || !is_signed("x-amz-date")
        || !sent.all(|name| is_signed(name) || !name.starts_with("x-amz-"))
    {
        return Err(Unsigned::Incomplete("The headers host and x-amz-… must be signed."));
    }
    let date = header("x-amz-date").unwrap_or_default();
    let at = parse_date(date).filter(|_| date.starts_with(authorization.day)).ok_or(Unsigned::Expired)?;
    if now.duration_since(at).abs() > MAX_CLOCK_SKEW {
        return Err(Unsigned::Expired);
    }
    let expected = sign(parts, body, keys, &authorization, at).ok_or(Unsigned::Mismatch)?;
    // Compares in constant time.
    let comparable = |signature: [u8; SIGNATURE_BYTES]| CtOutput::<Sha256>::new(signature.into());
    if comparable(expected) == comparable(authorization.signature) { Ok(()) } else { Err(Unsigned::Mismatch) }
}

/// The signature that the request must have.
fn sign(
    parts: &Parts,
    body: &[u8],
    keys: &KeyPair,
    authorization: &Authorization,
    at: Timestamp,
) -> Option<[u8; SIGNATURE_BYTES]> {
    let identity = Credentials::new(&keys.access_key_id, keys.secret_access_key.expose(), None, None, "table").into();
    let mut settings = SigningSettings::default();
    // The sender's list says what is signed.
    settings.excluded_headers = None;
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(authorization.region)
        .name(SERVICE)
        .time(at.into())
        .settings(settings)
        .build()
        .ok()?;
    let host = parts.headers.get("host")?.to_str().ok()?;
    let url = format!("http://{host}{}", parts.uri.path_and_query().map_or("/", |path| path.as_str()));
    let mut headers = vec![];
    for name in &authorization.signed_headers {
        let mut values = parts.headers.get_all(*name).iter().peekable();
        values.peek()?;
        for value in values {
            headers.push((*name, value.to_str().ok()?));
        }
    }
    let request =
        SignableRequest::new(parts.method.as_str(), url, headers.into_iter(), SignableBody::Bytes(body)).ok()?;
    let (_, signature) = http_request::sign(request, &parameters.into()).ok()?.into_parts();
    parse_signature(&signature)
}

fn parse_signature(digits: &str) -> Option<[u8; SIGNATURE_BYTES]> {
    hex::decode(digits).ok()?.try_into().ok()
}

/// Parses a date such as `20261126T070000Z`.
fn parse_date(text: &str) -> Option<Timestamp> {
    let date = civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    date.to_zoned(tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

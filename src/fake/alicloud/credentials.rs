//! Authenticates calls: access keys, temporary credentials, signatures of both versions, timestamps and nonces.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::gateway_request::GatewayRequest;
use super::{ApiError, SimulatedAccount, format_time, require_parameter, routing};
use crate::alicloud::sign;
use crate::clock;
use crate::peering::AccountId;

/// The largest difference between the caller's clock and ours.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(15);

/// All keys, and the nonces of all calls.
#[derive(Debug)]
pub(super) struct KeyRegistry {
    accounts: Vec<SimulatedAccount>,
    /// By access key id.
    sessions: HashMap<String, IssuedSession>,
    nonces: HashSet<String>,
}

/// The credentials of a session.
#[derive(Debug, Clone)]
pub struct TemporaryCredentials {
    /// `STS.…`.
    pub access_key_id: String,
    /// The key of the signature.
    pub access_key_secret: String,
    /// Must be sent with each call.
    pub security_token: String,
}

/// A session of a role.
#[derive(Debug)]
struct IssuedSession {
    credentials: TemporaryCredentials,
    account: AccountId,
    expires_at: Timestamp,
    name: String,
}

/// The account and the secret of a key.
struct KnownKey {
    account: AccountId,
    secret: String,
}

/// The parts of a call that its signature covers, as the caller sent them.
struct SignedParts<'a> {
    /// Whether the signature is that of `string_to_sign`.
    is_match: bool,
    string_to_sign: &'a str,
    date: &'a str,
    nonce: &'a str,
}

impl KeyRegistry {
    pub(super) fn new(accounts: Vec<SimulatedAccount>) -> Self {
        Self { accounts, sessions: HashMap::new(), nonces: HashSet::new() }
    }

    /// Issues temporary credentials; `None` for an unknown account.
    pub(super) fn create_session(
        &mut self,
        account: AccountId,
        name: &str,
        expires_at: Timestamp,
    ) -> Option<TemporaryCredentials> {
        if !self.accounts.iter().any(|known| known.account == account) {
            return None;
        }
        let credentials = TemporaryCredentials {
            access_key_id: format!("STS.{}", clock::nonce()),
            access_key_secret: format!("session-secret-{}", clock::nonce()),
            security_token: format!("session-token-{}", clock::nonce()),
        };
        let session = IssuedSession { credentials: credentials.clone(), account, expires_at, name: name.to_owned() };
        self.sessions.insert(credentials.access_key_id.clone(), session);
        Some(credentials)
    }

    /// The name of the session of a key; `None` if it is no key of a session.
    pub(super) fn session_name(&self, key: &str) -> Option<String> {
        self.sessions.get(key).map(|session| session.name.clone())
    }

    /// Ends all sessions.
    pub(super) fn forget_sessions(&mut self) {
        self.sessions.clear();
    }

    /// The account that signed the call. Everything that the vendor's pages require is required here, too, so that a call
    /// that passes here also passes there.
    pub(super) fn authenticate(&mut self, call: &GatewayRequest, now: Timestamp) -> Result<AccountId, ApiError> {
        if call.header("authorization").is_some() {
            self.authenticate_v3(call, now)
        } else {
            self.authenticate_v1(call, now)
        }
    }

    fn authenticate_v3(&mut self, call: &GatewayRequest, now: Timestamp) -> Result<AccountId, ApiError> {
        let header = |name: &str| {
            let missing = || ApiError::new(400, "MissingParameter", &format!("{name} is mandatory for this action."));
            call.header(name).map(ToOwned::to_owned).ok_or_else(missing)
        };
        let incomplete =
            || ApiError::new(400, "IncompleteSignature", "The request signature does not conform to standards.");
        let authorization = header("authorization")?;
        let fields = authorization.strip_prefix("ACS3-HMAC-SHA256 ").ok_or_else(incomplete)?;
        let fields: BTreeMap<_, _> = fields.split(',').filter_map(|field| field.split_once('=')).collect();
        let field = |name: &str| fields.get(name).copied().ok_or_else(incomplete);
        let (key, signed, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
        let mut headers = sign::v3::Headers::new();
        for name in signed.split(';') {
            headers.insert(name.to_owned(), header(name)?);
        }
        let required =
            ["host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"];
        let sent = call.headers.keys().map(axum::http::HeaderName::as_str);
        let mut covered = sent.filter(|name| name.starts_with("x-acs-") || *name == "content-type");
        if required.iter().any(|name| !headers.contains_key(*name)) || covered.any(|name| !headers.contains_key(name)) {
            return Err(incomplete());
        }
        check_version(&header("x-acs-version")?, &header("x-acs-action")?)?;
        let body_hash = sign::v3::body_hash(&call.body);
        let query = sign::canonical_query(&call.query);
        let canonical = sign::v3::canonical_request(&call.method, "/", &query, &headers, &body_hash);
        let string_to_sign = sign::v3::string_to_sign(&canonical);
        let token = call.header("x-acs-security-token");
        let known = self.find_key(key, token, now)?;
        let is_match = header("x-acs-content-sha256")? == body_hash
            && sign::v3::signature(&known.secret, &string_to_sign) == signature;
        let (date, nonce) = (header("x-acs-date")?, header("x-acs-signature-nonce")?);
        let parts = SignedParts { is_match, string_to_sign: &string_to_sign, date: &date, nonce: &nonce };
        self.check_signature(&parts, now)?;
        Ok(known.account)
    }

    fn authenticate_v1(&mut self, call: &GatewayRequest, now: Timestamp) -> Result<AccountId, ApiError> {
        let mut parameters = call.merged_parameters();
        let signature = parameters
            .remove("Signature")
            .ok_or_else(|| ApiError::new(400, "MissingSignature", "Signature is mandatory for this action."))?;
        check_version(&require_parameter(&parameters, "Version")?, &require_parameter(&parameters, "Action")?)?;
        let method =
            (require_parameter(&parameters, "SignatureMethod")?, require_parameter(&parameters, "SignatureVersion")?);
        if method != ("HMAC-SHA1".to_owned(), "1.0".to_owned()) {
            let message = "The request signature does not conform to standards.";
            return Err(ApiError::new(400, "IncompleteSignature", message));
        }
        let key = require_parameter(&parameters, "AccessKeyId")?;
        let string_to_sign = sign::v1::string_to_sign(&call.method, &parameters);
        let known = self.find_key(&key, parameters.get("SecurityToken").map(String::as_str), now)?;
        let is_match = sign::v1::signature(&known.secret, &string_to_sign) == signature;
        let (date, nonce) =
            (require_parameter(&parameters, "Timestamp")?, require_parameter(&parameters, "SignatureNonce")?);
        let parts = SignedParts { is_match, string_to_sign: &string_to_sign, date: &date, nonce: &nonce };
        self.check_signature(&parts, now)?;
        Ok(known.account)
    }

    fn find_key(&self, key: &str, token: Option<&str>, now: Timestamp) -> Result<KnownKey, ApiError> {
        if let Some(session) = self.sessions.get(key) {
            if token != Some(session.credentials.security_token.as_str()) {
                return Err(ApiError::new(
                    400,
                    "InvalidSecurityToken.MismatchWithAccessKey",
                    "Specified SecurityToken mismatch with the AccessKey.",
                ));
            }
            if now >= session.expires_at {
                return Err(ApiError::new(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired."));
            }
            let secret = session.credentials.access_key_secret.clone();
            return Ok(KnownKey { account: session.account, secret });
        }
        let account = self.accounts.iter().find(|account| account.access_key_id == key);
        let unknown = || ApiError::new(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.");
        let account = account.ok_or_else(unknown)?;
        if token.is_some() {
            let message = "Specified SecurityToken mismatch with the AccessKey.";
            return Err(ApiError::new(400, "InvalidSecurityToken.MismatchWithAccessKey", message));
        }
        Ok(KnownKey { account: account.account, secret: account.access_key_secret.clone() })
    }

    fn check_signature(&mut self, parts: &SignedParts<'_>, now: Timestamp) -> Result<(), ApiError> {
        let SignedParts { is_match, string_to_sign, date, nonce } = *parts;
        let parsed = date.parse::<Timestamp>().ok().filter(|parsed| format_time(*parsed) == date);
        let malformed = "Specified time stamp or date value is not well formatted.";
        let date = parsed.ok_or_else(|| ApiError::new(400, "InvalidTimeStamp.Format", malformed))?;
        if now.duration_since(date).abs() > MAX_CLOCK_SKEW {
            return Err(ApiError::new(
                400,
                "InvalidTimeStamp.Expired",
                "Specified time stamp or date value is expired.",
            ));
        }
        if !is_match {
            let message = format!(
                "Specified signature is not matched with our calculation. server string to sign is:{string_to_sign}"
            );
            return Err(ApiError::new(400, "SignatureDoesNotMatch", &message));
        }
        if !self.nonces.insert(nonce.to_owned()) {
            return Err(ApiError::new(400, "SignatureNonceUsed", "Specified signature nonce was used already."));
        }
        Ok(())
    }
}

fn check_version(version: &str, action: &str) -> Result<(), ApiError> {
    let expected = match action {
        "AssumeRole" | "GetCallerIdentity" => "2015-04-01",
        _ if routing::OPERATIONS.contains(&action) => "2016-04-28",
        _ => "2022-01-01",
    };
    if version == expected {
        Ok(())
    } else {
        Err(ApiError::new(400, "InvalidVersion", "Specified parameter Version is not valid."))
    }
}

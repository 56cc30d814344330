//! Who decided what, and the client token that carries it out.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::peering::{AccountId, FieldHash, Fingerprint, InstanceId, SeenFingerprint};

/// What somebody wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Accept the connection.
    Approve,
    /// Refuse it.
    Reject,
}

impl Verdict {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }

    /// The operation that carries it out.
    #[must_use]
    pub fn operation(self) -> &'static str {
        match self {
            Self::Approve => "AcceptVpcPeerConnection",
            Self::Reject => "RejectVpcPeerConnection",
        }
    }
}

/// What somebody decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What.
    pub verdict: Verdict,
    /// Who.
    pub by: Approver,
    /// When.
    pub at: Timestamp,
    /// Of what they saw: the facts that the decision is about.
    pub fingerprint: Fingerprint,
    /// Why, in their words: untrusted.
    pub reason: Option<String>,
    /// Names the request that carried it, so that a replay of that request is known.
    pub request_key: String,
    /// Of what that request said; see [`request_content`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_content: Option<String>,
}

/// A hash of what a request says about a connection: the same request has the same, whatever its signature or time.
#[must_use]
pub fn hash_request(action: &str, by: &Principal, reason: Option<&str>, seen: Option<&SeenFingerprint>) -> String {
    let mut hash = FieldHash::new("peergate/request/1");
    hash.add_field(action);
    hash.add_field(by.as_str());
    for part in [reason.map(ToOwned::to_owned), seen.map(|seen| seen.as_str().to_owned())] {
        hash.add_field(if part.is_some() { "given" } else { "none" });
        hash.add_field(&part.unwrap_or_default());
    }
    format!("{:.32}", hash.into_hex())
}

/// Who decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approver {
    /// The authenticated identity.
    pub principal: Principal,
    /// The person of the configuration that it belongs to, if any.
    pub person: Option<String>,
}

impl Approver {
    /// Peergate itself: it asks for dry runs, and accepts for rules that need nobody. No sender can be it.
    #[must_use]
    pub fn peergate(target: &str) -> Self {
        // Names of targets are checked, and stricter than a principal's parts.
        Self { principal: Principal(format!("peergate:{target}/rule")), person: None }
    }

    /// Whether both are the same person.
    #[must_use]
    pub fn is_same_person(&self, other: &Self) -> bool {
        self.principal == other.principal || (self.person.is_some() && self.person == other.person)
    }
}

/// An authenticated identity, `platform:tenant/user`, e.g. `slack:T0001/U061F7AUR`. The user id is the platform's
/// immutable one, never a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Principal(String);

/// The parts do not make a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a principal: expected `platform:tenant/user`, each of 1 to 128 letters, digits and `-_.@+`")]
pub struct InvalidPrincipal;

impl Principal {
    /// Joins the parts; refuses characters that could make two principals look alike.
    pub fn new(platform: &str, tenant: &str, user: &str) -> Result<Self, InvalidPrincipal> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
        let valid = |part: &str| (1..=128).contains(&part.len()) && part.bytes().all(plain);
        if [platform, tenant, user].into_iter().all(valid) {
            Ok(Self(format!("{platform}:{tenant}/{user}")))
        } else {
            Err(InvalidPrincipal)
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The platform and the tenant, as `platform:tenant`.
    #[must_use]
    pub fn realm(&self) -> &str {
        self.0.split_once('/').map_or("", |(realm, _)| realm)
    }

    /// Whether both are one user of a platform, whatever tenant is named: an organization's users are the same in all its
    /// workspaces, and records keep what was named at the time.
    #[must_use]
    pub fn is_same_user(&self, other: &Self) -> bool {
        let platform = |principal: &Self| principal.realm().split(':').next().map(ToOwned::to_owned);
        self == other || (platform(self) == platform(other) && self.user() == other.user())
    }

    /// The platform's id of the user.
    #[must_use]
    pub fn user(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, user)| user)
    }

    /// The same user in another tenant; `realm` is `platform:tenant`.
    pub fn with_realm(&self, realm: &str) -> Result<Self, InvalidPrincipal> {
        Self::try_from(format!("{realm}/{}", self.user()))
    }
}

impl TryFrom<String> for Principal {
    type Error = InvalidPrincipal;

    fn try_from(text: String) -> Result<Self, InvalidPrincipal> {
        let (platform, rest) = text.split_once(':').ok_or(InvalidPrincipal)?;
        let (tenant, user) = rest.split_once('/').ok_or(InvalidPrincipal)?;
        Self::new(platform, tenant, user)
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `ClientToken` of a call, 64 ASCII characters: a retry of the same approval is the same request to Alibaba Cloud,
/// and no two approvals share one.
///
/// Source: <https://www.alibabacloud.com/help/en/ecs/developer-reference/how-to-ensure-idempotence>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientToken(String);

/// What a client token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPurpose<'a> {
    /// Carrying out the decision of a generation: every try has the same token.
    Decided {
        /// Of the approval.
        generation: u32,
    },
    /// A dry run: each request has its own, or the vendor would repeat an old verdict.
    DryRun {
        /// Of the request that asked for it.
        request_key: &'a str,
    },
}

impl ClientToken {
    /// Derives it from the caller and what the call is to do. A dry run has its own: the same token with other
    /// parameters is `IdempotentParameterMismatch`.
    #[must_use]
    pub fn derive(
        caller: &Principal,
        account: AccountId,
        instance_id: &InstanceId,
        verdict: Verdict,
        purpose: TokenPurpose<'_>,
    ) -> Self {
        let mut hash = FieldHash::new("peergate/client-token/1");
        hash.add_field(caller.as_str());
        hash.add_field(&account.to_string());
        hash.add_field(instance_id.as_str());
        hash.add_field(verdict.operation());
        match purpose {
            TokenPurpose::Decided { generation } => hash.add_field(&generation.to_string()),
            TokenPurpose::DryRun { request_key } => {
                hash.add_field("dry-run");
                hash.add_field(request_key);
            }
        }
        Self(format!("pg1-{:.60}", hash.into_hex()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

//! Who decided what, and the client token of the call that carries it out.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::from_text::from_text;
use crate::peering::{AccountId, FieldHash, Fingerprint, InstanceId, SeenFingerprint};

/// What a decision asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Accept the connection.
    Approve,
    /// Reject the connection.
    Reject,
}

impl Verdict {
    /// Name in metrics and in request hashes, e.g. `approve`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }

    /// The API operation that carries the verdict out.
    #[must_use]
    pub fn operation(self) -> &'static str {
        match self {
            Self::Approve => "AcceptVpcPeerConnection",
            Self::Reject => "RejectVpcPeerConnection",
        }
    }
}

/// One person's decision about a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct Decision {
    /// Whether to accept or to reject.
    pub verdict: Verdict,
    /// Who decided.
    pub by: Approver,
    /// When the request that carried the decision arrived. For a decision by a rule, when the rule was applied.
    pub at: Timestamp,
    /// Fingerprint of the facts that the decision is about.
    pub fingerprint: Fingerprint,
    /// The person's own words, untrusted. `None` without a reason.
    pub reason: Option<String>,
    /// Id of the request that carried the decision. It identifies a replay.
    pub request_key: String,
    /// Hash of that request's content, see [`hash_request`]. `None` in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_content: Option<String>,
}

/// Hashes the content of a request about a connection, into 32 hexadecimal digits. The signature and the time are left
/// out, so that a repeated request has the same hash.
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

/// Who made a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct Approver {
    /// The authenticated identity.
    pub principal: Principal,
    /// Key of the configured person who owns the identity. `None` if no person does.
    pub person: Option<String>,
    /// Display name of the person. It identifies nobody. `None` if the configuration has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Approver {
    /// peergate itself, which asks for dry runs and accepts for rules that require nobody. No sender can have this
    /// identity.
    #[must_use]
    pub fn peergate(target: &str) -> Self {
        // The rules for target names are stricter than those for the parts of a principal.
        Self { principal: Principal(format!("peergate:{target}/rule")), person: None, name: None }
    }

    /// How a rule's list of approvers names them: by the key of the person, else by the identity.
    #[must_use]
    pub fn key(&self) -> &str {
        self.person.as_deref().unwrap_or(self.principal.as_str())
    }

    /// Whether both are the same person, maybe with different identities.
    #[must_use]
    pub fn is_same_person(&self, other: &Self) -> bool {
        self.principal == other.principal || (self.person.is_some() && self.person == other.person)
    }
}

/// An authenticated identity, `platform:tenant/user`, e.g. `slack:T0001/U061F7AUR`. The user part is the platform's
/// immutable id, never a display name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = "^[-A-Za-z0-9_.@+]{1,128}:[-A-Za-z0-9_.@+]{1,128}/[-A-Za-z0-9_.@+]{1,128}$")))]
#[serde(into = "String")]
pub struct Principal(String);

from_text!(Principal);

/// The parts do not make a valid principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a principal: expected `platform:tenant/user`, each of 1 to 128 letters, digits and `-_.@+`")]
pub struct InvalidPrincipal;

impl Principal {
    /// Joins the parts. Refuses characters that could make two principals look alike.
    pub fn new(platform: &str, tenant: &str, user: &str) -> Result<Self, InvalidPrincipal> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
        let valid = |part: &str| (1..=128).contains(&part.len()) && part.bytes().all(plain);
        if [platform, tenant, user].into_iter().all(valid) {
            Ok(Self(format!("{platform}:{tenant}/{user}")))
        } else {
            Err(InvalidPrincipal)
        }
    }

    /// The principal as `platform:tenant/user`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The platform and the tenant, as `platform:tenant`.
    #[must_use]
    pub fn realm(&self) -> &str {
        self.0.split_once('/').map_or("", |(realm, _)| realm)
    }

    /// Whether both are the same user of one platform, in any tenant. An organization's users are the same in all its
    /// workspaces, but a record keeps the workspace that the request named.
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

    /// The platform's id of the user, if it is this platform.
    #[must_use]
    pub fn user_on(&self, platform: &str) -> Option<&str> {
        let is_there = self.realm().split(':').next() == Some(platform);
        is_there.then(|| self.user())
    }

    /// The same user in another tenant. `realm` is `platform:tenant`.
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

/// The `ClientToken` of a call: 64 ASCII characters. A retry of the same approval has the same token, so that Alibaba
/// Cloud treats it as the same request. No two approvals share a token.
///
/// Source: <https://www.alibabacloud.com/help/en/ecs/developer-reference/how-to-ensure-idempotence>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientToken(String);

/// Purpose of a client token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPurpose<'a> {
    /// Carries out the decision of a generation. Every attempt has the same token.
    Decided {
        /// Generation of the approval.
        generation: u32,
    },
    /// A dry run. Each request has its own token, because Alibaba Cloud would repeat an old verdict for a known token.
    DryRun {
        /// Id of the request that asks for the dry run.
        request_key: &'a str,
    },
}

impl ClientToken {
    /// Derives the token from the caller, the connection, the verdict and the purpose. A dry run has its own token: a
    /// known token with other parameters fails with `IdempotentParameterMismatch`.
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

    /// The token as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

//! A target: an accepting account, where its API is, and how peergate gets credentials for it.

use std::collections::BTreeSet;

use serde::Deserialize;
use url::Url;

use crate::alicloud::sign::SignatureVersion;
use crate::http::{check_endpoint, constant_url};
use crate::peering::AccountId;
use crate::redaction::{KeyProblem, redact};

/// An accepting account.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The account whose VPCs others request a peering with.
    pub account: AccountId,
    /// The regions in which the watcher finds requests, e.g. `cn-shanghai`. If it is empty, the watcher finds none.
    pub regions: BTreeSet<String>,
    /// The URL of the VPC peering API.
    #[serde(default = "default_endpoint")]
    pub endpoint: Url,
    /// The URL of the Security Token Service, which issues sessions of roles.
    #[serde(default = "default_sts_endpoint")]
    pub sts_endpoint: Url,
    /// How peergate gets credentials.
    #[serde(default)]
    pub credentials: CredentialsKind,
    /// How calls are signed.
    #[serde(default)]
    pub signature: SignatureVersion,
    /// Whether to read our own VPCs and their route tables. The credentials need the permission for that.
    #[serde(default)]
    pub read_vpcs: bool,
    /// The URL of the VPC API in every region. By default it is the vendor's, which differs between regions.
    pub vpc_endpoint: Option<Url>,
    /// The most calls of each operation that a process makes in 60 s.
    #[serde(default = "default_calls_per_minute")]
    pub calls_per_minute: u32,
}

/// How peergate gets credentials for Alibaba Cloud.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum CredentialsKind {
    /// With an access key of the secrets.
    AccessKey {},
    /// As a role, which is assumed with an access key of the secrets.
    AssumeRole {
        /// `acs:ram::ACCOUNT:role/NAME`.
        role: String,
        /// The external id that the trust policy of the role requires, if it requires one.
        external_id: Option<String>,
        /// The name under `targets` in the secrets that has the access key. Default: the name of the target.
        key_of: Option<String>,
    },
    /// As a role, which is assumed with an identity token of AWS. Nothing secret is stored.
    Oidc {
        /// `acs:ram::ACCOUNT:role/NAME`.
        role: String,
        /// `acs:ram::ACCOUNT:oidc-provider/NAME`.
        provider: String,
    },
}

impl Default for CredentialsKind {
    fn default() -> Self {
        Self::AccessKey {}
    }
}

impl CredentialsKind {
    /// The name under `targets` in the secrets that has the access key; `None` if no key is needed.
    #[must_use]
    pub fn key_holder<'a>(&'a self, target: &'a str) -> Option<&'a str> {
        match self {
            Self::AccessKey {} => Some(target),
            Self::AssumeRole { key_of, .. } => Some(key_of.as_deref().unwrap_or(target)),
            Self::Oidc { .. } => None,
        }
    }

    /// Whether calls are made in the session of a role.
    #[must_use]
    pub fn needs_session(&self) -> bool {
        match self {
            Self::AccessKey {} => false,
            Self::AssumeRole { .. } | Self::Oidc { .. } => true,
        }
    }
}

impl Target {
    /// Checks the target under `key`, e.g. `targets.prod`.
    pub(super) fn validate(&self, key: &str) -> Result<(), KeyProblem> {
        check_endpoint(&format!("{key}.endpoint"), &self.endpoint)?;
        check_endpoint(&format!("{key}.sts_endpoint"), &self.sts_endpoint)?;
        if let Some(url) = &self.vpc_endpoint {
            check_endpoint(&format!("{key}.vpc_endpoint"), url)?;
        }
        self.check_credentials(&format!("{key}.credentials"))?;
        if self.calls_per_minute == 0 {
            return KeyProblem::err_at(format!("{key}.calls_per_minute"), "must be at least 1");
        }
        match self.regions.iter().find(|region| !is_region(region)) {
            Some(region) => {
                KeyProblem::err_at(format!("{key}.regions"), format!("{:?} is not a region id", redact(region)))
            }
            None => Ok(()),
        }
    }

    /// Checks that a role belongs to the account: a role of another account would accept for that account.
    fn check_credentials(&self, key: &str) -> Result<(), KeyProblem> {
        let is_in_account = |arn: &str, kind: &str| {
            let name = arn.strip_prefix(&format!("acs:ram::{}:{kind}/", self.account));
            name.is_some_and(|name| {
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            })
        };
        let (role, provider, external_id) = match &self.credentials {
            CredentialsKind::AccessKey {} => return Ok(()),
            CredentialsKind::AssumeRole { role, external_id, .. } => (role, None, external_id.as_deref()),
            CredentialsKind::Oidc { role, provider } => (role, Some(provider), None),
        };
        let expected = |kind: &str| format!("expected acs:ram::{}:{kind}/NAME", self.account);
        if !is_in_account(role, "role") {
            return KeyProblem::err_at(format!("{key}.role"), expected("role"));
        }
        if provider.is_some_and(|provider| !is_in_account(provider, "oidc-provider")) {
            return KeyProblem::err_at(format!("{key}.provider"), expected("oidc-provider"));
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
        if external_id.is_some_and(|id| !(2..=1224).contains(&id.len()) || !id.bytes().all(is_allowed)) {
            let problem = "must have 2 to 1224 letters, digits and `_+=,.@:/-`";
            return KeyProblem::err_at(format!("{key}.external_id"), problem);
        }
        Ok(())
    }
}

/// Whether the text can be a region id, which is sent to the API and is part of the console's URLs.
#[must_use]
pub fn is_region(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=40).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-endpoint>
fn default_endpoint() -> Url {
    constant_url("https://vpcpeer.aliyuncs.com/")
}

/// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-endpoint>
fn default_sts_endpoint() -> Url {
    constant_url("https://sts.aliyuncs.com/")
}

/// The vendor allows 360, which all users of the account share.
///
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/throttling>
fn default_calls_per_minute() -> u32 {
    300
}

//! The Security Token Service (version 2015-04-01): temporary credentials of a role, and whose credentials some are.
//!
//! Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-overview>

use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use super::rpc::Rpc;
use super::sign::SignatureVersion;
use super::{Credentials, Error};
use crate::peering::AccountId;

const VERSION: &str = "2015-04-01";

/// The service at one address.
#[derive(Debug, Clone)]
pub struct Sts {
    rpc: Rpc,
}

/// Temporary credentials. Has no `Debug`: two of its fields are secret.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Session {
    /// `STS.…`.
    pub access_key_id: String,
    /// Signs.
    pub access_key_secret: String,
    /// Goes with each call.
    pub security_token: String,
    /// When they end.
    #[serde(rename = "Expiration")]
    pub expires_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assumed {
    credentials: Session,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Caller {
    account_id: String,
}

impl Sts {
    /// The service at `endpoint`.
    #[must_use]
    pub fn new(http: reqwest::Client, endpoint: Url, signature: SignatureVersion) -> Self {
        Self { rpc: Rpc { http, endpoint, signature, version: VERSION } }
    }

    /// Assumes a role, for an hour, in a session of this name.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerole>
    pub async fn assume_role(
        &self,
        credentials: Credentials<'_>,
        role: &str,
        session: &str,
        external_id: Option<&str>,
    ) -> Result<Session, Error> {
        let mut parameters = vec![("RoleArn", role), ("RoleSessionName", session)];
        parameters.extend(external_id.map(|id| ("ExternalId", id)));
        let assumed: Assumed = self.rpc.call("AssumeRole", &parameters, Some(credentials)).await?;
        Ok(assumed.credentials)
    }

    /// Assumes a role with an identity token that the OIDC provider of that ARN has issued, and with nothing else.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerolewithoidc>
    pub async fn assume_role_with_oidc(
        &self,
        provider: &str,
        token: &str,
        role: &str,
        session: &str,
    ) -> Result<Session, Error> {
        let parameters =
            [("OIDCProviderArn", provider), ("OIDCToken", token), ("RoleArn", role), ("RoleSessionName", session)];
        let assumed: Assumed = self.rpc.call("AssumeRoleWithOIDC", &parameters, None).await?;
        Ok(assumed.credentials)
    }

    /// Whose credentials these are.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-getcalleridentity>
    pub async fn caller(&self, credentials: Credentials<'_>) -> Result<AccountId, Error> {
        let caller: Caller = self.rpc.call("GetCallerIdentity", &[], Some(credentials)).await?;
        AccountId::try_from(caller.account_id).map_err(|_| Error::Unreadable { http_status: 200 })
    }
}

//! The Security Token Service (STS, version 2015-04-01). It issues temporary credentials for a role, and finds the account
//! of given credentials.
//!
//! Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-overview>

use jiff::Timestamp;
use url::Url;

use super::json::{self, JsonFields};
use super::rpc::{ParameterPlace, Rpc, RpcCall, RpcResponse};
use super::sign::SignatureVersion;
use super::{Credentials, Error, wire};
use crate::http::Clients;
use crate::peering::AccountId;

const STS_VERSION: &str = "2015-04-01";

/// The service: its URL, and how calls are signed.
#[derive(Debug, Clone)]
pub struct Sts {
    rpc: Rpc,
}

/// Temporary credentials. They have no `Debug`, because two of the fields are secret.
#[derive(Clone)]
pub struct StsSession {
    /// `STS.…`.
    pub access_key_id: String,
    /// The key of the signature.
    pub access_key_secret: String,
    /// Must be sent with each call.
    pub security_token: String,
    /// When the credentials become invalid.
    pub expires_at: Timestamp,
}

impl StsSession {
    fn from_response(response: &RpcResponse) -> Result<Self, Error> {
        let read = || {
            let fields = JsonFields::parse(response.fields.get("Credentials").first()?)?;
            let text = |name| fields.get(name).first().and_then(json::parse_text).filter(|text| !text.is_empty());
            Some(Self {
                access_key_id: text("AccessKeyId")?,
                access_key_secret: text("AccessKeySecret")?,
                security_token: text("SecurityToken")?,
                expires_at: fields.get("Expiration").first().and_then(wire::parse_time)?,
            })
        };
        read().ok_or(UNREADABLE_RESPONSE)
    }
}

const UNREADABLE_RESPONSE: Error = Error::Unreadable { http_status: 200 };

impl Sts {
    /// The service at `endpoint`.
    #[must_use]
    pub fn new(clients: impl Into<Clients>, endpoint: Url, signature: SignatureVersion) -> Self {
        Self {
            rpc: Rpc {
                clients: clients.into(),
                endpoint,
                signature,
                version: STS_VERSION,
                place: ParameterPlace::Body,
            },
        }
    }

    /// Assumes a role for an hour. Alibaba Cloud's audit trail shows the name of the session.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerole>
    pub async fn assume_role(
        &self,
        credentials: Credentials<'_>,
        role: &str,
        session: &str,
        external_id: Option<&str>,
    ) -> Result<StsSession, Error> {
        let mut parameters = vec![("RoleArn", role), ("RoleSessionName", session)];
        parameters.extend(external_id.map(|id| ("ExternalId", id)));
        let call = RpcCall { action: "AssumeRole", parameters: &parameters, credentials: Some(credentials) };
        StsSession::from_response(&self.rpc.send_call(call).await?)
    }

    /// Assumes a role with an identity token and no access key. `provider` is the ARN of the OIDC provider for the token.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerolewithoidc>
    pub async fn assume_role_with_oidc(
        &self,
        provider: &str,
        token: &str,
        role: &str,
        session: &str,
    ) -> Result<StsSession, Error> {
        let parameters =
            [("OIDCProviderArn", provider), ("OIDCToken", token), ("RoleArn", role), ("RoleSessionName", session)];
        let call = RpcCall { action: "AssumeRoleWithOIDC", parameters: &parameters, credentials: None };
        StsSession::from_response(&self.rpc.send_call(call).await?)
    }

    /// The account that the credentials belong to.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-getcalleridentity>
    pub async fn caller_account(&self, credentials: Credentials<'_>) -> Result<AccountId, Error> {
        let call = RpcCall { action: "GetCallerIdentity", parameters: &[], credentials: Some(credentials) };
        let response = self.rpc.send_call(call).await?;
        let account = response.fields.get("AccountId").first().and_then(json::parse_whole_number);
        account.and_then(|account| u64::try_from(account).ok()).map(AccountId).ok_or(UNREADABLE_RESPONSE)
    }
}

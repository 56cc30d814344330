//! The simulated Security Token Service: assumes roles, with an access key or with an identity token.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::gateway::{Simulator, SimulatorState};
use super::{ApiError, ApiResult, OperationResult, format_time, integer_parameter, oidc, require_parameter};
use crate::alicloud::sign::Parameters;
use crate::peering::AccountId;
use crate::{clock, http};

impl Simulator {
    /// The call is unsigned: the caller has nothing but the token.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerolewithoidc>
    pub(super) async fn assume_role_with_oidc(&self, call: &Parameters) -> ApiResult {
        let fault = self.lock().faults.take("AssumeRoleWithOIDC", AccountId(0), false);
        if let Some((code, fault)) = fault.as_ref().and_then(|fault| Some((fault.code.as_ref()?, fault))) {
            return Err(ApiError::new(fault.http_status, code, "Simulated."));
        }
        let (arn, token) = (require_parameter(call, "OIDCProviderArn")?, require_parameter(call, "OIDCToken")?);
        let provider = self.lock().api.settings.providers.iter().find(|provider| provider.arn == arn).cloned();
        let unknown = || ApiError::new(400, "AuthenticationFail.NoPermission", "No such OIDC Provider registered.");
        let provider = provider.ok_or_else(unknown)?;
        let http = http::new_client().map_err(|_| ApiError::new(500, "InternalError", "Simulated."))?;
        oidc::check_token(&http, &provider, &token, clock::now()).await?;
        self.lock().assume_role(call, clock::now())
    }
}

impl SimulatorState {
    /// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerole>
    pub(super) fn assume_role_with_key(&mut self, call: &Parameters, now: Timestamp) -> OperationResult {
        let required = call.get("RoleArn").and_then(|arn| self.api.settings.external_ids.get(arn));
        if required.is_some_and(|id| call.get("ExternalId") != Some(id)) {
            let error = ApiError::new(403, "NoPermission", "You are not authorized to do this action.");
            return OperationResult::without_effect(Err(error));
        }
        OperationResult::without_effect(self.assume_role(call, now))
    }

    fn assume_role(&mut self, call: &Parameters, now: Timestamp) -> ApiResult {
        let arn = require_parameter(call, "RoleArn")?;
        let session = require_parameter(call, "RoleSessionName")?;
        let no_role = || ApiError::new(404, "EntityNotExist.Role", "The role not exists.");
        let (account, name) =
            arn.strip_prefix("acs:ram::").and_then(|rest| rest.split_once(":role/")).ok_or_else(no_role)?;
        let account = AccountId::try_from(account.to_owned()).map_err(|_| no_role())?;
        let seconds = integer_parameter(call, "DurationSeconds")?.unwrap_or(3600);
        let expires_at = now + SignedDuration::from_secs(seconds);
        let credentials = self.credentials.create_session(account, &session, expires_at).ok_or_else(no_role)?;
        let role_id = "300000000000000000";
        Ok(json!({
            "AssumedRoleUser": {
                "Arn": format!("acs:ram::{account}:role/{name}/{session}"),
                "AssumedRoleId": format!("{role_id}:{session}"),
            },
            "Credentials": {
                "AccessKeyId": credentials.access_key_id,
                "AccessKeySecret": credentials.access_key_secret,
                "SecurityToken": credentials.security_token,
                "Expiration": format_time(expires_at),
            },
        }))
    }
}

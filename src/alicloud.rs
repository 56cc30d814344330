//! The VPC peering API (`VpcPeer`, version 2022-01-01): the four operations that peergate needs, and what its errors mean.
//!
//! It knows nothing of approvals. A call is one try, with its own nonce, timestamp and signature. The caller decides about
//! the next try.

mod codes;
mod hedged_read;
mod json;
mod rate_limit;
mod rpc;
pub mod sign;
pub mod sts;
mod vpc;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep_until};
use url::Url;

pub use vpc::{MAX_VPCS_PER_CALL, OwnVpc};
pub use wire::{RequiredField, UnreadableConnection};

use crate::http::Clients;
use crate::peering::{Connection, InstanceId};
use crate::{http, metrics};
use hedged_read::HedgeDelays;
use rate_limit::RateLimiter;
use rpc::{ParameterPlace, ResponseHead, Rpc, RpcCall, RpcResponse};
use sign::SignatureVersion;

const API_VERSION: &str = "2022-01-01";
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-listvpcpeerconnections>
pub const MAX_PAGE_SIZE: u32 = 100;

/// The API for one account: its URL, how calls are signed, and the rate limit.
#[derive(Debug, Clone)]
pub struct Alicloud {
    rpc: Rpc,
    rate_limiter: Arc<RateLimiter>,
    hedge_delays: Arc<HedgeDelays>,
    /// The URL of the VPC API in every region. `None` for the vendor's own.
    vpc_endpoint: Option<Url>,
}

/// The credentials of a call. They have no `Debug`, because two of the fields are secret.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// `LTAI…`, or `STS.…` for temporary credentials.
    pub access_key_id: &'a str,
    /// The key of the signature.
    pub access_key_secret: &'a str,
    /// Only for temporary credentials.
    pub security_token: Option<&'a str>,
}

/// The connections that a list is about: those of a region, or only those of one VPC in it.
#[derive(Debug, Clone, Copy)]
pub struct ListScope<'a> {
    /// E.g. `cn-shanghai`.
    pub region: &'a str,
    /// `None` for the whole region.
    pub vpc: Option<&'a str>,
}

impl<'a> ListScope<'a> {
    /// All connections of a region.
    #[must_use]
    pub fn of_region(region: &'a str) -> Self {
        Self { region, vpc: None }
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// At most 100.
    pub connections: Vec<Connection>,
    /// The connections that cannot be understood. They hide no other connection.
    pub unreadable: Vec<UnreadableConnection>,
    /// The number of connections on all pages, if the vendor sends it.
    pub total: Option<u32>,
    /// Requests the next page; `None` on the last page.
    pub next_token: Option<String>,
    /// Whether there is a token for a next page that cannot be understood.
    pub has_unreadable_token: bool,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused the call. Its message is dropped, because for a bad signature it quotes the signed text.
    #[error("Alibaba Cloud refused with {code}")]
    Refused {
        /// E.g. `IncorrectStatus.VpcPeer`.
        code: String,
        /// Identifies the call for the vendor's support.
        request_id: Option<String>,
        /// Nearly always 400, so the code says more.
        http_status: u16,
        /// The header `x-acs-retry-after`.
        retry_after: Option<SignedDuration>,
    },
    /// The call was not sent: it would exceed the rate limit, or the operation backs off. How long that lasts.
    #[error("the rate limit allows the next call in {} s", .0.as_secs())]
    RateLimited(Duration),
    /// There was no answer.
    #[error("no answer from Alibaba Cloud: {}", http::describe_transport(.0))]
    Transport(reqwest::Error),
    /// The answer does not come from the API, e.g. it comes from a proxy.
    #[error("unreadable answer from Alibaba Cloud (HTTP {http_status})")]
    Unreadable {
        /// The HTTP status of the answer.
        http_status: u16,
    },
    /// The answer comes from the API, but a required field cannot be understood.
    #[error("Alibaba Cloud's answer cannot be understood: {}", field.name())]
    NotUnderstood {
        /// The field that cannot be understood.
        field: RequiredField,
        /// Identifies the call for the vendor's support.
        request_id: Option<String>,
    },
}

/// What the caller must do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again later.
    Retry,
    /// Read the connection and decide: its status is not the one that the call requires.
    ReadStatus,
    /// The connection does not exist.
    Missing,
    /// Give up: the call never works for this connection.
    Permanent,
    /// Wait until an operator has fixed the credentials or permissions.
    Credentials,
    /// Nothing: the dry run passed. (The API reports that as an error.)
    DryRunPassed,
    /// Try again, but not forever: the code is unknown.
    Unknown,
}

impl Page {
    /// Whether the list has only this page, and all of it could be read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.next_token.is_none() && !self.has_unreadable_token && self.unreadable.is_empty()
    }
}

impl Error {
    /// What the caller must do.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::RateLimited(_) | Self::Transport(_) | Self::Unreadable { .. } | Self::NotUnderstood { .. } => {
                Class::Retry
            }
            Self::Refused { code, http_status, .. } => codes::classify_refusal(code, *http_status),
        }
    }

    /// Whether the call may have taken effect in spite of the error. A definite refusal has no effect.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::Refused { code, http_status, .. } => codes::may_have_taken_effect(code, *http_status),
            Self::RateLimited(_) => false,
            // A call that never left has no effect.
            Self::Transport(error) => !error.is_connect() && !error.is_builder(),
            Self::Unreadable { .. } | Self::NotUnderstood { .. } => true,
        }
    }

    /// The vendor's code. Errors without one have a code of peergate, e.g. `Transport.Timeout`.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            Self::RateLimited(_) => "Throttling.Own",
            Self::Transport(error) => http::transport_code(error),
            Self::Unreadable { .. } => "Transport.Unreadable",
            Self::NotUnderstood { field, .. } => field.code(),
        }
    }

    /// The vendor's id of the call.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Refused { request_id, .. } | Self::NotUnderstood { request_id, .. } => request_id.as_deref(),
            Self::RateLimited(_) | Self::Transport(_) | Self::Unreadable { .. } => None,
        }
    }

    /// How long to wait before the next try, as the vendor or our rate limit says.
    #[must_use]
    pub fn retry_after(&self) -> Option<SignedDuration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::RateLimited(wait) => SignedDuration::try_from(*wait).ok(),
            Self::Transport(_) | Self::Unreadable { .. } | Self::NotUnderstood { .. } => None,
        }
    }
}

/// What the caller must do, if only the code of the error is known.
#[must_use]
pub fn classify_code(code: &str) -> Class {
    let ours = ["Transport.", "NotUnderstood."].iter().any(|family| code.starts_with(family));
    if ours { Class::Retry } else { codes::classify_refusal(code, 400) }
}

impl Alicloud {
    /// The API at `endpoint`, called at most `calls_per_minute` times with each operation.
    #[must_use]
    pub fn new(clients: impl Into<Clients>, endpoint: Url, signature: SignatureVersion, calls_per_minute: u32) -> Self {
        let rate_limiter = RateLimiter::new(usize::try_from(calls_per_minute).unwrap_or(usize::MAX));
        let rpc =
            Rpc { clients: clients.into(), endpoint, signature, version: API_VERSION, place: ParameterPlace::Body };
        Self { rpc, rate_limiter: Arc::new(rate_limiter), hedge_delays: Arc::default(), vpc_endpoint: None }
    }

    /// The same API, with another address of the VPC API.
    #[must_use]
    pub fn with_vpc_endpoint(self, vpc_endpoint: Option<Url>) -> Self {
        Self { vpc_endpoint, ..self }
    }

    /// The same API, which counts its calls together with those of `other`.
    #[cfg(feature = "local")]
    #[must_use]
    pub fn with_rate_limit_of(self, other: &Self) -> Self {
        Self { rate_limiter: Arc::clone(&other.rate_limiter), ..self }
    }

    /// Accepts a connection. Its status is then `Updating`, and later `Activated`. Returns the request id.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-acceptvpcpeerconnection>
    pub async fn accept_connection(
        &self,
        credentials: Credentials<'_>,
        instance_id: &InstanceId,
        client_token: &str,
        dry_run: bool,
    ) -> Result<String, Error> {
        let mut parameters = vec![("InstanceId", instance_id.as_str()), ("ClientToken", client_token)];
        parameters.extend(dry_run.then_some(("DryRun", "true")));
        let response = self.call_once("AcceptVpcPeerConnection", &parameters, credentials).await?;
        response.into_request_id()
    }

    /// Rejects a connection. That cannot be undone. Returns the request id.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-rejectvpcpeerconnection>
    pub async fn reject_connection(
        &self,
        credentials: Credentials<'_>,
        instance_id: &InstanceId,
        client_token: &str,
    ) -> Result<String, Error> {
        let parameters = [("InstanceId", instance_id.as_str()), ("ClientToken", client_token)];
        let response = self.call_once("RejectVpcPeerConnection", &parameters, credentials).await?;
        response.into_request_id()
    }

    /// Reads a connection.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-getvpcpeerconnectionattribute>
    pub async fn get_connection(
        &self,
        credentials: Credentials<'_>,
        instance_id: &InstanceId,
    ) -> Result<Connection, Error> {
        let parameters = [("InstanceId", instance_id.as_str())];
        let response = self.call_hedged("GetVpcPeerConnectionAttribute", &parameters, credentials).await?;
        response.to_connection(instance_id).inspect_err(|error| {
            tracing::error!(
                outcome = "not_understood",
                peering.id = instance_id.as_str(),
                alicloud.code = error.code(),
                alicloud.request_id = error.request_id(),
                "could not understand Alibaba Cloud's answer about a connection"
            );
        })
    }

    /// Requests a connection, as the requesting account does. Only the demo and tests with the simulator need it.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-createvpcpeerconnection>
    #[cfg(feature = "local")]
    pub async fn create_connection(
        &self,
        credentials: Credentials<'_>,
        parameters: &[(&str, &str)],
    ) -> Result<InstanceId, Error> {
        let response = self.call_once("CreateVpcPeerConnection", parameters, credentials).await?;
        let id = response.fields.get("InstanceId").first().and_then(json::parse_text);
        id.and_then(|id| InstanceId::parse(&id).ok()).ok_or_else(|| response.not_understood(RequiredField::InstanceId))
    }

    /// Makes a call of an account that requests peerings, e.g. `DeleteVpcPeerConnection`.
    ///
    /// # Errors
    /// When the call fails, or is refused.
    #[cfg(feature = "local")]
    pub async fn call_as_requester(
        &self,
        action: &'static str,
        parameters: &[(&str, &str)],
        credentials: Credentials<'_>,
    ) -> Result<(), Error> {
        self.call_once(action, parameters, credentials).await.map(drop)
    }

    /// Lists connections, one page per call. `next_token` is that of the page before.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-listvpcpeerconnections>
    pub async fn list_connections(
        &self,
        credentials: Credentials<'_>,
        ListScope { region, vpc }: ListScope<'_>,
        next_token: Option<&str>,
    ) -> Result<Page, Error> {
        let page_size = MAX_PAGE_SIZE.to_string();
        let mut parameters = vec![("RegionId", region), ("MaxResults", page_size.as_str())];
        parameters.extend(vpc.map(|vpc| ("VpcId", vpc)));
        parameters.extend(next_token.map(|token| ("NextToken", token)));
        let response = self.call_hedged("ListVpcPeerConnections", &parameters, credentials).await?;
        response.to_page()
    }

    /// The URL of the API.
    #[must_use]
    pub fn endpoint(&self) -> &Url {
        &self.rpc.endpoint
    }

    /// Makes a call that may change something, within the rate limit. It is never sent twice.
    async fn call_once(
        &self,
        action: &'static str,
        parameters: &[(&str, &str)],
        credentials: Credentials<'_>,
    ) -> Result<RpcResponse, Error> {
        self.call_within_limit(&self.rpc, action, parameters, credentials).await
    }

    async fn call_within_limit(
        &self,
        rpc: &Rpc,
        action: &'static str,
        parameters: &[(&str, &str)],
        credentials: Credentials<'_>,
    ) -> Result<RpcResponse, Error> {
        self.wait_for_rate_limit(action).await?;
        let call = RpcCall { action, parameters, credentials: Some(credentials) };
        rpc.send_call(call).await.inspect_err(|error| self.back_off_after(action, error))
    }

    async fn wait_for_rate_limit(&self, action: &'static str) -> Result<(), Error> {
        let now = Instant::now();
        let start = self
            .rate_limiter
            .reserve(action, now)
            .map_err(Error::RateLimited)
            .inspect_err(|error| metrics::count_api_answer(error.code(), false))?;
        if start > now {
            // Even the shortest sleep takes a millisecond.
            sleep_until(start).await;
        }
        Ok(())
    }

    /// Backs off from an operation that throttled a call.
    fn back_off_after(&self, action: &'static str, error: &Error) {
        if let Error::Refused { code, retry_after, .. } = error
            && code.contains("Throttling")
        {
            let retry_after = retry_after.and_then(|wait| Duration::try_from(wait).ok());
            self.rate_limiter.back_off(action, retry_after, Instant::now());
        }
    }
}

/// Parses the body of an answer to `ListVpcPeerConnections`.
pub fn parse_page_body(http_status: u16, body: &[u8]) -> Result<Page, Error> {
    RpcResponse::parse(ResponseHead { http_status, request_id: None, retry_after: None }, body)?.to_page()
}

/// Parses the body of an answer to `GetVpcPeerConnectionAttribute`. It must be about `instance_id`.
pub fn parse_connection_body(http_status: u16, body: &[u8], instance_id: &InstanceId) -> Result<Connection, Error> {
    RpcResponse::parse(ResponseHead { http_status, request_id: None, retry_after: None }, body)?
        .to_connection(instance_id)
}

impl RpcResponse {
    fn to_page(&self) -> Result<Page, Error> {
        wire::parse_page(&self.fields).map_err(|field| self.not_understood(field))
    }

    fn to_connection(&self, instance_id: &InstanceId) -> Result<Connection, Error> {
        let connection = wire::parse_connection(&self.fields).and_then(|connection| {
            // With another id, people would decide about another connection.
            if connection.instance_id == *instance_id { Ok(connection) } else { Err(RequiredField::InstanceId) }
        });
        connection.map_err(|field| self.not_understood(field))
    }

    /// The request id. An answer without one acknowledges nothing.
    fn into_request_id(self) -> Result<String, Error> {
        self.request_id.ok_or(Error::Unreadable { http_status: 200 })
    }

    fn not_understood(&self, field: RequiredField) -> Error {
        Error::NotUnderstood { field, request_id: self.request_id.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ambiguous_answers_may_have_taken_effect() {
        let refused = |code: &str, http_status| Error::Refused {
            code: code.into(),
            request_id: None,
            http_status,
            retry_after: None,
        };
        let not_understood = Error::NotUnderstood { field: RequiredField::InstanceId, request_id: None };
        for ambiguous in [refused("InternalError", 500), Error::Unreadable { http_status: 502 }, not_understood] {
            assert!(ambiguous.may_have_taken_effect(), "{ambiguous}");
        }
        for definite in
            [refused("Forbidden.RAM", 403), refused("NeverHeardOf", 400), Error::RateLimited(Duration::from_secs(1))]
        {
            assert!(!definite.may_have_taken_effect(), "{definite}");
        }
    }

    #[test]
    fn stored_code_keeps_the_class_of_its_error() {
        for (code, class) in [
            ("Transport.Timeout", Class::Retry),
            (RequiredField::Bandwidth.code(), Class::Retry),
            ("Throttling.Own", Class::Retry),
            ("Forbidden.RAM", Class::Credentials),
            ("NeverHeardOf", Class::Unknown),
        ] {
            assert_eq!(classify_code(code), class, "{code}");
        }
    }
}

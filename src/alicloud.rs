//! The VPC peering API (`VpcPeer`, version 2022-01-01): the four operations that we need, and what its errors mean.
//!
//! Knows nothing of approvals. One call is one try: each has its own nonce, timestamp and signature, and who calls
//! decides about the next.

mod codes;
mod hedged_read;
mod json;
mod rate_limit;
mod rpc;
pub mod sign;
pub mod sts;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep_until};
use url::Url;

pub use wire::{Fact, UnreadableConnection};

use crate::http::Clients;
use crate::peering::{Connection, InstanceId};
use crate::{http, metrics};
use hedged_read::HedgeDelays;
use rate_limit::RateLimiter;
use rpc::{ResponseHead, Rpc, RpcCall, RpcResponse};
use sign::SignatureVersion;

const API_VERSION: &str = "2022-01-01";
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-listvpcpeerconnections>
pub const MAX_PAGE_SIZE: u32 = 100;

/// The API at one address, signed in one way; what calls it makes for one account.
#[derive(Debug, Clone)]
pub struct Alicloud {
    rpc: Rpc,
    rate_limiter: Arc<RateLimiter>,
    hedge_delays: Arc<HedgeDelays>,
}

/// Who calls. Has no `Debug`: two of three fields are secret.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// `LTAI…` or `STS.…`.
    pub access_key_id: &'a str,
    /// Signs.
    pub access_key_secret: &'a str,
    /// Of temporary credentials.
    pub security_token: Option<&'a str>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// At most 100.
    pub connections: Vec<Connection>,
    /// Those that cannot be understood; they hide no other connection.
    pub unreadable: Vec<UnreadableConnection>,
    /// How many connections the whole list has, if the vendor says so.
    pub total: Option<u32>,
    /// Asks for the next page; `None` on the last.
    pub next_token: Option<String>,
    /// There is a token for a next page, but not one that can be understood.
    pub has_unreadable_token: bool,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused. Its message is dropped: for a bad signature it quotes what was signed.
    #[error("Alibaba Cloud refused with {code}")]
    Refused {
        /// e.g. `IncorrectStatus.VpcPeer`.
        code: String,
        /// For the vendor's support.
        request_id: Option<String>,
        /// Nearly always 400: says little.
        http_status: u16,
        /// The header `x-acs-retry-after`.
        retry_after: Option<SignedDuration>,
    },
    /// Not asked: too many calls of this operation were made, or the vendor asked us to wait.
    #[error("Alibaba Cloud is not asked for another {} s", .0.as_secs())]
    RateLimited(Duration),
    /// No answer.
    #[error("no answer from Alibaba Cloud ({})", http::transport_code(.0))]
    Transport(reqwest::Error),
    /// An answer that is none of the API's.
    #[error("unreadable answer from Alibaba Cloud (HTTP {http_status})")]
    Unreadable {
        /// Of the answer.
        http_status: u16,
    },
    /// An answer of the API with a required part that cannot be understood.
    #[error("Alibaba Cloud's answer cannot be understood: {}", field.name())]
    NotUnderstood {
        /// Which part.
        field: Fact,
        /// For the vendor's support.
        request_id: Option<String>,
    },
}

/// What an error asks the caller to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again later.
    Retry,
    /// The status is not what the call needs: read it and decide.
    ReadStatus,
    /// The connection does not exist.
    Missing,
    /// It will never work for this connection.
    Permanent,
    /// A person has to mend our credentials or permissions.
    Credentials,
    /// A dry run found nothing against it.
    DryRunPassed,
    /// An unknown code: try again, but not for ever.
    Unknown,
}

impl Page {
    /// Whether it is all that there is.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.next_token.is_none() && !self.has_unreadable_token && self.unreadable.is_empty()
    }
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::RateLimited(_) | Self::Transport(_) | Self::Unreadable { .. } | Self::NotUnderstood { .. } => {
                Class::Retry
            }
            Self::Refused { code, http_status, .. } => codes::classify_refusal(code, *http_status),
        }
    }

    /// Whether a failed call may have taken effect all the same. A refusal has not.
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

    /// The vendor's code, or one of ours for what is not the vendor's.
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

    /// The vendor's name for the call.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Refused { request_id, .. } | Self::NotUnderstood { request_id, .. } => request_id.as_deref(),
            Self::RateLimited(_) | Self::Transport(_) | Self::Unreadable { .. } => None,
        }
    }

    /// How long the vendor asked us to wait, or we have to.
    #[must_use]
    pub fn retry_after(&self) -> Option<SignedDuration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::RateLimited(wait) => SignedDuration::try_from(*wait).ok(),
            Self::Transport(_) | Self::Unreadable { .. } | Self::NotUnderstood { .. } => None,
        }
    }
}

/// What a code asks the caller to do, where nothing but the code is known.
#[must_use]
pub fn classify_code(code: &str) -> Class {
    let ours = ["Transport.", "NotUnderstood."].iter().any(|family| code.starts_with(family));
    if ours { Class::Retry } else { codes::classify_refusal(code, 400) }
}

impl Alicloud {
    /// The API at `endpoint`, called at most `calls_per_minute` times with each operation.
    #[must_use]
    pub fn new(clients: impl Into<Clients>, endpoint: Url, signature: SignatureVersion, calls_per_minute: u32) -> Self {
        let pacer = RateLimiter::new(usize::try_from(calls_per_minute).unwrap_or(usize::MAX));
        let rpc = Rpc { clients: clients.into(), endpoint, signature, version: API_VERSION };
        Self { rpc, rate_limiter: Arc::new(pacer), hedge_delays: Arc::default() }
    }

    /// Accepts a connection. Asynchronous: it is `Updating` first, then `Activated`. Returns the request id.
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
        let reply = self.call_once("AcceptVpcPeerConnection", &parameters, credentials).await?;
        reply.into_request_id()
    }

    /// Rejects a connection, for good. Returns the request id.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-rejectvpcpeerconnection>
    pub async fn reject_connection(
        &self,
        credentials: Credentials<'_>,
        instance_id: &InstanceId,
        client_token: &str,
    ) -> Result<String, Error> {
        let parameters = [("InstanceId", instance_id.as_str()), ("ClientToken", client_token)];
        let reply = self.call_once("RejectVpcPeerConnection", &parameters, credentials).await?;
        reply.into_request_id()
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
        let reply = self.call_hedged("GetVpcPeerConnectionAttribute", &parameters, credentials).await?;
        reply.to_connection(instance_id).inspect_err(|error| {
            tracing::error!(
                outcome = "not_understood",
                peering.id = instance_id.as_str(),
                alicloud.code = error.code(),
                alicloud.request_id = error.request_id(),
                "Alibaba Cloud's answer about a connection could not be understood"
            );
        })
    }

    /// Asks for a connection, as the other side does: the simulator's tests and demos need somebody who does.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-createvpcpeerconnection>
    #[cfg(feature = "local")]
    pub async fn create_connection(
        &self,
        credentials: Credentials<'_>,
        parameters: &[(&str, &str)],
    ) -> Result<InstanceId, Error> {
        let reply = self.call_once("CreateVpcPeerConnection", parameters, credentials).await?;
        let id = reply.fields.get("InstanceId").first().and_then(json::parse_text);
        id.and_then(|id| InstanceId::parse(&id).ok()).ok_or_else(|| reply.not_understood(Fact::InstanceId))
    }

    /// Lists the connections of a region, or only those of one VPC, a page at a time.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-listvpcpeerconnections>
    pub async fn list_connections(
        &self,
        credentials: Credentials<'_>,
        region: &str,
        vpc: Option<&str>,
        next_token: Option<&str>,
    ) -> Result<Page, Error> {
        let largest_page = MAX_PAGE_SIZE.to_string();
        let mut parameters = vec![("RegionId", region), ("MaxResults", largest_page.as_str())];
        parameters.extend(vpc.map(|vpc| ("VpcId", vpc)));
        parameters.extend(next_token.map(|token| ("NextToken", token)));
        let reply = self.call_hedged("ListVpcPeerConnections", &parameters, credentials).await?;
        reply.to_page()
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Url {
        &self.rpc.endpoint
    }

    /// Makes a call that may change something, when its turn has come. It is sent once, whatever breaks.
    async fn call_once(
        &self,
        action: &'static str,
        parameters: &[(&str, &str)],
        credentials: Credentials<'_>,
    ) -> Result<RpcResponse, Error> {
        self.wait_for_rate_limit(action).await?;
        let call = RpcCall { action, parameters, credentials: Some(credentials) };
        self.rpc.send_call(call).await.inspect_err(|error| self.back_off_after(action, error))
    }

    async fn wait_for_rate_limit(&self, action: &'static str) -> Result<(), Error> {
        let now = Instant::now();
        let turn = self
            .rate_limiter
            .reserve(action, now)
            .map_err(Error::RateLimited)
            .inspect_err(|error| metrics::count_api_answer(error.code(), false))?;
        if turn > now {
            // Not otherwise: even the shortest sleep takes a millisecond.
            sleep_until(turn).await;
        }
        Ok(())
    }

    /// Backs off from an operation that throttled a call.
    fn back_off_after(&self, action: &'static str, error: &Error) {
        if let Error::Refused { code, retry_after, .. } = error
            && code.contains("Throttling")
        {
            let asked_for = retry_after.and_then(|wait| Duration::try_from(wait).ok());
            self.rate_limiter.back_off(action, asked_for, Instant::now());
        }
    }
}

/// Reads the body of an answer to a `List`.
pub fn parse_page_body(http_status: u16, body: &[u8]) -> Result<Page, Error> {
    RpcResponse::parse(ResponseHead { http_status, request_id: None, retry_after: None }, body)?.to_page()
}

/// Reads the body of an answer to a `Get` of this connection.
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
            // Otherwise people would decide about another connection.
            if connection.instance_id == *instance_id { Ok(connection) } else { Err(Fact::InstanceId) }
        });
        connection.map_err(|field| self.not_understood(field))
    }

    /// The request id. An answer without one is not an acknowledgement.
    fn into_request_id(self) -> Result<String, Error> {
        self.request_id.ok_or(Error::Unreadable { http_status: 200 })
    }

    fn not_understood(&self, field: Fact) -> Error {
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
        let not_understood = Error::NotUnderstood { field: Fact::InstanceId, request_id: None };
        for may in [refused("InternalError", 500), Error::Unreadable { http_status: 502 }, not_understood] {
            assert!(may.may_have_taken_effect(), "{may}");
        }
        for never in
            [refused("Forbidden.RAM", 403), refused("NeverHeardOf", 400), Error::RateLimited(Duration::from_secs(1))]
        {
            assert!(!never.may_have_taken_effect(), "{never}");
        }
    }

    #[test]
    fn stored_code_keeps_the_class_of_its_error() {
        for (code, class) in [
            ("Transport.Timeout", Class::Retry),
            (Fact::Bandwidth.code(), Class::Retry),
            ("Throttling.Own", Class::Retry),
            ("Forbidden.RAM", Class::Credentials),
            ("NeverHeardOf", Class::Unknown),
        ] {
            assert_eq!(classify_code(code), class, "{code}");
        }
    }
}

//! The VPC peering API (`VpcPeer`, version 2022-01-01): the four operations that we need, and what its errors mean.
//!
//! Knows nothing of approvals. One call is one try: each has its own nonce, timestamp and signature, and who calls
//! decides about the next.

mod pace;
mod rpc;
pub mod sign;
pub mod sts;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use url::Url;

use crate::peering::{Connection, InstanceId};
use crate::{http, metrics};
use pace::Pacer;
use rpc::Rpc;
use sign::SignatureVersion;
use wire::{WireConnection, WirePage};

const VERSION: &str = "2022-01-01";
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-listvpcpeerconnections>
pub const LARGEST_PAGE: u32 = 100;

/// The API at one address, signed in one way; what calls it makes for one account.
#[derive(Debug, Clone)]
pub struct Alicloud {
    rpc: Rpc,
    pacer: Arc<Pacer>,
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
    /// At most 100. One that we do not understand is left out: it must not hide the others.
    pub connections: Vec<Connection>,
    /// How many those are.
    pub left_out: usize,
    /// How many connections the whole list has, if the vendor says so.
    pub total: Option<u32>,
    /// Asks for the next page; `None` on the last.
    pub next_token: Option<String>,
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
    Paced(Duration),
    /// No answer.
    #[error("no answer from Alibaba Cloud ({})", http::failure(.0))]
    Transport(reqwest::Error),
    /// An answer that is none of the API's.
    #[error("unreadable answer from Alibaba Cloud (HTTP {http_status})")]
    Unreadable {
        /// Of the answer.
        http_status: u16,
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
    /// Nobody knows the code: try again for a while.
    Unknown,
}

impl Page {
    /// Whether it is all that there is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.next_token.is_none() && self.left_out == 0
    }
}

impl Error {
    /// What to do about it. The HTTP status says little: nearly everything is a 400.
    ///
    /// Source: <https://api.alibabacloud.com/document/VpcPeer/2022-01-01/errorCode>
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Paced(_) | Self::Transport(_) | Self::Unreadable { .. } => Class::Retry,
            Self::Refused { code, http_status, .. } => classify(code, *http_status),
        }
    }

    /// Whether a call may have taken effect although it failed.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::Refused { code, http_status, .. } => {
                let refuses = code == "ServiceUnavailable" || code.contains("Throttling");
                code.ends_with("LastTokenProcessing") || (*http_status >= 500 && !refuses)
            }
            Self::Paced(_) => false,
            Self::Transport(error) => !error.is_connect(),
            Self::Unreadable { .. } => true,
        }
    }

    /// The vendor's code, or one of ours for what is not the vendor's.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            Self::Paced(_) => "Throttling.Own",
            Self::Transport(error) => http::failure(error),
            Self::Unreadable { .. } => "Transport.Unreadable",
        }
    }

    /// The vendor's name for the call.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Refused { request_id, .. } => request_id.as_deref(),
            Self::Paced(_) | Self::Transport(_) | Self::Unreadable { .. } => None,
        }
    }

    /// How long the vendor asked us to wait, or we have to.
    #[must_use]
    pub fn retry_after(&self) -> Option<SignedDuration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Paced(wait) => SignedDuration::try_from(*wait).ok(),
            Self::Transport(_) | Self::Unreadable { .. } => None,
        }
    }
}

/// What a code asks the caller to do, where nothing but the code is known.
#[must_use]
pub fn class_of(code: &str) -> Class {
    if code.starts_with("Transport") { Class::Retry } else { classify(code, 400) }
}

fn classify(code: &str, http_status: u16) -> Class {
    match code {
        "DryRunOperation" => Class::DryRunPassed,
        "IncorrectStatus.VpcPeer" => Class::ReadStatus,
        "ResourceNotFound.InstanceId" | "InvalidInstanceId.NotFound" => Class::Missing,
        "ServiceUnavailable"
        | "InternalError"
        | "UnknownError"
        | "SystemBusy"
        | "Rejected.Throttling"
        | "Conflict.Operation"
        | "LastTokenProcessing"
        | "OperationConflict"
        | "TaskConflict"
        | "OperationFailed.DistibuteLock"
        | "SignatureNonceUsed" => Class::Retry,
        "NoPermission"
        | "AssumeRole.NoPermission"
        | "EntityNotExist.Role"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingSecurityToken"
        | "IllegalTimestamp" => Class::Credentials,
        _ if code.starts_with("Throttling") || http_status >= 500 || http_status == 429 => Class::Retry,
        _ if ["AuthenticationFail", "InvalidAccessKeyId", "InvalidSecurityToken", "InvalidTimeStamp", "Forbidden"]
            .iter()
            .any(|prefix| code.starts_with(prefix)) =>
        {
            Class::Credentials
        }
        _ => Class::Permanent,
    }
}

impl Alicloud {
    /// The API at `endpoint`, called at most `calls_per_minute` times with each operation.
    #[must_use]
    pub fn new(http: reqwest::Client, endpoint: Url, signature: SignatureVersion, calls_per_minute: u32) -> Self {
        let pacer = Pacer::new(usize::try_from(calls_per_minute).unwrap_or(usize::MAX));
        Self { rpc: Rpc { http, endpoint, signature, version: VERSION }, pacer: Arc::new(pacer) }
    }

    /// Accepts a connection. Asynchronous: it is `Updating` first, then `Activated`. Returns the request id.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-acceptvpcpeerconnection>
    pub async fn accept(
        &self,
        credentials: Credentials<'_>,
        instance_id: &InstanceId,
        client_token: &str,
        dry_run: bool,
    ) -> Result<String, Error> {
        let mut parameters = vec![("InstanceId", instance_id.as_str()), ("ClientToken", client_token)];
        parameters.extend(dry_run.then_some(("DryRun", "true")));
        let done: Done = self.call("AcceptVpcPeerConnection", &parameters, credentials).await?;
        Ok(done.request_id)
    }

    /// Rejects a connection, for good. Returns the request id.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-rejectvpcpeerconnection>
    pub async fn reject(
        &self,
        credentials: Credentials<'_>,
        instance_id: &InstanceId,
        client_token: &str,
    ) -> Result<String, Error> {
        let parameters = [("InstanceId", instance_id.as_str()), ("ClientToken", client_token)];
        let done: Done = self.call("RejectVpcPeerConnection", &parameters, credentials).await?;
        Ok(done.request_id)
    }

    /// Reads a connection.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-getvpcpeerconnectionattribute>
    pub async fn get(&self, credentials: Credentials<'_>, instance_id: &InstanceId) -> Result<Connection, Error> {
        let parameters = [("InstanceId", instance_id.as_str())];
        let connection: WireConnection = self.call("GetVpcPeerConnectionAttribute", &parameters, credentials).await?;
        connection.try_into().map_err(|_| Error::Unreadable { http_status: 200 })
    }

    /// Asks for a connection, as the other side does: the simulator's tests and demos need somebody who does.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-createvpcpeerconnection>
    #[cfg(feature = "local")]
    pub async fn create(&self, credentials: Credentials<'_>, parameters: &[(&str, &str)]) -> Result<InstanceId, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Created {
            instance_id: InstanceId,
        }
        let created: Created = self.call("CreateVpcPeerConnection", parameters, credentials).await?;
        Ok(created.instance_id)
    }

    /// Lists the connections of a region, or only those of one VPC, a page at a time.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-listvpcpeerconnections>
    pub async fn list(
        &self,
        credentials: Credentials<'_>,
        region: &str,
        vpc: Option<&str>,
        next_token: Option<&str>,
    ) -> Result<Page, Error> {
        let largest_page = LARGEST_PAGE.to_string();
        let mut parameters = vec![("RegionId", region), ("MaxResults", largest_page.as_str())];
        parameters.extend(vpc.map(|vpc| ("VpcId", vpc)));
        parameters.extend(next_token.map(|token| ("NextToken", token)));
        let page: WirePage = self.call("ListVpcPeerConnections", &parameters, credentials).await?;
        let understood = |json: Box<RawValue>| serde_json::from_str::<WireConnection>(json.get()).ok()?.try_into().ok();
        let listed = page.vpc_peer_connects.unwrap_or_default();
        let all = listed.len();
        let connections: Vec<Connection> = listed.into_iter().filter_map(understood).collect();
        Ok(Page {
            left_out: all.saturating_sub(connections.len()),
            total: page.total_count,
            connections,
            next_token: page.next_token.filter(|token| !token.is_empty()),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Url {
        &self.rpc.endpoint
    }

    /// Makes a call when its turn has come.
    async fn call<T: DeserializeOwned>(
        &self,
        action: &'static str,
        parameters: &[(&str, &str)],
        credentials: Credentials<'_>,
    ) -> Result<T, Error> {
        let now = Instant::now();
        let turn = self
            .pacer
            .take_turn(action, now)
            .map_err(Error::Paced)
            .inspect_err(|error| metrics::called(error.code(), false))?;
        if turn > now {
            // Not otherwise: even the shortest sleep takes a millisecond.
            sleep_until(turn).await;
        }
        let answer = self.rpc.call(action, parameters, Some(credentials)).await;
        if let Err(Error::Refused { code, retry_after, .. }) = &answer
            && code.contains("Throttling")
        {
            let asked_for = retry_after.and_then(|wait| Duration::try_from(wait).ok());
            self.pacer.rest(action, asked_for, Instant::now());
        }
        answer
    }
}

/// Reads a connection as the API writes it, for tests of what the simulator shows.
#[cfg(feature = "local")]
#[must_use]
pub fn read_connection(json: &str) -> Option<Connection> {
    serde_json::from_str::<WireConnection>(json).ok()?.try_into().ok()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Done {
    request_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_class_of_the_api_is_told_apart_by_its_code() {
        let cases = [
            (
                Class::Retry,
                "ServiceUnavailable InternalError UnknownError SystemBusy Throttling Throttling.User Throttling.Api \
                 Rejected.Throttling Conflict.Operation LastTokenProcessing OperationConflict TaskConflict SignatureNonceUsed",
            ),
            (Class::ReadStatus, "IncorrectStatus.VpcPeer"),
            (Class::Missing, "ResourceNotFound.InstanceId"),
            (
                Class::Permanent,
                "IncorrectBusinessStatus.VpcPeer OperationFailed.CdtNotOpened OperationFailed.CrossBorderCdtNotOpened \
                 OperationFailed.NotExist.ResourceGroup QuotaExceeded.VpcPeerCountPerVpc IllegalParam.InstanceId \
                 IdempotentParameterMismatch InvalidAction.NotFound SomethingNew",
            ),
            (
                Class::Credentials,
                "InvalidAccessKeyId.NotFound InvalidAccessKeyId.Inactive Forbidden.AccessKeyDisabled Forbidden.RAM \
                 Forbidden.NoPermission NoPermission SignatureDoesNotMatch IncompleteSignature InvalidTimeStamp.Expired \
                 InvalidSecurityToken.Expired MissingSecurityToken",
            ),
            (Class::DryRunPassed, "DryRunOperation"),
        ];
        for (class, codes) in cases {
            for code in codes.split_whitespace() {
                assert_eq!(classify(code, 400), class, "{code}");
            }
        }
        assert_eq!(classify("SomethingNew", 503), Class::Retry);
    }
}

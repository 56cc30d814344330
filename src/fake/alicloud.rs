//! The VPC peering API in memory, for tests, demos and the vendor's SDKs. [`gateway`] has HTTP, quotas and the journal,
//! `peerings` the connections and operations, `credentials` the signatures, and `fault` the errors on demand.
//!
//! Where the vendor's pages say nothing, the simulator is strict:
//! - An account that is not a party of a connection gets `ResourceNotFound.InstanceId`. For `Accept` and `Reject`, so does
//!   the requester.
//! - A client token of a dry run cannot be used for the real call.

mod credentials;
mod disguise;
mod fault;
pub mod gateway;
mod gateway_request;
mod oidc;
mod peerings;
mod routing;
mod sts;
mod vpcs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use credentials::TemporaryCredentials;
pub use oidc::OidcProvider;

use crate::alicloud::sign::Parameters;
use crate::clock;
use crate::peering::AccountId;

/// How the simulated API behaves.
#[derive(Debug, Clone)]
pub struct SimulatorSettings {
    /// The time from `Updating` to `Activated`.
    pub activation_delay: Duration,
    /// How long a request can be accepted.
    pub expires_after: Duration,
    /// Calls per account and operation in 60 s; `None` for no limit.
    pub calls_per_minute: Option<usize>,
    /// The shortest duration of a call.
    pub latency: Duration,
    /// The accounts that may call.
    pub accounts: Vec<SimulatedAccount>,
    /// Whether the ids of connections are numbers, which tests can name. Otherwise they are random, like the vendor's.
    pub numbered_ids: bool,
    /// The external id that a role requires, by the ARN of the role. Other roles require none.
    pub external_ids: BTreeMap<String, String>,
    /// The providers whose identity tokens may assume roles of their account.
    pub providers: Vec<OidcProvider>,
}

/// An account with one access key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedAccount {
    /// The account id.
    pub account: AccountId,
    /// The id of its access key.
    pub access_key_id: String,
    /// The secret of its access key.
    pub access_key_secret: String,
    /// The CIDR blocks of its VPCs, by VPC id. Any other VPC gets a CIDR block when it is first named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vpcs: BTreeMap<String, BTreeSet<IpNet>>,
}

impl SimulatedAccount {
    /// The same account with a new access key.
    #[must_use]
    pub fn with_new_key(self) -> Self {
        let access_key_id = format!("LTAI{:.20}", clock::nonce());
        Self { access_key_id, access_key_secret: format!("{:.30}", clock::nonce()), ..self }
    }
}

impl Default for SimulatorSettings {
    /// The vendor's limits and two accounts: 1111111111111111 requests, and 2222222222222222 accepts.
    fn default() -> Self {
        let account = |account, name: &str| SimulatedAccount {
            account: AccountId(account),
            access_key_id: format!("{name}-key"),
            access_key_secret: format!("{name}-secret"),
            vpcs: BTreeMap::new(),
        };
        Self {
            activation_delay: Duration::from_secs(3),
            expires_after: Duration::from_hours(7 * 24),
            calls_per_minute: Some(360),
            latency: Duration::ZERO,
            accounts: vec![account(1_111_111_111_111_111, "requester"), account(2_222_222_222_222_222, "accepter")],
            numbered_ids: true,
            external_ids: BTreeMap::new(),
            providers: vec![],
        }
    }
}

/// A call and its result, for tests and demos.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct JournalEntry {
    /// The operation.
    pub action: String,
    /// The account that called; 0 if the call is not authentic.
    pub account: AccountId,
    /// The name of the session; `None` for a call with an access key.
    pub session: Option<String>,
    /// The parameters of the operation.
    pub parameters: BTreeMap<String, String>,
    /// `OK`, or the code of the refusal.
    pub code: String,
    /// Whether the call changed anything.
    pub effect: bool,
}

impl JournalEntry {
    /// Whether the call was a dry run.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        is_dry_run(&self.parameters)
    }
}

/// A change that no call makes: a test makes it directly.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tampering {
    /// `Accepting`, `Rejected`, `Expired`, `Deleted`, `Updating` or `Activated`.
    pub status: Option<String>,
    /// The status that reads show instead of the true one, e.g. `Deleting`. `Missing` hides the connection, and `-` shows
    /// the true status again.
    pub shows: Option<String>,
    /// When the request expires.
    pub expires_at: Option<Timestamp>,
    /// E.g. `FinancialLocked`.
    pub business_status: Option<String>,
    /// E.g. `SWAS`.
    pub managed_service: Option<String>,
    /// In Mbit/s.
    pub bandwidth: Option<i64>,
    /// The CIDR blocks of the requester's VPC.
    pub requester_cidrs: Option<BTreeSet<IpNet>>,
}

/// A refusal of the API.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) http_status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

impl ApiError {
    pub(crate) fn new(http_status: u16, code: &str, message: &str) -> Self {
        Self { http_status, code: code.to_owned(), message: message.to_owned(), retry_after: None }
    }
}

/// The answer of an operation.
type ApiResult = Result<Value, ApiError>;

/// The answer of an operation, and whether it changed anything.
struct OperationResult {
    answer: ApiResult,
    had_effect: bool,
}

impl OperationResult {
    fn without_effect(answer: ApiResult) -> Self {
        Self { answer, had_effect: false }
    }
}

fn bad_request(code: &str, message: &str) -> ApiError {
    ApiError::new(400, code, message)
}

fn require_parameter(call: &Parameters, name: &str) -> Result<String, ApiError> {
    let value = call.get(name).filter(|value| !value.is_empty()).cloned();
    value.ok_or_else(|| bad_request(&format!("Missing{name}"), &format!("{name} is mandatory for this action.")))
}

fn integer_parameter(call: &Parameters, name: &str) -> Result<Option<i64>, ApiError> {
    let value = call.get(name).filter(|value| !value.is_empty()).map(|value| value.parse()).transpose();
    value.map_err(|_| bad_request(&format!("IllegalParam.{name}"), &format!("The specified {name} is illegal.")))
}

/// The Python SDK sends `True`.
fn is_dry_run(call: &Parameters) -> bool {
    call.get("DryRun").is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

fn format_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

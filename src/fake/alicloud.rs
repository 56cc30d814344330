//! The VPC peering API in memory: accounts, connections and what the operations do to them. HTTP, quotas and faults are
//! in [`gateway`], signatures in `credentials`.
//!
//! Where the vendor's pages are silent it takes the stricter reading:
//! - Whoever is not a party to a connection, or not the accepting one for `Accept` and `Reject`, is told
//!   `ResourceNotFound.InstanceId`.
//! - A client token that was used for a dry run can't be used for the real thing.

mod credentials;
mod disguise;
pub mod gateway;
mod gateway_request;
mod oidc;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use oidc::OidcProvider;

use crate::alicloud::sign::Parameters;
use crate::peering::AccountId;

/// How the simulated API behaves.
#[derive(Debug, Clone)]
pub struct SimulatorSettings {
    /// From `Updating` to `Activated`.
    pub activation_delay: Duration,
    /// How long a request waits to be accepted.
    pub expires_after: Duration,
    /// Calls per account and operation in 60 s; `None` for no limit.
    pub calls_per_minute: Option<usize>,
    /// How long each call takes, at least.
    pub latency: Duration,
    /// Who may call.
    pub accounts: Vec<SimulatedAccount>,
    /// What a caller has to say to assume a role, by the role's ARN; others need say nothing.
    pub external_ids: BTreeMap<String, String>,
    /// Whose identity tokens open roles of the same account.
    pub providers: Vec<OidcProvider>,
}

/// An account, with one access key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedAccount {
    /// Its id.
    pub account: AccountId,
    /// Of its user.
    pub access_key_id: String,
    /// Of its user.
    pub access_key_secret: String,
    /// Ranges of its VPCs, by VPC id. Others get a range of their own when they are first named.
    #[serde(default)]
    pub vpcs: BTreeMap<String, BTreeSet<IpNet>>,
}

impl Default for SimulatorSettings {
    /// The vendor's limits; two accounts, 1111111111111111 that asks and 2222222222222222 that accepts.
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
            external_ids: BTreeMap::new(),
            providers: vec![],
        }
    }
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

fn bad_request(code: &str, message: &str) -> ApiError {
    ApiError::new(400, code, message)
}

/// A connection, and when it changes by itself.
#[derive(Debug, Clone)]
struct SimulatedPeering {
    name: String,
    description: String,
    requester: (AccountId, String, String),
    accepter: (AccountId, String, String),
    bandwidth: i64,
    link_type: String,
    created_at: Timestamp,
    phase: Phase,
    business_status: String,
    managed_service: String,
    /// What readings show instead of the true status.
    shown_status: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Accepting { until: Timestamp },
    Updating { until: Timestamp },
    Rejected,
    Deleted,
}

impl SimulatedPeering {
    /// Whether readings do not show it.
    fn is_gone(&self) -> bool {
        self.phase == Phase::Deleted || self.shown_status.as_deref() == Some("Missing")
    }

    fn current_status(&self, now: Timestamp) -> &'static str {
        match self.phase {
            Phase::Accepting { until } if now < until => "Accepting",
            Phase::Accepting { .. } => "Expired",
            Phase::Updating { until } if now < until => "Updating",
            Phase::Updating { .. } => "Activated",
            Phase::Rejected => "Rejected",
            Phase::Deleted => "Deleted",
        }
    }
}

/// What was asked and what came of it, for tests and demos.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct JournalEntry {
    /// The operation.
    pub action: String,
    /// Who called; 0 when nobody we know.
    pub account: AccountId,
    /// The name of the session, if it was one.
    pub session: Option<String>,
    /// Of the call.
    pub parameters: BTreeMap<String, String>,
    /// `OK`, or the code.
    pub code: String,
    /// Whether it changed anything.
    pub effect: bool,
}

impl JournalEntry {
    /// Whether it only asked what would be.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.parameters.get("DryRun").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// A change that a test makes behind everybody's back.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tampering {
    /// `Accepting`, `Rejected`, `Expired`, `Deleted`, `Updating` or `Activated`.
    pub status: Option<String>,
    /// What readings show instead of the true status, e.g. `Deleting`; `-` ends it. `Missing` shows nothing at all.
    pub shows: Option<String>,
    /// When the request expires.
    pub expires_at: Option<Timestamp>,
    /// e.g. `FinancialLocked`.
    pub business_status: Option<String>,
    /// e.g. `SWAS`.
    pub managed_service: Option<String>,
    /// Mbit/s.
    pub bandwidth: Option<i64>,
    /// The ranges of the requester's VPC.
    pub requester_cidrs: Option<BTreeSet<IpNet>>,
}

/// What an operation comes to.
type ApiResult = Result<Value, ApiError>;

/// All that the API knows.
#[derive(Debug)]
pub(crate) struct SimulatedApi {
    settings: SimulatorSettings,
    vpcs: BTreeMap<String, BTreeSet<IpNet>>,
    connections: BTreeMap<String, SimulatedPeering>,
    /// The ids of the connections of an account in a region, and of a VPC.
    by_region: BTreeMap<(AccountId, String), BTreeSet<String>>,
    by_vpc: BTreeMap<String, BTreeSet<String>>,
    /// What a client token was used for, and the answer.
    tokens: BTreeMap<(AccountId, String, String), (Parameters, ApiResult)>,
    created: u32,
}

impl SimulatedApi {
    fn new(settings: SimulatorSettings) -> Self {
        let vpcs = settings.accounts.iter().flat_map(|account| account.vpcs.clone()).collect();
        let (connections, by_region, by_vpc) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { settings, vpcs, connections, by_region, by_vpc, tokens: BTreeMap::new(), created: 0 }
    }

    /// Carries out a call of an authenticated account; says also whether it changed anything.
    fn call_operation(
        &mut self,
        caller: AccountId,
        action: &str,
        call: &Parameters,
        now: Timestamp,
    ) -> (Result<Value, ApiError>, bool) {
        let token = call.get("ClientToken").filter(|token| !token.is_empty());
        if token.is_some_and(|token| token.len() > 64 || !token.is_ascii()) {
            return (Err(bad_request("IllegalParam.ClientToken", "The specified ClientToken is illegal.")), false);
        }
        let key = token.map(|token| (caller, action.to_owned(), token.clone()));
        if let Some((parameters, answer)) = key.as_ref().and_then(|key| self.tokens.get(key)) {
            if parameters == call {
                return (answer.clone(), false);
            }
            let message = "The request uses the same client token as a previous, but non-identical request.";
            return (Err(bad_request("IdempotentParameterMismatch", message)), false);
        }
        let answer = match action {
            "CreateVpcPeerConnection" => self.create_peering(caller, call, now),
            "AcceptVpcPeerConnection" => self.accept_peering(caller, call, now),
            "RejectVpcPeerConnection" => self.reject_peering(caller, call, now),
            "DeleteVpcPeerConnection" => self.delete_peering(caller, call, now),
            "ModifyVpcPeerConnection" => self.modify_peering(caller, call, now),
            "GetVpcPeerConnectionAttribute" => return (self.get_peering(caller, call, now), false),
            "ListVpcPeerConnections" => return (self.list_peerings(caller, call, now), false),
            _ => {
                let unknown = "Specified api is not found, please check your url and method.";
                return (Err(ApiError::new(404, "InvalidAction.NotFound", unknown)), false);
            }
        };
        let effect = answer.is_ok();
        let spent = answer.as_ref().map_or_else(|error| error.code == "DryRunOperation", |_| true);
        if let Some(key) = key.filter(|_| spent) {
            self.tokens.insert(key, (call.clone(), answer.clone()));
        }
        (answer, effect)
    }

    fn create_peering(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> Result<Value, ApiError> {
        let region = require_parameter(call, "RegionId")?;
        let vpc = require_parameter(call, "VpcId")?;
        let accepting_region = require_parameter(call, "AcceptingRegionId")?;
        let accepting_vpc = require_parameter(call, "AcceptingVpcId")?;
        let accepting = require_parameter(call, "AcceptingAliUid")?;
        let accepting =
            AccountId::try_from(accepting).map_err(|_| bad_request("IllegalParam.AcceptingAliUid", "Illegal."))?;
        let bandwidth = integer_parameter(call, "Bandwidth")?;
        let taken = |peering: &SimulatedPeering| {
            let vpcs = [&peering.requester.2, &peering.accepter.2];
            let open = ["Accepting", "Updating", "Activated"].contains(&peering.current_status(now));
            open && vpcs.contains(&&vpc) && vpcs.contains(&&accepting_vpc)
        };
        let of_vpc = self.by_vpc.get(&vpc).into_iter().flatten();
        if of_vpc.filter_map(|id| self.connections.get(id)).any(taken) {
            return Err(bad_request("ResourceAlreadyExist.VpcPeer", "The VPC peer connection already exists."));
        }
        end_dry_run(call)?;
        for vpc in [&vpc, &accepting_vpc] {
            self.ensure_vpc(vpc);
        }
        self.created += 1;
        let id = format!("pcc-sim{:08}", self.created);
        let across = region != accepting_region;
        let phase = if caller == accepting {
            Phase::Updating { until: now + self.settings.activation_delay }
        } else {
            Phase::Accepting { until: now + self.settings.expires_after }
        };
        let text = |name: &str| call.get(name).cloned().unwrap_or_default();
        let link_type = match text("LinkType") {
            none if none.is_empty() => if across { "Gold" } else { "" }.to_owned(),
            given => given,
        };
        let peering = SimulatedPeering {
            name: text("Name"),
            description: text("Description"),
            requester: (caller, region, vpc),
            accepter: (accepting, accepting_region, accepting_vpc),
            bandwidth: bandwidth.unwrap_or(if across { 1024 } else { -1 }),
            link_type,
            created_at: now,
            phase,
            business_status: "Normal".into(),
            managed_service: String::new(),
            shown_status: None,
        };
        for (account, region, vpc) in [&peering.requester, &peering.accepter] {
            self.by_region.entry((*account, region.clone())).or_default().insert(id.clone());
            self.by_vpc.entry(vpc.clone()).or_default().insert(id.clone());
        }
        self.connections.insert(id.clone(), peering);
        Ok(json!({"InstanceId": id}))
    }

    /// Both ends of a connection.
    fn vpcs_of(&self, id: &str) -> Vec<String> {
        let ends =
            self.connections.get(id).map(|peering| vec![peering.requester.2.clone(), peering.accepter.2.clone()]);
        ends.unwrap_or_default()
    }

    /// Gives a VPC that nobody described a range of its own.
    fn ensure_vpc(&mut self, vpc: &str) {
        if !self.vpcs.contains_key(vpc) {
            let number = self.vpcs.len();
            let range = format!("10.{}.{}.0/24", number / 256 % 256, number % 256);
            self.vpcs.insert(vpc.to_owned(), range.parse().into_iter().collect());
        }
    }

    fn accept_peering(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> Result<Value, ApiError> {
        let until = now + self.settings.activation_delay;
        let (id, peering) = self.find_waiting(caller, call, now)?;
        if peering.business_status != "Normal" {
            let message = format!("The business status of {id} [{}] is incorrect.", peering.business_status);
            return Err(bad_request("IncorrectBusinessStatus.VpcPeer", &message));
        }
        end_dry_run(call)?;
        peering.phase = Phase::Updating { until };
        Ok(json!({}))
    }

    fn reject_peering(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> Result<Value, ApiError> {
        let (_, peering) = self.find_waiting(caller, call, now)?;
        end_dry_run(call)?;
        peering.phase = Phase::Rejected;
        Ok(json!({}))
    }

    /// The connection, if it waits for the caller.
    fn find_waiting(
        &mut self,
        caller: AccountId,
        call: &Parameters,
        now: Timestamp,
    ) -> Result<(String, &mut SimulatedPeering), ApiError> {
        let (id, peering) = self.find_peering(call)?;
        if peering.accepter.0 != caller || peering.phase == Phase::Deleted {
            return Err(not_found(&id));
        }
        let status = peering.current_status(now);
        if status != "Accepting" {
            return Err(bad_request(
                "IncorrectStatus.VpcPeer",
                &format!("The status of {id} [{status}] is incorrect."),
            ));
        }
        Ok((id, peering))
    }

    fn delete_peering(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> Result<Value, ApiError> {
        let (id, peering) = self.find_peering(call)?;
        let party = [peering.requester.0, peering.accepter.0].contains(&caller);
        if !party || peering.phase == Phase::Deleted {
            return Err(not_found(&id));
        }
        if peering.current_status(now) == "Updating" {
            return Err(bad_request(
                "IncorrectStatus.VpcPeer",
                &format!("The status of {id} [Updating] is incorrect."),
            ));
        }
        end_dry_run(call)?;
        peering.phase = Phase::Deleted;
        Ok(json!({}))
    }

    fn modify_peering(&mut self, caller: AccountId, call: &Parameters, _: Timestamp) -> Result<Value, ApiError> {
        let bandwidth = integer_parameter(call, "Bandwidth")?;
        let (id, peering) = self.find_peering(call)?;
        if ![peering.requester.0, peering.accepter.0].contains(&caller) {
            return Err(not_found(&id));
        }
        end_dry_run(call)?;
        for (field, name) in [(&mut peering.name, "Name"), (&mut peering.description, "Description")] {
            if let Some(text) = call.get(name) {
                field.clone_from(text);
            }
        }
        peering.bandwidth = bandwidth.unwrap_or(peering.bandwidth);
        Ok(json!({}))
    }

    fn get_peering(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> Result<Value, ApiError> {
        let (id, peering) = self.find_peering(call)?;
        let party = [peering.requester.0, peering.accepter.0].contains(&caller);
        if !party || peering.is_gone() {
            return Err(not_found(&id));
        }
        let peering = peering.clone();
        Ok(self.peering_json(&id, &peering, now))
    }

    fn list_peerings(&self, caller: AccountId, call: &Parameters, now: Timestamp) -> Result<Value, ApiError> {
        let size = usize::try_from(integer_parameter(call, "MaxResults")?.unwrap_or(20)).unwrap_or(0);
        if !(1..=100).contains(&size) {
            return Err(bad_request("IllegalParam.MaxResults", "The specified MaxResults is illegal."));
        }
        let skip = call.get("NextToken").filter(|token| !token.is_empty()).map_or(Ok(0), |token| token.parse());
        let skip: usize =
            skip.map_err(|_| bad_request("IllegalParam.NextToken", "The specified NextToken is illegal."))?;
        let given = |name: &str| call.get(name).filter(|value| !value.is_empty());
        let vpcs = given("VpcId").map(|list| list.split(',').collect::<Vec<_>>());
        let wanted = |id: &str, peering: &SimulatedPeering| {
            let ends = [&peering.requester, &peering.accepter];
            ends.iter().any(|(account, region, _)| {
                *account == caller && given("RegionId").is_none_or(|wanted| wanted == region)
            }) && given("InstanceId").is_none_or(|wanted| wanted == id)
                && given("Name").is_none_or(|wanted| *wanted == peering.name)
                && vpcs.as_ref().is_none_or(|vpcs| vpcs.iter().all(|vpc| ends.iter().any(|end| end.2 == *vpc)))
                && !peering.is_gone()
        };
        let none = BTreeSet::new();
        let of_region = |region: &String| self.by_region.get(&(caller, region.clone())).unwrap_or(&none);
        let some = match vpcs.as_ref().and_then(|vpcs| vpcs.first()) {
            Some(vpc) => Some(self.by_vpc.get(*vpc).unwrap_or(&none)),
            None => given("RegionId").map(of_region),
        };
        let all: Vec<_> = match some {
            Some(ids) => ids.iter().filter_map(|id| self.connections.get_key_value(id)).collect(),
            None => self.connections.iter().collect(),
        };
        let all: Vec<_> = all.into_iter().filter(|(id, peering)| wanted(id, peering)).collect();
        let page: Vec<_> =
            all.iter().skip(skip).take(size).map(|(id, peering)| self.peering_json(id, peering, now)).collect();
        let next = skip + page.len();
        let next = if next < all.len() { next.to_string() } else { String::new() };
        Ok(json!({"TotalCount": all.len(), "MaxResults": size, "NextToken": next, "VpcPeerConnects": page}))
    }

    fn find_peering(&mut self, call: &Parameters) -> Result<(String, &mut SimulatedPeering), ApiError> {
        let id = require_parameter(call, "InstanceId")?;
        let peering = self.connections.get_mut(&id).ok_or_else(|| not_found(&id))?;
        Ok((id, peering))
    }

    fn peering_json(&self, id: &str, peering: &SimulatedPeering, now: Timestamp) -> Value {
        // The vendor calls every field nullable.
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let some = |cidrs: Vec<IpNet>| (!cidrs.is_empty()).then_some(cidrs);
        let status = peering.shown_status.as_deref().unwrap_or_else(|| peering.current_status(now));
        let expires_at = match peering.phase {
            Phase::Accepting { until } => Some(format_time(until)),
            Phase::Updating { .. } | Phase::Rejected | Phase::Deleted => None,
        };
        let vpc = |id: &str| {
            let cidrs = self.vpcs.get(id).cloned().unwrap_or_default();
            let (v4, v6): (Vec<_>, Vec<_>) = cidrs.into_iter().partition(|cidr| matches!(cidr, IpNet::V4(_)));
            json!({"VpcId": id, "Ipv4Cidrs": some(v4), "Ipv6Cidrs": some(v6)})
        };
        json!({
            "InstanceId": id,
            "Status": status,
            "BizStatus": peering.business_status,
            "OwnerId": peering.requester.0.0,
            "AcceptingOwnerUid": peering.accepter.0.0,
            "RegionId": peering.requester.1,
            "AcceptingRegionId": peering.accepter.1,
            "Vpc": vpc(&peering.requester.2),
            "AcceptingVpc": vpc(&peering.accepter.2),
            "Bandwidth": peering.bandwidth,
            "LinkType": text(&peering.link_type),
            "Name": text(&peering.name),
            "Description": text(&peering.description),
            "GmtCreate": format_time(peering.created_at),
            "GmtModified": format_time(peering.created_at),
            "GmtExpired": expires_at,
            "ManagedService": text(&peering.managed_service),
            "ResourceGroupId": "rg-simulated",
            "Tags": [],
        })
    }

    fn status_of(&self, id: &str, now: Timestamp) -> Option<&'static str> {
        self.connections.get(id).map(|peering| peering.current_status(now))
    }

    fn shown_json(&self, id: &str, now: Timestamp) -> Option<Value> {
        self.connections.get(id).map(|peering| self.peering_json(id, peering, now))
    }

    fn tamper(&mut self, id: &str, tampering: Tampering, now: Timestamp) -> bool {
        let Some(peering) = self.connections.get_mut(id) else {
            return false;
        };
        let ago = now - SignedDuration::from_secs(1);
        match tampering.status.as_deref() {
            Some("Accepting") => peering.phase = Phase::Accepting { until: now + self.settings.expires_after },
            Some("Rejected") => peering.phase = Phase::Rejected,
            Some("Expired") => peering.phase = Phase::Accepting { until: ago },
            Some("Deleted") => peering.phase = Phase::Deleted,
            Some("Activated") => peering.phase = Phase::Updating { until: ago },
            Some("Updating") => peering.phase = Phase::Updating { until: now + SignedDuration::from_hours(1) },
            Some(_) => return false,
            None => {}
        }
        if let Some(until) = tampering.expires_at {
            peering.phase = Phase::Accepting { until };
        }
        if let Some(shows) = tampering.shows {
            peering.shown_status = Some(shows).filter(|shows| shows != "-");
        }
        peering.bandwidth = tampering.bandwidth.unwrap_or(peering.bandwidth);
        if let Some(status) = tampering.business_status {
            peering.business_status = status;
        }
        if let Some(service) = tampering.managed_service {
            peering.managed_service = service;
        }
        if let Some(cidrs) = tampering.requester_cidrs {
            self.vpcs.insert(peering.requester.2.clone(), cidrs);
        }
        true
    }
}

fn not_found(id: &str) -> ApiError {
    bad_request("ResourceNotFound.InstanceId", &format!("The specified resource of {id} is not found."))
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
pub(crate) fn is_dry_run(call: &Parameters) -> bool {
    call.get("DryRun").is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Ends a dry run: everything before it was found to be right.
fn end_dry_run(call: &Parameters) -> Result<(), ApiError> {
    if is_dry_run(call) {
        return Err(bad_request("DryRunOperation", "The operation DryRun verifies success."));
    }
    Ok(())
}

fn format_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

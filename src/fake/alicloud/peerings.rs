//! The simulated connections, and what each operation does to them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::routing::{self, SimulatedVpcs};
use super::{
    ApiError, ApiResult, OperationResult, SimulatorSettings, Tampering, bad_request, format_time, integer_parameter,
    is_dry_run, require_parameter,
};
use crate::alicloud::sign::Parameters;
use crate::clock;
use crate::peering::AccountId;

/// One side of a connection.
#[derive(Debug, Clone)]
struct PeeringSide {
    account: AccountId,
    region: String,
    vpc: String,
}

/// A connection. Its status follows from its phase and the time.
#[derive(Debug, Clone)]
struct SimulatedPeering {
    id: String,
    name: String,
    description: String,
    requester: PeeringSide,
    accepter: PeeringSide,
    bandwidth: i64,
    link_type: String,
    created_at: Timestamp,
    phase: Phase,
    business_status: String,
    managed_service: String,
    /// The status that reads show instead of the true one.
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
    fn sides(&self) -> [&PeeringSide; 2] {
        [&self.requester, &self.accepter]
    }

    fn has_party(&self, account: AccountId) -> bool {
        self.sides().iter().any(|side| side.account == account)
    }

    /// Whether reads do not show it.
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

/// What a client token was used for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TokenKey {
    account: AccountId,
    action: String,
    token: String,
}

/// The call that used a client token. An equal call gets the same answer.
#[derive(Debug)]
struct SpentToken {
    parameters: Parameters,
    answer: ApiResult,
}

/// The state of the API.
#[derive(Debug)]
pub(super) struct SimulatedApi {
    pub(super) settings: SimulatorSettings,
    pub(super) vpcs: BTreeMap<String, BTreeSet<IpNet>>,
    connections: BTreeMap<String, SimulatedPeering>,
    /// The ids of the connections of an account in a region.
    by_region: BTreeMap<(AccountId, String), BTreeSet<String>>,
    /// The ids of the connections of a VPC.
    by_vpc: BTreeMap<String, BTreeSet<String>>,
    tokens: BTreeMap<TokenKey, SpentToken>,
    created: u32,
    pub(super) routing: SimulatedVpcs,
}

impl SimulatedApi {
    pub(super) fn new(settings: SimulatorSettings) -> Self {
        let vpcs = settings.accounts.iter().flat_map(|account| account.vpcs.clone()).collect();
        let (connections, by_region, by_vpc) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (tokens, routing) = (BTreeMap::new(), SimulatedVpcs::default());
        Self { settings, vpcs, connections, by_region, by_vpc, tokens, created: 0, routing }
    }

    /// Carries out a call of an authenticated account.
    pub(super) fn call_operation(
        &mut self,
        caller: AccountId,
        action: &str,
        call: &Parameters,
        now: Timestamp,
    ) -> OperationResult {
        let token = call.get("ClientToken").filter(|token| !token.is_empty());
        if token.is_some_and(|token| token.len() > 64 || !token.is_ascii()) {
            let error = bad_request("IllegalParam.ClientToken", "The specified ClientToken is illegal.");
            return OperationResult::without_effect(Err(error));
        }
        let key = token.map(|token| TokenKey { account: caller, action: action.to_owned(), token: token.clone() });
        if let Some(SpentToken { parameters, answer }) = key.as_ref().and_then(|key| self.tokens.get(key)) {
            if parameters == call {
                return OperationResult::without_effect(answer.clone());
            }
            let message = "The request uses the same client token as a previous, but non-identical request.";
            return OperationResult::without_effect(Err(bad_request("IdempotentParameterMismatch", message)));
        }
        if routing::OPERATIONS.contains(&action) {
            return self.call_vpc_operation(caller, action, call, now);
        }
        let answer = match action {
            "CreateVpcPeerConnection" => self.create_peering(caller, call, now),
            "AcceptVpcPeerConnection" => self.accept_peering(caller, call, now),
            "RejectVpcPeerConnection" => self.reject_peering(caller, call, now),
            "DeleteVpcPeerConnection" => self.delete_peering(caller, call, now),
            "ModifyVpcPeerConnection" => self.modify_peering(caller, call, now),
            "GetVpcPeerConnectionAttribute" => {
                return OperationResult::without_effect(self.get_peering(caller, call, now));
            }
            "ListVpcPeerConnections" => return OperationResult::without_effect(self.list_peerings(caller, call, now)),
            _ => {
                let message = "Specified api is not found, please check your url and method.";
                return OperationResult::without_effect(Err(ApiError::new(404, "InvalidAction.NotFound", message)));
            }
        };
        let is_spent = answer.as_ref().map_or_else(|error| error.code == "DryRunOperation", |_| true);
        if let Some(key) = key.filter(|_| is_spent) {
            self.tokens.insert(key, SpentToken { parameters: call.clone(), answer: answer.clone() });
        }
        OperationResult { had_effect: answer.is_ok(), answer }
    }

    fn create_peering(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> ApiResult {
        let region = require_parameter(call, "RegionId")?;
        let vpc = vpc_parameter(call, "VpcId")?;
        let accepting_region = require_parameter(call, "AcceptingRegionId")?;
        let accepting_vpc = vpc_parameter(call, "AcceptingVpcId")?;
        let accepting = require_parameter(call, "AcceptingAliUid")?;
        let accepting =
            AccountId::try_from(accepting).map_err(|_| bad_request("IllegalParam.AcceptingAliUid", "Illegal."))?;
        let bandwidth = bandwidth_parameter(call)?;
        let is_same = |peering: &SimulatedPeering| {
            let vpcs = peering.sides().map(|side| &side.vpc);
            let is_open = ["Accepting", "Updating", "Activated"].contains(&peering.current_status(now));
            is_open && vpcs.contains(&&vpc) && vpcs.contains(&&accepting_vpc)
        };
        let of_vpc = self.by_vpc.get(&vpc).into_iter().flatten();
        if of_vpc.filter_map(|id| self.connections.get(id)).any(is_same) {
            return Err(bad_request("ResourceAlreadyExist.VpcPeer", "The VPC peer connection already exists."));
        }
        end_dry_run(call)?;
        for vpc in [&vpc, &accepting_vpc] {
            self.ensure_vpc(vpc);
        }
        self.created += 1;
        let id = if self.settings.numbered_ids {
            format!("pcc-sim{:08}", self.created)
        } else {
            format!("pcc-{:.18}", clock::nonce())
        };
        let is_interregional = region != accepting_region;
        let phase = if caller == accepting {
            Phase::Updating { until: now + self.settings.activation_delay }
        } else {
            Phase::Accepting { until: now + self.settings.expires_after }
        };
        let text = |name: &str| call.get(name).cloned().unwrap_or_default();
        let link_type = match text("LinkType") {
            none if none.is_empty() => if is_interregional { "Gold" } else { "" }.to_owned(),
            given => given,
        };
        let peering = SimulatedPeering {
            id: id.clone(),
            name: text("Name"),
            description: text("Description"),
            requester: PeeringSide { account: caller, region, vpc },
            accepter: PeeringSide { account: accepting, region: accepting_region, vpc: accepting_vpc },
            bandwidth: bandwidth.unwrap_or(if is_interregional { 1024 } else { -1 }),
            link_type,
            created_at: now,
            phase,
            business_status: "Normal".into(),
            managed_service: String::new(),
            shown_status: None,
        };
        for side in peering.sides() {
            self.by_region.entry((side.account, side.region.clone())).or_default().insert(id.clone());
            self.by_vpc.entry(side.vpc.clone()).or_default().insert(id.clone());
        }
        self.connections.insert(id.clone(), peering);
        Ok(json!({"InstanceId": id}))
    }

    /// The VPCs of a connection; empty if it does not exist.
    pub(super) fn vpcs_of(&self, id: &str) -> Vec<String> {
        let peering = self.connections.get(id);
        peering.map(|peering| peering.sides().map(|side| side.vpc.clone()).into()).unwrap_or_default()
    }

    pub(super) fn set_cidrs(&mut self, vpc: &str, cidrs: BTreeSet<IpNet>) {
        self.vpcs.insert(vpc.to_owned(), cidrs);
    }

    /// The CIDR blocks of a VPC, as its peerings show them.
    pub(super) fn cidrs_of(&self, vpc: &str) -> BTreeSet<IpNet> {
        self.vpcs.get(vpc).cloned().unwrap_or_default()
    }

    /// The VPCs of an account in a region that have a peering.
    pub(super) fn vpcs_of_owner(&self, account: AccountId, region: &str) -> BTreeSet<String> {
        let ids = self.by_region.get(&(account, region.to_owned())).into_iter().flatten();
        let sides = ids.filter_map(|id| self.connections.get(id)).flat_map(SimulatedPeering::sides);
        sides.filter(|side| side.account == account && side.region == region).map(|side| side.vpc.clone()).collect()
    }

    /// Whether an account owns a VPC.
    pub(super) fn owns(&self, account: AccountId, vpc: &str) -> bool {
        let ids = self.by_vpc.get(vpc).into_iter().flatten();
        let mut sides = ids.filter_map(|id| self.connections.get(id)).flat_map(SimulatedPeering::sides);
        sides.any(|side| side.account == account && side.vpc == vpc)
    }

    fn accept_peering(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> ApiResult {
        let until = now + self.settings.activation_delay;
        let peering = self.find_pending(caller, call, now)?;
        if peering.business_status != "Normal" {
            let SimulatedPeering { id, business_status, .. } = peering;
            let message = format!("The business status of {id} [{business_status}] is incorrect.");
            return Err(bad_request("IncorrectBusinessStatus.VpcPeer", &message));
        }
        end_dry_run(call)?;
        peering.phase = Phase::Updating { until };
        Ok(json!({}))
    }

    fn reject_peering(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> ApiResult {
        let peering = self.find_pending(caller, call, now)?;
        end_dry_run(call)?;
        peering.phase = Phase::Rejected;
        Ok(json!({}))
    }

    /// The connection, if the caller can accept or reject it.
    fn find_pending(
        &mut self,
        caller: AccountId,
        call: &Parameters,
        now: Timestamp,
    ) -> Result<&mut SimulatedPeering, ApiError> {
        let peering = self.find_peering(call)?;
        if peering.accepter.account != caller || peering.phase == Phase::Deleted {
            return Err(not_found(&peering.id));
        }
        let status = peering.current_status(now);
        if status != "Accepting" {
            return Err(bad_request(
                "IncorrectStatus.VpcPeer",
                &format!("The status of {} [{status}] is incorrect.", peering.id),
            ));
        }
        Ok(peering)
    }

    fn delete_peering(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> ApiResult {
        let peering = self.find_peering(call)?;
        if !peering.has_party(caller) || peering.phase == Phase::Deleted {
            return Err(not_found(&peering.id));
        }
        if peering.current_status(now) == "Updating" {
            return Err(bad_request(
                "IncorrectStatus.VpcPeer",
                &format!("The status of {} [Updating] is incorrect.", peering.id),
            ));
        }
        let is_forced = call.get("Force").is_some_and(|force| force.eq_ignore_ascii_case("true"));
        let id = peering.id.clone();
        if !is_forced && self.routing.has_route_to(&id) {
            let message = "The operation is denied because a route entry leads to the peering.";
            return Err(bad_request("OperationDenied.RouteEntryExist", message));
        }
        end_dry_run(call)?;
        self.routing.remove_routes_to(&id);
        self.find_peering(call)?.phase = Phase::Deleted;
        Ok(json!({}))
    }

    fn modify_peering(&mut self, caller: AccountId, call: &Parameters, _: Timestamp) -> ApiResult {
        let bandwidth = bandwidth_parameter(call)?;
        let peering = self.find_peering(call)?;
        if !peering.has_party(caller) {
            return Err(not_found(&peering.id));
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

    fn get_peering(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> ApiResult {
        let peering = self.find_peering(call)?;
        if !peering.has_party(caller) || peering.is_gone() {
            return Err(not_found(&peering.id));
        }
        let peering = peering.clone();
        Ok(self.peering_json(&peering, now))
    }

    fn list_peerings(&self, caller: AccountId, call: &Parameters, now: Timestamp) -> ApiResult {
        let size = usize::try_from(integer_parameter(call, "MaxResults")?.unwrap_or(20)).unwrap_or(0);
        if !(1..=100).contains(&size) {
            return Err(bad_request("IllegalParam.MaxResults", "The specified MaxResults is illegal."));
        }
        let skip = call.get("NextToken").filter(|token| !token.is_empty()).map_or(Ok(0), |token| token.parse());
        let skip: usize =
            skip.map_err(|_| bad_request("IllegalParam.NextToken", "The specified NextToken is illegal."))?;
        let given = |name: &str| call.get(name).filter(|value| !value.is_empty());
        let vpcs = given("VpcId").map(|list| list.split(',').collect::<Vec<_>>());
        let is_listed = |peering: &&SimulatedPeering| {
            let sides = peering.sides();
            let is_in_region = |side: &&PeeringSide| given("RegionId").is_none_or(|region| *region == side.region);
            let has_vpc = |vpc: &&str| sides.iter().any(|side| side.vpc == *vpc);
            sides.iter().any(|side| side.account == caller && is_in_region(side))
                && given("InstanceId").is_none_or(|id| *id == peering.id)
                && given("Name").is_none_or(|name| *name == peering.name)
                && vpcs.as_ref().is_none_or(|vpcs| vpcs.iter().all(has_vpc))
                && !peering.is_gone()
        };
        let none = BTreeSet::new();
        let of_region = |region: &String| self.by_region.get(&(caller, region.clone())).unwrap_or(&none);
        let candidates = match vpcs.as_ref().and_then(|vpcs| vpcs.first()) {
            Some(vpc) => Some(self.by_vpc.get(*vpc).unwrap_or(&none)),
            None => given("RegionId").map(of_region),
        };
        let candidates: Vec<_> = match candidates {
            Some(ids) => ids.iter().filter_map(|id| self.connections.get(id)).collect(),
            None => self.connections.values().collect(),
        };
        let listed: Vec<_> = candidates.into_iter().filter(is_listed).collect();
        let page: Vec<_> = listed.iter().skip(skip).take(size).map(|peering| self.peering_json(peering, now)).collect();
        let next = skip + page.len();
        let next = if next < listed.len() { next.to_string() } else { String::new() };
        Ok(json!({"TotalCount": listed.len(), "MaxResults": size, "NextToken": next, "VpcPeerConnects": page}))
    }

    fn find_peering(&mut self, call: &Parameters) -> Result<&mut SimulatedPeering, ApiError> {
        let id = require_parameter(call, "InstanceId")?;
        self.connections.get_mut(&id).ok_or_else(|| not_found(&id))
    }

    fn peering_json(&self, peering: &SimulatedPeering, now: Timestamp) -> Value {
        // The vendor documents every field as nullable.
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let list = |cidrs: Vec<IpNet>| (!cidrs.is_empty()).then_some(cidrs);
        let status = peering.shown_status.as_deref().unwrap_or_else(|| peering.current_status(now));
        let expires_at = match peering.phase {
            Phase::Accepting { until } => Some(format_time(until)),
            Phase::Updating { .. } | Phase::Rejected | Phase::Deleted => None,
        };
        let vpc = |id: &str| {
            let cidrs = self.vpcs.get(id).cloned().unwrap_or_default();
            let (v4, v6): (Vec<_>, Vec<_>) = cidrs.into_iter().partition(|cidr| matches!(cidr, IpNet::V4(_)));
            json!({"VpcId": id, "Ipv4Cidrs": list(v4), "Ipv6Cidrs": list(v6)})
        };
        json!({
            "InstanceId": peering.id,
            "Status": status,
            "BizStatus": peering.business_status,
            "OwnerId": peering.requester.account.0,
            "AcceptingOwnerUid": peering.accepter.account.0,
            "RegionId": peering.requester.region,
            "AcceptingRegionId": peering.accepter.region,
            "Vpc": vpc(&peering.requester.vpc),
            "AcceptingVpc": vpc(&peering.accepter.vpc),
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

    pub(super) fn status_of(&self, id: &str, now: Timestamp) -> Option<&'static str> {
        self.connections.get(id).map(|peering| peering.current_status(now))
    }

    pub(super) fn shown_json(&self, id: &str, now: Timestamp) -> Option<Value> {
        self.connections.get(id).map(|peering| self.peering_json(peering, now))
    }

    /// Returns whether the connection exists and the status is known.
    pub(super) fn tamper(&mut self, id: &str, tampering: Tampering, now: Timestamp) -> bool {
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
            self.vpcs.insert(peering.requester.vpc.clone(), cidrs);
        }
        true
    }
}

/// In Mbit/s. The vendor takes a whole number above 0.
fn bandwidth_parameter(call: &Parameters) -> Result<Option<i64>, ApiError> {
    let bandwidth = integer_parameter(call, "Bandwidth")?;
    if bandwidth.is_some_and(|it| !(1..=i64::from(i32::MAX)).contains(&it)) {
        return Err(bad_request("IllegalParam.Bandwidth", "The specified Bandwidth is illegal."));
    }
    Ok(bandwidth)
}

fn vpc_parameter(call: &Parameters, name: &str) -> Result<String, ApiError> {
    let vpc = require_parameter(call, name)?;
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    if vpc.strip_prefix("vpc-").is_none_or(|rest| rest.is_empty() || !rest.chars().all(is_letter)) {
        return Err(bad_request(&format!("IllegalParam.{name}"), &format!("The specified {name} is illegal.")));
    }
    Ok(vpc)
}

/// Ends a dry run. The caller has checked everything that the real call needs.
fn end_dry_run(call: &Parameters) -> Result<(), ApiError> {
    if is_dry_run(call) {
        return Err(bad_request("DryRunOperation", "The operation DryRun verifies success."));
    }
    Ok(())
}

fn not_found(id: &str) -> ApiError {
    bad_request("ResourceNotFound.InstanceId", &format!("The specified resource of {id} is not found."))
}

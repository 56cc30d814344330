//! The VPC API in memory: VPCs as their owner sees them, route tables and routes.
//!
//! Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-overview>

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::peerings::SimulatedApi;
use super::routing::{SimulatedRoute, SimulatedTable, system_table_id};
use super::{ApiError, ApiResult, OperationResult, bad_request, integer_parameter, is_dry_run, require_parameter};
use crate::alicloud::sign::Parameters;
use crate::peering::AccountId;

/// How long a new route is `Pending`.
const ROUTE_DELAY: SignedDuration = SignedDuration::from_secs(1);
const CLOUD_SERVICES: &str = "100.64.0.0/10";

impl SimulatedApi {
    /// Carries out an operation of the VPC API.
    pub(super) fn call_vpc_operation(
        &mut self,
        caller: AccountId,
        action: &str,
        call: &Parameters,
        now: Timestamp,
    ) -> OperationResult {
        match action {
            "DescribeVpcs" => OperationResult::without_effect(self.describe_vpcs(caller, call)),
            "DescribeRouteTableList" => OperationResult::without_effect(self.list_tables(caller, call)),
            "DescribeRouteEntryList" => OperationResult::without_effect(self.list_routes(caller, call, now)),
            "CreateRouteEntry" => {
                let answer = self.create_route(caller, call, now);
                OperationResult { had_effect: answer.is_ok(), answer }
            }
            _ => {
                let answer = self.delete_route(caller, call);
                OperationResult { had_effect: answer.is_ok(), answer }
            }
        }
    }

    /// Gives a new VPC its own CIDR block.
    pub(super) fn ensure_vpc(&mut self, vpc: &str) {
        self.routing.ensure_system_table(vpc);
        if !self.vpcs.contains_key(vpc) {
            let number = self.vpcs.len();
            let cidr = format!("10.{}.{}.0/24", number / 256 % 256, number % 256);
            self.vpcs.insert(vpc.to_owned(), cidr.parse().into_iter().collect());
        }
    }

    fn describe_vpcs(&self, caller: AccountId, call: &Parameters) -> ApiResult {
        let region = require_parameter(call, "RegionId")?;
        let ids = call.get("VpcId").cloned().unwrap_or_default();
        if ids.split(',').count() > 20 {
            return Err(bad_request("InvalidVpcId.Malformed", "At most 20 VPC ids."));
        }
        let is_asked_for = |vpc: &&String| ids.is_empty() || ids.split(',').any(|id| id == vpc.as_str());
        let vpcs: Vec<_> = self.vpcs_of_owner(caller, &region).into_iter().filter(|vpc| is_asked_for(&vpc)).collect();
        let PageRange { size, skip, number } = PageRange::of(call)?;
        let shown: Vec<_> = vpcs.iter().skip(skip).take(size).map(|vpc| self.vpc_json(vpc, caller, &region)).collect();
        Ok(json!({"TotalCount": vpcs.len(), "PageNumber": number, "PageSize": size, "Vpcs": {"Vpc": shown}}))
    }

    fn vpc_json(&self, vpc: &str, owner: AccountId, region: &str) -> Value {
        let mut cidrs = self.cidrs_of(vpc);
        cidrs.extend(self.routing.hidden_cidrs.get(vpc).into_iter().flatten());
        let (v4, v6): (Vec<_>, Vec<_>) = cidrs.into_iter().partition(|cidr| matches!(cidr, IpNet::V4(_)));
        let mut v4 = v4.into_iter();
        let v6_blocks: Vec<_> = v6.iter().map(|block| json!({"Ipv6CidrBlock": block, "Ipv6Isp": "BGP"})).collect();
        json!({
            "VpcId": vpc, "RegionId": region, "OwnerId": owner.0, "Status": "Available", "VpcName": "",
            "CidrBlock": v4.next(), "SecondaryCidrBlocks": {"SecondaryCidrBlock": v4.collect::<Vec<_>>()},
            "Ipv6CidrBlock": v6.first(), "Ipv6CidrBlocks": {"Ipv6CidrBlock": v6_blocks},
            "UserCidrs": {"UserCidr": []}, "VSwitchIds": {"VSwitchId": [format!("vsw-{vpc}")]},
            "RouterTableIds": {"RouterTableIds": [system_table_id(vpc)]}, "IsDefault": false,
        })
    }

    fn list_tables(&self, caller: AccountId, call: &Parameters) -> ApiResult {
        let region = require_parameter(call, "RegionId")?;
        let own = self.vpcs_of_owner(caller, &region);
        let wanted = call.get("VpcId").filter(|vpc| !vpc.is_empty());
        let is_listed = |table: &SimulatedTable| own.contains(&table.vpc) && wanted.is_none_or(|vpc| *vpc == table.vpc);
        let tables: Vec<_> = self.routing.tables.iter().filter(|(_, table)| is_listed(table)).collect();
        let PageRange { size, skip, number } = PageRange::of(call)?;
        let shown = tables.iter().skip(skip).take(size).map(|(id, table)| {
            json!({
                "RouteTableId": id, "VpcId": table.vpc, "RouterType": "VRouter", "AssociateType": "VSwitch",
                "RouteTableType": if table.is_system { "System" } else { "Custom" }, "Status": "Available",
                "VSwitchIds": {"VSwitchId": table.vswitches}, "OwnerId": caller.0,
            })
        });
        let shown: Vec<_> = shown.collect();
        Ok(json!({
            "TotalCount": tables.len(), "PageNumber": number, "PageSize": size,
            "RouterTableList": {"RouterTableListType": shown},
        }))
    }

    fn list_routes(&self, caller: AccountId, call: &Parameters, now: Timestamp) -> ApiResult {
        let table = self.find_table(caller, call)?;
        let size = usize::try_from(integer_parameter(call, "MaxResult")?.unwrap_or(10)).unwrap_or(0);
        if !(1..=100).contains(&size) {
            return Err(bad_request("IllegalParam.MaxResult", "The specified MaxResult is illegal."));
        }
        let skip = call.get("NextToken").filter(|token| !token.is_empty()).map_or(Ok(0), |token| token.parse());
        let skip: usize = skip.map_err(|_| bad_request("IllegalParam.NextToken", "Illegal."))?;
        let locals = self.cidrs_of(&table.vpc).into_iter().take(1).map(|cidr| cidr.to_string());
        let system = locals.chain([CLOUD_SERVICES.to_owned()]).map(|destination| {
            json!({
                "RouteEntryId": "", "DestinationCidrBlock": destination, "Type": "System", "Status": "Available",
                "NextHops": {"NextHop": [{"NextHopType": "local", "NextHopId": ""}]},
            })
        });
        let custom = table.routes.iter().map(|route| {
            json!({
                "RouteEntryId": route.id, "DestinationCidrBlock": route.destination, "Type": "Custom", "IpVersion": "ipv4",
                "Status": if now < route.available_at { "Pending" } else { "Available" },
                "NextHops": {"NextHop": [{"NextHopType": route.next_hop_type, "NextHopId": route.next_hop}]},
            })
        });
        let all: Vec<_> = system.chain(custom).collect();
        let page: Vec<_> = all.iter().skip(skip).take(size).cloned().collect();
        let next = skip + page.len();
        let next_token = if next < all.len() { next.to_string() } else { String::new() };
        Ok(json!({"NextToken": next_token, "RouteEntrys": {"RouteEntry": page}}))
    }

    /// Writes are made one at a time in a VPC, and take a moment.
    fn create_route(&mut self, caller: AccountId, call: &Parameters, now: Timestamp) -> ApiResult {
        let destination = require_parameter(call, "DestinationCidrBlock")?;
        let cidr: IpNet = destination
            .parse()
            .map_err(|_| bad_request("InvalidCidrBlock.Malformed", "The CIDR block is malformed."))?;
        let kind = call.get("NextHopType").filter(|kind| !kind.is_empty()).cloned();
        let next_hop_type = kind.unwrap_or_else(|| "Instance".to_owned());
        let next_hop = require_parameter(call, "NextHopId")?;
        let table = self.find_table(caller, call)?;
        let vpc = table.vpc.clone();
        if table.routes.iter().any(|route| route.destination == destination) {
            return Err(bad_request("InvalidCIDRBlock.Duplicate", "The specified CIDR block is duplicated."));
        }
        if self.cidrs_of(&vpc).iter().take(1).any(|own| own.contains(&cidr)) {
            return Err(bad_request("InvalidRouteEntry.Duplicate", "A system route has the destination."));
        }
        let in_vpc = self.routing.tables.values().filter(|table| table.vpc == vpc).flat_map(|table| &table.routes);
        if in_vpc.into_iter().any(|route| now < route.available_at) {
            return Err(bad_request("TaskConflict", "The operation is too frequent. Please try again later."));
        }
        if next_hop_type == "VpcPeer" {
            match self.status_of(&next_hop, now) {
                None => return Err(bad_request("ResourceNotFound.VpcPeer", "The peering does not exist.")),
                Some("Activated") => {}
                Some(_) => {
                    return Err(bad_request("IncorrectStatus.VpcPeer", "The status of the peering is incorrect."));
                }
            }
        }
        if is_dry_run(call) {
            return Err(bad_request("DryRunOperation", "Request validation has been passed with DryRun flag set."));
        }
        self.routing.created += 1;
        let id = format!("rte-sim{:06}", self.routing.created);
        let route =
            SimulatedRoute { id: id.clone(), destination, next_hop_type, next_hop, available_at: now + ROUTE_DELAY };
        let table = require_parameter(call, "RouteTableId")?;
        if let Some(table) = self.routing.tables.get_mut(&table) {
            table.routes.push(route);
        }
        Ok(json!({"RouteEntryId": id}))
    }

    fn delete_route(&mut self, caller: AccountId, call: &Parameters) -> ApiResult {
        let id = require_parameter(call, "RouteEntryId")?;
        let owned: Vec<_> = self.routing.tables.iter().filter(|(_, table)| self.owns(caller, &table.vpc)).collect();
        let found = owned.iter().find(|(_, table)| table.routes.iter().any(|route| route.id == id));
        let not_found = || bad_request("InvalidRouteEntryId.NotFound", "The route does not exist.");
        let table = found.map(|(id, _)| (*id).clone()).ok_or_else(not_found)?;
        if let Some(table) = self.routing.tables.get_mut(&table) {
            table.routes.retain(|route| route.id != id);
        }
        Ok(json!({}))
    }

    fn find_table(&self, caller: AccountId, call: &Parameters) -> Result<&SimulatedTable, ApiError> {
        let id = require_parameter(call, "RouteTableId")?;
        let table = self.routing.tables.get(&id).filter(|table| self.owns(caller, &table.vpc));
        table.ok_or_else(|| ApiError::new(404, "InvalidRouteTableId.NotFound", "The route table does not exist."))
    }
}

/// A page of a list, which has ten entries unless the caller asks for more.
struct PageRange {
    size: usize,
    number: usize,
    skip: usize,
}

impl PageRange {
    fn of(call: &Parameters) -> Result<Self, ApiError> {
        let number = |name: &str, default| {
            Ok::<_, ApiError>(usize::try_from(integer_parameter(call, name)?.unwrap_or(default)).unwrap_or(0))
        };
        let (size, number) = (number("PageSize", 10)?, number("PageNumber", 1)?);
        if !(1..=50).contains(&size) || number == 0 {
            return Err(bad_request("IllegalParam.PageSize", "The specified page is illegal."));
        }
        Ok(Self { size, number, skip: size * (number - 1) })
    }
}

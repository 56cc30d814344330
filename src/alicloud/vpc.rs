//! The VPC API (`Vpc`, version 2016-04-28): what VPCs and route tables of our own account look like. It answers per region,
//! and takes every parameter in the query.

use std::collections::BTreeSet;

use ipnet::IpNet;
use url::Url;

use super::json::{self, JsonFields};
use super::rpc::{ParameterPlace, Rpc, RpcResponse};
use super::{Alicloud, Credentials, Error};
use crate::peering::{RouteEntry, RouteTable};

const API_VERSION: &str = "2016-04-28";
/// The most VPCs in a call.
///
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-describevpcs>
pub const MAX_VPCS_PER_CALL: usize = 20;
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-describeroutetablelist>
const TABLES_PER_PAGE: &str = "50";
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-describerouteentrylist>
const ROUTES_PER_PAGE: &str = "100";
/// The most pages of route tables, and of the routes of a table. A table has 200 custom routes by default.
const MAX_PAGES: u32 = 20;

/// A list that is not whole.
const INCOMPLETE: Error = Error::Unreadable { http_status: 200 };

/// A VPC of our own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnVpc {
    /// E.g. `vpc-bp1aevy8sofi8mh1q****`.
    pub id: String,
    /// All IPv4 and IPv6 CIDR blocks, also secondary ones.
    pub cidrs: BTreeSet<IpNet>,
}

impl Alicloud {
    /// Describes up to 20 VPCs of our own account. A VPC that does not exist is left out.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-describevpcs>
    pub async fn describe_vpcs(
        &self,
        credentials: Credentials<'_>,
        region: &str,
        ids: &[String],
    ) -> Result<Vec<OwnVpc>, Error> {
        let ids = ids.join(",");
        let parameters = [("RegionId", region), ("VpcId", ids.as_str()), ("PageSize", "50")];
        let response = self.call_vpc_api("DescribeVpcs", region, &parameters, credentials).await?;
        let vpcs = nested_list(&response.fields, "Vpcs", "Vpc");
        Ok(vpcs.iter().filter_map(parse_vpc).collect())
    }

    /// The route tables of a VPC of our own account, without those of gateways, with all their routes. Empty if Alibaba
    /// Cloud shows no such VPC: every VPC has a table.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-describeroutetablelist>
    pub async fn list_route_tables(
        &self,
        credentials: Credentials<'_>,
        region: &str,
        vpc: &str,
    ) -> Result<Vec<RouteTable>, Error> {
        let (mut tables, mut is_whole) = (vec![], false);
        for page in 1..=MAX_PAGES {
            let page = page.to_string();
            let parameters =
                [("RegionId", region), ("VpcId", vpc), ("PageSize", TABLES_PER_PAGE), ("PageNumber", page.as_str())];
            let response = self.call_vpc_api("DescribeRouteTableList", region, &parameters, credentials).await?;
            let listed = nested_list(&response.fields, "RouterTableList", "RouterTableListType");
            let is_last = listed.len() < TABLES_PER_PAGE.parse().unwrap_or(usize::MAX);
            // Gateway tables steer what comes in, and their routes cannot be listed.
            tables.extend(listed.iter().filter(|table| word(table, "AssociateType") != "Gateway").map(parse_table));
            if is_last {
                is_whole = true;
                break;
            }
        }
        // What is not whole would look like missing routes.
        if !is_whole {
            return Err(INCOMPLETE);
        }
        for table in &mut tables {
            table.routes = self.list_routes(credentials, region, &table.id).await?;
        }
        Ok(tables)
    }

    /// All routes of a table. The list may not filter by the peering, so nothing is filtered.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-describerouteentrylist>
    pub async fn list_routes(
        &self,
        credentials: Credentials<'_>,
        region: &str,
        table: &str,
    ) -> Result<Vec<RouteEntry>, Error> {
        let (mut routes, mut next_token) = (vec![], String::new());
        for _ in 0..MAX_PAGES {
            let mut parameters = vec![("RegionId", region), ("RouteTableId", table), ("MaxResult", ROUTES_PER_PAGE)];
            if !next_token.is_empty() {
                parameters.push(("NextToken", &next_token));
            }
            let response = self.call_vpc_api("DescribeRouteEntryList", region, &parameters, credentials).await?;
            routes.extend(nested_list(&response.fields, "RouteEntrys", "RouteEntry").iter().map(parse_route));
            next_token = word(&response.fields, "NextToken");
            if next_token.is_empty() {
                return Ok(routes);
            }
        }
        Err(INCOMPLETE)
    }

    /// Makes a call to the region's own address.
    async fn call_vpc_api(
        &self,
        action: &'static str,
        region: &str,
        parameters: &[(&str, &str)],
        credentials: Credentials<'_>,
    ) -> Result<RpcResponse, Error> {
        let endpoint = self.vpc_endpoint.clone().or_else(|| regional_endpoint(region));
        // Nobody can configure such a region.
        let endpoint = endpoint.ok_or(Error::Unreadable { http_status: 0 })?;
        let rpc = Rpc { endpoint, version: API_VERSION, place: ParameterPlace::Query, ..self.rpc.clone() };
        self.call_within_limit(&rpc, action, parameters, credentials).await
    }
}

/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-endpoint>
fn regional_endpoint(region: &str) -> Option<Url> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_region = !region.is_empty() && region.bytes().all(is_allowed);
    is_region.then(|| Url::parse(&format!("https://vpc.{region}.aliyuncs.com/")).ok()).flatten()
}

/// A list in an object, as the API nests them. An absent one is empty.
fn nested_list(fields: &JsonFields, outer: &str, inner: &str) -> Vec<JsonFields> {
    let outer = fields.get(outer).first().and_then(JsonFields::parse);
    let list = outer.as_ref().and_then(|outer| outer.get(inner).first()).and_then(json::parse_list);
    list.unwrap_or_default().iter().filter_map(|item| JsonFields::parse(item.get())).collect()
}

fn nested_words(fields: &JsonFields, outer: &str, inner: &str) -> Vec<String> {
    let outer = fields.get(outer).first().and_then(JsonFields::parse);
    let list = outer.as_ref().and_then(|outer| outer.get(inner).first()).and_then(json::parse_list);
    list.unwrap_or_default().iter().filter_map(|item| json::parse_text(item.get())).collect()
}

fn word(fields: &JsonFields, name: &str) -> String {
    fields.get(name).first().and_then(json::parse_word).unwrap_or_default()
}

/// `None` if its blocks cannot be understood: part of them would look like a change.
fn parse_vpc(fields: &JsonFields) -> Option<OwnVpc> {
    let ipv6 = nested_list(fields, "Ipv6CidrBlocks", "Ipv6CidrBlock");
    let blocks = [word(fields, "CidrBlock"), word(fields, "Ipv6CidrBlock")].into_iter();
    let blocks = blocks.chain(nested_words(fields, "SecondaryCidrBlocks", "SecondaryCidrBlock"));
    let blocks = blocks.chain(ipv6.iter().map(|block| word(block, "Ipv6CidrBlock")));
    let cidrs: Result<BTreeSet<IpNet>, _> = blocks.filter(|block| !block.is_empty()).map(|it| it.parse()).collect();
    let (id, cidrs) = (word(fields, "VpcId"), cidrs.ok()?);
    (!id.is_empty() && !cidrs.is_empty()).then(|| OwnVpc { id, cidrs: cidrs.iter().map(IpNet::trunc).collect() })
}

fn parse_table(fields: &JsonFields) -> RouteTable {
    RouteTable {
        id: word(fields, "RouteTableId"),
        is_system: word(fields, "RouteTableType") == "System",
        vswitches: nested_words(fields, "VSwitchIds", "VSwitchId"),
        routes: vec![],
    }
}

fn parse_route(fields: &JsonFields) -> RouteEntry {
    let next_hops = nested_list(fields, "NextHops", "NextHop");
    let destination = word(fields, "DestinationCidrBlock");
    RouteEntry {
        id: word(fields, "RouteEntryId"),
        cidr: destination.parse().ok().map(|cidr: IpNet| cidr.trunc()),
        destination,
        is_available: word(fields, "Status") == "Available",
        next_hop: next_hops.first().map(|hop| word(hop, "NextHopId")).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_become_hosts_of_the_vendor_only() {
        let host = |region| regional_endpoint(region).map(|url| url.to_string());
        assert_eq!(host("cn-shanghai").as_deref(), Some("https://vpc.cn-shanghai.aliyuncs.com/"));
        for region in ["", "evil.example/", "a.b", "CN-shanghai", "cn_shanghai", "x@y"] {
            assert_eq!(host(region), None, "{region}");
        }
    }

    fn fields(json: &str) -> JsonFields {
        JsonFields::parse(json).unwrap()
    }

    #[test]
    fn every_block_of_a_vpc_is_read() {
        let vpc = fields(
            r#"{"VpcId":"vpc-a","CidrBlock":"10.1.0.0/16","Ipv6CidrBlock":"2408:4005:3c5:6e00::/56",
                "SecondaryCidrBlocks":{"SecondaryCidrBlock":["172.16.0.0/16"]},"UserCidrs":{"UserCidr":["1.2.3.0/24"]},
                "Ipv6CidrBlocks":{"Ipv6CidrBlock":[{"Ipv6CidrBlock":"2408:4005:3c5:6f00::/56","Ipv6Isp":"BGP"}]}}"#,
        );
        let cidrs: Vec<_> = parse_vpc(&vpc).unwrap().cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["10.1.0.0/16", "172.16.0.0/16", "2408:4005:3c5:6e00::/56", "2408:4005:3c5:6f00::/56"]);
        for broken in [r#"{"VpcId":"vpc-a"}"#, r#"{"CidrBlock":"10.1.0.0/16"}"#, r#"{"VpcId":"vpc-a","CidrBlock":"x"}"#]
        {
            assert_eq!(parse_vpc(&fields(broken)), None, "{broken}");
        }
    }

    #[test]
    fn odd_spellings_of_lists_are_understood() {
        let answer = fields(
            r#"{"RouteEntrys":{"RouteEntry":[{"RouteEntryId":"rte-a","DestinationCidrBlock":"10.1.0.0/16","Status":"Available",
                "NextHops":{"NextHop":[{"NextHopType":"VpcPeer","NextHopId":"pcc-a"}]}},{"DestinationCidrBlock":"pl-a"}]}}"#,
        );
        let routes: Vec<_> = nested_list(&answer, "RouteEntrys", "RouteEntry").iter().map(parse_route).collect();
        assert_eq!((routes[0].next_hop.as_str(), routes[0].is_available), ("pcc-a", true));
        assert_eq!((routes[1].cidr, routes[1].destination.as_str()), (None, "pl-a"));
        assert!(nested_list(&fields("{}"), "RouteEntrys", "RouteEntry").is_empty());
    }
}

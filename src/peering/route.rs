//! Route tables of our own VPC, and whether they lead to a peering.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::InstanceId;

/// A route table of our own VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTable {
    /// `vtb-…`.
    pub id: String,
    /// Whether it is the VPC's own table, which serves every vSwitch that has no other one.
    pub is_system: bool,
    /// The vSwitches that it serves.
    pub vswitches: Vec<String>,
    /// Its routes, of all types.
    pub routes: Vec<RouteEntry>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// `rte-…`.
    pub id: String,
    /// A CIDR block, or the id of a prefix list.
    pub destination: String,
    /// The destination, if it is a CIDR block.
    pub cidr: Option<IpNet>,
    /// Whether it is in use. Otherwise it is being made, changed or deleted.
    pub is_available: bool,
    /// `pcc-…` for a peering. Empty for a local route.
    pub next_hop: String,
}

/// What our route tables say about a peering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct RouteReport {
    /// For each CIDR block of the other side, how traffic to it is routed. Empty after the end of the connection.
    pub findings: Vec<RouteFinding>,
    /// Routes to the peering that no CIDR block of the other side needs, e.g. `0.0.0.0/0`; all of them after the end.
    pub unneeded: Vec<UnneededRoute>,
}

/// How some route tables route the traffic to a CIDR block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct RouteFinding {
    /// A CIDR block of the other side.
    #[cfg_attr(feature = "local", schemars(with = "String"))]
    pub cidr: IpNet,
    /// How it is routed.
    pub state: RouteState,
    /// The tables in which it is so.
    pub tables: Vec<String>,
}

/// How traffic to a CIDR block is routed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    /// To the peering.
    Routed,
    /// To the peering, by a route that is wider than the block. Holds its destination.
    Wider(String),
    /// A part of it leads elsewhere, because another route is longer. Holds its destination and next hop.
    Shadowed(String, String),
    /// The route is being made.
    InProgress,
    /// The route has a prefix list as its destination, which peergate does not read. Holds its id.
    PrefixList(String),
    /// It leads elsewhere. Holds the destination and the next hop, which is empty for the VPC itself.
    Elsewhere(String, String),
    /// There is no route.
    Missing,
}

impl RouteState {
    fn is_routed(&self) -> bool {
        matches!(self, Self::Routed | Self::Wider(_))
    }
}

/// A route to the peering that is not needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct UnneededRoute {
    /// `vtb-…`.
    pub table: String,
    /// `rte-…`.
    pub id: String,
    /// A CIDR block, or the id of a prefix list.
    pub destination: String,
}

/// The most findings, and the most routes that are not needed. Further ones are left out.
const MAX_FINDINGS: usize = 20;

impl RouteReport {
    /// Reports on the routes to the connection, in the tables of our VPC. `blocks` are the CIDR blocks of the other side,
    /// empty after the end of the connection.
    #[must_use]
    pub fn new(tables: &[RouteTable], instance_id: &InstanceId, blocks: &BTreeSet<IpNet>) -> Self {
        let peering = instance_id.as_str();
        let is_used = |table: &&RouteTable| !table.vswitches.is_empty();
        let used: Vec<_> = if tables.iter().any(|table| is_used(&table)) {
            tables.iter().filter(is_used).collect()
        } else {
            tables.iter().collect()
        };
        let mut findings: Vec<RouteFinding> = vec![];
        for cidr in blocks {
            for table in &used {
                let state = route_state(&table.routes, peering, cidr);
                match findings.iter_mut().find(|it| it.cidr == *cidr && it.state == state) {
                    Some(finding) => finding.tables.push(table.id.clone()),
                    None => findings.push(RouteFinding { cidr: *cidr, state, tables: vec![table.id.clone()] }),
                }
            }
        }
        if findings.len() > MAX_FINDINGS {
            // What is left out must not hide what is missing.
            findings.sort_by_key(|it| it.state.is_routed());
            findings.truncate(MAX_FINDINGS);
        }
        let is_needed = |route: &RouteEntry| match route.cidr {
            Some(cidr) => blocks.iter().any(|block| block.contains(&cidr)),
            // Nobody knows what is in the list.
            None => !blocks.is_empty(),
        };
        let to_peering = |route: &&RouteEntry| route.next_hop == peering && !is_needed(route);
        let unneeded = tables.iter().flat_map(|table| {
            table.routes.iter().filter(to_peering).map(|route| UnneededRoute {
                table: table.id.clone(),
                id: route.id.clone(),
                destination: route.destination.clone(),
            })
        });
        Self { findings, unneeded: unneeded.take(MAX_FINDINGS).collect() }
    }

    /// Whether all traffic to the other side is routed to the peering, and nothing is left over.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.findings.iter().all(|it| it.state.is_routed()) && (self.unneeded.is_empty() || !self.findings.is_empty())
    }
}

/// How one table routes the traffic to a CIDR block: the longest route wins.
fn route_state(routes: &[RouteEntry], peering: &str, block: &IpNet) -> RouteState {
    let with_cidr = || routes.iter().filter_map(|route| Some((route, route.cidr?)));
    let inside = || with_cidr().filter(|(_, cidr)| block.contains(cidr) && cidr != block);
    let is_ours = |route: &RouteEntry| route.next_hop == peering;
    let covering = with_cidr().filter(|(_, cidr)| cidr.contains(block)).max_by_key(|(_, cidr)| cidr.prefix_len());
    let parts: Vec<_> =
        inside().filter(|(route, _)| is_ours(route) && route.is_available).map(|(_, cidr)| cidr).collect();
    let is_covered_by_parts = IpNet::aggregate(&parts) == [*block];
    let led_elsewhere =
        |(route, _): (&RouteEntry, IpNet)| RouteState::Shadowed(route.destination.clone(), route.next_hop.clone());
    let shadow = inside().find(|(route, _)| !is_ours(route)).map(led_elsewhere);
    match covering {
        Some((route, _)) if is_ours(route) && !route.is_available => RouteState::InProgress,
        Some((route, _)) if is_ours(route) && shadow.is_none() && route.cidr != Some(*block) => {
            RouteState::Wider(route.destination.clone())
        }
        Some((route, _)) if is_ours(route) => shadow.unwrap_or(RouteState::Routed),
        _ if is_covered_by_parts => shadow.unwrap_or(RouteState::Routed),
        // The list may have a longer block than the route.
        Some((route, cidr)) if cidr == *block => {
            RouteState::Elsewhere(route.destination.clone(), route.next_hop.clone())
        }
        covering => match (routes.iter().find(|route| is_ours(route) && route.cidr.is_none()), covering) {
            (Some(list), _) => RouteState::PrefixList(list.destination.clone()),
            (None, Some((route, _))) => RouteState::Elsewhere(route.destination.clone(), route.next_hop.clone()),
            (None, None) => RouteState::Missing,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, next_hop: &str) -> RouteEntry {
        RouteEntry {
            id: format!("rte-{destination}"),
            destination: destination.into(),
            cidr: destination.parse().ok(),
            is_available: true,
            next_hop: next_hop.into(),
        }
    }

    fn report(routes: Vec<RouteEntry>) -> RouteReport {
        let table = |id: &str, vswitches: &[&str], routes| RouteTable {
            id: id.into(),
            is_system: false,
            vswitches: vswitches.iter().map(|it| (*it).to_owned()).collect(),
            routes,
        };
        let unused = table("vtb-unused", &[], vec![]);
        let local = route("10.2.0.0/24", "");
        let routes = [vec![local, route("100.64.0.0/10", "")], routes].concat();
        let blocks = ["10.1.0.0/16".parse().unwrap()].into();
        RouteReport::new(&[unused, table("vtb-a", &["vsw-a"], routes)], &peering(), &blocks)
    }

    fn peering() -> InstanceId {
        InstanceId::parse("pcc-a").unwrap()
    }

    fn state(routes: Vec<RouteEntry>) -> RouteState {
        let mut findings = report(routes).findings;
        assert_eq!(findings.len(), 1, "tables without vSwitches serve nobody");
        findings.remove(0).state
    }

    #[test]
    fn longest_route_decides() {
        let ours = |destination: &str| route(destination, "pcc-a");
        let other = |destination: &str| route(destination, "pcc-other");
        let words = |destination: &str| destination.to_owned();
        let cases = [
            (vec![], RouteState::Missing),
            (vec![ours("10.1.0.0/16")], RouteState::Routed),
            (vec![ours("10.0.0.0/8")], RouteState::Wider(words("10.0.0.0/8"))),
            (vec![ours("0.0.0.0/0")], RouteState::Wider(words("0.0.0.0/0"))),
            (vec![ours("10.1.0.0/17"), ours("10.1.128.0/17")], RouteState::Routed),
            (vec![ours("10.1.0.0/17")], RouteState::Missing),
            (
                vec![ours("0.0.0.0/0"), other("10.0.0.0/8")],
                RouteState::Elsewhere(words("10.0.0.0/8"), words("pcc-other")),
            ),
            (vec![other("10.1.0.0/16")], RouteState::Elsewhere(words("10.1.0.0/16"), words("pcc-other"))),
            (
                vec![ours("10.1.0.0/16"), other("10.1.7.0/24")],
                RouteState::Shadowed(words("10.1.7.0/24"), words("pcc-other")),
            ),
            (vec![ours("pl-a")], RouteState::PrefixList(words("pl-a"))),
            (vec![ours("pl-a"), other("0.0.0.0/0")], RouteState::PrefixList(words("pl-a"))),
            (vec![ours("pl-a"), other("10.1.0.0/16")], RouteState::Elsewhere(words("10.1.0.0/16"), words("pcc-other"))),
            (vec![ours("2001:db8::/32")], RouteState::Missing),
            (vec![RouteEntry { is_available: false, ..ours("10.1.0.0/16") }], RouteState::InProgress),
        ];
        for (routes, expected) in cases {
            assert_eq!(state(routes.clone()), expected, "{routes:?}");
        }
    }

    #[test]
    fn unneeded_routes_are_named() {
        let unneeded = |routes| report(routes).unneeded.into_iter().map(|route| route.destination).collect::<Vec<_>>();
        assert_eq!(unneeded(vec![route("10.1.0.0/16", "pcc-a"), route("10.1.4.0/24", "pcc-a")]), Vec::<String>::new());
        assert_eq!(
            unneeded(vec![route("0.0.0.0/0", "pcc-a"), route("10.9.0.0/16", "pcc-a")]),
            ["0.0.0.0/0", "10.9.0.0/16"]
        );
        assert_eq!(unneeded(vec![route("0.0.0.0/0", "pcc-other")]), Vec::<String>::new());
    }

    #[test]
    fn missing_route_is_never_left_out() {
        let routed: Vec<_> = (0..30).map(|number| format!("10.{number}.0.0/16")).collect();
        let table = RouteTable {
            id: "vtb-a".into(),
            is_system: true,
            vswitches: vec![],
            routes: routed.iter().map(|cidr| route(cidr, "pcc-a")).collect(),
        };
        let missing = "192.168.0.0/16".to_owned();
        let blocks = routed.iter().chain([&missing]).map(|cidr| cidr.parse().unwrap()).collect();
        let report = RouteReport::new(&[table], &peering(), &blocks);
        assert_eq!((report.findings.len(), report.is_complete()), (MAX_FINDINGS, false));
    }

    #[test]
    fn after_the_end_every_route_is_left_over() {
        let table = RouteTable {
            id: "vtb-a".into(),
            is_system: true,
            vswitches: vec![],
            routes: vec![route("10.1.0.0/16", "pcc-a"), route("pl-a", "pcc-a"), route("10.1.0.0/24", "nat-a")],
        };
        let ended = RouteReport::new(&[table], &peering(), &BTreeSet::new());
        assert_eq!((ended.findings.len(), ended.unneeded.len(), ended.is_complete()), (0, 2, false));
    }
}

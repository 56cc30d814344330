//! Route tables and routes in memory. Each VPC of a connection has a system table with one vSwitch.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::Timestamp;

/// The operations of the VPC API.
pub(super) const OPERATIONS: [&str; 5] =
    ["DescribeVpcs", "DescribeRouteTableList", "DescribeRouteEntryList", "CreateRouteEntry", "DeleteRouteEntry"];
/// What the owners of VPCs have made of them.
#[derive(Debug, Default)]
pub(super) struct SimulatedVpcs {
    /// CIDR blocks that no peering shows, by VPC.
    pub(super) hidden_cidrs: BTreeMap<String, BTreeSet<IpNet>>,
    pub(super) tables: BTreeMap<String, SimulatedTable>,
    pub(super) created: u32,
}

#[derive(Debug, Clone)]
pub(super) struct SimulatedTable {
    pub(super) vpc: String,
    pub(super) is_system: bool,
    pub(super) vswitches: Vec<String>,
    pub(super) routes: Vec<SimulatedRoute>,
}

#[derive(Debug, Clone)]
pub(super) struct SimulatedRoute {
    pub(super) id: String,
    pub(super) destination: String,
    pub(super) next_hop_type: String,
    pub(super) next_hop: String,
    pub(super) available_at: Timestamp,
}

impl SimulatedVpcs {
    /// Gives a VPC CIDR blocks that no peering shows.
    pub(super) fn hide_cidrs(&mut self, vpc: &str, cidrs: BTreeSet<IpNet>) {
        self.hidden_cidrs.insert(vpc.to_owned(), cidrs);
    }

    /// Adds a route table with these vSwitches.
    pub(super) fn add_table(&mut self, vpc: &str, id: &str, vswitches: &[&str]) {
        let vswitches = vswitches.iter().map(|vswitch| (*vswitch).to_owned()).collect();
        let table = SimulatedTable { vpc: vpc.to_owned(), is_system: false, vswitches, routes: vec![] };
        self.tables.insert(id.to_owned(), table);
    }

    /// Adds a route, without the checks of a call.
    pub(super) fn add_route(&mut self, table: &str, destination: &str, next_hop: &str, now: Timestamp) {
        self.created += 1;
        let id = format!("rte-sim{:06}", self.created);
        let next_hop_type = if next_hop.starts_with("pcc-") { "VpcPeer" } else { "Instance" }.to_owned();
        let (destination, next_hop) = (destination.to_owned(), next_hop.to_owned());
        let route = SimulatedRoute { id, destination, next_hop_type, next_hop, available_at: now };
        if let Some(table) = self.tables.get_mut(table) {
            table.routes.push(route);
        }
    }

    pub(super) fn remove_routes(&mut self, table: &str) {
        if let Some(table) = self.tables.get_mut(table) {
            table.routes.clear();
        }
    }

    /// Whether a route leads to a peering.
    pub(super) fn has_route_to(&self, next_hop: &str) -> bool {
        self.tables.values().any(|table| table.routes.iter().any(|route| route.next_hop == next_hop))
    }

    /// Deletes the routes to a peering, as a forced deletion does.
    pub(super) fn remove_routes_to(&mut self, next_hop: &str) {
        for table in self.tables.values_mut() {
            table.routes.retain(|route| route.next_hop != next_hop);
        }
    }

    /// Makes the system table of a VPC.
    pub(super) fn ensure_system_table(&mut self, vpc: &str) {
        let vswitches = vec![format!("vsw-{vpc}")];
        let table = || SimulatedTable { vpc: vpc.to_owned(), is_system: true, vswitches, routes: vec![] };
        self.tables.entry(system_table_id(vpc)).or_insert_with(table);
    }
}

/// The id of the system table of a VPC.
pub(super) fn system_table_id(vpc: &str) -> String {
    format!("vtb-{vpc}")
}

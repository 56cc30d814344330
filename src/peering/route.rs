//! Route tables of our own VPC, and whether they lead to a peering.

use ipnet::IpNet;

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

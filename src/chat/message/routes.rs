//! Routes of a peering: what our route tables say, and commands that make the routes that are missing.

use std::fmt::Write;

use ipnet::IpNet;

use super::{format_time, join_with, sanitize_text};
use crate::approval::{Approval, ApprovalState};
use crate::peering::{Connection, RouteFinding, RouteReport, RouteState, Side};

/// The most commands in a snippet. A VPC has at most 6 IPv4 and 5 IPv6 blocks.
const MAX_COMMANDS: usize = 12;
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-createrouteentry>
const ONE_AFTER_THE_OTHER: &str =
    "# Alibaba Cloud changes one route of a VPC at a time. After TaskConflict, wait a few seconds.\n";
/// The most tables that a line names.
const MAX_TABLES: usize = 4;
/// Stands for a route table that peergate does not know.
const UNKNOWN_TABLE: &str = "vtb-…";

/// What our route tables say, in lines. Empty if they were not read.
pub(super) fn route_lines(approval: &Approval) -> Vec<String> {
    let Some(RouteReport { findings, unneeded }) = approval.routes() else { return vec![] };
    let is_active = *approval.state() == ApprovalState::Activated;
    let is_wider = |destination: &str| {
        destination.parse::<IpNet>().is_ok_and(|it| findings.iter().any(|finding| it.contains(&finding.cidr)))
    };
    let unneeded = unneeded.iter().map(|route| {
        let (destination, table) = (sanitize_text(&route.destination), sanitize_text(&route.table));
        if is_active && is_wider(&route.destination) {
            format!("⚠ route {destination} in {table} leads to this peering and is wider than needed")
        } else if is_active {
            format!("⚠ route {destination} in {table} leads to this peering, and no block of the requester needs it")
        } else {
            format!("⚠ route {destination} in {table} is left over")
        }
    });
    let read_at = approval.routes_read_at().map(|at| format!("Our route tables as of {}", format_time(at)));
    let mut lines: Vec<_> = findings.iter().map(describe_finding).chain(unneeded).collect();
    lines.extend(read_at.filter(|_| !lines.is_empty()));
    lines
}

fn describe_finding(RouteFinding { cidr, state, tables }: &RouteFinding) -> String {
    let tables = list_tables(tables);
    let hop = |next_hop: &String| match next_hop.as_str() {
        "" => "the VPC itself".to_owned(),
        hop => sanitize_text(hop),
    };
    match state {
        RouteState::Routed => format!("✓ {cidr} is routed in {tables}"),
        RouteState::Wider(destination) => {
            format!("✓ {cidr} is routed in {tables}, by the wider route {}", sanitize_text(destination))
        }
        RouteState::Shadowed(destination, next_hop) => {
            format!("⚠ {cidr} is routed in {tables}, but {} leads to {}", sanitize_text(destination), hop(next_hop))
        }
        RouteState::InProgress => format!("⚠ {cidr}: its route in {tables} is being made"),
        RouteState::PrefixList(list) => {
            format!(
                "⚠ {cidr}: a route in {tables} has the prefix list {}, which peergate does not read",
                sanitize_text(list)
            )
        }
        RouteState::Elsewhere(destination, next_hop) => {
            format!("✗ {cidr}: the route {} in {tables} leads to {}", sanitize_text(destination), hop(next_hop))
        }
        RouteState::Missing => format!("✗ {cidr} has no route in {tables}"),
    }
}

fn list_tables(tables: &[String]) -> String {
    let mut names: Vec<_> = tables.iter().take(MAX_TABLES).map(|table| sanitize_text(table)).collect();
    match tables.len().saturating_sub(MAX_TABLES) {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    join_with(&names, "and")
}

/// Whether our route tables lead all traffic of the other side to the peering.
pub(super) fn are_routes_complete(approval: &Approval) -> bool {
    approval.routes().is_some_and(|report| !report.findings.is_empty() && report.is_complete())
}

/// Commands for what our route tables lack, or for what is left over after the end. `None` if nothing is to be done.
pub(super) fn route_commands(approval: &Approval) -> Option<String> {
    let (connection, report) = (approval.connection(), approval.routes()?);
    let region = &connection.accepter.region;
    let commands: Vec<_> = if *approval.state() == ApprovalState::Activated {
        // A longer route wins over one that leads elsewhere.
        let is_missing = |it: &&RouteFinding| match &it.state {
            RouteState::Missing => true,
            RouteState::Elsewhere(destination, _) => *destination != it.cidr.to_string(),
            RouteState::Routed
            | RouteState::Wider(_)
            | RouteState::Shadowed(..)
            | RouteState::InProgress
            | RouteState::PrefixList(_) => false,
        };
        let missing = report.findings.iter().filter(is_missing);
        let pairs = missing.flat_map(|it| it.tables.iter().map(|table| (table.as_str(), it.cidr.to_string())));
        pairs.map(|(table, cidr)| create_command(region, table, &cidr, connection)).collect()
    } else {
        let delete = |id: &String| {
            format!(
                "aliyun vpc DeleteRouteEntry --RegionId {} --RouteEntryId {}",
                sanitize_text(region),
                sanitize_text(id)
            )
        };
        report.unneeded.iter().map(|route| delete(&route.id)).collect()
    };
    let intro = if commands.len() > 1 { ONE_AFTER_THE_OTHER } else { "" };
    let hidden = commands.len().saturating_sub(MAX_COMMANDS);
    let mut shown: Vec<_> = commands.into_iter().take(MAX_COMMANDS).collect();
    shown.extend((hidden > 0).then(|| format!("# and {hidden} more")));
    (!shown.is_empty()).then(|| format!("{intro}{}", shown.join("\n")))
}

/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-createrouteentry>
fn create_command(region: &str, table: &str, cidr: &str, connection: &Connection) -> String {
    format!(
        "aliyun vpc CreateRouteEntry --RegionId {} --RouteTableId {} --DestinationCidrBlock {cidr} --NextHopType VpcPeer \
         --NextHopId {}",
        sanitize_text(region),
        sanitize_text(table),
        connection.instance_id
    )
}

/// Commands and Terraform resources that make the routes of both sides. peergate does not know the requester's tables.
pub(super) fn routes_of_both_sides(connection: &Connection) -> String {
    let Connection { requester: theirs, accepter: ours, .. } = connection;
    let mut text = ONE_AFTER_THE_OTHER.to_owned();
    for (title, here, there) in [("our side", ours, theirs), ("the requester's side", theirs, ours)] {
        let _ = writeln!(text, "# {title}, in each route table of {}", sanitize_text(&here.vpc));
        text.push_str(&commands_of(here, there, connection));
    }
    for (title, there) in [("our side", theirs), ("the requester's side", ours)] {
        let _ = writeln!(text, "# or with Terraform, {title}");
        text.push_str(&terraform_of(there, connection));
    }
    text.trim_end().to_owned()
}

/// Commands that make the routes of the requester's side.
pub(super) fn routes_of_requester(connection: &Connection) -> String {
    let text = ONE_AFTER_THE_OTHER.to_owned()
        + &commands_of(&connection.requester, &connection.accepter, connection)
        + "# or with Terraform\n"
        + &terraform_of(&connection.accepter, connection);
    text.trim_end().to_owned()
}

fn commands_of(here: &Side, there: &Side, connection: &Connection) -> String {
    let cidrs = there.cidrs.iter().take(MAX_COMMANDS);
    cidrs.map(|cidr| create_command(&here.region, UNKNOWN_TABLE, &cidr.to_string(), connection) + "\n").collect()
}

/// Source: <https://github.com/aliyun/terraform-provider-alicloud/blob/master/website/docs/r/route_entry.html.markdown>
fn terraform_of(there: &Side, connection: &Connection) -> String {
    let destinations: Vec<_> = there.cidrs.iter().take(MAX_COMMANDS).map(|cidr| format!("\"{cidr}\"")).collect();
    format!(
        "resource \"alicloud_route_entry\" \"peering\" {{\n  for_each              = toset([{}])\n  route_table_id        = \
         \"{UNKNOWN_TABLE}\"\n  destination_cidrblock = each.value\n  nexthop_type          = \"VpcPeer\"\n  nexthop_id            \
         = \"{}\"\n}}\n",
        destinations.join(", "),
        connection.instance_id
    )
}

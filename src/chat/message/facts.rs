//! The facts that cards, notifications and replies share: the connection, people, and problems.

use super::{MAX_CIDRS, MessageFact, join_with, sanitize_reason, sanitize_text};
use crate::approval::{Approver, Decision};
use crate::peering::{Change, Connection, Facts, Problem, Side};

/// The longest text of all CIDR blocks that a card shows completely. A platform with a lower limit has to shorten it.
const MAX_CIDR_CHARS: usize = 6000;

/// What the connection is: who requests it, from where to where, and its properties.
pub(super) fn connection_facts(connection: &Connection, requester: Option<&str>) -> Vec<MessageFact> {
    let Connection { requester: theirs, accepter: ours, .. } = connection;
    let name = requester.map(|name| format!("{}, ", sanitize_text(name))).unwrap_or_default();
    let mut facts = vec![
        MessageFact::new("Requester", format!("{name}account {}", theirs.account)),
        MessageFact::new("From", describe_vpc(theirs)),
        MessageFact::new("To", format!("account {}, {}", ours.account, describe_vpc(ours))),
    ];
    let bandwidth = connection.bandwidth_mbps.map_or_else(|| "not limited".into(), |mbps| format!("{mbps} Mbit/s"));
    facts.push(MessageFact::new("Bandwidth", bandwidth));
    let texts =
        [("Link type", &connection.link_type), ("Name", &connection.name), ("Description", &connection.description)];
    let given = texts.into_iter().filter(|(_, text)| !text.is_empty());
    facts.extend(given.map(|(label, text)| MessageFact::new(label, sanitize_text(text))));
    facts
}

fn describe_vpc(side: &Side) -> String {
    let mut cidrs = String::new();
    for (position, cidr) in side.cidrs.iter().enumerate() {
        let cidr = cidr.to_string();
        if cidrs.len().saturating_add(cidr.len()) > MAX_CIDR_CHARS {
            let more = side.cidrs.len().saturating_sub(position);
            cidrs = format!("{cidrs} and {more} more");
            break;
        }
        if !cidrs.is_empty() {
            cidrs.push_str(", ");
        }
        cidrs.push_str(&cidr);
    }
    let cidrs = match side.cidrs.len() {
        0 => "CIDR blocks unknown".to_owned(),
        1 => format!("CIDR block {cidrs}"),
        _ => format!("CIDR blocks {cidrs}"),
    };
    format!("{} in {}, {cidrs}", sanitize_text(&side.vpc), sanitize_text(&side.region))
}

/// Whether a card shows every fact of its fingerprint completely and unchanged.
#[must_use]
pub fn can_show_all(facts: &Facts) -> bool {
    let sides = [&facts.requester, &facts.accepter];
    let chars: usize = sides.iter().flat_map(|side| &side.cidrs).map(|cidr| cidr.to_string().len()).sum();
    let count: usize = sides.iter().map(|side| side.cidrs.len()).sum();
    let is_plain = |text: &String| text.is_empty() || sanitize_text(text) == *text;
    let texts = sides.iter().flat_map(|side| [&side.vpc, &side.region]).chain([&facts.link_type]);
    chars.saturating_add(count.saturating_mul(2)) <= MAX_CIDR_CHARS && texts.into_iter().all(is_plain)
}

/// Who decided and why. Without a decision, somebody outside peergate did.
pub(super) fn decision_facts(label: &'static str, decision: Option<&Decision>) -> Vec<MessageFact> {
    let Some(decision) = decision else {
        return vec![MessageFact::new(label, "somebody outside peergate")];
    };
    let mut facts = vec![MessageFact::new(label, describe_approver(&decision.by))];
    facts.extend(decision.reason.as_deref().map(|reason| MessageFact::new("Reason", sanitize_reason(reason))));
    facts
}

/// e.g. `bandwidth: 1024 Mbit/s → 5 Mbit/s`.
pub(super) fn describe_change(change: &Change) -> String {
    let shown = |value: &str| if value.is_empty() { "none or unlimited".to_owned() } else { sanitize_text(value) };
    format!("{}: {} → {}", change.fact, shown(&change.before), shown(&change.after))
}

pub(super) fn problem_facts(problem: &Problem) -> Vec<MessageFact> {
    let mut facts = vec![MessageFact::new("Error code", sanitize_text(&problem.code))];
    facts.extend(problem.request_id.as_ref().map(|id| MessageFact::new("Request id", sanitize_text(id))));
    facts
}

/// Name and identity, e.g. `alice (slack:T0001/U1)`, or `Alice Wong (alice, slack:T0001/U1)`.
pub(super) fn describe_approver(approver: &Approver) -> String {
    match (&approver.name, &approver.person) {
        (Some(name), Some(person)) => format!("{} ({person}, {})", sanitize_text(name), approver.principal),
        (Some(name), None) => format!("{} ({})", sanitize_text(name), approver.principal),
        (None, Some(person)) => format!("{person} ({})", approver.principal),
        (None, None) => approver_name(approver),
    }
}

/// The name alone, for headlines.
pub(super) fn approver_name(approver: &Approver) -> String {
    match approver.name.as_ref().or(approver.person.as_ref()) {
        Some(name) => sanitize_text(name),
        None if approver.principal.as_str().starts_with("peergate:") => "the rule itself".to_owned(),
        None => approver.principal.to_string(),
    }
}

pub(super) fn list_approvers(approvers: &[Approver]) -> String {
    join_with(&approvers.iter().map(describe_approver).collect::<Vec<_>>(), "and")
}

/// The next steps after an activation: without routes, no traffic flows.
///
/// Source: <https://www.alibabacloud.com/help/en/vpc/user-guide/vpc-peering-connection>
pub(super) fn route_instructions(connection: &Connection) -> Vec<String> {
    let Connection { requester: theirs, accepter: ours, instance_id, .. } = connection;
    let route = |here: &Side, there: &Side| {
        let cidrs: Vec<_> = there.cidrs.iter().take(MAX_CIDRS).map(ToString::to_string).collect();
        let cidrs = if cidrs.is_empty() { "the other side's CIDR blocks".to_owned() } else { join_with(&cidrs, "and") };
        format!("add a route to {instance_id} for {cidrs} in the route tables of {}", sanitize_text(&here.vpc))
    };
    vec![
        format!("On our side, {}.", route(ours, theirs)),
        format!("On the requester's side, {}.", route(theirs, ours)),
        "Then check security groups, network ACLs and database whitelists.".into(),
    ]
}

//! A request as it is: what an approver has to see, who has decided, and how far it has come.

use ipnet::IpNet;
use jiff::Timestamp;

use super::{Button, Buttons, Message, all_of, decided, facts, plain, problem_facts, routes, shows_all, who};
use crate::approval::{Approval, Approver, Decision, News, Notice, State, Verdict, What};
use crate::peering::{Change, Connection, Facts, Status};
use crate::preflight::{Check, Finding, Found, Objection};

/// The names of people that fit on a card.
const MOST_NAMES: usize = 8;
/// How wide a range is drawn, in characters.
const FIGURE_WIDTH: u32 = 32;
/// The most overlaps that are drawn.
const MOST_DRAWN: usize = 3;

/// The card of a request: the same in every channel, redrawn whenever something about it changes.
#[must_use]
pub fn card(approval: &Approval, now: Timestamp) -> Message {
    let connection = shown(approval);
    let connection = &connection;
    let waits = approval.state == State::Pending && !approval.is_past_expiry(now);
    let mut card = Message {
        headline: headline(approval, now),
        facts: facts(connection, approval.terms.requester.as_deref()),
        ..Message::default()
    };
    if connection.crosses_regions() {
        let cost = "between regions: each side pays for the traffic that it sends (CDT)";
        card.facts.push(("Cost", cost.into()));
    }
    if waits {
        card.facts.extend(connection.expires_at.map(|expires_at| ("Expires", format!("{expires_at:.0}"))));
        card.facts.extend(marked_changes(approval));
    }
    card.facts.extend(people(approval, now));
    card.facts.extend(outcome(approval));
    if waits {
        card.checks = approval.findings.iter().map(check).collect();
        card.figure = figure(&approval.findings);
    }
    match &approval.state {
        State::Pending if !waits => {}
        State::Pending if approval.terms.rule.is_none() => {
            card.sentences = no_rule(&approval.terms.unmatched);
            card.snippet.clone_from(&approval.terms.suggestion);
        }
        State::Activated => card.sentences = routes(connection),
        State::Failed { code } => card.sentences.push(super::advice(code).into()),
        State::Pending
        | State::Approved
        | State::Activating
        | State::Rejecting
        | State::Rejected
        | State::Expired
        | State::Deleted => {}
    }
    card.link = console(connection);
    card.buttons = approval.is_open(now).then(|| buttons(approval));
    if card.buttons.is_some() && !shows_all(&approval.facts) {
        card.sentences.push(
            "This card cannot show every fact, so it has no decision buttons. A client can decide with the fingerprint \
             from a status."
                .into(),
        );
    }
    card
}

/// The last reading, with the facts that people decide on while they decide.
fn shown(approval: &Approval) -> Connection {
    let mut connection = approval.connection.clone();
    let decided_on = match approval.state {
        State::Pending | State::Approved | State::Rejecting | State::Failed { .. } => true,
        State::Activating | State::Activated | State::Rejected | State::Expired | State::Deleted => false,
    };
    if decided_on {
        let Facts { requester, accepter, bandwidth_mbps, link_type } = approval.facts.clone();
        connection = Connection { requester, accepter, bandwidth_mbps, link_type, ..connection };
    }
    connection
}

fn headline(approval: &Approval, now: Timestamp) -> String {
    let id = &approval.id;
    match &approval.state {
        State::Pending if approval.is_past_expiry(now) => format!("VPC peering {id} is past its expiry"),
        State::Pending if approval.terms.rule.is_none() => {
            format!("VPC peering {id} is requested, and no rule covers it")
        }
        State::Pending => match (approval.terms.needed(), approval.given()) {
            (1, _) => format!("VPC peering {id} waits for approval"),
            (needed, given) => format!("VPC peering {id} waits for approval: {given} of {needed}"),
        },
        State::Approved => format!("VPC peering {id} is approved; Alibaba Cloud has not confirmed it yet"),
        State::Activating => format!("VPC peering {id} is accepted and being activated"),
        State::Activated => format!("VPC peering {id} is Activated"),
        State::Rejecting => format!("VPC peering {id} is to be rejected; Alibaba Cloud has not confirmed it yet"),
        State::Rejected => format!("VPC peering {id} was rejected"),
        State::Expired => format!("VPC peering {id} has expired"),
        State::Deleted => format!("VPC peering {id} was deleted"),
        State::Failed { .. } => match approval.winner().map(|winner| winner.verdict) {
            Some(Verdict::Reject) => format!("VPC peering {id} could not be rejected"),
            Some(Verdict::Approve) => format!("VPC peering {id} could not be accepted"),
            None => format!("VPC peering {id} changed too often to be decided"),
        },
    }
}

/// Who has decided, and who still has to.
pub(super) fn people(approval: &Approval, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut facts = vec![];
    let waits = approval.state == State::Pending && !approval.is_past_expiry(now);
    let terms = &approval.terms;
    if let Some(rule) = &terms.rule {
        facts.push(("Rule", plain(rule)));
    }
    let of = |verdict| approval.decisions.iter().filter(move |decision| decision.verdict == verdict);
    let approvers: Vec<Approver> = of(Verdict::Approve).map(|decision| decision.by.clone()).collect();
    if !approvers.is_empty() {
        facts.push(("Approved by", all_of(&approvers)));
    }
    for decision in of(Verdict::Reject) {
        facts.push(("Rejected by", who(&decision.by)));
    }
    let reasons = approval.decisions.iter().filter_map(|decision| {
        let reason = plain(decision.reason.as_deref()?);
        Some((
            "Reason",
            if approval.decisions.len() > 1 { format!("{}: {reason}", name(&decision.by)) } else { reason },
        ))
    });
    facts.extend(reasons);
    if waits && terms.rule.is_some() {
        let has_approved = |candidate: &&String| approvers.iter().any(|approver| name(approver) == **candidate);
        let mut names: Vec<_> = terms.approvers.iter().filter(|name| !has_approved(name)).cloned().collect();
        let missing = terms.needed().saturating_sub(approval.given());
        let can_be_met = usize::try_from(missing).is_ok_and(|missing| missing <= names.len());
        let more = names.len().saturating_sub(MOST_NAMES);
        names.truncate(MOST_NAMES);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        let listed = names.join(", ");
        facts.push(if can_be_met {
            ("Still needed", format!("{missing} of {listed}"))
        } else {
            let who = if names.is_empty() { "nobody else".to_owned() } else { format!("only {listed}") };
            (
                "⚠ Still needed",
                format!("{missing} more, but {who} may approve: the rule cannot be met and needs a change"),
            )
        });
    }
    facts
}

fn name(approver: &Approver) -> String {
    approver.person.clone().unwrap_or_else(|| who(approver))
}

/// How it went on after the decision.
fn outcome(approval: &Approval) -> Vec<(&'static str, String)> {
    let decided_at = approval.winner().map(|decision| ("Decided at", format!("{:.0}", decision.at)));
    let outside = || {
        let label = if approval.state == State::Rejected { "Rejected by" } else { "Accepted by" };
        decided(label, None)
    };
    let took = |notice: &Notice| {
        let News::Activated { took_s } = notice.news else { return None };
        Some(("Took", super::duration(took_s)))
    };
    let mut facts: Vec<_> = decided_at.into_iter().collect();
    let rejected_elsewhere = approval.state == State::Rejected
        && !matches!(approval.winner(), Some(Decision { verdict: Verdict::Reject, .. }));
    let is_accepted = matches!(approval.state, State::Activating | State::Activated);
    let accepted_elsewhere = is_accepted && !approval.is_accepted_by_us();
    if rejected_elsewhere || accepted_elsewhere {
        facts.extend(outside());
    }
    if approval.state == State::Activated && !accepted_elsewhere {
        facts.extend(approval.outbox.iter().rev().find_map(took));
    }
    if approval.state != State::Pending {
        facts.extend(approval.last_problem.iter().flat_map(problem_facts));
    }
    facts
}

/// The last change, as long as it is about what is shown.
fn marked_changes(approval: &Approval) -> Vec<(&'static str, String)> {
    let last = approval.history.iter().rev().find_map(|entry| {
        let What::Changed { fingerprint, changes, .. } = &entry.what else { return None };
        (*fingerprint == approval.fingerprint).then_some(changes)
    });
    last.into_iter().flatten().map(|change| ("⚠ Changed", describe(change))).collect()
}

pub(super) fn describe(change: &Change) -> String {
    let shown = |value: &str| if value.is_empty() { "none or unlimited".to_owned() } else { plain(value) };
    format!("{}: {} → {}", change.fact, shown(&change.before), shown(&change.after))
}

fn no_rule(unmatched: &[String]) -> Vec<String> {
    let why = if unmatched.is_empty() {
        "Each of its facts is allowed by some rule, but no rule allows all of them.".to_owned()
    } else {
        format!("No rule allows its {}.", unmatched.join(", "))
    };
    vec![format!("{why} So nobody can approve it here. A rule that covers it, for peergate.toml:")]
}

fn buttons(approval: &Approval) -> Buttons {
    let fits = shows_all(&approval.facts);
    let shown = [
        fits.then_some(Button::Approve { ask: approval.terms.require_reason }),
        fits.then_some(Button::Reject),
        (approval.state == State::Pending && approval.given() > 0).then_some(Button::Withdraw),
        Some(Button::Details),
    ];
    Buttons {
        target: approval.id.target.clone(),
        instance_id: approval.id.instance_id.clone(),
        fingerprint: approval.facts.fingerprint(),
        shown: shown.into_iter().flatten().collect(),
        bindings: vec![],
    }
}

/// The page of the console that lists it.
///
/// Source: <https://help.aliyun.com/en/vpc/vpc-peer-to-peer-connection>
fn console(connection: &Connection) -> Option<(&'static str, String)> {
    let region = &connection.accepter.region;
    let plain = region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (plain && !region.is_empty() && connection.status != Status::Deleted)
        .then(|| ("Open the console", format!("https://vpc.console.aliyun.com/vpcpeer/{region}/vpcpeers")))
}

/// A line of the checklist.
pub(super) fn check(finding: &Finding) -> String {
    let asks = match finding.check {
        Check::Account => "the accepting account is ours",
        Check::Status => "it waits to be accepted",
        Check::Expiry => "it has not expired",
        Check::BusinessStatus => "its business status is normal",
        Check::ManagedService => "no managed service owns it",
        Check::Cidrs => "the ranges of both sides are disjoint",
        Check::OtherPeerings => "no other peering of the accepting VPC uses the requester's ranges",
        Check::DryRun => "Alibaba Cloud would accept it (dry run)",
    };
    match &finding.found {
        Found::Passed => format!("✓ {asks}"),
        Found::Unknown(None) if finding.check == Check::Cidrs => {
            "⚠ the ranges of a side are unknown: whether they overlap could not be checked".to_owned()
        }
        Found::Unknown(None) => format!("⚠ not known whether {asks}"),
        Found::Unknown(Some(problem)) => format!("⚠ not known whether {asks}: {}", plain(&problem.code)),
        Found::Warning(neighbours) => {
            let taken = neighbours.iter().map(|neighbour| {
                format!("{} over {}", contains(&neighbour.requested, &neighbour.taken), neighbour.instance_id)
            });
            format!(
                "⚠ the requester's ranges are used by other peerings of the VPC: {}",
                taken.collect::<Vec<_>>().join("; ")
            )
        }
        Found::Objection(objection) => format!("✗ {}", stands_against(objection)),
    }
}

/// `a contains b`, whichever way round it is.
fn contains(requested: &IpNet, taken: &IpNet) -> String {
    match (requested.contains(taken), taken.contains(requested)) {
        (true, true) => format!("{requested} is also reached"),
        (true, false) => format!("{requested} contains {taken}, which is reached"),
        _ => format!("{requested} is inside {taken}, which is reached"),
    }
}

pub(super) fn stands_against(objection: &Objection) -> String {
    match objection {
        Objection::NotOurs => "the accepting account is not the target's".into(),
        Objection::Status(status) => format!("it is {}: it does not wait for a decision", plain(&status.to_string())),
        Objection::Expired => "it has expired".into(),
        Objection::BusinessStatus(status) => format!("its business status is {}", plain(&status.to_string())),
        Objection::ManagedService(service) => format!("the managed service {} owns it", plain(service)),
        Objection::Overlap(_) => "both sides use the same addresses, so routes between them cannot work".into(),
        Objection::DryRun(problem) => format!("Alibaba Cloud would not accept it (dry run): {}", plain(&problem.code)),
    }
}

/// Draws which range contains which: two ranges that overlap are never anything but one inside the other.
pub(super) fn figure(findings: &[Finding]) -> Vec<String> {
    let overlaps = findings.iter().filter_map(|finding| {
        let Found::Objection(Objection::Overlap(pairs)) = &finding.found else { return None };
        Some(pairs)
    });
    overlaps.flatten().take(MOST_DRAWN).flat_map(|(theirs, ours)| draw(theirs, ours)).collect()
}

fn draw(theirs: &IpNet, ours: &IpNet) -> Vec<String> {
    let (outer, inner) = if theirs.contains(ours) { (theirs, ours) } else { (ours, theirs) };
    let wide = theirs.to_string().len().max(ours.to_string().len());
    let line = |label: &str, range: &IpNet| {
        let (from, cells) = cells(outer, range);
        let bar: String =
            (0..FIGURE_WIDTH).map(|cell| if (from..from + cells).contains(&cell) { '█' } else { '·' }).collect();
        format!("{label:<9} {:<wide$} {bar}", range.to_string())
    };
    let relation = match (outer == inner, outer == theirs) {
        (true, _) => "both sides have the same range".to_owned(),
        (false, true) => format!("the requester's {outer} contains the accepting {inner}"),
        (false, false) => format!("the accepting {outer} contains the requester's {inner}"),
    };
    vec![relation, line("requester", theirs), line("accepting", ours)]
}

/// Which of the cells of `outer` a range inside it takes: the first, and how many, at least one.
fn cells(outer: &IpNet, inner: &IpNet) -> (u32, u32) {
    let bits = u32::from(inner.prefix_len().saturating_sub(outer.prefix_len()));
    let width_bits = FIGURE_WIDTH.trailing_zeros();
    let number = |range: &IpNet| match range {
        IpNet::V4(range) => u128::from(range.network().to_bits()) << 96,
        IpNet::V6(range) => range.network().to_bits(),
    };
    // Where the inner one begins, in 32nds of the outer one.
    let offset = number(inner) ^ number(outer);
    let first = offset.checked_shl(outer.prefix_len().into()).unwrap_or(0) >> (128 - width_bits);
    let first = u32::try_from(first).unwrap_or(0);
    (first, FIGURE_WIDTH.checked_shr(bits).unwrap_or(0).max(1))
}

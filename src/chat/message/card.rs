//! A request as it is: what an approver has to see, who has decided, and how far it has come.

use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    Button, Buttons, Link, Message, MessageFact, ShownButton, can_show_all, connection_facts, decision_facts,
    describe_approver, list_approvers, problem_facts, route_instructions, sanitize_text,
};
use crate::approval::{
    Approval, ApprovalState, Approver, AuditEvent, Decision, Notification, NotificationKind, Verdict,
};
use crate::peering::{Change, Connection, Facts, Status};
use crate::preflight::{Check, CheckOutcome, Finding, Objection};

/// The names of people that fit on a card.
const MAX_NAMES: usize = 8;
/// How wide a range is drawn, in characters.
const FIGURE_WIDTH: u32 = 32;
/// The most overlaps that are drawn.
const MAX_DRAWN_OVERLAPS: usize = 3;

/// The card of a request: the same in every channel, redrawn whenever something about it changes.
#[must_use]
pub fn request_card(approval: &Approval, now: Timestamp) -> Message {
    let connection = shown_connection(approval);
    let connection = &connection;
    let waits = approval.state == ApprovalState::Pending && !approval.is_past_expiry(now);
    let mut card = Message {
        headline: card_headline(approval, now),
        facts: connection_facts(connection, approval.policy.requester.as_deref()),
        ..Message::default()
    };
    if connection.is_cross_region() {
        let cost = "between regions: each side pays for the traffic that it sends (CDT)";
        card.facts.push(MessageFact::new("Cost", cost));
    }
    if waits {
        card.facts
            .extend(connection.expires_at.map(|expires_at| MessageFact::new("Expires", format!("{expires_at:.0}"))));
        card.facts.extend(change_facts(approval));
    }
    card.facts.extend(approver_facts(approval, now));
    card.facts.extend(outcome_facts(approval));
    if waits {
        card.checks = approval.findings.iter().map(describe_finding).collect();
        card.figure = draw_overlaps(&approval.findings);
    }
    match &approval.state {
        ApprovalState::Pending if !waits => {}
        ApprovalState::Pending if approval.policy.rule.is_none() => {
            card.sentences = explain_no_rule(&approval.policy.unmatched);
            card.snippet.clone_from(&approval.policy.suggestion);
        }
        ApprovalState::Activated => card.sentences = route_instructions(connection),
        ApprovalState::Failed { code } => card.sentences.push(super::advice_for_code(code).into()),
        ApprovalState::Pending
        | ApprovalState::Approved
        | ApprovalState::Activating
        | ApprovalState::Rejecting
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted => {}
    }
    card.link = console_link(connection);
    card.buttons = approval.is_open(now).then(|| card_buttons(approval));
    if card.buttons.is_some() && !can_show_all(&approval.facts) {
        card.sentences.push(
            "This card cannot show every fact, so it has no decision buttons. A client can decide with the fingerprint \
             from a status."
                .into(),
        );
    }
    card
}

/// The last reading, with the facts that people decide on while they decide.
fn shown_connection(approval: &Approval) -> Connection {
    let mut connection = approval.connection.clone();
    let decided_on = match approval.state {
        ApprovalState::Pending | ApprovalState::Approved | ApprovalState::Rejecting | ApprovalState::Failed { .. } => {
            true
        }
        ApprovalState::Activating
        | ApprovalState::Activated
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted => false,
    };
    if decided_on {
        let Facts { requester, accepter, bandwidth_mbps, link_type } = approval.facts.clone();
        connection = Connection { requester, accepter, bandwidth_mbps, link_type, ..connection };
    }
    connection
}

fn card_headline(approval: &Approval, now: Timestamp) -> String {
    let id = &approval.id;
    match &approval.state {
        ApprovalState::Pending if approval.is_past_expiry(now) => format!("VPC peering {id} is past its expiry"),
        ApprovalState::Pending if approval.policy.rule.is_none() => {
            format!("VPC peering {id} is requested, and no rule covers it")
        }
        ApprovalState::Pending => match (approval.policy.needed_approvals(), approval.approval_count()) {
            (1, _) => format!("VPC peering {id} waits for approval"),
            (needed, given) => format!("VPC peering {id} waits for approval: {given} of {needed}"),
        },
        ApprovalState::Approved => format!("VPC peering {id} is approved; Alibaba Cloud has not confirmed it yet"),
        ApprovalState::Activating => format!("VPC peering {id} is accepted and being activated"),
        ApprovalState::Activated => format!("VPC peering {id} is Activated"),
        ApprovalState::Rejecting => {
            format!("VPC peering {id} is to be rejected; Alibaba Cloud has not confirmed it yet")
        }
        ApprovalState::Rejected => format!("VPC peering {id} was rejected"),
        ApprovalState::Expired => format!("VPC peering {id} has expired"),
        ApprovalState::Deleted => format!("VPC peering {id} was deleted"),
        ApprovalState::Failed { .. } => match approval.winner().map(|winner| winner.verdict) {
            Some(Verdict::Reject) => format!("VPC peering {id} could not be rejected"),
            Some(Verdict::Approve) => format!("VPC peering {id} could not be accepted"),
            None => format!("VPC peering {id} changed too often to be decided"),
        },
    }
}

/// Who has decided, and who still has to.
pub(super) fn approver_facts(approval: &Approval, now: Timestamp) -> Vec<MessageFact> {
    let mut facts = vec![];
    let waits = approval.state == ApprovalState::Pending && !approval.is_past_expiry(now);
    let terms = &approval.policy;
    if let Some(rule) = &terms.rule {
        facts.push(MessageFact::new("Rule", sanitize_text(rule)));
    }
    let of = |verdict| approval.decisions.iter().filter(move |decision| decision.verdict == verdict);
    let approvers: Vec<Approver> = of(Verdict::Approve).map(|decision| decision.by.clone()).collect();
    if !approvers.is_empty() {
        facts.push(MessageFact::new("Approved by", list_approvers(&approvers)));
    }
    for decision in of(Verdict::Reject) {
        facts.push(MessageFact::new("Rejected by", describe_approver(&decision.by)));
    }
    let reasons = approval.decisions.iter().filter_map(|decision| {
        let reason = sanitize_text(decision.reason.as_deref()?);
        let is_only_one = approval.decisions.len() == 1;
        let reason = if is_only_one { reason } else { format!("{}: {reason}", approver_name(&decision.by)) };
        Some(MessageFact::new("Reason", reason))
    });
    facts.extend(reasons);
    if waits && terms.rule.is_some() {
        let has_approved =
            |candidate: &&String| approvers.iter().any(|approver| approver_name(approver) == **candidate);
        let mut names: Vec<_> = terms.approvers.iter().filter(|name| !has_approved(name)).cloned().collect();
        let missing = terms.needed_approvals().saturating_sub(approval.approval_count());
        let can_be_met = usize::try_from(missing).is_ok_and(|missing| missing <= names.len());
        let more = names.len().saturating_sub(MAX_NAMES);
        names.truncate(MAX_NAMES);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        let listed = names.join(", ");
        facts.push(if can_be_met {
            MessageFact::new("Still needed", format!("{missing} of {listed}"))
        } else {
            let who = if names.is_empty() { "nobody else".to_owned() } else { format!("only {listed}") };
            let text = format!("{missing} more, but {who} may approve: the rule cannot be met and needs a change");
            MessageFact::new("⚠ Still needed", text)
        });
    }
    facts
}

fn approver_name(approver: &Approver) -> String {
    approver.person.clone().unwrap_or_else(|| describe_approver(approver))
}

/// How it went on after the decision.
fn outcome_facts(approval: &Approval) -> Vec<MessageFact> {
    let decided_at = approval.winner().map(|decision| MessageFact::new("Decided at", format!("{:.0}", decision.at)));
    let outside = || {
        let label = if approval.state == ApprovalState::Rejected { "Rejected by" } else { "Accepted by" };
        decision_facts(label, None)
    };
    let took = |notice: &Notification| {
        let NotificationKind::Activated { took_s } = notice.kind else { return None };
        Some(MessageFact::new("Took", super::format_duration(took_s)))
    };
    let mut facts: Vec<_> = decided_at.into_iter().collect();
    let rejected_elsewhere = approval.state == ApprovalState::Rejected
        && !matches!(approval.winner(), Some(Decision { verdict: Verdict::Reject, .. }));
    let is_accepted = matches!(approval.state, ApprovalState::Activating | ApprovalState::Activated);
    let accepted_elsewhere = is_accepted && !approval.is_accepted_by_us();
    if rejected_elsewhere || accepted_elsewhere {
        facts.extend(outside());
    }
    if approval.state == ApprovalState::Activated && !accepted_elsewhere {
        facts.extend(approval.outbox.iter().rev().find_map(took));
    }
    if approval.state != ApprovalState::Pending {
        facts.extend(approval.last_problem.iter().flat_map(problem_facts));
    }
    facts
}

/// The last change, as long as it is about what is shown.
fn change_facts(approval: &Approval) -> Vec<MessageFact> {
    let last = approval.history.iter().rev().find_map(|entry| {
        let AuditEvent::Changed { fingerprint, changes, .. } = &entry.event else { return None };
        (*fingerprint == approval.fingerprint).then_some(changes)
    });
    last.into_iter().flatten().map(|change| MessageFact::new("⚠ Changed", describe_change(change))).collect()
}

pub(super) fn describe_change(change: &Change) -> String {
    let shown = |value: &str| if value.is_empty() { "none or unlimited".to_owned() } else { sanitize_text(value) };
    format!("{}: {} → {}", change.fact, shown(&change.before), shown(&change.after))
}

fn explain_no_rule(unmatched: &[String]) -> Vec<String> {
    let why = if unmatched.is_empty() {
        "Each of its facts is allowed by some rule, but no rule allows all of them.".to_owned()
    } else {
        format!("No rule allows its {}.", unmatched.join(", "))
    };
    vec![format!("{why} So nobody can approve it here. A rule that covers it, for peergate.toml:")]
}

fn card_buttons(approval: &Approval) -> Buttons {
    let fits = can_show_all(&approval.facts);
    let shown = [
        fits.then_some(Button::Approve { needs_reason: approval.policy.require_reason }),
        fits.then_some(Button::Reject),
        (approval.state == ApprovalState::Pending && approval.approval_count() > 0).then_some(Button::Withdraw),
        Some(Button::Details),
    ];
    Buttons {
        target: approval.id.target.clone(),
        instance_id: approval.id.instance_id.clone(),
        fingerprint: approval.facts.fingerprint(),
        shown: shown.into_iter().flatten().map(ShownButton::from).collect(),
    }
}

/// The page of the console that lists it.
///
/// Source: <https://help.aliyun.com/en/vpc/vpc-peer-to-peer-connection>
fn console_link(connection: &Connection) -> Option<Link> {
    let region = &connection.accepter.region;
    let plain = region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (plain && !region.is_empty() && connection.status != Status::Deleted).then(|| Link {
        label: "Open the console",
        url: format!("https://vpc.console.aliyun.com/vpcpeer/{region}/vpcpeers"),
    })
}

/// A line of the checklist.
pub(super) fn describe_finding(finding: &Finding) -> String {
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
    match &finding.outcome {
        CheckOutcome::Passed => format!("✓ {asks}"),
        CheckOutcome::Unknown(None) if finding.check == Check::Cidrs => {
            "⚠ the ranges of a side are unknown: whether they overlap could not be checked".to_owned()
        }
        CheckOutcome::Unknown(None) => format!("⚠ not known whether {asks}"),
        CheckOutcome::Unknown(Some(problem)) => format!("⚠ not known whether {asks}: {}", sanitize_text(&problem.code)),
        CheckOutcome::Warning(neighbours) => {
            let taken = neighbours.iter().map(|neighbour| {
                format!("{} over {}", describe_overlap(&neighbour.requested, &neighbour.taken), neighbour.instance_id)
            });
            format!(
                "⚠ the requester's ranges are used by other peerings of the VPC: {}",
                taken.collect::<Vec<_>>().join("; ")
            )
        }
        CheckOutcome::Objection(objection) => format!("✗ {}", explain_objection(objection)),
    }
}

/// `a contains b`, whichever way round it is.
fn describe_overlap(requested: &IpNet, taken: &IpNet) -> String {
    match (requested.contains(taken), taken.contains(requested)) {
        (true, true) => format!("{requested} is also reached"),
        (true, false) => format!("{requested} contains {taken}, which is reached"),
        _ => format!("{requested} is inside {taken}, which is reached"),
    }
}

pub(super) fn explain_objection(objection: &Objection) -> String {
    match objection {
        Objection::NotOurs => "the accepting account is not the target's".into(),
        Objection::Status(status) => {
            format!("it is {}: it does not wait for a decision", sanitize_text(&status.to_string()))
        }
        Objection::Expired => "it has expired".into(),
        Objection::BusinessStatus(status) => format!("its business status is {}", sanitize_text(&status.to_string())),
        Objection::ManagedService(service) => format!("the managed service {} owns it", sanitize_text(service)),
        Objection::Overlap(_) => "both sides use the same addresses, so routes between them cannot work".into(),
        Objection::DryRun(problem) => {
            format!("Alibaba Cloud would not accept it (dry run): {}", sanitize_text(&problem.code))
        }
    }
}

/// Draws which range contains which: two ranges that overlap are never anything but one inside the other.
pub(super) fn draw_overlaps(findings: &[Finding]) -> Vec<String> {
    let overlaps = findings.iter().filter_map(|finding| {
        let CheckOutcome::Objection(Objection::Overlap(pairs)) = &finding.outcome else { return None };
        Some(pairs)
    });
    overlaps.flatten().take(MAX_DRAWN_OVERLAPS).flat_map(|(theirs, ours)| draw_overlap(theirs, ours)).collect()
}

fn draw_overlap(theirs: &IpNet, ours: &IpNet) -> Vec<String> {
    let (outer, inner) = if theirs.contains(ours) { (theirs, ours) } else { (ours, theirs) };
    let wide = theirs.to_string().len().max(ours.to_string().len());
    let line = |label: &str, range: &IpNet| {
        let BarSegment { first, width } = bar_segment(outer, range);
        let bar: String =
            (0..FIGURE_WIDTH).map(|cell| if (first..first + width).contains(&cell) { '█' } else { '·' }).collect();
        format!("{label:<9} {:<wide$} {bar}", range.to_string())
    };
    let relation = match (outer == inner, outer == theirs) {
        (true, _) => "both sides have the same range".to_owned(),
        (false, true) => format!("the requester's {outer} contains the accepting {inner}"),
        (false, false) => format!("the accepting {outer} contains the requester's {inner}"),
    };
    vec![relation, line("requester", theirs), line("accepting", ours)]
}

/// The cells of a bar that a CIDR block fills.
struct BarSegment {
    first: u32,
    /// At least one.
    width: u32,
}

/// The cells that `inner` fills in a bar of `outer`, which contains it.
fn bar_segment(outer: &IpNet, inner: &IpNet) -> BarSegment {
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
    BarSegment { first, width: FIGURE_WIDTH.checked_shr(bits).unwrap_or(0).max(1) }
}

//! The card of a request: what is asked of whom, the facts, who has decided, and the progress.

use jiff::Timestamp;

use super::advice::{CHECK_BYPASS, PREVENT_BYPASS, advice_for_code};
use super::checks::{draw_overlaps, summarize_findings};
use super::drift::{delete_command, drift_advice, drift_facts, drift_headline};
use super::facts::{
    approver_name, can_show_all, connection_facts, decision_facts, describe_approver, describe_change, list_approvers,
    problem_facts, route_instructions,
};
use super::routes::{are_routes_complete, route_commands, route_lines};
use super::{
    Button, Buttons, Link, Message, MessageFact, ShownButton, format_duration, format_time, join_with, sanitize_reason,
    sanitize_text,
};
use crate::approval::{
    Approval, ApprovalState, Approver, AuditEvent, Decision, Drift, Notification, NotificationKind, PolicySnapshot,
    Verdict, failure_code,
};
use crate::peering::{Connection, Facts, Status};
use crate::preflight::first_objection;

/// The most names in a list of approvers.
const MAX_LISTED_NAMES: usize = 8;
/// The most names in a headline.
const MAX_HEADLINE_NAMES: usize = 3;
/// The most reasons on a card. With long CIDR blocks, the card must fit into 30 KB in Feishu, and into about 13,000
/// characters in Slack.
///
/// Source: <https://github.com/slackapi/bolt-js/issues/2509>
const MAX_SHOWN_REASONS: usize = 5;
/// The longest name of a requester in a headline, in characters.
const MAX_REQUESTER_CHARS: usize = 40;

/// The card of a request. Every channel shows the same one, and it is updated whenever the request changes.
#[must_use]
pub fn request_card(approval: &Approval, now: Timestamp) -> Message {
    let connection = &shown_connection(approval);
    let is_pending = is_pending(approval, now);
    let mut card = Message {
        headline: card_headline(approval, now),
        facts: connection_facts(connection, approval.policy().requester.as_deref()),
        sentences: next_steps(approval, connection, now),
        link: console_link(connection),
        ..Message::default()
    };
    if connection.is_cross_region() {
        let cost = "cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)";
        card.facts.push(MessageFact::new("Cost", cost));
    }
    if is_pending {
        card.facts.extend(connection.expires_at.map(|expires_at| MessageFact::new("Expires", format_time(expires_at))));
        card.facts.extend(change_facts(approval));
    }
    card.facts.extend(approver_facts(approval, now));
    card.facts.extend(outcome_facts(approval));
    if is_pending {
        card.checks = summarize_findings(approval.findings());
        card.figure = draw_overlaps(approval.findings());
        if approval.policy().rule.is_none() {
            card.snippet.clone_from(&approval.policy().suggestion);
        }
    }
    if matches!(approval.state(), ApprovalState::Activated | ApprovalState::Deleted) {
        card.checks = route_lines(approval);
        card.snippet = route_commands(approval);
    }
    if let Some(drift) = approval.drift() {
        show_drift(&mut card, approval, drift);
    }
    if approval.is_open(now) {
        card.buttons = Some(card_buttons(approval));
        if !can_show_all(approval.facts()) {
            let text = "This card cannot show every fact, so it has no Approve and Reject buttons. A webhook client can decide with \
                        the fingerprint from a status reply.";
            card.sentences.push(text.into());
        }
    }
    card
}

/// Asks people to acknowledge the change of an activated connection.
fn show_drift(card: &mut Message, approval: &Approval, drift: &Drift) {
    card.headline = drift_headline(approval, needed_short_names(approval).as_deref());
    card.facts.extend(drift_facts(drift));
    if approval.policy().rule.is_some() {
        card.facts.push(RemainingApprovals::of(approval).to_fact());
    }
    card.checks = summarize_findings(approval.findings());
    card.figure = draw_overlaps(approval.findings());
    card.sentences = drift_advice();
    card.snippet = Some(delete_command(approval));
    let can_decide = can_show_all(&approval.asked_facts());
    if !can_decide {
        card.sentences.push(
            "This card cannot show every fact, so it has no Acknowledge button. A webhook client can \
                             acknowledge the change with the fingerprint from a status reply."
                .into(),
        );
    }
    let buttons = can_decide.then_some(Button::Acknowledge).into_iter().chain([Button::Details]);
    card.buttons = Some(Buttons {
        target: approval.id().target.clone(),
        instance_id: approval.id().instance_id.clone(),
        fingerprint: approval.asked_fingerprint().clone(),
        shown: buttons.map(ShownButton::from).collect(),
    });
}

fn is_pending(approval: &Approval, now: Timestamp) -> bool {
    *approval.state() == ApprovalState::Pending && !approval.is_past_expiry(now)
}

/// The last reading. While people decide, it has the facts that they decide on.
fn shown_connection(approval: &Approval) -> Connection {
    let mut connection = approval.connection().clone();
    let shows_decided_facts = match approval.state() {
        ApprovalState::Pending | ApprovalState::Approved | ApprovalState::Rejecting | ApprovalState::Failed { .. } => {
            true
        }
        ApprovalState::Activating
        | ApprovalState::Activated
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted => false,
    };
    if shows_decided_facts {
        let Facts { requester, accepter, bandwidth_mbps, link_type } = approval.facts().clone();
        connection = Connection { requester, accepter, bandwidth_mbps, link_type, ..connection };
    }
    connection
}

fn card_headline(approval: &Approval, now: Timestamp) -> String {
    let id = approval.id();
    match approval.state() {
        ApprovalState::Pending => pending_headline(approval, now),
        ApprovalState::Approved => {
            format!("VPC peering {id} is approved; Alibaba Cloud has not confirmed it yet")
        }
        ApprovalState::Activating => format!("VPC peering {id} was accepted and is being activated"),
        ApprovalState::Activated if approval.adopted_by().is_some() => {
            let by = approval.adopted_by().map(|(by, _)| sanitize_text(by)).unwrap_or_default();
            format!("VPC peering {id} is Activated; {by} adopted it")
        }
        ApprovalState::Activated if !approval.is_accepted_by_us() => {
            format!("⚠ VPC peering {id} is Activated, but was accepted outside peergate")
        }
        ApprovalState::Activated if are_routes_complete(approval) => {
            format!("VPC peering {id} is Activated, and our side has its routes")
        }
        ApprovalState::Activated => {
            format!("VPC peering {id} is Activated; it carries traffic once both sides have routes")
        }
        ApprovalState::Rejecting => {
            format!("VPC peering {id} is being rejected; Alibaba Cloud has not confirmed it yet")
        }
        ApprovalState::Rejected => format!("VPC peering {id} was rejected"),
        ApprovalState::Expired => format!("VPC peering {id} has expired"),
        ApprovalState::Deleted => format!("VPC peering {id} was deleted"),
        ApprovalState::Failed { code } => match approval.winner().map(|winner| winner.verdict) {
            Some(verdict) => failure_headline(approval, verdict, code),
            None => format!("VPC peering {id} changed too often to be decided"),
        },
    }
}

/// Asks the approvers to decide, or says who else must act first.
fn pending_headline(approval: &Approval, now: Timestamp) -> String {
    let id = approval.id();
    let requester = requester_name(approval);
    match Ask::of(approval, now) {
        None => format!("VPC peering {id} is past its expiry: nobody can decide on it any more"),
        Some(Ask::AddRule) => {
            format!("No rule covers VPC peering {id}, requested by {requester}: nobody can decide on it")
        }
        Some(Ask::ChangeRule) => {
            format!("Too few people may approve VPC peering {id}, requested by {requester}: its rule must change")
        }
        Some(Ask::RejectOrFix(who)) => {
            format!("A check fails for VPC peering {id}, requested by {requester}: {who} can only reject it")
        }
        Some(Ask::Decide(who)) => {
            let progress = match approval.policy().needed_approvals() {
                1 => String::new(),
                needed => format!(" ({} of {needed} approvals)", approval.approval_count()),
            };
            format!("{who}: approve or reject VPC peering {id}, requested by {requester}{progress}")
        }
    }
}

/// The approvers who must decide about a request, as its record names them. Empty if nobody can decide now.
#[must_use]
pub fn needed_approvers(approval: &Approval, now: Timestamp) -> Vec<String> {
    if approval.drift().is_some() {
        return RemainingApprovals::of(approval).keys;
    }
    match Ask::of(approval, now) {
        Some(Ask::Decide(_) | Ask::RejectOrFix(_)) => RemainingApprovals::of(approval).keys,
        Some(Ask::AddRule | Ask::ChangeRule) | None => vec![],
    }
}

/// Who can still acknowledge a change, for a headline. `None` if they are too few.
fn needed_short_names(approval: &Approval) -> Option<String> {
    let remaining = RemainingApprovals::of(approval);
    remaining.can_be_given().then(|| remaining.short_names())
}

/// What a pending request needs, and from whom.
pub(super) enum Ask {
    /// No rule covers the request.
    AddRule,
    /// The rule names too few approvers.
    ChangeRule,
    /// A check fails, so these people can only reject the request.
    RejectOrFix(String),
    /// These people decide.
    Decide(String),
}

impl Ask {
    /// `None` if the request is not pending.
    pub(super) fn of(approval: &Approval, now: Timestamp) -> Option<Self> {
        if !is_pending(approval, now) {
            return None;
        }
        let remaining = RemainingApprovals::of(approval);
        Some(if approval.policy().rule.is_none() {
            Self::AddRule
        } else if !remaining.can_be_given() {
            Self::ChangeRule
        } else if first_objection(approval.findings()).is_some() {
            Self::RejectOrFix(remaining.short_names())
        } else {
            Self::Decide(remaining.short_names())
        })
    }

    /// The end of a headline.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::AddRule => "no rule covers it, so nobody can decide on it".to_owned(),
            Self::ChangeRule => "too few people may approve it, so its rule must change".to_owned(),
            Self::RejectOrFix(who) => format!("a check fails, so {who} can only reject it"),
            Self::Decide(who) => format!("{who} must approve or reject it"),
        }
    }
}

/// The approvals or acknowledgments that are missing, and who can give them.
struct RemainingApprovals {
    missing: u32,
    /// Who can give them, as the record names them.
    keys: Vec<String>,
    /// The same people, as messages name them.
    names: Vec<String>,
}

impl RemainingApprovals {
    fn of(approval: &Approval) -> Self {
        let given = approval.drift().map_or(approval.decisions(), |drift| &drift.acknowledgments);
        let approvals = given.iter().filter(|decision| decision.verdict == Verdict::Approve);
        let approved: Vec<_> = approvals.map(|decision| decision.by.key()).collect();
        let PolicySnapshot { approvers, display_names, .. } = approval.policy();
        let keys: Vec<_> = approvers.iter().filter(|key| !approved.contains(&key.as_str())).cloned().collect();
        let names =
            keys.iter().map(|key| display_names.get(key).map_or_else(|| key.clone(), |name| sanitize_text(name)));
        let names = names.collect();
        let missing =
            approval.policy().needed_approvals().saturating_sub(u32::try_from(approved.len()).unwrap_or(u32::MAX));
        Self { missing, keys, names }
    }

    fn can_be_given(&self) -> bool {
        !self.names.is_empty() && usize::try_from(self.missing).is_ok_and(|missing| missing <= self.names.len())
    }

    fn short_names(&self) -> String {
        let mut names: Vec<_> = self.names.iter().take(MAX_HEADLINE_NAMES).cloned().collect();
        match self.names.len().saturating_sub(names.len()) {
            0 => {}
            1 => names.push("1 other".to_owned()),
            others => names.push(format!("{others} others")),
        }
        join_with(&names, "or")
    }

    fn to_fact(&self) -> MessageFact {
        let mut names: Vec<_> = self.names.iter().take(MAX_LISTED_NAMES).cloned().collect();
        let more = self.names.len().saturating_sub(names.len());
        if more > 0 {
            names.push(format!("{more} more"));
        }
        let (missing, listed) = (self.missing, names.join(", "));
        if self.can_be_given() {
            return MessageFact::new("Still needed", format!("{missing} of {listed}"));
        }
        let who = if names.is_empty() { "nobody else".to_owned() } else { format!("only {listed}") };
        let text = format!("{missing} more, but {who} may approve: the rule must change");
        MessageFact::new("⚠ Still needed", text)
    }
}

/// The requester's name, if it is plain enough for a headline; else the account.
fn requester_name(approval: &Approval) -> String {
    let is_plain = |name: &&String| {
        name.chars().count() <= MAX_REQUESTER_CHARS && name.chars().all(|c| c.is_alphanumeric() || " -.&".contains(c))
    };
    let name = approval.policy().requester.as_ref().filter(is_plain).map(|name| sanitize_text(name));
    name.unwrap_or_else(|| format!("account {}", approval.facts().requester.account))
}

/// Says that a decision could not be carried out, and what to do.
pub(super) fn failure_headline(approval: &Approval, verdict: Verdict, code: &str) -> String {
    let word = match verdict {
        Verdict::Approve => "accepted",
        Verdict::Reject => "rejected",
    };
    let next = match code {
        failure_code::ACCEPTED_ELSEWHERE => "somebody accepted it outside peergate",
        _ => "fix the cause, then decide again",
    };
    format!("VPC peering {} could not be {word}: {next}", approval.id())
}

fn next_steps(approval: &Approval, connection: &Connection, now: Timestamp) -> Vec<String> {
    match approval.state() {
        ApprovalState::Pending if is_pending(approval, now) && approval.policy().rule.is_none() => {
            explain_no_rule(&approval.policy().unmatched)
        }
        ApprovalState::Activated if !approval.is_accepted_by_us() && approval.adopted_by().is_none() => {
            vec![CHECK_BYPASS.into(), PREVENT_BYPASS.into()]
        }
        ApprovalState::Activated => route_instructions(connection),
        ApprovalState::Failed { code } => vec![advice_for_code(code).into()],
        ApprovalState::Pending
        | ApprovalState::Approved
        | ApprovalState::Activating
        | ApprovalState::Rejecting
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted => vec![],
    }
}

fn explain_no_rule(unmatched: &[String]) -> Vec<String> {
    vec![
        describe_unmatched(unmatched),
        "To let people decide, an operator of peergate can add this rule to peergate.toml:".to_owned(),
    ]
}

/// Why no rule covers a request.
pub(super) fn describe_unmatched(unmatched: &[String]) -> String {
    if unmatched.is_empty() {
        "Each of its facts is allowed by some rule, but no rule allows all of them.".to_owned()
    } else {
        format!("No rule allows its {}.", join_with(unmatched, "and its"))
    }
}

/// The rule, who has decided and why, and who still has to decide.
pub(super) fn approver_facts(approval: &Approval, now: Timestamp) -> Vec<MessageFact> {
    let mut facts: Vec<_> =
        approval.policy().rule.iter().map(|rule| MessageFact::new("Rule", sanitize_text(rule))).collect();
    let of = |verdict| approval.decisions().iter().filter(move |decision| decision.verdict == verdict);
    let approvers: Vec<Approver> = of(Verdict::Approve).map(|decision| decision.by.clone()).collect();
    if !approvers.is_empty() {
        facts.push(MessageFact::new("Approved by", list_approvers(&approvers)));
    }
    let rejecters = of(Verdict::Reject).map(|decision| describe_approver(&decision.by));
    facts.extend(rejecters.map(|rejecter| MessageFact::new("Rejected by", rejecter)));
    facts.extend(reason_facts(approval));
    if is_pending(approval, now) && approval.policy().rule.is_some() {
        facts.push(RemainingApprovals::of(approval).to_fact());
    }
    facts
}

/// The latest reasons, each as a whole, and how many more there are.
fn reason_facts(approval: &Approval) -> Vec<MessageFact> {
    let is_only_one = approval.decisions().len() == 1;
    let describe = |decision: &Decision| {
        let reason = sanitize_reason(decision.reason.as_deref()?);
        Some(if is_only_one { reason } else { format!("{}: {reason}", approver_name(&decision.by)) })
    };
    let reasons: Vec<_> = approval.decisions().iter().filter_map(describe).collect();
    let earlier = reasons.len().saturating_sub(MAX_SHOWN_REASONS);
    let hidden = (earlier > 0).then(|| {
        let reasons = if earlier == 1 { "1 more".to_owned() } else { format!("{earlier} more") };
        MessageFact::new("Earlier reasons", format!("{reasons}, in the history: see Details, or `peergate show`"))
    });
    let latest = reasons.into_iter().skip(earlier).map(|reason| MessageFact::new("Reason", reason));
    hidden.into_iter().chain(latest).collect()
}

/// What happened after the decision.
fn outcome_facts(approval: &Approval) -> Vec<MessageFact> {
    let decided_at = approval.winner().map(|decision| MessageFact::new("Decided at", format_time(decision.at)));
    let took = |notification: &Notification| {
        let NotificationKind::Activated { took_s } = notification.kind else { return None };
        Some(MessageFact::new("Activated after", format_duration(took_s)))
    };
    let mut facts: Vec<_> = decided_at.into_iter().collect();
    let rejected_elsewhere = *approval.state() == ApprovalState::Rejected
        && !matches!(approval.winner(), Some(Decision { verdict: Verdict::Reject, .. }));
    let is_accepted = matches!(approval.state(), ApprovalState::Activating | ApprovalState::Activated);
    let accepted_elsewhere = is_accepted && !approval.is_accepted_by_us();
    if rejected_elsewhere {
        facts.extend(decision_facts("Rejected by", None));
    } else if accepted_elsewhere {
        facts.extend(decision_facts("Accepted by", None));
    } else if *approval.state() == ApprovalState::Activated {
        facts.extend(approval.outbox().iter().rev().find_map(took));
    }
    if *approval.state() != ApprovalState::Pending {
        facts.extend(approval.last_problem().into_iter().flat_map(problem_facts));
    }
    facts
}

/// The last change, if the card shows its result.
fn change_facts(approval: &Approval) -> Vec<MessageFact> {
    let last = approval.history().iter().rev().find_map(|entry| {
        let AuditEvent::Changed { fingerprint, changes, .. } = &entry.event else { return None };
        (*fingerprint == *approval.fingerprint()).then_some(changes)
    });
    last.into_iter().flatten().map(|change| MessageFact::new("⚠ Changed", describe_change(change))).collect()
}

fn card_buttons(approval: &Approval) -> Buttons {
    let can_decide = can_show_all(approval.facts());
    let shown = [
        can_decide.then_some(Button::Approve { needs_reason: approval.policy().require_reason }),
        can_decide.then_some(Button::Reject),
        (*approval.state() == ApprovalState::Pending && approval.approval_count() > 0).then_some(Button::Withdraw),
        Some(Button::Details),
    ];
    Buttons {
        target: approval.id().target.clone(),
        instance_id: approval.id().instance_id.clone(),
        fingerprint: approval.facts().fingerprint(),
        shown: shown.into_iter().flatten().map(ShownButton::from).collect(),
    }
}

/// The page of the console that lists the connection.
///
/// Source: <https://help.aliyun.com/en/vpc/vpc-peer-to-peer-connection>
fn console_link(connection: &Connection) -> Option<Link> {
    let region = &connection.accepter.region;
    let is_plain = region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (is_plain && !region.is_empty() && connection.status != Status::Deleted).then(|| Link {
        label: "Open the console",
        url: format!("https://vpc.console.aliyun.com/vpcpeer/{region}/vpcpeers"),
    })
}

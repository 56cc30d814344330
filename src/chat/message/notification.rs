//! What happened to a request, for channels. Each headline says what happened and, if somebody must act, who and how.

use jiff::Timestamp;

use super::advice::{CHECK_BYPASS, PREVENT_BYPASS, advice_for_code};
use super::card::{Ask, approver_facts, failure_headline, request_card};
use super::checks::explain_objection;
use super::drift::{
    describe_acknowledgment, describe_adoption, describe_drift, describe_drift_end, describe_removal, remind_of_drift,
};
use super::facts::{
    approver_name, connection_facts, decision_facts, describe_approver, describe_change, list_approvers, problem_facts,
    route_instructions,
};
use super::routes::routes_of_both_sides;
use super::{Message, MessageFact, format_duration, format_time, format_wait, sanitize_text, with_headline};
use crate::approval::{
    Approval, ApprovalState, Approver, Decision, Notification, NotificationKind, SendBackReason, Verdict,
};
use crate::peering::{Change, Problem};

/// The name of a notification for machines and logs, as in `peering.activated`.
#[must_use]
pub fn notification_name(kind: &NotificationKind) -> &'static str {
    match kind {
        NotificationKind::Discovered => "discovered",
        NotificationKind::Changed { .. } => "changed",
        NotificationKind::RuleChanged { .. } => "rule_changed",
        NotificationKind::Checked => "checked",
        NotificationKind::Decided { .. } => "decided",
        NotificationKind::Withdrawn { .. } => "withdrawn",
        NotificationKind::Reminder { .. } => "reminder",
        NotificationKind::Escalated { .. } => "escalated",
        NotificationKind::ExpiresSoon { .. } => "expires_soon",
        NotificationKind::Accepted(_) => "accepted",
        NotificationKind::Bypassed { .. } => "bypassed",
        NotificationKind::Stuck { .. } => "stuck",
        NotificationKind::FactsDiffer { .. } => "differs",
        NotificationKind::Drifted { .. } => "drifted",
        NotificationKind::DriftEnded => "drift_ended",
        NotificationKind::DriftAcknowledged { .. } => "drift_acknowledged",
        NotificationKind::DriftReminder { .. } => "drift_reminder",
        NotificationKind::Removed { .. } => "removed",
        NotificationKind::Adopted { .. } => "adopted",
        NotificationKind::Activated { .. } => "activated",
        NotificationKind::Rejected(_) => "rejected",
        NotificationKind::Expired => "expired",
        NotificationKind::Deleted => "deleted",
        NotificationKind::Failed { .. } => "failed",
        NotificationKind::SentBack { .. } => "sent_back",
        NotificationKind::Corrected { .. } => "corrected",
    }
}

/// What happened, for the thread of the card.
#[must_use]
pub fn describe_notification(approval: &Approval, notification: &Notification) -> Message {
    let (id, at) = (approval.id(), notification.at);
    match &notification.kind {
        NotificationKind::Discovered => with_headline(and_ask(format!("VPC peering {id} is requested"), approval, at)),
        NotificationKind::Checked => with_headline(format!("VPC peering {id} was checked again: its card has changed")),
        NotificationKind::Changed { changes, void } => describe_changed(approval, changes, void, at),
        NotificationKind::RuleChanged { void } => describe_rule_change(approval, void, at),
        NotificationKind::Decided { decision, given, needed } => {
            describe_decision(approval, decision, Progress { given: *given, needed: *needed })
        }
        NotificationKind::Withdrawn { by, given, needed } => {
            describe_withdrawal(approval, by, Progress { given: *given, needed: *needed })
        }
        NotificationKind::Reminder { waiting_s } => {
            let headline = format!("VPC peering {id} has been pending for {}", format_wait(*waiting_s));
            remind(approval, headline, at)
        }
        NotificationKind::Escalated { waiting_s } => {
            let headline = format!("VPC peering {id} has been undecided for {}", format_wait(*waiting_s));
            remind(approval, headline, at)
        }
        NotificationKind::ExpiresSoon { expires_at } => {
            let headline = format!("VPC peering {id} expires at {}", format_time(*expires_at));
            let sentences = vec!["After that, the requester must send a new request.".into()];
            Message { sentences, ..remind(approval, headline, at) }
        }
        NotificationKind::SentBack { why, void } => describe_send_back(approval, why, void, at),
        NotificationKind::Accepted(by) => Message {
            facts: decision_facts("Approved by", by.as_ref()),
            ..with_headline(format!("VPC peering {id} was accepted and is being activated"))
        },
        NotificationKind::Bypassed { given, needed, was_known } => {
            describe_bypass(approval, Progress { given: *given, needed: *needed }, *was_known)
        }
        NotificationKind::Stuck { for_s, problem } => describe_stuck(approval, *for_s, problem.as_ref()),
        NotificationKind::FactsDiffer { changes } => describe_difference(approval, changes),
        NotificationKind::Drifted { changes } => describe_drift(approval, changes),
        NotificationKind::DriftEnded => describe_drift_end(approval),
        NotificationKind::DriftAcknowledged { decision, given, needed } => {
            describe_acknowledgment(approval, decision, *given, *needed)
        }
        NotificationKind::DriftReminder { waiting_s } => remind_of_drift(approval, *waiting_s),
        NotificationKind::Removed { lived_s } => describe_removal(approval, *lived_s),
        NotificationKind::Adopted { by, reason } => describe_adoption(approval, by, reason),
        NotificationKind::Activated { took_s } => describe_activation(approval, *took_s),
        NotificationKind::Rejected(by) => describe_rejection(approval, by.as_ref()),
        NotificationKind::Expired => describe_expiry(approval),
        NotificationKind::Deleted => describe_deletion(approval),
        NotificationKind::Failed { verdict, problem } => Message {
            facts: problem_facts(problem),
            sentences: vec![advice_for_code(&problem.code).into()],
            ..with_headline(failure_headline(approval, *verdict, &problem.code))
        },
        NotificationKind::Corrected { was, now } => describe_correction(approval, was, now, at),
    }
}

/// Adds to a headline who must act, if the request is pending.
fn and_ask(headline: String, approval: &Approval, at: Timestamp) -> String {
    match Ask::of(approval, at) {
        Some(ask) => format!("{headline}: {}", ask.describe()),
        None => headline,
    }
}

fn remind(approval: &Approval, headline: String, at: Timestamp) -> Message {
    Message { facts: approver_facts(approval, at), ..with_headline(and_ask(headline, approval, at)) }
}

fn change_facts(changes: &[Change]) -> Vec<MessageFact> {
    changes.iter().map(|change| MessageFact::new("Changed", describe_change(change))).collect()
}

fn describe_changed(approval: &Approval, changes: &[Change], void: &[Approver], at: Timestamp) -> Message {
    Message {
        facts: change_facts(changes),
        sentences: describe_voided(void),
        ..with_headline(and_ask(format!("VPC peering {} has changed", approval.id()), approval, at))
    }
}

fn describe_rule_change(approval: &Approval, void: &[Approver], at: Timestamp) -> Message {
    let id = approval.id();
    let headline = match &approval.policy().rule {
        Some(_) => and_ask(format!("The configuration has changed for VPC peering {id}"), approval, at),
        None => {
            format!(
                "The configuration has changed: no rule covers VPC peering {id} any more, so nobody can decide on it"
            )
        }
    };
    Message { facts: approver_facts(approval, at), sentences: describe_voided(void), ..with_headline(headline) }
}

/// The approvals after a decision.
struct Progress {
    given: u32,
    needed: u32,
}

fn describe_decision(approval: &Approval, decision: &Decision, Progress { given, needed }: Progress) -> Message {
    let (id, name) = (approval.id(), approver_name(&decision.by));
    let (label, headline) = match decision.verdict {
        Verdict::Approve if needed > 1 => {
            ("Approved by", format!("{name} approved VPC peering {id}: {given} of {needed} approvals"))
        }
        Verdict::Approve => ("Approved by", format!("{name} approved VPC peering {id}")),
        Verdict::Reject => ("Rejected by", format!("{name} rejected VPC peering {id}")),
    };
    Message { facts: decision_facts(label, Some(decision)), ..with_headline(headline) }
}

fn describe_withdrawal(approval: &Approval, by: &Approver, Progress { given, needed }: Progress) -> Message {
    Message {
        facts: vec![MessageFact::new("Withdrawn by", describe_approver(by))],
        ..with_headline(format!(
            "{} withdrew their approval of VPC peering {}: {given} of {needed} approvals are left",
            approver_name(by),
            approval.id()
        ))
    }
}

fn describe_rejection(approval: &Approval, by: Option<&Decision>) -> Message {
    Message {
        facts: decision_facts("Rejected by", by),
        sentences: vec!["This is final. To try again, the requester must send a new request.".into()],
        ..with_headline(format!("VPC peering {} was rejected", approval.id()))
    }
}

fn describe_deletion(approval: &Approval) -> Message {
    Message {
        sentences: vec![
            "Nothing is left to decide. If it is still needed, the requester must send a new request.".into(),
        ],
        ..with_headline(format!("VPC peering {} was deleted", approval.id()))
    }
}

/// An alarm: somebody accepted the connection outside peergate.
fn describe_bypass(approval: &Approval, Progress { given, needed }: Progress, was_known: bool) -> Message {
    let id = approval.id();
    let rejecter = approval.winner().filter(|winner| winner.verdict == Verdict::Reject);
    let headline = match (rejecter, &approval.policy().rule) {
        _ if !was_known => {
            format!("⚠ VPC peering {id} was accepted outside peergate before peergate knew of it")
        }
        (Some(rejecter), _) => {
            format!("⚠ VPC peering {id} was accepted outside peergate; {} had rejected it", approver_name(&rejecter.by))
        }
        (None, Some(_)) => {
            format!("⚠ VPC peering {id} was accepted outside peergate; {given} of {needed} had approved")
        }
        (None, None) => format!("⚠ VPC peering {id} was accepted outside peergate; no rule lets anybody approve it"),
    };
    let account = approval.facts().accepter.account;
    let mut sentences = vec![
        format!(
            "ActionTrail of account {account} says who did it: look for the event {}.",
            Verdict::Approve.operation()
        ),
        CHECK_BYPASS.into(),
        PREVENT_BYPASS.into(),
    ];
    if approval.has_called_before() {
        sentences.insert(0, "An earlier call of peergate may also have taken effect late.".into());
    }
    Message { sentences, ..with_headline(headline) }
}

fn describe_difference(approval: &Approval, changes: &[Change]) -> Message {
    Message {
        facts: change_facts(changes),
        sentences: vec!["An operator must check the connection, and delete it if it is wrong.".into()],
        ..with_headline(format!("VPC peering {} was activated with facts that nobody approved", approval.id()))
    }
}

fn describe_activation(approval: &Approval, took_s: i64) -> Message {
    let id = approval.id();
    let took = approval.is_accepted_by_us().then(|| format!(" {} after its approval", format_duration(took_s)));
    let took = took.unwrap_or_default();
    if !approval.is_accepted_by_us() {
        return Message {
            sentences: vec![CHECK_BYPASS.into()],
            ..with_headline(format!("VPC peering {id} is Activated"))
        };
    }
    Message {
        sentences: route_instructions(approval.connection()),
        snippet: Some(routes_of_both_sides(approval.connection())),
        ..with_headline(format!("VPC peering {id} is Activated{took}; it carries traffic once both sides have routes"))
    }
}

fn describe_expiry(approval: &Approval) -> Message {
    let id = approval.id();
    let headline = match approval.winner().map(|winner| winner.verdict) {
        Some(Verdict::Approve) => format!("VPC peering {id} has expired before peergate could accept it"),
        Some(Verdict::Reject) => format!("VPC peering {id} has expired before peergate could reject it"),
        None => format!("VPC peering {id} has expired: nobody accepted it within 7 days"),
    };
    Message {
        sentences: vec!["To try again, the requester must send a new request.".into()],
        ..with_headline(headline)
    }
}

fn describe_send_back(approval: &Approval, why: &SendBackReason, void: &[Approver], at: Timestamp) -> Message {
    let reason = match why {
        SendBackReason::Objection(objection) => format!("A check fails now: {}.", explain_objection(objection)),
        SendBackReason::NotChecked => "Not every check passes any more: see the card.".to_owned(),
        SendBackReason::RuleNotMet => match &approval.policy().rule {
            Some(rule) => format!(
                "The rule “{}” now requires {}, and the earlier approvals are not enough.",
                sanitize_text(rule),
                count_approvals(approval.policy().needed_approvals())
            ),
            None => "No rule covers it now.".to_owned(),
        },
    };
    let headline = format!("VPC peering {} was approved, but needs a new decision", approval.id());
    Message {
        facts: approver_facts(approval, at),
        sentences: std::iter::once(reason).chain(describe_voided(void)).collect(),
        ..with_headline(and_ask(headline, approval, at))
    }
}

/// e.g. `2 approvals`.
pub(super) fn count_approvals(count: u32) -> String {
    if count == 1 { "1 approval".to_owned() } else { format!("{count} approvals") }
}

/// An earlier notification was wrong.
fn describe_correction(approval: &Approval, was: &ApprovalState, now: &ApprovalState, at: Timestamp) -> Message {
    let id = approval.id();
    let reported = match was {
        ApprovalState::Activating => "accepted and being activated",
        ApprovalState::Rejected => "rejected",
        ApprovalState::Expired => "expired",
        ApprovalState::Deleted => "deleted",
        ApprovalState::Failed { .. } => "failed",
        ApprovalState::Pending | ApprovalState::Approved | ApprovalState::Activated | ApprovalState::Rejecting => {
            was.name()
        }
    };
    let start = format!("Correction: VPC peering {id} was reported as {reported}, but");
    with_headline(match now {
        ApprovalState::Activated => format!("{start} it is Activated"),
        ApprovalState::Approved => format!("{start} it is still pending at Alibaba Cloud; peergate accepts it again"),
        ApprovalState::Rejecting => format!("{start} it is still pending at Alibaba Cloud; peergate rejects it again"),
        ApprovalState::Pending
        | ApprovalState::Activating
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted
        | ApprovalState::Failed { .. } => and_ask(format!("{start} it is still pending"), approval, at),
    })
}

fn describe_stuck(approval: &Approval, for_s: i64, problem: Option<&Problem>) -> Message {
    let (id, duration) = (approval.id(), format_duration(for_s));
    let Some(problem) = problem else {
        return Message {
            sentences: vec!["peergate keeps checking it. If it stays like this, ask Alibaba Cloud support.".into()],
            ..with_headline(format!("VPC peering {id} is still being activated after {duration}, which is too long"))
        };
    };
    let decided = match approval.winner().map(|winner| winner.verdict) {
        Some(Verdict::Reject) => {
            format!("VPC peering {id} was rejected {duration} ago, but peergate cannot reject it yet")
        }
        Some(Verdict::Approve) | None => {
            format!("VPC peering {id} was approved {duration} ago, but peergate cannot accept it yet")
        }
    };
    let advice = advice_for_code(&problem.code);
    let again = "peergate tries again automatically.";
    let sentences = [Some(advice), Some(again).filter(|again| *again != advice)];
    Message {
        facts: problem_facts(problem),
        sentences: sentences.into_iter().flatten().map(Into::into).collect(),
        ..with_headline(decided)
    }
}

fn describe_voided(void: &[Approver]) -> Vec<String> {
    match void {
        [] => vec![],
        [only] => vec![format!("The approval of {} no longer counts.", describe_approver(only))],
        several => vec![format!("The approvals of {} no longer count.", list_approvers(several))],
    }
}

/// What happened, for channels whose messages cannot be updated: with all facts. The card is posted again if it has changed.
#[must_use]
pub fn follow_up(approval: &Approval, notification: &Notification, now: Timestamp) -> Message {
    match &notification.kind {
        NotificationKind::Discovered
        | NotificationKind::RuleChanged { .. }
        | NotificationKind::Changed { .. }
        | NotificationKind::Checked => request_card(approval, now),
        NotificationKind::Decided { .. }
        | NotificationKind::Withdrawn { .. }
        | NotificationKind::Reminder { .. }
        | NotificationKind::Escalated { .. }
        | NotificationKind::ExpiresSoon { .. }
        | NotificationKind::Accepted(_)
        | NotificationKind::Bypassed { .. }
        | NotificationKind::Stuck { .. }
        | NotificationKind::FactsDiffer { .. }
        | NotificationKind::Drifted { .. }
        | NotificationKind::DriftEnded
        | NotificationKind::DriftAcknowledged { .. }
        | NotificationKind::DriftReminder { .. }
        | NotificationKind::Removed { .. }
        | NotificationKind::Adopted { .. }
        | NotificationKind::Activated { .. }
        | NotificationKind::Rejected(_)
        | NotificationKind::Expired
        | NotificationKind::Deleted
        | NotificationKind::SentBack { .. }
        | NotificationKind::Corrected { .. }
        | NotificationKind::Failed { .. } => {
            let mut message = describe_notification(approval, notification);
            message.facts.extend(connection_facts(approval.connection(), approval.policy().requester.as_deref()));
            message
        }
    }
}

//! What the requester reads: what becomes of their request. It names no approver by an identity, no check and no other
//! peering, and has no buttons.

use super::drift::describe_life;
use super::facts::{connection_facts, describe_change};
use super::routes::routes_of_requester;
use super::{Message, MessageFact, format_time, join_with, sanitize_reason, sanitize_text, with_headline};
use crate::approval::{
    Approval, ApprovalState, Decision, Notification, NotificationKind, PolicySnapshot, Verdict, changes_for_requester,
};
use crate::peering::Change;

const NEW_REQUEST: &str = "If the peering is still needed, send a new request.";

/// A notification, as the requester reads it.
#[must_use]
pub fn describe_for_requester(approval: &Approval, notification: &Notification) -> Message {
    let id = &approval.id().instance_id;
    let ended = |how: &str, sentence: &str| Message {
        sentences: vec![sentence.to_owned()],
        ..with_headline(format!("VPC peering {id} {how}"))
    };
    match &notification.kind {
        NotificationKind::Changed { changes, .. } => Message {
            facts: change_facts(changes),
            ..with_headline(format!("VPC peering {id} has changed, so earlier approvals no longer count"))
        },
        NotificationKind::Decided { decision, .. } => describe_decision(approval, decision),
        NotificationKind::SentBack { .. } => ended(
            "was approved, but needs a new decision",
            "Its rules or checks have changed. You hear of the decision here.",
        ),
        NotificationKind::Activated { .. } => Message {
            sentences: vec!["It carries traffic once both sides have routes. On your side, run this:".into()],
            snippet: Some(routes_of_requester(approval.connection())),
            ..with_headline(format!("VPC peering {id} is Activated"))
        },
        NotificationKind::Drifted { changes } => Message {
            facts: change_facts(&changes_for_requester(changes)),
            sentences: vec!["The accepting side acknowledges the change, or deletes the peering.".into()],
            ..with_headline(format!("Active VPC peering {id} is not as approved any more"))
        },
        NotificationKind::DriftEnded => with_headline(format!("VPC peering {id} is again as approved")),
        NotificationKind::DriftAcknowledged { .. } => {
            with_headline(format!("The accepting side has acknowledged the change of VPC peering {id}"))
        }
        NotificationKind::Removed { lived_s } => {
            let how = format!("was deleted {}", describe_life(approval, *lived_s));
            ended(&how, "Routes to it may be left: look for them in your route tables.")
        }
        NotificationKind::Rejected(_) => ended("was rejected", NEW_REQUEST),
        NotificationKind::Expired => ended("has expired: nobody decided in time", NEW_REQUEST),
        NotificationKind::Deleted => ended("was deleted", NEW_REQUEST),
        NotificationKind::Failed { .. } => {
            ended("could not be carried out", "The accepting side knows of it, and may decide again.")
        }
        NotificationKind::Corrected { was, now } => describe_correction(approval, was, now),
        NotificationKind::Discovered
        | NotificationKind::RuleChanged { .. }
        | NotificationKind::Checked
        | NotificationKind::Withdrawn { .. }
        | NotificationKind::Reminder { .. }
        | NotificationKind::Escalated { .. }
        | NotificationKind::ExpiresSoon { .. }
        | NotificationKind::Accepted(_)
        | NotificationKind::Bypassed { .. }
        | NotificationKind::Stuck { .. }
        | NotificationKind::FactsDiffer { .. }
        | NotificationKind::Adopted { .. }
        | NotificationKind::DriftReminder { .. } => describe_request(approval),
    }
}

/// Who decides until when.
fn describe_request(approval: &Approval) -> Message {
    let (connection, id) = (approval.connection(), &approval.id().instance_id);
    let mut facts = connection_facts(connection, approval.policy().requester.as_deref());
    if *approval.state() != ApprovalState::Pending {
        // The notifications that follow say what has become of it.
        return Message { facts, ..with_headline(format!("The accepting side knows of VPC peering {id}")) };
    }
    facts.push(MessageFact::new("Decided by", describe_approvers(approval.policy())));
    facts.extend(connection.expires_at.map(|at| MessageFact::new("Decided until", format_time(at))));
    Message { facts, ..with_headline(format!("VPC peering {id} is requested and waits for a decision")) }
}

/// People by their names. Identities without a person are only counted.
fn describe_approvers(policy: &PolicySnapshot) -> String {
    if policy.rule.is_none() {
        return "nobody yet: no rule of the accepting side covers it".to_owned();
    }
    let names = policy.approvers.iter().filter(|key| !key.contains('/'));
    let names = names.map(|key| sanitize_text(policy.display_names.get(key).unwrap_or(key)));
    let mut names: Vec<_> = names.collect();
    if !names.is_empty() && names.len() < policy.approvers.len() {
        names.push("others of the accepting side".to_owned());
    }
    let needed = policy.needed_approvals();
    match (needed, names.is_empty()) {
        (1, true) => "one person of the accepting side".to_owned(),
        (_, true) => format!("{needed} people of the accepting side"),
        (1, false) => join_with(&names, "or"),
        (_, false) => format!("{needed} of {}", names.join(", ")),
    }
}

fn describe_decision(approval: &Approval, decision: &Decision) -> Message {
    let id = &approval.id().instance_id;
    let reason = decision.reason.as_deref().map(|reason| MessageFact::new("Reason", sanitize_reason(reason)));
    let (headline, sentence) = match decision.verdict {
        Verdict::Approve => (format!("VPC peering {id} was approved"), "You hear of it here once it is Activated."),
        Verdict::Reject => (format!("VPC peering {id} was rejected"), NEW_REQUEST),
    };
    Message { facts: reason.into_iter().collect(), sentences: vec![sentence.into()], ..with_headline(headline) }
}

fn describe_correction(approval: &Approval, was: &ApprovalState, now: &ApprovalState) -> Message {
    let id = &approval.id().instance_id;
    let now = match now {
        ApprovalState::Activated => "it is Activated",
        ApprovalState::Pending
        | ApprovalState::Approved
        | ApprovalState::Activating
        | ApprovalState::Rejecting
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted
        | ApprovalState::Failed { .. } => "it still waits",
    };
    with_headline(format!("Correction: VPC peering {id} was reported as {}, but {now}", was.name()))
}

fn change_facts(changes: &[Change]) -> Vec<MessageFact> {
    changes.iter().map(|change| MessageFact::new("Changed", describe_change(change))).collect()
}

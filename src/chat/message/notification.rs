//! What happened, for the channels.

use jiff::Timestamp;

use super::card::{describe_change, explain_objection, request_card};
use super::{
    Message, MessageFact, advice_for_code, connection_facts, decision_facts, describe_approver, format_duration,
    format_wait, list_approvers, problem_facts, route_instructions, sanitize_text, with_headline,
};
use crate::approval::{Approval, ApprovalState, Approver, Notification, NotificationKind, SendBackReason, Verdict};
use crate::peering::Problem;

/// The word for the news, as in `peering.activated`.
#[must_use]
pub fn notification_name(news: &NotificationKind) -> &'static str {
    match news {
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
        NotificationKind::Stuck { .. } => "stuck",
        NotificationKind::FactsDiffer { .. } => "differs",
        NotificationKind::Activated { .. } => "activated",
        NotificationKind::Rejected(_) => "rejected",
        NotificationKind::Expired => "expired",
        NotificationKind::Deleted => "deleted",
        NotificationKind::Failed { .. } => "failed",
        NotificationKind::SentBack { .. } => "sent_back",
        NotificationKind::Corrected { .. } => "corrected",
    }
}

/// What happened, in short: said below the card.
#[must_use]
pub fn describe_notification(approval: &Approval, notice: &Notification) -> Message {
    let id = &approval.id;
    match &notice.kind {
        NotificationKind::Discovered => with_headline(format!("VPC peering {id} is requested")),
        NotificationKind::Checked => with_headline(format!("VPC peering {id} was checked again")),
        NotificationKind::Changed { changes, void } => Message {
            facts: changes.iter().map(|change| MessageFact::new("Changed", describe_change(change))).collect(),
            sentences: describe_voided(void),
            ..with_headline(format!("VPC peering {id} is not what it was: look at it again before you decide"))
        },
        NotificationKind::RuleChanged { void } => Message {
            facts: super::card::approver_facts(approval, notice.at),
            sentences: describe_voided(void),
            ..with_headline(match &approval.policy.rule {
                Some(_) => format!("Other terms go for VPC peering {id}: the configuration has changed"),
                None => format!("No rule covers VPC peering {id} any more: the configuration has changed"),
            })
        },
        NotificationKind::Decided { decision, given, needed } => {
            let by = describe_approver(&decision.by);
            Message {
                facts: decision_facts("By", Some(decision)).into_iter().skip(1).collect(),
                ..with_headline(match decision.verdict {
                    Verdict::Approve if *needed > 1 => format!("{by} approved VPC peering {id}: {given} of {needed}"),
                    Verdict::Approve => format!("{by} approved VPC peering {id}"),
                    Verdict::Reject => format!("{by} rejected VPC peering {id}"),
                })
            }
        }
        NotificationKind::Withdrawn { by, given, needed } => with_headline(format!(
            "{} withdrew their approval of VPC peering {id}: {given} of {needed}",
            describe_approver(by)
        )),
        NotificationKind::Reminder { waiting_s } => Message {
            facts: super::card::approver_facts(approval, notice.at),
            ..with_headline(format!("VPC peering {id} has waited for a decision for {}", format_wait(*waiting_s)))
        },
        NotificationKind::Escalated { waiting_s } => Message {
            facts: super::card::approver_facts(approval, notice.at),
            ..with_headline(format!(
                "VPC peering {id} has waited for {}, and it is not decided",
                format_wait(*waiting_s)
            ))
        },
        NotificationKind::ExpiresSoon { expires_at } => Message {
            facts: super::card::approver_facts(approval, notice.at),
            sentences: vec!["After that the requester has to ask again.".into()],
            ..with_headline(format!("VPC peering {id} expires at {expires_at:.0} if nobody decides"))
        },
        NotificationKind::Accepted(by) => Message {
            facts: decision_facts("Approved by", by.as_ref()),
            ..with_headline(format!("VPC peering {id} was accepted and is being activated"))
        },
        NotificationKind::Stuck { for_s, problem } => describe_stuck(approval, *for_s, problem.as_ref()),
        NotificationKind::FactsDiffer { changes } => Message {
            facts: changes.iter().map(|change| MessageFact::new("Changed", describe_change(change))).collect(),
            ..with_headline(format!("VPC peering {id} was activated with other facts than those that were decided on"))
        },
        NotificationKind::Activated { took_s } => Message {
            sentences: route_instructions(&approval.connection),
            ..with_headline(if approval.is_accepted_by_us() {
                format!("VPC peering {id} is Activated, {} after its approval", format_duration(*took_s))
            } else {
                format!("VPC peering {id} is Activated")
            })
        },
        NotificationKind::Rejected(by) => Message {
            facts: decision_facts("Rejected by", by.as_ref()),
            sentences: vec!["This is final: the requester has to ask again.".into()],
            ..with_headline(format!("VPC peering {id} was rejected"))
        },
        NotificationKind::Expired => Message {
            sentences: vec!["The requester has to ask again.".into()],
            ..with_headline(match approval.winner() {
                Some(_) => format!("VPC peering {id} has expired before what was decided could be carried out"),
                None => format!("VPC peering {id} has expired: nobody accepted it within 7 days"),
            })
        },
        NotificationKind::Deleted => Message {
            sentences: vec!["Nothing is left to accept. The requester has to ask again if it is still wanted.".into()],
            ..with_headline(format!("VPC peering {id} was deleted"))
        },
        NotificationKind::Failed { verdict, problem } => Message {
            facts: problem_facts(problem),
            sentences: vec![advice_for_code(&problem.code).into()],
            ..with_headline(match verdict {
                Verdict::Approve => format!("VPC peering {id} could not be accepted"),
                Verdict::Reject => format!("VPC peering {id} could not be rejected"),
            })
        },
        NotificationKind::SentBack { why, void } => Message {
            facts: super::card::approver_facts(approval, notice.at),
            sentences: [vec![describe_sent_back(approval, why)], describe_voided(void)].concat(),
            ..with_headline(format!("VPC peering {id} was not accepted and needs a new decision"))
        },
        NotificationKind::Corrected { was, now } => describe_correction(approval, was, now),
    }
}

fn describe_sent_back(approval: &Approval, why: &SendBackReason) -> String {
    match why {
        SendBackReason::Objection(objection) => format!("A check now fails: {}.", explain_objection(objection)),
        SendBackReason::NotChecked => "Not every check passes any more: look at the card.".to_owned(),
        SendBackReason::RuleNotMet => match &approval.policy.rule {
            Some(rule) => format!(
                "The rule “{}” now needs {} of its approvers, and the earlier approvals are not enough.",
                sanitize_text(rule),
                approval.policy.needed_approvals()
            ),
            None => "No rule covers it now.".to_owned(),
        },
    }
}

/// Channels heard something wrong.
fn describe_correction(approval: &Approval, was: &ApprovalState, now: &ApprovalState) -> Message {
    let id = &approval.id;
    let heard = match was {
        ApprovalState::Activating => "accepted and being activated",
        ApprovalState::Rejected => "rejected",
        ApprovalState::Expired => "expired",
        ApprovalState::Deleted => "deleted",
        ApprovalState::Failed { .. } => "failed",
        ApprovalState::Pending | ApprovalState::Approved | ApprovalState::Activated | ApprovalState::Rejecting => {
            was.name()
        }
    };
    let headline = match now {
        ApprovalState::Activated => {
            format!("Correction: VPC peering {id} was reported as {heard}, but it is Activated")
        }
        ApprovalState::Approved => format!("Correction: VPC peering {id} still waits, so peergate accepts it again"),
        ApprovalState::Rejecting => format!("Correction: VPC peering {id} still waits, so peergate rejects it again"),
        ApprovalState::Pending
        | ApprovalState::Activating
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted
        | ApprovalState::Failed { .. } => {
            format!("Correction: VPC peering {id} was reported as {heard}, but it waits for a decision")
        }
    };
    let sentences = match now {
        ApprovalState::Approved | ApprovalState::Rejecting => {
            vec![format!("It was reported as {heard}; Alibaba Cloud shows it as waiting.")]
        }
        ApprovalState::Pending
        | ApprovalState::Activating
        | ApprovalState::Activated
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted
        | ApprovalState::Failed { .. } => vec![],
    };
    Message { sentences, ..with_headline(headline) }
}

/// What happened, where no card can be changed: with all that is needed to understand it; and the card again, where it
/// is the news.
#[must_use]
pub fn follow_up(approval: &Approval, notice: &Notification, now: Timestamp) -> Message {
    match &notice.kind {
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
        | NotificationKind::Stuck { .. }
        | NotificationKind::FactsDiffer { .. }
        | NotificationKind::Activated { .. }
        | NotificationKind::Rejected(_)
        | NotificationKind::Expired
        | NotificationKind::Deleted
        | NotificationKind::SentBack { .. }
        | NotificationKind::Corrected { .. }
        | NotificationKind::Failed { .. } => {
            let mut message = self::describe_notification(approval, notice);
            message.facts.extend(connection_facts(&approval.connection, approval.policy.requester.as_deref()));
            message
        }
    }
}

fn describe_stuck(approval: &Approval, for_s: i64, problem: Option<&Problem>) -> Message {
    let (id, for_so_long) = (&approval.id, format_duration(for_s));
    match problem {
        Some(problem) => Message {
            facts: problem_facts(problem),
            sentences: vec![advice_for_code(&problem.code).into(), "It is tried again by itself.".into()],
            ..with_headline(format!("VPC peering {id} was decided {for_so_long} ago, and could not be carried out yet"))
        },
        None => Message {
            sentences: vec!["It is followed on. If it stays, ask Alibaba Cloud's support about it.".into()],
            ..with_headline(format!("VPC peering {id} has been in activation for {for_so_long}, which is too long"))
        },
    }
}

fn describe_voided(void: &[Approver]) -> Vec<String> {
    if void.is_empty() {
        return vec![];
    }
    vec![format!("No longer counted: the approval of {}.", list_approvers(void))]
}

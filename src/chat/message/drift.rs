//! What people read of an activated connection that has changed, or is gone.

use super::facts::{approver_name, decision_facts, describe_approver, describe_change, list_approvers};
use super::{Message, MessageFact, format_wait, join_with, sanitize_reason, sanitize_text, with_headline};
use crate::approval::{Approval, Approver, Decision, Drift};
use crate::peering::Change;

const BACK_AS_APPROVED: &str = "It is again as people approved or acknowledged it. Nobody has to act.";
/// How a connection is deleted. peergate has no permission to do so.
const HOW_TO_DELETE: &str = "To delete it instead, somebody with the permission can run this command. It cuts the traffic for good. Alibaba Cloud \
     refuses it while a route leads to the peering: delete the routes first, or add --Force true, which deletes them, too.";

/// The headline of the card while a change is not acknowledged. `who` can still acknowledge it; `None` if they are too few.
pub(super) fn drift_headline(approval: &Approval, who: Option<&str>) -> String {
    let id = approval.id();
    let needed = approval.policy().needed_approvals();
    let progress = match needed {
        1 => String::new(),
        _ => format!(" ({} of {needed} acknowledgments)", approval.acknowledgment_count()),
    };
    match (&approval.policy().rule, who) {
        (None, _) => format!("⚠ Active VPC peering {id} has changed, and no rule covers it as it is now"),
        (Some(_), None) => {
            format!(
                "⚠ Active VPC peering {id} has changed, and too few people may acknowledge it: its rule must change"
            )
        }
        (Some(_), Some(who)) => {
            format!("⚠ {who}: acknowledge the change of active VPC peering {id}{progress}, or delete it")
        }
    }
}

/// What has changed, and who has acknowledged it.
pub(super) fn drift_facts(drift: &Drift) -> Vec<MessageFact> {
    let mut facts: Vec<_> =
        drift.changes.iter().map(|change| MessageFact::new("⚠ Changed", describe_change(change))).collect();
    let by: Vec<Approver> = drift.acknowledgments.iter().map(|decision| decision.by.clone()).collect();
    if !by.is_empty() {
        facts.push(MessageFact::new("Acknowledged by", list_approvers(&by)));
    }
    facts
}

/// What to do about a change.
pub(super) fn drift_advice() -> Vec<String> {
    vec![
        "If you acknowledge the change, peergate takes it as approved. Routes do not follow a change of CIDR blocks by \
         themselves."
            .into(),
        HOW_TO_DELETE.into(),
    ]
}

/// The command that deletes the connection. peergate deletes nothing.
///
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-deletevpcpeerconnection>
pub(super) fn delete_command(approval: &Approval) -> String {
    let region = sanitize_text(&approval.connection().accepter.region);
    format!("aliyun vpcpeer DeleteVpcPeerConnection --region {region} --InstanceId {}", approval.id().instance_id)
}

pub(super) fn describe_drift(approval: &Approval, changes: &[Change]) -> Message {
    let facts = changes.iter().map(|change| MessageFact::new("Changed", describe_change(change)));
    let what: Vec<_> = changes.iter().map(|change| change.fact.clone()).collect();
    Message {
        facts: facts.collect(),
        sentences: drift_advice(),
        snippet: Some(delete_command(approval)),
        ..with_headline(format!(
            "⚠ Active VPC peering {} is not as approved any more: {}",
            approval.id(),
            join_with(&what, "and")
        ))
    }
}

pub(super) fn describe_drift_end(approval: &Approval) -> Message {
    Message {
        sentences: vec![BACK_AS_APPROVED.into()],
        ..with_headline(format!("The change of active VPC peering {} was undone", approval.id()))
    }
}

pub(super) fn describe_acknowledgment(approval: &Approval, decision: &Decision, given: u32, needed: u32) -> Message {
    let (id, name) = (approval.id(), approver_name(&decision.by));
    let progress = if needed > 1 { format!(": {given} of {needed} acknowledgments") } else { String::new() };
    Message {
        facts: decision_facts("Acknowledged by", Some(decision)),
        ..with_headline(format!("{name} acknowledged the change of active VPC peering {id}{progress}"))
    }
}

pub(super) fn remind_of_drift(approval: &Approval, waiting_s: i64) -> Message {
    let facts = approval.drift().map(drift_facts).unwrap_or_default();
    let headline = format!(
        "Nobody has decided about the change of active VPC peering {} for {}",
        approval.id(),
        format_wait(waiting_s)
    );
    Message { facts, ..with_headline(headline) }
}

pub(super) fn describe_removal(approval: &Approval, lived_s: i64) -> Message {
    let lived = describe_life(approval, lived_s);
    Message {
        sentences: vec![
            "Either owner can delete a peering. Traffic between the two VPCs has stopped. Routes to it may be left: look \
             for them in the route tables of our VPC."
                .into(),
            format!(
                "ActionTrail says who deleted it, in the account that did: look for the event DeleteVpcPeerConnection of {}.",
                approval.id().instance_id
            ),
        ],
        ..with_headline(format!("VPC peering {} was deleted {lived}", approval.id()))
    }
}

/// How long a peering lived. Nobody knows when an adopted one was activated.
pub(super) fn describe_life(approval: &Approval, lived_s: i64) -> String {
    let wait = format_wait(lived_s);
    match (approval.adopted_by(), approval.connection().created_at) {
        (Some(_), Some(_)) => format!("{wait} after it was requested"),
        (Some(_), None) => format!("{wait} after it was adopted"),
        (None, _) => format!("after it had been active for {wait}"),
    }
}

/// The answer to somebody who acknowledged a change.
pub(super) fn describe_acknowledged(approval: &Approval) -> Message {
    let id = approval.id();
    match approval.drift() {
        None => with_headline(format!("You acknowledged the change of {id}: it counts as approved now")),
        Some(drift) => {
            let needed = approval.policy().needed_approvals();
            let names: Vec<_> = drift.acknowledgments.iter().map(|decision| describe_approver(&decision.by)).collect();
            Message {
                facts: vec![MessageFact::new("Acknowledged by", join_with(&names, "and"))],
                ..with_headline(format!(
                    "Your acknowledgment of the change of {id} counts: {} of {needed}",
                    approval.acknowledgment_count()
                ))
            }
        }
    }
}

pub(super) fn nothing_to_acknowledge() -> Message {
    Message {
        sentences: vec![
            "Either this VPC peering is not active, or it is as people approved or acknowledged it.".to_owned(),
        ],
        ..with_headline("There is nothing to acknowledge")
    }
}

/// An operator took over a connection that nobody had approved.
pub(super) fn describe_adoption(approval: &Approval, by: &str, reason: &str) -> Message {
    Message {
        facts: vec![
            MessageFact::new("Adopted by", sanitize_text(by)),
            MessageFact::new("Reason", sanitize_reason(reason)),
        ],
        sentences: vec!["What it is now counts as approved. Changes are told from now on.".into()],
        ..with_headline(format!("Active VPC peering {} was adopted: nobody had approved it here", approval.id()))
    }
}

//! A record in one line, and its history in words.

use jiff::Timestamp;

use super::card::request_card;
use super::checks::explain_objection;
use super::facts::{describe_approver, describe_change, list_approvers};
use super::notification::count_approvals;
use super::{Message, format_time, sanitize_reason, sanitize_text};
use crate::approval::{
    Approval, ApprovalState, Approver, AuditEntry, AuditEvent, Decision, Reminder, SendBackReason, Verdict,
};
use crate::peering::{Change, Status};

/// The most events in a status reply.
const MAX_EVENTS: usize = 12;
/// The most characters of all events in a status reply. Each event is shown as a whole.
const MAX_EVENTS_CHARS: usize = 5000;

/// The last events of a record, in order. If reasons are long, there are fewer events, and the first line says so.
pub(super) fn recent_events(approval: &Approval) -> Vec<String> {
    let line = |entry: &AuditEntry| format!("{}: {}", format_time(entry.at), describe_entry(entry));
    let mut events: Vec<_> = approval.history().iter().rev().take(MAX_EVENTS).map(line).collect();
    let mut chars = 0_usize;
    let fitting = |event: &&String| {
        chars = chars.saturating_add(event.chars().count());
        chars <= MAX_EVENTS_CHARS
    };
    let shown = events.iter().take_while(fitting).count().max(1);
    if shown < events.len() {
        events.truncate(shown);
        let earlier = approval.history().len().saturating_sub(shown);
        let subject = if earlier == 1 { "event is" } else { "events are" };
        events.push(format!("{earlier} earlier {subject} too long for this message: see `peergate show`."));
    }
    events.reverse();
    events
}

/// The card of a record and its whole history, for auditors.
#[must_use]
pub fn record_with_history(approval: &Approval, now: Timestamp) -> Message {
    let entry = |entry: &AuditEntry| {
        let of = entry.event.fingerprint().map(|fingerprint| format!("; of {:.12}…", fingerprint.to_string()));
        let of = of.unwrap_or_default();
        format!("{:.3} {:<10} {}{of}", entry.at, entry.state.name(), describe_entry(entry))
    };
    Message { sentences: approval.history().iter().map(entry).collect(), ..request_card(approval, now) }
}

/// An entry in a few words. A reading of an active connection can be the first proof that it was accepted.
#[must_use]
pub fn describe_entry(AuditEntry { event, state, .. }: &AuditEntry) -> String {
    if *state == ApprovalState::Activating && *event == AuditEvent::Observed(Status::Activated) {
        return "Alibaba Cloud shows that it was accepted".to_owned();
    }
    describe_event(event)
}

/// An event in a few words.
fn describe_event(event: &AuditEvent) -> String {
    match event {
        AuditEvent::Discovered { rule, approvals, .. } => match rule {
            Some(rule) => {
                format!("discovered; the rule “{}” requires {}", sanitize_text(rule), count_approvals(*approvals))
            }
            None => "discovered; no rule covers it".to_owned(),
        },
        AuditEvent::Changed { changes, void, .. } => {
            format!("changed: {}{}", describe_changes(changes), describe_void(void))
        }
        AuditEvent::RuleChanged { rule, approvals, void } => match rule {
            Some(rule) => format!(
                "the rule “{}” now requires {}{}",
                sanitize_text(rule),
                count_approvals(*approvals),
                describe_void(void)
            ),
            None => format!("no rule covers it any more{}", describe_void(void)),
        },
        AuditEvent::Decided(decision) => describe_decision(decision),
        AuditEvent::Withdrawn { by, .. } => format!("approval withdrawn by {}", describe_approver(by)),
        AuditEvent::Acknowledged { operation, request_id } => {
            format!("Alibaba Cloud acknowledged {}, request {}", sanitize_text(operation), sanitize_text(request_id))
        }
        AuditEvent::Observed(status) => format!("Alibaba Cloud shows it as {}", sanitize_text(&status.to_string())),
        AuditEvent::Missing => "Alibaba Cloud does not show it any more".to_owned(),
        AuditEvent::FactsDiffer { changes } => {
            format!("activated with facts that nobody approved: {}", describe_changes(changes))
        }
        AuditEvent::Drifted { changes, .. } => format!("changed while active: {}", describe_changes(changes)),
        AuditEvent::DriftEnded => "again as approved or acknowledged".to_owned(),
        AuditEvent::DriftAcknowledged { decision, .. } => {
            let reason = decision.reason.as_deref().map(|reason| format!(" ({})", sanitize_reason(reason)));
            format!("change acknowledged by {}{}", describe_approver(&decision.by), reason.unwrap_or_default())
        }
        AuditEvent::Adopted { by, reason, .. } => {
            format!("adopted by {} ({})", sanitize_text(by), sanitize_reason(reason))
        }
        AuditEvent::Failed(problem) => {
            let request_id = problem.request_id.as_deref().map(|id| format!(", request {}", sanitize_text(id)));
            format!("failed with {}{}", sanitize_text(&problem.code), request_id.unwrap_or_default())
        }
        AuditEvent::Reminded(reminder) => match reminder {
            Reminder::StillWaiting => "reminder sent".to_owned(),
            Reminder::Escalation => "escalated to more channels".to_owned(),
            Reminder::ExpiresSoon => "warning sent that it expires soon".to_owned(),
            Reminder::Stuck => "warning sent that the activation takes too long".to_owned(),
        },
        AuditEvent::SentBack { why, void, .. } => {
            let why = match why {
                SendBackReason::Objection(objection) => explain_objection(objection),
                SendBackReason::NotChecked => "not every check passes".to_owned(),
                SendBackReason::RuleNotMet => "the rules require other approvals".to_owned(),
            };
            format!("needs a new decision: {why}{}", describe_void(void))
        }
        AuditEvent::Corrected { was, .. } => format!("corrected: it was recorded as {}", was.name()),
    }
}

fn describe_decision(decision: &Decision) -> String {
    let word = match decision.verdict {
        Verdict::Approve => "approved",
        Verdict::Reject => "rejected",
    };
    let reason = decision.reason.as_deref().map(|reason| format!(" ({})", sanitize_reason(reason)));
    format!("{word} by {}{}", describe_approver(&decision.by), reason.unwrap_or_default())
}

fn describe_changes(changes: &[Change]) -> String {
    changes.iter().map(describe_change).collect::<Vec<_>>().join("; ")
}

fn describe_void(void: &[Approver]) -> String {
    if void.is_empty() { String::new() } else { format!("; no longer counted: {}", list_approvers(void)) }
}

/// A record in one line.
#[must_use]
pub fn summary_line(approval: &Approval, now: Timestamp) -> String {
    let (connection, policy) = (approval.connection(), approval.policy());
    let progress = match approval.state() {
        ApprovalState::Pending if approval.is_past_expiry(now) => "past its expiry".to_owned(),
        ApprovalState::Pending if policy.rule.is_none() => "pending, no rule covers it".to_owned(),
        ApprovalState::Pending => {
            format!("pending, {} of {}", approval.approval_count(), count_approvals(policy.needed_approvals()))
        }
        ApprovalState::Activated if approval.drift().is_some() => "activated, changed since".to_owned(),
        ApprovalState::Approved
        | ApprovalState::Activated
        | ApprovalState::Activating
        | ApprovalState::Rejecting
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted
        | ApprovalState::Failed { .. } => approval.state().name().to_owned(),
    };
    let is_pending = *approval.state() == ApprovalState::Pending && !approval.is_past_expiry(now);
    let expires_at = connection.expires_at.filter(|_| is_pending);
    let expires = expires_at.map(|expires_at| format!(", expires {}", format_time(expires_at))).unwrap_or_default();
    let requester = policy.requester.as_deref().map(|name| format!("{}, ", sanitize_text(name))).unwrap_or_default();
    format!(
        "{}: {progress}; since {}{expires}; from {requester}account {} to {}",
        approval.id(),
        format_time(approval.since()),
        connection.requester.account,
        sanitize_text(&connection.accepter.vpc)
    )
}

//! What somebody who asked is told.

use jiff::Timestamp;

use super::card::{approver_facts, describe_finding, draw_overlaps, explain_objection, request_card};
use super::{
    Button, Buttons, MAX_CIDRS, Message, MessageFact, advice_for_code, can_show_all, connection_facts,
    describe_approver, problem_facts, sanitize_text, with_headline,
};
use crate::approval::{
    Approval, ApprovalId, ApprovalState, Approver, AuditEntry, AuditEvent, Decision, Reminder, SendBackReason, Verdict,
};
use crate::chat::reply::{Dependency, Reply};
use crate::peering::Connection;
use crate::policy::Refusal;
use crate::preflight::{CheckOutcome, Finding, Objection};

/// The last things that happened, as many as are told.
const MAX_EVENTS: usize = 12;

/// The answer to a user of another tenant, e.g. of another "Slack workspace"; `key` lists those that we serve.
#[must_use]
pub fn wrong_tenant(tenant: &str, key: &str) -> Message {
    Message {
        sentences: vec![format!(
            "An operator of peergate can add the {} to `{key}` in peergate.toml.",
            last_word(tenant)
        )],
        ..with_headline(format!("peergate does not take commands from this {tenant}, so it did nothing"))
    }
}

fn last_word(words: &str) -> &str {
    words.rsplit(' ').next().unwrap_or(words)
}

/// What stands below a card that is too old to be changed.
#[must_use]
pub fn card_moved(approval: &Approval) -> Message {
    Message {
        sentences: vec!["The card above is too old to be changed. Use the new card in this channel.".into()],
        ..with_headline(format!("There is a new card for VPC peering {}", approval.id))
    }
}

/// What takes the place of a card whose buttons decide nothing any more.
#[must_use]
pub fn card_replaced() -> Message {
    Message {
        sentences: vec!["Use the newer card in this channel.".into()],
        ..with_headline("This card has been replaced")
    }
}

/// What somebody who asked is told. Also the `detail` of answers to machines.
#[must_use]
#[expect(clippy::too_many_lines, reason = "an arm for each answer")]
pub fn describe_reply(answer: &Reply, now: Timestamp) -> Message {
    match answer {
        Reply::Done(approval) => with_headline(match approval.state {
            ApprovalState::Rejected => return describe_rejection(approval, now),
            ApprovalState::Activated => format!("You approved {}, and it is Activated", approval.id),
            ApprovalState::Failed { .. } => return describe_failure(approval, now),
            ApprovalState::Expired | ApprovalState::Deleted => return describe_late_decision(approval, now),
            ApprovalState::Pending => format!("{} has changed meanwhile: look at its card again", approval.id),
            ApprovalState::Approved | ApprovalState::Activating | ApprovalState::Rejecting => {
                format!(
                    "You approved {}: it is being activated, and the channel will hear when it is usable",
                    approval.id
                )
            }
        }),
        Reply::InProgress(approval) => describe_progress(approval),
        Reply::Counted(approval) => Message {
            facts: approver_facts(approval, now),
            ..with_headline(format!(
                "Your approval of {} counts: {} of {}",
                approval.id,
                approval.approval_count(),
                approval.policy.needed_approvals()
            ))
        },
        Reply::Withdrawn(approval) => Message {
            facts: approver_facts(approval, now),
            ..with_headline(format!("Your approval of {} does not count any more", approval.id))
        },
        Reply::NothingToWithdraw => with_headline("You have no approval to withdraw: there is none that counts"),
        Reply::Repeated(approval) => Message {
            facts: state_facts(approval, now),
            ..with_headline(format!("You decided about {} before; nothing changed", approval.id))
        },
        Reply::AlreadyDecided(approval) => describe_late_decision(approval, now),
        Reply::DryRunPassed { connection, findings } => Message {
            facts: connection_facts(connection, None),
            checks: findings.iter().map(describe_finding).collect(),
            sentences: warning_lines(findings),
            ..with_headline(format!("A dry run passed: {} could be accepted now. Nothing was changed", connection.instance_id))
        },
        Reply::Status { connection, approval, target } => describe_status(connection, approval.as_deref(), target, now),
        Reply::List { approvals, more } => describe_list(approvals, *more, now),
        Reply::Refused(refusal) => describe_refusal(refusal),
        Reply::ReasonRequired { rule, verdict, instance_id } => Message {
            sentences: vec![format!(
                "Say it again with a reason: /peergate {} {instance_id} because …",
                verdict_word(*verdict)
            )],
            ..with_headline(format!("The rule “{}” wants a reason with every decision", sanitize_text(rule)))
        },
        Reply::CouldNotAsk { verdict, instance_id } => Message {
            sentences: vec![format!(
                "Please say it as a command: /peergate {} {instance_id} because …",
                verdict_word(*verdict)
            )],
            ..with_headline("peergate could not ask you for a reason, so nothing was decided")
        },
        Reply::Objection(objection) => describe_objection(objection),
        Reply::StaleCard { approval: Some(approval), .. } => {
            let mut own = request_card(approval, now);
            let told = "That button is no longer valid, so nothing was decided. The buttons here are yours.";
            own.sentences.insert(0, told.into());
            own
        }
        Reply::StaleCard { approval: None, .. } => Message {
            sentences: vec!["Nothing was decided. Use the newest message about it in the channel, or a command.".into()],
            ..with_headline("This button is no longer valid")
        },
        Reply::ConnectionChanged => Message {
            sentences: vec!["Look at its card again, then decide.".into()],
            ..with_headline("The connection is not the one that you saw: its VPCs, ranges or bandwidth have changed")
        },
        Reply::FactsNotShown => Message {
            sentences: vec![
                "Wait for its card and decide there. A client can also send the fingerprint from a status.".into(),
            ],
            ..with_headline(
                "No channel had shown this connection's current facts when you decided, so your decision does not count",
            )
        },
        Reply::DecisionVoid => Message {
            sentences: vec!["To approve or reject it, send a new request.".into()],
            ..with_headline("This decision was stored earlier and no longer counts: the rules or the checks have changed")
        },
        Reply::IdReused => Message {
            sentences: vec!["Send it again with a new id.".into()],
            ..with_headline("Another request about this connection has the same id, so nothing was decided")
        },
        Reply::RecordFull => Message {
            sentences: vec!["Only a rejection, or the approval that completes it, may still fit. Otherwise decide in the Alibaba Cloud console.".into()],
            ..with_headline("The record of this connection is full, so your request was not stored")
        },
        Reply::TooManyWithdrawals => with_headline("You have withdrawn your approval 20 times, so you cannot withdraw it again"),
        Reply::TooManyReads => Message {
            sentences: vec!["Please try again in a minute.".into()],
            ..with_headline(
                "Too many requests came in the last minute, so peergate did not ask Alibaba Cloud and nothing was decided",
            )
        },
        Reply::UnknownTarget(names) => with_headline(format!("Name one of these targets: {}", names.join(", "))),
        Reply::UnknownConnection => with_headline("There is no such connection in this account"),
        Reply::VendorRefused(problem) => Message {
            facts: problem_facts(problem),
            sentences: vec![advice_for_code(&problem.code).into()],
            ..with_headline("Alibaba Cloud will not accept this connection")
        },
        Reply::NotUnderstood { field, problem } => Message {
            facts: problem_facts(problem),
            sentences: vec![format!(
                "peergate cannot understand the field {field}, so nothing was decided. peergate's operators have to look at it."
            )],
            ..with_headline("Alibaba Cloud's answer about this connection cannot be understood")
        },
        Reply::CredentialsRefused(problem) => Message {
            facts: problem_facts(problem),
            sentences: vec![advice_for_code(&problem.code).into()],
            ..with_headline(if problem.code.starts_with("AwsIdentity.") {
                "AWS refuses peergate an identity token for Alibaba Cloud; peergate's operators have to fix that"
            } else {
                "Alibaba Cloud refuses peergate's own credentials; peergate's operators have to fix that"
            })
        },
        Reply::Unavailable(part) => Message {
            sentences: vec!["Please try again in a minute.".into()],
            ..with_headline(match part {
                Dependency::Store => "peergate cannot reach its store, so nothing is known to be decided",
                Dependency::Secrets => "peergate cannot read its secrets, so nothing was decided",
                Dependency::Alicloud => "Alibaba Cloud does not answer, so nothing was decided",
                Dependency::AwsIdentity => {
                    "AWS issues no identity token for Alibaba Cloud at the moment, so nothing was decided"
                }
            })
        },
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Approve => "approve",
        Verdict::Reject => "reject",
    }
}

fn describe_rejection(approval: &Approval, now: Timestamp) -> Message {
    match approval.winner() {
        Some(Decision { verdict: Verdict::Reject, .. }) => with_headline(format!("You rejected {}", approval.id)),
        Some(_) | None => describe_late_decision(approval, now),
    }
}

fn describe_progress(approval: &Approval) -> Message {
    let word = if approval.state == ApprovalState::Rejecting { "rejected" } else { "approved" };
    let problem = approval.last_problem.as_ref();
    let stored = "Your decision is stored. Alibaba Cloud has not confirmed it yet; it will be carried out without you, \
                  and the channel will hear of it.";
    Message {
        facts: problem.map(problem_facts).unwrap_or_default(),
        sentences: std::iter::once(stored)
            .chain(problem.map(|problem| advice_for_code(&problem.code)))
            .map(Into::into)
            .collect(),
        ..with_headline(format!("You {word} {}", approval.id))
    }
}

fn describe_failure(approval: &Approval, now: Timestamp) -> Message {
    let advice = approval.last_problem.as_ref().map(|problem| advice_for_code(&problem.code).into());
    Message {
        facts: state_facts(approval, now),
        sentences: advice.into_iter().collect(),
        ..with_headline(format!("{} could not be carried out", approval.id))
    }
}

fn describe_late_decision(approval: &Approval, now: Timestamp) -> Message {
    let id = &approval.id;
    let headline = match (&approval.state, approval.winner()) {
        (ApprovalState::Expired, _) => format!("Too late: {id} has expired"),
        (ApprovalState::Deleted, _) => format!("Too late: {id} was deleted"),
        (ApprovalState::Rejected, Some(Decision { verdict: Verdict::Approve, .. })) => {
            format!("Too late: {id} was rejected outside peergate")
        }
        (_, Some(winner)) => {
            let word = match winner.verdict {
                Verdict::Approve => "approved",
                Verdict::Reject => "rejected",
            };
            let others = approval.decisions.iter().filter(|decision| decision.verdict == winner.verdict);
            let deciders: Vec<_> = others.map(|decision| describe_approver(&decision.by)).collect();
            format!("{id} was already {word} by {} at {:.0}", deciders.join(" and "), winner.at)
        }
        (_, None) => format!("{id} is already {}", approval.state.name()),
    };
    Message { facts: state_facts(approval, now), ..with_headline(headline) }
}

fn describe_status(connection: &Connection, approval: Option<&Approval>, target: &str, now: Timestamp) -> Message {
    let id = ApprovalId { target: target.to_owned(), instance_id: connection.instance_id.clone() };
    let waiting = connection.is_waiting(now) && approval.is_none_or(|approval| approval.is_open(now));
    let waiting = waiting && can_show_all(&connection.facts());
    let requester = approval.and_then(|approval| approval.policy.requester.as_deref());
    let needs_reason = approval.is_some_and(|approval| approval.policy.require_reason);
    let buttons = Buttons {
        target: id.target.clone(),
        instance_id: id.instance_id.clone(),
        fingerprint: connection.fingerprint(),
        shown: vec![Button::Approve { needs_reason }.into(), Button::Reject.into()],
    };
    let unknown = "The ranges of a side are unknown: whether they overlap could not be checked.";
    let unchecked = approval.is_none_or(|approval| approval.findings.is_empty()) && !connection.has_known_cidrs();
    Message {
        headline: format!("VPC peering {id} is {}", sanitize_text(&connection.status.to_string())),
        facts: [
            connection_facts(connection, requester),
            approval.map(|approval| state_facts(approval, now)).unwrap_or_default(),
        ]
        .concat(),
        checks: approval.map(|approval| approval.findings.iter().map(describe_finding).collect()).unwrap_or_default(),
        figure: approval.map(|approval| draw_overlaps(&approval.findings)).unwrap_or_default(),
        sentences: [
            unchecked.then(|| unknown.to_owned()).into_iter().collect(),
            approval.map(recent_events).unwrap_or_default(),
        ]
        .concat(),
        buttons: waiting.then_some(buttons),
        ..Message::default()
    }
}

/// The last things that happened, the first one first.
fn recent_events(approval: &Approval) -> Vec<String> {
    let skipped = approval.history.len().saturating_sub(MAX_EVENTS);
    let events = approval.history.iter().skip(skipped);
    events.map(|entry| format!("{:.0} {}", entry.at, describe_event(&entry.event))).collect()
}

/// Something that happened, in few words.
pub(super) fn describe_event(what: &AuditEvent) -> String {
    let void = |void: &[Approver]| match void {
        [] => String::new(),
        some => format!("; void: {}", super::list_approvers(some)),
    };
    match what {
        AuditEvent::Discovered { rule, approvals, .. } => match rule {
            Some(rule) => format!("seen; the rule “{}” asks for {approvals}", sanitize_text(rule)),
            None => "seen; no rule covers it".to_owned(),
        },
        AuditEvent::Changed { changes, void: approvers, .. } => {
            let changes: Vec<_> = changes.iter().map(super::card::describe_change).collect();
            format!("changed: {}{}", changes.join("; "), void(approvers))
        }
        AuditEvent::RuleChanged { rule, approvals, void: approvers } => match rule {
            Some(rule) => format!("the rule “{}” asks for {approvals}{}", sanitize_text(rule), void(approvers)),
            None => format!("no rule covers it any more{}", void(approvers)),
        },
        AuditEvent::Decided(decision) => {
            let word = match decision.verdict {
                Verdict::Approve => "approved",
                Verdict::Reject => "rejected",
            };
            let reason = decision.reason.as_deref().map(|reason| format!(" ({})", sanitize_text(reason)));
            format!("{word} by {}{}", describe_approver(&decision.by), reason.unwrap_or_default())
        }
        AuditEvent::Withdrawn { by, .. } => format!("approval withdrawn by {}", describe_approver(by)),
        AuditEvent::Acknowledged { operation, request_id } => {
            format!("Alibaba Cloud acknowledged {}, request {}", sanitize_text(operation), sanitize_text(request_id))
        }
        AuditEvent::Observed(status) => format!("seen as {}", sanitize_text(&status.to_string())),
        AuditEvent::Missing => "not there any more".to_owned(),
        AuditEvent::FactsDiffer { changes } => {
            let changes: Vec<_> = changes.iter().map(super::card::describe_change).collect();
            format!("activated with other facts than those decided on: {}", changes.join("; "))
        }
        AuditEvent::Failed(problem) => {
            let request_id = problem.request_id.as_deref().map(|id| format!(", request {}", sanitize_text(id)));
            format!("failed with {}{}", sanitize_text(&problem.code), request_id.unwrap_or_default())
        }
        AuditEvent::Reminded(alarm) => match alarm {
            Reminder::StillWaiting => "people were reminded".to_owned(),
            Reminder::Escalation => "others were told".to_owned(),
            Reminder::ExpiresSoon => "people were told that it expires soon".to_owned(),
            Reminder::Stuck => "people were told that the activation takes too long".to_owned(),
        },
        AuditEvent::SentBack { why, void: approvers, .. } => {
            let why = match why {
                SendBackReason::Objection(objection) => explain_objection(objection),
                SendBackReason::NotChecked => "not every check passes".to_owned(),
                SendBackReason::RuleNotMet => "the rules require other approvals".to_owned(),
            };
            format!("needs a new decision: {why}{}", void(approvers))
        }
        AuditEvent::Corrected { was, .. } => format!("corrected: it was recorded as {}", was.name()),
    }
}

/// A record in one line.
#[must_use]
pub fn summary_line(approval: &Approval, now: Timestamp) -> String {
    let (connection, terms) = (&approval.connection, &approval.policy);
    let so_far = match approval.state {
        ApprovalState::Pending if approval.is_past_expiry(now) => "past its expiry".to_owned(),
        ApprovalState::Pending if terms.rule.is_none() => "no rule covers it".to_owned(),
        ApprovalState::Pending => format!("{} of {} approvals", approval.approval_count(), terms.needed_approvals()),
        ApprovalState::Approved
        | ApprovalState::Activating
        | ApprovalState::Activated
        | ApprovalState::Rejecting
        | ApprovalState::Rejected
        | ApprovalState::Expired
        | ApprovalState::Deleted
        | ApprovalState::Failed { .. } => approval.state.name().to_owned(),
    };
    let waits = approval.state == ApprovalState::Pending && !approval.is_past_expiry(now);
    let expires = connection.expires_at.filter(|_| waits);
    let expires = expires.map(|expires_at| format!(", expires {expires_at:.0}")).unwrap_or_default();
    let requester = terms.requester.as_deref().map(|name| format!("{}, ", sanitize_text(name))).unwrap_or_default();
    format!(
        "{}: {so_far}, since {:.0}{expires}; {requester}account {} → {}",
        approval.id,
        approval.since,
        connection.requester.account,
        sanitize_text(&connection.accepter.vpc)
    )
}

fn describe_list(approvals: &[Approval], more: bool, now: Timestamp) -> Message {
    let mut sentences: Vec<_> = approvals.iter().map(|approval| summary_line(approval, now)).collect();
    sentences.extend(more.then(|| "There are more.".to_owned()));
    Message {
        sentences,
        ..with_headline(match approvals.len() {
            0 => "Nothing waits for a decision, and nothing is on its way".to_owned(),
            1 => "1 connection waits or is on its way".to_owned(),
            several => format!("{several} connections wait or are on their way"),
        })
    }
}

fn warning_lines(findings: &[Finding]) -> Vec<String> {
    let warns = |finding: &&Finding| matches!(finding.outcome, CheckOutcome::Unknown(_) | CheckOutcome::Warning(_));
    findings
        .iter()
        .filter(warns)
        .map(|finding| format!("{}.", describe_finding(finding).trim_start_matches("⚠ ")))
        .collect()
}

/// A record with everything that happened, for auditors.
#[must_use]
pub fn record_with_history(approval: &Approval, now: Timestamp) -> Message {
    let entry = |entry: &AuditEntry| {
        let seen = entry.event.fingerprint().map(|fingerprint| format!("; of {:.12}…", fingerprint.to_string()));
        let seen = seen.unwrap_or_default();
        format!("{:.3} {:<10} {}{seen}", entry.at, entry.state.name(), describe_event(&entry.event))
    };
    Message { sentences: approval.history.iter().map(entry).collect(), ..super::request_card(approval, now) }
}

fn describe_refusal(refusal: &Refusal) -> Message {
    match refusal {
        Refusal::NoRule(facts) => {
            let facts: Vec<_> = facts.iter().map(ToString::to_string).collect();
            let why = if facts.is_empty() {
                "Each of its facts is allowed by some rule, but no rule allows all of them.".to_owned()
            } else {
                format!("No rule allows its {}.", facts.join(", "))
            };
            Message {
                sentences: vec![why],
                ..with_headline("No rule covers this connection, so nobody may decide about it")
            }
        }
        Refusal::NotAnApprover { rule } => with_headline(format!(
            "You are not an approver of the rule “{}” that covers this connection",
            sanitize_text(rule)
        )),
        Refusal::Contact { account } => Message {
            sentences: vec!["Somebody else has to.".into()],
            ..with_headline(format!(
                "You are a contact of account {account}, which asks for this connection: you can't approve it"
            ))
        },
    }
}

fn describe_objection(objection: &Objection) -> Message {
    let sentence = explain_objection(objection);
    let facts = match objection {
        Objection::Overlap(pairs) => pairs
            .iter()
            .take(MAX_CIDRS)
            .map(|(theirs, ours)| MessageFact::new("Overlap", format!("requester {theirs} and accepting {ours}")))
            .collect(),
        Objection::DryRun(problem) => problem_facts(problem),
        Objection::NotOurs
        | Objection::Status(_)
        | Objection::Expired
        | Objection::BusinessStatus(_)
        | Objection::ManagedService(_) => vec![],
    };
    let found = Finding { check: crate::preflight::Check::Cidrs, outcome: CheckOutcome::Objection(objection.clone()) };
    Message {
        facts,
        figure: draw_overlaps(std::slice::from_ref(&found)),
        sentences: match objection {
            Objection::BusinessStatus(_) => vec!["Settle the overdue payment first.".into()],
            Objection::Expired => vec!["The requester has to ask again.".into()],
            Objection::NotOurs
            | Objection::Status(_)
            | Objection::ManagedService(_)
            | Objection::Overlap(_)
            | Objection::DryRun(_) => vec![],
        },
        ..with_headline(format!("This connection can't be decided about: {sentence}"))
    }
}

fn state_facts(approval: &Approval, now: Timestamp) -> Vec<MessageFact> {
    let state = format!("{} since {:.0}", approval.state.name(), approval.since);
    let problem = approval.last_problem.as_ref().map(problem_facts).unwrap_or_default();
    [vec![MessageFact::new("State", state)], approver_facts(approval, now), problem].concat()
}

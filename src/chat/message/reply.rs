//! Answers to commands and clicks. Each headline says what the command did; the sentences say what to do next.

use ipnet::IpNet;
use jiff::Timestamp;

use super::advice::advice_for_code;
use super::card::{approver_facts, describe_unmatched, request_card};
use super::checks::{describe_finding, draw_overlaps, explain_objection};
use super::drift::{describe_acknowledged, nothing_to_acknowledge};
use super::facts::{can_show_all, connection_facts, describe_approver, problem_facts};
use super::history::{recent_events, summary_line};
use super::inventory::describe_inventory;
use super::notification::count_approvals;
use super::routes::route_lines;
use super::usage::command_with_reason;
use super::{
    Button, Buttons, Link, MAX_CIDRS, Message, MessageFact, format_time, join_with, sanitize_text, with_headline,
};
use crate::approval::{Approval, ApprovalId, ApprovalState, Decision, Verdict};
use crate::chat::reply::{Dependency, Reply};
use crate::chat::{CommandScope, MAX_REASON_CHARS};
use crate::peering::{Connection, Problem};
use crate::policy::Refusal;
use crate::preflight::{Check, CheckOutcome, Finding, Objection};

const TRY_AGAIN: &str = "Please try again in a minute.";
const NEW_REQUEST: &str = "The requester must send a new request.";

fn with_sentence(headline: impl Into<String>, sentence: impl Into<String>) -> Message {
    Message { sentences: vec![sentence.into()], ..with_headline(headline) }
}

/// The answer to a user of a tenant that is not configured, e.g. of another "Slack workspace". `key` lists the configured
/// ones.
#[must_use]
pub fn wrong_tenant(tenant: &str, key: &str) -> Message {
    let noun = tenant.rsplit(' ').next().unwrap_or(tenant);
    with_sentence(
        format!("peergate does not take commands from this {tenant}, so it did nothing"),
        format!("An operator of peergate can add the {noun} to `{key}` in peergate.toml."),
    )
}

/// The reply in the thread of a card that is too old to be updated.
#[must_use]
pub fn card_moved(approval: &Approval) -> Message {
    with_sentence(
        format!("There is a new card for VPC peering {}", approval.id()),
        "The card above is too old to be updated. Use the new card in this channel.",
    )
}

/// Replaces a card whose buttons are no longer valid. `link` leads to the current card.
#[must_use]
pub fn card_replaced(link: Option<String>) -> Message {
    Message {
        link: link.map(|url| Link { label: "Show the card", url }),
        ..with_sentence("This card has been replaced", "Another card shows the current state of this request.")
    }
}

/// Replaces a message whose buttons are no longer valid, if the request has no card.
#[must_use]
pub fn without_old_buttons(approval: &Approval, now: Timestamp) -> Message {
    without_buttons(request_card(approval, now), &[], true)
}

/// A message without buttons. If they were for a decision, it says how to decide: on the card in one of these channels, or
/// by a command.
#[must_use]
pub fn without_buttons(message: Message, card_channels: &[&str], has_commands: bool) -> Message {
    let Some(buttons) = message.buttons.clone() else { return message };
    let mut message = Message { buttons: None, ..message };
    let can_decide = buttons.shown.iter().any(|shown| matches!(shown.button, Button::Approve { .. } | Button::Reject));
    if !can_decide {
        return message;
    }
    let card = (!card_channels.is_empty()).then(|| format!("use the card in {}", join_card_channels(card_channels)));
    let commands = has_commands.then(|| {
        let (id, target) = (&buttons.instance_id, &buttons.target);
        format!("send the command /peergate approve {id} on {target} or /peergate reject {id} on {target}")
    });
    let ways: Vec<_> = card.into_iter().chain(commands).collect();
    let how = if ways.is_empty() { "send a signed request to the webhook".to_owned() } else { ways.join(", or ") };
    message.sentences.push(format!("This message has no buttons. To decide, {how}."));
    message
}

fn join_card_channels(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| sanitize_text(name)).collect();
    join_with(&names, "or")
}

/// The answer in words. For machines, it is the `detail`. `scope` says which commands it may suggest.
#[must_use]
pub fn describe_reply(reply: &Reply, scope: CommandScope, now: Timestamp) -> Message {
    match reply {
        Reply::Done(approval) => describe_done(approval, now),
        Reply::InProgress(approval) => describe_progress(approval),
        Reply::Counted(approval) => describe_counted(approval, now),
        Reply::Withdrawn(approval) => describe_withdrawal(approval, now),
        Reply::NothingToWithdraw => with_headline("You have no approval to withdraw"),
        Reply::Acknowledged(approval) => describe_acknowledged(approval),
        Reply::NothingToAcknowledge => nothing_to_acknowledge(),
        Reply::Repeated(approval) => Message {
            facts: state_facts(approval, now),
            ..with_headline(format!("You already decided on {}: nothing changed", approval.id()))
        },
        Reply::AlreadyDecided(approval) => describe_late_decision(approval, now),
        Reply::Deleted(approval) => describe_deletion(approval, now),
        Reply::DryRunPassed { connection, findings } => describe_dry_run(connection, findings),
        Reply::Status { connection, approval, target } => describe_status(connection, approval.as_deref(), target, now),
        Reply::ButtonsOnly(status) => describe_buttons_only(status, scope, now),
        Reply::List { approvals, more } => describe_list(approvals, *more, now),
        Reply::Inventory { target, lines, gaps } => describe_inventory(target.as_deref(), lines, gaps, now),
        Reply::Refused(refusal) => describe_refusal(refusal),
        Reply::ReasonRequired { rule, verdict, id } => describe_missing_reason(rule, *verdict, id, scope),
        Reply::ReasonTooLong(chars) => with_sentence(
            format!("Your reason has {chars} characters, and peergate takes at most {MAX_REASON_CHARS}"),
            "Nothing was decided. Decide again with a shorter reason.",
        ),
        Reply::CouldNotAsk { verdict, id } => with_sentence(
            "peergate could not ask you for a reason, so nothing was decided",
            match scope {
                CommandScope::Everything => {
                    format!("Use a command instead: {}", command_with_reason((*verdict).into(), id))
                }
                CommandScope::Questions => "Click the button again.".to_owned(),
            },
        ),
        Reply::Objection(objection) => describe_objection(objection),
        Reply::StaleCard { approval, .. } => describe_stale_card(approval.as_deref(), now),
        Reply::UnknownTarget(names) => with_headline(format!("Name one of these targets: {}", names.join(", "))),
        Reply::UnknownConnection => with_headline("There is no such connection in this account"),
        Reply::VendorRefused(problem) => describe_problem("Alibaba Cloud refuses to accept this VPC peering", problem),
        Reply::NotUnderstood { field, problem } => describe_unknown_answer(field, problem),
        Reply::CredentialsRefused(problem) => describe_refused_credentials(problem),
        Reply::Unavailable(dependency) => describe_outage(*dependency),
        Reply::ConnectionChanged => describe_changed_connection(),
        Reply::FactsNotShown => describe_unseen_facts(),
        Reply::DecisionVoid => with_sentence(
            "This decision was stored earlier and no longer counts: the rules or the checks have changed",
            "To decide again, send a new request.",
        ),
        Reply::IdReused => with_sentence(
            "Another request about this VPC peering has the same id, so nothing was decided",
            "Send your request again with a new id.",
        ),
        Reply::RecordFull => describe_full_record(),
        Reply::TooManyWithdrawals => {
            with_headline("You have withdrawn your approval 20 times, so you cannot withdraw it again")
        }
        Reply::TooManyReads => with_sentence(
            "Too many requests came in the last minute, so peergate did not ask Alibaba Cloud and nothing was decided",
            TRY_AGAIN,
        ),
    }
}

fn describe_withdrawal(approval: &Approval, now: Timestamp) -> Message {
    Message {
        facts: approver_facts(approval, now),
        ..with_headline(format!("You withdrew your approval of {}", approval.id()))
    }
}

fn describe_missing_reason(rule: &str, verdict: Verdict, id: &ApprovalId, scope: CommandScope) -> Message {
    with_sentence(
        format!("The rule “{}” requires a reason, so nothing was decided", sanitize_text(rule)),
        match scope {
            CommandScope::Everything => {
                format!("Decide again with a reason: {}", command_with_reason(verdict.into(), id))
            }
            CommandScope::Questions => "Write a reason on the card, and click the button again.".to_owned(),
        },
    )
}

/// The current status, after the sentence that words decide nothing.
fn describe_buttons_only(status: &Reply, scope: CommandScope, now: Timestamp) -> Message {
    let mut message = describe_reply(status, scope, now);
    let how = match &message.buttons {
        Some(_) => "Use the buttons of this message, or of the card in the channel.",
        None => "Use the buttons of the card in the channel.",
    };
    message.sentences.insert(0, format!("Nothing was decided: here, only buttons decide. {how}"));
    message
}

fn describe_unknown_answer(field: &str, problem: &Problem) -> Message {
    let sentence =
        format!("The field {field} is not as documented, so nothing was decided. Please tell an operator of peergate.");
    Message {
        facts: problem_facts(problem),
        ..with_sentence("peergate does not understand Alibaba Cloud's answer about this VPC peering", sentence)
    }
}

fn describe_refused_credentials(problem: &Problem) -> Message {
    let headline = if problem.code.starts_with("AwsIdentity.") {
        "AWS refuses an identity token for Alibaba Cloud: an operator of peergate must fix this"
    } else {
        "Alibaba Cloud refuses the credentials of peergate: an operator of peergate must fix this"
    };
    describe_problem(headline, problem)
}

fn describe_changed_connection() -> Message {
    with_sentence(
        "This VPC peering has changed since you saw it, so nothing was decided",
        "Its status, accounts, VPCs, CIDR blocks, bandwidth or link type are different. Once its card shows that, read it \
         again, then decide.",
    )
}

fn describe_unseen_facts() -> Message {
    with_sentence(
        "No channel had shown the current facts of this VPC peering when you decided, so your decision does not count",
        "Wait for its card and decide there. A webhook client can also send the fingerprint from a status reply.",
    )
}

fn describe_full_record() -> Message {
    with_sentence(
        "The record of this VPC peering is full, so your request was not stored",
        "You can still try to reject it, or to give its last missing approval. Otherwise, decide in the Alibaba Cloud console.",
    )
}

fn describe_outage(dependency: Dependency) -> Message {
    let headline = match dependency {
        Dependency::Store => "peergate cannot reach its database, so your request may not have been stored",
        Dependency::Secrets => "peergate cannot read its secrets, so nothing was decided",
        Dependency::Alicloud => "Alibaba Cloud does not answer, so nothing was decided",
        Dependency::AwsIdentity => "AWS issues no identity token for Alibaba Cloud now, so nothing was decided",
    };
    with_sentence(headline, TRY_AGAIN)
}

fn describe_problem(headline: &str, problem: &Problem) -> Message {
    Message { facts: problem_facts(problem), ..with_sentence(headline, advice_for_code(&problem.code)) }
}

fn describe_done(approval: &Approval, now: Timestamp) -> Message {
    let id = approval.id();
    match approval.state() {
        ApprovalState::Rejected => match approval.winner() {
            Some(Decision { verdict: Verdict::Reject, .. }) => with_headline(format!("You rejected {id}")),
            Some(_) | None => describe_late_decision(approval, now),
        },
        ApprovalState::Activated => with_headline(format!("You approved {id}, and it is Activated")),
        ApprovalState::Failed { .. } => describe_failure(approval, now),
        ApprovalState::Expired | ApprovalState::Deleted => describe_late_decision(approval, now),
        ApprovalState::Pending => with_headline(format!("{id} has changed since you saw it: read its card again")),
        ApprovalState::Rejecting => describe_progress(approval),
        ApprovalState::Approved | ApprovalState::Activating => with_headline(format!(
            "You approved {id}: Alibaba Cloud is activating it, and the channel will hear when it is usable"
        )),
    }
}

fn describe_progress(approval: &Approval) -> Message {
    let word = if *approval.state() == ApprovalState::Rejecting { "rejected" } else { "approved" };
    let problem = approval.last_problem();
    let stored = "Your decision is stored, but Alibaba Cloud has not confirmed it yet. peergate will carry it out automatically and \
                  notify the channel.";
    Message {
        facts: problem.map(problem_facts).unwrap_or_default(),
        sentences: std::iter::once(stored)
            .chain(problem.map(|problem| advice_for_code(&problem.code)))
            .map(Into::into)
            .collect(),
        ..with_headline(format!("You {word} {}", approval.id()))
    }
}

fn describe_counted(approval: &Approval, now: Timestamp) -> Message {
    let (given, needed) = (approval.approval_count(), count_approvals(approval.policy().needed_approvals()));
    Message {
        facts: approver_facts(approval, now),
        ..with_headline(format!("Your approval of {} counts: {given} of {needed}", approval.id()))
    }
}

fn describe_failure(approval: &Approval, now: Timestamp) -> Message {
    let advice = approval.last_problem().map(|problem| advice_for_code(&problem.code).into());
    Message {
        facts: state_facts(approval, now),
        sentences: advice.into_iter().collect(),
        ..with_headline(format!("Your decision on {} could not be carried out", approval.id()))
    }
}

fn describe_late_decision(approval: &Approval, now: Timestamp) -> Message {
    let id = approval.id();
    let is_ours = approval.winner().is_some_and(|winner| winner.verdict == Verdict::Reject);
    let (end, sentences) = match approval.state() {
        ApprovalState::Expired => {
            let at = approval.connection().expires_at.unwrap_or_else(|| approval.since());
            ("has expired", vec![format!("It expired at {}. {NEW_REQUEST}", format_time(at))])
        }
        ApprovalState::Deleted => ("was deleted", end_sentences(approval)),
        ApprovalState::Rejected if !is_ours => ("was rejected outside peergate", end_sentences(approval)),
        ApprovalState::Pending
        | ApprovalState::Approved
        | ApprovalState::Activating
        | ApprovalState::Activated
        | ApprovalState::Rejecting
        | ApprovalState::Rejected
        | ApprovalState::Failed { .. } => {
            return Message { facts: state_facts(approval, now), ..with_headline(late_headline(approval)) };
        }
    };
    Message { facts: state_facts(approval, now), sentences, ..with_headline(format!("Too late: {id} {end}")) }
}

/// When peergate learned of an end that it did not cause.
fn end_sentences(approval: &Approval) -> Vec<String> {
    vec![format!("peergate noticed it at {}. {NEW_REQUEST}", format_time(approval.since()))]
}

/// The decision that was first.
fn late_headline(approval: &Approval) -> String {
    let id = approval.id();
    let Some(winner) = approval.winner() else {
        let state = approval.state().name();
        let is_active = matches!(approval.state(), ApprovalState::Activating | ApprovalState::Activated);
        let bypass = if is_active { "; somebody accepted it outside peergate" } else { "" };
        return format!("Too late: {id} is already {state}{bypass}");
    };
    let word = match winner.verdict {
        Verdict::Approve => "approved",
        Verdict::Reject => "rejected",
    };
    let same = approval.decisions().iter().filter(|decision| decision.verdict == winner.verdict);
    let deciders: Vec<_> = same.map(|decision| describe_approver(&decision.by)).collect();
    format!("Too late: {id} was already {word} by {} at {}", join_with(&deciders, "and"), format_time(winner.at))
}

fn describe_deletion(approval: &Approval, now: Timestamp) -> Message {
    if *approval.state() == ApprovalState::Deleted {
        return describe_late_decision(approval, now);
    }
    Message {
        facts: state_facts(approval, now),
        ..with_sentence(
            format!("Alibaba Cloud no longer has VPC peering {}, so nothing was decided", approval.id()),
            "If it was deleted, the requester must send a new request.",
        )
    }
}

fn describe_stale_card(approval: Option<&Approval>, now: Timestamp) -> Message {
    match approval {
        Some(approval) => {
            let mut own = request_card(approval, now);
            let text = "The button that you clicked is no longer valid, so nothing was decided. Use the buttons of this message: only \
                        you see it.";
            own.sentences.insert(0, text.into());
            own
        }
        None => with_sentence(
            "This button is no longer valid, so nothing was decided",
            "Use the newest card of this request in the channel, or a command.",
        ),
    }
}

fn describe_dry_run(connection: &Connection, findings: &[Finding]) -> Message {
    let is_open = |finding: &&Finding| matches!(finding.outcome, CheckOutcome::Unknown(_) | CheckOutcome::Warning(_));
    let warnings = findings.iter().filter(is_open).map(describe_finding);
    Message {
        facts: connection_facts(connection, None),
        checks: findings.iter().map(describe_finding).collect(),
        // Machines get the sentences, but not the checks.
        sentences: warnings.map(|warning| format!("Warning: {}.", warning.trim_start_matches("⚠ "))).collect(),
        ..with_headline(format!(
            "A dry run passed and changed nothing: {} could be accepted now",
            connection.instance_id
        ))
    }
}

fn describe_status(connection: &Connection, approval: Option<&Approval>, target: &str, now: Timestamp) -> Message {
    let id = ApprovalId { target: target.to_owned(), instance_id: connection.instance_id.clone() };
    let is_open = connection.is_waiting(now) && approval.is_none_or(|approval| approval.is_open(now));
    let can_decide = is_open && can_show_all(&connection.facts());
    let requester = approval.and_then(|approval| approval.policy().requester.as_deref());
    let needs_reason = approval.is_some_and(|approval| approval.policy().require_reason);
    let buttons = Buttons {
        target: id.target.clone(),
        instance_id: id.instance_id.clone(),
        fingerprint: connection.fingerprint(),
        shown: vec![Button::Approve { needs_reason }.into(), Button::Reject.into()],
    };
    let is_unchecked = approval.is_none_or(|approval| approval.findings().is_empty()) && !connection.has_known_cidrs();
    let mut message = Message {
        facts: connection_facts(connection, requester),
        buttons: can_decide.then_some(buttons),
        ..with_headline(format!(
            "VPC peering {id} has the status {} at Alibaba Cloud",
            sanitize_text(&connection.status.to_string())
        ))
    };
    if is_unchecked {
        message
            .sentences
            .push("The CIDR blocks of one side are unknown, so peergate cannot check for an overlap.".into());
    }
    if let Some(approval) = approval {
        message.facts.extend(state_facts(approval, now));
        message.checks = approval.findings().iter().map(describe_finding).chain(route_lines(approval)).collect();
        message.figure = draw_overlaps(approval.findings());
        message.sentences.extend(recent_events(approval));
    }
    message
}

fn describe_list(approvals: &[Approval], more: bool, now: Timestamp) -> Message {
    let mut sentences: Vec<_> = approvals.iter().map(|approval| summary_line(approval, now)).collect();
    sentences.extend(more.then(|| "There are more requests than this list shows.".to_owned()));
    Message {
        sentences,
        ..with_headline(match approvals.len() {
            0 => "No VPC peering is pending or in progress".to_owned(),
            1 => "1 VPC peering is pending or in progress".to_owned(),
            several => format!("{several} VPC peerings are pending or in progress"),
        })
    }
}

fn describe_refusal(refusal: &Refusal) -> Message {
    match refusal {
        Refusal::NoRule(facts) => {
            let facts: Vec<_> = facts.iter().map(ToString::to_string).collect();
            Message {
                sentences: vec![
                    describe_unmatched(&facts),
                    "An operator of peergate can add a rule for it to peergate.toml.".to_owned(),
                ],
                ..with_headline("No rule covers this VPC peering, so nobody can decide on it")
            }
        }
        Refusal::NotAnApprover { rule } => with_headline(format!(
            "You cannot decide on this VPC peering: you are not an approver of its rule “{}”",
            sanitize_text(rule)
        )),
        Refusal::Contact { account } => with_sentence(
            format!("You cannot approve this VPC peering: you are a contact of its requester, account {account}"),
            "Another approver has to decide.",
        ),
    }
}

fn describe_objection(objection: &Objection) -> Message {
    let facts = match objection {
        Objection::Overlap(pairs) => {
            let fact = |(theirs, ours): &(IpNet, IpNet)| {
                MessageFact::new("Overlap", format!("requester {theirs}, ours {ours}"))
            };
            pairs.iter().take(MAX_CIDRS).map(fact).collect()
        }
        Objection::DryRun(problem) => problem_facts(problem),
        Objection::NotOurs
        | Objection::Status(_)
        | Objection::Expired
        | Objection::BusinessStatus(_)
        | Objection::ManagedService(_) => vec![],
    };
    let sentence = match objection {
        Objection::BusinessStatus(_) => Some("Settle the overdue payment first."),
        Objection::Expired => Some(NEW_REQUEST),
        Objection::DryRun(problem) => Some(advice_for_code(&problem.code)),
        Objection::NotOurs | Objection::Status(_) | Objection::ManagedService(_) | Objection::Overlap(_) => None,
    };
    // These three prevent a rejection, too.
    let verb = match objection {
        Objection::NotOurs | Objection::Status(_) | Objection::Expired => "approved or rejected",
        Objection::BusinessStatus(_) | Objection::ManagedService(_) | Objection::Overlap(_) | Objection::DryRun(_) => {
            "approved"
        }
    };
    let found = Finding { check: Check::Cidrs, outcome: CheckOutcome::Objection(objection.clone()) };
    Message {
        facts,
        figure: draw_overlaps(std::slice::from_ref(&found)),
        sentences: sentence.into_iter().map(Into::into).collect(),
        ..with_headline(format!("This VPC peering cannot be {verb}: {}", explain_objection(objection)))
    }
}

fn state_facts(approval: &Approval, now: Timestamp) -> Vec<MessageFact> {
    let state = format!("{} since {}", approval.state().name(), format_time(approval.since()));
    let mut facts = vec![MessageFact::new("State", state)];
    facts.extend(approver_facts(approval, now));
    facts.extend(approval.last_problem().into_iter().flat_map(problem_facts));
    facts
}

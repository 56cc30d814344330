//! What somebody who asked is told.

use jiff::Timestamp;

use super::card::{card, check, figure, people, stands_against};
use super::{Button, Buttons, MOST_CIDRS, Message, advice, facts, plain, problem_facts, say, shows_all, who};
use crate::approval::{Alarm, Approval, ApprovalId, Approver, Decision, Entry, SentBack, State, Verdict, What};
use crate::chat::{Answer, Part};
use crate::peering::Connection;
use crate::policy::Refusal;
use crate::preflight::{Finding, Found, Objection};

/// The last things that happened, as many as are told.
const MOST_EVENTS: usize = 12;

/// The answer to a user of another tenant, e.g. of another "Slack workspace"; `key` lists those that we serve.
#[must_use]
pub fn stranger(tenant: &str, key: &str) -> Message {
    Message {
        sentences: vec![format!(
            "An operator of peergate can add the {} to `{key}` in peergate.toml.",
            last_word(tenant)
        )],
        ..say(format!("peergate does not take commands from this {tenant}, so it did nothing"))
    }
}

fn last_word(words: &str) -> &str {
    words.rsplit(' ').next().unwrap_or(words)
}

/// What stands below a card that is too old to be changed.
#[must_use]
pub fn moved(approval: &Approval) -> Message {
    Message {
        sentences: vec!["The card above is too old to be changed. Use the new card in this channel.".into()],
        ..say(format!("There is a new card for VPC peering {}", approval.id))
    }
}

/// What takes the place of a card whose buttons decide nothing any more.
#[must_use]
pub fn replaced() -> Message {
    Message { sentences: vec!["Use the newer card in this channel.".into()], ..say("This card has been replaced") }
}

/// What somebody who asked is told. Also the `detail` of answers to machines.
#[must_use]
#[expect(clippy::too_many_lines, reason = "an arm for each answer")]
pub fn answer(answer: &Answer, now: Timestamp) -> Message {
    match answer {
        Answer::Done(approval) => say(match approval.state {
            State::Rejected => return rejected(approval, now),
            State::Activated => format!("You approved {}, and it is Activated", approval.id),
            State::Failed { .. } => return failed(approval, now),
            State::Expired | State::Deleted => return over(approval, now),
            State::Pending => format!("{} has changed meanwhile: look at its card again", approval.id),
            State::Approved | State::Activating | State::Rejecting => {
                format!(
                    "You approved {}: it is being activated, and the channel will hear when it is usable",
                    approval.id
                )
            }
        }),
        Answer::Underway(approval) => underway(approval),
        Answer::Counted(approval) => Message {
            facts: people(approval, now),
            ..say(format!(
                "Your approval of {} counts: {} of {}",
                approval.id,
                approval.given(),
                approval.terms.needed()
            ))
        },
        Answer::Withdrawn(approval) => Message {
            facts: people(approval, now),
            ..say(format!("Your approval of {} does not count any more", approval.id))
        },
        Answer::NothingToWithdraw => say("You have no approval to withdraw: there is none that counts"),
        Answer::Repeated(approval) => Message {
            facts: state_facts(approval, now),
            ..say(format!("You decided about {} before; nothing changed", approval.id))
        },
        Answer::Over(approval) => over(approval, now),
        Answer::DryRunPassed { connection, findings } => Message {
            facts: facts(connection, None),
            checks: findings.iter().map(check).collect(),
            sentences: warnings(findings),
            ..say(format!("A dry run passed: {} could be accepted now. Nothing was changed", connection.instance_id))
        },
        Answer::Status { connection, approval, target } => status(connection, approval.as_deref(), target, now),
        Answer::List { approvals, more } => list(approvals, *more, now),
        Answer::Refused(refusal) => refused(refusal),
        Answer::ReasonRequired { rule, verdict, instance_id } => Message {
            sentences: vec![format!(
                "Say it again with a reason: /peergate {} {instance_id} because …",
                word(*verdict)
            )],
            ..say(format!("The rule “{}” wants a reason with every decision", plain(rule)))
        },
        Answer::NotAsked { verdict, instance_id } => Message {
            sentences: vec![format!(
                "Please say it as a command: /peergate {} {instance_id} because …",
                word(*verdict)
            )],
            ..say("peergate could not ask you for a reason, so nothing was decided")
        },
        Answer::Objection(objection) => objected(objection),
        Answer::OldCard { approval: Some(approval), .. } => {
            let mut own = card(approval, now);
            let told = "That button is no longer valid, so nothing was decided. The buttons here are yours.";
            own.sentences.insert(0, told.into());
            own
        }
        Answer::OldCard { approval: None, .. } => Message {
            sentences: vec!["Nothing was decided. Use the newest message about it in the channel, or a command.".into()],
            ..say("This button is no longer valid")
        },
        Answer::Changed => Message {
            sentences: vec!["Look at its card again, then decide.".into()],
            ..say("The connection is not the one that you saw: its VPCs, ranges or bandwidth have changed")
        },
        Answer::NotShown => Message {
            sentences: vec![
                "Wait for its card and decide there. A client can also send the fingerprint from a status.".into(),
            ],
            ..say(
                "No channel had shown this connection's current facts when you decided, so your decision does not count",
            )
        },
        Answer::Void => Message {
            sentences: vec!["To approve or reject it, send a new request.".into()],
            ..say("This decision was stored earlier and no longer counts: the rules or the checks have changed")
        },
        Answer::IdReused => Message {
            sentences: vec!["Send it again with a new id.".into()],
            ..say("Another request about this connection has the same id, so nothing was decided")
        },
        Answer::RecordFull => Message {
            sentences: vec!["Only a rejection, or the approval that completes it, may still fit. Otherwise decide in the Alibaba Cloud console.".into()],
            ..say("The record of this connection is full, so your request was not stored")
        },
        Answer::TooManyWithdrawals => say("You have withdrawn your approval 20 times, so you cannot withdraw it again"),
        Answer::TooManyReads => Message {
            sentences: vec!["Please try again in a minute.".into()],
            ..say(
                "Too many requests came in the last minute, so peergate did not ask Alibaba Cloud and nothing was decided",
            )
        },
        Answer::UnknownTarget(names) => say(format!("Name one of these targets: {}", names.join(", "))),
        Answer::UnknownConnection => say("There is no such connection in this account"),
        Answer::VendorRefused(problem) => Message {
            facts: problem_facts(problem),
            sentences: vec![advice(&problem.code).into()],
            ..say("Alibaba Cloud will not accept this connection")
        },
        Answer::NotUnderstood { field, problem } => Message {
            facts: problem_facts(problem),
            sentences: vec![format!(
                "peergate cannot understand the field {field}, so nothing was decided. peergate's operators have to look at it."
            )],
            ..say("Alibaba Cloud's answer about this connection cannot be understood")
        },
        Answer::CredentialsRefused(problem) => Message {
            facts: problem_facts(problem),
            sentences: vec![advice(&problem.code).into()],
            ..say(if problem.code.starts_with("AwsIdentity.") {
                "AWS refuses peergate an identity token for Alibaba Cloud; peergate's operators have to fix that"
            } else {
                "Alibaba Cloud refuses peergate's own credentials; peergate's operators have to fix that"
            })
        },
        Answer::Unavailable(part) => Message {
            sentences: vec!["Please try again in a minute.".into()],
            ..say(match part {
                Part::Store => "peergate cannot reach its store, so nothing is known to be decided",
                Part::Secrets => "peergate cannot read its secrets, so nothing was decided",
                Part::Alicloud => "Alibaba Cloud does not answer, so nothing was decided",
                Part::AwsIdentity => {
                    "AWS issues no identity token for Alibaba Cloud at the moment, so nothing was decided"
                }
            })
        },
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Approve => "approve",
        Verdict::Reject => "reject",
    }
}

fn rejected(approval: &Approval, now: Timestamp) -> Message {
    match approval.winner() {
        Some(Decision { verdict: Verdict::Reject, .. }) => say(format!("You rejected {}", approval.id)),
        Some(_) | None => over(approval, now),
    }
}

fn underway(approval: &Approval) -> Message {
    let word = if approval.state == State::Rejecting { "rejected" } else { "approved" };
    let problem = approval.last_problem.as_ref();
    let stored = "Your decision is stored. Alibaba Cloud has not confirmed it yet; it will be carried out without you, \
                  and the channel will hear of it.";
    Message {
        facts: problem.map(problem_facts).unwrap_or_default(),
        sentences: std::iter::once(stored)
            .chain(problem.map(|problem| advice(&problem.code)))
            .map(Into::into)
            .collect(),
        ..say(format!("You {word} {}", approval.id))
    }
}

fn failed(approval: &Approval, now: Timestamp) -> Message {
    let advice = approval.last_problem.as_ref().map(|problem| advice(&problem.code).into());
    Message {
        facts: state_facts(approval, now),
        sentences: advice.into_iter().collect(),
        ..say(format!("{} could not be carried out", approval.id))
    }
}

fn over(approval: &Approval, now: Timestamp) -> Message {
    let id = &approval.id;
    let headline = match (&approval.state, approval.winner()) {
        (State::Expired, _) => format!("Too late: {id} has expired"),
        (State::Deleted, _) => format!("Too late: {id} was deleted"),
        (State::Rejected, Some(Decision { verdict: Verdict::Approve, .. })) => {
            format!("Too late: {id} was rejected outside peergate")
        }
        (_, Some(winner)) => {
            let word = match winner.verdict {
                Verdict::Approve => "approved",
                Verdict::Reject => "rejected",
            };
            let others = approval.decisions.iter().filter(|decision| decision.verdict == winner.verdict);
            let deciders: Vec<_> = others.map(|decision| who(&decision.by)).collect();
            format!("{id} was already {word} by {} at {:.0}", deciders.join(" and "), winner.at)
        }
        (_, None) => format!("{id} is already {}", approval.state.name()),
    };
    Message { facts: state_facts(approval, now), ..say(headline) }
}

fn status(connection: &Connection, approval: Option<&Approval>, target: &str, now: Timestamp) -> Message {
    let id = ApprovalId { target: target.to_owned(), instance_id: connection.instance_id.clone() };
    let waiting = connection.is_waiting(now) && approval.is_none_or(|approval| approval.is_open(now));
    let waiting = waiting && shows_all(&connection.facts());
    let requester = approval.and_then(|approval| approval.terms.requester.as_deref());
    let ask = approval.is_some_and(|approval| approval.terms.require_reason);
    let buttons = Buttons {
        target: id.target.clone(),
        instance_id: id.instance_id.clone(),
        fingerprint: connection.fingerprint(),
        shown: vec![Button::Approve { ask }, Button::Reject],
        bindings: vec![],
    };
    let unknown = "The ranges of a side are unknown: whether they overlap could not be checked.";
    let unchecked = approval.is_none_or(|approval| approval.findings.is_empty()) && !connection.cidrs_are_known();
    Message {
        headline: format!("VPC peering {id} is {}", plain(&connection.status.to_string())),
        facts: [facts(connection, requester), approval.map(|approval| state_facts(approval, now)).unwrap_or_default()]
            .concat(),
        checks: approval.map(|approval| approval.findings.iter().map(check).collect()).unwrap_or_default(),
        figure: approval.map(|approval| figure(&approval.findings)).unwrap_or_default(),
        sentences: [
            unchecked.then(|| unknown.to_owned()).into_iter().collect(),
            approval.map(timeline).unwrap_or_default(),
        ]
        .concat(),
        buttons: waiting.then_some(buttons),
        ..Message::default()
    }
}

/// The last things that happened, the first one first.
fn timeline(approval: &Approval) -> Vec<String> {
    let skipped = approval.history.len().saturating_sub(MOST_EVENTS);
    let events = approval.history.iter().skip(skipped);
    events.map(|entry| format!("{:.0} {}", entry.at, event(&entry.what))).collect()
}

/// Something that happened, in few words.
pub(super) fn event(what: &What) -> String {
    let void = |void: &[Approver]| match void {
        [] => String::new(),
        some => format!("; void: {}", super::all_of(some)),
    };
    match what {
        What::Discovered { rule, approvals, .. } => match rule {
            Some(rule) => format!("seen; the rule “{}” asks for {approvals}", plain(rule)),
            None => "seen; no rule covers it".to_owned(),
        },
        What::Changed { changes, void: approvers, .. } => {
            let changes: Vec<_> = changes.iter().map(super::card::describe).collect();
            format!("changed: {}{}", changes.join("; "), void(approvers))
        }
        What::RuleChanged { rule, approvals, void: approvers } => match rule {
            Some(rule) => format!("the rule “{}” asks for {approvals}{}", plain(rule), void(approvers)),
            None => format!("no rule covers it any more{}", void(approvers)),
        },
        What::Decided(decision) => {
            let word = match decision.verdict {
                Verdict::Approve => "approved",
                Verdict::Reject => "rejected",
            };
            let reason = decision.reason.as_deref().map(|reason| format!(" ({})", plain(reason)));
            format!("{word} by {}{}", who(&decision.by), reason.unwrap_or_default())
        }
        What::Withdrawn { by, .. } => format!("approval withdrawn by {}", who(by)),
        What::Acknowledged { operation, request_id } => {
            format!("Alibaba Cloud acknowledged {}, request {}", plain(operation), plain(request_id))
        }
        What::Seen(status) => format!("seen as {}", plain(&status.to_string())),
        What::Missing => "not there any more".to_owned(),
        What::Differs { changes } => {
            let changes: Vec<_> = changes.iter().map(super::card::describe).collect();
            format!("activated with other facts than those decided on: {}", changes.join("; "))
        }
        What::Failed(problem) => {
            let request_id = problem.request_id.as_deref().map(|id| format!(", request {}", plain(id)));
            format!("failed with {}{}", plain(&problem.code), request_id.unwrap_or_default())
        }
        What::Told(alarm) => match alarm {
            Alarm::Reminder => "people were reminded".to_owned(),
            Alarm::Escalation => "others were told".to_owned(),
            Alarm::ExpiresSoon => "people were told that it expires soon".to_owned(),
            Alarm::Stuck => "people were told that the activation takes too long".to_owned(),
        },
        What::SentBack { why, void: approvers, .. } => {
            let why = match why {
                SentBack::Objection(objection) => stands_against(objection),
                SentBack::NotChecked => "not every check passes".to_owned(),
                SentBack::Rule => "the rules require other approvals".to_owned(),
            };
            format!("needs a new decision: {why}{}", void(approvers))
        }
        What::Corrected { was, .. } => format!("corrected: it was recorded as {}", was.name()),
    }
}

/// A record in one line.
#[must_use]
pub fn line(approval: &Approval, now: Timestamp) -> String {
    let (connection, terms) = (&approval.connection, &approval.terms);
    let so_far = match approval.state {
        State::Pending if approval.is_past_expiry(now) => "past its expiry".to_owned(),
        State::Pending if terms.rule.is_none() => "no rule covers it".to_owned(),
        State::Pending => format!("{} of {} approvals", approval.given(), terms.needed()),
        State::Approved
        | State::Activating
        | State::Activated
        | State::Rejecting
        | State::Rejected
        | State::Expired
        | State::Deleted
        | State::Failed { .. } => approval.state.name().to_owned(),
    };
    let waits = approval.state == State::Pending && !approval.is_past_expiry(now);
    let expires = connection.expires_at.filter(|_| waits);
    let expires = expires.map(|expires_at| format!(", expires {expires_at:.0}")).unwrap_or_default();
    let requester = terms.requester.as_deref().map(|name| format!("{}, ", plain(name))).unwrap_or_default();
    format!(
        "{}: {so_far}, since {:.0}{expires}; {requester}account {} → {}",
        approval.id,
        approval.since,
        connection.requester.account,
        plain(&connection.accepter.vpc)
    )
}

fn list(approvals: &[Approval], more: bool, now: Timestamp) -> Message {
    let mut sentences: Vec<_> = approvals.iter().map(|approval| line(approval, now)).collect();
    sentences.extend(more.then(|| "There are more.".to_owned()));
    Message {
        sentences,
        ..say(match approvals.len() {
            0 => "Nothing waits for a decision, and nothing is on its way".to_owned(),
            1 => "1 connection waits or is on its way".to_owned(),
            several => format!("{several} connections wait or are on their way"),
        })
    }
}

fn warnings(findings: &[Finding]) -> Vec<String> {
    let warns = |finding: &&Finding| matches!(finding.found, Found::Unknown(_) | Found::Warning(_));
    findings.iter().filter(warns).map(|finding| format!("{}.", check(finding).trim_start_matches("⚠ "))).collect()
}

/// A record with everything that happened, for auditors.
#[must_use]
pub fn record(approval: &Approval, now: Timestamp) -> Message {
    let entry = |entry: &Entry| {
        let seen = entry.what.fingerprint().map(|fingerprint| format!("; of {:.12}…", fingerprint.to_string()));
        let seen = seen.unwrap_or_default();
        format!("{:.3} {:<10} {}{seen}", entry.at, entry.state.name(), event(&entry.what))
    };
    Message { sentences: approval.history.iter().map(entry).collect(), ..super::card(approval, now) }
}

fn refused(refusal: &Refusal) -> Message {
    match refusal {
        Refusal::NoRule(facts) => {
            let facts: Vec<_> = facts.iter().map(ToString::to_string).collect();
            let why = if facts.is_empty() {
                "Each of its facts is allowed by some rule, but no rule allows all of them.".to_owned()
            } else {
                format!("No rule allows its {}.", facts.join(", "))
            };
            Message { sentences: vec![why], ..say("No rule covers this connection, so nobody may decide about it") }
        }
        Refusal::NotAnApprover { rule } => {
            say(format!("You are not an approver of the rule “{}” that covers this connection", plain(rule)))
        }
        Refusal::Contact { account } => Message {
            sentences: vec!["Somebody else has to.".into()],
            ..say(format!(
                "You are a contact of account {account}, which asks for this connection: you can't approve it"
            ))
        },
    }
}

fn objected(objection: &Objection) -> Message {
    let sentence = stands_against(objection);
    let facts = match objection {
        Objection::Overlap(pairs) => pairs
            .iter()
            .take(MOST_CIDRS)
            .map(|(theirs, ours)| ("Overlap", format!("requester {theirs} and accepting {ours}")))
            .collect(),
        Objection::DryRun(problem) => problem_facts(problem),
        Objection::NotOurs
        | Objection::Status(_)
        | Objection::Expired
        | Objection::BusinessStatus(_)
        | Objection::ManagedService(_) => vec![],
    };
    let found = Finding { check: crate::preflight::Check::Cidrs, found: Found::Objection(objection.clone()) };
    Message {
        facts,
        figure: figure(std::slice::from_ref(&found)),
        sentences: match objection {
            Objection::BusinessStatus(_) => vec!["Settle the overdue payment first.".into()],
            Objection::Expired => vec!["The requester has to ask again.".into()],
            Objection::NotOurs
            | Objection::Status(_)
            | Objection::ManagedService(_)
            | Objection::Overlap(_)
            | Objection::DryRun(_) => vec![],
        },
        ..say(format!("This connection can't be decided about: {sentence}"))
    }
}

fn state_facts(approval: &Approval, now: Timestamp) -> Vec<(&'static str, String)> {
    let state = format!("{} since {:.0}", approval.state.name(), approval.since);
    let problem = approval.last_problem.as_ref().map(problem_facts).unwrap_or_default();
    [vec![("State", state)], people(approval, now), problem].concat()
}

//! Every sentence that a person reads in chat, free of any platform's markup.
//!
//! The name of a connection and a reason are written by outsiders: they pass through [`plain`], and platforms show them
//! literally.

use super::{Answer, Part, Verb};
use crate::approval::{Approval, ApprovalId, Approver, Decision, News, Notice, Problem, State, Verdict, code};
use crate::peering::{Connection, Fingerprint, InstanceId, Side, Status};
use crate::policy::{Objection, Refusal};

/// The longest text of an outsider that we show, in characters.
const LONGEST_PLAIN_CHARS: usize = 200;
/// The most ranges of one side that we show.
const MOST_CIDRS: usize = 10;

/// What to say: the platform decides how it looks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// One sentence, made of our own words and ids alone.
    pub headline: String,
    /// Label and value; values may come from outsiders.
    pub facts: Vec<(&'static str, String)>,
    /// What to do, and what to know.
    pub sentences: Vec<String>,
    /// Approve and Reject.
    pub buttons: Option<Buttons>,
}

/// What the buttons are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buttons {
    /// The accepting account's name.
    pub target: String,
    /// The connection.
    pub instance_id: InstanceId,
    /// Of what is shown beside them.
    pub fingerprint: Fingerprint,
}

fn say(headline: impl Into<String>) -> Message {
    Message { headline: headline.into(), ..Message::default() }
}

/// The word for the news, as in `peering.activated`.
#[must_use]
pub fn news_name(news: &News) -> &'static str {
    match news {
        News::Accepted(_) => "accepted",
        News::Activated { .. } => "activated",
        News::Rejected(_) => "rejected",
        News::Expired => "expired",
        News::Deleted => "deleted",
        News::Failed { .. } => "failed",
    }
}

/// What a channel is told.
#[must_use]
pub fn notice(approval: &Approval, notice: &Notice) -> Message {
    let id = &approval.id;
    match &notice.news {
        News::Accepted(by) => Message {
            headline: format!("VPC peering {id} was accepted and is being activated"),
            facts: [decided("Approved by", by.as_ref()), facts(&approval.connection)].concat(),
            ..Message::default()
        },
        News::Activated { took_s } => Message {
            headline: format!("VPC peering {id} is Activated, {} after its approval", duration(*took_s)),
            facts: facts(&approval.connection),
            sentences: routes(&approval.connection),
            buttons: None,
        },
        News::Rejected(by) => Message {
            headline: format!("VPC peering {id} was rejected"),
            facts: [decided("Rejected by", by.as_ref()), facts(&approval.connection)].concat(),
            sentences: vec!["This is final: the requester has to ask anew.".into()],
            buttons: None,
        },
        News::Expired => Message {
            headline: format!("VPC peering {id} has expired: nobody accepted it within 7 days"),
            facts: facts(&approval.connection),
            sentences: vec!["The requester has to ask anew.".into()],
            buttons: None,
        },
        News::Deleted => Message {
            headline: format!("VPC peering {id} was deleted"),
            facts: facts(&approval.connection),
            sentences: vec!["Nothing is left to accept. The requester has to ask anew if it is still wanted.".into()],
            buttons: None,
        },
        News::Failed { verdict, problem } => Message {
            headline: match verdict {
                Verdict::Approve => format!("VPC peering {id} could not be accepted"),
                Verdict::Reject => format!("VPC peering {id} could not be rejected"),
            },
            facts: [problem_facts(problem), facts(&approval.connection)].concat(),
            sentences: vec![advice(&problem.code).into()],
            buttons: None,
        },
    }
}

/// What somebody who asked is told. Also the `detail` of answers to machines.
#[must_use]
pub fn answer(answer: &Answer) -> Message {
    match answer {
        Answer::Done(approval) => say(match approval.state {
            State::Rejected => return rejected(approval),
            State::Activated => format!("You approved {}, and it is Activated", approval.id),
            State::Failed { .. } => return failed(approval),
            State::Expired | State::Deleted => return over(approval),
            State::Pending | State::Approved | State::Activating | State::Rejecting => {
                format!(
                    "You approved {}: it is being activated, and the channel will hear when it is usable",
                    approval.id
                )
            }
        }),
        Answer::Underway(approval) => underway(approval),
        Answer::Repeated(approval) => Message {
            facts: state_facts(approval),
            ..say(format!("You decided about {} before; nothing changed", approval.id))
        },
        Answer::Over(approval) => over(approval),
        Answer::DryRunPassed(connection) => Message {
            facts: facts(connection),
            sentences: unknown_cidrs(connection),
            ..say(format!("A dry run passed: {} could be accepted now. Nothing was changed", connection.instance_id))
        },
        Answer::Status { connection, approval, target } => status(connection, approval.as_deref(), target),
        Answer::Refused(refusal) => refused(refusal),
        Answer::Objection(objection) => objected(objection),
        Answer::Changed => Message {
            sentences: vec!["Look at it again, then decide.".into()],
            ..say("The connection is not the one that you saw: its VPCs, ranges or bandwidth have changed")
        },
        Answer::UnknownTarget(names) => say(format!("Name one of these targets: {}", names.join(", "))),
        Answer::UnknownConnection => say("There is no such connection in this account"),
        Answer::VendorRefused(problem) => Message {
            facts: problem_facts(problem),
            sentences: vec![advice(&problem.code).into()],
            ..say("Alibaba Cloud will not accept this connection")
        },
        Answer::CredentialsRefused(problem) => Message {
            facts: problem_facts(problem),
            sentences: vec![advice(&problem.code).into()],
            ..say("Alibaba Cloud refuses peergate's own credentials; its operators have to mend that")
        },
        Answer::Unavailable(part) => Message {
            sentences: vec!["Please try again in a minute.".into()],
            ..say(match part {
                Part::Store => "peergate cannot reach its store, so nothing is known to be decided",
                Part::Secrets => "peergate cannot read its secrets, so nothing was decided",
                Part::Alicloud => "Alibaba Cloud does not answer, so nothing was decided",
            })
        },
    }
}

/// How to use the slash command.
#[must_use]
pub fn usage() -> Message {
    Message {
        sentences: vec![
            "/peergate approve pcc-… [on TARGET] [because REASON]".into(),
            "/peergate reject pcc-… [on TARGET] [because REASON]".into(),
            "/peergate dry-run pcc-… [on TARGET]".into(),
            "/peergate status pcc-… [on TARGET]".into(),
        ],
        ..say("peergate understands these commands")
    }
}

/// The word for what was wanted, for logs.
#[must_use]
pub fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Decide(Verdict::Approve) => "approve",
        Verb::Decide(Verdict::Reject) => "reject",
        Verb::DryRun => "dry_run",
        Verb::Status => "status",
    }
}

fn rejected(approval: &Approval) -> Message {
    match approval.winner() {
        Some(Decision { verdict: Verdict::Reject, .. }) => say(format!("You rejected {}", approval.id)),
        Some(_) | None => over(approval),
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

fn failed(approval: &Approval) -> Message {
    let advice = approval.last_problem.as_ref().map(|problem| advice(&problem.code).into());
    Message {
        facts: state_facts(approval),
        sentences: advice.into_iter().collect(),
        ..say(format!("{} could not be carried out", approval.id))
    }
}

fn over(approval: &Approval) -> Message {
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
            format!("{id} was already {word} by {} at {:.0}", who(&winner.by), winner.at)
        }
        (_, None) => format!("{id} is already {}", approval.state.name()),
    };
    Message { facts: state_facts(approval), ..say(headline) }
}

fn status(connection: &Connection, approval: Option<&Approval>, target: &str) -> Message {
    let id = ApprovalId { target: target.to_owned(), instance_id: connection.instance_id.clone() };
    let waiting = connection.status == Status::Accepting && approval.is_none_or(|approval| approval.state.is_final());
    let fingerprint = connection.fingerprint();
    Message {
        headline: format!("VPC peering {id} is {}", plain(&connection.status.to_string())),
        facts: [facts(connection), approval.map(state_facts).unwrap_or_default()].concat(),
        sentences: unknown_cidrs(connection),
        buttons: waiting.then_some(Buttons { target: id.target, instance_id: id.instance_id, fingerprint }),
    }
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
    }
}

fn objected(objection: &Objection) -> Message {
    match objection {
        Objection::NotOurs => say("The accepting account of this connection is not the target's"),
        Objection::Status(status) => {
            say(format!("This connection is {}: it does not wait for a decision", plain(&status.to_string())))
        }
        Objection::Expired => say("This request has expired; the requester has to ask anew"),
        Objection::BusinessStatus(status) => Message {
            sentences: vec!["Settle the overdue payment first.".into()],
            ..say(format!("This connection's business status is {}", plain(&status.to_string())))
        },
        Objection::ManagedService(service) => {
            say(format!("This connection belongs to the managed service {}, not to us", plain(service)))
        }
        Objection::Overlap(pairs) => Message {
            facts: pairs
                .iter()
                .take(MOST_CIDRS)
                .map(|(theirs, ours)| ("Overlap", format!("requester {theirs} and accepting {ours}")))
                .collect(),
            ..say("Both sides use the same addresses, so routes between them cannot work")
        },
    }
}

fn facts(connection: &Connection) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Requester", side(&connection.requester)), ("Accepting", side(&connection.accepter))];
    let bandwidth = connection.bandwidth_mbps.map_or_else(|| "not limited".into(), |mbps| format!("{mbps} Mbit/s"));
    facts.push(("Bandwidth", bandwidth));
    facts.extend((!connection.link_type.is_empty()).then(|| ("Link", plain(&connection.link_type))));
    facts.extend((!connection.name.is_empty()).then(|| ("Name", plain(&connection.name))));
    facts
}

fn side(side: &Side) -> String {
    let mut cidrs: Vec<_> = side.cidrs.iter().take(MOST_CIDRS).map(ToString::to_string).collect();
    if let Some(more) = side.cidrs.len().checked_sub(MOST_CIDRS).filter(|more| *more > 0) {
        cidrs.push(format!("and {more} more"));
    }
    let cidrs = if cidrs.is_empty() { "ranges unknown".to_owned() } else { cidrs.join(", ") };
    format!("account {}, {} in {}, {cidrs}", side.account, plain(&side.vpc), plain(&side.region))
}

fn unknown_cidrs(connection: &Connection) -> Vec<String> {
    let warning = "The ranges of a side are unknown: whether they overlap could not be checked.".to_owned();
    (!connection.cidrs_are_known()).then_some(warning).into_iter().collect()
}

fn decided(label: &'static str, decision: Option<&Decision>) -> Vec<(&'static str, String)> {
    let Some(decision) = decision else {
        return vec![(label, "somebody outside peergate".into())];
    };
    let reason = decision.reason.as_deref().map(|reason| ("Reason", plain(reason)));
    [Some((label, who(&decision.by))), reason].into_iter().flatten().collect()
}

fn state_facts(approval: &Approval) -> Vec<(&'static str, String)> {
    let state = format!("{} since {:.0}", approval.state.name(), approval.since);
    let decision = match approval.winner() {
        Some(winner) if winner.verdict == Verdict::Approve => decided("Approved by", Some(winner)),
        Some(winner) => decided("Rejected by", Some(winner)),
        None => vec![],
    };
    let problem = approval.last_problem.as_ref().map(problem_facts).unwrap_or_default();
    [vec![("State", state)], decision, problem].concat()
}

fn problem_facts(problem: &Problem) -> Vec<(&'static str, String)> {
    let request_id = problem.request_id.as_ref().map(|id| ("Request id", plain(id)));
    [Some(("Code", plain(&problem.code))), request_id].into_iter().flatten().collect()
}

fn who(approver: &Approver) -> String {
    match &approver.person {
        Some(person) => format!("{person} ({})", approver.principal),
        None => approver.principal.to_string(),
    }
}

/// The next step after an activation: without routes nothing flows.
///
/// Source: <https://www.alibabacloud.com/help/en/vpc/user-guide/vpc-peering-connection>
fn routes(connection: &Connection) -> Vec<String> {
    let add = |here: &Side, there: &Side| {
        let ranges: Vec<_> = there.cidrs.iter().take(MOST_CIDRS).map(ToString::to_string).collect();
        let ranges = if ranges.is_empty() { "the other side's ranges".to_owned() } else { ranges.join(", ") };
        format!("in the route tables of {}: {ranges} → {}", plain(&here.vpc), connection.instance_id)
    };
    vec![
        format!("Next: add routes on both sides. Ours, {}.", add(&connection.accepter, &connection.requester)),
        format!("The requester's, {}.", add(&connection.requester, &connection.accepter)),
        "Then check security groups, network ACLs and database whitelists.".into(),
    ]
}

/// What to do about a code.
///
/// Source: <https://api.alibabacloud.com/document/VpcPeer/2022-01-01/errorCode>
fn advice(code: &str) -> &'static str {
    match code {
        code::CONNECTION_CHANGED => {
            "The connection changed after it was approved. Look at it again, and approve it anew if it is right."
        }
        code::ACCEPTED_ELSEWHERE => {
            "Somebody accepted it outside peergate before the rejection. Delete the connection if it must not be."
        }
        "OperationFailed.CdtNotOpened" => {
            "Open Cloud Data Transfer (CDT) for the accepting account, then approve again."
        }
        "OperationFailed.CrossBorderCdtNotOpened" => {
            "Open cross-border Cloud Data Transfer for the accepting account, then approve again."
        }
        "ResourceNotFound.InstanceId" | "InvalidInstanceId.NotFound" => {
            "The connection no longer exists. The requester has to ask anew."
        }
        "SignatureDoesNotMatch" | "IncompleteSignature" => {
            "Check the AccessKey secret of the target in the secrets store."
        }
        "InvalidTimeStamp.Expired" | "IllegalTimestamp" => "Check the clock of the machine that peergate runs on.",
        _ if code.starts_with("InvalidAccessKeyId") || code == "Forbidden.AccessKeyDisabled" => {
            "Check the AccessKey of the target in the secrets store: it is unknown or disabled."
        }
        _ if code.starts_with("InvalidSecurityToken") => "Renew the target's security token in the secrets store.",
        _ if code.starts_with("Forbidden") || code == "NoPermission" => {
            "Grant the target's RAM user vpc:AcceptVpcPeerConnection, vpc:RejectVpcPeerConnection and vpc:GetVpcPeerConnectionAttribute."
        }
        _ if code.starts_with("IncorrectBusinessStatus") => "Settle the overdue payment, then approve again.",
        _ if code.starts_with("QuotaExceeded") => "Raise the quota in Quota Center, then approve again.",
        _ if code.starts_with("Throttling") || code.starts_with("Transport") => "It is tried again by itself.",
        _ => "Look the code up in Alibaba Cloud's error center, then decide again.",
    }
}

fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// What outsiders wrote, in one line: no control, bidirectional or invisible characters, not too long, and never nothing.
#[must_use]
pub fn plain(text: &str) -> String {
    let invisible = |c: char| {
        matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{00AD}' | '\u{061C}' | '\u{180E}')
            || matches!(c, '\u{E0000}'..='\u{E007F}')
    };
    let visible: String =
        text.chars().filter(|c| !invisible(*c)).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut short: String = line.chars().take(LONGEST_PLAIN_CHARS).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    // Slack refuses a whole message for one empty text.
    if short.is_empty() { "–".to_owned() } else { short }
}

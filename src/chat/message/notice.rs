//! What happened, for the channels.

use jiff::Timestamp;

use super::card::{card, describe, stands_against};
use super::{Message, advice, all_of, decided, duration, facts, plain, problem_facts, routes, say, wait, who};
use crate::approval::{Approval, Approver, News, Notice, SentBack, State, Verdict};
use crate::peering::Problem;

/// The word for the news, as in `peering.activated`.
#[must_use]
pub fn news_name(news: &News) -> &'static str {
    match news {
        News::Discovered => "discovered",
        News::Changed { .. } => "changed",
        News::RuleChanged { .. } => "rule_changed",
        News::Checked => "checked",
        News::Decided { .. } => "decided",
        News::Withdrawn { .. } => "withdrawn",
        News::Reminder { .. } => "reminder",
        News::Escalated { .. } => "escalated",
        News::ExpiresSoon { .. } => "expires_soon",
        News::Accepted(_) => "accepted",
        News::Stuck { .. } => "stuck",
        News::Differs { .. } => "differs",
        News::Activated { .. } => "activated",
        News::Rejected(_) => "rejected",
        News::Expired => "expired",
        News::Deleted => "deleted",
        News::Failed { .. } => "failed",
        News::SentBack { .. } => "sent_back",
        News::Corrected { .. } => "corrected",
    }
}

/// What happened, in short: said below the card.
#[must_use]
pub fn notice(approval: &Approval, notice: &Notice) -> Message {
    let id = &approval.id;
    match &notice.news {
        News::Discovered => say(format!("VPC peering {id} is requested")),
        News::Checked => say(format!("VPC peering {id} was checked again")),
        News::Changed { changes, void } => Message {
            facts: changes.iter().map(|change| ("Changed", describe(change))).collect(),
            sentences: voided(void),
            ..say(format!("VPC peering {id} is not what it was: look at it again before you decide"))
        },
        News::RuleChanged { void } => Message {
            facts: super::card::people(approval, notice.at),
            sentences: voided(void),
            ..say(match &approval.terms.rule {
                Some(_) => format!("Other terms go for VPC peering {id}: the configuration has changed"),
                None => format!("No rule covers VPC peering {id} any more: the configuration has changed"),
            })
        },
        News::Decided { decision, given, needed } => {
            let by = who(&decision.by);
            Message {
                facts: decided("By", Some(decision)).into_iter().skip(1).collect(),
                ..say(match decision.verdict {
                    Verdict::Approve if *needed > 1 => format!("{by} approved VPC peering {id}: {given} of {needed}"),
                    Verdict::Approve => format!("{by} approved VPC peering {id}"),
                    Verdict::Reject => format!("{by} rejected VPC peering {id}"),
                })
            }
        }
        News::Withdrawn { by, given, needed } => {
            say(format!("{} withdrew their approval of VPC peering {id}: {given} of {needed}", who(by)))
        }
        News::Reminder { waiting_s } => Message {
            facts: super::card::people(approval, notice.at),
            ..say(format!("VPC peering {id} has waited for a decision for {}", wait(*waiting_s)))
        },
        News::Escalated { waiting_s } => Message {
            facts: super::card::people(approval, notice.at),
            ..say(format!("VPC peering {id} has waited for {}, and it is not decided", wait(*waiting_s)))
        },
        News::ExpiresSoon { expires_at } => Message {
            facts: super::card::people(approval, notice.at),
            sentences: vec!["After that the requester has to ask again.".into()],
            ..say(format!("VPC peering {id} expires at {expires_at:.0} if nobody decides"))
        },
        News::Accepted(by) => Message {
            facts: decided("Approved by", by.as_ref()),
            ..say(format!("VPC peering {id} was accepted and is being activated"))
        },
        News::Stuck { for_s, problem } => stuck(approval, *for_s, problem.as_ref()),
        News::Differs { changes } => Message {
            facts: changes.iter().map(|change| ("Changed", describe(change))).collect(),
            ..say(format!("VPC peering {id} was activated with other facts than those that were decided on"))
        },
        News::Activated { took_s } => Message {
            sentences: routes(&approval.connection),
            ..say(if approval.is_accepted_by_us() {
                format!("VPC peering {id} is Activated, {} after its approval", duration(*took_s))
            } else {
                format!("VPC peering {id} is Activated")
            })
        },
        News::Rejected(by) => Message {
            facts: decided("Rejected by", by.as_ref()),
            sentences: vec!["This is final: the requester has to ask again.".into()],
            ..say(format!("VPC peering {id} was rejected"))
        },
        News::Expired => Message {
            sentences: vec!["The requester has to ask again.".into()],
            ..say(match approval.winner() {
                Some(_) => format!("VPC peering {id} has expired before what was decided could be carried out"),
                None => format!("VPC peering {id} has expired: nobody accepted it within 7 days"),
            })
        },
        News::Deleted => Message {
            sentences: vec!["Nothing is left to accept. The requester has to ask again if it is still wanted.".into()],
            ..say(format!("VPC peering {id} was deleted"))
        },
        News::Failed { verdict, problem } => Message {
            facts: problem_facts(problem),
            sentences: vec![advice(&problem.code).into()],
            ..say(match verdict {
                Verdict::Approve => format!("VPC peering {id} could not be accepted"),
                Verdict::Reject => format!("VPC peering {id} could not be rejected"),
            })
        },
        News::SentBack { why, void } => Message {
            facts: super::card::people(approval, notice.at),
            sentences: [vec![sent_back(approval, why)], voided(void)].concat(),
            ..say(format!("VPC peering {id} was not accepted and needs a new decision"))
        },
        News::Corrected { was, now } => corrected(approval, was, now),
    }
}

fn sent_back(approval: &Approval, why: &SentBack) -> String {
    match why {
        SentBack::Objection(objection) => format!("A check now fails: {}.", stands_against(objection)),
        SentBack::NotChecked => "Not every check passes any more: look at the card.".to_owned(),
        SentBack::Rule => match &approval.terms.rule {
            Some(rule) => format!(
                "The rule “{}” now needs {} of its approvers, and the earlier approvals are not enough.",
                plain(rule),
                approval.terms.needed()
            ),
            None => "No rule covers it now.".to_owned(),
        },
    }
}

/// Channels heard something wrong.
fn corrected(approval: &Approval, was: &State, now: &State) -> Message {
    let id = &approval.id;
    let heard = match was {
        State::Activating => "accepted and being activated",
        State::Rejected => "rejected",
        State::Expired => "expired",
        State::Deleted => "deleted",
        State::Failed { .. } => "failed",
        State::Pending | State::Approved | State::Activated | State::Rejecting => was.name(),
    };
    let headline = match now {
        State::Activated => format!("Correction: VPC peering {id} was reported as {heard}, but it is Activated"),
        State::Approved => format!("Correction: VPC peering {id} still waits, so peergate accepts it again"),
        State::Rejecting => format!("Correction: VPC peering {id} still waits, so peergate rejects it again"),
        State::Pending
        | State::Activating
        | State::Rejected
        | State::Expired
        | State::Deleted
        | State::Failed { .. } => {
            format!("Correction: VPC peering {id} was reported as {heard}, but it waits for a decision")
        }
    };
    let sentences = match now {
        State::Approved | State::Rejecting => {
            vec![format!("It was reported as {heard}; Alibaba Cloud shows it as waiting.")]
        }
        State::Pending
        | State::Activating
        | State::Activated
        | State::Rejected
        | State::Expired
        | State::Deleted
        | State::Failed { .. } => vec![],
    };
    Message { sentences, ..say(headline) }
}

/// What happened, where no card can be changed: with all that is needed to understand it; and the card again, where it
/// is the news.
#[must_use]
pub fn follow_up(approval: &Approval, notice: &Notice, now: Timestamp) -> Message {
    match &notice.news {
        News::Discovered | News::RuleChanged { .. } | News::Changed { .. } | News::Checked => card(approval, now),
        News::Decided { .. }
        | News::Withdrawn { .. }
        | News::Reminder { .. }
        | News::Escalated { .. }
        | News::ExpiresSoon { .. }
        | News::Accepted(_)
        | News::Stuck { .. }
        | News::Differs { .. }
        | News::Activated { .. }
        | News::Rejected(_)
        | News::Expired
        | News::Deleted
        | News::SentBack { .. }
        | News::Corrected { .. }
        | News::Failed { .. } => {
            let mut message = self::notice(approval, notice);
            message.facts.extend(facts(&approval.connection, approval.terms.requester.as_deref()));
            message
        }
    }
}

fn stuck(approval: &Approval, for_s: i64, problem: Option<&Problem>) -> Message {
    let (id, for_so_long) = (&approval.id, duration(for_s));
    match problem {
        Some(problem) => Message {
            facts: problem_facts(problem),
            sentences: vec![advice(&problem.code).into(), "It is tried again by itself.".into()],
            ..say(format!("VPC peering {id} was decided {for_so_long} ago, and could not be carried out yet"))
        },
        None => Message {
            sentences: vec!["It is followed on. If it stays, ask Alibaba Cloud's support about it.".into()],
            ..say(format!("VPC peering {id} has been in activation for {for_so_long}, which is too long"))
        },
    }
}

fn voided(void: &[Approver]) -> Vec<String> {
    if void.is_empty() {
        return vec![];
    }
    vec![format!("No longer counted: the approval of {}.", all_of(void))]
}

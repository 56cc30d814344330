//! Commands in words, the same on each platform.

#[cfg(feature = "local")]
use super::Wish;
use super::{About, Command, Verb, reason};
use crate::approval::Verdict;
use crate::peering::InstanceId;

/// `list [on TARGET]`, or `approve|reject|withdraw|status|dry-run pcc-… [on TARGET] [because REASON]`.
pub(super) fn read_command(text: &str) -> Option<Command> {
    let (words, reason) = match text.split_once(" because ") {
        Some((words, why)) => (words, reason(why)),
        None => (text, None),
    };
    let words: Vec<&str> = words.split_whitespace().collect();
    let (verb, instance_id, target) = match words.as_slice() {
        ["list"] => return Some(Command::List { target: None }),
        ["list", "on", target] => return Some(Command::List { target: Some((*target).to_owned()) }),
        [verb, id] => (verb, id, None),
        [verb, id, "on", target] => (verb, id, Some((*target).to_owned())),
        _ => return None,
    };
    let verb = match *verb {
        "approve" => Verb::Decide(Verdict::Approve),
        "reject" => Verb::Decide(Verdict::Reject),
        "withdraw" => Verb::Withdraw,
        "dry-run" => Verb::DryRun,
        "status" => Verb::Status,
        _ => return None,
    };
    let instance_id = InstanceId::parse(instance_id).ok()?;
    Some(Command::About(About { verb, target, instance_id, seen: None, reason }))
}

/// The words of a command.
#[cfg(feature = "local")]
pub(super) fn command_text(wish: &Wish) -> String {
    let mut text = format!("{} {}", wish.verb, wish.instance_id).trim_end().to_owned();
    for (word, value) in [("on", &wish.target), ("because", &wish.reason)] {
        if let Some(value) = value {
            text = format!("{text} {word} {value}");
        }
    }
    text
}

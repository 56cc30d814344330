//! Commands as people write them, the same on every platform.

#[cfg(feature = "local")]
use super::EventSpec;
use super::request::{Action, Command, ConnectionCommand, normalize_reason};
use crate::approval::Verdict;
use crate::peering::InstanceId;

/// Parses `list [on TARGET]`, or `approve|reject|withdraw|status|dry-run pcc-… [on TARGET] [because REASON]`.
pub(super) fn parse_command(text: &str) -> Option<Command> {
    let (words, reason) = match text.split_once(" because ") {
        Some((words, why)) => (words, normalize_reason(why)),
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
    let action = match *verb {
        "approve" => Action::Decide(Verdict::Approve),
        "reject" => Action::Decide(Verdict::Reject),
        "withdraw" => Action::Withdraw,
        "dry-run" => Action::DryRun,
        "status" => Action::Status,
        _ => return None,
    };
    let instance_id = InstanceId::parse(instance_id).ok()?;
    Some(Command::Connection(ConnectionCommand { action, target, instance_id, seen_fingerprint: None, reason }))
}

/// Writes a command as a person would.
#[cfg(feature = "local")]
pub(super) fn command_text(spec: &EventSpec) -> String {
    let mut text = format!("{} {}", spec.action, spec.instance_id).trim_end().to_owned();
    for (word, value) in [("on", &spec.target), ("because", &spec.reason)] {
        if let Some(value) = value {
            text = format!("{text} {word} {value}");
        }
    }
    text
}

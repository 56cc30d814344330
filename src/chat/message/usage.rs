//! The list of commands, and answers to words that are not a command.

use super::{Message, cut_text, join_with, sanitize_line, sanitize_reason, with_headline};
use crate::chat::CommandScope;
use crate::chat::command_words::{CommandProblem, CommandReason, CommandVerb, SuggestedCommand, UnknownCommand};

/// The longest part of a misunderstood command that is repeated, in characters.
const MAX_QUOTED_CHARS: usize = 60;
/// The most commands that are suggested.
const MAX_SUGGESTED_LINES: usize = 3;
/// The command in front of the words. On platforms without it, peergate ignores it.
const COMMAND: &str = "/peergate";

/// The answer to words that are not a command. `targets` are the names of all accepting accounts, and `scope` says which
/// commands there are.
#[must_use]
pub fn describe_unknown_command(error: &UnknownCommand, scope: CommandScope, targets: &[&str]) -> Message {
    let UnknownCommand::NotUnderstood { problem, suggestions } = error else { return command_usage(scope) };
    let is_known = |suggestion: &&SuggestedCommand| is_in_scope(suggestion.verb, scope);
    let lines = suggestions.iter().filter(is_known).flat_map(|suggestion| suggested_lines(suggestion, targets));
    let lines: Vec<_> = lines.take(MAX_SUGGESTED_LINES).collect();
    let instead = match lines.len() {
        0 => format!("Nothing was decided. {COMMAND} help lists all commands."),
        1 => format!("Nothing was decided. {COMMAND} help lists all commands. You can send this instead:"),
        _ => format!("Nothing was decided. {COMMAND} help lists all commands. You can send one of these instead:"),
    };
    Message {
        sentences: vec![describe_command_problem(problem), instead],
        snippet: (!lines.is_empty()).then(|| lines.join("\n")),
        ..with_headline("peergate does not understand this command")
    }
}

fn is_in_scope(verb: CommandVerb, scope: CommandScope) -> bool {
    scope == CommandScope::Everything || !verb.changes_something()
}

/// The list of commands.
fn command_usage(scope: CommandScope) -> Message {
    let line = |verb: CommandVerb| format!("{COMMAND} {} {}: {}", verb.word(), verb.arguments(), verb.explanation());
    let notes = [
        "TARGET is the name of an accepting account. You can omit it if there is only one, and you can write TARGET/pcc-….",
        match scope {
            CommandScope::Everything => "A reason has at most 400 characters.",
            CommandScope::Questions => "To decide, use the buttons of the card.",
        },
    ];
    let verbs = CommandVerb::ALL.into_iter().filter(|verb| is_in_scope(*verb, scope));
    Message {
        sentences: verbs.map(line).chain(notes.map(Into::into)).collect(),
        ..with_headline("peergate understands these commands")
    }
}

/// A command to copy. If several targets are possible, there is one for each.
fn suggested_lines(suggestion: &SuggestedCommand, targets: &[&str]) -> Vec<String> {
    let SuggestedCommand { verb, target, instance_id, reason } = suggestion;
    let word = verb.word();
    let Some(id) = instance_id else {
        let on = target.as_ref().map(|target| format!(" on {target}")).unwrap_or_default();
        return vec![format!("{COMMAND} {word}{on}")];
    };
    let because = match reason {
        CommandReason::Absent => String::new(),
        // A reason is only suggested as it was written.
        CommandReason::Given(given) if sanitize_reason(given) == *given => format!(" because {given}"),
        CommandReason::Given(_) | CommandReason::Blank => " because …".to_owned(),
    };
    let line = |target: &str| format!("{COMMAND} {word} {target}/{id}{because}");
    match target {
        Some(target) => vec![line(target)],
        None => targets.iter().map(|target| line(target)).collect(),
    }
}

/// The command that decides with a reason, to copy.
pub(super) fn command_with_reason(verb: CommandVerb, id: &impl std::fmt::Display) -> String {
    format!("{COMMAND} {} {id} because …", verb.word())
}

fn describe_command_problem(problem: &CommandProblem) -> String {
    let quote = |words: &str| format!("“{}”", cut_text(&sanitize_line(words), MAX_QUOTED_CHARS));
    match problem {
        CommandProblem::NotAVerb(word) => {
            let verbs = CommandVerb::ALL.map(|verb| verb.word().to_owned());
            format!("{} is not a command: the first word must be {}.", quote(word), join_with(&verbs, "or"))
        }
        CommandProblem::SeveralVerbs => "It names more than one action.".to_owned(),
        CommandProblem::NoId(Some(word)) => format!("{} is not the id of a request: ids begin with pcc-.", quote(word)),
        CommandProblem::NoId(None) => "It names no request: the id is missing. Ids begin with pcc-.".to_owned(),
        CommandProblem::SeveralIds => "It names more than one request.".to_owned(),
        CommandProblem::SeveralTargets => "It names more than one target.".to_owned(),
        CommandProblem::NoTarget(Some(word)) => format!("{} is not the name of a target.", quote(word)),
        CommandProblem::NoTarget(None) => "The name of a target is missing after “on”.".to_owned(),
        CommandProblem::ExtraWords(words) => {
            format!("{} is not part of this command. A reason follows the word “because”.", quote(words))
        }
        CommandProblem::NoReason => "No reason follows the word “because”.".to_owned(),
        CommandProblem::TooLong => "The message is too long for a command.".to_owned(),
        CommandProblem::NotText => "peergate reads only plain text.".to_owned(),
    }
}

//! Commands as people write and paste them, the same on every platform.
//!
//! A command that changes something is taken only if each of its words is understood. Everything else decides nothing, and
//! its sender learns what was not understood.

#[cfg(feature = "local")]
use super::EventSpec;
use super::command_words::{CommandProblem, CommandReason, CommandVerb, SuggestedCommand, UnknownCommand};
use super::message::is_invisible;
use super::request::{Action, Command, ConnectionCommand, normalize_reason};
use crate::approval::Verdict;
use crate::peering::InstanceId;

/// The word before the name of a target.
const ON: &str = "on";
/// The word before a reason.
const BECAUSE: &str = "because";
/// The word that asks for the list of commands.
const HELP: &str = "help";
/// What surrounds words: markup, quotes, brackets and punctuation, also those of other scripts.
const SURROUNDINGS: &str = "`´*_\"'<>()[]{}.,;:!•·‘’‚“”„«»‹›…，。；：！、「」『』《》（）【】";
/// Marks before a word that quote or negate it. A command must not begin with one.
const QUOTING_MARKS: [char; 3] = ['!', '！', '>'];
/// The most commands that are suggested.
const MAX_SUGGESTIONS: usize = 3;
/// The longest name of a target, in bytes.
const MAX_TARGET_BYTES: usize = 40;

/// Parses `list|inventory [on TARGET]`, or `approve|reject|withdraw|acknowledge|status|dry-run [TARGET/]pcc-… [on TARGET] [because REASON]`.
///
/// # Errors
/// What is not understood, and what may have been meant.
pub(super) fn parse_command(text: &str) -> Result<Command, UnknownCommand> {
    let (words, reason) = split_reason(text);
    parse_words(&words, reason)
}

/// The words of a command, and the text after the word `because`.
pub(super) fn split_reason(text: &str) -> (Vec<&str>, Option<&str>) {
    let is_space = |c: char| c.is_whitespace() || c == '\u{200B}';
    let (mut words, mut rest) = (vec![], text.trim_start_matches(is_space));
    while !rest.is_empty() {
        let (word, after) = rest.split_once(is_space).unwrap_or((rest, ""));
        if plain_word(word) == BECAUSE {
            return (words, Some(after));
        }
        words.push(word);
        rest = after.trim_start_matches(is_space);
    }
    (words, None)
}

/// As [`parse_command`].
pub(super) fn parse_words(words: &[&str], reason: Option<&str>) -> Result<Command, UnknownCommand> {
    let Some((first, rest)) = split_verb(words) else {
        return Err(UnknownCommand::Help);
    };
    let phrase = Phrase::read(first, rest, reason);
    match phrase.to_command() {
        Ok(command) => Ok(command),
        Err(problem) => Err(UnknownCommand::NotUnderstood { suggestions: phrase.suggestions(&problem), problem }),
    }
}

/// The first word that is part of a command, and the words after it. People also paste the name of the command, or mention
/// the bot. `None` if nothing is left, or only a request for help.
fn split_verb<'a, 'b>(words: &'b [&'a str]) -> Option<(&'a str, &'b [&'a str])> {
    let is_address = |word: &str| {
        let plain = plain_word(word);
        // Slack can write a mention as `<@ID|NAME>`.
        let is_mention_of_ours = plain.starts_with('@') && (plain == "@peergate" || plain.ends_with("|peergate"));
        plain.is_empty() || is_mention_of_ours || ["/peergate", "peergate"].contains(&plain.as_str())
    };
    let begin = words.iter().position(|word| !is_address(word))?;
    let (first, rest) = words.get(begin..)?.split_first()?;
    let is_help = rest.is_empty() && [HELP, "/help", "?"].contains(&plain_word(first).as_str());
    (!is_help).then_some((*first, rest))
}

/// An id, with the target if it is written as `TARGET/pcc-…`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WrittenId {
    target: Option<String>,
    instance_id: InstanceId,
}

impl WrittenId {
    fn parse(plain: &str) -> Option<Self> {
        let (target, id) = match plain.rsplit_once('/') {
            Some((target, id)) => (Some(target.to_owned()), id),
            None => (None, plain),
        };
        let is_valid = target.as_deref().is_none_or(is_target_name);
        Some(Self { target, instance_id: InstanceId::parse(id).ok()? }).filter(|_| is_valid)
    }
}

/// Whether a word can be the name of a target.
fn is_target_name(word: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_TARGET_BYTES).contains(&word.len()) && word.bytes().all(allowed)
}

/// The words of a command, each classified on its own.
struct Phrase<'a> {
    first: &'a str,
    /// Every verb among the words.
    verbs: Vec<CommandVerb>,
    ids: Vec<WrittenId>,
    /// The name after each `on`, or the word that is there instead.
    targets: Vec<Result<String, Option<&'a str>>>,
    extra: Vec<&'a str>,
    reason: CommandReason,
}

impl<'a> Phrase<'a> {
    fn read(first: &'a str, rest: &[&'a str], reason: Option<&str>) -> Self {
        let verbs: Vec<_> = CommandVerb::from_word(&plain_word(first)).into_iter().collect();
        let ids = written_ids(first);
        let reason = match reason.map(normalize_reason) {
            None => CommandReason::Absent,
            Some(None) => CommandReason::Blank,
            Some(Some(given)) => CommandReason::Given(given),
        };
        let mut phrase = Self { first, verbs, ids, targets: vec![], extra: vec![], reason };
        let mut rest = rest.iter().copied();
        while let Some(word) = rest.next() {
            let plain = plain_word(word);
            let ids = written_ids(word);
            if plain == ON {
                phrase.targets.push(named_target(rest.next()));
            } else if let Some(verb) = CommandVerb::from_word(&plain) {
                phrase.verbs.push(verb);
            } else if !ids.is_empty() {
                phrase.ids.extend(ids);
            } else if !plain.is_empty() {
                phrase.extra.push(word);
            }
        }
        phrase
    }

    /// Every target that the words name, each once.
    fn named_targets(&self) -> Vec<String> {
        let of_ids = self.ids.iter().filter_map(|id| id.target.clone());
        let mut named: Vec<_> = of_ids.chain(self.targets.iter().flatten().cloned()).collect();
        named.sort();
        named.dedup();
        named
    }

    fn to_command(&self) -> Result<Command, CommandProblem> {
        let Some(verb) = CommandVerb::from_word(&plain_word(self.first)) else {
            return Err(CommandProblem::NotAVerb(self.first.to_owned()));
        };
        if self.verbs.len() > 1 {
            return Err(CommandProblem::SeveralVerbs);
        }
        let action = match verb {
            CommandVerb::List => return Ok(Command::List { target: self.only_target()? }),
            CommandVerb::Inventory => return Ok(Command::Inventory { target: self.only_target()? }),
            CommandVerb::Status => Action::Status,
            CommandVerb::Approve => Action::Decide(Verdict::Approve),
            CommandVerb::Reject => Action::Decide(Verdict::Reject),
            CommandVerb::Withdraw => Action::Withdraw,
            CommandVerb::Acknowledge => Action::Acknowledge,
            CommandVerb::DryRun => Action::DryRun,
        };
        let instance_id = self.only_id(verb)?.instance_id.clone();
        let target = self.only_target()?;
        if verb.changes_something() {
            if !self.extra.is_empty() {
                return Err(CommandProblem::ExtraWords(self.extra.join(" ")));
            }
            if !verb.takes_reason() && self.reason != CommandReason::Absent {
                return Err(CommandProblem::ExtraWords(BECAUSE.to_owned()));
            }
            if self.reason == CommandReason::Blank {
                return Err(CommandProblem::NoReason);
            }
        }
        let reason = match &self.reason {
            CommandReason::Given(reason) if verb.changes_something() => Some(reason.clone()),
            CommandReason::Given(_) | CommandReason::Absent | CommandReason::Blank => None,
        };
        Ok(Command::Connection(ConnectionCommand { action, target, instance_id, seen_fingerprint: None, reason }))
    }

    fn only_target(&self) -> Result<Option<String>, CommandProblem> {
        if let Some(word) = self.targets.iter().find_map(|target| target.as_ref().err()) {
            return Err(CommandProblem::NoTarget(word.map(ToOwned::to_owned)));
        }
        let mut targets = self.named_targets().into_iter();
        let target = targets.next();
        if targets.next().is_some() { Err(CommandProblem::SeveralTargets) } else { Ok(target) }
    }

    fn only_id(&self, verb: CommandVerb) -> Result<&WrittenId, CommandProblem> {
        let Some((id, others)) = self.ids.split_first() else {
            return Err(CommandProblem::NoId(self.extra.first().map(|word| (*word).to_owned())));
        };
        let is_other = |other: &WrittenId| verb.changes_something() || other.instance_id != id.instance_id;
        if others.iter().any(is_other) { Err(CommandProblem::SeveralIds) } else { Ok(id) }
    }

    /// The commands that may have been meant: one for each reading of what is ambiguous.
    fn suggestions(&self, problem: &CommandProblem) -> Vec<SuggestedCommand> {
        let mut verbs = self.verbs.clone();
        if matches!(problem, CommandProblem::NotAVerb(_)) {
            let nearest = CommandVerb::nearest(&plain_word(self.first));
            verbs = nearest.into_iter().chain(verbs).take(1).collect();
        }
        if self.ids.is_empty() {
            verbs.retain(|verb| !verb.takes_id());
            if verbs.is_empty() {
                // The list shows the ids.
                verbs = vec![CommandVerb::List];
            }
        } else if verbs.is_empty() {
            verbs = vec![CommandVerb::Status];
        }
        let subjects = self.subjects(problem);
        let mut suggestions: Vec<_> = verbs
            .into_iter()
            .flat_map(|verb| subjects.iter().map(move |(target, id)| (verb, target.clone(), id.clone())))
            .map(|(verb, target, id)| SuggestedCommand {
                verb,
                target,
                instance_id: id.filter(|_| verb.takes_id()),
                reason: self.suggested_reason(verb, problem),
            })
            .collect();
        suggestions.dedup();
        suggestions.truncate(MAX_SUGGESTIONS);
        suggestions
    }

    /// Every target and id that the words can be about.
    fn subjects(&self, problem: &CommandProblem) -> Vec<(Option<String>, Option<InstanceId>)> {
        if matches!(problem, CommandProblem::SeveralIds) {
            let named = self.targets.iter().flatten().next();
            let subject = |id: &WrittenId| (id.target.as_ref().or(named).cloned(), Some(id.instance_id.clone()));
            return self.ids.iter().map(subject).collect();
        }
        let id = self.ids.first().map(|id| id.instance_id.clone());
        let targets = self.named_targets();
        if targets.is_empty() {
            return vec![(None, id)];
        }
        targets.into_iter().map(|target| (Some(target), id.clone())).collect()
    }

    fn suggested_reason(&self, verb: CommandVerb, problem: &CommandProblem) -> CommandReason {
        // The extra words may be a reason.
        let lacks_reason = matches!(problem, CommandProblem::ExtraWords(_)) && self.reason == CommandReason::Absent;
        match (verb.takes_reason(), lacks_reason) {
            (false, _) => CommandReason::Absent,
            (true, true) => CommandReason::Blank,
            (true, false) => self.reason.clone(),
        }
    }
}

/// The target that a word after `on` names.
fn named_target(word: Option<&str>) -> Result<String, Option<&str>> {
    let name = word.map(plain_word).filter(|name| is_target_name(name) && InstanceId::parse(name).is_err());
    name.ok_or(word)
}

/// The ids in a word. A link of Slack's, `<URL|TEXT>`, can show another id than it leads to.
fn written_ids(word: &str) -> Vec<WrittenId> {
    let mut ids: Vec<_> = word.split('|').filter_map(|part| WrittenId::parse(&plain_word(part))).collect();
    ids.dedup();
    ids
}

/// A word without what surrounds words in messages: in lower case, without markup, quotes, brackets, invisible characters
/// and a final punctuation mark. A question mark stays: a question is no decision.
fn plain_word(word: &str) -> String {
    let visible = word.chars().filter(|c| !is_invisible(*c) && !c.is_control());
    let word: String = visible.map(|c| if is_dash(c) { '-' } else { c.to_ascii_lowercase() }).collect();
    // No word of a command has these characters.
    let word = word.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    if word.starts_with(QUOTING_MARKS) {
        return word;
    }
    let word = word.trim_matches(|c| SURROUNDINGS.contains(c));
    let link = word.strip_prefix("https://").or_else(|| word.strip_prefix("http://"));
    let word = match link {
        // `<URL|TEXT>` shows the text.
        Some(link) => link.rsplit('|').next().unwrap_or(link),
        None => word,
    };
    let word = if word.starts_with('/') { word } else { word.trim_end_matches('/') };
    // A dash alone is punctuation.
    if word.bytes().all(|byte| byte == b'-') { String::new() } else { word.to_owned() }
}

/// The dashes that editors and keyboards make of a hyphen.
fn is_dash(c: char) -> bool {
    matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' | '\u{FF0D}')
}

/// Writes a command as a person would.
#[cfg(feature = "local")]
pub(super) fn command_text(spec: &EventSpec) -> String {
    let mut text = format!("{} {}", spec.action, spec.instance_id).trim_end().to_owned();
    for (word, value) in [(ON, &spec.target), (BECAUSE, &spec.reason)] {
        if let Some(value) = value {
            text = format!("{text} {word} {value}");
        }
    }
    text
}

//! The words of commands, and why words are not a command. Knows no platform and no sentence.

use crate::approval::Verdict;
use crate::document::edit_distance;
use crate::peering::InstanceId;

/// What a command does, by its first word. One table: the parser reads it, and the list of commands shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandVerb {
    /// Lists the open requests.
    List,
    /// Lists every peering of the configured accounts.
    Inventory,
    /// Shows one request.
    Status,
    /// Approves a request.
    Approve,
    /// Rejects a request.
    Reject,
    /// Withdraws an approval.
    Withdraw,
    /// Acknowledges a change of an activated connection.
    Acknowledge,
    /// Checks a request without deciding.
    DryRun,
}

/// A row of the table.
struct VerbEntry {
    word: &'static str,
    /// Words that people write instead. They are never taken for the command, only for a hint at it.
    similar: &'static [&'static str],
    arguments: &'static str,
    explanation: &'static str,
}

impl CommandVerb {
    /// Every verb, in the order of the list of commands.
    pub const ALL: [Self; 8] = [
        Self::List,
        Self::Inventory,
        Self::Status,
        Self::Approve,
        Self::Reject,
        Self::Withdraw,
        Self::Acknowledge,
        Self::DryRun,
    ];

    const fn entry(self) -> VerbEntry {
        match self {
            Self::List => VerbEntry {
                word: "list",
                similar: &["ls", "pending"],
                arguments: "[on TARGET]",
                explanation: "show the requests that are pending or in progress",
            },
            Self::Inventory => VerbEntry {
                word: "inventory",
                similar: &["peerings"],
                arguments: "[on TARGET]",
                explanation: "show every VPC peering in the configured regions, and who approved it",
            },
            Self::Status => VerbEntry {
                word: "status",
                similar: &["show", "details", "info"],
                arguments: "pcc-… [on TARGET]",
                explanation: "show the facts, checks and history of a request",
            },
            Self::Approve => VerbEntry {
                word: "approve",
                similar: &["accept", "allow", "confirm"],
                arguments: "pcc-… [on TARGET] [because REASON]",
                explanation: "approve a request",
            },
            Self::Reject => VerbEntry {
                word: "reject",
                similar: &["deny", "decline", "refuse", "disapprove"],
                arguments: "pcc-… [on TARGET] [because REASON]",
                explanation: "reject a request",
            },
            Self::Withdraw => VerbEntry {
                word: "withdraw",
                similar: &["revoke", "undo", "cancel"],
                arguments: "pcc-… [on TARGET]",
                explanation: "withdraw your approval",
            },
            Self::Acknowledge => VerbEntry {
                word: "acknowledge",
                similar: &["ack", "acknowledged"],
                arguments: "pcc-… [on TARGET] [because REASON]",
                explanation: "acknowledge that an active connection has changed",
            },
            Self::DryRun => VerbEntry {
                word: "dry-run",
                similar: &["check", "test"],
                arguments: "pcc-… [on TARGET]",
                explanation: "check whether a request could be accepted, and change nothing",
            },
        }
    }

    /// The word itself.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.entry().word
    }

    /// What may follow the word.
    #[must_use]
    pub const fn arguments(self) -> &'static str {
        self.entry().arguments
    }

    /// What the command does.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        self.entry().explanation
    }

    /// The verb with exactly this word, in lower case.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.word() == word)
    }

    /// The verb that a mistyped word resembles. Only a hint: nobody may decide by it.
    #[must_use]
    pub fn nearest(word: &str) -> Option<Self> {
        let is_beginning = |verb: &Self| word.len() >= MIN_BEGINNING_BYTES && verb.word().starts_with(word);
        if let Some(verb) = Self::ALL.into_iter().find(is_beginning) {
            return Some(verb);
        }
        if word.chars().count() > MAX_COMPARED_CHARS {
            return None;
        }
        let distance = |verb: Self| {
            let VerbEntry { word: own, similar, .. } = verb.entry();
            std::iter::once(&own).chain(similar).map(|known| edit_distance(word, known)).min().unwrap_or(usize::MAX)
        };
        let (distance, verb) = Self::ALL.map(|verb| (distance(verb), verb)).into_iter().min_by_key(|(far, _)| *far)?;
        (distance <= MAX_EDITS.min(word.chars().count() / CHARS_PER_EDIT)).then_some(verb)
    }

    /// Whether the command changes something: then each of its words must be understood.
    #[must_use]
    pub const fn changes_something(self) -> bool {
        match self {
            Self::Approve | Self::Reject | Self::Withdraw | Self::Acknowledge => true,
            Self::List | Self::Inventory | Self::Status | Self::DryRun => false,
        }
    }

    /// Whether the command stores a reason.
    #[must_use]
    pub const fn takes_reason(self) -> bool {
        match self {
            Self::Approve | Self::Reject | Self::Acknowledge => true,
            Self::List | Self::Inventory | Self::Status | Self::Withdraw | Self::DryRun => false,
        }
    }

    /// Whether the command is about one connection.
    #[must_use]
    pub const fn takes_id(self) -> bool {
        match self {
            Self::List | Self::Inventory => false,
            Self::Status | Self::Approve | Self::Reject | Self::Withdraw | Self::Acknowledge | Self::DryRun => true,
        }
    }
}

impl From<Verdict> for CommandVerb {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Approve => Self::Approve,
            Verdict::Reject => Self::Reject,
        }
    }
}

/// The shortest beginning of a verb that stands for it.
const MIN_BEGINNING_BYTES: usize = 3;
/// The most edits between a mistyped word and the verb that it resembles, and for how many characters there is one.
const MAX_EDITS: usize = 2;
const CHARS_PER_EDIT: usize = 3;
/// The longest word that is compared with the verbs, in characters.
const MAX_COMPARED_CHARS: usize = 20;

/// Why words are not a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnknownCommand {
    /// No words, or `help`: the sender wants the list of commands.
    Help,
    /// The words are not understood, or can be understood in several ways. Nothing was decided.
    NotUnderstood {
        /// What is not understood. Holds untrusted text.
        problem: CommandProblem,
        /// The commands that the sender may have meant.
        suggestions: Vec<SuggestedCommand>,
    },
}

/// What is not understood. The texts are as they were sent: untrusted, and of any length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandProblem {
    /// The first word is no verb.
    NotAVerb(String),
    /// There are several verbs.
    SeveralVerbs,
    /// There is no id of a connection. Holds the word that is there instead.
    NoId(Option<String>),
    /// There are several ids.
    SeveralIds,
    /// The words name two targets.
    SeveralTargets,
    /// No name of a target follows `on`. Holds the word that follows.
    NoTarget(Option<String>),
    /// More words than the command has.
    ExtraWords(String),
    /// No reason follows `because`.
    NoReason,
    /// The message is too long for a command.
    TooLong,
    /// The message is not plain text, for example an image.
    NotText,
}

/// A command that the sender may have meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuggestedCommand {
    /// What it does.
    pub verb: CommandVerb,
    /// The accepting account's name. `None` if the sender named none.
    pub target: Option<String>,
    /// The connection's id; `None` for a list.
    pub instance_id: Option<InstanceId>,
    /// The reason.
    pub reason: CommandReason,
}

/// The reason of a command, as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandReason {
    /// There is no `because`.
    Absent,
    /// Nothing that can be seen follows `because`.
    Blank,
    /// Untrusted text.
    Given(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_is_found_by_its_word_only() {
        for verb in CommandVerb::ALL {
            assert_eq!(CommandVerb::from_word(verb.word()), Some(verb));
            for similar in verb.entry().similar {
                assert_eq!(CommandVerb::from_word(similar), None, "{similar}");
                assert_eq!(CommandVerb::nearest(similar), Some(verb), "{similar}");
            }
        }
    }

    #[test]
    fn mistyped_word_resembles_its_verb_and_no_opposite() {
        for (typed, verb) in [
            ("aprove", Some(CommandVerb::Approve)),
            ("approved", Some(CommandVerb::Approve)),
            ("apporve", Some(CommandVerb::Approve)),
            ("rejcet", Some(CommandVerb::Reject)),
            ("dryrun", Some(CommandVerb::DryRun)),
            ("dry_run", Some(CommandVerb::DryRun)),
            ("stat", Some(CommandVerb::Status)),
            ("inv", Some(CommandVerb::Inventory)),
            ("inventroy", Some(CommandVerb::Inventory)),
            ("dry", Some(CommandVerb::DryRun)),
            ("dent", Some(CommandVerb::Reject)),
            ("no", None),
            ("ok", None),
            ("disapprove", Some(CommandVerb::Reject)),
            ("explode", None),
            ("x", None),
            ("", None),
            ("pcc-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", None),
        ] {
            assert_eq!(CommandVerb::nearest(typed), verb, "{typed}");
        }
    }
}

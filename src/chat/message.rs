//! Every sentence that a person reads in chat, without the markup of any platform: [`request_card`] shows a request,
//! [`describe_notification`] says what happened, and [`describe_reply`] answers a command.
//!
//! Names of connections and reasons are untrusted: they pass through [`sanitize_text`], and platforms show them literally.

mod advice;
mod card;
mod checks;
mod drift;
mod facts;
mod history;
mod inventory;
mod notification;
mod reply;
mod requester;
mod routes;
mod short;
mod usage;

use jiff::Timestamp;

use super::MAX_REASON_CHARS;
use super::card_rate::CardDigest;
use crate::approval::{Principal, Verdict};
use crate::peering::{Fingerprint, InstanceId};

pub(crate) use advice::advice_for_code;
pub use card::{needed_approvers, request_card};
pub use facts::can_show_all;
pub use history::{describe_entry, record_with_history, summary_line};
pub use inventory::{describe_age, describe_origin};
pub use notification::{describe_notification, follow_up, notification_name};
pub use reply::{card_moved, card_replaced, describe_reply, without_buttons, without_old_buttons, wrong_tenant};
pub use requester::describe_for_requester;
pub(in crate::chat) use short::{ShortLimits, shorten_card};
pub use usage::describe_unknown_command;

/// Said by a short answer if a longer one follows in a one-to-one chat.
pub const DETAILS_FOLLOW: &str = "peergate sends you more in your one-to-one chat.";
/// Said by a short answer if the longer one could not be delivered.
pub const DETAILS_UNDELIVERED: &str =
    "peergate could not send you more: add its app for yourself, so that you have a one-to-one chat with it.";
/// Said by an input for a reason that is left empty.
pub const REASON_MISSING: &str = "Give a reason.";

/// The longest untrusted text in a message, in characters. Reasons may be longer.
const MAX_SANITIZED_CHARS: usize = 200;
/// The most CIDR blocks, or overlaps, in one sentence. The facts of a card show all CIDR blocks.
const MAX_CIDRS: usize = 10;

/// A message. The platform decides how it looks. The parts are shown in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// One sentence. Holds no untrusted text.
    pub headline: String,
    /// The people who must act. Each platform mentions its own users.
    pub mentions: Vec<Principal>,
    /// The facts. Values may hold untrusted text.
    pub facts: Vec<MessageFact>,
    /// The results of checks, each with its mark.
    pub checks: Vec<String>,
    /// Lines whose columns are aligned.
    pub figure: Vec<String>,
    /// What to do, and what to know.
    pub sentences: Vec<String>,
    /// Text to copy, such as a rule.
    pub snippet: Option<String>,
    /// A link.
    pub link: Option<Link>,
    /// The buttons.
    pub buttons: Option<Buttons>,
}

impl Message {
    /// The headline and the sentences as one paragraph. Where a part has no final punctuation mark, a period separates it
    /// from the next one.
    pub(super) fn to_paragraph(&self) -> String {
        self.sentences.iter().fold(self.headline.clone(), |before, sentence| {
            let period = if before.ends_with(['.', ':', '?', '!', '…']) { "" } else { "." };
            format!("{before}{period} {sentence}")
        })
    }
}

/// A fact of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageFact {
    /// What the value is, e.g. `Bandwidth`.
    pub label: &'static str,
    /// One line. May hold untrusted text.
    pub value: String,
}

impl MessageFact {
    /// Makes a fact.
    pub fn new(label: &'static str, value: impl Into<String>) -> Self {
        Self { label, value: value.into() }
    }
}

/// A link of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The text of the link.
    pub label: &'static str,
    /// Where it leads.
    pub url: String,
}

/// The buttons of a message, and the facts that they decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buttons {
    /// The accepting account's name.
    pub target: String,
    /// The connection's id.
    pub instance_id: InstanceId,
    /// The fingerprint of the facts in the message.
    pub fingerprint: Fingerprint,
    /// The buttons, in order.
    pub shown: Vec<ShownButton>,
}

/// A button of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownButton {
    /// What a click does.
    pub button: Button,
    /// The text that the button carries; see [`bind_buttons`](super::binding::bind_buttons). Without one, no platform shows
    /// the button.
    pub binding: Option<String>,
}

impl From<Button> for ShownButton {
    /// A button that is not bound yet.
    fn from(button: Button) -> Self {
        Self { button, binding: None }
    }
}

/// What a click on a button does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    /// Approves the request.
    Approve {
        /// Whether the person is asked for a reason first.
        needs_reason: bool,
    },
    /// Asks for an optional reason, and rejects the request.
    Reject,
    /// Withdraws the person's approval.
    Withdraw,
    /// Acknowledges that an activated connection has changed.
    Acknowledge,
    /// Shows all facts and the history to the person.
    Details,
}

impl Button {
    /// The text on the button.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Approve { .. } => "Approve",
            Self::Reject => "Reject",
            Self::Withdraw => "Withdraw my approval",
            Self::Acknowledge => "Acknowledge",
            Self::Details => "Details",
        }
    }
}

/// The form that asks for a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasonForm {
    /// At most 24 characters, which is Slack's limit.
    pub title: &'static str,
    /// The text on the button.
    pub submit_label: &'static str,
    /// The label of the input.
    pub label: &'static str,
    /// Whether the input may be empty.
    pub is_optional: bool,
}

/// The form that asks for the reason of a decision.
#[must_use]
pub fn reason_form(verdict: Verdict) -> ReasonForm {
    let label = "Reason (the channel sees it)";
    match verdict {
        Verdict::Approve => {
            ReasonForm { title: "Approve VPC peering", submit_label: "Approve", label, is_optional: false }
        }
        Verdict::Reject => ReasonForm { title: "Reject VPC peering", submit_label: "Reject", label, is_optional: true },
    }
}

/// The title of the modal once it shows the answer.
pub const MODAL_TITLE: &str = "VPC peering";
/// The text of the button that closes a modal.
pub const CLOSE_LABEL: &str = "Close";

fn with_headline(headline: impl Into<String>) -> Message {
    Message { headline: headline.into(), ..Message::default() }
}

/// The requests of one account whose cards are delayed.
#[must_use]
pub fn describe_digest(digest: &CardDigest, name: Option<&str>) -> Message {
    let name = name.map(|name| format!("{}, ", sanitize_text(name))).unwrap_or_default();
    let (account, count) = (digest.account, digest.ids.len());
    Message {
        sentences: digest.ids.iter().map(ToString::to_string).collect(),
        ..with_headline(format!(
            "{name}account {account} requests many VPC peerings: peergate posts at most 20 of its cards an hour, and {count} \
             more follow"
        ))
    }
}

/// e.g. `2026-11-29 10:00:00 UTC`.
fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A measured duration, e.g. `1 min 38 s`.
fn format_duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A long wait, e.g. `1 d 6 h`.
fn format_wait(seconds: i64) -> String {
    let minutes = seconds.max(0) / 60;
    match (minutes / (24 * 60), minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, _) => format!("{hours} h"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// e.g. `alice, bob or carol`.
fn join_with(words: &[String], last: &str) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

/// Whether a character is shown as nothing, or changes the direction of the text after it.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{00AD}' | '\u{061C}' | '\u{180E}')
        || matches!(c, '\u{E0000}'..='\u{E007F}')
}

/// Untrusted text in one line: without control, bidirectional and invisible characters, cut, and never empty.
#[must_use]
pub fn sanitize_text(text: &str) -> String {
    cut_text(&sanitize_line(text), MAX_SANITIZED_CHARS)
}

/// Untrusted text in one line, as a whole, so that it may be empty.
#[must_use]
pub fn sanitize_line(text: &str) -> String {
    let visible: String =
        text.chars().filter(|c| !is_invisible(*c)).map(|c| if c.is_control() { ' ' } else { c }).collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Untrusted text whose lines stay as they are, but for characters that a terminal obeys or that change what people see.
#[must_use]
pub fn sanitize_lines(text: &str) -> String {
    let visible = text.chars().filter(|c| !is_invisible(*c));
    let show = |c: char| if c != '\n' && (c.is_control() || c.is_whitespace()) { ' ' } else { c };
    visible.map(show).collect()
}

/// A reason in one line, as a whole: no reason that is stored is longer. Each line break is shown as a space, because a
/// reason could look like another fact after it.
pub(super) fn sanitize_reason(text: &str) -> String {
    let visible = text.replace("\r\n", "\n");
    let visible = visible.chars().filter(|c| !is_invisible(*c));
    let line: String = visible.map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c }).collect();
    cut_text(line.trim(), MAX_REASON_CHARS)
}

fn cut_text(line: &str, max_chars: usize) -> String {
    let mut short: String = line.chars().take(max_chars).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    // Slack refuses a whole message for one empty text.
    if short.is_empty() { "–".to_owned() } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_structure_only() {
        let text = "1 | a = \"\u{1b}[2J\u{202e}\u{9b}b\"\r\n  |\t^\u{2028}\u{200b}\n\n";
        assert_eq!(sanitize_lines(text), "1 | a = \" [2J b\" \n  | ^ \n\n");
    }

    #[test]
    fn paragraph_has_one_mark_between_sentences() {
        let paragraph = |sentences: &[&str]| {
            let sentences = sentences.iter().map(|sentence| (*sentence).to_owned()).collect();
            Message { sentences, ..with_headline("The dry run passed") }.to_paragraph()
        };
        assert_eq!(paragraph(&[]), "The dry run passed");
        assert_eq!(paragraph(&["Warning: one.", "Warning: two."]), "The dry run passed. Warning: one. Warning: two.");
        assert_eq!(
            paragraph(&["Send this:", "pcc-a", "because …", "Now."]),
            "The dry run passed. Send this: pcc-a. because … Now."
        );
    }
}

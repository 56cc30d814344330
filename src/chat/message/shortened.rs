//! Messages that are too large for a platform, and what an answer says about another one.

use super::{Button, Message, MessageFact};

/// The most lines of each kind in a shortened message.
const MAX_CUT_LINES: usize = 10;
/// The longest text in a shortened message.
const MAX_CUT_CHARS: usize = 100;
/// Said by a short answer if a longer one follows in a one-to-one chat.
pub const DETAILS_FOLLOW: &str = "peergate sends you more in your one-to-one chat.";
/// Said by a short answer if the longer one could not be delivered.
pub const DETAILS_UNDELIVERED: &str =
    "peergate could not send you more: add its app for yourself, so that you have a one-to-one chat with it.";
/// Said by an input for a reason that is left empty.
pub const REASON_MISSING: &str = "Give a reason.";

/// The shortened form of a message that is too large. It has no decision buttons: nobody may decide on facts that the message
/// does not show.
#[must_use]
pub fn shorten_message(message: &Message, platform: &str) -> Message {
    let lines = |lines: &[String]| lines.iter().take(MAX_CUT_LINES).map(|line| shorten_text(line)).collect();
    let mut sentences: Vec<String> = lines(&message.sentences);
    sentences.push(format!(
        "The request is too large for a {platform} card, so texts are cut and there are no Approve and Reject buttons. A webhook \
         client can decide with the fingerprint from a status reply."
    ));
    let buttons = message.buttons.clone().map(|mut buttons| {
        buttons.shown.retain(|shown| matches!(shown.button, Button::Withdraw | Button::Details));
        buttons
    });
    let facts = message.facts.iter().take(2 * MAX_CUT_LINES);
    Message {
        headline: shorten_text(&message.headline),
        mentions: message.mentions.clone(),
        facts: facts.map(|fact| MessageFact::new(fact.label, shorten_text(&fact.value))).collect(),
        checks: lines(&message.checks),
        figure: vec![],
        sentences,
        snippet: None,
        link: message.link.clone(),
        buttons,
    }
}

fn shorten_text(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_CUT_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

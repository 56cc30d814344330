//! A message that a platform cannot show as a whole.

use super::{Button, Message, MessageFact};

/// What a shortened message may have.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct ShortLimits {
    /// The most checks, and the most sentences. There are twice as many facts.
    pub lines: usize,
    /// The longest line, in characters.
    pub chars: usize,
}

/// A card that is too large for the platform: shortened, and without its decision buttons. Nobody may decide on facts that
/// the card does not show.
pub(in crate::chat) fn shorten_card(message: &Message, platform: &str, limits: ShortLimits) -> Message {
    let cut = |text: &str| {
        let mut short: String = text.chars().take(limits.chars).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        short
    };
    let lines = |lines: &[String]| lines.iter().take(limits.lines).map(|line| cut(line)).collect();
    let mut sentences: Vec<String> = lines(&message.sentences);
    sentences.push(format!(
        "The request is too large for a {platform} card, so texts are cut and there are no Approve and Reject buttons. \
         A webhook client can decide with the fingerprint from a status reply."
    ));
    let buttons = message.buttons.clone().map(|mut buttons| {
        buttons.shown.retain(|shown| matches!(shown.button, Button::Withdraw | Button::Details));
        buttons
    });
    let facts = message.facts.iter().take(limits.lines.saturating_mul(2));
    Message {
        headline: cut(&message.headline),
        mentions: message.mentions.clone(),
        facts: facts.map(|fact| MessageFact::new(fact.label, cut(&fact.value))).collect(),
        checks: lines(&message.checks),
        figure: vec![],
        sentences,
        snippet: None,
        link: message.link.clone(),
        buttons,
    }
}

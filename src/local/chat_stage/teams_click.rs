//! Clicks in Microsoft Teams: an invoke, whose answer is a private message.

use super::{ButtonClick, ChatStage, ClickOutcome, SignedAs};
use crate::clock;
use crate::fake::teams::CHANNEL_ID;
use crate::local::Error;

impl ChatStage {
    pub(super) async fn click_in_teams(&self, click: &ButtonClick) -> Result<ClickOutcome, Error> {
        let has_button = || {
            let cards = self.teams.messages_in(CHANNEL_ID);
            cards.into_iter().rfind(|card| card.find_button(&click.label).is_some()).map(|card| card.message_id)
        };
        let card = click.message.clone().or_else(has_button).ok_or("there is no such card in Teams")?;
        let person = self.teams.user(click.by.name());
        let before = self.teams.bodies_to(&person).len();
        let invoke = self.teams.click_button(&card, &click.label, &person, click.reason.as_deref())?;
        let reply = self.send_signed(SignedAs::TeamsActivity(invoke)).await?;
        let answer = reply.body_json();
        let said = match reply.status {
            200 => self.teams.read_invoke_response(&answer)?,
            _ => None,
        };
        let mut private = None;
        if let Some(text) = said {
            private = Some(self.show_to_one(click, format!("private-{:.8}", clock::nonce()), answer, text));
        }
        // A card or a long answer is in the chat with the bot.
        for sent in self.teams.bodies_to(&person).into_iter().skip(before) {
            let cards = self.teams.messages_to(&person);
            let text = cards.into_iter().find(|card| card.message_id == sent.id).map(|card| card.text);
            private = Some(self.show_to_one(click, sent.id, sent.body, text.unwrap_or_default()));
        }
        Ok(ClickOutcome { reply, modal: None, private })
    }
}

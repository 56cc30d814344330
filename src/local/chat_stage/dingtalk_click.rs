//! Clicks in DingTalk: a callback, whose answer changes what the person sees of the card.

use serde_json::{Value, json};

use super::{ButtonClick, ChatApp, ChatStage, ClickOutcome, PrivateMessage, SignedAs};
use crate::clock;
use crate::fake::dingtalk::CONVERSATION_ID;
use crate::local::Error;

impl ChatStage {
    pub(super) async fn click_in_dingtalk(&self, click: &ButtonClick) -> Result<ClickOutcome, Error> {
        let user = click.by.dingtalk_id();
        let has_button = || {
            let cards = self.dingtalk.cards_in(CONVERSATION_ID, user);
            cards.into_iter().rfind(|card| card.find_button(&click.label).is_some()).map(|card| card.out_track_id)
        };
        let card = click.message.clone().or_else(has_button).ok_or("there is no such card in DingTalk")?;
        let person = self.dingtalk.person_of_corp(user);
        let before = self.dingtalk.bodies_in(user).len();
        let callback = self.dingtalk.click_button(&card, &click.label, &person, click.reason.as_deref())?;
        let reply = self.send_signed(SignedAs::DingTalkCallback(callback)).await?;
        let answer = reply.body_json();
        let notice = match reply.status {
            200 => self.dingtalk.apply_reply(&card, &person, &answer)?,
            _ => String::new(),
        };
        let mut private = None;
        for sent in self.dingtalk.bodies_in(user).into_iter().skip(before) {
            let cards = self.dingtalk.cards_to(user);
            let text = cards.into_iter().find(|card| card.out_track_id == sent.id).map(|card| card.text);
            let text = text.or_else(|| Some(sent.body.pointer("/text/content")?.as_str()?.to_owned()));
            private = Some(self.show_to_one(click, sent.id, sent.body, text.unwrap_or_default()));
        }
        if !notice.is_empty() {
            let body = json!({"userPrivateData": answer.get("userPrivateData")});
            private = Some(self.show_to_one(click, format!("private-{:.8}", clock::nonce()), body, notice));
        }
        Ok(ClickOutcome { reply, modal: None, private })
    }

    /// Shows something to the person who clicked.
    pub(super) fn show_to_one(&self, click: &ButtonClick, id: String, body: Value, text: String) -> PrivateMessage {
        let app: ChatApp = click.app;
        let message = PrivateMessage { id, to: click.by, app, at: clock::now(), body, text };
        self.show_privately(&message);
        message
    }
}

//! Clicks in Feishu: a callback, whose answer is a toast.

use serde_json::{Value, json};

use super::{ButtonClick, ChatApp, ChatStage, ClickOutcome, PrivateMessage, SignedAs};
use crate::clock;
use crate::fake::feishu::CHAT_ID;
use crate::local::Error;

impl ChatStage {
    pub(super) async fn click_in_feishu(&self, click: &ButtonClick) -> Result<ClickOutcome, Error> {
        let latest = || self.feishu.messages_in(CHAT_ID).pop().map(|card| card.message_id);
        let message = click.message.clone().or_else(latest).ok_or("there is no card in Feishu")?;
        let person = self.feishu.person_of_tenant(click.by.feishu_id());
        let personal = |stage: &Self| stage.feishu.bodies_in(click.by.feishu_id()).len();
        let before = personal(self);
        let callback = self.feishu.click_button(&message, &click.label, &person, click.reason.as_deref())?;
        let reply = self.send_signed(SignedAs::FeishuCallback(callback)).await?;
        let toast = match reply.status {
            200 => self.feishu.apply_reply(&message, &reply.body_json())?,
            _ => None,
        };
        let at = clock::now();
        let to_person = |body: Value, text: String| {
            let id = format!("private-{:.8}", clock::nonce());
            PrivateMessage { id, to: click.by, app: ChatApp::Feishu, at, body, text }
        };
        let mut private = None;
        for sent in self.feishu.bodies_in(click.by.feishu_id()).into_iter().skip(before) {
            let cards = self.feishu.messages_in(click.by.feishu_id());
            let text = cards.into_iter().find(|card| card.message_id == sent.id).map(|card| card.text);
            let message = PrivateMessage { id: sent.id, ..to_person(sent.body, text.unwrap_or_default()) };
            self.show_privately(&message);
            private = Some(message);
        }
        if let Some(toast) = toast {
            let message = to_person(json!({"toast": toast}), toast);
            self.show_privately(&message);
            private = Some(message);
        }
        Ok(ClickOutcome { reply, modal: None, private })
    }
}

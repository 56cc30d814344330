//! Clicks and messages of people in the fake. Each returns the plaintext of the callback that Feishu would send.
//! `chat::feishu::sign` encrypts and signs it.

use serde_json::{Map, Value, json};

use super::{FakeFeishu, FakeFeishuState, card};
use crate::fake::Error;

/// A person on Feishu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeishuPerson {
    /// The id of the person (`ou_…`).
    pub open_id: String,
    /// The key of the tenant.
    pub tenant: String,
}

impl FakeFeishu {
    /// A person of the app's tenant.
    #[must_use]
    pub fn person_of_tenant(&self, open_id: &str) -> FeishuPerson {
        FeishuPerson { open_id: open_id.to_owned(), tenant: self.lock().settings.tenant.clone() }
    }

    /// Clicks the button with this label. Returns the plaintext of the callback.
    ///
    /// # Errors
    /// When a person could not click it: the message or the button does not exist, or the form is not complete.
    pub fn click_button(
        &self,
        message_id: &str,
        label: &str,
        by: &FeishuPerson,
        reason: Option<&str>,
    ) -> Result<String, Error> {
        let mut state = self.lock();
        let message = state.messages.iter().find(|message| message.id == message_id && message.ended.is_none());
        let message = message.ok_or("there is no such message")?;
        let button = card::visible_buttons(&message.card).into_iter().find(|button| button.label == label);
        let button = button.ok_or_else(|| format!("there is no button {label:?}"))?;
        if button.value.is_null() {
            return Err("a click on this button sends no callback".into());
        }
        let chat = message.chat.clone();
        let mut action = json!({"tag": "button", "name": button.name, "timezone": "Asia/Shanghai"});
        let mut form_value = Map::new();
        for input in card::visible_inputs(&message.card).into_iter().filter(|_| button.submits) {
            let text = reason.unwrap_or_default();
            let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
            if (input.required && text.is_empty()) || length > input.max_length {
                return Err(format!("the input {:?} is missing or too long", input.name).into());
            }
            form_value.insert(input.name, text.into());
        }
        if let Some(fields) = action.as_object_mut() {
            if button.submits {
                fields.insert("form_value".into(), Value::Object(form_value));
            }
            if !button.submits || state.settings.form_buttons_have_values {
                fields.insert("value".into(), button.value);
            }
        }
        let token = state.next_id("c-");
        let operator = json!({
            "tenant_key": by.tenant, "open_id": by.open_id, "union_id": by.open_id.replacen("ou_", "on_", 1),
        });
        // A message to one person is in a separate chat.
        let chat = if chat.starts_with("ou_") { chat.replacen("ou_", "oc_", 1) } else { chat };
        let context = json!({"open_message_id": message_id, "open_chat_id": chat, "url": "", "preview_token": ""});
        let event = json!({
            "operator": operator, "token": token, "action": action, "host": "im_message", "delivery_type": "",
            "context": context,
        });
        Ok(state.event_json("card.action.trigger", &event))
    }

    /// Sends a text that mentions the bot. Returns the plaintext of the event.
    #[must_use]
    pub fn send_text(&self, chat: &str, text: &str, by: &FeishuPerson) -> String {
        let mut state = self.lock();
        let id = json!({"open_id": by.open_id, "union_id": by.open_id.replacen("ou_", "on_", 1)});
        let message = json!({
            "message_id": state.next_id("om_"), "create_time": state.now().as_millisecond().to_string(), "chat_id": chat,
            "chat_type": "group", "message_type": "text",
            "content": json!({"text": format!("@_user_1 {text}")}).to_string(),
            "mentions": [{"key": "@_user_1", "id": {"open_id": "ou_bot"}, "name": "peergate", "tenant_key": by.tenant}],
        });
        let sender = json!({"sender_id": id, "sender_type": "user", "tenant_key": by.tenant});
        state.event_json("im.message.receive_v1", &json!({"sender": sender, "message": message}))
    }

    /// Applies the reply to a click: a card in it replaces the card of the message. Returns the text of the toast.
    ///
    /// # Errors
    /// When Feishu would show an error.
    pub fn apply_reply(&self, message_id: &str, reply: &Value) -> Result<Option<String>, Error> {
        let toast = reply.get("toast").map(|toast| {
            let kind = toast.get("type").and_then(Value::as_str).unwrap_or_default();
            let known = ["info", "success", "error", "warning"].contains(&kind);
            toast.get("content").and_then(Value::as_str).filter(|_| known).ok_or("the toast is malformed")
        });
        let toast = toast.transpose()?.map(ToOwned::to_owned);
        if let Some(card) = reply.get("card") {
            let data = card.get("data").filter(|_| card.get("type").and_then(Value::as_str) == Some("raw"));
            let data = data.ok_or("the card is not of type raw")?;
            card::check_card(data)?;
            self.lock().redraw_card(message_id, data);
        }
        Ok(toast)
    }
}

impl FakeFeishuState {
    fn event_json(&mut self, kind: &str, event: &Value) -> String {
        let header = json!({
            "event_id": self.next_id(""), "token": self.settings.verification_token,
            "create_time": self.now().as_microsecond().to_string(), "event_type": kind,
            "tenant_key": self.settings.tenant, "app_id": self.settings.app,
        });
        json!({"schema": "2.0", "header": header, "event": event}).to_string()
    }
}

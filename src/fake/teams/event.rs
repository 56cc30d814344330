//! What people in the fake do. Each function returns the activity that Teams would send; [`FakeTeams::sign`] signs it, and
//! [`FakeTeams::send`] sends it.

use serde_json::{Value, json};
use url::Url;

use super::{CHANNEL_ID, FakeTeams, FakeTeamsState, PEOPLE, TEAM_ID, TeamsMessage, card};
use crate::chat::SignedRequest;
use crate::chat::teams::{Cloud, TokenClaims, sign_activity_with};
use crate::fake::Error;

/// A person of Teams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamsUser {
    /// The id for the bot (`29:…`).
    pub id: String,
    /// The name that others see.
    pub name: String,
    /// The object id in the tenant.
    pub object_id: String,
    /// The id of the tenant.
    pub tenant: String,
}

impl FakeTeams {
    /// A person of the tenant, by the name in the sandbox. Others have an object id of their own.
    #[must_use]
    pub fn user(&self, name: &str) -> TeamsUser {
        let known = PEOPLE.iter().find(|(person, _)| *person == name).map(|(_, id)| (*id).to_owned());
        let object_id = known.unwrap_or_else(|| {
            let digits = hex::encode(name);
            format!("0badf00d-0000-4000-8000-{digits:0>12.12}")
        });
        let tenant = self.lock().settings.tenant.clone();
        TeamsUser { id: format!("29:{object_id}"), name: name.to_owned(), object_id, tenant }
    }

    /// Clicks the button with this label, and returns the invoke.
    ///
    /// # Errors
    /// When a person could not click it: the message or the button does not exist, or an input is not complete.
    pub fn click_button(
        &self,
        message_id: &str,
        label: &str,
        by: &TeamsUser,
        reason: Option<&str>,
    ) -> Result<Value, Error> {
        let mut state = self.lock();
        let (message, data) = state.press(message_id, label, reason)?;
        let mut activity =
            state.activity("invoke", &message.conversation, message.root.as_ref().or(Some(&message.id)), by);
        let action = json!({"type": "Action.Execute", "verb": "peergate", "data": data});
        put(&mut activity, "name", "adaptiveCard/action".into());
        put(&mut activity, "replyToId", message.id.into());
        put(&mut activity, "value", json!({"action": action, "trigger": "manual"}));
        Ok(activity)
    }

    /// Clicks as a client that does not know `Action.Execute`: it sends a message with the data of the button.
    ///
    /// # Errors
    /// As [`FakeTeams::click_button`].
    pub fn click_fallback(
        &self,
        message_id: &str,
        label: &str,
        by: &TeamsUser,
        reason: Option<&str>,
    ) -> Result<Value, Error> {
        let mut state = self.lock();
        let (message, data) = state.press(message_id, label, reason)?;
        let root = message.root.as_ref().or(Some(&message.id));
        let mut activity = state.activity("message", &message.conversation, root, by);
        put(&mut activity, "replyToId", message.id.into());
        put(&mut activity, "value", data);
        Ok(activity)
    }

    /// Mentions the bot in the channel, in a new thread.
    #[must_use]
    pub fn mention_bot(&self, text: &str, by: &TeamsUser) -> Value {
        let mut state = self.lock();
        let root = state.next_id();
        let mut activity = state.activity("message", CHANNEL_ID, Some(&root), by);
        let bot = json!({"id": format!("28:{}", state.settings.app), "name": "peergate"});
        let entity = json!({"type": "mention", "text": "<at>peergate</at>", "mentioned": bot});
        put(&mut activity, "text", format!("<at>peergate</at>&nbsp;{text}").into());
        put(&mut activity, "textFormat", "plain".into());
        put(&mut activity, "entities", json!([entity, {"type": "clientInfo", "locale": "en-US", "platform": "Web"}]));
        activity
    }

    /// Writes to the bot in the one-to-one chat.
    #[must_use]
    pub fn write_to_bot(&self, text: &str, by: &TeamsUser) -> Value {
        let mut state = self.lock();
        let chat = state.open_chat(&by.id);
        let mut activity = state.activity("message", &chat, None, by);
        put(&mut activity, "text", text.into());
        activity
    }

    /// Adds the bot to the team. Teams reports it twice: as a member, and as an installation.
    #[must_use]
    pub fn install(&self, by: &TeamsUser) -> [Value; 2] {
        let mut state = self.lock();
        let mut added = state.activity("conversationUpdate", TEAM_ID, None, by);
        let bot = json!([{"id": format!("28:{}", state.settings.app)}]);
        put(&mut added, "membersAdded", bot);
        let mut installed = state.activity("installationUpdate", TEAM_ID, None, by);
        put(&mut installed, "action", "add".into());
        [added, installed]
    }

    /// Signs an activity with the newest published key. Its `serviceUrl` is that of the token, too.
    ///
    /// # Errors
    /// Never.
    pub fn sign(&self, activity: &Value) -> Result<SignedRequest, Error> {
        let service_url = activity.get("serviceUrl").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(sign_activity_with(activity, &self.claims(&service_url))?)
    }

    /// The claims of a token of the fake.
    #[must_use]
    pub fn claims(&self, service_url: &str) -> TokenClaims {
        let state = self.lock();
        let claims = TokenClaims::new(Cloud::Public, &state.settings.app, service_url);
        let key_id = state.keys.last().map_or(claims.key_id, |key| key.id.clone());
        TokenClaims { key_id, issued_at: state.now(), ..claims }
    }

    /// Sends an activity to a webhook, signed. Returns the HTTP status and the body.
    ///
    /// # Errors
    /// When the webhook does not answer.
    pub async fn send(&self, http: &reqwest::Client, webhook: &Url, activity: &Value) -> Result<(u16, String), Error> {
        let SignedRequest { headers, body, .. } = self.sign(activity)?;
        let request = http.post(webhook.clone()).body(body);
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Reads the response to an invoke as Teams does. Returns the text of the private message.
    ///
    /// # Errors
    /// When Teams would show an error.
    pub fn read_invoke_response(&self, response: &Value) -> Result<Option<String>, Error> {
        if response.get("statusCode").and_then(Value::as_u64) != Some(200) {
            return Err("the response has no statusCode 200".into());
        }
        match response.get("type").and_then(Value::as_str) {
            Some("application/vnd.microsoft.activity.message") => {
                let text = response.get("value").and_then(Value::as_str).ok_or("the value is not a text")?;
                Ok(Some(text.to_owned()))
            }
            Some("application/vnd.microsoft.card.adaptive") => {
                card::check_adaptive_card(response.get("value").unwrap_or(&Value::Null))?;
                Ok(None)
            }
            other => Err(format!("unknown type {other:?}").into()),
        }
    }
}

impl FakeTeamsState {
    /// The message, and what the button sends.
    fn press(&mut self, message_id: &str, label: &str, reason: Option<&str>) -> Result<(TeamsMessage, Value), Error> {
        let message = self.messages.iter().find(|message| message.id == message_id && !message.is_deleted);
        let message = message.cloned().ok_or("there is no such message")?;
        let button = card::visible_buttons(&message.activity).into_iter().find(|button| button.label == label);
        let button = button.ok_or_else(|| format!("there is no button {label:?}"))?;
        if button.data.is_null() {
            return Err("a click on this button sends nothing".into());
        }
        let mut data = button.data;
        for input in button.inputs {
            let text = reason.unwrap_or_default();
            let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
            if (input.is_required && text.is_empty()) || length > input.max_length {
                return Err(format!("the input {:?} is missing or too long", input.id).into());
            }
            put(&mut data, &input.id, text.into());
        }
        Ok((message, data))
    }

    /// The part that all activities share. In a channel, the conversation is a thread.
    fn activity(&mut self, kind: &str, conversation: &str, root: Option<&String>, by: &TeamsUser) -> Value {
        let is_personal = conversation.starts_with("a:");
        let is_channel = conversation.ends_with("@thread.tacv2");
        let id = match root.filter(|_| is_channel) {
            Some(root) => format!("{conversation};messageid={root}"),
            None => conversation.to_owned(),
        };
        let conversation_type = match (is_personal, is_channel) {
            (true, _) => "personal",
            (false, true) => "channel",
            (false, false) => "groupChat",
        };
        let mut channel_data = json!({"tenant": {"id": by.tenant}});
        if is_channel {
            put(&mut channel_data, "team", json!({"id": TEAM_ID}));
            put(&mut channel_data, "channel", json!({"id": conversation}));
        }
        json!({
            "type": kind, "id": format!("f:{}", self.next_id()), "timestamp": self.now().to_string(),
            "serviceUrl": self.service_url(), "channelId": "msteams",
            "from": {"id": by.id, "name": by.name, "aadObjectId": by.object_id},
            "conversation": {
                "id": id, "tenantId": by.tenant, "conversationType": conversation_type, "isGroup": !is_personal,
            },
            "recipient": {"id": format!("28:{}", self.settings.app), "name": "peergate"},
            "channelData": channel_data,
        })
    }
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

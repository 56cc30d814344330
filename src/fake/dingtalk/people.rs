//! Clicks and messages of people in the fake: the bodies that DingTalk would send, and the callbacks themselves.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use url::Url;

use super::{CardRoute, DingTalkButton, FakeDingTalk, FakeDingTalkState, VariableMap, template, wire};
use crate::fake::Error;
use crate::http;

/// How long DingTalk waits for the answer to a click.
///
/// Source: <https://open.dingtalk.com/document/development/event-callback-card>
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(2);

/// How a click names the group. DingTalk's documents do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpaceForm {
    /// By `openConversationId`.
    Conversation,
    /// By `openSpaceId`.
    OpenSpace,
    /// By another id.
    Other,
    /// Not at all.
    Absent,
}

/// A person on DingTalk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DingTalkPerson {
    /// The `userId`.
    pub user_id: String,
    /// The `corpId`.
    pub corp: String,
}

impl FakeDingTalk {
    /// A person of the app's corporation.
    #[must_use]
    pub fn person_of_corp(&self, user_id: &str) -> DingTalkPerson {
        DingTalkPerson { user_id: user_id.to_owned(), corp: self.lock().settings.corp.clone() }
    }

    /// Clicks the button with this label, as this person sees the card. Returns the body of the callback.
    ///
    /// # Errors
    /// When the person could not click it: the card or the button does not exist, or the reason is too long.
    pub fn click_button(
        &self,
        out_track_id: &str,
        label: &str,
        by: &DingTalkPerson,
        reason: Option<&str>,
    ) -> Result<String, Error> {
        let mut state = self.lock();
        let card = state.cards.iter().find(|card| card.out_track_id == out_track_id);
        let card = card.ok_or("there is no such card")?.clone();
        let shown = template::view_card(&card, &by.user_id);
        let button = shown.find_button(label).ok_or_else(|| format!("there is no button {label:?}"))?;
        let params = state.clicked_params(button, shown.asks_reason, reason)?;
        let content = json!({"cardPrivateData": {"actionIds": [button.action_id], "params": params}}).to_string();
        let mut body = json!({
            "type": "actionCallback", "outTrackId": out_track_id, "corpId": by.corp, "userId": by.user_id,
            "userIdType": 1, "spaceType": "IM", "extension": "{}",
        });
        let place = card.space.map(|(_, place)| place).unwrap_or_default();
        let space_id = match state.settings.space_form {
            SpaceForm::Conversation => Some(place),
            SpaceForm::OpenSpace => Some(format!("dtv1.card//IM_GROUP.{place}")),
            SpaceForm::Other => Some(state.next_id("")),
            SpaceForm::Absent => None,
        };
        if let Some(members) = body.as_object_mut() {
            members.extend(space_id.map(|id| ("spaceId".to_owned(), id.into())));
            members
                .extend(state.settings.content_fields.iter().map(|name| ((*name).to_owned(), content.clone().into())));
        }
        Ok(body.to_string())
    }

    /// Mentions the robot in a group. Returns the body of the callback.
    #[must_use]
    pub fn write_in_group(&self, conversation: &str, text: &str, by: &DingTalkPerson) -> String {
        self.lock().message_body(conversation, "2", &format!(" {text}"), by, "https://oapi.dingtalk.com/").to_string()
    }

    /// Writes to the robot alone. `url` is the address of this fake. Returns the body of the callback.
    #[must_use]
    pub fn write_in_private(&self, url: &Url, text: &str, by: &DingTalkPerson) -> String {
        self.lock().message_body("cidprivate==", "1", text, by, url.as_str()).to_string()
    }

    /// Applies the answer to a click. Returns the notice that only this person sees.
    ///
    /// # Errors
    /// When DingTalk would show an error.
    pub fn apply_reply(&self, out_track_id: &str, by: &DingTalkPerson, reply: &Value) -> Result<String, Error> {
        let by_key = |name: &str| reply.pointer(&format!("/cardUpdateOptions/{name}")) == Some(&Value::Bool(true));
        let read = |name: &str| reply.pointer(&format!("/{name}/cardParamMap")).map(wire::read_variables).transpose();
        let malformed = |_| "the variables of the answer are malformed";
        let shown = read("cardData").map_err(malformed)?;
        let private = read("userPrivateData").map_err(malformed)?;
        let mut state = self.lock();
        let card = state.cards.iter_mut().find(|card| card.out_track_id == out_track_id);
        let card = card.ok_or("there is no such card")?;
        if let Some(shown) = shown {
            let before = if by_key("updateCardDataByKey") { card.variables.clone() } else { VariableMap::new() };
            card.overrides.insert(by.user_id.clone(), before.into_iter().chain(shown).collect());
        }
        let notice = private.as_ref().and_then(|own| own.get("notice")).cloned().unwrap_or_default();
        if let Some(private) = private {
            let own = card.private.entry(by.user_id.clone()).or_default();
            if !by_key("updatePrivateDataByKey") {
                own.clear();
            }
            own.extend(private);
        }
        Ok(notice)
    }

    /// Sends a click to the registered address, as DingTalk does: signed if a secret is registered, and for at most 2 s.
    /// Applies the answer. Returns its HTTP status and its body.
    ///
    /// # Errors
    /// When nothing is registered, or there is no answer.
    pub async fn send_click(
        &self,
        out_track_id: &str,
        by: &DingTalkPerson,
        body: String,
    ) -> Result<(u16, Value), Error> {
        let (route, timestamp) = {
            let state = self.lock();
            let card = state.cards.iter().find(|card| card.out_track_id == out_track_id);
            let route = card.and_then(|card| state.registrations.get(&card.route)).cloned();
            (route.ok_or("no callback is registered")?, state.now().as_millisecond().to_string())
        };
        let CardRoute { url, secret } = route;
        let mut request = http::new_client()?.post(url).header("content-type", "application/json");
        if let Some(secret) = secret {
            let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.as_bytes())?;
            mac.update(timestamp.as_bytes());
            let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
            request = request.header("x-ddpaas-signature-timestamp", timestamp);
            request = request.header("x-ddpaas-signature", signature);
        }
        let response = request.body(body).timeout(CALLBACK_TIMEOUT).send().await?;
        let status = response.status();
        let answer = serde_json::from_slice(&http::read_body(response).await?).unwrap_or_default();
        if status.is_success() {
            self.apply_reply(out_track_id, by, &answer)?;
        }
        Ok((status.as_u16(), answer))
    }
}

impl FakeDingTalkState {
    fn clicked_params(
        &self,
        button: &DingTalkButton,
        asks_reason: bool,
        reason: Option<&str>,
    ) -> Result<Map<String, Value>, Error> {
        let mut params = button.params.clone();
        let Some(name) = button.reason_param.as_ref().filter(|_| asks_reason) else { return Ok(params) };
        let reason = reason.unwrap_or_default();
        let max = template::contract().pointer("/input/max_length").and_then(Value::as_u64);
        let length = u64::try_from(reason.chars().count())?;
        if max.is_some_and(|max| length > max) {
            return Err("the reason is too long for the input".into());
        }
        if self.settings.has_form {
            params.insert("form".to_owned(), json!({ name: reason }));
        } else {
            params.insert(name.clone(), reason.into());
        }
        Ok(params)
    }

    fn message_body(&mut self, conversation: &str, kind: &str, text: &str, by: &DingTalkPerson, url: &str) -> Value {
        let now = self.now().as_millisecond();
        let is_member = by.corp == self.settings.corp && !self.strangers.contains(&by.user_id);
        let mut body = json!({
            "msgId": self.next_id("msg"), "createAt": now, "conversationId": conversation, "conversationType": kind,
            "conversationTitle": "netops", "senderId": format!("$:LWCP_v1:${}", by.user_id), "senderNick": "@all **王**",
            "isAdmin": false, "senderCorpId": by.corp, "chatbotCorpId": self.settings.corp,
            "chatbotUserId": "$:LWCP_v1:$robot", "robotCode": self.settings.app, "isInAtList": true,
            "atUsers": [{"dingtalkId": "$:LWCP_v1:$robot"}], "msgtype": "text", "text": {"content": text},
            "sessionWebhook": format!("{url}robot/sendBySession?session=session-{}", by.user_id),
            "sessionWebhookExpiredTime": now + 5_400_000,
        });
        if let Some(members) = body.as_object_mut().filter(|_| is_member) {
            members.insert("senderStaffId".to_owned(), by.user_id.clone().into());
        }
        body
    }
}

//! Clicks in Slack: a form, and perhaps a modal.

use serde_json::Value;

use super::{ButtonClick, CastMember, ChatApp, ChatStage, ClickOutcome, PrivateMessage, SignedAs};
use crate::clock;
use crate::fake::slack::{RecordedPost, SlackButton, SlackMessageRef, visible_buttons, visible_text};
use crate::local::Error;
use crate::local::actions::{CHANNEL, ON_CALL, WebhookReply};

impl ChatStage {
    /// The click of a person on a button in Slack, as Slack sends it.
    ///
    /// # Errors
    /// When there is no such button.
    pub fn slack_click_form(&self, click: &ButtonClick) -> Result<String, Error> {
        let button = self.find_slack_button(click).ok_or_else(|| format!("there is no button {:?}", click.label))?;
        let mut payload = self.click_payload(&button.action_id, &button.value, click.by.slack_id());
        if let Some(fields) = payload.as_object_mut() {
            let path = response_path(click.by);
            fields
                .insert("response_url".to_owned(), format!("{}{}", self.chat_url, path.trim_start_matches('/')).into());
        }
        Ok(payload_form(&payload))
    }

    /// The button in the channel or in a private answer. A person may still see what the card showed before.
    fn find_slack_button(&self, click: &ButtonClick) -> Option<SlackButton> {
        let is_wanted = |id: &str| click.message.as_deref().is_none_or(|message| message == id);
        let private = self.private_messages().into_iter().map(|it| (it.id, it.body));
        let shown = [ON_CALL, CHANNEL].into_iter().flat_map(|channel| self.slack.bodies_in(channel));
        let shown =
            shown.filter(|it| click.message.is_some() || !self.is_escalation(&it.id)).map(|it| (it.id, it.body));
        let bodies: Vec<_> = private.chain(shown).filter(|(id, _)| is_wanted(id)).map(|(_, body)| body).collect();
        let earlier = ["/api/chat.postMessage", "/api/chat.update"].into_iter().flat_map(|path| self.slack.posts(path));
        let earlier = earlier.map(|post| post.body_json());
        let in_channel = |body: &Value| body.get("channel").and_then(Value::as_str) == Some(CHANNEL);
        let buttons = earlier.filter(in_channel).chain(bodies).flat_map(|body| visible_buttons(&body));
        buttons.filter(|button| button.label == click.label).last()
    }

    pub(super) async fn click_in_slack(&self, click: &ButtonClick) -> Result<ClickOutcome, Error> {
        let (modals, form) = (self.slack.modals().len(), self.slack_click_form(click)?);
        let clicked = self.clicked_message(click);
        let reply = self.send_observed(click.by, SignedAs::SlackForm(form), clicked.as_ref()).await?;
        let modal = self.slack.modals().into_iter().nth(modals);
        match (modal, &click.reason) {
            (Some(modal), Some(reason)) => self.answer_slack_modal(&modal, click.by, reason).await,
            (modal, _) => Ok(ClickOutcome { modal, ..reply }),
        }
    }

    /// Answers a modal of Slack.
    ///
    /// # Errors
    /// When the webhook does not reply.
    pub async fn answer_slack_modal(&self, modal: &Value, by: CastMember, reason: &str) -> Result<ClickOutcome, Error> {
        let payload = self.submission_payload(modal, reason, by.slack_id());
        self.send_observed(by, SignedAs::SlackForm(payload_form(&payload)), None).await
    }

    fn clicked_message(&self, click: &ButtonClick) -> Option<SlackMessageRef> {
        let ts = match &click.message {
            Some(id) => id.clone(),
            None => self.last_card()?.ts,
        };
        let channel = if self.is_escalation(&ts) { ON_CALL } else { CHANNEL };
        Some(SlackMessageRef { channel: channel.to_owned(), ts })
    }

    fn is_escalation(&self, ts: &str) -> bool {
        self.slack.bodies_in(ON_CALL).iter().any(|message| message.id == ts)
    }

    /// Sends a request of Slack, and shows what Slack was asked to show.
    async fn send_observed(
        &self,
        by: CastMember,
        signed_as: SignedAs,
        clicked: Option<&SlackMessageRef>,
    ) -> Result<ClickOutcome, Error> {
        let path = response_path(by);
        let before = self.slack.posts(&path).len();
        let reply = self.send_signed(signed_as).await?;
        let answers = self.slack.posts(&path).into_iter().skip(before);
        let mut private = None;
        for body in answers.map(|post: RecordedPost| post.body_json()) {
            if body.get("replace_original") == Some(&Value::Bool(true)) {
                if let Some(SlackMessageRef { channel, ts }) = clicked {
                    self.slack.apply_response(channel, ts, &body);
                }
            } else {
                private = Some(self.remember_slack_answer(by, body));
            }
        }
        Ok(ClickOutcome { private: private.or_else(|| self.answer_in_modal(by, &reply)), reply, modal: None })
    }

    fn remember_slack_answer(&self, to: CastMember, body: Value) -> PrivateMessage {
        let text = visible_text(&body);
        let (id, at) = (format!("private-{:.8}", clock::nonce()), clock::now());
        let message = PrivateMessage { id, to, app: ChatApp::Slack, at, body, text };
        self.show_privately(&message);
        message
    }

    /// The answer to a modal is another view of it.
    fn answer_in_modal(&self, by: CastMember, reply: &WebhookReply) -> Option<PrivateMessage> {
        let view = reply.body_json().get("view")?.clone();
        Some(self.remember_slack_answer(by, view))
    }
}

/// Where Slack takes the private answers to a person. Each person has a path of their own, so that the page knows who reads
/// an answer.
fn response_path(person: CastMember) -> String {
    format!("/actions/T0001/1/{}", person.name())
}

fn payload_form(payload: &Value) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish()
}

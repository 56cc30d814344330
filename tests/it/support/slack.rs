//! What people see and do in Slack.

use std::collections::BTreeSet;

use peergate::chat::SignedRequest;
use peergate::chat::binding::{self, Binding};
use peergate::chat::message::Button;
use peergate::chat::platform::Platform;
use peergate::clock;
use peergate::fake::slack::{self as fake_slack, SlackCard};
use peergate::local::actions::{CHANNEL, SLACK_PATH, WebhookReply};
use peergate::local::sandbox::SLACK_SECRET;
use peergate::peering::{Fingerprint, InstanceId, SeenFingerprint};
use serde_json::{Value, json};

use super::WEBHOOK_PATH;
use super::app::{TestApp, checked};

impl TestApp {
    pub async fn slash_command(&self, text: &str, user: &str) -> WebhookReply {
        checked("/slack", self.stage.slash_command(text, user).await.unwrap())
    }

    pub async fn sign_slash_command(&self, text: &str, user: &str) -> SignedRequest {
        self.stage.sign_slash_command(text, user).await.unwrap()
    }

    pub async fn sign_slack_form(&self, fields: &[(&str, &str)]) -> SignedRequest {
        self.stage.sign_slack_form(fields).await.unwrap()
    }

    pub async fn sign_slack_payload(&self, payload: &Value) -> SignedRequest {
        self.stage.sign_slack_payload(payload).await.unwrap()
    }

    pub async fn send_slack_payload(&self, payload: &Value) -> WebhookReply {
        self.send(&self.sign_slack_payload(payload).await).await
    }

    /// Any form and timestamp, well signed as Slack.
    #[allow(clippy::unused_self, reason = "reads like the others")]
    pub fn sign_slack_body_at(&self, body: &str, timestamp: &str) -> SignedRequest {
        let secret = SLACK_SECRET.to_owned().try_into().unwrap();
        let signature = peergate::chat::slack::sign_body(&secret, timestamp, body.as_bytes());
        SignedRequest {
            path: "/slack".into(),
            headers: vec![
                ("content-type", "application/x-www-form-urlencoded".into()),
                ("x-slack-request-timestamp", timestamp.to_owned()),
                ("x-slack-signature", signature),
            ],
            body: body.to_owned(),
        }
    }

    pub async fn click_button(&self, card: &SlackCard, label: &str, user: &str) -> WebhookReply {
        checked("/slack", self.stage.click_button(card, label, user).await.unwrap())
    }

    /// Clicks a button that is not on any card, with the value that it would have.
    pub async fn click_missing_button(&self, id: &InstanceId, action: &str, user: &str) -> WebhookReply {
        let status = self.status(id, "anybody").await.body_json();
        let fingerprint = status["connection"]["fingerprint"].as_str().unwrap().to_owned().try_into().unwrap();
        let button = match action {
            "peergate.approve" => Button::Approve { needs_reason: false },
            "peergate.approve.reason" => Button::Approve { needs_reason: true },
            "peergate.reject" => Button::Reject,
            "peergate.withdraw" => Button::Withdraw,
            "peergate.acknowledge" => Button::Acknowledge,
            _ => Button::Details,
        };
        let value = self.private_button_value(id, button, &fingerprint, user).await;
        self.send_slack_payload(&self.click_payload(action, &value, user)).await
    }

    /// The value of a button of a private reply to a Slack user.
    pub async fn private_button_value(
        &self,
        id: &InstanceId,
        button: Button,
        fingerprint: &Fingerprint,
        user: &str,
    ) -> String {
        let binding = Binding {
            button,
            target: "prod".into(),
            instance_id: id.clone(),
            seen_fingerprint: SeenFingerprint::first_half_of(fingerprint),
            card_id: binding::private_card_id(&format!("slack:T0001/{user}"), binding::hours_since_epoch(clock::now())),
        };
        let secrets = self.parts.secrets.current(clock::now()).await.unwrap();
        self.parts.chat_context(&secrets).keyring(Platform::Slack).sign(&binding).unwrap()
    }

    /// Answers the last modal; returns what the modal shows then.
    pub async fn answer_modal(&self, reason: &str, user: &str) -> String {
        let reply = checked("/slack", self.stage.answer_modal(reason, user).await.unwrap());
        assert_eq!((reply.status, &reply.body_json()["response_action"]), (200, &json!("update")), "{reply:?}");
        fake_slack::visible_text(&reply.body_json()["view"])
    }

    /// The headlines of the notifications that a path was sent: in Slack those in threads, elsewhere all but the first
    /// card of each connection.
    pub fn posted_headlines(&self, path: &str) -> Vec<String> {
        let line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let posts = self.slack.posts(path).into_iter();
        let notifications = posts.filter(|post| path != SLACK_PATH || post.body_json().get("thread_ts").is_some());
        let mut seen = BTreeSet::new();
        let mut is_first = |headline: &String| {
            let id = headline.split_whitespace().find(|word| word.contains("/pcc-")).unwrap_or_default();
            path == WEBHOOK_PATH && seen.insert(id.trim_end_matches([':', ',']).to_owned())
        };
        notifications.map(|post| line(post.visible_text())).filter(|headline| !is_first(headline)).collect()
    }

    /// The text of the notifications in Slack's threads.
    pub fn thread_replies(&self) -> Vec<String> {
        let posts = self.slack.posts(SLACK_PATH).into_iter();
        posts.filter(|post| post.body_json().get("thread_ts").is_some()).map(|post| post.visible_text()).collect()
    }

    /// The only card in a Slack channel.
    pub fn card_in(&self, channel: &str) -> SlackCard {
        let mut cards = self.slack.messages_in(channel);
        assert_eq!(cards.len(), 1, "{cards:?}");
        cards.remove(0)
    }

    /// The card of a connection in the channel of the rules.
    pub fn card_of(&self, id: &InstanceId) -> SlackCard {
        let cards = self.slack.messages_in(CHANNEL).into_iter();
        cards.rev().find(|card| card.text.contains(id.as_str())).expect("a card")
    }

    /// The only card in the channel of the rules.
    pub fn only_card(&self) -> SlackCard {
        self.card_in(CHANNEL)
    }
}

//! What people, machines and the vendor do around a sandbox. The demo and the tests share it.

use std::ops::Deref;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use url::Url;

use super::sandbox::Sandbox;
use super::{Error, event};
use crate::app::App;
use crate::approval::{Approval, ApprovalId};
use crate::chat::platform::Platform;
use crate::chat::{EventSpec, SignedRequest, slack};
use crate::fake::alicloud::gateway::Fault;
use crate::fake::slack::{RecordedPost, SlackCard};
use crate::peering::InstanceId;
use crate::{clock, http, webhook};

/// Alice's Slack id.
pub const ALICE: &str = "U061F7AUR";
/// Bob's Slack id.
pub const BOB: &str = "U0BOB";
/// Carol's Slack id.
pub const CAROL: &str = "U0CAROL";
/// Erin's Slack id. She is a contact of the requester.
pub const ERIN: &str = "U0ERIN";

/// The channel of the rules, in Slack.
pub const CHANNEL: &str = "C0PEER";
/// The channel of the escalations, in Slack.
pub const ON_CALL: &str = "C0CALL";
/// Where Slack takes a message.
pub const SLACK_PATH: &str = "/api/chat.postMessage";
/// Where Slack takes a private reply.
pub const RESPONSE_PATH: &str = "/actions/T0001/1/abc";

/// The operation that accepts a connection.
pub const ACCEPT: &str = "AcceptVpcPeerConnection";
/// The operation that rejects a connection.
pub const REJECT: &str = "RejectVpcPeerConnection";
/// The operation that reads one connection.
pub const GET: &str = "GetVpcPeerConnectionAttribute";
/// The operation that lists the connections of a region.
pub const LIST: &str = "ListVpcPeerConnections";

/// A sandbox, and the way to its webhook.
#[derive(Debug)]
pub struct Stage {
    /// What runs.
    pub sandbox: Sandbox,
    webhook: Webhook,
}

/// How requests reach the webhook.
#[derive(Debug)]
enum Webhook {
    /// By a call of its function.
    InProcess,
    /// Over HTTP.
    At { url: Url, client: reqwest::Client },
}

/// What the webhook replied.
#[derive(Debug)]
pub struct WebhookReply {
    /// The HTTP status.
    pub status: u16,
    /// By name.
    pub headers: ::http::HeaderMap,
    /// Text, or JSON.
    pub body: String,
}

impl Deref for Stage {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Stage {
    /// Requests are handed to the webhook's function.
    #[must_use]
    pub fn in_process(sandbox: Sandbox) -> Self {
        Self { sandbox, webhook: Webhook::InProcess }
    }

    /// Requests go over HTTP to `webhook`.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn over_http(sandbox: Sandbox, webhook: Url) -> Result<Self, Error> {
        Ok(Self { sandbox, webhook: Webhook::At { url: webhook, client: http::new_client()? } })
    }

    /// Sends a request to the webhook.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn send(&self, signed: &SignedRequest) -> Result<WebhookReply, Error> {
        match &self.webhook {
            Webhook::InProcess => Ok(call_webhook(&self.sandbox.parts, signed, clock::now()).await?),
            Webhook::At { url, client } => {
                let request = client.post(url.join(&signed.path)?).body(signed.body.clone());
                let request = signed.headers.iter().fold(request, |it, (name, value)| it.header(*name, value));
                let response = request.send().await?;
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                Ok(WebhookReply {
                    status,
                    headers,
                    body: String::from_utf8(http::read_body(response).await?.to_vec())?,
                })
            }
        }
    }

    /// A machine approves for `actor`, as the client `ci`.
    ///
    /// # Errors
    /// As [`Stage::send`].
    pub async fn approve(&self, id: &InstanceId, actor: &str) -> Result<WebhookReply, Error> {
        self.send(&self.sign_event("approve", id, actor).await?).await
    }

    /// A machine rejects for `actor`.
    ///
    /// # Errors
    /// As [`Stage::send`].
    pub async fn reject(&self, id: &InstanceId, actor: &str) -> Result<WebhookReply, Error> {
        self.send(&self.sign_event("reject", id, actor).await?).await
    }

    /// A machine withdraws the approval of `actor`.
    ///
    /// # Errors
    /// As [`Stage::send`].
    pub async fn withdraw(&self, id: &InstanceId, actor: &str) -> Result<WebhookReply, Error> {
        self.send(&self.sign_event("withdraw", id, actor).await?).await
    }

    /// A machine asks if the connection could be accepted.
    ///
    /// # Errors
    /// As [`Stage::send`].
    pub async fn dry_run(&self, id: &InstanceId, actor: &str) -> Result<WebhookReply, Error> {
        self.send(&self.sign_event("dry-run", id, actor).await?).await
    }

    /// A machine asks for the status of a connection.
    ///
    /// # Errors
    /// As [`Stage::send`].
    pub async fn status(&self, id: &InstanceId, actor: &str) -> Result<WebhookReply, Error> {
        self.send(&self.sign_event("status", id, actor).await?).await
    }

    /// Somebody types `/peergate text` in Slack.
    ///
    /// # Errors
    /// As [`Stage::send`].
    pub async fn slash_command(&self, text: &str, user: &str) -> Result<WebhookReply, Error> {
        self.send(&self.sign_slash_command(text, user).await?).await
    }

    /// Somebody clicks a button of a card in Slack.
    ///
    /// # Errors
    /// When the card has no such button.
    pub async fn click_button(&self, card: &SlackCard, label: &str, user: &str) -> Result<WebhookReply, Error> {
        self.send(&self.sign_click(card, label, user).await?).await
    }

    /// Somebody answers the last modal that was opened.
    ///
    /// # Errors
    /// When there is none.
    pub async fn answer_modal(&self, reason: &str, user: &str) -> Result<WebhookReply, Error> {
        let modal = self.slack.modals().pop().ok_or("there is no modal")?;
        self.send(&self.sign_slack_payload(&self.submission_payload(&modal, reason, user)).await?).await
    }

    /// The next call of `action` fails with `code` and has no effect.
    pub fn fail_next(&self, action: &str, code: &str) {
        self.simulator.add_fault(failure(action, code));
    }

    /// A decision carries the fingerprint of the present facts, as in `peergate event`.
    #[must_use]
    pub fn event_spec(&self, action: &str, id: &InstanceId, actor: &str) -> EventSpec {
        let decides = ["approve", "reject", "dry-run"].contains(&action);
        let connection = decides.then(|| self.simulator.read_connection(id.as_str())).flatten();
        EventSpec {
            action: action.to_owned(),
            instance_id: id.to_string(),
            target: None,
            reason: None,
            fingerprint: connection.map(|connection| connection.fingerprint().to_string()),
            tenant: Some("ci".to_owned()),
            actor: actor.to_owned(),
        }
    }

    /// An event of the client `ci`.
    ///
    /// # Errors
    /// When the secrets cannot be read, or lack what signs it.
    pub async fn sign_spec(&self, spec: &EventSpec) -> Result<SignedRequest, Error> {
        let secrets = self.parts.secrets.current(clock::now()).await?;
        event::sign_event(Platform::StandardWebhooks, spec, &self.parts.config, &secrets, clock::now())
    }

    /// As [`Stage::event_spec`], signed.
    ///
    /// # Errors
    /// As [`Stage::sign_spec`].
    pub async fn sign_event(&self, action: &str, id: &InstanceId, actor: &str) -> Result<SignedRequest, Error> {
        self.sign_spec(&self.event_spec(action, id, actor)).await
    }

    /// A slash command, as Slack sends it.
    ///
    /// # Errors
    /// As [`Stage::sign_spec`].
    pub async fn sign_slash_command(&self, text: &str, user: &str) -> Result<SignedRequest, Error> {
        self.sign_slack_form(&[
            ("command", "/peergate"),
            ("text", &slack::escape_text(text)),
            ("team_id", "T0001"),
            ("user_id", user),
            ("api_app_id", "A0123"),
            ("trigger_id", &clock::nonce()),
        ])
        .await
    }

    /// A click on a button of a card, as Slack sends it.
    ///
    /// # Errors
    /// When the card has no such button, and as [`Stage::sign_spec`].
    pub async fn sign_click(&self, card: &SlackCard, label: &str, user: &str) -> Result<SignedRequest, Error> {
        let button = card.find_button(label).ok_or_else(|| format!("no {label} on {card:?}"))?;
        self.sign_slack_payload(&self.click_payload(&button.action_id, &button.value, user)).await
    }

    /// An interaction, as Slack sends it.
    ///
    /// # Errors
    /// As [`Stage::sign_spec`].
    pub async fn sign_slack_payload(&self, payload: &Value) -> Result<SignedRequest, Error> {
        self.sign_slack_form(&[("payload", &payload.to_string())]).await
    }

    /// Any form, signed as Slack signs it.
    ///
    /// # Errors
    /// As [`Stage::sign_spec`].
    pub async fn sign_slack_form(&self, fields: &[(&str, &str)]) -> Result<SignedRequest, Error> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let secrets = self.parts.secrets.current(clock::now()).await?;
        let secrets = secrets.platforms.slack.as_ref().ok_or("there is no secret of Slack")?;
        Ok(slack::sign_form(secrets, body, clock::now())?)
    }

    /// What Slack says of a click on a button with `value`, wherever the button is.
    #[must_use]
    pub fn click_payload(&self, action: &str, value: &str, user: &str) -> Value {
        let container = self
            .slack
            .find_by_button(value)
            .map(|it| json!({"type": "message", "channel_id": it.channel, "message_ts": it.ts, "is_ephemeral": false}));
        json!({
            "type": "block_actions",
            "container": container,
            "user": {"id": user, "username": "whoever", "team_id": "T0001"},
            "team": {"id": "T0001"},
            "api_app_id": "A0123",
            "trigger_id": clock::nonce(),
            "response_url": format!("{}{}", self.chat_url, RESPONSE_PATH.trim_start_matches('/')),
            "actions": [{"type": "button", "action_id": action, "value": value, "action_ts": clock::nonce()}],
        })
    }

    /// What Slack says of a modal that was answered.
    #[must_use]
    pub fn submission_payload(&self, modal: &Value, reason: &str, user: &str) -> Value {
        json!({
            "type": "view_submission",
            "user": {"id": user, "username": "whoever", "team_id": "T0001"},
            "team": {"id": "T0001"},
            "api_app_id": "A0123",
            "trigger_id": clock::nonce(),
            "view": {
                "callback_id": modal.get("callback_id"),
                "private_metadata": modal.get("private_metadata"),
                "state": {"values": {"reason": {"reason": {"type": "plain_text_input", "value": reason}}}},
            },
        })
    }

    /// The text of the last private reply to a click.
    #[must_use]
    pub fn last_private_reply(&self) -> String {
        let posts = self.slack.posts(RESPONSE_PATH);
        let is_private = |post: &&RecordedPost| post.body_json().get("replace_original") != Some(&Value::Bool(true));
        posts.iter().rev().find(is_private).map(RecordedPost::visible_text).unwrap_or_default()
    }

    /// The record of a connection.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn load_approval(&self, id: &InstanceId) -> Result<Option<Approval>, Error> {
        let id = ApprovalId { target: "prod".to_owned(), instance_id: id.clone() };
        Ok(self.parts.store.load(&id).await?.map(|stored| stored.approval))
    }

    /// How often the connection was accepted.
    #[must_use]
    pub fn count_accepts(&self, id: &InstanceId) -> usize {
        self.simulator.count_effects(ACCEPT, id.as_str())
    }

    /// The client token of each call that accepts, dry runs apart.
    #[must_use]
    pub fn accept_tokens(&self) -> Vec<String> {
        let journal = self.simulator.journal();
        let accepts = journal.iter().filter(|entry| entry.action == ACCEPT && !entry.is_dry_run());
        accepts.filter_map(|entry| entry.parameters.get("ClientToken").cloned()).collect()
    }
}

/// A failure of the next call of `action`, with the HTTP status that Alibaba Cloud sends with `code`.
#[must_use]
pub fn failure(action: &str, code: &str) -> Fault {
    let http_status = match code {
        "InternalError" => 500,
        "ServiceUnavailable" => 503,
        code if code.starts_with("Forbidden.") => 403,
        code if code.starts_with("ResourceNotFound.") => 404,
        _ => 400,
    };
    Fault { action: Some(action.to_owned()), code: Some(code.to_owned()), http_status, ..Fault::default() }
}

/// Hands a request to the webhook's function at `now`.
///
/// # Errors
/// When it is no HTTP request.
pub async fn call_webhook(app: &App, signed: &SignedRequest, now: Timestamp) -> Result<WebhookReply, ::http::Error> {
    let request = ::http::Request::builder().method("POST").uri(&signed.path);
    let request = signed.headers.iter().fold(request, |it, (name, value)| it.header(*name, value));
    let request = request.body(Bytes::from(signed.body.clone()))?;
    Ok(Box::pin(webhook::handle_request(app, request, now)).await.into())
}

impl From<::http::Response<String>> for WebhookReply {
    fn from(response: ::http::Response<String>) -> Self {
        let (parts, body) = response.into_parts();
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

impl WebhookReply {
    /// Null, if it is no JSON.
    #[must_use]
    pub fn body_json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The outcome, or the end of the problem's type, e.g. `not-an-approver`.
    #[must_use]
    pub fn name(&self) -> String {
        let json = self.body_json();
        let text_at = |key| json.get(key).and_then(Value::as_str);
        let problem = text_at("type").and_then(|uri| uri.strip_prefix("urn:peergate:problem:"));
        problem.or(text_at("outcome")).unwrap_or_default().to_owned()
    }

    /// The sentences for people.
    #[must_use]
    pub fn problem_detail(&self) -> String {
        self.body_json().get("detail").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Whether it has this status and name.
    #[must_use]
    pub fn is(&self, status: u16, name: &str) -> bool {
        self.status == status && self.name() == name
    }

    /// For tests: it has this status and name.
    ///
    /// # Panics
    /// When it has another.
    #[track_caller]
    pub fn assert(&self, status: u16, name: &str) {
        assert_eq!((self.status, self.name().as_str()), (status, name), "{}", self.body);
    }
}

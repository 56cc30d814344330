//! What peergate posts to Slack: messages and modals in Block Kit, and the calls that deliver them.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::api::{SlackApi, json_request};
use super::api_response::{SlackResponse, webhook_error};
use super::form::escape_text;
use super::lookup::message_metadata;
use super::receive::{action_id, modal_metadata};
use super::{
    APPROVE_WITH_REASON, Channel, Config, PlatformContext, REALM, REASON_FIELD, REJECT, ReplyTo, WebhookChannel,
};
use crate::approval::{Principal, Verdict};
use crate::chat::answer::try_twice;
use crate::chat::binding::unverified_connection;
use crate::chat::delivery::{CHAT_TIMEOUT, probe_url};
use crate::chat::message::{self, Button, Link, Message, MessageFact, ShownButton};
use crate::chat::response::{empty_response, json_response, problem_response, set_member};
use crate::chat::{
    AskOutcome, ChannelSecrets, Click, DeliveryError, MAX_REASON_CHARS, MessageRef, Outgoing, PostAttempt, ProbeError,
    Reply, UpdateOutcome,
};
use crate::redaction::KeyProblem;
use crate::secret::SecretUrl;
use crate::{clock, http as our_http};

/// A message in Block Kit. Untrusted text goes into `rich_text`, whose text elements are literal: they mention, link and
/// format nothing.
///
/// Source: <https://docs.slack.dev/reference/block-kit/blocks/rich-text-block>
#[must_use]
pub fn render_message(message: &Message) -> Value {
    let mut blocks = vec![text_block(message)];
    let shown = message.buttons.iter().flat_map(|buttons| &buttons.shown);
    let buttons: Vec<_> = shown
        .filter_map(|ShownButton { button, binding }| Some(button_element(*button, binding.as_deref()?)))
        .collect();
    if !buttons.is_empty() {
        blocks.push(json!({"type": "actions", "elements": buttons}));
    }
    // Slack shows `text` in push notifications, and parses it for mentions and links.
    json!({"text": escape_text(&message.headline), "blocks": blocks, "unfurl_links": false, "unfurl_media": false})
}

fn button_element(button: Button, binding: &str) -> Value {
    let label = json!({"type": "plain_text", "text": button.label()});
    let mut element = json!({"type": "button", "text": label, "action_id": action_id(button), "value": binding});
    let style = match button {
        Button::Approve { .. } | Button::Acknowledge => Some("primary"),
        Button::Reject => Some("danger"),
        Button::Withdraw | Button::Details => None,
    };
    if let Some(style) = style {
        set_member(&mut element, "style", style.into());
    }
    element
}

fn text_block(message: &Message) -> Value {
    let text = |text: String| json!({"type": "text", "text": text});
    let bold = |text: String| json!({"type": "text", "text": text, "style": {"bold": true}});
    let section = |elements: Vec<Value>| json!({"type": "rich_text_section", "elements": elements});
    let literal =
        |text: String| json!({"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]});
    let mut elements = vec![bold(message.headline.clone())];
    elements.extend(mention_elements(&message.mentions));
    for MessageFact { label, value } in &message.facts {
        elements.push(bold(format!("\n{label}: ")));
        elements.push(text(value.clone()));
    }
    elements.extend(message.checks.iter().map(|check| text(format!("\n{check}"))));
    let mut sections = vec![section(elements)];
    if !message.figure.is_empty() {
        sections.push(literal(message.figure.join("\n")));
    }
    // After a figure, the sentences are in a section of their own, which begins on a new line.
    let mut sentences: Vec<_> = message.sentences.iter().map(|sentence| text(format!("\n{sentence}"))).collect();
    if let Some(Link { label, url }) = &message.link {
        sentences.extend([text("\n".into()), json!({"type": "link", "url": url, "text": label})]);
    }
    if !sentences.is_empty() {
        sections.push(section(sentences));
    }
    sections.extend(message.snippet.clone().map(literal));
    json!({"type": "rich_text", "elements": sections})
}

/// A line that mentions the Slack users among these identities.
///
/// Source: <https://docs.slack.dev/reference/block-kit/blocks/rich-text-block#user-element-type>
fn mention_elements(mentions: &[Principal]) -> Vec<Value> {
    let users: BTreeSet<_> = mentions.iter().filter_map(|principal| principal.user_on(REALM)).collect();
    let mut elements = vec![];
    for user_id in users {
        let before = if elements.is_empty() { "\nFor " } else { ", " };
        elements.extend([json!({"type": "text", "text": before}), json!({"type": "user", "user_id": user_id})]);
    }
    elements
}

/// The reply to a slash command; only the sender sees it.
#[must_use]
pub(super) fn ephemeral_reply(message: &Message) -> Value {
    let mut reply = render_message(message);
    set_member(&mut reply, "response_type", "ephemeral".into());
    set_member(&mut reply, "replace_original", false.into());
    reply
}

/// The answer that replaces the modal that asked for a reason.
///
/// Source: <https://docs.slack.dev/surfaces/modals#updating_views>
#[must_use]
pub fn reply_modal(message: &Message) -> Value {
    json!({"response_action": "update", "view": {
        "type": "modal",
        "title": {"type": "plain_text", "text": message::MODAL_TITLE},
        "close": {"type": "plain_text", "text": message::CLOSE_LABEL},
        "blocks": [text_block(&Message { buttons: None, ..message.clone() })],
    }})
}

/// The modal that asks for a reason.
///
/// Source: <https://docs.slack.dev/reference/views/modal-views>
fn reason_modal(verdict: Verdict, click: &Click) -> Value {
    let question = message::reason_form(verdict);
    let plain = |text: &str| json!({"type": "plain_text", "text": text});
    let callback_id = match verdict {
        Verdict::Approve => APPROVE_WITH_REASON,
        Verdict::Reject => REJECT,
    };
    // The binding was verified before.
    let id = unverified_connection(&click.binding).map(|id| format!(" {id}")).unwrap_or_default();
    let summary = Message { headline: format!("VPC peering{id}"), ..Message::default() };
    json!({
        "type": "modal",
        "callback_id": callback_id,
        "private_metadata": modal_metadata(click),
        "title": plain(question.title),
        "submit": plain(question.submit_label),
        "close": plain(message::CLOSE_LABEL),
        "blocks": [text_block(&summary), {
            "type": "input",
            "block_id": REASON_FIELD,
            "optional": question.is_optional,
            "label": plain(question.label),
            "element": {
                "type": "plain_text_input", "action_id": REASON_FIELD, "multiline": true, "max_length": MAX_REASON_CHARS,
            },
        }],
    })
}

/// Asks for a reason in a modal.
pub(in crate::chat) async fn ask_reason(
    access: PlatformContext<'_>,
    to: &ReplyTo,
    click: &Click,
    verdict: Verdict,
    timeout: Duration,
) -> Result<AskOutcome, DeliveryError> {
    let ReplyTo::Click { trigger_id: Some(trigger_id), .. } = to else { return Ok(AskOutcome::Impossible) };
    let Ok(api) = SlackApi::new(access.http, access.config, access.secrets) else { return Ok(AskOutcome::Impossible) };
    api.open_reason_modal(trigger_id, verdict, click, timeout).await.map(|()| AskOutcome::Asked)
}

/// The error at the field for a reason. The modal stays open, with what the person wrote.
///
/// Source: <https://docs.slack.dev/surfaces/modals#displaying_errors>
fn reason_error(message: &Message) -> Value {
    json!({"response_action": "errors", "errors": { (REASON_FIELD): message.headline }})
}

/// Answers the sender. The answer to a click goes to its `response_url`.
pub(in crate::chat) async fn reply(
    access: PlatformContext<'_>,
    to: ReplyTo,
    outgoing: &Outgoing<'_>,
    until: Instant,
) -> Response<String> {
    let message = match outgoing {
        Outgoing::Reply { message, .. } | Outgoing::UnknownCommand(message) => Message::clone(message),
        Outgoing::WrongTenant => message::wrong_tenant("Slack workspace", "platforms.slack.teams"),
        Outgoing::ReasonAsked => return empty_response(),
    };
    match to {
        ReplyTo::Command => json_response(StatusCode::OK, &ephemeral_reply(&message)),
        ReplyTo::Modal if is_about_reason(outgoing) => json_response(StatusCode::OK, &reason_error(&message)),
        ReplyTo::Modal => json_response(StatusCode::OK, &reply_modal(&message)),
        ReplyTo::Click { response_url, .. } => {
            let (answered, ()) = tokio::join!(
                respond_to_click(access.http, &response_url, &message, until),
                redraw_clicked(access.http, &response_url, outgoing, until)
            );
            match (answered, outgoing) {
                (Ok(()), _) => empty_response(),
                // Slack shows an error to the person who clicked.
                (Err(_), Outgoing::WrongTenant) => {
                    problem_response(StatusCode::FORBIDDEN, "wrong-tenant", "not a configured workspace", &Value::Null)
                }
                (Err(undelivered), Outgoing::Reply { .. } | Outgoing::UnknownCommand(_) | Outgoing::ReasonAsked) => {
                    let error = undelivered.error;
                    tracing::warn!(outcome = "unanswered_click", error, "could not answer a click");
                    empty_response()
                }
            }
        }
    }
}

/// Whether the person has to change the reason.
fn is_about_reason(outgoing: &Outgoing<'_>) -> bool {
    matches!(outgoing, Outgoing::Reply { reply: Reply::ReasonRequired { .. } | Reply::ReasonTooLong(_), .. })
}

/// Answers a click; only the person who clicked sees the answer. Slack takes several answers, so a second try does no harm.
async fn respond_to_click(
    http: &reqwest::Client,
    url: &Url,
    message: &Message,
    until: Instant,
) -> Result<(), DeliveryError> {
    let body = ephemeral_reply(message);
    try_twice(|| send_to_webhook(json_request(http, url.clone(), &body)), until).await
}

/// Replaces the clicked message, if it is not the current card. Best effort: the next click tries again.
///
/// Source: <https://docs.slack.dev/interactivity/handling-user-interaction#updating_message_response>
async fn redraw_clicked(http: &reqwest::Client, url: &Url, outgoing: &Outgoing<'_>, until: Instant) {
    let Outgoing::Reply { card: Some(card), .. } = outgoing else { return };
    let mut body = render_message(card);
    set_member(&mut body, "replace_original", true.into());
    let redrawn = try_twice(|| send_to_webhook(json_request(http, url.clone(), &body)), until).await;
    if let Err(undelivered) = redrawn {
        let error = undelivered.error;
        tracing::warn!(outcome = "stale_copy", error, "could not update a message that is not the current card");
    }
}

impl WebhookChannel {
    /// Posts a message.
    ///
    /// Source: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>
    pub(in crate::chat) async fn post(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        message: &Message,
    ) -> Result<(), DeliveryError> {
        post_webhook(http, &endpoint.url, message).await
    }

    /// Without a test message, this proves only that a server answers.
    pub(in crate::chat) async fn probe(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        test: Option<&Message>,
    ) -> Result<&'static str, ProbeError> {
        let Some(test) = test else { return probe_url(http, &endpoint.url).await };
        post_webhook(http, &endpoint.url, test).await?;
        Ok("accepted a test message")
    }
}

async fn post_webhook(http: &reqwest::Client, url: &SecretUrl, message: &Message) -> Result<(), DeliveryError> {
    send_to_webhook(json_request(http, url.expose().clone(), &render_message(message)).timeout(CHAT_TIMEOUT)).await
}

impl Channel {
    /// Posts a message. If an earlier attempt may have posted it, looks for that message first.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/chat.postMessage>
    pub(in crate::chat) async fn post(
        &self,
        access: PlatformContext<'_>,
        message: &Message,
        attempt: PostAttempt<'_>,
    ) -> Result<MessageRef, DeliveryError> {
        let api = SlackApi::new(access.http, access.config, access.secrets)?;
        if let Some(message_id) = api.find_earlier(&access.config.app, &self.channel, None, attempt).await? {
            return Ok(MessageRef { channel: self.channel.clone(), message_id });
        }
        let mut body = message_body(message, &self.channel);
        set_member(&mut body, "metadata", message_metadata(attempt.key));
        let posted = api.call_method("chat.postMessage", &body).await?;
        let place = posted.channel.zip(posted.ts).map(|(channel, message_id)| MessageRef { channel, message_id });
        place.ok_or_else(|| DeliveryError::misconfigured("the answer does not name the message"))
    }

    /// Updates a message.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/chat.update>
    pub(in crate::chat) async fn update(
        &self,
        access: PlatformContext<'_>,
        place: &MessageRef,
        message: &Message,
    ) -> Result<UpdateOutcome, DeliveryError> {
        let mut body = message_body(message, &place.channel);
        set_member(&mut body, "ts", place.message_id.as_str().into());
        match SlackApi::new(access.http, access.config, access.secrets)?.call_method("chat.update", &body).await {
            Ok(_) => Ok(UpdateOutcome::Updated),
            Err(undelivered) if GONE_CODES.contains(&undelivered.code()) => Ok(UpdateOutcome::Gone),
            Err(undelivered) if FROZEN_CODES.contains(&undelivered.code()) => Ok(UpdateOutcome::Frozen),
            Err(undelivered) => Err(undelivered),
        }
    }

    /// Deletes a message of ours.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/chat.delete>
    pub(in crate::chat) async fn delete(
        &self,
        access: PlatformContext<'_>,
        place: &MessageRef,
    ) -> Result<(), DeliveryError> {
        let body = json!({"channel": place.channel, "ts": place.message_id});
        let deleted =
            SlackApi::new(access.http, access.config, access.secrets)?.call_method("chat.delete", &body).await;
        match deleted {
            Err(undelivered) if !GONE_CODES.contains(&undelivered.code()) => Err(undelivered),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Posts to the thread of a message, and to the channel too if `urgent`.
    pub(in crate::chat) async fn reply_below(
        &self,
        access: PlatformContext<'_>,
        place: &MessageRef,
        message: &Message,
        urgent: bool,
        attempt: PostAttempt<'_>,
    ) -> Result<(), DeliveryError> {
        let api = SlackApi::new(access.http, access.config, access.secrets)?;
        let thread = Some(place.message_id.as_str());
        if api.find_earlier(&access.config.app, &place.channel, thread, attempt).await?.is_some() {
            return Ok(());
        }
        let mut body = message_body(message, &place.channel);
        set_member(&mut body, "thread_ts", place.message_id.as_str().into());
        set_member(&mut body, "reply_broadcast", urgent.into());
        set_member(&mut body, "metadata", message_metadata(attempt.key));
        api.call_method("chat.postMessage", &body).await.map(|_| ())
    }

    /// Checks the bot token, and posts `test` if there is one.
    pub(in crate::chat) async fn probe(
        &self,
        access: PlatformContext<'_>,
        test: Option<&Message>,
    ) -> Result<&'static str, ProbeError> {
        let Ok(api) = SlackApi::new(access.http, access.config, access.secrets) else {
            let detail = "there is no bot token".to_owned();
            return Err(ProbeError::Problem { detail, fix: "Store platforms.slack.bot_token." });
        };
        if let Some(error) = workspace_error(access.config, &api.test_auth().await?) {
            let fix = "Store the bot token of a configured workspace, or add the workspace to the configuration.";
            return Err(ProbeError::Problem { detail: error.to_string(), fix });
        }
        let Some(test) = test else { return Ok("the bot token is valid") };
        self.post(access, test, PostAttempt::only(&clock::nonce())).await?;
        Ok("accepted a test message")
    }
}

/// Compares the bot token's workspace with the configuration. `None` if Slack does not answer.
pub(in crate::chat) async fn config_errors(access: PlatformContext<'_>) -> Option<Vec<KeyProblem>> {
    let api = SlackApi::new(access.http, access.config, access.secrets).ok()?;
    let workspace = api.test_auth().await.ok()?;
    Some(workspace_error(access.config, &workspace).into_iter().collect())
}

/// The error if a bot token belongs to no configured workspace.
#[must_use]
pub fn workspace_error(config: &Config, workspace: &Workspace) -> Option<KeyProblem> {
    let error = |key: &str, problem: String| Some(KeyProblem { key: format!("platforms.slack.{key}"), problem });
    match (&config.enterprise, &workspace.enterprise_id, &workspace.team_id) {
        (Some(named), Some(enterprise), _) if named != enterprise => {
            error("enterprise", format!("the bot token belongs to the organization {enterprise}, not to {named}"))
        }
        (Some(named), None, Some(_)) => {
            error("enterprise", format!("the bot token belongs to a workspace outside {named}"))
        }
        // A token of the organization is valid for all its workspaces.
        (Some(_), Some(_), _) | (_, _, None) => None,
        (None, _, Some(team)) if config.teams.contains(team) => None,
        (None, _, Some(team)) => error(
            "teams",
            format!("the bot token belongs to the workspace {team}, which is not in `platforms.slack.teams`"),
        ),
    }
}

fn message_body(message: &Message, channel: &str) -> Value {
    let mut body = render_message(message);
    set_member(&mut body, "channel", channel.into());
    body
}

/// The workspace and the organization of a bot token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// The workspace's id. `None` if Slack does not name it.
    pub team_id: Option<String>,
    /// The organization's id. `None` outside Enterprise Grid.
    pub enterprise_id: Option<String>,
}

impl SlackApi<'_> {
    /// Checks the token and returns its owner. Posts nothing.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/auth.test>
    async fn test_auth(&self) -> Result<Workspace, DeliveryError> {
        let SlackResponse { team_id, enterprise_id, .. } = self.call_method("auth.test", &json!({})).await?;
        Ok(Workspace { team_id, enterprise_id })
    }

    /// Opens the modal that asks for a reason.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/views.open>
    async fn open_reason_modal(
        &self,
        trigger_id: &str,
        verdict: Verdict,
        click: &Click,
        timeout: Duration,
    ) -> Result<(), DeliveryError> {
        let view = reason_modal(verdict, click);
        self.call_method_within("views.open", &json!({"trigger_id": trigger_id, "view": view}), timeout)
            .await
            .map(|_| ())
    }
}

/// Errors of `chat.update` and `chat.delete` for a message that is deleted.
const GONE_CODES: [&str; 2] = ["message_not_found", "thread_not_found"];
/// Errors of `chat.update` for a message that keeps its content: another installation of the app posted it, or the
/// workspace's time for edits is over.
const FROZEN_CODES: [&str; 2] = ["cant_update_message", "edit_window_closed"];

async fn send_to_webhook(request: reqwest::RequestBuilder) -> Result<(), DeliveryError> {
    let response = request.send().await.map_err(|error| DeliveryError::from_transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = our_http::read_body(response).await.map_err(|error| DeliveryError::from_transport(&error))?;
    webhook_error(status, &headers, &body).map_or(Ok(()), Err)
}

/// The steps of an operator so that requests arrive at `url`.
#[cfg(feature = "local")]
pub(in crate::chat) async fn register_webhook(access: PlatformContext<'_>, url: &url::Url) -> Result<String, String> {
    Ok(format!(
        "Slack has no API for this. Enter {url} as the Request URL under Interactivity & Shortcuts and under Slash Commands \
         (/peergate) of the app {}.",
        access.config.app
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bot_token_of_another_workspace_is_reported() {
        let config = |more: &str| toml::from_str::<Config>(&format!("teams = [\"T1\"]\napp = \"A1\"\n{more}")).unwrap();
        let (plain, grid) = (config(""), config("enterprise = \"E1\""));
        let error = |config: &Config, team: Option<&str>, enterprise: Option<&str>| {
            let workspace =
                Workspace { team_id: team.map(ToOwned::to_owned), enterprise_id: enterprise.map(ToOwned::to_owned) };
            workspace_error(config, &workspace).map(|error| error.key)
        };
        assert_eq!(error(&plain, Some("T1"), None), None);
        assert_eq!(error(&plain, Some("T1"), Some("E1")), None);
        assert_eq!(error(&plain, Some("T2"), None).as_deref(), Some("platforms.slack.teams"));
        assert_eq!(error(&plain, None, None), None, "nothing is known");
        assert_eq!(error(&grid, Some("T1"), Some("E1")), None);
        assert_eq!(error(&grid, Some("E1"), Some("E1")), None);
        assert_eq!(error(&grid, Some("T1"), Some("E2")).as_deref(), Some("platforms.slack.enterprise"));
        assert_eq!(error(&grid, Some("T1"), None).as_deref(), Some("platforms.slack.enterprise"));
    }
}

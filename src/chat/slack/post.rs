//! What we say to Slack: messages and windows in Block Kit, and how they get there.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{APPROVE_WITH_REASON, REASON, REJECT, action_id, button_value};
use crate::approval::{Redelivery, Verdict};
use crate::chat::message::{self, Message};
use crate::chat::{About, LONGEST_REASON_CHARS, POST_TIMEOUT, Undelivered, retry_after};
use crate::secrets::{Secret, SecretUrl};
use crate::{clock, http as our_http};

/// What is left of Slack's 3 s for telling the person who clicked.
const RESPOND_TIMEOUT: Duration = Duration::from_millis(600);

/// A message in Block Kit. What outsiders wrote goes into `rich_text`, whose text elements are literal: they mention,
/// link and format nothing.
///
/// Source: <https://docs.slack.dev/reference/block-kit/blocks/rich-text-block>
#[must_use]
pub fn render(message: &Message) -> Value {
    let mut blocks = vec![text_block(message)];
    if let Some(buttons) = &message.buttons {
        let value = button_value(&buttons.target, &buttons.instance_id, &buttons.fingerprint);
        let shown = buttons.shown.iter().map(|button| {
            let label = json!({"type": "plain_text", "text": button.label()});
            let mut shown = json!({"type": "button", "text": label, "action_id": action_id(*button), "value": value});
            let style = match button {
                message::Button::Approve { .. } => Some("primary"),
                message::Button::Reject => Some("danger"),
                message::Button::Withdraw | message::Button::Details => None,
            };
            if let Some(style) = style {
                insert(&mut shown, "style", style.into());
            }
            shown
        });
        blocks.push(json!({"type": "actions", "elements": shown.collect::<Vec<_>>()}));
    }
    // The text of notifications is parsed for mentions and links.
    let headline = message.headline.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({"text": headline, "blocks": blocks, "unfurl_links": false, "unfurl_media": false})
}

fn text_block(message: &Message) -> Value {
    let text = |text: String| json!({"type": "text", "text": text});
    let bold = |text: String| json!({"type": "text", "text": text, "style": {"bold": true}});
    let section = |elements: Vec<Value>| json!({"type": "rich_text_section", "elements": elements});
    let literal =
        |text: String| json!({"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]});
    let mut elements = vec![bold(message.headline.clone())];
    for (label, value) in &message.facts {
        elements.push(bold(format!("\n{label}: ")));
        elements.push(text(value.clone()));
    }
    elements.extend(message.checks.iter().map(|check| text(format!("\n{check}"))));
    let mut sections = vec![section(elements)];
    if !message.figure.is_empty() {
        sections.push(literal(message.figure.join("\n")));
    }
    // A section of its own only below a figure: there it begins a line by itself.
    let mut sentences: Vec<_> = message.sentences.iter().map(|sentence| text(format!("\n{sentence}"))).collect();
    if let Some((label, url)) = &message.link {
        sentences.extend([text("\n".into()), json!({"type": "link", "url": url, "text": label})]);
    }
    if !sentences.is_empty() {
        sections.push(section(sentences));
    }
    sections.extend(message.snippet.clone().map(literal));
    json!({"type": "rich_text", "elements": sections})
}

/// The reply to a slash command, for the person alone.
#[must_use]
pub fn ephemeral(message: &Message) -> Value {
    let mut reply = render(message);
    insert(&mut reply, "response_type", "ephemeral".into());
    insert(&mut reply, "replace_original", false.into());
    reply
}

/// What takes the place of the window that asked for a reason.
///
/// Source: <https://docs.slack.dev/surfaces/modals#updating_views>
#[must_use]
pub fn answer_window(message: &Message) -> Value {
    json!({"response_action": "update", "view": {
        "type": "modal",
        "title": {"type": "plain_text", "text": message::ANSWER_TITLE},
        "close": {"type": "plain_text", "text": message::CLOSE},
        "blocks": [text_block(&Message { buttons: None, ..message.clone() })],
    }})
}

/// The window that asks for a reason.
///
/// Source: <https://docs.slack.dev/reference/views/modal-views>
fn question_window(verdict: Verdict, about: &About) -> Option<Value> {
    let question = message::question(verdict);
    let plain = |text: &str| json!({"type": "plain_text", "text": text});
    let callback_id = match verdict {
        Verdict::Approve => APPROVE_WITH_REASON,
        Verdict::Reject => REJECT,
    };
    let value = button_value(about.target.as_ref()?, &about.instance_id, about.fingerprint.as_ref()?);
    let summary = Message { headline: about.instance_id.to_string(), ..Message::default() };
    Some(json!({
        "type": "modal",
        "callback_id": callback_id,
        "private_metadata": value,
        "title": plain(question.title),
        "submit": plain(question.submit),
        "close": plain(message::CLOSE),
        "blocks": [text_block(&summary), {
            "type": "input",
            "block_id": REASON,
            "optional": question.optional,
            "label": plain(question.label),
            "element": {
                "type": "plain_text_input", "action_id": REASON, "multiline": true, "max_length": LONGEST_REASON_CHARS,
            },
        }],
    }))
}

/// Answers a click, to the person alone.
pub async fn respond(http: &reqwest::Client, url: Url, message: &Message) -> Result<(), Undelivered> {
    webhook_answer(json_post(http, url, &ephemeral(message)).timeout(RESPOND_TIMEOUT)).await
}

/// Posts to an incoming webhook. What is there can't be changed.
///
/// Source: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>
pub async fn post_webhook(http: &reqwest::Client, url: &SecretUrl, message: &Message) -> Result<(), Undelivered> {
    webhook_answer(json_post(http, url.expose().clone(), &render(message)).timeout(POST_TIMEOUT)).await
}

/// Slack's Web API, as our bot.
#[derive(Debug, Clone, Copy)]
pub struct Api<'a> {
    /// The one client.
    pub http: &'a reqwest::Client,
    /// Where it is.
    pub url: &'a Url,
    /// The bot's.
    pub token: &'a Secret,
}

/// What the Web API answers.
#[derive(Deserialize)]
struct Posted {
    ok: bool,
    error: Option<String>,
    channel: Option<String>,
    ts: Option<String>,
    team_id: Option<String>,
    enterprise_id: Option<String>,
}

/// The workspace and the organization of a bot token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// The workspace's id; none if Slack does not say.
    pub team_id: Option<String>,
    /// The organization's id; none outside Enterprise Grid.
    pub enterprise_id: Option<String>,
}

impl Api<'_> {
    /// Posts a card. Returns where it is, as `channel/ts`.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/chat.postMessage>
    pub async fn post(&self, channel: &str, message: &Message) -> Result<String, Undelivered> {
        let mut body = render(message);
        insert(&mut body, "channel", channel.into());
        let posted = self.call("chat.postMessage", &body, POST_TIMEOUT).await?;
        let reference = posted.channel.zip(posted.ts).map(|(channel, ts)| format!("{channel}/{ts}"));
        reference.ok_or_else(|| refused("the answer does not say where the message is"))
    }

    /// Checks the token and returns its owner. Posts nothing.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/auth.test>
    pub async fn test(&self) -> Result<Workspace, Undelivered> {
        let Posted { team_id, enterprise_id, .. } = self.call("auth.test", &json!({}), POST_TIMEOUT).await?;
        Ok(Workspace { team_id, enterprise_id })
    }

    /// Draws a card anew. `Ok(false)` when it is gone, or can't be changed any more.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/chat.update>
    pub async fn update(&self, reference: &str, message: &Message) -> Result<bool, Undelivered> {
        let Some((channel, ts)) = reference.split_once('/') else { return Ok(false) };
        let mut body = render(message);
        insert(&mut body, "channel", channel.into());
        insert(&mut body, "ts", ts.into());
        match self.call("chat.update", &body, POST_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(Undelivered { error, .. }) if GONE.contains(&error.as_str()) => Ok(false),
            Err(undelivered) => Err(undelivered),
        }
    }

    /// Says something below a card; what is urgent, in the channel, too.
    pub async fn reply(&self, reference: &str, message: &Message, urgent: bool) -> Result<(), Undelivered> {
        let (channel, ts) = reference.split_once('/').ok_or_else(|| refused("the card is nowhere"))?;
        let mut body = render(message);
        insert(&mut body, "channel", channel.into());
        insert(&mut body, "thread_ts", ts.into());
        insert(&mut body, "reply_broadcast", urgent.into());
        self.call("chat.postMessage", &body, POST_TIMEOUT).await.map(|_| ())
    }

    /// Opens the window that asks for a reason.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/views.open>
    pub async fn ask(
        &self,
        trigger_id: &str,
        verdict: Verdict,
        about: &About,
        timeout: Duration,
    ) -> Result<(), Undelivered> {
        let view = question_window(verdict, about).ok_or_else(|| refused("the button says too little"))?;
        self.call("views.open", &json!({"trigger_id": trigger_id, "view": view}), timeout).await.map(|_| ())
    }

    /// Nearly every failure is an HTTP 200 with `"ok": false`.
    async fn call(&self, method: &str, body: &Value, timeout: Duration) -> Result<Posted, Undelivered> {
        let url = self.url.join(method).map_err(|_| refused("invalid slack.api"))?;
        let request = json_post(self.http, url, body).timeout(timeout).bearer_auth(self.token.expose());
        let response = request.send().await.map_err(|error| Undelivered::transport(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = our_http::read(response).await.map_err(|error| Undelivered::transport(&error))?;
        if !status.is_success() {
            return Err(Undelivered::status(status, &headers, clock::now()));
        }
        let soon = Redelivery::Soon(retry_after(&headers, clock::now()));
        let posted: Posted = serde_json::from_slice(&body)
            .map_err(|_| Undelivered { error: "unreadable answer".into(), retry: soon })?;
        if posted.ok {
            return Ok(posted);
        }
        let error = posted.error.as_deref().and_then(our_http::word).unwrap_or_else(|| "no error code".into());
        let retry = match error.as_str() {
            "ratelimited" | "rate_limited" | "internal_error" | "fatal_error" | "service_unavailable" => soon,
            "invalid_blocks" | "invalid_arguments" | "msg_too_long" | "msg_blocks_too_long" | "no_text" => {
                Redelivery::Few
            }
            _ => Redelivery::Later,
        };
        Err(Undelivered { error, retry })
    }
}

/// What `chat.update` says of a message that it will never change.
const GONE: [&str; 4] = ["message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found"];

fn refused(error: &str) -> Undelivered {
    Undelivered { error: error.to_owned(), retry: Redelivery::Later }
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

fn json_post(http: &reqwest::Client, url: Url, body: &Value) -> reqwest::RequestBuilder {
    http.post(url).header("content-type", "application/json; charset=utf-8").body(body.to_string())
}

async fn webhook_answer(request: reqwest::RequestBuilder) -> Result<(), Undelivered> {
    let response = request.send().await.map_err(|error| Undelivered::transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = our_http::read(response).await.map_err(|error| Undelivered::transport(&error))?;
    if status.is_success() {
        return if body == "ok" { Ok(()) } else { Err(refused("the answer is not `ok`")) };
    }
    let undelivered = Undelivered::status(status, &headers, clock::now());
    // Here, 410 is an archived channel, which people can bring back.
    let gone = undelivered.retry == Redelivery::Never;
    Err(if gone { Undelivered { retry: Redelivery::Later, ..undelivered } } else { undelivered })
}

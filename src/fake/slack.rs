//! A fake chat server. It is Slack's Web API with messages, threads, edits and modals, an incoming webhook, and any other
//! URL that takes posts. It refuses what Slack refuses, and records the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A running fake.
#[derive(Debug, Clone, Default)]
pub struct FakeSlack {
    state: Arc<Mutex<FakeSlackState>>,
}

#[derive(Debug, Default)]
struct FakeSlackState {
    posts: Vec<RecordedPost>,
    messages: Vec<SlackMessage>,
    modals: Vec<Value>,
    triggers: BTreeSet<String>,
    /// The latest message of each button, by the button's value.
    bindings: BTreeMap<String, SlackMessageRef>,
    outages: Vec<ScheduledOutage>,
}

#[derive(Debug)]
struct ScheduledOutage {
    /// The number of posts that still succeed.
    posts_before: usize,
    outage: Outage,
}

/// A request that the fake acknowledged.
#[derive(Debug, Clone)]
pub struct RecordedPost {
    /// The path of the URL.
    pub path: String,
    /// The HTTP headers.
    pub headers: HeaderMap,
    /// The raw body.
    pub body: Bytes,
}

/// Identifies a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlackMessageRef {
    /// The channel's id.
    pub channel: String,
    /// The id of the message within the channel.
    pub ts: String,
}

/// The current state of a message in a channel.
#[derive(Debug, Clone)]
struct SlackMessage {
    channel: String,
    ts: String,
    thread_ts: Option<String>,
    broadcast: bool,
    body: Value,
    edits: u32,
}

/// A message as people in the channel see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlackCard {
    /// The id of the message within the channel.
    pub ts: String,
    /// All visible text.
    pub text: String,
    /// In order.
    pub buttons: Vec<SlackButton>,
    /// The number of updates.
    pub edits: u32,
    /// The messages in its thread, the oldest first.
    pub replies: Vec<SlackReply>,
}

/// A button of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlackButton {
    /// The visible text.
    pub label: String,
    /// The id within the message.
    pub action_id: String,
    /// What a click sends.
    pub value: String,
}

/// A message in a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlackReply {
    /// All visible text.
    pub text: String,
    /// Whether the channel shows it, too.
    pub broadcast: bool,
}

impl SlackCard {
    /// The button with this label.
    #[must_use]
    pub fn find_button(&self, label: &str) -> Option<&SlackButton> {
        self.buttons.iter().find(|button| button.label == label)
    }

    /// The labels of the buttons, in order.
    #[must_use]
    pub fn button_labels(&self) -> Vec<&str> {
        self.buttons.iter().map(|button| button.label.as_str()).collect()
    }

    /// The first line of each message in the thread.
    #[must_use]
    pub fn thread_headlines(&self) -> Vec<&str> {
        self.replies.iter().map(|reply| reply.text.lines().next().unwrap_or_default()).collect()
    }
}

/// A failure of all posts to a path.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    /// The path of the URL.
    pub path: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The body of the answer.
    pub body: String,
    /// The header `retry-after`, in seconds.
    pub retry_after: Option<u16>,
    /// Whether there is no answer at all.
    pub hangs: bool,
}

impl RecordedPost {
    /// The body as JSON; null if it is not JSON.
    #[must_use]
    pub fn body_json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// All text that a person would see.
    #[must_use]
    pub fn visible_text(&self) -> String {
        visible_text(&self.body_json())
    }
}

/// All visible text of a message, a modal or a reply.
#[must_use]
pub fn visible_text(body: &Value) -> String {
    fn collect_texts(value: &Value, into: &mut Vec<String>) {
        let nested = value.get("elements").and_then(Value::as_array).into_iter().flatten();
        for element in nested {
            collect_texts(element, into);
        }
        match value.get("type").and_then(Value::as_str) {
            Some("text" | "link") => into.extend(value.get("text").and_then(Value::as_str).map(ToOwned::to_owned)),
            Some("rich_text_preformatted" | "rich_text_section") => into.push("\n".to_owned()),
            _ => {}
        }
    }
    let mut texts = vec![];
    for block in body.get("blocks").and_then(Value::as_array).into_iter().flatten() {
        if block.get("type").and_then(Value::as_str) == Some("rich_text") {
            collect_texts(block, &mut texts);
        }
    }
    let lines = texts.concat();
    let lines = lines.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

fn visible_buttons(body: &Value) -> Vec<SlackButton> {
    let blocks = body.get("blocks").and_then(Value::as_array).into_iter().flatten();
    let actions = blocks.filter(|block| block.get("type").and_then(Value::as_str) == Some("actions"));
    let elements = actions.flat_map(|block| block.get("elements").and_then(Value::as_array).into_iter().flatten());
    let word = |element: &Value, at: &str| element.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let button = |element| SlackButton {
        label: word(element, "/text/text"),
        action_id: word(element, "/action_id"),
        value: word(element, "/value"),
    };
    elements.map(button).collect()
}

impl FakeSlack {
    /// Answers requests on `listener` until the task ends.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        axum::serve(listener, self.router()).await
    }

    /// Takes posts to every path.
    pub fn router(self) -> Router {
        Router::new().fallback(handle_post).with_state(self)
    }

    fn lock(&self) -> MutexGuard<'_, FakeSlackState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All acknowledged posts to a path.
    #[must_use]
    pub fn posts(&self, path: &str) -> Vec<RecordedPost> {
        self.lock().posts.iter().filter(|post| post.path == path).cloned().collect()
    }

    /// The messages of a channel, the oldest first.
    #[must_use]
    pub fn messages_in(&self, id: &str) -> Vec<SlackCard> {
        let state = self.lock();
        let in_channel = state.messages.iter().filter(|message| message.channel == id);
        let cards = in_channel.clone().filter(|message| message.thread_ts.is_none()).map(|message| {
            let thread = in_channel.clone().filter(|reply| reply.thread_ts.as_ref() == Some(&message.ts));
            SlackCard {
                ts: message.ts.clone(),
                text: visible_text(&message.body),
                buttons: visible_buttons(&message.body),
                edits: message.edits,
                replies: thread
                    .map(|reply| SlackReply { text: visible_text(&reply.body), broadcast: reply.broadcast })
                    .collect(),
            }
        });
        cards.collect()
    }

    /// The latest message with a button of this value, even if an update has removed the button.
    #[must_use]
    pub fn find_by_button(&self, value: &str) -> Option<SlackMessageRef> {
        self.lock().bindings.get(value).cloned()
    }

    /// Deletes a message, as a person would.
    pub fn delete_message(&self, channel: &str, ts: &str) {
        self.lock().messages.retain(|message| message.channel != channel || message.ts != ts);
    }

    /// The opened modals, the oldest first.
    #[must_use]
    pub fn modals(&self) -> Vec<Value> {
        self.lock().modals.clone()
    }

    /// Lets posts to a path fail until [`FakeSlack::clear_outages`].
    pub fn add_outage(&self, outage: Outage) {
        self.add_outage_after(0, outage);
    }

    /// Like [`FakeSlack::add_outage`], but the next `posts` posts still succeed.
    pub fn add_outage_after(&self, posts: usize, outage: Outage) {
        self.lock().outages.push(ScheduledOutage { posts_before: posts, outage });
    }

    fn is_hanging(&self, path: &str) -> bool {
        self.lock().outages.iter().any(|it| it.outage.hangs && it.outage.path == path)
    }

    /// Ends all outages.
    pub fn clear_outages(&self) {
        self.lock().outages.clear();
    }
}

impl FakeSlackState {
    /// Calls a method of Slack's Web API.
    fn call_method(&mut self, method: &str, body: &Value) -> Result<Value, &'static str> {
        let word = |name: &str| body.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        let find = |messages: &[SlackMessage], channel: &str, ts: &str| {
            messages.iter().position(|message| message.channel == channel && message.ts == ts)
        };
        match method {
            "chat.postMessage" => {
                check_blocks(body)?;
                let channel = word("channel").ok_or("channel_not_found")?;
                let thread_ts = word("thread_ts");
                if thread_ts.as_ref().is_some_and(|ts| find(&self.messages, &channel, ts).is_none()) {
                    return Err("thread_not_found");
                }
                let ts = format!("1700000000.{:06}", self.posts.len());
                let broadcast = body.get("reply_broadcast").and_then(Value::as_bool).unwrap_or_default();
                self.record_buttons(body, &channel, &ts);
                let body = body.clone();
                self.messages.push(SlackMessage {
                    channel: channel.clone(),
                    ts: ts.clone(),
                    thread_ts,
                    broadcast,
                    body,
                    edits: 0,
                });
                Ok(json!({"ok": true, "channel": channel, "ts": ts}))
            }
            "chat.update" => {
                check_blocks(body)?;
                let (channel, ts) = word("channel").zip(word("ts")).ok_or("message_not_found")?;
                let position = find(&self.messages, &channel, &ts).ok_or("message_not_found")?;
                let message = self.messages.get_mut(position).ok_or("message_not_found")?;
                message.body = body.clone();
                message.edits += 1;
                self.record_buttons(body, &channel, &ts);
                Ok(json!({"ok": true, "channel": channel, "ts": ts}))
            }
            "auth.test" => Ok(json!({"ok": true, "team_id": "T0001", "user_id": "U0BOT"})),
            "views.open" => {
                let trigger = word("trigger_id").filter(|trigger| !trigger.is_empty()).ok_or("invalid_trigger_id")?;
                let view = body.get("view").cloned().unwrap_or_default();
                let title = view.pointer("/title/text").and_then(Value::as_str).unwrap_or_default();
                if !(1..=24).contains(&title.chars().count()) {
                    return Err("invalid_arguments");
                }
                check_blocks(&view)?;
                if !self.triggers.insert(trigger) {
                    return Err("exchanged_trigger_id");
                }
                self.modals.push(view);
                Ok(json!({"ok": true}))
            }
            _ => Err("unknown_method"),
        }
    }
}

impl FakeSlackState {
    fn record_buttons(&mut self, body: &Value, channel: &str, ts: &str) {
        let message = SlackMessageRef { channel: channel.to_owned(), ts: ts.to_owned() };
        self.bindings.extend(visible_buttons(body).into_iter().map(|button| (button.value, message.clone())));
    }
}

/// Checks the blocks of a message as Slack does.
///
/// Source: <https://docs.slack.dev/reference/block-kit/blocks>
///
/// # Errors
/// The error code of Slack.
pub fn check_blocks(body: &Value) -> Result<(), &'static str> {
    fn is_valid_block(value: &Value) -> bool {
        let length = |at: &str| value.pointer(at).and_then(Value::as_str).map(|text| text.chars().count());
        let fits = match value.get("type").and_then(Value::as_str) {
            Some("text" | "link") => length("/text").is_some_and(|length| length > 0),
            Some("button") => {
                length("/text/text").is_some_and(|length| (1..=75).contains(&length))
                    && length("/value").is_none_or(|length| length <= 2000)
                    && length("/action_id").is_none_or(|length| length <= 255)
            }
            _ => true,
        };
        let elements = value.get("elements").and_then(Value::as_array);
        fits && elements.is_none_or(|elements| !elements.is_empty() && elements.iter().all(is_valid_block))
    }
    let blocks = body.get("blocks").and_then(Value::as_array).ok_or("no_text")?;
    let buttons = visible_buttons(body);
    let names: BTreeSet<_> = buttons.iter().map(|button| &button.action_id).collect();
    let fits = (1..=50).contains(&blocks.len()) && blocks.iter().all(is_valid_block) && names.len() == buttons.len();
    if fits && body.to_string().len() < 40_000 { Ok(()) } else { Err("invalid_blocks") }
}

async fn handle_post(State(fake): State<FakeSlack>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    if fake.is_hanging(&path) {
        return std::future::pending().await;
    }
    let mut state = fake.lock();
    let scheduled = state.outages.iter_mut().find(|it| it.outage.path == path);
    if let Some(ScheduledOutage { posts_before: posts_before @ 1.., .. }) = scheduled {
        *posts_before -= 1;
    } else if let Some(ScheduledOutage { outage, .. }) = scheduled {
        let status = StatusCode::from_u16(outage.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, outage.body.clone()).into_response();
        if let Some(seconds) = outage.retry_after {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        return response;
    }
    let post = RecordedPost { path, headers, body };
    let answer = match post.path.strip_prefix("/api/") {
        Some(method) => {
            let token = post.headers.get("authorization").and_then(|value| value.to_str().ok());
            let is_known = token.is_some_and(|token| token.starts_with("Bearer xoxb-"));
            match if is_known { state.call_method(method, &post.body_json()) } else { Err("not_authed") } {
                Ok(answer) => answer.to_string(),
                Err(error) => return json!({"ok": false, "error": error}).to_string().into_response(),
            }
        }
        None => "ok".to_owned(),
    };
    state.posts.push(post);
    answer.into_response()
}

//! A chat platform that keeps what it is told: Slack, with its messages, threads, edits and windows; incoming webhooks;
//! and any other URL. It refuses what Slack would refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A running sink.
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
    /// Which message each button was last on, by what it carries.
    bindings: BTreeMap<String, (String, String)>,
    /// With how many posts are taken before.
    outages: Vec<(usize, Outage)>,
}

/// Something that was posted and acknowledged.
#[derive(Debug, Clone)]
pub struct RecordedPost {
    /// Where to.
    pub path: String,
    /// With what.
    pub headers: HeaderMap,
    /// As sent.
    pub body: Bytes,
}

/// A message in a channel, as it is now.
#[derive(Debug, Clone)]
struct SlackMessage {
    channel: String,
    ts: String,
    thread_ts: Option<String>,
    broadcast: bool,
    body: Value,
    edits: u32,
}

/// What somebody who looks at a channel sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlackCard {
    /// Names the message within its channel.
    pub ts: String,
    /// All its text.
    pub text: String,
    /// Its buttons.
    pub buttons: Vec<SlackButton>,
    /// How often it was changed.
    pub edits: u32,
    /// What stands below it.
    pub replies: Vec<SlackReply>,
}

/// A button that somebody could click.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlackButton {
    /// What is on it.
    pub label: String,
    /// Names it.
    pub action_id: String,
    /// What it carries.
    pub value: String,
}

/// Something said below a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlackReply {
    /// All its text.
    pub text: String,
    /// Whether it is shown in the channel, too.
    pub broadcast: bool,
}

impl SlackCard {
    /// The button with that label.
    #[must_use]
    pub fn find_button(&self, label: &str) -> Option<&SlackButton> {
        self.buttons.iter().find(|button| button.label == label)
    }

    /// The labels of its buttons.
    #[must_use]
    pub fn button_labels(&self) -> Vec<&str> {
        self.buttons.iter().map(|button| button.label.as_str()).collect()
    }

    /// The first lines of what stands below it.
    #[must_use]
    pub fn thread_headlines(&self) -> Vec<&str> {
        self.replies.iter().map(|reply| reply.text.lines().next().unwrap_or_default()).collect()
    }
}

/// Posts to a path are refused.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    /// Which path.
    pub path: String,
    /// With this status.
    pub status: u16,
    /// And this body.
    pub body: String,
    /// The header `retry-after`, in seconds.
    pub retry_after: Option<u16>,
    /// There is no answer at all.
    pub hangs: bool,
}

impl RecordedPost {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn body_json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// All the text that a person would see.
    #[must_use]
    pub fn visible_text(&self) -> String {
        visible_text(&self.body_json())
    }
}

/// All the text of a message, a window or a reply.
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
    /// Answers on `listener` until the task ends.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        axum::serve(listener, self.router()).await
    }

    /// Takes whatever is posted.
    pub fn router(self) -> Router {
        Router::new().fallback(handle_post).with_state(self)
    }

    fn lock(&self) -> MutexGuard<'_, FakeSlackState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was posted to a path so far.
    #[must_use]
    pub fn posts(&self, path: &str) -> Vec<RecordedPost> {
        self.lock().posts.iter().filter(|post| post.path == path).cloned().collect()
    }

    /// The messages of a Slack channel as they are now, the oldest first.
    #[must_use]
    pub fn messages_in(&self, id: &str) -> Vec<SlackCard> {
        let inner = self.lock();
        let here = inner.messages.iter().filter(|message| message.channel == id);
        let shown = here.clone().filter(|message| message.thread_ts.is_none()).map(|message| {
            let below = here.clone().filter(|reply| reply.thread_ts.as_ref() == Some(&message.ts));
            SlackCard {
                ts: message.ts.clone(),
                text: visible_text(&message.body),
                buttons: visible_buttons(&message.body),
                edits: message.edits,
                replies: below
                    .map(|reply| SlackReply { text: visible_text(&reply.body), broadcast: reply.broadcast })
                    .collect(),
            }
        });
        shown.collect()
    }

    /// The message, by channel and `ts`, whose button carries this, now or before.
    #[must_use]
    pub fn find_by_button(&self, value: &str) -> Option<(String, String)> {
        self.lock().bindings.get(value).cloned()
    }

    /// Somebody deletes a message.
    pub fn delete_message(&self, channel: &str, ts: &str) {
        self.lock().messages.retain(|message| message.channel != channel || message.ts != ts);
    }

    /// The windows that were opened, the last one last.
    #[must_use]
    pub fn modals(&self) -> Vec<Value> {
        self.lock().modals.clone()
    }

    /// Refuses posts to a path until [`Sink::heal`].
    pub fn add_outage(&self, trouble: Outage) {
        self.add_outage_after(0, trouble);
    }

    /// As [`Sink::trouble`], once so many posts more were taken.
    pub fn add_outage_after(&self, posts: usize, trouble: Outage) {
        self.lock().outages.push((posts, trouble));
    }

    fn is_hanging(&self, path: &str) -> bool {
        self.lock().outages.iter().any(|(_, trouble)| trouble.hangs && trouble.path == path)
    }

    /// Ends all trouble.
    pub fn clear_outages(&self) {
        self.lock().outages.clear();
    }
}

impl FakeSlackState {
    /// A method of Slack's Web API.
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
        let place = (channel.to_owned(), ts.to_owned());
        self.bindings.extend(visible_buttons(body).into_iter().map(|button| (button.value, place.clone())));
    }
}

/// What Slack checks of Block Kit.
///
/// Source: <https://docs.slack.dev/reference/block-kit/blocks>
///
/// # Errors
/// The code that Slack answers with.
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

async fn handle_post(State(sink): State<FakeSlack>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    if sink.is_hanging(&path) {
        return std::future::pending().await;
    }
    let mut inner = sink.lock();
    let troubled = inner.outages.iter_mut().find(|(_, trouble)| trouble.path == path);
    if let Some((posts @ 1.., _)) = troubled {
        *posts -= 1;
    } else if let Some((_, trouble)) = troubled {
        let status = StatusCode::from_u16(trouble.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, trouble.body.clone()).into_response();
        if let Some(seconds) = trouble.retry_after {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        return response;
    }
    let post = RecordedPost { path, headers, body };
    let answer = match post.path.strip_prefix("/api/") {
        Some(method) => {
            let token = post.headers.get("authorization").and_then(|value| value.to_str().ok());
            let known = token.is_some_and(|token| token.starts_with("Bearer xoxb-"));
            match if known { inner.call_method(method, &post.body_json()) } else { Err("not_authed") } {
                Ok(answer) => answer.to_string(),
                Err(error) => return json!({"ok": false, "error": error}).to_string().into_response(),
            }
        }
        None => "ok".to_owned(),
    };
    inner.posts.push(post);
    answer.into_response()
}

//! A fake chat server. It is Slack's Web API with messages, threads, edits and modals, an incoming webhook, and any other
//! URL that takes posts. It refuses what Slack refuses, and records the rest.

mod view;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::recent::Recent;
use super::{ChatMessage, loopback};
use crate::clock;
pub use view::{check_blocks, mentioned_users, visible_buttons, visible_text};

/// A running fake.
#[derive(Debug, Clone, Default)]
pub struct FakeSlack {
    state: Arc<Mutex<FakeSlackState>>,
}

#[derive(Debug, Default)]
struct FakeSlackState {
    posts: Recent<RecordedPost>,
    messages: Vec<SlackMessage>,
    modals: Vec<Value>,
    triggers: BTreeSet<String>,
    /// The latest message of each button, by the button's value.
    bindings: BTreeMap<String, SlackMessageRef>,
    outages: Vec<ScheduledOutage>,
    /// Users whom nobody can mention.
    unknown_users: BTreeSet<String>,
    /// Scopes that the app lacks.
    missing_scopes: BTreeSet<&'static str>,
    /// The least time between two messages in a channel, and the pause that a refusal asks for.
    limit: Option<PostLimit>,
    /// When each post to a channel came, and whether it was refused.
    arrivals: Vec<PostArrival>,
}

/// How often a channel takes messages.
#[derive(Debug, Clone, Copy)]
pub struct PostLimit {
    /// The least time between two messages.
    pub distance: SignedDuration,
    /// The header `retry-after` of a refusal, in seconds.
    pub retry_after: u16,
}

/// A post of a message to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostArrival {
    /// The channel's id.
    pub channel: String,
    /// When it came.
    pub at: Timestamp,
    /// Whether it came too soon.
    pub is_refused: bool,
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
    metadata: Value,
    edits: u32,
    frozen: Option<Frozen>,
}

/// What can no longer be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frozen {
    /// It cannot be updated.
    Deletable,
    /// It can be neither updated nor deleted.
    Forever,
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
    /// Whether the request takes effect before the failure: only the answer is lost.
    pub after_effect: bool,
}

impl RecordedPost {
    /// The body as JSON; null if it is not JSON.
    #[must_use]
    pub fn body_json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The arguments of a method: JSON, or a form.
    fn arguments(&self) -> Value {
        let is_form =
            self.headers.get("content-type").is_some_and(|kind| kind.as_bytes().ends_with(b"form-urlencoded"));
        if !is_form {
            return self.body_json();
        }
        form_urlencoded::parse(&self.body)
            .map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())))
            .collect()
    }

    /// All text that a person would see.
    #[must_use]
    pub fn visible_text(&self) -> String {
        visible_text(&self.body_json())
    }
}

impl FakeSlack {
    /// Answers requests on `listener` until the task ends.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        loopback::serve(listener, self.router()).await
    }

    /// Takes posts to every path.
    pub fn router(self) -> Router {
        Router::new().fallback(wire::handle_post).with_state(self)
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

    /// The messages of a channel with their bodies, the oldest first.
    #[must_use]
    pub fn bodies_in(&self, channel: &str) -> Vec<ChatMessage> {
        let state = self.lock();
        let shown = |thread: Option<&String>| {
            let messages = state.messages.iter().filter(|message| message.channel == channel);
            messages.filter(|message| message.thread_ts.as_ref() == thread).collect::<Vec<_>>()
        };
        let message = |message: &SlackMessage, replies| ChatMessage {
            id: message.ts.clone(),
            body: message.body.clone(),
            edits: message.edits,
            broadcast: message.broadcast,
            replies,
        };
        let with_replies = |root: &SlackMessage| {
            message(root, shown(Some(&root.ts)).into_iter().map(|reply| message(reply, vec![])).collect())
        };
        shown(None).into_iter().map(with_replies).collect()
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
        let outages = &self.lock().outages;
        outages.iter().any(|it| it.outage.hangs && !it.outage.after_effect && it.outage.path == path)
    }

    /// Takes a scope from the app.
    pub fn remove_scope(&self, scope: &'static str) {
        self.lock().missing_scopes.insert(scope);
    }

    /// Limits how often a channel takes messages.
    pub fn limit_posts(&self, limit: PostLimit) {
        self.lock().limit = Some(limit);
    }

    /// Every post of a message so far, also the refused ones.
    #[must_use]
    pub fn arrivals(&self) -> Vec<PostArrival> {
        self.lock().arrivals.clone()
    }

    /// Lets a message keep its content, as after the app was installed again. Without `deletable`, it cannot be deleted
    /// either.
    pub fn freeze_message(&self, channel: &str, ts: &str, deletable: bool) {
        let mut state = self.lock();
        let frozen = if deletable { Frozen::Deletable } else { Frozen::Forever };
        for message in state.messages.iter_mut().filter(|message| message.channel == channel && message.ts == ts) {
            message.frozen = Some(frozen);
        }
    }

    /// Does what a post to the `response_url` of a click on this message asks for.
    pub fn apply_response(&self, channel: &str, ts: &str, response: &Value) {
        if response.get("replace_original") != Some(&Value::Bool(true)) {
            return;
        }
        let mut state = self.lock();
        for message in state.messages.iter_mut().filter(|message| message.channel == channel && message.ts == ts) {
            message.body = response.clone();
            message.edits += 1;
        }
    }

    /// Deletes a user. Messages that mention the user are refused.
    pub fn delete_user(&self, user: &str) {
        self.lock().unknown_users.insert(user.to_owned());
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
            "chat.postMessage" => self.post_message(body),
            "chat.update" => {
                check_blocks(body)?;
                let (channel, ts) = word("channel").zip(word("ts")).ok_or("message_not_found")?;
                let position = find(&self.messages, &channel, &ts).ok_or("message_not_found")?;
                let message = self.messages.get_mut(position).ok_or("message_not_found")?;
                if message.frozen.is_some() {
                    return Err("cant_update_message");
                }
                message.body = body.clone();
                message.edits += 1;
                self.record_buttons(body, &channel, &ts);
                Ok(json!({"ok": true, "channel": channel, "ts": ts}))
            }
            "chat.delete" => {
                let (channel, ts) = word("channel").zip(word("ts")).ok_or("message_not_found")?;
                let position = find(&self.messages, &channel, &ts).ok_or("message_not_found")?;
                if self.messages.get(position).is_some_and(|message| message.frozen == Some(Frozen::Forever)) {
                    return Err("cant_delete_message");
                }
                self.messages.remove(position);
                Ok(json!({"ok": true, "channel": channel, "ts": ts}))
            }
            "conversations.history" | "conversations.replies" => self.read_history(body),
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
    fn post_message(&mut self, body: &Value) -> Result<Value, &'static str> {
        let word = |name: &str| body.get(name).and_then(Value::as_str).map(ToOwned::to_owned);

        check_blocks(body)?;
        if mentioned_users(body).iter().any(|user| self.unknown_users.contains(user)) {
            return Err("invalid_blocks");
        }
        let channel = word("channel").ok_or("channel_not_found")?;
        let thread_ts = word("thread_ts");
        if thread_ts
            .as_ref()
            .is_some_and(|ts| !self.messages.iter().any(|message| message.channel == channel && message.ts == *ts))
        {
            return Err("thread_not_found");
        }
        let ts = self.next_ts();
        let broadcast = body.get("reply_broadcast").and_then(Value::as_bool).unwrap_or_default();
        self.record_buttons(body, &channel, &ts);
        let (metadata, body) = (body.get("metadata").cloned().unwrap_or_default(), body.clone());
        self.messages.push(SlackMessage {
            channel: channel.clone(),
            ts: ts.clone(),
            thread_ts,
            broadcast,
            body,
            metadata,
            edits: 0,
            frozen: None,
        });
        Ok(json!({"ok": true, "channel": channel, "ts": ts}))
    }

    fn read_history(&self, body: &Value) -> Result<Value, &'static str> {
        let word = |name: &str| body.get(name).and_then(Value::as_str).map(ToOwned::to_owned);

        if self.missing_scopes.contains("channels:history") {
            return Err("missing_scope");
        }
        let (channel, thread) = (word("channel").ok_or("channel_not_found")?, word("ts"));
        let oldest: f64 = word("oldest").and_then(|text| text.parse().ok()).unwrap_or_default();
        let with_metadata = word("include_all_metadata").as_deref() == Some("true");
        let in_place = self.messages.iter().filter(|message| message.channel == channel);
        let in_place = in_place.filter(|message| message.thread_ts == thread);
        let recent = in_place.filter(|message| message.ts.parse::<f64>().is_ok_and(|ts| ts > oldest));
        let messages: Vec<_> = recent.map(|message| message.history_json(with_metadata)).collect();
        Ok(json!({"ok": true, "messages": messages, "has_more": false}))
    }

    /// Microseconds, as Slack's are, and never the same twice.
    fn next_ts(&self) -> String {
        let micros = clock::now().as_microsecond();
        let after_last = self.messages.last().and_then(|last| last.ts.replace('.', "").parse::<i64>().ok());
        let micros = after_last.map_or(micros, |last| micros.max(last.saturating_add(1)));
        format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }

    /// Whether a channel takes another message now.
    fn takes_message(&mut self, channel: &str) -> bool {
        let at = clock::now();
        let last = self.arrivals.iter().rfind(|it| it.channel == channel && !it.is_refused).map(|it| it.at);
        let distance = self.limit.map_or(SignedDuration::ZERO, |limit| limit.distance);
        let is_refused = last.is_some_and(|last| at.duration_since(last) < distance);
        self.arrivals.push(PostArrival { channel: channel.to_owned(), at, is_refused });
        !is_refused
    }

    fn record_buttons(&mut self, body: &Value, channel: &str, ts: &str) {
        let message = SlackMessageRef { channel: channel.to_owned(), ts: ts.to_owned() };
        self.bindings.extend(visible_buttons(body).into_iter().map(|button| (button.value, message.clone())));
    }
}

impl SlackMessage {
    fn history_json(&self, with_metadata: bool) -> Value {
        let mut json = json!({"type": "message", "ts": self.ts, "app_id": "A0123"});
        if with_metadata && let Some(fields) = json.as_object_mut() {
            fields.insert("metadata".to_owned(), self.metadata.clone());
        }
        json
    }
}

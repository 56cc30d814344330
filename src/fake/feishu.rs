//! A fake of Feishu's API and custom bots: tokens, messages, threads, updates within 14 days, limits, and JSON 2.0 cards. It
//! refuses what Feishu refuses, with Feishu's code. Tests can move its clock.

mod card;
mod event;
mod sandbox;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::net::TcpListener;

use super::recent::Recent;
use super::{ChatMessage, Error, loopback};
use crate::clock;

pub use card::{FeishuButton, FeishuInput, check_card};
pub use event::FeishuPerson;
pub use sandbox::{BOT_CHAT_ID, CHAT_ID};
pub use wire::FeishuRefusal;

/// A message can be updated for so long.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message-card/patch>
const MAX_EDIT_AGE: SignedDuration = SignedDuration::from_hours(14 * 24);
/// A second post with the same `uuid` within this time returns the first message.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
const UUID_RETENTION: SignedDuration = SignedDuration::from_hours(1);
/// The validity of a new token.
///
/// Source: <https://open.feishu.cn/document/server-docs/authentication-management/access-token/tenant_access_token_internal>
const TOKEN_LIFETIME: SignedDuration = SignedDuration::from_hours(2);
/// A token with less remaining validity is replaced.
///
/// Source: <https://open.feishu.cn/document/server-docs/authentication-management/access-token/tenant_access_token_internal>
const TOKEN_RENEWAL_WINDOW: SignedDuration = SignedDuration::from_mins(30);
/// The most posts to a chat, or updates of a message, in one second.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
const MAX_WRITES_PER_SECOND: usize = 5;

/// The app and its tenant.
#[derive(Debug, Clone)]
pub struct FakeFeishuSettings {
    /// The app's id.
    pub app: String,
    /// The app's secret.
    pub app_secret: String,
    /// The tenant's key.
    pub tenant: String,
    /// A part of every callback.
    pub verification_token: String,
    /// Whether a click on a button in a form sends its value. Feishu's documents disagree.
    pub form_buttons_have_values: bool,
}

impl Default for FakeFeishuSettings {
    fn default() -> Self {
        Self {
            app: "cli_a6ee8fbe9ffe6d3d".into(),
            app_secret: "fakeAppSecret0123456789abcdefghi".into(),
            tenant: "82dfe55c5a220620".into(),
            verification_token: "fakeVerificationToken0123456789a".into(),
            form_buttons_have_values: true,
        }
    }
}

/// A running fake.
#[derive(Debug, Clone, Default)]
pub struct FakeFeishu {
    state: Arc<Mutex<FakeFeishuState>>,
}

#[derive(Debug, Default)]
struct FakeFeishuState {
    settings: FakeFeishuSettings,
    /// How far its clock is ahead of ours.
    clock_offset: SignedDuration,
    tokens: Vec<IssuedToken>,
    messages: Vec<FeishuMessage>,
    uuids: BTreeMap<UuidKey, PostedOnce>,
    /// The times of the last posts and updates, by chat or message.
    recent_writes: BTreeMap<String, Vec<Timestamp>>,
    /// The chats with a fault.
    chats: BTreeMap<String, ChatFault>,
    /// The secrets of the custom bots, by the last part of the path.
    bots: BTreeMap<String, Option<String>>,
    faults: Vec<ScheduledFault>,
    calls: Recent<RecordedCall>,
    /// The number in the latest id.
    last_id: u64,
}

#[derive(Debug, Clone)]
struct IssuedToken {
    token: String,
    expires_at: Timestamp,
}

/// Identifies a post, so that a repeated request does not post twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct UuidKey {
    chat: String,
    uuid: String,
}

#[derive(Debug)]
struct PostedOnce {
    at: Timestamp,
    message_id: String,
}

#[derive(Debug)]
struct ScheduledFault {
    /// The number of requests that still succeed.
    requests_before: usize,
    fault: FeishuFault,
}

/// A fault of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChatFault {
    /// The chat has no threads.
    WithoutThreads,
    /// The bot is not in the chat.
    WithoutBot,
    /// The chat was dissolved.
    Dissolved,
}

/// Why a message cannot be updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageEnd {
    Recalled,
    Deleted,
}

#[derive(Debug, Clone)]
struct FeishuMessage {
    id: String,
    /// The id of the chat. For a message to one person, it is their `open_id`.
    chat: String,
    parent: Option<String>,
    in_thread: bool,
    card: Value,
    edits: u32,
    created_at: Timestamp,
    ended: Option<MessageEnd>,
    /// Whether a custom bot posted it. Such a message is never updated.
    by_bot: bool,
}

/// A request and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCall {
    /// The HTTP method.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Null if it is not JSON.
    pub body: Value,
    /// Feishu's code: 0 for success.
    pub code: i64,
}

/// A failure of all requests to a path.
#[derive(Debug, Clone, Default)]
pub struct FeishuFault {
    /// The beginning of the path, without the query.
    pub path: String,
    /// The HTTP status; 0 stands for 400.
    pub status: u16,
    /// Feishu's code. Without a code, the body is not JSON.
    pub code: Option<i64>,
    /// The header `retry-after`, in seconds.
    pub retry_after: Option<u16>,
    /// Whether there is no answer at all.
    pub hangs: bool,
    /// Whether the request takes effect, and only its answer is replaced.
    pub after_effect: bool,
}

/// A card as people in the chat see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeishuCard {
    /// The id of the message.
    pub message_id: String,
    /// All visible text.
    pub text: String,
    /// The color of the header.
    pub template: String,
    /// In order.
    pub buttons: Vec<FeishuButton>,
    /// The fields of its form, in order.
    pub inputs: Vec<FeishuInput>,
    /// The number of updates.
    pub edits: u32,
    /// The replies, the oldest first.
    pub replies: Vec<FeishuReply>,
}

/// A reply to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeishuReply {
    /// The id of the reply.
    pub message_id: String,
    /// All visible text.
    pub text: String,
    /// Whether the reply is in a thread.
    pub in_thread: bool,
}

impl FeishuCard {
    /// The button with this label.
    #[must_use]
    pub fn find_button(&self, label: &str) -> Option<&FeishuButton> {
        self.buttons.iter().find(|button| button.label == label)
    }

    /// The labels of the buttons, in order.
    #[must_use]
    pub fn button_labels(&self) -> Vec<&str> {
        self.buttons.iter().map(|button| button.label.as_str()).collect()
    }

    /// The first line of each reply.
    #[must_use]
    pub fn thread_headlines(&self) -> Vec<&str> {
        self.replies.iter().map(|reply| reply.text.lines().next().unwrap_or_default()).collect()
    }
}

/// A fake with custom bots. Each option is `bot:ID=SECRET`.
///
/// # Errors
/// When an option has another form.
pub fn parse_fake_options(options: &[String]) -> Result<FakeFeishu, Error> {
    let fake = FakeFeishu::default();
    for option in options {
        let bot = option.strip_prefix("bot:").and_then(|bot| bot.split_once('='));
        let (id, secret) = bot.ok_or("the fake of Feishu takes --with bot:ID=SECRET")?;
        fake.add_bot(id, Some(secret));
    }
    Ok(fake)
}

impl FakeFeishu {
    /// A fake with other settings than the default.
    #[must_use]
    pub fn new(settings: FakeFeishuSettings) -> Self {
        Self { state: Arc::new(Mutex::new(FakeFeishuState { settings, ..FakeFeishuState::default() })) }
    }

    /// Answers requests on `listener` until the task ends.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        loopback::serve(listener, self.router()).await
    }

    /// Takes requests to every path.
    pub fn router(self) -> Router {
        Router::new().fallback(wire::handle_request).with_state(self)
    }

    fn lock(&self) -> MutexGuard<'_, FakeFeishuState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The app and its tenant.
    #[must_use]
    pub fn settings(&self) -> FakeFeishuSettings {
        self.lock().settings.clone()
    }

    /// Moves the clock of the fake ahead.
    pub fn move_clock(&self, by: SignedDuration) {
        self.lock().clock_offset += by;
    }

    /// Revokes all tokens.
    pub fn revoke_tokens(&self) {
        self.lock().tokens.clear();
    }

    /// Sets the fault of a chat; `None` removes it.
    pub fn set_chat_fault(&self, chat: &str, fault: Option<ChatFault>) {
        let mut state = self.lock();
        match fault {
            Some(fault) => state.chats.insert(chat.to_owned(), fault),
            None => state.chats.remove(chat),
        };
    }

    /// Adds a custom bot at `/open-apis/bot/v2/hook/{id}`. With a secret, it checks signatures. Its messages are in the chat
    /// with the same id.
    pub fn add_bot(&self, id: &str, secret: Option<&str>) {
        self.lock().bots.insert(id.to_owned(), secret.map(ToOwned::to_owned));
    }

    /// Recalls a message, as a person would.
    pub fn recall_message(&self, message_id: &str) {
        self.end_message(message_id, MessageEnd::Recalled);
    }

    /// Deletes a message, as a person would.
    pub fn delete_message(&self, message_id: &str) {
        self.end_message(message_id, MessageEnd::Deleted);
    }

    fn end_message(&self, message_id: &str, ended: MessageEnd) {
        for message in self.lock().messages.iter_mut().filter(|message| message.id == message_id) {
            message.ended = Some(ended);
        }
    }

    /// Lets requests fail until [`FakeFeishu::clear_faults`].
    pub fn add_fault(&self, fault: FeishuFault) {
        self.add_fault_after(0, fault);
    }

    /// Like [`FakeFeishu::add_fault`], but the next `requests` requests still succeed.
    pub fn add_fault_after(&self, requests: usize, fault: FeishuFault) {
        self.lock().faults.push(ScheduledFault { requests_before: requests, fault });
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// All requests so far.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.lock().calls.iter().cloned().collect()
    }

    /// The messages of a chat, the oldest first.
    #[must_use]
    pub fn messages_in(&self, chat: &str) -> Vec<FeishuCard> {
        let state = self.lock();
        let in_chat = || state.messages.iter().filter(|message| message.chat == chat && message.ended.is_none());
        let cards = in_chat().filter(|message| message.parent.is_none()).map(|message| {
            let replies = in_chat().filter(|reply| reply.parent.as_ref() == Some(&message.id));
            let reply = |reply: &FeishuMessage| FeishuReply {
                message_id: reply.id.clone(),
                text: card::visible_text(&reply.card),
                in_thread: reply.in_thread,
            };
            FeishuCard {
                message_id: message.id.clone(),
                text: card::visible_text(&message.card),
                template: card::header_template(&message.card),
                buttons: card::visible_buttons(&message.card),
                inputs: card::visible_inputs(&message.card),
                edits: message.edits,
                replies: replies.map(reply).collect(),
            }
        });
        cards.collect()
    }

    /// The messages of a chat with their cards, the oldest first.
    #[must_use]
    pub fn bodies_in(&self, chat: &str) -> Vec<ChatMessage> {
        let state = self.lock();
        let shown = |parent: Option<&String>| {
            let messages = state.messages.iter().filter(|message| message.chat == chat && message.ended.is_none());
            messages.filter(|message| message.parent.as_ref() == parent).collect::<Vec<_>>()
        };
        let message = |message: &FeishuMessage, replies| ChatMessage {
            id: message.id.clone(),
            body: message.card.clone(),
            edits: message.edits,
            broadcast: false,
            replies,
        };
        let with_replies = |root: &FeishuMessage| {
            message(root, shown(Some(&root.id)).into_iter().map(|reply| message(reply, vec![])).collect())
        };
        shown(None).into_iter().map(with_replies).collect()
    }

    /// The messages to one person.
    #[must_use]
    pub fn messages_to(&self, open_id: &str) -> Vec<FeishuCard> {
        self.messages_in(open_id)
    }

    /// The ids of all chats that have a message.
    #[must_use]
    pub fn chats_with_messages(&self) -> BTreeSet<String> {
        self.lock().messages.iter().map(|message| message.chat.clone()).collect()
    }
}

impl FakeFeishuState {
    fn now(&self) -> Timestamp {
        clock::now() + self.clock_offset
    }

    /// A new id.
    fn next_id(&mut self, prefix: &str) -> String {
        self.last_id += 1;
        format!("{prefix}{:032x}", self.last_id)
    }

    /// Counts a write to a chat or message, unless there are too many in this second. Returns whether it is counted.
    fn try_count_write(&mut self, id: &str) -> bool {
        let now = self.now();
        let times = self.recent_writes.entry(id.to_owned()).or_default();
        times.retain(|time| now.duration_since(*time) < SignedDuration::from_secs(1));
        let is_allowed = times.len() < MAX_WRITES_PER_SECOND;
        if is_allowed {
            times.push(now);
        }
        is_allowed
    }
}

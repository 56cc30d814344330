//! Feishu, as its API and custom bots behave: tokens, messages, threads, changes for 14 days, limits, and cards of JSON 2.0.
//! It refuses what Feishu would refuse, with Feishu's code. Its clock can be moved.

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

use super::Error;
use crate::clock;

pub use card::{FeishuButton, FeishuInput, check_card};
pub use event::FeishuPerson;
pub use sandbox::{BOT_CHAT_ID, CHAT_ID};
pub use wire::FeishuRefusal;

/// How long a message can be changed.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message-card/patch>
const MAX_EDIT_AGE: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How long a `uuid` is remembered.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
const UUID_RETENTION: SignedDuration = SignedDuration::from_hours(1);
/// How long a token is valid.
///
/// Source: <https://open.feishu.cn/document/server-docs/authentication-management/access-token/tenant_access_token_internal>
const TOKEN_LIFETIME: SignedDuration = SignedDuration::from_hours(2);
/// A token that ends sooner than this is replaced.
///
/// Source: <https://open.feishu.cn/document/server-docs/authentication-management/access-token/tenant_access_token_internal>
const TOKEN_RENEWAL_WINDOW: SignedDuration = SignedDuration::from_mins(30);
/// Posts to a chat, and changes of a message, in one second.
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
    /// Stands in every callback.
    pub verification_token: String,
    /// Whether a button in a form has a value. Feishu's documents disagree.
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
    tokens: Vec<(String, Timestamp)>,
    messages: Vec<FeishuMessage>,
    /// What each `uuid` in a chat became.
    uuids: BTreeMap<(String, String), (Timestamp, String)>,
    /// When something was last posted or changed, by chat or message.
    recent_writes: BTreeMap<String, Vec<Timestamp>>,
    /// Chats and what is wrong with them.
    chats: BTreeMap<String, ChatFault>,
    /// Custom bots: their secrets, by the last part of the path.
    bots: BTreeMap<String, Option<String>>,
    faults: Vec<(usize, FeishuFault)>,
    calls: Vec<RecordedCall>,
    /// Makes ids.
    last_id: u64,
}

/// What can be wrong with a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChatFault {
    /// It has no threads.
    WithoutThreads,
    /// The bot is not in it.
    WithoutBot,
    /// It was dissolved.
    Dissolved,
}

/// Why a message can't be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageEnd {
    Recalled,
    Deleted,
}

#[derive(Debug, Clone)]
struct FeishuMessage {
    id: String,
    /// The chat; of a message to one person, their `open_id`.
    chat: String,
    parent: Option<String>,
    in_thread: bool,
    card: Value,
    edits: u32,
    created_at: Timestamp,
    ended: Option<MessageEnd>,
    /// Of a custom bot, and thus never changed.
    by_bot: bool,
}

/// A request that the fake took or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCall {
    /// The HTTP method.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Null if it was not JSON.
    pub body: Value,
    /// Feishu's code: 0 if it was taken.
    pub code: i64,
}

/// Requests to a path fail.
#[derive(Debug, Clone, Default)]
pub struct FeishuFault {
    /// How the path begins, without the query.
    pub path: String,
    /// The HTTP status; 400 if it is 0.
    pub status: u16,
    /// Feishu's code; without one the body is no JSON.
    pub code: Option<i64>,
    /// The header `retry-after`, in seconds.
    pub retry_after: Option<u16>,
    /// There is no answer at all.
    pub hangs: bool,
    /// The request takes effect, but its answer is lost.
    pub after_effect: bool,
}

/// What somebody who looks at a chat sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeishuCard {
    /// Names the message.
    pub message_id: String,
    /// All its text.
    pub text: String,
    /// The color of its header.
    pub template: String,
    /// Its buttons.
    pub buttons: Vec<FeishuButton>,
    /// Its inputs.
    pub inputs: Vec<FeishuInput>,
    /// How often it was changed.
    pub edits: u32,
    /// What stands below it.
    pub replies: Vec<FeishuReply>,
}

/// Something said below a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeishuReply {
    /// Names the message.
    pub message_id: String,
    /// All its text.
    pub text: String,
    /// Whether it stands in a thread.
    pub in_thread: bool,
}

impl FeishuCard {
    /// The button with that label.
    #[must_use]
    pub fn find_button(&self, label: &str) -> Option<&FeishuButton> {
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

/// A fake with custom bots, each given as `bot:ID=SECRET`.
///
/// # Errors
/// When an option is none of these.
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
    /// A fake with an app of its own.
    #[must_use]
    pub fn new(settings: FakeFeishuSettings) -> Self {
        Self { state: Arc::new(Mutex::new(FakeFeishuState { settings, ..FakeFeishuState::default() })) }
    }

    /// Answers on `listener` until the task ends.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        axum::serve(listener, self.router()).await
    }

    /// Takes every request.
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

    /// Moves the fake's own clock ahead.
    pub fn move_clock(&self, by: SignedDuration) {
        self.lock().clock_offset += by;
    }

    /// Ends all tokens.
    pub fn revoke_tokens(&self) {
        self.lock().tokens.clear();
    }

    /// Something is wrong with a chat from now on; `None` ends it.
    pub fn set_chat_fault(&self, chat: &str, state: Option<ChatFault>) {
        let mut inner = self.lock();
        match state {
            Some(state) => inner.chats.insert(chat.to_owned(), state),
            None => inner.chats.remove(chat),
        };
    }

    /// Adds a custom bot at `/open-apis/bot/v2/hook/{id}`; with a secret it checks signatures. Its messages stand in the
    /// chat of the same name.
    pub fn add_bot(&self, id: &str, secret: Option<&str>) {
        self.lock().bots.insert(id.to_owned(), secret.map(ToOwned::to_owned));
    }

    /// Somebody recalls a message.
    pub fn recall_message(&self, message_id: &str) {
        self.end_message(message_id, MessageEnd::Recalled);
    }

    /// Somebody deletes a message.
    pub fn delete_message(&self, message_id: &str) {
        self.end_message(message_id, MessageEnd::Deleted);
    }

    fn end_message(&self, message_id: &str, ended: MessageEnd) {
        for message in self.lock().messages.iter_mut().filter(|message| message.id == message_id) {
            message.ended = Some(ended);
        }
    }

    /// Requests fail until [`FakeFeishu::clear_faults`].
    pub fn add_fault(&self, fault: FeishuFault) {
        self.add_fault_after(0, fault);
    }

    /// As [`FakeFeishu::add_fault`], once so many requests more were answered.
    pub fn add_fault_after(&self, requests: usize, fault: FeishuFault) {
        self.lock().faults.push((requests, fault));
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// All requests so far.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.lock().calls.clone()
    }

    /// The messages of a group, as everybody in it sees them now, the oldest first.
    #[must_use]
    pub fn messages_in(&self, chat: &str) -> Vec<FeishuCard> {
        let inner = self.lock();
        let here = || inner.messages.iter().filter(|message| message.chat == chat && message.ended.is_none());
        let shown = here().filter(|message| message.parent.is_none()).map(|message| {
            let below = here().filter(|reply| reply.parent.as_ref() == Some(&message.id));
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
                replies: below.map(reply).collect(),
            }
        });
        shown.collect()
    }

    /// The messages that only one person sees.
    #[must_use]
    pub fn messages_to(&self, open_id: &str) -> Vec<FeishuCard> {
        self.messages_in(open_id)
    }

    /// All chats with a message.
    #[must_use]
    pub fn chats_with_messages(&self) -> BTreeSet<String> {
        self.lock().messages.iter().map(|message| message.chat.clone()).collect()
    }
}

impl FakeFeishuState {
    fn now(&self) -> Timestamp {
        clock::now() + self.clock_offset
    }

    /// An id that no other has.
    fn next_id(&mut self, prefix: &str) -> String {
        self.last_id += 1;
        format!("{prefix}{:032x}", self.last_id)
    }

    /// Counts one more in this second.
    fn is_too_busy(&mut self, what: &str) -> bool {
        let now = self.now();
        let times = self.recent_writes.entry(what.to_owned()).or_default();
        times.retain(|time| now.duration_since(*time) < SignedDuration::from_secs(1));
        let too_busy = times.len() >= MAX_WRITES_PER_SECOND;
        if !too_busy {
            times.push(now);
        }
        too_busy
    }
}

//! A fake of Microsoft Teams, for one bot in one tenant: the keys and the tokens of the bot service, the connector with its
//! limits and codes, people who click and write, and workflows. It signs with a key that everybody has.

mod card;
mod event;
mod playground;
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
use crate::chat::teams::THROWAWAY_KEY_ID;
use crate::clock;

pub use card::{TeamsButton, check_adaptive_card};
pub use event::TeamsUser;
use playground::PlaygroundBridge;
pub use sandbox::{CHANNEL_ID, FLOW_ID, PEOPLE, TEAM_ID};
pub use wire::TeamsRefusal;

/// The validity of a new token.
///
/// Source: <https://learn.microsoft.com/en-us/azure/bot-service/rest-api/bot-framework-rest-connector-authentication>
const TOKEN_LIFETIME: SignedDuration = SignedDuration::from_secs(3599);
/// The most calls of a bot to a conversation, and the seconds in which.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/bots/how-to/rate-limit>
const CALL_LIMITS: [(usize, i64); 4] = [(7, 1), (8, 2), (60, 30), (1800, 3600)];

/// The bot and its tenant.
#[derive(Debug, Clone)]
pub struct FakeTeamsSettings {
    /// The app's id.
    pub app: String,
    /// The client secrets that are valid.
    pub client_secrets: Vec<String>,
    /// The tenant's id.
    pub tenant: String,
}

impl Default for FakeTeamsSettings {
    fn default() -> Self {
        Self {
            app: "6fd21178-5a8a-4fd8-a3bc-16f017de3f7a".into(),
            client_secrets: vec!["abc8Q~fakeClientSecret0123456789abcdefghi".into()],
            tenant: "50703947-19f8-4dd8-af0e-60d29681f7c0".into(),
        }
    }
}

/// A running fake.
#[derive(Debug, Clone, Default)]
pub struct FakeTeams {
    state: Arc<Mutex<FakeTeamsState>>,
}

#[derive(Debug)]
struct FakeTeamsState {
    settings: FakeTeamsSettings,
    /// Where the fake answers, with a slash at the end.
    url: String,
    /// How far its clock is ahead of ours.
    clock_offset: SignedDuration,
    keys: Vec<PublishedKey>,
    tokens: Vec<BotTokenIssue>,
    messages: Vec<TeamsMessage>,
    /// The ids of the one-to-one chats, by user.
    chats: BTreeMap<String, String>,
    conversation_faults: BTreeMap<String, ConversationFault>,
    /// The signatures of the workflows, by id.
    workflows: BTreeMap<String, String>,
    /// The times of the last calls, by conversation.
    recent_calls: BTreeMap<String, Vec<Timestamp>>,
    faults: Vec<TeamsFault>,
    calls: Recent<TeamsCall>,
    /// For Microsoft's Agents Playground.
    bridge: Option<PlaygroundBridge>,
    /// The number in the latest id.
    last_id: u64,
}

impl Default for FakeTeamsState {
    fn default() -> Self {
        Self {
            settings: FakeTeamsSettings::default(),
            url: "http://127.0.0.1/".into(),
            clock_offset: SignedDuration::ZERO,
            keys: vec![PublishedKey::new(THROWAWAY_KEY_ID, &["msteams", "webchat"])],
            tokens: vec![],
            messages: vec![],
            chats: BTreeMap::new(),
            conversation_faults: BTreeMap::new(),
            workflows: BTreeMap::new(),
            recent_calls: BTreeMap::new(),
            faults: vec![],
            calls: Recent::default(),
            bridge: None,
            last_id: 1_793_000_000_000,
        }
    }
}

#[derive(Debug, Clone)]
struct PublishedKey {
    id: String,
    endorsements: Vec<String>,
}

impl PublishedKey {
    fn new(id: &str, endorsements: &[&str]) -> Self {
        Self { id: id.to_owned(), endorsements: endorsements.iter().map(|it| (*it).to_owned()).collect() }
    }
}

#[derive(Debug)]
struct BotTokenIssue {
    token: String,
    expires_at: Timestamp,
}

/// A fault of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationFault {
    /// The bot is not in it.
    BotMissing,
    /// The person has blocked the bot.
    Blocked,
    /// It was deleted.
    Deleted,
}

#[derive(Debug, Clone)]
struct TeamsMessage {
    id: String,
    /// Without the id of a thread.
    conversation: String,
    /// The first message of its thread.
    root: Option<String>,
    activity: Value,
    edits: u32,
    is_deleted: bool,
}

/// A request and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamsCall {
    /// The HTTP method.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Null if it is not JSON.
    pub body: Value,
    /// The HTTP status.
    pub status: u16,
}

/// A failure of all requests to a path.
#[derive(Debug, Clone, Default)]
pub struct TeamsFault {
    /// A part of the path.
    pub path: String,
    /// The HTTP method; empty for all.
    pub method: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The code. Without one, the body is not JSON.
    pub code: Option<String>,
    /// The header `retry-after`, in seconds.
    pub retry_after: Option<u16>,
    /// Whether there is no answer at all.
    pub hangs: bool,
    /// Whether the request takes effect, and only its answer is replaced.
    pub after_effect: bool,
}

/// A message as people in the conversation see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamsCard {
    /// The id of the message.
    pub message_id: String,
    /// All visible text, a line for each element.
    pub text: String,
    /// What a notification shows.
    pub summary: String,
    /// In order.
    pub buttons: Vec<TeamsButton>,
    /// The ids of the people whom it mentions.
    pub mentions: Vec<String>,
    /// The number of updates.
    pub edits: u32,
    /// The text of each message of its thread.
    pub replies: Vec<String>,
}

impl TeamsCard {
    /// The labels of the buttons, in order.
    #[must_use]
    pub fn button_labels(&self) -> Vec<&str> {
        self.buttons.iter().map(|button| button.label.as_str()).collect()
    }

    /// The button with this label.
    #[must_use]
    pub fn find_button(&self, label: &str) -> Option<&TeamsButton> {
        self.buttons.iter().find(|button| button.label == label)
    }

    /// The first line of each reply.
    #[must_use]
    pub fn thread_headlines(&self) -> Vec<&str> {
        self.replies.iter().map(|reply| reply.lines().next().unwrap_or_default()).collect()
    }
}

/// A fake with workflows, and with a bridge for Microsoft's Agents Playground. An option is `workflow:ID=SIGNATURE`, or
/// `forward:URL` with the address of a peergate on this machine.
///
/// # Errors
/// When an option has another form.
pub fn parse_fake_options(options: &[String]) -> Result<FakeTeams, Error> {
    let expected = "the fake of Teams takes --with workflow:ID=SIGNATURE and --with forward:URL";
    let fake = FakeTeams::default();
    for option in options {
        match option.split_once(':') {
            Some(("workflow", workflow)) => {
                let (id, signature) = workflow.split_once('=').ok_or(expected)?;
                fake.add_workflow(id, signature);
            }
            Some(("forward", url)) => {
                let bridge = PlaygroundBridge::new(fake.settings().app, url)?;
                fake.lock().bridge = Some(bridge);
            }
            Some(_) | None => return Err(expected.into()),
        }
    }
    Ok(fake)
}

impl FakeTeams {
    /// A fake with other settings than the default.
    #[must_use]
    pub fn new(settings: FakeTeamsSettings) -> Self {
        Self { state: Arc::new(Mutex::new(FakeTeamsState { settings, ..FakeTeamsState::default() })) }
    }

    /// Answers requests on `listener` until the task ends.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        self.lock().url = format!("http://{}/", listener.local_addr()?);
        loopback::serve(listener, self.router()).await
    }

    /// Takes requests to every path. The bridge, if there is one, is at `/playground`.
    pub fn router(self) -> Router {
        let bridge = self.lock().bridge.clone().map(PlaygroundBridge::router).unwrap_or_default();
        bridge.merge(Router::new().fallback(wire::handle_request).with_state(self))
    }

    fn lock(&self) -> MutexGuard<'_, FakeTeamsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bot and its tenant.
    #[must_use]
    pub fn settings(&self) -> FakeTeamsSettings {
        self.lock().settings.clone()
    }

    /// The `serviceUrl` of its activities.
    #[must_use]
    pub fn service_url(&self) -> String {
        self.lock().service_url()
    }

    /// Moves the clock of the fake ahead.
    pub fn move_clock(&self, by: SignedDuration) {
        self.lock().clock_offset += by;
    }

    /// Replaces the published keys by one. The next activities are signed with it.
    pub fn rotate_key(&self, id: &str, endorsements: &[&str]) {
        self.lock().keys = vec![PublishedKey::new(id, endorsements)];
    }

    /// Replaces the valid client secrets.
    pub fn set_client_secrets(&self, secrets: &[&str]) {
        self.lock().settings.client_secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
    }

    /// Revokes all tokens.
    pub fn revoke_tokens(&self) {
        self.lock().tokens.clear();
    }

    /// Sets the fault of a conversation; `None` removes it.
    pub fn set_conversation_fault(&self, conversation: &str, fault: Option<ConversationFault>) {
        let mut state = self.lock();
        match fault {
            Some(fault) => state.conversation_faults.insert(conversation.to_owned(), fault),
            None => state.conversation_faults.remove(conversation),
        };
    }

    /// Adds a workflow at `/workflows/{id}?sig={signature}`. Its messages are in the conversation with the same id.
    pub fn add_workflow(&self, id: &str, signature: &str) {
        self.lock().workflows.insert(id.to_owned(), signature.to_owned());
    }

    /// Deletes a message, as a person would.
    pub fn delete_message(&self, message_id: &str) {
        for message in self.lock().messages.iter_mut().filter(|message| message.id == message_id) {
            message.is_deleted = true;
        }
    }

    /// Lets requests fail until [`FakeTeams::clear_faults`].
    pub fn add_fault(&self, fault: TeamsFault) {
        self.lock().faults.push(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// All requests so far.
    #[must_use]
    pub fn calls(&self) -> Vec<TeamsCall> {
        self.lock().calls.iter().cloned().collect()
    }

    /// How many requests had a path with this part.
    #[must_use]
    pub fn count_calls(&self, path: &str) -> usize {
        self.lock().calls.iter().filter(|call| call.path.contains(path)).count()
    }

    /// The messages of a conversation, the oldest first.
    #[must_use]
    pub fn messages_in(&self, conversation: &str) -> Vec<TeamsCard> {
        let state = self.lock();
        let here = || state.messages.iter().filter(|it| it.conversation == conversation && !it.is_deleted);
        let shown = here().filter(|message| message.root.is_none()).map(|message| {
            let replies = here().filter(|reply| reply.root.as_ref() == Some(&message.id));
            card::show_message(message, replies.map(|reply| card::visible_text(&reply.activity)).collect())
        });
        shown.collect()
    }

    /// The messages of a conversation with their activities, the oldest first.
    #[must_use]
    pub fn bodies_in(&self, conversation: &str) -> Vec<ChatMessage> {
        let state = self.lock();
        let shown = |root: Option<&String>| {
            let here = state.messages.iter().filter(|it| it.conversation == conversation && !it.is_deleted);
            here.filter(|message| message.root.as_ref() == root).collect::<Vec<_>>()
        };
        let message = |message: &TeamsMessage, replies| ChatMessage {
            id: message.id.clone(),
            body: message.activity.clone(),
            edits: message.edits,
            broadcast: false,
            replies,
        };
        let with_replies = |root: &TeamsMessage| {
            message(root, shown(Some(&root.id)).into_iter().map(|reply| message(reply, vec![])).collect())
        };
        shown(None).into_iter().map(with_replies).collect()
    }

    /// The messages to one person, with their activities.
    #[must_use]
    pub fn bodies_to(&self, user: &TeamsUser) -> Vec<ChatMessage> {
        let chat = self.lock().chats.get(&user.id).cloned();
        chat.map(|chat| self.bodies_in(&chat)).unwrap_or_default()
    }

    /// The messages to one person.
    #[must_use]
    pub fn messages_to(&self, user: &TeamsUser) -> Vec<TeamsCard> {
        let chat = self.lock().chats.get(&user.id).cloned();
        chat.map(|chat| self.messages_in(&chat)).unwrap_or_default()
    }

    /// The ids of all conversations that have a message.
    #[must_use]
    pub fn conversations_with_messages(&self) -> BTreeSet<String> {
        self.lock().messages.iter().map(|message| message.conversation.clone()).collect()
    }
}

impl FakeTeamsState {
    fn now(&self) -> Timestamp {
        clock::now() + self.clock_offset
    }

    fn service_url(&self) -> String {
        format!("{}teams/", self.url)
    }

    /// A new id, of digits.
    fn next_id(&mut self) -> String {
        self.last_id += 1;
        self.last_id.to_string()
    }

    /// The one-to-one chat with a person.
    fn open_chat(&mut self, user: &str) -> String {
        let known = self.chats.get(user).cloned();
        known.unwrap_or_else(|| {
            let chat = format!("a:{}", self.next_id());
            self.chats.insert(user.to_owned(), chat.clone());
            chat
        })
    }

    /// Counts a call to a conversation, unless there are too many. Returns whether it is counted.
    fn try_count_call(&mut self, conversation: &str) -> bool {
        let now = self.now();
        let times = self.recent_calls.entry(conversation.to_owned()).or_default();
        times.retain(|time| now.duration_since(*time) < SignedDuration::from_hours(1));
        let is_allowed = CALL_LIMITS.iter().all(|(calls, seconds)| {
            let period = SignedDuration::from_secs(*seconds);
            times.iter().filter(|time| now.duration_since(**time) < period).count() < *calls
        });
        if is_allowed {
            times.push(now);
        }
        is_allowed
    }
}

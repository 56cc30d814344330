//! A fake of DingTalk's API and robots: tokens, cards of a published template, what each person sees of them, messages, the
//! registration of the callback, and limits. It refuses what DingTalk refuses, with DingTalk's code. Tests can move its
//! clock.

mod people;
mod robot;
mod sandbox;
mod template;
mod timeline;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::net::TcpListener;

use super::recent::Recent;
use super::{Error, loopback};
use crate::clock;

pub use people::{DingTalkPerson, SpaceForm};
pub use sandbox::{CONVERSATION_ID, ROBOT_TOKEN};
pub use template::{DingTalkButton, DingTalkCard, contract};

/// The validity of a new token.
///
/// Source: <https://open.dingtalk.com/document/orgapp/obtain-the-access_token-of-an-internal-app>
const TOKEN_LIFETIME: SignedDuration = SignedDuration::from_hours(2);
/// The most calls of one kind in a second.
///
/// Source: <https://open.dingtalk.com/document/development/frequency-limit-for-calling-server-apis>
const MAX_CALLS_PER_SECOND: usize = 20;

/// The app and its corporation.
#[derive(Debug, Clone)]
pub struct FakeDingTalkSettings {
    /// The app's Client ID, and the code of its robot.
    pub app: String,
    /// The app's Client Secret.
    pub app_secret: String,
    /// The `corpId`.
    pub corp: String,
    /// The id of the published template.
    pub template: String,
    /// How a click names the group.
    pub space_form: SpaceForm,
    /// The fields that carry what was clicked. DingTalk's documents disagree.
    pub content_fields: &'static [&'static str],
    /// Whether the template has a form instead of an input.
    pub has_form: bool,
}

impl Default for FakeDingTalkSettings {
    fn default() -> Self {
        Self {
            app: "dingrzmoleRbRMM4wObA".into(),
            app_secret: "fakeClientSecret0123456789abcdefghi".into(),
            corp: "ding6b3e09a504900d7564fef685b29d1594".into(),
            template: "2c278d79-fc0b-41b4-b14e-8b8089dc08e8.schema".into(),
            space_form: SpaceForm::Conversation,
            content_fields: &["content"],
            has_form: false,
        }
    }
}

/// A running fake.
#[derive(Debug, Clone, Default)]
pub struct FakeDingTalk {
    state: Arc<Mutex<FakeDingTalkState>>,
}

#[derive(Debug, Default)]
struct FakeDingTalkState {
    settings: FakeDingTalkSettings,
    /// How far its clock is ahead of ours.
    clock_offset: SignedDuration,
    tokens: Vec<LiveToken>,
    cards: Vec<CardInstance>,
    registrations: BTreeMap<String, CardRoute>,
    /// The messages of the robot, by group, person or session.
    texts: BTreeMap<String, Vec<RobotMessage>>,
    /// What was shown, in order.
    timeline: Vec<timeline::ShownPart>,
    robots: BTreeMap<String, robot::CustomRobot>,
    groups: BTreeMap<String, GroupFault>,
    /// People who are not in the corporation.
    strangers: BTreeSet<String>,
    unpublished: bool,
    quota_is_used: bool,
    /// The times of the last calls, by path.
    recent_calls: BTreeMap<String, Vec<Timestamp>>,
    faults: Vec<DingTalkFault>,
    calls: Recent<DingTalkCall>,
    /// The number in the latest id.
    last_id: u64,
}

#[derive(Debug, Clone)]
struct LiveToken {
    token: String,
    expires_at: Timestamp,
}

/// Where clicks go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardRoute {
    /// The registered address.
    pub url: String,
    /// The secret that signs. Without one, DingTalk does not sign.
    pub secret: Option<String>,
}

/// A fault of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupFault {
    /// The robot is not in the group: a card is made, but its delivery fails inside a call that succeeds.
    WithoutRobot,
    /// The group was disbanded.
    Disbanded,
}

type VariableMap = BTreeMap<String, String>;

/// A card, and who sees what of it.
#[derive(Debug, Clone)]
struct CardInstance {
    out_track_id: String,
    route: String,
    /// `IM_GROUP` or `IM_ROBOT`, and the group or the person. Empty until the card is delivered.
    space: Option<(String, String)>,
    variables: VariableMap,
    private: BTreeMap<String, VariableMap>,
    /// What the answer to a click has shown to one person. The next update for all replaces it.
    overrides: BTreeMap<String, VariableMap>,
    mentions: Vec<String>,
    updates: u32,
}

/// A message of a robot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RobotMessage {
    /// The plain text.
    pub text: String,
    /// Who is mentioned, by `userId`.
    pub mentions: Vec<String>,
}

/// A request and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DingTalkCall {
    /// The HTTP method.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Null if it is not JSON.
    pub body: Value,
    /// DingTalk's code; empty for success.
    pub code: String,
}

/// A failure of all requests to a path.
#[derive(Debug, Clone, Default)]
pub struct DingTalkFault {
    /// The beginning of the path.
    pub path: String,
    /// The HTTP status; 0 stands for 400.
    pub status: u16,
    /// DingTalk's code. Without a code, the body is not JSON.
    pub code: Option<&'static str>,
    /// The header `retry-after`, in seconds.
    pub retry_after: Option<u16>,
    /// Whether there is no answer at all.
    pub hangs: bool,
    /// Whether the request takes effect, and only its answer is replaced.
    pub after_effect: bool,
}

/// A fake with custom robots. Each option is `robot:TOKEN=SECRET`.
///
/// # Errors
/// When an option has another form.
pub fn parse_fake_options(options: &[String]) -> Result<FakeDingTalk, Error> {
    let fake = FakeDingTalk::default();
    for option in options {
        let robot = option.strip_prefix("robot:").and_then(|robot| robot.split_once('='));
        let (token, secret) = robot.ok_or("the fake of DingTalk takes --with robot:TOKEN=SECRET")?;
        fake.add_robot(token, Some(secret));
    }
    Ok(fake)
}

impl FakeDingTalk {
    /// A fake with other settings than the default.
    #[must_use]
    pub fn new(settings: FakeDingTalkSettings) -> Self {
        Self { state: Arc::new(Mutex::new(FakeDingTalkState { settings, ..FakeDingTalkState::default() })) }
    }

    /// Answers requests on `listener` until the task ends.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        loopback::serve(listener, self.router()).await
    }

    /// Takes requests to every path.
    pub fn router(self) -> Router {
        Router::new().fallback(wire::handle_request).with_state(self)
    }

    fn lock(&self) -> MutexGuard<'_, FakeDingTalkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The app and its corporation.
    #[must_use]
    pub fn settings(&self) -> FakeDingTalkSettings {
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

    /// Sets the fault of a group; `None` removes it.
    pub fn set_group_fault(&self, conversation: &str, fault: Option<GroupFault>) {
        let mut state = self.lock();
        match fault {
            Some(fault) => state.groups.insert(conversation.to_owned(), fault),
            None => state.groups.remove(conversation),
        };
    }

    /// This person leaves the corporation.
    pub fn remove_person(&self, user_id: &str) {
        self.lock().strangers.insert(user_id.to_owned());
    }

    /// Sets whether the template is published.
    pub fn set_published(&self, is_published: bool) {
        self.lock().unpublished = !is_published;
    }

    /// Sets whether the corporation has used up its calls of the month.
    pub fn set_quota_used(&self, is_used: bool) {
        self.lock().quota_is_used = is_used;
    }

    /// Adds a custom robot at `/robot/send?access_token={token}`. With a secret, it checks signatures.
    pub fn add_robot(&self, token: &str, secret: Option<&str>) {
        self.lock().robots.insert(token.to_owned(), robot::CustomRobot::new(secret));
    }

    /// Deletes a card, as nobody can.
    pub fn forget_card(&self, out_track_id: &str) {
        self.lock().cards.retain(|card| card.out_track_id != out_track_id);
    }

    /// Lets requests fail until [`FakeDingTalk::clear_faults`].
    pub fn add_fault(&self, fault: DingTalkFault) {
        self.lock().faults.push(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// All requests so far.
    #[must_use]
    pub fn calls(&self) -> Vec<DingTalkCall> {
        self.lock().calls.iter().cloned().collect()
    }

    /// Where the clicks of a route go.
    #[must_use]
    pub fn registration(&self, route: &str) -> Option<CardRoute> {
        self.lock().registrations.get(route).cloned()
    }

    /// Registers an address, as somebody else may have done.
    pub fn set_registration(&self, route: &str, registered: CardRoute) {
        self.lock().registrations.insert(route.to_owned(), registered);
    }

    /// The cards of a group as this person sees them, the oldest first.
    #[must_use]
    pub fn cards_in(&self, conversation: &str, viewer: &str) -> Vec<DingTalkCard> {
        self.cards_at("IM_GROUP", conversation, viewer)
    }

    /// The cards that only this person gets.
    #[must_use]
    pub fn cards_to(&self, user_id: &str) -> Vec<DingTalkCard> {
        self.cards_at("IM_ROBOT", user_id, user_id)
    }

    fn cards_at(&self, kind: &str, place: &str, viewer: &str) -> Vec<DingTalkCard> {
        let state = self.lock();
        let is_there = |card: &&CardInstance| card.space.as_ref().is_some_and(|(a, b)| a == kind && b == place);
        state.cards.iter().filter(is_there).map(|card| template::view_card(card, viewer)).collect()
    }

    /// The messages of the robot to a group, to a person, or to a session; and those of a custom robot, by its token.
    #[must_use]
    pub fn texts_to(&self, place: &str) -> Vec<RobotMessage> {
        self.lock().texts.get(place).cloned().unwrap_or_default()
    }
}

impl FakeDingTalkState {
    fn now(&self) -> Timestamp {
        clock::now() + self.clock_offset
    }

    /// A new id.
    fn next_id(&mut self, prefix: &str) -> String {
        self.last_id += 1;
        format!("{prefix}{:032x}", self.last_id)
    }

    /// Counts a call of one kind, unless there are too many in this second. Returns whether it is counted.
    fn try_count_call(&mut self, path: &str) -> bool {
        let now = self.now();
        let times = self.recent_calls.entry(path.to_owned()).or_default();
        times.retain(|time| now.duration_since(*time) < SignedDuration::from_secs(1));
        let is_allowed = times.len() < MAX_CALLS_PER_SECOND;
        if is_allowed {
            times.push(now);
        }
        is_allowed
    }

    fn add_text(&mut self, place: &str, text: &str, mentions: Vec<String>) {
        let message = RobotMessage { text: text.to_owned(), mentions };
        self.texts.entry(place.to_owned()).or_default().push(message);
        let kind = timeline::ShownKind::Text(text.to_owned());
        self.timeline.push(timeline::ShownPart { place: place.to_owned(), kind });
    }
}

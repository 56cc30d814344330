//! What Teams sends: authenticity, then clicks and questions. The body is read only after the token is verified.

use bytes::Bytes;
use http::{HeaderMap, Request};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use url::Url;

use super::keys::KeyCache;
use super::token::UnverifiedToken;
use super::{CHANNEL_ID, Config, MAX_BINDING_CHARS, NAME, PlatformContext, REALM, is_guid, is_teams_id, reference};
use crate::approval::Principal;
use crate::chat::command::parse_command;
use crate::chat::command_words::{CommandProblem, UnknownCommand};
use crate::chat::malformed::JsonObject;
use crate::chat::request::normalize_reason;
use crate::chat::{
    Authentic, Click, CommandRequest, ForeignRequest, Incoming, MalformedRequest, MessageRef, RequestOrigin, SingleUse,
    TenantMismatch, Unauthentic, VerifyError,
};

/// The longest text command, in bytes.
const MAX_TEXT_BYTES: usize = 16 * 1024;
/// The most mentions of a text that are looked at.
const MAX_MENTIONS: usize = 50;
/// What separates the id of a channel from that of a thread's first message.
const THREAD_MARK: &str = ";messageid=";

/// Teams tests no address.
pub(in crate::chat) fn is_address_test(_request: &Request<Bytes>) -> bool {
    false
}

/// Refuses what has no token of the documented form.
pub(in crate::chat) fn precheck_request(request: &Request<Bytes>, _now: Timestamp) -> Result<(), Unauthentic> {
    UnverifiedToken::parse(request.headers()).map(|_| ())
}

/// Verifies the token of a request with the keys of the bot service.
pub(in crate::chat) async fn verify(
    access: PlatformContext<'_>,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<Authentic, VerifyError> {
    verify_with(access.http, access.config, &access.state.keys, request.headers(), request.body(), now).await
}

/// Verifies the token of a request, and that the body is of the service and the channel that the token is for.
///
/// Source: <https://learn.microsoft.com/en-us/azure/bot-service/rest-api/bot-framework-rest-connector-authentication>
///
/// # Errors
/// Why it is not authentic, or why nobody knows.
pub async fn verify_with(
    http: &reqwest::Client,
    config: &Config,
    keys: &KeyCache,
    headers: &HeaderMap,
    body: &Bytes,
    now: Timestamp,
) -> Result<Authentic, VerifyError> {
    let token = UnverifiedToken::parse(headers)?;
    let keys = keys.find(http, config, &token.key_id, now).await?;
    let is_endorsed = keys.verify(&token)?;
    let content = token.check_claims(config, now)?;
    let refuse = |problem| Err(Unauthentic::InvalidToken(problem).into());
    let Ok(JsonObject(head)) = serde_json::from_slice::<JsonObject<ActivityHead>>(body) else {
        return Err(Unauthentic::InvalidEnvelope.into());
    };
    let bare = |url: &str| url.trim_end_matches('/').to_owned();
    if head.service_url.as_deref().map(bare) != Some(bare(&content.service_url)) {
        return refuse("its service URL is not that of the body");
    }
    if head.channel_id.as_deref() != Some(CHANNEL_ID) {
        return refuse("the body is of another channel than Teams");
    }
    if !is_endorsed {
        return refuse("its key is not endorsed for Teams");
    }
    if config.parse_service_url(&content.service_url).is_none() {
        return refuse("its service URL has a host that is not known");
    }
    // The second of now: the time of the body is not signed, and that of the token is the same for many requests.
    let signed_at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let origin = RequestOrigin { request_key: head.request_key(body), signed_at, key_index: 0 };
    let single_use = Some(SingleUse::Id(content.refused_from));
    Ok(Authentic { body: body.clone(), sender: NAME.to_owned(), origin, single_use })
}

/// The fields of an activity that its token is compared with, and those that identify it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActivityHead {
    service_url: Option<String>,
    channel_id: Option<String>,
    id: Option<String>,
    conversation: Option<ActivityId>,
}

#[derive(Deserialize)]
struct ActivityId {
    id: Option<String>,
}

impl ActivityHead {
    /// Teams repeats an activity with the same id. One without an id is not understood later.
    fn request_key(&self, body: &[u8]) -> String {
        let conversation = self.conversation.as_ref().and_then(|conversation| conversation.id.as_deref());
        let digest = match (conversation, self.id.as_deref()) {
            // The id of the thread is a part that a repetition could lack.
            (Some(conversation), Some(id)) => Sha256::digest(format!("{}\n{id}", without_thread(conversation))),
            (None, _) | (_, None) => Sha256::digest(body),
        };
        format!("{REALM}:{:.32}", hex::encode(digest))
    }
}

/// The id of a channel, without the id of a message in it.
fn without_thread(conversation: &str) -> &str {
    conversation.split_once(THREAD_MARK).map_or(conversation, |(channel, _)| channel)
}

/// Where Teams shows the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// To a click: a message in the HTTP response. A longer answer is posted to the person.
    Click(TeamsPerson),
    /// To a text, or a click of an old client: posted to the person.
    Text(TeamsPerson),
}

/// A person whom the bot can write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamsPerson {
    /// The service that knows the person; the bot's token may be sent there.
    pub service_url: Url,
    /// The person's id for the bot (`29:…`).
    pub user: String,
    /// The id of the one-to-one chat, if the request is of one.
    pub chat: Option<String>,
}

impl ReplyTo {
    pub(in crate::chat) fn log_label(&self) -> &'static str {
        match self {
            Self::Click(_) => "Click",
            Self::Text(_) => "Text",
        }
    }

    /// Only a redrawn copy would show a link, and Teams shows no copy to everybody.
    #[expect(clippy::unused_self, reason = "other platforms have links")]
    pub(in crate::chat) fn message_link(&self, _place: &MessageRef) -> Option<String> {
        None
    }
}

/// What a person or the service did.
///
/// Source: <https://github.com/microsoft/botframework-sdk/blob/main/specs/botframework-activity/botframework-activity.md>
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Activity<'a> {
    r#type: String,
    name: Option<String>,
    id: String,
    service_url: String,
    from: Option<Sender>,
    recipient: Option<ActivityId>,
    conversation: ActivityConversation,
    reply_to_id: Option<String>,
    channel_data: Option<ChannelData>,
    text: Option<String>,
    #[serde(default)]
    entities: Vec<serde_json::Value>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sender {
    id: String,
    aad_object_id: Option<String>,
    tenant_id: Option<String>,
    role: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActivityConversation {
    id: String,
    tenant_id: Option<String>,
    conversation_type: Option<String>,
}

#[derive(Deserialize)]
struct ChannelData {
    tenant: Option<ActivityId>,
    team: Option<ActivityId>,
    channel: Option<ActivityId>,
}

impl Activity<'_> {
    /// The conversation without the id of a thread.
    fn conversation_id(&self) -> &str {
        without_thread(&self.conversation.id)
    }

    fn is_personal(&self) -> bool {
        self.conversation.conversation_type.as_deref() == Some("personal")
    }

    /// Every tenant that the activity names.
    fn tenants(&self) -> Vec<&str> {
        let of_data = self.channel_data.as_ref().and_then(|data| data.tenant.as_ref()?.id.as_deref());
        let of_sender = self.from.as_ref().and_then(|from| from.tenant_id.as_deref());
        [of_data, self.conversation.tenant_id.as_deref(), of_sender].into_iter().flatten().collect()
    }

    /// The ids of the conversation, its channel and its team.
    fn places(&self) -> impl Iterator<Item = &str> {
        let data = self.channel_data.as_ref();
        let channel = data.and_then(|data| data.channel.as_ref()?.id.as_deref());
        let team = data.and_then(|data| data.team.as_ref()?.id.as_deref());
        [Some(self.conversation_id()), channel, team].into_iter().flatten()
    }

    /// The tenant that is not the configured one; empty if the activity names none. `None` if it is ours.
    fn foreign_tenant(&self, config: &Config) -> Option<&str> {
        let tenants = self.tenants();
        let foreign = tenants.iter().find(|tenant| !tenant.eq_ignore_ascii_case(&config.tenant));
        foreign.copied().or_else(|| tenants.is_empty().then_some(""))
    }

    fn is_of_known_place(&self, config: &Config) -> bool {
        self.is_personal() || self.places().any(|id| config.has_conversation(id))
    }
}

fn parse_activity(body: &[u8]) -> Option<Activity<'_>> {
    serde_json::from_slice::<JsonObject<Activity<'_>>>(body).ok().map(|JsonObject(activity)| activity)
}

/// Keeps where the conversations of the configuration are.
pub(in crate::chat) async fn learn(access: PlatformContext<'_>, authentic: &Authentic) {
    let Some(activity) = parse_activity(&authentic.body) else { return };
    if activity.foreign_tenant(access.config).is_some() {
        return;
    }
    let Some(service_url) = access.config.parse_service_url(&activity.service_url) else { return };
    for id in activity.places().filter(|id| access.config.has_conversation(id)) {
        reference::keep(access, id, &service_url, authentic.origin.signed_at).await;
    }
}

/// Parses an authentic request.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/task-modules-and-cards/cards/universal-actions-for-adaptive-cards/work-with-universal-actions-for-adaptive-cards>
///
/// # Errors
/// What is not understood.
pub fn parse(config: &Config, authentic: Authentic) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let Authentic { body, origin, .. } = authentic;
    let activity = parse_activity(&body).ok_or_else(|| MalformedRequest::new("the activity has another form"))?;
    match activity.r#type.as_str() {
        "invoke" => parse_invoke(&activity, origin, config),
        "message" => parse_message(&activity, origin, config),
        // Teams reports much that needs no answer, e.g. that the bot was added to a team.
        _ => Ok(ignored_activity()),
    }
}

fn ignored_activity() -> Incoming<ReplyTo> {
    Incoming::Challenge("{}".to_owned())
}

#[derive(Deserialize)]
struct InvokeValue<'a> {
    #[serde(borrow)]
    action: CardExecute<'a>,
    trigger: Option<String>,
}

#[derive(Deserialize)]
struct CardExecute<'a> {
    r#type: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A click: `Action.Execute` of a card.
fn parse_invoke(
    activity: &Activity<'_>,
    origin: RequestOrigin,
    config: &Config,
) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    if activity.name.as_deref() != Some("adaptiveCard/action") {
        return Err(MalformedRequest::new("of the invokes, only adaptiveCard/action is understood"));
    }
    let person = match find_person(activity, config)? {
        Identified::Ours(person) => person,
        Identified::Foreign { mismatch, person } => {
            let reply_to = Some(ReplyTo::Click(person));
            return Ok(Incoming::WrongTenant(ForeignRequest { reply_to, mismatch }));
        }
    };
    let value = activity.value.and_then(|value| serde_json::from_str(value.get()).ok());
    let InvokeValue { action, trigger } = value.ok_or_else(|| MalformedRequest::new("value: expected an action"))?;
    if action.r#type != "Action.Execute" || trigger.is_some_and(|trigger| trigger != "manual") {
        return Err(MalformedRequest::new("of the actions, only Action.Execute of a person is understood"));
    }
    let click = parse_click(activity, action.data, person.by, origin)?;
    Ok(Incoming::Click { click, reply_to: ReplyTo::Click(person.at) })
}

/// What a button of ours carries, and the values of the inputs beside it.
#[derive(Deserialize)]
struct ButtonData {
    b: Option<String>,
    reason: Option<String>,
    approve_reason: Option<String>,
}

fn parse_click(
    activity: &Activity<'_>,
    data: Option<&RawValue>,
    by: Principal,
    origin: RequestOrigin,
) -> Result<Click, MalformedRequest> {
    let data = serde_json::from_str::<JsonObject<ButtonData>>(data.map_or("{}", RawValue::get));
    let Ok(JsonObject(ButtonData { b, reason, approve_reason })) = data else {
        return Err(MalformedRequest::new("the data of the button has another form"));
    };
    // The button of another app has no binding.
    let binding = b.unwrap_or_default();
    if binding.len() > MAX_BINDING_CHARS {
        return Err(MalformedRequest::new("the button's binding is too long"));
    }
    let message_ref = match &activity.reply_to_id {
        _ if activity.is_personal() => None,
        Some(message_id) if is_teams_id(message_id) => {
            let (channel, message_id) = (activity.conversation_id().to_owned(), message_id.clone());
            Some(MessageRef { channel, message_id }.to_string())
        }
        Some(_) | None => return Err(MalformedRequest::new("replyToId: expected the id of the card's message")),
    };
    let given = [reason, approve_reason].into_iter().flatten().filter(|text| !text.trim().is_empty());
    let reason = match given.collect::<Vec<_>>().as_slice() {
        [] => None,
        [reason] => normalize_reason(reason),
        _ => return Err(MalformedRequest::new("the click has two reasons")),
    };
    // The card itself has the input for the reason.
    Ok(Click { by, origin, binding, message_ref, was_asked: true, reason })
}

/// A message is a question in words, or a click of a client that does not know `Action.Execute`.
fn parse_message(
    activity: &Activity<'_>,
    origin: RequestOrigin,
    config: &Config,
) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let is_bot = |from: &Sender| from.role.as_deref() == Some("bot") || from.id.starts_with("28:");
    // Answering another bot could cause an endless exchange.
    if activity.from.as_ref().is_none_or(is_bot) {
        return Ok(ignored_activity());
    }
    let data = activity.value.filter(|value| value.get() != "null");
    let text = activity.text.as_deref().unwrap_or_default();
    let mentions = own_mentions(activity, config);
    if data.is_none() && !activity.is_personal() && mentions.is_empty() {
        return Ok(ignored_activity());
    }
    let person = match find_person(activity, config)? {
        Identified::Ours(person) => person,
        // The bot's token is not sent for people of others.
        Identified::Foreign { mismatch, .. } => {
            return Ok(Incoming::WrongTenant(ForeignRequest { reply_to: None, mismatch }));
        }
    };
    let reply_to = ReplyTo::Text(person.at);
    if data.is_some() {
        return Ok(Incoming::Click { click: parse_click(activity, data, person.by, origin)?, reply_to });
    }
    if text.len() > MAX_TEXT_BYTES {
        let error = UnknownCommand::NotUnderstood { problem: CommandProblem::TooLong, suggestions: vec![] };
        return Ok(Incoming::UnknownCommand { error, reply_to });
    }
    let text = mentions.iter().fold(text.to_owned(), |text, mention| text.replace(mention, " "));
    Ok(match parse_command(&text.replace("&nbsp;", " ")) {
        Ok(command) => {
            let request = CommandRequest { command, by: person.by, origin, clicked_card: None };
            Incoming::Command { request, reply_to }
        }
        Err(error) => Incoming::UnknownCommand { error, reply_to },
    })
}

#[derive(Deserialize)]
struct MentionEntity {
    r#type: String,
    text: Option<String>,
    mentioned: Option<ActivityId>,
}

/// How the text mentions the bot: `<at>…</at>`.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/bots/how-to/conversations/channel-and-group-conversations>
fn own_mentions(activity: &Activity<'_>, config: &Config) -> Vec<String> {
    let own = [activity.recipient.as_ref().and_then(|bot| bot.id.clone()), Some(format!("28:{}", config.app))];
    let mention = |entity: &serde_json::Value| {
        let MentionEntity { r#type, text, mentioned } = MentionEntity::deserialize(entity).ok()?;
        let id = mentioned.and_then(|mentioned| mentioned.id).filter(|_| r#type == "mention")?;
        let is_own = own.iter().flatten().any(|own| *own == id);
        text.filter(|text| is_own && text.starts_with("<at>") && text.ends_with("</at>"))
    };
    activity.entities.iter().take(MAX_MENTIONS).filter_map(mention).collect()
}

/// A person of our tenant.
struct KnownPerson {
    by: Principal,
    at: TeamsPerson,
}

enum Identified {
    Ours(KnownPerson),
    Foreign { mismatch: TenantMismatch, person: TeamsPerson },
}

/// Who the activity is of. The object id identifies a person: it never changes. A name can be changed, and the `29:` id is
/// another one for each bot.
fn find_person(activity: &Activity<'_>, config: &Config) -> Result<Identified, MalformedRequest> {
    let at = reply_address(activity, config)?;
    if let Some(tenant) = activity.foreign_tenant(config) {
        let mismatch = TenantMismatch::new([tenant, &config.app], [config.tenant.as_str()], &config.app);
        return Ok(Identified::Foreign { mismatch, person: at });
    }
    if !activity.is_of_known_place(config) {
        return Err(MalformedRequest::new("the conversation is not one of `platforms.teams.conversations`"));
    }
    let object_id = activity.from.as_ref().and_then(|from| from.aad_object_id.as_deref());
    let object_id = object_id.map(str::to_ascii_lowercase).filter(|id| is_guid(id));
    let Some(object_id) = object_id else {
        return Err(MalformedRequest::new("from.aadObjectId: expected the object id of a person"));
    };
    let by = Principal::new(REALM, &config.tenant, &object_id);
    let by = by.map_err(|_| MalformedRequest::new("from.aadObjectId: expected the object id of a person"))?;
    Ok(Identified::Ours(KnownPerson { by, at }))
}

fn reply_address(activity: &Activity<'_>, config: &Config) -> Result<TeamsPerson, MalformedRequest> {
    let user = activity.from.as_ref().map(|from| from.id.clone()).unwrap_or_default();
    let (conversation, id) = (activity.conversation_id(), &activity.id);
    if ![user.as_str(), conversation, id].iter().all(|id| is_teams_id(id)) {
        return Err(MalformedRequest::new("an id is not one of Teams"));
    }
    let service_url = config.parse_service_url(&activity.service_url);
    let service_url = service_url.ok_or_else(|| MalformedRequest::new("serviceUrl: expected a known host"))?;
    let chat = activity.is_personal().then(|| conversation.to_owned());
    Ok(TeamsPerson { service_url, user, chat })
}

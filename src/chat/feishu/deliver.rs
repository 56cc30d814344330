//! How a message gets to a chat, a person or a custom bot; and the token for it, which processes share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
use std::time::Duration;

use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::post::{
    CallError, CardUpdate, FeishuApi, MAX_UUID_CHARS, PostedMessage, Receiver, build_bot_message, fetch_token, post_bot,
};
use super::{BotChannel, Channel, PlatformContext, ReplyTo, ToastKind, render_card, reply_json, toast_json};
use crate::approval::{RetryPolicy, Verdict};
use crate::chat::message::{self, Button, Message};
use crate::chat::response::json_response;
use crate::chat::{AskOutcome, ChannelSecrets, Click, DeliveryError, Outgoing, ProbeError, UpdateOutcome, probe_url};
use crate::clock;
use crate::notes::NoteId;
use crate::redaction::KeyProblem;
use crate::secret::Secret;

/// A token that ends sooner is replaced: it has to outlast the call.
const MIN_TOKEN_VALIDITY: SignedDuration = SignedDuration::from_mins(10);
/// What is left of Feishu's 3 s for an answer to one person.
const PRIVATE_REPLY_TIMEOUT: Duration = Duration::from_millis(600);
/// After a failure, wait this long before asking for a token again: nobody must wait once for each message.
const TOKEN_RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Codes of an app's id or secret that Feishu does not know.
const UNKNOWN_APP_CODES: [&str; 2] = ["10003", "10014"];

/// Posts to a group, or to a person, in one second; all bots of a group share them.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
const MAX_POSTS_PER_SECOND: usize = 5;
/// One second, and what the network may add.
const RATE_PERIOD: Duration = Duration::from_millis(1100);
/// Receivers whose posts are counted; beyond it, all are forgotten.
const MAX_RECEIVERS: usize = 1000;

/// What this process remembers.
#[derive(Debug, Default)]
pub struct State {
    /// The token, and its end.
    token: Mutex<Option<(Secret, Timestamp)>>,
    /// Why there was no token, and when that was.
    last_failure: std::sync::Mutex<Option<(DeliveryError, Instant)>>,
    /// When the last posts to each receiver are, or will be, made.
    post_times: std::sync::Mutex<BTreeMap<String, VecDeque<Instant>>>,
}

impl State {
    /// Waits until a receiver can take one more post.
    async fn wait_for_turn(&self, receiver: Receiver<'_>) {
        let (Receiver::Chat(id) | Receiver::Person(id)) = receiver;
        let turn = {
            let mut posts = self.post_times.lock().unwrap_or_else(PoisonError::into_inner);
            if posts.len() >= MAX_RECEIVERS && !posts.contains_key(id) {
                posts.clear();
            }
            let own = posts.entry(id.to_owned()).or_default();
            let now = Instant::now();
            let turn = match own.front() {
                Some(first) if own.len() >= MAX_POSTS_PER_SECOND => now.max(*first + RATE_PERIOD),
                Some(_) | None => now,
            };
            own.push_back(turn);
            while own.len() > MAX_POSTS_PER_SECOND {
                own.pop_front();
            }
            turn
        };
        sleep_until(turn).await;
    }
}

/// The token: this process's, else the one that another process has left, else a new one.
async fn current_token(access: PlatformContext<'_>) -> Result<Secret, DeliveryError> {
    let (mut kept, now) = (access.state.token.lock().await, clock::now());
    let is_good = |until: Timestamp| until.duration_since(now) > MIN_TOKEN_VALIDITY;
    if let Some((token, until)) = kept.as_ref()
        && is_good(*until)
    {
        return Ok(token.clone());
    }
    let id = NoteId::new("token", &format!("feishu/{}", access.config.app)).ok();
    // Without the table, each process fetches its own.
    let shared = match &id {
        Some(id) => access.notes.load(id, now).await.ok().flatten(),
        None => None,
    };
    if let Some(note) = shared.filter(|note| is_good(note.expires_at)) {
        let token = Secret::new(note.text);
        *kept = Some((token.clone(), note.expires_at));
        return Ok(token);
    }
    let failed = || access.state.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((undelivered, at)) = failed().as_ref()
        && at.elapsed() < TOKEN_RETRY_PAUSE
    {
        return Err(undelivered.clone());
    }
    let fetched = match fetch_new_token(access).await {
        Ok(fetched) => fetched,
        Err(undelivered) => {
            *failed() = Some((undelivered.clone(), Instant::now()));
            return Err(undelivered);
        }
    };
    *failed() = None;
    let until = now.saturating_add(fetched.valid_for).unwrap_or(now);
    if let Some(id) = &id {
        // It stays this process's own if the table does not take it.
        let _ = access.notes.save(id, fetched.token.expose(), until, now).await;
    }
    *kept = Some((fetched.token.clone(), until));
    Ok(fetched.token)
}

async fn fetch_new_token(access: PlatformContext<'_>) -> Result<super::TenantToken, DeliveryError> {
    fetch_token(access.http, &access.config.api_url(), &access.config.app, &access.secrets.app_secret).await
}

/// Replaces a token that Feishu refuses, unless somebody has done so meanwhile.
async fn replace_token(access: PlatformContext<'_>, refused: &Secret) -> Result<Secret, DeliveryError> {
    {
        let mut kept = access.state.token.lock().await;
        if kept.as_ref().is_some_and(|(token, _)| token == refused) {
            *kept = None;
            if let Ok(id) = NoteId::new("token", &format!("feishu/{}", access.config.app)) {
                let now = clock::now();
                let _ = access.notes.save(&id, "", now, now).await;
            }
        }
    }
    current_token(access).await
}

/// A call with the token.
#[derive(Clone, Copy)]
enum ApiCall<'a> {
    Post(Receiver<'a>, &'a Value, &'a str),
    ReplyBelow(&'a str, &'a str, &'a Value, &'a str),
    Update(&'a str, &'a Value),
}

/// What came of a call.
enum ApiOutcome {
    Posted(PostedMessage),
    Updated(CardUpdate),
}

/// Makes a call; with another token, once more, if Feishu refuses the first.
async fn call_api(access: PlatformContext<'_>, call: ApiCall<'_>) -> Result<ApiOutcome, CallError> {
    let first = current_token(access).await.map_err(CallError::NotDelivered)?;
    match call_api_once(access, &first, call).await {
        Err(CallError::TokenRefused(_)) => {
            let token = replace_token(access, &first).await.map_err(CallError::NotDelivered)?;
            call_api_once(access, &token, call).await
        }
        answer => answer,
    }
}

async fn call_api_once(
    access: PlatformContext<'_>,
    token: &Secret,
    call: ApiCall<'_>,
) -> Result<ApiOutcome, CallError> {
    let url = access.config.api_url();
    let api = FeishuApi { http: access.http, url: &url, token };
    match call {
        ApiCall::Post(receiver, card, uuid) => {
            access.state.wait_for_turn(receiver).await;
            api.post(receiver, card, uuid).await.map(ApiOutcome::Posted)
        }
        ApiCall::ReplyBelow(chat, id, card, uuid) => {
            access.state.wait_for_turn(Receiver::Chat(chat)).await;
            api.reply_below(id, card, uuid).await.map(ApiOutcome::Posted)
        }
        ApiCall::Update(id, card) => api.update(id, card).await.map(ApiOutcome::Updated),
    }
}

/// The card of a message: each button carries its binding.
fn card_json(message: &Message) -> Value {
    let binding = |button: Button| {
        let mut bound = message.buttons.iter().flat_map(message::Buttons::with_bindings);
        bound.find(|(shown, _)| *shown == button).map(|(_, text)| text.to_owned()).unwrap_or_default()
    };
    let bound = message.buttons.as_ref().is_some_and(|buttons| !buttons.bindings.is_empty());
    if bound {
        render_card(message, binding)
    } else {
        render_card(&Message { buttons: None, ..message.clone() }, binding)
    }
}

fn card_reference(chat: &str, posted: &PostedMessage) -> String {
    format!("{chat}/{}", posted.message_id)
}

/// A key as Feishu takes it.
fn clip_uuid(key: &str) -> String {
    key.chars().take(MAX_UUID_CHARS).collect()
}

impl Channel {
    /// Posts a card. Returns where it is, as `chat/message`.
    pub(in crate::chat) async fn post(
        &self,
        access: PlatformContext<'_>,
        message: &Message,
        key: &str,
    ) -> Result<String, DeliveryError> {
        let (card, uuid) = (card_json(message), clip_uuid(key));
        match call_api(access, ApiCall::Post(Receiver::Chat(&self.chat), &card, &uuid)).await {
            Ok(ApiOutcome::Posted(posted)) => Ok(card_reference(&self.chat, &posted)),
            Ok(ApiOutcome::Updated(_)) => {
                Err(DeliveryError::misconfigured("the answer does not say where the message is"))
            }
            Err(failure) => Err(failure.into_delivery_error()),
        }
    }

    /// Redraws a card, unless the configuration names another chat by now.
    pub(in crate::chat) async fn update(
        &self,
        access: PlatformContext<'_>,
        reference: &str,
        message: &Message,
    ) -> Result<UpdateOutcome, DeliveryError> {
        let here = reference.split_once('/').filter(|(chat, _)| *chat == self.chat);
        let Some((_, id)) = here else { return Ok(UpdateOutcome::Gone) };
        let card = card_json(message);
        match call_api(access, ApiCall::Update(id, &card)).await {
            Ok(ApiOutcome::Updated(CardUpdate::Redrawn) | ApiOutcome::Posted(_)) => Ok(UpdateOutcome::Updated),
            Ok(ApiOutcome::Updated(CardUpdate::Gone)) | Err(CallError::MessageGone(_)) => Ok(UpdateOutcome::Gone),
            Ok(ApiOutcome::Updated(CardUpdate::TooOld)) => Ok(UpdateOutcome::TooOld),
            Err(failure) => Err(failure.into_delivery_error()),
        }
    }

    /// Says something in the thread of a card; where that is gone, or it is urgent, in the chat, too.
    pub(in crate::chat) async fn reply_below(
        &self,
        access: PlatformContext<'_>,
        reference: &str,
        message: &Message,
        urgent: bool,
        key: &str,
    ) -> Result<(), DeliveryError> {
        let nowhere = || DeliveryError::misconfigured("the reference of the card is malformed");
        let (chat, id) = reference.split_once('/').ok_or_else(nowhere)?;
        let (card, uuid) = (card_json(message), clip_uuid(key));
        match call_api(access, ApiCall::ReplyBelow(chat, id, &card, &uuid)).await {
            Ok(_) if !urgent => Ok(()),
            Ok(_) | Err(CallError::MessageGone(_)) => self.post(access, message, &format!("u-{key}")).await.map(|_| ()),
            Err(failure) => Err(failure.into_delivery_error()),
        }
    }

    /// Fetches a token, and posts `test`.
    pub(in crate::chat) async fn probe(
        &self,
        access: PlatformContext<'_>,
        test: Option<&Message>,
    ) -> Result<&'static str, ProbeError> {
        fetch_new_token(access).await?;
        let Some(test) = test else { return Ok("the app's secret is good") };
        self.post(access, test, &clock::nonce()).await?;
        Ok("took a test message")
    }
}

impl BotChannel {
    /// Posts a message.
    pub(in crate::chat) async fn post(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        message: &Message,
    ) -> Result<(), DeliveryError> {
        let body = build_bot_message(message, endpoint.signing_secrets.first(), clock::now());
        post_bot(http, &endpoint.url, &body).await
    }

    /// Without a test message, all that shows is that somebody answers.
    pub(in crate::chat) async fn probe(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        test: Option<&Message>,
    ) -> Result<&'static str, ProbeError> {
        let Some(test) = test else { return probe_url(http, &endpoint.url).await };
        self.post(http, endpoint, test).await?;
        Ok("took a test message")
    }
}

/// The field for the reason is on the card: nobody is asked again.
pub(in crate::chat) async fn ask_reason(
    _access: PlatformContext<'_>,
    _to: &ReplyTo,
    _click: &Click,
    _verdict: Verdict,
    _timeout: Duration,
) -> Result<AskOutcome, DeliveryError> {
    Ok(AskOutcome::Impossible)
}

/// Tells the sender. A click is answered by a toast and the card; what does not fit into a toast goes to the person alone,
/// as do answers to text commands.
pub(in crate::chat) async fn reply(
    access: PlatformContext<'_>,
    to: ReplyTo,
    outgoing: &Outgoing<'_>,
) -> Response<String> {
    let (message, card, kind) = match outgoing {
        Outgoing::Reply { reply: answer, message, card } => {
            let kind = if answer.outcome().0.is_success() { ToastKind::Success } else { ToastKind::Warning };
            (Message::clone(message), card.as_deref(), kind)
        }
        Outgoing::Usage => (message::command_usage(), None, ToastKind::Info),
        Outgoing::WrongTenant => {
            (message::wrong_tenant("Feishu tenant", "platforms.feishu.tenant"), None, ToastKind::Error)
        }
        Outgoing::ReasonAsked => return json_response(StatusCode::OK, &reply_json(None, None)),
    };
    let is_short = message.facts.is_empty() && message.buttons.is_none() && message.snippet.is_none();
    let (open_id, toasted) = match &to {
        ReplyTo::Click { open_id } => (open_id, true),
        ReplyTo::Text { open_id, .. } => (open_id, false),
    };
    if !toasted || !is_short {
        post_to_person(access, open_id, &message).await;
    }
    let words = std::iter::once(message.headline.as_str()).chain(message.sentences.iter().map(String::as_str));
    let toast = toasted.then(|| toast_json(kind, &words.collect::<Vec<_>>().join(". ")));
    json_response(StatusCode::OK, &reply_json(toast, card.map(self::card_json)))
}

/// Says something to a person alone.
async fn post_to_person(access: PlatformContext<'_>, open_id: &str, message: &Message) {
    let (card, uuid) = (card_json(message), clock::nonce());
    let call = call_api(access, ApiCall::Post(Receiver::Person(open_id), &card, &uuid));
    let error = match timeout(PRIVATE_REPLY_TIMEOUT, call).await {
        Ok(Ok(_)) => return,
        Ok(Err(failure)) => failure.into_delivery_error().error,
        Err(_elapsed) => "timeout".to_owned(),
    };
    tracing::warn!(outcome = "unanswered_click", error, "a person could not be answered");
}

/// Whether Feishu knows our app and its secret.
pub(in crate::chat) async fn config_errors(access: PlatformContext<'_>) -> Option<Vec<KeyProblem>> {
    let DeliveryError { error, retry } = fetch_new_token(access).await.err()?;
    let is_ours = UNKNOWN_APP_CODES.iter().any(|code| error.starts_with(code));
    let problem = format!("Feishu refuses the app's id or its secret ({error})");
    (is_ours && retry == RetryPolicy::AfterFix)
        .then(|| vec![KeyProblem { key: "platforms.feishu.app".to_owned(), problem }])
}

/// What an operator has to do so that requests arrive at `url`.
#[cfg(feature = "local")]
pub(in crate::chat) async fn register_webhook(access: PlatformContext<'_>, url: &url::Url) -> Result<String, String> {
    Ok(format!(
        "Feishu has no API for this. Enter {url} under Events & Callbacks of the app {}, for the callback \
         card.action.trigger and the event im.message.receive_v1; then publish a version.",
        access.config.app
    ))
}

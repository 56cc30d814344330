//! Delivery to a chat, a person or a custom bot, and the token for it, which processes share.

use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use super::post::{
    CallError, CardUpdate, FeishuApi, MAX_UUID_CHARS, PostedMessage, Receiver, build_bot_message, fetch_token, post_bot,
};
use super::{BotChannel, Channel, PlatformContext, ReplyTo, ToastKind, render_card, reply_json, toast_json};
use crate::approval::{RetryPolicy, Verdict};
use crate::chat::access_token::{AccessToken, TokenCache};
use crate::chat::answer::try_twice;
use crate::chat::call_turns::{CallLimit, CallTurns};
use crate::chat::delivery::probe_url;
use crate::chat::message::{self, Message};
use crate::chat::response::json_response;
use crate::chat::{
    AskOutcome, ChannelSecrets, Click, DeliveryError, MessageRef, Outgoing, PostAttempt, ProbeError, UpdateOutcome,
};
use crate::clock;
use crate::redaction::KeyProblem;
use crate::secret::Secret;

/// Codes for an app id or app secret that Feishu does not know.
const UNKNOWN_APP_CODES: [&str; 2] = ["10003", "10014"];

/// The most posts to a group or a person in one second. All bots of a group share this limit.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
const POST_LIMITS: [CallLimit; 1] = [CallLimit { calls: 5, period: Duration::from_millis(1100) }];

/// What this process has cached.
#[derive(Debug, Default)]
pub struct State {
    token: TokenCache,
    turns: CallTurns,
}

impl State {
    async fn wait_for_turn(&self, receiver: Receiver<'_>) {
        let (Receiver::Chat(id) | Receiver::Person(id)) = receiver;
        self.turns.wait(id, &POST_LIMITS).await;
    }
}

/// Whose token it is, as [`TokenCache::current`] names it.
fn token_owner(access: PlatformContext<'_>) -> String {
    format!("feishu/{}", access.config.app)
}

async fn current_token(access: PlatformContext<'_>) -> Result<Secret, DeliveryError> {
    access.state.token.current(access.notes, &token_owner(access), || fetch_new_token(access)).await
}

async fn fetch_new_token(access: PlatformContext<'_>) -> Result<AccessToken, DeliveryError> {
    fetch_token(access.http, &access.config.api_url(), &access.config.app, &access.secrets.app_secret).await
}

async fn replace_token(access: PlatformContext<'_>, refused: &Secret) -> Result<Secret, DeliveryError> {
    access.state.token.replace(access.notes, &token_owner(access), refused, || fetch_new_token(access)).await
}

/// A call that requires the token.
#[derive(Clone, Copy)]
enum ApiCall<'a> {
    Post { receiver: Receiver<'a>, card: &'a Value, uuid: &'a str },
    ReplyBelow { place: &'a MessageRef, card: &'a Value, uuid: &'a str },
    Update { place: &'a MessageRef, card: &'a Value },
    Recall { place: &'a MessageRef },
}

/// The result of a call.
enum ApiOutcome {
    Posted(PostedMessage),
    Updated(CardUpdate),
    Recalled,
}

/// Makes a call. If Feishu refuses the token, calls once more with a new one.
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
        ApiCall::Post { receiver, card, uuid } => {
            access.state.wait_for_turn(receiver).await;
            api.post(receiver, card, uuid).await.map(ApiOutcome::Posted)
        }
        ApiCall::ReplyBelow { place, card, uuid } => {
            access.state.wait_for_turn(Receiver::Chat(&place.channel)).await;
            api.reply_below(&place.message_id, card, uuid).await.map(ApiOutcome::Posted)
        }
        ApiCall::Update { place, card } => api.update(&place.message_id, card).await.map(ApiOutcome::Updated),
        ApiCall::Recall { place } => api.recall(&place.message_id).await.map(|()| ApiOutcome::Recalled),
    }
}

/// Cuts a key to the length that Feishu accepts.
fn clip_uuid(key: &str) -> String {
    key.chars().take(MAX_UUID_CHARS).collect()
}

impl Channel {
    /// Posts a card.
    pub(in crate::chat) async fn post(
        &self,
        access: PlatformContext<'_>,
        message: &Message,
        attempt: PostAttempt<'_>,
    ) -> Result<MessageRef, DeliveryError> {
        let (card, uuid) = (render_card(message), clip_uuid(attempt.key));
        let receiver = Receiver::Chat(&self.chat);
        match call_api(access, ApiCall::Post { receiver, card: &card, uuid: &uuid }).await {
            Ok(ApiOutcome::Posted(posted)) => {
                Ok(MessageRef { channel: self.chat.clone(), message_id: posted.message_id })
            }
            Ok(ApiOutcome::Updated(_) | ApiOutcome::Recalled) => {
                Err(DeliveryError::misconfigured("the answer does not name the message"))
            }
            Err(failure) => Err(failure.into_delivery_error()),
        }
    }

    /// Updates a card.
    pub(in crate::chat) async fn update(
        &self,
        access: PlatformContext<'_>,
        place: &MessageRef,
        message: &Message,
    ) -> Result<UpdateOutcome, DeliveryError> {
        let card = render_card(message);
        match call_api(access, ApiCall::Update { place, card: &card }).await {
            Ok(ApiOutcome::Updated(CardUpdate::Redrawn) | ApiOutcome::Posted(_) | ApiOutcome::Recalled) => {
                Ok(UpdateOutcome::Updated)
            }
            Ok(ApiOutcome::Updated(CardUpdate::Gone)) | Err(CallError::MessageGone(_)) => Ok(UpdateOutcome::Gone),
            Ok(ApiOutcome::Updated(CardUpdate::TooOld)) => Ok(UpdateOutcome::Frozen),
            Err(failure) => Err(failure.into_delivery_error()),
        }
    }

    /// Recalls a card.
    pub(in crate::chat) async fn delete(
        &self,
        access: PlatformContext<'_>,
        place: &MessageRef,
    ) -> Result<(), DeliveryError> {
        let recalled = call_api(access, ApiCall::Recall { place }).await;
        recalled.map(|_| ()).map_err(CallError::into_delivery_error)
    }

    /// Posts to the thread of a card. Posts to the chat too if `urgent`, or if the card is deleted.
    pub(in crate::chat) async fn reply_below(
        &self,
        access: PlatformContext<'_>,
        place: &MessageRef,
        message: &Message,
        urgent: bool,
        attempt: PostAttempt<'_>,
    ) -> Result<(), DeliveryError> {
        let (card, uuid) = (render_card(message), clip_uuid(attempt.key));
        match call_api(access, ApiCall::ReplyBelow { place, card: &card, uuid: &uuid }).await {
            Ok(_) if !urgent => Ok(()),
            Ok(_) | Err(CallError::MessageGone(_)) => {
                let key = format!("u-{}", attempt.key);
                self.post(access, message, PostAttempt { key: &key, ..attempt }).await.map(|_| ())
            }
            Err(failure) => Err(failure.into_delivery_error()),
        }
    }

    /// Fetches a token, and posts `test` if there is one.
    pub(in crate::chat) async fn probe(
        &self,
        access: PlatformContext<'_>,
        test: Option<&Message>,
    ) -> Result<&'static str, ProbeError> {
        fetch_new_token(access).await?;
        let Some(test) = test else { return Ok("the app's secret is valid") };
        self.post(access, test, PostAttempt::only(&clock::nonce())).await?;
        Ok("accepted a test message")
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

    /// Without a test message, this proves only that a server answers.
    pub(in crate::chat) async fn probe(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        test: Option<&Message>,
    ) -> Result<&'static str, ProbeError> {
        let Some(test) = test else { return probe_url(http, &endpoint.url).await };
        self.post(http, endpoint, test).await?;
        Ok("accepted a test message")
    }
}

/// The card itself has the input for the reason, so nobody is asked again.
pub(in crate::chat) async fn ask_reason(
    _access: PlatformContext<'_>,
    _to: &ReplyTo,
    _click: &Click,
    _verdict: Verdict,
    _timeout: Duration,
) -> Result<AskOutcome, DeliveryError> {
    Ok(AskOutcome::Impossible)
}

/// Answers the sender. A click gets a toast and the updated card; an answer that is too long for a toast is also posted to the
/// person. A text command is answered by a post to the person.
pub(in crate::chat) async fn reply(
    access: PlatformContext<'_>,
    to: ReplyTo,
    outgoing: &Outgoing<'_>,
    until: Instant,
) -> Response<String> {
    let (message, card, kind) = match outgoing {
        Outgoing::Reply { reply, message, card } => {
            let kind = if reply.outcome().status.is_success() { ToastKind::Success } else { ToastKind::Warning };
            (Message::clone(message), card.as_deref(), kind)
        }
        Outgoing::UnknownCommand(message) => (Message::clone(message), None, ToastKind::Info),
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
        post_to_person(access, open_id, &message, until).await;
    }
    let toast = toasted.then(|| toast_json(kind, &message.to_paragraph()));
    json_response(StatusCode::OK, &reply_json(toast, card.map(render_card)))
}

/// Posts to one person, by `until`. After a failure that may pass, it tries once more. Feishu shows a `uuid` only once.
async fn post_to_person(access: PlatformContext<'_>, open_id: &str, message: &Message, until: Instant) {
    let (card, uuid) = (render_card(message), clock::nonce());
    let post = || async {
        let call = ApiCall::Post { receiver: Receiver::Person(open_id), card: &card, uuid: &uuid };
        call_api(access, call).await.map(|_| ()).map_err(CallError::into_delivery_error)
    };
    let error = match try_twice(post, until).await {
        Ok(()) => return,
        Err(undelivered) => undelivered.error,
    };
    tracing::warn!(outcome = "unanswered_click", error, "could not post a private reply");
}

/// The error if Feishu does not know our app or its secret. `None` if it knows them or does not answer.
pub(in crate::chat) async fn config_errors(access: PlatformContext<'_>) -> Option<Vec<KeyProblem>> {
    let failure = fetch_new_token(access).await.err()?;
    let is_ours = UNKNOWN_APP_CODES.contains(&failure.code());
    let DeliveryError { error, retry, .. } = failure;
    let problem = format!("Feishu refuses the app's id or its secret ({error})");
    (is_ours && retry == RetryPolicy::AfterFix)
        .then(|| vec![KeyProblem { key: "platforms.feishu.app".to_owned(), problem }])
}

/// The steps of an operator so that requests arrive at `url`.
#[cfg(feature = "local")]
pub(in crate::chat) async fn register_webhook(access: PlatformContext<'_>, url: &url::Url) -> Result<String, String> {
    Ok(format!(
        "Feishu has no API for this. Enter {url} under Events & Callbacks of the app {}, for the callback \
         card.action.trigger and the event im.message.receive_v1; then publish a version.",
        access.config.app
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sixth_post_to_a_receiver_waits_for_its_turn() {
        let (state, begun) = (State::default(), Instant::now());
        for _ in 0..6 {
            state.wait_for_turn(Receiver::Person("ou_a")).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(1100), "{:?}", begun.elapsed());
    }
}

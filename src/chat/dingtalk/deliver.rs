//! Delivery to a group, a person or a custom robot, and the token for it.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::Instant;

#[cfg(feature = "local")]
use super::api::RegisterOutcome;
use super::api::{AppCallError, CardSpace, DingTalkApi, PostedCard, fetch_token};
use super::card::{cut_to_bytes, mentioned_users, message_text, render_card, reply_json};
use super::robot::{post_robot, post_session};
use super::{CardVariables, Channel, MAX_VALUE_BYTES, PlatformContext, ReplyTo, RobotChannel};
use crate::approval::{RetryPolicy, Verdict};
use crate::chat::access_token::{AccessToken, TokenCache};
use crate::chat::answer::try_twice;
use crate::chat::answer_budget::AnswerBudget;
use crate::chat::delivery::probe_url;
use crate::chat::message::{self, Message};
use crate::chat::response::json_response;
use crate::chat::{
    AskOutcome, ChannelSecrets, Click, DeliveryError, MessageRef, Outgoing, PostAttempt, ProbeError, UpdateOutcome,
};
use crate::clock;
use crate::redaction::KeyProblem;
use crate::secret::Secret;

/// The code for a Client ID or Client Secret that DingTalk does not know.
const UNKNOWN_APP_CODE: &str = "invalidClientIdOrSecret";
/// The largest text of a message of our robot, in bytes.
const MAX_ROBOT_TEXT_BYTES: usize = 5000;
/// The longest headline in the list of chats, in bytes.
const MAX_SUMMARY_BYTES: usize = 200;

/// What this process has cached.
#[derive(Debug, Default)]
pub struct State {
    token: TokenCache,
    answers: AnswerBudget,
}

/// Whose token it is, as [`TokenCache::current`] names it.
fn token_owner(access: PlatformContext<'_>) -> String {
    format!("dingtalk/{}", access.config.app)
}

async fn fetch_new_token(access: PlatformContext<'_>) -> Result<AccessToken, DeliveryError> {
    let Some(secret) = access.secrets.app_secrets.first() else { return Err(DeliveryError::no_app()) };
    fetch_token(access.http, &access.config.api, &access.config.app, secret).await
}

/// A call that requires the token.
#[derive(Clone, Copy)]
enum AppCall<'a> {
    Post { out_track_id: &'a str, space: CardSpace<'a>, message: &'a Message },
    Deliver { out_track_id: &'a str, space: CardSpace<'a> },
    Update { out_track_id: &'a str, variables: &'a CardVariables },
    SendToGroup { conversation: &'a str, message: &'a Message },
    SendToPerson { user_id: &'a str, message: &'a Message },
}

/// Makes a call. If DingTalk refuses the token, calls once more with a new one.
async fn call_app(access: PlatformContext<'_>, call: AppCall<'_>) -> Result<(), AppCallError> {
    let (cache, owner) = (&access.state.token, token_owner(access));
    let first = cache.current(access.notes, &owner, || fetch_new_token(access)).await?;
    match call_app_once(access, &first, call).await {
        Err(AppCallError::TokenRefused(_)) => {
            let token = cache.replace(access.notes, &owner, &first, || fetch_new_token(access)).await?;
            call_app_once(access, &token, call).await
        }
        answer => answer,
    }
}

async fn call_app_once(access: PlatformContext<'_>, token: &Secret, call: AppCall<'_>) -> Result<(), AppCallError> {
    let config = access.config;
    let api = DingTalkApi { http: access.http, url: &config.api, token, robot: &config.app };
    match call {
        AppCall::Post { out_track_id, space, message } => {
            let card = PostedCard {
                out_track_id,
                template: &config.template,
                route: &config.route,
                variables: &render_card(message),
                summary: &cut_to_bytes(&message.headline, MAX_SUMMARY_BYTES),
                space,
                mentions: &mentioned_users(&message.mentions),
            };
            api.post(card).await
        }
        AppCall::Deliver { out_track_id, space } => api.deliver(out_track_id, space).await,
        AppCall::Update { out_track_id, variables } => api.update(out_track_id, variables).await,
        AppCall::SendToGroup { conversation, message } => {
            let text = message_text(message, MAX_ROBOT_TEXT_BYTES);
            api.send_to_group(conversation, &text, &mentioned_users(&message.mentions)).await
        }
        AppCall::SendToPerson { user_id, message } => {
            api.send_to_person(user_id, &message_text(message, MAX_ROBOT_TEXT_BYTES)).await
        }
    }
}

/// Our id of a card. DingTalk makes one card for an id, so that a repeated post makes no second one.
fn out_track_id(key: &str) -> String {
    format!("pg-{key}")
}

/// Makes a card and shows it. If an earlier attempt has made it, nobody knows whether it is shown: it is updated, and shown
/// again.
async fn show_card(
    access: PlatformContext<'_>,
    out_track_id: &str,
    space: CardSpace<'_>,
    message: &Message,
) -> Result<(), AppCallError> {
    match call_app(access, AppCall::Post { out_track_id, space, message }).await {
        Err(AppCallError::CardExists(_)) => {
            let variables = render_card(message);
            call_app(access, AppCall::Update { out_track_id, variables: &variables }).await?;
            match call_app(access, AppCall::Deliver { out_track_id, space }).await {
                Err(AppCallError::CardExists(_)) => Ok(()),
                delivered => delivered,
            }
        }
        posted => posted,
    }
}

impl Channel {
    /// Posts a card. If an earlier attempt has made it, that is the card.
    pub(in crate::chat) async fn post(
        &self,
        access: PlatformContext<'_>,
        message: &Message,
        attempt: PostAttempt<'_>,
    ) -> Result<MessageRef, DeliveryError> {
        let (id, space) = (out_track_id(attempt.key), CardSpace::Group(&self.conversation));
        show_card(access, &id, space, message).await.map_err(AppCallError::into_delivery_error)?;
        Ok(MessageRef { channel: self.conversation.clone(), message_id: id })
    }

    /// Updates a card for everybody.
    pub(in crate::chat) async fn update(
        &self,
        access: PlatformContext<'_>,
        place: &MessageRef,
        message: &Message,
    ) -> Result<UpdateOutcome, DeliveryError> {
        let variables = render_card(message);
        let update = AppCall::Update { out_track_id: &place.message_id, variables: &variables };
        match call_app(access, update).await {
            Ok(()) => Ok(UpdateOutcome::Updated),
            Err(AppCallError::CardGone(_)) => Ok(UpdateOutcome::Gone),
            Err(failure) => Err(failure.into_delivery_error()),
        }
    }

    /// DingTalk has no call that deletes a card.
    #[expect(clippy::unused_async, reason = "other platforms delete")]
    pub(in crate::chat) async fn delete(
        &self,
        _access: PlatformContext<'_>,
        _place: &MessageRef,
    ) -> Result<(), DeliveryError> {
        Err(DeliveryError::refused("DingTalk cannot delete a card", RetryPolicy::Never))
    }

    /// Posts news of a card to the group: there are no threads.
    pub(in crate::chat) async fn reply_below(
        &self,
        access: PlatformContext<'_>,
        _place: &MessageRef,
        message: &Message,
        _urgent: bool,
        _attempt: PostAttempt<'_>,
    ) -> Result<(), DeliveryError> {
        let call = AppCall::SendToGroup { conversation: &self.conversation, message };
        call_app(access, call).await.map_err(AppCallError::into_delivery_error)
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

impl RobotChannel {
    /// Posts a message.
    pub(in crate::chat) async fn post(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        message: &Message,
    ) -> Result<(), DeliveryError> {
        post_robot(http, &endpoint.url, endpoint.signing_secrets.first(), message, clock::now()).await
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

/// Answers the sender. A click gets a notice and the new card, which only the sender sees; an answer that is too long for
/// that is also sent to the person. A message is answered by one to the person.
pub(in crate::chat) async fn reply(
    access: PlatformContext<'_>,
    to: ReplyTo,
    outgoing: &Outgoing<'_>,
    until: Instant,
) -> Response<String> {
    let (message, card) = match outgoing {
        Outgoing::Reply { message, card, .. } => (Message::clone(message), card.as_deref()),
        Outgoing::UnknownCommand(message) => (Message::clone(message), None),
        Outgoing::WrongTenant => (message::wrong_tenant("DingTalk organization", "platforms.dingtalk.corp"), None),
        Outgoing::ReasonAsked => return json_response(StatusCode::OK, &reply_json("", None)),
    };
    let notice = message.to_paragraph();
    let is_whole = message.facts.is_empty() && message.checks.is_empty() && message.snippet.is_none();
    let is_short = is_whole && message.buttons.is_none() && notice.len() <= MAX_VALUE_BYTES;
    match &to {
        // A stranger gets no message of the robot.
        ReplyTo::Click { .. } if is_short || matches!(outgoing, Outgoing::WrongTenant) => {}
        ReplyTo::Click { .. } | ReplyTo::Message { .. } => answer_person(access, &to, &message, until).await,
    }
    let body = match to {
        ReplyTo::Click { .. } => reply_json(&notice, card),
        ReplyTo::Message { .. } => serde_json::json!({}),
    };
    json_response(StatusCode::OK, &body)
}

/// Sends an answer to one person, by `until`. With buttons, it is a card. After a failure that may pass, it tries once more.
async fn answer_person(access: PlatformContext<'_>, to: &ReplyTo, message: &Message, until: Instant) {
    let (user_id, id) = (to.user_id(), out_track_id(&clock::nonce()));
    let private_chat = match to {
        ReplyTo::Message { private_chat, .. } => private_chat.as_ref().filter(|_| message.buttons.is_none()),
        ReplyTo::Click { .. } => None,
    };
    if let Some(url) = private_chat
        && try_twice(|| post_session(access.http, url, message), until).await.is_ok()
    {
        return;
    }
    if !access.state.answers.take(user_id, clock::now()) {
        tracing::warn!(outcome = "too_many_questions", actor.id = user_id, "sent no private answer");
        return;
    }
    let send = || async {
        let sent = if message.buttons.is_some() {
            show_card(access, &id, CardSpace::Person(user_id), message).await
        } else {
            call_app(access, AppCall::SendToPerson { user_id, message }).await
        };
        sent.map_err(AppCallError::into_delivery_error)
    };
    if let Err(undelivered) = try_twice(send, until).await {
        tracing::warn!(outcome = "unanswered_click", error = undelivered.error, "could not send a private answer");
    }
}

/// The error if DingTalk does not know our app or its secret. `None` if it knows them or does not answer.
pub(in crate::chat) async fn config_errors(access: PlatformContext<'_>) -> Option<Vec<KeyProblem>> {
    let failure = fetch_new_token(access).await.err()?;
    let is_ours = failure.code() == UNKNOWN_APP_CODE;
    let problem = format!("DingTalk refuses the app's id or its secret ({})", failure.error);
    is_ours.then(|| vec![KeyProblem { key: "platforms.dingtalk.app".to_owned(), problem }])
}

/// Registers the callback of cards at `url` and the first path secret. Returns what is left to do.
#[cfg(feature = "local")]
pub(in crate::chat) async fn register_webhook(access: PlatformContext<'_>, url: &url::Url) -> Result<String, String> {
    let (config, secrets) = (access.config, access.secrets);
    let missing = || "platforms.dingtalk has no secrets".to_owned();
    let path = secrets.path_secrets.first().ok_or_else(missing)?.expose();
    let secret = secrets.api_secrets.first().ok_or_else(missing)?.expose();
    let callback_url = format!("{}/{path}", url.as_str().trim_end_matches('/'));
    let describe = |error: DeliveryError| error.error;
    let token = fetch_new_token(access).await.map_err(describe)?.token;
    let api = DingTalkApi { http: access.http, url: &config.api, token: &token, robot: &config.app };
    let register = async |force| api.register(&config.route, &callback_url, secret, force).await;
    let is_same = match register(false).await {
        Ok(outcome) => outcome == RegisterOutcome::Same,
        Err(AppCallError::RouteTaken(_)) => false,
        Err(failure) => return Err(failure.into_delivery_error().error),
    };
    if !is_same {
        let replaced = register(true).await.map_err(|failure| failure.into_delivery_error().error)?;
        if replaced == RegisterOutcome::Other {
            return Err("DingTalk keeps another address or secret for the callback".to_owned());
        }
    }
    let done = if is_same { "registered" } else { "registered, in place of an earlier registration" };
    Ok(format!(
        "The callback of cards is {done}, under the route {}. For text commands, enter {}/PATH_SECRET as the address of the \
         robot's messages (HTTP mode), where PATH_SECRET is the first of platforms.dingtalk.path_secrets; then publish a \
         version of the app.",
        config.route,
        url.as_str().trim_end_matches('/'),
    ))
}

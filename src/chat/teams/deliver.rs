//! Delivery to a conversation or a person, and answers to requests.

use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::access_token::{check_app, is_wrong_app};
use super::card::{PrivateText, private_message_json, private_text, render_activity};
use super::connector::{Connector, ConnectorError};
use super::receive::TeamsPerson;
use super::reference::{self, References};
use super::{Channel, KeyCache, PlatformContext, ReplyTo, has_threads};
use crate::approval::{RetryPolicy, Verdict};
use crate::chat::access_token::TokenCache;
use crate::chat::answer::try_twice;
use crate::chat::call_turns::CallTurns;
use crate::chat::message::{self, Message};
use crate::chat::response::{empty_response, json_response};
use crate::chat::{AskOutcome, Click, DeliveryError, MessageRef, Outgoing, PostAttempt, ProbeError, UpdateOutcome};
use crate::clock;
use crate::redaction::KeyProblem;

/// Said of a conversation that nothing was heard of.
const NO_REFERENCE: &str = "no activity of the conversation has arrived, so peergate does not know where it is";
/// What to do about it.
const LEARN_REFERENCE: &str =
    "Add the app to the team or chat, then write `@peergate help` there. Check `platforms.teams.conversations`.";

/// What this process has cached.
#[derive(Debug, Default)]
pub struct State {
    /// The public keys of the bot service.
    pub keys: KeyCache,
    pub(super) token: TokenCache,
    pub(super) references: References,
    pub(super) turns: CallTurns,
}

/// The address of a conversation.
async fn find_address(access: PlatformContext<'_>, conversation: &str) -> Result<Url, DeliveryError> {
    match reference::find(access, conversation).await {
        Ok(Some(service_url)) => Ok(service_url),
        Ok(None) => Err(DeliveryError::misconfigured(NO_REFERENCE)),
        Err(error) => Err(DeliveryError::refused(error.to_string(), RetryPolicy::Backoff(None))),
    }
}

impl Channel {
    /// Posts a card. Teams cannot tell whether an earlier attempt was posted.
    pub(in crate::chat) async fn post(
        &self,
        access: PlatformContext<'_>,
        message: &Message,
        _attempt: PostAttempt<'_>,
    ) -> Result<MessageRef, DeliveryError> {
        let service_url = find_address(access, &self.conversation).await?;
        let connector = Connector { access, service_url: &service_url };
        let posted = connector.post(&self.conversation, &render_activity(message)).await;
        let message_id = posted.map_err(ConnectorError::into_delivery_error)?;
        Ok(MessageRef { channel: self.conversation.clone(), message_id })
    }

    /// Updates a card for everybody.
    pub(in crate::chat) async fn update(
        &self,
        access: PlatformContext<'_>,
        place: &MessageRef,
        message: &Message,
    ) -> Result<UpdateOutcome, DeliveryError> {
        let service_url = find_address(access, &place.channel).await?;
        let connector = Connector { access, service_url: &service_url };
        match connector.update(place, &render_activity(message)).await {
            Ok(()) => Ok(UpdateOutcome::Updated),
            Err(ConnectorError::NotFound(_)) => Ok(UpdateOutcome::Gone),
            Err(failure) => Err(failure.into_delivery_error()),
        }
    }

    /// Deletes a card.
    pub(in crate::chat) async fn delete(
        &self,
        access: PlatformContext<'_>,
        place: &MessageRef,
    ) -> Result<(), DeliveryError> {
        let service_url = find_address(access, &place.channel).await?;
        let connector = Connector { access, service_url: &service_url };
        connector.delete(place).await.map_err(ConnectorError::into_delivery_error)
    }

    /// Posts to the thread of a card. Posts to the channel too if `urgent`, or if the card is deleted. A chat has no threads:
    /// posts to it once.
    pub(in crate::chat) async fn reply_below(
        &self,
        access: PlatformContext<'_>,
        place: &MessageRef,
        message: &Message,
        urgent: bool,
        attempt: PostAttempt<'_>,
    ) -> Result<(), DeliveryError> {
        let service_url = find_address(access, &place.channel).await?;
        let connector = Connector { access, service_url: &service_url };
        let is_urgent = urgent && has_threads(&place.channel);
        match connector.reply(place, &render_activity(message)).await {
            Ok(_) if !is_urgent => Ok(()),
            Ok(_) | Err(ConnectorError::NotFound(_)) => self.post(access, message, attempt).await.map(|_| ()),
            Err(failure) => Err(failure.into_delivery_error()),
        }
    }

    /// Fetches a token, looks for the address, and posts `test` if there is one.
    pub(in crate::chat) async fn probe(
        &self,
        access: PlatformContext<'_>,
        test: Option<&Message>,
    ) -> Result<&'static str, ProbeError> {
        check_app(access).await?;
        if let Err(error) = find_address(access, &self.conversation).await {
            if error.error == NO_REFERENCE {
                return Err(ProbeError::Problem { detail: error.error, fix: LEARN_REFERENCE });
            }
            return Err(error.into());
        }
        let Some(test) = test else { return Ok("the app's secret is valid, and the conversation is known") };
        self.post(access, test, PostAttempt::only(&clock::nonce())).await?;
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

/// Answers the sender. A click gets a message in the response; an answer that is too long for it is also posted to the person.
/// A message is answered by a post to the person.
pub(in crate::chat) async fn reply(
    access: PlatformContext<'_>,
    to: ReplyTo,
    outgoing: &Outgoing<'_>,
    until: Instant,
) -> Response<String> {
    let message = match outgoing {
        Outgoing::Reply { message, .. } | Outgoing::UnknownCommand(message) => Message::clone(message),
        Outgoing::WrongTenant => {
            // No token is sent for people of others.
            let PrivateText { text, .. } =
                private_text(&message::wrong_tenant("Teams tenant", "platforms.teams.tenant"));
            return json_response(StatusCode::OK, &private_message_json(&text));
        }
        Outgoing::ReasonAsked => return empty_response(),
    };
    match to {
        ReplyTo::Text(person) => {
            post_to_person(access, &person, &message, until).await;
            json_response(StatusCode::OK, &serde_json::json!({}))
        }
        ReplyTo::Click(person) => {
            let PrivateText { text, is_complete } = private_text(&message);
            let text = if is_complete {
                text
            } else {
                let is_posted = post_to_person(access, &person, &message, until).await;
                let note = if is_posted { message::DETAILS_FOLLOW } else { message::DETAILS_UNDELIVERED };
                let period = if text.ends_with(['.', '?', '!', '…']) { "" } else { "." };
                format!("{text}{period} {note}")
            };
            json_response(StatusCode::OK, &private_message_json(&text))
        }
    }
}

/// Posts to one person, by `until`. After a failure that may pass, it tries once more. Returns whether it was posted.
async fn post_to_person(access: PlatformContext<'_>, person: &TeamsPerson, message: &Message, until: Instant) -> bool {
    let activity = render_activity(message);
    let connector = Connector { access, service_url: &person.service_url };
    let opened = match &person.chat {
        Some(chat) => Ok(chat.clone()),
        None => open_chat(connector, &person.user, until).await,
    };
    let posted = match opened {
        Ok(chat) => try_twice(|| post_once(connector, &chat, &activity), until).await,
        Err(error) => Err(error),
    };
    let Err(undelivered) = posted else { return true };
    tracing::warn!(outcome = "unanswered_click", error = undelivered.error, "could not post a private reply");
    false
}

async fn open_chat(connector: Connector<'_>, user: &str, until: Instant) -> Result<String, DeliveryError> {
    let opened = timeout_at(until, connector.open_chat(user)).await;
    opened.map_err(|_| DeliveryError::timed_out())?.map_err(ConnectorError::into_delivery_error)
}

async fn post_once(connector: Connector<'_>, chat: &str, activity: &Value) -> Result<(), DeliveryError> {
    connector.post(chat, activity).await.map(|_| ()).map_err(ConnectorError::into_delivery_error)
}

/// The error if Entra does not know our app or its secret. `None` if it knows them or does not answer.
pub(in crate::chat) async fn config_errors(access: PlatformContext<'_>) -> Option<Vec<KeyProblem>> {
    let failure = check_app(access).await.err()?;
    let problem = format!("Entra refuses the app or its client secret ({})", failure.error);
    is_wrong_app(&failure).then(|| vec![KeyProblem { key: "platforms.teams.app".to_owned(), problem }])
}

//! How messages and answers leave: what a channel can do, where a message is, and why a delivery failed.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::message::Message;
use super::reply::Reply;
use crate::approval::RetryPolicy;
use crate::redaction::KeyProblem;
use crate::secret::{Secret, SecretUrl};

/// The timeout of one post. A slower platform is tried again later.
pub(super) const POST_TIMEOUT: Duration = Duration::from_secs(5);

/// What a channel can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Capabilities {
    /// A message can be updated, so there is one card per request.
    pub can_edit: bool,
    /// A message has a thread.
    pub can_thread: bool,
    /// A modal can ask a person for a reason.
    pub can_open_modal: bool,
    /// One person can get a private reply.
    pub can_reply_privately: bool,
    /// People read the channel. Programs get every notification as data.
    pub is_for_people: bool,
    /// The longest binding that a button can carry, in characters.
    pub max_binding_chars: usize,
}

/// The secrets of a channel that is reached by a URL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelSecrets {
    /// Where to post.
    pub url: SecretUrl,
    /// All of them sign, if the channel's kind signs.
    #[serde(default)]
    pub signing_secrets: Vec<Secret>,
}

impl ChannelSecrets {
    /// Checks the URL, and lets the channel's kind check the rest. `key` is the channel's own.
    pub(super) fn validate_endpoint(
        endpoint: Option<&Self>,
        key: &str,
        check_kind: impl FnOnce(&Self, &str) -> Result<(), KeyProblem>,
    ) -> Result<(), KeyProblem> {
        let Some(endpoint) = endpoint else { return KeyProblem::err_at(key, "missing") };
        if !crate::http::is_secure(endpoint.url.expose()) {
            return KeyProblem::err_at(format!("{key}.url"), "only https is allowed, except on loopback");
        }
        check_kind(endpoint, key)
    }
}

/// Where a posted message is. As text: `CHANNEL/MESSAGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRef {
    /// The platform's id of the channel or chat.
    pub channel: String,
    /// The platform's id of the message.
    pub message_id: String,
}

impl MessageRef {
    /// Parses the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (channel, message_id) = text.split_once('/')?;
        Some(Self { channel: channel.to_owned(), message_id: message_id.to_owned() })
    }
}

impl fmt::Display for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.channel, self.message_id)
    }
}

/// An answer to a sender.
#[derive(Debug)]
pub enum Outgoing<'a> {
    /// The reply to a command.
    Reply {
        /// The reply as data.
        reply: &'a Reply,
        /// The reply in words, with buttons for this person.
        message: Box<Message>,
        /// The current card that replaces the clicked one, if the platform's reply can update it.
        card: Option<Box<Message>>,
    },
    /// The list of commands.
    Usage,
    /// Commands of this tenant are not taken.
    WrongTenant,
    /// Nothing: the person was asked for a reason.
    ReasonAsked,
}

/// Whether a person was asked for a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskOutcome {
    /// The person was asked.
    Asked,
    /// The platform cannot ask: the person decides without a reason.
    Impossible,
}

/// The result of updating a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// The message shows the new content.
    Updated,
    /// The message is deleted, or can no longer be updated.
    Gone,
    /// The message is too old to be updated. A new card replaces it, and a reply in its thread says so.
    TooOld,
}

/// A message was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryError {
    /// The platform's error, or the kind of failure.
    pub error: String,
    /// When to try again.
    pub retry: RetryPolicy,
}

impl DeliveryError {
    /// A person has to fix the configuration first.
    #[must_use]
    pub fn misconfigured(error: &str) -> Self {
        Self { error: error.to_owned(), retry: RetryPolicy::AfterFix }
    }

    pub(super) fn no_app() -> Self {
        Self::misconfigured("the channel's app is not configured, or has no secret")
    }

    pub(super) fn no_endpoint() -> Self {
        Self::misconfigured("the channel has no secrets")
    }

    /// The channel cannot take such a message. Callers check its [`Capabilities`] first.
    pub(super) fn unsupported_message() -> Self {
        Self { error: "the channel takes no such message".to_owned(), retry: RetryPolicy::Never }
    }

    pub(super) fn from_transport(error: &reqwest::Error) -> Self {
        Self { error: crate::http::describe_transport(error), retry: RetryPolicy::Backoff(None) }
    }

    /// From the HTTP status of a webhook.
    pub(super) fn from_http_status(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Self {
        let error = format!("HTTP {}", status.as_u16());
        let content = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
        let retry = if status == StatusCode::GONE {
            RetryPolicy::Never
        } else if content.contains(&status) {
            RetryPolicy::FewTimes
        } else if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            RetryPolicy::Backoff(parse_retry_after(headers, now))
        } else {
            RetryPolicy::AfterFix
        };
        Self { error, retry }
    }
}

/// Why a channel cannot be posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// A person has to fix this.
    Problem {
        /// What is wrong.
        detail: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// The channel did not take a message.
    Delivery(DeliveryError),
}

impl From<DeliveryError> for ProbeError {
    fn from(error: DeliveryError) -> Self {
        Self::Delivery(error)
    }
}

/// Checks a URL without posting. This proves only that a server answers.
pub(super) async fn probe_url(http: &reqwest::Client, url: &SecretUrl) -> Result<&'static str, ProbeError> {
    match http.head(url.expose().clone()).send().await {
        Ok(_) => Ok("a server answers; --post shows whether it takes messages"),
        Err(error) => Err(ProbeError::Problem {
            detail: crate::http::describe_transport(&error),
            fix: crate::http::Unreachable::of(&error).fix(),
        }),
    }
}

/// The delay that the header `retry-after` asks for.
pub(super) fn parse_retry_after(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    crate::http::parse_retry_after(headers.get("retry-after")?.to_str().ok()?, now)
}

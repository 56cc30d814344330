//! How messages and answers leave: what a channel can do, where a message is, and why a delivery failed.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::message::Message;
use super::reply::Reply;
use crate::approval::RetryPolicy;
use crate::redaction::{KeyProblem, redact};
use crate::secret::{Secret, SecretUrl};

/// The timeout of one call to a chat platform. Their APIs answer within a second; a call that takes longer may have taken
/// effect.
pub(super) const CHAT_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of one post to a receiver of Standard Webhooks, which may take 15 to 30 s.
///
/// Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
pub(super) const RECEIVER_TIMEOUT: Duration = Duration::from_secs(20);
/// The most words of a refusal that are logged.
const MAX_REFUSAL_WORDS: usize = 24;

/// What a channel can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Capabilities {
    /// A message can be updated, so there is one card per request.
    pub can_edit: bool,
    /// How long after its post a message can be updated. `None` if there is no limit, or if it cannot be updated at all.
    pub edit_window: Option<SignedDuration>,
    /// A message has a thread. In channels without threads, news of a card follow it in the channel.
    pub can_thread: bool,
    /// A modal can ask a person for a reason.
    pub can_open_modal: bool,
    /// One person can get a private reply.
    pub can_reply_privately: bool,
    /// A message can mention people.
    pub can_mention: bool,
    /// People read the channel. Programs get every notification as data.
    pub is_for_people: bool,
    /// The longest binding that a button can carry, in characters.
    pub max_binding_chars: usize,
    /// How often peergate posts.
    pub pace: Pace,
}

/// How often peergate posts, so that the platform refuses no post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The shortest time between two posts to one channel.
    pub per_channel: SignedDuration,
    /// The shortest time between two posts of one app, to any channels.
    pub per_app: SignedDuration,
}

/// One attempt to post a message.
#[derive(Debug, Clone, Copy)]
pub struct PostAttempt<'a> {
    /// At most 50 letters, digits and `-`, and the same in every attempt: a platform that supports it posts the message
    /// only once.
    pub key: &'a str,
    /// When the first attempt without a known result began. Its message may be in the channel.
    pub unconfirmed_since: Option<Timestamp>,
    /// The number of failed attempts.
    pub attempts: u32,
}

impl<'a> PostAttempt<'a> {
    /// The only attempt.
    #[must_use]
    pub fn only(key: &'a str) -> Self {
        Self { key, unconfirmed_since: None, attempts: 0 }
    }
}

/// The secrets of a channel that is reached by a URL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
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
    /// Parses the text form. The id of a channel may have slashes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (channel, message_id) = text.rsplit_once('/')?;
        Some(Self { channel: channel.to_owned(), message_id: message_id.to_owned() })
    }
}

impl fmt::Display for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.channel, self.message_id)
    }
}

/// Which cards the reply to a click can update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyRedraw {
    /// None.
    Nothing,
    /// A clicked message that is not the current card.
    StaleCopies,
    /// Every clicked message.
    AnyCard,
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
    /// What was not understood, or the list of commands.
    UnknownCommand(Box<Message>),
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
    /// The message is deleted.
    Gone,
    /// The message keeps its old content, e.g. because it is too old to be updated. A new card replaces it.
    Frozen,
}

/// What is known of a message that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// The platform did not post it.
    Refused,
    /// The answer was lost: the platform may have posted it.
    AnswerLost,
    /// The platform did not post it, because there are too many posts.
    Throttled(ThrottleScope),
}

/// What has to pause after a refusal because of too many posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleScope {
    /// Posts to this channel.
    Channel,
    /// All posts of the app.
    App,
}

/// A message was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryError {
    /// The platform's error, or the kind of failure. After a code of the platform, a colon and more words may follow.
    pub error: String,
    /// When to try again.
    pub retry: RetryPolicy,
    /// What is known of the message.
    pub cause: FailureCause,
}

impl DeliveryError {
    /// A person has to fix the configuration first.
    #[must_use]
    pub fn misconfigured(error: &str) -> Self {
        Self::refused(error, RetryPolicy::AfterFix)
    }

    /// The platform did not post the message.
    #[must_use]
    pub fn refused(error: impl Into<String>, retry: RetryPolicy) -> Self {
        Self { error: error.into(), retry, cause: FailureCause::Refused }
    }

    /// The platform may have posted the message.
    pub(super) fn answer_lost(error: impl Into<String>, retry_after: Option<SignedDuration>) -> Self {
        Self { error: error.into(), retry: RetryPolicy::Backoff(retry_after), cause: FailureCause::AnswerLost }
    }

    /// There are too many posts.
    pub(super) fn throttled(
        error: impl Into<String>,
        retry_after: Option<SignedDuration>,
        scope: ThrottleScope,
    ) -> Self {
        let cause = FailureCause::Throttled(scope);
        Self { error: error.into(), retry: RetryPolicy::Backoff(retry_after), cause }
    }

    /// The platform did not answer in time.
    #[must_use]
    pub fn timed_out() -> Self {
        Self::answer_lost("Transport.Timeout", None)
    }

    /// The part of the error before the first colon: the platform's code.
    #[must_use]
    pub fn code(&self) -> &str {
        self.error.split(':').next().unwrap_or_default()
    }

    pub(super) fn no_app() -> Self {
        Self::misconfigured("the channel's app is not configured, or has no secret")
    }

    pub(super) fn no_endpoint() -> Self {
        Self::misconfigured("the channel has no secrets")
    }

    pub(super) fn malformed_reference() -> Self {
        Self::misconfigured("the reference of the card is malformed")
    }

    /// The channel cannot take such a message. Callers check its [`Capabilities`] first.
    pub(super) fn unsupported_message() -> Self {
        Self::refused("the channel takes no such message", RetryPolicy::Never)
    }

    /// From a request without an answer. If there was no connection, nothing was posted.
    pub(super) fn from_transport(error: &reqwest::Error) -> Self {
        let description = crate::http::describe_transport(error);
        if error.is_connect() || error.is_builder() {
            Self::refused(description, RetryPolicy::Backoff(None))
        } else {
            Self::answer_lost(description, None)
        }
    }

    /// From the HTTP status of a webhook, and what its body says.
    pub(super) fn from_http_status(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Self {
        let words = refusal_words(&String::from_utf8_lossy(body));
        let error = format!("HTTP {}{words}", status.as_u16());
        let retry_after = parse_retry_after(headers, now);
        let is_content = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY]
            .contains(&status);
        let passes = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY].contains(&status);
        let asks_to_wait = status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some();
        if status == StatusCode::GONE {
            Self::refused(error, RetryPolicy::Never)
        } else if is_content {
            Self::refused(error, RetryPolicy::FewTimes)
        } else if status == StatusCode::TOO_MANY_REQUESTS || asks_to_wait {
            Self::throttled(error, retry_after, ThrottleScope::Channel)
        } else if status.is_server_error() || passes {
            Self::answer_lost(error, retry_after)
        } else {
            Self::refused(error, RetryPolicy::AfterFix)
        }
    }
}

/// The first words of a refusal, after `: `; empty if there are none. The text is not trusted: the result is one line
/// without markup, and each word that may be a secret is replaced by `…`.
pub(super) fn refusal_words(text: &str) -> String {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let words = text.split(|character: char| !is_part(character) && !"/:[]@+=~%".contains(character));
    let words = words.map(|word| word.trim_matches(|character| !is_part(character))).filter(|word| !word.is_empty());
    let redacted: Vec<_> = words.take(MAX_REFUSAL_WORDS).map(redact_word).collect();
    if redacted.is_empty() { String::new() } else { format!(": {}", redacted.join(" ")) }
}

/// A JSON pointer stays, e.g. that of Slack's `invalid_blocks`. Another word with a slash may be a path with a secret.
fn redact_word(word: &str) -> Cow<'_, str> {
    let pointer = word.strip_prefix("json-pointer:").filter(|path| path.split('/').all(is_harmless_segment));
    match pointer {
        Some(_) => Cow::Borrowed(word),
        None if word.contains(['/', '@', '=', '%', '~']) => Cow::Borrowed("…"),
        None => redact(word),
    }
}

fn is_harmless_segment(segment: &str) -> bool {
    segment.len() <= 20
        && segment.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_logged_in_one_line_without_secrets() {
        let long = "word ".repeat(100);
        let cases = [
            ("", ""),
            (" \n", ""),
            ("action_prohibited", ": action_prohibited"),
            ("no_service\n", ": no_service"),
            (r#"{"error":"invalid signature"}"#, ": error invalid signature"),
            ("<html>\n<h1>403 Forbidden</h1>", ": html h1 403 Forbidden h1"),
            ("Cannot POST /services/T0/B0/abcdefgh", ": Cannot POST …"),
            ("see https://example.test/?token=abc", ": see … …"),
            ("whsec_C2FV is wrong", ": … is wrong"),
            ("token a1b2c3d4e5f6a7b8c9 is wrong", ": token … is wrong"),
            ("one\u{1b}[31m\r\ntwo\u{202e}three", ": one 31m two three"),
            (
                "[ERROR] must be more than 0 characters [json-pointer:/blocks/0/text_a]",
                ": ERROR must be more than 0 characters json-pointer:/blocks/0/text_a",
            ),
            ("json-pointer:/T0/SECRET", ": …"),
        ];
        for (text, expected) in cases {
            assert_eq!(refusal_words(text), expected, "{text:?}");
        }
        assert_eq!(refusal_words(&long).split(' ').count(), MAX_REFUSAL_WORDS + 1, "it is cut");
    }
}

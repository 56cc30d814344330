//! What chat platforms and machines say to us and hear from us, in words that all of them share.
//!
//! Each platform is a folder; [`platform`] lists them and says what a folder supplies. Every sentence that a person reads is
//! in [`message`].

pub mod binding;
mod card_rate;
mod command;
pub mod feishu;
pub mod message;
mod outcome;
pub mod platform;
pub mod response;
pub mod slack;
pub mod standard_webhooks;

use std::fmt;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::error::Category;

use crate::approval::{Approval, CardId, Principal, RetryPolicy, Verdict};
use crate::notes::Notes;
use crate::peering::{Connection, InstanceId, Problem, SeenFingerprint};
use crate::policy::Refusal;
use crate::preflight::{Finding, Objection};
use crate::redaction::KeyProblem;
use crate::secret::{Secret, SecretUrl};
use binding::Binding;
use message::{Button, Message};

pub use card_rate::{CardDigest, CardRateLimiter};

/// How far the clock of a sender may be from ours, both ways, the edge included.
///
/// Source: <https://docs.slack.dev/authentication/verifying-requests-from-slack> and
/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(300);
/// For one post: a platform that takes longer is tried again.
const POST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest reason that we keep, in characters.
const MAX_REASON_CHARS: usize = 400;

/// What a part of a platform works with.
#[derive(Debug)]
pub struct PlatformContext<'a, Config, Secrets, State> {
    /// The one client.
    pub http: &'a reqwest::Client,
    /// What processes share for a while.
    pub notes: &'a Notes,
    /// Of the platform.
    pub config: &'a Config,
    /// Of the platform.
    pub secrets: &'a Secrets,
    /// What this process remembers.
    pub state: &'a State,
}

impl<Config, Secrets, State> Clone for PlatformContext<'_, Config, Secrets, State> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Config, Secrets, State> Copy for PlatformContext<'_, Config, Secrets, State> {}

/// What the requests of a platform look like.
#[derive(Debug)]
pub struct RequestShape {
    /// How many segments follow the first in its paths.
    pub extra_segments: usize,
    /// Methods.
    pub methods: &'static [Method],
    /// Content types of requests with a body; in lower case.
    pub content_types: &'static [&'static str],
}

/// What a channel can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Capabilities {
    /// A message can be redrawn: there is one card per request.
    pub can_edit: bool,
    /// Something can be said below a message.
    pub can_thread: bool,
    /// Somebody can be asked for a reason in a window of its own.
    pub can_open_modal: bool,
    /// Something can be said to one person.
    pub can_reply_privately: bool,
    /// People read it. Programs get all notices as data.
    pub is_for_people: bool,
    /// The longest that a button can carry, in characters.
    pub max_binding_chars: usize,
}

/// Somebody who signs requests.
#[derive(Debug)]
pub struct RequestSigner {
    /// Its key in the secrets.
    pub name: String,
    /// The key of its signing secrets, below that.
    pub secrets_key: &'static str,
    /// Every secret that it signs with, in every form that it has as bytes.
    pub secrets: Vec<Vec<u8>>,
}

/// A body whose sender is known. Only verification makes one, and only of it is anything parsed.
pub struct Authentic {
    /// The bytes that were signed; decrypted.
    body: Bytes,
    /// Who signed: the platform, or the client's name.
    sender: String,
    /// Names the request: the same for a replay, another for any other request.
    request_key: String,
    /// The signed time, to the second.
    signed_at: Timestamp,
    /// Which of the configured keys matched, from 0.
    key_index: usize,
}

impl fmt::Debug for Authentic {
    /// Without the body, which may hold a token of the platform.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentic").field("sender", &self.sender).field("key", &self.key_index).finish_non_exhaustive()
    }
}

impl Authentic {
    /// Which of the configured keys matched, from 0.
    #[must_use]
    pub fn key_index(&self) -> usize {
        self.key_index
    }

    /// Who signed: the platform, or the client's name.
    #[must_use]
    pub fn sender(&self) -> &str {
        &self.sender
    }
}

/// Why a request is not authentic. The sender is told none of it; nothing of the signature is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthentic {
    /// A header is missing.
    #[error("header {0} is missing")]
    MissingHeader(&'static str),
    /// A header is there twice.
    #[error("header {0} is there more than once")]
    DuplicateHeader(&'static str),
    /// A header is not of its form.
    #[error("header {0} is malformed")]
    MalformedHeader(&'static str),
    /// Too old, or from the future.
    #[error("the timestamp is more than 300 s away")]
    StaleTimestamp,
    /// No key makes this signature.
    #[error("the signature does not match")]
    SignatureMismatch,
    /// Signed, but not one JSON document.
    #[error("the signed body is not one JSON document")]
    InvalidEnvelope,
    /// Signed, but not encrypted as agreed, wrongly padded, or without our token inside.
    #[error("the signed body does not decrypt to a document with our token")]
    InvalidCiphertext,
    /// The path names nobody whom the configuration knows.
    #[error("no such client")]
    UnknownClient,
}

impl Unauthentic {
    /// Whether other secrets could make it authentic.
    #[must_use]
    pub fn depends_on_secrets(self) -> bool {
        match self {
            Self::SignatureMismatch | Self::UnknownClient | Self::InvalidCiphertext => true,
            Self::MissingHeader(_)
            | Self::DuplicateHeader(_)
            | Self::MalformedHeader(_)
            | Self::StaleTimestamp
            | Self::InvalidEnvelope => false,
        }
    }
}

/// The only value of a header. Function URLs join duplicates with a comma.
fn only_header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Unauthentic> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Unauthentic::MissingHeader(name))?;
    if values.next().is_some() {
        return Err(Unauthentic::DuplicateHeader(name));
    }
    value.to_str().map_err(|_| Unauthentic::MalformedHeader(name))
}

/// Checks a timestamp: exactly ten digits, so that no digit can move between it and what is signed beside it.
fn check_timestamp(text: &str, name: &'static str, now: Timestamp) -> Result<Timestamp, Unauthentic> {
    if text.len() != 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Unauthentic::MalformedHeader(name));
    }
    let seconds = text.parse().map_err(|_| Unauthentic::MalformedHeader(name))?;
    let sent_at = Timestamp::from_second(seconds).map_err(|_| Unauthentic::MalformedHeader(name))?;
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    if now.duration_since(sent_at).abs() > MAX_CLOCK_SKEW { Err(Unauthentic::StaleTimestamp) } else { Ok(sent_at) }
}

/// The body is authentic but not what we understand. The words are for the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedRequest(pub String);

impl MalformedRequest {
    /// Says where, but not what: the parser's words quote what was sent.
    fn from_json_error(error: &serde_json::Error) -> Self {
        let kind = match error.classify() {
            Category::Data => "not of the documented shape",
            Category::Syntax | Category::Eof | Category::Io => "not JSON",
        };
        Self(format!("{kind}, at line {} column {}", error.line(), error.column()))
    }
}

/// What a request comes to. `To` is where the platform shows the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming<To> {
    /// Somebody wants something.
    Command {
        /// What, and who.
        request: CommandRequest,
        /// Where the answer goes.
        reply_to: To,
    },
    /// Somebody clicked a button.
    Click {
        /// On which, and who.
        click: Click,
        /// Where the answer goes.
        reply_to: To,
    },
    /// Somebody wants something, in words that we don't understand.
    UnknownCommand(To),
    /// The platform tests the address, or tells us what needs no answer: the reply, as JSON.
    Challenge(String),
    /// A user of another tenant: they are told so, where there is a place for it, and nothing else happens.
    WrongTenant(Option<To>),
}

impl<To> Incoming<To> {
    /// The same, with another place for the answer.
    fn map_reply_to<Other>(self, other: impl FnOnce(To) -> Other) -> Incoming<Other> {
        match self {
            Self::Command { request, reply_to: to } => Incoming::Command { request, reply_to: other(to) },
            Self::Click { click, reply_to: to } => Incoming::Click { click, reply_to: other(to) },
            Self::UnknownCommand(to) => Incoming::UnknownCommand(other(to)),
            Self::Challenge(reply) => Incoming::Challenge(reply),
            Self::WrongTenant(to) => Incoming::WrongTenant(to.map(other)),
        }
    }
}

/// What a sender is told.
#[derive(Debug)]
pub enum Outgoing<'a> {
    /// What came of a command.
    Reply {
        /// As it is.
        reply: &'a Reply,
        /// In words, with buttons for this person.
        message: Box<Message>,
        /// The card that was clicked, as it is now, where the reply can draw it.
        card: Option<Box<Message>>,
    },
    /// Which commands there are.
    Usage,
    /// That we take no commands from there.
    WrongTenant,
    /// Nothing: a question was put to them.
    ReasonAsked,
}

/// Whether somebody was asked for a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskOutcome {
    /// They were.
    Asked,
    /// They can't be: they decide without a reason.
    Impossible,
}

/// What became of a message that was to be redrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// It was.
    Updated,
    /// It is gone, or can't be changed any more.
    Gone,
    /// It is there, and too old to be changed: a new one is posted, and a reply below the old one says so.
    TooOld,
}

/// Why a channel can't be posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// A person has to mend this.
    Problem {
        /// What is wrong.
        detail: String,
        /// What to do.
        fix: &'static str,
    },
    /// It did not take a message.
    Delivery(DeliveryError),
}

impl From<DeliveryError> for ProbeError {
    fn from(error: DeliveryError) -> Self {
        Self::Delivery(error)
    }
}

/// The secrets of a channel that is reached by a URL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelSecrets {
    /// Where to post.
    pub url: SecretUrl,
    /// All of them sign, where the kind of the channel signs.
    #[serde(default)]
    pub signing_secrets: Vec<Secret>,
}

impl ChannelSecrets {
    /// Checks the address, and lets the kind check the rest. `key` is the channel's own.
    fn validate_endpoint(
        endpoint: Option<&Self>,
        key: &str,
        of_kind: impl FnOnce(&Self, &str) -> Result<(), KeyProblem>,
    ) -> Result<(), KeyProblem> {
        let Some(endpoint) = endpoint else { return KeyProblem::err_at(key, "missing") };
        if !crate::http::is_secure(endpoint.url.expose()) {
            return KeyProblem::err_at(format!("{key}.url"), "only https is allowed, except on loopback");
        }
        of_kind(endpoint, key)
    }
}

/// What is to be signed as a platform signs it, for tests and the local tool.
#[cfg(feature = "local")]
#[derive(Debug, Clone)]
pub struct EventSpec {
    /// `approve`, `reject`, `withdraw`, `status`, `list` or `dry-run`.
    pub action: String,
    /// `pcc-…`; empty for a list.
    pub instance_id: String,
    /// By its name, if there are several.
    pub target: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The fingerprint that the sender saw; commands of people carry none.
    pub fingerprint: Option<String>,
    /// The tenant, or the client; by default the first of the configuration.
    pub tenant: Option<String>,
    /// The user's id.
    pub actor: String,
}

/// A signed request: what a sender sends.
#[cfg(feature = "local")]
#[derive(Debug, Clone)]
pub struct SignedRequest {
    /// e.g. `/webhook/ci`.
    pub path: String,
    /// By lower-case name.
    pub headers: Vec<(&'static str, String)>,
    /// As signed.
    pub body: String,
}

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// To know what waits or moves.
    List {
        /// Of which accepting account; of all, when left out.
        target: Option<String>,
    },
    /// Something about one connection.
    Connection(ConnectionCommand),
}

/// What somebody wants about one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionCommand {
    /// What.
    pub action: Action,
    /// Of which accepting account; may be left out when there is only one.
    pub target: Option<String>,
    /// Which connection.
    pub instance_id: InstanceId,
    /// The one that they saw, if they say.
    pub seen_fingerprint: Option<SeenFingerprint>,
    /// Why, in their words: untrusted.
    pub reason: Option<String>,
}

/// What can be wanted about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A decision.
    Decide(Verdict),
    /// To take an approval back.
    Withdraw,
    /// What an approval would come to, without it.
    DryRun,
    /// How things are.
    Status,
}

/// A command and who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRequest {
    /// What they want.
    pub command: Command,
    /// Who they are.
    pub by: Principal,
    /// Names the request; see [`Authentic`].
    pub request_key: String,
    /// When they made it, to the second, as far as that is signed.
    pub signed_at: Timestamp,
    /// Which of the configured keys signed it, from 0.
    pub key_index: usize,
    /// The card, if it was a button.
    pub clicked_card: Option<ClickedCard>,
}

/// The card whose button somebody clicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickedCard {
    /// Ours for it.
    pub card_id: CardId,
    /// The platform's for the message, as in a `CardRef`; none if it says none, or for a message to one person.
    pub message_ref: Option<String>,
}

/// A click on a button, before its binding is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Click {
    /// Who.
    pub by: Principal,
    /// Names the request; see [`Authentic`].
    pub request_key: String,
    /// When, to the second, as far as that is signed.
    pub signed_at: Timestamp,
    /// Which of the configured keys signed it, from 0.
    pub key_index: usize,
    /// What the button carried; empty if it carried nothing of ours.
    pub binding: String,
    /// The platform's name for its message; see [`Clicked`].
    pub message_ref: Option<String>,
    /// Whether they were asked for a reason, or had a field for it.
    pub was_asked: bool,
    /// Why, in their words: untrusted.
    pub reason: Option<String>,
}

impl Click {
    /// What they want, once the binding is known.
    #[must_use]
    pub fn to_command_request(&self, binding: Binding) -> CommandRequest {
        let verb = match binding.button {
            Button::Approve { .. } => Action::Decide(Verdict::Approve),
            Button::Reject => Action::Decide(Verdict::Reject),
            Button::Withdraw => Action::Withdraw,
            Button::Details => Action::Status,
        };
        let about = ConnectionCommand {
            action: verb,
            target: Some(binding.target),
            instance_id: binding.instance_id,
            seen_fingerprint: Some(binding.seen_fingerprint),
            reason: self.reason.clone(),
        };
        CommandRequest {
            command: Command::Connection(about),
            by: self.by.clone(),
            request_key: self.request_key.clone(),
            signed_at: self.signed_at,
            key_index: self.key_index,
            clicked_card: Some(ClickedCard { card_id: binding.card_id, message_ref: self.message_ref.clone() }),
        }
    }

    /// Whether they are to be asked for a reason first.
    #[must_use]
    pub fn needs_reason(&self, button: Button) -> bool {
        let wants = match button {
            Button::Approve { needs_reason: ask } => ask,
            Button::Reject => true,
            Button::Withdraw | Button::Details => false,
        };
        wants && !self.was_asked
    }
}

/// What comes of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Decided, and Alibaba Cloud acknowledged it.
    Done(Box<Approval>),
    /// Decided and durable; Alibaba Cloud has not acknowledged it yet, and the watcher goes on.
    InProgress(Box<Approval>),
    /// Counted and durable; more people have to approve.
    Counted(Box<Approval>),
    /// Taken back.
    Withdrawn(Box<Approval>),
    /// There is no approval of theirs to take back.
    NothingToWithdraw,
    /// The same person said the same before.
    Repeated(Box<Approval>),
    /// Somebody decided before, or it is over.
    AlreadyDecided(Box<Approval>),
    /// A dry run passed.
    DryRunPassed {
        /// As just read.
        connection: Box<Connection>,
        /// What the checks found.
        findings: Vec<Finding>,
    },
    /// How things are.
    Status {
        /// As just read.
        connection: Box<Connection>,
        /// Our record, if there is one.
        approval: Option<Box<Approval>>,
        /// Of which target.
        target: String,
    },
    /// What waits or moves.
    List {
        /// In the order in which they came into their state.
        approvals: Vec<Approval>,
        /// Whether there are more.
        more: bool,
    },
    /// The policy says no.
    Refused(Refusal),
    /// The rule wants to know why.
    ReasonRequired {
        /// Which rule.
        rule: String,
        /// What they want to do.
        verdict: Verdict,
        /// About which connection.
        instance_id: InstanceId,
    },
    /// Something else stands against it.
    Objection(Objection),
    /// They could not be asked for a reason.
    CouldNotAsk {
        /// What they want to do.
        verdict: Verdict,
        /// About which connection.
        instance_id: InstanceId,
    },
    /// The button is not of the current card.
    StaleCard {
        /// There is another card where they clicked.
        has_new_card: bool,
        /// The record, if no channel has a card that could be redrawn: they get one of their own.
        approval: Option<Box<Approval>>,
    },
    /// The connection is not the one that they saw.
    ConnectionChanged,
    /// No channel had shown its current facts when they decided, and the request has no fingerprint.
    FactsNotShown,
    /// Their decision counted, and does not any more.
    DecisionVoid,
    /// Another request had the same id.
    IdReused,
    /// The record has no room for more from people.
    RecordFull,
    /// They have withdrawn too often.
    TooManyWithdrawals,
    /// They have asked too often.
    TooManyReads,
    /// No target has that name; or none was named and there are several.
    UnknownTarget(Vec<String>),
    /// The target knows no such connection.
    UnknownConnection,
    /// Alibaba Cloud will not do it.
    VendorRefused(Problem),
    /// Alibaba Cloud's answer about the connection cannot be understood.
    NotUnderstood {
        /// Which field of the answer.
        field: &'static str,
        /// Names the call, for the vendor's support.
        problem: Problem,
    },
    /// Our own credentials or permissions are refused.
    CredentialsRefused(Problem),
    /// Something we need does not answer; nothing was decided.
    Unavailable(Dependency),
}

/// What we need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// The table.
    Store,
    /// The secrets.
    Secrets,
    /// The API.
    Alicloud,
    /// AWS, which issues our identity token for Alibaba Cloud.
    AwsIdentity,
}

/// A message was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryError {
    /// What the platform said, or the kind of failure.
    pub error: String,
    /// When to try again.
    pub retry: RetryPolicy,
}

impl DeliveryError {
    /// A person has to mend the configuration first.
    #[must_use]
    pub fn misconfigured(error: &str) -> Self {
        Self { error: error.to_owned(), retry: RetryPolicy::AfterFix }
    }

    fn no_app() -> Self {
        Self::misconfigured("the channel's app is not configured, or has no secret")
    }

    fn no_endpoint() -> Self {
        Self::misconfigured("the channel has no secrets")
    }

    /// Nobody posts such a message there; a caller has looked at [`Abilities`].
    fn unsupported_message() -> Self {
        Self { error: "the channel takes no such message".to_owned(), retry: RetryPolicy::Never }
    }

    fn from_transport(error: &reqwest::Error) -> Self {
        Self { error: crate::http::transport_code(error).to_owned(), retry: RetryPolicy::Backoff(None) }
    }

    /// By HTTP status, as webhooks have it.
    fn from_http_status(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Self {
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

/// The bytes that a text is as a secret: its own, and those that it stands for where a platform decodes it.
fn key_forms(text: &str) -> Vec<Vec<u8>> {
    let decoded = BASE64_STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok();
    std::iter::once(text.as_bytes().to_vec()).chain(decoded).collect()
}

/// Without posting, all that shows is that somebody answers.
async fn probe_url(http: &reqwest::Client, url: &SecretUrl) -> Result<&'static str, ProbeError> {
    match http.head(url.expose().clone()).send().await {
        Ok(_) => Ok("somebody answers there; --post says whether it takes messages"),
        Err(error) => Err(ProbeError::Problem {
            detail: crate::http::transport_code(&error).to_owned(),
            fix: "Check the channel's URL in the secrets, and the network.",
        }),
    }
}

/// The header `retry-after`, as of now.
fn parse_retry_after(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    crate::http::parse_retry_after(headers.get("retry-after")?.to_str().ok()?, now)
}

/// A reason as we keep it: trimmed, and cut to 400 characters; `None` when nothing is left.
fn normalize_reason(text: &str) -> Option<String> {
    let reason: String = text.trim().chars().take(MAX_REASON_CHARS).collect();
    (!reason.is_empty()).then_some(reason)
}

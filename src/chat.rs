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

use crate::approval::{Approval, CardId, Principal, Redelivery, Verdict};
use crate::notes::Notes;
use crate::peering::{Connection, InstanceId, Problem, SeenFingerprint};
use crate::policy::Refusal;
use crate::preflight::{Finding, Objection};
use crate::secret::{Secret, SecretUrl};
use crate::shape::KeyProblem;
use binding::Binding;
use message::{Button, Message};

pub use card_rate::{CardRate, Digest};

/// How far the clock of a sender may be from ours, both ways, the edge included.
///
/// Source: <https://docs.slack.dev/authentication/verifying-requests-from-slack> and
/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
const TOLERANCE: SignedDuration = SignedDuration::from_secs(300);
/// For one post: a platform that takes longer is tried again.
const POST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest reason that we keep, in characters.
const LONGEST_REASON_CHARS: usize = 400;

/// What a part of a platform works with.
#[derive(Debug)]
pub struct Access<'a, Config, Secrets, State> {
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

impl<Config, Secrets, State> Clone for Access<'_, Config, Secrets, State> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Config, Secrets, State> Copy for Access<'_, Config, Secrets, State> {}

/// What the requests of a platform look like.
#[derive(Debug)]
pub struct Accepted {
    /// How many segments follow the first in its paths.
    pub segments: usize,
    /// Methods.
    pub methods: &'static [Method],
    /// Content types of requests with a body; in lower case.
    pub content_types: &'static [&'static str],
}

/// What a channel can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Abilities {
    /// A message can be redrawn: there is one card per request.
    pub edits: bool,
    /// Something can be said below a message.
    pub threads: bool,
    /// Somebody can be asked for a reason in a window of its own.
    pub modals: bool,
    /// Something can be said to one person.
    pub private_answers: bool,
    /// People read it. Programs get all notices as data.
    pub people: bool,
    /// The longest that a button can carry, in characters.
    pub max_binding_chars: usize,
}

/// Somebody who signs requests.
#[derive(Debug)]
pub struct Sender {
    /// Its key in the secrets.
    pub name: String,
    /// The key of its signing secrets, below that.
    pub key: &'static str,
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
    key: usize,
}

impl fmt::Debug for Authentic {
    /// Without the body, which may hold a token of the platform.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentic").field("sender", &self.sender).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Authentic {
    /// Which of the configured keys matched, from 0.
    #[must_use]
    pub fn key(&self) -> usize {
        self.key
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
    Missing(&'static str),
    /// A header is there twice.
    #[error("header {0} is there more than once")]
    Duplicated(&'static str),
    /// A header is not of its form.
    #[error("header {0} is malformed")]
    Malformed(&'static str),
    /// Too old, or from the future.
    #[error("the timestamp is more than 300 s away")]
    Stale,
    /// No key makes this signature.
    #[error("the signature does not match")]
    Mismatch,
    /// Signed, but not one JSON document.
    #[error("the signed body is not one JSON document")]
    Envelope,
    /// Signed, but not encrypted as agreed, wrongly padded, or without our token inside.
    #[error("the signed body does not decrypt to a document with our token")]
    Ciphertext,
    /// The path names nobody whom the configuration knows.
    #[error("no such client")]
    UnknownClient,
}

impl Unauthentic {
    /// Whether other secrets could make it authentic.
    #[must_use]
    pub fn depends_on_secrets(self) -> bool {
        match self {
            Self::Mismatch | Self::UnknownClient | Self::Ciphertext => true,
            Self::Missing(_) | Self::Duplicated(_) | Self::Malformed(_) | Self::Stale | Self::Envelope => false,
        }
    }
}

/// The only value of a header. Function URLs join duplicates with a comma.
fn only_header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Unauthentic> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Unauthentic::Missing(name))?;
    if values.next().is_some() {
        return Err(Unauthentic::Duplicated(name));
    }
    value.to_str().map_err(|_| Unauthentic::Malformed(name))
}

/// Checks a timestamp: exactly ten digits, so that no digit can move between it and what is signed beside it.
fn check_timestamp(text: &str, name: &'static str, now: Timestamp) -> Result<Timestamp, Unauthentic> {
    if text.len() != 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Unauthentic::Malformed(name));
    }
    let seconds = text.parse().map_err(|_| Unauthentic::Malformed(name))?;
    let sent_at = Timestamp::from_second(seconds).map_err(|_| Unauthentic::Malformed(name))?;
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    if now.duration_since(sent_at).abs() > TOLERANCE { Err(Unauthentic::Stale) } else { Ok(sent_at) }
}

/// The body is authentic but not what we understand. The words are for the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    /// Says where, but not what: the parser's words quote what was sent.
    fn json(error: &serde_json::Error) -> Self {
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
    Request {
        /// What, and who.
        request: Request,
        /// Where the answer goes.
        to: To,
    },
    /// Somebody clicked a button.
    Click {
        /// On which, and who.
        click: Click,
        /// Where the answer goes.
        to: To,
    },
    /// Somebody wants something, in words that we don't understand.
    Usage(To),
    /// The platform tests the address, or tells us what needs no answer: the reply, as JSON.
    Challenge(String),
    /// A user of another tenant: they are told so, where there is a place for it, and nothing else happens.
    Stranger(Option<To>),
}

impl<To> Incoming<To> {
    /// The same, with another place for the answer.
    fn map<Other>(self, other: impl FnOnce(To) -> Other) -> Incoming<Other> {
        match self {
            Self::Request { request, to } => Incoming::Request { request, to: other(to) },
            Self::Click { click, to } => Incoming::Click { click, to: other(to) },
            Self::Usage(to) => Incoming::Usage(other(to)),
            Self::Challenge(reply) => Incoming::Challenge(reply),
            Self::Stranger(to) => Incoming::Stranger(to.map(other)),
        }
    }
}

/// What a sender is told.
#[derive(Debug)]
pub enum Said<'a> {
    /// What came of a command.
    Answer {
        /// As it is.
        answer: &'a Answer,
        /// In words, with buttons for this person.
        message: Box<Message>,
        /// The card that was clicked, as it is now, where the reply can draw it.
        card: Option<Box<Message>>,
    },
    /// Which commands there are.
    Usage,
    /// That we take no commands from there.
    Stranger,
    /// Nothing: a question was put to them.
    Asked,
}

/// Whether somebody was asked for a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// They were.
    Done,
    /// They can't be: they decide without a reason.
    Impossible,
}

/// What became of a message that was to be redrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// It was.
    Done,
    /// It is gone, or can't be changed any more.
    Gone,
    /// It is there, and too old to be changed: a new one is posted, and a reply below the old one says so.
    Closed,
}

/// Why a channel can't be posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// A person has to mend this.
    Problem {
        /// What is wrong.
        detail: String,
        /// What to do.
        mend: &'static str,
    },
    /// It did not take a message.
    Undelivered(Undelivered),
}

impl From<Undelivered> for ProbeError {
    fn from(undelivered: Undelivered) -> Self {
        Self::Undelivered(undelivered)
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
    fn check(
        endpoint: Option<&Self>,
        key: &str,
        of_kind: impl FnOnce(&Self, &str) -> Result<(), KeyProblem>,
    ) -> Result<(), KeyProblem> {
        let Some(endpoint) = endpoint else { return KeyProblem::at(key, "missing") };
        if !crate::http::is_secure(endpoint.url.expose()) {
            return KeyProblem::at(format!("{key}.url"), "only https is allowed, except on loopback");
        }
        of_kind(endpoint, key)
    }
}

/// What is to be signed as a platform signs it, for tests and the local tool.
#[cfg(feature = "local")]
#[derive(Debug, Clone)]
pub struct Wish {
    /// `approve`, `reject`, `withdraw`, `status`, `list` or `dry-run`.
    pub verb: String,
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
pub struct Signed {
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
    About(About),
}

/// What somebody wants about one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// What.
    pub verb: Verb,
    /// Of which accepting account; may be left out when there is only one.
    pub target: Option<String>,
    /// Which connection.
    pub instance_id: InstanceId,
    /// The one that they saw, if they say.
    pub seen: Option<SeenFingerprint>,
    /// Why, in their words: untrusted.
    pub reason: Option<String>,
}

/// What can be wanted about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
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
pub struct Request {
    /// What they want.
    pub command: Command,
    /// Who they are.
    pub by: Principal,
    /// Names the request; see [`Authentic`].
    pub request_key: String,
    /// When they made it, to the second, as far as that is signed.
    pub signed_at: Timestamp,
    /// Which of the configured keys signed it, from 0.
    pub key: usize,
    /// The card, if it was a button.
    pub clicked: Option<Clicked>,
}

/// The card whose button somebody clicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clicked {
    /// Ours for it.
    pub card: CardId,
    /// The platform's for the message, as in a `CardRef`; none if it says none, or for a message to one person.
    pub message: Option<String>,
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
    pub key: usize,
    /// What the button carried; empty if it carried nothing of ours.
    pub binding: String,
    /// The platform's name for its message; see [`Clicked`].
    pub message: Option<String>,
    /// Whether they were asked for a reason, or had a field for it.
    pub asked: bool,
    /// Why, in their words: untrusted.
    pub reason: Option<String>,
}

impl Click {
    /// What they want, once the binding is known.
    #[must_use]
    pub fn request(&self, binding: Binding) -> Request {
        let verb = match binding.button {
            Button::Approve { .. } => Verb::Decide(Verdict::Approve),
            Button::Reject => Verb::Decide(Verdict::Reject),
            Button::Withdraw => Verb::Withdraw,
            Button::Details => Verb::Status,
        };
        let about = About {
            verb,
            target: Some(binding.target),
            instance_id: binding.instance_id,
            seen: Some(binding.seen),
            reason: self.reason.clone(),
        };
        Request {
            command: Command::About(about),
            by: self.by.clone(),
            request_key: self.request_key.clone(),
            signed_at: self.signed_at,
            key: self.key,
            clicked: Some(Clicked { card: binding.card, message: self.message.clone() }),
        }
    }

    /// Whether they are to be asked for a reason first.
    #[must_use]
    pub fn asks(&self, button: Button) -> bool {
        let wants = match button {
            Button::Approve { ask } => ask,
            Button::Reject => true,
            Button::Withdraw | Button::Details => false,
        };
        wants && !self.asked
    }
}

/// What comes of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Decided, and Alibaba Cloud acknowledged it.
    Done(Box<Approval>),
    /// Decided and durable; Alibaba Cloud has not acknowledged it yet, and the watcher goes on.
    Underway(Box<Approval>),
    /// Counted and durable; more people have to approve.
    Counted(Box<Approval>),
    /// Taken back.
    Withdrawn(Box<Approval>),
    /// There is no approval of theirs to take back.
    NothingToWithdraw,
    /// The same person said the same before.
    Repeated(Box<Approval>),
    /// Somebody decided before, or it is over.
    Over(Box<Approval>),
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
    NotAsked {
        /// What they want to do.
        verdict: Verdict,
        /// About which connection.
        instance_id: InstanceId,
    },
    /// The button is not of the current card.
    OldCard {
        /// There is another card where they clicked.
        replaced: bool,
        /// The record, if no channel has a card that could be redrawn: they get one of their own.
        approval: Option<Box<Approval>>,
    },
    /// The connection is not the one that they saw.
    Changed,
    /// No channel had shown its current facts when they decided, and the request has no fingerprint.
    NotShown,
    /// Their decision counted, and does not any more.
    Void,
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
    Unavailable(Part),
}

/// What we need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
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
pub struct Undelivered {
    /// What the platform said, or the kind of failure.
    pub error: String,
    /// When to try again.
    pub retry: Redelivery,
}

impl Undelivered {
    /// A person has to mend the configuration first.
    #[must_use]
    pub fn misconfigured(error: &str) -> Self {
        Self { error: error.to_owned(), retry: Redelivery::Later }
    }

    fn no_app() -> Self {
        Self::misconfigured("the channel's app is not configured, or has no secret")
    }

    fn no_endpoint() -> Self {
        Self::misconfigured("the channel has no secrets")
    }

    /// Nobody posts such a message there; a caller has looked at [`Abilities`].
    fn not_for_this_kind() -> Self {
        Self { error: "the channel takes no such message".to_owned(), retry: Redelivery::Never }
    }

    fn transport(error: &reqwest::Error) -> Self {
        Self { error: crate::http::failure(error).to_owned(), retry: Redelivery::Soon(None) }
    }

    /// By HTTP status, as webhooks have it.
    fn status(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Self {
        let error = format!("HTTP {}", status.as_u16());
        let content = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
        let retry = if status == StatusCode::GONE {
            Redelivery::Never
        } else if content.contains(&status) {
            Redelivery::Few
        } else if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            Redelivery::Soon(retry_after(headers, now))
        } else {
            Redelivery::Later
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
async fn reachable(http: &reqwest::Client, url: &SecretUrl) -> Result<&'static str, ProbeError> {
    match http.head(url.expose().clone()).send().await {
        Ok(_) => Ok("somebody answers there; --post says whether it takes messages"),
        Err(error) => Err(ProbeError::Problem {
            detail: crate::http::failure(&error).to_owned(),
            mend: "Check the channel's URL in the secrets, and the network.",
        }),
    }
}

/// The header `retry-after`, as of now.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    crate::http::retry_after(headers.get("retry-after")?.to_str().ok()?, now)
}

/// A reason as we keep it: trimmed, and cut to 400 characters; `None` when nothing is left.
fn reason(text: &str) -> Option<String> {
    let reason: String = text.trim().chars().take(LONGEST_REASON_CHARS).collect();
    (!reason.is_empty()).then_some(reason)
}

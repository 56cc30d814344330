//! What chat platforms and machines say to us and hear from us, in words that all of them share.
//!
//! One file per platform, each in the same order: authenticity, payload in, message out, delivery. Every sentence that
//! a person reads is in [`message`].

mod card_rate;
pub mod message;
pub mod slack;
pub mod standard_webhooks;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::error::Category;

use crate::approval::{Approval, Principal, Redelivery, Verdict};
use crate::peering::{Connection, Fingerprint, InstanceId, Problem};
use crate::policy::Refusal;
use crate::preflight::{Finding, Objection};

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

/// A body whose sender is known. Only verification makes one, and only of it is anything parsed.
#[derive(Debug)]
pub struct Authentic {
    /// The bytes that were signed.
    body: Bytes,
    /// Names the request: the same for a replay, another for any other request.
    request_key: String,
    /// The signed time, to the second.
    signed_at: Timestamp,
    /// Which of the configured keys matched, from 0.
    key: usize,
}

impl Authentic {
    /// Which of the configured keys matched, from 0.
    #[must_use]
    pub fn key(&self) -> usize {
        self.key
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
    pub fingerprint: Option<Fingerprint>,
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

/// The header `retry-after`, as of now.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    crate::http::retry_after(headers.get("retry-after")?.to_str().ok()?, now)
}

/// A reason as we keep it: trimmed, and cut to 400 characters; `None` when nothing is left.
fn reason(text: &str) -> Option<String> {
    let reason: String = text.trim().chars().take(LONGEST_REASON_CHARS).collect();
    (!reason.is_empty()).then_some(reason)
}

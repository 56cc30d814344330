//! What senders ask for: commands, clicks, and what else a request can be.

use super::MAX_REASON_CHARS;
use super::authenticity::RequestOrigin;
use super::binding::Binding;
use super::command_words::UnknownCommand;
use super::message::{Button, is_invisible};
use crate::approval::{CardId, Principal, Verdict};
use crate::http::log_safe_word;
use crate::peering::{InstanceId, SeenFingerprint};

/// The most configured tenants that a log line names.
const MAX_LOGGED_TENANTS: usize = 10;

/// What a request is. `To` is where the platform shows the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming<To> {
    /// A command in words, or as JSON.
    Command {
        /// The command and its sender.
        request: CommandRequest,
        /// Where the answer goes.
        reply_to: To,
    },
    /// A click on a button.
    Click {
        /// The button and the person.
        click: Click,
        /// Where the answer goes.
        reply_to: To,
    },
    /// Words that are not a command.
    UnknownCommand {
        /// Why they are not.
        error: UnknownCommand,
        /// Where the answer goes.
        reply_to: To,
    },
    /// The platform tests the address, or reports an event that needs no answer. Holds the reply, as JSON.
    Challenge(String),
    /// A user of a tenant that is not configured. They are told so where possible, and nothing else happens.
    WrongTenant(ForeignRequest<To>),
}

/// A request of a tenant or an app that is not configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRequest<To> {
    /// Where the sender can be told so.
    pub reply_to: Option<To>,
    /// Whose request it is.
    pub mismatch: TenantMismatch,
}

/// The tenant and the app of a request, and those that are configured. For the log: the sender never hears it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("received tenant {tenant} and app {app}, expected {expected}")]
pub struct TenantMismatch {
    tenant: String,
    app: String,
    expected: String,
}

impl TenantMismatch {
    pub(super) fn new<'a>(
        [tenant, app]: [&str; 2],
        known_tenants: impl IntoIterator<Item = &'a str>,
        known_app: &str,
    ) -> Self {
        let word = |text: &str| log_safe_word(text).unwrap_or_else(|| "(unreadable)".to_owned());
        let tenants: Vec<_> = known_tenants.into_iter().take(MAX_LOGGED_TENANTS).collect();
        let expected = format!("tenant {} and app {known_app}", tenants.join(" or "));
        Self { tenant: word(tenant), app: word(app), expected }
    }
}

impl<To> Incoming<To> {
    /// The same request with another type of `reply_to`.
    pub(super) fn map_reply_to<Other>(self, other: impl FnOnce(To) -> Other) -> Incoming<Other> {
        match self {
            Self::Command { request, reply_to } => Incoming::Command { request, reply_to: other(reply_to) },
            Self::Click { click, reply_to } => Incoming::Click { click, reply_to: other(reply_to) },
            Self::UnknownCommand { error, reply_to } => Incoming::UnknownCommand { error, reply_to: other(reply_to) },
            Self::Challenge(reply) => Incoming::Challenge(reply),
            Self::WrongTenant(ForeignRequest { reply_to, mismatch }) => {
                Incoming::WrongTenant(ForeignRequest { reply_to: reply_to.map(other), mismatch })
            }
        }
    }
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// List the connections that are pending or in progress.
    List {
        /// The accepting account's name; `None` for all accounts.
        target: Option<String>,
    },
    /// List every peering of the configured accounts.
    Inventory {
        /// As of a list.
        target: Option<String>,
    },
    /// A command about one connection.
    Connection(ConnectionCommand),
}

impl Command {
    /// Whether the command is only a question. A dry run decides nothing.
    #[must_use]
    pub fn is_question(&self) -> bool {
        match self {
            Self::List { .. } | Self::Inventory { .. } => true,
            Self::Connection(command) => match command.action {
                Action::Decide(_) | Action::Withdraw | Action::Acknowledge => false,
                Action::DryRun | Action::Status => true,
            },
        }
    }

    /// The command's name in logs.
    #[must_use]
    pub fn log_name(&self) -> &'static str {
        match self {
            Self::List { .. } => "list",
            Self::Inventory { .. } => "inventory",
            Self::Connection(command) => match command.action {
                Action::Decide(Verdict::Approve) => "approve",
                Action::Decide(Verdict::Reject) => "reject",
                Action::Withdraw => "withdraw",
                Action::Acknowledge => "acknowledge",
                Action::DryRun => "dry_run",
                Action::Status => "status",
            },
        }
    }
}

/// What people can do by commands in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandScope {
    /// Decide, withdraw and ask.
    Everything,
    /// Only ask. The platform does not sign what people write, so only buttons decide: they carry a MAC of ours.
    Questions,
}

/// A command about one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionCommand {
    /// What to do.
    pub action: Action,
    /// The accepting account's name. May be `None` if only one is configured.
    pub target: Option<String>,
    /// The connection's id.
    pub instance_id: InstanceId,
    /// The fingerprint of the facts that the sender saw. Commands of people have none.
    pub seen_fingerprint: Option<SeenFingerprint>,
    /// The sender's reason: untrusted text, and as long as it was sent.
    pub reason: Option<String>,
}

impl ConnectionCommand {
    /// The length of the reason in characters, if it is too long to be stored. It is never cut: half a sentence can mean the
    /// opposite.
    #[must_use]
    pub fn oversized_reason(&self) -> Option<usize> {
        self.reason.as_ref().map(|reason| reason.chars().count()).filter(|chars| *chars > MAX_REASON_CHARS)
    }
}

/// What a command does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Approve or reject it.
    Decide(Verdict),
    /// Withdraw the sender's approval.
    Withdraw,
    /// Acknowledge that an activated connection has changed.
    Acknowledge,
    /// Run all checks of an approval without approving.
    DryRun,
    /// Show its facts and its record.
    Status,
}

/// A command and its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRequest {
    /// What the sender asks for.
    pub command: Command,
    /// The sender.
    pub by: Principal,
    /// Identifies the request. `signed_at` is earlier if the sender wrote the command earlier.
    pub origin: RequestOrigin,
    /// The card, if the request is a click.
    pub clicked_card: Option<ClickedCard>,
}

/// The card whose button was clicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickedCard {
    /// Our own id of the card.
    pub card_id: CardId,
    /// The platform's id of the message, as in a `CardRef`. The channel is empty if the platform does not name it. `None`
    /// for a private message, or if the platform sends no id.
    pub message_ref: Option<String>,
}

/// A click on a button whose binding is not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Click {
    /// The person.
    pub by: Principal,
    /// Identifies the request.
    pub origin: RequestOrigin,
    /// What the button carried; empty if it is not one of ours.
    pub binding: String,
    /// The platform's id of the message; see [`ClickedCard`].
    pub message_ref: Option<String>,
    /// Whether the person was already asked for a reason, or had a field for it.
    pub was_asked: bool,
    /// The person's reason: untrusted text.
    pub reason: Option<String>,
}

impl Click {
    /// The command that the button stands for.
    #[must_use]
    pub fn to_command_request(&self, binding: Binding) -> CommandRequest {
        let action = match binding.button {
            Button::Approve { .. } => Action::Decide(Verdict::Approve),
            Button::Reject => Action::Decide(Verdict::Reject),
            Button::Withdraw => Action::Withdraw,
            Button::Acknowledge => Action::Acknowledge,
            Button::Details => Action::Status,
        };
        let command = ConnectionCommand {
            action,
            target: Some(binding.target),
            instance_id: binding.instance_id,
            seen_fingerprint: Some(binding.seen_fingerprint),
            reason: self.reason.clone(),
        };
        CommandRequest {
            command: Command::Connection(command),
            by: self.by.clone(),
            origin: self.origin.clone(),
            clicked_card: Some(ClickedCard { card_id: binding.card_id, message_ref: self.message_ref.clone() }),
        }
    }

    /// Whether to ask the person for a reason first.
    #[must_use]
    pub fn needs_reason(&self, button: Button) -> bool {
        let asks = match button {
            Button::Approve { needs_reason } => needs_reason,
            Button::Reject => true,
            Button::Withdraw | Button::Acknowledge | Button::Details => false,
        };
        asks && !self.was_asked
    }
}

/// A reason as it is stored: as it was written, without white space at its ends. `None` if nobody could see it.
pub(super) fn normalize_reason(text: &str) -> Option<String> {
    // These are letters and symbols by name, but blank.
    let is_blank = |c: char| matches!(c, '\u{115F}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{FFA0}');
    let is_seen = |c: char| !(c.is_whitespace() || c.is_control() || is_invisible(c) || is_blank(c));
    text.contains(is_seen).then(|| text.trim().to_owned())
}

/// A command that tests and the local tool sign as a platform would.
#[cfg(feature = "local")]
#[derive(Debug, Clone)]
pub struct EventSpec {
    /// `approve`, `reject`, `withdraw`, `acknowledge`, `status`, `list`, `inventory` or `dry-run`.
    pub action: String,
    /// `pcc-…`; empty for a list or an inventory.
    pub instance_id: String,
    /// The accepting account's name, if there are several.
    pub target: Option<String>,
    /// The sender's reason.
    pub reason: Option<String>,
    /// The fingerprint that the sender saw. Commands of people carry none.
    pub fingerprint: Option<String>,
    /// The tenant, or the client. By default, the first of the configuration.
    pub tenant: Option<String>,
    /// The user's id.
    pub actor: String,
}

/// A signed request, ready to be sent.
#[cfg(feature = "local")]
#[derive(Debug, Clone)]
pub struct SignedRequest {
    /// e.g. `/webhook/ci`.
    pub path: String,
    /// Values by lower-case name.
    pub headers: Vec<(&'static str, String)>,
    /// The signed body.
    pub body: String,
}

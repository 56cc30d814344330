//! The configuration of Slack: `[platforms.slack]`, the secret `platforms.slack`, and channels.

use std::collections::BTreeSet;
use std::fmt;

use jiff::SignedDuration;
use serde::Deserialize;
use url::Url;

use super::{MAX_BINDING_CHARS, REALM};
use crate::approval::Principal;
use crate::chat::MergedTenant;
use crate::chat::authenticity::key_forms;
use crate::chat::{Capabilities, ChannelSecrets, Pace, RequestSigner};
use crate::from_text::from_text;
use crate::http::{check_endpoint, constant_url};
use crate::redaction::{KeyProblem, redact, redact_value};
use crate::secret::{FormatProblem, Secret, check_printable};

/// A channel takes about one post a second, and a workspace several hundred a minute. This leaves a margin for the network.
///
/// Source: <https://docs.slack.dev/apis/web-api/rate-limits>
const PACE: Pace = Pace { per_channel: SignedDuration::from_millis(1100), per_app: SignedDuration::from_millis(200) };
/// The prefix of bot tokens.
///
/// Source: <https://docs.slack.dev/authentication/tokens>
const BOT_TOKEN_PREFIX: &str = "xoxb-";
/// Other tokens of Slack, and what to do about each.
///
/// Source: <https://docs.slack.dev/authentication/tokens> and
/// <https://docs.slack.dev/authentication/using-token-rotation>
const OTHER_TOKENS: [(&str, &str); 6] = [
    (
        "xoxe.",
        "it expires after 12 hours, because the app rotates its tokens. Turn off “Advanced token security via token rotation” \
         under OAuth & Permissions and install the app again; if Slack does not let you, make a new app without it",
    ),
    ("xoxe-", "it is a refresh token. Store the Bot User OAuth Token of an app that does not rotate its tokens"),
    ("xoxp-", "it is the token of a user. Store the Bot User OAuth Token, which starts with xoxb"),
    ("xapp-", "it is an app-level token. Store the Bot User OAuth Token, which starts with xoxb"),
    ("xoxa-", "it is the token of a workspace app. Store the Bot User OAuth Token, which starts with xoxb"),
    ("xwfp-", "it is the token of a workflow. Store the Bot User OAuth Token, which starts with xoxb"),
];

/// The shortest signing secret. Slack's own have 32 characters.
const MIN_SECRET_BYTES: usize = 16;

/// The Slack app. Its signing secrets and bot token are in the secrets store.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "SlackApp"))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Enterprise Grid organization of all these workspaces, by id (`E…`). Its users are the same in all of them.
    pub enterprise: Option<String>,
    /// The workspaces whose people may click, by id (`T…`).
    pub teams: BTreeSet<String>,
    /// The id of the app (`A…`). Requests of other apps are refused.
    pub app: String,
    /// The URL of the Web API.
    #[serde(default = "default_api")]
    pub api: Url,
    /// The origins that a `response_url` may have: scheme, host and port.
    #[serde(default = "default_response_origins")]
    pub response_origins: Vec<Url>,
}

/// The secrets of the Slack app.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "SlackSecrets"))]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// A request may be signed by any of them.
    pub signing_secrets: Vec<SigningSecret>,
    /// `xoxb-…`. Required by channels of kind `slack`.
    pub bot_token: Option<Secret>,
}

/// A signing secret of Slack, of 16 characters or more.
///
/// Source: <https://docs.slack.dev/authentication/verifying-requests-from-slack>
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "SlackSigningSecret", with = "String"))]
pub struct SigningSecret(String);

from_text!(SigningSecret);

/// The text is not a signing secret of Slack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Slack signing secret: {0}; expected 16 characters or more")]
pub struct InvalidSigningSecret(FormatProblem);

/// A channel of kind `slack`: the app posts to it with its bot token.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "SlackChannel"))]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The channel's id (`C…`).
    pub channel: String,
}

/// A channel of kind `slack-webhook`: an incoming webhook.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "SlackWebhookChannel"))]
#[serde(deny_unknown_fields)]
pub struct WebhookChannel {}

/// How the errors about the form of a secret begin.
pub(in crate::chat) fn secret_format_hints() -> Vec<String> {
    vec!["not a Slack signing secret: ".to_owned()]
}

/// Checks the table of the configuration.
pub(in crate::chat) fn check_config(config: &Config) -> Result<(), KeyProblem> {
    check_endpoint("platforms.slack.api", &config.api)?;
    for origin in &config.response_origins {
        check_endpoint("platforms.slack.response_origins", origin)?;
    }
    if config.teams.is_empty() {
        return KeyProblem::err_at("platforms.slack.teams", "name at least one workspace");
    }
    if let Some(team) = config.teams.iter().find(|team| !team.starts_with('T') || !is_slack_id(team)) {
        let expected = "expected ids of workspaces, e.g. T0123ABCD; an organization belongs in `enterprise`";
        return KeyProblem::err_at("platforms.slack.teams", format!("{expected}, found {}", redact_value(team)));
    }
    if config.enterprise.as_ref().is_some_and(|id| !id.starts_with('E') || !is_slack_id(id)) {
        return KeyProblem::err_at("platforms.slack.enterprise", "expected the organization's id, e.g. E0123ABCD");
    }
    if !config.app.starts_with('A') || !is_slack_id(&config.app) {
        return KeyProblem::err_at("platforms.slack.app", "expected the app's id, e.g. A0123ABCD");
    }
    Ok(())
}

/// Checks the table of the secrets.
pub(in crate::chat) fn check_secrets(_config: &Config, secrets: &Secrets) -> Result<(), KeyProblem> {
    if secrets.signing_secrets.is_empty() {
        return KeyProblem::err_at("platforms.slack.signing_secrets", "name at least one");
    }
    Ok(())
}

/// Refuses a principal that can send no request.
pub(in crate::chat) fn check_principal(config: Option<&Config>, principal: &Principal) -> Result<(), String> {
    let id = redact(principal.as_str());
    let tenant = principal.realm().split_once(':').map_or("", |(_, tenant)| tenant);
    match config {
        None => Err(format!("{id} needs the table [platforms.slack]")),
        Some(config) if config.tenant_of(tenant).is_none() => {
            Err(format!("the workspace of {id} is not in `platforms.slack.teams`"))
        }
        Some(_) if !is_slack_user(principal.user()) => {
            Err(format!("{id} does not end with a user's id, e.g. U0123ABCD; names can be changed"))
        }
        Some(_) => Ok(()),
    }
}

/// Each workspace is merged into the organization, if one is configured.
pub(in crate::chat) fn merged_tenants(config: &Config) -> Vec<MergedTenant> {
    let realm = |tenant: &String| format!("{REALM}:{tenant}");
    let Some(enterprise) = &config.enterprise else { return vec![] };
    config.teams.iter().map(|team| MergedTenant { tenant: realm(team), into: realm(enterprise) }).collect()
}

/// The secrets that its binding keys are derived from.
pub(in crate::chat) fn binding_key_material(secrets: &Secrets) -> Vec<Vec<u8>> {
    secrets.signing_secrets.iter().map(|secret| secret.expose().to_vec()).collect()
}

/// The app, with its signing secrets.
pub(in crate::chat) fn request_signers(_config: &Config, secrets: &Secrets) -> Vec<RequestSigner> {
    let keys = secrets.signing_secrets.iter().flat_map(|secret| key_forms(&secret.0)).collect();
    vec![RequestSigner { name: "platforms.slack".to_owned(), secrets_key: "signing_secrets", secrets: keys }]
}

impl Config {
    /// The tenant of a workspace's users: the organization, if one is configured. `None` if the workspace is not.
    ///
    /// Source: <https://docs.slack.dev/enterprise>
    #[must_use]
    pub fn tenant_of<'a>(&'a self, team: &'a str) -> Option<&'a str> {
        match &self.enterprise {
            Some(enterprise) if enterprise == team || self.teams.contains(team) => Some(enterprise),
            Some(_) | None => self.teams.contains(team).then_some(team),
        }
    }
}

impl SigningSecret {
    /// The secret's bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl TryFrom<String> for SigningSecret {
    type Error = InvalidSigningSecret;

    fn try_from(text: String) -> Result<Self, InvalidSigningSecret> {
        check_printable(&text).map_err(InvalidSigningSecret)?;
        match text.len() {
            MIN_SECRET_BYTES.. => Ok(Self(text)),
            found => Err(InvalidSigningSecret(FormatProblem::Characters(found))),
        }
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

impl Channel {
    /// The key of [`Channel::channel`].
    pub(in crate::chat) const ID_KEY: &str = "channel";
    /// What a channel of Slack can do.
    pub const CAPABILITIES: Capabilities = Capabilities {
        can_edit: true,
        edit_window: None,
        can_thread: true,
        can_open_modal: true,
        can_reply_privately: true,
        can_mention: true,
        is_for_people: true,
        max_binding_chars: MAX_BINDING_CHARS,
        pace: PACE,
    };

    /// The channel's id.
    pub(in crate::chat) fn id(&self) -> &str {
        &self.channel
    }

    pub(in crate::chat) fn check_id(&self) -> Result<(), &'static str> {
        if is_slack_id(&self.channel) { Ok(()) } else { Err("expected the channel's id, e.g. C0123ABCD") }
    }

    pub(in crate::chat) fn check_secrets(secrets: Option<&Secrets>) -> Result<(), KeyProblem> {
        let key = "platforms.slack.bot_token";
        let Some(token) = secrets.and_then(|secrets| secrets.bot_token.as_ref()).map(Secret::expose) else {
            return KeyProblem::err_at(key, "missing, and a channel of kind `slack` needs it");
        };
        if let Err(problem) = check_printable(token) {
            return KeyProblem::err_at(key, format!("{problem}; expected the bot's token"));
        }
        match OTHER_TOKENS.iter().find(|(prefix, _)| token.starts_with(prefix)) {
            Some((_, problem)) => KeyProblem::err_at(key, *problem),
            None if token.starts_with(BOT_TOKEN_PREFIX) => Ok(()),
            None => KeyProblem::err_at(key, "it is not a Bot User OAuth Token, which starts with xoxb"),
        }
    }
}

impl WebhookChannel {
    /// Its messages cannot be updated, so they have no buttons: nothing could remove them.
    pub const CAPABILITIES: Capabilities = Capabilities {
        can_edit: false,
        edit_window: None,
        can_thread: false,
        can_open_modal: false,
        can_reply_privately: false,
        can_mention: true,
        is_for_people: true,
        max_binding_chars: 0,
        pace: Pace { per_app: SignedDuration::ZERO, ..PACE },
    };

    /// The URL itself is the secret, and nothing else is required.
    #[expect(clippy::unnecessary_wraps, reason = "other kinds check signing secrets")]
    pub(in crate::chat) fn check_endpoint(_endpoint: &ChannelSecrets, _key: &str) -> Result<(), KeyProblem> {
        Ok(())
    }
}

fn is_slack_id(id: &str) -> bool {
    id.len() > 1 && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// `U…`, or `W…` for users of organizations.
///
/// Source: <https://docs.slack.dev/reference/objects/user-object>
fn is_slack_user(id: &str) -> bool {
    is_slack_id(id) && (id.starts_with('U') || id.starts_with('W'))
}

/// Source: <https://docs.slack.dev/apis/web-api/>
fn default_api() -> Url {
    constant_url("https://slack.com/api/")
}

/// Source: <https://docs.slack.dev/interactivity/handling-user-interaction>
fn default_response_origins() -> Vec<Url> {
    vec![constant_url("https://hooks.slack.com/"), constant_url("https://hooks.slack-gov.com/")]
}

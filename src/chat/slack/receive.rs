//! What Slack sends: authenticity, then clicks, reasons and the slash command.

use std::collections::BTreeMap;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Request};
use jiff::Timestamp;
use serde::Deserialize;
#[cfg(feature = "local")]
use serde_json::Value;
use serde_json::json;
use sha2::{Digest, Sha256};
use url::Url;

use super::{
    APPROVE, APPROVE_WITH_REASON, Access, Config, DETAILS, NAME, REALM, REASON, REJECT, SigningSecret, WITHDRAW,
};
use crate::approval::Principal;
#[cfg(feature = "local")]
use crate::chat::command::command_text;
use crate::chat::command::read_command;
use crate::chat::message::Button;
use crate::chat::{self, Authentic, Click, Command, Incoming, Malformed, Request as Wanted, Unauthentic};
#[cfg(feature = "local")]
use crate::chat::{Signed, Wish};
use crate::http::is_secure;

const TIMESTAMP: &str = "x-slack-request-timestamp";
const SIGNATURE: &str = "x-slack-signature";
/// Of SHA-256, in hexadecimal digits.
const SIGNATURE_DIGITS: usize = 64;
/// All buttons, by `action_id`.
const ACTIONS: [&str; 5] = [APPROVE, APPROVE_WITH_REASON, REJECT, WITHDRAW, DETAILS];
/// Slack sends about fifteen.
const MAX_FIELDS: usize = 64;

/// What shows without a secret that a request is not Slack's.
pub(in crate::chat) fn check(request: &Request<Bytes>, now: Timestamp) -> Result<(), Unauthentic> {
    UnverifiedRequest::read(request.headers(), now).map(|_| ())
}

/// Verifies a request.
pub(in crate::chat) async fn verify(
    access: Access<'_>,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    verify_with(&access.secrets.signing_secrets, request.headers(), request.body().clone(), now)
}

/// Verifies a request with every signing secret.
///
/// Source: <https://docs.slack.dev/authentication/verifying-requests-from-slack>
///
/// # Errors
/// Why it is not authentic.
pub fn verify_with(
    secrets: &[SigningSecret],
    headers: &HeaderMap,
    body: Bytes,
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    UnverifiedRequest::read(headers, now)?.verify(body, secrets)
}

/// Well-formed and fresh headers of a request. Only the secrets can verify them.
struct UnverifiedRequest<'a> {
    timestamp: &'a str,
    signature: Vec<u8>,
    signed_at: Timestamp,
}

impl<'a> UnverifiedRequest<'a> {
    /// Reads the headers; needs no secret.
    fn read(headers: &'a HeaderMap, now: Timestamp) -> Result<Self, Unauthentic> {
        let timestamp = chat::only_header(headers, TIMESTAMP)?;
        let signature = chat::only_header(headers, SIGNATURE)?;
        let signed_at = chat::check_timestamp(timestamp, TIMESTAMP, now)?;
        let digits = signature.strip_prefix("v0=").ok_or(Unauthentic::Malformed(SIGNATURE))?;
        if digits.len() != SIGNATURE_DIGITS || digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(Unauthentic::Malformed(SIGNATURE));
        }
        let signature = hex::decode(digits).map_err(|_| Unauthentic::Malformed(SIGNATURE))?;
        Ok(Self { timestamp, signature, signed_at })
    }

    /// Verifies the body with every signing secret.
    fn verify(&self, body: Bytes, secrets: &[SigningSecret]) -> Result<Authentic, Unauthentic> {
        let mut matched = None;
        for (position, secret) in secrets.iter().enumerate() {
            // Compares in constant time, and goes on after a match.
            if mac(secret, self.timestamp, &body).verify_slice(&self.signature).is_ok() {
                matched = Some(position);
            }
        }
        let key = matched.ok_or(Unauthentic::Mismatch)?;
        let request_key = request_key(&body, &self.signature);
        Ok(Authentic { body, sender: NAME.to_owned(), request_key, signed_at: self.signed_at, key })
    }
}

/// Slack names each interaction by a `trigger_id`, so that a body is the same only for the same one, whenever it is signed.
/// A body without one is named by its signature; that is as good as a key until it is stale, so only its hash is kept.
fn request_key(body: &[u8], signature: &[u8]) -> String {
    let named = body.windows(b"trigger_id".len()).any(|window| window == b"trigger_id");
    format!("slack:{:.32}", hex::encode(Sha256::digest(if named { body } else { signature })))
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac(secret: &SigningSecret, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.expose()).expect("any length of key");
    for part in [b"v0:", timestamp.as_bytes(), b":", body] {
        mac.update(part);
    }
    mac
}

/// The header `x-slack-signature`, as Slack makes it.
#[must_use]
pub fn sign_body(secret: &SigningSecret, timestamp: &str, body: &[u8]) -> String {
    format!("v0={}", hex::encode(mac(secret, timestamp, body).finalize().into_bytes()))
}

/// Where Slack shows an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// To a slash command: in the reply.
    Command,
    /// To a click: at an address of Slack's; the reply is empty.
    Click {
        /// The address.
        response_url: Url,
        /// Opens a window, within 3 s.
        trigger_id: Option<String>,
    },
    /// To a reason: in the window.
    Window,
}

impl ReplyTo {
    pub(in crate::chat) fn way(&self) -> &'static str {
        match self {
            Self::Command => "Slash",
            Self::Click { .. } => "Click",
            Self::Window => "Window",
        }
    }
}

/// Understands a request: a form, or the JSON of the Events API.
pub(in crate::chat) fn parse(config: &Config, authentic: Authentic) -> Result<Incoming<ReplyTo>, Malformed> {
    let Authentic { body, request_key, signed_at, key, .. } = authentic;
    let origin = Origin { request_key, signed_at, key };
    // No form begins with a brace.
    if body.starts_with(b"{") {
        return challenge(&body);
    }
    let fields = Fields::parse(&body)?;
    match fields.get("payload") {
        Some(payload) => interaction(payload, origin, config),
        None => slash(&fields, origin, config),
    }
}

fn malformed(problem: impl Into<String>) -> Malformed {
    Malformed(problem.into())
}

/// Source: <https://docs.slack.dev/reference/events/url_verification>
fn challenge(body: &[u8]) -> Result<Incoming<ReplyTo>, Malformed> {
    #[derive(Deserialize)]
    struct Event {
        r#type: String,
        challenge: Option<String>,
    }
    let event: Event = serde_json::from_slice(body).map_err(|error| Malformed::json(&error))?;
    match event.challenge {
        Some(challenge) if event.r#type == "url_verification" => {
            Ok(Incoming::Challenge(json!({"challenge": challenge}).to_string()))
        }
        Some(_) | None => Err(malformed("of the Events API, only url_verification is understood")),
    }
}

/// The fields of a form. No field may be there twice, and every byte must be UTF-8.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut fields: Vec<(String, String)> = vec![];
        for (name, value) in form_urlencoded::parse(body) {
            // Each name is compared with all before it.
            if fields.len() == MAX_FIELDS {
                return Err(malformed("the form has more than 64 fields"));
            }
            if name.contains('\u{FFFD}') || value.contains('\u{FFFD}') {
                return Err(malformed("the form is not UTF-8"));
            }
            if fields.iter().any(|(earlier, _)| *earlier == name) {
                return Err(malformed("the form has a field twice"));
            }
            fields.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(fields))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn require(&self, name: &str) -> Result<&str, Malformed> {
        self.get(name).ok_or_else(|| malformed(format!("the form has no field {name}")))
    }
}

#[derive(Deserialize)]
struct Interaction {
    r#type: String,
    user: User,
    team: Option<Team>,
    /// The organization: the only tenant in a payload that belongs to no workspace.
    enterprise: Option<Team>,
    api_app_id: String,
    actions: Option<Vec<Action>>,
    container: Option<Container>,
    response_url: Option<String>,
    trigger_id: Option<String>,
    view: Option<View>,
}

/// Where the button is.
///
/// Source: <https://docs.slack.dev/reference/interaction-payloads/block_actions-payload>
#[derive(Deserialize)]
struct Container {
    channel_id: Option<String>,
    message_ts: Option<String>,
    #[serde(default)]
    is_ephemeral: bool,
}

impl Container {
    /// As `chat.postMessage` names a message.
    fn reference(self) -> Option<String> {
        let (channel, ts) = self.channel_id.zip(self.message_ts).filter(|_| !self.is_ephemeral)?;
        Some(format!("{channel}/{ts}"))
    }
}

#[derive(Deserialize)]
struct User {
    id: String,
    team_id: Option<String>,
}

#[derive(Deserialize)]
struct Team {
    id: String,
}

#[derive(Deserialize)]
struct Action {
    action_id: String,
    value: Option<String>,
}

#[derive(Deserialize)]
struct View {
    callback_id: String,
    private_metadata: String,
    state: ViewState,
}

#[derive(Deserialize)]
struct ViewState {
    values: BTreeMap<String, BTreeMap<String, Input>>,
}

#[derive(Deserialize)]
struct Input {
    value: Option<String>,
}

/// The request's id.
struct Origin {
    request_key: String,
    signed_at: Timestamp,
    key: usize,
}

impl Origin {
    fn request(self, command: Command, by: Principal) -> Wanted {
        let Self { request_key, signed_at, key } = self;
        Wanted { command, by, request_key, signed_at, key, clicked: None }
    }

    fn click(self, by: Principal, binding: String, message: Option<String>) -> Click {
        let Self { request_key, signed_at, key } = self;
        Click { by, request_key, signed_at, key, binding, message, asked: false, reason: None }
    }
}

fn interaction(payload: &str, origin: Origin, config: &Config) -> Result<Incoming<ReplyTo>, Malformed> {
    let payload: Interaction = serde_json::from_str(payload).map_err(|error| Malformed::json(&error))?;
    let of_whom = payload.team.or(payload.enterprise).map(|team| team.id);
    let team = payload.user.team_id.filter(|team| !team.is_empty()).or(of_whom).unwrap_or_default();
    let Some(by) = principal(&team, &payload.user.id, &payload.api_app_id, config)? else {
        let url = payload.response_url.as_deref().and_then(|url| allowed_response_url(url, config));
        let to = match payload.r#type.as_str() {
            "block_actions" => url.map(|response_url| ReplyTo::Click { response_url, trigger_id: None }),
            "view_submission" => Some(ReplyTo::Window),
            _ => None,
        };
        return Ok(Incoming::Stranger(to.filter(|_| payload.api_app_id == config.app)));
    };
    match (payload.r#type.as_str(), payload.view) {
        ("block_actions", _) => {
            let binding = binding(payload.actions.unwrap_or_default())?;
            let response_url = payload.response_url.as_deref().and_then(|url| allowed_response_url(url, config));
            let response_url = response_url.ok_or_else(|| malformed("response_url is missing or not Slack's"))?;
            let message = payload.container.and_then(Container::reference);
            let mut click = origin.click(by, binding, message);
            // Without it, nobody can be asked.
            click.asked = payload.trigger_id.is_none();
            Ok(Incoming::Click { click, to: ReplyTo::Click { response_url, trigger_id: payload.trigger_id } })
        }
        ("view_submission", Some(view)) => {
            Ok(Incoming::Click { click: submission(origin, by, view)?, to: ReplyTo::Window })
        }
        _ => Err(malformed("of the interactions, only block_actions and view_submission are understood")),
    }
}

/// What a button carried. What it does is part of that, not of its `action_id`.
fn binding(actions: Vec<Action>) -> Result<String, Malformed> {
    let [action] = <[Action; 1]>::try_from(actions).map_err(|_| malformed("expected exactly one action"))?;
    if !ACTIONS.contains(&action.action_id.as_str()) {
        return Err(malformed("unknown action_id"));
    }
    action.value.ok_or_else(|| malformed("the button carries nothing"))
}

/// What a window carries: the binding of the button, and the message that it is on.
pub(super) fn window_metadata(click: &Click) -> String {
    format!("{} {}", click.binding, click.message.as_deref().unwrap_or_default())
}

/// The click that a window was opened for, with the reason.
///
/// Source: <https://docs.slack.dev/reference/interaction-payloads/view-interactions-payload>
fn submission(origin: Origin, by: Principal, mut view: View) -> Result<Click, Malformed> {
    if ![APPROVE_WITH_REASON, REJECT].contains(&view.callback_id.as_str()) {
        return Err(malformed("unknown callback_id"));
    }
    let field = view.state.values.remove(REASON).and_then(|mut block| block.remove(REASON));
    let reason = field.and_then(|field| field.value).as_deref().and_then(chat::reason);
    let (binding, message) = view.private_metadata.split_once(' ').unwrap_or((&view.private_metadata, ""));
    let message = Some(message.to_owned()).filter(|message| !message.is_empty());
    Ok(Click { asked: true, reason, ..origin.click(by, binding.to_owned(), message) })
}

/// Source: <https://docs.slack.dev/interactivity/implementing-slash-commands>
fn slash(fields: &Fields, origin: Origin, config: &Config) -> Result<Incoming<ReplyTo>, Malformed> {
    let app = fields.require("api_app_id")?;
    let given = |name| fields.get(name).filter(|id| !id.is_empty());
    let team = given("team_id").or(given("enterprise_id")).ok_or_else(|| malformed("the form has no field team_id"))?;
    let by = principal(team, fields.require("user_id")?, app, config)?;
    fields.require("command")?;
    let Some(by) = by else {
        return Ok(Incoming::Stranger(Some(ReplyTo::Command).filter(|_| app == config.app)));
    };
    let Some(command) = read_command(fields.get("text").unwrap_or_default()) else {
        return Ok(Incoming::Usage(ReplyTo::Command));
    };
    Ok(Incoming::Request { request: origin.request(command, by), to: ReplyTo::Command })
}

/// The person, if they are of an allowed workspace and the call is for our app. Names are never looked at: people can
/// change theirs. The workspace that Slack names is not always the same for one user, so the organization goes before it.
///
/// Source: <https://docs.slack.dev/enterprise>
fn principal(team: &str, user: &str, app: &str, config: &Config) -> Result<Option<Principal>, Malformed> {
    let Some(tenant) = config.tenant(team).filter(|_| app == config.app) else { return Ok(None) };
    let principal = Principal::new(REALM, tenant, user);
    principal.map(Some).map_err(|_| malformed("the user's id is not one of Slack's"))
}

/// The `action_id` of a button.
pub(super) fn action_id(button: Button) -> &'static str {
    match button {
        Button::Approve { ask: false } => APPROVE,
        Button::Approve { ask: true } => APPROVE_WITH_REASON,
        Button::Reject => REJECT,
        Button::Withdraw => WITHDRAW,
        Button::Details => DETAILS,
    }
}

/// A `response_url`, if it points where Slack's point: what we are told to call must not be just anything.
fn allowed_response_url(text: &str, config: &Config) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let allowed = |origin: &Url| origin.origin() == url.origin();
    let plain = url.username().is_empty() && url.password().is_none();
    (plain && is_secure(&url) && config.response_origins.iter().any(allowed)).then_some(url)
}

/// As Slack would send the slash command.
///
/// # Errors
/// What the configuration or the secrets lack.
#[cfg(feature = "local")]
pub fn sign(config: &Config, secrets: &super::Secrets, wish: &Wish, now: Timestamp) -> Result<Signed, String> {
    let team = wish.tenant.as_ref().or(config.teams.first()).ok_or("platforms.slack.teams is empty")?;
    let text = command_text(wish);
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("command", "/peergate"),
            ("text", &text),
            ("team_id", team),
            ("user_id", &wish.actor),
            ("api_app_id", &config.app),
        ])
        .finish();
    sign_form(secrets, body, now)
}

/// As Slack would send an interaction: a click, or a reason.
///
/// # Errors
/// When there is no signing secret.
#[cfg(feature = "local")]
pub fn sign_interaction(secrets: &super::Secrets, payload: &Value, now: Timestamp) -> Result<Signed, String> {
    let payload = payload.to_string();
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload).finish();
    sign_form(secrets, body, now)
}

/// Any form, signed as Slack signs it.
///
/// # Errors
/// When there is no signing secret.
#[cfg(feature = "local")]
pub fn sign_form(secrets: &super::Secrets, body: String, now: Timestamp) -> Result<Signed, String> {
    let secret = secrets.signing_secrets.first().ok_or("platforms.slack.signing_secrets is empty")?;
    let timestamp = now.as_second().to_string();
    let signature = sign_body(secret, &timestamp, body.as_bytes());
    Ok(Signed {
        path: format!("/{REALM}"),
        headers: vec![
            ("content-type", "application/x-www-form-urlencoded".into()),
            (TIMESTAMP, timestamp),
            (SIGNATURE, signature),
        ],
        body,
    })
}

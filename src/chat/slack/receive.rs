//! What Slack sends: authenticity, then clicks, reasons and the slash command.

use std::collections::BTreeMap;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use http::{HeaderMap, Request};
use jiff::Timestamp;
use serde::Deserialize;
#[cfg(feature = "local")]
use serde_json::Value;
use serde_json::json;
use sha2::{Digest, Sha256};
use url::Url;

#[cfg(feature = "local")]
use super::form::escape_text;
use super::form::{FormFields, unescape_text};
use super::{
    ACKNOWLEDGE, APPROVE, APPROVE_WITH_REASON, Config, DETAILS, NAME, PlatformContext, REALM, REASON_FIELD, REJECT,
    SigningSecret, WITHDRAW,
};
use crate::approval::Principal;
use crate::chat::authenticity::{check_timestamp, hmac_of, only_header};
#[cfg(feature = "local")]
use crate::chat::command::command_text;
use crate::chat::command::parse_command;
use crate::chat::message::Button;
use crate::chat::request::normalize_reason;
use crate::chat::{
    Authentic, Click, CommandRequest, ForeignRequest, Incoming, MalformedRequest, MessageRef, RequestOrigin,
    TenantMismatch, Unauthentic,
};
#[cfg(feature = "local")]
use crate::chat::{EventSpec, SignedRequest};
#[cfg(feature = "local")]
use crate::clock;
use crate::http::is_secure;

const TIMESTAMP_HEADER: &str = "x-slack-request-timestamp";
const SIGNATURE_HEADER: &str = "x-slack-signature";
const SIGNATURE_FORM: &str = "`v0`, `=` and 64 lower-case hexadecimal digits";
/// The length of a SHA-256 in hexadecimal digits.
const SIGNATURE_DIGITS: usize = 64;
/// The `action_id` of every button.
const ACTION_IDS: [&str; 6] = [APPROVE, APPROVE_WITH_REASON, REJECT, WITHDRAW, ACKNOWLEDGE, DETAILS];

/// Refuses what is not Slack's under any secret.
pub(in crate::chat) fn precheck_request(request: &Request<Bytes>, now: Timestamp) -> Result<(), Unauthentic> {
    UnverifiedRequest::from_headers(request.headers(), now).map(|_| ())
}

/// A request holds nothing about the platform itself.
pub(in crate::chat) async fn learn(_access: PlatformContext<'_>, _authentic: &Authentic) {}

/// Verifies a request with the configured secrets.
pub(in crate::chat) async fn verify(
    access: PlatformContext<'_>,
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
    UnverifiedRequest::from_headers(headers, now)?.verify(body, secrets)
}

/// Well-formed and fresh headers of a request. Only the secrets can verify them.
struct UnverifiedRequest<'a> {
    timestamp: &'a str,
    signature: Vec<u8>,
    signed_at: Timestamp,
}

impl<'a> UnverifiedRequest<'a> {
    /// Reads the headers; needs no secret.
    fn from_headers(headers: &'a HeaderMap, now: Timestamp) -> Result<Self, Unauthentic> {
        let timestamp = only_header(headers, TIMESTAMP_HEADER)?;
        let signature = only_header(headers, SIGNATURE_HEADER)?;
        let signed_at = check_timestamp(timestamp, TIMESTAMP_HEADER, now)?;
        let malformed = || Unauthentic::malformed(SIGNATURE_HEADER, SIGNATURE_FORM, signature);
        let digits = signature.strip_prefix("v0=").ok_or_else(malformed)?;
        if digits.len() != SIGNATURE_DIGITS || digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(malformed());
        }
        let signature = hex::decode(digits).map_err(|_| malformed())?;
        Ok(Self { timestamp, signature, signed_at })
    }

    /// Verifies the body with every signing secret.
    fn verify(&self, body: Bytes, secrets: &[SigningSecret]) -> Result<Authentic, Unauthentic> {
        let mut matched = None;
        for (position, secret) in secrets.iter().enumerate() {
            // Compares in constant time, and continues after a match.
            if request_mac(secret, self.timestamp, &body).verify_slice(&self.signature).is_ok() {
                matched = Some(position);
            }
        }
        let key_index = matched.ok_or(Unauthentic::SignatureMismatch { keys: secrets.len() })?;
        let request_key = request_key(&body, &self.signature);
        let origin = RequestOrigin { request_key, signed_at: self.signed_at, key_index };
        Ok(Authentic { body, sender: NAME.to_owned(), origin, single_use: None })
    }
}

/// Each interaction has a `trigger_id` of its own, so two interactions never have the same body, whenever they are signed.
/// A body without one is identified by its signature. Until it is stale, a signature is as good as a key, so only a hash of
/// it is kept.
fn request_key(body: &[u8], signature: &[u8]) -> String {
    let named = body.windows(b"trigger_id".len()).any(|window| window == b"trigger_id");
    format!("slack:{:.32}", hex::encode(Sha256::digest(if named { body } else { signature })))
}

fn request_mac(secret: &SigningSecret, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    hmac_of(secret.expose(), &[b"v0:", timestamp.as_bytes(), b":", body])
}

/// The header `x-slack-signature`, as Slack makes it.
#[must_use]
pub fn sign_body(secret: &SigningSecret, timestamp: &str, body: &[u8]) -> String {
    format!("v0={}", hex::encode(request_mac(secret, timestamp, body).finalize().into_bytes()))
}

/// Where Slack shows the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// To a slash command: in the HTTP response.
    Command,
    /// To a click: posted to a URL of Slack's. The HTTP response is empty.
    Click {
        /// Where to post the answer.
        response_url: Url,
        /// Opens a modal; valid for 3 s.
        trigger_id: Option<String>,
        /// The workspace in links, e.g. `example` of `example.slack.com`.
        workspace: Option<String>,
    },
    /// To a reason: in the modal.
    Modal,
}

impl ReplyTo {
    pub(in crate::chat) fn log_label(&self) -> &'static str {
        match self {
            Self::Command => "Slash",
            Self::Click { .. } => "Click",
            Self::Modal => "Window",
        }
    }

    /// A link to a message in the workspace of the click.
    ///
    /// Source: <https://docs.slack.dev/reference/methods/chat.getPermalink>
    pub(in crate::chat) fn message_link(&self, place: &MessageRef) -> Option<String> {
        let Self::Click { workspace: Some(workspace), .. } = self else { return None };
        let MessageRef { channel, message_id } = place;
        Some(format!("https://{workspace}.slack.com/archives/{channel}/p{}", message_id.replace('.', "")))
    }
}

/// Whether a text can stand before `.slack.com`.
fn is_workspace_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed)
}

/// Parses a request: a form, or the JSON of the Events API.
pub(in crate::chat) fn parse(config: &Config, authentic: Authentic) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let Authentic { body, origin, .. } = authentic;
    // No form begins with a brace.
    if body.starts_with(b"{") {
        return parse_challenge(&body);
    }
    let fields = FormFields::parse(&body)?;
    match fields.get("payload")? {
        Some(payload) => parse_interaction(payload, origin, config),
        None => parse_slash_command(&fields, origin, config),
    }
}

/// Source: <https://docs.slack.dev/reference/events/url_verification>
fn parse_challenge(body: &[u8]) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    #[derive(Deserialize)]
    struct UrlVerification {
        r#type: String,
        challenge: Option<String>,
    }
    let event: UrlVerification = MalformedRequest::parse_json(body)?;
    match event.challenge {
        Some(challenge) if event.r#type == "url_verification" => {
            Ok(Incoming::Challenge(json!({"challenge": challenge}).to_string()))
        }
        Some(_) | None => Err(MalformedRequest::new("of the Events API, only url_verification is understood")),
    }
}

#[derive(Deserialize)]
struct Interaction {
    r#type: String,
    user: SlackUser,
    team: Option<SlackTeam>,
    /// The organization: the only tenant of a payload without a workspace.
    enterprise: Option<SlackTeam>,
    api_app_id: String,
    actions: Option<Vec<BlockAction>>,
    container: Option<MessageContainer>,
    response_url: Option<String>,
    trigger_id: Option<String>,
    view: Option<ModalView>,
}

/// The message that the button is on.
///
/// Source: <https://docs.slack.dev/reference/interaction-payloads/block_actions-payload>
#[derive(Deserialize)]
struct MessageContainer {
    channel_id: Option<String>,
    message_ts: Option<String>,
    #[serde(default)]
    is_ephemeral: bool,
}

impl MessageContainer {
    /// The reference that posting the message returned. `None` for a message to one person.
    fn message_ref(self) -> Option<String> {
        let (channel, message_id) = self.channel_id.zip(self.message_ts).filter(|_| !self.is_ephemeral)?;
        Some(MessageRef { channel, message_id }.to_string())
    }
}

#[derive(Deserialize)]
struct SlackUser {
    id: String,
    team_id: Option<String>,
}

#[derive(Deserialize)]
struct SlackTeam {
    id: String,
    domain: Option<String>,
}

#[derive(Deserialize)]
struct BlockAction {
    action_id: String,
    value: Option<String>,
}

#[derive(Deserialize)]
struct ModalView {
    callback_id: String,
    private_metadata: String,
    state: ModalState,
}

#[derive(Deserialize)]
struct ModalState {
    values: BTreeMap<String, BTreeMap<String, InputValue>>,
}

#[derive(Deserialize)]
struct InputValue {
    value: Option<String>,
}

fn parse_interaction(
    payload: &str,
    origin: RequestOrigin,
    config: &Config,
) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let payload: Interaction = MalformedRequest::parse_json(payload.as_bytes())?;
    let workspace = payload.team.as_ref().and_then(|team| team.domain.clone()).filter(|name| is_workspace_name(name));
    let of_whom = payload.team.or(payload.enterprise).map(|team| team.id);
    let team = payload.user.team_id.filter(|team| !team.is_empty()).or(of_whom).unwrap_or_default();
    let Some(by) = allowed_principal(&team, &payload.user.id, &payload.api_app_id, config)? else {
        let url = payload.response_url.as_deref().and_then(|url| allowed_response_url(url, config));
        let to = match payload.r#type.as_str() {
            "block_actions" => url.map(|response_url| ReplyTo::Click { response_url, trigger_id: None, workspace }),
            "view_submission" => Some(ReplyTo::Modal),
            _ => None,
        };
        let reply_to = to.filter(|_| payload.api_app_id == config.app);
        return Ok(Incoming::WrongTenant(foreign_request(reply_to, &team, &payload.api_app_id, config)));
    };
    match (payload.r#type.as_str(), payload.view) {
        ("block_actions", _) => {
            let binding = button_binding(payload.actions.unwrap_or_default())?;
            let response_url = payload.response_url.as_deref().and_then(|url| allowed_response_url(url, config));
            let response_url =
                response_url.ok_or_else(|| MalformedRequest::new("response_url is missing or not Slack's"))?;
            let message_ref = payload.container.and_then(MessageContainer::message_ref);
            // Without a `trigger_id`, the person cannot be asked for a reason.
            let was_asked = payload.trigger_id.is_none();
            let click = Click { by, origin, binding, message_ref, was_asked, reason: None };
            let reply_to = ReplyTo::Click { response_url, trigger_id: payload.trigger_id, workspace };
            Ok(Incoming::Click { click, reply_to })
        }
        ("view_submission", Some(view)) => {
            Ok(Incoming::Click { click: parse_submission(origin, by, view)?, reply_to: ReplyTo::Modal })
        }
        _ => Err(MalformedRequest::new("of the interactions, only block_actions and view_submission are understood")),
    }
}

/// What the button carried. Its binding says what the button does, not its `action_id`.
fn button_binding(actions: Vec<BlockAction>) -> Result<String, MalformedRequest> {
    let [action] =
        <[BlockAction; 1]>::try_from(actions).map_err(|_| MalformedRequest::new("expected exactly one action"))?;
    if !ACTION_IDS.contains(&action.action_id.as_str()) {
        return Err(MalformedRequest::new("unknown action_id"));
    }
    action.value.ok_or_else(|| MalformedRequest::new("the button has no value"))
}

/// What a modal carries: the binding of the button, and the message that the button is on.
pub(super) fn modal_metadata(click: &Click) -> String {
    format!("{} {}", click.binding, click.message_ref.as_deref().unwrap_or_default())
}

/// The click that opened the modal, with the reason.
///
/// Source: <https://docs.slack.dev/reference/interaction-payloads/view-interactions-payload>
fn parse_submission(origin: RequestOrigin, by: Principal, mut view: ModalView) -> Result<Click, MalformedRequest> {
    if ![APPROVE_WITH_REASON, REJECT].contains(&view.callback_id.as_str()) {
        return Err(MalformedRequest::new("unknown callback_id"));
    }
    let field = view.state.values.remove(REASON_FIELD).and_then(|mut block| block.remove(REASON_FIELD));
    let reason = field.and_then(|field| field.value).as_deref().and_then(normalize_reason);
    let (binding, message) = view.private_metadata.split_once(' ').unwrap_or((&view.private_metadata, ""));
    let message_ref = Some(message.to_owned()).filter(|message| !message.is_empty());
    Ok(Click { by, origin, binding: binding.to_owned(), message_ref, was_asked: true, reason })
}

/// Source: <https://docs.slack.dev/interactivity/implementing-slash-commands>
fn parse_slash_command(
    fields: &FormFields,
    origin: RequestOrigin,
    config: &Config,
) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let app = fields.require("api_app_id")?;
    let team = [fields.get("team_id")?, fields.get("enterprise_id")?].into_iter().flatten().find(|id| !id.is_empty());
    let team = team.ok_or_else(|| MalformedRequest::new("the form has no field team_id"))?;
    let by = allowed_principal(team, fields.require("user_id")?, app, config)?;
    fields.require("command")?;
    let Some(by) = by else {
        let reply_to = Some(ReplyTo::Command).filter(|_| app == config.app);
        return Ok(Incoming::WrongTenant(foreign_request(reply_to, team, app, config)));
    };
    let text = unescape_text(fields.get("text")?.unwrap_or_default());
    Ok(match parse_command(&text) {
        Ok(command) => {
            let request = CommandRequest { command, by, origin, clicked_card: None };
            Incoming::Command { request, reply_to: ReplyTo::Command }
        }
        Err(error) => Incoming::UnknownCommand { error, reply_to: ReplyTo::Command },
    })
}

/// The person. `None` unless their workspace is configured and the request is for our app. Names are ignored, because
/// people can change their own. Slack does not always send the same workspace for a user, so a configured organization
/// takes precedence.
///
/// Source: <https://docs.slack.dev/enterprise>
fn allowed_principal(
    team: &str,
    user: &str,
    app: &str,
    config: &Config,
) -> Result<Option<Principal>, MalformedRequest> {
    let Some(tenant) = config.tenant_of(team).filter(|_| app == config.app) else { return Ok(None) };
    let principal = Principal::new(REALM, tenant, user);
    principal.map(Some).map_err(|_| MalformedRequest::new("the user's id is not one of Slack's"))
}

/// A request of another workspace or app, with what the log says about it.
fn foreign_request(reply_to: Option<ReplyTo>, team: &str, app: &str, config: &Config) -> ForeignRequest<ReplyTo> {
    let teams = config.enterprise.iter().chain(&config.teams).map(String::as_str);
    ForeignRequest { reply_to, mismatch: TenantMismatch::new([team, app], teams, &config.app) }
}

/// The `action_id` of a button.
pub(super) fn action_id(button: Button) -> &'static str {
    match button {
        Button::Approve { needs_reason: false } => APPROVE,
        Button::Approve { needs_reason: true } => APPROVE_WITH_REASON,
        Button::Reject => REJECT,
        Button::Withdraw => WITHDRAW,
        Button::Acknowledge => ACKNOWLEDGE,
        Button::Details => DETAILS,
    }
}

/// The `response_url`, if its origin is one of Slack's. No sender may choose what URL we call.
fn allowed_response_url(text: &str, config: &Config) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let allowed = |origin: &Url| origin.origin() == url.origin();
    let plain = url.username().is_empty() && url.password().is_none();
    (plain && is_secure(&url) && config.response_origins.iter().any(allowed)).then_some(url)
}

/// Signs a slash command as Slack would.
///
/// # Errors
/// What is missing in the configuration or the secrets.
#[cfg(feature = "local")]
pub fn sign(
    config: &Config,
    secrets: &super::Secrets,
    spec: &EventSpec,
    now: Timestamp,
) -> Result<SignedRequest, String> {
    let team = spec.tenant.as_ref().or(config.teams.first()).ok_or("platforms.slack.teams is empty")?;
    let text = escape_text(&command_text(spec));
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("command", "/peergate"),
            ("text", &text),
            ("team_id", team),
            ("user_id", &spec.actor),
            ("api_app_id", &config.app),
            ("trigger_id", &clock::nonce()),
        ])
        .finish();
    sign_form(secrets, body, now)
}

/// Signs an interaction as Slack would: a click, or a reason.
///
/// # Errors
/// When there is no signing secret.
#[cfg(feature = "local")]
pub fn sign_interaction(secrets: &super::Secrets, payload: &Value, now: Timestamp) -> Result<SignedRequest, String> {
    let payload = payload.to_string();
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload).finish();
    sign_form(secrets, body, now)
}

/// Signs any form as Slack would.
///
/// # Errors
/// When there is no signing secret.
#[cfg(feature = "local")]
pub fn sign_form(secrets: &super::Secrets, body: String, now: Timestamp) -> Result<SignedRequest, String> {
    let secret = secrets.signing_secrets.first().ok_or("platforms.slack.signing_secrets is empty")?;
    let timestamp = now.as_second().to_string();
    let signature = sign_body(secret, &timestamp, body.as_bytes());
    Ok(SignedRequest {
        path: format!("/{REALM}"),
        headers: vec![
            ("content-type", "application/x-www-form-urlencoded".into()),
            (TIMESTAMP_HEADER, timestamp),
            (SIGNATURE_HEADER, signature),
        ],
        body,
    })
}

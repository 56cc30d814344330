//! Slack: button clicks and the slash command in, Block Kit messages out.

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::message::Message;
use super::{Authentic, Command, Malformed, Reference, Request, Unauthentic, Undelivered, Verb};
use crate::approval::{Principal, Redelivery, Verdict};
use crate::config::Slack;
use crate::peering::{Fingerprint, InstanceId};
use crate::secrets::{Secret, SecretUrl, SlackSigningSecret};
use crate::{config, http as our_http};

const TIMESTAMP: &str = "x-slack-request-timestamp";
const SIGNATURE: &str = "x-slack-signature";
/// The platform, in principals.
const PLATFORM: &str = "slack";
/// Buttons, by `action_id`.
const APPROVE: &str = "peergate.approve";
const REJECT: &str = "peergate.reject";
/// What is left of Slack's 3 s for telling the person who clicked.
const RESPOND_TIMEOUT: Duration = Duration::from_millis(600);

/// Verifies a request with every signing secret.
///
/// Source: <https://docs.slack.dev/authentication/verifying-requests-from-slack>
pub fn verify(
    headers: &HeaderMap,
    body: Bytes,
    secrets: &[SlackSigningSecret],
    now: Timestamp,
) -> Result<Authentic, Unauthentic> {
    let timestamp = super::only_header(headers, TIMESTAMP)?;
    let signature = super::only_header(headers, SIGNATURE)?;
    super::check_timestamp(timestamp, TIMESTAMP, now)?;
    let digits = signature.strip_prefix("v0=").ok_or(Unauthentic::Malformed(SIGNATURE))?;
    if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Unauthentic::Malformed(SIGNATURE));
    }
    let signature = hex::decode(digits).map_err(|_| Unauthentic::Malformed(SIGNATURE))?;
    let mut matched = None;
    for (position, secret) in secrets.iter().enumerate() {
        // Compares in constant time, and goes on after a match.
        if mac(secret, timestamp, &body).verify_slice(&signature).is_ok() {
            matched = Some(position);
        }
    }
    let key = matched.ok_or(Unauthentic::Mismatch)?;
    // A signature is as good as a key until it is stale: only its hash is kept.
    Ok(Authentic { body, request_key: format!("slack:{:.32}", hex::encode(Sha256::digest(&signature))), key })
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac(secret: &SlackSigningSecret, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.expose()).expect("any length of key");
    for part in [b"v0:", timestamp.as_bytes(), b":", body] {
        mac.update(part);
    }
    mac
}

/// The header `x-slack-signature`, as Slack makes it.
#[must_use]
pub fn sign(secret: &SlackSigningSecret, timestamp: &str, body: &[u8]) -> String {
    format!("v0={}", hex::encode(mac(secret, timestamp, body).finalize().into_bytes()))
}

/// What Slack sends.
#[derive(Debug)]
pub enum Incoming {
    /// Somebody clicked a button: the answer goes to `response_url`.
    Click {
        /// What they want.
        request: Request,
        /// Where the answer goes.
        response_url: Url,
    },
    /// Somebody used the slash command: the answer is the reply.
    Slash(Request),
    /// They did, but with words that we don't understand.
    Usage,
    /// Slack tests the address: it is echoed.
    Challenge(String),
}

/// Why something authentic is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Another workspace or another app.
    #[error("another Slack workspace or app than those of the configuration")]
    WrongTenant,
    /// Not what we understand.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Understands a request; `form` says that it is a form, and not the JSON of the Events API.
pub fn parse(authentic: Authentic, form: bool, config: &Slack) -> Result<Incoming, Rejection> {
    let Authentic { body, request_key, key } = authentic;
    if !form {
        return challenge(&body);
    }
    let fields = Fields::parse(&body)?;
    match fields.get("payload") {
        Some(payload) => click(payload, request_key, key, config),
        None => slash(&fields, request_key, key, config),
    }
}

fn malformed(problem: impl Into<String>) -> Rejection {
    Rejection::Malformed(Malformed(problem.into()))
}

/// Source: <https://docs.slack.dev/reference/events/url_verification>
fn challenge(body: &[u8]) -> Result<Incoming, Rejection> {
    #[derive(Deserialize)]
    struct Event {
        r#type: String,
        challenge: Option<String>,
    }
    let event: Event = serde_json::from_slice(body).map_err(|error| Malformed::json(&error))?;
    match event.challenge {
        Some(challenge) if event.r#type == "url_verification" => Ok(Incoming::Challenge(challenge)),
        Some(_) | None => Err(malformed("of the Events API, only url_verification is understood")),
    }
}

/// The fields of a form. No field may be there twice, and every byte must be UTF-8.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(body: &[u8]) -> Result<Self, Rejection> {
        let mut fields: Vec<(String, String)> = vec![];
        for (name, value) in form_urlencoded::parse(body) {
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

    fn require(&self, name: &str) -> Result<&str, Rejection> {
        self.get(name).ok_or_else(|| malformed(format!("the form has no field {name}")))
    }
}

/// Source: <https://docs.slack.dev/reference/interaction-payloads/block_actions-payload>
fn click(payload: &str, request_key: String, key: usize, config: &Slack) -> Result<Incoming, Rejection> {
    #[derive(Deserialize)]
    struct Payload {
        r#type: String,
        user: User,
        team: Option<Team>,
        api_app_id: String,
        actions: Option<Vec<Action>>,
        response_url: Option<String>,
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
    let payload: Payload = serde_json::from_str(payload).map_err(|error| Malformed::json(&error))?;
    let team = payload.user.team_id.or(payload.team.map(|team| team.id)).unwrap_or_default();
    let by = principal(&team, &payload.user.id, &payload.api_app_id, config)?;
    if payload.r#type != "block_actions" {
        return Err(malformed("of the interactions, only block_actions is understood"));
    }
    let actions = payload.actions.unwrap_or_default();
    let [action] = actions.as_slice() else {
        return Err(malformed("expected exactly one action"));
    };
    let verdict = match action.action_id.as_str() {
        APPROVE => Verdict::Approve,
        REJECT => Verdict::Reject,
        _ => return Err(malformed("unknown action_id")),
    };
    let (target, instance_id, fingerprint) = action
        .value
        .as_deref()
        .and_then(read_button_value)
        .ok_or_else(|| malformed("the button's value is not one of ours"))?;
    let response_url = payload.response_url.as_deref().and_then(|url| allowed_response_url(url, config));
    let response_url = response_url.ok_or_else(|| malformed("response_url is missing or not Slack's"))?;
    let command = Command {
        verb: Verb::Decide(verdict),
        target: Some(target),
        instance_id,
        fingerprint: Some(fingerprint),
        reason: None,
    };
    Ok(Incoming::Click { request: Request { command, by, request_key, key }, response_url })
}

/// Source: <https://docs.slack.dev/interactivity/implementing-slash-commands>
fn slash(fields: &Fields, request_key: String, key: usize, config: &Slack) -> Result<Incoming, Rejection> {
    let app = fields.require("api_app_id")?;
    let by = principal(fields.require("team_id")?, fields.require("user_id")?, app, config)?;
    fields.require("command")?;
    let Some(command) = read_slash_text(fields.get("text").unwrap_or_default()) else {
        return Ok(Incoming::Usage);
    };
    Ok(Incoming::Slash(Request { command, by, request_key, key }))
}

/// The person, if they are of an allowed workspace and the call is for our app. Names are never looked at: people can
/// change theirs.
fn principal(team: &str, user: &str, app: &str, config: &Slack) -> Result<Principal, Rejection> {
    if !config.teams.contains(team) || app != config.app {
        return Err(Rejection::WrongTenant);
    }
    Principal::new(PLATFORM, team, user).map_err(|_| malformed("the user's id is not one of Slack's"))
}

/// `approve|reject|status|dry-run pcc-… [on TARGET] [because REASON]`.
fn read_slash_text(text: &str) -> Option<Command> {
    let (words, why) = match text.split_once(" because ") {
        Some((words, why)) => (words, super::reason(why)),
        None => (text, None),
    };
    let words: Vec<&str> = words.split_whitespace().collect();
    let (verb, instance_id, target) = match words.as_slice() {
        [verb, id] => (verb, id, None),
        [verb, id, "on", target] => (verb, id, Some((*target).to_owned())),
        _ => return None,
    };
    let verb = match *verb {
        "approve" => Verb::Decide(Verdict::Approve),
        "reject" => Verb::Decide(Verdict::Reject),
        "dry-run" => Verb::DryRun,
        "status" => Verb::Status,
        _ => return None,
    };
    let instance_id = InstanceId::parse(instance_id).ok()?;
    Some(Command { verb, target, instance_id, fingerprint: None, reason: why })
}

/// What a button carries: which connection, and the fingerprint of what was shown beside it.
fn button_value(target: &str, instance_id: &InstanceId, fingerprint: &Fingerprint) -> String {
    format!("{target}/{instance_id}#{fingerprint}")
}

fn read_button_value(value: &str) -> Option<(String, InstanceId, Fingerprint)> {
    let (id, fingerprint) = value.split_once('#')?;
    let (target, instance_id) = id.split_once('/')?;
    let fingerprint = Fingerprint::try_from(fingerprint.to_owned()).ok()?;
    Some((target.to_owned(), InstanceId::parse(instance_id).ok()?, fingerprint))
}

/// A `response_url`, if it points where Slack's point: what we are told to call must not be just anything.
fn allowed_response_url(text: &str, config: &Slack) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let allowed = |origin: &Url| origin.origin() == url.origin();
    let plain = url.username().is_empty() && url.password().is_none();
    (plain && config::is_secure(&url) && config.response_origins.iter().any(allowed)).then_some(url)
}

/// A message in Block Kit. What outsiders wrote goes into `rich_text`, whose text elements are literal: they mention,
/// link and format nothing.
///
/// Source: <https://docs.slack.dev/reference/block-kit/blocks/rich-text-block>
#[must_use]
pub fn render(message: &Message) -> Value {
    let text = |text: String| json!({"type": "text", "text": text});
    let bold = |text: String| json!({"type": "text", "text": text, "style": {"bold": true}});
    let mut elements = vec![bold(message.headline.clone())];
    for (label, value) in &message.facts {
        elements.push(bold(format!("\n{label}: ")));
        elements.push(text(value.clone()));
    }
    elements.extend(message.sentences.iter().map(|sentence| text(format!("\n{sentence}"))));
    let mut blocks = vec![json!({
        "type": "rich_text",
        "elements": [{"type": "rich_text_section", "elements": elements}],
    })];
    if let Some(buttons) = &message.buttons {
        let value = button_value(&buttons.target, &buttons.instance_id, &buttons.fingerprint);
        let button = |label: &str, action_id: &str, style: &str| {
            let label = json!({"type": "plain_text", "text": label});
            json!({"type": "button", "text": label, "action_id": action_id, "style": style, "value": value})
        };
        let both = [button("Approve", APPROVE, "primary"), button("Reject", REJECT, "danger")];
        blocks.push(json!({"type": "actions", "elements": both}));
    }
    // The text of notifications is parsed for mentions and links.
    let headline = message.headline.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({"text": headline, "blocks": blocks, "unfurl_links": false, "unfurl_media": false})
}

/// The reply to a slash command, for the person alone.
#[must_use]
pub fn ephemeral(message: &Message) -> Value {
    let mut reply = render(message);
    if let Some(fields) = reply.as_object_mut() {
        fields.insert("response_type".into(), "ephemeral".into());
        fields.insert("replace_original".into(), false.into());
    }
    reply
}

/// Answers a click, to the person alone.
pub async fn respond(http: &reqwest::Client, url: Url, message: &Message) -> Result<(), Undelivered> {
    webhook_answer(json_post(http, url, &ephemeral(message)).timeout(RESPOND_TIMEOUT)).await
}

/// Posts to an incoming webhook.
///
/// Source: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>
pub async fn deliver_webhook(
    http: &reqwest::Client,
    url: &SecretUrl,
    message: &Message,
) -> Result<Reference, Undelivered> {
    let request = json_post(http, url.expose().clone(), &render(message)).timeout(super::POST_TIMEOUT);
    webhook_answer(request).await.map(|()| None)
}

/// Posts with `chat.postMessage`. Nearly every failure is an HTTP 200 with `"ok": false`.
///
/// Source: <https://docs.slack.dev/reference/methods/chat.postMessage>
pub async fn deliver(
    http: &reqwest::Client,
    api: &Url,
    token: &Secret,
    channel: &str,
    message: &Message,
) -> Result<Reference, Undelivered> {
    #[derive(Deserialize)]
    struct Posted {
        ok: bool,
        error: Option<String>,
        channel: Option<String>,
        ts: Option<String>,
    }
    let mut body = render(message);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("channel".into(), channel.into());
    }
    let url = api.join("chat.postMessage").map_err(|_| refused("invalid slack.api"))?;
    let request = json_post(http, url, &body).timeout(super::POST_TIMEOUT).bearer_auth(token.expose());
    let response = request.send().await.map_err(|error| Undelivered::transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = our_http::read(response).await.map_err(|error| Undelivered::transport(&error))?;
    if !status.is_success() {
        return Err(Undelivered::status(status, &headers));
    }
    let soon = Redelivery::Soon(super::retry_after(&headers));
    let posted: Posted =
        serde_json::from_slice(&body).map_err(|_| Undelivered { error: "unreadable answer".into(), retry: soon })?;
    if posted.ok {
        return Ok(posted.channel.zip(posted.ts).map(|(channel, ts)| format!("{channel}/{ts}")));
    }
    let error = posted.error.unwrap_or_else(|| "no error code".into());
    let retry = match error.as_str() {
        "ratelimited" | "rate_limited" | "internal_error" | "fatal_error" | "service_unavailable" => soon,
        _ => Redelivery::Later,
    };
    Err(Undelivered { error, retry })
}

fn refused(error: &str) -> Undelivered {
    Undelivered { error: error.to_owned(), retry: Redelivery::Later }
}

fn json_post(http: &reqwest::Client, url: Url, body: &Value) -> reqwest::RequestBuilder {
    http.post(url).header("content-type", "application/json; charset=utf-8").body(body.to_string())
}

async fn webhook_answer(request: reqwest::RequestBuilder) -> Result<(), Undelivered> {
    let response = request.send().await.map_err(|error| Undelivered::transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = our_http::read(response).await.map_err(|error| Undelivered::transport(&error))?;
    if status.is_success() {
        return if body == "ok" { Ok(()) } else { Err(refused("the answer is not `ok`")) };
    }
    let undelivered = Undelivered::status(status, &headers);
    // Here, 410 is an archived channel, which people can bring back.
    let gone = undelivered.retry == Redelivery::Never;
    Err(if gone { Undelivered { retry: Redelivery::Later, ..undelivered } } else { undelivered })
}

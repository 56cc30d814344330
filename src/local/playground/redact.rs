//! Exchanges as the page shows them: without what proves who somebody is.

use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::fake::traffic::Exchange;

/// What stands in place of something secret.
const REDACTED: &str = "‹redacted›";
/// Headers whose values are secret, or prove who somebody is.
const SECRET_HEADERS: [&str; 10] = [
    "authorization",
    "x-slack-signature",
    "x-lark-signature",
    "x-ddpaas-signature",
    "x-acs-dingtalk-access-token",
    "webhook-signature",
    "x-acs-security-token",
    "cookie",
    "set-cookie",
    "x-api-key",
];
/// Members of bodies whose values are secret, or prove who somebody is.
const SECRET_MEMBERS: [&str; 20] = [
    "token",
    "tenant_access_token",
    "app_secret",
    "accessToken",
    "appSecret",
    "apiSecret",
    "callbackUrl",
    "sessionWebhook",
    "access_token",
    "client_secret",
    "client_assertion",
    "response_url",
    "trigger_id",
    "encrypt",
    "sign",
    "Signature",
    "AccessKeyId",
    "SecurityToken",
    "AccessKeySecret",
    "OIDCToken",
];
/// Headers that every HTTP client adds.
const PLAIN_HEADERS: [&str; 6] = ["host", "content-length", "accept", "accept-encoding", "connection", "user-agent"];
/// The most characters of a body that the page gets.
const MAX_BODY_CHARS: usize = 40_000;

/// An exchange without secrets.
pub(super) struct RedactedExchange<'a> {
    exchange: &'a Exchange,
}

/// Which part of the way an exchange lights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    place: &'static str,
    by: &'static str,
}

impl<'a> RedactedExchange<'a> {
    pub(super) fn of(exchange: &'a Exchange) -> Self {
        Self { exchange }
    }

    pub(super) fn to_json(&self, number: u64, repeats: u32) -> Value {
        let exchange = self.exchange;
        let Route { place, by } = self.route();
        let headers = exchange.headers.iter().filter(|(name, _)| !PLAIN_HEADERS.contains(&name.as_str()));
        let headers: Vec<_> = headers
            .map(|(name, value)| {
                let is_secret = SECRET_HEADERS.contains(&name.as_str());
                let text = if is_secret { REDACTED } else { value.to_str().unwrap_or_default() };
                json!([name.as_str(), text])
            })
            .collect();
        json!({
            "number": number, "repeats": repeats, "step": exchange.step, "at": exchange.at, "server": exchange.server,
            "place": place, "by": by, "incoming": exchange.server == "webhook", "name": self.name(), "note": self.note(),
            "method": exchange.method, "path": self.path(), "headers": headers,
            "body": redact_text(&exchange.body), "status": exchange.status, "answer": redact_text(&exchange.answer),
            "ms": u64::try_from(exchange.took.as_millis()).unwrap_or(u64::MAX),
            "event": exchange.server == "webhook",
        })
    }

    /// Private answers go to people, other posts to a channel.
    fn route(&self) -> Route {
        let agent = header(&self.exchange.headers, "user-agent");
        let by = match agent {
            agent if agent.ends_with("(webhook)") => "webhook",
            agent if agent.ends_with("(watcher)") => "watcher",
            _ => "requester",
        };
        let path = self.exchange.path.as_str();
        let is_private = path.starts_with("/actions/")
            || path.starts_with("/api/views.open")
            || path.contains("open_id")
            || self.is_one_to_one();
        let place = match self.exchange.server {
            "alicloud" => "alicloud",
            "webhook" => "webhook",
            _ if is_private => "people",
            _ => "channel",
        };
        Route { place, by: if place == "webhook" { "people" } else { by } }
    }

    fn path(&self) -> String {
        redact_path_and_query(&self.exchange.path)
    }

    /// Whether DingTalk or Teams shows it to one person.
    fn is_one_to_one(&self) -> bool {
        let path = self.exchange.path.as_str();
        let text = || String::from_utf8_lossy(&self.exchange.body);
        match self.exchange.server {
            "dingtalk" => path.contains("/oToMessages/") || text().contains("//IM_ROBOT."),
            "teams" => {
                path.contains("/conversations/a:") || path.contains("/conversations/a%3A") || {
                    path.ends_with("/conversations") && text().contains("\"members\"")
                }
            }
            _ => false,
        }
    }

    fn name(&self) -> String {
        let action = header(&self.exchange.headers, "x-acs-action");
        let (path, method) = (self.path(), &self.exchange.method);
        let path = path.as_str();
        if !action.is_empty() {
            action.to_owned()
        } else if let Some(method) = path.strip_prefix("/api/") {
            method.to_owned()
        } else if path == REDACTED {
            format!("{method} response_url")
        } else {
            let path = path.split('?').next().unwrap_or_default();
            let known =
                ["/open-apis/im/v1", "/v1.0", "/teams/v3"].into_iter().find_map(|start| path.strip_prefix(start));
            format!("{method} {}", known.unwrap_or(path))
        }
    }

    /// A word that tells exchanges of the same name apart.
    fn note(&self) -> String {
        let form = form_of(&self.exchange.body);
        let member = |name: &str| form.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        match self.name().as_str() {
            "AcceptVpcPeerConnection" if member("DryRun") == "true" => "dry run".to_owned(),
            "ListVpcPeerConnections" if !member("VpcId").is_empty() => format!("of {}", member("VpcId")),
            "ListVpcPeerConnections" => member("RegionId"),
            _ => String::new(),
        }
    }
}

/// A path without what proves who somebody is: the end of DingTalk's path of the webhook, and the signatures of robots and
/// workflows.
fn redact_path_and_query(path: &str) -> String {
    if path.starts_with("/actions/") {
        return REDACTED.to_owned();
    }
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let path = match path.strip_prefix("/dingtalk/") {
        Some(_) => format!("/dingtalk/{REDACTED}"),
        None => path.to_owned(),
    };
    let Some(query) = query else { return path };
    let is_secret = |name: &str| ["access_token", "sign", "sig", "session"].contains(&name);
    let parts = query.split('&').map(|part| match part.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={REDACTED}"),
        _ => part.to_owned(),
    });
    format!("{path}?{}", parts.collect::<Vec<_>>().join("&"))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The members of a form; empty if the body is none.
fn form_of(body: &[u8]) -> Map<String, Value> {
    if body.first().is_some_and(|first| b"{[".contains(first)) {
        return Map::new();
    }
    form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect()
}

/// A body without secrets: JSON stays JSON, and a form becomes JSON, so that it can be read.
fn redact_text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut value = match serde_json::from_slice::<Value>(body) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
        _ if text.contains('=') && !text.contains([' ', '\n']) => Value::Object(form_of(body)),
        _ => return text.chars().take(MAX_BODY_CHARS).collect(),
    };
    redact_value(&mut value);
    value.to_string().chars().take(MAX_BODY_CHARS).collect()
}

fn redact_value(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if SECRET_MEMBERS.contains(&name.as_str()) {
                    *member = REDACTED.into();
                } else if let Some(inner) =
                    inner_json(member).filter(|_| ["payload", "content", "msgParam"].contains(&name.as_str()))
                {
                    *member = inner;
                }
                redact_value(member);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact_value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// JSON inside a text, as forms of Slack and messages of Feishu have it.
fn inner_json(member: &Value) -> Option<Value> {
    serde_json::from_str(member.as_str()?).ok().filter(Value::is_object)
}

/// Whether a list of a region shows what another list of the same step showed.
pub(super) fn is_same_listing(one: &Exchange, other: &Exchange) -> bool {
    let is_reading = |it: &Exchange| {
        ["ListVpcPeerConnections", "GetVpcPeerConnectionAttribute"].contains(&header(&it.headers, "x-acs-action"))
    };
    let shown = |it: &Exchange| {
        let mut answer: Value = serde_json::from_slice(&it.answer).unwrap_or_default();
        if let Some(members) = answer.as_object_mut() {
            members.remove("RequestId");
        }
        answer
    };
    is_reading(one)
        && is_reading(other)
        && header(&one.headers, "x-acs-action") == header(&other.headers, "x-acs-action")
        && header(&one.headers, "user-agent") == header(&other.headers, "user-agent")
        && (one.step, &one.body, one.status) == (other.step, &other.body, other.status)
        && shown(one) == shown(other)
}

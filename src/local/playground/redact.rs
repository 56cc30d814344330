//! Exchanges as the page shows them: without what proves who somebody is.

use std::fmt;

use axum::http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use url::Url;

use crate::fake::traffic::Exchange;
use crate::redaction::redact_path;

/// What stands in place of something secret.
const REDACTED: &str = "‹redacted›";
/// Headers whose values are secret, or prove who somebody is.
const SECRET_HEADERS: [&str; 13] = [
    "authorization",
    "proxy-authorization",
    "x-amz-security-token",
    "x-playground-token",
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
/// Members of bodies whose values are secret, or prove who somebody is, in lower case.
const SECRET_MEMBERS: [&str; 20] = [
    "token",
    "tenant_access_token",
    "app_secret",
    "accesstoken",
    "appsecret",
    "apisecret",
    "callbackurl",
    "sessionwebhook",
    "access_token",
    "client_secret",
    "client_assertion",
    "response_url",
    "trigger_id",
    "encrypt",
    "sign",
    "signature",
    "accesskeyid",
    "securitytoken",
    "accesskeysecret",
    "oidctoken",
];
/// Parameters of queries with such values, in lower case.
const SECRET_PARAMETERS: [&str; 7] = ["access_token", "token", "sign", "sig", "signature", "session", "secret"];
/// The beginnings of paths whose rest is a secret: Slack's answers and incoming webhooks, and Feishu's custom bots.
const SECRET_PATHS: [&[&str]; 3] = [&["actions"], &["hooks"], &["open-apis", "bot", "v2", "hook"]];
/// Bodies of the fakes that are neither JSON nor a form.
const PLAIN_TEXTS: [&str; 2] = ["", "ok"];
/// How deep JSON inside a text is read. Deeper texts are not shown.
const MAX_TEXT_DEPTH: u8 = 4;
/// Shorter texts of the secrets are words that stand elsewhere, too.
const MIN_SECRET_BYTES: usize = 8;
/// Headers that every HTTP client adds.
const PLAIN_HEADERS: [&str; 6] = ["host", "content-length", "accept", "accept-encoding", "connection", "user-agent"];
/// The most characters of a body that the page gets.
const MAX_BODY_CHARS: usize = 40_000;

/// The secrets of a sandbox. They are removed wherever they stand, in case that nothing else has removed them.
#[derive(Default)]
pub(super) struct KnownSecrets {
    /// As they stand in JSON.
    texts: Vec<String>,
}

impl fmt::Debug for KnownSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KnownSecrets({})", self.texts.len())
    }
}

impl KnownSecrets {
    /// All texts of the secrets file, and some more.
    pub(super) fn of(secrets: &Value, more: &[&str]) -> Self {
        let mut found: Vec<String> = more.iter().map(|text| (*text).to_owned()).collect();
        collect_texts(secrets, &mut found);
        let encoded = |text: &String| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let mut texts: Vec<_> = found.iter().flat_map(|text| [text.clone(), encoded(text)]).collect();
        texts.retain(|text| text.len() >= MIN_SECRET_BYTES);
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Self { texts: texts.iter().map(|text| json!(text).to_string().trim_matches('"').to_owned()).collect() }
    }

    /// A text of JSON without them.
    pub(super) fn remove_from(&self, json: String) -> String {
        self.texts.iter().fold(json, |json, secret| json.replace(secret, REDACTED))
    }
}

/// The texts of a document, and of each URL also the values of its query.
fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.values().for_each(|member| collect_texts(member, texts)),
        Value::Array(values) => values.iter().for_each(|value| collect_texts(value, texts)),
        Value::String(text) => {
            texts.push(text.clone());
            let url = Url::parse(text).ok();
            texts.extend(url.iter().flat_map(Url::query_pairs).map(|(_, value)| value.into_owned()));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

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
            "body": redact_body(&exchange.body, is_form(&exchange.headers)), "status": exchange.status,
            "answer": redact_body(&exchange.answer, false),
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
        let path = self.exchange.path.as_str();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        if self.exchange.server == "webhook" {
            // As in the logs. No request to the webhook has a query that people must see.
            let path = redact_path(path).replace('…', REDACTED);
            return if query.is_some() { format!("{path}?{REDACTED}") } else { path };
        }
        let path = redact_fake_path(path);
        match query.filter(|_| path != REDACTED) {
            None => path,
            Some(query) => format!("{path}?{}", redact_query(query)),
        }
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

/// A path of a fake without a secret. Slack's answers have nothing else.
fn redact_fake_path(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy().to_ascii_lowercase();
    let segments: Vec<_> = decoded.split('/').filter(|segment| !segment.is_empty()).collect();
    match SECRET_PATHS.iter().find(|start| segments.starts_with(start)) {
        None => path.to_owned(),
        Some(["actions"]) => REDACTED.to_owned(),
        Some(start) => format!("/{}/{REDACTED}", start.join("/")),
    }
}

fn redact_query(query: &str) -> String {
    let redact = |part: &str| {
        let name = part.split('=').next().unwrap_or_default();
        let decoded = percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
        if SECRET_PARAMETERS.contains(&decoded.as_str()) { format!("{name}={REDACTED}") } else { part.to_owned() }
    };
    query.split('&').map(redact).collect::<Vec<_>>().join("&")
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

fn is_form(headers: &HeaderMap) -> bool {
    header(headers, "content-type").to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
}

/// A body without secrets: JSON stays JSON, and a form becomes JSON, so that it can be read. Nobody knows where the secrets
/// of any other text are.
fn redact_body(body: &[u8], is_form: bool) -> String {
    let mut value = match serde_json::from_slice::<Value>(body) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
        Ok(_) | Err(_) if is_form => Value::Object(form_of(body)),
        Ok(_) | Err(_) => {
            let known = PLAIN_TEXTS.into_iter().find(|text| text.as_bytes() == body);
            return known.unwrap_or(REDACTED).to_owned();
        }
    };
    redact_value(&mut value, 0);
    value.to_string().chars().take(MAX_BODY_CHARS).collect()
}

/// `depth` counts the texts around the value.
fn redact_value(value: &mut Value, depth: u8) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if SECRET_MEMBERS.contains(&name.to_ascii_lowercase().as_str()) {
                    *member = REDACTED.into();
                }
                redact_value(member, depth);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| redact_value(value, depth)),
        Value::String(text) => {
            let Some(mut inner) = inner_json(text) else { return };
            if depth == MAX_TEXT_DEPTH {
                inner = REDACTED.into();
            }
            redact_value(&mut inner, depth.saturating_add(1));
            *value = inner;
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// JSON inside a text, as forms of Slack and messages of Feishu have it.
fn inner_json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(|inner: &Value| inner.is_object() || inner.is_array())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Bytes;

    use super::*;
    use crate::clock;

    fn shown(server: &'static str, path: &str, headers: &[(&'static str, &'static str)], body: &[u8]) -> Value {
        let exchange = Exchange {
            server,
            step: 1,
            at: clock::now(),
            method: "POST".to_owned(),
            path: path.to_owned(),
            headers: headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
            body: Bytes::copy_from_slice(body),
            status: Some(200),
            answer: Bytes::copy_from_slice(body),
            took: Duration::ZERO,
        };
        RedactedExchange::of(&exchange).to_json(1, 1)
    }

    #[test]
    fn paths_are_shown_without_their_secrets() {
        let secret = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        for path in [
            format!("/dingtalk/{secret}"),
            format!("/prefix/dingtalk/{secret}"),
            format!("/prefix//dingtal%6b/{}", secret.replace('f', "%66")),
            format!("/slack?token={secret}"),
        ] {
            let shown = shown("webhook", &path, &[], b"")["path"].as_str().unwrap().to_owned();
            assert!(shown.contains(REDACTED) && !shown.contains("1e2d3c4b5a"), "{path}: {shown}");
        }
        assert_eq!(shown("webhook", "/slack", &[], b"")["path"], "/slack");
        for (path, expected) in [
            ("/actions/T0001/1/abc?x=1", "‹redacted›"),
            ("/hooks/netops", "/hooks/‹redacted›"),
            ("//%68ooks/netops", "/hooks/‹redacted›"),
            ("/open-apis/bot/v2/hook/oc_bot", "/open-apis/bot/v2/hook/‹redacted›"),
            (
                "/robot/send?ACCESS_token=a&%73ign=b&timestamp=1",
                "/robot/send?ACCESS_token=‹redacted›&%73ign=‹redacted›&timestamp=1",
            ),
            ("/v3/conversations/19:a@thread.tacv2/activities", "/v3/conversations/19:a@thread.tacv2/activities"),
        ] {
            assert_eq!(shown("slack", path, &[], b"")["path"], expected, "{path}");
        }
    }

    #[test]
    fn secret_members_are_redacted_in_any_case_and_depth() {
        let json = |value: &Value| value.to_string().into_bytes();
        let inner = json!({"Token": "S3CRET", "url": "x"}).to_string();
        let list = json!([{"APP_SECRET": "S3CRET"}]).to_string();
        let mut deep = inner.clone();
        for _ in 0..6 {
            deep = json!({ "x": deep }).to_string();
        }
        for body in [
            json(&json!({"TOKEN": "S3CRET", "AccessToken": "S3CRET"})),
            json(&json!({"view": {"private_metadata": inner}})),
            json(&json!([{ "blocks": list }])),
            json(&json!({"deep": deep})),
            b"S3CRET".to_vec(),
            b"\"S3CRET\"".to_vec(),
            b"{\"token\": \"S3CRET\"".to_vec(),
            b"<token>S3CRET</token>".to_vec(),
            b"token=S3CRET".to_vec(),
        ] {
            let shown = shown("slack", "/", &[], &body).to_string();
            assert!(!shown.contains("S3CRET") && shown.contains(REDACTED), "{shown}");
        }
        let form = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let shown = shown("slack", "/", &form, b"TOKEN=S3CRET&text=a+b&payload=%7B%22token%22%3A%22S3CRET%22%7D");
        assert_eq!(shown["body"], r#"{"TOKEN":"‹redacted›","payload":{"token":"‹redacted›"},"text":"a b"}"#);
    }

    #[test]
    fn secret_headers_are_redacted() {
        for name in ["authorization", "proxy-authorization", "x-amz-security-token", "x-playground-token", "cookie"] {
            assert_eq!(shown("slack", "/", &[(name, "S3CRET")], b"ok")["headers"], json!([[name, REDACTED]]));
        }
    }

    #[test]
    fn known_secrets_are_removed_everywhere() {
        let file =
            json!({"a": ["whsec_C2FV+6SY", "short"], "b": {"url": "http://127.0.0.1:1/send?token=aRobotsToken"}});
        let known = KnownSecrets::of(&file, &["playgrounds token"]);
        let text = json!({
            "path": "/x/whsec_C2FV%2B6SY", "body": "{\"text\":\"aRobotsToken, whsec_C2FV+6SY, short\"}", "playgrounds token": 1,
        });
        assert_eq!(
            known.remove_from(text.to_string()),
            json!({"path": "/x/‹redacted›", "body": "{\"text\":\"‹redacted›, ‹redacted›, short\"}", "‹redacted›": 1})
                .to_string()
        );
        assert_eq!(format!("{known:?}"), "KnownSecrets(8)");
    }
}

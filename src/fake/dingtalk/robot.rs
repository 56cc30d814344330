//! Webhooks of robots: custom robots, which check signatures and take 20 messages a minute, and private chats.

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::Sha256;

use super::FakeDingTalkState;

/// The largest message.
///
/// Source: <https://open.dingtalk.com/document/orgapp/custom-robot-access>
const MAX_MESSAGE_BYTES: usize = 20_000;
/// The most messages in a minute.
///
/// Source: <https://open.dingtalk.com/document/orgapp/custom-robot-access>
const MAX_PER_MINUTE: usize = 20;
/// How long a robot that has sent more is silent.
///
/// Source: <https://open.dingtalk.com/document/orgapp/custom-robot-access>
const PAUSE: SignedDuration = SignedDuration::from_mins(10);
/// The largest difference between our clock and the timestamp of a message.
///
/// Source: <https://open.dingtalk.com/document/orgapp/customize-robot-security-settings>
const MAX_ROBOT_CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(1);

/// A custom robot of a group.
#[derive(Debug, Clone)]
pub(super) struct CustomRobot {
    secret: Option<String>,
    sent: Vec<Timestamp>,
    silent_until: Option<Timestamp>,
}

impl CustomRobot {
    pub(super) fn new(secret: Option<&str>) -> Self {
        Self { secret: secret.map(ToOwned::to_owned), sent: vec![], silent_until: None }
    }
}

/// An `errcode` and its text. The HTTP status is 200.
type WebhookRefusal = (i64, &'static str);

/// The signature of a URL.
pub(super) fn sign_with_secret(secret: &str, timestamp: &str) -> String {
    let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("{timestamp}\n{secret}").as_bytes());
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

impl FakeDingTalkState {
    /// A message to a custom robot. Its messages are found under its token.
    pub(super) fn send_as_robot(&mut self, query: &str, body: &Value, size: usize) -> Value {
        webhook_answer(self.try_send_as_robot(query, body, size))
    }

    /// A message to the private chat of a session. It is found under the session.
    pub(super) fn send_to_session(&mut self, query: &str, body: &Value) -> Value {
        let session = query_value(query, "session").unwrap_or_default();
        webhook_answer(match message_text(body) {
            Some(text) if session.starts_with("session-") => {
                self.add_text(&session, &text, vec![]);
                Ok(())
            }
            Some(_) => Err((300_001, "session is not valid")),
            None => Err((400_105, "unsupported message type")),
        })
    }

    fn try_send_as_robot(&mut self, query: &str, body: &Value, size: usize) -> Result<(), WebhookRefusal> {
        let now = self.now();
        let token = query_value(query, "access_token").ok_or((40_035, "access_token is missing"))?;
        let robot = self.robots.get_mut(&token).ok_or((300_005, "token is not exist"))?;
        if let Some(secret) = &robot.secret {
            let timestamp = query_value(query, "timestamp").unwrap_or_default();
            let sent_at = timestamp.parse().ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
            if sent_at.is_none_or(|at| now.duration_since(at).abs() > MAX_ROBOT_CLOCK_SKEW) {
                return Err((310_000, "invalid timestamp"));
            }
            if query_value(query, "sign") != Some(sign_with_secret(secret, &timestamp)) {
                return Err((310_000, "sign not match"));
            }
        }
        if size > MAX_MESSAGE_BYTES {
            return Err((460_101, "message too long, exceed 20000 bytes"));
        }
        let text = message_text(body).ok_or((400_105, "unsupported message type"))?;
        if robot.silent_until.is_some_and(|until| now < until) {
            return Err((410_100, "send too fast"));
        }
        robot.sent.retain(|at| now.duration_since(*at) < SignedDuration::from_mins(1));
        if robot.sent.len() >= MAX_PER_MINUTE {
            robot.silent_until = Some(now + PAUSE);
            return Err((130_101, "send too fast, exceed 20 times per minute"));
        }
        robot.sent.push(now);
        let mentions = body.pointer("/at/atUserIds").and_then(Value::as_array).into_iter().flatten();
        let mentions = mentions.filter_map(Value::as_str).map(ToOwned::to_owned).collect();
        self.add_text(&token, &text, mentions);
        Ok(())
    }
}

fn message_text(body: &Value) -> Option<String> {
    let text = body.pointer("/text/content").and_then(Value::as_str);
    text.filter(|text| body.get("msgtype") == Some(&json!("text")) && !text.is_empty()).map(ToOwned::to_owned)
}

fn query_value(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn webhook_answer(result: Result<(), WebhookRefusal>) -> Value {
    match result {
        Ok(()) => json!({"errcode": 0, "errmsg": "ok"}),
        Err((code, text)) => json!({"errcode": code, "errmsg": text}),
    }
}

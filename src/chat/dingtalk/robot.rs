//! Messages to a robot's webhook: a custom robot of a group, or the private chat of a person with our robot.

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::Mac;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::json_request;
use super::card::{mentioned_users, message_text};
use super::code::{ErrorMeaning, find_numbered_code};
use crate::approval::RetryPolicy;
use crate::chat::authenticity::hmac_of;
use crate::chat::delivery::{parse_retry_after, refusal_words};
use crate::chat::message::Message;
use crate::chat::{DeliveryError, ThrottleScope};
use crate::secret::{Secret, SecretUrl};
use crate::{clock, http as our_http};

/// The largest message to a webhook, in bytes of JSON.
///
/// Source: <https://open.dingtalk.com/document/orgapp/custom-robot-access>
const MAX_WEBHOOK_BYTES: usize = 20_000;
/// How long a robot is silent after more than 20 messages in a minute.
///
/// Source: <https://open.dingtalk.com/document/orgapp/custom-robot-access>
const ROBOT_PAUSE: SignedDuration = SignedDuration::from_mins(10);

/// The URL of a custom robot with its signature: the HMAC of the time and the secret, with the same secret.
///
/// Source: <https://open.dingtalk.com/document/orgapp/customize-robot-security-settings>
#[must_use]
pub fn sign_robot_url(url: &SecretUrl, secret: &Secret, now: Timestamp) -> SecretUrl {
    let timestamp = now.as_millisecond().to_string();
    let secret = secret.expose().as_bytes();
    let mac = hmac_of(secret, &[timestamp.as_bytes(), b"\n", secret]).finalize().into_bytes();
    let mut url = url.expose().clone();
    url.query_pairs_mut().append_pair("timestamp", &timestamp).append_pair("sign", &BASE64_STANDARD.encode(mac));
    SecretUrl::new(url)
}

/// Posts to a custom robot. The message has no buttons, and can never be updated.
pub async fn post_robot(
    http: &reqwest::Client,
    url: &SecretUrl,
    secret: Option<&Secret>,
    message: &Message,
    now: Timestamp,
) -> Result<(), DeliveryError> {
    let body = text_body(message);
    let signed = secret.map(|secret| sign_robot_url(url, secret, now));
    send_to_webhook(http, signed.as_ref().unwrap_or(url), &body).await
}

/// Posts to the private chat that a `sessionWebhook` leads to.
pub(super) async fn post_session(
    http: &reqwest::Client,
    url: &SecretUrl,
    message: &Message,
) -> Result<(), DeliveryError> {
    send_to_webhook(http, url, &text_body(message)).await
}

/// The body of a text message. In JSON, a character may need more bytes than in the text.
fn text_body(message: &Message) -> Value {
    let mentions = mentioned_users(&message.mentions);
    let mut max = MAX_WEBHOOK_BYTES;
    loop {
        let text = message_text(message, max);
        let body =
            json!({"msgtype": "text", "text": {"content": text}, "at": {"atUserIds": mentions, "isAtAll": false}});
        if body.to_string().len() <= MAX_WEBHOOK_BYTES || max == 0 {
            return body;
        }
        max = max.saturating_sub(max.div_ceil(4));
    }
}

/// Sends a message. A refusal has the HTTP status 200, too, so that its `errcode` decides.
async fn send_to_webhook(http: &reqwest::Client, url: &SecretUrl, body: &Value) -> Result<(), DeliveryError> {
    let request = json_request(http, Method::POST, url.expose().clone(), body);
    let response = request.send().await.map_err(|error| DeliveryError::from_transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = our_http::read_body(response).await.map_err(|error| DeliveryError::from_transport(&error))?;
    let retry_after = parse_retry_after(&headers, clock::now());
    let answer = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let Some(code) = answer.get("errcode").and_then(Value::as_i64) else {
        // DingTalk's gateway answers so if one address sends too much.
        if answer.get("punish").is_some() {
            return Err(DeliveryError::throttled("too many messages", retry_after, ThrottleScope::Channel));
        }
        let unreadable = || DeliveryError::answer_lost("unreadable answer", retry_after);
        let by_status = || DeliveryError::from_http_status(status, &headers, &body, clock::now());
        return Err(if status.is_success() { unreadable() } else { by_status() });
    };
    if code == 0 {
        return Ok(());
    }
    let words = answer.get("errmsg").and_then(Value::as_str).map(refusal_words).unwrap_or_default();
    let Some(known) = find_numbered_code(code) else {
        return Err(DeliveryError::misconfigured(&format!("{code}{words}")));
    };
    let error = format!("{code}: {}{words}", known.text);
    Err(match known.meaning {
        ErrorMeaning::Soon => DeliveryError::answer_lost(error, retry_after),
        ErrorMeaning::TooMany(scope) => DeliveryError::throttled(error, retry_after.or(Some(ROBOT_PAUSE)), scope),
        ErrorMeaning::FewTimes => DeliveryError::refused(error, RetryPolicy::FewTimes),
        ErrorMeaning::ReceiverGone | ErrorMeaning::CardGone => DeliveryError::refused(error, RetryPolicy::Never),
        ErrorMeaning::AfterFix | ErrorMeaning::TokenRefused | ErrorMeaning::CardExists | ErrorMeaning::RouteTaken => {
            DeliveryError::misconfigured(&error)
        }
    })
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn signed_robot_url_keeps_its_query() {
        let url = SecretUrl::new(Url::parse("https://oapi.dingtalk.com/robot/send?access_token=tok").unwrap());
        let secret = Secret::new("SECa1b2c3d4e5f60718293a4b5c6d7e8f90".into());
        let now = Timestamp::from_millisecond(1_700_000_003_123).unwrap();
        let signed = sign_robot_url(&url, &secret, now);
        let expected = "https://oapi.dingtalk.com/robot/send?access_token=tok&timestamp=1700000003123\
                        &sign=HNZOhCV%2Fp%2BDhCIeVTv3g2uxK9wzFmLGmefqP1Bu6Sak%3D";
        assert_eq!(signed.expose().as_str(), expected);
        assert!(!format!("{signed:?}").contains("tok"));
    }
}

//! Calls to DingTalk as our app: its token, cards, messages of its robot, and the registration of the callback.

use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::card::{CardVariables, update_options};
use super::code::{ErrorMeaning, NamedCode, find_named_code};
use super::{DingTalkSecret, is_conversation_id, is_dingtalk_id};
use crate::approval::RetryPolicy;
use crate::chat::access_token::AccessToken;
use crate::chat::delivery::{CHAT_TIMEOUT, parse_retry_after, refusal_words};
use crate::chat::response::set_member;
use crate::chat::{DeliveryError, ThrottleScope};
use crate::secret::Secret;
use crate::{clock, http as our_http};

/// The header of the token.
///
/// Source: <https://open.dingtalk.com/document/development/create-and-deliver-cards>
const TOKEN_HEADER: &str = "x-acs-dingtalk-access-token";
/// The `userIdType` of a `userId`.
const USER_ID_TYPE: u8 = 1;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppCallError {
    /// The token is refused: fetch a new one and call again. If that is refused too, nothing was delivered.
    TokenRefused(DeliveryError),
    /// A card with this id exists.
    CardExists(DeliveryError),
    /// There is no card with this id.
    CardGone(DeliveryError),
    /// The route of the callback leads elsewhere.
    RouteTaken(DeliveryError),
    /// Nothing was delivered, or nobody knows.
    NotDelivered(DeliveryError),
}

impl AppCallError {
    /// The error if no further attempt is made.
    #[must_use]
    pub fn into_delivery_error(self) -> DeliveryError {
        match self {
            Self::TokenRefused(error)
            | Self::CardExists(error)
            | Self::CardGone(error)
            | Self::RouteTaken(error)
            | Self::NotDelivered(error) => error,
        }
    }

    fn of(meaning: ErrorMeaning, error: DeliveryError) -> Self {
        match meaning {
            ErrorMeaning::TokenRefused => Self::TokenRefused(error),
            ErrorMeaning::CardExists => Self::CardExists(error),
            ErrorMeaning::CardGone => Self::CardGone(error),
            ErrorMeaning::RouteTaken => Self::RouteTaken(error),
            ErrorMeaning::Soon
            | ErrorMeaning::TooMany(_)
            | ErrorMeaning::AfterFix
            | ErrorMeaning::FewTimes
            | ErrorMeaning::ReceiverGone => Self::NotDelivered(error),
        }
    }
}

impl From<DeliveryError> for AppCallError {
    fn from(error: DeliveryError) -> Self {
        Self::NotDelivered(error)
    }
}

/// Where a card is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardSpace<'a> {
    /// A group, by `openConversationId`.
    Group(&'a str),
    /// The chat of one person with the robot, by `userId`.
    Person(&'a str),
}

/// A card to post.
#[derive(Debug, Clone, Copy)]
pub struct PostedCard<'a> {
    /// Our own id of the card. DingTalk makes one card for an id.
    pub out_track_id: &'a str,
    /// The id of the template.
    pub template: &'a str,
    /// The route of the callback.
    pub route: &'a str,
    /// What the card shows.
    pub variables: &'a CardVariables,
    /// The headline, for the list of chats.
    pub summary: &'a str,
    /// Where it is shown.
    pub space: CardSpace<'a>,
    /// Who is mentioned, by `userId`.
    pub mentions: &'a [&'a str],
}

/// What is registered after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// Our address and our secret.
    Same,
    /// Another address or another secret.
    Other,
    /// The answer does not name both.
    Unsaid,
}

/// The API, called as our app.
#[derive(Debug, Clone, Copy)]
pub struct DingTalkApi<'a> {
    /// The shared HTTP client.
    pub http: &'a reqwest::Client,
    /// The URL of the API; ends with a slash.
    pub url: &'a Url,
    /// The app's token.
    pub token: &'a Secret,
    /// The code of the app's robot.
    pub robot: &'a str,
}

/// Fetches a token. DingTalk returns the same one while it is valid.
///
/// Source: <https://open.dingtalk.com/document/orgapp/obtain-the-access_token-of-an-internal-app>
pub async fn fetch_token(
    http: &reqwest::Client,
    url: &Url,
    app: &str,
    secret: &DingTalkSecret,
) -> Result<AccessToken, DeliveryError> {
    let body = json!({"appKey": app, "appSecret": secret.expose()});
    let request = json_request(http, Method::POST, join_url(url, "v1.0/oauth2/accessToken")?, &body);
    let answer = send_request(request).await.map_err(AppCallError::into_delivery_error)?;
    let valid_for = answer.get("expireIn").and_then(Value::as_i64).filter(|seconds| *seconds > 0);
    let token = text_member(&answer, "accessToken").filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
    match (token, valid_for) {
        (Some(token), Some(seconds)) if !token.is_empty() => {
            Ok(AccessToken { token: Secret::new(token.to_owned()), valid_for: SignedDuration::from_secs(seconds) })
        }
        _ => Err(DeliveryError::misconfigured("the answer has no token")),
    }
}

impl DingTalkApi<'_> {
    /// Makes a card and shows it.
    ///
    /// Source: <https://open.dingtalk.com/document/development/create-and-deliver-cards>
    ///
    /// # Errors
    /// When a part of it fails. A card that was made but is not shown exists all the same.
    pub async fn post(&self, card: PostedCard<'_>) -> Result<(), AppCallError> {
        check_card_id(card.out_track_id)?;
        let PostedCard { out_track_id, template, route, variables, summary, space, mentions } = card;
        let mut body = json!({
            "cardTemplateId": template,
            "outTrackId": out_track_id,
            "callbackType": "HTTP",
            "callbackRouteKey": route,
            "cardData": {"cardParamMap": variables},
            "userIdType": USER_ID_TYPE,
        });
        let properties = json!({
            "supportForward": false,
            "lastMessageI18n": {"ZH_CN": summary, "EN_US": summary},
            "notification": {"alertContent": summary, "notificationOff": false},
        });
        let model = match space {
            CardSpace::Group(_) => "imGroupOpenSpaceModel",
            CardSpace::Person(_) => "imRobotOpenSpaceModel",
        };
        set_member(&mut body, model, properties);
        self.set_delivery(&mut body, space, mentions)?;
        check_delivery(&self.call(Method::POST, "v1.0/card/instances/createAndDeliver", &body).await?)
    }

    /// Shows a card that exists.
    ///
    /// Source: <https://open.dingtalk.com/document/development/delivery-card-interface>
    pub async fn deliver(&self, out_track_id: &str, space: CardSpace<'_>) -> Result<(), AppCallError> {
        check_card_id(out_track_id)?;
        let mut body = json!({"outTrackId": out_track_id, "userIdType": USER_ID_TYPE});
        self.set_delivery(&mut body, space, &[])?;
        check_delivery(&self.call(Method::POST, "v1.0/card/instances/deliver", &body).await?)
    }

    fn set_delivery(&self, body: &mut Value, space: CardSpace<'_>, mentions: &[&str]) -> Result<(), AppCallError> {
        let (kind, id, model, mut delivery) = match space {
            CardSpace::Group(id) if is_conversation_id(id) => {
                ("IM_GROUP", id, "imGroupOpenDeliverModel", json!({"robotCode": self.robot}))
            }
            CardSpace::Person(id) if is_dingtalk_id(id, "") => {
                let delivery = json!({"spaceType": "IM_ROBOT", "robotCode": self.robot});
                ("IM_ROBOT", id, "imRobotOpenDeliverModel", delivery)
            }
            CardSpace::Group(_) | CardSpace::Person(_) => {
                return Err(DeliveryError::misconfigured("the receiver's id is not one of DingTalk's").into());
            }
        };
        if !mentions.is_empty() {
            let names: Value = mentions.iter().map(|user| ((*user).to_owned(), Value::from(*user))).collect();
            set_member(&mut delivery, "atUserIds", names);
        }
        set_member(body, "openSpaceId", format!("dtv1.card//{kind}.{id}").into());
        set_member(body, model, delivery);
        Ok(())
    }

    /// Updates a card for everybody.
    ///
    /// Source: <https://open.dingtalk.com/document/development/interactive-card-update-interface>
    pub async fn update(&self, out_track_id: &str, variables: &CardVariables) -> Result<(), AppCallError> {
        check_card_id(out_track_id)?;
        let body = json!({
            "outTrackId": out_track_id,
            "cardData": {"cardParamMap": variables},
            "cardUpdateOptions": update_options(),
            "userIdType": USER_ID_TYPE,
        });
        check_success(&self.call(Method::PUT, "v1.0/card/instances", &body).await?)
    }

    /// Sends a plain text to a group.
    ///
    /// Source: <https://open.dingtalk.com/document/orgapp/the-robot-sends-a-group-message>
    pub async fn send_to_group(&self, conversation: &str, text: &str, mentions: &[&str]) -> Result<(), AppCallError> {
        if !is_conversation_id(conversation) {
            return Err(DeliveryError::misconfigured("the receiver's id is not one of DingTalk's").into());
        }
        let mut body = self.text_message(text);
        set_member(&mut body, "openConversationId", conversation.into());
        if !mentions.is_empty() {
            set_member(&mut body, "atUserIds", json!(mentions));
        }
        self.call(Method::POST, "v1.0/robot/groupMessages/send", &body).await.map(|_| ())
    }

    /// Sends a plain text to one person.
    ///
    /// Source: <https://open.dingtalk.com/document/orgapp/chatbots-send-one-on-one-chat-messages-in-batches>
    pub async fn send_to_person(&self, user_id: &str, text: &str) -> Result<(), AppCallError> {
        let mut body = self.text_message(text);
        set_member(&mut body, "userIds", json!([user_id]));
        let answer = self.call(Method::POST, "v1.0/robot/oToMessages/batchSend", &body).await?;
        // The call succeeds all the same.
        let lists = |name: &str| answer.get(name).and_then(Value::as_array).is_some_and(|ids| !ids.is_empty());
        if lists("flowControlledStaffIdList") {
            return Err(
                DeliveryError::throttled("the person gets too many messages", None, ThrottleScope::Channel).into()
            );
        }
        if lists("invalidStaffIdList") || lists("filteredStaffIdList") {
            return Err(
                DeliveryError::refused("the person cannot get messages of the robot", RetryPolicy::FewTimes).into()
            );
        }
        Ok(())
    }

    /// The parts of a text message that do not depend on its receiver.
    fn text_message(&self, text: &str) -> Value {
        json!({"robotCode": self.robot, "msgKey": "sampleText", "msgParam": json!({"content": text}).to_string()})
    }

    /// Registers where DingTalk sends clicks, and the secret that signs them. Without `force`, it changes no registration.
    ///
    /// Source: <https://open.dingtalk.com/document/development/register-card-callback-address>
    pub async fn register(
        &self,
        route: &str,
        url: &str,
        secret: &str,
        force: bool,
    ) -> Result<RegisterOutcome, AppCallError> {
        let body = json!({
            "callbackRouteKey": route, "callbackUrl": url, "apiSecret": secret, "forceUpdate": force,
        });
        let answer = self.call(Method::POST, "v1.0/card/callbacks/register", &body).await?;
        check_success(&answer)?;
        let result = answer.get("result").unwrap_or(&Value::Null);
        let (known_url, known_secret) = (text_member(result, "callbackUrl"), text_member(result, "apiSecret"));
        let differs = known_url.is_some_and(|known| known != url) || known_secret.is_some_and(|known| known != secret);
        Ok(match (known_url, known_secret) {
            _ if differs => RegisterOutcome::Other,
            (Some(_), Some(_)) => RegisterOutcome::Same,
            (None, _) | (_, None) => RegisterOutcome::Unsaid,
        })
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, AppCallError> {
        let request = json_request(self.http, method, join_url(self.url, path)?, body);
        send_request(request.header(TOKEN_HEADER, self.token.expose())).await
    }
}

fn check_card_id(out_track_id: &str) -> Result<(), AppCallError> {
    if is_dingtalk_id(out_track_id, "") {
        Ok(())
    } else {
        Err(DeliveryError::misconfigured("the card's id is not one of ours").into())
    }
}

/// Whether a card is shown everywhere. A call that succeeds can hold a delivery that failed.
fn check_delivery(answer: &Value) -> Result<(), AppCallError> {
    check_success(answer)?;
    let results = answer.pointer("/result/deliverResults").or_else(|| answer.get("result")).and_then(Value::as_array);
    let Some(results) = results.filter(|results| !results.is_empty()) else {
        return Err(DeliveryError::answer_lost("the answer does not say whether the card is shown", None).into());
    };
    let is_shown = |result: &&Value| result.get("success").and_then(Value::as_bool) == Some(true);
    match results.iter().find(|result| !is_shown(result)) {
        None => Ok(()),
        Some(failed) => {
            let words = text_member(failed, "errorMsg").map(refusal_words).unwrap_or_default();
            Err(DeliveryError::misconfigured(&format!("the card was not delivered{words}")).into())
        }
    }
}

fn check_success(answer: &Value) -> Result<(), AppCallError> {
    match answer.get("success").and_then(Value::as_bool) {
        Some(true) => Ok(()),
        Some(false) | None => Err(DeliveryError::answer_lost("the answer does not say that it succeeded", None).into()),
    }
}

fn text_member<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// Sends a request. A refusal has a code.
async fn send_request(request: reqwest::RequestBuilder) -> Result<Value, AppCallError> {
    let response = request.send().await.map_err(|error| DeliveryError::from_transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = our_http::read_body(response).await.map_err(|error| DeliveryError::from_transport(&error))?;
    let retry_after = parse_retry_after(&headers, clock::now());
    let by_status = || AppCallError::from(DeliveryError::from_http_status(status, &headers, &body, clock::now()));
    let answer = serde_json::from_slice::<Value>(&body).ok().filter(Value::is_object);
    let Some(answer) = answer else {
        let unreadable = || DeliveryError::answer_lost("unreadable answer", retry_after).into();
        return Err(if status.is_success() { unreadable() } else { by_status() });
    };
    let Some(code) = text_member(&answer, "code").filter(|code| !code.is_empty() && *code != "0") else {
        return if status.is_success() { Ok(answer) } else { Err(by_status()) };
    };
    // An operator has to look an unknown code up.
    let unknown = NamedCode { code: "", meaning: ErrorMeaning::AfterFix, text: "" };
    let known = find_named_code(code);
    let NamedCode { meaning, text, .. } = known.unwrap_or(&unknown);
    let error = describe_refusal(&answer, code, text);
    let too_many = status == StatusCode::TOO_MANY_REQUESTS;
    Err(AppCallError::of(
        *meaning,
        to_delivery_error(error, *meaning, known.is_none() && too_many, status, retry_after),
    ))
}

fn to_delivery_error(
    error: String,
    meaning: ErrorMeaning,
    is_throttled: bool,
    status: StatusCode,
    retry_after: Option<SignedDuration>,
) -> DeliveryError {
    match meaning {
        _ if is_throttled => DeliveryError::throttled(error, retry_after, ThrottleScope::App),
        ErrorMeaning::TooMany(scope) => DeliveryError::throttled(error, retry_after, scope),
        ErrorMeaning::Soon => DeliveryError::answer_lost(error, retry_after),
        ErrorMeaning::AfterFix if status.is_server_error() => DeliveryError::answer_lost(error, retry_after),
        ErrorMeaning::ReceiverGone | ErrorMeaning::CardGone => DeliveryError::refused(error, RetryPolicy::Never),
        ErrorMeaning::FewTimes => DeliveryError::refused(error, RetryPolicy::FewTimes),
        ErrorMeaning::TokenRefused | ErrorMeaning::AfterFix | ErrorMeaning::CardExists | ErrorMeaning::RouteTaken => {
            DeliveryError::misconfigured(&error)
        }
    }
}

/// Code, our words, DingTalk's words, and the id of the call.
fn describe_refusal(answer: &Value, code: &str, text: &str) -> String {
    let code = our_http::log_safe_word(code).unwrap_or_else(|| "(unreadable)".to_owned());
    let ours = if text.is_empty() { String::new() } else { format!(": {text}") };
    let theirs = text_member(answer, "message").map(refusal_words).unwrap_or_default();
    let request_id = text_member(answer, "requestid").or_else(|| text_member(answer, "requestId"));
    let request_id = request_id.and_then(our_http::log_safe_word).map(|id| format!("; requestid {id}"));
    format!("{code}{ours}{theirs}{}", request_id.unwrap_or_default())
}

fn join_url(url: &Url, path: &str) -> Result<Url, DeliveryError> {
    url.join(path).map_err(|_| DeliveryError::misconfigured("invalid dingtalk.api"))
}

/// A request with a JSON body.
pub(super) fn json_request(http: &reqwest::Client, method: Method, url: Url, body: &Value) -> reqwest::RequestBuilder {
    let request = http.request(method, url).header("content-type", "application/json; charset=utf-8");
    request.body(body.to_string()).timeout(CHAT_TIMEOUT)
}

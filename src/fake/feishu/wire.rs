//! The HTTP API of the fake: what each path does, and what it refuses.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    ChatFault, FakeFeishu, FakeFeishuState, FeishuFault, FeishuMessage, IssuedToken, MAX_EDIT_AGE, MessageEnd,
    PostedOnce, RecordedCall, ScheduledFault, TOKEN_LIFETIME, TOKEN_RENEWAL_WINDOW, UUID_RETENTION, UuidKey, card,
};
use crate::chat::feishu::sign_bot_message;
use crate::secret::Secret;

/// The largest request with a card: 30 KB.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
const MAX_BODY_BYTES: usize = 30 * 1024;
/// The largest request to a custom bot: 20 KB.
///
/// Source: <https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot>
const MAX_BOT_BODY_BYTES: usize = 20 * 1024;
/// The largest difference between our clock and the timestamp of a message to a custom bot.
///
/// Source: <https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot>
const MAX_BOT_CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(1);

/// How long an app may recall a message.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/delete>
const MAX_RECALL_AGE: SignedDuration = SignedDuration::from_hours(24);

/// A refusal of Feishu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeishuRefusal {
    /// The HTTP status.
    pub status: u16,
    /// Feishu's code.
    pub code: i64,
    /// Feishu's `msg`.
    pub message: String,
}

/// A refusal of the API: the HTTP status is always 400.
pub(super) fn api_refusal(code: i64, message: &str) -> FeishuRefusal {
    FeishuRefusal { status: 400, code, message: message.to_owned() }
}

/// A request to the API or to a custom bot.
struct ApiRequest<'a> {
    method: &'a Method,
    path: &'a str,
    query: &'a str,
    token: Option<&'a str>,
    size: usize,
    body: Value,
}

impl ApiRequest<'_> {
    fn str_field(&self, name: &str) -> Option<&str> {
        self.body.get(name).and_then(Value::as_str)
    }

    /// The card of a message, checked. It is a JSON string in the field `content`.
    fn parse_card(&self) -> Result<Value, FeishuRefusal> {
        if self.size > MAX_BODY_BYTES {
            return Err(api_refusal(230_025, "the card is over 30 KB"));
        }
        let content = self.str_field("content").ok_or_else(|| api_refusal(230_001, "content is missing"))?;
        let card = serde_json::from_str(content).map_err(|_| api_refusal(230_001, "content is not JSON"))?;
        card::check_card(&card).map_err(|problem| api_refusal(230_099, &problem))?;
        Ok(card)
    }
}

pub(super) async fn handle_request(
    State(fake): State<FakeFeishu>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    // Feishu's own SDK for Python sends no content type.
    let is_json = headers.get("content-type").is_none_or(|kind| kind.as_bytes().starts_with(b"application/json"));
    let request = ApiRequest {
        method: &method,
        path: uri.path(),
        query: uri.query().unwrap_or_default(),
        token: bearer.and_then(|bearer| bearer.strip_prefix("Bearer ")),
        size: body.len(),
        body: if is_json { serde_json::from_slice(&body).unwrap_or_default() } else { Value::Null },
    };
    let fault = fake.lock().take_fault(request.path);
    if fault.as_ref().is_some_and(|fault| fault.hangs && !fault.after_effect) {
        return std::future::pending().await;
    }
    let answer = match &fault {
        Some(fault) if !fault.after_effect => Err(refusal_of_fault(fault)),
        Some(_) | None => fake.lock().route_request(&request),
    };
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let code = answer.as_ref().err().map_or(0, |refusal| refusal.code);
    fake.lock().calls.push(RecordedCall { method: method.to_string(), path, body: request.body, code }, body.len());
    match fault {
        Some(fault) if fault.hangs => std::future::pending().await,
        Some(fault) => to_response(&Err(refusal_of_fault(&fault)), fault.code.is_some(), fault.retry_after),
        None => to_response(&answer, true, None),
    }
}

fn refusal_of_fault(fault: &FeishuFault) -> FeishuRefusal {
    let status = if fault.status == 0 { 400 } else { fault.status };
    FeishuRefusal { status, code: fault.code.unwrap_or(-1), message: "a fault of the test".into() }
}

fn to_response(answer: &Result<Value, FeishuRefusal>, is_json: bool, retry_after: Option<u16>) -> Response {
    let (status, body) = match answer {
        Ok(body) => (200, body.clone()),
        Err(FeishuRefusal { status, code, message }) => (*status, json!({"code": code, "msg": message})),
    };
    let body = if is_json { body.to_string() } else { "upstream error".to_owned() };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = if is_json { "application/json; charset=utf-8" } else { "text/plain" };
    let mut response = (status, [("content-type", kind)], body).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

impl FakeFeishuState {
    fn take_fault(&mut self, path: &str) -> Option<FeishuFault> {
        match self.faults.iter_mut().find(|it| path.starts_with(&it.fault.path)) {
            Some(ScheduledFault { requests_before: requests_before @ 1.., .. }) => {
                *requests_before -= 1;
                None
            }
            Some(ScheduledFault { fault, .. }) => Some(fault.clone()),
            None => None,
        }
    }

    fn route_request(&mut self, request: &ApiRequest<'_>) -> Result<Value, FeishuRefusal> {
        let unknown = || FeishuRefusal { status: 404, code: 99_992_404, message: "no such path".into() };
        let path = request.path.strip_prefix("/open-apis/").ok_or_else(unknown)?;
        if path == "auth/v3/tenant_access_token/internal" && request.method == Method::POST {
            return self.issue_token(request);
        }
        if let Some(id) = path.strip_prefix("bot/v2/hook/").filter(|_| request.method == Method::POST) {
            return self.post_as_bot(request, id);
        }
        self.check_token(request.token)?;
        let message = path.strip_prefix("im/v1/messages").ok_or_else(unknown)?;
        match (message.strip_prefix('/'), request.method) {
            (None, &Method::POST) if message.is_empty() => self.post_message(request),
            (Some(id), &Method::PATCH) => self.patch_message(request, id),
            (Some(id), &Method::DELETE) => self.recall_as_app(id),
            (Some(rest), &Method::POST) => match rest.strip_suffix("/reply") {
                Some(id) => self.reply_to_message(request, id),
                None => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }

    /// Returns the same token until it is valid for less than 30 minutes.
    fn issue_token(&mut self, request: &ApiRequest<'_>) -> Result<Value, FeishuRefusal> {
        if request.str_field("app_id") != Some(&self.settings.app) {
            return Err(api_refusal(10_003, "invalid app_id"));
        }
        if request.str_field("app_secret") != Some(&self.settings.app_secret) {
            return Err(api_refusal(10_014, "app secret invalid"));
        }
        let now = self.now();
        let is_fresh = |it: &&IssuedToken| it.expires_at.duration_since(now) >= TOKEN_RENEWAL_WINDOW;
        let issued = self.tokens.last().filter(is_fresh).cloned().unwrap_or_else(|| {
            let issued = IssuedToken { token: self.next_id("t-"), expires_at: now + TOKEN_LIFETIME };
            self.tokens.push(issued.clone());
            issued
        });
        let expire = issued.expires_at.duration_since(now).as_secs();
        Ok(json!({"code": 0, "msg": "ok", "tenant_access_token": issued.token, "expire": expire}))
    }

    fn check_token(&self, token: Option<&str>) -> Result<(), FeishuRefusal> {
        let token = token.ok_or_else(|| api_refusal(99_991_661, "Missing access token for authorization"))?;
        let now = self.now();
        let is_valid = self.tokens.iter().any(|issued| issued.token == token && now < issued.expires_at);
        if is_valid { Ok(()) } else { Err(api_refusal(99_991_663, "Invalid access token for authorization")) }
    }

    fn check_chat(&self, chat: &str) -> Result<(), FeishuRefusal> {
        match self.chats.get(chat) {
            Some(ChatFault::WithoutBot) => Err(api_refusal(230_002, "Bot is not in the group")),
            Some(ChatFault::Dissolved) => Err(api_refusal(232_009, "The group was dissolved")),
            Some(ChatFault::WithoutThreads) | None => Ok(()),
        }
    }

    fn post_message(&mut self, request: &ApiRequest<'_>) -> Result<Value, FeishuRefusal> {
        let kind = form_urlencoded::parse(request.query.as_bytes()).find(|(name, _)| name == "receive_id_type");
        let id = request.str_field("receive_id").unwrap_or_default().to_owned();
        let fits = match kind.as_ref().map(|(_, kind)| kind.as_ref()) {
            Some("chat_id") => id.starts_with("oc_"),
            Some("open_id") => id.starts_with("ou_"),
            _ => false,
        };
        if !fits || request.str_field("msg_type") != Some("interactive") {
            return Err(api_refusal(230_001, "Your request contains an invalid request parameter"));
        }
        self.add_message(request, id, None, false)
    }

    fn reply_to_message(&mut self, request: &ApiRequest<'_>, id: &str) -> Result<Value, FeishuRefusal> {
        let parent = self.find_message(id)?;
        let (chat, root) = (parent.chat.clone(), parent.parent.clone().unwrap_or_else(|| parent.id.clone()));
        let in_thread = request.body.get("reply_in_thread").and_then(Value::as_bool).unwrap_or_default();
        if in_thread && self.chats.get(&chat) == Some(&ChatFault::WithoutThreads) {
            return Err(api_refusal(230_071, "The group does not support reply_in_thread"));
        }
        if request.str_field("msg_type") != Some("interactive") {
            return Err(api_refusal(230_001, "Your request contains an invalid request parameter"));
        }
        self.add_message(request, chat, Some(root), in_thread)
    }

    fn add_message(
        &mut self,
        request: &ApiRequest<'_>,
        chat: String,
        parent: Option<String>,
        in_thread: bool,
    ) -> Result<Value, FeishuRefusal> {
        let card = request.parse_card()?;
        self.check_chat(&chat)?;
        let uuid = request.str_field("uuid").unwrap_or_default().to_owned();
        if uuid.len() > 50 {
            return Err(api_refusal(230_001, "uuid is over 50 characters"));
        }
        let now = self.now();
        self.uuids.retain(|_, posted| now.duration_since(posted.at) < UUID_RETENTION);
        let key = UuidKey { chat: chat.clone(), uuid };
        let posted = self.uuids.get(&key);
        if let Some(message) =
            posted.and_then(|posted| self.messages.iter().find(|message| message.id == posted.message_id))
        {
            return Ok(self.message_json(message));
        }
        if !self.try_count_write(&chat) {
            return Err(api_refusal(230_020, "This operation triggers the frequency limit"));
        }
        let id = self.next_id("om_");
        if !key.uuid.is_empty() {
            self.uuids.insert(key, PostedOnce { at: now, message_id: id.clone() });
        }
        let message =
            FeishuMessage { id, chat, parent, in_thread, card, edits: 0, created_at: now, ended: None, by_bot: false };
        let answer = self.message_json(&message);
        self.messages.push(message);
        Ok(answer)
    }

    fn message_json(&self, message: &FeishuMessage) -> Value {
        let parent = message.parent.clone().unwrap_or_default();
        let sender = json!({
            "id": self.settings.app, "id_type": "app_id", "sender_type": "app", "tenant_key": self.settings.tenant,
        });
        json!({"code": 0, "msg": "success", "data": {
            "message_id": message.id, "root_id": parent, "parent_id": parent,
            "thread_id": if message.in_thread { format!("omt_{parent}") } else { String::new() },
            "msg_type": "interactive", "create_time": message.created_at.as_millisecond().to_string(),
            "chat_id": message.chat, "sender": sender,
        }})
    }

    /// A message that is neither recalled nor deleted.
    fn find_message(&self, id: &str) -> Result<&FeishuMessage, FeishuRefusal> {
        let message = self.messages.iter().find(|message| message.id == id);
        let message = message.ok_or_else(|| api_refusal(230_001, "invalid message_id"))?;
        match message.ended {
            Some(MessageEnd::Recalled) => Err(api_refusal(230_011, "The message was recalled")),
            Some(MessageEnd::Deleted) => Err(api_refusal(230_110, "The message has been deleted")),
            None => Ok(message),
        }
    }

    fn patch_message(&mut self, request: &ApiRequest<'_>, id: &str) -> Result<Value, FeishuRefusal> {
        let message = self.find_message(id)?;
        if message.by_bot {
            return Err(api_refusal(230_001, "The message was not sent by the app"));
        }
        let (chat, age) = (message.chat.clone(), self.now().duration_since(message.created_at));
        let card = request.parse_card()?;
        if age > MAX_EDIT_AGE {
            return Err(api_refusal(230_031, "The message is older than 14 days"));
        }
        self.check_chat(&chat)?;
        if !self.try_count_write(id) {
            return Err(api_refusal(230_020, "This operation triggers the frequency limit"));
        }
        self.redraw_card(id, &card);
        Ok(json!({"code": 0, "msg": "success", "data": {}}))
    }

    /// The app may recall its messages for a day, unless the tenant's administrator sets another time.
    fn recall_as_app(&mut self, id: &str) -> Result<Value, FeishuRefusal> {
        let age = self.now().duration_since(self.find_message(id)?.created_at);
        if age > MAX_RECALL_AGE {
            return Err(api_refusal(230_026, "No permission to recall this message"));
        }
        for message in self.messages.iter_mut().filter(|message| message.id == id) {
            message.ended = Some(MessageEnd::Recalled);
        }
        Ok(json!({"code": 0, "msg": "success", "data": {}}))
    }

    pub(super) fn redraw_card(&mut self, id: &str, card: &Value) {
        for message in self.messages.iter_mut().filter(|message| message.id == id) {
            message.card = card.clone();
            message.edits += 1;
        }
    }

    /// A custom bot refuses with the HTTP status 200, so that only the code shows the refusal.
    fn post_as_bot(&mut self, request: &ApiRequest<'_>, id: &str) -> Result<Value, FeishuRefusal> {
        let refuse = |code, message: &str| FeishuRefusal { status: 200, code, message: message.to_owned() };
        let secret =
            self.bots.get(id).ok_or_else(|| refuse(19_001, "param invalid: incoming webhook access token invalid"))?;
        if let Some(secret) = secret {
            let timestamp: i64 = request.str_field("timestamp").and_then(|text| text.parse().ok()).unwrap_or_default();
            let age = self.now().as_second().saturating_sub(timestamp).saturating_abs();
            let sign = sign_bot_message(&Secret::new(secret.clone()), timestamp);
            if request.str_field("sign") != Some(&sign) || age > MAX_BOT_CLOCK_SKEW.as_secs() {
                return Err(refuse(19_021, "sign match fail or timestamp is not within one hour from current time"));
            }
        }
        let card = request.body.get("card").cloned().unwrap_or_default();
        let fits = request.str_field("msg_type") == Some("interactive") && request.size <= MAX_BOT_BODY_BYTES;
        let checked = if fits { card::check_card(&card) } else { Err("not a card of 20 KB at most".into()) };
        checked.map_err(|problem| refuse(9_499, &problem))?;
        if !self.try_count_write(id) {
            return Err(refuse(11_232, "frequency limited"));
        }
        let (created_at, message_id) = (self.now(), self.next_id("om_"));
        self.messages.push(FeishuMessage {
            id: message_id,
            chat: id.to_owned(),
            parent: None,
            in_thread: false,
            card,
            edits: 0,
            created_at,
            ended: None,
            by_bot: true,
        });
        Ok(json!({"code": 0, "msg": "success", "data": {}}))
    }
}

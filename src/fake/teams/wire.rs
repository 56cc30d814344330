//! The HTTP API of the fake: what each path does, and what it refuses.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    BotTokenIssue, ConversationFault, FakeTeams, FakeTeamsState, TOKEN_LIFETIME, TeamsCall, TeamsFault, TeamsMessage,
    card,
};
use crate::chat::teams::{Cloud, TokenClaims, json_web_key, sign_activity_with};
use crate::clock;

/// The largest message, in bytes of UTF-16.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/bots/how-to/format-your-bot-messages>
const MAX_MESSAGE_BYTES: usize = 100 * 1024;
/// The largest request to a workflow.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>
const MAX_WORKFLOW_BYTES: usize = 28 * 1024;

/// A refusal of Teams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamsRefusal {
    /// The HTTP status.
    pub status: u16,
    /// The code; empty if the body is not JSON.
    pub code: String,
    /// What Teams says.
    pub message: String,
}

fn refusal(status: u16, code: &str, message: &str) -> TeamsRefusal {
    TeamsRefusal { status, code: code.to_owned(), message: message.to_owned() }
}

/// An answer: its status and body.
struct WireAnswer {
    status: u16,
    body: Value,
}

impl WireAnswer {
    fn ok(body: Value) -> Self {
        Self { status: 200, body }
    }
}

/// A request to the fake.
struct WireRequest<'a> {
    method: &'a Method,
    segments: Vec<String>,
    query: &'a str,
    bearer: Option<&'a str>,
    bytes: &'a [u8],
    body: Value,
}

pub(super) async fn handle_request(
    State(fake): State<FakeTeams>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    let segment = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let request = WireRequest {
        method: &method,
        segments: uri.path().split('/').filter(|part| !part.is_empty()).map(segment).collect(),
        query: uri.query().unwrap_or_default(),
        bearer: bearer.and_then(|bearer| bearer.strip_prefix("Bearer ")),
        bytes: &body,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let fault = fake.lock().find_fault(&method, uri.path());
    if fault.as_ref().is_some_and(|fault| fault.hangs && !fault.after_effect) {
        fake.lock().record(&request, &uri, 0);
        return std::future::pending().await;
    }
    let answer = match &fault {
        Some(fault) if !fault.after_effect => Err(fault_refusal(fault)),
        Some(_) | None => fake.lock().route_request(&request),
    };
    let status = answer.as_ref().map_or_else(|refused| refused.status, |answer| answer.status);
    fake.lock().record(&request, &uri, status);
    match fault {
        Some(fault) if fault.hangs => std::future::pending().await,
        Some(fault) => to_response(Err(fault_refusal(&fault)), fault.retry_after),
        None => to_response(answer, None),
    }
}

fn fault_refusal(fault: &TeamsFault) -> TeamsRefusal {
    refusal(fault.status, fault.code.as_deref().unwrap_or_default(), "a fault of the test")
}

fn to_response(answer: Result<WireAnswer, TeamsRefusal>, retry_after: Option<u16>) -> Response {
    let (status, body) = match answer {
        Ok(WireAnswer { status, body }) => (status, body.to_string()),
        Err(TeamsRefusal { status, code, .. }) if code.is_empty() => (status, "upstream error".to_owned()),
        Err(TeamsRefusal { status, code, message }) => {
            // The login service answers in another form.
            let entra = code.strip_prefix("AADSTS").and_then(|code| code.parse::<i64>().ok());
            let body = match entra {
                Some(code) => json!({"error": "invalid_client", "error_description": message, "error_codes": [code]}),
                None => json!({"error": {"code": code, "message": message}}),
            };
            (status, body.to_string())
        }
    };
    let is_json = body.starts_with('{');
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = if status == StatusCode::ACCEPTED { String::new() } else { body };
    let kind = if is_json { "application/json; charset=utf-8" } else { "text/plain" };
    let mut response = (status, [("content-type", kind)], body).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

impl FakeTeamsState {
    fn find_fault(&self, method: &Method, path: &str) -> Option<TeamsFault> {
        let fits = |fault: &&TeamsFault| {
            path.contains(&fault.path) && (fault.method.is_empty() || method.as_str() == fault.method)
        };
        self.faults.iter().find(fits).cloned()
    }

    fn record(&mut self, request: &WireRequest<'_>, uri: &Uri, status: u16) {
        let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let call = TeamsCall { method: request.method.to_string(), path, body: request.body.clone(), status };
        self.calls.push(call, request.bytes.len());
    }

    fn route_request(&mut self, request: &WireRequest<'_>) -> Result<WireAnswer, TeamsRefusal> {
        let segments: Vec<&str> = request.segments.iter().map(String::as_str).collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["v1", ".well-known", "openidconfiguration"]) => Ok(WireAnswer::ok(self.metadata_json())),
            ("GET", ["v1", ".well-known", "keys"]) => Ok(WireAnswer::ok(self.keys_json())),
            ("POST", [tenant, "oauth2", "v2.0", "token"]) => self.issue_token(request, tenant),
            ("POST", ["workflows", id]) => self.run_workflow(request, id),
            ("POST", ["fake", "sign"]) => self.sign_for_bridge(request),
            (method, ["teams", "v3", "conversations", rest @ ..]) => {
                self.check_bearer(request.bearer)?;
                match (method, rest) {
                    ("POST", []) => self.create_conversation(request),
                    ("POST", [conversation, "activities"]) => self.post_message(request, conversation, None),
                    ("POST", [conversation, "activities", parent]) => {
                        self.post_message(request, conversation, Some(parent))
                    }
                    ("PUT", [conversation, "activities", id]) => self.update_message(request, conversation, id),
                    ("DELETE", [conversation, "activities", id]) => self.delete_as_bot(conversation, id),
                    _ => Err(refusal(404, "", "no such path")),
                }
            }
            _ => Err(refusal(404, "", "no such path")),
        }
    }

    fn metadata_json(&self) -> Value {
        json!({
            "issuer": Cloud::Public.issuer(), "jwks_uri": format!("{}v1/.well-known/keys", self.url),
            "authorization_endpoint": "https://invalid.botframework.com",
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        })
    }

    fn keys_json(&self) -> Value {
        let key = |key: &super::PublishedKey| {
            let endorsements: Vec<_> = key.endorsements.iter().map(String::as_str).collect();
            json_web_key(&key.id, &endorsements).unwrap_or_default()
        };
        json!({"keys": self.keys.iter().map(key).collect::<Vec<_>>()})
    }

    /// Signs for a program that forwards activities of another client. The body names the activity and the claim `serviceurl`.
    fn sign_for_bridge(&self, request: &WireRequest<'_>) -> Result<WireAnswer, TeamsRefusal> {
        let activity = request.body.get("activity").cloned().unwrap_or_default();
        let service_url = request.body.get("serviceurl").or_else(|| activity.get("serviceUrl"));
        let service_url = service_url.and_then(Value::as_str).unwrap_or_default();
        let claims = TokenClaims::new(Cloud::Public, &self.settings.app, service_url);
        let key_id = self.keys.last().map_or(claims.key_id, |key| key.id.clone());
        let claims = TokenClaims { key_id, issued_at: self.now(), ..claims };
        let signed =
            sign_activity_with(&activity, &claims).map_err(|problem| refusal(500, "ServiceError", &problem))?;
        let headers: serde_json::Map<_, _> =
            signed.headers.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Ok(WireAnswer::ok(json!({"headers": headers, "body": signed.body})))
    }

    fn issue_token(&mut self, request: &WireRequest<'_>, tenant: &str) -> Result<WireAnswer, TeamsRefusal> {
        let form: Vec<_> = form_urlencoded::parse(request.bytes).into_owned().collect();
        let field = |name: &str| form.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        if tenant != self.settings.tenant {
            return Err(refusal(400, "AADSTS90002", "AADSTS90002: Tenant not found."));
        }
        if field("client_id") != Some(&self.settings.app) {
            return Err(refusal(400, "AADSTS700016", "AADSTS700016: Application was not found in the directory."));
        }
        if field("grant_type") != Some("client_credentials") || field("scope") != Some(Cloud::Public.scope()) {
            return Err(refusal(400, "AADSTS70011", "AADSTS70011: The provided value for scope is not valid."));
        }
        let secret = field("client_secret").unwrap_or_default();
        if !self.settings.client_secrets.iter().any(|valid| valid == secret) {
            return Err(refusal(401, "AADSTS7000215", "AADSTS7000215: Invalid client secret provided."));
        }
        let token = format!("fake-bot-token-{}", clock::nonce());
        self.tokens.push(BotTokenIssue { token: token.clone(), expires_at: self.now() + TOKEN_LIFETIME });
        let body = json!({"token_type": "Bearer", "expires_in": TOKEN_LIFETIME.as_secs(), "access_token": token});
        Ok(WireAnswer::ok(body))
    }

    fn check_bearer(&self, bearer: Option<&str>) -> Result<(), TeamsRefusal> {
        let now = self.now();
        let is_valid = |issued: &BotTokenIssue| Some(issued.token.as_str()) == bearer && now < issued.expires_at;
        if self.tokens.iter().any(is_valid) {
            Ok(())
        } else {
            Err(refusal(401, "Unauthorized", "Authorization has been denied for this request."))
        }
    }

    fn check_conversation(&self, conversation: &str) -> Result<(), TeamsRefusal> {
        match self.conversation_faults.get(conversation) {
            Some(ConversationFault::BotMissing) => {
                let words = "The bot is not part of the conversation roster.";
                Err(refusal(403, "BotNotInConversationRoster", words))
            }
            Some(ConversationFault::Blocked) => {
                Err(refusal(403, "ConversationBlockedByUser", "User blocked the conversation with the bot."))
            }
            Some(ConversationFault::Deleted) => Err(refusal(404, "ConversationNotFound", "Conversation not found.")),
            None => Ok(()),
        }
    }

    fn create_conversation(&mut self, request: &WireRequest<'_>) -> Result<WireAnswer, TeamsRefusal> {
        let body = &request.body;
        if let Some(channel) = body.pointer("/channelData/channel/id").and_then(Value::as_str) {
            let (channel, activity) = (channel.to_owned(), body.get("activity").cloned().unwrap_or_default());
            let id = self.add_message(&channel, None, activity, request.bytes)?;
            let conversation = format!("{channel};messageid={id}");
            return Ok(WireAnswer { status: 201, body: json!({"id": conversation, "activityId": id}) });
        }
        let tenant = body.get("tenantId").or_else(|| body.pointer("/channelData/tenant/id")).and_then(Value::as_str);
        let member = body.pointer("/members/0/id").and_then(Value::as_str).filter(|id| id.starts_with("29:"));
        let Some(member) = member.filter(|_| tenant == Some(&self.settings.tenant)).map(ToOwned::to_owned) else {
            return Err(refusal(400, "BadSyntax", "Bad format of conversation: a member and the tenant are required"));
        };
        let chat = self.open_chat(&member);
        self.check_conversation(&member)?;
        Ok(WireAnswer { status: 201, body: json!({"id": chat}) })
    }

    fn post_message(
        &mut self,
        request: &WireRequest<'_>,
        conversation: &str,
        parent: Option<&str>,
    ) -> Result<WireAnswer, TeamsRefusal> {
        let (base, root) = match conversation.split_once(";messageid=") {
            Some((base, root)) => (base, Some(root)),
            None => (conversation, None),
        };
        // Only channels have threads; in a chat, `replyToId` changes nothing.
        let parent = root.or(parent).or_else(|| request.body.get("replyToId").and_then(Value::as_str));
        let parent = parent.filter(|_| base.ends_with("@thread.tacv2"));
        let root = match parent {
            Some(parent) => {
                let found = self.find_message(base, parent)?;
                Some(found.root.clone().unwrap_or_else(|| found.id.clone()))
            }
            None => None,
        };
        let id = self.add_message(base, root, request.body.clone(), request.bytes)?;
        Ok(WireAnswer { status: 201, body: json!({"id": id}) })
    }

    fn find_message(&self, conversation: &str, id: &str) -> Result<&TeamsMessage, TeamsRefusal> {
        let fits =
            |message: &&TeamsMessage| message.conversation == conversation && message.id == id && !message.is_deleted;
        let words = "The message was not found in the conversation.";
        self.messages.iter().find(fits).ok_or_else(|| refusal(404, "ActivityNotFoundInConversation", words))
    }

    fn check_activity(&mut self, conversation: &str, activity: &Value, bytes: &[u8]) -> Result<(), TeamsRefusal> {
        if String::from_utf8_lossy(bytes).encode_utf16().count() * 2 > MAX_MESSAGE_BYTES {
            return Err(refusal(413, "MessageSizeTooBig", "Message size too large."));
        }
        self.check_conversation(conversation)?;
        if activity.get("type").and_then(Value::as_str) != Some("message") {
            return Err(refusal(400, "BadArgument", "Activity type is not message"));
        }
        if let Some(card) = card::card_of(activity) {
            card::check_adaptive_card(card).map_err(|problem| refusal(400, "BadArgument", &problem))?;
        } else if activity.get("text").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(refusal(400, "BadSyntax", "Activity resulted into multiple skype activities or is empty"));
        }
        if self.try_count_call(conversation) { Ok(()) } else { Err(refusal(429, "Throttled", "Too many requests.")) }
    }

    fn add_message(
        &mut self,
        conversation: &str,
        root: Option<String>,
        activity: Value,
        bytes: &[u8],
    ) -> Result<String, TeamsRefusal> {
        if !["19:", "a:"].iter().any(|start| conversation.starts_with(start)) {
            return Err(refusal(404, "ConversationNotFound", "Conversation not found."));
        }
        self.check_activity(conversation, &activity, bytes)?;
        let id = self.next_id();
        let conversation = conversation.to_owned();
        self.messages.push(TeamsMessage { id: id.clone(), conversation, root, activity, edits: 0, is_deleted: false });
        Ok(id)
    }

    fn update_message(
        &mut self,
        request: &WireRequest<'_>,
        conversation: &str,
        id: &str,
    ) -> Result<WireAnswer, TeamsRefusal> {
        let base = conversation.split_once(';').map_or(conversation, |(base, _)| base);
        self.find_message(base, id)?;
        self.check_activity(base, &request.body, request.bytes)?;
        for message in self.messages.iter_mut().filter(|message| message.id == id) {
            message.activity = request.body.clone();
            message.edits += 1;
        }
        Ok(WireAnswer::ok(json!({"id": id})))
    }

    fn delete_as_bot(&mut self, conversation: &str, id: &str) -> Result<WireAnswer, TeamsRefusal> {
        let base = conversation.split_once(';').map_or(conversation, |(base, _)| base);
        self.find_message(base, id)?;
        for message in self.messages.iter_mut().filter(|message| message.id == id) {
            message.is_deleted = true;
        }
        Ok(WireAnswer::ok(json!({})))
    }

    /// A workflow answers before it posts, and nobody hears of a card that it cannot post.
    fn run_workflow(&mut self, request: &WireRequest<'_>, id: &str) -> Result<WireAnswer, TeamsRefusal> {
        let signature = form_urlencoded::parse(request.query.as_bytes()).find(|(name, _)| name == "sig");
        if signature.as_ref().map(|(_, given)| given.as_ref()) != self.workflows.get(id).map(String::as_str) {
            let words = "The request must be authenticated only by Shared Access scheme.";
            return Err(refusal(401, "DirectApiAuthorizationRequired", words));
        }
        if request.bytes.len() > MAX_WORKFLOW_BYTES {
            return Err(refusal(413, "RequestEntityTooLarge", "The request is too large."));
        }
        let is_shown = card::card_of(&request.body).is_some_and(|card| card::check_adaptive_card(card).is_ok());
        if is_shown {
            let (conversation, activity) = (id.to_owned(), request.body.clone());
            let id = self.next_id();
            self.messages.push(TeamsMessage { id, conversation, root: None, activity, edits: 0, is_deleted: false });
        }
        Ok(WireAnswer { status: 202, body: Value::Null })
    }
}

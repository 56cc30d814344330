//! The HTTP API of the fake: what each path does, and what it refuses.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::timeline::{ShownKind, ShownPart};
use super::{
    CardInstance, CardRoute, DingTalkCall, DingTalkFault, FakeDingTalk, FakeDingTalkState, GroupFault, LiveToken,
    TOKEN_LIFETIME, VariableMap,
};
use crate::fake::Error;

/// The longest name and the longest value of a variable: 1 KB.
///
/// Source: <https://open.dingtalk.com/document/development/instructions-for-filling-in-api-card-data>
const MAX_NAME_BYTES: usize = 100;
const MAX_VARIABLE_BYTES: usize = 1024;

/// A refusal: HTTP status and code.
type StatusAndCode = (u16, &'static str);

const fn refuse(code: &'static str) -> StatusAndCode {
    (400, code)
}

/// A request to the API.
struct DingTalkRequest<'a> {
    path: &'a str,
    token: Option<&'a str>,
    body: Value,
}

impl DingTalkRequest<'_> {
    fn text(&self, name: &str) -> &str {
        self.body.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// The variables of a map: each is a text, with a limit.
pub(super) fn read_variables(map: &Value) -> Result<VariableMap, StatusAndCode> {
    let members = map.as_object().ok_or(refuse("param.invalid"))?;
    let read = |(name, value): (&String, &Value)| {
        let value = value.as_str().filter(|value| value.len() <= MAX_VARIABLE_BYTES && name.len() <= MAX_NAME_BYTES);
        value.map(|value| (name.clone(), value.to_owned())).ok_or(refuse("param.invalid"))
    };
    members.iter().map(read).collect()
}

pub(super) async fn handle_request(
    State(fake): State<FakeDingTalk>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    if path == "/fake/clicks" {
        let answer = click_on_request(&fake, &json).await;
        return answer.unwrap_or_else(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response());
    }
    let fault = fake.lock().faults.iter().find(|fault| path.starts_with(&fault.path)).cloned();
    if fault.as_ref().is_some_and(|fault| fault.hangs && !fault.after_effect) {
        return std::future::pending().await;
    }
    let token = headers.get("x-acs-dingtalk-access-token").and_then(|value| value.to_str().ok());
    let request = DingTalkRequest { path, token, body: json };
    let answer = match &fault {
        Some(fault) if !fault.after_effect => Err((fault.status, fault.code.unwrap_or("fault"))),
        Some(_) | None => fake.lock().route_request(&method, &request, query, body.len()),
    };
    let code = match &answer {
        Err((_, code)) => (*code).to_owned(),
        Ok(answer) => answer.get("errcode").filter(|code| **code != 0).map(ToString::to_string).unwrap_or_default(),
    };
    let call = DingTalkCall { method: method.to_string(), path: path.to_owned(), body: request.body, code };
    fake.lock().calls.push(call, body.len());
    match fault {
        Some(fault) if fault.hangs => std::future::pending().await,
        Some(fault) => fault_response(&fault),
        None => answer.map_or_else(refusal_response, |body| json_answer(200, &body)),
    }
}

/// Clicks for a person who plays with the fake: `{"outTrackId", "button", "userId", "reason"}`.
async fn click_on_request(fake: &FakeDingTalk, request: &Value) -> Result<Response, Error> {
    let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default();
    let by = fake.person_of_corp(text("userId"));
    let reason = request.get("reason").and_then(Value::as_str);
    let body = fake.click_button(text("outTrackId"), text("button"), &by, reason)?;
    let (status, answer) = fake.send_click(text("outTrackId"), &by, body).await?;
    Ok(json_answer(200, &json!({"status": status, "answer": answer})))
}

fn refusal_response((status, code): StatusAndCode) -> Response {
    json_answer(status, &json!({"code": code, "message": "a refusal of the fake", "requestid": "0A1B2C3D-0000"}))
}

fn fault_response(fault: &DingTalkFault) -> Response {
    let status = if fault.status == 0 { 400 } else { fault.status };
    let mut response = match fault.code.map(|code| (code, code.parse::<i64>())) {
        None => (to_status(status), "upstream error").into_response(),
        Some((_, Ok(number))) => json_answer(status, &json!({"errcode": number, "errmsg": "a fault of the test"})),
        Some((code, Err(_))) => refusal_response((status, code)),
    };
    if let Some(seconds) = fault.retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

fn to_status(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn json_answer(status: u16, body: &Value) -> Response {
    let headers = [("content-type", "application/json; charset=utf-8")];
    (to_status(status), headers, body.to_string()).into_response()
}

impl FakeDingTalkState {
    fn route_request(
        &mut self,
        method: &Method,
        request: &DingTalkRequest<'_>,
        query: &str,
        size: usize,
    ) -> Result<Value, StatusAndCode> {
        match (method.as_str(), request.path) {
            ("POST", "/v1.0/oauth2/accessToken") => return self.issue_token(request),
            ("POST", "/robot/send") => return Ok(self.send_as_robot(query, &request.body, size)),
            ("POST", "/robot/sendBySession") => return Ok(self.send_to_session(query, &request.body)),
            ("HEAD", "/robot/send") => return Ok(json!({})),
            _ => {}
        }
        let now = self.now();
        if !self.tokens.iter().any(|known| Some(known.token.as_str()) == request.token && now < known.expires_at) {
            return Err(refuse("InvalidAuthentication"));
        }
        if !self.try_count_call(request.path) {
            return Err((403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"));
        }
        if self.quota_is_used {
            return Err((403, "Forbidden.AccessDenied.ApiCountLimitForOrg"));
        }
        match (method.as_str(), request.path) {
            ("POST", "/v1.0/card/callbacks/register") => self.register(request),
            ("POST", "/v1.0/card/instances/createAndDeliver") => self.create_card(request),
            ("POST", "/v1.0/card/instances/deliver") => self.deliver_existing(request),
            ("PUT", "/v1.0/card/instances") => self.update_card(request),
            ("POST", "/v1.0/robot/groupMessages/send") => self.send_group_message(request),
            ("POST", "/v1.0/robot/oToMessages/batchSend") => self.send_private_message(request),
            _ => Err((404, "InvalidAction.NotFound")),
        }
    }

    /// Returns the same token while it is valid.
    fn issue_token(&mut self, request: &DingTalkRequest<'_>) -> Result<Value, StatusAndCode> {
        let known = &self.settings;
        if request.text("appKey") != known.app || request.text("appSecret") != known.app_secret {
            return Err(refuse("invalidClientIdOrSecret"));
        }
        let now = self.now();
        let valid = self.tokens.iter().find(|token| now < token.expires_at).cloned();
        let issued = valid.unwrap_or_else(|| {
            let issued = LiveToken { token: self.next_id("dt-"), expires_at: now + TOKEN_LIFETIME };
            self.tokens.push(issued.clone());
            issued
        });
        Ok(json!({"accessToken": issued.token, "expireIn": issued.expires_at.duration_since(now).as_secs()}))
    }

    fn register(&mut self, request: &DingTalkRequest<'_>) -> Result<Value, StatusAndCode> {
        let (route, url) = (request.text("callbackRouteKey").to_owned(), request.text("callbackUrl").to_owned());
        if route.is_empty() {
            return Err(refuse("param.callbackRouteKeyEmpty"));
        }
        if url.is_empty() {
            return Err(refuse("param.callbackUrlEmpty"));
        }
        let secret = Some(request.text("apiSecret").to_owned()).filter(|secret| !secret.is_empty());
        let force = request.body.get("forceUpdate") == Some(&Value::Bool(true));
        let given = CardRoute { url, secret };
        let known = self.registrations.entry(route).or_insert_with(|| given.clone());
        if force {
            *known = given;
        }
        Ok(json!({"success": true, "result": {"callbackUrl": known.url, "apiSecret": known.secret}}))
    }

    fn create_card(&mut self, request: &DingTalkRequest<'_>) -> Result<Value, StatusAndCode> {
        let out_track_id = request.text("outTrackId").to_owned();
        if out_track_id.is_empty() {
            return Err(refuse("param.outTrackIdEmpty"));
        }
        match request.text("cardTemplateId") {
            "" => return Err(refuse("param.cardTemplateIdEmpty")),
            template if template != self.settings.template => return Err(refuse("param.templateNotExist")),
            _ if self.unpublished => return Err(refuse("param.templateUnpublished")),
            _ => {}
        }
        if self.cards.iter().any(|card| card.out_track_id == out_track_id) {
            return Err(refuse("param.cardAlreadyExist"));
        }
        let route = request.text("callbackRouteKey").to_owned();
        if request.text("callbackType") != "HTTP" || route.is_empty() {
            return Err(refuse("param.invalid"));
        }
        let variables = request.body.pointer("/cardData/cardParamMap").ok_or(refuse("param.empty"))?;
        let card = CardInstance {
            out_track_id: out_track_id.clone(),
            route,
            space: None,
            variables: read_variables(variables)?,
            private: std::collections::BTreeMap::new(),
            overrides: std::collections::BTreeMap::new(),
            mentions: self.read_mentions(request)?,
            updates: 0,
        };
        let delivery = self.check_delivery(request)?;
        self.cards.push(card);
        Ok(self.finish_delivery(&out_track_id, delivery))
    }

    fn read_mentions(&self, request: &DingTalkRequest<'_>) -> Result<Vec<String>, StatusAndCode> {
        let mentions = request.body.pointer("/imGroupOpenDeliverModel/atUserIds").and_then(Value::as_object);
        let mentions: Vec<_> = mentions.into_iter().flatten().map(|(user, _)| user.clone()).collect();
        let is_known = mentions.iter().all(|user| !self.strangers.contains(user));
        if is_known { Ok(mentions) } else { Err(refuse("param.userIdNotExist")) }
    }

    fn deliver_existing(&mut self, request: &DingTalkRequest<'_>) -> Result<Value, StatusAndCode> {
        let id = request.text("outTrackId").to_owned();
        if !self.cards.iter().any(|card| card.out_track_id == id) {
            return Err(refuse("param.cardNotExist"));
        }
        let delivery = self.check_delivery(request)?;
        Ok(self.finish_delivery(&id, delivery))
    }

    /// Where a card goes: `IM_GROUP` or `IM_ROBOT`, and the group or the person.
    fn check_delivery(&self, request: &DingTalkRequest<'_>) -> Result<(String, String), StatusAndCode> {
        let space = request.text("openSpaceId").strip_prefix("dtv1.card//").and_then(|space| space.split_once('.'));
        let (kind, place) = space.ok_or(refuse("param.openSpaceIdInvalid"))?;
        let model = match kind {
            "IM_GROUP" if place.starts_with("cid") => "imGroupOpenDeliverModel",
            "IM_ROBOT" if !place.is_empty() => "imRobotOpenDeliverModel",
            _ => return Err(refuse("param.openSpaceIdInvalid")),
        };
        let robot = request.body.get(model).ok_or(refuse("param.openDeliverModelEmpty"))?.get("robotCode");
        if robot.and_then(Value::as_str) != Some(&self.settings.app) {
            return Err(refuse("param.openDeliverModelError"));
        }
        if kind == "IM_ROBOT" && self.strangers.contains(place) {
            return Err(refuse("param.userIdNotExist"));
        }
        if ![Some(1), None].contains(&request.body.get("userIdType").and_then(Value::as_i64)) {
            return Err(refuse("param.userIdNotExist"));
        }
        Ok((kind.to_owned(), place.to_owned()))
    }

    /// A delivery can fail inside a call that succeeds.
    fn finish_delivery(&mut self, id: &str, (kind, place): (String, String)) -> Value {
        let fault = self.groups.get(&place).copied();
        let message = match fault {
            Some(GroupFault::WithoutRobot) => "the robot is not in the group",
            Some(GroupFault::Disbanded) => "the group was disbanded",
            None => "",
        };
        for card in self.cards.iter_mut().filter(|card| card.out_track_id == id && fault.is_none()) {
            card.space = Some((kind.clone(), place.clone()));
            self.timeline.push(ShownPart { place: place.clone(), kind: ShownKind::Card(id.to_owned()) });
        }
        let result = json!({
            "spaceType": kind, "spaceId": place, "success": fault.is_none(), "carrierId": "", "errorMsg": message,
        });
        json!({"success": true, "result": {"outTrackId": id, "deliverResults": [result]}})
    }

    fn update_card(&mut self, request: &DingTalkRequest<'_>) -> Result<Value, StatusAndCode> {
        let id = request.text("outTrackId").to_owned();
        let by_key =
            |name: &str| request.body.pointer(&format!("/cardUpdateOptions/{name}")) == Some(&Value::Bool(true));
        let given = request.body.pointer("/cardData/cardParamMap").map(read_variables).transpose()?;
        let private = request.body.get("privateData").and_then(Value::as_object);
        if given.is_none() && private.is_none() {
            return Err(refuse("param.cardDataAndPrivateDataBothEmpty"));
        }
        let card = self.cards.iter_mut().find(|card| card.out_track_id == id).ok_or(refuse("param.cardNotExist"))?;
        if let Some(given) = given {
            if !by_key("updateCardDataByKey") {
                card.variables.clear();
            }
            card.variables.extend(given);
            card.overrides.clear();
        }
        for (user, data) in private.into_iter().flatten() {
            let own = card.private.entry(user.clone()).or_default();
            if !by_key("updatePrivateDataByKey") {
                own.clear();
            }
            own.extend(read_variables(data.get("cardParamMap").unwrap_or(&Value::Null))?);
        }
        card.updates += 1;
        Ok(json!({"success": true, "result": true}))
    }

    fn read_text(&self, request: &DingTalkRequest<'_>) -> Result<String, StatusAndCode> {
        if request.text("robotCode") != self.settings.app {
            return Err(refuse("invalidParameter.robotCode.notExsit"));
        }
        if request.text("msgKey") != "sampleText" {
            return Err(refuse("invalidParameter.msgKey.invalid"));
        }
        let content: Option<Value> = serde_json::from_str(request.text("msgParam")).ok();
        let content = content.as_ref().and_then(|content| content.get("content")).and_then(Value::as_str);
        content.map(ToOwned::to_owned).ok_or(refuse("invalidParameter.msgParam.invalid"))
    }

    fn send_group_message(&mut self, request: &DingTalkRequest<'_>) -> Result<Value, StatusAndCode> {
        let (text, group) = (self.read_text(request)?, request.text("openConversationId").to_owned());
        match self.groups.get(&group) {
            _ if !group.starts_with("cid") => return Err(refuse("invalid.openConversationId")),
            Some(GroupFault::WithoutRobot) => return Err(refuse("invalidParameter.robotCode.empty")),
            Some(GroupFault::Disbanded) => return Err(refuse("group.disbanded")),
            None => {}
        }
        let mentions = request.body.get("atUserIds").and_then(Value::as_array).into_iter().flatten();
        let mentions = mentions.filter_map(Value::as_str).map(ToOwned::to_owned).collect();
        self.add_text(&group, &text, mentions);
        Ok(json!({"processQueryKey": self.next_id("")}))
    }

    fn send_private_message(&mut self, request: &DingTalkRequest<'_>) -> Result<Value, StatusAndCode> {
        let text = self.read_text(request)?;
        let users = request.body.get("userIds").and_then(Value::as_array).into_iter().flatten();
        let users: Vec<_> = users.filter_map(Value::as_str).map(ToOwned::to_owned).collect();
        let Some(user) = users.first() else { return Err(refuse("invalidParameter.userIds.empty")) };
        let invalid: Vec<_> = users.iter().filter(|user| self.strangers.contains(*user)).cloned().collect();
        if invalid.is_empty() {
            self.add_text(user, &text, vec![]);
        }
        Ok(json!({
            "processQueryKey": self.next_id(""), "invalidStaffIdList": invalid, "flowControlledStaffIdList": [],
        }))
    }
}

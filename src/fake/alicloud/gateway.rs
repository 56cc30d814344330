//! The gateway in front of the simulated API: HTTP, quotas, `AssumeRole`, faults on demand, and a journal.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::credentials::KeyRegistry;
use super::disguise::Disguises;
use super::gateway_request::GatewayRequest;
use super::oidc;
use super::{
    ApiError, JournalEntry, SimulatedApi, SimulatorSettings, Tampering, format_time, is_dry_run, require_parameter,
};
use crate::alicloud::sign::Parameters;
use crate::peering::{AccountId, Connection, InstanceId};
use crate::{alicloud, clock};

const QUOTA_WINDOW: SignedDuration = SignedDuration::from_secs(60);
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A running simulator: what it did, and how to make its life harder.
#[derive(Debug, Clone)]
pub struct Simulator {
    state: Arc<Mutex<SimulatorState>>,
}

#[derive(Debug)]
struct SimulatorState {
    world: SimulatedApi,
    credentials: KeyRegistry,
    calls: HashMap<(AccountId, String), VecDeque<Timestamp>>,
    /// VPCs with an accept or reject on its way.
    locked_vpcs: HashSet<String>,
    faults: Vec<Fault>,
    disguises: Disguises,
    journal: Vec<JournalEntry>,
}

/// Something that goes wrong with the next calls.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Of this operation only.
    pub action: Option<String>,
    /// Of this account's calls only.
    pub account: Option<AccountId>,
    /// For so many calls.
    #[serde(default = "default_times")]
    pub times: u32,
    /// The call takes so long before it does anything.
    #[serde(default)]
    pub delay_ms: u64,
    /// The answer, instead of the true one.
    pub code: Option<String>,
    /// With `code` or `raw`.
    #[serde(default = "default_http_status")]
    pub http_status: u16,
    /// The answer is this text, which is none of the API's.
    pub raw: Option<String>,
    /// The header `x-acs-retry-after`.
    pub retry_after_ms: Option<u64>,
    /// The call takes effect all the same: only its answer is lost.
    #[serde(default)]
    pub after_effect: bool,
    /// Dry runs of the operation are meant, and no other calls of it.
    #[serde(default)]
    pub dry_run: bool,
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            action: None,
            account: None,
            times: 1,
            delay_ms: 0,
            code: None,
            http_status: 400,
            raw: None,
            retry_after_ms: None,
            after_effect: false,
            dry_run: false,
        }
    }
}

fn default_times() -> u32 {
    1
}

fn default_http_status() -> u16 {
    400
}

impl Simulator {
    /// A simulator; [`Simulator::serve`] lets it answer.
    #[must_use]
    pub fn new(settings: SimulatorSettings) -> Self {
        let credentials = KeyRegistry::new(settings.accounts.clone());
        let inner = SimulatorState {
            world: SimulatedApi::new(settings),
            credentials,
            calls: HashMap::new(),
            locked_vpcs: HashSet::new(),
            faults: vec![],
            disguises: Disguises::default(),
            journal: vec![],
        };
        Self { state: Arc::new(Mutex::new(inner)) }
    }

    /// Answers on `listener` until the task ends.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        axum::serve(listener, self.router()).await
    }

    /// The API at `/`, and at `/_simulator/…` what tests need: `GET journal`, `POST faults`, `POST connections/{id}`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/", any(handle_api_call))
            .route(
                "/_simulator/journal",
                get(async |State(simulator): State<Self>| json_response(StatusCode::OK, &json!(simulator.journal()))),
            )
            .route("/_simulator/faults", post(handle_add_fault))
            .route("/_simulator/connections/{id}", post(handle_tamper))
            .with_state(self)
    }

    fn lock(&self) -> MutexGuard<'_, SimulatorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was asked so far.
    #[must_use]
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.lock().journal.clone()
    }

    /// How often an operation took effect on a connection.
    #[must_use]
    pub fn count_effects(&self, action: &str, instance_id: &str) -> usize {
        let journal = &self.lock().journal;
        let of = |entry: &&JournalEntry| {
            entry.effect
                && entry.action == action
                && entry.parameters.get("InstanceId").is_some_and(|id| id == instance_id)
        };
        journal.iter().filter(of).count()
    }

    /// Has the first account ask the second for a peering, without a call; `more` adds to what it asks for or overrides
    /// it. `None` if there are no two, or it is refused.
    #[must_use]
    pub fn request_peering(&self, more: &[(&str, &str)]) -> Option<String> {
        let mut inner = self.lock();
        let [requester, accepter] = inner.world.settings.accounts.get(..2)? else { return None };
        let (requester, accepter) = (requester.account, accepter.account.to_string());
        let mut call = Parameters::from(
            [
                ("RegionId", "cn-hangzhou"),
                ("VpcId", "vpc-requester"),
                ("AcceptingAliUid", &accepter),
                ("AcceptingRegionId", "cn-shanghai"),
                ("AcceptingVpcId", "vpc-accepter"),
                ("Name", "asked for at the start"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        call.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (answer, _) = inner.world.call_operation(requester, "CreateVpcPeerConnection", &call, clock::now());
        Some(answer.ok()?.get("InstanceId")?.as_str()?.to_owned())
    }

    /// A connection as its parties read it, without a call.
    #[must_use]
    pub fn read_connection(&self, instance_id: &str) -> Option<Connection> {
        let inner = self.lock();
        let shown = inner.disguises.to_json_text(inner.world.shown_json(instance_id, clock::now())?);
        alicloud::parse_connection_body(200, shown.as_bytes(), &InstanceId::parse(instance_id).ok()?).ok()
    }

    /// The true status of a connection, whatever readings show.
    #[must_use]
    pub fn true_status(&self, instance_id: &str) -> Option<&'static str> {
        self.lock().world.status_of(instance_id, clock::now())
    }

    /// Temporary credentials of an account for an hour: access key id, secret, security token.
    #[must_use]
    pub fn temporary_credentials(&self, account: AccountId) -> Option<(String, String, String)> {
        let session = self.lock().credentials.create_session(
            account,
            "temporary",
            clock::now() + SignedDuration::from_hours(1),
        )?;
        Some((session.access_key_id, session.access_key_secret, session.security_token))
    }

    /// From now on, each call takes so long, and an account may make so many calls of an operation in 60 s.
    pub fn set_limits(&self, latency: Duration, quota: Option<usize>) {
        let mut inner = self.lock();
        (inner.world.settings.latency, inner.world.settings.calls_per_minute) = (latency, quota);
        inner.calls.clear();
    }

    /// Makes something go wrong.
    pub fn add_fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// How many calls are still to go wrong.
    #[must_use]
    pub fn pending_faults(&self) -> u32 {
        self.lock().faults.iter().map(|fault| fault.times).sum()
    }

    /// Has fields of a connection written otherwise from now on, each as this text; as they are, without any.
    pub fn disguise(&self, instance_id: &str, fields: &[(&str, &str)]) {
        self.lock().disguises.set_fields(instance_id, fields);
    }

    /// Changes a connection behind everybody's back; says whether there is one.
    #[must_use]
    pub fn tamper(&self, instance_id: &str, tampering: Tampering) -> bool {
        self.lock().world.tamper(instance_id, tampering, clock::now())
    }
}

async fn handle_add_fault(State(simulator): State<Simulator>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(fault) => simulator.add_fault(fault),
        Err(error) => {
            return json_response(StatusCode::BAD_REQUEST, &json!({"error": error.to_string()}));
        }
    }
    json_response(StatusCode::OK, &json!({}))
}

async fn handle_tamper(State(simulator): State<Simulator>, Path(id): Path<String>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(tampering) => {
            let known = simulator.tamper(&id, tampering);
            json_response(if known { StatusCode::OK } else { StatusCode::NOT_FOUND }, &json!({}))
        }
        Err(error) => json_response(StatusCode::BAD_REQUEST, &json!({"error": error.to_string()})),
    }
}

async fn handle_api_call(State(simulator): State<Simulator>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let decode = |bytes: &[u8]| form_urlencoded::parse(bytes).into_owned().collect::<Parameters>();
    let call = GatewayRequest {
        method: parts.method.as_str().to_owned(),
        query: decode(parts.uri.query().unwrap_or_default().as_bytes()),
        form: decode(&body),
        headers: parts.headers,
        body,
    };
    let request_id = clock::nonce().to_uppercase();
    if let Some((status, text)) = simulator.lock().take_raw_fault(&call) {
        return (status, text).into_response();
    }
    let (answer, effect_account) = simulator.answer_call(&call).await;
    let (action, account, effect) = effect_account;
    let mut parameters = call.merged_parameters();
    parameters.retain(|name, _| !is_common_parameter(name));
    let code = answer.as_ref().map_or_else(|error| error.code.clone(), |_| "OK".to_owned());
    let session = call.access_key_id().and_then(|key| simulator.lock().credentials.session_name(&key));
    simulator.lock().journal.push(JournalEntry { action, account, session, parameters, code, effect });
    let mut response = match answer {
        Ok(mut body) => {
            if let Some(fields) = body.as_object_mut() {
                fields.insert("RequestId".into(), request_id.clone().into());
            }
            json_text_response(StatusCode::OK, simulator.lock().disguises.to_json_text(body))
        }
        Err(error) => error_response(&error, &request_id),
    };
    if let Ok(request_id) = request_id.parse() {
        response.headers_mut().insert("x-acs-request-id", request_id);
    }
    response
}

/// Parameters that belong to the envelope of a V1 call.
fn is_common_parameter(name: &str) -> bool {
    [
        // Not common, but nobody else's business.
        "OIDCToken",
        "Action",
        "Version",
        "Format",
        "AccessKeyId",
        "SignatureMethod",
        "SignatureVersion",
        "SignatureNonce",
        "Timestamp",
        "SecurityToken",
        "Signature",
    ]
    .contains(&name)
}

fn error_response(error: &ApiError, request_id: &str) -> Response {
    let status = StatusCode::from_u16(error.http_status).unwrap_or(StatusCode::BAD_REQUEST);
    let recommend = format!("https://api.aliyun.com/troubleshoot?q={}&product=VpcPeer", error.code);
    let mut response = json_response(
        status,
        &json!({
            "RequestId": request_id,
            "HostId": "vpcpeer.aliyuncs.com",
            "Code": error.code,
            "Message": error.message,
            "Recommend": recommend,
        }),
    );
    if let Some(wait) = error.retry_after {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        response.headers_mut().insert("x-acs-retry-after", millis.into());
    }
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    json_text_response(status, body.to_string())
}

fn json_text_response(status: StatusCode, body: String) -> Response {
    (status, [("content-type", "application/json")], body).into_response()
}

impl Simulator {
    /// Answers a call; tells also the operation, the caller, and whether it changed anything.
    async fn answer_call(&self, call: &GatewayRequest) -> (Result<Value, ApiError>, (String, AccountId, bool)) {
        let mut parameters = call.merged_parameters();
        let action = call.header("x-acs-action").map(ToOwned::to_owned).or_else(|| parameters.get("Action").cloned());
        let action = action.unwrap_or_default();
        if action == "AssumeRoleWithOIDC" {
            let version = call.query.get("Version").map(String::as_str);
            if call.query.contains_key("OIDCToken")
                || !call.query.contains_key("Action")
                || version != Some("2015-04-01")
            {
                let wrong = "The common parameters belong into the URL, the token into the body.";
                return (Err(ApiError::new(400, "InvalidParameter", wrong)), (action, AccountId(0), false));
            }
            let answer = self.assume_role_with_oidc(&parameters).await;
            return (answer, (action, AccountId(0), false));
        }
        let authentic = self.lock().credentials.authenticate(call, clock::now());
        let account = match authentic {
            Ok(account) => account,
            Err(error) => return (Err(error), (action, AccountId(0), false)),
        };
        parameters.retain(|name, _| !is_common_parameter(name));
        let dry_run = is_dry_run(&parameters);
        let latency = self.lock().world.settings.latency;
        let fault = self.lock().take_fault(&action, account, dry_run);
        let writes = !dry_run && ["AcceptVpcPeerConnection", "RejectVpcPeerConnection"].contains(&action.as_str());
        let id = parameters.get("InstanceId").filter(|_| writes);
        let Some(_busy) = VpcLock::try_lock(self, id) else {
            let busy = "There are other peering operations on the requester VPC or accepter VPC, try again later.";
            return (Err(ApiError::new(400, "Conflict.Operation", busy)), (action, account, false));
        };
        let delay = fault.as_ref().map_or(Duration::ZERO, |fault| Duration::from_millis(fault.delay_ms));
        if !(latency + delay).is_zero() {
            tokio::time::sleep(latency + delay).await;
        }
        let forged = fault.as_ref().and_then(|fault| {
            fault.code.as_ref().map(|code| ApiError {
                retry_after: fault.retry_after_ms.map(Duration::from_millis),
                ..ApiError::new(fault.http_status, code, "Simulated.")
            })
        });
        let (answer, effect) = match (&fault, forged) {
            (Some(fault), Some(error)) if fault.after_effect => {
                (Err(error), self.lock().call_within_quota(account, &action, &parameters).1)
            }
            (_, Some(error)) => (Err(error), false),
            (_, None) => self.lock().call_within_quota(account, &action, &parameters),
        };
        (answer, (action, account, effect))
    }
}

impl Simulator {
    /// Ends all sessions: their keys are refused from now on.
    pub fn forget_sessions(&self) {
        self.lock().credentials.forget_sessions();
    }

    /// Unsigned: the token is all that the caller has.
    ///
    /// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerolewithoidc>
    async fn assume_role_with_oidc(&self, call: &Parameters) -> Result<Value, ApiError> {
        let fault = self.lock().take_fault("AssumeRoleWithOIDC", AccountId(0), false);
        if let Some((code, fault)) = fault.as_ref().and_then(|fault| Some((fault.code.as_ref()?, fault))) {
            return Err(ApiError::new(fault.http_status, code, "Simulated."));
        }
        let (arn, token) = (require_parameter(call, "OIDCProviderArn")?, require_parameter(call, "OIDCToken")?);
        let provider = self.lock().world.settings.providers.iter().find(|provider| provider.arn == arn).cloned();
        let unknown = || ApiError::new(400, "AuthenticationFail.NoPermission", "No such OIDC Provider registered.");
        let provider = provider.ok_or_else(unknown)?;
        let http = crate::http::new_client().map_err(|_| ApiError::new(500, "InternalError", "Simulated."))?;
        oidc::check_token(&http, &provider, &token, clock::now()).await?;
        self.lock().assume_role(call, clock::now())
    }
}

/// Marks both VPCs of a connection as having an operation on its way, until it goes: also when the caller goes away.
struct VpcLock<'a> {
    simulator: &'a Simulator,
    vpcs: Vec<String>,
}

impl<'a> VpcLock<'a> {
    /// `None` when one of them has one already.
    fn try_lock(simulator: &'a Simulator, id: Option<&String>) -> Option<Self> {
        let mut inner = simulator.lock();
        let vpcs = id.map(|id| inner.world.vpcs_of(id)).unwrap_or_default();
        if vpcs.iter().any(|vpc| inner.locked_vpcs.contains(vpc)) {
            return None;
        }
        inner.locked_vpcs.extend(vpcs.clone());
        Some(Self { simulator, vpcs })
    }
}

impl Drop for VpcLock<'_> {
    fn drop(&mut self) {
        let mut inner = self.simulator.lock();
        for vpc in &self.vpcs {
            inner.locked_vpcs.remove(vpc);
        }
    }
}

impl SimulatorState {
    /// The answer of a proxy or a broken gateway, before anybody looks at the call.
    fn take_raw_fault(&mut self, call: &GatewayRequest) -> Option<(StatusCode, String)> {
        let action = call.header("x-acs-action").unwrap_or_default();
        let dry_run = is_dry_run(&call.merged_parameters());
        let meant = |fault: &Fault, name: &str| name == action && fault.dry_run == dry_run;
        let wanted = |fault: &&mut Fault| {
            fault.times > 0 && fault.account.is_none() && fault.action.as_deref().is_none_or(|name| meant(fault, name))
        };
        let fault = self.faults.iter_mut().find(wanted).filter(|fault| fault.raw.is_some())?;
        fault.times -= 1;
        Some((StatusCode::from_u16(fault.http_status).ok()?, fault.raw.clone()?))
    }

    fn take_fault(&mut self, action: &str, account: AccountId, dry_run: bool) -> Option<Fault> {
        let matches = |fault: &Fault| {
            let meant = |name: &String| name == action && fault.dry_run == dry_run;
            let whose = fault.account.is_none_or(|whose| whose == account);
            fault.times > 0 && whose && fault.action.as_ref().is_none_or(meant)
        };
        let fault = self.faults.iter_mut().find(|fault| matches(fault))?;
        fault.times -= 1;
        Some(fault.clone())
    }

    fn call_within_quota(
        &mut self,
        account: AccountId,
        action: &str,
        parameters: &Parameters,
    ) -> (Result<Value, ApiError>, bool) {
        let now = clock::now();
        if let Err(error) = self.check_quota(account, action, now) {
            return (Err(error), false);
        }
        match action {
            "AssumeRole" => {
                let expected = parameters.get("RoleArn").and_then(|arn| self.world.settings.external_ids.get(arn));
                if expected.is_some_and(|id| parameters.get("ExternalId") != Some(id)) {
                    let message = "You are not authorized to do this action.";
                    return (Err(ApiError::new(403, "NoPermission", message)), false);
                }
                return (self.assume_role(parameters, now), false);
            }
            "GetCallerIdentity" => {
                return (Ok(json!({"AccountId": account.to_string(), "IdentityType": "RAMUser"})), false);
            }
            _ => {}
        }
        self.world.call_operation(account, action, parameters, now)
    }

    fn check_quota(&mut self, account: AccountId, action: &str, now: Timestamp) -> Result<(), ApiError> {
        let Some(quota) = self.world.settings.calls_per_minute else {
            return Ok(());
        };
        let calls = self.calls.entry((account, action.to_owned())).or_default();
        while calls.front().is_some_and(|at| now.duration_since(*at) >= QUOTA_WINDOW) {
            calls.pop_front();
        }
        if calls.len() >= quota {
            let wait = calls.front().map(|at| QUOTA_WINDOW - now.duration_since(*at)).unwrap_or_default();
            let message = "Request was denied due to user flow control.";
            let retry_after = Duration::try_from(wait).ok();
            return Err(ApiError { retry_after, ..ApiError::new(400, "Throttling.User", message) });
        }
        calls.push_back(now);
        Ok(())
    }

    /// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerole>
    fn assume_role(&mut self, call: &Parameters, now: Timestamp) -> Result<Value, ApiError> {
        let arn = require_parameter(call, "RoleArn")?;
        let session = require_parameter(call, "RoleSessionName")?;
        let no_role = || ApiError::new(404, "EntityNotExist.Role", "The role not exists.");
        let role = arn.strip_prefix("acs:ram::").and_then(|rest| rest.split_once(":role/")).ok_or_else(no_role)?;
        let account = AccountId::try_from(role.0.to_owned()).map_err(|_| no_role())?;
        let seconds = super::integer_parameter(call, "DurationSeconds")?.unwrap_or(3600);
        let expires_at = now + SignedDuration::from_secs(seconds);
        let new = self.credentials.create_session(account, &session, expires_at).ok_or_else(no_role)?;
        let (name, id) = (role.1, "300000000000000000");
        let arn = format!("acs:ram::{account}:role/{name}/{session}");
        let answer = json!({
            "AssumedRoleUser": {"Arn": arn, "AssumedRoleId": format!("{id}:{session}")},
            "Credentials": {
                "AccessKeyId": new.access_key_id,
                "AccessKeySecret": new.access_key_secret,
                "SecurityToken": new.security_token,
                "Expiration": format_time(expires_at),
            },
        });
        Ok(answer)
    }
}

/// Where a simulator on `listener` is reached.
pub fn listener_url(listener: &TcpListener) -> std::io::Result<Url> {
    let address = listener.local_addr()?;
    Url::parse(&format!("http://{address}/")).map_err(std::io::Error::other)
}

//! The gateway in front of the simulated API: HTTP, quotas, and the journal. [`Simulator`] also lets tests control the API.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

pub use super::fault::Fault;

use super::credentials::{KeyRegistry, TemporaryCredentials};
use super::disguise::Disguises;
use super::fault::{Faults, RawAnswer};
use super::gateway_request::GatewayRequest;
use super::peerings::SimulatedApi;
use super::{ApiError, ApiResult, JournalEntry, OperationResult, SimulatorSettings, Tampering, is_dry_run};
use crate::alicloud::sign::Parameters;
use crate::fake::loopback;
use crate::peering::{AccountId, Connection, InstanceId};
use crate::{alicloud, clock};

const QUOTA_WINDOW: SignedDuration = SignedDuration::from_secs(60);
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A running simulator.
#[derive(Debug, Clone)]
pub struct Simulator {
    state: Arc<Mutex<SimulatorState>>,
}

#[derive(Debug)]
pub(super) struct SimulatorState {
    pub(super) api: SimulatedApi,
    pub(super) credentials: KeyRegistry,
    pub(super) faults: Faults,
    /// The times of the last calls, by account and operation.
    calls: HashMap<(AccountId, String), VecDeque<Timestamp>>,
    /// The VPCs with an unfinished accept or reject.
    locked_vpcs: HashSet<String>,
    disguises: Disguises,
    journal: Vec<JournalEntry>,
}

impl Simulator {
    /// A simulator that does not listen yet: see [`Simulator::serve`].
    #[must_use]
    pub fn new(settings: SimulatorSettings) -> Self {
        let credentials = KeyRegistry::new(settings.accounts.clone());
        let state = SimulatorState {
            api: SimulatedApi::new(settings),
            credentials,
            faults: Faults::default(),
            calls: HashMap::new(),
            locked_vpcs: HashSet::new(),
            disguises: Disguises::default(),
            journal: vec![],
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Answers requests on `listener` until the task ends.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        loopback::serve(listener, self.router()).await
    }

    /// The API is at `/`. Tests control the simulator at `/_simulator/…` with
    /// `GET journal`, `POST faults` and `POST connections/{id}`.
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

    pub(super) fn lock(&self) -> MutexGuard<'_, SimulatorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All calls so far.
    #[must_use]
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.lock().journal.clone()
    }

    /// How many calls of an operation had an effect on a connection.
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

    /// Lets the first account request a peering with the second, without a call. `more` adds or replaces parameters.
    /// Returns the id; `None` if there are no two accounts, or the request is refused.
    #[must_use]
    pub fn request_peering(&self, more: &[(&str, &str)]) -> Option<String> {
        let mut state = self.lock();
        let [requester, accepter] = state.api.settings.accounts.get(..2)? else { return None };
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
        let result = state.api.call_operation(requester, "CreateVpcPeerConnection", &call, clock::now());
        Some(result.answer.ok()?.get("InstanceId")?.as_str()?.to_owned())
    }

    /// The answer to a reading, as JSON, without a call.
    #[must_use]
    pub fn shown_answer(&self, instance_id: &str) -> Option<String> {
        let state = self.lock();
        Some(state.disguises.to_json_text(state.api.shown_json(instance_id, clock::now())?))
    }

    /// A connection as reads show it, without a call.
    #[must_use]
    pub fn read_connection(&self, instance_id: &str) -> Option<Connection> {
        let shown = self.shown_answer(instance_id)?;
        alicloud::parse_connection_body(200, shown.as_bytes(), &InstanceId::parse(instance_id).ok()?).ok()
    }

    /// The true status of a connection, whatever reads show.
    #[must_use]
    pub fn true_status(&self, instance_id: &str) -> Option<&'static str> {
        self.lock().api.status_of(instance_id, clock::now())
    }

    /// Issues credentials of an account that are valid for an hour; `None` for an unknown account.
    #[must_use]
    pub fn temporary_credentials(&self, account: AccountId) -> Option<TemporaryCredentials> {
        let expires_at = clock::now() + SignedDuration::from_hours(1);
        self.lock().credentials.create_session(account, "temporary", expires_at)
    }

    /// Ends all sessions. Their keys are refused from now on.
    pub fn forget_sessions(&self) {
        self.lock().credentials.forget_sessions();
    }

    /// Sets the duration of a call, and the calls per account and operation in 60 s.
    pub fn set_limits(&self, latency: Duration, quota: Option<usize>) {
        let mut state = self.lock();
        (state.api.settings.latency, state.api.settings.calls_per_minute) = (latency, quota);
        state.calls.clear();
    }

    /// Lets the next calls fail or be late.
    pub fn add_fault(&self, fault: Fault) {
        self.lock().faults.add(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// The number of calls that will fail or be late.
    #[must_use]
    pub fn pending_faults(&self) -> u32 {
        self.lock().faults.pending()
    }

    /// Sets the text of fields of a connection in answers. An empty list ends all changes.
    pub fn disguise(&self, instance_id: &str, fields: &[(&str, &str)]) {
        self.lock().disguises.set_fields(instance_id, fields);
    }

    /// Sets the CIDR blocks of a VPC.
    pub fn set_cidrs(&self, vpc: &str, cidrs: BTreeSet<IpNet>) {
        self.lock().api.set_cidrs(vpc, cidrs);
    }

    /// Gives a VPC CIDR blocks that only its owner sees, and no peering shows.
    pub fn hide_cidrs(&self, vpc: &str, cidrs: BTreeSet<IpNet>) {
        self.lock().api.routing.hide_cidrs(vpc, cidrs);
    }

    /// Adds a route table with these vSwitches to a VPC.
    pub fn add_route_table(&self, vpc: &str, id: &str, vswitches: &[&str]) {
        self.lock().api.routing.add_table(vpc, id, vswitches);
    }

    /// Adds a route. The system table of a VPC is `vtb-` and the id of the VPC.
    pub fn add_route(&self, table: &str, destination: &str, next_hop: &str) {
        self.lock().api.routing.add_route(table, destination, next_hop, clock::now());
    }

    /// Removes all routes of a table.
    pub fn remove_routes(&self, table: &str) {
        self.lock().api.routing.remove_routes(table);
    }

    /// Changes a connection without a call. Returns whether it exists.
    #[must_use]
    pub fn tamper(&self, instance_id: &str, tampering: Tampering) -> bool {
        self.lock().api.tamper(instance_id, tampering, clock::now())
    }
}

/// A call, and what came of it.
struct AnsweredCall {
    action: String,
    account: AccountId,
    result: OperationResult,
    answer_delay: Duration,
}

impl AnsweredCall {
    /// A call that is not signed, or not authentic.
    fn of_nobody(action: String, answer: ApiResult) -> Self {
        let result = OperationResult::without_effect(answer);
        Self { action, account: AccountId(0), result, answer_delay: Duration::ZERO }
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
    if let Some(RawAnswer { status, body }) = simulator.lock().faults.take_raw(&call) {
        return (status, body).into_response();
    }
    let AnsweredCall { action, account, result, answer_delay } = simulator.answer_call(&call).await;
    let OperationResult { answer, had_effect: effect } = result;
    let mut parameters = call.merged_parameters();
    parameters.retain(|name, _| !is_common_parameter(name));
    let code = answer.as_ref().map_or_else(|error| error.code.clone(), |_| "OK".to_owned());
    let session = call.access_key_id().and_then(|key| simulator.lock().credentials.session_name(&key));
    simulator.lock().journal.push(JournalEntry { action, account, session, parameters, code, effect });
    if !answer_delay.is_zero() {
        tokio::time::sleep(answer_delay).await;
    }
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

/// Whether a parameter is part of each call, or secret. The journal does not have it.
fn is_common_parameter(name: &str) -> bool {
    [
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
    async fn answer_call(&self, call: &GatewayRequest) -> AnsweredCall {
        let mut parameters = call.merged_parameters();
        let action = call.header("x-acs-action").map(ToOwned::to_owned).or_else(|| parameters.get("Action").cloned());
        let action = action.unwrap_or_default();
        if action == "AssumeRoleWithOIDC" {
            let version = call.query.get("Version").map(String::as_str);
            if call.query.contains_key("OIDCToken")
                || !call.query.contains_key("Action")
                || version != Some("2015-04-01")
            {
                let message = "The common parameters must be in the URL, and the token in the body.";
                return AnsweredCall::of_nobody(action, Err(ApiError::new(400, "InvalidParameter", message)));
            }
            return AnsweredCall::of_nobody(action, self.assume_role_with_oidc(&parameters).await);
        }
        let authentic = self.lock().credentials.authenticate(call, clock::now());
        let account = match authentic {
            Ok(account) => account,
            Err(error) => return AnsweredCall::of_nobody(action, Err(error)),
        };
        parameters.retain(|name, _| !is_common_parameter(name));
        let fault = self.lock().faults.take(&action, account, is_dry_run(&parameters));
        let result = self.answer_authentic_call(&action, account, &parameters, fault.as_ref()).await;
        let answer_delay = fault.map_or(Duration::ZERO, |fault| Duration::from_millis(fault.answer_delay_ms));
        AnsweredCall { action, account, result, answer_delay }
    }

    async fn answer_authentic_call(
        &self,
        action: &str,
        account: AccountId,
        parameters: &Parameters,
        fault: Option<&Fault>,
    ) -> OperationResult {
        let dry_run = is_dry_run(parameters);
        let latency = self.lock().api.settings.latency;
        let writes = !dry_run && ["AcceptVpcPeerConnection", "RejectVpcPeerConnection"].contains(&action);
        let id = parameters.get("InstanceId").filter(|_| writes);
        let Some(_lock) = VpcLock::try_lock(self, id) else {
            let message = "There are other peering operations on the requester VPC or accepter VPC, try again later.";
            return OperationResult::without_effect(Err(ApiError::new(400, "Conflict.Operation", message)));
        };
        let delay = fault.map_or(Duration::ZERO, |fault| Duration::from_millis(fault.delay_ms));
        if !(latency + delay).is_zero() {
            tokio::time::sleep(latency + delay).await;
        }
        let forged = fault.and_then(|fault| {
            fault.code.as_ref().map(|code| ApiError {
                retry_after: fault.retry_after_ms.map(Duration::from_millis),
                ..ApiError::new(fault.http_status, code, "Simulated.")
            })
        });
        match (fault, forged) {
            (Some(fault), Some(error)) if fault.after_effect => {
                let result = self.lock().call_within_quota(account, action, parameters);
                OperationResult { answer: Err(error), ..result }
            }
            (_, Some(error)) => OperationResult::without_effect(Err(error)),
            (_, None) => self.lock().call_within_quota(account, action, parameters),
        }
    }
}

/// Locks both VPCs of a connection until it is dropped, also if the caller closes its connection.
struct VpcLock<'a> {
    simulator: &'a Simulator,
    vpcs: Vec<String>,
}

impl<'a> VpcLock<'a> {
    /// `None` if one of them is locked.
    fn try_lock(simulator: &'a Simulator, id: Option<&String>) -> Option<Self> {
        let mut state = simulator.lock();
        let vpcs = id.map(|id| state.api.vpcs_of(id)).unwrap_or_default();
        if vpcs.iter().any(|vpc| state.locked_vpcs.contains(vpc)) {
            return None;
        }
        state.locked_vpcs.extend(vpcs.clone());
        Some(Self { simulator, vpcs })
    }
}

impl Drop for VpcLock<'_> {
    fn drop(&mut self) {
        let mut state = self.simulator.lock();
        for vpc in &self.vpcs {
            state.locked_vpcs.remove(vpc);
        }
    }
}

impl SimulatorState {
    fn call_within_quota(&mut self, account: AccountId, action: &str, parameters: &Parameters) -> OperationResult {
        let now = clock::now();
        if let Err(error) = self.check_quota(account, action, now) {
            return OperationResult::without_effect(Err(error));
        }
        match action {
            "AssumeRole" => self.assume_role_with_key(parameters, now),
            "GetCallerIdentity" => {
                let identity = json!({"AccountId": account.to_string(), "IdentityType": "RAMUser"});
                OperationResult::without_effect(Ok(identity))
            }
            _ => self.api.call_operation(account, action, parameters, now),
        }
    }

    fn check_quota(&mut self, account: AccountId, action: &str, now: Timestamp) -> Result<(), ApiError> {
        let Some(quota) = self.api.settings.calls_per_minute else {
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
}

/// The URL of a server that listens on `listener`.
pub fn listener_url(listener: &TcpListener) -> std::io::Result<Url> {
    let address = listener.local_addr()?;
    Url::parse(&format!("http://{address}/")).map_err(std::io::Error::other)
}

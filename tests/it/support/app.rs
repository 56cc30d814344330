//! A peergate on loopback, and what tests do with it.

use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use peergate::approval::{Approval, ApprovalId};
use peergate::chat::{EventSpec, SignedRequest};
use peergate::config::Environment;
use peergate::fake::SandboxExtension;
use peergate::fake::alicloud::gateway::Fault;
use peergate::fake::alicloud::{JournalEntry, SimulatorSettings, Tampering};
use peergate::local::actions::{self, ACCEPT, Stage, WebhookReply, failure};
use peergate::local::sandbox::{CI_SECRET, Sandbox};
use peergate::peering::InstanceId;
use peergate::store::Stored;
use peergate::watch::{Tick, TickSummary};
use peergate::{clock, watch, webhook};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::log::{self, find_secret, logged};
use super::{AUDIT_PATH, contract};

/// A peergate on loopback, called as Lambda calls it. Each answer and each notification for programs is compared with the
/// documents. When it is dropped, the log is searched for secrets.
pub struct TestApp {
    pub(super) stage: Stage,
}

impl Deref for TestApp {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let log = logged();
        let secret = find_secret(&log);
        assert!(secret.is_none(), "the log holds {secret:?}:\n{log}");
        // The doctor's look at the address has no body.
        for post in self.slack.posts(AUDIT_PATH).iter().filter(|post| !post.body.is_empty()) {
            contract::check_event(&post.body_json());
        }
    }
}

/// A fast simulator.
pub fn quick_settings() -> SimulatorSettings {
    SimulatorSettings { activation_delay: Duration::from_millis(20), ..SimulatorSettings::default() }
}

/// A simulator whose activations take longer than any test.
pub fn slow_activation() -> SimulatorSettings {
    SimulatorSettings { activation_delay: Duration::from_hours(24 * 30), ..quick_settings() }
}

/// The connection has another status from now on.
pub fn becomes(status: &str) -> Tampering {
    Tampering { status: Some(status.into()), ..Tampering::default() }
}

/// Readings show another status than the true one; with `-` the true one again.
pub fn shows(status: &str) -> Tampering {
    Tampering { shows: Some(status.into()), ..Tampering::default() }
}

/// The answer to a POST, after it was compared with the documents.
#[track_caller]
pub fn checked(path: &str, reply: WebhookReply) -> WebhookReply {
    contract::check_answer("POST", path, &reply);
    reply
}

/// Starting and restarting.
impl TestApp {
    pub async fn start() -> Self {
        Self::with_settings(quick_settings()).await
    }

    pub async fn with_settings(settings: SimulatorSettings) -> Self {
        Self::from_sandbox(Sandbox::start(settings).await.unwrap())
    }

    pub fn from_sandbox(sandbox: Sandbox) -> Self {
        log::init();
        Self { stage: Stage::in_process(sandbox) }
    }

    /// The wiring of the next app.
    pub fn environment_mut(&mut self) -> &mut Environment {
        &mut self.stage.sandbox.environment
    }

    /// The next app paces its posts, as a deployed one.
    pub fn pace_posts(&mut self) {
        self.stage.sandbox.paces_posts = true;
    }

    /// As [`TestApp::with_config`].
    pub fn reconfigure(&mut self, config: &str) {
        self.stage.sandbox.reconfigure(config).unwrap();
    }

    /// Adds what a fake brings.
    pub fn add_extension(&mut self, extension: &SandboxExtension) {
        self.stage.sandbox.add_extension(extension).unwrap();
    }

    /// The same world with a new app, whose caches are empty.
    pub fn restart_app(self) -> Self {
        let config = self.config.clone();
        self.with_config(&config)
    }

    /// The same world with another configuration, as after a deployment.
    pub fn with_config(mut self, config: &str) -> Self {
        self.reconfigure(config);
        self
    }

    /// As [`TestApp::with_config`], with one text of the configuration replaced.
    pub fn with_change(self, old: &str, new: &str) -> Self {
        assert!(self.config.contains(old), "{old:?} is not in the configuration");
        let config = self.config.replace(old, new);
        self.with_config(&config)
    }
}

/// Requests of machines.
impl TestApp {
    /// A connection that waits for us.
    pub async fn new_request(&self) -> InstanceId {
        self.request_peering(&[]).await.unwrap()
    }

    /// A connection to this VPC of ours, whose name decides about the rule.
    pub async fn new_request_for(&self, vpc: &str) -> InstanceId {
        self.request_peering(&[("AcceptingVpcId", vpc)]).await.unwrap()
    }

    /// As [`TestApp::new_request_for`], discovered.
    pub async fn discovered_request(&self, vpc: &str) -> InstanceId {
        let id = self.new_request_for(vpc).await;
        self.discover().await;
        id
    }

    pub async fn approve(&self, id: &InstanceId, actor: &str) -> WebhookReply {
        checked("/webhook/ci", self.stage.approve(id, actor).await.unwrap())
    }

    pub async fn reject(&self, id: &InstanceId, actor: &str) -> WebhookReply {
        checked("/webhook/ci", self.stage.reject(id, actor).await.unwrap())
    }

    pub async fn withdraw(&self, id: &InstanceId, actor: &str) -> WebhookReply {
        checked("/webhook/ci", self.stage.withdraw(id, actor).await.unwrap())
    }

    pub async fn dry_run(&self, id: &InstanceId, actor: &str) -> WebhookReply {
        checked("/webhook/ci", self.stage.dry_run(id, actor).await.unwrap())
    }

    pub async fn status(&self, id: &InstanceId, actor: &str) -> WebhookReply {
        checked("/webhook/ci", self.stage.status(id, actor).await.unwrap())
    }

    /// An event for any action.
    pub async fn send_event(&self, action: &str, id: &InstanceId, actor: &str) -> WebhookReply {
        self.send(&self.sign_event(action, id, actor).await).await
    }

    pub async fn send_spec(&self, spec: &EventSpec) -> WebhookReply {
        self.send(&self.sign_spec(spec).await).await
    }

    /// As [`Stage::event_spec`], without a fingerprint.
    pub fn blind_spec(&self, action: &str, id: &InstanceId, actor: &str) -> EventSpec {
        EventSpec { fingerprint: None, ..self.event_spec(action, id, actor) }
    }

    pub async fn sign_event(&self, action: &str, id: &InstanceId, actor: &str) -> SignedRequest {
        self.stage.sign_event(action, id, actor).await.unwrap()
    }

    pub async fn sign_spec(&self, spec: &EventSpec) -> SignedRequest {
        self.stage.sign_spec(spec).await.unwrap()
    }

    /// Any body, signed as client `ci`.
    pub fn sign_body(&self, body: &str) -> SignedRequest {
        self.sign_body_as(body, &format!("msg_{}", clock::nonce()), &clock::now().as_second().to_string())
    }

    /// Any body, id and timestamp, well signed as client `ci`.
    #[allow(clippy::unused_self, reason = "reads like the others")]
    pub fn sign_body_as(&self, body: &str, id: &str, timestamp: &str) -> SignedRequest {
        let keys = [CI_SECRET.to_owned().try_into().unwrap()];
        let signature = peergate::chat::standard_webhooks::sign_body(&keys, id, timestamp, body.as_bytes());
        SignedRequest {
            path: "/webhook/ci".into(),
            headers: vec![
                ("content-type", "application/json".into()),
                ("webhook-id", id.to_owned()),
                ("webhook-signature", signature),
                ("webhook-timestamp", timestamp.to_owned()),
            ],
            body: body.to_owned(),
        }
    }

    pub async fn send(&self, signed: &SignedRequest) -> WebhookReply {
        checked(&signed.path, self.stage.send(signed).await.unwrap())
    }

    pub async fn send_at(&self, signed: &SignedRequest, now: Timestamp) -> WebhookReply {
        checked(&signed.path, actions::call_webhook(&self.parts, signed, now).await.unwrap())
    }

    /// Sends a request that need not be one of ours.
    pub async fn call_webhook(&self, request: http::Request<Bytes>, now: Timestamp) -> WebhookReply {
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let reply = Box::pin(webhook::handle_request(&self.parts, request, now)).await.into();
        contract::check_answer(&method, &path, &reply);
        reply
    }
}

/// Time.
impl TestApp {
    /// A tick with so much time left.
    pub async fn tick_within(&self, tick: Tick, time: Duration) -> TickSummary {
        Box::pin(watch::tick(&self.parts, tick, Instant::now() + time)).await.unwrap()
    }

    /// One tick over what is due, with as much time as Lambda gives.
    pub async fn tick(&self) -> TickSummary {
        self.tick_within(Tick::DUE, Duration::from_mins(1)).await
    }

    /// A scheduled tick with as much time as Lambda gives.
    pub async fn scheduled_tick(&self) -> TickSummary {
        self.tick_within(Tick::SCHEDULED, Duration::from_mins(1)).await
    }

    /// One round: no time to stay.
    pub async fn round(&self) -> TickSummary {
        self.tick_within(Tick::DUE, Duration::from_secs(10)).await
    }

    /// A scheduled tick with no time to stay: discovers, and sends notifications.
    pub async fn discover(&self) -> TickSummary {
        self.tick_within(Tick::SCHEDULED, Duration::from_secs(10)).await
    }

    /// Rounds until nothing is due within ten seconds, as one tick makes them. Instead of waiting, it sets the clock of the
    /// thread ahead.
    pub async fn follow(&self) {
        for _ in 0..20 {
            self.round().await;
            let soon = clock::now() + SignedDuration::from_secs(10);
            let entries = self.parts.store.due_entries(soon, None).await.unwrap().items;
            let Some(due_at) = entries.iter().filter_map(|entry| entry.work_at).min() else { return };
            clock::jump::advance_in_thread(due_at.duration_since(clock::now()).max(SignedDuration::ZERO));
        }
        panic!("something is due again and again");
    }

    /// Makes the next step of the record due now, so no test sleeps.
    pub async fn make_due(&self, id: &InstanceId) {
        let stored = self.load_record(id).await.unwrap();
        let change = |approval: &mut Approval| {
            let now = clock::now();
            let is_early = approval.next_step_at().is_some_and(|at| at > now);
            if is_early {
                *approval = edited(approval, |record| record["next_step_at"] = json!(now));
            }
            is_early
        };
        self.parts.store.update(stored, change).await.unwrap();
    }

    /// Lets the time pass that confirms a reading, and has the reading repeated.
    pub async fn read_doubtful_again(&self, id: &InstanceId) {
        let stored = self.load_record(id).await.unwrap();
        let earlier = |approval: &mut Approval| {
            let last_at = approval.unconfirmed().expect("a reading is unconfirmed").last_at;
            *approval = edited(approval, |record| {
                record["doubt"]["last_at"] = json!(last_at - SignedDuration::from_secs(61));
                record["next_step_at"] = json!(clock::now());
            });
            true
        };
        self.parts.store.update(stored, earlier).await.unwrap();
        self.round().await;
    }
}

/// A record with other fields, by their stored names: only what happens to a record changes it otherwise.
pub fn edited(approval: &Approval, edit: impl FnOnce(&mut Value)) -> Approval {
    let mut record = serde_json::to_value(approval).unwrap();
    edit(&mut record);
    serde_json::from_value(record).unwrap()
}

/// What Alibaba Cloud does, and its calls.
impl TestApp {
    /// The next calls of `action` fail with `code` and have no effect.
    pub fn fail_times(&self, times: u32, action: &str, code: &str) {
        self.simulator.add_fault(Fault { times, ..failure(action, code) });
    }

    /// The next dry run fails with `code`.
    pub fn fail_next_dry_run(&self, code: &str) {
        self.simulator.add_fault(Fault { dry_run: true, ..failure(ACCEPT, code) });
    }

    /// The next accept takes effect, but its reply is a failure.
    pub fn lose_next_accept_reply(&self) {
        self.simulator.add_fault(Fault { after_effect: true, ..failure(ACCEPT, "InternalError") });
    }

    /// Changes a connection outside peergate.
    pub fn tamper(&self, id: &InstanceId, tampering: Tampering) {
        assert!(self.simulator.tamper(id.as_str(), tampering), "{id}");
    }

    /// As [`becomes`].
    pub fn set_status(&self, id: &InstanceId, status: &str) {
        self.tamper(id, becomes(status));
    }

    /// As [`shows`].
    pub fn show_status(&self, id: &InstanceId, status: &str) {
        self.tamper(id, shows(status));
    }

    /// The connection has another bandwidth from now on.
    pub fn set_bandwidth(&self, id: &InstanceId, mbps: i64) {
        self.tamper(id, Tampering { bandwidth: Some(mbps), ..Tampering::default() });
    }

    /// How often an operation was called, with any result; dry runs apart.
    pub fn count_calls(&self, action: &str) -> usize {
        self.simulator.journal().iter().filter(|entry| entry.action == action && !entry.is_dry_run()).count()
    }

    /// As [`TestApp::count_calls`], for one connection.
    pub fn count_calls_for(&self, action: &str, id: &InstanceId) -> usize {
        let about = |entry: &&JournalEntry| entry.parameters.get("InstanceId").is_some_and(|it| it == id.as_str());
        let journal = self.simulator.journal();
        journal.iter().filter(about).filter(|entry| entry.action == action && !entry.is_dry_run()).count()
    }

    /// How often a dry run was called.
    pub fn count_dry_runs(&self) -> usize {
        self.simulator.journal().iter().filter(|entry| entry.is_dry_run()).count()
    }

    /// How often the API was called, apart from the requester's own call.
    pub fn count_upstream_calls(&self) -> usize {
        self.simulator.journal().iter().filter(|entry| entry.action != "CreateVpcPeerConnection").count()
    }

    #[track_caller]
    pub fn assert_accepts(&self, id: &InstanceId, count: usize) {
        assert_eq!(self.count_accepts(id), count, "how often {id} was accepted");
    }

    /// The operation was called so often, dry runs apart.
    #[track_caller]
    pub fn assert_calls(&self, action: &str, count: usize) {
        assert_eq!(self.count_calls(action), count, "how often {action} was called");
    }
}

/// Records.
impl TestApp {
    pub async fn load_record(&self, id: &InstanceId) -> Option<Stored> {
        let id = ApprovalId { target: "prod".into(), instance_id: id.clone() };
        self.parts.store.load(&id).await.unwrap()
    }

    pub async fn state_of(&self, id: &InstanceId) -> String {
        self.load_record(id).await.map_or("none", |stored| stored.approval.state().name()).to_owned()
    }

    /// The record without its version.
    pub async fn approval(&self, id: &InstanceId) -> Approval {
        self.load_approval(id).await.unwrap().expect("a record")
    }

    pub async fn assert_state(&self, id: &InstanceId, state: &str) {
        assert_eq!(self.state_of(id).await, state, "the state of {id}");
    }
}

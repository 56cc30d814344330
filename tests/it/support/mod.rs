//! What the tests of whole functions share: a sandbox, senders, and a log that must stay free of secrets.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{self, Body};
use axum::extract::State;
use bytes::Bytes;
use jiff::Timestamp;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use peergate::approval::ApprovalId;
use peergate::chat::binding::{self, Binding};
use peergate::chat::message::Button;
use peergate::chat::platform::Platform;
use peergate::chat::{EventSpec, SignedRequest, slack};
use peergate::fake::alicloud::gateway::Fault;
use peergate::fake::alicloud::{JournalEntry, SimulatorSettings, Tampering};
use peergate::fake::slack::{self as fake_slack, SlackCard};
use peergate::local::event;
use peergate::local::sandbox::{AUDIT_SECRET, CI_SECRET, SLACK_SECRET, Sandbox};
use peergate::peering::{Fingerprint, InstanceId, SeenFingerprint};
use peergate::store::Stored;
use peergate::watch::Tick;
use peergate::{clock, watch, webhook};
use serde_json::{Value, json};
use tokio::time::Instant;

static INIT_LOGGING: Once = Once::new();
/// What tests with several threads log in those that the runtime started.
static SHARED_LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

thread_local! {
    /// What this test logs: each has a thread of its own.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::thread::current().name() == Some("tokio-rt-worker") {
            return SHARED_LOG.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
        }
        LOG.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything that was logged so far by this test, and by all tests with several threads.
pub fn logged() -> String {
    let own = LOG.with_borrow(|log| String::from_utf8_lossy(log).into_owned());
    own + &String::from_utf8_lossy(&SHARED_LOG.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A peergate on loopback, called as Lambda would. When it goes, the log is searched for secrets.
pub struct TestApp {
    sandbox: Sandbox,
}

impl Deref for TestApp {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

/// Something secret that a text holds.
pub fn find_secret(text: &str) -> Option<&'static str> {
    let secrets = [
        CI_SECRET,
        SLACK_SECRET,
        AUDIT_SECRET,
        "accepter-secret",
        "requester-secret",
        "session-secret",
        "session-token",
        // How every JWT begins.
        "eyJ",
        "xoxb-",
        "v0=",
        "v1,",
        "payload=",
        "/hooks/",
        "/actions/",
        "Signature=",
        // Feishu's keys, tokens and bots.
        "7ZJAhsHk6WV3zn4Tag2E1ByoB3lPgxzl",
        "fakeVerificationToken",
        "fakeAppSecret",
        "t-0000",
        "demoSecret",
        "\"encrypt\"",
        "/hook/",
    ];
    secrets.into_iter().find(|secret| text.contains(secret))
}

impl Drop for TestApp {
    fn drop(&mut self) {
        let log = logged();
        let secret = find_secret(&log);
        assert!(std::thread::panicking() || secret.is_none(), "the log holds {secret:?}:\n{log}");
    }
}

/// Counts what happens in this thread until it goes.
pub struct MetricsRecorder {
    snapshotter: Snapshotter,
    _guard: metrics::LocalRecorderGuard<'static>,
}

impl MetricsRecorder {
    pub fn start() -> Self {
        let recorder: &'static DebuggingRecorder = Box::leak(Box::new(DebuggingRecorder::new()));
        Self { snapshotter: recorder.snapshotter(), _guard: metrics::set_default_local_recorder(recorder) }
    }

    /// What was counted since the last time: counters, and the values of histograms.
    pub fn take_counts(&self) -> BTreeMap<String, Vec<f64>> {
        let mut counted = BTreeMap::new();
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let name = [vec![key.key().name().to_owned()], labels].concat().join(" ");
            let values = match value {
                DebugValue::Counter(0) => continue,
                DebugValue::Counter(count) => vec![f64::from(u32::try_from(count).unwrap())],
                DebugValue::Gauge(value) => vec![value.into_inner()],
                DebugValue::Histogram(values) if values.is_empty() => continue,
                DebugValue::Histogram(values) => values.into_iter().map(Into::into).collect(),
            };
            counted.insert(name, values);
        }
        counted
    }
}

/// How often something was counted, whatever its labels.
pub fn sum_counts(counted: &BTreeMap<String, Vec<f64>>, name: &str) -> f64 {
    counted.iter().filter(|(key, _)| key.split(' ').next() == Some(name)).flat_map(|(_, values)| values).sum()
}

/// What came back.
#[derive(Debug)]
pub struct TestResponse {
    pub status: u16,
    pub content_type: String,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl TestResponse {
    pub fn body_json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The end of a problem's type, or the outcome.
    pub fn name(&self) -> String {
        let json = self.body_json();
        let problem = json["type"].as_str().and_then(|uri| uri.strip_prefix("urn:peergate:problem:"));
        problem.or(json["outcome"].as_str()).unwrap_or_default().to_owned()
    }

    pub fn problem_detail(&self) -> String {
        self.body_json()["detail"].as_str().unwrap_or_default().to_owned()
    }
}

/// As fast as a test can want it.
pub fn quick_settings() -> SimulatorSettings {
    SimulatorSettings { activation_delay: Duration::from_millis(20), ..SimulatorSettings::default() }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with_settings(quick_settings()).await
    }

    pub async fn with_settings(settings: SimulatorSettings) -> Self {
        Self::from_sandbox(Sandbox::start(settings).await.unwrap())
    }

    pub fn from_sandbox(sandbox: Sandbox) -> Self {
        INIT_LOGGING.call_once(|| {
            let builder = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
            builder.with_writer(|| LogWriter).init();
        });
        Self { sandbox }
    }

    /// How the app is wired when it is next made.
    pub fn environment_mut(&mut self) -> &mut peergate::config::Environment {
        &mut self.sandbox.environment
    }

    /// As [`Gate::with_config`].
    pub fn reconfigure(&mut self, config: &str) {
        self.sandbox.reconfigure(config).unwrap();
    }

    /// Adds what a fake brings.
    pub fn add_extension(&mut self, extension: &peergate::fake::SandboxExtension) {
        self.sandbox.add_extension(extension).unwrap();
    }

    /// The same world with functions that know nothing yet.
    pub fn restart_app(self) -> Self {
        let config = self.config.clone();
        self.with_config(&config)
    }

    /// The same world with another configuration, as after a deployment.
    pub fn with_config(self, config: &str) -> Self {
        let mut app = self;
        app.sandbox.reconfigure(config).unwrap();
        app
    }

    /// Makes what waits due now, so that no test sleeps.
    pub async fn make_due(&self, id: &InstanceId) {
        let stored = self.load_record(id).await.unwrap();
        let change = |approval: &mut peergate::approval::Approval| {
            let now = clock::now();
            let early = approval.next_step_at.is_some_and(|at| at > now);
            if early {
                approval.next_step_at = Some(now);
            }
            early
        };
        self.parts.store.update(stored, change).await.unwrap();
    }

    /// Lets the time pass that a reading takes to be believed, and has it made once more.
    pub async fn read_doubtful_again(&self, id: &InstanceId) {
        let stored = self.load_record(id).await.unwrap();
        let earlier = |approval: &mut peergate::approval::Approval| {
            let doubt = approval.unconfirmed.as_mut().expect("something is in doubt");
            doubt.last_at -= jiff::SignedDuration::from_secs(61);
            approval.next_step_at = Some(clock::now());
            true
        };
        self.parts.store.update(stored, earlier).await.unwrap();
        self.round().await;
    }

    /// The next accept takes effect, but is answered with a failure.
    pub fn lose_next_accept_reply(&self) {
        self.simulator.add_fault(Fault {
            action: Some("AcceptVpcPeerConnection".into()),
            code: Some("InternalError".into()),
            http_status: 500,
            after_effect: true,
            ..Fault::default()
        });
    }

    /// A connection that waits for us.
    pub async fn new_request(&self) -> InstanceId {
        self.request_peering(&[]).await.unwrap()
    }

    /// A decision carries the fingerprint of what is there, as `peergate event` does.
    pub async fn sign_event(&self, verb: &str, id: &InstanceId, actor: &str) -> SignedRequest {
        self.sign_spec(&self.event_spec(verb, id, actor)).await
    }

    /// As [`wish`], with the fingerprint of what is there.
    pub fn event_spec(&self, verb: &str, id: &InstanceId, actor: &str) -> EventSpec {
        let decides = ["approve", "reject", "dry-run"].contains(&verb);
        let connection = decides.then(|| self.simulator.read_connection(id.as_str())).flatten();
        EventSpec { fingerprint: connection.map(|it| it.fingerprint().to_string()), ..event_spec(verb, id, actor) }
    }

    pub async fn sign_spec(&self, wish: &EventSpec) -> SignedRequest {
        let secrets = self.parts.secrets.current(clock::now()).await.unwrap();
        let wish = EventSpec { tenant: Some("ci".into()), ..wish.clone() };
        event::sign_event(Platform::StandardWebhooks, &wish, &self.parts.config, &secrets, clock::now()).unwrap()
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

    pub async fn sign_slash_command(&self, text: &str, user: &str) -> SignedRequest {
        self.sign_slack_form(&[
            ("command", "/peergate"),
            ("text", text),
            ("team_id", "T0001"),
            ("user_id", user),
            ("api_app_id", "A0123"),
        ])
        .await
    }

    /// Any form and timestamp, well signed as Slack.
    #[allow(clippy::unused_self, reason = "reads like the others")]
    pub fn sign_slack_body_at(&self, body: &str, timestamp: &str) -> SignedRequest {
        let secret = SLACK_SECRET.to_owned().try_into().unwrap();
        let signature = peergate::chat::slack::sign_body(&secret, timestamp, body.as_bytes());
        SignedRequest {
            path: "/slack".into(),
            headers: vec![
                ("content-type", "application/x-www-form-urlencoded".into()),
                ("x-slack-request-timestamp", timestamp.to_owned()),
                ("x-slack-signature", signature),
            ],
            body: body.to_owned(),
        }
    }

    pub async fn sign_slack_form(&self, fields: &[(&str, &str)]) -> SignedRequest {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let secrets = self.parts.secrets.current(clock::now()).await.unwrap();
        slack::sign_form(secrets.platforms.slack.as_ref().unwrap(), body, clock::now()).unwrap()
    }

    /// A click on a button with `value`, as Slack tells of it.
    pub fn click_payload(&self, action: &str, value: &str, user: &str) -> Value {
        let place = self.slack.find_by_button(value).map(
            |(channel, ts)| json!({"type": "message", "channel_id": channel, "message_ts": ts, "is_ephemeral": false}),
        );
        json!({
            "type": "block_actions",
            "container": place,
            "user": {"id": user, "username": "whoever", "team_id": "T0001"},
            "team": {"id": "T0001"},
            "api_app_id": "A0123",
            "trigger_id": clock::nonce(),
            "response_url": format!("{}actions/T0001/1/abc", self.chat_url),
            "actions": [{"type": "button", "action_id": action, "value": value, "action_ts": clock::nonce()}],
        })
    }

    pub async fn sign_slack_payload(&self, payload: &Value) -> SignedRequest {
        self.sign_slack_form(&[("payload", &payload.to_string())]).await
    }

    pub async fn send(&self, signed: &SignedRequest) -> TestResponse {
        self.send_at(signed, clock::now()).await
    }

    pub async fn send_at(&self, signed: &SignedRequest, now: Timestamp) -> TestResponse {
        let request = http::Request::builder().method("POST").uri(&signed.path);
        let request = signed.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        self.call_webhook(request.body(Bytes::from(signed.body.clone())).unwrap(), now).await
    }

    pub async fn call_webhook(&self, request: http::Request<Bytes>, now: Timestamp) -> TestResponse {
        let (parts, body) = Box::pin(webhook::handle_request(&self.parts, request, now)).await.into_parts();
        let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
        TestResponse {
            status: parts.status.as_u16(),
            content_type: content_type.unwrap_or_default().to_owned(),
            headers: parts.headers.clone(),
            body,
        }
    }

    /// One tick over what is due, with as much time as Lambda gives.
    pub async fn tick(&self) -> watch::TickSummary {
        Box::pin(watch::tick(&self.parts, Tick::DUE, Instant::now() + Duration::from_mins(1))).await.unwrap()
    }

    /// One round: no time to stay.
    pub async fn round(&self) -> watch::TickSummary {
        Box::pin(watch::tick(&self.parts, Tick::DUE, Instant::now() + Duration::from_secs(10))).await.unwrap()
    }

    /// A scheduled tick with no time to stay: discovers, and tells what it found.
    pub async fn discover(&self) -> watch::TickSummary {
        Box::pin(watch::tick(&self.parts, Tick::SCHEDULED, Instant::now() + Duration::from_secs(10))).await.unwrap()
    }

    /// A scheduled tick with as much time as Lambda gives.
    pub async fn scheduled_tick(&self) -> watch::TickSummary {
        Box::pin(watch::tick(&self.parts, Tick::SCHEDULED, Instant::now() + Duration::from_mins(1))).await.unwrap()
    }

    pub async fn load_record(&self, id: &InstanceId) -> Option<Stored> {
        let id = ApprovalId { target: "prod".into(), instance_id: id.clone() };
        self.parts.store.load(&id).await.unwrap()
    }

    pub async fn state_of(&self, id: &InstanceId) -> String {
        self.load_record(id).await.map_or("none", |stored| stored.approval.state.name()).to_owned()
    }

    /// How often the API was asked for an operation, whatever came of it; dry runs apart.
    pub fn count_calls(&self, action: &str) -> usize {
        self.simulator.journal().iter().filter(|entry| entry.action == action && !entry.is_dry_run()).count()
    }

    /// As [`Gate::calls`], for one connection.
    pub fn count_calls_for(&self, action: &str, id: &InstanceId) -> usize {
        let about = |entry: &&JournalEntry| entry.parameters.get("InstanceId").is_some_and(|it| it == id.as_str());
        let journal = self.simulator.journal();
        journal.iter().filter(about).filter(|entry| entry.action == action && !entry.is_dry_run()).count()
    }

    /// How often the API was asked whether it would accept.
    pub fn count_dry_runs(&self) -> usize {
        self.simulator.journal().iter().filter(|entry| entry.is_dry_run()).count()
    }

    /// How often the API was asked for anything but the requester's own call.
    pub fn count_upstream_calls(&self) -> usize {
        self.simulator.journal().iter().filter(|entry| entry.action != "CreateVpcPeerConnection").count()
    }

    pub fn count_accepts(&self, id: &InstanceId) -> usize {
        self.simulator.count_effects("AcceptVpcPeerConnection", id.as_str())
    }

    /// Changes a connection behind everybody's back.
    pub fn tamper(&self, id: &InstanceId, tampering: Tampering) {
        assert!(self.simulator.tamper(id.as_str(), tampering), "{id}");
    }

    /// The headlines of the news that a path was told; with Slack, of what stands below its cards; elsewhere, of what
    /// came after the first card of each connection.
    pub fn posted_headlines(&self, path: &str) -> Vec<String> {
        let line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let posts = self.slack.posts(path).into_iter();
        let news = posts.filter(|post| path != SLACK_PATH || post.body_json().get("thread_ts").is_some());
        let mut seen = std::collections::BTreeSet::new();
        let mut is_first = |headline: &String| {
            let id = headline.split_whitespace().find(|word| word.contains("/pcc-")).unwrap_or_default();
            path == WEBHOOK_PATH && seen.insert(id.trim_end_matches([':', ',']).to_owned())
        };
        news.map(|post| line(post.visible_text())).filter(|headline| !is_first(headline)).collect()
    }

    /// The text of the news that stands below Slack's cards.
    pub fn thread_replies(&self) -> Vec<String> {
        let posts = self.slack.posts(SLACK_PATH).into_iter();
        posts.filter(|post| post.body_json().get("thread_ts").is_some()).map(|post| post.visible_text()).collect()
    }

    /// The only card in a Slack channel.
    pub fn card_in(&self, channel: &str) -> SlackCard {
        let mut cards = self.slack.messages_in(channel);
        assert_eq!(cards.len(), 1, "{cards:?}");
        cards.remove(0)
    }

    /// The card of a connection in the channel of the rules.
    pub fn card_of(&self, id: &InstanceId) -> SlackCard {
        let cards = self.slack.messages_in("C0PEER").into_iter();
        cards.rev().find(|card| card.text.contains(id.as_str())).expect("a card")
    }

    /// The only card in the channel of the rules.
    pub fn only_card(&self) -> SlackCard {
        self.card_in("C0PEER")
    }

    /// Clicks a button of a card; returns what Slack gets.
    pub async fn click_button(&self, card: &SlackCard, label: &str, user: &str) -> TestResponse {
        let button = card.find_button(label).unwrap_or_else(|| panic!("no {label} on {card:?}"));
        let click = self.click_payload(&button.action_id, &button.value, user);
        self.send(&self.sign_slack_payload(&click).await).await
    }

    /// Clicks a button that is not on any card, with the value that it would have.
    pub async fn click_missing_button(&self, id: &InstanceId, action: &str, user: &str) -> TestResponse {
        let status = self.send(&self.sign_event("status", id, "anybody").await).await.body_json();
        let fingerprint = status["connection"]["fingerprint"].as_str().unwrap().to_owned().try_into().unwrap();
        let button = match action {
            "peergate.approve" => Button::Approve { needs_reason: false },
            "peergate.approve.reason" => Button::Approve { needs_reason: true },
            "peergate.reject" => Button::Reject,
            "peergate.withdraw" => Button::Withdraw,
            _ => Button::Details,
        };
        let value = self.private_button_value(id, button, &fingerprint, user).await;
        self.send(&self.sign_slack_payload(&self.click_payload(action, &value, user)).await).await
    }

    /// What a button of a private answer to a Slack user carries.
    pub async fn private_button_value(
        &self,
        id: &InstanceId,
        button: Button,
        fingerprint: &Fingerprint,
        user: &str,
    ) -> String {
        let binding = Binding {
            button,
            target: "prod".into(),
            instance_id: id.clone(),
            seen_fingerprint: SeenFingerprint::first_half_of(fingerprint),
            card_id: binding::private_card_id(&format!("slack:T0001/{user}"), binding::hours_since_epoch(clock::now())),
        };
        let secrets = self.parts.secrets.current(clock::now()).await.unwrap();
        self.parts.chat_context(&secrets).keyring(Platform::Slack).sign(&binding).unwrap()
    }

    /// Gives a reason in the last window that was opened; returns what the window shows then.
    pub async fn give_reason(&self, reason: &str, user: &str) -> String {
        let window = self.slack.modals().pop().expect("a window");
        let payload = self.submission_payload(&window, reason, user);
        let reply = self.send(&self.sign_slack_payload(&payload).await).await;
        assert_eq!((reply.status, &reply.body_json()["response_action"]), (200, &json!("update")), "{reply:?}");
        fake_slack::visible_text(&reply.body_json()["view"])
    }

    #[allow(clippy::unused_self, reason = "reads like the others")]
    pub fn submission_payload(&self, window: &Value, reason: &str, user: &str) -> Value {
        json!({
            "type": "view_submission",
            "user": {"id": user, "username": "whoever", "team_id": "T0001"},
            "team": {"id": "T0001"},
            "api_app_id": "A0123",
            "trigger_id": clock::nonce(),
            "view": {
                "callback_id": window["callback_id"],
                "private_metadata": window["private_metadata"],
                "state": {"values": {"reason": {"reason": {"type": "plain_text_input", "value": reason}}}},
            },
        })
    }

    /// What the last one who clicked was told.
    pub fn last_private_reply(&self) -> String {
        self.slack.posts(RESPONSE_PATH).last().map(fake_slack::RecordedPost::visible_text).unwrap_or_default()
    }
}

/// The table, as a app comes to it: counts who comes, and may refuse an operation as IAM does.
pub struct TableProxy {
    calls: AtomicUsize,
    writes: Mutex<Vec<u16>>,
    refused: Mutex<Option<&'static str>>,
    upstream: String,
    client: reqwest::Client,
}

impl TableProxy {
    pub async fn start(settings: SimulatorSettings) -> (TestApp, Arc<Self>) {
        let mut sandbox = Sandbox::start(settings).await.unwrap();
        let behind = sandbox.environment.aws.dynamodb_endpoint.clone().unwrap();
        let client = peergate::http::new_client().unwrap();
        let table = Arc::new(Self {
            calls: AtomicUsize::new(0),
            writes: Mutex::default(),
            refused: Mutex::new(None),
            upstream: behind,
            client,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        sandbox.environment.aws.dynamodb_endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let router = Router::new().fallback(Self::forward_request).with_state(Arc::clone(&table));
        tokio::spawn(async { axum::serve(listener, router).await });
        let config = sandbox.config.clone();
        sandbox.reconfigure(&config).unwrap();
        (TestApp::from_sandbox(sandbox), table)
    }

    pub fn count_calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The HTTP status of each `PutItem`, in order.
    pub fn writes(&self) -> Vec<u16> {
        self.writes.lock().unwrap().clone()
    }

    pub fn reset_calls(&self) {
        self.writes.lock().unwrap().clear();
        self.calls.store(0, Ordering::SeqCst);
    }

    pub fn refuse_operation(&self, operation: &'static str) {
        *self.refused.lock().unwrap() = Some(operation);
    }

    async fn forward_request(State(table): State<Arc<Self>>, request: http::Request<Body>) -> http::Response<Body> {
        table.calls.fetch_add(1, Ordering::SeqCst);
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        // What only opens a connection names none.
        let operation = headers.get("x-amz-target").and_then(|target| target.to_str().ok()?.rsplit('.').next());
        if operation.is_some() && *table.refused.lock().unwrap() == operation {
            let refusal = r#"{"__type": "com.amazon.coral.service#AccessDeniedException"}"#;
            return http::Response::builder().status(400).body(Body::from(refusal)).unwrap();
        }
        let is_write = operation == Some("PutItem");
        headers.remove("content-length");
        let body = body::to_bytes(body, usize::MAX).await.unwrap();
        let answer = table.client.post(&table.upstream).headers(headers).body(body).send().await.unwrap();
        let status = answer.status();
        if is_write {
            table.writes.lock().unwrap().push(status.as_u16());
        }
        http::Response::builder().status(status).body(Body::from(answer.bytes().await.unwrap())).unwrap()
    }
}

pub fn event_spec(verb: &str, id: &InstanceId, actor: &str) -> EventSpec {
    let (verb, instance_id, actor) = (verb.into(), id.to_string(), actor.into());
    EventSpec { action: verb, instance_id, target: None, reason: None, fingerprint: None, tenant: None, actor }
}

pub const SLACK_PATH: &str = "/api/chat.postMessage";
pub const WEBHOOK_PATH: &str = "/hooks/netops";
pub const AUDIT_PATH: &str = "/audit";
pub const RESPONSE_PATH: &str = "/actions/T0001/1/abc";

/// A program of the virtual environment that `make tools` installs.
pub fn python_tool(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin").join(name);
    assert!(path.exists(), "{name} is missing: run `make tools`, which installs it into .venv");
    path
}

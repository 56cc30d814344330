//! What the tests of whole functions share: a sandbox, senders, and a log that must stay free of secrets.
#![allow(dead_code, reason = "each program of tests uses a part")]

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
use peergate::chat::{Signed, Wish, slack};
use peergate::local::event;
use peergate::local::sandbox::{AUDIT_SECRET, CI_SECRET, SLACK_SECRET, Sandbox};
use peergate::local::simulator::gateway::Fault;
use peergate::local::simulator::{JournalEntry, Settings, Tampering};
use peergate::local::sink::{self, Shown};
use peergate::peering::{Fingerprint, InstanceId, SeenFingerprint};
use peergate::store::Stored;
use peergate::watch::Tick;
use peergate::{clock, watch, webhook};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Held by each test that sets the clock ahead.
pub static CLOCK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

static START: Once = Once::new();
/// What tests with several threads log in those that the runtime started.
static SHARED_LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

thread_local! {
    /// What this test logs: each has a thread of its own.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl Write for Log {
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
pub struct Gate {
    sandbox: Sandbox,
}

impl Deref for Gate {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

/// Something secret that a text holds.
pub fn secret_in(text: &str) -> Option<&'static str> {
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

impl Drop for Gate {
    fn drop(&mut self) {
        let log = logged();
        let secret = secret_in(&log);
        assert!(std::thread::panicking() || secret.is_none(), "the log holds {secret:?}:\n{log}");
    }
}

/// Counts what happens in this thread until it goes.
pub struct Counted {
    snapshotter: Snapshotter,
    _guard: metrics::LocalRecorderGuard<'static>,
}

impl Counted {
    pub fn start() -> Self {
        let recorder: &'static DebuggingRecorder = Box::leak(Box::new(DebuggingRecorder::new()));
        Self { snapshotter: recorder.snapshotter(), _guard: metrics::set_default_local_recorder(recorder) }
    }

    /// What was counted since the last time: counters, and the values of histograms.
    pub fn take(&self) -> BTreeMap<String, Vec<f64>> {
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
pub fn sum(counted: &BTreeMap<String, Vec<f64>>, name: &str) -> f64 {
    counted.iter().filter(|(key, _)| key.split(' ').next() == Some(name)).flat_map(|(_, values)| values).sum()
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The end of a problem's type, or the outcome.
    pub fn name(&self) -> String {
        let json = self.json();
        let problem = json["type"].as_str().and_then(|uri| uri.strip_prefix("urn:peergate:problem:"));
        problem.or(json["outcome"].as_str()).unwrap_or_default().to_owned()
    }

    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap_or_default().to_owned()
    }
}

/// As fast as a test can want it.
pub fn quick() -> Settings {
    Settings { activation: Duration::from_millis(20), ..Settings::default() }
}

impl Gate {
    pub async fn start() -> Self {
        Self::with(quick()).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::over(Sandbox::start(settings).await.unwrap())
    }

    pub fn over(sandbox: Sandbox) -> Self {
        START.call_once(|| {
            let builder = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
            builder.with_writer(|| Log).init();
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
    pub fn extend(&mut self, extension: &peergate::local::sandbox::Extension) {
        self.sandbox.extend(extension).unwrap();
    }

    /// The same world with functions that know nothing yet.
    pub fn restarted(self) -> Self {
        let config = self.config.clone();
        self.with_config(&config)
    }

    /// The same world with another configuration, as after a deployment.
    pub fn with_config(self, config: &str) -> Self {
        let mut gate = self;
        gate.sandbox.reconfigure(config).unwrap();
        gate
    }

    /// Makes what waits due now, so that no test sleeps.
    pub async fn make_due(&self, id: &InstanceId) {
        let stored = self.stored(id).await.unwrap();
        let change = |approval: &mut peergate::approval::Approval| {
            let now = clock::now();
            let early = approval.next_step_at.is_some_and(|at| at > now);
            if early {
                approval.next_step_at = Some(now);
            }
            early
        };
        self.app.store.update(stored, change).await.unwrap();
    }

    /// Lets the time pass that a reading takes to be believed, and has it made once more.
    pub async fn read_again(&self, id: &InstanceId) {
        let stored = self.stored(id).await.unwrap();
        let earlier = |approval: &mut peergate::approval::Approval| {
            let doubt = approval.doubt.as_mut().expect("something is in doubt");
            doubt.last_at -= jiff::SignedDuration::from_secs(61);
            approval.next_step_at = Some(clock::now());
            true
        };
        self.app.store.update(stored, earlier).await.unwrap();
        self.round().await;
    }

    /// The next accept takes effect, but is answered with a failure.
    pub fn lose_the_accepts_answer(&self) {
        self.simulator.fault(Fault {
            action: Some("AcceptVpcPeerConnection".into()),
            code: Some("InternalError".into()),
            http_status: 500,
            after_effect: true,
            ..Fault::default()
        });
    }

    /// A connection that waits for us.
    pub async fn requested(&self) -> InstanceId {
        self.request_peering(&[]).await.unwrap()
    }

    /// A decision carries the fingerprint of what is there, as `peergate event` does.
    pub async fn signed(&self, verb: &str, id: &InstanceId, actor: &str) -> Signed {
        self.signed_wish(&self.wish(verb, id, actor)).await
    }

    /// As [`wish`], with the fingerprint of what is there.
    pub fn wish(&self, verb: &str, id: &InstanceId, actor: &str) -> Wish {
        let decides = ["approve", "reject", "dry-run"].contains(&verb);
        let connection = decides.then(|| self.simulator.connection(id.as_str())).flatten();
        Wish { fingerprint: connection.map(|it| it.fingerprint().to_string()), ..wish(verb, id, actor) }
    }

    pub async fn signed_wish(&self, wish: &Wish) -> Signed {
        let secrets = self.app.secrets.current(clock::now()).await.unwrap();
        let wish = Wish { tenant: Some("ci".into()), ..wish.clone() };
        event::sign(Platform::StandardWebhooks, &wish, &self.app.config, &secrets, clock::now()).unwrap()
    }

    /// Any body, signed as client `ci`.
    pub fn signed_body(&self, body: &str) -> Signed {
        self.signed_as(body, &format!("msg_{}", clock::nonce()), &clock::now().as_second().to_string())
    }

    /// Any body, id and timestamp, well signed as client `ci`.
    #[allow(clippy::unused_self, reason = "reads like the others")]
    pub fn signed_as(&self, body: &str, id: &str, timestamp: &str) -> Signed {
        let keys = [CI_SECRET.to_owned().try_into().unwrap()];
        let signature = peergate::chat::standard_webhooks::sign_body(&keys, id, timestamp, body.as_bytes());
        Signed {
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

    pub async fn slash(&self, text: &str, user: &str) -> Signed {
        self.slack_form(&[
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
    pub fn slack_signed_at(&self, body: &str, timestamp: &str) -> Signed {
        let secret = SLACK_SECRET.to_owned().try_into().unwrap();
        let signature = peergate::chat::slack::sign_body(&secret, timestamp, body.as_bytes());
        Signed {
            path: "/slack".into(),
            headers: vec![
                ("content-type", "application/x-www-form-urlencoded".into()),
                ("x-slack-request-timestamp", timestamp.to_owned()),
                ("x-slack-signature", signature),
            ],
            body: body.to_owned(),
        }
    }

    pub async fn slack_form(&self, fields: &[(&str, &str)]) -> Signed {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let secrets = self.app.secrets.current(clock::now()).await.unwrap();
        slack::sign_form(secrets.platforms.slack.as_ref().unwrap(), body, clock::now()).unwrap()
    }

    /// A click on a button with `value`, as Slack tells of it.
    pub fn click(&self, action: &str, value: &str, user: &str) -> Value {
        let place = self.sink.message_with(value).map(
            |(channel, ts)| json!({"type": "message", "channel_id": channel, "message_ts": ts, "is_ephemeral": false}),
        );
        json!({
            "type": "block_actions",
            "container": place,
            "user": {"id": user, "username": "whoever", "team_id": "T0001"},
            "team": {"id": "T0001"},
            "api_app_id": "A0123",
            "trigger_id": clock::nonce(),
            "response_url": format!("{}actions/T0001/1/abc", self.chat),
            "actions": [{"type": "button", "action_id": action, "value": value, "action_ts": clock::nonce()}],
        })
    }

    pub async fn slack_payload(&self, payload: &Value) -> Signed {
        self.slack_form(&[("payload", &payload.to_string())]).await
    }

    pub async fn send(&self, signed: &Signed) -> Reply {
        self.send_at(signed, clock::now()).await
    }

    pub async fn send_at(&self, signed: &Signed, now: Timestamp) -> Reply {
        let request = http::Request::builder().method("POST").uri(&signed.path);
        let request = signed.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        self.call(request.body(Bytes::from(signed.body.clone())).unwrap(), now).await
    }

    pub async fn call(&self, request: http::Request<Bytes>, now: Timestamp) -> Reply {
        let (parts, body) = Box::pin(webhook::handle(&self.app, request, now)).await.into_parts();
        let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
        Reply {
            status: parts.status.as_u16(),
            content_type: content_type.unwrap_or_default().to_owned(),
            headers: parts.headers.clone(),
            body,
        }
    }

    /// One tick over what is due, with as much time as Lambda gives.
    pub async fn tick(&self) -> watch::Summary {
        Box::pin(watch::tick(&self.app, Tick::DUE, Instant::now() + Duration::from_mins(1))).await.unwrap()
    }

    /// One round: no time to stay.
    pub async fn round(&self) -> watch::Summary {
        Box::pin(watch::tick(&self.app, Tick::DUE, Instant::now() + Duration::from_secs(10))).await.unwrap()
    }

    /// A scheduled tick with no time to stay: discovers, and tells what it found.
    pub async fn discover(&self) -> watch::Summary {
        Box::pin(watch::tick(&self.app, Tick::SCHEDULED, Instant::now() + Duration::from_secs(10))).await.unwrap()
    }

    /// A scheduled tick with as much time as Lambda gives.
    pub async fn scheduled(&self) -> watch::Summary {
        Box::pin(watch::tick(&self.app, Tick::SCHEDULED, Instant::now() + Duration::from_mins(1))).await.unwrap()
    }

    pub async fn stored(&self, id: &InstanceId) -> Option<Stored> {
        let id = ApprovalId { target: "prod".into(), instance_id: id.clone() };
        self.app.store.load(&id).await.unwrap()
    }

    pub async fn state(&self, id: &InstanceId) -> String {
        self.stored(id).await.map_or("none", |stored| stored.approval.state.name()).to_owned()
    }

    /// How often the API was asked for an operation, whatever came of it; dry runs apart.
    pub fn calls(&self, action: &str) -> usize {
        self.simulator.journal().iter().filter(|entry| entry.action == action && !entry.is_dry_run()).count()
    }

    /// As [`Gate::calls`], for one connection.
    pub fn calls_for(&self, action: &str, id: &InstanceId) -> usize {
        let about = |entry: &&JournalEntry| entry.parameters.get("InstanceId").is_some_and(|it| it == id.as_str());
        let journal = self.simulator.journal();
        journal.iter().filter(about).filter(|entry| entry.action == action && !entry.is_dry_run()).count()
    }

    /// How often the API was asked whether it would accept.
    pub fn dry_runs(&self) -> usize {
        self.simulator.journal().iter().filter(|entry| entry.is_dry_run()).count()
    }

    /// How often the API was asked for anything but the requester's own call.
    pub fn upstream_calls(&self) -> usize {
        self.simulator.journal().iter().filter(|entry| entry.action != "CreateVpcPeerConnection").count()
    }

    pub fn accepts(&self, id: &InstanceId) -> usize {
        self.simulator.effects("AcceptVpcPeerConnection", id.as_str())
    }

    /// Changes a connection behind everybody's back.
    pub fn tamper(&self, id: &InstanceId, tampering: Tampering) {
        assert!(self.simulator.tamper(id.as_str(), tampering), "{id}");
    }

    /// The headlines of the news that a path was told; with Slack, of what stands below its cards; elsewhere, of what
    /// came after the first card of each connection.
    pub fn headlines(&self, path: &str) -> Vec<String> {
        let line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let posts = self.sink.posts(path).into_iter();
        let news = posts.filter(|post| path != SLACK || post.json().get("thread_ts").is_some());
        let mut seen = std::collections::BTreeSet::new();
        let mut is_first = |headline: &String| {
            let id = headline.split_whitespace().find(|word| word.contains("/pcc-")).unwrap_or_default();
            path == HOOK && seen.insert(id.trim_end_matches([':', ',']).to_owned())
        };
        news.map(|post| line(post.text())).filter(|headline| !is_first(headline)).collect()
    }

    /// The text of the news that stands below Slack's cards.
    pub fn replies(&self) -> Vec<String> {
        let posts = self.sink.posts(SLACK).into_iter();
        posts.filter(|post| post.json().get("thread_ts").is_some()).map(|post| post.text()).collect()
    }

    /// The only card in a Slack channel.
    pub fn card_in(&self, channel: &str) -> Shown {
        let mut cards = self.sink.channel(channel);
        assert_eq!(cards.len(), 1, "{cards:?}");
        cards.remove(0)
    }

    /// The card of a connection in the channel of the rules.
    pub fn card_of(&self, id: &InstanceId) -> Shown {
        let cards = self.sink.channel("C0PEER").into_iter();
        cards.rev().find(|card| card.text.contains(id.as_str())).expect("a card")
    }

    /// The only card in the channel of the rules.
    pub fn card(&self) -> Shown {
        self.card_in("C0PEER")
    }

    /// Clicks a button of a card; returns what Slack gets.
    pub async fn press(&self, card: &Shown, label: &str, user: &str) -> Reply {
        let button = card.button(label).unwrap_or_else(|| panic!("no {label} on {card:?}"));
        let click = self.click(&button.action_id, &button.value, user);
        self.send(&self.slack_payload(&click).await).await
    }

    /// Clicks a button that is not on any card, with the value that it would have.
    pub async fn press_value(&self, id: &InstanceId, action: &str, user: &str) -> Reply {
        let status = self.send(&self.signed("status", id, "anybody").await).await.json();
        let fingerprint = status["connection"]["fingerprint"].as_str().unwrap().to_owned().try_into().unwrap();
        let button = match action {
            "peergate.approve" => Button::Approve { ask: false },
            "peergate.approve.reason" => Button::Approve { ask: true },
            "peergate.reject" => Button::Reject,
            "peergate.withdraw" => Button::Withdraw,
            _ => Button::Details,
        };
        let value = self.private_button(id, button, &fingerprint, user).await;
        self.send(&self.slack_payload(&self.click(action, &value, user)).await).await
    }

    /// What a button of a private answer to a Slack user carries.
    pub async fn private_button(
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
            seen: SeenFingerprint::start_of(fingerprint),
            card: binding::card_of_person(&format!("slack:T0001/{user}"), binding::hour(clock::now())),
        };
        let secrets = self.app.secrets.current(clock::now()).await.unwrap();
        self.app.chat(&secrets).keyring(Platform::Slack).sign(&binding).unwrap()
    }

    /// Gives a reason in the last window that was opened; returns what the window shows then.
    pub async fn give_reason(&self, reason: &str, user: &str) -> String {
        let window = self.sink.windows().pop().expect("a window");
        let payload = self.submission(&window, reason, user);
        let reply = self.send(&self.slack_payload(&payload).await).await;
        assert_eq!((reply.status, &reply.json()["response_action"]), (200, &json!("update")), "{reply:?}");
        sink::text(&reply.json()["view"])
    }

    #[allow(clippy::unused_self, reason = "reads like the others")]
    pub fn submission(&self, window: &Value, reason: &str, user: &str) -> Value {
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
    pub fn told(&self) -> String {
        self.sink.posts(RESPONSE).last().map(sink::Post::text).unwrap_or_default()
    }
}

/// The table, as a gate comes to it: counts who comes, and may refuse an operation as IAM does.
pub struct Table {
    calls: AtomicUsize,
    writes: Mutex<Vec<u16>>,
    refused: Mutex<Option<&'static str>>,
    behind: String,
    client: reqwest::Client,
}

impl Table {
    pub async fn before(settings: Settings) -> (Gate, Arc<Self>) {
        let mut sandbox = Sandbox::start(settings).await.unwrap();
        let behind = sandbox.environment.aws.dynamodb_endpoint.clone().unwrap();
        let client = peergate::http::client().unwrap();
        let table = Arc::new(Self {
            calls: AtomicUsize::new(0),
            writes: Mutex::default(),
            refused: Mutex::new(None),
            behind,
            client,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        sandbox.environment.aws.dynamodb_endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let router = Router::new().fallback(Self::forward).with_state(Arc::clone(&table));
        tokio::spawn(async { axum::serve(listener, router).await });
        let config = sandbox.config.clone();
        sandbox.reconfigure(&config).unwrap();
        (Gate::over(sandbox), table)
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The HTTP status of each `PutItem`, in order.
    pub fn writes(&self) -> Vec<u16> {
        self.writes.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.writes.lock().unwrap().clear();
        self.calls.store(0, Ordering::SeqCst);
    }

    pub fn refuse(&self, operation: &'static str) {
        *self.refused.lock().unwrap() = Some(operation);
    }

    async fn forward(State(table): State<Arc<Self>>, request: http::Request<Body>) -> http::Response<Body> {
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
        let answer = table.client.post(&table.behind).headers(headers).body(body).send().await.unwrap();
        let status = answer.status();
        if is_write {
            table.writes.lock().unwrap().push(status.as_u16());
        }
        http::Response::builder().status(status).body(Body::from(answer.bytes().await.unwrap())).unwrap()
    }
}

pub fn wish(verb: &str, id: &InstanceId, actor: &str) -> Wish {
    let (verb, instance_id, actor) = (verb.into(), id.to_string(), actor.into());
    Wish { verb, instance_id, target: None, reason: None, fingerprint: None, tenant: None, actor }
}

pub const SLACK: &str = "/api/chat.postMessage";
pub const HOOK: &str = "/hooks/netops";
pub const AUDIT: &str = "/audit";
pub const RESPONSE: &str = "/actions/T0001/1/abc";

/// A program of the virtual environment that `make tools` installs.
pub fn python_tool(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin").join(name);
    assert!(path.exists(), "{name} is missing: run `make tools`, which installs it into .venv");
    path
}

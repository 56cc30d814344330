//! Feishu, both ways, against the fake: what people do in it arrives, and what we say is shown.

mod api;
mod fixture;
mod life;
mod receive;
mod vectors;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use peergate::approval::RetryPolicy;
use peergate::chat::feishu::{
    self, AppSecret, CallError, CallbackKeys, CallbackRequest, CardUpdate, Config, FeishuApi, Host, Receiver, ReplyTo,
    ToastKind, build_bot_message, fetch_token, post_bot,
};
use peergate::chat::message::{Button, Buttons, Message, MessageFact, ShownButton};
use peergate::chat::{AccessToken, Authentic, Click, Command, DeliveryError, Incoming, MalformedRequest, Unauthentic};
use peergate::clock;
use peergate::fake::feishu::{ChatFault, FakeFeishu, FakeFeishuSettings, FeishuFault};
use peergate::http::Clients;
use peergate::peering::{Fingerprint, InstanceId};
use peergate::secret::{Secret, SecretUrl};
use serde_json::{Value, json};
use url::Url;

const CHAT: &str = "oc_38fe598c2984695a42f3e2d3d5fdfd22";
const ALICE: &str = "ou_2840498f54cfa60477d0edcf39319ae2";
const MESSAGES: &str = "/open-apis/im/v1/messages";
const NOW: i64 = 1_793_001_624;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn keys(key: &str, token: &str) -> CallbackKeys {
    serde_json::from_value(json!({"encrypt_key": key, "verification_token": token})).unwrap()
}

fn our_keys() -> CallbackKeys {
    keys("7ZJAhsHk6WV3zn4Tag2E1ByoB3lPgxzl", &FakeFeishuSettings::default().verification_token)
}

fn config() -> Config {
    let FakeFeishuSettings { app, tenant, .. } = FakeFeishuSettings::default();
    Config { app, tenant, host: Host::Feishu, api: None }
}

fn headers(callback: &CallbackRequest) -> HeaderMap {
    let header =
        |(name, value): &(&'static str, String)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    callback.headers.iter().map(header).collect()
}

fn sign(plaintext: &str) -> CallbackRequest {
    feishu::sign_callback(plaintext, &our_keys(), now(), "6af07ea128", [7; 16])
}

fn verify(callback: &CallbackRequest, keys: &[CallbackKeys]) -> Result<Authentic, Unauthentic> {
    feishu::verify_with(keys, &headers(callback), callback.body.as_bytes(), now())
}

fn parse(plaintext: &str) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    feishu::parse(&config(), verify(&sign(plaintext), &[our_keys()]).unwrap())
}

fn click(plaintext: &str) -> Click {
    match parse(plaintext) {
        Ok(Incoming::Click { click, .. }) => click,
        other => panic!("{plaintext}: {other:?}"),
    }
}

fn bound(button: Button) -> ShownButton {
    let binding = match button {
        Button::Approve { .. } => "approve-binding",
        Button::Reject => "reject-binding",
        Button::Withdraw => "withdraw-binding",
        Button::Acknowledge => "acknowledge-binding",
        Button::Details => "details-binding",
    };
    ShownButton { button, binding: Some(binding.into()) }
}

fn message(headline: &str, shown: &[Button]) -> Message {
    let buttons = Buttons {
        target: "prod".into(),
        instance_id: InstanceId::parse("pcc-a").unwrap(),
        fingerprint: Fingerprint::try_from("0123456789abcdef".repeat(4)).unwrap(),
        shown: shown.iter().map(|button| bound(*button)).collect(),
    };
    Message {
        headline: headline.into(),
        facts: vec![MessageFact::new("Name", "<at id=all></at> **db**")],
        buttons: (!shown.is_empty()).then_some(buttons),
        ..Message::default()
    }
}

fn card(headline: &str) -> Value {
    feishu::render_card(&message(headline, &[Button::Approve { needs_reason: false }, Button::Reject, Button::Details]))
}

/// A fake on loopback, and a client of it.
struct World {
    fake: FakeFeishu,
    http: reqwest::Client,
    url: Url,
    token: Secret,
}

impl World {
    async fn start() -> Self {
        Self::of(FakeFeishuSettings::default()).await
    }

    async fn of(settings: FakeFeishuSettings) -> Self {
        let fake = FakeFeishu::new(settings);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(fake.clone().serve(listener));
        let http = Clients::new().unwrap().shared().clone();
        let mut world = Self { fake, http, url, token: Secret::new(String::new()) };
        world.token = world.fetch().await.unwrap().token;
        world
    }

    async fn fetch(&self) -> Result<AccessToken, DeliveryError> {
        let FakeFeishuSettings { app, app_secret, .. } = self.fake.settings();
        fetch_token(&self.http, &self.url, &app, &AppSecret::try_from(app_secret).unwrap()).await
    }

    fn api(&self) -> FeishuApi<'_> {
        FeishuApi { http: &self.http, url: &self.url, token: &self.token }
    }

    async fn post(&self, uuid: &str) -> Result<String, CallError> {
        self.api().post(Receiver::Chat(CHAT), &card("waits"), uuid).await.map(|posted| posted.message_id)
    }

    fn fail(&self, code: i64, status: u16) {
        self.fake.clear_faults();
        self.fake.add_fault(FeishuFault { path: MESSAGES.into(), code: Some(code), status, ..FeishuFault::default() });
    }
}

fn undelivered(failure: CallError) -> DeliveryError {
    match failure {
        CallError::NotDelivered(undelivered) => undelivered,
        CallError::TokenRefused(_) | CallError::MessageGone(_) => panic!("{failure:?}"),
    }
}

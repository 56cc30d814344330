//! DingTalk, both ways, against the fake: what people do in it arrives, and what we say is shown.

mod api;
mod fixture;
mod life;
mod proofs;
mod receive;
mod template;
mod vectors;
mod words;

use std::time::Duration;

use jiff::SignedDuration;
use peergate::chat::SignedRequest;
use peergate::chat::dingtalk::{self, Secrets};
use peergate::clock;
use peergate::fake::dingtalk::{
    CONVERSATION_ID, DingTalkCard, DingTalkFault, DingTalkPerson, FakeDingTalk, FakeDingTalkSettings,
};
use peergate::peering::InstanceId;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::support::{TestApp, TestResponse};

const ALICE: &str = "manager-alice";
const BOB: &str = "0185115183983732";
const STRANGER: &str = "mallory";
const POST_CARD: &str = "/v1.0/card/instances/createAndDeliver";
const UPDATE_CARD: &str = "/v1.0/card/instances";

/// peergate and DingTalk, with a channel of cards, and a custom robot.
struct World {
    app: TestApp,
    fake: FakeDingTalk,
    url: Url,
}

impl World {
    async fn start() -> Self {
        Self::of(FakeDingTalkSettings::default()).await
    }

    async fn of(settings: FakeDingTalkSettings) -> Self {
        let fake = FakeDingTalk::new(settings);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(fake.clone().serve(listener));
        let mut app = TestApp::start().await;
        app.add_extension(&fake.sandbox_extension(&url));
        let config = app.config.replace("\"hook\", \"audit\"]", "\"robot\"]");
        Self { app: app.with_config(&config), fake, url }
    }

    /// The same world with a new process.
    fn restart(self) -> Self {
        let Self { app, fake, url } = self;
        Self { app: app.restart_app(), fake, url }
    }

    async fn request(&self, vpc: &str) -> InstanceId {
        let id = self.app.request_peering(&[("AcceptingVpcId", vpc)]).await.unwrap();
        self.app.discover().await;
        id
    }

    /// Ticks until the condition holds. Failed posts are repeated after some seconds.
    async fn tick_until(&self, condition: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !condition(self) {
            assert!(started.elapsed() < Duration::from_mins(2), "the condition never held");
            self.app.tick().await;
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn cards(&self) -> Vec<DingTalkCard> {
        self.fake.cards_in(CONVERSATION_ID, "somebody")
    }

    /// The latest card, as somebody sees it who has not clicked.
    fn card(&self) -> DingTalkCard {
        self.cards().pop().unwrap()
    }

    fn card_of(&self, viewer: &str) -> DingTalkCard {
        self.fake.cards_in(CONVERSATION_ID, viewer).pop().unwrap()
    }

    /// The first line of each message in the group.
    fn headlines(&self) -> Vec<String> {
        let texts = self.fake.texts_to(CONVERSATION_ID);
        texts.iter().map(|message| message.text.lines().next().unwrap_or_default().to_owned()).collect()
    }

    fn person(&self, user_id: &str) -> DingTalkPerson {
        self.fake.person_of_corp(user_id)
    }

    async fn secrets(&self) -> Secrets {
        let secrets = self.app.parts.secrets.current(clock::now()).await.unwrap();
        secrets.platforms.dingtalk.clone().unwrap()
    }

    async fn sign(&self, body: &str) -> SignedRequest {
        next_millisecond().await;
        dingtalk::sign_card_callback(&self.secrets().await, body, clock::now()).unwrap()
    }

    async fn send(&self, body: &str) -> TestResponse {
        self.app.send(&self.sign(body).await).await
    }

    /// Somebody writes to the robot.
    async fn write(&self, body: &str) -> TestResponse {
        next_millisecond().await;
        let signed = dingtalk::sign_robot_message(&self.secrets().await, body, clock::now()).unwrap();
        self.app.send(&signed).await
    }

    async fn write_in_group(&self, text: &str, who: &str) -> TestResponse {
        self.write(&self.fake.write_in_group(CONVERSATION_ID, text, &self.person(who))).await
    }

    fn click_body(&self, label: &str, who: &str, reason: Option<&str>) -> String {
        let card = self.card_of(who);
        self.fake.click_button(&card.out_track_id, label, &self.person(who), reason).unwrap()
    }

    /// Clicks; returns the notice, and shows the answer to the person.
    async fn click(&self, label: &str, who: &str, reason: Option<&str>) -> String {
        let (card, body) = (self.card_of(who).out_track_id, self.click_body(label, who, reason));
        let reply = self.send(&body).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        self.fake.apply_reply(&card, &self.person(who), &reply.body_json()).unwrap()
    }

    fn fail(&self, path: &str, code: Option<&'static str>, status: u16) {
        self.fake.clear_faults();
        self.fake.add_fault(DingTalkFault { path: path.into(), code, status, ..DingTalkFault::default() });
    }

    async fn assert_undecided(&self, id: &InstanceId) {
        assert_eq!((self.app.state_of(id).await.as_str(), self.app.count_accepts(id)), ("pending", 0));
    }

    fn count_calls(&self, path: &str) -> usize {
        self.fake.calls().iter().filter(|call| call.path == path).count()
    }
}

/// Two requests of the same millisecond have the same signature.
async fn next_millisecond() {
    let before = clock::now().as_millisecond();
    while clock::now().as_millisecond() == before {
        tokio::task::yield_now().await;
    }
}

/// A click body with a change.
fn changed(body: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut body: Value = serde_json::from_str(body).unwrap();
    change(&mut body);
    body.to_string()
}

/// A click body with a change in what was clicked.
fn changed_content(body: &str, change: impl FnOnce(&mut Value)) -> String {
    changed(body, |body| {
        let mut content: Value = serde_json::from_str(body["content"].as_str().unwrap()).unwrap();
        change(&mut content["cardPrivateData"]);
        body["content"] = content.to_string().into();
    })
}

const fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

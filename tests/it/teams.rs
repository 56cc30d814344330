//! Teams, both ways, against the fake: what people do in it arrives, and what we say is shown.

mod api;
mod fixture;
mod keys;
mod life;
mod outage;
mod receive;
mod vectors;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use peergate::chat::SignedRequest;
use peergate::chat::teams::{Cloud, Config};
use peergate::clock;
use peergate::doctor::{self, Health, Options};
use peergate::fake::teams::{
    CHANNEL_ID, FLOW_ID, FakeTeams, FakeTeamsSettings, TEAM_ID, TeamsCard, TeamsFault, TeamsUser,
};
use peergate::peering::InstanceId;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::support::{TestApp, TestResponse};

fn config() -> Config {
    let FakeTeamsSettings { app, tenant, .. } = FakeTeamsSettings::default();
    Config {
        app,
        tenant,
        cloud: Cloud::Public,
        conversations: vec![TEAM_ID.to_owned()],
        service_hosts: vec![],
        login: None,
        keys: None,
    }
}

fn headers(signed: &SignedRequest) -> HeaderMap {
    let header =
        |(name, value): &(&'static str, String)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    signed.headers.iter().map(header).collect()
}

fn body(signed: &SignedRequest) -> Bytes {
    Bytes::from(signed.body.clone())
}

/// A peergate with Slack and Teams.
struct World {
    app: TestApp,
    fake: FakeTeams,
}

impl World {
    /// The bot was added to the team.
    async fn start() -> Self {
        let world = Self::unknown().await;
        for activity in world.fake.install(&world.fake.user("alice")) {
            assert_eq!(world.send(&activity).await.status, 200);
        }
        world
    }

    /// Nothing was heard of Teams yet.
    async fn unknown() -> Self {
        Self::of(FakeTeamsSettings::default()).await
    }

    async fn of(settings: FakeTeamsSettings) -> Self {
        let fake = FakeTeams::new(settings);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(fake.clone().serve(listener));
        let mut app = TestApp::start().await;
        app.add_extension(&fake.sandbox_extension(&url));
        let config = app.config.replace("\"hook\", \"audit\"]", "\"flow\"]");
        Self { app: app.with_config(&config), fake }
    }

    fn restarted(self) -> Self {
        Self { app: self.app.restart_app(), fake: self.fake }
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

    fn cards(&self) -> Vec<TeamsCard> {
        self.fake.messages_in(CHANNEL_ID).into_iter().filter(|message| !message.buttons.is_empty()).collect()
    }

    fn card(&self) -> TeamsCard {
        self.cards().pop().unwrap()
    }

    fn user(&self, name: &str) -> TeamsUser {
        self.fake.user(name)
    }

    async fn send(&self, activity: &Value) -> TestResponse {
        self.app.send(&self.fake.sign(activity).unwrap()).await
    }

    /// Clicks; returns the private message.
    async fn click(&self, label: &str, who: &str, reason: Option<&str>) -> String {
        self.click_on(&self.card(), label, who, reason).await
    }

    async fn click_on(&self, card: &TeamsCard, label: &str, who: &str, reason: Option<&str>) -> String {
        let click = self.fake.click_button(&card.message_id, label, &self.user(who), reason).unwrap();
        self.answer_to(&click).await
    }

    /// The private message that answers an invoke.
    async fn answer_to(&self, invoke: &Value) -> String {
        let reply = self.send(invoke).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        self.fake.read_invoke_response(&reply.body_json()).unwrap().unwrap()
    }

    fn last_message_to(&self, who: &str) -> TeamsCard {
        self.fake.messages_to(&self.user(who)).pop().unwrap()
    }

    async fn assert_undecided(&self, id: &InstanceId) {
        assert_eq!((self.app.state_of(id).await.as_str(), self.app.count_accepts(id)), ("pending", 0));
    }

    fn fail(&self, path: &str, status: u16, code: Option<&str>) {
        let (path, code) = (path.to_owned(), code.map(ToOwned::to_owned));
        self.fake.add_fault(TeamsFault { path, status, code, ..TeamsFault::default() });
    }
}

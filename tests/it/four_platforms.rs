//! One human with an identity on each of four platforms, and a request whose cards are on all of them.

use crate::support::prelude::*;
use peergate::accept;
use peergate::approval::ApprovalId;
use peergate::chat::dingtalk::{sign_card_callback, sign_robot_message};
use peergate::chat::feishu::sign_plaintext;
use peergate::fake::SandboxExtension;
use peergate::fake::dingtalk::{self, FakeDingTalk};
use peergate::fake::feishu::{self, FakeFeishu};
use peergate::fake::slack;
use peergate::fake::teams::{self, FakeTeams};
use tokio::net::TcpListener;
use url::Url;

const ALICE_IN_FEISHU: &str = "ou_alice";
const ALICE_IN_DINGTALK: &str = "manager-alice";

/// A peergate whose rules notify a channel of each platform.
pub struct FourPlatforms {
    pub app: TestApp,
    pub feishu: FakeFeishu,
    pub dingtalk: FakeDingTalk,
    pub teams: FakeTeams,
}

impl FourPlatforms {
    pub async fn add_to(mut app: TestApp) -> Self {
        let (feishu, dingtalk, teams) = (FakeFeishu::default(), FakeDingTalk::default(), FakeTeams::default());
        let mut extend = async |listener: TcpListener, extension: &dyn Fn(&Url) -> SandboxExtension| {
            let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
            app.add_extension(&extension(&url));
            listener
        };
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = extend(bind().await, &|url| feishu.sandbox_extension(url)).await;
        tokio::spawn(feishu.clone().serve(listener));
        let listener = extend(bind().await, &|url| dingtalk.sandbox_extension(url)).await;
        tokio::spawn(dingtalk.clone().serve(listener));
        let listener = extend(bind().await, &|url| teams.sandbox_extension(url)).await;
        tokio::spawn(teams.clone().serve(listener));
        let it = Self { app, feishu, dingtalk, teams };
        for activity in it.teams.install(&it.teams.user("alice")) {
            assert_eq!(it.app.send(&it.teams.sign(&activity).unwrap()).await.status, 200);
        }
        it
    }

    pub async fn click_in_slack(&self, label: &str, user: &str) -> TestResponse {
        let card = self.app.slack.messages_in(CHANNEL).pop().unwrap();
        let signed = self.app.sign_click(&card, label, user).await.unwrap();
        self.app.send(&signed).await
    }

    pub async fn click_in_feishu(&self, label: &str, user: &str) -> TestResponse {
        let card = self.feishu.messages_in(feishu::CHAT_ID).pop().unwrap();
        let person = self.feishu.person_of_tenant(user);
        let click = self.feishu.click_button(&card.message_id, label, &person, None).unwrap();
        let secrets = self.app.parts.secrets.current(clock::now()).await.unwrap();
        let signed = sign_plaintext(secrets.platforms.feishu.as_ref().unwrap(), &click, clock::now()).unwrap();
        self.app.send(&signed).await
    }

    pub async fn click_in_dingtalk(&self, label: &str, user: &str) -> TestResponse {
        let card = self.dingtalk.cards_in(dingtalk::CONVERSATION_ID, user).pop().unwrap();
        let person = self.dingtalk.person_of_corp(user);
        let click = self.dingtalk.click_button(&card.out_track_id, label, &person, None).unwrap();
        let secrets = self.app.parts.secrets.current(clock::now()).await.unwrap();
        let signed = sign_card_callback(secrets.platforms.dingtalk.as_ref().unwrap(), &click, clock::now()).unwrap();
        self.app.send(&signed).await
    }

    pub async fn click_in_teams(&self, label: &str, user: &str) -> TestResponse {
        let mut cards = self.teams.messages_in(teams::CHANNEL_ID).into_iter();
        let card = cards.rfind(|message| !message.buttons.is_empty()).unwrap();
        let click = self.teams.click_button(&card.message_id, label, &self.teams.user(user), None).unwrap();
        self.app.send(&self.teams.sign(&click).unwrap()).await
    }
}

#[tokio::test]
async fn human_on_four_platforms_is_one_approver() {
    let it = FourPlatforms::add_to(TestApp::start().await).await;
    let id = it.app.discovered_request("vpc-two-people").await;
    it.app.follow().await;
    assert_eq!(it.click_in_dingtalk("Approve", ALICE_IN_DINGTALK).await.status, 200);
    assert_eq!(it.app.approval(&id).await.approval_count(), 1);
    for reply in [
        it.click_in_slack("Approve", ALICE).await,
        it.click_in_feishu("Approve", ALICE_IN_FEISHU).await,
        it.click_in_teams("Approve", "alice").await,
    ] {
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let record = it.app.approval(&id).await;
    assert_eq!((record.approval_count(), it.app.count_accepts(&id)), (1, 0));
    let repeated = logged().matches("outcome=\"repeated\"").count();
    assert_eq!(repeated, 3, "each of the other three is told so");
    assert_eq!(it.click_in_teams("Approve", "bob").await.status, 200);
    it.app.follow().await;
    it.app.assert_state(&id, "activated").await;
    assert_eq!(it.app.count_accepts(&id), 1);
    // Every platform shows the end, and no card has a button that decides.
    let in_slack = it.app.slack.messages_in(CHANNEL).pop().unwrap();
    let in_feishu = it.feishu.messages_in(feishu::CHAT_ID).pop().unwrap();
    let in_dingtalk = it.dingtalk.cards_in(dingtalk::CONVERSATION_ID, "somebody").pop().unwrap();
    let in_teams = it.teams.messages_in(teams::CHANNEL_ID);
    assert!(in_slack.text.contains("is Activated") && in_feishu.text.contains("is Activated"));
    assert!(in_dingtalk.text.contains("is Activated"), "{}", in_dingtalk.text);
    // The link to the console stays.
    assert_eq!((in_slack.button_labels(), in_feishu.button_labels()), (vec![], vec!["Open the console"]));
    assert!(in_dingtalk.buttons.is_empty(), "{:?}", in_dingtalk.buttons);
    assert!(in_teams.iter().any(|message| message.text.contains("is Activated")));
    let in_teams = in_teams.iter().flat_map(|message| &message.buttons).map(|button| button.label.as_str());
    assert!(in_teams.clone().all(|label| label == "Open the console"), "{:?}", in_teams.collect::<Vec<_>>());
}

/// The longest lines, of people whose names take the most bytes. The fakes refuse what the platforms refuse.
#[tokio::test]
async fn longest_inventory_is_shown_on_each_platform() {
    let it = FourPlatforms::add_to(TestApp::start().await).await;
    for number in 0..31 {
        let vpcs = [("AcceptingVpcId", "vpc-other"), ("VpcId", &*format!("vpc-{number}"))];
        let instance_id = it.app.request_peering(&vpcs).await.unwrap();
        it.app.set_status(&instance_id, "Activated");
        let id = ApprovalId { target: "prod".into(), instance_id };
        accept::adopt_connection(&it.app.parts, &id, &"𝄞".repeat(100), "in use").await.unwrap();
    }
    let secrets = it.app.parts.secrets.current(clock::now()).await.unwrap();
    let slash = it.app.slash_command("inventory", ALICE).await;
    let in_feishu = it.feishu.send_text(feishu::CHAT_ID, "inventory", &it.feishu.person_of_tenant(ALICE_IN_FEISHU));
    let in_dingtalk = it.dingtalk.person_of_corp(ALICE_IN_DINGTALK);
    let in_dingtalk = it.dingtalk.write_in_group(dingtalk::CONVERSATION_ID, "inventory", &in_dingtalk);
    for signed in [
        sign_plaintext(secrets.platforms.feishu.as_ref().unwrap(), &in_feishu, clock::now()).unwrap(),
        sign_robot_message(secrets.platforms.dingtalk.as_ref().unwrap(), &in_dingtalk, clock::now()).unwrap(),
        it.teams.sign(&it.teams.mention_bot("inventory", &it.teams.user("alice"))).unwrap(),
    ] {
        assert_eq!(it.app.send(&signed).await.status, 200);
    }
    slack::check_blocks(&slash.body_json()).unwrap();
    for (platform, text) in [
        ("Slack", slack::visible_text(&slash.body_json())),
        ("Feishu", it.feishu.messages_to(ALICE_IN_FEISHU).pop().unwrap().text),
        ("DingTalk", it.dingtalk.texts_to(ALICE_IN_DINGTALK).pop().unwrap().text),
        ("Teams", it.teams.messages_to(&it.teams.user("alice")).pop().unwrap().text),
    ] {
        assert!(text.contains("31 VPC peerings"), "{platform}: {text}");
        assert!(text.contains("These are the first 30."), "{platform}: {text}");
        let lines = text.matches(": Activated; adopted by 𝄞").count();
        let hidden = if platform == "DingTalk" { 30 - lines } else { 0 };
        assert_eq!(lines, 30 - hidden, "{platform}: {text}");
        let note = format!("… {hidden} more lines do not fit into this message.");
        assert_eq!((text.contains(&note), hidden > 0), (hidden > 0, platform == "DingTalk"), "{platform}: {text}");
    }
}

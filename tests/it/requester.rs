//! Channels of the requester hear what becomes of their request, and nothing of how it is decided.

use crate::drift::{activated, minutes, reading_vpcs};
use crate::four_platforms::FourPlatforms;
use crate::support::prelude::*;
use peergate::chat::EventSpec;
use peergate::fake::{dingtalk, feishu, teams};

/// A Slack channel of the data team.
const CHANNEL_ID: &str = "C0DATA";

fn with_channel(app: TestApp) -> TestApp {
    let config = app.config.replace(
        "[accounts.1111111111111111]\n",
        "[channels.data]\nkind = \"slack\"\nchannel = \"C0DATA\"\n\n[accounts.1111111111111111]\nchannels = [\"data\"]\n",
    );
    app.with_config(&config)
}

fn told(app: &TestApp) -> Vec<String> {
    app.slack.messages_in(CHANNEL_ID).into_iter().map(|card| card.text).collect()
}

#[tokio::test]
async fn requester_hears_each_step_without_buttons() {
    let app = with_channel(TestApp::start().await);
    let id = app.discovered_request("vpc-two-people").await;
    let first = told(&app).pop().unwrap();
    assert!(first.contains(&format!("VPC peering {id} is requested and waits for a decision")), "{first}");
    assert!(first.contains("Decided by: 2 of alice, bob, carol") && first.contains("Decided until: "), "{first}");
    let because = EventSpec { reason: Some("ticket 7".into()), ..app.event_spec("approve", &id, "alice") };
    app.send_spec(&because).await;
    app.round().await;
    assert_eq!(told(&app).len(), 1, "one of two approvals is no answer");
    let because = EventSpec { reason: Some("ticket 8".into()), ..app.event_spec("approve", &id, "bob") };
    app.send_spec(&because).await;
    clock::jump::advance_in_thread(SignedDuration::from_secs(5));
    app.follow().await;
    app.set_bandwidth(&id, 2048);
    minutes(&app, 1).await;
    app.set_bandwidth(&id, 1024);
    minutes(&app, 1).await;
    app.set_status(&id, "Deleted");
    minutes(&app, 3).await;
    let all = told(&app);
    let headlines = [
        "waits for a decision",
        "was approved",
        "is Activated",
        "is not as approved any more",
        "is again as approved",
        "was deleted after it had been active for",
    ];
    assert_eq!(all.len(), headlines.len(), "{all:#?}");
    for (text, headline) in all.iter().zip(headlines) {
        assert!(text.contains(headline), "{headline}: {text}");
    }
    assert!(all[1].contains("Reason: ticket 8"), "{}", all[1]);
    assert!(
        all[2].contains("--RegionId cn-hangzhou --RouteTableId vtb-… --DestinationCidrBlock 10.0.1.0/24"),
        "{}",
        all[2]
    );
    let everything = all.join("\n");
    for secret in ["slack:", "U061F7AUR", "webhook:", "prod/", "checks passed", "Approve"] {
        assert!(!everything.contains(secret), "{secret}: {everything}");
    }
    assert!(app.slack.messages_in(CHANNEL_ID).iter().all(|card| card.buttons.is_empty()));
}

#[tokio::test]
async fn requester_hears_a_rejection_with_its_reason() {
    let app = with_channel(TestApp::start().await);
    let id = app.discovered_request("vpc-two-people").await;
    let because = EventSpec { reason: Some("not this week".into()), ..app.event_spec("reject", &id, "alice") };
    app.send_spec(&because).await;
    app.round().await;
    let all = told(&app);
    assert!(all[1].contains("was rejected") && all[1].contains("Reason: not this week"), "{all:#?}");
}

#[tokio::test]
async fn requesters_channel_shows_nothing_for_decisions() {
    let app = TestApp::start().await;
    let config = app.config.replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = []");
    let app = with_channel(app.with_config(&config.replace("channels = [\"netops\"]", "channels = []")));
    let id = app.discovered_request("vpc-two-people").await;
    assert_eq!(told(&app).len(), 1);
    clock::jump::advance_in_thread(SignedDuration::from_secs(5));
    let blind = app.send_spec(&app.blind_spec("approve", &id, "alice")).await;
    assert_eq!(blind.name(), "not-shown");
    assert!(!app.approval(&id).await.was_ever_shown());
}

#[tokio::test]
async fn channel_that_is_no_longer_named_still_hears_the_end() {
    let app = with_channel(TestApp::start().await);
    let id = app.discovered_request("vpc-two-people").await;
    let config = app.config.replace("channels = [\"data\"]\n", "");
    let app = app.with_config(&config);
    app.reject(&id, "alice").await;
    app.round().await;
    let all = told(&app);
    assert!(all.last().unwrap().contains("was rejected"), "{all:#?}");
    assert!(!all.join("\n").contains("slack:") && !all.join("\n").contains("webhook:"), "{all:#?}");
}

#[tokio::test]
async fn requester_is_told_on_every_platform() {
    let FourPlatforms { mut app, feishu, dingtalk, teams } = FourPlatforms::add_to(TestApp::start().await).await;
    let config = app.config.replace(
        "[accounts.1111111111111111]\n",
        "[accounts.1111111111111111]\nchannels = [\"feishu\", \"dingtalk\", \"teams\"]\n",
    );
    let config = config.replace(", \"teams\", \"dingtalk\", \"feishu\"", "");
    app.reconfigure(&config);
    let id = app.discovered_request("vpc-two-people").await;
    let seen = [
        format!("{:?}", feishu.messages_in(feishu::CHAT_ID)),
        format!("{:?}", dingtalk.cards_in(dingtalk::CONVERSATION_ID, "manager-alice")),
        format!("{:?}", teams.messages_in(teams::CHANNEL_ID)),
    ];
    for shown in seen {
        assert!(shown.contains(&format!("{id} is requested and waits for a decision")), "{shown}");
        assert!(!shown.contains("Approve"), "{shown}");
    }
}

#[test]
fn program_is_no_channel_of_the_requester() {
    let config = r#"
        [targets.prod]
        account = "2222222222222222"
        regions = []
        [channels.audit]
        kind = "standard-webhooks"
        [accounts.1111111111111111]
        name = "data team"
        channels = ["audit"]
    "#;
    let error = peergate::config::Config::parse(config).unwrap_err().to_string();
    assert!(error.contains("accounts.1111111111111111.channels") && error.contains("is for programs"), "{error}");
}

/// Nobody decides about an adopted peering, and nobody else is told that somebody does.
#[tokio::test]
async fn requester_of_an_adopted_peering_is_told_nothing() {
    let app = with_channel(TestApp::start().await);
    crate::inventory::adopted(&app).await;
    minutes(&app, 2).await;
    assert_eq!(told(&app), Vec::<String>::new());
}

/// Who decides can change.
#[tokio::test]
async fn requester_hears_who_decides_by_another_rule() {
    let app = with_channel(TestApp::start().await);
    app.discovered_request("vpc-two-people").await;
    assert!(told(&app).pop().unwrap().contains("Decided by: 2 of alice, bob, carol"), "{:?}", told(&app));
    let config = app.config.replacen("approvals = 2", "approvals = 3", 1);
    assert_ne!(config, app.config);
    let app = app.with_config(&config);
    minutes(&app, 2).await;
    assert!(told(&app).pop().unwrap().contains("Decided by: 3 of alice, bob, carol"), "{:?}", told(&app));
}

/// Only we see those.
#[tokio::test]
async fn requester_hears_no_block_that_the_peering_does_not_show() {
    let app = reading_vpcs(with_channel(TestApp::start().await));
    let id = activated(&app, "vpc-other", &["alice"]).await;
    minutes(&app, 1).await;
    let before = told(&app).len();
    app.simulator.hide_cidrs("vpc-other", ["172.16.0.0/16".parse().unwrap()].into());
    clock::jump::advance_in_thread(SignedDuration::from_hours(6));
    minutes(&app, 2).await;
    assert!(app.approval(&id).await.drift().is_some());
    let card = app.slack.messages_in(CHANNEL).pop().unwrap();
    assert!(card.text.contains("172.16.0.0/16"), "{}", card.text);
    assert_eq!(app.click_button(&card, "Acknowledge", ALICE).await.status, 200);
    minutes(&app, 2).await;
    assert!(app.approval(&id).await.drift().is_none());
    assert_eq!(told(&app).len(), before, "{:?}", told(&app));
    app.set_bandwidth(&id, 5);
    minutes(&app, 2).await;
    assert!(told(&app).pop().unwrap().contains("bandwidth"), "{:?}", told(&app));
    // What they heard of ends, although the last difference was hidden from them.
    app.simulator.hide_cidrs("vpc-other", ["172.17.0.0/16".parse().unwrap()].into());
    app.set_bandwidth(&id, 1024);
    clock::jump::advance_in_thread(SignedDuration::from_hours(7));
    minutes(&app, 2).await;
    let card = app.slack.messages_in(CHANNEL).pop().unwrap();
    assert_eq!(app.click_button(&card, "Acknowledge", ALICE).await.status, 200);
    minutes(&app, 2).await;
    assert!(app.approval(&id).await.drift().is_none());
    assert!(!told(&app).pop().unwrap().contains("is not as approved"), "{:?}", told(&app));
    assert!(!told(&app).join("").contains("172."), "{:?}", told(&app));
}

//! The whole life of a request in Feishu: events in; answers, posts and calls out. The fake refuses what Feishu refuses.

use std::time::Duration;

use crate::support::{TestApp, TestResponse};
use jiff::SignedDuration;
use peergate::chat::feishu;
use peergate::chat::platform::Platform;
use peergate::clock;
use peergate::doctor::{self, Health, Options};
use peergate::fake::feishu::{BOT_CHAT_ID, CHAT_ID, FakeFeishu, FakeFeishuSettings, FeishuCard, FeishuFault};
use peergate::peering::InstanceId;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const ALICE: &str = "ou_alice";
const BOB: &str = "ou_bob";
const STRANGER: &str = "ou_mallory";

struct World {
    app: TestApp,
    fake: FakeFeishu,
}

impl World {
    async fn start() -> Self {
        let fake = FakeFeishu::new(FakeFeishuSettings::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(fake.clone().serve(listener));
        let mut app = TestApp::start().await;
        app.add_extension(&fake.sandbox_extension(&url));
        let config = app.config.replace("\"hook\", \"audit\"]", "\"bot\"]");
        Self { app: app.with_config(&config), fake }
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

    fn card(&self) -> FeishuCard {
        self.fake.messages_in(CHAT_ID).pop().unwrap()
    }

    async fn send(&self, plaintext: &str) -> TestResponse {
        let secrets = self.app.parts.secrets.current(clock::now()).await.unwrap();
        let secrets = secrets.platforms.feishu.as_ref().unwrap();
        self.app.send(&feishu::sign_plaintext(secrets, plaintext, clock::now()).unwrap()).await
    }

    /// Clicks; returns the toast, and lets the reply redraw the card.
    async fn click(&self, label: &str, who: &str, reason: Option<&str>) -> String {
        let card = self.card();
        let plaintext =
            self.fake.click_button(&card.message_id, label, &self.fake.person_of_tenant(who), reason).unwrap();
        let reply = self.send(&plaintext).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        self.fake.apply_reply(&card.message_id, &reply.body_json()).unwrap().unwrap_or_default()
    }
}

#[tokio::test]
async fn request_on_feishu_is_decided_accepted_and_activated() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let card = world.card();
    assert!(card.text.contains(&format!("approve or reject VPC peering prod/{id}")), "{}", card.text);
    assert_eq!(card.button_labels()[..2], ["Approve", "Details"], "{:?}", card.button_labels());
    let toast = world.click("Approve", ALICE, None).await;
    assert!(toast.starts_with(&format!("You approved prod/{id}")), "{toast}");
    assert_eq!((world.app.state_of(&id).await.as_str(), world.app.count_accepts(&id)), ("activating", 1));
    assert!(world.card().find_button("Approve").is_none(), "the reply has drawn the card for everybody");
    assert_eq!(world.app.load_record(&id).await.unwrap().approval.decisions()[0].by.person.as_deref(), Some("alice"));
    world.app.tick().await;
    let card = world.card();
    assert!(card.text.contains("is Activated"), "{}", card.text);
    let thread = card.thread_headlines();
    assert!(thread[0].starts_with("alice approved VPC peering"), "{thread:?}");
    assert_eq!(
        (thread.len(), world.fake.messages_in(CHAT_ID).len()),
        (3, 1),
        "decided, accepted and activated, below one card"
    );
    let bot = world.fake.messages_in(BOT_CHAT_ID);
    assert_eq!(bot.len(), 4, "{bot:?}");
    assert!(bot.iter().all(|message| message.buttons.iter().all(|button| button.value.is_null())));
    assert_eq!(world.app.only_card().replies.len(), 3, "Slack heard the same");
}

#[tokio::test]
async fn person_on_slack_and_feishu_counts_once() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    world.app.click_button(&world.app.only_card(), "Approve", "U061F7AUR").await;
    let toast = world.click("Approve", ALICE, None).await;
    assert!(toast.starts_with("You already decided on"), "{toast}");
    assert_eq!(world.app.load_record(&id).await.unwrap().approval.approval_count(), 1);
    world.click("Approve", BOB, None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn reason_is_asked_on_the_card_and_checked_on_the_server() {
    let world = World::start().await;
    let id = world.request("vpc-with-a-reason").await;
    let refused = world.click("Approve", ALICE, Some("   ")).await;
    assert!(refused.contains("reason"), "{refused}");
    assert_eq!((world.app.state_of(&id).await.as_str(), world.app.count_accepts(&id)), ("pending", 0));
    world.click("Approve", ALICE, Some("the data team needs it")).await;
    let decision = world.app.load_record(&id).await.unwrap().approval.winner().unwrap().clone();
    assert_eq!((decision.reason.as_deref(), world.app.count_accepts(&id)), (Some("the data team needs it"), 1));
    let other = world.request("vpc-other").await;
    world.click("Reject", ALICE, None).await;
    assert_eq!(world.app.state_of(&other).await, "rejected", "a reason to reject is optional");
}

#[tokio::test]
async fn replayed_click_changes_nothing() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    let card = world.card();
    let click =
        world.fake.click_button(&card.message_id, "Approve", &world.fake.person_of_tenant(ALICE), None).unwrap();
    world.send(&click).await;
    let withdraw = {
        world.app.round().await;
        world.click("Withdraw my approval", ALICE, None).await
    };
    assert!(withdraw.contains("You withdrew your approval"), "{withdraw}");
    world.send(&click).await;
    assert_eq!(
        (world.app.load_record(&id).await.unwrap().approval.approval_count(), world.app.count_accepts(&id)),
        (0, 0)
    );
}

/// A pending request on its card, and a click on Approve.
struct ApprovalClick {
    world: World,
    id: InstanceId,
    card: FeishuCard,
    plaintext: String,
}

impl ApprovalClick {
    async fn new() -> Self {
        let world = World::start().await;
        let id = world.request("vpc-other").await;
        let card = world.card();
        let person = world.fake.person_of_tenant(ALICE);
        let plaintext = world.fake.click_button(&card.message_id, "Approve", &person, None).unwrap();
        Self { world, id, card, plaintext }
    }

    /// Sends the click with a change, as a new event.
    async fn send_changed(&self, change: impl FnOnce(&mut Value)) -> TestResponse {
        let mut event: Value = serde_json::from_str(&self.plaintext).unwrap();
        event["header"]["event_id"] = clock::nonce().into();
        change(&mut event);
        self.world.send(&event.to_string()).await
    }

    async fn assert_undecided(&self) {
        let accepts = self.world.app.count_accepts(&self.id);
        assert_eq!((self.world.app.state_of(&self.id).await.as_str(), accepts), ("pending", 0));
    }
}

#[tokio::test]
async fn click_without_a_valid_binding_reaches_nothing() {
    let click = ApprovalClick::new().await;
    let before = click.world.app.count_upstream_calls();
    let without = click.send_changed(|event| {
        event["event"]["action"]["value"] = json!({"a": "approve"});
        event["event"]["action"]["name"] = json!("approve");
    });
    assert_eq!(without.await.status, 400, "without a binding");
    let forged = click.send_changed(|event| {
        event["event"]["action"]["value"]["b"] = json!("aprod/pcc-sim00000001.AAAA");
        event["event"]["action"]["name"] = json!(null);
    });
    assert_eq!(forged.await.status, 400, "with a forged binding");
    let different = click.send_changed(|event| event["event"]["action"]["name"] = json!("b.aprod/pcc-a.AA"));
    assert_eq!(different.await.status, 400, "with two different bindings");
    assert_eq!(click.world.app.count_upstream_calls(), before);
    click.assert_undecided().await;
}

#[tokio::test]
async fn slack_binding_decides_nothing_on_feishu() {
    let click = ApprovalClick::new().await;
    let of_slack = click.world.app.only_card().find_button("Approve").unwrap().value.clone();
    let reply = click.send_changed(|event| {
        event["event"]["action"]["value"]["b"] = json!(of_slack);
        event["event"]["action"]["name"] = json!(null);
    });
    let reply = reply.await;
    assert!(reply.status == 400 || reply.body.contains("is no longer valid"), "{}", reply.body);
    click.assert_undecided().await;
}

#[tokio::test]
async fn copied_card_decides_nothing_and_is_replaced() {
    let click = ApprovalClick::new().await;
    let reply = click.send_changed(|event| event["event"]["context"]["open_message_id"] = json!("om_copy")).await;
    assert!(reply.body.contains("is no longer valid"), "{}", reply.body);
    assert!(reply.body_json()["card"]["data"].to_string().contains("has been replaced"), "{}", reply.body);
    click.assert_undecided().await;
}

#[tokio::test]
async fn click_from_another_app_or_tenant_decides_nothing() {
    let click = ApprovalClick::new().await;
    for pointer in ["/event/operator/tenant_key", "/header/tenant_key", "/header/app_id"] {
        let reply = click.send_changed(|event| *event.pointer_mut(pointer).unwrap() = json!("cli_other")).await;
        assert!(reply.status == 200 || reply.status == 403, "{pointer}: {}", reply.body);
    }
    click.assert_undecided().await;
}

#[tokio::test]
async fn click_of_an_unknown_person_is_warned() {
    let click = ApprovalClick::new().await;
    let (world, stranger) = (&click.world, click.world.fake.person_of_tenant(STRANGER));
    let unknown = world.fake.click_button(&click.card.message_id, "Approve", &stranger, None).unwrap();
    let reply = world.send(&unknown).await;
    assert_eq!(reply.body_json()["toast"]["type"], "warning", "{}", reply.body);
    click.assert_undecided().await;
}

#[tokio::test]
async fn details_and_commands_are_answered_in_private() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let toast = world.click("Details", ALICE, None).await;
    assert!(toast.contains("has the status Accepting"), "{toast}");
    assert!(world.fake.messages_to(ALICE).pop().unwrap().text.contains("account 1111111111111111"));
    let reply = world.send(&world.fake.send_text(CHAT_ID, "list", &world.fake.person_of_tenant(ALICE))).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
    assert!(world.fake.messages_to(ALICE).pop().unwrap().text.contains(id.as_str()));
    world.send(&world.fake.send_text(CHAT_ID, "make it so", &world.fake.person_of_tenant(ALICE))).await;
    let told = world.fake.messages_to(ALICE).pop().unwrap().text;
    assert!(told.contains("“make” is not a command") && told.contains("Nothing was decided."), "{told}");
    assert!(told.contains("/peergate list"), "{told}");
    world.send(&world.fake.send_text(CHAT_ID, "help", &world.fake.person_of_tenant(ALICE))).await;
    assert!(world.fake.messages_to(ALICE).pop().unwrap().text.contains("understands these commands"));
    world
        .send(&world.fake.send_text(CHAT_ID, &format!("approve {id} because so"), &world.fake.person_of_tenant(ALICE)))
        .await;
    assert_eq!(world.app.count_accepts(&id), 1);
    assert_eq!(world.fake.messages_in(CHAT_ID).len(), 1, "nothing of it in the chat");
}

#[tokio::test]
async fn private_feishu_button_decides_for_its_person_only() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    world.click("Details", ALICE, None).await;
    let answer = world.fake.messages_to(ALICE).pop().unwrap();
    let by_bob =
        world.fake.click_button(&answer.message_id, "Approve", &world.fake.person_of_tenant(BOB), None).unwrap();
    let reply = world.send(&by_bob).await;
    assert!(reply.body.contains("is no longer valid"), "{}", reply.body);
    assert_eq!(world.app.count_accepts(&id), 0);
    let by_alice =
        world.fake.click_button(&answer.message_id, "Approve", &world.fake.person_of_tenant(ALICE), None).unwrap();
    world.send(&by_alice).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn expired_card_is_followed_by_a_new_one() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    let old = world.card();
    let click = world.fake.click_button(&old.message_id, "Approve", &world.fake.person_of_tenant(BOB), None).unwrap();
    world.fake.move_clock(SignedDuration::from_hours(14 * 24 + 1));
    // Feishu's tokens of before have ended, too.
    world.app.send(&world.app.sign_event("approve", &id, "alice").await).await;
    world.app.round().await;
    let cards = world.fake.messages_in(CHAT_ID);
    assert_eq!(cards.len(), 2, "{cards:?}");
    assert!(cards[0].thread_headlines().iter().any(|reply| reply.starts_with("There is a new card")), "{:?}", cards[0]);
    assert!(cards[1].text.contains("1 of 2"), "{}", cards[1].text);
    let reply = world.send(&click).await;
    assert!(reply.body_json()["card"]["data"].to_string().contains("has been replaced"), "{}", reply.body);
    assert_eq!(world.app.count_accepts(&id), 0);
    world.click("Approve", BOB, None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn feishu_outage_loses_nothing_and_delays_nobody() {
    let world = World::start().await;
    let path = "/open-apis/im/v1/messages".to_owned();
    world.fake.add_fault(FeishuFault { path, status: 503, ..FeishuFault::default() });
    let id = world.request("vpc-other").await;
    assert!(world.fake.messages_in(CHAT_ID).is_empty());
    assert_eq!(world.app.only_card().button_labels()[0], "Approve", "Slack has it");
    world.app.click_button(&world.app.only_card(), "Approve", "U061F7AUR").await;
    world.app.tick().await;
    assert_eq!(world.app.count_accepts(&id), 1);
    world.fake.clear_faults();
    world.tick_until(|world| world.fake.messages_in(CHAT_ID).pop().is_some_and(|card| card.replies.len() == 3)).await;
    let card = world.card();
    assert!(card.text.contains("is Activated"), "{}", card.text);
    assert_eq!(card.replies.len(), 3);
}

#[tokio::test]
async fn token_is_shared_by_processes_and_replaced_when_refused() {
    let world = World::start().await;
    world.request("vpc-other").await;
    let tokens =
        |world: &World| world.fake.calls().iter().filter(|call| call.path.contains("tenant_access_token")).count();
    assert_eq!(tokens(&world), 1);
    let World { app, fake } = world;
    let world = World { app: app.restart_app(), fake };
    world.request("vpc-two-people").await;
    assert_eq!(tokens(&world), 1, "another process has left it in the table");
    world.fake.revoke_tokens();
    world.request("vpc-with-a-reason").await;
    assert_eq!((tokens(&world), world.fake.messages_in(CHAT_ID).len()), (2, 3));
}

#[tokio::test]
async fn lost_post_answer_makes_no_second_card() {
    let world = World::start().await;
    let path = "/open-apis/im/v1/messages".to_owned();
    world.fake.add_fault(FeishuFault { path, status: 502, after_effect: true, ..FeishuFault::default() });
    let id = world.request("vpc-other").await;
    world.fake.clear_faults();
    let taken = |world: &World| world.fake.calls().iter().filter(|call| call.path.contains("/messages")).count() > 1;
    world.tick_until(taken).await;
    assert_eq!(world.fake.messages_in(CHAT_ID).len(), 1);
    world.click("Approve", ALICE, None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn lost_card_shows_the_facts_of_the_next_attempt() {
    let world = World::start().await;
    let path = "/open-apis/im/v1/messages".to_owned();
    world.fake.add_fault(FeishuFault { path, status: 502, after_effect: true, ..FeishuFault::default() });
    let id = world.request("vpc-other").await;
    world.fake.clear_faults();
    let lost = world.card();
    world.app.set_bandwidth(&id, 2000);
    world.app.discover().await;
    let cards = |world: &World| {
        let messages = world.fake.messages_in(CHAT_ID).into_iter();
        messages.filter(|message| !message.buttons.is_empty()).collect::<Vec<_>>()
    };
    world.tick_until(|world| cards(world).last().is_some_and(|card| card.text.contains("2000 Mbit/s"))).await;
    assert_eq!(cards(&world).len(), 1, "the key of the post does not depend on the facts");
    assert!(cards(&world)[0].message_id == lost.message_id, "it is the lost one");
    world.app.assert_state(&id, "pending").await;
}

#[tokio::test]
async fn burst_of_requests_is_posted_in_spite_of_feishus_limits() {
    let world = World::start().await;
    for _ in 0..8 {
        world.app.request_peering(&[]).await.unwrap();
    }
    world.app.discover().await;
    world.tick_until(|world| world.fake.messages_in(CHAT_ID).len() == 8).await;
    assert_eq!(world.fake.messages_in(CHAT_ID).len(), 8, "each once");
}

#[tokio::test]
async fn card_whose_answer_was_lost_decides_at_once() {
    let world = World::start().await;
    let path = "/open-apis/im/v1/messages".to_owned();
    world.fake.add_fault(FeishuFault { path, status: 502, after_effect: true, ..FeishuFault::default() });
    let id = world.request("vpc-other").await;
    world.fake.clear_faults();
    let card = world.card();
    let reply = async |who| {
        let click =
            world.fake.click_button(&card.message_id, "Approve", &world.fake.person_of_tenant(who), None).unwrap();
        world.send(&click).await.body_json()
    };
    let refused = reply(STRANGER).await.to_string();
    assert!(!refused.contains("has been replaced"), "{refused}");
    assert_eq!(world.app.count_accepts(&id), 0);
    // The button binds the facts beside it, and the message becomes the card.
    let decided = reply(ALICE).await.to_string();
    assert!(decided.contains("You approved"), "{decided}");
    assert_eq!(world.app.count_accepts(&id), 1);
    world.tick_until(|world| world.card().text.contains("is Activated")).await;
    assert_eq!(world.fake.messages_in(CHAT_ID).len(), 1, "nothing is posted again");
}

#[tokio::test]
async fn command_older_than_the_card_decides_nothing() {
    let world = World::start().await;
    let id = world.app.request_peering(&[("AcceptingVpcId", "vpc-other")]).await.unwrap();
    let early = world.fake.send_text(CHAT_ID, &format!("approve {id} because so"), &world.fake.person_of_tenant(ALICE));
    let mut event: Value = serde_json::from_str(&early).unwrap();
    event["event"]["message"]["create_time"] = (clock::now().as_millisecond() - 2000).to_string().into();
    world.app.discover().await;
    world.send(&event.to_string()).await;
    assert_eq!((world.app.state_of(&id).await.as_str(), world.app.count_accepts(&id)), ("pending", 0));
}

#[tokio::test]
async fn hanging_private_answer_still_shows_a_toast() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    let path = "/open-apis/im/v1/messages".to_owned();
    world.fake.add_fault(FeishuFault { path, hangs: true, ..FeishuFault::default() });
    let toast = world.click("Details", ALICE, None).await;
    assert!(toast.contains(id.as_str()), "{toast}");
    assert!(world.fake.messages_to(ALICE).is_empty());
    let logged = crate::support::logged();
    let given_up = logged.lines().find(|line| line.contains("unanswered_click")).unwrap();
    // Of ours, and shorter than that of any call.
    assert!(given_up.contains("error=\"Transport.Timeout\""), "{given_up}");
}

#[tokio::test]
async fn failing_token_fetch_is_retried_rarely() {
    let world = World::start().await;
    world.fake.add_fault(FeishuFault { path: "/open-apis/auth".into(), status: 503, ..FeishuFault::default() });
    for _ in 0..6 {
        world.app.request_peering(&[]).await.unwrap();
    }
    world.app.discover().await;
    let asked = world.fake.calls().iter().filter(|call| call.path.contains("tenant_access_token")).count();
    assert!((1..=3).contains(&asked), "{asked}");
    assert_eq!(world.app.slack.messages_in("C0PEER").len(), 6, "Slack has heard");
}

#[tokio::test]
async fn unauthentic_callback_reaches_nothing() {
    let world = World::start().await;
    let secrets = world.app.parts.secrets.current(clock::now()).await.unwrap();
    let keys = secrets.platforms.feishu.as_ref().unwrap();
    let said = world.fake.send_text(CHAT_ID, "approve pcc-a because so", &world.fake.person_of_tenant(ALICE));
    let (now, before) = (clock::now(), world.app.count_upstream_calls());
    let signed = |at| feishu::sign_plaintext(keys, &said, at).unwrap();
    let mut plaintext = signed(now);
    plaintext.body.clone_from(&said);
    let mut unsigned = signed(now);
    unsigned.headers.retain(|(name, _)| !name.starts_with("x-lark-"));
    let mut flipped = signed(now);
    flipped.body = flipped.body.replacen('A', "B", 1);
    let mut twice = signed(now);
    twice.headers.push(("x-lark-signature", "0".repeat(64)));
    let mut trailing = signed(now);
    trailing.body.push(' ');
    for (name, request) in [
        ("plaintext under a good signature of something else", plaintext),
        ("unsigned", unsigned),
        ("flipped", flipped),
        ("two signatures", twice),
        ("trailing", trailing),
        ("stale", signed(now - SignedDuration::from_secs(301))),
        ("early", signed(now + SignedDuration::from_secs(301))),
    ] {
        let reply = world.app.send_at(&request, now).await;
        assert_eq!((reply.status, reply.name().as_str()), (401, "unauthentic"), "{name}: {}", reply.body);
    }
    assert_eq!(world.app.count_upstream_calls(), before);
    assert!(world.fake.calls().is_empty(), "{:?}", world.fake.calls());
}

#[tokio::test]
async fn url_verification_gets_its_challenge_and_nothing_else() {
    let world = World::start().await;
    let secrets = world.app.parts.secrets.current(clock::now()).await.unwrap();
    let keys = &secrets.platforms.feishu.as_ref().unwrap().callbacks[0];
    let send = async |plaintext: &str| {
        let body = feishu::encrypt_body(plaintext, &keys.encrypt_key, [7; 16]);
        let headers = vec![("content-type", "application/json".into())];
        world.app.send(&peergate::chat::SignedRequest { path: "/feishu".into(), headers, body }).await
    };
    let token = keys.verification_token.expose();
    let test = json!({"type": "url_verification", "challenge": "c42e", "token": token});
    let reply = send(&test.to_string()).await;
    assert_eq!((reply.status, reply.body_json()), (200, json!({"challenge": "c42e"})));
    let other = json!({"type": "url_verification", "challenge": "c42e", "token": "another token of 32 characters!!"});
    assert_eq!(send(&other.to_string()).await.status, 401);
    assert_eq!(
        send(&world.fake.send_text(CHAT_ID, "list", &world.fake.person_of_tenant(ALICE))).await.status,
        401,
        "an unsigned event"
    );
    assert!(world.fake.calls().is_empty());
}

/// What the doctor finds in the channels `feishu` and `bot`.
async fn examine_channels(world: &World, post: bool) -> [(Health, String); 2] {
    let options = Options { post, ..Options::default() };
    let deadline = Instant::now() + Duration::from_mins(1);
    let report = doctor::examine_deployment(Ok(world.app.environment.clone()), &options, deadline).await;
    ["channel feishu", "channel bot"].map(|channel| {
        let check = report.0.iter().find(|check| check.subject == channel).unwrap();
        (check.health, check.detail.clone())
    })
}

#[tokio::test]
async fn doctor_posts_a_feishu_test_message_only_on_request() {
    let world = World::start().await;
    let [app, bot] = examine_channels(&world, false).await;
    assert_eq!((app.0, bot.0), (Health::Healthy, Health::Healthy), "{app:?} {bot:?}");
    assert_eq!(app.1, "the app's secret is valid");
    assert!(world.fake.messages_in(CHAT_ID).is_empty() && world.fake.messages_in(BOT_CHAT_ID).is_empty());
    let accepted = (Health::Healthy, "accepted a test message".to_owned());
    assert_eq!(examine_channels(&world, true).await, [accepted.clone(), accepted]);
    assert_eq!((world.fake.messages_in(CHAT_ID).len(), world.fake.messages_in(BOT_CHAT_ID).len()), (1, 1));
}

#[tokio::test]
async fn doctor_and_first_tick_report_feishu_refusals() {
    let world = World::start().await;
    let misconfigured = || {
        let lines = crate::support::logged();
        lines.lines().filter(|line| line.contains("misconfigured")).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    for (code, status, reported) in [(None, 503, 0), (Some(10003), 400, 1), (Some(10014), 400, 2)] {
        world.fake.clear_faults();
        world.fake.add_fault(FeishuFault { path: "/open-apis/auth".into(), code, status, ..FeishuFault::default() });
        doctor::StartupCheck::default().run_once(&world.app.parts).await;
        let lines = misconfigured();
        assert_eq!(lines.len(), reported, "{code:?}: {lines:?}");
        assert!(lines.iter().all(|line| line.contains("platforms.feishu.app")), "{lines:?}");
        let [(health, detail), _] = examine_channels(&world, true).await;
        assert!(health != Health::Healthy && detail.contains(&code.unwrap_or(503).to_string()), "{detail}");
    }
    assert!(world.fake.messages_in(CHAT_ID).is_empty(), "without a token, nothing is posted");
}

#[tokio::test]
async fn register_command_names_every_setting_to_enter() {
    let world = World::start().await;
    let secrets = world.app.parts.secrets.current(clock::now()).await.unwrap();
    let url = "https://peergate.example.com/feishu".parse().unwrap();
    let said = Platform::Feishu.register_webhook(world.app.parts.chat_context(&secrets), &url).await.unwrap();
    assert!(said.contains(url.as_str()) && said.contains(&world.fake.settings().app), "{said}");
    assert!(world.fake.calls().is_empty(), "Feishu is asked nothing");
}

/// A click with a reason that Feishu's own client would not send.
async fn click_with_reason(world: &World, label: &str, reason: &str) -> String {
    let card = world.card();
    let click =
        world.fake.click_button(&card.message_id, label, &world.fake.person_of_tenant(ALICE), Some("x")).unwrap();
    let mut click: Value = serde_json::from_str(&click).unwrap();
    click["event"]["action"]["form_value"]["reason"] = json!(reason);
    let reply = world.send(&click.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    world.fake.apply_reply(&card.message_id, &reply.body_json()).unwrap().unwrap_or_default()
}

#[tokio::test]
async fn long_or_blank_feishu_reason_is_refused_in_a_toast() {
    let world = World::start().await;
    let id = world.request("vpc-with-a-reason").await;
    assert!(world.card().inputs.iter().all(|input| input.max_length == 400));
    for label in ["Approve", "Reject"] {
        let toast = click_with_reason(&world, label, &"理".repeat(401)).await;
        assert!(toast.contains("Your reason has 401 characters") && toast.contains("Nothing was decided."), "{toast}");
        let toast = click_with_reason(&world, label, " \u{200b}\u{3000}\n").await;
        assert!(toast.contains("requires a reason, so nothing was decided"), "{toast}");
    }
    let said = format!("approve {id} because {}", "理".repeat(401));
    world.send(&world.fake.send_text(CHAT_ID, &said, &world.fake.person_of_tenant(ALICE))).await;
    assert!(world.fake.messages_to(ALICE).pop().unwrap().text.contains("Your reason has 401 characters"));
    assert_eq!((world.app.state_of(&id).await.as_str(), world.app.count_accepts(&id)), ("pending", 0));
    let whole = format!("first  line\nsecond line {}", "理".repeat(376));
    click_with_reason(&world, "Approve", &whole).await;
    assert_eq!(world.app.approval(&id).await.winner().unwrap().reason.as_ref(), Some(&whole));
}

#[tokio::test]
async fn failed_private_answer_is_posted_once_more() {
    let world = World::start().await;
    let path = "/open-apis/im/v1/messages".to_owned();
    world.fake.add_fault(FeishuFault {
        path: path.clone(),
        status: 503,
        retry_after: Some(1),
        ..FeishuFault::default()
    });
    let command = world.fake.send_text(CHAT_ID, "help", &world.fake.person_of_tenant(ALICE));
    let (reply, ()) = tokio::join!(world.send(&command), async {
        while !world.fake.calls().iter().any(|call| call.path.starts_with(&path)) {
            tokio::task::yield_now().await;
        }
        world.fake.clear_faults();
    });
    assert_eq!(reply.status, 200);
    let told = world.fake.messages_to(ALICE);
    assert!(told.len() == 1 && told[0].text.contains("understands these commands"), "{told:?}");
}

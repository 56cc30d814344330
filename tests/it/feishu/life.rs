//! The whole life of a request in Feishu: events in; answers, posts and calls out. The fake refuses what Feishu refuses.

use std::time::Duration;

use crate::support::{Gate, Reply};
use jiff::SignedDuration;
use peergate::chat::feishu;
use peergate::chat::platform::Platform;
use peergate::clock;
use peergate::doctor::{self, Found, Wish};
use peergate::local::feishu::{BOT, CHAT, FakeFeishu, Fault, Settings, Shown};
use peergate::peering::InstanceId;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const ALICE: &str = "ou_alice";
const BOB: &str = "ou_bob";
const STRANGER: &str = "ou_mallory";

struct World {
    gate: Gate,
    fake: FakeFeishu,
}

impl World {
    async fn start() -> Self {
        let fake = FakeFeishu::new(Settings::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(fake.clone().serve(listener));
        let mut gate = Gate::start().await;
        gate.extend(&fake.extension(&url));
        let config = gate.config.replace("\"hook\", \"audit\"]", "\"bot\"]");
        Self { gate: gate.with_config(&config), fake }
    }

    async fn told(&self, vpc: &str) -> InstanceId {
        let id = self.gate.request_peering(&[("AcceptingVpcId", vpc)]).await.unwrap();
        self.gate.discover().await;
        id
    }

    /// Ticks until the channel has heard; what failed is tried again after some seconds.
    async fn told_at_last(&self, heard: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !heard(self) {
            assert!(started.elapsed() < Duration::from_mins(2), "the channel never heard");
            self.gate.tick().await;
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn card(&self) -> Shown {
        self.fake.chat(CHAT).pop().unwrap()
    }

    async fn send(&self, plaintext: &str) -> Reply {
        let secrets = self.gate.app.secrets.current(clock::now()).await.unwrap();
        let secrets = secrets.platforms.feishu.as_ref().unwrap();
        self.gate.send(&feishu::signed(secrets, plaintext, clock::now()).unwrap()).await
    }

    /// Clicks; returns the toast, and lets the reply redraw the card.
    async fn click(&self, label: &str, who: &str, reason: Option<&str>) -> String {
        let card = self.card();
        let plaintext = self.fake.click(&card.message_id, label, &self.fake.person(who), reason).unwrap();
        let reply = self.send(&plaintext).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        self.fake.take_reply(&card.message_id, &reply.json()).unwrap().unwrap_or_default()
    }
}

#[tokio::test]
async fn request_is_shown_decided_accepted_and_followed() {
    let world = World::start().await;
    let id = world.told("vpc-other").await;
    let card = world.card();
    assert!(card.text.contains(&format!("VPC peering prod/{id} waits for approval")), "{}", card.text);
    assert_eq!(card.labels()[..2], ["Approve", "Details"], "{:?}", card.labels());
    let toast = world.click("Approve", ALICE, None).await;
    assert!(toast.starts_with(&format!("You approved prod/{id}")), "{toast}");
    assert_eq!((world.gate.state(&id).await.as_str(), world.gate.accepts(&id)), ("activating", 1));
    assert!(world.card().button("Approve").is_none(), "the reply has drawn the card for everybody");
    assert_eq!(world.gate.stored(&id).await.unwrap().approval.decisions[0].by.person.as_deref(), Some("alice"));
    world.gate.tick().await;
    let card = world.card();
    assert!(card.text.contains("is Activated"), "{}", card.text);
    let thread = card.thread();
    assert!(thread[0].starts_with("alice (feishu:") && thread[0].contains("approved VPC peering"), "{thread:?}");
    assert_eq!((thread.len(), world.fake.chat(CHAT).len()), (3, 1), "decided, accepted and activated, below one card");
    let bot = world.fake.chat(BOT);
    assert_eq!(bot.len(), 4, "{bot:?}");
    assert!(bot.iter().all(|message| message.buttons.iter().all(|button| button.value.is_null())));
    assert_eq!(world.gate.card().replies.len(), 3, "Slack heard the same");
}

#[tokio::test]
async fn one_human_on_slack_and_feishu_counts_once() {
    let world = World::start().await;
    let id = world.told("vpc-two-people").await;
    world.gate.press(&world.gate.card(), "Approve", "U061F7AUR").await;
    let toast = world.click("Approve", ALICE, None).await;
    assert!(toast.starts_with("You decided about"), "{toast}");
    assert_eq!(world.gate.stored(&id).await.unwrap().approval.given(), 1);
    world.click("Approve", BOB, None).await;
    assert_eq!(world.gate.accepts(&id), 1);
}

#[tokio::test]
async fn reason_is_asked_on_the_card_and_checked_on_the_server() {
    let world = World::start().await;
    let id = world.told("vpc-with-a-reason").await;
    let refused = world.click("Approve", ALICE, Some("   ")).await;
    assert!(refused.contains("reason"), "{refused}");
    assert_eq!((world.gate.state(&id).await.as_str(), world.gate.accepts(&id)), ("pending", 0));
    world.click("Approve", ALICE, Some("the data team needs it")).await;
    let decision = world.gate.stored(&id).await.unwrap().approval.winner().unwrap().clone();
    assert_eq!((decision.reason.as_deref(), world.gate.accepts(&id)), (Some("the data team needs it"), 1));
    let other = world.told("vpc-other").await;
    world.click("Reject", ALICE, None).await;
    assert_eq!(world.gate.state(&other).await, "rejected", "a reason to reject is optional");
}

#[tokio::test]
async fn replayed_click_changes_nothing() {
    let world = World::start().await;
    let id = world.told("vpc-two-people").await;
    let card = world.card();
    let click = world.fake.click(&card.message_id, "Approve", &world.fake.person(ALICE), None).unwrap();
    world.send(&click).await;
    let withdraw = {
        world.gate.round().await;
        world.click("Withdraw my approval", ALICE, None).await
    };
    assert!(withdraw.contains("does not count any more"), "{withdraw}");
    world.send(&click).await;
    assert_eq!((world.gate.stored(&id).await.unwrap().approval.given(), world.gate.accepts(&id)), (0, 0));
}

#[tokio::test]
async fn click_that_is_forged_copied_or_of_another_tenant_decides_nothing() {
    let world = World::start().await;
    let id = world.told("vpc-other").await;
    let card = world.card();
    let person = world.fake.person(ALICE);
    let click = world.fake.click(&card.message_id, "Approve", &person, None).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut event: Value = serde_json::from_str(&click).unwrap();
        event["header"]["event_id"] = clock::nonce().into();
        change(&mut event);
        event.to_string()
    };
    let before = world.gate.upstream_calls();
    let nothing = changed(&|it| {
        it["event"]["action"]["value"] = json!({"a": "approve"});
        it["event"]["action"]["name"] = json!("approve");
    });
    assert_eq!(world.send(&nothing).await.status, 400, "without a binding");
    let forged = changed(&|it| {
        it["event"]["action"]["value"]["b"] = json!("aprod/pcc-sim00000001.AAAA");
        it["event"]["action"]["name"] = json!(null);
    });
    assert_eq!(world.send(&forged).await.status, 400);
    let differs = changed(&|it| it["event"]["action"]["name"] = json!("b.aprod/pcc-a.AA"));
    assert_eq!(world.send(&differs).await.status, 400);
    assert_eq!(world.gate.upstream_calls(), before);
    let of_slack = world.gate.card().button("Approve").unwrap().value.clone();
    let slacks = changed(&|it| {
        it["event"]["action"]["value"]["b"] = json!(of_slack);
        it["event"]["action"]["name"] = json!(null);
    });
    let of_another_platform = world.send(&slacks).await;
    assert!(
        of_another_platform.status == 400 || of_another_platform.body.contains("is no longer valid"),
        "{}",
        of_another_platform.body
    );
    let copied = changed(&|it| it["event"]["context"]["open_message_id"] = json!("om_copy"));
    let reply = world.send(&copied).await;
    assert!(reply.body.contains("is no longer valid"), "{}", reply.body);
    assert!(reply.json()["card"]["data"].to_string().contains("has been replaced"), "the copy is redrawn");
    for (name, change) in
        [("operator", "/event/operator/tenant_key"), ("header", "/header/tenant_key"), ("app", "/header/app_id")]
    {
        let elsewhere = changed(&|it| *it.pointer_mut(change).unwrap() = json!("cli_other"));
        let reply = world.send(&elsewhere).await;
        assert!(reply.status == 200 || reply.status == 403, "{name}: {}", reply.body);
    }
    let unknown = world.fake.click(&card.message_id, "Approve", &world.fake.person(STRANGER), None).unwrap();
    let reply = world.send(&unknown).await;
    assert_eq!(reply.json()["toast"]["type"], "warning", "{}", reply.body);
    assert_eq!((world.gate.state(&id).await.as_str(), world.gate.accepts(&id)), ("pending", 0));
}

#[tokio::test]
async fn details_and_commands_are_answered_in_private() {
    let world = World::start().await;
    let id = world.told("vpc-other").await;
    let toast = world.click("Details", ALICE, None).await;
    assert!(toast.contains("is Accepting"), "{toast}");
    assert!(world.fake.direct(ALICE).pop().unwrap().text.contains("account 1111111111111111"));
    let reply = world.send(&world.fake.say(CHAT, "list", &world.fake.person(ALICE))).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
    assert!(world.fake.direct(ALICE).pop().unwrap().text.contains(id.as_str()));
    world.send(&world.fake.say(CHAT, "make it so", &world.fake.person(ALICE))).await;
    assert!(world.fake.direct(ALICE).pop().unwrap().text.contains("understands these commands"));
    world.send(&world.fake.say(CHAT, &format!("approve {id} because so"), &world.fake.person(ALICE))).await;
    assert_eq!(world.gate.accepts(&id), 1);
    assert_eq!(world.fake.chat(CHAT).len(), 1, "nothing of it in the chat");
}

#[tokio::test]
async fn private_answers_buttons_decide_for_its_person_alone() {
    let world = World::start().await;
    let id = world.told("vpc-other").await;
    world.click("Details", ALICE, None).await;
    let answer = world.fake.direct(ALICE).pop().unwrap();
    let by_bob = world.fake.click(&answer.message_id, "Approve", &world.fake.person(BOB), None).unwrap();
    let reply = world.send(&by_bob).await;
    assert!(reply.body.contains("is no longer valid"), "{}", reply.body);
    assert_eq!(world.gate.accepts(&id), 0);
    let by_alice = world.fake.click(&answer.message_id, "Approve", &world.fake.person(ALICE), None).unwrap();
    world.send(&by_alice).await;
    assert_eq!(world.gate.accepts(&id), 1);
}

#[tokio::test]
async fn card_that_is_too_old_is_followed_by_a_new_one() {
    let world = World::start().await;
    let id = world.told("vpc-two-people").await;
    let old = world.card();
    let click = world.fake.click(&old.message_id, "Approve", &world.fake.person(BOB), None).unwrap();
    world.fake.move_clock(SignedDuration::from_hours(14 * 24 + 1));
    // Feishu's tokens of before have ended, too.
    world.gate.send(&world.gate.signed("approve", &id, "alice").await).await;
    world.gate.round().await;
    let cards = world.fake.chat(CHAT);
    assert_eq!(cards.len(), 2, "{cards:?}");
    assert!(cards[0].thread().iter().any(|reply| reply.starts_with("There is a new card")), "{:?}", cards[0]);
    assert!(cards[1].text.contains("1 of 2"), "{}", cards[1].text);
    let reply = world.send(&click).await;
    assert!(reply.json()["card"]["data"].to_string().contains("has been replaced"), "{}", reply.body);
    assert_eq!(world.gate.accepts(&id), 0);
    world.click("Approve", BOB, None).await;
    assert_eq!(world.gate.accepts(&id), 1);
}

#[tokio::test]
async fn feishu_that_is_down_loses_nothing_and_holds_nobody_up() {
    let world = World::start().await;
    let path = "/open-apis/im/v1/messages".to_owned();
    world.fake.add_fault(Fault { path, status: 503, ..Fault::default() });
    let id = world.told("vpc-other").await;
    assert!(world.fake.chat(CHAT).is_empty());
    assert_eq!(world.gate.card().labels()[0], "Approve", "Slack has it");
    world.gate.press(&world.gate.card(), "Approve", "U061F7AUR").await;
    world.gate.tick().await;
    assert_eq!(world.gate.accepts(&id), 1);
    world.fake.clear_faults();
    world.told_at_last(|world| world.fake.chat(CHAT).pop().is_some_and(|card| card.replies.len() == 3)).await;
    let card = world.card();
    assert!(card.text.contains("is Activated"), "{}", card.text);
    assert_eq!(card.replies.len(), 3);
}

#[tokio::test]
async fn token_is_shared_by_processes_and_replaced_when_feishu_refuses_it() {
    let world = World::start().await;
    world.told("vpc-other").await;
    let tokens =
        |world: &World| world.fake.calls().iter().filter(|call| call.path.contains("tenant_access_token")).count();
    assert_eq!(tokens(&world), 1);
    let World { gate, fake } = world;
    let world = World { gate: gate.restarted(), fake };
    world.told("vpc-two-people").await;
    assert_eq!(tokens(&world), 1, "another process has left it in the table");
    world.fake.revoke_tokens();
    world.told("vpc-with-a-reason").await;
    assert_eq!((tokens(&world), world.fake.chat(CHAT).len()), (2, 3));
}

#[tokio::test]
async fn lost_answer_to_a_post_makes_no_second_card() {
    let world = World::start().await;
    let path = "/open-apis/im/v1/messages".to_owned();
    world.fake.add_fault(Fault { path, status: 502, after_effect: true, ..Fault::default() });
    let id = world.told("vpc-other").await;
    world.fake.clear_faults();
    let taken = |world: &World| world.fake.calls().iter().filter(|call| call.path.contains("/messages")).count() > 1;
    world.told_at_last(taken).await;
    assert_eq!(world.fake.chat(CHAT).len(), 1);
    world.click("Approve", ALICE, None).await;
    assert_eq!(world.gate.accepts(&id), 1);
}

#[tokio::test]
async fn burst_of_requests_is_posted_at_the_pace_that_feishu_allows() {
    let world = World::start().await;
    for _ in 0..8 {
        world.gate.request_peering(&[]).await.unwrap();
    }
    world.gate.discover().await;
    assert_eq!(world.fake.chat(CHAT).len(), 8);
    let calls = world.fake.calls();
    let mut posts = calls.iter().filter(|call| call.path.contains("/im/v1/"));
    assert!(posts.all(|call| call.code == 0), "nothing was refused");
}

#[tokio::test]
async fn living_card_is_never_said_to_be_replaced() {
    let world = World::start().await;
    let path = "/open-apis/im/v1/messages".to_owned();
    world.fake.add_fault(Fault { path, status: 502, after_effect: true, ..Fault::default() });
    let id = world.told("vpc-other").await;
    world.fake.clear_faults();
    let card = world.card();
    for who in [STRANGER, ALICE] {
        let click = world.fake.click(&card.message_id, "Approve", &world.fake.person(who), None).unwrap();
        let reply = world.send(&click).await;
        assert!(reply.json().get("card").is_none(), "{}", reply.body);
    }
    let known = |world: &World| world.fake.calls().iter().filter(|call| call.path.contains("/messages")).count() > 1;
    world.told_at_last(known).await;
    assert_eq!(world.card().labels()[0], "Approve");
    world.click("Approve", ALICE, None).await;
    assert_eq!(world.gate.accepts(&id), 1);
}

#[tokio::test]
async fn command_that_was_written_before_the_card_came_decides_nothing() {
    let world = World::start().await;
    let id = world.gate.request_peering(&[("AcceptingVpcId", "vpc-other")]).await.unwrap();
    let early = world.fake.say(CHAT, &format!("approve {id} because so"), &world.fake.person(ALICE));
    let mut event: Value = serde_json::from_str(&early).unwrap();
    event["event"]["message"]["create_time"] = (clock::now().as_millisecond() - 2000).to_string().into();
    world.gate.discover().await;
    world.send(&event.to_string()).await;
    assert_eq!((world.gate.state(&id).await.as_str(), world.gate.accepts(&id)), ("pending", 0));
}

#[tokio::test]
async fn hanging_private_answer_costs_no_toast() {
    let world = World::start().await;
    let id = world.told("vpc-two-people").await;
    let path = "/open-apis/im/v1/messages".to_owned();
    world.fake.add_fault(Fault { path, hangs: true, ..Fault::default() });
    let toast = world.click("Details", ALICE, None).await;
    assert!(toast.contains(id.as_str()), "{toast}");
    assert!(world.fake.direct(ALICE).is_empty());
    let logged = crate::support::logged();
    let given_up = logged.lines().find(|line| line.contains("unanswered_click")).unwrap();
    // Of ours, and shorter than that of any call.
    assert!(given_up.contains("error=\"timeout\""), "{given_up}");
}

#[tokio::test]
async fn token_that_cannot_be_fetched_is_asked_for_once_in_a_while() {
    let world = World::start().await;
    world.fake.add_fault(Fault { path: "/open-apis/auth".into(), status: 503, ..Fault::default() });
    for _ in 0..6 {
        world.gate.request_peering(&[]).await.unwrap();
    }
    world.gate.discover().await;
    let asked = world.fake.calls().iter().filter(|call| call.path.contains("tenant_access_token")).count();
    assert!((1..=3).contains(&asked), "{asked}");
    assert_eq!(world.gate.sink.channel("C0PEER").len(), 6, "Slack has heard");
}

#[tokio::test]
async fn callback_that_is_not_authentic_reaches_nothing() {
    let world = World::start().await;
    let secrets = world.gate.app.secrets.current(clock::now()).await.unwrap();
    let keys = secrets.platforms.feishu.as_ref().unwrap();
    let said = world.fake.say(CHAT, "approve pcc-a because so", &world.fake.person(ALICE));
    let (now, before) = (clock::now(), world.gate.upstream_calls());
    let signed = |at| feishu::signed(keys, &said, at).unwrap();
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
        let reply = world.gate.send_at(&request, now).await;
        assert_eq!((reply.status, reply.name().as_str()), (401, "unauthentic"), "{name}: {}", reply.body);
    }
    assert_eq!(world.gate.upstream_calls(), before);
    assert!(world.fake.calls().is_empty(), "{:?}", world.fake.calls());
}

#[tokio::test]
async fn test_of_the_address_gets_its_challenge_and_nothing_else() {
    let world = World::start().await;
    let secrets = world.gate.app.secrets.current(clock::now()).await.unwrap();
    let keys = &secrets.platforms.feishu.as_ref().unwrap().callbacks[0];
    let send = async |plaintext: &str| {
        let body = feishu::encrypt(plaintext, &keys.encrypt_key, [7; 16]);
        let headers = vec![("content-type", "application/json".into())];
        world.gate.send(&peergate::chat::Signed { path: "/feishu".into(), headers, body }).await
    };
    let token = keys.verification_token.expose();
    let test = json!({"type": "url_verification", "challenge": "c42e", "token": token});
    let reply = send(&test.to_string()).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"challenge": "c42e"})));
    let other = json!({"type": "url_verification", "challenge": "c42e", "token": "another token of 32 characters!!"});
    assert_eq!(send(&other.to_string()).await.status, 401);
    assert_eq!(send(&world.fake.say(CHAT, "list", &world.fake.person(ALICE))).await.status, 401, "an unsigned event");
    assert!(world.fake.calls().is_empty());
}

#[tokio::test]
async fn what_feishu_refuses_is_told_by_doctor_and_first_tick() {
    let world = World::start().await;
    let environment = &world.gate.environment;
    let examine = async |post| {
        let wish = Wish { post, ..Wish::default() };
        let soon = Instant::now() + Duration::from_mins(1);
        let report = doctor::examine(Ok(environment.clone()), &wish, soon).await;
        let of = |channel| report.0.iter().find(|check| check.what == channel).unwrap();
        [of("channel feishu"), of("channel bot")].map(|check| (check.found, check.detail.clone()))
    };
    let said = |[app, bot]: [(Found, String); 2]| {
        assert_eq!((app.0, bot.0), (Found::Fine, Found::Fine), "{app:?} {bot:?}");
        [app.1, bot.1]
    };
    assert_eq!(said(examine(false).await)[0], "the app's secret is good");
    assert!(world.fake.chat(CHAT).is_empty() && world.fake.chat(BOT).is_empty(), "nothing is said");
    assert_eq!(said(examine(true).await), ["took a test message", "took a test message"]);
    assert_eq!((world.fake.chat(CHAT).len(), world.fake.chat(BOT).len()), (1, 1));
    let misconfigured = || {
        let lines = crate::support::logged();
        lines.lines().filter(|line| line.contains("misconfigured")).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    for (code, status, told) in [(None, 503, 0), (Some(10003), 400, 1), (Some(10014), 400, 2)] {
        world.fake.clear_faults();
        world.fake.add_fault(Fault { path: "/open-apis/auth".into(), code, status, ..Fault::default() });
        doctor::FirstTick::default().ask(&world.gate.app).await;
        let lines = misconfigured();
        assert_eq!(lines.len(), told, "{code:?}: {lines:?}");
        assert!(lines.iter().all(|line| line.contains("platforms.feishu.app")), "{lines:?}");
        let [(found, detail), _] = examine(true).await;
        assert!(found != Found::Fine && detail.contains(&code.unwrap_or(503).to_string()), "{detail}");
    }
    assert_eq!(world.fake.chat(CHAT).len(), 1, "without a token, nothing is posted");
}

#[tokio::test]
async fn registering_says_what_to_enter_where() {
    let world = World::start().await;
    let secrets = world.gate.app.secrets.current(clock::now()).await.unwrap();
    let url = "https://peergate.example.com/feishu".parse().unwrap();
    let said = Platform::Feishu.register(world.gate.app.chat(&secrets), &url).await.unwrap();
    assert!(said.contains(url.as_str()) && said.contains(&world.fake.settings().app), "{said}");
    assert!(world.fake.calls().is_empty(), "Feishu is asked nothing");
}

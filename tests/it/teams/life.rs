//! The whole life of a request in Teams: activities in; answers, posts and calls out. The fake refuses what Teams refuses.

use jiff::SignedDuration;
use peergate::chat::teams::{self, sign_activity_with};
use peergate::fake::teams::ConversationFault;
use serde_json::json;

use super::*;

#[tokio::test]
async fn request_on_teams_is_decided_accepted_and_activated() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let card = world.card();
    assert!(card.text.contains(&format!("approve or reject VPC peering prod/{id}")), "{}", card.text);
    assert_eq!(card.button_labels()[..3], ["Approve", "Reject", "Details"], "{:?}", card.button_labels());
    assert!(card.summary.contains(id.as_str()), "{}", card.summary);
    let answer = world.click("Approve", "alice", None).await;
    assert!(answer.starts_with(&format!("You approved prod/{id}")), "{answer}");
    assert_eq!((world.app.state_of(&id).await.as_str(), world.app.count_accepts(&id)), ("activating", 1));
    assert_eq!(world.app.load_record(&id).await.unwrap().approval.decisions()[0].by.person.as_deref(), Some("alice"));
    world.app.tick().await;
    let card = world.fake.messages_in(CHANNEL_ID).remove(0);
    assert!(card.text.contains("is Activated"), "{}", card.text);
    assert!(card.edits > 0 && card.find_button("Approve").is_none(), "it was updated for everybody");
    let thread = card.thread_headlines();
    assert!(thread[0].starts_with("alice approved VPC peering"), "{thread:?}");
    let count = world.fake.messages_in(CHANNEL_ID).len();
    assert_eq!((thread.len(), count), (3, 1), "decided, accepted and activated, below one card");
    let flow = world.fake.messages_in(FLOW_ID);
    assert_eq!(flow.len(), 4, "{flow:?}");
    assert!(flow.iter().all(|message| message.buttons.iter().all(|button| button.data.is_null())));
    assert_eq!(world.app.only_card().replies.len(), 3, "Slack heard the same");
}

#[tokio::test]
async fn first_of_two_teams_approvals_counts_once_for_all() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    let first = world.click("Approve", "alice", None).await;
    assert!(first.contains("counts: 1 of 2 approvals"), "{first}");
    let again = world.click("Approve", "alice", None).await;
    assert!(again.starts_with("You already decided on"), "{again}");
    assert_eq!(world.app.load_record(&id).await.unwrap().approval.approval_count(), 1);
    world.app.round().await;
    assert!(world.card().text.contains("1 of 2"), "{}", world.card().text);
    world.click("Approve", "bob", None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn person_on_slack_and_teams_counts_once() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    world.app.click_button(&world.app.only_card(), "Approve", "U061F7AUR").await;
    let answer = world.click("Approve", "alice", None).await;
    assert!(answer.starts_with("You already decided on"), "{answer}");
    assert_eq!(world.app.load_record(&id).await.unwrap().approval.approval_count(), 1);
    world.click("Approve", "carol", None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

/// A click with a reason that the client of Teams would not send.
async fn click_with_reason(world: &World, label: &str, field: &str, reason: Value) -> String {
    let card = world.card();
    let mut click = world.fake.click_button(&card.message_id, label, &world.user("alice"), Some("x")).unwrap();
    click["value"]["action"]["data"][field] = reason;
    world.answer_to(&click).await
}

#[tokio::test]
async fn reason_is_asked_on_the_teams_card_and_checked_on_the_server() {
    let world = World::start().await;
    let id = world.request("vpc-with-a-reason").await;
    let inputs: Vec<_> = world.card().buttons.iter().flat_map(|button| button.inputs.clone()).collect();
    assert_eq!(
        inputs.iter().map(|input| (input.max_length, input.is_required)).collect::<Vec<_>>(),
        [(400, true), (400, false)]
    );
    assert!(world.fake.click_button(&world.card().message_id, "Approve", &world.user("alice"), None).is_err());
    for reason in [json!(""), json!(" \u{200b}\u{3000}\n"), Value::Null] {
        let answer = click_with_reason(&world, "Approve", "approve_reason", reason).await;
        assert!(answer.contains("requires a reason, so nothing was decided"), "{answer}");
    }
    for (label, field) in [("Approve", "approve_reason"), ("Reject", "reason")] {
        let answer = click_with_reason(&world, label, field, json!("理".repeat(401))).await;
        assert!(
            answer.contains("Your reason has 401 characters") && answer.contains("Nothing was decided."),
            "{answer}"
        );
    }
    world.assert_undecided(&id).await;
    let whole = format!("first  line\nsecond line {}", "理".repeat(376));
    click_with_reason(&world, "Approve", "approve_reason", json!(whole)).await;
    assert_eq!(world.app.approval(&id).await.winner().unwrap().reason.as_ref(), Some(&whole));
}

#[tokio::test]
async fn teams_rejection_has_an_optional_reason() {
    let world = World::start().await;
    let one = world.request("vpc-other").await;
    world.click("Reject", "alice", None).await;
    assert_eq!(world.app.state_of(&one).await, "rejected");
    world.app.tick().await;
    let other = world.request("vpc-other").await;
    world.click("Reject", "bob", Some("the subnet <at>all</at> **is** taken")).await;
    assert_eq!(world.app.state_of(&other).await, "rejected");
    let reason = world.app.approval(&other).await.winner().unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("the subnet <at>all</at> **is** taken"));
}

#[tokio::test]
async fn teams_approval_is_withdrawn_by_button() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    world.click("Approve", "alice", None).await;
    world.app.round().await;
    let answer = world.click("Withdraw my approval", "alice", None).await;
    assert!(answer.contains("You withdrew your approval"), "{answer}");
    assert_eq!(world.app.load_record(&id).await.unwrap().approval.approval_count(), 0);
    world.app.round().await;
    assert!(world.card().text.contains("0 of 2"), "{}", world.card().text);
}

#[tokio::test]
async fn details_and_questions_are_answered_in_the_one_to_one_chat() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let answer = world.click("Details", "alice", None).await;
    assert!(answer.contains("has the status Accepting") && answer.ends_with("in your one-to-one chat."), "{answer}");
    assert!(world.last_message_to("alice").text.contains("account 1111111111111111"));
    let alice = world.user("alice");
    let ask = async |activity: Value| {
        let reply = world.send(&activity).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
        world.last_message_to("alice").text
    };
    assert!(ask(world.fake.mention_bot("list", &alice)).await.contains(id.as_str()));
    assert!(ask(world.fake.write_to_bot(&format!("status {id}"), &alice)).await.contains("has the status"));
    let told = ask(world.fake.mention_bot("make it so", &alice)).await;
    assert!(told.contains("“make” is not a command") && told.contains("Nothing was decided."), "{told}");
    assert!(ask(world.fake.write_to_bot("help", &alice)).await.contains("understands these commands"));
    assert!(ask(world.fake.mention_bot("", &alice)).await.contains("understands these commands"));
    assert_eq!(world.fake.messages_in(CHANNEL_ID).len(), 1, "nothing of it in the channel");
}

#[tokio::test]
async fn words_on_teams_decide_nothing_but_bring_private_buttons() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let said = world.fake.mention_bot(&format!("approve {id} because so"), &world.user("alice"));
    assert_eq!(world.send(&said).await.status, 200);
    world.assert_undecided(&id).await;
    let private = world.last_message_to("alice");
    assert!(private.find_button("Approve").is_some(), "{private:?}");
    let by_bob = world.click_on(&private, "Approve", "bob", None).await;
    assert!(by_bob.contains("no longer valid"), "{by_bob}");
    world.assert_undecided(&id).await;
    let by_alice = world.click_on(&private, "Approve", "alice", None).await;
    assert!(by_alice.contains("You approved"), "{by_alice}");
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn fallback_of_an_old_client_decides_and_gets_a_message() {
    let world = World::start().await;
    let id = world.request("vpc-with-a-reason").await;
    let card = world.card();
    let press = |reason| world.fake.click_fallback(&card.message_id, "Approve", &world.user("alice"), reason).unwrap();
    let reply = world.send(&press(Some("needed"))).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
    let private = world.last_message_to("alice");
    assert!(private.text.contains("You approved"), "{}", private.text);
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn repeated_activity_is_taken_once() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    let card = world.card();
    let click = world.fake.click_button(&card.message_id, "Approve", &world.user("alice"), None).unwrap();
    let before = clock::now();
    let signed = world.fake.sign(&click).unwrap();
    assert_eq!(world.app.send(&signed).await.status, 200);
    let repeated = world.app.send(&signed).await;
    assert_eq!((repeated.status, repeated.name().as_str()), (409, "used-before"));
    // Another body under the same token and id.
    let mut forged = click.clone();
    forged["from"]["aadObjectId"] = json!(world.user("bob").object_id);
    let forged = SignedRequest { body: forged.to_string(), ..signed.clone() };
    assert_eq!(world.app.send(&forged).await.name(), "used-before");
    let much_later = before + SignedDuration::from_secs(3600 + 298);
    assert_eq!(world.app.send_at(&signed, much_later).await.name(), "used-before");
    let ended = clock::now() + SignedDuration::from_secs(3600 + 302);
    assert_eq!(world.app.send_at(&signed, ended).await.name(), "unauthentic", "the note outlasts the token");
    assert_eq!(world.app.load_record(&id).await.unwrap().approval.approval_count(), 1);
}

/// A pending request on its card, and a click on Approve.
struct ApprovalInvoke {
    world: World,
    id: InstanceId,
    card: TeamsCard,
    invoke: Value,
}

impl ApprovalInvoke {
    async fn new() -> Self {
        let world = World::start().await;
        let id = world.request("vpc-other").await;
        let card = world.card();
        let invoke = world.fake.click_button(&card.message_id, "Approve", &world.user("alice"), None).unwrap();
        Self { world, id, card, invoke }
    }

    /// Sends the click with a change, as a new activity.
    async fn send_changed(&self, pointer: &str, to: Value) -> TestResponse {
        let mut invoke = self.invoke.clone();
        invoke["id"] = json!(format!("f:{}", clock::nonce()));
        *invoke.pointer_mut(pointer).unwrap() = to;
        self.world.send(&invoke).await
    }
}

#[tokio::test]
async fn teams_click_without_a_valid_binding_reaches_nothing() {
    let click = ApprovalInvoke::new().await;
    let before = (click.world.app.count_upstream_calls(), click.world.fake.calls().len());
    for data in
        [json!({}), json!({"b": ""}), json!({"b": "aprod/pcc-sim00000001.AAAA"}), json!({"id": "pcc-a", "n": "1"})]
    {
        let reply = click.send_changed("/value/action/data", data.clone()).await;
        assert_eq!((reply.status, reply.name().as_str()), (400, "malformed"), "{data}");
    }
    for (pointer, to) in [("/from/aadObjectId", Value::Null), ("/from/aadObjectId", json!("alice@example.com"))] {
        assert_eq!(click.send_changed(pointer, to).await.status, 400, "{pointer}");
    }
    assert_eq!((click.world.app.count_upstream_calls(), click.world.fake.calls().len()), before);
    click.world.assert_undecided(&click.id).await;
}

#[tokio::test]
async fn button_on_another_message_decides_nothing() {
    let click = ApprovalInvoke::new().await;
    let ApprovalInvoke { world, id, card, invoke } = &click;
    let other = world.request("vpc-two-people").await;
    let other_card = world.card();
    assert_ne!(other_card.message_id, card.message_id);
    for (pointer, to) in [
        ("/replyToId", json!(other_card.message_id)),
        ("/replyToId", json!("1793999999999")),
        ("/conversation/id", json!("19:other@thread.tacv2;messageid=1")),
        ("/conversation/conversationType", json!("personal")),
    ] {
        let reply = click.send_changed(pointer, to.clone()).await;
        let answer = world.fake.read_invoke_response(&reply.body_json()).unwrap().unwrap();
        assert!(answer.contains("no longer valid"), "{pointer} {to}: {answer}");
    }
    let of_slack = world.app.slack.messages_in("C0PEER").remove(0).find_button("Approve").unwrap().value.clone();
    let reply = click.send_changed("/value/action/data/b", json!(of_slack)).await;
    assert!(reply.status == 400 || reply.body.contains("no longer valid"), "{}", reply.body);
    world.assert_undecided(id).await;
    world.assert_undecided(&other).await;
    assert!(world.answer_to(invoke).await.contains("You approved"));
}

#[tokio::test]
async fn click_from_another_tenant_or_team_decides_nothing() {
    let click = ApprovalInvoke::new().await;
    let before = click.world.fake.calls().len();
    let foreign = json!("c47f831e-96eb-43b3-aaae-84fddbfe3619");
    for pointer in ["/conversation/tenantId", "/channelData/tenant/id"] {
        let reply = click.send_changed(pointer, foreign.clone()).await;
        let answer = click.world.fake.read_invoke_response(&reply.body_json()).unwrap().unwrap();
        assert!(answer.contains("tenant"), "{answer}");
    }
    assert!(crate::support::logged().contains("wrong-tenant"));
    assert_eq!(click.send_changed("/channelData/team/id", json!("19:other@thread.tacv2")).await.status, 400);
    assert_eq!(click.world.fake.calls().len(), before, "no token was sent for them");
    click.world.assert_undecided(&click.id).await;
}

#[tokio::test]
async fn stranger_of_the_tenant_is_told_that_nothing_was_decided() {
    let click = ApprovalInvoke::new().await;
    let answer = click.world.click("Approve", "mallory", None).await;
    assert!(answer.contains("You cannot decide on this VPC peering"), "{answer}");
    click.world.assert_undecided(&click.id).await;
}

#[tokio::test]
async fn unauthentic_activity_reaches_nothing() {
    let click = ApprovalInvoke::new().await;
    let (world, now) = (&click.world, clock::now());
    let before = (world.app.count_upstream_calls(), world.fake.calls().len());
    let good = world.fake.sign(&click.invoke).unwrap();
    let of_time = |seconds: i64| {
        let claims = teams::TokenClaims {
            issued_at: now + SignedDuration::from_secs(seconds),
            ..world.fake.claims(&world.fake.service_url())
        };
        sign_activity_with(&click.invoke, &claims).unwrap()
    };
    let with_token = |value: String| SignedRequest {
        headers: vec![("content-type", "application/json".into()), ("authorization", value)],
        ..good.clone()
    };
    let token = headers(&good)["authorization"].to_str().unwrap().to_owned();
    let unsigned = SignedRequest { headers: vec![("content-type", "application/json".into())], ..good.clone() };
    let mut twice = good.clone();
    twice.headers.push(("authorization", "Bearer a.b.c".into()));
    let mut elsewhere = good.clone();
    elsewhere.body = elsewhere.body.replace(&world.fake.service_url(), "https://evil.example/");
    for (name, request) in [
        ("unsigned", unsigned),
        ("two tokens", twice),
        ("not a token", with_token("Bearer x".into())),
        ("cut", with_token(token[..token.len() - 4].to_owned())),
        ("expired", of_time(-3600 - 301)),
        ("early", of_time(302)),
        ("of another service", elsewhere),
        ("not JSON", SignedRequest { body: "x".into(), ..good.clone() }),
    ] {
        let reply = world.app.send_at(&request, now).await;
        assert_eq!((reply.status, reply.name().as_str()), (401, "unauthentic"), "{name}: {}", reply.body);
    }
    assert_eq!((world.app.count_upstream_calls(), world.fake.calls().len()), before);
    world.assert_undecided(&click.id).await;
    assert_eq!(world.app.send(&good).await.status, 200, "and the good one is taken");
}

#[tokio::test]
async fn hostile_name_stays_literal_in_teams_and_in_words() {
    let world = World::start().await;
    let hostile = "<at>all</at> **b** [x](https://evil.example) {{DATE(2026-01-01,SHORT)}}";
    let more = [("AcceptingVpcId", "vpc-other"), ("Name", hostile)];
    let id = world.app.request_peering(&more).await.unwrap();
    world.app.discover().await;
    let card = world.card();
    assert!(
        card.text.contains("<at>all</at> **b** [x](https://evil.example)") && !card.text.contains("{{"),
        "{}",
        card.text
    );
    let approvers = ["alice", "bob"].map(|name| world.user(name).object_id);
    assert!(!card.summary.contains("evil") && card.mentions == approvers, "{card:?}");
    let answer = world.click("Details", "alice", None).await;
    assert!(!answer.contains("evil") && !answer.contains('<'), "{answer}");
    assert!(world.last_message_to("alice").text.contains("[x](https://evil.example)"));
    let said = world.fake.mention_bot("frobnicate [x](https://evil.example) <b>", &world.user("alice"));
    world.send(&said).await;
    assert!(world.last_message_to("alice").text.contains("frobnicate"));
    world.assert_undecided(&id).await;
}

#[tokio::test]
async fn mentions_name_the_approvers_who_must_act() {
    let world = World::start().await;
    world.request("vpc-two-people").await;
    let card = world.card();
    let ids = ["alice", "bob", "carol"].map(|name| world.user(name).object_id);
    assert_eq!(card.mentions, ids, "erin has no identity on Teams");
    assert!(card.text.contains("For <at>approver 1</at>, <at>approver 2</at>, <at>approver 3</at>"), "{}", card.text);
}

#[tokio::test]
async fn click_on_an_old_copy_decides_nothing() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let old = world.card();
    let click = world.fake.click_button(&old.message_id, "Approve", &world.user("alice"), None).unwrap();
    world.fake.delete_message(&old.message_id);
    world.app.set_bandwidth(&id, 2000);
    world.app.discover().await;
    world.tick_until(|world| !world.cards().is_empty()).await;
    let new = world.card();
    assert!(new.message_id != old.message_id && new.text.contains("2000 Mbit/s"), "{}", new.text);
    let answer = world.answer_to(&click).await;
    assert!(answer.contains("no longer valid"), "{answer}");
    world.assert_undecided(&id).await;
    world.click("Approve", "alice", None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn person_without_a_chat_is_told_in_the_answer() {
    let world = World::start().await;
    world.request("vpc-other").await;
    world.fake.set_conversation_fault(&world.user("alice").id, Some(ConversationFault::BotMissing));
    let answer = world.click("Details", "alice", None).await;
    assert!(answer.contains("has the status Accepting") && answer.contains("add its app for yourself"), "{answer}");
    assert!(crate::support::logged().contains("BotNotInConversationRoster"));
}

/// The ids of requests that the table keeps, so that none is taken twice.
async fn kept_ids(world: &World) -> usize {
    let environment = &world.app.environment;
    let client = peergate::aws::dynamodb_client(&environment.aws, peergate::http::new_client().unwrap());
    let items = client.scan().table_name(&environment.table).send().await.unwrap().items.unwrap_or_default();
    items.iter().filter(|item| item["id"].as_s().unwrap().starts_with("#used/teams:")).count()
}

#[tokio::test]
async fn activity_that_does_nothing_leaves_no_id_in_the_table() {
    let world = World::start().await;
    let alice = world.user("alice");
    let mut foreign = world.fake.mention_bot("list", &alice);
    for tenant in ["/channelData/tenant/id", "/conversation/tenantId"] {
        if let Some(tenant) = foreign.pointer_mut(tenant) {
            *tenant = json!("11111111-1111-4111-8111-111111111111");
        }
    }
    let mut unmentioned = world.fake.mention_bot("list", &alice);
    unmentioned["entities"] = json!([]);
    let [added, installed] = world.fake.install(&alice);
    for (activity, status) in [(&foreign, 403), (&unmentioned, 200), (&added, 200), (&installed, 200)] {
        for _ in 0..2 {
            assert_eq!(world.send(activity).await.status, status, "{activity}");
        }
    }
    assert_eq!(kept_ids(&world).await, 0);
    let question = world.fake.mention_bot("list", &alice);
    assert_eq!((world.send(&question).await.status, kept_ids(&world).await), (200, 1));
    assert_eq!(world.send(&question).await.name(), "used-before");
}

//! The whole life of a request in DingTalk: clicks in; answers, cards, messages and calls out. The fake refuses what
//! DingTalk refuses.

use std::sync::Arc;

use peergate::chat::platform::Platform;
use peergate::doctor::{self, Health, Options};
use peergate::fake::alicloud::Tampering;
use peergate::fake::dingtalk::{CardRoute, GroupFault, ROBOT_TOKEN};
use peergate::local::serve::{self, ServerLimits, Stop};
use serde_json::json;

use super::*;

#[tokio::test]
async fn request_on_dingtalk_is_decided_accepted_and_activated() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    let card = world.card();
    assert!(card.text.contains(&format!("approve or reject VPC peering prod/{id}")), "{}", card.text);
    assert_eq!(card.button_labels(), ["Approve", "Reject", "Details"]);
    assert_eq!((card.tone.as_str(), card.asks_reason, card.updates), ("orange", true, 0));
    assert!(card.link.unwrap().starts_with("https://vpc.console.aliyun.com/"));
    let updates = world.count_calls(UPDATE_CARD);
    let notice = world.click("Approve", ALICE, None).await;
    assert!(notice.contains(&format!("prod/{id}")) && notice.contains("1 of 2"), "{notice}");
    assert_eq!(world.count_calls(UPDATE_CARD), updates, "a callback updates nothing itself");
    assert!(world.card_of(ALICE).text.contains("1 of 2"), "alice sees it at once");
    assert_eq!((world.card().notice.as_str(), world.card_of(ALICE).notice), ("", notice));
    assert!(!world.card().text.contains("1 of 2"), "the others do not yet");
    world.app.round().await;
    assert!(world.card().text.contains("1 of 2"), "{}", world.card().text);
    assert_eq!(world.app.count_accepts(&id), 0);
    let notice = world.click("Approve", BOB, None).await;
    assert!(notice.starts_with(&format!("You approved prod/{id}")), "{notice}");
    assert_eq!((world.app.state_of(&id).await.as_str(), world.app.count_accepts(&id)), ("activating", 1));
    world.app.tick().await;
    for viewer in ["somebody", ALICE, BOB] {
        let card = world.card_of(viewer);
        assert!(card.text.contains("is Activated"), "{viewer}: {}", card.text);
        assert_eq!((card.button_labels(), card.tone.as_str()), (vec![], "blue"), "{viewer}");
    }
    let news = world.headlines();
    assert_eq!(news.len(), 4, "{news:?}");
    assert!(news[0].starts_with("alice approved VPC peering") && news[3].contains("is Activated"), "{news:?}");
    let robot = world.fake.texts_to(ROBOT_TOKEN);
    assert_eq!(robot.len(), 5, "{robot:?}");
    assert!(robot[0].text.contains("This message has no buttons. To decide, use the card in"), "{robot:?}");
    assert_eq!(world.app.only_card().replies.len(), 4, "Slack heard the same");
}

#[tokio::test]
async fn person_on_slack_and_dingtalk_counts_once() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    world.app.click_button(&world.app.only_card(), "Approve", "U061F7AUR").await;
    let notice = world.click("Approve", ALICE, None).await;
    assert!(notice.starts_with("You already decided on"), "{notice}");
    assert_eq!(world.app.load_record(&id).await.unwrap().approval.approval_count(), 1);
    world.click("Approve", BOB, None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn dingtalk_reason_is_checked_on_the_server() {
    for has_form in [false, true] {
        let world = World::of(FakeDingTalkSettings { has_form, ..FakeDingTalkSettings::default() }).await;
        let id = world.request("vpc-with-a-reason").await;
        for reason in [None, Some("   "), Some(" \u{200b}\u{3000}")] {
            let notice = world.click("Approve", ALICE, reason).await;
            assert!(notice.contains("requires a reason, so nothing was decided"), "{notice}");
            assert!(notice.contains("Write a reason on the card"), "{notice}");
        }
        let body = world.click_body("Approve", ALICE, Some("x"));
        let long = changed_content(&body, |button| {
            let params = &mut button["params"];
            let place = if has_form { &mut params["form"]["reason"] } else { &mut params["reason"] };
            *place = json!("理".repeat(401));
        });
        let notice = world.send(&long).await.body;
        assert!(notice.contains("Your reason has 401 characters"), "{notice}");
        world.assert_undecided(&id).await;
        let whole = "理".repeat(400);
        world.click("Approve", ALICE, Some(&whole)).await;
        let decision = world.app.approval(&id).await.winner().unwrap().clone();
        assert_eq!((decision.reason.as_ref(), world.app.count_accepts(&id)), (Some(&whole), 1));
        world.app.tick().await;
        assert!(world.card().text.replace("\n… ", "").contains(&whole), "{}", world.card().text);
    }
}

#[tokio::test]
async fn request_is_rejected_with_and_without_a_reason() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let notice = world.click("Reject", ALICE, Some("overlaps with the office")).await;
    assert!(notice.starts_with(&format!("You rejected prod/{id}")), "{notice}");
    world.app.assert_state(&id, "rejected").await;
    world.app.tick().await;
    assert!(world.card().text.contains("overlaps with the office") && world.card().buttons.is_empty());
    let other = world.request("vpc-third").await;
    world.click("Reject", BOB, None).await;
    world.app.assert_state(&other, "rejected").await;
}

#[tokio::test]
async fn approval_is_withdrawn_by_the_button() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    world.click("Approve", ALICE, None).await;
    world.app.round().await;
    assert_eq!(world.card().button_labels(), ["Approve", "Reject", "Withdraw my approval", "Details"]);
    let of_bob = world.click_body("Withdraw my approval", BOB, None);
    let notice = world.click("Withdraw my approval", ALICE, None).await;
    assert!(notice.contains("You withdrew your approval"), "{notice}");
    assert!(world.send(&of_bob).await.body.contains("You have no approval to withdraw"));
    assert_eq!(world.app.load_record(&id).await.unwrap().approval.approval_count(), 0);
    world.app.round().await;
    assert!(world.headlines().last().unwrap().starts_with("alice withdrew their approval"), "{:?}", world.headlines());
    assert_eq!(world.card().button_labels(), ["Approve", "Reject", "Details"], "the update hides the button");
}

#[tokio::test]
async fn details_come_as_a_card_for_one_person() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let notice = world.click("Details", ALICE, None).await;
    assert!(notice.contains("has the status Accepting"), "{notice}");
    let answer = world.fake.cards_to(ALICE).pop().unwrap();
    assert!(answer.text.contains("account 1111111111111111"), "{}", answer.text);
    let by_bob = world.fake.click_button(&answer.out_track_id, "Approve", &world.person(BOB), None).unwrap();
    assert!(world.send(&by_bob).await.body.contains("is no longer valid"));
    world.assert_undecided(&id).await;
    let by_alice = world.fake.click_button(&answer.out_track_id, "Approve", &world.person(ALICE), None).unwrap();
    world.send(&by_alice).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn registered_address_gets_signed_clicks() {
    let world = World::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/dingtalk", listener.local_addr().unwrap()).parse().unwrap();
    let parts = Arc::clone(&world.app.parts);
    tokio::spawn(serve::serve_webhook_until(parts, listener, ServerLimits::default(), Stop::never()));
    let register = async || {
        let secrets = world.app.parts.secrets.current(clock::now()).await.unwrap();
        Platform::DingTalk.register_webhook(world.app.parts.chat_context(&secrets), &url).await
    };
    let said = register().await.unwrap();
    assert!(said.contains("is registered, under the route peergate"), "{said}");
    assert!(said.contains(&format!("enter {url}/PATH_SECRET")) && said.contains("HTTP mode"), "{said}");
    let path = world.secrets().await.path_secrets[0].expose().to_owned();
    assert!(!said.contains(&path), "{said}");
    let registered = world.fake.registration("peergate").unwrap();
    assert_eq!(registered.url, format!("{url}/{path}"));
    let id = world.request("vpc-other").await;
    let (card, alice) = (world.card().out_track_id, world.person(ALICE));
    let body = world.click_body("Approve", ALICE, None);
    let unsigned = CardRoute { secret: None, ..registered.clone() };
    world.fake.set_registration("peergate", unsigned);
    let (status, _) = world.fake.send_click(&card, &alice, body.clone()).await.unwrap();
    assert_eq!((status, world.app.count_accepts(&id)), (401, 0), "nobody signed it");
    let said = register().await.unwrap();
    assert!(said.contains("in place of an earlier registration"), "{said}");
    assert_eq!(world.fake.registration("peergate"), Some(registered));
    assert_eq!(register().await.unwrap(), said.replace(", in place of an earlier registration", ""));
    let (status, _) = world.fake.send_click(&card, &alice, body).await.unwrap();
    assert_eq!((status, world.app.count_accepts(&id)), (200, 1));
    assert!(world.card_of(ALICE).notice.starts_with(&format!("You approved prod/{id}")));
}

#[tokio::test]
async fn register_names_what_dingtalk_refuses() {
    let world = World::start().await;
    let register = async || {
        let secrets = world.app.parts.secrets.current(clock::now()).await.unwrap();
        let url = "https://peergate.example.com/dingtalk".parse().unwrap();
        Platform::DingTalk.register_webhook(world.app.parts.chat_context(&secrets), &url).await.unwrap_err()
    };
    let path = "/v1.0/card/callbacks";
    for (code, status, expected) in [
        ("Forbidden.AccessDenied.AccessTokenPermissionDenied", 403, "the app lacks a permission"),
        ("param.callbackRouteKeyEmpty", 400, "the route of the callback is missing"),
        ("param.callbackRouteKeyExist", 500, "the route of the callback leads elsewhere"),
        ("param.callbackUrlEmpty", 400, "the address of the callback is missing"),
        ("system.updateCallbackFailed", 400, "the callback could not be replaced"),
    ] {
        world.fail(path, Some(code), status);
        let said = register().await;
        assert!(said.starts_with(code) && said.contains(expected), "{said}");
    }
    world.fail("/v1.0/oauth2", Some("invalidClientIdOrSecret"), 400);
    assert!(register().await.contains("Client ID or Client Secret is not valid"));
}

#[tokio::test]
async fn dingtalk_outage_loses_nothing_and_delays_nobody() {
    let world = World::start().await;
    world.fail("/v1.0/", None, 503);
    let id = world.request("vpc-other").await;
    assert!(world.cards().is_empty());
    assert_eq!(world.app.only_card().button_labels()[0], "Approve", "Slack has it");
    world.app.click_button(&world.app.only_card(), "Approve", "U061F7AUR").await;
    world.app.tick().await;
    assert_eq!(world.app.count_accepts(&id), 1);
    world.fake.clear_faults();
    world.tick_until(|world| world.headlines().len() == 3).await;
    assert!(world.card().text.contains("is Activated") && world.card().buttons.is_empty(), "{:?}", world.card());
    assert_eq!(world.cards().len(), 1);
}

#[tokio::test]
async fn lost_dingtalk_answer_makes_no_second_card() {
    let world = World::start().await;
    let path = POST_CARD.to_owned();
    world.fake.add_fault(DingTalkFault { path, status: 502, after_effect: true, ..DingTalkFault::default() });
    let id = world.request("vpc-other").await;
    world.fake.clear_faults();
    world.app.set_bandwidth(&id, 2000);
    world.app.discover().await;
    world.tick_until(|world| world.card().text.contains("2000 Mbit/s")).await;
    assert_eq!(world.cards().len(), 1, "the one of the first attempt, with the facts of the next one");
    world.click("Approve", ALICE, None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn card_that_was_made_but_not_shown_is_delivered_later() {
    let world = World::start().await;
    let path = POST_CARD.to_owned();
    world.fake.set_group_fault(CONVERSATION_ID, Some(GroupFault::WithoutRobot));
    world.fake.add_fault(DingTalkFault { path, status: 502, after_effect: true, ..DingTalkFault::default() });
    let id = world.request("vpc-other").await;
    assert!(world.cards().is_empty());
    world.fake.set_group_fault(CONVERSATION_ID, None);
    world.fake.clear_faults();
    world.tick_until(|world| !world.cards().is_empty()).await;
    assert_eq!(world.cards().len(), 1, "{:?}", world.fake.calls());
    world.click("Approve", ALICE, None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn card_with_a_lost_answer_decides_at_once_without_its_group() {
    let space_form = peergate::fake::dingtalk::SpaceForm::Absent;
    let world = World::of(FakeDingTalkSettings { space_form, ..FakeDingTalkSettings::default() }).await;
    let path = POST_CARD.to_owned();
    world.fake.add_fault(DingTalkFault { path, status: 502, after_effect: true, ..DingTalkFault::default() });
    let id = world.request("vpc-other").await;
    world.fake.clear_faults();
    let notice = world.click("Approve", ALICE, None).await;
    assert!(notice.starts_with(&format!("You approved prod/{id}")), "{notice}");
    assert_eq!(world.app.count_accepts(&id), 1);
    let card = world.card().out_track_id;
    let reference = format!("{CONVERSATION_ID}/{card}");
    let record = world.app.approval(&id).await;
    assert!(record.cards().values().any(|card| card.reference == reference), "{:?}", record.cards());
    world.tick_until(|world| world.card().text.contains("is Activated")).await;
    assert_eq!(world.cards().len(), 1, "nothing is posted again");
}

#[tokio::test]
async fn delivery_that_fails_inside_a_success_is_repeated() {
    let world = World::start().await;
    world.fake.set_group_fault(CONVERSATION_ID, Some(GroupFault::WithoutRobot));
    let id = world.request("vpc-other").await;
    assert!(world.cards().is_empty());
    let logged = crate::support::logged();
    assert!(logged.contains("the card was not delivered: the robot is not in the group"), "{logged}");
    world.fake.set_group_fault(CONVERSATION_ID, None);
    world.app.set_bandwidth(&id, 2000);
    clock::jump::advance_in_thread(SignedDuration::from_mins(61));
    world.fake.move_clock(-SignedDuration::from_mins(61));
    world.app.discover().await;
    world.app.round().await;
    assert_eq!(world.cards().len(), 1, "{:?}", world.fake.calls());
    assert!(world.card().text.contains("2000 Mbit/s"), "{}", world.card().text);
    world.click("Approve", ALICE, None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn forgotten_card_is_followed_by_a_new_one() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    let (old, click) = (world.card().out_track_id, world.click_body("Approve", BOB, None));
    world.fake.forget_card(&old);
    world.app.send(&world.app.sign_event("approve", &id, "alice").await).await;
    world.app.round().await;
    assert!(world.cards().len() == 1 && world.card().out_track_id != old, "{:?}", world.cards());
    assert!(world.card().text.contains("1 of 2"));
    let reply = world.send(&click).await;
    assert!(reply.body.contains("is no longer valid"), "{}", reply.body);
    let shown = &reply.body_json()["cardData"]["cardParamMap"];
    assert!(shown["title"].as_str().unwrap().contains("has been replaced"), "{shown}");
    assert_eq!((shown["can_approve"].as_str(), shown["can_reject"].as_str()), (Some("no"), Some("no")));
    assert_eq!(world.app.count_accepts(&id), 0);
    world.click("Approve", BOB, None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn dingtalk_token_is_shared_and_replaced_when_refused() {
    let world = World::start().await;
    world.request("vpc-other").await;
    let tokens = |world: &World| world.count_calls("/v1.0/oauth2/accessToken");
    assert_eq!(tokens(&world), 1);
    let world = world.restart();
    world.request("vpc-two-people").await;
    assert_eq!(tokens(&world), 1, "another process has left it in the table");
    world.fake.revoke_tokens();
    world.request("vpc-with-a-reason").await;
    assert_eq!((tokens(&world), world.cards().len()), (2, 3));
    world.fail("/v1.0/card", Some("InvalidAuthentication"), 400);
    world.request("vpc-third").await;
    assert_eq!(tokens(&world), 3, "once, and then it waits");
}

#[tokio::test]
async fn used_up_quota_is_told_and_waited_for() {
    let world = World::start().await;
    world.fake.set_quota_used(true);
    let id = world.request("vpc-other").await;
    let logged = crate::support::logged();
    let line = logged.lines().find(|line| line.contains("ApiCountLimitForOrg")).unwrap();
    assert!(line.contains("the organization has used up its API calls of this month"), "{line}");
    let calls = world.count_calls(POST_CARD);
    for _ in 0..3 {
        world.app.round().await;
    }
    assert_eq!(world.count_calls(POST_CARD), calls, "it is tried once an hour");
    world.app.click_button(&world.app.only_card(), "Approve", "U061F7AUR").await;
    assert_eq!(world.app.count_accepts(&id), 1, "Slack goes on");
    world.fake.set_quota_used(false);
    clock::jump::advance_in_thread(SignedDuration::from_mins(61));
    world.fake.move_clock(-SignedDuration::from_mins(61));
    world.app.tick().await;
    assert!(world.card().text.contains("is Activated"), "{}", world.card().text);
}

#[tokio::test]
async fn hostile_name_stays_literal_in_dingtalk() {
    let world = World::start().await;
    let hostile = "@all @manager-alice **b** [x](https://evil.example) <font color=red>x</font> ![](a) ${title} {{x}}";
    let id = world.app.request_peering(&[("AcceptingVpcId", "vpc-other"), ("Name", hostile)]).await.unwrap();
    world.app.discover().await;
    world.click("Details", BOB, None).await;
    world.write_in_group(&format!("status {id}"), ALICE).await;
    world.click("Reject", BOB, Some(hostile)).await;
    world.app.tick().await;
    let cards = world.cards().into_iter().chain(world.fake.cards_to(BOB)).chain(world.fake.cards_to(ALICE));
    let cards: Vec<_> = cards.collect();
    assert_eq!(cards.len(), 3);
    assert!(cards.iter().all(|card| card.text.contains(hostile) && card.mentions.iter().all(|user| user != "all")));
    let texts = [CONVERSATION_ID, ROBOT_TOKEN].map(|place| world.fake.texts_to(place)).concat();
    assert!(texts.iter().any(|message| message.text.contains(hostile)), "{texts:?}");
    let known = [ALICE, BOB, "carol.01"];
    let all_known = |users: &[String]| users.iter().all(|user| known.contains(&user.as_str()));
    assert!(texts.iter().all(|message| all_known(&message.mentions)), "{texts:?}");
    let kinds = world.fake.calls().into_iter().filter(|call| call.path.contains("robot"));
    assert!(kinds.clone().count() > 3);
    assert!(kinds.into_iter().all(|call| !call.body.to_string().to_lowercase().contains("\"samplemarkdown")));
}

#[tokio::test]
async fn people_who_must_act_are_mentioned() {
    let world = World::start().await;
    world.request("vpc-two-people").await;
    let mut mentioned = world.card().mentions;
    mentioned.sort();
    assert_eq!(mentioned, [BOB, "carol.01", ALICE]);
    assert_eq!(world.fake.texts_to(ROBOT_TOKEN)[0].mentions, [BOB, "carol.01", ALICE]);
    world.fake.remove_person(BOB);
    world.request("vpc-other").await;
    assert_eq!((world.cards().len(), world.card().mentions.len()), (2, 0), "the card matters more than the mention");
}

#[tokio::test]
async fn facts_that_do_not_fit_leave_no_decision_buttons() {
    let world = World::start().await;
    let cidrs =
        (0..600).map(|number| format!("172.{}.{}.0/24", 16 + number / 256, number % 256).parse().unwrap()).collect();
    let id = world.app.new_request_for("vpc-other").await;
    world.app.tamper(&id, Tampering { requester_cidrs: Some(cidrs), ..Tampering::default() });
    world.app.discover().await;
    let card = world.card();
    assert_eq!(card.button_labels(), ["Details"], "{}", card.text);
    assert!(card.text.contains("so it has no Approve and Reject buttons"), "{}", card.text);
    let parts: Vec<_> = card.text.lines().filter(|line| line.contains("172.")).collect();
    assert!(parts.len() > 5, "{parts:?}");
    assert!(parts.iter().all(|part| part.trim_end().ends_with(',') || part.ends_with("more")), "no address is split");
    assert!(world.fake.calls().iter().all(|call| call.code.is_empty()), "nothing exceeds a limit of DingTalk");
    world.assert_undecided(&id).await;
}

#[tokio::test]
async fn burst_of_requests_is_posted_within_dingtalks_limits() {
    let world = World::start().await;
    for _ in 0..8 {
        world.app.request_peering(&[]).await.unwrap();
    }
    world.app.scheduled_tick().await;
    assert_eq!(world.cards().len(), 8);
    assert!(world.fake.calls().iter().all(|call| call.code.is_empty()), "nothing was refused");
}

#[tokio::test]
async fn hanging_dingtalk_still_gets_its_answer_in_time() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    world.fake.add_fault(DingTalkFault { path: "/v1.0/".into(), hangs: true, ..DingTalkFault::default() });
    let started = Instant::now();
    let notice = world.click("Details", ALICE, None).await;
    assert!(notice.contains(id.as_str()) && started.elapsed() < Duration::from_secs(5), "{notice}");
    assert!(world.fake.cards_to(ALICE).is_empty());
    let logged = crate::support::logged();
    let given_up = logged.lines().find(|line| line.contains("unanswered_click")).unwrap();
    assert!(given_up.contains("error=\"Transport.Timeout\""), "{given_up}");
}

/// What the doctor finds in the channels `dingtalk` and `robot`.
async fn examine_channels(world: &World, post: bool) -> [(Health, String); 2] {
    let options = Options { post, ..Options::default() };
    let deadline = Instant::now() + Duration::from_mins(1);
    let report = doctor::examine_deployment(Ok(world.app.environment.clone()), &options, deadline).await;
    ["channel dingtalk", "channel robot"].map(|channel| {
        let check = report.0.iter().find(|check| check.subject == channel).unwrap();
        (check.health, check.detail.clone())
    })
}

#[tokio::test]
async fn doctor_posts_a_dingtalk_test_message_only_on_request() {
    let world = World::start().await;
    let [app, robot] = examine_channels(&world, false).await;
    assert_eq!((app.0, robot.0), (Health::Healthy, Health::Healthy), "{app:?} {robot:?}");
    assert_eq!(app.1, "the app's secret is valid");
    assert!(world.cards().is_empty() && world.fake.texts_to(ROBOT_TOKEN).is_empty());
    let accepted = (Health::Healthy, "accepted a test message".to_owned());
    assert_eq!(examine_channels(&world, true).await, [accepted.clone(), accepted]);
    assert_eq!((world.cards().len(), world.fake.texts_to(ROBOT_TOKEN).len()), (1, 1));
    world.fake.set_published(false);
    let [(health, detail), _] = examine_channels(&world, true).await;
    assert!(health != Health::Healthy && detail.contains("the template is not published"), "{detail}");
}

#[tokio::test]
async fn doctor_and_first_tick_report_dingtalk_refusals() {
    let world = World::start().await;
    let misconfigured = || crate::support::logged().lines().filter(|line| line.contains("misconfigured")).count();
    for (code, status, reported) in [(None, 503, 0), (Some("invalidClientIdOrSecret"), 400, 1)] {
        world.fail("/v1.0/oauth2", code, status);
        doctor::StartupCheck::default().run_once(&world.app.parts).await;
        assert_eq!(misconfigured(), reported, "{code:?}");
        let [(health, detail), _] = examine_channels(&world, true).await;
        assert!(health != Health::Healthy && detail.contains(code.unwrap_or("503")), "{detail}");
    }
    assert!(crate::support::logged().contains("platforms.dingtalk.app"));
    assert!(world.cards().is_empty(), "without a token, nothing is posted");
}

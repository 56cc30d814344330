//! How notifications reach channels: one current card, at the pace of the platform, and nobody waits for a slow receiver.

use crate::support::prelude::*;
use peergate::approval::{Approval, Delivery};
use peergate::fake::slack::{PostLimit, RecordedPost, SlackCard};
use peergate::peering::InstanceId;
use tokio::time::Instant;

const HISTORY: &str = "/api/conversations.history";
const UPDATE: &str = "/api/chat.update";

/// Slack takes the posts, and its answers are lost.
fn lose_answers(app: &TestApp) {
    app.slack.add_outage(Outage { path: SLACK_PATH.into(), status: 502, after_effect: true, ..Outage::default() });
}

/// What the only notification of a request waits for in a channel.
async fn waiting_in(app: &TestApp, id: &InstanceId, channel: &str) -> (Option<String>, SignedDuration) {
    let approval = app.approval(id).await;
    let delivery = approval.outbox().iter().find_map(|it| match it.deliveries.get(channel) {
        Some(Delivery::Waiting { due_at, error, .. }) => Some((error.clone(), due_at.duration_since(clock::now()))),
        _ => None,
    });
    delivery.expect("a notification that waits")
}

async fn is_unconfirmed(app: &TestApp, id: &InstanceId) -> bool {
    let approval = app.approval(id).await;
    approval
        .outbox()
        .iter()
        .flat_map(|it| it.deliveries.values())
        .any(|delivery| matches!(delivery, Delivery::Waiting { unconfirmed_since: Some(_), claimed_at: None, .. }))
}

/// Clicks a button of a card as it was, and does what peergate tells Slack to do with the clicked message.
async fn click_copy(app: &TestApp, copy: &SlackCard, label: &str, user: &str) -> Vec<Value> {
    let button = copy.find_button(label).unwrap();
    let mut click = app.click_payload(&button.action_id, &button.value, user);
    click["container"] =
        json!({"type": "message", "channel_id": CHANNEL, "message_ts": copy.ts, "is_ephemeral": false});
    click["team"]["domain"] = "acme".into();
    let before = app.slack.posts(RESPONSE_PATH).len();
    assert_eq!(app.send_slack_payload(&click).await.status, 200);
    let posts = app.slack.posts(RESPONSE_PATH).split_off(before);
    let responses: Vec<_> = posts.iter().map(RecordedPost::body_json).collect();
    for response in &responses {
        app.slack.apply_response(CHANNEL, &copy.ts, response);
    }
    responses
}

#[tokio::test]
async fn card_whose_answer_was_lost_is_found_in_the_history() {
    let app = TestApp::with_settings(slow_activation()).await;
    lose_answers(&app);
    let id = app.discovered_request("vpc-other").await;
    assert!(is_unconfirmed(&app, &id).await, "a lost answer does not mean that nothing was posted");
    app.slack.clear_outages();
    app.follow().await;
    let card = app.only_card();
    assert_eq!(app.slack.posts(HISTORY).len(), 1);
    assert_eq!(app.approval(&id).await.cards()["netops"].reference, format!("{CHANNEL}/{}", card.ts));
    app.reject(&id, "alice").await;
    app.follow().await;
    assert!(app.only_card().text.contains("rejected"), "{}", app.only_card().text);
}

#[tokio::test]
async fn card_posted_by_a_dead_watcher_is_found() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-with-a-reason").await;
    // The watcher died after the post, and stored no result.
    let stored = app.load_record(&id).await.unwrap();
    let forget = |approval: &mut Approval| {
        let card = approval.cards()["netops"].id;
        *approval = edited(approval, |record| {
            record["cards"] = json!({});
            let claimed_at = clock::now() - SignedDuration::from_secs(61);
            record["outbox"][0]["deliveries"]["netops"] = json!({"waiting": {
                "due_at": clock::now(), "attempts": 0, "error": null, "card": card, "claimed_at": claimed_at,
            }});
        });
        true
    };
    app.parts.store.update(stored, forget).await.unwrap();
    app.round().await;
    assert_eq!(app.approval(&id).await.cards()["netops"].reference, format!("{CHANNEL}/{}", app.only_card().ts));
}

#[tokio::test]
async fn thread_reply_whose_answer_was_lost_appears_once() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    lose_answers(&app);
    app.reject(&id, "alice").await;
    app.round().await;
    app.slack.clear_outages();
    app.follow().await;
    let replies = app.only_card().thread_headlines().join("\n");
    assert_eq!(replies.matches("alice rejected").count(), 1, "{replies}");
}

#[tokio::test]
async fn lost_card_without_the_scope_is_replaced_at_its_click() {
    let app = TestApp::with_settings(slow_activation()).await;
    app.slack.remove_scope("channels:history");
    lose_answers(&app);
    let id = app.discovered_request("vpc-other").await;
    let lost = app.slack.messages_in(CHANNEL).remove(0);
    app.slack.clear_outages();
    app.follow().await;
    let cards = app.slack.messages_in(CHANNEL);
    assert_eq!(cards.len(), 2, "{cards:?}");
    assert!(logged().contains("missing_scope: needs channels:history"), "the log names the scope");
    for (label, user) in [("Approve", ALICE), ("Details", BOB), ("Reject", BOB)] {
        let responses = click_copy(&app, &lost, label, user).await;
        let replaced = responses.iter().find(|it| it["replace_original"] == true).expect(label);
        let link = format!("https://acme.slack.com/archives/{CHANNEL}/p{}", cards[1].ts.replace('.', ""));
        assert!(replaced.to_string().contains(&link), "{label}: {replaced}");
        assert_eq!(app.slack.messages_in(CHANNEL)[0].buttons, [], "{label}");
    }
    assert_eq!(app.slack.modals(), Vec::<Value>::new(), "nobody is asked for a reason that cannot count");
    assert_eq!((app.state_of(&id).await.as_str(), app.count_accepts(&id)), ("pending", 0));
    app.click_button(&cards[1], "Approve", ALICE).await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn lost_card_becomes_the_card_at_its_click() {
    let app = TestApp::with_settings(slow_activation()).await;
    app.slack.remove_scope("channels:history");
    lose_answers(&app);
    let id = app.discovered_request("vpc-with-a-reason").await;
    let lost = app.only_card();
    app.slack.clear_outages();
    let responses = click_copy(&app, &lost, "Details", BOB).await;
    assert!(responses.iter().all(|it| it["replace_original"] == false), "it may be the card: {responses:?}");
    let button = lost.find_button("Reject").unwrap();
    app.send_slack_payload(&app.click_payload(&button.action_id, &button.value, ALICE)).await;
    app.answer_modal("no", ALICE).await;
    app.follow().await;
    app.assert_state(&id, "rejected").await;
    assert_eq!(app.only_card().ts, lost.ts, "nothing is posted again");
    assert!(app.only_card().text.contains("was rejected"), "{}", app.only_card().text);
}

#[tokio::test]
async fn lost_card_with_other_facts_decides_nothing() {
    let app = TestApp::with_settings(slow_activation()).await;
    app.slack.remove_scope("channels:history");
    lose_answers(&app);
    let id = app.discovered_request("vpc-other").await;
    let lost = app.only_card();
    app.slack.clear_outages();
    app.set_bandwidth(&id, 2000);
    click_copy(&app, &lost, "Approve", ALICE).await;
    assert_eq!((app.state_of(&id).await.as_str(), app.count_accepts(&id)), ("pending", 0));
    app.follow().await;
    assert!(app.only_card().text.contains("2000 Mbit/s"), "{}", app.only_card().text);
}

#[tokio::test]
async fn card_that_cannot_be_updated_is_deleted() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    let old = app.only_card();
    app.slack.freeze_message(CHANNEL, &old.ts, true);
    app.approve(&id, "alice").await;
    app.follow().await;
    let card = app.only_card();
    assert!(card.ts != old.ts && card.text.contains("is being activated"), "{card:?}");
    assert_eq!(app.approval(&id).await.cards()["netops"].reference, format!("{CHANNEL}/{}", card.ts));
}

#[tokio::test]
async fn card_that_cannot_be_deleted_points_to_the_new_one() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-two-people").await;
    let old = app.only_card();
    app.slack.freeze_message(CHANNEL, &old.ts, false);
    app.approve(&id, "alice").await;
    app.follow().await;
    let cards = app.slack.messages_in(CHANNEL);
    assert_eq!(cards.len(), 2);
    assert!(cards[0].thread_headlines()[0].starts_with("There is a new card for VPC peering"), "{:?}", cards[0]);
    click_copy(&app, &old, "Approve", BOB).await;
    let shown = app.slack.messages_in(CHANNEL).remove(0);
    assert!(shown.text.starts_with("This card has been replaced") && shown.buttons.is_empty(), "{shown:?}");
    app.assert_accepts(&id, 0);
    // A later click on the copy, of which a client may still show the buttons, says who decided.
    app.click_button(&cards[1], "Approve", BOB).await;
    app.assert_accepts(&id, 1);
    click_copy(&app, &old, "Reject", CAROL).await;
    assert!(app.last_private_reply().starts_with("Too late"), "{}", app.last_private_reply());
}

#[tokio::test]
async fn incoming_webhooks_have_no_buttons_and_say_how_to_decide() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    let post = app.slack.posts(WEBHOOK_PATH).remove(0);
    assert!(!post.body_json().to_string().contains("\"actions\""), "{}", post.body_json());
    let how = format!(
        "This message has no buttons. To decide, use the card in netops, or send the command /peergate approve {id} on prod or \
         /peergate reject {id} on prod."
    );
    assert!(post.visible_text().contains(&how), "{}", post.visible_text());
    let reply = app.slash_command(&format!("approve {id} on prod"), ALICE).await;
    assert!(reply.body.contains("You approved"), "{}", reply.body);
    app.follow().await;
    for later in &app.slack.posts(WEBHOOK_PATH)[1..] {
        assert!(!later.visible_text().contains("To decide"), "{}", later.visible_text());
    }
}

#[tokio::test]
async fn hanging_receiver_delays_neither_its_record_nor_others() {
    let app = TestApp::with_settings(slow_activation()).await;
    app.slack.add_outage(Outage { path: AUDIT_PATH.into(), hangs: true, ..Outage::default() });
    let mut ids = vec![];
    // More than one lane runs at once.
    for number in 0..20 {
        let theirs = format!("vpc-requester-{number}");
        ids.push(app.request_peering(&[("VpcId", &theirs)]).await.unwrap());
    }
    let heard = |path: &str| app.slack.posts(path).len();
    let started = Instant::now();
    let tick = app.scheduled_tick();
    let others = async {
        while heard(WEBHOOK_PATH) < 20 || app.slack.messages_in(CHANNEL).len() < 20 {
            tokio::task::yield_now().await;
        }
        // While the receiver keeps the first notification, the others hear of the decision.
        app.approve(&ids[0], "alice").await;
        while !app.card_of(&ids[0]).text.contains("is being activated") || heard(WEBHOOK_PATH) < 22 {
            tokio::task::yield_now().await;
        }
        started.elapsed()
    };
    let took = tokio::select! {
        summary = tick => panic!("the tick ended before the others had heard: {summary:?}"),
        took = others => took,
    };
    // The receiver has 20 s, and none of them are over.
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(heard(AUDIT_PATH), 0);
}

#[tokio::test]
async fn burst_of_cards_keeps_slacks_pace_and_order() {
    let mut app = TestApp::with_settings(slow_activation()).await;
    app.pace_posts();
    // Less than a second, because the posts of a busy machine are late by different times.
    app.slack.limit_posts(PostLimit { distance: SignedDuration::from_millis(300), retry_after: 5 });
    let rule = "channels = [\"netops\", \"hook\", \"audit\"]";
    let config = app.config.replace(rule, "channels = [\"netops\"]");
    let app = app.with_config(&config);
    let ids = many_requests(&app, 20).await;
    let started = clock::now();
    app.discover().await;
    for _ in 0..200 {
        if app.slack.messages_in(CHANNEL).len() == ids.len() {
            break;
        }
        pass_to_next_post(&app).await;
    }
    let cards = app.slack.messages_in(CHANNEL);
    let took = clock::now().duration_since(started).as_secs();
    assert_eq!(cards.len(), ids.len(), "{:?}", app.slack.arrivals());
    assert!((19..45).contains(&took), "{took} s");
    let refused = app.slack.arrivals().iter().filter(|it| it.is_refused).count();
    assert!(refused <= 3, "{:?}", app.slack.arrivals());
}

async fn many_requests(app: &TestApp, number: usize) -> Vec<InstanceId> {
    let mut ids = vec![];
    for number in 0..number {
        let theirs = format!("vpc-requester-{number}");
        ids.push(app.request_peering(&[("VpcId", &theirs)]).await.unwrap());
    }
    ids
}

/// Sets the clock to the next planned post, and makes what is due then.
async fn pass_to_next_post(app: &TestApp) {
    let entries = app.parts.store.due_entries(clock::now() + SignedDuration::from_hours(1), None).await.unwrap().items;
    let due_at = entries.iter().filter_map(|entry| entry.work_at).min().expect("something waits");
    clock::jump::advance_in_thread(due_at.duration_since(clock::now()).max(SignedDuration::ZERO));
    app.round().await;
}

#[tokio::test]
async fn throttled_channel_pauses_for_every_record() {
    let mut app = TestApp::with_settings(slow_activation()).await;
    app.pace_posts();
    let config =
        app.config.replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = [\"netops\", \"audit\"]");
    let app = app.with_config(&config);
    app.slack.add_outage(Outage { path: SLACK_PATH.into(), status: 429, retry_after: Some(30), ..Outage::default() });
    let arrivals = |_: &TestApp| logged_failures("HTTP 429");
    many_requests(&app, 6).await;
    app.discover().await;
    assert_eq!(arrivals(&app), 1, "the others wait, although nothing refused them");
    assert_eq!(app.slack.posts(AUDIT_PATH).len(), 6, "another channel does not");
    for _ in 0..5 {
        clock::jump::advance_in_thread(SignedDuration::from_secs(5));
        app.round().await;
    }
    assert_eq!(arrivals(&app), 1, "for as long as Slack asked for");
    app.slack.clear_outages();
    while app.slack.messages_in(CHANNEL).len() < 6 {
        pass_to_next_post(&app).await;
    }
    assert_eq!(arrivals(&app), 1);
}

fn logged_failures(error: &str) -> usize {
    logged().lines().filter(|line| line.contains("could not post the notification") && line.contains(error)).count()
}

#[tokio::test]
async fn passing_failure_is_tried_again_in_seconds() {
    let app = TestApp::with_settings(slow_activation()).await;
    for (status, body) in [
        (500, ""),
        (503, ""),
        (408, ""),
        (200, r#"{"ok":false,"error":"internal_error"}"#),
        (200, r#"{"ok":false,"error":"team_added_to_org"}"#),
        (200, r#"{"ok":false,"error":"service_unavailable"}"#),
    ] {
        app.slack.add_outage(Outage { path: SLACK_PATH.into(), status, body: body.into(), ..Outage::default() });
        let id = app.new_request().await;
        app.discover().await;
        let (_, wait) = waiting_in(&app, &id, "netops").await;
        assert!(wait < SignedDuration::from_secs(5), "{status} {body}: {wait:?}");
        app.slack.clear_outages();
        app.follow().await;
        assert!(app.card_of(&id).find_button("Approve").is_some(), "{status} {body}");
    }
}

#[tokio::test]
async fn refusal_is_logged_with_the_platforms_words() {
    let app = TestApp::with_settings(slow_activation()).await;
    let blocks = r#"{"ok":false,"error":"invalid_blocks","response_metadata":{"messages":["[ERROR] must be more than 0 characters [json-pointer:/blocks/0]"]}}"#;
    let scope = r#"{"ok":false,"error":"missing_scope","needed":"chat:write","provided":"commands"}"#;
    let cases = [
        (SLACK_PATH, 200, blocks, "invalid_blocks: ERROR must be more than 0 characters json-pointer:/blocks/0"),
        (SLACK_PATH, 200, scope, "missing_scope: needs chat:write"),
        (WEBHOOK_PATH, 403, "action_prohibited", "HTTP 403: action_prohibited"),
        (WEBHOOK_PATH, 404, "no_service\n", "HTTP 404: no_service"),
        (WEBHOOK_PATH, 410, "channel_is_archived", "HTTP 410: channel_is_archived"),
        (WEBHOOK_PATH, 200, "<html>sign in</html>", "the answer is not `ok`: html sign in html"),
        (AUDIT_PATH, 422, "{\"error\":\"unknown\\ntype\"}", "HTTP 422: error unknown ntype"),
        (AUDIT_PATH, 404, "Cannot POST /hooks/T0/s3cr3tT0ken", "HTTP 404: Cannot POST …"),
        (AUDIT_PATH, 401, "no account for whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "HTTP 401: no account for …"),
    ];
    for (path, status, body, error) in cases {
        app.slack.add_outage(Outage { path: path.into(), status, body: body.into(), ..Outage::default() });
        let id = app.new_request().await;
        app.discover().await;
        let channel = [(SLACK_PATH, "netops"), (WEBHOOK_PATH, "hook"), (AUDIT_PATH, "audit")];
        let channel = channel.iter().find(|(of, _)| *of == path).unwrap().1;
        assert_eq!(waiting_in(&app, &id, channel).await.0.as_deref(), Some(error), "{body}");
        assert!(logged().contains(&format!("error={error:?}")), "{error}");
        app.slack.clear_outages();
        app.set_status(&id, "Deleted");
    }
}

#[tokio::test]
async fn ok_with_a_line_break_is_ok() {
    let app = TestApp::with_settings(slow_activation()).await;
    for body in ["ok", "ok\n", " ok\r\n"] {
        let outage = Outage { path: WEBHOOK_PATH.into(), status: 200, body: body.into(), ..Outage::default() };
        app.slack.add_outage(outage);
        let id = app.new_request().await;
        app.discover().await;
        let delivery = app.approval(&id).await.outbox()[0].deliveries["hook"].clone();
        assert!(matches!(delivery, Delivery::Delivered { .. }), "{body:?}: {delivery:?}");
        app.slack.clear_outages();
    }
}

#[tokio::test]
async fn new_card_is_drawn_once() {
    let app = TestApp::with_settings(slow_activation()).await;
    app.discovered_request("vpc-other").await;
    assert_eq!(
        (app.slack.posts(UPDATE).len(), app.slack.posts(HISTORY).len()),
        (0, 0),
        "only a lost answer costs more"
    );
}

#[tokio::test]
async fn cards_of_an_escalation_are_limited_like_others() {
    let app = TestApp::start().await;
    let rule = "escalate_to = [\"oncall\"]";
    let config = app.config.replace(rule, "escalate_to = [\"oncall\", \"pager\"]");
    let app = app.with_config(&format!("{config}\n[channels.pager]\nkind = \"slack-webhook\"\n"));
    app.write_secrets(|secrets| {
        secrets["channels"]["pager"] = json!({"url": format!("{}hooks/pager", app.chat_url)});
    })
    .unwrap();
    let app = app.restart_app();
    let mut ids = vec![];
    for number in 0..23 {
        let theirs = format!("vpc-requester-{number}");
        let vpcs = [("VpcId", theirs.as_str()), ("AcceptingVpcId", "vpc-two-people")];
        ids.push(app.request_peering(&vpcs).await.unwrap());
    }
    for _ in 0..3 {
        app.discover().await;
        clock::jump::advance_in_thread(SignedDuration::from_mins(61));
    }
    assert_eq!(app.slack.messages_in(CHANNEL).len(), 24, "23 cards and a digest");
    clock::jump::advance_in_thread(SignedDuration::from_hours(30));
    for _ in 0..3 {
        app.tick().await;
    }
    let cards = |channel| {
        let posts = app.slack.messages_in(channel).into_iter();
        posts.filter(|post| !post.text.contains("requests many VPC peerings")).count()
    };
    assert_eq!(cards("C0CALL"), 20, "the others wait for an hour");
    let pager = |app: &TestApp| {
        let posts = app.slack.posts("/hooks/pager").into_iter();
        posts.filter(|post| !post.visible_text().contains("requests many VPC peerings")).count()
    };
    assert_eq!(pager(&app), 20, "the same is true of a channel without cards");
    clock::jump::advance_in_thread(SignedDuration::from_mins(61));
    app.tick().await;
    assert_eq!((cards("C0CALL"), pager(&app)), (23, 23));
}

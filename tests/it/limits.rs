//! The load that one sender, requester or channel can cause is bounded, and a refusal gives its reason.

use std::collections::BTreeSet;

use crate::support::prelude::*;
use ipnet::IpNet;
use peergate::approval::{Delivery, NotificationKind};
use peergate::chat::EventSpec;
use peergate::chat::platform::Platform;

/// Sends a body of the client `ci` under an id that the client chose.
async fn send(app: &TestApp, webhook_id: &str, kind: &str, data: Value) -> WebhookReply {
    let body = json!({"type": kind, "data": data}).to_string();
    app.send(&app.sign_body_as(&body, webhook_id, &clock::now().as_second().to_string())).await
}

#[tokio::test]
async fn reused_request_id_with_new_content_decides_nothing() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    let seen = app.event_spec("approve", &id, "alice").fingerprint.unwrap();
    let data = |actor: &str| json!({"instance_id": id, "actor": actor});
    assert_eq!(send(&app, "job-1", "peering.approve", data("alice")).await.name(), "counted");
    let others = [
        ("peering.approve", data("bob")),
        ("peering.reject", data("carol")),
        ("peering.withdraw", data("alice")),
        ("peering.reject", data("alice")),
        ("peering.approve", json!({"instance_id": id, "actor": "alice", "reason": "ticket 42"})),
        ("peering.approve", json!({"instance_id": id, "actor": "alice", "fingerprint": seen})),
        ("peering.approve", json!({"instance_id": id, "actor": "alice", "dry_run": true})),
        ("peering.status", data("alice")),
    ];
    for (kind, data) in others {
        let reply = send(&app, "job-1", kind, data.clone()).await;
        assert_eq!((reply.status, reply.name().as_str()), (409, "id-reused"), "{kind} {data}");
        assert!(reply.problem_detail().contains("nothing was decided"), "{}", reply.problem_detail());
    }
    assert_eq!(app.approval(&id).await.approval_count(), 1);
    assert_eq!((app.count_calls(ACCEPT), app.count_calls(REJECT)), (0, 0));
    assert_eq!(send(&app, "job-1", "peering.approve", data("alice")).await.name(), "repeated", "the very same");
    // The same holds for a withdrawal.
    assert_eq!(send(&app, "job-2", "peering.withdraw", data("alice")).await.name(), "withdrawn");
    assert_eq!(send(&app, "job-2", "peering.approve", data("alice")).await.name(), "id-reused");
    assert_eq!(send(&app, "job-2", "peering.withdraw", data("alice")).await.name(), "repeated");
}

#[tokio::test]
async fn one_request_id_serves_several_connections() {
    let app = TestApp::start().await;
    let (one, two) = (app.discovered_request("vpc-one").await, app.discovered_request("vpc-two").await);
    for id in [&one, &two] {
        let reply = send(&app, "job-1", "peering.approve", json!({"instance_id": id, "actor": "alice"})).await;
        assert_eq!(reply.name(), "accepted");
    }
    assert_eq!((app.count_accepts(&one), app.count_accepts(&two)), (1, 1));
}

#[tokio::test]
async fn person_may_withdraw_twenty_times_and_then_hears_why_not() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    for round in 0..20 {
        assert_eq!(app.approve(&id, "alice").await.name(), "counted", "{round}");
        assert_eq!(app.withdraw(&id, "alice").await.name(), "withdrawn", "{round}");
    }
    assert_eq!(app.approve(&id, "alice").await.name(), "counted");
    let refused = app.withdraw(&id, "alice").await;
    refused.assert(409, "too-many-withdrawals");
    assert!(refused.problem_detail().contains("withdrawn your approval 20 times"), "{}", refused.problem_detail());
    assert_eq!(app.approve(&id, "bob").await.name(), "accepted", "others decide");
}

#[tokio::test]
async fn full_record_says_so_and_can_still_be_decided() {
    let app = TestApp::start().await;
    let app = app.with_change("approvals = 2", "approvals = 3");
    let id = app.discovered_request("vpc-two-people").await;
    let long = "\u{1F6A7}".repeat(400);
    let (mut refused, mut rounds) = (None, 0);
    'full: for actor in ["alice", "bob"] {
        for _ in 0..20 {
            let approve = EventSpec { reason: Some(long.clone()), ..app.event_spec("approve", &id, actor) };
            for reply in [app.send_spec(&approve).await, app.withdraw(&id, actor).await] {
                if reply.status != 200 {
                    refused = Some(reply);
                    break 'full;
                }
            }
            rounds += 1;
            if rounds % 5 == 0 {
                app.round().await;
            }
        }
    }
    let refused = refused.unwrap_or_else(|| panic!("{rounds} rounds and never full"));
    refused.assert(409, "record-full");
    assert!(
        refused.problem_detail().contains("is full, so your request was not stored"),
        "{}",
        refused.problem_detail()
    );
    let record = serde_json::to_string(&app.approval(&id).await).unwrap();
    assert!(record.len() < 300 * 1024, "{}", record.len());
    // People who have not decided yet still can, with the longest reason.
    let mut names = vec![];
    for actor in ["alice", "bob", "carol"] {
        let approve = EventSpec { reason: Some(long.clone()), ..app.event_spec("approve", &id, actor) };
        names.push(app.send_spec(&approve).await.name());
    }
    assert_eq!(names.last().unwrap(), "accepted", "{names:?}");
    app.follow().await;
    app.assert_state(&id, "activated").await;
    assert!(app.posted_headlines(WEBHOOK_PATH).last().unwrap().contains("is Activated"));
    let record = serde_json::to_string(&app.approval(&id).await).unwrap();
    assert!(record.len() < 400 * 1024, "{}", record.len());
}

#[tokio::test]
async fn outbox_of_a_broken_channel_is_bounded_and_keeps_the_end() {
    let app =
        TestApp::with_settings(SimulatorSettings { activation_delay: Duration::from_secs(1), ..quick_settings() })
            .await;
    let id = app.discovered_request("vpc-two-people").await;
    app.slack.add_outage(Outage { path: AUDIT_PATH.into(), status: 503, ..Outage::default() });
    for _ in 0..20 {
        app.approve(&id, "alice").await;
        app.withdraw(&id, "alice").await;
    }
    let waiting = async || {
        let approval = app.approval(&id).await;
        let waits = |delivery: &&Delivery| matches!(delivery, Delivery::Waiting { .. });
        approval.outbox().iter().filter_map(|notice| notice.deliveries.get("audit")).filter(waits).count()
    };
    assert!(waiting().await <= 24, "{}", waiting().await);
    for actor in ["alice", "bob"] {
        app.approve(&id, actor).await;
    }
    app.follow().await;
    app.assert_state(&id, "activated").await;
    app.slack.clear_outages();
    let stored = app.load_record(&id).await.unwrap();
    let earlier = clock::now() - SignedDuration::from_mins(1);
    app.parts.store.update(stored, |approval| approval.redrive(None, false, earlier) > 0).await.unwrap();
    app.follow().await;
    let types: Vec<_> =
        app.slack.posts(AUDIT_PATH).iter().map(|post| post.body_json()["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types.first().map(String::as_str), Some("peering.discovered"));
    assert_eq!(types.last().map(String::as_str), Some("peering.activated"), "{types:?}");
    assert!(types.contains(&"peering.accepted".to_owned()), "{types:?}");
}

#[tokio::test]
async fn busy_account_gets_twenty_cards_and_one_digest() {
    let app = TestApp::start().await;
    let mut ids = vec![];
    for number in 0..23 {
        let theirs = format!("vpc-requester-{number}");
        ids.push(app.request_peering(&[("VpcId", &theirs)]).await.unwrap());
    }
    app.discover().await;
    app.discover().await;
    let posts = app.slack.messages_in(CHANNEL);
    let digests: Vec<_> = posts.iter().filter(|post| post.text.contains("requests many VPC peerings")).collect();
    assert_eq!((posts.len(), digests.len()), (21, 1));
    let digest = &digests[0].text;
    assert!(
        digest.starts_with("data team, account 1111111111111111 requests many VPC peerings: peergate posts at most 20 of its cards an hour, and 3 more follow"),
        "{digest}"
    );
    for id in &ids {
        let card = posts.iter().any(|post| post.text.contains(&format!("VPC peering prod/{id},")));
        assert!(card != digest.contains(id.as_str()), "{id} has a card, or is in the digest");
    }
    assert_eq!(app.slack.posts(WEBHOOK_PATH).len(), 21, "each chat channel");
    assert_eq!(app.slack.posts(AUDIT_PATH).len(), 23, "machines hear everything");
    // A request without a card can be decided by senders who give the fingerprint.
    let late = ids.iter().find(|id| digest.contains(id.as_str())).unwrap();
    assert_eq!(app.approve(late, "alice").await.name(), "accepted");
}

#[tokio::test]
async fn eleventh_reading_in_a_minute_is_refused() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-one").await;
    let before = app.count_calls(GET);
    for _ in 0..10 {
        assert_eq!(app.status(&id, "mallory").await.name(), "status");
    }
    let refused = app.status(&id, "mallory").await;
    refused.assert(429, "too-many-reads");
    assert_eq!(refused.headers["retry-after"], "10");
    assert_eq!(app.count_calls(GET) - before, 10);
    assert_eq!(app.status(&id, "alice").await.name(), "status");
    // Decisions of a person who may not decide count, too.
    assert_eq!(app.approve(&id, "mallory").await.name(), "too-many-reads");
}

#[tokio::test]
async fn unknown_connection_is_read_once_except_for_decisions() {
    let app = TestApp::start().await;
    let nobodys: InstanceId = "pcc-nobodys".to_owned().try_into().unwrap();
    let before = app.count_calls(GET);
    for actor in ["a", "b", "c"] {
        assert_eq!(app.status(&nobodys, actor).await.name(), "unknown-connection");
    }
    assert_eq!(app.count_calls(GET) - before, 1);
    // A decision always reads.
    assert_eq!(app.approve(&nobodys, "alice").await.name(), "unknown-connection");
    assert_eq!(app.count_calls(GET) - before, 2);
}

fn ranges(count: usize) -> BTreeSet<IpNet> {
    (0..count).map(|number| format!("172.{}.{}.0/24", 16 + number / 256, number % 256).parse().unwrap()).collect()
}

#[tokio::test]
async fn every_bound_fact_is_shown_in_full() {
    let app = TestApp::start().await;
    // Its rule has one channel, the one with the card.
    let id = app.discovered_request("vpc-with-a-reason").await;
    app.tamper(&id, Tampering { requester_cidrs: Some(ranges(60)), ..Tampering::default() });
    app.discover().await;
    let card = app.only_card();
    for range in ranges(60) {
        assert!(card.text.contains(&range.to_string()), "{range} is not on the card");
    }
    assert_eq!(card.button_labels(), ["Approve", "Reject", "Details"]);
    let bound = card.find_button("Approve").unwrap().value.clone();
    let secrets = app.parts.secrets.current(clock::now()).await.unwrap();
    let bound = app.parts.chat_context(&secrets).keyring(Platform::Slack).verify(&bound).unwrap();
    assert!(
        bound.seen_fingerprint.is_prefix_of(&app.simulator.read_connection(id.as_str()).unwrap().fingerprint()),
        "{bound:?}"
    );
}

#[tokio::test]
async fn card_without_room_for_all_facts_has_no_decision_buttons() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-with-a-reason").await;
    app.tamper(&id, Tampering { requester_cidrs: Some(ranges(700)), ..Tampering::default() });
    app.discover().await;
    let card = app.only_card();
    assert_eq!(card.button_labels(), ["Details"], "{}", card.text);
    assert!(card.text.contains("more") && card.text.contains("no Approve and Reject buttons"), "{}", card.text);
    let details = app.click_button(&card, "Details", ALICE).await;
    assert_eq!((details.status, app.last_private_reply().contains("[Approve]")), (200, false));
    let blind = app.sign_slash_command(&format!("approve {id} because so"), ALICE).await;
    let reply = app.send(&blind).await.body;
    assert!(reply.contains("has changed since you saw it"), "{reply}");
    app.assert_calls(ACCEPT, 0);
    let approve = EventSpec { reason: Some("so".into()), ..app.event_spec("approve", &id, "alice") };
    assert_eq!(app.send_spec(&approve).await.name(), "accepted", "with the fingerprint");
}

#[tokio::test]
async fn first_card_costs_its_discovery_and_one_mark() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-by-itself-not").await;
    let stored = app.load_record(&id).await.unwrap();
    let card = stored.approval.cards()["netops"].clone();
    assert_eq!(card.fingerprint, *stored.approval.fingerprint());
    assert_eq!(card.reference, format!("C0PEER/{}", app.only_card().ts));
    // One write for the discovery with its claims, and one for the delivery to each of three channels.
    assert_eq!(stored.version, 4);
    assert!(stored.approval.outbox().iter().all(|notification| notification.kind != NotificationKind::Checked));
}

#[tokio::test]
async fn card_id_is_fixed_before_the_post_and_outlives_a_failed_one() {
    let app = TestApp::start().await;
    app.slack.add_outage(Outage { path: SLACK_PATH.into(), status: 503, ..Outage::default() });
    let id = app.discovered_request("vpc-one").await;
    let claimed = async || {
        let delivery = app.approval(&id).await.outbox()[0].deliveries["netops"].clone();
        let Delivery::Waiting { card, .. } = delivery else { panic!("{delivery:?}") };
        card.unwrap()
    };
    let first = claimed().await;
    app.slack.clear_outages();
    let stored = app.load_record(&id).await.unwrap();
    let now = clock::now();
    app.parts.store.update(stored, |approval| approval.redrive(None, false, now) > 0).await.unwrap();
    assert_eq!(claimed().await, first);
    app.follow().await;
    assert_eq!(app.approval(&id).await.cards()["netops"].id, first);
}

//! What one sender, requester or channel can cause is bounded, and what is refused is said in words.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{AUDIT, Gate, HOOK, Reply, SLACK, quick};
use ipnet::IpNet;
use jiff::SignedDuration;
use peergate::approval::{Delivery, News};
use peergate::chat::Wish;
use peergate::chat::platform::Platform;
use peergate::clock;
use peergate::local::simulator::{Settings, Tampering};
use peergate::local::sink::Trouble;
use peergate::peering::InstanceId;
use serde_json::{Value, json};

const ACCEPT: &str = "AcceptVpcPeerConnection";

async fn requested(gate: &Gate, vpc: &str) -> InstanceId {
    let id = gate.request_peering(&[("AcceptingVpcId", vpc)]).await.unwrap();
    gate.discover().await;
    id
}

/// Sends a body of the client `ci` under an id that the client chose.
async fn send(gate: &Gate, webhook_id: &str, kind: &str, data: Value) -> Reply {
    let body = json!({"type": kind, "data": data}).to_string();
    gate.send(&gate.signed_as(&body, webhook_id, &clock::now().as_second().to_string())).await
}

#[tokio::test]
async fn one_id_with_another_content_decides_nothing() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    let seen = gate.wish("approve", &id, "alice").fingerprint.unwrap();
    let data = |actor: &str| json!({"instance_id": id, "actor": actor});
    assert_eq!(send(&gate, "job-1", "peering.approve", data("alice")).await.name(), "counted");
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
        let reply = send(&gate, "job-1", kind, data.clone()).await;
        assert_eq!((reply.status, reply.name().as_str()), (409, "id-reused"), "{kind} {data}");
        assert!(reply.detail().contains("nothing was decided"), "{}", reply.detail());
    }
    assert_eq!(gate.stored(&id).await.unwrap().approval.given(), 1);
    assert_eq!((gate.calls(ACCEPT), gate.calls("RejectVpcPeerConnection")), (0, 0));
    assert_eq!(send(&gate, "job-1", "peering.approve", data("alice")).await.name(), "repeated", "the very same");
    // Of a withdrawal as well.
    assert_eq!(send(&gate, "job-2", "peering.withdraw", data("alice")).await.name(), "withdrawn");
    assert_eq!(send(&gate, "job-2", "peering.approve", data("alice")).await.name(), "id-reused");
    assert_eq!(send(&gate, "job-2", "peering.withdraw", data("alice")).await.name(), "repeated");
}

#[tokio::test]
async fn one_id_for_several_connections_is_several_requests() {
    let gate = Gate::start().await;
    let (one, two) = (requested(&gate, "vpc-one").await, requested(&gate, "vpc-two").await);
    for id in [&one, &two] {
        let reply = send(&gate, "job-1", "peering.approve", json!({"instance_id": id, "actor": "alice"})).await;
        assert_eq!(reply.name(), "accepted");
    }
    assert_eq!((gate.accepts(&one), gate.accepts(&two)), (1, 1));
}

#[tokio::test]
async fn a_person_may_withdraw_twenty_times_and_then_hears_why_not() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    for round in 0..20 {
        assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "counted", "{round}");
        assert_eq!(gate.send(&gate.signed("withdraw", &id, "alice").await).await.name(), "withdrawn", "{round}");
    }
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "counted");
    let refused = gate.send(&gate.signed("withdraw", &id, "alice").await).await;
    assert_eq!((refused.status, refused.name().as_str()), (409, "too-many-withdrawals"));
    assert!(refused.detail().contains("withdrawn your approval 20 times"), "{}", refused.detail());
    assert_eq!(gate.send(&gate.signed("approve", &id, "bob").await).await.name(), "accepted", "others decide");
}

#[tokio::test]
async fn a_full_record_says_so_and_can_still_be_decided_and_told() {
    let gate = Gate::start().await;
    let config = gate.config.replace("approvals = 2", "approvals = 3");
    let gate = gate.with_config(&config);
    let id = requested(&gate, "vpc-two-people").await;
    let long = "\u{1F6A7}".repeat(400);
    let (mut refused, mut rounds) = (None, 0);
    'full: for actor in ["alice", "bob"] {
        for _ in 0..20 {
            let approve = Wish { reason: Some(long.clone()), ..gate.wish("approve", &id, actor) };
            for reply in [
                gate.send(&gate.signed_wish(&approve).await).await,
                gate.send(&gate.signed("withdraw", &id, actor).await).await,
            ] {
                if reply.status != 200 {
                    refused = Some(reply);
                    break 'full;
                }
            }
            rounds += 1;
            gate.round().await;
        }
    }
    let refused = refused.unwrap_or_else(|| panic!("{rounds} rounds and never full"));
    assert_eq!((refused.status, refused.name().as_str()), (409, "record-full"), "{}", refused.body);
    assert!(refused.detail().contains("is full, so your request was not stored"), "{}", refused.detail());
    let record = serde_json::to_string(&gate.stored(&id).await.unwrap().approval).unwrap();
    assert!(record.len() < 300 * 1024, "{}", record.len());
    // Whoever has not decided yet still can, with the longest of reasons.
    let mut names = vec![];
    for actor in ["alice", "bob", "carol"] {
        let approve = Wish { reason: Some(long.clone()), ..gate.wish("approve", &id, actor) };
        names.push(gate.send(&gate.signed_wish(&approve).await).await.name());
    }
    assert_eq!(names.last().unwrap(), "accepted", "{names:?}");
    gate.scheduled().await;
    assert_eq!(gate.state(&id).await, "activated");
    assert!(gate.headlines(HOOK).last().unwrap().contains("is Activated"));
    let record = serde_json::to_string(&gate.stored(&id).await.unwrap().approval).unwrap();
    assert!(record.len() < 400 * 1024, "{}", record.len());
}

#[tokio::test]
async fn a_channel_that_is_down_is_owed_a_bounded_number_of_notices_and_hears_the_end() {
    let gate = Gate::with(Settings { activation: Duration::from_secs(1), ..quick() }).await;
    let id = requested(&gate, "vpc-two-people").await;
    gate.sink.trouble(Trouble { path: AUDIT.into(), status: 503, ..Trouble::default() });
    for _ in 0..20 {
        gate.send(&gate.signed("approve", &id, "alice").await).await;
        gate.send(&gate.signed("withdraw", &id, "alice").await).await;
    }
    let waiting = async || {
        let approval = gate.stored(&id).await.unwrap().approval;
        let waits = |delivery: &&Delivery| matches!(delivery, Delivery::Waiting { .. });
        approval.outbox.iter().filter_map(|notice| notice.deliveries.get("audit")).filter(waits).count()
    };
    assert!(waiting().await <= 24, "{}", waiting().await);
    for actor in ["alice", "bob"] {
        gate.send(&gate.signed("approve", &id, actor).await).await;
    }
    gate.scheduled().await;
    assert_eq!(gate.state(&id).await, "activated");
    gate.sink.heal();
    let stored = gate.stored(&id).await.unwrap();
    let earlier = clock::now() - SignedDuration::from_mins(1);
    gate.app.store.update(stored, |approval| approval.redrive(None, false, earlier) > 0).await.unwrap();
    gate.tick().await;
    let types: Vec<_> =
        gate.sink.posts(AUDIT).iter().map(|post| post.json()["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types.first().map(String::as_str), Some("peering.discovered"));
    assert_eq!(types.last().map(String::as_str), Some("peering.activated"), "{types:?}");
    assert!(types.contains(&"peering.accepted".to_owned()), "{types:?}");
}

#[tokio::test]
async fn an_account_that_asks_for_too_many_gets_twenty_cards_and_a_digest_with_all_others() {
    let gate = Gate::start().await;
    let mut ids = vec![];
    for number in 0..23 {
        let theirs = format!("vpc-requester-{number}");
        ids.push(gate.request_peering(&[("VpcId", &theirs)]).await.unwrap());
    }
    gate.discover().await;
    gate.discover().await;
    let posts = gate.sink.channel("C0PEER");
    let digests: Vec<_> = posts.iter().filter(|post| post.text.contains("requests many VPC peerings")).collect();
    assert_eq!((posts.len(), digests.len()), (21, 1));
    let digest = &digests[0].text;
    assert!(
        digest.starts_with("data team, account 1111111111111111 requests many VPC peerings: 3 more cards follow"),
        "{digest}"
    );
    for id in &ids {
        let card = posts.iter().any(|post| post.text.starts_with(&format!("VPC peering prod/{id} ")));
        assert!(card != digest.contains(id.as_str()), "{id} has a card, or is in the digest");
    }
    assert_eq!(gate.sink.posts(HOOK).len(), 21, "each chat channel");
    assert_eq!(gate.sink.posts(AUDIT).len(), 23, "machines hear everything");
    // What waits for its card can be decided by those who name what they saw.
    let late = ids.iter().find(|id| digest.contains(id.as_str())).unwrap();
    assert_eq!(gate.send(&gate.signed("approve", late, "alice").await).await.name(), "accepted");
}

#[tokio::test]
async fn people_use_up_neither_the_quota_nor_the_time_of_others() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-one").await;
    let before = gate.calls("GetVpcPeerConnectionAttribute");
    for _ in 0..10 {
        assert_eq!(gate.send(&gate.signed("status", &id, "mallory").await).await.name(), "status");
    }
    let refused = gate.send(&gate.signed("status", &id, "mallory").await).await;
    assert_eq!((refused.status, refused.name().as_str()), (429, "too-many-reads"));
    assert_eq!(refused.headers["retry-after"], "10");
    assert_eq!(gate.calls("GetVpcPeerConnectionAttribute") - before, 10);
    assert_eq!(gate.send(&gate.signed("status", &id, "alice").await).await.name(), "status");
    // Nor does somebody who may decide nothing, and tries to.
    let refused = gate.send(&gate.signed("approve", &id, "mallory").await).await;
    assert_eq!(refused.name(), "too-many-reads");
    // What is not there is asked for once.
    let nobodys: InstanceId = "pcc-nobodys".to_owned().try_into().unwrap();
    let before = gate.calls("GetVpcPeerConnectionAttribute");
    for actor in ["a", "b", "c"] {
        assert_eq!(gate.send(&gate.signed("status", &nobodys, actor).await).await.name(), "unknown-connection");
    }
    assert_eq!(gate.calls("GetVpcPeerConnectionAttribute") - before, 1);
    // But a decision always asks.
    assert_eq!(gate.send(&gate.signed("approve", &nobodys, "alice").await).await.name(), "unknown-connection");
    assert_eq!(gate.calls("GetVpcPeerConnectionAttribute") - before, 2);
}

fn ranges(count: usize) -> BTreeSet<IpNet> {
    (0..count).map(|number| format!("172.{}.{}.0/24", 16 + number / 256, number % 256).parse().unwrap()).collect()
}

#[tokio::test]
async fn every_fact_that_a_button_binds_is_shown_whole() {
    let gate = Gate::start().await;
    // Its rule has no channel but the one with the card.
    let id = requested(&gate, "vpc-with-a-reason").await;
    gate.tamper(&id, Tampering { requester_cidrs: Some(ranges(60)), ..Tampering::default() });
    gate.discover().await;
    let card = gate.card();
    for range in ranges(60) {
        assert!(card.text.contains(&range.to_string()), "{range} is not on the card");
    }
    assert_eq!(card.labels(), ["Approve", "Reject", "Details"]);
    let bound = card.button("Approve").unwrap().value.clone();
    let secrets = gate.app.secrets.current(clock::now()).await.unwrap();
    let bound = gate.app.chat(&secrets).keyring(Platform::Slack).verify(&bound).unwrap();
    assert!(bound.seen.is(&gate.simulator.connection(id.as_str()).unwrap().fingerprint()), "{bound:?}");

    // What does not fit is not decided on here.
    gate.tamper(&id, Tampering { requester_cidrs: Some(ranges(700)), ..Tampering::default() });
    gate.discover().await;
    let card = gate.card();
    assert_eq!(card.labels(), ["Details"], "{}", card.text);
    assert!(card.text.contains("more") && card.text.contains("no decision buttons"), "{}", card.text);
    let details = gate.press(&card, "Details", "U061F7AUR").await;
    assert_eq!((details.status, gate.told().contains("[Approve]")), (200, false));
    let blind = gate.slash(&format!("approve {id} because so"), "U061F7AUR").await;
    let told = gate.send(&blind).await.body;
    assert!(told.contains("not the one that you saw"), "{told}");
    assert_eq!(gate.calls(ACCEPT), 0);
    let approve = Wish { reason: Some("so".into()), ..gate.wish("approve", &id, "alice") };
    assert_eq!(gate.send(&gate.signed_wish(&approve).await).await.name(), "accepted", "with the fingerprint");
}

#[tokio::test]
async fn the_first_card_is_claimed_when_it_is_discovered_and_marked_once() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-by-itself-not").await;
    let stored = gate.stored(&id).await.unwrap();
    let card = stored.approval.cards["netops"].clone();
    assert_eq!(card.fingerprint, stored.approval.fingerprint);
    assert_eq!(card.reference, format!("C0PEER/{}", gate.card().ts));
    // Discovered with its claims, and a mark for each of three channels.
    assert_eq!(stored.version, 4);
    assert!(stored.approval.outbox.iter().all(|notice| notice.news != News::Checked));
}

#[tokio::test]
async fn the_id_of_a_card_is_fixed_before_the_post_and_outlives_a_lost_answer() {
    let gate = Gate::start().await;
    gate.sink.trouble(Trouble { path: SLACK.into(), status: 503, ..Trouble::default() });
    let id = requested(&gate, "vpc-one").await;
    let claimed = async || {
        let delivery = gate.stored(&id).await.unwrap().approval.outbox[0].deliveries["netops"].clone();
        let Delivery::Waiting { card, .. } = delivery else { panic!("{delivery:?}") };
        card.unwrap()
    };
    let first = claimed().await;
    gate.sink.heal();
    let stored = gate.stored(&id).await.unwrap();
    let now = clock::now();
    gate.app.store.update(stored, |approval| approval.redrive(None, false, now) > 0).await.unwrap();
    assert_eq!(claimed().await, first);
    gate.tick().await;
    assert_eq!(gate.stored(&id).await.unwrap().approval.cards["netops"].card, first);
}

//! Story two from outside: a tick in; the store, the upstream calls and what the channels hear out.

use std::time::Duration;

use crate::support::{AUDIT, Gate, HOOK, SLACK, logged, quick};
use peergate::approval::Event;
use peergate::clock;
use peergate::local::simulator::gateway::Fault;
use peergate::local::simulator::{Settings, Tampering};
use peergate::local::sink::Trouble;
use peergate::peering::InstanceId;
use peergate::trigger::Trigger;
use peergate::watch::Summary;
use serde_json::json;

/// Approves; the activation takes so long that no tick of the test sees it by itself.
async fn approved(gate: &Gate) -> InstanceId {
    let id = gate.requested().await;
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!(reply.name(), "accepted", "{}", reply.body);
    id
}

fn slow() -> Settings {
    Settings { activation: Duration::from_hours(1), ..Settings::default() }
}

fn becomes(status: &str) -> Tampering {
    Tampering { status: Some(status.into()), ..Tampering::default() }
}

#[tokio::test]
async fn an_empty_tick_does_nothing_and_ends_at_once() {
    let gate = Gate::start().await;
    assert_eq!(gate.tick().await, Summary { rounds: 1, ..Summary::default() });
    assert_eq!(gate.upstream_calls(), 0);
}

#[tokio::test]
async fn one_tick_follows_an_activation_and_tells_every_channel_once() {
    let gate = Gate::with(Settings { activation: Duration::from_secs(1), ..quick() }).await;
    let id = approved(&gate).await;
    let summary = gate.tick().await;
    assert!(summary.rounds > 1, "it goes on while something moves: {summary:?}");
    assert_eq!((gate.state(&id).await.as_str(), summary.delivered), ("activated", 12));
    for path in [SLACK, HOOK] {
        let headlines = gate.headlines(path);
        assert_eq!(headlines[0], format!("alice (webhook:ci/alice) approved VPC peering prod/{id}"));
        assert_eq!(headlines[1], format!("VPC peering prod/{id} was accepted and is being activated"));
        assert!(headlines[2].starts_with(&format!("VPC peering prod/{id} is Activated, ")), "{headlines:?}");
        assert_eq!(headlines.len(), 3);
    }
    let types: Vec<_> = gate.sink.posts(AUDIT).iter().map(|post| post.json()["type"].clone()).collect();
    assert_eq!(types, ["peering.discovered", "peering.decided", "peering.accepted", "peering.activated"]);
    assert_eq!(gate.tick().await, Summary { rounds: 1, ..Summary::default() });
    assert_eq!(gate.stored(&id).await.unwrap().approval.due_at(), None);
}

#[tokio::test]
async fn polling_writes_nothing_while_nothing_changes() {
    let gate = Gate::with(slow()).await;
    let id = approved(&gate).await;
    gate.round().await;
    let version = gate.stored(&id).await.unwrap().version;
    gate.round().await;
    gate.round().await;
    assert_eq!(gate.stored(&id).await.unwrap().version, version);
    assert!(gate.calls("GetVpcPeerConnectionAttribute") >= 3);
}

#[tokio::test]
async fn what_the_webhook_could_not_finish_is_finished_with_the_same_token() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let action = Some("AcceptVpcPeerConnection".to_owned());
    let code = Some("ServiceUnavailable".to_owned());
    gate.simulator.fault(Fault { action, code, http_status: 503, times: 3, ..Fault::default() });
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (202, "underway"));
    for _ in 0..3 {
        gate.make_due(&id).await;
        gate.round().await;
    }
    assert_eq!(gate.accepts(&id), 1);
    let journal = gate.simulator.journal();
    let accepts = journal.iter().filter(|entry| entry.action == "AcceptVpcPeerConnection" && !entry.is_dry_run());
    let tokens: std::collections::BTreeSet<_> = accepts.map(|entry| &entry.parameters["ClientToken"]).collect();
    assert_eq!((tokens.len(), gate.calls("AcceptVpcPeerConnection")), (1, 4));
    assert_ne!(gate.state(&id).await, "approved");
}

#[tokio::test]
async fn a_lost_answer_of_the_accept_is_no_second_accept() {
    let gate = Gate::with(slow()).await;
    let id = gate.requested().await;
    gate.lose_the_accepts_answer();
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!(gate.state(&id).await, "approved");
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("approved", 1), "it is updated, who knows why");
    assert_eq!(gate.headlines(SLACK).len(), 1, "decided");
    gate.tamper(&id, becomes("Activated"));
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!((gate.state(&id).await.as_str(), gate.calls("AcceptVpcPeerConnection")), ("activated", 1));
    let headlines = gate.headlines(SLACK);
    assert!(headlines[1].contains("accepted") && headlines[2].contains("Activated"), "{headlines:?}");
}

#[tokio::test]
async fn a_vendors_wait_is_honoured() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let fault = Fault {
        action: Some("AcceptVpcPeerConnection".into()),
        code: Some("Throttling.User".into()),
        retry_after_ms: Some(120_000),
        ..Fault::default()
    };
    gate.simulator.fault(fault);
    let before = clock::now();
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    let due_at = gate.stored(&id).await.unwrap().approval.next_step_at.unwrap();
    assert!(due_at.duration_since(before) >= jiff::SignedDuration::from_secs(119), "{due_at}");
    gate.round().await;
    assert_eq!(gate.calls("AcceptVpcPeerConnection"), 1);
}

#[tokio::test]
async fn refused_credentials_are_retried_slowly_and_alarmed() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.simulator.fault(Fault {
        action: Some("AcceptVpcPeerConnection".into()),
        code: Some("Forbidden.RAM".into()),
        http_status: 403,
        times: 2,
        ..Fault::default()
    });
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!(gate.state(&id).await, "approved");
    let approval = gate.stored(&id).await.unwrap().approval;
    assert!(approval.next_step_at.unwrap().duration_since(clock::now()) > jiff::SignedDuration::from_mins(4));
    assert!(
        logged().lines().any(|line| {
            line.contains("ERROR") && line.contains("credentials_refused") && line.contains(id.as_str())
        })
    );
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn each_end_that_a_connection_can_come_to_is_announced_once() {
    let cases = [
        ("Rejected", "rejected", "was rejected"),
        ("Expired", "expired", "has expired before what was decided could be carried out"),
        ("Deleted", "deleted", "was deleted"),
    ];
    let gate = Gate::with(slow()).await;
    for (status, state, said) in cases {
        let id = approved(&gate).await;
        gate.round().await;
        gate.tamper(&id, becomes(status));
        gate.round().await;
        gate.round().await;
        if state == "deleted" {
            // Soon after our call, two further readings have to say so.
            assert_eq!(gate.state(&id).await, "activating");
            gate.read_again(&id).await;
            assert_eq!(gate.state(&id).await, "activating");
            gate.read_again(&id).await;
        }
        assert_eq!(gate.state(&id).await, state);
        let of_it: Vec<_> = gate.headlines(HOOK).into_iter().filter(|line| line.contains(id.as_str())).collect();
        assert_eq!(of_it.len(), 3, "decided, accepted and the end: {of_it:?}");
        assert!(of_it[2].contains(said), "{of_it:?}");
        assert_eq!(gate.stored(&id).await.unwrap().approval.due_at(), None);
    }
}

#[tokio::test]
async fn a_failure_is_told_with_its_code_and_what_to_do() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let code = Some("OperationFailed.CdtNotOpened".to_owned());
    gate.simulator.fault(Fault { action: Some("AcceptVpcPeerConnection".into()), code, ..Fault::default() });
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    gate.tick().await;
    let text = gate.replies().pop().unwrap();
    assert!(text.contains("could not be accepted"), "{text}");
    assert!(text.contains("Code: OperationFailed.CdtNotOpened"), "{text}");
    assert!(text.contains("Open Cloud Data Transfer (CDT)"), "{text}");
}

#[tokio::test]
async fn a_connection_that_changed_after_the_decision_is_not_accepted() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let code = Some("ServiceUnavailable".to_owned());
    let action = Some("AcceptVpcPeerConnection".to_owned());
    gate.simulator.fault(Fault { action, code, http_status: 503, ..Fault::default() });
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    gate.tamper(&id, Tampering { bandwidth: Some(9), ..Tampering::default() });
    gate.make_due(&id).await;
    gate.tick().await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("pending", 0));
    let card = gate.card();
    assert!(card.text.contains("⚠ Changed: bandwidth: 1024 Mbit/s → 9 Mbit/s"), "{}", card.text);
    assert_eq!(card.labels(), ["Approve", "Reject", "Details"]);
    let told = gate.replies().pop().unwrap();
    assert!(told.contains("No longer counted: the approval of alice"), "{told}");
    let again = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((again.name().as_str(), gate.accepts(&id)), ("accepted", 1));
}

#[tokio::test]
async fn what_changes_again_and_again_ends_also_when_it_was_approved_all_the_same() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.discover().await;
    for bandwidth in 1..=21 {
        gate.tamper(&id, Tampering { bandwidth: Some(bandwidth), ..Tampering::default() });
        gate.discover().await;
    }
    assert_eq!(gate.state(&id).await, "failed");
    let action = Some("AcceptVpcPeerConnection".to_owned());
    let code = Some("ServiceUnavailable".to_owned());
    gate.simulator.fault(Fault { action, code, http_status: 503, ..Fault::default() });
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((reply.name().as_str(), gate.state(&id).await.as_str()), ("underway", "approved"));
    gate.tamper(&id, Tampering { bandwidth: Some(99), ..Tampering::default() });
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("failed", 0));
    assert_eq!(gate.stored(&id).await.unwrap().approval.next_step_at, None, "it rests");
}

#[tokio::test]
async fn a_failing_connection_does_not_stop_the_others() {
    let gate = Gate::with(slow()).await;
    let (broken, fine) = (approved(&gate).await, approved(&gate).await);
    gate.tamper(&fine, becomes("Activated"));
    gate.tamper(&broken, becomes("Activated"));
    let action = Some("GetVpcPeerConnectionAttribute".to_owned());
    gate.simulator.fault(Fault { action, code: Some("InternalError".into()), http_status: 500, ..Fault::default() });
    gate.round().await;
    let mut states = [gate.state(&broken).await, gate.state(&fine).await];
    states.sort();
    assert_eq!(states, ["activated", "activating"]);
}

#[tokio::test]
async fn a_failing_channel_delays_only_itself_and_hears_everything_in_order() {
    let gate = Gate::with(slow()).await;
    let id = approved(&gate).await;
    let trouble = |status, body: &str| Trouble { path: SLACK.into(), status, body: body.into(), ..Trouble::default() };
    gate.sink.trouble(trouble(503, "down"));
    gate.round().await;
    gate.tamper(&id, becomes("Activated"));
    gate.round().await;
    assert_eq!((gate.headlines(SLACK).len(), gate.headlines(HOOK).len()), (0, 3));
    assert!(gate.stored(&id).await.unwrap().approval.due_at().is_some());
    gate.sink.heal();
    gate.tick().await;
    let headlines = gate.headlines(SLACK);
    assert!(headlines[1].contains("accepted") && headlines[2].contains("Activated"), "{headlines:?}");
    assert_eq!((headlines.len(), gate.headlines(HOOK).len()), (3, 3));
    assert_eq!(gate.stored(&id).await.unwrap().approval.due_at(), None);
}

#[tokio::test]
async fn every_way_in_which_a_platform_refuses_is_understood() {
    let cases = [
        (200, r#"{"ok":false,"error":"ratelimited"}"#, false),
        (200, r#"{"ok":false,"error":"channel_not_found"}"#, true),
        (200, "not JSON", false),
        (429, "", false),
        (500, "", false),
        (404, "", true),
    ];
    let gate = Gate::with(slow()).await;
    for (status, body, a_person_must_act) in cases {
        let id = approved(&gate).await;
        gate.sink.trouble(Trouble { path: SLACK.into(), status, body: body.into(), ..Trouble::default() });
        gate.round().await;
        let due_at = gate.stored(&id).await.unwrap().approval.outbox[0].deliveries["netops"].clone();
        let peergate::approval::Delivery::Waiting { due_at, .. } = due_at else {
            panic!("{status} {body}: {due_at:?}")
        };
        let wait = due_at.duration_since(clock::now()).as_secs();
        assert_eq!(wait > 1800, a_person_must_act, "{status} {body}: {wait}");
        gate.sink.heal();
        // Not part of the next case.
        gate.tamper(&id, becomes("Deleted"));
        gate.round().await;
    }
    let id = approved(&gate).await;
    gate.sink.trouble(Trouble { path: AUDIT.into(), status: 410, ..Trouble::default() });
    gate.round().await;
    let delivery = gate.stored(&id).await.unwrap().approval.outbox[0].deliveries["audit"].clone();
    assert_eq!(delivery, peergate::approval::Delivery::Gone);
}

#[tokio::test]
async fn where_a_slack_card_is_is_kept() {
    let gate = Gate::with(slow()).await;
    let id = approved(&gate).await;
    gate.round().await;
    let cards = gate.stored(&id).await.unwrap().approval.cards;
    assert_eq!(cards["netops"].reference, format!("C0PEER/{}", gate.card().ts));
    assert_eq!(cards.len(), 1, "only Slack lets us change what is there");
}

#[tokio::test]
async fn a_retried_notice_keeps_its_webhook_id_and_verifies() {
    let gate = Gate::with(slow()).await;
    let id = approved(&gate).await;
    gate.round().await;
    let post = gate.sink.posts(AUDIT).remove(0);
    let keys = [support_key()];
    let verified =
        peergate::chat::standard_webhooks::verify_with(&keys, &post.headers, post.body.clone(), clock::now());
    assert!(verified.is_ok(), "{verified:?}");
    let stored = gate.stored(&id).await.unwrap();
    let secrets = gate.app.secrets.current(clock::now()).await.unwrap();
    let notice = &stored.approval.outbox[0];
    let audit = &gate.app.config.channels["audit"];
    let again = audit.notify(gate.app.chat(&secrets), "audit", &stored.approval, notice);
    again.await.unwrap();
    assert_eq!(gate.sink.posts(AUDIT).pop().unwrap().headers["webhook-id"], post.headers["webhook-id"]);
}

fn support_key() -> peergate::chat::standard_webhooks::WebhookKey {
    peergate::local::sandbox::AUDIT_SECRET.to_owned().try_into().unwrap()
}

#[tokio::test]
async fn an_event_applied_twice_is_applied_once() {
    let gate = Gate::with(slow()).await;
    let id = approved(&gate).await;
    let mut approval = gate.stored(&id).await.unwrap().approval;
    let now = clock::now();
    assert!(!approval.apply(&Event::Accepted { request_id: "again".into() }, now));
    assert!(approval.apply(&Event::Missing, now));
    assert!(!approval.apply(&Event::Missing, now));
    assert_eq!(approval.outbox.len(), 3, "discovered, decided, accepted");
}

#[tokio::test]
async fn two_watchers_at_once_post_each_notice_once() {
    let gate = Gate::with(slow()).await;
    for _ in 0..4 {
        approved(&gate).await;
    }
    tokio::join!(gate.round(), gate.round(), gate.round());
    assert_eq!([SLACK, HOOK].map(|path| gate.headlines(path).len()), [8, 8], "decided and accepted");
    assert_eq!(gate.sink.channel("C0PEER").len(), 4, "a card each");
}

#[tokio::test]
async fn a_watcher_that_died_after_claiming_delays_a_notice_and_loses_none() {
    let gate = Gate::with(slow()).await;
    let id = approved(&gate).await;
    let stored = gate.stored(&id).await.unwrap();
    let claimed = gate
        .app
        .store
        .update(stored, |approval| !approval.outbox.claim(clock::now(), |_| None).is_empty())
        .await
        .unwrap();
    gate.round().await;
    assert_eq!(gate.headlines(SLACK).len(), 0, "somebody else has it");
    let later = clock::now() + jiff::SignedDuration::from_secs(31);
    assert_eq!(claimed.approval.outbox.due(later).len(), 3, "but not for ever");
}

#[tokio::test]
async fn an_unexpected_status_is_waited_out_and_not_hammered() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let code = Some("ServiceUnavailable".to_owned());
    let action = Some("AcceptVpcPeerConnection".to_owned());
    gate.simulator.fault(Fault { action, code, http_status: 503, ..Fault::default() });
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    let stored = gate.stored(&id).await.unwrap().approval;
    let mut approval = stored.clone();
    let odd = peergate::peering::Status::Other("Paused".into());
    let connection = peergate::peering::Connection { status: odd, ..stored.connection.clone() };
    let now = clock::now();
    assert!(approval.apply(&Event::Seen(Box::new(connection)), now));
    assert!(approval.next_step_at.unwrap() > now);
    assert_eq!(approval.last_problem.unwrap().code, "Status.Paused");
}

#[tokio::test]
async fn a_late_answer_does_not_touch_a_newer_generation() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let action = || Some("AcceptVpcPeerConnection".to_owned());
    let code = Some("ServiceUnavailable".to_owned());
    gate.simulator.fault(Fault { action: action(), code, http_status: 503, ..Fault::default() });
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    gate.make_due(&id).await;
    let code = Some("OperationFailed.CdtNotOpened".to_owned());
    gate.simulator.fault(Fault { action: action(), code, delay_ms: 2000, ..Fault::default() });
    let (_, ()) = tokio::join!(gate.round(), async {
        while gate.simulator.pending_faults() > 0 {
            tokio::task::yield_now().await;
        }
        let mut newer = gate.stored(&id).await.unwrap();
        newer.approval.generation = 2;
        gate.app.store.save(&newer.approval, Some(&newer)).await.unwrap();
    });
    let approval = gate.stored(&id).await.unwrap().approval;
    assert_eq!((approval.state.name(), approval.generation, approval.outbox.len()), ("approved", 2, 2));
}

#[tokio::test]
async fn a_rejection_that_the_webhook_could_not_finish_is_finished() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let action = Some("RejectVpcPeerConnection".to_owned());
    let code = Some("InternalError".to_owned());
    gate.simulator.fault(Fault { action, code, http_status: 500, ..Fault::default() });
    let reply = gate.send(&gate.signed("reject", &id, "alice").await).await;
    assert_eq!((reply.status, gate.state(&id).await.as_str()), (202, "rejecting"));
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!(gate.state(&id).await, "rejected");
    assert_eq!(gate.simulator.effects("RejectVpcPeerConnection", id.as_str()), 1);
    let rejected = format!("VPC peering prod/{id} was rejected");
    assert_eq!(gate.headlines(SLACK), [format!("alice (webhook:ci/alice) rejected VPC peering prod/{id}"), rejected]);
}

#[tokio::test]
async fn a_platforms_wait_is_honoured_but_not_for_ever() {
    let gate = Gate::with(slow()).await;
    for (asked_s, most_s) in [(120, 180), (50_000, 1000)] {
        let id = approved(&gate).await;
        gate.sink.trouble(Trouble { path: HOOK.into(), status: 429, retry_after: Some(asked_s), ..Trouble::default() });
        gate.round().await;
        gate.sink.heal();
        let delivery = gate.stored(&id).await.unwrap().approval.outbox[0].deliveries["hook"].clone();
        let peergate::approval::Delivery::Waiting { due_at, .. } = delivery else { panic!("{delivery:?}") };
        let wait = due_at.duration_since(clock::now()).as_secs();
        assert!((60..most_s).contains(&wait), "{asked_s}: {wait}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_of_the_apis_is_tried_again() {
    let gate = Gate::start().await;
    for raw in ["<html>502 Bad Gateway</html>", "", "{}", "[1]"] {
        for http_status in [200, 502] {
            let id = gate.requested().await;
            let action = Some("AcceptVpcPeerConnection".to_owned());
            gate.simulator.fault(Fault { action, http_status, raw: Some(raw.into()), ..Fault::default() });
            let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
            assert_eq!((reply.status, gate.state(&id).await.as_str()), (202, "approved"), "{http_status} {raw}");
            gate.make_due(&id).await;
            gate.round().await;
            assert_eq!(gate.accepts(&id), 1, "{http_status} {raw}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_was_not_found_once_is_accepted_when_it_is_there_again() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let code = Some("ServiceUnavailable".to_owned());
    let action = Some("AcceptVpcPeerConnection".to_owned());
    gate.simulator.fault(Fault { action, code, http_status: 503, ..Fault::default() });
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    let not_found = Some("ResourceNotFound.InstanceId".to_owned());
    let action = Some("GetVpcPeerConnectionAttribute".to_owned());
    gate.simulator.fault(Fault { action, code: not_found, ..Fault::default() });
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!(gate.state(&id).await, "approved", "one reading is no proof");
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!(gate.accepts(&id), 1, "what was decided is carried out");
}

#[test]
fn schedules_and_streams_mean_tick_and_nothing_else_does() {
    let parse = |json: serde_json::Value| serde_json::from_value::<Trigger>(json);
    assert!(parse(json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}})).is_ok());
    assert!(parse(json!({"source": "aws.scheduler"})).is_ok());
    assert!(parse(json!({"Records": [{"eventSource": "aws:dynamodb", "eventName": "MODIFY"}]})).is_ok());
    assert!(parse(json!({"Records": [{"eventSource": "aws:sqs"}]})).is_err());
    assert!(parse(json!({"source": "my.app"})).is_err());
    assert!(parse(json!({})).is_err());
}

#[tokio::test]
async fn what_is_over_and_told_leaves_no_work() {
    let gate = Gate::with(slow()).await;
    let id = approved(&gate).await;
    gate.tamper(&id, becomes("Rejected"));
    gate.round().await;
    gate.round().await;
    let approval = gate.stored(&id).await.unwrap().approval;
    assert_eq!((approval.state.name(), approval.work_at()), ("rejected", None), "the stream calls nobody");
}

#[tokio::test]
async fn an_accept_that_finds_nothing_beside_a_reading_ends_nothing() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.discover().await;
    let code = Some("ResourceNotFound.InstanceId".to_owned());
    let action = Some("AcceptVpcPeerConnection".to_owned());
    gate.simulator.fault(Fault { action, code, times: 5, ..Fault::default() });
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "underway");
    for _ in 0..4 {
        gate.make_due(&id).await;
        gate.round().await;
        let approval = gate.stored(&id).await.unwrap().approval;
        assert_eq!((approval.state.name(), approval.doubt.is_none()), ("approved", true));
    }
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn what_does_not_wait_is_not_decided_about_and_makes_no_record() {
    let gate = Gate::start().await;
    for status in ["Creating", "Suspended", "Updating"] {
        let theirs = format!("vpc-{}", status.to_lowercase());
        let id = gate.request_peering(&[("VpcId", &theirs)]).await.unwrap();
        gate.tamper(&id, Tampering { shows: Some(status.into()), ..Tampering::default() });
        let blind = gate.signed_wish(&crate::support::wish("approve", &id, "alice")).await;
        assert_eq!(
            (gate.send(&blind).await.name().as_str(), gate.state(&id).await.as_str()),
            ("not-acceptable", "none")
        );
    }
    assert_eq!(gate.calls("AcceptVpcPeerConnection"), 0);
}

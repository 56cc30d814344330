//! Story two from outside: a tick in; the store, the calls to Alibaba Cloud and the notifications out.

use crate::support::prelude::*;
use peergate::approval::Event;
use peergate::trigger::Trigger;
use peergate::watch::TickSummary;

/// An approved request. Its activation takes longer than any tick of the test.
async fn approved(app: &TestApp) -> InstanceId {
    let id = app.new_request().await;
    let reply = app.approve(&id, "alice").await;
    assert_eq!(reply.name(), "accepted", "{}", reply.body);
    id
}

#[tokio::test]
async fn empty_tick_does_nothing_and_ends_at_once() {
    let app = TestApp::start().await;
    assert_eq!(app.tick().await, TickSummary { rounds: 1, ..TickSummary::default() });
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn tick_follows_an_activation_and_notifies_each_channel_once() {
    let app =
        TestApp::with_settings(SimulatorSettings { activation_delay: Duration::from_secs(1), ..quick_settings() })
            .await;
    let id = approved(&app).await;
    let summary = app.tick().await;
    assert!(summary.rounds > 1, "it goes on while something moves: {summary:?}");
    assert_eq!((app.state_of(&id).await.as_str(), summary.delivered), ("activated", 12));
    for path in [SLACK_PATH, WEBHOOK_PATH] {
        let headlines = app.posted_headlines(path);
        assert_eq!(headlines[0], format!("alice approved VPC peering prod/{id}"));
        assert_eq!(headlines[1], format!("VPC peering prod/{id} was accepted and is being activated"));
        assert!(headlines[2].starts_with(&format!("VPC peering prod/{id} is Activated ")), "{headlines:?}");
        assert_eq!(headlines.len(), 3);
    }
    let types: Vec<_> = app.slack.posts(AUDIT_PATH).iter().map(|post| post.body_json()["type"].clone()).collect();
    assert_eq!(types, ["peering.discovered", "peering.decided", "peering.accepted", "peering.activated"]);
    assert_eq!(app.tick().await, TickSummary { rounds: 1, ..TickSummary::default() });
    assert_eq!(app.approval(&id).await.due_at(), None);
}

#[tokio::test]
async fn polling_writes_nothing_while_nothing_changes() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app).await;
    app.round().await;
    let version = app.load_record(&id).await.unwrap().version;
    app.round().await;
    app.round().await;
    assert_eq!(app.load_record(&id).await.unwrap().version, version);
    assert!(app.count_calls(GET) >= 3);
}

#[tokio::test]
async fn watcher_finishes_an_accept_with_the_same_token() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_times(3, ACCEPT, "ServiceUnavailable");
    app.approve(&id, "alice").await.assert(202, "underway");
    for _ in 0..3 {
        app.make_due(&id).await;
        app.round().await;
    }
    app.assert_accepts(&id, 1);
    let journal = app.simulator.journal();
    let accepts = journal.iter().filter(|entry| entry.action == ACCEPT && !entry.is_dry_run());
    let tokens: std::collections::BTreeSet<_> = accepts.map(|entry| &entry.parameters["ClientToken"]).collect();
    assert_eq!((tokens.len(), app.count_calls(ACCEPT)), (1, 4));
    assert_ne!(app.state_of(&id).await, "approved");
}

#[tokio::test]
async fn lost_accept_answer_causes_no_second_accept() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.new_request().await;
    app.lose_next_accept_reply();
    app.approve(&id, "alice").await;
    app.assert_state(&id, "approved").await;
    app.make_due(&id).await;
    app.round().await;
    // It is being updated, for an unknown reason.
    app.assert_state(&id, "approved").await;
    app.assert_accepts(&id, 1);
    assert_eq!(app.posted_headlines(SLACK_PATH).len(), 1, "decided");
    app.set_status(&id, "Activated");
    app.make_due(&id).await;
    app.round().await;
    app.assert_state(&id, "activated").await;
    app.assert_calls(ACCEPT, 1);
    let headlines = app.posted_headlines(SLACK_PATH);
    assert!(headlines[1].contains("accepted") && headlines[2].contains("Activated"), "{headlines:?}");
}

#[tokio::test]
async fn vendors_wait_is_honored() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let fault = Fault { retry_after_ms: Some(120_000), ..failure(ACCEPT, "Throttling.User") };
    app.simulator.add_fault(fault);
    let before = clock::now();
    app.approve(&id, "alice").await;
    let due_at = app.approval(&id).await.next_step_at().unwrap();
    assert!(due_at.duration_since(before) >= jiff::SignedDuration::from_secs(119), "{due_at}");
    app.round().await;
    app.assert_calls(ACCEPT, 1);
}

#[tokio::test]
async fn refused_credentials_are_retried_slowly_and_logged_as_error() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_times(2, ACCEPT, "Forbidden.RAM");
    app.approve(&id, "alice").await;
    app.make_due(&id).await;
    app.round().await;
    app.assert_state(&id, "approved").await;
    let approval = app.approval(&id).await;
    assert!(approval.next_step_at().unwrap().duration_since(clock::now()) > jiff::SignedDuration::from_mins(4));
    assert!(
        logged().lines().any(|line| {
            line.contains("ERROR") && line.contains("credentials_refused") && line.contains(id.as_str())
        })
    );
    app.make_due(&id).await;
    app.round().await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn each_final_status_is_announced_once() {
    let cases = [
        ("Rejected", "rejected", "was rejected"),
        ("Expired", "expired", "has expired before peergate could accept it"),
        ("Deleted", "deleted", "was deleted"),
    ];
    let app = TestApp::with_settings(slow_activation()).await;
    for (status, state, said) in cases {
        let id = approved(&app).await;
        app.round().await;
        app.set_status(&id, status);
        app.round().await;
        app.round().await;
        if state == "deleted" {
            // Soon after our call, two more readings must confirm it.
            app.assert_state(&id, "activating").await;
            app.read_doubtful_again(&id).await;
            app.assert_state(&id, "activating").await;
            app.read_doubtful_again(&id).await;
        }
        assert_eq!(app.state_of(&id).await, state);
        let of_it: Vec<_> =
            app.posted_headlines(WEBHOOK_PATH).into_iter().filter(|line| line.contains(id.as_str())).collect();
        assert_eq!(of_it.len(), 3, "decided, accepted and the end: {of_it:?}");
        assert!(of_it[2].contains(said), "{of_it:?}");
        assert_eq!(app.approval(&id).await.due_at(), None);
    }
}

#[tokio::test]
async fn failure_is_reported_with_its_code_and_remedy() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next(ACCEPT, "OperationFailed.CdtNotOpened");
    app.approve(&id, "alice").await;
    app.tick().await;
    let text = app.thread_replies().pop().unwrap();
    assert!(text.contains("could not be accepted"), "{text}");
    assert!(text.contains("Error code: OperationFailed.CdtNotOpened"), "{text}");
    assert!(text.contains("Activate Cloud Data Transfer (CDT)"), "{text}");
}

#[tokio::test]
async fn connection_changed_after_the_decision_is_not_accepted() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next(ACCEPT, "ServiceUnavailable");
    app.approve(&id, "alice").await;
    app.set_bandwidth(&id, 9);
    app.make_due(&id).await;
    app.tick().await;
    app.assert_state(&id, "pending").await;
    app.assert_accepts(&id, 0);
    let card = app.only_card();
    assert!(card.text.contains("⚠ Changed: bandwidth: 1024 Mbit/s → 9 Mbit/s"), "{}", card.text);
    assert_eq!(card.button_labels(), ["Approve", "Reject", "Details"]);
    let thread_reply = app.thread_replies().pop().unwrap();
    assert!(thread_reply.contains("The approval of alice"), "{thread_reply}");
    let again = app.approve(&id, "alice").await;
    assert_eq!((again.name().as_str(), app.count_accepts(&id)), ("accepted", 1));
}

#[tokio::test]
async fn repeatedly_changed_request_fails_even_when_approved() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.discover().await;
    for bandwidth in 1..=21 {
        app.set_bandwidth(&id, bandwidth);
        app.discover().await;
    }
    app.assert_state(&id, "failed").await;
    app.fail_next(ACCEPT, "ServiceUnavailable");
    let reply = app.approve(&id, "alice").await;
    assert_eq!((reply.name().as_str(), app.state_of(&id).await.as_str()), ("underway", "approved"));
    app.set_bandwidth(&id, 99);
    app.make_due(&id).await;
    app.round().await;
    app.assert_state(&id, "failed").await;
    app.assert_accepts(&id, 0);
    assert_eq!(app.approval(&id).await.next_step_at(), None, "it rests");
}

#[tokio::test]
async fn failing_connection_does_not_stop_the_others() {
    let app = TestApp::with_settings(slow_activation()).await;
    let (broken, fine) = (approved(&app).await, approved(&app).await);
    app.set_status(&fine, "Activated");
    app.set_status(&broken, "Activated");
    app.fail_next(GET, "InternalError");
    app.round().await;
    let mut states = [app.state_of(&broken).await, app.state_of(&fine).await];
    states.sort();
    assert_eq!(states, ["activated", "activating"]);
}

#[tokio::test]
async fn failing_channel_delays_only_itself_and_keeps_the_order() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app).await;
    let trouble =
        |status, body: &str| Outage { path: SLACK_PATH.into(), status, body: body.into(), ..Outage::default() };
    app.slack.add_outage(trouble(503, "down"));
    app.round().await;
    app.set_status(&id, "Activated");
    app.round().await;
    assert_eq!((app.posted_headlines(SLACK_PATH).len(), app.posted_headlines(WEBHOOK_PATH).len()), (0, 3));
    assert!(app.approval(&id).await.due_at().is_some());
    app.slack.clear_outages();
    app.tick().await;
    let headlines = app.posted_headlines(SLACK_PATH);
    assert!(headlines[1].contains("accepted") && headlines[2].contains("Activated"), "{headlines:?}");
    assert_eq!((headlines.len(), app.posted_headlines(WEBHOOK_PATH).len()), (3, 3));
    assert_eq!(app.approval(&id).await.due_at(), None);
}

#[tokio::test]
async fn each_platform_refusal_sets_the_right_retry() {
    let cases = [
        (200, r#"{"ok":false,"error":"ratelimited"}"#, false),
        (200, r#"{"ok":false,"error":"channel_not_found"}"#, true),
        (200, "not JSON", false),
        (429, "", false),
        (500, "", false),
        (404, "", true),
    ];
    let app = TestApp::with_settings(slow_activation()).await;
    for (status, body, a_person_must_act) in cases {
        let id = approved(&app).await;
        app.slack.add_outage(Outage { path: SLACK_PATH.into(), status, body: body.into(), ..Outage::default() });
        app.round().await;
        let due_at = app.approval(&id).await.outbox()[0].deliveries["netops"].clone();
        let peergate::approval::Delivery::Waiting { due_at, .. } = due_at else {
            panic!("{status} {body}: {due_at:?}")
        };
        let wait = due_at.duration_since(clock::now()).as_secs();
        assert_eq!(wait > 1800, a_person_must_act, "{status} {body}: {wait}");
        app.slack.clear_outages();
        // The next case has its own request.
        app.set_status(&id, "Deleted");
        app.round().await;
    }
}

#[tokio::test]
async fn gone_endpoint_is_abandoned() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app).await;
    app.slack.add_outage(Outage { path: AUDIT_PATH.into(), status: 410, ..Outage::default() });
    app.round().await;
    let delivery = app.approval(&id).await.outbox()[0].deliveries["audit"].clone();
    assert_eq!(delivery, peergate::approval::Delivery::Abandoned);
}

#[tokio::test]
async fn record_keeps_the_place_of_a_slack_card() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app).await;
    app.round().await;
    let cards = app.approval(&id).await.cards().clone();
    assert_eq!(cards["netops"].reference, format!("C0PEER/{}", app.only_card().ts));
    assert_eq!(cards.len(), 1, "only Slack lets us change what is there");
}

#[tokio::test]
async fn retried_notification_keeps_its_webhook_id_and_verifies() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app).await;
    app.round().await;
    let post = app.slack.posts(AUDIT_PATH).remove(0);
    let keys = [support_key()];
    let verified =
        peergate::chat::standard_webhooks::verify_with(&keys, &post.headers, post.body.clone(), clock::now());
    assert!(verified.is_ok(), "{verified:?}");
    let stored = app.load_record(&id).await.unwrap();
    let secrets = app.parts.secrets.current(clock::now()).await.unwrap();
    let notification = &stored.approval.outbox()[0];
    let audit = &app.parts.config.channels["audit"];
    let again = audit.send_notification(app.parts.chat_context(&secrets), "audit", &stored.approval, notification);
    again.await.unwrap();
    assert_eq!(app.slack.posts(AUDIT_PATH).pop().unwrap().headers["webhook-id"], post.headers["webhook-id"]);
}

fn support_key() -> peergate::chat::standard_webhooks::WebhookKey {
    peergate::local::sandbox::AUDIT_SECRET.to_owned().try_into().unwrap()
}

#[tokio::test]
async fn repeated_event_is_applied_once() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app).await;
    let mut approval = app.approval(&id).await;
    let now = clock::now();
    assert!(!approval.apply_event(&Event::Accepted { request_id: "again".into() }, now));
    assert!(approval.apply_event(&Event::Missing, now));
    assert!(!approval.apply_event(&Event::Missing, now));
    assert_eq!(approval.outbox().len(), 3, "discovered, decided, accepted");
}

#[tokio::test]
async fn concurrent_watchers_post_each_notification_once() {
    let app = TestApp::with_settings(slow_activation()).await;
    for _ in 0..4 {
        approved(&app).await;
    }
    tokio::join!(app.round(), app.round(), app.round());
    assert_eq!([SLACK_PATH, WEBHOOK_PATH].map(|path| app.posted_headlines(path).len()), [8, 8], "decided and accepted");
    assert_eq!(app.slack.messages_in(CHANNEL).len(), 4, "a card each");
}

#[tokio::test]
async fn notification_claimed_by_a_dead_watcher_is_due_again() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app).await;
    let stored = app.load_record(&id).await.unwrap();
    let claimed = app
        .parts
        .store
        .update(stored, |approval| !approval.claim_due(clock::now(), clock::now(), |_| None).is_empty())
        .await
        .unwrap();
    app.round().await;
    assert_eq!(app.posted_headlines(SLACK_PATH).len(), 0, "somebody else has it");
    let later = clock::now() + jiff::SignedDuration::from_secs(61);
    assert_eq!(claimed.approval.outbox().due_notifications(later).len(), 3, "but not for ever");
}

#[tokio::test]
async fn unexpected_status_is_waited_out() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next(ACCEPT, "ServiceUnavailable");
    app.approve(&id, "alice").await;
    let stored = app.approval(&id).await;
    let mut approval = stored.clone();
    let odd = peergate::peering::Status::Other("Paused".into());
    let connection = peergate::peering::Connection { status: odd, ..stored.connection().clone() };
    let now = clock::now();
    assert!(approval.apply_event(&Event::Observed(Box::new(connection)), now));
    assert!(approval.next_step_at().unwrap() > now);
    assert_eq!(approval.last_problem().unwrap().code, "Status.Paused");
}

#[tokio::test]
async fn late_answer_does_not_touch_a_newer_generation() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next(ACCEPT, "ServiceUnavailable");
    app.approve(&id, "alice").await;
    app.make_due(&id).await;
    app.simulator.add_fault(Fault { delay_ms: 500, ..failure(ACCEPT, "OperationFailed.CdtNotOpened") });
    let (_, ()) = tokio::join!(app.round(), async {
        while app.simulator.pending_faults() > 0 {
            tokio::task::yield_now().await;
        }
        let mut newer = app.load_record(&id).await.unwrap();
        newer.approval = edited(&newer.approval, |record| record["generation"] = json!(2));
        app.parts.store.save(&newer.approval, Some(&newer)).await.unwrap();
    });
    let approval = app.approval(&id).await;
    assert_eq!((approval.state().name(), approval.generation(), approval.outbox().len()), ("approved", 2, 2));
}

#[tokio::test]
async fn watcher_finishes_an_unfinished_rejection() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next(REJECT, "InternalError");
    let reply = app.reject(&id, "alice").await;
    assert_eq!((reply.status, app.state_of(&id).await.as_str()), (202, "rejecting"));
    app.make_due(&id).await;
    app.round().await;
    app.assert_state(&id, "rejected").await;
    assert_eq!(app.simulator.count_effects(REJECT, id.as_str()), 1);
    let rejected = format!("VPC peering prod/{id} was rejected");
    assert_eq!(app.posted_headlines(SLACK_PATH), [format!("alice rejected VPC peering prod/{id}"), rejected]);
}

#[tokio::test]
async fn platforms_wait_is_honored_within_a_limit() {
    let app = TestApp::with_settings(slow_activation()).await;
    for (asked_s, most_s) in [(120, 180), (50_000, 1000)] {
        let id = approved(&app).await;
        app.slack.add_outage(Outage {
            path: WEBHOOK_PATH.into(),
            status: 429,
            retry_after: Some(asked_s),
            ..Outage::default()
        });
        app.round().await;
        app.slack.clear_outages();
        let delivery = app.approval(&id).await.outbox()[0].deliveries["hook"].clone();
        let peergate::approval::Delivery::Waiting { due_at, .. } = delivery else { panic!("{delivery:?}") };
        let wait = due_at.duration_since(clock::now()).as_secs();
        assert!((60..most_s).contains(&wait), "{asked_s}: {wait}");
    }
}

#[tokio::test]
async fn unreadable_accept_answer_is_retried() {
    let app = TestApp::start().await;
    for raw in ["<html>502 Bad Gateway</html>", "", "{}", "[1]"] {
        for http_status in [200, 502] {
            let id = app.new_request().await;
            app.simulator.add_fault(Fault {
                action: Some(ACCEPT.to_owned()),
                http_status,
                raw: Some(raw.into()),
                ..Fault::default()
            });
            let reply = app.approve(&id, "alice").await;
            assert_eq!((reply.status, app.state_of(&id).await.as_str()), (202, "approved"), "{http_status} {raw}");
            app.make_due(&id).await;
            app.round().await;
            assert_eq!(app.count_accepts(&id), 1, "{http_status} {raw}");
        }
    }
}

#[tokio::test]
async fn connection_missing_once_is_accepted_when_it_reappears() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next(ACCEPT, "ServiceUnavailable");
    app.approve(&id, "alice").await;
    let not_found = Some("ResourceNotFound.InstanceId".to_owned());
    app.simulator.add_fault(Fault { action: Some(GET.to_owned()), code: not_found, ..Fault::default() });
    app.make_due(&id).await;
    app.round().await;
    // One reading is no proof.
    app.assert_state(&id, "approved").await;
    app.make_due(&id).await;
    app.round().await;
    // The decision is carried out.
    app.assert_accepts(&id, 1);
}

#[test]
fn only_schedules_and_streams_trigger_a_tick() {
    let parse = |json: serde_json::Value| serde_json::from_value::<Trigger>(json);
    assert!(parse(json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}})).is_ok());
    assert!(parse(json!({"source": "aws.scheduler"})).is_ok());
    assert!(parse(json!({"Records": [{"eventSource": "aws:dynamodb", "eventName": "MODIFY"}]})).is_ok());
    assert!(parse(json!({"Records": [{"eventSource": "aws:sqs"}]})).is_err());
    assert!(parse(json!({"source": "my.app"})).is_err());
    assert!(parse(json!({})).is_err());
}

#[tokio::test]
async fn ended_and_announced_request_leaves_no_work() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app).await;
    app.set_status(&id, "Rejected");
    app.round().await;
    app.round().await;
    let approval = app.approval(&id).await;
    assert_eq!((approval.state().name(), approval.work_at()), ("rejected", None), "the stream calls nobody");
}

#[tokio::test]
async fn accept_answered_with_not_found_ends_nothing() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.discover().await;
    app.fail_times(5, ACCEPT, "ResourceNotFound.InstanceId");
    assert_eq!(app.approve(&id, "alice").await.name(), "underway");
    for _ in 0..4 {
        app.make_due(&id).await;
        app.round().await;
        let approval = app.approval(&id).await;
        assert_eq!((approval.state().name(), approval.unconfirmed().is_none()), ("approved", true));
    }
    app.make_due(&id).await;
    app.round().await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn connection_not_awaiting_approval_makes_no_record() {
    let app = TestApp::start().await;
    for status in ["Creating", "Suspended", "Updating"] {
        let theirs = format!("vpc-{}", status.to_lowercase());
        let id = app.request_peering(&[("VpcId", &theirs)]).await.unwrap();
        app.show_status(&id, status);
        let blind = app.sign_spec(&app.blind_spec("approve", &id, "alice")).await;
        assert_eq!(
            (app.send(&blind).await.name().as_str(), app.state_of(&id).await.as_str()),
            ("not-acceptable", "none")
        );
    }
    app.assert_calls(ACCEPT, 0);
}

//! The metrics in CloudWatch: each event is counted once, under the name that the template's alarms and the dashboard
//! use.

use crate::support::prelude::*;
use peergate::metrics;

/// Every call fails.
fn refuse(code: &str) -> Fault {
    Fault { code: Some(code.to_owned()), times: 1000, ..Fault::default() }
}

#[tokio::test]
async fn decision_accept_and_activation_are_counted_once_each() {
    let counted = MetricsRecorder::start();
    let app =
        TestApp::with_settings(SimulatorSettings { activation_delay: Duration::from_secs(1), ..quick_settings() })
            .await;
    let id = app.new_request().await;
    counted.take_counts();
    let approve = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&approve).await.name(), "accepted");
    let after_answer = counted.take_counts();
    assert_eq!(after_answer["Decisions Verdict=approve"], [1.0]);
    assert_eq!(after_answer[metrics::ACCEPTS], [1.0]);
    assert_eq!(after_answer["SigningKeys Sender=ci Key=0"], [1.0]);
    assert_eq!(after_answer["ApiAnswers Code=OK"], [3.0], "read, list, accept");
    assert_eq!(after_answer["ApiAnswers Code=DryRunOperation"], [1.0]);
    for absent in [metrics::ACTIVATIONS, metrics::SERVER_ERRORS, metrics::SIGNATURE_FAILURES, metrics::THROTTLED] {
        assert!(!after_answer.contains_key(absent), "{absent}");
    }
    assert_eq!(app.send(&approve).await.name(), "repeated");
    assert_eq!(sum_counts(&counted.take_counts(), metrics::DECISIONS), 0.0, "a replay is no decision");
    clock::jump::advance_in_thread(SignedDuration::from_secs(3));
    app.tick().await;
    let after_tick = counted.take_counts();
    assert_eq!((&after_tick[metrics::ACTIVATIONS], &after_tick[metrics::TICKS]), (&vec![1.0], &vec![1.0]));
    assert!((0.5..60.0).contains(&after_tick[metrics::TIME_TO_ACTIVATED][0]), "{after_tick:?}");
    assert_eq!(sum_counts(&after_tick, metrics::DECISIONS) + sum_counts(&after_tick, metrics::ACCEPTS), 0.0);
    assert!(!after_tick.contains_key(metrics::UNDELIVERED_NOTIFICATIONS));
    app.tick().await;
    assert_eq!(sum_counts(&counted.take_counts(), metrics::ACTIVATIONS), 0.0);
}

#[tokio::test]
async fn activation_after_a_lost_answer_is_counted_once() {
    let counted = MetricsRecorder::start();
    let app = TestApp::with_settings(SimulatorSettings { activation_delay: Duration::ZERO, ..quick_settings() }).await;
    let id = app.new_request().await;
    app.lose_next_accept_reply();
    counted.take_counts();
    assert_eq!(app.approve(&id, "alice").await.status, 202);
    app.make_due(&id).await;
    app.tick().await;
    app.assert_state(&id, "activated").await;
    app.assert_accepts(&id, 1);
    let counted = counted.take_counts();
    assert_eq!((&counted[metrics::ACTIVATIONS], counted[metrics::TIME_TO_ACTIVATED].len()), (&vec![1.0], 1));
}

#[tokio::test]
async fn forged_request_is_counted_as_a_signature_failure() {
    let counted = MetricsRecorder::start();
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let mut forged = app.sign_event("approve", &id, "mallory").await;
    forged.body = forged.body.replace("mallory", "alice");
    counted.take_counts();
    assert_eq!((app.send(&forged).await.status, app.count_upstream_calls()), (401, 0));
    let refused = counted.take_counts();
    assert_eq!(refused[metrics::SIGNATURE_FAILURES], [1.0]);
    assert_eq!(sum_counts(&refused, metrics::SIGNING_KEYS) + sum_counts(&refused, metrics::SERVER_ERRORS), 0.0);
}

#[tokio::test]
async fn undelivered_notifications_are_counted() {
    let counted = MetricsRecorder::start();
    let app = TestApp::start().await;
    app.slack.add_outage(Outage { path: WEBHOOK_PATH.into(), status: 503, ..Outage::default() });
    app.new_request().await;
    app.new_request().await;
    counted.take_counts();
    let did = app.discover().await;
    let waiting = counted.take_counts();
    assert!(
        did.undelivered >= 2 && sum_counts(&waiting, metrics::UNDELIVERED_NOTIFICATIONS) == f64::from(did.undelivered),
        "{waiting:?}"
    );
    // One value for all of them: a histogram keeps at most a hundred.
    let oldest = did.oldest_undelivered.unwrap().as_secs_f64();
    assert_eq!(waiting[metrics::OLDEST_UNDELIVERED_NOTIFICATION], [oldest]);
    assert!((0.0..60.0).contains(&oldest), "{waiting:?}");
}

#[tokio::test]
async fn refused_credentials_are_counted_by_code() {
    let counted = MetricsRecorder::start();
    let app = TestApp::start().await;
    let id = app.new_request().await;
    counted.take_counts();
    app.simulator.add_fault(refuse("Forbidden.RAM"));
    assert_eq!(app.approve(&id, "alice").await.status, 502);
    let forbidden = counted.take_counts();
    assert_eq!(forbidden["ApiAnswers Code=Forbidden.RAM"], forbidden[metrics::CREDENTIALS_REFUSED]);
    assert_eq!(forbidden[metrics::SERVER_ERRORS], [1.0]);
}

#[tokio::test]
async fn throttling_is_counted_by_code() {
    let counted = MetricsRecorder::start();
    let app = TestApp::start().await;
    let id = app.new_request().await;
    counted.take_counts();
    app.simulator.add_fault(refuse("Throttling.User"));
    assert_eq!(app.approve(&id, "alice").await.status, 503);
    let throttled = counted.take_counts();
    assert!(throttled[metrics::THROTTLED][0] >= 1.0, "{throttled:?}");
    assert!(throttled.contains_key("ApiAnswers Code=Throttling.User"));
    assert_eq!(sum_counts(&throttled, metrics::CREDENTIALS_REFUSED), 0.0);
}

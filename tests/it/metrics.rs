//! What operators see in CloudWatch: each thing that happens is counted once, under the name that the template's alarms
//! and the dashboard look for.

use std::time::Duration;

use crate::support::{Counted, Gate, HOOK, quick, sum};
use peergate::local::simulator::Settings;
use peergate::local::simulator::gateway::Fault;
use peergate::local::sink::Trouble;
use peergate::metrics;

#[tokio::test]
async fn a_decision_an_accept_and_an_activation_are_counted_once_each() {
    let counted = Counted::start();
    let gate = Gate::with(Settings { activation: Duration::from_secs(1), ..quick() }).await;
    let id = gate.requested().await;
    counted.take();
    let approve = gate.signed("approve", &id, "alice").await;
    assert_eq!(gate.send(&approve).await.name(), "accepted");
    let after_answer = counted.take();
    assert_eq!(after_answer["Decisions Verdict=approve"], [1.0]);
    assert_eq!(after_answer[metrics::ACCEPTS], [1.0]);
    assert_eq!(after_answer["SigningKeys Sender=ci Key=0"], [1.0]);
    assert_eq!(after_answer["ApiAnswers Code=OK"], [3.0], "read, list, accept");
    assert_eq!(after_answer["ApiAnswers Code=DryRunOperation"], [1.0]);
    for absent in [metrics::ACTIVATIONS, metrics::SERVER_ERRORS, metrics::SIGNATURE_FAILURES, metrics::THROTTLED] {
        assert!(!after_answer.contains_key(absent), "{absent}");
    }
    assert_eq!(gate.send(&approve).await.name(), "repeated");
    assert_eq!(sum(&counted.take(), metrics::DECISIONS), 0.0, "a replay is no decision");
    gate.tick().await;
    let after_tick = counted.take();
    assert_eq!((&after_tick[metrics::ACTIVATIONS], &after_tick[metrics::TICKS]), (&vec![1.0], &vec![1.0]));
    assert!((0.5..60.0).contains(&after_tick[metrics::TIME_TO_ACTIVATED][0]), "{after_tick:?}");
    assert_eq!(sum(&after_tick, metrics::DECISIONS) + sum(&after_tick, metrics::ACCEPTS), 0.0);
    assert!(!after_tick.contains_key(metrics::UNDELIVERED_NOTICES));
    gate.tick().await;
    assert_eq!(sum(&counted.take(), metrics::ACTIVATIONS), 0.0);
}

#[tokio::test]
async fn an_activation_whose_accept_was_not_answered_is_counted_once() {
    let counted = Counted::start();
    let gate = Gate::with(Settings { activation: Duration::ZERO, ..quick() }).await;
    let id = gate.requested().await;
    gate.lose_the_accepts_answer();
    counted.take();
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.status, 202);
    gate.make_due(&id).await;
    gate.tick().await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("activated", 1));
    let counted = counted.take();
    assert_eq!((&counted[metrics::ACTIVATIONS], counted[metrics::TIME_TO_ACTIVATED].len()), (&vec![1.0], 1));
}

#[tokio::test]
async fn strangers_are_counted_and_so_is_what_we_owe_people() {
    let counted = Counted::start();
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let mut forged = gate.signed("approve", &id, "mallory").await;
    forged.body = forged.body.replace("mallory", "alice");
    counted.take();
    assert_eq!((gate.send(&forged).await.status, gate.upstream_calls()), (401, 0));
    let refused = counted.take();
    assert_eq!(refused[metrics::SIGNATURE_FAILURES], [1.0]);
    assert_eq!(sum(&refused, metrics::SIGNING_KEYS) + sum(&refused, metrics::SERVER_ERRORS), 0.0);

    gate.sink.trouble(Trouble { path: HOOK.into(), status: 503, ..Trouble::default() });
    gate.requested().await;
    let did = gate.discover().await;
    let owed = counted.take();
    assert!(did.undelivered >= 2 && sum(&owed, metrics::UNDELIVERED_NOTICES) == f64::from(did.undelivered), "{owed:?}");
    // However many there are: a hundred values are all that is kept.
    let oldest = did.oldest_undelivered.unwrap().as_secs_f64();
    assert_eq!(owed[metrics::OLDEST_UNDELIVERED_NOTICE], [oldest]);
    assert!((0.0..60.0).contains(&oldest), "{owed:?}");
}

#[tokio::test]
async fn refused_credentials_and_throttling_are_counted_by_code() {
    let counted = Counted::start();
    let gate = Gate::start().await;
    let id = gate.requested().await;
    counted.take();
    let refuse = |code: &str| Fault { code: Some(code.to_owned()), times: 1000, ..Fault::default() };
    gate.simulator.fault(refuse("Forbidden.RAM"));
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.status, 502);
    let forbidden = counted.take();
    assert_eq!(forbidden["ApiAnswers Code=Forbidden.RAM"], forbidden[metrics::CREDENTIALS_REFUSED]);
    assert_eq!(forbidden[metrics::SERVER_ERRORS], [1.0]);
    gate.simulator.heal();
    gate.simulator.fault(refuse("Throttling.User"));
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.status, 503);
    let throttled = counted.take();
    assert!(throttled[metrics::THROTTLED][0] >= 1.0, "{throttled:?}");
    assert!(throttled.contains_key("ApiAnswers Code=Throttling.User"));
    assert_eq!(sum(&throttled, metrics::CREDENTIALS_REFUSED), 0.0);
}

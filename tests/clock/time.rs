//! What takes days: reminders, escalation, expiry and activations that are stuck. The clock of the process is set ahead,
//! so these tests have one of their own and run one after the other.

use std::time::Duration;

use crate::support::{CLOCK, Gate, HOOK, quick};
use jiff::SignedDuration;
use peergate::clock;
use peergate::local::simulator::Settings;
use peergate::local::simulator::gateway::Fault;
use peergate::local::sink::Trouble;
use peergate::peering::InstanceId;

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

/// Lets time pass, with a look every so often.
async fn pass(gate: &Gate, time: SignedDuration, looks: i32) {
    for _ in 0..looks {
        clock::jump::ahead(time / looks);
        gate.round().await;
    }
}

async fn requested(gate: &Gate, vpc: &str) -> InstanceId {
    let id = gate.request_peering(&[("AcceptingVpcId", vpc)]).await.unwrap();
    gate.discover().await;
    id
}

#[tokio::test]
async fn who_does_not_decide_is_reminded_less_and_less_often_and_then_others_are_told() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    pass(&gate, hours(3), 6).await;
    assert!(gate.card().thread().is_empty());
    pass(&gate, hours(25), 50).await;
    let waited = |time: &str| format!("VPC peering prod/{id} has waited for a decision for {time}");
    assert_eq!(gate.card().thread(), [waited("4 h"), waited("12 h"), waited("1 d 4 h")]);
    assert!(gate.card().replies.iter().all(|reply| reply.broadcast), "seen in the channel, too");
    assert!(gate.card().replies[0].text.contains("Still needed: 2 of alice, bob, carol"));
    assert!(gate.sink.channel("C0CALL").is_empty());

    pass(&gate, hours(4), 8).await;
    let thread = gate.card().thread().join("\n");
    assert!(
        thread.contains(&format!("VPC peering prod/{id} has waited for 1 d 6 h, and it is not decided")),
        "{thread}"
    );
    let other = gate.card_in("C0CALL");
    assert_eq!(other.labels(), ["Approve", "Reject", "Details"], "others get the card as well: {}", other.text);
    assert_eq!(other.replies.len(), 1);

    // From the other card; both show it.
    gate.press(&other, "Approve", "U061F7AUR").await;
    gate.press(&gate.card(), "Approve", "U0CAROL").await;
    gate.tick().await;
    for channel in ["C0PEER", "C0CALL"] {
        assert!(gate.card_in(channel).text.contains("is Activated"), "{}", gate.card_in(channel).text);
    }
}

#[tokio::test]
async fn a_request_that_nobody_answers_warns_before_it_expires_and_tells_when_it_has() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    pass(&gate, hours(6 * 24 + 1), 100).await;
    let thread = gate.card().thread().join("\n");
    assert_eq!(thread.matches("expires at").count(), 1, "{thread}");
    assert!(thread.contains("if nobody decides"), "{thread}");
    pass(&gate, hours(24), 20).await;
    assert_eq!(gate.state(&id).await, "expired");
    let card = gate.card();
    assert!(card.text.starts_with(&format!("VPC peering prod/{id} has expired\n")), "{}", card.text);
    assert!(card.labels().is_empty());
    assert!(gate.headlines(HOOK).last().unwrap().contains("has expired: nobody accepted it within 7 days"));
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((reply.name().as_str(), gate.accepts(&id)), ("already-decided", 0));
    assert!(reply.detail().contains("Too late"), "{}", reply.detail());
}

#[tokio::test]
async fn an_activation_that_takes_too_long_is_told_once_and_followed_on() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(Settings { activation: Duration::from_hours(1), ..quick() }).await;
    let id = requested(&gate, "vpc-other").await;
    gate.press(&gate.card(), "Approve", "U0BOB").await;
    pass(&gate, SignedDuration::from_mins(9), 3).await;
    assert!(!gate.card().thread().join("\n").contains("too long"));
    pass(&gate, SignedDuration::from_mins(30), 10).await;
    let thread = gate.card().thread().join("\n");
    assert_eq!(thread.matches("has been in activation for 12 min ").count(), 1, "{thread}");
    pass(&gate, SignedDuration::from_mins(30), 10).await;
    assert_eq!(gate.state(&id).await, "activated");
}

#[tokio::test]
async fn people_are_reminded_while_alibaba_cloud_is_down() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::start().await;
    requested(&gate, "vpc-other").await;
    gate.simulator.fault(Fault {
        code: Some("ServiceUnavailable".into()),
        http_status: 503,
        times: 999,
        ..Fault::default()
    });
    pass(&gate, hours(5), 10).await;
    assert_eq!(gate.card().thread().len(), 1, "{:?}", gate.card().thread());
}

#[tokio::test]
async fn what_cannot_be_checked_is_checked_less_and_less_often() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::start().await;
    gate.simulator.fault(Fault {
        action: Some("AcceptVpcPeerConnection".into()),
        code: Some("Forbidden.RAM".into()),
        http_status: 403,
        times: 999,
        dry_run: true,
        ..Fault::default()
    });
    requested(&gate, "vpc-other").await;
    pass(&gate, SignedDuration::from_mins(10), 10).await;
    assert!(gate.dry_runs() >= 5, "soon at first: {}", gate.dry_runs());
    let before = gate.dry_runs();
    pass(&gate, hours(24), 24 * 6).await;
    assert!((20..60).contains(&(gate.dry_runs() - before)), "{} in a day", gate.dry_runs() - before);
}

#[tokio::test]
async fn a_reminder_checks_nothing_again_that_had_passed() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::start().await;
    requested(&gate, "vpc-other").await;
    let before = gate.dry_runs();
    pass(&gate, hours(5), 5).await;
    assert_eq!((gate.card().thread().len(), gate.dry_runs()), (1, before));
}

#[tokio::test]
async fn a_watcher_that_slept_for_days_tells_each_thing_once() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::start().await;
    requested(&gate, "vpc-two-people").await;
    pass(&gate, hours(6 * 24 + 1), 1).await;
    gate.round().await;
    let thread = gate.card().thread().join("\n");
    assert_eq!(gate.card().thread().len(), 2, "escalation and the end: {thread}");
    assert!(thread.contains("it is not decided") && thread.contains("expires at"), "{thread}");
}

#[tokio::test]
async fn a_tick_renews_a_session_before_anybody_has_to_wait_for_it() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::start().await;
    let role = r#"credentials = { kind = "assume-role", role = "acs:ram::2222222222222222:role/peergate" }"#;
    let config = gate.config.replacen("[targets.prod]\n", &format!("[targets.prod]\n{role}\n"), 1);
    let gate = gate.with_config(&config);
    gate.tick().await;
    assert_eq!(gate.calls("AssumeRole"), 1);
    clock::jump::ahead(SignedDuration::from_mins(39));
    gate.tick().await;
    assert_eq!(gate.calls("AssumeRole"), 1, "21 minutes are left");
    clock::jump::ahead(SignedDuration::from_mins(2));
    gate.tick().await;
    assert_eq!(gate.calls("AssumeRole"), 2, "19 minutes are left: four before anybody would have to wait");
}

#[tokio::test]
async fn a_chat_platform_that_is_down_for_a_day_hears_everything_once_and_in_order() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.sink.trouble(Trouble { path: HOOK.into(), status: 503, ..Trouble::default() });
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "accepted");
    pass(&gate, hours(24), 12).await;
    assert_eq!(gate.state(&id).await, "activated", "nothing else waits for it");
    assert!(gate.headlines(HOOK).is_empty());
    gate.sink.heal();
    clock::jump::ahead(SignedDuration::from_mins(5));
    gate.tick().await;
    let headlines = gate.headlines(HOOK);
    assert_eq!(headlines.len(), 3, "{headlines:?}");
    for (headline, part) in headlines.iter().zip([" approved ", " was accepted ", " is Activated"]) {
        assert!(headline.contains(part), "{headlines:?}");
    }
    pass(&gate, hours(2), 4).await;
    assert_eq!(gate.headlines(HOOK), headlines);
}

#[tokio::test]
async fn an_hour_of_throttling_delays_what_was_decided_and_is_told() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let (action, code) = (Some("AcceptVpcPeerConnection".into()), Some("Throttling.User".into()));
    gate.simulator.fault(Fault { action, code, times: u32::MAX, ..Fault::default() });
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "underway");
    pass(&gate, hours(1), 10).await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("approved", 0));
    assert!(gate.headlines(HOOK).iter().any(|told| told.contains("could not be carried out yet")));
    gate.simulator.heal();
    clock::jump::ahead(SignedDuration::from_mins(2));
    gate.tick().await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("activated", 1));
}

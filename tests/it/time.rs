//! What takes days: reminders, escalation, expiry and activations that are stuck.

use crate::support::prelude::*;

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

/// Lets time pass, with `looks` rounds.
async fn pass(app: &TestApp, time: SignedDuration, looks: i32) {
    for _ in 0..looks {
        clock::jump::advance_in_thread(time / looks);
        app.round().await;
    }
}

#[tokio::test]
async fn undecided_request_is_reminded_ever_less_often() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    pass(&app, hours(3), 6).await;
    assert!(app.only_card().thread_headlines().is_empty());
    pass(&app, hours(25), 25).await;
    let waited = |time: &str| {
        format!("VPC peering prod/{id} has been pending for {time}: alice, bob or carol must approve or reject it")
    };
    assert_eq!(app.only_card().thread_headlines(), [waited("4 h"), waited("12 h"), waited("1 d 4 h")]);
    assert!(app.only_card().replies.iter().all(|reply| reply.broadcast), "seen in the channel, too");
    assert!(app.only_card().replies[0].text.contains("Still needed: 2 of alice, bob, carol"));
    assert!(app.slack.messages_in("C0CALL").is_empty());
}

#[tokio::test]
async fn escalation_brings_the_card_to_another_channel() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    pass(&app, hours(28), 7).await;
    assert!(app.slack.messages_in("C0CALL").is_empty());
    pass(&app, hours(4), 8).await;
    let thread = app.only_card().thread_headlines().join("\n");
    assert!(
        thread.contains(&format!(
            "VPC peering prod/{id} has been undecided for 1 d 6 h: alice, bob or carol must approve or reject it"
        )),
        "{thread}"
    );
    let other = app.card_in("C0CALL");
    assert_eq!(other.button_labels(), ["Approve", "Reject", "Details"], "others get the card as well: {}", other.text);
    assert_eq!(other.replies.len(), 1);

    // People decide on either card; both show the end.
    app.click_button(&other, "Approve", ALICE).await;
    app.click_button(&app.only_card(), "Approve", CAROL).await;
    app.follow().await;
    for channel in ["C0PEER", "C0CALL"] {
        assert!(app.card_in(channel).text.contains("is Activated"), "{}", app.card_in(channel).text);
    }
}

#[tokio::test]
async fn unanswered_request_warns_before_expiry_and_reports_it() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    pass(&app, hours(6 * 24 + 1), 100).await;
    let thread = app.only_card().thread_headlines().join("\n");
    assert_eq!(thread.matches("expires at").count(), 1, "{thread}");
    assert!(thread.contains("alice or bob must approve or reject it"), "{thread}");
    pass(&app, hours(24), 20).await;
    app.assert_state(&id, "expired").await;
    let card = app.only_card();
    assert!(card.text.starts_with(&format!("VPC peering prod/{id} has expired\n")), "{}", card.text);
    assert!(card.button_labels().is_empty());
    assert!(
        app.posted_headlines(WEBHOOK_PATH).last().unwrap().contains("has expired: nobody accepted it within 7 days")
    );
    let reply = app.approve(&id, "alice").await;
    assert_eq!((reply.name().as_str(), app.count_accepts(&id)), ("expired", 0));
    assert!(reply.problem_detail().contains("Too late"), "{}", reply.problem_detail());
}

#[tokio::test]
async fn slow_activation_is_reported_once_and_still_followed() {
    let app =
        TestApp::with_settings(SimulatorSettings { activation_delay: Duration::from_hours(1), ..quick_settings() })
            .await;
    let id = app.discovered_request("vpc-other").await;
    app.click_button(&app.only_card(), "Approve", BOB).await;
    pass(&app, SignedDuration::from_mins(9), 3).await;
    assert!(!app.only_card().thread_headlines().join("\n").contains("too long"));
    pass(&app, SignedDuration::from_mins(30), 10).await;
    let thread = app.only_card().thread_headlines().join("\n");
    assert_eq!(thread.matches("is still being activated after 12 min ").count(), 1, "{thread}");
    pass(&app, SignedDuration::from_mins(30), 10).await;
    app.assert_state(&id, "activated").await;
}

#[tokio::test]
async fn people_are_reminded_during_an_alibaba_cloud_outage() {
    let app = TestApp::start().await;
    app.discovered_request("vpc-other").await;
    app.simulator.add_fault(Fault {
        code: Some("ServiceUnavailable".into()),
        http_status: 503,
        times: 999,
        ..Fault::default()
    });
    pass(&app, hours(5), 10).await;
    assert_eq!(app.only_card().thread_headlines().len(), 1, "{:?}", app.only_card().thread_headlines());
}

#[tokio::test]
async fn failing_check_is_retried_ever_less_often() {
    let app = TestApp::start().await;
    app.simulator.add_fault(Fault { times: 999, dry_run: true, ..failure(ACCEPT, "Forbidden.RAM") });
    app.discovered_request("vpc-other").await;
    pass(&app, SignedDuration::from_mins(10), 10).await;
    assert!(app.count_dry_runs() >= 5, "soon at first: {}", app.count_dry_runs());
    let before = app.count_dry_runs();
    pass(&app, hours(24), 24 * 6).await;
    assert!((20..60).contains(&(app.count_dry_runs() - before)), "{} in a day", app.count_dry_runs() - before);
}

#[tokio::test]
async fn reminder_repeats_no_passed_check() {
    let app = TestApp::start().await;
    app.discovered_request("vpc-other").await;
    let before = app.count_dry_runs();
    pass(&app, hours(5), 5).await;
    assert_eq!((app.only_card().thread_headlines().len(), app.count_dry_runs()), (1, before));
}

#[tokio::test]
async fn delayed_watcher_sends_each_notification_once() {
    let app = TestApp::start().await;
    app.discovered_request("vpc-two-people").await;
    pass(&app, hours(6 * 24 + 1), 1).await;
    app.round().await;
    let thread = app.only_card().thread_headlines().join("\n");
    assert_eq!(app.only_card().thread_headlines().len(), 2, "escalation and the end: {thread}");
    assert!(thread.contains("has been undecided") && thread.contains("expires at"), "{thread}");
}

#[tokio::test]
async fn tick_renews_a_session_before_anybody_waits_for_it() {
    let app = TestApp::start().await;
    let role = r#"credentials = { kind = "assume-role", role = "acs:ram::2222222222222222:role/peergate" }"#;
    let config = app.config.replacen("[targets.prod]\n", &format!("[targets.prod]\n{role}\n"), 1);
    let app = app.with_config(&config);
    app.follow().await;
    assert_eq!(app.count_calls("AssumeRole"), 1);
    clock::jump::advance_in_thread(SignedDuration::from_mins(39));
    app.follow().await;
    assert_eq!(app.count_calls("AssumeRole"), 1, "21 minutes are left");
    clock::jump::advance_in_thread(SignedDuration::from_mins(2));
    app.follow().await;
    assert_eq!(app.count_calls("AssumeRole"), 2, "19 minutes are left: four before anybody would have to wait");
}

#[tokio::test]
async fn platform_down_for_a_day_hears_everything_once_in_order() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.slack.add_outage(Outage { path: WEBHOOK_PATH.into(), status: 503, ..Outage::default() });
    assert_eq!(app.approve(&id, "alice").await.name(), "accepted");
    pass(&app, hours(24), 12).await;
    // Nothing else waits for it.
    app.assert_state(&id, "activated").await;
    assert!(app.posted_headlines(WEBHOOK_PATH).is_empty());
    app.slack.clear_outages();
    clock::jump::advance_in_thread(SignedDuration::from_mins(5));
    app.follow().await;
    let headlines = app.posted_headlines(WEBHOOK_PATH);
    assert_eq!(headlines.len(), 3, "{headlines:?}");
    for (headline, part) in headlines.iter().zip([" approved ", " was accepted ", " is Activated"]) {
        assert!(headline.contains(part), "{headlines:?}");
    }
    pass(&app, hours(2), 4).await;
    assert_eq!(app.posted_headlines(WEBHOOK_PATH), headlines);
}

#[tokio::test]
async fn long_throttling_delays_a_decision_and_is_reported() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let (action, code) = (Some(ACCEPT.into()), Some("Throttling.User".into()));
    app.simulator.add_fault(Fault { action, code, times: u32::MAX, ..Fault::default() });
    assert_eq!(app.approve(&id, "alice").await.name(), "underway");
    pass(&app, hours(1), 4).await;
    app.assert_state(&id, "approved").await;
    app.assert_accepts(&id, 0);
    assert!(app.posted_headlines(WEBHOOK_PATH).iter().any(|line| line.contains("but peergate cannot accept it yet")));
    app.simulator.clear_faults();
    clock::jump::advance_in_thread(SignedDuration::from_mins(2));
    app.follow().await;
    app.assert_state(&id, "activated").await;
    app.assert_accepts(&id, 1);
}

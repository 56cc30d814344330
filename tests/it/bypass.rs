//! Connections that somebody accepts outside peergate.

use crate::support::prelude::*;
use peergate::approval::History;
use peergate::fake::slack::SlackReply;
use peergate::metrics;

/// The Slack channel of an escalation.
const ON_CALL: &str = "C0CALL";

/// The alarms below the only card of a Slack channel.
fn alarms_in(app: &TestApp, channel: &str) -> Vec<SlackReply> {
    let cards = app.slack.messages_in(channel);
    let replies = cards.into_iter().flat_map(|card| card.replies);
    replies.filter(|reply| reply.text.contains("was accepted outside peergate")).collect()
}

/// The types of the events that the auditors receive.
fn audit_events(app: &TestApp) -> Vec<String> {
    app.slack.posts("/audit").iter().map(|post| post.body_json()["type"].as_str().unwrap().to_owned()).collect()
}

/// Somebody accepts in the console, and the watcher looks.
async fn accept_outside(app: &TestApp, id: &InstanceId) {
    app.set_status(id, "Activated");
    app.discover().await;
    app.discover().await;
}

async fn assert_verifies(app: &TestApp, id: &InstanceId) {
    let record = app.approval(id).await;
    let stored = serde_json::to_value(&record).unwrap();
    assert_eq!(History::verify(&record.id().to_string(), &stored), Ok(()));
}

#[tokio::test]
async fn accept_outside_peergate_is_an_alarm() {
    let (app, counted) = (TestApp::start().await, MetricsRecorder::start());
    let id = app.discovered_request("vpc-two-people").await;
    assert_eq!(app.approve(&id, "alice").await.name(), "counted");
    accept_outside(&app, &id).await;
    let alarms = alarms_in(&app, CHANNEL);
    let headline = format!("⚠ VPC peering prod/{id} was accepted outside peergate; 1 of 2 had approved");
    assert!(alarms.len() == 1 && alarms[0].broadcast && alarms[0].text.starts_with(&headline), "{alarms:?}");
    assert!(alarms[0].text.contains("docs/deploy.md, “Nobody else accepts”"), "{alarms:?}");
    let card = app.card_in(CHANNEL);
    assert!(card.text.starts_with(&format!("⚠ VPC peering prod/{id} is Activated, but was accepted outside peergate")));
    assert_eq!(card.button_labels(), Vec::<&str>::new());
    assert_eq!(alarms_in(&app, ON_CALL).len(), 1, "also the channel of the escalation hears");
    let events = audit_events(&app);
    assert!(events.contains(&"peering.bypassed".to_owned()) && !events.contains(&"peering.accepted".to_owned()));
    let counts = counted.take_counts();
    assert_eq!((&counts[metrics::BYPASSES], sum_counts(&counts, metrics::ACTIVATIONS)), (&vec![1.0], 0.0));
    app.assert_accepts(&id, 0);
    assert_verifies(&app, &id).await;
    assert!(logged().contains("outcome=\"bypassed\""), "{}", logged());
}

#[tokio::test]
async fn accept_outside_before_our_call_is_an_alarm() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    app.approve(&id, "alice").await;
    app.fail_times(9, ACCEPT, "Forbidden.RAM");
    app.approve(&id, "bob").await;
    app.assert_state(&id, "approved").await;
    app.set_status(&id, "Activated");
    app.make_due(&id).await;
    app.round().await;
    app.assert_state(&id, "activated").await;
    let alarms = alarms_in(&app, CHANNEL);
    assert!(alarms.len() == 1 && alarms[0].text.contains("; 2 of 2 had approved"), "{alarms:?}");
    assert!(alarms[0].text.contains("An earlier call of peergate may also have taken effect late"), "{alarms:?}");
}

#[tokio::test]
async fn own_accept_is_no_bypass() {
    let (app, counted) = (TestApp::start().await, MetricsRecorder::start());
    for lost in [false, true] {
        let id = app.new_request().await;
        app.discover().await;
        if lost {
            app.lose_next_accept_reply();
        }
        app.approve(&id, "alice").await;
        app.make_due(&id).await;
        clock::jump::advance_in_thread(SignedDuration::from_mins(1));
        app.discover().await;
        app.follow().await;
        app.assert_state(&id, "activated").await;
    }
    assert_eq!((alarms_in(&app, CHANNEL).len(), sum_counts(&counted.take_counts(), metrics::BYPASSES)), (0, 0.0));
}

#[tokio::test]
async fn accept_outside_after_a_rejection_is_an_alarm() {
    let (app, counted) = (TestApp::start().await, MetricsRecorder::start());
    let id = app.discovered_request("vpc-two-people").await;
    assert_eq!(app.reject(&id, "alice").await.name(), "rejected");
    accept_outside(&app, &id).await;
    let alarms = alarms_in(&app, CHANNEL);
    assert!(alarms.len() == 1 && alarms[0].text.contains("; alice had rejected it"), "{alarms:?}");
    assert_eq!(counted.take_counts()[metrics::BYPASSES], [1.0]);
}

#[tokio::test]
async fn accept_outside_before_our_reject_is_an_alarm() {
    let (app, counted) = (TestApp::start().await, MetricsRecorder::start());
    let id = app.discovered_request("vpc-two-people").await;
    app.fail_times(9, REJECT, "ServiceUnavailable");
    app.reject(&id, "alice").await;
    app.assert_state(&id, "rejecting").await;
    app.set_status(&id, "Activated");
    app.make_due(&id).await;
    app.round().await;
    app.assert_state(&id, "failed").await;
    let thread = app.slack.messages_in(ON_CALL).remove(0).thread_headlines().join("\n");
    assert!(thread.contains("could not be rejected: somebody accepted it outside peergate"), "{thread}");
    let alarm = app.card_in(CHANNEL).replies.pop().unwrap();
    assert!(alarm.broadcast && alarm.text.contains("“Nobody else accepts”"), "{alarm:?}");
    assert_eq!(counted.take_counts()[metrics::BYPASSES], [1.0]);
}

/// An app that has surveyed its region a minute ago.
async fn surveyed() -> TestApp {
    let app = TestApp::start().await;
    app.discover().await;
    clock::jump::advance_in_thread(SignedDuration::from_mins(1));
    app
}

/// A connection that was requested and accepted outside before the watcher looked.
async fn accepted_unseen(app: &TestApp, more: &[(&str, &str)]) -> InstanceId {
    let id = app.request_peering(more).await.unwrap();
    app.set_status(&id, "Activated");
    id
}

#[tokio::test]
async fn connection_that_was_never_shown_is_an_alarm() {
    // Another process made the first survey.
    let (app, counted) = (surveyed().await.restart_app(), MetricsRecorder::start());
    let id = accepted_unseen(&app, &[("AcceptingVpcId", "vpc-two-people")]).await;
    app.discover().await;
    app.discover().await;
    app.assert_state(&id, "activated").await;
    let alarms = alarms_in(&app, CHANNEL);
    let headline = format!("⚠ VPC peering prod/{id} was accepted outside peergate before peergate knew of it");
    assert!(alarms.len() == 1 && alarms[0].broadcast && alarms[0].text.starts_with(&headline), "{alarms:?}");
    assert_eq!(app.card_in(CHANNEL).button_labels(), Vec::<&str>::new());
    assert_eq!(audit_events(&app), ["peering.bypassed", "peering.activated"]);
    assert_eq!(counted.take_counts()[metrics::BYPASSES], [1.0]);
    assert_verifies(&app, &id).await;
    assert_eq!(app.approve(&id, "alice").await.status, 409, "nothing is left to decide");
    app.assert_accepts(&id, 0);
}

#[tokio::test]
async fn connections_that_need_no_decision_are_no_alarm() {
    let app = TestApp::start().await;
    let before = accepted_unseen(&app, &[]).await;
    app.discover().await;
    clock::jump::advance_in_thread(SignedDuration::from_mins(1));
    let same_account = accepted_unseen(&app, &[]).await;
    app.simulator.disguise(same_account.as_str(), &[("OwnerId", "2222222222222222")]);
    let service = accepted_unseen(&app, &[]).await;
    app.simulator.disguise(service.as_str(), &[("ManagedService", "\"SWAS\"")]);
    let undated = accepted_unseen(&app, &[]).await;
    app.simulator.disguise(undated.as_str(), &[("GmtCreate", "null")]);
    let old = accepted_unseen(&app, &[]).await;
    clock::jump::advance_in_thread(app.parts.store.retention());
    app.discover().await;
    for id in [before, same_account, service, undated, old] {
        assert!(app.load_record(&id).await.is_none(), "{id}");
    }
    assert_eq!(app.slack.posts(SLACK_PATH).len(), 0);
}

#[tokio::test]
async fn outdated_list_raises_no_alarm() {
    let app = surveyed().await;
    let id = app.new_request().await;
    app.show_status(&id, "Activated");
    app.fail_times(1, GET, "ServiceUnavailable");
    app.discover().await;
    assert!(app.load_record(&id).await.is_none(), "the reading failed");
    app.simulator.clear_faults();
    // The list shows it as active once more, but a reading does not.
    app.show_status(&id, "-");
    app.discover().await;
    app.assert_state(&id, "pending").await;
    assert_eq!(alarms_in(&app, CHANNEL).len(), 0);
}

#[tokio::test]
async fn connection_that_is_listed_before_its_activation_is_an_alarm() {
    let app = surveyed().await;
    let id = app.new_request().await;
    app.set_status(&id, "Updating");
    app.discover().await;
    assert!(app.load_record(&id).await.is_none(), "it may be anything");
    app.set_status(&id, "Activated");
    app.discover().await;
    assert_eq!(alarms_in(&app, CHANNEL).len(), 1);
}

#[tokio::test]
async fn unknown_time_of_the_first_survey_only_delays_an_alarm() {
    let (app, table) = TableProxy::start(quick_settings()).await;
    app.discover().await;
    clock::jump::advance_in_thread(SignedDuration::from_mins(1));
    let app = app.restart_app();
    let id = accepted_unseen(&app, &[]).await;
    table.refuse_operation("PutItem");
    app.discover().await;
    table.allow_all_operations();
    assert!(app.load_record(&id).await.is_none());
    app.discover().await;
    assert_eq!(alarms_in(&app, CHANNEL).len(), 1);
}

#[tokio::test]
async fn requests_of_the_same_account_delay_no_alarm() {
    let app = surveyed().await;
    let mut ids = vec![];
    for number in 0..22 {
        ids.push(app.request_peering(&[("VpcId", &format!("vpc-requester-{number}"))]).await.unwrap());
    }
    app.discover().await;
    app.follow().await;
    assert_eq!(app.slack.messages_in(CHANNEL).len(), 20 + 1, "the cards of an hour, and the digest");
    let has_card = |id: &InstanceId| app.slack.messages_in(CHANNEL).iter().any(|card| card.text.contains(id.as_str()));
    let waiting = ids.iter().find(|id| !has_card(id) || app.slack.messages_in(CHANNEL).len() < 2).cloned();
    let unseen = accepted_unseen(&app, &[("VpcId", "vpc-requester-99")]).await;
    let known = waiting.unwrap_or_else(|| ids[21].clone());
    app.set_status(&known, "Activated");
    app.discover().await;
    app.follow().await;
    let alarms = alarms_in(&app, CHANNEL);
    for id in [known, unseen] {
        assert!(alarms.iter().any(|alarm| alarm.text.contains(id.as_str())), "{id}: {alarms:?}");
    }
}

#[tokio::test]
async fn accept_outside_after_too_many_changes_is_an_alarm() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    for mbps in 0..21 {
        app.set_bandwidth(&id, 100 + mbps);
        app.discover().await;
    }
    app.assert_state(&id, "failed").await;
    accept_outside(&app, &id).await;
    app.assert_state(&id, "activated").await;
    assert_eq!(alarms_in(&app, CHANNEL).len(), 1);
    assert_verifies(&app, &id).await;
}

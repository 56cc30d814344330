//! Activated connections are followed for life: what is not as approved is told, acknowledged or undone.

use crate::support::prelude::*;
use peergate::approval::{
    Approver, AuditEvent, Decision, DecisionError, Event, FollowedReading, History, Principal, Review, Verdict,
};
use peergate::chat::EventSpec;
use peergate::peering::{Connection, Status};

const GET: &str = "GetVpcPeerConnectionAttribute";

/// An activated connection whose channels have heard everything.
pub async fn activated(app: &TestApp, vpc: &str, approvers: &[&str]) -> InstanceId {
    let id = app.discovered_request(vpc).await;
    for approver in approvers {
        app.approve(&id, approver).await;
    }
    clock::jump::advance_in_thread(SignedDuration::from_secs(5));
    app.follow().await;
    app.assert_state(&id, "activated").await;
    id
}

/// Lets a minute pass, with a scheduled tick at its end.
pub async fn minutes(app: &TestApp, minutes: i64) {
    for _ in 0..minutes {
        clock::jump::advance_in_thread(SignedDuration::from_secs(61));
        app.discover().await;
    }
}

/// The record follows from its history.
async fn assert_proven(app: &TestApp, id: &InstanceId) {
    let record = serde_json::to_value(app.approval(id).await).unwrap();
    History::verify(&format!("prod/{id}"), &record).unwrap();
}

fn last_reply(app: &TestApp) -> String {
    app.thread_replies().last().cloned().unwrap_or_default()
}

#[tokio::test]
async fn change_of_an_active_peering_is_told_and_acknowledged() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-two-people", &["alice", "bob"]).await;
    let approved = app.approval(&id).await.fingerprint().clone();
    app.set_bandwidth(&id, 2048);
    minutes(&app, 1).await;
    let reply = last_reply(&app);
    assert!(reply.contains("is not as approved any more: bandwidth"), "{reply}");
    assert!(reply.contains("DeleteVpcPeerConnection --region cn-shanghai"), "{reply}");
    let card = app.only_card();
    assert!(card.text.contains("acknowledge the change of active VPC peering"), "{}", card.text);
    assert!(card.text.contains("bandwidth: 1024 Mbit/s → 2048 Mbit/s"), "{}", card.text);
    assert_eq!(card.button_labels(), ["Acknowledge", "Details"]);

    for (who, stands) in [("U061F7AUR", "1 of 2"), ("U0BOB", "")] {
        let answer = app.click_button(&app.only_card(), "Acknowledge", who).await;
        assert_eq!(answer.status, 200);
        app.round().await;
        assert_proven(&app, &id).await;
        assert!(last_reply(&app).contains("acknowledged the change"), "{}", last_reply(&app));
        assert!(app.only_card().text.contains(stands), "{}", app.only_card().text);
    }
    let record = app.approval(&id).await;
    assert_eq!((record.drift(), record.facts().bandwidth_mbps), (None, Some(2048)));
    assert_ne!(*record.fingerprint(), approved);
    assert!(app.only_card().text.contains("is Activated"), "{}", app.only_card().text);
    assert_eq!(app.only_card().button_labels(), Vec::<String>::new());
    let told = app.thread_replies().len();
    minutes(&app, 3).await;
    assert_eq!(app.thread_replies().len(), told);
}

#[tokio::test]
async fn unchanged_active_peerings_cost_no_call_and_no_write() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    minutes(&app, 1).await;
    let (calls, version) = (app.count_calls(GET), app.load_record(&id).await.unwrap().version);
    minutes(&app, 5).await;
    assert_eq!(app.count_calls(GET), calls);
    assert_eq!(app.load_record(&id).await.unwrap().version, version);
}

#[tokio::test]
async fn undone_change_is_told_too() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.set_bandwidth(&id, 5);
    minutes(&app, 1).await;
    app.set_bandwidth(&id, 1024);
    minutes(&app, 1).await;
    assert!(last_reply(&app).contains("was undone"), "{}", last_reply(&app));
    assert_eq!(app.approval(&id).await.drift(), None);
    assert!(app.only_card().text.contains("is Activated"), "{}", app.only_card().text);
    assert_proven(&app, &id).await;
}

#[tokio::test]
async fn list_alone_tells_no_change() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    let told = app.thread_replies().len();
    // The list shows the change, and the reading that follows does not.
    app.simulator.disguise(id.as_str(), &[("Bandwidth", "7")]);
    app.simulator.add_fault(Fault {
        action: Some(GET.into()),
        code: Some("Throttling.User".into()),
        ..Fault::default()
    });
    app.discover().await;
    assert_eq!(app.thread_replies().len(), told);
}

#[tokio::test]
async fn passing_status_of_an_active_peering_tells_nothing() {
    for status in ["Updating", "Deleting", "Accepting", "Rejected", "Expired", "Paused"] {
        let app = TestApp::start().await;
        let id = activated(&app, "vpc-other", &["alice"]).await;
        let told = app.thread_replies().len();
        app.show_status(&id, status);
        minutes(&app, 4).await;
        app.show_status(&id, "-");
        minutes(&app, 2).await;
        assert_eq!((app.state_of(&id).await.as_str(), app.thread_replies().len()), ("activated", told), "{status}");
    }
}

/// The list shows a change, and the reading after it that an owner is still changing something.
#[tokio::test]
async fn change_is_told_only_when_a_reading_shows_it_complete() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    let told = app.thread_replies().len();
    app.set_bandwidth(&id, 5);
    let answer = app.simulator.shown_answer(id.as_str()).unwrap();
    let raw = answer.replace("\"Activated\"", "\"Updating\"");
    assert_ne!(raw, answer);
    app.simulator.add_fault(Fault { action: Some(GET.into()), raw: Some(raw), http_status: 200, ..Fault::default() });
    minutes(&app, 1).await;
    assert_eq!((app.simulator.pending_faults(), app.thread_replies().len()), (0, told));
    assert!(app.approval(&id).await.drift().is_none());
    minutes(&app, 1).await;
    assert!(last_reply(&app).contains("is not as approved any more: bandwidth"), "{}", last_reply(&app));
    assert_proven(&app, &id).await;
}

#[tokio::test]
async fn lasting_status_of_an_active_peering_is_told_and_acknowledged() {
    for status in ["Updating", "Paused"] {
        let app = TestApp::start().await;
        let id = activated(&app, "vpc-other", &["alice"]).await;
        let told = app.thread_replies().len();
        app.show_status(&id, status);
        minutes(&app, 55).await;
        assert_eq!(app.thread_replies().len(), told, "{status}");
        let gets = app.count_calls(GET);
        minutes(&app, 70).await;
        let reply = last_reply(&app);
        assert!(reply.contains("is not as approved any more: status"), "{reply}");
        assert!(app.only_card().text.contains(&format!("status: Activated → {status}")), "{}", app.only_card().text);
        assert_eq!(app.thread_replies().len(), told + 1, "once");
        assert!(app.count_calls(GET) - gets < 5, "{}", app.count_calls(GET) - gets);
        assert_eq!(app.click_button(&app.only_card(), "Acknowledge", "U061F7AUR").await.status, 200);
        minutes(&app, 70).await;
        assert!(app.approval(&id).await.drift().is_none(), "{status}");
        let told = app.thread_replies().len();
        app.show_status(&id, "-");
        minutes(&app, 3).await;
        assert_eq!((app.state_of(&id).await.as_str(), app.thread_replies().len()), ("activated", told), "{status}");
        app.show_status(&id, status);
        minutes(&app, 65).await;
        assert!(last_reply(&app).contains("is not as approved any more: status"), "it begins anew");
        app.show_status(&id, "-");
        minutes(&app, 2).await;
        assert!(last_reply(&app).contains("was undone"), "{}", last_reply(&app));
        assert_proven(&app, &id).await;
    }
}

/// A reminder is due while the connection has changed again, and too often to be told.
#[tokio::test]
async fn reminder_during_a_flood_reads_nothing_more() {
    let app = TestApp::start().await;
    let app = app.with_change("\"data team\"\ntarget", "\"data team\"\nremind_after = \"20m\"\ntarget");
    let id = activated(&app, "vpc-other", &["alice"]).await;
    for mbps in 5..=11 {
        app.set_bandwidth(&id, mbps);
        minutes(&app, 1).await;
    }
    assert_eq!(app.approval(&id).await.drift().unwrap().changes[0].after, "10 Mbit/s", "the seventh is told later");
    clock::jump::advance_in_thread(SignedDuration::from_mins(25));
    let gets = app.count_calls(GET);
    for _ in 0..20 {
        app.round().await;
    }
    assert!(app.count_calls(GET) - gets < 4, "{}", app.count_calls(GET) - gets);
}

/// The peering does not show it, and the requester has the same addresses.
#[tokio::test]
async fn hidden_block_of_our_vpc_is_checked_for_an_overlap() {
    let app = app_that_reads_vpcs().await;
    activated(&app, "vpc-other", &["alice"]).await;
    minutes(&app, 1).await;
    app.simulator.hide_cidrs("vpc-other", ["10.0.0.128/25".parse().unwrap()].into());
    clock::jump::advance_in_thread(SignedDuration::from_hours(6));
    minutes(&app, 2).await;
    let card = app.only_card().text;
    assert!(
        card.contains("10.0.0.128/25") && card.contains("the requester's 10.0.0.0/24 contains our 10.0.0.128/25"),
        "{card}"
    );
}

/// Our VPC was read between the click and the write.
#[tokio::test]
async fn acknowledgment_takes_only_what_its_sender_saw() {
    let app = app_that_reads_vpcs().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.set_bandwidth(&id, 5);
    minutes(&app, 2).await;
    let mut record = app.approval(&id).await;
    let connection = record.connection().clone();
    let drift = record.drift().unwrap().fingerprint.clone();
    let own_vpc = Some(["10.0.1.0/24", "172.16.0.0/16"].map(|it| it.parse().unwrap()).into());
    let away = Connection { status: Status::Updating, ..connection.clone() };
    let reading = FollowedReading { connection: away, own_vpc, policy: record.policy().clone(), findings: vec![] };
    record.apply_event(&Event::Followed(Box::new(reading)), clock::now());
    assert_eq!(record.drift().unwrap().fingerprint, drift, "nothing is told while an owner changes it");
    let approval_id = record.id().clone();
    let by = Approver { principal: Principal::new("webhook", "ci", "alice").unwrap(), person: None, name: None };
    let policy = record.policy().clone();
    let eligible_approver = |_: &Principal| Some(by.clone());
    let (id, connection, policy, findings) = (&approval_id, &connection, &policy, &[]);
    let review = Review { id, connection, policy, findings, eligible_approver: &eligible_approver };
    let decision = Decision {
        verdict: Verdict::Approve,
        by: by.clone(),
        at: clock::now(),
        fingerprint: drift,
        reason: None,
        request_key: "k".into(),
        request_content: None,
    };
    assert_eq!(record.acknowledge_drift(&review, decision), Err(DecisionError::FactsChanged));
}

/// Our VPC says nothing of the status of the peering.
#[tokio::test]
async fn reading_of_our_vpc_ends_no_other_status() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.show_status(&id, "Paused");
    minutes(&app, 40).await;
    let app = reading_vpcs(app);
    minutes(&app, 25).await;
    assert_eq!(app.count_calls(DESCRIBE), 1);
    assert!(last_reply(&app).contains("is not as approved any more: status"), "{}", last_reply(&app));
}

/// A lasting status hides no further change.
#[tokio::test]
async fn change_under_a_lasting_status_is_told() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.show_status(&id, "Paused");
    minutes(&app, 65).await;
    assert_eq!(app.click_button(&app.only_card(), "Acknowledge", "U061F7AUR").await.status, 200);
    minutes(&app, 2).await;
    assert!(app.approval(&id).await.drift().is_none());
    app.set_bandwidth(&id, 5);
    minutes(&app, 2).await;
    assert!(last_reply(&app).contains("is not as approved any more: bandwidth"), "{}", last_reply(&app));
    assert_eq!(app.click_button(&app.only_card(), "Acknowledge", "U061F7AUR").await.status, 200);
    assert!(app.approval(&id).await.drift().is_none());
}

/// Six changes of the peering in an hour delay what our VPC shows. They do not lose it.
#[tokio::test]
async fn changed_vpc_is_told_after_a_flood() {
    let app = app_that_reads_vpcs().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    minutes(&app, 1).await;
    clock::jump::advance_in_thread(SignedDuration::from_hours(5) + SignedDuration::from_mins(50));
    for mbps in [5, 1024, 5, 1024, 5, 1024] {
        app.set_bandwidth(&id, mbps);
        minutes(&app, 1).await;
    }
    app.simulator.hide_cidrs("vpc-other", ["172.16.0.0/16".parse().unwrap()].into());
    minutes(&app, 10).await;
    assert!(app.approval(&id).await.drift().is_none());
    clock::jump::advance_in_thread(SignedDuration::from_hours(6));
    minutes(&app, 3).await;
    assert!(last_reply(&app).contains("CIDR blocks of the accepting VPC itself"), "{}", last_reply(&app));
}

/// While an owner changes it again, people are still reminded, and nothing is read more often.
#[tokio::test]
async fn passing_status_stops_no_reminder() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.set_bandwidth(&id, 5);
    minutes(&app, 2).await;
    app.show_status(&id, "Updating");
    let (gets, told) = (app.count_calls(GET), app.thread_replies().len());
    for _ in 0..30 {
        clock::jump::advance_in_thread(SignedDuration::from_hours(1));
        app.discover().await;
        app.round().await;
    }
    assert!(app.count_calls(GET) - gets < 10, "{}", app.count_calls(GET) - gets);
    assert!(
        app.thread_replies()[told..].iter().any(|it| it.contains("Nobody has decided")),
        "{:?}",
        app.thread_replies()
    );
}

#[tokio::test]
async fn deletion_is_told_with_the_time_it_lived() {
    for gone in [becomes("Deleted"), shows("Missing"), shows("Deleted")] {
        let app = TestApp::start().await;
        let id = activated(&app, "vpc-other", &["alice"]).await;
        clock::jump::advance_in_thread(SignedDuration::from_hours(5 * 24));
        app.tamper(&id, gone.clone());
        app.discover().await;
        app.assert_state(&id, "activated").await;
        minutes(&app, 3).await;
        app.assert_state(&id, "deleted").await;
        assert!(last_reply(&app).contains("was deleted after it had been active for 5 d"), "{}", last_reply(&app));
        assert_proven(&app, &id).await;
    }
}

#[tokio::test]
async fn peering_that_is_missing_once_lives_on() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    let told = app.thread_replies().len();
    app.show_status(&id, "Missing");
    app.discover().await;
    assert!(app.approval(&id).await.unconfirmed().is_some());
    app.show_status(&id, "-");
    minutes(&app, 3).await;
    let record = app.approval(&id).await;
    assert_eq!((record.state().name(), record.unconfirmed(), record.next_step_at()), ("activated", None, None));
    assert_eq!(app.thread_replies().len(), told);
}

#[tokio::test]
async fn only_approvers_acknowledge_and_only_what_they_saw() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-two-people", &["alice", "bob"]).await;
    assert_eq!(app.send_event("acknowledge", &id, "alice").await.name(), "nothing-to-acknowledge");
    app.set_bandwidth(&id, 2048);
    minutes(&app, 1).await;
    let seen = app.approval(&id).await.drift().unwrap().fingerprint.to_string();
    let spec = |actor: &str, fingerprint: Option<&str>| EventSpec {
        fingerprint: fingerprint.map(ToOwned::to_owned),
        ..app.blind_spec("acknowledge", &id, actor)
    };
    assert_eq!(app.send_spec(&spec("mallory", Some(&seen))).await.name(), "not-an-approver");
    assert_eq!(app.send_spec(&spec("alice", Some(&"0".repeat(64)))).await.name(), "connection-changed");
    assert_eq!(app.send_spec(&spec("alice", Some(&seen))).await.name(), "acknowledged");
    assert_eq!(app.send_spec(&spec("alice", Some(&seen))).await.name(), "repeated");
    // It changes again before Bob acknowledges what he saw.
    app.set_bandwidth(&id, 4096);
    assert_eq!(app.send_spec(&spec("bob", Some(&seen))).await.name(), "connection-changed");
    minutes(&app, 1).await;
    let record = app.approval(&id).await;
    assert_eq!(record.acknowledgment_count(), 0, "nobody has seen the second change");
    assert_eq!(record.drift().unwrap().changes[0].after, "4096 Mbit/s");
    assert_proven(&app, &id).await;
}

#[tokio::test]
async fn words_acknowledge_what_the_channel_showed() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.set_bandwidth(&id, 2048);
    minutes(&app, 1).await;
    clock::jump::advance_in_thread(SignedDuration::from_secs(2));
    let answer = app.slash_command(&format!("acknowledge {id} because ticket 7"), "U061F7AUR").await;
    assert_eq!(answer.status, 200);
    let record = app.approval(&id).await;
    assert_eq!(record.drift(), None);
    let reasons = record.history().iter().filter_map(|entry| match &entry.event {
        AuditEvent::DriftAcknowledged { decision, .. } => decision.reason.clone(),
        _ => None,
    });
    assert_eq!(reasons.collect::<Vec<_>>(), ["ticket 7"]);
}

#[tokio::test]
async fn changed_cidrs_are_checked_against_all_peerings() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    let other = app.request_peering(&[("VpcId", "vpc-third"), ("AcceptingVpcId", "vpc-two-people")]).await.unwrap();
    app.discover().await;
    let taken = app.approval(&other).await.facts().requester.cidrs.clone();
    app.tamper(&id, Tampering { requester_cidrs: Some(taken), ..Tampering::default() });
    minutes(&app, 1).await;
    let text = app.card_of(&id).text;
    assert!(text.contains("other peerings of the configured accounts use the same CIDR blocks"), "{text}");
    assert!(text.contains(other.as_str()), "{text}");
}

#[tokio::test]
async fn cidrs_that_are_not_reported_are_no_change() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    let told = app.thread_replies().len();
    app.tamper(&id, Tampering { requester_cidrs: Some([].into()), ..Tampering::default() });
    minutes(&app, 2).await;
    let calls = app.count_calls(GET);
    minutes(&app, 2).await;
    assert_eq!((app.approval(&id).await.drift(), app.thread_replies().len()), (None, told));
    assert_eq!(app.count_calls(GET), calls, "the reading is remembered");
}

#[tokio::test]
async fn locked_business_status_is_a_change() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    let locked = Tampering { business_status: Some("FinancialLocked".into()), ..Tampering::default() };
    app.tamper(&id, locked);
    minutes(&app, 1).await;
    assert!(app.only_card().text.contains("business status: Normal → FinancialLocked"), "{}", app.only_card().text);
}

#[tokio::test]
async fn nobody_is_flooded_by_changes() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    let told = app.thread_replies().len();
    for minute in 0..60 {
        app.set_bandwidth(&id, if minute % 2 == 0 { 5 } else { 1024 });
        clock::jump::advance_in_thread(SignedDuration::from_secs(50));
        app.discover().await;
    }
    assert_eq!(app.thread_replies().len() - told, 6);
    app.set_bandwidth(&id, 6);
    minutes(&app, 70).await;
    let record = app.approval(&id).await;
    assert_eq!(record.drift().unwrap().changes[0].after, "6 Mbit/s", "the last change is told in the end");
    assert_proven(&app, &id).await;
}

#[tokio::test]
async fn forgotten_change_is_remembered_by_reminders() {
    let app = TestApp::start().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.set_bandwidth(&id, 2048);
    minutes(&app, 1).await;
    let told = app.thread_replies().len();
    for _ in 0..24 {
        clock::jump::advance_in_thread(SignedDuration::from_hours(1));
        app.discover().await;
    }
    let reminders: Vec<_> = app
        .thread_replies()
        .into_iter()
        .skip(told)
        .filter(|it| it.contains("Nobody has decided about the change"))
        .collect();
    assert_eq!(reminders.len(), 2, "after 4 and 12 hours: {reminders:?}");
    let entries = app.approval(&id).await.history().len();
    clock::jump::advance_in_thread(SignedDuration::from_hours(40 * 24));
    app.discover().await;
    assert_eq!(app.approval(&id).await.history().len(), entries, "the history does not grow with reminders");
}

#[tokio::test]
async fn other_facts_at_the_activation_need_acknowledgment() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    assert_eq!(app.approve(&id, "alice").await.name(), "accepted");
    app.set_bandwidth(&id, 9);
    app.set_status(&id, "Activated");
    app.follow().await;
    let card = app.only_card();
    assert_eq!(card.button_labels(), ["Acknowledge", "Details"]);
    assert_eq!(app.click_button(&card, "Acknowledge", "U061F7AUR").await.status, 200);
    app.round().await;
    assert_eq!(app.approval(&id).await.drift(), None);
    assert_proven(&app, &id).await;
}

/// Reads our own VPCs, too.
async fn app_that_reads_vpcs() -> TestApp {
    reading_vpcs(TestApp::start().await)
}

pub fn reading_vpcs(app: TestApp) -> TestApp {
    let endpoint = app.config.lines().find_map(|line| line.strip_prefix("endpoint = ")).unwrap().to_owned();
    app.with_change("signature = ", &format!("read_vpcs = true\nvpc_endpoint = {endpoint}\nsignature = "))
}

const DESCRIBE: &str = "DescribeVpcs";

#[tokio::test]
async fn changed_blocks_of_our_own_vpc_are_told() {
    let app = app_that_reads_vpcs().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    minutes(&app, 1).await;
    assert_eq!(app.count_calls(DESCRIBE), 1);
    app.simulator.hide_cidrs("vpc-other", ["172.16.0.0/16".parse().unwrap()].into());
    minutes(&app, 10).await;
    assert_eq!(app.count_calls(DESCRIBE), 1, "each VPC is read at most once in six hours");
    clock::jump::advance_in_thread(SignedDuration::from_hours(6));
    minutes(&app, 2).await;
    assert_eq!(app.count_calls(DESCRIBE), 2);
    let card = app.only_card();
    let change = "CIDR blocks of the accepting VPC itself: 10.0.1.0/24 → 10.0.1.0/24, 172.16.0.0/16";
    assert!(card.text.contains(change), "{}", card.text);
    assert_eq!(app.click_button(&card, "Acknowledge", "U061F7AUR").await.status, 200);
    clock::jump::advance_in_thread(SignedDuration::from_hours(7));
    minutes(&app, 2).await;
    assert_eq!(app.approval(&id).await.drift(), None, "it counts as approved");
    assert_proven(&app, &id).await;
}

#[tokio::test]
async fn own_vpcs_are_read_only_if_configured() {
    let app = TestApp::start().await;
    activated(&app, "vpc-other", &["alice"]).await;
    minutes(&app, 3).await;
    assert_eq!(app.count_calls(DESCRIBE), 0);
}

#[tokio::test]
async fn refused_reading_of_vpcs_is_logged_and_repeated_later() {
    let app = app_that_reads_vpcs().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    let refused = |code: &str| Fault {
        action: Some(DESCRIBE.into()),
        code: Some(code.into()),
        http_status: 403,
        times: 2,
        ..Fault::default()
    };
    app.simulator.add_fault(refused("Forbbiden"));
    minutes(&app, 3).await;
    assert!(app.count_calls(DESCRIBE) <= 2, "a person must act first");
    assert!(logged().contains("could not read our VPCs"));
    app.simulator.clear_faults();
    clock::jump::advance_in_thread(SignedDuration::from_hours(6));
    minutes(&app, 1).await;
    assert!(app.approval(&id).await.own_vpc().is_some());
    app.simulator.add_fault(Fault { http_status: 400, ..refused("Throttling.User") });
    clock::jump::advance_in_thread(SignedDuration::from_hours(7));
    let calls = app.count_calls(DESCRIBE);
    minutes(&app, 4).await;
    assert!(app.count_calls(DESCRIBE) > calls + 2, "a throttled call is repeated");
}

#[tokio::test]
async fn call_reads_twenty_vpcs() {
    let app = TestApp::start().await;
    for number in 0..25 {
        let (theirs, ours) = (format!("vpc-far-{number}"), format!("vpc-near-{number}"));
        let id = app.request_peering(&[("VpcId", &theirs), ("AcceptingVpcId", &ours)]).await.unwrap();
        app.discover().await;
        app.approve(&id, "alice").await;
    }
    clock::jump::advance_in_thread(SignedDuration::from_secs(5));
    app.follow().await;
    let app = reading_vpcs(app);
    minutes(&app, 1).await;
    let journal = app.simulator.journal();
    let asked: Vec<_> = journal.iter().filter(|entry| entry.action == DESCRIBE).collect();
    let counts = asked.iter().map(|entry| entry.parameters["VpcId"].split(',').count());
    assert_eq!(counts.collect::<Vec<_>>(), [20, 5]);
}

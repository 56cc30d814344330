//! Channels hear the truth: transient readings change nothing, and a wrong notification is corrected.

use crate::support::prelude::*;
use peergate::approval::{ApprovalState, AuditEvent, Event};
use peergate::fake::alicloud::JournalEntry;

/// Lets a minute pass, with a scheduled tick at its end.
async fn minutes(app: &TestApp, minutes: i64) {
    for _ in 0..minutes {
        clock::jump::advance_in_thread(SignedDuration::from_secs(61));
        app.discover().await;
    }
}

async fn approved(app: &TestApp, vpc: &str) -> InstanceId {
    let id = app.discovered_request(vpc).await;
    assert_eq!(app.approve(&id, "alice").await.name(), "accepted");
    app.round().await;
    id
}

#[tokio::test]
async fn transient_status_ends_nothing_and_notifies_nobody() {
    for status in ["Updating", "Deleting", "Creating", "Paused"] {
        let app = TestApp::with_settings(slow_activation()).await;
        let id = app.discovered_request("vpc-two-people").await;
        assert_eq!(app.approve(&id, "alice").await.name(), "counted");
        app.round().await;
        let headlines = app.posted_headlines(WEBHOOK_PATH);
        app.show_status(&id, status);
        minutes(&app, 3).await;
        app.make_due(&id).await;
        app.round().await;
        assert_eq!(
            (app.state_of(&id).await.as_str(), app.approval(&id).await.approval_count()),
            ("pending", 1),
            "{status}"
        );
        assert_eq!(app.posted_headlines(WEBHOOK_PATH), headlines, "{status}");
        app.show_status(&id, "-");
        minutes(&app, 1).await;
        assert_eq!(app.approve(&id, "bob").await.name(), "accepted", "{status}");
        assert_eq!(app.count_accepts(&id), 1, "{status}");
    }
}

#[tokio::test]
async fn decision_outlives_a_transient_status() {
    for (verb, action, state) in [("approve", ACCEPT, "activating"), ("reject", REJECT, "rejected")] {
        for status in ["Updating", "Deleting", "Missing"] {
            let app = TestApp::with_settings(slow_activation()).await;
            let id = app.discovered_request("vpc-other").await;
            app.fail_next(action, "Throttling.User");
            assert_eq!(app.send_event(verb, &id, "alice").await.name(), "underway");
            app.show_status(&id, status);
            clock::jump::advance_in_thread(SignedDuration::from_secs(10));
            app.round().await;
            let decided = app.approval(&id).await;
            assert!(
                matches!(decided.state(), ApprovalState::Approved | ApprovalState::Rejecting),
                "{verb} {status}: {:?}",
                decided.state()
            );
            let headlines = app.posted_headlines(WEBHOOK_PATH).join("\n");
            assert!(!headlines.contains("accepted") && !headlines.contains("deleted"), "{verb} {status}: {headlines}");
            app.show_status(&id, "-");
            minutes(&app, 2).await;
            assert_eq!(app.state_of(&id).await, state, "{verb} {status}");
            assert_eq!(app.simulator.count_effects(action, id.as_str()), 1, "{verb} {status}");
        }
    }
}

#[tokio::test]
async fn deletion_is_believed_after_a_second_reading() {
    for gone in [becomes("Deleted"), shows("Missing"), shows("Deleted")] {
        let app = TestApp::with_settings(slow_activation()).await;
        let id = app.discovered_request("vpc-two-people").await;
        assert_eq!(app.approve(&id, "alice").await.name(), "counted");
        app.tamper(&id, gone.clone());
        app.discover().await;
        for _ in 0..3 {
            clock::jump::advance_in_thread(SignedDuration::from_secs(15));
            app.discover().await;
        }
        assert_eq!(
            (app.state_of(&id).await.as_str(), app.approval(&id).await.approval_count()),
            ("pending", 1),
            "{gone:?}"
        );
        assert!(!app.posted_headlines(WEBHOOK_PATH).join("\n").contains("deleted"), "{gone:?}");
        minutes(&app, 1).await;
        assert_eq!(app.state_of(&id).await, "deleted", "{gone:?}");
        assert_eq!(app.posted_headlines(WEBHOOK_PATH).iter().filter(|line| line.contains("was deleted")).count(), 1);
        assert!(app.only_card().button_labels().is_empty());
    }
}

#[tokio::test]
async fn deletion_soon_after_our_call_needs_two_more_readings() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app, "vpc-other").await;
    app.show_status(&id, "Missing");
    app.discover().await;
    minutes(&app, 1).await;
    app.assert_state(&id, "activating").await;
    minutes(&app, 1).await;
    app.assert_state(&id, "deleted").await;
}

#[tokio::test]
async fn deletion_long_after_our_call_needs_one_more_reading() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app, "vpc-other").await;
    minutes(&app, 6).await;
    app.show_status(&id, "Missing");
    app.discover().await;
    app.assert_state(&id, "activating").await;
    minutes(&app, 1).await;
    app.assert_state(&id, "deleted").await;
}

/// A request with one of two approvals that was announced as ended, wrongly.
async fn wrongly_ended(app: &TestApp, status: &str) -> InstanceId {
    let id = app.discovered_request("vpc-two-people").await;
    assert_eq!(app.approve(&id, "alice").await.name(), "counted");
    app.show_status(&id, status);
    app.discover().await;
    minutes(app, 1).await;
    app.assert_state(&id, &status.to_lowercase()).await;
    assert!(app.only_card().button_labels().is_empty());
    app.show_status(&id, "-");
    id
}

#[tokio::test]
async fn wrongly_reported_end_is_pending_again() {
    for status in ["Deleted", "Rejected", "Expired"] {
        let app = TestApp::with_settings(slow_activation()).await;
        let id = wrongly_ended(&app, status).await;
        minutes(&app, 1).await;
        let (reported, headlines) = (status.to_lowercase(), app.posted_headlines(WEBHOOK_PATH).join("\n"));
        let correction =
            format!("Correction: VPC peering prod/{id} was reported as {reported}, but it is still pending");
        assert!(headlines.contains(&correction), "{status}: {headlines}");
        let record = app.approval(&id).await;
        assert_eq!((record.state().name(), record.approval_count()), ("pending", 1), "Alice's approval counts again");
        assert_eq!(app.approve(&id, "bob").await.name(), "accepted");
    }
}

#[tokio::test]
async fn wrongly_reported_end_is_corrected_to_activated() {
    for status in ["Deleted", "Rejected", "Expired"] {
        let app = TestApp::with_settings(slow_activation()).await;
        let id = wrongly_ended(&app, status).await;
        app.set_status(&id, "Activated");
        minutes(&app, 1).await;
        let (reported, headlines) = (status.to_lowercase(), app.posted_headlines(WEBHOOK_PATH).join("\n"));
        let correction = format!("Correction: VPC peering prod/{id} was reported as {reported}, but it is Activated");
        assert!(headlines.contains(&correction), "{status}: {headlines}");
        app.assert_state(&id, "activated").await;
        assert!(app.only_card().text.contains("somebody outside peergate"), "{}", app.only_card().text);
    }
}

#[tokio::test]
async fn failure_is_corrected_when_the_connection_activates() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    app.fail_next(ACCEPT, "OperationFailed.CdtNotOpened");
    assert_eq!(app.approve(&id, "alice").await.name(), "failed");
    app.round().await;
    minutes(&app, 1).await;
    // People know that it waits.
    app.assert_state(&id, "failed").await;
    app.set_status(&id, "Activated");
    minutes(&app, 1).await;
    app.assert_state(&id, "activated").await;
    let card = app.only_card();
    assert!(card.text.starts_with(&format!("⚠ VPC peering prod/{id} is Activated, but was")), "{}", card.text);
    assert!(card.button_labels().is_empty() && card.text.contains("somebody outside peergate"), "{}", card.text);
}

#[tokio::test]
async fn undone_accept_is_repeated_with_a_new_token() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app, "vpc-other").await;
    let token = app.approval(&id).await.client_token().cloned();
    app.set_status(&id, "Accepting");
    app.discover().await;
    minutes(&app, 1).await;
    // Not yet confirmed.
    app.assert_state(&id, "activating").await;
    app.assert_accepts(&id, 1);
    minutes(&app, 1).await;
    let record = app.approval(&id).await;
    assert_eq!((record.generation(), record.approval_count()), (2, 1), "the approvals are kept");
    assert_ne!(record.client_token(), token.as_ref());
    clock::jump::advance_in_thread(SignedDuration::from_secs(10));
    app.round().await;
    app.assert_state(&id, "activating").await;
    app.assert_accepts(&id, 2);
    let headlines = app.posted_headlines(WEBHOOK_PATH).join("\n");
    assert!(headlines.contains("but it is still pending at Alibaba Cloud; peergate accepts it again"), "{headlines}");
}

#[tokio::test]
async fn accept_undone_four_times_fails() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = approved(&app, "vpc-other").await;
    for _ in 0..4 {
        app.set_status(&id, "Accepting");
        minutes(&app, 4).await;
        clock::jump::advance_in_thread(SignedDuration::from_secs(10));
        app.round().await;
    }
    let record = app.approval(&id).await;
    assert_eq!((record.state().name(), app.count_accepts(&id)), ("failed", 4));
    assert!(app.only_card().text.contains("Error code: CallUndone"), "{}", app.only_card().text);
    assert_eq!(app.only_card().button_labels(), ["Approve", "Reject", "Details"]);
}

#[tokio::test]
async fn lagging_reading_after_our_call_notifies_nobody() {
    for (verb, state) in [("approve", "activating"), ("reject", "rejected")] {
        let app = TestApp::with_settings(slow_activation()).await;
        let id = app.discovered_request("vpc-other").await;
        app.send_event(verb, &id, "alice").await;
        app.round().await;
        let headlines = app.posted_headlines(WEBHOOK_PATH);
        app.show_status(&id, "Accepting");
        app.discover().await;
        minutes(&app, 1).await;
        app.show_status(&id, "-");
        minutes(&app, 3).await;
        assert_eq!(
            (app.state_of(&id).await.as_str(), app.posted_headlines(WEBHOOK_PATH)),
            (state, headlines),
            "{verb}"
        );
        assert_eq!(app.count_calls(ACCEPT) + app.count_calls(REJECT), 1, "{verb}");
        let record = app.approval(&id).await;
        assert!(
            record.unconfirmed().is_none() && (state == "activating" || record.next_step_at().is_none()),
            "{record:?}"
        );
    }
}

#[tokio::test]
async fn request_past_its_expiry_neither_waits_nor_reminds() {
    let app = TestApp::with_settings(slow_activation()).await;
    let ids = [app.discovered_request("vpc-two-people").await, app.discovered_request("vpc-other").await];
    for id in &ids {
        let soon = clock::now() + SignedDuration::from_mins(30);
        app.tamper(id, Tampering { expires_at: Some(soon), shows: Some("Accepting".into()), ..Tampering::default() });
    }
    minutes(&app, 2).await;
    let before = app.posted_headlines(WEBHOOK_PATH).len();
    // One reading still shows that it waits, the other that it is updated.
    clock::jump::advance_in_thread(SignedDuration::from_mins(40));
    app.show_status(&ids[1], "Updating");
    for _ in 0..20 {
        clock::jump::advance_in_thread(SignedDuration::from_hours(2));
        app.discover().await;
    }
    assert_eq!([app.state_of(&ids[0]).await, app.state_of(&ids[1]).await], ["expired", "pending"]);
    let later = app.posted_headlines(WEBHOOK_PATH)[before..].join("\n");
    assert!(later.contains("has expired") && !later.contains("has waited") && !later.contains("expires at"), "{later}");
    let list = app.slash_command("list", ALICE).await.body;
    assert!(list.contains("past its expiry") && !list.contains("0 of 1 approval"), "{list}");
    let status = app.slash_command(&format!("status {}", ids[1]), ALICE).await.body;
    assert!(!status.contains("peergate.approve"), "{status}");
    app.show_status(&ids[1], "Accepting");
    let reply = app.approve(&ids[1], "alice").await;
    assert_eq!((reply.name().as_str(), app.count_calls(ACCEPT)), ("expired", 0), "{}", reply.body);
}

/// The name of the case, the change of the configuration, the new business status, and the reason why people are asked.
type Change = (&'static str, fn(&str) -> String, Option<&'static str>, &'static str);

#[tokio::test]
async fn late_accept_uses_the_current_rules_and_checks() {
    let same = |config: &str| config.to_owned();
    let changes: [Change; 4] = [
        (
            "another approver",
            |config| config.replace("netops = [\"alice\", \"bob\"]", "netops = [\"bob\"]"),
            None,
            "now requires 1 approval",
        ),
        (
            "more approvals",
            |config| {
                config.replace("name = \"data team\"\ntarget = \"prod\"\nrequester_accounts = [\"1111111111111111\"]\napprovals = 1", "name = \"data team\"\ntarget = \"prod\"\nrequester_accounts = [\"1111111111111111\"]\napprovals = 2")
            },
            None,
            "now requires 2 approvals",
        ),
        (
            "no rule",
            |config| {
                config.replace(
                    "requester_accounts = [\"1111111111111111\"]",
                    "requester_accounts = [\"3333333333333333\"]",
                )
            },
            None,
            "No rule covers it now",
        ),
        ("an objection", same, Some("FinancialLocked"), "A check fails now: its business status is FinancialLocked"),
    ];
    for (name, config, business_status, why) in changes {
        let app = TestApp::with_settings(slow_activation()).await;
        let id = app.discovered_request("vpc-other").await;
        app.fail_next(ACCEPT, "Throttling.User");
        assert_eq!(app.approve(&id, "alice").await.name(), "underway");
        let rewritten = config(&app.config);
        assert!(business_status.is_some() || app.config != rewritten, "{name}");
        let app = app.with_config(&rewritten);
        app.tamper(&id, Tampering { business_status: business_status.map(Into::into), ..Tampering::default() });
        clock::jump::advance_in_thread(SignedDuration::from_secs(10));
        app.round().await;
        let record = app.approval(&id).await;
        assert_eq!(
            (record.state(), record.approval_count(), app.count_accepts(&id)),
            (&ApprovalState::Pending, u32::from(name == "more approvals"), 0),
            "{name}"
        );
        let thread_reply = app.thread_replies().join("\n");
        assert!(
            thread_reply.contains("was approved, but needs a new decision") && thread_reply.contains(why),
            "{name}: {thread_reply}"
        );
        minutes(&app, 3).await;
        assert_eq!(app.count_calls(ACCEPT), 1, "{name}: nothing is called until people decide");
    }
}

/// The rules change while nobody knows if the accept took effect: only a reading decides.
async fn unanswered_accept(takes_effect: bool) -> (TestApp, InstanceId) {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    app.simulator.add_fault(Fault { after_effect: takes_effect, ..failure(ACCEPT, "InternalError") });
    if takes_effect {
        app.show_status(&id, "Accepting");
    }
    assert_eq!(app.approve(&id, "alice").await.name(), "underway");
    let app = app.with_change("netops = [\"alice\", \"bob\"]", "netops = [\"bob\"]");
    for _ in 0..2 {
        clock::jump::advance_in_thread(SignedDuration::from_secs(30));
        app.round().await;
        app.assert_state(&id, "approved").await;
        app.assert_calls(ACCEPT, 1);
    }
    (app, id)
}

#[tokio::test]
async fn effective_unanswered_accept_is_credited_to_us() {
    let (app, id) = unanswered_accept(true).await;
    app.set_status(&id, "Activated");
    app.show_status(&id, "-");
    minutes(&app, 1).await;
    app.assert_state(&id, "activated").await;
    assert!(!app.only_card().text.contains("somebody outside"), "it was ours: {}", app.only_card().text);
}

#[tokio::test]
async fn ineffective_unanswered_accept_asks_people_again() {
    let (app, id) = unanswered_accept(false).await;
    minutes(&app, 4).await;
    app.assert_state(&id, "pending").await;
    app.assert_calls(ACCEPT, 1);
    assert!(app.thread_replies().join("\n").contains("needs a new decision"));
}

#[tokio::test]
async fn late_rejection_is_carried_out_despite_new_rules() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    app.fail_next(REJECT, "Throttling.User");
    assert_eq!(app.reject(&id, "alice").await.name(), "underway");
    let app = app.with_change("netops = [\"alice\", \"bob\"]", "netops = [\"bob\"]");
    clock::jump::advance_in_thread(SignedDuration::from_secs(10));
    app.round().await;
    assert_eq!((app.state_of(&id).await.as_str(), app.simulator.count_effects(REJECT, id.as_str())), ("rejected", 1));
}

#[tokio::test]
async fn unknown_code_is_retried_for_a_day() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    app.fail_times(9999, ACCEPT, "SomethingNew.NobodyKnows");
    assert_eq!(app.approve(&id, "alice").await.name(), "underway");
    minutes(&app, 15).await;
    app.assert_state(&id, "approved").await;
    assert!(
        app.thread_replies().join("\n").contains("but peergate cannot accept it yet"),
        "people know after ten minutes"
    );
    for _ in 0..24 {
        clock::jump::advance_in_thread(SignedDuration::from_hours(1));
        app.round().await;
    }
    app.assert_state(&id, "failed").await;
    assert!(app.only_card().text.contains("Error code: SomethingNew.NobodyKnows"), "{}", app.only_card().text);
}

#[tokio::test]
async fn refused_request_stays_refused_for_three_days() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    let body = |app: &TestApp| app.event_spec("approve", &id, "alice").fingerprint.unwrap();
    let seen = body(&app);
    let send = async |webhook_id: &str, fingerprint: Option<&str>| {
        let data = match fingerprint {
            Some(it) => serde_json::json!({"instance_id": id, "actor": "alice", "fingerprint": it}),
            None => serde_json::json!({"instance_id": id, "actor": "alice"}),
        };
        let body = serde_json::json!({"type": "peering.approve", "data": data}).to_string();
        app.send(&app.sign_body_as(&body, webhook_id, &clock::now().as_second().to_string())).await.name()
    };
    app.set_bandwidth(&id, 5);
    assert_eq!(send("with", Some(&seen)).await, "connection-changed");
    assert_eq!(send("without", None).await, "connection-changed");
    // The card shows the change; then the old facts again.
    app.discover().await;
    app.set_bandwidth(&id, 1024);
    app.discover().await;
    clock::jump::advance_in_thread(SignedDuration::from_secs(2));
    for again in 0..3 {
        assert_eq!(send("with", Some(&seen)).await, "connection-changed", "{again}");
        assert_eq!(send("without", None).await, "connection-changed", "{again}");
        clock::jump::advance_in_thread(SignedDuration::from_hours(20));
    }
    app.assert_calls(ACCEPT, 0);
    assert_eq!(send("another", None).await, "accepted");
}

#[tokio::test]
async fn decision_without_a_fingerprint_rests_on_the_earlier_card() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.new_request_for("vpc-two-people").await;
    let before = clock::now();
    let sign = |actor: &str, header: jiff::Timestamp, body: Option<jiff::Timestamp>| {
        let data = serde_json::json!({"instance_id": id, "actor": actor});
        let mut body_json = serde_json::json!({"type": "peering.approve", "data": data});
        if let Some(at) = body {
            body_json["timestamp"] = at.to_string().into();
        }
        app.sign_body_as(&body_json.to_string(), &clock::nonce(), &header.as_second().to_string())
    };
    app.send(&sign("alice", clock::now(), None)).await.assert(409, "not-shown");
    clock::jump::advance_in_thread(SignedDuration::from_secs(10));
    app.follow().await;
    assert_eq!(app.slack.messages_in(CHANNEL).len(), 1, "the webhook has stored the record");
    clock::jump::advance_in_thread(SignedDuration::from_secs(10));
    // The header is fresh, but the decision was made before the card was shown.
    assert_eq!(app.send(&sign("alice", clock::now(), Some(before))).await.name(), "connection-changed");
    assert_eq!(app.send(&sign("alice", before, None)).await.name(), "connection-changed");
    assert_eq!(app.send(&sign("alice", before, Some(clock::now()))).await.name(), "connection-changed");
    assert_eq!(app.send(&sign("alice", clock::now(), None)).await.name(), "counted");
    let shown_at = app.approval(&id).await.cards()["netops"].shown_at;
    assert_eq!(app.send(&sign("bob", shown_at, None)).await.name(), "accepted", "the same second counts");
    let history = app.approval(&id).await.history().clone();
    assert_eq!(history.iter().filter(|entry| matches!(entry.event, AuditEvent::Decided(_))).count(), 2);
}

#[tokio::test]
async fn only_cards_in_the_requests_own_channels_count_as_shown() {
    let app = TestApp::with_settings(slow_activation()).await;
    let config = app.config.replace("[requests]\nchannels = [\"netops\"]", "[requests]\nchannels = []");
    let app = app.with_config(&config);
    let id = app.discovered_request("vpc-other").await;
    let moved = config.replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = [\"oncall\"]");
    let app = app.with_config(&moved);
    let blind = app.sign_spec(&app.blind_spec("approve", &id, "alice")).await;
    assert_eq!(app.send(&blind).await.name(), "connection-changed", "the rule's channel has no card of it");
    app.discover().await;
    clock::jump::advance_in_thread(SignedDuration::from_secs(1));
    assert_eq!(app.send_spec(&app.blind_spec("approve", &id, "alice")).await.name(), "accepted");
}

#[tokio::test]
async fn older_reading_restores_no_facts_and_decides_nothing() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    let changes = |bandwidth| app.set_bandwidth(&id, bandwidth);
    changes(11);
    let fingerprint = app.event_spec("approve", &id, "alice").fingerprint.unwrap();
    let data = serde_json::json!({"instance_id": id, "actor": "alice", "fingerprint": fingerprint});
    let body = serde_json::json!({"type": "peering.approve", "data": data}).to_string();
    let sign = || app.sign_body_as(&body, "job-9", &clock::now().as_second().to_string());
    // The webhook's checks last longer than another writer's update.
    let slow = Fault { action: Some(LIST.into()), delay_ms: 2500, code: None, ..Fault::default() };
    app.simulator.add_fault(slow);
    let (signed, calls) = (sign(), app.simulator.journal().len());
    let other_writer = async {
        while !app.simulator.journal().iter().skip(calls).any(JournalEntry::is_dry_run) {
            tokio::task::yield_now().await;
        }
        changes(22);
        let connection = Box::new(app.simulator.read_connection(id.as_str()).unwrap());
        let change = Event::Changed { connection, findings: vec![] };
        let stored = app.load_record(&id).await.unwrap();
        app.parts.store.update(stored, |approval| approval.apply_event(&change, clock::now())).await.unwrap();
        assert_eq!(app.approval(&id).await.facts().bandwidth_mbps, Some(22));
    };
    let (reply, ()) = tokio::join!(app.send(&signed), other_writer);
    assert_eq!((reply.name().as_str(), app.count_accepts(&id)), ("connection-changed", 0));
    assert_eq!(app.approval(&id).await.facts().bandwidth_mbps, Some(22));
    // The facts are restored, but this request was refused before.
    changes(11);
    app.discover().await;
    clock::jump::advance_in_thread(SignedDuration::from_secs(61));
    let reply = app.send(&sign()).await;
    assert_eq!((reply.name().as_str(), app.count_accepts(&id)), ("connection-changed", 0));
}

#[tokio::test]
async fn decision_voided_by_a_change_does_not_count() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-two-people").await;
    let signed = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&signed).await.name(), "counted");
    assert_eq!(app.send(&signed).await.name(), "repeated");
    app.set_bandwidth(&id, 5);
    app.discover().await;
    assert_eq!(app.send(&signed).await.name(), "connection-changed");
    assert_eq!(app.approval(&id).await.approval_count(), 0);
}

#[tokio::test]
async fn decision_voided_by_the_rules_does_not_count() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-two-people").await;
    let signed = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&signed).await.name(), "counted");
    let security = "security = [\"alice\", \"bob\", \"carol\", \"erin\"]";
    let with = app.config.clone();
    let app = app.with_config(&with.replace(security, "security = [\"bob\", \"carol\"]"));
    clock::jump::advance_in_thread(SignedDuration::from_secs(61));
    app.discover().await;
    assert_eq!(app.approval(&id).await.approval_count(), 0);
    // The same request, signed once more, when she may approve again.
    let app = app.with_config(&with);
    let (_, webhook_id) = signed.headers.iter().find(|(name, _)| *name == "webhook-id").unwrap();
    let signed = app.sign_body_as(&signed.body, webhook_id, &clock::now().as_second().to_string());
    app.send(&signed).await.assert(409, "decision-void");
    assert_eq!((app.approval(&id).await.approval_count(), app.count_accepts(&id)), (0, 0));
}

#[tokio::test]
async fn next_call_ends_a_doubt() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    app.fail_next(ACCEPT, "Forbidden.RAM");
    assert_eq!(app.approve(&id, "alice").await.name(), "underway");
    app.show_status(&id, "Missing");
    clock::jump::advance_in_thread(SignedDuration::from_secs(320));
    app.round().await;
    assert!(app.approval(&id).await.unconfirmed().is_some());
    // The accept has no answer: a reading that does not show the connection proves nothing.
    app.show_status(&id, "-");
    app.fail_next(ACCEPT, "InternalError");
    clock::jump::advance_in_thread(SignedDuration::from_secs(6));
    app.round().await;
    assert_eq!((app.count_calls(ACCEPT), app.approval(&id).await.unconfirmed()), (2, None));
    app.show_status(&id, "Missing");
    clock::jump::advance_in_thread(SignedDuration::from_secs(61));
    app.round().await;
    let doubt = app.approval(&id).await.unconfirmed().cloned().unwrap();
    assert_eq!((app.approval(&id).await.state(), doubt.readings, doubt.needed), (&ApprovalState::Approved, 1, 3));
}

#[tokio::test]
async fn list_with_the_pending_request_ends_a_doubt() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-two-people").await;
    let missing = failure(GET, "ResourceNotFound.InstanceId");
    app.simulator.add_fault(Fault { times: 1000, ..missing });
    app.make_due(&id).await;
    app.round().await;
    assert!(app.approval(&id).await.unconfirmed().is_some());
    minutes(&app, 4).await;
    assert_eq!(*app.approval(&id).await.state(), ApprovalState::Pending);
    assert!(
        !app.posted_headlines(WEBHOOK_PATH).iter().any(|line| line.contains("was deleted")),
        "{:?}",
        app.posted_headlines(WEBHOOK_PATH)
    );
}

#[tokio::test]
async fn connection_accepted_elsewhere_is_not_rejected_again() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    app.fail_next(REJECT, "Throttling.User");
    assert_eq!(app.reject(&id, "alice").await.name(), "underway");
    app.set_status(&id, "Activated");
    clock::jump::advance_in_thread(SignedDuration::from_secs(10));
    app.round().await;
    let failed = ApprovalState::Failed { code: "AcceptedElsewhere".into() };
    assert_eq!(*app.approval(&id).await.state(), failed);
    let (headlines, rejects) = (app.posted_headlines(WEBHOOK_PATH), app.count_calls(REJECT));
    for _ in 0..3 {
        app.show_status(&id, "Accepting");
        minutes(&app, 1).await;
        app.show_status(&id, "-");
        minutes(&app, 1).await;
    }
    assert_eq!((app.approval(&id).await.state(), app.posted_headlines(WEBHOOK_PATH)), (&failed, headlines));
    assert_eq!(app.count_calls(REJECT), rejects);
}

#[tokio::test]
async fn correction_restores_only_the_valid_approvals() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-two-people").await;
    assert_eq!(app.approve(&id, "alice").await.name(), "counted");
    app.fail_next(ACCEPT, "Throttling.User");
    assert_eq!(app.approve(&id, "bob").await.name(), "underway");
    let security = "security = [\"alice\", \"bob\", \"carol\", \"erin\"]";
    let app = app.with_change(security, "security = [\"bob\", \"carol\"]");
    clock::jump::advance_in_thread(SignedDuration::from_secs(10));
    app.round().await;
    assert_eq!(
        (app.approval(&id).await.state(), app.approval(&id).await.approval_count()),
        (&ApprovalState::Pending, 1)
    );
    app.show_status(&id, "Missing");
    minutes(&app, 4).await;
    assert_eq!(*app.approval(&id).await.state(), ApprovalState::Deleted);
    app.show_status(&id, "-");
    minutes(&app, 1).await;
    assert_eq!(
        (app.approval(&id).await.state(), app.approval(&id).await.approval_count()),
        (&ApprovalState::Pending, 1)
    );
}

#[tokio::test]
async fn flapping_connection_fails_before_its_record_is_full() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-two-people").await;
    for _ in 0..30 {
        app.show_status(&id, "Expired");
        app.discover().await;
        app.show_status(&id, "-");
        app.discover().await;
    }
    let record = app.approval(&id).await;
    assert_eq!(*record.state(), ApprovalState::Failed { code: "ChangedTooOften".into() });
    assert!(record.history().len() < 50, "{}", record.history().len());
}

#[tokio::test]
async fn unreadable_approved_request_ends_after_its_expiry() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-other").await;
    app.fail_next(ACCEPT, "Throttling.User");
    assert_eq!(app.approve(&id, "alice").await.name(), "underway");
    app.fail_times(1000, GET, "Nobody.KnowsThis");
    for _ in 0..9 {
        clock::jump::advance_in_thread(SignedDuration::from_hours(24));
        app.round().await;
    }
    assert_eq!(*app.approval(&id).await.state(), ApprovalState::Expired);
}

#[tokio::test]
async fn refused_decision_makes_no_rule_accept() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.new_request_for("vpc-by-itself").await;
    let reply = app.send_spec(&app.blind_spec("reject", &id, "alice")).await;
    assert_eq!((reply.name().as_str(), app.approval(&id).await.state()), ("not-shown", &ApprovalState::Pending));
    // The watcher checks it, and makes the call at once.
    minutes(&app, 2).await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn late_accept_with_a_new_overlap_asks_people_again() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-two-people").await;
    assert_eq!(app.approve(&id, "alice").await.name(), "counted");
    app.fail_next(ACCEPT, "Throttling.User");
    assert_eq!(app.approve(&id, "bob").await.name(), "underway");
    let cidrs = app.approval(&id).await.facts().requester.cidrs.clone();
    let other = app.request_peering(&[("AcceptingVpcId", "vpc-two-people"), ("VpcId", "vpc-twin")]).await.unwrap();
    app.tamper(&other, Tampering { requester_cidrs: Some(cidrs), ..Tampering::default() });
    clock::jump::advance_in_thread(SignedDuration::from_secs(10));
    app.round().await;
    let record = app.approval(&id).await;
    assert_eq!((record.state(), app.count_accepts(&id)), (&ApprovalState::Pending, 0));
    assert!(
        app.posted_headlines(WEBHOOK_PATH).iter().any(|line| line.contains("needs a new decision")),
        "{:?}",
        app.posted_headlines(WEBHOOK_PATH)
    );
}

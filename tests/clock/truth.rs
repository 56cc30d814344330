//! What channels hear is true: passing readings change nothing, and what was told wrongly is corrected. The clock of the
//! process is set ahead, so these tests have one of their own and run one after the other.

use std::time::Duration;

use crate::support::{CLOCK, TestApp, WEBHOOK_PATH, event_spec, quick_settings};
use jiff::SignedDuration;
use peergate::approval::{Approval, ApprovalState, AuditEvent, Event};
use peergate::clock;
use peergate::fake::alicloud::gateway::Fault;
use peergate::fake::alicloud::{JournalEntry, SimulatorSettings, Tampering};
use peergate::peering::InstanceId;

const ACCEPT: &str = "AcceptVpcPeerConnection";
const REJECT: &str = "RejectVpcPeerConnection";

/// Activations take longer than any test.
fn slow() -> SimulatorSettings {
    SimulatorSettings { activation_delay: Duration::from_hours(24 * 30), ..quick_settings() }
}

fn becomes(status: &str) -> Tampering {
    Tampering { status: Some(status.into()), ..Tampering::default() }
}

fn shows(status: &str) -> Tampering {
    Tampering { shows: Some(status.into()), ..Tampering::default() }
}

fn fails(action: &str, code: &str, http_status: u16) -> Fault {
    Fault { action: Some(action.into()), code: Some(code.into()), http_status, ..Fault::default() }
}

async fn requested(app: &TestApp, vpc: &str) -> InstanceId {
    let id = app.request_peering(&[("AcceptingVpcId", vpc)]).await.unwrap();
    app.discover().await;
    id
}

async fn approval(app: &TestApp, id: &InstanceId) -> Approval {
    app.load_record(id).await.unwrap().approval
}

/// Lets a minute pass, with a scheduled tick at its end.
async fn minutes(app: &TestApp, minutes: i64) {
    for _ in 0..minutes {
        clock::jump::advance(SignedDuration::from_secs(61));
        app.discover().await;
    }
}

async fn approved(app: &TestApp, vpc: &str) -> InstanceId {
    let id = requested(app, vpc).await;
    assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "accepted");
    app.round().await;
    id
}

#[tokio::test]
async fn transient_status_ends_nothing_and_notifies_nobody() {
    let _alone = CLOCK.lock().await;
    for status in ["Updating", "Deleting", "Creating", "Paused"] {
        let app = TestApp::with_settings(slow()).await;
        let id = requested(&app, "vpc-two-people").await;
        assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "counted");
        app.round().await;
        let told = app.posted_headlines(WEBHOOK_PATH);
        app.tamper(&id, shows(status));
        minutes(&app, 3).await;
        app.make_due(&id).await;
        app.round().await;
        assert_eq!(
            (app.state_of(&id).await.as_str(), approval(&app, &id).await.approval_count()),
            ("pending", 1),
            "{status}"
        );
        assert_eq!(app.posted_headlines(WEBHOOK_PATH), told, "{status}");
        app.tamper(&id, shows("-"));
        minutes(&app, 1).await;
        assert_eq!(app.send(&app.sign_event("approve", &id, "bob").await).await.name(), "accepted", "{status}");
        assert_eq!(app.count_accepts(&id), 1, "{status}");
    }
}

#[tokio::test]
async fn decision_outlives_a_transient_status() {
    let _alone = CLOCK.lock().await;
    for (verb, action, state) in [("approve", ACCEPT, "activating"), ("reject", REJECT, "rejected")] {
        for status in ["Updating", "Deleting", "Missing"] {
            let app = TestApp::with_settings(slow()).await;
            let id = requested(&app, "vpc-other").await;
            app.simulator.add_fault(fails(action, "Throttling.User", 400));
            assert_eq!(app.send(&app.sign_event(verb, &id, "alice").await).await.name(), "underway");
            app.tamper(&id, shows(status));
            clock::jump::advance(SignedDuration::from_secs(10));
            app.round().await;
            let decided = approval(&app, &id).await;
            assert!(
                matches!(decided.state, ApprovalState::Approved | ApprovalState::Rejecting),
                "{verb} {status}: {:?}",
                decided.state
            );
            let told = app.posted_headlines(WEBHOOK_PATH).join("\n");
            assert!(!told.contains("accepted") && !told.contains("deleted"), "{verb} {status}: {told}");
            app.tamper(&id, shows("-"));
            minutes(&app, 2).await;
            assert_eq!(app.state_of(&id).await, state, "{verb} {status}");
            assert_eq!(app.simulator.count_effects(action, id.as_str()), 1, "{verb} {status}");
        }
    }
}

#[tokio::test]
async fn deletion_is_believed_after_a_second_reading() {
    let _alone = CLOCK.lock().await;
    for gone in [becomes("Deleted"), shows("Missing"), shows("Deleted")] {
        let app = TestApp::with_settings(slow()).await;
        let id = requested(&app, "vpc-two-people").await;
        assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "counted");
        app.tamper(&id, gone.clone());
        app.discover().await;
        for _ in 0..3 {
            clock::jump::advance(SignedDuration::from_secs(15));
            app.discover().await;
        }
        assert_eq!(
            (app.state_of(&id).await.as_str(), approval(&app, &id).await.approval_count()),
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
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = approved(&app, "vpc-other").await;
    app.tamper(&id, shows("Missing"));
    app.discover().await;
    minutes(&app, 1).await;
    assert_eq!(app.state_of(&id).await, "activating");
    minutes(&app, 1).await;
    assert_eq!(app.state_of(&id).await, "deleted");

    // Six minutes after the call, one further reading is enough.
    let id = approved(&app, "vpc-another").await;
    minutes(&app, 6).await;
    app.tamper(&id, shows("Missing"));
    app.discover().await;
    assert_eq!(app.state_of(&id).await, "activating");
    minutes(&app, 1).await;
    assert_eq!(app.state_of(&id).await, "deleted");
}

#[tokio::test]
async fn wrongly_reported_end_is_corrected() {
    let _alone = CLOCK.lock().await;
    for (ends, state, heard) in
        [("Deleted", "deleted", "deleted"), ("Rejected", "rejected", "rejected"), ("Expired", "expired", "expired")]
    {
        for alive in ["Accepting", "Activated"] {
            let app = TestApp::with_settings(slow()).await;
            let id = requested(&app, "vpc-two-people").await;
            assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "counted");
            app.tamper(&id, shows(ends));
            app.discover().await;
            minutes(&app, 1).await;
            assert_eq!(app.state_of(&id).await, state);
            assert!(app.only_card().button_labels().is_empty());
            app.tamper(&id, shows("-"));
            if alive == "Activated" {
                app.tamper(&id, becomes("Activated"));
            }
            minutes(&app, 1).await;
            let record = approval(&app, &id).await;
            let told = app.posted_headlines(WEBHOOK_PATH).join("\n");
            let correction = if alive == "Activated" {
                format!("Correction: VPC peering prod/{id} was reported as {heard}, but it is Activated")
            } else {
                format!("Correction: VPC peering prod/{id} was reported as {heard}, but it is still pending")
            };
            assert!(told.contains(&correction), "{ends} → {alive}: {told}");
            if alive == "Activated" {
                assert_eq!(record.state, ApprovalState::Activated);
                assert!(app.only_card().text.contains("somebody outside peergate"), "{}", app.only_card().text);
            } else {
                assert_eq!(
                    (&record.state, record.approval_count()),
                    (&ApprovalState::Pending, 1),
                    "Alice's approval counts again"
                );
                assert_eq!(app.send(&app.sign_event("approve", &id, "bob").await).await.name(), "accepted");
            }
        }
    }
}

#[tokio::test]
async fn failure_is_corrected_when_the_connection_activates() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-other").await;
    app.simulator.add_fault(fails(ACCEPT, "OperationFailed.CdtNotOpened", 400));
    assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "failed");
    app.round().await;
    minutes(&app, 1).await;
    assert_eq!(app.state_of(&id).await, "failed", "that it waits is what people know");
    app.tamper(&id, becomes("Activated"));
    minutes(&app, 1).await;
    assert_eq!(app.state_of(&id).await, "activated");
    let card = app.only_card();
    assert!(card.text.starts_with(&format!("VPC peering prod/{id} is Activated")), "{}", card.text);
    assert!(card.button_labels().is_empty() && card.text.contains("somebody outside peergate"), "{}", card.text);
}

#[tokio::test]
async fn undone_accept_is_repeated_with_a_new_token() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = approved(&app, "vpc-other").await;
    let token = approval(&app, &id).await.client_token.unwrap();
    app.tamper(&id, becomes("Accepting"));
    app.discover().await;
    minutes(&app, 1).await;
    assert_eq!((app.state_of(&id).await.as_str(), app.count_accepts(&id)), ("activating", 1), "not yet confirmed");
    minutes(&app, 1).await;
    let record = approval(&app, &id).await;
    assert_eq!((record.generation, record.approval_count()), (2, 1), "the approvals are kept");
    assert_ne!(record.client_token.as_ref().unwrap(), &token);
    clock::jump::advance(SignedDuration::from_secs(10));
    app.round().await;
    assert_eq!((app.state_of(&id).await.as_str(), app.count_accepts(&id)), ("activating", 2));
    let told = app.posted_headlines(WEBHOOK_PATH).join("\n");
    assert!(told.contains("but it is still pending at Alibaba Cloud; peergate accepts it again"), "{told}");

    // Three times; then it is a failure.
    for _ in 0..3 {
        app.tamper(&id, becomes("Accepting"));
        minutes(&app, 4).await;
        clock::jump::advance(SignedDuration::from_secs(10));
        app.round().await;
    }
    let record = approval(&app, &id).await;
    assert_eq!((record.state.name(), app.count_accepts(&id)), ("failed", 4));
    assert!(app.only_card().text.contains("Error code: CallUndone"), "{}", app.only_card().text);
    assert_eq!(app.only_card().button_labels(), ["Approve", "Reject", "Details"]);
}

#[tokio::test]
async fn lagging_reading_after_our_call_notifies_nobody() {
    let _alone = CLOCK.lock().await;
    for (verb, state) in [("approve", "activating"), ("reject", "rejected")] {
        let app = TestApp::with_settings(slow()).await;
        let id = requested(&app, "vpc-other").await;
        app.send(&app.sign_event(verb, &id, "alice").await).await;
        app.round().await;
        let told = app.posted_headlines(WEBHOOK_PATH);
        app.tamper(&id, shows("Accepting"));
        app.discover().await;
        minutes(&app, 1).await;
        app.tamper(&id, shows("-"));
        minutes(&app, 3).await;
        assert_eq!((app.state_of(&id).await.as_str(), app.posted_headlines(WEBHOOK_PATH)), (state, told), "{verb}");
        assert_eq!(app.count_calls(ACCEPT) + app.count_calls(REJECT), 1, "{verb}");
        let record = approval(&app, &id).await;
        assert!(record.unconfirmed.is_none() && (state == "activating" || record.next_step_at.is_none()), "{record:?}");
    }
}

#[tokio::test]
async fn request_past_its_expiry_neither_waits_nor_reminds() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let ids = [requested(&app, "vpc-two-people").await, requested(&app, "vpc-other").await];
    for id in &ids {
        let soon = clock::now() + SignedDuration::from_mins(30);
        app.tamper(id, Tampering { expires_at: Some(soon), shows: Some("Accepting".into()), ..Tampering::default() });
    }
    minutes(&app, 2).await;
    let before = app.posted_headlines(WEBHOOK_PATH).len();
    // One still says that it waits, the other that it is updated.
    clock::jump::advance(SignedDuration::from_mins(40));
    app.tamper(&ids[1], shows("Updating"));
    for _ in 0..20 {
        clock::jump::advance(SignedDuration::from_hours(2));
        app.discover().await;
    }
    assert_eq!([app.state_of(&ids[0]).await, app.state_of(&ids[1]).await], ["expired", "pending"]);
    let told = app.posted_headlines(WEBHOOK_PATH)[before..].join("\n");
    assert!(
        told.contains("has expired") && !told.contains("has been pending") && !told.contains("expires at"),
        "{told}"
    );
    let list = app.send(&app.sign_slash_command("list", "U061F7AUR").await).await.body;
    assert!(list.contains("past its expiry") && !list.contains("0 of 1 approval"), "{list}");
    let status = app.send(&app.sign_slash_command(&format!("status {}", ids[1]), "U061F7AUR").await).await.body;
    assert!(!status.contains("peergate.approve"), "{status}");
    app.tamper(&ids[1], shows("Accepting"));
    let reply = app.send(&app.sign_event("approve", &ids[1], "alice").await).await;
    assert_eq!((reply.name().as_str(), app.count_calls(ACCEPT)), ("not-acceptable", 0), "{}", reply.body);
}

/// What it is called, how the configuration changes, what its business status becomes, and why people are asked.
type Change = (&'static str, fn(&str) -> String, Option<&'static str>, &'static str);

#[tokio::test]
async fn late_accept_uses_the_current_rules_and_checks() {
    let _alone = CLOCK.lock().await;
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
        let app = TestApp::with_settings(slow()).await;
        let id = requested(&app, "vpc-other").await;
        app.simulator.add_fault(fails(ACCEPT, "Throttling.User", 400));
        assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "underway");
        let rewritten = config(&app.config);
        assert!(business_status.is_some() || app.config != rewritten, "{name}");
        let app = app.with_config(&rewritten);
        app.tamper(&id, Tampering { business_status: business_status.map(Into::into), ..Tampering::default() });
        clock::jump::advance(SignedDuration::from_secs(10));
        app.round().await;
        let record = approval(&app, &id).await;
        assert_eq!(
            (&record.state, record.approval_count(), app.count_accepts(&id)),
            (&ApprovalState::Pending, u32::from(name == "more approvals"), 0),
            "{name}"
        );
        let told = app.thread_replies().join("\n");
        assert!(told.contains("was approved, but needs a new decision") && told.contains(why), "{name}: {told}");
        minutes(&app, 3).await;
        assert_eq!(app.count_calls(ACCEPT), 1, "{name}: nothing is called until people decide");
    }
}

#[tokio::test]
async fn unanswered_call_is_settled_only_by_a_reading() {
    let _alone = CLOCK.lock().await;
    for takes_effect in [true, false] {
        let app = TestApp::with_settings(slow()).await;
        let id = requested(&app, "vpc-other").await;
        // No answer that says what came of it.
        app.simulator.add_fault(Fault { after_effect: takes_effect, ..fails(ACCEPT, "InternalError", 500) });
        if takes_effect {
            app.tamper(&id, shows("Accepting"));
        }
        assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "underway");
        let config = app.config.replace("netops = [\"alice\", \"bob\"]", "netops = [\"bob\"]");
        let app = app.with_config(&config);
        for _ in 0..2 {
            clock::jump::advance(SignedDuration::from_secs(30));
            app.round().await;
            assert_eq!((app.state_of(&id).await.as_str(), app.count_calls(ACCEPT)), ("approved", 1), "{takes_effect}");
        }
        if takes_effect {
            app.tamper(&id, becomes("Activated"));
            app.tamper(&id, shows("-"));
            minutes(&app, 1).await;
            let record = approval(&app, &id).await;
            assert_eq!(record.state, ApprovalState::Activated);
            assert!(!app.only_card().text.contains("somebody outside"), "it was ours: {}", app.only_card().text);
        } else {
            minutes(&app, 4).await;
            assert_eq!((app.state_of(&id).await.as_str(), app.count_calls(ACCEPT)), ("pending", 1));
            assert!(app.thread_replies().join("\n").contains("needs a new decision"));
        }
    }
}

#[tokio::test]
async fn late_rejection_is_carried_out_despite_new_rules() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-other").await;
    app.simulator.add_fault(fails(REJECT, "Throttling.User", 400));
    assert_eq!(app.send(&app.sign_event("reject", &id, "alice").await).await.name(), "underway");
    let config = app.config.replace("netops = [\"alice\", \"bob\"]", "netops = [\"bob\"]");
    let app = app.with_config(&config);
    clock::jump::advance(SignedDuration::from_secs(10));
    app.round().await;
    assert_eq!((app.state_of(&id).await.as_str(), app.simulator.count_effects(REJECT, id.as_str())), ("rejected", 1));
}

#[tokio::test]
async fn unknown_code_is_retried_for_a_day() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-other").await;
    app.simulator.add_fault(Fault { times: 9999, ..fails(ACCEPT, "SomethingNew.NobodyKnows", 400) });
    assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "underway");
    minutes(&app, 15).await;
    assert_eq!(app.state_of(&id).await, "approved");
    assert!(
        app.thread_replies().join("\n").contains("but peergate cannot accept it yet"),
        "people know after ten minutes"
    );
    for _ in 0..24 {
        clock::jump::advance(SignedDuration::from_hours(1));
        app.round().await;
    }
    assert_eq!(app.state_of(&id).await, "failed");
    assert!(app.only_card().text.contains("Error code: SomethingNew.NobodyKnows"), "{}", app.only_card().text);
}

#[tokio::test]
async fn refused_request_stays_refused_for_three_days() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-other").await;
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
    app.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    assert_eq!(send("with", Some(&seen)).await, "connection-changed");
    assert_eq!(send("without", None).await, "connection-changed");
    // The card shows the change; then the old facts again.
    app.discover().await;
    app.tamper(&id, Tampering { bandwidth: Some(1024), ..Tampering::default() });
    app.discover().await;
    clock::jump::advance(SignedDuration::from_secs(2));
    for again in 0..3 {
        assert_eq!(send("with", Some(&seen)).await, "connection-changed", "{again}");
        assert_eq!(send("without", None).await, "connection-changed", "{again}");
        clock::jump::advance(SignedDuration::from_hours(20));
    }
    assert_eq!(app.count_calls(ACCEPT), 0);
    assert_eq!(send("another", None).await, "accepted");
}

#[tokio::test]
async fn decision_without_a_fingerprint_rests_on_the_earlier_card() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = app.request_peering(&[("AcceptingVpcId", "vpc-two-people")]).await.unwrap();
    let before = clock::now();
    let sign = |actor: &str, header: jiff::Timestamp, body: Option<jiff::Timestamp>| {
        let data = serde_json::json!({"instance_id": id, "actor": actor});
        let mut body_json = serde_json::json!({"type": "peering.approve", "data": data});
        if let Some(at) = body {
            body_json["timestamp"] = at.to_string().into();
        }
        app.sign_body_as(&body_json.to_string(), &clock::nonce(), &header.as_second().to_string())
    };
    let unseen = app.send(&sign("alice", clock::now(), None)).await;
    assert_eq!((unseen.status, unseen.name().as_str()), (409, "not-shown"));
    clock::jump::advance(SignedDuration::from_secs(10));
    app.tick().await;
    assert_eq!(app.slack.messages_in("C0PEER").len(), 1, "the webhook has written down what it heard of");
    clock::jump::advance(SignedDuration::from_secs(10));
    // The header is fresh, but what it tells of happened before the card was there.
    assert_eq!(app.send(&sign("alice", clock::now(), Some(before))).await.name(), "connection-changed");
    assert_eq!(app.send(&sign("alice", before, None)).await.name(), "connection-changed");
    assert_eq!(app.send(&sign("alice", before, Some(clock::now()))).await.name(), "connection-changed");
    assert_eq!(app.send(&sign("alice", clock::now(), None)).await.name(), "counted");
    let shown_at = approval(&app, &id).await.cards["netops"].shown_at;
    assert_eq!(app.send(&sign("bob", shown_at, None)).await.name(), "accepted", "the same second counts");
    let history = approval(&app, &id).await.history;
    assert_eq!(history.iter().filter(|entry| matches!(entry.event, AuditEvent::Decided(_))).count(), 2);
}

#[tokio::test]
async fn only_cards_in_the_requests_own_channels_count_as_shown() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let config = app.config.replace("[requests]\nchannels = [\"netops\"]", "[requests]\nchannels = []");
    let app = app.with_config(&config);
    let id = requested(&app, "vpc-other").await;
    let moved = config.replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = [\"oncall\"]");
    let app = app.with_config(&moved);
    let blind = app.sign_spec(&event_spec("approve", &id, "alice")).await;
    assert_eq!(app.send(&blind).await.name(), "connection-changed", "the rule's channel knows nothing of it");
    app.discover().await;
    clock::jump::advance(SignedDuration::from_secs(1));
    assert_eq!(app.send(&app.sign_spec(&event_spec("approve", &id, "alice")).await).await.name(), "accepted");
}

#[tokio::test]
async fn older_reading_restores_no_facts_and_decides_nothing() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-other").await;
    let changes = |bandwidth| app.tamper(&id, Tampering { bandwidth: Some(bandwidth), ..Tampering::default() });
    changes(11);
    let fingerprint = app.event_spec("approve", &id, "alice").fingerprint.unwrap();
    let data = serde_json::json!({"instance_id": id, "actor": "alice", "fingerprint": fingerprint});
    let body = serde_json::json!({"type": "peering.approve", "data": data}).to_string();
    let sign = || app.sign_body_as(&body, "job-9", &clock::now().as_second().to_string());
    // The checks of the webhook last longer than what is written meanwhile.
    let slow = Fault { action: Some("ListVpcPeerConnections".into()), delay_ms: 2500, code: None, ..Fault::default() };
    app.simulator.add_fault(slow);
    let (signed, calls) = (sign(), app.simulator.journal().len());
    let meanwhile = async {
        while !app.simulator.journal().iter().skip(calls).any(JournalEntry::is_dry_run) {
            tokio::task::yield_now().await;
        }
        changes(22);
        let connection = Box::new(app.simulator.read_connection(id.as_str()).unwrap());
        let change = Event::Changed { connection, findings: vec![] };
        let stored = app.load_record(&id).await.unwrap();
        app.parts.store.update(stored, |approval| approval.apply_event(&change, clock::now())).await.unwrap();
        assert_eq!(approval(&app, &id).await.facts.bandwidth_mbps, Some(22));
    };
    let (reply, ()) = tokio::join!(app.send(&signed), meanwhile);
    assert_eq!((reply.name().as_str(), app.count_accepts(&id)), ("connection-changed", 0));
    assert_eq!(approval(&app, &id).await.facts.bandwidth_mbps, Some(22));
    // When the facts are those again, the request is the one that was refused.
    changes(11);
    app.discover().await;
    clock::jump::advance(SignedDuration::from_secs(61));
    let reply = app.send(&sign()).await;
    assert_eq!((reply.name().as_str(), app.count_accepts(&id)), ("connection-changed", 0));
}

#[tokio::test]
async fn decision_voided_by_a_change_does_not_count() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-two-people").await;
    let signed = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&signed).await.name(), "counted");
    assert_eq!(app.send(&signed).await.name(), "repeated");
    app.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    app.discover().await;
    assert_eq!(app.send(&signed).await.name(), "connection-changed");
    assert_eq!(approval(&app, &id).await.approval_count(), 0);
}

#[tokio::test]
async fn decision_voided_by_the_rules_does_not_count() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-two-people").await;
    let signed = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&signed).await.name(), "counted");
    let security = "security = [\"alice\", \"bob\", \"carol\", \"erin\"]";
    let with = app.config.clone();
    let app = app.with_config(&with.replace(security, "security = [\"bob\", \"carol\"]"));
    clock::jump::advance(SignedDuration::from_secs(61));
    app.discover().await;
    assert_eq!(approval(&app, &id).await.approval_count(), 0);
    // The same request, signed once more, when she may approve again.
    let app = app.with_config(&with);
    let (_, webhook_id) = signed.headers.iter().find(|(name, _)| *name == "webhook-id").unwrap();
    let signed = app.sign_body_as(&signed.body, webhook_id, &clock::now().as_second().to_string());
    let reply = app.send(&signed).await;
    assert_eq!((reply.status, reply.name().as_str()), (409, "decision-void"), "{}", reply.body);
    assert_eq!((approval(&app, &id).await.approval_count(), app.count_accepts(&id)), (0, 0));
}

#[tokio::test]
async fn next_call_ends_a_doubt() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-other").await;
    app.simulator.add_fault(fails(ACCEPT, "Forbidden.RAM", 403));
    assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "underway");
    app.tamper(&id, shows("Missing"));
    clock::jump::advance(SignedDuration::from_secs(320));
    app.round().await;
    assert!(approval(&app, &id).await.unconfirmed.is_some());
    // It is there, and called for without an answer: that the next reading does not show it proves nothing.
    app.tamper(&id, shows("-"));
    app.simulator.add_fault(fails(ACCEPT, "InternalError", 500));
    clock::jump::advance(SignedDuration::from_secs(6));
    app.round().await;
    assert_eq!((app.count_calls(ACCEPT), approval(&app, &id).await.unconfirmed), (2, None));
    app.tamper(&id, shows("Missing"));
    clock::jump::advance(SignedDuration::from_secs(61));
    app.round().await;
    let doubt = approval(&app, &id).await.unconfirmed.unwrap();
    assert_eq!((approval(&app, &id).await.state, doubt.readings, doubt.needed), (ApprovalState::Approved, 1, 3));
}

#[tokio::test]
async fn list_with_the_pending_request_ends_a_doubt() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-two-people").await;
    let missing = fails("GetVpcPeerConnectionAttribute", "ResourceNotFound.InstanceId", 404);
    app.simulator.add_fault(Fault { times: 1000, ..missing });
    app.make_due(&id).await;
    app.round().await;
    assert!(approval(&app, &id).await.unconfirmed.is_some());
    minutes(&app, 4).await;
    assert_eq!(approval(&app, &id).await.state, ApprovalState::Pending);
    assert!(
        !app.posted_headlines(WEBHOOK_PATH).iter().any(|line| line.contains("was deleted")),
        "{:?}",
        app.posted_headlines(WEBHOOK_PATH)
    );
}

#[tokio::test]
async fn connection_accepted_elsewhere_is_not_rejected_again() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-other").await;
    app.simulator.add_fault(fails(REJECT, "Throttling.User", 400));
    assert_eq!(app.send(&app.sign_event("reject", &id, "alice").await).await.name(), "underway");
    app.tamper(&id, becomes("Activated"));
    clock::jump::advance(SignedDuration::from_secs(10));
    app.round().await;
    let failed = ApprovalState::Failed { code: "AcceptedElsewhere".into() };
    assert_eq!(approval(&app, &id).await.state, failed);
    let (told, rejects) = (app.posted_headlines(WEBHOOK_PATH), app.count_calls(REJECT));
    for _ in 0..3 {
        app.tamper(&id, shows("Accepting"));
        minutes(&app, 1).await;
        app.tamper(&id, shows("-"));
        minutes(&app, 1).await;
    }
    assert_eq!((approval(&app, &id).await.state, app.posted_headlines(WEBHOOK_PATH)), (failed, told));
    assert_eq!(app.count_calls(REJECT), rejects);
}

#[tokio::test]
async fn correction_restores_only_the_valid_approvals() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-two-people").await;
    assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "counted");
    app.simulator.add_fault(fails(ACCEPT, "Throttling.User", 400));
    assert_eq!(app.send(&app.sign_event("approve", &id, "bob").await).await.name(), "underway");
    let security = "security = [\"alice\", \"bob\", \"carol\", \"erin\"]";
    let config = app.config.replace(security, "security = [\"bob\", \"carol\"]");
    let app = app.with_config(&config);
    clock::jump::advance(SignedDuration::from_secs(10));
    app.round().await;
    assert_eq!(
        (approval(&app, &id).await.state, approval(&app, &id).await.approval_count()),
        (ApprovalState::Pending, 1)
    );
    app.tamper(&id, shows("Missing"));
    minutes(&app, 4).await;
    assert_eq!(approval(&app, &id).await.state, ApprovalState::Deleted);
    app.tamper(&id, shows("-"));
    minutes(&app, 1).await;
    assert_eq!(
        (approval(&app, &id).await.state, approval(&app, &id).await.approval_count()),
        (ApprovalState::Pending, 1)
    );
}

#[tokio::test]
async fn flapping_connection_fails_before_its_record_is_full() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-two-people").await;
    for _ in 0..30 {
        app.tamper(&id, shows("Expired"));
        app.discover().await;
        app.tamper(&id, shows("-"));
        app.discover().await;
    }
    let record = approval(&app, &id).await;
    assert_eq!(record.state, ApprovalState::Failed { code: "ChangedTooOften".into() });
    assert!(record.history.len() < 50, "{}", record.history.len());
}

#[tokio::test]
async fn unreadable_approved_request_ends_after_its_expiry() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-other").await;
    app.simulator.add_fault(fails(ACCEPT, "Throttling.User", 400));
    assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "underway");
    app.simulator.add_fault(Fault { times: 1000, ..fails("GetVpcPeerConnectionAttribute", "Nobody.KnowsThis", 400) });
    for _ in 0..9 {
        clock::jump::advance(SignedDuration::from_hours(24));
        app.round().await;
    }
    assert_eq!(approval(&app, &id).await.state, ApprovalState::Expired);
}

#[tokio::test]
async fn refused_decision_makes_no_rule_accept() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = app.request_peering(&[("AcceptingVpcId", "vpc-by-itself")]).await.unwrap();
    let reply = app.send(&app.sign_spec(&event_spec("reject", &id, "alice")).await).await;
    assert_eq!((reply.name().as_str(), approval(&app, &id).await.state), ("not-shown", ApprovalState::Pending));
    // The watcher looks at it, and makes the call at once.
    minutes(&app, 2).await;
    assert_eq!(app.count_accepts(&id), 1);
}

#[tokio::test]
async fn late_accept_with_a_new_overlap_asks_people_again() {
    let _alone = CLOCK.lock().await;
    let app = TestApp::with_settings(slow()).await;
    let id = requested(&app, "vpc-two-people").await;
    assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "counted");
    app.simulator.add_fault(fails(ACCEPT, "Throttling.User", 400));
    assert_eq!(app.send(&app.sign_event("approve", &id, "bob").await).await.name(), "underway");
    let cidrs = approval(&app, &id).await.facts.requester.cidrs;
    let other = app.request_peering(&[("AcceptingVpcId", "vpc-two-people"), ("VpcId", "vpc-twin")]).await.unwrap();
    app.tamper(&other, Tampering { requester_cidrs: Some(cidrs), ..Tampering::default() });
    clock::jump::advance(SignedDuration::from_secs(10));
    app.round().await;
    let record = approval(&app, &id).await;
    assert_eq!((record.state, app.count_accepts(&id)), (ApprovalState::Pending, 0));
    assert!(
        app.posted_headlines(WEBHOOK_PATH).iter().any(|line| line.contains("needs a new decision")),
        "{:?}",
        app.posted_headlines(WEBHOOK_PATH)
    );
}

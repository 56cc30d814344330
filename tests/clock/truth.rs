//! What channels hear is true: passing readings change nothing, and what was told wrongly is corrected. The clock of the
//! process is set ahead, so these tests have one of their own and run one after the other.

use std::time::Duration;

use crate::support::{CLOCK, Gate, HOOK, quick, wish};
use jiff::SignedDuration;
use peergate::approval::{Approval, Event, State, What};
use peergate::clock;
use peergate::local::simulator::gateway::Fault;
use peergate::local::simulator::{JournalEntry, Settings, Tampering};
use peergate::peering::InstanceId;

const ACCEPT: &str = "AcceptVpcPeerConnection";
const REJECT: &str = "RejectVpcPeerConnection";

/// Activations take longer than any test.
fn slow() -> Settings {
    Settings { activation: Duration::from_hours(24 * 30), ..quick() }
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

async fn requested(gate: &Gate, vpc: &str) -> InstanceId {
    let id = gate.request_peering(&[("AcceptingVpcId", vpc)]).await.unwrap();
    gate.discover().await;
    id
}

async fn approval(gate: &Gate, id: &InstanceId) -> Approval {
    gate.stored(id).await.unwrap().approval
}

/// Lets a minute pass, with a scheduled tick at its end.
async fn minutes(gate: &Gate, minutes: i64) {
    for _ in 0..minutes {
        clock::jump::ahead(SignedDuration::from_secs(61));
        gate.discover().await;
    }
}

async fn approved(gate: &Gate, vpc: &str) -> InstanceId {
    let id = requested(gate, vpc).await;
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "accepted");
    gate.round().await;
    id
}

#[tokio::test]
async fn updating_deleting_and_unknown_statuses_end_nothing_and_tell_nothing() {
    let _alone = CLOCK.lock().await;
    for status in ["Updating", "Deleting", "Creating", "Paused"] {
        let gate = Gate::with(slow()).await;
        let id = requested(&gate, "vpc-two-people").await;
        assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "counted");
        gate.round().await;
        let told = gate.headlines(HOOK);
        gate.tamper(&id, shows(status));
        minutes(&gate, 3).await;
        gate.make_due(&id).await;
        gate.round().await;
        assert_eq!((gate.state(&id).await.as_str(), approval(&gate, &id).await.given()), ("pending", 1), "{status}");
        assert_eq!(gate.headlines(HOOK), told, "{status}");
        gate.tamper(&id, shows("-"));
        minutes(&gate, 1).await;
        assert_eq!(gate.send(&gate.signed("approve", &id, "bob").await).await.name(), "accepted", "{status}");
        assert_eq!(gate.accepts(&id), 1, "{status}");
    }
}

#[tokio::test]
async fn a_decision_outlives_a_passing_status() {
    let _alone = CLOCK.lock().await;
    for (verb, action, state) in [("approve", ACCEPT, "activating"), ("reject", REJECT, "rejected")] {
        for status in ["Updating", "Deleting", "Missing"] {
            let gate = Gate::with(slow()).await;
            let id = requested(&gate, "vpc-other").await;
            gate.simulator.fault(fails(action, "Throttling.User", 400));
            assert_eq!(gate.send(&gate.signed(verb, &id, "alice").await).await.name(), "underway");
            gate.tamper(&id, shows(status));
            clock::jump::ahead(SignedDuration::from_secs(10));
            gate.round().await;
            let decided = approval(&gate, &id).await;
            assert!(
                matches!(decided.state, State::Approved | State::Rejecting),
                "{verb} {status}: {:?}",
                decided.state
            );
            let told = gate.headlines(HOOK).join("\n");
            assert!(!told.contains("accepted") && !told.contains("deleted"), "{verb} {status}: {told}");
            gate.tamper(&id, shows("-"));
            minutes(&gate, 2).await;
            assert_eq!(gate.state(&id).await, state, "{verb} {status}");
            assert_eq!(gate.simulator.effects(action, id.as_str()), 1, "{verb} {status}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_believed_after_a_second_reading_a_minute_later() {
    let _alone = CLOCK.lock().await;
    for gone in [becomes("Deleted"), shows("Missing"), shows("Deleted")] {
        let gate = Gate::with(slow()).await;
        let id = requested(&gate, "vpc-two-people").await;
        assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "counted");
        gate.tamper(&id, gone.clone());
        gate.discover().await;
        for _ in 0..3 {
            clock::jump::ahead(SignedDuration::from_secs(15));
            gate.discover().await;
        }
        assert_eq!((gate.state(&id).await.as_str(), approval(&gate, &id).await.given()), ("pending", 1), "{gone:?}");
        assert!(!gate.headlines(HOOK).join("\n").contains("deleted"), "{gone:?}");
        minutes(&gate, 1).await;
        assert_eq!(gate.state(&id).await, "deleted", "{gone:?}");
        assert_eq!(gate.headlines(HOOK).iter().filter(|line| line.contains("was deleted")).count(), 1);
        assert!(gate.card().labels().is_empty());
    }
}

#[tokio::test]
async fn soon_after_a_call_of_ours_it_takes_two_further_readings() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = approved(&gate, "vpc-other").await;
    gate.tamper(&id, shows("Missing"));
    gate.discover().await;
    minutes(&gate, 1).await;
    assert_eq!(gate.state(&id).await, "activating");
    minutes(&gate, 1).await;
    assert_eq!(gate.state(&id).await, "deleted");

    // Six minutes after the call, one further reading is enough.
    let id = approved(&gate, "vpc-another").await;
    minutes(&gate, 6).await;
    gate.tamper(&id, shows("Missing"));
    gate.discover().await;
    assert_eq!(gate.state(&id).await, "activating");
    minutes(&gate, 1).await;
    assert_eq!(gate.state(&id).await, "deleted");
}

#[tokio::test]
async fn what_was_told_as_over_and_is_alive_is_corrected() {
    let _alone = CLOCK.lock().await;
    for (ends, state, heard) in
        [("Deleted", "deleted", "deleted"), ("Rejected", "rejected", "rejected"), ("Expired", "expired", "expired")]
    {
        for alive in ["Accepting", "Activated"] {
            let gate = Gate::with(slow()).await;
            let id = requested(&gate, "vpc-two-people").await;
            assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "counted");
            gate.tamper(&id, shows(ends));
            gate.discover().await;
            minutes(&gate, 1).await;
            assert_eq!(gate.state(&id).await, state);
            assert!(gate.card().labels().is_empty());
            gate.tamper(&id, shows("-"));
            if alive == "Activated" {
                gate.tamper(&id, becomes("Activated"));
            }
            minutes(&gate, 1).await;
            let record = approval(&gate, &id).await;
            let told = gate.headlines(HOOK).join("\n");
            let correction = if alive == "Activated" {
                format!("Correction: VPC peering prod/{id} was reported as {heard}, but it is Activated")
            } else {
                format!("Correction: VPC peering prod/{id} was reported as {heard}, but it waits for a decision")
            };
            assert!(told.contains(&correction), "{ends} → {alive}: {told}");
            if alive == "Activated" {
                assert_eq!(record.state, State::Activated);
                assert!(gate.card().text.contains("somebody outside peergate"), "{}", gate.card().text);
            } else {
                assert_eq!((&record.state, record.given()), (&State::Pending, 1), "Alice's approval counts again");
                assert_eq!(gate.send(&gate.signed("approve", &id, "bob").await).await.name(), "accepted");
            }
        }
    }
}

#[tokio::test]
async fn a_failure_is_corrected_when_the_connection_is_activated_all_the_same() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-other").await;
    gate.simulator.fault(fails(ACCEPT, "OperationFailed.CdtNotOpened", 400));
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "failed");
    gate.round().await;
    minutes(&gate, 1).await;
    assert_eq!(gate.state(&id).await, "failed", "that it waits is what people know");
    gate.tamper(&id, becomes("Activated"));
    minutes(&gate, 1).await;
    assert_eq!(gate.state(&id).await, "activated");
    let card = gate.card();
    assert!(card.text.starts_with(&format!("VPC peering prod/{id} is Activated")), "{}", card.text);
    assert!(card.labels().is_empty() && card.text.contains("somebody outside peergate"), "{}", card.text);
}

#[tokio::test]
async fn an_acknowledged_accept_that_comes_to_nothing_is_made_again_with_a_new_token() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = approved(&gate, "vpc-other").await;
    let token = approval(&gate, &id).await.client_token.unwrap();
    gate.tamper(&id, becomes("Accepting"));
    gate.discover().await;
    minutes(&gate, 1).await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("activating", 1), "not yet confirmed");
    minutes(&gate, 1).await;
    let record = approval(&gate, &id).await;
    assert_eq!((record.generation, record.given()), (2, 1), "the approvals are kept");
    assert_ne!(record.client_token.as_ref().unwrap(), &token);
    clock::jump::ahead(SignedDuration::from_secs(10));
    gate.round().await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("activating", 2));
    let told = gate.headlines(HOOK).join("\n");
    assert!(
        told.contains(&format!("Correction: VPC peering prod/{id} still waits, so peergate accepts it again")),
        "{told}"
    );

    // Three times; then it is a failure.
    for _ in 0..3 {
        gate.tamper(&id, becomes("Accepting"));
        minutes(&gate, 4).await;
        clock::jump::ahead(SignedDuration::from_secs(10));
        gate.round().await;
    }
    let record = approval(&gate, &id).await;
    assert_eq!((record.state.name(), gate.accepts(&id)), ("failed", 4));
    assert!(gate.card().text.contains("Code: CallUndone"), "{}", gate.card().text);
    assert_eq!(gate.card().labels(), ["Approve", "Reject", "Details"]);
}

#[tokio::test]
async fn a_lagging_reading_after_an_acknowledged_call_tells_nothing() {
    let _alone = CLOCK.lock().await;
    for (verb, state) in [("approve", "activating"), ("reject", "rejected")] {
        let gate = Gate::with(slow()).await;
        let id = requested(&gate, "vpc-other").await;
        gate.send(&gate.signed(verb, &id, "alice").await).await;
        gate.round().await;
        let told = gate.headlines(HOOK);
        gate.tamper(&id, shows("Accepting"));
        gate.discover().await;
        minutes(&gate, 1).await;
        gate.tamper(&id, shows("-"));
        minutes(&gate, 3).await;
        assert_eq!((gate.state(&id).await.as_str(), gate.headlines(HOOK)), (state, told), "{verb}");
        assert_eq!(gate.calls(ACCEPT) + gate.calls(REJECT), 1, "{verb}");
        let record = approval(&gate, &id).await;
        assert!(record.doubt.is_none() && (state == "activating" || record.next_step_at.is_none()), "{record:?}");
    }
}

#[tokio::test]
async fn a_request_past_its_expiry_neither_waits_nor_reminds_whatever_its_status_says() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let ids = [requested(&gate, "vpc-two-people").await, requested(&gate, "vpc-other").await];
    for id in &ids {
        let soon = clock::now() + SignedDuration::from_mins(30);
        gate.tamper(id, Tampering { expires_at: Some(soon), shows: Some("Accepting".into()), ..Tampering::default() });
    }
    minutes(&gate, 2).await;
    let before = gate.headlines(HOOK).len();
    // One still says that it waits, the other that it is updated.
    clock::jump::ahead(SignedDuration::from_mins(40));
    gate.tamper(&ids[1], shows("Updating"));
    for _ in 0..20 {
        clock::jump::ahead(SignedDuration::from_hours(2));
        gate.discover().await;
    }
    assert_eq!([gate.state(&ids[0]).await, gate.state(&ids[1]).await], ["expired", "pending"]);
    let told = gate.headlines(HOOK)[before..].join("\n");
    assert!(told.contains("has expired") && !told.contains("has waited") && !told.contains("expires at"), "{told}");
    let list = gate.send(&gate.slash("list", "U061F7AUR").await).await.body;
    assert!(list.contains("past its expiry") && !list.contains("0 of 1 approvals"), "{list}");
    let status = gate.send(&gate.slash(&format!("status {}", ids[1]), "U061F7AUR").await).await.body;
    assert!(!status.contains("peergate.approve"), "{status}");
    gate.tamper(&ids[1], shows("Accepting"));
    let reply = gate.send(&gate.signed("approve", &ids[1], "alice").await).await;
    assert_eq!((reply.name().as_str(), gate.calls(ACCEPT)), ("not-acceptable", 0), "{}", reply.body);
}

/// What it is called, how the configuration changes, what its business status becomes, and why people are asked.
type Change = (&'static str, fn(&str) -> String, Option<&'static str>, &'static str);

#[tokio::test]
async fn a_late_accept_asks_the_rules_and_checks_of_now() {
    let _alone = CLOCK.lock().await;
    let same = |config: &str| config.to_owned();
    let changes: [Change; 4] = [
        (
            "another approver",
            |config| config.replace("netops = [\"alice\", \"bob\"]", "netops = [\"bob\"]"),
            None,
            "now needs 1 of its approvers",
        ),
        (
            "more approvals",
            |config| {
                config.replace("name = \"data team\"\ntarget = \"prod\"\nrequester_accounts = [\"1111111111111111\"]\napprovals = 1", "name = \"data team\"\ntarget = \"prod\"\nrequester_accounts = [\"1111111111111111\"]\napprovals = 2")
            },
            None,
            "now needs 2 of its approvers",
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
        ("an objection", same, Some("FinancialLocked"), "A check now fails: its business status is FinancialLocked"),
    ];
    for (name, config, business_status, why) in changes {
        let gate = Gate::with(slow()).await;
        let id = requested(&gate, "vpc-other").await;
        gate.simulator.fault(fails(ACCEPT, "Throttling.User", 400));
        assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "underway");
        let rewritten = config(&gate.config);
        assert!(business_status.is_some() || gate.config != rewritten, "{name}");
        let gate = gate.with_config(&rewritten);
        gate.tamper(&id, Tampering { business_status: business_status.map(Into::into), ..Tampering::default() });
        clock::jump::ahead(SignedDuration::from_secs(10));
        gate.round().await;
        let record = approval(&gate, &id).await;
        assert_eq!(
            (&record.state, record.given(), gate.accepts(&id)),
            (&State::Pending, u32::from(name == "more approvals"), 0),
            "{name}"
        );
        let told = gate.replies().join("\n");
        assert!(told.contains("was not accepted and needs a new decision") && told.contains(why), "{name}: {told}");
        minutes(&gate, 3).await;
        assert_eq!(gate.calls(ACCEPT), 1, "{name}: nothing is called until people decide");
    }
}

#[tokio::test]
async fn while_a_call_may_have_arrived_only_a_reading_settles_it() {
    let _alone = CLOCK.lock().await;
    for takes_effect in [true, false] {
        let gate = Gate::with(slow()).await;
        let id = requested(&gate, "vpc-other").await;
        // No answer that says what came of it.
        gate.simulator.fault(Fault { after_effect: takes_effect, ..fails(ACCEPT, "InternalError", 500) });
        if takes_effect {
            gate.tamper(&id, shows("Accepting"));
        }
        assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "underway");
        let config = gate.config.replace("netops = [\"alice\", \"bob\"]", "netops = [\"bob\"]");
        let gate = gate.with_config(&config);
        for _ in 0..2 {
            clock::jump::ahead(SignedDuration::from_secs(30));
            gate.round().await;
            assert_eq!((gate.state(&id).await.as_str(), gate.calls(ACCEPT)), ("approved", 1), "{takes_effect}");
        }
        if takes_effect {
            gate.tamper(&id, becomes("Activated"));
            gate.tamper(&id, shows("-"));
            minutes(&gate, 1).await;
            let record = approval(&gate, &id).await;
            assert_eq!(record.state, State::Activated);
            assert!(!gate.card().text.contains("somebody outside"), "it was ours: {}", gate.card().text);
        } else {
            minutes(&gate, 4).await;
            assert_eq!((gate.state(&id).await.as_str(), gate.calls(ACCEPT)), ("pending", 1));
            assert!(gate.replies().join("\n").contains("needs a new decision"));
        }
    }
}

#[tokio::test]
async fn a_late_rejection_is_carried_out_whatever_the_rules_say_by_then() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-other").await;
    gate.simulator.fault(fails(REJECT, "Throttling.User", 400));
    assert_eq!(gate.send(&gate.signed("reject", &id, "alice").await).await.name(), "underway");
    let config = gate.config.replace("netops = [\"alice\", \"bob\"]", "netops = [\"bob\"]");
    let gate = gate.with_config(&config);
    clock::jump::ahead(SignedDuration::from_secs(10));
    gate.round().await;
    assert_eq!((gate.state(&id).await.as_str(), gate.simulator.effects(REJECT, id.as_str())), ("rejected", 1));
}

#[tokio::test]
async fn a_code_that_nobody_knows_is_tried_for_a_day() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-other").await;
    gate.simulator.fault(Fault { times: 9999, ..fails(ACCEPT, "SomethingNew.NobodyKnows", 400) });
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "underway");
    minutes(&gate, 15).await;
    assert_eq!(gate.state(&id).await, "approved");
    assert!(gate.replies().join("\n").contains("could not be carried out yet"), "people know after ten minutes");
    for _ in 0..24 {
        clock::jump::ahead(SignedDuration::from_hours(1));
        gate.round().await;
    }
    assert_eq!(gate.state(&id).await, "failed");
    assert!(gate.card().text.contains("Code: SomethingNew.NobodyKnows"), "{}", gate.card().text);
}

#[tokio::test]
async fn a_refused_request_stays_refused_for_three_days() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-other").await;
    let body = |gate: &Gate| gate.wish("approve", &id, "alice").fingerprint.unwrap();
    let seen = body(&gate);
    let send = async |webhook_id: &str, fingerprint: Option<&str>| {
        let data = match fingerprint {
            Some(it) => serde_json::json!({"instance_id": id, "actor": "alice", "fingerprint": it}),
            None => serde_json::json!({"instance_id": id, "actor": "alice"}),
        };
        let body = serde_json::json!({"type": "peering.approve", "data": data}).to_string();
        gate.send(&gate.signed_as(&body, webhook_id, &clock::now().as_second().to_string())).await.name()
    };
    gate.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    assert_eq!(send("with", Some(&seen)).await, "connection-changed");
    assert_eq!(send("without", None).await, "connection-changed");
    // The card shows the change; then the old facts again.
    gate.discover().await;
    gate.tamper(&id, Tampering { bandwidth: Some(1024), ..Tampering::default() });
    gate.discover().await;
    clock::jump::ahead(SignedDuration::from_secs(2));
    for again in 0..3 {
        assert_eq!(send("with", Some(&seen)).await, "connection-changed", "{again}");
        assert_eq!(send("without", None).await, "connection-changed", "{again}");
        clock::jump::ahead(SignedDuration::from_hours(20));
    }
    assert_eq!(gate.calls(ACCEPT), 0);
    assert_eq!(send("another", None).await, "accepted");
}

#[tokio::test]
async fn without_a_fingerprint_a_decision_is_about_what_was_shown_before_it_was_signed() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = gate.request_peering(&[("AcceptingVpcId", "vpc-two-people")]).await.unwrap();
    let before = clock::now();
    let sign = |actor: &str, header: jiff::Timestamp, body: Option<jiff::Timestamp>| {
        let data = serde_json::json!({"instance_id": id, "actor": actor});
        let mut body_json = serde_json::json!({"type": "peering.approve", "data": data});
        if let Some(at) = body {
            body_json["timestamp"] = at.to_string().into();
        }
        gate.signed_as(&body_json.to_string(), &clock::nonce(), &header.as_second().to_string())
    };
    let unseen = gate.send(&sign("alice", clock::now(), None)).await;
    assert_eq!((unseen.status, unseen.name().as_str()), (409, "not-shown"));
    clock::jump::ahead(SignedDuration::from_secs(10));
    gate.tick().await;
    assert_eq!(gate.sink.channel("C0PEER").len(), 1, "the webhook has written down what it heard of");
    clock::jump::ahead(SignedDuration::from_secs(10));
    // The header is fresh, but what it tells of happened before the card was there.
    assert_eq!(gate.send(&sign("alice", clock::now(), Some(before))).await.name(), "connection-changed");
    assert_eq!(gate.send(&sign("alice", before, None)).await.name(), "connection-changed");
    assert_eq!(gate.send(&sign("alice", before, Some(clock::now()))).await.name(), "connection-changed");
    assert_eq!(gate.send(&sign("alice", clock::now(), None)).await.name(), "counted");
    let shown_at = approval(&gate, &id).await.cards["netops"].shown_at;
    assert_eq!(gate.send(&sign("bob", shown_at, None)).await.name(), "accepted", "the same second counts");
    let history = approval(&gate, &id).await.history;
    assert_eq!(history.iter().filter(|entry| matches!(entry.what, What::Decided(_))).count(), 2);
}

#[tokio::test]
async fn only_a_channel_of_the_rule_or_of_requests_shows_what_is_decided_on() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let config = gate.config.replace("[requests]\nchannels = [\"netops\"]", "[requests]\nchannels = []");
    let gate = gate.with_config(&config);
    let id = requested(&gate, "vpc-other").await;
    let moved = config.replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = [\"oncall\"]");
    let gate = gate.with_config(&moved);
    let blind = gate.signed_wish(&wish("approve", &id, "alice")).await;
    assert_eq!(gate.send(&blind).await.name(), "connection-changed", "the rule's channel knows nothing of it");
    gate.discover().await;
    clock::jump::ahead(SignedDuration::from_secs(1));
    assert_eq!(gate.send(&gate.signed_wish(&wish("approve", &id, "alice")).await).await.name(), "accepted");
}

#[tokio::test]
async fn an_older_reading_brings_no_old_facts_back_and_its_request_stays_refused() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-other").await;
    let changes = |bandwidth| gate.tamper(&id, Tampering { bandwidth: Some(bandwidth), ..Tampering::default() });
    changes(11);
    let fingerprint = gate.wish("approve", &id, "alice").fingerprint.unwrap();
    let data = serde_json::json!({"instance_id": id, "actor": "alice", "fingerprint": fingerprint});
    let body = serde_json::json!({"type": "peering.approve", "data": data}).to_string();
    let sign = || gate.signed_as(&body, "job-9", &clock::now().as_second().to_string());
    // The checks of the webhook last longer than what is written meanwhile.
    let slow = Fault { action: Some("ListVpcPeerConnections".into()), delay_ms: 2500, code: None, ..Fault::default() };
    gate.simulator.fault(slow);
    let (signed, calls) = (sign(), gate.simulator.journal().len());
    let meanwhile = async {
        while !gate.simulator.journal().iter().skip(calls).any(JournalEntry::is_dry_run) {
            tokio::task::yield_now().await;
        }
        changes(22);
        let connection = Box::new(gate.simulator.connection(id.as_str()).unwrap());
        let change = Event::Changed { connection, findings: vec![] };
        let stored = gate.stored(&id).await.unwrap();
        gate.app.store.update(stored, |approval| approval.apply(&change, clock::now())).await.unwrap();
        assert_eq!(approval(&gate, &id).await.facts.bandwidth_mbps, Some(22));
    };
    let (reply, ()) = tokio::join!(gate.send(&signed), meanwhile);
    assert_eq!((reply.name().as_str(), gate.accepts(&id)), ("connection-changed", 0));
    assert_eq!(approval(&gate, &id).await.facts.bandwidth_mbps, Some(22));
    // When the facts are those again, the request is the one that was refused.
    changes(11);
    gate.discover().await;
    clock::jump::ahead(SignedDuration::from_secs(61));
    let reply = gate.send(&sign()).await;
    assert_eq!((reply.name().as_str(), gate.accepts(&id)), ("connection-changed", 0));
}

#[tokio::test]
async fn a_decision_that_a_change_has_voided_is_not_said_to_count() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-two-people").await;
    let signed = gate.signed("approve", &id, "alice").await;
    assert_eq!(gate.send(&signed).await.name(), "counted");
    assert_eq!(gate.send(&signed).await.name(), "repeated");
    gate.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    gate.discover().await;
    assert_eq!(gate.send(&signed).await.name(), "connection-changed");
    assert_eq!(approval(&gate, &id).await.given(), 0);
}

#[tokio::test]
async fn a_decision_that_the_rules_have_voided_is_not_said_to_count() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-two-people").await;
    let signed = gate.signed("approve", &id, "alice").await;
    assert_eq!(gate.send(&signed).await.name(), "counted");
    let security = "security = [\"alice\", \"bob\", \"carol\", \"erin\"]";
    let with = gate.config.clone();
    let gate = gate.with_config(&with.replace(security, "security = [\"bob\", \"carol\"]"));
    clock::jump::ahead(SignedDuration::from_secs(61));
    gate.discover().await;
    assert_eq!(approval(&gate, &id).await.given(), 0);
    // The same request, signed once more, when she may approve again.
    let gate = gate.with_config(&with);
    let (_, webhook_id) = signed.headers.iter().find(|(name, _)| *name == "webhook-id").unwrap();
    let signed = gate.signed_as(&signed.body, webhook_id, &clock::now().as_second().to_string());
    let reply = gate.send(&signed).await;
    assert_eq!((reply.status, reply.name().as_str()), (409, "decision-void"), "{}", reply.body);
    assert_eq!((approval(&gate, &id).await.given(), gate.accepts(&id)), (0, 0));
}

#[tokio::test]
async fn a_doubt_ends_with_the_next_call() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-other").await;
    gate.simulator.fault(fails(ACCEPT, "Forbidden.RAM", 403));
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "underway");
    gate.tamper(&id, shows("Missing"));
    clock::jump::ahead(SignedDuration::from_secs(320));
    gate.round().await;
    assert!(approval(&gate, &id).await.doubt.is_some());
    // It is there, and called for without an answer: that the next reading does not show it proves nothing.
    gate.tamper(&id, shows("-"));
    gate.simulator.fault(fails(ACCEPT, "InternalError", 500));
    clock::jump::ahead(SignedDuration::from_secs(6));
    gate.round().await;
    assert_eq!((gate.calls(ACCEPT), approval(&gate, &id).await.doubt), (2, None));
    gate.tamper(&id, shows("Missing"));
    clock::jump::ahead(SignedDuration::from_secs(61));
    gate.round().await;
    let doubt = approval(&gate, &id).await.doubt.unwrap();
    assert_eq!((approval(&gate, &id).await.state, doubt.readings, doubt.needed), (State::Approved, 1, 3));
}

#[tokio::test]
async fn a_list_that_shows_a_request_waiting_ends_the_doubt() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-two-people").await;
    let missing = fails("GetVpcPeerConnectionAttribute", "ResourceNotFound.InstanceId", 404);
    gate.simulator.fault(Fault { times: 1000, ..missing });
    gate.make_due(&id).await;
    gate.round().await;
    assert!(approval(&gate, &id).await.doubt.is_some());
    minutes(&gate, 4).await;
    assert_eq!(approval(&gate, &id).await.state, State::Pending);
    assert!(!gate.headlines(HOOK).iter().any(|line| line.contains("was deleted")), "{:?}", gate.headlines(HOOK));
}

#[tokio::test]
async fn what_was_accepted_elsewhere_is_not_rejected_again_for_one_old_reading() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-other").await;
    gate.simulator.fault(fails(REJECT, "Throttling.User", 400));
    assert_eq!(gate.send(&gate.signed("reject", &id, "alice").await).await.name(), "underway");
    gate.tamper(&id, becomes("Activated"));
    clock::jump::ahead(SignedDuration::from_secs(10));
    gate.round().await;
    let failed = State::Failed { code: "AcceptedElsewhere".into() };
    assert_eq!(approval(&gate, &id).await.state, failed);
    let (told, rejects) = (gate.headlines(HOOK), gate.calls(REJECT));
    for _ in 0..3 {
        gate.tamper(&id, shows("Accepting"));
        minutes(&gate, 1).await;
        gate.tamper(&id, shows("-"));
        minutes(&gate, 1).await;
    }
    assert_eq!((approval(&gate, &id).await.state, gate.headlines(HOOK)), (failed, told));
    assert_eq!(gate.calls(REJECT), rejects);
}

#[tokio::test]
async fn a_correction_restores_the_approvals_that_the_rules_had_kept() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-two-people").await;
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "counted");
    gate.simulator.fault(fails(ACCEPT, "Throttling.User", 400));
    assert_eq!(gate.send(&gate.signed("approve", &id, "bob").await).await.name(), "underway");
    let security = "security = [\"alice\", \"bob\", \"carol\", \"erin\"]";
    let config = gate.config.replace(security, "security = [\"bob\", \"carol\"]");
    let gate = gate.with_config(&config);
    clock::jump::ahead(SignedDuration::from_secs(10));
    gate.round().await;
    assert_eq!((approval(&gate, &id).await.state, approval(&gate, &id).await.given()), (State::Pending, 1));
    gate.tamper(&id, shows("Missing"));
    minutes(&gate, 4).await;
    assert_eq!(approval(&gate, &id).await.state, State::Deleted);
    gate.tamper(&id, shows("-"));
    minutes(&gate, 1).await;
    assert_eq!((approval(&gate, &id).await.state, approval(&gate, &id).await.given()), (State::Pending, 1));
}

#[tokio::test]
async fn a_connection_that_comes_and_goes_fails_before_its_record_is_full() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-two-people").await;
    for _ in 0..30 {
        gate.tamper(&id, shows("Expired"));
        gate.discover().await;
        gate.tamper(&id, shows("-"));
        gate.discover().await;
    }
    let record = approval(&gate, &id).await;
    assert_eq!(record.state, State::Failed { code: "ChangedTooOften".into() });
    assert!(record.history.len() < 50, "{}", record.history.len());
}

#[tokio::test]
async fn what_was_approved_and_cannot_be_read_ends_after_its_expiry() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-other").await;
    gate.simulator.fault(fails(ACCEPT, "Throttling.User", 400));
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "underway");
    gate.simulator.fault(Fault { times: 1000, ..fails("GetVpcPeerConnectionAttribute", "Nobody.KnowsThis", 400) });
    for _ in 0..9 {
        clock::jump::ahead(SignedDuration::from_hours(24));
        gate.round().await;
    }
    assert_eq!(approval(&gate, &id).await.state, State::Expired);
}

#[tokio::test]
async fn a_refused_decision_makes_no_rule_accept() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = gate.request_peering(&[("AcceptingVpcId", "vpc-by-itself")]).await.unwrap();
    let reply = gate.send(&gate.signed_wish(&wish("reject", &id, "alice")).await).await;
    assert_eq!((reply.name().as_str(), approval(&gate, &id).await.state), ("not-shown", State::Pending));
    // The watcher looks at it, and makes the call at once.
    minutes(&gate, 2).await;
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn a_late_accept_asks_people_again_about_an_overlap_that_is_new() {
    let _alone = CLOCK.lock().await;
    let gate = Gate::with(slow()).await;
    let id = requested(&gate, "vpc-two-people").await;
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "counted");
    gate.simulator.fault(fails(ACCEPT, "Throttling.User", 400));
    assert_eq!(gate.send(&gate.signed("approve", &id, "bob").await).await.name(), "underway");
    let cidrs = approval(&gate, &id).await.facts.requester.cidrs;
    let other = gate.request_peering(&[("AcceptingVpcId", "vpc-two-people"), ("VpcId", "vpc-twin")]).await.unwrap();
    gate.tamper(&other, Tampering { requester_cidrs: Some(cidrs), ..Tampering::default() });
    clock::jump::ahead(SignedDuration::from_secs(10));
    gate.round().await;
    let record = approval(&gate, &id).await;
    assert_eq!((record.state, gate.accepts(&id)), (State::Pending, 0));
    assert!(
        gate.headlines(HOOK).iter().any(|line| line.contains("needs a new decision")),
        "{:?}",
        gate.headlines(HOOK)
    );
}

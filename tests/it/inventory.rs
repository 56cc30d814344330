//! `peergate inventory` and `peergate adopt`, with the table in a file.

use crate::drift::minutes;
use crate::recovery::{backup, restore};
use crate::support::prelude::*;
use aws_sdk_dynamodb::types::AttributeValue;
use peergate::accept;
use peergate::approval::{ApprovalId, History, InventoryOrigin};

/// Approved by peergate, accepted elsewhere before peergate knew of it, and pending.
struct Peerings {
    approved: InstanceId,
    elsewhere: InstanceId,
    pending: InstanceId,
}

async fn machine_with_peerings() -> (Machine, Peerings) {
    let mut machine = Machine::new(quick_settings()).await;
    let request = async |vpc: &str, theirs: &str| {
        machine.app.request_peering(&[("AcceptingVpcId", vpc), ("VpcId", theirs)]).await.unwrap()
    };
    let elsewhere = request("vpc-other", "vpc-a").await;
    assert!(
        machine
            .app
            .simulator
            .tamper(elsewhere.as_str(), Tampering { status: Some("Activated".into()), ..Tampering::default() })
    );
    let approved = request("vpc-other", "vpc-b").await;
    let pending = request("vpc-two-people", "vpc-c").await;
    machine.serve(&[]).await;
    machine.wait_for_record(&approved, "pending").await;
    assert_eq!(machine.approve(&approved, "alice").await.0, 200);
    machine.wait_for_record(&approved, "activated").await;
    machine.wait_for_record(&pending, "pending").await;
    (machine, Peerings { approved, elsewhere, pending })
}

#[tokio::test]
async fn inventory_says_who_stands_behind_each_peering() {
    let (machine, Peerings { approved, elsewhere, pending }) = machine_with_peerings().await;
    let lines: Value = serde_json::from_str(&machine.run(&["inventory", "--format", "json"]).await.unwrap()).unwrap();
    let line = |id: &InstanceId| {
        lines.as_array().unwrap().iter().find(|line| line["instance_id"] == id.as_str()).unwrap().clone()
    };
    assert_eq!(line(&approved)["origin"], "approved");
    assert_eq!((&line(&approved)["approved_by"], &line(&approved)["rule"]), (&json!(["alice"]), &json!("data team")));
    assert_eq!(line(&elsewhere)["origin"], "never_approved");
    assert_eq!(line(&pending)["origin"], "not_active");

    let failed = machine.run(&["inventory", "--check"]).await.unwrap_err();
    assert!(failed.contains("1 active peering was never approved here"), "{failed}");
    let csv = machine.run(&["inventory", "--format", "csv"]).await.unwrap();
    assert!(csv.starts_with("\"connection\",\"role\",") && csv.contains("\"never approved here\""), "{csv}");
    let table = machine.run(&["inventory"]).await.unwrap();
    assert_eq!(table.lines().count(), 4, "{table}");

    let adopt = ["adopt", elsewhere.as_str(), "--reason", "from before peergate", "--by", "carol"];
    let adopted = machine.run(&adopt).await.unwrap();
    assert!(adopted.contains("what it is now counts as approved"), "{adopted}");
    assert!(machine.run(&adopt).await.unwrap_err().contains("approved or adopted here already"));
    machine.run(&["inventory", "--check"]).await.unwrap();
    let shown = machine.run(&["show", elsewhere.as_str()]).await.unwrap();
    assert!(shown.contains("adopted by carol (from before peergate)"), "{shown}");
    machine.run(&["verify"]).await.unwrap();
}

#[tokio::test]
async fn only_active_peerings_that_nobody_approved_are_adopted() {
    let (machine, Peerings { approved, pending, .. }) = machine_with_peerings().await;
    for (id, reason, problem) in [
        (&approved, "why", "approved or adopted here already"),
        (&pending, "why", "only an active peering"),
        (&pending, " ", "give a reason"),
    ] {
        let refused = machine.run(&["adopt", id.as_str(), "--reason", reason, "--by", "carol"]).await.unwrap_err();
        assert!(refused.contains(problem), "{refused}");
    }
    for by in [" ", &"n".repeat(101)] {
        let refused = machine.run(&["adopt", pending.as_str(), "--reason", "why", "--by", by]).await.unwrap_err();
        assert!(refused.contains("give a name of at most 100 characters"), "{refused}");
    }
}

/// Adopts a connection that was active before peergate knew of it.
pub async fn adopted(app: &TestApp) -> InstanceId {
    let id = app.new_request_for("vpc-other").await;
    app.set_status(&id, "Activated");
    app.discover().await;
    let approval_id = ApprovalId { target: "prod".into(), instance_id: id.clone() };
    accept::adopt_connection(&app.parts, &approval_id, "carol", "from before peergate").await.unwrap();
    app.make_due(&id).await;
    app.follow().await;
    id
}

#[tokio::test]
async fn adoption_is_told_once_and_the_peering_is_followed() {
    let app = TestApp::start().await;
    let id = adopted(&app).await;
    let card = app.only_card();
    assert!(card.text.contains("carol adopted it"), "{}", card.text);
    assert_eq!(card.button_labels(), Vec::<String>::new());
    let told = app.thread_replies();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("was adopted"), "{told:?}");
    app.set_bandwidth(&id, 5);
    minutes(&app, 2).await;
    assert!(app.thread_replies().last().unwrap().contains("is not as approved any more"), "{:?}", app.thread_replies());
    let record = serde_json::to_value(app.approval(&id).await).unwrap();
    History::verify(&format!("prod/{id}"), &record).unwrap();
}

/// What is left out is named. Nothing is called unapproved because it could not be read.
#[tokio::test]
async fn gaps_of_the_inventory_are_named() {
    let app = TestApp::start().await;
    let (strange, newer, plain) =
        (app.new_request_for("vpc-other").await, app.new_request_for("vpc-one").await, app.new_request().await);
    app.discover().await;
    app.simulator.disguise(strange.as_str(), &[("Bandwidth", r#""unlimited""#)]);
    let mut item = backup(&app, &newer).await;
    let record = item["record"].as_s().unwrap().replace(r#""schema":2"#, r#""schema":3"#);
    item.insert("record".into(), AttributeValue::S(record));
    restore(&app, item).await;

    let inventory = accept::list_inventory(&app.parts, None).await.unwrap();
    let listed: Vec<_> = inventory.lines.iter().map(|line| line.instance_id.clone()).collect();
    assert_eq!(listed, [plain]);
    let gap = |text: String| assert!(inventory.gaps.contains(&text), "{text}: {:?}", inventory.gaps);
    gap(format!("prod/{strange}: the answer cannot be understood"));
    gap(format!("prod/{newer}: its record cannot be read"));

    app.fail_times(9, "ListVpcPeerConnections", "Forbidden.RAM");
    let inventory = accept::list_inventory(&app.parts, None).await.unwrap();
    assert!(inventory.lines.is_empty());
    assert!(inventory.gaps.iter().any(|gap| gap.ends_with(": Forbidden.RAM")), "{:?}", inventory.gaps);
}

/// What is adopted is proven by its history, also after a bypass. Nothing is called.
#[tokio::test]
async fn bypassed_peering_is_adopted_once_seen() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    app.approve(&id, "alice").await.assert(200, "counted");
    app.set_status(&id, "Activated");
    let approval_id = ApprovalId { target: "prod".into(), instance_id: id.clone() };
    let before = app.load_record(&id).await.unwrap().version;
    let early = accept::adopt_connection(&app.parts, &approval_id, "carol", "in use").await.unwrap_err();
    assert!(matches!(early, accept::AdoptionError::InProgress), "{early}");
    assert_eq!(app.load_record(&id).await.unwrap().version, before, "a refusal writes nothing");
    app.discover().await;
    app.discover().await;
    app.assert_state(&id, "activated").await;
    accept::adopt_connection(&app.parts, &approval_id, "carol", "in use").await.unwrap();
    let inventory = accept::list_inventory(&app.parts, None).await.unwrap();
    assert_eq!(inventory.lines[0].origin, InventoryOrigin::Adopted);
    let record = serde_json::to_value(app.approval(&id).await).unwrap();
    History::verify(&format!("prod/{id}"), &record).unwrap();
    assert_eq!(app.count_calls(ACCEPT), 0);
}

/// The inventory names as unapproved what the watcher would tell as a bypass, and nothing else.
#[tokio::test]
async fn peerings_that_nobody_must_approve_are_no_finding() {
    let app = TestApp::start().await;
    let (same_account, service, foreign) =
        (app.new_request().await, app.new_request_for("vpc-one").await, app.new_request_for("vpc-other").await);
    for id in [&same_account, &service, &foreign] {
        app.set_status(id, "Activated");
    }
    app.simulator.disguise(same_account.as_str(), &[("OwnerId", "2222222222222222")]);
    app.simulator.disguise(service.as_str(), &[("ManagedService", "\"SWAS\"")]);
    let inventory = accept::list_inventory(&app.parts, None).await.unwrap();
    let origin = |id: &InstanceId| inventory.lines.iter().find(|line| line.instance_id == *id).map(|line| line.origin);
    assert_eq!(origin(&same_account), Some(InventoryOrigin::NoApprovalNeeded));
    assert_eq!(origin(&service), Some(InventoryOrigin::NoApprovalNeeded));
    assert_eq!(origin(&foreign), Some(InventoryOrigin::NeverApproved));
}

//! `peergate inventory` and `peergate adopt`, with the table in a file.

use crate::drift::minutes;
use crate::recovery::{backup, restore};
use crate::support::prelude::*;
use aws_sdk_dynamodb::types::AttributeValue;
use peergate::accept::{self, Inventory, InventoryScope};
use peergate::approval::{ApprovalId, History, InventoryOrigin};
use peergate::fake::slack::visible_text;

/// Approved by peergate, accepted elsewhere before peergate knew of it, and pending.
struct Peerings {
    approved: InstanceId,
    elsewhere: InstanceId,
    pending: InstanceId,
}

/// What an operator would list.
async fn whole_inventory(app: &TestApp) -> Inventory {
    let until = tokio::time::Instant::now() + Duration::from_hours(1);
    accept::list_inventory(&app.parts, InventoryScope { target: None, until, for_people: false }).await.unwrap()
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
    assert!(table.lines().next().unwrap().contains("  age    origin") && table.contains("  0 min  "), "{table}");

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

    let inventory = whole_inventory(&app).await;
    let listed: Vec<_> = inventory.lines.iter().map(|line| line.instance_id.clone()).collect();
    assert_eq!(listed, [plain]);
    let gap = |text: String| assert!(inventory.gaps.contains(&text), "{text}: {:?}", inventory.gaps);
    gap(format!("prod/{strange}: the answer cannot be understood"));
    gap(format!("prod/{newer}: its record cannot be read"));

    app.fail_times(9, "ListVpcPeerConnections", "Forbidden.RAM");
    let inventory = whole_inventory(&app).await;
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
    let inventory = whole_inventory(&app).await;
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
    let inventory = whole_inventory(&app).await;
    let origin = |id: &InstanceId| inventory.lines.iter().find(|line| line.instance_id == *id).map(|line| line.origin);
    assert_eq!(origin(&same_account), Some(InventoryOrigin::NoApprovalNeeded));
    assert_eq!(origin(&service), Some(InventoryOrigin::NoApprovalNeeded));
    assert_eq!(origin(&foreign), Some(InventoryOrigin::NeverApproved));
}

/// What a person reads on Slack.
async fn told(app: &TestApp, words: &str, user: &str) -> String {
    let reply = app.slash_command(words, user).await;
    assert_eq!(reply.status, 200);
    visible_text(&reply.body_json())
}

#[tokio::test]
async fn people_and_programs_ask_for_the_inventory() {
    let app = TestApp::start().await;
    assert_eq!(told(&app, "inventory", BOB).await, "There is no VPC peering in the configured regions of our accounts");
    let approved = app.discovered_request("vpc-one").await;
    app.approve(&approved, "alice").await.assert(200, "accepted");
    app.follow().await;
    let drifted = adopted(&app).await;
    let pending = app.discovered_request("vpc-two-people").await;
    let unknown = app.new_request_for("vpc-done").await;
    app.set_status(&unknown, "Activated");
    app.set_bandwidth(&drifted, 5);
    minutes(&app, 2).await;
    let lists = app.count_calls(LIST);
    let text = told(&app, "Inventory on prod, please", BOB).await;
    assert_eq!((app.count_calls(LIST) - lists, app.count_calls(ACCEPT)), (1, 1), "one list, and nothing else");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "4 VPC peerings: 1 never approved here, 1 changed");
    let shown = |position: usize, id: &InstanceId, what: &str| {
        let line = lines[position];
        assert!(line.starts_with(&format!("prod/{id}: {what}; from account 1111111111111111 to vpc-")), "{line}");
        assert!(line.ends_with(" min old"), "{line}");
    };
    let today = clock::now().strftime("%Y-%m-%d");
    assert!(lines[1].contains("`peergate adopt ID --by NAME --reason …`"), "{}", lines[1]);
    shown(2, &unknown, "Activated; ⚠ never approved here");
    shown(3, &drifted, &format!("Activated; ⚠ changed: bandwidth; adopted by carol on {today}"));
    shown(4, &approved, &format!("Activated; approved by alice on {today} (rule “data team”)"));
    shown(5, &pending, "Accepting");

    let answer = app.send(&app.sign_body(r#"{"type":"peering.inventory","data":{"actor":"anybody"}}"#)).await;
    answer.assert(200, "inventory");
    let json = answer.body_json();
    assert_eq!((&json["more"], &json["gaps"]), (&json!(false), &json!([])));
    let origins: Vec<_> = json["peerings"].as_array().unwrap().iter().map(|one| one["origin"].clone()).collect();
    assert_eq!(origins, ["never_approved", "adopted", "approved", "not_active"]);
    assert_eq!(json["peerings"][1]["drift"], json!(["bandwidth"]));
    let calls = app.count_upstream_calls();
    let wrong = told(&app, "inventory on dev", BOB).await;
    assert!(wrong.contains("Name one of these targets: prod"), "{wrong}");
    assert_eq!(app.count_upstream_calls(), calls);
}

#[tokio::test]
async fn inventory_reads_every_page_and_shows_thirty_lines() {
    let app = TestApp::start().await;
    for number in 0..131 {
        let vpc = format!("vpc-{number}");
        let id = app.request_peering(&[("AcceptingVpcId", "vpc-other"), ("VpcId", &vpc)]).await.unwrap();
        app.set_status(&id, "Activated");
    }
    let lists = app.count_calls(LIST);
    let text = told(&app, "inventory", BOB).await;
    assert_eq!(app.count_calls(LIST) - lists, 2);
    assert!(text.starts_with("131 VPC peerings: 131 never approved here\n"), "{text}");
    assert_eq!(text.matches("Activated; ⚠ never approved here").count(), 30);
    assert!(text.contains("\nThese are the first 30. `peergate inventory` on the command line shows all.\n"), "{text}");
    assert_eq!(whole_inventory(&app).await.lines.len(), 131);
}

/// A peering between two regions of one account stands in the lists of both.
#[tokio::test]
async fn peering_in_the_lists_of_two_regions_has_one_line() {
    let app = TestApp::start().await;
    let app = app.with_change(r#"regions = ["cn-shanghai"]"#, r#"regions = ["cn-shanghai", "cn-hangzhou"]"#);
    let id = app.new_request().await;
    let item: Value = serde_json::from_str(&app.simulator.shown_answer(id.as_str()).unwrap()).unwrap();
    let raw = json!({"RequestId": "r", "TotalCount": 1, "VpcPeerConnects": [item]}).to_string();
    app.simulator.add_fault(Fault {
        action: Some(LIST.into()),
        raw: Some(raw),
        http_status: 200,
        times: 2,
        ..Fault::default()
    });
    let inventory = whole_inventory(&app).await;
    assert_eq!((inventory.lines.len(), inventory.gaps, app.simulator.pending_faults()), (1, vec![], 0));
}

/// A part of the records that cannot be read loses only its own lines, and makes no peering unapproved.
#[tokio::test]
async fn records_that_fail_are_counted_as_a_gap() {
    let (app, table) = TableProxy::start(quick_settings()).await;
    for number in 0..131 {
        let vpc = format!("vpc-{number}");
        let id = app.request_peering(&[("AcceptingVpcId", "vpc-other"), ("VpcId", &vpc)]).await.unwrap();
        app.set_status(&id, "Activated");
    }
    table.refuse_operation_once("BatchGetItem");
    let answer = app.send(&app.sign_body(r#"{"type":"peering.inventory","data":{"actor":"a"}}"#)).await;
    answer.assert(200, "incomplete-inventory");
    let json = answer.body_json();
    let shown = json["peerings"].as_array().unwrap().len();
    assert!(shown == 100 || shown == 31, "{shown}");
    let gap = format!("the records of {} peerings: the table did not answer", 131 - shown);
    assert_eq!(json["gaps"], json!([gap]));
}

/// What is not known is not called fine, and an answer is in time.
#[tokio::test]
async fn late_inventory_says_what_it_does_not_know() {
    let app = TestApp::start().await;
    app.discovered_request("vpc-one").await;
    let slow = |delay_ms: u64| Fault { action: Some(LIST.into()), delay_ms, times: 9, ..Fault::default() };
    app.simulator.add_fault(slow(8_000));
    let text = told(&app, "inventory", BOB).await;
    assert!(
        text.starts_with("No VPC peering could be read\n⚠ Not read: prod in cn-shanghai: the list was not"),
        "{text}"
    );
    app.simulator.clear_faults();
    app.fail_times(9, LIST, "Forbidden.RAM");
    let answer = app.send(&app.sign_body(r#"{"type":"peering.inventory","data":{"actor":"anybody"}}"#)).await;
    answer.assert(200, "incomplete-inventory");
    assert_eq!(answer.body_json()["gaps"], json!(["prod in cn-shanghai: Forbidden.RAM"]));
    app.simulator.clear_faults();
    assert!(told(&app, "inventory", BOB).await.starts_with("1 VPC peering\n"));
}

/// Nobody knows whether people approved what the table does not return.
#[tokio::test]
async fn silent_table_makes_no_peering_unapproved() {
    let (app, table) = TableProxy::start(quick_settings()).await;
    let id = app.new_request_for("vpc-one").await;
    app.set_status(&id, "Activated");
    table.refuse_operation("BatchGetItem");
    let text = told(&app, "inventory", BOB).await;
    assert!(text.starts_with("peergate cannot reach its database"), "{text}");
    app.send(&app.sign_body(r#"{"type":"peering.inventory","data":{"actor":"a"}}"#))
        .await
        .assert(503, "store-unavailable");
    table.allow_all_operations();
    assert!(told(&app, "inventory", BOB).await.contains("never approved here"));
}

/// The rule of now may be another one.
#[tokio::test]
async fn inventory_names_the_rule_of_the_approval() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    app.approve(&id, "alice").await.assert(200, "accepted");
    app.follow().await;
    let app = app.with_change("\"data team\"\ntarget", "\"new team\"\ntarget");
    app.set_bandwidth(&id, 5);
    minutes(&app, 2).await;
    assert_eq!(app.approval(&id).await.policy().rule.as_deref(), Some("new team"));
    assert_eq!(whole_inventory(&app).await.lines[0].rule.as_deref(), Some("data team"));
}

#[tokio::test]
async fn adopted_peering_lived_since_its_request() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    app.set_status(&id, "Activated");
    clock::jump::advance_in_thread(SignedDuration::from_hours(2 * 24));
    app.discover().await;
    let approval_id = ApprovalId { target: "prod".into(), instance_id: id.clone() };
    accept::adopt_connection(&app.parts, &approval_id, "carol", "in use").await.unwrap();
    clock::jump::advance_in_thread(SignedDuration::from_hours(5 * 24));
    app.set_status(&id, "Deleted");
    minutes(&app, 3).await;
    let told = app.thread_replies().pop().unwrap();
    assert!(told.contains("was deleted 7 d after it was requested"), "{told}");
}

/// People cannot use up the calls of the watcher.
#[tokio::test]
async fn inventories_of_people_are_limited() {
    let app = TestApp::start().await;
    for _ in 0..10 {
        told(&app, "inventory", BOB).await;
    }
    let lists = app.count_calls(LIST);
    assert!(told(&app, "inventory", BOB).await.starts_with("Too many requests came in the last minute"));
    assert_eq!(app.count_calls(LIST), lists);
    let app = app.with_change("signature = ", "calls_per_minute = 6\nsignature = ");
    for user in ["U1", "U2"] {
        told(&app, "inventory", user).await;
    }
    let text = told(&app, "inventory", "U3").await;
    assert!(text.contains("prod in cn-shanghai: people asked for too many lists in the last minute"), "{text}");
}

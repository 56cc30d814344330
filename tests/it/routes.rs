//! After the activation, the card says whether our route tables lead to the peering, and after the end what is left over.

use crate::drift::{activated, minutes, reading_vpcs};
use crate::support::prelude::*;

const LIST_TABLES: &str = "DescribeRouteTableList";
/// The system table of our VPC.
const TABLE: &str = "vtb-vpc-other";

async fn app_that_reads_routes() -> TestApp {
    reading_vpcs(TestApp::start().await)
}

#[tokio::test]
async fn card_names_missing_routes_until_they_are_there() {
    let app = app_that_reads_routes().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.simulator.add_route_table("vpc-other", "vtb-second", &["vsw-b"]);
    app.simulator.add_route_table("vpc-other", "vtb-unused", &[]);
    minutes(&app, 3).await;
    let card = app.only_card().text;
    assert!(card.contains("✗ 10.0.0.0/24 has no route in vtb-second and vtb-vpc-other"), "{card}");
    let command = format!(
        "aliyun vpc CreateRouteEntry --RegionId cn-shanghai --RouteTableId vtb-second --DestinationCidrBlock 10.0.0.0/24 \
         --NextHopType VpcPeer --NextHopId {id}"
    );
    assert!(card.contains(&command), "{card}");
    app.simulator.add_route(TABLE, "10.0.0.0/24", id.as_str());
    app.simulator.add_route("vtb-second", "0.0.0.0/0", id.as_str());
    minutes(&app, 5).await;
    let card = app.only_card().text;
    assert!(card.contains("is Activated, and our side has its routes"), "{card}");
    assert!(card.contains("✓ 10.0.0.0/24 is routed in vtb-vpc-other"), "{card}");
    assert!(card.contains("⚠ route 0.0.0.0/0 in vtb-second leads to this peering and is wider than needed"), "{card}");
    let calls = app.count_calls(LIST_TABLES);
    minutes(&app, 30).await;
    assert_eq!(app.count_calls(LIST_TABLES), calls, "what is complete is read once a day");
    // Who deletes a route later is found out.
    app.simulator.remove_routes(TABLE);
    clock::jump::advance_in_thread(SignedDuration::from_hours(24));
    minutes(&app, 2).await;
    assert_eq!(app.count_calls(LIST_TABLES), calls + 1);
    let card = app.only_card().text;
    assert!(card.contains("✗ 10.0.0.0/24 has no route in vtb-vpc-other"), "{card}");
}

#[tokio::test]
async fn missing_routes_are_looked_for_less_and_less() {
    let app = app_that_reads_routes().await;
    activated(&app, "vpc-other", &["alice"]).await;
    for _ in 0..10 * 24 {
        clock::jump::advance_in_thread(SignedDuration::from_hours(1));
        app.discover().await;
    }
    let calls = app.count_calls(LIST_TABLES);
    assert!((25..50).contains(&calls), "every six hours for a week: {calls}");
}

#[tokio::test]
async fn routes_that_are_left_over_are_told_after_the_end() {
    let app = app_that_reads_routes().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.simulator.add_route(TABLE, "10.0.0.0/24", id.as_str());
    minutes(&app, 3).await;
    app.set_status(&id, "Deleted");
    minutes(&app, 4).await;
    app.assert_state(&id, "deleted").await;
    let card = app.only_card().text;
    assert!(card.contains("⚠ route 10.0.0.0/24 in vtb-vpc-other is left over"), "{card}");
    assert!(card.contains("aliyun vpc DeleteRouteEntry --RegionId cn-shanghai --RouteEntryId rte-sim000001"), "{card}");
}

#[tokio::test]
async fn refused_reading_of_routes_delays_nothing_else() {
    let app = app_that_reads_routes().await;
    app.simulator.add_fault(Fault {
        action: Some(LIST_TABLES.into()),
        code: Some("Forbidden.RAM".into()),
        http_status: 403,
        times: 100,
        ..Fault::default()
    });
    let id = activated(&app, "vpc-other", &["alice"]).await;
    minutes(&app, 30).await;
    assert!(app.count_calls(LIST_TABLES) <= 4, "{}", app.count_calls(LIST_TABLES));
    app.set_bandwidth(&id, 7);
    minutes(&app, 1).await;
    assert!(app.only_card().text.contains("acknowledge the change"), "{}", app.only_card().text);
}

/// What is due keeps a record in the table, so a refusal must not be due for ever.
#[tokio::test]
async fn refused_reading_of_routes_ends_after_a_week() {
    let app = app_that_reads_routes().await;
    app.fail_times(1000, LIST_TABLES, "Forbidden.RAM");
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.set_status(&id, "Deleted");
    minutes(&app, 4).await;
    app.assert_state(&id, "deleted").await;
    for _ in 0..9 * 4 {
        clock::jump::advance_in_thread(SignedDuration::from_hours(6));
        app.discover().await;
    }
    let calls = app.count_calls(LIST_TABLES);
    assert!(calls > 20, "{calls}");
    clock::jump::advance_in_thread(SignedDuration::from_hours(24));
    app.discover().await;
    assert_eq!(app.count_calls(LIST_TABLES), calls);
}

#[tokio::test]
async fn list_without_tables_is_not_believed() {
    let app = app_that_reads_routes().await;
    app.simulator.add_fault(Fault {
        action: Some(LIST_TABLES.into()),
        http_status: 200,
        raw: Some(r#"{"RequestId":"r","RouterTableList":{"RouterTableListType":[]}}"#.into()),
        ..Fault::default()
    });
    activated(&app, "vpc-other", &["alice"]).await;
    minutes(&app, 8).await;
    assert_eq!(app.count_calls(LIST_TABLES), 2, "it is asked again");
    let card = app.only_card().text;
    assert!(card.contains("✗ 10.0.0.0/24 has no route in vtb-vpc-other"), "{card}");
}

#[tokio::test]
async fn without_the_permission_no_table_is_read() {
    let app = TestApp::start().await;
    activated(&app, "vpc-other", &["alice"]).await;
    minutes(&app, 3).await;
    assert_eq!(app.count_calls(LIST_TABLES), 0);
    let told = app.thread_replies().join("\n");
    assert!(told.contains("--RouteTableId vtb-… --DestinationCidrBlock 10.0.0.0/24 --NextHopType VpcPeer"), "{told}");
    assert!(told.contains("resource \"alicloud_route_entry\" \"peering\""), "{told}");
}

/// A route to the block itself is longer than the one that leads elsewhere.
#[tokio::test]
async fn wider_route_to_elsewhere_gets_a_command() {
    let app = app_that_reads_routes().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.simulator.add_route(TABLE, "0.0.0.0/0", "ngw-a");
    minutes(&app, 3).await;
    let card = app.only_card().text;
    assert!(card.contains("✗ 10.0.0.0/24: the route 0.0.0.0/0 in vtb-vpc-other leads to ngw-a"), "{card}");
    let command = format!("--DestinationCidrBlock 10.0.0.0/24 --NextHopType VpcPeer --NextHopId {id}");
    assert!(card.contains(&command) && card.contains("Our route tables as of "), "{card}");
}

/// The permission may come after the activation.
#[tokio::test]
async fn routes_of_earlier_peerings_are_read_once_permitted() {
    let app = TestApp::start().await;
    activated(&app, "vpc-other", &["alice"]).await;
    let app = reading_vpcs(app);
    minutes(&app, 3).await;
    assert!(app.only_card().text.contains("✗ 10.0.0.0/24 has no route in vtb-vpc-other"), "{}", app.only_card().text);
}

/// A week of closer looks begins again after a change that people acknowledged.
#[tokio::test]
async fn routes_are_followed_closely_after_an_acknowledged_change() {
    let app = app_that_reads_routes().await;
    let id = activated(&app, "vpc-other", &["alice"]).await;
    app.simulator.add_route(TABLE, "10.0.0.0/24", id.as_str());
    minutes(&app, 3).await;
    clock::jump::advance_in_thread(SignedDuration::from_hours(30 * 24));
    app.set_bandwidth(&id, 5);
    minutes(&app, 2).await;
    app.simulator.remove_routes(TABLE);
    assert_eq!(app.click_button(&app.only_card(), "Acknowledge", ALICE).await.status, 200);
    minutes(&app, 2).await;
    assert!(app.only_card().text.contains("✗ 10.0.0.0/24 has no route"), "{}", app.only_card().text);
    app.simulator.add_route(TABLE, "10.0.0.0/24", id.as_str());
    minutes(&app, 5).await;
    assert!(app.only_card().text.contains("our side has its routes"), "{}", app.only_card().text);
}

#[tokio::test]
async fn no_table_is_read_after_the_permission_is_taken_back() {
    let app = app_that_reads_routes().await;
    activated(&app, "vpc-other", &["alice"]).await;
    minutes(&app, 3).await;
    let calls = app.count_calls(LIST_TABLES);
    assert!(calls > 0);
    let app = app.with_change("read_vpcs = true", "read_vpcs = false");
    for _ in 0..9 {
        clock::jump::advance_in_thread(SignedDuration::from_hours(24));
        app.discover().await;
    }
    assert_eq!(app.count_calls(LIST_TABLES), calls);
}

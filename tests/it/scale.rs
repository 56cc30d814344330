//! The cost of ticks with many open requests: calls and store accesses are counted, never timed.

use crate::support::prelude::*;
use aws_sdk_dynamodb::types::AttributeValue;
use peergate::alicloud::sign::SignatureVersion;
use peergate::alicloud::{Alicloud, Credentials};
use peergate::approval::{
    Approval, ApprovalId, Approver, ChannelDisplay, Decision, Delivery, Event, PolicySnapshot, Principal, Review,
    Verdict,
};
use peergate::fake::alicloud::SimulatedAccount;
use peergate::local::sandbox::Sandbox;
use peergate::peering::{AccountId, InstanceId};
use peergate::preflight::{self, Check, CheckOutcome, Finding};
use peergate::store::{Saved, Stored};
use peergate::watch::{Tick, TickSummary};
use peergate::{clock, http as client};

/// Another accepting account.
const OTHER: u64 = 3_333_333_333_333_333;

fn slow() -> SimulatorSettings {
    SimulatorSettings { activation_delay: Duration::from_hours(1), calls_per_minute: None, ..quick_settings() }
}

/// Requests of a target that are being activated, with nothing left to deliver: as the simulator and the store have them.
async fn activating(app: &TestApp, target: &str, account: u64, region: &str, number: usize) -> Vec<InstanceId> {
    let ids = pending(app, target, account, region, number).await;
    for id in &ids {
        app.set_status(id, "Updating");
        let id = ApprovalId { target: target.into(), instance_id: id.clone() };
        let stored = app.parts.store.load(&id).await.unwrap().unwrap();
        let stored = app.parts.store.update(stored, accepted).await.unwrap();
        mark_delivered(app, stored).await;
    }
    ids
}

/// Somebody approved it long ago, and Alibaba Cloud acknowledged the call.
fn accepted(approval: &mut Approval) -> bool {
    let at = clock::now();
    let by = Approver { principal: Principal::new("webhook", "ci", "alice").unwrap(), person: None, name: None };
    let decision = Decision {
        verdict: Verdict::Approve,
        by: by.clone(),
        at,
        fingerprint: approval.fingerprint().clone(),
        reason: None,
        request_key: clock::nonce(),
        request_content: None,
    };
    let policy = PolicySnapshot { rule: Some("r".into()), ..approval.policy().clone() };
    let (id, connection, findings) = (approval.id().clone(), approval.connection().clone(), approval.findings());
    let eligible = |_: &Principal| Some(by.clone());
    let review = Review { id: &id, connection: &connection, policy: &policy, findings, eligible_approver: &eligible };
    *approval = Approval::apply_decision(Some(approval), &review, decision).unwrap();
    approval.apply_event(&Event::Accepted { request_id: "R".into() }, at)
}

/// Requests that wait for people, with nothing left to deliver.
async fn pending(app: &TestApp, target: &str, account: u64, region: &str, number: usize) -> Vec<InstanceId> {
    let mut ids = vec![];
    for _ in 0..number {
        let stored = waiting(app, target, account, region).await;
        ids.push(stored.approval.id().instance_id.clone());
        mark_delivered(app, stored).await;
    }
    ids
}

/// A request whose notifications are not delivered.
async fn undelivered(app: &TestApp, target: &str, account: u64) -> InstanceId {
    waiting(app, target, account, "cn-shanghai").await.approval.id().instance_id.clone()
}

async fn waiting(app: &TestApp, target: &str, account: u64, region: &str) -> Stored {
    let account = AccountId(account);
    let api = Alicloud::new(app.parts.http.clone(), app.alicloud_url.clone(), SignatureVersion::V3, u32::MAX);
    let key = app.parts.secrets.current(clock::now()).await.unwrap().targets[target].clone();
    let credentials = Credentials {
        access_key_id: key.access_key_id.expose(),
        access_key_secret: key.access_key_secret.expose(),
        security_token: None,
    };
    let (theirs, ours) = (format!("vpc-{}", clock::nonce()), format!("vpc-{}", clock::nonce()));
    let more = [
        ("VpcId", theirs.as_str()),
        ("AcceptingVpcId", &ours),
        ("AcceptingAliUid", &account.to_string()),
        ("AcceptingRegionId", region),
    ];
    let id = InstanceId::parse(&app.simulator.request_peering(&more).unwrap()).unwrap();
    let connection = api.get_connection(credentials, &id).await.unwrap();
    let mut findings = preflight::check_connection(&connection, account, clock::now());
    findings.push(preflight::check_other_peerings(&connection, Some(&[])));
    findings.push(Finding { check: Check::DryRun, outcome: CheckOutcome::Passed });
    let review = Review {
        id: &ApprovalId { target: target.into(), instance_id: id },
        connection: &connection,
        policy: &app.parts.config.policy.snapshot_for(target, &connection),
        findings: &findings,
        eligible_approver: &|_: &Principal| None,
    };
    let record = Approval::discover(&review, clock::now());
    let Saved::Done(stored) = app.parts.store.save(&record, None).await.unwrap() else { panic!("it is new") };
    stored
}

/// The channels have every notification.
async fn mark_delivered(app: &TestApp, stored: Stored) {
    let deliver = |approval: &mut Approval| {
        let waiting: Vec<_> = approval
            .outbox()
            .iter()
            .flat_map(|notification| {
                let open =
                    notification.deliveries.iter().filter(|(_, delivery)| matches!(delivery, Delivery::Waiting { .. }));
                open.map(|(channel, _)| (notification.number, channel.clone())).collect::<Vec<_>>()
            })
            .collect();
        waiting.into_iter().fold(false, |changed, (number, channel)| {
            approval
                .apply_event(&Event::Delivered { number, channel, display: ChannelDisplay::Unchanged }, clock::now())
                || changed
        })
    };
    app.parts.store.update(stored, deliver).await.unwrap();
}

/// The sandbox with a second target.
async fn two_targets() -> TestApp {
    let mut settings = slow();
    settings.accounts.push(SimulatedAccount {
        account: AccountId(OTHER),
        access_key_id: "other-key".into(),
        access_key_secret: "other-secret".into(),
        vpcs: [].into(),
    });
    let sandbox = Sandbox::start(settings).await.unwrap();
    let key = json!({"access_key_id": "other-key", "access_key_secret": "other-secret"});
    sandbox.write_secrets(|secrets| secrets["targets"]["other"] = key).unwrap();
    let other = format!(
        "[targets.other]\naccount = \"{OTHER}\"\nregions = [\"cn-beijing\"]\nendpoint = \"{}\"\n\n[clients.ci]",
        sandbox.alicloud_url
    );
    let config = sandbox.config.replace("[clients.ci]", &other);
    TestApp::from_sandbox(sandbox).with_config(&config)
}

#[tokio::test]
async fn idle_tick_asks_the_store_once() {
    let (app, table) = TableProxy::start(quick_settings()).await;
    assert_eq!(app.tick().await, TickSummary { rounds: 1, ..TickSummary::default() });
    assert_eq!(table.count_calls(), 1);
    app.discover().await;
    assert_eq!(
        (table.count_calls(), app.count_calls(LIST), app.count_calls(GET)),
        (3, 1, 0),
        "and when it was surveyed"
    );
    app.discover().await;
    assert_eq!((table.count_calls(), app.count_calls(LIST), app.count_calls(GET)), (4, 2, 0));
}

#[tokio::test]
async fn discovery_in_one_slack_channel_costs_two_writes() {
    let (app, table) = TableProxy::start(quick_settings()).await;
    app.discover().await;
    table.reset_calls();
    let id = app.new_request_for("vpc-with-a-reason").await;
    assert_eq!(app.discover().await.delivered, 1);
    assert_eq!(table.writes(), [200, 200], "the record with its claim; the card with its delivery mark");

    // So does each later notification.
    app.set_status(&id, "Deleted");
    app.discover().await;
    table.reset_calls();
    app.read_doubtful_again(&id).await;
    assert_eq!((app.state_of(&id).await.as_str(), app.thread_replies().len()), ("deleted", 1));
    assert_eq!(table.writes(), [200, 200, 200], "the first is the test's own");
}

/// Active connections with nothing left to deliver.
async fn active(app: &TestApp, number: usize) -> Vec<InstanceId> {
    let ids = activating(app, "prod", 2_222_222_222_222_222, "cn-shanghai", number).await;
    for id in &ids {
        app.set_status(id, "Activated");
        let id = ApprovalId { target: "prod".into(), instance_id: id.clone() };
        let stored = app.parts.store.load(&id).await.unwrap().unwrap();
        let connection = app.simulator.read_connection(id.instance_id.as_str()).unwrap();
        let activate = |approval: &mut Approval| {
            approval.apply_event(&Event::Observed(Box::new(connection.clone())), clock::now())
        };
        let stored = app.parts.store.update(stored, activate).await.unwrap();
        mark_delivered(app, stored).await;
    }
    ids
}

#[tokio::test]
async fn active_connections_cost_a_line_of_the_index_each() {
    let (app, table) = TableProxy::start(slow()).await;
    app.discover().await;
    let ids = active(&app, 150).await;
    let (gets, lists) = (app.count_calls(GET), app.count_calls(LIST));
    table.reset_calls();
    let summary = app.discover().await;
    assert_eq!((summary.changed, summary.discovered, summary.undelivered), (0, 0, 0), "{summary:?}");
    assert_eq!((table.count_calls(), app.count_calls(LIST) - lists, app.count_calls(GET) - gets), (1, 2, 0));

    for id in ids.iter().take(3) {
        app.set_bandwidth(id, 7);
    }
    app.discover().await;
    assert_eq!(app.count_calls(GET) - gets, 3, "only what has changed is read");
    for id in ids.iter().take(3) {
        assert!(app.approval(id).await.drift().is_some());
    }
}

#[tokio::test]
async fn tick_reads_our_vpcs_with_ten_calls() {
    let (app, _table) = TableProxy::start(slow()).await;
    app.discover().await;
    active(&app, 205).await;
    let app = crate::drift::reading_vpcs(app);
    for calls in [10, 11, 11] {
        clock::jump::advance_in_thread(SignedDuration::from_mins(1));
        app.discover().await;
        assert_eq!(app.count_calls("DescribeVpcs"), calls);
    }
}

#[tokio::test]
async fn unchanged_connections_cost_list_pages_but_no_record_access() {
    let (app, table) = TableProxy::start(slow()).await;
    app.discover().await;
    let ids = activating(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 55).await;
    pending(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 55).await;
    let (gets, lists) = (app.count_calls(GET), app.count_calls(LIST));
    table.reset_calls();
    let summary = app.discover().await;
    assert_eq!((summary.changed, summary.discovered, summary.undelivered), (0, 0, 0), "{summary:?}");
    assert_eq!((table.count_calls(), app.count_calls(LIST) - lists, app.count_calls(GET) - gets), (1, 2, 0));

    for id in ids.iter().take(3) {
        app.set_status(id, "Activated");
    }
    app.round().await;
    for id in ids.iter().take(3) {
        app.assert_state(id, "activated").await;
    }
    assert_eq!(app.count_calls(GET) - gets, 0, "the list says enough");
}

#[tokio::test]
async fn two_activations_in_a_large_region_are_read_not_listed() {
    let app = TestApp::with_settings(slow()).await;
    pending(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 30).await;
    let ids = activating(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 2).await;
    let gets = app.count_calls(GET);
    app.set_status(&ids[0], "Activated");
    app.round().await;
    assert_eq!(
        (app.state_of(&ids[0]).await.as_str(), app.count_calls(LIST), app.count_calls(GET) - gets),
        ("activated", 0, 2)
    );
}

#[tokio::test]
async fn remaining_connections_are_read_singly_if_that_is_cheaper() {
    let app = TestApp::with_settings(slow()).await;
    pending(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 420).await;
    let ids = activating(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 3).await;
    let gets = app.count_calls(GET);
    app.set_status(&ids[1], "Activated");
    app.round().await;
    assert_eq!(app.state_of(&ids[1]).await, "activated");
    assert_eq!((app.count_calls(LIST), app.count_calls(GET) - gets), (1, 3), "not four more pages");
}

#[tokio::test]
async fn followed_connection_in_an_unconfigured_region_is_seen() {
    let app = TestApp::with_settings(slow()).await;
    let few = pending(&app, "prod", 2_222_222_222_222_222, "eu-central-1", 2).await;
    let many = pending(&app, "prod", 2_222_222_222_222_222, "eu-west-1", 4).await;
    let stranger = [("AcceptingRegionId", "eu-west-1"), ("AcceptingVpcId", "vpc-strange")];
    let stranger = InstanceId::parse(&app.simulator.request_peering(&stranger).unwrap()).unwrap();
    for id in few.iter().chain(&many) {
        app.set_status(id, "Rejected");
    }
    app.discover().await;
    for id in few.iter().chain(&many) {
        app.assert_state(id, "rejected").await;
    }
    // New requests are discovered in configured regions only.
    app.assert_state(&stranger, "none").await;
}

#[tokio::test]
async fn followed_connection_in_an_unlistable_region_is_read() {
    let app = TestApp::with_settings(slow()).await;
    let ids = activating(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 4).await;
    app.set_status(&ids[3], "Activated");
    app.fail_next(LIST, "InternalError");
    let gets = app.count_calls(GET);
    app.discover().await;
    assert_eq!((app.state_of(&ids[3]).await.as_str(), app.count_calls(GET) - gets), ("activated", 4));
}

#[tokio::test]
async fn unlisted_connection_is_read_before_it_is_presumed_deleted() {
    let app = TestApp::with_settings(slow()).await;
    let ids = activating(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 4).await;
    app.set_status(&ids[2], "Deleted");
    let gets = app.count_calls(GET);
    app.discover().await;
    assert_eq!(
        (app.state_of(&ids[2]).await.as_str(), app.count_calls(GET) - gets),
        ("activating", 1),
        "one is no proof"
    );
    app.read_doubtful_again(&ids[2]).await;
    app.read_doubtful_again(&ids[2]).await;
    assert_eq!(app.state_of(&ids[2]).await, "deleted");
    for other in [0, 1, 3] {
        assert_eq!(app.state_of(&ids[other]).await, "activating");
    }
}

#[tokio::test]
async fn silent_target_delays_no_other() {
    let app = two_targets().await;
    // More than are worked on at once.
    let slow = activating(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 20).await;
    let fine = activating(&app, "other", OTHER, "cn-beijing", 20).await;
    for id in slow.iter().chain(&fine) {
        app.set_status(id, "Activated");
    }
    // Longer than any tick.
    let fault =
        Fault { account: Some(AccountId(2_222_222_222_222_222)), times: 9999, delay_ms: 600_000, ..Fault::default() };
    app.simulator.add_fault(fault);
    app.tick_within(Tick::SCHEDULED, Duration::from_secs(6)).await;
    for id in &fine {
        let id = ApprovalId { target: "other".into(), instance_id: id.clone() };
        assert_eq!(app.parts.store.load(&id).await.unwrap().unwrap().approval.state().name(), "activated");
    }
    assert_eq!(app.state_of(&slow[0]).await, "activating");
    assert!(logged().lines().any(|line| line.contains("out_of_time") && line.contains("target=\"prod\"")));
}

#[tokio::test]
async fn throttled_target_alone_is_left_alone() {
    let app = two_targets().await;
    activating(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 3).await;
    activating(&app, "other", OTHER, "cn-beijing", 3).await;
    app.simulator.add_fault(Fault {
        account: Some(AccountId(2_222_222_222_222_222)),
        code: Some("Throttling.User".into()),
        retry_after_ms: Some(50_000),
        ..Fault::default()
    });
    let lists = app.count_calls(LIST);
    for _ in 0..2 {
        app.tick_within(Tick::SCHEDULED, Duration::from_secs(4)).await;
    }
    assert_eq!(app.count_calls(LIST) - lists, 3, "once more for the one that asked us to wait, twice for the other");
}

#[tokio::test]
async fn new_work_is_done_while_a_target_is_silent() {
    let app = two_targets().await;
    let fault = Fault {
        account: Some(AccountId(2_222_222_222_222_222)),
        action: Some(LIST.into()),
        delay_ms: 6000,
        // A silent reading is repeated once.
        times: 2,
        ..Fault::default()
    };
    app.simulator.add_fault(fault);
    let lists = app.count_calls(LIST);
    let (summary, ()) = tokio::join!(app.scheduled_tick(), async {
        // The other target has nothing to do by now.
        while app.count_calls(LIST) == lists {
            tokio::task::yield_now().await;
        }
        let id = ApprovalId { target: "other".into(), instance_id: undelivered(&app, "other", OTHER).await };
        assert!(app.parts.store.load(&id).await.unwrap().unwrap().approval.outbox().due_at().is_some());
    });
    assert!(summary.rounds >= 2 && summary.delivered >= 1, "{summary:?}");
}

#[tokio::test]
async fn silent_channel_does_not_stop_discovery() {
    let app = TestApp::with_settings(slow()).await;
    for _ in 0..40 {
        undelivered(&app, "prod", 2_222_222_222_222_222).await;
    }
    app.slack.add_outage(Outage { path: WEBHOOK_PATH.into(), hangs: true, ..Outage::default() });
    let unheard = app.new_request().await;
    app.tick_within(Tick::SCHEDULED, Duration::from_secs(6)).await;
    app.assert_state(&unheard, "pending").await;
}

/// Changes the digest of a record's line in the index, as an earlier version wrote it.
async fn write_foreign_digest(app: &TestApp, id: &InstanceId) {
    let endpoint = app.environment.aws.dynamodb_endpoint.clone().unwrap();
    let sdk = peergate::aws::sdk_config(&app.environment.aws, client::new_client().unwrap());
    let config = aws_sdk_dynamodb::config::Builder::from(&sdk).endpoint_url(endpoint).build();
    let mark = AttributeValue::S("0123456789abcdef0123456789abcdef".into());
    let update = aws_sdk_dynamodb::Client::from_conf(config).update_item().table_name(&app.environment.table);
    let update = update.key("id", AttributeValue::S(format!("prod/{id}")));
    let update = update.update_expression("SET mark = :mark").expression_attribute_values(":mark", mark);
    update.send().await.unwrap();
}

#[tokio::test]
async fn foreign_index_entry_is_fixed_with_one_reading() {
    let (app, table) = TableProxy::start(slow()).await;
    let ids = pending(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 3).await;
    write_foreign_digest(&app, &ids[1]).await;
    let gets = app.count_calls(GET);
    assert_eq!(app.discover().await.discovered, 0);
    assert_eq!(app.count_calls(GET) - gets, 1);
    table.reset_calls();
    app.discover().await;
    assert_eq!((table.count_calls(), app.count_calls(GET) - gets), (1, 1), "once");
}

#[tokio::test]
async fn refused_fix_of_an_index_entry_is_tried_again() {
    let (app, table) = TableProxy::start(slow()).await;
    app.discover().await;
    let ids = pending(&app, "prod", 2_222_222_222_222_222, "cn-shanghai", 3).await;
    write_foreign_digest(&app, &ids[1]).await;
    table.refuse_operation("PutItem");
    let gets = app.count_calls(GET);
    app.discover().await;
    assert_eq!(app.count_calls(GET) - gets, 1);
    assert!(logged().contains("could not finish a job"), "the refusal is logged");
    table.allow_all_operations();
    table.reset_calls();
    app.discover().await;
    assert_eq!((app.count_calls(GET) - gets, table.writes()), (2, vec![200]), "the next discovery repeats it");
    table.reset_calls();
    app.discover().await;
    assert_eq!((table.count_calls(), app.count_calls(GET) - gets), (1, 2), "and then never again");
}

#[tokio::test]
async fn calls_stay_below_the_rate_limit() {
    let sandbox = Sandbox::start(slow()).await.unwrap();
    let config =
        sandbox.config.replace("regions = [\"cn-shanghai\"]", "regions = [\"cn-shanghai\"]\ncalls_per_minute = 2");
    let app = TestApp::from_sandbox(sandbox).with_config(&config);
    for _ in 0..4 {
        app.tick_within(Tick::SCHEDULED, Duration::from_secs(3)).await;
    }
    // The rest of the minute is for others.
    app.assert_calls(LIST, 2);
}

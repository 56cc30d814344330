//! What ticks cost when much is in flight: calls and store accesses are counted, never timed.

use std::time::Duration;

use crate::support::{Gate, HOOK, Table, logged, quick};
use aws_sdk_dynamodb::types::AttributeValue;
use peergate::alicloud::sign::SignatureVersion;
use peergate::alicloud::{Alicloud, Credentials};
use peergate::approval::{
    Approval, ApprovalId, Approver, Decision, Delivery, Display, Event, Grounds, Principal, Terms, Verdict,
};
use peergate::local::sandbox::Sandbox;
use peergate::local::simulator::gateway::Fault;
use peergate::local::simulator::{Account, Settings, Tampering};
use peergate::local::sink::Trouble;
use peergate::peering::{AccountId, InstanceId};
use peergate::preflight::{self, Check, Finding, Found};
use peergate::store::{Saved, Stored};
use peergate::watch::Summary;
use peergate::{clock, http as client};
use serde_json::json;

const LIST: &str = "ListVpcPeerConnections";
const GET: &str = "GetVpcPeerConnectionAttribute";
/// Another accepting account.
const OTHER: u64 = 3_333_333_333_333_333;

fn becomes(status: &str) -> Tampering {
    Tampering { status: Some(status.into()), ..Tampering::default() }
}

fn slow() -> Settings {
    Settings { activation: Duration::from_hours(1), quota: None, ..quick() }
}

/// Requests of a target that are being activated, with nothing left to tell: as the simulator and the store have them.
async fn activating(gate: &Gate, target: &str, account: u64, region: &str, number: usize) -> Vec<InstanceId> {
    let ids = pending(gate, target, account, region, number).await;
    for id in &ids {
        gate.tamper(id, becomes("Updating"));
        let id = ApprovalId { target: target.into(), instance_id: id.clone() };
        let stored = gate.app.store.load(&id).await.unwrap().unwrap();
        let stored = gate.app.store.update(stored, accepted).await.unwrap();
        told(gate, stored).await;
    }
    ids
}

/// Somebody approved it long ago, and Alibaba Cloud acknowledged the call.
fn accepted(approval: &mut Approval) -> bool {
    let at = clock::now();
    let by = Approver { principal: Principal::new("webhook", "ci", "alice").unwrap(), person: None };
    let decision = Decision {
        verdict: Verdict::Approve,
        by: by.clone(),
        at,
        fingerprint: approval.fingerprint.clone(),
        reason: None,
        request_key: clock::nonce(),
        request_content: None,
    };
    let terms = Terms { rule: Some("r".into()), ..approval.terms.clone() };
    let (id, connection, findings) = (approval.id.clone(), approval.connection.clone(), approval.findings.clone());
    let electorate = |_: &Principal| Some(by.clone());
    let grounds =
        Grounds { id: &id, connection: &connection, terms: &terms, findings: &findings, electorate: &electorate };
    *approval = Approval::decide(Some(approval), &grounds, decision).unwrap();
    approval.apply(&Event::Accepted { request_id: "R".into() }, at)
}

/// Requests that wait for people, with nothing left to tell.
async fn pending(gate: &Gate, target: &str, account: u64, region: &str, number: usize) -> Vec<InstanceId> {
    let mut ids = vec![];
    for _ in 0..number {
        let stored = waiting(gate, target, account, region).await;
        ids.push(stored.approval.id.instance_id.clone());
        told(gate, stored).await;
    }
    ids
}

/// A request that nobody was told of yet.
async fn fresh(gate: &Gate, target: &str, account: u64) -> InstanceId {
    waiting(gate, target, account, "cn-shanghai").await.approval.id.instance_id
}

async fn waiting(gate: &Gate, target: &str, account: u64, region: &str) -> Stored {
    let account = AccountId(account);
    let api = Alicloud::new(gate.app.http.clone(), gate.alicloud.clone(), SignatureVersion::V3, u32::MAX);
    let key = gate.app.secrets.current(clock::now()).await.unwrap().targets[target].clone();
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
    let id = InstanceId::parse(&gate.simulator.request_peering(&more).unwrap()).unwrap();
    let connection = api.get(credentials, &id).await.unwrap();
    let mut findings = preflight::check(&connection, account, clock::now());
    findings.push(preflight::check_other_peerings(&connection, Some(&[])));
    findings.push(Finding { check: Check::DryRun, found: Found::Passed });
    let grounds = Grounds {
        id: &ApprovalId { target: target.into(), instance_id: id },
        connection: &connection,
        terms: &gate.app.config.policy.terms(target, &connection),
        findings: &findings,
        electorate: &|_: &Principal| None,
    };
    let record = Approval::discover(&grounds, clock::now());
    let Saved::Done(stored) = gate.app.store.save(&record, None).await.unwrap() else { panic!("it is new") };
    stored
}

/// Everything that the channels are owed, they have.
async fn told(gate: &Gate, stored: Stored) {
    let tell = |approval: &mut Approval| {
        let owed: Vec<_> = approval
            .outbox
            .iter()
            .flat_map(|notice| {
                let waiting =
                    notice.deliveries.iter().filter(|(_, delivery)| matches!(delivery, Delivery::Waiting { .. }));
                waiting.map(|(channel, _)| (notice.number, channel.clone())).collect::<Vec<_>>()
            })
            .collect();
        owed.into_iter().fold(false, |changed, (number, channel)| {
            approval.apply(&Event::Delivered { number, channel, display: Display::Unchanged }, clock::now()) || changed
        })
    };
    gate.app.store.update(stored, tell).await.unwrap();
}

/// The sandbox with a second target.
async fn two_targets() -> Gate {
    let mut settings = slow();
    settings.accounts.push(Account {
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
        sandbox.alicloud
    );
    let config = sandbox.config.replace("[clients.ci]", &other);
    Gate::over(sandbox).with_config(&config)
}

#[tokio::test]
async fn a_tick_with_nothing_due_asks_the_store_once() {
    let (gate, table) = Table::before(quick()).await;
    assert_eq!(gate.tick().await, Summary { rounds: 1, ..Summary::default() });
    assert_eq!(table.calls(), 1);
    gate.discover().await;
    assert_eq!((table.calls(), gate.calls(LIST), gate.calls(GET)), (2, 1, 0));
}

#[tokio::test]
async fn discovery_in_one_slack_channel_costs_two_writes() {
    let (gate, table) = Table::before(quick()).await;
    let id = gate.request_peering(&[("AcceptingVpcId", "vpc-with-a-reason")]).await.unwrap();
    assert_eq!(gate.discover().await.delivered, 1);
    assert_eq!(table.writes(), [200, 200], "the record with its claim; the card with its delivery mark");

    // So does what is told later.
    gate.tamper(&id, becomes("Deleted"));
    gate.discover().await;
    table.forget();
    gate.read_again(&id).await;
    assert_eq!((gate.state(&id).await.as_str(), gate.replies().len()), ("deleted", 1));
    assert_eq!(table.writes(), [200, 200, 200], "the first is the test's own");
}

#[tokio::test]
async fn what_has_not_changed_costs_a_page_of_the_list_a_hundred_and_no_access_to_its_record() {
    let (gate, table) = Table::before(slow()).await;
    let ids = activating(&gate, "prod", 2_222_222_222_222_222, "cn-shanghai", 110).await;
    pending(&gate, "prod", 2_222_222_222_222_222, "cn-shanghai", 110).await;
    let gets = gate.calls(GET);
    table.forget();
    let summary = gate.discover().await;
    assert_eq!((summary.changed, summary.discovered, summary.undelivered), (0, 0, 0), "{summary:?}");
    assert_eq!((table.calls(), gate.calls(LIST), gate.calls(GET) - gets), (1, 3, 0));

    for id in ids.iter().take(3) {
        gate.tamper(id, becomes("Activated"));
    }
    gate.round().await;
    for id in ids.iter().take(3) {
        assert_eq!(gate.state(id).await, "activated");
    }
    assert_eq!(gate.calls(GET) - gets, 0, "the list says enough");
}

#[tokio::test]
async fn two_activations_in_a_large_region_are_read_and_not_listed() {
    let gate = Gate::with(slow()).await;
    pending(&gate, "prod", 2_222_222_222_222_222, "cn-shanghai", 30).await;
    let ids = activating(&gate, "prod", 2_222_222_222_222_222, "cn-shanghai", 2).await;
    let gets = gate.calls(GET);
    gate.tamper(&ids[0], becomes("Activated"));
    gate.round().await;
    assert_eq!((gate.state(&ids[0]).await.as_str(), gate.calls(LIST), gate.calls(GET) - gets), ("activated", 0, 2));
}

#[tokio::test]
async fn what_is_left_after_a_page_is_read_one_by_one_if_that_is_fewer_calls() {
    let gate = Gate::with(slow()).await;
    pending(&gate, "prod", 2_222_222_222_222_222, "cn-shanghai", 420).await;
    let ids = activating(&gate, "prod", 2_222_222_222_222_222, "cn-shanghai", 3).await;
    let gets = gate.calls(GET);
    gate.tamper(&ids[1], becomes("Activated"));
    gate.round().await;
    assert_eq!(gate.state(&ids[1]).await, "activated");
    assert_eq!((gate.calls(LIST), gate.calls(GET) - gets), (1, 3), "not four more pages");
}

#[tokio::test]
async fn what_is_followed_in_a_region_that_nobody_configured_is_seen_all_the_same() {
    let gate = Gate::with(slow()).await;
    let few = pending(&gate, "prod", 2_222_222_222_222_222, "eu-central-1", 2).await;
    let many = pending(&gate, "prod", 2_222_222_222_222_222, "eu-west-1", 4).await;
    let stranger = [("AcceptingRegionId", "eu-west-1"), ("AcceptingVpcId", "vpc-strange")];
    let stranger = InstanceId::parse(&gate.simulator.request_peering(&stranger).unwrap()).unwrap();
    for id in few.iter().chain(&many) {
        gate.tamper(id, becomes("Rejected"));
    }
    gate.discover().await;
    for id in few.iter().chain(&many) {
        assert_eq!(gate.state(id).await, "rejected");
    }
    assert_eq!(gate.state(&stranger).await, "none", "what is new is discovered where we were told to look");
}

#[tokio::test]
async fn what_is_followed_in_a_region_that_cannot_be_listed_is_read() {
    let gate = Gate::with(slow()).await;
    let ids = activating(&gate, "prod", 2_222_222_222_222_222, "cn-shanghai", 4).await;
    gate.tamper(&ids[3], becomes("Activated"));
    gate.simulator.fault(Fault { action: Some(LIST.into()), code: Some("InternalError".into()), ..Fault::default() });
    let gets = gate.calls(GET);
    gate.discover().await;
    assert_eq!((gate.state(&ids[3]).await.as_str(), gate.calls(GET) - gets), ("activated", 4));
}

#[tokio::test]
async fn what_the_list_does_not_show_any_more_is_read_before_it_is_taken_for_deleted() {
    let gate = Gate::with(slow()).await;
    let ids = activating(&gate, "prod", 2_222_222_222_222_222, "cn-shanghai", 4).await;
    gate.tamper(&ids[2], becomes("Deleted"));
    let gets = gate.calls(GET);
    gate.discover().await;
    assert_eq!((gate.state(&ids[2]).await.as_str(), gate.calls(GET) - gets), ("activating", 1), "one is no proof");
    gate.read_again(&ids[2]).await;
    gate.read_again(&ids[2]).await;
    assert_eq!(gate.state(&ids[2]).await, "deleted");
    for other in [0, 1, 3] {
        assert_eq!(gate.state(&ids[other]).await, "activating");
    }
}

#[tokio::test]
async fn a_target_that_does_not_answer_delays_no_other() {
    let gate = two_targets().await;
    let slow = activating(&gate, "prod", 2_222_222_222_222_222, "cn-shanghai", 40).await;
    let fine = activating(&gate, "other", OTHER, "cn-beijing", 40).await;
    for id in slow.iter().chain(&fine) {
        gate.tamper(id, becomes("Activated"));
    }
    // Longer than any tick.
    let fault =
        Fault { account: Some(AccountId(2_222_222_222_222_222)), times: 9999, delay_ms: 600_000, ..Fault::default() };
    gate.simulator.fault(fault);
    gate.discover().await;
    for id in &fine {
        let id = ApprovalId { target: "other".into(), instance_id: id.clone() };
        assert_eq!(gate.app.store.load(&id).await.unwrap().unwrap().approval.state.name(), "activated");
    }
    assert_eq!(gate.state(&slow[0]).await, "activating");
    assert!(logged().lines().any(|line| line.contains("out_of_time") && line.contains("target=\"prod\"")));

    gate.simulator.heal();
    gate.simulator.fault(Fault {
        account: Some(AccountId(2_222_222_222_222_222)),
        code: Some("Throttling.User".into()),
        retry_after_ms: Some(50_000),
        ..Fault::default()
    });
    let lists = gate.calls(LIST);
    gate.discover().await;
    gate.discover().await;
    assert_eq!(gate.calls(LIST) - lists, 3, "once more for the one that asked us to wait, twice for the other");
}

#[tokio::test]
async fn what_becomes_due_while_a_target_does_not_answer_is_not_left_waiting() {
    let gate = two_targets().await;
    let fault = Fault {
        account: Some(AccountId(2_222_222_222_222_222)),
        action: Some(LIST.into()),
        delay_ms: 6000,
        // Of a reading that is silent, a second one is made.
        times: 2,
        ..Fault::default()
    };
    gate.simulator.fault(fault);
    let lists = gate.calls(LIST);
    let (summary, ()) = tokio::join!(gate.scheduled(), async {
        // The other target has nothing to do by now.
        while gate.calls(LIST) == lists {
            tokio::task::yield_now().await;
        }
        let id = ApprovalId { target: "other".into(), instance_id: fresh(&gate, "other", OTHER).await };
        assert!(gate.app.store.load(&id).await.unwrap().unwrap().approval.outbox.due_at().is_some());
    });
    assert!(summary.rounds >= 2 && summary.delivered >= 1, "{summary:?}");
}

#[tokio::test]
async fn a_channel_that_does_not_answer_keeps_nobody_from_seeing() {
    let gate = Gate::with(slow()).await;
    for _ in 0..40 {
        fresh(&gate, "prod", 2_222_222_222_222_222).await;
    }
    gate.sink.trouble(Trouble { path: HOOK.into(), hangs: true, ..Trouble::default() });
    let unheard = gate.requested().await;
    gate.discover().await;
    assert_eq!(gate.state(&unheard).await, "pending");
}

#[tokio::test]
async fn what_another_version_wrote_into_the_index_is_mended_and_not_read_for_ever() {
    let (gate, table) = Table::before(slow()).await;
    let ids = pending(&gate, "prod", 2_222_222_222_222_222, "cn-shanghai", 3).await;
    let endpoint = gate.environment.aws.dynamodb_endpoint.clone().unwrap();
    let sdk = peergate::aws::sdk_config(&gate.environment.aws, &client::client().unwrap());
    let config = aws_sdk_dynamodb::config::Builder::from(&sdk).endpoint_url(endpoint).build();
    let mark = AttributeValue::S("0123456789abcdef0123456789abcdef".into());
    let update = aws_sdk_dynamodb::Client::from_conf(config).update_item().table_name(&gate.environment.table);
    let update = update.key("id", AttributeValue::S(format!("prod/{}", ids[1])));
    let update = update.update_expression("SET mark = :mark").expression_attribute_values(":mark", mark);
    update.send().await.unwrap();
    let gets = gate.calls(GET);
    assert_eq!(gate.discover().await.discovered, 0);
    assert_eq!(gate.calls(GET) - gets, 1);
    table.forget();
    gate.discover().await;
    assert_eq!((table.calls(), gate.calls(GET) - gets), (1, 1), "once");
}

#[tokio::test]
async fn calls_are_paced_below_the_limit() {
    let sandbox = Sandbox::start(slow()).await.unwrap();
    let config =
        sandbox.config.replace("regions = [\"cn-shanghai\"]", "regions = [\"cn-shanghai\"]\ncalls_per_minute = 2");
    let gate = Gate::over(sandbox).with_config(&config);
    for _ in 0..4 {
        gate.discover().await;
    }
    assert_eq!(gate.calls(LIST), 2, "the rest of the minute is for others");
}

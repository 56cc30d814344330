//! Every text that people read: the card in each state, each kind of notification, and each reply. Also with hostile
//! names and reasons.

mod card;
#[path = "../interop/cards/record.rs"]
mod cards;
mod drift;
mod hostile;
mod notification;
mod reply;

use insta::assert_snapshot;
use jiff::{SignedDuration, Timestamp};
use peergate::approval::{
    Approval, ApprovalId, ApprovalState, Approver, CallResult, CardId, Decision, Event, InventoryLine, InventoryOrigin,
    InventoryRole, Notification, NotificationKind, PolicySnapshot, Principal, RequestId, Review, SendBackReason,
    Verdict,
};
use peergate::chat::binding::{self, BindingKey, Keyring};
use peergate::chat::command_words::UnknownCommand;
use peergate::chat::message::{self, Message, ReasonForm};
use peergate::chat::{CardDigest, CommandScope, Dependency, Reply, dingtalk, feishu, slack, standard_webhooks, teams};
use peergate::config::Config;
use peergate::fake::slack as fake_slack;
use peergate::peering::{AccountId, Connection, InstanceId, Problem, Status};
use peergate::policy::{Policy, Refusal, RuleFact};
use peergate::preflight::{self, Check, CheckOutcome, Finding, Objection};
use serde_json::{Value, json};

use crate::support::edited;

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn later() -> Timestamp {
    now() + SignedDuration::from_secs(98)
}

fn connection(name: &str) -> Connection {
    serde_json::from_value(json!({
        "instance_id": "pcc-a", "status": "Accepting", "business_status": "Normal", "bandwidth_mbps": 1024,
        "requester": {"account": "1111111111111111", "region": "cn-hangzhou", "vpc": "vpc-theirs", "cidrs": ["10.1.0.0/16", "fd00:1::/48"]},
        "accepter": {"account": "2222222222222222", "region": "cn-shanghai", "vpc": "vpc-ours", "cidrs": ["10.2.0.0/16"]},
        "link_type": "Gold", "name": name, "description": "", "expires_at": "2026-11-29T10:00:00Z", "managed_service": "",
    }))
    .unwrap()
}

fn policy(approvals: u32) -> Policy {
    let text = format!(
        r#"
        [targets.prod]
        account = "2222222222222222"
        regions = []
        [platforms.slack]
        teams = ["T0001"]
        app = "A1"
        [channels.netops]
        kind = "slack"
        channel = "C1"
        [people.alice]
        principals = ["slack:T0001/U1"]
        [people.bob]
        principals = ["slack:T0001/U2"]
        [people.carol]
        principals = ["slack:T0001/U3"]
        [groups]
        netops = ["alice", "bob", "carol"]
        [accounts.1111111111111111]
        name = "data team"
        [[rule]]
        name = "r"
        target = "prod"
        requester_regions = ["cn-hangzhou"]
        approvals = {approvals}
        approvers = ["group:netops"]
        channels = ["netops"]
        "#
    );
    Config::parse(&text).unwrap().policy
}

fn checked(connection: &Connection, dry_run: CheckOutcome) -> Vec<Finding> {
    let mut findings = preflight::check_connection(connection, AccountId(2_222_222_222_222_222), now());
    findings.push(preflight::check_other_peerings(connection, Some(&[])));
    findings.push(Finding { check: Check::DryRun, outcome: dry_run });
    findings
}

/// Calls with the review of a reading, under a rule that requires so many approvals.
fn with_review<T>(
    approvals: u32,
    connection: &Connection,
    findings: &[Finding],
    call: impl FnOnce(&Review<'_>) -> T,
) -> T {
    let policy = policy(approvals);
    let id = ApprovalId { target: "prod".into(), instance_id: connection.instance_id.clone() };
    let snapshot = policy.snapshot_for("prod", connection);
    let eligible_approver = |principal: &Principal| policy.eligible_approver("prod", connection, principal);
    call(&Review { id: &id, connection, policy: &snapshot, findings, eligible_approver: &eligible_approver })
}

fn discovered(approvals: u32, connection: &Connection) -> Approval {
    let findings = checked(connection, CheckOutcome::Passed);
    with_review(approvals, connection, &findings, |review| Approval::discover(review, now()))
}

fn alice() -> Approver {
    Approver { principal: Principal::new("slack", "T0001", "U1").unwrap(), person: Some("alice".into()), name: None }
}

fn bob() -> Approver {
    Approver { principal: Principal::new("slack", "T0001", "U2").unwrap(), person: Some("bob".into()), name: None }
}

fn request(key: &str) -> RequestId {
    RequestId { key: key.into(), content: None }
}

fn without_person(principal: &Principal) -> Approver {
    Approver { principal: principal.clone(), person: None, name: None }
}

fn decide(approval: &Approval, needed: u32, verdict: Verdict, by: Approver, reason: Option<&str>) -> Approval {
    let connection = approval.connection().clone();
    let decision = Decision {
        verdict,
        by,
        at: now(),
        fingerprint: connection.fingerprint(),
        reason: reason.map(ToOwned::to_owned),
        request_key: format!("k{}", approval.history().len()),
        request_content: None,
    };
    let findings = checked(&connection, CheckOutcome::Passed);
    with_review(needed, &connection, &findings, |review| Approval::apply_decision(Some(approval), review, decision))
        .unwrap()
}

/// Two approvals are required, and nobody has decided.
fn pending() -> Approval {
    discovered(2, &connection("data to payments"))
}

/// Two approvals are required, and alice has approved.
fn half_approved() -> Approval {
    decide(&pending(), 2, Verdict::Approve, alice(), Some("ticket 42"))
}

fn approved_by_two() -> Approval {
    decide(&half_approved(), 2, Verdict::Approve, bob(), None)
}

/// Bob has rejected what alice had approved.
fn rejecting() -> Approval {
    decide(&half_approved(), 2, Verdict::Reject, bob(), Some("not ours to share"))
}

/// One approval is required, and alice has approved.
fn approved() -> Approval {
    decided(Verdict::Approve, Some("ticket 42"))
}

fn decided(verdict: Verdict, reason: Option<&str>) -> Approval {
    decide(&discovered(1, &connection("data to payments")), 1, verdict, alice(), reason)
}

fn withdrawn() -> Approval {
    let mut approval = half_approved();
    approval.withdraw_decision(&alice(), &request("w"), &without_person, later()).unwrap();
    approval
}

/// Missing in as many readings as it takes to be confirmed.
fn deleted(mut approval: Approval) -> Approval {
    for minute in [1, 3, 5] {
        approval.apply_event(&Event::Missing, later() + SignedDuration::from_mins(minute));
    }
    assert_eq!(approval.state().name(), "deleted");
    approval
}

fn after(mut approval: Approval, events: &[Event]) -> Approval {
    for event in events {
        approval.apply_event(event, later());
    }
    approval
}

fn without_rule(approval: &Approval) -> Approval {
    edited(approval, |record| record["terms"]["rule"] = Value::Null)
}

fn card(approval: &Approval) -> String {
    text(&message::request_card(approval, now()))
}

fn text(message: &Message) -> String {
    let facts = message.facts.iter().map(|fact| format!("{}: {}", fact.label, fact.value));
    let labels = |buttons: &message::Buttons| {
        let labels: Vec<_> = buttons.shown.iter().map(|shown| format!("[{}]", shown.button.label())).collect();
        labels.join(" ")
    };
    let lines = std::iter::once(message.headline.clone())
        .chain(facts)
        .chain(message.checks.clone())
        .chain(message.figure.clone())
        .chain(message.sentences.clone())
        .chain(message.snippet.clone())
        .chain(message.link.iter().map(|link| format!("{}: {}", link.label, link.url)))
        .chain(message.buttons.iter().map(labels));
    lines.collect::<Vec<_>>().join("\n")
}

fn seen(status: Status) -> Event {
    Event::Observed(Box::new(Connection { status, ..connection("data to payments") }))
}

fn accepted() -> Event {
    Event::Accepted { request_id: "R1".into() }
}

fn rejected() -> Event {
    Event::Rejected { request_id: "R1".into() }
}

fn bandwidth_changed() -> Event {
    let changed = Connection { bandwidth_mbps: None, ..connection("data to payments") };
    let findings = checked(&changed, CheckOutcome::Passed);
    Event::Changed { connection: Box::new(changed), findings }
}

fn problem(code: &str) -> Problem {
    Problem { code: code.into(), request_id: Some("R2".into()) }
}

fn cidrs(theirs: &str, ours: &str) -> (ipnet::IpNet, ipnet::IpNet) {
    (theirs.parse().unwrap(), ours.parse().unwrap())
}

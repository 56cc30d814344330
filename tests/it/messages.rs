//! What people read, in every state, also when outsiders are hostile.

use insta::assert_snapshot;
use jiff::{SignedDuration, Timestamp};
use peergate::approval::{
    Approval, ApprovalId, Approver, CallResult, CardId, Decision, Event, NotificationKind, PolicySnapshot, Principal,
    RequestId, Review, SendBackReason, Verdict,
};
use peergate::chat::binding::{self, BindingKey, Keyring};
use peergate::chat::message::{self, Message};
use peergate::chat::{Dependency, Reply, slack, standard_webhooks};
use peergate::config::Config;
use peergate::fake::slack as fake_slack;
use peergate::peering::{AccountId, Connection, InstanceId, Problem, Status};
use peergate::policy::{Policy, Refusal, RuleFact};
use peergate::preflight::{self, Check, CheckOutcome, Finding, Objection};
use serde_json::json;

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

/// Calls with the grounds that a reading and a rule for so many people give.
fn on<T>(approvals: u32, connection: &Connection, findings: &[Finding], call: impl FnOnce(&Review<'_>) -> T) -> T {
    let policy = policy(approvals);
    let id = ApprovalId { target: "prod".into(), instance_id: connection.instance_id.clone() };
    let terms = policy.snapshot_for("prod", connection);
    let electorate = |principal: &Principal| policy.eligible_approver("prod", connection, principal);
    call(&Review { id: &id, connection, policy: &terms, findings, eligible_approver: &electorate })
}

fn discovered(approvals: u32, connection: &Connection) -> Approval {
    let findings = checked(connection, CheckOutcome::Passed);
    on(approvals, connection, &findings, |grounds| Approval::discover(grounds, now()))
}

fn alice() -> Approver {
    Approver { principal: Principal::new("slack", "T0001", "U1").unwrap(), person: Some("alice".into()) }
}

fn bob() -> Approver {
    Approver { principal: Principal::new("slack", "T0001", "U2").unwrap(), person: Some("bob".into()) }
}

fn request(key: &str) -> RequestId {
    RequestId { key: key.into(), content: None }
}

fn nobody_else(principal: &Principal) -> Approver {
    Approver { principal: principal.clone(), person: None }
}

fn decide(approval: &Approval, needed: u32, verdict: Verdict, by: Approver, reason: Option<&str>) -> Approval {
    let connection = approval.connection.clone();
    let decision = Decision {
        verdict,
        by,
        at: now(),
        fingerprint: connection.fingerprint(),
        reason: reason.map(ToOwned::to_owned),
        request_key: format!("k{}", approval.history.len()),
        request_content: None,
    };
    let findings = checked(&connection, CheckOutcome::Passed);
    on(needed, &connection, &findings, |grounds| Approval::apply_decision(Some(approval), grounds, decision)).unwrap()
}

fn decided(verdict: Verdict, name: &str, reason: Option<&str>) -> Approval {
    decide(&discovered(1, &connection(name)), 1, verdict, alice(), reason)
}

/// As often as it takes to be believed.
fn gone(mut approval: Approval) -> Approval {
    for minute in [1, 3, 5] {
        approval.apply_event(&Event::Missing, later() + SignedDuration::from_mins(minute));
    }
    assert_eq!(approval.state.name(), "deleted");
    approval
}

fn after(mut approval: Approval, events: &[Event]) -> Approval {
    for event in events {
        approval.apply_event(event, later());
    }
    approval
}

fn without_rule(approval: &Approval) -> Approval {
    let mut approval = approval.clone();
    approval.policy = PolicySnapshot { rule: None, ..approval.policy };
    approval
}

/// The last notice after what happened.
fn notice(approval: Approval, events: &[Event]) -> String {
    let approval = after(approval, events);
    text(&message::describe_notification(&approval, approval.outbox.last().unwrap()))
}

fn card(approval: &Approval) -> String {
    text(&message::request_card(approval, now()))
}

fn answer(answer: &Reply) -> String {
    text(&message::describe_reply(answer, now()))
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

fn problem(code: &str) -> Problem {
    Problem { code: code.into(), request_id: Some("R2".into()) }
}

fn ranges(theirs: &str, ours: &str) -> (ipnet::IpNet, ipnet::IpNet) {
    (theirs.parse().unwrap(), ours.parse().unwrap())
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list")]
fn card_shows_every_state() {
    let waits = discovered(2, &connection("data to payments"));
    assert_snapshot!(card(&waits), @r"
    VPC peering prod/pcc-a waits for approval: 0 of 2
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Expires: 2026-11-29T10:00:00Z
    Rule: r
    Still needed: 2 of alice, bob, carol
    ✓ the accepting account is ours
    ✓ it waits to be accepted
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the ranges of both sides are disjoint
    ✓ no other peering of the accepting VPC uses the requester's ranges
    ✓ Alibaba Cloud would accept it (dry run)
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Details]
    ");
    let one = decide(&waits, 2, Verdict::Approve, alice(), Some("ticket 42"));
    assert_snapshot!(card(&one), @r"
    VPC peering prod/pcc-a waits for approval: 1 of 2
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Expires: 2026-11-29T10:00:00Z
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Still needed: 1 of bob, carol
    ✓ the accepting account is ours
    ✓ it waits to be accepted
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the ranges of both sides are disjoint
    ✓ no other peering of the accepting VPC uses the requester's ranges
    ✓ Alibaba Cloud would accept it (dry run)
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Withdraw my approval] [Details]
    ");
    let two = decide(&one, 2, Verdict::Approve, bob(), None);
    assert_snapshot!(card(&two), @r"
    VPC peering prod/pcc-a is approved; Alibaba Cloud has not confirmed it yet
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Rule: r
    Approved by: alice (slack:T0001/U1), bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Decided at: 2026-11-22T10:00:00Z
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
    assert_snapshot!(card(&after(two.clone(), &[accepted()])), @r"
    VPC peering prod/pcc-a is accepted and being activated
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Rule: r
    Approved by: alice (slack:T0001/U1), bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Decided at: 2026-11-22T10:00:00Z
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
    assert_snapshot!(card(&after(two.clone(), &[accepted(), seen(Status::Activated)])), @r"
    VPC peering prod/pcc-a is Activated
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Rule: r
    Approved by: alice (slack:T0001/U1), bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Decided at: 2026-11-22T10:00:00Z
    Took: 1 min 38 s
    Next: add routes on both sides. Ours, in the route tables of vpc-ours: 10.1.0.0/16, fd00:1::/48 → pcc-a.
    The requester's, in the route tables of vpc-theirs: 10.2.0.0/16 → pcc-a.
    Then check security groups, network ACLs and database whitelists.
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
    let rejected = decide(&one, 2, Verdict::Reject, bob(), Some("not ours to share"));
    assert_snapshot!(card(&rejected), @r"
    VPC peering prod/pcc-a is to be rejected; Alibaba Cloud has not confirmed it yet
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Rejected by: bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Reason: bob: not ours to share
    Decided at: 2026-11-22T10:00:00Z
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
    assert_snapshot!(card(&after(rejected, &[Event::Rejected { request_id: "R1".into() }])), @r"
    VPC peering prod/pcc-a was rejected
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Rejected by: bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Reason: bob: not ours to share
    Decided at: 2026-11-22T10:00:00Z
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
    assert_snapshot!(card(&after(waits.clone(), &[seen(Status::Rejected)])), @r"
    VPC peering prod/pcc-a was rejected
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Rule: r
    Rejected by: somebody outside peergate
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
    assert_snapshot!(card(&after(waits.clone(), &[seen(Status::Activated)])), @r"
    VPC peering prod/pcc-a is Activated
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Rule: r
    Accepted by: somebody outside peergate
    Next: add routes on both sides. Ours, in the route tables of vpc-ours: 10.1.0.0/16, fd00:1::/48 → pcc-a.
    The requester's, in the route tables of vpc-theirs: 10.2.0.0/16 → pcc-a.
    Then check security groups, network ACLs and database whitelists.
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
    assert_snapshot!(card(&after(waits.clone(), &[seen(Status::Expired)])), @r"
    VPC peering prod/pcc-a has expired
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Rule: r
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
    assert_snapshot!(card(&gone(waits.clone())), @r"
    VPC peering prod/pcc-a was deleted
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Rule: r
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
    let failed = after(two, &[Event::Failed(problem("OperationFailed.CdtNotOpened"))]);
    assert_snapshot!(card(&failed), @r"
    VPC peering prod/pcc-a could not be accepted
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Rule: r
    Approved by: alice (slack:T0001/U1), bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Decided at: 2026-11-22T10:00:00Z
    Code: OperationFailed.CdtNotOpened
    Request id: R2
    Open Cloud Data Transfer (CDT) for the accepting account, then approve again.
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Details]
    ");
    let changed = Connection { bandwidth_mbps: None, ..connection("data to payments") };
    let findings = checked(&changed, CheckOutcome::Passed);
    let changed = Event::Changed { connection: Box::new(changed), findings };
    assert_snapshot!(card(&after(one, &[changed])), @r"
    VPC peering prod/pcc-a waits for approval: 0 of 2
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: not limited
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Expires: 2026-11-29T10:00:00Z
    ⚠ Changed: bandwidth: 1024 Mbit/s → none or unlimited
    Rule: r
    Still needed: 2 of alice, bob, carol
    ✓ the accepting account is ours
    ✓ it waits to be accepted
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the ranges of both sides are disjoint
    ✓ no other peering of the accepting VPC uses the requester's ranges
    ✓ Alibaba Cloud would accept it (dry run)
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Details]
    ");
}

#[test]
fn card_without_a_rule_suggests_one() {
    let mut elsewhere = connection("data to payments");
    elsewhere.requester.region = "eu-west-1".into();
    assert_snapshot!(card(&discovered(1, &elsewhere)), @r#"
    VPC peering prod/pcc-a is requested, and no rule covers it
    Requester: data team, account 1111111111111111, vpc-theirs in eu-west-1, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Expires: 2026-11-29T10:00:00Z
    ✓ the accepting account is ours
    ✓ it waits to be accepted
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the ranges of both sides are disjoint
    ✓ no other peering of the accepting VPC uses the requester's ranges
    ✓ Alibaba Cloud would accept it (dry run)
    No rule allows its requester region. So nobody can approve it here. A rule that covers it, for peergate.toml:
    [[rule]]
    name = "account 1111111111111111 to vpc-ours"
    target = "prod"
    approvals = 1
    requester_accounts = ["1111111111111111"]
    requester_regions = ["eu-west-1"]
    requester_cidrs_within = ["10.1.0.0/16", "fd00:1::/48"]
    accepting_vpcs = ["vpc-ours"]
    approvers = ["group:netops"]
    max_bandwidth_mbps = 1024
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    "#);
}

#[test]
fn card_lists_every_finding() {
    let mut overlapping = connection("data to payments");
    overlapping.requester.cidrs = ["10.0.0.0/8", "fd00:2::/48"].map(|cidr| cidr.parse().unwrap()).into();
    overlapping.accepter.cidrs = ["10.2.0.0/16", "fd00:2:0:8000::/49"].map(|cidr| cidr.parse().unwrap()).into();
    let findings = preflight::check_connection(&overlapping, AccountId(2_222_222_222_222_222), now());
    let shown = on(1, &overlapping, &findings, |grounds| Approval::discover(grounds, now()));
    assert_snapshot!(card(&shown), @r"
    VPC peering prod/pcc-a waits for approval
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.0.0.0/8, fd00:2::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16, fd00:2:0:8000::/49
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Expires: 2026-11-29T10:00:00Z
    Rule: r
    Still needed: 1 of alice, bob, carol
    ✓ the accepting account is ours
    ✓ it waits to be accepted
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✗ both sides use the same addresses, so routes between them cannot work
    the requester's 10.0.0.0/8 contains the accepting 10.2.0.0/16
    requester 10.0.0.0/8  ████████████████████████████████
    accepting 10.2.0.0/16 █·······························
    the requester's fd00:2::/48 contains the accepting fd00:2:0:8000::/49
    requester fd00:2::/48        ████████████████████████████████
    accepting fd00:2:0:8000::/49 ················████████████████
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Details]
    ");

    let unknown = Connection {
        requester: peergate::peering::Side { cidrs: [].into(), ..connection("").requester },
        ..connection("")
    };
    let mut other = connection("");
    (other.instance_id, other.status) = (InstanceId::parse("pcc-b").unwrap(), Status::Activated);
    other.requester.cidrs = ["10.1.7.0/24", "10.0.0.0/8", "fd00:1::/48"].map(|cidr| cidr.parse().unwrap()).into();
    let mut findings =
        preflight::check_connection(&unknown, AccountId(3), later() + SignedDuration::from_hours(24 * 7));
    findings.push(preflight::check_other_peerings(&connection(""), Some(&[other])));
    findings.push(preflight::check_other_peerings(&connection(""), None));
    for found in [
        CheckOutcome::Unknown(Some(problem("Forbidden.RAM"))),
        CheckOutcome::Unknown(None),
        CheckOutcome::Objection(Objection::DryRun(problem("OperationFailed.CdtNotOpened"))),
    ] {
        findings.push(Finding { check: Check::DryRun, outcome: found });
    }
    findings.push(Finding {
        check: Check::ManagedService,
        outcome: CheckOutcome::Objection(Objection::ManagedService("SWAS".into())),
    });
    let locked = Objection::BusinessStatus("FinancialLocked".to_owned().into());
    findings.push(Finding { check: Check::BusinessStatus, outcome: CheckOutcome::Objection(locked) });
    findings
        .push(Finding { check: Check::Status, outcome: CheckOutcome::Objection(Objection::Status(Status::Updating)) });
    let shown = on(1, &unknown, &findings, |grounds| Approval::discover(grounds, now()));
    assert_snapshot!(card(&shown), @r"
    VPC peering prod/pcc-a waits for approval
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, ranges unknown
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Cost: between regions: each side pays for the traffic that it sends (CDT)
    Expires: 2026-11-29T10:00:00Z
    Rule: r
    Still needed: 1 of alice, bob, carol
    ✗ the accepting account is not the target's
    ✓ it waits to be accepted
    ✗ it has expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ⚠ the ranges of a side are unknown: whether they overlap could not be checked
    ⚠ the requester's ranges are used by other peerings of the VPC: 10.1.0.0/16 is inside 10.0.0.0/8, which is reached over pcc-b; 10.1.0.0/16 contains 10.1.7.0/24, which is reached over pcc-b; fd00:1::/48 is also reached over pcc-b
    ⚠ not known whether no other peering of the accepting VPC uses the requester's ranges
    ⚠ not known whether Alibaba Cloud would accept it (dry run): Forbidden.RAM
    ⚠ not known whether Alibaba Cloud would accept it (dry run)
    ✗ Alibaba Cloud would not accept it (dry run): OperationFailed.CdtNotOpened
    ✗ the managed service SWAS owns it
    ✗ its business status is FinancialLocked
    ✗ it is Updating: it does not wait for a decision
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Details]
    ");
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list")]
fn notification_text_covers_every_kind() {
    let waits = || discovered(2, &connection("data to payments"));
    let approved = || decided(Verdict::Approve, "data to payments", Some("ticket 42"));
    assert_snapshot!(notice(waits(), &[]), @"VPC peering prod/pcc-a is requested");
    assert_snapshot!(notice(approved(), &[]), @r"
    alice (slack:T0001/U1) approved VPC peering prod/pcc-a
    Reason: ticket 42
    ");
    let one = decide(&waits(), 2, Verdict::Approve, alice(), None);
    assert_snapshot!(notice(one.clone(), &[]), @"alice (slack:T0001/U1) approved VPC peering prod/pcc-a: 1 of 2");
    assert_snapshot!(notice(decided(Verdict::Reject, "", Some("no")), &[]), @r"
    alice (slack:T0001/U1) rejected VPC peering prod/pcc-a
    Reason: no
    ");
    let mut withdrawn = one.clone();
    withdrawn.withdraw_decision(&alice(), &request("w"), &nobody_else, later()).unwrap();
    assert_snapshot!(notice(withdrawn, &[]), @"alice (slack:T0001/U1) withdrew their approval of VPC peering prod/pcc-a: 0 of 2");
    let changed = Connection { bandwidth_mbps: None, ..connection("data to payments") };
    let findings = checked(&changed, CheckOutcome::Passed);
    let changed = Event::Changed { connection: Box::new(changed), findings };
    assert_snapshot!(notice(one.clone(), &[changed]), @r"
    VPC peering prod/pcc-a is not what it was: look at it again before you decide
    Changed: bandwidth: 1024 Mbit/s → none or unlimited
    No longer counted: the approval of alice (slack:T0001/U1).
    ");
    let mut ruled = one.clone();
    let findings = checked(&ruled.connection, CheckOutcome::Passed);
    on(3, &connection("data to payments"), &findings, |grounds| ruled.refresh(grounds, later()));
    assert_snapshot!(notice(ruled.clone(), &[]), @r"
    Other terms go for VPC peering prod/pcc-a: the configuration has changed
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Still needed: 2 of bob, carol
    ");
    ruled.policy = PolicySnapshot { rule: None, ..ruled.policy };
    assert_snapshot!(notice(ruled, &[]), @r"
    No rule covers VPC peering prod/pcc-a any more: the configuration has changed
    Approved by: alice (slack:T0001/U1)
    ");
    assert_snapshot!(notice(approved(), &[accepted()]), @r"
    VPC peering prod/pcc-a was accepted and is being activated
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    ");
    assert_snapshot!(notice(approved(), &[accepted(), seen(Status::Activated)]), @r"
    VPC peering prod/pcc-a is Activated, 1 min 38 s after its approval
    Next: add routes on both sides. Ours, in the route tables of vpc-ours: 10.1.0.0/16, fd00:1::/48 → pcc-a.
    The requester's, in the route tables of vpc-theirs: 10.2.0.0/16 → pcc-a.
    Then check security groups, network ACLs and database whitelists.
    ");
    let rejected = decided(Verdict::Reject, "data to payments", Some("not ours to share"));
    assert_snapshot!(notice(rejected, &[Event::Rejected { request_id: "R1".into() }]), @r"
    VPC peering prod/pcc-a was rejected
    Rejected by: alice (slack:T0001/U1)
    Reason: not ours to share
    This is final: the requester has to ask again.
    ");
    assert_snapshot!(notice(approved(), &[seen(Status::Rejected)]), @r"
    VPC peering prod/pcc-a was rejected
    Rejected by: somebody outside peergate
    This is final: the requester has to ask again.
    ");
    assert_snapshot!(notice(waits(), &[seen(Status::Activated)]), @r"
    VPC peering prod/pcc-a is Activated
    Next: add routes on both sides. Ours, in the route tables of vpc-ours: 10.1.0.0/16, fd00:1::/48 → pcc-a.
    The requester's, in the route tables of vpc-theirs: 10.2.0.0/16 → pcc-a.
    Then check security groups, network ACLs and database whitelists.
    ");
    assert_snapshot!(notice(gone(waits()), &[seen(Status::Activated)]), @r"
    VPC peering prod/pcc-a is Activated
    Next: add routes on both sides. Ours, in the route tables of vpc-ours: 10.1.0.0/16, fd00:1::/48 → pcc-a.
    The requester's, in the route tables of vpc-theirs: 10.2.0.0/16 → pcc-a.
    Then check security groups, network ACLs and database whitelists.
    ");
    let corrected = |approval: Approval, events: &[Event]| {
        let approval = after(approval, events);
        let corrections =
            approval.outbox.iter().filter(|notice| matches!(notice.kind, NotificationKind::Corrected { .. }));
        corrections.map(|notice| text(&message::describe_notification(&approval, notice))).collect::<String>()
    };
    assert_snapshot!(corrected(gone(waits()), &[seen(Status::Activated)]), @"Correction: VPC peering prod/pcc-a was reported as deleted, but it is Activated");
    assert_snapshot!(corrected(gone(waits()), &[seen(Status::Accepting)]), @"Correction: VPC peering prod/pcc-a was reported as deleted, but it waits for a decision");
    assert_snapshot!(corrected(gone(approved()), &[seen(Status::Accepting)]), @r"
    Correction: VPC peering prod/pcc-a still waits, so peergate accepts it again
    It was reported as deleted; Alibaba Cloud shows it as waiting.
    ");
    let refused_by_hand = || decided(Verdict::Reject, "", None);
    assert_snapshot!(corrected(after(refused_by_hand(), &[seen(Status::Expired)]), &[seen(Status::Accepting)]), @r"
    Correction: VPC peering prod/pcc-a still waits, so peergate rejects it again
    It was reported as expired; Alibaba Cloud shows it as waiting.
    ");
    let sent_back = |why: SendBackReason| Event::SentBack {
        why,
        connection: Box::new(connection("")),
        policy: Box::new(PolicySnapshot { approvals: 2, ..approved().policy }),
        findings: vec![],
        void: vec![alice()],
    };
    let refused = |mut approval: Approval| {
        approval.finish_call(CallResult::Refused);
        approval
    };
    assert_snapshot!(notice(refused(approved()), &[sent_back(SendBackReason::RuleNotMet)]), @r"
    VPC peering prod/pcc-a was not accepted and needs a new decision
    Rule: r
    Still needed: 2 of alice, bob, carol
    The rule “r” now needs 2 of its approvers, and the earlier approvals are not enough.
    No longer counted: the approval of alice (slack:T0001/U1).
    ");
    let objection = Objection::BusinessStatus("FinancialLocked".to_owned().into());
    assert_snapshot!(notice(refused(approved()), &[sent_back(SendBackReason::Objection(objection))]), @r"
    VPC peering prod/pcc-a was not accepted and needs a new decision
    Rule: r
    Still needed: 2 of alice, bob, carol
    A check now fails: its business status is FinancialLocked.
    No longer counted: the approval of alice (slack:T0001/U1).
    ");
    assert_snapshot!(notice(refused(approved()), &[sent_back(SendBackReason::NotChecked)]), @r"
    VPC peering prod/pcc-a was not accepted and needs a new decision
    Rule: r
    Still needed: 2 of alice, bob, carol
    Not every check passes any more: look at the card.
    No longer counted: the approval of alice (slack:T0001/U1).
    ");
    assert_snapshot!(notice(approved(), &[seen(Status::Expired)]), @r"
    VPC peering prod/pcc-a has expired before what was decided could be carried out
    The requester has to ask again.
    ");
    assert_snapshot!(notice(gone(after(approved(), &[accepted()])), &[]), @r"
    VPC peering prod/pcc-a was deleted
    Nothing is left to accept. The requester has to ask again if it is still wanted.
    ");
    assert_snapshot!(notice(approved(), &[Event::Failed(problem("OperationFailed.CdtNotOpened"))]), @r"
    VPC peering prod/pcc-a could not be accepted
    Code: OperationFailed.CdtNotOpened
    Request id: R2
    Open Cloud Data Transfer (CDT) for the accepting account, then approve again.
    ");
    assert_snapshot!(notice(decided(Verdict::Reject, "", None), &[seen(Status::Activated)]), @r"
    VPC peering prod/pcc-a could not be rejected
    Code: AcceptedElsewhere
    Somebody accepted it outside peergate before the rejection. Delete the connection if it must not be.
    ");
    let at = |news| {
        let mut approval = one.clone();
        let mut notice = approval.outbox.last().unwrap().clone();
        notice.kind = news;
        approval.since = now();
        text(&message::describe_notification(&approval, &notice))
    };
    let alarms = [
        NotificationKind::Checked,
        NotificationKind::Reminder { waiting_s: 4 * 3600 },
        NotificationKind::Escalated { waiting_s: 30 * 3600 },
        NotificationKind::ExpiresSoon { expires_at: "2026-11-29T10:00:00Z".parse().unwrap() },
        NotificationKind::Stuck { for_s: 612, problem: None },
        NotificationKind::Stuck { for_s: 612, problem: Some(problem("Forbidden.RAM")) },
        NotificationKind::FactsDiffer {
            changes: connection("").facts().changes_to(&Connection { bandwidth_mbps: None, ..connection("") }.facts()),
        },
    ];
    assert_snapshot!(alarms.map(at).join("\n\n"), @r"
    VPC peering prod/pcc-a was checked again

    VPC peering prod/pcc-a has waited for a decision for 4 h
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Still needed: 1 of bob, carol

    VPC peering prod/pcc-a has waited for 1 d 6 h, and it is not decided
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Still needed: 1 of bob, carol

    VPC peering prod/pcc-a expires at 2026-11-29T10:00:00Z if nobody decides
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Still needed: 1 of bob, carol
    After that the requester has to ask again.

    VPC peering prod/pcc-a has been in activation for 10 min 12 s, which is too long
    It is followed on. If it stays, ask Alibaba Cloud's support about it.

    VPC peering prod/pcc-a was decided 10 min 12 s ago, and could not be carried out yet
    Code: Forbidden.RAM
    Request id: R2
    Grant the target's RAM user vpc:AcceptVpcPeerConnection, vpc:RejectVpcPeerConnection, vpc:GetVpcPeerConnectionAttribute and vpc:ListVpcPeerConnections.
    It is tried again by itself.

    VPC peering prod/pcc-a was activated with other facts than those that were decided on
    Changed: bandwidth: 1024 Mbit/s → none or unlimited
    ");
}

#[test]
fn follow_up_repeats_all_facts_where_no_card_can_change() {
    let approved = after(decided(Verdict::Approve, "data to payments", None), &[accepted()]);
    let follow_ups = approved.outbox.iter().map(|notice| text(&message::follow_up(&approved, notice, now())));
    assert_snapshot!(follow_ups.skip(1).collect::<Vec<_>>().join("\n\n"), @r"
    alice (slack:T0001/U1) approved VPC peering prod/pcc-a
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments

    VPC peering prod/pcc-a was accepted and is being activated
    Approved by: alice (slack:T0001/U1)
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    ");
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list")]
fn reply_text_covers_every_answer() {
    let approved = || decided(Verdict::Approve, "data to payments", None);
    let done = |events: &[Event]| answer(&Reply::Done(Box::new(after(approved(), events))));
    assert_snapshot!(done(&[accepted()]), @"You approved prod/pcc-a: it is being activated, and the channel will hear when it is usable");
    assert_snapshot!(done(&[accepted(), seen(Status::Activated)]), @"You approved prod/pcc-a, and it is Activated");
    assert_snapshot!(done(&[Event::Failed(problem("QuotaExceeded.X"))]), @r"
    prod/pcc-a could not be carried out
    State: failed since 2026-11-22T10:01:38Z
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Code: QuotaExceeded.X
    Request id: R2
    Raise the quota in Quota Center, then approve again.
    ");
    assert_snapshot!(answer(&Reply::Done(Box::new(gone(approved())))), @r"
    Too late: prod/pcc-a was deleted
    State: deleted since 2026-11-22T10:06:38Z
    Rule: r
    Approved by: alice (slack:T0001/U1)
    ");
    let rejected = Box::new(after(decided(Verdict::Reject, "", None), &[Event::Rejected { request_id: "R1".into() }]));
    assert_snapshot!(answer(&Reply::Done(rejected.clone())), @"You rejected prod/pcc-a");
    assert_snapshot!(answer(&Reply::InProgress(Box::new(approved()))), @r"
    You approved prod/pcc-a
    Your decision is stored. Alibaba Cloud has not confirmed it yet; it will be carried out without you, and the channel will hear of it.
    ");
    let one = decide(&discovered(2, &connection("n")), 2, Verdict::Approve, alice(), None);
    assert_snapshot!(answer(&Reply::Counted(Box::new(one.clone()))), @r"
    Your approval of prod/pcc-a counts: 1 of 2
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Still needed: 1 of bob, carol
    ");
    let mut withdrawn = one.clone();
    withdrawn.withdraw_decision(&alice(), &request("w"), &nobody_else, later()).unwrap();
    assert_snapshot!(answer(&Reply::Withdrawn(Box::new(withdrawn))), @r"
    Your approval of prod/pcc-a does not count any more
    Rule: r
    Still needed: 2 of alice, bob, carol
    ");
    assert_snapshot!(answer(&Reply::Repeated(Box::new(approved()))), @r"
    You decided about prod/pcc-a before; nothing changed
    State: approved since 2026-11-22T10:00:00Z
    Rule: r
    Approved by: alice (slack:T0001/U1)
    ");
    let two = decide(&one, 2, Verdict::Approve, bob(), None);
    assert_snapshot!(answer(&Reply::AlreadyDecided(Box::new(two))), @r"
    prod/pcc-a was already approved by alice (slack:T0001/U1) and bob (slack:T0001/U2) at 2026-11-22T10:00:00Z
    State: approved since 2026-11-22T10:00:00Z
    Rule: r
    Approved by: alice (slack:T0001/U1), bob (slack:T0001/U2)
    ");
    assert_snapshot!(answer(&Reply::AlreadyDecided(rejected)), @r"
    prod/pcc-a was already rejected by alice (slack:T0001/U1) at 2026-11-22T10:00:00Z
    State: rejected since 2026-11-22T10:01:38Z
    Rule: r
    Rejected by: alice (slack:T0001/U1)
    ");
    assert_snapshot!(answer(&Reply::AlreadyDecided(Box::new(after(approved(), &[seen(Status::Expired)])))), @r"
    Too late: prod/pcc-a has expired
    State: expired since 2026-11-22T10:01:38Z
    Rule: r
    Approved by: alice (slack:T0001/U1)
    ");
    let findings = checked(&connection("n"), CheckOutcome::Passed);
    assert_snapshot!(answer(&Reply::DryRunPassed { connection: Box::new(connection("n")), findings }), @r"
    A dry run passed: pcc-a could be accepted now. Nothing was changed
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: n
    ✓ the accepting account is ours
    ✓ it waits to be accepted
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the ranges of both sides are disjoint
    ✓ no other peering of the accepting VPC uses the requester's ranges
    ✓ Alibaba Cloud would accept it (dry run)
    ");
    let status =
        |connection, approval| Reply::Status { connection: Box::new(connection), approval, target: "prod".into() };
    assert_snapshot!(answer(&status(connection("n"), None)), @r"
    VPC peering prod/pcc-a is Accepting
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: n
    [Approve] [Reject]
    ");
    assert_snapshot!(answer(&status(connection("n"), Some(Box::new(one.clone())))), @r"
    VPC peering prod/pcc-a is Accepting
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: n
    State: pending since 2026-11-22T10:00:00Z
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Still needed: 1 of bob, carol
    ✓ the accepting account is ours
    ✓ it waits to be accepted
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the ranges of both sides are disjoint
    ✓ no other peering of the accepting VPC uses the requester's ranges
    ✓ Alibaba Cloud would accept it (dry run)
    2026-11-22T10:00:00Z seen; the rule “r” asks for 2
    2026-11-22T10:00:00Z approved by alice (slack:T0001/U1)
    [Approve] [Reject]
    ");
    let deferred = Event::Deferred { problem: problem("Throttling.User"), retry_after: None };
    assert_snapshot!(answer(&status(connection("n"), Some(Box::new(after(approved(), &[deferred]))))), @r"
    VPC peering prod/pcc-a is Accepting
    Requester: data team, account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: n
    State: approved since 2026-11-22T10:00:00Z
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Code: Throttling.User
    Request id: R2
    ✓ the accepting account is ours
    ✓ it waits to be accepted
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the ranges of both sides are disjoint
    ✓ no other peering of the accepting VPC uses the requester's ranges
    ✓ Alibaba Cloud would accept it (dry run)
    2026-11-22T10:00:00Z seen; the rule “r” asks for 1
    2026-11-22T10:00:00Z approved by alice (slack:T0001/U1)
    ");
    let mut unknown = connection("n");
    unknown.requester.cidrs.clear();
    assert_snapshot!(answer(&status(unknown, None)), @r"
    VPC peering prod/pcc-a is Accepting
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, ranges unknown
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: n
    The ranges of a side are unknown: whether they overlap could not be checked.
    [Approve] [Reject]
    ");
    let list = |approvals, more| answer(&Reply::List { approvals, more });
    let no_rule = without_rule(&one);
    assert_snapshot!(list(vec![one.clone(), no_rule, approved()], true), @r"
    3 connections wait or are on their way
    prod/pcc-a: 1 of 2 approvals, since 2026-11-22T10:00:00Z, expires 2026-11-29T10:00:00Z; data team, account 1111111111111111 → vpc-ours
    prod/pcc-a: no rule covers it, since 2026-11-22T10:00:00Z, expires 2026-11-29T10:00:00Z; data team, account 1111111111111111 → vpc-ours
    prod/pcc-a: approved, since 2026-11-22T10:00:00Z; data team, account 1111111111111111 → vpc-ours
    There are more.
    ");
    assert_snapshot!([list(vec![], false), list(vec![one], false)].join("\n\n"), @r"
    Nothing waits for a decision, and nothing is on its way

    1 connection waits or is on its way
    prod/pcc-a: 1 of 2 approvals, since 2026-11-22T10:00:00Z, expires 2026-11-29T10:00:00Z; data team, account 1111111111111111 → vpc-ours
    ");
    let refusals = [
        Refusal::NoRule(vec![RuleFact::RequesterAccount, RuleFact::Bandwidth]),
        Refusal::NoRule(vec![]),
        Refusal::NotAnApprover { rule: "data team".into() },
        Refusal::Contact { account: AccountId(1_111_111_111_111_111) },
    ];
    assert_snapshot!(refusals.map(|refusal| answer(&Reply::Refused(refusal))).join("\n\n"), @r"
    No rule covers this connection, so nobody may decide about it
    No rule allows its requester account, bandwidth.

    No rule covers this connection, so nobody may decide about it
    Each of its facts is allowed by some rule, but no rule allows all of them.

    You are not an approver of the rule “data team” that covers this connection

    You are a contact of account 1111111111111111, which asks for this connection: you can't approve it
    Somebody else has to.
    ");
    let objections = [
        Objection::NotOurs,
        Objection::Status(Status::Activated),
        Objection::Expired,
        Objection::BusinessStatus("FinancialLocked".to_owned().into()),
        Objection::ManagedService("SWAS".into()),
        Objection::Overlap(vec![ranges("10.0.0.0/8", "10.2.0.0/16"), ranges("10.9.9.0/24", "10.9.9.0/24")]),
    ];
    assert_snapshot!(objections.map(|objection| answer(&Reply::Objection(objection))).join("\n\n"), @r"
    This connection can't be decided about: the accepting account is not the target's

    This connection can't be decided about: it is Activated: it does not wait for a decision

    This connection can't be decided about: it has expired
    The requester has to ask again.

    This connection can't be decided about: its business status is FinancialLocked
    Settle the overdue payment first.

    This connection can't be decided about: the managed service SWAS owns it

    This connection can't be decided about: both sides use the same addresses, so routes between them cannot work
    Overlap: requester 10.0.0.0/8 and accepting 10.2.0.0/16
    Overlap: requester 10.9.9.0/24 and accepting 10.9.9.0/24
    the requester's 10.0.0.0/8 contains the accepting 10.2.0.0/16
    requester 10.0.0.0/8  ████████████████████████████████
    accepting 10.2.0.0/16 █·······························
    both sides have the same range
    requester 10.9.9.0/24 ████████████████████████████████
    accepting 10.9.9.0/24 ████████████████████████████████
    ");
    let others = [
        Reply::NothingToWithdraw,
        Reply::ReasonRequired {
            rule: "data team".into(),
            verdict: Verdict::Approve,
            instance_id: connection("").instance_id,
        },
        Reply::CouldNotAsk { verdict: Verdict::Reject, instance_id: connection("").instance_id },
        Reply::ConnectionChanged,
        Reply::UnknownTarget(vec!["dev".into(), "prod".into()]),
        Reply::UnknownConnection,
        Reply::VendorRefused(problem("OperationFailed.CrossBorderCdtNotOpened")),
        Reply::NotUnderstood { field: "Bandwidth", problem: problem("NotUnderstood.Bandwidth") },
        Reply::CredentialsRefused(problem("Forbidden.RAM")),
        Reply::CredentialsRefused(problem("AwsIdentity.AccessDenied")),
        Reply::Unavailable(Dependency::Store),
        Reply::Unavailable(Dependency::Secrets),
        Reply::Unavailable(Dependency::Alicloud),
        Reply::Unavailable(Dependency::AwsIdentity),
    ];
    assert_snapshot!(others.iter().map(answer).collect::<Vec<_>>().join("\n\n"), @r"
    You have no approval to withdraw: there is none that counts

    The rule “data team” wants a reason with every decision
    Say it again with a reason: /peergate approve pcc-a because …

    peergate could not ask you for a reason, so nothing was decided
    Please say it as a command: /peergate reject pcc-a because …

    The connection is not the one that you saw: its VPCs, ranges or bandwidth have changed
    Look at its card again, then decide.

    Name one of these targets: dev, prod

    There is no such connection in this account

    Alibaba Cloud will not accept this connection
    Code: OperationFailed.CrossBorderCdtNotOpened
    Request id: R2
    Open cross-border Cloud Data Transfer for the accepting account, then approve again.

    Alibaba Cloud's answer about this connection cannot be understood
    Code: NotUnderstood.Bandwidth
    Request id: R2
    peergate cannot understand the field Bandwidth, so nothing was decided. peergate's operators have to look at it.

    Alibaba Cloud refuses peergate's own credentials; peergate's operators have to fix that
    Code: Forbidden.RAM
    Request id: R2
    Grant the target's RAM user vpc:AcceptVpcPeerConnection, vpc:RejectVpcPeerConnection, vpc:GetVpcPeerConnectionAttribute and vpc:ListVpcPeerConnections.

    AWS refuses peergate an identity token for Alibaba Cloud; peergate's operators have to fix that
    Code: AwsIdentity.AccessDenied
    Request id: R2
    Deploy with Keyless=yes, so that the functions may ask AWS for identity tokens.

    peergate cannot reach its store, so nothing is known to be decided
    Please try again in a minute.

    peergate cannot read its secrets, so nothing was decided
    Please try again in a minute.

    Alibaba Cloud does not answer, so nothing was decided
    Please try again in a minute.

    AWS issues no identity token for Alibaba Cloud at the moment, so nothing was decided
    Please try again in a minute.
    ");
    let questions = [Verdict::Approve, Verdict::Reject].map(|verdict| format!("{:?}", message::reason_form(verdict)));
    assert_snapshot!(questions.join("\n"), @r#"
    ReasonForm { title: "Approve VPC peering", submit_label: "Approve", label: "Why? The channel sees it", is_optional: false }
    ReasonForm { title: "Reject VPC peering", submit_label: "Reject", label: "Why? The channel sees it", is_optional: true }
    "#);
    assert_snapshot!(text(&message::command_usage()), @r"
    peergate understands these commands
    /peergate list [on TARGET]
    /peergate status pcc-… [on TARGET]
    /peergate approve pcc-… [on TARGET] [because REASON]
    /peergate reject pcc-… [on TARGET] [because REASON]
    /peergate withdraw pcc-… [on TARGET]
    /peergate dry-run pcc-… [on TARGET]
    ");
}

const HOSTILE: [&str; 11] = [
    "\u{200B}\u{FEFF}",
    " \n ",
    "<!channel> <@U1> <https://evil.example|click>",
    "*bold* _it_ ~no~ `code` > quote",
    "line\nbreak\r\n\t\u{0}\u{1b}[31mred",
    "\u{202E}desrever\u{202C} \u{2066}isolated\u{2069}",
    "zero\u{200B}width\u{FEFF}\u{00AD}",
    "@here https://evil.example/approve",
    "\"},{\"type\":\"button\"",
    "&lt;!channel&gt; &amp;",
    "\u{E0041}\u{E0042}tagged",
];

/// Every text that Slack is given.
fn texts(value: &serde_json::Value) -> Vec<&serde_json::Value> {
    let nested = value.get("elements").or(value.get("blocks")).and_then(serde_json::Value::as_array);
    let own =
        value.get("text").filter(|text| text.is_string() && value["type"].is_string() && value["type"] != "plain_text");
    own.into_iter().map(|_| value).chain(nested.into_iter().flatten().flat_map(texts)).collect()
}

#[test]
fn hostile_text_stays_literal_in_every_state() {
    let long = "<!channel> *x* `y` \u{202E}".repeat(20);
    for hostile in HOSTILE.into_iter().chain([long.as_str()]) {
        let mut offered = connection(hostile);
        (offered.description, offered.link_type) = (hostile.into(), hostile.into());
        (offered.requester.vpc, offered.managed_service) = (hostile.into(), hostile.into());
        let findings = [
            Finding {
                check: Check::ManagedService,
                outcome: CheckOutcome::Objection(Objection::ManagedService(hostile.into())),
            },
            Finding { check: Check::DryRun, outcome: CheckOutcome::Unknown(Some(problem(hostile))) },
        ];
        let waits = on(2, &offered, &findings, |grounds| Approval::discover(grounds, now()));
        let one = decide(&waits, 2, Verdict::Approve, alice(), Some(hostile));
        let two = decide(&one, 2, Verdict::Approve, bob(), Some(hostile));
        let mut changed = offered.clone();
        changed.requester.vpc = format!("{hostile}2");
        let changed = Event::Changed { connection: Box::new(changed), findings: findings.to_vec() };
        let no_rule = without_rule(&waits);
        let states = [
            after(one.clone(), &[changed]),
            after(two.clone(), &[accepted()]),
            after(two.clone(), &[accepted(), seen(Status::Activated)]),
            after(two.clone(), &[Event::Failed(problem(hostile))]),
            decide(&one, 2, Verdict::Reject, bob(), Some(hostile)),
            after(waits.clone(), &[seen(Status::Expired)]),
            no_rule,
            waits,
            one,
            two,
        ];
        for approval in states {
            let answer = Reply::Status {
                connection: Box::new(approval.connection.clone()),
                approval: Some(Box::new(approval.clone())),
                target: "prod".into(),
            };
            let mut shown = vec![message::request_card(&approval, now()), message::describe_reply(&answer, now())];
            for notice in approval.outbox.iter() {
                shown.extend([
                    message::describe_notification(&approval, notice),
                    message::follow_up(&approval, notice, now()),
                ]);
                let json = standard_webhooks::notification_json(&approval, notice);
                let name = &json["data"]["approval"]["connection"]["name"];
                assert!(*name == hostile || *name == "data to payments", "machines get it as it is, in JSON");
            }
            for message in shown {
                harmless(&slack::render_message(&bound(message.clone())));
                harmless(&slack::reply_modal(&message)["view"]);
            }
        }
    }
    let long = message::sanitize_text(&"<!channel>".repeat(100));
    assert_eq!((long.chars().count(), long.ends_with('…')), (201, true));
}

fn keyring() -> Keyring {
    Keyring::new("slack", vec![BindingKey::derive(b"a signing secret", "test")])
}

fn bound(message: Message) -> Message {
    binding::bind_buttons(message, &keyring(), CardId(7), 2000)
}

fn harmless(shown: &serde_json::Value) {
    if let Some(fallback) = shown["text"].as_str() {
        assert!(!fallback.contains(['<', '>', '`', '*']) && !fallback.contains("@here"), "{fallback}");
    }
    for element in texts(shown) {
        let text = element["text"].as_str().unwrap();
        let kind = element["type"].as_str().unwrap_or_default();
        assert!(kind == "text" || (kind == "link" && text == "Open the console"), "only literal text: {element}");
        assert!(!text.is_empty(), "Slack refuses empty texts: {shown}");
        let odd =
            |c: char| (c.is_control() && c != '\n') || "\u{202E}\u{2066}\u{200B}\u{FEFF}\u{00AD}\u{E0041}".contains(c);
        assert!(!text.chars().any(odd), "{text:?}");
    }
    fake_slack::check_blocks(shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
}

#[test]
fn largest_card_fits_slacks_limits_with_its_buttons() {
    let mut largest = connection(&"𝄞".repeat(256));
    largest.description = "𝄞".repeat(256);
    largest.requester.cidrs = (0..100).map(|number| format!("10.{number}.0.0/16").parse().unwrap()).collect();
    largest.accepter.cidrs = (0..100).map(|number| format!("10.{number}.7.0/24").parse().unwrap()).collect();
    let mut waits = discovered(3, &largest);
    waits = decide(&waits, 3, Verdict::Approve, alice(), Some(&"r".repeat(400)));
    waits = decide(&waits, 3, Verdict::Approve, bob(), Some(&"r".repeat(400)));
    let mut changed = largest.clone();
    changed.requester.cidrs = (0..100).map(|number| format!("11.{number}.0.0/16").parse().unwrap()).collect();
    let findings = checked(&changed, CheckOutcome::Passed);
    let changed = after(waits.clone(), &[Event::Changed { connection: Box::new(changed), findings }]);
    for approval in [&waits, &changed] {
        let shown = slack::render_message(&bound(message::request_card(approval, now())));
        fake_slack::check_blocks(&shown).unwrap();
        assert!(shown.to_string().len() < 12_000, "{}", shown.to_string().len());
        let buttons = shown["blocks"][1]["elements"].as_array().unwrap();
        for button in buttons {
            let binding = keyring().verify(button["value"].as_str().unwrap()).unwrap();
            assert_eq!((binding.target.as_str(), binding.instance_id.as_str()), ("prod", "pcc-a"));
            assert!(binding.seen_fingerprint.is_prefix_of(&approval.fingerprint));
        }
        assert_eq!(&shown["unfurl_links"], &json!(false));
    }
    let card = slack::render_message(&bound(message::request_card(&waits, now())));
    let actions: Vec<_> =
        card["blocks"][1]["elements"].as_array().unwrap().iter().map(|one| &one["action_id"]).collect();
    assert_eq!(actions, ["peergate.approve", "peergate.reject", "peergate.withdraw", "peergate.details"]);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a snapshot")]
fn machine_notification_carries_the_whole_approval() {
    let mut approval = decided(Verdict::Approve, "data to payments", None);
    approval.apply_event(&accepted(), now());
    let json = standard_webhooks::notification_json(&approval, approval.outbox.last().unwrap());
    assert_snapshot!(serde_json::to_string_pretty(&json).unwrap(), @r#"
    {
      "data": {
        "approval": {
          "approvals": {
            "approvers": [
              "alice",
              "bob",
              "carol"
            ],
            "given": 1,
            "needed": 1
          },
          "client_token": "pg1-392f4a1ccbac765eb8ad5957889f46ffae3754a914a3c7bbdda78dcc96ef",
          "connection": {
            "accepter": {
              "account": "2222222222222222",
              "cidrs": [
                "10.2.0.0/16"
              ],
              "region": "cn-shanghai",
              "vpc": "vpc-ours"
            },
            "bandwidth_mbps": 1024,
            "business_status": "Normal",
            "description": "",
            "expires_at": "2026-11-29T10:00:00Z",
            "fingerprint": "eb7f84410474e76225b76a8a557b3245a2c6144073005fb66375d5d5fefbe89a",
            "instance_id": "pcc-a",
            "link_type": "Gold",
            "name": "data to payments",
            "requester": {
              "account": "1111111111111111",
              "cidrs": [
                "10.1.0.0/16",
                "fd00:1::/48"
              ],
              "region": "cn-hangzhou",
              "vpc": "vpc-theirs"
            },
            "status": "Accepting"
          },
          "decision": {
            "at": "2026-11-22T10:00:00Z",
            "by": "slack:T0001/U1",
            "fingerprint": "eb7f84410474e76225b76a8a557b3245a2c6144073005fb66375d5d5fefbe89a",
            "person": "alice",
            "reason": null,
            "verdict": "approve"
          },
          "decisions": [
            {
              "at": "2026-11-22T10:00:00Z",
              "by": "slack:T0001/U1",
              "fingerprint": "eb7f84410474e76225b76a8a557b3245a2c6144073005fb66375d5d5fefbe89a",
              "person": "alice",
              "reason": null,
              "verdict": "approve"
            }
          ],
          "findings": [
            {
              "check": "account",
              "found": "passed"
            },
            {
              "check": "status",
              "found": "passed"
            },
            {
              "check": "expiry",
              "found": "passed"
            },
            {
              "check": "business_status",
              "found": "passed"
            },
            {
              "check": "managed_service",
              "found": "passed"
            },
            {
              "check": "cidrs",
              "found": "passed"
            },
            {
              "check": "other_peerings",
              "found": "passed"
            },
            {
              "check": "dry_run",
              "found": "passed"
            }
          ],
          "generation": 1,
          "history_hash": "597780ca3bbced502c93d5cfbd768b7ead90f7b708299abf6de6934446adc432",
          "instance_id": "pcc-a",
          "problem": null,
          "rule": "r",
          "since": "2026-11-22T10:00:00Z",
          "state": "activating",
          "target": "prod"
        },
        "news": {
          "accepted": {
            "at": "2026-11-22T10:00:00Z",
            "by": {
              "person": "alice",
              "principal": "slack:T0001/U1"
            },
            "fingerprint": "eb7f84410474e76225b76a8a557b3245a2c6144073005fb66375d5d5fefbe89a",
            "reason": null,
            "request_key": "k1",
            "verdict": "approve"
          }
        },
        "summary": "VPC peering prod/pcc-a was accepted and is being activated"
      },
      "timestamp": "2026-11-22T10:00:00Z",
      "type": "peering.accepted"
    }
    "#);
    assert!(matches!(approval.outbox.last().unwrap().kind, NotificationKind::Accepted(Some(_))));
}

//! The card in each state.

use super::*;

/// The test of each state: a new state does not compile without one.
#[expect(dead_code, reason = "compiling is the test")]
fn test_of(state: &ApprovalState) -> fn() {
    match state {
        ApprovalState::Pending => pending_card_asks_the_approvers_to_decide,
        ApprovalState::Approved => approved_card_awaits_confirmation_without_buttons,
        ApprovalState::Activating => activating_card_says_it_was_accepted,
        ApprovalState::Activated => activated_card_lists_the_next_steps,
        ApprovalState::Rejecting => rejecting_card_awaits_confirmation_with_reasons,
        ApprovalState::Rejected => rejected_card_shows_who_rejected_and_why,
        ApprovalState::Expired => expired_card_has_no_buttons,
        ApprovalState::Deleted => deleted_card_has_no_buttons,
        ApprovalState::Failed { .. } => failed_card_shows_the_code_and_keeps_the_buttons,
    }
}

#[test]
fn pending_card_asks_the_approvers_to_decide() {
    assert_snapshot!(card(&pending()), @r"
    alice, bob or carol: approve or reject VPC peering prod/pcc-a, requested by data team (0 of 2 approvals)
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Expires: 2026-11-29 10:00:00 UTC
    Rule: r
    Still needed: 2 of alice, bob, carol
    ✓ 8 checks passed: accepting account, status, expiry, business status, managed service, CIDR overlap, other peerings, dry run
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Details]
    ");
}

#[test]
fn half_approved_card_asks_the_remaining_approvers() {
    assert_snapshot!(card(&half_approved()), @r"
    bob or carol: approve or reject VPC peering prod/pcc-a, requested by data team (1 of 2 approvals)
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Expires: 2026-11-29 10:00:00 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Still needed: 1 of bob, carol
    ✓ 8 checks passed: accepting account, status, expiry, business status, managed service, CIDR overlap, other peerings, dry run
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Withdraw my approval] [Details]
    ");
}

#[test]
fn card_past_its_expiry_asks_nobody() {
    let late = now() + SignedDuration::from_hours(24 * 7);
    assert_snapshot!(text(&message::request_card(&pending(), late)), @r"
    VPC peering prod/pcc-a is past its expiry: nobody can decide on it any more
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
}

#[test]
fn card_of_a_large_group_names_three_approvers() {
    let approvers: Vec<_> = (1..=12).map(|number| format!("person-{number}")).collect();
    let approval = edited(&pending(), |record| record["terms"]["approvers"] = json!(approvers));
    let card = message::request_card(&approval, now());
    let needed = card.facts.iter().find(|fact| fact.label == "Still needed").unwrap();
    assert_snapshot!([card.headline, needed.value.clone()].join("\n"), @r"
    person-1, person-2, person-3 or 9 others: approve or reject VPC peering prod/pcc-a, requested by data team (0 of 2 approvals)
    2 of person-1, person-2, person-3, person-4, person-5, person-6, person-7, person-8, 4 more
    ");
}

#[test]
fn card_with_an_unusual_requester_name_shows_the_account() {
    let approval = edited(&pending(), |record| record["terms"]["requester"] = json!("*data* <team>"));
    assert_snapshot!(message::request_card(&approval, now()).headline, @"alice, bob or carol: approve or reject VPC peering prod/pcc-a, requested by account 1111111111111111 (0 of 2 approvals)");
}

#[test]
fn card_of_an_unmeetable_rule_asks_for_another_rule() {
    let approval = edited(&pending(), |record| record["terms"]["approvers"] = json!(["alice"]));
    let card = message::request_card(&approval, now());
    let needed = card.facts.iter().find(|fact| fact.label == "⚠ Still needed").unwrap();
    assert_snapshot!([card.headline, needed.value.clone()].join("\n"), @r"
    Too few people may approve VPC peering prod/pcc-a, requested by data team: its rule must change
    2 more, but only alice may approve: the rule must change
    ");
}

#[test]
fn approved_card_awaits_confirmation_without_buttons() {
    assert_snapshot!(card(&approved_by_two()), @r"
    VPC peering prod/pcc-a is approved; Alibaba Cloud has not confirmed it yet
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Approved by: alice (slack:T0001/U1) and bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Decided at: 2026-11-22 10:00:00 UTC
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
}

#[test]
fn activating_card_says_it_was_accepted() {
    assert_snapshot!(card(&after(approved_by_two(), &[accepted()])), @r"
    VPC peering prod/pcc-a was accepted and is being activated
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Approved by: alice (slack:T0001/U1) and bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Decided at: 2026-11-22 10:00:00 UTC
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
}

#[test]
fn activated_card_lists_the_next_steps() {
    assert_snapshot!(card(&after(approved_by_two(), &[accepted(), seen(Status::Activated)])), @r"
    VPC peering prod/pcc-a is Activated; it carries traffic once both sides have routes
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Approved by: alice (slack:T0001/U1) and bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Decided at: 2026-11-22 10:00:00 UTC
    Activated after: 1 min 38 s
    On our side, add a route to pcc-a for 10.1.0.0/16 and fd00:1::/48 in the route tables of vpc-ours.
    On the requester's side, add a route to pcc-a for 10.2.0.0/16 in the route tables of vpc-theirs.
    Then check security groups, network ACLs and database whitelists.
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
}

#[test]
fn card_activated_outside_peergate_names_no_person() {
    assert_snapshot!(card(&after(pending(), &[seen(Status::Activated)])), @r"
    ⚠ VPC peering prod/pcc-a is Activated, but was accepted outside peergate
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Accepted by: somebody outside peergate
    If the connection must not exist, an operator must delete it.
    A RAM policy can prevent this: docs/deploy.md, “Nobody else accepts”.
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
}

#[test]
fn rejecting_card_awaits_confirmation_with_reasons() {
    assert_snapshot!(card(&rejecting()), @r"
    VPC peering prod/pcc-a is being rejected; Alibaba Cloud has not confirmed it yet
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Rejected by: bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Reason: bob: not ours to share
    Decided at: 2026-11-22 10:00:00 UTC
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
}

#[test]
fn rejected_card_shows_who_rejected_and_why() {
    assert_snapshot!(card(&after(rejecting(), &[rejected()])), @r"
    VPC peering prod/pcc-a was rejected
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Rejected by: bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Reason: bob: not ours to share
    Decided at: 2026-11-22 10:00:00 UTC
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
}

#[test]
fn card_rejected_outside_peergate_names_no_person() {
    assert_snapshot!(card(&after(pending(), &[seen(Status::Rejected)])), @r"
    VPC peering prod/pcc-a was rejected
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Rejected by: somebody outside peergate
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
}

#[test]
fn expired_card_has_no_buttons() {
    assert_snapshot!(card(&after(pending(), &[seen(Status::Expired)])), @r"
    VPC peering prod/pcc-a has expired
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
}

#[test]
fn deleted_card_has_no_buttons() {
    assert_snapshot!(card(&deleted(pending())), @r"
    VPC peering prod/pcc-a was deleted
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    ");
}

#[test]
fn failed_card_shows_the_code_and_keeps_the_buttons() {
    let failed = after(approved_by_two(), &[Event::Failed(problem("OperationFailed.CdtNotOpened"))]);
    assert_snapshot!(card(&failed), @r"
    VPC peering prod/pcc-a could not be accepted: fix the cause, then decide again
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Rule: r
    Approved by: alice (slack:T0001/U1) and bob (slack:T0001/U2)
    Reason: alice: ticket 42
    Decided at: 2026-11-22 10:00:00 UTC
    Error code: OperationFailed.CdtNotOpened
    Request id: R2
    Activate Cloud Data Transfer (CDT) for the accepting account, then approve again.
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Details]
    ");
}

#[test]
fn changed_card_shows_the_change_and_voids_approvals() {
    assert_snapshot!(card(&after(half_approved(), &[bandwidth_changed()])), @r"
    alice, bob or carol: approve or reject VPC peering prod/pcc-a, requested by data team (0 of 2 approvals)
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: not limited
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Expires: 2026-11-29 10:00:00 UTC
    ⚠ Changed: bandwidth: 1024 Mbit/s → none or unlimited
    Rule: r
    Still needed: 2 of alice, bob, carol
    ✓ 8 checks passed: accepting account, status, expiry, business status, managed service, CIDR overlap, other peerings, dry run
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Details]
    ");
}

#[test]
fn card_without_a_rule_suggests_one() {
    let mut elsewhere = connection("data to payments");
    elsewhere.requester.region = "eu-west-1".into();
    assert_snapshot!(card(&discovered(1, &elsewhere)), @r#"
    No rule covers VPC peering prod/pcc-a, requested by data team: nobody can decide on it
    Requester: data team, account 1111111111111111
    From: vpc-theirs in eu-west-1, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Expires: 2026-11-29 10:00:00 UTC
    ✓ 8 checks passed: accepting account, status, expiry, business status, managed service, CIDR overlap, other peerings, dry run
    No rule allows its requester region.
    To let people decide, an operator of peergate can add this rule to peergate.toml:
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
fn card_with_overlapping_cidrs_draws_them() {
    let mut overlapping = connection("data to payments");
    overlapping.requester.cidrs = ["10.0.0.0/8", "fd00:2::/48"].map(|cidr| cidr.parse().unwrap()).into();
    overlapping.accepter.cidrs = ["10.2.0.0/16", "fd00:2:0:8000::/49"].map(|cidr| cidr.parse().unwrap()).into();
    let findings = preflight::check_connection(&overlapping, AccountId(2_222_222_222_222_222), now());
    let approval = with_review(1, &overlapping, &findings, |review| Approval::discover(review, now()));
    assert_snapshot!(card(&approval), @r"
    A check fails for VPC peering prod/pcc-a, requested by data team: alice, bob or carol can only reject it
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.0.0.0/8, fd00:2::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR blocks 10.2.0.0/16, fd00:2:0:8000::/49
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Expires: 2026-11-29 10:00:00 UTC
    Rule: r
    Still needed: 1 of alice, bob, carol
    ✗ CIDR blocks of both sides overlap, so routes between them cannot work
    ✓ 5 checks passed: accepting account, status, expiry, business status, managed service
    the requester's 10.0.0.0/8 contains our 10.2.0.0/16
    requester 10.0.0.0/8  ████████████████████████████████
    ours      10.2.0.0/16 █·······························
    the requester's fd00:2::/48 contains our fd00:2:0:8000::/49
    requester fd00:2::/48        ████████████████████████████████
    ours      fd00:2:0:8000::/49 ················████████████████
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Details]
    ");
}

/// A connection whose CIDR blocks are unknown, with every kind of finding.
fn every_finding() -> (Connection, Vec<Finding>) {
    let unknown = Connection {
        requester: peergate::peering::Side { cidrs: [].into(), ..connection("").requester },
        ..connection("")
    };
    let mut other = connection("");
    (other.instance_id, other.status) = (InstanceId::parse("pcc-b").unwrap(), Status::Activated);
    other.requester.cidrs = ["10.1.7.0/24", "10.0.0.0/8", "fd00:1::/48"].map(|cidr| cidr.parse().unwrap()).into();
    let late = later() + SignedDuration::from_hours(24 * 7);
    let mut findings = preflight::check_connection(&unknown, AccountId(3), late);
    findings.push(preflight::check_other_peerings(&connection(""), Some(&[other])));
    findings.push(preflight::check_other_peerings(&connection(""), None));
    let finding = |check, outcome| Finding { check, outcome };
    findings.extend([
        finding(Check::DryRun, CheckOutcome::Unknown(Some(problem("Forbidden.RAM")))),
        finding(Check::DryRun, CheckOutcome::Unknown(None)),
        finding(Check::DryRun, CheckOutcome::Objection(Objection::DryRun(problem("OperationFailed.CdtNotOpened")))),
        finding(Check::ManagedService, CheckOutcome::Objection(Objection::ManagedService("SWAS".into()))),
        finding(
            Check::BusinessStatus,
            CheckOutcome::Objection(Objection::BusinessStatus("FinancialLocked".to_owned().into())),
        ),
        finding(Check::Status, CheckOutcome::Objection(Objection::Status(Status::Updating))),
    ]);
    (unknown, findings)
}

#[test]
fn card_lists_failed_checks_before_unknown_and_passed_ones() {
    let (unknown, findings) = every_finding();
    let approval = with_review(1, &unknown, &findings, |review| Approval::discover(review, now()));
    assert_snapshot!(card(&approval), @r"
    A check fails for VPC peering prod/pcc-a, requested by data team: alice, bob or carol can only reject it
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks unknown
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)
    Expires: 2026-11-29 10:00:00 UTC
    Rule: r
    Still needed: 1 of alice, bob, carol
    ✗ its accepting account is not the account of the target
    ✗ it has expired
    ✗ Alibaba Cloud would not accept it (dry run): OperationFailed.CdtNotOpened
    ✗ the managed service SWAS owns it
    ✗ its business status is FinancialLocked
    ✗ it is Updating, not pending
    ⚠ unknown whether CIDR blocks overlap, because those of one side are missing
    ⚠ other peerings of the accepting VPC use the requester's CIDR blocks: 10.1.0.0/16 is inside 10.0.0.0/8, which pcc-b uses; 10.1.0.0/16 contains 10.1.7.0/24, which pcc-b uses; pcc-b uses fd00:1::/48 too
    ⚠ unknown whether other peerings of the accepting VPC use the requester's CIDR blocks
    ⚠ unknown whether Alibaba Cloud would accept it (dry run): Forbidden.RAM
    ⚠ unknown whether Alibaba Cloud would accept it (dry run)
    ✓ 3 checks passed: status, business status, managed service
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Approve] [Reject] [Details]
    ");
}

//! Each kind of notification.

use super::*;

/// The test of each kind: a new kind does not compile without one.
#[expect(dead_code, reason = "compiling is the test")]
fn test_of(kind: &NotificationKind) -> fn() {
    match kind {
        NotificationKind::Discovered => discovery_notification_asks_the_approvers,
        NotificationKind::Changed { .. } => change_notification_names_the_change_and_void_approvals,
        NotificationKind::RuleChanged { .. } => rule_change_notification_shows_who_is_still_needed,
        NotificationKind::Checked => checked_notification_is_one_line,
        NotificationKind::Decided { .. } => approval_notification_shows_the_reason,
        NotificationKind::Withdrawn { .. } => withdrawal_notification_counts_remaining_approvals,
        NotificationKind::Reminder { .. } => reminder_shows_the_wait_and_who_is_needed,
        NotificationKind::Escalated { .. } => escalation_shows_the_wait_and_who_is_needed,
        NotificationKind::ExpiresSoon { .. } => expiry_warning_shows_the_time_and_who_is_needed,
        NotificationKind::Accepted(_) => accepted_notification_names_the_approver,
        NotificationKind::Bypassed { .. } => bypass_notification_counts_the_approvals,
        NotificationKind::Stuck { .. } => slow_activation_notification_refers_to_support,
        NotificationKind::FactsDiffer { .. } => changed_activation_notification_names_the_change,
        NotificationKind::Drifted { .. } => drift::drift_notification_names_the_change_and_how_to_delete,
        NotificationKind::DriftEnded => drift::drift_end_notification_says_nobody_has_to_act,
        NotificationKind::DriftAcknowledged { .. } => drift::acknowledgment_notification_counts,
        NotificationKind::DriftReminder { .. } => drift::drift_reminder_shows_the_change,
        NotificationKind::Adopted { .. } => drift::adoption_notification_shows_the_reason,
        NotificationKind::Removed { .. } => drift::removal_notification_says_how_long_it_was_active,
        NotificationKind::Activated { .. } => activated_notification_lists_the_next_steps,
        NotificationKind::Rejected(_) => rejected_notification_says_it_is_final,
        NotificationKind::Expired => expired_notification_asks_for_a_new_request,
        NotificationKind::Deleted => deleted_notification_asks_for_a_new_request,
        NotificationKind::Failed { .. } => failed_accept_notification_shows_code_and_advice,
        NotificationKind::SentBack { .. } => sent_back_notification_names_the_new_rule,
        NotificationKind::Corrected { .. } => correction_of_a_deletion_says_it_is_activated,
    }
}

/// The last notification after the events.
fn notification(approval: Approval, events: &[Event]) -> String {
    let approval = after(approval, events);
    text(&message::describe_notification(&approval, approval.outbox().last().unwrap()))
}

/// A notification of this kind about a half approved request.
fn notification_of(kind: NotificationKind) -> String {
    let approval = half_approved();
    let notification = Notification { kind, ..approval.outbox().last().unwrap().clone() };
    text(&message::describe_notification(&approval, &notification))
}

/// The corrections after a reading.
fn corrections(approval: Approval, status: Status) -> String {
    let approval = after(approval, &[seen(status)]);
    let is_correction = |notification: &&Notification| matches!(notification.kind, NotificationKind::Corrected { .. });
    let corrections = approval.outbox().iter().filter(is_correction);
    corrections.map(|correction| text(&message::describe_notification(&approval, correction))).collect()
}

/// An approved request that is sent back to the people.
fn sent_back(why: SendBackReason) -> String {
    let mut approval = approved();
    approval.finish_call(CallResult::Refused);
    let event = Event::SentBack {
        why,
        connection: Box::new(connection("")),
        policy: Box::new(PolicySnapshot { approvals: 2, ..approved().policy().clone() }),
        findings: vec![],
        void: vec![alice()],
    };
    notification(approval, &[event])
}

#[test]
fn discovery_notification_asks_the_approvers() {
    assert_snapshot!(notification(pending(), &[]), @"VPC peering prod/pcc-a is requested: alice, bob or carol must approve or reject it");
}

#[test]
fn discovery_notification_without_a_rule_asks_nobody() {
    let approval = without_rule(&pending());
    assert_snapshot!(notification(approval, &[]), @"VPC peering prod/pcc-a is requested: no rule covers it, so nobody can decide on it");
}

#[test]
fn approval_notification_shows_the_reason() {
    assert_snapshot!(notification(approved(), &[]), @r"
    alice approved VPC peering prod/pcc-a
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    ");
}

#[test]
fn partial_approval_notification_counts_approvals() {
    assert_snapshot!(notification(half_approved(), &[]), @r"
    alice approved VPC peering prod/pcc-a: 1 of 2 approvals
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    ");
}

#[test]
fn rejection_notification_shows_the_reason() {
    assert_snapshot!(notification(decided(Verdict::Reject, Some("no")), &[]), @r"
    alice rejected VPC peering prod/pcc-a
    Rejected by: alice (slack:T0001/U1)
    Reason: no
    ");
}

#[test]
fn withdrawal_notification_counts_remaining_approvals() {
    assert_snapshot!(notification(withdrawn(), &[]), @r"
    alice withdrew their approval of VPC peering prod/pcc-a: 0 of 2 approvals are left
    Withdrawn by: alice (slack:T0001/U1)
    ");
}

#[test]
fn change_notification_names_the_change_and_void_approvals() {
    assert_snapshot!(notification(half_approved(), &[bandwidth_changed()]), @r"
    VPC peering prod/pcc-a has changed: alice, bob or carol must approve or reject it
    Changed: bandwidth: 1024 Mbit/s → none or unlimited
    The approval of alice (slack:T0001/U1) no longer counts.
    ");
}

/// A half approved request under a rule that now requires three approvals.
fn rule_changed() -> Approval {
    let mut approval = half_approved();
    let findings = checked(approval.connection(), CheckOutcome::Passed);
    with_review(3, &connection("data to payments"), &findings, |review| approval.refresh(review, later()));
    approval
}

#[test]
fn rule_change_notification_shows_who_is_still_needed() {
    assert_snapshot!(notification(rule_changed(), &[]), @r"
    The configuration has changed for VPC peering prod/pcc-a: bob or carol must approve or reject it
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Still needed: 2 of bob, carol
    ");
}

#[test]
fn lost_rule_notification_says_that_no_rule_covers_it() {
    assert_snapshot!(notification(without_rule(&rule_changed()), &[]), @r"
    The configuration has changed: no rule covers VPC peering prod/pcc-a any more, so nobody can decide on it
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    ");
}

#[test]
fn accepted_notification_names_the_approver() {
    assert_snapshot!(notification(approved(), &[accepted()]), @r"
    VPC peering prod/pcc-a was accepted and is being activated
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    ");
}

#[test]
fn activated_notification_lists_the_next_steps() {
    assert_snapshot!(notification(approved(), &[accepted(), seen(Status::Activated)]), @r#"
    VPC peering prod/pcc-a is Activated 1 min 38 s after its approval; it carries traffic once both sides have routes
    On our side, add a route to pcc-a for 10.1.0.0/16 and fd00:1::/48 in the route tables of vpc-ours.
    On the requester's side, add a route to pcc-a for 10.2.0.0/16 in the route tables of vpc-theirs.
    Then check security groups, network ACLs and database whitelists.
    # Alibaba Cloud changes one route of a VPC at a time. After TaskConflict, wait a few seconds.
    # our side, in each route table of vpc-ours
    aliyun vpc CreateRouteEntry --RegionId cn-shanghai --RouteTableId vtb-… --DestinationCidrBlock 10.1.0.0/16 --NextHopType VpcPeer --NextHopId pcc-a
    aliyun vpc CreateRouteEntry --RegionId cn-shanghai --RouteTableId vtb-… --DestinationCidrBlock fd00:1::/48 --NextHopType VpcPeer --NextHopId pcc-a
    # the requester's side, in each route table of vpc-theirs
    aliyun vpc CreateRouteEntry --RegionId cn-hangzhou --RouteTableId vtb-… --DestinationCidrBlock 10.2.0.0/16 --NextHopType VpcPeer --NextHopId pcc-a
    # or with Terraform, our side
    resource "alicloud_route_entry" "peering" {
      for_each              = toset(["10.1.0.0/16", "fd00:1::/48"])
      route_table_id        = "vtb-…"
      destination_cidrblock = each.value
      nexthop_type          = "VpcPeer"
      nexthop_id            = "pcc-a"
    }
    # or with Terraform, the requester's side
    resource "alicloud_route_entry" "peering" {
      for_each              = toset(["10.2.0.0/16"])
      route_table_id        = "vtb-…"
      destination_cidrblock = each.value
      nexthop_type          = "VpcPeer"
      nexthop_id            = "pcc-a"
    }
    "#);
}

#[test]
fn rejected_notification_says_it_is_final() {
    assert_snapshot!(notification(decided(Verdict::Reject, Some("not ours to share")), &[rejected()]), @r"
    VPC peering prod/pcc-a was rejected
    Rejected by: alice (slack:T0001/U1)
    Reason: not ours to share
    This is final. To try again, the requester must send a new request.
    ");
}

#[test]
fn notification_of_an_outside_rejection_names_no_person() {
    assert_snapshot!(notification(approved(), &[seen(Status::Rejected)]), @r"
    VPC peering prod/pcc-a was rejected
    Rejected by: somebody outside peergate
    This is final. To try again, the requester must send a new request.
    ");
}

/// The bypass among the notifications after a reading of an activated connection.
fn bypass(approval: Approval) -> String {
    let approval = after(approval, &[seen(Status::Activated)]);
    let is_bypass = |notification: &&Notification| matches!(notification.kind, NotificationKind::Bypassed { .. });
    text(&message::describe_notification(&approval, approval.outbox().iter().find(is_bypass).unwrap()))
}

#[test]
fn bypass_notification_counts_the_approvals() {
    assert_snapshot!(bypass(half_approved()), @r"
    ⚠ VPC peering prod/pcc-a was accepted outside peergate; 1 of 2 had approved
    ActionTrail of account 2222222222222222 says who did it: look for the event AcceptVpcPeerConnection.
    If the connection must not exist, an operator must delete it.
    A RAM policy can prevent this: docs/deploy.md, “Nobody else accepts”.
    ");
}

#[test]
fn bypass_notification_says_that_no_rule_covered_it() {
    assert_snapshot!(bypass(without_rule(&pending())), @r"
    ⚠ VPC peering prod/pcc-a was accepted outside peergate; no rule lets anybody approve it
    ActionTrail of account 2222222222222222 says who did it: look for the event AcceptVpcPeerConnection.
    If the connection must not exist, an operator must delete it.
    A RAM policy can prevent this: docs/deploy.md, “Nobody else accepts”.
    ");
}

#[test]
fn bypass_notification_names_who_had_rejected() {
    let rejected = after(decided(Verdict::Reject, None), &[rejected()]);
    assert_snapshot!(bypass(rejected), @r"
    ⚠ VPC peering prod/pcc-a was accepted outside peergate; alice had rejected it
    An earlier call of peergate may also have taken effect late.
    ActionTrail of account 2222222222222222 says who did it: look for the event AcceptVpcPeerConnection.
    If the connection must not exist, an operator must delete it.
    A RAM policy can prevent this: docs/deploy.md, “Nobody else accepts”.
    ");
}

#[test]
fn bypass_notification_says_that_the_request_was_unknown() {
    let connection = Connection { status: Status::Activated, ..connection("") };
    let approval = with_review(2, &connection, &[], |review| Approval::discover_bypass(review, now()));
    assert_snapshot!(text(&message::describe_notification(&approval, approval.outbox().first().unwrap())), @r"
    ⚠ VPC peering prod/pcc-a was accepted outside peergate before peergate knew of it
    ActionTrail of account 2222222222222222 says who did it: look for the event AcceptVpcPeerConnection.
    If the connection must not exist, an operator must delete it.
    A RAM policy can prevent this: docs/deploy.md, “Nobody else accepts”.
    ");
}

#[test]
fn notification_of_an_outside_activation_lists_the_next_steps() {
    assert_snapshot!(notification(pending(), &[seen(Status::Activated)]), @r"
    VPC peering prod/pcc-a is Activated
    If the connection must not exist, an operator must delete it.
    ");
}

#[test]
fn notification_after_a_deletion_announces_the_activation() {
    assert_snapshot!(notification(deleted(pending()), &[seen(Status::Activated)]), @r"
    VPC peering prod/pcc-a is Activated
    If the connection must not exist, an operator must delete it.
    ");
}

#[test]
fn correction_of_a_deletion_says_it_is_activated() {
    assert_snapshot!(corrections(deleted(pending()), Status::Activated), @"Correction: VPC peering prod/pcc-a was reported as deleted, but it is Activated");
}

#[test]
fn correction_of_a_deletion_says_it_is_pending() {
    assert_snapshot!(corrections(deleted(pending()), Status::Accepting), @"Correction: VPC peering prod/pcc-a was reported as deleted, but it is still pending: alice, bob or carol must approve or reject it");
}

#[test]
fn correction_says_that_peergate_accepts_again() {
    assert_snapshot!(corrections(deleted(approved()), Status::Accepting), @"Correction: VPC peering prod/pcc-a was reported as deleted, but it is still pending at Alibaba Cloud; peergate accepts it again");
}

#[test]
fn correction_says_that_peergate_rejects_again() {
    let expired = after(decided(Verdict::Reject, None), &[seen(Status::Expired)]);
    assert_snapshot!(corrections(expired, Status::Accepting), @"Correction: VPC peering prod/pcc-a was reported as expired, but it is still pending at Alibaba Cloud; peergate rejects it again");
}

#[test]
fn sent_back_notification_names_the_new_rule() {
    assert_snapshot!(sent_back(SendBackReason::RuleNotMet), @r"
    VPC peering prod/pcc-a was approved, but needs a new decision: alice, bob or carol must approve or reject it
    Rule: r
    Still needed: 2 of alice, bob, carol
    The rule “r” now requires 2 approvals, and the earlier approvals are not enough.
    The approval of alice (slack:T0001/U1) no longer counts.
    ");
}

#[test]
fn sent_back_notification_names_the_failed_check() {
    let objection = Objection::BusinessStatus("FinancialLocked".to_owned().into());
    assert_snapshot!(sent_back(SendBackReason::Objection(objection)), @r"
    VPC peering prod/pcc-a was approved, but needs a new decision: alice, bob or carol must approve or reject it
    Rule: r
    Still needed: 2 of alice, bob, carol
    A check fails now: its business status is FinancialLocked.
    The approval of alice (slack:T0001/U1) no longer counts.
    ");
}

#[test]
fn sent_back_notification_mentions_unfinished_checks() {
    assert_snapshot!(sent_back(SendBackReason::NotChecked), @r"
    VPC peering prod/pcc-a was approved, but needs a new decision: alice, bob or carol must approve or reject it
    Rule: r
    Still needed: 2 of alice, bob, carol
    Not every check passes any more: see the card.
    The approval of alice (slack:T0001/U1) no longer counts.
    ");
}

#[test]
fn expired_notification_asks_for_a_new_request() {
    assert_snapshot!(notification(pending(), &[seen(Status::Expired)]), @r"
    VPC peering prod/pcc-a has expired: nobody accepted it within 7 days
    To try again, the requester must send a new request.
    ");
}

#[test]
fn expired_approval_notification_says_it_was_not_accepted() {
    assert_snapshot!(notification(approved(), &[seen(Status::Expired)]), @r"
    VPC peering prod/pcc-a has expired before peergate could accept it
    To try again, the requester must send a new request.
    ");
}

#[test]
fn deleted_notification_asks_for_a_new_request() {
    assert_snapshot!(notification(deleted(after(approved(), &[accepted()])), &[]), @r"
    VPC peering prod/pcc-a was deleted
    Nothing is left to decide. If it is still needed, the requester must send a new request.
    ");
}

#[test]
fn failed_accept_notification_shows_code_and_advice() {
    assert_snapshot!(notification(approved(), &[Event::Failed(problem("OperationFailed.CdtNotOpened"))]), @r"
    VPC peering prod/pcc-a could not be accepted: fix the cause, then decide again
    Error code: OperationFailed.CdtNotOpened
    Request id: R2
    Activate Cloud Data Transfer (CDT) for the accepting account, then approve again.
    ");
}

#[test]
fn failed_rejection_notification_shows_code_and_advice() {
    assert_snapshot!(notification(decided(Verdict::Reject, None), &[seen(Status::Activated)]), @r"
    VPC peering prod/pcc-a could not be rejected: somebody accepted it outside peergate
    Error code: AcceptedElsewhere
    Somebody accepted it outside peergate before the rejection. If it must not exist, delete the connection. A RAM policy can prevent this: docs/deploy.md, “Nobody else accepts”.
    ");
}

#[test]
fn checked_notification_is_one_line() {
    assert_snapshot!(notification_of(NotificationKind::Checked), @"VPC peering prod/pcc-a was checked again: its card has changed");
}

#[test]
fn reminder_shows_the_wait_and_who_is_needed() {
    assert_snapshot!(notification_of(NotificationKind::Reminder { waiting_s: 4 * 3600 }), @r"
    VPC peering prod/pcc-a has been pending for 4 h: bob or carol must approve or reject it
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Still needed: 1 of bob, carol
    ");
}

#[test]
fn escalation_shows_the_wait_and_who_is_needed() {
    assert_snapshot!(notification_of(NotificationKind::Escalated { waiting_s: 30 * 3600 }), @r"
    VPC peering prod/pcc-a has been undecided for 1 d 6 h: bob or carol must approve or reject it
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Still needed: 1 of bob, carol
    ");
}

#[test]
fn expiry_warning_shows_the_time_and_who_is_needed() {
    let expires_at = "2026-11-29T10:00:00Z".parse().unwrap();
    assert_snapshot!(notification_of(NotificationKind::ExpiresSoon { expires_at }), @r"
    VPC peering prod/pcc-a expires at 2026-11-29 10:00:00 UTC: bob or carol must approve or reject it
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Still needed: 1 of bob, carol
    After that, the requester must send a new request.
    ");
}

#[test]
fn slow_activation_notification_refers_to_support() {
    assert_snapshot!(notification_of(NotificationKind::Stuck { for_s: 612, problem: None }), @r"
    VPC peering prod/pcc-a is still being activated after 10 min 12 s, which is too long
    peergate keeps checking it. If it stays like this, ask Alibaba Cloud support.
    ");
}

#[test]
fn stuck_approval_notification_shows_code_and_advice() {
    let problem = Some(problem("Forbidden.RAM"));
    assert_snapshot!(notification_of(NotificationKind::Stuck { for_s: 612, problem }), @r"
    VPC peering prod/pcc-a was approved 10 min 12 s ago, but peergate cannot accept it yet
    Error code: Forbidden.RAM
    Request id: R2
    Grant the target's RAM user or role vpc:AcceptVpcPeerConnection, vpc:RejectVpcPeerConnection, vpc:GetVpcPeerConnectionAttribute and vpc:ListVpcPeerConnections.
    peergate tries again automatically.
    ");
}

#[test]
fn changed_activation_notification_names_the_change() {
    let changes = connection("").facts().changes_to(&Connection { bandwidth_mbps: None, ..connection("") }.facts());
    assert_snapshot!(notification_of(NotificationKind::FactsDiffer { changes }), @r"
    VPC peering prod/pcc-a was activated with facts that nobody approved
    Changed: bandwidth: 1024 Mbit/s → none or unlimited
    An operator must check the connection, and delete it if it is wrong.
    ");
}

#[test]
fn follow_up_repeats_all_facts_where_no_card_can_be_updated() {
    let accepted = after(decided(Verdict::Approve, None), &[accepted()]);
    let follow_ups =
        accepted.outbox().iter().map(|notification| text(&message::follow_up(&accepted, notification, now())));
    assert_snapshot!(follow_ups.skip(1).collect::<Vec<_>>().join("\n\n"), @r"
    alice approved VPC peering prod/pcc-a
    Approved by: alice (slack:T0001/U1)
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments

    VPC peering prod/pcc-a was accepted and is being activated
    Approved by: alice (slack:T0001/U1)
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: data to payments
    ");
}

#[test]
fn digest_says_how_many_cards_follow() {
    let ids = vec![pending().id().clone()];
    let digest = CardDigest { account: AccountId(1_111_111_111_111_111), channel: "netops".into(), ids };
    assert_snapshot!(text(&message::describe_digest(&digest, Some("data team"))), @r"
    data team, account 1111111111111111 requests many VPC peerings: peergate posts at most 20 of its cards an hour, and 1 more follow
    prod/pcc-a
    ");
}

#[test]
fn reply_below_an_old_card_points_to_the_new_one() {
    assert_snapshot!(text(&message::card_moved(&pending())), @r"
    There is a new card for VPC peering prod/pcc-a
    The card above is too old to be updated. Use the new card in this channel.
    ");
}

#[test]
#[allow(clippy::too_many_lines, reason = "a snapshot")]
fn machine_notification_carries_the_whole_approval() {
    let mut approval = decided(Verdict::Approve, None);
    approval.apply_event(&accepted(), now());
    let json = standard_webhooks::notification_json(&approval, approval.outbox().last().unwrap());
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
          "drift": null,
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
          "routes": null,
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
    assert!(matches!(approval.outbox().last().unwrap().kind, NotificationKind::Accepted(Some(_))));
}

/// A channel that was out of reach hears of the request late.
#[test]
fn late_news_of_a_request_asks_for_no_decision() {
    let heard = |approval: &Approval| {
        let kind = NotificationKind::Discovered;
        let notification = Notification { kind, ..approval.outbox().last().unwrap().clone() };
        text(&message::describe_for_requester(approval, &notification))
    };
    assert!(heard(&pending()).starts_with("VPC peering pcc-a is requested and waits for a decision"));
    let late = heard(&approved_by_two());
    assert!(late.starts_with("The accepting side knows of VPC peering pcc-a"), "{late}");
    assert!(!late.contains("Decided"), "{late}");
}

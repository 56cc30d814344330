//! What people read of an activated connection that has changed, or is gone.

use std::collections::BTreeSet;

use peergate::approval::FollowedReading;

use super::*;

fn active(change: impl FnOnce(&mut Connection)) -> Connection {
    let mut connection = Connection { status: Status::Activated, expires_at: None, ..connection("data to payments") };
    change(&mut connection);
    connection
}

fn followed(connection: Connection, own_vpc: Option<&[&str]>) -> Event {
    let findings = preflight::check_active(&connection, AccountId(2_222_222_222_222_222), Some(&[]), now());
    let own_vpc = own_vpc.map(|cidrs| cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect::<BTreeSet<_>>());
    let policy = policy(2).snapshot_for("prod", &connection);
    Event::Followed(Box::new(FollowedReading { connection, own_vpc, policy, findings }))
}

fn activated() -> Approval {
    let accepted = after(approved_by_two(), &[accepted()]);
    after(accepted, &[Event::Observed(Box::new(active(|_| ())))])
}

/// The requester has added a CIDR block.
pub(super) fn drifted() -> Approval {
    let grown = active(|it| it.requester.cidrs.extend(["10.9.0.0/16".parse::<ipnet::IpNet>().unwrap()]));
    after(activated(), &[followed(grown, None)])
}

fn acknowledged(mut approval: Approval, by: Approver) -> Approval {
    let (reading, fingerprint) = (approval.connection().clone(), approval.asked_fingerprint().clone());
    let decision = Decision {
        verdict: Verdict::Approve,
        request_key: format!("ack-{}", by.key()),
        by,
        at: later(),
        fingerprint,
        reason: Some("ticket 43".into()),
        request_content: None,
    };
    with_review(2, &reading, &[], |review| approval.acknowledge_drift(review, decision)).unwrap();
    approval
}

fn last_notification(approval: &Approval) -> String {
    text(&message::describe_notification(approval, approval.outbox().last().unwrap()))
}

#[test]
fn drift_card_asks_for_acknowledgments() {
    assert_snapshot!(text(&message::request_card(&acknowledged(drifted(), alice()), later())), @r"
    ⚠ bob or carol: acknowledge the change of active VPC peering prod/pcc-a (1 of 2 acknowledgments), or delete it
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, 10.9.0.0/16, fd00:1::/48
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
    ⚠ Changed: requester CIDRs: 10.1.0.0/16, fd00:1::/48 → 10.1.0.0/16, 10.9.0.0/16, fd00:1::/48
    Acknowledged by: alice (slack:T0001/U1)
    Still needed: 1 of bob, carol
    ✓ 5 checks passed: accepting account, business status, managed service, CIDR overlap, CIDR blocks in use
    If you acknowledge the change, peergate takes it as approved. Routes do not follow a change of CIDR blocks by themselves.
    To delete it instead, somebody with the permission can run this command. It cuts the traffic for good. Alibaba Cloud refuses it while a route leads to the peering: delete the routes first, or add --Force true, which deletes them, too.
    aliyun vpcpeer DeleteVpcPeerConnection --region cn-shanghai --InstanceId pcc-a
    Open the console: https://vpc.console.aliyun.com/vpcpeer/cn-shanghai/vpcpeers
    [Acknowledge] [Details]
    ");
}

#[test]
pub(super) fn drift_notification_names_the_change_and_how_to_delete() {
    assert_snapshot!(last_notification(&drifted()), @r"
    ⚠ Active VPC peering prod/pcc-a is not as approved any more: requester CIDRs
    Changed: requester CIDRs: 10.1.0.0/16, fd00:1::/48 → 10.1.0.0/16, 10.9.0.0/16, fd00:1::/48
    If you acknowledge the change, peergate takes it as approved. Routes do not follow a change of CIDR blocks by themselves.
    To delete it instead, somebody with the permission can run this command. It cuts the traffic for good. Alibaba Cloud refuses it while a route leads to the peering: delete the routes first, or add --Force true, which deletes them, too.
    aliyun vpcpeer DeleteVpcPeerConnection --region cn-shanghai --InstanceId pcc-a
    ");
}

#[test]
fn drift_of_our_own_vpc_is_named() {
    let approval = after(activated(), &[followed(active(|_| ()), Some(&["10.2.0.0/16", "172.16.0.0/12"]))]);
    assert_snapshot!(last_notification(&approval), @r"
    ⚠ Active VPC peering prod/pcc-a is not as approved any more: CIDR blocks of the accepting VPC itself
    Changed: CIDR blocks of the accepting VPC itself: 10.2.0.0/16 → 10.2.0.0/16, 172.16.0.0/12
    If you acknowledge the change, peergate takes it as approved. Routes do not follow a change of CIDR blocks by themselves.
    To delete it instead, somebody with the permission can run this command. It cuts the traffic for good. Alibaba Cloud refuses it while a route leads to the peering: delete the routes first, or add --Force true, which deletes them, too.
    aliyun vpcpeer DeleteVpcPeerConnection --region cn-shanghai --InstanceId pcc-a
    ");
}

#[test]
pub(super) fn drift_end_notification_says_nobody_has_to_act() {
    assert_snapshot!(last_notification(&after(drifted(), &[followed(active(|_| ()), None)])), @r"
    The change of active VPC peering prod/pcc-a was undone
    It is again as people approved or acknowledged it. Nobody has to act.
    ");
}

#[test]
pub(super) fn acknowledgment_notification_counts() {
    assert_snapshot!(last_notification(&acknowledged(drifted(), alice())), @r"
    alice acknowledged the change of active VPC peering prod/pcc-a: 1 of 2 acknowledgments
    Acknowledged by: alice (slack:T0001/U1)
    Reason: ticket 43
    ");
}

#[test]
pub(super) fn drift_reminder_shows_the_change() {
    let approval = drifted();
    let kind = NotificationKind::DriftReminder { waiting_s: 14_500 };
    let notification = Notification { kind, ..approval.outbox().last().unwrap().clone() };
    assert_snapshot!(text(&message::describe_notification(&approval, &notification)), @r"
    Nobody has decided about the change of active VPC peering prod/pcc-a for 4 h
    ⚠ Changed: requester CIDRs: 10.1.0.0/16, fd00:1::/48 → 10.1.0.0/16, 10.9.0.0/16, fd00:1::/48
    ");
}

#[test]
pub(super) fn removal_notification_says_how_long_it_was_active() {
    let approval = activated();
    let kind = NotificationKind::Removed { lived_s: 400_000 };
    let notification = Notification { kind, ..approval.outbox().last().unwrap().clone() };
    assert_snapshot!(text(&message::describe_notification(&approval, &notification)), @r"
    VPC peering prod/pcc-a was deleted after it had been active for 4 d 15 h
    Either owner can delete a peering. Traffic between the two VPCs has stopped. Routes to it may be left: look for them in the route tables of our VPC.
    ActionTrail says who deleted it, in the account that did: look for the event DeleteVpcPeerConnection of pcc-a.
    ");
}

#[test]
pub(super) fn adoption_notification_shows_the_reason() {
    let bypassed = after(pending(), &[Event::Observed(Box::new(active(|_| ())))]);
    let policy = policy(2).snapshot_for("prod", bypassed.connection());
    let eligible = |_: &Principal| None;
    let (id, reading) = (bypassed.id().clone(), bypassed.connection().clone());
    let review = Review { id: &id, connection: &reading, policy: &policy, findings: &[], eligible_approver: &eligible };
    let approval = Approval::adopt(Some(&bypassed), &review, "carol", "*from* before <peergate>", later());
    let notification = approval.outbox().last().unwrap().clone();
    assert_snapshot!(text(&message::describe_notification(&approval, &notification)), @r"
    Active VPC peering prod/pcc-a was adopted: nobody had approved it here
    Adopted by: carol
    Reason: *from* before <peergate>
    What it is now counts as approved. Changes are told from now on.
    ");
    assert_snapshot!(message::request_card(&approval, later()).headline, @"VPC peering prod/pcc-a is Activated; carol adopted it");
}

#[test]
fn drift_that_no_rule_covers_says_so() {
    let approval = without_rule(&drifted());
    assert_snapshot!(message::request_card(&approval, later()).headline, @"⚠ Active VPC peering prod/pcc-a has changed, and no rule covers it as it is now");
}

#[test]
pub(super) fn acknowledgment_replies_say_what_is_left() {
    let first = acknowledged(drifted(), alice());
    let second = acknowledged(first.clone(), bob());
    let reply = |reply: &Reply| text(&message::describe_reply(reply, CommandScope::Everything, now()));
    assert_snapshot!(reply(&Reply::Acknowledged(Box::new(first))), @r"
    Your acknowledgment of the change of prod/pcc-a counts: 1 of 2
    Acknowledged by: alice (slack:T0001/U1)
    ");
    assert_snapshot!(reply(&Reply::Acknowledged(Box::new(second))), @"You acknowledged the change of prod/pcc-a: it counts as approved now");
    assert_snapshot!(reply(&Reply::NothingToAcknowledge), @r"
    There is nothing to acknowledge
    Either this VPC peering is not active, or it is as people approved or acknowledged it.
    ");
}

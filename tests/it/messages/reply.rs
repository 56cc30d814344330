//! Each reply to a command.

use super::*;

/// The test of each reply: a new reply does not compile without one.
#[expect(dead_code, reason = "compiling is the test")]
fn test_of(reply: &Reply) -> fn() {
    match reply {
        Reply::Done(_) => reply_to_an_accepted_approval_says_it_is_activating,
        Reply::InProgress(_) => reply_in_progress_says_the_decision_is_stored,
        Reply::Counted(_) => reply_to_a_partial_approval_counts_it,
        Reply::Withdrawn(_) => reply_to_a_withdrawal_shows_who_is_needed,
        Reply::NothingToWithdraw => reply_without_an_approval_to_withdraw_says_so,
        Reply::Acknowledged(_) | Reply::NothingToAcknowledge => drift::acknowledgment_replies_say_what_is_left,
        Reply::Repeated(_) => reply_to_a_repeated_decision_says_nothing_changed,
        Reply::AlreadyDecided(_) => reply_after_an_approval_names_the_approvers,
        Reply::Deleted(_) => reply_about_a_missing_connection_says_what_to_do,
        Reply::DryRunPassed { .. } => reply_to_a_passed_dry_run_lists_the_checks,
        Reply::Status { .. } => status_of_a_pending_request_shows_its_history,
        Reply::ButtonsOnly(_) => reply_to_words_where_only_buttons_decide_shows_the_card,
        Reply::List { .. } => list_shows_one_line_per_request_and_says_if_more,
        Reply::Inventory { .. } => inventory_shows_first_what_needs_attention,
        Reply::Refused(_) => refusal_names_the_unmatched_facts_or_the_rule,
        Reply::ReasonRequired { .. } | Reply::CouldNotAsk { .. } => missing_reason_reply_shows_the_command,
        Reply::ReasonTooLong(_) => long_reason_reply_says_how_long_it_may_be,
        Reply::Objection(_) => objection_names_its_cause_and_advice,
        Reply::StaleCard { .. } => reply_to_an_old_button_points_to_the_newest_card,
        Reply::ConnectionChanged => changed_connection_reply_asks_to_read_the_card_again,
        Reply::FactsNotShown => unseen_facts_reply_asks_to_wait_for_the_card,
        Reply::DecisionVoid | Reply::IdReused => replayed_request_reply_asks_for_a_new_request,
        Reply::RecordFull | Reply::TooManyWithdrawals | Reply::TooManyReads => limit_reply_says_what_is_left,
        Reply::UnknownTarget(_) | Reply::UnknownConnection => unknown_target_or_connection_reply_says_which,
        Reply::VendorRefused(_) => vendor_refusal_reply_shows_code_and_advice,
        Reply::NotUnderstood { .. } => unreadable_field_reply_names_the_field,
        Reply::CredentialsRefused(_) => refused_credentials_reply_shows_the_advice,
        Reply::Unavailable(_) => unavailable_dependency_reply_asks_to_try_again,
    }
}

fn reply(reply: &Reply) -> String {
    text(&message::describe_reply(reply, CommandScope::Everything, now()))
}

/// The replies, separated by empty lines.
fn replies(all: impl IntoIterator<Item = Reply>) -> String {
    all.into_iter().map(|one| reply(&one)).collect::<Vec<_>>().join("\n\n")
}

fn done(events: &[Event]) -> String {
    reply(&Reply::Done(Box::new(after(approved(), events))))
}

fn rejected_by_alice() -> Box<Approval> {
    Box::new(after(decided(Verdict::Reject, None), &[rejected()]))
}

#[test]
fn reply_to_words_where_only_buttons_decide_shows_the_card() {
    let status = |connection: Connection| {
        let connection = Box::new(connection);
        let status = Reply::Status { connection, approval: Some(Box::new(half_approved())), target: "prod".into() };
        message::describe_reply(&Reply::ButtonsOnly(Box::new(status)), CommandScope::Questions, now())
    };
    assert_snapshot!(text(&status(connection("n"))), @r"
    VPC peering prod/pcc-a has the status Accepting at Alibaba Cloud
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: n
    State: pending since 2026-11-22 10:00:00 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Still needed: 1 of bob, carol
    ✓ the accepting account is ours
    ✓ it is pending at Alibaba Cloud
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the CIDR blocks of both sides do not overlap
    ✓ no other peering of the accepting VPC uses the requester's CIDR blocks
    ✓ Alibaba Cloud would accept it (dry run)
    Nothing was decided: here, only buttons decide. Use the buttons of this message, or of the card in the channel.
    2026-11-22 10:00:00 UTC: discovered; the rule “r” requires 2 approvals
    2026-11-22 10:00:00 UTC: approved by alice (slack:T0001/U1) (ticket 42)
    [Approve] [Reject]
    ");
    let unknown = Reply::ButtonsOnly(Box::new(Reply::UnknownConnection));
    assert_snapshot!(text(&message::describe_reply(&unknown, CommandScope::Questions, now())), @r"
    There is no such connection in this account
    Nothing was decided: here, only buttons decide. Use the buttons of the card in the channel.
    ");
}

#[test]
fn reply_without_commands_points_to_the_card() {
    let id = ApprovalId { target: "prod".into(), instance_id: InstanceId::parse("pcc-a").unwrap() };
    let missing = Reply::ReasonRequired { rule: "r".into(), verdict: Verdict::Reject, id: id.clone() };
    let unasked = Reply::CouldNotAsk { verdict: Verdict::Reject, id };
    let said = [missing, unasked].map(|reply| text(&message::describe_reply(&reply, CommandScope::Questions, now())));
    assert_snapshot!(said.join("\n\n"), @r"
    The rule “r” requires a reason, so nothing was decided
    Write a reason on the card, and click the button again.

    peergate could not ask you for a reason, so nothing was decided
    Click the button again.
    ");
}

#[test]
fn reply_to_an_accepted_approval_says_it_is_activating() {
    assert_snapshot!(done(&[accepted()]), @"You approved prod/pcc-a: Alibaba Cloud is activating it, and the channel will hear when it is usable");
}

#[test]
fn reply_to_an_activated_approval_says_so() {
    assert_snapshot!(done(&[accepted(), seen(Status::Activated)]), @"You approved prod/pcc-a, and it is Activated");
}

#[test]
fn reply_to_a_failed_approval_shows_code_and_advice() {
    assert_snapshot!(done(&[Event::Failed(problem("QuotaExceeded.X"))]), @r"
    Your decision on prod/pcc-a could not be carried out
    State: failed since 2026-11-22 10:01:38 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Error code: QuotaExceeded.X
    Request id: R2
    Raise the quota in Quota Center, then approve again.
    ");
}

#[test]
fn reply_to_a_deleted_request_says_too_late() {
    assert_snapshot!(reply(&Reply::Done(Box::new(deleted(approved())))), @r"
    Too late: prod/pcc-a was deleted
    State: deleted since 2026-11-22 10:06:38 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    peergate noticed it at 2026-11-22 10:06:38 UTC. The requester must send a new request.
    ");
}

#[test]
fn reply_to_a_rejection_says_rejected() {
    assert_snapshot!(reply(&Reply::Done(rejected_by_alice())), @"You rejected prod/pcc-a");
}

#[test]
fn reply_in_progress_says_the_decision_is_stored() {
    assert_snapshot!(reply(&Reply::InProgress(Box::new(approved()))), @r"
    You approved prod/pcc-a
    Your decision is stored, but Alibaba Cloud has not confirmed it yet. peergate will carry it out automatically and notify the channel.
    ");
}

#[test]
fn reply_to_a_partial_approval_counts_it() {
    assert_snapshot!(reply(&Reply::Counted(Box::new(half_approved()))), @r"
    Your approval of prod/pcc-a counts: 1 of 2 approvals
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Still needed: 1 of bob, carol
    ");
}

#[test]
fn reply_to_a_withdrawal_shows_who_is_needed() {
    assert_snapshot!(reply(&Reply::Withdrawn(Box::new(withdrawn()))), @r"
    You withdrew your approval of prod/pcc-a
    Rule: r
    Still needed: 2 of alice, bob, carol
    ");
}

#[test]
fn reply_without_an_approval_to_withdraw_says_so() {
    assert_snapshot!(reply(&Reply::NothingToWithdraw), @"You have no approval to withdraw");
}

#[test]
fn reply_to_a_repeated_decision_says_nothing_changed() {
    assert_snapshot!(reply(&Reply::Repeated(Box::new(approved()))), @r"
    You already decided on prod/pcc-a: nothing changed
    State: approved since 2026-11-22 10:00:00 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    ");
}

#[test]
fn reply_after_an_approval_names_the_approvers() {
    assert_snapshot!(reply(&Reply::AlreadyDecided(Box::new(approved_by_two()))), @r"
    Too late: prod/pcc-a was already approved by alice (slack:T0001/U1) and bob (slack:T0001/U2) at 2026-11-22 10:00:00 UTC
    State: approved since 2026-11-22 10:00:00 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1) and bob (slack:T0001/U2)
    Reason: alice: ticket 42
    ");
}

#[test]
fn reply_after_a_rejection_names_the_rejecter() {
    assert_snapshot!(reply(&Reply::AlreadyDecided(rejected_by_alice())), @r"
    Too late: prod/pcc-a was already rejected by alice (slack:T0001/U1) at 2026-11-22 10:00:00 UTC
    State: rejected since 2026-11-22 10:01:38 UTC
    Rule: r
    Rejected by: alice (slack:T0001/U1)
    ");
}

#[test]
fn reply_after_an_outside_rejection_says_too_late() {
    assert_snapshot!(reply(&Reply::AlreadyDecided(Box::new(after(approved(), &[seen(Status::Rejected)])))), @r"
    Too late: prod/pcc-a was rejected outside peergate
    State: rejected since 2026-11-22 10:01:38 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    peergate noticed it at 2026-11-22 10:01:38 UTC. The requester must send a new request.
    ");
}

#[test]
fn reply_after_the_expiry_says_too_late() {
    assert_snapshot!(reply(&Reply::AlreadyDecided(Box::new(after(approved(), &[seen(Status::Expired)])))), @r"
    Too late: prod/pcc-a has expired
    State: expired since 2026-11-22 10:01:38 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    It expired at 2026-11-29 10:00:00 UTC. The requester must send a new request.
    ");
}

#[test]
fn reply_about_a_missing_connection_says_what_to_do() {
    assert_snapshot!(reply(&Reply::Deleted(Box::new(pending()))), @r"
    Alibaba Cloud no longer has VPC peering prod/pcc-a, so nothing was decided
    State: pending since 2026-11-22 10:00:00 UTC
    Rule: r
    Still needed: 2 of alice, bob, carol
    If it was deleted, the requester must send a new request.
    ");
    assert_snapshot!(reply(&Reply::Deleted(Box::new(deleted(approved())))), @r"
    Too late: prod/pcc-a was deleted
    State: deleted since 2026-11-22 10:06:38 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    peergate noticed it at 2026-11-22 10:06:38 UTC. The requester must send a new request.
    ");
}

#[test]
fn reply_to_a_passed_dry_run_lists_the_checks() {
    let findings = checked(&connection("n"), CheckOutcome::Passed);
    assert_snapshot!(reply(&Reply::DryRunPassed { connection: Box::new(connection("n")), findings }), @r"
    A dry run passed and changed nothing: pcc-a could be accepted now
    Requester: account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: n
    ✓ the accepting account is ours
    ✓ it is pending at Alibaba Cloud
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the CIDR blocks of both sides do not overlap
    ✓ no other peering of the accepting VPC uses the requester's CIDR blocks
    ✓ Alibaba Cloud would accept it (dry run)
    ");
}

#[test]
fn reply_to_a_passed_dry_run_repeats_unknown_checks_as_warnings() {
    let mut findings = checked(&connection("n"), CheckOutcome::Passed);
    findings.push(preflight::check_other_peerings(&connection("n"), None));
    let message = message::describe_reply(
        &Reply::DryRunPassed { connection: Box::new(connection("n")), findings },
        CommandScope::Everything,
        now(),
    );
    assert_snapshot!(message.sentences.join("\n"), @"Warning: unknown whether other peerings of the accepting VPC use the requester's CIDR blocks.");
}

fn status(connection: Connection, approval: Option<Approval>) -> String {
    let (connection, approval) = (Box::new(connection), approval.map(Box::new));
    reply(&Reply::Status { connection, approval, target: "prod".into() })
}

#[test]
fn status_without_a_record_shows_facts_and_buttons() {
    assert_snapshot!(status(connection("n"), None), @r"
    VPC peering prod/pcc-a has the status Accepting at Alibaba Cloud
    Requester: account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: n
    [Approve] [Reject]
    ");
}

#[test]
fn status_of_a_pending_request_shows_its_history() {
    assert_snapshot!(status(connection("n"), Some(half_approved())), @r"
    VPC peering prod/pcc-a has the status Accepting at Alibaba Cloud
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: n
    State: pending since 2026-11-22 10:00:00 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Still needed: 1 of bob, carol
    ✓ the accepting account is ours
    ✓ it is pending at Alibaba Cloud
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the CIDR blocks of both sides do not overlap
    ✓ no other peering of the accepting VPC uses the requester's CIDR blocks
    ✓ Alibaba Cloud would accept it (dry run)
    2026-11-22 10:00:00 UTC: discovered; the rule “r” requires 2 approvals
    2026-11-22 10:00:00 UTC: approved by alice (slack:T0001/U1) (ticket 42)
    [Approve] [Reject]
    ");
}

#[test]
fn status_of_a_deferred_accept_shows_the_code() {
    let deferred = Event::Deferred { problem: problem("Throttling.User"), retry_after: None };
    assert_snapshot!(status(connection("n"), Some(after(approved(), &[deferred]))), @r"
    VPC peering prod/pcc-a has the status Accepting at Alibaba Cloud
    Requester: data team, account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks 10.1.0.0/16, fd00:1::/48
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: n
    State: approved since 2026-11-22 10:00:00 UTC
    Rule: r
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Error code: Throttling.User
    Request id: R2
    ✓ the accepting account is ours
    ✓ it is pending at Alibaba Cloud
    ✓ it has not expired
    ✓ its business status is normal
    ✓ no managed service owns it
    ✓ the CIDR blocks of both sides do not overlap
    ✓ no other peering of the accepting VPC uses the requester's CIDR blocks
    ✓ Alibaba Cloud would accept it (dry run)
    2026-11-22 10:00:00 UTC: discovered; the rule “r” requires 1 approval
    2026-11-22 10:00:00 UTC: approved by alice (slack:T0001/U1) (ticket 42)
    ");
}

#[test]
fn status_with_unknown_cidrs_says_so() {
    let mut unknown = connection("n");
    unknown.requester.cidrs.clear();
    assert_snapshot!(status(unknown, None), @r"
    VPC peering prod/pcc-a has the status Accepting at Alibaba Cloud
    Requester: account 1111111111111111
    From: vpc-theirs in cn-hangzhou, CIDR blocks unknown
    To: account 2222222222222222, vpc-ours in cn-shanghai, CIDR block 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link type: Gold
    Name: n
    The CIDR blocks of one side are unknown, so peergate cannot check for an overlap.
    [Approve] [Reject]
    ");
}

#[test]
fn audit_history_shows_each_event_with_its_state() {
    let mut approval = withdrawn();
    approval =
        after(approval, &[bandwidth_changed(), seen(Status::Activated), Event::Failed(problem("QuotaExceeded.X"))]);
    let message = message::record_with_history(&approval, now());
    assert_snapshot!(message.sentences.join("\n"), @r"
    2026-11-22T10:00:00.000Z pending    discovered; the rule “r” requires 2 approvals; of eb7f84410474…
    2026-11-22T10:00:00.000Z pending    approved by alice (slack:T0001/U1) (ticket 42); of eb7f84410474…
    2026-11-22T10:01:38.000Z pending    approval withdrawn by alice (slack:T0001/U1)
    2026-11-22T10:01:38.000Z pending    changed: bandwidth: 1024 Mbit/s → none or unlimited; of 6afef5e925fd…
    2026-11-22T10:01:38.000Z activating Alibaba Cloud shows that it was accepted
    2026-11-22T10:01:38.000Z activating activated with facts that nobody approved: bandwidth: none or unlimited → 1024 Mbit/s
    2026-11-22T10:01:38.000Z activated  Alibaba Cloud shows it as Activated
    ");
}

#[test]
fn list_shows_one_line_per_request_and_says_if_more() {
    let approvals = vec![half_approved(), without_rule(&half_approved()), approved()];
    assert_snapshot!(reply(&Reply::List { approvals, more: true }), @r"
    3 VPC peerings are pending or in progress
    prod/pcc-a: pending, 1 of 2 approvals; since 2026-11-22 10:00:00 UTC, expires 2026-11-29 10:00:00 UTC; from data team, account 1111111111111111 to vpc-ours
    prod/pcc-a: pending, no rule covers it; since 2026-11-22 10:00:00 UTC, expires 2026-11-29 10:00:00 UTC; from data team, account 1111111111111111 to vpc-ours
    prod/pcc-a: approved; since 2026-11-22 10:00:00 UTC; from data team, account 1111111111111111 to vpc-ours
    There are more requests than this list shows.
    ");
}

#[test]
fn short_list_says_how_many_are_pending() {
    let list = |approvals| Reply::List { approvals, more: false };
    assert_snapshot!(replies([list(vec![]), list(vec![half_approved()])]), @r"
    No VPC peering is pending or in progress

    1 VPC peering is pending or in progress
    prod/pcc-a: pending, 1 of 2 approvals; since 2026-11-22 10:00:00 UTC, expires 2026-11-29 10:00:00 UTC; from data team, account 1111111111111111 to vpc-ours
    ");
}

fn inventory_lines() -> Vec<InventoryLine> {
    let account = AccountId(2_222_222_222_222_222);
    let approved = InventoryLine::new("prod", account, &connection("n"), Some(&approved_by_two()));
    let active = InventoryLine { status: Status::Activated, ..approved };
    let known = InventoryLine { created_at: Some(now() - SignedDuration::from_hours(75)), ..active.clone() };
    let of = |origin| InventoryLine { origin, ..active.clone() };
    let instance_id = |number: u32| InstanceId::parse(&format!("pcc-{number}")).unwrap();
    vec![
        of(InventoryOrigin::NeverApproved),
        InventoryLine { drift: vec!["bandwidth".into(), "requester CIDRs".into()], ..of(InventoryOrigin::Approved) },
        InventoryLine { routes_complete: Some(false), ..known },
        InventoryLine { routes_complete: Some(true), ..of(InventoryOrigin::Adopted) },
        of(InventoryOrigin::NoApprovalNeeded),
        InventoryLine { role: InventoryRole::Requesting, ..of(InventoryOrigin::RequestedByUs) },
        InventoryLine { status: Status::Accepting, ..of(InventoryOrigin::NotActive) },
    ]
    .into_iter()
    .zip(1..)
    .map(|(line, number)| InventoryLine { instance_id: instance_id(number), ..line })
    .collect()
}

#[test]
fn inventory_shows_first_what_needs_attention() {
    let mut lines = inventory_lines();
    lines.reverse();
    lines.sort_by_key(InventoryLine::attention);
    assert_snapshot!(reply(&Reply::Inventory { target: None, lines, gaps: vec![] }), @r"
    7 VPC peerings: 1 never approved here, 1 changed, 1 with incomplete routes
    An operator can take over a peering that was never approved here: `peergate adopt ID --by NAME --reason …`.
    prod/pcc-1: Activated; ⚠ never approved here; from account 1111111111111111 to vpc-ours
    prod/pcc-2: Activated; ⚠ changed: bandwidth, requester CIDRs; approved by alice and bob on 2026-11-22 (rule “r”); from account 1111111111111111 to vpc-ours
    prod/pcc-3: Activated; ⚠ routes incomplete; from account 1111111111111111 to vpc-ours; 3 d 3 h old
    prod/pcc-6: Activated; requested by us; to vpc-ours of account 2222222222222222
    prod/pcc-5: Activated; no approval needed; from account 1111111111111111 to vpc-ours
    prod/pcc-4: Activated; routes complete; adopted by alice and bob on 2026-11-22; from account 1111111111111111 to vpc-ours
    prod/pcc-7: Accepting; from account 1111111111111111 to vpc-ours
    ");
}

#[test]
fn inventory_without_all_of_it_says_so() {
    let gap = |number| format!("prod in region-{number}: Forbidden.RAM");
    let (none, gaps): (Vec<_>, Vec<_>) = (vec![], (0..12).map(gap).collect());
    let one = || inventory_lines().into_iter().skip(4).take(1).collect();
    assert_snapshot!(replies([
        Reply::Inventory { target: None, lines: none.clone(), gaps: vec![] },
        Reply::Inventory { target: Some("prod".into()), lines: none.clone(), gaps: vec![] },
        Reply::Inventory { target: None, lines: one(), gaps: vec![gap(1)] },
        Reply::Inventory { target: None, lines: none, gaps },
    ]), @r"
    There is no VPC peering in the configured regions of our accounts

    There is no VPC peering in the configured regions of prod

    1 VPC peering (⚠ not all could be read)
    ⚠ Not read: prod in region-1: Forbidden.RAM
    prod/pcc-5: Activated; no approval needed; from account 1111111111111111 to vpc-ours

    No VPC peering could be read
    ⚠ Not read: prod in region-0: Forbidden.RAM
    ⚠ Not read: prod in region-1: Forbidden.RAM
    ⚠ Not read: prod in region-2: Forbidden.RAM
    ⚠ Not read: prod in region-3: Forbidden.RAM
    ⚠ Not read: prod in region-4: Forbidden.RAM
    ⚠ Not read: prod in region-5: Forbidden.RAM
    ⚠ Not read: prod in region-6: Forbidden.RAM
    ⚠ Not read: prod in region-7: Forbidden.RAM
    ⚠ Not read: prod in region-8: Forbidden.RAM
    ⚠ Not read: prod in region-9: Forbidden.RAM
    ⚠ 2 more could not be read.
    ");
}

#[test]
fn refusal_names_the_unmatched_facts_or_the_rule() {
    let refusals = [
        Refusal::NoRule(vec![RuleFact::RequesterAccount, RuleFact::Bandwidth]),
        Refusal::NoRule(vec![]),
        Refusal::NotAnApprover { rule: "data team".into() },
        Refusal::Contact { account: AccountId(1_111_111_111_111_111) },
    ];
    assert_snapshot!(replies(refusals.map(Reply::Refused)), @r"
    No rule covers this VPC peering, so nobody can decide on it
    No rule allows its requester account and its bandwidth.
    An operator of peergate can add a rule for it to peergate.toml.

    No rule covers this VPC peering, so nobody can decide on it
    Each of its facts is allowed by some rule, but no rule allows all of them.
    An operator of peergate can add a rule for it to peergate.toml.

    You cannot decide on this VPC peering: you are not an approver of its rule “data team”

    You cannot approve this VPC peering: you are a contact of its requester, account 1111111111111111
    Another approver has to decide.
    ");
}

#[test]
fn objection_names_its_cause_and_advice() {
    let objections = [
        Objection::NotOurs,
        Objection::Status(Status::Activated),
        Objection::Expired,
        Objection::BusinessStatus("FinancialLocked".to_owned().into()),
        Objection::ManagedService("SWAS".into()),
        Objection::Overlap(vec![cidrs("10.0.0.0/8", "10.2.0.0/16"), cidrs("10.9.9.0/24", "10.9.9.0/24")]),
        Objection::DryRun(problem("OperationFailed.CdtNotOpened")),
    ];
    assert_snapshot!(replies(objections.map(Reply::Objection)), @r"
    This VPC peering cannot be approved or rejected: its accepting account is not the account of the target

    This VPC peering cannot be approved or rejected: it is Activated, not pending

    This VPC peering cannot be approved or rejected: it has expired
    The requester must send a new request.

    This VPC peering cannot be approved: its business status is FinancialLocked
    Settle the overdue payment first.

    This VPC peering cannot be approved: the managed service SWAS owns it

    This VPC peering cannot be approved: CIDR blocks of both sides overlap, so routes between them cannot work
    Overlap: requester 10.0.0.0/8, ours 10.2.0.0/16
    Overlap: requester 10.9.9.0/24, ours 10.9.9.0/24
    the requester's 10.0.0.0/8 contains our 10.2.0.0/16
    requester 10.0.0.0/8  ████████████████████████████████
    ours      10.2.0.0/16 █·······························
    both sides use 10.9.9.0/24
    requester 10.9.9.0/24 ████████████████████████████████
    ours      10.9.9.0/24 ████████████████████████████████

    This VPC peering cannot be approved: Alibaba Cloud would not accept it (dry run): OperationFailed.CdtNotOpened
    Error code: OperationFailed.CdtNotOpened
    Request id: R2
    Activate Cloud Data Transfer (CDT) for the accepting account, then approve again.
    ");
}

#[test]
fn missing_reason_reply_shows_the_command() {
    let id = ApprovalId { target: "prod".into(), instance_id: connection("").instance_id };
    let rule = "data team".into();
    assert_snapshot!(replies([
        Reply::ReasonRequired { rule, verdict: Verdict::Approve, id: id.clone() },
        Reply::CouldNotAsk { verdict: Verdict::Reject, id },
    ]), @r"
    The rule “data team” requires a reason, so nothing was decided
    Decide again with a reason: /peergate approve prod/pcc-a because …

    peergate could not ask you for a reason, so nothing was decided
    Use a command instead: /peergate reject prod/pcc-a because …
    ");
}

#[test]
fn long_reason_reply_says_how_long_it_may_be() {
    assert_snapshot!(reply(&Reply::ReasonTooLong(401)), @r"
    Your reason has 401 characters, and peergate takes at most 400
    Nothing was decided. Decide again with a shorter reason.
    ");
}

#[test]
fn reply_to_an_old_button_points_to_the_newest_card() {
    assert_snapshot!(reply(&Reply::StaleCard { current_card: Some("C1/2".into()), approval: None }), @r"
    This button is no longer valid, so nothing was decided
    Use the newest card of this request in the channel, or a command.
    ");
    assert_snapshot!(text(&message::card_replaced(None)), @r"
    This card has been replaced
    Another card shows the current state of this request.
    ");
}

#[test]
fn reply_to_an_old_button_brings_a_card_if_no_channel_has_one() {
    let stale = Reply::StaleCard { current_card: None, approval: Some(Box::new(half_approved())) };
    let message = message::describe_reply(&stale, CommandScope::Everything, now());
    assert_snapshot!(message.sentences.join("\n"), @"The button that you clicked is no longer valid, so nothing was decided. Use the buttons of this message: only you see it.");
    assert!(message.buttons.is_some());
}

#[test]
fn changed_connection_reply_asks_to_read_the_card_again() {
    assert_snapshot!(reply(&Reply::ConnectionChanged), @r"
    This VPC peering has changed since you saw it, so nothing was decided
    Its status, accounts, VPCs, CIDR blocks, bandwidth or link type are different. Once its card shows that, read it again, then decide.
    ");
}

#[test]
fn unseen_facts_reply_asks_to_wait_for_the_card() {
    assert_snapshot!(reply(&Reply::FactsNotShown), @r"
    No channel had shown the current facts of this VPC peering when you decided, so your decision does not count
    Wait for its card and decide there. A webhook client can also send the fingerprint from a status reply.
    ");
}

#[test]
fn replayed_request_reply_asks_for_a_new_request() {
    assert_snapshot!(replies([Reply::DecisionVoid, Reply::IdReused]), @r"
    This decision was stored earlier and no longer counts: the rules or the checks have changed
    To decide again, send a new request.

    Another request about this VPC peering has the same id, so nothing was decided
    Send your request again with a new id.
    ");
}

#[test]
fn limit_reply_says_what_is_left() {
    assert_snapshot!(replies([Reply::RecordFull, Reply::TooManyWithdrawals, Reply::TooManyReads]), @r"
    The record of this VPC peering is full, so your request was not stored
    You can still try to reject it, or to give its last missing approval. Otherwise, decide in the Alibaba Cloud console.

    You have withdrawn your approval 20 times, so you cannot withdraw it again

    Too many requests came in the last minute, so peergate did not ask Alibaba Cloud and nothing was decided
    Please try again in a minute.
    ");
}

#[test]
fn unknown_target_or_connection_reply_says_which() {
    let targets = vec!["dev".into(), "prod".into()];
    assert_snapshot!(replies([Reply::UnknownTarget(targets), Reply::UnknownConnection]), @r"
    Name one of these targets: dev, prod

    There is no such connection in this account
    ");
}

#[test]
fn vendor_refusal_reply_shows_code_and_advice() {
    assert_snapshot!(reply(&Reply::VendorRefused(problem("OperationFailed.CrossBorderCdtNotOpened"))), @r"
    Alibaba Cloud refuses to accept this VPC peering
    Error code: OperationFailed.CrossBorderCdtNotOpened
    Request id: R2
    Activate cross-border Cloud Data Transfer (CDT) for the accepting account, then approve again.
    ");
}

#[test]
fn unreadable_field_reply_names_the_field() {
    let problem = problem("NotUnderstood.Bandwidth");
    assert_snapshot!(reply(&Reply::NotUnderstood { field: "Bandwidth", problem }), @r"
    peergate does not understand Alibaba Cloud's answer about this VPC peering
    Error code: NotUnderstood.Bandwidth
    Request id: R2
    The field Bandwidth is not as documented, so nothing was decided. Please tell an operator of peergate.
    ");
}

#[test]
fn refused_credentials_reply_shows_the_advice() {
    assert_snapshot!(replies(["Forbidden.RAM", "AwsIdentity.AccessDenied"].map(|code| {
        Reply::CredentialsRefused(problem(code))
    })), @r"
    Alibaba Cloud refuses the credentials of peergate: an operator of peergate must fix this
    Error code: Forbidden.RAM
    Request id: R2
    Grant the target's RAM user or role vpc:AcceptVpcPeerConnection, vpc:RejectVpcPeerConnection, vpc:GetVpcPeerConnectionAttribute and vpc:ListVpcPeerConnections.

    AWS refuses an identity token for Alibaba Cloud: an operator of peergate must fix this
    Error code: AwsIdentity.AccessDenied
    Request id: R2
    Deploy with Keyless=yes, so that the functions may ask AWS for identity tokens.
    ");
}

#[test]
fn unavailable_dependency_reply_asks_to_try_again() {
    let all = [Dependency::Store, Dependency::Secrets, Dependency::Alicloud, Dependency::AwsIdentity];
    assert_snapshot!(replies(all.map(Reply::Unavailable)), @r"
    peergate cannot reach its database, so your request may not have been stored
    Please try again in a minute.

    peergate cannot read its secrets, so nothing was decided
    Please try again in a minute.

    Alibaba Cloud does not answer, so nothing was decided
    Please try again in a minute.

    AWS issues no identity token for Alibaba Cloud now, so nothing was decided
    Please try again in a minute.
    ");
}

#[test]
fn user_of_another_tenant_learns_what_an_operator_can_do() {
    let reply = message::wrong_tenant("Slack workspace", "platforms.slack.teams");
    assert_snapshot!(text(&reply), @r"
    peergate does not take commands from this Slack workspace, so it did nothing
    An operator of peergate can add the workspace to `platforms.slack.teams` in peergate.toml.
    ");
}

#[test]
fn reason_form_asks_for_a_reason_that_only_an_approval_requires() {
    let forms = [Verdict::Approve, Verdict::Reject].map(message::reason_form);
    let line = |form: ReasonForm| {
        let ReasonForm { title, submit_label, label, is_optional } = form;
        format!("{title} / {label} (optional: {is_optional}) / [{submit_label}]")
    };
    assert_snapshot!(forms.map(line).join("\n"), @r"
    Approve VPC peering / Reason (the channel sees it) (optional: false) / [Approve]
    Reject VPC peering / Reason (the channel sees it) (optional: true) / [Reject]
    ");
}

#[test]
fn usage_explains_every_command() {
    assert_snapshot!(text(&message::describe_unknown_command(&UnknownCommand::Help, CommandScope::Everything, &["prod"])), @r"
    peergate understands these commands
    /peergate list [on TARGET]: show the requests that are pending or in progress
    /peergate inventory [on TARGET]: show every VPC peering in the configured regions, and who approved it
    /peergate status pcc-… [on TARGET]: show the facts, checks and history of a request
    /peergate approve pcc-… [on TARGET] [because REASON]: approve a request
    /peergate reject pcc-… [on TARGET] [because REASON]: reject a request
    /peergate withdraw pcc-… [on TARGET]: withdraw your approval
    /peergate acknowledge pcc-… [on TARGET] [because REASON]: acknowledge that an active connection has changed
    /peergate dry-run pcc-… [on TARGET]: check whether a request could be accepted, and change nothing
    TARGET is the name of an accepting account. You can omit it if there is only one, and you can write TARGET/pcc-….
    A reason has at most 400 characters.
    ");
}

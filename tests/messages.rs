//! What people read, in every state, also when outsiders are hostile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use insta::assert_snapshot;
use jiff::{SignedDuration, Timestamp};
use peergate::approval::{
    Approval, ApprovalId, Approver, Decision, Event, Grounds, News, Principal, Problem, State, Verdict,
};
use peergate::chat::message::{self, Message};
use peergate::chat::{Answer, Part, slack, standard_webhooks};
use peergate::peering::{Connection, Status};
use peergate::policy::{Fact, Objection, Refusal};
use serde_json::json;

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
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

fn decided(verdict: Verdict, name: &str, reason: Option<&str>) -> Approval {
    let connection = connection(name);
    let by = Approver { principal: Principal::new("slack", "T0001", "U1").unwrap(), person: Some("alice".into()) };
    let decision = Decision { verdict, by, at: now(), reason: reason.map(ToOwned::to_owned), request_key: "k".into() };
    let id = ApprovalId { target: "prod".into(), instance_id: connection.instance_id.clone() };
    let grounds = Grounds { id: &id, connection: &connection, rule: "r", channels: &["netops".to_owned()] };
    Approval::decide(None, &grounds, decision).unwrap()
}

/// The last notice after what happened.
fn notice(mut approval: Approval, events: &[Event]) -> String {
    for event in events {
        approval.apply(event, now() + SignedDuration::from_secs(98));
    }
    text(&message::notice(&approval, approval.outbox.last().unwrap()))
}

fn answer(answer: &Answer) -> String {
    text(&message::answer(answer))
}

fn text(message: &Message) -> String {
    let facts = message.facts.iter().map(|(label, value)| format!("{label}: {value}"));
    let buttons = message.buttons.iter().map(|buttons| format!("[Approve] [Reject] {}", buttons.instance_id));
    let lines = std::iter::once(message.headline.clone()).chain(facts).chain(message.sentences.clone()).chain(buttons);
    lines.collect::<Vec<_>>().join("\n")
}

fn seen(status: Status) -> Event {
    Event::Seen(Box::new(Connection { status, ..connection("data to payments") }))
}

fn accepted() -> Event {
    Event::Accepted { request_id: "R1".into() }
}

fn problem(code: &str) -> Problem {
    Problem { code: code.into(), request_id: Some("R2".into()) }
}

#[test]
fn every_notice() {
    let approved = || decided(Verdict::Approve, "data to payments", Some("ticket 42"));
    assert_snapshot!(notice(approved(), &[accepted()]), @r"
    VPC peering prod/pcc-a was accepted and is being activated
    Approved by: alice (slack:T0001/U1)
    Reason: ticket 42
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    ");
    assert_snapshot!(notice(approved(), &[accepted(), seen(Status::Activated)]), @r"
    VPC peering prod/pcc-a is Activated, 1 min 38 s after its approval
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Next: add routes on both sides. Ours, in the route tables of vpc-ours: 10.1.0.0/16, fd00:1::/48 → pcc-a.
    The requester's, in the route tables of vpc-theirs: 10.2.0.0/16 → pcc-a.
    Then check security groups, network ACLs and database whitelists.
    ");
    let rejected = decided(Verdict::Reject, "data to payments", Some("not ours to share"));
    assert_snapshot!(notice(rejected, &[Event::Rejected { request_id: "R1".into() }]), @r"
    VPC peering prod/pcc-a was rejected
    Rejected by: alice (slack:T0001/U1)
    Reason: not ours to share
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    This is final: the requester has to ask anew.
    ");
    assert_snapshot!(notice(approved(), &[seen(Status::Rejected)]), @r"
    VPC peering prod/pcc-a was rejected
    Rejected by: somebody outside peergate
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    This is final: the requester has to ask anew.
    ");
    assert_snapshot!(notice(approved(), &[seen(Status::Expired)]), @r"
    VPC peering prod/pcc-a has expired: nobody accepted it within 7 days
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    The requester has to ask anew.
    ");
    assert_snapshot!(notice(approved(), &[accepted(), Event::Missing]), @r"
    VPC peering prod/pcc-a was deleted
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Nothing is left to accept. The requester has to ask anew if it is still wanted.
    ");
    assert_snapshot!(notice(approved(), &[Event::Failed(problem("OperationFailed.CdtNotOpened"))]), @r"
    VPC peering prod/pcc-a could not be accepted
    Code: OperationFailed.CdtNotOpened
    Request id: R2
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: data to payments
    Open Cloud Data Transfer (CDT) for the accepting account, then approve again.
    ");
    let changed = Connection { bandwidth_mbps: None, ..connection("data to payments") };
    assert_snapshot!(notice(approved(), &[Event::Changed(Box::new(changed))]), @r"
    VPC peering prod/pcc-a could not be accepted
    Code: ConnectionChanged
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: not limited
    Link: Gold
    Name: data to payments
    The connection changed after it was approved. Look at it again, and approve it anew if it is right.
    ");
    let rejecting = decided(Verdict::Reject, "", None);
    assert_snapshot!(notice(rejecting, &[seen(Status::Activated)]), @r"
    VPC peering prod/pcc-a could not be rejected
    Code: AcceptedElsewhere
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Somebody accepted it outside peergate before the rejection. Delete the connection if it must not be.
    ");
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list")]
fn every_answer() {
    let approved = || Box::new(decided(Verdict::Approve, "data to payments", None));
    let after = |events: &[Event]| {
        let mut approval = approved();
        for event in events {
            approval.apply(event, now() + SignedDuration::from_secs(98));
        }
        approval
    };
    assert_snapshot!(answer(&Answer::Done(after(&[accepted()]))), @"You approved prod/pcc-a: it is being activated, and the channel will hear when it is usable");
    assert_snapshot!(answer(&Answer::Done(after(&[accepted(), seen(Status::Activated)]))), @"You approved prod/pcc-a, and it is Activated");
    assert_snapshot!(answer(&Answer::Done(after(&[Event::Failed(problem("QuotaExceeded.X"))]))), @r"
    prod/pcc-a could not be carried out
    State: failed since 2026-11-22T10:01:38Z
    Approved by: alice (slack:T0001/U1)
    Code: QuotaExceeded.X
    Request id: R2
    Raise the quota in Quota Center, then approve again.
    ");
    assert_snapshot!(answer(&Answer::Done(after(&[Event::Missing]))), @r"
    Too late: prod/pcc-a was deleted
    State: deleted since 2026-11-22T10:01:38Z
    Approved by: alice (slack:T0001/U1)
    ");
    let rejected = Box::new(Approval { state: State::Rejected, ..decided(Verdict::Reject, "", None) });
    assert_snapshot!(answer(&Answer::Done(rejected.clone())), @"You rejected prod/pcc-a");
    assert_snapshot!(answer(&Answer::Underway(approved())), @r"
    You approved prod/pcc-a
    Your decision is stored. Alibaba Cloud has not confirmed it yet; it will be carried out without you, and the channel will hear of it.
    ");
    assert_snapshot!(answer(&Answer::Repeated(approved())), @r"
    You decided about prod/pcc-a before; nothing changed
    State: approved since 2026-11-22T10:00:00Z
    Approved by: alice (slack:T0001/U1)
    ");
    assert_snapshot!(answer(&Answer::Over(approved())), @r"
    prod/pcc-a was already approved by alice (slack:T0001/U1) at 2026-11-22T10:00:00Z
    State: approved since 2026-11-22T10:00:00Z
    Approved by: alice (slack:T0001/U1)
    ");
    assert_snapshot!(answer(&Answer::Over(rejected)), @r"
    prod/pcc-a was already rejected by alice (slack:T0001/U1) at 2026-11-22T10:00:00Z
    State: rejected since 2026-11-22T10:00:00Z
    Rejected by: alice (slack:T0001/U1)
    ");
    assert_snapshot!(answer(&Answer::Over(after(&[seen(Status::Expired)]))), @r"
    Too late: prod/pcc-a has expired
    State: expired since 2026-11-22T10:01:38Z
    Approved by: alice (slack:T0001/U1)
    ");
    assert_snapshot!(answer(&Answer::DryRunPassed(Box::new(connection("n")))), @r"
    A dry run passed: pcc-a could be accepted now. Nothing was changed
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: n
    ");
    let status =
        |connection, approval| Answer::Status { connection: Box::new(connection), approval, target: "prod".into() };
    assert_snapshot!(answer(&status(connection("n"), None)), @r"
    VPC peering prod/pcc-a is Accepting
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: n
    [Approve] [Reject] pcc-a
    ");
    let deferred = Event::Deferred { problem: problem("Throttling.User"), retry_after: None };
    assert_snapshot!(answer(&status(connection("n"), Some(after(&[deferred])))), @r"
    VPC peering prod/pcc-a is Accepting
    Requester: account 1111111111111111, vpc-theirs in cn-hangzhou, 10.1.0.0/16, fd00:1::/48
    Accepting: account 2222222222222222, vpc-ours in cn-shanghai, 10.2.0.0/16
    Bandwidth: 1024 Mbit/s
    Link: Gold
    Name: n
    State: approved since 2026-11-22T10:00:00Z
    Approved by: alice (slack:T0001/U1)
    Code: Throttling.User
    Request id: R2
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
    [Approve] [Reject] pcc-a
    ");
    assert_snapshot!(answer(&Answer::Refused(Refusal::NoRule(vec![Fact::RequesterAccount, Fact::Bandwidth]))), @r"
    No rule covers this connection, so nobody may decide about it
    No rule allows its requester account, bandwidth.
    ");
    assert_snapshot!(answer(&Answer::Refused(Refusal::NoRule(vec![]))), @r"
    No rule covers this connection, so nobody may decide about it
    Each of its facts is allowed by some rule, but no rule allows all of them.
    ");
    assert_snapshot!(answer(&Answer::Refused(Refusal::NotAnApprover { rule: "data team".into() })), @"You are not an approver of the rule “data team” that covers this connection");
    let ranges = |theirs: &str, ours: &str| (theirs.parse().unwrap(), ours.parse().unwrap());
    let objections = [
        Objection::NotOurs,
        Objection::Status(Status::Activated),
        Objection::Expired,
        Objection::BusinessStatus("FinancialLocked".to_owned().into()),
        Objection::ManagedService("SWAS".into()),
        Objection::Overlap(vec![ranges("10.0.0.0/8", "10.2.0.0/16")]),
    ];
    let objections: Vec<_> = objections.into_iter().map(|objection| answer(&Answer::Objection(objection))).collect();
    assert_snapshot!(objections.join("\n\n"), @r"
    The accepting account of this connection is not the target's

    This connection is Activated: it does not wait for a decision

    This request has expired; the requester has to ask anew

    This connection's business status is FinancialLocked
    Settle the overdue payment first.

    This connection belongs to the managed service SWAS, not to us

    Both sides use the same addresses, so routes between them cannot work
    Overlap: requester 10.0.0.0/8 and accepting 10.2.0.0/16
    ");
    let others = [
        Answer::Changed,
        Answer::UnknownTarget(vec!["dev".into(), "prod".into()]),
        Answer::UnknownConnection,
        Answer::VendorRefused(problem("OperationFailed.CrossBorderCdtNotOpened")),
        Answer::CredentialsRefused(problem("Forbidden.RAM")),
        Answer::Unavailable(Part::Store),
        Answer::Unavailable(Part::Secrets),
        Answer::Unavailable(Part::Alicloud),
    ];
    assert_snapshot!(others.iter().map(answer).collect::<Vec<_>>().join("\n\n"), @r"
    The connection is not the one that you saw: its VPCs, ranges or bandwidth have changed
    Look at it again, then decide.

    Name one of these targets: dev, prod

    There is no such connection in this account

    Alibaba Cloud will not accept this connection
    Code: OperationFailed.CrossBorderCdtNotOpened
    Request id: R2
    Open cross-border Cloud Data Transfer for the accepting account, then approve again.

    Alibaba Cloud refuses peergate's own credentials; its operators have to mend that
    Code: Forbidden.RAM
    Request id: R2
    Grant the target's RAM user vpc:AcceptVpcPeerConnection, vpc:RejectVpcPeerConnection and vpc:GetVpcPeerConnectionAttribute.

    peergate cannot reach its store, so nothing is known to be decided
    Please try again in a minute.

    peergate cannot read its secrets, so nothing was decided
    Please try again in a minute.

    Alibaba Cloud does not answer, so nothing was decided
    Please try again in a minute.
    ");
    assert_snapshot!(text(&message::usage()), @r"
    peergate understands these commands
    /peergate approve pcc-… [on TARGET] [because REASON]
    /peergate reject pcc-… [on TARGET] [because REASON]
    /peergate dry-run pcc-… [on TARGET]
    /peergate status pcc-… [on TARGET]
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

#[test]
fn hostile_names_and_reasons_stay_text() {
    for hostile in HOSTILE {
        let mut approval = decided(Verdict::Approve, hostile, Some(hostile));
        approval.apply(&accepted(), now());
        let message = message::notice(&approval, &approval.outbox[0]);
        let shown = slack::render(&message);
        let fallback = shown["text"].as_str().unwrap();
        assert_eq!(fallback, "VPC peering prod/pcc-a was accepted and is being activated");
        let elements = shown["blocks"][0]["elements"][0]["elements"].as_array().unwrap();
        for element in elements {
            assert_eq!(element["type"], "text", "only literal text: {element}");
            let text = element["text"].as_str().unwrap().trim_start_matches('\n');
            assert!(!element["text"].as_str().unwrap().is_empty(), "Slack refuses empty texts: {shown}");
            let odd = |c: char| c.is_control() || "\u{202E}\u{2066}\u{200B}\u{FEFF}\u{00AD}\u{E0041}".contains(c);
            assert!(!text.chars().any(odd), "{text:?}");
        }
        assert_eq!(shown["blocks"].as_array().unwrap().len(), 1, "{shown}");
        let json = standard_webhooks::notice(&approval, &approval.outbox[0]);
        assert_eq!(json["data"]["approval"]["connection"]["name"], hostile, "machines get it as it is, in JSON");
    }
    let long = message::plain(&"<!channel>".repeat(100));
    assert_eq!((long.chars().count(), long.ends_with('…')), (201, true));
}

#[test]
fn slack_blocks_stay_within_their_limits_and_carry_the_buttons() {
    let name = "𝄞".repeat(256);
    let status = Answer::Status { connection: Box::new(connection(&name)), approval: None, target: "prod".into() };
    let shown = slack::ephemeral(&message::answer(&status));
    let value = shown["blocks"][1]["elements"][0]["value"].as_str().unwrap();
    assert_eq!(value, format!("prod/pcc-a#{}", connection(&name).fingerprint()));
    assert!(value.len() <= 2000 && shown.to_string().len() < 12_000);
    assert_eq!((&shown["unfurl_links"], &shown["response_type"]), (&json!(false), &json!("ephemeral")));
}

#[test]
fn a_notice_for_machines() {
    let mut approval = decided(Verdict::Approve, "data to payments", None);
    approval.apply(&accepted(), now());
    let json = standard_webhooks::notice(&approval, &approval.outbox[0]);
    assert_snapshot!(serde_json::to_string_pretty(&json).unwrap(), @r#"
    {
      "data": {
        "approval": {
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
            "person": "alice",
            "reason": null,
            "verdict": "approve"
          },
          "generation": 1,
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
            "reason": null,
            "request_key": "k",
            "verdict": "approve"
          }
        },
        "summary": "VPC peering prod/pcc-a was accepted and is being activated"
      },
      "timestamp": "2026-11-22T10:00:00Z",
      "type": "peering.accepted"
    }
    "#);
    assert!(matches!(approval.outbox[0].news, News::Accepted(Some(_))));
}

//! The people's side from outside: requests come to the channel, people click, everybody sees what came of it. Slack is a
//! fake that keeps messages, so that the tests see what people see.

use std::time::Duration;

use crate::support::{AUDIT, Counted, Gate, HOOK, RESPONSE, SLACK, logged, quick, wish};
use peergate::local::simulator::gateway::Fault;
use peergate::local::simulator::{Settings, Tampering};
use peergate::local::sink::Trouble;
use peergate::peering::InstanceId;
use serde_json::json;

const ALICE: &str = "U061F7AUR";
const BOB: &str = "U0BOB";
const CAROL: &str = "U0CAROL";
const ERIN: &str = "U0ERIN";

/// A request for a VPC of ours, whose name decides about the rule.
async fn requested(gate: &Gate, vpc: &str) -> InstanceId {
    gate.request_peering(&[("AcceptingVpcId", vpc)]).await.unwrap()
}

fn becomes(status: &str) -> Tampering {
    Tampering { status: Some(status.into()), ..Tampering::default() }
}

fn fails(action: &str, code: &str, times: u32) -> Fault {
    Fault { action: Some(action.into()), code: Some(code.into()), times, ..Fault::default() }
}

#[tokio::test]
async fn the_whole_life_of_a_request_as_the_channel_sees_it() {
    let gate = Gate::with(Settings { activation: Duration::from_secs(1), ..quick() }).await;
    let id = requested(&gate, "vpc-two-people").await;
    let summary = gate.discover().await;
    assert_eq!((summary.discovered, summary.delivered), (1, 3));

    let card = gate.card();
    let expected = [
        format!("VPC peering prod/{id} waits for approval: 0 of 2"),
        "Requester: data team, account 1111111111111111, vpc-requester in cn-hangzhou, 10.0.0.0/24".into(),
        "Accepting: account 2222222222222222, vpc-two-people in cn-shanghai, 10.0.1.0/24".into(),
        "Cost: between regions: each side pays for the traffic that it sends (CDT)".into(),
        "Rule: two people".into(),
        "Still needed: 2 of alice, bob, carol".into(),
        "✓ Alibaba Cloud would accept it (dry run)".into(),
        "✓ no other peering of the accepting VPC uses the requester's ranges".into(),
    ];
    for line in expected {
        assert!(card.text.lines().any(|shown| shown == line), "{line:?} is not on the card:\n{}", card.text);
    }
    assert!(card.text.contains("Expires: "), "{}", card.text);
    assert_eq!(card.labels(), ["Approve", "Reject", "Details"]);
    assert_eq!((card.edits, card.replies.len()), (0, 0));

    // Alice approves, from the card; once more from another platform; and Carol, who is the second.
    assert_eq!(gate.press(&card, "Approve", ALICE).await.status, 200);
    assert_eq!(gate.told().lines().next().unwrap(), format!("Your approval of prod/{id} counts: 1 of 2"));
    gate.tick().await;
    let card = gate.card();
    assert!(card.text.contains("waits for approval: 1 of 2"), "{}", card.text);
    assert!(card.text.contains("Approved by: alice (slack:T0001/U061F7AUR)"), "{}", card.text);
    assert!(card.text.contains("Still needed: 1 of bob, carol"), "{}", card.text);
    assert_eq!(card.labels(), ["Approve", "Reject", "Withdraw my approval", "Details"]);
    let again = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((again.status, again.name().as_str(), gate.accepts(&id)), (200, "repeated", 0));
    gate.press(&card, "Approve", CAROL).await;
    assert!(gate.told().starts_with(&format!("You approved prod/{id}")), "{}", gate.told());
    assert_eq!(gate.accepts(&id), 1);

    // The watcher follows it to the end.
    gate.tick().await;
    let card = gate.card();
    assert!(card.text.starts_with(&format!("VPC peering prod/{id} is Activated\n")), "{}", card.text);
    assert!(
        card.text.contains("Approved by: alice (slack:T0001/U061F7AUR), carol (slack:T0001/U0CAROL)"),
        "{}",
        card.text
    );
    assert!(card.text.contains("Decided at: ") && card.text.contains("Took: "), "{}", card.text);
    assert!(card.text.contains("Next: add routes on both sides."), "{}", card.text);
    assert!(card.labels().is_empty(), "{:?}", card.labels());
    let thread = card.thread();
    assert_eq!(
        thread[..3],
        [
            format!("alice (slack:T0001/U061F7AUR) approved VPC peering prod/{id}: 1 of 2"),
            format!("carol (slack:T0001/U0CAROL) approved VPC peering prod/{id}: 2 of 2"),
            format!("VPC peering prod/{id} was accepted and is being activated"),
        ]
    );
    assert!(thread[3].starts_with(&format!("VPC peering prod/{id} is Activated, ")), "{thread:?}");
    assert_eq!((thread.len(), card.edits), (4, 4), "the card is redrawn with each");
    // Where nothing can be changed, each is a message; machines get each as an event.
    assert_eq!(gate.headlines(HOOK).len(), 4);
    let types: Vec<_> = gate.sink.posts(AUDIT).iter().map(|post| post.json()["type"].clone()).collect();
    let expected = ["discovered", "decided", "decided", "accepted", "activated"].map(|news| format!("peering.{news}"));
    assert_eq!(types, expected);

    // Bob has an old copy of the card.
    let old = gate.sink.posts(SLACK)[0].json();
    let value = old["blocks"][1]["elements"][0]["value"].as_str().unwrap();
    let reply = gate.send(&gate.slack_payload(&gate.click("peergate.reject", value, BOB)).await).await;
    assert_eq!((reply.status, gate.sink.windows().len()), (200, 0), "too late to be asked for a reason");
    let told = gate.told();
    assert!(told.contains("was already approved by alice (slack:T0001/U061F7AUR) and carol"), "{told}");
    assert_eq!(gate.sink.posts(RESPONSE).last().unwrap().json()["response_type"], "ephemeral");
    assert_eq!(gate.discover().await.discovered, 0);
}

#[tokio::test]
async fn what_is_known_is_not_discovered_again_and_costs_one_list() {
    let gate = Gate::start().await;
    for vpc in ["vpc-two-people", "vpc-other", "vpc-with-a-reason"] {
        requested(&gate, vpc).await;
    }
    assert_eq!(gate.discover().await.discovered, 3);
    let (lists, dry_runs) = (gate.calls("ListVpcPeerConnections"), gate.dry_runs());
    assert_eq!(dry_runs, 3);
    assert_eq!(gate.discover().await.discovered, 0);
    assert_eq!((gate.calls("ListVpcPeerConnections"), gate.dry_runs()), (lists + 1, dry_runs));
    assert_eq!(gate.sink.channel("C0PEER").len(), 3);
}

#[tokio::test]
async fn more_requests_than_a_page_are_all_discovered() {
    let gate = Gate::with(Settings { quota: None, ..quick() }).await;
    for number in 0..130 {
        requested(&gate, &format!("vpc-{number}")).await;
    }
    // What a tick has no time for is left to the next.
    for _ in 0..20 {
        gate.discover().await;
        let (entries, more) = gate.app.store.due(jiff::Timestamp::MAX, None).await.unwrap();
        assert!(more.is_none());
        if entries.len() == 130 {
            return;
        }
    }
    panic!("not all were discovered");
}

#[tokio::test]
async fn a_region_that_cannot_be_listed_is_listed_next_time() {
    let gate = Gate::start().await;
    requested(&gate, "vpc-other").await;
    gate.simulator.fault(fails("ListVpcPeerConnections", "InternalError", 1));
    assert_eq!(gate.discover().await.discovered, 0);
    assert!(logged().contains("not_listed"));
    assert_eq!(gate.discover().await.discovered, 1);
}

#[tokio::test]
async fn a_rule_that_nobody_can_complete_is_said_on_the_card() {
    let gate = Gate::start().await;
    // Without the accounts, it is also about one whose contact it needs.
    let config = gate.config.replace(
        "requester_accounts = [\"1111111111111111\"]\naccepting_vpcs = [\"vpc-two-people\"]\napprovals = 2",
        "accepting_vpcs = [\"vpc-two-people\"]\napprovals = 4",
    );
    let gate = gate.with_config(&config);
    let id = requested(&gate, "vpc-two-people").await;
    gate.discover().await;
    let told = "⚠ Still needed: 4 more, but only alice, bob, carol may approve: the rule cannot be met";
    assert!(gate.card().text.contains(told), "{}", gate.card().text);
    for user in [ALICE, BOB, CAROL] {
        gate.send(&gate.slash(&format!("approve {id}"), user).await).await;
    }
    gate.tick().await;
    let told = "⚠ Still needed: 1 more, but nobody else may approve: the rule cannot be met";
    assert!(gate.card().text.contains(told), "{}", gate.card().text);
}

#[tokio::test]
async fn two_discoveries_at_once_make_one_card() {
    let gate = Gate::start().await;
    requested(&gate, "vpc-other").await;
    let (one, two) = tokio::join!(gate.discover(), gate.discover());
    assert_eq!(one.discovered + two.discovered, 1);
    gate.card();
}

#[tokio::test]
async fn without_a_rule_the_card_says_which_one_would_be_needed_and_has_no_buttons() {
    let gate = Gate::start().await;
    let config = gate.config.replace(r#"requester_accounts = ["1111111111111111"]"#, r#"requester_accounts = ["3"]"#);
    let gate = gate.with_config(&config);
    let id = requested(&gate, "vpc-other").await;
    gate.discover().await;
    let card = gate.card();
    assert!(
        card.text.starts_with(&format!("VPC peering prod/{id} is requested, and no rule covers it\n")),
        "{}",
        card.text
    );
    assert!(card.text.contains("No rule allows its requester account."), "{}", card.text);
    assert!(card.labels().is_empty());
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((reply.name().as_str(), gate.accepts(&id)), ("no-rule", 0));
    // Pasted as it stands, the rule is about the request, and the card gets buttons.
    let (_, rule) = card.text.split_once("[[rule]]").unwrap();
    let gate = gate.with_config(&format!("{config}\n[[rule]]{rule}\n"));
    assert_eq!(gate.discover().await.discovered, 1);
    let card = gate.card();
    assert_eq!(card.labels(), ["Approve", "Reject", "Details"], "{}", card.text);
    assert!(card.thread()[0].contains("the configuration has changed"), "{:?}", card.thread());
    gate.press(&card, "Approve", BOB).await;
    assert_eq!(gate.accepts(&id), 1, "{}", gate.told());
}

#[tokio::test]
async fn overlapping_ranges_are_drawn_and_cannot_be_approved() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    let cidrs = ["10.0.0.0/16", "fd00::/8"].map(|cidr| cidr.parse().unwrap());
    gate.tamper(&id, Tampering { requester_cidrs: Some(cidrs.into()), ..Tampering::default() });
    gate.discover().await;
    let card = gate.card();
    assert!(card.text.contains("✗ both sides use the same addresses"), "{}", card.text);
    assert!(card.text.contains("the requester's 10.0.0.0/16 contains the accepting 10.0.1.0/24"), "{}", card.text);
    assert!(card.text.contains("accepting 10.0.1.0/24 █···"), "{}", card.text);
    assert_eq!(gate.dry_runs(), 0, "what can't be accepted is not asked for");
    gate.press(&card, "Approve", ALICE).await;
    assert!(gate.told().contains("both sides use the same addresses"), "{}", gate.told());
    assert_eq!((gate.accepts(&id), gate.state(&id).await.as_str()), (0, "pending"));
}

#[tokio::test]
async fn ranges_of_peerings_that_we_accepted_are_warned_about() {
    let gate = Gate::start().await;
    let first = requested(&gate, "vpc-shared").await;
    gate.send(&gate.signed("approve", &first, "alice").await).await;
    let more = [("AcceptingVpcId", "vpc-shared"), ("VpcId", "vpc-requester-2")];
    let second = gate.request_peering(&more).await.unwrap();
    let same = gate.stored(&first).await.unwrap().approval.connection.requester.cidrs;
    gate.tamper(&second, Tampering { requester_cidrs: Some(same), ..Tampering::default() });
    gate.discover().await;
    let cards = gate.sink.channel("C0PEER");
    let card = cards.iter().find(|card| card.text.contains(second.as_str())).unwrap();
    let warning = format!(
        "⚠ the requester's ranges are used by other peerings of the VPC: 10.0.0.0/24 is also reached over {first}"
    );
    assert!(card.text.contains(&warning), "{}", card.text);
    gate.press(card, "Approve", BOB).await;
    assert_eq!(gate.accepts(&second), 1, "a warning: people decide");
}

#[tokio::test]
async fn a_dry_run_that_fails_is_on_the_card_and_stops_the_approval() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    let not_opened = || Fault { dry_run: true, ..fails("AcceptVpcPeerConnection", "OperationFailed.CdtNotOpened", 2) };
    gate.simulator.fault(not_opened());
    gate.discover().await;
    let card = gate.card();
    assert!(
        card.text.contains("✗ Alibaba Cloud would not accept it (dry run): OperationFailed.CdtNotOpened"),
        "{}",
        card.text
    );
    gate.press(&card, "Approve", ALICE).await;
    assert!(gate.told().contains("Open Cloud Data Transfer"), "{}", gate.told());
    assert_eq!((gate.calls("AcceptVpcPeerConnection"), gate.state(&id).await.as_str()), (0, "pending"));
    gate.press(&card, "Approve", ALICE).await;
    assert_eq!(gate.accepts(&id), 1, "it was mended: {}", gate.told());
}

#[tokio::test]
async fn a_check_that_could_not_be_made_is_made_again_and_stops_no_person() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    gate.simulator.fault(Fault { dry_run: true, ..fails("AcceptVpcPeerConnection", "Forbidden.RAM", 1) });
    gate.discover().await;
    let unknown = "⚠ not known whether Alibaba Cloud would accept it (dry run): Forbidden.RAM";
    assert!(gate.card().text.contains(unknown), "{}", gate.card().text);
    gate.make_due(&id).await;
    gate.round().await;
    let stored = gate.stored(&id).await.unwrap().approval;
    assert!(!peergate::preflight::is_incomplete(&stored.findings), "{:?}", stored.findings);
    gate.simulator.fault(Fault { dry_run: true, ..fails("AcceptVpcPeerConnection", "Throttling.User", 1) });
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((reply.name().as_str(), gate.accepts(&id)), ("accepted", 1));
}

#[tokio::test]
async fn a_rule_that_needs_nobody_accepts_by_itself_and_says_so() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-by-itself").await;
    gate.discover().await;
    assert_eq!(gate.accepts(&id), 1);
    gate.tick().await;
    let card = gate.card();
    assert!(
        card.text.contains("Rule: by itself") && card.text.contains("Approved by: the rule, by itself"),
        "{}",
        card.text
    );
    assert_eq!(card.thread()[0], format!("the rule, by itself approved VPC peering prod/{id}"));
    assert_eq!(gate.state(&id).await, "activated");
}

#[tokio::test]
async fn a_rule_that_needs_nobody_asks_somebody_when_anything_is_odd() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-by-itself").await;
    gate.tamper(&id, Tampering { requester_cidrs: Some([].into()), ..Tampering::default() });
    gate.discover().await;
    gate.discover().await;
    assert_eq!((gate.calls("AcceptVpcPeerConnection"), gate.state(&id).await.as_str()), (0, "pending"));
    let card = gate.card();
    assert!(card.text.contains("⚠ the ranges of a side are unknown"), "{}", card.text);
    assert!(card.text.contains("Still needed: 1 of alice, bob"), "{}", card.text);
    gate.press(&card, "Approve", BOB).await;
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn a_dry_run_that_could_not_be_asked_is_no_yes_for_a_rule_that_needs_nobody() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-by-itself").await;
    gate.simulator.fault(Fault { dry_run: true, ..fails("AcceptVpcPeerConnection", "Throttling.User", 1) });
    gate.discover().await;
    assert_eq!((gate.accepts(&id), gate.state(&id).await.as_str()), (0, "pending"));
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!(gate.accepts(&id), 1, "asked again, it passed");
}

#[tokio::test]
async fn the_requesters_contacts_never_count() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    gate.discover().await;
    let card = gate.card();
    gate.press(&card, "Approve", ERIN).await;
    assert!(gate.told().contains("You are a contact of account 1111111111111111"), "{}", gate.told());
    let reply = gate.send(&gate.signed("approve", &id, "erin").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (403, "requesters-contact"));
    gate.press(&card, "Approve", ALICE).await;
    assert_eq!((gate.stored(&id).await.unwrap().approval.given(), gate.accepts(&id)), (1, 0));
    gate.press(&gate.card(), "Reject", ERIN).await;
    assert!(gate.give_reason("we asked by mistake", ERIN).await.starts_with("You rejected"));
    assert_eq!(gate.state(&id).await, "rejected");
}

#[tokio::test]
async fn who_withdraws_counts_no_more_until_they_approve_anew() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    gate.discover().await;
    gate.press(&gate.card(), "Approve", ALICE).await;
    gate.tick().await;
    let card = gate.card();
    gate.press(&card, "Withdraw my approval", BOB).await;
    assert!(gate.told().contains("You have no approval to withdraw"), "{}", gate.told());
    gate.press(&card, "Withdraw my approval", ALICE).await;
    assert!(gate.told().contains("does not count any more"), "{}", gate.told());
    gate.press(&card, "Approve", BOB).await;
    assert_eq!(gate.accepts(&id), 0, "one of two");
    // With the other identity of hers, by a machine.
    assert_eq!(gate.send(&gate.signed("withdraw", &id, "alice").await).await.name(), "nothing-to-withdraw");
    let approve = gate.signed("approve", &id, "alice").await;
    assert_eq!(gate.send(&approve).await.name(), "accepted");
    let late = gate.send(&gate.signed("withdraw", &id, "alice").await).await;
    assert_eq!((late.status, late.name().as_str(), gate.accepts(&id)), (409, "already-decided", 1));
    gate.tick().await;
    let thread = gate.card().thread().join("\n");
    assert!(thread.contains("alice (slack:T0001/U061F7AUR) withdrew their approval"), "{thread}");
}

#[tokio::test]
async fn a_replayed_approval_does_not_undo_a_withdrawal() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    let approve = gate.signed("approve", &id, "alice").await;
    assert_eq!(gate.send(&approve).await.name(), "counted");
    let withdraw = gate.signed("withdraw", &id, "alice").await;
    assert_eq!(gate.send(&withdraw).await.name(), "withdrawn");
    assert_eq!(gate.send(&approve).await.name(), "repeated");
    assert_eq!(gate.stored(&id).await.unwrap().approval.given(), 0);
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "counted");
    assert_eq!(gate.send(&withdraw).await.name(), "repeated");
    assert_eq!(gate.stored(&id).await.unwrap().approval.given(), 1);
}

#[tokio::test]
async fn a_rejection_asks_for_a_reason_and_everybody_reads_it() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    gate.discover().await;
    let card = gate.card();
    gate.press(&card, "Approve", ALICE).await;
    assert_eq!(gate.press(&card, "Reject", BOB).await.body, "");
    assert_eq!(gate.state(&id).await, "pending", "nothing is decided while somebody thinks");
    let window = gate.sink.windows().pop().unwrap();
    assert_eq!((&window["callback_id"], &window["blocks"][1]["optional"]), (&json!("peergate.reject"), &json!(true)));
    let shown = gate.give_reason("not <!channel> ours", BOB).await;
    assert_eq!(shown, format!("You rejected prod/{id}"));
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("rejected", 0));
    gate.tick().await;
    let card = gate.card();
    assert!(card.text.starts_with(&format!("VPC peering prod/{id} was rejected\n")), "{}", card.text);
    assert!(card.text.contains("Rejected by: bob (slack:T0001/U0BOB)"), "{}", card.text);
    assert!(card.text.contains("Reason: bob: not <!channel> ours"), "{}", card.text);
    assert!(card.labels().is_empty());
    let reply = gate.send(&gate.slack_payload(&gate.submission(&window, "again", ALICE)).await).await;
    assert!(peergate::local::sink::text(&reply.json()["view"]).contains("already rejected by bob"), "{}", reply.body);
}

#[tokio::test]
async fn a_rule_may_want_a_reason_for_approvals() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-with-a-reason").await;
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (422, "reason-required"));
    gate.discover().await;
    let card = gate.card();
    gate.press(&card, "Approve", ALICE).await;
    assert_eq!((gate.accepts(&id), gate.sink.windows().len()), (0, 1));
    assert_eq!(gate.sink.windows()[0]["blocks"][1]["optional"], false);
    assert!(gate.give_reason("  ", ALICE).await.contains("wants a reason"));
    assert_eq!(gate.accepts(&id), 0);
    assert!(gate.give_reason("ticket 42", ALICE).await.starts_with("You approved"));
    assert_eq!(gate.accepts(&id), 1);
    let other = requested(&gate, "vpc-with-a-reason-2").await;
    let mut wish = gate.wish("reject", &other, "bob");
    wish.reason = Some("no".into());
    assert_eq!(gate.send(&gate.signed_wish(&wish).await).await.name(), "rejected");
}

#[tokio::test]
async fn when_slack_opens_no_window_nothing_is_decided_and_the_person_is_told() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    gate.discover().await;
    let body = r#"{"ok":false,"error":"expired_trigger_id"}"#.to_owned();
    gate.sink.trouble(Trouble { path: "/api/views.open".into(), status: 200, body, ..Trouble::default() });
    gate.press(&gate.card(), "Reject", BOB).await;
    assert!(gate.told().contains("could not ask you for a reason, so nothing was decided"), "{}", gate.told());
    assert_eq!(gate.state(&id).await, "pending");
    gate.sink.heal();
    // Without a bot token there are no windows: the click decides.
    let card = gate.card();
    let url = |name: &str| format!("{}hooks/{name}", gate.chat);
    gate.write_secrets(|secrets| {
        secrets["platforms"]["slack"]["bot_token"] = json!(null);
        secrets["channels"]["netops"] = json!({"url": url("cards")});
        secrets["channels"]["oncall"] = json!({"url": url("oncall")});
    })
    .unwrap();
    let no_bot = |config: String, channel| {
        config.replace(&format!("kind = \"slack\"\nchannel = \"{channel}\""), "kind = \"slack-webhook\"")
    };
    let config = no_bot(no_bot(gate.config.clone(), "C0PEER"), "C0CALL");
    let gate = gate.with_config(&config);
    gate.press(&card, "Reject", BOB).await;
    assert_eq!(gate.state(&id).await, "rejected", "{}", gate.told());
}

type Change = fn(&mut serde_json::Value);

#[tokio::test]
async fn windows_that_are_not_ours_are_refused() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    gate.discover().await;
    gate.press(&gate.card(), "Reject", BOB).await;
    let window = gate.sink.windows().pop().unwrap();
    let good = gate.submission(&window, "no", BOB);
    let asked = gate.upstream_calls();
    let cases: [(&str, Change, u16); 6] = [
        ("another app", |it| it["api_app_id"] = json!("A9"), 403),
        ("another window", |it| it["view"]["callback_id"] = json!("explode"), 400),
        ("no window", |it| it["view"] = json!(null), 400),
        ("another connection's odd id", |it| it["view"]["private_metadata"] = json!("prod/pcc-A#00"), 400),
        ("no metadata", |it| it["view"]["private_metadata"] = json!(""), 400),
        ("closed, not submitted", |it| it["type"] = json!("view_closed"), 400),
    ];
    for (name, change, status) in cases {
        let mut payload = good.clone();
        change(&mut payload);
        assert_eq!(gate.send(&gate.slack_payload(&payload).await).await.status, status, "{name}");
    }
    assert_eq!(gate.state(&id).await, "pending");
    assert_eq!(gate.upstream_calls(), asked, "nothing is asked of Alibaba Cloud");
}

#[tokio::test]
async fn facts_that_change_between_card_and_click_void_what_was_approved() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    gate.discover().await;
    let old = gate.card();
    gate.press(&old, "Approve", ALICE).await;
    gate.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    gate.press(&old, "Approve", BOB).await;
    assert!(gate.told().contains("not the one that you saw"), "{}", gate.told());
    // A machine that does not say what it saw has not seen this either.
    gate.tick().await;
    let card = gate.card();
    assert!(card.text.contains("waits for approval: 0 of 2"), "{}", card.text);
    assert!(card.text.contains("⚠ Changed: bandwidth: 1024 Mbit/s → 5 Mbit/s"), "{}", card.text);
    assert!(card.replies.last().unwrap().broadcast, "everybody has to look again");
    assert!(card.replies.last().unwrap().text.contains("No longer counted: the approval of alice"));
    gate.press(&old, "Approve", CAROL).await;
    assert!(gate.told().contains("not the one that you saw"), "an old copy: {}", gate.told());
    gate.press(&card, "Approve", ALICE).await;
    gate.press(&card, "Approve", BOB).await;
    assert_eq!(gate.accepts(&id), 1, "{}", gate.told());
}

#[tokio::test]
async fn a_change_that_nobody_clicks_on_is_seen_by_the_discovery() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    gate.discover().await;
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    gate.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    // A command without a fingerprint is about the card that its sender saw.
    let reply = gate.send(&gate.slash(&format!("approve {id}"), BOB).await).await;
    assert!(reply.body.contains("not the one that you saw"), "{}", reply.body);
    gate.tamper(&id, Tampering { bandwidth: Some(6), ..Tampering::default() });
    assert_eq!(gate.discover().await.discovered, 1);
    assert!(gate.card().text.contains("⚠ Changed: bandwidth: 5 Mbit/s → 6 Mbit/s"), "{}", gate.card().text);
    assert_eq!(gate.stored(&id).await.unwrap().approval.given(), 0);
}

#[tokio::test]
async fn what_happens_outside_peergate_is_on_the_card() {
    let gate = Gate::start().await;
    for (status, headline) in [
        ("Rejected", "was rejected"),
        ("Expired", "has expired"),
        ("Deleted", "was deleted"),
        ("Activated", "is Activated"),
    ] {
        let id = requested(&gate, &format!("vpc-{}", status.to_lowercase())).await;
        gate.discover().await;
        gate.tamper(&id, becomes(status));
        gate.make_due(&id).await;
        gate.round().await;
        if status == "Deleted" {
            assert_eq!(gate.state(&id).await, "pending", "one reading is no proof");
            gate.read_again(&id).await;
        }
        let cards = gate.sink.channel("C0PEER");
        let card = cards.iter().find(|card| card.text.contains(id.as_str())).unwrap();
        assert!(card.text.starts_with(&format!("VPC peering prod/{id} {headline}\n")), "{}", card.text);
        let outside = card.text.contains("somebody outside peergate");
        assert_eq!(outside, ["Rejected", "Activated"].contains(&status), "{}", card.text);
        assert!(card.labels().is_empty(), "{:?}", card.labels());
    }
}

#[tokio::test]
async fn a_failure_leaves_the_buttons_for_another_try() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    gate.discover().await;
    gate.simulator.fault(fails("AcceptVpcPeerConnection", "OperationFailed.CdtNotOpened", 1));
    gate.press(&gate.card(), "Approve", ALICE).await;
    gate.tick().await;
    let card = gate.card();
    assert!(card.text.starts_with(&format!("VPC peering prod/{id} could not be accepted\n")), "{}", card.text);
    assert!(card.text.contains("Code: OperationFailed.CdtNotOpened"), "{}", card.text);
    assert_eq!(card.labels(), ["Approve", "Reject", "Details"]);
    gate.press(&card, "Approve", ALICE).await;
    assert_eq!((gate.accepts(&id), gate.stored(&id).await.unwrap().approval.generation), (1, 2));
}

#[tokio::test]
async fn a_card_that_somebody_deleted_is_posted_again() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    gate.discover().await;
    gate.sink.delete("C0PEER", &gate.card().ts);
    gate.press_value(&id, "peergate.approve", ALICE).await;
    gate.tick().await;
    assert!(gate.card().text.contains("is Activated"), "{}", gate.card().text);
}

#[tokio::test]
async fn a_reply_that_fails_makes_no_second_card() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    gate.press_value(&id, "peergate.approve", ALICE).await;
    // The card is posted, the first reply below it is not.
    gate.sink.trouble_after(1, Trouble { path: SLACK.into(), status: 503, ..Trouble::default() });
    gate.round().await;
    gate.sink.heal();
    assert_eq!(gate.card().replies.len(), 0);
    gate.tick().await;
    let card = gate.card();
    assert!(card.thread().len() >= 2 && card.text.contains("Activated"), "{card:?}");
}

#[tokio::test]
async fn details_tell_one_person_everything() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    gate.discover().await;
    gate.press(&gate.card(), "Approve", ALICE).await;
    gate.press(&gate.card(), "Details", BOB).await;
    let told = gate.told();
    assert!(told.starts_with(&format!("VPC peering prod/{id} is Accepting\n")), "{told}");
    for part in ["✓ it has not expired", "seen; the rule “two people” asks for 2", "approved by alice"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[tokio::test]
async fn lists_and_statuses_are_told_to_slack_and_machines() {
    let gate = Gate::start().await;
    let empty = gate.send(&gate.slash("list", BOB).await).await;
    assert!(empty.body.contains("Nothing waits for a decision"), "{}", empty.body);
    let one = requested(&gate, "vpc-two-people").await;
    let two = requested(&gate, "vpc-other").await;
    let done = requested(&gate, "vpc-done").await;
    gate.discover().await;
    gate.send(&gate.signed("approve", &one, "alice").await).await;
    gate.send(&gate.signed("reject", &done, "alice").await).await;
    let list = gate.send(&gate.signed_body(r#"{"type":"peering.list","data":{"actor":"anybody"}}"#)).await;
    assert_eq!((list.status, list.name().as_str()), (200, "list"));
    let json = list.json();
    let ids: Vec<_> = json["approvals"].as_array().unwrap().iter().map(|one| one["instance_id"].clone()).collect();
    assert!(ids.len() == 2 && ids.contains(&json!(one)) && ids.contains(&json!(two)), "{ids:?}");
    let slash = gate.send(&gate.slash("list on prod", BOB).await).await;
    let text = peergate::local::sink::text(&slash.json());
    assert!(text.starts_with("2 connections wait or are on their way"), "{text}");
    assert!(text.contains(&format!("prod/{one}: 1 of 2 approvals, since ")), "{text}");
    let wrong = gate.send(&gate.slash("list on dev", BOB).await).await;
    assert!(wrong.body.contains("Name one of these targets: prod"), "{}", wrong.body);
    let status = gate.send(&gate.signed("status", &one, "anybody").await).await.json();
    assert_eq!(
        (&status["approval"]["approvals"]["given"], &status["approval"]["state"]),
        (&json!(1), &json!("pending"))
    );
    let asked = gate.upstream_calls();
    for body in [
        r#"{"type":"peering.list","data":{"actor":"a","instance_id":"pcc-a"}}"#,
        r#"{"type":"peering.list","data":{"actor":"a","dry_run":true}}"#,
        r#"{"type":"peering.withdraw","data":{"actor":"a"}}"#,
    ] {
        assert_eq!(gate.send(&gate.signed_body(body)).await.name(), "malformed", "{body}");
    }
    assert_eq!(gate.upstream_calls(), asked);
}

#[tokio::test]
async fn who_approved_in_vain_is_told_who_rejected_also_when_they_repeat_it() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    let approve = gate.signed("approve", &id, "alice").await;
    assert_eq!(gate.send(&approve).await.name(), "counted");
    assert_eq!(gate.send(&gate.signed("reject", &id, "bob").await).await.name(), "rejected");
    for again in [approve, gate.signed("approve", &id, "alice").await] {
        let reply = gate.send(&again).await;
        assert_eq!((reply.status, reply.name().as_str()), (409, "already-decided"), "it must not look like success");
        assert!(reply.detail().contains("already rejected by bob"), "{}", reply.detail());
    }
    assert_eq!(gate.accepts(&id), 0);
}

#[tokio::test]
async fn what_was_taken_for_deleted_and_has_changed_can_be_decided_where_nothing_is_discovered() {
    let gate = Gate::start().await;
    let config = gate.config.replace(r#"regions = ["cn-shanghai"]"#, "regions = []");
    let gate = gate.with_config(&config);
    let id = requested(&gate, "vpc-two-people").await;
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    gate.simulator.fault(fails("GetVpcPeerConnectionAttribute", "ResourceNotFound.InstanceId", 2));
    gate.make_due(&id).await;
    gate.round().await;
    gate.read_again(&id).await;
    assert_eq!(gate.state(&id).await, "deleted");
    let seen = gate.signed("approve", &id, "bob").await;
    gate.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    assert_eq!(gate.send(&seen).await.name(), "connection-changed");
    gate.tick().await;
    assert_eq!(gate.send(&gate.signed("approve", &id, "bob").await).await.name(), "counted");
    assert_eq!(gate.send(&gate.signed("approve", &id, "carol").await).await.name(), "accepted");
}

#[tokio::test]
async fn two_at_once_who_are_both_the_last_one_make_one_accept() {
    let gate = Gate::start().await;
    for number in 0..5 {
        let more = [("AcceptingVpcId", "vpc-two-people"), ("VpcId", &format!("vpc-requester-{number}"))];
        let id = gate.request_peering(&more).await.unwrap();
        let mut requests = vec![];
        for actor in ["alice", "bob", "carol", "alice", "bob", "carol"] {
            requests.push(gate.signed("approve", &id, actor).await);
        }
        let replies = futures_util::future::join_all(requests.iter().map(|request| gate.send(request))).await;
        let names: Vec<_> = replies.iter().map(crate::support::Reply::name).collect();
        let approval = gate.stored(&id).await.unwrap().approval;
        assert_eq!((approval.given(), gate.calls_for("AcceptVpcPeerConnection", &id)), (2, 1), "{names:?}");
        assert_eq!(names.iter().filter(|name| *name == "counted").count(), 1, "{names:?}");
    }
}

#[tokio::test]
async fn a_request_that_was_taken_for_deleted_waits_anew() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    gate.discover().await;
    gate.press(&gate.card(), "Approve", ALICE).await;
    // Somebody stored the key of another account for a while.
    gate.simulator.fault(fails("GetVpcPeerConnectionAttribute", "ResourceNotFound.InstanceId", 2));
    gate.make_due(&id).await;
    gate.round().await;
    gate.read_again(&id).await;
    assert_eq!(gate.state(&id).await, "deleted");
    gate.discover().await;
    let approval = gate.stored(&id).await.unwrap().approval;
    assert_eq!((approval.state.name(), approval.generation, approval.given()), ("pending", 1, 1), "Alice still counts");
    let labels = ["Approve", "Reject", "Withdraw my approval", "Details"];
    assert_eq!(gate.card().labels(), labels, "{}", gate.card().text);
    let told = gate.replies().pop().unwrap();
    assert!(told.contains("Correction: ") && told.contains("was reported as deleted, but it waits"), "{told}");
}

#[tokio::test]
async fn who_says_nothing_about_what_they_saw_cannot_mean_what_no_channel_shows() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    gate.discover().await;
    for path in [SLACK, "/api/chat.update", HOOK, AUDIT] {
        gate.sink.trouble(Trouble { path: path.into(), status: 503, ..Trouble::default() });
    }
    gate.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    gate.discover().await;
    let reply = gate.send(&gate.slash(&format!("approve {id}"), ALICE).await).await;
    assert!(reply.body.contains("not the one that you saw"), "{}", reply.body);
    let blind = gate.signed_wish(&wish("approve", &id, "bob")).await;
    assert_eq!(gate.send(&blind).await.name(), "connection-changed");
    gate.sink.heal();
    gate.tick().await;
    assert_eq!(gate.send(&blind).await.name(), "connection-changed", "what was refused stays refused");
    let reply = gate.send(&gate.slash(&format!("approve {id}"), ALICE).await).await;
    assert!(reply.body.contains("You approved") && gate.accepts(&id) == 1, "{}", reply.body);
}

#[tokio::test]
async fn who_saw_the_change_before_the_card_did_may_approve_it() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    gate.discover().await;
    gate.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    gate.press_value(&id, "peergate.approve", ALICE).await;
    assert_eq!(gate.accepts(&id), 1, "{}", gate.told());
    gate.tick().await;
    assert!(gate.card().thread()[0].contains("is not what it was"), "{:?}", gate.card().thread());
}

#[tokio::test]
async fn a_channel_that_heard_of_a_request_hears_its_end_whatever_the_configuration_says() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-two-people").await;
    gate.discover().await;
    let config = gate.config.replace(r#"channels = ["netops", "hook", "audit"]"#, r#"channels = ["oncall"]"#);
    let gate = gate.with_config(&config);
    gate.discover().await;
    gate.press(&gate.card(), "Approve", ALICE).await;
    gate.press(&gate.card_in("C0CALL"), "Approve", BOB).await;
    gate.tick().await;
    for channel in ["C0PEER", "C0CALL"] {
        let card = gate.card_in(channel);
        assert!(card.text.contains("is Activated") && card.labels().is_empty(), "{channel}: {}", card.text);
    }
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn a_channel_that_moved_gets_a_card_where_it_is_now() {
    let gate = Gate::start().await;
    requested(&gate, "vpc-other").await;
    gate.discover().await;
    let config = gate.config.replace(r#"channel = "C0PEER""#, r#"channel = "C0NEW""#);
    let gate = gate.with_config(&config);
    gate.press(&gate.card(), "Approve", ALICE).await;
    gate.tick().await;
    assert!(gate.card_in("C0NEW").text.contains("is Activated"));
}

#[tokio::test]
async fn an_approval_that_cannot_be_carried_out_is_told() {
    let gate = Gate::start().await;
    let config = gate.config.replace("[requests]", "[requests]\nstuck_after = \"1m\"");
    let gate = gate.with_config(&config);
    let id = requested(&gate, "vpc-other").await;
    gate.discover().await;
    gate.simulator.fault(Fault { times: 9, ..fails("AcceptVpcPeerConnection", "Forbidden.RAM", 9) });
    gate.press(&gate.card(), "Approve", ALICE).await;
    let stored = gate.stored(&id).await.unwrap();
    let long_ago = |approval: &mut peergate::approval::Approval| {
        let ago = peergate::clock::now() - jiff::SignedDuration::from_mins(5);
        let early = approval.since > ago;
        (approval.since, approval.next_step_at) = (ago, Some(ago));
        early
    };
    gate.app.store.update(stored, long_ago).await.unwrap();
    let counted = Counted::start();
    gate.round().await;
    gate.round().await;
    assert_eq!(counted.take()[peergate::metrics::STUCK_APPROVALS], [1.0]);
    let told = gate.replies().pop().unwrap();
    assert!(told.contains("was decided 5 min 0 s ago, and could not be carried out yet"), "{told}");
    assert!(told.contains("Code: Forbidden.RAM") && told.contains("Grant the target's RAM user"), "{told}");
}

#[tokio::test]
async fn two_requests_with_the_same_ranges_are_not_both_accepted_without_people() {
    let gate = Gate::start().await;
    let mut ids = vec![];
    for number in 0..2 {
        let more = [("AcceptingVpcId", "vpc-by-itself"), ("VpcId", &format!("vpc-theirs-{number}"))];
        let id = gate.request_peering(&more).await.unwrap();
        let cidrs = Some(["10.99.0.0/16".parse().unwrap()].into());
        gate.tamper(&id, Tampering { requester_cidrs: cidrs, ..Tampering::default() });
        ids.push(id);
    }
    gate.discover().await;
    gate.discover().await;
    assert_eq!(gate.calls("AcceptVpcPeerConnection"), 0);
    gate.send(&gate.signed("approve", &ids[0], "alice").await).await;
    assert_eq!(gate.accepts(&ids[0]), 1);
    assert_eq!(gate.state(&ids[1]).await, "pending");
}

#[tokio::test]
async fn what_was_mended_is_seen_on_the_card() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    gate.simulator.fault(Fault { dry_run: true, ..fails("AcceptVpcPeerConnection", "Throttling.User", 1) });
    gate.discover().await;
    assert!(gate.card().text.contains("⚠ not known whether"), "{}", gate.card().text);
    gate.make_due(&id).await;
    gate.round().await;
    assert!(!gate.card().text.contains('⚠'), "{}", gate.card().text);
    assert!(gate.card().thread().is_empty() && gate.headlines(HOOK).is_empty(), "nothing to say");
    let version = gate.stored(&id).await.unwrap().version;
    gate.discover().await;
    assert_eq!(gate.stored(&id).await.unwrap().version, version);
}

#[tokio::test]
async fn facts_that_changed_during_the_activation_are_told() {
    let gate = Gate::with(Settings { activation: Duration::from_hours(1), ..quick() }).await;
    let id = requested(&gate, "vpc-other").await;
    gate.press_value(&id, "peergate.approve", ALICE).await;
    gate.tamper(&id, Tampering { bandwidth: Some(5), ..becomes("Activated") });
    gate.round().await;
    let thread = gate.card().thread().join("\n");
    assert!(thread.contains("was activated with other facts than those that were decided on"), "{thread}");
    assert_eq!(gate.state(&id).await, "activated");
}

#[tokio::test]
async fn a_message_that_a_platform_does_not_take_stops_no_other_for_long() {
    let gate = Gate::start().await;
    let id = requested(&gate, "vpc-other").await;
    gate.discover().await;
    gate.sink.trouble(Trouble { path: AUDIT.into(), status: 422, ..Trouble::default() });
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    let number = gate.stored(&id).await.unwrap().approval.outbox[1].number;
    let delivery = async || gate.stored(&id).await.unwrap().approval.outbox[1].deliveries["audit"].clone();
    for _ in 0..4 {
        let stored = gate.stored(&id).await.unwrap();
        let refused = peergate::approval::Event::Undelivered {
            number,
            channel: "audit".into(),
            error: "HTTP 422".into(),
            retry: peergate::approval::Redelivery::Few,
            display: peergate::approval::Display::Unchanged,
        };
        gate.app.store.update(stored, |approval| approval.apply(&refused, peergate::clock::now())).await.unwrap();
    }
    assert_eq!(delivery().await, peergate::approval::Delivery::Gone);
}

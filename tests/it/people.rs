//! The people's side from outside: requests come to the channel, people click, everybody sees what came of it. Slack is a
//! fake that keeps messages, so that the tests see what people see.

use std::time::Duration;

use crate::support::{
    AUDIT_PATH, MetricsRecorder, RESPONSE_PATH, SLACK_PATH, TestApp, WEBHOOK_PATH, event_spec, logged, quick_settings,
};
use peergate::fake::alicloud::gateway::Fault;
use peergate::fake::alicloud::{SimulatorSettings, Tampering};
use peergate::fake::slack::Outage;
use peergate::peering::InstanceId;
use serde_json::json;

const ALICE: &str = "U061F7AUR";
const BOB: &str = "U0BOB";
const CAROL: &str = "U0CAROL";
const ERIN: &str = "U0ERIN";

/// A request for a VPC of ours, whose name decides about the rule.
async fn requested(app: &TestApp, vpc: &str) -> InstanceId {
    app.request_peering(&[("AcceptingVpcId", vpc)]).await.unwrap()
}

fn becomes(status: &str) -> Tampering {
    Tampering { status: Some(status.into()), ..Tampering::default() }
}

fn fails(action: &str, code: &str, times: u32) -> Fault {
    Fault { action: Some(action.into()), code: Some(code.into()), times, ..Fault::default() }
}

#[tokio::test]
async fn channel_sees_the_whole_life_of_a_request() {
    let app =
        TestApp::with_settings(SimulatorSettings { activation_delay: Duration::from_secs(1), ..quick_settings() })
            .await;
    let id = requested(&app, "vpc-two-people").await;
    let summary = app.discover().await;
    assert_eq!((summary.discovered, summary.delivered), (1, 3));

    let card = app.only_card();
    let expected = [
        format!(
            "alice, bob or carol: approve or reject VPC peering prod/{id}, requested by data team (0 of 2 approvals)"
        ),
        "Requester: data team, account 1111111111111111".into(),
        "From: vpc-requester in cn-hangzhou, CIDR block 10.0.0.0/24".into(),
        "To: account 2222222222222222, vpc-two-people in cn-shanghai, CIDR block 10.0.1.0/24".into(),
        "Cost: cross-region: each side pays for the traffic that it sends (Cloud Data Transfer)".into(),
        "Rule: two people".into(),
        "Still needed: 2 of alice, bob, carol".into(),
        "✓ 8 checks passed: accepting account, status, expiry, business status, managed service, CIDR overlap, other \
         peerings, dry run"
            .into(),
    ];
    for line in expected {
        assert!(card.text.lines().any(|shown| shown == line), "{line:?} is not on the card:\n{}", card.text);
    }
    assert!(card.text.contains("Expires: "), "{}", card.text);
    assert_eq!(card.button_labels(), ["Approve", "Reject", "Details"]);
    assert_eq!((card.edits, card.replies.len()), (0, 0));

    // Alice approves, from the card; once more from another platform; and Carol, who is the second.
    assert_eq!(app.click_button(&card, "Approve", ALICE).await.status, 200);
    assert_eq!(
        app.last_private_reply().lines().next().unwrap(),
        format!("Your approval of prod/{id} counts: 1 of 2 approvals")
    );
    app.tick().await;
    let card = app.only_card();
    assert!(card.text.contains("(1 of 2 approvals)"), "{}", card.text);
    assert!(card.text.contains("Approved by: alice (slack:T0001/U061F7AUR)"), "{}", card.text);
    assert!(card.text.contains("Still needed: 1 of bob, carol"), "{}", card.text);
    assert_eq!(card.button_labels(), ["Approve", "Reject", "Withdraw my approval", "Details"]);
    let again = app.send(&app.sign_event("approve", &id, "alice").await).await;
    assert_eq!((again.status, again.name().as_str(), app.count_accepts(&id)), (200, "repeated", 0));
    app.click_button(&card, "Approve", CAROL).await;
    assert!(app.last_private_reply().starts_with(&format!("You approved prod/{id}")), "{}", app.last_private_reply());
    assert_eq!(app.count_accepts(&id), 1);

    // The watcher follows it to the end.
    app.tick().await;
    let card = app.only_card();
    assert!(
        card.text.starts_with(&format!("VPC peering prod/{id} is Activated: both sides must add routes\n")),
        "{}",
        card.text
    );
    assert!(
        card.text.contains("Approved by: alice (slack:T0001/U061F7AUR) and carol (slack:T0001/U0CAROL)"),
        "{}",
        card.text
    );
    assert!(card.text.contains("Decided at: ") && card.text.contains("Activated after: "), "{}", card.text);
    assert!(card.text.contains("On our side, add a route to "), "{}", card.text);
    assert!(card.button_labels().is_empty(), "{:?}", card.button_labels());
    let thread = card.thread_headlines();
    assert_eq!(
        thread[..3],
        [
            format!("alice approved VPC peering prod/{id}: 1 of 2 approvals"),
            format!("carol approved VPC peering prod/{id}: 2 of 2 approvals"),
            format!("VPC peering prod/{id} was accepted and is being activated"),
        ]
    );
    assert!(thread[3].starts_with(&format!("VPC peering prod/{id} is Activated ")), "{thread:?}");
    assert_eq!((thread.len(), card.edits), (4, 4), "the card is redrawn with each");
    // Where nothing can be changed, each is a message; machines get each as an event.
    assert_eq!(app.posted_headlines(WEBHOOK_PATH).len(), 4);
    let types: Vec<_> = app.slack.posts(AUDIT_PATH).iter().map(|post| post.body_json()["type"].clone()).collect();
    let expected = ["discovered", "decided", "decided", "accepted", "activated"].map(|news| format!("peering.{news}"));
    assert_eq!(types, expected);

    // Bob has an old copy of the card.
    let old = app.slack.posts(SLACK_PATH)[0].body_json();
    let value = old["blocks"][1]["elements"][0]["value"].as_str().unwrap();
    let reply = app.send(&app.sign_slack_payload(&app.click_payload("peergate.reject", value, BOB)).await).await;
    assert_eq!((reply.status, app.slack.modals().len()), (200, 0), "too late to be asked for a reason");
    let told = app.last_private_reply();
    assert!(told.contains("was already approved by alice (slack:T0001/U061F7AUR) and carol"), "{told}");
    assert_eq!(app.slack.posts(RESPONSE_PATH).last().unwrap().body_json()["response_type"], "ephemeral");
    assert_eq!(app.discover().await.discovered, 0);
}

#[tokio::test]
async fn known_requests_cost_one_list_and_are_not_rediscovered() {
    let app = TestApp::start().await;
    for vpc in ["vpc-two-people", "vpc-other", "vpc-with-a-reason"] {
        requested(&app, vpc).await;
    }
    assert_eq!(app.discover().await.discovered, 3);
    let (lists, dry_runs) = (app.count_calls("ListVpcPeerConnections"), app.count_dry_runs());
    assert_eq!(dry_runs, 3);
    assert_eq!(app.discover().await.discovered, 0);
    assert_eq!((app.count_calls("ListVpcPeerConnections"), app.count_dry_runs()), (lists + 1, dry_runs));
    assert_eq!(app.slack.messages_in("C0PEER").len(), 3);
}

#[tokio::test]
async fn requests_beyond_one_page_are_all_discovered() {
    let app = TestApp::with_settings(SimulatorSettings { calls_per_minute: None, ..quick_settings() }).await;
    for number in 0..130 {
        requested(&app, &format!("vpc-{number}")).await;
    }
    // What a tick has no time for is left to the next.
    for _ in 0..20 {
        app.discover().await;
        let (entries, more) = app.parts.store.due_entries(jiff::Timestamp::MAX, None).await.unwrap();
        assert!(more.is_none());
        if entries.len() == 130 {
            return;
        }
    }
    panic!("not all were discovered");
}

#[tokio::test]
async fn failed_region_list_is_retried_in_the_next_tick() {
    let app = TestApp::start().await;
    requested(&app, "vpc-other").await;
    app.simulator.add_fault(fails("ListVpcPeerConnections", "InternalError", 1));
    assert_eq!(app.discover().await.discovered, 0);
    assert!(logged().contains("not_listed"));
    assert_eq!(app.discover().await.discovered, 1);
}

#[tokio::test]
async fn card_says_when_a_rule_cannot_be_met() {
    let app = TestApp::start().await;
    // Without the accounts, it is also about one whose contact it needs.
    let config = app.config.replace(
        "requester_accounts = [\"1111111111111111\"]\naccepting_vpcs = [\"vpc-two-people\"]\napprovals = 2",
        "accepting_vpcs = [\"vpc-two-people\"]\napprovals = 4",
    );
    let app = app.with_config(&config);
    let id = requested(&app, "vpc-two-people").await;
    app.discover().await;
    let told = "⚠ Still needed: 4 more, but only alice, bob, carol may approve: the rule must change";
    assert!(app.only_card().text.contains(told), "{}", app.only_card().text);
    for user in [ALICE, BOB, CAROL] {
        app.send(&app.sign_slash_command(&format!("approve {id}"), user).await).await;
    }
    app.tick().await;
    let told = "⚠ Still needed: 1 more, but nobody else may approve: the rule must change";
    assert!(app.only_card().text.contains(told), "{}", app.only_card().text);
}

#[tokio::test]
async fn concurrent_discoveries_make_one_card() {
    let app = TestApp::start().await;
    requested(&app, "vpc-other").await;
    let (one, two) = tokio::join!(app.discover(), app.discover());
    assert_eq!(one.discovered + two.discovered, 1);
    app.only_card();
}

#[tokio::test]
async fn card_without_a_rule_shows_a_usable_rule_and_no_buttons() {
    let app = TestApp::start().await;
    let config = app.config.replace(r#"requester_accounts = ["1111111111111111"]"#, r#"requester_accounts = ["3"]"#);
    let app = app.with_config(&config);
    let id = requested(&app, "vpc-other").await;
    app.discover().await;
    let card = app.only_card();
    assert!(
        card.text.starts_with(&format!(
            "No rule covers VPC peering prod/{id}, requested by data team: nobody can decide on it\n"
        )),
        "{}",
        card.text
    );
    assert!(card.text.contains("No rule allows its requester account."), "{}", card.text);
    assert!(card.button_labels().is_empty());
    let reply = app.send(&app.sign_event("approve", &id, "alice").await).await;
    assert_eq!((reply.name().as_str(), app.count_accepts(&id)), ("no-rule", 0));
    // Pasted as it stands, the rule is about the request, and the card gets buttons.
    let (_, rule) = card.text.split_once("[[rule]]").unwrap();
    let app = app.with_config(&format!("{config}\n[[rule]]{rule}\n"));
    assert_eq!(app.discover().await.discovered, 1);
    let card = app.only_card();
    assert_eq!(card.button_labels(), ["Approve", "Reject", "Details"], "{}", card.text);
    assert!(card.thread_headlines()[0].contains("The configuration has changed"), "{:?}", card.thread_headlines());
    app.click_button(&card, "Approve", BOB).await;
    assert_eq!(app.count_accepts(&id), 1, "{}", app.last_private_reply());
}

#[tokio::test]
async fn overlapping_ranges_are_drawn_and_block_approval() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    let cidrs = ["10.0.0.0/16", "fd00::/8"].map(|cidr| cidr.parse().unwrap());
    app.tamper(&id, Tampering { requester_cidrs: Some(cidrs.into()), ..Tampering::default() });
    app.discover().await;
    let card = app.only_card();
    assert!(card.text.contains("✗ CIDR blocks of both sides overlap"), "{}", card.text);
    assert!(card.text.contains("the requester's 10.0.0.0/16 contains our 10.0.1.0/24"), "{}", card.text);
    assert!(card.text.contains("ours      10.0.1.0/24 █···"), "{}", card.text);
    assert_eq!(app.count_dry_runs(), 0, "what can't be accepted is not asked for");
    app.click_button(&card, "Approve", ALICE).await;
    assert!(app.last_private_reply().contains("CIDR blocks of both sides overlap"), "{}", app.last_private_reply());
    assert_eq!((app.count_accepts(&id), app.state_of(&id).await.as_str()), (0, "pending"));
}

#[tokio::test]
async fn ranges_of_accepted_peerings_raise_a_warning() {
    let app = TestApp::start().await;
    let first = requested(&app, "vpc-shared").await;
    app.send(&app.sign_event("approve", &first, "alice").await).await;
    let more = [("AcceptingVpcId", "vpc-shared"), ("VpcId", "vpc-requester-2")];
    let second = app.request_peering(&more).await.unwrap();
    let same = app.load_record(&first).await.unwrap().approval.connection.requester.cidrs;
    app.tamper(&second, Tampering { requester_cidrs: Some(same), ..Tampering::default() });
    app.discover().await;
    let cards = app.slack.messages_in("C0PEER");
    let card = cards.iter().find(|card| card.text.contains(second.as_str())).unwrap();
    let warning =
        format!("⚠ other peerings of the accepting VPC use the requester's CIDR blocks: {first} uses 10.0.0.0/24 too");
    assert!(card.text.contains(&warning), "{}", card.text);
    app.click_button(card, "Approve", BOB).await;
    assert_eq!(app.count_accepts(&second), 1, "a warning: people decide");
}

#[tokio::test]
async fn failed_dry_run_is_on_the_card_and_blocks_approval() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    let not_opened = || Fault { dry_run: true, ..fails("AcceptVpcPeerConnection", "OperationFailed.CdtNotOpened", 2) };
    app.simulator.add_fault(not_opened());
    app.discover().await;
    let card = app.only_card();
    assert!(
        card.text.contains("✗ Alibaba Cloud would not accept it (dry run): OperationFailed.CdtNotOpened"),
        "{}",
        card.text
    );
    app.click_button(&card, "Approve", ALICE).await;
    assert!(app.last_private_reply().contains("Activate Cloud Data Transfer"), "{}", app.last_private_reply());
    assert_eq!((app.count_calls("AcceptVpcPeerConnection"), app.state_of(&id).await.as_str()), (0, "pending"));
    app.click_button(&card, "Approve", ALICE).await;
    assert_eq!(app.count_accepts(&id), 1, "it was mended: {}", app.last_private_reply());
}

#[tokio::test]
async fn unfinished_check_is_repeated_and_blocks_nobody() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    app.simulator.add_fault(Fault { dry_run: true, ..fails("AcceptVpcPeerConnection", "Forbidden.RAM", 1) });
    app.discover().await;
    let unknown = "⚠ unknown whether Alibaba Cloud would accept it (dry run): Forbidden.RAM";
    assert!(app.only_card().text.contains(unknown), "{}", app.only_card().text);
    app.make_due(&id).await;
    app.round().await;
    let stored = app.load_record(&id).await.unwrap().approval;
    assert!(!peergate::preflight::is_incomplete(&stored.findings), "{:?}", stored.findings);
    app.simulator.add_fault(Fault { dry_run: true, ..fails("AcceptVpcPeerConnection", "Throttling.User", 1) });
    let reply = app.send(&app.sign_event("approve", &id, "alice").await).await;
    assert_eq!((reply.name().as_str(), app.count_accepts(&id)), ("accepted", 1));
}

#[tokio::test]
async fn zero_approval_rule_accepts_and_says_so() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-by-itself").await;
    app.discover().await;
    assert_eq!(app.count_accepts(&id), 1);
    app.tick().await;
    let card = app.only_card();
    assert!(
        card.text.contains("Rule: by itself") && card.text.contains("Approved by: the rule itself"),
        "{}",
        card.text
    );
    assert_eq!(card.thread_headlines()[0], format!("the rule itself approved VPC peering prod/{id}"));
    assert_eq!(app.state_of(&id).await, "activated");
}

#[tokio::test]
async fn zero_approval_rule_asks_people_when_a_check_is_unknown() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-by-itself").await;
    app.tamper(&id, Tampering { requester_cidrs: Some([].into()), ..Tampering::default() });
    app.discover().await;
    app.discover().await;
    assert_eq!((app.count_calls("AcceptVpcPeerConnection"), app.state_of(&id).await.as_str()), (0, "pending"));
    let card = app.only_card();
    assert!(
        card.text.contains("⚠ unknown whether CIDR blocks overlap, because those of one side are missing"),
        "{}",
        card.text
    );
    assert!(card.text.contains("Still needed: 1 of alice, bob"), "{}", card.text);
    app.click_button(&card, "Approve", BOB).await;
    assert_eq!(app.count_accepts(&id), 1);
}

#[tokio::test]
async fn zero_approval_rule_waits_for_a_passed_dry_run() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-by-itself").await;
    app.simulator.add_fault(Fault { dry_run: true, ..fails("AcceptVpcPeerConnection", "Throttling.User", 1) });
    app.discover().await;
    assert_eq!((app.count_accepts(&id), app.state_of(&id).await.as_str()), (0, "pending"));
    app.make_due(&id).await;
    app.round().await;
    assert_eq!(app.count_accepts(&id), 1, "asked again, it passed");
}

#[tokio::test]
async fn requesters_contact_never_counts_but_may_reject() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-two-people").await;
    app.discover().await;
    let card = app.only_card();
    app.click_button(&card, "Approve", ERIN).await;
    assert!(
        app.last_private_reply().contains("you are a contact of its requester, account 1111111111111111"),
        "{}",
        app.last_private_reply()
    );
    let reply = app.send(&app.sign_event("approve", &id, "erin").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (403, "requesters-contact"));
    app.click_button(&card, "Approve", ALICE).await;
    assert_eq!((app.load_record(&id).await.unwrap().approval.approval_count(), app.count_accepts(&id)), (1, 0));
    app.click_button(&app.only_card(), "Reject", ERIN).await;
    assert!(app.give_reason("we asked by mistake", ERIN).await.starts_with("You rejected"));
    assert_eq!(app.state_of(&id).await, "rejected");
}

#[tokio::test]
async fn withdrawn_approval_does_not_count_until_reapproved() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-two-people").await;
    app.discover().await;
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.tick().await;
    let card = app.only_card();
    app.click_button(&card, "Withdraw my approval", BOB).await;
    assert!(app.last_private_reply().contains("You have no approval to withdraw"), "{}", app.last_private_reply());
    app.click_button(&card, "Withdraw my approval", ALICE).await;
    assert!(app.last_private_reply().contains("You withdrew your approval"), "{}", app.last_private_reply());
    app.click_button(&card, "Approve", BOB).await;
    assert_eq!(app.count_accepts(&id), 0, "one of two");
    // With the other identity of hers, by a machine.
    assert_eq!(app.send(&app.sign_event("withdraw", &id, "alice").await).await.name(), "nothing-to-withdraw");
    let approve = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&approve).await.name(), "accepted");
    let late = app.send(&app.sign_event("withdraw", &id, "alice").await).await;
    assert_eq!((late.status, late.name().as_str(), app.count_accepts(&id)), (409, "already-decided", 1));
    app.tick().await;
    let thread = app.only_card().thread_headlines().join("\n");
    assert!(thread.contains("alice withdrew their approval"), "{thread}");
}

#[tokio::test]
async fn replayed_approval_does_not_undo_a_withdrawal() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-two-people").await;
    let approve = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&approve).await.name(), "counted");
    let withdraw = app.sign_event("withdraw", &id, "alice").await;
    assert_eq!(app.send(&withdraw).await.name(), "withdrawn");
    assert_eq!(app.send(&approve).await.name(), "repeated");
    assert_eq!(app.load_record(&id).await.unwrap().approval.approval_count(), 0);
    assert_eq!(app.send(&app.sign_event("approve", &id, "alice").await).await.name(), "counted");
    assert_eq!(app.send(&withdraw).await.name(), "repeated");
    assert_eq!(app.load_record(&id).await.unwrap().approval.approval_count(), 1);
}

#[tokio::test]
async fn rejection_asks_for_a_reason_and_shows_it_to_all() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-two-people").await;
    app.discover().await;
    let card = app.only_card();
    app.click_button(&card, "Approve", ALICE).await;
    assert_eq!(app.click_button(&card, "Reject", BOB).await.body, "");
    assert_eq!(app.state_of(&id).await, "pending", "nothing is decided while somebody thinks");
    let window = app.slack.modals().pop().unwrap();
    assert_eq!((&window["callback_id"], &window["blocks"][1]["optional"]), (&json!("peergate.reject"), &json!(true)));
    let shown = app.give_reason("not <!channel> ours", BOB).await;
    assert_eq!(shown, format!("You rejected prod/{id}"));
    assert_eq!((app.state_of(&id).await.as_str(), app.count_accepts(&id)), ("rejected", 0));
    app.tick().await;
    let card = app.only_card();
    assert!(card.text.starts_with(&format!("VPC peering prod/{id} was rejected\n")), "{}", card.text);
    assert!(card.text.contains("Rejected by: bob (slack:T0001/U0BOB)"), "{}", card.text);
    assert!(card.text.contains("Reason: bob: not <!channel> ours"), "{}", card.text);
    assert!(card.button_labels().is_empty());
    let reply = app.send(&app.sign_slack_payload(&app.submission_payload(&window, "again", ALICE)).await).await;
    assert!(
        peergate::fake::slack::visible_text(&reply.body_json()["view"]).contains("already rejected by bob"),
        "{}",
        reply.body
    );
}

#[tokio::test]
async fn rule_may_require_a_reason_for_approvals() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-with-a-reason").await;
    let reply = app.send(&app.sign_event("approve", &id, "alice").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (422, "reason-required"));
    app.discover().await;
    let card = app.only_card();
    app.click_button(&card, "Approve", ALICE).await;
    assert_eq!((app.count_accepts(&id), app.slack.modals().len()), (0, 1));
    assert_eq!(app.slack.modals()[0]["blocks"][1]["optional"], false);
    assert!(app.give_reason("  ", ALICE).await.contains("requires a reason"));
    assert_eq!(app.count_accepts(&id), 0);
    assert!(app.give_reason("ticket 42", ALICE).await.starts_with("You approved"));
    assert_eq!(app.count_accepts(&id), 1);
    let other = requested(&app, "vpc-with-a-reason-2").await;
    let mut wish = app.event_spec("reject", &other, "bob");
    wish.reason = Some("no".into());
    assert_eq!(app.send(&app.sign_spec(&wish).await).await.name(), "rejected");
}

#[tokio::test]
async fn failed_modal_decides_nothing_and_says_so() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    app.discover().await;
    let body = r#"{"ok":false,"error":"expired_trigger_id"}"#.to_owned();
    app.slack.add_outage(Outage { path: "/api/views.open".into(), status: 200, body, ..Outage::default() });
    app.click_button(&app.only_card(), "Reject", BOB).await;
    assert!(
        app.last_private_reply().contains("could not ask you for a reason, so nothing was decided"),
        "{}",
        app.last_private_reply()
    );
    assert_eq!(app.state_of(&id).await, "pending");
    app.slack.clear_outages();
    // Without a bot token there are no windows: the click decides.
    let card = app.only_card();
    let url = |name: &str| format!("{}hooks/{name}", app.chat_url);
    app.write_secrets(|secrets| {
        secrets["platforms"]["slack"]["bot_token"] = json!(null);
        secrets["channels"]["netops"] = json!({"url": url("cards")});
        secrets["channels"]["oncall"] = json!({"url": url("oncall")});
    })
    .unwrap();
    let no_bot = |config: String, channel| {
        config.replace(&format!("kind = \"slack\"\nchannel = \"{channel}\""), "kind = \"slack-webhook\"")
    };
    let config = no_bot(no_bot(app.config.clone(), "C0PEER"), "C0CALL");
    let app = app.with_config(&config);
    app.click_button(&card, "Reject", BOB).await;
    assert_eq!(app.state_of(&id).await, "rejected", "{}", app.last_private_reply());
}

type Change = fn(&mut serde_json::Value);

#[tokio::test]
async fn foreign_or_malformed_modal_is_refused() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    app.discover().await;
    app.click_button(&app.only_card(), "Reject", BOB).await;
    let window = app.slack.modals().pop().unwrap();
    let good = app.submission_payload(&window, "no", BOB);
    let asked = app.count_upstream_calls();
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
        assert_eq!(app.send(&app.sign_slack_payload(&payload).await).await.status, status, "{name}");
    }
    assert_eq!(app.state_of(&id).await, "pending");
    assert_eq!(app.count_upstream_calls(), asked, "nothing is asked of Alibaba Cloud");
}

#[tokio::test]
async fn changed_facts_void_earlier_approvals() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-two-people").await;
    app.discover().await;
    let old = app.only_card();
    app.click_button(&old, "Approve", ALICE).await;
    app.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    app.click_button(&old, "Approve", BOB).await;
    assert!(app.last_private_reply().contains("has changed since you saw it"), "{}", app.last_private_reply());
    // A machine that does not say what it saw has not seen this either.
    app.tick().await;
    let card = app.only_card();
    assert!(card.text.contains("(0 of 2 approvals)"), "{}", card.text);
    assert!(card.text.contains("⚠ Changed: bandwidth: 1024 Mbit/s → 5 Mbit/s"), "{}", card.text);
    assert!(card.replies.last().unwrap().broadcast, "everybody has to look again");
    assert!(card.replies.last().unwrap().text.contains("The approval of alice"));
    app.click_button(&old, "Approve", CAROL).await;
    assert!(
        app.last_private_reply().contains("has changed since you saw it"),
        "an old copy: {}",
        app.last_private_reply()
    );
    app.click_button(&card, "Approve", ALICE).await;
    app.click_button(&card, "Approve", BOB).await;
    assert_eq!(app.count_accepts(&id), 1, "{}", app.last_private_reply());
}

#[tokio::test]
async fn discovery_detects_a_change_without_a_click() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-two-people").await;
    app.discover().await;
    app.send(&app.sign_event("approve", &id, "alice").await).await;
    app.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    // A command without a fingerprint is about the card that its sender saw.
    let reply = app.send(&app.sign_slash_command(&format!("approve {id}"), BOB).await).await;
    assert!(reply.body.contains("has changed since you saw it"), "{}", reply.body);
    app.tamper(&id, Tampering { bandwidth: Some(6), ..Tampering::default() });
    assert_eq!(app.discover().await.discovered, 1);
    assert!(app.only_card().text.contains("⚠ Changed: bandwidth: 5 Mbit/s → 6 Mbit/s"), "{}", app.only_card().text);
    assert_eq!(app.load_record(&id).await.unwrap().approval.approval_count(), 0);
}

#[tokio::test]
async fn card_shows_decisions_made_outside_peergate() {
    let app = TestApp::start().await;
    for (status, headline) in [
        ("Rejected", "was rejected"),
        ("Expired", "has expired"),
        ("Deleted", "was deleted"),
        ("Activated", "is Activated: both sides must add routes"),
    ] {
        let id = requested(&app, &format!("vpc-{}", status.to_lowercase())).await;
        app.discover().await;
        app.tamper(&id, becomes(status));
        app.make_due(&id).await;
        app.round().await;
        if status == "Deleted" {
            assert_eq!(app.state_of(&id).await, "pending", "one reading is no proof");
            app.read_doubtful_again(&id).await;
        }
        let cards = app.slack.messages_in("C0PEER");
        let card = cards.iter().find(|card| card.text.contains(id.as_str())).unwrap();
        assert!(card.text.starts_with(&format!("VPC peering prod/{id} {headline}\n")), "{}", card.text);
        let outside = card.text.contains("somebody outside peergate");
        assert_eq!(outside, ["Rejected", "Activated"].contains(&status), "{}", card.text);
        assert!(card.button_labels().is_empty(), "{:?}", card.button_labels());
    }
}

#[tokio::test]
async fn failed_accept_keeps_the_buttons_for_a_retry() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    app.discover().await;
    app.simulator.add_fault(fails("AcceptVpcPeerConnection", "OperationFailed.CdtNotOpened", 1));
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.tick().await;
    let card = app.only_card();
    assert!(
        card.text
            .starts_with(&format!("VPC peering prod/{id} could not be accepted: fix the cause, then decide again\n")),
        "{}",
        card.text
    );
    assert!(card.text.contains("Error code: OperationFailed.CdtNotOpened"), "{}", card.text);
    assert_eq!(card.button_labels(), ["Approve", "Reject", "Details"]);
    app.click_button(&card, "Approve", ALICE).await;
    assert_eq!((app.count_accepts(&id), app.load_record(&id).await.unwrap().approval.generation), (1, 2));
}

#[tokio::test]
async fn deleted_card_is_posted_again() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    app.discover().await;
    app.slack.delete_message("C0PEER", &app.only_card().ts);
    app.click_missing_button(&id, "peergate.approve", ALICE).await;
    app.tick().await;
    assert!(app.only_card().text.contains("is Activated"), "{}", app.only_card().text);
}

#[tokio::test]
async fn failed_thread_reply_makes_no_second_card() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    app.click_missing_button(&id, "peergate.approve", ALICE).await;
    // The card is posted, the first reply below it is not.
    app.slack.add_outage_after(1, Outage { path: SLACK_PATH.into(), status: 503, ..Outage::default() });
    app.round().await;
    app.slack.clear_outages();
    assert_eq!(app.only_card().replies.len(), 0);
    app.tick().await;
    let card = app.only_card();
    assert!(card.thread_headlines().len() >= 2 && card.text.contains("Activated"), "{card:?}");
}

#[tokio::test]
async fn details_button_shows_one_person_everything() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-two-people").await;
    app.discover().await;
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.click_button(&app.only_card(), "Details", BOB).await;
    let told = app.last_private_reply();
    assert!(told.starts_with(&format!("VPC peering prod/{id} has the status Accepting at Alibaba Cloud\n")), "{told}");
    for part in ["✓ it has not expired", "discovered; the rule “two people” requires 2 approvals", "approved by alice"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[tokio::test]
async fn list_and_status_answer_slack_and_machines() {
    let app = TestApp::start().await;
    let empty = app.send(&app.sign_slash_command("list", BOB).await).await;
    assert!(empty.body.contains("No VPC peering is pending or in progress"), "{}", empty.body);
    let one = requested(&app, "vpc-two-people").await;
    let two = requested(&app, "vpc-other").await;
    let done = requested(&app, "vpc-done").await;
    app.discover().await;
    app.send(&app.sign_event("approve", &one, "alice").await).await;
    app.send(&app.sign_event("reject", &done, "alice").await).await;
    let list = app.send(&app.sign_body(r#"{"type":"peering.list","data":{"actor":"anybody"}}"#)).await;
    assert_eq!((list.status, list.name().as_str()), (200, "list"));
    let json = list.body_json();
    let ids: Vec<_> = json["approvals"].as_array().unwrap().iter().map(|one| one["instance_id"].clone()).collect();
    assert!(ids.len() == 2 && ids.contains(&json!(one)) && ids.contains(&json!(two)), "{ids:?}");
    let slash = app.send(&app.sign_slash_command("list on prod", BOB).await).await;
    let text = peergate::fake::slack::visible_text(&slash.body_json());
    assert!(text.starts_with("2 VPC peerings are pending or in progress"), "{text}");
    assert!(text.contains(&format!("prod/{one}: pending, 1 of 2 approvals; since ")), "{text}");
    let wrong = app.send(&app.sign_slash_command("list on dev", BOB).await).await;
    assert!(wrong.body.contains("Name one of these targets: prod"), "{}", wrong.body);
    let status = app.send(&app.sign_event("status", &one, "anybody").await).await.body_json();
    assert_eq!(
        (&status["approval"]["approvals"]["given"], &status["approval"]["state"]),
        (&json!(1), &json!("pending"))
    );
    let asked = app.count_upstream_calls();
    for body in [
        r#"{"type":"peering.list","data":{"actor":"a","instance_id":"pcc-a"}}"#,
        r#"{"type":"peering.list","data":{"actor":"a","dry_run":true}}"#,
        r#"{"type":"peering.withdraw","data":{"actor":"a"}}"#,
    ] {
        assert_eq!(app.send(&app.sign_body(body)).await.name(), "malformed", "{body}");
    }
    assert_eq!(app.count_upstream_calls(), asked);
}

#[tokio::test]
async fn overruled_approver_is_told_who_rejected() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-two-people").await;
    let approve = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&approve).await.name(), "counted");
    assert_eq!(app.send(&app.sign_event("reject", &id, "bob").await).await.name(), "rejected");
    for again in [approve, app.sign_event("approve", &id, "alice").await] {
        let reply = app.send(&again).await;
        assert_eq!((reply.status, reply.name().as_str()), (409, "already-decided"), "it must not look like success");
        assert!(reply.problem_detail().contains("already rejected by bob"), "{}", reply.problem_detail());
    }
    assert_eq!(app.count_accepts(&id), 0);
}

#[tokio::test]
async fn request_presumed_deleted_can_be_decided_after_a_change() {
    let app = TestApp::start().await;
    let config = app.config.replace(r#"regions = ["cn-shanghai"]"#, "regions = []");
    let app = app.with_config(&config);
    let id = requested(&app, "vpc-two-people").await;
    app.send(&app.sign_event("approve", &id, "alice").await).await;
    app.simulator.add_fault(fails("GetVpcPeerConnectionAttribute", "ResourceNotFound.InstanceId", 2));
    app.make_due(&id).await;
    app.round().await;
    app.read_doubtful_again(&id).await;
    assert_eq!(app.state_of(&id).await, "deleted");
    let seen = app.sign_event("approve", &id, "bob").await;
    app.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    assert_eq!(app.send(&seen).await.name(), "connection-changed");
    app.tick().await;
    assert_eq!(app.send(&app.sign_event("approve", &id, "bob").await).await.name(), "counted");
    assert_eq!(app.send(&app.sign_event("approve", &id, "carol").await).await.name(), "accepted");
}

#[tokio::test]
async fn simultaneous_last_approvals_make_one_accept() {
    let app = TestApp::start().await;
    for number in 0..5 {
        let more = [("AcceptingVpcId", "vpc-two-people"), ("VpcId", &format!("vpc-requester-{number}"))];
        let id = app.request_peering(&more).await.unwrap();
        let mut requests = vec![];
        for actor in ["alice", "bob", "carol", "alice", "bob", "carol"] {
            requests.push(app.sign_event("approve", &id, actor).await);
        }
        let replies = futures_util::future::join_all(requests.iter().map(|request| app.send(request))).await;
        let names: Vec<_> = replies.iter().map(crate::support::TestResponse::name).collect();
        let approval = app.load_record(&id).await.unwrap().approval;
        assert_eq!(
            (approval.approval_count(), app.count_calls_for("AcceptVpcPeerConnection", &id)),
            (2, 1),
            "{names:?}"
        );
        assert_eq!(names.iter().filter(|name| *name == "counted").count(), 1, "{names:?}");
    }
}

#[tokio::test]
async fn request_presumed_deleted_is_pending_once_it_reappears() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-two-people").await;
    app.discover().await;
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    // Somebody stored the key of another account for a while.
    app.simulator.add_fault(fails("GetVpcPeerConnectionAttribute", "ResourceNotFound.InstanceId", 2));
    app.make_due(&id).await;
    app.round().await;
    app.read_doubtful_again(&id).await;
    assert_eq!(app.state_of(&id).await, "deleted");
    app.discover().await;
    let approval = app.load_record(&id).await.unwrap().approval;
    assert_eq!(
        (approval.state.name(), approval.generation, approval.approval_count()),
        ("pending", 1, 1),
        "Alice still counts"
    );
    let labels = ["Approve", "Reject", "Withdraw my approval", "Details"];
    assert_eq!(app.only_card().button_labels(), labels, "{}", app.only_card().text);
    let told = app.thread_replies().pop().unwrap();
    assert!(
        told.contains("Correction: ") && told.contains("was reported as deleted, but it is still pending"),
        "{told}"
    );
}

#[tokio::test]
async fn decision_without_a_fingerprint_needs_a_current_card() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    app.discover().await;
    for path in [SLACK_PATH, "/api/chat.update", WEBHOOK_PATH, AUDIT_PATH] {
        app.slack.add_outage(Outage { path: path.into(), status: 503, ..Outage::default() });
    }
    app.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    app.discover().await;
    let reply = app.send(&app.sign_slash_command(&format!("approve {id}"), ALICE).await).await;
    assert!(reply.body.contains("has changed since you saw it"), "{}", reply.body);
    let blind = app.sign_spec(&event_spec("approve", &id, "bob")).await;
    assert_eq!(app.send(&blind).await.name(), "connection-changed");
    app.slack.clear_outages();
    app.tick().await;
    assert_eq!(app.send(&blind).await.name(), "connection-changed", "what was refused stays refused");
    let reply = app.send(&app.sign_slash_command(&format!("approve {id}"), ALICE).await).await;
    assert!(reply.body.contains("You approved") && app.count_accepts(&id) == 1, "{}", reply.body);
}

#[tokio::test]
async fn change_can_be_approved_before_the_card_shows_it() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    app.discover().await;
    app.tamper(&id, Tampering { bandwidth: Some(5), ..Tampering::default() });
    app.click_missing_button(&id, "peergate.approve", ALICE).await;
    assert_eq!(app.count_accepts(&id), 1, "{}", app.last_private_reply());
    app.tick().await;
    assert!(app.only_card().thread_headlines()[0].contains("has changed"), "{:?}", app.only_card().thread_headlines());
}

#[tokio::test]
async fn channel_dropped_from_the_rule_still_hears_the_end() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-two-people").await;
    app.discover().await;
    let config = app.config.replace(r#"channels = ["netops", "hook", "audit"]"#, r#"channels = ["oncall"]"#);
    let app = app.with_config(&config);
    app.discover().await;
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.click_button(&app.card_in("C0CALL"), "Approve", BOB).await;
    app.tick().await;
    for channel in ["C0PEER", "C0CALL"] {
        let card = app.card_in(channel);
        assert!(card.text.contains("is Activated") && card.button_labels().is_empty(), "{channel}: {}", card.text);
    }
    assert_eq!(app.count_accepts(&id), 1);
}

#[tokio::test]
async fn moved_channel_gets_a_new_card() {
    let app = TestApp::start().await;
    requested(&app, "vpc-other").await;
    app.discover().await;
    let config = app.config.replace(r#"channel = "C0PEER""#, r#"channel = "C0NEW""#);
    let app = app.with_config(&config);
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.tick().await;
    assert!(app.card_in("C0NEW").text.contains("is Activated"));
}

#[tokio::test]
async fn stuck_approval_is_reported() {
    let app = TestApp::start().await;
    let config = app.config.replace("[requests]", "[requests]\nstuck_after = \"1m\"");
    let app = app.with_config(&config);
    let id = requested(&app, "vpc-other").await;
    app.discover().await;
    app.simulator.add_fault(Fault { times: 9, ..fails("AcceptVpcPeerConnection", "Forbidden.RAM", 9) });
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    let stored = app.load_record(&id).await.unwrap();
    let long_ago = |approval: &mut peergate::approval::Approval| {
        let ago = peergate::clock::now() - jiff::SignedDuration::from_mins(5);
        let early = approval.since > ago;
        (approval.since, approval.next_step_at) = (ago, Some(ago));
        early
    };
    app.parts.store.update(stored, long_ago).await.unwrap();
    let counted = MetricsRecorder::start();
    app.round().await;
    app.round().await;
    assert_eq!(counted.take_counts()[peergate::metrics::STUCK_APPROVALS], [1.0]);
    let told = app.thread_replies().pop().unwrap();
    assert!(told.contains("was approved 5 min 0 s ago, but peergate cannot accept it yet"), "{told}");
    assert!(told.contains("Error code: Forbidden.RAM") && told.contains("Grant the target's RAM user"), "{told}");
}

#[tokio::test]
async fn pending_requests_with_the_same_ranges_need_people() {
    let app = TestApp::start().await;
    let mut ids = vec![];
    for number in 0..2 {
        let more = [("AcceptingVpcId", "vpc-by-itself"), ("VpcId", &format!("vpc-theirs-{number}"))];
        let id = app.request_peering(&more).await.unwrap();
        let cidrs = Some(["10.99.0.0/16".parse().unwrap()].into());
        app.tamper(&id, Tampering { requester_cidrs: cidrs, ..Tampering::default() });
        ids.push(id);
    }
    app.discover().await;
    app.discover().await;
    assert_eq!(app.count_calls("AcceptVpcPeerConnection"), 0);
    app.send(&app.sign_event("approve", &ids[0], "alice").await).await;
    assert_eq!(app.count_accepts(&ids[0]), 1);
    assert_eq!(app.state_of(&ids[1]).await, "pending");
}

#[tokio::test]
async fn fixed_check_is_redrawn_without_a_notification() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    app.simulator.add_fault(Fault { dry_run: true, ..fails("AcceptVpcPeerConnection", "Throttling.User", 1) });
    app.discover().await;
    assert!(app.only_card().text.contains("⚠ unknown whether"), "{}", app.only_card().text);
    app.make_due(&id).await;
    app.round().await;
    assert!(!app.only_card().text.contains('⚠'), "{}", app.only_card().text);
    assert!(
        app.only_card().thread_headlines().is_empty() && app.posted_headlines(WEBHOOK_PATH).is_empty(),
        "nothing to say"
    );
    let version = app.load_record(&id).await.unwrap().version;
    app.discover().await;
    assert_eq!(app.load_record(&id).await.unwrap().version, version);
}

#[tokio::test]
async fn facts_changed_during_activation_are_reported() {
    let app =
        TestApp::with_settings(SimulatorSettings { activation_delay: Duration::from_hours(1), ..quick_settings() })
            .await;
    let id = requested(&app, "vpc-other").await;
    app.click_missing_button(&id, "peergate.approve", ALICE).await;
    app.tamper(&id, Tampering { bandwidth: Some(5), ..becomes("Activated") });
    app.round().await;
    let thread = app.only_card().thread_headlines().join("\n");
    assert!(thread.contains("was activated with facts that nobody approved"), "{thread}");
    assert_eq!(app.state_of(&id).await, "activated");
}

#[tokio::test]
async fn refused_message_is_abandoned_after_a_few_tries() {
    let app = TestApp::start().await;
    let id = requested(&app, "vpc-other").await;
    app.discover().await;
    app.slack.add_outage(Outage { path: AUDIT_PATH.into(), status: 422, ..Outage::default() });
    app.send(&app.sign_event("approve", &id, "alice").await).await;
    let number = app.load_record(&id).await.unwrap().approval.outbox[1].number;
    let delivery = async || app.load_record(&id).await.unwrap().approval.outbox[1].deliveries["audit"].clone();
    for _ in 0..4 {
        let stored = app.load_record(&id).await.unwrap();
        let refused = peergate::approval::Event::Undelivered {
            number,
            channel: "audit".into(),
            error: "HTTP 422".into(),
            retry: peergate::approval::RetryPolicy::FewTimes,
            display: peergate::approval::ChannelDisplay::Unchanged,
        };
        app.parts
            .store
            .update(stored, |approval| approval.apply_event(&refused, peergate::clock::now()))
            .await
            .unwrap();
    }
    assert_eq!(delivery().await, peergate::approval::Delivery::Abandoned);
}

//! What people see and do: requests come to the channel, people click, and everybody sees the result. Slack is a fake that
//! keeps messages, so the tests see what people see.

use crate::support::prelude::*;

#[tokio::test]
async fn channel_sees_the_whole_life_of_a_request() {
    let app =
        TestApp::with_settings(SimulatorSettings { activation_delay: Duration::from_secs(1), ..quick_settings() })
            .await;
    let id = app.new_request_for("vpc-two-people").await;
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

    // Alice approves on the card and again from another platform. Carol is the second person.
    assert_eq!(app.click_button(&card, "Approve", ALICE).await.status, 200);
    assert_eq!(
        app.last_private_reply().lines().next().unwrap(),
        format!("Your approval of prod/{id} counts: 1 of 2 approvals")
    );
    app.follow().await;
    let card = app.only_card();
    assert!(card.text.contains("(1 of 2 approvals)"), "{}", card.text);
    assert!(card.text.contains("Approved by: alice (slack:T0001/U061F7AUR)"), "{}", card.text);
    assert!(card.text.contains("Still needed: 1 of bob, carol"), "{}", card.text);
    assert_eq!(card.button_labels(), ["Approve", "Reject", "Withdraw my approval", "Details"]);
    let again = app.approve(&id, "alice").await;
    assert_eq!((again.status, again.name().as_str(), app.count_accepts(&id)), (200, "repeated", 0));
    app.click_button(&card, "Approve", CAROL).await;
    assert!(app.last_private_reply().starts_with(&format!("You approved prod/{id}")), "{}", app.last_private_reply());
    app.assert_accepts(&id, 1);

    // The watcher follows it to the end.
    app.follow().await;
    let card = app.only_card();
    assert!(
        card.text.starts_with(&format!(
            "VPC peering prod/{id} is Activated; it carries traffic once both sides have routes\n"
        )),
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
    // A channel without updates gets each notification as a message; machines get each as an event.
    assert_eq!(app.posted_headlines(WEBHOOK_PATH).len(), 4);
    let types: Vec<_> = app.slack.posts(AUDIT_PATH).iter().map(|post| post.body_json()["type"].clone()).collect();
    let expected = ["discovered", "decided", "decided", "accepted", "activated"].map(|name| format!("peering.{name}"));
    assert_eq!(types, expected);

    // Bob has an old copy of the card.
    let old = app.slack.posts(SLACK_PATH)[0].body_json();
    let value = old["blocks"][1]["elements"][0]["value"].as_str().unwrap();
    let reply = app.send_slack_payload(&app.click_payload("peergate.reject", value, BOB)).await;
    assert_eq!((reply.status, app.slack.modals().len()), (200, 0), "too late to be asked for a reason");
    let late = app.last_private_reply();
    assert!(late.contains("was already approved by alice (slack:T0001/U061F7AUR) and carol"), "{late}");
    assert_eq!(app.slack.posts(RESPONSE_PATH).last().unwrap().body_json()["response_type"], "ephemeral");
    assert_eq!(app.discover().await.discovered, 0);
}

#[tokio::test]
async fn known_requests_cost_one_list_and_are_not_rediscovered() {
    let app = TestApp::start().await;
    for vpc in ["vpc-two-people", "vpc-other", "vpc-with-a-reason"] {
        app.new_request_for(vpc).await;
    }
    assert_eq!(app.discover().await.discovered, 3);
    let (lists, dry_runs) = (app.count_calls(LIST), app.count_dry_runs());
    assert_eq!(dry_runs, 3);
    assert_eq!(app.discover().await.discovered, 0);
    assert_eq!((app.count_calls(LIST), app.count_dry_runs()), (lists + 1, dry_runs));
    assert_eq!(app.slack.messages_in(CHANNEL).len(), 3);
}

#[tokio::test]
async fn requests_beyond_one_page_are_all_discovered() {
    let app = TestApp::with_settings(SimulatorSettings { calls_per_minute: None, ..quick_settings() }).await;
    for number in 0..130 {
        app.new_request_for(&format!("vpc-{number}")).await;
    }
    // A tick that runs out of time leaves the rest to the next one.
    for _ in 0..20 {
        app.discover().await;
        let page = app.parts.store.due_entries(jiff::Timestamp::MAX, None).await.unwrap();
        assert!(page.next.is_none());
        if page.items.len() == 130 {
            return;
        }
    }
    panic!("not all were discovered");
}

#[tokio::test]
async fn failed_region_list_is_retried_in_the_next_tick() {
    let app = TestApp::start().await;
    app.new_request_for("vpc-other").await;
    app.fail_next(LIST, "InternalError");
    assert_eq!(app.discover().await.discovered, 0);
    assert!(logged().contains("not_listed"));
    assert_eq!(app.discover().await.discovered, 1);
}

#[tokio::test]
async fn card_says_when_a_rule_cannot_be_met() {
    let app = TestApp::start().await;
    // Without the accounts, the rule also covers an account whose contact it requires.
    let app = app.with_change(
        "requester_accounts = [\"1111111111111111\"]\naccepting_vpcs = [\"vpc-two-people\"]\napprovals = 2",
        "accepting_vpcs = [\"vpc-two-people\"]\napprovals = 4",
    );
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    let expected = "⚠ Still needed: 4 more, but only alice, bob, carol may approve: the rule must change";
    assert!(app.only_card().text.contains(expected), "{}", app.only_card().text);
    for user in [ALICE, BOB, CAROL] {
        app.slash_command(&format!("approve {id}"), user).await;
    }
    app.follow().await;
    let unmet = "⚠ Still needed: 1 more, but nobody else may approve: the rule must change";
    assert!(app.only_card().text.contains(unmet), "{}", app.only_card().text);
}

#[tokio::test]
async fn concurrent_discoveries_make_one_card() {
    let app = TestApp::start().await;
    app.new_request_for("vpc-other").await;
    let (one, two) = tokio::join!(app.discover(), app.discover());
    assert_eq!(one.discovered + two.discovered, 1);
    app.only_card();
}

#[tokio::test]
async fn card_without_a_rule_shows_a_usable_rule_and_no_buttons() {
    let app = TestApp::start().await;
    let config = app.config.replace(r#"requester_accounts = ["1111111111111111"]"#, r#"requester_accounts = ["3"]"#);
    let app = app.with_config(&config);
    let id = app.new_request_for("vpc-other").await;
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
    let reply = app.approve(&id, "alice").await;
    assert_eq!((reply.name().as_str(), app.count_accepts(&id)), ("no-rule", 0));
    // Pasted without a change, the rule covers the request, and the card gets buttons.
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
async fn overlapping_cidr_blocks_are_drawn_and_block_approval() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    let cidrs = ["10.0.0.0/16", "fd00::/8"].map(|cidr| cidr.parse().unwrap());
    app.tamper(&id, Tampering { requester_cidrs: Some(cidrs.into()), ..Tampering::default() });
    app.discover().await;
    let card = app.only_card();
    assert!(card.text.contains("✗ CIDR blocks of both sides overlap"), "{}", card.text);
    assert!(card.text.contains("the requester's 10.0.0.0/16 contains our 10.0.1.0/24"), "{}", card.text);
    assert!(card.text.contains("ours      10.0.1.0/24 █···"), "{}", card.text);
    assert_eq!(app.count_dry_runs(), 0, "no dry run of a connection that cannot be accepted");
    app.click_button(&card, "Approve", ALICE).await;
    assert!(app.last_private_reply().contains("CIDR blocks of both sides overlap"), "{}", app.last_private_reply());
    assert_eq!((app.count_accepts(&id), app.state_of(&id).await.as_str()), (0, "pending"));
}

#[tokio::test]
async fn cidr_blocks_of_accepted_peerings_raise_a_warning() {
    let app = TestApp::start().await;
    let first = app.new_request_for("vpc-shared").await;
    app.approve(&first, "alice").await;
    let more = [("AcceptingVpcId", "vpc-shared"), ("VpcId", "vpc-requester-2")];
    let second = app.request_peering(&more).await.unwrap();
    let same = app.approval(&first).await.connection().requester.cidrs.clone();
    app.tamper(&second, Tampering { requester_cidrs: Some(same), ..Tampering::default() });
    app.discover().await;
    let cards = app.slack.messages_in(CHANNEL);
    let card = cards.iter().find(|card| card.text.contains(second.as_str())).unwrap();
    let warning =
        format!("⚠ other peerings of the accepting VPC use the requester's CIDR blocks: {first} uses 10.0.0.0/24 too");
    assert!(card.text.contains(&warning), "{}", card.text);
    app.click_button(card, "Approve", BOB).await;
    // A warning: people decide.
    app.assert_accepts(&second, 1);
}

#[tokio::test]
async fn failed_dry_run_is_on_the_card_and_blocks_approval() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    let not_opened = || Fault { dry_run: true, times: 2, ..failure(ACCEPT, "OperationFailed.CdtNotOpened") };
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
    app.assert_calls(ACCEPT, 0);
    app.assert_state(&id, "pending").await;
    app.click_button(&card, "Approve", ALICE).await;
    assert_eq!(app.count_accepts(&id), 1, "the problem is fixed: {}", app.last_private_reply());
}

#[tokio::test]
async fn unfinished_check_is_repeated_and_blocks_nobody() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    app.fail_next_dry_run("Forbidden.RAM");
    app.discover().await;
    let unknown = "⚠ unknown whether Alibaba Cloud would accept it (dry run): Forbidden.RAM";
    assert!(app.only_card().text.contains(unknown), "{}", app.only_card().text);
    app.make_due(&id).await;
    app.round().await;
    let stored = app.approval(&id).await;
    assert!(!peergate::preflight::is_incomplete(stored.findings()), "{:?}", stored.findings());
    app.fail_next_dry_run("Throttling.User");
    let reply = app.approve(&id, "alice").await;
    assert_eq!((reply.name().as_str(), app.count_accepts(&id)), ("accepted", 1));
}

#[tokio::test]
async fn zero_approval_rule_accepts_and_says_so() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-by-itself").await;
    app.discover().await;
    app.assert_accepts(&id, 1);
    app.follow().await;
    let card = app.only_card();
    assert!(
        card.text.contains("Rule: by itself") && card.text.contains("Approved by: the rule itself"),
        "{}",
        card.text
    );
    assert_eq!(card.thread_headlines()[0], format!("the rule itself approved VPC peering prod/{id}"));
    app.assert_state(&id, "activated").await;
}

#[tokio::test]
async fn zero_approval_rule_asks_people_when_a_check_is_unknown() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-by-itself").await;
    app.tamper(&id, Tampering { requester_cidrs: Some([].into()), ..Tampering::default() });
    app.discover().await;
    app.discover().await;
    app.assert_calls(ACCEPT, 0);
    app.assert_state(&id, "pending").await;
    let card = app.only_card();
    assert!(
        card.text.contains("⚠ unknown whether CIDR blocks overlap, because those of one side are missing"),
        "{}",
        card.text
    );
    assert!(card.text.contains("Still needed: 1 of alice, bob"), "{}", card.text);
    app.click_button(&card, "Approve", BOB).await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn zero_approval_rule_waits_for_a_passed_dry_run() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-by-itself").await;
    app.fail_next_dry_run("Throttling.User");
    app.discover().await;
    assert_eq!((app.count_accepts(&id), app.state_of(&id).await.as_str()), (0, "pending"));
    app.make_due(&id).await;
    app.round().await;
    // Asked again, it passed.
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn requesters_contact_never_counts() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    let card = app.only_card();
    app.click_button(&card, "Approve", ERIN).await;
    assert!(
        app.last_private_reply().contains("you are a contact of its requester, account 1111111111111111"),
        "{}",
        app.last_private_reply()
    );
    app.approve(&id, "erin").await.assert(403, "requesters-contact");
    app.click_button(&card, "Approve", ALICE).await;
    assert_eq!((app.approval(&id).await.approval_count(), app.count_accepts(&id)), (1, 0));
}

#[tokio::test]
async fn requesters_contact_may_reject() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    app.click_button(&app.only_card(), "Reject", ERIN).await;
    assert!(app.answer_modal("we asked by mistake", ERIN).await.starts_with("You rejected"));
    app.assert_state(&id, "rejected").await;
}

#[tokio::test]
async fn withdrawn_approval_does_not_count_until_reapproved() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.follow().await;
    let card = app.only_card();
    app.click_button(&card, "Withdraw my approval", BOB).await;
    assert!(app.last_private_reply().contains("You have no approval to withdraw"), "{}", app.last_private_reply());
    app.click_button(&card, "Withdraw my approval", ALICE).await;
    assert!(app.last_private_reply().contains("You withdrew your approval"), "{}", app.last_private_reply());
    app.click_button(&card, "Approve", BOB).await;
    // One of two.
    app.assert_accepts(&id, 0);
    // With her other identity, through a machine.
    assert_eq!(app.withdraw(&id, "alice").await.name(), "nothing-to-withdraw");
    let approve = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&approve).await.name(), "accepted");
    let late = app.withdraw(&id, "alice").await;
    assert_eq!((late.status, late.name().as_str(), app.count_accepts(&id)), (409, "already-decided", 1));
    app.follow().await;
    let thread = app.only_card().thread_headlines().join("\n");
    assert!(thread.contains("alice withdrew their approval"), "{thread}");
}

#[tokio::test]
async fn replayed_approval_does_not_undo_a_withdrawal() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-two-people").await;
    let approve = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&approve).await.name(), "counted");
    let withdraw = app.sign_event("withdraw", &id, "alice").await;
    assert_eq!(app.send(&withdraw).await.name(), "withdrawn");
    assert_eq!(app.send(&approve).await.name(), "repeated");
    assert_eq!(app.approval(&id).await.approval_count(), 0);
    assert_eq!(app.approve(&id, "alice").await.name(), "counted");
    assert_eq!(app.send(&withdraw).await.name(), "repeated");
    assert_eq!(app.approval(&id).await.approval_count(), 1);
}

#[tokio::test]
async fn rejection_asks_for_a_reason_and_shows_it_to_all() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    let card = app.only_card();
    app.click_button(&card, "Approve", ALICE).await;
    assert_eq!(app.click_button(&card, "Reject", BOB).await.body, "");
    // Nothing is decided while somebody thinks.
    app.assert_state(&id, "pending").await;
    let modal = app.slack.modals().pop().unwrap();
    assert_eq!((&modal["callback_id"], &modal["blocks"][1]["optional"]), (&json!("peergate.reject"), &json!(true)));
    let shown = app.answer_modal("not <!channel> ours", BOB).await;
    assert_eq!(shown, format!("You rejected prod/{id}"));
    app.assert_state(&id, "rejected").await;
    app.assert_accepts(&id, 0);
    app.follow().await;
    let card = app.only_card();
    assert!(card.text.starts_with(&format!("VPC peering prod/{id} was rejected\n")), "{}", card.text);
    assert!(card.text.contains("Rejected by: bob (slack:T0001/U0BOB)"), "{}", card.text);
    assert!(card.text.contains("Reason: bob: not <!channel> ours"), "{}", card.text);
    assert!(card.button_labels().is_empty());
    let reply = app.send_slack_payload(&app.submission_payload(&modal, "again", ALICE)).await;
    assert!(
        peergate::fake::slack::visible_text(&reply.body_json()["view"]).contains("already rejected by bob"),
        "{}",
        reply.body
    );
}

#[tokio::test]
async fn rule_may_require_a_reason_for_approvals() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-with-a-reason").await;
    app.approve(&id, "alice").await.assert(422, "reason-required");
    app.discover().await;
    let card = app.only_card();
    app.click_button(&card, "Approve", ALICE).await;
    assert_eq!((app.count_accepts(&id), app.slack.modals().len()), (0, 1));
    assert_eq!(app.slack.modals()[0]["blocks"][1]["optional"], false);
    let modal = app.slack.modals().pop().unwrap();
    let refused = app.send_slack_payload(&app.submission_payload(&modal, "  ", ALICE)).await;
    assert!(refused.body.contains("requires a reason"), "{}", refused.body);
    app.assert_accepts(&id, 0);
    assert!(app.answer_modal("ticket 42", ALICE).await.starts_with("You approved"));
    app.assert_accepts(&id, 1);
    let other = app.new_request_for("vpc-with-a-reason-2").await;
    let mut spec = app.event_spec("reject", &other, "bob");
    spec.reason = Some("no".into());
    assert_eq!(app.send_spec(&spec).await.name(), "rejected");
}

#[tokio::test]
async fn failed_modal_decides_nothing_and_says_so() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    app.discover().await;
    let body = r#"{"ok":false,"error":"expired_trigger_id"}"#.to_owned();
    app.slack.add_outage(Outage { path: "/api/views.open".into(), status: 200, body, ..Outage::default() });
    app.click_button(&app.only_card(), "Reject", BOB).await;
    assert!(
        app.last_private_reply().contains("could not ask you for a reason, so nothing was decided"),
        "{}",
        app.last_private_reply()
    );
    app.assert_state(&id, "pending").await;
}

#[tokio::test]
async fn click_without_a_bot_token_decides_at_once() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
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
    let id = app.new_request_for("vpc-other").await;
    app.discover().await;
    app.click_button(&app.only_card(), "Reject", BOB).await;
    let modal = app.slack.modals().pop().unwrap();
    let good = app.submission_payload(&modal, "no", BOB);
    let asked = app.count_upstream_calls();
    let cases: [(&str, Change, u16); 6] = [
        ("another app", |it| it["api_app_id"] = json!("A9"), 403),
        ("another modal", |it| it["view"]["callback_id"] = json!("explode"), 400),
        ("no modal", |it| it["view"] = json!(null), 400),
        ("another connection's odd id", |it| it["view"]["private_metadata"] = json!("prod/pcc-A#00"), 400),
        ("no metadata", |it| it["view"]["private_metadata"] = json!(""), 400),
        ("closed, not submitted", |it| it["type"] = json!("view_closed"), 400),
    ];
    for (name, change, status) in cases {
        let mut payload = good.clone();
        change(&mut payload);
        assert_eq!(app.send_slack_payload(&payload).await.status, status, "{name}");
    }
    app.assert_state(&id, "pending").await;
    assert_eq!(app.count_upstream_calls(), asked, "nothing is asked of Alibaba Cloud");
}

#[tokio::test]
async fn changed_facts_void_earlier_approvals() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    let old = app.only_card();
    app.click_button(&old, "Approve", ALICE).await;
    app.set_bandwidth(&id, 5);
    app.click_button(&old, "Approve", BOB).await;
    assert!(app.last_private_reply().contains("has changed since you saw it"), "{}", app.last_private_reply());
    // A machine that gives no fingerprint has not seen this either.
    app.follow().await;
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
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    app.approve(&id, "alice").await;
    app.set_bandwidth(&id, 5);
    // A command without a fingerprint is about the card that its sender saw.
    let reply = app.slash_command(&format!("approve {id}"), BOB).await;
    assert!(reply.body.contains("has changed since you saw it"), "{}", reply.body);
    app.set_bandwidth(&id, 6);
    assert_eq!(app.discover().await.discovered, 1);
    assert!(app.only_card().text.contains("⚠ Changed: bandwidth: 5 Mbit/s → 6 Mbit/s"), "{}", app.only_card().text);
    assert_eq!(app.approval(&id).await.approval_count(), 0);
}

/// The card is final, and says whether somebody outside peergate ended the request.
fn assert_ended(app: &TestApp, id: &InstanceId, headline: &str, by_somebody_outside: bool) {
    let card = app.card_of(id);
    let headline = format!("VPC peering prod/{id} {headline}\n");
    assert!(card.text.trim_start_matches("⚠ ").starts_with(&headline), "{}", card.text);
    assert_eq!(card.text.contains("somebody outside peergate"), by_somebody_outside, "{}", card.text);
    assert!(card.button_labels().is_empty(), "{:?}", card.button_labels());
}

/// A request whose status changes outside peergate before a round.
async fn ended_outside(app: &TestApp, status: &str) -> InstanceId {
    let id = app.discovered_request("vpc-other").await;
    app.set_status(&id, status);
    app.make_due(&id).await;
    app.round().await;
    id
}

#[tokio::test]
async fn card_shows_a_rejection_outside_peergate() {
    let app = TestApp::start().await;
    let id = ended_outside(&app, "Rejected").await;
    assert_ended(&app, &id, "was rejected", true);
}

#[tokio::test]
async fn card_shows_an_activation_outside_peergate() {
    let app = TestApp::start().await;
    let id = ended_outside(&app, "Activated").await;
    assert_ended(&app, &id, "is Activated, but was accepted outside peergate", true);
}

#[tokio::test]
async fn card_shows_an_expiry() {
    let app = TestApp::start().await;
    let id = ended_outside(&app, "Expired").await;
    assert_ended(&app, &id, "has expired", false);
}

#[tokio::test]
async fn card_shows_a_deletion_after_a_second_reading() {
    let app = TestApp::start().await;
    let id = ended_outside(&app, "Deleted").await;
    // One reading is no proof.
    app.assert_state(&id, "pending").await;
    app.read_doubtful_again(&id).await;
    assert_ended(&app, &id, "was deleted", false);
}

#[tokio::test]
async fn failed_accept_keeps_the_buttons_for_a_retry() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    app.discover().await;
    app.fail_next(ACCEPT, "OperationFailed.CdtNotOpened");
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.follow().await;
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
    assert_eq!((app.count_accepts(&id), app.approval(&id).await.generation()), (1, 2));
}

#[tokio::test]
async fn deleted_card_is_posted_again() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    app.discover().await;
    app.slack.delete_message("C0PEER", &app.only_card().ts);
    app.click_missing_button(&id, "peergate.approve", ALICE).await;
    app.follow().await;
    assert!(app.only_card().text.contains("is Activated"), "{}", app.only_card().text);
}

#[tokio::test]
async fn failed_thread_reply_makes_no_second_card() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    app.click_missing_button(&id, "peergate.approve", ALICE).await;
    // The card is posted, but not the first reply in its thread.
    app.slack.add_outage_after(1, Outage { path: SLACK_PATH.into(), status: 503, ..Outage::default() });
    app.round().await;
    app.slack.clear_outages();
    assert_eq!(app.only_card().replies.len(), 0);
    app.follow().await;
    let card = app.only_card();
    assert!(card.thread_headlines().len() >= 2 && card.text.contains("Activated"), "{card:?}");
}

#[tokio::test]
async fn details_button_shows_one_person_everything() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.click_button(&app.only_card(), "Details", BOB).await;
    let private_reply = app.last_private_reply();
    assert!(
        private_reply.starts_with(&format!("VPC peering prod/{id} has the status Accepting at Alibaba Cloud\n")),
        "{private_reply}"
    );
    for part in ["✓ it has not expired", "discovered; the rule “two people” requires 2 approvals", "approved by alice"]
    {
        assert!(private_reply.contains(part), "{part}: {private_reply}");
    }
}

#[tokio::test]
async fn list_shows_only_open_requests_to_slack_and_machines() {
    let app = TestApp::start().await;
    let empty = app.slash_command("list", BOB).await;
    assert!(empty.body.contains("No VPC peering is pending or in progress"), "{}", empty.body);
    let one = app.new_request_for("vpc-two-people").await;
    let two = app.new_request_for("vpc-other").await;
    let done = app.new_request_for("vpc-done").await;
    app.discover().await;
    app.approve(&one, "alice").await;
    app.reject(&done, "alice").await;
    let list = app.send(&app.sign_body(r#"{"type":"peering.list","data":{"actor":"anybody"}}"#)).await;
    list.assert(200, "list");
    let json = list.body_json();
    let ids: Vec<_> = json["approvals"].as_array().unwrap().iter().map(|one| one["instance_id"].clone()).collect();
    assert!(ids.len() == 2 && ids.contains(&json!(one)) && ids.contains(&json!(two)), "{ids:?}");
    let slash = app.slash_command("list on prod", BOB).await;
    let text = peergate::fake::slack::visible_text(&slash.body_json());
    assert!(text.starts_with("2 VPC peerings are pending or in progress"), "{text}");
    assert!(text.contains(&format!("prod/{one}: pending, 1 of 2 approvals; since ")), "{text}");
    let wrong = app.slash_command("list on dev", BOB).await;
    assert!(wrong.body.contains("Name one of these targets: prod"), "{}", wrong.body);
}

#[tokio::test]
async fn status_shows_given_approvals() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    app.approve(&id, "alice").await;
    let status = app.status(&id, "anybody").await.body_json();
    assert_eq!(
        (&status["approval"]["approvals"]["given"], &status["approval"]["state"]),
        (&json!(1), &json!("pending"))
    );
}

#[tokio::test]
async fn malformed_list_command_reaches_no_api() {
    let app = TestApp::start().await;
    for body in [
        r#"{"type":"peering.list","data":{"actor":"a","instance_id":"pcc-a"}}"#,
        r#"{"type":"peering.list","data":{"actor":"a","dry_run":true}}"#,
        r#"{"type":"peering.inventory","data":{"actor":"a","instance_id":"pcc-a"}}"#,
        r#"{"type":"peering.inventory","data":{"actor":"a","dry_run":true}}"#,
        r#"{"type":"peering.withdraw","data":{"actor":"a"}}"#,
    ] {
        assert_eq!(app.send(&app.sign_body(body)).await.name(), "malformed", "{body}");
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn overruled_approver_is_told_who_rejected() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-two-people").await;
    let approve = app.sign_event("approve", &id, "alice").await;
    assert_eq!(app.send(&approve).await.name(), "counted");
    assert_eq!(app.reject(&id, "bob").await.name(), "rejected");
    for again in [approve, app.sign_event("approve", &id, "alice").await] {
        let reply = app.send(&again).await;
        // It must not look like success.
        reply.assert(409, "already-decided");
        assert!(reply.problem_detail().contains("already rejected by bob"), "{}", reply.problem_detail());
    }
    app.assert_accepts(&id, 0);
}

#[tokio::test]
async fn request_presumed_deleted_can_be_decided_after_a_change() {
    let app = TestApp::start().await;
    let app = app.with_change(r#"regions = ["cn-shanghai"]"#, "regions = []");
    let id = app.new_request_for("vpc-two-people").await;
    app.approve(&id, "alice").await;
    app.fail_times(2, GET, "ResourceNotFound.InstanceId");
    app.make_due(&id).await;
    app.round().await;
    app.read_doubtful_again(&id).await;
    app.assert_state(&id, "deleted").await;
    let seen = app.sign_event("approve", &id, "bob").await;
    app.set_bandwidth(&id, 5);
    assert_eq!(app.send(&seen).await.name(), "connection-changed");
    app.follow().await;
    assert_eq!(app.approve(&id, "bob").await.name(), "counted");
    assert_eq!(app.approve(&id, "carol").await.name(), "accepted");
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
        let names: Vec<_> = replies.iter().map(crate::support::WebhookReply::name).collect();
        let approval = app.approval(&id).await;
        assert_eq!((approval.approval_count(), app.count_calls_for(ACCEPT, &id)), (2, 1), "{names:?}");
        assert_eq!(names.iter().filter(|name| *name == "counted").count(), 1, "{names:?}");
    }
}

#[tokio::test]
async fn request_presumed_deleted_is_pending_once_it_reappears() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    // For a while the stored key is that of another account.
    app.fail_times(2, GET, "ResourceNotFound.InstanceId");
    app.make_due(&id).await;
    app.round().await;
    app.read_doubtful_again(&id).await;
    app.assert_state(&id, "deleted").await;
    app.discover().await;
    let approval = app.approval(&id).await;
    assert_eq!(
        (approval.state().name(), approval.generation(), approval.approval_count()),
        ("pending", 1, 1),
        "Alice still counts"
    );
    let labels = ["Approve", "Reject", "Withdraw my approval", "Details"];
    assert_eq!(app.only_card().button_labels(), labels, "{}", app.only_card().text);
    let thread_reply = app.thread_replies().pop().unwrap();
    assert!(
        thread_reply.contains("Correction: ")
            && thread_reply.contains("was reported as deleted, but it is still pending"),
        "{thread_reply}"
    );
}

#[tokio::test]
async fn decision_without_a_fingerprint_needs_a_current_card() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    app.discover().await;
    for path in [SLACK_PATH, "/api/chat.update", WEBHOOK_PATH, AUDIT_PATH] {
        app.slack.add_outage(Outage { path: path.into(), status: 503, ..Outage::default() });
    }
    app.set_bandwidth(&id, 5);
    app.discover().await;
    let reply = app.slash_command(&format!("approve {id}"), ALICE).await;
    assert!(reply.body.contains("has changed since you saw it"), "{}", reply.body);
    let blind = app.sign_spec(&app.blind_spec("approve", &id, "bob")).await;
    assert_eq!(app.send(&blind).await.name(), "connection-changed");
    app.slack.clear_outages();
    app.follow().await;
    assert_eq!(app.send(&blind).await.name(), "connection-changed", "a refused request stays refused");
    let reply = app.slash_command(&format!("approve {id}"), ALICE).await;
    assert!(reply.body.contains("You approved") && app.count_accepts(&id) == 1, "{}", reply.body);
}

#[tokio::test]
async fn change_can_be_approved_before_the_card_shows_it() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    app.discover().await;
    app.set_bandwidth(&id, 5);
    app.click_missing_button(&id, "peergate.approve", ALICE).await;
    assert_eq!(app.count_accepts(&id), 1, "{}", app.last_private_reply());
    app.follow().await;
    assert!(app.only_card().thread_headlines()[0].contains("has changed"), "{:?}", app.only_card().thread_headlines());
}

#[tokio::test]
async fn channel_dropped_from_the_rule_still_hears_the_end() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    let app = app.with_change(r#"channels = ["netops", "hook", "audit"]"#, r#"channels = ["oncall"]"#);
    app.discover().await;
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.click_button(&app.card_in("C0CALL"), "Approve", BOB).await;
    app.follow().await;
    for channel in ["C0PEER", "C0CALL"] {
        let card = app.card_in(channel);
        assert!(card.text.contains("is Activated") && card.button_labels().is_empty(), "{channel}: {}", card.text);
    }
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn moved_channel_gets_a_new_card() {
    let app = TestApp::start().await;
    app.new_request_for("vpc-other").await;
    app.discover().await;
    let app = app.with_change(r#"channel = "C0PEER""#, r#"channel = "C0NEW""#);
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.follow().await;
    assert!(app.card_in("C0NEW").text.contains("is Activated"));
}

#[tokio::test]
async fn stuck_approval_is_reported() {
    let app = TestApp::start().await;
    let app = app.with_change("[requests]", "[requests]\nstuck_after = \"1m\"");
    let id = app.new_request_for("vpc-other").await;
    app.discover().await;
    app.simulator.add_fault(Fault { times: 9, ..failure(ACCEPT, "Forbidden.RAM") });
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    let stored = app.load_record(&id).await.unwrap();
    let long_ago = |approval: &mut peergate::approval::Approval| {
        let ago = peergate::clock::now() - jiff::SignedDuration::from_mins(5);
        let early = approval.since() > ago;
        *approval = edited(approval, |record| {
            record["since"] = json!(ago);
            record["next_step_at"] = json!(ago);
        });
        early
    };
    app.parts.store.update(stored, long_ago).await.unwrap();
    let counted = MetricsRecorder::start();
    app.round().await;
    app.round().await;
    assert_eq!(counted.take_counts()[peergate::metrics::STUCK_APPROVALS], [1.0]);
    let thread_reply = app.thread_replies().pop().unwrap();
    assert!(thread_reply.contains("was approved 5 min 0 s ago, but peergate cannot accept it yet"), "{thread_reply}");
    assert!(
        thread_reply.contains("Error code: Forbidden.RAM") && thread_reply.contains("Grant the target's RAM user"),
        "{thread_reply}"
    );
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
    app.assert_calls(ACCEPT, 0);
    app.approve(&ids[0], "alice").await;
    assert_eq!(app.count_accepts(&ids[0]), 1);
    assert_eq!(app.state_of(&ids[1]).await, "pending");
}

#[tokio::test]
async fn fixed_check_is_redrawn_without_a_notification() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    app.fail_next_dry_run("Throttling.User");
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
    let id = app.new_request_for("vpc-other").await;
    app.click_missing_button(&id, "peergate.approve", ALICE).await;
    app.tamper(&id, Tampering { bandwidth: Some(5), ..becomes("Activated") });
    app.round().await;
    let thread = app.only_card().thread_headlines().join("\n");
    assert!(thread.contains("was activated with facts that nobody approved"), "{thread}");
    app.assert_state(&id, "activated").await;
}

#[tokio::test]
async fn refused_message_is_abandoned_after_a_few_tries() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-other").await;
    app.discover().await;
    app.slack.add_outage(Outage { path: AUDIT_PATH.into(), status: 422, ..Outage::default() });
    app.approve(&id, "alice").await;
    let number = app.approval(&id).await.outbox()[1].number;
    let delivery = async || app.approval(&id).await.outbox()[1].deliveries["audit"].clone();
    for _ in 0..4 {
        let stored = app.load_record(&id).await.unwrap();
        let refused = peergate::approval::Event::Undelivered {
            number,
            channel: "audit".into(),
            failed: peergate::approval::FailedPost {
                error: "HTTP 422".into(),
                retry: peergate::approval::RetryPolicy::FewTimes,
                may_be_posted: false,
            },
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

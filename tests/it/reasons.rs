//! Reasons: who is asked for one, which ones are refused, and that nobody alters them.

use crate::support::prelude::*;
use peergate::chat::message;
use peergate::fake::slack::{SlackCard, visible_text};

/// A reason of so many characters that ends with a word.
fn long_reason(chars: usize, end: &str) -> String {
    format!("{}{end}", "理由 ".repeat(chars).chars().take(chars - end.chars().count()).collect::<String>())
}

/// Clicks, and returns the private answer. Nobody was asked for a reason.
async fn refused_at_once(app: &TestApp, card: &SlackCard, label: &str, user: &str) -> String {
    let (asked, answered) = (app.slack.modals().len(), app.slack.posts(RESPONSE_PATH).len());
    let calls = app.count_upstream_calls();
    assert_eq!(app.click_button(card, label, user).await.body, "");
    assert_eq!(app.slack.modals().len(), asked, "a modal was opened");
    assert_eq!(app.slack.posts("/api/views.open").len(), asked);
    assert_eq!(app.slack.posts(RESPONSE_PATH).len(), answered + 1);
    assert_eq!(app.count_upstream_calls(), calls, "the record knows enough");
    app.last_private_reply()
}

#[tokio::test]
async fn person_who_may_not_decide_is_refused_before_the_question() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-with-a-reason").await;
    let card = app.only_card();
    for label in ["Approve", "Reject"] {
        let told = refused_at_once(&app, &card, label, "U0STRANGER").await;
        assert!(told.contains("you are not an approver of its rule “with a reason”"), "{label}: {told}");
        let told = refused_at_once(&app, &card, label, CAROL).await;
        assert!(told.contains("you are not an approver"), "{label}: {told}");
    }
    let told = refused_at_once(&app, &card, "Approve", ERIN).await;
    assert!(told.contains("you are not an approver"), "a contact outside the rule: {told}");
    app.assert_state(&id, "pending").await;
    app.click_button(&card, "Reject", ERIN).await;
    assert_eq!(app.slack.modals().len(), 1, "a contact may reject");
    app.click_button(&card, "Approve", ALICE).await;
    assert_eq!(app.slack.modals().len(), 2);
}

#[tokio::test]
async fn contact_who_may_not_approve_is_refused_before_the_question() {
    let app = TestApp::start().await;
    let app = app.with_change("approvals = 2\napprovers", "require_reason = true\napprovals = 2\napprovers");
    app.discovered_request("vpc-two-people").await;
    let told = refused_at_once(&app, &app.only_card(), "Approve", ERIN).await;
    assert!(told.contains("you are a contact of its requester, account 1111111111111111"), "{told}");
}

#[tokio::test]
async fn decision_without_a_rule_is_refused_before_the_question() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    let card = app.only_card();
    // The rules change after the card was posted.
    let app = app.with_change(
        "name = \"data team\"\ntarget = \"prod\"\nrequester_accounts = [\"1111111111111111\"]",
        "name = \"data team\"\ntarget = \"prod\"\nrequester_accounts = [\"4444444444444444\"]",
    );
    let told = refused_at_once(&app, &card, "Reject", ALICE).await;
    assert!(told.contains("No rule covers this VPC peering"), "{told}");
    app.assert_state(&id, "pending").await;
}

#[tokio::test]
async fn decision_that_is_too_late_is_refused_before_the_question() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-with-a-reason").await;
    let card = app.only_card();
    app.slash_command(&format!("approve {id} because so"), ALICE).await;
    let told = refused_at_once(&app, &card, "Reject", BOB).await;
    assert!(told.contains("was already approved by alice"), "{told}");
}

#[tokio::test]
async fn copied_card_is_refused_before_the_question() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    let card = app.only_card();
    let mut click = app.click_payload("peergate.reject", &card.find_button("Reject").unwrap().value, ALICE);
    click["container"]["message_ts"] = json!("1700000000.999999");
    app.send_slack_payload(&click).await;
    assert_eq!(app.slack.modals().len(), 0);
    assert!(app.last_private_reply().contains("This button is no longer valid"), "{}", app.last_private_reply());
    app.assert_state(&id, "pending").await;
}

#[tokio::test]
async fn request_without_a_record_is_read_before_the_question() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-with-a-reason").await;
    app.click_missing_button(&id, "peergate.reject", "U0STRANGER").await;
    assert_eq!(app.slack.modals().len(), 0);
    assert!(app.last_private_reply().contains("you are not an approver"), "{}", app.last_private_reply());
    app.click_missing_button(&id, "peergate.reject", ALICE).await;
    assert_eq!(app.slack.modals().len(), 1);
    app.assert_state(&id, "none").await;
}

#[tokio::test]
async fn nobody_is_asked_while_the_table_is_down() {
    let (app, table) = TableProxy::start(quick_settings()).await;
    app.discovered_request("vpc-other").await;
    let card = app.only_card();
    table.refuse_operation("GetItem");
    app.click_button(&card, "Reject", ALICE).await;
    assert_eq!(app.slack.modals().len(), 0);
    assert!(app.last_private_reply().contains("peergate cannot reach its database"), "{}", app.last_private_reply());
}

/// What the modal shows at its field for the reason.
async fn field_error(app: &TestApp, reason: &str, user: &str) -> String {
    let modal = app.slack.modals().pop().unwrap();
    let reply = app.send_slack_payload(&app.submission_payload(&modal, reason, user)).await;
    let body = reply.body_json();
    assert_eq!((reply.status, &body["response_action"]), (200, &json!("errors")), "{}", reply.body);
    let errors = body["errors"].as_object().unwrap();
    assert_eq!(errors.len(), 1);
    // Slack shows an error only at an input block with this id.
    let (block, error) = errors.iter().next().unwrap();
    let blocks = modal["blocks"].as_array().unwrap();
    assert!(blocks.iter().any(|input| input["type"] == "input" && input["block_id"] == **block), "{modal}");
    error.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn missing_or_long_reason_is_an_error_at_its_field() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-with-a-reason").await;
    for label in ["Approve", "Reject"] {
        app.click_button(&app.only_card(), label, ALICE).await;
        for blank in ["", "  ", "\n\t\r\n", "\u{a0}\u{3000}", "\u{200b}\u{feff}", "\u{3164}\u{2800}", "\u{202e}"] {
            let error = field_error(&app, blank, ALICE).await;
            assert_eq!(
                error, "The rule “with a reason” requires a reason, so nothing was decided",
                "{label} {blank:?}"
            );
        }
        let error = field_error(&app, &"x".repeat(401), ALICE).await;
        assert_eq!(error, "Your reason has 401 characters, and peergate takes at most 400", "{label}");
    }
    assert_eq!((app.count_calls(ACCEPT), app.count_calls(REJECT)), (0, 0));
    app.assert_state(&id, "pending").await;
    assert!(app.answer_modal(&format!("\n{} ", "x".repeat(400)), ALICE).await.starts_with("You rejected"));
}

#[tokio::test]
async fn modal_limits_the_reason_while_it_is_typed() {
    let app = TestApp::start().await;
    app.discovered_request("vpc-with-a-reason").await;
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    let modal = app.slack.modals().pop().unwrap();
    assert_eq!(modal["blocks"][1]["element"]["max_length"], 400);
}

#[tokio::test]
async fn long_reason_decides_nothing_anywhere() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    let calls = app.count_upstream_calls();
    for verb in ["approve", "reject", "withdraw", "status", "dry-run"] {
        let mut spec = app.event_spec(verb, &id, "alice");
        spec.reason = Some(long_reason(401, "end"));
        let reply = app.send_spec(&spec).await;
        reply.assert(422, "reason-too-long");
        assert!(reply.problem_detail().contains("401 characters"), "{}", reply.problem_detail());
    }
    for verb in ["approve", "Reject"] {
        let reply = app.slash_command(&format!("{verb} {id} because {}", long_reason(401, "end")), ALICE).await;
        let told = visible_text(&reply.body_json());
        assert!(told.starts_with("Your reason has 401 characters") && told.contains("Nothing was decided."), "{told}");
    }
    assert_eq!(app.count_upstream_calls(), calls);
    let approval = app.approval(&id).await;
    assert_eq!((approval.state().name(), approval.decisions().len()), ("pending", 0));
}

#[tokio::test]
async fn reason_is_stored_as_it_was_written() {
    let app = TestApp::start().await;
    for reason in [
        long_reason(400, " the end"),
        "👩‍💻".repeat(133),
        "first line\nsecond line\r\n\tindented  twice".to_owned(),
        "\u{202e}desrever\u{202c} *bold* <!channel> &amp; \"quoted\" \\ \u{0}\u{1b}[31m".to_owned(),
        "zero\u{200b}width".to_owned(),
    ] {
        let id = app.new_request().await;
        let mut spec = app.event_spec("reject", &id, "alice");
        spec.reason = Some(format!(" \n{reason}\t "));
        app.send_spec(&spec).await.assert(200, "rejected");
        assert_eq!(app.approval(&id).await.winner().unwrap().reason.as_ref(), Some(&reason));
        let status = app.status(&id, "bob").await.body_json();
        assert_eq!(status["approval"]["decision"]["reason"], json!(reason));
    }
}

#[tokio::test]
async fn whole_reason_can_be_read_wherever_people_read() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    let reasons = [long_reason(400, " ends here"), long_reason(400, " ends there")];
    for (actor, reason) in ["alice", "bob"].into_iter().zip(&reasons) {
        let mut spec = app.event_spec("approve", &id, actor);
        spec.reason = Some(reason.clone());
        app.send_spec(&spec).await;
    }
    app.follow().await;
    let card = app.only_card();
    let thread: Vec<_> = card.replies.iter().map(|reply| reply.text.as_str()).collect();
    let details = visible_text(&app.slash_command(&format!("status {id}"), BOB).await.body_json());
    let shown = message::record_with_history(&app.approval(&id).await, clock::now());
    let shown = [shown.facts.into_iter().map(|fact| fact.value).collect(), shown.sentences].concat().join("\n");
    for reason in &reasons {
        assert!(card.text.contains(reason), "{}", card.text);
        assert!(thread.iter().any(|text| text.contains(reason)), "{thread:?}");
        assert!(details.contains(reason), "{details}");
        assert!(shown.contains(reason), "{shown}");
    }
}

#[tokio::test]
async fn line_break_in_a_reason_makes_no_other_fact() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    let mut spec = app.event_spec("approve", &id, "alice");
    spec.reason = Some("fine\nStill needed: nobody\u{2028}Rule: none".into());
    app.send_spec(&spec).await.assert(200, "counted");
    app.follow().await;
    let card = app.only_card().text;
    assert!(card.contains("\nReason: fine Still needed: nobody Rule: none\n"), "{card}");
}

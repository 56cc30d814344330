//! Who is mentioned, and by which name people appear.

use crate::support::prelude::*;
use peergate::fake::slack::mentioned_users;

/// The mentions of each post to Slack so far.
fn mentions_in_posts(app: &TestApp) -> Vec<Vec<String>> {
    app.slack.posts(SLACK_PATH).iter().map(|post| mentioned_users(&post.body_json())).collect()
}

#[tokio::test]
async fn card_and_reminder_mention_who_is_needed() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    // Erin is a contact of the requester, and never counts.
    assert_eq!(mentions_in_posts(&app), [["U061F7AUR", "U0BOB", "U0CAROL"]]);
    app.approve(&id, "alice").await;
    app.follow().await;
    clock::jump::advance_in_thread(SignedDuration::from_hours(5));
    app.discover().await;
    let posts = mentions_in_posts(&app);
    assert_eq!(posts[1], Vec::<String>::new(), "the news of an approval asks nobody");
    assert_eq!(posts.last().unwrap(), &["U0BOB", "U0CAROL"], "the reminder: {posts:?}");
    app.approve(&id, "bob").await;
    app.follow().await;
    let cards = app.slack.posts("/api/chat.update");
    assert_eq!(mentioned_users(&cards.last().unwrap().body_json()), Vec::<String>::new(), "nobody is needed any more");
}

#[tokio::test]
async fn rule_can_turn_mentions_off() {
    let app = TestApp::start().await.with_change("approvals = 2\n", "approvals = 2\nmention = false\n");
    app.discovered_request("vpc-two-people").await;
    assert_eq!(mentions_in_posts(&app), [Vec::<String>::new()]);
}

#[tokio::test]
async fn nobody_is_mentioned_among_too_many() {
    let people = |count: u32| -> String {
        (0..count).map(|number| format!("\"slack:T0001/U0X{number}\"")).collect::<Vec<_>>().join(", ")
    };
    for (count, mentions) in [(20, 20), (21, 0)] {
        let app = TestApp::start().await;
        let approvers = format!("approvers = [{}]\nrequire_reason = true", people(count));
        let app = app.with_change("approvers = [\"group:netops\"]\nrequire_reason = true", &approvers);
        app.discovered_request("vpc-with-a-reason").await;
        assert_eq!(mentions_in_posts(&app)[0].len(), mentions, "{count}");
    }
}

#[tokio::test]
async fn message_is_posted_although_a_mention_is_refused() {
    let app = TestApp::start().await;
    app.slack.delete_user("U0BOB");
    app.discovered_request("vpc-with-a-reason").await;
    let posts = mentions_in_posts(&app);
    assert_eq!(posts, [Vec::<String>::new()], "acknowledged posts");
    assert_eq!(app.only_card().button_labels(), ["Approve", "Reject", "Details"]);
}

#[tokio::test]
async fn people_appear_by_display_name_beside_their_identity() {
    let app = TestApp::start().await;
    let app = app.with_change("[people.alice]\n", "[people.alice]\nname = \"Alice Wong\"\n");
    let id = app.discovered_request("vpc-two-people").await;
    let card = app.card_in(CHANNEL).text;
    assert!(card.contains("Alice Wong") && card.contains("Still needed: 2 of Alice Wong, bob, carol"), "{card}");
    app.approve(&id, "alice").await;
    app.follow().await;
    let card = app.card_in(CHANNEL).text;
    assert!(card.contains("Approved by: Alice Wong (alice, webhook:ci/alice)"), "{card}");
    assert!(card.contains("Still needed: 1 of bob, carol"), "{card}");
    assert!(app.thread_replies()[0].starts_with("Alice Wong approved VPC peering"), "{:?}", app.thread_replies());
}

//! What people write to the robot: questions are answered in private, and nothing is decided.

use super::*;

#[tokio::test]
async fn questions_by_mention_are_answered_in_private() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let reply = world.write_in_group("list", ALICE).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
    assert!(world.fake.texts_to(ALICE).pop().unwrap().text.contains(id.as_str()));
    world.write_in_group("make it so", ALICE).await;
    let told = world.fake.texts_to(ALICE).pop().unwrap().text;
    assert!(told.contains("“make” is not a command") && told.contains("Nothing was decided."), "{told}");
    world.write_in_group("help", ALICE).await;
    let told = world.fake.texts_to(ALICE).pop().unwrap().text;
    assert!(told.contains("understands these commands") && told.contains("To decide, use the buttons"), "{told}");
    assert!(!told.contains("/peergate approve"), "{told}");
    world.write_in_group(&format!("status {id}"), ALICE).await;
    let card = world.fake.cards_to(ALICE).pop().unwrap();
    assert!(card.text.contains("has the status Accepting"), "{}", card.text);
    assert!(world.fake.texts_to(CONVERSATION_ID).is_empty() && world.cards().len() == 1, "nothing of it in the group");
}

#[tokio::test]
async fn decision_in_words_gets_buttons_for_its_sender() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    for words in ["approve", "reject", "withdraw"] {
        world.write_in_group(&format!("{words} {id}"), ALICE).await;
    }
    world.write_in_group(&format!("approve {id} because so"), ALICE).await;
    world.assert_undecided(&id).await;
    assert!(world.fake.texts_to(ALICE).is_empty());
    let cards = world.fake.cards_to(ALICE);
    assert_eq!(cards.len(), 4);
    assert!(
        cards.iter().all(|card| card.text.contains("Nothing was decided: here, only buttons decide.")),
        "{cards:?}"
    );
    let card = cards[3].out_track_id.clone();
    let by_bob = world.fake.click_button(&card, "Approve", &world.person(BOB), None).unwrap();
    let reply = world.send(&by_bob).await;
    assert!(reply.body.contains("is no longer valid"), "{}", reply.body);
    world.assert_undecided(&id).await;
    let by_alice = world.fake.click_button(&card, "Approve", &world.person(ALICE), None).unwrap();
    let reply = world.send(&by_alice).await;
    assert!(reply.body.contains(&format!("You approved prod/{id}")), "{}", reply.body);
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn private_chat_is_answered_through_its_session() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let session = format!("session-{ALICE}");
    let calls = world.fake.calls().len();
    let list = world.fake.write_in_private(&world.url, "list", &world.person(ALICE));
    world.write(&list).await;
    let told = world.fake.texts_to(&session).pop().unwrap().text;
    assert!(told.contains(id.as_str()), "{told}");
    assert_eq!(world.fake.calls().len(), calls + 1, "without the app's API");
    let status = world.fake.write_in_private(&world.url, &format!("status {id}"), &world.person(ALICE));
    world.write(&status).await;
    assert_eq!(world.fake.cards_to(ALICE).len(), 1, "buttons need a card");
    world.fail("/robot/sendBySession", Some("300001"), 200);
    let help = world.fake.write_in_private(&world.url, "help", &world.person(ALICE));
    world.write(&help).await;
    assert!(world.fake.texts_to(ALICE).pop().unwrap().text.contains("understands these commands"));
}

#[tokio::test]
async fn answer_that_cannot_be_sent_is_logged_without_secrets() {
    let world = World::start().await;
    world.request("vpc-other").await;
    world.fail("/v1.0/robot/oToMessages", Some("Forbidden.AccessDenied.AccessTokenPermissionDenied"), 403);
    let reply = world.write_in_group("list", ALICE).await;
    assert_eq!(reply.status, 200);
    let logged = crate::support::logged();
    let line = logged.lines().find(|line| line.contains("could not send a private answer")).unwrap();
    assert!(line.contains("the app lacks a permission") && line.contains("unanswered_click"), "{line}");
    world.fake.clear_faults();
    world.fake.remove_person(ALICE);
    // She has left since her message.
    let signed = world.fake.write_in_group(CONVERSATION_ID, "list", &world.person(ALICE));
    let signed = changed(&signed, |body| body["senderStaffId"] = ALICE.into());
    world.write(&signed).await;
    assert!(crate::support::logged().contains("the person cannot get messages of the robot"));
}

#[tokio::test]
async fn failed_dingtalk_answer_is_sent_once_more() {
    let world = World::start().await;
    let path = "/v1.0/robot/oToMessages";
    world.fake.add_fault(DingTalkFault {
        path: path.into(),
        status: 503,
        retry_after: Some(1),
        ..DingTalkFault::default()
    });
    let message = world.fake.write_in_group(CONVERSATION_ID, "help", &world.person(ALICE));
    let (reply, ()) = tokio::join!(world.write(&message), async {
        while !world.fake.calls().iter().any(|call| call.path.starts_with(path)) {
            tokio::task::yield_now().await;
        }
        world.fake.clear_faults();
    });
    assert_eq!(reply.status, 200);
    assert_eq!(world.fake.texts_to(ALICE).len(), 1);
}

#[tokio::test]
async fn one_person_cannot_use_up_the_calls_of_the_organization() {
    let world = World::start().await;
    for _ in 0..25 {
        let reply = world.write_in_group("help", STRANGER).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
    }
    assert_eq!(world.fake.texts_to(STRANGER).len(), 20);
    assert_eq!(crate::support::logged().matches("outcome=\"too_many_questions\"").count(), 5);
    // DingTalk takes 20 calls a second.
    world.fake.move_clock(jiff::SignedDuration::from_secs(1));
    world.write_in_group("help", ALICE).await;
    assert_eq!(world.fake.texts_to(ALICE).len(), 1, "others are still answered");
}

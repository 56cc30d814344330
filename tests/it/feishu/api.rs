//! What we say, and what the fake makes of it.

use super::*;

#[tokio::test]
async fn cards_are_posted_redrawn_and_answered_below() {
    let world = World::start().await;
    let posted = world.api().post(Receiver::Chat(CHAT), &card("waits"), "one").await.unwrap();
    assert!(posted.created_at.is_some());
    let id = posted.message_id;
    assert_eq!(world.api().update(&id, &card("is Activated")).await, Ok(CardUpdate::Redrawn));
    world.api().reply_below(&id, &feishu::render_card(&message("approved", &[])), "two").await.unwrap();
    let shown = world.fake.messages_in(CHAT);
    assert_eq!((shown.len(), shown[0].edits, shown[0].template.as_str()), (1, 1, "orange"));
    assert_eq!(shown[0].text, "is Activated\nName: <at id=all></at> **db**");
    assert_eq!(shown[0].button_labels(), ["Approve", "Details", "Reject"]);
    assert_eq!(shown[0].find_button("Reject").unwrap().value, json!({"b": "reject-binding"}));
    assert_eq!((shown[0].inputs.len(), shown[0].inputs[0].max_length), (1, 400));
    assert_eq!(shown[0].thread_headlines(), ["approved"]);
    assert!(shown[0].replies[0].in_thread);
    world.api().post(Receiver::Person(ALICE), &card("private"), "three").await.unwrap();
    assert_eq!((world.fake.messages_to(ALICE).len(), world.fake.messages_in(CHAT).len()), (1, 1));
}

#[tokio::test]
async fn group_without_threads_gets_plain_replies() {
    let world = World::start().await;
    let id = world.post("one").await.unwrap();
    world.fake.set_chat_fault(CHAT, Some(ChatFault::WithoutThreads));
    world.api().reply_below(&id, &card("below"), "two").await.unwrap();
    let shown = world.fake.messages_in(CHAT);
    assert_eq!(shown[0].thread_headlines(), ["below"]);
    assert!(!shown[0].replies[0].in_thread);
}

#[tokio::test]
async fn uuid_is_posted_once_an_hour() {
    let world = World::start().await;
    let first = world.post("same").await.unwrap();
    assert_eq!(world.post("same").await, Ok(first.clone()));
    assert_ne!(world.post("other").await, Ok(first.clone()));
    world.fake.move_clock(SignedDuration::from_mins(61));
    assert_ne!(world.post("same").await, Ok(first));
    for uuid in ["", &"x".repeat(51)] {
        assert_eq!(undelivered(world.post(uuid).await.unwrap_err()).retry, RetryPolicy::AfterFix);
    }
}

#[tokio::test]
async fn message_can_be_updated_for_14_days() {
    let world = World::start().await;
    let id = world.post("one").await.unwrap();
    world.fake.move_clock(SignedDuration::from_hours(14 * 24) - SignedDuration::from_mins(1));
    let token = world.fetch().await.unwrap().token;
    let api = FeishuApi { token: &token, ..world.api() };
    assert_eq!(api.update(&id, &card("x")).await, Ok(CardUpdate::Redrawn));
    world.fake.move_clock(SignedDuration::from_mins(1));
    assert_eq!(api.update(&id, &card("x")).await, Ok(CardUpdate::TooOld));
}

#[tokio::test]
async fn recalled_or_deleted_message_is_gone() {
    let world = World::start().await;
    for (uuid, end) in
        [("one", FakeFeishu::recall_message as fn(&FakeFeishu, &str)), ("two", FakeFeishu::delete_message)]
    {
        let id = world.post(uuid).await.unwrap();
        end(&world.fake, &id);
        assert_eq!(world.api().update(&id, &card("x")).await, Ok(CardUpdate::Gone));
        let reply = world.api().reply_below(&id, &card("x"), &format!("reply-{uuid}")).await;
        assert!(matches!(reply, Err(CallError::MessageGone(_))));
    }
}

#[tokio::test]
async fn token_lasts_two_hours() {
    let world = World::start().await;
    let first = world.fetch().await.unwrap();
    assert_eq!(first.token, world.token);
    assert!(first.valid_for <= SignedDuration::from_hours(2) && first.valid_for > SignedDuration::from_mins(119));
    world.fake.move_clock(SignedDuration::from_mins(91));
    let second = world.fetch().await.unwrap();
    assert_ne!(second.token, first.token);
    assert!(world.post("one").await.is_ok(), "both are valid");
    world.fake.move_clock(SignedDuration::from_mins(30));
    assert!(matches!(world.post("two").await, Err(CallError::TokenRefused(_))));
}

#[tokio::test]
async fn every_token_refusal_asks_for_another_token() {
    let world = World::start().await;
    for code in [99_991_661, 99_991_663, 99_991_664, 99_991_665, 99_991_666, 99_991_668] {
        world.fail(code, 400);
        let failure = world.post("three").await.unwrap_err();
        assert!(matches!(failure, CallError::TokenRefused(_)), "{code}");
        assert_eq!(failure.into_delivery_error().retry, RetryPolicy::AfterFix);
    }
}

#[tokio::test]
async fn wrong_app_secret_is_reported() {
    let world = World::start().await;
    let wrong = AppSecret::try_from("wrongAppSecret0123456789".to_owned()).unwrap();
    let refused = fetch_token(&world.http, &world.url, "cli_a6ee8fbe9ffe6d3d", &wrong).await.unwrap_err();
    assert_eq!(
        (refused.error.as_str(), refused.retry),
        ("10014: the app's secret is not valid: app secret invalid", RetryPolicy::AfterFix)
    );
}

#[tokio::test]
async fn each_refusal_says_when_to_retry() {
    let world = World::start().await;
    let soon = RetryPolicy::Backoff(None);
    let cases = [
        (230_020, 400, soon),
        (230_049, 400, soon),
        (11_020, 400, soon),
        (11_021, 400, soon),
        (99_991_400, 429, soon),
        (99_991_402, 400, soon),
        (230_001, 400, RetryPolicy::FewTimes),
        (230_022, 400, RetryPolicy::FewTimes),
        (230_025, 400, RetryPolicy::FewTimes),
        (230_028, 400, RetryPolicy::FewTimes),
        (230_099, 400, RetryPolicy::FewTimes),
        (230_002, 400, RetryPolicy::AfterFix),
        (230_006, 400, RetryPolicy::AfterFix),
        (230_013, 400, RetryPolicy::AfterFix),
        (230_018, 400, RetryPolicy::AfterFix),
        (230_027, 400, RetryPolicy::AfterFix),
        (230_035, 400, RetryPolicy::AfterFix),
        (123, 400, RetryPolicy::AfterFix),
        (123, 500, soon),
        (0, 503, soon),
        (232_009, 400, RetryPolicy::Never),
    ];
    for (code, status, retry) in cases {
        world.fail(code, status);
        let failure = undelivered(world.post("one").await.unwrap_err());
        assert_eq!(failure.retry, retry, "{code} {status}: {}", failure.error);
    }
    for (status, retry_after, retry) in [
        (429, Some(7), RetryPolicy::Backoff(Some(SignedDuration::from_secs(7)))),
        (502, None, soon),
        (200, None, soon),
        (403, None, RetryPolicy::AfterFix),
    ] {
        world.fake.clear_faults();
        world.fake.add_fault(FeishuFault { path: MESSAGES.into(), status, retry_after, ..FeishuFault::default() });
        assert_eq!(undelivered(world.post("one").await.unwrap_err()).retry, retry, "{status}");
    }
    world.fake.clear_faults();
    world.fake.set_chat_fault(CHAT, Some(ChatFault::Dissolved));
    assert_eq!(undelivered(world.post("one").await.unwrap_err()).retry, RetryPolicy::Never);
    world.fake.set_chat_fault(CHAT, Some(ChatFault::WithoutBot));
    assert_eq!(
        undelivered(world.post("one").await.unwrap_err()).error,
        "230002: the bot is not in the group: Bot is not in the group"
    );
    assert_eq!(world.fake.messages_in(CHAT), []);
    let bad = world.api().post(Receiver::Chat("ou_x"), &card("x"), "a").await.unwrap_err();
    assert_eq!(undelivered(bad).retry, RetryPolicy::AfterFix);
}

#[tokio::test]
async fn post_retried_after_a_lost_answer_appears_once() {
    let world = World::start().await;
    let code = Some(0);
    world.fake.add_fault(FeishuFault {
        path: MESSAGES.into(),
        status: 502,
        code,
        after_effect: true,
        ..FeishuFault::default()
    });
    assert!(world.post("same").await.is_err());
    world.fake.clear_faults();
    world.post("same").await.unwrap();
    assert_eq!(world.fake.messages_in(CHAT).len(), 1);
}

#[tokio::test]
async fn fake_limits_posts_and_updates() {
    let world = World::start().await;
    let mut id = String::new();
    for number in 0..5 {
        id = world.post(&number.to_string()).await.unwrap();
    }
    assert_eq!(
        undelivered(world.post("5").await.unwrap_err()).error,
        "230020: too many messages: This operation triggers the frequency limit"
    );
    for _ in 0..5 {
        assert_eq!(world.api().update(&id, &card("x")).await, Ok(CardUpdate::Redrawn));
    }
    assert!(world.api().update(&id, &card("x")).await.is_err());
    world.fake.move_clock(SignedDuration::from_secs(2));
    assert_eq!(world.api().update(&id, &card("x")).await, Ok(CardUpdate::Redrawn));
}

#[tokio::test]
async fn fake_refuses_invalid_cards() {
    let world = World::start().await;
    let mut unshared = card("x");
    unshared["config"]["update_multi"] = false.into();
    let mut huge = card("x");
    huge["header"]["title"]["content"] = "x".repeat(31_000).into();
    let mut twice = card("x");
    let element = json!({"tag": "input", "name": "reason"});
    twice["body"]["elements"].as_array_mut().unwrap().push(element);
    for (card, error) in [
        (unshared, "230099: the card cannot be built: update_multi is not true"),
        (huge, "230025: the message is too long: the card is over 30 KB"),
        (twice, "230099: the card cannot be built: the name reason is not unique"),
    ] {
        let failure = undelivered(world.api().post(Receiver::Chat(CHAT), &card, "a").await.unwrap_err());
        assert_eq!((failure.error.as_str(), failure.retry), (error, RetryPolicy::FewTimes));
    }
    assert!(world.fake.calls().iter().skip(1).all(|call| call.code != 0));
}

#[tokio::test]
async fn reply_redraws_the_card_for_all_and_toasts_one_person() {
    let world = World::start().await;
    let id = world.post("one").await.unwrap();
    let reply = feishu::reply_json(Some(feishu::toast_json(ToastKind::Success, "Done.")), Some(card("approved")));
    assert_eq!(world.fake.apply_reply(&id, &reply).unwrap().as_deref(), Some("Done."));
    assert!(world.fake.messages_in(CHAT)[0].text.starts_with("approved"));
    assert_eq!(world.fake.apply_reply(&id, &feishu::reply_json(None, None)).unwrap(), None);
}

#[tokio::test]
async fn custom_bots_check_signatures_and_refuse_with_status_200() {
    let world = World::start().await;
    world.fake.add_bot("signed", Some("demoSecret"));
    world.fake.add_bot("open", None);
    let url = |id: &str| -> SecretUrl {
        serde_json::from_value(json!(world.url.join(&format!("open-apis/bot/v2/hook/{id}")).unwrap())).unwrap()
    };
    let message = message("waits", &[Button::Approve { needs_reason: false }]);
    let secret = Secret::new("demoSecret".into());
    let good = build_bot_message(&message, Some(&secret), clock::now());
    post_bot(&world.http, &url("signed"), &good).await.unwrap();
    post_bot(&world.http, &url("open"), &build_bot_message(&message, None, clock::now())).await.unwrap();
    assert_eq!(world.fake.messages_in("signed")[0].button_labels(), Vec::<&str>::new());
    let late = build_bot_message(&message, Some(&secret), clock::now() - SignedDuration::from_mins(61));
    let other = build_bot_message(&message, Some(&Secret::new("other".into())), clock::now());
    for message in [late, other, build_bot_message(&message, None, clock::now())] {
        let refused = post_bot(&world.http, &url("signed"), &message).await.unwrap_err();
        assert!(refused.error.starts_with("19021") && refused.retry == RetryPolicy::AfterFix, "{refused:?}");
    }
    assert_eq!(post_bot(&world.http, &url("none"), &good).await.unwrap_err().code(), "19001");
    assert_eq!(world.fake.messages_in("signed").len(), 1);
}

#[tokio::test]
async fn hanging_fake_never_answers() {
    let world = World::start().await;
    world.fake.add_fault(FeishuFault { path: MESSAGES.into(), hangs: true, ..FeishuFault::default() });
    assert!(tokio::time::timeout(Duration::from_millis(100), world.post("one")).await.is_err());
    assert_eq!(world.fake.messages_in(CHAT), []);
}

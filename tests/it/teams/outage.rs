//! What is down: Teams, the table, the secrets, or an answer. Also what is not known yet: where a conversation is.

use jiff::SignedDuration;
use peergate::chat::platform::Platform;
use peergate::fake::teams::ConversationFault;

use super::*;
use crate::support::TableProxy;

/// What the doctor finds in the channels `teams` and `flow`.
async fn examine_channels(world: &World, post: bool) -> [(Health, String); 2] {
    let options = Options { post, ..Options::default() };
    let deadline = Instant::now() + Duration::from_mins(1);
    let report = doctor::examine_deployment(Ok(world.app.environment.clone()), &options, deadline).await;
    ["channel teams", "channel flow"].map(|channel| {
        let check = report.0.iter().find(|check| check.subject == channel).unwrap();
        (check.health, check.detail.clone())
    })
}

#[tokio::test]
async fn channel_without_a_reference_says_so_and_waits_for_one() {
    let world = World::unknown().await;
    world.request("vpc-other").await;
    assert!(world.fake.messages_in(CHANNEL_ID).is_empty());
    assert_eq!(world.app.only_card().button_labels()[0], "Approve", "Slack has it");
    let lines = crate::support::logged();
    assert!(lines.contains("no activity of the conversation has arrived"), "{lines}");
    let [(health, detail), _] = examine_channels(&world, false).await;
    assert!(health != Health::Healthy && detail.contains("does not know where it is"), "{detail}");
    for activity in world.fake.install(&world.user("alice")) {
        world.send(&activity).await;
    }
    assert_eq!(examine_channels(&world, false).await[0].0, Health::Healthy);
    world.app.request_peering(&[]).await.unwrap();
    world.app.discover().await;
    assert!(!world.cards().is_empty(), "the next request has a card");
}

#[tokio::test]
async fn reference_is_kept_only_of_configured_places() {
    let world = World::unknown().await;
    let mut elsewhere = world.fake.install(&world.user("alice"))[0].clone();
    elsewhere["conversation"]["id"] = "19:other@thread.tacv2".into();
    elsewhere["channelData"]["team"]["id"] = "19:other@thread.tacv2".into();
    elsewhere["channelData"]["channel"]["id"] = "19:other@thread.tacv2".into();
    let mut foreign = world.fake.install(&world.user("alice"))[0].clone();
    foreign["conversation"]["tenantId"] = "c47f831e-96eb-43b3-aaae-84fddbfe3619".into();
    for activity in [elsewhere, foreign, world.fake.write_to_bot("help", &world.user("alice"))] {
        assert_eq!(world.send(&activity).await.status, 200);
    }
    assert_eq!(
        examine_channels(&world, false).await[0].1,
        "no activity of the conversation has arrived, so peergate does not know where it is"
    );
    world.send(&world.fake.install(&world.user("alice"))[0]).await;
    assert_eq!(examine_channels(&world, false).await[0].0, Health::Healthy);
}

#[tokio::test]
async fn reference_outlasts_months_of_silence_and_processes() {
    let world = World::start().await.restarted();
    peergate::clock::jump::advance_in_thread(SignedDuration::from_hours(24 * 90));
    world.fake.move_clock(SignedDuration::from_hours(24 * 90));
    let [(health, detail), _] = examine_channels(&world, false).await;
    assert_eq!(
        (health, detail.as_str()),
        (Health::Healthy, "the app's secret is valid, and the conversation is known")
    );
}

#[tokio::test]
async fn teams_outage_loses_nothing_and_delays_nobody() {
    let world = World::start().await;
    world.fail("/v3/", 503, None);
    let id = world.request("vpc-other").await;
    assert!(world.fake.messages_in(CHANNEL_ID).is_empty());
    assert_eq!(world.app.only_card().button_labels()[0], "Approve", "Slack has it");
    world.app.click_button(&world.app.only_card(), "Approve", "U061F7AUR").await;
    world.app.tick().await;
    assert_eq!(world.app.count_accepts(&id), 1);
    world.fake.clear_faults();
    world.tick_until(|world| world.fake.messages_in(CHANNEL_ID).iter().any(|card| card.replies.len() == 3)).await;
    let card = world.fake.messages_in(CHANNEL_ID).pop().unwrap();
    assert!(card.text.contains("is Activated"), "{}", card.text);
}

#[tokio::test]
async fn lost_answer_leaves_one_card_that_decides() {
    let world = World::start().await;
    let fault = TeamsFault {
        path: "/activities".into(),
        method: "POST",
        status: 502,
        after_effect: true,
        ..TeamsFault::default()
    };
    world.fake.add_fault(fault);
    let id = world.request("vpc-other").await;
    world.fake.clear_faults();
    let lost = world.card();
    let click = world.fake.click_button(&lost.message_id, "Approve", &world.user("alice"), None).unwrap();
    // Teams cannot tell that the message is there, so another one follows.
    world.tick_until(|world| world.cards().len() == 2).await;
    let answer = world.answer_to(&click).await;
    assert!(answer.contains("no longer valid"), "{answer}");
    world.assert_undecided(&id).await;
    world.click("Approve", "alice", None).await;
    assert_eq!(world.app.count_accepts(&id), 1);
}

#[tokio::test]
async fn lost_card_that_is_clicked_first_becomes_the_card() {
    let world = World::start().await;
    let fault = TeamsFault {
        path: "/activities".into(),
        method: "POST",
        status: 502,
        after_effect: true,
        ..TeamsFault::default()
    };
    world.fake.add_fault(fault);
    let id = world.request("vpc-other").await;
    world.fake.clear_faults();
    let answer = world.click("Approve", "alice", None).await;
    assert!(answer.contains("You approved"), "{answer}");
    assert_eq!(world.app.count_accepts(&id), 1);
    world.tick_until(|world| world.fake.messages_in(CHANNEL_ID)[0].text.contains("is Activated")).await;
    assert_eq!(world.fake.messages_in(CHANNEL_ID).len(), 1, "nothing is posted again");
}

#[tokio::test]
async fn bot_token_is_shared_by_processes_and_replaced_when_refused() {
    let world = World::start().await;
    world.request("vpc-other").await;
    assert_eq!(world.fake.count_calls("/oauth2/"), 1);
    let world = world.restarted();
    world.request("vpc-two-people").await;
    assert_eq!(world.fake.count_calls("/oauth2/"), 1, "another process has left it in the table");
    world.fake.revoke_tokens();
    world.request("vpc-with-a-reason").await;
    assert_eq!((world.fake.count_calls("/oauth2/"), world.cards().len()), (2, 3));
}

#[tokio::test]
async fn failing_login_is_asked_rarely() {
    let world = World::start().await;
    world.fail("/oauth2/", 503, None);
    for _ in 0..6 {
        world.app.request_peering(&[]).await.unwrap();
    }
    world.app.discover().await;
    let asked = world.fake.count_calls("/oauth2/");
    assert!((1..=3).contains(&asked), "{asked}");
    assert_eq!(world.app.slack.messages_in("C0PEER").len(), 6, "Slack has heard");
}

#[tokio::test]
async fn unavailable_keys_are_answered_with_503() {
    let world = World::unknown().await;
    world.fail(".well-known", 500, None);
    let activity = world.fake.write_to_bot("help", &world.user("alice"));
    let reply = world.send(&activity).await;
    assert_eq!((reply.status, reply.name().as_str()), (503, "keys-unavailable"));
    peergate::clock::jump::advance_in_thread(SignedDuration::from_secs(6));
    world.fake.clear_faults();
    assert_eq!(world.send(&activity).await.status, 200, "the same activity, sent again");
}

/// A peergate whose table can refuse, and a pending request.
async fn world_with_table() -> (World, std::sync::Arc<TableProxy>) {
    let fake = FakeTeams::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(fake.clone().serve(listener));
    let (mut app, table) = TableProxy::start(crate::support::quick_settings()).await;
    app.add_extension(&fake.sandbox_extension(&url));
    let world = World { app, fake };
    for activity in world.fake.install(&world.user("alice")) {
        world.send(&activity).await;
    }
    (world, table)
}

#[tokio::test]
async fn unavailable_table_decides_nothing_on_teams() {
    let (world, table) = world_with_table().await;
    let id = world.request("vpc-other").await;
    let card = world.card();
    let click = world.fake.click_button(&card.message_id, "Approve", &world.user("alice"), None).unwrap();
    let before = world.app.count_upstream_calls();
    table.refuse_operation("PutItem");
    let reply = world.send(&click).await;
    assert_eq!((reply.status, reply.name().as_str()), (503, "store-unavailable"));
    assert_eq!(world.app.count_upstream_calls(), before);
    table.allow_all_operations();
    world.assert_undecided(&id).await;
    assert!(world.answer_to(&click).await.contains("You approved"), "the same activity, sent again");
}

#[tokio::test]
async fn unreadable_secrets_decide_nothing_on_teams() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let card = world.card();
    let click = world.fake.click_button(&card.message_id, "Approve", &world.user("alice"), None).unwrap();
    let World { mut app, fake } = world;
    app.environment_mut().secrets = peergate::config::SecretsSource::File("/nonexistent".into());
    let world = World { app, fake }.restarted();
    let reply = world.send(&click).await;
    assert_eq!((reply.status, reply.name().as_str()), (503, "secrets-unavailable"));
    world.assert_undecided(&id).await;
}

#[tokio::test]
async fn rotated_client_secret_changes_no_button() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let card = world.card();
    let old = FakeTeamsSettings::default().client_secrets.remove(0);
    let new = "xyz8Q~fakeClientSecretThatIsNewer0123456";
    let write = |secrets: &[&str]| {
        let path = match &world.app.environment.secrets {
            peergate::config::SecretsSource::File(path) => path.clone(),
            other @ peergate::config::SecretsSource::SecretsManager(_) => panic!("{other:?}"),
        };
        let mut document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        document["platforms"]["teams"]["client_secrets"] = serde_json::json!(secrets);
        std::fs::write(&path, document.to_string()).unwrap();
    };
    // First peergate knows both, and the newer one is not valid everywhere yet.
    write(&[new, &old]);
    let world = World { app: world.app.restart_app(), fake: world.fake };
    world.fake.revoke_tokens();
    let other = world.request("vpc-two-people").await;
    assert_eq!(world.cards().len(), 2, "the older secret still works");
    world.fake.set_client_secrets(&[new]);
    let answer = world.click_on(&card, "Approve", "alice", None).await;
    assert!(answer.contains("You approved"), "{answer}");
    assert_eq!(world.app.count_accepts(&id), 1);
    world.click("Approve", "alice", None).await;
    assert_eq!(world.app.load_record(&other).await.unwrap().approval.approval_count(), 1);
}

#[tokio::test]
async fn doctor_posts_a_teams_test_message_only_on_request() {
    let world = World::start().await;
    let [app, flow] = examine_channels(&world, false).await;
    assert_eq!((app.0, flow.0), (Health::Healthy, Health::Healthy), "{app:?} {flow:?}");
    assert!(world.fake.messages_in(CHANNEL_ID).is_empty() && world.fake.messages_in(FLOW_ID).is_empty());
    let [app, flow] = examine_channels(&world, true).await;
    assert_eq!((app.0, app.1.as_str()), (Health::Healthy, "accepted a test message"));
    assert!(flow.0 == Health::Healthy && flow.1.contains("look whether it is in the channel"), "{flow:?}");
    assert_eq!((world.fake.messages_in(CHANNEL_ID).len(), world.fake.messages_in(FLOW_ID).len()), (1, 1));
    world.fake.set_conversation_fault(CHANNEL_ID, Some(ConversationFault::BotMissing));
    let [(health, detail), _] = examine_channels(&world, true).await;
    assert!(health != Health::Healthy && detail.contains("add the app to the team or chat"), "{detail}");
}

#[tokio::test]
async fn doctor_and_first_tick_report_entras_refusals() {
    let world = World::start().await;
    let misconfigured = || {
        let lines = crate::support::logged();
        lines.lines().filter(|line| line.contains("misconfigured")).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let cases = [
        (None, 503, 0),
        (Some("AADSTS7000215"), 401, 1),
        (Some("AADSTS7000222"), 401, 2),
        (Some("AADSTS700016"), 400, 3),
    ];
    for (code, status, reported) in cases {
        world.fake.clear_faults();
        world.fail("/oauth2/", status, code);
        doctor::StartupCheck::default().run_once(&world.app.parts).await;
        let lines = misconfigured();
        assert_eq!(lines.len(), reported, "{code:?}: {lines:?}");
        assert!(lines.iter().all(|line| line.contains("platforms.teams.app")), "{lines:?}");
        let [(health, detail), _] = examine_channels(&world, true).await;
        assert!(health != Health::Healthy && detail.contains(code.unwrap_or("503")), "{detail}");
    }
    assert!(world.fake.messages_in(CHANNEL_ID).is_empty(), "without a token, nothing is posted");
}

#[tokio::test]
async fn register_command_writes_the_app_of_teams() {
    let world = World::start().await;
    let before = world.fake.calls().len();
    let secrets = world.app.parts.secrets.current(clock::now()).await.unwrap();
    let url: Url = "https://peergate.example.com/teams".parse().unwrap();
    let said = Platform::Teams.register_webhook(world.app.parts.chat_context(&secrets), &url).await.unwrap();
    let package = std::fs::read("peergate-teams.zip").unwrap();
    std::fs::remove_file("peergate-teams.zip").unwrap();
    assert!(said.contains(url.as_str()) && said.contains(&world.fake.settings().app), "{said}");
    assert!(package.starts_with(b"PK\x03\x04") && package.windows(13).any(|part| part == b"manifest.json"));
    assert_eq!(world.fake.calls().len(), before, "Teams is asked nothing");
}

#[tokio::test]
async fn event_is_signed_only_for_the_fake() {
    let world = World::start().await;
    let id = world.request("vpc-other").await;
    let secrets = world.app.parts.secrets.current(clock::now()).await.unwrap();
    let actor = world.user("alice").object_id;
    let spec = peergate::chat::EventSpec { actor, ..world.app.blind_spec("status", &id, "alice") };
    let configs = &world.app.parts.config.platforms;
    let signed = Platform::Teams.sign(configs, &secrets.platforms, &spec, clock::now()).unwrap();
    assert_eq!(world.app.send(&signed).await.status, 200);
    assert!(world.last_message_to("alice").text.contains("has the status"));
    let mut real = configs.clone();
    if let Some(teams) = &mut real.teams {
        teams.keys = None;
    }
    let refused = Platform::Teams.sign(&real, &secrets.platforms, &spec, clock::now()).unwrap_err();
    assert!(refused.contains("only Microsoft can sign for Teams"), "{refused}");
}

#[tokio::test]
async fn burst_of_requests_is_posted_within_the_limits_of_teams() {
    let world = World::start().await;
    for _ in 0..8 {
        world.app.request_peering(&[]).await.unwrap();
    }
    world.app.scheduled_tick().await;
    assert_eq!(world.cards().len(), 8);
    assert!(world.fake.calls().iter().all(|call| call.status < 300), "nothing was refused");
}

#[tokio::test]
async fn hanging_chat_still_shows_an_answer() {
    let world = World::start().await;
    let id = world.request("vpc-two-people").await;
    world.fake.add_fault(TeamsFault { path: "/v3/".into(), hangs: true, ..TeamsFault::default() });
    let answer = world.click("Details", "alice", None).await;
    assert!(answer.contains(id.as_str()) && answer.contains("could not send you more"), "{answer}");
    let logged = crate::support::logged();
    let given_up = logged.lines().find(|line| line.contains("unanswered_click")).unwrap();
    assert!(given_up.contains("Transport.Timeout"), "{given_up}");
}

#[tokio::test]
async fn failed_one_to_one_answer_is_posted_once_more() {
    let world = World::start().await;
    let fault = TeamsFault {
        path: "/activities".into(),
        status: 412,
        code: Some("PreconditionFailed".into()),
        retry_after: Some(1),
        ..TeamsFault::default()
    };
    world.fake.add_fault(fault);
    let question = world.fake.write_to_bot("help", &world.user("alice"));
    let (reply, ()) = tokio::join!(world.send(&question), async {
        while world.fake.count_calls("/activities") == 0 {
            tokio::task::yield_now().await;
        }
        world.fake.clear_faults();
    });
    assert_eq!(reply.status, 200);
    let told = world.fake.messages_to(&world.user("alice"));
    assert!(told.len() == 1 && told[0].text.contains("understands these commands"), "{told:?}");
}

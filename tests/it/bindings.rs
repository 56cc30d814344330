//! Buttons that were copied, forged, signed with a key that is gone, or made by an earlier version: none decides anything.

use crate::support::prelude::*;
use peergate::approval::{Approval, ChannelDisplay, Event};
use peergate::chat::binding::Binding;
use peergate::chat::message::Button;
use peergate::peering::{InstanceId, SeenFingerprint};

async fn discovered(app: &TestApp) -> (InstanceId, String) {
    let id = app.new_request().await;
    app.discover().await;
    let value = app.only_card().find_button("Approve").unwrap().value.clone();
    (id, value)
}

/// Sends a click, which must change nothing.
async fn assert_refused(app: &TestApp, id: &InstanceId, click: &Value, words: &str) {
    let reply = app.send_slack_payload(click).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let private_reply = app.last_private_reply();
    assert!(private_reply.contains(words), "{private_reply}");
    let approval = app.approval(id).await;
    assert_eq!((approval.state().name(), approval.approval_count(), app.count_accepts(id)), ("pending", 0, 0));
    assert!(approval.history().iter().all(|entry| entry.event.request().is_none()));
}

#[tokio::test]
async fn button_decides_on_its_own_message_only() {
    let app = TestApp::start().await;
    let (id, value) = discovered(&app).await;
    let click = app.click_payload("peergate.approve", &value, ALICE);
    for place in [
        json!({"type": "message", "channel_id": CHANNEL, "message_ts": "1700000000.999999"}),
        json!({"type": "message", "channel_id": "C0ELSE", "message_ts": click["container"]["message_ts"]}),
        json!({"type": "message", "channel_id": CHANNEL, "message_ts": click["container"]["message_ts"], "is_ephemeral": true}),
        Value::Null,
    ] {
        let mut copied = click.clone();
        copied["container"] = place;
        assert_refused(&app, &id, &copied, "This button is no longer valid").await;
    }
    let edits = app.only_card().edits;
    app.round().await;
    assert_eq!(app.only_card().edits, edits + 1, "the card is redrawn, once for all of these clicks");
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.assert_state(&id, "activating").await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn button_decides_nothing_on_another_connections_card() {
    let app = TestApp::start().await;
    let (one, value) = discovered(&app).await;
    let other = app.new_request_for("vpc-other").await;
    app.discover().await;
    let cards = app.slack.messages_in(CHANNEL);
    let elsewhere = cards.iter().find(|card| card.text.contains(other.as_str())).unwrap();
    let mut click = app.click_payload("peergate.approve", &value, ALICE);
    click["container"]["message_ts"] = elsewhere.ts.clone().into();
    assert_refused(&app, &one, &click, "This button is no longer valid").await;
    app.assert_state(&other, "pending").await;
    app.assert_accepts(&other, 0);
}

/// Alice's click on the private button that approves.
async fn private_click(app: &TestApp, id: &InstanceId) -> Value {
    let fingerprint = app.simulator.read_connection(id.as_str()).unwrap().fingerprint();
    let value = app.private_button_value(id, Button::Approve { needs_reason: false }, &fingerprint, ALICE).await;
    let mut click = app.click_payload("peergate.approve", &value, ALICE);
    click["container"] = json!({"type": "message", "channel_id": CHANNEL, "message_ts": "1.2", "is_ephemeral": true});
    click
}

#[tokio::test]
async fn private_button_decides_nothing_for_another_person() {
    let app = TestApp::start().await;
    let (id, _) = discovered(&app).await;
    let mut click = private_click(&app, &id).await;
    click["user"]["id"] = BOB.into();
    assert_refused(&app, &id, &click, "This button is no longer valid").await;
}

#[tokio::test]
async fn private_button_expires_within_13_hours() {
    let app = TestApp::start().await;
    let (id, _) = discovered(&app).await;
    let click = private_click(&app, &id).await;
    let later = clock::now() + SignedDuration::from_hours(13);
    let secrets = app.parts.secrets.current(later).await.unwrap();
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &click.to_string()).finish();
    let signed = peergate::chat::slack::sign_form(secrets.platforms.slack.as_ref().unwrap(), body, later).unwrap();
    app.send_at(&signed, later).await;
    app.assert_accepts(&id, 0);
    assert!(app.last_private_reply().contains("This button is no longer valid"), "{}", app.last_private_reply());
    app.send_slack_payload(&click).await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn legacy_button_decides_nothing_and_redraws_the_card() {
    let app = TestApp::start().await;
    let (id, _) = discovered(&app).await;
    let fingerprint = app.simulator.read_connection(id.as_str()).unwrap().fingerprint();
    let mut click = app.click_payload("peergate.approve", &format!("prod/{id}#{fingerprint}"), ALICE);
    click["container"] = json!({"type": "message", "channel_id": CHANNEL, "message_ts": app.only_card().ts});
    let edits = app.only_card().edits;
    assert_refused(&app, &id, &click, "This button is no longer valid").await;
    app.round().await;
    assert_eq!(app.only_card().edits, edits + 1);
}

#[tokio::test]
async fn legacy_modal_decides_nothing() {
    let app = TestApp::start().await;
    let (id, _) = discovered(&app).await;
    let fingerprint = app.simulator.read_connection(id.as_str()).unwrap().fingerprint();
    let modal = json!({"callback_id": "peergate.reject", "private_metadata": format!("prod/{id}#{fingerprint}")});
    let reply = app.send_slack_payload(&app.submission_payload(&modal, "no", ALICE)).await;
    assert!(reply.body.contains("This button is no longer valid"), "{}", reply.body);
    app.assert_state(&id, "pending").await;
    app.assert_calls(REJECT, 0);
}

#[tokio::test]
async fn forged_button_reaches_nothing() {
    let app = TestApp::start().await;
    let (id, value) = discovered(&app).await;
    let before = app.count_upstream_calls();
    let (names, bytes) = value.rsplit_once('.').unwrap();
    let other = if bytes.ends_with('A') { "Q" } else { "A" };
    for forged in [
        format!("{names}.{}{other}", &bytes[..bytes.len() - 1]),
        format!("r{}", &value[1..]),
        value.replacen("prod", "dev", 1),
        value.replacen("pcc-", "pcc-0", 1),
        value.replacen('.', "#", 1).replacen("prod/", "prod-", 1),
        names.to_owned(),
    ] {
        let mut click = app.click_payload("peergate.approve", &value, ALICE);
        click["actions"][0]["value"] = forged.clone().into();
        let reply = app.send_slack_payload(&click).await;
        assert_eq!((reply.status, reply.name().as_str()), (400, "malformed"), "{forged}: {}", reply.body);
    }
    assert_eq!((app.count_upstream_calls(), app.state_of(&id).await.as_str()), (before, "pending"));
    assert!(app.slack.posts(RESPONSE_PATH).is_empty());
}

#[tokio::test]
async fn rotated_key_verifies_until_removed_then_redraws_the_card() {
    let (old, new) = ("b2xkIGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM=", "bmV3IGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM=");
    let app = TestApp::start().await;
    app.write_secrets(|secrets| secrets["binding_keys"] = json!([old])).unwrap();
    let config = app.config.clone();
    let app = app.with_config(&config);
    let (id, value) = discovered(&app).await;
    // Both keys: the first signs, both verify.
    app.write_secrets(|secrets| secrets["binding_keys"] = json!([new, old])).unwrap();
    let config = app.config.clone();
    let app = app.with_config(&config);
    let details = app.click_payload("peergate.details", &app.card_of(&id).find_button("Details").unwrap().value, ALICE);
    app.send_slack_payload(&details).await;
    assert!(app.last_private_reply().contains("has the status Accepting"), "{}", app.last_private_reply());
    // The old key is gone: the card is redrawn with the new key.
    app.write_secrets(|secrets| secrets["binding_keys"] = json!([new])).unwrap();
    let config = app.config.clone();
    let app = app.with_config(&config);
    let click = app.click_payload("peergate.approve", &value, ALICE);
    assert_refused(&app, &id, &click, "This button is no longer valid").await;
    app.round().await;
    let card = app.card_of(&id);
    assert_ne!(card.find_button("Approve").unwrap().value, value);
    app.click_button(&card, "Approve", ALICE).await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn clicks_on_copies_cause_one_redraw() {
    let app = TestApp::start().await;
    let (id, value) = discovered(&app).await;
    let edits = app.only_card().edits;
    for _ in 0..12 {
        let mut copied = app.click_payload("peergate.approve", &value, "U0STRANGER");
        copied["container"]["message_ts"] = "1700000000.999999".into();
        app.send_slack_payload(&copied).await;
        app.round().await;
    }
    let approval = app.approval(&id).await;
    assert_eq!((app.only_card().edits, approval.outbox().len()), (edits + 1, 2));
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn legacy_button_without_a_redrawable_card_brings_a_private_one() {
    let app = TestApp::start().await;
    let config = app.config.replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = [\"hook\"]");
    let config = config.replace("channels = [\"netops\"]", "channels = [\"hook\"]");
    let app = app.with_config(&config);
    let id = app.new_request().await;
    app.discover().await;
    let fingerprint = app.simulator.read_connection(id.as_str()).unwrap().fingerprint();
    let old = app.click_payload("peergate.approve", &format!("prod/{id}#{fingerprint}"), ALICE);
    assert_refused(&app, &id, &old, "is no longer valid").await;
    let response = app.slack.posts(RESPONSE_PATH).pop().unwrap().body_json();
    let value = response["blocks"][1]["elements"][0]["value"].as_str().unwrap().to_owned();
    let mut by_bob = app.click_payload("peergate.approve", &value, BOB);
    by_bob["container"] = Value::Null;
    assert_refused(&app, &id, &by_bob, "is no longer valid").await;
    app.send_slack_payload(&app.click_payload("peergate.approve", &value, ALICE)).await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn withdrawal_counts_on_its_own_message_only() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    app.click_button(&app.only_card(), "Approve", ALICE).await;
    app.round().await;
    let value = app.only_card().find_button("Withdraw my approval").unwrap().value.clone();
    let mut copied = app.click_payload("peergate.withdraw", &value, ALICE);
    copied["container"]["message_ts"] = "1700000000.999999".into();
    app.send_slack_payload(&copied).await;
    assert!(app.last_private_reply().contains("is no longer valid"), "{}", app.last_private_reply());
    assert_eq!(app.approval(&id).await.approval_count(), 1);
    app.click_button(&app.only_card(), "Withdraw my approval", ALICE).await;
    assert_eq!(app.approval(&id).await.approval_count(), 0);
}

#[tokio::test]
async fn unknown_binding_key_is_fetched_once_in_thirty_seconds() {
    let (old, new) = ("b2xkIGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM=", "bmV3IGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM=");
    let app = TestApp::start().await;
    app.write_secrets(|secrets| secrets["binding_keys"] = json!([old])).unwrap();
    let config = app.config.clone();
    let app = app.with_config(&config);
    let (id, _) = discovered(&app).await;
    // Another process already knows the new key and has drawn the card with it.
    app.write_secrets(|secrets| secrets["binding_keys"] = json!([new, old])).unwrap();
    let other = peergate::app::App::new(&app.environment, (*app.parts.config).clone()).unwrap();
    let secrets = other.secrets.current(clock::now()).await.unwrap();
    let keyring = other.chat_context(&secrets).keyring(peergate::chat::platform::Platform::Slack);
    let known = app.approval(&id).await;
    let signed = keyring
        .sign(&Binding {
            button: Button::Approve { needs_reason: false },
            target: "prod".into(),
            instance_id: id.clone(),
            seen_fingerprint: SeenFingerprint::first_half_of(known.fingerprint()),
            card_id: known.cards()["netops"].id,
        })
        .unwrap();
    let mut click = app.click_payload("peergate.approve", &signed, ALICE);
    click["container"] = json!({"type": "message", "channel_id": CHANNEL, "message_ts": app.only_card().ts});
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &click.to_string()).finish();
    let at = async |seconds: i64| {
        let now = clock::now() + SignedDuration::from_secs(seconds);
        let slack = secrets.platforms.slack.as_ref().unwrap();
        let signed = peergate::chat::slack::sign_form(slack, body.clone(), now).unwrap();
        app.send_at(&signed, now).await;
        app.count_accepts(&id)
    };
    assert_eq!(at(5).await, 0, "fetched a moment ago");
    assert_eq!(at(31).await, 1);
}

#[tokio::test]
async fn broken_channel_holds_up_no_redraw_elsewhere() {
    let app = TestApp::start().await;
    let config =
        app.config.replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = [\"netops\", \"oncall\"]");
    let app = app.with_config(&config);
    let (id, _) = (app.new_request().await, app.discover().await);
    let card = |channel: &str| app.card_in(channel);
    let value = card("C0PEER").find_button("Approve").unwrap().value.clone();
    let mut copied = app.click_payload("peergate.approve", &value, ALICE);
    copied["container"]["message_ts"] = "1700000000.999999".into();
    let undelivered = async || {
        let approval = app.approval(&id).await;
        let last = approval.outbox().last().unwrap().clone();
        last.deliveries.keys().cloned().collect::<Vec<_>>()
    };
    app.send_slack_payload(&copied).await;
    assert_eq!(undelivered().await, ["netops", "oncall"]);
    // One of the two channels is not reached.
    let stored = app.load_record(&id).await.unwrap();
    let heard = |approval: &mut Approval| {
        let (number, channel) = (approval.outbox().last().unwrap().number, "netops".to_owned());
        approval.apply_event(&Event::Delivered { number, channel, display: ChannelDisplay::Unchanged }, clock::now())
    };
    app.parts.store.update(stored, heard).await.unwrap();
    let later = clock::now() + SignedDuration::from_mins(6);
    let mut approval = app.approval(&id).await;
    assert!(approval.request_redraw(true, later));
    let last = approval.outbox().last().unwrap();
    assert_eq!(last.deliveries.keys().collect::<Vec<_>>(), ["netops"], "the other waits for a notice anyway");
}

#[tokio::test]
async fn messages_without_a_configured_app_have_no_buttons() {
    let app = TestApp::start().await;
    let start = app.config.find("[platforms.slack]").unwrap();
    let end = app.config.find("[channels.hook]").unwrap();
    let mut config = format!("{}{}", &app.config[..start], &app.config[end..]);
    config = config.replace("[channels.oncall]\nkind = \"slack\"\nchannel = \"C0CALL\"\n", "");
    for (from, to) in [
        ("\"netops\", \"hook\", \"audit\"", "\"hook\""),
        ("\"netops\", \"audit\"", "\"hook\""),
        ("[\"netops\"]", "[\"hook\"]"),
        ("escalate_after = \"30h\"\nescalate_to = [\"oncall\"]\n", ""),
    ] {
        config = config.replace(from, to);
    }
    for user in [ALICE, BOB, CAROL, ERIN] {
        config = config.replace(&format!("\"slack:T0001/{user}\", "), "");
    }
    app.write_secrets(|secrets| secrets["binding_keys"] = json!(["b2xkIGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM="]))
        .unwrap();
    let app = app.with_config(&config);
    app.new_request().await;
    app.discover().await;
    let post = app.slack.posts(WEBHOOK_PATH).pop().unwrap();
    assert!(post.visible_text().contains("approve or reject VPC peering"), "{}", post.visible_text());
    assert!(!post.body_json().to_string().contains("\"actions\""), "{}", post.body_json());
}

//! Buttons that were copied, forged, signed with a key that is gone, or made by an earlier version: none decides anything.

use crate::support::{Gate, HOOK, RESPONSE};
use jiff::SignedDuration;
use peergate::approval::{Approval, Display, Event};
use peergate::chat::binding::Binding;
use peergate::chat::message::Button;
use peergate::clock;
use peergate::peering::{InstanceId, SeenFingerprint};
use serde_json::{Value, json};

const ALICE: &str = "U061F7AUR";
const BOB: &str = "U0BOB";

async fn told(gate: &Gate) -> (InstanceId, String) {
    let id = gate.requested().await;
    gate.discover().await;
    let value = gate.card().button("Approve").unwrap().value.clone();
    (id, value)
}

/// Sends a click; nothing may come of it.
async fn refused(gate: &Gate, id: &InstanceId, click: &Value, words: &str) {
    let reply = gate.send(&gate.slack_payload(click).await).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let told = gate.told();
    assert!(told.contains(words), "{told}");
    let approval = gate.stored(id).await.unwrap().approval;
    assert_eq!((approval.state.name(), approval.given(), gate.accepts(id)), ("pending", 0, 0));
    assert!(approval.history.iter().all(|entry| entry.what.request().is_none()));
}

#[tokio::test]
async fn button_decides_on_its_own_message_only() {
    let gate = Gate::start().await;
    let (id, value) = told(&gate).await;
    let click = gate.click("peergate.approve", &value, ALICE);
    for place in [
        json!({"type": "message", "channel_id": "C0PEER", "message_ts": "1700000000.999999"}),
        json!({"type": "message", "channel_id": "C0ELSE", "message_ts": click["container"]["message_ts"]}),
        json!({"type": "message", "channel_id": "C0PEER", "message_ts": click["container"]["message_ts"], "is_ephemeral": true}),
        Value::Null,
    ] {
        let mut copied = click.clone();
        copied["container"] = place;
        refused(&gate, &id, &copied, "This button is no longer valid").await;
    }
    let edits = gate.card().edits;
    gate.round().await;
    assert_eq!(gate.card().edits, edits + 1, "the card is redrawn, once for all of these clicks");
    gate.press(&gate.card(), "Approve", ALICE).await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("activating", 1));
}

#[tokio::test]
async fn button_of_one_connection_decides_nothing_on_the_card_of_another() {
    let gate = Gate::start().await;
    let (one, value) = told(&gate).await;
    let other = gate.request_peering(&[("AcceptingVpcId", "vpc-other")]).await.unwrap();
    gate.discover().await;
    let cards = gate.sink.channel("C0PEER");
    let elsewhere = cards.iter().find(|card| card.text.contains(other.as_str())).unwrap();
    let mut click = gate.click("peergate.approve", &value, ALICE);
    click["container"]["message_ts"] = elsewhere.ts.clone().into();
    refused(&gate, &one, &click, "This button is no longer valid").await;
    assert_eq!((gate.state(&other).await.as_str(), gate.accepts(&other)), ("pending", 0));
}

#[tokio::test]
async fn private_answer_decides_for_its_person_and_for_some_hours() {
    let gate = Gate::start().await;
    let (id, _) = told(&gate).await;
    let fingerprint = gate.simulator.connection(id.as_str()).unwrap().fingerprint();
    let value = gate.private_button(&id, Button::Approve { ask: false }, &fingerprint, ALICE).await;
    let mut click = gate.click("peergate.approve", &value, BOB);
    click["container"] = json!({"type": "message", "channel_id": "C0PEER", "message_ts": "1.2", "is_ephemeral": true});
    refused(&gate, &id, &click, "This button is no longer valid").await;
    click["user"]["id"] = ALICE.into();
    let later = clock::now() + SignedDuration::from_hours(13);
    let secrets = gate.app.secrets.current(later).await.unwrap();
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &click.to_string()).finish();
    let signed = peergate::chat::slack::sign_form(secrets.platforms.slack.as_ref().unwrap(), body, later).unwrap();
    gate.send_at(&signed, later).await;
    assert_eq!(gate.accepts(&id), 0);
    assert!(gate.told().contains("This button is no longer valid"), "{}", gate.told());
    gate.send(&gate.slack_payload(&click).await).await;
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn button_of_an_earlier_version_decides_nothing_and_brings_the_card() {
    let gate = Gate::start().await;
    let (id, _) = told(&gate).await;
    let fingerprint = gate.simulator.connection(id.as_str()).unwrap().fingerprint();
    let mut click = gate.click("peergate.approve", &format!("prod/{id}#{fingerprint}"), ALICE);
    click["container"] = json!({"type": "message", "channel_id": "C0PEER", "message_ts": gate.card().ts});
    let edits = gate.card().edits;
    refused(&gate, &id, &click, "This button is no longer valid").await;
    gate.round().await;
    assert_eq!(gate.card().edits, edits + 1);
    // The window that was open during the upgrade, too.
    let window = json!({"callback_id": "peergate.reject", "private_metadata": format!("prod/{id}#{fingerprint}")});
    let reply = gate.send(&gate.slack_payload(&gate.submission(&window, "no", ALICE)).await).await;
    assert!(reply.body.contains("This button is no longer valid"), "{}", reply.body);
    assert_eq!((gate.state(&id).await.as_str(), gate.calls("RejectVpcPeerConnection")), ("pending", 0));
}

#[tokio::test]
async fn button_that_nobody_of_us_signed_reaches_nothing() {
    let gate = Gate::start().await;
    let (id, value) = told(&gate).await;
    let before = gate.upstream_calls();
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
        let mut click = gate.click("peergate.approve", &value, ALICE);
        click["actions"][0]["value"] = forged.clone().into();
        let reply = gate.send(&gate.slack_payload(&click).await).await;
        assert_eq!((reply.status, reply.name().as_str()), (400, "malformed"), "{forged}: {}", reply.body);
    }
    assert_eq!((gate.upstream_calls(), gate.state(&id).await.as_str()), (before, "pending"));
    assert!(gate.sink.posts(RESPONSE).is_empty());
}

#[tokio::test]
async fn rotated_key_opens_until_it_is_gone_and_then_brings_the_card() {
    let (old, new) = ("b2xkIGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM=", "bmV3IGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM=");
    let gate = Gate::start().await;
    gate.write_secrets(|secrets| secrets["binding_keys"] = json!([old])).unwrap();
    let config = gate.config.clone();
    let gate = gate.with_config(&config);
    let (id, value) = told(&gate).await;
    // Both keys: the first signs, both verify.
    gate.write_secrets(|secrets| secrets["binding_keys"] = json!([new, old])).unwrap();
    let config = gate.config.clone();
    let gate = gate.with_config(&config);
    let details = gate.click("peergate.details", &gate.card_of(&id).button("Details").unwrap().value, ALICE);
    gate.send(&gate.slack_payload(&details).await).await;
    assert!(gate.told().contains("is Accepting"), "{}", gate.told());
    // The old one is gone: the card is redrawn, with the new one.
    gate.write_secrets(|secrets| secrets["binding_keys"] = json!([new])).unwrap();
    let config = gate.config.clone();
    let gate = gate.with_config(&config);
    let click = gate.click("peergate.approve", &value, ALICE);
    refused(&gate, &id, &click, "This button is no longer valid").await;
    gate.round().await;
    let card = gate.card_of(&id);
    assert_ne!(card.button("Approve").unwrap().value, value);
    gate.press(&card, "Approve", ALICE).await;
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn clicks_on_copies_cause_one_redraw_and_push_nothing_out() {
    let gate = Gate::start().await;
    let (id, value) = told(&gate).await;
    let edits = gate.card().edits;
    for _ in 0..12 {
        let mut copied = gate.click("peergate.approve", &value, "U0STRANGER");
        copied["container"]["message_ts"] = "1700000000.999999".into();
        gate.send(&gate.slack_payload(&copied).await).await;
        gate.round().await;
    }
    let approval = gate.stored(&id).await.unwrap().approval;
    assert_eq!((gate.card().edits, approval.outbox.len()), (edits + 1, 2));
    gate.press(&gate.card(), "Approve", ALICE).await;
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn old_button_where_nothing_can_be_drawn_anew_brings_a_card_of_ones_own() {
    let gate = Gate::start().await;
    let config = gate.config.replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = [\"hook\"]");
    let config = config.replace("channels = [\"netops\"]", "channels = [\"hook\"]");
    let gate = gate.with_config(&config);
    let id = gate.requested().await;
    gate.discover().await;
    let fingerprint = gate.simulator.connection(id.as_str()).unwrap().fingerprint();
    let old = gate.click("peergate.approve", &format!("prod/{id}#{fingerprint}"), ALICE);
    refused(&gate, &id, &old, "is no longer valid").await;
    let answer = gate.sink.posts(RESPONSE).pop().unwrap().json();
    let value = answer["blocks"][1]["elements"][0]["value"].as_str().unwrap().to_owned();
    let mut by_bob = gate.click("peergate.approve", &value, BOB);
    by_bob["container"] = Value::Null;
    refused(&gate, &id, &by_bob, "is no longer valid").await;
    gate.send(&gate.slack_payload(&gate.click("peergate.approve", &value, ALICE)).await).await;
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn withdrawal_counts_on_its_own_message_only() {
    let gate = Gate::start().await;
    let id = gate.request_peering(&[("AcceptingVpcId", "vpc-two-people")]).await.unwrap();
    gate.discover().await;
    gate.press(&gate.card(), "Approve", ALICE).await;
    gate.round().await;
    let value = gate.card().button("Withdraw my approval").unwrap().value.clone();
    let mut copied = gate.click("peergate.withdraw", &value, ALICE);
    copied["container"]["message_ts"] = "1700000000.999999".into();
    gate.send(&gate.slack_payload(&copied).await).await;
    assert!(gate.told().contains("is no longer valid"), "{}", gate.told());
    assert_eq!(gate.stored(&id).await.unwrap().approval.given(), 1);
    gate.press(&gate.card(), "Withdraw my approval", ALICE).await;
    assert_eq!(gate.stored(&id).await.unwrap().approval.given(), 0);
}

#[tokio::test]
async fn key_that_was_added_meanwhile_is_fetched_once_in_thirty_seconds() {
    let (old, new) = ("b2xkIGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM=", "bmV3IGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM=");
    let gate = Gate::start().await;
    gate.write_secrets(|secrets| secrets["binding_keys"] = json!([old])).unwrap();
    let config = gate.config.clone();
    let gate = gate.with_config(&config);
    let (id, _) = told(&gate).await;
    // Another process knows the new key already, and has drawn the card with it.
    gate.write_secrets(|secrets| secrets["binding_keys"] = json!([new, old])).unwrap();
    let other = peergate::app::App::new(&gate.environment, (*gate.app.config).clone()).unwrap();
    let secrets = other.secrets.current(clock::now()).await.unwrap();
    let keyring = other.chat(&secrets).keyring(peergate::chat::platform::Platform::Slack);
    let known = gate.stored(&id).await.unwrap().approval;
    let signed = keyring
        .sign(&Binding {
            button: Button::Approve { ask: false },
            target: "prod".into(),
            instance_id: id.clone(),
            seen: SeenFingerprint::start_of(&known.fingerprint),
            card: known.cards["netops"].card,
        })
        .unwrap();
    let mut click = gate.click("peergate.approve", &signed, ALICE);
    click["container"] = json!({"type": "message", "channel_id": "C0PEER", "message_ts": gate.card().ts});
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &click.to_string()).finish();
    let at = async |seconds: i64| {
        let now = clock::now() + SignedDuration::from_secs(seconds);
        let slack = secrets.platforms.slack.as_ref().unwrap();
        let signed = peergate::chat::slack::sign_form(slack, body.clone(), now).unwrap();
        gate.send_at(&signed, now).await;
        gate.accepts(&id)
    };
    assert_eq!(at(5).await, 0, "fetched a moment ago");
    assert_eq!(at(31).await, 1);
}

#[tokio::test]
async fn channel_that_is_down_holds_up_no_redraw_of_another() {
    let gate = Gate::start().await;
    let config =
        gate.config.replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = [\"netops\", \"oncall\"]");
    let gate = gate.with_config(&config);
    let (id, _) = (gate.requested().await, gate.discover().await);
    let card = |channel: &str| gate.card_in(channel);
    let value = card("C0PEER").button("Approve").unwrap().value.clone();
    let mut copied = gate.click("peergate.approve", &value, ALICE);
    copied["container"]["message_ts"] = "1700000000.999999".into();
    let owed = async || {
        let approval = gate.stored(&id).await.unwrap().approval;
        let last = approval.outbox.last().unwrap().clone();
        last.deliveries.keys().cloned().collect::<Vec<_>>()
    };
    gate.send(&gate.slack_payload(&copied).await).await;
    assert_eq!(owed().await, ["netops", "oncall"]);
    // One of the two does not hear of it.
    let stored = gate.stored(&id).await.unwrap();
    let heard = |approval: &mut Approval| {
        let (number, channel) = (approval.outbox.last().unwrap().number, "netops".to_owned());
        approval.apply(&Event::Delivered { number, channel, display: Display::Unchanged }, clock::now())
    };
    gate.app.store.update(stored, heard).await.unwrap();
    let later = clock::now() + SignedDuration::from_mins(6);
    let mut approval = gate.stored(&id).await.unwrap().approval;
    assert!(approval.redraw(true, later));
    let last = approval.outbox.last().unwrap();
    assert_eq!(last.deliveries.keys().collect::<Vec<_>>(), ["netops"], "the other waits for a notice anyway");
}

#[tokio::test]
async fn messages_of_an_app_that_is_not_configured_have_no_buttons() {
    let gate = Gate::start().await;
    let start = gate.config.find("[platforms.slack]").unwrap();
    let end = gate.config.find("[channels.hook]").unwrap();
    let mut config = format!("{}{}", &gate.config[..start], &gate.config[end..]);
    config = config.replace("[channels.oncall]\nkind = \"slack\"\nchannel = \"C0CALL\"\n", "");
    for (from, to) in [
        ("\"netops\", \"hook\", \"audit\"", "\"hook\""),
        ("\"netops\", \"audit\"", "\"hook\""),
        ("[\"netops\"]", "[\"hook\"]"),
        ("escalate_after = \"30h\"\nescalate_to = [\"oncall\"]\n", ""),
    ] {
        config = config.replace(from, to);
    }
    for user in ["U061F7AUR", "U0BOB", "U0CAROL", "U0ERIN"] {
        config = config.replace(&format!("\"slack:T0001/{user}\", "), "");
    }
    gate.write_secrets(|secrets| secrets["binding_keys"] = json!(["b2xkIGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM="]))
        .unwrap();
    let gate = gate.with_config(&config);
    gate.requested().await;
    gate.discover().await;
    let post = gate.sink.posts(HOOK).pop().unwrap();
    assert!(post.text().contains("waits for approval"), "{}", post.text());
    assert!(!post.json().to_string().contains("\"actions\""), "{}", post.json());
}

//! Every file of `events/`, handed to its function at the time of its signature.

use std::path::Path;

use crate::support::prelude::*;
use peergate::chat::binding::{BindingKey, Keyring};
use peergate::chat::message::Button;
use peergate::chat::platform::{Platform, ReplyTo};
use peergate::chat::{Incoming, slack};
use peergate::config::Config;
use peergate::local::sandbox::SLACK_SECRET;
use peergate::trigger::Trigger;
use peergate::{envelope, webhook};

/// The replies of the webhook, in order: the status and a word of the body.
const WEBHOOK: [(&str, u16, &str); 7] = [
    ("webhook-approve.json", 200, r#""outcome":"accepted""#),
    ("webhook-reject.json", 409, "already approved by alice"),
    ("slack-command.json", 200, "VPC peering prod/pcc-sim00000001 has the status"),
    // The sandbox's configuration does not let it answer at Slack's address.
    ("slack-click.json", 400, "response_url is missing or not Slack's"),
    ("slack-ssl-check.json", 200, ""),
    ("healthz.json", 200, "ok"),
    ("payload-1.0.json", 400, "payload format version 2.0 is required"),
];
const WATCHER: [&str; 3] = ["doctor.json", "schedule.json", "stream.json"];
const SIGNED_AT: &str = "2026-11-18T11:06:40Z";

fn read(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("events").join(name)).unwrap()
}

#[test]
fn every_event_file_is_tested() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("events");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "README.md").collect();
    names.sort();
    let mut used: Vec<_> = WEBHOOK.iter().map(|(name, ..)| *name).chain(WATCHER).collect();
    used.sort_unstable();
    assert_eq!(names, used);
}

#[tokio::test]
async fn webhook_answers_each_of_its_events() {
    let app = TestApp::start().await;
    let id = app.new_request_for("vpc-accepter").await;
    assert_eq!(id.as_str(), "pcc-sim00000001");
    for (name, status, word) in WEBHOOK {
        let event: envelope::HttpEvent = serde_json::from_slice(&read(name)).unwrap();
        let response = webhook::handle_event(&app.parts, event, SIGNED_AT.parse().unwrap()).await;
        assert_eq!(
            (response.status().as_u16(), response.body().contains(word)),
            (status, true),
            "{name}: {response:?}"
        );
    }
    assert_eq!(app.count_accepts(&"pcc-sim00000001".to_owned().try_into().unwrap()), 1);
}

#[test]
fn example_click_is_verified_and_parsed() {
    let config = Config::parse(include_str!("../../peergate.example.toml")).unwrap();
    let secrets: [slack::SigningSecret; 1] = [SLACK_SECRET.to_owned().try_into().unwrap()];
    let request = envelope::into_request(serde_json::from_slice(&read("slack-click.json")).unwrap()).unwrap();
    let (parts, body) = request.into_parts();
    let authentic = slack::verify_with(&secrets, &parts.headers, body, SIGNED_AT.parse().unwrap()).unwrap();
    let incoming = Platform::Slack.parse(&config.platforms, authentic).unwrap();
    let Incoming::Click { click, reply_to: ReplyTo::Slack(slack::ReplyTo::Click { response_url, .. }) } = incoming
    else {
        panic!("{incoming:?}")
    };
    assert_eq!((click.was_asked, click.message_ref.as_deref()), (false, Some("C0PEER/1795000000.000100")));
    assert_eq!(click.by.as_str(), "slack:T0001/U061F7AUR");
    let keys =
        secrets.iter().map(|secret| BindingKey::derive(secret.expose(), "peergate/binding-key/1/slack")).collect();
    let binding = Keyring::new("slack", keys).verify(&click.binding).unwrap();
    assert_eq!((binding.button, binding.target.as_str()), (Button::Approve { needs_reason: false }, "prod"));
    assert_eq!(response_url.host_str(), Some("hooks.slack.com"));
}

#[tokio::test]
async fn stale_event_is_answered_with_401() {
    let app = TestApp::start().await;
    for name in ["webhook-approve.json", "webhook-reject.json", "slack-click.json", "slack-command.json"] {
        let event: envelope::HttpEvent = serde_json::from_slice(&read(name)).unwrap();
        let response = webhook::handle_event(&app.parts, event, peergate::clock::now()).await;
        assert_eq!(response.status(), 401, "{name}");
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[test]
fn watcher_parses_each_of_its_events() {
    for name in WATCHER {
        let trigger = serde_json::from_slice::<Trigger>(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(trigger.into_tick().is_err(), name == "doctor.json", "{name}");
    }
}

//! The bridge from Microsoft's Agents Playground, with activities that the Playground sent. The interoperability tests run
//! the Playground itself.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use peergate::chat::teams::{self, Config, KeyCache};
use peergate::chat::{Click, Incoming};
use peergate::clock;
use peergate::fake::teams::{CHANNEL_ID, PEOPLE, parse_fake_options};
use peergate::http::new_client;
use serde_json::Value;
use tokio::net::TcpListener;

/// A request that the bridge forwarded.
struct Forwarded {
    headers: HeaderMap,
    body: Bytes,
}

type Received = Arc<Mutex<Vec<Forwarded>>>;

/// A fake with a bridge, and the server behind it, which refuses everything.
struct BridgedFake {
    url: String,
    received: Received,
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

async fn receive(State(received): State<Received>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    received.lock().unwrap().push(Forwarded { headers, body });
    (StatusCode::IM_A_TEAPOT, [("content-type", "application/problem+json")], "no")
}

async fn bridged() -> BridgedFake {
    let received = Received::default();
    let (behind, address) = listen().await;
    let router = Router::new().fallback(receive).with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(behind, router).await });
    let (listener, url) = listen().await;
    let fake = parse_fake_options(&[format!("forward:{address}/teams")]).unwrap();
    tokio::spawn(fake.serve(listener));
    BridgedFake { url, received }
}

/// `installationUpdate`, `conversationUpdate`, a click with a reason and a mention in the channel; then the first two, a text
/// and a click in a one-to-one chat.
fn recorded() -> Vec<Value> {
    let fixture: Value = serde_json::from_str(include_str!("../fixtures/playground.json")).unwrap();
    fixture["activities"].as_array().unwrap().clone()
}

fn config(fake: &BridgedFake) -> Config {
    let text = format!(
        "app = \"6fd21178-5a8a-4fd8-a3bc-16f017de3f7a\"\ntenant = \"50703947-19f8-4dd8-af0e-60d29681f7c0\"\ncloud = \"public\"\n\
         conversations = [\"{CHANNEL_ID}\"]\nservice_hosts = [\"localhost:56150\"]\n\
         keys = \"{}/v1/.well-known/openidconfiguration\"\n",
        fake.url
    );
    toml::from_str(&text).unwrap()
}

async fn send(fake: &BridgedFake, body: String, headers: &[(&str, &str)]) -> reqwest::Response {
    let request = new_client().unwrap().post(format!("{}/playground", fake.url)).body(body);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

#[tokio::test]
async fn what_the_playground_sends_is_authentic_behind_the_bridge() {
    let (fake, keys) = (bridged().await, KeyCache::default());
    let (config, http) = (config(&fake), new_client().unwrap());
    let mut understood = vec![];
    for activity in recorded() {
        let answer = send(&fake, activity.to_string(), &[("x-ms-agents-playground", "true")]).await;
        assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.text().await.unwrap(), "no");
        let Forwarded { headers, body } = fake.received.lock().unwrap().pop().unwrap();
        assert_eq!(body, activity.to_string());
        let verified = teams::verify_with(&http, &config, &keys, &headers, &body, clock::now()).await;
        let authentic = verified.unwrap_or_else(|error| panic!("{activity}: {error:?}"));
        understood.push(match teams::parse(&config, authentic).unwrap() {
            Incoming::Challenge(_) => "event",
            Incoming::Click {
                click: Click { by, reason: Some(reason), message_ref: Some(message_ref), .. }, ..
            } => {
                assert_eq!((by.user(), reason.as_str()), (PEOPLE[1].1, "because"));
                assert!(message_ref.starts_with(&format!("{CHANNEL_ID}/")), "{message_ref}");
                "click"
            }
            Incoming::Click { click: Click { by, reason: None, message_ref: None, .. }, .. } => {
                assert_eq!(by.user(), PEOPLE[0].1);
                "private click"
            }
            Incoming::Command { .. } => "command",
            Incoming::UnknownCommand { .. } => "help",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(understood, ["event", "event", "click", "command", "event", "event", "help", "private click"]);
}

#[tokio::test]
async fn bridge_forwards_nothing_of_a_web_page_and_nothing_malformed() {
    let fake = bridged().await;
    let activity = recorded().remove(0).to_string();
    let of_page = send(&fake, activity.clone(), &[("origin", "https://evil.example")]).await;
    assert_eq!(of_page.status(), StatusCode::FORBIDDEN);
    let rebound = send(&fake, activity, &[("host", "evil.example")]).await;
    assert_eq!(rebound.status(), StatusCode::FORBIDDEN);
    for malformed in ["", "{", "[]", "{}", "{\"serviceUrl\":1}"] {
        assert_eq!(send(&fake, malformed.to_owned(), &[]).await.status(), StatusCode::BAD_GATEWAY, "{malformed}");
    }
    assert_eq!(fake.received.lock().unwrap().len(), 0);
}

#[test]
fn bridge_leads_only_to_this_machine() {
    for url in ["http://localhost:8080/teams", "http://127.0.0.1:8080/teams", "http://[::1]:8080/teams"] {
        assert!(parse_fake_options(&[format!("forward:{url}")]).is_ok(), "{url}");
    }
    for url in ["https://peergate.example.com/teams", "https://127.0.0.1/teams", "http://10.0.0.1/teams", "teams", ""] {
        assert!(parse_fake_options(&[format!("forward:{url}")]).is_err(), "{url}");
    }
}

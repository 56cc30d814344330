//! The playground's server: who may use it, what it shows, and what it never does.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use peergate::http;
use peergate::local::playground::Playground;
use peergate::local::stories::PeeringRequest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use url::Url;

const TOKEN_HEADER: &str = "x-playground-token";
const PATIENCE: Duration = Duration::from_mins(1);

/// A playground, and a page that has its token.
struct TestPage {
    base: Url,
    token: String,
    client: reqwest::Client,
}

impl TestPage {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let playground = Playground::start(listener, None).await.unwrap();
        let page = playground.page_url().unwrap();
        tokio::spawn(playground.serve());
        let token = page.path().trim_matches('/').to_owned();
        Self { base: page.join("/").unwrap(), token, client: http::new_client().unwrap() }
    }

    fn url(&self, path: &str) -> Url {
        self.base.join(path).unwrap()
    }

    async fn call(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.try_call(path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn try_call(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(self.url(&format!("/api/{path}"))).header(TOKEN_HEADER, &self.token);
        let response = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&http::read_body(response).await.unwrap()).unwrap_or_default())
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let request = self.client.get(self.url(path));
        let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
        request.send().await.unwrap()
    }

    /// The events after an id, as id, kind and data.
    async fn events_after(&self, id: u64) -> Vec<(u64, String, Value)> {
        let last = id.to_string();
        let mut response = self.get("/api/events", &[(TOKEN_HEADER, &self.token), ("last-event-id", &last)]).await;
        let (mut bytes, mut text) = (vec![], String::new());
        // The present state is always among them. What arrives at once may be a part, and end within a character.
        while !(text.contains("event: state\n") && text.ends_with("\n\n")) {
            bytes.extend_from_slice(&response.chunk().await.unwrap().unwrap());
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        let field = |event: &str, name: &str| {
            event.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap().to_owned()
        };
        let read = |event: &str| {
            let data = serde_json::from_str(&field(event, "data")).unwrap();
            (field(event, "id").parse().unwrap(), field(event, "event"), data)
        };
        text.trim().split("\n\n").map(read).collect()
    }

    /// The present state, once it is as wanted.
    async fn state_with(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let seen = async {
            loop {
                let events = self.events_after(0).await;
                let state = events.into_iter().rev().find(|(_, kind, _)| kind == "state").map(|(_, _, data)| data);
                last = state.unwrap_or_default();
                if wanted(&last) {
                    return last.clone();
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let found = timeout(PATIENCE, seen).await;
        found.unwrap_or_else(|_| panic!("not seen: {what}; {:#} {:#}", last["record"], last["watcher"]))
    }

    async fn request(&self) -> Value {
        let mut action = json!(PeeringRequest::default());
        action["do"] = "request".into();
        self.call("act", &action).await;
        self.state_with("a card", |state| state["platforms"][0]["messages"][0]["id"].is_string()).await
    }

    async fn approve(&self, by: &str) -> Value {
        self.call("act", &json!({"do": "click", "by": by, "app": "slack", "button": "Approve"})).await
    }

    /// A slow machine may need more time than Slack gives, so people try again.
    async fn approve_until_it_counts(&self, by: &str) {
        for _ in 0..10 {
            let answer = self.approve(by).await;
            let text = answer["private"]["text"].as_str().unwrap_or_default();
            if ["counts", "You approved", "already decided", "is stored"].iter().any(|words| text.contains(words)) {
                return;
            }
        }
        panic!("the approval of {by} does not count");
    }

    async fn export(&self) -> Value {
        let exported = self.get("/api/export", &[(TOKEN_HEADER, &self.token)]).await;
        serde_json::from_slice(&http::read_body(exported).await.unwrap()).unwrap()
    }

    /// The exchange with this path, once it is recorded.
    async fn exchange_at(&self, path: &str) -> Value {
        let seen = async {
            loop {
                if let Some(found) = self.exchanges().await.into_iter().find(|it| it["path"] == path) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("not recorded: {path}"))
    }

    async fn exchanges(&self) -> Vec<Value> {
        let events = self.events_after(0).await;
        events.into_iter().filter(|(_, kind, _)| kind == "http").map(|(_, _, data)| data).collect()
    }
}

#[tokio::test]
async fn playground_answers_only_who_has_its_token() {
    let page = TestPage::start().await;
    for (path, headers) in
        [("/api/stories", vec![]), ("/api/stories", vec![(TOKEN_HEADER, "0123")]), ("/api/events", vec![])]
    {
        assert_eq!(page.get(path, &headers).await.status(), 401, "{path}");
    }
    let token = &page.token;
    let below = format!("/{token}/main.js");
    for path in ["/main.js", "/0123/", "/0123/main.js", "/", "/page/", "/page/index.html", "/page/../main.js", &below] {
        assert_eq!(page.get(path, &[]).await.status(), 404, "{path}");
    }
    for path in ["/page/main.js", "/page/cards/slack.js", "/page/icon.svg"] {
        assert_eq!(page.get(path, &[]).await.status(), 200, "{path}");
    }
    let shown = page.get(&format!("/{token}/"), &[]).await;
    assert_eq!(shown.status(), 200);
    let policy = shown.headers()["content-security-policy"].to_str().unwrap();
    assert_eq!(
        policy,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    let expected = [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    for (name, value) in expected {
        assert_eq!(shown.headers()[name], value);
    }
    let text = String::from_utf8(http::read_body(shown).await.unwrap().to_vec()).unwrap();
    assert!(!text.contains("<script>") && !text.contains(" style=") && !text.contains("https://"), "{text}");
}

#[tokio::test]
async fn playground_refuses_other_hosts_and_other_pages() {
    let page = TestPage::start().await;
    let token = (TOKEN_HEADER, page.token.as_str());
    let own = page.base.as_str().trim_end_matches('/');
    for origin in ["https://evil.example", "null", "http://localhost"] {
        assert_eq!(page.get("/api/stories", &[token, ("origin", origin)]).await.status(), 403, "{origin}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example"] {
        assert_eq!(page.get("/api/stories", &[token, ("host", host)]).await.status(), 403, "{host}");
        assert_eq!(page.get(&format!("/{}/", page.token), &[("host", host)]).await.status(), 403, "{host}");
    }
    for site in ["cross-site", "same-site"] {
        assert_eq!(page.get("/api/stories", &[token, ("sec-fetch-site", site)]).await.status(), 403, "{site}");
    }
    assert_eq!(
        page.get("/api/stories", &[token, ("origin", own), ("sec-fetch-site", "same-origin")]).await.status(),
        200
    );
    assert_eq!(page.get("/healthz", &[]).await.status(), 200);
    // The webhook is for programs that sign, not for pages.
    assert_eq!(page.get("/healthz", &[("origin", own)]).await.status(), 403);
}

#[tokio::test]
async fn web_page_reaches_neither_fake_nor_webhook() {
    let page = TestPage::start().await;
    let state = page.request().await;
    let addresses = format!("{} {}", state["config"], page.export().await);
    let ports = addresses.split("http://127.0.0.1:").skip(1).filter_map(|rest| rest.get(..5)?.parse::<u16>().ok());
    let mut servers: Vec<_> = ports.map(|port| Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap()).collect();
    servers.sort();
    servers.dedup();
    assert_eq!(servers.len(), 5, "Alibaba Cloud and four platforms: {servers:?}");
    servers.push(page.base.clone());
    for server in &servers {
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("host", "evil.example"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            for path in ["audit", "fake/clicks", "_simulator/faults", "hooks/netops"] {
                let request = page.client.post(server.join(path).unwrap()).header(name, value).body("null");
                assert_eq!(request.send().await.unwrap().status(), 403, "{server}{path} {name}: {value}");
            }
        }
        page.client.get(server.join("a-program").unwrap()).send().await.unwrap();
    }
    let sent = |exchanges: &[Value], path: &str| exchanges.iter().filter(|it| it["path"] == path).count();
    timeout(PATIENCE, async { while sent(&page.exchanges().await, "/a-program") < servers.len() {} }).await.unwrap();
    let exchanges = page.exchanges().await;
    for path in ["/fake/clicks", "/_simulator/faults"] {
        assert_eq!(sent(&exchanges, path), 0, "{path}");
    }
    assert!(exchanges.iter().all(|it| it["status"] != 403), "{exchanges:?}");
}

#[tokio::test]
async fn two_clicks_activate_and_events_are_replayed() {
    let page = TestPage::start().await;
    page.request().await;
    page.approve_until_it_counts("alice").await;
    let state = page.state_with("one approval", |state| state["people"][0]["note"] == "approved").await;
    assert_eq!(state["people"][1]["note"], "needed");
    page.approve_until_it_counts("bob").await;
    let state = page.state_with("the end", |state| state["record"]["state"] == "activated").await;
    assert_eq!(state["record"]["verify"]["holds"], true);
    assert_eq!(state["rules"]["deciding"], 1);
    let all = page.events_after(0).await;
    let ids: Vec<_> = all.iter().map(|(id, _, _)| *id).collect();
    assert!(ids.is_sorted() && ids.len() > 10, "{ids:?}");
    let (middle, _, _) = all[all.len() / 2];
    let later = page.events_after(middle).await;
    assert!(later.iter().all(|(id, _, _)| *id > middle) && !later.is_empty());
    let places: std::collections::BTreeSet<_> =
        page.exchanges().await.iter().map(|it| it["place"].as_str().unwrap().to_owned()).collect();
    assert!(["alicloud", "channel", "people", "webhook"].iter().all(|place| places.contains(*place)), "{places:?}");
}

#[tokio::test]
async fn shown_exchanges_have_no_secrets() {
    let page = TestPage::start().await;
    page.request().await;
    page.approve_until_it_counts("alice").await;
    page.call("act", &json!({"do": "click", "by": "bob", "app": "feishu", "button": "Approve"})).await;
    page.state_with("the end", |state| state["record"]["state"] == "activated").await;
    let exported = page.export().await;
    let secrets = exported["secrets"].to_string();
    // A secret in a place where none belongs.
    let audit = exported["secrets"]["channels"]["audit"]["url"].as_str().unwrap();
    let misplaced =
        json!({"text": "xoxb-sandbox-token", "type": exported["secrets"]["clients"]["ci"], "id": page.token});
    page.client.post(format!("{audit}?x=accepter-secret")).body(misplaced.to_string()).send().await.unwrap();
    page.exchange_at("/audit?x=‹redacted›").await;
    let shown = json!(page.events_after(0).await.into_iter().map(|(_, _, data)| data).collect::<Vec<_>>()).to_string();
    assert!(!shown.contains(&page.token));
    for secret in [
        "xoxb-sandbox-token",
        "accepter-secret",
        "fakeAppSecret0123456789abcdefghi",
        "v0=",
        "Signature=",
        "tenant_access_token\\\":\\\"t-",
    ] {
        assert!(!shown.contains(secret), "{secret}");
    }
    assert!(secrets.contains("xoxb-sandbox-token") && exported["config"].as_str().unwrap().contains("[[rule]]"));
}

#[tokio::test]
async fn clicks_in_dingtalk_and_teams_decide() {
    let page = TestPage::start().await;
    page.request().await;
    for (by, app, place) in [("alice", "dingtalk", 2), ("bob", "teams", 3)] {
        let click = json!({"do": "click", "by": by, "app": app, "button": "Approve"});
        let has_card = |state: &Value| !state["platforms"][place]["messages"].as_array().unwrap().is_empty();
        page.state_with("a card", has_card).await;
        let answer = page.call("act", &click).await;
        assert_eq!(answer["private"]["to"], by, "{answer}");
        assert_ne!(answer["private"]["text"], "", "{answer}");
        page.state_with("the private answer", |state| state["platforms"][place]["private"][0]["to"] == by).await;
    }
    page.state_with("the end", |state| state["record"]["state"] == "activated").await;
    let exported = page.export().await;
    let shown = json!(page.exchanges().await).to_string();
    assert!(shown.contains("/dingtalk/‹redacted›") && shown.contains("/teams"), "{shown}");
    let platforms = &exported["secrets"]["platforms"];
    for secret in [
        &platforms["dingtalk"]["path_secrets"][0],
        &platforms["dingtalk"]["api_secrets"][0],
        &platforms["dingtalk"]["app_secrets"][0],
        &platforms["teams"]["client_secrets"][0],
    ] {
        assert!(!shown.contains(secret.as_str().unwrap()), "{secret}");
    }
    for part in ["fake-bot-token-", "dt-0000", "Bearer "] {
        assert!(!shown.contains(part), "{part}");
    }
}

#[tokio::test]
async fn configuration_with_a_foreign_endpoint_connects_nowhere() {
    let page = TestPage::start().await;
    let state = page.request().await;
    let config = state["config"].as_str().unwrap();
    let foreign = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let foreign_url = format!("http://{}/", foreign.local_addr().unwrap());
    let ours = config.split("endpoint = \"").nth(1).unwrap().split('"').next().unwrap();
    let (status, answer) =
        page.try_call("act", &json!({"do": "rules", "config": config.replace(ours, &foreign_url)})).await;
    assert_eq!(status, 422);
    assert!(answer["error"].as_str().unwrap().contains("connects to its own fakes only"), "{answer}");
    let validated = page.client.post(page.url("/api/validate")).header(TOKEN_HEADER, &page.token);
    let validated = validated.body(config.replace(ours, &foreign_url)).send().await.unwrap();
    let validated: Value = serde_json::from_slice(&http::read_body(validated).await.unwrap()).unwrap();
    assert_eq!(validated["valid"], false);
    assert!(timeout(Duration::from_millis(10), foreign.accept()).await.is_err());
}

#[tokio::test]
async fn confined_client_reaches_its_own_servers_only() {
    let page = TestPage::start().await;
    let ours = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours_url = Url::parse(&format!("http://{}/", ours.local_addr().unwrap())).unwrap();
    let foreign = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let foreign_url = format!("http://{}/", foreign.local_addr().unwrap());
    let clients = http::Clients::confined(vec![ours_url.clone()], page.base.clone(), "test").unwrap();
    let client = clients.latest().client;
    for url in [foreign_url.as_str(), "http://vpcpeer.aliyuncs.com/", "http://localhost:9/"] {
        assert_eq!(client.get(url).send().await.unwrap().status(), 403, "{url}");
    }
    client.get("https://vpcpeer.aliyuncs.com/").send().await.unwrap_err();
    assert!(timeout(Duration::from_millis(10), foreign.accept()).await.is_err());
    let (sent, accepted) = tokio::join!(
        timeout(Duration::from_millis(200), client.get(ours_url).send()),
        timeout(PATIENCE, ours.accept())
    );
    assert!(sent.is_err() && accepted.unwrap().is_ok());
}

#[tokio::test]
async fn tampering_makes_verify_fail_on_a_copy_only() {
    let page = TestPage::start().await;
    page.request().await;
    page.approve_until_it_counts("alice").await;
    page.state_with("a decision", |state| state["record"]["entries"].as_array().is_some_and(|it| it.len() == 2)).await;
    let tampered = page.call("tamper", &json!({"entry": 1})).await;
    assert_eq!((&tampered["was"], &tampered["now"]), (&json!("alice"), &json!("mallory")));
    let says = tampered["says"].as_str().unwrap();
    assert!(says.contains("prod/pcc-sim00000001: entry 1 does not follow from those before it"), "{says}");
    let state = page.state_with("the record", |state| state["record"]["verify"]["holds"] == true).await;
    assert_eq!(state["record"]["verify"]["says"], "1 record with 2 entries: all valid");
    assert_eq!(page.try_call("tamper", &json!({"entry": 9})).await.0, 422);
}

#[tokio::test]
async fn copied_requests_are_signed_afresh() {
    let page = TestPage::start().await;
    page.request().await;
    page.approve_until_it_counts("alice").await;
    let exchanges = page.exchanges().await;
    let clicked = exchanges.iter().find(|it| it["server"] == "webhook").unwrap();
    let event = page.call("copy", &json!({"number": clicked["number"], "form": "event"})).await;
    let event: Value = serde_json::from_str(event["text"].as_str().unwrap()).unwrap();
    let request = page.client.post(page.url(event["rawPath"].as_str().unwrap()));
    let headers = event["headers"].as_object().unwrap();
    let request = headers.iter().fold(request, |it, (name, value)| it.header(name, value.as_str().unwrap()));
    let replayed = request.body(event["body"].as_str().unwrap().to_owned()).send().await.unwrap();
    assert_eq!(replayed.status(), 200);
    for exchange in
        exchanges.iter().filter(|it| ["alicloud", "slack", "webhook"].contains(&it["server"].as_str().unwrap()))
    {
        let copied = page.call("copy", &json!({"number": exchange["number"], "form": "curl"})).await;
        let command = copied["text"].as_str().unwrap().to_owned();
        if !["ListVpcPeerConnections", "POST /slack"].contains(&exchange["name"].as_str().unwrap()) {
            continue;
        }
        let ran = Command::new("sh").args(["-c", &format!("{command} -w '%{{http_code}}'")]).output().await;
        let printed = String::from_utf8(ran.unwrap().stdout).unwrap();
        assert!(printed.ends_with("200"), "{command}\n{printed}");
    }
    let (status, _) = page.try_call("copy", &json!({"number": 1, "form": "event"})).await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn copied_request_stays_on_its_own_server() {
    let page = TestPage::start().await;
    let audit = page.export().await["secrets"]["channels"]["audit"]["url"].as_str().unwrap().to_owned();
    let foreign = audit.replace("/audit", "//evil.example/x?y=1");
    page.client.get(&foreign).send().await.unwrap();
    let exchange = page.exchange_at("//evil.example/x?y=1").await;
    let copied = page.call("copy", &json!({"number": exchange["number"], "form": "curl"})).await;
    let command = copied["text"].as_str().unwrap();
    assert!(command.starts_with(&format!("curl -sS --globoff '{foreign}'")), "{command}");
}

#[tokio::test]
async fn killed_webhook_has_stored_its_decision() {
    let page = TestPage::start().await;
    page.request().await;
    page.approve_until_it_counts("alice").await;
    page.call("act", &json!({"do": "kill_watcher"})).await;
    page.call("act", &json!({"do": "kill_webhook", "armed": true})).await;
    assert_eq!(page.approve("bob").await["status"], 502);
    let state = page.state_with("the decision", |state| state["record"]["state"] == "approved").await;
    assert_eq!((&state["status"], &state["webhook_armed"]), (&json!("Accepting"), &json!(false)));
    let accepts = |exchanges: &[Value]| {
        exchanges.iter().filter(|it| it["name"] == "AcceptVpcPeerConnection" && it["note"] == "").count()
    };
    assert_eq!(accepts(&page.exchanges().await), 0);
    page.call("act", &json!({"do": "start_watcher"})).await;
    page.state_with("the end", |state| state["record"]["state"] == "activated").await;
    assert_eq!(accepts(&page.exchanges().await), 1);
}

#[tokio::test]
async fn faults_of_alibaba_cloud_are_survived() {
    let page = TestPage::start().await;
    page.request().await;
    page.call("act", &json!({"do": "fault", "fault": "lose_answer", "on": true})).await;
    page.approve_until_it_counts("alice").await;
    page.approve_until_it_counts("bob").await;
    let state = page.state_with("the end", |state| state["record"]["state"] == "activated").await;
    let faults: Vec<_> = state["faults"].as_array().unwrap().iter().filter(|it| it["on"] == true).collect();
    assert_eq!(faults.len(), 1);
    assert!(state["record"]["token"].is_string(), "{:#}", state["record"]);
    let shown = json!([state["record"], state["platforms"]]).to_string();
    assert!(shown.contains("approved by bob") && !shown.contains("outside peergate"), "{shown}");
}

#[tokio::test]
async fn opened_scenario_waits_for_its_first_step() {
    let page = TestPage::start().await;
    page.request().await;
    let shared = page.call("share", &json!({})).await;
    let shared = shared["text"].as_str().unwrap();
    assert!(!shared.contains(&page.token) && !shared.contains("127.0.0.1"));
    let opened = page.call("open", &json!({"text": shared})).await;
    assert_eq!(opened["steps"][0]["action"]["do"], "request");
    let state = page.state_with("the scenario", |state| state["scenario"]["played"] == 0).await;
    assert_eq!(state["current"], Value::Null);
    for text in ["", "#story=none", "#play=%%", "#play=e30", &"x".repeat(70_000)] {
        assert_eq!(page.try_call("open", &json!({"text": text})).await.0, 422, "{text}");
    }
    page.call("open", &json!({"text": "http://127.0.0.1:1/#story=forged&step=2"})).await;
    for step in 1..=3 {
        let played = page.call("step", &json!({})).await;
        assert!(played["seen"].as_array().unwrap().iter().all(|it| it["seen"] == true), "{step}: {played}");
    }
    assert_eq!(page.try_call("step", &json!({})).await.0, 422);
    let shared = page.call("share", &json!({})).await;
    assert_eq!(shared["text"], "#story=forged&step=3");
}

#[tokio::test]
async fn clock_that_moves_too_far_is_refused() {
    let page = TestPage::start().await;
    page.request().await;
    page.call("act", &json!({"do": "event", "by": "alice", "verb": "status"})).await;
    for action in
        [json!({"do": "advance", "minutes": u32::MAX}), json!({"do": "replay", "later_minutes": 10 * 366 * 24 * 60})]
    {
        let (status, answer) = page.try_call("act", &action).await;
        assert_eq!(
            (status, &answer["error"]),
            (422, &json!("the clock moves at most ten years ahead in all")),
            "{action}"
        );
    }
    let years = json!({"do": "advance", "minutes": 6 * 365 * 24 * 60});
    page.call("act", &years).await;
    assert_eq!(page.try_call("act", &years).await.0, 422);
    let shared = json!({"actions": [years, years]}).to_string();
    let shared = format!("#play={}", BASE64_URL_SAFE_NO_PAD.encode(shared));
    assert_eq!(page.try_call("open", &json!({"text": shared})).await.0, 422);
    page.state_with("the clock ahead", |state| state["clock"]["ahead_ms"] == 6 * 365 * 86_400_000_i64).await;
    page.call("reset", &json!({})).await;
    page.state_with("the real time", |state| state["clock"]["ahead_ms"] == 0).await;
    page.request().await;
}

#[tokio::test]
async fn stopped_playground_leaves_no_files() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_peergate"));
        command.arg("playground").env("TMPDIR", temporary.path()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = async { while !lines.next_line().await.unwrap().unwrap().starts_with("http://127.0.0.1:") {} };
        timeout(PATIENCE, address).await.unwrap();
        let made: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(made.len(), 1, "{made:?}");
        assert_eq!(made[0].metadata().unwrap().permissions().mode() & 0o777, 0o700);
        kill_process(Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap(), signal).unwrap();
        let ended = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{signal:?}: {ended}");
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "{signal:?}");
    }
}

#[tokio::test]
async fn shared_clicks_are_played_on_their_own_cards() {
    let page = TestPage::start().await;
    let first = page.request().await["platforms"][0]["messages"][0]["id"].clone();
    let mut second = json!(PeeringRequest { vpc: "vpc-second".into(), ..PeeringRequest::default() });
    second["do"] = "request".into();
    page.call("act", &second).await;
    page.state_with("two cards", |state| state["platforms"][0]["messages"][1]["id"].is_string()).await;
    page.call("act", &json!({"do": "click", "by": "alice", "app": "slack", "button": "Approve", "message": first}))
        .await;
    let is_first = |state: &Value| state["current"] == "pcc-sim00000001" && state["people"][0]["note"] == "approved";
    page.state_with("that the request of the clicked card is shown", is_first).await;
    let shared = page.call("share", &json!({})).await;
    page.call("open", &json!({"text": shared["text"]})).await;
    page.state_with("the fresh stage", |state| state["generation"] == 2).await;
    for _ in 0..3 {
        page.call("step", &json!({})).await;
    }
    page.state_with("the approval of the first request", is_first).await;
}

#[tokio::test]
async fn calls_that_are_too_large_are_refused() {
    let page = TestPage::start().await;
    let (status, _) = page.try_call("open", &json!({"text": "x".repeat(300_000)})).await;
    assert_eq!(status, 413);
}

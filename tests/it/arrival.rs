//! What platforms and API Gateway really send: tests of the address, paths with prefixes, and names that are cut within a
//! character. And by when the answer is with its sender.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::prelude::*;
use bytes::Bytes;
use peergate::chat::SignedRequest;
use peergate::envelope::{self, HttpEvent};
use peergate::fake::slack::visible_text;
use peergate::{metrics, webhook};
use tokio::time::{Instant, sleep};

const FORM: &str = "application/x-www-form-urlencoded";

fn request(method: &str, uri: &str, body: &str) -> http::Request<Bytes> {
    let request = http::Request::builder().method(method).uri(uri).header("content-type", FORM);
    request.body(Bytes::from(body.to_owned())).unwrap()
}

/// The app, whose secrets cannot be read.
fn without_secrets(app: &TestApp) -> peergate::app::App {
    let mut environment = app.environment.clone();
    environment.secrets = peergate::config::SecretsSource::File("/nonexistent".into());
    peergate::app::App::new(&environment, peergate::config::Config::parse(&app.config).unwrap()).unwrap()
}

#[tokio::test]
async fn slacks_certificate_check_gets_an_empty_answer() {
    let app = TestApp::start().await;
    let function = without_secrets(&app);
    let counted = MetricsRecorder::start();
    for (method, uri, body) in [
        ("POST", "/slack", "ssl_check=1&token=gIkuvaNzQIHg97ATvDxqgjtO"),
        ("POST", "/slack", "token=gIkuvaNzQIHg97ATvDxqgjtO&ssl_check=1"),
        ("POST", "/slack", "ssl_check=1"),
        ("GET", "/slack?ssl_check=1&token=abc", ""),
        ("GET", "/slack?ssl_check=1", ""),
        ("GET", "/slack/?ssl_check=1", ""),
    ] {
        let response = webhook::handle_request(&function, request(method, uri, body), clock::now()).await;
        assert_eq!((response.status().as_u16(), response.body().as_str()), (200, ""), "{method} {uri} {body}");
    }
    let plain = http::Request::post("/slack").body(Bytes::from_static(b"ssl_check=1&token=abc")).unwrap();
    assert_eq!(webhook::handle_request(&function, plain, clock::now()).await.status(), 200, "without a content type");
    // Slack signs it nowadays, but nothing depends on that.
    let signed = app.sign_slack_form(&[("ssl_check", "1"), ("token", "abc")]).await;
    let reply = app.send(&signed).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert_eq!(sum_counts(&counted.take_counts(), metrics::SIGNATURE_FAILURES), 0.0);
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn certificate_check_with_anything_beside_it_is_no_check() {
    let app = TestApp::start().await;
    let long = format!("ssl_check=1&token={}", "a".repeat(300));
    let approve = "ssl_check=1&command=%2Fpeergate&team_id=T0001&user_id=U061F7AUR&api_app_id=A0123&text=approve+pcc-a";
    for (method, uri, body, status) in [
        ("POST", "/slack", "ssl_check=0", 401),
        ("POST", "/slack", "ssl_check=0&token=abc", 401),
        ("POST", "/slack", "ssl_check=true", 401),
        ("POST", "/slack", "ssl_check=11", 401),
        ("POST", "/slack", "ssl_check=", 401),
        ("POST", "/slack", "ssl_check", 401),
        ("POST", "/slack", "SSL_CHECK=1", 401),
        ("POST", "/slack", "token=abc", 401),
        ("POST", "/slack", "", 401),
        ("POST", "/slack", "ssl_check=1&ssl_check=1", 401),
        ("POST", "/slack", "ssl_check=1&token=a&token=b", 401),
        ("POST", "/slack", "ssl_check=1&payload=%7B%7D", 401),
        ("POST", "/slack", "ssl_check=1&text=list", 401),
        ("POST", "/slack", "ssl_check=1&token=abc&text=list", 401),
        ("POST", "/slack", approve, 401),
        ("POST", "/slack", &long, 401),
        ("POST", "/slack?ssl_check=1", "", 401),
        ("POST", "/slack?ssl_check=1", "ssl_check=1", 401),
        ("GET", "/slack?ssl_check=0", "", 405),
        ("GET", "/slack?ssl_check=1&text=list", "", 405),
        ("GET", "/slack?ssl_check=1", "ssl_check=1", 405),
        ("GET", "/slack", "ssl_check=1", 405),
        ("GET", "/slack", "", 405),
        ("PUT", "/slack", "ssl_check=1", 405),
        ("HEAD", "/slack?ssl_check=1", "", 405),
        ("POST", "/webhook/ci", "ssl_check=1", 415),
        ("GET", "/webhook/ci?ssl_check=1", "", 405),
        ("GET", "/nothing?ssl_check=1", "", 404),
    ] {
        let reply = app.call_webhook(request(method, uri, body), clock::now()).await;
        assert_eq!(reply.status, status, "{method} {uri} {body}: {}", reply.body);
    }
    // A signed request with `ssl_check` is handled like any other request.
    let text = app.sign_slack_form(&[("ssl_check", "1"), ("text", "list")]).await;
    assert_eq!(app.send(&text).await.status, 400);
    assert_eq!(app.count_upstream_calls(), 0);
}

/// The event of an HTTP API for a signed request.
fn event(signed: &SignedRequest, path: &str, stage: &str) -> HttpEvent {
    let headers: serde_json::Map<_, _> =
        signed.headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    serde_json::from_value(json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": headers,
        "requestContext": {
            "domainName": "abcdefghij.execute-api.eu-central-1.amazonaws.com", "stage": stage,
            "http": {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.1"},
        },
        "body": signed.body, "isBase64Encoded": false,
    }))
    .unwrap()
}

#[tokio::test]
async fn stage_and_base_path_in_front_of_the_path_are_ignored() {
    let app = TestApp::start().await.with_change("[targets.prod]", "base_path = \"/ops/peergate\"\n\n[targets.prod]");
    let of_client = app.sign_body(r#"{"type":"peering.list","data":{"actor":"alice"}}"#);
    let list = app.sign_slash_command("list", ALICE).await;
    for (path, stage) in [
        ("", "$default"),
        ("/prod", "prod"),
        ("/slack", "slack"),
        ("/webhook", "webhook"),
        ("/ops/peergate", "$default"),
        ("/prod/ops/peergate", "prod"),
        ("/ops/peergate", "prod"),
        ("/", "$default"),
        ("//prod/", "prod"),
    ] {
        for signed in [&of_client, &list] {
            for end in ["", "/", "//"] {
                let path = format!("{path}{}{end}", signed.path);
                let event = event(signed, &path, stage);
                let response = webhook::handle_event(&app.parts, event, clock::now()).await;
                assert_eq!(response.status(), 200, "{path} in {stage}: {}", response.body());
            }
        }
        let event = event(&SignedRequest { headers: vec![], body: String::new(), ..list.clone() }, path, stage);
        assert_ne!(webhook::handle_event(&app.parts, event, clock::now()).await.status(), 200, "{path} in {stage}");
    }
    let reply = app.call_webhook(request("GET", "/ops/peergate/healthz", ""), clock::now()).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"status":"ok"}"#));
}

#[tokio::test]
async fn other_prefix_leads_to_no_path() {
    let app = TestApp::start().await.with_change("[targets.prod]", "base_path = \"/ops/peergate\"\n\n[targets.prod]");
    let list = app.sign_slash_command("list", ALICE).await;
    for (path, stage) in [
        ("/prod/slack", "$default"),
        ("/prod/slack", "production"),
        ("/production/slack", "prod"),
        ("/prod/prod/slack", "prod"),
        ("/ops/slack", "$default"),
        ("/peergate/slack", "$default"),
        ("/ops/peergates/slack", "$default"),
        ("/ops/peergate/ops/peergate/slack", "$default"),
        ("/ops/peergate/slack/more", "$default"),
        ("/Slack", "$default"),
        ("/", "$default"),
    ] {
        let response = webhook::handle_event(&app.parts, event(&list, path, stage), clock::now()).await;
        assert_eq!(response.status(), 404, "{path} in {stage}");
    }
    // A client is named by the path alone.
    let status = app.sign_event("status", &InstanceId::parse("pcc-a").unwrap(), "alice").await;
    for (path, expected) in [("/webhook/nobody", 401), ("/webhook/ci/nobody", 404), ("/webhook", 404)] {
        let response = webhook::handle_event(&app.parts, event(&status, path, "$default"), clock::now()).await;
        assert_eq!(response.status().as_u16(), expected, "{path}");
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[test]
fn query_survives_the_removal_of_the_stage() {
    let event: HttpEvent = serde_json::from_value(json!({
        "version": "2.0", "rawPath": "/prod/slack", "rawQueryString": "ssl_check=1&token=a",
        "requestContext": {"stage": "prod", "http": {"method": "GET"}},
    }))
    .unwrap();
    assert_eq!(envelope::into_request(event).unwrap().uri(), "/slack?ssl_check=1&token=a");
}

#[tokio::test]
async fn only_fields_that_are_read_must_be_utf_8() {
    let app = TestApp::start().await;
    let sign = |body: &str| app.sign_slack_body_at(body, &clock::now().as_second().to_string());
    let used = "command=%2Fpeergate&text=list&team_id=T0001&user_id=U061F7AUR&api_app_id=A0123";
    for odd in
        ["user_name=caf%EF%BF%BD", "channel_name=%FF%FE", "team_domain=%E2%82", "%FF=1&%FE=2", "user_name=\u{FFFD}"]
    {
        let reply = app.send(&sign(&format!("{odd}&{used}"))).await;
        assert_eq!(reply.status, 200, "{odd}: {}", reply.body);
        assert!(reply.body.contains("No VPC peering is pending"), "{odd}: {}", reply.body);
    }
    for field in ["command", "text", "team_id", "user_id", "api_app_id"] {
        let odd = used.replacen(&format!("{field}="), &format!("{field}=%FF"), 1);
        assert_eq!(app.send(&sign(&odd)).await.status, 400, "{field}");
        assert_eq!(app.send(&sign(&format!("{used}&{field}=1"))).await.status, 400, "{field} twice");
    }
    assert_eq!(app.send(&sign("payload=%7B%22type%22%3A%22%FF%22%7D")).await.status, 400);
    assert_eq!(app.send(&sign(&format!("{used}&%FF=1&%FF=2"))).await.status, 400, "twice");
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn replacement_character_in_a_name_or_reason_is_kept() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    let card = app.only_card();
    let button = card.find_button("Approve").unwrap();
    let mut click = app.click_payload("peergate.approve", &button.value, ALICE);
    click["user"]["name"] = json!("Zo\u{FFFD}");
    click["user"]["username"] = json!("\u{FFFD}");
    app.send_slack_payload(&click).await;
    app.assert_accepts(&id, 1);
    let other = app.discovered_request("vpc-two-people").await;
    app.slash_command(&format!("approve {other} because caf\u{FFFD}"), ALICE).await;
    assert_eq!(app.approval(&other).await.decisions()[0].reason.as_deref(), Some("caf\u{FFFD}"));
}

/// Where Slack takes the answer to a click. Each request is answered by the next of its answers, the last one again and again.
struct ResponseUrl {
    url: String,
    taken: Arc<Mutex<Vec<Value>>>,
}

#[derive(Clone)]
struct Answering {
    status: u16,
    delay: Duration,
    retry_after: Option<&'static str>,
}

const OK: Answering = Answering { status: 200, delay: Duration::ZERO, retry_after: None };

impl ResponseUrl {
    /// The first `broken` connections end without an answer.
    async fn start(answers: Vec<Answering>, broken: usize) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let taken = Arc::<Mutex<Vec<Value>>>::default();
        let (kept, number) = (Arc::clone(&taken), Arc::new(AtomicUsize::new(0)));
        let router = axum::Router::new().fallback(move |body: axum::body::Bytes| {
            let number = number.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
            let (answer, kept) = (answers[number].clone(), Arc::clone(&kept));
            async move {
                kept.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                sleep(answer.delay).await;
                let mut response = http::Response::builder().status(answer.status);
                if let Some(seconds) = answer.retry_after {
                    response = response.header("retry-after", seconds);
                }
                response.body(axum::body::Body::from("ok")).unwrap()
            }
        });
        tokio::spawn(async move {
            for _ in 0..broken {
                drop(listener.accept().await.unwrap());
            }
            axum::serve(listener, router).await
        });
        Self { url, taken }
    }

    /// The texts of the requests so far.
    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(visible_text).collect()
    }
}

async fn stranger_clicks(answers: Vec<Answering>) -> (Duration, Vec<String>) {
    stranger_clicks_at(ResponseUrl::start(answers, 0).await).await
}

/// A stranger clicks Approve. Returns how long that took, and what was sent to the `response_url`.
async fn stranger_clicks_at(slack: ResponseUrl) -> (Duration, Vec<String>) {
    let app = TestApp::start().await;
    let own = format!("response_origins = [\"{}\"", app.chat_url);
    let app = app.with_change(&own, &format!("{own}, \"{}\"", slack.url));
    app.discovered_request("vpc-other").await;
    let card = app.only_card();
    let mut click = app.click_payload("peergate.approve", &card.find_button("Approve").unwrap().value, "U0STRANGER");
    click["response_url"] = json!(format!("{}response", slack.url));
    let begun = Instant::now();
    let reply = app.send_slack_payload(&click).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    (begun.elapsed(), slack.taken())
}

const REFUSED: &str = "You cannot decide on this VPC peering";

#[tokio::test]
async fn slow_answer_to_a_click_is_waited_for() {
    let (took, taken) = stranger_clicks(vec![Answering { delay: Duration::from_millis(900), ..OK }]).await;
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(taken.len() == 1 && taken[0].starts_with(REFUSED), "{taken:?}");
    assert!(!logged().contains("unanswered_click"));
}

#[tokio::test]
async fn failed_answer_to_a_click_is_sent_once_more() {
    for status in [500, 502, 503] {
        let (_, taken) = stranger_clicks(vec![Answering { status, ..OK }, OK]).await;
        assert!(taken.len() == 2 && taken[0] == taken[1] && taken[0].starts_with(REFUSED), "{status}: {taken:?}");
        assert!(!logged().contains("unanswered_click"), "{status}");
    }
    let (took, taken) = stranger_clicks(vec![Answering { status: 503, retry_after: Some("1"), ..OK }, OK]).await;
    assert!(taken.len() == 2 && took >= Duration::from_secs(1), "{took:?} {taken:?}");
    assert!(!logged().contains("unanswered_click"));
}

#[tokio::test]
async fn answer_to_a_click_survives_one_broken_connection() {
    let (_, taken) = stranger_clicks_at(ResponseUrl::start(vec![OK], 1).await).await;
    assert!(taken.len() == 1 && taken[0].starts_with(REFUSED), "{taken:?}");
    assert!(!logged().contains("unanswered_click"));
    let (_, taken) = stranger_clicks_at(ResponseUrl::start(vec![OK], 2).await).await;
    assert!(taken.is_empty() && logged().contains("unanswered_click"), "{taken:?}");
}

#[tokio::test]
async fn refused_answer_to_a_click_is_not_repeated() {
    for (answering, sent) in [
        (Answering { status: 404, ..OK }, 1),
        (Answering { status: 410, ..OK }, 1),
        (Answering { status: 503, retry_after: Some("60"), ..OK }, 1),
        (Answering { status: 503, ..OK }, 2),
    ] {
        let (_, taken) = stranger_clicks(vec![answering]).await;
        assert_eq!(taken.len(), sent);
    }
    assert_eq!(logged().matches("unanswered_click").count(), 4);
}

#[tokio::test]
async fn hanging_answer_to_a_click_ends_in_slacks_time() {
    let (took, taken) = stranger_clicks(vec![Answering { delay: Duration::from_hours(1), ..OK }]).await;
    // Slack gives up after 3 s. A busy machine may be slow.
    assert!((Duration::from_millis(2500)..Duration::from_secs(8)).contains(&took), "{took:?}");
    assert_eq!(taken.len(), 1);
    assert!(logged().contains("unanswered_click") && logged().contains("timeout"));
}

//! Odd, late and lost answers of Alibaba Cloud, and connections that die in silence.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::prelude::*;
use jiff::{SignedDuration, Timestamp};
use peergate::alicloud::sign::SignatureVersion;
use peergate::alicloud::{Alicloud, Class, Credentials, Error, ListScope, RequiredField};
use peergate::{clock, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use url::Url;

const ACCEPTER: Credentials<'_> =
    Credentials { access_key_id: "accepter-key", access_key_secret: "accepter-secret", security_token: None };

fn client(endpoint: &Url) -> Alicloud {
    Alicloud::new(http::Clients::new().unwrap(), endpoint.clone(), SignatureVersion::V3, u32::MAX)
}

/// A proxy before a server. Its connections can die: in silence, or with a reset at the next byte.
struct Route {
    url: Url,
    silent: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    resets: Arc<AtomicBool>,
}

impl Route {
    async fn to(server: &Url) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = format!("{}:{}", server.host_str().unwrap(), server.port().unwrap());
        let route = Self { url, silent: Arc::default(), opened: Arc::default(), resets: Arc::default() };
        let (silent, opened, resets) =
            (Arc::clone(&route.silent), Arc::clone(&route.opened), Arc::clone(&route.resets));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let number = opened.fetch_add(1, Ordering::SeqCst);
                let far = TcpStream::connect(&server).await.unwrap();
                let dead = Arc::new({
                    let silent = Arc::clone(&silent);
                    move || number < silent.load(Ordering::SeqCst)
                });
                tokio::spawn(carry(near, far, dead, Arc::clone(&resets)));
            }
        });
        route
    }

    /// All connections that exist die.
    fn forget(&self) -> usize {
        let all = self.opened.load(Ordering::SeqCst);
        self.silent.store(all, Ordering::SeqCst);
        all
    }
}

async fn carry(
    mut near: TcpStream,
    mut far: TcpStream,
    dead: Arc<impl Fn() -> bool + Send + Sync + 'static>,
    resets: Arc<AtomicBool>,
) {
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = near.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                if dead() {
                    if resets.load(Ordering::SeqCst) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_hours(1)).await;
                }
                far.write_all(&up[..read]).await.unwrap();
            }
            read = far.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                near.write_all(&down[..read]).await.unwrap();
            }
        }
    }
}

/// A client with two connections in its pool, as the functions have them.
async fn warmed(route: &Route, id: &InstanceId) -> Alicloud {
    let api = client(&route.url);
    let (one, other) = tokio::join!(api.get_connection(ACCEPTER, id), api.get_connection(ACCEPTER, id));
    one.and(other).unwrap();
    api
}

#[tokio::test]
async fn reading_on_a_dead_connection_costs_one_short_attempt() {
    let app = TestApp::start().await;
    let (route, id) = (Route::to(&app.alicloud_url).await, app.new_request().await);
    let api = warmed(&route, &id).await;
    assert_eq!(route.forget(), 2);
    let begun = Instant::now();
    api.get_connection(ACCEPTER, &id).await.unwrap();
    let took = begun.elapsed();
    assert!((Duration::from_millis(650)..Duration::from_millis(1500)).contains(&took), "{took:?}");
    let begun = Instant::now();
    let (page, got) = tokio::join!(
        api.list_connections(ACCEPTER, ListScope::of_region("cn-shanghai"), None),
        api.get_connection(ACCEPTER, &id)
    );
    assert_eq!((page.unwrap().connections.len(), got.unwrap().instance_id), (1, id.clone()));
    api.accept_connection(ACCEPTER, &id, "token", false).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(600), "nothing else goes to a dead connection");
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn reading_on_a_reset_connection_costs_nothing() {
    let app = TestApp::start().await;
    let (route, id) = (Route::to(&app.alicloud_url).await, app.new_request().await);
    let api = warmed(&route, &id).await;
    route.resets.store(true, Ordering::SeqCst);
    route.forget();
    let begun = Instant::now();
    api.list_connections(ACCEPTER, ListScope::of_region("cn-shanghai"), None).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn accept_is_sent_once_even_if_its_connection_dies() {
    for reset in [false, true] {
        let app = TestApp::start().await;
        let (route, id) = (Route::to(&app.alicloud_url).await, app.new_request().await);
        let api = warmed(&route, &id).await;
        route.resets.store(reset, Ordering::SeqCst);
        let opened = route.forget();
        match timeout(Duration::from_millis(1500), api.accept_connection(ACCEPTER, &id, "token", false)).await {
            Err(_elapsed) => assert!(!reset),
            Ok(answer) => {
                let error = answer.unwrap_err();
                assert!(reset && error.may_have_taken_effect(), "{error:?}");
                assert_eq!(error.code(), "Transport.Broken");
            }
        }
        assert_eq!(route.opened.load(Ordering::SeqCst), opened, "no other connection was tried");
        app.assert_accepts(&id, 0);
    }
}

#[tokio::test]
async fn store_with_dead_connections_costs_one_attempt() {
    let app = TestApp::start().await;
    let aws = &app.environment.aws;
    let route = Route::to(&aws.dynamodb_endpoint.as_ref().unwrap().parse().unwrap()).await;
    let sdk = peergate::aws::sdk_config(aws, http::Clients::new().unwrap());
    let (endpoint, table) = (route.url.to_string(), app.environment.table.clone());
    let retention = SignedDuration::from_hours(24);
    let store = peergate::store::Store::new(&sdk, Some(&endpoint), http::new_client().unwrap(), table, retention);
    let id =
        peergate::approval::ApprovalId { target: "prod".into(), instance_id: "pcc-a".to_owned().try_into().unwrap() };
    let (one, two, three) = tokio::join!(store.load(&id), store.load(&id), store.load(&id));
    assert!([one, two, three].iter().all(Result::is_ok));
    assert_eq!(route.forget(), 3);
    let begun = Instant::now();
    store.load(&id).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(2900), "{:?}", begun.elapsed());
    let begun = Instant::now();
    store.load(&id).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn slow_reading_keeps_its_connection() {
    let app = TestApp::with_settings(SimulatorSettings { latency: Duration::from_secs(1), ..quick_settings() }).await;
    let id = InstanceId::parse(&app.simulator.request_peering(&[]).unwrap()).unwrap();
    let route = Route::to(&app.alicloud_url).await;
    let api = client(&route.url);
    let begun = Instant::now();
    api.list_connections(ACCEPTER, ListScope::of_region("cn-shanghai"), None).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1600), "{:?}", begun.elapsed());
    let opened = route.opened.load(Ordering::SeqCst);
    api.list_connections(ACCEPTER, ListScope::of_region("cn-shanghai"), None).await.unwrap();
    assert_eq!((opened, route.opened.load(Ordering::SeqCst)), (2, 2), "the second time it is known to be slow");
    api.get_connection(ACCEPTER, &id).await.unwrap();
}

#[tokio::test]
async fn unsent_call_has_no_effect() {
    let api = client(&"http://127.0.0.1:9/".parse().unwrap());
    let error =
        api.accept_connection(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap(), "token", false).await.unwrap_err();
    assert_eq!((error.code(), error.may_have_taken_effect()), ("Transport.Connect", false));
}

/// Status, headers and body.
type Answer = (u16, Vec<(&'static str, String)>, String);

/// A server that gives each answer once, and the last one again and again. It records the dates of the requests.
struct Server {
    url: Url,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (answers, kept) = (Arc::new(answers), Arc::clone(&asked));
        let app = axum::Router::new().fallback(move |headers: axum::http::HeaderMap| {
            let (answers, kept) = (Arc::clone(&answers), Arc::clone(&kept));
            async move {
                let date = headers["x-acs-date"].to_str().unwrap().to_owned();
                let number = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(date);
                    kept.len().min(answers.len()) - 1
                };
                let (status, headers, body) = &answers[number];
                let mut response = axum::http::Response::builder().status(*status);
                for (name, value) in headers {
                    response = response.header(*name, value);
                }
                response.body(axum::body::Body::from(body.clone())).unwrap()
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, asked }
    }

    async fn get(status: u16, body: &str) -> Result<peergate::peering::Connection, Error> {
        let server = Self::start(vec![(status, vec![], body.to_owned())]).await;
        client(&server.url).get_connection(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap()).await
    }
}

fn deleted() -> Value {
    json!({"RequestId": "R", "InstanceId": "pcc-a", "Status": "Deleted"})
}

#[tokio::test]
async fn call_with_refused_time_is_resigned_once_with_vendor_time() {
    let there = clock::now() + SignedDuration::from_hours(2);
    let date = there.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for code in ["InvalidTimeStamp.Expired", "IllegalTimestamp"] {
        let refusal = || (400, vec![("date", date.clone())], json!({"Code": code, "RequestId": "R"}).to_string());
        let good = (200, vec![], deleted().to_string());
        let server = Server::start(vec![refusal(), good]).await;
        client(&server.url)
            .accept_connection(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap(), "token", false)
            .await
            .unwrap();
        let asked = server.asked.lock().unwrap().clone();
        let signed: Vec<Timestamp> = asked.iter().map(|date| date.parse().unwrap()).collect();
        let moved = signed[1].duration_since(signed[0]);
        assert!((moved - SignedDuration::from_hours(2)).abs() < SignedDuration::from_secs(5), "{moved}");

        let server = Server::start(vec![refusal()]).await;
        let error =
            client(&server.url).get_connection(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap()).await.unwrap_err();
        assert_eq!(
            (error.class(), server.asked.lock().unwrap().len()),
            (Class::Credentials, 2),
            "once more, not twice"
        );
        assert!(!error.may_have_taken_effect());
    }
}

#[tokio::test]
async fn refusal_in_the_body_counts_whatever_the_status() {
    let with = |more: Value| {
        let mut body = deleted();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    for fine in [
        json!({}),
        json!({"Code": "200"}),
        json!({"Code": 200}),
        json!({"Code": "OK"}),
        json!({"code": "success"}),
        json!({"Code": null}),
        json!({"Success": true}),
    ] {
        assert!(Server::get(200, &with(fine.clone())).await.is_ok(), "{fine}");
    }
    for (refusal, code, class) in [
        (json!({"Code": "Throttling.User"}), "Throttling.User", Class::Retry),
        (json!({"code": "Forbidden.RAM"}), "Forbidden.RAM", Class::Credentials),
        (json!({"Success": false}), "UnreadableCode", Class::Unknown),
        (json!({"Code": 500}), "500", Class::Unknown),
    ] {
        let error = Server::get(200, &with(refusal)).await.unwrap_err();
        assert_eq!((error.code(), error.class()), (code, class));
    }
    for (status, body, code) in [
        (400, json!({"Code": "OK"}).to_string(), "UnreadableCode"),
        (400, json!({"Code": "A\nERROR forged"}).to_string(), "UnreadableCode"),
        (400, json!({"Code": "A".repeat(300)}).to_string(), "A".repeat(80).as_str()),
        (502, "<html>".to_owned(), "Transport.Unreadable"),
        (400, json!({"Message": "m"}).to_string(), "Transport.Unreadable"),
        (200, String::new(), "Transport.Unreadable"),
        (200, "[]".to_owned(), "Transport.Unreadable"),
    ] {
        assert_eq!(Server::get(status, &body).await.unwrap_err().code(), code, "{status} {body}");
    }
    let forged = json!({"Code": "Throttling", "RequestId": "R\n{\"outcome\":\"accepted\"}"}).to_string();
    assert_eq!(Server::get(400, &forged).await.unwrap_err().request_id(), None);
}

#[tokio::test]
async fn answer_about_another_connection_is_refused() {
    for id in [json!("pcc-b"), json!(null), json!(7)] {
        let body = json!({"RequestId": "R", "InstanceId": id, "Status": "Deleted"}).to_string();
        let error = Server::get(200, &body).await.unwrap_err();
        assert!(matches!(error, Error::NotUnderstood { field: RequiredField::InstanceId, .. }), "{error:?}");
        assert_eq!((error.code(), error.request_id()), ("NotUnderstood.InstanceId", Some("R")));
    }
}

#[tokio::test]
async fn requested_wait_is_read_from_either_header() {
    for (headers, expected) in [
        (vec![("x-acs-retry-after", "1500.5".to_owned()), ("retry-after", "9".to_owned())], Some(1501)),
        (vec![("x-acs-retry-after", "99999999999999999999".to_owned())], Some(i128::from(u32::MAX))),
        (vec![("retry-after", "86400".to_owned())], Some(86_400_000)),
        (vec![("retry-after", "30.5".to_owned())], Some(31_000)),
        (vec![("x-acs-retry-after", "soon".to_owned())], None),
    ] {
        let refusal = json!({"Code": "Throttling.User"}).to_string();
        let server = Server::start(vec![(400, headers.clone(), refusal)]).await;
        let error =
            client(&server.url).get_connection(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap()).await.unwrap_err();
        assert_eq!(error.retry_after().map(|wait| wait.as_millis()), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn unreadable_field_is_named_in_the_reply() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.simulator.disguise(id.as_str(), &[("Bandwidth", r#""unlimited""#)]);
    for verb in ["approve", "status", "dry-run"] {
        let reply = app.send_event(verb, &id, "alice").await;
        assert_eq!((reply.status, reply.name().as_str()), (502, "not-understood"), "{verb}");
        assert!(reply.problem_detail().contains("Bandwidth"), "{}", reply.problem_detail());
        assert_eq!(reply.body_json()["problem"]["code"], "NotUnderstood.Bandwidth");
    }
    app.discover().await;
    app.assert_state(&id, "none").await;
    let log = logged();
    let named =
        |line: &str| line.contains("not_understood") && line.contains(id.as_str()) && line.contains("Bandwidth");
    assert!(log.lines().any(named), "{log}");
    app.simulator.disguise(id.as_str(), &[]);
    assert_eq!(app.approve(&id, "alice").await.name(), "accepted");
}

#[tokio::test]
async fn malformed_display_field_hides_no_request() {
    let app = TestApp::start().await;
    for (field, odd) in [
        ("Name", r#""team \ud83d""#),
        ("Description", "7"),
        ("GmtExpired", r#""2126-12-01 10:00:00""#),
        ("BizStatus", "null"),
        ("OwnerId", r#""1111111111111111""#),
        ("LinkType", "[1]"),
    ] {
        let vpc = format!("vpc-{}", field.to_lowercase());
        let id = InstanceId::parse(&app.simulator.request_peering(&[("VpcId", &vpc)]).unwrap()).unwrap();
        app.simulator.disguise(id.as_str(), &[(field, odd)]);
        app.discover().await;
        assert_eq!(app.state_of(&id).await, "pending", "{field}");
        let reply = app.approve(&id, "alice").await;
        assert_eq!(reply.name(), "accepted", "{field}: {}", reply.body);
    }
}

#[tokio::test]
async fn repeating_list_is_abandoned_and_blocks_nothing_else() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let page = |ids: &[&str]| {
        let listed: Vec<_> = ids.iter().map(|id| json!({"InstanceId": id, "Status": "Deleted"})).collect();
        json!({"RequestId": "R", "TotalCount": 500, "NextToken": "again", "VpcPeerConnects": listed}).to_string()
    };
    app.simulator.add_fault(Fault {
        action: Some(LIST.into()),
        raw: Some(page(&["pcc-a", "pcc-b"])),
        http_status: 200,
        times: 1000,
        ..Fault::default()
    });
    let begun = Instant::now();
    app.discover().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(logged().lines().any(|line| line.contains("list_repeats") && line.contains("cn-shanghai")));
    assert!(app.simulator.pending_faults() >= 990, "two pages, in each region");
    app.simulator.clear_faults();
    app.discover().await;
    app.assert_state(&id, "pending").await;
}

/// Passing codes, which come once, whatever the product puts in front of them.
#[tokio::test]
async fn transient_code_does_not_end_an_approval() {
    for (status, code) in [
        (400, "OperationFailed.LastTokenProcessing"),
        (400, "IncorrectStatus"),
        (400, "IncorrectStatus.Vpc"),
        (400, "IncorrectVpcStatus"),
        (404, "InvalidApi.NotFound"),
        (400, "OperationDenied.ConcurrentOperation"),
        (400, "OperationConflict.X"),
        (400, "NeverHeardOf"),
    ] {
        let app = TestApp::start().await;
        let id = app.new_request().await;
        for dry_run in [false, true] {
            app.simulator.add_fault(Fault {
                action: Some(ACCEPT.into()),
                code: Some(code.into()),
                http_status: status,
                dry_run,
                ..Fault::default()
            });
        }
        let reply = app.approve(&id, "alice").await;
        assert_eq!((reply.status, reply.name().as_str()), (202, "underway"), "{code}: {}", reply.body);
        app.make_due(&id).await;
        app.round().await;
        assert_eq!((app.state_of(&id).await.as_str(), app.count_accepts(&id)), ("activating", 1), "{code}");
    }
}

#[test]
fn loopback_never_uses_a_proxy() {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "--ignored", "answers::loopback_is_reachable_despite_proxy_variables"]);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"] {
        child.env(name, "http://127.0.0.1:9");
    }
    let output = child.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    // If the child test is renamed, no test runs, and that is a success, too.
    assert!(stdout.contains("1 passed"), "{stdout}");
}

#[tokio::test]
#[ignore = "runs in an environment with proxies"]
async fn loopback_is_reachable_despite_proxy_variables() {
    let server = Server::start(vec![(200, vec![], deleted().to_string())]).await;
    let port = server.url.port().unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{port}/").parse().unwrap();
        client(&url).get_connection(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap()).await.unwrap();
    }
    let elsewhere = http::new_client().unwrap().get("http://192.0.2.1/").send().await.unwrap_err();
    assert!(elsewhere.is_connect(), "the proxy refuses the connection: {elsewhere:?}");
}

//! What becomes of answers that are odd, late or lost: Alibaba Cloud's, and those of connections that died in silence.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Gate, logged, quick};
use jiff::{SignedDuration, Timestamp};
use peergate::alicloud::sign::SignatureVersion;
use peergate::alicloud::{Alicloud, Class, Credentials, Error, Fact};
use peergate::local::simulator::Settings;
use peergate::local::simulator::gateway::Fault;
use peergate::peering::InstanceId;
use peergate::{clock, http};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use url::Url;

const ACCEPTER: Credentials<'_> =
    Credentials { access_key_id: "accepter-key", access_key_secret: "accepter-secret", security_token: None };

fn client(endpoint: &Url) -> Alicloud {
    Alicloud::new(http::Clients::new().unwrap(), endpoint.clone(), SignatureVersion::V3, u32::MAX)
}

/// A way to a server on which connections die: in silence, or with a reset at the next byte.
struct Way {
    url: Url,
    silent: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    resets: Arc<AtomicBool>,
}

impl Way {
    async fn to(server: &Url) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = format!("{}:{}", server.host_str().unwrap(), server.port().unwrap());
        let way = Self { url, silent: Arc::default(), opened: Arc::default(), resets: Arc::default() };
        let (silent, opened, resets) = (Arc::clone(&way.silent), Arc::clone(&way.opened), Arc::clone(&way.resets));
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
        way
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

/// Two connections in the pool, as the functions have them.
async fn warmed(way: &Way, id: &InstanceId) -> Alicloud {
    let api = client(&way.url);
    let (one, other) = tokio::join!(api.get(ACCEPTER, id), api.get(ACCEPTER, id));
    one.and(other).unwrap();
    api
}

#[tokio::test]
async fn a_reading_on_a_connection_that_died_in_silence_costs_one_short_attempt() {
    let gate = Gate::start().await;
    let (way, id) = (Way::to(&gate.alicloud).await, gate.requested().await);
    let api = warmed(&way, &id).await;
    assert_eq!(way.forget(), 2);
    let begun = Instant::now();
    api.get(ACCEPTER, &id).await.unwrap();
    let took = begun.elapsed();
    assert!((Duration::from_millis(650)..Duration::from_millis(1500)).contains(&took), "{took:?}");
    let begun = Instant::now();
    let (page, got) = tokio::join!(api.list(ACCEPTER, "cn-shanghai", None, None), api.get(ACCEPTER, &id));
    assert_eq!((page.unwrap().connections.len(), got.unwrap().instance_id), (1, id.clone()));
    api.accept(ACCEPTER, &id, "token", false).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(600), "nothing else goes to a dead connection");
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn a_reading_on_a_connection_that_was_reset_costs_nothing() {
    let gate = Gate::start().await;
    let (way, id) = (Way::to(&gate.alicloud).await, gate.requested().await);
    let api = warmed(&way, &id).await;
    way.resets.store(true, Ordering::SeqCst);
    way.forget();
    let begun = Instant::now();
    api.list(ACCEPTER, "cn-shanghai", None, None).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_accept_is_sent_once_whatever_becomes_of_its_connection() {
    for reset in [false, true] {
        let gate = Gate::start().await;
        let (way, id) = (Way::to(&gate.alicloud).await, gate.requested().await);
        let api = warmed(&way, &id).await;
        way.resets.store(reset, Ordering::SeqCst);
        let opened = way.forget();
        match timeout(Duration::from_millis(1500), api.accept(ACCEPTER, &id, "token", false)).await {
            Err(_elapsed) => assert!(!reset),
            Ok(answer) => {
                let error = answer.unwrap_err();
                assert!(reset && error.may_have_taken_effect(), "{error:?}");
                assert_eq!(error.code(), "Transport.Broken");
            }
        }
        assert_eq!(way.opened.load(Ordering::SeqCst), opened, "no other connection was tried");
        assert_eq!(gate.accepts(&id), 0);
    }
}

#[tokio::test]
async fn a_table_whose_connections_all_died_costs_one_attempt() {
    let gate = Gate::start().await;
    let aws = &gate.environment.aws;
    let way = Way::to(&aws.dynamodb_endpoint.as_ref().unwrap().parse().unwrap()).await;
    let sdk = peergate::aws::sdk_config_with(aws, http::Clients::new().unwrap());
    let (endpoint, table) = (way.url.to_string(), gate.environment.table.clone());
    let retention = SignedDuration::from_hours(24);
    let store = peergate::store::Store::new(&sdk, Some(&endpoint), http::client().unwrap(), table, retention);
    let id =
        peergate::approval::ApprovalId { target: "prod".into(), instance_id: "pcc-a".to_owned().try_into().unwrap() };
    let (one, two, three) = tokio::join!(store.load(&id), store.load(&id), store.load(&id));
    assert!([one, two, three].iter().all(Result::is_ok));
    assert_eq!(way.forget(), 3);
    let begun = Instant::now();
    store.load(&id).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(2900), "{:?}", begun.elapsed());
    let begun = Instant::now();
    store.load(&id).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_reading_that_is_only_slow_keeps_its_connection() {
    let gate = Gate::with(Settings { latency: Duration::from_secs(1), ..quick() }).await;
    let id = InstanceId::parse(&gate.simulator.request_peering(&[]).unwrap()).unwrap();
    let way = Way::to(&gate.alicloud).await;
    let api = client(&way.url);
    let begun = Instant::now();
    api.list(ACCEPTER, "cn-shanghai", None, None).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1600), "{:?}", begun.elapsed());
    let opened = way.opened.load(Ordering::SeqCst);
    api.list(ACCEPTER, "cn-shanghai", None, None).await.unwrap();
    assert_eq!((opened, way.opened.load(Ordering::SeqCst)), (2, 2), "the second time it is known to be slow");
    api.get(ACCEPTER, &id).await.unwrap();
}

#[tokio::test]
async fn a_try_that_never_left_has_had_no_effect() {
    let api = client(&"http://127.0.0.1:9/".parse().unwrap());
    let error = api.accept(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap(), "token", false).await.unwrap_err();
    assert_eq!((error.code(), error.may_have_taken_effect()), ("Transport.Connect", false));
}

/// Status, headers and body.
type Answer = (u16, Vec<(&'static str, String)>, String);

/// A server that gives each answer once, the last for ever, and keeps what was asked.
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
                let mut answer = axum::http::Response::builder().status(*status);
                for (name, value) in headers {
                    answer = answer.header(*name, value);
                }
                answer.body(axum::body::Body::from(body.clone())).unwrap()
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, asked }
    }

    async fn get(status: u16, body: &str) -> Result<peergate::peering::Connection, Error> {
        let server = Self::start(vec![(status, vec![], body.to_owned())]).await;
        client(&server.url).get(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap()).await
    }
}

fn deleted() -> Value {
    json!({"RequestId": "R", "InstanceId": "pcc-a", "Status": "Deleted"})
}

#[tokio::test]
async fn a_call_whose_time_is_refused_is_signed_once_more_with_the_vendors_time() {
    let there = clock::now() + SignedDuration::from_hours(2);
    let date = there.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for code in ["InvalidTimeStamp.Expired", "IllegalTimestamp"] {
        let refusal = || (400, vec![("date", date.clone())], json!({"Code": code, "RequestId": "R"}).to_string());
        let good = (200, vec![], deleted().to_string());
        let server = Server::start(vec![refusal(), good]).await;
        client(&server.url).accept(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap(), "token", false).await.unwrap();
        let asked = server.asked.lock().unwrap().clone();
        let signed: Vec<Timestamp> = asked.iter().map(|date| date.parse().unwrap()).collect();
        let moved = signed[1].duration_since(signed[0]);
        assert!((moved - SignedDuration::from_hours(2)).abs() < SignedDuration::from_secs(5), "{moved}");

        let server = Server::start(vec![refusal()]).await;
        let error = client(&server.url).get(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap()).await.unwrap_err();
        assert_eq!(
            (error.class(), server.asked.lock().unwrap().len()),
            (Class::Credentials, 2),
            "once more, not twice"
        );
        assert!(!error.may_have_taken_effect());
    }
}

#[tokio::test]
async fn a_body_that_says_it_is_a_refusal_is_one_whatever_the_status() {
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
async fn an_answer_about_another_connection_is_refused() {
    for id in [json!("pcc-b"), json!(null), json!(7)] {
        let body = json!({"RequestId": "R", "InstanceId": id, "Status": "Deleted"}).to_string();
        let error = Server::get(200, &body).await.unwrap_err();
        assert!(matches!(error, Error::NotUnderstood { field: Fact::InstanceId, .. }), "{error:?}");
        assert_eq!((error.code(), error.request_id()), ("NotUnderstood.InstanceId", Some("R")));
    }
}

#[tokio::test]
async fn the_wait_that_is_asked_for_is_read_from_either_header() {
    for (headers, expected) in [
        (vec![("x-acs-retry-after", "1500.5".to_owned()), ("retry-after", "9".to_owned())], Some(1501)),
        (vec![("x-acs-retry-after", "99999999999999999999".to_owned())], Some(i128::from(u32::MAX))),
        (vec![("retry-after", "86400".to_owned())], Some(86_400_000)),
        (vec![("retry-after", "30.5".to_owned())], Some(31_000)),
        (vec![("x-acs-retry-after", "soon".to_owned())], None),
    ] {
        let refusal = json!({"Code": "Throttling.User"}).to_string();
        let server = Server::start(vec![(400, headers.clone(), refusal)]).await;
        let error = client(&server.url).get(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap()).await.unwrap_err();
        assert_eq!(error.retry_after().map(|wait| wait.as_millis()), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn who_asks_about_what_cannot_be_understood_hears_which_field() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.simulator.disguise(id.as_str(), &[("Bandwidth", r#""unlimited""#)]);
    for verb in ["approve", "status", "dry-run"] {
        let reply = gate.send(&gate.signed(verb, &id, "alice").await).await;
        assert_eq!((reply.status, reply.name().as_str()), (502, "not-understood"), "{verb}");
        assert!(reply.detail().contains("Bandwidth"), "{}", reply.detail());
        assert_eq!(reply.json()["problem"]["code"], "NotUnderstood.Bandwidth");
    }
    gate.discover().await;
    assert_eq!(gate.state(&id).await, "none");
    let log = logged();
    let named =
        |line: &str| line.contains("not_understood") && line.contains(id.as_str()) && line.contains("Bandwidth");
    assert!(log.lines().any(named), "{log}");
    gate.simulator.disguise(id.as_str(), &[]);
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "accepted");
}

#[tokio::test]
async fn what_is_only_shown_hides_no_request() {
    let gate = Gate::start().await;
    for (field, odd) in [
        ("Name", r#""team \ud83d""#),
        ("Description", "7"),
        ("GmtExpired", r#""2126-12-01 10:00:00""#),
        ("BizStatus", "null"),
        ("OwnerId", r#""1111111111111111""#),
        ("LinkType", "[1]"),
    ] {
        let vpc = format!("vpc-{}", field.to_lowercase());
        let id = InstanceId::parse(&gate.simulator.request_peering(&[("VpcId", &vpc)]).unwrap()).unwrap();
        gate.simulator.disguise(id.as_str(), &[(field, odd)]);
        gate.discover().await;
        assert_eq!(gate.state(&id).await, "pending", "{field}");
        let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
        assert_eq!(reply.name(), "accepted", "{field}: {}", reply.body);
    }
}

#[tokio::test]
async fn a_list_that_repeats_is_left_and_stops_nothing_else() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let page = |ids: &[&str]| {
        let listed: Vec<_> = ids.iter().map(|id| json!({"InstanceId": id, "Status": "Deleted"})).collect();
        json!({"RequestId": "R", "TotalCount": 500, "NextToken": "again", "VpcPeerConnects": listed}).to_string()
    };
    gate.simulator.fault(Fault {
        action: Some("ListVpcPeerConnections".into()),
        raw: Some(page(&["pcc-a", "pcc-b"])),
        http_status: 200,
        times: 1000,
        ..Fault::default()
    });
    let begun = Instant::now();
    gate.discover().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(logged().lines().any(|line| line.contains("list_repeats") && line.contains("cn-shanghai")));
    assert!(gate.simulator.pending_faults() >= 990, "two pages, in each region");
    gate.simulator.heal();
    gate.discover().await;
    assert_eq!(gate.state(&id).await, "pending");
}

/// Passing codes, which come once, whatever the product puts in front of them.
#[tokio::test]
async fn codes_that_pass_do_not_end_an_approval() {
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
        let gate = Gate::start().await;
        let id = gate.requested().await;
        for dry_run in [false, true] {
            gate.simulator.fault(Fault {
                action: Some("AcceptVpcPeerConnection".into()),
                code: Some(code.into()),
                http_status: status,
                dry_run,
                ..Fault::default()
            });
        }
        let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
        assert_eq!((reply.status, reply.name().as_str()), (202, "underway"), "{code}: {}", reply.body);
        gate.make_due(&id).await;
        gate.round().await;
        assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("activating", 1), "{code}");
    }
}

#[test]
fn loopback_never_goes_to_a_proxy() {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "--ignored", "answers::reach_loopback_in_this_environment"]);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"] {
        child.env(name, "http://127.0.0.1:9");
    }
    let output = child.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
#[ignore = "runs in an environment with proxies"]
async fn reach_loopback_in_this_environment() {
    let server = Server::start(vec![(200, vec![], deleted().to_string())]).await;
    let port = server.url.port().unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{port}/").parse().unwrap();
        client(&url).get(ACCEPTER, &"pcc-a".to_owned().try_into().unwrap()).await.unwrap();
    }
    let elsewhere = http::client().unwrap().get("http://192.0.2.1/").send().await.unwrap_err();
    assert!(elsewhere.is_connect(), "the proxy refuses the connection: {elsewhere:?}");
}

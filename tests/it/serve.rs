//! `serve` on a socket: slow, silent or many clients delay no other client for long.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::prelude::*;
use peergate::chat::SignedRequest;
use peergate::local::serve::{self, ServerLimits, Stop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Much longer than any step of these tests.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n";

/// Only the limits that a test names.
fn limits() -> ServerLimits {
    ServerLimits {
        header_timeout: PATIENCE,
        body_timeout: PATIENCE,
        connection_lifetime: PATIENCE,
        max_connections: 100,
    }
}

async fn served(app: &TestApp, limits: ServerLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve::serve_webhook_until(Arc::clone(&app.parts), listener, limits, Stop::never()));
    address
}

async fn connected(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = vec![];
    let read = timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the connection is closed");
    // A connection that is closed with unread data may also be reset.
    drop(read);
    String::from_utf8(text).unwrap()
}

/// The headers of the next answer, and a body that fits into one read.
async fn next(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("an answer").unwrap_or_default();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

fn head(signed: &SignedRequest) -> String {
    let headers: Vec<_> = signed.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let headers = headers.concat();
    let (path, length) = (&signed.path, signed.body.len());
    format!("POST {path} HTTP/1.1\r\nhost: h\r\n{headers}content-length: {length}\r\n\r\n")
}

#[test]
fn default_limits_match_the_documentation() {
    let ten = Duration::from_secs(10);
    let expected = ServerLimits {
        header_timeout: ten,
        body_timeout: ten,
        connection_lifetime: Duration::from_mins(1),
        max_connections: 512,
    };
    assert_eq!(ServerLimits::default(), expected);
}

#[tokio::test]
async fn missing_headers_end_only_their_own_connection() {
    let app = TestApp::start().await;
    let address = served(&app, ServerLimits { header_timeout: SHORT, ..limits() }).await;
    let mut silent = connected(address, "").await;
    let mut slow = connected(address, "POST /slack HTTP/1.1\r\nhost: ").await;
    let mut good = connected(address, HEALTH).await;
    assert!(next(&mut good).await.starts_with("HTTP/1.1 200"));
    assert!(!rest(&mut silent).await.contains("200"));
    assert!(!rest(&mut slow).await.contains("200"));
    // A kept connection that asks nothing more is no better than silent.
    assert_eq!(rest(&mut good).await, "");
}

#[tokio::test]
async fn trickling_headers_get_no_extra_time() {
    let app = TestApp::start().await;
    let address = served(&app, ServerLimits { header_timeout: SHORT, ..limits() }).await;
    let mut stream = connected(address, "GET /healthz HTTP/1.1\r\n").await;
    let trickle = async {
        while stream.write_all(b"x: y\r\n").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, trickle).await.expect("it is cut off");
}

#[tokio::test]
async fn missing_body_is_refused_and_reaches_no_api() {
    let app = TestApp::start().await;
    let signed = app.sign_event("approve", &app.new_request().await, "alice").await;
    let address = served(&app, ServerLimits { body_timeout: SHORT, ..limits() }).await;
    let mut stream = connected(address, &head(&signed)).await;
    stream.write_all(&signed.body.as_bytes()[..10]).await.unwrap();
    let response = rest(&mut stream).await;
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert!(logged().contains("slow-body"));
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn slow_body_within_the_limit_is_answered() {
    let app = TestApp::start().await;
    let signed = app.sign_event("list", &app.new_request().await, "alice").await;
    let body = r#"{"type": "peering.list", "data": {"actor": "alice"}}"#;
    let signed =
        SignedRequest { ..app.sign_body_as(body, &signed.headers[1].1, &clock::now().as_second().to_string()) };
    let address = served(&app, ServerLimits { header_timeout: SHORT, connection_lifetime: SHORT, ..limits() }).await;
    let mut stream = connected(address, &head(&signed)).await;
    let bytes = signed.body.as_bytes();
    // Longer than the limits for headers and for the connection: neither applies to a request in progress.
    for chunk in bytes.chunks(bytes.len() / 8) {
        stream.write_all(chunk).await.unwrap();
        sleep(SHORT / 4).await;
    }
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("approvals"), "{answer}");
}

#[tokio::test]
async fn excess_connection_waits_until_another_ends() {
    let app = TestApp::start().await;
    let address = served(&app, ServerLimits { max_connections: 2, ..limits() }).await;
    let (one, two) = (connected(address, "").await, connected(address, "").await);
    let mut third = connected(address, HEALTH).await;
    timeout(SHORT, third.readable()).await.unwrap_err();
    drop(one);
    assert!(next(&mut third).await.starts_with("HTTP/1.1 200"));
    drop(two);
}

#[tokio::test]
async fn silent_strangers_lock_nobody_out() {
    let app = TestApp::start().await;
    let address = served(&app, ServerLimits { max_connections: 8, header_timeout: SHORT, ..limits() }).await;
    let mut strangers = vec![];
    for _ in 0..8 {
        strangers.push(connected(address, "").await);
    }
    let mut good = connected(address, HEALTH).await;
    assert!(next(&mut good).await.starts_with("HTTP/1.1 200"));
    for stranger in &mut strangers {
        assert!(!rest(stranger).await.contains("200"));
    }
}

#[tokio::test]
async fn busy_connection_ends_after_its_lifetime() {
    let app = TestApp::start().await;
    let address = served(&app, ServerLimits { connection_lifetime: SHORT, ..limits() }).await;
    let mut stream = connected(address, "").await;
    let mut answers = 0;
    let asking = async {
        while stream.write_all(HEALTH.as_bytes()).await.is_ok() {
            if next(&mut stream).await.is_empty() {
                break;
            }
            answers += 1;
        }
    };
    timeout(PATIENCE, asking).await.expect("it ends");
    assert!(answers > 0);
}

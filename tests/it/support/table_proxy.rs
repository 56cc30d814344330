//! The table behind a proxy, which counts calls and may refuse one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{self, Body};
use axum::extract::State;
use peergate::fake::alicloud::SimulatorSettings;
use peergate::local::sandbox::Sandbox;

use super::app::TestApp;

/// Stands before the table: it counts calls, and may refuse an operation as IAM does.
pub struct TableProxy {
    calls: AtomicUsize,
    writes: Mutex<Vec<u16>>,
    refused: Mutex<Option<&'static str>>,
    /// Whether only the next call of the operation is refused.
    is_once: AtomicBool,
    upstream: String,
    client: reqwest::Client,
}

impl TableProxy {
    pub async fn start(settings: SimulatorSettings) -> (TestApp, Arc<Self>) {
        let mut sandbox = Sandbox::start(settings).await.unwrap();
        let upstream = sandbox.environment.aws.dynamodb_endpoint.clone().unwrap();
        let client = peergate::http::new_client().unwrap();
        let table = Arc::new(Self {
            calls: AtomicUsize::new(0),
            writes: Mutex::default(),
            refused: Mutex::new(None),
            is_once: AtomicBool::new(false),
            upstream,
            client,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        sandbox.environment.aws.dynamodb_endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let router = Router::new().fallback(Self::forward_request).with_state(Arc::clone(&table));
        tokio::spawn(async { axum::serve(listener, router).await });
        let config = sandbox.config.clone();
        sandbox.reconfigure(&config).unwrap();
        (TestApp::from_sandbox(sandbox), table)
    }

    pub fn count_calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The HTTP status of each `PutItem`, in order.
    pub fn writes(&self) -> Vec<u16> {
        self.writes.lock().unwrap().clone()
    }

    pub fn reset_calls(&self) {
        self.writes.lock().unwrap().clear();
        self.calls.store(0, Ordering::SeqCst);
    }

    pub fn allow_all_operations(&self) {
        *self.refused.lock().unwrap() = None;
    }

    pub fn refuse_operation(&self, operation: &'static str) {
        self.is_once.store(false, Ordering::SeqCst);
        *self.refused.lock().unwrap() = Some(operation);
    }

    pub fn refuse_operation_once(&self, operation: &'static str) {
        self.is_once.store(true, Ordering::SeqCst);
        *self.refused.lock().unwrap() = Some(operation);
    }

    /// Whether to refuse a call of this operation.
    fn is_refused(&self, operation: &str) -> bool {
        let mut refused = self.refused.lock().unwrap();
        let is_it = *refused == Some(operation);
        if is_it && self.is_once.load(Ordering::SeqCst) {
            *refused = None;
        }
        is_it
    }

    async fn forward_request(State(table): State<Arc<Self>>, request: http::Request<Body>) -> http::Response<Body> {
        table.calls.fetch_add(1, Ordering::SeqCst);
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        // A request that only opens a connection names no operation.
        let operation = headers.get("x-amz-target").and_then(|target| target.to_str().ok()?.rsplit('.').next());
        if operation.is_some_and(|operation| table.is_refused(operation)) {
            let refusal = r#"{"__type": "com.amazon.coral.service#AccessDeniedException"}"#;
            return http::Response::builder().status(400).body(Body::from(refusal)).unwrap();
        }
        let is_write = operation == Some("PutItem");
        headers.remove("content-length");
        let body = body::to_bytes(body, usize::MAX).await.unwrap();
        let response = table.client.post(&table.upstream).headers(headers).body(body).send().await.unwrap();
        let status = response.status();
        if is_write {
            table.writes.lock().unwrap().push(status.as_u16());
        }
        http::Response::builder().status(status).body(Body::from(response.bytes().await.unwrap())).unwrap()
    }
}

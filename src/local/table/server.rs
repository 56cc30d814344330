//! `peergate table`: serves the table to other processes on this machine, which sign their requests.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::signature::{self, KeyPair};
use super::{EmbeddedTable, TableAnswer, operation_of};
use crate::clock;
use crate::fake::{Error, loopback};

/// The largest body of DynamoDB.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

/// The table, and who may use it.
#[derive(Debug, Clone)]
struct SharedTable {
    table: EmbeddedTable,
    keys: KeyPair,
}

/// Serves the table of a file on loopback until the process ends. Without a path it is in memory. Returns its URL.
///
/// # Errors
/// When the file cannot be used.
pub async fn spawn_table(path: Option<&Path>, keys: KeyPair) -> Result<String, Error> {
    let table = path.map_or_else(EmbeddedTable::in_memory, EmbeddedTable::open)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(serve_table(table, keys, listener));
    Ok(url)
}

/// Serves the table until the task ends. A request must be signed with `keys`, and come from a program on this machine.
///
/// # Errors
/// When the listener fails.
pub async fn serve_table(table: EmbeddedTable, keys: KeyPair, listener: TcpListener) -> std::io::Result<()> {
    let router = Router::new().fallback(answer_request).with_state(SharedTable { table, keys });
    loopback::serve(listener, router).await
}

async fn answer_request(State(SharedTable { table, keys }): State<SharedTable>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let verified = signature::verify(&parts, &body, &keys, clock::jump::undisturbed_now());
    let TableAnswer { status, body } = if let Err(unsigned) = verified {
        unsigned.into_answer()
    } else {
        let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        // It has nothing else to do while the engine works.
        table.answer(operation_of(target), &body)
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [("content-type", CONTENT_TYPE)], body).into_response()
}

//! A table in memory with the operations of an approval: `GetItem` and a conditional `PutItem`. It costs almost nothing, so
//! that only the function is measured.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::any;
use serde_json::{Value, json};

type Items = Arc<Mutex<HashMap<String, Value>>>;

/// The part of `DynamoDB`'s API that an approval needs.
pub fn table() -> Router {
    Router::new().fallback(any(answer)).with_state(Items::default())
}

async fn answer(State(items): State<Items>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Ok(mut call) = serde_json::from_slice::<Value>(&body) else { return (StatusCode::OK, String::new()) };
    let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
    match target {
        "DynamoDB_20120810.GetItem" => {
            let item = call["Key"]["id"]["S"].as_str().and_then(|id| items.get(id));
            (StatusCode::OK, item.map_or_else(|| json!({}), |item| json!({"Item": item})).to_string())
        }
        "DynamoDB_20120810.PutItem" => {
            let item = call["Item"].take();
            let id = item["id"]["S"].as_str().unwrap_or_default().to_owned();
            let is_met = match call["ConditionExpression"].as_str() {
                Some("attribute_not_exists(id)") => !items.contains_key(&id),
                Some("version = :over") => {
                    items.get(&id).is_some_and(|item| item["version"] == call["ExpressionAttributeValues"][":over"])
                }
                _ => false,
            };
            if !is_met {
                let refused = json!({"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"});
                return (StatusCode::BAD_REQUEST, refused.to_string());
            }
            items.insert(id, item);
            (StatusCode::OK, "{}".to_owned())
        }
        _ => (StatusCode::BAD_REQUEST, json!({"__type": "UnknownOperationException"}).to_string()),
    }
}

//! Known answers: signatures of Alibaba Cloud stage by stage, and webhook authentication. Those of `tests/vectors/`, and
//! every file of the same format in the folder that `PEERGATE_EXTRA_VECTORS` names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use peergate::alicloud::sign::{self, Parameters, v1, v3};
use peergate::chat::slack::SigningSecret;
use peergate::chat::standard_webhooks::WebhookKey;
use peergate::chat::{slack, standard_webhooks};
use peergate::envelope;
use serde::Deserialize;
use serde_json::Value;

/// All files of known answers.
fn files() -> Vec<(PathBuf, Value)> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    #[expect(clippy::disallowed_methods, reason = "the test's own setting")]
    let extra = std::env::var("PEERGATE_EXTRA_VECTORS").ok().filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let mut files = vec![];
    for folder in std::iter::once(own).chain(extra) {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                let known = ["vectors", "v1_rpc_hmac_sha1", "v3_acs3_hmac_sha256"];
                if !known.iter().any(|list| json.get(list).is_some()) {
                    say(&format!("{} is not of the format of our vectors", path.display()));
                }
                files.push((path, json));
            }
        }
    }
    files
}

fn each<T: for<'de> Deserialize<'de>>(list: &str, mut check: impl FnMut(T)) -> usize {
    let mut count = 0;
    for (path, json) in files() {
        for vector in json.get(list).and_then(Value::as_array).into_iter().flatten() {
            let vector = T::deserialize(vector).unwrap_or_else(|error| panic!("{}: {error}: {vector}", path.display()));
            check(vector);
            count += 1;
        }
    }
    count
}

#[derive(Deserialize)]
struct V1 {
    name: String,
    method: String,
    access_key_secret: String,
    params: Parameters,
    canonicalized_query: String,
    string_to_sign: String,
    signature: String,
    signature_percent_encoded: String,
}

#[test]
fn v1_signature_matches_the_vectors_at_every_stage() {
    let count = each("v1_rpc_hmac_sha1", |vector: V1| {
        let name = vector.name;
        assert_eq!(sign::canonical_query(&vector.params), vector.canonicalized_query, "{name}");
        let to_sign = v1::string_to_sign(&vector.method, &vector.params);
        assert_eq!(to_sign, vector.string_to_sign, "{name}");
        let signature = v1::signature(&vector.access_key_secret, &to_sign);
        assert_eq!(signature, vector.signature, "{name}");
        assert_eq!(sign::percent_encode(&signature), vector.signature_percent_encoded, "{name}");
    });
    assert!(count >= 6, "{count}");
}

#[derive(Deserialize)]
struct V3 {
    name: String,
    method: String,
    canonical_uri: String,
    query: Option<Parameters>,
    headers: BTreeMap<String, String>,
    body: String,
    access_key_id: String,
    access_key_secret: String,
    canonical_query: String,
    hashed_payload: String,
    canonical_request: String,
    string_to_sign: String,
    signature: String,
    authorization: String,
}

#[test]
fn v3_signature_matches_the_vectors_at_every_stage() {
    let count = each("v3_acs3_hmac_sha256", |vector: V3| {
        let name = vector.name;
        let query = sign::canonical_query(&vector.query.unwrap_or_default());
        assert_eq!(query, vector.canonical_query, "{name}");
        let hash = v3::body_hash(vector.body.as_bytes());
        assert_eq!(hash, vector.hashed_payload, "{name}");
        let headers = &vector.headers;
        let canonical = v3::canonical_request(&vector.method, &vector.canonical_uri, &query, headers, &hash);
        assert_eq!(canonical, vector.canonical_request, "{name}");
        let to_sign = v3::string_to_sign(&canonical);
        assert_eq!(to_sign, vector.string_to_sign, "{name}");
        let signature = v3::signature(&vector.access_key_secret, &to_sign);
        assert_eq!(signature, vector.signature, "{name}");
        assert_eq!(v3::authorization(&vector.access_key_id, headers, &signature), vector.authorization, "{name}");
    });
    assert!(count >= 5, "{count}");
}

#[derive(Deserialize)]
struct Webhook {
    now_unix: i64,
    secrets: Vec<String>,
    request: Request,
    expect: Expect,
    #[serde(default)]
    extra: Extra,
}

#[derive(Deserialize, Default)]
struct Extra {
    lambda_event: Option<Value>,
}

#[derive(Deserialize)]
struct Request {
    headers: Vec<(String, String)>,
    body_b64: String,
}

#[derive(Deserialize)]
struct Expect {
    recommended: String,
}

#[test]
fn webhook_authentication_matches_the_recommended_verdicts() {
    let (mut checked, mut not_built) = (0, BTreeMap::<String, BTreeSet<String>>::new());
    each("vectors", |vector: Value| {
        let text = |name: &str| vector[name].as_str().unwrap_or_default().to_owned();
        let (id, scheme) = (text("id"), text("scheme"));
        let accepts = match scheme.as_str() {
            "slack_v0" => |vector: &Webhook| slack_accepts(vector, &headers(&vector.request), body(&vector.request)),
            "standard_webhooks" => standard_webhooks_accepts,
            "lambda_envelope_slack_v0" => envelope_accepts,
            _ => {
                not_built.entry(scheme).or_default().insert(id);
                return;
            }
        };
        let vector = Webhook::deserialize(&vector).unwrap_or_else(|error| panic!("{id}: {error}"));
        let recommended = match vector.expect.recommended.as_str() {
            "accept" => true,
            "reject" => false,
            other => panic!("{id}: recommended is {other}"),
        };
        // Of the envelopes, only format 2.0 is built: any other is refused whatever it carries.
        let other_format = vector.extra.lambda_event.as_ref().is_some_and(|event| event["version"] != "2.0");
        assert_eq!(accepts(&vector), recommended && !other_format, "{id}");
        checked += 1;
    });
    for (scheme, ids) in &not_built {
        say(&format!("not built yet: {scheme}: {} vectors: {ids:?}", ids.len()));
    }
    let unbuilt: usize = not_built.values().map(BTreeSet::len).sum();
    say(&format!(
        "checked {checked} webhook vectors; {unbuilt} more, of {} schemes, are not built yet",
        not_built.len()
    ));
    assert!(checked >= 30, "{checked}");
}

/// Past the test runner, which keeps what passing tests print to itself.
#[allow(clippy::explicit_write, reason = "`eprintln!` is kept too")]
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

fn headers(request: &Request) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn body(request: &Request) -> Bytes {
    BASE64_STANDARD.decode(&request.body_b64).unwrap().into()
}

fn now(vector: &Webhook) -> Timestamp {
    Timestamp::from_second(vector.now_unix).unwrap()
}

/// A key that can't be one refuses, as the function that would hold it refuses to start.
fn slack_accepts(vector: &Webhook, headers: &HeaderMap, body: Bytes) -> bool {
    let keys: Result<Vec<_>, _> = vector.secrets.iter().cloned().map(SigningSecret::try_from).collect();
    keys.is_ok_and(|keys| slack::verify_with(&keys, headers, body, now(vector)).is_ok())
}

fn standard_webhooks_accepts(vector: &Webhook) -> bool {
    let keys: Result<Vec<_>, _> = vector.secrets.iter().cloned().map(WebhookKey::try_from).collect();
    let verify = |keys: Vec<WebhookKey>| {
        standard_webhooks::verify_with(&keys, &headers(&vector.request), body(&vector.request), now(vector)).is_ok()
    };
    keys.is_ok_and(verify)
}

fn envelope_accepts(vector: &Webhook) -> bool {
    let event = vector.extra.lambda_event.clone().unwrap();
    let Ok(request) = envelope::into_request(serde_json::from_value(event).unwrap()) else { return false };
    let (parts, body) = request.into_parts();
    slack_accepts(vector, &parts.headers, body)
}

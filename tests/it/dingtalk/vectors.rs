//! Known answers of DingTalk's requests. Those of `tests/vectors/`, and every file of the same format in the folder that
//! `PEERGATE_EXTRA_VECTORS` names.

use peergate::chat::SingleUse;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use http::HeaderMap;
use jiff::Timestamp;
use peergate::chat::dingtalk::{self, Config, ReplyTo, Secrets, sign_robot_url};
use peergate::chat::{Authentic, Command, Incoming, Unauthentic};
use peergate::secret::{Secret, SecretUrl};
use serde_json::{Value, json};

const PATH_SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// A secret of the other kind, which must verify nothing.
const OTHER_SECRET: &str = "anotherSecret0123456789";

/// The vectors of a scheme, of all files.
fn vectors(scheme: &str) -> Vec<Value> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    #[expect(clippy::disallowed_methods, reason = "the test's own setting")]
    let extra = std::env::var("PEERGATE_EXTRA_VECTORS").ok().filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let mut found = vec![];
    for folder in std::iter::once(own).chain(extra) {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                let list = json.get("vectors").and_then(Value::as_array).cloned().unwrap_or_default();
                found.extend(list.into_iter().filter(|vector| vector["scheme"] == scheme));
            }
        }
    }
    found
}

/// The secrets of a vector. Those of the other kind are not the same.
fn secrets(vector: &Value) -> Secrets {
    let is_card = vector["scheme"] == "dingtalk_card_callback";
    let (given, other) = (&vector["secrets"], json!([OTHER_SECRET]));
    let (api, app) = if is_card { (given, &other) } else { (&other, given) };
    serde_json::from_value(json!({"api_secrets": api, "app_secrets": app, "path_secrets": [PATH_SECRET]})).unwrap()
}

fn headers(vector: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for header in vector["request"]["headers"].as_array().unwrap() {
        let name = http::HeaderName::from_bytes(header[0].as_str().unwrap().as_bytes()).unwrap();
        headers.append(name, http::HeaderValue::from_str(header[1].as_str().unwrap()).unwrap());
    }
    headers
}

fn verify(vector: &Value) -> Result<Authentic, &'static str> {
    let body = BASE64_STANDARD.decode(vector["request"]["body_b64"].as_str().unwrap()).unwrap();
    let now = Timestamp::from_second(vector["now_unix"].as_i64().unwrap()).unwrap();
    dingtalk::verify_with(&secrets(vector), PATH_SECRET, &headers(vector), &body, now).map_err(|error| match error {
        Unauthentic::StaleTimestamp { .. } => "freshness",
        Unauthentic::MissingHeader(_)
        | Unauthentic::DuplicateHeader(_)
        | Unauthentic::MalformedHeader(_)
        | Unauthentic::SignatureMismatch { .. } => "authenticity",
        Unauthentic::InvalidEnvelope
        | Unauthentic::UnknownClient
        | Unauthentic::UnknownPathSecret
        | Unauthentic::InvalidToken(_)
        | Unauthentic::InvalidCiphertext => panic!("{error}"),
    })
}

/// What came of a vector: what was understood, or the stage that refused.
fn outcome(vector: &Value) -> Result<Incoming<ReplyTo>, &'static str> {
    let authentic = verify(vector)?;
    let text = String::from_utf8(BASE64_STANDARD.decode(vector["request"]["body_b64"].as_str().unwrap()).unwrap());
    let body: Value = serde_json::from_str(&text.unwrap()).unwrap_or_default();
    // A vector without a tenant is about authenticity alone.
    let own = body["corpId"].as_str().or(body["senderCorpId"].as_str()).unwrap_or("dingX");
    let corp = vector["extra"]["tenant"].as_str().unwrap_or(own);
    let config: Config =
        serde_json::from_value(json!({"app": "dingapp", "corp": corp, "template": "a.schema"})).unwrap();
    match dingtalk::parse(&config, authentic) {
        Ok(Incoming::WrongTenant(_)) => Err("tenant"),
        Ok(incoming) => Ok(incoming),
        Err(error) if error.0.starts_with("senderStaffId: missing") => Err("principal"),
        Err(_) => Err("parse"),
    }
}

/// What was understood is what is expected.
fn check_parsed(id: &str, incoming: &Incoming<ReplyTo>, expected: &Value) {
    let principal = &expected["principal"];
    let principal =
        format!("dingtalk:{}/{}", principal["tenant"].as_str().unwrap(), principal["user"].as_str().unwrap());
    match incoming {
        Incoming::Click { click, .. } => {
            assert_eq!(click.by.as_str(), principal, "{id}");
            assert_eq!(click.reason.as_deref(), expected["reason"].as_str(), "{id}");
            // The buttons of the vectors are laid out otherwise than ours.
            assert_eq!(click.binding, "", "{id}");
        }
        Incoming::Command { request, .. } => {
            assert_eq!(request.by.as_str(), principal, "{id}");
            let Command::Connection(command) = &request.command else { panic!("{id}: {request:?}") };
            assert_eq!(command.instance_id.as_str(), expected["instance_id"].as_str().unwrap(), "{id}");
            assert_eq!(request.command.log_name(), expected["action"].as_str().unwrap(), "{id}");
        }
        Incoming::Challenge(_) | Incoming::UnknownCommand { .. } | Incoming::WrongTenant(_) => {
            panic!("{id}: {incoming:?}")
        }
    }
}

fn check_scheme(scheme: &str) -> usize {
    let vectors = vectors(scheme);
    for vector in &vectors {
        let (id, expected) = (vector["id"].as_str().unwrap(), &vector["expect"]);
        if let Some(earlier) = vector["extra"]["after"].as_array() {
            let proofs = |vector: &Value| verify(vector).unwrap().origin().request_key.clone();
            let is_known = |other: &&Value| earlier.contains(&other["id"]) && proofs(other) == proofs(vector);
            assert!(vectors.iter().any(|other| is_known(&other)), "{id}: the same proof, which is taken once");
            continue;
        }
        let outcome = outcome(vector);
        match expected["recommended"].as_str().unwrap() {
            "accept" | "accept-signature-but-treat-body-as-unauthenticated" => {
                let incoming = outcome.as_ref().unwrap_or_else(|stage| panic!("{id}: refused at {stage}"));
                let single_use = verify(vector).unwrap().single_use().map(SingleUse::until);
                assert!(single_use.is_some(), "{id}: the proof is taken once");
                if let Some(parsed) = vector["extra"].get("expect_parsed") {
                    check_parsed(id, incoming, parsed);
                }
            }
            "reject" => {
                let stage = *outcome.as_ref().expect_err(id);
                let wanted = expected["stage"].as_str();
                assert!(wanted.is_none_or(|wanted| wanted == stage), "{id}: refused at {stage}, not {wanted:?}");
            }
            other => panic!("{id}: recommended is {other}"),
        }
    }
    vectors.len()
}

#[test]
fn dingtalk_clicks_match_the_vectors() {
    let checked = check_scheme("dingtalk_card_callback");
    assert!(checked >= 27, "{checked}");
}

#[test]
fn dingtalk_robot_messages_match_the_vectors() {
    let checked = check_scheme("dingtalk_outgoing");
    assert!(checked >= 22, "{checked}");
}

#[test]
fn dingtalk_robot_urls_match_the_vectors() {
    let vectors = vectors("dingtalk_robot_url");
    for vector in &vectors {
        let secret = Secret::new(vector["secrets"][0].as_str().unwrap().to_owned());
        let millis = vector["inputs"]["timestamp_ms"].as_i64().unwrap();
        let url = SecretUrl::new(vector["inputs"]["base"].as_str().unwrap().parse().unwrap());
        let signed = sign_robot_url(&url, &secret, Timestamp::from_millisecond(millis).unwrap());
        assert_eq!(signed.expose().as_str(), vector["expect"]["url"].as_str().unwrap(), "{}", vector["id"]);
    }
    assert!(!vectors.is_empty());
}

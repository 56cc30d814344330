//! Known answers of Feishu's callbacks. Those of `tests/vectors/`, and every file of the same format in the folder that
//! `PEERGATE_EXTRA_VECTORS` names.

use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use http::HeaderMap;
use jiff::Timestamp;
use peergate::chat::feishu::{self, CallbackKeys, Config, Host, ReplyTo, sign_bot_message};
use peergate::chat::{Incoming, Unauthentic};
use peergate::secret::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

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

/// What came of a vector: what was understood, or the stage that refused.
fn outcome(vector: &Value) -> Result<Incoming<ReplyTo>, &'static str> {
    let mut headers = HeaderMap::new();
    for header in vector["request"]["headers"].as_array().unwrap() {
        let name = http::HeaderName::from_bytes(header[0].as_str().unwrap().as_bytes()).unwrap();
        headers.append(name, http::HeaderValue::from_str(header[1].as_str().unwrap()).unwrap());
    }
    let body = BASE64_STANDARD.decode(vector["request"]["body_b64"].as_str().unwrap()).unwrap();
    let now = Timestamp::from_second(vector["now_unix"].as_i64().unwrap()).unwrap();
    let keys = Vec::<CallbackKeys>::deserialize(&vector["secrets"]).map_err(|_| "authenticity")?;
    let authentic = feishu::verify_with(&keys, &headers, &body, now).map_err(|error| match error {
        Unauthentic::StaleTimestamp { .. } => "freshness",
        Unauthentic::InvalidEnvelope => "parse",
        Unauthentic::MissingHeader(_)
        | Unauthentic::DuplicateHeader(_)
        | Unauthentic::MalformedHeader(_)
        | Unauthentic::SignatureMismatch { .. }
        | Unauthentic::UnknownClient
        | Unauthentic::UnknownPathSecret
        | Unauthentic::InvalidToken(_)
        | Unauthentic::InvalidCiphertext => "authenticity",
    })?;
    let text = |name: &str| vector["extra"][name].as_str();
    let config = Config {
        app: text("app_id").unwrap_or("cli_a").to_owned(),
        tenant: text("tenant").unwrap_or("d32004232").to_owned(),
        host: Host::Feishu,
        api: None,
    };
    match feishu::parse(&config, authentic) {
        // A vector without an app is about authenticity alone.
        Ok(Incoming::WrongTenant(_)) if text("app_id").is_some() => Err("tenant"),
        Ok(incoming) => Ok(incoming),
        Err(_) => Err("parse"),
    }
}

/// What was understood is what is expected.
fn check_parsed(id: &str, incoming: &Incoming<ReplyTo>, expected: &Value) {
    match incoming {
        Incoming::Challenge(reply) => {
            assert_eq!(*reply, json!({"challenge": expected["challenge"]}).to_string(), "{id}");
        }
        Incoming::Click { click, .. } => {
            let principal = &expected["principal"];
            let principal =
                format!("feishu:{}/{}", principal["tenant"].as_str().unwrap(), principal["user"].as_str().unwrap());
            assert_eq!(click.by.as_str(), principal, "{id}");
            assert_eq!(click.reason.as_deref(), expected["reason"].as_str(), "{id}");
            // The buttons of the vectors are laid out otherwise than ours.
            assert_eq!(click.binding, "", "{id}");
        }
        Incoming::Command { .. } | Incoming::UnknownCommand { .. } | Incoming::WrongTenant(_) => {
            panic!("{id}: {incoming:?}")
        }
    }
}

#[test]
fn feishu_callbacks_match_the_vectors() {
    let mut checked = 0;
    for vector in vectors("lark_event_v2") {
        let id = vector["id"].as_str().unwrap();
        let expected = &vector["expect"];
        let outcome = outcome(&vector);
        match expected["recommended"].as_str().unwrap() {
            "accept" => {
                let incoming = outcome.as_ref().unwrap_or_else(|stage| panic!("{id}: refused at {stage}"));
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
        checked += 1;
    }
    assert!(checked >= 27, "{checked}");
}

#[test]
fn feishu_bot_signatures_match_the_vectors() {
    let vectors = vectors("lark_custom_bot_sign");
    for vector in &vectors {
        let secret = Secret::new(vector["secrets"][0].as_str().unwrap().to_owned());
        let timestamp = vector["inputs"]["timestamp_s"].as_i64().unwrap();
        assert_eq!(
            sign_bot_message(&secret, timestamp),
            vector["expect"]["sign"].as_str().unwrap(),
            "{}",
            vector["id"]
        );
    }
    assert!(!vectors.is_empty());
}

//! Known answers of Teams' requests. Those of `tests/vectors/`, and every file of the same format in the folder that
//! `PEERGATE_EXTRA_VECTORS` names.

use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use peergate::chat::teams::{self, KeyCache, ReplyTo};
use peergate::chat::{Incoming, Unauthentic, VerifyError};
use peergate::http::Clients;
use serde_json::json;

use super::*;

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

/// A server of these keys. Returns the URL of the document that names them.
async fn serve_keys(issuer: String, keys: Value) -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let document = json!({"issuer": issuer, "jwks_uri": base.join("keys").unwrap()});
    let app = axum::Router::new().fallback(move |uri: http::Uri| {
        let body = if uri.path() == "/keys" { keys.to_string() } else { document.to_string() };
        std::future::ready(body)
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    base.join("openidconfiguration").unwrap()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn stage_of(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::Unauthentic(Unauthentic::InvalidToken("it has expired" | "it is not valid yet")) => "freshness",
        VerifyError::Unauthentic(Unauthentic::InvalidToken(
            "its service URL has a host that is not known" | "the body is of another channel than Teams",
        )) => "tenant",
        VerifyError::Unauthentic(Unauthentic::InvalidEnvelope) => "parse",
        VerifyError::Unauthentic(_) => "authenticity",
        VerifyError::KeysUnavailable(reason) => panic!("{reason}"),
    }
}

/// What came of a vector: what was understood, or the stage that refused.
async fn outcome(vector: &Value) -> Result<Incoming<ReplyTo>, &'static str> {
    let mut headers = HeaderMap::new();
    for header in vector["request"]["headers"].as_array().unwrap() {
        let name = HeaderName::from_bytes(header[0].as_str().unwrap().as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(header[1].as_str().unwrap()).unwrap());
    }
    let body = Bytes::from(BASE64_STANDARD.decode(text(vector, "/request/body_b64")).unwrap());
    let now = Timestamp::from_second(vector["now_unix"].as_i64().unwrap()).unwrap();
    let extra = &vector["extra"];
    let keys = serve_keys(text(extra, "/issuer").to_owned(), extra["jwks"].clone()).await;
    let activity: Value = serde_json::from_slice(&body).unwrap_or_default();
    let places = ["/channelData/team/id", "/channelData/channel/id"].map(|at| text(&activity, at).to_owned());
    let hosts = extra["service_url_hosts"].as_array().unwrap().iter();
    let config = Config {
        app: text(extra, "/audience").to_owned(),
        tenant: text(extra, "/tenant").to_owned(),
        conversations: places.into(),
        service_hosts: hosts.map(|host| host.as_str().unwrap().to_owned()).collect(),
        keys: Some(keys),
        ..config()
    };
    let http = Clients::new().unwrap().shared().clone();
    let verified = teams::verify_with(&http, &config, &KeyCache::default(), &headers, &body, now).await;
    let authentic = verified.map_err(|error| stage_of(&error))?;
    assert!(authentic.single_use().is_some(), "the token does not cover the body");
    match teams::parse(&config, authentic) {
        Ok(Incoming::WrongTenant(_)) => Err("tenant"),
        Ok(incoming) => Ok(incoming),
        Err(malformed) if malformed.to_string().contains("aadObjectId") => Err("principal"),
        Err(malformed) if malformed.to_string().contains("conversations") => Err("tenant"),
        Err(_) => Err("parse"),
    }
}

/// What was understood is what is expected.
fn check_parsed(id: &str, incoming: &Incoming<ReplyTo>, expected: &Value) {
    let Incoming::Click { click, .. } = incoming else { panic!("{id}: {incoming:?}") };
    let principal = format!("teams:{}/{}", text(expected, "/principal/tenant"), text(expected, "/principal/user"));
    assert_eq!(click.by.as_str(), principal, "{id}");
    assert_eq!(click.reason.as_deref(), expected["reason"].as_str(), "{id}");
    // The buttons of the vectors are laid out otherwise than ours.
    assert_eq!(click.binding, "", "{id}");
}

#[tokio::test]
async fn teams_requests_match_the_vectors() {
    let mut checked = 0;
    for vector in vectors("teams_bot_jwt") {
        let (id, expected) = (text(&vector, "/id"), &vector["expect"]);
        if text(expected, "/stage") == "replay" {
            continue;
        }
        let outcome = outcome(&vector).await;
        match text(expected, "/recommended") {
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
    assert!(checked >= 32, "{checked}");
}

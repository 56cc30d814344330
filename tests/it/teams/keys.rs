//! The keys of the bot service: how often they are fetched, and what happens if they cannot be.

use jiff::SignedDuration;
use peergate::chat::teams::{self, KeyCache, TokenClaims, sign_activity_with};
use peergate::chat::{Authentic, Unauthentic, VerifyError};
use peergate::http::Clients;
use serde_json::json;
use tokio::task::JoinSet;

use super::*;

const DOCUMENT: &str = "openidconfiguration";

/// A fake, and a process that verifies its activities.
#[derive(Clone)]
struct Verifier {
    fake: FakeTeams,
    config: Config,
    cache: std::sync::Arc<KeyCache>,
    http: reqwest::Client,
}

impl Verifier {
    async fn start() -> Self {
        let fake = FakeTeams::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let keys = format!("http://{address}/v1/.well-known/openidconfiguration").parse().unwrap();
        tokio::spawn(fake.clone().serve(listener));
        // The server sets its address when it runs.
        while !fake.service_url().contains(&address) {
            tokio::task::yield_now().await;
        }
        let config = Config { service_hosts: vec![address], keys: Some(keys), ..config() };
        let http = Clients::new().unwrap().shared().clone();
        Self { fake, config, cache: std::sync::Arc::default(), http }
    }

    async fn verify(&self, signed: &SignedRequest, now: Timestamp) -> Result<Authentic, VerifyError> {
        teams::verify_with(&self.http, &self.config, &self.cache, &headers(signed), &body(signed), now).await
    }

    /// Verifies an activity that is signed with this key, an hour-long token of that time.
    async fn verify_with_key(&self, key_id: &str, now: Timestamp) -> Result<(), VerifyError> {
        let activity = self.fake.write_to_bot("list", &self.fake.user("alice"));
        let claims =
            TokenClaims { key_id: key_id.into(), issued_at: now, ..self.fake.claims(&self.fake.service_url()) };
        self.verify(&sign_activity_with(&activity, &claims).unwrap(), now).await.map(|_| ())
    }

    fn fail(&self, status: u16) {
        let path = ".well-known".to_owned();
        self.fake.add_fault(TeamsFault { path, status, ..TeamsFault::default() });
    }
}

fn unknown() -> Result<(), VerifyError> {
    Err(Unauthentic::InvalidToken("its key is unknown").into())
}

fn later(now: Timestamp, seconds: i64) -> Timestamp {
    now + SignedDuration::from_secs(seconds)
}

#[tokio::test]
async fn keys_are_fetched_once_a_day() {
    let (it, now) = (Verifier::start().await, clock::now());
    for seconds in [0, 1, 3600, 24 * 3600 - 1] {
        assert_eq!(it.verify_with_key("throwaway-1", later(now, seconds)).await, Ok(()));
    }
    assert_eq!((it.fake.count_calls(DOCUMENT), it.fake.calls().len()), (1, 2), "the document, and the keys");
    assert_eq!(it.verify_with_key("throwaway-1", later(now, 24 * 3600)).await, Ok(()));
    assert_eq!(it.fake.count_calls(DOCUMENT), 2);
}

#[tokio::test]
async fn concurrent_requests_fetch_the_keys_once() {
    let (it, now) = (Verifier::start().await, clock::now());
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let it = it.clone();
        tasks.spawn(async move { it.verify_with_key("throwaway-1", now).await });
    }
    assert!(tasks.join_all().await.iter().all(Result::is_ok));
    assert_eq!(it.fake.count_calls(DOCUMENT), 1);
}

#[tokio::test]
async fn unknown_key_is_looked_for_once_in_five_minutes() {
    let (it, now) = (Verifier::start().await, clock::now());
    assert_eq!(it.verify_with_key("throwaway-1", now).await, Ok(()));
    for seconds in [0, 1, 299] {
        for key_id in ["other", "another"] {
            assert_eq!(it.verify_with_key(key_id, later(now, seconds)).await, unknown());
        }
    }
    assert_eq!(it.fake.count_calls(DOCUMENT), 2);
    assert_eq!(it.verify_with_key("other", later(now, 300)).await, unknown());
    assert_eq!(it.fake.count_calls(DOCUMENT), 3);
    assert_eq!(it.verify_with_key("throwaway-1", later(now, 300)).await, Ok(()), "known keys are not concerned");
}

#[tokio::test]
async fn rotated_key_is_found_and_the_old_one_ends() {
    let (it, now) = (Verifier::start().await, clock::now());
    assert_eq!(it.verify_with_key("throwaway-1", now).await, Ok(()));
    it.fake.rotate_key("throwaway-2", &["msteams"]);
    assert_eq!(it.verify_with_key("throwaway-2", later(now, 1)).await, Ok(()));
    assert_eq!(it.verify_with_key("throwaway-1", later(now, 1)).await, unknown());
    it.fake.rotate_key("throwaway-3", &["webchat"]);
    let not_endorsed = Err(Unauthentic::InvalidToken("its key is not endorsed for Teams").into());
    assert_eq!(it.verify_with_key("throwaway-3", later(now, 302)).await, not_endorsed);
}

#[tokio::test]
async fn unavailable_keys_are_no_refusal_and_are_asked_for_rarely() {
    let (it, now) = (Verifier::start().await, clock::now());
    it.fail(503);
    for _ in 0..10 {
        let result = it.verify_with_key("throwaway-1", now).await;
        assert_eq!(result, Err(VerifyError::KeysUnavailable("HTTP 503".into())));
    }
    assert_eq!(it.fake.calls().len(), 1, "the pause is five seconds");
    it.fake.clear_faults();
    assert_eq!(it.verify_with_key("throwaway-1", later(now, 5)).await, Ok(()));
}

#[tokio::test]
async fn failed_fetch_keeps_the_old_keys_for_some_days() {
    let (it, now) = (Verifier::start().await, clock::now());
    assert_eq!(it.verify_with_key("throwaway-1", now).await, Ok(()));
    it.fail(500);
    let unavailable = |result| matches!(result, Err(VerifyError::KeysUnavailable(_)));
    assert!(unavailable(it.verify_with_key("other", later(now, 60)).await), "nobody knows");
    assert_eq!(it.verify_with_key("throwaway-1", later(now, 60)).await, Ok(()));
    assert_eq!(it.verify_with_key("throwaway-1", later(now, 25 * 3600)).await, Ok(()));
    assert!(unavailable(it.verify_with_key("throwaway-1", later(now, 4 * 24 * 3600)).await));
}

#[tokio::test]
async fn hanging_key_server_is_given_up() {
    let (it, now) = (Verifier::start().await, clock::now());
    let path = ".well-known/keys".to_owned();
    it.fake.add_fault(TeamsFault { path, hangs: true, ..TeamsFault::default() });
    let result = it.verify_with_key("throwaway-1", now).await;
    assert_eq!(result, Err(VerifyError::KeysUnavailable("Transport.Timeout".into())));
}

/// What is understood of a key server with these answers.
async fn result_with(document: Value, keys: Value) -> Result<(), VerifyError> {
    let it = Verifier::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let (document, keys) = (document.to_string().replace("BASE/", base.as_str()), keys.to_string());
    let app = axum::Router::new().fallback(move |uri: http::Uri| {
        std::future::ready(if uri.path() == "/keys" { keys.clone() } else { document.clone() })
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let config = Config { keys: Some(base.join("openid").unwrap()), ..it.config.clone() };
    Verifier { config, ..it }.verify_with_key("throwaway-1", clock::now()).await
}

#[tokio::test]
async fn malformed_key_documents_are_unavailable_keys() {
    let issuer = "https://api.botframework.com";
    let good = json!({"issuer": issuer, "jwks_uri": "BASE/keys"});
    let key = teams::json_web_key("throwaway-1", &["msteams"]).unwrap();
    let set = json!({"keys": [{"kty": "EC", "kid": "x"}, "odd", key]});
    assert_eq!(result_with(good.clone(), set.clone()).await, Ok(()), "odd keys are left out");
    let mut with = key.clone();
    for (member, value) in [("kty", "oct"), ("use", "enc"), ("alg", "RS512"), ("n", ""), ("e", "AA")] {
        with[member] = value.into();
        let result = result_with(good.clone(), json!({"keys": [with.clone()]})).await;
        assert_eq!(result, Err(VerifyError::KeysUnavailable("there are no keys".into())), "{member}");
        with = key.clone();
    }
    let large = json!({"keys": [key, {"x": "x".repeat(600_000)}]});
    for (document, keys, problem) in [
        (json!({"issuer": "https://evil.example", "jwks_uri": "BASE/keys"}), &set, "of another issuer"),
        (json!({"issuer": issuer, "jwks_uri": "http://127.0.0.1:9/keys"}), &set, "on another host"),
        (json!({"issuer": issuer, "jwks_uri": "https://evil.example/keys"}), &set, "on another host"),
        (json!({"issuer": issuer, "jwks_uri": 1}), &set, "not a document of keys"),
        (json!([]), &set, "not a document of keys"),
        (good.clone(), &json!({"keys": 1}), "not a set of keys"),
        (good.clone(), &large, "too large"),
    ] {
        let result = result_with(document, keys.clone()).await;
        let is_expected = matches!(&result, Err(VerifyError::KeysUnavailable(reason)) if reason.contains(problem));
        assert!(is_expected, "{problem}: {result:?}");
    }
}

#[tokio::test]
async fn short_rsa_key_verifies_nothing() {
    let short = json!({
        "kty": "RSA", "kid": "throwaway-1", "e": "AQAB", "endorsements": ["msteams"],
        // 1024 bits.
        "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4",
    });
    let document = json!({"issuer": "https://api.botframework.com", "jwks_uri": "BASE/keys"});
    let refused = Err(Unauthentic::InvalidToken("its signature is not that of its key").into());
    assert_eq!(result_with(document, json!({"keys": [short]})).await, refused);
}

#[tokio::test]
async fn key_is_endorsed_only_if_each_of_its_copies_is() {
    let document = json!({"issuer": "https://api.botframework.com", "jwks_uri": "BASE/keys"});
    let key = |channel| teams::json_web_key("throwaway-1", &[channel]).unwrap();
    let refused = Err(Unauthentic::InvalidToken("its key is not endorsed for Teams").into());
    for [first, second] in [["msteams", "webchat"], ["webchat", "msteams"]] {
        let keys = json!({"keys": [key(first), key(second)]});
        assert_eq!(result_with(document.clone(), keys).await, refused, "{first} first");
    }
    assert_eq!(result_with(document, json!({"keys": [key("msteams"), key("msteams")]})).await, Ok(()));
}

//! What arrives: tokens, clicks and questions. A refusal reaches neither the store nor any API.

use jiff::SignedDuration;
use peergate::chat::teams::{self, KeyCache, ReplyTo, TokenClaims, sign_activity_with, sign_token};
use peergate::chat::{Authentic, Click, Command, CommandRequest, Incoming, MalformedRequest, Unauthentic, VerifyError};
use peergate::http::Clients;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A fake that answers only for its keys.
struct Receiver {
    fake: FakeTeams,
    config: Config,
    cache: KeyCache,
    http: reqwest::Client,
}

impl Receiver {
    async fn start() -> Self {
        let fake = FakeTeams::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let _ = fake.sandbox_extension(&url);
        let address = format!("127.0.0.1:{}", url.port().unwrap());
        tokio::spawn(fake.clone().serve(listener));
        let keys = url.join("v1/.well-known/openidconfiguration").unwrap();
        let config = Config { service_hosts: vec![address], keys: Some(keys), ..config() };
        Self { fake, config, cache: KeyCache::default(), http: Clients::new().unwrap().shared().clone() }
    }

    async fn verify(&self, signed: &SignedRequest) -> Result<Authentic, VerifyError> {
        let (headers, body) = (headers(signed), body(signed));
        teams::verify_with(&self.http, &self.config, &self.cache, &headers, &body, clock::now()).await
    }

    async fn parse(&self, activity: &Value) -> Result<Incoming<ReplyTo>, MalformedRequest> {
        let authentic = self.verify(&self.fake.sign(activity).unwrap()).await.unwrap();
        teams::parse(&self.config, authentic)
    }

    async fn click(&self, activity: &Value) -> Click {
        match self.parse(activity).await {
            Ok(Incoming::Click { click, .. }) => click,
            other => panic!("{other:?}"),
        }
    }

    /// A click on a card with this data.
    fn invoke(&self, data: &Value) -> Value {
        let mut activity = self.fake.mention_bot("x", &self.fake.user("alice"));
        let more = json!({
            "type": "invoke", "name": "adaptiveCard/action", "text": null, "entities": [], "replyToId": "1793000000001",
            "value": {"action": {"type": "Action.Execute", "verb": "x", "data": data}, "trigger": "manual"},
        });
        activity.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        activity
    }

    fn claims(&self) -> TokenClaims {
        self.fake.claims(&self.fake.service_url())
    }

    /// Why a token with this header and these claims is refused.
    async fn refusal(&self, header: &Value, claims: &Value) -> String {
        let activity = self.invoke(&json!({"b": "x"}));
        let signed = sign_activity_with(&activity, &self.claims()).unwrap();
        let token = sign_token(header, claims).unwrap();
        let headers = vec![("authorization", format!("Bearer {token}"))];
        match self.verify(&SignedRequest { headers, ..signed }).await {
            Err(VerifyError::Unauthentic(unauthentic)) => unauthentic.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn with(value: &Value, member: &str, to: Value) -> Value {
    let mut changed = value.clone();
    changed[member] = to;
    changed
}

#[tokio::test]
async fn every_claim_of_a_token_is_checked() {
    let it = Receiver::start().await;
    let now = clock::now().as_second();
    let header = json!({"alg": "RS256", "kid": "throwaway-1", "typ": "JWT"});
    let good = json!({
        "iss": "https://api.botframework.com", "aud": it.config.app, "nbf": now, "exp": now + 3600,
        "serviceurl": it.fake.service_url(),
    });
    let algorithm = "its algorithm is not RS256";
    for (changed, problem) in [
        (with(&header, "alg", json!("none")), algorithm),
        (with(&header, "alg", json!("HS256")), algorithm),
        (with(&header, "alg", json!("rs256")), algorithm),
        (with(&header, "alg", json!("RS512")), algorithm),
        (with(&header, "kid", Value::Null), "it names no key"),
        (with(&header, "kid", json!("")), "it names no key"),
        (with(&header, "kid", json!("x".repeat(129))), "it names no key"),
        (with(&header, "kid", json!("throwaway-2")), "its key is unknown"),
        (with(&header, "crit", json!(["exp"])), "extensions"),
        (with(&header, "alg", json!(1)), "header authorization is malformed"),
        (json!(["RS256", "throwaway-1"]), "header authorization is malformed"),
    ] {
        let refusal = it.refusal(&changed, &good).await;
        assert!(refusal.contains(problem), "{changed}: {refusal}");
    }
    for (member, value, problem) in [
        ("iss", json!("https://api.botframework.us"), "its issuer"),
        ("iss", json!(format!("https://sts.windows.net/{}/", it.config.tenant)), "its issuer"),
        ("iss", Value::Null, "its issuer"),
        ("aud", json!(format!("api://{}", it.config.app)), "its audience"),
        ("aud", json!([it.config.app]), "claims are malformed"),
        ("aud", Value::Null, "its audience"),
        ("exp", Value::Null, "it has no end"),
        ("exp", json!("never"), "claims are malformed"),
        ("exp", json!(i64::MAX), "it has no end"),
        ("exp", json!(now - 301), "it has expired"),
        ("exp", json!(now + 24 * 3600 + 60), "more than a day away"),
        ("nbf", json!(now + 330), "it is not valid yet"),
        ("nbf", json!(i64::MIN), "claims are malformed"),
        ("serviceurl", Value::Null, "it names no service URL"),
        ("serviceurl", json!("https://smba.trafficmanager.net/emea/"), "not that of the body"),
    ] {
        let refusal = it.refusal(&header, &with(&good, member, value.clone())).await;
        assert!(refusal.contains(problem), "{member} {value}: {refusal}");
    }
    let embedded =
        with(&with(&header, "jwk", teams::json_web_key("mine", &["msteams"]).unwrap()), "kid", json!("mine"));
    assert!(it.refusal(&with(&embedded, "jku", json!("http://127.0.0.1:9/")), &good).await.contains("key is unknown"));
}

#[tokio::test]
async fn token_with_another_form_is_refused_before_anything_else() {
    let it = Receiver::start().await;
    let signed = sign_activity_with(&it.invoke(&json!({"b": "x"})), &it.claims()).unwrap();
    let good = signed.headers.iter().find(|(name, _)| *name == "authorization").unwrap().1.clone();
    let token = good.strip_prefix("Bearer ").unwrap();
    for value in [
        String::new(),
        "Bearer".into(),
        "Bearer ".into(),
        format!("Basic {token}"),
        format!("Bearer  {token}"),
        format!("Bearer {token}, Bearer {token}"),
        format!("Bearer {token}="),
        format!("Bearer {token}.x"),
        format!("Bearer {}", token.replace('.', "")),
        format!("Bearer {}.{token}", "a".repeat(9000)),
        "Bearer a.b.c".into(),
    ] {
        let headers = vec![("authorization", value.clone())];
        let request = http::Request::post("/teams").header("authorization", &value).body(body(&signed)).unwrap();
        let platform = peergate::chat::platform::Platform::Teams;
        let refused = platform.precheck_request(&request, clock::now());
        assert!(matches!(refused, Err(Unauthentic::MalformedHeader(_))), "{value}: {refused:?}");
        assert!(it.verify(&SignedRequest { headers, ..signed.clone() }).await.is_err(), "{value}");
    }
    let unsigned = SignedRequest { headers: vec![], ..signed.clone() };
    let missing = Err(Unauthentic::MissingHeader("authorization").into());
    assert_eq!(it.verify(&unsigned).await.map(|_| ()), missing);
    let mut twice = headers(&signed);
    twice.append("authorization", HeaderValue::from_str(&good).unwrap());
    let verified = teams::verify_with(&it.http, &it.config, &it.cache, &twice, &body(&signed), clock::now()).await;
    assert_eq!(verified.map(|_| ()), Err(Unauthentic::DuplicateHeader("authorization").into()));
    assert!(it.fake.calls().is_empty(), "no key was fetched");
}

#[tokio::test]
async fn changed_token_or_signature_is_refused() {
    let it = Receiver::start().await;
    let signed = sign_activity_with(&it.invoke(&json!({"b": "x"})), &it.claims()).unwrap();
    let good = signed.headers[1].1.clone();
    let parts: Vec<_> = good.split('.').collect();
    let other = sign_activity_with(
        &it.invoke(&json!({"b": "y"})),
        &TokenClaims { issued_at: clock::now() - SignedDuration::from_secs(10), ..it.claims() },
    );
    let other = other.unwrap().headers[1].1.clone();
    let other: Vec<_> = other.split('.').collect();
    for changed in [
        [parts[0], other[1], parts[2]],
        [parts[0], parts[1], other[2]],
        [parts[0], parts[1], ""],
        [parts[0], parts[1], "AAAA"],
    ] {
        let headers = vec![("authorization", changed.join("."))];
        let refused = it.verify(&SignedRequest { headers, ..signed.clone() }).await.map(|_| ());
        assert_eq!(refused, Err(Unauthentic::InvalidToken("its signature is not that of its key").into()));
    }
}

#[tokio::test]
async fn body_of_another_service_or_channel_is_refused() {
    let it = Receiver::start().await;
    let good = it.invoke(&json!({"b": "x"}));
    let service_url = it.fake.service_url();
    let verify = async |activity: &Value| {
        let signed = sign_activity_with(activity, &it.claims()).unwrap();
        it.verify(&signed).await.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(verify(&with(&good, "serviceUrl", json!(service_url.trim_end_matches('/')))).await, Ok(()));
    for (activity, problem) in [
        (with(&good, "serviceUrl", Value::Null), "not that of the body"),
        (with(&good, "serviceUrl", json!("https://evil.example/")), "not that of the body"),
        (with(&good, "serviceUrl", json!(service_url.to_uppercase())), "not that of the body"),
        (with(&good, "channelId", json!("webchat")), "another channel"),
        (with(&good, "channelId", json!("emulator")), "another channel"),
        (with(&good, "channelId", Value::Null), "another channel"),
        (with(&good, "serviceUrl", json!(1)), "not one JSON document"),
        (json!([good]), "not one JSON document"),
        (json!("text"), "not one JSON document"),
    ] {
        let refused = verify(&activity).await.unwrap_err();
        assert!(refused.contains(problem), "{activity}: {refused}");
    }
    for url in [
        "https://smba.trafficmanager.net.evil.example/",
        "http://smba.trafficmanager.net/",
        "https://x@smba.trafficmanager.net/",
    ] {
        let claims = it.fake.claims(url);
        let signed = sign_activity_with(&with(&good, "serviceUrl", json!(url)), &claims).unwrap();
        let refused = it.verify(&signed).await.map(|_| ());
        assert_eq!(
            refused,
            Err(Unauthentic::InvalidToken("its service URL has a host that is not known").into()),
            "{url}"
        );
    }
}

#[tokio::test]
async fn click_names_its_card_without_the_thread() {
    let it = Receiver::start().await;
    let invoke = it.invoke(&json!({"b": "the-binding", "reason": "  größer\n "}));
    let click = it.click(&invoke).await;
    assert_eq!(click.by.as_str(), format!("teams:{}/{}", it.config.tenant, it.fake.user("alice").object_id));
    assert_eq!((click.binding.as_str(), click.reason.as_deref()), ("the-binding", Some("größer")));
    assert_eq!(click.message_ref, Some(format!("{CHANNEL_ID}/1793000000001")));
    assert!(click.origin.request_key.starts_with("teams:") && click.origin.request_key.len() == 38);
    assert_eq!(it.click(&invoke).await.origin.request_key, click.origin.request_key, "a repetition");
    let mut elsewhere = invoke.clone();
    elsewhere["conversation"]["id"] = json!(CHANNEL_ID);
    assert_eq!(it.click(&elsewhere).await.origin.request_key, click.origin.request_key, "without the thread");
    assert_ne!(it.click(&with(&invoke, "id", json!("f:2"))).await.origin.request_key, click.origin.request_key);
    let mut upper = invoke.clone();
    upper["from"]["aadObjectId"] = json!(it.fake.user("alice").object_id.to_uppercase());
    assert_eq!(it.click(&upper).await.by, click.by, "GUIDs have no case");
}

#[tokio::test]
async fn fallback_click_is_a_message_with_the_data_of_its_button() {
    let it = Receiver::start().await;
    let mut message = it.invoke(&json!({}));
    message["type"] = json!("message");
    message["value"] = json!({"b": "x", "approve_reason": "so"});
    let parsed = it.parse(&message).await;
    let Ok(Incoming::Click { click, reply_to: ReplyTo::Text(_) }) = parsed else { panic!("{parsed:?}") };
    assert_eq!((click.binding.as_str(), click.reason.as_deref()), ("x", Some("so")));
    assert_eq!(click.message_ref, Some(format!("{CHANNEL_ID}/1793000000001")));
}

#[tokio::test]
async fn malformed_teams_clicks_are_refused() {
    let it = Receiver::start().await;
    let good = it.invoke(&json!({"b": "x"}));
    let changed = |pointer: &str, to: Value| {
        let mut activity = good.clone();
        *activity.pointer_mut(pointer).unwrap() = to;
        activity
    };
    for (pointer, to) in [
        ("/name", json!("task/fetch")),
        ("/value", json!(null)),
        ("/value/action/type", json!("Action.Submit")),
        ("/value/trigger", json!("automatic")),
        ("/value/action/data", json!([])),
        ("/value/action/data", json!({"b": 1})),
        ("/value/action/data", json!({"b": "x".repeat(513)})),
        ("/value/action/data", json!({"b": "x", "reason": 1})),
        ("/value/action/data", json!({"b": "x", "reason": "one", "approve_reason": "two"})),
        ("/replyToId", json!(null)),
        ("/replyToId", json!("../x")),
        ("/id", json!("a/b")),
        ("/id", json!("")),
        ("/conversation/id", json!("19:../../x@thread.tacv2")),
        ("/conversation/id", json!("")),
        ("/from/id", json!("29:a?b")),
        ("/from/aadObjectId", json!(null)),
        ("/from/aadObjectId", json!("alice")),
        ("/from/aadObjectId", json!("")),
        ("/from", json!(null)),
        ("/type", json!(1)),
    ] {
        let parsed = it.parse(&changed(pointer, to.clone())).await;
        assert!(parsed.is_err(), "{pointer} {to}: {parsed:?}");
    }
    let long = changed("/value/action/data", json!({"b": "x", "reason": "x".repeat(9000)}));
    assert_eq!(it.click(&long).await.reason.unwrap().len(), 9000, "a long reason is refused later, and never cut");
    let data = changed("/value/action", json!({"type": "Action.Execute"}));
    assert_eq!(it.click(&data).await.binding, "", "another app's button");
}

#[tokio::test]
async fn other_tenants_and_conversations_are_recognized() {
    let it = Receiver::start().await;
    let good = it.invoke(&json!({"b": "x"}));
    let foreign = "c47f831e-96eb-43b3-aaae-84fddbfe3619";
    for pointer in ["/conversation/tenantId", "/channelData/tenant/id", "/from/tenantId"] {
        let mut activity = good.clone();
        activity["from"]["tenantId"] = json!(it.config.tenant);
        *activity.pointer_mut(pointer).unwrap() = json!(foreign);
        let parsed = it.parse(&activity).await;
        let Ok(Incoming::WrongTenant(request)) = parsed else { panic!("{pointer}: {parsed:?}") };
        assert!(request.mismatch.to_string().starts_with(&format!("received tenant {foreign}")), "{pointer}");
        assert!(matches!(request.reply_to, Some(ReplyTo::Click(_))));
        activity["type"] = json!("message");
        let parsed = it.parse(&activity).await;
        assert!(matches!(parsed, Ok(Incoming::WrongTenant(ref request)) if request.reply_to.is_none()), "{parsed:?}");
    }
    let mut nowhere = good.clone();
    nowhere["conversation"]["tenantId"] = Value::Null;
    nowhere["channelData"]["tenant"] = Value::Null;
    assert!(matches!(it.parse(&nowhere).await, Ok(Incoming::WrongTenant(_))), "no tenant is none of ours");
    let mut elsewhere = good.clone();
    elsewhere["channelData"]["team"]["id"] = json!("19:other@thread.tacv2");
    let refused = it.parse(&elsewhere).await.unwrap_err().to_string();
    assert!(refused.contains("platforms.teams.conversations"), "{refused}");
}

/// The command, or `None` if the words are none.
async fn command_of(it: &Receiver, activity: &Value) -> Option<Command> {
    match it.parse(activity).await.unwrap() {
        Incoming::Command { request: CommandRequest { command, .. }, reply_to: ReplyTo::Text(_) } => Some(command),
        Incoming::UnknownCommand { reply_to: ReplyTo::Text(_), .. } => None,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn question_loses_the_mention_of_the_bot_only() {
    let it = Receiver::start().await;
    let alice = it.fake.user("alice");
    let list = Some(Command::List { target: None });
    assert_eq!(command_of(&it, &it.fake.mention_bot("list", &alice)).await, list);
    assert_eq!(command_of(&it, &it.fake.mention_bot("list\n", &alice)).await, list);
    assert_eq!(command_of(&it, &it.fake.write_to_bot("list", &alice)).await, list);
    assert_eq!(command_of(&it, &it.fake.write_to_bot("&nbsp;list ", &alice)).await, list);
    assert_eq!(command_of(&it, &it.fake.write_to_bot("", &alice)).await, None);
    assert_eq!(command_of(&it, &it.fake.write_to_bot(&"list ".repeat(5000), &alice)).await, None);
    let mut renamed = it.fake.mention_bot("x", &alice);
    renamed["text"] = json!("<at>VPC gate</at> list <at>Bob</at>");
    renamed["entities"][0]["text"] = json!("<at>VPC gate</at>");
    assert_eq!(command_of(&it, &renamed).await, list);
    let mut odd = it.fake.mention_bot("list", &alice);
    odd["entities"][0]["text"] = json!("list");
    assert_eq!(it.parse(&odd).await, Ok(Incoming::Challenge("{}".into())), "a mark of another form is none");
}

#[tokio::test]
async fn activities_that_need_no_answer_are_ignored() {
    let it = Receiver::start().await;
    let alice = it.fake.user("alice");
    let mention = it.fake.mention_bot("list", &alice);
    let mut by_bot = mention.clone();
    by_bot["from"]["id"] = json!("28:0badf00d-0000-4000-8000-000000000000");
    let mut role = mention.clone();
    role["from"]["role"] = json!("bot");
    let mut unmentioned = mention.clone();
    unmentioned["entities"] = json!([]);
    let mut other = mention.clone();
    other["entities"][0]["mentioned"]["id"] = json!("29:bob");
    let [added, installed] = it.fake.install(&alice);
    let reaction = with(&mention, "type", json!("messageReaction"));
    for activity in [by_bot, role, unmentioned, other, added, installed, reaction] {
        assert_eq!(it.parse(&activity).await, Ok(Incoming::Challenge("{}".into())), "{activity}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_tokens_and_bodies_never_verify_or_panic(token in "[A-Za-z0-9._-]{0,80}", junk in any::<Vec<u8>>()) {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        let request = http::Request::post("/teams").header("authorization", format!("Bearer {token}"));
        let request = request.body(Bytes::from(junk)).unwrap();
        let platform = peergate::chat::platform::Platform::Teams;
        prop_assert!(platform.precheck_request(&request, clock::now()).is_err());
    }
}

#[tokio::test]
async fn odd_activities_are_refused_without_a_panic() {
    let it = Receiver::start().await;
    let good = it.invoke(&json!({"b": "x"}));
    for pointer in
        ["/from", "/conversation", "/channelData", "/value", "/value/action", "/entities", "/recipient", "/text"]
    {
        for to in [json!(1), json!("x"), json!([1]), json!({"id": []}), Value::Null, json!(true)] {
            let mut activity = good.clone();
            *activity.pointer_mut(pointer).unwrap() = to;
            let verified = it.verify(&it.fake.sign(&activity).unwrap()).await;
            if let Ok(authentic) = verified {
                let _ = teams::parse(&it.config, authentic);
            }
        }
    }
}

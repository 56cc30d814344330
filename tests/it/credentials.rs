//! Our identity at Alibaba Cloud: roles that are assumed with an access key, or with an identity token of AWS.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::prelude::*;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use futures_util::future::join_all;
use peergate::app::App;
use peergate::config::Config;
use peergate::fake::alicloud::{OidcProvider, SimulatorSettings};
use peergate::metrics;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use tokio::net::TcpListener;

const ROLE: &str = "acs:ram::2222222222222222:role/peergate";
const PROVIDER: &str = "acs:ram::2222222222222222:oidc-provider/aws";
const WEBHOOK_ROLE: &str = "arn:aws:iam::123456789012:role/peergate-WebhookRole";

/// AWS STS, as far as it issues identity tokens; and what it publishes about them.
struct Aws {
    url: String,
    key: RsaKeyPair,
    issued: AtomicUsize,
    /// An error, or claims to issue instead.
    instead: Mutex<Instead>,
}

#[derive(Default)]
struct Instead {
    refusal: Option<&'static str>,
    claims: Value,
    forged: bool,
    unpublished: bool,
}

impl Aws {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key = RsaKeyPair::from_pkcs8(include_bytes!("../vectors/test-issuer.pkcs8.der")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let aws = Arc::new(Self { url, key, issued: AtomicUsize::default(), instead: Mutex::default() });
        let router = Router::new()
            .route("/", post(issue))
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(keys))
            .with_state(Arc::clone(&aws));
        tokio::spawn(async { axum::serve(listener, router).await });
        aws
    }

    fn token(&self) -> String {
        let instead = self.instead.lock().unwrap();
        let now = clock::now().as_second();
        let mut claims = json!({
            "iss": self.url, "aud": "sts.aliyuncs.com", "sub": WEBHOOK_ROLE, "iat": now, "exp": now + 300,
        });
        let fields = instead.claims.as_object().into_iter().flatten();
        claims.as_object_mut().unwrap().extend(fields.map(|(name, value)| (name.clone(), value.clone())));
        let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT", "kid": "one"})), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        let what = if instead.forged { "something else" } else { signed.as_str() };
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), what.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

async fn issue(State(aws): State<Arc<Aws>>, headers: HeaderMap, body: String) -> (StatusCode, String) {
    aws.issued.fetch_add(1, Ordering::SeqCst);
    if let Some(code) = aws.instead.lock().unwrap().refusal {
        return (StatusCode::FORBIDDEN, format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>"));
    }
    let authorization = headers["authorization"].to_str().unwrap();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=local/"), "{authorization}");
    assert!(authorization.contains("/eu-central-1/sts/aws4_request"), "{authorization}");
    let form: std::collections::BTreeMap<_, _> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let expected = [
        ("Action", "GetWebIdentityToken"),
        ("Audience.member.1", "sts.aliyuncs.com"),
        ("DurationSeconds", "300"),
        ("SigningAlgorithm", "RS256"),
        ("Version", "2011-06-15"),
    ];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let (token, expiration) = (aws.token(), clock::now() + SignedDuration::from_mins(5));
    let result = format!("<WebIdentityToken>{token}</WebIdentityToken><Expiration>{expiration}</Expiration>");
    let result = format!("<GetWebIdentityTokenResult>{result}</GetWebIdentityTokenResult>");
    (StatusCode::OK, format!("<GetWebIdentityTokenResponse>{result}</GetWebIdentityTokenResponse>"))
}

async fn discovery(State(aws): State<Arc<Aws>>) -> (StatusCode, String) {
    let broken = aws.instead.lock().unwrap().unpublished;
    let status = if broken { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    let document = json!({"issuer": aws.url, "jwks_uri": format!("{}/jwks", aws.url)});
    (status, if broken { String::new() } else { document.to_string() })
}

async fn keys(State(aws): State<Arc<Aws>>) -> String {
    let key = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(aws.key.public());
    let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    json!({"keys": [{"kid": "one", "kty": "RSA", "alg": "RS256", "n": text(&key.n), "e": text(&key.e)}]}).to_string()
}

fn provider(aws: &Aws) -> OidcProvider {
    OidcProvider {
        arn: PROVIDER.into(),
        issuer: aws.url.clone(),
        client_ids: vec!["sts.aliyuncs.com".into()],
        subjects: vec![WEBHOOK_ROLE.into()],
    }
}

/// A peergate whose target has credentials of this kind, and whose secrets hold these keys.
async fn app(aws: &Aws, settings: SimulatorSettings, credentials: &str, keys: Value) -> TestApp {
    let app = TestApp::with_settings(settings).await;
    app.write_secrets(|secrets| secrets["targets"] = keys).unwrap();
    let config = app.config.replacen("[targets.prod]\n", &format!("[targets.prod]\ncredentials = {credentials}\n"), 1);
    let mut app = app.with_config(&config);
    app.environment_mut().aws.sts_endpoint = Some(aws.url.clone());
    app.with_config(&config)
}

async fn keyless(aws: &Aws, provider: OidcProvider) -> TestApp {
    let settings = SimulatorSettings { providers: vec![provider], ..quick_settings() };
    let oidc = format!(r#"{{ kind = "oidc", role = "{ROLE}", provider = "{PROVIDER}" }}"#);
    app(aws, settings, &oidc, json!({})).await
}

/// The sessions in which an operation was called, in order.
fn sessions(app: &TestApp, action: &str) -> Vec<String> {
    let journal = app.simulator.journal().into_iter();
    journal
        .filter(|entry| entry.action == action && !entry.is_dry_run())
        .map(|it| it.session.unwrap_or_default())
        .collect()
}

async fn approve(app: &TestApp, id: &InstanceId) -> WebhookReply {
    app.approve(id, "alice").await
}

#[tokio::test]
async fn keyless_approval_runs_in_a_session_named_after_it() {
    let aws = Aws::start().await;
    let app = keyless(&aws, provider(&aws)).await;
    let (one, two) = (app.new_request().await, app.new_request().await);
    for id in [&one, &two] {
        assert_eq!(approve(&app, id).await.name(), "accepted");
    }
    app.tick().await;
    assert_eq!((app.state_of(&one).await, app.state_of(&two).await), ("activated".into(), "activated".into()));
    let named = |id: &InstanceId| format!("peergate-{id}");
    assert_eq!(sessions(&app, ACCEPT), [named(&one), named(&two)]);
    assert!(sessions(&app, GET).iter().all(|session| session == "peergate"));
    assert_eq!(app.count_calls("AssumeRoleWithOIDC"), 3, "one for reading, and one for each decision");
    assert_eq!(aws.issued.load(Ordering::SeqCst), 1, "one token serves for five minutes");
}

#[tokio::test]
async fn concurrent_requests_share_one_session() {
    let aws = Aws::start().await;
    let app = keyless(&aws, provider(&aws)).await;
    let id = app.new_request().await;
    let asked = join_all((0..20).map(async |number| {
        let actor = format!("reader-{}", number % 4);
        app.status(&id, &actor).await.status
    }))
    .await;
    assert_eq!(asked, [200; 20]);
    assert_eq!((app.count_calls("AssumeRoleWithOIDC"), aws.issued.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn session_is_renewed_early_and_serves_until_it_expires() {
    let aws = Aws::start().await;
    let app = keyless(&aws, provider(&aws)).await;
    let id = app.new_request().await;
    let ask = async |minutes: i64| {
        let at = clock::now() + SignedDuration::from_mins(minutes);
        let body = app.sign_event("status", &id, "alice").await.body;
        let signed = app.sign_body_as(&body, &format!("msg_{}", clock::nonce()), &at.as_second().to_string());
        app.send_at(&signed, at).await.status
    };
    assert_eq!((ask(0).await, app.count_calls("AssumeRoleWithOIDC")), (200, 1));
    assert_eq!((ask(44).await, app.count_calls("AssumeRoleWithOIDC")), (200, 1), "16 minutes are left");
    app.fail_times(2, "AssumeRoleWithOIDC", "ServiceUnavailable");
    assert_eq!((ask(46).await, app.simulator.pending_faults()), (200, 1), "it was tried, and the old one serves");
    assert_eq!((ask(46).await, app.simulator.pending_faults()), (200, 1), "and is not tried again at once");
    assert_eq!(ask(61).await, 503, "it has ended, and there is no other");
    assert_eq!(
        (ask(61).await, app.count_calls("AssumeRoleWithOIDC")),
        (503, 3),
        "those who come at once are told the same"
    );
    assert_eq!((ask(62).await, app.simulator.pending_faults()), (200, 0));
    let log = logged();
    let line = log.lines().find(|line| line.contains("old_session")).unwrap();
    assert!(line.contains("ServiceUnavailable"), "{line}");
}

#[tokio::test]
async fn waiting_requests_share_one_slow_failure() {
    let aws = Aws::start().await;
    let app = keyless(&aws, provider(&aws)).await;
    let id = app.new_request().await;
    let asked = join_all((0..5).map(async |_| app.sign_event("status", &id, "alice").await)).await;
    let begun = clock::now();
    // Longer than a failure is remembered.
    app.simulator.add_fault(Fault {
        delay_ms: 2100,
        times: 1000,
        ..failure("AssumeRoleWithOIDC", "ServiceUnavailable")
    });
    // They come during the first attempt.
    let come = |number: i64| begun + SignedDuration::from_millis(500 * number);
    let ask = async |(number, signed)| app.send_at(signed, come(number)).await.status;
    let answers = join_all((0..).zip(&asked).map(ask)).await;
    assert_eq!((answers, app.count_calls("AssumeRoleWithOIDC")), (vec![503; 5], 1));
    // Without credentials no call is made.
    app.assert_calls(GET, 0);
}

#[tokio::test]
async fn every_credentials_refusal_is_counted_once() {
    let counted = MetricsRecorder::start();
    let aws = Aws::start().await;
    let kind = format!(r#"{{ kind = "assume-role", role = "{ROLE}" }}"#);
    let key = json!({"prod": {"access_key_id": "requester-key", "access_key_secret": "requester-secret"}});
    let app = app(&aws, quick_settings(), &kind, key).await;
    let id = app.new_request().await;
    let refuse = |action: &str, code: &str| {
        let (action, code) = (Some(action.to_owned()), Some(code.to_owned()));
        app.simulator.add_fault(Fault { action, code, ..Fault::default() });
    };
    for (minutes, code) in [(0, "InvalidParameter.RoleArn"), (1, "EntityNotExist.Role")] {
        refuse("AssumeRole", code);
        counted.take_counts();
        let at = clock::now() + SignedDuration::from_mins(minutes);
        assert_eq!(app.send_at(&app.sign_event("status", &id, "alice").await, at).await.status, 502, "{code}");
        assert_eq!(sum_counts(&counted.take_counts(), metrics::CREDENTIALS_REFUSED), 1.0, "{code}");
        assert_eq!(app.count_calls(GET), 0, "{code}");
    }
    // A renewal, while the old session still serves.
    let begin = clock::now() + SignedDuration::from_mins(2);
    assert_eq!(app.send_at(&app.sign_event("status", &id, "alice").await, begin).await.status, 200);
    refuse("AssumeRole", "InvalidParameter.RoleArn");
    counted.take_counts();
    let body = app.sign_event("status", &id, "alice").await.body;
    let at = begin + SignedDuration::from_mins(46);
    let signed = app.sign_body_as(&body, &format!("msg_{}", clock::nonce()), &at.as_second().to_string());
    assert_eq!(app.send_at(&signed, at).await.status, 200);
    assert_eq!(sum_counts(&counted.take_counts(), metrics::CREDENTIALS_REFUSED), 1.0);
}

#[tokio::test]
async fn refused_session_is_replaced_after_thirty_seconds() {
    let aws = Aws::start().await;
    let app = keyless(&aws, provider(&aws)).await;
    let id = app.new_request().await;
    let status = async || app.sign_event("status", &id, "alice").await;
    assert_eq!(app.send(&status().await).await.status, 200);
    app.simulator.forget_sessions();
    let refused = app.send(&status().await).await;
    assert_eq!((refused.status, app.count_calls("AssumeRoleWithOIDC")), (502, 1), "it is too young: {}", refused.body);
    let later = clock::now() + SignedDuration::from_secs(31);
    assert_eq!(app.send_at(&status().await, later).await.status, 200);
    assert_eq!(app.count_calls("AssumeRoleWithOIDC"), 2);
}

type Change = fn(&mut OidcProvider);

#[tokio::test]
async fn invalid_token_is_named_and_accepts_nothing() {
    let claims = |name: &str, value: Value| Instead { claims: json!({name: value}), ..Instead::default() };
    let past = clock::now().as_second() - 3600;
    let nothing: Change = |_| {};
    let cases: [(Change, Instead, &str); 11] = [
        (|it| it.arn.push('x'), Instead::default(), "AuthenticationFail.NoPermission"),
        (
            |it| it.subjects = vec!["arn:aws:iam::1:role/other".into()],
            Instead::default(),
            "AuthenticationFail.NoPermission",
        ),
        (
            |it| it.client_ids = vec!["other".into()],
            Instead::default(),
            "AuthenticationFail.OIDCToken.AudienceNotMatch",
        ),
        (|it| it.issuer.push('x'), Instead::default(), "AuthenticationFail.OIDCToken.IssuerNotMatch"),
        (nothing, claims("aud", json!(["other"])), "AuthenticationFail.OIDCToken.AudienceNotMatch"),
        (nothing, claims("exp", json!(past)), "AuthenticationFail.OIDCToken.Expired"),
        (nothing, claims("iat", json!(past - 13 * 3600)), "AuthenticationFail.OIDCToken.Invalid"),
        (nothing, Instead { forged: true, ..Instead::default() }, "AuthenticationFail.OIDCToken.Invalid"),
        (
            nothing,
            Instead { unpublished: true, ..Instead::default() },
            "AuthenticationFail.OIDCToken.IssuerConfigurationBroken",
        ),
        (nothing, Instead { refusal: Some("AccessDenied"), ..Instead::default() }, "AwsIdentity.AccessDenied"),
        (
            nothing,
            Instead { refusal: Some("OutboundWebIdentityFederationDisabledException"), ..Instead::default() },
            "AwsIdentity.OutboundWebIdentityFederationDisabledException",
        ),
    ];
    for (change, instead, code) in cases {
        let aws = Aws::start().await;
        *aws.instead.lock().unwrap() = instead;
        let mut provider = provider(&aws);
        change(&mut provider);
        let app = keyless(&aws, provider).await;
        let id = app.new_request().await;
        let reply = approve(&app, &id).await;
        assert_eq!((reply.status, reply.name().as_str()), (502, "credentials-refused"), "{code}: {}", reply.body);
        assert_eq!(reply.body_json()["problem"]["code"], code);
        let calls = app.simulator.journal().into_iter().filter(|entry| entry.action.contains("VpcPeer")).count();
        assert_eq!((calls, app.state_of(&id).await.as_str()), (1, "none"), "{code}: only the requester's own call");
    }
}

/// A target whose role requires the external id `lambda-7`, and is assumed with the key of another account.
async fn with_a_shared_key(aws: &Aws, external_id: &str) -> TestApp {
    let settings = SimulatorSettings { external_ids: [(ROLE.into(), "lambda-7".into())].into(), ..quick_settings() };
    let hub = json!({"hub": {"access_key_id": "requester-key", "access_key_secret": "requester-secret"}});
    let kind = format!(r#"{{ kind = "assume-role", role = "{ROLE}", external_id = "{external_id}", key_of = "hub" }}"#);
    app(aws, settings, &kind, hub).await
}

#[tokio::test]
async fn role_is_assumed_with_a_shared_key() {
    let aws = Aws::start().await;
    let assumed = with_a_shared_key(&aws, "lambda-7").await;
    let id = assumed.new_request().await;
    assert_eq!(approve(&assumed, &id).await.name(), "accepted");
    assert_eq!(sessions(&assumed, ACCEPT), [format!("peergate-{id}")]);
    assert_eq!((assumed.count_calls("AssumeRole"), aws.issued.load(Ordering::SeqCst)), (2, 0));
}

#[tokio::test]
async fn role_with_a_wrong_external_id_is_refused() {
    let aws = Aws::start().await;
    let wrong = with_a_shared_key(&aws, "lambda-8").await;
    let id = wrong.new_request().await;
    let reply = approve(&wrong, &id).await;
    assert_eq!(
        (reply.status, &reply.body_json()["problem"]["code"]),
        (502, &json!("AssumeRole.NoPermission")),
        "{}",
        reply.body
    );
    assert_eq!(wrong.count_calls(GET) + wrong.count_calls(ACCEPT), 0);
}

#[tokio::test]
async fn rotated_key_assumes_the_role_after_one_fetch() {
    let aws = Aws::start().await;
    let kind = format!(r#"{{ kind = "assume-role", role = "{ROLE}" }}"#);
    let key = |id: &str, secret: &str| json!({"prod": {"access_key_id": id, "access_key_secret": secret}});
    let app = app(&aws, quick_settings(), &kind, key("requester-key", "disabled")).await;
    let id = app.new_request().await;
    let status = app.sign_event("status", &id, "alice").await;
    assert_eq!(app.send(&status).await.status, 502);
    app.write_secrets(|secrets| secrets["targets"] = key("requester-key", "requester-secret")).unwrap();
    let later = clock::now() + SignedDuration::from_secs(31);
    assert_eq!(app.send_at(&status, later).await.status, 200);
}

#[tokio::test]
async fn prewarmed_function_has_a_session_for_its_first_event() {
    let aws = Aws::start().await;
    let app = keyless(&aws, provider(&aws)).await;
    let function = App::new(&app.environment, Config::parse(&app.config).unwrap()).unwrap();
    tokio::time::timeout(Duration::from_mins(1), function.prewarm()).await.unwrap().unwrap();
    assert_eq!(app.count_calls("AssumeRoleWithOIDC"), 1, "the first event finds a session");
}

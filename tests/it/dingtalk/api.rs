//! What we say, and what the fake makes of it.

use peergate::approval::RetryPolicy;
use peergate::chat::dingtalk::{
    AppCallError, CardSpace, CardVariables, DingTalkApi, PostedCard, RegisterOutcome, fetch_token, post_robot,
};
use peergate::chat::message::Message;
use peergate::chat::{DeliveryError, FailureCause, ThrottleScope};
use peergate::fake::dingtalk::GroupFault;
use peergate::http::Clients;
use peergate::secret::{Secret, SecretUrl};

use super::*;

/// A fake on loopback, and a client of it.
struct Wire {
    fake: FakeDingTalk,
    http: reqwest::Client,
    url: Url,
    token: Secret,
    app: String,
}

impl Wire {
    async fn start() -> Self {
        let fake = FakeDingTalk::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(fake.clone().serve(listener));
        let http = Clients::new().unwrap().shared().clone();
        let app = fake.settings().app;
        let mut wire = Self { fake, http, url, token: Secret::new(String::new()), app };
        wire.token = wire.fetch().await.unwrap().token;
        wire
    }

    async fn fetch(&self) -> Result<peergate::chat::AccessToken, DeliveryError> {
        let FakeDingTalkSettings { app, app_secret, .. } = self.fake.settings();
        fetch_token(&self.http, &self.url, &app, &app_secret.try_into().unwrap()).await
    }

    fn api(&self) -> DingTalkApi<'_> {
        DingTalkApi { http: &self.http, url: &self.url, token: &self.token, robot: &self.app }
    }

    async fn post_with(&self, id: &str, variables: &CardVariables) -> Result<(), AppCallError> {
        let template = self.fake.settings().template;
        let card = PostedCard {
            out_track_id: id,
            template: &template,
            route: "peergate",
            variables,
            summary: "a headline",
            space: CardSpace::Group(CONVERSATION_ID),
            mentions: &[],
        };
        self.api().post(card).await
    }

    async fn post(&self, id: &str) -> Result<(), AppCallError> {
        self.post_with(id, &variables("waits")).await
    }

    fn fail(&self, path: &str, code: Option<&'static str>, status: u16) {
        self.fake.clear_faults();
        self.fake.add_fault(DingTalkFault { path: path.into(), code, status, ..DingTalkFault::default() });
    }

    fn robot(&self, token: &str) -> SecretUrl {
        SecretUrl::new(self.url.join(&format!("robot/send?access_token={token}")).unwrap())
    }
}

fn variables(title: &str) -> CardVariables {
    CardVariables::from([("title".to_owned(), title.to_owned())])
}

fn text(headline: &str) -> Message {
    Message { headline: headline.into(), ..Message::default() }
}

fn failure(called: Result<(), AppCallError>) -> DeliveryError {
    called.unwrap_err().into_delivery_error()
}

#[tokio::test]
async fn dingtalk_cards_are_posted_and_replaced_as_a_whole() {
    let wire = Wire::start().await;
    let both = CardVariables::from([("title".into(), "waits".into()), ("body_1".into(), "old".into())]);
    wire.post_with("pg-1", &both).await.unwrap();
    assert_eq!(wire.fake.cards_in(CONVERSATION_ID, "x")[0].text, "waits\nold");
    wire.api().update("pg-1", &variables("is Activated")).await.unwrap();
    let card = wire.fake.cards_in(CONVERSATION_ID, "x").pop().unwrap();
    assert_eq!((card.text.as_str(), card.updates), ("is Activated", 1), "no old text stays");
    assert!(matches!(wire.post("pg-1").await, Err(AppCallError::CardExists(_))));
    assert!(matches!(wire.api().update("pg-2", &variables("x")).await, Err(AppCallError::CardGone(_))));
    wire.api().send_to_group(CONVERSATION_ID, "news", &["u1"]).await.unwrap();
    wire.api().send_to_person(ALICE, "private").await.unwrap();
    assert_eq!(wire.fake.texts_to(CONVERSATION_ID)[0].mentions, ["u1"]);
    assert_eq!(wire.fake.texts_to(ALICE)[0].text, "private");
    for id in ["", "a/b", "a b", &"x".repeat(129)] {
        assert_eq!(failure(wire.post(id).await).retry, RetryPolicy::AfterFix, "{id}");
    }
    assert_eq!(failure(wire.api().send_to_group("x", "news", &[]).await).retry, RetryPolicy::AfterFix);
}

#[tokio::test]
async fn dingtalk_token_lasts_two_hours() {
    let wire = Wire::start().await;
    let first = wire.fetch().await.unwrap();
    assert_eq!(first.token, wire.token, "the same while it is valid");
    assert!(first.valid_for <= SignedDuration::from_hours(2) && first.valid_for > SignedDuration::from_mins(119));
    wire.fake.move_clock(SignedDuration::from_hours(2));
    assert!(matches!(wire.post("pg-1").await, Err(AppCallError::TokenRefused(_))));
    assert_ne!(wire.fetch().await.unwrap().token, first.token);
    let wrong = "wrongClientSecret0123".to_owned().try_into().unwrap();
    let refused = fetch_token(&wire.http, &wire.url, &wire.app, &wrong).await.unwrap_err();
    let expected = "invalidClientIdOrSecret: the app's Client ID or Client Secret is not valid";
    assert!(refused.error.starts_with(expected) && refused.retry == RetryPolicy::AfterFix, "{refused:?}");
    assert!(refused.error.ends_with("; requestid 0A1B2C3D-0000"), "{refused:?}");
}

#[tokio::test]
async fn each_dingtalk_refusal_says_when_to_retry() {
    let wire = Wire::start().await;
    let (soon, fix, few) = (RetryPolicy::Backoff(None), RetryPolicy::AfterFix, RetryPolicy::FewTimes);
    for (code, status, retry) in [
        ("Forbidden.AccessDenied.QpsLimitForApi", 403, soon),
        ("Forbidden.AccessDenied.QpsLimitForAppkeyAndApi", 403, soon),
        ("Forbidden.AccessDenied.ApiCountLimitForOrg", 403, fix),
        ("Forbidden.AccessDenied.AccessTokenPermissionDenied", 403, fix),
        ("Forbidden.AccessDenied.IpNotInWhiteList", 403, fix),
        ("InvalidAuthentication", 400, fix),
        ("param.outTrackIdEmpty", 400, few),
        ("param.openSpaceIdInvalid", 400, fix),
        ("param.openDeliverModelEmpty", 400, fix),
        ("param.openDeliverModelError", 400, fix),
        ("param.cardTemplateIdEmpty", 400, fix),
        ("param.templateNotExist", 400, fix),
        ("param.templateUnpublished", 400, fix),
        ("param.userIdNotExist", 400, few),
        ("param.contentUnsafe", 400, few),
        ("param.cardAlreadyExist", 400, fix),
        ("param.cardNotExist", 400, RetryPolicy::Never),
        ("param.invalid", 400, few),
        ("param.empty", 400, fix),
        ("param.cardDataAndPrivateDataBothEmpty", 400, few),
        ("system.busy", 500, soon),
        ("group.disbanded", 400, RetryPolicy::Never),
        ("invalidParameter.robotCode.empty", 400, fix),
        ("invalidParameter.robotCode.notExsit", 400, fix),
        ("invalidParameter.msgParam.tooLong", 400, few),
        ("unknown.send.result", 500, soon),
        ("somethingNew", 400, fix),
        ("somethingNew", 429, soon),
        ("somethingNew", 500, soon),
    ] {
        wire.fail("/v1.0/card", Some(code), status);
        let failure = failure(wire.post("pg-1").await);
        assert_eq!(failure.retry, retry, "{code} {status}: {}", failure.error);
        assert!(failure.error.starts_with(code), "{}", failure.error);
        let throttled = matches!(failure.cause, FailureCause::Throttled(ThrottleScope::App));
        assert_eq!(throttled, code.contains("QpsLimit") || status == 429, "{code}");
    }
    for (status, retry) in [(503, soon), (502, soon), (200, soon), (403, fix)] {
        wire.fail("/v1.0/card", None, status);
        assert_eq!(failure(wire.post("pg-1").await).retry, retry, "{status}");
    }
    assert!(wire.fake.cards_in(CONVERSATION_ID, "x").is_empty());
}

#[tokio::test]
async fn card_that_is_not_delivered_is_not_posted() {
    let wire = Wire::start().await;
    wire.fake.set_group_fault(CONVERSATION_ID, Some(GroupFault::Disbanded));
    let failed = failure(wire.post("pg-1").await);
    assert_eq!(failed.error, "the card was not delivered: the group was disbanded");
    assert_eq!(failed.cause, FailureCause::Refused);
    assert_eq!(failure(wire.api().send_to_group(CONVERSATION_ID, "x", &[]).await).retry, RetryPolicy::Never);
    wire.fake.set_group_fault(CONVERSATION_ID, None);
    wire.api().deliver("pg-1", CardSpace::Group(CONVERSATION_ID)).await.unwrap();
    assert_eq!(wire.fake.cards_in(CONVERSATION_ID, "x").len(), 1);
    wire.fake.remove_person("left");
    let failed = failure(wire.api().send_to_person("left", "x").await);
    assert_eq!(
        (failed.error.as_str(), failed.retry),
        ("the person cannot get messages of the robot", RetryPolicy::FewTimes)
    );
}

#[tokio::test]
async fn fake_refuses_what_exceeds_a_limit() {
    let wire = Wire::start().await;
    for (name, value) in [("body_1".to_owned(), "理".repeat(342)), ("x".repeat(101), "a".to_owned())] {
        let refused = failure(wire.post_with("pg-1", &CardVariables::from([(name, value)])).await);
        assert!(refused.error.starts_with("param.invalid: a parameter is malformed"), "{refused:?}");
    }
    wire.fake.set_published(false);
    assert!(failure(wire.post("pg-1").await).error.starts_with("param.templateUnpublished"));
    wire.fake.set_published(true);
    wire.fake.move_clock(seconds(2));
    for number in 0..20 {
        wire.post(&format!("pg-{number}")).await.unwrap();
    }
    assert!(failure(wire.post("pg-20").await).error.starts_with("Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"));
    wire.fake.set_quota_used(true);
    wire.fake.move_clock(seconds(2));
    assert!(failure(wire.post("pg-20").await).error.starts_with("Forbidden.AccessDenied.ApiCountLimitForOrg"));
}

#[tokio::test]
async fn registration_is_replaced_only_by_force() {
    let wire = Wire::start().await;
    let register =
        async |secret, force| wire.api().register("peergate", "https://a.example.com/x", secret, force).await;
    assert_eq!(register("one", false).await, Ok(RegisterOutcome::Same));
    assert_eq!(register("two", false).await, Ok(RegisterOutcome::Other));
    assert_eq!(register("two", true).await, Ok(RegisterOutcome::Same));
    assert_eq!(wire.fake.registration("peergate").unwrap().secret.as_deref(), Some("two"));
}

#[tokio::test]
async fn custom_robots_check_signatures_and_count_messages() {
    let wire = Wire::start().await;
    wire.fake.add_robot("signed", Some("SECfakeRobot"));
    wire.fake.add_robot("open", None);
    let secret = Secret::new("SECfakeRobot".into());
    let post = async |token: &str, secret: Option<&Secret>, at| {
        post_robot(&wire.http, &wire.robot(token), secret, &text("news"), at).await
    };
    let now = clock::now();
    post("signed", Some(&secret), now).await.unwrap();
    post("open", None, now).await.unwrap();
    let other = Secret::new("SECother".into());
    for (secret, at) in [(None, now), (Some(&other), now), (Some(&secret), now - SignedDuration::from_mins(61))] {
        let refused = post("signed", secret, at).await.unwrap_err();
        assert!(refused.error.starts_with("310000: the robot's security settings"), "{refused:?}");
        assert_eq!(refused.retry, RetryPolicy::AfterFix);
    }
    assert!(post("none", None, now).await.unwrap_err().error.starts_with("300005: the access token of the URL"));
    for _ in 1..20 {
        post("open", None, now).await.unwrap();
    }
    let ten_minutes = RetryPolicy::Backoff(Some(SignedDuration::from_mins(10)));
    for code in ["130101", "410100"] {
        let refused = post("open", None, now).await.unwrap_err();
        assert_eq!((refused.code(), refused.retry), (code, ten_minutes));
        assert_eq!(refused.cause, FailureCause::Throttled(ThrottleScope::Channel));
    }
    wire.fake.move_clock(SignedDuration::from_mins(10));
    post("open", None, now).await.unwrap();
}

#[tokio::test]
async fn each_robot_errcode_says_when_to_retry() {
    let wire = Wire::start().await;
    let (soon, fix, few) = (RetryPolicy::Backoff(None), RetryPolicy::AfterFix, RetryPolicy::FewTimes);
    let pause = RetryPolicy::Backoff(Some(SignedDuration::from_mins(10)));
    for (code, retry) in [
        ("-1", soon),
        ("40035", few),
        ("43004", few),
        ("90030", fix),
        ("130101", pause),
        ("300001", fix),
        ("300005", fix),
        ("310000", fix),
        ("400013", RetryPolicy::Never),
        ("400101", fix),
        ("400102", fix),
        ("400105", few),
        ("400106", RetryPolicy::Never),
        ("410100", pause),
        ("430101", few),
        ("430102", few),
        ("430103", few),
        ("430104", few),
        ("460101", few),
        ("660026", pause),
        ("7", fix),
    ] {
        wire.fail("/robot", Some(code), 200);
        let refused = post_robot(&wire.http, &wire.robot("x"), None, &text("news"), clock::now()).await.unwrap_err();
        assert_eq!((refused.code(), refused.retry), (code, retry), "{refused:?}");
    }
    for (status, retry) in [(200, soon), (500, soon), (404, fix)] {
        wire.fail("/robot", None, status);
        let refused = post_robot(&wire.http, &wire.robot("x"), None, &text("news"), clock::now()).await.unwrap_err();
        assert_eq!(refused.retry, retry, "{status}");
    }
}

#[tokio::test]
async fn long_message_is_cut_for_a_custom_robot() {
    let wire = Wire::start().await;
    wire.fake.add_robot("open", None);
    for part in ["理\"", "理", "\u{1}", "𝔘\\"] {
        let long = Message { sentences: vec![part.repeat(20_000)], ..text("news") };
        post_robot(&wire.http, &wire.robot("open"), None, &long, clock::now()).await.unwrap();
        let sent = wire.fake.texts_to("open").pop().unwrap().text;
        assert!(sent.starts_with(&format!("news\n{part}")) && sent.ends_with('…'), "{}", sent.len());
    }
}

//! Requests that prove nothing, or prove it twice: none of them decides, and most of them reach nothing.

use peergate::peering::InstanceId;
use serde_json::json;

use super::*;
use crate::support::{TableProxy, quick_settings};

/// A pending request on its card, and a click on Approve.
struct ApprovalClick {
    world: World,
    id: InstanceId,
    body: String,
}

impl ApprovalClick {
    async fn new() -> Self {
        let world = World::start().await;
        let id = world.request("vpc-other").await;
        let body = world.click_body("Approve", ALICE, None);
        Self { world, id, body }
    }

    async fn assert_undecided(&self) {
        self.world.assert_undecided(&self.id).await;
    }
}

#[tokio::test]
async fn unauthentic_dingtalk_request_reaches_nothing() {
    let click = ApprovalClick::new().await;
    let world = &click.world;
    let (now, before, calls) = (clock::now(), world.app.count_upstream_calls(), world.fake.calls().len());
    let secrets = world.secrets().await;
    let signed = |at| dingtalk::sign_card_callback(&secrets, &click.body, at).unwrap();
    let without = |name: &str| {
        let mut request = signed(now);
        request.headers.retain(|(header, _)| *header != name);
        request
    };
    let mut unsigned = signed(now);
    unsigned.headers.truncate(1);
    let mut flipped = signed(now);
    let other = if flipped.headers[2].1.starts_with('A') { "B" } else { "A" };
    flipped.headers[2].1.replace_range(..1, other);
    let mut twice = signed(now);
    twice.headers.push(("x-ddpaas-signature", signed(now).headers[2].1.clone()));
    let mut in_seconds = signed(now);
    in_seconds.headers[1].1.truncate(10);
    let mut wrong_path = signed(now);
    wrong_path.path = format!("/dingtalk/{}", "0a".repeat(24));
    let mut other = secrets.clone();
    other.api_secrets = vec!["another apiSecret".replace(' ', "-").try_into().unwrap()];
    let foreign = dingtalk::sign_card_callback(&other, &click.body, now).unwrap();
    for (name, request) in [
        ("unsigned", unsigned),
        ("without a time", without("x-ddpaas-signature-timestamp")),
        ("without a signature", without("x-ddpaas-signature")),
        ("flipped", flipped),
        ("two signatures", twice),
        ("a time in seconds", in_seconds),
        ("wrong path secret", wrong_path),
        ("another secret", foreign),
        ("stale", signed(now - seconds(301))),
        ("early", signed(now + seconds(301))),
    ] {
        let reply = world.app.send_at(&request, now).await;
        assert_eq!((reply.status, reply.name().as_str()), (401, "unauthentic"), "{name}: {}", reply.body);
    }
    let no_secret = SignedRequest { path: "/dingtalk".into(), ..signed(now) };
    assert_eq!(world.app.send_at(&no_secret, now).await.status, 404);
    assert_eq!((world.app.count_upstream_calls(), world.fake.calls().len()), (before, calls));
    click.assert_undecided().await;
    assert_eq!(world.app.send_at(&signed(now), now).await.status, 200, "the good one");
}

#[tokio::test]
async fn proof_of_a_refused_request_is_used_up() {
    let click = ApprovalClick::new().await;
    for first in ["{", &changed(&click.body, |body| body["corpId"] = "dingother".into())] {
        let refused = click.world.sign(first).await;
        click.world.app.send(&refused).await;
        let reply = click.world.app.send(&SignedRequest { body: click.body.clone(), ..refused }).await;
        assert_eq!((reply.status, reply.name().as_str()), (409, "used-before"), "{}", reply.body);
    }
    click.assert_undecided().await;
}

#[tokio::test]
async fn proof_is_taken_once_whatever_the_body() {
    let click = ApprovalClick::new().await;
    let world = &click.world;
    let details = world.click_body("Details", BOB, None);
    let first = world.sign(&details).await;
    assert_eq!(world.app.send(&first).await.status, 200);
    let before = world.app.count_upstream_calls();
    for body in [&details, &click.body] {
        let reply = world.app.send(&SignedRequest { body: body.clone(), ..first.clone() }).await;
        assert_eq!((reply.status, reply.name().as_str()), (409, "used-before"), "{}", reply.body);
    }
    assert_eq!(world.app.count_upstream_calls(), before);
    click.assert_undecided().await;
    let ApprovalClick { world, body, id } = click;
    let world = world.restart();
    let reply = world.app.send(&SignedRequest { body: body.clone(), ..first.clone() }).await;
    assert_eq!(reply.name(), "used-before", "another process knows it, too");
    world.send(&body).await;
    assert_eq!(world.app.count_accepts(&id), 1, "a proof of its own decides");
}

#[tokio::test]
async fn click_without_a_valid_dingtalk_binding_reaches_nothing() {
    let click = ApprovalClick::new().await;
    let before = click.world.app.count_upstream_calls();
    let of_slack = click.world.app.only_card().find_button("Approve").unwrap().value.clone();
    let forged = |binding: &str| changed_content(&click.body, |button| button["params"]["binding"] = json!(binding));
    let without = changed_content(&click.body, |button| button["params"] = json!({"id": "approve"}));
    let as_reject = changed_content(&click.body, |button| button["actionIds"] = json!(["reject"]));
    let as_both = changed_content(&click.body, |button| button["actionIds"] = json!(["approve", "reject"]));
    let as_none = changed_content(&click.body, |button| button["actionIds"] = json!([]));
    for (name, body) in [
        ("no binding", without),
        ("an empty binding", forged("")),
        ("a forged binding", forged("aprod/pcc-sim00000001.AAAA")),
        ("a binding under another label", as_reject),
        ("two actions", as_both),
        ("no action", as_none),
    ] {
        let reply = click.world.send(&body).await;
        assert_eq!((reply.status, reply.name().as_str()), (400, "malformed"), "{name}: {}", reply.body);
    }
    assert_eq!(click.world.app.count_upstream_calls(), before);
    let reply = click.world.send(&forged(&of_slack)).await;
    assert!(reply.status == 400 || reply.body.contains("is no longer valid"), "of another platform: {}", reply.body);
    click.assert_undecided().await;
}

#[tokio::test]
async fn button_on_another_card_decides_nothing() {
    let click = ApprovalClick::new().await;
    for (name, value) in [("outTrackId", "pg-card-of-somebody"), ("spaceId", "cidAnotherGroup0==")] {
        let body = changed(&click.body, |body| body[name] = json!(value));
        let reply = click.world.send(&body).await;
        assert!(reply.body.contains("is no longer valid"), "{name}: {}", reply.body);
    }
    let other = click.world.request("vpc-two-people").await;
    let cards = click.world.cards();
    assert_eq!(cards.len(), 2);
    let binding = cards[1].find_button("Approve").unwrap().params["binding"].clone();
    let body = changed_content(&click.body, |button| button["params"]["binding"] = binding);
    let reply = click.world.send(&body).await;
    assert!(reply.body.contains("is no longer valid"), "{}", reply.body);
    click.world.assert_undecided(&other).await;
    click.assert_undecided().await;
}

#[tokio::test]
async fn card_is_known_however_the_click_names_its_group() {
    for space_form in [
        peergate::fake::dingtalk::SpaceForm::OpenSpace,
        peergate::fake::dingtalk::SpaceForm::Other,
        peergate::fake::dingtalk::SpaceForm::Absent,
    ] {
        let fields: &[&str] =
            if space_form == peergate::fake::dingtalk::SpaceForm::Other { &["value"] } else { &["content", "value"] };
        let world =
            World::of(FakeDingTalkSettings { space_form, content_fields: fields, ..FakeDingTalkSettings::default() })
                .await;
        let id = world.request("vpc-other").await;
        let copy = changed(&world.click_body("Approve", ALICE, None), |body| body["outTrackId"] = json!("pg-copy"));
        assert!(world.send(&copy).await.body.contains("is no longer valid"), "{space_form:?}");
        world.assert_undecided(&id).await;
        world.click("Approve", ALICE, None).await;
        assert_eq!(world.app.count_accepts(&id), 1, "{space_form:?}");
    }
}

#[tokio::test]
async fn two_corporations_have_different_people() {
    let click = ApprovalClick::new().await;
    let foreign = DingTalkPerson { user_id: ALICE.into(), corp: "dinga214636428b8e06868560f141024a9aa".into() };
    let card = click.world.card().out_track_id;
    let body = click.world.fake.click_button(&card, "Approve", &foreign, None).unwrap();
    let reply = click.world.send(&body).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.contains("does not take commands from this DingTalk organization"), "{}", reply.body);
    assert!(click.world.fake.texts_to(ALICE).is_empty(), "alice is somebody else");
    let text = click.world.fake.write_in_group(CONVERSATION_ID, "list", &foreign);
    let reply = click.world.write(&text).await;
    assert_eq!((reply.status, reply.name().as_str()), (403, "wrong-tenant"));
    click.assert_undecided().await;
}

#[tokio::test]
async fn person_outside_the_rule_or_the_organization_decides_nothing() {
    let click = ApprovalClick::new().await;
    let notice = click.world.click("Approve", STRANGER, None).await;
    assert!(notice.contains("You cannot decide on this VPC peering"), "{notice}");
    let calls = click.world.fake.calls().len();
    click.world.fake.remove_person(STRANGER);
    let reply = click.world.write_in_group("list", STRANGER).await;
    assert_eq!((reply.status, reply.name().as_str()), (400, "malformed"));
    assert_eq!(click.world.fake.calls().len(), calls, "nobody is answered");
    click.assert_undecided().await;
}

#[tokio::test]
async fn table_that_is_down_refuses_every_proof() {
    let (mut app, table) = TableProxy::start(quick_settings()).await;
    let fake = FakeDingTalk::default();
    app.add_extension(&fake.sandbox_extension(&"http://127.0.0.1:9/".parse().unwrap()));
    let secrets = app.parts.secrets.current(clock::now()).await.unwrap();
    let secrets = secrets.platforms.dingtalk.clone().unwrap();
    let message = fake.write_in_group(CONVERSATION_ID, "list", &fake.person_of_corp(ALICE));
    let signed = dingtalk::sign_robot_message(&secrets, &message, clock::now()).unwrap();
    table.refuse_operation("PutItem");
    let reply = app.send(&signed).await;
    assert_eq!((reply.status, reply.name().as_str()), (503, "store-unavailable"), "{}", reply.body);
    assert_eq!(app.count_upstream_calls(), 0);
    table.allow_all_operations();
    assert_eq!(app.send(&signed).await.status, 200, "it was not used");
}

#[tokio::test]
async fn secrets_that_are_down_refuse_every_click() {
    let click = ApprovalClick::new().await;
    let signed = click.world.sign(&click.body).await;
    let mut environment = click.world.app.environment.clone();
    environment.secrets = peergate::config::SecretsSource::File("/nonexistent".into());
    let config = peergate::config::Config::parse(&click.world.app.config).unwrap();
    let broken = peergate::app::App::new(&environment, config).unwrap();
    let request = http::Request::post(&signed.path);
    let request = signed.headers.iter().fold(request, |it, (name, value)| it.header(*name, value));
    let request = request.body(bytes::Bytes::from(signed.body.clone())).unwrap();
    let reply: TestResponse = Box::pin(peergate::webhook::handle_request(&broken, request, clock::now())).await.into();
    assert_eq!((reply.status, reply.name().as_str()), (503, "secrets-unavailable"));
    click.assert_undecided().await;
}

#[tokio::test]
async fn dingtalk_secrets_rotate_without_a_gap() {
    let click = ApprovalClick::new().await;
    let old = click.world.secrets().await;
    let ApprovalClick { world, id, body } = click;
    let mut document = json!({});
    world
        .app
        .write_secrets(|secrets| {
            let fake = world.fake.sandbox_extension(&world.url).secrets;
            secrets["platforms"]["dingtalk"] = fake["platforms"]["dingtalk"].clone();
            secrets["channels"]["robot"] = fake["channels"]["robot"].clone();
            let app = &mut secrets["platforms"]["dingtalk"];
            for (name, new) in [
                ("api_secrets", "a-new-api-secret-0123456789"),
                ("path_secrets", "1f1e2d3c4b5a69788796a5b4c3d2e1f01f1e2d3c4b5a6978"),
            ] {
                app[name].as_array_mut().unwrap().insert(0, json!(new));
            }
            document = app.clone();
        })
        .unwrap();
    let world = world.restart();
    next_millisecond().await;
    let signed = dingtalk::sign_card_callback(&old, &body, clock::now()).unwrap();
    let reply = world.app.send(&signed).await;
    assert_eq!((reply.status, world.app.count_accepts(&id)), (200, 1), "old secrets, old button: {}", reply.body);
    let other = world.request("vpc-two-people").await;
    let new: Secrets = serde_json::from_value(document).unwrap();
    next_millisecond().await;
    let signed = dingtalk::sign_card_callback(&new, &world.click_body("Approve", ALICE, None), clock::now()).unwrap();
    assert_eq!(world.app.send(&signed).await.status, 200);
    assert_eq!(world.app.load_record(&other).await.unwrap().approval.approval_count(), 1);
}

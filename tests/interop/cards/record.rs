//! The bodies that the card modules of the playground are tested with: what peergate sends in each state, of each platform.
//! The files beside this one hold them. `PEERGATE_WRITE_CARDS=1 cargo test --features local --test it recorded` writes them.

use super::*;
use crate::support::prelude::TestApp;
use peergate::chat::dingtalk;
use peergate::chat::teams;
use std::path::Path;

/// Speaks every markup language that a platform could interpret.
const HOSTILE: &str = "<img src=x onerror=\"window.ran=1\"> <script>window.ran=1</script> <!channel> <@U1> \
                       [free](https://evil.example/) <at id=all></at> <at>alice</at> **b** `c` https://evil.example/ \u{202e}x";

/// An identity on each platform.
const MENTIONED: [&str; 4] = [
    "slack:T0001/U061F7AUR",
    "feishu:2ed263bf32cf1651/ou_2840498f54cfa60477d0edcf39319ae2",
    "teams:50703947-19f8-4dd8-af0e-60d29681f7c0/c97a97e7-dcc9-4395-a81f-c029c016f011",
    "dingtalk:ding1f3a/manager4220",
];

fn mentions() -> Vec<Principal> {
    MENTIONED.iter().map(|text| Principal::try_from((*text).to_owned()).unwrap()).collect()
}

fn overlapping() -> Approval {
    let mut connection = connection("data to payments");
    connection.requester.cidrs = ["10.0.0.0/8".parse().unwrap()].into();
    let findings = preflight::check_connection(&connection, AccountId(2_222_222_222_222_222), now());
    with_review(2, &connection, &findings, |review| Approval::discover(review, now()))
}

/// A request that no rule covers.
fn uncovered() -> Approval {
    let mut connection = connection("data to payments");
    connection.requester.region = "eu-west-1".into();
    discovered(1, &connection)
}

fn hostile() -> Approval {
    let mut connection = connection(HOSTILE);
    connection.description = HOSTILE.into();
    decide(&discovered(2, &connection), 2, Verdict::Approve, alice(), Some(HOSTILE))
}

fn bypass_alarm() -> Message {
    let approval = after(half_approved(), &[seen(Status::Activated)]);
    let is_bypass = |notification: &&Notification| matches!(notification.kind, NotificationKind::Bypassed { .. });
    message::describe_notification(&approval, approval.outbox().iter().find(is_bypass).unwrap())
}

fn details() -> Message {
    let approval = half_approved();
    let connection = Box::new(approval.connection().clone());
    let reply = Reply::Status { connection, approval: Some(Box::new(approval)), target: "prod".into() };
    message::describe_reply(&reply, CommandScope::Everything, now())
}

/// What the channel or one person reads, by the name of the state.
fn messages() -> Vec<(&'static str, Message)> {
    let requiring = edited(&pending(), |record| record["terms"]["require_reason"] = json!(true));
    let activated = after(approved_by_two(), &[accepted(), seen(Status::Activated)]);
    let bypassed = after(half_approved(), &[seen(Status::Activated)]);
    let cards = vec![
        ("pending", pending()),
        ("half", half_approved()),
        ("activated", activated),
        ("rejected", after(rejecting(), &[rejected(), seen(Status::Rejected)])),
        ("bypass", bypassed),
        ("overlap", overlapping()),
        ("no_rule", uncovered()),
        ("drifted", drift::drifted()),
        ("changed", after(half_approved(), &[bandwidth_changed()])),
        ("hostile", hostile()),
        ("reason_required", requiring),
    ];
    let card = |(name, approval): (_, Approval)| (name, message::request_card(&approval, now()));
    let mut messages: Vec<_> = cards.into_iter().map(card).collect();
    messages.push(("alarm", Message { mentions: mentions(), ..bypass_alarm() }));
    messages.push(("details", details()));
    messages
}

fn bound_for(platform: &'static str, message: Message) -> Message {
    let keyring = Keyring::new(platform, vec![BindingKey::derive(b"a signing secret", "test")]);
    binding::bind_buttons(message, &keyring, CardId(7), 2000)
}

fn cards(platform: &'static str, render: impl Fn(&Message) -> Value) -> Vec<(&'static str, Value)> {
    messages().into_iter().map(|(name, message)| (name, render(&bound_for(platform, message)))).collect()
}

/// One line for each state.
fn to_text(bodies: &[(&'static str, Value)]) -> String {
    let lines: Vec<_> = bodies.iter().map(|(name, body)| format!("\"{name}\": {body}")).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

fn assert_recorded(platform: &'static str, bodies: &[(&'static str, Value)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/interop/cards/{platform}.json"));
    if std::env::var_os("PEERGATE_WRITE_CARDS").is_some() {
        std::fs::write(&path, to_text(bodies)).unwrap();
    }
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (name, body) in bodies {
        assert!(recorded[name] == *body, "{platform} sends another {name} than {}: write it anew", path.display());
    }
}

/// The modal that asks for a reason. Its button carries what the key of each run signs, so only its form is compared.
async fn reason_modal() -> Value {
    let app = TestApp::start().await;
    app.discovered_request("vpc-with-a-reason").await;
    app.click_button(&app.only_card(), "Approve", "U061F7AUR").await;
    let mut modal = app.slack.modals().pop().unwrap();
    modal["private_metadata"] = json!("metadata");
    modal["blocks"][0]["elements"][0]["elements"][0]["text"] = json!("VPC peering prod/pcc-a");
    modal
}

#[tokio::test]
async fn recorded_cards_are_those_of_slack() {
    let mut bodies = cards("slack", slack::render_message);
    bodies.push(("reason_modal", reason_modal().await));
    bodies.push(("reply_modal", slack::reply_modal(&details())["view"].clone()));
    assert_recorded("slack", &bodies);
}

#[test]
fn recorded_cards_are_those_of_feishu() {
    let mut bodies = cards("feishu", feishu::render_card);
    let toast = feishu::toast_json(feishu::ToastKind::Success, &format!("You approved. {HOSTILE}"));
    bodies.push(("toast", feishu::reply_json(Some(toast), None)));
    assert_recorded("feishu", &bodies);
}

#[test]
fn recorded_cards_are_those_of_teams() {
    let mut bodies = cards("teams", teams::render_card);
    bodies.push(("activity", teams::render_activity(&bypass_alarm())));
    bodies.push(("private", teams::private_message_json("You approved. It counts: 1 of 2.")));
    assert_recorded("teams", &bodies);
}

#[test]
fn recorded_cards_are_those_of_dingtalk() {
    let variables = |message: &Message| json!({"cardParamMap": dingtalk::render_card(message)});
    let mut bodies = cards("dingtalk", variables);
    bodies.push(("reply", dingtalk::reply_json("You approved. It counts: 1 of 2.", None)));
    bodies
        .push(("text", json!({"msgtype": "text", "text": {"content": dingtalk::message_text(&bypass_alarm(), 5000)}})));
    assert_recorded("dingtalk", &bodies);
}

//! What arrives, and what is refused, without a peergate around it.

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use peergate::chat::SingleUse;
use peergate::chat::dingtalk::{Config, ReplyTo};
use peergate::chat::{Click, Incoming, MalformedRequest, Unauthentic};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const PATH: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const CORP: &str = "ding6b3e09a504900d7564fef685b29d1594";

fn now() -> Timestamp {
    Timestamp::from_second(1_793_001_624).unwrap()
}

fn secrets() -> Secrets {
    serde_json::from_value(json!({
        "api_secrets": ["0123456789abcdef-api"], "app_secrets": ["0123456789abcdef-app"],
        "path_secrets": ["aaaabbbbccccddddeeeeffff00001111", PATH],
    }))
    .unwrap()
}

fn config() -> Config {
    serde_json::from_value(json!({"app": "dingapp", "corp": CORP, "template": "a.schema"})).unwrap()
}

fn headers(signed: &SignedRequest) -> HeaderMap {
    let header =
        |(name, value): &(&'static str, String)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    signed.headers.iter().map(header).collect()
}

fn verify(signed: &SignedRequest) -> Result<peergate::chat::Authentic, Unauthentic> {
    dingtalk::verify_with(&secrets(), PATH, &headers(signed), signed.body.as_bytes(), now())
}

fn parse_signed(signed: &SignedRequest) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    dingtalk::parse(&config(), verify(signed).unwrap())
}

fn parse_card(body: &Value) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    parse_signed(&dingtalk::sign_card_callback(&secrets(), &body.to_string(), now()).unwrap())
}

fn parse_text(body: &Value) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    parse_signed(&dingtalk::sign_robot_message(&secrets(), &body.to_string(), now()).unwrap())
}

fn click_with(params: &Value) -> Value {
    let content = json!({"cardPrivateData": {"actionIds": ["approve"], "params": params}});
    json!({
        "type": "actionCallback", "outTrackId": "pg-card-1", "corpId": CORP, "userId": "u1", "userIdType": 1,
        "spaceType": "IM", "spaceId": CONVERSATION_ID, "content": content.to_string(),
    })
}

fn click(body: &Value) -> Click {
    match parse_card(body) {
        Ok(Incoming::Click { click, .. }) => click,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn dingtalk_signature_proves_its_own_kind_only() {
    let card = dingtalk::sign_card_callback(&secrets(), "{}", now()).unwrap();
    let robot = dingtalk::sign_robot_message(&secrets(), "{}", now()).unwrap();
    let (card_names, robot_names): (Vec<_>, Vec<_>) =
        card.headers.iter().zip(&robot.headers).map(|(one, other)| (one.0, other.0)).unzip();
    for (from, names) in [(&card, &robot_names), (&robot, &card_names)] {
        assert!(verify(from).is_ok());
        let renamed = names.iter().zip(&from.headers).map(|(name, (_, value))| (*name, value.clone())).collect();
        let renamed = SignedRequest { headers: renamed, ..from.clone() };
        assert_eq!(verify(&renamed).map(|_| ()), Err(Unauthentic::SignatureMismatch { keys: 1 }));
    }
    let mut both = card.clone();
    both.headers.extend(robot.headers.into_iter().skip(1));
    assert!(matches!(verify(&both), Err(Unauthentic::MalformedHeader(_))), "which one counts?");
    // A message cannot be a click, whoever signed it.
    let body = click_with(&json!({})).to_string();
    let signed = dingtalk::sign_robot_message(&secrets(), &body, now()).unwrap();
    assert!(parse_signed(&signed).is_err());
}

#[test]
fn path_secret_is_one_of_the_configured() {
    let signed = dingtalk::sign_card_callback(&secrets(), "{}", now()).unwrap();
    let verified = |path: &str| {
        dingtalk::verify_with(&secrets(), path, &headers(&signed), b"{}", now()).map(|authentic| authentic.key_index())
    };
    assert_eq!(verified(PATH), Ok(0), "the older one");
    assert_eq!(verified("aaaabbbbccccddddeeeeffff00001111"), Ok(0));
    for wrong in ["", "dingtalk", "aaaabbbbccccddddeeeeffff00001112", &PATH.to_uppercase(), &PATH[..31]] {
        assert_eq!(verified(wrong), Err(Unauthentic::UnknownPathSecret), "{wrong}");
    }
}

#[test]
fn proof_is_the_same_for_every_body_and_outlives_its_time() {
    let signed = dingtalk::sign_card_callback(&secrets(), "{}", now()).unwrap();
    let one = verify(&signed).unwrap();
    let other = verify(&SignedRequest { body: "{\"a\":1}".into(), ..signed }).unwrap();
    assert_eq!(one.origin().request_key, other.origin().request_key);
    assert_eq!(one.single_use(), Some(SingleUse::Proof(now() + seconds(600))));
    let later = dingtalk::sign_card_callback(&secrets(), "{}", now() + SignedDuration::from_millis(1)).unwrap();
    assert_ne!(verify(&later).unwrap().origin().request_key, one.origin().request_key);
    let robot = dingtalk::sign_robot_message(&secrets(), "{}", now()).unwrap();
    assert_ne!(verify(&robot).unwrap().origin().request_key, one.origin().request_key);
}

#[test]
fn dingtalk_clock_may_be_300_seconds_off() {
    for (millis, is_fresh) in [(300_000, true), (300_001, false), (-300_000, true), (-300_001, false)] {
        let at = now() - SignedDuration::from_millis(millis);
        let verified = verify(&dingtalk::sign_card_callback(&secrets(), "{}", at).unwrap());
        assert_eq!(verified.is_ok(), is_fresh, "{millis}: {verified:?}");
    }
}

#[test]
fn reason_comes_from_the_input_or_from_the_form() {
    for (params, expected) in [
        (json!({"reason": "  größer\n "}), Some("größer")),
        (json!({"form": {"reason": "网段重叠", "other": 1}}), Some("网段重叠")),
        (json!({"reason": "same", "form": {"reason": "same"}}), Some("same")),
        (json!({"reason": " \u{3000}\u{200b}"}), None),
        (json!({"reason": null, "form": {}}), None),
        (json!({}), None),
    ] {
        let click = click(&click_with(&params));
        assert_eq!((click.reason.as_deref(), click.was_asked), (expected, true), "{params}");
    }
    let whole = "x".repeat(9000);
    assert_eq!(click(&click_with(&json!({"reason": whole}))).reason, Some(whole), "it is refused later, and never cut");
    for params in [json!({"reason": "a", "form": {"reason": "b"}}), json!({"reason": 1}), json!({"form": "x"})] {
        assert!(parse_card(&click_with(&params)).is_err(), "{params}");
    }
}

#[test]
fn click_names_its_card_and_its_group_if_it_knows_it() {
    for (space_id, channel) in [
        (json!(CONVERSATION_ID), CONVERSATION_ID),
        (json!(format!("dtv1.card//IM_GROUP.{CONVERSATION_ID}")), CONVERSATION_ID),
        (json!("104215"), ""),
        (json!("dtv1.card//IM_ROBOT.u1"), ""),
        (json!("cid;x"), ""),
        (Value::Null, ""),
    ] {
        let mut body = click_with(&json!({}));
        body["spaceId"] = space_id.clone();
        assert_eq!(click(&body).message_ref, Some(format!("{channel}/pg-card-1")), "{space_id}");
    }
    let mut absent = click_with(&json!({}));
    absent.as_object_mut().unwrap().remove("spaceId");
    assert_eq!(click(&absent).message_ref.as_deref(), Some("/pg-card-1"));
}

#[test]
fn content_and_value_must_say_the_same() {
    let body = click_with(&json!({"reason": "why"}));
    let content: Value = serde_json::from_str(body["content"].as_str().unwrap()).unwrap();
    let with = |content: Option<String>, value: Option<String>| {
        let mut body = body.clone();
        body["content"] = json!(content);
        body["value"] = json!(value);
        parse_card(&body).map(|_| ())
    };
    let (text, pretty) = (content.to_string(), serde_json::to_string_pretty(&content).unwrap());
    for (content, value) in
        [(Some(&text), None), (None, Some(&text)), (Some(&text), Some(&text)), (Some(&text), Some(&pretty))]
    {
        assert_eq!(with(content.cloned(), value.cloned()), Ok(()), "{content:?} {value:?}");
    }
    let other = text.replace("why", "no");
    let twice = text.replacen("{\"actionIds\"", "{\"actionIds\":[\"reject\"],\"actionIds\"", 1);
    for (content, value) in [
        (None, None),
        (Some(text.clone()), Some(other)),
        (Some(text.clone()), Some(String::new())),
        (Some(text.clone()), Some(twice.clone())),
        (Some(twice), None),
        (Some(text[..20].to_owned()), None),
        (Some("[]".to_owned()), None),
    ] {
        assert!(with(content.clone(), value.clone()).is_err(), "{content:?} {value:?}");
    }
}

#[test]
fn malformed_dingtalk_clicks_are_refused() {
    for (name, to) in [
        ("type", json!("other")),
        ("userIdType", json!(2)),
        ("userIdType", json!("1")),
        ("userId", json!("")),
        ("userId", json!("a/b")),
        ("outTrackId", json!("../x")),
        ("outTrackId", json!("")),
        ("corpId", Value::Null),
        ("content", json!({"cardPrivateData": {}})),
    ] {
        let mut body = click_with(&json!({}));
        body[name] = to.clone();
        assert!(parse_card(&body).is_err(), "{name} {to}");
    }
    let mut without_type = click_with(&json!({}));
    without_type.as_object_mut().unwrap().remove("userIdType");
    assert_eq!(click(&without_type).by.as_str(), format!("dingtalk:{CORP}/u1"), "1 is the default");
    let long = click_with(&json!({"binding": "b".repeat(513)}));
    assert!(parse_card(&long).is_err());
}

#[test]
fn people_of_another_corporation_are_not_ours() {
    let mut body = click_with(&json!({}));
    body["corpId"] = json!("dinga214636428b8e068");
    let Ok(Incoming::WrongTenant(foreign)) = parse_card(&body) else { panic!("the same userId is somebody else") };
    let expected =
        format!("received tenant dinga214636428b8e068 and app dingapp, expected tenant {CORP} and app dingapp");
    assert_eq!(foreign.mismatch.to_string(), expected);
    assert!(foreign.reply_to.is_some(), "the answer to a click is seen by its sender only");
}

/// A message to the robot.
fn text_message(text: &str) -> Value {
    json!({
        "msgId": "m", "conversationId": CONVERSATION_ID, "conversationType": "2", "senderStaffId": "u1",
        "senderCorpId": CORP, "chatbotCorpId": CORP, "msgtype": "text", "text": {"content": text},
        "sessionWebhook": "https://oapi.dingtalk.com/robot/sendBySession?session=x",
        "sessionWebhookExpiredTime": now().as_millisecond() + 1000,
    })
}

#[test]
fn message_is_a_command_of_a_member() {
    let Ok(Incoming::Command { request, .. }) = parse_text(&text_message(" list on prod")) else { panic!() };
    assert_eq!((request.by.as_str(), request.command.log_name()), (format!("dingtalk:{CORP}/u1").as_str(), "list"));
    let mut picture = text_message("");
    picture["msgtype"] = json!("picture");
    picture.as_object_mut().unwrap().remove("text");
    for body in [picture, text_message("make it so"), text_message("help"), text_message(&"x".repeat(20_000))] {
        assert!(matches!(parse_text(&body), Ok(Incoming::UnknownCommand { .. })), "{body}");
    }
    for stranger in [Value::Null, json!(""), json!("a b")] {
        let mut body = text_message("list");
        body["senderStaffId"] = stranger;
        let refused = parse_text(&body).unwrap_err();
        assert!(refused.0.contains("not a member of the organization"), "{refused}");
    }
    for corp in ["senderCorpId", "chatbotCorpId"] {
        let mut other = text_message("list");
        other[corp] = json!("dinga214636428b8e068");
        let Ok(Incoming::WrongTenant(foreign)) = parse_text(&other) else { panic!("{corp}") };
        assert_eq!(foreign.reply_to, None, "nothing is said in a group of others");
    }
    assert!(parse_text(&json!(["2", "u1", CORP, CORP, "text", ["list"], null, null])).is_err(), "not an object");
}

#[test]
fn session_is_used_in_private_and_only_at_dingtalk() {
    let private = |url: &str, expires_at: i64, kind: &str| {
        let mut body = text_message("list");
        body["conversationType"] = json!(kind);
        body["sessionWebhook"] = json!(url);
        body["sessionWebhookExpiredTime"] = json!(expires_at);
        match parse_text(&body) {
            Ok(Incoming::Command { reply_to: ReplyTo::Message { private_chat, .. }, .. }) => private_chat.is_some(),
            other => panic!("{other:?}"),
        }
    };
    let (good, later) = ("https://oapi.dingtalk.com/robot/sendBySession?session=x", now().as_millisecond() + 1000);
    assert!(private(good, later, "1"));
    assert!(!private(good, later, "2"), "a group reads it");
    assert!(!private(good, now().as_millisecond() - 1, "1"), "it has expired");
    for url in [
        "http://oapi.dingtalk.com/robot/sendBySession?session=x",
        "https://oapi.dingtalk.com.evil.example/x",
        "https://oapi.dingtalk.com:444/x",
        "https://user@oapi.dingtalk.com/x",
        "https://api.dingtalk.com/x",
        "file:///etc/passwd",
        "http://169.254.169.254/latest",
        "",
    ] {
        assert!(!private(url, later, "1"), "{url}");
    }
}

proptest! {
    #[test]
    fn arbitrary_dingtalk_bytes_never_panic(body in any::<Vec<u8>>(), at in 0_usize..7, text in ".{0,40}", number in any::<i64>()) {
        let signed = dingtalk::sign_card_callback(&secrets(), &String::from_utf8_lossy(&body), now()).unwrap();
        let _ = parse_signed(&signed);
        let signed = dingtalk::sign_robot_message(&secrets(), &String::from_utf8_lossy(&body), now()).unwrap();
        let _ = parse_signed(&signed);
        let names = ["content", "value", "spaceId", "userId", "outTrackId", "userIdType", "corpId"];
        for to in [json!(number), json!(text), json!([text]), json!({ text.clone(): number }), Value::Null] {
            let mut body = click_with(&json!({}));
            body[names[at]] = to.clone();
            let _ = parse_card(&body);
            let mut message = text_message("list");
            message[["text", "msgtype", "senderStaffId", "senderCorpId", "sessionWebhook", "conversationType", "msgId"][at]] = to;
            let _ = parse_text(&message);
        }
    }

    #[test]
    fn changed_dingtalk_proof_is_refused(position in 0_usize..44, letter in "[A-Za-z0-9+/=]") {
        let mut signed = dingtalk::sign_card_callback(&secrets(), "{}", now()).unwrap();
        let good = signed.headers[2].1.clone();
        signed.headers[2].1.replace_range(position..=position, &letter);
        prop_assert_eq!(verify(&signed).is_ok(), signed.headers[2].1 == good);
    }
}

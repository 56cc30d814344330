//! What arrives, and what is refused.

use base64::prelude::{BASE64_STANDARD, Engine};
use proptest::prelude::*;

use super::*;

#[test]
fn signed_callback_verifies_and_a_changed_one_is_refused() {
    let plaintext =
        json!({"type": "url_verification", "challenge": "C", "token": our_keys().verification_token.expose()});
    let callback = sign(&plaintext.to_string());
    assert_eq!(verify(&callback, &[our_keys()]).map(|authentic| authentic.key_index()), Ok(0));
    let other = keys("another encrypt key", "another-token-of-16");
    assert_eq!(verify(&callback, &[other.clone(), our_keys()]).map(|authentic| authentic.key_index()), Ok(1));
    assert_eq!(verify(&callback, &[other]).map(|_| ()), Err(Unauthentic::SignatureMismatch { keys: 1 }));
    for position in 0..callback.body.len() {
        let mut body = callback.body.clone().into_bytes();
        body[position] ^= 1;
        let verified = feishu::verify_with(&[our_keys()], &headers(&callback), &body, now());
        assert_eq!(verified.map(|_| ()), Err(Unauthentic::SignatureMismatch { keys: 1 }), "{position}");
    }
}

#[test]
fn token_rotates_while_the_encrypt_key_stays() {
    let FakeFeishuSettings { verification_token, .. } = FakeFeishuSettings::default();
    let key = "7ZJAhsHk6WV3zn4Tag2E1ByoB3lPgxzl";
    let pairs = [keys(key, "new-token-0123456789"), keys(key, &verification_token), keys(key, "old-token-0123456789")];
    let fake = FakeFeishu::default();
    let plaintext = fake.send_text(CHAT, "list", &fake.person_of_tenant(ALICE));
    assert_eq!(verify(&sign(&plaintext), &pairs).map(|authentic| authentic.key_index()), Ok(1));
    assert_eq!(verify(&sign(&plaintext), &pairs[..1]).map(|_| ()), Err(Unauthentic::InvalidCiphertext));
}

#[test]
fn only_the_url_verification_may_be_unsigned() {
    let challenge = feishu::encrypt_challenge("C", &our_keys(), [9; 16]);
    let authentic = verify(&challenge, &[keys("another encrypt key", "another-token-of-16"), our_keys()]).unwrap();
    assert_eq!(feishu::parse(&config(), authentic), Ok(Incoming::Challenge(r#"{"challenge":"C"}"#.into())));
    let token = our_keys().verification_token.expose().to_owned();
    let fake = FakeFeishu::default();
    let event = fake.send_text(CHAT, "list", &fake.person_of_tenant(ALICE));
    let both = json!({"type": "url_verification", "challenge": "C", "token": token, "header": {}}).to_string();
    let other = json!({"type": "url_verification", "challenge": "C", "token": "another-token-of-16"}).to_string();
    for plaintext in [event, both, other, "{".to_owned(), String::new()] {
        let body = feishu::encrypt_body(&plaintext, &our_keys().encrypt_key, [9; 16]);
        let verified = verify(&CallbackRequest { headers: vec![], body }, &[our_keys()]);
        assert_eq!(verified.map(|_| ()), Err(Unauthentic::SignatureMismatch { keys: 1 }), "{plaintext}");
    }
    let plain = json!({"type": "url_verification", "challenge": "C", "token": token}).to_string();
    let large = json!({"encrypt": "A".repeat(4096)}).to_string();
    for body in [plain, large] {
        let verified = verify(&CallbackRequest { headers: vec![], body }, &[our_keys()]);
        assert_eq!(verified.map(|_| ()), Err(Unauthentic::MissingHeader("x-lark-signature")));
    }
    let mut partly = sign("{}");
    partly.headers.retain(|(name, _)| *name != "x-lark-request-nonce");
    assert_eq!(verify(&partly, &[our_keys()]).map(|_| ()), Err(Unauthentic::MissingHeader("x-lark-request-nonce")));
}

#[tokio::test]
async fn click_carries_the_binding_of_its_button() {
    let world = World::start().await;
    let id = world.post("a").await.unwrap();
    let alice = world.fake.person_of_tenant(ALICE);
    let plaintext = world.fake.click_button(&id, "Approve", &alice, None).unwrap();
    let first = click(&plaintext);
    assert_eq!(first.by.as_str(), format!("feishu:82dfe55c5a220620/{ALICE}"));
    assert_eq!((first.binding.as_str(), first.reason.as_deref()), ("approve-binding", None));
    assert_eq!(first.message_ref, Some(format!("{CHAT}/{id}")));
    assert!(first.origin.request_key.starts_with("feishu:") && first.origin.request_key.len() == 39);
    assert_eq!(click(&plaintext), first, "a replay");
    let again = world.fake.click_button(&id, "Approve", &alice, None).unwrap();
    assert_ne!(click(&again).origin.request_key, first.origin.request_key);
}

#[tokio::test]
async fn reason_comes_from_the_form_with_or_without_button_values() {
    for form_buttons_have_values in [true, false] {
        let world = World::of(FakeFeishuSettings { form_buttons_have_values, ..FakeFeishuSettings::default() }).await;
        let id = world.post("a").await.unwrap();
        let plaintext =
            world.fake.click_button(&id, "Reject", &world.fake.person_of_tenant(ALICE), Some("  größer\n ")).unwrap();
        let click = click(&plaintext);
        assert_eq!((click.binding.as_str(), click.reason.as_deref()), ("reject-binding", Some("größer")));
        let too_long = "x".repeat(401);
        assert!(world.fake.click_button(&id, "Reject", &world.fake.person_of_tenant(ALICE), Some(&too_long)).is_err());
    }
}

/// A click's plaintext, with something in it changed.
fn changed(at: &str, to: Value) -> String {
    let FakeFeishuSettings { app, tenant, verification_token, .. } = FakeFeishuSettings::default();
    let mut click = json!({
        "schema": "2.0",
        "header": {"event_id": "e1", "token": verification_token, "create_time": "1793001623123456",
            "event_type": "card.action.trigger", "tenant_key": tenant, "app_id": app},
        "event": {
            "operator": {"tenant_key": tenant, "open_id": ALICE},
            "action": {"tag": "button", "name": "b.x", "value": {"b": "x"}, "form_value": {"reason": "why"}},
            "context": {"open_message_id": "om_1", "open_chat_id": CHAT},
        },
    });
    *click.pointer_mut(at).unwrap() = to;
    click.to_string()
}

#[test]
fn malformed_clicks_are_refused_or_carry_nothing() {
    let binding = |text: &str| match parse(text) {
        Ok(Incoming::Click { click, .. }) => Ok(click.binding),
        Ok(other) => panic!("{other:?}"),
        Err(MalformedRequest(problem)) => Err(problem),
    };
    let carries = Ok("x".to_owned());
    assert_eq!(binding(&changed("/event/action/name", json!("b.x"))), carries);
    assert_eq!(binding(&changed("/event/action/name", json!("other"))), carries);
    assert_eq!(binding(&changed("/event/action/value", json!({"a": "approve"}))), carries);
    assert_eq!(binding(&changed("/event/action/value", json!("text"))), carries);
    assert_eq!(
        binding(&changed("/event/action", json!({"tag": "button", "value": {"b": "x", "c": 1}}))),
        Ok(String::new())
    );
    for (at, to) in [
        ("/event/action/name", json!("b.y")),
        ("/event/action/value", json!({"b": "y"})),
        ("/event/action/tag", json!("select_static")),
        ("/event/action/form_value", json!({"reason": 1})),
        ("/event/operator/open_id", json!("ou_a/b")),
        ("/event/operator/open_id", json!("on_union")),
        ("/event/context/open_message_id", json!("")),
        ("/event/context/open_chat_id", json!("../x")),
        ("/header/event_type", json!("card.action.other")),
        ("/schema", json!("1.0")),
        ("/event", json!(null)),
    ] {
        assert!(binding(&changed(at, to.clone())).is_err(), "{at} {to}");
    }
    let long = "y".repeat(513);
    assert!(binding(&changed("/event/action", json!({"tag": "button", "name": format!("b.{long}")}))).is_err());
    let reasons = changed("/event/action/form_value/reason", json!("x".repeat(9000)));
    assert_eq!(click(&reasons).reason.unwrap().len(), 9000, "a long reason is refused later, and never cut");
}

#[test]
fn strangers_are_recognized_by_app_and_tenant() {
    for at in ["/header/tenant_key", "/event/operator/tenant_key"] {
        let parsed = parse(&changed(at, json!("f25044d8704f3991")));
        let Ok(Incoming::WrongTenant(foreign)) = parsed else { panic!("{at}: {parsed:?}") };
        assert_eq!(foreign.reply_to, Some(ReplyTo::Click { open_id: ALICE.into() }), "{at}");
        assert!(foreign.mismatch.to_string().starts_with("received tenant f25044d8704f3991 and app cli_"), "{at}");
    }
    let parsed = parse(&changed("/header/app_id", json!("cli_other")));
    let Ok(Incoming::WrongTenant(foreign)) = parsed else { panic!("{parsed:?}") };
    assert_eq!(foreign.reply_to, None);
    assert!(foreign.mismatch.to_string().contains("and app cli_other, expected tenant "), "{}", foreign.mismatch);
}

#[test]
fn text_command_loses_its_mentions() {
    let fake = FakeFeishu::default();
    let alice = fake.person_of_tenant(ALICE);
    let command = |said: &str| match parse(&fake.send_text(CHAT, said, &alice)).unwrap() {
        Incoming::Command { request, reply_to: ReplyTo::Text { .. } } => Some(request.command),
        Incoming::UnknownCommand { reply_to: ReplyTo::Text { .. }, .. } => None,
        other @ (Incoming::Command { .. }
        | Incoming::Click { .. }
        | Incoming::UnknownCommand { .. }
        | Incoming::Challenge(_)
        | Incoming::WrongTenant(_)) => panic!("{other:?}"),
    };
    let Some(Command::Connection(approve)) = command("@_user_1 approve pcc-a because it is @_user_name's") else {
        panic!()
    };
    assert_eq!(approve.reason.as_deref(), Some("it is @_user_name's"));
    assert_eq!(command(" list\n on  prod @_user_1"), Some(Command::List { target: Some("prod".into()) }));
    assert_eq!(command(""), None);
    assert_eq!(command("list on prod and more"), Some(Command::List { target: Some("prod".into()) }));
    assert_eq!(command("approve pcc-a and more"), None);
    assert_eq!(command(&format!("approve pcc-a because {}", "x".repeat(20_000))), None);
    let Some(Command::Connection(long)) = command(&format!("approve pcc-a because {}", "𝄞".repeat(400))) else {
        panic!()
    };
    assert_eq!(long.oversized_reason(), None, "each character has twelve bytes in JSON");
}

/// The command in a text with these mentions, by key and name.
fn command_with_mentions(text: &str, mentions: &[(&str, &str)]) -> Option<Command> {
    let mut event = list_event();
    let mentions: Vec<_> = mentions.iter().map(|(key, name)| json!({"key": key, "name": name})).collect();
    event["event"]["message"]["content"] = json!({"text": text}).to_string().into();
    event["event"]["message"]["mentions"] = json!(mentions);
    match parse(&event.to_string()).unwrap() {
        Incoming::Command { request, .. } => Some(request.command),
        Incoming::UnknownCommand { .. } => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn text_command_keeps_its_reason_with_names_for_mentions() {
    let mentions = [("@_user_1", "peergate"), ("@_user_2", "Zoë"), ("@_user_12", "王"), ("odd", "x")];
    for (text, expected) in [
        ("@_user_1 approve pcc-a because a  b\nc &lt;d&gt; <e> ", Some("a  b\nc &lt;d&gt; <e>")),
        ("@_user_1 approve pcc-a because @_user_2 and @_user_12 agree", Some("@Zoë and @王 agree")),
        ("approve pcc-a @_user_1 because因为", None),
        ("approve pcc-a @_user_1 because 因为@_user_2", Some("因为@Zoë")),
        ("@_user_1 Approve `prod/pcc-a`\u{3000}Because odd", Some("odd")),
        ("@_user_1 approve pcc-a because @_user_7", Some("@_user_7")),
        ("@_user_1 approve pcc-a @_user_2 because so", None),
        ("approve pcc-a @_user_1 @_user_2", None),
        ("@_user_1 approve pcc-a not yet", None),
    ] {
        let reason = match command_with_mentions(text, &mentions) {
            Some(Command::Connection(command)) => command.reason,
            Some(Command::List { .. } | Command::Inventory { .. }) | None => None,
        };
        assert_eq!(reason.as_deref(), expected, "{text:?}");
    }
}

/// The event of alice's command `list`, with a mention of the bot.
fn list_event() -> Value {
    let fake = FakeFeishu::default();
    serde_json::from_str(&fake.send_text(CHAT, "list", &fake.person_of_tenant(ALICE))).unwrap()
}

fn ignored() -> Incoming<ReplyTo> {
    Incoming::Challenge("{}".into())
}

#[test]
fn message_from_a_bot_or_without_a_mention_is_ignored() {
    let mut event = list_event();
    event["event"]["sender"]["sender_type"] = "app".into();
    assert_eq!(parse(&event.to_string()), Ok(ignored()), "of another bot");
    let mut event = list_event();
    event["event"]["message"]["content"] = json!({"text": "list"}).to_string().into();
    assert_eq!(parse(&event.to_string()), Ok(ignored()), "in a group, without a mention");
    event["event"]["message"]["chat_type"] = "p2p".into();
    assert!(matches!(parse(&event.to_string()), Ok(Incoming::Command { .. })), "in a private chat");
}

#[test]
fn text_command_older_than_ten_minutes_is_ignored() {
    let written = |seconds: i64| {
        let mut event = list_event();
        event["event"]["message"]["create_time"] = (now().as_millisecond() - seconds * 1000).to_string().into();
        parse(&event.to_string())
    };
    let Ok(Incoming::Command { request, .. }) = written(599) else { panic!("it is not too old") };
    assert_eq!(request.origin.signed_at, now() - SignedDuration::from_secs(599), "the time of writing");
    assert_eq!(written(601), Ok(ignored()));
}

#[test]
fn image_message_gets_the_usage() {
    let mut event = list_event();
    event["event"]["message"]["message_type"] = "image".into();
    assert!(matches!(parse(&event.to_string()), Ok(Incoming::UnknownCommand { .. })));
}

#[test]
fn wrong_padding_is_refused_even_without_a_signature() {
    let token = our_keys().verification_token.expose().to_owned();
    let plaintext = json!({"type": "url_verification", "challenge": "C", "token": token}).to_string();
    let blocks = plaintext.len().div_ceil(16);
    let encrypted = feishu::encrypt_body(&format!("{plaintext:<0$}", blocks * 16), &our_keys().encrypt_key, [9; 16]);
    assert!(verify(&CallbackRequest { headers: vec![], body: encrypted.clone() }, &[our_keys()]).is_ok());
    // Without the block of padding, the last byte is a space.
    let encrypted: Value = serde_json::from_str(&encrypted).unwrap();
    let mut bytes = BASE64_STANDARD.decode(encrypted["encrypt"].as_str().unwrap()).unwrap();
    bytes.truncate(bytes.len() - 16);
    let body = json!({"encrypt": BASE64_STANDARD.encode(bytes)}).to_string();
    let unsigned = verify(&CallbackRequest { headers: vec![], body }, &[our_keys()]);
    assert_eq!(unsigned.map(|_| ()), Err(Unauthentic::SignatureMismatch { keys: 1 }));
}

#[test]
fn malformed_headers_are_named() {
    let token = our_keys().verification_token.expose().to_owned();
    let plaintext = json!({"type": "url_verification", "challenge": "C", "token": token}).to_string();
    let signed = |nonce: &str| {
        let callback = feishu::sign_callback(&plaintext, &our_keys(), now(), nonce, [7; 16]);
        verify(&callback, &[our_keys()]).map(|_| ())
    };
    assert_eq!(signed(&"n".repeat(128)), Ok(()));
    for nonce in ["", "a,b", "a b", &"n".repeat(129)] {
        let error = signed(nonce).unwrap_err().to_string();
        let expected = format!(
            "header x-lark-request-nonce is malformed: expected 1 to 128 characters of ASCII, without spaces and `,`, \
             found {} other bytes",
            nonce.len()
        );
        assert_eq!(error, expected, "{nonce:?}");
    }
    for (name, value) in [("x-lark-request-timestamp", "1793001624.0"), ("x-lark-signature", "v0=00")] {
        let mut callback = sign(&plaintext);
        callback.headers.retain(|(other, _)| *other != name);
        callback.headers.push((name, value.to_owned()));
        let malformed = verify(&callback, &[our_keys()]).map(|_| ());
        assert!(matches!(malformed, Err(Unauthentic::MalformedHeader(header)) if header.name == name), "{malformed:?}");
        callback.headers.push((name, value.to_owned()));
        let mut twice = headers(&callback);
        twice.append(name, HeaderValue::from_static("x"));
        let verified = feishu::verify_with(&[our_keys()], &twice, callback.body.as_bytes(), now());
        assert_eq!(verified.map(|_| ()), Err(Unauthentic::DuplicateHeader(name)));
    }
}

proptest! {
    #[test]
    fn signed_plaintext_survives_the_round_trip(plaintext in ".{0,200}", iv in any::<[u8; 16]>(), nonce in "[a-z0-9]{1,20}") {
        let token = our_keys().verification_token.expose().to_owned();
        let event = json!({"token": token, "type": "url_verification", "challenge": plaintext}).to_string();
        let callback = feishu::sign_callback(&event, &our_keys(), now(), &nonce, iv);
        let authentic = verify(&callback, &[our_keys()]).unwrap();
        match feishu::parse(&config(), authentic) {
            Ok(Incoming::Challenge(reply)) => prop_assert_eq!(reply, json!({"challenge": plaintext}).to_string()),
            Err(_) => prop_assert!(plaintext.len() > 256),
            Ok(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn arbitrary_bytes_never_verify_or_panic(body in any::<Vec<u8>>(), plaintext in any::<Vec<u8>>()) {
        let headers = headers(&sign("{}"));
        prop_assert!(feishu::verify_with(&[our_keys()], &headers, &body, now()).is_err());
        prop_assert!(feishu::verify_with(&[our_keys()], &HeaderMap::new(), &body, now()).is_err());
        let text = String::from_utf8_lossy(&plaintext);
        prop_assert_eq!(verify(&sign(&text), &[our_keys()]).map(|_| ()), Err(Unauthentic::InvalidCiphertext));
    }

    #[test]
    fn arbitrary_events_never_panic(at in 0_usize..7, number in any::<i64>(), text in ".{0,40}") {
        let places = ["/header", "/event", "/event/operator", "/event/action", "/event/action/value", "/event/context",
            "/event/action/form_value"];
        for to in [json!(number), json!(text), json!([text]), json!({ text.clone(): number }), Value::Null] {
            if places[at] != "/header" {
                let _ = parse(&changed(places[at], to));
            }
        }
    }
}

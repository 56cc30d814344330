//! What `tests/interop/test_feishu.py` gives to Feishu's own SDK is what the code makes.

use std::path::Path;

use jiff::Timestamp;
use peergate::chat::feishu::{self, CallbackKeys, CallbackRequest, ToastKind, build_bot_message};
use peergate::chat::message::{Button, Buttons, Link, Message, MessageFact, ShownButton};
use peergate::peering::{Fingerprint, InstanceId};
use peergate::secret::Secret;
use serde_json::{Value, json};

const ENCRYPT_KEY: &str = "7ZJAhsHk6WV3zn4Tag2E1ByoB3lPgxzl";
const TOKEN: &str = "fakeVerificationToken0123456789a";

fn message() -> Message {
    Message {
        headline: "alice or bob: approve or reject VPC peering prod/pcc-a".into(),
        facts: vec![MessageFact::new("Name", "<at id=all></at> **db** 数据库")],
        checks: vec!["✓ it has not expired".into()],
        figure: vec!["requester 10.0.0.0/8  ████····".into()],
        link: Some(Link {
            label: "Open the console",
            url: "https://vpc.console.aliyun.com/vpcpeer/cn-hangzhou/vpcpeers".into(),
        }),
        buttons: Some(Buttons {
            target: "prod".into(),
            instance_id: InstanceId::parse("pcc-a").unwrap(),
            fingerprint: Fingerprint::try_from("0123456789abcdef".repeat(4)).unwrap(),
            shown: [Button::Approve { needs_reason: false }, Button::Reject, Button::Withdraw, Button::Details]
                .map(|button| ShownButton { button, binding: Some(button.label().to_owned()) })
                .into(),
        }),
        ..Message::default()
    }
}

fn click() -> Value {
    json!({
        "schema": "2.0",
        "header": {
            "event_id": "80c70aa760b976edd001a14605c60f31", "token": TOKEN, "create_time": "1793001623123456",
            "event_type": "card.action.trigger", "tenant_key": "82dfe55c5a220620", "app_id": "cli_a6ee8fbe9ffe6d3d",
        },
        "event": {
            "operator": {"tenant_key": "82dfe55c5a220620", "open_id": "ou_2840498f54cfa60477d0edcf39319ae2"},
            "token": "c-78fc656c51c18a8d925371fe6039f40ed31f8b65",
            "action": {
                "tag": "button", "name": "b.Reject", "value": {"b": "Reject"}, "timezone": "Asia/Shanghai",
                "form_value": {"reason": "网段重叠 — größer ❌"},
            },
            "host": "im_message", "delivery_type": "",
            "context": {"open_message_id": "om_1", "open_chat_id": "oc_1", "url": "", "preview_token": ""},
        },
    })
}

fn made(callback: &CallbackRequest) -> Value {
    let headers: serde_json::Map<_, _> =
        callback.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
    json!({"headers": headers, "body": callback.body})
}

#[test]
fn fixture_matches_the_code() {
    let keys = json!({"encrypt_key": ENCRYPT_KEY, "verification_token": TOKEN});
    let pair: CallbackKeys = serde_json::from_value(keys.clone()).unwrap();
    let now = Timestamp::from_second(1_793_001_623).unwrap();
    let card = feishu::render_card(&message());
    let reply = feishu::reply_json(Some(feishu::toast_json(ToastKind::Success, "Done.")), Some(card.clone()));
    let click = click();
    let fixture = json!({
        "keys": keys,
        "plaintext": click.to_string(),
        "click": made(&feishu::sign_callback(&click.to_string(), &pair, now, "6af07ea128", [7; 16])),
        "challenge": made(&feishu::encrypt_challenge("c42e44ca4b602a4c", &pair, [9; 16])),
        "card": card,
        "reply": reply,
        "bot": build_bot_message(&message(), Some(&Secret::new("demoSecret".into())), now).as_json(),
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/feishu.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&fixture).unwrap());
    if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
        let fresh = path.with_extension("json.new");
        std::fs::write(&fresh, text).unwrap();
        panic!("the code makes something else than {}: compare it with {}", path.display(), fresh.display());
    }
}

//! What `tests/interop/test_dingtalk.py` gives to DingTalk's own SDKs is what the code makes.

use std::path::Path;

use jiff::Timestamp;
use peergate::chat::dingtalk::{self, CardSpace, DingTalkApi, PostedCard};
use peergate::chat::message::{Button, Buttons, Link, Message, MessageFact, ShownButton};
use peergate::http::Clients;
use peergate::peering::{Fingerprint, InstanceId};
use peergate::secret::{Secret, SecretUrl};
use serde_json::{Value, json};

use super::{ALICE, CONVERSATION_ID, FakeDingTalk, FakeDingTalkSettings, Secrets, Url};

fn message() -> Message {
    Message {
        headline: "alice or bob: approve or reject VPC peering prod/pcc-a".into(),
        facts: vec![MessageFact::new("Name", "@all **db** 数据库")],
        checks: vec!["✓ it has not expired".into()],
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

fn made(signed: &peergate::chat::SignedRequest) -> Value {
    let headers: serde_json::Map<_, _> =
        signed.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
    json!({"headers": headers, "body": signed.body})
}

/// The bodies of all calls, as DingTalk gets them.
async fn sent_bodies() -> Value {
    let fake = FakeDingTalk::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(fake.clone().serve(listener));
    let http = Clients::new().unwrap().shared().clone();
    let FakeDingTalkSettings { app, app_secret, template, .. } = fake.settings();
    let token = dingtalk::fetch_token(&http, &url, &app, &app_secret.try_into().unwrap()).await.unwrap().token;
    let api = DingTalkApi { http: &http, url: &url, token: &token, robot: &app };
    let variables = dingtalk::render_card(&message());
    let card = |out_track_id, space, mentions| PostedCard {
        out_track_id,
        template: &template,
        route: "peergate",
        variables: &variables,
        summary: "a headline",
        space,
        mentions,
    };
    let group = CardSpace::Group(CONVERSATION_ID);
    api.post(card("pg-card-1", group, &[ALICE])).await.unwrap();
    api.post(card("pg-card-2", CardSpace::Person(ALICE), &[])).await.unwrap();
    api.deliver("pg-card-1", group).await.unwrap();
    api.update("pg-card-1", &variables).await.unwrap();
    api.send_to_group(CONVERSATION_ID, "news", &[]).await.unwrap();
    api.send_to_person(ALICE, "an answer").await.unwrap();
    api.register("peergate", "https://peergate.example.com/dingtalk/x", "secret", true).await.unwrap();
    fake.calls().into_iter().map(|call| json!({"path": call.path, "body": call.body})).collect()
}

#[tokio::test]
async fn dingtalk_fixture_matches_the_code() {
    let keys = json!({
        "api_secrets": ["MevvFKK3yNYKD0OLNoS0dQLGC7DJXekHi9Z85cJ3adU"], "app_secrets": ["fakeClientSecret0123456789abcdefghi"],
        "path_secrets": ["0f1e2d3c4b5a69788796a5b4c3d2e1f0"],
    });
    let secrets: Secrets = serde_json::from_value(keys.clone()).unwrap();
    let now = Timestamp::from_millisecond(1_793_001_623_417).unwrap();
    let content = json!({
        "cardPrivateData": {"actionIds": ["reject"], "params": {"binding": "Reject", "reason": "网段重叠 — größer ❌"}},
    });
    let click = json!({
        "type": "actionCallback", "outTrackId": "pg-card-1", "corpId": FakeDingTalk::default().settings().corp,
        "userId": ALICE, "userIdType": 1, "spaceType": "IM", "spaceId": CONVERSATION_ID, "extension": "{}",
        "content": content.to_string(),
    });
    let text = json!({
        "msgId": "msg1", "createAt": now.as_millisecond(), "conversationId": CONVERSATION_ID, "conversationType": "2",
        "senderStaffId": ALICE, "senderCorpId": "ding1", "senderNick": "王", "chatbotCorpId": "ding1", "msgtype": "text",
        "text": {"content": " status pcc-a"}, "atUsers": [{"dingtalkId": "$:LWCP_v1:$robot"}],
        "sessionWebhook": "https://oapi.dingtalk.com/robot/sendBySession?session=x",
    });
    let url = "https://oapi.dingtalk.com/robot/send?access_token=tok".parse().unwrap();
    let signed_url = dingtalk::sign_robot_url(&SecretUrl::new(url), &Secret::new("SECdemo".into()), now);
    let fixture = json!({
        "keys": keys,
        "calls": sent_bodies().await,
        "click": made(&dingtalk::sign_card_callback(&secrets, &click.to_string(), now).unwrap()),
        "text": made(&dingtalk::sign_robot_message(&secrets, &text.to_string(), now).unwrap()),
        "variables": dingtalk::render_card(&message()),
        "reply": dingtalk::reply_json("Done.", Some(&message())),
        "signed_url": signed_url.expose().as_str(),
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dingtalk.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&fixture).unwrap());
    if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
        let fresh = path.with_extension("json.new");
        std::fs::write(&fresh, text).unwrap();
        panic!("the code makes something else than {}: compare it with {}", path.display(), fresh.display());
    }
}

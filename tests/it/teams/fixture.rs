//! What `tests/interop/test_teams.py` gives to Microsoft's own SDK is what the code makes.

use std::path::Path;

use peergate::approval::Principal;
use peergate::chat::message::{Button, Buttons, Link, Message, MessageFact, ShownButton};
use peergate::chat::teams::{manifest, private_message_json, render_activity, render_for_workflow};
use peergate::peering::Fingerprint;
use serde_json::json;

use super::*;

fn message() -> Message {
    Message {
        headline: "alice or bob: approve or reject VPC peering prod/pcc-a".into(),
        mentions: vec![Principal::new("teams", &config().tenant, "a11ce000-0000-4000-8000-000000000001").unwrap()],
        facts: vec![MessageFact::new("Name", "<at>all</at> **db** 数据库")],
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
            shown: [Button::Approve { needs_reason: true }, Button::Reject, Button::Withdraw, Button::Details]
                .map(|button| ShownButton { button, binding: Some(button.label().to_owned()) })
                .into(),
        }),
        ..Message::default()
    }
}

#[test]
fn teams_fixture_matches_the_code() {
    let url = "https://peergate.example.com/teams".parse().unwrap();
    let fixture = json!({
        "activity": render_activity(&message()),
        "workflow": render_for_workflow(&message()),
        "answer": private_message_json("Done."),
        "manifest": manifest(&config(), &url),
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/teams.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&fixture).unwrap());
    if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
        let fresh = path.with_extension("json.new");
        std::fs::write(&fresh, text).unwrap();
        panic!("the code makes something else than {}: compare it with {}", path.display(), fresh.display());
    }
}

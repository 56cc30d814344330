//! Requests that are authentic, but not understood: the answer names the field, what was expected and what was found.

use crate::support::prelude::*;

/// The `detail` of a refusal that reached no other service.
async fn detail_of(app: &TestApp, body: &str) -> String {
    let reply = app.send(&app.sign_body(body)).await;
    reply.assert(400, "malformed");
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    reply.problem_detail()
}

/// A request with these members beside `instance_id` and `actor`.
fn approve_with(data: &str) -> String {
    format!(r#"{{"type":"peering.approve","data":{{"instance_id":"pcc-a","actor":"alice"{data}}}}}"#)
}

#[tokio::test]
async fn malformed_field_is_named_with_what_was_expected() {
    let app = TestApp::start().await;
    let known = "instance_id, actor, target, fingerprint, reason, dry_run";
    let types = "one of peering.approve, peering.reject, peering.withdraw, peering.acknowledge, peering.status, peering.list, peering.inventory";
    let cases = [
        (approve_with(r#","dry_run":"yes""#), "data.dry_run: expected a boolean, found the string \"yes\""),
        (approve_with(r#","dry_run":1"#), "data.dry_run: expected a boolean, found the number 1"),
        (approve_with(r#","dry_run":null"#), "data.dry_run: expected a boolean, found null"),
        (approve_with(r#","reason":["a"]"#), "data.reason: expected a string, found an array"),
        (approve_with(r#","reason":{"a":1}"#), "data.reason: expected a string, found an object"),
        (approve_with(r#","target":true"#), "data.target: expected a string, found true"),
        (
            approve_with(r#","fingerprint":"abc""#),
            "data.fingerprint: expected 64 hexadecimal digits, found the string \"abc\"",
        ),
        (approve_with(r#","insance_id":"pcc-b""#), &format!("data.insance_id: unknown field; known: {known}")),
        (approve_with(r#","actor":"bob""#), "data.actor: occurs twice"),
        (approve_with("").replace("\"type\"", "\"typ\""), "typ: unknown field; known: type, timestamp, data"),
        (approve_with("").replace(r#","actor":"alice""#, ""), "data.actor: missing"),
        (approve_with("").replace(r#""instance_id":"pcc-a","#, ""), "data.instance_id: missing"),
        (approve_with("").replace(r#""type":"peering.approve","#, ""), "type: missing"),
        (
            approve_with("").replace("pcc-a", "pcc-A"),
            "data.instance_id: expected `pcc-` and up to 60 lower-case letters and digits, found the string \"pcc-A\"",
        ),
        (approve_with("").replace(r#""pcc-a""#, "1"), "data.instance_id: expected a string, found the number 1"),
        (
            approve_with("").replace("alice", "a/b"),
            "data.actor: expected an immutable user id: 1 to 128 letters, digits and -_.@+, found the string \"a/b\"",
        ),
        (
            approve_with("").replace("approve", "aprove"),
            &format!("type: expected {types}, found the string \"peering.aprove\""),
        ),
        (approve_with("").replace(r#""peering.approve""#, "7"), "type: expected a string, found the number 7"),
        (
            approve_with("").replacen('{', r#"{"timestamp":"yesterday","#, 1),
            "timestamp: expected a time as in RFC 3339, e.g. 2026-11-22T10:00:00Z, found the string \"yesterday\"",
        ),
        (approve_with("").replacen('{', r#"{"timestamp":7,"#, 1), "timestamp: expected a string, found the number 7"),
        (r#"{"type":"peering.approve"}"#.into(), "data: missing"),
        (r#"{"type":"peering.approve","data":"pcc-a"}"#.into(), "data: expected an object, found the string \"pcc-a\""),
        (
            r#"{"type":"peering.approve","data":["pcc-a","alice",null,null,null,false]}"#.into(),
            "data: expected an object, found an array",
        ),
        (
            r#"["peering.approve",null,{"instance_id":"pcc-a","actor":"alice"}]"#.into(),
            "the body: expected an object, found an array",
        ),
        // Too deep to say more.
        (format!("{}{}", "[".repeat(200), "]".repeat(200)), "the body: expected an object"),
        ("null".into(), "the body: expected an object, found null"),
        (
            r#"{"type":"peering.reject","data":{"instance_id":"pcc-a","actor":"a","dry_run":true}}"#.into(),
            "data.dry_run: only peering.approve has a dry run",
        ),
        (
            r#"{"type":"peering.list","data":{"instance_id":"pcc-a","actor":"a"}}"#.into(),
            "data.instance_id: peering.list and peering.inventory take none",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(detail_of(&app, &body).await, *expected, "{body}");
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn syntax_error_is_answered_with_its_place() {
    let app = TestApp::start().await;
    let cases = [
        ("", "line 1, column 0: not JSON: EOF while parsing a value"),
        ("{\n  \"type\": 'x'\n}", "line 2, column 11: not JSON: expected value"),
        ("{\n  \"type\": \"peering.list\",\n}", "line 3, column 1: not JSON: trailing comma"),
        (&format!("{}x", approve_with("")), "line 1, column 74: not JSON: trailing characters"),
    ];
    for (body, expected) in cases {
        assert_eq!(detail_of(&app, body).await, expected, "{body}");
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn error_quotes_little_and_nothing_secret() {
    let app = TestApp::start().await;
    let secret = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let bodies = [
        approve_with(&format!(r#","dry_run":"{secret}""#)),
        approve_with(&format!(r#","{secret}":1"#)),
        approve_with("").replace("pcc-a", secret),
        approve_with("").replace("alice", &format!("{secret}/x")),
        approve_with("").replace("peering.approve", secret),
        approve_with("").replacen('{', &format!(r#"{{"timestamp":"{secret}","#), 1),
    ];
    for body in &bodies {
        let detail = detail_of(&app, body).await;
        assert!(detail.contains('…') && !detail.contains("MfKQ"), "{detail}");
    }
    let long = "word ".repeat(40_000);
    let odd = r"\n\u001b[31m{\u202e\u0000";
    for text in [long.as_str(), odd] {
        for body in [
            approve_with(&format!(r#","dry_run":"{text}""#)),
            approve_with(&format!(r#","{text}":1"#)),
            approve_with("").replace("alice", text),
            approve_with("").replace("peering.approve", text),
        ] {
            let detail = detail_of(&app, &body).await;
            assert!(detail.len() < 250, "{detail}");
            assert!(detail.chars().all(|shown| shown == '…' || shown.is_ascii_graphic() || shown == ' '), "{detail}");
        }
    }
    let number = format!(r#","dry_run":{}"#, "9".repeat(100_000));
    assert!(detail_of(&app, &approve_with(&number)).await.len() < 150);
    let lines = logged();
    assert!(!lines.contains("MfKQ") && !lines.contains('\u{1b}') && !lines.contains('\u{202e}'), "{lines}");
    assert!(lines.lines().all(|line| line.len() < 1000));
}

#[tokio::test]
async fn malformed_slack_payload_is_named_in_the_log() {
    let app = TestApp::start().await;
    for (payload, expected) in [
        (json!({"type": "block_actions", "api_app_id": "A0123"}).to_string(), "user: missing"),
        (
            json!({"type": "block_actions", "user": {"id": 7}, "api_app_id": "A0123"}).to_string(),
            "user.id: expected a string, found the number 7",
        ),
        ("{".to_owned(), "line 1, column 1: not JSON: EOF while parsing an object"),
    ] {
        let signed = app.sign_slack_form(&[("payload", &payload)]).await;
        app.send(&signed).await.assert(400, "malformed");
        assert!(logged().lines().any(|line| line.contains(expected)), "{expected}\n{}", logged());
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

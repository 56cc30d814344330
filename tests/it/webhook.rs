//! Story one from outside: an event in; the reply, the store and the calls to Alibaba Cloud out.

use crate::support::prelude::*;
use bytes::Bytes;
use peergate::chat::SignedRequest;
use peergate::chat::message::Button;
use tokio::time::Instant;

#[tokio::test]
async fn signed_approval_is_accepted_once_with_the_stored_token() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let reply = app.approve(&id, "alice").await;
    reply.assert(200, "accepted");
    app.assert_state(&id, "activating").await;
    app.assert_accepts(&id, 1);
    let stored = app.load_record(&id).await.unwrap();
    let token = stored.approval.client_token().unwrap().as_str().to_owned();
    assert!(token.starts_with("pg1-") && token.len() == 64 && token.is_ascii());
    let journal = app.simulator.journal();
    let accept = journal.iter().rfind(|entry| entry.action == ACCEPT).unwrap();
    assert_eq!(accept.parameters["ClientToken"], token);
    assert_eq!(reply.body_json()["approval"]["decision"]["by"], "webhook:ci/alice");
}

#[tokio::test]
async fn rejection_is_carried_out() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let mut spec = app.event_spec("reject", &id, "bob");
    spec.reason = Some("not ours to share".into());
    app.send_spec(&spec).await.assert(200, "rejected");
    app.assert_state(&id, "rejected").await;
    assert_eq!(app.simulator.count_effects(REJECT, id.as_str()), 1);
    assert_eq!(app.approval(&id).await.winner().unwrap().reason.as_deref(), Some("not ours to share"));
    let late = app.approve(&id, "alice").await;
    late.assert(409, "already-decided");
    assert!(late.problem_detail().contains("already rejected by bob"), "{}", late.problem_detail());
    app.assert_accepts(&id, 0);
}

#[tokio::test]
async fn dry_run_passes_and_changes_nothing() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.dry_run(&id, "alice").await.assert(200, "dry-run-passed");
    app.assert_state(&id, "none").await;
    app.assert_accepts(&id, 0);
    let reply = app.approve(&id, "alice").await;
    assert_eq!(reply.name(), "accepted", "a dry run has a token of its own");
}

#[tokio::test]
async fn failed_dry_run_shows_the_vendors_code() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next_dry_run("OperationFailed.CdtNotOpened");
    let reply = app.dry_run(&id, "alice").await;
    reply.assert(409, "vendor-refused");
    assert_eq!(reply.body_json()["problem"]["code"], "OperationFailed.CdtNotOpened");
    assert!(reply.problem_detail().contains("Activate Cloud Data Transfer"), "{}", reply.problem_detail());
}

#[tokio::test]
async fn status_shows_the_connection_and_the_record() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let before = app.status(&id, "anybody").await.body_json();
    assert_eq!((&before["connection"]["status"], &before["approval"]), (&json!("Accepting"), &json!(null)));
    app.approve(&id, "alice").await;
    let after = app.status(&id, "anybody").await.body_json();
    assert_eq!(after["approval"]["state"], "activating");
    assert_eq!(after["connection"]["requester"]["account"], "1111111111111111");
}

#[tokio::test]
async fn replayed_approval_changes_nothing() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let signed = app.sign_event("approve", &id, "alice").await;
    app.send(&signed).await;
    let version = app.load_record(&id).await.unwrap().version;
    app.send(&signed).await.assert(200, "repeated");
    assert_eq!(app.load_record(&id).await.unwrap().version, version);
    app.assert_calls(ACCEPT, 1);
}

#[tokio::test]
async fn replay_after_a_failure_starts_no_new_generation() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next(ACCEPT, "OperationFailed.CdtNotOpened");
    let signed = app.sign_event("approve", &id, "alice").await;
    let failed = app.send(&signed).await;
    failed.assert(409, "failed");
    assert_eq!(failed.body_json()["approval"]["problem"]["code"], "OperationFailed.CdtNotOpened");
    // It must not look like success.
    app.send(&signed).await.assert(409, "failed");
    app.assert_state(&id, "failed").await;
    app.assert_calls(ACCEPT, 1);
}

#[tokio::test]
async fn new_approval_after_a_failure_starts_a_new_generation() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next(ACCEPT, "OperationFailed.CdtNotOpened");
    app.approve(&id, "alice").await.assert(409, "failed");
    let first = app.approval(&id).await.client_token().cloned();
    assert_eq!(app.approve(&id, "alice").await.name(), "accepted");
    let second = app.approval(&id).await;
    assert_eq!(second.generation(), 2);
    assert_ne!(second.client_token(), first.as_ref());
}

#[tokio::test]
async fn unauthentic_request_reaches_neither_store_nor_api() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let good = app.sign_event("approve", &id, "alice").await;
    let now = clock::now();
    let with = |name: &str, value: &str| {
        let mut signed = good.clone();
        signed.headers.iter_mut().filter(|header| header.0 == name).for_each(|header| header.1 = value.to_owned());
        signed
    };
    let without = |name: &str| {
        let mut signed = good.clone();
        signed.headers.retain(|header| header.0 != name);
        signed
    };
    let twice = |name: &str| {
        let mut signed = good.clone();
        let header = signed.headers.iter().find(|header| header.0 == name).unwrap().clone();
        signed.headers.push(header);
        signed
    };
    let signed_as = |id: &str, timestamp: &str| app.sign_body_as(&good.body, id, timestamp);
    let signature = &good.headers[2].1;
    let id_header = &good.headers[1].1;
    let timestamp = &good.headers[3].1;
    let mut flipped = good.clone();
    flipped.body = flipped.body.replace("alice", "alicf");
    let mut other_client = good.clone();
    other_client.path = "/webhook/nobody".into();
    let cases = [
        ("wrong signature", with("webhook-signature", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
        ("no version", with("webhook-signature", signature.trim_start_matches("v1,"))),
        ("another version", with("webhook-signature", &signature.replace("v1,", "v1a,"))),
        ("not base64", with("webhook-signature", "v1,@@@")),
        ("empty signature", with("webhook-signature", "v1,")),
        ("empty header", with("webhook-signature", "")),
        ("joined signatures", with("webhook-signature", &format!("{signature},{signature}"))),
        ("missing signature", without("webhook-signature")),
        ("missing id", without("webhook-id")),
        ("missing timestamp", without("webhook-timestamp")),
        ("two signatures", twice("webhook-signature")),
        ("two ids", twice("webhook-id")),
        ("two timestamps", twice("webhook-timestamp")),
        ("another id", with("webhook-id", "msg_other")),
        ("another timestamp", with("webhook-timestamp", &(timestamp.parse::<i64>().unwrap() - 1).to_string())),
        ("a dot in the id, well signed", signed_as(&format!("{id_header}.1"), timestamp)),
        ("an empty id, well signed", signed_as("", timestamp)),
        ("two ids joined, well signed", signed_as("msg_1,msg_2", timestamp)),
        ("a long id, well signed", signed_as(&"m".repeat(257), timestamp)),
        ("a fraction, well signed", signed_as("msg_1", &format!("{timestamp}.0"))),
        ("a sign, well signed", signed_as("msg_1", &format!("+{timestamp}"))),
        ("a zero in front, well signed", signed_as("msg_1", &format!("0{timestamp}"))),
        ("letters, well signed", signed_as("msg_1", "yesterday!")),
        ("joined timestamps, well signed", signed_as("msg_1", &format!("{timestamp},{timestamp}"))),
        ("a changed body", flipped),
        ("an unknown client", other_client),
    ];
    for (name, signed) in cases {
        let reply = app.send_at(&signed, now).await;
        assert_eq!((reply.status, reply.name().as_str()), (401, "unauthentic"), "{name}");
        assert_eq!(reply.problem_detail(), "the request is not authentic", "{name}");
        assert_eq!(reply.headers["content-type"], "application/problem+json", "{name}");
    }
    assert_eq!((app.count_upstream_calls(), app.state_of(&id).await.as_str()), (0, "none"));
}

#[tokio::test]
async fn only_one_family_of_signature_headers_is_taken() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let good = app.sign_event("approve", &id, "alice").await;
    let svix = |name: &'static str| match name {
        "webhook-id" => "svix-id",
        "webhook-timestamp" => "svix-timestamp",
        "webhook-signature" => "svix-signature",
        other => other,
    };
    let renamed = |names: &[&str]| {
        let mut signed = good.clone();
        for header in signed.headers.iter_mut().filter(|header| names.contains(&header.0)) {
            header.0 = svix(header.0);
        }
        signed
    };
    let all = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let mut cases = vec![];
    for name in all {
        cases.push((format!("only {name} is Svix's"), renamed(&[name])));
        let others: Vec<_> = all.into_iter().filter(|other| *other != name).collect();
        cases.push((format!("only {name} is not Svix's"), renamed(&others)));
        let mut both = renamed(&all);
        both.headers.extend(good.headers.iter().filter(|header| header.0 == name).cloned());
        cases.push((format!("Svix's, and {name}"), both));
        let mut twice = renamed(&all);
        let header = twice.headers.iter().find(|header| header.0 == svix(name)).unwrap().clone();
        twice.headers.push(header);
        cases.push((format!("two of {name}"), twice));
        let mut without = renamed(&all);
        without.headers.retain(|header| header.0 != svix(name));
        cases.push((format!("no {name}"), without));
    }
    let mut flipped = renamed(&all);
    flipped.body = flipped.body.replace("alice", "alicf");
    cases.push(("a changed body".into(), flipped));
    for (name, signed) in cases {
        let reply = app.send(&signed).await;
        assert_eq!((reply.status, reply.name().as_str()), (401, "unauthentic"), "{name}");
    }
    assert_eq!((app.count_upstream_calls(), app.state_of(&id).await.as_str()), (0, "none"));
    assert_eq!(app.send(&renamed(&all)).await.name(), "accepted");
    assert_eq!(app.send(&good).await.name(), "repeated", "the id is the same in both families");
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn timestamp_may_differ_by_at_most_300_seconds() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let status = app.sign_event("status", &id, "alice").await;
    let slash = app.sign_slash_command(&format!("status {id}"), ALICE).await;
    let sent_at = clock::now();
    for (seconds, fresh) in [(-301, false), (-300, true), (300, true), (301, false)] {
        for signed in [&status, &slash] {
            let timestamp = signed.headers.iter().find(|(name, _)| name.ends_with("timestamp")).unwrap();
            let base: i64 = timestamp.1.parse().unwrap();
            let now = jiff::Timestamp::from_second(base + seconds).unwrap();
            let reply = app.send_at(signed, now).await;
            assert_eq!(reply.status, if fresh { 200 } else { 401 }, "{seconds} s, {} of {sent_at}", signed.path);
        }
    }
}

#[tokio::test]
async fn malformed_request_is_refused_before_any_call() {
    let app = TestApp::start().await;
    let data = r#""instance_id":"pcc-a","actor":"alice""#;
    let approve = |data: &str| format!(r#"{{"type":"peering.approve","data":{{{data}}}}}"#);
    let cases = [
        ("not JSON", "{".to_owned()),
        ("nothing", String::new()),
        ("trailing bytes", format!("{}x", approve(data))),
        ("an array", "[]".to_owned()),
        ("no type", format!(r#"{{"data":{{{data}}}}}"#)),
        ("another type", format!(r#"{{"type":"peering.explode","data":{{{data}}}}}"#)),
        ("a type that is a number", format!(r#"{{"type":1,"data":{{{data}}}}}"#)),
        ("no data", r#"{"type":"peering.approve"}"#.to_owned()),
        ("two types", format!(r#"{{"type":"peering.status","type":"peering.approve","data":{{{data}}}}}"#)),
        ("two ids", approve(r#""instance_id":"pcc-a","instance_id":"pcc-b","actor":"alice""#)),
        ("no actor", approve(r#""instance_id":"pcc-a""#)),
        ("an odd actor", approve(r#""instance_id":"pcc-a","actor":"a/b""#)),
        ("an empty actor", approve(r#""instance_id":"pcc-a","actor":"""#)),
        ("an odd id", approve(r#""instance_id":"pcc-a/../b","actor":"alice""#)),
        ("an id with a quote", approve(r#""instance_id":"pcc-a'","actor":"alice""#)),
        ("an id that is a number", approve(r#""instance_id":1,"actor":"alice""#)),
        ("an unknown field", approve(&format!(r#"{data},"dryrun":true"#))),
        ("a dry run that is text", approve(&format!(r#"{data},"dry_run":"true""#))),
        ("a short fingerprint", approve(&format!(r#"{data},"fingerprint":"abc""#))),
        ("a dry run of a rejection", format!(r#"{{"type":"peering.reject","data":{{{data},"dry_run":true}}}}"#)),
        ("too deep", format!("{}{}", "[".repeat(200), "]".repeat(200))),
    ];
    for (name, body) in cases {
        let reply = app.send(&app.sign_body(&body)).await;
        assert_eq!((reply.status, reply.name().as_str()), (400, "malformed"), "{name}: {}", reply.body);
        assert!(!reply.problem_detail().is_empty(), "{name}");
    }
    let keys = [support_key()];
    let (id, timestamp) = ("msg_1", clock::now().as_second().to_string());
    let body = [b"{\"type\":\"peering.status\",\"data\":{\"actor\":\"".as_slice(), &[0xFF], b"\"}}"].concat();
    let signature = peergate::chat::standard_webhooks::sign_body(&keys, id, &timestamp, &body);
    let request = http::Request::post("/webhook/ci").header("content-type", "application/json");
    let request = request.header("webhook-id", id).header("webhook-timestamp", timestamp);
    let request = request.header("webhook-signature", signature).body(Bytes::from(body)).unwrap();
    assert_eq!(app.call_webhook(request, clock::now()).await.name(), "malformed", "not UTF-8");
    assert_eq!(app.count_upstream_calls(), 0);
}

fn support_key() -> peergate::chat::standard_webhooks::WebhookKey {
    peergate::local::sandbox::CI_SECRET.to_owned().try_into().unwrap()
}

#[tokio::test]
async fn duplicate_or_malformed_slack_signature_is_refused() {
    let app = TestApp::start().await;
    let good = app.sign_slash_command("status pcc-a", ALICE).await;
    let (timestamp, signature) = (good.headers[1].1.clone(), good.headers[2].1.clone());
    let with = |position: usize, value: &str| {
        let mut signed = good.clone();
        signed.headers[position].1 = value.to_owned();
        signed
    };
    let twice = |position: usize| {
        let mut signed = good.clone();
        signed.headers.push(signed.headers[position].clone());
        signed
    };
    let signed_at = |timestamp: &str| app.sign_slack_body_at(&good.body, timestamp);
    let cases = [
        ("two signatures", twice(2)),
        ("two timestamps", twice(1)),
        ("joined signatures", with(2, &format!("{signature},{signature}"))),
        ("upper case", with(2, &signature.to_uppercase().replace("V0", "v0"))),
        ("no version", with(2, signature.trim_start_matches("v0="))),
        ("half", with(2, &signature.chars().take(35).collect::<String>())),
        ("nothing", with(2, "v0=")),
        ("a sign, well signed", signed_at(&format!("+{timestamp}"))),
        ("a space, well signed", signed_at(&format!(" {timestamp}"))),
        ("a digit of the body, well signed", signed_at(&format!("{timestamp}1"))),
        ("letters, well signed", signed_at("yesterday!")),
    ];
    for (name, signed) in cases {
        let reply = app.send(&signed).await;
        assert_eq!((reply.status, reply.name().as_str()), (401, "unauthentic"), "{name}");
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn method_path_size_and_content_type_are_checked_first() {
    let app = TestApp::start().await;
    let request = |method: &str, path: &str, content_type: &str, body: Vec<u8>| {
        let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
        request.body(Bytes::from(body)).unwrap()
    };
    let large = vec![b'a'; 256 * 1024 + 1];
    let edge = vec![b'a'; 256 * 1024];
    let json = "application/json";
    let cases = [
        ("GET", "/webhook/ci", json, vec![], 405, "method"),
        ("PUT", "/webhook/ci", json, vec![], 405, "method"),
        ("GET", "/slack", json, vec![], 405, "method"),
        ("POST", "/healthz", json, vec![], 405, "method"),
        ("POST", "/", json, vec![], 404, "unknown-path"),
        ("POST", "/webhook", json, vec![], 404, "unknown-path"),
        ("POST", "/webhook/ci/more", json, vec![], 404, "unknown-path"),
        ("POST", "/webhook/ci/", json, vec![], 401, "unauthentic"),
        ("POST", "//webhook//ci", json, vec![], 401, "unauthentic"),
        ("POST", "//", json, vec![], 404, "unknown-path"),
        ("POST", "/Slack", json, vec![], 404, "unknown-path"),
        ("POST", "/webhook/ci", json, large.clone(), 413, "too-large"),
        ("POST", "/slack", "application/x-www-form-urlencoded", large, 413, "too-large"),
        ("POST", "/webhook/ci", json, edge, 401, "unauthentic"),
        ("POST", "/webhook/ci", "text/plain", vec![], 415, "content-type"),
        ("POST", "/webhook/ci", "application/x-www-form-urlencoded", vec![], 415, "content-type"),
        ("POST", "/slack", "multipart/form-data", vec![], 415, "content-type"),
        ("POST", "/webhook/ci", "Application/JSON; charset=utf-8", vec![], 401, "unauthentic"),
    ];
    for (method, path, content_type, body, status, name) in cases {
        let reply = app.call_webhook(request(method, path, content_type, body), clock::now()).await;
        assert_eq!((reply.status, reply.name().as_str()), (status, name), "{method} {path} {content_type}");
        assert_eq!(reply.headers.contains_key("allow"), status == 405, "{method} {path}");
    }
    let healthy = app.call_webhook(request("GET", "/healthz", json, vec![]), clock::now()).await;
    assert_eq!((healthy.status, healthy.body.as_str()), (200, r#"{"status":"ok"}"#));
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn policy_denies_by_default() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.approve(&id, "mallory").await.assert(403, "not-an-approver");
    assert_eq!(app.reject(&id, "mallory").await.name(), "not-an-approver");
    assert_eq!(app.dry_run(&id, "mallory").await.name(), "not-an-approver");
    assert_eq!((app.count_calls(ACCEPT), app.count_calls(REJECT)), (0, 0));
    app.assert_state(&id, "none").await;
}

#[tokio::test]
async fn unknown_target_and_connection_get_different_replies() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let mut elsewhere = app.blind_spec("approve", &id, "alice");
    elsewhere.target = Some("dev".into());
    let reply = app.send_spec(&elsewhere).await;
    reply.assert(404, "unknown-target");
    assert_eq!(reply.body_json()["targets"], json!(["prod"]));
    assert_eq!(app.count_upstream_calls(), 0);
    let missing = "pcc-missing".to_owned().try_into().unwrap();
    app.approve(&missing, "alice").await.assert(404, "unknown-connection");
    app.assert_calls(ACCEPT, 0);
}

#[tokio::test]
async fn unacceptable_connection_is_refused_with_the_reason() {
    let app = TestApp::start().await;
    let status = |status: &str| Tampering { status: Some(status.into()), ..Tampering::default() };
    let cases = [
        (status("Activated"), 409, "not-acceptable", "is Activated"),
        (status("Updating"), 409, "not-acceptable", "is Updating"),
        (status("Rejected"), 409, "not-acceptable", "is Rejected"),
        (status("Expired"), 409, "not-acceptable", "is Expired"),
        (status("Deleted"), 404, "unknown-connection", "no such connection"),
        (
            Tampering { business_status: Some("FinancialLocked".into()), ..Tampering::default() },
            409,
            "not-acceptable",
            "FinancialLocked",
        ),
        (Tampering { managed_service: Some("SWAS".into()), ..Tampering::default() }, 409, "not-acceptable", "SWAS"),
    ];
    for (tampering, http_status, name, said) in cases {
        let id = app.new_request().await;
        app.tamper(&id, tampering.clone());
        let reply = app.approve(&id, "alice").await;
        assert_eq!((reply.status, reply.name().as_str()), (http_status, name), "{tampering:?}");
        assert!(reply.problem_detail().contains(said), "{tampering:?}: {}", reply.problem_detail());
        assert_eq!(app.state_of(&id).await, "none", "{tampering:?}");
    }
    app.assert_calls(ACCEPT, 0);
}

#[tokio::test]
async fn overlapping_ranges_are_refused() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let overlapping = Some(["10.0.0.0/8".parse().unwrap()].into());
    app.tamper(&id, Tampering { requester_cidrs: overlapping, ..Tampering::default() });
    let reply = app.approve(&id, "alice").await;
    reply.assert(409, "not-acceptable");
    assert!(reply.problem_detail().contains("CIDR blocks of both sides overlap"), "{}", reply.problem_detail());
    app.assert_calls(ACCEPT, 0);
}

#[tokio::test]
async fn foreign_connection_is_refused() {
    let app = TestApp::start().await;
    // A request of the accepting account to another account: we see it, but we do not accept it.
    let caller = peergate::alicloud::Credentials {
        access_key_id: "accepter-key",
        access_key_secret: "accepter-secret",
        security_token: None,
    };
    let call = [
        ("RegionId", "cn-hangzhou"),
        ("VpcId", "vpc-ours"),
        ("AcceptingAliUid", "1111111111111111"),
        ("AcceptingRegionId", "cn-shanghai"),
        ("AcceptingVpcId", "vpc-theirs"),
    ];
    let id = app.parts.alicloud["prod"].create_connection(caller, &call).await.unwrap();
    app.approve(&id, "alice").await.assert(403, "no-rule");
    app.assert_calls(ACCEPT, 0);
}

#[tokio::test]
async fn changed_fingerprint_is_refused() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let seen = app.status(&id, "alice").await.body_json()["connection"]["fingerprint"].clone();
    let body = json!({"type": "peering.approve", "data": {"instance_id": id, "actor": "alice", "fingerprint": seen}});
    app.set_bandwidth(&id, 4096);
    app.send(&app.sign_body(&body.to_string())).await.assert(409, "connection-changed");
    app.assert_calls(ACCEPT, 0);
    app.assert_state(&id, "pending").await;
    app.set_bandwidth(&id, 1024);
    assert_eq!(app.send(&app.sign_body(&body.to_string())).await.name(), "accepted");
}

#[tokio::test]
async fn each_accept_error_leaves_the_right_state() {
    let cases = [
        (400, "Throttling.User", 202, "approved"),
        (400, "Rejected.Throttling", 202, "approved"),
        (503, "ServiceUnavailable", 202, "approved"),
        (500, "InternalError", 202, "approved"),
        (400, "Conflict.Operation", 202, "approved"),
        (403, "LastTokenProcessing", 202, "approved"),
        (400, "SignatureNonceUsed", 202, "approved"),
        (400, "IncorrectStatus.VpcPeer", 202, "approved"),
        (404, "InvalidAccessKeyId.NotFound", 202, "approved"),
        (400, "SignatureDoesNotMatch", 202, "approved"),
        (403, "Forbidden.RAM", 202, "approved"),
        (400, "Forbidden.NoPermission", 202, "approved"),
        (400, "OperationFailed.CdtNotOpened", 409, "failed"),
        (400, "IncorrectBusinessStatus.VpcPeer", 409, "failed"),
        (400, "OperationFailed.LastTokenProcessing", 202, "approved"),
        (400, "IncorrectStatus.Vpc", 202, "approved"),
        (404, "InvalidApi.NotFound", 202, "approved"),
        (400, "SomethingNew", 202, "approved"),
    ];
    let app = TestApp::start().await;
    for (http_status, code, status, state) in cases {
        let id = app.new_request().await;
        app.simulator.add_fault(Fault {
            action: Some(ACCEPT.to_owned()),
            code: Some(code.into()),
            http_status,
            times: 2,
            ..Fault::default()
        });
        let reply = app.approve(&id, "alice").await;
        app.simulator.clear_faults();
        assert_eq!((reply.status, app.state_of(&id).await.as_str()), (status, state), "{code}");
        assert_eq!(app.count_accepts(&id), 0, "{code}");
        let problem = app.approval(&id).await.last_problem().cloned();
        assert_eq!(problem.map(|problem| problem.code).as_deref(), Some(code));
        assert!(reply.body.contains(code), "the code is in the answer: {}", reply.body);
    }
}

#[tokio::test]
async fn accept_already_done_is_followed_to_activation() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.new_request().await;
    // Somebody accepts in the console between our read and our call.
    app.simulator.add_fault(Fault { after_effect: true, ..failure(ACCEPT, "IncorrectStatus.VpcPeer") });
    let reply = app.approve(&id, "alice").await;
    // The status does not say who caused the update.
    assert_eq!((reply.status, app.state_of(&id).await.as_str()), (202, "approved"), "{}", reply.body);
    app.set_status(&id, "Activated");
    app.make_due(&id).await;
    app.round().await;
    app.assert_state(&id, "activated").await;
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn missing_secrets_fail_closed() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let signed = app.sign_event("approve", &id, "alice").await;
    let mut environment = app.environment.clone();
    environment.secrets = peergate::config::SecretsSource::File("/nonexistent".into());
    let config = peergate::config::Config::parse(&app.config).unwrap();
    let function = peergate::app::App::new(&environment, config).unwrap();
    let request =
        signed.headers.iter().fold(http::Request::post(&signed.path), |it, (name, value)| it.header(*name, value));
    let request = request.body(Bytes::from(signed.body)).unwrap();
    let response = peergate::webhook::handle_request(&function, request, clock::now()).await;
    assert_eq!(response.status(), 503);
    assert!(response.body().contains("secrets-unavailable"));
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn unreachable_store_accepts_nothing() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let signed = app.sign_event("approve", &id, "alice").await;
    let mut environment = app.environment.clone();
    environment.aws.dynamodb_endpoint = Some("http://127.0.0.1:9".into());
    let config = peergate::config::Config::parse(&app.config).unwrap();
    let function = peergate::app::App::new(&environment, config).unwrap();
    let request =
        signed.headers.iter().fold(http::Request::post(&signed.path), |it, (name, value)| it.header(*name, value));
    let request = request.body(Bytes::from(signed.body)).unwrap();
    let response = peergate::webhook::handle_request(&function, request, clock::now()).await;
    assert_eq!(response.status(), 503);
    assert!(response.body().contains("store-unavailable"));
    app.assert_calls(ACCEPT, 0);
}

#[tokio::test]
async fn rotated_signing_secret_is_fetched_by_itself() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let new = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let keys = [new.to_owned().try_into().unwrap()];
    let old = app.parts.secrets.current(clock::now()).await.unwrap();
    app.write_secrets(|secrets| secrets["clients"]["ci"]["signing_secrets"] = json!([new])).unwrap();
    let later = clock::now() + SignedDuration::from_secs(31);
    let body = json!({"type": "peering.status", "data": {"instance_id": id, "actor": "alice"}}).to_string();
    let timestamp = later.as_second().to_string();
    let signature = peergate::chat::standard_webhooks::sign_body(&keys, "msg_1", &timestamp, body.as_bytes());
    let mut signed = app.sign_body(&body);
    signed.headers[1].1 = "msg_1".into();
    signed.headers[2].1 = signature;
    signed.headers[3].1 = timestamp;
    assert_eq!(app.send_at(&signed, later).await.status, 200);
    assert_ne!(app.parts.secrets.current(later).await.unwrap(), old);
}

#[tokio::test]
async fn click_decides_and_is_answered_at_its_response_url() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let status = app.slash_command(&format!("status {id}"), ALICE).await;
    let button = status.body_json()["blocks"][1]["elements"][0].clone();
    assert_eq!(button["action_id"], "peergate.approve", "{}", status.body);
    let click = app.click_payload("peergate.approve", button["value"].as_str().unwrap(), ALICE);
    let reply = app.send_slack_payload(&click).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    app.assert_state(&id, "activating").await;
    let posts = app.slack.posts(RESPONSE_PATH);
    assert!(posts[0].visible_text().starts_with("You approved prod/pcc-"), "{}", posts[0].visible_text());
    assert_eq!(posts[0].body_json()["response_type"], "ephemeral");
    let late = app.click_payload("peergate.reject", button["value"].as_str().unwrap(), BOB);
    app.send_slack_payload(&late).await;
    let second_reply = app.slack.posts(RESPONSE_PATH)[1].visible_text();
    assert!(second_reply.contains("already approved by alice (slack:T0001/U061F7AUR)"), "{second_reply}");
    assert_eq!((app.count_accepts(&id), app.count_calls(REJECT)), (1, 0));
}

#[tokio::test]
async fn person_on_two_platforms_counts_once() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.approve(&id, "alice").await;
    let reply = app.slash_command(&format!("approve {id}"), ALICE).await;
    assert!(reply.body.contains("You already decided on"), "{}", reply.body);
}

#[tokio::test]
async fn slash_command_approves_with_a_reason() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    let text = format!("approve {id} on prod because the data team  needs it");
    let approved = app.slash_command(&text, ALICE).await;
    assert!(approved.body.contains("You approved"), "{}", approved.body);
    assert_eq!(approved.body_json()["response_type"], "ephemeral");
    let reason = app.approval(&id).await.winner().unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("the data team  needs it"));
}

#[tokio::test]
async fn slash_command_rejects() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    let rejected = app.slash_command(&format!("reject {id}"), ALICE).await;
    assert!(rejected.body.contains("You rejected"), "{}", rejected.body);
    app.assert_state(&id, "rejected").await;
}

type Form = (&'static str, Vec<(&'static str, &'static str)>, u16);
type Change = (&'static str, fn(&mut serde_json::Value));
type Click = (&'static str, fn(&mut serde_json::Value), u16);

#[tokio::test]
async fn foreign_or_malformed_click_reaches_no_api() {
    let app = TestApp::start().await;
    let nothing = peergate::peering::Fingerprint::of_nothing();
    let id = "pcc-a".to_owned().try_into().unwrap();
    let value = app.private_button_value(&id, Button::Approve { needs_reason: false }, &nothing, ALICE).await;
    let click = |change: fn(&mut serde_json::Value)| {
        let mut click = app.click_payload("peergate.approve", &value, ALICE);
        change(&mut click);
        click
    };
    let cases: [Click; 15] = [
        (
            "another team, and nowhere to say so",
            |it| {
                it["user"]["team_id"] = json!("T0002");
                it["response_url"] = json!("https://hooks.slack.com.example.com/actions/1");
            },
            403,
        ),
        ("another app", |it| it["api_app_id"] = json!("A9999"), 403),
        (
            "another app and team",
            |it| {
                it["api_app_id"] = json!("A9999");
                it["user"]["team_id"] = json!("T0002");
            },
            403,
        ),
        ("another interaction", |it| it["type"] = json!("shortcut"), 400),
        ("no action", |it| it["actions"] = json!([]), 400),
        ("another action", |it| it["actions"][0]["action_id"] = json!("explode"), 400),
        ("no value", |it| it["actions"][0]["value"] = json!(null), 400),
        ("another value", |it| it["actions"][0]["value"] = json!("prod/pcc-a"), 400),
        ("an odd id", |it| it["actions"][0]["value"] = json!("prod/pcc-A#00"), 400),
        (
            "an odd letter",
            |it| it["actions"][0]["value"] = json!(it["actions"][0]["value"].as_str().unwrap().replacen('a', "x", 1)),
            400,
        ),
        ("no response_url", |it| it["response_url"] = json!(null), 400),
        (
            "response_url elsewhere",
            |it| it["response_url"] = json!("https://hooks.slack.com.example.com/actions/1"),
            400,
        ),
        ("response_url of metadata", |it| it["response_url"] = json!("http://169.254.169.254/latest"), 400),
        ("response_url with a user", |it| it["response_url"] = json!("https://hooks.slack.com@example.com/"), 400),
        ("an odd user", |it| it["user"]["id"] = json!("U1/U2"), 400),
    ];
    for (name, change, status) in cases {
        let reply = app.send_slack_payload(&click(change)).await;
        assert_eq!(reply.status, status, "{name}: {}", reply.body);
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn foreign_or_malformed_slack_form_reaches_no_api() {
    let app = TestApp::start().await;
    let form = [("command", "/peergate"), ("text", "status pcc-a"), ("team_id", "T0001"), ("user_id", "U1")];
    let mut long = vec![("api_app_id", "A0123")];
    let names: Vec<&'static str> = (0..64).map(|number| &*format!("f{number}").leak()).collect();
    long.extend(names.into_iter().map(|name| (name, "")));
    let forms: [Form; 6] = [
        ("65 fields", long, 400),
        ("no app", form.to_vec(), 400),
        ("another app", [&form[..], &[("api_app_id", "A9")]].concat(), 403),
        ("two texts", [&form[..], &[("api_app_id", "A0123"), ("text", "approve pcc-a")]].concat(), 400),
        ("two payloads", vec![("payload", "{}"), ("payload", "{}")], 400),
        ("no JSON", vec![("payload", "{")], 400),
    ];
    for (name, fields, status) in forms {
        let reply = app.send(&app.sign_slack_form(&fields).await).await;
        assert_eq!(reply.status, status, "{name}: {}", reply.body);
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn invalid_utf8_in_a_slack_form_is_refused() {
    let app = TestApp::start().await;
    let secrets = app.parts.secrets.current(clock::now()).await.unwrap();
    let whole = "command=%2Fpeergate&team_id=T0001&user_id=U061F7AUR&api_app_id=A0123&text=approve+pcc-a+because+%FF";
    for body in ["payload=%FF", whole] {
        let signed =
            peergate::chat::slack::sign_form(secrets.platforms.slack.as_ref().unwrap(), body.into(), clock::now())
                .unwrap();
        assert_eq!(app.send(&signed).await.status, 400, "{body}");
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn changed_slack_body_is_refused() {
    let app = TestApp::start().await;
    let mut forged = app.sign_slash_command("approve pcc-a", ALICE).await;
    forged.body = forged.body.replace("pcc-a", "pcc-b");
    assert_eq!(app.send(&forged).await.status, 401);
    assert_eq!(app.count_upstream_calls(), 0);
}

const WRONG_WORKSPACE: &str = "peergate does not take commands from this Slack workspace";

/// A request on a card, the value of its button that approves, and how often the API was called so far.
async fn card_for_another_workspace() -> (TestApp, InstanceId, String, usize) {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    let value = app.only_card().find_button("Approve").unwrap().value.clone();
    let calls = app.count_upstream_calls();
    (app, id, value, calls)
}

async fn assert_undecided(app: &TestApp, id: &InstanceId, calls: usize) {
    assert_eq!((app.count_upstream_calls(), app.state_of(id).await.as_str()), (calls, "pending"));
    assert!(logged().contains("wrong-tenant"));
}

#[tokio::test]
async fn click_from_another_workspace_is_told_and_decides_nothing() {
    let (app, id, value, calls) = card_for_another_workspace().await;
    let mut click = app.click_payload("peergate.approve", &value, ALICE);
    click["user"]["team_id"] = json!("T0002");
    let reply = app.send_slack_payload(&click).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    let replies = app.slack.posts(RESPONSE_PATH);
    assert_eq!(replies.len(), 1);
    assert!(replies[0].visible_text().starts_with(WRONG_WORKSPACE), "{}", replies[0].visible_text());
    assert_undecided(&app, &id, calls).await;
}

#[tokio::test]
async fn command_from_another_workspace_is_told_and_decides_nothing() {
    let (app, id, _, calls) = card_for_another_workspace().await;
    let form = [("command", "/peergate"), ("team_id", "T0002"), ("user_id", ALICE), ("api_app_id", "A0123")];
    let approve = format!("approve {id}");
    let reply = app.send(&app.sign_slack_form(&[&form[..], &[("text", &approve)]].concat()).await).await;
    assert_eq!((reply.status, reply.body_json()["response_type"].as_str()), (200, Some("ephemeral")));
    assert!(peergate::fake::slack::visible_text(&reply.body_json()).starts_with(WRONG_WORKSPACE), "{}", reply.body);
    assert_undecided(&app, &id, calls).await;
}

#[tokio::test]
async fn modal_from_another_workspace_is_told_and_decides_nothing() {
    let (app, id, value, calls) = card_for_another_workspace().await;
    let modal = json!({
        "type": "view_submission", "team": {"id": "T0002"}, "user": {"id": ALICE}, "api_app_id": "A0123",
        "view": {"callback_id": "peergate.reject", "private_metadata": value, "state": {"values": {}}},
    });
    let reply = app.send_slack_payload(&modal).await;
    assert_eq!((reply.status, reply.body_json()["response_action"].as_str()), (200, Some("update")));
    assert!(reply.body.contains(WRONG_WORKSPACE), "{}", reply.body);
    assert_undecided(&app, &id, calls).await;
}

#[tokio::test]
async fn organization_user_counts_once_in_every_workspace() {
    let app = TestApp::start().await;
    let app = app.with_change(
        r#"teams = ["T0001"]"#,
        r#"teams = ["T0001", "T0002"]
enterprise = "E0001""#,
    );
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    let value = app.card_in("C0PEER").find_button("Approve").unwrap().value.clone();
    let organization = |it: &mut serde_json::Value| {
        it["team"] = json!(null);
        it["enterprise"] = json!({"id": "E0001"});
    };
    let changes: [Change; 4] = [
        ("T0001", |_| ()),
        ("T0002", |it| it["user"]["team_id"] = json!("T0002")),
        ("E0001", |it| it["user"]["team_id"] = json!("E0001")),
        ("none", |it| it["user"] = json!({"id": ALICE})),
    ];
    for (team, change) in changes {
        let mut click = app.click_payload("peergate.approve", &value, ALICE);
        if team != "T0001" {
            organization(&mut click);
        }
        change(&mut click);
        assert_eq!(app.send_slack_payload(&click).await.status, 200, "{team}");
        let stored = app.approval(&id).await;
        assert_eq!(stored.approval_count(), 1, "{team}");
        assert_eq!(stored.decisions()[0].by.principal.as_str(), "slack:E0001/U061F7AUR");
        assert_eq!(stored.decisions()[0].by.person.as_deref(), Some("alice"));
    }
    let form = [("command", "/peergate"), ("user_id", ALICE), ("api_app_id", "A0123"), ("enterprise_id", "E0001")];
    let approve = format!("approve {id}");
    for team in ["T0001", "T0002", "E0001", ""] {
        let fields = [&form[..], &[("team_id", team), ("text", approve.as_str())]].concat();
        let reply = app.send(&app.sign_slack_form(&fields).await).await;
        assert!(
            peergate::fake::slack::visible_text(&reply.body_json()).contains("You already decided on"),
            "{team}: {}",
            reply.body
        );
    }
    let mut elsewhere = app.click_payload("peergate.approve", &value, BOB);
    elsewhere["user"]["team_id"] = json!("E0002");
    elsewhere["enterprise"] = json!({"id": "E0001"});
    app.send_slack_payload(&elsewhere).await;
    assert_eq!((app.approval(&id).await.approval_count(), app.count_accepts(&id)), (1, 0));
    let withdraw = format!("withdraw {id}");
    let fields = [&form[..], &[("team_id", "T0002"), ("text", withdraw.as_str())]].concat();
    app.send(&app.sign_slack_form(&fields).await).await;
    assert_eq!(app.approval(&id).await.approval_count(), 0);
}

#[tokio::test]
async fn approval_before_the_organization_was_named_counts_once() {
    let app = TestApp::start().await;
    let named = app
        .config
        .replace(r#"approvers = ["group:security"]"#, r#"approvers = ["group:security", "slack:T0001/U0EVE"]"#);
    let app = app.with_config(&named);
    let id = app.new_request_for("vpc-two-people").await;
    app.discover().await;
    app.slash_command(&format!("approve {id}"), "U0EVE").await;
    assert_eq!(app.approval(&id).await.decisions()[0].by.principal.as_str(), "slack:T0001/U0EVE");
    let grid = named.replace(r#"app = "A0123""#, "app = \"A0123\"\nenterprise = \"E0001\"");
    let app = app.with_config(&grid);
    app.slash_command(&format!("approve {id}"), "U0EVE").await;
    assert_eq!((app.approval(&id).await.approval_count(), app.count_accepts(&id)), (1, 0));
    app.discover().await;
    let verified = async || {
        let items = app.parts.store.scan_records(None).await.unwrap().items;
        for item in &items {
            peergate::approval::History::verify(&item.id, &item.record).unwrap();
        }
    };
    verified().await;
    app.slash_command(&format!("withdraw {id}"), "U0EVE").await;
    assert_eq!(app.approval(&id).await.approval_count(), 0);
    verified().await;
}

#[tokio::test]
async fn contact_outside_the_rule_may_reject_their_accounts_request() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    // Erin is a contact, and no approver of this rule.
    app.approve(&id, "erin").await.assert(403, "not-an-approver");
    app.reject(&id, "carol").await.assert(403, "not-an-approver");
    assert_eq!(app.count_calls(REJECT) + app.count_calls(ACCEPT), 0);
    app.reject(&id, "erin").await.assert(200, "rejected");
    app.assert_state(&id, "rejected").await;
}

/// The app with another file of secrets.
fn with_secrets_at(app: &TestApp, path: &std::path::Path) -> peergate::app::App {
    let mut environment = app.environment.clone();
    environment.secrets = peergate::config::SecretsSource::File(path.into());
    peergate::app::App::new(&environment, peergate::config::Config::parse(&app.config).unwrap()).unwrap()
}

async fn status(app: &peergate::app::App, signed: &SignedRequest, now: jiff::Timestamp) -> u16 {
    let request = http::Request::post(&signed.path);
    let request = signed.headers.iter().fold(request, |it, (name, value)| it.header(*name, value));
    let response =
        peergate::webhook::handle_request(app, request.body(Bytes::from(signed.body.clone())).unwrap(), now).await;
    response.status().as_u16()
}

#[tokio::test]
async fn failing_secrets_store_is_asked_ever_less_often() {
    let app = TestApp::start().await;
    let signed = app.sign_event("status", &app.new_request().await, "alice").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.json");
    let peergate::config::SecretsSource::File(good) = &app.environment.secrets else { panic!("a file") };
    let (app, now) = (with_secrets_at(&app, &path), clock::now());
    let after = |millis: i64| now + SignedDuration::from_millis(millis);
    // The first pause is 1 s long, the next 2 s.
    for millis in [0, 900] {
        assert_eq!(status(&app, &signed, after(millis)).await, 503);
    }
    assert_eq!(status(&app, &signed, after(1500)).await, 503);
    std::fs::copy(good, &path).unwrap();
    assert_eq!(status(&app, &signed, after(2600)).await, 503, "it is not asked");
    let mut other = signed.clone();
    other.path = "/webhook/nobody".into();
    assert_eq!(status(&app, &other, after(2600)).await, 503, "nor for clients that do not exist");
    assert_eq!(status(&app, &signed, after(3800)).await, 200);
}

#[tokio::test]
async fn malformed_and_stale_requests_are_refused_without_secrets() {
    let app = TestApp::start().await;
    let signed = app.sign_event("status", &app.new_request().await, "alice").await;
    let slack = app.sign_slash_command("list", BOB).await;
    let function = with_secrets_at(&app, std::path::Path::new("/nonexistent"));
    let now = clock::now();
    let stale = now + SignedDuration::from_secs(301);
    let mut malformed = signed.clone();
    malformed.headers.retain(|header| header.0 != "webhook-signature");
    let mut odd = slack.clone();
    odd.headers
        .iter_mut()
        .filter(|header| header.0 == "x-slack-signature")
        .for_each(|header| header.1 = "v0=00".into());
    for (signed, at) in [(&signed, stale), (&malformed, now), (&slack, stale), (&odd, now)] {
        assert_eq!(status(&function, signed, at).await, 401);
        let mut unknown = signed.clone();
        unknown.path = unknown.path.replace("/ci", "/nobody");
        assert_eq!(status(&function, &unknown, at).await, 401);
    }
    assert_eq!((status(&function, &signed, now).await, status(&function, &slack, now).await), (503, 503));
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn unknown_client_is_answered_like_a_known_one() {
    let app = TestApp::start().await;
    let bad = app.sign_body("{}");
    for path in ["/webhook/ci", "/webhook/nobody"] {
        let mut signed = bad.clone();
        path.clone_into(&mut signed.path);
        signed.body = "{ }".into();
        // New secrets are stored: the request causes a fetch, and is still refused.
        let old = app.parts.secrets.current(clock::now()).await.unwrap();
        app.write_secrets(|secrets| {
            secrets["platforms"]["slack"]["bot_token"] = json!(format!("xoxb-{}", path.len()));
        })
        .unwrap();
        let later = clock::now() + SignedDuration::from_secs(if path == "/webhook/ci" { 31 } else { 62 });
        let timestamp = later.as_second().to_string();
        signed
            .headers
            .iter_mut()
            .filter(|header| header.0 == "webhook-timestamp")
            .for_each(|header| header.1 = timestamp.clone());
        app.send_at(&signed, later).await.assert(401, "unauthentic");
        assert_ne!(app.parts.secrets.current(later).await.unwrap(), old, "{path}");
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn slacks_url_verification_is_echoed() {
    let app = TestApp::start().await;
    let secrets = app.parts.secrets.current(clock::now()).await.unwrap();
    let send = async |body: &str| {
        let mut signed =
            peergate::chat::slack::sign_form(secrets.platforms.slack.as_ref().unwrap(), body.into(), clock::now())
                .unwrap();
        signed.headers[0].1 = "application/json".into();
        app.send(&signed).await
    };
    let echo = send(r#"{"type":"url_verification","challenge":"3eZb","token":"t"}"#).await;
    assert_eq!((echo.status, echo.body.as_str()), (200, r#"{"challenge":"3eZb"}"#));
    assert_eq!(send(r#"{"type":"event_callback","event":{}}"#).await.status, 400);
}

/// Slack gives up after 3 s, our budget is 1.9 s, and the HTTP client alone would wait for 10 s. A busy machine may be slow.
const IN_TIME: Duration = Duration::from_secs(8);

fn slow(action: &str) -> Fault {
    Fault { action: Some(action.into()), delay_ms: 60_000, ..Fault::default() }
}

#[tokio::test]
async fn slow_accept_is_stored_and_slack_answered_in_time() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    app.simulator.add_fault(slow(ACCEPT));
    let started = Instant::now();
    let reply = app.slash_command(&format!("approve {id}"), ALICE).await;
    assert!(reply.body.contains("Your decision is stored"), "{}", reply.body);
    assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    app.assert_state(&id, "approved").await;
}

#[tokio::test]
async fn slow_reading_decides_nothing_and_slack_is_answered_in_time() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    // A silent reading is repeated once.
    app.simulator.add_fault(Fault { times: 2, ..slow(GET) });
    let started = Instant::now();
    let reply = app.slash_command(&format!("approve {id}"), ALICE).await;
    assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    assert!(reply.body.contains("Alibaba Cloud does not answer, so nothing was decided"), "{}", reply.body);
    app.assert_state(&id, "pending").await;
}

#[tokio::test]
async fn approval_of_a_connection_rejected_elsewhere_fails() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    // Somebody rejects in the console between our read and our call.
    app.simulator.add_fault(Fault { delay_ms: 2000, ..failure(ACCEPT, "IncorrectStatus.VpcPeer") });
    let approval = app.sign_event("approve", &id, "alice").await;
    let (reply, ()) = tokio::join!(app.send(&approval), async {
        while app.simulator.pending_faults() > 0 {
            tokio::task::yield_now().await;
        }
        app.set_status(&id, "Rejected");
    });
    reply.assert(409, "rejected-elsewhere");
    assert!(reply.problem_detail().contains("was rejected outside peergate"), "{}", reply.problem_detail());
}

#[tokio::test]
async fn loser_is_told_who_won_after_any_change() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.approve(&id, "alice").await;
    let approve_as = async |actor: &str| app.approve(&id, actor).await;
    app.set_bandwidth(&id, 1);
    assert!(approve_as("bob").await.problem_detail().contains("by alice"));
    app.fail_next(GET, "InternalError");
    assert!(approve_as("bob").await.problem_detail().contains("by alice"));
    app.simulator.clear_faults();
    app.set_status(&id, "Deleted");
    assert!(approve_as("bob").await.problem_detail().contains("by alice"));
    let status = app.status(&id, "bob").await;
    assert_eq!((status.status, &status.body_json()["connection"]["status"]), (200, &json!("Deleted")));
}

#[tokio::test]
async fn repeated_dry_run_calls_the_api_again() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    for _ in 0..2 {
        assert_eq!(app.dry_run(&id, "alice").await.name(), "dry-run-passed");
    }
    let journal = app.simulator.journal();
    let dry_runs = journal.iter().filter(|entry| entry.parameters.contains_key("DryRun"));
    let tokens: std::collections::BTreeSet<_> = dry_runs.map(|entry| &entry.parameters["ClientToken"]).collect();
    assert_eq!(tokens.len(), 2);
}

#[tokio::test]
async fn only_the_first_16_signatures_are_checked() {
    let app = TestApp::start().await;
    let mut signed = app.sign_body(&"a".repeat(256 * 1024));
    let genuine = signed.headers[2].1.clone();
    signed.headers[2].1 = format!("{}{genuine}", "v1,AAAA ".repeat(16));
    assert_eq!(app.send(&signed).await.status, 401, "only the first 16 signatures are looked at");
    signed.headers[2].1 = format!("{}{genuine}", "v1,AAAA ".repeat(15));
    assert_eq!(app.send(&signed).await.status, 400, "authentic, but not JSON");
}

#[tokio::test]
async fn each_reading_error_is_answered_and_nothing_is_accepted() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let cases = [
        (400, "Throttling.User", 503, "alicloud-unavailable"),
        (500, "InternalError", 503, "alicloud-unavailable"),
        (403, "Forbidden.RAM", 502, "credentials-refused"),
        (404, "InvalidAccessKeyId.NotFound", 502, "credentials-refused"),
        (400, "IllegalParam.InstanceId", 409, "vendor-refused"),
        (400, "ResourceNotFound.InstanceId", 404, "unknown-connection"),
    ];
    for (http_status, code, status, name) in cases {
        app.simulator.add_fault(Fault {
            action: Some(GET.to_owned()),
            code: Some(code.into()),
            http_status,
            times: 9,
            ..Fault::default()
        });
        let reply = app.approve(&id, "alice").await;
        app.simulator.clear_faults();
        assert_eq!((reply.status, reply.name().as_str()), (status, name), "{code}");
    }
    let raw = Some("<html>".to_owned());
    app.simulator.add_fault(Fault { raw, http_status: 502, ..Fault::default() });
    assert_eq!(app.approve(&id, "alice").await.name(), "alicloud-unavailable");
    app.assert_calls(ACCEPT, 0);
    app.assert_state(&id, "none").await;
}

#[tokio::test]
async fn wrong_access_key_recovers_once_replaced() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.write_secrets(|secrets| secrets["targets"]["prod"]["access_key_secret"] = json!("outdated")).unwrap();
    let refused = app.approve(&id, "alice").await;
    assert_eq!(refused.name(), "credentials-refused", "{}", refused.body);
    app.write_secrets(|_| ()).unwrap();
    let approval = app.sign_event("approve", &id, "alice").await;
    let soon = clock::now() + SignedDuration::from_secs(10);
    assert_eq!(app.send_at(&approval, soon).await.name(), "credentials-refused", "not fetched again so soon");
    let later = clock::now() + SignedDuration::from_secs(40);
    assert_eq!(app.send_at(&approval, later).await.name(), "accepted");
    app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn unknown_ranges_are_reported_as_unknown() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.tamper(&id, Tampering { requester_cidrs: Some([].into()), ..Tampering::default() });
    let reply = app.dry_run(&id, "alice").await;
    assert_eq!(reply.name(), "dry-run-passed");
    assert!(reply.problem_detail().contains("unknown whether CIDR blocks overlap"), "{}", reply.problem_detail());
    assert_eq!(app.approve(&id, "alice").await.name(), "accepted");
}

#[tokio::test]
async fn slow_accept_is_answered_and_left_to_the_watcher() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.simulator.add_fault(Fault { action: Some(ACCEPT.into()), delay_ms: 60_000, ..Fault::default() });
    app.approve(&id, "alice").await.assert(202, "underway");
    let left_to_the_watcher = |line: &str| line.contains("out_of_time") && line.contains(id.as_str());
    assert!(logged().lines().any(left_to_the_watcher), "by our own deadline, not by the client's time-out");
}

//! Story one from outside: an event in; the response, the store and the upstream calls out.

use std::time::Duration;

use crate::support::{Gate, RESPONSE, logged, wish};
use bytes::Bytes;
use jiff::SignedDuration;
use peergate::chat::Signed;
use peergate::chat::message::Button;
use peergate::clock;
use peergate::local::simulator::Tampering;
use peergate::local::simulator::gateway::Fault;
use serde_json::json;
use tokio::time::Instant;

#[tokio::test]
async fn a_signed_approval_is_accepted_once_with_the_stored_token() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (200, "accepted"));
    assert_eq!(gate.state(&id).await, "activating");
    assert_eq!(gate.accepts(&id), 1);
    let stored = gate.stored(&id).await.unwrap();
    let token = stored.approval.client_token.unwrap().as_str().to_owned();
    assert!(token.starts_with("pg1-") && token.len() == 64 && token.is_ascii());
    let journal = gate.simulator.journal();
    let accept = journal.iter().rfind(|entry| entry.action == "AcceptVpcPeerConnection").unwrap();
    assert_eq!(accept.parameters["ClientToken"], token);
    assert_eq!(reply.json()["approval"]["decision"]["by"], "webhook:ci/alice");
}

#[tokio::test]
async fn a_rejection_is_carried_out() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let mut wish = gate.wish("reject", &id, "bob");
    wish.reason = Some("not ours to share".into());
    let reply = gate.send(&gate.signed_wish(&wish).await).await;
    assert_eq!((reply.status, reply.name().as_str()), (200, "rejected"));
    assert_eq!(gate.state(&id).await, "rejected");
    assert_eq!(gate.simulator.effects("RejectVpcPeerConnection", id.as_str()), 1);
    assert_eq!(gate.stored(&id).await.unwrap().approval.winner().unwrap().reason.as_deref(), Some("not ours to share"));
    let late = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((late.status, late.name().as_str()), (409, "already-decided"));
    assert!(late.detail().contains("already rejected by bob"), "{}", late.detail());
    assert_eq!(gate.accepts(&id), 0);
}

#[tokio::test]
async fn a_dry_run_passes_and_changes_nothing() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let reply = gate.send(&gate.signed("dry-run", &id, "alice").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (200, "dry-run-passed"));
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("none", 0));
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!(reply.name(), "accepted", "a dry run has a token of its own");
}

#[tokio::test]
async fn a_dry_run_that_fails_says_the_vendors_code() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let code = Some("OperationFailed.CdtNotOpened".to_owned());
    let action = Some("AcceptVpcPeerConnection".into());
    gate.simulator.fault(Fault { action, code, dry_run: true, ..Fault::default() });
    let reply = gate.send(&gate.signed("dry-run", &id, "alice").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (409, "vendor-refused"));
    assert_eq!(reply.json()["problem"]["code"], "OperationFailed.CdtNotOpened");
    assert!(reply.detail().contains("Open Cloud Data Transfer"), "{}", reply.detail());
}

#[tokio::test]
async fn status_tells_the_connection_and_the_record() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let before = gate.send(&gate.signed("status", &id, "anybody").await).await.json();
    assert_eq!((&before["connection"]["status"], &before["approval"]), (&json!("Accepting"), &json!(null)));
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    let after = gate.send(&gate.signed("status", &id, "anybody").await).await.json();
    assert_eq!(after["approval"]["state"], "activating");
    assert_eq!(after["connection"]["requester"]["account"], "1111111111111111");
}

#[tokio::test]
async fn a_replayed_approval_changes_nothing() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let signed = gate.signed("approve", &id, "alice").await;
    gate.send(&signed).await;
    let version = gate.stored(&id).await.unwrap().version;
    let replay = gate.send(&signed).await;
    assert_eq!((replay.status, replay.name().as_str()), (200, "repeated"));
    assert_eq!(gate.stored(&id).await.unwrap().version, version);
    assert_eq!(gate.calls("AcceptVpcPeerConnection"), 1);
}

#[tokio::test]
async fn a_replay_after_a_failure_starts_no_new_generation_but_a_new_approval_does() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let code = Some("OperationFailed.CdtNotOpened".to_owned());
    gate.simulator.fault(Fault { action: Some("AcceptVpcPeerConnection".into()), code, ..Fault::default() });
    let signed = gate.signed("approve", &id, "alice").await;
    let failed = gate.send(&signed).await;
    assert_eq!((failed.status, failed.name().as_str()), (409, "failed"));
    assert_eq!(failed.json()["approval"]["problem"]["code"], "OperationFailed.CdtNotOpened");
    let replay = gate.send(&signed).await;
    assert_eq!((replay.status, replay.name().as_str()), (409, "failed"), "it must not look like success");
    assert_eq!((gate.state(&id).await.as_str(), gate.calls("AcceptVpcPeerConnection")), ("failed", 1));
    let first = gate.stored(&id).await.unwrap().approval.client_token;
    let again = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!(again.name(), "accepted");
    let second = gate.stored(&id).await.unwrap().approval;
    assert_eq!(second.generation, 2);
    assert_ne!(second.client_token, first);
}

#[tokio::test]
async fn what_is_not_authentic_reaches_neither_store_nor_api() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let good = gate.signed("approve", &id, "alice").await;
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
    let signed_as = |id: &str, timestamp: &str| gate.signed_as(&good.body, id, timestamp);
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
        let reply = gate.send_at(&signed, now).await;
        assert_eq!((reply.status, reply.name().as_str()), (401, "unauthentic"), "{name}");
        assert_eq!(reply.detail(), "the request is not authentic", "{name}");
        assert_eq!(reply.content_type, "application/problem+json", "{name}");
    }
    assert_eq!((gate.upstream_calls(), gate.state(&id).await.as_str()), (0, "none"));
}

#[tokio::test]
async fn three_hundred_seconds_are_the_edge_on_both_sides() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let status = gate.signed("status", &id, "alice").await;
    let slash = gate.slash(&format!("status {id}"), "U061F7AUR").await;
    let sent_at = clock::now();
    for (seconds, fresh) in [(-301, false), (-300, true), (300, true), (301, false)] {
        for signed in [&status, &slash] {
            let timestamp = signed.headers.iter().find(|(name, _)| name.ends_with("timestamp")).unwrap();
            let base: i64 = timestamp.1.parse().unwrap();
            let now = jiff::Timestamp::from_second(base + seconds).unwrap();
            let reply = gate.send_at(signed, now).await;
            assert_eq!(reply.status, if fresh { 200 } else { 401 }, "{seconds} s, {} of {sent_at}", signed.path);
        }
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_before_anything_is_asked() {
    let gate = Gate::start().await;
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
        let reply = gate.send(&gate.signed_body(&body)).await;
        assert_eq!((reply.status, reply.name().as_str()), (400, "malformed"), "{name}: {}", reply.body);
        assert!(!reply.detail().is_empty(), "{name}");
    }
    let keys = [support_key()];
    let (id, timestamp) = ("msg_1", clock::now().as_second().to_string());
    let body = [b"{\"type\":\"peering.status\",\"data\":{\"actor\":\"".as_slice(), &[0xFF], b"\"}}"].concat();
    let signature = peergate::chat::standard_webhooks::sign_body(&keys, id, &timestamp, &body);
    let request = http::Request::post("/webhook/ci").header("content-type", "application/json");
    let request = request.header("webhook-id", id).header("webhook-timestamp", timestamp);
    let request = request.header("webhook-signature", signature).body(Bytes::from(body)).unwrap();
    assert_eq!(gate.call(request, clock::now()).await.name(), "malformed", "not UTF-8");
    assert_eq!(gate.upstream_calls(), 0);
}

fn support_key() -> peergate::chat::standard_webhooks::WebhookKey {
    peergate::local::sandbox::CI_SECRET.to_owned().try_into().unwrap()
}

#[tokio::test]
async fn slack_signatures_that_are_wrong_twice_or_malformed_are_refused() {
    let gate = Gate::start().await;
    let good = gate.slash("status pcc-a", "U061F7AUR").await;
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
    let signed_at = |timestamp: &str| gate.slack_signed_at(&good.body, timestamp);
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
        let reply = gate.send(&signed).await;
        assert_eq!((reply.status, reply.name().as_str()), (401, "unauthentic"), "{name}");
    }
    assert_eq!(gate.upstream_calls(), 0);
}

#[tokio::test]
async fn method_path_size_and_content_type_come_first() {
    let gate = Gate::start().await;
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
        ("POST", "/webhook/ci/", json, vec![], 404, "unknown-path"),
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
        let reply = gate.call(request(method, path, content_type, body), clock::now()).await;
        assert_eq!((reply.status, reply.name().as_str()), (status, name), "{method} {path} {content_type}");
        assert_eq!(reply.headers.contains_key("allow"), status == 405, "{method} {path}");
    }
    let healthy = gate.call(request("GET", "/healthz", json, vec![]), clock::now()).await;
    assert_eq!((healthy.status, healthy.body.as_str()), (200, r#"{"status":"ok"}"#));
    assert_eq!(gate.upstream_calls(), 0);
}

#[tokio::test]
async fn the_policy_denies_by_default() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let stranger = gate.send(&gate.signed("approve", &id, "mallory").await).await;
    assert_eq!((stranger.status, stranger.name().as_str()), (403, "not-an-approver"));
    let stranger = gate.send(&gate.signed("reject", &id, "mallory").await).await;
    assert_eq!(stranger.name(), "not-an-approver");
    let stranger = gate.send(&gate.signed("dry-run", &id, "mallory").await).await;
    assert_eq!(stranger.name(), "not-an-approver");
    assert_eq!((gate.calls("AcceptVpcPeerConnection"), gate.calls("RejectVpcPeerConnection")), (0, 0));
    assert_eq!(gate.state(&id).await, "none");
}

#[tokio::test]
async fn unknown_targets_and_connections_are_told_apart() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let mut elsewhere = wish("approve", &id, "alice");
    elsewhere.target = Some("dev".into());
    let reply = gate.send(&gate.signed_wish(&elsewhere).await).await;
    assert_eq!((reply.status, reply.name().as_str()), (404, "unknown-target"));
    assert_eq!(reply.json()["targets"], json!(["prod"]));
    assert_eq!(gate.upstream_calls(), 0);
    let missing = "pcc-missing".to_owned().try_into().unwrap();
    let reply = gate.send(&gate.signed("approve", &missing, "alice").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (404, "unknown-connection"));
    assert_eq!(gate.calls("AcceptVpcPeerConnection"), 0);
}

#[tokio::test]
async fn connections_that_cannot_be_accepted_are_refused_with_the_reason() {
    let gate = Gate::start().await;
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
        let id = gate.requested().await;
        gate.tamper(&id, tampering.clone());
        let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
        assert_eq!((reply.status, reply.name().as_str()), (http_status, name), "{tampering:?}");
        assert!(reply.detail().contains(said), "{tampering:?}: {}", reply.detail());
        assert_eq!(gate.state(&id).await, "none", "{tampering:?}");
    }
    assert_eq!(gate.calls("AcceptVpcPeerConnection"), 0);
}

#[tokio::test]
async fn overlapping_ranges_are_refused() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let overlapping = Some(["10.0.0.0/8".parse().unwrap()].into());
    gate.tamper(&id, Tampering { requester_cidrs: overlapping, ..Tampering::default() });
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (409, "not-acceptable"));
    assert!(reply.detail().contains("same addresses"), "{}", reply.detail());
    assert_eq!(gate.calls("AcceptVpcPeerConnection"), 0);
}

#[tokio::test]
async fn a_connection_that_is_not_ours_is_refused() {
    let gate = Gate::start().await;
    // The accepting account's own request to somebody else: we see it, but we don't accept it.
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
    let id = gate.app.alicloud["prod"].create(caller, &call).await.unwrap();
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (403, "no-rule"));
    assert_eq!(gate.calls("AcceptVpcPeerConnection"), 0);
}

#[tokio::test]
async fn a_fingerprint_that_changed_is_refused() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let seen = gate.send(&gate.signed("status", &id, "alice").await).await.json()["connection"]["fingerprint"].clone();
    let body = json!({"type": "peering.approve", "data": {"instance_id": id, "actor": "alice", "fingerprint": seen}});
    gate.tamper(&id, Tampering { bandwidth: Some(4096), ..Tampering::default() });
    let reply = gate.send(&gate.signed_body(&body.to_string())).await;
    assert_eq!((reply.status, reply.name().as_str()), (409, "connection-changed"));
    assert_eq!((gate.calls("AcceptVpcPeerConnection"), gate.state(&id).await.as_str()), (0, "pending"));
    gate.tamper(&id, Tampering { bandwidth: Some(1024), ..Tampering::default() });
    assert_eq!(gate.send(&gate.signed_body(&body.to_string())).await.name(), "accepted");
}

#[tokio::test]
async fn every_class_of_error_of_the_accept_leaves_the_right_state() {
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
    let gate = Gate::start().await;
    for (http_status, code, status, state) in cases {
        let id = gate.requested().await;
        let action = Some("AcceptVpcPeerConnection".to_owned());
        gate.simulator.fault(Fault { action, code: Some(code.into()), http_status, times: 2, ..Fault::default() });
        let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
        gate.simulator.heal();
        assert_eq!((reply.status, gate.state(&id).await.as_str()), (status, state), "{code}");
        assert_eq!(gate.accepts(&id), 0, "{code}");
        let problem = gate.stored(&id).await.unwrap().approval.last_problem;
        assert_eq!(problem.map(|problem| problem.code).as_deref(), Some(code));
        assert!(reply.body.contains(code), "the code is in the answer: {}", reply.body);
    }
}

#[tokio::test]
async fn an_accept_that_was_done_already_goes_on() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    // Somebody accepts in the console between our read and our call.
    let code = Some("IncorrectStatus.VpcPeer".to_owned());
    let action = Some("AcceptVpcPeerConnection".to_owned());
    gate.simulator.fault(Fault { action, code, after_effect: true, ..Fault::default() });
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    // That it is being updated does not say why.
    assert_eq!((reply.status, gate.state(&id).await.as_str()), (202, "approved"), "{}", reply.body);
    gate.tamper(&id, Tampering { status: Some("Activated".into()), ..Tampering::default() });
    gate.make_due(&id).await;
    gate.round().await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("activated", 1));
}

#[tokio::test]
async fn without_secrets_everything_fails_closed() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let signed = gate.signed("approve", &id, "alice").await;
    let mut environment = gate.environment.clone();
    environment.secrets = peergate::config::SecretsSource::File("/nonexistent".into());
    let config = peergate::config::Config::parse(&gate.config).unwrap();
    let app = peergate::app::App::new(&environment, config).unwrap();
    let request =
        signed.headers.iter().fold(http::Request::post(&signed.path), |it, (name, value)| it.header(*name, value));
    let request = request.body(Bytes::from(signed.body)).unwrap();
    let response = peergate::webhook::handle(&app, request, clock::now()).await;
    assert_eq!(response.status(), 503);
    assert!(response.body().contains("secrets-unavailable"));
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(gate.upstream_calls(), 0);
}

#[tokio::test]
async fn without_the_store_nothing_is_accepted() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let signed = gate.signed("approve", &id, "alice").await;
    let mut environment = gate.environment.clone();
    environment.aws.dynamodb_endpoint = Some("http://127.0.0.1:9".into());
    let config = peergate::config::Config::parse(&gate.config).unwrap();
    let app = peergate::app::App::new(&environment, config).unwrap();
    let request =
        signed.headers.iter().fold(http::Request::post(&signed.path), |it, (name, value)| it.header(*name, value));
    let request = request.body(Bytes::from(signed.body)).unwrap();
    let response = peergate::webhook::handle(&app, request, clock::now()).await;
    assert_eq!(response.status(), 503);
    assert!(response.body().contains("store-unavailable"));
    assert_eq!(gate.calls("AcceptVpcPeerConnection"), 0);
}

#[tokio::test]
async fn a_rotated_signing_secret_heals_by_itself() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let new = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let keys = [new.to_owned().try_into().unwrap()];
    let old = gate.app.secrets.current(clock::now()).await.unwrap();
    gate.write_secrets(|secrets| secrets["clients"]["ci"]["signing_secrets"] = json!([new])).unwrap();
    let later = clock::now() + SignedDuration::from_secs(31);
    let body = json!({"type": "peering.status", "data": {"instance_id": id, "actor": "alice"}}).to_string();
    let timestamp = later.as_second().to_string();
    let signature = peergate::chat::standard_webhooks::sign_body(&keys, "msg_1", &timestamp, body.as_bytes());
    let mut signed = gate.signed_body(&body);
    signed.headers[1].1 = "msg_1".into();
    signed.headers[2].1 = signature;
    signed.headers[3].1 = timestamp;
    assert_eq!(gate.send_at(&signed, later).await.status, 200);
    assert_ne!(gate.app.secrets.current(later).await.unwrap(), old);
}

#[tokio::test]
async fn a_click_is_answered_at_its_response_url_and_decides() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let status = gate.send(&gate.slash(&format!("status {id}"), "U061F7AUR").await).await;
    let button = status.json()["blocks"][1]["elements"][0].clone();
    assert_eq!(button["action_id"], "peergate.approve", "{}", status.body);
    let click = gate.click("peergate.approve", button["value"].as_str().unwrap(), "U061F7AUR");
    let reply = gate.send(&gate.slack_payload(&click).await).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert_eq!(gate.state(&id).await, "activating");
    let posts = gate.sink.posts(RESPONSE);
    assert!(posts[0].text().starts_with("You approved prod/pcc-"), "{}", posts[0].text());
    assert_eq!(posts[0].json()["response_type"], "ephemeral");
    let late = gate.click("peergate.reject", button["value"].as_str().unwrap(), "U0BOB");
    gate.send(&gate.slack_payload(&late).await).await;
    let told = gate.sink.posts(RESPONSE)[1].text();
    assert!(told.contains("already approved by alice (slack:T0001/U061F7AUR)"), "{told}");
    assert_eq!((gate.accepts(&id), gate.calls("RejectVpcPeerConnection")), (1, 0));
}

#[tokio::test]
async fn one_person_on_two_platforms_is_one_person() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    let reply = gate.send(&gate.slash(&format!("approve {id}"), "U061F7AUR").await).await;
    assert!(reply.body.contains("You decided about"), "{}", reply.body);
}

#[tokio::test]
async fn the_slash_command_approves_rejects_and_explains_itself() {
    let gate = Gate::start().await;
    let (one, two) = (gate.requested().await, gate.requested().await);
    gate.discover().await;
    let text = format!("approve {one} on prod because the data team  needs it");
    let approved = gate.send(&gate.slash(&text, "U061F7AUR").await).await;
    assert!(approved.body.contains("You approved"), "{}", approved.body);
    assert_eq!(approved.json()["response_type"], "ephemeral");
    let reason = gate.stored(&one).await.unwrap().approval.winner().unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("the data team  needs it"));
    let rejected = gate.send(&gate.slash(&format!("reject {two}"), "U061F7AUR").await).await;
    assert!(rejected.body.contains("You rejected"), "{}", rejected.body);
    for words in ["", "help", "approve", "approve vpc-1", "approve pcc-a now", "explode pcc-a", "approve pcc-a on"] {
        let reply = gate.send(&gate.slash(words, "U061F7AUR").await).await;
        assert!(reply.status == 200 && reply.body.contains("understands these commands"), "{words}: {}", reply.body);
    }
}

type Form = (&'static str, Vec<(&'static str, &'static str)>, u16);
type Change = (&'static str, fn(&mut serde_json::Value));
type Click = (&'static str, fn(&mut serde_json::Value), u16);

#[tokio::test]
async fn slack_requests_that_are_not_ours_or_malformed_reach_no_api() {
    let gate = Gate::start().await;
    let nothing = peergate::peering::Fingerprint::of_nothing();
    let id = "pcc-a".to_owned().try_into().unwrap();
    let value = gate.private_button(&id, Button::Approve { ask: false }, &nothing, "U061F7AUR").await;
    let click = |change: fn(&mut serde_json::Value)| {
        let mut click = gate.click("peergate.approve", &value, "U061F7AUR");
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
        let reply = gate.send(&gate.slack_payload(&click(change)).await).await;
        assert_eq!(reply.status, status, "{name}: {}", reply.body);
    }
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
        let reply = gate.send(&gate.slack_form(&fields).await).await;
        assert_eq!(reply.status, status, "{name}: {}", reply.body);
    }
    let secrets = gate.app.secrets.current(clock::now()).await.unwrap();
    let whole = "command=%2Fpeergate&team_id=T0001&user_id=U061F7AUR&api_app_id=A0123&text=approve+pcc-a+because+%FF";
    for body in ["payload=%FF", whole] {
        let signed =
            peergate::chat::slack::sign_form(secrets.platforms.slack.as_ref().unwrap(), body.into(), clock::now())
                .unwrap();
        assert_eq!(gate.send(&signed).await.status, 400, "{body}");
    }
    let mut forged = gate.slash("approve pcc-a", "U061F7AUR").await;
    forged.body = forged.body.replace("pcc-a", "pcc-b");
    assert_eq!(gate.send(&forged).await.status, 401);
    assert_eq!(gate.upstream_calls(), 0);
}

#[tokio::test]
async fn somebody_of_another_workspace_is_told_so_and_decides_nothing() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.discover().await;
    let before = gate.upstream_calls();
    let value = gate.card_in("C0PEER").button("Approve").unwrap().value.clone();
    let words = "peergate does not take commands from this Slack workspace";
    let mut click = gate.click("peergate.approve", &value, "U061F7AUR");
    click["user"]["team_id"] = json!("T0002");
    let reply = gate.send(&gate.slack_payload(&click).await).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    let told = gate.sink.posts(RESPONSE);
    assert_eq!(told.len(), 1);
    assert!(told[0].text().starts_with(words), "{}", told[0].text());
    let form = [("command", "/peergate"), ("team_id", "T0002"), ("user_id", "U061F7AUR"), ("api_app_id", "A0123")];
    let approve = format!("approve {id}");
    let reply = gate.send(&gate.slack_form(&[&form[..], &[("text", &approve)]].concat()).await).await;
    assert_eq!((reply.status, reply.json()["response_type"].as_str()), (200, Some("ephemeral")));
    assert!(peergate::local::sink::text(&reply.json()).starts_with(words), "{}", reply.body);
    let window = json!({
        "type": "view_submission", "team": {"id": "T0002"}, "user": {"id": "U061F7AUR"}, "api_app_id": "A0123",
        "view": {"callback_id": "peergate.reject", "private_metadata": value, "state": {"values": {}}},
    });
    let reply = gate.send(&gate.slack_payload(&window).await).await;
    assert_eq!((reply.status, reply.json()["response_action"].as_str()), (200, Some("update")));
    assert!(reply.body.contains(words), "{}", reply.body);
    assert_eq!((gate.upstream_calls(), gate.state(&id).await.as_str()), (before, "pending"));
    assert!(logged().contains("wrong-tenant"));
}

#[tokio::test]
async fn a_user_of_an_organization_counts_once_in_whichever_workspace_they_act() {
    let gate = Gate::start().await;
    let config = gate.config.replace(
        r#"teams = ["T0001"]"#,
        r#"teams = ["T0001", "T0002"]
enterprise = "E0001""#,
    );
    let gate = gate.with_config(&config);
    let id = gate.request_peering(&[("AcceptingVpcId", "vpc-two-people")]).await.unwrap();
    gate.discover().await;
    let value = gate.card_in("C0PEER").button("Approve").unwrap().value.clone();
    let organization = |it: &mut serde_json::Value| {
        it["team"] = json!(null);
        it["enterprise"] = json!({"id": "E0001"});
    };
    let changes: [Change; 4] = [
        ("T0001", |_| ()),
        ("T0002", |it| it["user"]["team_id"] = json!("T0002")),
        ("E0001", |it| it["user"]["team_id"] = json!("E0001")),
        ("none", |it| it["user"] = json!({"id": "U061F7AUR"})),
    ];
    for (team, change) in changes {
        let mut click = gate.click("peergate.approve", &value, "U061F7AUR");
        if team != "T0001" {
            organization(&mut click);
        }
        change(&mut click);
        assert_eq!(gate.send(&gate.slack_payload(&click).await).await.status, 200, "{team}");
        let stored = gate.stored(&id).await.unwrap().approval;
        assert_eq!(stored.given(), 1, "{team}");
        assert_eq!(stored.decisions[0].by.principal.as_str(), "slack:E0001/U061F7AUR");
        assert_eq!(stored.decisions[0].by.person.as_deref(), Some("alice"));
    }
    let form =
        [("command", "/peergate"), ("user_id", "U061F7AUR"), ("api_app_id", "A0123"), ("enterprise_id", "E0001")];
    let approve = format!("approve {id}");
    for team in ["T0001", "T0002", "E0001", ""] {
        let fields = [&form[..], &[("team_id", team), ("text", approve.as_str())]].concat();
        let reply = gate.send(&gate.slack_form(&fields).await).await;
        assert!(peergate::local::sink::text(&reply.json()).contains("You decided about"), "{team}: {}", reply.body);
    }
    let mut elsewhere = gate.click("peergate.approve", &value, "U0BOB");
    elsewhere["user"]["team_id"] = json!("E0002");
    elsewhere["enterprise"] = json!({"id": "E0001"});
    gate.send(&gate.slack_payload(&elsewhere).await).await;
    assert_eq!((gate.stored(&id).await.unwrap().approval.given(), gate.accepts(&id)), (1, 0));
    let withdraw = format!("withdraw {id}");
    let fields = [&form[..], &[("team_id", "T0002"), ("text", withdraw.as_str())]].concat();
    gate.send(&gate.slack_form(&fields).await).await;
    assert_eq!(gate.stored(&id).await.unwrap().approval.given(), 0);
}

#[tokio::test]
async fn approval_given_before_the_organization_was_named_counts_once_and_can_be_withdrawn() {
    let gate = Gate::start().await;
    let named = gate
        .config
        .replace(r#"approvers = ["group:security"]"#, r#"approvers = ["group:security", "slack:T0001/U0EVE"]"#);
    let gate = gate.with_config(&named);
    let id = gate.request_peering(&[("AcceptingVpcId", "vpc-two-people")]).await.unwrap();
    gate.discover().await;
    gate.send(&gate.slash(&format!("approve {id}"), "U0EVE").await).await;
    assert_eq!(gate.stored(&id).await.unwrap().approval.decisions[0].by.principal.as_str(), "slack:T0001/U0EVE");
    let grid = named.replace(r#"app = "A0123""#, "app = \"A0123\"\nenterprise = \"E0001\"");
    let gate = gate.with_config(&grid);
    gate.send(&gate.slash(&format!("approve {id}"), "U0EVE").await).await;
    assert_eq!((gate.stored(&id).await.unwrap().approval.given(), gate.accepts(&id)), (1, 0));
    gate.discover().await;
    let verified = async || {
        let (items, _) = gate.app.store.scan(None).await.unwrap();
        for item in &items {
            peergate::approval::History::verify(&item.id, &item.record).unwrap();
        }
    };
    verified().await;
    gate.send(&gate.slash(&format!("withdraw {id}"), "U0EVE").await).await;
    assert_eq!(gate.stored(&id).await.unwrap().approval.given(), 0);
    verified().await;
}

#[tokio::test]
async fn contact_outside_the_rule_may_reject_their_accounts_request() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    // Erin is a contact, and no approver of this rule.
    let approve = gate.send(&gate.signed("approve", &id, "erin").await).await;
    assert_eq!((approve.status, approve.name().as_str()), (403, "not-an-approver"));
    let stranger = gate.send(&gate.signed("reject", &id, "carol").await).await;
    assert_eq!((stranger.status, stranger.name().as_str()), (403, "not-an-approver"));
    assert_eq!(gate.calls("RejectVpcPeerConnection") + gate.calls("AcceptVpcPeerConnection"), 0);
    let reject = gate.send(&gate.signed("reject", &id, "erin").await).await;
    assert_eq!((reject.status, reject.name().as_str()), (200, "rejected"), "{}", reject.body);
    assert_eq!(gate.state(&id).await, "rejected");
}

/// The gate's functions, with secrets that are somewhere else.
fn with_secrets_at(gate: &Gate, path: &std::path::Path) -> peergate::app::App {
    let mut environment = gate.environment.clone();
    environment.secrets = peergate::config::SecretsSource::File(path.into());
    peergate::app::App::new(&environment, peergate::config::Config::parse(&gate.config).unwrap()).unwrap()
}

async fn status(app: &peergate::app::App, signed: &Signed, now: jiff::Timestamp) -> u16 {
    let request = http::Request::post(&signed.path);
    let request = signed.headers.iter().fold(request, |it, (name, value)| it.header(*name, value));
    let response = peergate::webhook::handle(app, request.body(Bytes::from(signed.body.clone())).unwrap(), now).await;
    response.status().as_u16()
}

#[tokio::test]
async fn failing_secrets_store_is_asked_less_and_less_often() {
    let gate = Gate::start().await;
    let signed = gate.signed("status", &gate.requested().await, "alice").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.json");
    let peergate::config::SecretsSource::File(good) = &gate.environment.secrets else { panic!("a file") };
    let (app, now) = (with_secrets_at(&gate, &path), clock::now());
    let after = |millis: i64| now + SignedDuration::from_millis(millis);
    // The first rest is 1 s long, the next 2 s.
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
    let gate = Gate::start().await;
    let signed = gate.signed("status", &gate.requested().await, "alice").await;
    let app = with_secrets_at(&gate, std::path::Path::new("/nonexistent"));
    let now = clock::now();
    let stale = now + SignedDuration::from_secs(301);
    let mut malformed = signed.clone();
    malformed.headers.retain(|header| header.0 != "webhook-signature");
    let slack = gate.slash("list", "U0BOB").await;
    let mut odd = slack.clone();
    odd.headers
        .iter_mut()
        .filter(|header| header.0 == "x-slack-signature")
        .for_each(|header| header.1 = "v0=00".into());
    for (signed, at) in [(&signed, stale), (&malformed, now), (&slack, stale), (&odd, now)] {
        assert_eq!(status(&app, signed, at).await, 401);
        let mut unknown = signed.clone();
        unknown.path = unknown.path.replace("/ci", "/nobody");
        assert_eq!(status(&app, &unknown, at).await, 401);
    }
    assert_eq!((status(&app, &signed, now).await, status(&app, &slack, now).await), (503, 503));
}

#[tokio::test]
async fn unknown_client_is_answered_like_a_known_one_and_refetches_alike() {
    let gate = Gate::start().await;
    let bad = gate.signed_body("{}");
    for path in ["/webhook/ci", "/webhook/nobody"] {
        let mut signed = bad.clone();
        path.clone_into(&mut signed.path);
        signed.body = "{ }".into();
        // New secrets are there; who asks for them is refused all the same.
        let old = gate.app.secrets.current(clock::now()).await.unwrap();
        gate.write_secrets(|secrets| {
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
        let reply = gate.send_at(&signed, later).await;
        assert_eq!((reply.status, reply.name().as_str()), (401, "unauthentic"));
        assert_ne!(gate.app.secrets.current(later).await.unwrap(), old, "{path}");
    }
    assert_eq!(gate.upstream_calls(), 0);
}

#[tokio::test]
async fn slacks_test_of_the_address_is_echoed() {
    let gate = Gate::start().await;
    let secrets = gate.app.secrets.current(clock::now()).await.unwrap();
    let send = async |body: &str| {
        let mut signed =
            peergate::chat::slack::sign_form(secrets.platforms.slack.as_ref().unwrap(), body.into(), clock::now())
                .unwrap();
        signed.headers[0].1 = "application/json".into();
        gate.send(&signed).await
    };
    let echo = send(r#"{"type":"url_verification","challenge":"3eZb","token":"t"}"#).await;
    assert_eq!((echo.status, echo.body.as_str()), (200, r#"{"challenge":"3eZb"}"#));
    assert_eq!(send(r#"{"type":"event_callback","event":{}}"#).await.status, 400);
}

#[tokio::test]
async fn slack_is_answered_in_time_however_slow_alibaba_is() {
    let gate = Gate::start().await;
    let (id, other) = (gate.requested().await, gate.requested().await);
    gate.discover().await;
    let slow = |action: &str| Fault { action: Some(action.into()), delay_ms: 60_000, ..Fault::default() };
    // Slack gives up after 3 s and the budget is 1.9 s; the HTTP client alone would wait for 10 s. A busy machine may be slow.
    let in_time = Duration::from_secs(8);
    gate.simulator.fault(slow("AcceptVpcPeerConnection"));
    let started = Instant::now();
    let reply = gate.send(&gate.slash(&format!("approve {id}"), "U061F7AUR").await).await;
    assert!(reply.body.contains("Your decision is stored"), "{}", reply.body);
    assert!(started.elapsed() < in_time, "{:?}", started.elapsed());
    assert_eq!(gate.state(&id).await, "approved");
    // Of a reading that is silent, a second one is made.
    gate.simulator.fault(Fault { times: 2, ..slow("GetVpcPeerConnectionAttribute") });
    let started = Instant::now();
    let reply = gate.send(&gate.slash(&format!("approve {other}"), "U061F7AUR").await).await;
    assert!(started.elapsed() < in_time, "{:?}", started.elapsed());
    assert!(reply.body.contains("Alibaba Cloud does not answer, so nothing was decided"), "{}", reply.body);
    assert_eq!(gate.state(&other).await, "pending");
}

#[tokio::test]
async fn a_rejection_elsewhere_is_no_success_for_who_approved() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    // Somebody rejects in the console between our read and our call.
    let action = Some("AcceptVpcPeerConnection".to_owned());
    let code = Some("IncorrectStatus.VpcPeer".to_owned());
    gate.simulator.fault(Fault { action, code, delay_ms: 2000, ..Fault::default() });
    let approval = gate.signed("approve", &id, "alice").await;
    let (reply, ()) = tokio::join!(gate.send(&approval), async {
        while gate.simulator.pending_faults() > 0 {
            tokio::task::yield_now().await;
        }
        gate.tamper(&id, Tampering { status: Some("Rejected".into()), ..Tampering::default() });
    });
    assert_eq!((reply.status, reply.name().as_str()), (409, "rejected-elsewhere"), "{}", reply.body);
    assert!(reply.detail().contains("was rejected outside peergate"), "{}", reply.detail());
}

#[tokio::test]
async fn a_loser_is_told_who_won_even_when_nothing_else_is_as_it_was() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.send(&gate.signed("approve", &id, "alice").await).await;
    let told = async |actor: &str| gate.send(&gate.signed("approve", &id, actor).await).await;
    gate.tamper(&id, Tampering { bandwidth: Some(1), ..Tampering::default() });
    assert!(told("bob").await.detail().contains("by alice"));
    let action = Some("GetVpcPeerConnectionAttribute".to_owned());
    gate.simulator.fault(Fault { action, code: Some("InternalError".into()), http_status: 500, ..Fault::default() });
    assert!(told("bob").await.detail().contains("by alice"));
    gate.simulator.heal();
    gate.tamper(&id, Tampering { status: Some("Deleted".into()), ..Tampering::default() });
    assert!(told("bob").await.detail().contains("by alice"));
    let status = gate.send(&gate.signed("status", &id, "bob").await).await;
    assert_eq!((status.status, &status.json()["connection"]["status"]), (200, &json!("Deleted")));
}

#[tokio::test]
async fn a_dry_run_twice_asks_twice() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    for _ in 0..2 {
        assert_eq!(gate.send(&gate.signed("dry-run", &id, "alice").await).await.name(), "dry-run-passed");
    }
    let journal = gate.simulator.journal();
    let dry_runs = journal.iter().filter(|entry| entry.parameters.contains_key("DryRun"));
    let tokens: std::collections::BTreeSet<_> = dry_runs.map(|entry| &entry.parameters["ClientToken"]).collect();
    assert_eq!(tokens.len(), 2);
}

#[tokio::test]
async fn strangers_do_not_choose_how_long_a_signature_is_checked() {
    let gate = Gate::start().await;
    let mut signed = gate.signed_body(&"a".repeat(256 * 1024));
    let genuine = signed.headers[2].1.clone();
    signed.headers[2].1 = format!("{}{genuine}", "v1,AAAA ".repeat(16));
    assert_eq!(gate.send(&signed).await.status, 401, "only the first 16 signatures are looked at");
    signed.headers[2].1 = format!("{}{genuine}", "v1,AAAA ".repeat(15));
    assert_eq!(gate.send(&signed).await.status, 400, "authentic, but not JSON");
}

#[tokio::test]
async fn what_was_sent_is_quoted_neither_in_the_answer_nor_in_the_log() {
    let gate = Gate::start().await;
    for body in [
        r#"{"type":"peering.approve","data":"quoted-7f3a"}"#,
        r#"{"type":"peering.approve","data":{"quoted-7f3a":1}}"#,
        r#"{"type":"peering.approve","data":{"instance_id":"quoted-7f3a","actor":"alice"}}"#,
    ] {
        let reply = gate.send(&gate.signed_body(body)).await;
        assert_eq!(reply.status, 400);
        assert!(!reply.body.contains("7f3a") && !crate::support::logged().contains("7f3a"), "{}", reply.body);
    }
}

#[tokio::test]
async fn every_class_of_error_of_the_reading_is_answered_and_nothing_is_accepted() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let cases = [
        (400, "Throttling.User", 503, "alicloud-unavailable"),
        (500, "InternalError", 503, "alicloud-unavailable"),
        (403, "Forbidden.RAM", 502, "credentials-refused"),
        (404, "InvalidAccessKeyId.NotFound", 502, "credentials-refused"),
        (400, "IllegalParam.InstanceId", 409, "vendor-refused"),
        (400, "ResourceNotFound.InstanceId", 404, "unknown-connection"),
    ];
    for (http_status, code, status, name) in cases {
        let action = Some("GetVpcPeerConnectionAttribute".to_owned());
        gate.simulator.fault(Fault { action, code: Some(code.into()), http_status, times: 9, ..Fault::default() });
        let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
        gate.simulator.heal();
        assert_eq!((reply.status, reply.name().as_str()), (status, name), "{code}");
    }
    let raw = Some("<html>".to_owned());
    gate.simulator.fault(Fault { raw, http_status: 502, ..Fault::default() });
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "alicloud-unavailable");
    assert_eq!((gate.calls("AcceptVpcPeerConnection"), gate.state(&id).await.as_str()), (0, "none"));
}

#[tokio::test]
async fn a_wrong_access_key_heals_once_the_right_one_is_stored() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.write_secrets(|secrets| secrets["targets"]["prod"]["access_key_secret"] = json!("outdated")).unwrap();
    let refused = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!(refused.name(), "credentials-refused", "{}", refused.body);
    gate.write_secrets(|_| ()).unwrap();
    let approval = gate.signed("approve", &id, "alice").await;
    let soon = clock::now() + SignedDuration::from_secs(10);
    assert_eq!(gate.send_at(&approval, soon).await.name(), "credentials-refused", "not fetched again so soon");
    let later = clock::now() + SignedDuration::from_secs(40);
    assert_eq!(gate.send_at(&approval, later).await.name(), "accepted");
    assert_eq!(gate.accepts(&id), 1);
}

#[tokio::test]
async fn unknown_ranges_are_said_to_be_unknown() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.tamper(&id, Tampering { requester_cidrs: Some([].into()), ..Tampering::default() });
    let reply = gate.send(&gate.signed("dry-run", &id, "alice").await).await;
    assert_eq!(reply.name(), "dry-run-passed");
    assert!(reply.detail().contains("ranges of a side are unknown"), "{}", reply.detail());
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "accepted");
}

#[tokio::test]
async fn a_machine_is_answered_before_the_watcher_takes_over() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.simulator.fault(Fault {
        action: Some("AcceptVpcPeerConnection".into()),
        delay_ms: 60_000,
        ..Fault::default()
    });
    let reply = gate.send(&gate.signed("approve", &id, "alice").await).await;
    assert_eq!((reply.status, reply.name().as_str()), (202, "underway"));
    let left_to_the_watcher = |line: &str| line.contains("out_of_time") && line.contains(id.as_str());
    assert!(
        crate::support::logged().lines().any(left_to_the_watcher),
        "by our own deadline, not by the client's time-out"
    );
}

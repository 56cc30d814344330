//! The runbooks of OPERATING.md, tried: each thing that is said there to heal does, and nothing is accepted twice.

use std::collections::HashMap;

use crate::support::{AUDIT, Gate, HOOK, logged, quick};
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::SignedDuration;
use peergate::clock;
use peergate::local::sandbox::CI_SECRET;
use peergate::local::simulator::Settings;
use peergate::local::simulator::gateway::Fault;
use peergate::local::sink::Trouble;
use peergate::local::table;
use peergate::peering::InstanceId;
use serde_json::json;
use tokio::process::Command;

type Item = HashMap<String, AttributeValue>;

fn dynamodb(gate: &Gate) -> aws_sdk_dynamodb::Client {
    let environment = &gate.environment;
    let sdk = peergate::aws::sdk_config(&environment.aws, &peergate::http::client().unwrap());
    let config = aws_sdk_dynamodb::config::Builder::from(&sdk);
    let endpoint = environment.aws.dynamodb_endpoint.clone().unwrap();
    aws_sdk_dynamodb::Client::from_conf(config.endpoint_url(endpoint).build())
}

/// What a backup of the table has of a connection.
async fn backup(gate: &Gate, id: &InstanceId) -> Item {
    let key = AttributeValue::S(format!("prod/{id}"));
    let answer = dynamodb(gate).get_item().table_name(&gate.environment.table).key("id", key).send().await.unwrap();
    answer.item.unwrap()
}

async fn restore(gate: &Gate, item: Item) {
    dynamodb(gate).put_item().table_name(&gate.environment.table).set_item(Some(item)).send().await.unwrap();
}

/// A table that holds what the gate's holds now, as one restored from a backup does.
async fn copy(gate: &Gate, name: &str) {
    let aws = &gate.environment.aws;
    let sdk = peergate::aws::sdk_config(aws, &peergate::http::client().unwrap());
    table::create(&sdk, aws.dynamodb_endpoint.as_ref().unwrap(), name).await.unwrap();
    let dynamodb = dynamodb(gate);
    for item in dynamodb.scan().table_name(&gate.environment.table).send().await.unwrap().items.unwrap() {
        dynamodb.put_item().table_name(name).set_item(Some(item)).send().await.unwrap();
    }
}

/// Runs the local tool on the table, as on the one in AWS.
async fn peergate(gate: &Gate, arguments: &[&str]) -> String {
    run(gate, arguments).await.unwrap()
}

/// What it prints, or what it prints when it fails.
async fn run(gate: &Gate, arguments: &[&str]) -> Result<String, String> {
    let aws = &gate.environment.aws;
    let output = Command::new(env!("CARGO_BIN_EXE_peergate"))
        .args(arguments)
        .env_clear()
        .env("AWS_REGION", &aws.region)
        .env("AWS_ACCESS_KEY_ID", &aws.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &aws.secret_access_key)
        .env("AWS_ENDPOINT_URL_DYNAMODB", aws.dynamodb_endpoint.as_ref().unwrap())
        .env("PEERGATE_TABLE", &gate.environment.table)
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test]
async fn an_access_key_is_rotated_without_anybody_doing_more_than_storing_the_new_one() {
    let gate = Gate::start().await;
    let (first, second) = (gate.requested().await, gate.requested().await);
    assert_eq!(gate.send(&gate.signed("approve", &first, "alice").await).await.name(), "accepted");
    // The old key is disabled before the functions have heard of the new one.
    let key = |id: &str, secret: &str| json!({"prod": {"access_key_id": id, "access_key_secret": secret}});
    gate.write_secrets(|secrets| secrets["targets"] = key("disabled", "disabled")).unwrap();
    let gate = gate.restarted();
    let refused = gate.send(&gate.signed("approve", &second, "alice").await).await;
    assert_eq!((refused.status, refused.name().as_str()), (502, "credentials-refused"));
    gate.write_secrets(|_| {}).unwrap();
    let later = clock::now() + SignedDuration::from_secs(31);
    let healed = gate.send_at(&gate.signed("approve", &second, "alice").await, later).await;
    assert_eq!((healed.status, gate.accepts(&second)), (200, 1), "one fetch later: {}", healed.body);
}

#[tokio::test]
async fn a_signing_secret_is_rotated_without_a_refused_request() {
    const NEW: &str = "whsec_bmV3LXNpZ25pbmcta2V5LW9mLTMyLWJ5dGVzLWxvbmc=";
    let gate = Gate::start().await;
    let id = gate.requested().await;
    let body = gate.signed("status", &id, "alice").await.body;
    let sign = |key: &str| {
        let (nonce, at) = (format!("msg_{}", clock::nonce()), clock::now().as_second().to_string());
        let mut signed = gate.signed_as(&body, &nonce, &at);
        let keys = [key.to_owned().try_into().unwrap()];
        let signature = peergate::chat::standard_webhooks::sign_body(&keys, &nonce, &at, body.as_bytes());
        signed.headers.retain(|(name, _)| *name != "webhook-signature");
        signed.headers.push(("webhook-signature", signature));
        signed
    };
    assert_eq!(gate.send(&sign(CI_SECRET)).await.status, 200);
    // Both, then the sender changes, then only the new one.
    let both = [NEW, CI_SECRET];
    gate.write_secrets(|secrets| secrets["clients"]["ci"]["signing_secrets"] = json!(both)).unwrap();
    let later = clock::now() + SignedDuration::from_secs(31);
    assert_eq!(gate.send_at(&sign(CI_SECRET), later).await.status, 200);
    assert_eq!(gate.send_at(&sign(NEW), later).await.status, 200, "fetched because no known key matched");
    assert_eq!(gate.send_at(&sign(CI_SECRET), later).await.status, 200);
    let old = sign(CI_SECRET);
    gate.write_secrets(|secrets| secrets["clients"]["ci"]["signing_secrets"] = json!([NEW])).unwrap();
    let gate = gate.restarted();
    let calls = gate.upstream_calls();
    assert_eq!((gate.send(&old).await.status, gate.upstream_calls()), (401, calls));
}

#[tokio::test]
async fn a_table_from_a_backup_catches_up_with_what_happened_since() {
    let gate = Gate::with(Settings { activation: std::time::Duration::from_millis(300), ..quick() }).await;
    let id = gate.requested().await;
    gate.discover().await;
    let pending = backup(&gate, &id).await;
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "accepted");
    let decided = backup(&gate, &id).await;
    gate.scheduled().await;
    assert_eq!((gate.state(&id).await.as_str(), gate.accepts(&id)), ("activated", 1));
    for (name, item) in [("pending", pending), ("decided", decided)] {
        restore(&gate, item).await;
        assert_ne!(gate.state(&id).await, "activated", "{name}");
        gate.scheduled().await;
        assert_eq!(gate.state(&id).await, "activated", "from a backup of {name}");
        assert_eq!(gate.accepts(&id), 1, "from a backup of {name}: nothing is accepted twice");
    }
    let verified = peergate(&gate, &["verify", "--aws"]).await;
    assert!(verified.contains('1'), "{verified}");
}

#[tokio::test]
async fn what_the_table_lost_is_put_back_from_a_copy() {
    let gate = Gate::start().await;
    let ids: [_; 7] = std::array::from_fn(|_| gate.requested());
    let ids = futures_util::future::join_all(ids).await;
    let [went_on, gone, begun_anew, edited, shortened, damaged, newer] = ids.as_slice() else { panic!() };
    let approve = async |id| assert_eq!(gate.send(&gate.signed("approve", id, "alice").await).await.name(), "accepted");
    gate.discover().await;
    let early = backup(&gate, shortened).await;
    for id in [gone, edited, shortened] {
        approve(id).await;
    }
    copy(&gate, "copy").await;
    let was = [backup(&gate, gone).await, backup(&gate, begun_anew).await, backup(&gate, edited).await];
    let as_it_was = async |id, was: &Item| {
        let now = backup(&gate, id).await;
        let version = |item: &Item| item["version"].as_n().unwrap().parse::<u64>().unwrap();
        assert!(version(&now) > version(was), "nobody who read it before can write over it");
        now.iter().all(|(name, value)| name == "version" || was[name] == *value) && now.len() == was.len()
    };

    approve(went_on).await;
    for id in [gone, begun_anew] {
        let key = AttributeValue::S(format!("prod/{id}"));
        dynamodb(&gate).delete_item().table_name(&gate.environment.table).key("id", key).send().await.unwrap();
    }
    gate.discover().await;
    approve(begun_anew).await;
    restore(&gate, early).await;
    let edits = [
        (edited, "alice", "mallory"),
        (damaged, r#""since":"#, r#""than":"#),
        (newer, r#""schema":2"#, r#""schema":3"#),
    ];
    for (id, before, after) in edits {
        let mut item = backup(&gate, id).await;
        let record = item["record"].as_s().unwrap().replace(before, after);
        item.insert("record".into(), AttributeValue::S(record));
        restore(&gate, item).await;
    }
    let untouched = [backup(&gate, went_on).await, backup(&gate, newer).await];

    let told = run(&gate, &["restore", "--aws", "--from", "copy"]).await.unwrap_err();
    let lines = |what| move |id: &InstanceId| format!("prod/{id}: {what}");
    let another = "left as it is: it has another history now, or was edited; --replace puts it back";
    let put_back = [gone, shortened, damaged].map(lines("put back"));
    for line in put_back.into_iter().chain([begun_anew, edited].map(lines(another))) {
        assert!(told.contains(&line), "{line}: {told}");
    }
    assert!(told.ends_with("3 records are put back, 2 have gone on since, 2 are left as they are\n"), "{told}");
    assert!(as_it_was(gone, &was[0]).await);
    let told = run(&gate, &["restore", "--aws", "--from", "copy", "--replace"]).await.unwrap();
    assert!(told.ends_with("2 records are put back, 5 have gone on since, 0 are left as they are\n"), "{told}");
    for (id, was) in [(begun_anew, &was[1]), (edited, &was[2])] {
        assert!(as_it_was(id, was).await, "{id}");
    }
    assert_eq!([backup(&gate, went_on).await, backup(&gate, newer).await], untouched);

    gate.scheduled().await;
    for id in [went_on, gone, begun_anew, edited, shortened] {
        assert_eq!((gate.state(id).await.as_str(), gate.accepts(id)), ("activated", 1), "{id}");
    }
}

#[tokio::test]
async fn a_copy_that_does_not_hold_puts_nothing_back() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "accepted");
    let item = backup(&gate, &id).await;
    let record = item["record"].as_s().unwrap();
    let problems = [
        (record.replace("alice", "mallory"), "in the copy, entry 1 does not follow from those before it"),
        (record.replace(r#""schema":2"#, r#""schema":3"#), "written by a newer version of peergate"),
    ];
    for (number, (record, problem)) in problems.into_iter().enumerate() {
        let mut item = item.clone();
        item.insert("record".into(), AttributeValue::S(record));
        restore(&gate, item).await;
        let name = format!("copy-{number}");
        copy(&gate, &name).await;
        let key = AttributeValue::S(format!("prod/{id}"));
        dynamodb(&gate).delete_item().table_name(&gate.environment.table).key("id", key).send().await.unwrap();
        let told = run(&gate, &["restore", "--aws", "--from", &name, "--replace"]).await.unwrap_err();
        assert!(told.contains(problem) && told.contains("0 records are put back"), "{told}");
        assert!(gate.stored(&id).await.is_none(), "{problem}");
    }
}

#[tokio::test]
async fn what_was_given_up_is_redriven() {
    let gate = Gate::start().await;
    gate.sink.trouble(Trouble { path: AUDIT.into(), status: 410, ..Trouble::default() });
    let wait = Some(120);
    gate.sink.trouble(Trouble { path: HOOK.into(), status: 503, retry_after: wait, ..Trouble::default() });
    let id = gate.requested().await;
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "accepted");
    gate.tick().await;
    gate.sink.heal();
    let (audit, hook) = (gate.sink.posts(AUDIT).len(), gate.sink.posts(HOOK).len());
    let told = peergate(&gate, &["redrive", "--aws", "--channel", "netops"]).await;
    assert_eq!(told, "0 posts of 0 connections are due now\n", "it took everything");
    let told = peergate(&gate, &["redrive", "--aws"]).await;
    assert!(told.ends_with("posts of 1 connections are due now\n") && !told.starts_with('0'), "{told}");
    gate.tick().await;
    assert!(gate.sink.posts(HOOK).len() > hook, "at once, and not when its turn would have come");
    assert_eq!(gate.sink.posts(AUDIT).len(), audit, "what was given up needs to be asked for");
    peergate(&gate, &["redrive", "--aws", "--given-up", "--channel", "audit"]).await;
    gate.tick().await;
    assert!(gate.sink.posts(AUDIT).len() > audit);
    let (audit, hook) = (gate.sink.posts(AUDIT).len(), gate.sink.posts(HOOK).len());
    assert_eq!(peergate(&gate, &["redrive", "--aws", "--given-up"]).await, "0 posts of 0 connections are due now\n");
    gate.tick().await;
    assert_eq!((gate.sink.posts(AUDIT).len(), gate.sink.posts(HOOK).len()), (audit, hook), "once is enough");
}

#[tokio::test]
async fn a_record_of_a_newer_version_waits_for_that_version_and_holds_up_no_other() {
    let gate = Gate::start().await;
    let (newer, ours) = (gate.requested().await, gate.requested().await);
    gate.discover().await;
    let mut item = backup(&gate, &newer).await;
    let record = item["record"].as_s().unwrap().replace(r#""schema":2"#, r#""schema":3"#);
    item.insert("record".into(), AttributeValue::S(record));
    // It is due for the watcher, too.
    item.extend(["due_at", "work_at"].map(|name| (name.into(), AttributeValue::N("1".into()))));
    restore(&gate, item.clone()).await;
    let refused = gate.send(&gate.signed("approve", &newer, "alice").await).await;
    assert_eq!((refused.status, gate.calls("AcceptVpcPeerConnection")), (503, 0), "{}", refused.body);
    assert_eq!(gate.send(&gate.signed("approve", &ours, "alice").await).await.name(), "accepted");
    gate.scheduled().await;
    assert_eq!(gate.state(&ours).await, "activated");
    assert_eq!(backup(&gate, &newer).await, item, "it is not touched");
    let lines = logged();
    let line = |message: &str| {
        let about = |line: &&str| line.contains(message) && line.contains("written by a newer version");
        assert!(lines.lines().any(|line| about(&line) && line.contains(r#"outcome="unreadable_record""#)), "{lines}");
    };
    line("the store failed");
    line("not stored");
    // Rolled forward again.
    let record = item["record"].as_s().unwrap().replace(r#""schema":3"#, r#""schema":2"#);
    item.insert("record".into(), AttributeValue::S(record));
    restore(&gate, item).await;
    assert_eq!(gate.send(&gate.signed("approve", &newer, "alice").await).await.name(), "accepted");
}

#[tokio::test]
async fn throttling_costs_time_and_nothing_else() {
    let gate = Gate::start().await;
    let id = gate.requested().await;
    gate.simulator.fault(Fault {
        action: Some("AcceptVpcPeerConnection".into()),
        code: Some("Throttling.User".into()),
        retry_after_ms: Some(200),
        times: 3,
        ..Fault::default()
    });
    assert_eq!(gate.send(&gate.signed("approve", &id, "alice").await).await.name(), "underway");
    gate.tick().await;
    assert_eq!(
        (gate.state(&id).await.as_str(), gate.accepts(&id), gate.simulator.pending_faults()),
        ("activated", 1, 0)
    );
}

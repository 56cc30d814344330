//! The runbooks of docs/operate.md: each of them fixes its problem, and nothing is accepted twice.

use std::collections::HashMap;

use crate::support::prelude::*;
use aws_sdk_dynamodb::types::AttributeValue;
use peergate::local::sandbox::CI_SECRET;
use peergate::local::table;
use tokio::process::Command;

pub type Item = HashMap<String, AttributeValue>;

fn dynamodb(app: &TestApp) -> aws_sdk_dynamodb::Client {
    peergate::aws::dynamodb_client(&app.environment.aws, peergate::http::new_client().unwrap())
}

/// The item of a connection, as a backup of the table has it.
pub async fn backup(app: &TestApp, id: &InstanceId) -> Item {
    let key = AttributeValue::S(format!("prod/{id}"));
    let response = dynamodb(app).get_item().table_name(&app.environment.table).key("id", key).send().await.unwrap();
    response.item.unwrap()
}

pub async fn restore(app: &TestApp, item: Item) {
    dynamodb(app).put_item().table_name(&app.environment.table).set_item(Some(item)).send().await.unwrap();
}

/// A table that holds what the app's holds now, as one restored from a backup does.
async fn copy(app: &TestApp, name: &str) {
    let dynamodb = dynamodb(app);
    table::create_table(&dynamodb, name).await.unwrap();
    for item in dynamodb.scan().table_name(&app.environment.table).send().await.unwrap().items.unwrap() {
        dynamodb.put_item().table_name(name).set_item(Some(item)).send().await.unwrap();
    }
}

/// Runs the local tool on the table, as on the one in AWS.
async fn peergate(app: &TestApp, arguments: &[&str]) -> String {
    run(app, arguments).await.unwrap()
}

/// The output, or as an error the output of a failure.
async fn run(app: &TestApp, arguments: &[&str]) -> Result<String, String> {
    let aws = &app.environment.aws;
    let output = Command::new(env!("CARGO_BIN_EXE_peergate"))
        .args(arguments)
        .env_clear()
        .env("AWS_REGION", &aws.region)
        .env("AWS_ACCESS_KEY_ID", &aws.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &aws.secret_access_key)
        .env("AWS_ENDPOINT_URL_DYNAMODB", aws.dynamodb_endpoint.as_ref().unwrap())
        .env("PEERGATE_TABLE", &app.environment.table)
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test]
async fn rotated_access_key_works_after_one_fetch() {
    let app = TestApp::start().await;
    let (first, second) = (app.new_request().await, app.new_request().await);
    assert_eq!(app.approve(&first, "alice").await.name(), "accepted");
    // The old key is disabled before the functions have heard of the new one.
    let key = |id: &str, secret: &str| json!({"prod": {"access_key_id": id, "access_key_secret": secret}});
    app.write_secrets(|secrets| secrets["targets"] = key("disabled", "disabled")).unwrap();
    let app = app.restart_app();
    app.approve(&second, "alice").await.assert(502, "credentials-refused");
    app.write_secrets(|_| {}).unwrap();
    let later = clock::now() + SignedDuration::from_secs(31);
    let healed = app.send_at(&app.sign_event("approve", &second, "alice").await, later).await;
    assert_eq!((healed.status, app.count_accepts(&second)), (200, 1), "one fetch later: {}", healed.body);
}

#[tokio::test]
async fn signing_secret_rotates_without_a_refused_request() {
    const NEW: &str = "whsec_bmV3LXNpZ25pbmcta2V5LW9mLTMyLWJ5dGVzLWxvbmc=";
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let body = app.sign_event("status", &id, "alice").await.body;
    let sign = |key: &str| {
        let (nonce, at) = (format!("msg_{}", clock::nonce()), clock::now().as_second().to_string());
        let mut signed = app.sign_body_as(&body, &nonce, &at);
        let keys = [key.to_owned().try_into().unwrap()];
        let signature = peergate::chat::standard_webhooks::sign_body(&keys, &nonce, &at, body.as_bytes());
        signed.headers.retain(|(name, _)| *name != "webhook-signature");
        signed.headers.push(("webhook-signature", signature));
        signed
    };
    assert_eq!(app.send(&sign(CI_SECRET)).await.status, 200);
    // Both keys are stored, then the sender changes, then only the new key is stored.
    let both = [NEW, CI_SECRET];
    app.write_secrets(|secrets| secrets["clients"]["ci"]["signing_secrets"] = json!(both)).unwrap();
    let later = clock::now() + SignedDuration::from_secs(31);
    assert_eq!(app.send_at(&sign(CI_SECRET), later).await.status, 200);
    assert_eq!(app.send_at(&sign(NEW), later).await.status, 200, "fetched because no known key matched");
    assert_eq!(app.send_at(&sign(CI_SECRET), later).await.status, 200);
    let old = sign(CI_SECRET);
    app.write_secrets(|secrets| secrets["clients"]["ci"]["signing_secrets"] = json!([NEW])).unwrap();
    let app = app.restart_app();
    let calls = app.count_upstream_calls();
    assert_eq!((app.send(&old).await.status, app.count_upstream_calls()), (401, calls));
}

#[tokio::test]
async fn restored_backup_catches_up_without_a_second_accept() {
    let app = TestApp::with_settings(SimulatorSettings {
        activation_delay: std::time::Duration::from_millis(300),
        ..quick_settings()
    })
    .await;
    let id = app.new_request().await;
    app.discover().await;
    let pending = backup(&app, &id).await;
    assert_eq!(app.approve(&id, "alice").await.name(), "accepted");
    let decided = backup(&app, &id).await;
    app.follow().await;
    app.assert_state(&id, "activated").await;
    app.assert_accepts(&id, 1);
    for (name, item) in [("pending", pending), ("decided", decided)] {
        restore(&app, item).await;
        assert_ne!(app.state_of(&id).await, "activated", "{name}");
        app.discover().await;
        app.follow().await;
        assert_eq!(app.state_of(&id).await, "activated", "from a backup of {name}");
        assert_eq!(app.count_accepts(&id), 1, "from a backup of {name}: nothing is accepted twice");
    }
    let verified = peergate(&app, &["verify", "--aws"]).await;
    assert!(verified.contains('1'), "{verified}");
}

#[tokio::test]
async fn lost_records_are_restored_from_a_copy() {
    let app = TestApp::start().await;
    let ids: [_; 7] = std::array::from_fn(|_| app.new_request());
    let ids = futures_util::future::join_all(ids).await;
    let [continued, gone, restarted, edited, shortened, damaged, newer] = ids.as_slice() else { panic!() };
    let approve = async |id| assert_eq!(app.approve(id, "alice").await.name(), "accepted");
    app.discover().await;
    let early = backup(&app, shortened).await;
    for id in [gone, edited, shortened] {
        approve(id).await;
    }
    copy(&app, "copy").await;
    let was = [backup(&app, gone).await, backup(&app, restarted).await, backup(&app, edited).await];
    let as_it_was = async |id, was: &Item| {
        let now = backup(&app, id).await;
        let version = |item: &Item| item["version"].as_n().unwrap().parse::<u64>().unwrap();
        assert!(version(&now) > version(was), "nobody who read it before can write over it");
        now.iter().all(|(name, value)| name == "version" || was[name] == *value) && now.len() == was.len()
    };

    approve(continued).await;
    for id in [gone, restarted] {
        let key = AttributeValue::S(format!("prod/{id}"));
        dynamodb(&app).delete_item().table_name(&app.environment.table).key("id", key).send().await.unwrap();
    }
    app.discover().await;
    approve(restarted).await;
    restore(&app, early).await;
    let edits = [
        (edited, "alice", "mallory"),
        (damaged, r#""since":"#, r#""than":"#),
        (newer, r#""schema":2"#, r#""schema":3"#),
    ];
    for (id, before, after) in edits {
        let mut item = backup(&app, id).await;
        let record = item["record"].as_s().unwrap().replace(before, after);
        item.insert("record".into(), AttributeValue::S(record));
        restore(&app, item).await;
    }
    let untouched = [backup(&app, continued).await, backup(&app, newer).await];

    let output = run(&app, &["restore", "--aws", "--from", "copy"]).await.unwrap_err();
    let lines = |what| move |id: &InstanceId| format!("prod/{id}: {what}");
    let another = "skipped: it now has another history, or was edited; use --replace to restore it";
    let put_back = [gone, shortened, damaged].map(lines("restored"));
    for line in put_back.into_iter().chain([restarted, edited].map(lines(another))) {
        assert!(output.contains(&line), "{line}: {output}");
    }
    assert!(output.ends_with("restored 3 records, skipped 2, kept 2 that continued since the copy\n"), "{output}");
    assert!(as_it_was(gone, &was[0]).await);
    let output = run(&app, &["restore", "--aws", "--from", "copy", "--replace"]).await.unwrap();
    assert!(output.ends_with("restored 2 records, skipped 0, kept 5 that continued since the copy\n"), "{output}");
    for (id, was) in [(restarted, &was[1]), (edited, &was[2])] {
        assert!(as_it_was(id, was).await, "{id}");
    }
    assert_eq!([backup(&app, continued).await, backup(&app, newer).await], untouched);

    app.scheduled_tick().await;
    for id in [continued, gone, restarted, edited, shortened] {
        assert_eq!((app.state_of(id).await.as_str(), app.count_accepts(id)), ("activated", 1), "{id}");
    }
}

#[tokio::test]
async fn invalid_copy_restores_nothing() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    assert_eq!(app.approve(&id, "alice").await.name(), "accepted");
    let item = backup(&app, &id).await;
    let record = item["record"].as_s().unwrap();
    let problems = [
        (record.replace("alice", "mallory"), "in the copy, entry 1 does not follow from those before it"),
        (record.replace(r#""schema":2"#, r#""schema":3"#), "written by a newer version of peergate"),
    ];
    for (number, (record, problem)) in problems.into_iter().enumerate() {
        let mut item = item.clone();
        item.insert("record".into(), AttributeValue::S(record));
        restore(&app, item).await;
        let name = format!("copy-{number}");
        copy(&app, &name).await;
        let key = AttributeValue::S(format!("prod/{id}"));
        dynamodb(&app).delete_item().table_name(&app.environment.table).key("id", key).send().await.unwrap();
        let output = run(&app, &["restore", "--aws", "--from", &name, "--replace"]).await.unwrap_err();
        assert!(output.contains(problem) && output.contains("restored 0 records"), "{output}");
        assert!(app.load_record(&id).await.is_none(), "{problem}");
    }
}

#[tokio::test]
async fn waiting_delivery_is_redriven_at_once() {
    let app = TestApp::start().await;
    let wait = Some(120);
    app.slack.add_outage(Outage { path: WEBHOOK_PATH.into(), status: 503, retry_after: wait, ..Outage::default() });
    let id = app.new_request().await;
    assert_eq!(app.approve(&id, "alice").await.name(), "accepted");
    app.follow().await;
    app.slack.clear_outages();
    let hook = app.slack.posts(WEBHOOK_PATH).len();
    let output = peergate(&app, &["redrive", "--aws", "--channel", "netops"]).await;
    assert_eq!(output, "made 0 notifications of 0 connections due\n", "it took everything");
    let output = peergate(&app, &["redrive", "--aws"]).await;
    assert!(output.ends_with(" of 1 connection due\n") && !output.starts_with("made 0 "), "{output}");
    app.follow().await;
    assert!(app.slack.posts(WEBHOOK_PATH).len() > hook, "at once, and not when its turn would have come");
}

#[tokio::test]
async fn abandoned_delivery_is_redriven_only_on_request() {
    let app = TestApp::start().await;
    app.slack.add_outage(Outage { path: AUDIT_PATH.into(), status: 410, ..Outage::default() });
    let id = app.new_request().await;
    assert_eq!(app.approve(&id, "alice").await.name(), "accepted");
    app.follow().await;
    app.slack.clear_outages();
    let audit = app.slack.posts(AUDIT_PATH).len();
    peergate(&app, &["redrive", "--aws"]).await;
    app.follow().await;
    assert_eq!(app.slack.posts(AUDIT_PATH).len(), audit, "an abandoned delivery must be asked for");
    peergate(&app, &["redrive", "--aws", "--given-up", "--channel", "audit"]).await;
    app.follow().await;
    assert!(app.slack.posts(AUDIT_PATH).len() > audit);
    let (audit, hook) = (app.slack.posts(AUDIT_PATH).len(), app.slack.posts(WEBHOOK_PATH).len());
    assert_eq!(
        peergate(&app, &["redrive", "--aws", "--given-up"]).await,
        "made 0 notifications of 0 connections due\n"
    );
    app.follow().await;
    assert_eq!(
        (app.slack.posts(AUDIT_PATH).len(), app.slack.posts(WEBHOOK_PATH).len()),
        (audit, hook),
        "once is enough"
    );
}

#[tokio::test]
async fn newer_record_waits_for_its_version_and_blocks_no_other() {
    let app = TestApp::start().await;
    let (newer, ours) = (app.new_request().await, app.new_request().await);
    app.discover().await;
    let mut item = backup(&app, &newer).await;
    let record = item["record"].as_s().unwrap().replace(r#""schema":2"#, r#""schema":3"#);
    item.insert("record".into(), AttributeValue::S(record));
    // It is due for the watcher as well.
    item.extend(["due_at", "work_at"].map(|name| (name.into(), AttributeValue::N("1".into()))));
    restore(&app, item.clone()).await;
    let refused = app.approve(&newer, "alice").await;
    assert_eq!((refused.status, app.count_calls(ACCEPT)), (503, 0), "{}", refused.body);
    assert_eq!(app.approve(&ours, "alice").await.name(), "accepted");
    app.scheduled_tick().await;
    app.assert_state(&ours, "activated").await;
    assert_eq!(backup(&app, &newer).await, item, "it is not touched");
    let lines = logged();
    let line = |message: &str| {
        let about = |line: &&str| line.contains(message) && line.contains("written by a newer version");
        assert!(lines.lines().any(|line| about(&line) && line.contains(r#"outcome="unreadable_record""#)), "{lines}");
    };
    line("the store failed");
    line("could not finish a job");
    // Rolled forward again.
    let record = item["record"].as_s().unwrap().replace(r#""schema":3"#, r#""schema":2"#);
    item.insert("record".into(), AttributeValue::S(record));
    restore(&app, item).await;
    assert_eq!(app.approve(&newer, "alice").await.name(), "accepted");
}

#[tokio::test]
async fn throttling_costs_only_time() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.simulator.add_fault(Fault { retry_after_ms: Some(200), times: 3, ..failure(ACCEPT, "Throttling.User") });
    assert_eq!(app.approve(&id, "alice").await.name(), "underway");
    app.follow().await;
    assert_eq!(
        (app.state_of(&id).await.as_str(), app.count_accepts(&id), app.simulator.pending_faults()),
        ("activated", 1, 0)
    );
}

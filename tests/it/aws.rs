//! The store and the secrets against two implementations of AWS each: what is embedded on one machine, and moto.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::prelude::*;
use aws_sdk_dynamodb::types::AttributeValue;
use axum::http::{HeaderMap, StatusCode};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use peergate::approval::{
    Approval, ApprovalId, Approver, ChannelDisplay, Decision, Event, PolicySnapshot, Principal, Review, Verdict,
};
use peergate::config::{AwsEnvironment, Config, SecretsSource};
use peergate::local::table;
use peergate::peering::{Connection, InstanceId, Status};
use peergate::policy::Policy;
use peergate::secrets::{self, SecretsStore};
use peergate::store::{self, Saved, ScannedRecord, Store, Stored};
use peergate::{aws, clock, http};

/// moto's server on a free port; it stops with the value.
struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    fn start() -> Self {
        let mut child = Command::new(python_tool("moto_server"))
            .args(["--host", "127.0.0.1", "--port", "0"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // It says where it listens once it does.
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let running = lines.find(|line| line.contains("Running on http://")).expect("moto_server starts");
        let url = running.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        // Somebody has to read on, or it blocks.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn environment() -> AwsEnvironment {
    AwsEnvironment {
        region: "eu-central-1".into(),
        access_key_id: "test".into(),
        secret_access_key: "test".into(),
        ..AwsEnvironment::default()
    }
}

async fn store_at(endpoint: &str) -> (Store, String) {
    let http = http::new_client().unwrap();
    let sdk = aws::sdk_config(&environment(), &http);
    let table = format!("peergate-{}", clock::nonce());
    table::create_table(&sdk, endpoint, &table).await.unwrap();
    table::create_table(&sdk, endpoint, &table).await.unwrap();
    let retention = SignedDuration::from_hours(24 * 400);
    (Store::new(&sdk, Some(&endpoint.to_owned()), http, table.clone(), retention), table)
}

fn approval(id: &str, by: &str, at: Timestamp) -> Approval {
    let connection: Connection = serde_json::from_value(serde_json::json!({
        "instance_id": id, "status": "Accepting", "business_status": "Normal", "bandwidth_mbps": 1024,
        "requester": {"account": "1", "region": "r", "vpc": "vpc-a", "cidrs": ["10.0.0.0/8"]},
        "accepter": {"account": "253460731706911258", "region": "s", "vpc": "vpc-b", "cidrs": []},
        "link_type": "", "name": "“näme” \u{1F680}", "description": "", "expires_at": null, "managed_service": "",
    }))
    .unwrap();
    let approver = Approver { principal: Principal::new("webhook", "ci", by).unwrap(), person: None };
    let fingerprint = connection.fingerprint();
    let request_key = clock::nonce();
    let decision = Decision {
        verdict: Verdict::Approve,
        by: approver,
        at,
        fingerprint,
        reason: None,
        request_key,
        request_content: None,
    };
    let id = ApprovalId { target: "prod".into(), instance_id: connection.instance_id.clone() };
    let nobody = Policy::default().snapshot_for("prod", &connection);
    let terms = PolicySnapshot { rule: Some("r".into()), channels: vec!["netops".into()], ..nobody };
    let electorate = |principal: &Principal| Some(Approver { principal: principal.clone(), person: None });
    let grounds =
        Review { id: &id, connection: &connection, policy: &terms, findings: &[], eligible_approver: &electorate };
    let mut approval = Approval::apply_decision(None, &grounds, decision).unwrap();
    // Told already: what is left to do is the call.
    for number in [1, 2] {
        approval.apply_event(
            &Event::Delivered { number, channel: "netops".into(), display: ChannelDisplay::Unchanged },
            at,
        );
    }
    approval
}

/// What the store promises, whatever speaks DynamoDB.
async fn the_store_keeps_its_promises(endpoint: &str) {
    let (store, table) = store_at(endpoint).await;
    let now = clock::now();

    let first = approval("pcc-a", "alice", now);
    assert!(store.load(&first.id).await.unwrap().is_none());
    let Saved::Done(stored) = store.save(&first, None).await.unwrap() else { panic!("nobody was first") };
    assert_eq!((stored.version, &stored.approval), (1, &first));
    assert_eq!(store.load(&first.id).await.unwrap().unwrap(), stored);
    assert_eq!(attribute(endpoint, &table, &first.id, "ttl").await, None, "while work is left, it is kept");

    let second = approval("pcc-a", "bob", now);
    let Saved::Conflict(theirs) = store.save(&second, None).await.unwrap() else { panic!("alice was first") };
    assert_eq!(theirs.approval.winner().unwrap().by.principal.as_str(), "webhook:ci/alice");
    let Saved::Done(again) = store.save(&first, None).await.unwrap() else { panic!("the same write, again") };
    assert_eq!(again, stored);

    let accepted = Event::Accepted { request_id: "R".into() };
    let updated = store.update(stored.clone(), |approval| approval.apply_event(&accepted, now)).await.unwrap();
    assert_eq!(updated.version, 2);
    let stale = store.update(stored, |approval| approval.apply_event(&accepted, now)).await.unwrap();
    assert_eq!(stale, updated, "applied to what another writer made of it, it changes nothing");

    let soon = now + SignedDuration::from_secs(60);
    for name in ["b", "c", "d"] {
        store.save(&approval(&format!("pcc-{name}"), "alice", now), None).await.unwrap();
    }
    let (due, more) = store.due_entries(now, None).await.unwrap();
    assert_eq!((due.len(), more), (1, None), "only what is due");
    let (due, _) = store.due_entries(soon, None).await.unwrap();
    assert_eq!(due.len(), 4);
    let at: Vec<_> = due.iter().map(|entry| entry.due_at).collect();
    assert!(at.is_sorted(), "{at:?}");
    for entry in due {
        let approval = store.load(&entry.id).await.unwrap().unwrap().approval;
        let millis = |at: Timestamp| at.as_millisecond();
        assert_eq!((&entry.region, entry.state), (&approval.connection.accepter.region, approval.index_state()));
        assert_eq!(millis(entry.due_at), millis(approval.due_at().unwrap()));
        assert_eq!(entry.work_at.map(millis), approval.work_at().map(millis));
    }

    let many = [&first.id, &second.id].map(Clone::clone).into_iter().chain((0..150).map(|number| ApprovalId {
        target: "prod".into(),
        instance_id: InstanceId::parse(&format!("pcc-none{number}")).unwrap(),
    }));
    let mut known = store
        .load_many(&many.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>())
        .await
        .unwrap();
    assert_eq!(known.len(), 1, "in two batches, and only what is there");
    assert_eq!(known.remove(&first.id).unwrap().unwrap(), updated);
    let (scanned, more) = store.scan_records(None).await.unwrap();
    let mut ids: Vec<_> = scanned.iter().map(|scanned| scanned.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!((ids, more), (vec!["prod/pcc-a", "prod/pcc-b", "prod/pcc-c", "prod/pcc-d"], None));
    assert!(scanned.iter().all(|scanned| scanned.record["schema"] == 2 && scanned.stored.is_ok()));

    let done = store
        .update(updated.clone(), |approval| {
            let status = Status::Rejected;
            let rejected = Connection { status, ..approval.connection.clone() };
            let ended = approval.apply_event(&Event::Observed(Box::new(rejected)), now);
            for number in [3, 4] {
                approval.apply_event(
                    &Event::Delivered { number, channel: "netops".into(), display: ChannelDisplay::Unchanged },
                    now,
                );
            }
            ended
        })
        .await
        .unwrap();
    assert_eq!(done.approval.due_at(), None);
    let ttl = attribute(endpoint, &table, &done.approval.id, "ttl").await.unwrap();
    assert_eq!(ttl, AttributeValue::N((now.as_second() + 400 * 24 * 3600).to_string()));
    let (due, _) = store.due_entries(soon, None).await.unwrap();
    assert_eq!(due.len(), 3, "what is finished is due far away");
    a_copy_is_put_back_over_what_was_seen_alone(&store, &scanned, updated).await;

    let racers = (0..40).map(|racer| {
        let (store, approval) = (store.clone(), approval("pcc-race", &format!("racer{racer}"), now));
        async move { matches!(store.save(&approval, None).await.unwrap(), Saved::Done(_)) }
    });
    assert_eq!(join_all(racers).await.into_iter().filter(|won| *won).count(), 1);
}

/// `before` is in `scanned`; somebody has written since.
async fn a_copy_is_put_back_over_what_was_seen_alone(store: &Store, scanned: &[ScannedRecord], before: Stored) {
    let id = before.approval.id.clone();
    let copy = scanned.iter().find(|scanned| scanned.id == id.to_string()).unwrap();
    assert!(!store.restore_record(copy, None).await.unwrap(), "something is there");
    assert!(!store.restore_record(copy, Some(copy)).await.unwrap(), "it is another by now");
    let (now, _) = store.scan_records(None).await.unwrap();
    let current = now.iter().find(|scanned| scanned.id == copy.id).unwrap();
    assert!(store.restore_record(copy, Some(current)).await.unwrap());
    let version = current.stored.as_ref().unwrap().version + 1;
    assert_eq!(store.load(&id).await.unwrap().unwrap(), Stored::new(before.approval, version));
}

#[tokio::test]
async fn store_keeps_its_promises_on_dynoxide() {
    the_store_keeps_its_promises(&table::spawn_table(None).await.unwrap()).await;
}

#[tokio::test]
async fn store_keeps_its_promises_on_moto() {
    let moto = Moto::start();
    the_store_keeps_its_promises(&moto.url).await;
}

fn dynamodb(endpoint: &str) -> aws_sdk_dynamodb::Client {
    let sdk = aws::sdk_config(&environment(), &http::new_client().unwrap());
    aws_sdk_dynamodb::Client::from_conf(aws_sdk_dynamodb::config::Builder::from(&sdk).endpoint_url(endpoint).build())
}

async fn attribute(endpoint: &str, table: &str, id: &ApprovalId, name: &str) -> Option<AttributeValue> {
    let key = AttributeValue::S(id.to_string());
    let answer = dynamodb(endpoint).get_item().table_name(table).key("id", key).send().await.unwrap();
    answer.item.unwrap().remove(name)
}

/// Makes a record one of a version to come.
async fn age(endpoint: &str, table: &str, id: &ApprovalId) {
    let client = dynamodb(endpoint);
    let update = client.update_item().table_name(table).key("id", AttributeValue::S(id.to_string()));
    let update = update.update_expression("SET #record = :record").expression_attribute_names("#record", "record");
    let record = AttributeValue::S(r#"{"schema": 99, "shape": "unheard of"}"#.into());
    update.expression_attribute_values(":record", record).send().await.unwrap();
}

#[tokio::test]
async fn newer_record_is_refused_and_not_rewritten() {
    let endpoint = table::spawn_table(None).await.unwrap();
    let (store, table) = store_at(&endpoint).await;
    let approval = approval("pcc-a", "alice", clock::now());
    store.save(&approval, None).await.unwrap();
    age(&endpoint, &table, &approval.id).await;
    let error = store.load(&approval.id).await.unwrap_err();
    assert!(matches!(error, store::Error::Unreadable { problem, .. } if problem.contains("newer version")));
    let error = store.save(&approval, None).await.unwrap_err();
    assert!(matches!(error, store::Error::Unreadable { .. }));
    let errors = store.load_many(std::slice::from_ref(&approval.id)).await.unwrap();
    assert!(errors[&approval.id].is_err(), "the others are still worked on");
}

/// DynamoDB that answers a `BatchGetItem` in part: one record at a time, `good` times, and then not at all.
async fn in_parts(behind: String, good: usize) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (client, answered) = (http::new_client().unwrap(), Arc::new(AtomicUsize::new(0)));
    let answer = move |headers: HeaderMap, body: String| {
        let (client, behind, answered) = (client.clone(), behind.clone(), Arc::clone(&answered));
        async move {
            if answered.fetch_add(1, Ordering::SeqCst) >= good {
                return (StatusCode::BAD_REQUEST, r#"{"__type": "a.b#ThrottlingException"}"#.to_owned());
            }
            let mut asked: Value = serde_json::from_str(&body).unwrap();
            let (table, keys) = asked["RequestItems"].as_object_mut().unwrap().iter_mut().next().unwrap();
            let (table, all) = (table.clone(), keys["Keys"].as_array_mut().unwrap());
            let left = all.split_off(1);
            let mut headers = headers;
            headers.remove("content-length");
            let answer = client.post(&behind).headers(headers).body(asked.to_string()).send().await.unwrap();
            let mut answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            if !left.is_empty() {
                answer["UnprocessedKeys"] = serde_json::json!({table: {"Keys": left}});
            }
            (StatusCode::OK, answer.to_string())
        }
    };
    tokio::spawn(async { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    url
}

#[tokio::test]
async fn unprocessed_batch_keys_are_requested_again() {
    let endpoint = table::spawn_table(None).await.unwrap();
    let (store, table) = store_at(&endpoint).await;
    let approvals: Vec<_> = (0..4).map(|number| approval(&format!("pcc-{number}"), "alice", clock::now())).collect();
    for approval in &approvals[..3] {
        store.save(approval, None).await.unwrap();
    }
    let ids: Vec<_> = approvals.iter().map(|approval| approval.id.clone()).collect();
    let sdk = aws::sdk_config(&environment(), &http::new_client().unwrap());
    let load = async |good| {
        let endpoint = in_parts(endpoint.clone(), good).await;
        let retention = SignedDuration::from_hours(24);
        Store::new(&sdk, Some(&endpoint), http::new_client().unwrap(), table.clone(), retention).load_many(&ids).await
    };
    let all = load(usize::MAX).await.unwrap();
    assert_eq!((all.len(), all.values().filter(|record| record.is_ok()).count()), (3, 3), "the last is not there");
    let some = load(2).await.unwrap();
    let read = some.values().filter(|record| record.is_ok()).count();
    // The one that is not there may have been asked for.
    assert!((1..=2).contains(&read) && some.len() == read + 2, "nothing unread is taken for new: {some:?}");
    assert!(matches!(load(0).await, Err(store::Error::Unavailable(code)) if code == "ThrottlingException"));
}

#[tokio::test]
async fn secrets_survive_the_loss_of_secrets_manager() {
    const CONFIG: &str = "[targets.prod]\naccount = \"2222222222222222\"\nregions = []\n";
    let moto = Moto::start();
    let sdk = aws::sdk_config(&environment(), &http::new_client().unwrap());
    let config = aws_sdk_secretsmanager::config::Builder::from(&sdk).endpoint_url(&moto.url).build();
    let manager = aws_sdk_secretsmanager::Client::from_conf(config);
    let value = |secret: &str| {
        serde_json::json!({"targets": {"prod": {"access_key_id": "LTAI", "access_key_secret": secret}}}).to_string()
    };
    manager.create_secret().name("peergate").secret_string(value("one")).send().await.unwrap();
    let config = Arc::new(Config::parse(CONFIG).unwrap());
    let source = |id: &str| SecretsSource::SecretsManager(id.into());
    let store = SecretsStore::new(source("peergate"), &sdk, Some(&moto.url), Arc::clone(&config));
    let now = clock::now();
    let one = store.current(now).await.unwrap();
    assert_eq!(one.targets["prod"].access_key_secret.expose(), "one");
    manager.put_secret_value().secret_id("peergate").secret_string(value("two")).send().await.unwrap();
    assert_eq!(store.current(now).await.unwrap(), one, "kept");
    let later = now + SignedDuration::from_mins(6);
    assert_eq!(store.current(later).await.unwrap().targets["prod"].access_key_secret.expose(), "two");

    let absent = SecretsStore::new(source("absent"), &sdk, Some(&moto.url), config);
    let error = absent.current(now).await.unwrap_err();
    assert!(matches!(&error, secrets::Error::Unavailable(code) if code == "ResourceNotFoundException"), "{error}");

    drop(moto);
    let much_later = later + SignedDuration::from_hours(5);
    assert_eq!(store.current(much_later).await.unwrap().targets["prod"].access_key_secret.expose(), "two");
}

//! The store and the secrets against two implementations of AWS: dynoxide, which is embedded, and moto.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use crate::support::prelude::*;
use aws_sdk_dynamodb::types::AttributeValue;
use axum::http::StatusCode;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use peergate::approval::{
    Approval, ApprovalId, Approver, ChannelDisplay, Decision, Event, PolicySnapshot, Principal, Review, Verdict,
};
use peergate::aws::AwsEnvironment;
use peergate::config::{Config, SecretsSource};
use peergate::local::table::{self, EmbeddedTable, KeyPair};
use peergate::peering::{Connection, InstanceId, Status};
use peergate::policy::Policy;
use peergate::secrets::{self, SecretsStore};
use peergate::store::{self, Saved, Store, StorePage, Stored};
use peergate::{aws, clock, http};

/// moto's server on a free port; it stops with the value.
struct Moto {
    child: Child,
    url: String,
}

/// For tests that each have a table of their own.
static SHARED_MOTO: LazyLock<Moto> = LazyLock::new(Moto::start);

impl Moto {
    fn start() -> Self {
        // A static value is never dropped: the shell ends the server when this process, and with it the input, ends.
        let mut child = Command::new("sh")
            .args(["-c", "\"$0\" --host 127.0.0.1 --port 0 & read -r _; kill $!"])
            .arg(python_tool("moto_server"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // It prints its address once it listens.
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let running = lines.find(|line| line.contains("Running on http://")).expect("moto_server starts");
        let url = running.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        // Without a reader it blocks.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
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

/// A table that takes the signatures of [`environment`]. Returns its URL.
async fn spawn_table() -> String {
    table::spawn_table(None, KeyPair::of(&environment())).await.unwrap()
}

async fn store_at(endpoint: &str) -> (Store, String) {
    let http = http::new_client().unwrap();
    let sdk = aws::sdk_config(&environment(), &http);
    let table = format!("peergate-{}", clock::nonce());
    table::create_table(&dynamodb(endpoint), &table).await.unwrap();
    table::create_table(&dynamodb(endpoint), &table).await.unwrap();
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
    let approver = Approver { principal: Principal::new("webhook", "ci", by).unwrap(), person: None, name: None };
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
    let no_rule = Policy::default().snapshot_for("prod", &connection);
    let policy = PolicySnapshot { rule: Some("r".into()), channels: vec!["netops".into()], ..no_rule };
    let eligible = |principal: &Principal| Some(Approver { principal: principal.clone(), person: None, name: None });
    let review =
        Review { id: &id, connection: &connection, policy: &policy, findings: &[], eligible_approver: &eligible };
    let mut approval = Approval::apply_decision(None, &review, decision).unwrap();
    // Only the call is left to do.
    deliver_everything(&mut approval, at);
    approval
}

/// The only channel has every notification.
fn deliver_everything(approval: &mut Approval, at: Timestamp) {
    let numbers: Vec<_> = approval.outbox().iter().map(|notification| notification.number).collect();
    for number in numbers {
        let display = ChannelDisplay::Unchanged;
        approval.apply_event(&Event::Delivered { number, channel: "netops".into(), display }, at);
    }
}

/// Promises of the store: a test for each promise and each implementation of DynamoDB.
macro_rules! store_promises {
    ($($promise:ident: $on_dynoxide:ident, $on_moto:ident;)*) => {$(
        #[tokio::test]
        async fn $on_dynoxide() {
            promises::$promise(Backend::start(spawn_table().await).await).await;
        }

        #[tokio::test]
        async fn $on_moto() {
            promises::$promise(Backend::start(SHARED_MOTO.url.clone()).await).await;
        }
    )*};
}

store_promises! {
    first_save_wins: first_save_wins_on_dynoxide, first_save_wins_on_moto;
    losing_save_returns_the_winner: losing_save_returns_the_winner_on_dynoxide, losing_save_returns_the_winner_on_moto;
    repeated_save_succeeds: repeated_save_succeeds_on_dynoxide, repeated_save_succeeds_on_moto;
    stale_update_applies_to_the_current_record:
        stale_update_applies_to_the_current_record_on_dynoxide, stale_update_applies_to_the_current_record_on_moto;
    due_index_lists_due_records_in_order:
        due_index_lists_due_records_in_order_on_dynoxide, due_index_lists_due_records_in_order_on_moto;
    batch_read_returns_only_existing_records:
        batch_read_returns_only_existing_records_on_dynoxide, batch_read_returns_only_existing_records_on_moto;
    scan_returns_every_record: scan_returns_every_record_on_dynoxide, scan_returns_every_record_on_moto;
    final_record_gets_a_ttl_and_leaves_the_index:
        final_record_gets_a_ttl_and_leaves_the_index_on_dynoxide, final_record_gets_a_ttl_and_leaves_the_index_on_moto;
    copy_replaces_only_what_was_scanned:
        copy_replaces_only_what_was_scanned_on_dynoxide, copy_replaces_only_what_was_scanned_on_moto;
    forty_racing_saves_have_one_winner:
        forty_racing_saves_have_one_winner_on_dynoxide, forty_racing_saves_have_one_winner_on_moto;
}

/// A table of its own.
struct Backend {
    store: Store,
    endpoint: String,
    table: String,
}

impl Backend {
    async fn start(endpoint: String) -> Self {
        let (store, table) = store_at(&endpoint).await;
        Self { store, endpoint, table }
    }

    async fn save_first(&self, approval: &Approval) -> Stored {
        let Saved::Done(stored) = self.store.save(approval, None).await.unwrap() else { panic!("it is the first") };
        stored
    }

    async fn ttl(&self, id: &ApprovalId) -> Option<AttributeValue> {
        attribute(&self.endpoint, &self.table, id, "ttl").await
    }
}

mod promises {
    use super::*;

    pub async fn first_save_wins(backend: Backend) {
        let approval = approval("pcc-a", "alice", clock::now());
        assert!(backend.store.load(approval.id()).await.unwrap().is_none());
        let stored = backend.save_first(&approval).await;
        assert_eq!((stored.version, &stored.approval), (1, &approval));
        assert_eq!(backend.store.load(approval.id()).await.unwrap().unwrap(), stored);
    }

    pub async fn losing_save_returns_the_winner(backend: Backend) {
        let (winner, loser) = (approval("pcc-a", "alice", clock::now()), approval("pcc-a", "bob", clock::now()));
        backend.save_first(&winner).await;
        let saved = backend.store.save(&loser, None).await.unwrap();
        let Saved::Conflict(theirs) = saved else { panic!("alice was first") };
        assert_eq!(theirs.approval.winner().unwrap().by.principal.as_str(), "webhook:ci/alice");
    }

    /// The reply to the first was lost.
    pub async fn repeated_save_succeeds(backend: Backend) {
        let approval = approval("pcc-a", "alice", clock::now());
        let stored = backend.save_first(&approval).await;
        assert_eq!(backend.save_first(&approval).await, stored);
    }

    pub async fn stale_update_applies_to_the_current_record(backend: Backend) {
        let now = clock::now();
        let accept = |approval: &mut Approval| approval.apply_event(&Event::Accepted { request_id: "R".into() }, now);
        let stored = backend.save_first(&approval("pcc-a", "alice", now)).await;
        let updated = backend.store.update(stored.clone(), accept).await.unwrap();
        assert_eq!(updated.version, 2);
        let stale = backend.store.update(stored, accept).await.unwrap();
        assert_eq!(stale, updated, "applied to the record of another writer, it changes nothing");
    }

    pub async fn due_index_lists_due_records_in_order(backend: Backend) {
        let now = clock::now();
        for name in ["a", "b", "c"] {
            backend.save_first(&approval(&format!("pcc-{name}"), "alice", now)).await;
        }
        let later = approval("pcc-d", "alice", now + SignedDuration::from_secs(30));
        backend.save_first(&later).await;
        let StorePage { items: due, next: more } =
            backend.store.due_entries(now + SignedDuration::from_secs(20), None).await.unwrap();
        assert_eq!((due.len(), more), (3, None), "only what is due");
        let due = backend.store.due_entries(now + SignedDuration::from_secs(60), None).await.unwrap().items;
        assert_eq!(due.len(), 4);
        let at: Vec<_> = due.iter().map(|entry| entry.due_at).collect();
        assert!(at.is_sorted(), "{at:?}");
        for entry in due {
            let approval = backend.store.load(&entry.id).await.unwrap().unwrap().approval;
            let millis = |at: Timestamp| at.as_millisecond();
            assert_eq!((&entry.region, entry.state), (&approval.connection().accepter.region, approval.index_state()));
            assert_eq!(millis(entry.due_at), millis(approval.due_at().unwrap()));
            assert_eq!(entry.work_at.map(millis), approval.work_at().map(millis));
        }
    }

    pub async fn batch_read_returns_only_existing_records(backend: Backend) {
        let stored = backend.save_first(&approval("pcc-a", "alice", clock::now())).await;
        let missing = |number| ApprovalId {
            target: "prod".into(),
            instance_id: InstanceId::parse(&format!("pcc-none{number}")).unwrap(),
        };
        let ids: Vec<_> = (0..150).map(missing).chain([stored.approval.id().clone()]).collect();
        let mut known = backend.store.load_many(&ids).await.unwrap();
        assert_eq!(known.len(), 1, "in two batches");
        assert_eq!(known.remove(stored.approval.id()).unwrap().unwrap(), stored);
    }

    pub async fn scan_returns_every_record(backend: Backend) {
        for name in ["a", "b", "c", "d"] {
            backend.save_first(&approval(&format!("pcc-{name}"), "alice", clock::now())).await;
        }
        let StorePage { items: scanned, next: more } = backend.store.scan_records(None).await.unwrap();
        let mut ids: Vec<_> = scanned.iter().map(|scanned| scanned.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!((ids, more), (vec!["prod/pcc-a", "prod/pcc-b", "prod/pcc-c", "prod/pcc-d"], None));
        assert!(scanned.iter().all(|scanned| scanned.record["schema"] == 2 && scanned.stored.is_ok()));
    }

    pub async fn final_record_gets_a_ttl_and_leaves_the_index(backend: Backend) {
        let now = clock::now();
        let stored = backend.save_first(&approval("pcc-a", "alice", now)).await;
        let id = stored.approval.id().clone();
        assert_eq!(backend.ttl(&id).await, None, "a record with open work is kept");
        let end = |approval: &mut Approval| {
            let rejected = Connection { status: Status::Rejected, ..approval.connection().clone() };
            let ended = approval.apply_event(&Event::Observed(Box::new(rejected)), now);
            deliver_everything(approval, now);
            ended
        };
        let ended = backend.store.update(stored, end).await.unwrap();
        assert_eq!(ended.approval.due_at(), None);
        let ttl = AttributeValue::N((now.as_second() + 400 * 24 * 3600).to_string());
        assert_eq!(backend.ttl(&id).await, Some(ttl));
        let due = backend.store.due_entries(now + SignedDuration::from_secs(60), None).await.unwrap().items;
        assert_eq!(due.len(), 0, "an ended record is not due");
        let active = backend.save_first(&approval("pcc-b", "alice", now)).await;
        let activate = |approval: &mut Approval| {
            let usable = Connection { status: Status::Activated, ..approval.connection().clone() };
            let activated = approval.apply_event(&Event::Observed(Box::new(usable)), now);
            deliver_everything(approval, now);
            activated
        };
        let active = backend.store.update(active, activate).await.unwrap().approval;
        assert_eq!((active.state().name(), active.due_at()), ("activated", None));
        assert_eq!(backend.ttl(active.id()).await, None, "an activated connection is followed for life");
    }

    pub async fn copy_replaces_only_what_was_scanned(backend: Backend) {
        let store = &backend.store;
        let before = backend.save_first(&approval("pcc-a", "alice", clock::now())).await;
        let scanned = store.scan_records(None).await.unwrap().items;
        let copy = &scanned[0];
        let accept =
            |approval: &mut Approval| approval.apply_event(&Event::Accepted { request_id: "R".into() }, clock::now());
        store.update(before.clone(), accept).await.unwrap();
        assert!(!store.restore_record(copy, None).await.unwrap(), "something is there");
        assert!(!store.restore_record(copy, Some(copy)).await.unwrap(), "another writer has changed it");
        let now = store.scan_records(None).await.unwrap().items;
        assert!(store.restore_record(copy, Some(&now[0])).await.unwrap());
        let version = now[0].stored.as_ref().unwrap().version + 1;
        let restored = store.load(before.approval.id()).await.unwrap().unwrap();
        assert_eq!(restored, Stored::new(before.approval, version));
    }

    pub async fn forty_racing_saves_have_one_winner(backend: Backend) {
        let now = clock::now();
        let racers = (0..40).map(|racer| {
            let (store, approval) = (backend.store.clone(), approval("pcc-race", &format!("racer{racer}"), now));
            async move { matches!(store.save(&approval, None).await.unwrap(), Saved::Done(_)) }
        });
        assert_eq!(join_all(racers).await.into_iter().filter(|won| *won).count(), 1);
    }
}

fn dynamodb(endpoint: &str) -> aws_sdk_dynamodb::Client {
    let aws = AwsEnvironment { dynamodb_endpoint: Some(endpoint.into()), ..environment() };
    aws::dynamodb_client(&aws, http::new_client().unwrap())
}

async fn attribute(endpoint: &str, table: &str, id: &ApprovalId, name: &str) -> Option<AttributeValue> {
    let key = AttributeValue::S(id.to_string());
    let response = dynamodb(endpoint).get_item().table_name(table).key("id", key).send().await.unwrap();
    response.item.unwrap().remove(name)
}

/// Turns a record into one of a future version.
async fn age(endpoint: &str, table: &str, id: &ApprovalId) {
    let client = dynamodb(endpoint);
    let update = client.update_item().table_name(table).key("id", AttributeValue::S(id.to_string()));
    let update = update.update_expression("SET #record = :record").expression_attribute_names("#record", "record");
    let record = AttributeValue::S(r#"{"schema": 99, "shape": "unheard of"}"#.into());
    update.expression_attribute_values(":record", record).send().await.unwrap();
}

#[tokio::test]
async fn newer_record_is_refused_and_not_rewritten() {
    let endpoint = spawn_table().await;
    let (store, table) = store_at(&endpoint).await;
    let approval = approval("pcc-a", "alice", clock::now());
    store.save(&approval, None).await.unwrap();
    age(&endpoint, &table, approval.id()).await;
    let error = store.load(approval.id()).await.unwrap_err();
    assert!(matches!(error, store::Error::Unreadable { problem, .. } if problem.contains("newer version")));
    let error = store.save(&approval, None).await.unwrap_err();
    assert!(matches!(error, store::Error::Unreadable { .. }));
    let errors = store.load_many(std::slice::from_ref(approval.id())).await.unwrap();
    assert!(errors[approval.id()].is_err(), "the others are still worked on");
}

/// DynamoDB that answers a `BatchGetItem` in part: one record at a time, `good` times, and then not at all.
async fn in_parts(behind: EmbeddedTable, good: usize) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answered = Arc::new(AtomicUsize::new(0));
    let response = move |body: String| {
        let (behind, answered) = (behind.clone(), Arc::clone(&answered));
        async move {
            if answered.fetch_add(1, Ordering::SeqCst) >= good {
                return (StatusCode::BAD_REQUEST, r#"{"__type": "a.b#ThrottlingException"}"#.to_owned());
            }
            let mut asked: Value = serde_json::from_str(&body).unwrap();
            let (table, keys) = asked["RequestItems"].as_object_mut().unwrap().iter_mut().next().unwrap();
            let (table, all) = (table.clone(), keys["Keys"].as_array_mut().unwrap());
            let left = all.split_off(1);
            let response = behind.answer("BatchGetItem", asked.to_string().as_bytes());
            let mut response: Value = serde_json::from_str(&response.body).unwrap();
            if !left.is_empty() {
                response["UnprocessedKeys"] = serde_json::json!({table: {"Keys": left}});
            }
            (StatusCode::OK, response.to_string())
        }
    };
    tokio::spawn(async { axum::serve(listener, axum::Router::new().fallback(response)).await });
    url
}

#[tokio::test]
async fn unprocessed_batch_keys_are_requested_again() {
    let (embedded, table) = (EmbeddedTable::in_memory().unwrap(), "peergate".to_owned());
    embedded.create(&table).await.unwrap();
    let sdk = aws::dynamodb_sdk_config(&embedded.environment(&environment()), http::new_client().unwrap());
    let store = Store::new(&sdk, None, None, table.clone(), SignedDuration::from_hours(24));
    let approvals: Vec<_> = (0..4).map(|number| approval(&format!("pcc-{number}"), "alice", clock::now())).collect();
    for approval in &approvals[..3] {
        store.save(approval, None).await.unwrap();
    }
    let ids: Vec<_> = approvals.iter().map(|approval| approval.id().clone()).collect();
    let sdk = aws::sdk_config(&environment(), http::new_client().unwrap());
    let load = async |good| {
        let endpoint = in_parts(embedded.clone(), good).await;
        let retention = SignedDuration::from_hours(24);
        Store::new(&sdk, Some(&endpoint), http::new_client().unwrap(), table.clone(), retention).load_many(&ids).await
    };
    let all = load(usize::MAX).await.unwrap();
    assert_eq!((all.len(), all.values().filter(|record| record.is_ok()).count()), (3, 3), "the last is not there");
    let some = load(2).await.unwrap();
    let read = some.values().filter(|record| record.is_ok()).count();
    // The missing record may be among those that were requested.
    assert!((1..=2).contains(&read) && some.len() == read + 2, "nothing unread is taken for new: {some:?}");
    assert!(matches!(load(0).await, Err(store::Error::Unavailable(code)) if code == "ThrottlingException"));
}

#[tokio::test]
async fn secrets_survive_the_loss_of_secrets_manager() {
    const CONFIG: &str = "[targets.prod]\naccount = \"2222222222222222\"\nregions = []\n";
    let moto = Moto::start();
    let sdk = aws::sdk_config(&environment(), http::new_client().unwrap());
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
    assert!(
        matches!(&error, secrets::Error::Unavailable(text) if text.ends_with("from AWS Secrets Manager: ResourceNotFoundException")),
        "{error}"
    );

    drop(moto);
    let much_later = later + SignedDuration::from_hours(5);
    assert_eq!(store.current(much_later).await.unwrap().targets["prod"].access_key_secret.expose(), "two");
}

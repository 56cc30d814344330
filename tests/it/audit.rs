//! The auditor's commands, run as programs over a table in a file.

use std::process::{Command, Output};

use crate::support::prelude::*;
use aws_sdk_dynamodb::types::AttributeValue;
use peergate::aws::AwsEnvironment;
use peergate::local::table::server::serve_table;
use peergate::local::table::{EmbeddedTable, KeyPair};
use peergate::store::Store;
use peergate::{aws, http};
use sha2::Digest;

type Item = std::collections::HashMap<String, AttributeValue>;

/// A table in a file with three records: one activated by two people, one rejected, one that waits.
struct Audited {
    directory: tempfile::TempDir,
    client: aws_sdk_dynamodb::Client,
    ids: [InstanceId; 3],
}

impl Audited {
    async fn new() -> Self {
        let app = TestApp::start().await;
        let two = app.new_request_for("vpc-two-people").await;
        let (rejected, waits) = (app.new_request().await, app.new_request().await);
        app.discover().await;
        for (verb, id, actor) in [("approve", &two, "alice"), ("approve", &two, "bob"), ("reject", &rejected, "bob")] {
            let mut spec = app.blind_spec(verb, id, actor);
            spec.reason = Some("ticket\u{202E} 42".into());
            app.send_spec(&spec).await;
        }
        app.follow().await;
        let directory = tempfile::tempdir().unwrap();
        let table = EmbeddedTable::open(&directory.path().join("peergate.db")).unwrap();
        table.create("peergate").await.unwrap();
        let (aws, http) = (table.environment(&AwsEnvironment::local()), http::new_client().unwrap());
        let sdk = aws::dynamodb_sdk_config(&aws, &http);
        let store = Store::new(&sdk, None, None, "peergate".into(), jiff::SignedDuration::from_hours(1));
        let ids = [two, rejected, waits];
        for id in &ids {
            store.save(&app.approval(id).await, None).await.unwrap();
        }
        Self { directory, client: aws::dynamodb_client(&aws, &http), ids }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peergate"));
        command.current_dir(self.directory.path()).args(arguments).env_remove("AWS_ENDPOINT_URL").output().unwrap()
    }

    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refuses(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Somebody who may write to the table edits a record.
    async fn edit(&self, id: &InstanceId, change: impl FnOnce(&mut Value)) {
        let mut item = self.item(id).await;
        let mut record: Value = serde_json::from_str(item["record"].as_s().unwrap()).unwrap();
        change(&mut record);
        item.insert("record".into(), AttributeValue::S(record.to_string()));
        self.put(item).await;
    }

    async fn item(&self, id: &InstanceId) -> Item {
        let key = AttributeValue::S(format!("prod/{id}"));
        self.client.get_item().table_name("peergate").key("id", key).send().await.unwrap().item.unwrap()
    }

    async fn put(&self, item: Item) {
        self.client.put_item().table_name("peergate").set_item(Some(item)).send().await.unwrap();
    }

    /// As [`Audited::edit`], by somebody who knows how the digest is made.
    async fn forge(&self, id: &InstanceId, change: impl FnOnce(&mut Value)) {
        self.edit(id, change).await;
        let mut item = self.item(id).await;
        let mut hash = sha2::Sha256::new();
        for field in ["peergate/record/1", &format!("prod/{id}"), item["record"].as_s().unwrap()] {
            hash.update(u64::try_from(field.len()).unwrap().to_be_bytes());
            hash.update(field.as_bytes());
        }
        item.insert("digest".into(), AttributeValue::S(hex::encode(hash.finalize())));
        self.put(item).await;
    }

    fn export_to(&self, name: &str) -> String {
        let exported = self.prints(&["export"]);
        std::fs::write(self.directory.path().join(name), &exported).unwrap();
        exported
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edited_record_is_restored_from_a_copy_of_the_file() {
    let audited = Audited::new().await;
    let [two, rejected, _] = &audited.ids;
    let shown = audited.prints(&["show", rejected.as_str()]);
    audited.prints(&["verify"]);
    for part in ["", "-wal"] {
        let path = |name: &str| audited.directory.path().join(format!("{name}.db{part}"));
        std::fs::copy(path("peergate"), path("copy")).unwrap();
    }
    audited.edit(two, |record| record["history"][1]["at"] = "2026-01-01T00:00:00Z".into()).await;
    let key = AttributeValue::S(format!("prod/{rejected}"));
    audited.client.delete_item().table_name("peergate").key("id", key).send().await.unwrap();
    audited.refuses(&["restore", "--from", "copy.db"]);
    audited.refuses(&["verify"]);
    assert_eq!(audited.prints(&["show", rejected.as_str()]), shown);
    audited.prints(&["restore", "--from", "copy.db", "--replace"]);
    assert!(audited.prints(&["verify"]).starts_with("3 records "));
    assert!(audited.refuses(&["restore", "--from", "none.db"]).contains("there is no table at none.db"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_shows_open_or_all_records() {
    let audited = Audited::new().await;
    let [two, rejected, waits] = &audited.ids;
    let list = audited.prints(&["list"]);
    assert!(list.starts_with("1 VPC peering is pending or in progress\n"), "{list}");
    assert!(list.contains(&format!("prod/{waits}: pending, 0 of 1 approval; since ")), "{list}");
    let all = audited.prints(&["list", "--all"]);
    assert!(all.lines().count() == 3 && all.contains(&format!("prod/{two}: activated")), "{all}");
    assert!(all.contains(&format!("prod/{rejected}: rejected")), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn show_prints_the_history_of_a_record() {
    let audited = Audited::new().await;
    let two = &audited.ids[0];
    let shown = audited.prints(&["show", two.as_str()]);
    assert_eq!(shown, audited.prints(&["show", &format!("prod/{two}")]));
    for part in [
        "is Activated",
        "discovered; the rule “two people” requires 2 approvals; of ",
        "approved by alice (webhook:ci/alice) (ticket 42); of ",
        "Alibaba Cloud acknowledged AcceptVpcPeerConnection, request ",
        "Alibaba Cloud shows it as Activated",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains('\u{202E}'), "text of outsiders does not control the terminal");
    assert!(audited.refuses(&["show", "pcc-unknown"]).contains("there is no record of pcc-unknown"));
    assert!(audited.refuses(&["show", "vpc-1"]).contains("not a peering connection id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistyped_id_or_channel_is_answered_with_what_exists() {
    let audited = Audited::new().await;
    let two = audited.ids[0].as_str();
    let mistyped = [&two[..6], &two[7..]].concat();
    let meant = format!("there is no record of {mistyped}; did you mean {two}?");
    assert!(audited.refuses(&["show", &mistyped]).contains(&meant), "{meant}");
    let meant = format!("there is no record of prod/{mistyped}; did you mean prod/{two}?");
    assert!(audited.refuses(&["show", &format!("prod/{mistyped}")]).contains(&meant), "{meant}");
    let meant = format!("there is no record of prd/{two}; did you mean prod/{two}?");
    assert!(audited.refuses(&["show", &format!("prd/{two}")]).contains(&meant), "{meant}");
    let unlike = audited.refuses(&["show", "pcc-qqqqqqqqqqqqqqqqqqqqqqqq"]);
    assert!(unlike.contains("among 3 records; `peergate list --all` lists them"), "{unlike}");
    let unknown = audited.refuses(&["redrive", "--channel", "nope"]);
    let known = "no channel is named nope: the records and the configuration have audit, hook, netops";
    assert!(unknown.contains(known), "{unknown}");
    assert!(audited.prints(&["redrive", "--channel", "netops"]).starts_with("made 0 notifications"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_prints_every_entry_in_order() {
    let audited = Audited::new().await;
    let [two, rejected, waits] = &audited.ids;
    let exported = audited.prints(&["export"]);
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |id: &InstanceId| lines.iter().filter(|line| line["id"] == format!("prod/{id}")).count();
    assert_eq!([of(two), of(rejected), of(waits)], [5, 3, 1], "{exported}");
    let times: Vec<_> =
        lines.iter().map(|line| line["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()).collect();
    assert!(times.is_sorted());
    let decided = lines.iter().find(|line| line["what"]["decided"]["verdict"] == "reject").unwrap();
    assert_eq!(decided["what"]["decided"]["by"]["principal"], "webhook:ci/bob");
    assert_eq!(decided["what"]["decided"]["fingerprint"].as_str().unwrap().len(), 64);
    assert_eq!(audited.prints(&["export", "--since", "2099-01-01"]), "");
    assert_eq!(audited.prints(&["export", "--since", "2020-01-01T00:00:00Z"]), exported);
    assert!(audited.refuses(&["export", "--since", "yesterday"]).contains("expected e.g. 2026-11-22"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edited_record_is_detected() {
    let audited = Audited::new().await;
    let [two, rejected, waits] = &audited.ids;
    assert_eq!(audited.prints(&["verify"]), "3 records with 9 entries: all valid\n");
    audited.edit(two, |record| record["history"][1]["what"]["decided"]["by"]["person"] = "mallory".into()).await;
    let wrong = audited.refuses(&["verify"]);
    assert!(wrong.contains(&format!("prod/{two}: entry 1 does not follow from those before it")), "{wrong}");
    audited.edit(rejected, |record| record["state"] = "activated".into()).await;
    audited
        .edit(waits, |record| record["decisions"] = serde_json::json!([{"verdict": "approve", "request_key": "k"}]))
        .await;
    let wrong = audited.refuses(&["verify"]);
    assert!(wrong.contains("problems in 3 records"), "{wrong}");
    for id in [two, rejected, waits] {
        assert!(wrong.contains(&format!("prod/{id}: the digest is not the record's")), "{wrong}");
    }
    assert!(wrong.contains(&format!("prod/{rejected}: the record's state is not that of its last entry")), "{wrong}");
    assert!(
        wrong.contains(&format!("prod/{waits}: the record's decisions are not those that count in its history")),
        "{wrong}"
    );
    let list = audited.prints(&["list", "--all"]);
    assert!(list.contains(&format!("the record of prod/{waits} cannot be read")), "{list}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_forged_field_of_a_record_is_named() {
    type Forgery = (fn(&mut Value), &'static str);
    let forgeries: [Forgery; 6] = [
        (|record| record["generation"] = 2.into(), "the record's generation is not that of its history"),
        (
            |record| record["client_token"] = "pg1-0".into(),
            "the record's client token is not derived from its decision",
        ),
        (|record| record["extra"] = 1.into(), "unknown or altered field /extra"),
        (|record| record["history"][0]["what"]["discovered"]["extra"] = 1.into(), "entry 0 does not follow"),
        (|record| record["facts"]["bandwidth_mbps"] = 9.into(), "the record's facts are not those of its fingerprint"),
        (|record| record["own_call"]["more"] = true.into(), "unknown or altered field /own_call/more"),
    ];
    let audited = Audited::new().await;
    let genuine = audited.item(&audited.ids[0]).await;
    for (forgery, named) in forgeries {
        audited.forge(&audited.ids[0], forgery).await;
        let problems = audited.refuses(&["verify"]);
        assert!(problems.contains(named), "{named}: {problems}");
        audited.put(genuine.clone()).await;
    }
    audited.prints(&["verify"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_item_around_a_record_is_named() {
    let audited = Audited::new().await;
    let genuine = audited.item(&audited.ids[0]).await;
    let change = async |change: fn(&mut Item)| {
        let mut item = genuine.clone();
        change(&mut item);
        audited.put(item).await;
        audited.refuses(&["verify"])
    };
    let problems = change(|item| {
        item.insert("note".into(), AttributeValue::S("x".into()));
    });
    assert!(problems.await.contains("unknown attribute \"note\""));
    let problems = change(|item| {
        let record = item["record"].as_s().unwrap().replacen('{', "{\"state\":\"pending\",", 1);
        item.insert("record".into(), AttributeValue::S(record));
    });
    assert!(problems.await.contains("the key \"state\" is repeated"));
    let problems = change(|item| {
        item.remove("digest");
    });
    assert!(problems.await.contains("no digest"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_without_matching_entries_is_refused() {
    let audited = Audited::new().await;
    let against = |name: &'static str| audited.refuses(&["verify", "--against", name]);
    std::fs::write(audited.directory.path().join("empty.jsonl"), "\n").unwrap();
    assert!(against("empty.jsonl").contains("the export has no entries"));
    let exported = audited.export_to("other.jsonl").replace("prod/pcc-", "prod/pcc-x");
    std::fs::write(audited.directory.path().join("other.jsonl"), &exported).unwrap();
    assert!(against("other.jsonl").contains("this table has no entry of the export"));
    // The hash is unchanged, the content is not.
    let edited = audited.export_to("edited.jsonl").replace("alice", "mallory");
    std::fs::write(audited.directory.path().join("edited.jsonl"), edited).unwrap();
    assert!(against("edited.jsonl").contains("differs from the export"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exported_history_cannot_be_shortened_or_rewritten() {
    let audited = Audited::new().await;
    let [two, rejected, waits] = &audited.ids;
    audited.export_to("earlier.jsonl");
    let against = ["verify", "--against", "earlier.jsonl"];
    assert_eq!(audited.prints(&against), "3 records with 9 entries: all valid, 9 as in the export\n");
    // The tail is cut off and the state is made to fit: the chain alone holds.
    audited
        .forge(two, |record| {
            record["history"].as_array_mut().unwrap().truncate(1);
            record["state"] = "pending".into();
            record["decisions"] = serde_json::json!([]);
            record["client_token"] = Value::Null;
        })
        .await;
    assert!(audited.prints(&["verify"]).contains("all valid"));
    let problems = audited.refuses(&against);
    assert!(problems.contains(&format!("prod/{two}: entry 4 is missing")), "{problems}");
    // A record is taken away; another takes its place.
    let key = AttributeValue::S(format!("prod/{rejected}"));
    audited.client.delete_item().table_name("peergate").key("id", key).send().await.unwrap();
    let problems = audited.refuses(&against);
    assert!(problems.contains(&format!("prod/{rejected}: entry 0 is missing")), "{problems}");
    audited.edit(waits, |record| record["history"][0]["hash"] = "0".repeat(64).into()).await;
    let problems = audited.refuses(&against);
    assert!(problems.contains(&format!("prod/{waits}: entry 0 differs from the export")), "{problems}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_table_is_reported() {
    let audited = Audited::new().await;
    assert!(audited.refuses(&["list", "--store", "elsewhere.db"]).contains("there is no table at elsewhere.db"));
    assert!(audited.refuses(&["list", "--aws", "--store", "x"]).contains("cannot be used with"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_reads_the_table_over_the_network() {
    let audited = Audited::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let file = audited.directory.path().join("peergate.db");
    let keys = KeyPair::of(&AwsEnvironment::local());
    tokio::spawn(serve_table(EmbeddedTable::open(&file).unwrap(), keys, listener));
    let mut command = Command::new(env!("CARGO_BIN_EXE_peergate"));
    command.current_dir(audited.directory.path()).args(["verify", "--aws"]).env("AWS_ENDPOINT_URL_DYNAMODB", endpoint);
    for (name, value) in [("AWS_REGION", "local"), ("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local")] {
        command.env(name, value);
    }
    let run = async |mut command: Command| {
        tokio::task::spawn_blocking(move || (command.output().unwrap(), command)).await.unwrap()
    };
    let (output, mut command) = run(command).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 records with 9 entries: all valid\n", "{output:?}");
    command.env("PEERGATE_TABLE", "other");
    let (output, _) = run(command).await;
    let expected = "peergate: there is no table other in AWS, region local: PEERGATE_TABLE names the table\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(1), expected));
}

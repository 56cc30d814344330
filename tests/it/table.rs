//! The table on one machine: who may use it, its backups, its disk, and several processes at once. Also who may use the
//! simulator.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::support::prelude::*;
use axum::http::HeaderMap;
use peergate::aws::{self, AwsEnvironment};
use peergate::local::table::{self, KeyPair};
use reqwest::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt, BufReader};

/// A request to a table.
#[derive(Debug, Clone)]
struct SignedCall {
    headers: HeaderMap,
    body: String,
}

impl SignedCall {
    fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        Self { headers, ..self.clone() }
    }

    fn without_header(&self, name: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.remove(name);
        Self { headers, ..self.clone() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    async fn send(&self, url: &str) -> (u16, String) {
        let client = peergate::http::new_client().unwrap();
        let response = client.post(url).headers(self.headers.clone()).body(self.body.clone()).send().await.unwrap();
        let allowed = response.headers().contains_key("access-control-allow-origin");
        assert!(!allowed, "no web page may read an answer");
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

fn keys() -> AwsEnvironment {
    AwsEnvironment {
        region: "eu-central-1".into(),
        access_key_id: "ours".into(),
        secret_access_key: clock::nonce(),
        ..AwsEnvironment::default()
    }
}

/// What the SDK sends to write an item.
async fn signed_call(aws: &AwsEnvironment) -> SignedCall {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&sent);
    let router = axum::Router::new().fallback(async move |headers: HeaderMap, body: String| {
        *kept.lock().unwrap() = Some(SignedCall { headers, body });
        "{}"
    });
    tokio::spawn(async { axum::serve(listener, router).await });
    let aws = AwsEnvironment { dynamodb_endpoint: Some(endpoint), ..aws.clone() };
    let put = aws::dynamodb_client(&aws, peergate::http::new_client().unwrap()).put_item().table_name("peergate");
    let id = aws_sdk_dynamodb::types::AttributeValue::S("#test".into());
    put.item("id", id).send().await.unwrap();
    sent.lock().unwrap().take().unwrap().without_header("content-length")
}

#[tokio::test]
async fn table_takes_only_requests_signed_with_its_key() {
    let aws = keys();
    let url = table::spawn_table(None, KeyPair::of(&aws)).await.unwrap();
    let served = AwsEnvironment { dynamodb_endpoint: Some(url.clone()), ..aws.clone() };
    let client = aws::dynamodb_client(&served, peergate::http::new_client().unwrap());
    table::create_table(&client, "peergate").await.unwrap();
    let good = signed_call(&aws).await;
    let wrong_secret = signed_call(&AwsEnvironment { secret_access_key: "guessed".into(), ..aws.clone() }).await;
    let other_key = signed_call(&AwsEnvironment { access_key_id: "theirs".into(), ..aws.clone() }).await;
    let authorization = good.header("authorization").to_owned();
    let edited = |from: &str, to: &str| good.with_header("authorization", &authorization.replace(from, to));
    let (_, signature) = authorization.rsplit_once("Signature=").unwrap();
    let flipped = if signature.starts_with('0') { "1" } else { "0" };
    let cases = [
        (good.without_header("authorization"), "MissingAuthenticationTokenException"),
        (good.with_header("authorization", "Bearer x"), "MissingAuthenticationTokenException"),
        (good.with_header("authorization", "AWS4-HMAC-SHA256"), "IncompleteSignatureException"),
        (edited("aws4_request", "aws3_request"), "IncompleteSignatureException"),
        (edited("/dynamodb/", "/s3/"), "IncompleteSignatureException"),
        (edited(signature, "abc"), "IncompleteSignatureException"),
        (edited("host;", ""), "IncompleteSignatureException"),
        (edited(";x-amz-date", ""), "IncompleteSignatureException"),
        (edited(";x-amz-target", ""), "IncompleteSignatureException"),
        (good.with_header("x-amz-more", "unsigned"), "IncompleteSignatureException"),
        (other_key, "UnrecognizedClientException"),
        (wrong_secret, "InvalidSignatureException"),
        (edited(signature, &format!("{flipped}{}", &signature[1..])), "InvalidSignatureException"),
        (edited("eu-central-1", "eu-west-1"), "InvalidSignatureException"),
        (SignedCall { body: good.body.replace("#test", "#edit"), ..good.clone() }, "InvalidSignatureException"),
        (good.with_header("x-amz-target", "DynamoDB_20120810.DeleteItem"), "InvalidSignatureException"),
        (good.with_header("x-amz-date", "20200101T000000Z"), "InvalidSignatureException"),
        (good.with_header("x-amz-date", "soon"), "InvalidSignatureException"),
        (good.with_header("host", "localhost"), "InvalidSignatureException"),
    ];
    for (call, code) in cases {
        let (status, body) = call.send(&url).await;
        assert_eq!(status, 403, "{call:?}: {body}");
        assert!(body.contains(code) && body.contains("__type"), "{code}: {body}");
        assert!(!body.contains(&aws.secret_access_key));
    }
    let count = client.scan().table_name("peergate").send().await.unwrap().count;
    assert_eq!(count, 0, "nothing was written");
    // The same request, signed and unchanged.
    let host = good.header("host").to_owned();
    assert_eq!(good.with_header("host", &host).send(&url).await.0, 200);
    assert_eq!(client.scan().table_name("peergate").send().await.unwrap().count, 1);
}

#[tokio::test]
async fn stale_signature_is_refused_after_fifteen_minutes() {
    let aws = keys();
    let url = table::spawn_table(None, KeyPair::of(&aws)).await.unwrap();
    // No table is there, so that a request that passes gets another error.
    let call = signed_call(&aws).await;
    assert!(call.send(&url).await.1.contains("ResourceNotFoundException"));
    let day = &call.header("x-amz-date")[..8];
    let hour: u32 = call.header("x-amz-date")[9..11].parse().unwrap();
    let other = format!("{day}T{:02}0000Z", (hour + 12) % 24);
    let (status, body) = call.with_header("x-amz-date", &other).send(&url).await;
    assert!(status == 403 && body.contains("15 minutes"), "{body}");
}

#[tokio::test]
async fn table_and_simulator_answer_no_web_page_and_no_other_host() {
    let aws = keys();
    let table = table::spawn_table(None, KeyPair::of(&aws)).await.unwrap();
    let app = TestApp::start().await;
    let simulator = app.alicloud_url.to_string();
    let call = signed_call(&aws).await;
    for url in
        [table, simulator.clone(), format!("{simulator}_simulator/journal"), format!("{simulator}_simulator/faults")]
    {
        for (name, value, words) in [
            ("origin", "https://evil.example", "Origin header"),
            ("origin", "null", "Origin header"),
            ("host", "evil.example", "Host header"),
            ("host", "192.0.2.1:8000", "Host header"),
        ] {
            let (status, body) = call.with_header(name, value).send(&url).await;
            assert!(status == 403 && body.contains(words), "{url} {name}: {status} {body}");
        }
    }
    assert_eq!(app.simulator.journal(), [], "nothing was called");
}

/// The first lines that a server prints.
async fn printed(arguments: &[&str], lines: usize) -> Vec<String> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_peergate"));
    let directory = tempfile::tempdir().unwrap();
    let command = command.args(arguments).env_clear().current_dir(directory.path()).kill_on_drop(true);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut printed = vec![];
    while printed.len() < lines {
        printed.push(output.next_line().await.unwrap().expect("another line"));
    }
    printed
}

#[tokio::test]
async fn simulator_makes_new_keys_and_random_ids() {
    let arguments = ["simulate", "--request"];
    let (one, other) = (printed(&arguments, 4).await, printed(&arguments, 4).await);
    assert!(one[0].starts_with("listening on http://127.0.0.1:"), "{one:?}");
    for line in [1, 2] {
        let account = |lines: &[String]| serde_json::from_str::<Value>(&lines[line]).unwrap();
        let (one, other) = (account(&one), account(&other));
        assert_eq!(one["account"], other["account"]);
        for secret in ["access_key_id", "access_key_secret"] {
            assert_ne!(one[secret], other[secret]);
            assert!(one[secret].as_str().unwrap().len() >= 20);
        }
    }
    let id = |line: &String| line.strip_prefix("requested pcc-").unwrap().to_owned();
    assert_ne!(id(&one[3]), id(&other[3]));
    assert!(id(&one[3]).len() >= 14, "{one:?}");
    let known = printed(&["simulate", "--request", "--well-known-keys"], 2).await;
    assert!(known[1].starts_with("requested pcc-"), "{known:?}");
}

#[tokio::test]
async fn table_command_prints_the_keys_that_it_made() {
    let lines = printed(&["table", "--listen", "127.0.0.1:0"], 2).await;
    let keys = lines[1].strip_prefix("export AWS_ACCESS_KEY_ID=").unwrap();
    let (_, secret) = keys.split_once(" AWS_SECRET_ACCESS_KEY=").unwrap();
    assert!(secret.len() >= 32, "{lines:?}");
}

#[tokio::test]
async fn backup_taken_while_serve_writes_has_every_record() {
    let mut machine = Machine::new(quick_settings()).await;
    let mut ids = vec![];
    for number in 0..18 {
        ids.push(machine.app.new_request_for(&format!("vpc-{number}")).await);
    }
    machine.serve(&[]).await;
    let backups = std::cell::Cell::new(0);
    let back_up = async || {
        let file = format!("backup-{}.db", backups.replace(backups.get() + 1));
        let printed = machine.run(&["backup", &file]).await.unwrap();
        let count = machine.run(&["list", "--all", "--store", &file]).await.unwrap().matches("prod/pcc-").count();
        assert!(printed.starts_with(&format!("copied {count} record")), "{printed}");
        assert!(machine.run(&["verify", "--store", &file]).await.unwrap().contains("all valid"));
        count
    };
    // While they are discovered and posted: each backup has at least what the one before has.
    let mut earlier = 0;
    while earlier < 18 {
        let count = back_up().await;
        assert!((earlier..=18).contains(&count), "{count} after {earlier}");
        earlier = count;
    }
    // While they are approved.
    let approvals = futures_util::future::join_all(ids.iter().map(|id| machine.approve(id, "alice")));
    let (answers, one, other) = tokio::join!(approvals, back_up(), back_up());
    assert!(answers.iter().all(|(status, _)| [200, 202].contains(status)), "{answers:?}");
    assert_eq!((one, other), (18, 18));
    let path = machine.directory.path().join("backup-0.db");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let left: Vec<_> = std::fs::read_dir(machine.directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[tokio::test]
async fn backup_replaces_no_file_and_restore_needs_a_copy() {
    let (mut machine, id) = Machine::with_request(quick_settings(), "vpc-one").await;
    machine.run(&["backup", "backup.db"]).await.unwrap();
    for (arguments, words) in [
        (&["backup", "backup.db"][..], "backup.db exists"),
        (&["backup", "peergate.db"], "peergate.db exists"),
        (&["backup", "nowhere/backup.db"], "cannot create nowhere/backup.db"),
        (&["backup", "b.db", "--store", "absent.db"], "there is no table at absent.db"),
        (&["restore", "--from", "peergate.db"], "peergate.db is the table itself"),
        (&["restore", "--from", "./peergate.db"], "is the table itself"),
        (&["restore", "--from", "link.db"], "is the table itself"),
        (&["restore", "--from", "absent.db"], "there is no table at absent.db"),
    ] {
        std::os::unix::fs::symlink("peergate.db", machine.directory.path().join("link.db")).ok();
        let error = machine.run(arguments).await.unwrap_err();
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    assert!(!machine.directory.path().join("b.db").exists());
    let copy = machine.directory.path().join("backup.db");
    let before = std::fs::read(&copy).unwrap();
    machine.kill().await;
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(machine.directory.path().join(format!("peergate.db{suffix}"))).unwrap();
    }
    // Nothing is discovered, so that only the backup has the record.
    machine.app.simulator.set_limits(Duration::ZERO, Some(0));
    machine.serve(&[]).await;
    let restored = machine.run(&["restore", "--from", "backup.db"]).await.unwrap();
    assert!(restored.contains(&format!("prod/{id}: restored")), "{restored}");
    assert!(machine.run(&["verify"]).await.unwrap().starts_with("1 record"));
    assert!(std::fs::read(&copy).unwrap() == before, "the backup stays as it was");
    let left: Vec<_> = std::fs::read_dir(machine.directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("backup.db-")), "{left:?}");
}

#[tokio::test]
async fn backup_on_a_read_only_disk_can_be_restored() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (machine, id) = Machine::with_request(quick_settings(), "vpc-one").await;
    let backup = disk.0.path().join("backup.db").display().to_string();
    machine.run(&["backup", &backup]).await.unwrap();
    assert!(disk.run("mount", &["-o", "remount,ro"]));
    let printed = machine.run(&["restore", "--from", &backup]).await.unwrap();
    assert!(printed.contains("kept 1 that continued"), "{printed}");
    assert!(machine.run(&["show", id.as_str()]).await.unwrap().contains("pending"));
    let error = machine.run(&["backup", &disk.0.path().join("other.db").display().to_string()]).await.unwrap_err();
    assert!(error.contains("cannot create") && error.contains("Read-only file system"), "{error}");
}

#[tokio::test]
async fn several_processes_share_the_file() {
    let mut machine = Machine::new(quick_settings()).await;
    let mut ids = vec![];
    for number in 0..6 {
        ids.push(machine.app.new_request_for(&format!("vpc-{number}")).await);
    }
    machine.serve(&[]).await;
    // All of them discover the same requests.
    let (one, other, third) =
        tokio::join!(machine.run(&["watch", "--once"]), machine.run(&["watch", "--once"]), machine.run(&["verify"]));
    one.unwrap();
    other.unwrap();
    third.unwrap();
    let approvals = futures_util::future::join_all(ids.iter().map(|id| machine.approve(id, "alice")));
    let (answers, watched) = tokio::join!(approvals, machine.run(&["watch", "--once"]));
    watched.unwrap();
    assert!(answers.iter().all(|(status, _)| [200, 202].contains(status)), "{answers:?}");
    for id in &ids {
        machine.wait_for_record(id, "activated").await;
        machine.app.assert_accepts(id, 1);
    }
    assert!(machine.run(&["verify"]).await.unwrap().starts_with("6 records"));
    assert!(!machine.log().contains("TableLocked"), "{}", machine.log());
}

/// A file system of one megabyte, until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` if this process may not mount one.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let disk = Self(directory);
        if disk.run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"]) {
            return Some(disk);
        }
        println!("skipped: only root can mount a small disk");
        None
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        Command::new(program).args(arguments).arg(self.0.path()).output().is_ok_and(|output| output.status.success())
    }

    fn store(&self) -> String {
        self.0.path().join("peergate.db").display().to_string()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run("umount", &["-l"]);
    }
}

#[tokio::test]
async fn full_disk_is_reported_until_it_has_space() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut machine = Machine::new(quick_settings()).await;
    let store = disk.store();
    machine.serve_store(&store).await;
    let filler = disk.0.path().join("filler");
    // As much as there is.
    let _ = std::fs::write(&filler, vec![1; 2 * 1024 * 1024]);
    let id = machine.app.new_request_for("vpc-one").await;
    machine.signal(rustix::process::Signal::HUP);
    let mut others = vec![];
    // The file may have some room left.
    let refused = async {
        while !machine.log().contains("the disk is full") {
            others.push(machine.app.new_request_for(&format!("vpc-{}", others.len())).await);
            let _ = machine.run(&["watch", "--once", "--store", &store]).await;
            let _ = machine.approve(&id, "alice").await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), refused).await.expect("it is full");
    let log = machine.log();
    let line = log.lines().find(|line| line.contains("the disk is full")).unwrap();
    assert!(line.contains("ERROR") && line.contains(&store), "{line}");
    assert_eq!(log.matches("the disk is full").count(), 1, "once: {log}");
    assert!(log.contains("TableDiskFull"), "{log}");
    std::fs::remove_file(&filler).unwrap();
    machine.wait_for("it goes on", async || machine.approve(&id, "alice").await.0 == 200).await;
    machine.wait_for_log("can be written again").await;
    machine.app.assert_accepts(&id, 1);
}

#[tokio::test]
async fn unusable_file_stops_the_start_with_words() {
    let machine = Machine::new(quick_settings()).await;
    let refused =
        async |store: &str| machine.run(&["serve", "--listen", "127.0.0.1:0", "--store", store]).await.unwrap_err();
    let error = refused("nowhere/peergate.db").await;
    assert!(error.contains("cannot create the table nowhere/peergate.db: No such file or directory"), "{error}");
    let path = machine.directory.path();
    std::fs::write(path.join("text.db"), "this is no database, but a longer text without any sense".repeat(40))
        .unwrap();
    let error = refused("text.db").await;
    assert!(error.contains("cannot open the table text.db: it is damaged, or it is no table"), "{error}");
    std::fs::create_dir(path.join("folder.db")).unwrap();
    let error = refused("folder.db").await;
    assert!(error.contains("cannot write the table folder.db: Is a directory"), "{error}");
    let Some(disk) = SmallDisk::mount() else { return };
    let store = disk.store();
    machine.run(&["watch", "--once", "--store", &store]).await.unwrap();
    assert!(disk.run("mount", &["-o", "remount,ro"]));
    let error = refused(&store).await;
    assert!(error.contains(&format!("cannot write the table {store}: Read-only file system")), "{error}");
    let error = refused(&disk.0.path().join("new.db").display().to_string()).await;
    assert!(error.contains("cannot create the table") && error.contains("Read-only file system"), "{error}");
}

#[tokio::test]
async fn records_whose_retention_is_over_are_deleted() {
    let (mut machine, id) = Machine::with_request(quick_settings(), "vpc-one").await;
    machine.kill().await;
    let path = machine.directory.path().join("peergate.db");
    {
        let table = table::EmbeddedTable::open(&path).unwrap();
        let client =
            aws::dynamodb_client(&table.environment(&AwsEnvironment::local()), peergate::http::new_client().unwrap());
        let number = |number: i64| aws_sdk_dynamodb::types::AttributeValue::N(number.to_string());
        let key = |id: &str| aws_sdk_dynamodb::types::AttributeValue::S(id.into());
        let put = client.put_item().table_name("peergate");
        put.item("id", key("prod/pcc-old")).item("ttl", number(clock::now().as_second() - 60)).send().await.unwrap();
        let put = client.put_item().table_name("peergate");
        put.item("id", key("#kept")).item("ttl", number(clock::now().as_second() + 3600)).send().await.unwrap();
    }
    machine.serve(&[]).await;
    machine.wait_for_log("outcome=\"expired\" deleted=1").await;
    assert!(machine.run(&["show", id.as_str()]).await.unwrap().contains("pending"));
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_hardened() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/peergate.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("skipped: systemd-analyze is not installed");
        return;
    }
    // The program of the unit, where this machine has it.
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().join("peergate.service");
    std::fs::write(&here, text.replace("/usr/local/bin/peergate", env!("CARGO_BIN_EXE_peergate"))).unwrap();
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&here).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).unwrap())
    };
    let (accepted, problems) = analyze(&["verify", "--man=no"]);
    assert!(accepted && !problems.contains("peergate.service"), "{problems}");
    let (_, report) = analyze(&["security", "--offline=true", "--no-pager"]);
    let exposure = report.lines().find_map(|line| line.split_once("Overall exposure level for")).unwrap().1;
    let level: f64 = exposure.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(level <= 2.0, "{report}");
}

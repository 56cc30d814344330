//! The contract: `docs/openapi.yaml`, the schemas, and the tables of the documents name the same answers and
//! notifications, and each of them is really sent.

use std::collections::BTreeSet;

use crate::support::contract::{check_answer, openapi, project_file, seen_answers, seen_event_types};
use crate::support::prelude::*;
use bytes::Bytes;
use clap::ValueEnum;
use peergate::chat::EventSpec;
use peergate::chat::platform::Platform;
use peergate::config::{Config, SecretsSource};
use peergate::doctor::{self, Options};
use peergate::fake::dingtalk::{FakeDingTalk, FakeDingTalkSettings};
use peergate::fake::teams::{FakeTeams, FakeTeamsSettings};
use peergate::local::schema::{SchemaKind, schema_text};
use peergate::watch::Tick;
use peergate::{envelope, webhook};
use tokio::time::Instant;

type Answers = BTreeSet<(u16, String)>;

#[test]
fn schemas_are_those_of_the_types() {
    for kind in SchemaKind::value_variants() {
        let name = kind.to_possible_value().unwrap().get_name().to_owned();
        let path = format!("docs/schema/{name}.json");
        let (copy, made) = (project_file(&path), schema_text(*kind));
        let [copy, made] = [copy, made].map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert!(copy == made, "{path} is not what the types say: run `make schemas`");
    }
}

#[test]
fn example_config_fits_the_schema() {
    let schema = serde_json::from_str(&schema_text(SchemaKind::Config)).unwrap();
    let validator = jsonschema::options().should_ignore_unknown_formats(true).build(&schema).unwrap();
    let errors = |text: &str| {
        let file: Value = toml::from_str(text).unwrap();
        validator.iter_errors(&file).map(|error| error.to_string()).collect::<Vec<_>>()
    };
    let example = project_file("peergate.example.toml");
    // The tables and keys that the example shows as comments.
    let is_code = |text: &&str| {
        text.starts_with(|first: char| first == '[' || first.is_ascii_lowercase())
            && toml::from_str::<toml::Table>(text).is_ok()
    };
    let full = example.lines().map(|line| line.strip_prefix("# ").filter(is_code).unwrap_or(line));
    let full = full.collect::<Vec<_>>().join("\n");
    let sandbox = project_file("src/local/sandbox/peergate.toml").replace("SIGNATURE_VERSION", "v3");
    for text in [example.as_str(), full.as_str(), &sandbox] {
        assert_eq!(errors(text), Vec::<String>::new());
    }
    assert!(full.contains("\n[platforms.feishu]") && full.contains("\nenterprise ="), "{full}");
    for (old, new) in [
        ("retention_days = 400", "retention_dayz = 400"),
        ("account = \"2222222222222222\"", "account = 2222222222222222"),
        ("signature = \"v3\"", "signature = \"v2\""),
        ("kind = \"access-key\" }", "kind = \"root\" }"),
        ("kind = \"slack\"", "kind = \"pigeon\""),
    ] {
        assert!(example.contains(old), "{old}");
        assert_ne!(errors(&example.replace(old, new)), Vec::<String>::new(), "{new}");
    }
}

#[test]
fn document_has_the_version_of_the_package() {
    assert_eq!(openapi()["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// The statuses and names of a table whose first columns are these.
fn rows(page: &str, header: &str) -> Vec<(String, String)> {
    let page = project_file(page);
    let table = page.split(header).nth(1).unwrap_or_else(|| panic!("there is no table {header}"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').map(str::trim).map(str::to_owned).collect::<Vec<_>>());
    cells.map(|cells| (cells[1].clone(), cells[2].clone())).collect()
}

/// The names in backticks.
fn names(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The answers in the table of the HTTP API.
fn table_of_answers() -> Answers {
    let mut answers = Answers::new();
    for (statuses, cell) in rows("docs/http-api.md", "| status | outcome or problem | meaning |") {
        let statuses: Vec<u16> = statuses.split(", ").map(|status| status.parse().unwrap()).collect();
        let cell: Vec<_> = names(&cell).collect();
        assert!(statuses.len() == 1 || statuses.len() == cell.len(), "{statuses:?} {cell:?}");
        let status = |position: usize| if statuses.len() == 1 { statuses[0] } else { statuses[position] };
        answers.extend(cell.into_iter().enumerate().map(|(position, name)| (status(position), name)));
    }
    answers
}

/// The answers in the document.
fn documented_answers() -> Answers {
    let mut answers = Answers::new();
    for operation in
        openapi()["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values())
    {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let mut found = BTreeSet::new();
            collect_names(response, &mut found);
            answers.extend(found.into_iter().map(|name| (status.parse().unwrap(), name)));
        }
    }
    answers
}

/// The values of `outcome` and `type` in a schema.
fn collect_names(schema: &Value, found: &mut BTreeSet<String>) {
    if let Some(place) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        collect_names(openapi().pointer(place).unwrap(), found);
    }
    for name in ["outcome", "type"].map(|name| &schema["properties"][name]) {
        let values = name["enum"].as_array().into_iter().flatten().chain(name.get("const"));
        let values = values.map(|value| value.as_str().unwrap().trim_start_matches("urn:peergate:problem:").to_owned());
        found.extend(values);
    }
    let members = schema.as_object().into_iter().flat_map(|members| members.values());
    for member in members.chain(schema.as_array().into_iter().flatten()) {
        collect_names(member, found);
    }
}

/// What is only in the first set, and only in the second.
fn differences<T: Ord + Clone>(one: &BTreeSet<T>, other: &BTreeSet<T>) -> [Vec<T>; 2] {
    [one.difference(other).cloned().collect(), other.difference(one).cloned().collect()]
}

#[test]
fn table_and_document_name_the_same_answers() {
    let [table_only, document_only] = differences(&table_of_answers(), &documented_answers());
    assert!(
        table_only.is_empty() && document_only.is_empty(),
        "only in docs/http-api.md: {table_only:?}; only in docs/openapi.yaml: {document_only:?}"
    );
}

#[test]
fn table_document_and_schema_name_the_same_notifications() {
    let table = rows("docs/standard-webhooks.md", "| type | sent when |").into_iter();
    let mut table: BTreeSet<_> = table.flat_map(|(types, _)| names(&types).collect::<Vec<_>>()).collect();
    table.insert("peergate.test".to_owned());
    let webhooks: BTreeSet<_> = openapi()["webhooks"].as_object().unwrap().keys().cloned().collect();
    let schema: Value = serde_json::from_str(&schema_text(SchemaKind::Events)).unwrap();
    let schema = schema["oneOf"].as_array().unwrap().iter();
    let schema = schema.map(|one| one["$ref"].as_str().unwrap().trim_start_matches("#/$defs/").to_owned()).collect();
    let none: [Vec<String>; 2] = [vec![], vec![]];
    assert_eq!(differences(&schema, &webhooks), none, "only in docs/schema/events.json; only in docs/openapi.yaml");
    assert_eq!(
        differences(&schema, &table),
        none,
        "only in docs/schema/events.json; only in docs/standard-webhooks.md"
    );
}

/// Each answer that is sent is checked where it is sent. This test sends them all.
#[tokio::test]
async fn every_row_of_the_answers_is_sent() {
    refusals_before_a_command().await;
    decisions_and_questions().await;
    refused_decisions().await;
    ended_requests().await;
    voided_decisions().await;
    many_withdrawals().await;
    changed_and_removed().await;
    full_record().await;
    failures_of_others().await;
    proofs_without_a_body().await;
    clicks().await;
    let [unseen, unknown] = differences(&table_of_answers(), &seen_answers());
    assert!(unseen.is_empty() && unknown.is_empty(), "rows that nobody gets: {unseen:?}; without a row: {unknown:?}");
    let table = rows("docs/http-api.md", "| outcome in the log | meaning |").into_iter();
    let of_platforms: BTreeSet<_> = table.flat_map(|(name, _)| names(&name).collect::<Vec<_>>()).collect();
    let logged = logged_outcomes_of_platforms();
    let [unseen, _] = differences(&of_platforms, &logged);
    let known: BTreeSet<_> = table_of_answers().into_iter().map(|(_, name)| name).chain(of_platforms).collect();
    let [unknown, _] = differences(&logged, &known);
    assert!(unseen.is_empty() && unknown.is_empty(), "rows that nobody gets: {unseen:?}; without a row: {unknown:?}");
}

/// What the log calls the answers to people in chat.
fn logged_outcomes_of_platforms() -> BTreeSet<String> {
    let log = logged();
    let is_of_people =
        |line: &&str| ["Click", "Slash", "Window", "Text"].iter().any(|way| line.contains(&format!("way=\"{way}\"")));
    let of_people = log.lines().filter(is_of_people);
    of_people.map(|line| line.split("outcome=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()).collect()
}

async fn refusals_before_a_command() {
    let app = TestApp::start().await;
    let request = |method: &str, path: &str, content_type: &str, body: Vec<u8>| {
        let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
        request.body(Bytes::from(body)).unwrap()
    };
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    let cases = [
        (request("GET", "/healthz", json, vec![]), 200, ""),
        (request("GET", "/slack?ssl_check=1", form, vec![]), 200, ""),
        (request("POST", "/slack", form, b"ssl_check=1".to_vec()), 200, ""),
        (request("GET", "/webhook/ci", json, vec![]), 405, "method"),
        (request("PUT", "/slack", form, vec![]), 405, "method"),
        (request("POST", "/healthz", json, vec![]), 405, "method"),
        (request("POST", "/nowhere", json, vec![]), 404, "unknown-path"),
        (request("POST", "/webhook/ci", json, vec![b'a'; 256 * 1024 + 1]), 413, "too-large"),
        (request("POST", "/webhook/ci", "text/plain", vec![]), 415, "content-type"),
        (request("POST", "/webhook/ci", json, vec![]), 401, "unauthentic"),
        (request("POST", "/slack", form, vec![]), 401, "unauthentic"),
    ];
    for (request, status, name) in cases {
        let reply = app.call_webhook(request, clock::now()).await;
        assert_eq!((reply.status, reply.name().as_str()), (status, name));
    }
    app.send(&app.sign_body("{")).await.assert(400, "malformed");
    let old: envelope::HttpEvent = serde_json::from_str(&project_file("events/payload-1.0.json")).unwrap();
    let reply = webhook::handle_event(&app.parts, old, clock::now()).await.into();
    check_answer("POST", "/webhook/ci", &reply);
    let id = app.new_request().await;
    let other_app =
        json!({"type": "block_actions", "user": {"id": ALICE}, "team": {"id": "T0001"}, "api_app_id": "A9"});
    app.send_slack_payload(&other_app).await.assert(403, "wrong-tenant");
    app.assert_state(&id, "none").await;
}

/// Platforms whose proof does not cover the body.
async fn proofs_without_a_body() {
    let fake = FakeDingTalk::new(FakeDingTalkSettings::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(fake.clone().serve(listener));
    let mut app = TestApp::start().await;
    app.add_extension(&fake.sandbox_extension(&url));
    let spec = EventSpec {
        actor: "manager-alice".into(),
        tenant: None,
        ..app.blind_spec("list", &InstanceId::parse("pcc-a").unwrap(), "")
    };
    let secrets = app.parts.secrets.current(clock::now()).await.unwrap();
    let signed = Platform::DingTalk.sign(&app.parts.config.platforms, &secrets.platforms, &spec, clock::now()).unwrap();
    assert_eq!(app.send(&signed).await.status, 200);
    app.send(&signed).await.assert(409, "used-before");
    let id = app.discovered_request("vpc-two-people").await;
    let approve = EventSpec { action: "approve".into(), instance_id: id.to_string(), ..spec.clone() };
    let signed =
        Platform::DingTalk.sign(&app.parts.config.platforms, &secrets.platforms, &approve, clock::now()).unwrap();
    assert_eq!(app.send(&signed).await.status, 200);
    app.assert_state(&id, "pending").await;
    // Nobody listens there any more.
    let teams = FakeTeams::new(FakeTeamsSettings::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let mut app = TestApp::start().await;
    app.add_extension(&teams.sandbox_extension(&url));
    let secrets = app.parts.secrets.current(clock::now()).await.unwrap();
    let signed = Platform::Teams.sign(&app.parts.config.platforms, &secrets.platforms, &spec, clock::now()).unwrap();
    app.send(&signed).await.assert(503, "keys-unavailable");
}

async fn decisions_and_questions() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    app.status(&id, "anybody").await.assert(200, "status");
    app.send_event("list", &InstanceId::parse("pcc-a").unwrap(), "anybody").await.assert(400, "malformed");
    app.send(&app.sign_body(r#"{"type":"peering.list","data":{"actor":"a"}}"#)).await.assert(200, "list");
    let inventory = || app.sign_body(r#"{"type":"peering.inventory","data":{"actor":"a"}}"#);
    app.send(&inventory()).await.assert(200, "inventory");
    app.fail_next(LIST, "Forbidden.RAM");
    app.send(&inventory()).await.assert(200, "incomplete-inventory");
    app.dry_run(&id, "alice").await.assert(200, "dry-run-passed");
    app.withdraw(&id, "alice").await.assert(409, "nothing-to-withdraw");
    app.approve(&id, "alice").await.assert(200, "counted");
    app.withdraw(&id, "alice").await.assert(200, "withdrawn");
    app.approve(&id, "alice").await.assert(200, "counted");
    app.approve(&id, "alice").await.assert(200, "repeated");
    app.fail_next(ACCEPT, "OperationFailed.LastTokenProcessing");
    app.approve(&id, "bob").await.assert(202, "underway");
    app.reject(&id, "carol").await.assert(409, "already-decided");
    let id = app.new_request().await;
    app.approve(&id, "alice").await.assert(200, "accepted");
    let id = app.new_request().await;
    app.reject(&id, "alice").await.assert(200, "rejected");
}

async fn refused_decisions() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-with-a-reason").await;
    app.approve(&id, "alice").await.assert(422, "reason-required");
    app.approve(&id, "stranger").await.assert(403, "not-an-approver");
    let long = EventSpec { reason: Some("long ".repeat(100)), ..app.event_spec("approve", &id, "alice") };
    app.send_spec(&long).await.assert(422, "reason-too-long");
    let id = app.discovered_request("vpc-two-people").await;
    app.approve(&id, "erin").await.assert(403, "requesters-contact");
    app.send_spec(&app.blind_spec("approve", &app.new_request().await, "alice")).await.assert(409, "not-shown");
    let elsewhere = EventSpec { target: Some("dev".into()), ..app.blind_spec("approve", &id, "alice") };
    app.send_spec(&elsewhere).await.assert(404, "unknown-target");
    app.approve(&InstanceId::parse("pcc-missing").unwrap(), "alice").await.assert(404, "unknown-connection");
    let id = app.new_request().await;
    app.set_status(&id, "Activated");
    app.approve(&id, "alice").await.assert(409, "not-acceptable");
    let id = app.new_request().await;
    let stale = app.event_spec("approve", &id, "alice");
    app.set_bandwidth(&id, 4096);
    app.send_spec(&stale).await.assert(409, "connection-changed");
    let body = |verb: &str| format!(r#"{{"type":"peering.{verb}","data":{{"instance_id":"{id}","actor":"alice"}}}}"#);
    let sign = |verb: &str| app.sign_body_as(&body(verb), "job-1", &clock::now().as_second().to_string());
    app.send(&sign("approve")).await.assert(409, "not-shown");
    app.send(&sign("reject")).await.assert(409, "id-reused");
    for _ in 0..11 {
        app.status(&id, "mallory").await;
    }
    app.status(&id, "mallory").await.assert(429, "too-many-reads");
    let config = app.config.replace("[\"1111111111111111\"]", "[\"3\"]");
    let app = app.with_config(&config);
    app.approve(&id, "alice").await.assert(403, "no-rule");
}

async fn ended_requests() {
    let app = TestApp::start().await;
    for (status, name) in [("Expired", "expired"), ("Rejected", "rejected-elsewhere"), ("Deleted", "deleted")] {
        let id = app.discovered_request("vpc-one").await;
        app.set_status(&id, status);
        app.approve(&id, "alice").await.assert(409, name);
    }
    let id = app.new_request().await;
    app.fail_next(ACCEPT, "OperationFailed.CdtNotOpened");
    app.approve(&id, "alice").await.assert(409, "failed");
}

async fn voided_decisions() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    let signed = app.sign_event("approve", &id, "alice").await;
    app.send(&signed).await.assert(200, "counted");
    let with = app.config.clone();
    let app =
        app.with_change("security = [\"alice\", \"bob\", \"carol\", \"erin\"]", "security = [\"bob\", \"carol\"]");
    clock::jump::advance_in_thread(SignedDuration::from_secs(61));
    app.discover().await;
    let app = app.with_config(&with);
    app.send(&signed).await.assert(409, "decision-void");
}

async fn many_withdrawals() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    for _ in 0..20 {
        app.approve(&id, "alice").await.assert(200, "counted");
        app.withdraw(&id, "alice").await.assert(200, "withdrawn");
    }
    app.approve(&id, "alice").await.assert(200, "counted");
    app.withdraw(&id, "alice").await.assert(409, "too-many-withdrawals");
}

async fn full_record() {
    let app = TestApp::start().await;
    let app = app.with_change("approvals = 2", "approvals = 3");
    let id = app.discovered_request("vpc-two-people").await;
    let long = Some("\u{1F6A7}".repeat(400));
    for actor in ["alice", "bob"] {
        for _ in 0..20 {
            let approve = EventSpec { reason: long.clone(), ..app.event_spec("approve", &id, actor) };
            for reply in [app.send_spec(&approve).await, app.withdraw(&id, actor).await] {
                if reply.status == 409 {
                    return reply.assert(409, "record-full");
                }
            }
        }
    }
    panic!("the record is never full");
}

async fn failures_of_others() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next_dry_run("OperationFailed.CdtNotOpened");
    app.dry_run(&id, "alice").await.assert(409, "vendor-refused");
    app.fail_times(9, GET, "InternalError");
    app.status(&id, "alice").await.assert(503, "alicloud-unavailable");
    app.simulator.clear_faults();
    app.simulator.disguise(id.as_str(), &[("Bandwidth", r#""unlimited""#)]);
    app.status(&id, "alice").await.assert(502, "not-understood");
    app.simulator.disguise(id.as_str(), &[]);
    app.fail_times(9, GET, "Forbidden.RAM");
    app.status(&id, "alice").await.assert(502, "credentials-refused");
    app.simulator.clear_faults();
    let signed = app.sign_event("status", &id, "alice").await;
    let broken = |change: &dyn Fn(&mut peergate::config::Environment), config: &str| {
        let mut environment = app.environment.clone();
        change(&mut environment);
        peergate::app::App::new(&environment, Config::parse(config).unwrap()).unwrap()
    };
    let oidc = "credentials = { kind = \"oidc\", role = \"acs:ram::2222222222222222:role/peergate\", provider = \
                \"acs:ram::2222222222222222:oidc-provider/aws\" }\nsignature = ";
    let nowhere = || Some("http://127.0.0.1:9".to_owned());
    let cases = [
        (broken(&|it| it.secrets = SecretsSource::File("/nonexistent".into()), &app.config), "secrets-unavailable"),
        (broken(&|it| it.aws.dynamodb_endpoint = nowhere(), &app.config), "store-unavailable"),
        (broken(&|it| it.aws.sts_endpoint = nowhere(), &app.config.replace("signature = ", oidc)), "aws-unavailable"),
    ];
    for (function, name) in cases {
        let request = http::Request::post(&signed.path);
        let request = signed.headers.iter().fold(request, |it, (name, value)| it.header(*name, value));
        let request = request.body(Bytes::from(signed.body.clone())).unwrap();
        let reply: WebhookReply = Box::pin(webhook::handle_request(&function, request, clock::now())).await.into();
        check_answer("POST", &signed.path, &reply);
        reply.assert(503, name);
    }
}

async fn clicks() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-with-a-reason").await;
    let card = app.only_card();
    app.slack.add_outage(Outage { path: "/api/views.open".into(), status: 503, ..Outage::default() });
    app.click_button(&card, "Approve", ALICE).await;
    app.slack.clear_outages();
    app.click_button(&card, "Approve", ALICE).await;
    app.answer_modal("ticket 42", ALICE).await;
    app.slash_command(&format!("status {id}"), ALICE).await;
    app.slash_command("make it so", ALICE).await;
    let id = app.discovered_request("vpc-one").await;
    let button = app.card_of(&id).find_button("Approve").unwrap().clone();
    let mut copy = app.click_payload(&button.action_id, &button.value, BOB);
    copy["container"]["message_ts"] = json!("1.1");
    app.send_slack_payload(&copy).await;
    app.assert_state(&id, "pending").await;
}

/// Each notification is checked at the end of its test. This test causes them all.
#[tokio::test]
async fn every_row_of_the_notifications_is_sent() {
    decided_requests().await;
    sent_back_request().await;
    pending_requests().await;
    odd_activations().await;
    changed_and_removed().await;
    crate::inventory::adopted(&TestApp::start().await).await;
    test_of_the_channels().await;
    let table = rows("docs/standard-webhooks.md", "| type | sent when |").into_iter();
    let mut table: BTreeSet<_> = table.flat_map(|(types, _)| names(&types).collect::<Vec<_>>()).collect();
    table.insert("peergate.test".to_owned());
    let [unseen, unknown] = differences(&table, &seen_event_types());
    assert!(unseen.is_empty() && unknown.is_empty(), "rows that nobody gets: {unseen:?}; without a row: {unknown:?}");
}

async fn decided_requests() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    app.approve(&id, "alice").await;
    app.withdraw(&id, "alice").await;
    app.approve(&id, "alice").await;
    app.approve(&id, "bob").await;
    app.follow().await;
    app.assert_state(&id, "activated").await;
    let id = app.discovered_request("vpc-one").await;
    app.reject(&id, "alice").await;
    let id = app.discovered_request("vpc-two").await;
    app.fail_next(ACCEPT, "OperationFailed.CdtNotOpened");
    app.approve(&id, "alice").await;
    app.follow().await;
}

/// The business status changes between the decision and a late accept.
async fn sent_back_request() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-one").await;
    app.fail_next(ACCEPT, "Throttling.User");
    app.approve(&id, "alice").await.assert(202, "underway");
    app.tamper(&id, Tampering { business_status: Some("FinancialLocked".into()), ..Tampering::default() });
    clock::jump::advance_in_thread(SignedDuration::from_secs(10));
    app.round().await;
    app.assert_state(&id, "pending").await;
}

async fn pending_requests() {
    let app = TestApp::with_settings(slow_activation()).await;
    app.fail_next_dry_run("OperationFailed.CdtNotOpened");
    let id = app.discovered_request("vpc-two-people").await;
    let tick = async |app: &TestApp, wait: SignedDuration| {
        clock::jump::advance_in_thread(wait);
        app.tick_within(Tick::SCHEDULED, Duration::from_secs(10)).await;
    };
    tick(&app, SignedDuration::from_mins(6)).await;
    app.set_bandwidth(&id, 4096);
    tick(&app, SignedDuration::from_mins(6)).await;
    let app = app.with_change("approvals = 2", "approvals = 3");
    tick(&app, SignedDuration::from_mins(6)).await;
    for hours in [5, 26, 120] {
        tick(&app, SignedDuration::from_hours(hours)).await;
    }
    app.set_status(&id, "Expired");
    tick(&app, SignedDuration::from_mins(6)).await;
    // It had not expired.
    app.set_status(&id, "Accepting");
    tick(&app, SignedDuration::from_mins(6)).await;
    app.set_status(&id, "Deleted");
    tick(&app, SignedDuration::from_mins(6)).await;
    app.read_doubtful_again(&id).await;
    app.assert_state(&id, "deleted").await;
}

async fn changed_and_removed() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    app.approve(&id, "alice").await.assert(200, "counted");
    app.approve(&id, "bob").await.assert(200, "accepted");
    app.send_spec(&app.blind_spec("acknowledge", &id, "alice")).await.assert(409, "nothing-to-acknowledge");
    clock::jump::advance_in_thread(SignedDuration::from_secs(5));
    app.follow().await;
    let acknowledge = async |actor: &str, outcome: &str| {
        app.set_bandwidth(&id, 2048);
        app.discover().await;
        let fingerprint = app.approval(&id).await.drift().map(|drift| drift.fingerprint.to_string());
        let spec = EventSpec { fingerprint, ..app.blind_spec("acknowledge", &id, actor) };
        app.send_spec(&spec).await.assert(200, outcome);
    };
    acknowledge("alice", "acknowledged").await;
    acknowledge("bob", "acknowledged").await;
    app.set_bandwidth(&id, 5);
    app.discover().await;
    clock::jump::advance_in_thread(SignedDuration::from_hours(5));
    app.discover().await;
    app.set_bandwidth(&id, 2048);
    app.discover().await;
    app.set_status(&id, "Deleted");
    for _ in 0..3 {
        clock::jump::advance_in_thread(SignedDuration::from_secs(61));
        app.discover().await;
    }
    app.assert_state(&id, "deleted").await;
}

async fn test_of_the_channels() {
    let app = TestApp::start().await;
    let options = Options { post: true, ..Options::default() };
    doctor::examine_deployment(Ok(app.environment.clone()), &options, Instant::now() + Duration::from_mins(1)).await;
}

async fn odd_activations() {
    let app = TestApp::with_settings(slow_activation()).await;
    let id = app.discovered_request("vpc-two").await;
    app.set_status(&id, "Activated");
    app.discover().await;
    let id = app.discovered_request("vpc-one").await;
    app.approve(&id, "alice").await;
    clock::jump::advance_in_thread(SignedDuration::from_mins(11));
    app.make_due(&id).await;
    app.round().await;
    app.set_bandwidth(&id, 4096);
    app.set_status(&id, "Activated");
    app.make_due(&id).await;
    app.discover().await;
    app.follow().await;
    app.assert_state(&id, "activated").await;
}

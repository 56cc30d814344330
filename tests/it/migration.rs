//! Records of the version before (schema 1) are read, changed and rewritten, and their history still verifies. The
//! fixtures are items of its table, one for each state.

use std::collections::{BTreeMap, HashMap};

use crate::support::prelude::*;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use peergate::approval::{
    Approval, ApprovalId, ApprovalState, Approver, Decision, DecisionError, Event, History, Principal, RequestId,
    Review, Verdict,
};
use peergate::peering::{Connection, Status};
use peergate::store::{Saved, Stored};

type Item = HashMap<String, AttributeValue>;

fn fixtures() -> BTreeMap<String, Item> {
    let fixtures: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>> =
        serde_json::from_str(include_str!("../fixtures/schema-1.json")).unwrap();
    let attribute = |value: BTreeMap<String, String>| match value.into_iter().next().unwrap() {
        (kind, text) if kind == "N" => AttributeValue::N(text),
        (_, text) => AttributeValue::S(text),
    };
    let item = |item: BTreeMap<String, BTreeMap<String, String>>| {
        item.into_iter().map(|(name, value)| (name, attribute(value))).collect()
    };
    fixtures.into_iter().map(|(name, fixture)| (name, item(fixture))).collect()
}

/// Shortly after the fixtures were written.
fn now() -> Timestamp {
    "2026-11-25T21:10:00Z".parse().unwrap()
}

fn client(app: &TestApp) -> aws_sdk_dynamodb::Client {
    let sdk = peergate::aws::sdk_config(&app.environment.aws, peergate::http::new_client().unwrap());
    let config = aws_sdk_dynamodb::config::Builder::from(&sdk);
    let endpoint = app.environment.aws.dynamodb_endpoint.clone().unwrap();
    aws_sdk_dynamodb::Client::from_conf(config.endpoint_url(endpoint).build())
}

async fn put(app: &TestApp, item: Item) -> ApprovalId {
    let id = item["id"].as_s().unwrap().split_once('/').unwrap().1.to_owned().try_into().unwrap();
    client(app).put_item().table_name(&app.environment.table).set_item(Some(item)).send().await.unwrap();
    ApprovalId { target: "prod".into(), instance_id: id }
}

async fn item(app: &TestApp, id: &ApprovalId) -> Item {
    let key = AttributeValue::S(id.to_string());
    let response = client(app).get_item().table_name(&app.environment.table).key("id", key).send().await.unwrap();
    response.item.unwrap()
}

async fn saved(app: &TestApp, approval: &Approval, over: &Stored) -> Stored {
    let Saved::Done(stored) = app.parts.store.save(approval, Some(over)).await.unwrap() else { panic!("nobody else") };
    stored
}

/// The problems that `verify` finds in the only record.
async fn problems(app: &TestApp) -> Vec<String> {
    let scanned = app.parts.store.scan_records(None).await.unwrap().items;
    let [scanned] = scanned.as_slice() else { panic!("one record") };
    let broken = History::verify(&scanned.id, &scanned.record).err().map(|broken| broken.to_string());
    scanned.item_problems().into_iter().chain(broken).collect()
}

fn apply(approval: &mut Approval, event: &Event) {
    assert!(approval.apply_event(event, now()));
}

fn alive(approval: &Approval, status: Status) -> Event {
    let expires_at = Some(now() + SignedDuration::from_hours(24));
    Event::Observed(Box::new(Connection { status, expires_at, ..approval.connection().clone() }))
}

fn decide(approval: &Approval, by: &str) -> Result<Approval, DecisionError> {
    let (principal, person) = (Principal::new("webhook", "ci", by).unwrap(), Some(by.to_owned()));
    let decision = Decision {
        verdict: Verdict::Approve,
        by: Approver { principal, person, name: None },
        at: now(),
        fingerprint: approval.fingerprint().clone(),
        reason: None,
        request_key: format!("ci/webhook-id:{by}"),
        request_content: Some("content".into()),
    };
    let eligible = |principal: &Principal| {
        let person = principal.as_str().rsplit('/').next().map(ToOwned::to_owned);
        Some(Approver { principal: principal.clone(), person, name: None })
    };
    let (id, connection) =
        (approval.id().clone(), Connection { status: Status::Accepting, ..approval.connection().clone() });
    let (policy, findings) = (approval.policy().clone(), approval.findings());
    let review = Review { id: &id, connection: &connection, policy: &policy, findings, eligible_approver: &eligible };
    Approval::apply_decision(Some(approval), &review, decision)
}

#[tokio::test]
async fn legacy_record_of_every_state_is_read_and_rewritten() {
    type Change = fn(&mut Approval);
    let changes: [(&str, Change, &str); 14] = [
        ("pending", |it| *it = decide(it, "bob").unwrap(), "approved"),
        ("pending-changed", |it| *it = decide(it, "alice").unwrap(), "approved"),
        ("pending-withdrawn", |it| apply(it, &alive(it, Status::Rejected)), "rejected"),
        ("approved", |it| apply(it, &Event::Accepted { request_id: "R".into() }), "activating"),
        ("activating", |it| apply(it, &alive(it, Status::Activated)), "activated"),
        // The version before reported an accept by somebody outside when a reading showed an update.
        (
            "activating-elsewhere",
            |it| {
                for minutes in [0, 2, 4] {
                    it.apply_event(&alive(it, Status::Accepting), now() + SignedDuration::from_mins(minutes));
                }
            },
            "pending",
        ),
        ("activated", |it| assert!(it.redrive(None, true, now()) == 0), "activated"),
        ("rejecting", |it| apply(it, &Event::Rejected { request_id: "R".into() }), "rejected"),
        (
            "rejected",
            |it| {
                for minutes in [0, 2, 4] {
                    it.apply_event(&alive(it, Status::Accepting), now() + SignedDuration::from_mins(minutes));
                }
            },
            "rejecting",
        ),
        ("expired", |it| apply(it, &alive(it, Status::Accepting)), "pending"),
        ("deleted", |it| apply(it, &alive(it, Status::Activated)), "activated"),
        ("failed", |it| *it = decide(it, "alice").unwrap(), "approved"),
        ("failed-accepted-elsewhere", |it| apply(it, &alive(it, Status::Accepting)), "failed"),
        ("failed-changed-too-often", |it| apply(it, &alive(it, Status::Activated)), "activated"),
    ];
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), changes.len());
    for (name, change, state) in changes {
        let app = TestApp::start().await;
        let id = put(&app, fixtures[name].clone()).await;
        assert_eq!(problems(&app).await, Vec::<String>::new(), "{name}: as it was written");
        let read = app.parts.store.load(&id).await.unwrap().unwrap();
        assert!(read.is_from_earlier_version(), "{name}");
        assert_eq!(read.approval.facts().fingerprint(), *read.approval.fingerprint(), "{name}");

        let written = saved(&app, &read.approval, &read).await;
        assert_eq!(problems(&app).await, Vec::<String>::new(), "{name}: rewritten");
        let stored = item(&app, &id).await;
        assert!(stored.contains_key("digest") && stored.contains_key("due_at"), "{name}: {:?}", stored.keys());
        assert_eq!(app.parts.store.load(&id).await.unwrap().unwrap(), written, "{name}");

        let mut approval = written.approval.clone();
        change(&mut approval);
        assert_eq!(approval.state().name(), state, "{name}");
        saved(&app, &approval, &written).await;
        assert_eq!(problems(&app).await, Vec::<String>::new(), "{name}: changed");
        let json: Value = serde_json::from_str(item(&app, &id).await["record"].as_s().unwrap()).unwrap();
        assert_eq!(json["schema"], 2, "{name}");
    }
}

#[tokio::test]
async fn legacy_card_counts_as_shown() {
    let app = TestApp::start().await;
    let id = put(&app, fixtures().remove("pending-changed").unwrap()).await;
    let approval = app.parts.store.load(&id).await.unwrap().unwrap().approval;
    let channels = ["netops".to_owned()];
    assert!(approval.was_shown(approval.fingerprint(), &channels, now()));
    let shown_at = approval.cards()["netops"].shown_at;
    assert!(!approval.was_shown(approval.fingerprint(), &channels, shown_at - SignedDuration::from_secs(1)));
    assert!(approval.cards()["netops"].reference.starts_with("C0PEER/"));
    assert!(approval.was_shown(approval.fingerprint(), &["audit".to_owned()], now()), "a signed notice says it, too");
    assert!(!approval.was_shown(approval.fingerprint(), &["elsewhere".to_owned()], now()));
}

#[tokio::test]
async fn legacy_request_is_still_recognized_as_a_replay() {
    let app = TestApp::start().await;
    let id = put(&app, fixtures().remove("pending").unwrap()).await;
    let approval = app.parts.store.load(&id).await.unwrap().unwrap().approval;
    let key = approval.decisions()[0].request_key.clone();
    let request = |content: Option<&str>| RequestId { key: key.clone(), content: content.map(ToOwned::to_owned) };
    assert_eq!(approval.check_replay(&request(None)), Ok(true));
    assert_eq!(approval.check_replay(&request(Some("whatever"))), Ok(true), "what it said is not known");
}

#[tokio::test]
async fn legacy_final_record_is_indexed_once() {
    let (app, table) = TableProxy::start(quick_settings()).await;
    let mut fixtures = fixtures();
    let (over, unknown) = (fixtures.remove("activated").unwrap(), fixtures.remove("failed").unwrap());
    let number: usize = over["id"].as_s().unwrap().trim_start_matches("prod/pcc-sim").parse().unwrap();
    // The same id, at Alibaba Cloud.
    for made in 0..number {
        let theirs = format!("vpc-requester-{made}");
        app.request_peering(&[("VpcId", &theirs)]).await.unwrap();
    }
    let activated = Tampering { status: Some("Activated".into()), ..Tampering::default() };
    for made in 1..=number {
        let id = format!("pcc-sim{made:08}").try_into().unwrap();
        app.tamper(&id, activated.clone());
    }
    let id = put(&app, over).await;
    drop(unknown);
    assert!(!item(&app, &id).await.contains_key("due"));
    app.discover().await;
    assert_eq!(item(&app, &id).await["due"].as_s().unwrap(), "1");
    table.reset_calls();
    app.discover().await;
    assert_eq!(table.count_calls(), 1, "the index, and no record: also not for those that peergate never knew");
    let stored = app.parts.store.load(&id).await.unwrap().unwrap();
    assert_eq!((stored.approval.state(), stored.version > 1), (&ApprovalState::Activated, true));
}

#[tokio::test]
async fn wrong_legacy_notification_is_corrected() {
    let app = TestApp::start().await;
    let over = fixtures().remove("deleted").unwrap();
    let number: usize = over["id"].as_s().unwrap().trim_start_matches("prod/pcc-sim").parse().unwrap();
    for made in 0..number {
        let theirs = format!("vpc-requester-{made}");
        app.request_peering(&[("VpcId", &theirs)]).await.unwrap();
    }
    let id = put(&app, over).await;
    app.set_status(&id.instance_id, "Activated");
    app.discover().await;
    let approval = app.parts.store.load(&id).await.unwrap().unwrap().approval;
    assert_eq!(*approval.state(), ApprovalState::Activated);
    let headlines = app.posted_headlines(crate::support::WEBHOOK_PATH).join("\n");
    assert!(headlines.contains(&format!("VPC peering {id} is Activated")), "{headlines}");
}

#[tokio::test]
async fn legacy_card_is_redrawn_once_in_the_first_tick() {
    let app = TestApp::start().await;
    let id = ApprovalId { target: "prod".into(), instance_id: app.new_request().await };
    app.discover().await;
    let key = |approval: &Approval| approval.cards()["netops"].key;
    let signed_with = key(&app.load_record(&id.instance_id).await.unwrap().approval).unwrap();
    let forget = async || {
        let mut earlier = item(&app, &id).await;
        let record = earlier["record"].as_s().unwrap().replace(&format!(",\"key\":\"{signed_with}\""), "");
        earlier.insert("record".into(), AttributeValue::S(record));
        earlier.insert("mark".into(), AttributeValue::S("0".repeat(32)));
        put(&app, earlier).await;
        assert_eq!(key(&app.load_record(&id.instance_id).await.unwrap().approval), None);
    };
    forget().await;
    let edits = app.only_card().edits;
    app.discover().await;
    assert_eq!(key(&app.load_record(&id.instance_id).await.unwrap().approval), Some(signed_with));
    assert_eq!(app.only_card().edits, edits + 1);
    app.discover().await;
    assert_eq!(app.only_card().edits, edits + 1, "once");
    forget().await;
    app.make_due(&id.instance_id).await;
    app.round().await;
    assert_eq!(app.only_card().edits, edits + 2, "also where the record is due before the survey sees it");
}

/// Records of schema 2 as the version before the renames wrote them: the stored names did not change.
#[test]
fn record_of_the_version_before_keeps_its_stored_form() {
    let fixtures: BTreeMap<String, Value> = serde_json::from_str(include_str!("../fixtures/schema-2.json")).unwrap();
    for (name, stored) in fixtures {
        let approval: Approval = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(serde_json::to_value(&approval).unwrap(), stored, "{name}: as it was written");
        assert_eq!(History::verify("prod/pcc-a", &stored), Ok(()), "{name}: as it was written");
        let mut changed = approval.clone();
        changed.refuse_request(&RequestId { key: "another".into(), content: None }, now());
        changed.apply_event(&alive(&approval, Status::Activated), now());
        let rewritten = serde_json::to_value(&changed).unwrap();
        assert_eq!(History::verify("prod/pcc-a", &rewritten), Ok(()), "{name}: changed and written again");
        assert_eq!(serde_json::from_value::<Approval>(rewritten).unwrap(), changed, "{name}");
    }
}

//! The state machine of an approval as a table: each event in each state, applied through the public API. ARCHITECTURE.md
//! shows the same table, and a diagram that is drawn from it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use peergate::approval::{
    Approval, ApprovalId, Approver, CallResult, Decision, Event, PolicySnapshot, Principal, RequestId, Review,
    SendBackReason, Verdict,
};
use peergate::config::Config;
use peergate::peering::{Connection, Problem, Status};
use peergate::preflight::Check;
use peergate::preflight::{CheckOutcome, Finding};
use serde_json::json;

/// A request that its rule lets one person decide.
const RULE: &str = r#"
[targets.prod]
account = "2222222222222222"
regions = []
[clients.ci]
[channels.hook]
kind = "slack-webhook"
[people.alice]
principals = ["webhook:ci/alice"]
[people.bob]
principals = ["webhook:ci/bob"]
[[rule]]
name = "r"
target = "prod"
approvers = ["person:alice", "person:bob"]
channels = ["hook"]
approvals = 1
"#;
/// Between two events: longer than a call takes to settle.
const PAUSE: SignedDuration = SignedDuration::from_mins(10);
/// Readings that confirm each other are further apart than this.
const NEXT_READING: SignedDuration = SignedDuration::from_secs(61);
/// No reading needs more to be believed.
const MAX_READINGS: u32 = 4;

fn start() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn connection() -> Connection {
    serde_json::from_value(json!({
        "instance_id": "pcc-a", "status": "Accepting", "business_status": "Normal", "bandwidth_mbps": 1,
        "requester": {"account": "1111111111111111", "region": "r", "vpc": "vpc-theirs", "cidrs": ["10.1.0.0/16"]},
        "accepter": {"account": "2222222222222222", "region": "r", "vpc": "vpc-ours", "cidrs": ["10.2.0.0/16"]},
        "link_type": "", "name": "", "description": "", "expires_at": "2026-11-29T10:00:00Z", "managed_service": "",
    }))
    .unwrap()
}

fn passed() -> Vec<Finding> {
    vec![Finding { check: Check::DryRun, outcome: CheckOutcome::Passed }]
}

fn snapshot() -> PolicySnapshot {
    Config::parse(RULE).unwrap().policy.snapshot_for("prod", &connection())
}

fn reviewed<T>(connection: &Connection, call: impl FnOnce(&Review<'_>) -> T) -> T {
    let policy = Config::parse(RULE).unwrap().policy;
    let id = ApprovalId { target: "prod".into(), instance_id: connection.instance_id.clone() };
    let eligible = |principal: &Principal| policy.eligible_approver("prod", connection, principal);
    let (policy, findings) = (snapshot(), passed());
    call(&Review { id: &id, connection, policy: &policy, findings: &findings, eligible_approver: &eligible })
}

fn person(name: &str) -> Approver {
    Approver { principal: Principal::new("webhook", "ci", name).unwrap(), person: Some(name.into()), name: None }
}

/// What happens to a record.
#[derive(Clone, Copy)]
enum Step {
    Decide(Verdict),
    Withdraw,
    AcceptAcknowledged,
    RejectAcknowledged,
    CallFailed,
    CallFailedUnknownForADay,
    SentBack,
    Seen(&'static str),
    SeenWaitingPastExpiry,
    Missing,
    FactsChanged,
}

const STEPS: [(&str, Step); 16] = [
    ("somebody approves", Step::Decide(Verdict::Approve)),
    ("somebody rejects", Step::Decide(Verdict::Reject)),
    ("somebody withdraws", Step::Withdraw),
    ("the accept is acknowledged", Step::AcceptAcknowledged),
    ("the reject is acknowledged", Step::RejectAcknowledged),
    ("the call fails", Step::CallFailed),
    ("the call fails with an unknown code for a day", Step::CallFailedUnknownForADay),
    ("the review before a late accept fails", Step::SentBack),
    ("a reading shows `Accepting`", Step::Seen("Accepting")),
    ("a reading shows `Accepting` past the expiry", Step::SeenWaitingPastExpiry),
    ("a reading shows other facts", Step::FactsChanged),
    ("a reading shows `Activated`", Step::Seen("Activated")),
    ("a reading shows `Rejected`", Step::Seen("Rejected")),
    ("a reading shows `Expired`", Step::Seen("Expired")),
    ("a reading shows `Deleted`", Step::Seen("Deleted")),
    ("a reading finds no connection", Step::Missing),
];

/// The record in each state, as the public API brings it there.
fn states() -> Vec<Approval> {
    let pending = reviewed(&connection(), |review| Approval::discover(review, start()));
    let approved = decide(&pending, Verdict::Approve, "alice", start()).unwrap();
    let rejecting = decide(&pending, Verdict::Reject, "alice", start()).unwrap();
    let after = |record: &Approval, step| apply(record, step, start() + PAUSE);
    let activating = after(&approved, Step::AcceptAcknowledged);
    vec![
        after(&activating, Step::Seen("Activated")),
        after(&rejecting, Step::RejectAcknowledged),
        after(&pending, Step::Seen("Expired")),
        confirmed(&pending, Step::Missing, start() + PAUSE).0,
        after(&approved, Step::CallFailed),
    ]
    .into_iter()
    .fold(vec![pending, approved, activating, rejecting], |mut states, state| {
        states.push(state);
        states
    })
}

fn decide(record: &Approval, verdict: Verdict, by: &str, at: Timestamp) -> Option<Approval> {
    let decision = Decision {
        verdict,
        by: person(by),
        at,
        fingerprint: record.fingerprint().clone(),
        reason: None,
        request_key: format!("{by} at {at}"),
        request_content: None,
    };
    reviewed(&connection(), |review| Approval::apply_decision(Some(record), review, decision)).ok()
}

fn apply(record: &Approval, step: Step, now: Timestamp) -> Approval {
    let mut record = record.clone();
    let shown = |status: Status| Event::Observed(Box::new(Connection { status, ..connection() }));
    let problem = || Problem { code: "X".into(), request_id: None };
    let event = match step {
        Step::Decide(verdict) => return decide(&record, verdict, "bob", now).unwrap_or(record),
        Step::Withdraw => {
            let request = RequestId { key: format!("withdraw at {now}"), content: None };
            let unchanged = |principal: &Principal| Approver { principal: principal.clone(), person: None, name: None };
            let _ = record.withdraw_decision(&person("alice"), &request, &unchanged, now);
            return record;
        }
        Step::AcceptAcknowledged => Event::Accepted { request_id: "R".into() },
        Step::RejectAcknowledged => Event::Rejected { request_id: "R".into() },
        Step::CallFailed => {
            record.finish_call(CallResult::Refused);
            Event::Failed(problem())
        }
        Step::CallFailedUnknownForADay => {
            let day = now + SignedDuration::from_hours(24);
            record.apply_event(&Event::FailedUnknown(problem()), day);
            return record;
        }
        Step::SentBack => Event::SentBack {
            why: SendBackReason::RuleNotMet,
            connection: Box::new(connection()),
            policy: Box::new(snapshot()),
            findings: passed(),
            void: vec![person("alice")],
        },
        Step::Seen(status) => shown(status.to_owned().into()),
        Step::SeenWaitingPastExpiry => {
            let past = connection().expires_at.unwrap() + PAUSE + now.duration_since(start());
            record.apply_event(&shown(Status::Accepting), past);
            return record;
        }
        Step::Missing => Event::Missing,
        Step::FactsChanged => {
            let mut connection = connection();
            connection.bandwidth_mbps = Some(2);
            Event::Changed { connection: Box::new(connection), findings: passed() }
        }
    };
    record.apply_event(&event, now);
    record
}

/// Applies a step until it is believed; with the number of readings that took.
fn confirmed(record: &Approval, step: Step, now: Timestamp) -> (Approval, u32) {
    let (mut current, mut at) = (record.clone(), now);
    for readings in 1..=MAX_READINGS {
        current = apply(&current, step, at);
        if current.unconfirmed().is_none() {
            return (current, readings);
        }
        at += NEXT_READING;
    }
    panic!("{} is never sure", record.state().name());
}

/// Where a step leads; `None` if the record stays as it was.
fn cell(record: &Approval, step: Step) -> Option<String> {
    let (after, readings) = confirmed(record, step, start() + PAUSE + PAUSE);
    let moved = after.state() != record.state() || after.generation() != record.generation();
    moved.then(|| {
        let mut cell = after.state().name().to_owned();
        if readings > 1 {
            let _ = write!(cell, " ({readings} readings)");
        }
        if after.generation() != record.generation() {
            cell.push_str(", next generation");
        }
        cell
    })
}

fn table() -> String {
    let states = states();
    let names: Vec<_> = states.iter().map(|record| record.state().name()).collect();
    let mut table = format!("| event | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (name, step) in STEPS {
        let cells = states.iter().map(|record| cell(record, step).unwrap_or_else(|| "–".into()));
        let _ = writeln!(table, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    table
}

/// The same as a diagram: an arrow for each pair of states, with the events that lead from one to the other.
fn diagram() -> String {
    let mut arrows: BTreeMap<(usize, String), Vec<&str>> = BTreeMap::new();
    let states = states();
    for (position, record) in states.iter().enumerate() {
        for (name, step) in STEPS {
            if let Some(cell) = cell(record, step) {
                let to = cell.split([' ', ',']).next().unwrap_or_default().to_owned();
                arrows.entry((position, to)).or_default().push(name);
            }
        }
    }
    let mut diagram = "```mermaid\nstateDiagram-v2\n    [*] --> pending: a request is discovered\n".to_owned();
    for ((from, to), events) in arrows {
        let short = |event: &&str| event.replace("a reading shows ", "").replace('`', "");
        let events: Vec<_> = events.iter().map(short).collect();
        let _ = writeln!(diagram, "    {} --> {to}: {}", states[from].state().name(), events.join(", "));
    }
    diagram + "```\n"
}

#[test]
fn architecture_shows_the_state_machine_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once("<!-- state machine: begin -->\n").expect("the page has the marker");
    let (shown, _) = rest.split_once("<!-- state machine: end -->").expect("the page has the end marker");
    let drawn = format!("{}\n{}", table(), diagram());
    assert!(shown.trim() == drawn.trim(), "put this between the markers of ARCHITECTURE.md:\n\n{drawn}");
}

#[test]
fn final_state_is_left_by_a_decision_a_live_reading_or_its_end() {
    for record in states().into_iter().filter(|record| record.state().is_final()) {
        for (name, step) in STEPS {
            let is_alive = matches!(step, Step::Decide(_) | Step::Seen("Accepting" | "Activated") | Step::FactsChanged);
            // An active connection is followed for life.
            let is_removed =
                record.state().name() == "activated" && matches!(step, Step::Seen("Deleted") | Step::Missing);
            let cell = cell(&record, step);
            assert!(is_alive || is_removed || cell.is_none(), "{} after “{name}”: {cell:?}", record.state().name());
        }
    }
}

//! Laws for any input and any order of events.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use peergate::approval::{
    Approval, ApprovalId, ApprovalState, Approver, AuditEvent, CallResult, CardId, CardRef, ChannelDisplay, Claim,
    Decision, DecisionError, Delivery, Event, FailedPost, History, HistoryMismatch, PolicySnapshot, Principal,
    RequestId, RetryPolicy, Review, SendBackReason, Verdict,
};
use peergate::chat::platform::Platform;
use peergate::chat::slack::SigningSecret;
use peergate::chat::standard_webhooks::WebhookKey;
use peergate::chat::{slack, standard_webhooks};
use peergate::config::Config;
use peergate::peering::{AccountId, Connection, Problem, Status};
use peergate::policy::Policy;
use peergate::preflight::Objection;
use peergate::{envelope, preflight};
use proptest::prelude::*;
use serde_json::json;

use crate::support::edited;

const NOW: i64 = 1_795_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn key() -> WebhookKey {
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned().try_into().unwrap()
}

fn slack_secret() -> SigningSecret {
    "8f742231b10e8888abcd99yyyzzz85a5".to_owned().try_into().unwrap()
}

fn standard(body: &[u8], signature: &str) -> bool {
    let timestamp = NOW.to_string();
    let headers =
        headers(&[("webhook-id", "msg_1"), ("webhook-timestamp", &timestamp), ("webhook-signature", signature)]);
    standard_webhooks::verify_with(&[key()], &headers, Bytes::copy_from_slice(body), now()).is_ok()
}

fn slacks(body: &[u8], signature: &str) -> bool {
    let timestamp = NOW.to_string();
    let headers = headers(&[("x-slack-request-timestamp", &timestamp), ("x-slack-signature", signature)]);
    slack::verify_with(&[slack_secret()], &headers, Bytes::copy_from_slice(body), now()).is_ok()
}

fn connection(status: Status, bandwidth: u32) -> Connection {
    let mut connection: Connection = serde_json::from_value(serde_json::json!({
        "instance_id": "pcc-a", "status": "Accepting", "business_status": "Normal", "bandwidth_mbps": bandwidth,
        "requester": {"account": "1", "region": "r", "vpc": "vpc-a", "cidrs": ["10.0.0.0/16"]},
        "accepter": {"account": "2", "region": "s", "vpc": "vpc-b", "cidrs": ["10.1.0.0/16"]},
        "link_type": "", "name": "", "description": "", "expires_at": null, "managed_service": "",
    }))
    .unwrap();
    connection.status = status;
    connection
}

fn approver(by: &str) -> Approver {
    // Dave is Alice on another platform.
    let person = if by == "dave" { "alice" } else { by };
    Approver { principal: Principal::new("webhook", "ci", by).unwrap(), person: Some(person.to_owned()), name: None }
}

fn policy(approvals: u32) -> PolicySnapshot {
    let policy = Policy::default().snapshot_for("prod", &connection(Status::Accepting, 1));
    let channels = vec!["one".to_owned(), "two".to_owned()];
    let (escalate_after, escalate_to) = (Some(SignedDuration::from_hours(30)), vec!["three".to_owned()]);
    PolicySnapshot {
        rule: Some(format!("{approvals} people")),
        approvals,
        channels,
        escalate_after,
        escalate_to,
        ..policy
    }
}

/// Calls with the review that a reading with `bandwidth` and a rule for `approvals` people give.
fn on<T>(approvals: u32, bandwidth: u32, call: impl FnOnce(&Review<'_>) -> T) -> T {
    let connection = connection(Status::Accepting, bandwidth);
    let id = ApprovalId { target: "prod".into(), instance_id: connection.instance_id.clone() };
    let findings = preflight::check_connection(&connection, AccountId(2), now());
    let eligible = |principal: &Principal| {
        let user = principal.as_str().strip_prefix("webhook:ci/")?;
        (user != "mallory").then(|| approver(user))
    };
    let snapshot = policy(approvals);
    call(&Review {
        id: &id,
        connection: &connection,
        policy: &snapshot,
        findings: &findings,
        eligible_approver: &eligible,
    })
}

fn decision(verdict: Verdict, by: &str, bandwidth: u32, at: Timestamp, key: u32) -> Decision {
    let fingerprint = connection(Status::Accepting, bandwidth).fingerprint();
    Decision {
        verdict,
        by: approver(by),
        at,
        fingerprint,
        reason: None,
        request_key: key.to_string(),
        request_content: None,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Event(Event),
    Decide { verdict: Verdict, by: &'static str, bandwidth: u32, key: u32 },
    Withdraw { by: &'static str, key: u32 },
    Look { approvals: u32, bandwidth: u32 },
    Claim,
    Call(CallResult),
    Jump(i64),
}

fn card_display() -> ChannelDisplay {
    let fingerprint = connection(Status::Accepting, 1).fingerprint();
    ChannelDisplay::Card(CardRef { reference: "C/1".into(), id: CardId(1), fingerprint, shown_at: now(), key: None })
}

fn sent_back(objects: bool, void: bool) -> Event {
    let why = if objects {
        SendBackReason::Objection(Objection::ManagedService("X".into()))
    } else {
        SendBackReason::RuleNotMet
    };
    Event::SentBack {
        why,
        connection: Box::new(connection(Status::Accepting, 1)),
        policy: Box::new(policy(3)),
        findings: vec![],
        void: if void { vec![approver("alice"), approver("bob"), approver("dave")] } else { vec![approver("bob")] },
    }
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![
        6 => Just(Status::Accepting),
        1 => Just(Status::Updating),
        1 => Just(Status::Activated),
        1 => Just(Status::Rejected),
        1 => Just(Status::Expired),
        1 => Just(Status::Deleted),
        1 => Just(Status::Creating),
        1 => Just(Status::Other("Paused".into())),
    ];
    let problem = || Problem { code: "X".into(), request_id: None };
    let retry = prop_oneof![
        Just(RetryPolicy::Backoff(None)),
        Just(RetryPolicy::Backoff(Some(SignedDuration::from_hours(1000)))),
        Just(RetryPolicy::AfterFix),
        Just(RetryPolicy::Never)
    ];
    let channel = || prop_oneof![Just("one".to_owned()), Just("two".to_owned()), Just("three".to_owned())];
    let verdict = || prop_oneof![4 => Just(Verdict::Approve), 1 => Just(Verdict::Reject)];
    let person = || prop_oneof![Just("alice"), Just("bob"), Just("dave")];
    let bandwidth = || prop_oneof![9 => Just(1_u32), 1 => Just(2_u32)];
    let changed =
        |bandwidth| Event::Changed { connection: Box::new(connection(Status::Accepting, bandwidth)), findings: vec![] };
    prop_oneof![
        3 => status.prop_map(|status| Step::Event(Event::Observed(Box::new(connection(status, 1))))),
        2 => Just(Step::Event(Event::Accepted { request_id: "R".into() })),
        1 => Just(Step::Event(Event::Rejected { request_id: "R".into() })),
        1 => Just(Step::Event(Event::Missing)),
        1 => bandwidth().prop_map(move |bandwidth| Step::Event(changed(bandwidth))),
        1 => Just(Step::Event(Event::Failed(problem()))),
        2 => Just(Step::Event(Event::Deferred { problem: problem(), retry_after: None })),
        1 => Just(Step::Event(Event::CredentialsRefused(problem()))),
        1 => Just(Step::Event(Event::FailedUnknown(problem()))),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(objects, void)| Step::Event(sent_back(objects, void))),
        4 => (1..9_u32, channel(), any::<bool>()).prop_map(|(number, channel, card)| {
            let display = if card { card_display() } else { ChannelDisplay::Unchanged };
            Step::Event(Event::Delivered { number, channel, display })
        }),
        3 => (1..9_u32, channel(), retry).prop_map(|(number, channel, retry)| {
            let failed = FailedPost { error: "E".into(), retry, may_be_posted: number % 2 == 0 };
            Step::Event(Event::Undelivered { number, channel, failed, display: ChannelDisplay::Unchanged })
        }),
        8 => (verdict(), person(), bandwidth(), 0..6_u32)
            .prop_map(|(verdict, by, bandwidth, key)| Step::Decide { verdict, by, bandwidth, key }),
        2 => (person(), 0..6_u32).prop_map(|(by, key)| Step::Withdraw { by, key }),
        3 => (1..3_u32, bandwidth()).prop_map(|(approvals, bandwidth)| Step::Look { approvals, bandwidth }),
        2 => Just(Step::Claim),
        1 => Just(Step::Call(CallResult::Unknown)),
        1 => Just(Step::Call(CallResult::Refused)),
        1 => (1..100_i64).prop_map(Step::Jump),
    ]
}

fn who(principal: &Principal) -> Approver {
    approver(principal.as_str().strip_prefix("webhook:ci/").unwrap())
}

fn id_of(key: u32) -> RequestId {
    RequestId { key: key.to_string(), content: None }
}

/// Whether a reading showed the connection alive although the record had ended.
fn corrected(record: &Approval, before: &Approval) -> bool {
    record.history()[before.history().len()..].iter().any(|entry| matches!(entry.event, AuditEvent::Corrected { .. }))
}

/// How many different people have approved.
fn people(record: &Approval) -> usize {
    let approvals = record.decisions().iter().filter(|decision| decision.verdict == Verdict::Approve);
    approvals.map(|decision| decision.by.person.clone()).collect::<BTreeSet<_>>().len()
}

proptest! {
    #[test]
    fn signature_verifies_and_one_flipped_bit_breaks_it(body: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
        let standard_signature = standard_webhooks::sign_body(&[key()], "msg_1", &NOW.to_string(), &body);
        let slack_signature = slack::sign_body(&slack_secret(), &NOW.to_string(), &body);
        prop_assert!(standard(&body, &standard_signature) && slacks(&body, &slack_signature));
        if !body.is_empty() {
            let mut flipped = body.clone();
            flipped[at.index(body.len())] ^= 1 << bit;
            prop_assert!(!standard(&flipped, &standard_signature) && !slacks(&flipped, &slack_signature));
        }
        let position = "v0=".len() + at.index(64);
        let mut digits = slack_signature.into_bytes();
        digits[position] = if digits[position] == b'0' { b'1' } else { b'0' };
        prop_assert!(!slacks(&body, std::str::from_utf8(&digits).unwrap()));
    }

    #[test]
    fn arbitrary_signatures_never_verify(body: Vec<u8>, signature in "[ -~]{0,200}") {
        prop_assert!(!standard(&body, &signature) && !slacks(&body, &signature));
    }

    #[test]
    fn arbitrary_bodies_never_panic(body: Vec<u8>) {
        let config = Config::parse(include_str!("../../peergate.example.toml")).unwrap();
        let timestamp = NOW.to_string();
        let signature = slack::sign_body(&slack_secret(), &timestamp, &body);
        let headers = headers(&[("x-slack-request-timestamp", &timestamp), ("x-slack-signature", &signature)]);
        let authentic = slack::verify_with(&[slack_secret()], &headers, Bytes::from(body.clone()), now()).unwrap();
        let _ = Platform::Slack.parse(&config.platforms, authentic);
        let _ = serde_json::from_slice::<envelope::HttpEvent>(&body).map(envelope::into_request);
        let _ = Config::parse(&String::from_utf8_lossy(&body));
    }

    #[test]
    fn record_keeps_its_invariants_under_any_events(steps in prop::collection::vec(step(), 0..80)) {
        let mut at = now();
        let mut record = on(2, 1, |review| Approval::discover(review, at));
        for (position, step) in steps.into_iter().enumerate() {
            at += SignedDuration::from_secs(1);
            let before = record.clone();
            // Unique, except for replays of the first few.
            let request = |key: u32| if key < 2 { key } else { u32::try_from(position).unwrap() + 10 };
            let knows = |key: u32| serde_json::to_string(&before.history()).unwrap().contains(&format!("request_key\":\"{key}\""));
            match &step {
                Step::Event(event) => {
                    let changed = record.apply_event(event, at);
                    prop_assert_eq!(changed, record != before);
                    let mut twice = record.clone();
                    let a_try_failed = record.attempts() > before.attempts() || matches!(event, Event::Undelivered { .. });
                    prop_assert!(a_try_failed || !twice.apply_event(event, at), "applied twice is applied once: {:?}", event);
                    let was_removed =
                        *before.state() == ApprovalState::Activated && *record.state() == ApprovalState::Deleted;
                    if before.state().is_final() && !corrected(&record, &before) && !was_removed {
                        prop_assert_eq!(record.state(), before.state(), "a final state stays final: {:?}", event);
                    }
                    if *record.state() == ApprovalState::Activating && *before.state() == ApprovalState::Approved {
                        prop_assert_eq!(record.fingerprint(), before.fingerprint());
                    }
                    let decides = *record.state() == ApprovalState::Approved && *before.state() != ApprovalState::Approved;
                    prop_assert!(!decides || corrected(&record, &before), "no event decides");
                }
                Step::Decide { verdict, by, bandwidth, key } => {
                    let decision = decision(*verdict, by, *bandwidth, at, request(*key));
                    let replayed = knows(request(*key));
                    match on(2, *bandwidth, |review| Approval::apply_decision(Some(&record), review, decision)) {
                        Ok(next) => {
                            let open = matches!(before.state(), ApprovalState::Pending | ApprovalState::Failed { .. } | ApprovalState::Deleted);
                            prop_assert!(open && !replayed, "{}", before.state().name());
                            prop_assert_eq!(next.fingerprint(), &connection(Status::Accepting, *bandwidth).fingerprint());
                            let restarts = u32::from(matches!(before.state(), ApprovalState::Failed { .. }));
                            prop_assert!(next.generation() >= before.generation() + restarts);
                            if *next.state() == ApprovalState::Approved {
                                prop_assert!(people(&next) >= 2, "two people: {:?}", next.decisions());
                            }
                            record = next;
                        }
                        // A replay concerns the same facts as the first request.
                        Err(DecisionError::FactsChanged) => {
                            let fresh = connection(Status::Accepting, *bandwidth).fingerprint();
                            prop_assert!(replayed || *before.fingerprint() != fresh);
                        }
                        Err(DecisionError::Voided) => prop_assert!(replayed),
                        Err(DecisionError::Repeated | DecisionError::AlreadyDecided | DecisionError::NothingToWithdraw) => {}
                        Err(closed) => prop_assert!(false, "{closed:?}"),
                    }
                }
                Step::Withdraw { by, key } => {
                    let replayed = knows(request(*key));
                    if record.withdraw_decision(&approver(by), &id_of(request(*key)), &who, at).is_ok() {
                        prop_assert!(*before.state() == ApprovalState::Pending && !replayed);
                        prop_assert_eq!(people(&record) + 1, people(&before));
                    } else {
                        prop_assert_eq!(&record, &before);
                    }
                }
                Step::Look { approvals, bandwidth } => {
                    let changed = on(*approvals, *bandwidth, |review| record.refresh(review, at));
                    prop_assert_eq!(changed, record != before);
                    if *record.state() == ApprovalState::Approved && *before.state() == ApprovalState::Pending {
                        prop_assert!(people(&record) >= usize::try_from(*approvals).unwrap());
                        prop_assert_eq!(record.fingerprint(), before.fingerprint());
                    }
                }
                Step::Claim => {
                    for Claim { notification, channel, .. } in record.claim_due(at, at, |_| Some(CardId(2))) {
                        let earlier = record.outbox().iter().filter(|other| other.number < notification.number);
                        for other in earlier {
                            let waiting = matches!(other.deliveries.get(&channel), Some(Delivery::Waiting { .. }));
                            prop_assert!(!waiting, "a channel hears things in order");
                        }
                    }
                    prop_assert!(record.outbox().due_notifications(at).is_empty(), "nobody else posts them");
                }
                Step::Call(result) => {
                    if matches!(record.state(), ApprovalState::Approved | ApprovalState::Rejecting) {
                        record.begin_call(at);
                        record.finish_call(*result);
                    }
                }
                Step::Jump(hours) => at += SignedDuration::from_hours(*hours),
            }
            let number = |record: &Approval| record.outbox().last().map_or(0, |notice| notice.number);
            let enqueued = number(&record) - number(&before);
            if record.state() != before.state() {
                prop_assert!(enqueued >= 1, "each change of state is announced: {:?} by {:?}", record.state(), step);
                prop_assert!(record.history().len() > before.history().len());
            }
            prop_assert_eq!(record.decisions().len(), people(&record)
                + record.decisions().iter().filter(|decision| decision.verdict == Verdict::Reject).count(), "nobody counts twice");
            prop_assert!(record.decisions().iter().all(|decision| decision.fingerprint == *record.fingerprint()),
                "nobody has decided about anything else: {:?}", step);
            let decided = matches!(record.state(), ApprovalState::Approved | ApprovalState::Rejecting);
            prop_assert!(!decided || record.client_token().is_some());
            if record.generation() != before.generation() {
                prop_assert!(record.client_token().is_none() || record.client_token() != before.client_token());
            }
            prop_assert_eq!(&record.history()[..before.history().len()], &before.history()[..], "the past is not rewritten");
            let open = !record.state().is_final() || record.unconfirmed().is_some() || record.drift().is_some();
            prop_assert!(record.next_step_at().is_none() || open, "nothing is left after the end: {:?}", step);
            let followed = record.next_step_at().is_some() || *record.state() == ApprovalState::Activating;
            prop_assert_eq!(followed, open, "work is left until the end: {:?}", step);
            let is_sure = *record.state() == ApprovalState::Pending && record.unconfirmed().is_none();
            if is_sure && record.connection().fingerprint() == *record.fingerprint() {
                let reading = Connection { status: Status::Accepting, ..record.connection().clone() };
                prop_assert!(!record.index_state().is_outdated_by(&reading, at, || record.policy().clone()), "a known state is no change");
            }
            prop_assert_eq!(record.facts().fingerprint(), record.fingerprint().clone(), "people see what they decide on");
            let waiting = record.outbox().iter().flat_map(|notice| notice.deliveries.values());
            let waiting = waiting.filter(|delivery| matches!(delivery, Delivery::Waiting { .. })).count();
            prop_assert_eq!(record.due_at().is_some(), open || waiting > 0, "no delivery is forgotten");
            let numbers: Vec<_> = record.outbox().iter().map(|notice| notice.number).collect();
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
            let json = serde_json::to_value(&record).unwrap();
            prop_assert_eq!(History::verify(&record.id().to_string(), &json), Ok(()));
            prop_assert_eq!(&serde_json::from_value::<Approval>(json).unwrap(), &record, "what is stored is what was meant");
        }
    }

    #[test]
    fn edited_history_is_detected(entry in 0..5_usize, edit in 0..7_usize) {
        let record = decided_by_two();
        let id = record.id().to_string();
        let mut json = serde_json::to_value(&record).unwrap();
        prop_assert_eq!(History::verify(&id, &json), Ok(()));
        let history = json["history"].as_array_mut().unwrap();
        prop_assert_eq!(history.len(), 5, "discovered, approved, withdrawn and two approvals: {:?}", history);
        match edit {
            0 => history[entry]["at"] = "2020-01-01T00:00:00Z".into(),
            1 => history[entry]["what"] = serde_json::json!("missing"),
            2 => history[entry]["hash"] = "0".repeat(64).into(),
            3 => { history.remove(entry); }
            4 => history.swap(entry, (entry + 1) % 5),
            5 => { let copy = history[entry].clone(); history.insert(entry, copy); }
            _ => history[entry]["state"] = "activated".into(),
        }
        prop_assert!(History::verify(&id, &json).is_err(), "edit {} of entry {}", edit, entry);
        prop_assert!(History::verify("prod/pcc-b", &serde_json::to_value(&record).unwrap()).is_err(), "another record's");
    }
}

fn decided_by_two() -> Approval {
    let at = now();
    let mut record = on(2, 1, |review| Approval::discover(review, at));
    let cast = |record: &Approval, by, key| {
        on(2, 1, |review| {
            Approval::apply_decision(Some(record), review, decision(Verdict::Approve, by, 1, at, key)).unwrap()
        })
    };
    record = cast(&record, "alice", 1);
    record.withdraw_decision(&approver("dave"), &id_of(2), &who, at).unwrap();
    record = cast(&record, "dave", 3);
    cast(&record, "bob", 4)
}

#[test]
fn decision_missing_from_the_history_is_detected() {
    let record = decided_by_two();
    let mut json = serde_json::to_value(&record).unwrap();
    json["decisions"][0]["by"]["principal"] = "webhook:ci/mallory".into();
    assert_eq!(History::verify(&record.id().to_string(), &json), Err(HistoryMismatch::Decision));
    json["state"] = "pending".into();
    assert_eq!(History::verify(&record.id().to_string(), &json), Err(HistoryMismatch::State));
    json["history"] = serde_json::json!([]);
    assert_eq!(History::verify(&record.id().to_string(), &json), Err(HistoryMismatch::Empty));
}

#[test]
fn repeated_changes_end_a_request() {
    let mut record = on(2, 1, |review| Approval::discover(review, now()));
    for number in 0..100 {
        on(2, number % 2 + 1, |review| record.refresh(review, now()));
    }
    assert_eq!(record.state().name(), "failed");
    assert!(record.history().len() < 30 && record.outbox().len() < 30, "{}", record.history().len());
}

#[test]
fn former_approver_no_longer_counts() {
    let record = on(2, 1, |review| Approval::discover(review, now()));
    let mallory = decision(Verdict::Approve, "bob", 1, now(), 1);
    let record = on(2, 1, |review| Approval::apply_decision(Some(&record), review, mallory).unwrap());
    let record = edited(&record, |record| record["decisions"][0]["by"] = json!(approver("mallory")));
    let last = decision(Verdict::Approve, "alice", 1, now(), 2);
    let record = on(2, 1, |review| Approval::apply_decision(Some(&record), review, last).unwrap());
    assert_eq!((record.state().name(), record.approval_count()), ("pending", 1));
}

/// A request with so many approvals disappears and reappears until its record ends. Returns how often it reappeared, and
/// the record.
fn comes_and_goes(approvals: u32) -> (usize, Approval) {
    let needed = approvals + 1;
    let mut record = on(needed, 1, |review| Approval::discover(review, now()));
    for number in 0..approvals {
        let by = format!("user{number}");
        let reason = Some("\u{1F6A7}".repeat(400));
        let decision = Decision { reason, ..decision(Verdict::Approve, &by, 1, now(), number) };
        record = on(needed, 1, |review| Approval::apply_decision(Some(&record), review, decision)).unwrap();
    }
    let seen = Event::Observed(Box::new(connection(Status::Accepting, 1)));
    let mut at = now();
    for times in 0..100 {
        for event in [&Event::Missing, &Event::Missing, &Event::Missing, &seen] {
            at += SignedDuration::from_secs(61);
            record.apply_event(event, at);
        }
        if *record.state() != ApprovalState::Pending {
            return (times, record);
        }
        assert_eq!(record.approval_count(), approvals, "they count again");
    }
    panic!("for ever");
}

#[test]
fn reappearing_request_ends_before_its_record_is_full() {
    let (times, small) = comes_and_goes(1);
    assert_eq!((times, small.state().name()), (20, "failed"));
    let (times, large) = comes_and_goes(20);
    assert_eq!(large.state().name(), "failed");
    assert!((1..20).contains(&times), "each time writes all approvals once more: {times}");
    for record in [small, large] {
        let json = serde_json::to_value(&record).unwrap();
        assert!(json.to_string().len() < 400 * 1024, "{}", json.to_string().len());
        assert_eq!(History::verify(&record.id().to_string(), &json), Ok(()));
    }
}

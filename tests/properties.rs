//! Laws: what holds for any input, and for any order of events.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use bytes::Bytes;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use peergate::approval::{
    Approval, ApprovalId, Approver, Decision, Delivery, Event, Grounds, Principal, Problem, Redelivery, State, Verdict,
};
use peergate::chat::{slack, standard_webhooks};
use peergate::config::Config;
use peergate::envelope;
use peergate::peering::{Connection, Status};
use peergate::secrets::{SlackSigningSecret, WebhookKey};
use proptest::prelude::*;

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

fn slack_secret() -> SlackSigningSecret {
    "8f742231b10e8888abcd99yyyzzz85a5".to_owned().try_into().unwrap()
}

fn standard(body: &[u8], signature: &str) -> bool {
    let timestamp = NOW.to_string();
    let headers =
        headers(&[("webhook-id", "msg_1"), ("webhook-timestamp", &timestamp), ("webhook-signature", signature)]);
    standard_webhooks::verify(&headers, Bytes::copy_from_slice(body), &[key()], now()).is_ok()
}

fn slacks(body: &[u8], signature: &str) -> bool {
    let timestamp = NOW.to_string();
    let headers = headers(&[("x-slack-request-timestamp", &timestamp), ("x-slack-signature", signature)]);
    slack::verify(&headers, Bytes::copy_from_slice(body), &[slack_secret()], now()).is_ok()
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

fn decide(before: Option<&Approval>, verdict: Verdict, by: &str, at: Timestamp, key: u32) -> Option<Approval> {
    let by = Approver { principal: Principal::new("webhook", "ci", by).unwrap(), person: Some(by.to_owned()) };
    let decision = Decision { verdict, by, at, reason: None, request_key: key.to_string() };
    let connection = connection(Status::Accepting, 1);
    let id = ApprovalId { target: "prod".into(), instance_id: connection.instance_id.clone() };
    let channels = ["one".to_owned(), "two".to_owned()];
    let grounds = Grounds { id: &id, connection: &connection, rule: "r", channels: &channels };
    Approval::decide(before, &grounds, decision).ok()
}

#[derive(Debug, Clone)]
enum Step {
    Event(Event),
    Decide(Verdict, &'static str, u32),
    Claim,
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![
        Just(Status::Accepting),
        Just(Status::Updating),
        Just(Status::Activated),
        Just(Status::Rejected),
        Just(Status::Expired),
        Just(Status::Deleted),
        Just(Status::Creating),
        Just(Status::Other("Paused".into())),
    ];
    let problem = || Problem { code: "X".into(), request_id: None };
    let retry = prop_oneof![
        Just(Redelivery::Soon(None)),
        Just(Redelivery::Soon(Some(SignedDuration::from_hours(1000)))),
        Just(Redelivery::Later),
        Just(Redelivery::Never)
    ];
    let channel = || prop_oneof![Just("one".to_owned()), Just("two".to_owned()), Just("three".to_owned())];
    prop_oneof![
        3 => status.prop_map(|status| Step::Event(Event::Seen(Box::new(connection(status, 1))))),
        2 => Just(Step::Event(Event::Accepted { request_id: "R".into() })),
        2 => Just(Step::Event(Event::Rejected { request_id: "R".into() })),
        1 => Just(Step::Event(Event::Missing)),
        1 => Just(Step::Event(Event::Changed(Box::new(connection(Status::Accepting, 2))))),
        1 => Just(Step::Event(Event::Failed(problem()))),
        2 => Just(Step::Event(Event::Deferred { problem: problem(), retry_after: None })),
        1 => Just(Step::Event(Event::CredentialsRefused(problem()))),
        4 => (1..5_u32, channel()).prop_map(|(number, channel)| Step::Event(Event::Delivered { number, channel, reference: None })),
        3 => (1..5_u32, channel(), retry).prop_map(|(number, channel, retry)| {
            Step::Event(Event::Undelivered { number, channel, error: "E".into(), retry })
        }),
        3 => (prop_oneof![Just(Verdict::Approve), Just(Verdict::Reject)], prop_oneof![Just("alice"), Just("bob")], 0..6_u32)
            .prop_map(|(verdict, by, key)| Step::Decide(verdict, by, key)),
        2 => Just(Step::Claim),
    ]
}

proptest! {
    #[test]
    fn what_we_sign_verifies_and_one_flipped_bit_does_not(body: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
        let standard_signature = standard_webhooks::sign(&[key()], "msg_1", &NOW.to_string(), &body);
        let slack_signature = slack::sign(&slack_secret(), &NOW.to_string(), &body);
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
    fn arbitrary_bodies_never_panic(body: Vec<u8>, form: bool) {
        let config = Config::parse(include_str!("../peergate.example.toml")).unwrap();
        let timestamp = NOW.to_string();
        let signature = slack::sign(&slack_secret(), &timestamp, &body);
        let headers = headers(&[("x-slack-request-timestamp", &timestamp), ("x-slack-signature", &signature)]);
        let authentic = slack::verify(&headers, Bytes::from(body.clone()), &[slack_secret()], now()).unwrap();
        let _ = slack::parse(authentic, form, config.slack.as_ref().unwrap());
        let _ = serde_json::from_slice::<envelope::Event>(&body).map(envelope::open);
        let _ = Config::parse(&String::from_utf8_lossy(&body));
    }

    #[test]
    fn a_record_holds_its_invariants_whatever_happens(steps in prop::collection::vec(step(), 0..60)) {
        let mut at = now();
        let mut record = decide(None, Verdict::Approve, "alice", at, 0).unwrap();
        for (position, step) in steps.into_iter().enumerate() {
            at += SignedDuration::from_secs(1);
            let before = record.clone();
            match &step {
                Step::Event(event) => {
                    let changed = record.apply(event, at);
                    prop_assert_eq!(changed, record != before);
                    let told = record.outbox.len() - before.outbox.len();
                    prop_assert!(told <= 2, "{:?} told {}", event, told);
                    if before.state.is_final() {
                        prop_assert_eq!(&record.state, &before.state, "a final state stays final: {:?}", event);
                        prop_assert_eq!(told, 0);
                    }
                    if record.state != before.state {
                        prop_assert!(told >= 1, "each change of state is told: {:?} by {:?}", record.state, event);
                    }
                    if record.state == State::Activating && before.state == State::Approved {
                        prop_assert_eq!(&record.fingerprint, &before.fingerprint);
                    }
                }
                Step::Decide(verdict, by, key) => {
                    // Unique but for replays of the first few.
                    let key = if *key < 2 { *key } else { u32::try_from(position).unwrap() + 10 };
                    if let Some(next) = decide(Some(&record), *verdict, by, at, key) {
                        let open = matches!(before.state, State::Failed { .. } | State::Deleted);
                        prop_assert!(open, "{}", before.state.name());
                        prop_assert_eq!(next.generation, before.generation + 1);
                        prop_assert_ne!(&next.client_token, &before.client_token);
                        prop_assert!(before.decisions.iter().all(|earlier| earlier.request_key != key.to_string()));
                        record = next;
                    }
                }
                Step::Claim => {
                    for (notice, channel) in record.outbox.claim(at) {
                        let earlier = record.outbox.iter().filter(|other| other.number < notice.number);
                        for other in earlier {
                            let waiting = matches!(other.deliveries[&channel], Delivery::Waiting { .. });
                            prop_assert!(!waiting, "a channel hears things in order");
                        }
                    }
                    prop_assert!(record.outbox.due(at).is_empty(), "nobody else posts them");
                }
            }
            prop_assert_eq!(record.next_step_at.is_some(), !record.state.is_final(), "work is left until the end");
            let waiting = record.outbox.iter().flat_map(|notice| notice.deliveries.values());
            let waiting = waiting.filter(|delivery| matches!(delivery, Delivery::Waiting { .. })).count();
            prop_assert_eq!(record.due_at().is_some(), !record.state.is_final() || waiting > 0, "nothing owed is forgotten");
            let numbers: Vec<_> = record.outbox.iter().map(|notice| notice.number).collect();
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
            let json = serde_json::to_string(&record).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Approval>(&json).unwrap(), &record, "what is stored is what was meant");
        }
    }
}

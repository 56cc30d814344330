//! A model of the whole: random sequences of requests, discoveries, clicks by several people, replays, deaths in the
//! middle, faults of the API and of chat, changed facts and jumps of the clock. After every step the invariants hold that
//! ARCHITECTURE.md promises; at the end, when all faults are gone, everything is finished and announced.
//!
//! `PEERGATE_MODEL_RUNS` and `PEERGATE_MODEL_SEED` make more and other runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::four_platforms::FourPlatforms;
use crate::support::prelude::*;
use peergate::approval::{Approval, ApprovalState, AuditEvent, Delivery, History, Verdict};
use peergate::chat::SignedRequest;
use peergate::fake::dingtalk::{self, DingTalkFault, FakeDingTalk};
use peergate::fake::feishu::{CHAT_ID, FakeFeishu, FeishuFault};
use peergate::fake::teams::{self, FakeTeams, TeamsFault};
use peergate::peering::{Fingerprint, InstanceId};
use tokio::time::timeout;

const STEPS: usize = 60;
const PEOPLE: [(&str, &str); 4] = [("alice", ALICE), ("bob", BOB), ("carol", CAROL), ("erin", ERIN)];
const VPCS: [&str; 4] = ["vpc-two-people", "vpc-by-itself", "vpc-with-a-reason", "vpc-other"];

/// Small, seeded, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).unwrap()).unwrap()
    }

    fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len())]
    }
}

/// Facts of earlier steps that must stay true.
#[derive(Default)]
struct Memory {
    ids: Vec<InstanceId>,
    /// Requests that may be repeated.
    sent: Vec<SignedRequest>,
    /// Final states stay.
    ended: BTreeMap<InstanceId, ApprovalState>,
    /// Bodies of machines, with their ids: sent again, they have another signature.
    bodies: Vec<(String, String)>,
    /// Ids of requests that named no fingerprint.
    blind: BTreeSet<String>,
    /// How often an acknowledged accept has come to nothing.
    undone: BTreeMap<InstanceId, usize>,
    log: Vec<String>,
}

/// Tests that run side by side. Test `n` of `LANES` takes the seeds `n`, `n + LANES` and so on.
macro_rules! lanes {
    ($($name:ident: $lane:literal,)*) => {$(
        #[tokio::test]
        async fn $name() {
            run_lane($lane).await;
        }
    )*};
}

const LANES: u64 = 6;

lanes! {
    random_steps_keep_every_invariant_1: 0,
    random_steps_keep_every_invariant_2: 1,
    random_steps_keep_every_invariant_3: 2,
    random_steps_keep_every_invariant_4: 3,
    random_steps_keep_every_invariant_5: 4,
    random_steps_keep_every_invariant_6: 5,
}

async fn run_lane(lane: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let runs = number("PEERGATE_MODEL_RUNS").unwrap_or(LANES);
    let seed = number("PEERGATE_MODEL_SEED").unwrap_or(20_261_122);
    for run in (lane..runs).step_by(usize::try_from(LANES).unwrap()) {
        run_once(seed + run).await;
    }
}

async fn run_once(seed: u64) {
    let settings = SimulatorSettings {
        activation_delay: Duration::from_millis(5),
        calls_per_minute: None,
        ..SimulatorSettings::default()
    };
    let FourPlatforms { mut app, feishu, dingtalk, teams } =
        FourPlatforms::add_to(TestApp::with_settings(settings).await).await;
    let chats = Chats { feishu, dingtalk, teams };
    let original = app.config.clone();
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut memory = Memory::default();
    for _ in 0..STEPS {
        if dice.roll(20) == 0 {
            calm(&app, &memory, seed).await;
            memory.log.push("calm".into());
        }
        let what = step(&mut app, &chats, &original, &mut dice, &mut memory).await;
        memory.log.push(what);
        let records = records(&app, &memory).await;
        check(&app, &mut memory, &records, seed);
    }
    app.reconfigure(&original);
    chats.clear_faults();
    settle(&app, &mut memory, seed).await;
}

/// Without transient readings, and after enough time to confirm each reading, the channels show the true state.
async fn calm(app: &TestApp, memory: &Memory, seed: u64) {
    app.simulator.clear_faults();
    for id in &memory.ids {
        app.show_status(id, "-");
    }
    // A refused permission is retried after five minutes, and the call is followed by one more reading.
    for _ in 0..7 {
        clock::jump::advance_in_thread(SignedDuration::from_secs(61));
        app.discover().await;
    }
    for record in records(app, memory).await {
        let id = &record.id().instance_id;
        let truth = app.simulator.true_status(id.as_str()).unwrap();
        let is_true = match record.state() {
            ApprovalState::Pending | ApprovalState::Approved | ApprovalState::Rejecting => {
                ["Accepting", "Updating"].contains(&truth)
            }
            ApprovalState::Activating => truth == "Updating",
            // An active connection cannot be rejected and cannot wait.
            ApprovalState::Activated => ["Activated", "Updating", "Rejected", "Accepting", "Expired"].contains(&truth),
            // The way in which it ended may be hidden for longer, but it is not alive.
            ApprovalState::Rejected | ApprovalState::Expired | ApprovalState::Deleted => {
                !["Activated", "Accepting"].contains(&truth)
            }
            ApprovalState::Failed { code } => {
                truth != "Activated" || ["AcceptedElsewhere", "ChangedTooOften"].contains(&code.as_str())
            }
        };
        let story = || format!("seed {seed}:\n  {}", memory.log.join("\n  "));
        assert!(is_true, "{id}: channels heard {}, and it is {truth}\n{}", record.state().name(), story());
    }
}

/// Somebody clicks a button of some card in Feishu.
async fn click_in_feishu(
    app: &TestApp,
    feishu: &FakeFeishu,
    person: &str,
    dice: &mut Dice,
    memory: &mut Memory,
) -> String {
    let cards = feishu.messages_in(CHAT_ID);
    if cards.is_empty() {
        return "nothing to click in Feishu".into();
    }
    let card = dice.one_of(&cards);
    let labels = card.button_labels();
    if labels.is_empty() {
        return "no button in Feishu".into();
    }
    let label = *dice.one_of(&labels);
    let reason = (dice.roll(2) == 0).then_some("said so in Feishu");
    let operator = feishu.person_of_tenant(&format!("ou_{person}"));
    let Ok(click) = feishu.click_button(&card.message_id, label, &operator, reason) else {
        return format!("{label} in Feishu calls nobody");
    };
    let secrets = app.parts.secrets.current(clock::now()).await.unwrap();
    let secrets = secrets.platforms.feishu.as_ref().unwrap();
    let signed = peergate::chat::feishu::sign_plaintext(secrets, &click, clock::now()).unwrap();
    memory.sent.push(signed.clone());
    let reply = app.send(&signed).await;
    feishu.apply_reply(&card.message_id, &reply.body_json()).unwrap();
    format!("{person} clicks {label} in Feishu: {}", reply.status)
}

/// Somebody clicks a button of some card in DingTalk, as they see it.
async fn click_in_dingtalk(
    app: &TestApp,
    dingtalk: &FakeDingTalk,
    person: &str,
    dice: &mut Dice,
    memory: &mut Memory,
) -> String {
    let user = match person {
        "alice" => "manager-alice",
        "bob" => "0185115183983732",
        "carol" => "carol.01",
        _ => "mallory",
    };
    let cards = dingtalk.cards_in(dingtalk::CONVERSATION_ID, user);
    if cards.is_empty() {
        return "nothing to click in DingTalk".into();
    }
    let card = dice.one_of(&cards);
    if card.buttons.is_empty() {
        return "no button in DingTalk".into();
    }
    let label = dice.one_of(&card.buttons).label.clone();
    let reason = (dice.roll(2) == 0).then_some("said so in DingTalk");
    let by = dingtalk.person_of_corp(user);
    let Ok(click) = dingtalk.click_button(&card.out_track_id, &label, &by, reason) else {
        return format!("{label} in DingTalk calls nobody");
    };
    let secrets = app.parts.secrets.current(clock::now()).await.unwrap();
    let secrets = secrets.platforms.dingtalk.as_ref().unwrap();
    let signed = peergate::chat::dingtalk::sign_card_callback(secrets, &click, clock::now()).unwrap();
    memory.sent.push(signed.clone());
    let reply = app.send(&signed).await;
    if reply.status == 200 {
        dingtalk.apply_reply(&card.out_track_id, &by, &reply.body_json()).unwrap();
    }
    format!("{person} clicks {label} in DingTalk: {}", reply.status)
}

/// Somebody clicks a button of some message in Teams.
async fn click_in_teams(
    app: &TestApp,
    teams: &FakeTeams,
    person: &str,
    dice: &mut Dice,
    memory: &mut Memory,
) -> String {
    let messages: Vec<_> =
        teams.messages_in(teams::CHANNEL_ID).into_iter().filter(|it| !it.buttons.is_empty()).collect();
    if messages.is_empty() {
        return "nothing to click in Teams".into();
    }
    let card = dice.one_of(&messages);
    let label = dice.one_of(&card.buttons).label.clone();
    let reason = (dice.roll(2) == 0).then_some("said so in Teams");
    let user = teams.user(if person == "erin" { "mallory" } else { person });
    let Ok(click) = teams.click_button(&card.message_id, &label, &user, reason) else {
        return format!("{label} in Teams calls nobody");
    };
    let signed = teams.sign(&click).unwrap();
    memory.sent.push(signed.clone());
    let reply = app.send(&signed).await;
    format!("{person} clicks {label} in Teams: {}", reply.status)
}

/// The fakes of the chat platforms besides Slack.
struct Chats {
    feishu: FakeFeishu,
    dingtalk: FakeDingTalk,
    teams: FakeTeams,
}

impl Chats {
    fn break_one(&self, dice: &mut Dice) -> String {
        match dice.roll(3) {
            0 => {
                let path = "/open-apis/im".into();
                self.feishu.add_fault(FeishuFault { path, status: 503, ..FeishuFault::default() });
                "Feishu is down".into()
            }
            1 => {
                let path = "/v1.0/card".into();
                self.dingtalk.add_fault(DingTalkFault { path, status: 503, ..DingTalkFault::default() });
                "DingTalk is down".into()
            }
            _ => {
                let path = "/v3/conversations".into();
                self.teams.add_fault(TeamsFault { path, status: 503, ..TeamsFault::default() });
                "Teams is down".into()
            }
        }
    }

    fn clear_faults(&self) {
        self.feishu.clear_faults();
        self.dingtalk.clear_faults();
        self.teams.clear_faults();
    }
}

async fn step(app: &mut TestApp, chats: &Chats, original: &str, dice: &mut Dice, memory: &mut Memory) -> String {
    if memory.ids.is_empty() || (memory.ids.len() < 4 && dice.roll(8) == 0) {
        let vpc = *dice.one_of(&VPCS);
        let theirs = format!("vpc-requester-{}", memory.ids.len());
        let id = app.request_peering(&[("AcceptingVpcId", vpc), ("VpcId", &theirs)]).await.unwrap();
        memory.ids.push(id.clone());
        return format!("{id} is requested for {vpc}");
    }
    let id = dice.one_of(&memory.ids).clone();
    let (person, user) = *dice.one_of(&PEOPLE);
    match dice.roll(27) {
        20 | 21 => {
            let shows =
                *dice.one_of(&["Updating", "Deleting", "Missing", "Deleted", "Accepting", "Rejected", "-", "-"]);
            app.show_status(&id, shows);
            format!("readings of {id} show {shows}")
        }
        22 => {
            let config = match dice.roll(4) {
                0 => original.replace("netops = [\"alice\", \"bob\"]", "netops = [\"bob\"]"),
                1 => original.replace("approvals = 2", "approvals = 3"),
                2 => original.replace("approvals = 1\napprovers", "approvals = 2\napprovers"),
                _ => original.to_owned(),
            };
            app.reconfigure(&config);
            "the rules change".into()
        }
        23 if !memory.bodies.is_empty() => {
            let (name, body) = dice.one_of(&memory.bodies).clone();
            let signed = app.sign_body_as(&body, &name, &clock::now().as_second().to_string());
            format!("{name} is signed again and sent again: {}", app.send(&signed).await.name())
        }
        24 => {
            let verb = *dice.one_of(&["approve", "approve", "reject"]);
            let (name, data) = (format!("blind-{}", clock::nonce()), json!({"instance_id": id, "actor": person}));
            let body = json!({"type": format!("peering.{verb}"), "data": data}).to_string();
            let signed = app.sign_body_as(&body, &name, &clock::now().as_second().to_string());
            memory.blind.insert(format!("ci/webhook-id:{name}"));
            memory.bodies.push((name, body));
            format!("{person} says {verb} for {id} without a fingerprint: {}", app.send(&signed).await.name())
        }
        25 => {
            let expires_at = Some(clock::now() + SignedDuration::from_mins(30));
            if app.simulator.true_status(id.as_str()) == Some("Accepting") {
                let shows = Some("Accepting".to_owned());
                app.tamper(&id, Tampering { expires_at, shows, ..Tampering::default() });
            }
            format!("{id} expires in half an hour, and its status will not say so")
        }
        26 if app.count_accepts(&id) > 0 && app.simulator.true_status(id.as_str()) == Some("Updating") => {
            app.set_status(&id, "Accepting");
            *memory.undone.entry(id.clone()).or_default() += 1;
            format!("the accept of {id} comes to nothing")
        }
        0..=2 => {
            app.discover().await;
            "discovery".into()
        }
        3..=6 => {
            let verb = *dice.one_of(&["approve", "approve", "approve", "approve", "withdraw", "reject", "acknowledge"]);
            let mut spec = app.event_spec(verb, &id, person);
            if verb == "acknowledge" {
                let record = app.load_record(&id).await;
                spec.fingerprint = record.map(|stored| stored.approval.asked_fingerprint().to_string());
            }
            spec.reason = (dice.roll(2) == 0).then(|| "because".into());
            let signed = app.sign_spec(&spec).await;
            memory.sent.push(signed.clone());
            let reply = app.send(&signed).await;
            format!("{person} sends {verb} for {id}: {}", reply.name())
        }
        7..=9 if dice.roll(2) == 0 => match dice.roll(3) {
            0 => click_in_feishu(app, &chats.feishu, person, dice, memory).await,
            1 => click_in_dingtalk(app, &chats.dingtalk, person, dice, memory).await,
            _ => click_in_teams(app, &chats.teams, person, dice, memory).await,
        },
        7..=9 => {
            // Any copy of any card that was ever there.
            let posts =
                [app.slack.posts(SLACK_PATH), app.slack.posts("/api/chat.update"), app.slack.posts(WEBHOOK_PATH)]
                    .concat();
            let bodies = posts.iter().map(peergate::fake::slack::RecordedPost::body_json);
            let buttons: Vec<_> =
                bodies.flat_map(|body| body["blocks"][1]["elements"].as_array().cloned().unwrap_or_default()).collect();
            if buttons.is_empty() {
                return "nothing to click".into();
            }
            let button = dice.one_of(&buttons);
            let (action, value) = (button["action_id"].as_str().unwrap(), button["value"].as_str().unwrap());
            let signed = app.sign_slack_payload(&app.click_payload(action, value, user)).await;
            memory.sent.push(signed.clone());
            app.send(&signed).await;
            format!("{person} clicks {action} on {value:.30}")
        }
        10 => {
            let Some(modal) = app.slack.modals().pop() else { return "no modal".into() };
            let signed = app.sign_slack_payload(&app.submission_payload(&modal, "said so", user)).await;
            memory.sent.push(signed.clone());
            app.send(&signed).await;
            format!("{person} gives a reason")
        }
        11 if !memory.sent.is_empty() => {
            let signed = dice.one_of(&memory.sent).clone();
            let reply = app.send(&signed).await;
            format!("a replay: {}", reply.status)
        }
        12 => {
            // Death in the middle: the future is dropped wherever it is.
            let signed = app.sign_event("approve", &id, person).await;
            memory.sent.push(signed.clone());
            let micros = u64::try_from(dice.roll(6000)).unwrap();
            let died = timeout(Duration::from_micros(micros), app.send(&signed)).await.is_err();
            format!("{person} approves {id}; the webhook died: {died}")
        }
        13 => {
            let micros = u64::try_from(dice.roll(12_000)).unwrap();
            let died = timeout(Duration::from_micros(micros), app.discover()).await.is_err();
            format!("the watcher died: {died}")
        }
        14 => {
            let action = *dice.one_of(&[ACCEPT, ACCEPT, REJECT, GET, LIST]);
            let code =
                *dice.one_of(&["InternalError", "Throttling.User", "Forbidden.RAM", "OperationFailed.CdtNotOpened"]);
            let (after_effect, dry_run) = (dice.roll(2) == 0, dice.roll(3) == 0);
            let fault = Fault {
                action: Some(action.into()),
                code: Some(code.into()),
                after_effect,
                dry_run,
                ..Fault::default()
            };
            app.simulator.add_fault(fault);
            format!("the next {action} fails with {code}, after its effect: {after_effect}, dry run: {dry_run}")
        }
        15 => {
            let path = *dice.one_of(&[SLACK_PATH, WEBHOOK_PATH, AUDIT_PATH, "/api/chat.update", "/api/views.open"]);
            if dice.roll(4) == 0 {
                chats.break_one(dice)
            } else if dice.roll(2) == 0 {
                app.slack.add_outage(Outage { path: path.into(), status: 503, ..Outage::default() });
                format!("{path} is down")
            } else {
                app.slack.clear_outages();
                chats.clear_faults();
                "chat is well".into()
            }
        }
        16 => {
            let bandwidth = Some(i64::try_from(dice.roll(3)).unwrap() + 1);
            app.tamper(&id, Tampering { bandwidth, ..Tampering::default() });
            format!("{id} changes to {bandwidth:?} Mbit/s")
        }
        17 if dice.roll(3) == 0 => {
            let status = *dice.one_of(&["Rejected", "Expired", "Deleted", "Updating", "Activated"]);
            app.set_status(&id, status);
            format!("{id} becomes {status} outside")
        }
        18 => {
            let hours = i64::try_from(dice.roll(12)).unwrap();
            clock::jump::advance_in_thread(SignedDuration::from_hours(hours) + SignedDuration::from_mins(7));
            format!("{hours} hours pass")
        }
        _ => {
            app.round().await;
            "a round".into()
        }
    }
}

async fn records(app: &TestApp, memory: &Memory) -> Vec<Approval> {
    let mut records = vec![];
    for id in &memory.ids {
        records.extend(app.load_record(id).await.map(|stored| stored.approval));
    }
    records
}

fn check(app: &TestApp, memory: &mut Memory, records: &[Approval], seed: u64) {
    let story = || format!("seed {seed}:\n  {}", memory.log.join("\n  "));
    let journal = app.simulator.journal();
    for record in records {
        let id = &record.id().instance_id;
        let effects = app.count_accepts(id) + app.simulator.count_effects(REJECT, id.as_str());
        let undone = memory.undone.get(id).copied().unwrap_or_default();
        assert!(effects <= 1 + undone, "{id}: one decision takes effect\n{}", story());
        let calls = |action: &str| {
            let about =
                journal.iter().filter(|entry| entry.parameters.get("InstanceId").is_some_and(|it| it == id.as_str()));
            about.filter(|entry| entry.action == action && !entry.is_dry_run()).count()
        };
        // 1. No accept without a decision that satisfies the policy, for the facts that were decided on.
        let decisions = || {
            record.history().iter().filter_map(|entry| match &entry.event {
                AuditEvent::Decided(decision) => Some((entry, decision)),
                _ => None,
            })
        };
        // By the last decision, or by a rule that now requires fewer people.
        let completes = |entry: &&peergate::approval::AuditEntry| {
            entry.state == ApprovalState::Approved
                && matches!(entry.event, AuditEvent::Decided(_) | AuditEvent::RuleChanged { .. })
        };
        let accepts: Vec<_> = record.history().iter().filter(completes).collect();
        if calls(ACCEPT) > 0 {
            assert!(!accepts.is_empty(), "{id}: accepted, but not approved\n{}", story());
        }
        for entry in &accepts {
            let position = record.history().iter().position(|other| other == *entry).unwrap();
            let facts = record.history()[..=position].iter().rev().find_map(|entry| match &entry.event {
                AuditEvent::Discovered { fingerprint, .. } | AuditEvent::Changed { fingerprint, .. } => {
                    Some(fingerprint)
                }
                _ => None,
            });
            let people = standing(&record.history()[..=position], facts.unwrap());
            let rule = record.history()[..=position].iter().rev().find_map(|entry| match &entry.event {
                AuditEvent::Discovered { rule, approvals, .. }
                | AuditEvent::RuleChanged { rule, approvals, .. }
                | AuditEvent::SentBack { rule, approvals, .. } => Some((rule.clone(), *approvals)),
                _ => None,
            });
            let (rule, approvals) = rule.unwrap();
            assert!(rule.is_some(), "{id}: approved without a rule\n{}", story());
            assert!(
                people.len() >= usize::try_from(approvals.max(1)).unwrap(),
                "{id}: {people:?} of {approvals}\n{}",
                story()
            );
            assert!(!people.contains("erin"), "{id}: a contact of the requester counted\n{}", story());
        }
        if calls(REJECT) > 0 {
            let rejected = decisions().any(|(_, decision)| decision.verdict == Verdict::Reject);
            assert!(rejected, "{id}: rejected, but nobody did\n{}", story());
        }
        // A decision without a fingerprint is about facts that a channel had shown.
        for (_, decision) in decisions().filter(|(_, decision)| memory.blind.contains(&decision.request_key)) {
            let fingerprint = decision.fingerprint.to_string();
            let posts =
                [app.slack.posts(SLACK_PATH), app.slack.posts("/api/chat.update"), app.slack.posts(WEBHOOK_PATH)]
                    .concat();
            let posts = [posts, app.slack.posts(AUDIT_PATH)].concat();
            let shown = posts.iter().any(|post| String::from_utf8_lossy(&post.body).contains(&fingerprint));
            assert!(shown, "{id}: decided on what was shown nowhere\n{}", story());
        }
        // 4. A final state stays, unless somebody decides again after a failure, or it is seen alive.
        if let Some(ended) = memory.ended.get(id) {
            let corrected = record.history().iter().any(|entry| matches!(entry.event, AuditEvent::Corrected { .. }));
            let was_removed = *ended == ApprovalState::Activated && *record.state() == ApprovalState::Deleted;
            let reopens = matches!(ended, ApprovalState::Failed { .. }) || corrected || was_removed;
            assert!(*record.state() == *ended || reopens, "{id}: {ended:?} became {:?}\n{}", record.state(), story());
        }
        if record.state().is_final() {
            memory.ended.insert(id.clone(), record.state().clone());
        }
        // The history holds, and what is undelivered is not forgotten.
        let json = serde_json::to_value(record).unwrap();
        assert_eq!(History::verify(&record.id().to_string(), &json), Ok(()), "{id}\n{}", story());
        let undelivered = record.outbox().iter().flat_map(|notification| notification.deliveries.values());
        let undelivered = undelivered.filter(|delivery| matches!(delivery, Delivery::Waiting { .. })).count();
        let open = !record.state().is_final() || record.unconfirmed().is_some() || record.drift().is_some();
        // A status that may pass is looked at again.
        let is_due = undelivered > 0 || open || record.is_away() && record.due_at().is_some();
        assert_eq!(record.due_at().is_some(), is_due, "{id}\n{}", story());
    }
}

/// The people who had approved these facts and had not withdrawn.
fn standing(history: &[peergate::approval::AuditEntry], fingerprint: &Fingerprint) -> BTreeSet<String> {
    let mut people = BTreeSet::new();
    for entry in history {
        let name = |by: &peergate::approval::Approver| by.person.clone().unwrap_or_else(|| by.principal.to_string());
        match &entry.event {
            AuditEvent::Decided(decision)
                if decision.verdict == Verdict::Approve && decision.fingerprint == *fingerprint =>
            {
                people.insert(name(&decision.by));
            }
            AuditEvent::Withdrawn { by, .. } => {
                people.remove(&name(by));
            }
            AuditEvent::Changed { .. } | AuditEvent::Failed(_) | AuditEvent::Missing => people.clear(),
            AuditEvent::SentBack { void, .. } => {
                for by in void {
                    people.remove(&name(by));
                }
            }
            AuditEvent::Corrected { approvals, .. } if entry.state == ApprovalState::Pending => {
                people = approvals.iter().map(|decision| name(&decision.by)).collect();
            }
            _ => {}
        }
    }
    people
}

/// Without faults, and after enough time, every request ends, and every channel shows its end.
async fn settle(app: &TestApp, memory: &mut Memory, seed: u64) {
    calm(app, memory, seed).await;
    app.slack.clear_outages();
    app.discover().await;
    for id in memory.ids.clone() {
        if app.load_record(&id).await.is_none() {
            // It ended before the first discovery.
            let status = app.status(&id, "alice").await.body_json();
            assert_ne!(status["connection"]["status"], "Accepting", "seed {seed}: {id} is not discovered");
            memory.ids.retain(|other| *other != id);
        }
    }
    for _ in 0..12 {
        clock::jump::advance_in_thread(SignedDuration::from_hours(16));
        app.discover().await;
        for _ in 0..4 {
            app.round().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let records = records(app, memory).await;
    assert_eq!(records.len(), memory.ids.len(), "seed {seed}: all are known");
    check(app, memory, &records, seed);
    let story = || format!("seed {seed}:\n  {}", memory.log.join("\n  "));
    for record in &records {
        let id = &record.id().instance_id;
        assert!(record.state().is_final(), "{id} is {}\n{}", record.state().name(), story());
        assert_eq!(
            record.due_at().is_some(),
            record.drift().is_some(),
            "{id}: nothing is left to do or to tell, but reminders of a change\n{}",
            story()
        );
        check_drift(app, record, &story);
        let cards: Vec<_> =
            app.slack.messages_in(CHANNEL).into_iter().filter(|card| card.text.contains(id.as_str())).collect();
        assert!(!cards.is_empty(), "{id} has a card\n{}", story());
        let word = match record.state() {
            ApprovalState::Activated if record.drift().is_some() => "ctive VPC peering",
            ApprovalState::Activated => "is Activated",
            ApprovalState::Rejected => "was rejected",
            ApprovalState::Expired => "has expired",
            ApprovalState::Deleted => "was deleted",
            ApprovalState::Failed { .. } => "VPC peering",
            other => panic!("{other:?}"),
        };
        let last = cards.last().unwrap();
        assert!(last.text.contains(word), "{id}: {}\n{}", last.text, story());
        if !matches!(record.state(), ApprovalState::Failed { .. }) && record.drift().is_none() {
            assert!(last.button_labels().is_empty(), "{id}: nothing is left to decide\n{}", story());
        }
    }
}

/// No change of an active peering stays untold, and none is told that is not there.
fn check_drift(app: &TestApp, record: &Approval, story: &dyn Fn() -> String) {
    let id = &record.id().instance_id;
    let truth = app.simulator.true_status(id.as_str()).unwrap();
    if *record.state() != ApprovalState::Activated || truth != "Activated" {
        return;
    }
    let connection = app.simulator.read_connection(id.as_str()).unwrap();
    let changes = record.changes_since_approval(&connection, None);
    assert_eq!(record.drift().map(|drift| drift.changes.clone()).unwrap_or_default(), changes, "{id}\n{}", story());
    for change in changes {
        let is_told = |post: &peergate::fake::slack::RecordedPost| {
            let text = post.visible_text();
            let says = text.contains("not as approved any more") || text.contains("facts that nobody approved");
            says && text.contains(id.as_str()) && text.contains(&change.after)
        };
        assert!(app.slack.posts(SLACK_PATH).iter().any(is_told), "{id}: {change:?} is told nowhere\n{}", story());
    }
}

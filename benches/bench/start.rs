//! Measures cold starts and warm answers, beside a minimal Rust function and a Python peer.

use std::time::Duration;

use bytes::Buf;
use peergate::approval::{Approval, ApprovalId, ChannelDisplay, Event, Review};
use peergate::chat::EventSpec;
use peergate::chat::platform::Platform;
use peergate::config::Config;
use peergate::fake::alicloud::Tampering;
use peergate::local::Error;
use peergate::local::event;
use peergate::preflight;
use peergate::secrets::SecretSet;
use peergate::{clock, webhook};
use serde_json::{Value, json};

use crate::Scope;
use crate::function::{Cost, Function, Subject};
use crate::report::{Budget, Measured, Row, Section, Stat, quantile};
use crate::throttle::Throttle;
use crate::upstreams::{Table, World};

/// The measurements of one subject, in the order of its processes. The measurements at one position of two subjects were
/// made within the same seconds.
#[derive(Default)]
struct StartResult {
    init: Vec<Cost>,
    first: Vec<Cost>,
    /// [`Scope::warm`] values of each process.
    warm: Vec<Cost>,
    throttled: Vec<f64>,
    memory: Vec<f64>,
}

const HELLO: usize = 0;
const WEBHOOK: usize = 1;
const WATCHER: usize = 2;
const PYTHON: usize = 3;

/// Measures all subjects in turn.
pub async fn measure(scope: &Scope, subjects: [Subject; 4]) -> Result<Measured, Error> {
    let world = World::start(Table::Memory, str::to_owned).await?;
    // Without connections.
    let still = World::start(Table::Sandbox, str::to_owned).await?;
    let mut shown: [StartResult; 4] = Default::default();
    let mut held_by = "not held";
    for sample in 0..scope.starts {
        for (number, subject) in subjects.iter().enumerate() {
            let shown = &mut shown[number];
            let world = if number == WATCHER { &still } else { &world };
            let mut function = Function::start(subject, &world.environment).await?;
            shown.init.push(function.init);
            shown.first.push(answer(world, &mut function, number).await?);
            for _ in 0..scope.warm {
                shown.warm.push(answer(world, &mut function, number).await?);
            }
            shown.memory.push(megabytes(function.most_memory()?));
            drop(function);
            if number != WATCHER && sample % 2 == 0 {
                let mut function = Function::start(subject, &world.environment).await?;
                let throttle = Throttle::hold(function.pid())?;
                shown.throttled.push(millis(answer(world, &mut function, number).await?.wall));
                held_by = throttle.name();
                drop(function);
            }
        }
    }
    let activation = activation(scope, &still, &subjects[WATCHER]).await?;
    Ok(summarize(scope, &subjects, &shown, &activation, held_by))
}

/// Passes an event to a function, and checks the answer and its effect.
async fn answer(world: &World, function: &mut Function, number: usize) -> Result<Cost, Error> {
    let left = Duration::from_secs(15);
    if number == WATCHER {
        return Ok(function.invoke(schedule(), left).await?.1);
    }
    let (id, event) = approval(world).await?;
    let (body, cost) = function.invoke(event, left).await?;
    if number == HELLO {
        // The minimal function approves nothing, so the request is removed.
        let _ =
            world.sandbox.simulator.tamper(&id, Tampering { status: Some("Deleted".into()), ..Tampering::default() });
    } else {
        let answer: Value = serde_json::from_reader(body.clone().reader())?;
        let accepted = world.sandbox.simulator.count_effects("AcceptVpcPeerConnection", &id);
        if answer["statusCode"] != 200 || accepted != 1 {
            return Err(format!("{accepted} accepts, and the answer {answer}").into());
        }
    }
    Ok(cost)
}

/// A new request that its channel shows, and the event of its approval by a slash command.
async fn approval(world: &World) -> Result<(String, Vec<u8>), Error> {
    let (theirs, ours) = (format!("vpc-{}", clock::nonce()), format!("vpc-{}", clock::nonce()));
    let more = [("VpcId", theirs.as_str()), ("AcceptingVpcId", &ours)];
    let id = world.sandbox.simulator.request_peering(&more).ok_or("no request")?;
    shown(world, &id).await?;
    let config = Config::parse(&world.sandbox.config)?;
    let secrets = SecretSet::parse(&std::fs::read(&world.secrets)?, &config)?;
    let spec = EventSpec {
        action: "approve".into(),
        instance_id: id.clone(),
        target: Some("prod".into()),
        reason: None,
        fingerprint: None,
        tenant: None,
        actor: "U061F7AUR".into(),
    };
    let signed = event::sign_event(Platform::Slack, &spec, &config, &secrets, clock::now())?;
    Ok((id, event::function_url_event(&signed).to_string().into_bytes()))
}

/// Stores the record of a request that its channels show. Only then can a command decide about it.
async fn shown(world: &World, id: &str) -> Result<(), Error> {
    let (app, now) = (&world.sandbox.parts, clock::now());
    let connection = world.sandbox.simulator.read_connection(id).ok_or("no connection")?;
    let id = ApprovalId { target: "prod".into(), instance_id: connection.instance_id.clone() };
    let policy = app.config.policy.snapshot_for("prod", &connection);
    let review = Review {
        id: &id,
        connection: &connection,
        policy: &policy,
        findings: &preflight::check_connection(&connection, connection.accepter.account, now),
        eligible_approver: &|principal| app.config.policy.eligible_approver("prod", &connection, principal),
    };
    let mut record = Approval::discover(&review, now);
    for channel in &policy.channels {
        let display = ChannelDisplay::Facts(record.fingerprint().clone());
        record.apply_event(&Event::Delivered { number: 1, channel: channel.clone(), display }, now);
    }
    app.store.save(&record, None).await?;
    Ok(())
}

/// The event of a schedule.
pub fn schedule() -> Vec<u8> {
    json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}).to_string().into_bytes()
}

/// Measures ticks that finish an approval. Three channels get the request, the decision, the accept and the activation.
async fn activation(scope: &Scope, world: &World, watcher: &Subject) -> Result<Vec<Cost>, Error> {
    let mut function = Function::start(watcher, &world.environment).await?;
    let mut costs = vec![];
    for _ in 0..scope.activations {
        let (_, event) = approval(world).await?;
        let event: peergate::envelope::HttpEvent = serde_json::from_slice(&event)?;
        let app = std::sync::Arc::clone(&world.sandbox.parts);
        let answer = Box::pin(webhook::handle_event(&app, event, clock::now())).await;
        if answer.status() != 200 {
            return Err(format!("the approval was answered with {}", answer.status()).into());
        }
        costs.push(function.invoke(schedule(), Duration::from_mins(1)).await?.1);
    }
    Ok(costs)
}

fn summarize(
    scope: &Scope,
    subjects: &[Subject; 4],
    shown: &[StartResult; 4],
    activation: &[Cost],
    held_by: &str,
) -> Measured {
    let stat =
        |costs: &[Cost], part: fn(&Cost) -> Duration| Stat::of(costs.iter().map(|cost| millis(part(cost))).collect());
    let wall: fn(&Cost) -> Duration = |cost| cost.wall;
    let cpu: fn(&Cost) -> Duration = |cost| cost.cpu;
    let tail = |shown: &StartResult| {
        let mut warm: Vec<_> = shown.warm.iter().map(|cost| millis(cost.wall)).collect();
        warm.sort_by(f64::total_cmp);
        quantile(&warm, 0.99).and_then(Stat::one)
    };
    let zips: Vec<_> = subjects.iter().map(|subject| zip_of(subject).and_then(Stat::one)).collect();
    let rows = subjects.iter().zip(shown).zip(&zips).map(|((subject, shown), zip)| Row {
        subject: subject.name.to_owned(),
        values: vec![
            stat(&shown.init, wall),
            stat(&shown.first, wall),
            stat(&shown.init, cpu),
            stat(&shown.first, cpu),
            Stat::of(both(shown)),
            Stat::of(shown.throttled.clone()),
            stat(&shown.warm, wall),
            tail(shown),
            stat(&shown.warm, cpu),
            Stat::of(shown.memory.clone()),
            *zip,
        ],
    });
    let starts = Section {
        title: "Cold start and warm answers",
        how: format!(
            "{} processes each, in turn, {} answers after the first. Webhook and Python: an approval by a \
             Slack command is verified, its connection read and checked (dry run, other peerings), the decision stored on \
             condition, the connection accepted, that stored: 7 calls over TLS on loopback, secrets fetched in init. \
             Watcher: a scheduled tick with nothing to do. The share of 128 MB is held by: {held_by}, after init. Median \
             (least–greatest).",
            scope.starts, scope.warm
        ),
        columns: vec![
            "init ms",
            "first answer ms",
            "init CPU ms",
            "first CPU ms",
            "CPU together ms",
            "first at 128 MB ms",
            "warm ms",
            "warm p99 ms",
            "warm CPU ms",
            "most resident MB",
            "zip MB",
        ],
        rows: rows.collect(),
    };
    let ticks = Section {
        title: "A tick that finishes an approval",
        how: "Three channels are told of the request, the decision, the accept and the activation: 12 posts, one of them a \
              card that is redrawn each time. The pauses between rounds are part of the time."
            .to_owned(),
        columns: vec!["tick ms", "CPU ms"],
        rows: vec![Row {
            subject: "peergate watcher".to_owned(),
            values: vec![stat(activation, wall), stat(activation, cpu)],
        }],
    };
    Measured { sections: vec![starts, ticks], budgets: budgets(scope, subjects, shown, &zips) }
}

/// The limits for the measurements.
fn budgets(scope: &Scope, subjects: &[Subject; 4], shown: &[StartResult; 4], zips: &[Option<Stat>]) -> Vec<Budget> {
    let median = |stat: Option<Stat>| stat.map_or(f64::NAN, |stat| stat.median);
    // The ratio of measurements made at the same time, because the speed of a shared machine varies.
    let ratio = |above: &[f64], below: &[f64]| {
        median(Stat::of(above.iter().zip(below).map(|(above, below)| above / below).collect()))
    };
    let warm = |shown: &StartResult| -> Vec<f64> {
        shown
            .warm
            .chunks(scope.warm.max(1))
            .map(|costs| median(Stat::of(costs.iter().map(|cost| millis(cost.wall)).collect())))
            .collect()
    };
    let mut budgets = vec![
        Budget::at_most(
            "webhook, CPU of init and first answer ÷ hello world's",
            ratio(&both(&shown[WEBHOOK]), &both(&shown[HELLO])),
            4.5,
        ),
        Budget::at_least(
            "Python's CPU of init and first answer ÷ the webhook's",
            ratio(&both(&shown[PYTHON]), &both(&shown[WEBHOOK])),
            70.0,
        ),
        Budget::at_least(
            "Python's first answer at 128 MB ÷ the webhook's",
            ratio(&shown[PYTHON].throttled, &shown[WEBHOOK].throttled),
            100.0,
        ),
        Budget::at_least(
            "Python's warm approval ÷ the webhook's",
            ratio(&warm(&shown[PYTHON]), &warm(&shown[WEBHOOK])),
            4.0,
        ),
        Budget::at_most(
            "CPU of a tick with nothing to do, ms",
            median(Stat::of(shown[WATCHER].warm.iter().map(|cost| millis(cost.cpu)).collect())),
            3.0,
        ),
    ];
    for number in [WEBHOOK, WATCHER] {
        let name = subjects[number].name;
        budgets.push(Budget::at_most(
            format!("{name}, most resident MB"),
            median(Stat::of(shown[number].memory.clone())),
            10.0,
        ));
        budgets.push(Budget::at_most(format!("{name}, zip MB"), median(zips[number]), 3.5));
    }
    budgets
}

/// CPU of init and first answer together, in ms.
fn both(shown: &StartResult) -> Vec<f64> {
    shown.init.iter().zip(&shown.first).map(|(init, first)| millis(init.cpu + first.cpu)).collect()
}

fn zip_of(subject: &Subject) -> Option<f64> {
    let path = subject.program.with_extension("zip");
    std::fs::metadata(path).ok().map(|file| megabytes(file.len()))
}

/// In milliseconds, for tables.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// In megabytes, for tables.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

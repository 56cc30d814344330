//! Measures the watcher with many unfinished connections, against a slow API that throttles, and a naive watcher beside it.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use peergate::accept;
use peergate::alicloud::sign::SignatureVersion;
use peergate::alicloud::{self, Alicloud, ListScope};
use peergate::app::App;
use peergate::approval::{
    Approval, ApprovalId, Approver, ChannelDisplay, Decision, Delivery, Event, PolicySnapshot, Principal, Review,
    Verdict,
};
use peergate::clock;
use peergate::fake::alicloud::Tampering;
use peergate::local::Error;
use peergate::peering::{AccountId, Connection, Status};
use peergate::preflight::{self, Check, CheckOutcome, Finding};
use peergate::store::{Saved, Store};

use crate::Scope;
use crate::function::{Function, Subject, cpu_of, memory_of};
use crate::report::{Budget, Measured, Row, Section, Stat};
use crate::start::{megabytes, millis, schedule};
use crate::upstreams::{ACCOUNTS, Table, World};

const REGIONS: [&str; 3] = ["cn-shanghai", "cn-beijing", "eu-central-1"];
/// The duration of a call to the API.
const LATENCY: Duration = Duration::from_millis(50);
/// The vendor's limit.
const QUOTA: usize = 360;
/// The number of connections that end before the second tick.
const ENDS: usize = 10;
/// The number of active connections that change before the second tick.
const CHANGES: usize = 12;
/// Lambda's longest timeout. The naive watcher has a minute, as a tick does.
const MAX_TIMEOUT: Duration = Duration::from_mins(15);

/// The cost of a tick.
struct Tick {
    wall: Duration,
    cpu: Duration,
    calls: usize,
    store: usize,
    memory: u64,
}

/// Measures ticks with growing numbers of connections.
pub async fn measure(scope: &Scope, watcher: &Subject) -> Result<Measured, Error> {
    let (mut rows, mut budgets, mut each) = (vec![], vec![], BTreeMap::new());
    let columns = vec![
        "tick ms",
        "CPU ms",
        "API calls",
        "store calls",
        "most resident MB",
        "CPU per connection µs",
        "API calls per connection",
    ];
    let mut row = |subject: String, number: usize, tick: &Tick| {
        let per = |value: f64| Stat::one(value / count(number));
        rows.push(Row {
            subject,
            values: vec![
                Stat::one(millis(tick.wall)),
                Stat::one(millis(tick.cpu)),
                Stat::one(count(tick.calls)),
                Stat::one(count(tick.store)),
                Stat::one(megabytes(tick.memory)),
                per(millis(tick.cpu) * 1000.0),
                per(count(tick.calls)),
            ],
        });
    };
    for number in scope.in_flight.iter().copied() {
        let world = world(if number == 0 { vec![] } else { REGIONS.to_vec() }).await?;
        eprintln!("  {number} in flight: filling the table");
        populate(&world, number, Stage::InFlight).await?;
        world.sandbox.simulator.set_limits(LATENCY, Some(QUOTA));
        let mut function = Function::start(watcher, &world.environment).await?;
        let still = tick(&world, &mut function).await?;
        row(format!("{number} in flight, nothing new"), number, &still);
        let ended = end_some(&world, number).await?;
        // A new process has its own rate limit.
        world.sandbox.simulator.set_limits(LATENCY, Some(QUOTA));
        let mut function = Function::start(watcher, &world.environment).await?;
        let moved = tick(&world, &mut function).await?;
        ended.check(&world).await?;
        row(format!("{number} in flight, {} have ended", ended.ids.len()), number, &moved);
        if number == 10_000 {
            budgets.push(Budget::at_most("10,000 followed in one tick, s", still.wall.as_secs_f64(), 30.0));
            budgets.push(Budget::at_most("10,000 followed in one tick, API calls", count(still.calls), 150.0));
            budgets.push(Budget::at_most(
                "10,000 followed in one tick, most resident MB",
                megabytes(still.memory),
                40.0,
            ));
        }
        each.insert(number, millis(still.cpu) / count(number));
        if number <= scope.naive {
            world.sandbox.simulator.set_limits(LATENCY, Some(QUOTA));
            let (naive, read) = naive(&world).await?;
            row(format!("{number} in flight, the naive way: {read} read in its minute"), read.max(1), &naive);
        }
    }
    let Active { still, changed } = active(scope, watcher).await?;
    row(format!("{} active, nothing new", scope.active), scope.active, &still);
    row(format!("{} active, {CHANGES} have changed", scope.active), scope.active, &changed);
    if scope.active == 10_000 {
        budgets.push(Budget::at_most("10,000 active in one tick, s", still.wall.as_secs_f64(), 30.0));
        budgets.push(Budget::at_most("10,000 active in one tick, API calls", count(still.calls), 150.0));
        budgets.push(Budget::at_most("10,000 active in one tick, most resident MB", megabytes(still.memory), 40.0));
    }
    if let (Some(few), Some((_, many))) = (each.get(&1000), each.last_key_value().filter(|(number, _)| **number > 1000))
    {
        budgets.push(Budget::at_most("CPU per connection at the most in flight ÷ at 1,000", many / few, 1.25));
    }
    let idle = idle(watcher).await?;
    budgets.push(Budget::at_most("a tick with nothing due, store calls", count(idle), 2.0));
    let section = Section {
        title: "The watcher at scale",
        how: format!(
            "One scheduled tick in a new process. {} accounts with {} regions each; half of what is in flight waits for \
             people, half is being activated; a new process also checks its configuration (13 calls of the API) and reads when \
             each of the 12 regions was surveyed first (12 calls of the store); a channel gets a message a second. The API is {} ms away and allows {QUOTA} calls of an operation to an account in \
             60 s. Every connection is looked at; “have ended” says that so many came to an end before the tick, which has to \
             notice, store and tell it. Active connections are compared with what people approved; “have changed” says that so \
             many got another bandwidth before the tick. The naive way reads each record and each connection, sixteen at once, for a minute at \
             most, paced as the watcher is.",
            ACCOUNTS.len(),
            REGIONS.len(),
            LATENCY.as_millis()
        ),
        columns,
        rows,
    };
    Ok(Measured { sections: vec![section], budgets })
}

async fn world(regions: Vec<&str>) -> Result<World, Error> {
    let regions = format!("regions = {regions:?}");
    let change =
        move |config: &str| config.replace("regions = [\"cn-shanghai\"]", &regions).replace("regions = []", &regions);
    World::start(Table::Sandbox, change).await
}

/// How far connections have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Half wait for people, half are being activated.
    InFlight,
    /// All are active.
    Active,
}

/// Fills the simulator and the table. Every connection has a record, and every notification is delivered.
async fn populate(world: &World, number: usize, stage: Stage) -> Result<(), Error> {
    let simulator = &world.sandbox.simulator;
    for position in 0..number {
        let (_, account) = ACCOUNTS[position % ACCOUNTS.len()];
        let region = REGIONS[position / ACCOUNTS.len() % REGIONS.len()];
        let (theirs, ours, account) = (format!("vpc-r{position}"), format!("vpc-a{position}"), account.to_string());
        let more = [
            ("VpcId", theirs.as_str()),
            ("AcceptingVpcId", &ours),
            ("AcceptingAliUid", &account),
            ("AcceptingRegionId", region),
        ];
        let id = simulator.request_peering(&more).ok_or("no request")?;
        let status = match stage {
            Stage::Active => Some("Activated"),
            Stage::InFlight if position / ACCOUNTS.len() / REGIONS.len() % 2 == 1 => Some("Updating"),
            Stage::InFlight => None,
        };
        if let Some(status) = status {
            let _ = simulator.tamper(&id, Tampering { status: Some(status.into()), ..Tampering::default() });
        }
    }
    let app = &world.sandbox.parts;
    for (target, account) in ACCOUNTS {
        for region in REGIONS {
            let mut next_token = None;
            loop {
                let page = list(world, target, region, next_token.as_deref()).await?;
                let records = page.connections.iter().map(|connection| record(app, target, account, connection));
                let written = stream::iter(records).buffer_unordered(16).collect::<Vec<_>>().await;
                written.into_iter().collect::<Result<Vec<_>, _>>()?;
                next_token = page.next_token;
                if next_token.is_none() {
                    break;
                }
            }
        }
    }
    Ok(())
}

async fn list(world: &World, target: &str, region: &str, next_token: Option<&str>) -> Result<alicloud::Page, Error> {
    let sandbox = &world.sandbox;
    let api = Alicloud::new(sandbox.parts.http.clone(), sandbox.alicloud_url.clone(), SignatureVersion::V3, u32::MAX);
    let secrets = sandbox.parts.secrets.current(clock::now()).await?;
    let key = secrets.targets.get(target).ok_or("no such target")?;
    Ok(api.list_connections(key.as_credentials(), ListScope::of_region(region), next_token).await?)
}

/// The record after an approval and an acknowledged accept.
fn accepted(record: &Approval, review: &Review<'_>, at: Timestamp) -> Result<Approval, Error> {
    let by = Approver { principal: Principal::new("webhook", "ci", "alice")?, person: None, name: None };
    let decision = Decision {
        verdict: Verdict::Approve,
        by: by.clone(),
        at,
        fingerprint: record.fingerprint().clone(),
        reason: None,
        request_key: clock::nonce(),
        request_content: None,
    };
    let policy = PolicySnapshot { rule: Some("bench".into()), ..review.policy.clone() };
    let eligible_approver = |_: &Principal| Some(by.clone());
    let review = Review {
        id: review.id,
        connection: review.connection,
        policy: &policy,
        findings: review.findings,
        eligible_approver: &eligible_approver,
    };
    let mut record = Approval::apply_decision(Some(record), &review, decision)?;
    record.apply_event(&Event::Accepted { request_id: "R".into() }, at);
    Ok(record)
}

/// Writes the record of a connection, with all notifications delivered.
async fn record(app: &App, target: &str, account: u64, connection: &Connection) -> Result<(), Error> {
    // Old enough, so that the tick does not wait for a second reading.
    let at = clock::now() - SignedDuration::from_mins(6);
    let pending = Connection { status: Status::Accepting, ..connection.clone() };
    let mut findings = preflight::check_connection(&pending, AccountId(account), at);
    findings.push(preflight::check_other_peerings(&pending, Some(&[])));
    findings.push(Finding { check: Check::DryRun, outcome: CheckOutcome::Passed });
    let id = ApprovalId { target: target.to_owned(), instance_id: connection.instance_id.clone() };
    let review = Review {
        id: &id,
        connection: &pending,
        policy: &app.config.policy.snapshot_for(target, &pending),
        findings: &findings,
        eligible_approver: &|_: &Principal| None,
    };
    let mut record = Approval::discover(&review, at);
    if connection.status != Status::Accepting {
        record = accepted(&record, &review, at)?;
    }
    if connection.status == Status::Activated {
        record.apply_event(&Event::Observed(Box::new(connection.clone())), at);
    }
    let notifications: Vec<_> = record.outbox().iter().map(|it| (it.number, it.deliveries.clone())).collect();
    for (number, deliveries) in notifications {
        for (channel, _) in deliveries.into_iter().filter(|(_, delivery)| matches!(delivery, Delivery::Waiting { .. }))
        {
            record.apply_event(&Event::Delivered { number, channel, display: ChannelDisplay::Unchanged }, at);
        }
    }
    match app.store.save(&record, None).await? {
        Saved::Done(_) => Ok(()),
        Saved::Conflict(_) => Err("the record exists already".into()),
    }
}

async fn tick(world: &World, function: &mut Function) -> Result<Tick, Error> {
    let (calls, store) = (world.sandbox.simulator.journal().len(), world.table.requests());
    let (_, cost) = function.invoke(schedule(), MAX_TIMEOUT).await?;
    Ok(Tick {
        wall: cost.wall,
        cpu: cost.cpu,
        calls: world.sandbox.simulator.journal().len() - calls,
        store: world.table.requests() - store,
        memory: function.most_memory()?,
    })
}

/// The connections that have ended.
struct Ended {
    ids: Vec<ApprovalId>,
}

async fn end_some(world: &World, number: usize) -> Result<Ended, Error> {
    let mut ids = vec![];
    for (target, _) in ACCOUNTS {
        let page = list(world, target, REGIONS[0], None).await?;
        for connection in page.connections.into_iter().take(ENDS.min(number).div_ceil(ACCOUNTS.len())) {
            let status = if connection.status == Status::Updating { "Activated" } else { "Rejected" };
            let id = connection.instance_id.as_str();
            let _ =
                world.sandbox.simulator.tamper(id, Tampering { status: Some(status.into()), ..Tampering::default() });
            ids.push(ApprovalId { target: target.to_owned(), instance_id: connection.instance_id });
        }
    }
    Ok(Ended { ids })
}

impl Ended {
    async fn check(&self, world: &World) -> Result<(), Error> {
        for id in &self.ids {
            let stored = world.sandbox.parts.store.load(id).await?.ok_or("the record is gone")?;
            if !stored.approval.state().is_final() || stored.approval.due_at().is_some() {
                return Err(format!("{id} has ended, but the tick did not store or post it").into());
            }
        }
        Ok(())
    }
}

/// The cost of two ticks that compare active connections with what people approved.
struct Active {
    still: Tick,
    changed: Tick,
}

async fn active(scope: &Scope, watcher: &Subject) -> Result<Active, Error> {
    let world = world(REGIONS.to_vec()).await?;
    eprintln!("  {} active: filling the table", scope.active);
    populate(&world, scope.active, Stage::Active).await?;
    let simulator = &world.sandbox.simulator;
    simulator.set_limits(LATENCY, Some(QUOTA));
    let still = tick(&world, &mut Function::start(watcher, &world.environment).await?).await?;
    let mut ids = vec![];
    for (target, _) in ACCOUNTS {
        let page = list(&world, target, REGIONS[0], None).await?;
        for connection in page.connections.into_iter().take(CHANGES / ACCOUNTS.len()) {
            let id = connection.instance_id.as_str();
            let _ = simulator.tamper(id, Tampering { bandwidth: Some(5), ..Tampering::default() });
            ids.push(ApprovalId { target: target.to_owned(), instance_id: connection.instance_id });
        }
    }
    simulator.set_limits(LATENCY, Some(QUOTA));
    let changed = tick(&world, &mut Function::start(watcher, &world.environment).await?).await?;
    for id in &ids {
        let stored = world.sandbox.parts.store.load(id).await?.ok_or("the record is gone")?;
        let mut deliveries = stored.approval.outbox().iter().flat_map(|it| it.deliveries.values());
        if stored.approval.drift().is_none() || deliveries.any(|it| matches!(it, Delivery::Waiting { .. })) {
            return Err(format!("{id} has changed, but the tick did not store or post it").into());
        }
    }
    Ok(Active { still, changed })
}

/// The calls to the store in a tick with nothing due. In its first tick, a process also reads when each region was surveyed
/// first.
async fn idle(watcher: &Subject) -> Result<usize, Error> {
    let world = world(REGIONS.to_vec()).await?;
    let mut function = Function::start(watcher, &world.environment).await?;
    tick(&world, &mut function).await?;
    Ok(tick(&world, &mut function).await?.store)
}

/// Runs [`naive_tick`] in a separate process.
async fn naive(world: &World) -> Result<(Tick, usize), Error> {
    let (calls, store) = (world.sandbox.simulator.journal().len(), world.table.requests());
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--naive-tick").env_clear().envs(world.environment.iter().map(|(name, value)| (name, value)));
    let started = Instant::now();
    let mut process = command.stdout(Stdio::piped()).spawn()?;
    let (mut cpu, mut memory) = (Duration::ZERO, 0);
    let output = loop {
        if process.try_wait()?.is_some() {
            break process.wait_with_output()?;
        }
        cpu = cpu_of(process.id()).unwrap_or(cpu).max(cpu);
        memory = memory_of(process.id(), "VmHWM").unwrap_or(memory).max(memory);
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let read = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    let tick = Tick {
        wall: started.elapsed(),
        cpu,
        calls: world.sandbox.simulator.journal().len() - calls,
        store: world.table.requests() - store,
        memory,
    };
    Ok((tick, read))
}

/// A watcher without lists: it reads each record that the index names, and each connection. It prints the number of
/// connections that it has read within a minute.
pub async fn naive_tick() -> Result<(), Error> {
    let app = Arc::new(App::from_process()?);
    let (started, mut from, mut read) = (Instant::now(), None, 0_usize);
    loop {
        let page = app.store.due_entries(Timestamp::MAX, from).await?;
        let readings = page.items.into_iter().map(|entry| {
            let app = Arc::clone(&app);
            async move {
                while started.elapsed() < Duration::from_mins(1) {
                    let Some(stored) = load(&app.store, &entry.id).await else { return 0 };
                    let id = stored.approval.id();
                    match accept::read_connection(&app, &id.target, &id.instance_id, clock::now()).await {
                        Ok(_) => return 1,
                        Err(accept::Error::Api(alicloud::Error::RateLimited(wait))) => {
                            let left = Duration::from_mins(1).saturating_sub(started.elapsed());
                            tokio::time::sleep(wait.min(left)).await;
                        }
                        Err(_) => return 0,
                    }
                }
                0
            }
        });
        read += stream::iter(readings).buffer_unordered(16).fold(0, async |sum, one| sum + one).await;
        from = page.next;
        if from.is_none() || started.elapsed() >= Duration::from_mins(1) {
            break;
        }
    }
    println!("{read}");
    Ok(())
}

async fn load(store: &Store, id: &ApprovalId) -> Option<peergate::store::Stored> {
    store.load(id).await.ok().flatten()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

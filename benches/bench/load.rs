//! Measures many approvals: one after the other in one warm function, as in Lambda, and hundreds at the same time in
//! `peergate serve`. The memory must not grow, and no thread, task or connection must be left.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use peergate::chat::platform::Platform;
use peergate::chat::{EventSpec, SignedRequest};
use peergate::clock;
use peergate::config::Config;
use peergate::http;
use peergate::local::Error;
use peergate::local::event;
use peergate::local::sandbox::Sandbox;
use peergate::secrets::SecretSet;

use crate::Scope;
use crate::function::{Function, Subject, cpu_of, log, memory_of};
use crate::report::{Budget, Measured, Row, Section, Stat, quantile};
use crate::start::{megabytes, millis};
use crate::upstreams::{Table, World};

/// The number of senders at the same time.
const AT_ONCE: usize = 200;

/// The resources of a process at one moment.
struct Moment {
    memory: u64,
    files: usize,
    threads: usize,
}

impl Moment {
    fn of(pid: u32) -> Result<Self, Error> {
        let entries = |folder: &str| std::fs::read_dir(format!("/proc/{pid}/{folder}")).map(Iterator::count);
        Ok(Self { memory: memory_of(pid, "VmRSS")?, files: entries("fd")?, threads: entries("task")? })
    }
}

/// The measurements under one load.
struct LoadResult {
    taken: Vec<f64>,
    wall: Duration,
    cpu: Duration,
    /// After a tenth of the approvals.
    early: Moment,
    /// After half of them.
    half: Moment,
    /// After all of them.
    late: Moment,
}

/// Measures both loads.
pub async fn measure(scope: &Scope, webhook: &Subject) -> Result<Measured, Error> {
    let one = one_by_one(scope, webhook).await?;
    let many = many_at_once(scope).await?;
    let (mut rows, mut budgets) = (vec![], vec![]);
    // One sender at a time needs no further connections. With many senders, the pools may grow.
    for (name, LoadResult { mut taken, wall, cpu, early, half, late }, pooled) in
        [("webhook, one at a time", one, 2.0), ("serve, 200 at once", many, AT_ONCE as f64)]
    {
        taken.sort_by(f64::total_cmp);
        let answers = taken.len() as f64;
        rows.push(Row {
            subject: name.to_owned(),
            values: vec![
                Stat::one(answers),
                Stat::one(answers / wall.as_secs_f64()),
                quantile(&taken, 0.5).and_then(Stat::one),
                quantile(&taken, 0.99).and_then(Stat::one),
                Stat::one(millis(cpu) / answers),
                Stat::one(megabytes(early.memory)),
                Stat::one(megabytes(half.memory)),
                Stat::one(megabytes(late.memory)),
                Stat::one(late.files as f64 - early.files as f64),
                Stat::one(late.threads as f64 - early.threads as f64),
            ],
        });
        // After half of the approvals, pools and caches are full.
        let grown = late.memory as f64 / half.memory as f64;
        budgets.push(Budget::at_most(format!("{name}, resident after all ÷ after a half"), grown, 1.1));
        let left_open = late.files as f64 - early.files as f64;
        budgets.push(Budget::at_most(format!("{name}, files left open"), left_open, pooled));
    }
    let section = Section {
        title: "Under load",
        how: "Approvals of different connections by signed webhook, each with its 7 calls. “Early” is after a tenth of them, \
              “late” after all. `serve` holds its table itself, in a file, and listens to 200 senders at once; the simulator \
              and the senders share the machine."
            .to_owned(),
        columns: vec![
            "approvals",
            "per second",
            "p50 ms",
            "p99 ms",
            "CPU each ms",
            "resident early MB",
            "resident half-way MB",
            "resident late MB",
            "files more",
            "threads more",
        ],
        rows,
    };
    Ok(Measured { sections: vec![section], budgets })
}

async fn one_by_one(scope: &Scope, webhook: &Subject) -> Result<LoadResult, Error> {
    let world = World::start(Table::Memory, without_limits).await?;
    let mut function = Function::start(webhook, &world.environment).await?;
    let (mut taken, mut early, mut half, measured_from, before) = (vec![], None, None, Instant::now(), function.cpu()?);
    for number in 0..scope.load {
        let signed = approval(&world.sandbox, &world.secrets)?;
        let event = event::function_url_event(&signed).to_string().into_bytes();
        let (body, cost) = function.invoke(event, Duration::from_secs(15)).await?;
        let answer: serde_json::Value = serde_json::from_slice(&body)?;
        if answer["statusCode"] != 200 {
            return Err(format!("answered with {answer}").into());
        }
        taken.push(millis(cost.wall));
        if number == scope.load / 10 {
            early = Some(Moment::of(function.pid())?);
        }
        if number == scope.load / 2 {
            half = Some(Moment::of(function.pid())?);
        }
    }
    let (wall, cpu) = (measured_from.elapsed(), function.cpu()?.saturating_sub(before));
    let late = Moment::of(function.pid())?;
    Ok(LoadResult { taken, wall, cpu, early: early.ok_or("too few")?, half: half.ok_or("too few")?, late })
}

async fn many_at_once(scope: &Scope) -> Result<LoadResult, Error> {
    let world = World::start(Table::Sandbox, without_limits).await?;
    let directory = tempfile::tempdir()?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let server = Server::start(&world, &address, directory.path())?;
    let client = http::new_client()?;
    let ready = format!("http://{address}/healthz");
    let started = Instant::now();
    while client.get(&ready).send().await.is_err() {
        if started.elapsed() > Duration::from_secs(30) {
            return Err("serve does not answer".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pid = server.0.id();
    let (measured_from, before) = (Instant::now(), cpu_of(pid)?);
    let send = |_| {
        let (client, address, world) = (client.clone(), address.clone(), &world);
        async move {
            let signed = approval(&world.sandbox, &world.secrets)?;
            let mut request = client.post(format!("http://{address}{}", signed.path)).timeout(Duration::from_mins(1));
            for (name, value) in &signed.headers {
                request = request.header(*name, value);
            }
            let sent = Instant::now();
            let answer = request.body(signed.body).send().await?;
            let (status, _) = (answer.status(), answer.bytes().await?);
            // 202: the watcher finishes what takes longer than the sender waits.
            if status != 200 && status != 202 {
                return Err(Error::from(format!("answered with {status}")));
            }
            Ok(millis(sent.elapsed()))
        }
    };
    let mut answers = Box::pin(stream::iter(0..scope.load).map(send).buffer_unordered(AT_ONCE));
    let (mut taken, mut early, mut half) = (vec![], None, None);
    while let Some(answer) = answers.next().await {
        taken.push(answer?);
        if taken.len() == scope.load / 10 {
            early = Some(Moment::of(pid)?);
        }
        if taken.len() == scope.load / 2 {
            half = Some(Moment::of(pid)?);
        }
    }
    let (wall, cpu) = (measured_from.elapsed(), cpu_of(pid)?.saturating_sub(before));
    let late = Moment::of(pid)?;
    Ok(LoadResult { taken, wall, cpu, early: early.ok_or("too few")?, half: half.ok_or("too few")?, late })
}

/// A configuration without channels, discovery and rate limit, so that only approvals are measured.
fn without_limits(config: &str) -> String {
    config
        .replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = []")
        .replace("regions = [\"cn-shanghai\"]", "regions = []\ncalls_per_minute = 4000000000")
}

fn approval(sandbox: &Sandbox, secrets: &Path) -> Result<SignedRequest, Error> {
    let (theirs, ours) = (format!("vpc-{}", clock::nonce()), format!("vpc-{}", clock::nonce()));
    let id = sandbox.simulator.request_peering(&[("VpcId", &theirs), ("AcceptingVpcId", &ours)]).ok_or("no request")?;
    let config = Config::parse(&sandbox.config)?;
    let secrets = SecretSet::parse(&std::fs::read(secrets)?, &config)?;
    let spec = EventSpec {
        action: "approve".into(),
        fingerprint: sandbox.simulator.read_connection(&id).map(|it| it.fingerprint().to_string()),
        instance_id: id,
        target: Some("prod".into()),
        reason: None,
        tenant: Some("ci".into()),
        actor: "alice".into(),
    };
    event::sign_event(Platform::StandardWebhooks, &spec, &config, &secrets, clock::now())
}

/// A process of `peergate serve`. It is killed when this is dropped.
struct Server(Child);

impl Server {
    fn start(world: &World, address: &str, directory: &Path) -> Result<Self, Error> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peergate"));
        command.args(["serve", "--listen", address, "--store"]).arg(directory.join("peergate.db"));
        command.env_clear().envs(world.environment.iter().map(|(name, value)| (name, value)));
        command.env("PEERGATE_SECRETS", format!("file:{}", world.secrets.display()));
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

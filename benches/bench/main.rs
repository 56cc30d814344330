//! `make bench`: measures the cost of peergate on this machine, beside a minimal function and a Python peer. Absolute times
//! depend on the machine, so compare only the ratios of one run.
//!
//! Arguments: `--json` prints JSON. `--write` puts the tables into BENCHMARKS.md. `--quick` measures less, for work on the
//! benchmarks. `start`, `scale` and `load` measure only that part. `--log` shows the logs of the functions.
#![allow(
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark"
)]

mod function;
mod load;
mod memory;
mod report;
mod scale;
mod start;
mod throttle;
mod upstreams;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use function::Subject;
use peergate::clock;
use peergate::local::Error;
use report::{Measured, Report};

/// How much is measured.
pub struct Scope {
    /// The number of processes of each subject.
    pub starts: usize,
    /// The number of answers of each process after its first.
    pub warm: usize,
    /// The number of approvals that a tick finishes.
    pub activations: usize,
    /// The numbers of connections that the watcher follows.
    pub in_flight: &'static [usize],
    /// The number of active connections that the watcher compares with what people approved.
    pub active: usize,
    /// The naive watcher is measured up to this number of connections.
    pub naive: usize,
    /// The number of approvals under load.
    pub load: usize,
}

const FULL: Scope = Scope {
    starts: 24,
    warm: 50,
    activations: 10,
    in_flight: &[10, 1000, 10_000, 100_000],
    active: 10_000,
    naive: 10_000,
    load: 100_000,
};
const QUICK: Scope =
    Scope { starts: 6, warm: 20, activations: 2, in_flight: &[10, 1000], active: 1000, naive: 1000, load: 2000 };

/// The tables are between these marks in BENCHMARKS.md.
const BEGIN_MARK: &str = "<!-- measured: begin -->\n";
const END_MARK: &str = "<!-- measured: end -->\n";

// One thread: the machine may have only two processors, and the other is for the measured process.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let outcome = if has("--naive-tick") { scale::naive_tick().await.map(|()| true) } else { bench(has).await };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: a budget is broken");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints. Returns whether all budgets are kept.
async fn bench(has: impl Fn(&str) -> bool) -> Result<bool, Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = |folder: &str, name: &str| root.join(folder).join("lambda").join(name).join("bootstrap");
    let rust = |name, program: PathBuf| Subject { name, program, arguments: vec![], directory: None };
    let hello = rust("hello world", built("target/bench/hello", "hello"));
    let webhook = rust("peergate webhook", built("target", "webhook"));
    let watcher = rust("peergate watcher", built("target", "watcher"));
    let python = Subject {
        name: "Python",
        program: root.join("target/bench/python/bin/python"),
        arguments: ["-m", "awslambdaric", "app.handler"].map(ToOwned::to_owned).into(),
        directory: Some(root.join("benches/peers/python")),
    };
    let scope = if has("--quick") { QUICK } else { FULL };
    let all = !["start", "scale", "load"].into_iter().any(&has);
    let (mut sections, mut budgets) = (vec![], vec![]);
    let mut add = |measured: Measured| {
        sections.extend(measured.sections);
        budgets.extend(measured.budgets);
    };
    if all || has("start") {
        eprintln!("cold starts and warm answers");
        add(start::measure(&scope, [hello, webhook.clone(), watcher.clone(), python]).await?);
    }
    if all || has("scale") {
        eprintln!("the watcher at scale");
        add(scale::measure(&scope, &watcher).await?);
    }
    if all || has("load") {
        eprintln!("under load");
        add(load::measure(&scope, &webhook).await?);
    }
    let date = clock::now().strftime("%Y-%m-%d").to_string();
    let report = Report { date, machine: machine(), sections, budgets };
    let markdown = report.markdown();
    if has("--json") {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{markdown}");
    }
    if has("--write") {
        let path = root.join("BENCHMARKS.md");
        let text = std::fs::read_to_string(&path)?;
        let (before, marked) = text.split_once(BEGIN_MARK).ok_or("BENCHMARKS.md has no marks")?;
        let (_, after) = marked.split_once(END_MARK).ok_or("BENCHMARKS.md has no marks")?;
        std::fs::write(path, format!("{before}{BEGIN_MARK}\n{markdown}\n{END_MARK}{after}"))?;
    }
    Ok(report.budgets.iter().all(|budget| budget.kept))
}

/// A line about the machine.
fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores of {}, Linux {}", model.map_or("an unknown processor", |(_, name)| name), kernel.trim())
}

//! The watcher as a task that can be killed, started again, and woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::reload::CurrentApp;
use super::serve::DISCOVERY_INTERVAL;
use crate::clock;
use crate::logging::ErrorChain;
use crate::watch::{Tick, TickSummary, tick};

/// The time for a tick: one round begins, and a second one if it begins soon. So a woken watcher discovers soon.
const TICK_TIMEOUT: Duration = Duration::from_secs(12);
/// The longest pause between two ticks.
const TICK_PAUSE: Duration = Duration::from_millis(500);
/// After somebody asked for a discovery, each tick within this time discovers: what they did may take effect later.
const ATTENTION: Duration = Duration::from_secs(6);

/// A running watcher, or one that was killed.
#[derive(Debug)]
pub struct WatcherTask {
    app: CurrentApp,
    signals: Arc<WakeSignals>,
    report: watch::Sender<WatcherReport>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct WakeSignals {
    wake: Notify,
    discovers: AtomicBool,
}

/// What the watcher has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatcherReport {
    /// The number of finished ticks.
    pub ticks: u64,
    /// When the last discovery ended.
    pub discovered_at: Option<Timestamp>,
    /// What the last tick that did anything did.
    pub last: TickSummary,
}

impl WatcherTask {
    /// Starts a watcher.
    #[must_use]
    pub fn start(app: impl Into<CurrentApp>) -> Self {
        let mut task = Self { app: app.into(), signals: Arc::default(), report: watch::Sender::default(), task: None };
        task.restart();
        task
    }

    /// Starts it, if it does not run.
    pub fn restart(&mut self) {
        if self.task.is_none() {
            let (app, signals, report) = (self.app.clone(), Arc::clone(&self.signals), self.report.clone());
            self.task = Some(tokio::spawn(run(app, signals, report)));
        }
    }

    /// Kills it, also in the middle of a tick.
    pub fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.task.is_some()
    }

    /// Makes it tick now, or after its current tick. The tick discovers requests.
    pub fn discover(&self) {
        self.signals.discovers.store(true, Ordering::Relaxed);
        self.signals.wake.notify_one();
    }

    /// Makes it do what is due now, as the stream of the table does.
    pub fn wake(&self) {
        self.signals.wake.notify_one();
    }

    /// What it has done, and a sign of each tick.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<WatcherReport> {
        self.report.subscribe()
    }
}

impl Drop for WatcherTask {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn run(app: CurrentApp, signals: Arc<WakeSignals>, report: watch::Sender<WatcherReport>) {
    let mut discover_at = Instant::now() + DISCOVERY_INTERVAL;
    let mut attentive_until = Instant::now();
    loop {
        if signals.discovers.swap(false, Ordering::Relaxed) {
            attentive_until = Instant::now() + ATTENTION;
        }
        let discovers = Instant::now() < attentive_until || Instant::now() >= discover_at;
        if discovers {
            discover_at = Instant::now() + DISCOVERY_INTERVAL;
        }
        let kind = if discovers { Tick::SCHEDULED } else { Tick::DUE };
        match tick(&app.get(), kind, Instant::now() + TICK_TIMEOUT).await {
            Ok(summary) => report.send_modify(|report| {
                report.ticks = report.ticks.saturating_add(1);
                if discovers {
                    report.discovered_at = Some(clock::now());
                }
                if (TickSummary { rounds: 0, ..summary }) != TickSummary::default() {
                    report.last = summary;
                }
            }),
            Err(error) => {
                tracing::error!(outcome = "store_failed", error = %ErrorChain(&error), "could not finish the tick");
            }
        }
        // It ends early if somebody wakes the watcher.
        let _ = timeout(TICK_PAUSE, signals.wake.notified()).await;
    }
}

//! peergate on one machine: its files, and the process that runs both functions until it is stopped.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::reload::Reloader;
use super::serve::{self, ServerLimits, Stop};
use super::table::EmbeddedTable;
use super::{Error, owner_only};
use crate::app::App;
use crate::config::{Config, Environment, SecretsSource};
use crate::doctor::StartupCheck;
use crate::watch::{Tick, tick};

/// The time for what has begun when the process is asked to end. A reply to a request takes 6 s at most. A tick may be cut
/// off anywhere: the next one continues.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// The time between two searches for records whose time is over.
const EXPIRY_INTERVAL: Duration = Duration::from_hours(1);

/// The signals that a running process answers. Once they are caught, none of them ends the process at once.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches SIGHUP, SIGTERM and SIGINT.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn catch() -> Result<Self, Error> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first signal, whichever it is.
    pub async fn wait_for_any(mut self) {
        tokio::select! {
            _ = self.hangup.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The parts, ready to run.
#[derive(Debug)]
pub struct Installation {
    app: Arc<App>,
    environment: Environment,
    table: EmbeddedTable,
}

impl Installation {
    /// Opens the table in `store`, and reads the configuration and the secrets.
    ///
    /// # Errors
    /// When one of the files cannot be used: which one, and why.
    pub async fn open(store: &Path) -> Result<Self, Error> {
        let mut environment = local_environment()?;
        check_secrets_file(&environment)?;
        let config = Config::load(&environment.config)?;
        owner_only::warn_if_writable(&environment.config);
        let table = EmbeddedTable::open(store)?;
        table.create(&environment.table).await.map_err(|error| {
            format!("cannot write the table {}: {}", store.display(), crate::logging::ErrorChain(error.as_ref()))
        })?;
        environment.aws = table.environment(&environment.aws);
        let app = Arc::new(App::new(&environment, config)?);
        Ok(Self { app, environment, table })
    }

    /// Runs the watcher, and the webhook on `listener`, until the process is asked to end (SIGTERM, SIGINT). Then it
    /// finishes what has begun. SIGHUP reloads the configuration and the secrets.
    ///
    /// # Errors
    /// When the secrets are malformed or incomplete, or the webhook fails.
    pub async fn run(self, mut signals: Signals, listener: Option<TcpListener>) -> Result<(), Error> {
        self.app.prewarm().await?;
        let mut reloader = Reloader::new(self.environment, self.app);
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let watcher = serve::run_watcher_until(reloader.current_app(), serve::DISCOVERY_INTERVAL, Stop::on(&stop));
        tasks.spawn(async {
            watcher.await;
            Ok(())
        });
        if let Some(listener) = listener {
            let (app, limits) = (reloader.current_app(), ServerLimits::default());
            tasks.spawn(serve::serve_webhook_until(app, listener, limits, Stop::on(&stop)));
        }
        let expiry = tokio::spawn(delete_expired(self.table));
        tracing::info!(outcome = "started", version = env!("CARGO_PKG_VERSION"), "peergate runs");
        let ended = loop {
            tokio::select! {
                _ = signals.hangup.recv() => { reloader.reload().await; }
                _ = signals.terminate.recv() => break Ok(()),
                _ = signals.interrupt.recv() => break Ok(()),
                Some(ended) = tasks.join_next() => break ended?,
            }
        };
        tracing::info!(outcome = "stopping", "asked to end; finishing what has begun");
        stop.send_replace(true);
        expiry.abort();
        let all_done = timeout(STOP_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await.is_ok();
        tracing::info!(outcome = "stopped", all_done, "peergate ends");
        ended
    }

    /// Runs one tick that discovers requests.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn run_one_tick(self) -> Result<(), Error> {
        let startup_check = StartupCheck::default();
        let ticked = tick(&self.app, Tick::SCHEDULED, Instant::now() + serve::TICK_TIMEOUT);
        tokio::join!(ticked, startup_check.run_once(&self.app)).0?;
        Ok(())
    }
}

/// The environment of the process, with the table in `store`.
///
/// # Errors
/// When there is no such file, or it cannot be used.
pub fn environment_with_table(store: &Path) -> Result<Environment, Error> {
    let mut environment = local_environment()?;
    if !store.exists() {
        return Err(format!("there is no table at {}", store.display()).into());
    }
    environment.aws = EmbeddedTable::open(store)?.environment(&environment.aws);
    Ok(environment)
}

/// The environment of the process, with defaults for what only AWS needs.
pub(super) fn local_environment() -> Result<Environment, Error> {
    let default = |name: &str| match name {
        "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("local".to_owned()),
        "PEERGATE_SECRETS" => Some("file:peergate.secrets.json".to_owned()),
        _ => None,
    };
    #[expect(clippy::disallowed_methods, reason = "the environment of the local tool, read once")]
    Ok(Environment::from_variables(|name| std::env::var(name).ok().or_else(|| default(name)))?)
}

/// In AWS, a secret that cannot be fetched may come back. A file that is missing does not.
fn check_secrets_file(environment: &Environment) -> Result<(), Error> {
    if let SecretsSource::File(path) = &environment.secrets {
        // A directory can be opened, but not read.
        std::fs::read(path).map_err(|error| format!("cannot read the secrets in {}: {error}", path.display()))?;
        owner_only::warn_if_shared(path);
    }
    Ok(())
}

/// Deletes the records whose retention is over, at once and then every hour.
async fn delete_expired(table: EmbeddedTable) {
    loop {
        let table = table.clone();
        match spawn_blocking(move || table.delete_expired()).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(deleted)) => tracing::info!(outcome = "expired", deleted, "deleted expired items of the table"),
            Ok(Err(error)) => tracing::error!(outcome = "store_failed", %error, "could not delete expired records"),
        }
        sleep(EXPIRY_INTERVAL).await;
    }
}

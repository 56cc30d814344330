//! Log lines: flat JSON in Lambda, text on a terminal. It redacts nothing, because callers must never log a secret.

use std::error::Error;
use std::fmt;

use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The target of the lines about what a process does again and again while nothing happens.
pub const ROUTINE: &str = "peergate::routine";
/// The crates of peergate.
const OWN_CRATES: [&str; 3] = ["peergate", "webhook", "watcher"];

/// Starts logging to standard error. `AWS_LAMBDA_LOG_FORMAT=JSON` and `AWS_LAMBDA_LOG_LEVEL` are settings of Lambda.
///
/// The level applies only to the lines of peergate: at `TRACE`, the SDKs log whole requests and responses with their
/// secrets. (A release build does not have that code.)
pub fn start() {
    start_with(LevelFilter::TRACE);
}

/// Like [`start`], but while nothing happens there is no line, unless the level is `DEBUG` or `TRACE`.
pub fn start_without_routine() {
    start_with(LevelFilter::OFF);
}

fn start_with(routine: LevelFilter) {
    #[expect(clippy::disallowed_methods, reason = "before the configuration is read, so that its errors are logged")]
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let level = variable("AWS_LAMBDA_LOG_LEVEL").and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    let routine = if level > LevelFilter::INFO { level } else { routine.min(level) };
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(OWN_CRATES.map(|name| (name, level)))
        .with_target(ROUTINE, routine);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // peergate has its own field `target`, which names an accepting account.
    let lines = lines.with_target(false);
    let lines = if variable("AWS_LAMBDA_LOG_FORMAT").as_deref() == Some("JSON") {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    } else {
        lines.boxed()
    };
    tracing_subscriber::registry().with(lines).with(targets).init();
}

/// The fields of each line of an invocation: the request id of Lambda, and the header of X-Ray if there is one.
#[must_use]
pub fn invocation_span(request_id: &str, trace_id: Option<&str>) -> Span {
    tracing::info_span!("invocation", request_id, trace_id)
}

/// Logs why the process cannot start.
pub fn log_not_started(error: &dyn Error) {
    tracing::error!(outcome = "not_started", error = %ErrorChain(error), "could not start");
}

/// Shows an error and its causes in one line.
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

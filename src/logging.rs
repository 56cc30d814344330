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
    let given = variable("AWS_LAMBDA_LOG_LEVEL");
    let level = given.as_deref().map_or(Some(LevelFilter::INFO), parse_level);
    let (is_malformed, level) = (level.is_none(), level.unwrap_or(LevelFilter::INFO));
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
    if is_malformed {
        tracing::warn!(
            outcome = "malformed_variable",
            "environment variable AWS_LAMBDA_LOG_LEVEL is malformed: expected TRACE, DEBUG, INFO, WARN, ERROR or FATAL; using INFO"
        );
    }
}

/// The level of Lambda's name for it. peergate has no lines above `ERROR`.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>
fn parse_level(name: &str) -> Option<LevelFilter> {
    if name.eq_ignore_ascii_case("fatal") { Some(LevelFilter::ERROR) } else { name.parse().ok() }
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

/// Shows an error and its causes in one line. A cause whose words the line already has is left out.
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !line.contains(&words) {
                line = format!("{line}: {words}");
            }
            cause = error.source();
        }
        f.write_str(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_lambda_is_known() {
        for (name, level) in [("TRACE", LevelFilter::TRACE), ("info", LevelFilter::INFO), ("FATAL", LevelFilter::ERROR)]
        {
            assert_eq!(parse_level(name), Some(level), "{name}");
        }
        assert_eq!(parse_level("LOUD"), None);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Layer {
        words: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn chain_says_nothing_twice() {
        let chain = |words: &[&'static str]| {
            let layers = words.iter().rev().fold(None, |source, words| Some(Box::new(Layer { words, source })));
            ErrorChain(layers.unwrap().as_ref()).to_string()
        };
        assert_eq!(chain(&["cannot read a", "no such file"]), "cannot read a: no such file");
        assert_eq!(chain(&["cannot open a: disk full", "disk full", "error 13"]), "cannot open a: disk full: error 13");
    }
}

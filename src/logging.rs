//! Log lines: flat JSON in Lambda, text on a terminal. What is logged is decided where it happens; nothing here redacts,
//! because nothing secret may get this far.

use std::error::Error;
use std::fmt;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

/// Starts logging to standard error as the environment asks: `AWS_LAMBDA_LOG_FORMAT=JSON` and `AWS_LAMBDA_LOG_LEVEL`
/// are Lambda's own settings.
pub fn start() {
    #[expect(clippy::disallowed_methods, reason = "before the configuration is read, so that its errors are logged")]
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let level = variable("AWS_LAMBDA_LOG_LEVEL").and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    let builder = SubscriberBuilder::default().with_max_level(level).with_writer(std::io::stderr);
    if variable("AWS_LAMBDA_LOG_FORMAT").as_deref() == Some("JSON") {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    } else {
        builder.with_ansi(false).init();
    }
}

/// Shows an error with its causes, in one line.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
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

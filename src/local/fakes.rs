//! The list of fakes: the other side of each platform's wire, for tests, demos and the platforms' own SDKs.

use tokio::net::TcpListener;

use super::sink::Sink;
use super::{Error, feishu};

/// Answers as the platform of that name until the task ends.
///
/// # Errors
/// When there is no such fake, or an option is not one of its own.
pub async fn serve(name: &str, options: &[String], listener: TcpListener) -> Result<(), Error> {
    match name {
        "slack" if options.is_empty() => Ok(Sink::default().serve(listener).await?),
        "feishu" => Ok(feishu::with_bots(options)?.serve(listener).await?),
        _ => Err(format!("there is no fake {name} with such options; there are: slack, feishu").into()),
    }
}

//! The fakes: the other side of each wire, for tests, demos and the vendors' own SDKs. They refuse what the vendors refuse.

pub mod alicloud;
pub mod feishu;
pub mod slack;

use serde_json::Value;
use tokio::net::TcpListener;

use slack::FakeSlack;

/// A failure of a fake or of a local command: shown to the person who runs it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a fake brings to the sandbox.
#[derive(Debug, Clone)]
pub struct SandboxExtension {
    /// Tables of `peergate.toml`.
    pub config: String,
    /// Joined with the secrets.
    pub secrets: Value,
    /// A channel of these tables.
    pub channel: &'static str,
    /// Identities of the sandbox's people there.
    pub people: Vec<(&'static str, String)>,
}

/// Serves the fake of the platform `name` until the task ends.
///
/// # Errors
/// When there is no such fake, or it has no such option.
pub async fn serve_fake(name: &str, options: &[String], listener: TcpListener) -> Result<(), Error> {
    match name {
        "slack" if options.is_empty() => Ok(FakeSlack::default().serve(listener).await?),
        "feishu" => Ok(feishu::parse_fake_options(options)?.serve(listener).await?),
        _ => Err(format!("there is no fake {name} with such options; there are: slack, feishu").into()),
    }
}

//! Fake servers of Alibaba Cloud and of chat platforms, for tests, demos and the vendors' own SDKs. They refuse what the
//! vendors refuse.

pub mod alicloud;
pub mod dingtalk;
pub mod feishu;
pub mod loopback;
mod recent;
pub mod slack;
pub mod teams;
pub mod traffic;

use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;

use slack::FakeSlack;

/// A failure of a fake or of a local command. The person who runs it sees the text.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What the sandbox needs to use a fake platform.
#[derive(Debug, Clone)]
pub struct SandboxExtension {
    /// Tables to add to `peergate.toml`.
    pub config: String,
    /// Secrets to add.
    pub secrets: Value,
    /// The channel of these tables that gets notifications.
    pub channel: &'static str,
    /// The identities of the sandbox's people on the platform.
    pub people: Vec<PersonIdentity>,
}

/// The identity of a person on a platform.
#[derive(Debug, Clone)]
pub struct PersonIdentity {
    /// The name of the person in the sandbox.
    pub person: &'static str,
    /// E.g. `feishu:TENANT/ou_alice`.
    pub principal: String,
}

/// A message in a chat, with the body that was sent last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    /// The id of the message on the platform.
    pub id: String,
    /// The body, as it was sent.
    pub body: Value,
    /// The number of updates.
    pub edits: u32,
    /// Whether a message in a thread is shown in the channel, too.
    pub broadcast: bool,
    /// The messages in its thread, the oldest first.
    pub replies: Vec<ChatMessage>,
}

/// Serves the fake of a platform until the task ends.
///
/// # Errors
/// When there is no fake of that name, or it does not know an option.
pub async fn serve_fake(name: &str, options: &[String], listener: TcpListener) -> Result<(), Error> {
    match name {
        "teams" => Ok(teams::parse_fake_options(options)?.serve(listener).await?),
        "slack" if options.is_empty() => Ok(FakeSlack::default().serve(listener).await?),
        "feishu" => Ok(feishu::parse_fake_options(options)?.serve(listener).await?),
        "dingtalk" => Ok(dingtalk::parse_fake_options(options)?.serve(listener).await?),
        "slack" => Err("the fake of Slack takes no options".into()),
        _ => Err(format!("there is no fake of {name}: expected slack, feishu, dingtalk or teams").into()),
    }
}

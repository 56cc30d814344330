//! What the tests of whole functions share.

mod app;
pub mod contract;
mod log;
mod machine;
mod metrics;
mod slack;
mod table_proxy;

use std::path::PathBuf;

pub use app::{TestApp, becomes, edited, quick_settings, shows, slow_activation};
pub use log::{find_secret, logged};
pub use machine::Machine;
pub use metrics::{MetricsRecorder, sum_counts};
pub use peergate::local::actions::WebhookReply as TestResponse;
pub use peergate::local::actions::{
    ACCEPT, ALICE, BOB, CAROL, CHANNEL, ERIN, GET, LIST, REJECT, RESPONSE_PATH, SLACK_PATH, WebhookReply, failure,
};
pub use table_proxy::TableProxy;

/// The incoming webhook of the channel `hook`.
pub const WEBHOOK_PATH: &str = "/hooks/netops";
/// The machine behind the channel `audit`.
pub const AUDIT_PATH: &str = "/audit";

/// What most tests use: `use crate::support::prelude::*;`.
pub mod prelude {
    pub use std::time::Duration;

    pub use jiff::SignedDuration;
    pub use peergate::clock;
    pub use peergate::fake::alicloud::gateway::Fault;
    pub use peergate::fake::alicloud::{SimulatorSettings, Tampering};
    pub use peergate::fake::slack::Outage;
    pub use peergate::peering::InstanceId;
    pub use serde_json::{Value, json};

    pub use super::*;
}

/// A program of the virtual environment that `make tools` installs.
pub fn python_tool(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin").join(name);
    assert!(path.exists(), "{name} is missing: run `make tools`, which installs it into .venv");
    path
}

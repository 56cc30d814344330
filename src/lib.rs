//! peergate: people approve Alibaba Cloud VPC peering connections from chat.
//!
//! The modules are in reading order: the two stories, the procedure that they share, the domain, and the edge.

// The two stories: an approval (`webhook`) and a tick (`watch`).
pub mod trigger;
pub mod watch;
pub mod webhook;

// What both stories share: the procedure, and the parts that it uses.
pub mod accept;
pub mod app;

// The domain: pure functions and data.
pub mod approval;
mod from_text;
pub mod peering;
pub mod policy;
pub mod preflight;

// The edge: one module for each outside service or format.
pub mod alicloud;
pub mod aws;
pub mod chat;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod document;
pub mod envelope;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod notes;
pub mod read_budget;
pub mod redaction;
pub mod secret;
pub mod secrets;
pub mod store;
pub mod used_cidrs;

// The checks of a deployment.
pub mod doctor;

// The local tool, and fake servers for it and for tests.
#[cfg(feature = "local")]
pub mod fake;
#[cfg(feature = "local")]
pub mod local;

//! peergate: people approve Alibaba Cloud VPC peering connections from chat.
//!
//! In reading order: the two stories, the procedure that they share, the domain, and the parts at the edge.

// Story one: an approval. Story two: a tick.
pub mod trigger;
pub mod watch;
pub mod webhook;

// What both share: the procedure, and the parts it works with.
pub mod accept;
pub mod app;

// The domain. Pure.
pub mod approval;
pub mod peering;
pub mod policy;
pub mod preflight;

// The edge: one module per outside thing.
pub mod alicloud;
pub mod aws;
pub mod chat;
pub mod clock;
pub mod config;
pub mod credentials;
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

// What is wrong, if something is.
pub mod doctor;

// The tool for laptops, tests and single machines, and the other side of each wire.
#[cfg(feature = "local")]
pub mod fake;
#[cfg(feature = "local")]
pub mod local;

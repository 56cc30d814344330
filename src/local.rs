//! The commands of the local tool `peergate`, and the sandbox for the demo and tests.

pub mod actions;
pub mod audit;
pub mod backup;
pub mod chat_stage;
pub mod demo;
pub mod event;
pub mod installation;
pub mod inventory;
mod owner_only;
pub mod platform_table;
pub mod playground;
pub mod policy;
pub mod redrive;
pub mod register;
pub mod reload;
pub mod restore;
pub mod sandbox;
pub mod schema;
pub mod serve;
pub mod stories;
pub mod table;
pub mod watcher_task;

pub use crate::fake::Error;

/// A number and its noun, e.g. `1 record` or `2 records`.
fn count_of(number: usize, singular: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { singular } else { plural })
}

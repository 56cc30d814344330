//! The local tool: everything of peergate on one machine, and the simulator that tests and demos run against.

pub mod audit;
pub mod demo;
pub mod event;
pub mod fakes;
pub mod feishu;
pub mod redrive;
pub mod register;
pub mod restore;
pub mod sandbox;
pub mod serve;
pub mod simulator;
pub mod sink;
pub mod table;

/// Whatever goes wrong in the local tool goes to the person in front of it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

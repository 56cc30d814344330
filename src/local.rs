//! The local tool: the commands of `peergate`, and everything on one machine.

pub mod actions;
pub mod audit;
pub mod demo;
pub mod event;
pub mod redrive;
pub mod register;
pub mod restore;
pub mod sandbox;
pub mod serve;
pub mod table;

pub use crate::fake::Error;

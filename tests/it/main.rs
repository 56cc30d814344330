//! Tests of whole functions, from outside: one program, so that it is linked once. Each test has a thread and a clock of
//! its own.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::float_cmp,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::mutable_key_type,
    clippy::wildcard_enum_match_arm,
    clippy::too_many_lines,
    reason = "tests"
)]

mod alicloud;
mod answers;
mod audit;
mod aws;
mod bindings;
mod credentials;
mod doctor;
mod events;
mod feishu;
mod limits;
mod messages;
mod metrics;
mod migration;
mod model;
mod notes;
mod odd_answers;
mod people;
mod properties;
mod races;
mod recovery;
mod refusals;
mod scale;
mod serve;
mod state_machine;
mod structure;
mod support;
mod time;
mod tls;
mod truth;
mod vectors;
mod watcher;
mod webhook;

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

mod agents_playground;
mod alicloud;
mod answers;
mod arrival;
mod audit;
mod aws;
mod bindings;
mod bypass;
mod commands;
mod contract;
mod credentials;
mod delivery;
mod dingtalk;
mod doctor;
mod drift;
mod ended;
mod events;
mod feishu;
mod four_platforms;
mod inventory;
mod limits;
mod malformed;
mod mentions;
mod messages;
mod metrics;
mod migration;
mod model;
mod notes;
mod odd_answers;
mod one_machine;
mod people;
mod playground;
mod policy;
mod properties;
mod races;
mod reasons;
mod recovery;
mod refusals;
mod requester;
mod routes;
mod scale;
mod serve;
mod state_machine;
mod stories;
mod structure;
mod support;
mod table;
mod teams;
mod time;
mod tls;
mod truth;
mod vectors;
mod watcher;
mod webhook;

//! Tests that set the clock of their process ahead: what takes days, readings that are confirmed after a minute, and the
//! model. They run one after the other.
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

#[path = "../support/mod.rs"]
mod support;

mod model;
mod time;
mod truth;

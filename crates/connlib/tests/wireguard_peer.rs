//! The configuration of the example `wireguard_peer`, whose tests stand beside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../examples/wireguard_peer/config.rs"]
#[expect(dead_code, reason = "the example uses the rest")]
mod config;

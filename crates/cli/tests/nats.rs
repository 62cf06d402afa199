//! How two ends reach each other through the NATs and firewalls of a real kernel: real processes in namespaces, behind routers
//! whose rules nftables keeps.
//!
//! Each test prints a table with a row for each pair of networks; `docs/nats.md` shows all of them and says what each kind is.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::print_stdout, reason = "logs are printed where a test fails")]

#[path = "connections/network.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod network;
#[path = "connections/probe.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod probe;
#[path = "support/program.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod program;
#[path = "names/tools.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod tools;
#[path = "connections/world.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod world;

#[path = "nats/blocked.rs"]
mod blocked;
#[path = "nats/carrier.rs"]
mod carrier;
#[path = "nats/families.rs"]
mod families;
#[path = "nats/kinds.rs"]
mod kinds;
#[path = "nats/matrix.rs"]
mod matrix;
#[path = "nats/router.rs"]
mod router;
#[path = "nats/rows.rs"]
mod rows;

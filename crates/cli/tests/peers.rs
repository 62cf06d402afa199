//! Programs that nobody here wrote, beside real processes of ours: what they see of a network behind a gateway, and what becomes
//! of packets that no honest program sends.

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

#[path = "peers/crafted.rs"]
mod crafted;
#[path = "peers/families.rs"]
mod families;
#[path = "peers/flows.rs"]
mod flows;
#[path = "peers/programs.rs"]
mod programs;
#[path = "peers/refused.rs"]
mod refused;
#[path = "peers/revoked.rs"]
mod revoked;
#[path = "peers/site.rs"]
mod site;

//! Relays and programs that nobody here wrote: our relay serves them, or they serve our client and gateway.
//!
//! Where a program is missing the test says that it was skipped; with `CI` set it fails.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::print_stdout, reason = "logs are printed where a test fails")]

#[path = "support/capture.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod capture;
#[path = "connections/network.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod network;
#[path = "connections/probe.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod probe;
#[path = "support/program.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod program;
#[path = "connections/world.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod world;

#[path = "turn/aioice.rs"]
mod aioice;
#[path = "turn/aioice_peer.rs"]
mod aioice_peer;
#[path = "turn/carrier.rs"]
mod carrier;
#[path = "turn/coturn.rs"]
mod coturn;
#[path = "turn/our_system.rs"]
mod our_system;
#[path = "turn/scene.rs"]
mod scene;
#[path = "turn/serving_strangers.rs"]
mod serving_strangers;
#[path = "turn/serving_us.rs"]
mod serving_us;
#[path = "turn/tshark.rs"]
mod tshark;

//! Who may reach what, by which resource, through which gateway: real processes in namespaces, and what they say about it.

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
#[path = "connections/world.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod world;

#[path = "access/embedded.rs"]
mod embedded;
#[path = "access/internet.rs"]
mod internet;
#[path = "access/no_firewall.rs"]
mod no_firewall;
#[path = "access/older.rs"]
mod older;
#[path = "access/proxy.rs"]
mod proxy;
#[path = "access/why.rs"]
mod why;

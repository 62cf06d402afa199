//! Names, with programs that nobody here wrote as users and as servers: dig, kdig, delv, dnsperf, curl and libc ask; knot,
//! unbound and systemd-resolved answer.
//!
//! Each test makes a [world](world::World) of its own out of namespaces and processes. None touches the machine's own
//! resolver settings.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::print_stdout, reason = "figures are printed")]

#[path = "connections/network.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod network;
#[path = "support/program.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod program;

#[path = "names/deaf.rs"]
mod deaf;
#[path = "names/delay.rs"]
mod delay;
#[path = "names/fragments.rs"]
mod fragments;
#[path = "names/load.rs"]
mod load;
#[path = "names/privacy.rs"]
mod privacy;
#[path = "names/programs.rs"]
mod programs;
#[path = "names/questions.rs"]
mod questions;
#[path = "names/servers.rs"]
mod servers;
#[path = "names/settings.rs"]
mod settings;
#[path = "names/site.rs"]
mod site;
#[path = "names/tools.rs"]
mod tools;
#[path = "names/upstreams.rs"]
mod upstreams;
#[path = "names/world.rs"]
mod world;

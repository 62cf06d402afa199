//! What the fuzzers run, as functions: each takes any bytes and asserts what must hold for them.
//!
//! `fuzz_targets/` hands these functions to libFuzzer; `tests/corpus.rs` runs them over the committed corpus, and over
//! mutations of it, wherever `cargo test` runs. Each module says what it asserts.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a target fails by panicking"
)]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a target picks out what it asserts on"
)]

mod choices;
mod control;
mod dns;
mod ip_packets;
mod links;
mod portal;
mod portal_messages;
mod relay;
mod repair;
mod roles;
mod scenarios;
mod stun;
mod super_packets;
mod tokens;
mod topology;
mod turn;

pub use control::control;
pub use dns::dns;
pub use ip_packets::ip_packets;
pub use links::links;
pub use portal::portal;
pub use portal_messages::portal_messages;
pub use relay::relay;
pub use roles::roles;
pub use scenarios::scenarios;
pub use stun::stun;
pub use super_packets::super_packets;
pub use tokens::tokens;
pub use topology::topology;
pub use turn::turn;

/// One entry point.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also its corpus' folder.
    pub name: &'static str,
    /// What runs.
    pub run: fn(&[u8]),
    /// How many mutated inputs `cargo test` has time for.
    pub mutations: usize,
}

impl Target {
    const fn new(name: &'static str, run: fn(&[u8]), mutations: usize) -> Self {
        Self {
            name,
            run,
            mutations,
        }
    }
}

/// All entry points, by name.
pub const TARGETS: &[Target] = &[
    Target::new("control", control, 3_000),
    Target::new("dns", dns, 3_000),
    Target::new("ip_packets", ip_packets, 3_000),
    Target::new("links", links, 500),
    Target::new("portal", portal, 1_000),
    Target::new("portal_messages", portal_messages, 3_000),
    Target::new("relay", relay, 3_000),
    Target::new("roles", roles, 150),
    Target::new("scenarios", scenarios, 20),
    Target::new("stun", stun, 3_000),
    Target::new("super_packets", super_packets, 3_000),
    Target::new("tokens", tokens, 3_000),
    Target::new("topology", topology, 3_000),
    Target::new("turn", turn, 3_000),
];

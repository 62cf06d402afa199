//! A deterministic world in a test.
//!
//! Development only. Everything that ships runs here as it ships: the state machines of client, gateway and relay, and the
//! event loop around them. What is made up is what surrounds them: the clock, the network, the devices, the portal.
//!
//! ```text
//!   seed ──► Scenario ──► World::run ──► Report ──► oracles
//!
//!      app ─► TUN ─┐                              ┌─ TUN ─► a host that echoes
//!               client ── link ─┬─ link ── gateway
//!                 :             │             :          : the portal's stand-in
//!                 :..........   relay   ......:            carries messages with latency
//! ```
//!
//! One heap of happenings, ordered by time and number, drives all. The same seed gives the same trace, byte for byte: every
//! datagram and every packet is hashed as it leaves.

mod faults;
mod host;
mod log;
mod network;
pub mod pipe;
mod portal;
mod report;
mod scenario;
mod trace;
mod world;

pub use faults::Faults;
pub use report::{Failure, Report};
pub use scenario::{Direct, Family, Scenario};
pub use trace::TraceHash;
pub use world::World;

/// Builds the world of a seed, runs it, and says what it did.
///
/// # Errors
///
/// The first oracle that was violated.
pub fn run(seed: u64) -> Result<Report, Failure> {
    World::new(Scenario::from_seed(seed)).run()
}

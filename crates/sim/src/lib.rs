//! A deterministic world in a test.
//!
//! Development only. Everything that ships runs here as it ships: the state machines of client, gateway, relay and portal,
//! and the event loop around them. What is made up is what surrounds them: the clock, the network, the devices, the channel
//! to the portal.
//!
//! ```text
//!   seed ──┐                             ┌── oracles: Ok(Report) or Err(Failure)
//!   bytes ─┼─► Scenario ──► World::run ──┤
//!   text ──┘     ▲  │                    └── a trace hash; on failure a text, and a pcapng for each host
//!                └──┘ Display
//!
//!      app ─► TUN ─┐                                           ┌─ TUN ─► a host that answers
//!               client ── link ── edges ─┬─ edges ── link ── gateway
//!                 :                    relay                    :
//!                 :.................. portal ...................:
//! ```
//!
//! One heap of happenings, ordered by time and number, drives all. The same scenario gives the same trace, byte for byte:
//! every datagram and every packet is hashed as it leaves.

mod apps;
mod campaign;
mod excuse;
mod faults;
mod host;
mod hostile;
pub mod limits;
mod log;
mod names;
mod network;
mod oracle;
mod pcap;
pub mod pipe;
mod portal;
mod relay;
mod report;
pub mod scenario;
mod shrink;
mod trace;
mod world;

pub use campaign::{Campaign, save};
pub use excuse::Excuse;
pub use faults::Faults;
pub use pipe::{Direct, Family};
pub use report::{Failure, Judged, Outcome, Report};
pub use scenario::Scenario;
pub use shrink::shrink;
pub use trace::TraceHash;
pub use world::World;

/// Runs the world of a scenario, and says what it did.
///
/// # Errors
///
/// The first oracle that was violated.
pub fn run(scenario: Scenario) -> Result<Report, Failure> {
    World::new(scenario).run()
}

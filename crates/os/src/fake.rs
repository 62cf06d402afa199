//! The traits of this crate in memory: no descriptors, no clock.
//!
//! Who owns a fake is its world: puts in what arrives, takes out what left, and says which calls fail. A network is shared
//! by its world and who waits for its changes.

mod faults;
mod network;
mod tun;
mod udp;

pub use network::FakeNetwork;
pub use tun::FakeTun;
pub use udp::{FakeTrain, FakeUdp, SentTrain};

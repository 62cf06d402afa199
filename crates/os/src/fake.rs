//! The traits of this crate in memory: no descriptors, no locks, no clock.
//!
//! Who owns a fake is its world: puts in what arrives, takes out what left, and says which calls fail.

mod faults;
mod tun;
mod udp;

pub use tun::FakeTun;
pub use udp::{FakeTrain, FakeUdp, SentTrain};

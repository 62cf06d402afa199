//! The traits of this crate in memory: no descriptors, no clock.
//!
//! Who owns a fake is its world: puts in what arrives, takes out what left, and says which calls fail. A network is shared
//! by its world and who waits for its changes.

mod faults;
mod network;
mod tun;
mod udp;

use std::io::IoSlice;

pub use network::FakeNetwork;
pub use tun::FakeTun;
pub use udp::{FakeTrain, FakeUdp, SentTrain};

/// In one piece what lies in several.
fn joined(parts: &[IoSlice<'_>]) -> Vec<u8> {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(len);
    for part in parts {
        bytes.extend_from_slice(part);
    }

    bytes
}

//! The threads that own sockets, devices and loops. Nothing else runs on them, and nothing on them waits for anything but
//! a socket, a device, a deadline or an order.
//!
//! The other half of a program, which speaks with the portal and the kernel's configuration, is a thread with a runtime.
//! Bounded channels lie between them, so that a busy tunnel never costs the portal its heartbeat, and a slow portal never
//! holds up a packet.

mod node;
mod relay;
mod sockets;

use connlib_os::random;
use connlib_os::udp::UdpError;

pub(crate) use node::{NodeHandle, Order, Outputs, Stopped, spawn_node};
pub(crate) use relay::{Counters, Counts, RelayHandle, RelaySockets, spawn_relay};
pub(crate) use sockets::Sockets;

use crate::event_loop::Fatal;

/// Why a data plane did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataPlaneError {
    /// No socket could be bound.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// The system has no thread, poller or event descriptor left.
    #[error("can't start the data plane: {0}; raise the limits on threads and open files")]
    Os(#[source] std::io::Error),
}

/// Why a data plane ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataPlaneEnded {
    /// The loop met something that it can't go on with.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The kernel no longer lets it wait.
    #[error("can't wait for sockets: {0}")]
    Wait(#[source] std::io::Error),
    /// It has a bug.
    #[error("the data plane crashed; please report what the log says")]
    Crashed,
}

/// What outsiders must not know of a loop's hash tables.
fn hash_seed() -> Result<u64, DataPlaneError> {
    let entropy = random::seed().map_err(DataPlaneError::Os)?;

    Ok(entropy
        .first_chunk()
        .map_or(0, |bytes| u64::from_ne_bytes(*bytes)))
}

#[cfg(test)]
mod tests;

//! One secured association with a peer: WireGuard over whatever path ICE finds, directly or through a relay.
//!
//! Floor 1 of connlib. A [`Links`] holds every peer of one node and every relay it may use. It is pure: time comes in
//! with each call, randomness from a seed, and bytes leave through [`Links::poll_transmit`].
//!
//! ```text
//!          relays (portal)      peers, candidates (portal)     packets
//!                │                        │                       │
//!   ┌────────────▼──────────┐   ┌─────────▼──────────────────┐    │
//!   │ allocation            │──►│ peer                       │◄───┘
//!   │ TURN client, one per  │   │ ice::Agent    which path   │
//!   │ relay: candidates,    │◄──│ wireguard     which keys   │
//!   │ channels              │   └─────────┬──────────────────┘
//!   └────────────┬──────────┘             │
//!                └──────► datagrams ◄─────┘
//! ```
//!
//! # Callers' duties
//!
//! * After any `handle_` or `update_`, drain [`Links::poll_transmit`] and [`Links::poll_event`], then come back by
//!   [`Links::poll_timeout`]. `now` must never go backwards.
//! * Send from `route.src` where it is set: an ICE check must leave from the address that forms its pair.
//! * A packet that comes out of a link is authentic, not allowed: check its source.
//! * Connections are described by the portal, or by whoever wrote the configuration of a [`FixedPeer`]: never create one
//!   for a key that a datagram brought along.

#![deny(clippy::indexing_slicing, clippy::panic)]

mod allocation;
mod candidates;
mod handshakes;
mod ice;
mod jobs;
mod links;
mod packets;
mod path;
mod peer;
mod role;
mod wireguard;

pub use jobs::{Job, OpenJob, SealJob};
pub use links::{
    Event, Links, NotSent, PeerStatus, Reason, RelayStatus, Settings, Stats, UpsertError,
};
pub use packets::{Opened, Packets, Told};
pub use path::{Path, PathKind, PathWhy};
pub use peer::{FixedPeer, PeerConfig, PeerId};
pub use role::Role;
pub use wireguard::PrivateKey;

use std::net::SocketAddr;

use connlib_wire::id::RelayId;
use connlib_wire::portal::turn;
use connlib_wire::secret::Secret;

/// The realm of every relay (connections.md §6.2).
pub const REALM: &str = "firezone";

/// A relay and how to use it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RelayServer {
    /// Its id.
    pub id: RelayId,
    /// Where it listens, over IPv4.
    pub v4: Option<SocketAddr>,
    /// Where it listens, over IPv6.
    pub v6: Option<SocketAddr>,
    /// `<expiry>:<salt>`.
    pub username: String,
    /// The password for that user name.
    pub password: Secret,
}

impl RelayServer {
    /// Joins the portal's entries, one per address, into one relay per id; of two addresses of one family the first
    /// counts (portal-protocol.md §4).
    pub fn from_portal(entries: &[turn::Relay]) -> Vec<Self> {
        let mut relays: Vec<Self> = Vec::new();
        for entry in entries {
            let turn::Relay::Turn(entry) = entry else {
                continue;
            };
            let position = relays.iter().position(|relay| relay.id == entry.id);
            let known = position.and_then(|position| relays.get_mut(position));
            let relay = match known {
                Some(relay) => relay,
                None => {
                    relays.push(Self {
                        id: entry.id,
                        v4: None,
                        v6: None,
                        username: entry.username.clone(),
                        password: entry.password.clone(),
                    });
                    let Some(relay) = relays.last_mut() else {
                        continue;
                    };
                    relay
                }
            };
            let slot = if entry.addr.is_ipv4() {
                &mut relay.v4
            } else {
                &mut relay.v6
            };
            slot.get_or_insert(entry.addr);
        }

        relays
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        self.v4.into_iter().chain(self.v6)
    }
}

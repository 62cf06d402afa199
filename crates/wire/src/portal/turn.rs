//! Relays as the portal hands them out (portal-protocol.md §4).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::RelayId;
use crate::secret::Secret;

/// One address of one relay. A dual-stack relay comes as two entries with the same id.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Relay {
    /// A server that allocates addresses.
    Turn(Turn),
    /// A server that only tells reflexive addresses; portals don't send these, and peers ignore them.
    Stun {
        /// The relay.
        id: RelayId,
        /// Where it listens.
        addr: SocketAddr,
    },
}

/// A TURN server and the credentials to use it with, in realm `firezone`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Turn {
    /// The relay.
    pub id: RelayId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// `<expiry>:<salt>`.
    pub username: String,
    /// The password for that user name.
    pub password: Secret,
    /// When the credentials end, in Unix seconds; informational.
    #[serde(default)]
    pub expires_at: u64,
}

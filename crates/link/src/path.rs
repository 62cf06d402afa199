//! The way to a peer.

use std::net::SocketAddr;

use connlib_wire::id::RelayId;

/// Two addresses between which datagrams flow, and the relay of ours among them if there is one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Path {
    /// Our end: an address of this host, or the one a relay gave us. The unspecified one leaves the choice to the
    /// operating system.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// Our relay, if `local` is its address.
    pub relay: Option<RelayId>,
}

impl Path {
    /// The address to send from, if it matters.
    pub(crate) fn source(&self) -> Option<SocketAddr> {
        Some(self.local).filter(|local| !local.ip().is_unspecified())
    }
}

/// Which relays a path runs through.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PathKind {
    /// None.
    Direct,
    /// The peer's.
    PeerRelay,
    /// Ours.
    OurRelay,
    /// Both ends'.
    BothRelays,
}

impl PathKind {
    pub(crate) fn new(ours: bool, theirs: bool) -> Self {
        match (ours, theirs) {
            (false, false) => Self::Direct,
            (false, true) => Self::PeerRelay,
            (true, false) => Self::OurRelay,
            (true, true) => Self::BothRelays,
        }
    }

    /// Whether any relay carries the traffic.
    pub const fn is_relayed(self) -> bool {
        !matches!(self, Self::Direct)
    }
}

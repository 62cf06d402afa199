//! The way to a peer.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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

    /// The same way, from whichever address the operating system finds best.
    pub(crate) fn with_any_source(self) -> Self {
        let any: IpAddr = match self.remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };

        Self {
            local: SocketAddr::new(any, 0),
            ..self
        }
    }

    /// Whether a datagram that took `other` took this way, whoever chose the address to send from.
    pub(crate) fn is_way_of(&self, other: Self) -> bool {
        let is_free = self.source().is_none() || other.source().is_none();

        self.remote == other.remote
            && self.relay == other.relay
            && (is_free || self.local == other.local)
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

/// Why the path in use is the one in use.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum PathWhy {
    /// The first that worked.
    First,
    /// Its addresses are better than those of the one before, and it works.
    Better,
    /// The one before fell silent.
    Silence,
    /// An address of the one before is gone.
    Withdrawn,
    /// Our own network changed.
    NetworkChanged,
    /// The peer sends this way.
    PeerMoved,
    /// It was configured.
    Configured,
}

impl PathWhy {
    /// One or two words, joined by a hyphen, as `status` shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Better => "better",
            Self::Silence => "silence",
            Self::Withdrawn => "withdrawn",
            Self::NetworkChanged => "network-changed",
            Self::PeerMoved => "peer-moved",
            Self::Configured => "configured",
        }
    }
}

impl fmt::Display for PathWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

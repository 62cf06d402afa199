//! What the operator decides.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use connlib_wire::secret::Secret;
use connlib_wire::stun::Family;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The IPv4 address that peers reach the allocations at; `None` if the relay has no IPv4.
    pub public_v4: Option<Ipv4Addr>,
    /// The IPv6 address that peers reach the allocations at; `None` if the relay has no IPv6.
    pub public_v6: Option<Ipv6Addr>,
    /// The port that clients talk to, 3478 by custom.
    pub listen_port: u16,
    /// The ports that allocations may get. The listen port is never one of them.
    pub ports: RangeInclusive<u16>,
    /// How clients prove that they may use the relay.
    pub credentials: Credentials,
    /// Whether clients may reach this machine and its links through the relay.
    pub loopback_peers: LoopbackPeers,
    /// Whether clients may reach private networks through the relay.
    pub private_peers: PrivatePeers,
}

impl Config {
    /// The public address of one family.
    pub(crate) fn public_ip(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.public_v4.map(IpAddr::V4),
            Family::V6 => self.public_v6.map(IpAddr::V6),
        }
    }
}

/// How user names and passwords belong together. Neither scheme needs a table of users. Which one it is also decides how the
/// server behaves: [`Conduct`](crate::Conduct).
#[derive(Clone, Debug)]
pub enum Credentials {
    /// The portal's scheme: user `EXPIRY:SALT`, password by
    /// [`relay_password`](connlib_wire::stun::relay_password) (relay.md §5).
    Stamped(Secret),
    /// The scheme of other TURN servers with a shared secret, for a relay without a portal: user `EXPIRY[:NAME]`,
    /// password `base64(HMAC-SHA1(secret, user))` (draft-uberti-behave-turn-rest-00 §2.2). Allocations belong to `NAME`, so
    /// that fresh credentials go on with them; without one, to the whole of it.
    Rest(Secret),
}

/// Whether channels may lead to loopback and link-local addresses and to the relay's own listen port.
///
/// Credentials alone would otherwise let their owner talk to services that trust this machine or its link.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LoopbackPeers {
    /// Such a channel is refused with 403.
    #[default]
    Refused,
    /// They may: for a demonstration on one machine, and for tests.
    Allowed,
}

/// Whether peers may have addresses that the Internet doesn't route: those of RFC 1918, RFC 6598 and RFC 4193 (ULA),
/// 192.0.0.0/24, 198.18.0.0/15 and 240.0.0.0/4, and IPv6 addresses of translators that stand for them (RFC 6052, RFC 3056).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PrivatePeers {
    /// They may: gateways live there, beside the relay.
    #[default]
    Allowed,
    /// Such a peer is refused with 403.
    Refused,
}

/// A port that belongs to an allocation, the same number for IPv4 and IPv6.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AllocationPort(pub u16);

impl From<u16> for AllocationPort {
    fn from(port: u16) -> Self {
        Self(port)
    }
}

impl fmt::Debug for AllocationPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AllocationPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! Which addresses an allocation gets, and which peers it may talk to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use connlib_wire::stun::Family;

use crate::answer::Refusal;
use crate::config::{Config, LoopbackPeers};

/// The address families of one allocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Families {
    One(Family),
    Both,
}

impl Families {
    /// What an ALLOCATE gets from a relay with these public addresses (relay.md §8, step 4).
    pub(crate) fn choose(
        config: &Config,
        requested: Option<Family>,
        additional: Option<Family>,
    ) -> Result<Self, Refusal> {
        let has = |family| config.public_ip(family).is_some();

        match (requested, additional) {
            (Some(_), Some(_)) | (None, Some(Family::V4)) => Err(Refusal::BadRequest),
            (None, Some(Family::V6)) => match (has(Family::V4), has(Family::V6)) {
                (true, true) => Ok(Self::Both),
                (true, false) => Ok(Self::One(Family::V4)),
                (false, true) => Ok(Self::One(Family::V6)),
                (false, false) => Err(Refusal::FamilyNotSupported),
            },
            (requested, None) => {
                let family = requested.unwrap_or(Family::V4);
                if has(family) {
                    Ok(Self::One(family))
                } else {
                    Err(Refusal::FamilyNotSupported)
                }
            }
        }
    }

    pub(crate) fn contains(self, family: Family) -> bool {
        match self {
            Self::One(one) => one == family,
            Self::Both => true,
        }
    }

    /// IPv4 first.
    pub(crate) fn iter(self) -> impl Iterator<Item = Family> {
        [Family::V4, Family::V6]
            .into_iter()
            .filter(move |family| self.contains(*family))
    }

    /// What is left without `family`; `None` if nothing is.
    pub(crate) fn without(self, family: Family) -> Option<Self> {
        match (self, family) {
            (Self::Both, Family::V4) => Some(Self::One(Family::V6)),
            (Self::Both, Family::V6) => Some(Self::One(Family::V4)),
            (Self::One(one), gone) if one == gone => None,
            (Self::One(_), _) => Some(self),
        }
    }
}

/// Whether a channel may lead to `peer`.
pub(crate) fn may_relay_to(peer: SocketAddr, config: &Config) -> bool {
    if peer.port() == 0 || is_never_a_peer(peer.ip()) {
        return false;
    }
    if config.loopback_peers == LoopbackPeers::Allowed {
        return true;
    }

    let is_own = config.public_ip(Family::of(peer)) == Some(peer.ip());
    let is_own_listen_port = is_own && peer.port() == config.listen_port;

    !is_local(peer.ip()) && !is_own_listen_port
}

/// Addresses that no single host has, and IPv4 ones in disguise, which IPv6 sockets must not reach.
fn is_never_a_peer(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_this_network = ip.octets().starts_with(&[0]);
            is_this_network || ip.is_multicast() || ip == Ipv4Addr::BROADCAST
        }
        IpAddr::V6(ip) => {
            // ::/96 but ::1, and ::ffff:0:0/96.
            let embeds_v4 =
                (ip.to_ipv4().is_some() || ip.is_unspecified()) && ip != Ipv6Addr::LOCALHOST;
            embeds_v4 || ip.is_multicast()
        }
    }
}

fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

//! Which addresses an allocation gets, and which peers it may talk to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use connlib_wire::stun::Family;

use crate::answer::Refusal;
use crate::conduct::Conduct;
use crate::config::{Config, LoopbackPeers, PrivatePeers};

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

/// A family that an allocation was to have as well and doesn't, and why (ADDRESS-ERROR-CODE, RFC 8656 §7.2).
pub(crate) type Lacking = (Family, Refusal);

/// The family that somebody who wants both doesn't get from a relay with these public addresses.
pub(crate) fn lacking_family(config: &Config, additional: Option<Family>) -> Option<Lacking> {
    additional?;

    [Family::V4, Family::V6]
        .into_iter()
        .find(|family| config.public_ip(*family).is_none())
        .map(|family| (family, Refusal::FamilyNotSupported))
}

/// Whether anything may go to this address: what is permitted has no port yet (RFC 8656 §9).
pub(crate) fn may_permit(peer: IpAddr, config: &Config) -> bool {
    if is_never_a_peer(peer) {
        return false;
    }

    (config.loopback_peers == LoopbackPeers::Allowed || !stands_for(peer, is_local))
        && (config.private_peers == PrivatePeers::Allowed || !stands_for(peer, is_private))
}

/// Whether data may go to `peer`, or a channel lead there.
pub(crate) fn may_relay_to(peer: SocketAddr, config: &Config) -> bool {
    if peer.port() == 0 || !may_permit(peer.ip(), config) {
        return false;
    }
    if config.loopback_peers == LoopbackPeers::Allowed {
        return true;
    }

    let is_own = config.public_ip(Family::of(peer)) == Some(peer.ip());
    let is_service = match Conduct::towards(&config.credentials) {
        // Gateways may live on the relay's machine, or behind the same address.
        Conduct::Portal => peer.port() == config.listen_port,
        Conduct::Standard => {
            peer.port() == config.listen_port || !config.ports.contains(&peer.port())
        }
    };

    !(is_own && is_service)
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

/// Whether the address, or the IPv4 one that a translator makes of it, is of a kind.
fn stands_for(ip: IpAddr, is_of_kind: impl Fn(IpAddr) -> bool) -> bool {
    is_of_kind(ip) || translated(ip).is_some_and(|ip| is_of_kind(IpAddr::V4(ip)))
}

/// What 64:ff9b::/96 (RFC 6052) and 2002::/16 (RFC 3056) lead to.
fn translated(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else {
        return None;
    };

    match ip.segments() {
        [0x64, 0xFF9B, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let is_shared = matches!(v4.octets(), [100, 64..=127, ..]);
            let is_special = matches!(
                v4.octets(),
                [192, 0, 0, _] | [198, 18 | 19, ..] | [240..=255, ..]
            );
            v4.is_private() || is_shared || is_special
        }
        IpAddr::V6(v6) => {
            let is_local_translator = matches!(v6.segments(), [0x64, 0xFF9B, 1, ..]);
            v6.is_unique_local() || is_local_translator
        }
    }
}

fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

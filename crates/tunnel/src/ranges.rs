//! Addresses with a meaning of their own (gateway.md §1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Clients' and gateways' own addresses.
pub(crate) const TUNNEL_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 11);

/// Clients' and gateways' own addresses.
pub(crate) const TUNNEL_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0), 107);

/// Addresses that stand for names of resources.
pub(crate) const PROXY_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 96, 0, 0), 11);

/// Addresses that stand for names of resources.
pub(crate) const PROXY_V6: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 0),
    107,
);

/// Addresses at which a client answers questions for name servers. They lie among those that stand for names.
pub(crate) const SENTINELS_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 111, 0), 24);

/// Addresses at which a client answers questions for name servers.
pub(crate) const SENTINELS_V6: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0x100, 0x100, 0x111, 0),
    120,
);

/// What leads into a client's tunnel whatever its resources are (client.md §1).
pub(crate) const CLIENT: [IpNet; 6] = [
    IpNet::V4(TUNNEL_V4),
    IpNet::V6(TUNNEL_V6),
    IpNet::V4(PROXY_V4),
    IpNet::V6(PROXY_V6),
    IpNet::V4(SENTINELS_V4),
    IpNet::V6(SENTINELS_V6),
];

/// Where clients' and gateways' own addresses come from (gateway.md §1).
pub const TUNNEL: [IpNet; 2] = [IpNet::V4(TUNNEL_V4), IpNet::V6(TUNNEL_V6)];

/// All addresses, as routes.
pub(crate) const EVERYTHING: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// What is not reached as the Internet: addresses that mean something in the gateway's own networks only, which whoever may use
/// the Internet must not reach by that (gateway.md §5).
const NO_INTERNET: [IpNet; 15] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
];

const fn v4([a, b, c, d]: [u8; 4], len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, c, d, e, f, g, h),
        len,
    ))
}

/// Whether an address is none of the Internet's.
pub(crate) fn is_no_internet(ip: IpAddr) -> bool {
    NO_INTERNET.iter().any(|network| network.contains(&ip))
}

/// Whether an address belongs to a client or a gateway.
pub(crate) fn is_tunnel(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => TUNNEL_V4.contains(&ip),
        IpAddr::V6(ip) => TUNNEL_V6.contains(&ip),
    }
}

/// Whether an address may stand for a name.
pub(crate) fn is_proxy(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => PROXY_V4.contains(&ip),
        IpAddr::V6(ip) => PROXY_V6.contains(&ip),
    }
}

/// Whether an address is one at which a client may answer questions.
pub fn is_sentinel(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => SENTINELS_V4.contains(&ip),
        IpAddr::V6(ip) => SENTINELS_V6.contains(&ip),
    }
}

/// Whether an address can be that of a host behind a gateway: it is none of ours, and of one host alone.
pub(crate) fn is_host(ip: IpAddr) -> bool {
    let is_nobodys = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_unspecified() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_loopback(),
    };

    !is_nobodys && !ip.is_multicast() && !is_tunnel(ip) && !is_proxy(ip) && !is_sentinel(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_internet_has_public_addresses_only() {
        for ip in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.9",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.31.255.255",
            "192.168.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:1.2.3.4",
            "fd12::1",
            "fe80::1",
            "ff02::16",
        ] {
            assert!(is_no_internet(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["1.1.1.1", "100.63.0.1", "172.32.0.1", "2001:db8::1", "::2"] {
            assert!(!is_no_internet(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn neighbours_and_multicast_are_outside() {
        let is_tunnel = |ip: &str| is_tunnel(ip.parse().unwrap());

        assert!(
            is_tunnel("100.64.0.1")
                && is_tunnel("100.95.255.255")
                && is_tunnel("fd00:2021:1111::7")
        );
        assert!(
            !is_tunnel("100.96.0.1")
                && !is_tunnel("fd00:2021:1111:8000::1")
                && !is_tunnel("ff02::16")
        );
    }
}

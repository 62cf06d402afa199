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

/// Both ranges of clients and gateways, as routes.
pub(crate) const TUNNEL: [IpNet; 2] = [IpNet::V4(TUNNEL_V4), IpNet::V6(TUNNEL_V6)];

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

#[cfg(test)]
mod tests {
    use super::*;

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

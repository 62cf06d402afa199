//! Where everything is: the places, their addresses and what is between them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// A machine of a rig: a network namespace of its own.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Place {
    Client,
    /// One more client; they are counted from 2.
    More(Number),
    Router,
    Gateway,
    Relay,
    Portal,
    Resource,
}

/// Which of the further clients.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Number {
    Two,
    Three,
    Four,
    Five,
    Six,
    Seven,
    Eight,
}

impl Place {
    /// The places of the demo.
    pub(crate) const DEMO: [Self; 6] = [
        Self::Client,
        Self::Router,
        Self::Gateway,
        Self::Relay,
        Self::Portal,
        Self::Resource,
    ];

    /// All places that a client can be at.
    pub(crate) const CLIENTS: [Self; 8] = [
        Self::Client,
        Self::More(Number::Two),
        Self::More(Number::Three),
        Self::More(Number::Four),
        Self::More(Number::Five),
        Self::More(Number::Six),
        Self::More(Number::Seven),
        Self::More(Number::Eight),
    ];

    /// Whether a cable connects it to the router.
    pub(crate) const fn is_around_the_router(self) -> bool {
        !matches!(self, Self::Router | Self::Resource)
    }

    /// What runs there, as the command line calls it.
    pub(crate) const fn role(self) -> &'static str {
        match self {
            Self::More(_) => Self::Client.name(),
            Self::Client
            | Self::Router
            | Self::Gateway
            | Self::Relay
            | Self::Portal
            | Self::Resource => self.name(),
        }
    }

    /// What people call it; the router's end of its cable is called the same.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::More(Number::Two) => "client-2",
            Self::More(Number::Three) => "client-3",
            Self::More(Number::Four) => "client-4",
            Self::More(Number::Five) => "client-5",
            Self::More(Number::Six) => "client-6",
            Self::More(Number::Seven) => "client-7",
            Self::More(Number::Eight) => "client-8",
            Self::Router => "router",
            Self::Gateway => "gateway",
            Self::Relay => "relay",
            Self::Portal => "portal",
            Self::Resource => "resource",
        }
    }

    /// The network that the place is in, as the rest of the world sees it.
    ///
    /// They are the ones for documentation (RFC 5737, RFC 3849) and for benchmarks (RFC 2544): nobody mistakes them for
    /// somebody's. The resource's is private, so that only the tunnel leads to it.
    pub(crate) const fn subnet(self) -> Subnet {
        match self {
            Self::Client => Subnet::new([192, 0, 2, 0], 0xc),
            Self::More(number) => Subnet::new([198, 18, number as u8, 0], 0xc0 + number as u16),
            Self::Gateway => Subnet::new([198, 51, 100, 0], 0x9),
            Self::Relay => Subnet::new([203, 0, 113, 0], 0x7),
            Self::Portal | Self::Router => Subnet::new([203, 0, 113, 128], 0x3),
            Self::Resource => RESOURCE_NET,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// An IPv4 network of 128 addresses and an IPv6 network of usual size that are the same cable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Subnet {
    v4: [u8; 4],
    v6: u16,
}

impl Subnet {
    const fn new(v4: [u8; 4], v6: u16) -> Self {
        Self { v4, v6 }
    }

    /// The address of the router's end, with the prefixes of the network.
    pub(crate) fn router(self) -> [IpNet; 2] {
        self.with_host(ROUTER_HOST)
    }

    /// The address of the place's own end, with the prefixes of the network.
    pub(crate) fn host(self) -> [IpNet; 2] {
        self.with_host(HOST)
    }

    /// The router's IPv4 address.
    pub(crate) const fn router_v4(self) -> Ipv4Addr {
        let [a, b, c, d] = self.v4;
        Ipv4Addr::new(a, b, c, d + ROUTER_HOST)
    }

    /// The place's own IPv4 address.
    pub(crate) const fn host_v4(self) -> Ipv4Addr {
        let [a, b, c, d] = self.v4;
        Ipv4Addr::new(a, b, c, d + HOST)
    }

    /// The place's own IPv6 address.
    pub(crate) const fn host_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.v6, 0, 0, 0, 0, HOST as u16)
    }

    fn with_host(self, host: u8) -> [IpNet; 2] {
        let [a, b, c, d] = self.v4;
        let v4 = IpAddr::from([a, b, c, d + host]);
        let v6 = IpAddr::from([0x2001, 0xdb8, self.v6, 0, 0, 0, 0, u16::from(host)]);

        [net(v4, 25), net(v6, 64)]
    }
}

/// The number of the router in each network.
const ROUTER_HOST: u8 = 1;

/// The number of the place itself in its network.
const HOST: u8 = 10;

/// The network behind the gateway.
const RESOURCE_NET: Subnet = Subnet::new([10, 20, 0, 0], 0x20);

/// The host behind the gateway that is fetched from.
pub(crate) const RESOURCE: Ipv4Addr = RESOURCE_NET.host_v4();

/// Where its HTTP server listens.
pub(crate) const RESOURCE_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(RESOURCE), 80);

/// Where its name server listens.
pub(crate) const RESOURCE_DNS: SocketAddr = SocketAddr::new(IpAddr::V4(RESOURCE), 53);

/// Where the portal listens.
pub(crate) const PORTAL: SocketAddr =
    SocketAddr::new(IpAddr::V4(Place::Portal.subnet().host_v4()), 443);

/// Everything that is not in a network of its own.
pub(crate) fn everywhere() -> [IpNet; 2] {
    [
        net(Ipv4Addr::UNSPECIFIED.into(), 0),
        net(Ipv6Addr::UNSPECIFIED.into(), 0),
    ]
}

/// A prefix length of this module never is too long for its family.
fn net(address: IpAddr, prefix_len: u8) -> IpNet {
    IpNet::new_assert(address, prefix_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_networks_overlap() {
        let further = Place::CLIENTS.into_iter().skip(1);
        let places = Place::DEMO
            .into_iter()
            .filter(|place| *place != Place::Router)
            .chain(further);
        let nets: Vec<_> = places.flat_map(|place| place.subnet().host()).collect();

        for (i, a) in nets.iter().enumerate() {
            for b in nets.iter().skip(i + 1) {
                assert!(
                    !a.contains(&b.network()) && !b.contains(&a.network()),
                    "{a} {b}"
                );
            }
        }
    }

    #[test]
    fn the_resource_is_where_the_promise_says() {
        assert_eq!(RESOURCE_HTTP.to_string(), "10.20.0.10:80");
        assert_eq!(
            Place::Client.subnet().host_v6().to_string(),
            "2001:db8:c::a"
        );
        assert_eq!(
            Place::Client.subnet().host()[1].to_string(),
            "2001:db8:c::a/64"
        );
    }
}

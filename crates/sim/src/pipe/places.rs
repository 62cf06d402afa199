//! Where the hosts of a pipe are.

use std::net::IpAddr;

/// Whether the two ends can reach each other without the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direct {
    /// They can.
    Open,
    /// They can't.
    Blocked,
}

/// The IP version of the network between the hosts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The hosts of a pipe.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum HostId {
    Client,
    Gateway,
    Relay,
}

impl HostId {
    const ALL: [Self; 3] = [Self::Client, Self::Gateway, Self::Relay];

    /// The host's one address.
    pub(super) fn ip(self, family: Family) -> IpAddr {
        let (v4, v6) = match self {
            Self::Client => ([198, 51, 100, 7], 0x7),
            Self::Gateway => ([192, 0, 2, 33], 0x33),
            Self::Relay => ([203, 0, 113, 9], 0x9),
        };

        match family {
            Family::V4 => IpAddr::from(v4),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, v6]),
        }
    }

    pub(super) fn at(ip: IpAddr, family: Family) -> Option<Self> {
        Self::ALL.into_iter().find(|host| host.ip(family) == ip)
    }
}

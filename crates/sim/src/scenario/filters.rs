//! What may pass to a resource, and what programs send by.

use std::fmt;
use std::str::FromStr;

/// What carries a program's packets. ICMP has no ports.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, for IPv6 as well.
    Icmp,
}

/// What a program uses of the host it talks to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Service {
    /// What carries its packets.
    pub protocol: Protocol,
    /// The port; ICMP has none.
    pub port: u16,
}

/// Something that may pass. A resource without any lets everything pass; one that has some lets pass what is named.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Filter {
    /// What carries it.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl Service {
    pub(crate) const fn udp(port: u16) -> Self {
        Self {
            protocol: Protocol::Udp,
            port,
        }
    }
}

/// Whether filters let a service be used (gateway.md §5).
pub(crate) fn permit(filters: &[Filter], service: Service) -> bool {
    let is_named = |filter: &Filter| {
        let is_in_range = (filter.first..=filter.last).contains(&service.port);
        filter.protocol == service.protocol && (is_in_range || service.protocol == Protocol::Icmp)
    };

    filters.is_empty() || filters.iter().any(is_named)
}

/// Reads `tcp/80`, `udp/53-60`, `tcp`, `udp` or `icmp`.
impl FromStr for Filter {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (protocol, ports) = match text.split_once('/') {
            Some((protocol, ports)) => (protocol, Some(ports)),
            None => (text, None),
        };
        let protocol = match (protocol, ports) {
            ("tcp", _) => Protocol::Tcp,
            ("udp", _) => Protocol::Udp,
            ("icmp", None) => Protocol::Icmp,
            _ => return Err(()),
        };
        let (first, last) = match ports {
            Some(ports) => ports.split_once('-').unwrap_or((ports, ports)),
            None => ("0", "65535"),
        };
        let read = |port: &str| port.parse::<u16>().map_err(|_| ());
        let (first, last) = (read(first)?, read(last)?);

        match first <= last {
            true => Ok(Self {
                protocol,
                first,
                last,
            }),
            false => Err(()),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        };
        match (self.first, self.last) {
            (0, u16::MAX) => f.write_str(protocol),
            (first, last) if first == last => write!(f, "{protocol}/{first}"),
            (first, last) => write!(f, "{protocol}/{first}-{last}"),
        }
    }
}

/// Reads `tcp/80`, `udp/53` or `icmp`.
impl FromStr for Service {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let Filter {
            protocol,
            first,
            last,
        } = text.parse()?;
        let port = match protocol {
            Protocol::Icmp => 0,
            Protocol::Tcp | Protocol::Udp if first == last => first,
            Protocol::Tcp | Protocol::Udp => return Err(()),
        };

        Ok(Self { protocol, port })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "tcp/{}", self.port),
            Protocol::Udp => write!(f, "udp/{}", self.port),
            Protocol::Icmp => f.write_str("icmp"),
        }
    }
}

/// Why a host behind a gateway can't have a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostError {
    /// It is not there.
    Unreachable,
    /// A network on the way is too narrow.
    TooBig,
    /// It is too far away.
    Expired,
}

impl HostError {
    /// Each, and what it is called.
    pub(crate) const NAMED: [(&'static str, Self); 3] = [
        ("unreachable", Self::Unreachable),
        ("too-big", Self::TooBig),
        ("expired", Self::Expired),
    ];
}

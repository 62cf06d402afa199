//! Names: what they mean where, who can be asked for them, and who asks.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::PerMille;

/// What a resource stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// A network.
    Network(IpNet),
    /// Everything that no other resource has.
    Internet,
    /// Names that match a pattern.
    Names {
        /// The pattern.
        pattern: String,
        /// Which addresses they have.
        stack: Stack,
    },
}

/// Which addresses the names of a resource have.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stack {
    /// Both.
    #[default]
    Dual,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Whom a program talks to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// An address.
    Ip(IpAddr),
    /// A name, which it asks for first.
    Name {
        /// The name.
        name: String,
        /// Whether it wants an IPv4 address.
        is_ipv4: bool,
        /// Whether an address that another program has asked for will do.
        is_cached: bool,
    },
}

/// What is said of a name from some time on. One without addresses and texts doesn't exist.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NameEntry {
    /// The name, in lower case.
    pub name: String,
    /// The site whose servers say so; `None` for those of everybody.
    pub site: Option<String>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The length of its TXT record.
    pub text: Option<u16>,
    /// The port and the host of its SRV record.
    pub srv: Option<(u16, String)>,
}

/// Who answers questions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NameServer {
    /// Where it is asked.
    pub at: ServerAt,
    /// The site that it is at: it knows the names there, and is reached from there alone.
    pub site: Option<String>,
    /// How it behaves at first.
    pub manners: Manners,
}

/// Where a name server is asked.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ServerAt {
    /// At port 53 of an address.
    Ip(IpAddr),
    /// At `https://…` or `tls://…`.
    Url(String),
}

/// How a name server behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Manners {
    /// One way.
    pub latency: Duration,
    /// How many datagrams are lost, either way.
    pub loss: PerMille,
    /// For how many seconds its answers may be kept.
    pub ttl: u32,
    /// Somebody else answers first, and wrongly.
    pub lies: bool,
    /// Answers by UDP are cut short.
    pub truncates: bool,
    /// It refuses.
    pub refuses: bool,
    /// It fails.
    pub fails: bool,
    /// It ends connections.
    pub resets: bool,
    /// When it says nothing at all.
    pub silent: Option<(Duration, Duration)>,
}

/// What the portal wants to be asked, and what it says of short names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Upstream {
    /// Servers of plain DNS.
    pub plain: Vec<IpAddr>,
    /// Servers over HTTPS.
    pub https: Vec<String>,
    /// Servers over TLS. The portal's core names none, so that the world adds them to what it says.
    pub tls: Vec<String>,
    /// The domain that short names are completed with.
    pub search: Option<String>,
}

/// What is asked about a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordKind(pub u16);

/// How a question travels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// In a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// A question that is asked once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lookup {
    /// What is asked.
    pub record: RecordKind,
    /// How.
    pub via: Via,
    /// Which of the client's name servers, counted from zero; the last one if there are fewer.
    pub server: usize,
    /// Its number.
    pub number: Option<u16>,
    /// Whether its name has letters of both cases.
    pub is_mixed: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            loss: PerMille(0),
            ttl: 5,
            lies: false,
            truncates: false,
            refuses: false,
            fails: false,
            resets: false,
            silent: None,
        }
    }
}

impl Stack {
    /// Whether there are addresses of a family.
    pub(crate) fn has(self, is_ipv4: bool) -> bool {
        match self {
            Self::Dual => true,
            Self::V4 => is_ipv4,
            Self::V6 => !is_ipv4,
        }
    }
}

impl Target {
    /// Whether its packets are IPv4.
    pub(crate) fn is_ipv4(&self) -> bool {
        match self {
            Self::Ip(ip) => ip.is_ipv4(),
            Self::Name { is_ipv4, .. } => *is_ipv4,
        }
    }

    /// The name, if it is one.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Ip(_) => None,
            Self::Name { name, .. } => Some(name),
        }
    }
}

impl RecordKind {
    pub(crate) const A: Self = Self(1);
    pub(crate) const PTR: Self = Self(12);
    pub(crate) const TXT: Self = Self(16);
    pub(crate) const AAAA: Self = Self(28);
    pub(crate) const SRV: Self = Self(33);
    pub(crate) const SVCB: Self = Self(64);
    pub(crate) const HTTPS: Self = Self(65);
    pub(crate) const ANY: Self = Self(255);

    /// Each that has a name, and the name.
    pub(crate) const NAMED: [(&'static str, Self); 12] = [
        ("A", Self::A),
        ("AAAA", Self::AAAA),
        ("TXT", Self::TXT),
        ("SRV", Self::SRV),
        ("PTR", Self::PTR),
        ("HTTPS", Self::HTTPS),
        ("SVCB", Self::SVCB),
        ("ANY", Self::ANY),
        ("NS", Self(2)),
        ("CNAME", Self(5)),
        ("SOA", Self(6)),
        ("MX", Self(15)),
    ];
}

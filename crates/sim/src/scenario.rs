//! A world before it runs, as a value: who is there, what happens when, and what is expected.
//!
//! Three front ends make one: [`Scenario::from_seed`], [`Scenario::from_bytes`] (for a fuzzer) and [`Scenario::parse`]. All of
//! them give the same kind of value, and its [`Display`](std::fmt::Display) is the text that the last one reads.

mod draw;
mod draw_access;
mod draw_events;
mod draw_faults;
mod draw_names;
mod events;
mod filters;
mod lines;
mod names;
mod parse;
mod parse_events;
mod parse_hosts;
mod parse_names;
mod print;
mod print_events;
mod print_names;
mod quantity;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

pub use draw::Choices;
pub use events::{Attack, Event, Expectation, Flow, FlowKind, Forgery, Gone, PathWanted, Said};
pub(crate) use filters::permit;
pub use filters::{Filter, HostError, Protocol, Service};
pub use names::{
    Address, Lookup, Manners, NameEntry, NameServer, RecordKind, ServerAt, Stack, Target, Upstream,
    Via,
};
pub use parse::ParseError;

use crate::faults::Faults;

/// A world before it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What it is about.
    pub name: String,
    /// What all chance in it follows from.
    pub seed: u64,
    /// When the loops are called.
    pub drive: Drive,
    /// How long it lasts.
    pub lasts: Duration,
    /// The control channel.
    pub portal: PortalLink,
    /// What stands between networks.
    pub edges: Vec<Edge>,
    /// Who is there.
    pub hosts: Vec<Host>,
    /// What can be reached.
    pub resources: Vec<Resource>,
    /// What is said of names at first.
    pub names: Vec<NameEntry>,
    /// Who says so.
    pub servers: Vec<NameServer>,
    /// Hosts behind gateways that answer requests by an ICMP error.
    pub error_hosts: Vec<(IpAddr, HostError)>,
    /// Whom the systems of hosts ask at first.
    pub resolvers: Vec<(usize, Vec<IpAddr>)>,
    /// Whom the portal wants to be asked at first.
    pub upstream: Upstream,
    /// What happens, and when.
    pub events: Vec<(Duration, Event)>,
    /// What must come true, besides what must in any world.
    pub expect: Vec<Expectation>,
}

/// When the loops are called.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Drive {
    /// Exactly when they asked for it.
    #[default]
    Exact,
    /// Then, and every millisecond.
    EveryMilli,
    /// Up to 100 ms later than they asked for it.
    Late,
}

/// What the channel between any host and the portal is like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortalLink {
    /// One way.
    pub latency: Duration,
    /// Added by chance, up to this.
    pub jitter: Duration,
    /// How many messages to hosts arrive twice.
    pub duplicates: PerMille,
    /// How many messages to hosts are overtaken by later ones.
    pub reorders: PerMille,
}

/// So many of a thousand.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct PerMille(pub u16);

/// Something between two networks. What has no number of its own is seen through.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edge {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: EdgeKind,
    /// The edge it is behind itself.
    pub behind: Option<usize>,
}

/// What an edge does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EdgeKind {
    /// Translates IPv4 addresses (RFC 4787), and lets IPv6 pass.
    Nat(Nat),
    /// Lets answers in.
    Firewall {
        /// How long it waits for them.
        expiry: Duration,
    },
    /// Lets UDP out to one port, and answers from there in.
    OnlyPort(u16),
    /// Lets no UDP pass.
    Blocked,
}

/// A translator of IPv4 addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nat {
    /// Its address on the outside.
    pub ip4: Ipv4Addr,
    /// What a mapping depends on besides the inner address.
    pub mapping: Dependence,
    /// What of a sender must be known for its datagram to get in.
    pub filtering: Dependence,
    /// How long a mapping lasts that nobody sends through.
    pub expiry: Duration,
    /// Whether the outer port is the inner one where it is free.
    pub keeps_ports: bool,
    /// Whether those behind it reach each other by its outer address.
    pub hairpin: bool,
}

/// What of the other end's address a NAT looks at (RFC 4787 §4.1, §5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dependence {
    /// Nothing.
    Endpoint,
    /// The address.
    Address,
    /// The address and the port.
    AddressAndPort,
}

/// A machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What runs on it.
    pub role: Role,
    /// Where it is.
    pub place: Place,
    /// What joins it to its network.
    pub link: Link,
    /// What goes wrong in its devices.
    pub faults: Faults,
}

/// Where a machine is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Its address.
    pub ip4: Option<Ipv4Addr>,
    /// Its address.
    pub ip6: Option<Ipv6Addr>,
    /// The edge it is behind.
    pub behind: Option<usize>,
}

/// What runs on a machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Role {
    /// A client.
    Client {
        /// When its token ends.
        token_ends_at: Option<Duration>,
    },
    /// A gateway.
    Gateway {
        /// The site it serves.
        site: String,
    },
    /// A relay.
    Relay,
}

/// What joins a machine to its network, the same in both directions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// One way.
    pub latency: Duration,
    /// Added by chance, up to this. It never changes the order.
    pub jitter: Duration,
    /// How many datagrams are lost.
    pub loss: PerMille,
    /// How many arrive twice.
    pub duplicates: PerMille,
    /// How many are overtaken by later ones.
    pub reorders: PerMille,
    /// How many have a bit turned over.
    pub corrupts: PerMille,
    /// The largest IP packet; larger ones are lost.
    pub mtu: u16,
    /// Bits per second.
    pub rate: Option<u64>,
    /// How long a datagram waits for the rate at most; what would wait longer is lost.
    pub queue: Duration,
}

/// Something that clients reach behind gateways.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub address: Address,
    /// What may pass; everything if nothing is named.
    pub filters: Vec<Filter>,
    /// The site whose gateways lead to it.
    pub site: String,
    /// The clients that may reach it at first, by number.
    pub clients: Vec<usize>,
}

impl Default for PortalLink {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            duplicates: PerMille(0),
            reorders: PerMille(0),
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: PerMille(0),
            duplicates: PerMille(0),
            reorders: PerMille(0),
            corrupts: PerMille(0),
            mtu: 1_500,
            rate: None,
            queue: Duration::from_millis(200),
        }
    }
}

impl Place {
    /// Its address of one family.
    pub(crate) fn ip(&self, is_ipv4: bool) -> Option<IpAddr> {
        match is_ipv4 {
            true => self.ip4.map(IpAddr::V4),
            false => self.ip6.map(IpAddr::V6),
        }
    }
}

impl Link {
    /// Whether a datagram can get lost on it.
    pub(crate) fn loses(&self) -> bool {
        self.loss > PerMille(0) || self.corrupts > PerMille(0) || self.rate.is_some()
    }

    /// Whether what is sent later can arrive earlier. A second copy is late, and may be the only one that is left.
    pub(crate) fn reorders(&self) -> bool {
        self.reorders > PerMille(0) || self.duplicates > PerMille(0)
    }
}

impl Scenario {
    /// Draws a world. The same seed gives the same one as long as the generator is the same; its text gives it for ever.
    pub fn from_seed(seed: u64) -> Self {
        draw::scenario(seed, &mut Choices::from_seed(seed))
    }

    /// Makes a world of any bytes, which take the place of chance.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        draw::scenario(0, &mut Choices::from_bytes(bytes))
    }

    /// When the token of a client ends, if it does.
    pub(crate) fn token_ends_at(&self, host: usize) -> Option<Duration> {
        match self.hosts.get(host)?.role {
            Role::Client { token_ends_at } => token_ends_at,
            Role::Gateway { .. } | Role::Relay => None,
        }
    }

    /// Whether a datagram can get lost without anybody being to blame: on a link, or in a device.
    pub(crate) fn loses(&self) -> bool {
        let on_links = self
            .hosts
            .iter()
            .any(|host| host.link.loses() || host.faults.lose());
        let later = self
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::Link { link, .. } if link.loses()));

        on_links || later
    }

    /// Whether datagrams of one sender can overtake each other without anybody being to blame.
    pub(crate) fn reorders(&self) -> bool {
        let at_first = self.hosts.iter().any(|host| host.link.reorders());
        let later = self
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::Link { .. }));

        at_first || later
    }

    /// By which error a host behind a gateway answers requests.
    pub(crate) fn error_of(&self, ip: IpAddr) -> Option<HostError> {
        let mut hosts = self.error_hosts.iter();

        hosts.find(|(host, _)| *host == ip).map(|(_, error)| *error)
    }

    /// How many clients there are.
    pub(crate) fn clients(&self) -> usize {
        let roles = self.hosts.iter().map(|host| &host.role);

        roles
            .filter(|role| matches!(role, Role::Client { .. }))
            .count()
    }

    /// The largest one-way delay between two hosts.
    pub(crate) fn longest_way(&self) -> Duration {
        let mut ways: Vec<Duration> = self
            .hosts
            .iter()
            .map(|host| host.link.latency + host.link.jitter)
            .collect();
        ways.sort_unstable();

        ways.iter().rev().take(2).sum()
    }
}

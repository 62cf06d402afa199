//! Which resource a client's packet belongs to, written from the specification (client.md §5.2, §5.3).

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use connlib_wire::id::ResourceId;
use connlib_wire::portal::resource::{self, Resource};
use ipnet::IpNet;

use super::Names;
use super::names::{LAG, during};
use super::pattern;
use super::view::{View, stands_for_a_name};
use crate::apps::Running;
use crate::scenario::{Filter, Protocol, ServerAt, Service, permit};

/// What is not reached as the Internet (gateway.md §5).
static NO_INTERNET: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    networks(&[
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "::ffff:0:0/96",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    ])
});

/// Clients' and gateways' own addresses (client.md §1).
static TUNNEL: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| networks(&["100.64.0.0/11", "fd00:2021:1111::/107"]));

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|it| it.parse().ok()).collect()
}

/// How long a question may go on that was begun (client.md §4.5).
const ASKED_WITHIN: Duration = Duration::from_secs(6);

/// What becomes of a packet at its client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// It belongs to a resource, whose filters let it pass.
    To(ResourceId),
    /// No resource that it could belong to lets it pass.
    Prohibited,
    /// It can't be reached, whoever is asked.
    Unreachable,
    /// It is for nobody, and nobody is told.
    Nowhere,
}

/// What a client knows that decides about its packets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) resources: Vec<Resource>,
    /// Whether a person wants it to use the Internet resource.
    pub(super) wants_internet: bool,
    /// Whether it has addresses: before that, packets are nobody's.
    pub(super) has_interface: bool,
}

/// Whether an address is one that the Internet resource leads to.
pub(crate) fn is_internet(ip: IpAddr) -> bool {
    !is_in(&NO_INTERNET, ip) && !is_in(&TUNNEL, ip)
}

fn is_in(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

impl Known {
    /// Whether all addresses that nobody else has lead into the tunnel.
    pub(super) fn has_internet(&self) -> bool {
        let mut resources = self.resources.iter();

        self.wants_internet && resources.any(|it| matches!(it, Resource::Internet(_)))
    }

    /// What becomes of a packet to an address, or to a name that one stands for.
    fn way(&self, (ip, name): (IpAddr, Option<&str>), service: Service) -> Way {
        match name {
            Some(_) | None if !self.has_interface => Way::Nowhere,
            Some(name) => self.way_to_name(name, service),
            None if stands_for_a_name(ip) => Way::Unreachable,
            None => self.way_to_address(ip, service),
        }
    }

    /// A smaller network counts less than a filter that lets the packet pass, and the id least.
    fn way_to_address(&self, ip: IpAddr, service: Service) -> Way {
        if ip.is_multicast() || is_in(&TUNNEL, ip) {
            return Way::Nowhere;
        }
        let covering = self.resources.iter().filter_map(|resource| match resource {
            Resource::Cidr(it) if it.address.contains(&ip) => {
                let passes = permit(&filters(&it.filters), service);
                Some((passes, it.address.prefix_len(), it.id))
            }
            Resource::Cidr(_) | Resource::Dns(_) | Resource::Internet(_) | _ => None,
        });
        let internet = self.resources.iter().find_map(|resource| match resource {
            Resource::Internet(it) => Some(it.id).filter(|_| self.wants_internet),
            Resource::Cidr(_) | Resource::Dns(_) | _ => None,
        });

        match (covering.max(), internet) {
            (Some((true, _, id)), _) => Way::To(id),
            (Some((false, ..)), _) => Way::Prohibited,
            (None, Some(id)) if is_internet(ip) => Way::To(id),
            (None, Some(_)) => Way::Unreachable,
            (None, None) => Way::Nowhere,
        }
    }

    /// The more specific pattern counts less than a filter that lets the packet pass, and the id least.
    fn way_to_name(&self, name: &str, service: Service) -> Way {
        let named = self.resources.iter().filter_map(|resource| match resource {
            Resource::Dns(it) if pattern::matches(&it.address, name) => Some(it),
            Resource::Dns(_) | Resource::Cidr(_) | Resource::Internet(_) | _ => None,
        });
        let mut named: Vec<_> = named.collect();
        named.sort_by(|one, other| {
            let order = pattern::compare(&one.address, &other.address);
            order.then(Reverse(one.id).cmp(&Reverse(other.id)))
        });
        if named.is_empty() {
            return Way::Unreachable;
        }
        let first = (named.iter()).find(|it| permit(&filters(&it.filters), service));

        first.map_or(Way::Prohibited, |it| Way::To(it.id))
    }
}

/// What may pass, in our words.
fn filters(filters: &[resource::Filter]) -> Vec<Filter> {
    let filters = filters.iter().map(|filter| {
        let (protocol, first, last) = match filter {
            resource::Filter::Icmp => (Protocol::Icmp, 0, u16::MAX),
            resource::Filter::Tcp(ports) => {
                (Protocol::Tcp, ports.port_range_start, ports.port_range_end)
            }
            resource::Filter::Udp(ports) => {
                (Protocol::Udp, ports.port_range_start, ports.port_range_end)
            }
            // It lets nothing pass, and no world has one.
            resource::Filter::Unknown | _ => (Protocol::Tcp, 1, 0),
        };
        Filter {
            protocol,
            first,
            last,
        }
    });

    filters.collect()
}

impl View {
    /// Notes what the client knows from here on.
    pub(super) fn know(&mut self, now: Instant) {
        let known = Known {
            resources: self.resources.values().cloned().collect(),
            wants_internet: self.wants_internet,
            has_interface: self.interface.is_some(),
        };
        if self.known.last().is_none_or(|(_, last)| *last != known) {
            self.known.push((now, known));
        }
    }
}

impl Names {
    /// What may become of packets of a flow that its client routes in a span, each once.
    pub(crate) fn ways(&self, running: &Running, (from, until): (Instant, Instant)) -> Vec<Way> {
        let (Some(view), Some(ip)) = (self.view(running.flow.host), running.to) else {
            return Vec::new();
        };
        let from = from.checked_sub(LAG).unwrap_or(from);
        let mut ways = Vec::new();
        for known in during(&view.known, from, until) {
            let way = known.way((ip, running.name()), running.flow.service);
            if !ways.contains(&way) {
                ways.push(way);
            }
        }

        ways
    }

    /// Whether a request may be at a site: its client knew of a resource there that it belongs to, when it was sent or since.
    pub(crate) fn may_be_at(
        &self,
        running: &Running,
        span: (Instant, Instant),
        site: &str,
    ) -> Result<(), String> {
        let ways = self.ways(running, span);
        let view = self.view(running.flow.host);
        let is_there = |way: &Way| match (way, view) {
            (Way::To(id), Some(view)) => (view.sites_of(*id, span)).any(|known| known == site),
            (Way::To(_) | Way::Prohibited | Way::Unreachable | Way::Nowhere, _) => false,
        };

        match ways.iter().any(is_there) {
            true => Ok(()),
            false => Err(format!(
                "`{}` came out at {site}, and is {ways:?}",
                running.flow.name
            )),
        }
    }

    /// Whether a client may ask a name server outside of the tunnel: not one of the portal's that a resource leads to
    /// (client.md §4.6).
    pub(crate) fn may_be_asked_outside(
        &self,
        now: Instant,
        host: usize,
        server: SocketAddr,
    ) -> Result<(), String> {
        let Some(view) = self.view(host).filter(|it| it.is_configured(server.ip())) else {
            return Ok(());
        };
        // One that was begun otherwise goes on as it was begun.
        let since = now.checked_sub(ASKED_WITHIN).unwrap_or(now);
        let leads_there = |known: &Known| {
            [Protocol::Udp, Protocol::Tcp].into_iter().all(|protocol| {
                let port = server.port();
                let way = known.way((server.ip(), None), Service { protocol, port });
                matches!(way, Way::To(_))
            })
        };
        let is_old = view.servers.last().is_some_and(|(at, _)| *at <= since);

        match is_old && during(&view.known, since, now).all(leads_there) {
            true => Err(format!(
                "{server} is asked outside, and a resource leads to it"
            )),
            false => Ok(()),
        }
    }

    /// Whether a person wants a client to use it.
    pub(crate) fn is_internet_wanted(&self, host: usize) -> bool {
        self.view(host).is_some_and(|view| view.wants_internet)
    }

    /// A person wants a client to use the Internet resource, or no longer.
    pub(crate) fn wants_internet(&mut self, now: Instant, host: usize, is_wanted: bool) {
        let view = self.view_mut(host);
        view.wants_internet = is_wanted;
        // A client that knows of none yet says so.
        view.list(now);
        self.update(now, host);
    }
}

impl View {
    /// Whether questions for a server pass through the Internet resource at any time of a span if the portal names it
    /// (client.md §4.6).
    pub(super) fn may_pass_internet(
        &self,
        at: &ServerAt,
        (from, until): (Instant, Instant),
    ) -> bool {
        let ServerAt::Ip(ip) = at else {
            return false;
        };
        let mut known = during(&self.known, from, until);

        is_internet(*ip) && known.any(Known::has_internet)
    }

    /// Where a resource was, as the client knew in a span.
    fn sites_of(
        &self,
        id: ResourceId,
        (from, until): (Instant, Instant),
    ) -> impl Iterator<Item = &str> {
        let from = from.checked_sub(LAG).unwrap_or(from);
        let known = during(&self.known, from, until).flat_map(|known| &known.resources);

        known
            .filter(move |resource| resource.id() == id)
            .flat_map(Resource::sites)
            .map(|site| site.name.as_str())
    }
}

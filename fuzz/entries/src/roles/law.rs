//! What may pass, judged by the rules alone: a list of what was granted, and a look through all of it for each packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use connlib_wire::id::{ClientId, GatewayId, ResourceId};
use connlib_wire::portal::resource::{Filter, GatewayResource, PortRange, Resource};
use ipnet::IpNet;

use super::strict::{self, ICMP, ICMPV6, Seen, TCP, UDP};

/// What was told to both roles.
#[derive(Default)]
pub(super) struct Law {
    /// What the gateway may let pass, and until when.
    pub(super) grants: BTreeMap<(ClientId, ResourceId), (GatewayResource, Option<Instant>)>,
    /// The tunnel addresses of each client.
    pub(super) clients: BTreeMap<ClientId, [IpAddr; 2]>,
    /// What names were ever said to have at the site.
    pub(super) real: BTreeSet<(&'static str, IpAddr)>,
    /// What the client knows.
    pub(super) resources: BTreeMap<ResourceId, Resource>,
    /// All that it ever knew.
    pub(super) ever: Vec<Resource>,
    /// Through whom it was let in.
    pub(super) served: BTreeSet<(ResourceId, GatewayId)>,
    /// What its own addresses for names stand for.
    pub(super) names: BTreeMap<IpAddr, String>,
}

/// What is to be reached: an address, the protocol, and the port there.
type Target = (IpAddr, u8, Option<u16>);

impl Law {
    /// Whether the gateway may pass a client's packet on.
    pub(super) fn may_leave(
        &self,
        now: Instant,
        client: ClientId,
        bytes: &[u8],
        seen: &Seen,
    ) -> Result<(), &'static str> {
        if !self.clients[&client].contains(&seen.source) {
            return Err("its source is not the client");
        }
        let to = seen.destination;
        if is_own(to, [super::GATEWAY_V4, super::GATEWAY_V6]) {
            return Ok(());
        }
        // Whatever a site's servers say of names.
        if to.is_multicast() || in_tunnel(to) || in_proxies(to) {
            return Err("it is for the tunnel's own addresses, or for many");
        }
        let port = seen.ports.map(|(_, port)| port);
        let target = match strict::is_error(seen) {
            false => (to, seen.protocol, port),
            true => {
                let quoted = strict::quoted(bytes, seen).ok_or("it quotes nothing")?;
                if quoted.source != to || !self.clients[&client].contains(&quoted.destination) {
                    return Err("it is about another's packet");
                }
                (to, quoted.protocol, quoted.ports.map(|(port, _)| port))
            }
        };
        let is_part = seen.is_later_part;

        match self.reach(now, client, target, is_part) {
            true => Ok(()),
            false => Err("no grant lets it pass"),
        }
    }

    /// Whether the gateway may send a packet to a client.
    pub(super) fn may_arrive(
        &self,
        now: Instant,
        client: ClientId,
        seen: &Seen,
    ) -> Result<(), &'static str> {
        // Errors come from anywhere, and those for a foreign source go to that source.
        if strict::is_error(seen) || is_control(seen) {
            return Ok(());
        }
        if !self.clients[&client].contains(&seen.destination) {
            return Err("it is for another");
        }
        let from = seen.source;
        if is_own(from, [super::GATEWAY_V4, super::GATEWAY_V6]) {
            return Ok(());
        }
        let port = seen.ports.map(|(port, _)| port);
        let permits = |resource: &GatewayResource| {
            permits(
                filters_at(resource),
                seen.protocol,
                port,
                seen.is_later_part,
            )
        };
        let is_name = |resource: &GatewayResource| matches!(resource, GatewayResource::Dns { .. });
        let is_allowed = match in_proxies(from) {
            true => self
                .in_force(now, client)
                .any(|resource| is_name(resource) && permits(resource)),
            false => {
                !in_tunnel(from)
                    && self.reach(now, client, (from, seen.protocol, port), seen.is_later_part)
            }
        };

        if is_allowed {
            Ok(())
        } else {
            Err("no grant lets it pass")
        }
    }

    /// Whether the client may give a gateway's packet to its programs.
    pub(super) fn may_enter(&self, gateway: GatewayId, seen: &Seen) -> Result<(), &'static str> {
        if !is_own(seen.destination, [super::CLIENT_V4, super::CLIENT_V6]) {
            return Err("it is for another");
        }
        let from = seen.source;
        let mut served = self
            .served
            .iter()
            .filter(|(_, by)| *by == gateway)
            .map(|(resource, _)| resource);
        let is_at = super::addresses_of(gateway).contains(&from);
        let is_allowed = served.any(|id| {
            is_at
                || self
                    .resources
                    .get(id)
                    .is_some_and(|resource| self.has(resource, from))
        });

        if is_allowed {
            Ok(())
        } else {
            Err("it is from nothing that this gateway serves")
        }
    }

    /// Whether the client itself may say something to its programs.
    pub(super) fn may_say(&self, bytes: &[u8], seen: &Seen) -> Result<(), &'static str> {
        if !is_own(seen.destination, [super::CLIENT_V4, super::CLIENT_V6]) {
            return Err("it is for another");
        }
        let is_answer = in_proxies(seen.source) && seen.ports.is_some_and(|(port, _)| port == 53);
        let about_own = strict::quoted(bytes, seen).is_some_and(|quoted| {
            quoted.source == seen.destination && quoted.destination == seen.source
        });
        let gateways = [super::GATEWAY, super::ROGUE_GATEWAY];
        let is_passed_on = gateways
            .iter()
            .any(|gateway| self.may_enter(*gateway, seen).is_ok());

        match is_answer || about_own || is_passed_on {
            true => Ok(()),
            false => Err("it is neither an answer nor about a packet of a program"),
        }
    }

    /// Whether the client may send a packet to a gateway.
    pub(super) fn may_ask(&self, gateway: GatewayId, seen: &Seen) -> Result<(), &'static str> {
        if is_control(seen) {
            return Ok(());
        }
        if !is_own(seen.source, [super::CLIENT_V4, super::CLIENT_V6]) {
            return Err("its source is not the client");
        }
        let to = seen.destination;
        let is_known = super::addresses_of(gateway).contains(&to)
            || self.ever.iter().any(|resource| self.has(resource, to));

        if is_known {
            Ok(())
        } else {
            Err("it is for no resource")
        }
    }

    /// The resource changed at the gateway: of the same kind, its filters are others.
    pub(super) fn update_filters(&mut self, updated: &GatewayResource) {
        for ((_, id), (resource, _)) in &mut self.grants {
            if *id != updated.id() {
                continue;
            }
            if let (
                GatewayResource::Cidr { filters, .. },
                GatewayResource::Cidr { filters: new, .. },
            )
            | (
                GatewayResource::Dns { filters, .. },
                GatewayResource::Dns { filters: new, .. },
            ) = (resource, updated)
            {
                filters.clone_from(new);
            }
        }
    }

    fn in_force(&self, now: Instant, client: ClientId) -> impl Iterator<Item = &GatewayResource> {
        let grants = self.grants.iter();

        grants
            .filter(move |((holder, _), (_, until))| {
                *holder == client && until.is_none_or(|until| until > now)
            })
            .map(|(_, (resource, _))| resource)
    }

    fn reach(
        &self,
        now: Instant,
        client: ClientId,
        (ip, protocol, port): Target,
        is_later_part: bool,
    ) -> bool {
        self.in_force(now, client).any(|resource| {
            let covers = match resource {
                GatewayResource::Cidr { address, .. } => contains(address, ip),
                GatewayResource::Dns { address, .. } => self
                    .real
                    .iter()
                    .any(|(name, at)| *at == ip && matches(address, name)),
                GatewayResource::Internet { .. } => !is_private(ip),
                _ => false,
            };
            covers && permits(filters_at(resource), protocol, port, is_later_part)
        })
    }

    /// Whether an address is a resource's to the client.
    fn has(&self, resource: &Resource, ip: IpAddr) -> bool {
        match resource {
            Resource::Cidr(resource) => contains(&resource.address, ip) && !in_proxies(ip),
            Resource::Dns(resource) => self
                .names
                .get(&ip)
                .is_some_and(|name| matches(&resource.address, name)),
            Resource::Internet(_) => !in_tunnel(ip) && !in_proxies(ip),
            _ => false,
        }
    }
}

/// The names that the tests know by the patterns that they know.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern {
        "*.corp.test" => ["wiki.corp.test", "db.corp.test", "corp.test"].contains(&name),
        "**.test" => true,
        pattern => pattern == name,
    }
}

fn permits(filters: &[Filter], protocol: u8, port: Option<u16>, is_later_part: bool) -> bool {
    let holds = |range: &PortRange| {
        is_later_part
            || port
                .is_some_and(|port| range.port_range_start <= port && port <= range.port_range_end)
    };

    filters.is_empty()
        || filters.iter().any(|filter| match filter {
            Filter::Icmp => matches!(protocol, ICMP | ICMPV6),
            Filter::Tcp(range) => protocol == TCP && holds(range),
            Filter::Udp(range) => protocol == UDP && holds(range),
            _ => false,
        })
}

fn filters_at(resource: &GatewayResource) -> &[Filter] {
    match resource {
        GatewayResource::Cidr { filters, .. } | GatewayResource::Dns { filters, .. } => filters,
        _ => &[],
    }
}

fn is_control(seen: &Seen) -> bool {
    seen.protocol == 255 && seen.source.is_unspecified() && seen.destination.is_unspecified()
}

fn is_own(ip: IpAddr, own: [&str; 2]) -> bool {
    own.iter().any(|text| ip.to_string() == *text)
}

/// Whether the first bits of an address are the network's.
fn contains(network: &IpNet, ip: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (32_u32, u128::from(ip.to_bits())),
        IpAddr::V6(ip) => (128, ip.to_bits()),
    };
    let ((width, ip), (other_width, first)) = (bits(ip), bits(network.addr()));
    let rest = width.saturating_sub(u32::from(network.prefix_len()));

    width == other_width && (rest == 128 || ip >> rest == first >> rest)
}

fn is_within(ip: IpAddr, networks: &[&str]) -> bool {
    networks
        .iter()
        .any(|network| contains(&network.parse().unwrap(), ip))
}

pub(super) fn in_tunnel(ip: IpAddr) -> bool {
    is_within(ip, &["100.64.0.0/11", "fd00:2021:1111::/107"])
}

pub(super) fn in_proxies(ip: IpAddr) -> bool {
    is_within(ip, &["100.96.0.0/11", "fd00:2021:1111:8000::/107"])
}

/// Whether an address is none of the Internet's.
fn is_private(ip: IpAddr) -> bool {
    is_within(
        ip,
        &[
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
        ],
    )
}

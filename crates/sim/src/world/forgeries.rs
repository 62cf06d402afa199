//! Clients that were let in, and send what they must not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connlib_tunnel::PeerId;
use connlib_wire::buffer::Pool;
use connlib_wire::control::{AssignedIps, Control};
use connlib_wire::id::{GatewayId, ResourceId};
use connlib_wire::ip::Packet;
use rand::{Rng as _, RngExt as _};
use uuid::Uuid;

use super::World;
use super::host::Role;
use crate::apps::{error_about, forged_packet, forger_of, ip_packet, service_of};
use crate::oracle::{Arriving, Destination};
use crate::scenario::{Address, Forgery, HostError, Service};

/// Addresses behind any gateway that nobody was let in to, and some of the Internet.
const BEHIND: [&str; 8] = [
    "192.168.7.9",
    "172.16.3.3",
    "10.99.0.9",
    "169.254.1.1",
    "198.51.100.99",
    "127.0.0.1",
    "2001:db8:99::9",
    "fd12::9",
];

/// Whose packets these could be, were they not the client's.
const SOURCES: [&str; 5] = [
    "192.168.1.9",
    "10.20.0.10",
    "203.0.113.250",
    "100.70.1.1",
    "2001:db8:a::10",
];

/// What is for many, or for nobody.
const NOBODY: [&str; 6] = [
    "224.0.0.251",
    "255.255.255.255",
    "0.0.0.0",
    "ff02::1",
    "::",
    "::1",
];

/// What programs use that filters are there for.
const SERVICES: [&str; 6] = ["tcp/80", "tcp/22", "udp/7", "udp/5000", "icmp", "udp/9"];

/// The first of the addresses that stand for a name that nobody has: no world has so many names.
const UNUSED_V4: Ipv4Addr = Ipv4Addr::new(100, 97, 77, 0);

impl World {
    /// A client sends what it must not, to gateways that it has a link to.
    pub(super) fn forge(&mut self, host: usize, forgery: Forgery, count: u32) {
        let peers = self.peers_of(host);
        if peers.is_empty() {
            return;
        }
        for _ in 0..count {
            let packet = match forgery {
                Forgery::Filtered if self.rng.random_bool(0.3) => self.at_filtered_name(host),
                Forgery::Filtered => self.at_own_resource(host, None),
                Forgery::Foreign => self.foreign(host),
                Forgery::Ungranted => self.ungranted(host),
                Forgery::Neighbour => self.at_neighbour(host),
                Forgery::StrayError => self.stray_error(host),
                Forgery::Name => self.name_of_others(host),
                Forgery::Garbage => self.garbage_within(host),
            };
            let peer = peers.get(self.rng.random_range(0..peers.len())).copied();
            let (Some(packet), Some(peer)) = (packet, peer) else {
                continue;
            };
            if let Some(entry) = self.hosts.get_mut(host)
                && let Role::Client(node) = &mut entry.role
            {
                entry.forged.add(packet.clone(), peer);
                node.send_packet(packet);
                self.watch.forged += 1;
            }
        }
    }

    /// The gateways that a client has a link to.
    fn peers_of(&self, host: usize) -> Vec<PeerId> {
        let entry = self.hosts.get(host).filter(|it| it.is_awake(self.now));
        let status = entry.and_then(|entry| entry.status(self.now));
        let peers = status.map(|status| status.peers).unwrap_or_default();
        let up = peers.iter().filter(|it| it.handshake_age_ms.is_some());

        up.filter_map(|it| it.id.parse::<Uuid>().ok())
            .map(|id| PeerId::from(GatewayId(id)))
            .collect()
    }

    fn own(&self, host: usize, is_ipv4: bool) -> Option<IpAddr> {
        self.hosts.get(host)?.address(is_ipv4)
    }

    fn one_of(&mut self, texts: &[&str]) -> Option<IpAddr> {
        texts
            .get(self.rng.random_range(0..texts.len()))?
            .parse()
            .ok()
    }

    fn service(&mut self) -> Service {
        let text = SERVICES.get(self.rng.random_range(0..SERVICES.len()));

        text.and_then(|it| it.parse().ok())
            .unwrap_or(Service::udp(7))
    }

    fn packet(&mut self, host: usize, from: IpAddr, to: IpAddr) -> Option<Vec<u8>> {
        let (service, number) = (self.service(), self.rng.random());

        forged_packet(host, (from, to), service, number)
    }

    /// A host of a network that is a resource, the client's or not.
    fn host_of_resource(&mut self, of: Option<usize>) -> Option<IpAddr> {
        let now = self.now;
        let numbers = 0..self.scenario.resources.len();
        let networks = numbers
            .filter(|it| of.is_none_or(|client| self.access.state(now, client, *it).0))
            .filter_map(|it| match &self.access.version(now, it)?.address {
                Address::Network(network) => Some(*network),
                Address::Names { .. } | Address::Internet => None,
            });
        let networks: Vec<_> = networks.collect();
        if networks.is_empty() {
            return None;
        }
        let network = networks.get(self.rng.random_range(0..networks.len()))?;
        let hosts = self.rng.random_range(1..9);

        network
            .hosts()
            .nth(hosts)
            .or_else(|| network.hosts().next())
    }

    /// To a resource of the client's own, by whatever it may be used by or not.
    fn at_own_resource(&mut self, host: usize, from: Option<IpAddr>) -> Option<Vec<u8>> {
        let to = self.host_of_resource(Some(host))?;
        let from = from.or_else(|| self.own(host, to.is_ipv4()))?;

        self.packet(host, from, to)
    }

    /// In the name of somebody else.
    fn foreign(&mut self, host: usize) -> Option<Vec<u8>> {
        let is_other = self.rng.random_bool(0.5);
        let from = match is_other {
            true => self.address_of_another(host),
            false => self.one_of(&SOURCES),
        };

        self.at_own_resource(host, from)
    }

    fn ungranted(&mut self, host: usize) -> Option<Vec<u8>> {
        let to = match self.rng.random_bool(0.5) {
            true => self.host_of_resource(None),
            false => self.one_of(&BEHIND),
        };
        let to = to?;

        self.packet(host, self.own(host, to.is_ipv4())?, to)
    }

    /// The address within the tunnel of anybody else, or of nobody.
    fn address_of_another(&mut self, host: usize) -> Option<IpAddr> {
        let is_ipv4 = self.rng.random_bool(0.5);
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        let addresses = others.filter_map(|other| self.hosts.get(other)?.address(is_ipv4));
        let mut addresses: Vec<IpAddr> = addresses.collect();
        addresses.push(match is_ipv4 {
            true => Ipv4Addr::new(100, 70, 1, 1).into(),
            false => Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0x7777).into(),
        });

        addresses
            .get(self.rng.random_range(0..addresses.len()))
            .copied()
    }

    /// To another client, or another gateway, around whatever decides who may talk to whom.
    fn at_neighbour(&mut self, host: usize) -> Option<Vec<u8>> {
        let to = self.address_of_another(host)?;
        let is_gateway = (0..self.hosts.len()).any(|other| {
            let entry = self.hosts.get(other);
            let is_it = entry.and_then(|it| it.address(to.is_ipv4())) == Some(to);
            is_it && entry.is_some_and(|it| matches!(it.role, Role::Gateway(_)))
        });
        if is_gateway {
            // A gateway itself may be asked anything.
            return None;
        }

        self.packet(host, self.own(host, to.is_ipv4())?, to)
    }

    /// An ICMP error about a packet that the client never got.
    fn stray_error(&mut self, host: usize) -> Option<Vec<u8>> {
        let to = match self.rng.random_bool(0.7) {
            true => self.host_of_resource(None),
            false => self.address_of_another(host),
        };
        let to = to?;
        let own = self.own(host, to.is_ipv4())?;
        // One of somebody else's, or one that it sent itself.
        let (from, about) = match self.rng.random_bool(0.5) {
            true => (
                to,
                self.address_of_another(host)
                    .filter(|it| it.is_ipv4() == to.is_ipv4())?,
            ),
            false => (own, to),
        };
        let quoted = self.packet(host, from, about)?;

        error_about((own, to), HostError::Unreachable, &quoted)
    }

    /// A name that is none of the client's, at addresses that nobody gave to one; or a packet to one of these.
    fn name_of_others(&mut self, host: usize) -> Option<Vec<u8>> {
        let number = self.rng.random_range(0..8_u32);
        let first = u32::from(UNUSED_V4) + number * 4;
        let proxies = (0..4).map(|nth| IpAddr::from(Ipv4Addr::from(first + nth)));
        let proxies: Vec<IpAddr> = proxies.collect();
        if self.rng.random_bool(0.5) {
            let to = *proxies.first()?;
            return self.packet(host, self.own(host, true)?, to);
        }
        let (resource, domain) = match self.rng.random_bool(0.8) {
            true => self.name_of_no_resource(host)?,
            false => {
                let unknown = ResourceId(Uuid::from_u128(self.rng.random()));
                (unknown, format!("forged{number}.example"))
            }
        };
        let assigned = Control::AssignedIps(AssignedIps {
            resource,
            domain,
            proxy_ips: proxies,
        });
        let packet = assigned.to_packet(&Pool::new(2_048, 1))?;

        Some(packet.bytes().to_vec())
    }

    /// A resource, and a name that never was one of it, or that the client was never let in to.
    fn name_of_no_resource(&mut self, host: usize) -> Option<(ResourceId, String)> {
        let (names, resources) = (&self.scenario.names, self.portal.resources());
        if names.is_empty() || resources.is_empty() {
            return None;
        }
        let name = names.get(self.rng.random_range(0..names.len()))?;
        let resource = self.rng.random_range(0..resources.len());
        let is_its = self
            .access
            .ever_covers(resource, Destination::Name(&name.name))
            && self.access.was_ever_let_in(host, resource);

        (!is_its).then(|| (resources[resource], name.name.clone()))
    }

    /// To a name by what no filter of any resource that has it ever named.
    fn at_filtered_name(&mut self, host: usize) -> Option<Vec<u8>> {
        let name = self
            .scenario
            .names
            .get(self.rng.random_range(0..self.scenario.names.len().max(1)))?;
        let name = name.name.clone();
        let service = self.service();
        if self.access.ever_passes(Destination::Name(&name), service) {
            return None;
        }
        let to = self.names.addresses_of(host, &name);
        let to = *to.get(self.rng.random_range(0..to.len().max(1)))?;

        forged_packet(
            host,
            (self.own(host, to.is_ipv4())?, to),
            service,
            self.rng.random(),
        )
    }

    /// Something that no client sends: to nobody, by no protocol that there is, or control that nobody understands.
    fn garbage_within(&mut self, host: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; self.rng.random_range(0..200)];
        self.rng.fill_bytes(&mut bytes);
        if self.rng.random_bool(0.3) {
            let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            let mut control = vec![self.rng.random_range(0..12), 0, 0, 0, 0, 0, 0, 0];
            if control.first() == Some(&2) {
                // That is a goodbye, which anybody may say.
                control.insert(0, 9);
                control.pop();
            }
            control.extend(bytes);
            return ip_packet((unspecified, unspecified), 255, &control);
        }
        let to = self.one_of(&NOBODY)?;
        let from = self.own(host, to.is_ipv4())?;
        if self.rng.random_bool(0.5) {
            return self.packet(host, from, to);
        }
        let protocol = [0, 2, 41, 47, 50, 59, 132, 254][self.rng.random_range(0..8)];

        ip_packet((from, to), protocol, &bytes)
    }

    /// Whether a packet of a gateway's TUN device is a forged one; if so, whether it may be there is judged here.
    pub(super) fn hear_forged(&mut self, gateway: usize, bytes: &[u8]) -> bool {
        let Ok(packet) = Packet::parse(bytes) else {
            return false;
        };
        let Some(forger) = forger_of(bytes) else {
            return false;
        };
        if let Err(what) = self.may_be_forged(gateway, forger, &packet) {
            self.violate(what);
        }

        true
    }

    /// A client may send anything in its own name that it was let in for.
    fn may_be_forged(
        &self,
        gateway: usize,
        forger: usize,
        packet: &Packet<&[u8]>,
    ) -> Result<(), String> {
        let (from, to) = (packet.source(), packet.destination());
        let name = self.scenario.host(gateway);
        let what = format!("a forged packet from {from} to {to}");
        let is_its_own = self.own(forger, from.is_ipv4()) == Some(from);
        let Some(service) = service_of(packet).filter(|_| is_its_own) else {
            return Err(format!("{what} came out of {name}"));
        };

        self.may_come_out(
            gateway,
            &Arriving {
                what: &what,
                client: forger,
                to: Destination::Ip(to),
                service,
            },
        )
    }

    /// An ICMP error that reaches a client is about a packet of its own.
    pub(super) fn is_error_its_own(&self, host: usize, bytes: &[u8]) -> Result<(), String> {
        let Ok(packet) = Packet::parse(bytes) else {
            return Ok(());
        };
        let Some(quoted) = packet.quoted().filter(|_| packet.is_icmp_error()) else {
            return Ok(());
        };
        let source = quoted.source;

        match self.own(host, source.is_ipv4()) == Some(source) {
            true => Ok(()),
            false => Err(format!(
                "{} is told about a packet of {source}",
                self.scenario.host(host)
            )),
        }
    }
}

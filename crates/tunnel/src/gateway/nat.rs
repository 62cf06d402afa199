//! Translation between the addresses that stand for names and those that names have here (gateway.md §8).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_wire::dns::Name;
use connlib_wire::id::ResourceId;
use connlib_wire::ip::{Packet, PortsOrId, Transport};

use crate::ranges;

/// One client's names and the flows to them.
#[derive(Debug, Default)]
pub(super) struct Nat {
    translations: BTreeMap<IpAddr, Translation>,
    /// How many translations lead to each address.
    reals: HashMap<IpAddr, usize>,
    by_inside: HashMap<Inside, Session>,
    by_outside: HashMap<Outside, Inside>,
    /// When each session is to be looked at, which is not after its end.
    schedule: BTreeSet<(Instant, Inside)>,
    /// What flows to ended sessions came from. Without them such a packet would look like one to a network.
    ended: BTreeMap<Outside, Instant>,
}

/// What an address stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Translation {
    pub(super) name: Name,
    /// The resources that it is reached as.
    pub(super) resources: BTreeSet<ResourceId>,
    /// Where packets go; `None` where the name has no address of that family.
    pub(super) real: Option<IpAddr>,
}

/// What of a transport tells flows apart.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Echo,
}

/// A flow as the client knows it: its own port or echo id, and the address that stands for the name, or one of the network's
/// that a name has too.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Inside {
    pub(super) kind: Kind,
    pub(super) port: u16,
    pub(super) proxy: IpAddr,
}

impl Inside {
    /// Whether the client knows the network's own address.
    pub(super) fn is_direct(&self) -> bool {
        !ranges::is_proxy(self.proxy)
    }
}

/// The same flow as the resource knows it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Outside {
    pub(super) kind: Kind,
    pub(super) port: u16,
    pub(super) real: IpAddr,
}

#[derive(Debug)]
struct Session {
    outside: Outside,
    sent_at: Instant,
    received_at: Option<Instant>,
    look_at: Instant,
    end: End,
}

/// How far a TCP flow is over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct End {
    client_is_done: bool,
    resource_is_done: bool,
    is_reset: bool,
}

/// Why a packet of a client is not translated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Untranslated {
    /// The address stands for no name.
    Unknown,
    /// The name has no address of that family.
    NoAddress,
    /// Neither TCP nor UDP nor an echo.
    Protocol,
    /// Every port to that address is taken.
    Exhausted,
}

/// What a packet from the network is to a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Incoming {
    /// Of a flow to a name, or of one to an address that a name has too.
    Of(Inside),
    /// Of one that has ended.
    Ended,
    /// Of none.
    Foreign,
}

/// How long a flow lasts without packets (gateway.md §1). TCP keep-alives of two hours find it (RFC 5382 REQ-5).
const TCP_TTL: Duration = Duration::from_secs(7_440);
const UDP_TTL: Duration = Duration::from_secs(120);
const ECHO_TTL: Duration = Duration::from_secs(120);

/// How long one lasts that was never answered.
const UNANSWERED_TTL: Duration = Duration::from_secs(60);

/// How long TCP goes on after both ends have finished.
const LINGER: Duration = Duration::from_secs(5);

/// How long ended flows are remembered, and how many.
const REMEMBER_ENDED: Duration = Duration::from_secs(600);
const MAX_ENDED: usize = 16_384;

/// How many addresses of one client stand for names: about 32,000 names.
const MAX_TRANSLATIONS: usize = 262_144;

impl Nat {
    /// Lets `proxies` stand for a name that has the addresses `real` here. False if there is no room.
    ///
    /// A client that gives another name's addresses to this one has started to number anew: all it had is forgotten, or
    /// packets would go to another name's servers.
    pub(super) fn set_up(
        &mut self,
        name: &Name,
        resource: ResourceId,
        proxies: &BTreeSet<IpAddr>,
        real: &BTreeSet<IpAddr>,
    ) -> bool {
        let is_of_another = |ip: &IpAddr| {
            self.translations
                .get(ip)
                .is_some_and(|translation| translation.name != *name)
        };
        if proxies.iter().any(is_of_another) {
            *self = Self::default();
        }
        if self.translations.len() + proxies.len() > MAX_TRANSLATIONS {
            return false;
        }
        for is_v4 in [true, false] {
            let of_family = |ip: &&IpAddr| ip.is_ipv4() == is_v4;
            let mut targets = real.iter().filter(of_family).cycle();
            for proxy in proxies.iter().filter(of_family) {
                let translation = self
                    .translations
                    .entry(*proxy)
                    .or_insert_with(|| Translation {
                        name: name.clone(),
                        resources: BTreeSet::new(),
                        real: None,
                    });
                translation.resources.insert(resource);
                // Flows go on to where they went before.
                let former = std::mem::replace(&mut translation.real, targets.next().copied());
                if let Some(real) = translation.real {
                    *self.reals.entry(real).or_default() += 1;
                }
                release(&mut self.reals, former);
            }
        }

        true
    }

    pub(super) fn translation(&self, proxy: IpAddr) -> Option<&Translation> {
        self.translations.get(&proxy)
    }

    /// A resource is no longer the client's.
    pub(super) fn remove_resource(&mut self, resource: ResourceId) {
        self.translations.retain(|_, translation| {
            translation.resources.remove(&resource);
            let stays = !translation.resources.is_empty();
            if !stays {
                release(&mut self.reals, translation.real);
            }
            stays
        });
    }

    /// Where a packet of a client to an address that stands for a name goes. Opens a session.
    pub(super) fn outgoing<T: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        packet: &Packet<T>,
    ) -> Result<Outside, Untranslated> {
        let proxy = packet.destination();
        let translation = self.translations.get(&proxy).ok_or(Untranslated::Unknown)?;
        let (kind, port) = source_of(packet).ok_or(Untranslated::Protocol)?;
        let inside = Inside { kind, port, proxy };
        if let Some(session) = self.by_inside.get_mut(&inside) {
            session.sent_at = now;
            return Ok(session.outside);
        }
        let real = translation.real.ok_or(Untranslated::NoAddress)?;

        self.open(now, inside, real)
    }

    /// Where a packet of a client to an address of the network goes: `None` if no name has that address, and nothing is to be
    /// changed; else to the same address, but from a port that no flow to a name has there, or an answer would be taken for
    /// one of that flow's.
    pub(super) fn outgoing_direct<T: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        packet: &Packet<T>,
    ) -> Option<Result<Outside, Untranslated>> {
        if self.reals.is_empty() && self.by_outside.is_empty() && self.ended.is_empty() {
            return None;
        }
        let real = packet.destination();
        let (kind, port) = source_of(packet)?;
        let inside = Inside {
            kind,
            port,
            proxy: real,
        };
        if let Some(session) = self.by_inside.get_mut(&inside) {
            session.sent_at = now;
            return Some(Ok(session.outside));
        }
        let outside = Outside { kind, port, real };
        let is_shared = self.reals.contains_key(&real)
            || self.by_outside.contains_key(&outside)
            || self.ended.contains_key(&outside);

        is_shared.then(|| self.open(now, inside, real))
    }

    /// Opens a session to an address of the network.
    fn open(
        &mut self,
        now: Instant,
        inside: Inside,
        real: IpAddr,
    ) -> Result<Outside, Untranslated> {
        let outside = self
            .free_outside(inside.kind, inside.port, real)
            .ok_or(Untranslated::Exhausted)?;
        let session = Session {
            outside,
            sent_at: now,
            received_at: None,
            look_at: now + UNANSWERED_TTL,
            end: End::default(),
        };
        self.schedule.insert((session.look_at, inside));
        self.by_inside.insert(inside, session);
        self.by_outside.insert(outside, inside);
        self.ended.remove(&outside);

        Ok(outside)
    }

    /// What a packet from the network is to the client.
    pub(super) fn incoming<T: AsRef<[u8]>>(&self, packet: &Packet<T>) -> Incoming {
        if self.by_outside.is_empty() && self.ended.is_empty() {
            return Incoming::Foreign;
        }
        let outside = match packet.is_icmp_error() {
            true => quoted_flow(packet),
            false => destination_of(packet).map(|(kind, port)| Outside {
                kind,
                port,
                real: packet.source(),
            }),
        };
        let Some(outside) = outside else {
            return Incoming::Foreign;
        };

        match self.by_outside.get(&outside) {
            Some(inside) => Incoming::Of(*inside),
            None if self.ended.contains_key(&outside) => Incoming::Ended,
            None => Incoming::Foreign,
        }
    }

    /// A packet came back.
    pub(super) fn answered(&mut self, now: Instant, inside: &Inside) {
        if let Some(session) = self.by_inside.get_mut(inside) {
            session.received_at = Some(now);
        }
    }

    /// Notes what a packet of a flow says about its end: `by_client` or by the resource.
    pub(super) fn note_end(
        &mut self,
        now: Instant,
        inside: &Inside,
        flags: TcpEnd,
        by_client: bool,
    ) {
        let Some(session) = self.by_inside.get_mut(inside) else {
            return;
        };
        let end = &mut session.end;
        match flags {
            TcpEnd::Reset => end.is_reset = true,
            TcpEnd::Finished if by_client => end.client_is_done = true,
            TcpEnd::Finished => end.resource_is_done = true,
        }
        if let Some(ends_at) = session.ends_early(now) {
            self.schedule.remove(&(session.look_at, *inside));
            session.look_at = ends_at;
            self.schedule.insert((ends_at, *inside));
        }
    }

    /// Ends what has not been used for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, inside)) = self.schedule.first().copied() {
            if at > now {
                break;
            }
            self.schedule.remove(&(at, inside));
            let Some(session) = self.by_inside.get_mut(&inside) else {
                continue;
            };
            let ends_at = session.ends_at(inside.kind);
            if ends_at > now {
                session.look_at = ends_at;
                self.schedule.insert((ends_at, inside));
                continue;
            }
            let outside = session.outside;
            self.by_inside.remove(&inside);
            self.by_outside.remove(&outside);
            // The client goes on to know the address itself.
            if !(inside.is_direct() && inside.port == outside.port) {
                self.ended.insert(outside, now + REMEMBER_ENDED);
            }
        }
        if self.ended.len() > MAX_ENDED {
            self.ended.clear();
        }
        self.ended.retain(|_, until| *until > now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.first().map(|(at, _)| *at)
    }

    /// The client's own port where it is free, else the next one that is.
    fn free_outside(&self, kind: Kind, port: u16, real: IpAddr) -> Option<Outside> {
        let ports = (port.max(1)..=u16::MAX).chain(1..port);

        ports
            .map(|port| Outside { kind, port, real })
            .find(|outside| !self.by_outside.contains_key(outside))
    }
}

impl Session {
    fn ends_at(&self, kind: Kind) -> Instant {
        let latest = self
            .received_at
            .map_or(self.sent_at, |received_at| received_at.max(self.sent_at));
        let ttl = match kind {
            Kind::Tcp => TCP_TTL,
            Kind::Udp => UDP_TTL,
            Kind::Echo => ECHO_TTL,
        };
        let unanswered = match self.received_at {
            Some(_) => None,
            None => Some(self.sent_at + UNANSWERED_TTL),
        };

        [Some(latest + ttl), unanswered, self.ends_early(latest)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(latest)
    }

    /// When a TCP flow that says it is over is, its latest packet having been at `latest`.
    fn ends_early(&self, latest: Instant) -> Option<Instant> {
        if self.end.is_reset {
            return Some(latest);
        }

        (self.end.client_is_done && self.end.resource_is_done).then(|| latest + LINGER)
    }
}

/// One translation less leads to an address.
fn release(reals: &mut HashMap<IpAddr, usize>, real: Option<IpAddr>) {
    let Some(real) = real else {
        return;
    };
    if let Entry::Occupied(mut uses) = reals.entry(real) {
        *uses.get_mut() -= 1;
        if *uses.get() == 0 {
            uses.remove();
        }
    }
}

/// What a TCP packet says about the end of its flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TcpEnd {
    Finished,
    Reset,
}

/// What tells the flows of a packet's sender apart.
pub(super) fn source_of<T: AsRef<[u8]>>(packet: &Packet<T>) -> Option<(Kind, u16)> {
    match packet.transport() {
        Transport::Tcp => Some((Kind::Tcp, packet.source_port()?)),
        Transport::Udp => Some((Kind::Udp, packet.source_port()?)),
        Transport::Icmp => Some((Kind::Echo, packet.echo_id()?)),
        Transport::Other(_) => None,
    }
}

fn destination_of<T: AsRef<[u8]>>(packet: &Packet<T>) -> Option<(Kind, u16)> {
    match packet.transport() {
        Transport::Tcp => Some((Kind::Tcp, packet.destination_port()?)),
        Transport::Udp => Some((Kind::Udp, packet.destination_port()?)),
        Transport::Icmp => Some((Kind::Echo, packet.echo_id()?)),
        Transport::Other(_) => None,
    }
}

/// The flow that an ICMP error is about: it quotes a packet of the client's as the network saw it.
fn quoted_flow<T: AsRef<[u8]>>(packet: &Packet<T>) -> Option<Outside> {
    let quoted = packet.quoted()?;
    let (kind, port) = match (quoted.transport, quoted.ports_or_id) {
        (Transport::Tcp, PortsOrId::Ports { source, .. }) => (Kind::Tcp, source),
        (Transport::Udp, PortsOrId::Ports { source, .. }) => (Kind::Udp, source),
        (_, PortsOrId::EchoId(id)) => (Kind::Echo, id),
        _ => return None,
    };

    Some(Outside {
        kind,
        port,
        real: quoted.destination,
    })
}

#[cfg(test)]
mod tests;

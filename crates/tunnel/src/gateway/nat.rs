//! Translation between the addresses that stand for names and those that names have here (gateway.md §8).

mod ended;
mod flows;
mod ports;
mod session;
mod sessions;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use connlib_wire::dns::Name;
use connlib_wire::id::ResourceId;
use connlib_wire::ip::{Packet, PortsOrId, Quoted};

use crate::ranges;
use ended::Ended;
pub(super) use flows::{Inside, Kind, Outside, TcpEnd, is_passed_on, source_of};
use flows::{destination_of, quoted_flow, receiver_of};
use ports::Ports;
use session::{End, Session};
use sessions::Sessions;

/// One client's names and the flows to them.
#[derive(Debug, Default)]
pub(super) struct Nat {
    translations: BTreeMap<IpAddr, Translation>,
    /// The addresses of each name, those first that were set up first.
    in_order: VecDeque<Vec<IpAddr>>,
    /// How many translations lead to each address.
    reals: HashMap<IpAddr, usize>,
    sessions: Sessions,
    /// What is taken towards each address.
    ports: HashMap<(Kind, IpAddr), Ports>,
    ended: Ended,
}

/// What an address stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Translation {
    pub(super) name: Name,
    /// The resources that it is reached as.
    pub(super) resources: BTreeSet<ResourceId>,
    /// Where packets go; `None` where the name has no address of that family.
    pub(super) real: Option<IpAddr>,
    /// How many flows go by it.
    sessions: usize,
}

/// The addresses that a name was found to have here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Found {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Whether nobody said in time which of a family it has: it may be those that it had before.
    pub(super) lacks_v4: bool,
    pub(super) lacks_v6: bool,
}

impl Found {
    /// Whether nothing is known at all.
    pub(super) fn is_nothing(&self) -> bool {
        self.addresses.is_empty() && (self.lacks_v4 || self.lacks_v6)
    }
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
    /// Every port to that address is taken, or there are too many sessions and all are in use.
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

/// How many sessions a client may have: about 11 MB. One more ends the one that would have ended first.
const MAX_SESSIONS: usize = 65_536;

/// How many sessions, or names, are looked at to find one that may end before its time.
const MAX_LOOKED_AT: usize = 16;

/// How many addresses of one client stand for names: about 32,000 names. One more takes the place of that which was set up
/// first and isn't used.
const MAX_TRANSLATIONS: usize = 262_144;

impl Nat {
    /// Lets `proxies` stand for a name that has the addresses `found` here. False if there is no room.
    ///
    /// A client that gives another name's addresses to this one has started to number anew: all it had is forgotten, or
    /// packets would go to another name's servers.
    pub(super) fn set_up(
        &mut self,
        name: &Name,
        resource: ResourceId,
        proxies: &BTreeSet<IpAddr>,
        found: &Found,
    ) -> bool {
        let is_of_another = |ip: &IpAddr| {
            self.translations
                .get(ip)
                .is_some_and(|translation| translation.name != *name)
        };
        if proxies.iter().any(is_of_another) {
            *self = Self::default();
        }
        let is_new = |ip: &&IpAddr| !self.translations.contains_key(*ip);
        let new = proxies.iter().filter(is_new).count();
        if self.translations.len() + new > MAX_TRANSLATIONS && !self.make_room(new) {
            return false;
        }
        if new > 0 {
            self.in_order.push_back(proxies.iter().copied().collect());
        }
        for is_v4 in [true, false] {
            let of_family = |ip: &&IpAddr| ip.is_ipv4() == is_v4;
            let real = found.addresses.iter().filter(of_family);
            // A site's name servers can't make a client's packets come back to us.
            let mut targets = real.filter(|ip| ranges::is_host(**ip)).cycle();
            let is_known = match is_v4 {
                true => !found.lacks_v4,
                false => !found.lacks_v6,
            };
            for proxy in proxies.iter().filter(of_family) {
                let translation = self
                    .translations
                    .entry(*proxy)
                    .or_insert_with(|| Translation {
                        name: name.clone(),
                        resources: BTreeSet::new(),
                        real: None,
                        sessions: 0,
                    });
                translation.resources.insert(resource);
                let target = targets.next().copied();
                if target.is_none() && !is_known {
                    continue;
                }
                // Flows go on to where they went before.
                let former = std::mem::replace(&mut translation.real, target);
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

    /// The first address that stands for a name.
    pub(super) fn address_of(&self, name: &Name) -> Option<IpAddr> {
        let mut translations = self.translations.iter();
        let found = translations.find(|(_, translation)| translation.name == *name);

        found.map(|(ip, _)| *ip)
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
        let translations = &self.translations;
        self.in_order
            .retain(|proxies| proxies.iter().any(|ip| translations.contains_key(ip)));
    }

    /// Where a packet of a client to an address that stands for a name goes. Opens a session; one that is open goes on, whatever
    /// has become of the name.
    pub(super) fn outgoing<T: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        packet: &Packet<T>,
    ) -> Result<Outside, Untranslated> {
        let proxy = packet.destination();
        let flow = source_of(packet).map(|(kind, port)| Inside { kind, port, proxy });
        if let Some(inside) = &flow
            && let Some(outside) = self.go_on(now, inside, packet)
        {
            return Ok(outside);
        }
        let translation = self.translations.get(&proxy).ok_or(Untranslated::Unknown)?;
        let inside = flow.ok_or(Untranslated::Protocol)?;
        let real = translation.real.ok_or(Untranslated::NoAddress)?;

        self.open(now, inside, real)
    }

    /// Where a packet of a client to an address of the network goes: `None` if no name has that address, and nothing is to be
    /// changed; else to the same address, but from a port that no flow to a name has there, or an answer would be taken for
    /// one of that flow's. A flow that began before the name had the address is taken in with its next packet.
    pub(super) fn outgoing_direct<T: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        packet: &Packet<T>,
    ) -> Option<Result<Outside, Untranslated>> {
        if self.reals.is_empty() && self.sessions.is_empty() && self.ended.until.is_empty() {
            return None;
        }
        let real = packet.destination();
        let (kind, port) = source_of(packet)?;
        let inside = Inside {
            kind,
            port,
            proxy: real,
        };
        if let Some(outside) = self.go_on(now, &inside, packet) {
            return Some(Ok(outside));
        }
        let outside = Outside { kind, port, real };
        let is_shared = self.reals.contains_key(&real)
            || self.sessions.inside_of(&outside).is_some()
            || self.ended.until.contains_key(&outside);

        is_shared.then(|| self.open(now, inside, real))
    }

    /// The session that a packet of a client belongs to. One that says that a flow begins belongs to none that is over.
    fn go_on<T: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        inside: &Inside,
        packet: &Packet<T>,
    ) -> Option<Outside> {
        let session = self.sessions.get_mut(inside)?;
        let begins = packet
            .tcp_flags()
            .is_some_and(|flags| flags.is_syn() && !flags.is_ack());
        if begins && session.end != End::default() {
            self.end(inside);
            return None;
        }
        session.used_at = now;

        Some(session.outside)
    }

    /// Opens a session to an address of the network.
    fn open(
        &mut self,
        now: Instant,
        inside: Inside,
        real: IpAddr,
    ) -> Result<Outside, Untranslated> {
        let kind = inside.kind;
        let ports = self.ports.entry((kind, real)).or_default();
        let port = ports.take(inside.port).ok_or(Untranslated::Exhausted)?;
        let outside = Outside { kind, port, real };
        // Only once there is a port: no flow ends for one that can't begin.
        if self.sessions.len() >= MAX_SESSIONS && !self.end_one_early(now) {
            self.release_port(&outside);
            return Err(Untranslated::Exhausted);
        }
        let session = Session {
            inside,
            outside,
            used_at: now,
            is_answered: false,
            end: End::default(),
        };
        if let Some(translation) = self.translations.get_mut(&inside.proxy) {
            translation.sessions += 1;
        }
        self.sessions.insert(session);
        self.ended.until.remove(&outside);

        Ok(outside)
    }

    /// Where the packet came from that a client's ICMP error quotes: the quote as the network knows it. `None` if it is of no flow.
    pub(super) fn quoted_by_client(&self, quoted: &Quoted) -> Option<Quoted> {
        let (kind, port) = receiver_of(quoted)?;
        let inside = Inside {
            kind,
            port,
            proxy: quoted.source,
        };
        let outside = self.sessions.get(&inside)?.outside;

        Some(Quoted {
            source: outside.real,
            ports_or_id: match quoted.ports_or_id {
                PortsOrId::Ports { source, .. } => PortsOrId::Ports {
                    source,
                    destination: outside.port,
                },
                PortsOrId::EchoId(_) | PortsOrId::Neither => PortsOrId::EchoId(outside.port),
            },
            ..*quoted
        })
    }

    /// What a packet from the network is to the client.
    pub(super) fn incoming<T: AsRef<[u8]>>(&self, now: Instant, packet: &Packet<T>) -> Incoming {
        if self.sessions.is_empty() && self.ended.until.is_empty() {
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

        match self.sessions.inside_of(&outside) {
            Some(inside) => Incoming::Of(inside),
            None if self.ended.contains(now, &outside) => Incoming::Ended,
            None => Incoming::Foreign,
        }
    }

    /// A packet came back.
    pub(super) fn answered(&mut self, now: Instant, inside: &Inside) {
        if let Some(session) = self.sessions.get_mut(inside) {
            session.used_at = now;
            session.is_answered = true;
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
        let Some(session) = self.sessions.get_mut(inside) else {
            return;
        };
        let end = &mut session.end;
        match flags {
            TcpEnd::Reset => end.is_reset = true,
            TcpEnd::Finished if by_client => end.client_is_done = true,
            TcpEnd::Finished => end.resource_is_done = true,
        }
        if let Some(ends_at) = session.ends_early(now) {
            self.sessions.look_at(inside, ends_at);
        }
    }

    /// Ends what has not been used for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((look_at, session)) = self.sessions.first() {
            if look_at > now {
                break;
            }
            let (inside, ends_at) = (session.inside, session.ends_at());
            match ends_at > now {
                true => self.sessions.look_at(&inside, ends_at),
                false => self.end_and_remember(now, &inside),
            }
        }
        self.ended.forget(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let session = self.sessions.first().map(|(look_at, _)| look_at);

        session.into_iter().chain(self.ended.poll_timeout()).min()
    }

    /// Forgets names that nobody uses until there is room for `count` more addresses; false if too many are used.
    fn make_room(&mut self, count: usize) -> bool {
        for _ in 0..MAX_LOOKED_AT {
            if self.translations.len() + count <= MAX_TRANSLATIONS {
                return true;
            }
            let Some(proxies) = self.in_order.pop_front() else {
                return false;
            };
            let is_used = |ip: &IpAddr| {
                let translation = self.translations.get(ip);
                translation.is_some_and(|translation| translation.sessions > 0)
            };
            if proxies.iter().any(is_used) {
                self.in_order.push_back(proxies);
                continue;
            }
            for proxy in proxies {
                let gone = self.translations.remove(&proxy);
                release(
                    &mut self.reals,
                    gone.and_then(|translation| translation.real),
                );
            }
        }

        self.translations.len() + count <= MAX_TRANSLATIONS
    }

    /// Makes room for one more session: of those that are to be looked at first, the first that has nothing to live for until
    /// much later. False if there is none.
    fn end_one_early(&mut self, now: Instant) -> bool {
        for _ in 0..MAX_LOOKED_AT {
            let Some((look_at, session)) = self.sessions.first() else {
                return false;
            };
            let (inside, ends_at) = (session.inside, session.ends_at());
            if ends_at <= look_at {
                self.end_and_remember(now, &inside);
                return true;
            }
            self.sessions.look_at(&inside, ends_at);
        }

        false
    }

    fn end_and_remember(&mut self, now: Instant, inside: &Inside) {
        // The client goes on to know the address itself.
        if let Some(outside) = self.end(inside)
            && !(inside.is_direct() && inside.port == outside.port)
        {
            self.ended.insert(now, outside);
        }
    }

    fn end(&mut self, inside: &Inside) -> Option<Outside> {
        let outside = self.sessions.remove(inside)?.outside;
        if let Some(translation) = self.translations.get_mut(&inside.proxy) {
            // One that is set up anew has fewer.
            translation.sessions = translation.sessions.saturating_sub(1);
        }
        self.release_port(&outside);

        Some(outside)
    }

    fn release_port(&mut self, outside: &Outside) {
        if let Entry::Occupied(mut ports) = self.ports.entry((outside.kind, outside.real)) {
            ports.get_mut().release(outside.port);
            if ports.get().is_empty() {
                ports.remove();
            }
        }
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

#[cfg(test)]
mod tests;

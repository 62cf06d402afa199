//! The clients of a gateway and what each may reach (gateway.md §2 and §4–§7).

mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_link::PeerId;
use connlib_wire::dns::Name;
use connlib_wire::id::{ClientId, ResourceId};
use connlib_wire::ip::{IcmpError, Packet, PortsOrId, Quoted};
use connlib_wire::portal::resource::GatewayResource;

use super::grant::Grant;
use super::names::Names;
use super::nat::{Found, Incoming, Inside, Nat, Outside, Untranslated, is_passed_on};
use crate::drops::DropReason;
use crate::filter::{ResourceEnd, permits};
use crate::networks::{Networks, Wanted};
use crate::ranges;
use crate::status::ResourceStatus;

/// What becomes of a client's packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Pass,
    /// It is for a name, and goes to one of its addresses; or for an address that a name has too.
    Translate(Outside),
    /// It is an error about a packet that came from the network, as which it is to be quoted.
    TranslateError(Quoted),
    /// It is a question for us.
    NameServer,
    /// It may not go there, or can't: the client is told, so that it can ask again, or give up.
    Refuse(IcmpError, DropReason),
    /// Not worth an answer.
    Drop(DropReason),
}

impl Verdict {
    fn of(found: Result<Outside, Untranslated>) -> Self {
        match found {
            Ok(outside) => Self::Translate(outside),
            Err(Untranslated::NoAddress) => {
                Self::Refuse(IcmpError::Unreachable, DropReason::NoFlow)
            }
            Err(Untranslated::Exhausted) => {
                Self::Refuse(IcmpError::Unreachable, DropReason::NoPort)
            }
            Err(Untranslated::Unknown) => {
                Self::Refuse(IcmpError::Prohibited, DropReason::NoResource)
            }
            Err(Untranslated::Protocol) => Self::Drop(DropReason::NoFlow),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    by_id: BTreeMap<ClientId, Peer>,
    by_address: BTreeMap<IpAddr, ClientId>,
    /// Every end of a grant, in order.
    expiries: BTreeSet<(Instant, ClientId, ResourceId)>,
    /// When each client's flows to names are to be looked at.
    flow_ends: BTreeSet<(Instant, ClientId)>,
    /// Those whose last grant ended, yet to be left.
    idle: Vec<ClientId>,
}

#[derive(Debug)]
struct Peer {
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    grants: BTreeMap<ResourceId, Grant>,
    /// The networks of the resources among them.
    networks: Networks,
    /// Whether one of them is the Internet.
    has_internet: bool,
    nat: Nat,
    /// What of it stands in the flows' ends.
    flow_end: Option<Instant>,
}

impl Peers {
    /// Lets a client reach a resource, or changes until when. Other addresses make another peer of it.
    pub(super) fn grant(
        &mut self,
        id: ClientId,
        (ipv4, ipv6): (Ipv4Addr, Ipv6Addr),
        resource: GatewayResource,
        until: Option<Instant>,
    ) {
        if self
            .by_id
            .get(&id)
            .is_some_and(|peer| (peer.ipv4, peer.ipv6) != (ipv4, ipv6))
        {
            self.remove(id);
        }
        let peer = self.by_id.entry(id).or_insert_with(|| Peer {
            ipv4,
            ipv6,
            grants: BTreeMap::new(),
            networks: Networks::default(),
            has_internet: false,
            nat: Nat::default(),
            flow_end: None,
        });
        self.by_address.insert(ipv4.into(), id);
        self.by_address.insert(ipv6.into(), id);

        let resource_id = resource.id();
        let grant = Grant::new(resource, until);
        let is_other = |former: &Grant| former.pattern != grant.pattern;
        if peer.grants.get(&resource_id).is_some_and(is_other) {
            peer.nat.remove_resource(resource_id);
        }
        let former = peer.grants.insert(resource_id, grant);
        peer.find_networks();
        if let Some(at) = former.and_then(|grant| grant.until) {
            self.expiries.remove(&(at, id, resource_id));
        }
        if let Some(at) = until {
            self.expiries.insert((at, id, resource_id));
        }
    }

    pub(super) fn revoke(&mut self, id: ClientId, resource: ResourceId) {
        let Some(peer) = self.by_id.get_mut(&id) else {
            return;
        };
        let grant = peer.grants.remove(&resource);
        peer.find_networks();
        peer.nat.remove_resource(resource);
        if grant.is_some() && peer.grants.is_empty() {
            self.idle.push(id);
        }
        if let Some(at) = grant.and_then(|grant| grant.until) {
            self.expiries.remove(&(at, id, resource));
        }
    }

    pub(super) fn remove(&mut self, id: ClientId) {
        let Some(peer) = self.by_id.remove(&id) else {
            return;
        };
        for address in [IpAddr::V4(peer.ipv4), IpAddr::V6(peer.ipv6)] {
            if self.by_address.get(&address) == Some(&id) {
                self.by_address.remove(&address);
            }
        }
        for (resource, grant) in peer.grants {
            if let Some(at) = grant.until {
                self.expiries.remove(&(at, id, resource));
            }
        }
        if let Some(at) = peer.flow_end {
            self.flow_ends.remove(&(at, id));
        }
    }

    /// Keeps the grants that are listed, with their new ends; every other one is revoked, whoever holds it.
    pub(super) fn retain(&mut self, listed: &BTreeMap<(ClientId, ResourceId), Option<Instant>>) {
        let held: Vec<_> = self
            .by_id
            .iter()
            .flat_map(|(id, peer)| peer.grants.keys().map(|resource| (*id, *resource)))
            .collect();
        for (id, resource) in held {
            match listed.get(&(id, resource)) {
                Some(until) => self.set_end(id, resource, *until),
                None => self.revoke(id, resource),
            }
        }
    }

    pub(super) fn update_filters(&mut self, updated: &GatewayResource) {
        for peer in self.by_id.values_mut() {
            let Some(grant) = peer.grants.get_mut(&updated.id()) else {
                continue;
            };
            grant.update_filters(updated);
            peer.find_networks();
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, id, resource)) = self.expiries.first().copied() {
            if at > now {
                return;
            }
            tracing::debug!(client = %id, %resource, "A grant expired");
            self.revoke(id, resource);
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _, _)| *at)
    }

    /// Forgets the clients that may reach nothing any longer, and says which.
    pub(super) fn take_idle(&mut self) -> Vec<ClientId> {
        let mut idle = std::mem::take(&mut self.idle);
        // One that was granted something in between stays.
        idle.retain(|id| {
            self.by_id
                .get(id)
                .is_some_and(|peer| peer.grants.is_empty())
        });
        for id in &idle {
            self.remove(*id);
        }

        idle
    }

    /// Judges a packet that a client sent (gateway.md §6).
    pub(super) fn judge_outbound<T: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        id: ClientId,
        packet: &Packet<T>,
        own: Option<(Ipv4Addr, Ipv6Addr)>,
    ) -> Verdict {
        self.expire(now);
        let (source, destination) = (packet.source(), packet.destination());
        if destination.is_multicast() {
            return Verdict::Drop(DropReason::NotForOthers);
        }
        let Some(peer) = self.by_id.get_mut(&id).filter(|peer| peer.is_at(source)) else {
            return match packet.is_icmp_error() {
                true => Verdict::Drop(DropReason::ForeignSource),
                false => Verdict::Refuse(IcmpError::Prohibited, DropReason::ForeignSource),
            };
        };
        if packet.is_icmp_error() {
            return peer.judge_error(packet);
        }
        if is_own(destination, own) {
            return match Names::wants(packet) {
                true => Verdict::NameServer,
                false => Verdict::Pass,
            };
        }
        if ranges::is_tunnel(destination) {
            return Verdict::Refuse(IcmpError::Prohibited, DropReason::NotForOthers);
        }
        if ranges::is_proxy(destination) {
            let verdict = peer.judge_named(now, packet);
            self.reschedule(id);
            return verdict;
        }

        let wanted = (destination, packet.transport(), packet.destination_port());
        if let Err((error, reason)) = peer.reach(wanted) {
            return Verdict::Refuse(error, reason);
        }
        let Some(found) = peer.nat.outgoing_direct(now, packet) else {
            return Verdict::Pass;
        };
        self.reschedule(id);

        Verdict::of(found)
    }

    /// The client that a packet from the network is for, if it may have it (gateway.md §7).
    pub(super) fn judge_inbound(
        &mut self,
        now: Instant,
        packet: &Packet<&[u8]>,
        own: Option<(Ipv4Addr, Ipv6Addr)>,
    ) -> Result<ClientId, DropReason> {
        self.expire(now);
        let id = self.by_address.get(&packet.destination());
        let id = *id.ok_or(DropReason::NoClient)?;
        let peer = self.by_id.get_mut(&id).ok_or(DropReason::NoClient)?;
        let source = packet.source();
        if is_own(source, own) {
            return Ok(id);
        }
        // Another client's packet would slip past the rules between clients.
        if ranges::is_tunnel(source) || ranges::is_proxy(source) {
            return Err(DropReason::ForeignSource);
        }
        if packet.is_icmp_error() && !is_passed_on(packet) {
            return Err(DropReason::StrayError);
        }
        match peer.nat.incoming(now, packet) {
            Incoming::Of(inside) => {
                return match peer.may_have(&inside, packet) {
                    true => Ok(id),
                    false => Err(DropReason::NoAccess),
                };
            }
            // The client no longer knows it by the address that it comes from.
            Incoming::Ended => return Err(DropReason::NoFlow),
            Incoming::Foreign => {}
        }
        // Errors about a flow come from anywhere on its way.
        if packet.is_icmp_error() {
            return Ok(id);
        }

        let wanted = (source, packet.transport(), packet.source_port());

        peer.reach(wanted)
            .map(|()| id)
            .map_err(|(_, reason)| reason)
    }

    /// The translations of a client.
    pub(super) fn nat(&mut self, id: ClientId) -> Option<&mut Nat> {
        self.by_id.get_mut(&id).map(|peer| &mut peer.nat)
    }

    /// The client with this tunnel address.
    pub(super) fn client_at(&self, ip: IpAddr) -> Option<ClientId> {
        self.by_address.get(&ip).copied()
    }

    /// Whether a client may let addresses stand for a name of a resource.
    pub(super) fn may_name(
        &self,
        now: Instant,
        client: PeerId,
        resource: ResourceId,
        name: &Name,
    ) -> bool {
        let peer = self.by_id.get(&ClientId(client.0));

        peer.and_then(|peer| peer.grants.get(&resource))
            .is_some_and(|grant| grant.is_in_force(now) && grant.matches(name))
    }

    /// Whether a client may ask for a name: it belongs to a resource that was granted.
    pub(super) fn may_ask(&self, now: Instant, client: IpAddr, name: &Name) -> bool {
        let peer = self.client_at(client).and_then(|id| self.by_id.get(&id));

        peer.is_some_and(|peer| {
            let mut grants = peer.grants.values();
            grants.any(|grant| grant.is_in_force(now) && grant.matches(name))
        })
    }

    /// Lets addresses stand for a name that was found at others. False if the client may not do so, or with such addresses.
    pub(super) fn set_up_name(
        &mut self,
        now: Instant,
        client: PeerId,
        resource: ResourceId,
        name: &Name,
        (proxies, found): (&BTreeSet<IpAddr>, &Found),
    ) -> bool {
        if !self.may_name(now, client, resource, name)
            || proxies.is_empty()
            || !proxies.iter().all(|ip| ranges::is_proxy(*ip))
        {
            return false;
        }

        self.nat(ClientId(client.0))
            .is_some_and(|nat| nat.set_up(name, resource, proxies, found))
    }

    /// The flows of a client may end at another time than before.
    pub(super) fn reschedule(&mut self, id: ClientId) {
        let Some(peer) = self.by_id.get_mut(&id) else {
            return;
        };
        let new = peer.nat.poll_timeout();
        if new == peer.flow_end {
            return;
        }
        let former = std::mem::replace(&mut peer.flow_end, new);
        self.flow_ends.extend(new.map(|at| (at, id)));
        if let Some(at) = former {
            self.flow_ends.remove(&(at, id));
        }
    }

    /// Ends flows that have not been used for too long.
    pub(super) fn expire_flows(&mut self, now: Instant) {
        while let Some((at, id)) = self.flow_ends.first().copied() {
            if at > now {
                return;
            }
            if let Some(peer) = self.by_id.get_mut(&id) {
                peer.nat.expire(now);
            }
            self.reschedule(id);
        }
    }

    pub(super) fn next_flow_end(&self) -> Option<Instant> {
        self.flow_ends.first().map(|(at, _)| *at)
    }

    pub(super) fn status(&self) -> Vec<ResourceStatus> {
        let mut resources: BTreeMap<ResourceId, ResourceStatus> = BTreeMap::new();
        for (id, peer) in &self.by_id {
            for (resource, grant) in &peer.grants {
                let status = resources.entry(*resource).or_insert_with(|| {
                    let (name, address) = grant.described();
                    ResourceStatus {
                        id: resource.to_string(),
                        name,
                        address,
                        reach: None,
                        gateway: None,
                        clients: Vec::new(),
                    }
                });
                status.clients.push(id.to_string());
            }
        }

        resources.into_values().collect()
    }

    fn set_end(&mut self, id: ClientId, resource: ResourceId, until: Option<Instant>) {
        let grant = self
            .by_id
            .get_mut(&id)
            .and_then(|peer| peer.grants.get_mut(&resource));
        let Some(grant) = grant else {
            return;
        };
        if let Some(at) = std::mem::replace(&mut grant.until, until) {
            self.expiries.remove(&(at, id, resource));
        }
        if let Some(at) = until {
            self.expiries.insert((at, id, resource));
        }
    }
}

impl Peer {
    fn is_at(&self, ip: IpAddr) -> bool {
        ip == self.ipv4 || ip == self.ipv6
    }

    /// Takes the networks from the grants.
    fn find_networks(&mut self) {
        self.networks.clear();
        self.has_internet = self.grants.values().any(Grant::is_internet);
        for (resource, grant) in &self.grants {
            if let Some(network) = grant.network() {
                let filters = grant.filters().to_vec();
                self.networks.insert(network, *resource, filters);
            }
        }
    }

    /// Whether any grant lets an address that stands for no name be used so; else what the client is told.
    fn reach(&mut self, wanted: Wanted) -> Result<(), (IcmpError, DropReason)> {
        let choice = self.networks.choose(wanted);
        let (ip, ..) = wanted;
        match choice {
            Some(choice) if choice.is_permitted => Ok(()),
            Some(_) | None if self.has_internet && !ranges::is_no_internet(ip) => Ok(()),
            // To ask for access again would bring nothing.
            None if self.has_internet => Err((IcmpError::Unreachable, DropReason::NotInternet)),
            Some(_) => Err((IcmpError::Prohibited, DropReason::Filtered)),
            None => Err((IcmpError::Prohibited, DropReason::NoResource)),
        }
    }

    /// Whether any grant lets a packet of a flow pass to the client. What is about a flow may come back whatever it is.
    fn may_have(&mut self, flow: &Inside, packet: &Packet<&[u8]>) -> bool {
        let is_error = packet.is_icmp_error();
        if flow.is_direct() {
            let wanted = (flow.proxy, packet.transport(), packet.source_port());
            return is_error || self.reach(wanted).is_ok();
        }
        let Some(translation) = self.nat.translation(flow.proxy) else {
            return false;
        };

        translation.resources.iter().any(|id| {
            self.grants.get(id).is_some_and(|grant| {
                is_error || permits(grant.filters(), packet, ResourceEnd::Source)
            })
        })
    }

    /// Judges an ICMP error, which is about a packet that came to the client, or about nothing. It is never answered.
    fn judge_error<T: AsRef<[u8]>>(&mut self, packet: &Packet<T>) -> Verdict {
        let stray = Verdict::Drop(DropReason::StrayError);
        let Some(quoted) = packet.quoted().filter(|_| is_passed_on(packet)) else {
            return stray;
        };
        if !self.is_at(quoted.destination) || quoted.source != packet.destination() {
            return stray;
        }
        if let Some(quoted) = self.nat.quoted_by_client(&quoted) {
            return Verdict::TranslateError(quoted);
        }
        let port = match quoted.ports_or_id {
            PortsOrId::Ports { source, .. } => Some(source),
            PortsOrId::EchoId(_) | PortsOrId::Neither => None,
        };
        let is_foreign = ranges::is_tunnel(quoted.source) || ranges::is_proxy(quoted.source);

        match !is_foreign && self.reach((quoted.source, quoted.transport, port)).is_ok() {
            true => Verdict::Pass,
            false => stray,
        }
    }

    /// Judges a packet to an address that stands for a name.
    fn judge_named<T: AsRef<[u8]>>(&mut self, now: Instant, packet: &Packet<T>) -> Verdict {
        let Some(translation) = self.nat.translation(packet.destination()) else {
            return Verdict::Refuse(IcmpError::Prohibited, DropReason::NoResource);
        };
        let lets_pass = |id: &ResourceId| {
            self.grants.get(id).is_some_and(|grant| {
                grant.is_in_force(now) && permits(grant.filters(), packet, ResourceEnd::Destination)
            })
        };
        if !translation.resources.iter().any(lets_pass) {
            return Verdict::Refuse(IcmpError::Prohibited, DropReason::Filtered);
        }

        Verdict::of(self.nat.outgoing(now, packet))
    }
}

fn is_own(ip: IpAddr, own: Option<(Ipv4Addr, Ipv6Addr)>) -> bool {
    own.is_some_and(|(v4, v6)| ip == v4 || ip == v6)
}

#[cfg(test)]
mod tests;

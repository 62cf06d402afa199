//! The clients of a gateway and what each may reach (gateway.md §2 and §4–§7).

mod judging;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_link::PeerId;
use connlib_wire::dns::Name;
use connlib_wire::id::{ClientId, ResourceId};
use connlib_wire::portal::resource::GatewayResource;

use super::grant::Grant;
use super::nat::{Found, Nat};
use crate::networks::Networks;
use crate::ranges;
use crate::status::ResourceStatus;
pub(super) use judging::Verdict;

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

    /// Moves the end of a grant; does nothing for one that isn't there.
    pub(super) fn set_end(&mut self, id: ClientId, resource: ResourceId, until: Option<Instant>) {
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
}

#[cfg(test)]
mod tests;

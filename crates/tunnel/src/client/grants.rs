//! Which gateway serves what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connlib_link::PeerId;
use connlib_wire::dns::Name;
use connlib_wire::id::{GatewayId, ResourceId};

use super::resources::Resources;

#[derive(Debug, Default)]
pub(super) struct Grants {
    gateways: BTreeMap<GatewayId, Gateway>,
    by_resource: BTreeMap<ResourceId, GatewayId>,
    /// The gateway that served a resource last, kept when it is lost: connections survive best where they were.
    last: BTreeMap<ResourceId, GatewayId>,
}

#[derive(Debug)]
struct Gateway {
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    resources: BTreeSet<ResourceId>,
}

impl Grants {
    pub(super) fn grant(
        &mut self,
        resource: ResourceId,
        gateway: GatewayId,
        (ipv4, ipv6): (Ipv4Addr, Ipv6Addr),
    ) {
        self.revoke(resource);
        let entry = self.gateways.entry(gateway).or_insert_with(|| Gateway {
            ipv4,
            ipv6,
            resources: BTreeSet::new(),
        });
        (entry.ipv4, entry.ipv6) = (ipv4, ipv6);
        entry.resources.insert(resource);
        self.by_resource.insert(resource, gateway);
        self.last.insert(resource, gateway);
    }

    pub(super) fn gateway_of(&self, resource: ResourceId) -> Option<GatewayId> {
        self.by_resource.get(&resource).copied()
    }

    /// The gateway with this tunnel address.
    pub(super) fn gateway_at(&self, ip: IpAddr) -> Option<GatewayId> {
        self.gateways
            .iter()
            .find(|(_, gateway)| gateway.is_at(ip))
            .map(|(id, _)| *id)
    }

    /// The tunnel addresses of a gateway.
    pub(super) fn addresses_of(&self, gateway: GatewayId) -> Option<(Ipv4Addr, Ipv6Addr)> {
        let gateway = self.gateways.get(&gateway)?;

        Some((gateway.ipv4, gateway.ipv6))
    }

    /// Whether a gateway may send from `source`: its own address, or one of a resource that it serves. `name` is what the
    /// address stands for.
    pub(super) fn allows_from(
        &self,
        peer: PeerId,
        (source, name): (IpAddr, Option<&Name>),
        resources: &mut Resources,
    ) -> bool {
        let Some(gateway) = self.gateways.get(&GatewayId(peer.0)) else {
            return false;
        };
        if let Some(name) = name {
            let named = resources.named(name);
            return named.iter().any(|id| gateway.resources.contains(id));
        }

        gateway.is_at(source)
            || gateway
                .resources
                .iter()
                .any(|id| resources.covers(*id, source))
    }

    /// Ends one grant; the gateway if it serves nothing else.
    pub(super) fn revoke(&mut self, resource: ResourceId) -> Option<GatewayId> {
        let gateway = self.by_resource.remove(&resource)?;
        let entry = self.gateways.get_mut(&gateway)?;
        entry.resources.remove(&resource);
        if !entry.resources.is_empty() {
            return None;
        }
        self.gateways.remove(&gateway);

        Some(gateway)
    }

    /// Ends every grant through a gateway.
    pub(super) fn forget(&mut self, gateway: GatewayId) {
        self.gateways.remove(&gateway);
        self.by_resource.retain(|_, serving| *serving != gateway);
    }

    /// Whether anything is reached through a gateway.
    pub(super) fn serves(&self, gateway: GatewayId) -> bool {
        self.gateways.contains_key(&gateway)
    }

    /// Another gateway does as well as this one: no connection was ever made through it.
    pub(super) fn prefer_no_more(&mut self, gateway: GatewayId) {
        self.last.retain(|_, last| *last != gateway);
    }

    /// The gateways to ask for, best first (client.md §2.5).
    pub(super) fn preferred(&self, resource: ResourceId) -> Vec<GatewayId> {
        let last = self.last.get(&resource).copied();
        let others = self.gateways.keys().copied().filter(|id| Some(*id) != last);

        last.into_iter().chain(others).collect()
    }
}

impl Gateway {
    fn is_at(&self, ip: IpAddr) -> bool {
        ip == self.ipv4 || ip == self.ipv6
    }
}

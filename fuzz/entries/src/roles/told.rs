//! What the portal tells of things, in the words of its protocol.

use connlib_wire::id::{ResourceId, SiteId};
use connlib_wire::portal::IceCredentials;
use connlib_wire::portal::resource::{
    CidrResource, DnsResource, GatewayResource, InternetResource, IpStack, Resource, Site, Sites,
};
use connlib_wire::portal::turn::{Relay, Turn};
use connlib_wire::portal::{client, gateway};
use connlib_wire::secret::Secret;
use connlib_wire::stun::relay_password;
use uuid::Uuid;

use super::portal::{RELAY, RELAY_AT, RELAY_SECRET, Reach};
use super::world::World;
use super::{CLIENT, GATEWAY};

impl World {
    pub(super) fn for_client(&self, id: ResourceId) -> Resource {
        let (reach, filters) = &self.portal.table[&id];
        let filters = filters.clone();
        let name = "thing".to_owned();
        let sites = Sites(vec![Site {
            id: SiteId(Uuid::from_u128(9)),
            name: "hq".to_owned(),
        }]);
        match reach {
            Reach::Network(address) => Resource::Cidr(CidrResource {
                id,
                name,
                address: address.parse().unwrap(),
                address_description: None,
                filters,
                sites,
            }),
            Reach::Names(address) => Resource::Dns(DnsResource {
                id,
                name,
                address: (*address).to_owned(),
                address_description: None,
                ip_stack: IpStack::Dual,
                filters,
                sites,
            }),
            Reach::Internet => Resource::Internet(InternetResource { id, name, sites }),
        }
    }

    pub(super) fn for_gateway(&self, id: ResourceId) -> GatewayResource {
        let (reach, filters) = &self.portal.table[&id];
        let (name, filters) = ("thing".to_owned(), filters.clone());
        match reach {
            Reach::Network(address) => GatewayResource::Cidr {
                id,
                name,
                address: address.parse().unwrap(),
                filters,
            },
            Reach::Names(address) => GatewayResource::Dns {
                id,
                name,
                address: (*address).to_owned(),
                filters,
            },
            Reach::Internet => GatewayResource::Internet { id },
        }
    }
}

pub(super) fn of_client(told: client::GatewayCandidates) -> gateway::ClientCandidates {
    gateway::ClientCandidates {
        client_id: CLIENT,
        candidates: told.candidates,
    }
}

pub(super) fn of_gateway(told: gateway::BroadcastCandidates) -> client::GatewayCandidates {
    client::GatewayCandidates {
        gateway_id: GATEWAY,
        candidates: told.candidates,
    }
}

pub(super) fn credentials(name: &str) -> IceCredentials {
    IceCredentials {
        username: name.to_owned(),
        password: Secret::from(format!("password of {name}")),
    }
}

pub(super) fn relay(salt: &str) -> Relay {
    let expires_at = 2_145_916_800;

    Relay::Turn(Turn {
        id: RELAY,
        addr: RELAY_AT.parse().unwrap(),
        username: format!("{expires_at}:{salt}"),
        password: relay_password(expires_at, salt, &Secret::from(RELAY_SECRET)),
        expires_at,
    })
}

//! What the portal tells of things, in the words of its protocol.

use connlib_wire::id::{ResourceId, SiteId};
use connlib_wire::portal::IceCredentials;
use connlib_wire::portal::resource::{
    CidrResource, DnsResource, Filter, GatewayResource, InternetResource, IpStack, PortRange,
    Resource, Site, Sites,
};
use connlib_wire::portal::turn::{Relay, Turn};
use connlib_wire::portal::{client, gateway};
use connlib_wire::secret::Secret;
use connlib_wire::stun::relay_password;
use uuid::Uuid;

use super::portal::{RELAY, RELAY_AT, RELAY_SECRET, Reach};
use super::world::World;
use super::{CLIENT, GATEWAY};
use crate::choices::Choices;

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

/// What a resource reaches, as bytes say.
pub(super) fn reach(choices: &mut Choices<'_>) -> Reach {
    match choices.byte() % 4 {
        0 => Reach::Internet,
        1 => Reach::Names(choices.one_of(&["*.corp.test", "wiki.corp.test", "**.test", "[bad"])),
        _ => Reach::Network(choices.one_of(&[
            "10.20.0.0/16",
            "10.20.0.10/32",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "fd20::/32",
            "::/0",
            "fd20::10/128",
            "192.0.2.0/24",
            "100.64.0.0/10",
            "fd00:2021:1111::/48",
            "224.0.0.0/4",
            "10.20.0.10/8",
        ])),
    }
}

/// A filter, as bytes say: of one port, of all, of none.
pub(super) fn filter(choices: &mut Choices<'_>) -> Filter {
    let (port_range_start, port_range_end) = choices.one_of(&[
        (80, 80),
        (53, 60),
        (0, 65_535),
        (100, 1),
        (443, 442),
        (4_000, 5_000),
        (0, 0),
    ]);
    let range = PortRange {
        port_range_start,
        port_range_end,
    };

    choices.one_of(&[Filter::Icmp, Filter::Tcp(range), Filter::Udp(range)])
}

//! A stand-in for the portal: it permits everything that it knows of, in the order the real one does.

use std::net::SocketAddr;

use connlib_wire::id::{ClientId, GatewayId, RelayId, ResourceId, SiteId};
use connlib_wire::key::{PresharedKey, PublicKey};
use connlib_wire::portal::client::{self, AuthorizationCreated, GatewayCandidates};
use connlib_wire::portal::gateway::{self, ClientCandidates, CreateAuthorization};
use connlib_wire::portal::resource::{CidrResource, GatewayResource, Resource, Site, Sites};
use connlib_wire::portal::{IceCredentials, RelaysPresence, TunnelAddresses, turn};
use connlib_wire::secret::Secret;
use connlib_wire::stun::relay_password;
use uuid::Uuid;

pub(super) const CLIENT_V4: [u8; 4] = [100, 64, 0, 1];
pub(super) const GATEWAY_V4: [u8; 4] = [100, 64, 0, 2];
pub(super) const CLIENT_V6: [u16; 8] = [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 1];
pub(super) const GATEWAY_V6: [u16; 8] = [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 2];

/// What the relay and the portal share.
pub(super) const RELAY_SECRET: &str = "what only the portal and the relay know";

/// The network that the client may reach.
pub(super) const NETWORK: &str = "10.20.0.0/16";

const EXPIRY: u64 = 2_145_916_800;

/// Something the portal says.
#[derive(Debug)]
pub(super) enum Says {
    ToClient(client::FromPortal),
    ToGateway(gateway::FromPortal),
}

#[derive(Debug)]
pub(super) struct Portal {
    client_key: PublicKey,
    gateway_key: PublicKey,
    relay: SocketAddr,
    /// How many grants were given; each has its own reference.
    grants: u64,
}

impl Portal {
    pub(super) fn new(client_key: PublicKey, gateway_key: PublicKey, relay: SocketAddr) -> Self {
        Self {
            client_key,
            gateway_key,
            relay,
            grants: 0,
        }
    }

    pub(super) fn init_client(&self) -> Says {
        Says::ToClient(client::FromPortal::Init(client::Init {
            interface: client::Interface {
                ipv4: CLIENT_V4.into(),
                ipv6: CLIENT_V6.into(),
                search_domain: None,
                upstream_dns: Vec::new(),
                upstream_do53: Vec::new(),
                upstream_doh: Vec::new(),
                upstream_dot: Vec::new(),
            },
            resources: NETWORK
                .parse()
                .map(|address| {
                    Resource::Cidr(CidrResource {
                        id: resource_id(),
                        name: "lan".to_owned(),
                        address,
                        address_description: None,
                        filters: Vec::new(),
                        sites: Sites(vec![Site {
                            id: site_id(),
                            name: "hq".to_owned(),
                        }]),
                    })
                })
                .into_iter()
                .collect(),
            relays: vec![self.relay_for(self.client_key)],
            authorizations: None,
            flow_logs: None,
        }))
    }

    pub(super) fn init_gateway(&self) -> Says {
        Says::ToGateway(gateway::FromPortal::Init(gateway::Init {
            interface: TunnelAddresses {
                ipv4: GATEWAY_V4.into(),
                ipv6: GATEWAY_V6.into(),
            },
            config: Default::default(),
            account_slug: None,
            relays: vec![self.relay_for(self.gateway_key)],
            authorizations: Vec::new(),
            flow_logs: None,
        }))
    }

    pub(super) fn hears_client(&mut self, message: client::ToPortal) -> Vec<Says> {
        match message {
            client::ToPortal::RequestAuthorization(_) => self.authorize(),
            client::ToPortal::NewIceCandidates(told) => {
                let told = for_gateway(told);
                vec![Says::ToGateway(gateway::FromPortal::IceCandidates(told))]
            }
            client::ToPortal::InvalidateIceCandidates(told) => {
                let told = for_gateway(told);
                vec![Says::ToGateway(
                    gateway::FromPortal::InvalidateIceCandidates(told),
                )]
            }
            client::ToPortal::NoRelays(_) => {
                let presence = self.presence(self.client_key);
                vec![Says::ToClient(client::FromPortal::RelaysPresence(presence))]
            }
            client::ToPortal::SetCapabilities(_) | _ => Vec::new(),
        }
    }

    pub(super) fn hears_gateway(&mut self, message: gateway::ToPortal) -> Vec<Says> {
        match message {
            gateway::ToPortal::AuthorizationCreated(_) => {
                vec![Says::ToClient(client::FromPortal::AuthorizationCreated(
                    self.authorized(),
                ))]
            }
            gateway::ToPortal::BroadcastIceCandidates(told) => {
                let told = for_client(told.candidates);
                vec![Says::ToClient(client::FromPortal::IceCandidates(told))]
            }
            gateway::ToPortal::BroadcastInvalidatedIceCandidates(told) => {
                let told = for_client(told.candidates);
                vec![Says::ToClient(client::FromPortal::InvalidateIceCandidates(
                    told,
                ))]
            }
            gateway::ToPortal::NoRelays(_) => {
                let presence = self.presence(self.gateway_key);
                vec![Says::ToGateway(gateway::FromPortal::RelaysPresence(
                    presence,
                ))]
            }
            gateway::ToPortal::SetCapabilities(_) | _ => Vec::new(),
        }
    }

    fn authorize(&mut self) -> Vec<Says> {
        self.grants += 1;
        let Ok(address) = NETWORK.parse() else {
            return Vec::new();
        };
        let request = CreateAuthorization {
            reference: format!("grant {}", self.grants),
            resource: GatewayResource::Cidr {
                id: resource_id(),
                name: "lan".to_owned(),
                address,
                filters: Vec::new(),
            },
            client: gateway::Client {
                id: client_id(),
                public_key: self.client_key,
                preshared_key: preshared_key(),
                ipv4: CLIENT_V4.into(),
                ipv6: CLIENT_V6.into(),
            },
            client_ice_credentials: credentials("clnt"),
            gateway_ice_credentials: credentials("gate"),
            expires_at: None,
            use_iceless: Some(false),
            flow_logs_ingest_token: Some(String::new()),
        };

        vec![Says::ToGateway(gateway::FromPortal::CreateAuthorization(
            request,
        ))]
    }

    fn authorized(&self) -> AuthorizationCreated {
        AuthorizationCreated {
            resource_id: resource_id(),
            gateway_id: gateway_id(),
            gateway_public_key: self.gateway_key,
            gateway_ipv4: GATEWAY_V4.into(),
            gateway_ipv6: GATEWAY_V6.into(),
            preshared_key: preshared_key(),
            client_ice_credentials: credentials("clnt"),
            gateway_ice_credentials: credentials("gate"),
            site_id: site_id(),
            use_iceless: Some(false),
            flow_logs_ingest_token: Some(String::new()),
        }
    }

    fn presence(&self, key: PublicKey) -> RelaysPresence {
        RelaysPresence {
            disconnected_ids: Vec::new(),
            connected: vec![self.relay_for(key)],
        }
    }

    fn relay_for(&self, key: PublicKey) -> turn::Relay {
        // The key's text has no colon, so that it can be the salt as it is.
        let salt = key.to_string();
        let password = relay_password(EXPIRY, &salt, &Secret::from(RELAY_SECRET));

        turn::Relay::Turn(turn::Turn {
            id: RelayId(Uuid::from_u128(3)),
            addr: self.relay,
            username: format!("{EXPIRY}:{salt}"),
            password,
            expires_at: EXPIRY,
        })
    }
}

fn for_gateway(told: GatewayCandidates) -> ClientCandidates {
    ClientCandidates {
        client_id: client_id(),
        candidates: told.candidates,
    }
}

fn for_client(candidates: Vec<String>) -> GatewayCandidates {
    GatewayCandidates {
        gateway_id: gateway_id(),
        candidates,
    }
}

fn credentials(name: &str) -> IceCredentials {
    IceCredentials {
        username: name.to_owned(),
        password: Secret::from(format!("the password of {name}")),
    }
}

fn preshared_key() -> PresharedKey {
    PresharedKey::new([5; 32])
}

fn client_id() -> ClientId {
    ClientId(Uuid::from_u128(1))
}

fn gateway_id() -> GatewayId {
    GatewayId(Uuid::from_u128(2))
}

fn resource_id() -> ResourceId {
    ResourceId(Uuid::from_u128(4))
}

fn site_id() -> SiteId {
    SiteId(Uuid::from_u128(5))
}

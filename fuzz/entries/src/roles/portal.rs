//! What the portal says: to whom, about what, and until when. The law hears of it first.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connlib_relay::{Config, Credentials, LoopbackPeers, PrivatePeers};
use connlib_wire::id::{ClientId, GatewayId, RelayId, ResourceId, SiteId};
use connlib_wire::key::PresharedKey;
use connlib_wire::portal::client::{
    self, AuthorizationCreated, AuthorizationCreationFailed, Refusal,
};
use connlib_wire::portal::gateway::{self, CreateAuthorization, RejectAccess};
use connlib_wire::portal::resource::{Filter, Resource};
use connlib_wire::portal::{Authorization, TunnelAddresses};
use connlib_wire::secret::Secret;
use uuid::Uuid;

use super::told::{credentials, of_client, of_gateway, relay};
use super::world::World;
use super::{CLIENT, CLIENT_V4, CLIENT_V6, GATEWAY, ROGUE, ROGUE_GATEWAY, ROGUE_V4, ROGUE_V6};

pub(super) const RELAY_AT: &str = "203.0.113.9:3478";
pub(super) const PSK: [u8; 32] = [5; 32];
pub(super) const RELAY_SECRET: &str = "what only the portal and the relay know";
pub(super) const RELAY: RelayId = RelayId(Uuid::from_u128(3));

/// What the portal does when a client asks for access.
#[derive(Clone, Copy, Debug)]
pub(super) enum Policy {
    Grant(GatewayId),
    Refuse(Refusal),
    SayNothing,
}

/// What a resource reaches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reach {
    Network(&'static str),
    Names(&'static str),
    Internet,
}

/// What the portal knows.
pub(super) struct Portal {
    pub(super) table: BTreeMap<ResourceId, (Reach, Vec<Filter>)>,
    pub(super) policy: Policy,
    /// In how many seconds after the start grants end.
    pub(super) until: Option<u64>,
    /// Whether the rogue has the client's addresses.
    pub(super) doubles: bool,
}

impl Default for Portal {
    fn default() -> Self {
        let table = [
            (1, Reach::Network("10.20.0.0/16")),
            (2, Reach::Names("*.corp.test")),
            (3, Reach::Internet),
            (4, Reach::Network("fd20::/32")),
        ];

        Self {
            table: table
                .map(|(n, reach)| (resource_id(n), (reach, Vec::new())))
                .into(),
            policy: Policy::Grant(GATEWAY),
            until: None,
            doubles: false,
        }
    }
}

impl World {
    /// The gateway hears everything anew, with what is still in force.
    pub(super) fn init_gateway(&mut self, in_force: &[(ClientId, ResourceId, Option<u64>)]) {
        let listed = |holder, id| {
            in_force
                .iter()
                .find(|(client, resource, _)| (*client, *resource) == (holder, id))
        };
        let start = self.start;
        self.law.grants.retain(|(client, id), (_, until)| {
            let Some((_, _, new)) = listed(*client, *id) else {
                return false;
            };
            *until = new.map(|secs| start + std::time::Duration::from_secs(secs.min(YEAR)));
            true
        });
        let authorizations = in_force
            .iter()
            .map(|(client_id, resource_id, until)| Authorization {
                client_id: *client_id,
                resource_id: *resource_id,
                expires_at: until.map(unix),
            });
        let init = gateway::Init {
            interface: TunnelAddresses {
                ipv4: v4(super::GATEWAY_V4),
                ipv6: v6(super::GATEWAY_V6),
            },
            config: gateway::MasqueradeConfig::default(),
            account_slug: None,
            relays: vec![relay("gate")],
            authorizations: authorizations.collect(),
            flow_logs: None,
        };
        self.gateway
            .handle_message(self.now, gateway::FromPortal::Init(init));
        self.settle();
    }

    /// The client hears everything anew.
    pub(super) fn init_client(&mut self) {
        let ids: Vec<_> = self.portal.table.keys().copied().collect();
        let resources: Vec<_> = ids.into_iter().map(|id| self.for_client(id)).collect();
        let new: BTreeMap<_, _> = resources
            .iter()
            .map(|resource| (resource.id(), resource.clone()))
            .collect();
        let former = std::mem::replace(&mut self.law.resources, new);
        let resources_now = &self.law.resources;
        self.law
            .served
            .retain(|(id, _)| former.get(id) == resources_now.get(id));
        self.law.ever.extend(resources.iter().cloned());
        let init = client::Init {
            interface: client::Interface {
                ipv4: v4(CLIENT_V4),
                ipv6: v6(CLIENT_V6),
                search_domain: None,
                upstream_dns: Vec::new(),
                upstream_do53: Vec::new(),
                upstream_doh: Vec::new(),
                upstream_dot: Vec::new(),
            },
            resources,
            relays: vec![relay("clnt")],
            authorizations: None,
            flow_logs: None,
        };
        self.client
            .handle_message(self.now, client::FromPortal::Init(init));
        self.settle();
    }

    /// A resource is new, or another: for the client, and its filters for the gateway.
    pub(super) fn change(&mut self, id: ResourceId, reach: Reach, filters: Vec<Filter>) {
        self.portal.table.insert(id, (reach, filters));
        let resource = self.for_client(id);
        if self.law.resources.insert(id, resource.clone()).as_ref() != Some(&resource) {
            self.law.served.retain(|(served, _)| *served != id);
        }
        self.law.ever.push(resource.clone());
        let message = client::FromPortal::ResourceCreatedOrUpdated(resource);
        self.client.handle_message(self.now, message);
        self.settle();
        let updated = self.for_gateway(id);
        self.law.update_filters(&updated);
        self.gateway
            .handle_message(self.now, gateway::FromPortal::ResourceUpdated(updated));
        self.settle();
    }

    /// The client has a resource no longer. The gateway hears of that, or not yet.
    pub(super) fn delete(&mut self, id: ResourceId) {
        self.portal.table.remove(&id);
        self.law.resources.remove(&id);
        self.law.served.retain(|(served, _)| *served != id);
        self.client
            .handle_message(self.now, client::FromPortal::ResourceDeleted(id));
        self.settle();
    }

    pub(super) fn reject(&mut self, client_id: ClientId, resource_id: ResourceId) {
        self.law.grants.remove(&(client_id, resource_id));
        let message = gateway::FromPortal::RejectAccess(RejectAccess {
            client_id,
            resource_id,
        });
        self.gateway.handle_message(self.now, message);
        self.settle();
    }

    /// The gateway is to let a client in.
    pub(super) fn grant(&mut self, holder: ClientId, id: ResourceId, until: Option<u64>) {
        if !self.portal.table.contains_key(&id) {
            return;
        }
        let resource = self.for_gateway(id);
        let addresses = match holder == CLIENT || self.portal.doubles {
            true => (v4(CLIENT_V4), v6(CLIENT_V6)),
            false => (v4(ROGUE_V4), v6(ROGUE_V6)),
        };
        let as_ips = [IpAddr::V4(addresses.0), IpAddr::V6(addresses.1)];
        if self
            .law
            .clients
            .insert(holder, as_ips)
            .is_some_and(|former| former != as_ips)
        {
            self.law.grants.retain(|(client, _), _| *client != holder);
        }
        let end = until.map(|secs| self.start + std::time::Duration::from_secs(secs.min(YEAR)));
        self.law
            .grants
            .insert((holder, id), (resource.clone(), end));
        let create = CreateAuthorization {
            reference: "r".to_owned(),
            resource,
            client: gateway::Client {
                id: holder,
                public_key: self.keys_of(holder),
                preshared_key: PresharedKey::new(PSK),
                ipv4: addresses.0,
                ipv6: addresses.1,
            },
            client_ice_credentials: credentials("clnt"),
            gateway_ice_credentials: credentials("gate"),
            expires_at: until.map(unix),
            use_iceless: Some(false),
            flow_logs_ingest_token: Some(String::new()),
        };
        self.gateway
            .handle_message(self.now, gateway::FromPortal::CreateAuthorization(create));
    }

    /// Does what the policy says to what was asked, and passes on what the two ends tell each other.
    pub(super) fn serve_portal(&mut self) -> bool {
        let mut had_news = false;
        while let Some(message) = self.client.poll_message() {
            had_news = true;
            match message {
                client::ToPortal::RequestAuthorization(request) => self.decide(request.resource_id),
                client::ToPortal::NewIceCandidates(told) if told.gateway_id == GATEWAY => {
                    self.gateway.handle_message(
                        self.now,
                        gateway::FromPortal::IceCandidates(of_client(told)),
                    );
                }
                client::ToPortal::InvalidateIceCandidates(told) if told.gateway_id == GATEWAY => {
                    let told = of_client(told);
                    self.gateway.handle_message(
                        self.now,
                        gateway::FromPortal::InvalidateIceCandidates(told),
                    );
                }
                _ => {}
            }
        }
        while let Some(message) = self.gateway.poll_message() {
            had_news = true;
            match message {
                gateway::ToPortal::BroadcastIceCandidates(told)
                    if told.client_ids.contains(&CLIENT) =>
                {
                    let told = of_gateway(told);
                    self.client
                        .handle_message(self.now, client::FromPortal::IceCandidates(told));
                }
                gateway::ToPortal::BroadcastInvalidatedIceCandidates(told)
                    if told.client_ids.contains(&CLIENT) =>
                {
                    let told = of_gateway(told);
                    self.client.handle_message(
                        self.now,
                        client::FromPortal::InvalidateIceCandidates(told),
                    );
                }
                _ => {}
            }
        }

        had_news
    }

    /// The client wants the Internet no longer: nothing of it may come in.
    pub(super) fn give_up_internet(&mut self) {
        let resources = &self.law.resources;
        self.law
            .served
            .retain(|(id, _)| !matches!(resources.get(id), Some(Resource::Internet(_))));
    }

    fn decide(&mut self, resource_id: ResourceId) {
        let message = match self.portal.policy {
            Policy::SayNothing => return,
            Policy::Refuse(reason) => {
                client::FromPortal::AuthorizationCreationFailed(AuthorizationCreationFailed {
                    resource_id,
                    reason,
                    violated_properties: Vec::new(),
                })
            }
            Policy::Grant(gateway_id) => {
                if gateway_id == GATEWAY {
                    self.grant(CLIENT, resource_id, self.portal.until);
                }
                self.law.served.insert((resource_id, gateway_id));
                let [ipv4, ipv6] = super::addresses_of(gateway_id);
                let (IpAddr::V4(gateway_ipv4), IpAddr::V6(gateway_ipv6)) = (ipv4, ipv6) else {
                    return;
                };
                client::FromPortal::AuthorizationCreated(AuthorizationCreated {
                    resource_id,
                    gateway_id,
                    gateway_public_key: self.key_of_gateway(gateway_id),
                    gateway_ipv4,
                    gateway_ipv6,
                    preshared_key: PresharedKey::new(PSK),
                    client_ice_credentials: credentials("clnt"),
                    gateway_ice_credentials: credentials("gate"),
                    site_id: SiteId(Uuid::from_u128(9)),
                    use_iceless: Some(false),
                    flow_logs_ingest_token: Some(String::new()),
                })
            }
        };
        self.client.handle_message(self.now, message);
    }
}

/// How far ahead ends of grants are kept apart, in seconds.
const YEAR: u64 = 365 * 24 * 3_600;

/// What the portal writes for a number of seconds after the start; the largest numbers as they are.
fn unix(secs: u64) -> u64 {
    super::world::UNIX.as_secs().saturating_add(secs)
}

pub(super) fn resource_id(n: u8) -> ResourceId {
    ResourceId(Uuid::from_u128(100 + u128::from(n)))
}

pub(super) fn relay_config() -> Config {
    Config {
        public_v4: Some([203, 0, 113, 9].into()),
        public_v6: None,
        listen_port: 3478,
        ports: 49_152..=49_215,
        credentials: Credentials::Stamped(Secret::from(RELAY_SECRET)),
        loopback_peers: LoopbackPeers::Refused,
        private_peers: PrivatePeers::Allowed,
    }
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// Everybody who may be granted something, and every gateway.
pub(super) const HOLDERS: [ClientId; 2] = [CLIENT, ROGUE];
pub(super) const GATEWAYS: [GatewayId; 2] = [GATEWAY, ROGUE_GATEWAY];

//! Everything, for people and scripts to see. No secret is in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use connlib_wire::id::{ClientId, GatewayId, RelayId, ResourceId, SiteId};
use connlib_wire::portal::resource::IpStack;
use serde::{Deserialize, Serialize};

use crate::model::{
    ActorId, Address, Directory, GrantId, PolicyId, Resource, Token, TokenId, TokenKind,
    filter_text,
};
use crate::state::{Presence, Version};

/// Everything. Lists are ordered by name.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Show {
    /// The network's settings.
    pub network: ShownNetwork,
    /// All sites.
    pub sites: Vec<ShownSite>,
    /// All gateways that ever connected.
    pub gateways: Vec<ShownGateway>,
    /// The relays that are connected.
    pub relays: Vec<ShownRelay>,
    /// All actors.
    pub actors: Vec<ShownActor>,
    /// All clients that ever connected.
    pub clients: Vec<ShownClient>,
    /// All resources.
    pub resources: Vec<ShownResource>,
    /// All policies.
    pub policies: Vec<ShownPolicy>,
    /// All tokens, in the order they were made.
    pub tokens: Vec<ShownToken>,
    /// The grants that are in force.
    pub grants: Vec<ShownGrant>,
}

/// The network's settings.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownNetwork {
    /// Resolvers over plain DNS.
    pub upstream_do53: Vec<IpAddr>,
    /// Resolvers over HTTPS.
    pub upstream_doh: Vec<String>,
    /// Resolvers over TLS.
    #[serde(default)]
    pub upstream_dot: Vec<String>,
    /// The domain that single-label names are completed with.
    pub search_domain: Option<String>,
}

/// A site.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownSite {
    /// Its id.
    pub id: SiteId,
    /// Its name.
    pub name: String,
}

/// A gateway.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownGateway {
    /// Its id.
    pub id: GatewayId,
    /// Its name.
    pub name: String,
    /// What it calls itself.
    pub external_id: String,
    /// Its site's name.
    pub site: String,
    /// Whether it is connected.
    pub online: bool,
    /// The version that its program names, if it is connected and that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its tunnel address.
    pub ipv4: Ipv4Addr,
    /// Its tunnel address.
    pub ipv6: Ipv6Addr,
}

/// A relay. One that isn't connected isn't known.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownRelay {
    /// Its id.
    pub id: RelayId,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

/// An actor.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownActor {
    /// Its id.
    pub id: ActorId,
    /// Its name.
    pub name: String,
    /// The groups it is in.
    pub groups: Vec<String>,
}

/// A client.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownClient {
    /// Its id.
    pub id: ClientId,
    /// Its name.
    pub name: String,
    /// What it calls itself.
    pub external_id: String,
    /// Its actor's name.
    pub actor: String,
    /// Whether an admin marked it as verified.
    #[serde(default)]
    pub verified: bool,
    /// Whether it is connected.
    pub online: bool,
    /// The version that its program names, if it is connected and that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its tunnel address.
    pub ipv4: Ipv4Addr,
    /// Its tunnel address.
    pub ipv6: Ipv6Addr,
}

/// A resource.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownResource {
    /// Its id.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// `cidr`, `dns` or `internet`.
    pub r#type: String,
    /// What it stands for, as in the topology file.
    pub address: String,
    /// The address families that names resolve to; only for `dns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_stack: Option<IpStack>,
    /// Its sites' names.
    pub sites: Vec<String>,
    /// What may pass, as in the topology file; empty for everything.
    pub filters: Vec<String>,
}

/// A policy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownPolicy {
    /// Its id.
    pub id: PolicyId,
    /// Who.
    pub group: String,
    /// The resource's name.
    pub resource: String,
    /// When and from where, in words; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

/// A token, without its secret.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownToken {
    /// Its id.
    pub id: TokenId,
    /// `client`, `gateway` or `relay`.
    pub kind: String,
    /// The name of its actor or site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it ends, in Unix seconds.
    pub expires_at: Option<u64>,
    /// When it was revoked, in Unix seconds.
    pub revoked_at: Option<u64>,
    /// Whether it opens anything now.
    pub usable: bool,
}

/// A grant that is in force.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownGrant {
    /// Its id.
    pub id: GrantId,
    /// The client's id.
    pub client_id: ClientId,
    /// The client's name.
    pub client: String,
    /// The resource's name.
    pub resource: String,
    /// The gateway's id.
    pub gateway_id: GatewayId,
    /// The gateway's name.
    pub gateway: String,
    /// The policy that decided.
    pub policy_id: PolicyId,
    /// When it ends, in Unix seconds. `None` means when it is revoked.
    pub expires_at: Option<u64>,
}

impl Show {
    /// Everything that `directory` keeps, and who of it is connected, at `unix` (seconds).
    pub fn of(directory: &Directory, presence: &Presence, unix: u64) -> Self {
        let network = directory.network();
        let mut show = Self {
            network: ShownNetwork {
                upstream_do53: network.do53.clone(),
                upstream_doh: network.doh.clone(),
                upstream_dot: network.dot.clone(),
                search_domain: network.search_domain.clone(),
            },
            relays: (presence.relays.iter())
                .map(|relay| ShownRelay {
                    id: relay.id,
                    addresses: relay.addresses.clone(),
                })
                .collect(),
            ..Self::default()
        };
        show.add_topology(directory);
        show.add_devices(directory, presence);
        show.add_tokens(directory, unix);
        show.add_grants(directory, unix);

        show.sites.sort_by(|a, b| a.name.cmp(&b.name));
        show.actors.sort_by(|a, b| a.name.cmp(&b.name));
        show.resources.sort_by(|a, b| a.name.cmp(&b.name));
        (show.policies).sort_by(|a, b| (&a.group, &a.resource).cmp(&(&b.group, &b.resource)));
        show.gateways.sort_by(|a, b| a.name.cmp(&b.name));
        show.clients.sort_by(|a, b| a.name.cmp(&b.name));
        show.tokens.sort_by_key(|token| token.created_at);
        (show.grants).sort_by(|a, b| (&a.client, &a.resource).cmp(&(&b.client, &b.resource)));

        show
    }

    fn add_topology(&mut self, directory: &Directory) {
        let sites = directory.sites().values();
        self.sites.extend(sites.map(|site| ShownSite {
            id: site.id,
            name: site.name.clone(),
        }));
        let actors = directory.actors().values();
        self.actors.extend(actors.map(|actor| ShownActor {
            id: actor.id,
            name: actor.name.clone(),
            groups: actor.groups.iter().cloned().collect(),
        }));
        let resources = directory.resources().values();
        (self.resources).extend(resources.map(|resource| shown_resource(directory, resource)));
        let policies = directory.policies().values();
        self.policies.extend(policies.map(|policy| {
            ShownPolicy {
                id: policy.id,
                group: policy.group.clone(),
                resource: resource_name(directory, policy.resource),
                conditions: (policy.conditions.iter())
                    .map(ToString::to_string)
                    .collect(),
            }
        }));
    }

    fn add_devices(&mut self, directory: &Directory, presence: &Presence) {
        let gateways = directory.gateways().values();
        self.gateways.extend(gateways.map(|gateway| ShownGateway {
            id: gateway.id,
            name: gateway.device.name.clone(),
            external_id: gateway.device.external_id.clone(),
            site: site_name(directory, gateway.site),
            online: presence.gateways.contains_key(&gateway.id),
            version: version(presence.gateways.get(&gateway.id)),
            ipv4: gateway.device.addresses.ipv4,
            ipv6: gateway.device.addresses.ipv6,
        }));
        let clients = directory.clients().values();
        self.clients.extend(clients.map(|client| ShownClient {
            id: client.id,
            name: client.device.name.clone(),
            external_id: client.device.external_id.clone(),
            actor: actor_name(directory, client.actor),
            verified: client.verified,
            online: presence.clients.contains_key(&client.id),
            version: version(presence.clients.get(&client.id)),
            ipv4: client.device.addresses.ipv4,
            ipv6: client.device.addresses.ipv6,
        }));
    }

    fn add_tokens(&mut self, directory: &Directory, unix: u64) {
        let tokens = directory.tokens().values();
        self.tokens.extend(tokens.map(|token| {
            let (kind, owner) = kind_and_owner(directory, token);
            ShownToken {
                id: token.id,
                kind: kind.to_owned(),
                owner,
                created_at: token.created_at,
                expires_at: token.expires_at,
                revoked_at: token.revoked_at,
                usable: token.is_usable(unix),
            }
        }));
    }

    fn add_grants(&mut self, directory: &Directory, unix: u64) {
        let grants = directory.grants().values();
        let live = grants.filter(|grant| grant.is_live(unix));
        self.grants.extend(live.map(|grant| {
            let client = directory.clients().get(&grant.key.client);
            let gateway = directory.gateways().get(&grant.key.gateway);
            ShownGrant {
                id: grant.id,
                client_id: grant.key.client,
                client: client.map_or_else(String::new, |client| client.device.name.clone()),
                resource: resource_name(directory, grant.key.resource),
                gateway_id: grant.key.gateway,
                gateway: gateway.map_or_else(String::new, |gateway| gateway.device.name.clone()),
                policy_id: grant.policy,
                expires_at: grant.expires_at,
            }
        }));
    }
}

fn shown_resource(directory: &Directory, resource: &Resource) -> ShownResource {
    let (kind, ip_stack) = match &resource.address {
        Address::Cidr(_) => ("cidr", None),
        Address::Dns { ip_stack, .. } => ("dns", Some(*ip_stack)),
        Address::Internet => ("internet", None),
    };

    ShownResource {
        id: resource.id,
        name: resource.name.clone(),
        r#type: kind.to_owned(),
        address: resource.address.to_string(),
        ip_stack,
        sites: (resource.sites.iter())
            .map(|site| site_name(directory, *site))
            .collect(),
        filters: resource.filters.iter().map(filter_text).collect(),
    }
}

fn kind_and_owner(directory: &Directory, token: &Token) -> (&'static str, Option<String>) {
    match token.kind {
        TokenKind::Client(actor) => ("client", Some(actor_name(directory, actor))),
        TokenKind::Gateway(site) => ("gateway", Some(site_name(directory, site))),
        TokenKind::Relay => ("relay", None),
    }
}

fn site_name(directory: &Directory, id: SiteId) -> String {
    let site = directory.sites().get(&id);

    site.map_or_else(String::new, |site| site.name.clone())
}

fn actor_name(directory: &Directory, id: ActorId) -> String {
    let actor = directory.actors().get(&id);

    actor.map_or_else(String::new, |actor| actor.name.clone())
}

fn resource_name(directory: &Directory, id: ResourceId) -> String {
    let resource = directory.resources().get(&id);

    resource.map_or_else(String::new, |resource| resource.name.clone())
}

fn version(session: Option<&Option<Version>>) -> Option<String> {
    session
        .copied()
        .flatten()
        .map(|version| version.to_string())
}

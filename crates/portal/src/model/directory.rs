//! Everything the portal keeps, and the only way to change it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use connlib_wire::id::{ClientId, GatewayId, ResourceId, SiteId};
use connlib_wire::portal::TunnelAddresses;
use uuid::Uuid;

use super::{
    Account, Actor, ActorId, Client, Gateway, Grant, GrantKey, Network, Policy, PolicyId, Resource,
    Site, Token, TokenId, TokenKind,
};

/// The first address of the tunnel's IPv4 range, `100.64.0.0/11` (portal-protocol.md §4).
const FIRST_IPV4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);

/// The first address of the tunnel's IPv6 range, `fd00:2021:1111::/107`.
const FIRST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0);

/// The last number of a device: both ranges have 21 free bits, and the last IPv4 address stays unused.
const LAST_NUMBER: u32 = (1 << 21) - 2;

/// Everything the portal keeps, by id.
///
/// Reading is free; changing goes through [`Directory::apply`], so that a directory and the file it is stored in see
/// the same edits in the same order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Directory {
    account: Account,
    network: Network,
    sites: BTreeMap<SiteId, Site>,
    actors: BTreeMap<ActorId, Actor>,
    resources: BTreeMap<ResourceId, Resource>,
    policies: BTreeMap<PolicyId, Policy>,
    tokens: BTreeMap<TokenId, Token>,
    clients: BTreeMap<ClientId, Client>,
    gateways: BTreeMap<GatewayId, Gateway>,
    grants: BTreeMap<GrantKey, Grant>,

    clients_by_owner: BTreeMap<(ActorId, String), ClientId>,
    gateways_by_owner: BTreeMap<(SiteId, String), GatewayId>,
    numbers: BTreeSet<u32>,
}

/// One change. Putting something replaces what has the same id; dropping something that isn't there does nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Edit {
    /// Replaces the network's settings.
    SetNetwork(Network),
    /// Adds or replaces a site.
    PutSite(Site),
    /// Drops a site, its gateways and its tokens. No resource may name it any longer.
    DropSite(SiteId),
    /// Adds or replaces an actor.
    PutActor(Actor),
    /// Drops an actor, its clients and its tokens.
    DropActor(ActorId),
    /// Adds or replaces a resource, whose sites are there.
    PutResource(Resource),
    /// Drops a resource, its policies and its grants.
    DropResource(ResourceId),
    /// Adds or replaces a policy, whose resource is there.
    PutPolicy(Policy),
    /// Drops a policy and the grants that it decided.
    DropPolicy(PolicyId),
    /// Adds or replaces a token, whose actor or site is there. One that isn't usable any longer keeps its grants.
    PutToken(Token),
    /// Adds or replaces a client, whose actor is there. Its owner, external id and addresses never change.
    PutClient(Client),
    /// Adds or replaces a gateway, whose site is there. Its owner, external id and addresses never change.
    PutGateway(Gateway),
    /// Adds or replaces a grant, all of whose parts are there.
    PutGrant(Grant),
    /// Drops a grant.
    DropGrant(GrantKey),
}

impl Directory {
    /// An account with nothing in it.
    pub fn new(account: Account) -> Self {
        Self {
            account,
            network: Network::default(),
            sites: BTreeMap::new(),
            actors: BTreeMap::new(),
            resources: BTreeMap::new(),
            policies: BTreeMap::new(),
            tokens: BTreeMap::new(),
            clients: BTreeMap::new(),
            gateways: BTreeMap::new(),
            grants: BTreeMap::new(),
            clients_by_owner: BTreeMap::new(),
            gateways_by_owner: BTreeMap::new(),
            numbers: BTreeSet::new(),
        }
    }

    /// Makes one change, and all that follow from it.
    pub fn apply(&mut self, edit: &Edit) {
        match edit.clone() {
            Edit::SetNetwork(network) => self.network = network,
            Edit::PutSite(site) => {
                self.sites.insert(site.id, site);
            }
            Edit::DropSite(id) => self.drop_site(id),
            Edit::PutActor(actor) => {
                self.actors.insert(actor.id, actor);
            }
            Edit::DropActor(id) => self.drop_actor(id),
            Edit::PutResource(resource) => {
                self.resources.insert(resource.id, resource);
            }
            Edit::DropResource(id) => {
                self.resources.remove(&id);
                self.policies.retain(|_, policy| policy.resource != id);
                self.grants.retain(|key, _| key.resource != id);
            }
            Edit::PutPolicy(policy) => {
                self.policies.insert(policy.id, policy);
            }
            Edit::DropPolicy(id) => {
                self.policies.remove(&id);
                self.grants.retain(|_, grant| grant.policy != id);
            }
            Edit::PutToken(token) => {
                self.tokens.insert(token.id, token);
            }
            Edit::PutClient(client) => self.put_client(client),
            Edit::PutGateway(gateway) => self.put_gateway(gateway),
            Edit::PutGrant(grant) => {
                self.grants.insert(grant.key, grant);
            }
            Edit::DropGrant(key) => {
                self.grants.remove(&key);
            }
        }
    }

    /// The account.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The network's settings.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// All sites.
    pub fn sites(&self) -> &BTreeMap<SiteId, Site> {
        &self.sites
    }

    /// All actors.
    pub fn actors(&self) -> &BTreeMap<ActorId, Actor> {
        &self.actors
    }

    /// All resources.
    pub fn resources(&self) -> &BTreeMap<ResourceId, Resource> {
        &self.resources
    }

    /// All policies.
    pub fn policies(&self) -> &BTreeMap<PolicyId, Policy> {
        &self.policies
    }

    /// All tokens, those that are revoked or over too.
    pub fn tokens(&self) -> &BTreeMap<TokenId, Token> {
        &self.tokens
    }

    /// All clients that ever connected.
    pub fn clients(&self) -> &BTreeMap<ClientId, Client> {
        &self.clients
    }

    /// All gateways that ever connected.
    pub fn gateways(&self) -> &BTreeMap<GatewayId, Gateway> {
        &self.gateways
    }

    /// All grants; some may be over.
    pub fn grants(&self) -> &BTreeMap<GrantKey, Grant> {
        &self.grants
    }

    /// The grants of one client.
    pub fn grants_of(&self, client: ClientId) -> impl Iterator<Item = &Grant> {
        let first = GrantKey {
            client,
            resource: ResourceId(Uuid::nil()),
            gateway: GatewayId(Uuid::nil()),
        };

        self.grants
            .range(first..)
            .take_while(move |(key, _)| key.client == client)
            .map(|(_, grant)| grant)
    }

    /// The site called `name`.
    pub fn site_named(&self, name: &str) -> Option<&Site> {
        self.sites.values().find(|site| site.name == name)
    }

    /// The actor called `name`.
    pub fn actor_named(&self, name: &str) -> Option<&Actor> {
        self.actors.values().find(|actor| actor.name == name)
    }

    /// The resource called `name`.
    pub fn resource_named(&self, name: &str) -> Option<&Resource> {
        self.resources
            .values()
            .find(|resource| resource.name == name)
    }

    /// The client of `actor` that calls itself `external_id`.
    pub fn client_of(&self, actor: ActorId, external_id: &str) -> Option<&Client> {
        let id = self
            .clients_by_owner
            .get(&(actor, external_id.to_owned()))?;

        self.clients.get(id)
    }

    /// The gateway of `site` that calls itself `external_id`.
    pub fn gateway_of(&self, site: SiteId, external_id: &str) -> Option<&Gateway> {
        let id = self
            .gateways_by_owner
            .get(&(site, external_id.to_owned()))?;

        self.gateways.get(id)
    }

    /// Addresses for one more device. `None` if all are taken.
    ///
    /// Goes upwards from the last device's, so that an address that became free rests as long as possible.
    pub fn free_addresses(&self) -> Option<TunnelAddresses> {
        let next = self.numbers.last().map_or(1, |last| last + 1);
        let number = if next <= LAST_NUMBER {
            next
        } else {
            (1..=LAST_NUMBER).find(|number| !self.numbers.contains(number))?
        };

        Some(addresses_of(number))
    }

    fn drop_site(&mut self, id: SiteId) {
        self.sites.remove(&id);
        self.tokens
            .retain(|_, token| token.kind != TokenKind::Gateway(id));

        let gone: BTreeSet<GatewayId> = (self.gateways)
            .extract_if(.., |_, gateway| gateway.site == id)
            .map(|(gateway, Gateway { device, .. })| {
                self.numbers.remove(&number_of(device.addresses));
                gateway
            })
            .collect();
        self.gateways_by_owner.retain(|(site, _), _| *site != id);
        self.grants.retain(|key, _| !gone.contains(&key.gateway));
    }

    fn drop_actor(&mut self, id: ActorId) {
        self.actors.remove(&id);
        self.tokens
            .retain(|_, token| token.kind != TokenKind::Client(id));

        let gone: BTreeSet<ClientId> = (self.clients)
            .extract_if(.., |_, client| client.actor == id)
            .map(|(client, Client { device, .. })| {
                self.numbers.remove(&number_of(device.addresses));
                client
            })
            .collect();
        self.clients_by_owner.retain(|(actor, _), _| *actor != id);
        self.grants.retain(|key, _| !gone.contains(&key.client));
    }

    fn put_client(&mut self, client: Client) {
        let owner = (client.actor, client.device.external_id.clone());
        self.clients_by_owner.insert(owner, client.id);
        self.numbers.insert(number_of(client.device.addresses));
        self.clients.insert(client.id, client);
    }

    fn put_gateway(&mut self, gateway: Gateway) {
        let owner = (gateway.site, gateway.device.external_id.clone());
        self.gateways_by_owner.insert(owner, gateway.id);
        self.numbers.insert(number_of(gateway.device.addresses));
        self.gateways.insert(gateway.id, gateway);
    }
}

fn addresses_of(number: u32) -> TunnelAddresses {
    TunnelAddresses {
        ipv4: Ipv4Addr::from_bits(FIRST_IPV4.to_bits() + number),
        ipv6: Ipv6Addr::from_bits(FIRST_IPV6.to_bits() + u128::from(number)),
    }
}

fn number_of(addresses: TunnelAddresses) -> u32 {
    addresses.ipv4.to_bits().wrapping_sub(FIRST_IPV4.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_in_pairs_from_the_bottom_of_their_ranges() {
        let first = addresses_of(1);
        assert_eq!(first.ipv4, Ipv4Addr::new(100, 64, 0, 1));
        assert_eq!(first.ipv6, "fd00:2021:1111::1".parse::<Ipv6Addr>().unwrap());

        let last = addresses_of(LAST_NUMBER);
        assert_eq!(last.ipv4, Ipv4Addr::new(100, 95, 255, 254));
        assert_eq!(
            last.ipv6,
            "fd00:2021:1111::1f:fffe".parse::<Ipv6Addr>().unwrap()
        );
        assert_eq!(number_of(last), LAST_NUMBER);
    }

    #[test]
    fn a_free_address_rests_until_the_range_is_used_up() {
        let mut directory = Directory::new(crate::tests::account());
        directory.numbers.extend([1, 2, 5]);
        assert_eq!(directory.free_addresses(), Some(addresses_of(6)));

        directory.numbers.insert(LAST_NUMBER);
        assert_eq!(directory.free_addresses(), Some(addresses_of(3)));

        directory.numbers.extend(1..=LAST_NUMBER);
        assert_eq!(directory.free_addresses(), None);
    }
}

//! What the client may reach, and which of it an address belongs to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use connlib_wire::dns::Name;
use connlib_wire::id::ResourceId;
use connlib_wire::ip::Transport;
use connlib_wire::pattern::{Pattern, PatternIndex};
use connlib_wire::portal::resource::{Filter, IpStack, Resource, Site};
use ipnet::IpNet;

use super::sites::{Reachability, Sites};
use crate::networks::{Choice, Networks, Wanted};
use crate::ranges;

/// A resource as people see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResourceView {
    /// Its id.
    pub id: ResourceId,
    /// What people call it.
    pub name: String,
    /// Its network or pattern; the Internet has none.
    pub address: Option<String>,
    /// A hint for people.
    pub description: Option<String>,
    /// Where its gateways are.
    pub sites: Vec<Site>,
    /// Whether it can be reached, as far as is known.
    pub reach: Reachability,
}

#[derive(Debug, Default)]
pub(super) struct Resources {
    by_id: BTreeMap<ResourceId, Resource>,
    networks: Networks,
    /// What is reached by all other addresses, while that is wanted.
    internet: Option<ResourceId>,
    is_internet_wanted: bool,
    patterns: PatternIndex<ResourceId>,
    /// What names were found to match since resources changed last.
    named: HashMap<Name, Arc<[ResourceId]>>,
    /// The patterns that make no sense, and were said to.
    complained: BTreeSet<(ResourceId, String)>,
    complaints: Vec<String>,
}

/// How many names it is remembered for what they match.
const MAX_NAMED: usize = 16_384;

impl Resources {
    pub(super) fn contains(&self, id: ResourceId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// The resource of a packet to an address that stands for no name: one with a network, else the Internet (client.md §5.3).
    pub(super) fn choose(&mut self, wanted: Wanted) -> Option<Choice> {
        let of_internet = self.internet.map(|resource| Choice {
            resource,
            is_permitted: true,
        });

        self.networks.choose(wanted).or(of_internet)
    }

    /// Whether a resource is the Internet, and wanted.
    pub(super) fn is_internet(&self, id: ResourceId) -> bool {
        self.internet == Some(id)
    }

    /// Whether questions may pass to a name server through a gateway, whichever way (client.md §4.6).
    pub(super) fn carries_questions(&mut self, server: SocketAddr) -> bool {
        [Transport::Udp, Transport::Tcp]
            .into_iter()
            .all(|transport| {
                let wanted = (server.ip(), transport, Some(server.port()));
                let choice = self.choose(wanted);
                choice.is_some_and(|choice| choice.is_permitted)
            })
    }

    pub(super) fn wants_internet(&self) -> bool {
        self.is_internet_wanted
    }

    /// Whether addresses that belong to no other resource are reached as the Internet; the resources that no longer are.
    pub(super) fn want_internet(&mut self, is_wanted: bool) -> Vec<ResourceId> {
        self.is_internet_wanted = is_wanted;
        self.rebuild();
        let internets = self.by_id.values().filter_map(|resource| match resource {
            Resource::Internet(resource) => Some(resource.id),
            Resource::Cidr(_) | Resource::Dns(_) | _ => None,
        });

        internets.filter(|_| !is_wanted).collect()
    }

    /// The resources that a name belongs to, the one with the most specific pattern first; of equal patterns, the one with the
    /// greater id.
    pub(super) fn named(&mut self, name: &Name) -> Arc<[ResourceId]> {
        if let Some(known) = self.named.get(name) {
            return Arc::clone(known);
        }
        let found = self.patterns.matches(name).into_iter();
        let found: Arc<[ResourceId]> = found.map(|(_, id)| *id).collect();
        if self.named.len() >= MAX_NAMED {
            self.named.clear();
        }
        self.named.insert(name.clone(), Arc::clone(&found));

        found
    }

    /// What may pass to a resource.
    pub(super) fn filters(&self, id: ResourceId) -> &[Filter] {
        match self.by_id.get(&id) {
            Some(Resource::Dns(resource)) => &resource.filters,
            Some(Resource::Cidr(resource)) => &resource.filters,
            Some(_) | None => &[],
        }
    }

    /// The resources whose networks hold an address.
    pub(super) fn covering(&self, ip: IpAddr) -> Vec<ResourceId> {
        self.networks.covering(ip)
    }

    /// Whether there is the Internet, and it is wanted.
    pub(super) fn has_internet(&self) -> bool {
        self.internet.is_some()
    }

    /// A resource as people see it.
    pub(super) fn view(&self, id: ResourceId, sites: &Sites) -> Option<ResourceView> {
        self.by_id.get(&id).map(|resource| view(resource, sites))
    }

    /// Which addresses the names of a resource have.
    pub(super) fn ip_stack(&self, id: ResourceId) -> IpStack {
        match self.by_id.get(&id) {
            Some(Resource::Dns(resource)) => resource.ip_stack,
            Some(_) | None => IpStack::Dual,
        }
    }

    /// What is wrong with resources that can never be reached; each is said once.
    pub(super) fn take_complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Whether `ip` lies in the network of the resource `id`.
    pub(super) fn covers(&self, id: ResourceId, ip: IpAddr) -> bool {
        match self.by_id.get(&id) {
            Some(Resource::Cidr(resource)) => resource.address.contains(&ip),
            // Routers on the way have addresses of any kind.
            Some(Resource::Internet(_)) => !ranges::is_tunnel(ip) && !ranges::is_proxy(ip),
            Some(_) | None => false,
        }
    }

    /// Takes in a new or changed resource; its id if it is not what it was, so that what was granted no longer holds.
    pub(super) fn upsert(&mut self, resource: Resource) -> Option<ResourceId> {
        let id = resource.id();
        let former = self.by_id.insert(id, resource);
        self.rebuild();
        let (former, new) = (former?, self.by_id.get(&id)?);

        (!reaches_the_same(&former, new)).then_some(id)
    }

    pub(super) fn remove(&mut self, id: ResourceId) {
        self.by_id.remove(&id);
        self.rebuild();
    }

    /// Takes in the whole list; those that are gone or no longer what they were. Never "clear and add": that would cut
    /// live traffic.
    pub(super) fn replace_all(&mut self, resources: Vec<Resource>) -> Vec<ResourceId> {
        let new: BTreeMap<_, _> = resources
            .into_iter()
            .map(|resource| (resource.id(), resource))
            .collect();
        let former = std::mem::replace(&mut self.by_id, new);
        self.rebuild();

        former
            .iter()
            .filter(|(id, former)| {
                !self
                    .by_id
                    .get(id)
                    .is_some_and(|new| reaches_the_same(former, new))
            })
            .map(|(id, _)| *id)
            .collect()
    }

    /// Every network, in order and once, and everything while there is the Internet.
    pub(super) fn networks(&self) -> impl Iterator<Item = IpNet> {
        let everything = self.internet.map(|_| ranges::EVERYTHING);

        self.networks.iter().chain(everything.into_iter().flatten())
    }

    /// All resources, the Internet first, then by name and id.
    pub(super) fn views(&self, sites: &Sites) -> Vec<ResourceView> {
        let resources = self.by_id.values();
        let mut views: Vec<_> = resources.map(|resource| view(resource, sites)).collect();
        let place = |view: &ResourceView| (view.address.is_some(), view.name.clone(), view.id);
        views.sort_by_cached_key(place);

        views
    }

    /// Where the gateways of a resource are.
    pub(super) fn sites(&self, id: ResourceId) -> &[Site] {
        self.by_id.get(&id).map_or(&[], Resource::sites)
    }

    fn rebuild(&mut self) {
        self.networks.clear();
        self.internet = None;
        self.patterns.clear();
        self.named.clear();
        for resource in self.by_id.values() {
            match resource {
                Resource::Cidr(resource) => {
                    let filters = resource.filters.clone();
                    self.networks.insert(resource.address, resource.id, filters);
                }
                Resource::Internet(resource) => {
                    self.internet = Some(resource.id).filter(|_| self.is_internet_wanted);
                }
                Resource::Dns(resource) => match Pattern::parse(&resource.address) {
                    Ok(pattern) => self.patterns.insert(&pattern, resource.id),
                    Err(why) => {
                        let key = (resource.id, resource.address.clone());
                        if self.complained.insert(key) {
                            let (name, address) = (&resource.name, &resource.address);
                            self.complaints.push(format!(
                                "The resource {name:?} can't be reached: its address {address:?} is no pattern ({why})"
                            ));
                        }
                    }
                },
                _ => {}
            }
        }
    }
}

/// Whether two descriptions differ in what people see at most.
fn reaches_the_same(a: &Resource, b: &Resource) -> bool {
    match (a, b) {
        (Resource::Cidr(a), Resource::Cidr(b)) => {
            (a.address, &a.filters, &a.sites) == (b.address, &b.filters, &b.sites)
        }
        (Resource::Dns(a), Resource::Dns(b)) => {
            (&a.address, a.ip_stack, &a.filters, &a.sites)
                == (&b.address, b.ip_stack, &b.filters, &b.sites)
        }
        (Resource::Internet(a), Resource::Internet(b)) => a.sites == b.sites,
        _ => false,
    }
}

fn view(resource: &Resource, sites: &Sites) -> ResourceView {
    let (address, description) = match resource {
        Resource::Cidr(resource) => (
            Some(resource.address.to_string()),
            &resource.address_description,
        ),
        Resource::Dns(resource) => (
            Some(resource.address.clone()),
            &resource.address_description,
        ),
        Resource::Internet(_) | _ => (None, &None),
    };

    ResourceView {
        id: resource.id(),
        name: resource.name().to_owned(),
        address,
        description: description.clone(),
        sites: resource.sites().to_vec(),
        reach: sites.reach(resource.sites()),
    }
}

//! What an admin does to the portal, and what is in its store at first.

use std::time::Instant;

use connlib_portal::model::{Address, Edit, GrantKey, Network, Policy, PolicyId, Resource};
use connlib_wire::id::ResourceId;
use connlib_wire::portal::resource::{self, IpStack, PortRange};
use uuid::Uuid;

use super::{Portal, group, id};
use crate::scenario::{self, Filter, Protocol, Scenario, Stack, Upstream};

impl Portal {
    /// An admin lets a client into a resource, or no longer.
    pub(crate) fn set_policy(
        &mut self,
        (now, unix): (Instant, u64),
        scenario: &Scenario,
        client: usize,
        resource: usize,
        is_allowed: bool,
    ) {
        let edit = match (is_allowed, self.policies.remove(&(client, resource))) {
            (true, Some(policy)) => {
                self.policies.insert((client, resource), policy);
                return;
            }
            (true, None) => self.policy(scenario, client, resource),
            (false, Some(policy)) => Edit::DropPolicy(policy),
            (false, None) => return,
        };
        self.settle();
        self.edit((now, unix), &[edit]);
    }

    /// An admin changes what a resource stands for, or where it is: what was granted is void.
    pub(crate) fn change(
        &mut self,
        clock: (Instant, u64),
        number: usize,
        (name, stands_for): (&str, &scenario::Address),
        (passes, site): (&[Filter], &str),
    ) {
        let Some(id) = self.resource(number) else {
            return;
        };
        self.settle();
        let resource = Resource {
            id,
            name: name.to_owned(),
            address: address(stands_for),
            sites: self.sites.get(site).copied().into_iter().collect(),
            filters: filters(passes),
        };
        // Where only its filters are others, grants stand, and gateways are told of them.
        let former = self.stored.resources().get(&id);
        let is_same = former
            .is_some_and(|it| (&it.address, &it.sites) == (&resource.address, &resource.sites));
        let grants = self.stored.grants().keys().copied();
        let is_void = |key: &GrantKey| key.resource == id && !is_same;
        let void = grants.filter(is_void).map(Edit::DropGrant);
        let edits: Vec<Edit> = [Edit::PutResource(resource)]
            .into_iter()
            .chain(void)
            .collect();
        self.edit(clock, &edits);
    }

    /// An admin wants other name servers to be asked.
    pub(crate) fn set_upstream(&mut self, clock: (Instant, u64), upstream: &Upstream) {
        self.settle();
        self.edit(clock, &[Edit::SetNetwork(network(upstream))]);
    }

    fn edit(&mut self, (now, unix): (Instant, u64), edits: &[Edit]) {
        for edit in edits {
            self.stored.apply(edit);
        }
        if let Some(running) = &mut self.running {
            running.touch().handle_edits(now, unix, edits);
        }
    }

    pub(super) fn policy(&mut self, scenario: &Scenario, client: usize, resource: usize) -> Edit {
        let id = PolicyId(id(&mut self.rng));
        self.policies.insert((client, resource), id);
        let name = scenario
            .resources
            .get(resource)
            .map_or("?", |to| to.name.as_str());

        Edit::PutPolicy(Policy {
            id,
            group: group(scenario.host(client), name),
            resource: self.resource(resource).unwrap_or(ResourceId(Uuid::nil())),
            conditions: vec![],
        })
    }
}

pub(super) fn address(address: &scenario::Address) -> Address {
    match address {
        scenario::Address::Network(network) => Address::Cidr(*network),
        scenario::Address::Internet => Address::Internet,
        scenario::Address::Names { pattern, stack } => Address::Dns {
            pattern: pattern.clone(),
            ip_stack: match stack {
                Stack::Dual => IpStack::Dual,
                Stack::V4 => IpStack::Ipv4Only,
                Stack::V6 => IpStack::Ipv6Only,
            },
        },
    }
}

pub(super) fn filters(filters: &[Filter]) -> Vec<resource::Filter> {
    let filters = filters.iter().map(|filter| {
        let ports = PortRange {
            port_range_start: filter.first,
            port_range_end: filter.last,
        };
        match filter.protocol {
            Protocol::Tcp => resource::Filter::Tcp(ports),
            Protocol::Udp => resource::Filter::Udp(ports),
            Protocol::Icmp => resource::Filter::Icmp,
        }
    });

    filters.collect()
}

/// What the portal's core knows of name servers.
pub(super) fn network(upstream: &Upstream) -> Network {
    Network {
        do53: upstream.plain.clone(),
        doh: upstream.https.clone(),
        dot: upstream.tls.clone(),
        search_domain: upstream.search.clone(),
    }
}

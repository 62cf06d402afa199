//! Who may reach what, and when.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_wire::id::ResourceId;

use crate::limits::REVOKED;
use crate::scenario::{Address, Filter, Role, Scenario, Service, permit};

use super::pattern;
use super::routes::is_internet;

/// How much later than its wall-clock second an end may be noticed.
const END_SLACK: Duration = Duration::from_millis(1_200);

/// Each client's access to each resource.
pub(crate) struct Access {
    start: Instant,
    /// The changes of each, oldest first.
    changes: BTreeMap<(usize, usize), Vec<(Instant, bool)>>,
    /// What each resource stands for, and where it is, oldest first.
    resources: Vec<Vec<Version>>,
    /// What the portal calls them.
    ids: Vec<ResourceId>,
}

/// What a resource stands for, where it is, and what may pass to it.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) since: Instant,
    pub(crate) address: Address,
    pub(crate) filters: Vec<Filter>,
    pub(crate) site: String,
}

/// What a packet is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

/// A packet that came out of a gateway.
pub(crate) struct Arriving<'a> {
    /// What it is part of.
    pub(crate) what: &'a str,
    /// The client that it is from.
    pub(crate) client: usize,
    pub(crate) to: Destination<'a>,
    /// What it uses there.
    pub(crate) service: Service,
}

impl Access {
    pub(crate) fn new(scenario: &Scenario, start: Instant, ids: Vec<ResourceId>) -> Self {
        let mut access = Self {
            start,
            changes: BTreeMap::new(),
            resources: Vec::new(),
            ids,
        };
        for resource in &scenario.resources {
            access.resources.push(vec![Version {
                since: start,
                address: resource.address.clone(),
                filters: resource.filters.clone(),
                site: resource.site.clone(),
            }]);
        }
        for (number, resource) in scenario.resources.iter().enumerate() {
            for client in &resource.clients {
                access.set(start, (*client, number), true);
            }
        }

        access
    }

    /// A client is let in from here on, or no longer. Whoever is told so twice learns nothing.
    pub(crate) fn set(&mut self, now: Instant, key: (usize, usize), is_allowed: bool) {
        let changes = self.changes.entry(key).or_default();
        if changes.last().is_some_and(|(_, last)| *last) != is_allowed {
            changes.push((now, is_allowed));
        }
    }

    /// A resource stands for something else.
    pub(crate) fn change(&mut self, resource: usize, version: Version) {
        if let Some(versions) = self.resources.get_mut(resource) {
            versions.push(version);
        }
    }

    /// Which resource the portal calls so.
    pub(crate) fn number(&self, id: ResourceId) -> Option<usize> {
        self.ids.iter().position(|other| *other == id)
    }

    /// Whether `client` may reach `resource` at `at`, and since when that is so.
    pub(crate) fn state(&self, at: Instant, client: usize, resource: usize) -> (bool, Instant) {
        let changes = self.changes.get(&(client, resource));
        let last = changes.and_then(|changes| changes.iter().rev().find(|(since, _)| *since <= at));
        let changed_at = self
            .version(at, resource)
            .map_or(self.start, |version| version.since);

        last.map_or((false, self.start), |(since, is_allowed)| {
            (*is_allowed, changed_at.max(*since))
        })
    }

    /// What a resource stands for at `at`, and where it is.
    pub(crate) fn version(&self, at: Instant, resource: usize) -> Option<&Version> {
        let versions = self.resources.get(resource)?.iter();

        versions.rev().find(|version| version.since <= at)
    }

    /// The resources that a packet of a client may be part of at `at`: networks that contain it; of those with patterns, the
    /// most specific ones that the client may use.
    pub(crate) fn meant(&self, at: Instant, client: usize, to: Destination<'_>) -> Vec<usize> {
        let numbers = 0..self.resources.len();
        let covering = numbers.filter(|resource| self.covers(at, *resource, to));
        let mut covering: Vec<usize> = match to {
            Destination::Ip(_) => {
                let is_network = |it: &usize| {
                    let version = self.version(at, *it);
                    version.is_some_and(|it| it.address != Address::Internet)
                };
                let covering: Vec<usize> = covering.collect();
                let networks = covering.iter().copied().filter(is_network);
                let networks: Vec<usize> = networks.collect();
                if networks.is_empty() {
                    covering
                } else {
                    networks
                }
            }
            Destination::Name(_) => covering
                .filter(|resource| self.state(at, client, *resource).0)
                .collect(),
        };
        let pattern = |resource: usize| match self.version(at, resource).map(|it| &it.address) {
            Some(Address::Names { pattern, .. }) => pattern.as_str(),
            Some(Address::Network(_) | Address::Internet) | None => "",
        };
        if let Destination::Name(_) = to {
            covering.sort_by(|one, two| pattern::compare(pattern(*one), pattern(*two)));
            if let Some(first) = covering.first().map(|first| pattern(*first)) {
                covering.retain(|it| pattern::compare(pattern(*it), first).is_eq());
            }
        }

        covering
    }

    /// The same, whatever filters say: a packet that the most specific one doesn't let pass belongs to the next.
    pub(crate) fn may_mean(&self, at: Instant, client: usize, to: Destination<'_>) -> Vec<usize> {
        match to {
            Destination::Ip(_) => self.meant(at, client, to),
            Destination::Name(_) => (0..self.resources.len())
                .filter(|it| self.covers(at, *it, to) && self.state(at, client, *it).0)
                .collect(),
        }
    }

    /// Whether a resource has stood for a destination at any time.
    pub(crate) fn ever_covers(&self, resource: usize, to: Destination<'_>) -> bool {
        let versions = self.resources.get(resource).into_iter().flatten();

        versions
            .into_iter()
            .any(|version| self.covers(version.since, resource, to))
    }

    /// Whether any resource has let a service of a destination be used at any time.
    pub(crate) fn ever_passes(&self, to: Destination<'_>, service: Service) -> bool {
        (self.resources.iter().enumerate()).any(|(resource, versions)| {
            versions.iter().any(|version| {
                self.covers(version.since, resource, to) && permit(&version.filters, service)
            })
        })
    }

    /// Whether a client was let in to a resource at any time.
    pub(crate) fn was_ever_let_in(&self, client: usize, resource: usize) -> bool {
        let changes = self.changes.get(&(client, resource)).into_iter().flatten();

        changes.into_iter().any(|(_, is_allowed)| *is_allowed)
    }

    /// The resources that stand for the Internet.
    pub(crate) fn internet(&self, at: Instant) -> Vec<usize> {
        let is_it = |it: &usize| {
            let version = self.version(at, *it);
            version.is_some_and(|it| it.address == Address::Internet)
        };

        (0..self.resources.len()).filter(is_it).collect()
    }

    /// All resources that stand for a destination.
    pub(crate) fn candidates(&self, at: Instant, to: Destination<'_>) -> Vec<usize> {
        let numbers = 0..self.resources.len();

        numbers.filter(|it| self.covers(at, *it, to)).collect()
    }

    fn covers(&self, at: Instant, resource: usize, to: Destination<'_>) -> bool {
        let version = self.version(at, resource);

        match (version.map(|version| &version.address), to) {
            (Some(Address::Network(network)), Destination::Ip(ip)) => network.contains(&ip),
            (Some(Address::Names { pattern, .. }), Destination::Name(name)) => {
                pattern::matches(pattern, name)
            }
            (Some(Address::Internet), Destination::Ip(ip)) => is_internet(ip),
            (Some(Address::Network(_) | Address::Names { .. } | Address::Internet) | None, _) => {
                false
            }
        }
    }

    /// Whether a request may come out of a gateway, whose channel has been there since `joined_at`.
    pub(crate) fn may_arrive(
        &self,
        now: Instant,
        scenario: &Scenario,
        gateway: usize,
        joined_at: Option<Instant>,
        arriving: &Arriving<'_>,
    ) -> Result<(), String> {
        let (name, flow, to) = (scenario.host(gateway), arriving.what, arriving.to);
        let site = match scenario.hosts.get(gateway).map(|host| &host.role) {
            Some(Role::Gateway { site }) => site,
            Some(Role::Client { .. } | Role::Relay) | None => return Ok(()),
        };
        // What each was until lately counts as well: whoever was told of it may not know yet that it is not.
        let versions = |resource: usize| self.resources.get(resource).into_iter().flatten();
        let served: Vec<usize> = (0..self.resources.len())
            .filter(|resource| {
                versions(*resource).any(|version| {
                    version.since <= now
                        && version.site == *site
                        && self.covers(version.since, *resource, to)
                        && permit(&version.filters, arriving.service)
                })
            })
            .collect();
        if served.is_empty() {
            return Err(format!(
                "`{flow}` came out of {name}, which doesn't let it pass to {to:?}"
            ));
        }
        if let Some(ends_at) = scenario.token_ends_at(arriving.client)
            && now > self.start + ends_at + END_SLACK
        {
            return Err(format!(
                "`{flow}` came out of {name} after its client's token had ended"
            ));
        }

        let portal = scenario.portal;
        let slack = (portal.latency + portal.jitter) * 2 + REVOKED.holds + END_SLACK / 4;
        let slack = if portal.reorders.0 > 0 {
            slack + END_SLACK
        } else {
            slack
        };
        let is_let_in = served.iter().any(|resource| {
            let (is_allowed, since) = self.state(now, arriving.client, *resource);
            let is_here = self.version(now, *resource).is_some_and(|version| {
                version.site == *site
                    && self.covers(now, *resource, to)
                    && permit(&version.filters, arriving.service)
            });
            let is_allowed = is_allowed && is_here;
            let told_at = joined_at.map(|joined_at| joined_at.max(since) + slack);
            is_allowed || told_at.is_none_or(|told_at| now <= told_at)
        });

        match is_let_in {
            true => Ok(()),
            false => Err(format!(
                "`{flow}` came out of {name}, though nobody let its client in"
            )),
        }
    }
}

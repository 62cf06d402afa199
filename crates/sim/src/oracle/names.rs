//! What a client was told of names, and what it must make of that: written from the specification.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_tunnel::client::{self, NameRecord};
use connlib_wire::id::ResourceId;
use connlib_wire::portal::UpstreamDns;
use connlib_wire::portal::client::{self as portal, FromPortal};
use connlib_wire::portal::resource::Resource;
use ipnet::IpNet;

use super::pattern;
use super::sentinels::is_sentinel;
use super::view::{Told, View, told_of};
use crate::names::Message;
use crate::scenario::ServerAt;

/// How long outputs may take from a loop whose host is slow to take them.
pub(super) const LAG: Duration = Duration::from_millis(120);

/// What leads into the tunnel whatever there is (client.md §1).
const ROUTES: [&str; 6] = [
    "100.64.0.0/11",
    "fd00:2021:1111::/107",
    "100.96.0.0/11",
    "fd00:2021:1111:8000::/107",
    "100.100.111.0/24",
    "fd00:2021:1111:8000:100:100:111:0/120",
];

/// What leads into it as well while the Internet resource is used.
const EVERYTHING: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// The least time between two requests for one resource (client.md §6).
const REQUESTS_EVERY: Duration = Duration::from_secs(2);

/// All clients, as they must see the world.
#[derive(Default)]
pub(crate) struct Names {
    views: BTreeMap<usize, View>,
    /// Whom the system of each host would ask, oldest first.
    systems: BTreeMap<usize, Vec<(Instant, Vec<IpAddr>)>>,
}

impl Names {
    /// The system of a host asks these.
    pub(crate) fn system(&mut self, now: Instant, host: usize, servers: &[IpAddr]) {
        let entry = self.systems.entry(host).or_default();
        entry.push((now, servers.to_vec()));
        self.update(now, host);
    }

    /// Whom the system of a host would ask at any time of a span.
    pub(crate) fn systems(
        &self,
        host: usize,
        (from, until): (Instant, Instant),
    ) -> impl Iterator<Item = &[IpAddr]> {
        let list = self.systems.get(&host).map(Vec::as_slice);

        during(list.unwrap_or_default(), from, until).map(Vec::as_slice)
    }

    pub(super) fn view_mut(&mut self, host: usize) -> &mut View {
        self.views.entry(host).or_default()
    }

    pub(super) fn view(&self, host: usize) -> Option<&View> {
        self.views.get(&host)
    }

    /// A client begins to run, and gets what others before it gave out.
    pub(crate) fn begins(&mut self, now: Instant, host: usize) -> Vec<NameRecord> {
        let former = self.views.remove(&host).unwrap_or_default();
        let view = View {
            told: former.told,
            servers: former.servers,
            book: former.book,
            given: former.given,
            records: former.records.clone(),
            expected: former.expected,
            known: former.known,
            wants_internet: former.wants_internet,
            ..View::default()
        };
        self.views.insert(host, view);
        if let Some(view) = self.views.get_mut(&host) {
            view.told.push((now, Vec::new()));
            view.expected.push((now, None));
        }
        self.update(now, host);

        former.records
    }

    /// The portal tells a client something.
    pub(crate) fn told(&mut self, now: Instant, host: usize, message: &FromPortal) {
        let view = self.views.entry(host).or_default();
        let had: Vec<ResourceId> = view.resources.keys().copied().collect();
        match message {
            FromPortal::Init(init) => {
                view.interface = Some(init.interface.clone());
                view.resources = init
                    .resources
                    .iter()
                    .map(|it| (it.id(), it.clone()))
                    .collect();
            }
            FromPortal::ConfigChanged(config) => view.interface = Some(config.interface.clone()),
            FromPortal::ResourceCreatedOrUpdated(resource) => {
                // One that is another now is asked for anew.
                view.ask_anew(now, Some(resource.id()));
                view.resources.insert(resource.id(), resource.clone());
            }
            FromPortal::ResourceDeleted(id) => {
                view.ask_anew(now, Some(*id));
                view.resources.remove(id);
            }
            FromPortal::AuthorizationCreated(created) => {
                return view.ask_anew(now, Some(created.resource_id));
            }
            FromPortal::AuthorizationCreationFailed(failed) => {
                return view.ask_anew(now, Some(failed.resource_id));
            }
            FromPortal::RelaysPresence(_) => return view.ask_anew(now, None),
            FromPortal::IceCandidates(_) | FromPortal::InvalidateIceCandidates(_) | _ => return,
        }
        if matches!(message, FromPortal::Init(_)) {
            // Relays may have come, without which requests could not be met.
            view.ask_anew(now, None);
        }
        for id in had {
            if !view.resources.contains_key(&id) {
                view.removed.insert(id, now);
            }
        }
        view.list(now);
        let former = view.told.last().map(|(_, told)| told.clone());
        let former = former.unwrap_or_default();
        let told: Vec<Told> = view
            .resources
            .values()
            .filter_map(|it| told_of(now, it))
            .collect();
        let told = told.into_iter().map(|told| {
            let is_same = |other: &&Told| (other.id, &other.pattern) == (told.id, &told.pattern);
            let since = former.iter().find(is_same).map_or(now, |it| it.since);
            Told { since, ..told }
        });
        let told: Vec<Told> = told.collect();
        if view.told.last().is_none_or(|(_, last)| *last != told) {
            view.told.push((now, told));
        }
        self.update(now, host);
    }

    /// A client's channel is there again: what was asked may have been lost.
    pub(crate) fn joined(&mut self, now: Instant, host: usize) {
        if let Some(view) = self.views.get_mut(&host) {
            view.ask_anew(now, None);
        }
    }

    /// A client asks for a resource: one that it has (client.md §15.8), and not too often.
    pub(crate) fn asks(
        &mut self,
        now: Instant,
        host: usize,
        resource: ResourceId,
    ) -> Result<(), String> {
        let view = self.views.entry(host).or_default();
        let last = view.requests.insert(resource, now);
        let removed_at = view.removed.get(&resource);
        if !view.resources.contains_key(&resource)
            && removed_at.is_none_or(|removed_at| *removed_at + LAG < now)
        {
            return Err("a resource is asked for that is not the client's".to_owned());
        }
        // What it said before it had heard, it may say again.
        let anew = [None, Some(resource)].map(|of| view.anew.get(&of).copied());
        let is_old = |at: Instant| anew.into_iter().flatten().any(|heard| at <= heard + LAG);
        let is_early = last.is_some_and(|at| now + LAG < at + REQUESTS_EVERY && !is_old(at));

        match is_early {
            true => Err("a resource is asked for again at once".to_owned()),
            false => Ok(()),
        }
    }

    /// Computes what a client's device must look like.
    pub(super) fn update(&mut self, now: Instant, host: usize) {
        let system = self.systems.get(&host).and_then(|list| list.last());
        let system = system
            .map(|(_, servers)| servers.clone())
            .unwrap_or_default();
        let Some(view) = self.views.get_mut(&host) else {
            return;
        };
        view.know(now);
        let Some(interface) = &view.interface else {
            return;
        };
        let mut servers = configured(interface);
        if servers.is_empty() {
            let system = system.into_iter().filter(|ip| !is_sentinel(*ip));
            servers = system.map(ServerAt::Ip).collect();
        }
        view.sentinels.set(&servers);
        if view.servers.last().is_none_or(|(_, last)| *last != servers) {
            view.servers.push((now, servers));
        }
        let has_internet = (view.known.last()).is_some_and(|(_, known)| known.has_internet());
        let everything = EVERYTHING.iter().filter(|_| has_internet);
        let fixed = ROUTES.iter().chain(everything);
        let fixed = fixed.filter_map(|route| route.parse().ok());
        let networks = view
            .resources
            .values()
            .filter_map(|resource| match resource {
                Resource::Cidr(resource) => Some(resource.address.trunc()),
                Resource::Dns(_) | Resource::Internet(_) | _ => None,
            });
        let expected = Some(client::Interface {
            ipv4: interface.ipv4,
            ipv6: interface.ipv6,
            routes: sorted(fixed.chain(networks)),
            name_servers: view.sentinels.addresses(),
            search_domain: interface.search_domain.clone(),
        });
        if view
            .expected
            .last()
            .is_none_or(|(_, last)| *last != expected)
        {
            view.expected.push((now, expected));
        }
    }

    /// A client says what its device must look like (A12–A14).
    pub(crate) fn announces(
        &mut self,
        now: Instant,
        host: usize,
        interface: &client::Interface,
    ) -> Result<(), String> {
        let view = self.views.entry(host).or_default();
        let interface = client::Interface {
            routes: sorted(interface.routes.iter().copied()),
            ..interface.clone()
        };
        if view.announced.as_ref() == Some(&interface) {
            return Err("an interface is announced that is the one before".to_owned());
        }
        let from = now.checked_sub(LAG).unwrap_or(now);
        let is_right =
            during(&view.expected, from, now).any(|expected| expected.as_ref() == Some(&interface));
        let expected = view.expected.last().map(|(_, expected)| expected.clone());
        view.announced = Some(interface.clone());

        match is_right {
            true => Ok(()),
            false => Err(format!("the interface is {interface:?}, not {expected:?}")),
        }
    }

    /// Whether a client has said all of that by now.
    pub(crate) fn is_announced(&self, now: Instant, host: usize) -> Result<(), String> {
        let Some(view) = self.views.get(&host) else {
            return Ok(());
        };
        let from = now.checked_sub(LAG * 3).unwrap_or(now);
        let mut expected = during(&view.expected, from, now).peekable();
        let is_right =
            expected.peek().is_none() || expected.any(|expected| view.announced == *expected);

        match is_right {
            true => Ok(()),
            false => Err(format!("the interface is still {:?}", view.announced)),
        }
    }

    /// Names were given addresses: eight that nobody else has, for good (client.md §15.9).
    pub(crate) fn assigned(
        &mut self,
        now: Instant,
        host: usize,
        record: &NameRecord,
    ) -> Result<(), String> {
        let view = self.views.entry(host).or_default();
        let name = &record.domain;
        if view.records.iter().any(|other| other.domain == *name) {
            return Err(format!("`{name}` is given addresses once more"));
        }
        for is_ipv4 in [true, false] {
            let ips = record.ips.iter().filter(|ip| ip.is_ipv4() == is_ipv4);
            view.note(now, name, is_ipv4, &ips.copied().collect::<Vec<_>>())?;
        }
        view.records.push(record.clone());

        Ok(())
    }

    /// What stands for a name at a client.
    pub(crate) fn addresses_of(&self, host: usize, name: &str) -> Vec<IpAddr> {
        let book = self.views.get(&host).and_then(|view| view.book.get(name));

        book.into_iter().flatten().flatten().copied().collect()
    }

    /// Notes what a client says stands for a name.
    pub(super) fn note(
        &mut self,
        (now, host): (Instant, usize),
        name: &str,
        is_ipv4: bool,
        ips: &[IpAddr],
    ) -> Result<(), String> {
        let view = self.views.entry(host).or_default();

        view.note(now, name, is_ipv4, ips)
    }

    /// The patterns of what a client has known for a while to be resources' names: nobody outside may hear of them.
    pub(crate) fn may_leave(
        &self,
        now: Instant,
        host: usize,
        message: &[u8],
    ) -> Result<(), String> {
        let Some((name, _)) = Message::parse(message).and_then(|message| message.question) else {
            return Err("what is no question is sent to a name server".to_owned());
        };
        let told = self.views.get(&host).and_then(|view| view.told.last());
        let told = told.map(|(_, told)| told.as_slice()).unwrap_or_default();
        let is_known =
            |told: &&Told| now > told.since + LAG && pattern::matches(&told.pattern, &name);

        match told.iter().find(is_known) {
            Some(_) => Err(format!("`{name}` is a resource's, and asked for outside")),
            None => Ok(()),
        }
    }
}

/// The servers of the first kind that the portal names any of (client.md §4.1).
fn configured(interface: &portal::Interface) -> Vec<ServerAt> {
    let plain = |ips: Vec<IpAddr>| -> Vec<ServerAt> {
        let usable = ips.into_iter().filter(|ip| !is_sentinel(*ip));
        usable.map(ServerAt::Ip).collect()
    };
    let do53 = plain(interface.upstream_do53.iter().map(|it| it.ip).collect());
    let older = interface.upstream_dns.iter();
    let older = plain(
        older
            .map(|UpstreamDns::IpPort { address }| address.ip())
            .collect(),
    );
    let tls = interface.upstream_dot.iter().map(|it| it.url.clone());
    let https = interface.upstream_doh.iter().map(|it| it.url.clone());
    let encrypted = tls.chain(https).map(ServerAt::Url).collect();

    [do53, older, encrypted]
        .into_iter()
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}

fn sorted(routes: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    routes.collect::<BTreeSet<_>>().into_iter().collect()
}

/// What held at any time of a span.
pub(super) fn during<T>(
    list: &[(Instant, T)],
    from: Instant,
    until: Instant,
) -> impl Iterator<Item = &T> {
    let first = list.iter().rev().find(|(since, _)| *since <= from);
    let later = list
        .iter()
        .filter(move |(since, _)| *since > from && *since <= until);

    first.into_iter().chain(later).map(|(_, it)| it)
}

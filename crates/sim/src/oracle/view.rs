//! What one client knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_tunnel::client::{self, NameRecord, ResourceView};
use connlib_wire::id::ResourceId;
use connlib_wire::portal::client as portal;
use connlib_wire::portal::resource::{IpStack, Resource};
use ipnet::{Ipv4Net, Ipv6Net};

use super::routes::Known;
use super::sentinels::{Sentinels, is_sentinel};
use crate::scenario::{ServerAt, Stack};

/// The ranges of addresses that stand for names (client.md §0).
const PROXY_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 96, 0, 0), 11);
const PROXY_V6: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 0),
    107,
);

/// What one client knows.
#[derive(Default)]
pub(super) struct View {
    /// The resources of names, oldest list first.
    pub(super) told: Vec<(Instant, Vec<Told>)>,
    /// All resources.
    pub(super) resources: BTreeMap<ResourceId, Resource>,
    /// Whether a person wants it to use the Internet resource.
    pub(super) wants_internet: bool,
    /// What it decided by, oldest first.
    pub(super) known: Vec<(Instant, Known)>,
    pub(super) interface: Option<portal::Interface>,
    pub(super) sentinels: Sentinels,
    /// Whom it may ask, oldest list first.
    pub(super) servers: Vec<(Instant, Vec<ServerAt>)>,
    /// What its device must look like, oldest first; `None` from when it begins to run until the portal has spoken.
    pub(super) expected: Vec<(Instant, Option<client::Interface>)>,
    pub(super) announced: Option<client::Interface>,
    /// What it must have said can be reached, oldest first, and what it did say.
    pub(super) lists: Vec<(Instant, Vec<ResourceView>)>,
    pub(super) listed: Option<Vec<ResourceView>>,
    /// The addresses of names, by family, as long as anybody may remember them.
    pub(super) book: BTreeMap<String, [Vec<IpAddr>; 2]>,
    /// When they were first heard of.
    pub(super) given: BTreeMap<String, Instant>,
    pub(super) records: Vec<NameRecord>,
    /// When each resource was taken away that it had.
    pub(super) removed: BTreeMap<ResourceId, Instant>,
    /// When it last asked for each resource and has had no answer yet.
    pub(super) requests: BTreeMap<ResourceId, Instant>,
    /// When it could last ask for all resources at once again, or for one of them.
    pub(super) anew: BTreeMap<Option<ResourceId>, Instant>,
}

/// A resource of names.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) id: ResourceId,
    pub(super) pattern: String,
    pub(super) stack: Stack,
    pub(super) sites: Vec<String>,
    pub(super) since: Instant,
}

impl View {
    /// Notes what stands for a name.
    pub(super) fn note(
        &mut self,
        now: Instant,
        name: &str,
        is_ipv4: bool,
        ips: &[IpAddr],
    ) -> Result<(), String> {
        let unique: BTreeSet<&IpAddr> = ips.iter().collect();
        if ips.len() != 4 || unique.len() != 4 || !ips.iter().all(|ip| stands_for_a_name(*ip)) {
            return Err(format!("`{name}` has the addresses {ips:?}"));
        }
        if ips.iter().any(|ip| is_sentinel(*ip)) {
            return Err(format!("`{name}` has an address of a name server"));
        }
        let mut others = self.book.iter().filter(|(other, _)| *other != name);
        if let Some((other, _)) =
            others.find(|(_, known)| known.iter().flatten().any(|ip| ips.contains(ip)))
        {
            return Err(format!("`{name}` has an address of `{other}`"));
        }
        self.given.entry(name.to_owned()).or_insert(now);
        let [v4, v6] = self.book.entry(name.to_owned()).or_default();
        let known = if is_ipv4 { v4 } else { v6 };
        let mut ips = ips.to_vec();
        ips.sort_unstable();
        if !known.is_empty() && *known != ips {
            return Err(format!(
                "`{name}` had the addresses {known:?}, and has {ips:?}"
            ));
        }
        *known = ips;

        Ok(())
    }

    /// Whether the portal names a server.
    pub(super) fn is_configured(&self, ip: IpAddr) -> bool {
        let interface = self.interface.as_ref();

        interface.is_some_and(|it| it.upstream_do53.iter().any(|server| server.ip == ip))
    }

    /// It may ask again at once, for all resources or for one.
    pub(super) fn ask_anew(&mut self, now: Instant, resource: Option<ResourceId>) {
        match &resource {
            Some(resource) => drop(self.requests.remove(resource)),
            None => self.requests.clear(),
        }
        self.anew.insert(resource, now);
    }

    /// What the client's device must have looked like, oldest first.
    pub(super) fn interfaces(&self) -> &[(Instant, Option<client::Interface>)] {
        &self.expected
    }

    /// The name that an address stands for.
    pub(super) fn name_at(&self, ip: IpAddr) -> Option<&String> {
        let mut book = self.book.iter();
        let found = book.find(|(_, known)| known.iter().flatten().any(|other| *other == ip));

        found.map(|(name, _)| name)
    }
}

/// What a client makes of a resource, if that is of names.
pub(super) fn told_of(now: Instant, resource: &Resource) -> Option<Told> {
    let Resource::Dns(resource) = resource else {
        return None;
    };

    Some(Told {
        id: resource.id,
        pattern: resource.address.clone(),
        stack: match resource.ip_stack {
            IpStack::Dual => Stack::Dual,
            IpStack::Ipv4Only => Stack::V4,
            IpStack::Ipv6Only => Stack::V6,
        },
        sites: resource
            .sites
            .0
            .iter()
            .map(|site| site.name.clone())
            .collect(),
        since: now,
    })
}

/// Whether an address can stand for a name.
pub(crate) fn stands_for_a_name(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => PROXY_V4.contains(&ip),
        IpAddr::V6(ip) => PROXY_V6.contains(&ip),
    }
}

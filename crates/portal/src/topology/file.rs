//! From TOML to a [`Topology`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use connlib_wire::portal::resource::IpStack;
use serde::Deserialize;
use toml::Spanned;

use super::conditions::RawCondition;
use super::{ActorEntry, PolicyEntry, ResourceEntry, Topology, TopologyError};
use crate::model::{Address, Network, parse_filter};

/// The longest name of anything, in bytes.
const MAX_NAME: usize = 255;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    network: RawNetwork,
    #[serde(default)]
    site: Vec<RawSite>,
    #[serde(default)]
    actor: Vec<RawActor>,
    #[serde(default)]
    resource: Vec<RawResource>,
    #[serde(default)]
    policy: Vec<RawPolicy>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    #[serde(default)]
    upstream_dns: Vec<Spanned<String>>,
    search_domain: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSite {
    name: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawActor {
    name: Spanned<String>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResource {
    name: Spanned<String>,
    address: Spanned<String>,
    sites: Spanned<Vec<Spanned<String>>>,
    ip_stack: Option<Spanned<IpStack>>,
    filters: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    group: Spanned<String>,
    resource: Spanned<String>,
    #[serde(default)]
    conditions: Vec<Spanned<RawCondition>>,
}

pub(super) fn parse(text: &str, file_name: &str) -> Result<Topology, TopologyError> {
    let source = Source { text, file_name };
    let file: File = toml::from_str(text).map_err(|error| source.unreadable(&error))?;

    let network = source.network(file.network)?;
    let sites = source.sites(file.site)?;
    let actors = source.actors(file.actor)?;
    let resources = source.resources(file.resource, &sites)?;
    let policies = source.policies(file.policy, &actors, &resources)?;

    Ok(Topology {
        network,
        sites,
        actors,
        resources,
        policies,
    })
}

/// The text, to tell where in it something is wrong.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    text: &'a str,
    file_name: &'a str,
}

impl Source<'_> {
    fn network(self, raw: RawNetwork) -> Result<Network, TopologyError> {
        let mut network = Network::default();
        for server in raw.upstream_dns {
            let text = server.get_ref();
            if let Ok(address) = text.parse::<IpAddr>() {
                network.do53.push(address);
            } else if is_doh_url(text) {
                network.doh.push(text.clone());
            } else if is_dot_url(text) {
                network.dot.push(text.clone());
            } else {
                let problem = format!(
                    "`{text}` is not a DNS server; write an IP address (port 53 is meant), `https://host/path` or `tls://host`"
                );
                return Err(self.wrong(server.span(), "network.upstream_dns", problem));
            }
        }
        if let Some(domain) = raw.search_domain {
            let name = domain.get_ref();
            if let Err(problem) = crate::model::check_name(name) {
                let problem = format!("`{name}` is not a domain: {problem}");
                return Err(self.wrong(domain.span(), "network.search_domain", problem));
            }
            network.search_domain = Some(domain.into_inner());
        }

        Ok(network)
    }

    fn sites(self, raw: Vec<RawSite>) -> Result<Vec<String>, TopologyError> {
        let mut names = Names::of("site.name");

        raw.into_iter()
            .map(|site| names.add(self, site.name))
            .collect()
    }

    fn actors(self, raw: Vec<RawActor>) -> Result<Vec<ActorEntry>, TopologyError> {
        let mut names = Names::of("actor.name");
        let entry = |actor: RawActor| {
            let name = names.add(self, actor.name)?;
            let mut groups = BTreeSet::new();
            for group in actor.groups {
                let span = group.span();
                let group = self.name(group, "actor.groups")?;
                if let Some(group) = groups.replace(group) {
                    let problem = format!("`{name}` is in the group `{group}` twice");
                    return Err(self.wrong(span, "actor.groups", problem));
                }
            }
            Ok(ActorEntry { name, groups })
        };

        raw.into_iter().map(entry).collect()
    }

    fn resources(
        self,
        raw: Vec<RawResource>,
        sites: &[String],
    ) -> Result<Vec<ResourceEntry>, TopologyError> {
        let mut names = Names::of("resource.name");
        let mut internet = None;
        let mut entries = Vec::with_capacity(raw.len());
        for resource in raw {
            let name = names.add(self, resource.name)?;
            let span = resource.address.span();
            let entry = ResourceEntry {
                address: self.address(resource.address, resource.ip_stack)?,
                sites: self.sites_of(resource.sites, sites)?,
                filters: vec![],
                name,
            };
            let filters = match resource.filters {
                Some(filters) if entry.address == Address::Internet => {
                    let problem = "the Internet takes no filters; leave the key out".to_owned();
                    return Err(self.wrong(filters.span(), "resource.filters", problem));
                }
                Some(filters) => self.filters(filters.into_inner())?,
                None => vec![],
            };
            if entry.address == Address::Internet
                && let Some(first) = internet.replace(entry.name.clone())
            {
                let problem = format!("the resource `{first}` is the Internet already");
                return Err(self.wrong(span, "resource.address", problem));
            }
            entries.push(ResourceEntry { filters, ..entry });
        }

        Ok(entries)
    }

    fn address(
        self,
        text: Spanned<String>,
        ip_stack: Option<Spanned<IpStack>>,
    ) -> Result<Address, TopologyError> {
        let address = (text.get_ref().parse())
            .map_err(|error| self.wrong(text.span(), "resource.address", error))?;

        match (address, ip_stack) {
            (Address::Dns { pattern, .. }, Some(ip_stack)) => Ok(Address::Dns {
                pattern,
                ip_stack: ip_stack.into_inner(),
            }),
            (Address::Cidr(_) | Address::Internet, Some(ip_stack)) => {
                let problem = "only a resource of DNS names has an IP stack; leave the key out";
                Err(self.wrong(ip_stack.span(), "resource.ip_stack", problem))
            }
            (address, None) => Ok(address),
        }
    }

    fn sites_of(
        self,
        raw: Spanned<Vec<Spanned<String>>>,
        known: &[String],
    ) -> Result<Vec<String>, TopologyError> {
        let span = raw.span();
        let mut sites: Vec<String> = vec![];
        for site in raw.into_inner() {
            let span = site.span();
            let site = site.into_inner();
            if !known.contains(&site) {
                let problem = format!("there is no `[[site]]` named `{site}`");
                return Err(self.wrong(span, "resource.sites", problem));
            }
            if sites.contains(&site) {
                let problem = format!("the site `{site}` is listed twice");
                return Err(self.wrong(span, "resource.sites", problem));
            }
            sites.push(site);
        }
        if sites.is_empty() {
            let problem = "a resource without a site can't be reached; name at least one";
            return Err(self.wrong(span, "resource.sites", problem));
        }

        Ok(sites)
    }

    fn filters(
        self,
        raw: Vec<Spanned<String>>,
    ) -> Result<Vec<connlib_wire::portal::resource::Filter>, TopologyError> {
        let filter = |text: Spanned<String>| {
            parse_filter(text.get_ref())
                .map_err(|error| self.wrong(text.span(), "resource.filters", error))
        };

        raw.into_iter().map(filter).collect()
    }

    fn policies(
        self,
        raw: Vec<RawPolicy>,
        actors: &[ActorEntry],
        resources: &[ResourceEntry],
    ) -> Result<Vec<PolicyEntry>, TopologyError> {
        let mut entries = BTreeSet::new();
        let entry = |policy: RawPolicy| {
            let span = policy.group.span();
            let group = policy.group.into_inner();
            if !actors.iter().any(|actor| actor.groups.contains(&group)) {
                let problem = format!("no `[[actor]]` is in a group named `{group}`");
                return Err(self.wrong(span, "policy.group", problem));
            }
            let resource = policy.resource.get_ref();
            if !resources.iter().any(|entry| entry.name == *resource) {
                let problem = format!("there is no `[[resource]]` named `{resource}`");
                return Err(self.wrong(policy.resource.span(), "policy.resource", problem));
            }
            let entry = PolicyEntry {
                group,
                resource: policy.resource.into_inner(),
                conditions: self.conditions(policy.conditions)?,
            };
            if !entries.insert(entry.clone()) {
                let under = match entry.conditions.is_empty() {
                    true => "",
                    false => " under the same conditions",
                };
                let problem = format!(
                    "`{}` may reach `{}` already{under}",
                    entry.group, entry.resource
                );
                return Err(self.wrong(span, "policy.group", problem));
            }
            Ok(entry)
        };

        raw.into_iter().map(entry).collect()
    }

    /// A name that people can see, say and type.
    fn name(self, name: Spanned<String>, key: &str) -> Result<String, TopologyError> {
        let text = name.get_ref();
        let problem = if text.is_empty() {
            "a name can't be empty"
        } else if text.len() > MAX_NAME {
            "a name can't be longer than 255 bytes"
        } else if text.trim() != text || text.contains(char::is_control) {
            "a name can't begin or end with a space, nor contain control characters"
        } else {
            return Ok(name.into_inner());
        };

        Err(self.wrong(name.span(), key, problem))
    }

    fn unreadable(self, error: &toml::de::Error) -> TopologyError {
        let span = error.span().unwrap_or_default();
        let message = error.message().trim();
        let named = message
            .strip_prefix("unknown field `")
            .or_else(|| message.strip_prefix("missing field `"))
            .and_then(|rest| rest.split('`').next());
        let key = named.map_or_else(|| self.key_at(span.start), str::to_owned);

        self.wrong(span, &key, message.lines().next().unwrap_or("not TOML"))
    }

    pub(super) fn wrong(
        self,
        span: Range<usize>,
        key: &str,
        problem: impl ToString,
    ) -> TopologyError {
        let before = self.text.get(..span.start).unwrap_or(self.text);

        TopologyError {
            file: self.file_name.to_owned(),
            line: before.matches('\n').count() + 1,
            key: key.to_owned(),
            problem: problem.to_string(),
        }
    }

    /// What stands left of the equals sign in the line at `offset`, or else the whole line.
    fn key_at(self, offset: usize) -> String {
        let begin = self
            .text
            .get(..offset)
            .and_then(|before| before.rfind('\n'))
            .map_or(0, |newline| newline + 1);
        let line = (self.text.get(begin..))
            .and_then(|rest| rest.lines().next())
            .unwrap_or_default();

        line.split('=').next().unwrap_or_default().trim().to_owned()
    }
}

/// The names of one kind of thing; no two may look the same.
struct Names {
    key: &'static str,
    seen: BTreeMap<String, String>,
}

impl Names {
    fn of(key: &'static str) -> Self {
        Self {
            key,
            seen: BTreeMap::new(),
        }
    }

    fn add(&mut self, source: Source<'_>, name: Spanned<String>) -> Result<String, TopologyError> {
        let span = name.span();
        let name = source.name(name, self.key)?;
        if let Some(first) = self.seen.insert(name.to_lowercase(), name.clone()) {
            let problem = if first == name {
                format!("the name `{name}` is given twice")
            } else {
                format!("the names `{name}` and `{first}` differ in case alone")
            };
            return Err(source.wrong(span, self.key, problem));
        }

        Ok(name)
    }
}

/// Whether `text` is `tls://host[:port]`.
fn is_dot_url(text: &str) -> bool {
    let Some(authority) = text.strip_prefix("tls://") else {
        return false;
    };
    let (host, port) = match authority.split_once(']') {
        Some((host, port)) => (host.strip_prefix('[').unwrap_or_default(), port),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = |port: &str| {
        port.strip_prefix(':')
            .is_some_and(|it| it.parse::<u16>().is_ok())
    };
    let is_clean =
        |character: char| character.is_ascii_alphanumeric() || ".-_:".contains(character);

    !host.is_empty() && host.chars().all(is_clean) && (port.is_empty() || is_port(port))
}

/// Whether `text` is `https://host[:port]/path` without a query (client.md §4.1).
fn is_doh_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://") else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or_default();
    let is_clean = |character: char| character.is_ascii_graphic() && !"?#@\"".contains(character);

    !host.is_empty() && !host.starts_with(':') && rest.chars().all(is_clean)
}

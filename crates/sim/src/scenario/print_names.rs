//! Names, and who is asked for them, as they are read.

use std::fmt::{self, Display, Formatter};

use super::Scenario;
use super::events::Said;
use super::filters::{Filter, HostError};
use super::names::{
    Address, Lookup, Manners, NameEntry, RecordKind, ServerAt, Stack, Target, Upstream, Via,
};
use super::parse_names::CODES;
use super::print::{flag, share, span};
use super::quantity::Span;

impl Scenario {
    pub(super) fn print_names(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (ip, error) in &self.error_hosts {
            let mut named = HostError::NAMED.into_iter();
            let name = named.find(|(_, other)| other == error);
            let name = name.map_or("?", |(name, _)| name);
            writeln!(f, "error-host {ip} {name}")?;
        }
        for entry in &self.names {
            print_name(f, entry)?;
            writeln!(f)?;
        }
        for server in &self.servers {
            write!(f, "dns {}", server_at(&server.at))?;
            if let Some(site) = &server.site {
                write!(f, " at={site}")?;
            }
            print_manners(f, &server.manners)?;
            writeln!(f)?;
        }
        for (host, servers) in &self.resolvers {
            writeln!(f, "resolvers {} {}", self.host(*host), joined(servers))?;
        }
        if self.upstream != Upstream::default() {
            print_upstream(f, &self.upstream)?;
            writeln!(f)?;
        }

        Ok(())
    }

    pub(super) fn server(&self, server: usize) -> String {
        let server = self.servers.get(server);

        server.map_or_else(|| "?".to_owned(), |server| server_at(&server.at))
    }
}

fn server_at(at: &ServerAt) -> String {
    match at {
        ServerAt::Ip(ip) => ip.to_string(),
        ServerAt::Url(url) => url.clone(),
    }
}

pub(super) fn print_address(f: &mut Formatter<'_>, address: &Address) -> fmt::Result {
    match address {
        Address::Network(network) => write!(f, "cidr={network}"),
        Address::Internet => f.write_str("internet"),
        Address::Names { pattern, stack } => {
            write!(f, "dns={pattern}")?;
            match stack {
                Stack::Dual => Ok(()),
                Stack::V4 => write!(f, " stack=v4"),
                Stack::V6 => write!(f, " stack=v6"),
            }
        }
    }
}

pub(super) fn print_filters(f: &mut Formatter<'_>, filters: &[Filter]) -> fmt::Result {
    match filters.is_empty() {
        true => Ok(()),
        false => write!(f, " filter={}", joined(filters)),
    }
}

pub(super) fn print_name(f: &mut Formatter<'_>, entry: &NameEntry) -> fmt::Result {
    write!(f, "name {}", entry.name)?;
    if let Some(site) = &entry.site {
        write!(f, " at={site}")?;
    }
    if !entry.ips.is_empty() {
        write!(f, " ip={}", joined(&entry.ips))?;
    }
    if let Some(text) = entry.text {
        write!(f, " txt={text}")?;
    }
    if let Some((port, host)) = &entry.srv {
        write!(f, " srv={port}:{host}")?;
    }

    Ok(())
}

pub(super) fn print_manners(f: &mut Formatter<'_>, manners: &Manners) -> fmt::Result {
    write!(f, " latency={}", Span(manners.latency))?;
    share(f, "loses", manners.loss)?;
    write!(f, " ttl={}", manners.ttl)?;
    if let Some((from, until)) = manners.silent {
        write!(f, " silent={}..{}", Span(from), Span(until))?;
    }
    flag(f, "lies", manners.lies)?;
    flag(f, "truncates", manners.truncates)?;
    flag(f, "refuses", manners.refuses)?;
    flag(f, "fails", manners.fails)?;
    flag(f, "resets", manners.resets)
}

pub(super) fn print_upstream(f: &mut Formatter<'_>, upstream: &Upstream) -> fmt::Result {
    write!(f, "upstream")?;
    if !upstream.plain.is_empty() {
        write!(f, " do53={}", joined(&upstream.plain))?;
    }
    for (key, urls) in [("doh", &upstream.https), ("dot", &upstream.tls)] {
        if !urls.is_empty() {
            write!(f, " {key}={}", urls.join(","))?;
        }
    }
    match &upstream.search {
        Some(search) => write!(f, " search={search}"),
        None => Ok(()),
    }
}

pub(super) fn print_target(f: &mut Formatter<'_>, target: &Target) -> fmt::Result {
    match target {
        Target::Ip(ip) => write!(f, "{ip}"),
        Target::Name {
            name,
            is_ipv4,
            is_cached,
        } => {
            write!(f, "{name}")?;
            if !is_ipv4 {
                write!(f, " by=v6")?;
            }
            flag(f, "cached", *is_cached)
        }
    }
}

pub(super) fn print_lookup(f: &mut Formatter<'_>, lookup: &Lookup) -> fmt::Result {
    let RecordKind(record) = lookup.record;
    match RecordKind::NAMED.iter().find(|(_, kind)| kind.0 == record) {
        Some((name, _)) => write!(f, " {name}")?,
        None => write!(f, " TYPE{record}")?,
    }
    if lookup.via == Via::Tcp {
        write!(f, " via=tcp")?;
    }
    if lookup.server > 0 {
        write!(f, " server={}", lookup.server)?;
    }
    if let Some(number) = lookup.number {
        write!(f, " number={number}")?;
    }

    flag(f, "mixed", lookup.is_mixed)
}

pub(super) fn print_said(f: &mut Formatter<'_>, flow: &str, said: &Said) -> fmt::Result {
    let named = CODES.iter().find(|(_, code)| Some(*code) == said.code);
    write!(
        f,
        "said {flow} code={}",
        named.map_or("none", |(name, _)| name)
    )?;
    if let Some(records) = said.records {
        write!(f, " records={records}")?;
    }
    if let Some(ip) = said.ip {
        write!(f, " ip={ip}")?;
    }
    match said.within {
        Some(within) => span(f, "within", within),
        None => Ok(()),
    }
}

pub(super) fn joined<T: Display>(list: &[T]) -> String {
    match list {
        [] => "none".to_owned(),
        _ => list.iter().map(T::to_string).collect::<Vec<_>>().join(","),
    }
}

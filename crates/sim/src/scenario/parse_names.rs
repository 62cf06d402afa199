//! From a text to names, and to who is asked for them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::events::Said;
use super::filters::Filter;
use super::lines::{Line, number};
use super::names::{
    Address, Lookup, Manners, NameEntry, NameServer, RecordKind, ServerAt, Stack, Target, Upstream,
    Via,
};
use super::parse::host_named;
use super::quantity::{per_mille, span};
use super::{Event, Scenario};

/// The most bytes of a TXT record: it fits one message by TCP.
const MAX_TEXT: u16 = 4_000;

/// The codes that have a name (RFC 1035 §4.1.1).
pub(super) const CODES: [(&str, u8); 6] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
];

/// What a resource stands for.
pub(super) fn address(line: &mut Line<'_>) -> Result<Address, String> {
    if line.flag("internet") {
        return Ok(Address::Internet);
    }
    if let Some(pattern) = line.maybe("dns", |text| Some(text.to_owned()))? {
        let stack = line.maybe("stack", stack)?.unwrap_or_default();
        return Ok(Address::Names { pattern, stack });
    }
    let network: IpNet = line.field("cidr", number)?;

    Ok(Address::Network(network.trunc()))
}

/// What may pass to a resource.
pub(super) fn filters(line: &mut Line<'_>) -> Result<Vec<Filter>, String> {
    let read = |text: &str| text.split(',').map(|it| it.parse().ok()).collect();

    Ok(line.maybe("filter", read)?.unwrap_or_default())
}

fn stack(text: &str) -> Option<Stack> {
    match text {
        "dual" => Some(Stack::Dual),
        "v4" => Some(Stack::V4),
        "v6" => Some(Stack::V6),
        _ => None,
    }
}

pub(super) fn name(line: &mut Line<'_>) -> Result<NameEntry, String> {
    let srv = |text: &str| {
        let (port, host) = text.split_once(':')?;
        Some((number(port)?, domain(host)?))
    };

    Ok(NameEntry {
        name: domain(line.word("a name")?).ok_or("that is no name")?,
        site: line.maybe("at", |site| Some(site.to_owned()))?,
        ips: line.maybe("ip", ips)?.unwrap_or_default(),
        text: line.maybe("txt", |text| number(text).filter(|len| *len <= MAX_TEXT))?,
        srv: line.maybe("srv", srv)?,
    })
}

pub(super) fn server(scenario: &Scenario, line: &mut Line<'_>) -> Result<NameServer, String> {
    let text = line.word("a name server")?;
    let at = server_at(text).ok_or_else(|| format!("`{text}` is no name server"))?;
    if scenario.servers.iter().any(|server| server.at == at) {
        return Err(format!("a second `{text}`"));
    }

    Ok(NameServer {
        at,
        site: line.maybe("at", |site| Some(site.to_owned()))?,
        manners: manners(line)?,
    })
}

fn server_at(text: &str) -> Option<ServerAt> {
    if text.starts_with("https://") || text.starts_with("tls://") {
        return Some(ServerAt::Url(text.to_owned()));
    }

    number(text).map(ServerAt::Ip)
}

fn manners(line: &mut Line<'_>) -> Result<Manners, String> {
    let default = Manners::default();
    let range = |text: &str| {
        let (from, until) = text.split_once("..")?;
        Some((span(from)?, span(until)?))
    };

    Ok(Manners {
        latency: line.maybe("latency", span)?.unwrap_or(default.latency),
        loss: line.maybe("loses", per_mille)?.unwrap_or_default(),
        ttl: line.maybe("ttl", number)?.unwrap_or(default.ttl),
        silent: line.maybe("silent", range)?,
        lies: line.flag("lies"),
        truncates: line.flag("truncates"),
        refuses: line.flag("refuses"),
        fails: line.flag("fails"),
        resets: line.flag("resets"),
    })
}

pub(super) fn manners_change(scenario: &Scenario, line: &mut Line<'_>) -> Result<Event, String> {
    let text = line.word("a name server")?;
    let at = server_at(text);
    let found = scenario
        .servers
        .iter()
        .position(|server| Some(&server.at) == at.as_ref());

    Ok(Event::Manners {
        server: found.ok_or_else(|| format!("there is no name server `{text}`"))?,
        manners: manners(line)?,
    })
}

pub(super) fn resolvers(
    scenario: &Scenario,
    line: &mut Line<'_>,
) -> Result<(usize, Vec<IpAddr>), String> {
    let host = host_named(scenario, line)?;
    let text = line.word("addresses, or none")?;
    let servers = match text {
        "none" => Vec::new(),
        _ => ips(text).ok_or_else(|| format!("`{text}` are no addresses"))?,
    };

    Ok((host, servers))
}

pub(super) fn upstream(line: &mut Line<'_>) -> Result<Upstream, String> {
    let urls = |text: &str| Some(text.split(',').map(str::to_owned).collect());

    Ok(Upstream {
        plain: line.maybe("do53", ips)?.unwrap_or_default(),
        https: line.maybe("doh", urls)?.unwrap_or_default(),
        tls: line.maybe("dot", urls)?.unwrap_or_default(),
        search: line.maybe("search", domain)?,
    })
}

/// Whom a program talks to.
pub(super) fn target(line: &mut Line<'_>) -> Result<Target, String> {
    let text = line.word("an address or a name")?;
    if let Some(ip) = number(text) {
        return Ok(Target::Ip(ip));
    }
    let name = domain(text).ok_or("that is neither an address nor a name")?;
    let is_ipv4 = |text: &str| match text {
        "v4" => Some(true),
        "v6" => Some(false),
        _ => None,
    };

    Ok(Target::Name {
        name,
        is_ipv4: line.maybe("by", is_ipv4)?.unwrap_or(true),
        is_cached: false,
    })
}

pub(super) fn lookup(line: &mut Line<'_>) -> Result<Lookup, String> {
    let text = line.word("a type")?;
    let named = RecordKind::NAMED.iter().find(|(name, _)| *name == text);
    let record = match named {
        Some((_, record)) => *record,
        None => text
            .strip_prefix("TYPE")
            .and_then(number)
            .map(RecordKind)
            .ok_or_else(|| format!("`{text}` is no type"))?,
    };
    let via = |text: &str| match text {
        "udp" => Some(Via::Udp),
        "tcp" => Some(Via::Tcp),
        _ => None,
    };

    Ok(Lookup {
        record,
        via: line.maybe("via", via)?.unwrap_or(Via::Udp),
        server: line.maybe("server", number)?.unwrap_or_default(),
        number: line.maybe("number", number)?,
        is_mixed: line.flag("mixed"),
    })
}

pub(super) fn said(flow: usize, line: &mut Line<'_>) -> Result<Said, String> {
    let code = |text: &str| {
        let named = CODES.iter().find(|(name, _)| *name == text);
        match text {
            "none" => Some(None),
            _ => named.map(|(_, code)| Some(*code)),
        }
    };

    Ok(Said {
        flow,
        code: line.field("code", code)?,
        records: line.maybe("records", number)?,
        ip: line.maybe("ip", number)?,
        within: line.maybe("within", span)?,
    })
}

fn ips(text: &str) -> Option<Vec<IpAddr>> {
    text.split(',').map(number).collect()
}

/// A name in lower case.
fn domain(text: &str) -> Option<String> {
    let is_fine = |label: &str| {
        let mut bytes = label.bytes();
        (1..=63).contains(&label.len())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };

    (text.len() <= 253 && text.split('.').all(is_fine)).then(|| text.to_ascii_lowercase())
}

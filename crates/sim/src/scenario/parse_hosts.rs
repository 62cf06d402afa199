//! From a text to who is in a world, and what lies between them.

use std::net::IpAddr;

use super::lines::{Line, number};
use super::parse::{edge_named, find_host, new_name};
use super::parse_names::{address, filters};
use super::quantity::{per_mille, rate, span};
use super::{
    Address, Dependence, Drive, Edge, EdgeKind, Host, HostError, Link, Nat, PerMille, Place,
    PortalLink, Resource, Role, Scenario,
};
use crate::faults::Faults;
use crate::world::MAX_HOSTS;

pub(super) fn drive(word: &str) -> Result<Drive, String> {
    match word {
        "exact" => Ok(Drive::Exact),
        "every-milli" => Ok(Drive::EveryMilli),
        "late" => Ok(Drive::Late),
        other => Err(format!("`{other}` is no way to drive")),
    }
}

pub(super) fn portal(line: &mut Line<'_>) -> Result<PortalLink, String> {
    let default = PortalLink::default();

    Ok(PortalLink {
        latency: line.maybe("latency", span)?.unwrap_or(default.latency),
        jitter: line.maybe("jitter", span)?.unwrap_or_default(),
        duplicates: line.maybe("dup", per_mille)?.unwrap_or_default(),
        reorders: line.maybe("reorder", per_mille)?.unwrap_or_default(),
    })
}

pub(super) fn edge(scenario: &Scenario, line: &mut Line<'_>) -> Result<Edge, String> {
    let name = new_name(scenario, line)?;
    let expiry = |line: &mut Line<'_>| line.span("expiry");
    let kind = match line.word("nat, firewall, only-port or blocked")? {
        "nat" => EdgeKind::Nat(Nat {
            ip4: line.field("ip4", number)?,
            mapping: line.field("map", dependence)?,
            filtering: line.field("filter", dependence)?,
            expiry: expiry(line)?,
            keeps_ports: line.flag("keeps-ports"),
            hairpin: line.flag("hairpin"),
        }),
        "firewall" => EdgeKind::Firewall {
            expiry: expiry(line)?,
        },
        "only-port" => EdgeKind::OnlyPort(line.field("port", number)?),
        "blocked" => EdgeKind::Blocked,
        other => return Err(format!("`{other}` is no edge")),
    };
    let behind = line.maybe("behind", |name| edge_named(scenario, name))?;

    Ok(Edge { name, kind, behind })
}

fn dependence(text: &str) -> Option<Dependence> {
    match text {
        "endpoint" => Some(Dependence::Endpoint),
        "address" => Some(Dependence::Address),
        "port" => Some(Dependence::AddressAndPort),
        _ => None,
    }
}

pub(super) fn host(scenario: &Scenario, line: &mut Line<'_>) -> Result<Host, String> {
    if scenario.hosts.len() >= MAX_HOSTS {
        return Err(format!("more than {MAX_HOSTS} hosts"));
    }
    let name = new_name(scenario, line)?;
    let role = match line.word("client, gateway or relay")? {
        "client" => Role::Client {
            token_ends_at: line.maybe("token-ends", span)?,
        },
        "gateway" => Role::Gateway {
            site: line.field("site", |site| Some(site.to_owned()))?,
        },
        "relay" => Role::Relay,
        other => return Err(format!("`{other}` is no role")),
    };

    Ok(Host {
        name,
        role,
        place: place(scenario, line)?,
        link: Link::default(),
        faults: Faults::default(),
    })
}

pub(super) fn place(scenario: &Scenario, line: &mut Line<'_>) -> Result<Place, String> {
    Ok(Place {
        ip4: line.maybe("ip4", number)?,
        ip6: line.maybe("ip6", number)?,
        behind: line.maybe("behind", |name| edge_named(scenario, name))?,
    })
}

pub(super) fn link(line: &mut Line<'_>) -> Result<Link, String> {
    let default = Link::default();
    let mut share = |key| line.maybe(key, per_mille).map(Option::unwrap_or_default);
    let (loss, duplicates): (PerMille, PerMille) = (share("loss")?, share("dup")?);
    let (reorders, corrupts) = (share("reorder")?, share("corrupt")?);

    Ok(Link {
        latency: line.maybe("latency", span)?.unwrap_or(default.latency),
        jitter: line.maybe("jitter", span)?.unwrap_or_default(),
        loss,
        duplicates,
        reorders,
        corrupts,
        mtu: line.maybe("mtu", number)?.unwrap_or(default.mtu),
        rate: line.maybe("rate", rate)?,
        queue: line.maybe("queue", span)?.unwrap_or(default.queue),
    })
}

pub(super) fn faults(line: &mut Line<'_>) -> Result<Faults, String> {
    let range = |text: &str| {
        let (start, end) = text.split_once("..")?;
        let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);

        (start <= end && end - start <= 10_000).then_some(start..end)
    };
    let error = |text: &str| {
        let (nth, errno) = text.split_once(':')?;
        Some((nth.parse().ok()?, errno.parse().ok()?))
    };
    let mut span_of = |key| line.maybe(key, range).map(|range| range.unwrap_or(0..0));

    Ok(Faults {
        sends_blocked: span_of("sends-blocked")?,
        receives_blocked: span_of("receives-blocked")?,
        writes_blocked: span_of("writes-blocked")?,
        reads_blocked: span_of("reads-blocked")?,
        sends_without_memory: span_of("no-memory")?,
        accepts: line.maybe("accepts", number)?,
        send_errors: line.maybe("send-error", error)?.into_iter().collect(),
        receive_errors: line.maybe("receive-error", error)?.into_iter().collect(),
        refuses_runs: line.flag("refuses-runs"),
        tun_comes_at: line.maybe("tun-comes", span)?.unwrap_or_default(),
        tun_vanishes_at: line.maybe("tun-vanishes", span)?,
        outputs_are_slow: line.flag("slow-outputs"),
        workers: line.maybe("workers", number)?,
        pace: line.maybe("pace", |text| number(text).filter(|pace| *pace > 0))?,
        wire: line.maybe("wire", |text| number(text).filter(|rate| *rate > 0))?,
    })
}

pub(super) fn resource(scenario: &Scenario, line: &mut Line<'_>) -> Result<Resource, String> {
    let name = line.word("a name")?.to_owned();
    if scenario.resources.iter().any(|other| other.name == name) {
        return Err(format!("a second `{name}`"));
    }
    let (address, filters) = (address(line)?, filters(line)?);
    if address == Address::Internet && !filters.is_empty() {
        return Err("the Internet has no filters".to_owned());
    }
    let clients = |text: &str| {
        let names = text.split(',').filter(|name| *name != "nobody");
        names
            .map(|name| find_host(scenario, name))
            .collect::<Option<Vec<usize>>>()
    };
    let all = || {
        let hosts = scenario.hosts.iter().enumerate();
        hosts
            .filter(|(_, host)| matches!(host.role, Role::Client { .. }))
            .map(|(host, _)| host)
    };

    Ok(Resource {
        name,
        address,
        filters,
        site: line.field("site", |site| Some(site.to_owned()))?,
        clients: line
            .maybe("for", clients)?
            .unwrap_or_else(|| all().collect()),
    })
}

pub(super) fn error_host(line: &mut Line<'_>) -> Result<(IpAddr, HostError), String> {
    let ip = line.word("an address")?;
    let ip = number(ip).ok_or_else(|| format!("`{ip}` is no address"))?;
    let word = line.word("an error")?;
    let mut named = HostError::NAMED.into_iter();
    let error = named.find(|(name, _)| *name == word);
    let (_, error) = error.ok_or_else(|| format!("`{word}` is no error"))?;

    Ok((ip, error))
}

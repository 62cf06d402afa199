//! From a [`Scenario`] to the text that is read as the same one.

use std::fmt::{self, Display, Formatter};

use super::print_names::{print_address, print_filters};
use super::quantity::{Rate, Span};
use super::{Dependence, Drive, EdgeKind, Event, Link, PerMille, Place, Role, Scenario};
use crate::faults::Faults;

impl Display for Scenario {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "scenario v1 \"{}\"",
            self.name.replace(['"', '#', '\n'], "'")
        )?;
        writeln!(f, "seed {:#x}", self.seed)?;
        match self.drive {
            Drive::Exact => {}
            Drive::EveryMilli => writeln!(f, "drive every-milli")?,
            Drive::Late => writeln!(f, "drive late")?,
        }
        writeln!(f, "lasts {}", Span(self.lasts))?;
        let portal = &self.portal;
        write!(f, "portal latency={}", Span(portal.latency))?;
        span(f, "jitter", portal.jitter)?;
        share(f, "dup", portal.duplicates)?;
        share(f, "reorder", portal.reorders)?;
        writeln!(f)?;
        self.print_hosts(f)?;
        for resource in &self.resources {
            let names: Vec<&str> = resource
                .clients
                .iter()
                .map(|host| self.host(*host))
                .collect();
            let clients = if names.is_empty() {
                "nobody".to_owned()
            } else {
                names.join(",")
            };
            write!(f, "res {} ", resource.name)?;
            print_address(f, &resource.address)?;
            print_filters(f, &resource.filters)?;
            writeln!(f, " site={} for={clients}", resource.site)?;
        }
        self.print_names(f)?;
        for (at, event) in &self.events {
            write!(f, "t={} ", Span(*at))?;
            self.print_event(f, event)?;
            writeln!(f)?;
        }
        for expectation in &self.expect {
            write!(f, "expect ")?;
            self.print_expectation(f, expectation)?;
            writeln!(f)?;
        }

        Ok(())
    }
}

impl Scenario {
    fn print_hosts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for edge in &self.edges {
            write!(f, "edge {} ", edge.name)?;
            match edge.kind {
                EdgeKind::Nat(nat) => {
                    let (map, filter) = (dependence(nat.mapping), dependence(nat.filtering));
                    let (ip4, expiry) = (nat.ip4, Span(nat.expiry));
                    write!(f, "nat ip4={ip4} map={map} filter={filter} expiry={expiry}")?;
                    flag(f, "keeps-ports", nat.keeps_ports)?;
                    flag(f, "hairpin", nat.hairpin)?;
                }
                EdgeKind::Firewall { expiry } => write!(f, "firewall expiry={}", Span(expiry))?,
                EdgeKind::OnlyPort(port) => write!(f, "only-port port={port}")?,
                EdgeKind::Blocked => write!(f, "blocked")?,
            }
            self.print_behind(f, edge.behind)?;
            writeln!(f)?;
        }
        for host in &self.hosts {
            write!(f, "host {} ", host.name)?;
            match &host.role {
                Role::Client { token_ends_at } => {
                    write!(f, "client")?;
                    if let Some(at) = token_ends_at {
                        write!(f, " token-ends={}", Span(*at))?;
                    }
                }
                Role::Gateway { site } => write!(f, "gateway site={site}")?,
                Role::Relay => write!(f, "relay")?,
            }
            self.print_place(f, &host.place)?;
            writeln!(f)?;
        }
        for host in &self.hosts {
            if host.link != Link::default() {
                write!(f, "link {}", host.name)?;
                print_link(f, &host.link)?;
                writeln!(f)?;
            }
            if host.faults != Faults::default() {
                write!(f, "faults {}", host.name)?;
                print_faults(f, &host.faults)?;
                writeln!(f)?;
            }
        }

        Ok(())
    }

    pub(super) fn print_place(&self, f: &mut Formatter<'_>, place: &Place) -> fmt::Result {
        if let Some(ip4) = place.ip4 {
            write!(f, " ip4={ip4}")?;
        }
        if let Some(ip6) = place.ip6 {
            write!(f, " ip6={ip6}")?;
        }

        self.print_behind(f, place.behind)
    }

    fn print_behind(&self, f: &mut Formatter<'_>, behind: Option<usize>) -> fmt::Result {
        match behind.and_then(|edge| self.edges.get(edge)) {
            Some(edge) => write!(f, " behind={}", edge.name),
            None => Ok(()),
        }
    }

    pub(crate) fn host(&self, host: usize) -> &str {
        self.hosts.get(host).map_or("?", |host| host.name.as_str())
    }

    pub(crate) fn flow_name(&self, number: usize) -> &str {
        self.flows()
            .nth(number)
            .map_or("?", |flow| flow.name.as_str())
    }

    pub(crate) fn flows(&self) -> impl Iterator<Item = &super::Flow> {
        self.events.iter().filter_map(|(_, event)| {
            if let Event::Flow(flow) = event {
                Some(flow)
            } else {
                None
            }
        })
    }
}

pub(super) fn print_link(f: &mut Formatter<'_>, link: &Link) -> fmt::Result {
    let default = Link::default();
    write!(f, " latency={}", Span(link.latency))?;
    span(f, "jitter", link.jitter)?;
    share(f, "loss", link.loss)?;
    share(f, "dup", link.duplicates)?;
    share(f, "reorder", link.reorders)?;
    share(f, "corrupt", link.corrupts)?;
    if link.mtu != default.mtu {
        write!(f, " mtu={}", link.mtu)?;
    }
    if let Some(rate) = link.rate {
        write!(f, " rate={}", Rate(rate))?;
    }
    if link.queue != default.queue {
        write!(f, " queue={}", Span(link.queue))?;
    }

    Ok(())
}

fn print_faults(f: &mut Formatter<'_>, faults: &Faults) -> fmt::Result {
    for (key, range) in [
        ("sends-blocked", &faults.sends_blocked),
        ("receives-blocked", &faults.receives_blocked),
        ("writes-blocked", &faults.writes_blocked),
        ("reads-blocked", &faults.reads_blocked),
        ("no-memory", &faults.sends_without_memory),
    ] {
        if *range != (0..0) {
            write!(f, " {key}={}..{}", range.start, range.end)?;
        }
    }
    if let Some(accepts) = faults.accepts {
        write!(f, " accepts={accepts}")?;
    }
    for (key, errors) in [
        ("send-error", &faults.send_errors),
        ("receive-error", &faults.receive_errors),
    ] {
        for (nth, errno) in errors {
            write!(f, " {key}={nth}:{errno}")?;
        }
    }
    flag(f, "refuses-runs", faults.refuses_runs)?;
    span(f, "tun-comes", faults.tun_comes_at)?;
    if let Some(at) = faults.tun_vanishes_at {
        write!(f, " tun-vanishes={}", Span(at))?;
    }
    flag(f, "slow-outputs", faults.outputs_are_slow)?;
    if let Some(workers) = faults.workers {
        write!(f, " workers={workers}")?;
    }
    if let Some(pace) = faults.pace {
        write!(f, " pace={pace}")?;
    }
    if let Some(rate) = faults.wire {
        write!(f, " wire={rate}")?;
    }

    Ok(())
}

fn dependence(dependence: Dependence) -> &'static str {
    match dependence {
        Dependence::Endpoint => "endpoint",
        Dependence::Address => "address",
        Dependence::AddressAndPort => "port",
    }
}

pub(super) fn span(f: &mut Formatter<'_>, key: &str, span: std::time::Duration) -> fmt::Result {
    match span.is_zero() {
        true => Ok(()),
        false => write!(f, " {key}={}", Span(span)),
    }
}

pub(super) fn share(f: &mut Formatter<'_>, key: &str, share: PerMille) -> fmt::Result {
    match share.0 {
        0 => Ok(()),
        _ => write!(f, " {key}={share}"),
    }
}

pub(super) fn flag(f: &mut Formatter<'_>, flag: &str, is_set: bool) -> fmt::Result {
    match is_set {
        true => write!(f, " {flag}"),
        false => Ok(()),
    }
}

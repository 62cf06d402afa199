//! Packets to names: where they may come out, and which of them must (A6, A7).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::answers::{Truth, gateways};
use super::judge::{Court, Objection};
use super::names::LAG;
use super::{Destination, Names};
use crate::apps::{Arrival, Running};
use crate::names::{Resolver, of_ip, to_ip};
use crate::scenario::{RecordKind, Role, ServerAt};

/// How long after its latest packet a flow may have ended that was never answered (gateway.md §1).
const FLOWS_END_AFTER: Duration = Duration::from_secs(60);

impl Names {
    /// Whether a server that a gateway asks said in a span that a name has an address.
    fn had(
        &self,
        (gateway, span): (usize, (Instant, Instant)),
        name: &str,
        ip: IpAddr,
        truth: &Truth<'_>,
    ) -> bool {
        let data = of_ip(ip);
        let mut servers = self.systems(gateway, span).flatten();

        servers.any(|server| {
            let found = truth.servers.at_ip(*server);
            let site = found.and_then(|it| truth.servers.get(it)?.site.as_deref());
            let place = (site, name);
            found.is_some()
                && (truth.zones).any(span, place, kind(ip.is_ipv4()).0, |says| {
                    says.data.contains(&data)
                })
        })
    }

    /// Whether a request to a name may come out of a gateway, and there. Whoever asked for the name let the gateway look for its
    /// addresses, so that older ones than it had then are none.
    pub(crate) fn may_come_out(
        &self,
        now: Instant,
        (client, name): (usize, &str),
        (gateway, ip): (usize, IpAddr),
        resolver: &Resolver,
        truth: &Truth<'_>,
    ) -> Result<(), String> {
        let Some(asked_at) = resolver.times(client, name).min() else {
            return Err(format!("nobody has asked for `{name}`"));
        };
        let from = asked_at.checked_sub(truth.servers.longest_ttl() + LAG);
        let span = (from.unwrap_or(asked_at), now);
        if !self.had((gateway, span), name, ip, truth) {
            return Err(format!("`{name}` never had the address {ip}"));
        }

        Ok(())
    }
}

fn kind(is_ipv4: bool) -> RecordKind {
    match is_ipv4 {
        true => RecordKind::A,
        false => RecordKind::AAAA,
    }
}

impl Court<'_> {
    /// What a flow's packets are for.
    pub(super) fn destination<'r>(&self, running: &'r Running) -> Option<Destination<'r>> {
        match running.name() {
            Some(name) => Some(Destination::Name(name)),
            None => running.to.map(Destination::Ip),
        }
    }

    /// The sites that a flow's packets go to.
    pub(super) fn sites(&self, running: &Running, at: Instant) -> Vec<String> {
        let chosen = self.chosen(running, at);
        let version = chosen.and_then(|resource| self.access.version(at, resource));

        version.map(|it| it.site.clone()).into_iter().collect()
    }

    /// Whether gateways can find the address of a flow's name all the time from the first question for it on: a failure lasts
    /// until somebody asks again.
    pub(super) fn resolves(&self, running: &Running, done_at: Instant) -> bool {
        let Some(name) = running.name() else {
            return true;
        };
        let Some(asked_at) = self.resolver.times(running.flow.host, name).min() else {
            return false;
        };
        let sites = self.sites(running, done_at);
        let mut hosts = sites.iter().flat_map(|site| gateways(self.scenario, site));

        hosts.all(|gateway| {
            let of_family = Some((name, running.flow.to.is_ipv4()));
            self.has_good_servers(gateway, (asked_at, done_at), of_family)
        })
    }

    /// Whether the servers of a gateway's site answer all the time, and know addresses of a family for a name.
    pub(super) fn has_good_servers(
        &self,
        gateway: usize,
        (from, until): (Instant, Instant),
        name: Option<(&str, bool)>,
    ) -> bool {
        let Some(plan) = self.scenario.hosts.get(gateway) else {
            return false;
        };
        let before = from.checked_sub(self.servers.longest_ttl() + LAG);
        let before = before.unwrap_or(from);
        let is_good = |ip: &IpAddr| {
            let found = self.servers.find(&ServerAt::Ip(*ip));
            let Some((number, server)) = found.and_then(|it| Some((it, self.servers.get(it)?)))
            else {
                return false;
            };
            let is_near = match (&server.site, &plan.role) {
                (Some(site), Role::Gateway { site: own }) => site == own,
                (Some(_), Role::Client { .. } | Role::Relay) => false,
                (None, _) => plan.place.ip(ip.is_ipv4()).is_some(),
            };
            let knows = name.is_none_or(|(name, is_ipv4)| {
                let place = (server.site.as_deref(), name);
                let has = |says: &crate::names::Says| !says.data.is_empty();
                (self.zones).all((before, until), place, kind(is_ipv4).0, has)
            });
            is_near && knows && self.servers.is_good(number, (from, until))
        };
        let mut systems = self.names.systems(gateway, (from, until)).peekable();

        systems.peek().is_some() && systems.all(|list| !list.is_empty() && list.iter().all(is_good))
    }

    /// Whether all servers of a gateway's site say all the time that a name has no address of a family.
    pub(super) fn has_no_address(
        &self,
        gateway: usize,
        (from, until): (Instant, Instant),
        (name, is_ipv4): (&str, bool),
    ) -> bool {
        let before = from.checked_sub(self.servers.longest_ttl() + LAG);
        let span = (before.unwrap_or(from), until);
        let mut servers = self.names.systems(gateway, span).flatten();

        servers.all(|ip| {
            let found = self.servers.at_ip(*ip).and_then(|it| self.servers.get(it));
            let site = found.and_then(|server| server.site.as_deref());
            let has_none = |says: &crate::names::Says| says.data.is_empty();
            (self.zones).all(span, (site, name), kind(is_ipv4).0, has_none)
        })
    }

    /// A flow keeps the address that it has, whatever becomes of its name (A7).
    pub(super) fn stays(&self, running: &Running) -> Result<(), Objection> {
        let pairs = running.arrivals.iter().zip(running.arrivals.iter().skip(1));
        for (before, after) in pairs {
            let client = running.flow.host;
            let is_moved = before.gateway == after.gateway && before.ip != after.ip;
            let is_idle = after.first_at >= before.last_at + FLOWS_END_AFTER;
            if is_moved && !is_idle && !self.is_disturbed(client, before.first_at, after.first_at) {
                let (name, from, to) = (&running.flow.name, before.ip, after.ip);
                let what = format!("`{name}` moved from {from} to {to}");
                return Err((self.elapsed(after.first_at), what));
            }
        }

        running
            .arrivals
            .iter()
            .try_for_each(|arrival| self.is_mapped_right(running, arrival))?;

        self.is_fresh(running)
    }

    /// What stands for a name leads to the address in its place (gateway.md §8.2), for all flows, as long as nothing else was
    /// ever said of the name.
    fn is_mapped_right(&self, running: &Running, arrival: &Arrival) -> Result<(), Objection> {
        let wanted = self.mapped(running, arrival);
        let Some(wanted) = wanted.filter(|wanted| *wanted != arrival.ip) else {
            return Ok(());
        };
        let (name, ip) = (&running.flow.name, arrival.ip);
        let what = format!("`{name}` reached {ip}, not {wanted}");

        Err((self.elapsed(arrival.first_at), what))
    }

    fn mapped(&self, running: &Running, arrival: &Arrival) -> Option<IpAddr> {
        let (name, proxy) = (running.name()?, running.to?);
        let span = (self.start, arrival.first_at);
        if self.zones.changes(span, name) {
            return None;
        }
        let [v4, v6] = self.names.view(running.flow.host)?.book.get(name)?;
        let proxies = if proxy.is_ipv4() { v4 } else { v6 };
        let place = proxies.iter().position(|ip| *ip == proxy)?;
        let servers = self.names.systems(arrival.gateway, span).flatten();
        let mut said: Vec<Vec<Vec<u8>>> = servers
            .filter_map(|server| self.servers.get(self.servers.at_ip(*server)?))
            .map(|server| {
                let kind = kind(proxy.is_ipv4()).0;
                (self.zones).say(arrival.first_at, server.site.as_deref(), name, kind)
            })
            .map(|says| says.data)
            .collect();
        said.dedup();
        let [reals] = &said[..] else {
            return None;
        };

        to_ip(reals.get(place % reals.len().max(1))?)
    }

    /// A flow that begins goes to an address that its name has had since the latest question that there was time to look it up
    /// for.
    fn is_fresh(&self, running: &Running) -> Result<(), Objection> {
        let (Some(name), Some(arrival)) = (running.name(), running.arrivals.first()) else {
            return Ok(());
        };
        let (client, at) = (running.flow.host, arrival.first_at);
        // One that others sent before is the same flow to a gateway.
        let is_same = |other: &&Running| {
            other.flow.host == client
                && other.inside() == running.inside()
                && other.arrivals.first().is_some_and(|it| it.first_at < at)
        };
        let takes = self.named_holds(running);
        let times = self.resolver.times(client, name);
        let latest = times.filter(|asked_at| *asked_at + self.first_holds() + takes <= at);
        let Some(asked_at) = latest.max() else {
            return Ok(());
        };
        let of_family = Some((name, running.flow.to.is_ipv4()));
        if self.is_lossy
            || self.apps.flows().iter().any(|other| is_same(&other))
            || !self.is_granted(running, asked_at, at)
            || self.is_flow_disturbed(running, asked_at, at)
            || !self.has_good_servers(arrival.gateway, (asked_at, at), of_family)
        {
            return Ok(());
        }
        self.count(|judged| judged.fresh += 1);
        let from = asked_at.checked_sub(takes + self.servers.longest_ttl() + LAG);
        let span = (from.unwrap_or(asked_at), at);
        let truth = Truth {
            scenario: self.scenario,
            zones: self.zones,
            servers: self.servers,
        };
        if self
            .names
            .had((arrival.gateway, span), name, arrival.ip, &truth)
        {
            return Ok(());
        }
        let (flow, ip) = (&running.flow.name, arrival.ip);
        let what = format!("`{flow}` began to {ip}, which `{name}` no longer has");

        Err((self.elapsed(at), what))
    }
}

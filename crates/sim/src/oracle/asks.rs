//! Questions: each gets an answer in time, and a good one where somebody knows it.

use std::time::{Duration, Instant};

use connlib_tunnel::client::Interface;

use super::answers::gateways;
use super::judge::{Court, Objection};
use super::names::{LAG, during};
use super::{Destination, Disturbance, pattern};
use crate::limits::{ANSWER_ACCESS, ANSWER_INSIDE, ANSWER_OUTSIDE, ANSWER_OWN};
use crate::names::{Ask, Verdict, of_ip};
use crate::scenario::{Drive, ServerAt, Via};

/// How many servers have a turn within the time that a question has: a connection is waited for longer.
const MAX_SERVERS: [usize; 2] = [3, 2];

/// How long a question may take: one that is asked again before that shares the fate of the one before, by the network that the
/// client is in and through the tunnel (client.md §4.5, §4.6).
const OUTSIDE: Duration = Duration::from_secs(5);
const INSIDE: Duration = Duration::from_secs(10);

/// How long after a disturbance of the client's own questions are asked anew.
const SETTLES: Duration = Duration::from_secs(2);

impl Court<'_> {
    pub(super) fn asks(&self) -> Result<(), Objection> {
        for ask in self.resolver.asks() {
            self.is_answered(ask)?;
            let Some((answered_at, message)) = &ask.answer else {
                continue;
            };
            let (Verdict::Said { at_site } | Verdict::Failed { at_site }) = ask.verdict else {
                continue;
            };
            let is_certain = match at_site {
                true => self.knows_at_site(ask, *answered_at),
                false => self.knows_outside(ask, *answered_at),
            };
            match at_site {
                true => self.count(|judged| judged.at_sites += u64::from(is_certain)),
                false => self.count(|judged| judged.outside += u64::from(is_certain)),
            }
            if is_certain && matches!(ask.verdict, Verdict::Failed { .. }) {
                let (name, kind) = (&ask.name, ask.kind);
                let code = message.code();
                let what =
                    format!("`{name}` {kind} failed ({code}), though there is somebody who knows");
                return Err((self.elapsed(ask.asked_at), what));
            }
        }

        Ok(())
    }

    /// A question has its answer in time, unless its client or the address that it asked is gone meanwhile.
    fn is_answered(&self, ask: &Ask) -> Result<(), Objection> {
        let due_at = self.answer_due_at(ask);
        let within = due_at - ask.asked_at;
        let answered_at = ask.answer.as_ref().map(|(at, _)| *at);
        let is_late = answered_at.is_none_or(|at| at > due_at);
        let until = answered_at.unwrap_or(due_at).max(due_at);
        if due_at >= self.over_at
            || self.is_token_over(ask.host, due_at)
            || self.is_client_disturbed(ask, (ask.asked_at, until))
            || !self.is_mapped(ask, until)
        {
            return Ok(());
        }
        self.count(|judged| judged.questions += 1);
        if !is_late {
            return Ok(());
        }
        let (name, kind) = (&ask.name, ask.kind);
        let what = format!("`{name}` {kind} had no answer within {within:?}");

        Err((self.elapsed(ask.asked_at), what))
    }

    /// When a question must have its answer. Whenever others are to be asked than before, it has all its time anew.
    fn answer_due_at(&self, ask: &Ask) -> Instant {
        let late = match self.scenario.drive {
            Drive::Exact | Drive::EveryMilli => Duration::ZERO,
            Drive::Late => Duration::from_secs(1),
        };
        let Some(view) = self.names.view(ask.host) else {
            return ask.asked_at + ANSWER_OWN.holds + late;
        };
        if view.is_own(ask) {
            return ask.asked_at + ANSWER_OWN.holds + late;
        }
        let mut began_at = ask.asked_at;
        let mut changes: Vec<Instant> = (view.told.iter().map(|(at, _)| *at))
            .chain(view.servers.iter().map(|(at, _)| *at))
            .filter(|at| *at > ask.asked_at)
            .collect();
        changes.sort_unstable();
        for at in changes {
            if at <= began_at + self.answer_takes(ask, (ask.asked_at, at)) {
                began_at = at;
            }
        }

        began_at + self.answer_takes(ask, (ask.asked_at, began_at)) + late
    }

    /// How long those may take that a question may be for in a span.
    fn answer_takes(&self, ask: &Ask, (from, until): (Instant, Instant)) -> Duration {
        let Some(view) = self.names.view(ask.host) else {
            return ANSWER_OWN.holds;
        };
        let from = from.checked_sub(LAG).unwrap_or(from);
        let is_named = during(&view.told, from, until + LAG)
            .flatten()
            .any(|told| pattern::matches(&told.pattern, &ask.name));
        let is_inside = |at: &ServerAt| {
            let found = self.servers.find(at);
            let is_at_site =
                found.is_some_and(|it| self.servers.get(it).is_some_and(|it| it.site.is_some()));
            is_at_site || view.may_pass_internet(at, (from, until + LAG))
        };
        let mut servers = during(&view.servers, from, until + LAG).flatten();

        match is_named || servers.any(is_inside) {
            true => ANSWER_INSIDE.holds + ANSWER_ACCESS.holds,
            false => ANSWER_OUTSIDE.holds,
        }
    }

    /// Whether the address that was asked answers all the time.
    fn is_mapped(&self, ask: &Ask, until: Instant) -> bool {
        let from = ask.asked_at.checked_sub(LAG).unwrap_or(ask.asked_at);
        let view = self.names.view(ask.host);
        let lists = view.map(|view| view.interfaces()).unwrap_or_default();
        let until = match ask.via {
            Via::Udp => ask.asked_at + LAG,
            Via::Tcp => until,
        };
        let mut lists = during(lists, from, until).peekable();

        let answers = |it: &Option<Interface>| {
            it.as_ref()
                .is_some_and(|it| it.name_servers.contains(&ask.server))
        };

        lists.peek().is_some() && lists.all(answers)
    }

    /// Whether something happened to the client of a question itself.
    fn is_client_disturbed(&self, ask: &Ask, (from, until): (Instant, Instant)) -> bool {
        let to = Some(Destination::Name(&ask.name));
        let is_own = |it: &&Disturbance| {
            let is_its = it.host == ask.host && it.client == Some(ask.host);
            is_its && self.concerns(it, ask.host, to)
        };
        let mut own = self.watch.disturbances.iter().filter(is_own);

        own.any(|it| {
            let over_at = it.over_at.unwrap_or(self.over_at) + SETTLES;
            it.began_at <= until && from <= over_at
        })
    }

    /// Whether one of the client's servers answers, and not too many others don't.
    fn knows_outside(&self, ask: &Ask, answered_at: Instant) -> bool {
        let since = ask.asked_at.checked_sub(OUTSIDE).unwrap_or(self.start);
        let span = (since.max(self.start), answered_at);
        let from = ask.asked_at.checked_sub(LAG).unwrap_or(ask.asked_at);
        let Some(view) = self.names.view(ask.host) else {
            return false;
        };
        let mut lists = during(&view.servers, from, answered_at);
        let (Some(list), None) = (lists.next(), lists.next()) else {
            return false;
        };
        let [udp, tcp] = MAX_SERVERS;
        let most = match ask.via {
            Via::Udp => udp,
            Via::Tcp => tcp,
        };
        let place = self.place(ask.host, ask.asked_at);
        let is_good = |at: &ServerAt| {
            let found = self.servers.find(at);
            let server = found.and_then(|it| self.servers.get(it));
            let is_at_site = server.is_some_and(|server| server.site.is_some());
            let is_inside = is_at_site || view.may_pass_internet(at, (since, answered_at));
            let is_reached = match at {
                ServerAt::Ip(ip) if is_inside => {
                    // A question that the tunnel isn't there for yet has less time for the rest.
                    view.is_configured(*ip)
                        && self.first_holds() + self.servers.longest() < OUTSIDE
                        && self.reaches_site(ask, Destination::Ip(*ip), answered_at)
                }
                ServerAt::Ip(ip) => place.is_some_and(|place| place.ip(ip.is_ipv4()).is_some()),
                ServerAt::Url(_) => true,
            };
            is_reached && found.is_some_and(|it| self.servers.is_good(it, span))
        };
        let good = list.iter().filter(|at| is_good(at)).count();

        good > 0
            && list.len() <= most
            && list.len() - good <= 1
            && !self.is_client_disturbed(ask, span)
    }

    /// Whether the site of a name is reached, and its servers answer.
    fn knows_at_site(&self, ask: &Ask, answered_at: Instant) -> bool {
        let to = Destination::Name(&ask.name);
        let since = ask.asked_at.checked_sub(INSIDE).unwrap_or(self.start);
        let span = (since.max(self.start), answered_at);
        let sites = self.sites_of(ask, to, answered_at);
        let mut hosts = sites.iter().flat_map(|site| gateways(self.scenario, site));

        self.reaches_site(ask, to, answered_at)
            && hosts.all(|gateway| self.has_good_servers(gateway, span, None))
    }

    /// The sites that what a question goes to is at.
    fn sites_of(&self, ask: &Ask, to: Destination<'_>, at: Instant) -> Vec<&String> {
        let meant = self.access.meant(ask.asked_at, ask.host, to);
        let versions = meant.iter().filter_map(|it| self.access.version(at, *it));

        versions.map(|version| &version.site).collect()
    }

    /// Whether a question gets through the tunnel all the time.
    fn reaches_site(&self, ask: &Ask, to: Destination<'_>, answered_at: Instant) -> bool {
        let since = ask.asked_at.checked_sub(INSIDE).unwrap_or(self.start);
        let since = since.max(self.start);
        let meant = self.access.meant(ask.asked_at, ask.host, to);
        let is_steady = |resource: &usize| {
            let (is_allowed, since) = self.access.state(answered_at, ask.host, *resource);
            is_allowed && since + SETTLES <= ask.asked_at
        };
        let sites = self.sites_of(ask, to, answered_at);

        // Another interface lets everything be asked anew that goes through the tunnel (client.md §1).
        let view = self.names.view(ask.host);
        let lists = view.map(|view| view.interfaces()).unwrap_or_default();
        let lists = during(lists, since, answered_at).flatten();
        let is_same = lists.count() <= 1;

        is_same
            && !self.is_lossy
            && !self.is_disorderly()
            && !meant.is_empty()
            && meant.iter().all(is_steady)
            && meant == self.access.meant(answered_at, ask.host, to)
            && !self.is_token_over(ask.host, answered_at)
            && !self.is_disturbed_for((ask.host, Some(to)), since, answered_at)
            && !self.has_outage((since, answered_at))
            && self.are_sites_reachable(ask.host, &sites, ask.asked_at)
            && self.are_sites_reachable(ask.host, &sites, answered_at)
    }

    /// Whether the portal was away for anybody.
    fn has_outage(&self, (from, until): (Instant, Instant)) -> bool {
        let mut outages = self.watch.outages.iter();

        outages.any(|outage| {
            let over_at = self.outage_until(outage);
            outage.began_at <= until && from <= over_at
        })
    }

    /// What a name server must have said.
    pub(super) fn said(&self, said: &crate::scenario::Said) -> Result<(), Objection> {
        let name = self.scenario.flow_name(said.flow);
        let ask = self.resolver.of_flow(said.flow).last();
        let answer = ask.and_then(|ask| Some((ask, ask.answer.as_ref()?)));
        let object = |what: String| Err((self.elapsed(self.over_at), what));
        let Some((ask, (at, message))) = answer else {
            return match said.code {
                None => Ok(()),
                Some(_) => object(format!("`{name}` had no answer")),
            };
        };
        let (code, records) = (message.code(), message.answers.len());
        let took = *at - ask.asked_at;
        let is_said = said.code == Some(code)
            && said.records.is_none_or(|wanted| wanted as usize == records)
            && said.within.is_none_or(|within| took <= within)
            && (said.ip).is_none_or(|ip| message.data(ask.kind).contains(&of_ip(ip)));

        match is_said {
            true => Ok(()),
            false => object(format!(
                "`{name}` was answered by {code} with {records} records after {took:?}"
            )),
        }
    }
}

//! What excuses a packet for not coming through.

use std::time::{Duration, Instant};

use super::judge::Court;
use super::{Destination, Disturbance, Reach, Way};
use crate::apps::{Probe, Running};
use crate::excuse::Excuse;
use crate::limits::{CLIENT_JOINED, FIRST_REPLY_LOSSY, GATEWAY_JOINED, Kind, NAME_KNOWN};
use crate::scenario::{Address, Place, Role};

impl Court<'_> {
    /// The resource that packets of a flow belong to at `at`, if nothing else could be meant.
    pub(super) fn chosen(&self, running: &Running, at: Instant) -> Option<usize> {
        match self.names.ways(running, (at, at))[..] {
            [Way::To(id)] => self.access.number(id),
            _ => None,
        }
    }

    /// Counts a request that must be answered by what its client chose for it.
    pub(super) fn count_choice(&self, running: &Running, probe: &Probe) {
        let (client, at) = (running.flow.host, probe.sent_at);
        let Some(to) = self.destination(running) else {
            return;
        };
        let let_in = |resource: &usize| self.access.state(at, client, *resource).0;
        let candidates = self.access.candidates(at, to);
        let is_overlapping = candidates.into_iter().filter(let_in).count() > 1;
        let chosen = self.chosen(running, at);
        let version = chosen.and_then(|resource| self.access.version(at, resource));
        let is_internet = version.is_some_and(|it| it.address == Address::Internet);
        self.count(|judged| {
            judged.overlapping += u64::from(is_overlapping);
            judged.internet += u64::from(is_internet);
        });
    }

    /// Whether packets of a flow belong to one resource all the time, and their client was let in before.
    pub(super) fn is_granted(&self, running: &Running, sent_at: Instant, done_at: Instant) -> bool {
        let client = running.flow.host;
        let [Way::To(id)] = self.names.ways(running, (sent_at, done_at))[..] else {
            return false;
        };
        let Some(resource) = self.access.number(id) else {
            return false;
        };
        let (before, _) = self.access.state(sent_at, client, resource);
        let (after, since) = self.access.state(done_at, client, resource);

        before && after && since <= sent_at
    }

    pub(super) fn is_reachable(&self, running: &Running, at: Instant) -> bool {
        let sites = self.sites(running, at);

        self.are_sites_reachable(running.flow.host, &sites.iter().collect::<Vec<_>>(), at)
    }

    /// Whether a client reaches gateways of sites. Which one is taken is the portal's choice: all of them must do.
    pub(super) fn are_sites_reachable(
        &self,
        client: usize,
        sites: &[&String],
        at: Instant,
    ) -> bool {
        let mut hosts = self.scenario.hosts.iter().enumerate();
        let Some(reach) = self.reach(at) else {
            return false;
        };
        let is_there = |host: usize| reach.places.get(host).copied().flatten().is_some();

        hosts
            .clone()
            .any(|(gateway, host)| serves(&host.role, sites) && is_there(gateway))
            && hosts.all(|(gateway, host)| {
                !serves(&host.role, sites)
                    || !is_there(gateway)
                    || reach.is_certain(self.scenario, client, gateway)
            })
    }

    fn reach(&self, at: Instant) -> Option<&Reach> {
        let mut reach = self.watch.reach.iter().rev();

        reach
            .find(|(since, _)| *since <= at)
            .map(|(_, reach)| reach)
    }

    /// Where a host is.
    pub(super) fn place(&self, host: usize, at: Instant) -> Option<Place> {
        self.reach(at)?.places.get(host).copied().flatten()
    }

    pub(super) fn is_token_over(&self, client: usize, at: Instant) -> bool {
        let ends_at = self.scenario.token_ends_at(client);

        ends_at.is_some_and(|ends_at| at >= self.start + ends_at)
    }

    pub(super) fn is_disturbed(&self, client: usize, sent_at: Instant, done_at: Instant) -> bool {
        self.is_disturbed_for((client, None), sent_at, done_at)
    }

    /// The same for what goes to one destination.
    pub(super) fn is_disturbed_for(
        &self,
        (client, to): (usize, Option<Destination<'_>>),
        sent_at: Instant,
        done_at: Instant,
    ) -> bool {
        let was_up = |before: Instant| self.was_answered(client, to, before);

        self.hit((client, to, Duration::ZERO), (sent_at, done_at), was_up)
            .is_some()
    }

    /// Whether a disturbance is one for what a client sends to a destination: of a resource that it is for, or was before.
    pub(super) fn concerns(
        &self,
        disturbance: &Disturbance,
        client: usize,
        to: Option<Destination<'_>>,
    ) -> bool {
        let is_meant = match (disturbance.resource, to) {
            (Some(resource), Some(to)) => {
                let since = disturbance.began_at;
                let before = since.checked_sub(Duration::from_nanos(1));
                let mut times = [before.unwrap_or(since), since].into_iter();
                times.any(|at| self.access.may_mean(at, client, to).contains(&resource))
            }
            (Some(_), None) | (None, _) => true,
        };

        is_meant && disturbance.client.is_none_or(|it| it == client)
    }

    /// The same for one flow. What goes to a name needs its gateway to know it, and an access of its own.
    pub(super) fn is_flow_disturbed(
        &self,
        running: &Running,
        sent_at: Instant,
        done_at: Instant,
    ) -> bool {
        self.flow_disturbance(running, sent_at, done_at).is_some()
    }

    /// What disturbs one flow.
    pub(super) fn flow_disturbance(
        &self,
        running: &Running,
        sent_at: Instant,
        done_at: Instant,
    ) -> Option<Excuse> {
        let (client, to) = (running.flow.host, self.destination(running));
        let wanted = self.chosen(running, sent_at);
        if running.name().is_none() {
            let was_up = |before: Instant| self.was_served(client, wanted, before);
            return self.hit((client, to, Duration::ZERO), (sent_at, done_at), was_up);
        }
        let grace = NAME_KNOWN.holds + self.servers.longest();
        let was_up =
            |before: Instant| was_up(running, before) && self.chosen(running, before) == wanted;

        self.hit((client, to, grace), (sent_at, done_at), was_up)
    }

    fn hit(
        &self,
        (client, to, grace): (usize, Option<Destination<'_>>, Duration),
        (sent_at, done_at): (Instant, Instant),
        was_up: impl Fn(Instant) -> bool,
    ) -> Option<Excuse> {
        let mut disturbances = self.watch.disturbances.iter();
        let hit = disturbances.find(|disturbance| {
            let over_at = self.forgiven_until(disturbance, client) + grace;
            disturbance.began_at <= done_at
                && sent_at <= over_at
                && self.concerns(disturbance, client, to)
        });
        // Whoever is not connected yet waits for the portal.
        let mut outages = self.watch.outages.iter();
        let waits = outages.any(|outage| {
            let over_at = self.outage_until(outage);
            outage.began_at <= done_at && sent_at <= over_at && !was_up(outage.began_at)
        });

        match hit {
            Some(disturbance) => Some(Excuse::Disturbed(disturbance.kind)),
            None => waits.then_some(Excuse::PortalAway),
        }
    }

    /// Until when a disturbance excuses: while the portal is away, nothing that needs it is over.
    pub(super) fn forgiven_until(&self, disturbance: &Disturbance, client: usize) -> Instant {
        let Some(over_at) = disturbance.over_at else {
            return self.over_at;
        };
        let holds = self.holds(disturbance, client);
        let mut until = over_at + holds + self.round_trip * 2;
        if self.is_lossy {
            until += FIRST_REPLY_LOSSY.holds;
        }
        for outage in &self.watch.outages {
            let concerns = self.is_client(outage.host) && outage.host != client;
            if !concerns && outage.began_at <= until {
                let back_at = self.outage_until(outage);
                let is_late = outage
                    .over_at
                    .is_none_or(|back_at| back_at >= disturbance.began_at);
                if is_late {
                    until = until.max(back_at + holds);
                }
            }
        }

        until
    }

    /// How long a disturbance may last for a client. A gateway that stops while somebody is still connecting has no way to
    /// say goodbye to them.
    fn holds(&self, disturbance: &Disturbance, client: usize) -> Duration {
        let is_stop = disturbance.kind == Kind::GatewayStop;
        let kind = match is_stop && !self.is_connected(client, disturbance.began_at) {
            true => Kind::GatewayKill,
            false => disturbance.kind,
        };

        kind.limit().holds
    }

    /// Whether a client was answered after all that it had been disturbed by before.
    fn is_connected(&self, client: usize, at: Instant) -> bool {
        let disturbances = self.watch.disturbances.iter();
        let before = disturbances.filter(|other| {
            let concerns = other.client.is_none_or(|concerned| concerned == client);
            concerns && other.began_at < at
        });
        let settled_at = before.map(|other| other.over_at.unwrap_or(at)).max();
        let since = settled_at.unwrap_or(self.start);
        let mut probes = self.sent_by(client);

        probes.any(|probe| probe.replied_at.is_some_and(|it| since < it && it <= at))
    }

    fn sent_by(&self, client: usize) -> impl Iterator<Item = &Probe> {
        let of_client = (self.apps.flows().iter()).filter(move |it| it.flow.host == client);

        of_client.flat_map(|running| &running.probes)
    }

    pub(super) fn is_client(&self, host: usize) -> bool {
        let role = self.scenario.hosts.get(host).map(|host| &host.role);

        matches!(role, Some(Role::Client { .. }))
    }

    /// Until when the portal is reached again and has let somebody in.
    pub(super) fn outage_until(&self, outage: &Disturbance) -> Instant {
        let portal = self.scenario.portal;
        let over_at = outage.over_at.unwrap_or(self.over_at);
        let limit = match self.is_client(outage.host) {
            true => CLIENT_JOINED,
            false => GATEWAY_JOINED,
        };

        over_at + limit.holds + (portal.latency + portal.jitter) * 12 + self.round_trip * 3
    }

    /// Whether a client had a reply from a resource.
    pub(super) fn was_served(
        &self,
        client: usize,
        resource: Option<usize>,
        before: Instant,
    ) -> bool {
        let flows = self.apps.flows().iter();
        let mut own = flows.filter(|it| it.flow.host == client);

        resource.is_some()
            && own.any(|it| was_up(it, before) && self.chosen(it, before) == resource)
    }

    /// Whether a client had a reply from anywhere, or from what a destination's resources are: each needs an access of its own.
    pub(super) fn was_answered(
        &self,
        client: usize,
        to: Option<Destination<'_>>,
        before: Instant,
    ) -> bool {
        let wanted = to.map(|to| self.access.meant(before, client, to));
        let is_one = |running: &&Running| {
            let Some(wanted) = &wanted else {
                return true;
            };
            let own = self.destination(running);
            let own = own.map(|to| self.access.meant(before, client, to));
            let own = own.unwrap_or_default();

            own.iter().any(|resource| wanted.contains(resource))
        };
        let flows = self.apps.flows().iter();
        let mut own = flows.filter(|it| it.flow.host == client).filter(is_one);

        own.any(|running| was_up(running, before))
    }
}

/// Whether a flow has had a reply.
pub(super) fn was_up(running: &Running, before: Instant) -> bool {
    let mut probes = running.probes.iter();

    probes.any(|probe| probe.replied_at.is_some_and(|at| at <= before))
}

fn serves(role: &Role, sites: &[&String]) -> bool {
    match role {
        Role::Gateway { site } => sites.contains(&site),
        Role::Client { .. } | Role::Relay => false,
    }
}

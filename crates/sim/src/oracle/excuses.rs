//! What excuses a packet for not coming through.

use std::time::{Duration, Instant};

use super::Disturbance;
use super::judge::Court;
use crate::apps::{Probe, Running};
use crate::limits::{FIRST_REPLY_LOSSY, Kind, RESUME};
use crate::scenario::Role;

impl Court<'_> {
    pub(super) fn is_granted(&self, running: &Running, sent_at: Instant, done_at: Instant) -> bool {
        let resources = self.scenario.resources.iter().enumerate();
        let (client, to) = (running.flow.host, running.flow.to);
        let mut covering: Vec<_> = resources
            .filter(|(_, other)| other.network.contains(&to))
            .collect();
        covering.sort_by_key(|(_, resource)| resource.network.prefix_len());

        covering.last().is_some_and(|(number, _)| {
            let (before, _) = self.access.state(sent_at, client, *number);
            let (after, since) = self.access.state(done_at, client, *number);
            before && after && since <= sent_at
        })
    }

    pub(super) fn is_reachable(&self, running: &Running, at: Instant) -> bool {
        let reach = self
            .watch
            .reach
            .iter()
            .rev()
            .find(|(since, _)| *since <= at);
        let sites: Vec<&String> = self
            .scenario
            .resources
            .iter()
            .filter(|resource| resource.network.contains(&running.flow.to))
            .map(|resource| &resource.site)
            .collect();
        let mut hosts = self.scenario.hosts.iter().enumerate();
        let Some((_, reach)) = reach else {
            return false;
        };
        let is_there = |host: usize| reach.places.get(host).copied().flatten().is_some();

        // Which gateway is taken is the portal's choice: all of them must do.
        hosts
            .clone()
            .any(|(gateway, host)| serves(&host.role, &sites) && is_there(gateway))
            && hosts.all(|(gateway, host)| {
                !serves(&host.role, &sites)
                    || !is_there(gateway)
                    || reach.is_certain(self.scenario, running.flow.host, gateway)
            })
    }

    pub(super) fn is_token_over(&self, client: usize, at: Instant) -> bool {
        let role = self.scenario.hosts.get(client).map(|host| &host.role);
        match role {
            Some(Role::Client {
                token_ends_at: Some(ends_at),
            }) => at >= self.start + *ends_at,
            Some(Role::Client { .. } | Role::Gateway { .. } | Role::Relay) | None => false,
        }
    }

    pub(super) fn is_disturbed(&self, client: usize, sent_at: Instant, done_at: Instant) -> bool {
        let mut disturbances = self.watch.disturbances.iter();
        let is_hit = disturbances.any(|disturbance| {
            let concerns = disturbance
                .client
                .is_none_or(|concerned| concerned == client);
            let over_at = self.forgiven_until(disturbance, client);
            concerns && disturbance.began_at <= done_at && sent_at <= over_at
        });
        // Whoever is not connected yet waits for the portal.
        let mut outages = self.watch.outages.iter();
        let waits = outages.any(|outage| {
            let over_at = outage.over_at.unwrap_or(self.over_at) + self.after_outage();
            outage.began_at <= done_at
                && sent_at <= over_at
                && !self.was_answered(client, outage.began_at)
        });

        is_hit || waits
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
                let back_at = outage.over_at.unwrap_or(self.over_at) + self.after_outage();
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

    /// How long it takes until the portal is reached again and has let somebody in.
    pub(super) fn after_outage(&self) -> Duration {
        let portal = self.scenario.portal;

        RESUME.goal + (portal.latency + portal.jitter) * 12 + self.round_trip * 3
    }

    pub(super) fn was_answered(&self, client: usize, before: Instant) -> bool {
        let mut probes = self.sent_by(client);

        probes.any(|probe| probe.replied_at.is_some_and(|at| at <= before))
    }
}

fn serves(role: &Role, sites: &[&String]) -> bool {
    match role {
        Role::Gateway { site } => sites.contains(&site),
        Role::Client { .. } | Role::Relay => false,
    }
}

//! What each event disturbs, and from when until when.

use std::time::{Duration, Instant};

use super::{Access, Disturbance, Reach, Watch};
use crate::limits::Kind;
use crate::scenario::{Event, Gone, Place, Role, Scenario};

impl Watch {
    /// Something of the timeline happens, before which access is as it says.
    #[expect(
        clippy::too_many_lines,
        reason = "a few lines for each event, and nothing else"
    )]
    pub(crate) fn disturb(
        &mut self,
        now: Instant,
        event: &Event,
        scenario: &Scenario,
        access: &Access,
    ) {
        let role = |host: &usize| scenario.hosts.get(*host).map(|host| &host.role);
        let is_client = |host: &usize| matches!(role(host), Some(Role::Client { .. }));
        let is_relay = |host: &usize| matches!(role(host), Some(Role::Relay));
        match event {
            Event::Detach { host } => {
                self.place(now, *host, None);
                let kind = match role(host) {
                    Some(Role::Client { .. }) => Kind::ClientRoam,
                    Some(Role::Gateway { .. }) | None => Kind::GatewayRoam,
                    Some(Role::Relay) => self.relay_loss(scenario),
                };
                let over_at = (kind == Kind::RelayLoss).then_some(now);
                self.push(kind, is_client(host).then_some(*host), *host, now, over_at);
                if is_client(host) || matches!(role(host), Some(Role::Gateway { .. })) {
                    self.outages.push(outage(*host, now));
                }
            }
            Event::Attach { host, place } => {
                self.place(now, *host, Some(*place));
                let kind = match role(host) {
                    Some(Role::Client { .. }) => Kind::ClientRoam,
                    Some(Role::Gateway { .. }) | None => Kind::GatewayRoam,
                    Some(Role::Relay) => Kind::RelayBack,
                };
                if !self.finish(*host, now) {
                    let client = is_client(host).then_some(*host);
                    self.push(kind, client, *host, now, Some(now));
                }
                self.end_outages(*host, now);
            }
            Event::End { host, how } => {
                self.place(now, *host, None);
                let kind = match (role(host), how) {
                    (Some(Role::Client { .. }), _) => Kind::ClientBack,
                    (Some(Role::Relay), _) => self.relay_loss(scenario),
                    (_, Gone::Stopped) => Kind::GatewayStop,
                    (_, Gone::Killed) => Kind::GatewayKill,
                };
                let has_other = kind != Kind::ClientBack
                    && kind != Kind::RelayBack
                    && self.has_other(scenario, *host);
                let over_at = has_other.then_some(now);
                self.push(kind, is_client(host).then_some(*host), *host, now, over_at);
            }
            Event::Start { host, .. } => {
                // It is where it was when it ended, wherever it began.
                let mut former = self.reach.iter().rev();
                let place = former.find_map(|(_, reach)| reach.places.get(*host).copied()?);
                self.place(now, *host, place);
                if !self.finish(*host, now) {
                    let kind = match role(host) {
                        Some(Role::Client { .. }) => Kind::ClientBack,
                        Some(Role::Gateway { .. }) | None => Kind::GatewayBack,
                        Some(Role::Relay) => Kind::RelayBack,
                    };
                    let client = is_client(host).then_some(*host);
                    self.push(kind, client, *host, now, Some(now));
                }
            }
            Event::Block { hosts: [one, two] } => {
                let client = [one, two].into_iter().find(|host| is_client(host)).copied();
                self.push(Kind::PathLoss, client, *one, now, Some(now));
            }
            Event::PortalDown { host } | Event::PortalHangs { host } => {
                self.outages.push(outage(*host, now));
                if is_relay(host) && matches!(event, Event::PortalDown { .. }) {
                    self.push(
                        Kind::RelayLoss,
                        None,
                        *host,
                        now,
                        Some(now + Duration::from_secs(6)),
                    );
                }
            }
            Event::PortalUp { host } | Event::PortalGoesOn { host } => self.end_outages(*host, now),
            Event::PortalRestarts { .. } => self.outages.push(outage(usize::MAX, now)),
            Event::Suspend { host, time } => {
                let client = is_client(host).then_some(*host);
                self.push(Kind::Resume, client, *host, now, Some(now + *time));
            }
            Event::Forget { edge } => self.push(Kind::NatRebind, None, *edge, now, Some(now)),
            Event::Allow { host, resource } => {
                if !access.state(now, *host, *resource).0 {
                    self.push_for(*resource, Kind::Allowed, Some(*host), now, now);
                }
            }
            Event::Revoke { host, resource } => {
                let portal = scenario.portal;
                let over_at = now + (portal.latency + portal.jitter) * 2;
                if access.state(now, *host, *resource).0 {
                    self.push_for(*resource, Kind::Revoked, Some(*host), now, over_at);
                }
            }
            Event::Change { resource, .. } => {
                let portal = scenario.portal;
                let over_at = now + (portal.latency + portal.jitter) * 2;
                self.push_for(*resource, Kind::Allowed, None, now, over_at);
            }
            Event::Internet { host, .. } => {
                for resource in access.internet(now) {
                    self.push_for(resource, Kind::Allowed, Some(*host), now, now);
                }
            }
            Event::Reset { host } => {
                let kind = match is_client(host) {
                    true => Kind::ClientRoam,
                    false => Kind::GatewayRoam,
                };
                let client = is_client(host).then_some(*host);
                self.push(kind, client, *host, now, Some(now));
            }
            Event::Flow(_)
            | Event::Name(_)
            | Event::Manners { .. }
            | Event::Resolvers { .. }
            | Event::Upstream(_)
            | Event::Link { .. }
            | Event::Unblock { .. }
            | Event::ClockSteps { .. }
            | Event::Forge { .. }
            | Event::Attack { .. } => {}
        }
    }

    /// Something happens to a resource, for one client or for all.
    fn push_for(
        &mut self,
        resource: usize,
        kind: Kind,
        client: Option<usize>,
        began_at: Instant,
        over_at: Instant,
    ) {
        self.disturbances.push(Disturbance {
            kind,
            client,
            resource: Some(resource),
            host: client.unwrap_or(usize::MAX),
            began_at,
            over_at: Some(over_at),
        });
    }

    fn push(
        &mut self,
        kind: Kind,
        client: Option<usize>,
        host: usize,
        began_at: Instant,
        over_at: Option<Instant>,
    ) {
        self.disturbances.push(Disturbance {
            kind,
            client,
            resource: None,
            host,
            began_at,
            over_at,
        });
    }

    /// What a host brought about by leaving is over. False if it brought nothing about.
    fn finish(&mut self, host: usize, now: Instant) -> bool {
        let mut was_any = false;
        for disturbance in &mut self.disturbances {
            if disturbance.host == host && disturbance.over_at.is_none() {
                disturbance.over_at = Some(now);
                if matches!(disturbance.kind, Kind::GatewayStop | Kind::GatewayKill) {
                    disturbance.kind = Kind::GatewayBack;
                }
                was_any = true;
            }
        }

        was_any
    }

    fn end_outages(&mut self, host: usize, now: Instant) {
        for outage in &mut self.outages {
            if outage.host == host {
                outage.over_at.get_or_insert(now);
            }
        }
    }

    /// Whether another relay takes over, or nobody does until one comes back.
    fn relay_loss(&self, scenario: &Scenario) -> Kind {
        let places = self.reach.last().map(|(_, reach)| &reach.places);
        let mut hosts = scenario.hosts.iter().zip(places.into_iter().flatten());
        let is_other = hosts.any(|(host, place)| host.role == Role::Relay && place.is_some());

        if is_other {
            Kind::RelayLoss
        } else {
            Kind::RelayBack
        }
    }

    /// Whether another gateway of the same site runs, or another relay.
    fn has_other(&self, scenario: &Scenario, gone: usize) -> bool {
        let role = scenario.hosts.get(gone).map(|host| &host.role);
        let places = self.reach.last().map(|(_, reach)| &reach.places);
        let mut hosts = scenario.hosts.iter().zip(places.into_iter().flatten());

        hosts.any(|(host, place)| Some(&host.role) == role && place.is_some())
    }

    fn place(&mut self, now: Instant, host: usize, place: Option<Place>) {
        let Some((_, last)) = self.reach.last() else {
            return;
        };
        let mut places = last.places.clone();
        if let Some(entry) = places.get_mut(host) {
            *entry = place;
        }
        self.reach.push((now, Reach { places }));
    }
}

fn outage(host: usize, now: Instant) -> Disturbance {
    Disturbance {
        kind: Kind::Allowed,
        client: None,
        resource: None,
        host,
        began_at: now,
        over_at: None,
    }
}

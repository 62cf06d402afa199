//! What the scenario says happens.

use std::time::Duration;

use connlib::event_loop::Command;

use super::host::{ChannelState, Role};
use super::{Happening, World};
use crate::scenario::{self, Event, Expectation, Gone, PathWanted, Place};

/// When relays come up, and everybody else after them.
const NODES_AT: Duration = Duration::from_millis(50);

/// How long a program that was told to stop may take to say goodbye.
const STOPS_WITHIN: Duration = Duration::from_millis(500);

/// How often a program looks whether there is a network to use.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl World {
    pub(super) fn set_the_stage(&mut self) {
        for (host, plan) in self.scenario.hosts.clone().into_iter().enumerate() {
            let is_relay = plan.role == scenario::Role::Relay;
            let at = if is_relay { Duration::ZERO } else { NODES_AT };
            if let Some(entry) = self.hosts.get_mut(host) {
                entry.channel.epoch += 1;
                entry.channel.state = ChannelState::Connecting;
                let epoch = entry.channel.epoch;
                self.post(
                    at,
                    Happening::HostConnects(crate::portal::ChannelId { host, epoch }),
                );
            }
            if !plan.faults.tun_comes_at.is_zero() {
                self.post(plan.faults.tun_comes_at, Happening::TunComes(host));
            }
            if let Some(at) = plan.faults.tun_vanishes_at {
                self.post(at, Happening::TunVanishes(host));
            }
        }
        for host in 0..self.scenario.hosts.len() {
            self.names.begins(self.now, host);
        }
        for (host, servers) in self.scenario.resolvers.clone() {
            self.set_resolvers(host, &servers);
        }
        for event in 0..self.scenario.events.len() {
            if let Some((at, _)) = self.scenario.events.get(event) {
                self.post(*at, Happening::Event(event));
            }
        }
        for (number, expectation) in self.scenario.expect.clone().iter().enumerate() {
            if let Expectation::Path { at, .. } = expectation {
                self.post(*at, Happening::Look(number));
            }
            if let Expectation::Quiet { from, until, .. } = expectation {
                self.watch.count_span(*from, *until);
            }
        }
        self.post(self.scenario.lasts, Happening::Epilogue(0));
    }

    pub(super) fn event(&mut self, number: usize) {
        let Some((_, event)) = self.scenario.events.get(number).cloned() else {
            return;
        };
        let now = self.now;
        if let Event::Internet { host, .. } | Event::Resolvers { host, .. } = event
            && let Some(entry) = self.hosts.get(host)
            && let Some(until) = entry.asleep_until.filter(|until| *until > now)
        {
            // Nobody can tell it anything while it stands still.
            return self.post_at(until, Happening::Event(number));
        }
        (self.watch).disturb(now, &event, &self.scenario, &self.access);
        match event {
            Event::Flow(flow) => {
                let number = self
                    .scenario
                    .flows()
                    .position(|other| other.name == flow.name);
                self.post(Duration::ZERO, Happening::App(number.unwrap_or(usize::MAX)));
            }
            Event::Detach { host } => self.network.detach(host),
            Event::Attach { host, place } => self.attach(host, place),
            Event::End { host, how } => self.end(host, how),
            Event::Start { host, keeps_secret } => self.begin(host, keeps_secret),
            Event::Link { host, link } => self.network.set_link(host, link),
            Event::Block { hosts } => self.network.block(hosts),
            Event::Unblock { hosts } => self.network.unblock(hosts),
            Event::PortalDown { host } => self.portal_is_cut(host),
            Event::PortalUp { host } => {
                if let Some(entry) = self.hosts.get_mut(host)
                    && entry.channel.is_cut
                {
                    entry.channel.is_cut = false;
                    self.connect(host);
                }
            }
            Event::PortalHangs { host } => {
                if let Some(entry) = self.hosts.get_mut(host) {
                    entry.channel.hangs = true;
                }
            }
            Event::PortalGoesOn { host } => self.channel_goes_on(host),
            Event::PortalRestarts { after } => {
                for channel in self.portal.end() {
                    let is_current = self
                        .hosts
                        .get(channel.host)
                        .is_some_and(|entry| entry.channel.epoch == channel.epoch);
                    if is_current {
                        self.channel_breaks(channel.host);
                        self.retry(channel.host);
                    }
                }
                self.post(after, Happening::PortalBegins);
            }
            Event::Suspend { host, time } => {
                if let Some(entry) = self.hosts.get_mut(host) {
                    entry.asleep_until = Some(now + time);
                }
                self.post(time, Happening::Wakes(host));
            }
            Event::ClockSteps { seconds } => self.steps += seconds,
            Event::Forget { edge } => self.network.forget(edge),
            event @ (Event::Allow { .. }
            | Event::Revoke { .. }
            | Event::Change { .. }
            | Event::Forge { .. }
            | Event::Internet { .. }) => self.access_event(event),
            event @ (Event::Name(_)
            | Event::Manners { .. }
            | Event::Resolvers { .. }
            | Event::Upstream(_)) => self.name_event(event),
            Event::Reset { host } => self.reset(host),
            Event::Attack {
                host,
                attack,
                count,
            } => self.attack(host, attack, count),
        }
    }

    fn portal_is_cut(&mut self, host: usize) {
        if let Some(entry) = self.hosts.get_mut(host) {
            entry.channel.is_cut = true;
        }
        self.portal_notices(host);
        self.channel_breaks(host);
        self.retry(host);
    }

    /// As the shipped control plane does: sockets anew, and the portal by the new key.
    fn reset(&mut self, host: usize) {
        let Some(place) = self.network.place(host) else {
            return;
        };
        self.portal_notices(host);
        self.channel_breaks(host);
        match self.hosts.get_mut(host).map(|entry| &mut entry.role) {
            Some(Role::Client(node)) => node.rebind(&place, Command::Reset),
            Some(Role::Gateway(node)) => node.rebind(&place, Command::Reset),
            Some(Role::Relay(_) | Role::Down) | None => {}
        }
        self.take_turn(host);
        self.connect(host);
    }

    fn attach(&mut self, host: usize, place: Place) {
        self.network.attach(host, place);
        if let Some(entry) = self.hosts.get_mut(host) {
            entry.moves += 1;
        }
        // As the shipped control plane does: away, sockets anew, then the portal.
        self.channel_breaks(host);
        match self.hosts.get_mut(host).map(|entry| &mut entry.role) {
            Some(Role::Client(node)) => node.rebind(&place, Command::NetworkChanged),
            Some(Role::Gateway(node)) => node.rebind(&place, Command::NetworkChanged),
            Some(Role::Relay(_) | Role::Down) | None => {}
        }
        self.take_turn(host);
        self.connect(host);
    }

    /// What runs on a host ends.
    pub(super) fn end(&mut self, host: usize, how: Gone) {
        self.portal_notices(host);
        self.channel_breaks(host);
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        let life = entry.life;
        match (how, &mut entry.role) {
            (Gone::Stopped, Role::Client(node)) => node.command(Command::ShutDown),
            (Gone::Stopped, Role::Gateway(node)) => node.command(Command::ShutDown),
            (Gone::Killed, _) | (_, Role::Relay(_) | Role::Down) => {
                self.is_gone(host, life);
                return;
            }
        }
        self.post(STOPS_WITHIN, Happening::IsGone(host, life));
    }

    pub(super) fn is_gone(&mut self, host: usize, life: u32) {
        if let Some(entry) = self.hosts.get_mut(host).filter(|entry| entry.life == life) {
            entry.role = Role::Down;
            self.relays.begins(host);
        }
    }

    fn begin(&mut self, host: usize, keeps_secret: bool) {
        let (Some(plan), Some(place)) = (
            self.scenario.hosts.get(host).cloned(),
            self.network.place(host),
        ) else {
            return;
        };
        let (now, unix) = (self.now, self.unix());
        self.relays.begins(host);
        let records = self.names.begins(now, host);
        if let Some(entry) = self.hosts.get_mut(host) {
            entry.records = records;
            if !keeps_secret {
                entry.change_secret(&mut self.rng);
            }
            entry.begin(&plan, &place, now, unix, true, &mut self.rng);
            entry.channel.delay = Duration::ZERO;
            if let Some(why) = entry.not_restored.take() {
                self.violate(why);
            }
        }
        self.tell_resolvers(host);
        if self.names.is_internet_wanted(host) {
            self.want_internet(host, true);
        }
        self.connect(host);
    }

    pub(super) fn wake(&mut self, host: usize) {
        let now = self.now;
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        if entry.asleep_until.is_some_and(|until| until > now) {
            return;
        }
        entry.asleep_until = None;
        match &mut entry.role {
            Role::Client(node) => node.lose_arrivals(),
            Role::Gateway(node) => node.lose_arrivals(),
            Role::Relay(_) => self.relays.wakes(host),
            Role::Down => {}
        }
    }

    /// A program sends what it wants to send, and says when it goes on.
    pub(super) fn step_app(&mut self, flow: usize) {
        let Some(running) = self
            .apps
            .flows()
            .get(flow)
            .filter(|_| !self.watch.is_over())
        else {
            return;
        };
        if running.to.is_none() {
            self.seek(flow);
            return;
        }
        let (host, is_ipv4) = (running.flow.host, running.flow.to.is_ipv4());
        let Some(entry) = self.hosts.get(host) else {
            return;
        };
        let source = entry.address(is_ipv4);
        let runs = matches!(entry.role, Role::Client(_)) && entry.is_awake(self.now);
        let Some(source) = source.filter(|_| runs) else {
            // No device to send to: the program waits for one.
            self.post(LOOK_AGAIN, Happening::App(flow));
            return;
        };
        let (packets, again) = self.apps.step(self.now, flow, source);
        self.give_to_client(host, packets);
        if let Some(again) = again {
            self.post(again, Happening::App(flow));
        }
    }

    /// A reply lets a program go on at once.
    pub(super) fn send_for(&mut self, flow: usize) {
        let Some(running) = self.apps.flows().get(flow) else {
            return;
        };
        let (host, is_ipv4) = (running.flow.host, running.flow.to.is_ipv4());
        let source = self
            .hosts
            .get(host)
            .and_then(|entry| entry.address(is_ipv4));
        if let Some(source) = source {
            let (packets, _) = self.apps.step(self.now, flow, source);
            self.give_to_client(host, packets);
        }
    }

    pub(super) fn give_to_client(&mut self, host: usize, packets: Vec<Vec<u8>>) {
        if let Some(Role::Client(node)) = self.hosts.get_mut(host).map(|entry| &mut entry.role) {
            for packet in packets {
                node.send_packet(packet);
            }
        }
    }

    /// Compares a path with what is expected.
    pub(super) fn look(&mut self, number: usize) {
        let Some(Expectation::Path { host, path, .. }) = self.scenario.expect.get(number) else {
            return;
        };
        let status = self
            .hosts
            .get(*host)
            .and_then(|entry| entry.status(self.now));
        let peers = status.map(|status| status.peers).unwrap_or_default();
        let found = peers.iter().find_map(|peer| peer.path);
        let wanted = match path {
            PathWanted::Direct => Some("direct"),
            PathWanted::Relayed => Some("relayed"),
            PathWanted::None => None,
        };
        if found != wanted {
            let name = self.scenario.host(*host);
            self.violate(format!("the path of {name} is {found:?}, not {wanted:?}"));
        }
    }
}

//! Who may use what: what admins and people change of it, and what may come out of gateways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use connlib::event_loop::Command;

use super::World;
use super::host::{ChannelState, Role};
use crate::apps::{Request, Running, error_about};
use crate::oracle::{Arriving, Destination, Truth, Version};
use crate::scenario::{self, Event};

/// How long a packet that may have been sent several times can be under way.
const UNDER_WAY: Duration = Duration::from_secs(12);

/// A router behind gateways.
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 1);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);

impl World {
    /// Something changes that packets are decided by.
    pub(super) fn access_event(&mut self, event: Event) {
        let since = self.now;
        if let Event::Allow { host, resource } = event {
            self.set_policy(host, resource, true);
        } else if let Event::Revoke { host, resource } = event {
            self.set_policy(host, resource, false);
        } else if let Event::Internet { host, is_wanted } = event {
            self.want_internet(host, is_wanted);
        } else if let Event::Forge {
            host,
            forgery,
            count,
        } = event
        {
            self.forge(host, forgery, count);
        } else if let Event::Change {
            resource,
            address,
            filters,
            site,
        } = event
        {
            let version = Version {
                since,
                address,
                filters,
                site,
            };
            self.change(resource, version);
        }
    }

    fn set_policy(&mut self, host: usize, resource: usize, is_allowed: bool) {
        let clock = (self.now, self.unix().as_secs());
        self.access.set(self.now, (host, resource), is_allowed);
        self.portal
            .set_policy(clock, &self.scenario, host, resource, is_allowed);
        self.drain_portal();
    }

    fn change(&mut self, resource: usize, version: Version) {
        let clock = (self.now, self.unix().as_secs());
        let name = self.scenario.resources.get(resource);
        let name = name.map_or_else(String::new, |resource| resource.name.clone());
        let stands_for = (name.as_str(), &version.address);
        let rest = (&version.filters[..], version.site.as_str());
        self.portal.change(clock, resource, stands_for, rest);
        self.access.change(resource, version);
        self.drain_portal();
    }

    pub(super) fn want_internet(&mut self, host: usize, is_wanted: bool) {
        self.names.wants_internet(self.now, host, is_wanted);
        if let Some(Role::Client(node)) = self.hosts.get_mut(host).map(|entry| &mut entry.role) {
            node.command(Command::Internet(is_wanted));
        }
    }

    /// Whether a request may come out of a gateway: somebody let its client in, and the gateway serves what it is for.
    pub(super) fn may_arrive(&mut self, gateway: usize, request: &Request) -> Result<(), String> {
        let (now, ip) = (self.now, request.to);
        self.apps.arrived(now, gateway, request);
        let running = self.apps.flows().get(request.flow);
        let site = match self.scenario.hosts.get(gateway).map(|host| &host.role) {
            Some(scenario::Role::Gateway { site }) => site.as_str(),
            Some(scenario::Role::Client { .. } | scenario::Role::Relay) | None => "",
        };
        if let Some(running) = running {
            let long_ago = now.checked_sub(UNDER_WAY).unwrap_or(now);
            let since = request.sent_at.unwrap_or(long_ago);
            self.names.may_be_at(running, (since, now), site)?;
        }
        let name = running.and_then(Running::name);
        if let Some(name) = name {
            let truth = Truth {
                scenario: &self.scenario,
                zones: &self.zones,
                servers: &self.servers,
            };
            let (from, to) = ((request.host, name), (gateway, ip));
            (self.names).may_come_out(now, from, to, &self.resolver, &truth)?;
        }

        self.may_come_out(
            gateway,
            &Arriving {
                what: self.scenario.flow_name(request.flow),
                client: request.host,
                to: name.map_or(Destination::Ip(ip), Destination::Name),
                service: request.service,
            },
        )
    }

    pub(super) fn may_come_out(
        &self,
        gateway: usize,
        arriving: &Arriving<'_>,
    ) -> Result<(), String> {
        let channel = self.hosts.get(gateway).map(|entry| &entry.channel);
        let joined_at = channel
            .filter(|channel| channel.state == ChannelState::Joined && !channel.hangs)
            .and_then(|channel| channel.joined_at);

        self.access
            .may_arrive(self.now, &self.scenario, gateway, joined_at, arriving)
    }

    /// What a host behind a gateway answers to a request, or a router on the way to it.
    pub(super) fn answer_of(&self, request: &Request, packet: &[u8]) -> Vec<u8> {
        let running = self.apps.flows().get(request.flow);
        let is_named = running.is_some_and(|running| running.name().is_some());
        let router = match request.to.is_ipv4() {
            true => IpAddr::V4(ROUTER_V4),
            false => IpAddr::V6(ROUTER_V6),
        };
        // To whoever asked an address, an error from elsewhere could be anybody's.
        let from = if is_named { router } else { request.to };
        let error = self.scenario.error_of(request.to);
        let error = error.and_then(|it| error_about((from, request.source), it, packet));

        error.unwrap_or_else(|| request.reply.clone())
    }
}

//! Names: programs that ask for them, and clients that answer.

use std::net::IpAddr;
use std::time::Duration;

use connlib::event_loop::{Command, Output};
use connlib_tunnel::client;
use connlib_tunnel::dns::Resolvers;
use connlib_wire::ip::{Packet, Transport};
use connlib_wire::portal::client::{FromPortal, ToPortal};

use super::host::Role;
use super::{Happening, World};
use crate::hostile::AnyClient;
use crate::names::{Started, TIMEOUT};
use crate::oracle::{Truth, is_sentinel};
use crate::scenario::{Event, FlowKind, Upstream};

/// Where name servers are asked.
pub(super) const PORT: u16 = 53;

/// Where gateways answer for their sites (gateway.md §1).
const SITE_PORT: u16 = 53_535;

/// How long an answer may be under way through the tunnel (client.md §4.6), and how much longer a connection sends it again.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
const SENT_AGAIN_FOR: Duration = Duration::from_secs(20);

impl World {
    /// Something that has to do with names happens.
    pub(super) fn name_event(&mut self, event: Event) {
        let now = self.now;
        if let Event::Name(entry) = event {
            self.zones.set(now, entry);
        } else if let Event::Manners { server, manners } = event {
            self.servers.set(now, server, manners);
        } else if let Event::Resolvers { host, servers } = event {
            self.set_resolvers(host, &servers);
        } else if let Event::Upstream(upstream) = event {
            self.set_upstream(&upstream);
        }
    }

    /// The system of a host asks others.
    pub(super) fn set_resolvers(&mut self, host: usize, servers: &[IpAddr]) {
        self.names.system(self.now, host, servers);
        let resolvers = Resolvers {
            servers: servers.iter().map(|ip| (*ip, PORT).into()).collect(),
            ..Resolvers::default()
        };
        match self.hosts.get_mut(host).map(|entry| &mut entry.role) {
            Some(Role::Client(node)) => node.command(Command::Resolvers(resolvers)),
            Some(Role::Gateway(node)) => node.command(Command::Resolvers(resolvers)),
            Some(Role::Relay(_) | Role::Down) | None => {}
        }
    }

    /// What runs on a host is told what the system asks.
    pub(super) fn tell_resolvers(&mut self, host: usize) {
        let servers = self.names.systems(host, (self.now, self.now)).last();
        if let Some(servers) = servers.map(<[IpAddr]>::to_vec) {
            self.set_resolvers(host, &servers);
        }
    }

    pub(super) fn set_upstream(&mut self, upstream: &Upstream) {
        let clock = (self.now, self.unix().as_secs());
        self.portal.set_upstream(clock, upstream);
        self.drain_portal();
    }

    /// The portal tells a client something.
    pub(super) fn told(&mut self, host: usize, message: &FromPortal) {
        self.names.told(self.now, host, message);
    }

    /// What a client says about names.
    pub(super) fn hear_of_names(&mut self, host: usize, output: &Output<AnyClient>) {
        let result = match output {
            Output::Event(client::Event::NamesAssigned(records)) => records
                .iter()
                .try_for_each(|record| self.names.assigned(self.now, host, record)),
            Output::Event(client::Event::InterfaceChanged(interface)) => {
                if let Some(entry) = self.hosts.get_mut(host) {
                    entry.name_servers.clone_from(&interface.name_servers);
                }
                self.names.announces(self.now, host, interface)
            }
            Output::Event(client::Event::ResourcesChanged(list)) => {
                self.names.lists(self.now, host, list)
            }
            Output::Message(ToPortal::RequestAuthorization(request)) => {
                self.names.asks(self.now, host, request.resource_id)
            }
            Output::Event(_)
            | Output::Message(_)
            | Output::Status(..)
            | Output::Explained(_)
            | Output::Exchange(_) => Ok(()),
        };
        if let Err(what) = result {
            let name = self.scenario.host(host);
            self.violate(format!("{name}: {what}"));
        }
    }

    /// A program needs an address first, or wants nothing but to know.
    pub(super) fn seek(&mut self, flow: usize) {
        let Some(running) = self.apps.flows().get(flow) else {
            return;
        };
        let host = running.flow.host;
        let Some(entry) = self.hosts.get(host) else {
            return;
        };
        let is_lookup = matches!(running.flow.kind, FlowKind::Lookup(_));
        let runs = matches!(entry.role, Role::Client(_)) && entry.is_awake(self.now);
        if !runs {
            self.post(super::timeline::LOOK_AGAIN, Happening::App(flow));
            return;
        }
        let (servers, plan) = (&entry.name_servers, (flow, &running.flow));
        let source = |is_ipv4| entry.address(is_ipv4);
        match self.resolver.step(self.now, plan, servers, source) {
            Started::At(ip) => {
                self.apps.set_target(flow, ip);
                self.post(Duration::ZERO, Happening::App(flow));
            }
            Started::Asks(ask, packets) => {
                self.give_to_client(host, packets);
                self.expect_streams(host);
                if !is_lookup {
                    self.post(TIMEOUT, Happening::Unanswered(flow, ask));
                }
            }
            Started::Waits(time) => self.post(time, Happening::App(flow)),
        }
    }

    /// A program has waited for a name server for long enough.
    pub(super) fn unanswered(&mut self, flow: usize, ask: usize) {
        if self.resolver.is_latest(flow, ask) && !self.watch.is_over() {
            self.seek(flow);
        }
    }

    /// Whether a packet of a client's TUN device is a name server's; if so, it is dealt with here.
    pub(super) fn hear_name_server(&mut self, host: usize, bytes: &[u8]) -> bool {
        let Ok(packet) = Packet::parse(bytes) else {
            return false;
        };
        let is_served = [Some(PORT), Some(SITE_PORT)].contains(&packet.source_port());
        let patience = match packet.transport() {
            Transport::Tcp => ANSWERED_WITHIN + SENT_AGAIN_FOR,
            Transport::Udp | Transport::Icmp | Transport::Other(_) => ANSWERED_WITHIN,
        };
        let is_later = (self.hosts.get(host))
            .is_some_and(|entry| entry.life > 1 && self.now < entry.began_at + patience);
        if is_later && is_served && !is_sentinel(packet.source()) {
            // For a client that ran here before, and asked through the tunnel: the system refuses it.
            return true;
        }
        let is_answer = packet.source_port() == Some(PORT) || packet.transport() == Transport::Tcp;
        if !is_answer || !is_sentinel(packet.source()) {
            return false;
        }
        if !packet.checksums_match() {
            self.violate("a packet on a client's TUN has a wrong checksum");
        }
        let answered = self.resolver.handle_packet(self.now, host, &packet);
        self.answered(host, answered);

        true
    }

    /// A host's connections to name servers go on.
    pub(super) fn streams(&mut self, host: usize) {
        let answered = self.resolver.work(self.now, host);
        self.answered(host, answered);
    }

    fn answered(&mut self, host: usize, answered: Result<Vec<usize>, String>) {
        match answered {
            Ok(asks) => asks.into_iter().for_each(|ask| self.judge_answer(ask)),
            Err(what) => self.violate(what),
        }
        let packets = self.resolver.take_packets(host);
        self.give_to_client(host, packets);
        self.expect_streams(host);
    }

    fn expect_streams(&mut self, host: usize) {
        if let Some(at) = self.resolver.due_at(self.now, host) {
            self.post_at(at, Happening::Streams(host));
        }
    }

    fn judge_answer(&mut self, ask: usize) {
        let truth = Truth {
            scenario: &self.scenario,
            zones: &self.zones,
            servers: &self.servers,
        };
        let Some(asked) = self.resolver.asks().get(ask).cloned() else {
            return;
        };
        match self.names.judge(self.now, &asked, &truth) {
            Ok(verdict) => {
                if let Some(ask) = self.resolver.ask_mut(ask) {
                    ask.verdict = verdict;
                }
            }
            Err(what) => self.violate(what),
        }
        let flow = asked.flow;
        let kind = self.apps.flows().get(flow).map(|running| running.flow.kind);
        if matches!(kind, Some(FlowKind::Lookup(_)) | None) {
            return;
        }
        // A late answer is nothing to a program that another server has answered.
        let is_waiting = self
            .apps
            .flows()
            .get(flow)
            .is_some_and(|it| it.to.is_none());
        if !is_waiting {
            return;
        }
        match self.resolver.found(ask) {
            Ok(ip) => {
                self.apps.set_target(flow, ip);
                self.post(Duration::ZERO, Happening::App(flow));
            }
            Err(after) => self.post(after, Happening::App(flow)),
        }
    }
}

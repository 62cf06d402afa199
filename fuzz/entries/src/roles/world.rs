//! A client, a gateway and a relay joined without any delay, and two rogues: one who has a session with the gateway, one
//! with the client. Whatever comes out of either is judged at once.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_relay::{AllocationPort, Command, Server, Verdict, Via};
use connlib_tunnel::client::{Client, Event};
use connlib_tunnel::dns::{Exchange, Resolvers};
use connlib_tunnel::gateway::Gateway;
use connlib_tunnel::{Packets, PortalState, Settings};
use connlib_wire::buffer::Pool;
use connlib_wire::dns::{Data, Query, Rcode, RecordType, respond};
use connlib_wire::ecn::Ecn;
use connlib_wire::id::{ClientId, GatewayId};
use connlib_wire::key::PublicKey;
use connlib_wire::stun::Family;
use connlib_wire::train::Arrival;

use super::law::Law;
use super::portal::{self, Portal};
use super::rogue::{Rogue, Taken};
use super::{CLIENT, GATEWAY, NAMES};

pub(super) const UNIX: Duration = Duration::from_secs(1_800_000_000);
const CLIENT_AT: &str = "198.51.100.7:52625";
const GATEWAY_AT: &str = "192.0.2.33:52625";
const ROGUE_AT: &str = "198.51.100.66:1";
const ROGUE_GATEWAY_AT: &str = "192.0.2.66:1";

/// More datagrams, or timers, than that at one instant go round for ever.
const MAX_AT_ONCE: usize = 5_000;

/// What came out where, to see that a test reaches what it means to test.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    pub(super) left_gateway: usize,
    pub(super) entered_client: usize,
    pub(super) said_by_client: usize,
    pub(super) reached_rogue: usize,
    pub(super) reached_rogue_gateway: usize,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) client: Client,
    pub(super) gateway: Gateway,
    relay: Server,
    open_ports: BTreeSet<u16>,
    pub(super) rogue: Rogue,
    pub(super) rogue_gateway: Rogue,
    pub(super) portal: Portal,
    pub(super) law: Law,
    /// What names have at the site now.
    pub(super) real: Vec<IpAddr>,
    flying: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// The lengths of packets whose checksums were wrong when they were put in.
    pub(super) wrong: BTreeSet<usize>,
    pub(super) counts: Counts,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    pub(super) fn new(seed: u8) -> Self {
        let start = Instant::now();
        let settings = Settings { unix: UNIX };
        let mut world = Self {
            now: start,
            start,
            client: Client::new(start, [seed; 32], settings),
            gateway: Gateway::new(start, [!seed; 32], settings),
            relay: Server::new(portal::relay_config(), [seed; 32], Pool::new(2_048, 16)),
            open_ports: BTreeSet::new(),
            rogue: Rogue::new(start, 77, UNIX, ROGUE_AT),
            rogue_gateway: Rogue::new(start, 78, UNIX, ROGUE_GATEWAY_AT),
            portal: Portal::default(),
            law: Law::default(),
            real: ["10.20.0.10", "fd20::10"]
                .map(|ip| ip.parse().unwrap())
                .to_vec(),
            flying: VecDeque::new(),
            wrong: BTreeSet::new(),
            counts: Counts::default(),
        };
        let resolvers = Resolvers {
            servers: vec!["10.20.0.53:53".parse().unwrap()],
            ..Resolvers::default()
        };
        world.client.handle_portal_state(start, PortalState::Joined);
        world
            .gateway
            .handle_portal_state(start, PortalState::Joined);
        world.gateway.set_resolvers(start, &resolvers);
        world.client.set_resolvers(start, &resolvers);
        world.init_gateway(&[]);
        world.init_client();
        world.pass(Duration::from_millis(1));

        world
    }

    /// A packet from the client's programs.
    pub(super) fn programs_send(&mut self, packet: &[u8]) {
        self.note(packet);
        self.client.handle_packet(self.now, packet);
        self.settle();
    }

    /// A packet from the gateway's network.
    pub(super) fn network_sends(&mut self, packet: &[u8]) {
        self.note(packet);
        self.gateway.handle_packet(self.now, packet);
        self.settle();
    }

    /// A packet that a client sealed without asking anybody.
    pub(super) fn rogue_sends(&mut self, contents: &[u8]) {
        self.note(contents);
        let peer = self.gateway.public_key();
        let sealed = self.rogue.seal(self.now, peer, contents).or_else(|| {
            let hello = self.rogue.hello(self.now, peer, portal::PSK)?;
            self.launch(self.rogue.at, at(GATEWAY_AT), hello);
            self.settle();
            self.rogue.seal(self.now, peer, contents)
        });
        if let Some(datagram) = sealed {
            self.launch(self.rogue.at, at(GATEWAY_AT), datagram);
            self.settle();
        }
    }

    /// A packet that a gateway sealed without asking anybody.
    pub(super) fn rogue_gateway_sends(&mut self, contents: &[u8]) {
        self.note(contents);
        let peer = self.client.public_key();
        let sealed = self
            .rogue_gateway
            .seal(self.now, peer, contents)
            .or_else(|| {
                let hello = self.rogue_gateway.hello(self.now, peer, portal::PSK)?;
                self.launch(self.rogue_gateway.at, at(CLIENT_AT), hello);
                self.settle();
                self.rogue_gateway.seal(self.now, peer, contents)
            });
        if let Some(datagram) = sealed {
            self.launch(self.rogue_gateway.at, at(CLIENT_AT), datagram);
            self.settle();
        }
    }

    /// Lets time pass: timer by timer for a while, or at one go where it is long.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        if time <= Duration::from_secs(30) {
            while let Some(next) = self.next_instant().filter(|at| *at < end) {
                self.now = self.now.max(next);
                self.due();
            }
        }
        self.now = end;
        self.due();
    }

    fn next_instant(&mut self) -> Option<Instant> {
        let client = self.client.poll_timeout().map(|(at, _)| at);
        let gateway = self.gateway.poll_timeout().map(|(at, _)| at);

        [client, gateway, self.relay.poll_timeout().map(|(at, _)| at)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Handles what is due until nothing is.
    fn due(&mut self) {
        for _ in 0..MAX_AT_ONCE {
            self.client.handle_timeout(self.now);
            self.gateway.handle_timeout(self.now);
            self.relay.handle_timeout(self.now);
            self.settle();
            if self.next_instant().is_none_or(|at| at > self.now) {
                return;
            }
        }
        let due = (self.client.poll_timeout(), self.gateway.poll_timeout());
        panic!("something is due for ever at {:?}: {due:?}", self.now);
    }

    /// Carries everything to where it goes until nothing is on its way.
    pub(super) fn settle(&mut self) {
        for _ in 0..MAX_AT_ONCE {
            let had_news = self.drain();
            match self.flying.pop_front() {
                Some((from, to, datagram)) => self.land(from, to, &datagram),
                // What was told last may have led to more.
                None if had_news => {}
                None => return,
            }
        }
        panic!("datagrams go round for ever");
    }

    fn launch(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        self.flying.push_back((from, to, datagram));
    }

    fn land(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let arrival = Arrival {
            from,
            to,
            ecn: Ecn::NotEct,
            stride: 0,
            bytes,
        };
        let mut packets = Packets::new();
        if to == at(CLIENT_AT) {
            self.client.handle_arrival(self.now, &arrival, &mut packets);
            self.entered_client(&mut packets);
        } else if to == at(GATEWAY_AT) {
            self.gateway
                .handle_arrival(self.now, &arrival, &mut packets);
            self.left_gateway(&mut packets);
        } else if to == self.rogue.at {
            match self.rogue.take(self.now, from, bytes) {
                Taken::Answer(answer) => self.launch(to, from, answer),
                Taken::Packet(packet) => self.reached_rogue(&packet),
                Taken::Nothing => {}
            }
        } else if to == self.rogue_gateway.at {
            match self.rogue_gateway.take(self.now, from, bytes) {
                Taken::Answer(answer) => self.launch(to, from, answer),
                Taken::Packet(packet) => self.reached_rogue_gateway(&packet),
                Taken::Nothing => {}
            }
        } else if to.ip() == at(portal::RELAY_AT).ip() {
            self.relayed(&arrival);
        }
    }

    fn relayed(&mut self, arrival: &Arrival<'_>) {
        let unix = UNIX + (self.now - self.start);
        let verdict = match arrival.to.port() {
            3478 => self.relay.handle_client(self.now, unix, arrival),
            port if self.open_ports.contains(&port) => {
                self.relay
                    .handle_peer(self.now, AllocationPort(port), arrival)
            }
            _ => return,
        };
        let Verdict::Forward(forward) = verdict else {
            return;
        };
        let via = match forward.via {
            Via::Listen(_) => at(portal::RELAY_AT),
            Via::Allocation(port, _) => SocketAddr::new(at(portal::RELAY_AT).ip(), port.0),
        };
        for payload in forward.payloads(arrival) {
            let mut datagram = forward
                .header(payload)
                .map_or_else(Vec::new, |header| header.to_vec());
            datagram.extend_from_slice(payload);
            self.launch(via, forward.to, datagram);
        }
    }

    /// Takes what either has to say; whether there was anything that may lead to more.
    fn drain(&mut self) -> bool {
        let mut had_news = false;
        // What waited and may go now is sealed by jobs.
        while let Some(mut job) = self.client.poll_job() {
            job.run();
            self.client.commit(job);
        }
        while let Some(mut job) = self.gateway.poll_job() {
            job.run();
            self.gateway.commit(job);
        }
        while let Some(transmit) = self.client.poll_transmit() {
            for datagram in transmit.datagrams() {
                self.launch(at(CLIENT_AT), transmit.route.dst, datagram.to_vec());
            }
        }
        while let Some(transmit) = self.gateway.poll_transmit() {
            for datagram in transmit.datagrams() {
                self.launch(at(GATEWAY_AT), transmit.route.dst, datagram.to_vec());
            }
        }
        while let Some(transmit) = self.relay.poll_transmit() {
            self.launch(
                at(portal::RELAY_AT),
                transmit.route.dst,
                transmit.payload.to_vec(),
            );
        }
        while let Some(command) = self.relay.poll_command() {
            match command {
                Command::OpenPort {
                    port,
                    family: Family::V4,
                } => {
                    self.open_ports.insert(port.0);
                    self.relay.handle_port_opened(self.now, port, Family::V4);
                }
                Command::OpenPort { port, family } => {
                    self.relay.handle_port_failed(self.now, port, family)
                }
                Command::ClosePort { port, .. } => {
                    self.open_ports.remove(&port.0);
                }
            }
        }
        while let Some(event) = self.client.poll_event() {
            if let Event::NamesAssigned(records) = event {
                for record in records {
                    let ips = record.ips.into_iter();
                    self.law
                        .names
                        .extend(ips.map(|ip| (ip, record.domain.clone())));
                }
            }
        }
        while self.gateway.poll_event().is_some() {}
        while let Some(packet) = self.client.poll_packet() {
            let seen = self.strict(&packet, "said by the client");
            self.counts.said_by_client += 1;
            self.hold(
                self.law.may_say(&packet, &seen),
                "said by the client",
                &packet,
            );
        }
        while let Some(packet) = self.gateway.poll_packet() {
            // What it answers its own network.
            self.strict(&packet, "said by the gateway");
        }
        while let Some(exchange) = self.client.poll_exchange() {
            had_news = true;
            let answer = self.resolved(&exchange);
            self.client
                .handle_exchanged(self.now, exchange.id, Ok(answer));
        }
        while let Some(exchange) = self.gateway.poll_exchange() {
            had_news = true;
            let answer = self.resolved(&exchange);
            self.gateway
                .handle_exchanged(self.now, exchange.id, Ok(answer));
        }

        self.serve_portal() || had_news
    }

    /// What the site's name server says of any name.
    fn resolved(&mut self, exchange: &Exchange) -> Vec<u8> {
        let query = Query::parse(&exchange.message).unwrap();
        let wants_v4 = query.record_type == RecordType::A;
        let wants_v6 = query.record_type == RecordType::AAAA;
        let records = self.real.iter().filter_map(|ip| match ip {
            IpAddr::V4(ip) if wants_v4 => Some(Data::A(*ip)),
            IpAddr::V6(ip) if wants_v6 => Some(Data::Aaaa(*ip)),
            _ => None,
        });
        if let Some(name) = NAMES.iter().find(|name| **name == query.name.as_str()) {
            self.law
                .real
                .extend(self.real.iter().map(|ip| (*name, *ip)));
        }

        respond(
            &query,
            Rcode::NOERROR,
            1,
            &records.collect::<Vec<_>>(),
            None,
        )
    }

    /// The keys that the portal tells each end of the other.
    pub(super) fn keys_of(&self, client: ClientId) -> PublicKey {
        match client {
            CLIENT => self.client.public_key(),
            _ => self.rogue.public_key(),
        }
    }

    pub(super) fn key_of_gateway(&self, gateway: GatewayId) -> PublicKey {
        match gateway {
            GATEWAY => self.gateway.public_key(),
            _ => self.rogue_gateway.public_key(),
        }
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

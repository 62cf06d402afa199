//! Two nodes, one relay, links with latency and loss, and a stand-in for the portal that carries candidates.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_link::{
    Event, Links, NotSent, Packets, PathKind, PeerConfig, PeerId, RelayServer, Role, Settings,
};
use connlib_relay::{
    AllocationPort, Command, Config, Credentials, LoopbackPeers, PrivatePeers, Server, Verdict, Via,
};
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::id::RelayId;
use connlib_wire::ip;
use connlib_wire::key::PresharedKey;
use connlib_wire::portal::IceCredentials;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Family, relay_password};
use connlib_wire::train::{Arrival, Transmit};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

pub const CLIENT: PeerId = PeerId(Uuid::from_u128(1));
pub const GATEWAY: PeerId = PeerId(Uuid::from_u128(2));
const RELAY: Uuid = Uuid::from_u128(3);
const RELAY_SECRET: &str = "what only the portal and the relay know";
const UNIX: Duration = Duration::from_secs(1_800_000_000);
const LATENCY: Duration = Duration::from_millis(10);

/// Whether the two ends can reach each other without the relay.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Direct {
    Open,
    Blocked,
}

/// How nodes are driven: exactly when they ask, or on every tick as well.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Driver {
    Exact,
    Every(Duration),
}

pub struct Node {
    pub id: PeerId,
    pub links: Links,
    pub addr: SocketAddr,
    pub received: Vec<(Instant, Vec<u8>)>,
    pub events: Vec<(Instant, Event)>,
}

enum Message {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Candidate {
        at: PeerId,
        from: PeerId,
        line: String,
    },
    Withdrawn {
        at: PeerId,
        from: PeerId,
        line: String,
    },
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub client: Node,
    pub gateway: Node,
    relay: Server,
    relay_addr: SocketAddr,
    pub relay_is_up: bool,
    /// How long a datagram takes to or from the relay.
    pub relay_latency: Duration,
    pub direct: Direct,
    /// How many of a hundred datagrams are lost.
    pub loss_percent: u32,
    rng: StdRng,
    open_ports: BTreeSet<u16>,
    in_flight: BTreeMap<(Instant, u64), Message>,
    sent: u64,
    driver: Driver,
    /// Datagrams that were to leave from an address that isn't the node's.
    pub refused: usize,
    /// All datagrams, as they left.
    pub trace: Vec<(Duration, SocketAddr, SocketAddr, Vec<u8>)>,
}

impl World {
    pub fn new(direct: Direct) -> Self {
        Self::driven(direct, Driver::Exact, 7)
    }

    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    pub fn driven(direct: Direct, driver: Driver, seed: u8) -> Self {
        let start = Instant::now();
        let relay_addr: SocketAddr = "203.0.113.9:3478".parse().unwrap();
        let mut world = Self {
            start,
            now: start,
            client: node(CLIENT, "198.51.100.7:52625", start, seed),
            gateway: node(GATEWAY, "192.0.2.33:52625", start, seed.wrapping_add(1)),
            relay: relay(relay_addr, seed),
            relay_addr,
            relay_is_up: true,
            relay_latency: LATENCY,
            direct,
            loss_percent: 0,
            rng: StdRng::seed_from_u64(seed.into()),
            open_ports: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            sent: 0,
            driver,
            refused: 0,
            trace: Vec::new(),
        };
        for node in [&mut world.client, &mut world.gateway] {
            let servers = vec![relay_server(relay_addr, RELAY_SECRET, node.id)];
            node.links.update_relays(start, &[], servers);
        }
        world.drain();

        world
    }

    pub fn relay_id(&self) -> RelayId {
        RelayId(RELAY)
    }

    pub fn relay_server(&self, node: PeerId) -> RelayServer {
        relay_server(self.relay_addr, RELAY_SECRET, node)
    }

    /// Replaces the relay by one that knows nothing, with a secret of its own.
    pub fn restart_relay(&mut self, secret: &str) {
        self.relay = Server::new(
            relay_config(self.relay_addr, secret),
            [99; 32],
            Pool::new(2_048, 16),
        );
        self.open_ports.clear();
    }

    /// Gives a node another address, as if it had walked into another network; its sockets are bound anew.
    pub fn move_to(&mut self, id: PeerId, addr: &str) {
        let now = self.now;
        let node = self.node(id);
        node.addr = addr.parse().unwrap();
        node.links.network_changed(now);
        self.drain();
    }

    /// Describes the link to both ends, the gateway first, as the portal does.
    pub fn connect(&mut self) {
        let (client, gateway) = self.configs(5);
        self.gateway
            .links
            .upsert(self.now, CLIENT, gateway)
            .unwrap();
        self.client.links.upsert(self.now, GATEWAY, client).unwrap();
        self.drain();
    }

    pub fn configs(&self, preshared_key: u8) -> (PeerConfig, PeerConfig) {
        let credentials = |name: &str| IceCredentials {
            username: name.to_owned(),
            password: Secret::from(format!("password of {name}")),
        };
        let config = |peer: &Node, local: &str, remote: &str, role| PeerConfig {
            public_key: peer.links.public_key(),
            preshared_key: PresharedKey::new([preshared_key; 32]),
            local: credentials(local),
            remote: credentials(remote),
            role,
        };

        (
            config(&self.gateway, "clnt", "gate", Role::Controlling),
            config(&self.client, "gate", "clnt", Role::Controlled),
        )
    }

    /// Sends a packet from the client to the gateway, or back.
    pub fn send(&mut self, from: PeerId, payload: &[u8]) {
        let packet = packet(payload);
        let (node, peer) = match from {
            CLIENT => (&mut self.client, GATEWAY),
            _ => (&mut self.gateway, CLIENT),
        };
        match node.links.encapsulate(self.now, peer, &packet) {
            Ok(()) | Err(NotSent::Waiting) => {}
            Err(why) => panic!("the packet is refused: {why}"),
        }
        self.drain();
    }

    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`, at most for `limit`.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let (begin, end) = (self.now, self.now + limit);
        while !done(self) {
            if !self.step(end) {
                return None;
            }
        }

        Some(self.now - begin)
    }

    pub fn is_up(&self) -> bool {
        [&self.client, &self.gateway]
            .iter()
            .all(|node| node.is_established())
    }

    /// Goes to the next instant at which something happens; false if that is not before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let client = self.client.links.poll_timeout().map(|(at, _)| at);
        let gateway = self.gateway.links.poll_timeout().map(|(at, _)| at);
        let relay = self.relay.poll_timeout().map(|(at, _)| at);
        let tick = match self.driver {
            Driver::Exact => None,
            Driver::Every(span) => Some(self.now + span),
        };
        let next = [arrival, client, gateway, relay, tick]
            .into_iter()
            .flatten()
            .min();
        let Some(next) = next.filter(|at| *at < end) else {
            return false;
        };
        self.now = self.now.max(next);

        let now = self.now;
        for node in [&mut self.client, &mut self.gateway] {
            let due = node.links.poll_timeout().is_some_and(|(at, _)| at <= now);
            if due || self.driver != Driver::Exact {
                node.links.handle_timeout(now);
            }
        }
        self.relay.handle_timeout(now);
        self.drain();
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let message = entry.remove();
            self.deliver(message);
            self.drain();
        }

        true
    }

    fn deliver(&mut self, message: Message) {
        let now = self.now;
        match message {
            Message::Datagram { from, to, bytes } if to.ip() == self.relay_addr.ip() => {
                self.deliver_to_relay(from, to, &bytes);
            }
            Message::Datagram { from, to, bytes } => {
                for node in [&mut self.client, &mut self.gateway] {
                    if node.addr == to {
                        node.receive(now, &arrival(from, to, &bytes));
                    }
                }
            }
            Message::Candidate { at, from, line } => {
                self.node(at).links.add_remote_candidate(now, from, &line);
            }
            Message::Withdrawn { at, from, line } => {
                self.node(at)
                    .links
                    .remove_remote_candidate(now, from, &line);
            }
        }
    }

    fn deliver_to_relay(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if !self.relay_is_up {
            return;
        }
        let arrival = arrival(from, to, bytes);
        let verdict = if to.port() == self.relay_addr.port() {
            self.relay
                .handle_client(self.now, UNIX + (self.now - self.start), &arrival)
        } else if self.open_ports.contains(&to.port()) {
            self.relay
                .handle_peer(self.now, AllocationPort(to.port()), &arrival)
        } else {
            return;
        };
        let Verdict::Forward(forward) = verdict else {
            return;
        };
        let via = match forward.via {
            Via::Listen(_) => self.relay_addr,
            Via::Allocation(port, _) => SocketAddr::new(self.relay_addr.ip(), port.0),
        };
        for payload in forward.payloads(&arrival) {
            let mut datagram = forward
                .header(payload)
                .map_or_else(Vec::new, |header| header.to_vec());
            datagram.extend_from_slice(payload);
            self.launch(via, forward.to, datagram);
        }
    }

    pub fn node_of(&self, id: PeerId) -> &Node {
        if id == CLIENT {
            &self.client
        } else {
            &self.gateway
        }
    }

    fn node(&mut self, id: PeerId) -> &mut Node {
        if id == CLIENT {
            &mut self.client
        } else {
            &mut self.gateway
        }
    }

    /// Carries every output to where it goes.
    pub fn drain(&mut self) {
        for id in [CLIENT, GATEWAY] {
            while let Some(transmit) = self.node(id).links.poll_transmit() {
                self.launch_all(id, &transmit);
            }
            let other = if id == CLIENT { GATEWAY } else { CLIENT };
            while let Some(event) = self.node(id).links.poll_event() {
                let now = self.now;
                self.node(id).events.push((now, event.clone()));
                match event {
                    Event::NewCandidate { line, .. } => {
                        self.post(Message::Candidate {
                            at: other,
                            from: id,
                            line,
                        });
                    }
                    Event::InvalidatedCandidate { line, .. } => {
                        self.post(Message::Withdrawn {
                            at: other,
                            from: id,
                            line,
                        });
                    }
                    Event::Established(_) | Event::Failed(_) | Event::Closed(_) => {}
                    Event::PathChanged { .. } | Event::NoRelays => {}
                    Event::Silent(_) | Event::Unanswered(_) => {}
                    other => panic!("an event this world doesn't know: {other:?}"),
                }
            }
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
        while let Some(transmit) = self.relay.poll_transmit() {
            for datagram in transmit.datagrams().map(<[u8]>::to_vec).collect::<Vec<_>>() {
                self.launch(self.relay_addr, transmit.route.dst, datagram);
            }
        }
    }

    fn launch_all(&mut self, id: PeerId, transmit: &Transmit) {
        let own = self.node(id).addr;
        let src = transmit.route.src.unwrap_or(own);
        if src != own {
            // The system doesn't send from an address that is no more.
            self.refused += transmit.datagrams().count();
            return;
        }
        for datagram in transmit.datagrams() {
            assert!(datagram.len() <= connlib_wire::MAX_DATAGRAM);
            self.launch(src, transmit.route.dst, datagram.to_vec());
        }
    }

    pub fn launch(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.trace
            .push((self.now - self.start, from, to, bytes.clone()));
        let ends = [self.client.addr, self.gateway.addr];
        let is_direct = ends.contains(&from) && ends.contains(&to);
        let is_lost = self.rng.random_range(0..100) < self.loss_percent;
        if (is_direct && self.direct == Direct::Blocked) || is_lost {
            return;
        }
        self.post(Message::Datagram { from, to, bytes });
    }

    fn post(&mut self, message: Message) {
        let relay = self.relay_addr.ip();
        let takes = match &message {
            Message::Datagram { from, to, .. } if [from.ip(), to.ip()].contains(&relay) => {
                self.relay_latency
            }
            Message::Datagram { .. } | Message::Candidate { .. } | Message::Withdrawn { .. } => {
                LATENCY
            }
        };
        self.sent += 1;
        self.in_flight
            .insert((self.now + takes, self.sent), message);
    }
}

impl Node {
    pub fn receive(&mut self, now: Instant, arrival: &Arrival<'_>) {
        let mut packets = Packets::new();
        self.links.handle_arrival(now, arrival, &mut packets);
        self.received
            .extend(packets.iter().map(|bytes| (now, bytes.to_vec())));
    }

    pub fn is_established(&self) -> bool {
        self.events
            .iter()
            .any(|(_, event)| matches!(event, Event::Established(_)))
    }

    pub fn kind(&self, now: Instant) -> Option<PathKind> {
        self.links
            .peers(now)
            .find(|peer| peer.path.is_some())
            .map(|peer| peer.kind)
    }

    pub fn payloads(&self) -> Vec<Vec<u8>> {
        self.received
            .iter()
            .map(|(_, bytes)| {
                ip::Packet::parse(bytes.as_slice())
                    .unwrap()
                    .payload()
                    .to_vec()
            })
            .collect()
    }
}

pub fn packet(payload: &[u8]) -> Vec<u8> {
    let (source, destination) = ("100.64.0.1:1000", "10.20.0.10:2000");
    let packet = ip::udp(
        &Pool::new(2_048, 1),
        source.parse().unwrap(),
        destination.parse().unwrap(),
        payload,
    );

    packet.unwrap().bytes().to_vec()
}

pub fn arrival(from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Arrival<'_> {
    Arrival {
        from,
        to,
        ecn: Ecn::NotEct,
        stride: 0,
        bytes,
    }
}

fn node(id: PeerId, addr: &str, now: Instant, seed: u8) -> Node {
    Node {
        id,
        links: Links::new(now, [seed; 32], Settings { unix: UNIX }),
        addr: addr.parse().unwrap(),
        received: Vec::new(),
        events: Vec::new(),
    }
}

fn relay(addr: SocketAddr, seed: u8) -> Server {
    Server::new(
        relay_config(addr, RELAY_SECRET),
        [seed; 32],
        Pool::new(2_048, 16),
    )
}

fn relay_config(addr: SocketAddr, secret: &str) -> Config {
    let SocketAddr::V4(addr) = addr else {
        panic!("the relay of this world speaks IPv4");
    };
    Config {
        public_v4: Some(*addr.ip()),
        public_v6: None,
        listen_port: addr.port(),
        ports: 49_152..=65_535,
        credentials: Credentials::Stamped(Secret::from(secret)),
        loopback_peers: LoopbackPeers::Refused,
        private_peers: PrivatePeers::Allowed,
    }
}

fn relay_server(addr: SocketAddr, secret: &str, node: PeerId) -> RelayServer {
    let expiry = 2_145_916_800;
    let salt = format!("salt-of-{node}");
    RelayServer {
        id: RelayId(RELAY),
        v4: Some(addr),
        v6: None,
        username: format!("{expiry}:{salt}"),
        password: relay_password(expiry, &salt, &Secret::from(secret)),
    }
}

//! A node, its peer and a relay, connected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_link::{
    Event, Links, NotSent, Packets, PeerConfig, PeerId, Reason, RelayServer, Role, Settings,
};
use connlib_relay::{
    AllocationPort, Command, Config, Credentials, LoopbackPeers, PrivatePeers, Server, Verdict, Via,
};
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::id::RelayId;
use connlib_wire::key::PresharedKey;
use connlib_wire::portal::IceCredentials;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Family, Message, relay_password};
use connlib_wire::train::{Arrival, Transmit};
use connlib_wire::{MAX_DATAGRAM, ip};
use uuid::Uuid;

pub(super) const US: PeerId = PeerId(Uuid::from_u128(1));
pub(super) const PEER: PeerId = PeerId(Uuid::from_u128(2));
pub(super) const RELAY: Uuid = Uuid::from_u128(3);
pub(super) const OUR_ADDR: &str = "198.51.100.7:52625";
pub(super) const PEER_ADDR: &str = "192.0.2.33:52625";
pub(super) const RELAY_ADDR: &str = "203.0.113.9:3478";
const RELAY_SECRET: &str = "what only the portal and the relay know";
const UNIX: Duration = Duration::from_secs(1_800_000_000);
const LATENCY: Duration = Duration::from_millis(10);

/// How many datagrams are recorded.
const MAX_RECORDED: usize = 256;

/// How many ports the relay has to lend.
pub(super) const RELAY_PORTS: u16 = 64;

/// Relays that the node can have been told of.
const MAX_RELAYS: usize = 3;

/// Whether datagrams arrive.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Network {
    Works,
    IsAway,
}

pub(super) struct World {
    pub(super) now: Instant,
    start: Instant,
    pub(super) ours: Links,
    peers: Links,
    relay: Server,
    open_ports: BTreeSet<u16>,
    in_flight: BTreeMap<(Instant, u64), Flying>,
    launched: u64,
    /// What came to us.
    recorded: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Bytes that strangers sent us, and that we sent them.
    strangers: BTreeMap<SocketAddr, (usize, usize)>,
    /// Hosts that may get more than they sent. A peer's host is also tried at a port that it didn't name.
    forgiven: BTreeSet<IpAddr>,
    /// Packets that the peer put into the tunnel and that haven't come out.
    expected: Vec<Vec<u8>>,
    sent_packets: u64,
    arrived_packets: usize,
}

enum Flying {
    Datagram(SocketAddr, SocketAddr, Vec<u8>),
    Candidate {
        for_us: bool,
        line: String,
        is_new: bool,
    },
}

impl World {
    /// A link that is up; the lowest bit of `seed` says which end nominates.
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    pub(super) fn connected(seed: u8) -> Self {
        let start = Instant::now();
        let settings = Settings { unix: UNIX };
        let mut world = Self {
            now: start,
            start,
            ours: Links::new(start, [seed; 32], settings),
            peers: Links::new(start, [seed ^ 0xFF; 32], settings),
            relay: Server::new(relay_config(), [seed; 32], Pool::new(2_048, 16)),
            open_ports: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            launched: 0,
            recorded: Vec::new(),
            strangers: BTreeMap::new(),
            forgiven: [PEER_ADDR, RELAY_ADDR, OUR_ADDR]
                .map(|text| addr(text).ip())
                .into(),
            expected: Vec::new(),
            sent_packets: 0,
            arrived_packets: 0,
        };
        let (for_us, for_peer) = (relay_server("us"), relay_server("peer"));
        world.ours.update_relays(start, &[], vec![for_us]);
        world.peers.update_relays(start, &[], vec![for_peer]);
        world.pass(Duration::from_millis(200), Network::Works);

        let role = [Role::Controlled, Role::Controlling][usize::from(seed & 1)];
        world.describe_as(role, 5);
        let config = config(&world.ours, other(role), ["clnt", "gate"], 5);
        world.peers.upsert(world.now, US, config).unwrap();
        world.pass(Duration::from_secs(2), Network::Works);
        world.send_to_us(b"the first one");
        world.pass(Duration::from_millis(100), Network::Works);
        assert_eq!(world.arrived_packets, 1, "the link came up");

        world
    }

    /// Describes the link again, alike or not.
    pub(super) fn describe(&mut self, key: u8) {
        self.describe_as(Role::Controlled, key);
    }

    fn describe_as(&mut self, role: Role, key: u8) {
        let config = config(&self.peers, role, ["gate", "clnt"], key);
        // Without a relay there is no link.
        let _ = self.ours.upsert(self.now, PEER, config);
    }

    pub(super) fn recorded(&self, number: usize) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let number = number.checked_rem(self.recorded.len())?;

        self.recorded.get(number).cloned()
    }

    /// The host of `source` may get more than it sends from here on.
    pub(super) fn forgive(&mut self, source: SocketAddr) {
        self.forgiven.insert(source.ip());
    }

    pub(super) fn candidate(&mut self, line: &str, is_new: bool) {
        if is_new {
            // Whoever it names gets checks.
            self.forgiven.extend(named_in(line));
            self.ours.add_remote_candidate(self.now, PEER, line);
        } else {
            self.ours.remove_remote_candidate(self.now, PEER, line);
        }
    }

    /// Datagrams arrive at us.
    pub(super) fn inject(&mut self, from: SocketAddr, to: SocketAddr, stride: usize, bytes: &[u8]) {
        self.strangers.entry(from).or_default().0 += bytes.len();
        self.arrive(from, to, stride, bytes);
    }

    /// The peer sends a packet.
    pub(super) fn send_to_us(&mut self, payload: &[u8]) {
        self.sent_packets += 1;
        let payload = [&self.sent_packets.to_be_bytes(), payload].concat();
        let (source, destination) = (addr("100.64.0.1:1000"), addr("10.20.0.10:2000"));
        let packet = ip::udp(&Pool::new(2_048, 1), source, destination, &payload).unwrap();
        if self.peers.encapsulate(self.now, US, packet.bytes()) != Err(NotSent::UnknownPeer) {
            self.expected.push(packet.bytes().to_vec());
        }
    }

    /// Packets still get through in both directions. After a long pause the first ones make for a new session.
    pub(super) fn still_works(&mut self) {
        // Whether or not there is a session yet.
        let _ = self.both_send();
        self.pass(Duration::from_secs(5), Network::Works);
        let arrived = (self.arrived_packets, self.peers.stats().opened_packets);
        assert_eq!(self.both_send(), Ok(()));
        self.pass(Duration::from_secs(1), Network::Works);
        assert!(
            self.arrived_packets > arrived.0,
            "the peer's packet was lost"
        );
        let opened = self.peers.stats().opened_packets;
        assert!(opened > arrived.1, "our packet was lost");
    }

    fn both_send(&mut self) -> Result<(), NotSent> {
        self.send_to_us(b"still here");
        let (from, to) = (addr("10.20.0.10:2000"), addr("100.64.0.1:1000"));
        let packet = ip::udp(&Pool::new(2_048, 1), from, to, b"so are we").unwrap();

        self.ours.encapsulate(self.now, PEER, packet.bytes())
    }

    pub(super) fn pass(&mut self, time: Duration, network: Network) {
        let end = self.now + time;
        if network == Network::IsAway {
            self.in_flight.clear();
            self.now = end;
        }
        self.drain();
        while let Some(next) = self.next_instant().filter(|at| *at < end) {
            self.now = self.now.max(next);
            self.due();
        }
        self.now = end;
        self.due();
    }

    fn next_instant(&mut self) -> Option<Instant> {
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let ours = self.ours.poll_timeout().map(|(at, _)| at);
        let peers = self.peers.poll_timeout().map(|(at, _)| at);
        let relay = self.relay.poll_timeout().map(|(at, _)| at);

        [arrival, ours, peers, relay].into_iter().flatten().min()
    }

    fn due(&mut self) {
        let now = self.now;
        self.ours.handle_timeout(now);
        self.peers.handle_timeout(now);
        self.relay.handle_timeout(now);
        self.drain();
        if let Some((at, reason)) = self.ours.poll_timeout() {
            assert!(at > now, "{reason:?} is still due");
        }
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let flying = entry.remove();
            self.land(flying);
            self.drain();
        }
    }

    fn land(&mut self, flying: Flying) {
        match flying {
            Flying::Candidate {
                for_us,
                line,
                is_new,
            } => {
                let (links, id) = match for_us {
                    true => (&mut self.ours, PEER),
                    false => (&mut self.peers, US),
                };
                match is_new {
                    true => links.add_remote_candidate(self.now, id, &line),
                    false => links.remove_remote_candidate(self.now, id, &line),
                }
            }
            Flying::Datagram(from, to, bytes) if to.ip() == addr(RELAY_ADDR).ip() => {
                self.relayed(from, to, &bytes);
            }
            Flying::Datagram(from, to, bytes) if to == addr(OUR_ADDR) => {
                if self.recorded.len() < MAX_RECORDED {
                    self.recorded.push((from, to, bytes.clone()));
                }
                self.arrive(from, to, 0, &bytes);
            }
            Flying::Datagram(from, to, bytes) if to == addr(PEER_ADDR) => {
                let mut packets = Packets::new();
                let arrival = arrival(from, to, 0, &bytes);
                self.peers.handle_arrival(self.now, &arrival, &mut packets);
            }
            Flying::Datagram(..) => {}
        }
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, stride: usize, bytes: &[u8]) {
        let mut packets = Packets::new();
        let arrival = arrival(from, to, stride, bytes);
        self.ours.handle_arrival(self.now, &arrival, &mut packets);
        for packet in packets.iter() {
            let known = self.expected.iter().position(|sent| sent == packet);
            let known = known.expect("a packet came out that nobody sent, or twice");
            self.expected.swap_remove(known);
            self.arrived_packets += 1;
        }
    }

    fn relayed(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let arrival = arrival(from, to, 0, bytes);
        let unix = UNIX + (self.now - self.start);
        let verdict = match to.port() {
            3478 => self.relay.handle_client(self.now, unix, &arrival),
            port if self.open_ports.contains(&port) => {
                self.relay
                    .handle_peer(self.now, AllocationPort(port), &arrival)
            }
            _ => return,
        };
        let Verdict::Forward(forward) = verdict else {
            return;
        };
        let via = match forward.via {
            Via::Listen(_) => addr(RELAY_ADDR),
            Via::Allocation(port, _) => SocketAddr::new(addr(RELAY_ADDR).ip(), port.0),
        };
        for payload in forward.payloads(&arrival) {
            let header = forward.header(payload);
            let mut datagram = header.map_or_else(Vec::new, |header| header.to_vec());
            datagram.extend_from_slice(payload);
            self.launch(Flying::Datagram(via, forward.to, datagram));
        }
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.ours.poll_transmit() {
            self.left(&transmit);
        }
        while let Some(transmit) = self.peers.poll_transmit() {
            for datagram in transmit.datagrams() {
                let datagram = datagram.to_vec();
                self.launch(Flying::Datagram(
                    addr(PEER_ADDR),
                    transmit.route.dst,
                    datagram,
                ));
            }
        }
        for for_us in [true, false] {
            while let Some(event) = match for_us {
                true => self.peers.poll_event(),
                false => self.ours.poll_event(),
            } {
                let (line, is_new) = match event {
                    Event::NewCandidate { line, .. } => (line, true),
                    Event::InvalidatedCandidate { line, .. } => (line, false),
                    _ => continue,
                };
                self.launch(Flying::Candidate {
                    for_us,
                    line,
                    is_new,
                });
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
                    self.relay.handle_port_failed(self.now, port, family);
                }
                Command::ClosePort { port, .. } => {
                    self.open_ports.remove(&port.0);
                }
            }
        }
        while let Some(transmit) = self.relay.poll_transmit() {
            let datagram = transmit.payload.to_vec();
            self.launch(Flying::Datagram(
                addr(RELAY_ADDR),
                transmit.route.dst,
                datagram,
            ));
        }
    }

    /// A train leaves us.
    fn left(&mut self, transmit: &Transmit) {
        assert!(transmit.segment_size > 0 && !transmit.payload.is_empty());
        let route = transmit.route;
        assert!(
            route.dst.port() != 0 && !route.dst.ip().is_unspecified(),
            "{route:?}"
        );
        for datagram in transmit.datagrams() {
            assert!(datagram.len() <= MAX_DATAGRAM);
            self.strangers.entry(route.dst).or_default().1 += datagram.len();
            let from = route.src.unwrap_or_else(|| addr(OUR_ADDR));
            self.launch(Flying::Datagram(from, route.dst, datagram.to_vec()));
        }
    }

    fn launch(&mut self, flying: Flying) {
        self.launched += 1;
        self.in_flight
            .insert((self.now + LATENCY, self.launched), flying);
    }

    /// What holds after each step.
    pub(super) fn check(&mut self) {
        self.drain();
        for (source, (received, sent)) in &self.strangers {
            let is_forgiven = self.forgiven.contains(&source.ip());
            assert!(
                is_forgiven || sent <= received,
                "{source} sent {received} bytes and got {sent}"
            );
        }
        assert!(self.ours.peers(self.now).count() <= 1);
        assert!(self.ours.relays().count() <= MAX_RELAYS);
        if let Some((_, reason)) = self.ours.poll_timeout() {
            assert_ne!(reason, Reason::Output, "everything was taken");
        }
    }
}

/// Whether it is a STUN message that one of the two ends signed.
pub(super) fn is_authentic(bytes: &[u8]) -> bool {
    let message = Message::parse(bytes);

    message.is_ok_and(|message| {
        ["clnt", "gate"]
            .iter()
            .any(|name| message.verify(password(name).as_bytes()))
    })
}

/// The hosts that a candidate's line may stand for.
fn named_in(line: &str) -> impl Iterator<Item = IpAddr> {
    line.split_whitespace().filter_map(|word| word.parse().ok())
}

fn password(name: &str) -> String {
    format!("password of {name}")
}

fn config(peer: &Links, role: Role, [local, remote]: [&str; 2], key: u8) -> PeerConfig {
    let credentials = |name: &str| IceCredentials {
        username: name.to_owned(),
        password: Secret::from(password(name)),
    };

    PeerConfig {
        public_key: peer.public_key(),
        preshared_key: PresharedKey::new([key; 32]),
        local: credentials(local),
        remote: credentials(remote),
        role,
    }
}

fn other(role: Role) -> Role {
    match role {
        Role::Controlling => Role::Controlled,
        Role::Controlled => Role::Controlling,
    }
}

fn relay_config() -> Config {
    Config {
        public_v4: Some([203, 0, 113, 9].into()),
        public_v6: None,
        listen_port: 3478,
        ports: 49_152..=49_152 + RELAY_PORTS - 1,
        credentials: Credentials::Stamped(Secret::from(RELAY_SECRET)),
        loopback_peers: LoopbackPeers::Refused,
        private_peers: PrivatePeers::Allowed,
    }
}

fn relay_server(salt: &str) -> RelayServer {
    let expiry = 2_145_916_800;

    RelayServer {
        id: RelayId(RELAY),
        v4: Some(addr(RELAY_ADDR)),
        v6: None,
        username: format!("{expiry}:{salt}"),
        password: relay_password(expiry, salt, &Secret::from(RELAY_SECRET)),
    }
}

fn arrival(from: SocketAddr, to: SocketAddr, stride: usize, bytes: &[u8]) -> Arrival<'_> {
    Arrival {
        from,
        to,
        ecn: Ecn::NotEct,
        stride,
        bytes,
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

//! Two nodes at a relay by `turn-server-proto`, a TURN server that others wrote: it decides which requests of our client are right.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_link::{
    Event, Links, NotSent, PathKind, PeerConfig, PeerId, REALM, RelayServer, Role, Settings,
};
use connlib_wire::id::RelayId;
use connlib_wire::key::PresharedKey;
use connlib_wire::portal::IceCredentials;
use connlib_wire::secret::Secret;
use connlib_wire::stun::Message;
use turn_server_proto::api::{SocketAllocateError, Transmit, TurnServerApi, TurnServerPollRet};
use turn_server_proto::server::TurnServer;
use turn_server_proto::types::stun::TransportType;
use turn_server_proto::types::{AddressFamily, Instant as ServerTime};
use uuid::Uuid;

use crate::world::{CLIENT, GATEWAY, Node, arrival, packet};

const RELAY: RelayId = RelayId(Uuid::from_u128(3));

/// Nothing that is waited for takes so long, in virtual time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than allocations, permissions and channels last that nobody refreshes.
const LONG: Duration = Duration::from_secs(3 * 3600);

#[test]
fn two_nodes_meet_at_a_relay_of_others_and_stay() {
    let mut place = Place::new();
    place.until("addresses by the relay", |place| {
        let mut nodes = place.nodes.iter();
        nodes.all(|node| node.links.relays().all(|relay| relay.relayed.len() == 1))
    });
    place.introduce();
    place.until("a link", |place| {
        place.nodes.iter().all(Node::is_established)
    });
    for node in &place.nodes {
        let kind = node.kind(place.now).unwrap();
        assert!(kind != PathKind::Direct, "{kind:?}");
    }
    place.carries_both_ways(b"at once");

    let end = place.now + LONG;
    while place.now < end {
        place.step(end);
    }

    place.carries_both_ways(b"hours later");
    // At the first contact of each node: with credentials but no nonce, and without either.
    // Each node was told once how to ask, and then, each hour or so, that its nonce is stale.
    let stale = place.refusals.remove(&438).unwrap_or_default();
    assert!(stale >= 2, "{stale}");
    assert_eq!(place.refusals, BTreeMap::from([(400, 2), (401, 2)]));
}

#[test]
fn it_turns_away_who_has_no_password() {
    let mut place = Place::new();
    let guess = RelayServer {
        password: Secret::from("guessed"),
        ..relay_server(&place.nodes[0], place.address)
    };
    let (id, now) = (place.nodes[0].id, place.now);
    place
        .node(id)
        .links
        .update_relays(now, &[RELAY], vec![guess]);

    let end = now + PATIENCE;
    while place.now < end {
        place.step(end);
    }

    let relayed = |node: &Node| node.links.relays().flat_map(|relay| relay.relayed).count();
    assert_eq!([relayed(&place.nodes[0]), relayed(&place.nodes[1])], [0, 1]);
}

/// Two nodes that reach the relay alone.
struct Place {
    start: Instant,
    now: Instant,
    server: TurnServer,
    address: SocketAddr,
    /// The next port that is lent.
    port: u16,
    nodes: [Node; 2],
    in_flight: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// How many datagrams were requests that the relay refused, by the code that it gave.
    refusals: BTreeMap<u16, usize>,
}

impl Place {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new() -> Self {
        let start = Instant::now();
        let address: SocketAddr = "203.0.113.9:3478".parse().unwrap();
        let mut server = TurnServer::new(TransportType::Udp, address, REALM.to_owned());
        let nodes = [
            (CLIENT, "198.51.100.7:52625", 1),
            (GATEWAY, "192.0.2.33:52625", 2),
        ];
        let nodes = nodes.map(|(id, own, seed)| {
            let settings = Settings {
                unix: Duration::from_secs(1_800_000_000),
            };
            let mut node = Node {
                id,
                links: Links::new(start, [seed; 32], settings),
                addr: own.parse().unwrap(),
                received: Vec::new(),
                events: Vec::new(),
            };
            let relay = relay_server(&node, address);
            server.add_user(relay.username.clone(), relay.password.expose().to_owned());
            node.links.update_relays(start, &[], vec![relay]);
            node
        });

        Self {
            start,
            now: start,
            server,
            address,
            port: 50_000,
            nodes,
            in_flight: VecDeque::new(),
            refusals: BTreeMap::new(),
        }
    }

    fn node(&mut self, id: PeerId) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).unwrap()
    }

    /// Describes each node to the other one, as a portal does.
    fn introduce(&mut self) {
        let credentials = |node: &Node| IceCredentials {
            username: if node.id == CLIENT { "clnt" } else { "gate" }.to_owned(),
            password: Secret::from(format!("password of {:?}", node.id)),
        };
        let config = |own: &Node, other: &Node, role| PeerConfig {
            public_key: other.links.public_key(),
            preshared_key: PresharedKey::new([5; 32]),
            local: credentials(own),
            remote: credentials(other),
            role,
        };
        let [client, gateway] = &self.nodes;
        let at_client = config(client, gateway, Role::Controlling);
        let at_gateway = config(gateway, client, Role::Controlled);
        let now = self.now;
        self.node(GATEWAY)
            .links
            .upsert(now, CLIENT, at_gateway)
            .unwrap();
        self.node(CLIENT)
            .links
            .upsert(now, GATEWAY, at_client)
            .unwrap();
    }

    fn carries_both_ways(&mut self, payload: &[u8]) {
        for (from, to) in [(CLIENT, GATEWAY), (GATEWAY, CLIENT)] {
            let now = self.now;
            let sent = self.node(from).links.encapsulate(now, to, &packet(payload));
            assert!(matches!(sent, Ok(()) | Err(NotSent::Waiting)), "{sent:?}");
            self.until("the packet", |place| {
                let mut nodes = place.nodes.iter();
                let node = nodes.find(|node| node.id == to).unwrap();
                node.payloads().iter().any(|got| got == payload)
            });
        }
    }

    fn until(&mut self, what: &str, is_done: impl Fn(&Self) -> bool) {
        let end = self.now + PATIENCE;
        while !is_done(self) {
            assert!(self.now < end, "{what}: {:?}", self.refusals);
            self.step(end);
        }
    }

    /// Goes to the next instant at which somebody wants something, and lets all be said that is to say then.
    fn step(&mut self, end: Instant) {
        let mut next = end;
        for node in &mut self.nodes {
            if let Some((at, _)) = node.links.poll_timeout() {
                next = next.min(at);
            }
        }
        self.now = self.now.max(next);
        for node in &mut self.nodes {
            node.links.handle_timeout(self.now);
        }
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            self.collect();
            let Some((from, to, bytes)) = self.in_flight.pop_front() else {
                break;
            };
            let now = self.now;
            if let Some(node) = self.nodes.iter_mut().find(|node| node.addr == to) {
                if let Some(code) = error_code(&bytes) {
                    *self.refusals.entry(code).or_default() += 1;
                }
                node.receive(now, &arrival(from, to, &bytes));
            } else if to.ip() == self.address.ip() {
                let time = self.server_time();
                let transmit = Transmit::new(bytes, TransportType::Udp, from, to);
                if let Some(answer) = self.server.recv(transmit, time) {
                    let mut answer = answer.build();
                    // It addresses what it answers to a Binding request to itself.
                    if answer.to == self.address {
                        answer.to = from;
                    }
                    self.in_flight
                        .push_back((answer.from, answer.to, answer.data));
                }
            }
        }
    }

    /// Takes what nodes and relay have to say. The nodes hear of each other's addresses by the relay only, and reach nobody else.
    fn collect(&mut self) {
        for n in [0, 1] {
            let now = self.now;
            let [own, other] = [n, 1 - n];
            while let Some(event) = self.nodes[own].links.poll_event() {
                if let Event::NewCandidate { line, .. } = &event {
                    let id = self.nodes[own].id;
                    self.nodes[other].links.add_remote_candidate(now, id, line);
                }
                self.nodes[own].events.push((now, event));
            }
        }
        for node in &mut self.nodes {
            while let Some(transmit) = node.links.poll_transmit() {
                let to = transmit.route.dst;
                if to.ip() != self.address.ip() {
                    continue;
                }
                let datagrams = transmit.datagrams().map(<[u8]>::to_vec);
                self.in_flight
                    .extend(datagrams.map(|datagram| (node.addr, to, datagram)));
            }
        }
        let time = self.server_time();
        while let TurnServerPollRet::AllocateSocket {
            transport,
            listen_addr,
            client_addr,
            allocation_transport,
            family,
        } = self.server.poll(time)
        {
            self.port += 1;
            let lent = match family {
                AddressFamily::IPV4 => Ok(SocketAddr::new(self.address.ip(), self.port)),
                AddressFamily::IPV6 => Err(SocketAllocateError::AddressFamilyNotSupported),
            };
            self.server.allocated_socket(
                transport,
                listen_addr,
                client_addr,
                allocation_transport,
                family,
                lent,
                time,
            );
        }
        while let Some(transmit) = self.server.poll_transmit(time) {
            self.in_flight
                .push_back((transmit.from, transmit.to, transmit.data));
        }
    }

    /// The time as the server counts it.
    fn server_time(&self) -> ServerTime {
        ServerTime::ZERO + (self.now - self.start)
    }
}

fn error_code(bytes: &[u8]) -> Option<u16> {
    Message::parse(bytes).ok()?.error_code()
}

fn relay_server(node: &Node, address: SocketAddr) -> RelayServer {
    RelayServer {
        id: RELAY,
        v4: Some(address),
        v6: None,
        username: format!("2145916800:{:?}", node.id),
        password: Secret::from(format!("what {:?} and the relay know", node.id)),
    }
}

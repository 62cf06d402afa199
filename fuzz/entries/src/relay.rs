//! A STUN/TURN server and whatever arrives at it.
//!
//! Bytes decide what happens next: any datagrams, requests of users with right and wrong credentials, data of clients and
//! peers, ports that can't be opened, time. Then
//!
//! * an answer goes to who asked, belongs to the request, and is the only one; who never proved anything gets no more
//!   answers than the limits allow;
//! * data goes only where a channel was bound to, from a port that is open, and no byte is added but a header;
//! * no more exists than there are ports, and time alone empties everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_relay::{
    AllocationPort, Command, Config, Credentials, Limits, LoopbackPeers, PrivatePeers, REALM,
    Server, Verdict, Via, runs,
};
use connlib_wire::buffer::Pool;
use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::ecn::Ecn;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{
    Attribute, Builder, Class, Family, Key, Message, Method, TransactionId, relay_password,
};
use connlib_wire::train::{Arrival, MAX_SEGMENTS};

use crate::choices::Choices;

const MAX_STEPS: usize = 64;
const SECRET: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const PUBLIC_V4: &str = "203.0.113.9:3478";
const PUBLIC_V6: &str = "[2001:db8::9]:3478";
const UNIX: Duration = Duration::from_secs(1_700_000_000);
const PORTS: u16 = 4;
const FIRST_PORT: u16 = 50_000;

const LIMITS: Limits = Limits {
    allocations: 3,
    allocations_per_user: 1,
    channels_per_allocation: 5,
    permissions_per_allocation: 1,
    unproven_burst: 8,
    unproven_per_sec: 4,
    failed_burst: 1_000_000, // nobody is shut out for it here
    failed_per_sec: 1_000,
};

/// Sockets of clients. The last one never has good credentials.
const CLIENTS: [&str; 5] = [
    "198.51.100.1:50000",
    "198.51.100.1:50001",
    "[2001:db8:1::1]:50000",
    "198.51.100.2:50000",
    "198.51.100.66:50000",
];
const STRANGER: &str = CLIENTS[4];

/// Addresses that channels are bound to, or tried to.
const PEERS: [&str; 10] = [
    "192.0.2.1:40404",
    "192.0.2.2:40404",
    "[2001:db8:2::1]:40404",
    "203.0.113.9:50000",
    "203.0.113.9:50001",
    "203.0.113.9:3478",
    "127.0.0.1:53",
    "0.0.0.0:1",
    "224.0.0.1:5",
    "[::ffff:127.0.0.1]:53",
];

/// What is done, as bytes say.
pub fn relay(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut scene = Scene::new(choices.byte());
    for _ in 0..MAX_STEPS {
        if choices.is_over() {
            break;
        }
        scene.step(&mut choices);
        scene.check();
    }

    scene.ends();
}

struct Scene {
    server: Server,
    start: Instant,
    now: Instant,
    /// What the server wants of sockets, and what it has.
    commands: Vec<Command>,
    open: BTreeSet<(AllocationPort, Family)>,
    /// The latest nonce that each client was given.
    nonces: BTreeMap<SocketAddr, String>,
    /// Whoever was told that a channel is bound, and to whom.
    bound: BTreeSet<(SocketAddr, u16, SocketAddr)>,
    /// Requests that have no answer yet.
    asked: BTreeMap<TransactionId, Asked>,
    transactions: u64,
    answers_to_stranger: u32,
}

/// A request.
struct Asked {
    from: SocketAddr,
    method: Method,
    channel: (u16, SocketAddr),
}

impl Scene {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new(seed: u8) -> Self {
        let start = Instant::now();
        let config = Config {
            public_v4: Some(Ipv4Addr::new(203, 0, 113, 9)),
            public_v6: (seed & 1 == 0).then(|| "2001:db8::9".parse().unwrap()),
            listen_port: 3478,
            ports: FIRST_PORT..=FIRST_PORT + PORTS - 1,
            credentials: Credentials::Stamped(Secret::from(SECRET)),
            loopback_peers: LoopbackPeers::Refused,
            private_peers: PrivatePeers::Allowed,
        };

        Self {
            server: Server::new(config, [seed; 32], Pool::new(2_048, 16)).with_limits(LIMITS),
            start,
            now: start,
            commands: Vec::new(),
            open: BTreeSet::new(),
            nonces: BTreeMap::new(),
            bound: BTreeSet::new(),
            asked: BTreeMap::new(),
            transactions: 0,
            answers_to_stranger: 0,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 8 {
            0 => {
                let (from, stride) = (client(choices), usize::from(choices.byte()));
                let bytes = choices.chunk();
                self.arrive(from, stride, bytes);
            }
            1..=3 => self.request(choices),
            4 => self.data(choices),
            5 => {
                let port = AllocationPort(FIRST_PORT + u16::from(choices.byte()) % PORTS);
                let from = peer(choices);
                self.arrive_from_peer(port, from, choices.byte().into(), choices.chunk());
            }
            6 => self.pass(Duration::from_millis(u64::from(choices.word()) * 30)),
            _ => self.carry_out(choices.byte()),
        }
    }

    /// A request that is well formed, of a user who may be one.
    fn request(&mut self, choices: &mut Choices<'_>) {
        let from = client(choices);
        let method = choices.one_of(&[
            Method::Allocate,
            Method::ChannelBind,
            Method::Refresh,
            Method::CreatePermission,
            Method::Binding,
            Method::Other(0x0FF),
        ]);
        let user = choices.one_of(&["a", "b", "c"]);
        let (flags, values) = (choices.byte(), choices.byte());
        let number = 0x4000 + u16::from(choices.byte() % 8);
        let to = peer(choices);
        self.transactions += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());
        let id = TransactionId(id);

        // A request whose values are good unless its flags say otherwise.
        let is = |bit: u8| flags >> bit & 1 == 1;
        let transport = if is(0) { values } else { 17 };
        let lifetime = Duration::from_secs(u64::from(values) * 20);
        let family = [Family::V4, Family::V6][usize::from(values & 1)];
        let mut builder = Builder::new(Pool::new(2_048, 1).take(0), method, Class::Request, id)
            .maybe((method == Method::Allocate).then_some(Attribute::RequestedTransport(transport)))
            .maybe(is(1).then_some(Attribute::Lifetime(lifetime)))
            .maybe(is(2).then_some(Attribute::RequestedAddressFamily(family)))
            .maybe(is(3).then_some(Attribute::AdditionalAddressFamily(Family::V6)));
        if method == Method::ChannelBind {
            builder = builder
                .attribute(Attribute::ChannelNumber(number))
                .attribute(Attribute::XorPeerAddress(to));
        }
        let (name, key) = credentials(user);
        if !is(4) {
            let nonce = self.nonces.get(&from).map(|nonce| Attribute::Nonce(nonce));
            builder = builder
                .attribute(Attribute::Username(&name))
                .attribute(Attribute::Realm(REALM))
                .maybe(nonce);
            let is_stranger = from == addr(STRANGER);
            builder = match is(5) || is_stranger {
                true => builder.integrity(b"not the key"),
                false => builder.integrity(key.expose()),
            };
        }
        let request = builder.finish().expect("it fits");
        let channel = (number, to);
        self.asked.insert(
            id,
            Asked {
                from,
                method,
                channel,
            },
        );
        self.arrive(from, 0, &request);
    }

    /// A train of channel data.
    fn data(&mut self, choices: &mut Choices<'_>) {
        let from = client(choices);
        let number = ChannelNumber::new(0x4000 + u16::from(choices.byte() % 8)).unwrap();
        let count = usize::from(choices.byte()) % MAX_SEGMENTS + 1;
        let payload = choices.chunk();
        let header = channel::header(number, payload.len()).expect("it is short");
        let datagram = [&header, payload].concat();
        let mut train = datagram.repeat(count);
        train.truncate(train.len() - usize::from(choices.byte()) % datagram.len());
        self.arrive(from, datagram.len(), &train);
    }

    /// Something comes to the listen port.
    fn arrive(&mut self, from: SocketAddr, stride: usize, bytes: &[u8]) {
        let arrival = arrival(from, stride, bytes);
        let unix = UNIX + (self.now - self.start);
        match self.server.handle_client(self.now, unix, &arrival) {
            Verdict::Mixed => {
                let all: Vec<Arrival<'_>> = runs(&arrival).collect();
                let lengths: usize = all.iter().map(|run| run.bytes.len()).sum();
                assert_eq!(lengths, bytes.len(), "runs are all there is");
                for run in all {
                    let verdict = self.server.handle_client(self.now, unix, &run);
                    assert_ne!(verdict, Verdict::Mixed, "a run is never mixed");
                    self.verdict(verdict, &run, None);
                }
            }
            verdict => self.verdict(verdict, &arrival, None),
        }
        self.answers(&arrival);
    }

    fn arrive_from_peer(
        &mut self,
        port: AllocationPort,
        from: SocketAddr,
        stride: usize,
        bytes: &[u8],
    ) {
        let arrival = arrival(from, stride, bytes);
        let verdict = self.server.handle_peer(self.now, port, &arrival);
        assert!(matches!(verdict, Verdict::Forward(_) | Verdict::Drop(_)));
        self.verdict(verdict, &arrival, Some(port));
        assert!(
            self.server.poll_transmit().is_none(),
            "peers get no answers"
        );
    }

    /// Data goes where a channel leads, and nowhere else.
    fn verdict(&mut self, verdict: Verdict, arrival: &Arrival<'_>, port: Option<AllocationPort>) {
        let Verdict::Forward(forward) = verdict else {
            return;
        };
        assert_eq!(forward.ecn, arrival.ecn);
        let payloads: Vec<&[u8]> = forward.payloads(arrival).collect();
        let (last, others) = payloads.split_last().expect("a verdict is on something");
        assert!(
            others
                .iter()
                .all(|payload| payload.len() == forward.segment_size)
        );
        assert!(last.len() <= forward.segment_size);
        assert_eq!(payloads.len(), arrival.datagrams().count().max(1));
        assert_eq!(forward.header(last).is_some(), forward.channel.is_some());

        match forward.via {
            Via::Allocation(port, family) => {
                assert!(self.open.contains(&(port, family)), "{port:?} is not open");
                assert_eq!(Family::of(forward.to), family);
                assert!(
                    self.bound.iter().any(|(client, number, peer)| {
                        let is_it = channel::decode(arrival.bytes)
                            .is_some_and(|(read, _)| read.number() == *number);
                        *client == arrival.from && *peer == forward.to && is_it
                    }),
                    "no channel leads there"
                );
                let ip = forward.to.ip();
                assert!(!ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast());
                assert_ne!(forward.to, addr(PUBLIC_V4));
            }
            Via::Listen(family) => {
                assert_eq!(Family::of(forward.to), family);
                let number = forward.channel.expect("clients get channel data").number();
                let is_bound = self.bound.iter().any(|(client, bound, peer)| {
                    let from_peer = port.is_none() || *peer == arrival.from;
                    *client == forward.to && *bound == number && from_peer
                });
                assert!(is_bound, "its client bound no such channel");
            }
        }
    }

    /// Takes the answers to what arrived.
    fn answers(&mut self, arrival: &Arrival<'_>) {
        let mut count = 0;
        while let Some(transmit) = self.server.poll_transmit() {
            count += 1;
            assert_eq!(transmit.segments(), 1);
            let answer = Message::parse(&transmit.payload).expect("answers are STUN");
            assert!(matches!(answer.class(), Class::Success | Class::Error));
            assert_eq!(
                answer.class() == Class::Error,
                answer.error_code().is_some()
            );
            self.answered(transmit.route.dst, &answer);
        }
        // Another's ports may be opened or fail meanwhile, but not in this scene: that has a step of its own.
        assert!(count <= arrival.datagrams().count());
    }

    fn answered(&mut self, to: SocketAddr, answer: &Message<'_>) {
        if to == addr(STRANGER) {
            self.answers_to_stranger += 1;
            let earned = (self.now - self.start).as_secs_f64() * f64::from(LIMITS.unproven_per_sec);
            let most = f64::from(LIMITS.unproven_burst) + earned + 1.0;
            assert!(
                f64::from(self.answers_to_stranger) <= most,
                "too many answers"
            );
            assert!(answer.class() == Class::Error || answer.method() == Method::Binding);
        }
        if let Some(nonce) = answer.nonce() {
            self.nonces.insert(to, nonce.to_owned());
        }
        let Some(asked) = self.asked.remove(&answer.transaction_id()) else {
            return;
        };
        assert_eq!((asked.from, asked.method), (to, answer.method()));
        if answer.class() == Class::Success && asked.method == Method::ChannelBind {
            let (number, peer) = asked.channel;
            self.bound.insert((to, number, peer));
        }
        for relayed in answer.relayed_addresses() {
            let port = AllocationPort(relayed.port());
            assert!(
                self.open.contains(&(port, Family::of(relayed))),
                "{relayed}"
            );
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.server.handle_timeout(self.now);
        self.take_commands();
        if let Some((at, reason)) = self.server.poll_timeout() {
            assert!(at > self.now, "{reason:?} is still due");
        }
    }

    fn take_commands(&mut self) {
        while let Some(command) = self.server.poll_command() {
            self.commands.push(command);
            match command {
                Command::ClosePort { port, family } => {
                    self.open.remove(&(port, family));
                }
                Command::OpenPort { port, family } => {
                    let is_new = !self.open.contains(&(port, family));
                    assert!(is_new, "{port:?} is open already");
                    let ports = FIRST_PORT..FIRST_PORT + PORTS;
                    assert!(ports.contains(&port.0));
                    // Each is carried out before the next one is taken.
                    return;
                }
            }
        }
    }

    /// Opens the port that is waited for, or fails to.
    fn carry_out(&mut self, how: u8) {
        let Some(Command::OpenPort { port, family }) = self.commands.pop() else {
            return;
        };
        if how.is_multiple_of(4) {
            self.server.handle_port_failed(self.now, port, family);
        } else {
            self.open.insert((port, family));
            self.server.handle_port_opened(self.now, port, family);
        }
        while let Some(transmit) = self.server.poll_transmit() {
            let answer = Message::parse(&transmit.payload).expect("answers are STUN");
            self.answered(transmit.route.dst, &answer);
        }
        self.take_commands();
    }

    /// What holds after each step. A port that waits to be opened is opened now, in most cases.
    fn check(&mut self) {
        self.take_commands();
        while matches!(self.commands.last(), Some(Command::OpenPort { .. })) {
            let how = u8::try_from(self.transactions % 8).unwrap();
            self.carry_out(how);
        }
        let stats = self.server.stats();
        assert!(stats.allocations <= LIMITS.allocations);
        assert!(stats.channels <= LIMITS.allocations * LIMITS.channels_per_allocation);
        assert!(self.open.len() <= 2 * usize::from(PORTS));
    }

    fn ends(&mut self) {
        self.pass(Duration::from_secs(3_600));
        self.check();
        self.pass(Duration::from_secs(3_600));
        assert_eq!(self.server.stats().allocations, 0);
        assert_eq!(self.server.stats().channels, 0);
        assert!(self.open.is_empty(), "{:?}", self.open);
        assert_eq!(self.server.poll_timeout(), None);
    }
}

fn credentials(salt: &str) -> (String, Key) {
    let expiry = 2_145_916_800;
    let name = format!("{expiry}:{salt}");
    let password = relay_password(expiry, salt, &Secret::from(SECRET));
    let key = Key::long_term(&name, REALM, &password);

    (name, key)
}

fn client(choices: &mut Choices<'_>) -> SocketAddr {
    addr(choices.one_of(&CLIENTS))
}

fn peer(choices: &mut Choices<'_>) -> SocketAddr {
    addr(choices.one_of(&PEERS))
}

/// What arrives at the address that a client talks to.
pub(crate) fn arrival(from: SocketAddr, stride: usize, bytes: &[u8]) -> Arrival<'_> {
    Arrival {
        from,
        to: server_of(from),
        ecn: Ecn::NotEct,
        stride,
        bytes,
    }
}

/// The address that a client talks to.
pub(crate) fn server_of(client: SocketAddr) -> SocketAddr {
    match client.ip() {
        IpAddr::V4(_) => addr(PUBLIC_V4),
        IpAddr::V6(_) => addr(PUBLIC_V6),
    }
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

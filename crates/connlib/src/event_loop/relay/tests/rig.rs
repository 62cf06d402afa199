//! A relay's outside, and clients that know how to ask.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_os::fake::{FakeTrain, FakeUdp};
use connlib_os::udp::Udp;
use connlib_relay::{
    AllocationPort, Config, Credentials, LoopbackPeers, PrivatePeers, REALM, Server, Via,
};
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{
    Attribute, Builder, Class, Family, Key, Message, Method, TRANSPORT_UDP, TransactionId,
    relay_password,
};

use super::super::super::{Ready, Watched};
use super::super::{RelayIo, RelayLoop, Wait};

const SECRET: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const PUBLIC_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const EXPIRY: u64 = 2_145_916_800;
const CHANNEL: u16 = 0x4000;

/// The user of a relay that stands alone, and its password: `printf 2145916800:a | openssl dgst -sha1 -hmac SECRET -binary |
/// base64`.
const REST_USER: &str = "2145916800:a";
const REST_PASSWORD: &str = "/hLxx+dzqHqhd3nKTWnjpkW2tkE=";

pub(super) fn client(number: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, number], 50_000))
}

pub(super) fn peer(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 40_404))
}

pub(super) fn channel_data(payload: &[u8]) -> Vec<u8> {
    let [high, low] = CHANNEL.to_be_bytes();
    let [long, short] = (payload.len() as u16).to_be_bytes();

    [&[high, low, long, short], payload].concat()
}

#[derive(Debug)]
pub(super) struct TestIo {
    pub(super) sockets: BTreeMap<Via, Watched<FakeUdp>>,
    pub(super) ready: VecDeque<Via>,
    pub(super) can_open: bool,
    /// How much later it is each time somebody asks.
    pub(super) tick: Duration,
    elapsed: Cell<Duration>,
    /// How long it takes to receive a train from a listen socket, and how many had arrived when the turn began.
    pub(super) per_train: Duration,
    arrived: usize,
}

impl TestIo {
    fn arrived(&self) -> usize {
        let socket = self.sockets.get(&Via::Listen(Family::V4));

        socket.map_or(0, |socket| socket.device.inbox.len())
    }

    pub(super) fn listen(&mut self) -> &mut FakeUdp {
        &mut self
            .sockets
            .get_mut(&Via::Listen(Family::V4))
            .unwrap()
            .device
    }

    pub(super) fn allocation(&mut self, port: AllocationPort) -> &mut FakeUdp {
        let via = Via::Allocation(port, Family::V4);
        &mut self.sockets.get_mut(&via).unwrap().device
    }

    pub(super) fn make_ready(&mut self) {
        for (via, socket) in &mut self.sockets {
            socket.ready = Ready::BOTH;
            self.ready.push_back(*via);
        }
    }
}

impl RelayIo for TestIo {
    type Udp = FakeUdp;

    fn socket(&mut self, via: Via) -> Option<&mut Watched<FakeUdp>> {
        self.sockets.get_mut(&via)
    }

    fn open(&mut self, port: AllocationPort, family: Family) -> io::Result<()> {
        if !self.can_open {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let via = Via::Allocation(port, family);
        let socket = FakeUdp::new(SocketAddr::from((PUBLIC, port.0)));
        self.sockets.insert(via, Watched::new(socket));
        self.ready.push_back(via);

        Ok(())
    }

    fn close(&mut self, port: AllocationPort, family: Family) {
        self.sockets.remove(&Via::Allocation(port, family));
    }

    fn next_ready(&mut self) -> Option<Via> {
        self.ready.pop_front()
    }

    fn unix(&self) -> Duration {
        Duration::from_secs(1_700_000_000)
    }

    fn elapsed(&self) -> Duration {
        self.elapsed.set(self.elapsed.get() + self.tick);
        let received = self.arrived.saturating_sub(self.arrived());
        let received = u32::try_from(received).unwrap_or(u32::MAX);

        self.elapsed.get() + self.per_train * received
    }
}

pub(super) struct Rig {
    pub(super) relay_loop: RelayLoop,
    pub(super) io: TestIo,
    pub(super) now: Instant,
    pool: Pool,
    scheme: Scheme,
    transactions: u8,
}

/// Who made the credentials.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scheme {
    Portal,
    Rest,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(Scheme::Portal)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test has to begin at some time"
    )]
    pub(super) fn with(scheme: Scheme) -> Self {
        let secret = Secret::from(SECRET);
        let config = Config {
            public_v4: Some(PUBLIC),
            public_v6: Some(PUBLIC_V6),
            listen_port: 3478,
            ports: 49_152..=65_535,
            credentials: match scheme {
                Scheme::Portal => Credentials::Stamped(secret),
                Scheme::Rest => Credentials::Rest(secret),
            },
            loopback_peers: LoopbackPeers::Refused,
            private_peers: PrivatePeers::Allowed,
        };
        let pool = Pool::new(2_048, 16);
        let listen = FakeUdp::new(SocketAddr::from((PUBLIC, 3478)));
        let listen_v6 = FakeUdp::new(SocketAddr::from((PUBLIC_V6, 3478)));

        Self {
            relay_loop: RelayLoop::new(Server::new(config, [7; 32], pool.clone()), 7),
            io: TestIo {
                sockets: [
                    (Via::Listen(Family::V4), Watched::new(listen)),
                    (Via::Listen(Family::V6), Watched::new(listen_v6)),
                ]
                .into(),
                ready: VecDeque::new(),
                can_open: true,
                tick: Duration::ZERO,
                elapsed: Cell::new(Duration::ZERO),
                per_train: Duration::ZERO,
                arrived: 0,
            },
            now: Instant::now(),
            pool,
            scheme,
            transactions: 0,
        }
    }

    pub(super) fn turn(&mut self) -> Wait {
        let mut wait = self.turn_with_errors();
        let errors: Vec<_> = wait.errors.drain().collect();
        assert!(errors.is_empty(), "{errors:?}");

        wait
    }

    pub(super) fn turn_with_errors(&mut self) -> Wait {
        self.io.elapsed.set(Duration::ZERO);
        self.io.arrived = self.io.arrived();

        self.relay_loop.turn(self.now, &mut self.io)
    }

    pub(super) fn say(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.say_train(from, 0, datagram);
    }

    pub(super) fn say_train(&mut self, from: SocketAddr, stride: usize, bytes: &[u8]) {
        let via = Via::Listen(Family::V4);
        self.arrive(via, from, stride, bytes);
    }

    pub(super) fn say_to(
        &mut self,
        port: AllocationPort,
        from: SocketAddr,
        stride: usize,
        bytes: &[u8],
    ) {
        let via = Via::Allocation(port, Family::V4);
        self.arrive(via, from, stride, bytes);
    }

    pub(super) fn arrive(&mut self, via: Via, from: SocketAddr, stride: usize, bytes: &[u8]) {
        let socket = self.io.sockets.get_mut(&via).unwrap();
        socket.device.inbox.push_back(FakeTrain {
            from,
            to: socket.device.local_addr(),
            ecn: Ecn::NotEct,
            stride,
            bytes: bytes.to_vec(),
        });
        socket.ready.readable = true;
        self.io.ready.push_back(via);
    }

    /// Makes an allocation and binds a channel to `peer`.
    pub(super) fn connect(&mut self, client: SocketAddr, peer: SocketAddr) -> AllocationPort {
        let nonce = self.nonce(client);
        let request = self.allocate(client, &nonce);
        let answer = self.ask(client, &request);
        let relayed = Message::parse(&answer).unwrap().relayed_addresses().next();
        let port = AllocationPort(relayed.unwrap().port());

        let attributes = [
            Attribute::ChannelNumber(CHANNEL),
            Attribute::XorPeerAddress(peer),
        ];
        let request = self.request(client, Method::ChannelBind, &attributes, &nonce);
        let answer = self.ask(client, &request);
        assert_eq!(Message::parse(&answer).unwrap().class(), Class::Success);

        port
    }

    /// Lets `peer` send to the client in Data indications.
    pub(super) fn permit(&mut self, client: SocketAddr, peer: SocketAddr) {
        let nonce = self.nonce(client);
        let attributes = [Attribute::XorPeerAddress(peer)];
        let request = self.request(client, Method::CreatePermission, &attributes, &nonce);
        let answer = self.ask(client, &request);
        assert_eq!(Message::parse(&answer).unwrap().class(), Class::Success);
    }

    pub(super) fn send_indication(&mut self, peer: SocketAddr, data: &[u8]) -> Vec<u8> {
        self.transactions += 1;
        let id = TransactionId([self.transactions; 12]);

        Builder::new(self.pool.take(0), Method::Send, Class::Indication, id)
            .attribute(Attribute::XorPeerAddress(peer))
            .attribute(Attribute::Data(data))
            .finish()
            .unwrap()
            .to_vec()
    }

    pub(super) fn nonce(&mut self, client: SocketAddr) -> String {
        let transport = Attribute::RequestedTransport(TRANSPORT_UDP);
        let request = self.builder(Method::Allocate).attribute(transport);
        let request = request.finish().unwrap();
        let answer = self.ask(client, &request);

        Message::parse(&answer).unwrap().nonce().unwrap().to_owned()
    }

    pub(super) fn allocate(&mut self, client: SocketAddr, nonce: &str) -> Vec<u8> {
        let transport = Attribute::RequestedTransport(TRANSPORT_UDP);

        self.request(client, Method::Allocate, &[transport], nonce)
    }

    pub(super) fn ask(&mut self, client: SocketAddr, request: &[u8]) -> Vec<u8> {
        self.say(client, request);
        let _ = self.turn();
        let answer = self.io.listen().sent.pop_back().unwrap();
        assert_eq!(answer.route.dst, client);

        answer.payload
    }

    pub(super) fn bare(&mut self, method: Method) -> Vec<u8> {
        self.builder(method).finish().unwrap().to_vec()
    }

    pub(super) fn request(
        &mut self,
        client: SocketAddr,
        method: Method,
        attributes: &[Attribute<'_>],
        nonce: &str,
    ) -> Vec<u8> {
        let (name, password) = match self.scheme {
            // Another user each, because a user has one allocation.
            Scheme::Portal => {
                let salt = client.ip().to_string();
                let password = relay_password(EXPIRY, &salt, &Secret::from(SECRET));
                (format!("{EXPIRY}:{salt}"), password)
            }
            Scheme::Rest => (REST_USER.to_owned(), Secret::from(REST_PASSWORD)),
        };
        let key = Key::long_term(&name, REALM, &password);
        let mut builder = self.builder(method);
        for attribute in attributes {
            builder = builder.attribute(*attribute);
        }

        builder
            .attribute(Attribute::Username(&name))
            .attribute(Attribute::Realm(REALM))
            .attribute(Attribute::Nonce(nonce))
            .integrity(key.expose())
            .finish()
            .unwrap()
            .to_vec()
    }

    pub(super) fn builder(&mut self, method: Method) -> Builder {
        self.transactions += 1;
        let id = TransactionId([self.transactions; 12]);

        Builder::new(self.pool.take(0), method, Class::Request, id)
    }
}

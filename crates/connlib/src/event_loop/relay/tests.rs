use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use connlib_os::fake::{FakeTrain, FakeUdp};
use connlib_relay::{Config, Credentials, LoopbackPeers, REALM};
use connlib_wire::ecn::Ecn;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{
    Attribute, Builder, Class, Key, Message, Method, TRANSPORT_UDP, TransactionId, relay_password,
};

use super::super::{Ready, Watched};
use super::*;

const SECRET: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const EXPIRY: u64 = 2_145_916_800;
const CHANNEL: u16 = 0x4000;

#[test]
fn data_goes_both_ways_through_a_channel() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));

    rig.say(client(1), &channel_data(b"hello"));
    let _ = rig.turn();
    let sent = &rig.io.allocation(port).sent;
    assert_eq!(sent[0].route.dst, peer(1));
    assert_eq!(sent[0].payload, b"hello");

    rig.say_to(port, peer(1), 0, b"hi");
    let _ = rig.turn();
    let sent = &rig.io.listen().sent;
    assert_eq!(sent[0].route.dst, client(1));
    assert_eq!(sent[0].payload, channel_data(b"hi"));
}

#[test]
fn a_train_stays_a_train_and_splits_where_it_outgrows_udp() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));

    // 49 datagrams of 1,334 bytes fill a train; with headers 48 of them do.
    let bytes: Vec<_> = (0..49u8).flat_map(|number| vec![number; 1_334]).collect();
    rig.say_to(port, peer(1), 1_334, &bytes);
    let _ = rig.turn();
    let trains: Vec<_> = rig.io.listen().sent.drain(..).collect();
    let lens: Vec<_> = trains
        .iter()
        .map(|train| train.datagrams().count())
        .collect();
    assert_eq!(lens, [48, 1]);
    let datagrams = trains.iter().flat_map(|train| train.datagrams());
    for (number, datagram) in datagrams.enumerate() {
        assert_eq!(datagram, channel_data(&[number as u8; 1_334]));
    }

    let train: Vec<_> = (0..20u8)
        .flat_map(|number| channel_data(&[number; 100]))
        .collect();
    rig.say_train(client(1), 104, &train);
    let _ = rig.turn();
    let sent = &rig.io.allocation(port).sent;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].segment_size, 100);
    assert_eq!(sent[0].datagrams().count(), 20);
}

#[test]
fn a_mixed_train_is_taken_apart() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));

    let mut train = channel_data(b"0123456789abcdef");
    train.extend_from_slice(&rig.bare(Method::Binding));
    train.extend_from_slice(&channel_data(b"last"));
    rig.say_train(client(1), 20, &train);
    let _ = rig.turn();

    let payloads = rig.io.allocation(port).sent.iter();
    let payloads: Vec<_> = payloads.map(|train| train.payload.clone()).collect();
    assert_eq!(payloads, [&b"0123456789abcdef"[..], b"last"]);
    let answer = &rig.io.listen().sent[0].payload;
    assert_eq!(
        Message::parse(answer).unwrap().mapped_address(),
        Some(client(1))
    );
}

#[test]
fn a_full_allocation_holds_up_nobody_else_and_keeps_its_order() {
    let mut rig = Rig::new();
    let stuck = rig.connect(client(1), peer(1));
    let other = rig.connect(client(2), peer(2));
    rig.io.allocation(stuck).limit_queue(0);

    for number in 0..10 {
        rig.say(client(1), &channel_data(&[number]));
        rig.say(client(2), &channel_data(&[number]));
    }
    let wait = rig.turn();
    assert_eq!(rig.io.allocation(other).queued(), 10);
    assert_ne!(wait.until, Some(rig.now), "nothing can be done now");

    rig.io.allocation(stuck).limit_queue(usize::MAX);
    rig.io.make_ready();
    let _ = rig.turn();
    let sent = rig
        .io
        .allocation(stuck)
        .sent
        .iter()
        .flat_map(|train| train.payload.clone());
    assert_eq!(sent.collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[test]
fn what_waits_for_a_socket_is_bounded() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));
    rig.io.allocation(port).limit_queue(0);

    let all = 4 * MAX_ALLOCATION_WAITING / 1_000;
    for _ in 0..all {
        rig.say(client(1), &channel_data(&[7; 1_000]));
    }
    while !rig.io.listen().inbox.is_empty() {
        let _ = rig.turn();
    }
    let dropped = rig.relay_loop.stats().dropped(DropReason::SocketFull);
    assert!(dropped > 0);

    rig.io.allocation(port).limit_queue(usize::MAX);
    rig.io.make_ready();
    let _ = rig.turn();
    assert_eq!(
        rig.io.allocation(port).queued() as u64 + dropped,
        all as u64
    );
}

#[test]
fn a_saturated_listen_port_starves_no_allocation_and_the_other_way_round() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));
    let quiet = rig.connect(client(2), peer(2));
    for _ in 0..5_000 {
        rig.say(client(1), &channel_data(b"x"));
        rig.say_to(port, peer(1), 0, b"y");
    }
    rig.say_to(quiet, peer(2), 0, b"z");

    let wait = rig.turn();

    assert!(rig.io.allocation(port).queued() > 0);
    let to = |to| move |train: &&connlib_os::fake::SentTrain| train.route.dst == to;
    assert!(rig.io.listen().sent.iter().filter(to(client(1))).count() > 0);
    assert_eq!(rig.io.listen().sent.iter().filter(to(client(2))).count(), 1);
    assert_eq!(wait.until, Some(rig.now), "more waits");
}

#[test]
fn a_failed_receive_costs_nothing_and_a_lost_allocation_ends() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    rig.io.allocation(port).fail_recv(0, refused());
    rig.io.listen().fail_recv(0, refused());
    rig.say(client(1), &channel_data(b"x"));
    rig.say_to(port, peer(1), 0, b"y");

    let mut wait = rig.turn_with_errors();
    assert_eq!(wait.errors.drain().count(), 2);
    assert_eq!(rig.io.allocation(port).queued(), 1);
    assert_eq!(rig.io.listen().queued(), 1);

    let lost = io::Error::from_raw_os_error(libc::EBADF);
    rig.io.allocation(port).fail_recv(0, lost);
    rig.say_to(port, peer(1), 0, b"z");
    let mut wait = rig.turn_with_errors();
    assert_eq!(wait.errors.drain().count(), 1);
    assert_eq!(rig.relay_loop.server().stats().allocations, 0);
    assert!(
        !rig.io
            .sockets
            .contains_key(&Via::Allocation(port, Family::V4))
    );
}

#[test]
fn a_port_that_can_not_be_opened_is_answered() {
    let mut rig = Rig::new();
    rig.io.can_open = false;
    let nonce = rig.nonce(client(1));
    let request = rig.allocate(client(1), &nonce);
    rig.say(client(1), &request);
    let _ = rig.turn();

    let answer = rig.io.listen().sent.pop_back().unwrap();
    assert_eq!(
        Message::parse(&answer.payload).unwrap().error_code(),
        Some(508)
    );
}

#[test]
fn ports_are_closed_when_their_time_is_over_and_that_deadline_is_told() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));

    let mut turns = 0;
    while rig
        .io
        .sockets
        .contains_key(&Via::Allocation(port, Family::V4))
    {
        rig.now = rig.turn().until.unwrap_or(rig.now);
        turns += 1;
        assert!(turns < 10, "it is driven by its deadlines alone");
    }
    assert_eq!(rig.turn().until, None);
}

fn client(number: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, number], 50_000))
}

fn peer(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 40_404))
}

fn channel_data(payload: &[u8]) -> Vec<u8> {
    let [high, low] = CHANNEL.to_be_bytes();
    let [long, short] = (payload.len() as u16).to_be_bytes();

    [&[high, low, long, short], payload].concat()
}

#[derive(Debug)]
struct TestIo {
    sockets: BTreeMap<Via, Watched<FakeUdp>>,
    ready: VecDeque<Via>,
    can_open: bool,
}

impl TestIo {
    fn listen(&mut self) -> &mut FakeUdp {
        &mut self
            .sockets
            .get_mut(&Via::Listen(Family::V4))
            .unwrap()
            .device
    }

    fn allocation(&mut self, port: AllocationPort) -> &mut FakeUdp {
        let via = Via::Allocation(port, Family::V4);
        &mut self.sockets.get_mut(&via).unwrap().device
    }

    fn make_ready(&mut self) {
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
        Duration::ZERO
    }
}

struct Rig {
    relay_loop: RelayLoop,
    io: TestIo,
    now: Instant,
    pool: Pool,
    transactions: u8,
}

impl Rig {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has to begin at some time"
    )]
    fn new() -> Self {
        let config = Config {
            public_v4: Some(PUBLIC),
            public_v6: None,
            listen_port: 3478,
            ports: 49_152..=65_535,
            credentials: Credentials::Stamped(Secret::from(SECRET)),
            loopback_peers: LoopbackPeers::Refused,
        };
        let pool = Pool::new(2_048, 16);
        let listen = FakeUdp::new(SocketAddr::from((PUBLIC, 3478)));

        Self {
            relay_loop: RelayLoop::new(Server::new(config, [7; 32], pool.clone())),
            io: TestIo {
                sockets: [(Via::Listen(Family::V4), Watched::new(listen))].into(),
                ready: VecDeque::new(),
                can_open: true,
            },
            now: Instant::now(),
            pool,
            transactions: 0,
        }
    }

    fn turn(&mut self) -> Wait {
        let mut wait = self.turn_with_errors();
        let errors: Vec<_> = wait.errors.drain().collect();
        assert!(errors.is_empty(), "{errors:?}");

        wait
    }

    fn turn_with_errors(&mut self) -> Wait {
        self.relay_loop.turn(self.now, &mut self.io)
    }

    fn say(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.say_train(from, 0, datagram);
    }

    fn say_train(&mut self, from: SocketAddr, stride: usize, bytes: &[u8]) {
        let via = Via::Listen(Family::V4);
        self.arrive(via, from, stride, bytes);
    }

    fn say_to(&mut self, port: AllocationPort, from: SocketAddr, stride: usize, bytes: &[u8]) {
        let via = Via::Allocation(port, Family::V4);
        self.arrive(via, from, stride, bytes);
    }

    fn arrive(&mut self, via: Via, from: SocketAddr, stride: usize, bytes: &[u8]) {
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
    fn connect(&mut self, client: SocketAddr, peer: SocketAddr) -> AllocationPort {
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

    fn nonce(&mut self, client: SocketAddr) -> String {
        let transport = Attribute::RequestedTransport(TRANSPORT_UDP);
        let request = self.builder(Method::Allocate).attribute(transport);
        let request = request.finish().unwrap();
        let answer = self.ask(client, &request);

        Message::parse(&answer).unwrap().nonce().unwrap().to_owned()
    }

    fn allocate(&mut self, client: SocketAddr, nonce: &str) -> Vec<u8> {
        let transport = Attribute::RequestedTransport(TRANSPORT_UDP);

        self.request(client, Method::Allocate, &[transport], nonce)
    }

    fn ask(&mut self, client: SocketAddr, request: &[u8]) -> Vec<u8> {
        self.say(client, request);
        let _ = self.turn();
        let answer = self.io.listen().sent.pop_back().unwrap();
        assert_eq!(answer.route.dst, client);

        answer.payload
    }

    fn bare(&mut self, method: Method) -> Vec<u8> {
        self.builder(method).finish().unwrap().to_vec()
    }

    fn request(
        &mut self,
        client: SocketAddr,
        method: Method,
        attributes: &[Attribute<'_>],
        nonce: &str,
    ) -> Vec<u8> {
        // Another user each, because a user has one allocation.
        let salt = client.ip().to_string();
        let name = format!("{EXPIRY}:{salt}");
        let password = relay_password(EXPIRY, &salt, &Secret::from(SECRET));
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

    fn builder(&mut self, method: Method) -> Builder {
        self.transactions += 1;
        let id = TransactionId([self.transactions; 12]);

        Builder::new(self.pool.take(0), method, Class::Request, id)
    }
}

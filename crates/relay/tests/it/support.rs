//! A driver without sockets, and clients that know their passwords.

mod ask;
mod users;

pub(crate) use ask::Ask;
pub(crate) use users::{User, rest_credentials, rest_user, rest_user_until, user, user_until};

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_relay::{
    AllocationPort, Command, Config, Credentials, DropReason, Forward, Limits, LoopbackPeers,
    PrivatePeers, REALM, Server, Verdict, Via,
};
use connlib_wire::buffer::Pool;
use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::ecn::Ecn;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Attribute, Builder, Class, Family, Message, Method, TransactionId};
use connlib_wire::train::Arrival;

pub(crate) const SECRET: &str = "1111111111111111111111111111111111111111111111111111111111111111";
pub(crate) const PUBLIC_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
pub(crate) const PUBLIC_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
pub(crate) const LISTEN_PORT: u16 = 3478;

/// When the tests take place, by the wall clock.
pub(crate) const UNIX: Duration = Duration::from_secs(1_700_000_000);

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn client(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n], 50_000))
}

pub(crate) fn client_v6(n: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 1, 0, 0, 0, 0, n], 50_000))
}

pub(crate) fn peer(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 40_404))
}

pub(crate) fn peer_v6(n: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 2, 0, 0, 0, 0, n], 40_404))
}

pub(crate) fn number(number: u16) -> ChannelNumber {
    ChannelNumber::new(number).unwrap()
}

/// A relay of its own, for clients that go by the standard.
pub(crate) fn standard() -> Config {
    Config {
        credentials: Credentials::Rest(Secret::from(SECRET)),
        ..config()
    }
}

pub(crate) fn config() -> Config {
    Config {
        public_v4: Some(PUBLIC_V4),
        public_v6: Some(PUBLIC_V6),
        listen_port: LISTEN_PORT,
        ports: 49_152..=65_535,
        credentials: Credentials::Stamped(Secret::from(SECRET)),
        loopback_peers: LoopbackPeers::Refused,
        private_peers: PrivatePeers::Allowed,
    }
}

/// What the server said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) from: Option<SocketAddr>,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    pub(crate) fn is_success(&self) -> bool {
        self.message().class() == Class::Success
    }

    pub(crate) fn code(&self) -> Option<u16> {
        self.message().error_code()
    }

    pub(crate) fn is_signed_for(&self, user: &User) -> bool {
        self.message().verify(user.key.expose())
    }

    pub(crate) fn nonce(&self) -> String {
        self.message().nonce().unwrap().to_owned()
    }

    pub(crate) fn lifetime(&self) -> Duration {
        self.message().lifetime().unwrap()
    }

    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        self.message().relayed_addresses().collect()
    }

    pub(crate) fn port(&self) -> AllocationPort {
        AllocationPort(self.relayed()[0].port())
    }
}

/// Data that had to be copied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Relayed {
    pub(crate) via: Via,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) to: SocketAddr,
    pub(crate) ecn: Ecn,
    pub(crate) bytes: Vec<u8>,
}

impl Relayed {
    /// The sender and the payload of a Data indication.
    pub(crate) fn data(&self) -> (SocketAddr, &[u8]) {
        let message = Message::parse(&self.bytes).unwrap();
        assert_eq!(
            (message.method(), message.class()),
            (Method::Data, Class::Indication)
        );
        assert!(!message.has_integrity() && !message.has_integrity_sha256());

        (message.peer_address().unwrap(), message.data().unwrap())
    }
}

/// Whether sockets can be bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Binding {
    Works,
    Fails,
    FailsFor(Family),
    /// Nobody reports anything.
    NeverEnds,
}

pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) now: Instant,
    pub(crate) unix: Duration,
    pub(crate) pool: Pool,
    pub(crate) binding: Binding,
    /// The sockets that the server had us open.
    pub(crate) open: BTreeSet<(AllocationPort, Family)>,
    pub(crate) commands: Vec<Command>,
    nonces: BTreeMap<SocketAddr, String>,
    transactions: u64,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::limited(config, Limits::default())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "virtual time has to begin somewhere"
    )]
    pub(crate) fn limited(config: Config, limits: Limits) -> Self {
        let pool = Pool::new(2_048, 16);

        Self {
            server: Server::new(config, [7; 32], pool.clone()).with_limits(limits),
            now: Instant::now(),
            unix: UNIX,
            pool,
            binding: Binding::Works,
            open: BTreeSet::new(),
            commands: Vec::new(),
            nonces: BTreeMap::new(),
            transactions: 0,
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.unix += time;
        self.server.handle_timeout(self.now);
        self.carry_out_commands();
    }

    /// The time until the next deadline, with everything polled.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let (at, _) = self.server.poll_timeout()?;

        Some(at.duration_since(self.now))
    }

    pub(crate) fn arrival<'a>(&self, from: SocketAddr, bytes: &'a [u8]) -> Arrival<'a> {
        let to = if from.is_ipv4() {
            SocketAddr::from((PUBLIC_V4, LISTEN_PORT))
        } else {
            SocketAddr::from((PUBLIC_V6, LISTEN_PORT))
        };

        Arrival {
            from,
            to,
            ecn: Ecn::NotEct,
            stride: 0,
            bytes,
        }
    }

    /// A datagram on the listen port.
    pub(crate) fn send(&mut self, from: SocketAddr, bytes: &[u8]) -> Verdict {
        self.send_train(from, 0, bytes)
    }

    pub(crate) fn send_train(&mut self, from: SocketAddr, stride: usize, bytes: &[u8]) -> Verdict {
        let arrival = Arrival {
            stride,
            ..self.arrival(from, bytes)
        };
        let verdict = self.server.handle_client(self.now, self.unix, &arrival);
        self.carry_out_commands();

        verdict
    }

    /// Data from a client: the verdict, once for every datagram.
    pub(crate) fn send_data(&mut self, from: SocketAddr, channel: u16, payload: &[u8]) -> Verdict {
        let mut datagram = channel::header(number(channel), payload.len())
            .unwrap()
            .to_vec();
        datagram.extend_from_slice(payload);

        self.send(from, &datagram)
    }

    /// A Send indication.
    pub(crate) fn send_to(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) -> Verdict {
        let indication = self.indication(&[Attribute::XorPeerAddress(to), Attribute::Data(data)]);

        self.send(from, &indication)
    }

    pub(crate) fn indication(&mut self, attributes: &[Attribute<'_>]) -> Vec<u8> {
        let id = self.transaction();
        let mut builder = Builder::new(self.pool.take(0), Method::Send, Class::Indication, id);
        for attribute in attributes {
            builder = builder.attribute(*attribute);
        }

        builder.finish().unwrap().to_vec()
    }

    /// What came or leaves in indications: the socket, from where if that matters, to whom, and what.
    pub(crate) fn relayed(&mut self) -> Vec<Relayed> {
        std::iter::from_fn(|| self.server.poll_relayed())
            .map(|(via, transmit)| Relayed {
                via,
                from: transmit.route.src,
                to: transmit.route.dst,
                ecn: transmit.route.ecn,
                bytes: transmit.payload.to_vec(),
            })
            .collect()
    }

    /// The client permits these peers.
    pub(crate) fn permit(
        &mut self,
        from: SocketAddr,
        user: &User,
        peers: &[SocketAddr],
    ) -> Option<u16> {
        self.ask(from, user, &Ask::create_permission(peers))
            .unwrap()
            .code()
    }

    /// Data from a peer.
    pub(crate) fn send_from_peer(
        &mut self,
        port: AllocationPort,
        from: SocketAddr,
        payload: &[u8],
    ) -> Verdict {
        let arrival = self.arrival(from, payload);

        self.server.handle_peer(self.now, port, &arrival)
    }

    pub(crate) fn answers(&mut self) -> Vec<Answer> {
        std::iter::from_fn(|| self.server.poll_transmit())
            .map(|transmit| Answer {
                from: transmit.route.src,
                to: transmit.route.dst,
                bytes: transmit.payload.to_vec(),
            })
            .collect()
    }

    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let mut answers = self.answers();
        assert!(answers.len() <= 1, "{answers:?}");

        answers.pop()
    }

    /// Sends a request and returns the answer; what a user gets must be signed for that user.
    pub(crate) fn ask(&mut self, from: SocketAddr, user: &User, ask: &Ask<'_>) -> Option<Answer> {
        let request = self.request(from, user, ask);
        assert_eq!(self.send(from, &request), Verdict::Handled);
        let answer = self.answer()?;
        let arrived_at = self.arrival(from, &[]).to;
        assert_eq!((answer.from, answer.to), (Some(arrived_at), from));
        assert!(answer.is_signed_for(user), "{answer:?}");

        Some(answer)
    }

    pub(crate) fn request(&mut self, from: SocketAddr, user: &User, ask: &Ask<'_>) -> Vec<u8> {
        let nonce = self.nonce(from);

        self.request_with(user, Some(&nonce), ask)
    }

    pub(crate) fn request_with(
        &mut self,
        user: &User,
        nonce: Option<&str>,
        ask: &Ask<'_>,
    ) -> Vec<u8> {
        let id = self.transaction();
        let mut builder = Builder::new(self.pool.take(0), ask.method, Class::Request, id);
        for attribute in &ask.attributes {
            builder = builder.attribute(*attribute);
        }

        builder
            .attribute(Attribute::Username(&user.name))
            .attribute(Attribute::Realm(REALM))
            .maybe(nonce.map(Attribute::Nonce))
            .integrity(user.key.expose())
            .finish()
            .unwrap()
            .to_vec()
    }

    /// A request of nobody.
    pub(crate) fn bare(&mut self, ask: &Ask<'_>) -> Vec<u8> {
        let id = self.transaction();
        let mut builder = Builder::new(self.pool.take(0), ask.method, Class::Request, id);
        for attribute in &ask.attributes {
            builder = builder.attribute(*attribute);
        }

        builder.finish().unwrap().to_vec()
    }

    /// The nonce that this socket got with its first contact.
    pub(crate) fn nonce(&mut self, from: SocketAddr) -> String {
        if let Some(nonce) = self.nonces.get(&from) {
            return nonce.clone();
        }

        let request = self.bare(&Ask::allocate());
        let _ = self.send(from, &request);
        let nonce = self.answer().unwrap().nonce();
        self.nonces.insert(from, nonce.clone());

        nonce
    }

    pub(crate) fn forget_nonces(&mut self) {
        self.nonces.clear();
    }

    /// Makes an allocation with both families.
    pub(crate) fn allocate(&mut self, from: SocketAddr, user: &User) -> AllocationPort {
        let answer = self.ask(from, user, &Ask::allocate().both()).unwrap();
        assert!(answer.is_success(), "{:?}", answer.code());

        answer.port()
    }

    pub(crate) fn bind(
        &mut self,
        from: SocketAddr,
        user: &User,
        channel: u16,
        peer: SocketAddr,
    ) -> Option<u16> {
        self.ask(from, user, &Ask::channel_bind(channel, peer))
            .unwrap()
            .code()
    }

    pub(crate) fn closed(&mut self) -> Vec<(u16, Family)> {
        std::mem::take(&mut self.commands)
            .into_iter()
            .filter_map(|command| match command {
                Command::OpenPort { .. } => None,
                Command::ClosePort { port, family } => Some((port.0, family)),
            })
            .collect()
    }

    pub(crate) fn transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());

        TransactionId(id)
    }

    pub(crate) fn carry_out_commands(&mut self) {
        while let Some(command) = self.server.poll_command() {
            self.commands.push(command);
            match command {
                Command::OpenPort { port, family } => self.open_port(port, family),
                Command::ClosePort { port, family } => {
                    assert!(
                        self.open.remove(&(port, family)) || self.binding != Binding::Works,
                        "closed {port} twice"
                    );
                }
            }
        }
    }

    fn open_port(&mut self, port: AllocationPort, family: Family) {
        let works = match self.binding {
            Binding::Works => true,
            Binding::Fails => false,
            Binding::FailsFor(broken) => family != broken,
            Binding::NeverEnds => return,
        };
        if works {
            assert!(self.open.insert((port, family)), "opened {port} twice");
            self.server.handle_port_opened(self.now, port, family);
        } else {
            self.server.handle_port_failed(self.now, port, family);
        }
    }
}

pub(crate) trait VerdictExt {
    fn forward(self) -> Forward;
    fn dropped(self) -> DropReason;
}

impl VerdictExt for Verdict {
    fn forward(self) -> Forward {
        match self {
            Self::Forward(forward) => forward,
            other @ (Self::Handled | Self::Drop(_) | Self::Mixed) => panic!("{other:?}"),
        }
    }

    fn dropped(self) -> DropReason {
        match self {
            Self::Drop(reason) => reason,
            other @ (Self::Handled | Self::Forward(_) | Self::Mixed) => panic!("{other:?}"),
        }
    }
}

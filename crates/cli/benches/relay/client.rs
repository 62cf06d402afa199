//! A TURN client: one socket, one allocation, one channel.

use std::net::SocketAddr;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};
use connlib_os::poll::{Interest, Poller, Token};
use connlib_os::random;
use connlib_os::udp::{
    MAX_TRAIN_BYTES, Outgoing, Payload, RecvBatch, Udp as _, UdpConfig, UdpSocket,
};
use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::channel::ChannelNumber;
use connlib_wire::ecn::Ecn;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{
    Attribute, Builder, Class, Key, Message, Method, TRANSPORT_UDP, TransactionId, rest_password,
};
use connlib_wire::train::Route;

use crate::server::{SECRET, SERVER};

/// The channel of every client.
pub(crate) const CHANNEL: ChannelNumber = ChannelNumber::MIN;

/// A request is repeated so often, each time after so long.
const ATTEMPTS: usize = 60;
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// Longer than any message here.
const MESSAGE: usize = 2_048;

/// What clients share that wait for one answer at a time.
pub(crate) struct Desk {
    pool: Pool,
    batch: RecvBatch,
}

pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    user: String,
    realm: String,
    nonce: String,
    key: Option<Key>,
    relayed: Option<SocketAddr>,
}

/// The code of an answer that is an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Refused(pub(crate) u16);

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            pool: Pool::new(MESSAGE, 64),
            batch: RecvBatch::new(Pool::new(MAX_TRAIN_BYTES, 1), 1),
        }
    }

    /// Sends a request until it is answered.
    fn ask(&mut self, socket: &mut UdpSocket, request: &[u8]) -> Vec<u8> {
        let id = Message::parse(request).unwrap().transaction_id();
        let (mut poller, mut events) = (Poller::new().unwrap(), Vec::new());
        poller.register(socket, Token(0), Interest::Read).unwrap();
        let clock = Clock::new();
        for _ in 0..ATTEMPTS {
            let until = clock.now() + REPEAT_AFTER;
            // Who isn't there yet may say so by an error (a port that is unreachable).
            let _ = send_one(socket, request);
            loop {
                let left = until.saturating_duration_since(clock.now());
                if left.is_zero() {
                    break;
                }
                poller.wait(Some(left), &mut events).unwrap();
                while socket.recv(&mut self.batch).is_ok() {
                    let datagrams = self
                        .batch
                        .arrivals()
                        .flat_map(|arrival| arrival.datagrams());
                    for datagram in datagrams {
                        let message = Message::parse(datagram);
                        if message.is_ok_and(|message| message.transaction_id() == id) {
                            return datagram.to_vec();
                        }
                    }
                }
            }
        }
        panic!("no answer from {SERVER}");
    }

    pub(crate) fn builder(&self, method: Method) -> Builder {
        Builder::new(self.pool.take(0), method, Class::Request, transaction())
    }
}

impl Client {
    /// A user's client that is at one of a place's addresses and has asked for nothing yet.
    pub(crate) fn bind(place: &Namespace, at: SocketAddr, user: &str) -> Self {
        let expiry = Clock::new().unix().as_secs() + 24 * 3_600;

        Self {
            socket: bind(place, at),
            user: format!("{expiry}:{user}"),
            realm: String::new(),
            nonce: String::new(),
            key: None,
            relayed: None,
        }
    }

    /// Learns realm and nonce from the refusal of a first request, and makes an allocation with a second one.
    pub(crate) fn allocate(&mut self, desk: &mut Desk) -> Result<(), Refused> {
        let transport = Attribute::RequestedTransport(TRANSPORT_UDP);
        let request = desk.builder(Method::Allocate).attribute(transport);
        let answer = desk.ask(&mut self.socket, &request.finish().unwrap());
        let answer = Message::parse(&answer).unwrap();
        assert_eq!(answer.error_code(), Some(401));
        self.realm = answer.realm().unwrap().to_owned();
        self.nonce = answer.nonce().unwrap().to_owned();
        let password = rest_password(&self.user, &Secret::from(SECRET));
        self.key = Some(Key::long_term(&self.user, &self.realm, &password));

        let request = self.signed(desk.builder(Method::Allocate).attribute(transport));
        let answer = desk.ask(&mut self.socket, &request);
        let answer = Message::parse(&answer).unwrap();
        granted(&answer)?;
        self.relayed = answer.relayed_addresses().next();

        Ok(())
    }

    /// Gives a peer the [channel](CHANNEL).
    pub(crate) fn bind_channel(&mut self, desk: &mut Desk, peer: SocketAddr) {
        let request = desk
            .builder(Method::ChannelBind)
            .attribute(Attribute::ChannelNumber(CHANNEL.number()))
            .attribute(Attribute::XorPeerAddress(peer));
        let request = self.signed(request);
        let answer = desk.ask(&mut self.socket, &request);
        granted(&Message::parse(&answer).unwrap()).unwrap();
    }

    /// Keeps the allocation, or gives it back.
    pub(crate) fn refresh(&mut self, desk: &mut Desk, lifetime: Duration) -> Result<(), Refused> {
        let request = self.refresh_request(desk, lifetime);
        let answer = desk.ask(&mut self.socket, &request);

        granted(&Message::parse(&answer).unwrap())
    }

    pub(crate) fn refresh_request(&self, desk: &Desk, lifetime: Duration) -> Buffer {
        self.signed(
            desk.builder(Method::Refresh)
                .attribute(Attribute::Lifetime(lifetime)),
        )
    }

    /// Where peers reach it.
    pub(crate) fn relayed(&self) -> SocketAddr {
        self.relayed.unwrap()
    }

    fn signed(&self, request: Builder) -> Buffer {
        let request = request
            .attribute(Attribute::Username(&self.user))
            .attribute(Attribute::Realm(&self.realm))
            .attribute(Attribute::Nonce(&self.nonce));

        request
            .integrity(self.key.as_ref().unwrap().expose())
            .finish()
            .unwrap()
    }
}

/// A socket in a namespace.
pub(crate) fn bind(place: &Namespace, at: SocketAddr) -> UdpSocket {
    run_in(place, || UdpSocket::bind(&UdpConfig::new(at)).unwrap()).unwrap()
}

/// Sends one datagram to the server.
pub(crate) fn send_one(socket: &mut UdpSocket, datagram: &[u8]) -> std::io::Result<usize> {
    socket.send(&[train_to(SERVER, datagram, datagram.len())])
}

/// A train that lies in one piece.
pub(crate) fn train_to(dst: SocketAddr, bytes: &[u8], segment_size: usize) -> Outgoing<'_> {
    Outgoing {
        route: Route {
            src: None,
            dst,
            ecn: Ecn::NotEct,
        },
        segment_size,
        payload: Payload::Contiguous(bytes),
        first: 0,
    }
}

fn transaction() -> TransactionId {
    let seed: [u8; 32] = random::seed().unwrap();

    TransactionId(*seed.first_chunk().unwrap())
}

fn granted(answer: &Message<'_>) -> Result<(), Refused> {
    match answer.class() {
        Class::Success => Ok(()),
        Class::Request | Class::Indication | Class::Error => {
            Err(Refused(answer.error_code().unwrap_or_default()))
        }
    }
}

//! Strangers who ask and have proved nothing.

use std::time::Duration;

use connlib_os::udp::{RecvBatch, Udp as _, UdpSocket};
use connlib_wire::stun::{Attribute, Class, Method, TRANSPORT_UDP};

use crate::client::{Desk, bind, train_to};
use crate::network::{self, Network, STRANGERS};
use crate::server::SERVER;

/// Requests a second.
const RATE: f64 = 100_000.0;

/// Ports of each address, where there are many.
const PORTS: u16 = 8;

/// The most requests between two looks at everything else.
const AT_ONCE: u64 = 512;

/// Requests of one sender that leave in one train.
const TRAIN: u64 = 64;

/// Where a transaction's id lies in a message.
const ID_AT: usize = 8;

/// What they send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    /// ALLOCATE without credentials.
    Allocate,
    Binding,
    /// A header of STUN in front of an attribute that is longer than the message.
    Garbage,
}

/// Who they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum From {
    /// One socket, in trains.
    OnePort,
    /// Many addresses with several ports each, datagram by datagram.
    ManyAddresses,
}

pub(crate) struct Flood {
    sockets: Vec<UdpSocket>,
    request: Vec<u8>,
    train: u64,
    next: usize,
    pub(crate) sent: u64,
    pub(crate) answers: u64,
    pub(crate) answered_bytes: u64,
    pub(crate) largest_answer: usize,
}

impl Flood {
    pub(crate) fn new(network: &Network, what: What, from: From) -> Self {
        let ports = match from {
            From::OnePort => vec![(network::stranger(0), 30_000)],
            From::ManyAddresses => (0..STRANGERS)
                .flat_map(|address| (0..PORTS).map(move |port| (address, port)))
                .map(|(address, port)| (network::stranger(address), 30_000 + port))
                .collect(),
        };
        let sockets = ports
            .into_iter()
            .map(|at| bind(&network.clients, at.into()));

        Self {
            sockets: sockets.collect(),
            request: what.request(),
            train: match from {
                From::OnePort => TRAIN,
                From::ManyAddresses => 1,
            },
            next: 0,
            sent: 0,
            answers: 0,
            answered_bytes: 0,
            largest_answer: 0,
        }
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sockets.iter()
    }

    pub(crate) fn request_len(&self) -> usize {
        self.request.len()
    }

    /// Sends what is due that long after the beginning.
    pub(crate) fn send(&mut self, elapsed: Duration) {
        let due = ((elapsed.as_secs_f64() * RATE) as u64).saturating_sub(self.sent);
        for _ in 0..due.min(AT_ONCE) / self.train {
            let requests = (0..self.train).flat_map(|number| {
                let mut request = self.request.clone();
                request[ID_AT..][..8].copy_from_slice(&(self.sent + number).to_be_bytes());
                request
            });
            let bytes: Vec<u8> = requests.collect();
            let train = train_to(SERVER, &bytes, self.request.len());
            let socket = &mut self.sockets[self.next];
            self.sent += socket.send(&[train]).unwrap_or_default() as u64;
            self.next = (self.next + 1) % self.sockets.len();
        }
    }

    /// Takes in what one of the sockets was sent; whether there may be more.
    pub(crate) fn receive(&mut self, number: usize, batch: &mut RecvBatch) -> bool {
        if self.sockets[number].recv(batch).is_err() {
            return false;
        }
        for answer in batch.arrivals().flat_map(|arrival| arrival.datagrams()) {
            self.answers += 1;
            self.answered_bytes += answer.len() as u64;
            self.largest_answer = self.largest_answer.max(answer.len());
        }

        true
    }
}

impl What {
    fn request(self) -> Vec<u8> {
        let desk = Desk::new();
        let request = match self {
            Self::Allocate => desk
                .builder(Method::Allocate)
                .attribute(Attribute::RequestedTransport(TRANSPORT_UDP)),
            Self::Binding => desk.builder(Method::Binding),
            Self::Garbage => desk
                .builder(Method::Allocate)
                .attribute(Attribute::Unknown(0x0006, &[0; 12])),
        };
        let mut request = request.finish().unwrap().to_vec();
        assert_eq!(
            Class::Request,
            connlib_wire::stun::Message::parse(&request)
                .unwrap()
                .class()
        );
        if self == Self::Garbage {
            request[22] = 0xFF;
        }

        request
    }
}

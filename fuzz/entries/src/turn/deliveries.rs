//! Data: what must leave for what came, and what did.

use std::net::SocketAddr;

use connlib_relay::{AllocationPort, Forward, Verdict, Via, runs};
use connlib_wire::channel;
use connlib_wire::stun::{Class, Family, Message, Method};
use connlib_wire::train::{Arrival, Transmit};

use super::Scene;
use super::law::{Held, Law};
use crate::relay::server_of;

/// A datagram that leaves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Delivery {
    via: Via,
    to: SocketAddr,
    what: What,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum What {
    /// Nothing but the data, for a peer.
    Bare(Vec<u8>),
    /// Under a channel's number, for a client.
    Channel(u16, Vec<u8>),
    /// In a Data indication that names the peer, for a client.
    Indication(SocketAddr, Vec<u8>),
}

/// Whether nothing else may come of a datagram, or nothing may come of it as well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Certainty {
    Exact,
    AtMost,
}

impl Law {
    /// What must become of data that a client sends, under a channel or in an indication.
    pub(super) fn of_client(&self, scene: &Scene, arrival: &Arrival<'_>) -> Vec<Delivery> {
        let Some(held) = self.held.get(&arrival.from) else {
            return Vec::new();
        };
        let of_datagram = |datagram| {
            let (peer, data) = if let Ok(message) = Message::parse(datagram) {
                let is_send =
                    (message.class(), message.method()) == (Class::Indication, Method::Send);
                let peer = message
                    .peer_address()
                    .filter(|peer| is_send && self.may_reach(*peer))?;
                (peer, message.data()?)
            } else {
                let (number, data) = channel::decode(datagram)?;
                (held.peer_of(scene.now, number.number())?, data)
            };

            self.to_peer(scene, held, peer, data)
        };

        arrival.datagrams().filter_map(of_datagram).collect()
    }

    fn to_peer(
        &self,
        scene: &Scene,
        held: &Held,
        peer: SocketAddr,
        data: &[u8],
    ) -> Option<Delivery> {
        if !held.permits(peer.ip()) {
            return None;
        }
        if !self.is_public(peer.ip()) {
            return Some(Delivery {
                via: Via::Allocation(AllocationPort(held.port), Family::of(peer)),
                to: peer,
                what: What::Bare(data.to_vec()),
            });
        }

        // Another client of this server: it sees the sender's allocation as its peer.
        let mut all = self.held.iter();
        let (client, other) = all.find(|(_, other)| other.port == peer.port())?;
        let seen_as = SocketAddr::new(peer.ip(), held.port);
        to_client(scene, *client, other, seen_as, data)
    }

    /// What must become of data that a peer sends to a port.
    pub(super) fn of_peer(
        &self,
        scene: &Scene,
        port: AllocationPort,
        arrival: &Arrival<'_>,
    ) -> Vec<Delivery> {
        let mut all = self.held.iter();
        let Some((client, held)) = all.find(|(_, held)| held.port == port.0) else {
            return Vec::new();
        };
        // Nobody can be answered there.
        if arrival.from.port() == 0 {
            return Vec::new();
        }
        let empty: Option<&[u8]> = arrival.bytes.is_empty().then_some(&[]);
        let datagrams = arrival.datagrams().chain(empty);

        datagrams
            .filter_map(|data| to_client(scene, *client, held, arrival.from, data))
            .collect()
    }
}

fn to_client(
    scene: &Scene,
    client: SocketAddr,
    held: &Held,
    peer: SocketAddr,
    data: &[u8],
) -> Option<Delivery> {
    if !held.permits(peer.ip()) {
        return None;
    }
    let what = match held.number_of(scene.now, peer) {
        Some(number) => What::Channel(number, data.to_vec()),
        None => What::Indication(peer, data.to_vec()),
    };

    Some(Delivery {
        via: Via::Listen(Family::of(client)),
        to: client,
        what,
    })
}

impl Scene {
    /// Something comes to the listen port: its data goes where it must, and its requests are answered at most once.
    pub(super) fn arrive(&mut self, from: SocketAddr, stride: usize, bytes: &[u8], how: Certainty) {
        let arrival = crate::relay::arrival(from, stride, bytes);
        let expected = self.law.of_client(self, &arrival);
        let unix = super::ask::unix(self.start, self.now);
        let mut left = Vec::new();
        match self.server.handle_client(self.now, unix, &arrival) {
            Verdict::Mixed => {
                let mut length = 0;
                for run in runs(&arrival) {
                    length += run.bytes.len();
                    let verdict = self.server.handle_client(self.now, unix, &run);
                    assert_ne!(verdict, Verdict::Mixed, "a run is never mixed");
                    self.take_data(verdict, &run, &mut left);
                }
                assert_eq!(length, bytes.len(), "runs are all there is");
            }
            verdict => self.take_data(verdict, &arrival, &mut left),
        }
        match how {
            Certainty::Exact => assert_eq!(left, expected),
            Certainty::AtMost => {
                let mut expected = expected.iter();
                let are_known = left.iter().all(|one| expected.any(|other| other == one));
                assert!(are_known, "{left:?}");
            }
        }
        self.answers(arrival.datagrams().count());
    }

    /// A peer says something to a port.
    pub(super) fn arrive_from_peer(
        &mut self,
        port: AllocationPort,
        from: SocketAddr,
        stride: usize,
        bytes: &[u8],
    ) {
        let is_open = self.open.contains(&(port, Family::of(from)));
        if !is_open {
            return;
        }
        let arrival = crate::relay::arrival(from, stride, bytes);
        let expected = self.law.of_peer(self, port, &arrival);
        let verdict = self.server.handle_peer(self.now, port, &arrival);
        assert_ne!(
            verdict,
            Verdict::Mixed,
            "peers' data isn't judged by channel"
        );
        let mut left = Vec::new();
        self.take_data(verdict, &arrival, &mut left);
        assert_eq!(left, expected);
        self.answers(0);
    }

    fn take_data(&mut self, verdict: Verdict, arrival: &Arrival<'_>, left: &mut Vec<Delivery>) {
        if let Verdict::Forward(forward) = verdict {
            assert!(self.server.poll_relayed().is_none(), "either is enough");
            left.extend(forwarded(&forward, arrival));
        }
        while let Some((via, transmit)) = self.server.poll_relayed() {
            assert_eq!(transmit.segments(), 1);
            left.push(relayed(via, &transmit));
        }
        for one in left {
            if let Via::Allocation(port, family) = one.via {
                assert!(self.open.contains(&(port, family)), "{port:?} is not open");
                assert_eq!(Family::of(one.to), family);
            }
        }
    }
}

fn forwarded(forward: &Forward, arrival: &Arrival<'_>) -> Vec<Delivery> {
    assert_eq!(forward.ecn, arrival.ecn);
    let payloads: Vec<&[u8]> = forward.payloads(arrival).collect();
    let (last, others) = payloads.split_last().expect("a verdict is on something");
    assert!(
        others
            .iter()
            .all(|payload| payload.len() == forward.segment_size)
    );
    assert!(last.len() <= forward.segment_size);
    if matches!(forward.via, Via::Listen(_)) {
        assert_eq!(forward.src, Some(server_of(forward.to)));
    }

    payloads
        .into_iter()
        .map(|payload| Delivery {
            via: forward.via,
            to: forward.to,
            what: match (forward.channel, forward.header(payload)) {
                (None, None) => What::Bare(payload.to_vec()),
                (Some(number), Some(_)) => What::Channel(number.number(), payload.to_vec()),
                (number, header) => panic!("{number:?} with {header:?}"),
            },
        })
        .collect()
}

fn relayed(via: Via, transmit: &Transmit) -> Delivery {
    let bytes = &transmit.payload;
    let what = match via {
        Via::Allocation(..) => What::Bare(bytes.to_vec()),
        Via::Listen(_) => {
            assert_eq!(transmit.route.src, Some(server_of(transmit.route.dst)));
            match channel::decode(bytes) {
                Some((number, payload)) => What::Channel(number.number(), payload.to_vec()),
                None => {
                    let message = Message::parse(bytes).expect("indications are STUN");
                    let kind = (message.class(), message.method());
                    assert_eq!(kind, (Class::Indication, Method::Data));
                    let peer = message.peer_address().expect("it names the peer");
                    What::Indication(peer, message.data().expect("it has data").to_vec())
                }
            }
        }
    };

    Delivery {
        via,
        to: transmit.route.dst,
        what,
    }
}

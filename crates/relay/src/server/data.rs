//! Data in both directions (relay.md §12; RFC 8656 §11, §12.6, §12.7).
//!
//! A train under one channel gets one verdict and stays where it is. Indications are the slow path: each is copied.

use std::net::SocketAddr;

use connlib_wire::buffer::Buffer;
use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::ecn::Ecn;
use connlib_wire::stun::{Attribute, Builder, Class, Family, Message, Method, TransactionId};
use connlib_wire::train::{Arrival, Route, Transmit};
use rand::RngExt as _;

use super::Server;
use crate::address::may_relay_to;
use crate::config::{AllocationPort, LoopbackPeers};
use crate::request::unknown_attributes;
use crate::stats::DropReason;
use crate::verdict::{Forward, Verdict, Via};

/// The most bytes that an indication adds to its data: header, XOR-PEER-ADDRESS of IPv6, DATA and its padding.
const INDICATION_OVERHEAD: usize = 20 + 24 + 4 + 3;

/// How data reaches a client of ours.
enum Reach {
    Channel(ChannelNumber),
    Indication,
}

impl Server {
    /// Judges a train under one channel.
    pub(super) fn forward_to_peer(
        &mut self,
        arrival: &Arrival<'_>,
        number: ChannelNumber,
        segment_size: usize,
    ) -> Verdict {
        let Some(allocation) = self.allocations.of_client(arrival.from) else {
            return self.drop_all(DropReason::NoAllocation, arrival);
        };
        let Some(peer) = allocation.channels.peer_of(number) else {
            return self.drop_all(DropReason::NoChannel, arrival);
        };
        let port = allocation.port;
        if self.conduct.is_standard() && !allocation.permissions.permit(peer.ip()) {
            return self.drop_all(DropReason::NoPermission, arrival);
        }

        let family = Family::of(peer);
        let mut forward = Forward {
            via: Via::Allocation(port, family),
            src: None,
            to: peer,
            ecn: arrival.ecn,
            strip: channel::HEADER_LEN,
            channel: None,
            segment_size,
        };
        let mut is_twin = false;

        // The peer may be an allocation of this very relay: then its client gets the data, as it would if the data had
        // left and come back, but no network has to bring our own address back to us.
        if self.config.public_ip(family) == Some(peer.ip()) {
            match self.reach(AllocationPort(peer.port()), (peer.ip(), port.0).into()) {
                Ok((twin, server, Reach::Channel(number))) => {
                    forward.via = Via::Listen(Family::of(twin));
                    forward.src = Some(server);
                    forward.to = twin;
                    forward.channel = Some(number);
                    is_twin = true;
                }
                Ok((_, _, Reach::Indication)) => return self.indicate_to_twin(arrival, port, peer),
                Err(DropReason::NoAllocation) => match self.at_sibling(peer) {
                    Some(there) => forward.to = there,
                    None if self.own_address_is_open() => {}
                    None => return self.drop_all(DropReason::ForbiddenPeer, arrival),
                },
                Err(reason) => return self.drop_all(reason, arrival),
            }
        }

        let count = arrival.datagrams().count();
        let last = arrival.datagrams().last().and_then(channel::decode);
        let last_len = last.map_or(0, |(_, payload)| payload.len());
        let traffic = if is_twin {
            &mut self.stats.between_clients
        } else {
            &mut self.stats.to_peers
        };
        traffic.add(count, segment_size * count.saturating_sub(1) + last_len);

        Verdict::Forward(forward)
    }

    /// Judges a train from a peer.
    pub(super) fn forward_to_client(
        &mut self,
        port: AllocationPort,
        arrival: &Arrival<'_>,
    ) -> Verdict {
        let (client, server, reach) = match self.reach(port, arrival.from) {
            Ok(found) => found,
            Err(reason) => return self.drop_all(reason, arrival),
        };
        let Reach::Channel(number) = reach else {
            for payload in arrival.datagrams() {
                let indicated = self.indicate(client, server, arrival.from, arrival.ecn, payload);
                match indicated {
                    Ok(()) => self.stats.indicated_to_clients.add(1, payload.len()),
                    Err(reason) => self.stats.count_dropped(reason, 1),
                }
            }
            return Verdict::Handled;
        };

        let forward = Forward {
            via: Via::Listen(Family::of(client)),
            src: Some(server),
            to: client,
            ecn: arrival.ecn,
            strip: 0,
            channel: Some(number),
            segment_size: match arrival.stride {
                0 => arrival.bytes.len(),
                stride => stride.min(arrival.bytes.len()),
            },
        };
        self.stats
            .to_clients
            .add(arrival.datagrams().count(), arrival.bytes.len());

        Verdict::Forward(forward)
    }

    /// Sends the data of a Send indication on (RFC 8656 §11.2). It is not authenticated; nobody hears if it is dropped.
    /// DONT-FRAGMENT asks for what all our sockets do.
    pub(super) fn handle_send(
        &mut self,
        arrival: &Arrival<'_>,
        message: &Message<'_>,
    ) -> Result<(), DropReason> {
        let (Some(peer), Some(data)) = (message.peer_address(), message.data()) else {
            return Err(DropReason::MalformedIndication);
        };
        if !unknown_attributes(message).is_empty() {
            return Err(DropReason::MalformedIndication);
        }
        let allocation = self
            .allocations
            .open_of_client(arrival.from)
            .ok_or(DropReason::NoAllocation)?;
        if !allocation.permissions.permit(peer.ip()) {
            return Err(DropReason::NoPermission);
        }
        let port = allocation.port;
        if !may_relay_to(peer, &self.config) {
            return Err(DropReason::ForbiddenPeer);
        }

        let mut dst = peer;
        if self.config.public_ip(Family::of(peer)) == Some(peer.ip()) {
            match self.send_to_twin(port, peer, arrival.ecn, data) {
                Err(DropReason::NoAllocation) => match self.at_sibling(peer) {
                    Some(there) => dst = there,
                    None if self.own_address_is_open() => {}
                    None => return Err(DropReason::ForbiddenPeer),
                },
                done => return done,
            }
        }

        let mut payload = self.buffer_for(data.len());
        let room = payload
            .extend(data.len())
            .ok_or(DropReason::AnswerTooLong)?;
        room.copy_from_slice(data);
        let route = Route {
            src: None,
            dst,
            ecn: arrival.ecn,
        };
        let via = Via::Allocation(port, Family::of(peer));
        self.relayed
            .push_back((via, Transmit::single(route, payload)));
        self.stats.sent_to_peers.add(1, data.len());

        Ok(())
    }

    /// The client behind a port, the address of ours that it talks to, and how data of a peer reaches it.
    fn reach(
        &self,
        port: AllocationPort,
        peer: SocketAddr,
    ) -> Result<(SocketAddr, SocketAddr, Reach), DropReason> {
        let allocation = self.allocations.at(port).ok_or(DropReason::NoAllocation)?;
        let is_standard = self.conduct.is_standard();
        if is_standard && !allocation.permissions.permit(peer.ip()) {
            return Err(DropReason::NoPermission);
        }
        let reach = match allocation.channels.number_of(peer) {
            Some(number) => Reach::Channel(number),
            None if is_standard => Reach::Indication,
            None => return Err(DropReason::NoChannel),
        };

        Ok((allocation.client, allocation.server, reach))
    }

    /// Whether data may go to ports at our own addresses that no allocation has.
    fn own_address_is_open(&self) -> bool {
        !self.conduct.is_standard() || self.config.loopback_peers == LoopbackPeers::Allowed
    }

    /// Gives channel data to a client of ours that permits its sender but has no channel for it.
    fn indicate_to_twin(
        &mut self,
        arrival: &Arrival<'_>,
        port: AllocationPort,
        peer: SocketAddr,
    ) -> Verdict {
        for (_, payload) in arrival.datagrams().filter_map(channel::decode) {
            if let Err(reason) = self.send_to_twin(port, peer, arrival.ecn, payload) {
                self.stats.count_dropped(reason, 1);
            }
        }

        Verdict::Handled
    }

    /// Gives one datagram to the client behind an allocation of this relay, as if it had left and come back.
    fn send_to_twin(
        &mut self,
        port: AllocationPort,
        peer: SocketAddr,
        ecn: Ecn,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let seen_as = (peer.ip(), port.0).into();
        let (client, server, reach) = self.reach(AllocationPort(peer.port()), seen_as)?;
        match reach {
            Reach::Indication => self.indicate(client, server, seen_as, ecn, payload)?,
            Reach::Channel(number) => {
                let header =
                    channel::header(number, payload.len()).ok_or(DropReason::AnswerTooLong)?;
                let mut datagram = self.buffer_for(header.len() + payload.len());
                for part in [&header, payload] {
                    let room = datagram
                        .extend(part.len())
                        .ok_or(DropReason::AnswerTooLong)?;
                    room.copy_from_slice(part);
                }
                self.give_to_client(client, server, ecn, datagram);
            }
        }
        self.stats.between_clients.add(1, payload.len());

        Ok(())
    }

    /// Writes a Data indication (RFC 8656 §11.3).
    fn indicate(
        &mut self,
        client: SocketAddr,
        server: SocketAddr,
        peer: SocketAddr,
        ecn: Ecn,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let buffer = self.buffer_for(payload.len() + INDICATION_OVERHEAD);
        let id = TransactionId(self.rng.random());
        let indication = Builder::new(buffer, Method::Data, Class::Indication, id)
            .attribute(Attribute::XorPeerAddress(peer))
            .attribute(Attribute::Data(payload))
            .finish()
            .map_err(|_| DropReason::AnswerTooLong)?;
        self.give_to_client(client, server, ecn, indication);

        Ok(())
    }

    fn give_to_client(
        &mut self,
        client: SocketAddr,
        server: SocketAddr,
        ecn: Ecn,
        datagram: Buffer,
    ) {
        let route = Route {
            src: Some(server),
            dst: client,
            ecn,
        };
        let via = Via::Listen(Family::of(client));
        self.relayed
            .push_back((via, Transmit::single(route, datagram)));
    }

    /// Most data fits where answers do; the rest is rare.
    fn buffer_for(&self, len: usize) -> Buffer {
        if len <= self.pool.buffer_size() {
            self.pool.take(0)
        } else {
            self.large.take(0)
        }
    }
}

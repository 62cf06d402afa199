//! Data in all its ways.

use std::net::SocketAddr;

use connlib_relay::{AllocationPort, DropReason, Verdict, Via};
use connlib_wire::stun::Family;

use super::ops::Target;
use super::{Allocation, World};
use crate::support::{PUBLIC_V4, PUBLIC_V6, secs};

/// What becomes of one datagram: through which socket to whom, under which channel or as an indication.
type Outcome = Result<(Via, SocketAddr, Option<Shape>), DropReason>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shape {
    Channel(u16),
    Indication(SocketAddr),
}

impl World {
    pub(super) fn send(&mut self, socket: usize, to: Target) {
        let to = self.resolve(to);
        let expected = match self.model.get(&socket) {
            None => Err(DropReason::NoAllocation),
            Some(it) if !it.permissions.contains_key(&to.ip()) => Err(DropReason::NoPermission),
            Some(it) => self.expected_from(it, to),
        };
        let verdict = self.rig.send_to(self.sockets[socket], to, b"payload");

        assert_eq!(self.outcome(verdict), expected);
    }

    pub(super) fn data(&mut self, socket: usize, number: u16) {
        let now = self.rig.now;
        let expected = match self.model.get(&socket) {
            None => Err(DropReason::NoAllocation),
            Some(it) => match it.channels.get(&number) {
                Some((to, at)) if now < *at + secs(600) => {
                    if it.permissions.contains_key(&to.ip()) {
                        self.expected_from(it, *to)
                    } else {
                        Err(DropReason::NoPermission)
                    }
                }
                Some(_) | None => Err(DropReason::NoChannel),
            },
        };
        let verdict = self.rig.send_data(self.sockets[socket], number, b"payload");

        assert_eq!(self.outcome(verdict), expected);
    }

    /// What becomes of permitted data of an allocation.
    fn expected_from(&self, from: &Allocation, to: SocketAddr) -> Outcome {
        if to.ip() != PUBLIC_V4 && to.ip() != PUBLIC_V6 {
            let port = AllocationPort(from.port);
            return Ok((Via::Allocation(port, Family::of(to)), to, None));
        }
        let twin = self.model.iter().find(|(_, twin)| twin.port == to.port());
        let (socket, _) = twin.ok_or(DropReason::ForbiddenPeer)?;

        self.expected_at(*socket, (to.ip(), from.port).into())
    }

    /// What becomes of data that reaches an allocation.
    fn expected_at(&self, socket: usize, from: SocketAddr) -> Outcome {
        let it = &self.model[&socket];
        if !it.permissions.contains_key(&from.ip()) {
            return Err(DropReason::NoPermission);
        }
        let shape = match it.channel_to(from, self.rig.now) {
            Some(number) => Shape::Channel(number),
            None => Shape::Indication(from),
        };
        let client = self.sockets[socket];

        Ok((Via::Listen(Family::of(client)), client, Some(shape)))
    }

    pub(super) fn peer_data(&mut self, socket: usize, from: Target) {
        let from = self.resolve(from);
        let Some(allocation) = self.model.get(&socket) else {
            return;
        };
        let port = AllocationPort(allocation.port);
        let expected = self.expected_at(socket, from);
        let verdict = self.rig.send_from_peer(port, from, b"payload");

        assert_eq!(self.outcome(verdict), expected);
    }

    /// What came of one datagram whose payload is "payload".
    fn outcome(&mut self, verdict: Verdict) -> Outcome {
        let before: u64 = DropReason::ALL
            .iter()
            .map(|reason| self.rig.server.stats().dropped(*reason))
            .sum();
        let relayed = self.rig.relayed();
        match verdict {
            Verdict::Drop(reason) => {
                assert_eq!(relayed, []);
                assert!(before > 0, "it is counted");
                Err(reason)
            }
            Verdict::Forward(forward) => {
                assert_eq!(relayed, []);
                let shape = forward
                    .channel
                    .map(|number| Shape::Channel(number.number()));
                Ok((forward.via, forward.to, shape))
            }
            Verdict::Mixed => panic!("one datagram is never mixed"),
            Verdict::Handled => {
                let [one] = &relayed[..] else {
                    panic!("{relayed:?}")
                };
                let shape = match one.via {
                    Via::Allocation(..) => {
                        assert_eq!(one.bytes, b"payload");
                        None
                    }
                    Via::Listen(_) => Some(match connlib_wire::channel::decode(&one.bytes) {
                        Some((number, payload)) => {
                            assert_eq!(payload, b"payload");
                            Shape::Channel(number.number())
                        }
                        None => {
                            let (peer, payload) = one.data();
                            assert_eq!(payload, b"payload");
                            Shape::Indication(peer)
                        }
                    }),
                };
                Ok((one.via, one.to, shape))
            }
        }
    }
}

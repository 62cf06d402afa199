//! What arrives: one socket carries relays' answers, checks, handshakes and data of all peers (connections.md §5).

use std::net::SocketAddr;
use std::time::Instant;

use connlib_wire::MAX_DATAGRAM;
use connlib_wire::channel;
use connlib_wire::ecn::Ecn;
use connlib_wire::id::RelayId;
use connlib_wire::stun::{self, Class, Message};
use connlib_wire::train::Arrival;

use super::Links;
use crate::packets::Packets;
use crate::path::Path;
use crate::peer::{Peer, PeerId};
use crate::wireguard::Incoming;

/// Where a datagram came from, with a relay taken out of the way.
#[derive(Clone, Copy)]
struct Origin {
    remote: SocketAddr,
    local: SocketAddr,
    relay: Option<RelayId>,
    ecn: Ecn,
}

impl Origin {
    fn path(&self) -> Path {
        Peer::arrival_path(self.local, self.remote, self.relay)
    }
}

/// What became of a datagram.
enum Outcome {
    Taken,
    Rejected,
    StrayFromRelay,
}

impl Links {
    /// Takes a train of datagrams; the packets in it are added to `packets`, everything else is for the links
    /// themselves. A datagram that is wrong costs itself only.
    pub fn handle_arrival(&mut self, now: Instant, arrival: &Arrival<'_>, packets: &mut Packets) {
        self.last_now = now;
        let origin = Origin {
            remote: arrival.from,
            local: arrival.to,
            relay: None,
            ecn: arrival.ecn,
        };
        for datagram in arrival.datagrams() {
            match self.handle_datagram(now, origin, datagram, packets) {
                Outcome::Taken => {}
                Outcome::Rejected => self.stats.rejected_datagrams += 1,
                Outcome::StrayFromRelay => self.stats.stray_relay_datagrams += 1,
            }
        }
        self.reschedule(now);
    }

    fn handle_datagram(
        &mut self,
        now: Instant,
        origin: Origin,
        datagram: &[u8],
        packets: &mut Packets,
    ) -> Outcome {
        if datagram.len() > MAX_DATAGRAM || datagram.len() < 4 {
            return Outcome::Rejected;
        }
        let Some(relay) = self.relays.serving(origin.remote) else {
            if self.relays.was_relay(origin.remote.ip()) && is_relays(datagram) {
                return Outcome::StrayFromRelay;
            }
            return self.handle_from_peer(now, origin, datagram, packets);
        };

        if stun::is_stun_prefix(datagram)
            && let Ok(message) = Message::parse(datagram)
        {
            return match self.handle_relay_message(
                now,
                relay,
                (origin.remote, origin.local),
                &message,
            ) {
                true => Outcome::Taken,
                false => Outcome::StrayFromRelay,
            };
        }
        if channel::is_channel_prefix(datagram)
            && let Some((number, payload)) = channel::decode(datagram)
        {
            let Some((remote, local)) = self.relays.get_mut(relay).and_then(|allocation| {
                let peer = allocation.peer_behind(now, number)?;
                Some((peer, allocation.relayed_address(peer)?))
            }) else {
                return Outcome::StrayFromRelay;
            };
            let inner = Origin {
                remote,
                local,
                relay: Some(relay),
                ..origin
            };
            return self.handle_from_peer(now, inner, payload, packets);
        }

        // A peer behind the same address and port as a relay.
        self.handle_from_peer(now, origin, datagram, packets)
    }

    fn handle_from_peer(
        &mut self,
        now: Instant,
        origin: Origin,
        datagram: &[u8],
        packets: &mut Packets,
    ) -> Outcome {
        if stun::is_stun_prefix(datagram)
            && let Ok(message) = Message::parse(datagram)
        {
            return self.handle_check(now, origin, &message);
        }

        self.handle_wireguard(now, origin, datagram, packets)
    }

    fn handle_check(&mut self, now: Instant, origin: Origin, message: &Message<'_>) -> Outcome {
        let peer = match message.class() {
            Class::Request => message
                .username()
                .and_then(|username| self.by_username.get(username).copied()),
            Class::Success | Class::Error => self.checks.answered(message.transaction_id()),
            Class::Indication => None,
        };
        let Some((id, peer)) = peer.and_then(|id| Some((id, self.peers.get_mut(&id)?))) else {
            return Outcome::Rejected;
        };
        let accepted = peer
            .agent
            .handle_stun(now, origin.remote, origin.local, message.bytes());
        if accepted {
            peer.agent.handle_timeout(now);
            self.settle(now, id);
        }

        if accepted {
            Outcome::Taken
        } else {
            Outcome::Rejected
        }
    }

    fn handle_wireguard(
        &mut self,
        now: Instant,
        origin: Origin,
        datagram: &[u8],
        packets: &mut Packets,
    ) -> Outcome {
        let handled = match self.interface.receive(now, origin.remote, datagram) {
            Ok(Incoming::Data(tunnel, message)) => {
                return self.handle_data(now, origin, (tunnel, message), datagram, packets);
            }
            Ok(Incoming::Overloaded(reply)) => {
                self.send_control(now, origin.path(), &reply);
                return Outcome::Taken;
            }
            Ok(Incoming::Initiation(key, message)) => {
                self.by_key.get(&key).copied().and_then(|id| {
                    let peer = self.peers.get_mut(&id)?;
                    let response = peer.tunnel.handle_initiation(now, message).ok()?;
                    // Back the way it came: that way works.
                    self.send_control(now, origin.path(), &response);
                    Some(id)
                })
            }
            Ok(Incoming::Response(tunnel, message)) => {
                self.by_tunnel.get(&tunnel).copied().and_then(|id| {
                    let peer = self.peers.get_mut(&id)?;
                    let keepalive = peer.tunnel.handle_response(now, message).ok()?;
                    self.send_on_path(now, id, &keepalive);
                    Some(id)
                })
            }
            Ok(Incoming::Cookie(tunnel, message)) => {
                self.by_tunnel.get(&tunnel).copied().filter(|id| {
                    let peer = self.peers.get_mut(id);
                    peer.is_some_and(|peer| peer.tunnel.handle_cookie(now, message).is_ok())
                })
            }
            Err(error) => {
                tracing::trace!(%error, "Rejecting a datagram");
                None
            }
        };
        let Some(id) = handled else {
            return Outcome::Rejected;
        };
        self.settle(now, id);

        Outcome::Taken
    }

    fn handle_data(
        &mut self,
        now: Instant,
        origin: Origin,
        (tunnel, message): (crate::wireguard::TunnelId, sanstun::TransportData),
        datagram: &[u8],
        packets: &mut Packets,
    ) -> Outcome {
        let Some((id, peer)) = self
            .by_tunnel
            .get(&tunnel)
            .and_then(|id| Some((*id, self.peers.get_mut(id)?)))
        else {
            return Outcome::Rejected;
        };

        let mut error = None;
        let is_packet = packets.open_with(id, origin.ecn, datagram.len(), |slot| {
            match peer.tunnel.open(now, message, datagram, slot) {
                Ok(opened) => opened,
                Err(refused) => {
                    error = Some(refused);
                    None
                }
            }
        });
        if let Some(error) = error {
            tracing::trace!(peer = %id, %error, "Rejecting a data datagram");
            return Outcome::Rejected;
        }
        peer.received_bytes += datagram.len() as u64;
        let has_path = peer.path.is_some();
        if is_packet {
            self.stats.opened_packets += 1;
        }
        if !has_path {
            // The peer's agent was faster. Back the way it came: that way works, and the keys say that it is the peer.
            self.use_path(now, id, origin.path());
        }
        self.touch(id);

        Outcome::Taken
    }

    pub(super) fn touch(&mut self, id: PeerId) {
        if self.touched.last() != Some(&id) {
            self.touched.push(id);
        }
    }
}

fn is_relays(datagram: &[u8]) -> bool {
    channel::is_channel_prefix(datagram)
        || (stun::is_stun_prefix(datagram) && Message::parse(datagram).is_ok())
}

//! Packets on their way into the tunnel.

use std::time::Instant;

use connlib_wire::MAX_PACKET;
use connlib_wire::channel;
use connlib_wire::ecn::Ecn;
use connlib_wire::train::{Route, TrainError, Trains};

use super::relays::Relays;
use super::{Links, NotSent};
use crate::path::Path;
use crate::peer::{Peer, PeerId};
use crate::role::Role;
use crate::wireguard;

impl Links {
    /// Seals a packet and queues the datagram. `ecn` is the packet's own mark; the outer header gets the same.
    ///
    /// # Errors
    ///
    /// [`NotSent`]. With [`NotSent::Waiting`] the packet is kept and leaves when the link is up.
    pub fn encapsulate(
        &mut self,
        now: Instant,
        id: PeerId,
        packet: &[u8],
        ecn: Ecn,
    ) -> Result<(), NotSent> {
        self.last_now = now;
        if packet.len() > MAX_PACKET {
            self.stats.dropped_packets += 1;
            return Err(NotSent::TooLarge);
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            self.stats.dropped_packets += 1;
            return Err(NotSent::UnknownPeer);
        };
        let Some(path) = peer.path.filter(|_| peer.is_usable()) else {
            return self.hold(id, packet, ecn);
        };
        let sealed = seal(
            now,
            peer,
            path,
            packet,
            ecn,
            &mut self.relays,
            &mut self.data,
        );
        self.touch(id);

        match sealed {
            Ok(()) => {
                self.stats.sealed_packets += 1;
                Ok(())
            }
            Err(Unsealed::NoSession) => {
                // The session grew too old to send by: agree on a new one, and let the packet wait for it.
                if let Some(initiation) = self
                    .peers
                    .get_mut(&id)
                    .and_then(|peer| peer.tunnel.initiate(now))
                {
                    self.send_on_path(now, id, &initiation);
                }
                self.hold(id, packet, ecn)
            }
            Err(Unsealed::NoChannel) => {
                self.stats.dropped_packets += 1;
                Err(NotSent::NotConnected)
            }
        }
    }

    /// Keeps a packet until its link is up, where this end does so.
    fn hold(&mut self, id: PeerId, packet: &[u8], ecn: Ecn) -> Result<(), NotSent> {
        let peer = self
            .peers
            .get_mut(&id)
            .filter(|peer| peer.config.role == Role::Controlling);
        let (Some(peer), Some(copy)) = (peer, self.pool.copy(packet)) else {
            self.stats.dropped_packets += 1;
            return Err(NotSent::NotConnected);
        };
        peer.wait(copy, ecn);

        Err(NotSent::Waiting)
    }
}

enum Unsealed {
    NoSession,
    NoChannel,
}

/// Seals a packet straight into the train that carries it.
fn seal(
    now: Instant,
    peer: &mut Peer,
    path: Path,
    packet: &[u8],
    ecn: Ecn,
    relays: &mut Relays,
    trains: &mut Trains,
) -> Result<(), Unsealed> {
    let len = wireguard::sealed_len(packet.len());
    let (route, header) = match path.relay {
        None => (
            Route {
                src: Some(path.local),
                dst: path.remote,
                ecn,
            },
            None,
        ),
        Some(relay) => {
            let bound = relays.bind_channel(now, relay, path.remote);
            let (server, number) = bound.ok_or(Unsealed::NoChannel)?;
            let header = channel::header(number, len).ok_or(Unsealed::NoChannel)?;
            (
                Route {
                    src: None,
                    dst: server,
                    ecn,
                },
                Some(header),
            )
        }
    };

    let offset = header.map_or(0, |header| header.len());
    let tunnel = &mut peer.tunnel;
    let sealed = trains.push_with(route, offset + len, |slot| {
        let (front, sealed) = slot
            .split_at_mut_checked(offset)
            .ok_or(Unsealed::NoSession)?;
        if let Some(header) = header {
            front.copy_from_slice(&header);
        }
        tunnel
            .seal(now, packet, sealed)
            .map_err(|_| Unsealed::NoSession)
    });
    peer.sent_bytes += (offset + len) as u64;

    sealed.map_err(|error| match error {
        TrainError::NotFilled(error) => error,
        TrainError::TooLarge { .. } => Unsealed::NoChannel,
    })
}

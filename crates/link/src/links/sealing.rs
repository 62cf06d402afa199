//! Packets on their way into the tunnel.

use std::time::Instant;

use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::Buffer;
use connlib_wire::channel::ChannelNumber;
use connlib_wire::ecn::Ecn;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::Route;

use super::relays::Relays;
use super::{Links, NotSent};
use crate::path::Path;
use crate::peer::PeerId;

impl Links {
    /// Takes a packet, or the segments of a super-packet but the first `skip`: one look-up for all of them, and counters in
    /// order. It leaves when its [`Job`](crate::Job) is run and committed; the outer header gets the packet's own mark.
    ///
    /// # Errors
    ///
    /// [`NotSent`]. With [`NotSent::Waiting`] the packet is kept and leaves when the link is up.
    pub fn begin_seal(
        &mut self,
        now: Instant,
        id: PeerId,
        packet: SuperPacket<Buffer>,
        skip: usize,
    ) -> Result<(), NotSent> {
        self.last_now = now;
        let count = packet.segments().saturating_sub(skip);
        let largest = packet.segment_len().max(packet.last_segment_len());
        if largest > MAX_PACKET {
            self.stats.dropped_packets += count as u64;
            return Err(NotSent::TooLarge);
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            self.stats.dropped_packets += count as u64;
            return Err(NotSent::UnknownPeer);
        };
        let Some(path) = peer.path.filter(|_| peer.is_usable()) else {
            if peer.may_initiate() {
                self.initiate(now, id);
            }
            return self.hold(now, id, packet, skip);
        };
        let ecn = packet.packet().ecn();
        let Some((route, channel)) = way(now, path, ecn, &mut self.relays) else {
            // The relay has to lend us an address anew, or another path is on its way.
            return self.hold(now, id, packet, skip);
        };
        let Ok(first) = peer.tunnel.begin_seal(now) else {
            // The session grew too old to send by: agree on a new one, and let the packet wait for it.
            self.initiate(now, id);
            return self.hold(now, id, packet, skip);
        };
        if count == 0 {
            return Ok(());
        }

        peer.sent(now, packet.bytes().len());
        let Some(job) = self.sealing.plan(route, channel, packet.bytes().len()) else {
            return Ok(());
        };
        job.add(packet, skip);
        job.add_counter(first);
        for _ in 1..count {
            // Only a session whose counters are used up ends here; what is left of the packet is sent again by its sender.
            let Ok(counter) = peer.tunnel.begin_seal(now) else {
                break;
            };
            job.add_counter(counter);
        }
        self.stats.sealed_packets += count as u64;
        self.touch(id);

        Ok(())
    }

    /// Seals a packet, or a part of one, here and now: what is rare, and what has no loop to run jobs.
    ///
    /// # Errors
    ///
    /// As [`begin_seal`](Self::begin_seal), or [`NotSent::NotIp`].
    pub fn encapsulate(&mut self, now: Instant, id: PeerId, packet: &[u8]) -> Result<(), NotSent> {
        if packet.len() > MAX_PACKET {
            self.stats.dropped_packets += 1;
            return Err(NotSent::TooLarge);
        }
        let copy = self.pool.copy(packet).ok_or(NotSent::TooLarge)?;
        let packet = SuperPacket::part(copy).map_err(|_| NotSent::NotIp)?;
        self.begin_seal(now, id, packet, 0)?;
        self.run_jobs();

        Ok(())
    }

    /// Keeps a packet until its link is up, where this end does so.
    fn hold(
        &mut self,
        now: Instant,
        id: PeerId,
        mut packet: SuperPacket<Buffer>,
        mut skip: usize,
    ) -> Result<(), NotSent> {
        self.touch(id);
        let peer = self.peers.get_mut(&id).filter(|peer| peer.keeps_packets());
        let Some(peer) = peer else {
            self.stats.dropped_packets += packet.segments().saturating_sub(skip) as u64;
            return Err(NotSent::NotConnected);
        };
        peer.is_awaited(now);
        let mut segments = packet.split();
        while let Some(segment) = segments.next_segment() {
            if skip > 0 {
                skip -= 1;
            } else if let Some(copy) = self.pool.copy(segment) {
                self.stats.dropped_packets += u64::from(peer.wait(now, copy));
            }
        }

        Err(NotSent::Waiting)
    }
}

/// Where a path's datagrams are sent, and the channel they travel in if it runs through a relay of ours.
fn way(
    now: Instant,
    path: Path,
    ecn: Ecn,
    relays: &mut Relays,
) -> Option<(Route, Option<ChannelNumber>)> {
    let Some(relay) = path.relay else {
        let route = Route {
            src: path.source(),
            dst: path.remote,
            ecn,
        };
        return Some((route, None));
    };
    let (server, number) = relays.bind_channel(now, relay, path.remote)?;
    let route = Route {
        src: None,
        dst: server,
        ecn,
    };

    Some((route, Some(number)))
}

//! Peers without ICE: plain WireGuard. Both ends may ask for a session, and a peer is wherever it was last heard.

use std::time::Instant;

use super::{Links, UpsertError};
use crate::path::{Path, PathWhy};
use crate::peer::{FixedPeer, Peer, PeerId, Reach};

impl Links {
    /// Makes a link to a peer that needs no introduction, or keeps the one that exists if it is described alike.
    ///
    /// A session is agreed when a packet wants to leave, or when the peer asks. Datagrams go where the peer's latest
    /// authentic one came from; before that, to its endpoint. Such a link never fails: after 90 s without an answer the
    /// packets that wait are dropped, and the next one starts over.
    ///
    /// # Errors
    ///
    /// [`UpsertError::InvalidKey`]; what existed before stays.
    pub fn add_fixed(
        &mut self,
        now: Instant,
        id: PeerId,
        mut peer: FixedPeer,
    ) -> Result<(), UpsertError> {
        self.last_now = now;
        peer.keepalive = peer.keepalive.filter(|interval| !interval.is_zero());
        let known = self.peers.get(&id).and_then(Peer::as_fixed);
        if known.is_some_and(|known| known.config == peer) {
            return Ok(());
        }
        let tunnel = self
            .interface
            .new_fixed_tunnel(&peer, now)
            .map_err(|_| UpsertError::InvalidKey)?;
        self.forget(id);

        tracing::debug!(peer = %id, endpoint = ?peer.endpoint, "Adding a fixed peer");
        self.by_tunnel.insert(tunnel.id(), id);
        self.by_key.insert(peer.public_key, id);
        self.peers.insert(id, Peer::fixed(now, peer, tunnel));
        self.settle(now, id);

        Ok(())
    }

    /// Asks a peer for a session, unless that is under way or nobody knows where it is.
    pub(super) fn initiate(&mut self, now: Instant, id: PeerId) {
        self.revive(now, id);
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.path.is_some()) else {
            return;
        };
        if let Some(initiation) = peer.tunnel.initiate(now) {
            peer.asks(now);
            self.send_on_path(now, id, &initiation);
            self.touch(id);
        }
    }

    /// Gives a peer a new tunnel if its former one has given up.
    pub(super) fn revive(&mut self, now: Instant, id: PeerId) {
        let peer = self.peers.get(&id);
        if peer.is_some_and(|peer| peer.tunnel.is_expired()) {
            self.replace_tunnel(now, id);
        }
    }

    /// Gives a peer a tunnel without keys; the next packet asks for some.
    pub(super) fn replace_tunnel(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let tunnel = match &peer.reach {
            Reach::Fixed(fixed) => self.interface.new_fixed_tunnel(&fixed.config, now),
            Reach::Negotiated(negotiated) => {
                let config = &negotiated.config;
                self.interface
                    .new_tunnel(config.public_key, &config.preshared_key, now)
            }
        };
        // The key was good when the peer was added.
        let Ok(tunnel) = tunnel else {
            return;
        };
        self.by_tunnel.remove(&peer.tunnel.id());
        self.by_tunnel.insert(tunnel.id(), id);
        peer.renew(tunnel);
    }

    /// The tunnel of a fixed peer has given up.
    pub(super) fn session_lost(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let goes_on = peer.session_lost(now);
        tracing::debug!(peer = %id, goes_on, "The peer does not answer");
        if goes_on {
            self.initiate(now, id);
        } else if let Some(peer) = self.peers.get_mut(&id) {
            let (waiting, too_old) = peer.take_waiting(now);
            self.stats.dropped_packets += (waiting.len() + too_old) as u64;
        }
    }

    /// A datagram of a peer was believed: a fixed one is where that came from.
    pub(super) fn heard_from(&mut self, now: Instant, id: PeerId, path: Path) {
        if self.peers.get_mut(&id).is_some_and(Peer::was_heard) {
            self.use_path(now, id, path, PathWhy::PeerMoved);
        }
    }

    /// The network changed under a fixed peer: it stays, and so does what waits for it.
    pub(super) fn reset_fixed(&mut self, now: Instant, id: PeerId, has_new_key: bool) {
        if has_new_key {
            self.replace_tunnel(now, id);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.forget_source();
        }
        self.settle(now, id);
    }
}

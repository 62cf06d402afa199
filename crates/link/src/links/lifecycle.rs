//! Links come, outlive a change of network, and go.

use std::collections::VecDeque;
use std::time::Instant;

use connlib_wire::buffer::Buffer;
use connlib_wire::control::Control;
use rand::Rng as _;

use super::schedule::Due;
use super::{Event, KeyOrigin, Links, UpsertError, new_interface};
use crate::peer::{Peer, PeerConfig, PeerId};

/// How often goodbye is said.
const GOODBYES: usize = 2;

impl Links {
    /// Makes a link, or keeps the one that exists if it is described alike (connections.md §3.3).
    ///
    /// # Errors
    ///
    /// [`UpsertError`]; what existed before stays.
    pub fn upsert(
        &mut self,
        now: Instant,
        id: PeerId,
        config: PeerConfig,
    ) -> Result<(), UpsertError> {
        self.last_now = now;
        if let Some(peer) = self.peers.get_mut(&id)
            && let Some(negotiated) = peer.as_negotiated()
            && negotiated.config == config
        {
            // The peer may have lost its half and needs our addresses again.
            for line in negotiated.agent.local_lines() {
                self.events
                    .push_back(Event::NewCandidate { peer: id, line });
            }
            if let Some(negotiated) = peer.as_negotiated_mut() {
                negotiated.active(now);
            }
            if let Some(initiation) = peer.refresh(now) {
                self.send_on_path(now, id, &initiation);
            }
            self.settle(now, id);
            return Ok(());
        }

        let relay = self
            .relays
            .choose(&mut self.rng, &[])
            .ok_or(UpsertError::NoRelays)?;
        let tunnel = self
            .interface
            .new_tunnel(config.public_key, &config.preshared_key, now)
            .map_err(|_| UpsertError::InvalidKey)?;
        // Other keys, but the same peer: what waits for it is still good.
        let waiting = self
            .peers
            .get_mut(&id)
            .map(|former| former.take_waiting(now).0);
        self.forget(id);

        tracing::debug!(peer = %id, role = ?config.role, "Making a link");
        self.by_tunnel.insert(tunnel.id(), id);
        self.by_key.insert(config.public_key, id);
        self.by_username.insert(config.check_username(), id);
        let mut peer = Peer::negotiated(now, config, tunnel, self.rng.next_u64());
        for (since, packet) in waiting.into_iter().flatten() {
            peer.wait(since, packet);
        }
        self.peers.insert(id, peer);
        self.lend(now, id, relay);
        self.lend_another(now, id);
        self.settle(now, id);
        for line in self.early.take(now, id) {
            self.add_remote_candidate(now, id, &line);
        }

        Ok(())
    }

    /// Ends a link: says goodbye if it can, and forgets it.
    pub fn close(&mut self, now: Instant, id: PeerId) {
        self.last_now = now;
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if peer.is_usable() {
            // Plain WireGuard has no word for it.
            if peer.as_negotiated().is_some()
                && let Some(goodbye) = Control::Goodbye.to_packet(&self.pool)
            {
                // Nobody answers it, and a peer that misses it waits for nothing.
                for _ in 0..GOODBYES {
                    let sent = self.encapsulate(now, id, goodbye.bytes());
                    tracing::debug!(peer = %id, ?sent, "Saying goodbye");
                }
            }
            self.events.push_back(Event::Closed(id));
        }
        self.forget(id);
    }

    /// Ends all links.
    pub fn close_all(&mut self, now: Instant) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            self.close(now, peer);
        }
    }

    /// The packets that wait for a link, oldest first, but those that waited too long.
    pub fn take_waiting(&mut self, now: Instant, id: PeerId) -> VecDeque<Buffer> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return VecDeque::new();
        };
        let (waiting, too_old) = peer.take_waiting(now);
        self.stats.dropped_packets += too_old as u64;

        waiting.into_iter().map(|(_, packet)| packet).collect()
    }

    /// Forgets of the packets that wait for links those that are meant.
    pub fn forget_waiting(&mut self, mut is_meant: impl FnMut(&[u8]) -> bool) {
        for peer in self.peers.values_mut() {
            peer.forget_waiting(&mut is_meant);
        }
    }

    /// Forgets a link without a word: the peer said goodbye.
    pub fn remove(&mut self, id: PeerId) {
        self.forget(id);
    }

    /// Starts over: all links end, relays are asked anew, and the key changes, so that no peer takes the new links for the
    /// old ones (connections.md §9.4). The sockets must have been bound anew. After a mere change of network,
    /// [`network_changed`](Self::network_changed) loses less.
    ///
    /// Fixed peers stay, and with a given key so do their sessions.
    pub fn reset(&mut self, now: Instant) {
        self.last_now = now;
        self.control.clear();
        self.sealing.clear();
        self.opening.clear();
        let peers: Vec<_> = self.peers.keys().copied().collect();
        let has_new_key = self.key_origin == KeyOrigin::Made;
        if has_new_key {
            let unix = self.unix + now.saturating_duration_since(self.created_at);
            self.interface = new_interface(&mut self.rng, now, unix);
        }
        for id in peers {
            let peer = self.peers.get(&id);
            if peer.is_some_and(|peer| peer.as_fixed().is_some()) {
                self.reset_fixed(now, id, has_new_key);
            } else {
                self.forget(id);
                self.events.push_back(Event::Closed(id));
            }
        }
        self.relays.restart(now);
        for relay in self.relays.ids() {
            self.settle_relay(now, relay);
        }
    }

    /// Our network changed and the sockets were bound anew, perhaps to other addresses. Links, sessions and key stay:
    /// datagrams leave from whichever address the system finds best, and relays are asked which addresses are ours now.
    pub fn network_changed(&mut self, now: Instant) {
        self.last_now = now;
        self.control.clear();
        self.relays.network_changed(now);
        for relay in self.relays.ids() {
            self.settle_relay(now, relay);
        }
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for id in peers {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            peer.forget_source();
            let is_usable = peer.is_usable();
            if let Some(negotiated) = peer.as_negotiated_mut() {
                negotiated.network_changed(now);
                if is_usable {
                    // The other end follows what only we can have said: who just downloads says nothing else.
                    self.initiate(now, id);
                }
            }
            self.settle(now, id);
        }
    }

    pub(super) fn forget(&mut self, id: PeerId) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        self.by_tunnel.remove(&peer.tunnel.id());
        if self.by_key.get(&peer.public_key) == Some(&id) {
            self.by_key.remove(&peer.public_key);
        }
        if let Some(negotiated) = peer.as_negotiated() {
            let username = negotiated.config.check_username();
            if self.by_username.get(&username) == Some(&id) {
                self.by_username.remove(&username);
            }
            self.checks.forget(id);
        }
        self.schedule.set(Due::Peer(id), None);
    }
}

//! What follows when something happened to a peer: its agent and its tunnel are heard, and it is scheduled anew.

use std::net::SocketAddr;
use std::time::Instant;

use connlib_wire::MAX_DATAGRAM;
use connlib_wire::channel;
use connlib_wire::ecn::Ecn;
use connlib_wire::train::{Route, Transmit};

use super::schedule::Due;
use super::{Event, Links};
use crate::ice::{Check, Event as IceEvent};
use crate::path::{Path, PathWhy};
use crate::peer::{Health, Nomination, PeerId};
use crate::wireguard;

impl Links {
    /// Takes in everything that a peer's agent and tunnel have to say, and schedules the peer anew.
    pub(super) fn settle(&mut self, now: Instant, id: PeerId) {
        // A session may be too old to send by: then what waited waits on.
        let mut has_flushed = false;
        loop {
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            let path = peer.path;
            if let Some(negotiated) = peer.as_negotiated_mut() {
                if let Some(event) = negotiated.agent.poll_event() {
                    match event {
                        IceEvent::Connectivity(state) => {
                            negotiated.connectivity_changed(now, state, path);
                        }
                        IceEvent::Nominated { local, remote } => {
                            self.nominate(now, id, local, remote);
                        }
                    }
                    continue;
                }
                if let Some(check) = negotiated.agent.poll_check() {
                    self.send_check(now, id, &check);
                    continue;
                }
            }
            match peer.tunnel.poll_event() {
                Some(wireguard::Event::Send(datagram)) => {
                    self.send_on_path(now, id, &datagram);
                    continue;
                }
                Some(wireguard::Event::Initiate(datagram)) => {
                    peer.asks(now);
                    self.send_on_path(now, id, &datagram);
                    continue;
                }
                Some(wireguard::Event::Established) => {
                    peer.session_confirmed();
                    continue;
                }
                Some(wireguard::Event::Expired) if peer.as_fixed().is_some() => {
                    self.session_lost(now, id);
                    continue;
                }
                // Who is controlled can't come back by itself, and may wait for a peer that sleeps.
                Some(wireguard::Event::Expired) if peer.is_asking() && !peer.is_controlled() => {
                    return self.fail(id, "no answer to our handshakes");
                }
                Some(wireguard::Event::Expired) => {
                    // Nothing was said for so long that the keys are gone; the path is still there.
                    self.replace_tunnel(now, id);
                    continue;
                }
                None => {}
            }
            if peer.announce() {
                tracing::debug!(peer = %id, kind = ?peer.kind, "Link is up");
                self.events.push_back(Event::Established(id));
            }
            if !has_flushed
                && peer.is_usable()
                && peer.has_waiting()
                && peer.tunnel.session_age(now).is_some()
                && path.is_some_and(|path| self.relays.carries(path))
            {
                has_flushed = true;
                self.flush(now, id);
                continue;
            }
            if let Health::Failed(why) = peer.health(now) {
                return self.fail(id, why);
            }
            let deadline = peer
                .poll_timeout(now)
                .map(|(at, reason)| (at, reason.into()));
            self.schedule.set(Due::Peer(id), deadline);
            return;
        }
    }

    fn send_check(&mut self, now: Instant, id: PeerId, check: &Check) {
        self.checks.sent(now, id, &check.contents);
        let path = Path {
            local: check.local,
            remote: check.remote,
            relay: self.relays.lender_of(check.local),
        };
        self.send_control(now, path, &check.contents);
    }

    fn nominate(&mut self, now: Instant, id: PeerId, local: SocketAddr, remote: SocketAddr) {
        let path = Path {
            local,
            remote,
            relay: self.relays.lender_of(local),
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let kind = peer.kind_of(path);
        let current = peer.path.map(|path| (path, peer.kind));
        let Some(negotiated) = peer.as_negotiated_mut() else {
            return;
        };
        match negotiated.nominate(now, path, kind, current) {
            Nomination::Use(why) => self.use_path(now, id, path, why),
            Nomination::Held => tracing::debug!(peer = %id, "The direct path may still answer"),
        }
    }

    /// Sends to the peer by `path` from now on.
    pub(super) fn use_path(&mut self, now: Instant, id: PeerId, path: Path, why: PathWhy) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let is_same = peer.path.is_some_and(|before| before.is_way_of(path));
        let initiation = peer.nominate(now, path, why);
        if !is_same {
            let kind = peer.kind;
            tracing::debug!(peer = %id, ?kind, %why, "Path changed");
            self.events.push_back(Event::PathChanged { peer: id, kind });
        }
        if let Some(initiation) = initiation {
            self.send_on_path(now, id, &initiation);
        }
    }

    /// Sends the packets that waited, in order.
    fn flush(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let (waiting, too_old) = peer.take_waiting(now);
        self.stats.dropped_packets += too_old as u64;
        for (_, packet) in waiting {
            if let Err(why) = self.encapsulate(now, id, &packet) {
                tracing::trace!(peer = %id, %why, "A packet that waited can't leave yet");
            }
        }
    }

    pub(super) fn send_on_path(&mut self, now: Instant, id: PeerId, datagram: &[u8]) {
        let path = self.peers.get(&id).and_then(|peer| peer.path);
        if let Some(path) = path {
            self.send_control(now, path, datagram);
        }
    }

    /// Queues a datagram that must not wait behind data. Where a relay lacks a channel, it is lost and the channel
    /// bound for the next one.
    pub(super) fn send_control(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        if bytes.len() > MAX_DATAGRAM {
            return;
        }
        let mut buffer = self.pool.take(channel::HEADER_LEN);
        let Some(slot) = buffer.extend(bytes.len()) else {
            return;
        };
        slot.copy_from_slice(bytes);

        let Some(relay) = path.relay else {
            // An address that a relay lent and took back looks like one of our own for an instant.
            if path.local.is_ipv4() != path.remote.is_ipv4() {
                return;
            }
            let route = Route {
                src: path.source(),
                dst: path.remote,
                ecn: Ecn::NotEct,
            };
            self.control.push_back(Transmit::single(route, buffer));
            return;
        };
        let bound = self.relays.bind_channel(now, relay, path.remote);
        self.settle_relay(now, relay);
        let Some((server, number)) = bound else {
            return;
        };
        let Some(header) = channel::header(number, bytes.len()) else {
            return;
        };
        if let Some(slot) = buffer.prepend(channel::HEADER_LEN) {
            slot.copy_from_slice(&header);
            let route = Route {
                src: None,
                dst: server,
                ecn: Ecn::NotEct,
            };
            self.control.push_back(Transmit::single(route, buffer));
        }
    }

    pub(super) fn fail(&mut self, id: PeerId, why: &'static str) {
        tracing::debug!(peer = %id, why, "Link failed");
        self.forget(id);
        self.events.push_back(Event::Failed(id));
    }
}

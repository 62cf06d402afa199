//! All peers and relays of a node.

mod datagrams;
mod relays;
mod schedule;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::buffer::Pool;
use connlib_wire::channel;
use connlib_wire::control::Control;
use connlib_wire::ecn::Ecn;
use connlib_wire::id::RelayId;
use connlib_wire::key::PublicKey;
use connlib_wire::train::{Route, TrainError, Trains, Transmit};
use connlib_wire::{MAX_DATAGRAM, MAX_PACKET};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use zeroize::Zeroizing;

use crate::ice::{self, Event as IceEvent};
use crate::path::{Path, PathKind};
use crate::peer::{Health, Peer, PeerConfig, PeerId, PeerReason, Role};
use crate::wireguard::{self, Datagram, TunnelId};
use relays::Relays;
use schedule::{Due, Schedule};

/// How a node's links behave.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The Unix time at the `now` of [`Links::new`]; it must not go back between two runs with the same key.
    pub unix: Duration,
}

/// Something the owner of the links should know.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The peer may try this address of ours: signal it.
    NewCandidate {
        /// The peer to tell.
        peer: PeerId,
        /// The candidate's line.
        line: String,
    },
    /// The peer must not try this address of ours any longer: signal it.
    InvalidatedCandidate {
        /// The peer to tell.
        peer: PeerId,
        /// The candidate's line.
        line: String,
    },
    /// Packets flow for the first time.
    Established(PeerId),
    /// Datagrams take another way from here on.
    PathChanged {
        /// With whom.
        peer: PeerId,
        /// Through which relays.
        kind: PathKind,
    },
    /// The link is gone because nothing was heard.
    Failed(PeerId),
    /// The link is gone because we ended it.
    Closed(PeerId),
    /// The last relay is gone: ask for others.
    NoRelays,
}

/// What the links wait for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Reason {
    /// Outputs wait to be taken.
    Output,
    /// A relay's timer.
    Relay,
    /// A peer must have told a candidate.
    Candidates,
    /// A peer's paths may come back.
    Grace,
    /// A connectivity check.
    Ice,
    /// WireGuard's timers.
    WireGuard,
}

/// Why a packet was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// There is no link to this peer.
    #[error("there is no link to the peer")]
    UnknownPeer,
    /// The link comes up; the packet waits for it.
    #[error("the packet waits until the link is up")]
    Waiting,
    /// The link comes up, and this end doesn't keep packets for it.
    #[error("the link is not up")]
    NotConnected,
    /// The packet is larger than a tunnel carries.
    #[error("the packet is larger than {MAX_PACKET} bytes")]
    TooLarge,
}

/// Why a link could not be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UpsertError {
    /// Without a relay we know no address of our own.
    #[error("no relay is known; ask the portal for some")]
    NoRelays,
    /// The peer's public key is no key.
    #[error("the peer's public key is a point of low order")]
    InvalidKey,
}

/// What happened to datagrams and packets, counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Datagrams that were none of ours: wrong size, unknown keys, forged, replayed.
    pub rejected_datagrams: u64,
    /// Datagrams from a relay that belong to no request or channel.
    pub stray_relay_datagrams: u64,
    /// Packets that were sealed.
    pub sealed_packets: u64,
    /// Packets that were opened.
    pub opened_packets: u64,
    /// Packets that no link could take.
    pub dropped_packets: u64,
}

/// One peer, as `status` shows it.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerId,
    /// The way, once there is one.
    pub path: Option<Path>,
    /// Through which relays it runs.
    pub kind: PathKind,
    /// For how long.
    pub path_age: Duration,
    /// How long ago the session in use was agreed.
    pub handshake_age: Option<Duration>,
    /// The round-trip time of the checks on the path.
    pub rtt: Option<Duration>,
    /// Bytes of sealed datagrams that left.
    pub sent_bytes: u64,
    /// Bytes of sealed datagrams that arrived.
    pub received_bytes: u64,
}

/// One relay, as `status` shows it.
#[derive(Clone, Debug)]
pub struct RelayStatus {
    /// Which.
    pub relay: RelayId,
    /// The address in use, once it has answered.
    pub server: Option<SocketAddr>,
    /// The address it lends us.
    pub relayed: Vec<SocketAddr>,
    /// The round-trip time of the requests to it.
    pub rtt: Option<Duration>,
}

/// All peers and relays of a node.
pub struct Links {
    interface: wireguard::Interface,
    rng: StdRng,
    unix: Duration,
    created_at: Instant,
    peers: BTreeMap<PeerId, Peer>,
    by_tunnel: HashMap<TunnelId, PeerId>,
    by_key: BTreeMap<PublicKey, PeerId>,
    /// By the USERNAME of the peer's checks: four characters of one end alone would soon be taken twice.
    by_username: BTreeMap<String, PeerId>,
    /// Who asked what, so that an answer needs no search.
    checks: schedule::Checks,
    relays: Relays,
    schedule: Schedule,
    /// Peers whose timers moved since they were scheduled.
    touched: Vec<PeerId>,
    pool: Pool,
    /// Never behind bulk data.
    control: VecDeque<Transmit>,
    data: Trains,
    events: VecDeque<Event>,
    stats: Stats,
    last_now: Instant,
}

impl Links {
    /// Creates a node without peers and relays, with a new key.
    ///
    /// Everything random derives from `seed`: use fresh entropy for each instance but in tests.
    pub fn new(now: Instant, seed: [u8; 32], settings: Settings) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let interface = new_interface(&mut rng, now, settings.unix);

        Self {
            interface,
            rng,
            unix: settings.unix,
            created_at: now,
            peers: BTreeMap::new(),
            by_tunnel: HashMap::new(),
            by_key: BTreeMap::new(),
            by_username: BTreeMap::new(),
            checks: schedule::Checks::default(),
            relays: Relays::default(),
            schedule: Schedule::default(),
            touched: Vec::new(),
            pool: Pool::new(2_048, 256),
            control: VecDeque::new(),
            data: Trains::new(Pool::new(usize::from(u16::MAX), 16)),
            events: VecDeque::new(),
            stats: Stats::default(),
            last_now: now,
        }
    }

    /// Our key; peers and portal know the node by it. It changes with [`reset`](Self::reset).
    pub fn public_key(&self) -> PublicKey {
        self.interface.public_key()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The pool that control datagrams and single packets come from.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

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
            && peer.config == config
        {
            // The peer may have lost its half and needs our addresses again.
            for line in peer.agent.local_lines() {
                self.events
                    .push_back(Event::NewCandidate { peer: id, line });
            }
            if let Some(initiation) = peer.refresh(now) {
                self.send_on_path(now, id, &initiation);
            }
            self.settle(now, id);
            return Ok(());
        }

        let relay = self
            .relays
            .choose(&mut self.rng)
            .ok_or(UpsertError::NoRelays)?;
        let tunnel = self
            .interface
            .new_tunnel(config.public_key, &config.preshared_key, now)
            .map_err(|_| UpsertError::InvalidKey)?;
        self.forget(id);

        tracing::debug!(peer = %id, role = ?config.role, "Making a link");
        self.by_tunnel.insert(tunnel.id(), id);
        self.by_key.insert(config.public_key, id);
        self.by_username.insert(config.check_username(), id);
        let mut peer = Peer::new(now, config, tunnel, self.rng.next_u64());
        peer.relay = Some(relay);
        for candidate in self.relays.candidates_for(relay) {
            if let Some(line) = peer.agent.add_local(candidate) {
                self.events
                    .push_back(Event::NewCandidate { peer: id, line });
            }
        }
        self.peers.insert(id, peer);
        self.settle(now, id);

        Ok(())
    }

    /// Takes an address that the peer may be tried at; a line that can't be read, or is for no link, is ignored.
    pub fn add_remote_candidate(&mut self, now: Instant, id: PeerId, line: &str) {
        self.last_now = now;
        let Some(candidate) = ice::parse_candidate(line) else {
            tracing::debug!(peer = %id, "Ignoring a candidate that can't be used");
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let addr = candidate.addr();
        let wants_channel = ice::wants_channel(&candidate);
        peer.add_remote(candidate);
        if wants_channel && let Some(relay) = peer.relay {
            self.relays.bind_channel(now, relay, addr);
            self.settle_relay(now, relay);
        }
        self.settle(now, id);
    }

    /// Takes back an address of the peer.
    pub fn remove_remote_candidate(&mut self, now: Instant, id: PeerId, line: &str) {
        self.last_now = now;
        let Some(candidate) = ice::parse_candidate(line) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.agent.remove_remote(now, &candidate);
            self.settle(now, id);
        }
    }

    /// Ends a link: says goodbye if it can, and forgets it.
    pub fn close(&mut self, now: Instant, id: PeerId) {
        self.last_now = now;
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if peer.is_usable() {
            if let Some(goodbye) = Control::Goodbye.to_packet(&self.pool) {
                let sent = self.encapsulate(now, id, goodbye.bytes(), Ecn::NotEct);
                tracing::debug!(peer = %id, ?sent, "Saying goodbye");
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

    /// Forgets a link without a word: the peer said goodbye.
    pub fn remove(&mut self, id: PeerId) {
        self.forget(id);
    }

    /// Whether there is a link to this peer, up or not.
    pub fn contains(&self, id: PeerId) -> bool {
        self.peers.contains_key(&id)
    }

    /// Forgets relays and takes in others; those that are known and unchanged stay, those not named are asked whether
    /// they are still there (connections.md §6.9).
    pub fn update_relays(
        &mut self,
        now: Instant,
        remove: &[RelayId],
        add: Vec<crate::RelayServer>,
    ) {
        self.last_now = now;
        let update = self
            .relays
            .update(now, remove, add, &mut self.rng, &self.pool);
        for relay in update.gone {
            self.lose_relay(now, relay.id, relay.candidates);
        }
        for relay in self.relays.ids() {
            self.settle_relay(now, relay);
        }
        self.migrate(now);
    }

    /// The network changed under us: all links end, relays are asked anew, and the key changes, so that no peer takes
    /// the new links for the old ones (connections.md §9.4). The sockets must have been bound anew.
    pub fn reset(&mut self, now: Instant) {
        self.last_now = now;
        self.control.clear();
        self.data.clear();
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            self.forget(peer);
            self.events.push_back(Event::Closed(peer));
        }
        let unix = self.unix + now.saturating_duration_since(self.created_at);
        self.interface = new_interface(&mut self.rng, now, unix);
        self.relays.restart(now);
        for relay in self.relays.ids() {
            self.settle_relay(now, relay);
        }
    }

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

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.last_now = now;
        self.checks.forget_old(now);
        self.reschedule(now);
        // What a timer does may make another one due now; a bound keeps a fault from becoming a standstill.
        for _ in 0..MAX_DUE_AT_ONCE {
            let Some(due) = self.schedule.pop_due(now) else {
                break;
            };
            match due {
                Due::Relay(id) => {
                    self.relays.handle_timeout(now, id);
                    self.settle_relay(now, id);
                }
                Due::Peer(id) => {
                    if let Some(peer) = self.peers.get_mut(&id) {
                        peer.agent.handle_timeout(now);
                        peer.tunnel.handle_timeout(now);
                    }
                    self.settle(now, id);
                }
            }
        }
        self.migrate(now);
    }

    /// The train that leaves next: control before data.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.control.pop_front().or_else(|| self.data.pop())
    }

    /// Something that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, and what for.
    pub fn poll_timeout(&mut self) -> Option<(Instant, Reason)> {
        self.reschedule(self.last_now);
        if !self.control.is_empty() || !self.data.is_empty() || !self.events.is_empty() {
            return Some((self.last_now, Reason::Output));
        }

        self.schedule.next()
    }

    /// All peers, by id.
    pub fn peers(&self, now: Instant) -> impl Iterator<Item = PeerStatus> {
        self.peers.iter().map(move |(id, peer)| PeerStatus {
            peer: *id,
            path: peer.path,
            kind: peer.kind,
            path_age: now.saturating_duration_since(peer.path_since),
            handshake_age: peer.tunnel.session_age(now),
            rtt: peer.agent.rtt(),
            sent_bytes: peer.sent_bytes,
            received_bytes: peer.received_bytes,
        })
    }

    /// All relays, by id.
    pub fn relays(&self) -> impl Iterator<Item = RelayStatus> {
        self.relays.status()
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

    /// Takes in everything that a peer's agent and tunnel have to say, and schedules the peer anew.
    fn settle(&mut self, now: Instant, id: PeerId) {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            if let Some(event) = peer.agent.poll_event() {
                match event {
                    IceEvent::Connectivity(state) => peer.connectivity_changed(now, state),
                    IceEvent::Nominated { local, remote } => self.nominate(now, id, local, remote),
                }
                continue;
            }
            if let Some(check) = peer.agent.poll_check() {
                self.checks.sent(now, id, &check.contents);
                let relay = self.relays.lender_of(check.local);
                self.send_control(
                    now,
                    Path {
                        local: check.local,
                        remote: check.remote,
                        relay,
                    },
                    &check.contents,
                );
                continue;
            }
            match peer.tunnel.poll_event() {
                Some(wireguard::Event::Send(datagram)) => {
                    self.send_on_path(now, id, &datagram);
                    continue;
                }
                Some(wireguard::Event::Established) => {
                    peer.session_confirmed();
                    continue;
                }
                Some(wireguard::Event::Expired) => {
                    return self.fail(id, "no answer to our handshakes");
                }
                None => {}
            }
            if peer.announce() {
                tracing::debug!(peer = %id, kind = ?peer.kind, "Link is up");
                self.events.push_back(Event::Established(id));
            }
            if peer.is_usable()
                && !peer.waiting.is_empty()
                && peer.tunnel.session_age(now).is_some()
            {
                self.flush(now, id);
                continue;
            }
            if let Health::Failed(why) = peer.health(now) {
                return self.fail(id, why);
            }
            let deadline = peer.poll_timeout().map(|(at, reason)| (at, reason.into()));
            self.schedule.set(Due::Peer(id), deadline);
            return;
        }
    }

    fn nominate(&mut self, now: Instant, id: PeerId, local: SocketAddr, remote: SocketAddr) {
        let relay = self.relays.lender_of(local);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let before = peer.path;
        let initiation = peer.nominate(
            now,
            Path {
                local,
                remote,
                relay,
            },
        );
        if before != peer.path {
            let kind = peer.kind;
            tracing::debug!(peer = %id, ?kind, "Path changed");
            self.events.push_back(Event::PathChanged { peer: id, kind });
        }
        if let Some(initiation) = initiation {
            self.send_on_path(now, id, &initiation);
        }
    }

    /// Sends the packets that waited, in order.
    fn flush(&mut self, now: Instant, id: PeerId) {
        let waiting = self
            .peers
            .get_mut(&id)
            .map(|peer| std::mem::take(&mut peer.waiting));
        for (packet, ecn) in waiting.into_iter().flatten() {
            if let Err(why) = self.encapsulate(now, id, &packet, ecn) {
                tracing::trace!(peer = %id, %why, "A packet that waited can't leave yet");
            }
        }
    }

    fn send_on_path(&mut self, now: Instant, id: PeerId, datagram: &Datagram) {
        let path = self.peers.get(&id).and_then(|peer| peer.path);
        if let Some(path) = path {
            self.send_control(now, path, datagram);
        }
    }

    /// Queues a datagram that must not wait behind data. Where a relay lacks a channel, it is lost and the channel
    /// bound for the next one.
    fn send_control(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        if bytes.len() > MAX_DATAGRAM {
            return;
        }
        let mut buffer = self.pool.take(channel::HEADER_LEN);
        let Some(slot) = buffer.extend(bytes.len()) else {
            return;
        };
        slot.copy_from_slice(bytes);

        let Some(relay) = path.relay else {
            let route = Route {
                src: Some(path.local),
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

    fn fail(&mut self, id: PeerId, why: &'static str) {
        tracing::debug!(peer = %id, why, "Link failed");
        self.forget(id);
        self.events.push_back(Event::Failed(id));
    }

    fn forget(&mut self, id: PeerId) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        self.by_tunnel.remove(&peer.tunnel.id());
        if self.by_key.get(&peer.config.public_key) == Some(&id) {
            self.by_key.remove(&peer.config.public_key);
        }
        let username = peer.config.check_username();
        if self.by_username.get(&username) == Some(&id) {
            self.by_username.remove(&username);
        }
        self.checks.forget(id);
        self.schedule.set(Due::Peer(id), None);
    }

    /// Traffic moves timers; they are put in order once per batch.
    fn reschedule(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.touched) {
            if self.peers.contains_key(&id) {
                self.settle(now, id);
            }
        }
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("peers", &self.peers.len())
            .field("relays", &self.relays.ids().len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// More timers than can be due at one instant in honest operation.
const MAX_DUE_AT_ONCE: usize = 100_000;

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

fn new_interface(rng: &mut StdRng, now: Instant, unix: Duration) -> wireguard::Interface {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut seed[..]);

    wireguard::Interface::new(seed, now, unix)
}

impl From<PeerReason> for Reason {
    fn from(reason: PeerReason) -> Self {
        match reason {
            PeerReason::Candidates => Self::Candidates,
            PeerReason::Grace => Self::Grace,
            PeerReason::Ice => Self::Ice,
            PeerReason::WireGuard => Self::WireGuard,
        }
    }
}

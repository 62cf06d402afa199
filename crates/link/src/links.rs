//! All peers and relays of a node.

mod candidates;
mod datagrams;
mod fixed;
mod lifecycle;
mod pipeline;
mod probing;
mod relays;
mod report;
mod schedule;
mod sealing;
mod settling;
mod silence;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::buffer::Pool;
use connlib_wire::id::RelayId;
use connlib_wire::key::PublicKey;
use connlib_wire::stun::Family;
use connlib_wire::train::Transmit;
use connlib_wire::{MAX_DATAGRAM, MAX_PACKET, train::MAX_SEGMENTS};
use ipnet::IpNet;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use zeroize::Zeroizing;

use crate::path::PathKind;
use crate::peer::{self, Peer, PeerId};
use crate::wireguard::{self, PrivateKey, TunnelId};
pub(crate) use datagrams::Origin;
pub use report::{Event, NotSent, PeerStatus, Reason, RelayStatus, Stats, UpsertError};

use pipeline::{Opening, Sealing};
use relays::Relays;
use schedule::{Due, Schedule};

/// How a node's links behave.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The Unix time at the `now` of [`Links::new`]; it must not go back between two runs with the same key.
    pub unix: Duration,
}

/// Whose choice our key is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum KeyOrigin {
    /// Ours: each reset makes a new one.
    Made,
    /// The owner's: peers know it, so it stays.
    Given,
}

/// All peers and relays of a node.
pub struct Links {
    interface: wireguard::Interface,
    key_origin: KeyOrigin,
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
    sealing: Sealing,
    opening: Opening,
    events: VecDeque<Event>,
    /// Networks inside the tunnel: no peer is to be reached there.
    inside: Vec<IpNet>,
    early: candidates::Early,
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
            key_origin: KeyOrigin::Made,
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
            sealing: Sealing::new(Pool::new(usize::from(u16::MAX), MAX_IDLE_TRAINS)),
            opening: Opening::new(Pool::new(MAX_SEGMENTS * MAX_DATAGRAM, MAX_IDLE_TRAINS)),
            events: VecDeque::new(),
            inside: Vec::new(),
            early: candidates::Early::default(),
            stats: Stats::default(),
            last_now: now,
        }
    }

    /// The same with a key that peers know already, and that never changes.
    pub fn with_key(now: Instant, seed: [u8; 32], settings: Settings, key: &PrivateKey) -> Self {
        let mut links = Self::new(now, seed, settings);
        links.interface = links.interface.with_key(key);
        links.key_origin = KeyOrigin::Given;

        links
    }

    /// Names the networks inside the tunnel, in which no peer is looked for.
    pub fn set_inside(&mut self, networks: &[IpNet]) {
        self.inside = networks.to_vec();
    }

    /// Our key; peers and portal know the node by it. It changes with [`reset`](Self::reset) unless it was given.
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

    /// The largest packet that the way to a peer is known to carry, in bytes.
    pub fn max_packet(&self, id: PeerId) -> usize {
        self.peers
            .get(&id)
            .map_or(MAX_PACKET, |peer| peer.max_packet)
    }

    /// Through which relays a peer is reached, if there is a way to it.
    pub fn path_kind(&self, id: PeerId) -> Option<PathKind> {
        let peer = self.peers.get(&id)?;

        peer.path.map(|_| peer.kind)
    }

    /// By which IP version a peer's datagrams leave, if there is a way to it.
    pub fn family(&self, id: PeerId) -> Option<Family> {
        let path = self.peers.get(&id)?.path?;
        let sent_to = match path.relay {
            None => path.remote,
            Some(relay) => self.relays.server_of(relay)?,
        };

        Some(Family::of(sent_to))
    }

    /// The network refused a datagram of `len` bytes to `dst` as too large: peers by that way get smaller packets until
    /// they take another one.
    pub fn handle_too_large(&mut self, dst: SocketAddr, len: usize) {
        for (id, peer) in &mut self.peers {
            let Some(path) = peer.path else {
                continue;
            };
            let sent_to = match path.relay {
                None => Some(path.remote),
                Some(relay) => self.relays.server_of(relay),
            };
            if sent_to == Some(dst) && peer.shrink(len) {
                tracing::debug!(peer = %id, max_packet = peer.max_packet, "The path carries less");
            }
        }
    }

    /// Lets memory go that a load has left behind. To be called now and then.
    pub fn trim(&mut self) {
        self.pool.trim();
        self.sealing.trim();
        self.opening.trim();
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
                    let peer = self.peers.get_mut(&id);
                    match peer.and_then(|peer| peer.handle_timeout(now)) {
                        Some(peer::Due::Session) => self.initiate(now, id),
                        Some(peer::Due::Wanted(wanted)) => self.do_wanted(now, id, wanted),
                        None => {}
                    }
                    self.settle(now, id);
                }
            }
        }
        self.migrate(now);
    }

    /// A datagram that must not wait behind data: a check, a handshake, a request to a relay.
    pub fn poll_control(&mut self) -> Option<Transmit> {
        self.control.pop_front()
    }

    /// The train that leaves next: control before data.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.poll_control().or_else(|| self.sealing.next_train())
    }

    /// Something that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, and what for.
    pub fn poll_timeout(&mut self) -> Option<(Instant, Reason)> {
        self.reschedule(self.last_now);
        let has_output = !self.control.is_empty() || !self.events.is_empty();
        if has_output || !self.sealing.is_idle() || !self.opening.is_idle() {
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
            why: peer.path.map(|_| peer.path_why),
            handshake_age: peer.tunnel.session_age(now),
            rtt: peer.as_negotiated().and_then(|peer| peer.liveness.rtt()),
            sent_bytes: peer.sent_bytes,
            received_bytes: peer.received_bytes,
        })
    }

    /// All relays, by id.
    pub fn relays(&self) -> impl Iterator<Item = RelayStatus> {
        self.relays.status()
    }

    /// For how long relays have been asked in vain since the network last changed: a network that lets no UDP out is silent.
    /// `None` if one has answered, or none was asked.
    pub fn relays_silent_for(&self, now: Instant) -> Option<Duration> {
        self.relays.silent_for(now)
    }

    /// Traffic moves timers; they are put in order once per batch.
    fn reschedule(&mut self, now: Instant) {
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.is_touched = false;
                self.settle(now, id);
            }
        }
        // Nothing above touches; the memory serves the next batch.
        touched.append(&mut self.touched);
        self.touched = touched;
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

/// How many buffers for trains are kept when they are not in use.
const MAX_IDLE_TRAINS: usize = 16;

/// More timers than can be due at one instant in honest operation.
const MAX_DUE_AT_ONCE: usize = 100_000;

fn new_interface(rng: &mut StdRng, now: Instant, unix: Duration) -> wireguard::Interface {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut seed[..]);

    wireguard::Interface::new(seed, now, unix)
}

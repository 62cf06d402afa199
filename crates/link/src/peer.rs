//! One peer: its keys, its agent, its path.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::Buffer;
use connlib_wire::channel::HEADER_LEN;
use connlib_wire::id::{ClientId, GatewayId, RelayId};
use connlib_wire::key::{PresharedKey, PublicKey};
use connlib_wire::portal::IceCredentials;
use uuid::Uuid;

use crate::ice::{self, Connectivity};
use crate::path::{Path, PathKind};
use crate::role::Role;
use crate::wireguard::{self, Datagram};

/// How long a peer may go without telling a candidate (connections.md §8).
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long no pair may work before the link has failed (connections.md §8).
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);

/// The least time between two handshakes that an upsert asks for (connections.md §7.3).
const UPSERT_HANDSHAKE_INTERVAL: Duration = Duration::from_secs(20);

/// The most packets kept while a link comes up (connections.md §2).
const MAX_WAITING: usize = 128;

/// What is tried where packets of the usual size are too large: what fits into IPv6's smallest MTU with every header of
/// ours, and what fits into any network at all. Multiples of sixteen, so that no padding is carried.
const SMALLER_PACKETS: [usize; 2] = [1_184, 480];

/// The other end of a link.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerId(pub Uuid);

impl From<ClientId> for PeerId {
    fn from(id: ClientId) -> Self {
        Self(id.0)
    }
}

impl From<GatewayId> for PeerId {
    fn from(id: GatewayId) -> Self {
        Self(id.0)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the portal says about a link. Two equal ones describe the same link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerConfig {
    /// The peer's WireGuard key.
    pub public_key: PublicKey,
    /// The key both ends mix into their handshakes.
    pub preshared_key: PresharedKey,
    /// Our ICE credentials.
    pub local: IceCredentials,
    /// The peer's ICE credentials.
    pub remote: IceCredentials,
    /// Our part.
    pub role: Role,
}

impl PeerConfig {
    /// The USERNAME of the checks that the peer sends us (connections.md §4.1).
    pub(crate) fn check_username(&self) -> String {
        format!("{}:{}", self.local.username, self.remote.username)
    }
}

/// What became of a peer after it was driven.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Health {
    Alive,
    Failed(&'static str),
}

pub(crate) struct Peer {
    pub(crate) config: PeerConfig,
    pub(crate) tunnel: wireguard::Tunnel,
    pub(crate) agent: ice::Agent,
    /// The relay whose address we offer to this peer.
    pub(crate) relay: Option<RelayId>,
    pub(crate) path: Option<Path>,
    pub(crate) kind: PathKind,
    pub(crate) path_since: Instant,
    /// The largest packet that the path is known to carry.
    pub(crate) max_packet: usize,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// Packets that wait for a session, oldest first.
    pub(crate) waiting: VecDeque<Buffer>,
    /// Its timers moved since it was scheduled.
    pub(crate) is_touched: bool,
    has_session: bool,
    is_announced: bool,
    /// Until when a first candidate must have come.
    candidates_due_at: Option<Instant>,
    disconnected_at: Option<Instant>,
    handshake_asked_at: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(
        now: Instant,
        config: PeerConfig,
        tunnel: wireguard::Tunnel,
        stream: u64,
    ) -> Self {
        let timings = ice::Timings::of(config.role);
        let agent = ice::Agent::new(
            now,
            stream,
            config.role,
            &config.local,
            &config.remote,
            timings,
        );

        Self {
            config,
            tunnel,
            agent,
            relay: None,
            path: None,
            kind: PathKind::Direct,
            path_since: now,
            max_packet: MAX_PACKET,
            sent_bytes: 0,
            received_bytes: 0,
            waiting: VecDeque::new(),
            is_touched: false,
            has_session: false,
            is_announced: false,
            candidates_due_at: Some(now + CANDIDATE_TIMEOUT),
            disconnected_at: None,
            handshake_asked_at: None,
        }
    }

    /// The link was described again: the peer may have lost its half, so a handshake shows who is still there.
    pub(crate) fn refresh(&mut self, now: Instant) -> Option<Datagram> {
        let asked_lately = self
            .handshake_asked_at
            .is_some_and(|at| now.saturating_duration_since(at) < UPSERT_HANDSHAKE_INTERVAL);
        if self.config.role == Role::Controlled || self.path.is_none() || asked_lately {
            return None;
        }
        self.handshake_asked_at = Some(now);

        self.tunnel.initiate(now)
    }

    pub(crate) fn add_remote(&mut self, candidate: is::Candidate) {
        self.candidates_due_at = None;
        self.agent.add_remote(candidate);
    }

    /// Switches to the nominated pair; the handshake to send on it, if one is due.
    pub(crate) fn nominate(&mut self, now: Instant, path: Path) -> Option<Datagram> {
        if self.path == Some(path) {
            return None;
        }
        self.path = Some(path);
        self.path_since = now;
        self.max_packet = MAX_PACKET;
        self.kind = PathKind::new(
            path.relay.is_some(),
            self.agent.is_relay_of_peer(path.remote),
        );

        // A session works on any path. Without one, an initiation may be lost on a path that is no more.
        if self.config.role == Role::Controlling && !self.has_session {
            return self.tunnel.restart(now);
        }
        None
    }

    /// The path refused a datagram of `len` bytes; whether smaller packets may fit.
    pub(crate) fn shrink(&mut self, len: usize) -> bool {
        let fits = |packet: &usize| {
            *packet < self.max_packet && wireguard::sealed_len(*packet) + HEADER_LEN < len
        };
        let Some(smaller) = SMALLER_PACKETS.into_iter().find(fits) else {
            return false;
        };
        self.max_packet = smaller;

        true
    }

    pub(crate) fn connectivity_changed(&mut self, now: Instant, connectivity: Connectivity) {
        match connectivity {
            Connectivity::Disconnected => {
                self.disconnected_at.get_or_insert(now);
            }
            Connectivity::Checking | Connectivity::Connected => self.disconnected_at = None,
        }
    }

    /// A first session is confirmed.
    pub(crate) fn session_confirmed(&mut self) {
        self.has_session = true;
    }

    /// Whether the owner should be told, now, that packets flow; true once.
    pub(crate) fn announce(&mut self) -> bool {
        let ready = self.is_usable() && !self.is_announced;
        self.is_announced |= ready;

        ready
    }

    /// Whether packets can be sent.
    pub(crate) fn is_usable(&self) -> bool {
        self.has_session && self.path.is_some()
    }

    /// Whether traffic moves nothing but its timers.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_announced && self.path.is_some() && self.waiting.is_empty()
    }

    /// Keeps a packet until a session exists; the oldest gives way.
    pub(crate) fn wait(&mut self, packet: Buffer) {
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(packet);
    }

    /// Whether the link can still come up, or go on.
    pub(crate) fn health(&self, now: Instant) -> Health {
        if self.candidates_due_at.is_some_and(|at| at <= now) {
            return Health::Failed("the peer told no candidate");
        }
        if self.grace_ends_at().is_some_and(|at| at <= now) {
            return Health::Failed("no path works");
        }

        Health::Alive
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<(Instant, PeerReason)> {
        let agent = self.agent.poll_timeout().map(|at| (at, PeerReason::Ice));
        let tunnel = self
            .tunnel
            .poll_timeout()
            .map(|at| (at, PeerReason::WireGuard));
        let candidates = self
            .candidates_due_at
            .map(|at| (at, PeerReason::Candidates));
        let grace = self.grace_ends_at().map(|at| (at, PeerReason::Grace));

        agent
            .into_iter()
            .chain(tunnel)
            .chain(candidates)
            .chain(grace)
            .min()
    }

    /// The path a datagram took that arrived from `remote` at `local`.
    pub(crate) fn arrival_path(
        local: SocketAddr,
        remote: SocketAddr,
        relay: Option<RelayId>,
    ) -> Path {
        Path {
            local,
            remote,
            relay,
        }
    }

    fn grace_ends_at(&self) -> Option<Instant> {
        self.disconnected_at.map(|at| at + DISCONNECT_GRACE)
    }
}

/// What a peer waits for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum PeerReason {
    Candidates,
    Grace,
    Ice,
    WireGuard,
}

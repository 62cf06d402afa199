//! One peer: its keys, its path, and how that is found.

mod fixed;
mod liveness;
mod negotiated;
mod pace;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::Buffer;
use connlib_wire::channel::HEADER_LEN;
use connlib_wire::id::{ClientId, GatewayId, RelayId};
use connlib_wire::key::PublicKey;
use uuid::Uuid;

use crate::path::{Path, PathKind, PathWhy};
use crate::role::Role;
use crate::wireguard::{self, Datagram};
pub use fixed::FixedPeer;
pub(crate) use fixed::{Asked, Fixed};
pub(crate) use liveness::Step;
pub use negotiated::PeerConfig;
pub(crate) use negotiated::{By, Negotiated, Nomination, Wanted};

/// The most packets kept while a link has no way or no session (connections.md §2).
const MAX_WAITING: usize = 128;

/// How long they are kept where ICE looks for a way: what waited longer was sent again by its sender, or is of no use any
/// more. A fixed peer's wait as long as it is asked for a session.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Two initiations of one moment carry the same timestamp, and the second one would be taken for a replay.
const SAME_MOMENT: Duration = Duration::from_millis(20);

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

/// What became of a peer after it was driven.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Health {
    Alive,
    Failed(&'static str),
}

pub(crate) struct Peer {
    pub(crate) public_key: PublicKey,
    pub(crate) tunnel: wireguard::Tunnel,
    pub(crate) reach: Reach,
    pub(crate) path: Option<Path>,
    pub(crate) kind: PathKind,
    pub(crate) path_since: Instant,
    pub(crate) path_why: PathWhy,
    /// The largest packet that the path is known to carry.
    pub(crate) max_packet: usize,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// Packets that wait for a way or a session, oldest first, and since when.
    waiting: VecDeque<(Instant, Buffer)>,
    /// Its timers moved since it was scheduled.
    pub(crate) is_touched: bool,
    has_session: bool,
    is_announced: bool,
    /// When the latest initiation left that nothing has answered.
    asked_at: Option<Instant>,
}

/// How a path to a peer is found.
pub(crate) enum Reach {
    /// By ICE, with the portal in between.
    Negotiated(Box<Negotiated>),
    /// It is where it was last heard.
    Fixed(Fixed),
}

impl Peer {
    pub(crate) fn negotiated(
        now: Instant,
        config: PeerConfig,
        tunnel: wireguard::Tunnel,
        stream: u64,
    ) -> Self {
        let public_key = config.public_key;
        let negotiated = Negotiated::new(now, config, stream);

        Self::new(
            now,
            public_key,
            tunnel,
            Reach::Negotiated(Box::new(negotiated)),
        )
    }

    pub(crate) fn fixed(now: Instant, config: FixedPeer, tunnel: wireguard::Tunnel) -> Self {
        let public_key = config.public_key;
        let fixed = Fixed::new(now, config);
        let path = fixed.configured_path();

        Self {
            path,
            ..Self::new(now, public_key, tunnel, Reach::Fixed(fixed))
        }
    }

    fn new(now: Instant, public_key: PublicKey, tunnel: wireguard::Tunnel, reach: Reach) -> Self {
        Self {
            public_key,
            tunnel,
            reach,
            path: None,
            kind: PathKind::Direct,
            path_since: now,
            path_why: PathWhy::Configured,
            max_packet: MAX_PACKET,
            sent_bytes: 0,
            received_bytes: 0,
            waiting: VecDeque::new(),
            is_touched: false,
            has_session: false,
            is_announced: false,
            asked_at: None,
        }
    }

    pub(crate) fn as_negotiated(&self) -> Option<&Negotiated> {
        match &self.reach {
            Reach::Negotiated(negotiated) => Some(negotiated),
            Reach::Fixed(_) => None,
        }
    }

    pub(crate) fn as_negotiated_mut(&mut self) -> Option<&mut Negotiated> {
        match &mut self.reach {
            Reach::Negotiated(negotiated) => Some(negotiated),
            Reach::Fixed(_) => None,
        }
    }

    pub(crate) fn as_fixed(&self) -> Option<&Fixed> {
        match &self.reach {
            Reach::Negotiated(_) => None,
            Reach::Fixed(fixed) => Some(fixed),
        }
    }

    /// The link was described again: the peer may have lost its half, so a handshake shows who is still there.
    pub(crate) fn refresh(&mut self, now: Instant) -> Option<Datagram> {
        let has_path = self.path.is_some();
        let negotiated = self.as_negotiated_mut()?;
        if !has_path || !negotiated.may_refresh(now) {
            return None;
        }

        self.tunnel.initiate(now)
    }

    /// Whether packets for it are kept until they can leave.
    pub(crate) fn keeps_packets(&self) -> bool {
        match &self.reach {
            Reach::Negotiated(_) => self.may_initiate() || self.is_announced,
            Reach::Fixed(_) => self.path.is_some(),
        }
    }

    /// Whether this end may ask for a session when a packet wants to leave. Of a link that comes up, the controlling end
    /// does (connections.md §7.3); later both may.
    pub(crate) fn may_initiate(&self) -> bool {
        match &self.reach {
            Reach::Negotiated(negotiated) => {
                self.is_announced || negotiated.config.role == Role::Controlling
            }
            Reach::Fixed(_) => true,
        }
    }

    /// Whether the other end decides about paths.
    pub(crate) fn is_controlled(&self) -> bool {
        self.as_negotiated()
            .is_some_and(|negotiated| negotiated.config.role == Role::Controlled)
    }

    /// A packet can't leave: no session, or no way for it.
    pub(crate) fn is_awaited(&mut self, now: Instant) {
        let has_path = self.path.is_some();
        if let Reach::Negotiated(negotiated) = &mut self.reach
            && has_path
        {
            negotiated.active(now);
            negotiated.liveness.sent(now);
        }
    }

    /// A packet leaves by the path in use.
    pub(crate) fn sent(&mut self, now: Instant, len: usize) {
        self.sent_bytes += len as u64;
        if let Reach::Negotiated(negotiated) = &mut self.reach {
            negotiated.active(now);
            negotiated.liveness.sent(now);
        }
    }

    /// An initiation leaves. If one before it had no answer, the address that it left from may be no more.
    pub(crate) fn asks(&mut self, now: Instant) {
        self.asked_at = Some(now);
        if let Reach::Fixed(fixed) = &mut self.reach
            && fixed.asks(now) == Asked::Again
        {
            self.forget_source();
        }
    }

    /// Leaves it to the operating system which address datagrams are sent from.
    pub(crate) fn forget_source(&mut self) {
        self.path = self.path.map(Path::with_any_source);
    }

    /// A datagram of the peer was believed; whether the peer is to be found where that came from.
    pub(crate) fn was_heard(&mut self) -> bool {
        match &mut self.reach {
            Reach::Negotiated(_) => false,
            Reach::Fixed(fixed) => {
                fixed.was_heard();
                true
            }
        }
    }

    /// The tunnel has given up; whether the peer is to be asked again at once, because packets wait.
    pub(crate) fn session_lost(&mut self, now: Instant) -> bool {
        self.has_session = false;
        match &mut self.reach {
            Reach::Negotiated(_) => false,
            Reach::Fixed(fixed) => fixed.goes_on(now) && !self.waiting.is_empty(),
        }
    }

    /// Starts over with other keys.
    pub(crate) fn renew(&mut self, tunnel: wireguard::Tunnel) {
        self.tunnel = tunnel;
        self.has_session = false;
        self.asked_at = None;
    }

    /// Whether the peer has left an initiation without an answer.
    pub(crate) fn is_asking(&self) -> bool {
        self.asked_at.is_some()
    }

    /// Switches to the pair that was nominated or heard; what to send on it, if anything is due.
    pub(crate) fn nominate(&mut self, now: Instant, path: Path, why: PathWhy) -> Option<Datagram> {
        if self.path == Some(path) {
            return None;
        }
        if self.path.is_some_and(|current| current.is_way_of(path)) {
            // Only the address to send from is known better.
            self.path = Some(path);
            return None;
        }
        let before = self.path;
        self.path_why = match before {
            Some(_) => why,
            None => PathWhy::First,
        };
        self.path = Some(path);
        self.path_since = now;
        self.max_packet = MAX_PACKET;
        self.kind = self.kind_of(path);
        let Reach::Negotiated(negotiated) = &mut self.reach else {
            return None;
        };
        negotiated.moved(now, before, self.kind);
        if negotiated.config.role == Role::Controlled {
            return None;
        }
        let since_asked = self.asked_at.map(|at| now.saturating_duration_since(at));
        let initiation = if !self.has_session {
            // Every pair that is nominated worked a moment ago, so that what left a moment ago arrives: answers to questions
            // that others took the place of are of no use. An older one may be lost on a path that is no more.
            if since_asked.is_some_and(|age| age < negotiated.liveness.patience()) {
                return None;
            }
            if let Some(rtt) = negotiated.agent.rtt() {
                self.tunnel.connects_over(rtt);
            }
            self.tunnel.restart(now)
        } else if before.is_some() && why != PathWhy::Better {
            // A session works on any path. But the other end follows where it hears us, and its agent may still think well
            // of the former path, which a question that is under way took.
            let is_fresh = since_asked.is_some_and(|age| age < SAME_MOMENT);
            (!is_fresh).then(|| self.tunnel.restart(now)).flatten()
        } else {
            None
        };
        if initiation.is_some() {
            self.asked_at = Some(now);
        }

        initiation
    }

    /// Through whose relays a path would run.
    pub(crate) fn kind_of(&self, path: Path) -> PathKind {
        let theirs = self
            .as_negotiated()
            .is_some_and(|negotiated| negotiated.agent.is_relay_of_peer(path.remote));

        PathKind::new(path.relay.is_some(), theirs)
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

    /// A first session is confirmed.
    pub(crate) fn session_confirmed(&mut self) {
        self.has_session = true;
        self.asked_at = None;
    }

    /// The peer answered an initiation, or asked itself.
    pub(crate) fn was_answered(&mut self) {
        self.asked_at = None;
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
        self.is_announced && self.is_usable() && self.waiting.is_empty()
    }

    /// Keeps a packet until it can leave; the oldest gives way, and whether one had to is returned.
    pub(crate) fn wait(&mut self, now: Instant, packet: Buffer) -> bool {
        let is_full = self.waiting.len() >= MAX_WAITING;
        if is_full {
            self.waiting.pop_front();
        }
        self.waiting.push_back((now, packet));

        is_full
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The packets that waited, oldest first, with since when; and how many had waited too long.
    pub(crate) fn take_waiting(&mut self, now: Instant) -> (VecDeque<(Instant, Buffer)>, usize) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let before = waiting.len();
        if self.as_negotiated().is_some() {
            waiting.retain(|(since, _)| now.saturating_duration_since(*since) <= MAX_WAIT);
        }
        let too_old = before - waiting.len();

        (waiting, too_old)
    }

    pub(crate) fn forget_waiting(&mut self, mut is_meant: impl FnMut(&[u8]) -> bool) {
        self.waiting.retain(|(_, packet)| !is_meant(packet));
    }

    /// Whether the link can still come up, or go on.
    pub(crate) fn health(&self, now: Instant) -> Health {
        match &self.reach {
            Reach::Negotiated(negotiated) => negotiated.health(now),
            Reach::Fixed(_) => Health::Alive,
        }
    }

    /// Lets time pass.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        self.tunnel.handle_timeout(now);
        let is_usable = self.is_usable();
        match &mut self.reach {
            Reach::Negotiated(negotiated) => {
                let path = (is_usable && self.waiting.is_empty()).then_some(self.kind);
                negotiated.handle_timeout(now, path).map(Due::Wanted)
            }
            Reach::Fixed(fixed) => fixed
                .wakes(now, self.tunnel.session_age(now))
                .then_some(Due::Session),
        }
    }

    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<(Instant, PeerReason)> {
        let reach = match &mut self.reach {
            Reach::Negotiated(negotiated) => negotiated.poll_timeout(),
            Reach::Fixed(fixed) => self
                .path
                .and_then(|_| fixed.poll_timeout(now, self.tunnel.session_age(now))),
        };
        let tunnel = self
            .tunnel
            .poll_timeout()
            .map(|at| (at, PeerReason::WireGuard));

        reach.into_iter().chain(tunnel).min()
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
}

/// What a peer's timers ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Due {
    /// A session, so that there is one to keep alive.
    Session,
    /// Something about the path.
    Wanted(Wanted),
}

/// What a peer waits for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum PeerReason {
    Candidates,
    Grace,
    Ice,
    Path,
    WireGuard,
}

//! What the links tell: events, reasons, refusals, counters, status.

use std::net::SocketAddr;
use std::time::Duration;

use connlib_wire::MAX_PACKET;
use connlib_wire::id::RelayId;

use crate::path::{Path, PathKind, PathWhy};
use crate::peer::{PeerId, PeerReason};

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
    /// No path to the peer has worked for three seconds. The link stays, and its paths are tried on; an owner who knows
    /// another peer for the same purpose may turn to that.
    Silent(PeerId),
    /// Nothing new was learnt for five seconds of the way to a peer that was never reached, and again each five seconds.
    /// Told to the controlling end alone. The link stays, as with [`Silent`](Self::Silent).
    Unanswered(PeerId),
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
    /// Whether the path in use still works is to be asked.
    Path,
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
    /// It is no IP packet.
    #[error("not an IP packet")]
    NotIp,
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
    /// Addresses of peers that can't be read, or at which nobody can be.
    pub candidates_unusable: u64,
    /// Addresses of peers that are our own.
    pub candidates_ours: u64,
    /// Addresses beyond the most that are tried for one peer.
    pub candidates_too_many: u64,
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
    /// Why it is this one; `None` as long as there is none.
    pub why: Option<PathWhy>,
    /// How long ago the session in use was agreed.
    pub handshake_age: Option<Duration>,
    /// How long checks on the path take to be answered, smoothed.
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

impl From<PeerReason> for Reason {
    fn from(reason: PeerReason) -> Self {
        match reason {
            PeerReason::Candidates => Self::Candidates,
            PeerReason::Grace => Self::Grace,
            PeerReason::Ice => Self::Ice,
            PeerReason::Path => Self::Path,
            PeerReason::WireGuard => Self::WireGuard,
        }
    }
}

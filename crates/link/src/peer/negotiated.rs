//! A peer that the portal introduces: which way it is reached, ICE finds out.

use std::time::{Duration, Instant};

use connlib_wire::id::RelayId;
use connlib_wire::key::{PresharedKey, PublicKey};
use connlib_wire::portal::IceCredentials;

use super::{Health, PeerReason};
use crate::ice::{self, Connectivity};
use crate::role::Role;

/// How long a peer may go without telling a candidate (connections.md §8).
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long no pair may work before the link has failed (connections.md §8).
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);

/// The least time between two handshakes that an upsert asks for (connections.md §7.3).
const UPSERT_HANDSHAKE_INTERVAL: Duration = Duration::from_secs(20);

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

/// What belongs to such a peer alone.
pub(crate) struct Negotiated {
    pub(crate) config: PeerConfig,
    pub(crate) agent: ice::Agent,
    /// The relay whose address we offer to this peer.
    pub(crate) relay: Option<RelayId>,
    /// Until when a first candidate must have come.
    candidates_due_at: Option<Instant>,
    disconnected_at: Option<Instant>,
    handshake_asked_at: Option<Instant>,
}

impl Negotiated {
    pub(super) fn new(now: Instant, config: PeerConfig, stream: u64) -> Self {
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
            agent,
            relay: None,
            candidates_due_at: Some(now + CANDIDATE_TIMEOUT),
            disconnected_at: None,
            handshake_asked_at: None,
        }
    }

    /// Whether a second description may cause a handshake, which shows who is still there.
    pub(super) fn may_refresh(&mut self, now: Instant) -> bool {
        let asked_lately = self
            .handshake_asked_at
            .is_some_and(|at| now.saturating_duration_since(at) < UPSERT_HANDSHAKE_INTERVAL);
        if self.config.role == Role::Controlled || asked_lately {
            return false;
        }
        self.handshake_asked_at = Some(now);

        true
    }

    pub(crate) fn add_remote(&mut self, candidate: is::Candidate) {
        self.candidates_due_at = None;
        self.agent.add_remote(candidate);
    }

    pub(crate) fn connectivity_changed(&mut self, now: Instant, connectivity: Connectivity) {
        match connectivity {
            Connectivity::Disconnected => {
                self.disconnected_at.get_or_insert(now);
            }
            Connectivity::Checking | Connectivity::Connected => self.disconnected_at = None,
        }
    }

    /// Whether the link can still come up, or go on.
    pub(super) fn health(&self, now: Instant) -> Health {
        if self.candidates_due_at.is_some_and(|at| at <= now) {
            return Health::Failed("the peer told no candidate");
        }
        if self.grace_ends_at().is_some_and(|at| at <= now) {
            return Health::Failed("no path works");
        }

        Health::Alive
    }

    pub(super) fn poll_timeout(&mut self) -> Option<(Instant, PeerReason)> {
        let agent = self.agent.poll_timeout().map(|at| (at, PeerReason::Ice));
        let candidates = self
            .candidates_due_at
            .map(|at| (at, PeerReason::Candidates));
        let grace = self.grace_ends_at().map(|at| (at, PeerReason::Grace));

        agent.into_iter().chain(candidates).chain(grace).min()
    }

    fn grace_ends_at(&self) -> Option<Instant> {
        self.disconnected_at.map(|at| at + DISCONNECT_GRACE)
    }
}

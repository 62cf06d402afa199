//! A peer that nobody introduces: its key and perhaps an address are known beforehand, as in plain WireGuard.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::key::{PresharedKey, PublicKey};

use super::PeerReason;
use crate::path::Path;

/// How long a peer is asked for a session before the packets that wait for it are given up: WireGuard's
/// REKEY_ATTEMPT_TIME.
const ATTEMPT_TIME: Duration = Duration::from_secs(90);

/// A peer without ICE, relays and portal. Two equal ones describe the same peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FixedPeer {
    /// Its WireGuard key.
    pub public_key: PublicKey,
    /// The key both ends mix into their handshakes, if they have one.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is to be found before it was heard. Without one, it has to speak first.
    pub endpoint: Option<SocketAddr>,
    /// How often it is sent something although there is nothing to say, so that firewalls in between keep the way open.
    /// Zero means never.
    pub keepalive: Option<Duration>,
}

/// From when on a session that is kept alive is replaced: WireGuard's REKEY_AFTER_TIME. An initiator stops to use one
/// before its end, which would be a gap.
const RENEW_AFTER: Duration = Duration::from_secs(120);

/// What belongs to such a peer alone.
pub(crate) struct Fixed {
    pub(crate) config: FixedPeer,
    /// When the peer is asked for a session at the earliest, although nothing waits.
    wake_at: Option<Instant>,
    /// Since when the peer is asked for a session and does not answer.
    asking_since: Option<Instant>,
}

/// Whether the peer was asked before, without an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Asked {
    FirstTime,
    Again,
}

impl Fixed {
    pub(super) fn new(now: Instant, config: FixedPeer) -> Self {
        Self {
            wake_at: config.keepalive.map(|_| now),
            config,
            asking_since: None,
        }
    }

    /// The way to the configured endpoint; from which address is the operating system's choice.
    pub(super) fn configured_path(&self) -> Option<Path> {
        let remote = self.config.endpoint?;

        let path = Path {
            local: remote,
            remote,
            relay: None,
        };

        Some(path.with_any_source())
    }

    /// An initiation leaves.
    pub(super) fn asks(&mut self, now: Instant) -> Asked {
        match self.asking_since {
            Some(_) => Asked::Again,
            None => {
                self.asking_since = Some(now);
                Asked::FirstTime
            }
        }
    }

    /// The peer has proved that it is there.
    pub(super) fn was_heard(&mut self) {
        self.asking_since = None;
    }

    /// The tunnel gave up; whether the peer is to be asked again at once, since it wasn't for long enough.
    pub(super) fn goes_on(&mut self, now: Instant) -> bool {
        let goes_on = self
            .asking_since
            .is_some_and(|since| now.saturating_duration_since(since) < ATTEMPT_TIME);
        if !goes_on {
            self.asking_since = None;
        }

        goes_on
    }

    /// Whether the peer is to be asked for a session, so that there is one to keep alive.
    pub(super) fn wakes(&mut self, now: Instant, session_age: Option<Duration>) -> bool {
        if self.due_at(now, session_age).is_none_or(|at| at > now) {
            return false;
        }
        self.wake_at = self.config.keepalive.map(|interval| now + interval);

        true
    }

    pub(super) fn poll_timeout(
        &self,
        now: Instant,
        session_age: Option<Duration>,
    ) -> Option<(Instant, PeerReason)> {
        self.due_at(now, session_age)
            .map(|at| (at, PeerReason::WireGuard))
    }

    fn due_at(&self, now: Instant, session_age: Option<Duration>) -> Option<Instant> {
        let renewed_at = session_age.map(|age| now + RENEW_AFTER.saturating_sub(age));

        self.wake_at
            .map(|at| renewed_at.map_or(at, |renewed_at| at.max(renewed_at)))
    }
}

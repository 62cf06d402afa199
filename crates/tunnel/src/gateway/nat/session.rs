//! One flow in the table: how long it lasts.

use std::time::{Duration, Instant};

use super::flows::{Inside, Kind, Outside};

/// A flow that is translated.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) inside: Inside,
    pub(super) outside: Outside,
    pub(super) sent_at: Instant,
    pub(super) received_at: Option<Instant>,
    pub(super) look_at: Instant,
    pub(super) end: End,
}

/// How far a TCP flow is over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct End {
    pub(super) client_is_done: bool,
    pub(super) resource_is_done: bool,
    pub(super) is_reset: bool,
}

/// How long a flow lasts without packets (gateway.md §1). TCP keep-alives of two hours find it (RFC 5382 REQ-5).
const TCP_TTL: Duration = Duration::from_secs(7_440);
const UDP_TTL: Duration = Duration::from_secs(120);
const ECHO_TTL: Duration = Duration::from_secs(120);

/// How long one lasts that was never answered.
pub(super) const UNANSWERED_TTL: Duration = Duration::from_secs(60);

/// How long TCP goes on after both ends have finished.
const LINGER: Duration = Duration::from_secs(5);

impl Session {
    /// When it ends unless it is used again.
    pub(super) fn ends_at(&self) -> Instant {
        let latest = self
            .received_at
            .map_or(self.sent_at, |received_at| received_at.max(self.sent_at));
        let ttl = match self.inside.kind {
            Kind::Tcp => TCP_TTL,
            Kind::Udp => UDP_TTL,
            Kind::Echo => ECHO_TTL,
        };
        let unanswered = match self.received_at {
            Some(_) => None,
            None => Some(self.sent_at + UNANSWERED_TTL),
        };

        [Some(latest + ttl), unanswered, self.ends_early(latest)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(latest)
    }

    /// When a TCP flow that says it is over is, its latest packet having been at `latest`.
    pub(super) fn ends_early(&self, latest: Instant) -> Option<Instant> {
        if self.end.is_reset {
            return Some(latest);
        }

        (self.end.client_is_done && self.end.resource_is_done).then(|| latest + LINGER)
    }
}

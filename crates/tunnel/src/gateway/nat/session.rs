//! One flow in the table: how long it lasts.

use std::time::{Duration, Instant};

use super::flows::{Inside, Kind, Outside};

/// A flow that is translated: one line of the processor's cache, as a packet of a flow that rested waits for each.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Session {
    pub(super) inside: Inside,
    pub(super) outside: Outside,
    /// When the latest packet passed, either way.
    pub(super) used_at: Instant,
    pub(super) is_answered: bool,
    pub(super) end: End,
}

const _: () = assert!(size_of::<Session>() == 64);

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
const UNANSWERED_TTL: Duration = Duration::from_secs(60);

/// How long TCP goes on after both ends have finished.
const LINGER: Duration = Duration::from_secs(5);

impl Session {
    /// When it ends unless it is used again.
    pub(super) fn ends_at(&self) -> Instant {
        let ttl = match self.inside.kind {
            _ if !self.is_answered => UNANSWERED_TTL,
            Kind::Tcp => TCP_TTL,
            Kind::Udp => UDP_TTL,
            Kind::Echo => ECHO_TTL,
        };
        let unused = self.used_at + ttl;

        self.ends_early(self.used_at)
            .map_or(unused, |ends_at| ends_at.min(unused))
    }

    /// When a TCP flow that says it is over is, its latest packet having been at `latest`.
    pub(super) fn ends_early(&self, latest: Instant) -> Option<Instant> {
        if self.end.is_reset {
            return Some(latest);
        }

        (self.end.client_is_done && self.end.resource_is_done).then(|| latest + LINGER)
    }
}

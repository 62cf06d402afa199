//! Packets that wait for access, and how often it is asked for (client.md §6).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::id::ResourceId;
use connlib_wire::ip::IcmpError;
use connlib_wire::super_packet::SuperPacket;

/// The least time between two requests for one resource (portal-protocol.md §9.2).
const REPEAT_INTERVAL: Duration = Duration::from_secs(2);

/// After this much silence nobody waits for an answer any longer.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// The most packets kept per resource; the oldest gives way.
const MAX_HELD: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Requests {
    by_resource: BTreeMap<ResourceId, Request>,
}

#[derive(Debug)]
enum Request {
    Pending {
        first_asked_at: Instant,
        ask_again_at: Instant,
        held: VecDeque<Buffer>,
        needs_relay: bool,
    },
    Refused {
        until: Instant,
        error: IcmpError,
    },
}

/// What became of a packet without access.
pub(super) enum Asked {
    /// It is the first: ask.
    Now,
    /// It waits with others.
    Already,
    /// Access was refused a moment ago.
    Refused(IcmpError),
}

impl Requests {
    pub(super) fn hold(
        &mut self,
        now: Instant,
        resource: ResourceId,
        packet: &mut SuperPacket<Buffer>,
        pool: &Pool,
    ) -> Asked {
        let held = match self.by_resource.get_mut(&resource) {
            Some(Request::Refused { until, error }) if *until > now => {
                return Asked::Refused(*error);
            }
            Some(Request::Pending { held, .. }) => {
                keep(held, packet, pool);
                return Asked::Already;
            }
            Some(Request::Refused { .. }) | None => {
                let mut held = VecDeque::new();
                keep(&mut held, packet, pool);
                held
            }
        };
        let request = Request::Pending {
            first_asked_at: now,
            ask_again_at: now + REPEAT_INTERVAL,
            held,
            needs_relay: false,
        };
        self.by_resource.insert(resource, request);

        Asked::Now
    }

    pub(super) fn is_pending(&self, resource: ResourceId) -> bool {
        matches!(
            self.by_resource.get(&resource),
            Some(Request::Pending { .. })
        )
    }

    /// Access is granted: the packets may go, in order.
    pub(super) fn granted(&mut self, resource: ResourceId) -> VecDeque<Buffer> {
        match self.by_resource.remove(&resource) {
            Some(Request::Pending { held, .. }) => held,
            Some(Request::Refused { .. }) | None => VecDeque::new(),
        }
    }

    /// Access is refused: the packets go nowhere, nor do others for a moment.
    pub(super) fn refused(
        &mut self,
        now: Instant,
        resource: ResourceId,
        error: IcmpError,
    ) -> VecDeque<Buffer> {
        let held = self.granted(resource);
        let until = now + REPEAT_INTERVAL;
        self.by_resource
            .insert(resource, Request::Refused { until, error });

        held
    }

    pub(super) fn forget(&mut self, resource: ResourceId) {
        self.by_resource.remove(&resource);
    }

    /// Access was granted but can't be used without a relay.
    pub(super) fn wait_for_relay(&mut self, resource: ResourceId) {
        if let Some(Request::Pending { needs_relay, .. }) = self.by_resource.get_mut(&resource) {
            *needs_relay = true;
        }
    }

    /// Relays came: what only lacked one is asked for at once.
    pub(super) fn retry_without_relay(&mut self, now: Instant) {
        for request in self.by_resource.values_mut() {
            if let Request::Pending {
                needs_relay,
                ask_again_at,
                ..
            } = request
                && std::mem::take(needs_relay)
            {
                *ask_again_at = now;
            }
        }
    }

    /// The portal is back: requests may have been lost.
    pub(super) fn ask_again(&mut self, now: Instant) {
        for request in self.by_resource.values_mut() {
            if let Request::Pending { ask_again_at, .. } = request {
                *ask_again_at = now;
            }
        }
    }

    /// What to ask for again. Requests that nobody answers end, and so does the memory of refusals.
    pub(super) fn due(&mut self, now: Instant) -> Vec<ResourceId> {
        self.by_resource.retain(|_, request| match request {
            Request::Pending { first_asked_at, .. } => *first_asked_at + GIVE_UP_AFTER > now,
            Request::Refused { until, .. } => *until > now,
        });
        let mut due = Vec::new();
        for (resource, request) in &mut self.by_resource {
            if let Request::Pending { ask_again_at, .. } = request
                && *ask_again_at <= now
            {
                *ask_again_at = now + REPEAT_INTERVAL;
                due.push(*resource);
            }
        }

        due
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = self.by_resource.values().map(|request| match request {
            Request::Pending {
                first_asked_at,
                ask_again_at,
                ..
            } => (*ask_again_at).min(*first_asked_at + GIVE_UP_AFTER),
            Request::Refused { until, .. } => *until,
        });

        deadlines.min()
    }
}

/// Adds a packet, each segment by itself, to those that wait.
fn keep(held: &mut VecDeque<Buffer>, packet: &mut SuperPacket<Buffer>, pool: &Pool) {
    let mut segments = packet.split();
    while let Some(segment) = segments.next_segment() {
        // A retransmission adds nothing but a burst later.
        if held.iter().any(|held| **held == *segment) {
            continue;
        }
        if held.len() >= MAX_HELD {
            held.pop_front();
        }
        held.extend(pool.copy(segment));
    }
}

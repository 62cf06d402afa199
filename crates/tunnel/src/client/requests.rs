//! What waits for access, and how often that is asked for (client.md §6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::dns::{Name, Query};
use connlib_wire::id::ResourceId;
use connlib_wire::ip::{IcmpError, Packet};
use connlib_wire::super_packet::SuperPacket;

use crate::dns::Asker;

/// The least time between two requests for one resource (portal-protocol.md §9.2). It doubles with each that nobody answers.
const REPEAT_INTERVAL: Duration = Duration::from_secs(2);

/// For how long a refusal counts at most; each in a row counts for twice as long as the one before. A policy is seldom changed, and
/// that is told; that a gateway is back is not.
const MAX_PROHIBITED: Duration = Duration::from_secs(30);
const MAX_UNREACHABLE: Duration = Duration::from_secs(4);

/// The least time between two times that access to one resource is found to have ended.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);

/// After this much silence nobody waits for an answer any longer.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// The most packets kept per resource; the oldest gives way.
const MAX_HELD: usize = 128;

/// The most names per resource that a gateway is told of as soon as there is one; the others wait for a packet.
const MAX_NAMES: usize = 512;

/// The most questions kept per resource.
const MAX_QUESTIONS: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Requests {
    by_resource: BTreeMap<ResourceId, Request>,
    /// When access was last asked for anew that a gateway says there is none.
    renewed: BTreeMap<ResourceId, Instant>,
}

#[derive(Debug)]
enum Request {
    Pending(Pending),
    Refused(Refusal),
}

/// That access was refused. It is remembered for as long again as it has counted, so that the next one counts for longer.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    until: Instant,
    counts_for: Duration,
    error: IcmpError,
}

#[derive(Debug)]
struct Pending {
    first_asked_at: Instant,
    ask_again_at: Instant,
    /// How long after the latest request that is.
    interval: Duration,
    /// For how long the refusal before it counted.
    refused_for: Duration,
    needs_relay: bool,
    held: VecDeque<Buffer>,
    /// The names that are about to be used.
    names: BTreeSet<Name>,
    questions: Vec<Question>,
}

/// A question for a name server of the resource's site.
#[derive(Debug)]
struct Question {
    until: Instant,
    asker: Asker,
    query: Query,
}

/// What became of a wish for access.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    /// It is the first: ask.
    Now,
    /// It waits with others.
    Already,
    /// Access was refused a moment ago.
    Refused(IcmpError),
}

/// What has waited.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) packets: VecDeque<Buffer>,
    pub(super) names: BTreeSet<Name>,
    pub(super) questions: Vec<(Asker, Query)>,
}

/// What the time brings.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// What to ask for again.
    pub(super) ask: Vec<ResourceId>,
    /// Questions that have waited for too long.
    pub(super) unanswered: Vec<(Asker, Query)>,
}

impl Requests {
    /// Lets a packet wait for access.
    pub(super) fn hold(
        &mut self,
        now: Instant,
        resource: ResourceId,
        packet: &mut SuperPacket<Buffer>,
        pool: &Pool,
    ) -> Asked {
        let (asked, pending) = self.pending(now, resource);
        if let Some(pending) = pending {
            keep(&mut pending.held, packet, pool);
        }

        asked
    }

    /// Asks for access because a name is about to be used.
    pub(super) fn want(&mut self, now: Instant, resource: ResourceId, name: &Name) -> Asked {
        let (asked, pending) = self.pending(now, resource);
        if let Some(pending) = pending
            && pending.names.len() < MAX_NAMES
        {
            pending.names.insert(name.clone());
        }

        asked
    }

    /// Asks for access anew that there was. False if that was done lately: whoever lets nothing pass although the portal grants
    /// it would have it asked for without end.
    pub(super) fn renew(&mut self, now: Instant, resource: ResourceId) -> bool {
        let was_lately = self
            .renewed
            .get(&resource)
            .is_some_and(|at| now.saturating_duration_since(*at) < RENEW_INTERVAL);
        if was_lately || self.by_resource.contains_key(&resource) {
            return false;
        }
        self.renewed.insert(resource, now);
        self.pending(now, resource);

        true
    }

    /// Lets a question wait for access; gives it back with the reason if it may not.
    pub(super) fn hold_question(
        &mut self,
        now: Instant,
        resource: ResourceId,
        (asker, query): (Asker, Query),
        until: Instant,
    ) -> Result<Asked, (Asker, Query, IcmpError)> {
        let (asked, pending) = self.pending(now, resource);
        let error = match (asked, pending) {
            (_, Some(pending)) if pending.questions.len() < MAX_QUESTIONS => {
                // Programs choose numbers as they like: only the same question is the same.
                let is_new = |other: &Question| (other.asker, &other.query) != (asker, &query);
                if pending.questions.iter().all(is_new) {
                    pending.questions.push(Question {
                        until,
                        asker,
                        query,
                    });
                }
                return Ok(asked);
            }
            (Asked::Refused(error), _) => error,
            (Asked::Now | Asked::Already, _) => IcmpError::Unreachable,
        };

        Err((asker, query, error))
    }

    /// Why access was refused a moment ago, if it was.
    pub(super) fn refusal(&self, now: Instant, resource: ResourceId) -> Option<IcmpError> {
        match self.by_resource.get(&resource) {
            Some(Request::Refused(refusal)) if refusal.until > now => Some(refusal.error),
            Some(Request::Refused(_) | Request::Pending(_)) | None => None,
        }
    }

    pub(super) fn is_pending(&self, resource: ResourceId) -> bool {
        matches!(self.by_resource.get(&resource), Some(Request::Pending(_)))
    }

    pub(super) fn is_any_pending(&self) -> bool {
        self.by_resource
            .values()
            .any(|request| matches!(request, Request::Pending(_)))
    }

    /// Takes the packets that wait, for they may have to go elsewhere now.
    pub(super) fn take_waiting(&mut self) -> Vec<Buffer> {
        let mut waiting = Vec::new();
        for request in self.by_resource.values_mut() {
            if let Request::Pending(pending) = request {
                waiting.extend(pending.held.drain(..));
            }
        }

        waiting
    }

    /// Access is granted: what waited may go, in order.
    pub(super) fn granted(&mut self, resource: ResourceId) -> Held {
        self.forget(resource)
    }

    /// Access is refused: what waited goes nowhere, nor does anything else for a moment.
    pub(super) fn refused(&mut self, now: Instant, resource: ResourceId, error: IcmpError) -> Held {
        let refused_for = match self.by_resource.get(&resource) {
            Some(Request::Pending(pending)) => pending.refused_for,
            Some(Request::Refused(refusal)) => refusal.counts_for,
            None => Duration::ZERO,
        };
        let most = match error {
            IcmpError::Prohibited => MAX_PROHIBITED,
            IcmpError::Unreachable | IcmpError::TooBig { .. } | _ => MAX_UNREACHABLE,
        };
        let counts_for = (refused_for * 2).clamp(REPEAT_INTERVAL, most);
        let held = self.forget(resource);
        let refusal = Refusal {
            until: now + counts_for,
            counts_for,
            error,
        };
        self.by_resource.insert(resource, Request::Refused(refusal));

        held
    }

    /// Resources have changed: what was refused may be granted now.
    pub(super) fn forget_refusals(&mut self) {
        let is_pending = |request: &Request| matches!(request, Request::Pending(_));
        self.by_resource.retain(|_, request| is_pending(request));
    }

    pub(super) fn forget(&mut self, resource: ResourceId) -> Held {
        match self.by_resource.remove(&resource) {
            Some(Request::Pending(pending)) => Held {
                packets: pending.held,
                names: pending.names,
                questions: pending
                    .questions
                    .into_iter()
                    .map(|question| (question.asker, question.query))
                    .collect(),
            },
            Some(Request::Refused(_)) | None => Held::default(),
        }
    }

    /// Access was granted but can't be used without a relay.
    pub(super) fn wait_for_relay(&mut self, resource: ResourceId) {
        if let Some(Request::Pending(pending)) = self.by_resource.get_mut(&resource) {
            pending.needs_relay = true;
        }
    }

    /// Relays came: what only lacked one is asked for at once.
    pub(super) fn retry_without_relay(&mut self, now: Instant) {
        for request in self.by_resource.values_mut() {
            if let Request::Pending(pending) = request
                && std::mem::take(&mut pending.needs_relay)
            {
                pending.ask_at_once(now);
            }
        }
    }

    /// The portal is back: requests may have been lost.
    pub(super) fn ask_again(&mut self, now: Instant) {
        for request in self.by_resource.values_mut() {
            if let Request::Pending(pending) = request {
                pending.ask_at_once(now);
            }
        }
    }

    /// What to ask for again, and who has waited for too long. Requests that nobody answers end, and so does the memory of
    /// refusals.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        for (resource, request) in &mut self.by_resource {
            let Request::Pending(pending) = request else {
                continue;
            };
            let is_over = pending.gives_up_at() <= now;
            let late = |question: &mut Question| is_over || question.until <= now;
            let late = pending.questions.extract_if(.., late);
            due.unanswered
                .extend(late.map(|question| (question.asker, question.query)));
            if !is_over && pending.ask_again_at <= now {
                pending.ask_again_at = now + pending.interval;
                pending.interval *= 2;
                due.ask.push(*resource);
            }
        }
        self.renewed
            .retain(|_, at| now.saturating_duration_since(*at) < RENEW_INTERVAL);
        self.by_resource.retain(|_, request| match request {
            Request::Pending(pending) => pending.gives_up_at() > now,
            Request::Refused(refusal) => refusal.is_remembered_until() > now,
        });

        due
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = self.by_resource.values().map(|request| match request {
            Request::Pending(pending) => {
                let questions = pending.questions.iter().map(|question| question.until);
                let own = pending.ask_again_at.min(pending.gives_up_at());
                questions.min().map_or(own, |first| first.min(own))
            }
            Request::Refused(refusal) => refusal.is_remembered_until(),
        });

        deadlines.min()
    }

    /// The request for a resource that is under way, and what a wish for it comes to.
    fn pending(&mut self, now: Instant, resource: ResourceId) -> (Asked, Option<&mut Pending>) {
        let (is_known, refused_for) = match self.by_resource.get(&resource) {
            Some(Request::Refused(refusal)) if refusal.until > now => {
                return (Asked::Refused(refusal.error), None);
            }
            Some(Request::Refused(refusal)) => (false, refusal.counts_for),
            Some(Request::Pending(_)) => (true, Duration::ZERO),
            None => (false, Duration::ZERO),
        };
        if !is_known {
            let pending = Pending {
                first_asked_at: now,
                ask_again_at: now + REPEAT_INTERVAL,
                interval: REPEAT_INTERVAL * 2,
                refused_for,
                needs_relay: false,
                held: VecDeque::new(),
                names: BTreeSet::new(),
                questions: Vec::new(),
            };
            self.by_resource.insert(resource, Request::Pending(pending));
        }
        let asked = if is_known { Asked::Already } else { Asked::Now };

        match self.by_resource.get_mut(&resource) {
            Some(Request::Pending(pending)) => (asked, Some(pending)),
            Some(Request::Refused(_)) | None => (asked, None),
        }
    }
}

impl Refusal {
    fn is_remembered_until(&self) -> Instant {
        self.until + self.counts_for
    }
}

impl Pending {
    fn ask_at_once(&mut self, now: Instant) {
        self.ask_again_at = now;
        self.interval = REPEAT_INTERVAL;
    }

    fn gives_up_at(&self) -> Instant {
        self.first_asked_at + GIVE_UP_AFTER
    }
}

/// Adds a packet, each segment by itself, to those that wait.
pub(super) fn keep(held: &mut VecDeque<Buffer>, packet: &mut SuperPacket<Buffer>, pool: &Pool) {
    let mut segments = packet.split();
    while let Some(segment) = segments.next_segment() {
        // A retransmission adds nothing but a burst later.
        if held.iter().any(|held| **held == *segment) {
            continue;
        }
        if let Some(opens) = opening_of(segment) {
            held.retain(|held| opening_of(held) != Some(opens));
        }
        if held.len() >= MAX_HELD {
            held.pop_front();
        }
        held.extend(pool.copy(segment));
    }
}

/// The connection that a segment opens: where from, where to, and at which sequence number. One that is sent again differs in
/// nothing but its number as an IP packet, and at most its options (client.md §6).
fn opening_of(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, [u8; 4])> {
    let packet = Packet::parse(bytes).ok()?;
    let flags = packet.tcp_flags()?;
    if !flags.is_syn() || flags.is_ack() {
        return None;
    }
    let from = SocketAddr::new(packet.source(), packet.source_port()?);
    let to = SocketAddr::new(packet.destination(), packet.destination_port()?);
    let number = packet.transport_bytes().get(4..)?.first_chunk::<4>()?;

    Some((from, to, *number))
}

#[cfg(test)]
mod tests;

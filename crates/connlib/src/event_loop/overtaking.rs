//! Packets that were opened before others that came earlier: who may leave at once, and who has to wait for those.
//!
//! Only after it was opened can a small packet's flow be known. It leaves at once if its flow is known for small packets and
//! had no large one for a while; all others wait until what came before them is opened too. So a flow that sends large
//! packets and small ones keeps its order. Two exceptions are left, both while trains wait: a flow known for small packets alone
//! that sends its first large one, and a small one behind it; and packets of such a flow that come in parts. The small one may
//! come first then.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::ip::{Packet, flow_hash};
use connlib_wire::stun::Family;

use super::arrivals::{Place, SMALL};

/// What is remembered of flows and of trains under way, and the packets that wait.
#[derive(Debug)]
pub(super) struct Overtaking {
    seed: u64,
    flows: Vec<Flow>,
    /// Trains that go before others, in the order they were begun.
    under_way: VecDeque<UnderWay>,
    held: VecDeque<Held>,
    pool: Pool,
    /// How many trains were begun so far.
    begun: u64,
}

/// One flow, or those of several that share a place in the table.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    hash: u32,
    /// Whether a small packet of exactly this flow has been seen.
    is_known: bool,
    /// When a large packet of any flow that shares the place was seen last.
    large_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    number: u64,
    origin: Origin,
}

/// Where a train has waited.
pub(super) type Origin = (Family, Place);

#[derive(Debug)]
struct Held {
    origin: Origin,
    packet: Buffer,
}

/// The places for flows, and how long one has to be without large packets before it may overtake: longer than anything
/// stands.
const FLOWS: usize = 4_096;
const QUIET: Duration = Duration::from_millis(250);

/// The longest packet whose datagram is small for sure: sixteen bytes at a time, a header and a tag of sixteen bytes each
/// (WireGuard §5.4.6), and four for a relay's channel.
const SMALL_PACKET: usize = SMALL - 15 - 2 * 16 - 4;

/// The most packets that wait; beyond them order is not kept.
const MAX_HELD: usize = 1_024;

/// The buffers kept for packets that wait.
const IDLE: usize = 64;

impl Overtaking {
    /// Nothing is known. `seed` keeps outsiders from sharing places on purpose.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            flows: vec![Flow::default(); FLOWS],
            under_way: VecDeque::new(),
            held: VecDeque::new(),
            pool: Pool::new(SMALL, IDLE),
            begun: 0,
        }
    }

    /// A train is begun, which goes before others if it has an origin; the number by which its packets are known later.
    pub(super) fn begin(&mut self, origin: Option<Origin>) -> u64 {
        self.begun += 1;
        let number = self.begun;
        if let Some(origin) = origin {
            self.under_way.push_back(UnderWay { number, origin });
        }

        number
    }

    /// Where the train waited whose packets are opened now, if it has gone before others. Trains come in the order they
    /// were begun; of some nothing comes.
    pub(super) fn opened(&mut self, number: u64) -> Option<Origin> {
        while let Some(first) = self.under_way.front() {
            if first.number > number {
                break;
            }
            let first = self.under_way.pop_front()?;
            if first.number == number {
                return Some(first.origin);
            }
        }

        None
    }

    /// Takes note of a packet that leaves.
    pub(super) fn note(&mut self, now: Instant, packet: &[u8]) {
        let Some(hash) = self.hash(packet) else {
            return;
        };
        let Some(flow) = self.place(hash) else {
            return;
        };
        if packet.len() > SMALL_PACKET {
            flow.is_known &= flow.hash == hash;
            flow.large_at = Some(now);
        } else if flow.hash != hash || !flow.is_known {
            (flow.hash, flow.is_known) = (hash, true);
        }
    }

    /// Of packets of a train that has gone before others: whether this one may leave, too.
    pub(super) fn may_leave(&mut self, now: Instant, packet: &[u8]) -> bool {
        let Some(hash) = self.hash(packet) else {
            return false;
        };
        let is_quiet = |at: Instant| now.saturating_duration_since(at) >= QUIET;

        self.place(hash).is_some_and(|flow| {
            flow.is_known && flow.hash == hash && flow.large_at.is_none_or(is_quiet)
        })
    }

    /// Keeps the packet at `range` of `memory` until what came before it has left; whether there is room.
    pub(super) fn hold(&mut self, origin: Origin, memory: &[u8], range: Range<usize>) -> bool {
        let packet = memory.get(range).and_then(|packet| self.pool.copy(packet));
        let Some(packet) = packet.filter(|_| self.held.len() < MAX_HELD) else {
            return false;
        };
        self.held.push_back(Held { origin, packet });

        true
    }

    /// The next packet that has waited long enough, all before it having left.
    pub(super) fn release(&mut self, is_past: impl Fn(Origin) -> bool) -> Option<Buffer> {
        let index = self.held.iter().position(|held| is_past(held.origin))?;

        self.held.remove(index).map(|held| held.packet)
    }

    /// Whether packets wait.
    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Forgets what is under way and what waits.
    pub(super) fn clear(&mut self) {
        self.under_way.clear();
        self.held.clear();
    }

    /// Lets memory go that a load has left behind.
    pub(super) fn trim(&mut self) {
        self.pool.trim();
    }

    fn hash(&self, packet: &[u8]) -> Option<u32> {
        let packet = Packet::parse(packet).ok()?;

        Some(flow_hash(&packet, self.seed))
    }

    fn place(&mut self, hash: u32) -> Option<&mut Flow> {
        let index = usize::try_from(hash).unwrap_or_default() % FLOWS;

        self.flows.get_mut(index)
    }
}

#[cfg(test)]
mod tests;

//! Fair shares between the TUN device and the cipher: what can't be sent yet waits here, in order within a flow.
//!
//! A deficit round robin of two levels (FQ-CoDel, RFC 8290, with lanes above its flows): lanes, one per peer, take turns,
//! and within a lane its flows do. A lane or flow that had nothing waiting goes before those that had, for one quantum: a
//! sparse flow waits for nobody's bulk. Each flow's queue is bounded in time by [`Codel`], beyond that by [`MAX_WAIT`], and
//! all of them together in bytes.
//!
//! Sealing comes after, so that counters leave in order; and whoever empties this queue does so as far as sockets take it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::time::{Duration, Instant};

use connlib_wire::buffer::Buffer;
use connlib_wire::ecn::Ecn;
use connlib_wire::super_packet::SuperPacket;

use super::codel::Codel;
use super::stats::{DropReason, Stats};
use super::turns::Turns;

/// What a lane or flow may send before another's turn (field.md §5.2).
const QUANTUM: i64 = 16 * 1024;

/// How long a packet may wait in a queue that stands (field.md §5.2).
const TARGET: Duration = Duration::from_millis(5);

/// How long a queue may stand before its sender is told: a long round trip.
const INTERVAL: Duration = Duration::from_millis(100);

/// No packet waits longer: what is older goes nowhere (field.md §5.2).
pub(super) const MAX_WAIT: Duration = Duration::from_millis(20);

/// The most bytes that wait in all: twenty milliseconds at 3 Gbit/s.
pub(super) const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The most packets that wait in all, whatever their size.
pub(super) const MAX_PACKETS: usize = 4_096;

/// Packets that wait, by whom they are for and which flow they belong to.
pub(super) struct FairQueue<L> {
    lanes: Vec<Lane<L>>,
    flows: Vec<Flow>,
    by_id: HashMap<L, usize>,
    by_key: HashMap<(usize, u32), usize>,
    free_lanes: Vec<usize>,
    free_flows: Vec<usize>,
    turns: Turns,
    bytes: usize,
    packets: usize,
    clock: Option<QueueClock>,
}

/// Time as the queue counts it: what the loop itself was held up, by a machine that gave it no processor, is no standing
/// time that a sender could do anything about.
#[derive(Clone, Copy, Debug)]
struct QueueClock {
    seen: Instant,
    now: Instant,
    /// Whether the loop wanted to go on at once when it was seen last.
    is_pressed: bool,
}

/// The most that time goes on between two looks of a loop that wanted to go on at once.
const MAX_STEP: Duration = Duration::from_millis(2);

/// A packet whose turn it is.
#[derive(Debug)]
pub(super) struct Served<L> {
    pub(super) lane: L,
    pub(super) packet: SuperPacket<Buffer>,
    /// How many of its first segments are left out, because its flow's queue stands.
    pub(super) skip: usize,
    /// The core's count when it was routed.
    pub(super) revision: u64,
}

#[derive(Debug)]
struct Lane<L> {
    id: Option<L>,
    deficit: i64,
    turns: Turns,
    flows: usize,
    packets: usize,
}

#[derive(Debug)]
struct Flow {
    lane: usize,
    hash: u32,
    deficit: i64,
    bytes: usize,
    codel: Codel,
    packets: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    packet: SuperPacket<Buffer>,
    since: Instant,
    revision: u64,
}

impl<L: Copy + Eq + Hash> FairQueue<L> {
    pub(super) fn new() -> Self {
        Self {
            lanes: Vec::new(),
            flows: Vec::new(),
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            free_lanes: Vec::new(),
            free_flows: Vec::new(),
            turns: Turns::default(),
            bytes: 0,
            packets: 0,
            clock: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Adds a packet to its flow, which `hash` stands for. What is too much is dropped where most waits.
    pub(super) fn push(
        &mut self,
        now: Instant,
        lane: L,
        hash: u32,
        packet: SuperPacket<Buffer>,
        revision: u64,
        stats: &mut Stats,
    ) {
        let now = self.clock(now);
        let lane = self.lane(lane);
        let index = self.flow(lane, hash);
        let len = packet.bytes().len();
        if let Some(flow) = self.flows.get_mut(index) {
            flow.bytes += len;
            flow.packets.push_back(Waiting {
                packet,
                since: now,
                revision,
            });
            self.bytes += len;
            self.packets += 1;
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.packets += 1;
            }
        }
        while self.bytes > MAX_BYTES || self.packets > MAX_PACKETS {
            if !self.drop_of_fattest(stats) {
                break;
            }
        }
    }

    /// Whether anything waits in a lane that `may_go`.
    pub(super) fn has_any(&self, may_go: impl Fn(L) -> bool) -> bool {
        let waiting = self.lanes.iter().filter(|lane| lane.packets > 0);

        self.packets > 0 && waiting.filter_map(|lane| lane.id).any(may_go)
    }

    /// Takes the packet whose turn it is, of the lanes that `may_go`.
    pub(super) fn pop(
        &mut self,
        now: Instant,
        may_go: impl Fn(L) -> bool,
        stats: &mut Stats,
    ) -> Option<Served<L>> {
        let now = self.clock(now);
        let mut held_back = 0;
        loop {
            let at = self.turns.front()?;
            let lane = self.lanes.get_mut(at)?;
            if !lane.id.is_some_and(&may_go) {
                held_back += 1;
                if held_back > self.by_id.len() {
                    return None;
                }
                self.turns.rotate();
                continue;
            }
            held_back = 0;
            if lane.deficit <= 0 {
                lane.deficit += QUANTUM;
                self.turns.rotate();
                continue;
            }
            let Some(index) = lane.turns.front() else {
                if self.turns.leave() {
                    self.free_lane(at);
                }
                continue;
            };
            let flow = self.flows.get_mut(index)?;
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                lane.turns.rotate();
                continue;
            }
            let before = flow.packets.len();
            let taken = flow.take(now, &mut self.bytes, &mut self.packets, stats);
            lane.packets -= before - flow.packets.len();
            let Some((waiting, skip)) = taken else {
                if lane.turns.leave() {
                    self.free_flow(index);
                }
                continue;
            };

            let len = i64::try_from(waiting.packet.bytes().len()).unwrap_or(QUANTUM);
            flow.deficit -= len;
            lane.deficit -= len;
            let id = lane.id?;
            return Some(Served {
                lane: id,
                packet: waiting.packet,
                skip,
                revision: waiting.revision,
            });
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Says whether the loop wants to go on at once.
    pub(super) fn is_pressed(&mut self, is_pressed: bool) {
        if let Some(clock) = &mut self.clock {
            clock.is_pressed = is_pressed;
        }
    }

    fn clock(&mut self, now: Instant) -> Instant {
        let clock = self.clock.get_or_insert(QueueClock {
            seen: now,
            now,
            is_pressed: false,
        });
        let step = now.saturating_duration_since(clock.seen);
        clock.now += match clock.is_pressed {
            true => step.min(MAX_STEP),
            false => step,
        };
        clock.seen = now;

        clock.now
    }

    fn lane(&mut self, id: L) -> usize {
        if let Some(at) = self.by_id.get(&id) {
            return *at;
        }
        let at = self.free_lanes.pop().unwrap_or_else(|| {
            self.lanes.push(Lane {
                id: None,
                deficit: 0,
                turns: Turns::default(),
                flows: 0,
                packets: 0,
            });
            self.lanes.len() - 1
        });
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.id = Some(id);
            lane.deficit = QUANTUM;
        }
        self.by_id.insert(id, at);
        self.turns.new.push_back(at);

        at
    }

    fn flow(&mut self, lane: usize, hash: u32) -> usize {
        if let Some(index) = self.by_key.get(&(lane, hash)) {
            return *index;
        }
        let index = self.free_flows.pop().unwrap_or_else(|| {
            self.flows.push(Flow::new());
            self.flows.len() - 1
        });
        if let Some(flow) = self.flows.get_mut(index) {
            (flow.lane, flow.hash, flow.deficit) = (lane, hash, QUANTUM);
            flow.codel = Codel::new(TARGET, INTERVAL);
        }
        self.by_key.insert((lane, hash), index);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.flows += 1;
            lane.turns.new.push_back(index);
        }

        index
    }

    fn free_lane(&mut self, at: usize) {
        if let Some(lane) = self.lanes.get_mut(at)
            && let Some(id) = lane.id.take()
        {
            self.by_id.remove(&id);
            self.free_lanes.push(at);
        }
    }

    fn free_flow(&mut self, index: usize) {
        if let Some(flow) = self.flows.get(index) {
            self.by_key.remove(&(flow.lane, flow.hash));
            if let Some(lane) = self.lanes.get_mut(flow.lane) {
                lane.flows -= 1;
            }
            self.free_flows.push(index);
        }
    }

    /// Drops the oldest packet of the flow with the most bytes: whoever fills the queue pays for it.
    fn drop_of_fattest(&mut self, stats: &mut Stats) -> bool {
        let flows = self.flows.iter_mut().enumerate();
        let Some((index, flow)) = flows.max_by_key(|(_, flow)| flow.bytes) else {
            return false;
        };
        let Some(oldest) = flow.packets.pop_front() else {
            return false;
        };
        let len = oldest.packet.bytes().len();
        flow.bytes -= len;
        self.bytes -= len;
        self.packets -= 1;
        stats.count_dropped(DropReason::QueueFull, oldest.packet.segments());

        // One that never had a turn goes with its only packet, or a flood of flows would leave as many empty ones behind.
        let (lane, is_over) = (
            flow.lane,
            flow.packets.is_empty() && flow.deficit == QUANTUM,
        );
        let Some(lane) = self.lanes.get_mut(lane) else {
            return true;
        };
        lane.packets -= 1;
        if is_over && let Some(at) = lane.turns.new.iter().rposition(|new| *new == index) {
            lane.turns.new.remove(at);
            self.free_flow(index);
        }

        true
    }
}

impl Flow {
    fn new() -> Self {
        Self {
            lane: 0,
            hash: 0,
            deficit: 0,
            bytes: 0,
            codel: Codel::new(TARGET, INTERVAL),
            packets: VecDeque::new(),
        }
    }

    /// The next packet that may leave, and how many of its first segments stay behind.
    fn take(
        &mut self,
        now: Instant,
        bytes: &mut usize,
        packets: &mut usize,
        stats: &mut Stats,
    ) -> Option<(Waiting, usize)> {
        while let Some(mut waiting) = self.packets.pop_front() {
            let len = waiting.packet.bytes().len();
            self.bytes -= len;
            *bytes -= len;
            *packets -= 1;
            let waited = now.saturating_duration_since(waiting.since);
            stats.waits.record(waited);
            if waited > MAX_WAIT {
                stats.count_dropped(DropReason::WaitedTooLong, waiting.packet.segments());
                continue;
            }
            if !self.codel.judge(now, waited, self.packets.is_empty()) {
                return Some((waiting, 0));
            }
            // One lost segment says as much as a lost super-packet, and costs less.
            let can_be_marked = matches!(waiting.packet.packet().ecn(), Ecn::Ect0 | Ecn::Ect1);
            if can_be_marked {
                stats.marked += 1;
                waiting.packet.set_ecn(Ecn::Ce);
                return Some((waiting, 0));
            }
            stats.count_dropped(DropReason::QueueStands, 1);
            if waiting.packet.segments() > 1 {
                return Some((waiting, 1));
            }
        }

        None
    }
}

impl<L> fmt::Debug for FairQueue<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairQueue")
            .field("bytes", &self.bytes)
            .field("packets", &self.packets)
            .field("flows", &self.by_key.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

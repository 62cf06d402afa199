//! Shares, order, waits and bounds of what waits to be sealed.

mod properties;
mod standing;

use std::collections::BTreeMap;

use connlib_wire::buffer::Pool;
use connlib_wire::offload::VirtioHeader;

use super::*;

#[test]
fn lanes_get_equal_shares_in_bytes_whatever_their_packets_sizes() {
    let mut rig = Rig::new();
    let lanes = [(1, 64), (2, 1_280), (3, 9_000), (4, 60_000)];

    let taken = rig.share(30_000_000, |rig| {
        for (lane, len) in lanes {
            rig.top_up(lane, &[0], len);
        }
    });

    let least = taken.values().min().unwrap();
    let most = taken.values().max().unwrap();
    assert!(most - least <= 2 * 65_536, "{taken:?}");
}

#[test]
fn a_lane_of_64_flows_gets_as_much_as_one_of_a_single_flow() {
    let mut rig = Rig::new();
    let many: Vec<_> = (0..64).collect();

    let taken = rig.share(20_000_000, |rig| {
        rig.top_up(1, &many, 1_280);
        rig.top_up(2, &[0], 1_280);
    });

    assert!(taken[&1].abs_diff(taken[&2]) <= 65_536, "{taken:?}");
}

#[test]
fn flows_of_a_lane_get_equal_shares_in_bytes() {
    let mut rig = Rig::new();
    let mut taken = BTreeMap::new();
    for _ in 0..10_000 {
        for (flow, len) in [(1, 100), (2, 1_280), (3, 40_000)] {
            rig.top_up_flow(1, flow, len);
        }
        let served = rig.pop().unwrap();
        *taken.entry(served.flow).or_insert(0) += served.len;
    }

    let least = taken.values().min().unwrap();
    let most = taken.values().max().unwrap();
    assert!(most - least <= 2 * 65_536, "{taken:?}");
}

#[test]
fn a_sparse_flow_leaves_before_bulk_that_was_queued_before_it() {
    for sparse_lane in [1, 2] {
        let mut rig = Rig::new();
        for _ in 0..200 {
            rig.push(1, 1, 1_280);
        }
        // The bulk is new itself until it has had a quantum.
        for _ in 0..=QUANTUM / 1_280 {
            rig.pop().unwrap();
        }

        for _ in 0..5 {
            rig.push(sparse_lane, 9, 100);
            let next = rig.pop().unwrap();
            assert_eq!((next.lane, next.flow), (sparse_lane, 9));
            for _ in 0..14 {
                assert_eq!(rig.pop().unwrap().flow, 1);
            }
        }
    }
}

#[test]
fn a_flow_that_keeps_coming_back_as_new_starves_nobody() {
    // Each time it has nothing left it comes with a packet again: in a lane of its own, or beside another flow.
    for (lane, len) in [(1, 1_280), (2, 1_280), (1, 60_000), (2, 60_000)] {
        let mut rig = Rig::new();
        let mut taken = BTreeMap::from([(1, 0), (9, 0)]);
        let mut is_away = true;
        for _ in 0..20_000 {
            rig.top_up_flow(1, 1, 1_280);
            if std::mem::take(&mut is_away) {
                rig.push(lane, 9, len);
            }
            let served = rig.pop().unwrap();
            is_away = served.flow == 9;
            *taken.get_mut(&served.flow).unwrap() += served.len;
        }

        let share = taken[&9] as f64 / taken.values().sum::<usize>() as f64;
        assert!(share < 0.51, "lane {lane}, {len} bytes: {share}");
    }
}

#[test]
fn the_fattest_flow_pays_for_what_is_too_much() {
    let mut rig = Rig::new();
    for flow in 0..50 {
        rig.push(1, flow, 200);
    }
    for _ in 0..2 * MAX_BYTES / 60_000 {
        rig.push(2, 1, 60_000);
        assert!(rig.queue.bytes <= MAX_BYTES);
    }
    assert!(rig.stats.dropped(DropReason::QueueFull) >= (MAX_BYTES / 60_000) as u64);

    let left = rig.drain();
    assert_eq!(left.iter().filter(|served| served.lane == 1).count(), 50);
}

#[test]
fn small_packets_are_bounded_by_their_number_and_the_flow_with_most_of_them_pays() {
    let mut rig = Rig::new();
    rig.push(1, 1, 40);
    for _ in 0..2 * MAX_PACKETS {
        rig.push(1, 2, 40);
        assert!(rig.queue.packets <= MAX_PACKETS);
    }

    let left = rig.drain();
    assert_eq!(left.iter().filter(|served| served.flow == 1).count(), 1);
    let newest = left.last().unwrap();
    assert_eq!(
        newest.number,
        2 * MAX_PACKETS as u32,
        "the oldest are dropped"
    );
}

#[test]
fn a_flood_of_flows_does_not_grow_the_queue() {
    let mut rig = Rig::new();
    for flow in 0..2 * MAX_PACKETS as u32 {
        rig.push(1, flow, 40);
    }
    assert!(rig.queue.flows.len() <= MAX_PACKETS + 1);
    assert_eq!(rig.drain().len(), MAX_PACKETS);

    for flow in 0..2 * MAX_PACKETS as u32 {
        rig.push((flow % 50) as u8, flow, 40);
        rig.pop().unwrap();
    }
    assert!(rig.queue.flows.len() <= MAX_PACKETS + 1);
    assert!(rig.queue.lanes.len() <= 50);
    assert!(rig.queue.by_key.len() <= 50 && rig.queue.by_id.len() <= 50);
}

#[test]
fn a_cleared_queue_is_as_good_as_a_new_one() {
    let mut rig = Rig::new();
    rig.push(1, 1, 100);
    rig.queue.clear();
    assert!(rig.queue.is_empty());
    assert!(rig.pop().is_none());

    rig.push(1, 1, 100);
    assert_eq!(rig.pop().unwrap().number, 1);
}

/// A queue, a clock, and packets that count up in their source addresses' place.
struct Rig {
    queue: FairQueue<u8>,
    stats: Stats,
    now: Instant,
    pool: Pool,
    next: u32,
    /// By lane and flow: how many were pushed and not taken.
    waiting: BTreeMap<(u8, u32), usize>,
}

/// What was taken out.
#[derive(Clone, Copy, Debug)]
struct Taken {
    lane: u8,
    flow: u32,
    number: u32,
    len: usize,
    ecn: Ecn,
    segments: usize,
    skip: usize,
}

impl Rig {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has to begin at some time"
    )]
    fn new() -> Self {
        Self {
            queue: FairQueue::new(),
            stats: Stats::default(),
            now: Instant::now(),
            pool: Pool::new(65_535, 256),
            next: 0,
            waiting: BTreeMap::new(),
        }
    }

    fn push(&mut self, lane: u8, flow: u32, len: usize) {
        self.push_marked(lane, flow, len, Ecn::NotEct);
    }

    fn push_marked(&mut self, lane: u8, flow: u32, len: usize, ecn: Ecn) {
        self.push_run(lane, flow, len, 0, ecn);
    }

    /// A packet of UDP, in segments of `gso_size` if that isn't zero.
    fn push_run(&mut self, lane: u8, flow: u32, len: usize, gso_size: u16, ecn: Ecn) {
        let mut bytes = self.pool.take(0);
        let packet = bytes.extend(len).unwrap();
        packet.fill(0);
        packet[0] = 0x45;
        packet[1] = ecn.bits();
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[9] = 17;
        packet[12..16].copy_from_slice(&self.next.to_be_bytes());
        packet[16..20].copy_from_slice(&flow.to_be_bytes());
        packet[24..26].copy_from_slice(&(len as u16 - 20).to_be_bytes());
        let header = match gso_size {
            0 => VirtioHeader::default(),
            gso_size => VirtioHeader {
                flags: VirtioHeader::NEEDS_CSUM,
                gso_type: VirtioHeader::GSO_UDP_L4,
                hdr_len: 28,
                gso_size,
                csum_start: 20,
                csum_offset: 6,
            },
        };
        let packet = SuperPacket::parse(header, bytes).unwrap();
        self.next += 1;
        *self.waiting.entry((lane, flow)).or_default() += 1;

        self.queue
            .push(self.now, lane, flow, packet, 0, &mut self.stats);
    }

    fn pop(&mut self) -> Option<Taken> {
        let served = self.queue.pop(self.now, |_| true, &mut self.stats)?;
        let bytes = served.packet.bytes();
        let word = |at: usize| u32::from_be_bytes(*bytes[at..].first_chunk().unwrap());
        let taken = Taken {
            lane: served.lane,
            flow: word(16),
            number: word(12),
            len: bytes.len(),
            ecn: served.packet.packet().ecn(),
            segments: served.packet.segments(),
            skip: served.skip,
        };
        if let Some(waiting) = self.waiting.get_mut(&(taken.lane, taken.flow)) {
            *waiting = waiting.saturating_sub(1);
        }

        Some(taken)
    }

    fn drain(&mut self) -> Vec<Taken> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// Keeps something waiting in each flow of a lane.
    fn top_up(&mut self, lane: u8, flows: &[u32], len: usize) {
        for flow in flows {
            self.top_up_flow(lane, *flow, len);
        }
    }

    fn top_up_flow(&mut self, lane: u8, flow: u32, len: usize) {
        while self.waiting.get(&(lane, flow)).copied().unwrap_or_default() < 2 {
            self.push(lane, flow, len);
        }
    }

    /// Takes `bytes` out while `top_up` fills; how many each lane got.
    fn share(&mut self, bytes: usize, top_up: impl Fn(&mut Self)) -> BTreeMap<u8, usize> {
        let mut taken = BTreeMap::new();
        while taken.values().sum::<usize>() < bytes {
            top_up(self);
            let served = self.pop().unwrap();
            *taken.entry(served.lane).or_default() += served.len;
        }

        taken
    }
}

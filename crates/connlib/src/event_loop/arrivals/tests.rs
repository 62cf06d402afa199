use std::net::SocketAddr;

use connlib_wire::buffer::Buffer;
use connlib_wire::ecn::Ecn;

use super::*;

const A: &str = "192.0.2.1:1";
const B: &str = "192.0.2.2:2";
const RELAY: &str = "192.0.2.3:3478";

struct Rig {
    arrivals: Arrivals,
    now: Instant,
    stats: Stats,
    /// Whose all that comes is.
    sender: Sender,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new(order: Order) -> Self {
        Self {
            arrivals: Arrivals::new(7, order),
            now: Instant::now(),
            stats: Stats::default(),
            sender: Sender::Known,
        }
    }

    /// A train of datagrams of `stride` bytes, `len` in all, whose first bytes are `mark`.
    fn push(&mut self, from: &str, mark: u16, stride: usize, len: usize) {
        let received = Received {
            from: from.parse().unwrap(),
            to: "198.51.100.1:9".parse().unwrap(),
            ecn: Ecn::NotEct,
            stride,
            bytes: bytes(mark, len),
            number: 0,
        };
        self.arrivals.push(
            self.now,
            Duration::ZERO,
            received,
            self.sender,
            &mut self.stats,
        );
    }

    fn bulk(&mut self, from: &str, mark: u16) {
        self.push(from, mark, 1_312, 49 * 1_312);
    }

    /// The marks of all that waits, in the order it is taken.
    fn drain(&mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.arrivals.pop(self.now))
            .map(|next| mark(&next))
            .collect()
    }
}

fn bytes(mark: u16, len: usize) -> Buffer {
    let mut buffer = Pool::new(65_535, 1).take(0);
    let slot = buffer.extend(len).unwrap();
    slot.fill(0);
    slot[..2].copy_from_slice(&mark.to_be_bytes());

    buffer
}

fn mark(next: &Next) -> u16 {
    u16::from_be_bytes(*next.received.bytes.first_chunk().unwrap())
}

#[test]
fn a_small_datagram_goes_before_its_senders_bulk_and_says_so() {
    let mut rig = Rig::new(Order::SmallFirst);
    rig.bulk(A, 1);
    rig.bulk(A, 2);
    rig.push(A, 3, 0, 96);

    let first = rig.arrivals.pop(rig.now).unwrap();
    assert_eq!(mark(&first), 3);
    let place = first.overtakes.unwrap();
    assert!(!rig.arrivals.is_past(place));
    assert_eq!(rig.drain(), [1, 2]);
    assert!(rig.arrivals.is_past(place));
}

#[test]
fn who_came_first_overtakes_nobody() {
    let mut rig = Rig::new(Order::SmallFirst);
    rig.push(A, 1, 0, 96);
    rig.bulk(A, 2);

    let first = rig.arrivals.pop(rig.now).unwrap();
    assert_eq!((mark(&first), first.overtakes), (1, None));
}

#[test]
fn where_flows_can_not_be_told_apart_nothing_is_overtaken() {
    let mut rig = Rig::new(Order::RequestsApart);
    rig.bulk(A, 1);
    rig.push(A, 2, 0, 96);

    assert_eq!(rig.drain(), [1, 2]);
}

#[test]
fn senders_take_turns_however_much_one_sends() {
    let mut rig = Rig::new(Order::SmallFirst);
    for mark in 0..20 {
        rig.bulk(A, mark);
    }
    for mark in 100..105 {
        rig.bulk(B, mark);
    }

    let order = rig.drain();
    let last_of_b = order.iter().position(|mark| *mark == 104).unwrap();
    assert!(last_of_b <= 12, "{order:?}");
}

#[test]
fn clients_behind_one_relay_have_lanes_of_their_own() {
    let mut rig = Rig::new(Order::SmallFirst);
    for _ in 0..20 {
        rig.bulk(RELAY, 0x4000);
    }
    rig.bulk(RELAY, 0x4001);

    let order = rig.drain();
    assert!(order.iter().position(|mark| *mark == 0x4001).unwrap() <= 2);
}

#[test]
fn a_client_of_a_relay_has_one_lane_for_all_its_channels_and_one_for_its_requests() {
    let mut rig = Rig::new(Order::RequestsApart);
    for channel in 0..20 {
        rig.bulk(A, 0x4000 + channel);
    }
    rig.bulk(B, 0x4000);
    rig.push(A, 0x0003, 0, 96);

    let order = rig.drain();
    let place = |wanted| order.iter().position(|mark| *mark == wanted).unwrap();
    assert!(place(0x0003) <= 4, "{order:x?}");
    let of_b = order.iter().rposition(|mark| *mark == 0x4000).unwrap();
    assert!(of_b <= 4, "{order:x?}");
}

#[test]
fn strangers_however_many_hold_up_a_client_as_little_as_a_few_of_them() {
    let mut rig = Rig::new(Order::RequestsApart);
    rig.sender = Sender::Stranger;
    for number in 0..1_000_u16 {
        let from = SocketAddr::from(([192, 0, 2, (number % 250) as u8], 1_000 + number));
        rig.push(&from.to_string(), 0x0001, 0, 28);
    }
    rig.sender = Sender::Known;
    for _ in 0..5 {
        rig.bulk(A, 0x4000);
    }

    let order = rig.drain();
    let last = order.iter().rposition(|mark| *mark == 0x4000).unwrap();
    assert!(last < 500, "{last} before the last train of five");
}

#[test]
fn many_small_datagrams_do_not_keep_large_ones_waiting_for_ever() {
    let mut rig = Rig::new(Order::SmallFirst);
    rig.bulk(A, 1);
    for _ in 0..1_000 {
        rig.push(A, 2, 0, 96);
    }

    let order = rig.drain();
    assert!(order.iter().position(|mark| *mark == 1).unwrap() < 300);
}

#[test]
fn a_small_tail_that_the_kernel_joined_is_no_part_of_the_bulk() {
    let mut rig = Rig::new(Order::SmallFirst);
    for mark in 0..4 {
        rig.bulk(A, mark);
    }
    rig.push(A, 9, 1_312, 1_312 * 3 + 96);

    let first = rig.arrivals.pop(rig.now).unwrap();
    assert_eq!(first.received.bytes.len(), 96);
    assert!(first.overtakes.is_some());
    let lens: Vec<usize> = std::iter::from_fn(|| rig.arrivals.pop(rig.now))
        .map(|next| next.received.bytes.len())
        .collect();
    assert_eq!(lens.last(), Some(&(1_312 * 3)));
}

#[test]
fn a_small_tail_that_was_left_where_it_is_is_not_overtaken() {
    let mut rig = Rig::new(Order::SmallFirst);
    rig.push(A, 1, 1_312, 1_312 * 3 + 96);
    rig.push(A, 2, 0, 96);
    rig.bulk(A, 3);
    rig.push(A, 4, 0, 96);

    assert_eq!(rig.drain(), [1, 2, 4, 3]);
}

#[test]
fn beyond_the_bound_the_one_who_holds_most_loses() {
    let mut rig = Rig::new(Order::SmallFirst);
    rig.bulk(B, 500);
    for mark in 0..300 {
        rig.bulk(A, mark);
    }

    let order = rig.drain();
    assert!(order.contains(&500));
    assert!(order.len() <= MAX_HELD / 65_535 && order.contains(&299));
    assert!(rig.stats.dropped(DropReason::ArrivalsFull) >= 40 * 49);
    assert_eq!((rig.arrivals.trains, rig.arrivals.held), (0, 0));
}

#[test]
fn a_lane_that_stands_tells_its_sender() {
    let mut rig = Rig::new(Order::SmallFirst);
    let mut told = 0;
    for _ in 0..300 {
        while rig.arrivals.len() < 20 {
            rig.bulk(A, 1);
        }
        rig.now += Duration::from_millis(1);
        told += u32::from(rig.arrivals.pop(rig.now).unwrap().tells);
    }

    assert!((1..20).contains(&told), "{told}");
}

#[test]
fn many_senders_have_lanes_of_their_own() {
    for seed in 0..50 {
        let mut rig = Rig::new(Order::SmallFirst);
        rig.arrivals = Arrivals::new(seed, Order::SmallFirst);
        for mark in 0..64 {
            for _ in 0..3 {
                rig.bulk(&format!("192.0.2.9:{}", 1_000 + mark), mark);
            }
        }

        let order = rig.drain();
        assert_eq!(order.len(), 3 * 64);
        for round in order.chunks(64) {
            let mut senders = round.to_vec();
            senders.sort_unstable();
            assert_eq!(senders, (0..64).collect::<Vec<_>>(), "seed {seed}");
        }
    }
}

#[test]
fn a_lane_that_nobody_waits_in_is_for_the_next_one() {
    let mut rig = Rig::new(Order::SmallFirst);
    for mark in 0..10_000 {
        let from = SocketAddr::from(([192, 0, 2, 9], mark));
        rig.bulk(&from.to_string(), mark);
        assert_eq!(rig.drain(), [mark]);
    }
}

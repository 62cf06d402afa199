//! Packets flow every way there is, and nothing is allocated for them.
//!
//! `ROUNDS=20` (1 by default) makes it a million packets; in a debug build that takes minutes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking, and has no one to reach"
)]

use connlib_sim::pipe::{Direction, Pipe, Shape};
use connlib_sim::{Direct, Family};

/// The segments of a super-packet.
const SEGMENTS: u64 = 49;

/// How many super-packets or packets flow between two looks, and how often.
const AT_ONCE: usize = 64;

#[test]
fn packets_allocate_nothing() {
    let rounds = std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let mut carried = 0;
    for family in [Family::V4, Family::V6] {
        for direct in [Direct::Open, Direct::Blocked] {
            let mut pipe = Pipe::connect(family, direct);
            for shape in [Shape::StreamV4, Shape::StreamV6, Shape::Datagram] {
                for direction in [Direction::Up, Direction::Down] {
                    let what = format!("{family:?} {direct:?} {shape:?} {direction:?}");
                    let packets_per_read = match shape {
                        Shape::StreamV4 | Shape::StreamV6 => SEGMENTS,
                        Shape::Datagram => 1,
                    };
                    // The first ones fill pools and lists.
                    for _ in 0..4 {
                        pipe.carry(direction, shape, AT_ONCE);
                    }

                    let mut packets = 0;
                    let allocations = allocation_counter::measure(|| {
                        for _ in 0..rounds {
                            packets += pipe.carry(direction, shape, AT_ONCE).packets;
                        }
                    });

                    let expected = (rounds * AT_ONCE) as u64 * packets_per_read;
                    assert_eq!(packets, expected, "{what}");
                    // Making the load is not the data path's: one buffer per round.
                    let own = rounds as u64 * allocations_of_a_load(direction, shape);
                    assert_eq!(allocations.count_total, own, "{what}");
                    carried += packets;
                }
            }
        }
    }
    println!("{carried} packets, no allocation");
}

/// What making a load allocates.
fn allocations_of_a_load(direction: Direction, shape: Shape) -> u64 {
    let counted = allocation_counter::measure(|| {
        drop(connlib_sim::pipe::Load::new(shape, direction, AT_ONCE));
    });

    counted.count_total
}

//! What strangers send changes nothing but counters.

use std::time::Duration;

use connlib_wire::buffer::Pool;
use connlib_wire::stun::{Attribute, Builder, Class, Method, TransactionId};
use proptest::prelude::*;

use crate::world::{CLIENT, Direct, GATEWAY, World, arrival};

fn connected() -> World {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_millis(200));
    world.connect();
    world
        .run_until(Duration::from_secs(10), World::is_up)
        .expect("the link comes up");
    world.run_for(Duration::from_secs(1));
    world
}

fn still_works(world: &mut World) {
    let before = world.gateway.received.len();
    world.send(CLIENT, b"still here");
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.gateway.received.len(), before + 1);
}

#[test]
fn a_replayed_datagram_is_rejected() {
    let mut world = connected();
    world.send(CLIENT, b"once");
    let (_, from, to, bytes) = world.trace.last().unwrap().clone();
    world.run_for(Duration::from_millis(100));
    let rejected = world.gateway.links.stats().rejected_datagrams;
    for _ in 0..3 {
        world.gateway.receive(world.now, &arrival(from, to, &bytes));
    }

    assert_eq!(world.gateway.payloads(), [b"once"]);
    assert_eq!(world.gateway.links.stats().rejected_datagrams, rejected + 3);
    still_works(&mut world);
}

#[test]
fn a_datagram_without_contents_is_rejected() {
    let mut world = connected();
    let (_, from, to, _) = world.trace.last().unwrap().clone();
    let (from, to) = match to == world.gateway.addr {
        true => (from, to),
        false => (to, from),
    };
    let rejected = world.gateway.links.stats().rejected_datagrams;
    world.gateway.receive(world.now, &arrival(from, to, b""));

    assert_eq!(world.gateway.links.stats().rejected_datagrams, rejected + 1);
    still_works(&mut world);
}

#[test]
fn every_recorded_datagram_with_a_flipped_bit_changes_nothing() {
    let mut world = connected();
    let recorded = world.trace.clone();
    for (n, (_, from, to, mut bytes)) in recorded.into_iter().enumerate() {
        if to != world.gateway.addr {
            continue;
        }
        let at = n % bytes.len();
        bytes[at] ^= 0x10;
        world.gateway.receive(world.now, &arrival(from, to, &bytes));
        world.drain();
    }
    still_works(&mut world);
}

#[test]
fn a_relay_answer_with_the_wrong_integrity_is_ignored() {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_secs(1));
    let relayed: Vec<_> = world
        .client
        .links
        .relays()
        .map(|relay| relay.relayed)
        .collect();
    let from = "203.0.113.9:3478".parse().unwrap();
    for id in 0..=u8::MAX {
        let forged = Builder::new(
            Pool::new(2_048, 1).take(0),
            Method::Refresh,
            Class::Error,
            TransactionId([id; 12]),
        )
        .attribute(Attribute::ErrorCode(437, "Allocation Mismatch"))
        .integrity(b"not the key")
        .finish()
        .unwrap();
        let to = world.client.addr;
        world.client.receive(world.now, &arrival(from, to, &forged));
    }

    assert_eq!(
        world
            .client
            .links
            .relays()
            .map(|relay| relay.relayed)
            .collect::<Vec<_>>(),
        relayed
    );
}

#[test]
fn candidate_lines_that_make_no_sense_are_ignored() {
    let mut world = connected();
    for line in [
        "",
        "candidate:",
        "candidate:1 1 udp nope 1.1.1.1 1 typ host",
        "candidate:1 1 tcp 1 1.1.1.1 1 typ host",
        "candidate:1 1 udp 1 999.1.1.1 1 typ host",
        "candidate:1 1 udp 1 0.0.0.0 1 typ host",
        "candidate:1 1 udp 1 224.0.0.1 1 typ host",
        "candidate:1 1 udp 1 1.1.1.1 0 typ host",
        "candidate:1 1 udp 1 1.1.1.1 70000 typ host",
        "candidate:1 2 udp 1 1.1.1.1 1 typ host",
        "candidate:1 1 udp 1 1.1.1.1 1 typ srflx raddr",
    ] {
        world
            .client
            .links
            .add_remote_candidate(world.now, GATEWAY, line);
        world
            .client
            .links
            .remove_remote_candidate(world.now, GATEWAY, line);
    }
    world.drain();
    still_works(&mut world);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// connections.md §13.3: any bytes from any source.
    #[test]
    fn any_bytes_from_anywhere_change_nothing(
        datagrams in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200), 0..6_u8), 1..50),
        line in ".{0,80}",
    ) {
        let mut world = connected();
        let (relay, stranger) = ("203.0.113.9:3478".parse().unwrap(), "198.51.100.99:1".parse().unwrap());
        for (from_relay, mut bytes, first) in datagrams {
            if let Some(byte) = bytes.first_mut() {
                *byte = [0, 1, 2, 4, 0x40, 0x4F][usize::from(first)];
            }
            let from = if from_relay { relay } else { stranger };
            let to = world.gateway.addr;
            world.gateway.receive(world.now, &arrival(from, to, &bytes));
        }
        world.gateway.links.add_remote_candidate(world.now, CLIENT, &line);
        world.drain();
        prop_assert!(world.gateway.received.is_empty());
        still_works(&mut world);
    }
}

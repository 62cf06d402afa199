//! What went wrong in the forerunner once (connections.md §13.2), as far as it takes two nodes. What takes one relay is in
//! `allocation/tests.rs`; relays that come, go and restart are in `relays.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use connlib_link::{Event, PathKind};
use connlib_wire::stun::Message;

use crate::world::{CLIENT, Direct, GATEWAY, World, arrival};

const LIMIT: Duration = Duration::from_secs(10);

fn connected(direct: Direct) -> World {
    let mut world = World::new(direct);
    world.run_for(Duration::from_millis(200));
    world.connect();
    world
        .run_until(LIMIT, World::is_up)
        .expect("the link comes up");
    world.run_for(Duration::from_secs(2));
    world
}

fn candidates(world: &World) -> Vec<String> {
    world
        .client
        .events
        .iter()
        .filter_map(|(_, event)| {
            let Event::NewCandidate { line, .. } = event else {
                return None;
            };
            Some(line.clone())
        })
        .collect()
}

fn initiations(world: &World, since: usize) -> usize {
    world.trace[since..]
        .iter()
        .filter(|(_, from, _, bytes)| {
            *from == world.client.addr && bytes.starts_with(&[1, 0, 0, 0])
        })
        .count()
}

#[test]
fn the_same_description_wakes_an_idle_link_and_asks_for_one_handshake_in_twenty_seconds() {
    let mut world = connected(Direct::Open);
    world.run_for(Duration::from_secs(60));
    let before = world.trace.len();
    world.client.events.clear();
    for _ in 0..3 {
        world.connect();
        world.run_for(Duration::from_secs(2));
    }
    assert_eq!(initiations(&world, before), 1);
    assert!(candidates(&world).len() >= 6, "told each time");
    let checks = world.trace[before..]
        .iter()
        .filter(|(_, from, to, bytes)| {
            *from == world.client.addr && to.port() != 3478 && Message::parse(bytes).is_ok()
        })
        .count();
    assert!(checks >= 3, "ICE runs again: {checks}");

    world.run_for(Duration::from_secs(20));
    let before = world.trace.len();
    world.connect();
    world.run_for(Duration::from_secs(1));
    assert_eq!(initiations(&world, before), 1);
}

#[test]
fn what_waits_outlives_a_change_of_the_preshared_key() {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_millis(200));
    world.connect();
    world.send(CLIENT, b"waiting");
    let (client, gateway) = world.configs(6);
    world
        .gateway
        .links
        .upsert(world.now, CLIENT, gateway)
        .unwrap();
    world
        .client
        .links
        .upsert(world.now, GATEWAY, client)
        .unwrap();
    world.drain();
    world.run_until(LIMIT, World::is_up).expect("it comes up");
    world.run_for(Duration::from_secs(1));

    assert_eq!(world.gateway.payloads(), [b"waiting"]);
}

#[test]
fn an_idle_link_that_a_peer_leads_elsewhere_goes_there() {
    let mut world = connected(Direct::Open);
    world.run_for(Duration::from_secs(60));
    world.direct = Direct::Blocked;
    world.send(CLIENT, b"lost, and then asked about");
    world.run_for(Duration::from_secs(2));
    world.send(GATEWAY, b"by the other way");
    world.run_for(Duration::from_secs(1));

    assert_eq!(world.client.payloads(), [b"by the other way"]);
    assert!(
        world
            .gateway
            .kind(world.now)
            .is_some_and(PathKind::is_relayed)
    );
}

#[test]
fn less_than_two_seconds_without_any_path_are_survived() {
    let mut world = connected(Direct::Open);
    for gap in [500, 1_000, 1_900] {
        world.loss_percent = 100;
        world.send(CLIENT, b"lost");
        world.run_for(Duration::from_millis(gap));
        world.loss_percent = 0;
        world.run_for(Duration::from_secs(3));
        world.send(CLIENT, b"there");
        world.run_for(Duration::from_millis(200));
        assert_eq!(
            world.gateway.payloads().last().unwrap(),
            b"there",
            "{gap} ms"
        );
    }
    let failed = |event: &Event| matches!(event, Event::Failed(_) | Event::Silent(_));
    assert!(!world.client.events.iter().any(|(_, event)| failed(event)));
}

#[test]
fn a_link_without_an_address_of_its_own_yet_does_not_fail_at_once() {
    let mut world = World::new(Direct::Open);
    // No relay has answered: there are no local candidates.
    world.relay_is_up = false;
    world.connect();
    world.run_for(Duration::from_secs(5));
    assert!(
        !world
            .client
            .events
            .iter()
            .any(|(_, e)| matches!(e, Event::Failed(_)))
    );

    world.relay_is_up = true;
    world.run_until(LIMIT, World::is_up).expect("it comes up");
}

#[test]
fn an_address_that_became_known_after_the_link_is_told() {
    let mut world = World::new(Direct::Open);
    world.connect();
    assert_eq!(candidates(&world).len(), 0);
    world.run_until(LIMIT, World::is_up).expect("it comes up");
    assert!(
        candidates(&world)
            .iter()
            .any(|line| line.contains("typ host"))
    );
    assert!(
        candidates(&world)
            .iter()
            .any(|line| line.contains("typ relay"))
    );
}

#[test]
fn an_address_that_was_taken_back_is_never_told_again() {
    let mut world = connected(Direct::Blocked);
    let relay = world.relay_id();
    world
        .client
        .links
        .update_relays(world.now, &[relay], Vec::new());
    world.drain();
    world.client.events.clear();
    world.connect();
    world.run_for(Duration::from_secs(1));

    assert!(
        !candidates(&world)
            .iter()
            .any(|line| line.contains("typ relay"))
    );
}

#[test]
fn a_withdrawal_reaches_the_peer_after_the_link_was_described_again() {
    let mut world = connected(Direct::Blocked);
    world.connect();
    world.run_for(Duration::from_secs(1));
    let relay = world.relay_id();
    world
        .client
        .links
        .update_relays(world.now, &[relay], Vec::new());
    world.drain();
    world.run_for(Duration::from_secs(1));

    let withdrawn = |event: &Event| matches!(event, Event::InvalidatedCandidate { .. });
    assert!(
        world
            .client
            .events
            .iter()
            .any(|(_, event)| withdrawn(event))
    );
}

#[test]
fn a_link_that_lost_its_relay_while_there_was_no_other_gets_the_next_one() {
    let mut world = connected(Direct::Blocked);
    let relay = world.relay_id();
    let server = world.relay_server(CLIENT);
    world
        .client
        .links
        .update_relays(world.now, &[relay], Vec::new());
    world.drain();
    world.run_for(Duration::from_secs(1));
    world.client.events.clear();
    world
        .client
        .links
        .update_relays(world.now, &[], vec![server]);
    world.drain();
    world.run_for(Duration::from_secs(2));

    let relayed = candidates(&world)
        .iter()
        .filter(|line| line.contains("typ relay"))
        .count();
    assert_eq!(relayed, 1, "once");
    world.send(CLIENT, b"after");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.gateway.payloads(), [b"after"]);
}

#[test]
fn an_initiation_that_came_before_any_path_is_answered() {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_millis(200));
    world.connect();
    let initiation = |world: &World| initiations(world, 0) > 0;
    world.run_until(LIMIT, initiation).expect("the client asks");
    let (_, from, to, bytes) = world
        .trace
        .iter()
        .find(|(.., bytes)| bytes.starts_with(&[1, 0, 0, 0]))
        .unwrap()
        .clone();

    // A gateway that has no path yet, and that the client reaches all the same.
    let mut late = World::new(Direct::Open);
    late.run_for(Duration::from_millis(200));
    let (_, config) = late.configs(5);
    late.gateway.links.upsert(late.now, CLIENT, config).unwrap();
    late.drain();
    assert_eq!(late.gateway.kind(late.now), None);
    let before = late.trace.len();
    late.gateway.receive(late.now, &arrival(from, to, &bytes));
    late.drain();
    let is_answered = late.trace[before..]
        .iter()
        .any(|(_, _, to, bytes)| *to == from && bytes.starts_with(&[2, 0, 0, 0]));
    assert!(is_answered);
}

#[test]
fn a_peer_whose_nat_gives_it_the_port_of_relays_is_heard() {
    let mut world = World::new(Direct::Open);
    world.client.addr = SocketAddr::new(world.client.addr.ip(), 3_478);
    world.run_for(Duration::from_millis(200));
    world.connect();
    world.run_until(LIMIT, World::is_up).expect("it comes up");
    world.run_for(Duration::from_secs(2));
    world.send(CLIENT, b"from port 3478");
    world.run_for(Duration::from_millis(200));

    assert_eq!(world.gateway.payloads(), [b"from port 3478"]);
    assert_eq!(world.client.kind(world.now), Some(PathKind::Direct));
}

#[test]
fn clients_behind_one_address_are_told_apart_by_their_keys() {
    // The first client leaves without a word; another one gets its address and port from the same NAT.
    let mut first = connected(Direct::Open);
    first.send(CLIENT, b"first");
    first.run_for(Duration::from_millis(200));
    let late = first
        .trace
        .iter()
        .rev()
        .find(|(_, from, ..)| *from == first.client.addr);
    let (_, from, to, bytes) = late.unwrap().clone();

    let mut second = World::driven(Direct::Open, crate::world::Driver::Exact, 99);
    second.run_for(Duration::from_millis(200));
    second.connect();
    second.run_until(LIMIT, World::is_up).expect("it comes up");
    second.run_for(Duration::from_secs(1));
    let rejected = second.gateway.links.stats().rejected_datagrams;
    second
        .gateway
        .receive(second.now, &arrival(from, to, &bytes));
    assert_eq!(
        second.gateway.links.stats().rejected_datagrams,
        rejected + 1
    );
    second.send(CLIENT, b"second");
    second.run_for(Duration::from_millis(200));
    assert_eq!(second.gateway.payloads(), [b"second"]);
}

#[test]
fn what_a_former_relay_still_sends_is_a_stray_and_no_peers() {
    let mut world = connected(Direct::Blocked);
    world.send(GATEWAY, b"by the relay");
    world.run_for(Duration::from_secs(1));
    let relay = world.relay_id();
    let (client, from) = (
        world.client.addr,
        SocketAddr::new("203.0.113.9".parse().unwrap(), 3_478),
    );
    let late: Vec<_> = world
        .trace
        .iter()
        .filter(|(_, sender, to, _)| (*sender, *to) == (from, client))
        .map(|(.., bytes)| bytes.clone())
        .collect();
    world
        .client
        .links
        .update_relays(world.now, &[relay], Vec::new());
    world.drain();
    let before = world.client.links.stats();
    for bytes in &late {
        world
            .client
            .receive(world.now, &arrival(from, client, bytes));
    }
    let after = world.client.links.stats();

    assert!(
        late.iter().any(|bytes| (0x40..0x50).contains(&bytes[0])),
        "channel data is among them"
    );
    assert_eq!(
        after.stray_relay_datagrams - before.stray_relay_datagrams,
        late.len() as u64
    );
    assert_eq!(after.rejected_datagrams, before.rejected_datagrams);
}

#[test]
fn candidates_that_came_before_their_link_are_tried() {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_millis(200));
    let (client, gateway) = world.configs(5);
    world
        .gateway
        .links
        .upsert(world.now, CLIENT, gateway)
        .unwrap();
    world.drain();
    world.run_for(Duration::from_millis(100));
    world
        .client
        .links
        .upsert(world.now, GATEWAY, client)
        .unwrap();
    let told = world.gateway.addr.to_string().replace(':', " ");
    let line = format!("candidate:1 1 udp 1 {told} typ host");
    world
        .client
        .links
        .remove_remote_candidate(world.now, GATEWAY, &line);
    world.drain();

    world.run_until(LIMIT, World::is_up).expect("it comes up");
}

#[test]
fn short_datagrams_of_every_length_are_no_trouble() {
    let mut world = connected(Direct::Open);
    let (from, to) = (world.gateway.addr, world.client.addr);
    for first in [0, 1, 2, 3, 4, 0x40, 0x4f, 0xff] {
        for len in 0..=40 {
            let mut bytes = vec![0; len];
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            world.client.receive(world.now, &arrival(from, to, &bytes));
        }
    }
    world.send(GATEWAY, b"fine");
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.client.payloads(), [b"fine"]);
}

#[test]
fn an_early_candidate_is_kept_for_ten_seconds_and_no_more_than_enough() {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_millis(200));
    for n in 0..1_000 {
        let line = format!(
            "candidate:1 1 udp 1 192.0.2.{} {} typ host",
            n % 250 + 1,
            1_000 + n
        );
        world
            .client
            .links
            .add_remote_candidate(world.now, GATEWAY, &line);
    }
    world.run_for(Duration::from_secs(10));
    world.connect();
    world.run_until(LIMIT, World::is_up).expect("it comes up");
    world.run_for(Duration::from_secs(2));
    let strangers = world
        .trace
        .iter()
        .filter(|(_, _, to, _)| to.port() >= 1_000 && to.port() < 2_000)
        .count();
    assert_eq!(strangers, 0);
}

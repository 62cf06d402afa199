use std::time::{Duration, Instant};

use connlib_link::{Event, NotSent, PathKind, PeerId, UpsertError};
use connlib_wire::MAX_PACKET;
use connlib_wire::ecn::Ecn;
use connlib_wire::ip::Packet;

use crate::world::{CLIENT, Direct, Driver, GATEWAY, World, packet};

const LIMIT: Duration = Duration::from_secs(10);

fn connected(direct: Direct) -> World {
    let mut world = World::new(direct);
    world.run_for(Duration::from_millis(200));
    world.connect();
    world.send(CLIENT, b"first");
    world
        .run_until(LIMIT, World::is_up)
        .expect("the link comes up");
    world
}

#[test]
fn open_networks_connect_directly() {
    let mut world = connected(Direct::Open);
    world.run_for(Duration::from_secs(2));

    assert_eq!(world.client.kind(world.now), Some(PathKind::Direct));
    assert_eq!(world.gateway.kind(world.now), Some(PathKind::Direct));
}

#[test]
fn blocked_networks_connect_through_the_relay() {
    let mut world = connected(Direct::Blocked);
    world.run_for(Duration::from_secs(2));

    assert!(world.client.kind(world.now).unwrap().is_relayed());
    assert!(world.gateway.kind(world.now).unwrap().is_relayed());
}

#[test]
fn a_packet_sent_too_early_arrives_once_the_link_is_up() {
    for direct in [Direct::Open, Direct::Blocked] {
        let mut world = connected(direct);
        world.run_for(Duration::from_millis(100));
        assert_eq!(world.gateway.payloads(), [b"first"]);
    }
}

#[test]
fn whoever_a_packet_has_reached_can_answer_at_once() {
    let mut reached = 0;
    for (seed, direct) in (0..100).flat_map(|seed| [(seed, Direct::Open), (seed, Direct::Blocked)])
    {
        let mut world = World::driven(direct, Driver::Exact, seed);
        world.run_for(Duration::from_millis(200));
        // What is lost may be the check that would have told the gateway of a path.
        world.loss_percent = 20;
        world.connect();
        world.send(CLIENT, b"question");
        let arrived = world.run_until(LIMIT, |world| !world.gateway.received.is_empty());
        world.loss_percent = 0;
        if arrived.is_none() {
            continue;
        }
        reached += 1;

        world.send(GATEWAY, b"answer");
        world.run_for(Duration::from_millis(100));
        assert_eq!(world.client.payloads(), [b"answer"], "seed {seed}");
    }
    assert!(reached > 100, "{reached}");
}

#[test]
fn packets_of_every_size_cross_both_kinds_of_path_both_ways() {
    for direct in [Direct::Open, Direct::Blocked] {
        let mut world = connected(direct);
        world.run_for(Duration::from_secs(1));
        let payloads: Vec<Vec<u8>> = (0..=MAX_PACKET - 28)
            .step_by(7)
            .map(|len| vec![7; len])
            .collect();
        for payload in &payloads {
            world.send(CLIENT, payload);
            world.send(GATEWAY, payload);
        }
        world.run_for(Duration::from_millis(100));

        assert_eq!(world.gateway.payloads()[1..], payloads);
        assert_eq!(world.client.payloads(), payloads);
    }
}

#[test]
fn traffic_moves_from_the_relay_to_the_direct_path_without_a_loss() {
    let mut world = connected(Direct::Blocked);
    world.run_for(Duration::from_secs(1));
    assert!(world.client.kind(world.now).unwrap().is_relayed());

    world.direct = Direct::Open;
    let mut sent = vec![b"first".to_vec()];
    for n in 0..300_u32 {
        sent.push(n.to_be_bytes().to_vec());
        world.send(CLIENT, &n.to_be_bytes());
        world.run_for(Duration::from_millis(20));
    }

    assert_eq!(world.client.kind(world.now), Some(PathKind::Direct));
    let mut received = world.gateway.payloads();
    received.sort();
    sent.sort();
    assert_eq!(received, sent);
}

/// connections.md §13.3, for a loss that retries can bridge in the time.
#[test]
fn the_link_comes_up_despite_loss() {
    for seed in 0..40 {
        let mut world = World::driven(Direct::Open, Driver::Exact, seed);
        world.loss_percent = 25;
        let probed = |world: &World| {
            let mut nodes = [&world.client, &world.gateway].into_iter();
            nodes.all(|node| node.links.relays().any(|relay| relay.server.is_some()))
        };
        world.run_until(LIMIT, probed).expect("the relay answers");
        world.connect();
        // Someone wants something: that is why there is a link.
        let is_up = (0..20).any(|_| {
            world.send(CLIENT, b"ping");
            world.run_for(LIMIT / 20);
            world.is_up()
        });
        assert!(is_up, "seed {seed}");
        assert_eq!(unanswered(&world, CLIENT, world.now), [0_u64; 0]);
    }
}

#[test]
fn without_a_relay_there_is_no_link() {
    let mut world = World::new(Direct::Open);
    let relay = world.relay_id();
    world
        .client
        .links
        .update_relays(world.now, &[relay], Vec::new());

    let (config, _) = world.configs(5);
    let refused = world.client.links.upsert(world.now, GATEWAY, config);
    assert_eq!(refused, Err(UpsertError::NoRelays));
}

#[test]
fn the_same_description_keeps_the_link_and_tells_its_candidates_again() {
    let mut world = connected(Direct::Open);
    world.run_for(Duration::from_secs(30));
    let before = world.client.links.peers(world.now).next().unwrap().path_age;
    world.client.events.clear();

    world.connect();
    let told = world
        .client
        .events
        .iter()
        .filter(|(_, e)| matches!(e, Event::NewCandidate { .. }))
        .count();
    assert!(told >= 2, "host and relayed address");
    assert_eq!(
        world.client.links.peers(world.now).next().unwrap().path_age,
        before
    );
}

#[test]
fn another_preshared_key_makes_another_link() {
    let mut world = connected(Direct::Open);
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
    assert_eq!(world.client.kind(world.now), None);

    world.client.events.clear();
    world.gateway.events.clear();
    world
        .run_until(LIMIT, World::is_up)
        .expect("the new link comes up");
}

#[test]
fn goodbye_reaches_the_peer() {
    let mut world = connected(Direct::Open);
    world.run_for(Duration::from_secs(1));
    world.client.links.close(world.now, GATEWAY);
    world.drain();
    world.run_for(Duration::from_millis(50));

    let last = &world.gateway.received.last().unwrap().1;
    assert_eq!((last.len(), last[6], last[40]), (48, 255, 2));
    assert!(matches!(
        world.client.events.last(),
        Some((_, Event::Closed(GATEWAY)))
    ));
    assert!(!world.client.links.contains(GATEWAY));
}

#[test]
fn closing_a_link_that_never_came_up_is_silent() {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_millis(100));
    world.connect();
    world.client.events.clear();
    let before = world.trace.len();
    world.client.links.close(world.now, GATEWAY);
    world.drain();

    assert_eq!((world.trace.len(), world.client.events.len()), (before, 0));
}

#[test]
fn a_peer_that_tells_no_candidate_fails_after_ten_seconds() {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_secs(1));
    let (config, _) = world.configs(5);
    world
        .client
        .links
        .upsert(world.now, GATEWAY, config)
        .unwrap();
    let failed = |world: &World| {
        matches!(
            world.client.events.last(),
            Some((_, Event::Failed(GATEWAY)))
        )
    };

    let after = world
        .run_until(Duration::from_secs(20), failed)
        .expect("it fails");
    assert_eq!(after, Duration::from_secs(10));
}

/// After how many seconds it was told that nothing is heard of a new peer.
fn unanswered(world: &World, id: PeerId, since: Instant) -> Vec<u64> {
    let node = match id {
        CLIENT => &world.client,
        _ => &world.gateway,
    };
    let events = node.events.iter();
    let told = events.filter(|(_, event)| matches!(event, Event::Unanswered(_)));

    told.map(|(at, _)| (*at - since).as_secs()).collect()
}

#[test]
fn the_controlling_end_is_told_every_five_seconds_that_there_is_no_news_of_a_new_peer() {
    let mut world = World::new(Direct::Blocked);
    world.run_for(Duration::from_millis(200));
    world.relay_is_up = false;
    let start = world.now;
    world.connect();
    world.run_for(Duration::from_secs(16));

    assert_eq!(unanswered(&world, CLIENT, start), [5, 10, 15]);
    assert_eq!(unanswered(&world, GATEWAY, start), [0_u64; 0]);
}

#[test]
fn a_peer_that_was_reached_once_is_not_called_unanswered() {
    let mut world = connected(Direct::Open);
    let start = world.now;
    world.direct = Direct::Blocked;
    world.relay_is_up = false;
    world.run_for(Duration::from_secs(16));

    assert_eq!(unanswered(&world, CLIENT, start), [0_u64; 0]);
}

#[test]
fn a_link_whose_paths_all_die_fails_and_says_so() {
    let mut world = connected(Direct::Open);
    world.run_for(Duration::from_secs(1));
    world.direct = Direct::Blocked;
    world.relay_is_up = false;
    let failed = |world: &World| {
        world
            .client
            .events
            .iter()
            .any(|(_, e)| matches!(e, Event::Failed(GATEWAY)))
    };

    world
        .run_until(Duration::from_secs(60), failed)
        .expect("it fails");
    let refused = world
        .client
        .links
        .encapsulate(world.now, GATEWAY, &packet(b"x"));
    assert_eq!(refused, Err(NotSent::UnknownPeer));
}

#[test]
fn a_day_of_quiet_traffic_survives_every_rekey() {
    let mut world = connected(Direct::Open);
    let mut sent = vec![b"first".to_vec()];
    for n in 0..200_u32 {
        world.run_for(Duration::from_secs(7));
        world.send(CLIENT, &n.to_be_bytes());
        world.send(GATEWAY, &n.to_be_bytes());
        sent.push(n.to_be_bytes().to_vec());
    }
    world.run_for(Duration::from_secs(1));

    assert_eq!(world.gateway.payloads(), sent);
    assert_eq!(world.client.payloads(), sent[1..]);
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let trace = |seed| {
        let mut world = World::driven(Direct::Blocked, Driver::Exact, seed);
        world.run_for(Duration::from_millis(200));
        world.connect();
        world.send(CLIENT, b"hello");
        world.run_for(Duration::from_secs(20));
        world.trace
    };

    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn deadlines_are_exact_extra_calls_change_nothing() {
    let outcome = |driver| {
        let mut world = World::driven(Direct::Blocked, driver, 3);
        world.run_for(Duration::from_millis(200));
        world.connect();
        world.send(CLIENT, b"hello");
        world.run_for(Duration::from_secs(30));
        world.trace
    };

    let exact = outcome(Driver::Exact);
    assert_eq!(exact, outcome(Driver::Every(Duration::from_millis(10))));
}

#[test]
fn a_packet_larger_than_the_tunnel_is_refused() {
    let mut world = connected(Direct::Open);
    let refused = world
        .client
        .links
        .encapsulate(world.now, GATEWAY, &[0x45; MAX_PACKET + 1]);
    assert_eq!(refused, Err(NotSent::TooLarge));
}

#[test]
fn the_outer_header_carries_the_mark_of_the_packet() {
    let mut world = connected(Direct::Open);
    world.run_for(Duration::from_secs(1));
    for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
        let mut marked = Packet::parse(packet(b"x")).unwrap();
        marked.set_ecn(ecn);
        world
            .client
            .links
            .encapsulate(world.now, GATEWAY, marked.bytes())
            .unwrap();
        assert_eq!(world.client.links.poll_transmit().unwrap().route.ecn, ecn);
    }
}

//! Paths that fall silent, move and come back while packets flow.

use std::time::Duration;

use connlib_link::{Event, PathKind, PathWhy, PeerId};

use crate::world::{CLIENT, Direct, GATEWAY, World};

const LIMIT: Duration = Duration::from_secs(10);

/// The time between two packets of a flow.
const INTERVAL: Duration = Duration::from_millis(20);

fn connected(direct: Direct) -> World {
    let mut world = World::new(direct);
    world.run_for(Duration::from_millis(200));
    world.connect();
    world.send(CLIENT, b"first");
    world
        .run_until(LIMIT, World::is_up)
        .expect("the link comes up");
    world.run_for(Duration::from_secs(2));
    world
}

/// Lets packets flow both ways for `span`; the longest time in which nothing reached the gateway, and the client.
fn flow(world: &mut World, span: Duration) -> [Duration; 2] {
    let (start, counts) = (
        world.now,
        [&world.gateway, &world.client].map(|node| node.received.len()),
    );
    let mut n = 0_u32;
    while world.now - start < span {
        n += 1;
        world.send(CLIENT, &n.to_be_bytes());
        world.send(GATEWAY, &n.to_be_bytes());
        world.run_for(INTERVAL);
    }
    let end = world.now;
    let nodes = [&world.gateway, &world.client];

    std::array::from_fn(|index| {
        let received = nodes[index].received[counts[index]..].iter();
        let (mut last, mut longest) = (start, Duration::ZERO);
        for at in received.map(|(at, _)| *at).chain([end]) {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    })
}

fn kind(world: &World) -> Option<PathKind> {
    world.client.kind(world.now)
}

fn why(world: &World, id: PeerId) -> Option<PathWhy> {
    let node = if id == CLIENT {
        &world.client
    } else {
        &world.gateway
    };

    node.links.peers(world.now).next().unwrap().why
}

fn path_changes(world: &World) -> usize {
    let events = [&world.client, &world.gateway].map(|node| node.events.iter());

    events
        .into_iter()
        .flatten()
        .filter(|(_, event)| matches!(event, Event::PathChanged { .. }))
        .count()
}

#[test]
fn a_silent_direct_path_gives_way_to_the_relay_within_a_second() {
    let mut world = connected(Direct::Open);
    assert_eq!(kind(&world), Some(PathKind::Direct));
    assert_eq!(why(&world, CLIENT), Some(PathWhy::First));

    world.direct = Direct::Blocked;
    let gaps = flow(&mut world, Duration::from_secs(5));

    assert!(kind(&world).is_some_and(PathKind::is_relayed));
    assert_eq!(why(&world, CLIENT), Some(PathWhy::Silence));
    assert!(
        gaps.iter().all(|gap| *gap < Duration::from_secs(1)),
        "{gaps:?}"
    );
}

#[test]
fn a_relayed_link_finds_the_direct_way_that_opens_later() {
    let mut world = connected(Direct::Blocked);
    flow(&mut world, Duration::from_secs(40));
    assert!(kind(&world).is_some_and(PathKind::is_relayed));

    world.direct = Direct::Open;
    let gaps = flow(&mut world, Duration::from_secs(70));

    assert_eq!(kind(&world), Some(PathKind::Direct));
    assert_eq!(why(&world, CLIENT), Some(PathWhy::Better));
    assert!(
        gaps.iter().all(|gap| *gap < Duration::from_millis(50)),
        "{gaps:?}"
    );
}

#[test]
fn an_answer_that_comes_late_by_the_relay_leads_nobody_back_to_it() {
    let mut world = World::new(Direct::Blocked);
    world.relay_latency = Duration::from_millis(165);
    world.run_for(Duration::from_secs(2));
    world.connect();
    world.send(CLIENT, b"first");
    let is_relayed = |world: &World| kind(world).is_some_and(PathKind::is_relayed);
    world.run_until(LIMIT, is_relayed).expect("the relay works");
    assert!(!world.is_up(), "the gateway is asked by the relay");

    world.direct = Direct::Open;
    let is_direct = |world: &World| kind(world) == Some(PathKind::Direct);
    world.run_until(LIMIT, is_direct).expect("so does this");
    assert!(!world.is_up(), "the answer is on its way");
    world.client.events.clear();
    world.run_until(LIMIT, World::is_up).expect("it comes");
    let gaps = flow(&mut world, Duration::from_secs(10));

    let moved = |event: &Event| matches!(event, Event::PathChanged { .. });
    assert!(!world.client.events.iter().any(|(_, event)| moved(event)));
    assert_eq!(world.gateway.kind(world.now), Some(PathKind::Direct));
    assert!(
        gaps.iter().all(|gap| *gap < Duration::from_secs(1)),
        "{gaps:?}"
    );
}

#[test]
fn whoever_moves_to_another_network_keeps_its_links() {
    for (id, addr) in [
        (CLIENT, "198.51.100.200:52625"),
        (GATEWAY, "192.0.2.200:52625"),
    ] {
        for direct in [Direct::Open, Direct::Blocked] {
            let mut world = connected(direct);
            flow(&mut world, Duration::from_secs(1));

            world.move_to(id, addr);
            let gaps = flow(&mut world, Duration::from_secs(10));

            assert!(
                gaps.iter().all(|gap| *gap < Duration::from_secs(1)),
                "{id} {gaps:?}"
            );
            assert_eq!(
                kind(&world) == Some(PathKind::Direct),
                direct == Direct::Open
            );
            let lost = |event: &Event| matches!(event, Event::Failed(_) | Event::Closed(_));
            let mut events = world.client.events.iter().chain(&world.gateway.events);
            assert!(!events.any(|(_, event)| lost(event)));
        }
    }
}

#[test]
fn whoever_only_listens_is_followed_as_fast() {
    for (id, other, addr) in [
        (CLIENT, GATEWAY, "198.51.100.200:52625"),
        (GATEWAY, CLIENT, "192.0.2.200:52625"),
    ] {
        let mut world = connected(Direct::Open);
        world.run_for(Duration::from_secs(1));
        world.move_to(id, addr);
        let before = world.node_of(id).received.len();
        for n in 0..20_u32 {
            world.send(other, &n.to_be_bytes());
            world.run_for(INTERVAL);
        }
        let arrived = world.node_of(id).received.len() - before;
        assert!(arrived >= 10, "{id}: {arrived} of 20");
    }
}

#[test]
fn a_false_alarm_costs_nothing() {
    for direct in [Direct::Open, Direct::Blocked] {
        let mut world = connected(direct);
        flow(&mut world, Duration::from_secs(1));
        let before = path_changes(&world);

        let addr = world.client.addr.to_string();
        world.move_to(CLIENT, &addr);
        let gaps = flow(&mut world, Duration::from_secs(5));

        assert!(
            gaps.iter().all(|gap| *gap <= Duration::from_millis(80)),
            "{gaps:?}"
        );
        assert_eq!(path_changes(&world), before);
    }
}

#[test]
fn a_direct_path_that_holds_is_not_checked_and_gives_way_all_the_same() {
    let mut world = connected(Direct::Open);
    flow(&mut world, Duration::from_secs(5));
    let before = world.trace.len();
    flow(&mut world, Duration::from_secs(60));
    let checks = world.trace[before..]
        .iter()
        .filter(|(.., bytes)| connlib_wire::stun::is_stun_prefix(bytes))
        .filter(|(_, from, to, _)| from.port() != 3478 && to.port() != 3478)
        .count();
    assert_eq!(checks, 0);

    world.direct = Direct::Blocked;
    let gaps = flow(&mut world, Duration::from_secs(5));
    assert!(kind(&world).is_some_and(PathKind::is_relayed));
    assert!(
        gaps.iter().all(|gap| *gap < Duration::from_secs(1)),
        "{gaps:?}"
    );
}

#[test]
fn an_idle_link_asks_seldom_and_works_after_hours() {
    let mut world = connected(Direct::Open);
    world.run_for(Duration::from_secs(60));
    let before = world.trace.len();
    world.run_for(Duration::from_secs(600));
    let between_peers = world.trace[before..]
        .iter()
        .filter(|(_, from, to, _)| from.port() != 3478 && to.port() != 3478)
        .count();
    // A question and its answer each 25 s, and what WireGuard says at the end of its session.
    assert!((48..=60).contains(&between_peers), "{between_peers}");

    world.run_for(Duration::from_secs(3 * 3_600));
    world.send(CLIENT, b"after hours");
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.gateway.payloads().last().unwrap(), b"after hours");
    world.run_for(Duration::from_secs(1_200));
    world.send(GATEWAY, b"and back");
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.client.payloads(), [b"and back"]);
}

#[test]
fn the_owner_is_told_of_a_peer_that_no_path_reaches() {
    let mut world = connected(Direct::Blocked);
    world.relay_is_up = false;
    let start = world.now;
    flow(&mut world, Duration::from_secs(6));

    let told: Vec<_> = world
        .client
        .events
        .iter()
        .filter(|(_, event)| *event == Event::Silent(GATEWAY))
        .map(|(at, _)| *at - start)
        .collect();
    assert_eq!(told.len(), 1);
    assert!(told[0] < Duration::from_secs(4), "{told:?}");
}

#[test]
fn forged_answers_and_questions_keep_no_path_alive() {
    let mut world = connected(Direct::Open);
    world.direct = Direct::Blocked;
    let (client, gateway) = (world.client.addr, world.gateway.addr);
    let questions = |world: &World, since: usize| -> Vec<Vec<u8>> {
        world.trace[since..]
            .iter()
            .filter(|(_, from, to, bytes)| (*from, *to) == (client, gateway) && bytes[0] == 0)
            .map(|(.., bytes)| bytes.clone())
            .collect()
    };
    for n in 0..20_u32 {
        let since = world.trace.len();
        world.send(CLIENT, &n.to_be_bytes());
        world.run_for(Duration::from_millis(50));
        for mut answer in questions(&world, since) {
            // A success with the right number, and the wrong integrity.
            answer[0] = 1;
            let arrival = crate::world::arrival(gateway, client, &answer);
            world.client.receive(world.now, &arrival);
        }
    }

    assert!(kind(&world).is_some_and(PathKind::is_relayed));
}

#[test]
fn a_peer_whose_every_address_is_withdrawn_is_kept_while_it_is_heard() {
    let mut world = connected(Direct::Open);
    let told = world.gateway.events.iter();
    let lines: Vec<String> = told
        .filter_map(|(_, event)| {
            let Event::NewCandidate { line, .. } = event else {
                return None;
            };
            Some(line.clone())
        })
        .collect();
    assert!(!lines.is_empty());

    for line in &lines {
        let now = world.now;
        world
            .client
            .links
            .remove_remote_candidate(now, GATEWAY, line);
        world.drain();
    }
    // No pair is left to try, which must not be tried without end.
    world.run_for(Duration::from_secs(5));

    let before = world.gateway.received.len();
    world.send(CLIENT, b"still here");
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.gateway.received.len(), before + 1);
}

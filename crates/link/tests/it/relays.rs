use std::time::Duration;

use connlib_link::{Event, PathKind};
use connlib_wire::stun::{Class, Message, Method};

use crate::world::{CLIENT, Direct, GATEWAY, World};

const LIMIT: Duration = Duration::from_secs(10);

fn relayed_world() -> World {
    let mut world = World::new(Direct::Blocked);
    world.run_for(Duration::from_millis(200));
    world.connect();
    world
        .run_until(LIMIT, World::is_up)
        .expect("the link comes up");
    world.run_for(Duration::from_secs(1));
    world
}

/// The requests that reached the relay from the client, in order.
fn requests(world: &World) -> Vec<Method> {
    let from_client = world
        .trace
        .iter()
        .filter(|(_, from, to, _)| *from == world.client.addr && to.port() == 3478);

    from_client
        .filter_map(|(_, _, _, bytes)| {
            let message = Message::parse(bytes).ok()?;
            (message.class() == Class::Request).then_some(message.method())
        })
        .collect()
}

#[test]
fn first_contact_is_as_the_forerunner_does_it() {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_secs(1));

    assert_eq!(
        requests(&world),
        [Method::Binding, Method::Allocate, Method::Allocate]
    );
    let from_client = world
        .trace
        .iter()
        .filter(|(_, from, _, _)| *from == world.client.addr);
    let allocates: Vec<_> = from_client
        .filter_map(|(_, _, _, bytes)| Message::parse(bytes).ok())
        .filter(|message| (message.method(), message.class()) == (Method::Allocate, Class::Request))
        .take(2)
        .collect();
    assert!(
        allocates
            .iter()
            .all(|message| message.has_integrity() && message.username().is_some())
    );
    assert_eq!(
        (allocates[0].nonce(), allocates[1].nonce().is_some()),
        (None, true)
    );
}

#[test]
fn an_allocation_is_refreshed_at_half_its_life_and_the_relay_asked_whether_it_lives() {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_secs(2_000));

    let all = requests(&world);
    let count = |method| all.iter().filter(|m| **m == method).count();
    assert_eq!(count(Method::Refresh), 6);
    assert_eq!(count(Method::Binding), 1 + 79);
    assert!(
        world
            .client
            .links
            .relays()
            .all(|relay| !relay.relayed.is_empty())
    );
}

#[test]
fn channels_in_use_live_on() {
    let mut world = relayed_world();
    for n in 0..300_u32 {
        world.run_for(Duration::from_secs(7));
        world.send(CLIENT, &n.to_be_bytes());
        world.send(GATEWAY, &n.to_be_bytes());
    }
    world.run_for(Duration::from_secs(1));

    assert_eq!(
        (
            world.gateway.payloads().len(),
            world.client.payloads().len()
        ),
        (300, 300)
    );
}

#[test]
fn a_relay_that_restarted_with_a_new_secret_is_given_up() {
    let mut world = World::new(Direct::Open);
    world.run_for(Duration::from_millis(200));
    world.connect();
    world
        .run_until(LIMIT, World::is_up)
        .expect("the link comes up");
    world.restart_relay("another secret");
    let lost = |world: &World| {
        world
            .client
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::NoRelays))
    };

    // Its 438 is signed with a key we don't have, so that only silence counts.
    let after = world
        .run_until(Duration::from_secs(400), lost)
        .expect("it is given up");
    assert!(after > Duration::from_secs(8), "after {after:?}");
    let invalidated = world
        .client
        .events
        .iter()
        .any(|(_, e)| matches!(e, Event::InvalidatedCandidate { .. }));
    assert!(invalidated, "the peer is told");
}

#[test]
fn a_relay_that_forgot_us_is_asked_again() {
    let mut world = relayed_world();
    world.restart_relay("what only the portal and the relay know");
    for node in [&mut world.client, &mut world.gateway] {
        // An update that names no relay asks those that are known whether they are still there.
        node.links.update_relays(world.now, &[], Vec::new());
    }
    world.drain();
    world.run_for(Duration::from_secs(25));
    world.send(CLIENT, b"after");
    world.run_for(Duration::from_secs(1));

    assert_eq!(world.gateway.payloads(), [b"after"]);
}

#[test]
fn the_same_relay_again_changes_nothing() {
    let mut world = relayed_world();
    world.client.events.clear();
    let before = world.trace.len();
    let server = world.relay_server(CLIENT);
    world
        .client
        .links
        .update_relays(world.now, &[], vec![server]);
    world.drain();

    assert_eq!((world.trace.len(), world.client.events.len()), (before, 0));
}

#[test]
fn a_removed_relay_is_withdrawn_and_a_new_one_offered() {
    let mut world = relayed_world();
    world.client.events.clear();
    let (relay, server) = (world.relay_id(), world.relay_server(CLIENT));
    world
        .client
        .links
        .update_relays(world.now, &[relay], Vec::new());
    world.drain();
    let withdrawn = world
        .client
        .events
        .iter()
        .any(|(_, e)| matches!(e, Event::InvalidatedCandidate { .. }));
    assert!(withdrawn);

    world
        .client
        .links
        .update_relays(world.now, &[], vec![server]);
    world.drain();
    world.run_for(Duration::from_secs(2));
    let offered = world
        .client
        .events
        .iter()
        .any(|(_, e)| matches!(e, Event::NewCandidate { .. }));
    assert!(offered, "the link has moved to the relay that came");
    world.run_for(Duration::from_secs(10));
    world.send(CLIENT, b"after");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.gateway.payloads(), [b"after"]);
}

#[test]
fn a_relayed_datagram_is_thirty_six_bytes_longer_than_its_packet() {
    let mut world = relayed_world();
    assert!(
        world
            .client
            .kind(world.now)
            .is_some_and(PathKind::is_relayed)
    );
    let before = world.trace.len();
    world.send(CLIENT, &[7; 1_252]);
    world.run_for(Duration::from_millis(100));

    let longest = world.trace[before..]
        .iter()
        .map(|(_, _, _, bytes)| bytes.len())
        .max();
    assert_eq!(longest, Some(1_280 + 36));
}

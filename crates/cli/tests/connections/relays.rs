//! Relays that crash under a connection.

use std::time::Duration;

use crate::figures::{Table, Times};
use crate::probe::Probe;
use crate::world::{World, pause};

const REPETITIONS: usize = 3;

/// Four times the goal.
const BOUND: Duration = Duration::from_secs(8);

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn relay_killed(table: &mut Table) {
    let mut world = World::prepared(&["relay-1", "relay-2"], &["gateway"], |network| {
        network.block("client", "gateway");
    });
    world.connect();
    let mut gaps = Times::default();
    for _ in 0..REPETITIONS {
        let path = world.wait_path("relayed", PATIENCE).unwrap();
        let ends = format!("{} {}", path.local, path.remote);
        let carries = |relay: &&str| {
            let net = world.network.net(relay);
            ends.contains(&net.host_v4().to_string()) || ends.contains(&net.host_v6().to_string())
        };
        let relay = ["relay-1", "relay-2"]
            .into_iter()
            .find(carries)
            .unwrap_or_else(|| panic!("{ends}"));
        let probe = Probe::start(world.network.namespace("client"));
        pause(Duration::from_millis(300));
        world.kill(relay);
        pause(Duration::from_secs(4));
        gaps.push(probe.stop().gap());
        println!("{}", world.told("relayed"));
        world.connect();
        world.start(relay);
        // Both ends know it again.
        pause(Duration::from_secs(1));
    }
    table.add(
        "the relay in use is killed, another there: gap",
        "p95 ≤ 2 s",
        &gaps,
    );
    assert!(gaps.percentile(95) <= BOUND, "{gaps}");
    world.assert_calm();
}

pub(crate) fn relay_restarted(table: &mut Table) {
    let mut world = World::prepared(&["relay"], &["gateway"], |network| {
        network.block("client", "gateway");
    });
    world.connect();
    let mut gaps = Times::default();
    for _ in 0..2 {
        assert!(world.wait_path("relayed", PATIENCE).is_some());
        let probe = Probe::start(world.network.namespace("client"));
        pause(Duration::from_millis(300));
        world.kill("relay");
        world.start("relay");
        pause(Duration::from_secs(5));
        gaps.push(probe.stop().gap());
        world.connect();
        println!("{}", world.told("relayed"));
    }
    table.add(
        "the only relay is killed and started again: gap",
        "as short as can be",
        &gaps,
    );
    assert!(gaps.percentile(95) <= BOUND, "{gaps}");
    world.assert_calm();
}

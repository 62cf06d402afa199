//! New connections, and the direct way that closes and opens.

use std::time::Duration;

use crate::figures::{Table, Times};
use crate::probe::Probe;
use crate::world::{World, pause};

/// How often a connection is opened.
const OPENINGS: usize = 15;

/// The direct way is closed and opened that often.
const CHANGES: usize = 3;

/// How long a path may take to change.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn first_reply_direct(table: &mut Table) {
    let mut world = World::new(&["relay"], &["gateway"]);
    let times = open(&mut world, "direct");
    table.add(
        "first reply on a new direct connection",
        "p50 ≤ 15 ms, p95 ≤ 40 ms",
        &times,
    );
    assert!(
        times.percentile(50) <= Duration::from_millis(4 * 40),
        "{times}"
    );
    world.told("direct");
    world.assert_calm();
}

pub(crate) fn first_reply_relayed(table: &mut Table) {
    let mut world = World::prepared(&["relay"], &["gateway"], |network| {
        network.block("client", "gateway");
    });
    let times = open(&mut world, "relayed");
    table.add(
        "first reply on a new relayed connection",
        "p50 ≤ 15 ms, p95 ≤ 40 ms",
        &times,
    );
    assert!(
        times.percentile(50) <= Duration::from_millis(4 * 40),
        "{times}"
    );
    world.told("relayed");
    world.assert_calm();
}

/// UDP is blocked between the ends of a connection that is direct, and later it isn't any more.
pub(crate) fn direct_way_closes_and_opens(table: &mut Table) {
    let mut world = World::new(&["relay"], &["gateway"]);
    world.connect();
    assert!(world.wait_path("direct", PATIENCE).is_some());
    let block = world.network.block("client", "gateway");
    world.network.lift(&block);
    let (mut falls, mut rises, mut lost) = (Times::default(), Times::default(), 0);
    for _ in 0..CHANGES {
        let probe = Probe::start(world.network.namespace("client"));
        pause(Duration::from_millis(200));
        let closed_at = world.clock.now();
        world.network.renew(&block);
        let relayed = world.told_since("relayed", closed_at);
        // Whoever notices first leads the other there.
        assert!(["silence", "peer-moved"].contains(&relayed.why.as_str()));
        pause(Duration::from_millis(500));
        falls.push(probe.stop().gap());

        let probe = Probe::start(world.network.namespace("client"));
        pause(Duration::from_millis(200));
        let opened_at = world.clock.now();
        world.network.lift(&block);
        let direct = world.told_since("direct", opened_at);
        let since = world.clock.now() - direct.age;
        rises.push(since.saturating_duration_since(opened_at));
        pause(Duration::from_millis(300));
        lost += probe.stop().lost();
        assert!(["better", "peer-moved"].contains(&direct.why.as_str()));
    }
    table.add(
        "UDP blocked between the ends: gap until relayed",
        "as short as can be",
        &falls,
    );
    table.add(
        "the direct way opens: relayed → direct",
        "p95 ≤ 500 ms",
        &rises,
    );
    table.add("the direct way opens: packets lost", "0", lost);
    assert_eq!(lost, 0);
    world.assert_calm();
}

fn open(world: &mut World, kind: &str) -> Times {
    let mut times = Times::default();
    for _ in 0..OPENINGS {
        times.push(world.connect());
        let path = world.wait_path(kind, PATIENCE);
        assert!(path.is_some(), "{}", world.status("client"));
        world.start_over();
    }
    world.connect();
    assert!(world.wait_path(kind, PATIENCE).is_some());

    times
}

//! Either end moves to another network, or loses an IP version.

use std::time::Duration;

use crate::download::Download;
use crate::figures::{Table, Times};
use crate::network::Family;
use crate::probe::Probe;
use crate::world::{World, pause};

const MOVES: usize = 5;

const PATIENCE: Duration = Duration::from_secs(10);

/// Four times the goal.
const BOUND: Duration = Duration::from_secs(6);

pub(crate) fn client_moves(table: &mut Table) {
    let gaps = move_while_downloading("client", "network-changed");
    table.add(
        "the client moves: gap of a TCP download",
        "p50 ≤ 500 ms, p95 ≤ 1.5 s",
        &gaps,
    );
    assert!(gaps.percentile(95) <= BOUND, "{gaps}");
}

pub(crate) fn gateway_moves(table: &mut Table) {
    let gaps = move_while_downloading("gateway", "peer-moved");
    table.add(
        "the gateway moves: gap of a TCP download",
        "p50 ≤ 500 ms, p95 ≤ 1.5 s",
        &gaps,
    );
    assert!(gaps.percentile(95) <= BOUND, "{gaps}");
}

/// Moves one end several times; why its path is in use is told after each move.
fn move_while_downloading(place: &'static str, why: &str) -> Times {
    let mut world = World::new(&["relay"], &["gateway"]);
    world.connect();
    let resource = world.network.resource("gateway");
    let download = Download::start(world.network.namespace("client"), resource);
    let mut moves = Vec::new();
    for _ in 0..MOVES {
        pause(Duration::from_secs(1));
        let moved_at = world.clock.now();
        world.network.move_away(place);
        world.wait_for_line(place, "The network changed");
        pause(Duration::from_secs(2));
        assert_eq!(world.told("direct").why, why);
        moves.push((moved_at, world.clock.now()));
    }
    pause(Duration::from_secs(1));
    let arrivals = download.stop();
    let mut gaps = Times::default();
    for (moved_at, until) in moves {
        let gap = arrivals.gap(moved_at, until);
        gaps.push(gap.expect("the download is broken"));
    }
    world.connect();
    world.assert_calm();

    gaps
}

/// The client loses the IP version that its path is of, and gets it back.
pub(crate) fn family_goes(table: &mut Table) {
    let mut world = World::new(&["relay"], &["gateway"]);
    world.connect();
    let path = world.wait_path("direct", PATIENCE).unwrap();
    let family = if path.remote.starts_with('[') {
        Family::V6
    } else {
        Family::V4
    };
    let (mut gaps, mut lost) = (Times::default(), 0);
    for _ in 0..2 {
        let probe = Probe::start(world.network.namespace("client"));
        pause(Duration::from_millis(200));
        world.network.set_family("client", family, false);
        pause(Duration::from_secs(3));
        gaps.push(probe.stop().gap());
        world.told("direct");

        let probe = Probe::start(world.network.namespace("client"));
        pause(Duration::from_millis(200));
        world.network.set_family("client", family, true);
        pause(Duration::from_secs(2));
        lost += probe.stop().lost();
        // Its way back may be another than before.
        world.connect();
    }
    table.add(
        "an IP version is taken away: gap",
        "as short as can be",
        &gaps,
    );
    table.add("an IP version comes back: packets lost", "0", lost);
    assert!(gaps.percentile(95) <= BOUND, "{gaps}");
    world.assert_calm();
}

//! Either end moves to another network, or loses an IP version.

use std::time::Duration;

use crate::download::Download;
use crate::figures::{Table, Times};
use crate::network::Family;
use crate::probe::Probe;
use crate::world::{World, pause};

const MOVES: usize = 5;

const PATIENCE: Duration = Duration::from_secs(10);

/// Generous: an outage of 1.5 s, the goal, is a gap of 3 s where TCP has doubled its patience each time, and of 6 s if
/// the next move comes in between.
const BOUND: Duration = Duration::from_secs(10);

pub(crate) fn client_moves(table: &mut Table) {
    let name = "the client moves: gap of a TCP download";
    move_while_downloading(
        table,
        name,
        "client",
        &["network-changed", "better", "first"],
    );
}

pub(crate) fn gateway_moves(table: &mut Table) {
    let name = "the gateway moves: gap of a TCP download";
    move_while_downloading(
        table,
        name,
        "gateway",
        &["peer-moved", "withdrawn", "better", "silence"],
    );
}

/// Moves one end several times; status tells one of the reasons after each move.
fn move_while_downloading(
    table: &mut Table,
    name: &'static str,
    place: &'static str,
    reasons: &[&str],
) {
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
        // A way that works from the new network as it did from the old one has no new reason.
        let told = world.told("direct").why;
        assert!(reasons.contains(&told.as_str()), "{told}");
        moves.push((moved_at, world.clock.now()));
    }
    pause(Duration::from_secs(1));
    let arrivals = download.stop();
    let mut gaps = Times::default();
    for (moved_at, until) in moves {
        let gap = arrivals.gap(moved_at, until);
        gaps.push(gap.expect("the download is broken"));
    }
    table.add(name, "p50 ≤ 500 ms, p95 ≤ 1.5 s", &gaps);
    assert!(gaps.percentile(95) <= BOUND, "{gaps}");
    world.connect();
    world.assert_calm();
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

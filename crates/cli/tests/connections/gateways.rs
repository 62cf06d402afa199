//! Gateways that end while another one of the site is there.

use std::time::Duration;

use crate::figures::{Table, Times};
use crate::probe::Probe;
use crate::world::{World, pause};

const REPETITIONS: usize = 3;

const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];

pub(crate) fn gateway_stopped(table: &mut Table) {
    let gaps = without_gateway(World::stop, Duration::from_secs(3));
    table.add(
        "the gateway in use is stopped, another there: gap",
        "p95 ≤ 500 ms",
        &gaps,
    );
    assert!(gaps.percentile(95) <= Duration::from_secs(2), "{gaps}");
}

pub(crate) fn gateway_killed(table: &mut Table) {
    let gaps = without_gateway(World::kill, Duration::from_secs(6));
    table.add(
        "the gateway in use is killed, another there: gap",
        "p95 ≤ 5 s",
        &gaps,
    );
    assert!(gaps.percentile(95) <= Duration::from_secs(20), "{gaps}");
}

fn without_gateway(end: fn(&mut World, &'static str), watched_for: Duration) -> Times {
    let mut world = World::new(&["relay"], &GATEWAYS);
    let mut gaps = Times::default();
    for _ in 0..REPETITIONS {
        world.connect();
        let gateway = in_use(&world);
        let probe = Probe::start(world.network.namespace("client"));
        pause(Duration::from_millis(300));
        end(&mut world, gateway);
        pause(watched_for);
        // It has to have come back at all.
        world.connect();
        pause(Duration::from_millis(100));
        gaps.push(probe.stop().gap());
        // The link to the other one is new: nothing has gone wrong on it.
        let path = world.told("direct");
        let reasons = ["first", "better", "peer-moved"];
        assert!(reasons.contains(&path.why.as_str()), "{path}");
        world.start(gateway);
    }
    world.assert_calm();

    gaps
}

/// The gateway that has our client as a peer.
fn in_use(world: &World) -> &'static str {
    let has_client = |gateway: &str| {
        let status = world.status(gateway);
        let peers = status["peers"].as_array();
        peers.is_some_and(|peers| peers.iter().any(|peer| peer["path"].is_string()))
    };
    let found = world.wait_for(Duration::from_secs(5), |_| {
        GATEWAYS.into_iter().find(|gateway| has_client(gateway))
    });

    found.expect("no gateway knows the client")
}

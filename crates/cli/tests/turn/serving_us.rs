//! A client and a gateway of ours meet at a TURN server of others.

use std::time::Duration;

use crate::coturn::{TurnServer, have, version};
use crate::tshark::Witness;
use crate::world::{Plan, World};

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(40);

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_turn_server_of_others_relays_for_us_while_it_answers() {
    if !have("turnserver") {
        return;
    }
    let plan = Plan {
        relay: &["--announce", "--secret=north"],
        ..Plan::default()
    };
    let (mut server, mut witness) = (None, None);
    let mut world = World::planned(plan, &["relay"], &["gateway"], |network| {
        network.block("client", "gateway");
        witness = Some(Witness::start(network.namespace("relay")));
        let here = network.net("relay");
        let addresses = [here.host_v4().to_string(), here.host_v6().to_string()];
        server = TurnServer::start(network.namespace("relay"), &addresses, "north");
    });

    world.connect();
    let path = world.wait_path("relayed", PATIENCE);
    let path = path.unwrap_or_else(|| panic!("{}", world.status("client")));

    world.connect();
    let seen = witness.take().unwrap().judge("turnserver and our nodes");
    assert!(seen.is_none_or(|seen| seen.messages > 0 && seen.channel_data > 0));

    // Who is gone is given out no longer.
    let log = server.take().unwrap().kill();
    let granted = log.matches("ALLOCATE processed, success").count();
    let bound = log.matches("CHANNEL_BIND processed, success").count();
    println!(
        "turnserver {}: {granted} allocations and {bound} channels of ours, {} <-> {}",
        version(),
        path.local,
        path.remote,
    );
    assert!(granted >= 2 && bound >= 2, "{log}");
    let is_forgotten = |world: &World| {
        let relays = world.status("client")["relays"].as_array()?.is_empty();
        relays.then_some(())
    };
    world.wait_for_line("relay", "doesn't answer any more");
    let forgotten = world.wait_for(PATIENCE, is_forgotten);
    assert!(forgotten.is_some(), "{}", world.status("client"));
}

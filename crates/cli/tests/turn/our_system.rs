//! A client and a gateway of ours meet at a relay of ours, and tshark reads along.

use std::time::Duration;

use crate::tshark::Witness;
use crate::world::World;

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(40);

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn tshark_understands_all_that_our_nodes_and_our_relay_say() {
    let mut witness = None;
    let mut world = World::prepared(&["relay"], &["gateway"], |network| {
        network.block("client", "gateway");
        witness = Some(Witness::start(network.namespace("relay")));
    });

    world.connect();
    let path = world.wait_path("relayed", PATIENCE);
    assert!(path.is_some(), "{}", world.status("client"));
    world.connect();

    let seen = witness.take().unwrap().judge("our nodes and our relay");
    assert!(seen.is_none_or(|seen| seen.messages > 0 && seen.channel_data > 0));
    world.assert_calm();
}

//! A gateway on a machine without the program that sets rules of the firewall.

use crate::world::{Plan, World};

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_gateway_that_cannot_masquerade_says_so_once_and_passes_packets_on() {
    let plan = Plan {
        gateway: &[],
        hides_nft: true,
        ..Plan::default()
    };
    // The host of this network knows the way to clients by itself.
    let mut world = World::planned(plan, &["relay"], &["gateway"], |_| {});
    world.connect();
    world.stop("gateway");
    let alarms = std::mem::take(&mut world.alarms);
    let [alarm] = &alarms[..] else {
        panic!("{alarms:#?}");
    };
    assert!(
        alarm.contains(" WARN ") && alarm.contains("nftables"),
        "{alarm}"
    );
    world.assert_calm();
}

//! A portal that goes and comes back.

use std::time::Duration;

use crate::figures::Table;
use crate::probe::Probe;
use crate::world::{World, pause};

pub(crate) fn portal_restarted(table: &mut Table) {
    let mut world = World::new(&["relay"], &["gateway"]);
    world.connect();
    world.wait_for_line("client", "Joined the portal");
    let probe = Probe::start(world.network.namespace("client"));
    // Of several direct ways the ends agree on one soon after packets flow.
    pause(Duration::from_secs(3));
    let before = world.path().unwrap();
    for _ in 0..2 {
        pause(Duration::from_millis(300));
        world.stop("portal");
        pause(Duration::from_millis(300));
        world.start("portal");
        world.wait_for_line("client", "Joined the portal");
        pause(Duration::from_millis(500));
    }
    let lost = probe.stop().lost();
    let after = world.path().unwrap();
    table.add("the portal is restarted: packets lost", "0", lost);
    assert_eq!(lost, 0);
    assert_eq!((before.kind, before.why), (after.kind, after.why));
    world.assert_calm();
}

//! A network that lets no UDP out.

use std::time::Duration;

use crate::matrix::{HOMES, PROGRAMS};
use crate::probe::first_reply;
use crate::router::Router;
use crate::tools::begin_with;
use crate::world::{Plan, World};

const NO_UDP: &str = r#"
    table ip nat {
        chain out { type nat hook postrouting priority srcnat; oifname "outside" masquerade; }
    }
    table inet filter {
        chain forward { type filter hook forward priority filter; meta l4proto udp drop; }
    }"#;

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn where_udp_is_blocked_the_client_says_that_no_relay_answers() {
    let Some(_turn) = begin_with(&PROGRAMS, true) else {
        return;
    };
    let plan = Plan {
        lacks_relays: true,
        ..Plan::default()
    };
    let mut routers = Vec::new();
    let mut world = World::planned(plan, &["relay"], &["gateway"], |network| {
        let (place, address) = HOMES[0];
        let router = Router::in_place_of(network, place);
        router.serve("inside", network.namespace(place), address);
        router.obey(NO_UDP);
        routers.push(router);
    });
    let shown = world.table("client");
    println!("{shown}");
    for _ in 0..4 {
        let reply = first_reply(world.network.namespace("client"), Duration::from_secs(5));
        assert_eq!(reply, None);
        println!("{}", world.table("client"));
    }
    world.stop("client");
    world.assert_calm();
}

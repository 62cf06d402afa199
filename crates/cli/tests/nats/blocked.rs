//! A network that lets no UDP out.

use std::time::Duration;

use connlib_os::clock::Clock;

use crate::matrix::{HOMES, PROGRAMS};
use crate::probe::first_reply;
use crate::router::Router;
use crate::tools::{begin_with, say};
use crate::world::{Plan, World};

/// Relays are given up twice meanwhile.
const LONG: Duration = Duration::from_secs(18);

/// A client behind a router that lets TCP out, and does that to UDP.
fn blocked(verdict: &str) -> (World, Router) {
    let plan = Plan {
        lacks_relays: true,
        ..Plan::default()
    };
    let rules = format!(
        r#"
        table ip nat {{
            chain out {{ type nat hook postrouting priority srcnat; oifname "outside" masquerade; }}
        }}
        table inet filter {{
            chain forward {{ type filter hook forward priority filter; meta l4proto udp {verdict}; }}
        }}"#
    );
    let mut router = None;
    let world = World::planned(plan, &["relay"], &["gateway"], |network| {
        let (place, address) = HOMES[0];
        let new = Router::in_place_of(network, place);
        new.serve("inside", network.namespace(place), address);
        new.obey(&rules);
        router = Some(new);
    });

    (world, router.unwrap())
}

/// What the client's status says to people.
fn assert_told(world: &World) {
    // It takes some seconds to know; the moment between giving up a relay and being told of it again is short.
    let is_told = |world: &World| {
        let shown = world.table("client");
        let is_told =
            shown.contains("connecting") && shown.contains("does this network let UDP out");
        is_told.then_some(())
    };
    let told = world.wait_for(Duration::from_secs(5), is_told);
    assert!(told.is_some(), "{}", world.table("client"));
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn where_udp_is_blocked_the_client_says_that_no_relay_answers() {
    let Some(_turn) = begin_with(&PROGRAMS, true) else {
        return;
    };
    let verdicts = ["drop", "reject with icmpx admin-prohibited"];
    let worlds = verdicts.map(blocked);
    let clock = Clock::new();
    let ends_at = clock.now() + LONG;
    while clock.now() < ends_at {
        for (world, _) in &worlds {
            let client = world.network.namespace("client");
            assert_eq!(first_reply(client, Duration::from_millis(500)), None);
            assert_told(world);
        }
    }
    for (mut world, router) in worlds {
        // Each attempt of five seconds is a line, and what may be wrong is one.
        let lines = world.parts.get_mut("client").unwrap().log_so_far();
        assert!(lines.len() <= 11, "{lines:#?}");
        let named = lines
            .iter()
            .filter(|line| line.contains("let UDP out, to port"));
        assert_eq!(named.count(), 1, "{lines:#?}");

        router.nft("flush chain inet filter forward");
        // Relays are asked at 0, 1, 2.5 and 4.75 of eight seconds, and attempts last five.
        let back_after = world.connect();
        assert!(back_after < Duration::from_secs(15), "{back_after:?}");
        assert!(world.wait_path("direct", Duration::from_secs(5)).is_some());
        let ms = back_after.as_millis();
        say(&format!("UDP is let out again: first byte after {ms} ms"));
        let client = world.parts.get_mut("client").unwrap();
        client.wait_for_line("this network lets UDP out now");
        for place in ["client", "gateway"] {
            world.stop(place);
        }
        world.assert_calm();
    }
}

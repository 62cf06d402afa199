//! IPv6: behind firewalls, and with an end that has no such thing.

use crate::matrix::PROGRAMS;
use crate::router::{FILTER, Router, ip};
use crate::rows::Table;
use crate::tools::begin_with;
use crate::world::{Plan, World};

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn firewalls_on_both_sides_of_ipv6_are_passed_directly() {
    let Some(_turn) = begin_with(&PROGRAMS, true) else {
        return;
    };
    let plan = Plan {
        by_ipv6: &["client", "gateway"],
        ..Plan::default()
    };
    let mut table = Table::default();
    // They last as long as they are held.
    let mut routers = Vec::new();
    let mut world = World::planned(plan, &["relay"], &["gateway"], |network| {
        for place in ["client", "gateway"] {
            let router = Router::in_place_of(network, place);
            router.serve_v6(network, place);
            router.obey(FILTER);
            routers.push(router);
        }
    });
    let verdict = table.measure(["IPv6, firewall"; 2], &world, "direct");
    assert_eq!(verdict, Ok(()));
    world.assert_calm();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_client_with_ipv6_alone_reaches_a_gateway_with_ipv4_alone_through_the_relay() {
    let Some(_turn) = begin_with(&PROGRAMS, true) else {
        return;
    };
    let plan = Plan {
        by_ipv6: &["client"],
        ..Plan::default()
    };
    let mut table = Table::default();
    let mut world = World::planned(plan, &["relay"], &["gateway"], |network| {
        for (place, lost) in [("client", "-4"), ("gateway", "-6")] {
            let [_, _, number, _] = network.net(place).host_v4().octets();
            ip(
                network.namespace(place),
                &format!("{lost} address flush dev net{number}"),
            );
        }
    });
    let verdict = table.measure(["IPv6 only", "IPv4 only"], &world, "relayed");
    assert_eq!(verdict, Ok(()));
    world.assert_calm();
}

//! Homes behind a provider's NAT: one end's, or those of both.

use std::net::Ipv4Addr;

use crate::matrix::{HOMES, PROGRAMS, put};
use crate::network::Network;
use crate::router::{FILTER, Nat, Router, ip};
use crate::rows::Table;
use crate::tools::begin_with;
use crate::world::World;

/// What homes are to the provider. The tunnel has the lower half of this range.
const WITHIN: [Ipv4Addr; 2] = [
    Ipv4Addr::new(100, 127, 1, 10),
    Ipv4Addr::new(100, 127, 2, 10),
];

/// The port of each end.
const PORT: u16 = 52625;

/// A home that reaches the Internet through a provider's router.
fn home(network: &Network, provider: &Router, number: usize) -> Router {
    let (place, address) = HOMES[number];
    let router = provider.behind(&format!("inside{number}"), WITHIN[number]);
    router.serve("inside", network.namespace(place), address);
    router.translate(Nat::EimApdf, address);

    router
}

/// A home behind a provider, and what else is there.
fn behind_a_provider(table: &mut Table, gateway: Nat) {
    let mut homes = Vec::new();
    let mut provider = None;
    let world = World::prepared(&["relay"], &["gateway"], |network| {
        let first = Router::in_place_of(network, "client");
        first.translate(Nat::EimApdf, WITHIN[0]);
        homes.push(home(network, &first, 0));
        homes.extend(put(network, HOMES[1], gateway));
        provider = Some(first);
    });
    let names = ["EIM/APDF in EIM/APDF", &gateway.to_string()];
    judge(table, names, "direct", world, &homes, &provider.unwrap());
}

/// Both ends in homes of the same provider.
fn behind_the_same(table: &mut Table, has_hairpin: bool) {
    let mut homes = Vec::new();
    let mut provider = None;
    let world = World::prepared(&["relay"], &["gateway"], |network| {
        let both = Router::in_place_of(network, "client");
        match has_hairpin {
            true => both.obey(&hairpin(both.outside)),
            false => both.translate(Nat::EimApdf, WITHIN[0]),
        }
        let [_, _, number, _] = network.net("gateway").host_v4().octets();
        ip(
            network.namespace("gateway"),
            &format!("link delete net{number}"),
        );
        homes.extend([0, 1].map(|number| home(network, &both, number)));
        provider = Some(both);
    });
    let (name, expected) = match has_hairpin {
        true => ("EIM/APDF in the same, hairpin", "direct"),
        false => ("EIM/APDF in the same, no hairpin", "relayed"),
    };
    judge(
        table,
        [name; 2],
        expected,
        world,
        &homes,
        &provider.unwrap(),
    );
}

fn judge(
    table: &mut Table,
    names: [&str; 2],
    expected: &str,
    mut world: World,
    homes: &[Router],
    provider: &Router,
) {
    let verdict = table.measure(names, &world, expected);
    if let Err(verdict) = verdict {
        let routers = homes.iter().chain([provider]);
        let flows: Vec<_> = routers.map(Router::flows).collect();
        panic!("{verdict}\n{}", flows.join("\n"));
    }
    for home in homes {
        home.assert_no_flow_of_its_own("192.168.");
    }
    provider.assert_no_flow_of_its_own("100.127.");
    world.assert_calm();
}

/// A provider that gives each home a port of its own, and turns round what one home sends to the other's.
///
/// Linux doesn't do that by itself: what comes for the router's own address is for the router, whoever was given that port for
/// another flow.
fn hairpin(outside: Ipv4Addr) -> String {
    let [mut there, mut back] = [String::new(), String::new()];
    for (number, home) in WITHIN.iter().enumerate() {
        let port = 20_001 + number;
        there.push_str(&format!(
            "ip daddr {outside} udp dport {port} iifname \"inside*\" dnat to {home}:{PORT}\n"
        ));
        back.push_str(&format!(
            "ip saddr {home} udp sport {PORT} snat to {outside}:{port}\n"
        ));
    }

    format!(
        r#"
        table ip nat {{
            chain in {{
                type nat hook prerouting priority dstnat
                {there}
            }}
            chain out {{
                type nat hook postrouting priority srcnat
                {back}
                oifname "outside" masquerade
            }}
        }}
        {FILTER}"#
    )
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn two_levels_of_nats_are_passed_directly() {
    let Some(_turn) = begin_with(&PROGRAMS, true) else {
        return;
    };
    let mut table = Table::default();
    for gateway in [Nat::None, Nat::EimApdf] {
        behind_a_provider(&mut table, gateway);
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn homes_of_one_provider_meet_at_its_router_if_it_turns_datagrams_round() {
    let Some(_turn) = begin_with(&PROGRAMS, true) else {
        return;
    };
    let mut table = Table::default();
    for has_hairpin in [true, false] {
        behind_the_same(&mut table, has_hairpin);
    }
}

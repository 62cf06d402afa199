//! Each kind of NAT against each.

use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::network::Network;
use crate::router::{Nat, Router};
use crate::rows::Table;
use crate::tools::begin_with;
use crate::world::World;

/// What these tests need.
pub(crate) const PROGRAMS: [&str; 3] = ["ip", "nft", "conntrack"];

/// An end, and its address at home.
pub(crate) type Home = (&'static str, Ipv4Addr);

pub(crate) const HOMES: [Home; 2] = [
    ("client", Ipv4Addr::new(192, 168, 1, 10)),
    ("gateway", Ipv4Addr::new(192, 168, 2, 10)),
];

/// Puts a NAT before a place, which is at home there.
pub(crate) fn put(network: &Network, (place, address): Home, nat: Nat) -> Option<Router> {
    if nat == Nat::None {
        return None;
    }
    let router = Router::in_place_of(network, place);
    router.serve("inside", network.namespace(place), address);
    router.translate(nat, address);

    Some(router)
}

/// A path is direct unless one end can't be foreseen and the other lets in only whom it expects.
fn expected(client: Nat, gateway: Nat) -> &'static str {
    match [client, gateway] {
        [Nat::EdmApdf, Nat::EdmApdf | Nat::EimApdf] | [Nat::EimApdf, Nat::EdmApdf] => "relayed",
        _ => "direct",
    }
}

fn play(table: &mut Table, [client, gateway]: [Nat; 2], homes: [Home; 2]) {
    let mut routers = Vec::new();
    let mut world = World::prepared(&["relay"], &["gateway"], |network| {
        for (home, nat) in homes.into_iter().zip([client, gateway]) {
            routers.extend(put(network, home, nat));
        }
    });
    let names = [client.to_string(), gateway.to_string()];
    let verdict = table.measure(
        names.each_ref().map(String::as_str),
        &world,
        expected(client, gateway),
    );
    if let Err(verdict) = verdict {
        let flows: Vec<_> = routers.iter().map(Router::flows).collect();
        panic!("{verdict}\n{}", flows.join("\n"));
    }
    for router in &routers {
        router.assert_no_flow_of_its_own("192.168.");
    }
    world.assert_calm();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn thirteen_of_sixteen_pairs_of_nats_are_passed_directly() {
    let Some(_turn) = begin_with(&PROGRAMS, true) else {
        return;
    };
    let mut table = Table::default();
    let mut failed = Vec::new();
    for client in Nat::ALL {
        for gateway in Nat::ALL {
            let play = AssertUnwindSafe(|| play(&mut table, [client, gateway], HOMES));
            if catch_unwind(play).is_err() {
                failed.push(format!("{client} × {gateway}"));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!([table.count("direct"), table.count("relayed")], [13, 3]);
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn homes_with_the_same_addresses_meet_directly() {
    let Some(_turn) = begin_with(&PROGRAMS, true) else {
        return;
    };
    let [client, (gateway, _)] = HOMES;
    let homes = [client, (gateway, client.1)];
    let mut table = Table::default();
    play(&mut table, [Nat::EimApdf; 2], homes);
}

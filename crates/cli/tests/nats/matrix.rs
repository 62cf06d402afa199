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

/// The ends, and what they are at home.
pub(crate) const HOMES: [(&str, Ipv4Addr); 2] = [
    ("client", Ipv4Addr::new(192, 168, 1, 10)),
    ("gateway", Ipv4Addr::new(192, 168, 2, 10)),
];

/// Puts a NAT before a place.
pub(crate) fn put(network: &Network, place: &str, nat: Nat) -> Option<Router> {
    if nat == Nat::None {
        return None;
    }
    let (_, address) = HOMES.into_iter().find(|(name, _)| *name == place).unwrap();
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

fn play(table: &mut Table, client: Nat, gateway: Nat) {
    let mut routers = Vec::new();
    let mut world = World::prepared(&["relay"], &["gateway"], |network| {
        for (place, nat) in [("client", client), ("gateway", gateway)] {
            routers.extend(put(network, place, nat));
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
            let play = AssertUnwindSafe(|| play(&mut table, client, gateway));
            if catch_unwind(play).is_err() {
                failed.push(format!("{client} × {gateway}"));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!([table.count("direct"), table.count("relayed")], [13, 3]);
}

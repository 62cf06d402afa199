//! What is counted.

use connlib_relay::{DropReason, Stats};
use connlib_wire::stun::{Attribute, Method};

use crate::support::{Ask, Rig, client, peer, rest_user, secs, standard};

#[test]
fn each_kind_of_thing_is_counted_once() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let pair = Ask::allocate().with(Attribute::EvenPort { reserve: true });
    let port = rig.ask(client(1), &alice, &pair).unwrap().port();
    rig.permit(client(1), &alice, &[peer(1), peer(2)]);
    rig.permit(client(1), &alice, &[peer(1)]);
    rig.bind(client(1), &alice, 0x4000, peer(1));
    rig.bind(client(1), &alice, 0x4000, peer(1));
    let _ = rig.send_data(client(1), 0x4000, b"12");
    let _ = rig.send_to(client(1), peer(2), b"345");
    let _ = rig.send_from_peer(port, peer(1), b"6789");
    let _ = rig.send_from_peer(port, peer(2), b"01234");
    let _ = rig.send_from_peer(port, peer(3), b"x");

    let stats = rig.server.stats();
    assert_eq!((stats.allocations, stats.allocations_made), (1, 1));
    assert_eq!((stats.channels, stats.channels_made), (1, 1));
    assert_eq!((stats.permissions, stats.permissions_made), (2, 2));
    assert_eq!(stats.reservations, 1);
    let traffic = [
        stats.to_peers,
        stats.sent_to_peers,
        stats.to_clients,
        stats.indicated_to_clients,
        stats.between_clients,
    ];
    assert_eq!(
        traffic.map(|it| (it.datagrams, it.bytes)),
        [(1, 2), (1, 3), (1, 4), (1, 5), (0, 0)]
    );
    assert_eq!(stats.dropped(DropReason::NoPermission), 1);
    let answers: Vec<_> = stats.answers.iter().map(|(key, n)| (*key, *n)).collect();
    assert_eq!(
        answers,
        [
            ((Method::Allocate, None), 1),
            ((Method::Allocate, Some(401)), 1),
            ((Method::CreatePermission, None), 2),
            ((Method::ChannelBind, None), 2),
        ]
    );

    rig.ask(client(1), &alice, &Ask::refresh(secs(0)));
    rig.pass(secs(30));
    let stats = rig.server.stats();
    let gauges = [
        stats.allocations,
        stats.channels,
        stats.permissions,
        stats.reservations,
    ];
    assert_eq!(gauges, [0; 4]);
}

#[test]
fn each_reason_has_a_counter_of_its_own() {
    let mut stats = Stats::default();
    assert!(
        DropReason::ALL
            .into_iter()
            .all(|reason| stats.dropped(reason) == 0)
    );
    let mut all = DropReason::ALL.to_vec();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), DropReason::ALL.len());
    stats.allocations = 1;
    assert_ne!(stats, Stats::default());
}

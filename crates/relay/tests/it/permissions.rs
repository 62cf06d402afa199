//! Permissions: RFC 8656 §9, §10; relay.md §11 for the portal's clients.

use connlib_relay::{Config, DropReason, Limits, LoopbackPeers, PrivatePeers, Reason, Verdict};
use connlib_wire::stun::{Attribute, Family, Method};

use crate::support::{
    Ask, PUBLIC_V4, Rig, VerdictExt as _, addr, client, config, peer, peer_v6, rest_user, secs,
    standard, user,
};

#[test]
fn a_peer_needs_one_in_both_directions() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let port = rig.allocate(client(1), &alice);
    let to_peer = rig.send_to(client(1), peer(1), b"x").dropped();
    let to_client = rig.send_from_peer(port, peer(1), b"x").dropped();
    assert_eq!([to_peer, to_client], [DropReason::NoPermission; 2]);

    assert_eq!(rig.permit(client(1), &alice, &[peer(1)]), None);

    assert_eq!(rig.send_to(client(1), peer(1), b"x"), Verdict::Handled);
    assert_eq!(rig.send_from_peer(port, peer(1), b"x"), Verdict::Handled);
    assert_eq!(rig.relayed().len(), 2);
    let stranger = rig.send_from_peer(port, peer(2), b"x").dropped();
    assert_eq!(stranger, DropReason::NoPermission);
}

#[test]
fn it_is_for_an_ip_address_with_all_its_ports() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let port = rig.allocate(client(1), &alice);
    let port_zero = (peer(1).ip(), 0).into();
    assert_eq!(rig.permit(client(1), &alice, &[port_zero]), None);

    let other_port = (peer(1).ip(), 1).into();
    assert_eq!(rig.send_from_peer(port, other_port, b"x"), Verdict::Handled);
    assert_eq!(rig.send_to(client(1), other_port, b"x"), Verdict::Handled);
    let nowhere = rig.send_to(client(1), port_zero, b"x").dropped();
    assert_eq!(nowhere, DropReason::ForbiddenPeer);
}

#[test]
fn it_lasts_five_minutes_and_can_be_renewed() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let port = rig.allocate(client(1), &alice);
    rig.permit(client(1), &alice, &[peer(1)]);
    let (at, reason) = rig.server.poll_timeout().unwrap();
    assert_eq!(at.duration_since(rig.now), secs(300));
    assert_eq!(reason, Reason::PermissionExpires);

    rig.pass(secs(200));
    rig.permit(client(1), &alice, &[peer(1)]);
    assert_eq!(rig.server.stats().permissions, 1);
    rig.pass(secs(299));
    assert_eq!(rig.send_from_peer(port, peer(1), b"x"), Verdict::Handled);
    rig.pass(secs(1));
    let late = rig.send_from_peer(port, peer(1), b"x").dropped();
    assert_eq!(late, DropReason::NoPermission);
    assert_eq!(rig.server.stats().permissions, 0);
    assert_eq!(rig.server.stats().permissions_made, 1);
}

#[test]
fn data_does_not_renew_it_nor_does_a_refresh() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let port = rig.allocate(client(1), &alice);
    rig.permit(client(1), &alice, &[peer(1)]);
    rig.pass(secs(299));
    let _ = rig.send_to(client(1), peer(1), b"x");
    let _ = rig.send_from_peer(port, peer(1), b"x");
    rig.ask(client(1), &alice, &Ask::refresh(secs(600)));
    rig.pass(secs(1));

    let late = rig.send_to(client(1), peer(1), b"x").dropped();
    assert_eq!(late, DropReason::NoPermission);
}

#[test]
fn a_channel_brings_one_and_renews_it_and_is_silent_without() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let port = rig.allocate(client(1), &alice);
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(1)), None);
    assert_eq!(rig.server.stats().permissions, 1);
    rig.pass(secs(299));
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(1)), None);
    rig.pass(secs(299));
    assert_eq!(rig.send_data(client(1), 0x4000, b"x").forward().to, peer(1));

    rig.pass(secs(1));
    let to_peer = rig.send_data(client(1), 0x4000, b"x").dropped();
    let to_client = rig.send_from_peer(port, peer(1), b"x").dropped();
    assert_eq!([to_peer, to_client], [DropReason::NoPermission; 2]);

    // The channel is there still, and serves again.
    rig.permit(client(1), &alice, &[peer(1)]);
    assert_eq!(rig.send_data(client(1), 0x4000, b"x").forward().to, peer(1));
    let back = rig.send_from_peer(port, peer(1), b"x").forward();
    assert_eq!(back.channel.unwrap().number(), 0x4000);
}

#[test]
fn several_are_created_or_none() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    rig.ask(client(1), &alice, &Ask::allocate());
    for (peers, code) in [
        ([peer(1), peer_v6(1)], 443),
        ([peer(1), addr("127.0.0.1:1")], 403),
        ([addr("224.0.0.1:1"), peer(1)], 403),
    ] {
        assert_eq!(rig.permit(client(1), &alice, &peers), Some(code));
        assert_eq!(rig.server.stats().permissions, 0, "{peers:?}");
    }

    let all = [peer(1), peer(2), peer(1)];
    assert_eq!(rig.permit(client(1), &alice, &all), None);
    assert_eq!(rig.server.stats().permissions, 2);
}

#[test]
fn without_an_address_it_is_a_bad_request() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    rig.allocate(client(1), &alice);
    assert_eq!(rig.permit(client(1), &alice, &[]), Some(400));
    let broken = Ask::create_permission(&[peer(1)]).with(Attribute::Unknown(0x0012, &[0, 9]));
    let answer = rig.ask(client(1), &alice, &broken).unwrap();
    assert_eq!(answer.code(), Some(400));
    assert_eq!(rig.server.stats().permissions, 0);
}

#[test]
fn without_an_allocation_it_is_a_mismatch_and_another_users_is_not_touched() {
    let mut rig = Rig::with(standard());
    let (alice, bob) = (rest_user("a"), rest_user("b"));
    assert_eq!(rig.permit(client(1), &alice, &[peer(1)]), Some(437));
    rig.allocate(client(1), &alice);
    assert_eq!(rig.permit(client(1), &bob, &[peer(1)]), Some(441));
    assert_eq!(rig.server.stats().permissions, 0);
}

#[test]
fn they_are_bounded_per_allocation_but_can_be_renewed() {
    let limits = Limits {
        permissions_per_allocation: 2,
        ..Limits::default()
    };
    let mut rig = Rig::limited(standard(), limits);
    let alice = rest_user("a");
    rig.allocate(client(1), &alice);
    assert_eq!(rig.permit(client(1), &alice, &[peer(1)]), None);
    let too_many = [peer(2), peer(3)];
    assert_eq!(rig.permit(client(1), &alice, &too_many), Some(508));
    assert_eq!(rig.server.stats().permissions, 1);
    assert_eq!(rig.permit(client(1), &alice, &[peer(1), peer(2)]), None);
    assert_eq!(rig.permit(client(1), &alice, &[peer(1), peer(2)]), None);
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(3)), Some(508));
    assert_eq!(rig.server.stats().channels, 0, "nor is the channel bound");
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(2)), None);

    rig.pass(secs(300));
    assert_eq!(rig.permit(client(1), &alice, &[peer(3)]), None);
}

#[test]
fn they_end_with_their_allocation_and_with_its_family() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    rig.allocate(client(1), &alice);
    rig.permit(client(1), &alice, &[peer(1), peer_v6(1)]);
    rig.bind(client(1), &alice, 0x4000, peer_v6(1));
    let v6_only = Ask::refresh(secs(0)).with(Attribute::RequestedAddressFamily(Family::V6));
    assert!(rig.ask(client(1), &alice, &v6_only).unwrap().is_success());
    assert_eq!(rig.server.stats().permissions, 1);
    assert_eq!(rig.server.stats().channels, 0);
    assert_eq!(rig.permit(client(1), &alice, &[peer_v6(1)]), Some(443));
    let gone = rig.send_to(client(1), peer_v6(1), b"x").dropped();
    assert_eq!(gone, DropReason::NoPermission);
    assert_eq!(rig.send_to(client(1), peer(1), b"x"), Verdict::Handled);
    rig.relayed();

    rig.ask(client(1), &alice, &Ask::refresh(secs(0)));
    assert_eq!(rig.server.stats().permissions, 0);
    assert_eq!(rig.server.poll_timeout(), None);
}

#[test]
fn the_portals_clients_need_none_and_always_get_one() {
    let mut rig = Rig::new();
    let alice = user("a");
    let port = rig.allocate(client(1), &alice);
    for ask in [
        Ask::new(Method::CreatePermission),
        Ask::create_permission(&[addr("127.0.0.1:1")]),
    ] {
        assert!(rig.ask(client(1), &alice, &ask).unwrap().is_success());
    }
    assert_eq!(rig.server.stats().permissions, 0);

    rig.bind(client(1), &alice, 0x4000, peer(1));
    rig.pass(secs(599));
    assert_eq!(rig.send_data(client(1), 0x4000, b"x").forward().to, peer(1));
    let without_channel = rig.send_from_peer(port, peer(2), b"x").dropped();
    assert_eq!(without_channel, DropReason::NoChannel);
}

const PRIVATE: [&str; 16] = [
    "10.0.0.1:80",
    "172.16.0.1:80",
    "172.31.255.255:80",
    "192.168.1.1:80",
    "100.64.0.1:80",
    "100.127.255.255:80",
    "192.0.0.1:80",
    "198.18.0.1:80",
    "198.19.255.255:80",
    "240.0.0.1:80",
    "[fc00::1]:80",
    "[fd12:3456::1]:80",
    "[64:ff9b::10.0.0.1]:80",
    "[64:ff9b:1::1]:80",
    "[2002:c0a8:101::1]:80",
    "[2002:a00:1::]:80",
];

const BESIDE: [&str; 10] = [
    "9.255.255.255:80",
    "11.0.0.1:80",
    "172.15.0.1:80",
    "172.32.0.1:80",
    "100.63.0.1:80",
    "100.128.0.1:80",
    "198.17.0.1:80",
    "198.20.0.1:80",
    "[2001:db8:2::1]:80",
    "[64:ff9b::8.8.8.8]:80",
];

#[test]
fn private_networks_can_be_refused_to_everybody() {
    for (portals, who) in [(config(), user("a")), (standard(), rest_user("a"))] {
        for private_peers in [PrivatePeers::Allowed, PrivatePeers::Refused] {
            let mut rig = Rig::with(Config {
                private_peers,
                ..portals.clone()
            });
            rig.allocate(client(1), &who);
            let refused = (private_peers == PrivatePeers::Refused).then_some(403);
            for (n, text) in (0x4000..).zip(PRIVATE) {
                let code = rig.bind(client(1), &who, n, addr(text));
                assert_eq!(code, refused, "{text}");
            }
            for (n, text) in (0x4100..).zip(BESIDE) {
                assert_eq!(rig.bind(client(1), &who, n, addr(text)), None, "{text}");
            }
        }
    }
}

#[test]
fn translators_do_not_lead_to_this_machine() {
    for (config, who) in [(config(), user("a")), (standard(), rest_user("a"))] {
        let mut rig = Rig::with(config);
        rig.allocate(client(1), &who);
        for text in ["[64:ff9b::127.0.0.1]:80", "[64:ff9b::169.254.169.254]:80"] {
            let code = rig.bind(client(1), &who, 0x4000, addr(text));
            assert_eq!(code, Some(403), "{text}");
        }
    }
}

#[test]
fn at_our_own_addresses_only_allocations_are_reached() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    rig.allocate(client(1), &alice);
    let own = |port: u16| (PUBLIC_V4, port).into();
    for port in [22, 53, 3_478, 49_151] {
        assert_eq!(rig.bind(client(1), &alice, 0x4000, own(port)), Some(403));
    }
    // The address is permitted for the sake of allocations; a port that none has is still out of reach.
    assert_eq!(rig.permit(client(1), &alice, &[own(0)]), None);
    assert_eq!(rig.bind(client(1), &alice, 0x4001, own(50_000)), None);
    let dropped = [
        rig.send_to(client(1), own(22), b"x").dropped(),
        rig.send_to(client(1), own(50_000), b"x").dropped(),
        rig.send_data(client(1), 0x4001, b"x").dropped(),
    ];
    assert_eq!(dropped, [DropReason::ForbiddenPeer; 3]);

    let mut rig = Rig::with(Config {
        loopback_peers: LoopbackPeers::Allowed,
        ..standard()
    });
    rig.allocate(client(1), &alice);
    assert_eq!(rig.bind(client(1), &alice, 0x4000, own(22)), None);
    assert_eq!(rig.send_data(client(1), 0x4000, b"x").forward().to, own(22));
}

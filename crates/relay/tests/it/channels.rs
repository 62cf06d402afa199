//! Channels: relay.md §10.

use connlib_relay::{Config, DropReason, LoopbackPeers, Reason};
use connlib_wire::stun::Attribute;

use crate::support::{
    Ask, LISTEN_PORT, PUBLIC_V4, PUBLIC_V6, Rig, VerdictExt as _, addr, client, config, peer,
    peer_v6, secs, user,
};

#[test]
fn success_is_an_empty_signed_answer() {
    let mut rig = Rig::new();
    rig.allocate(client(1), &user("a"));
    let ask = Ask::channel_bind(0x4000, peer(1));
    let answer = rig.ask(client(1), &user("a"), &ask).unwrap();

    assert!(answer.is_success());
    let attributes: Vec<_> = answer.message().attributes().collect();
    assert!(
        matches!(attributes[..], [Ok(Attribute::Software(_))]),
        "{attributes:?}"
    );
}

#[test]
fn a_number_and_a_peer_stay_together() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("a"), user("b"));
    rig.allocate(client(1), &alice);
    rig.allocate(client(2), &bob);
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(1)), None);

    for _ in ["bound", "cooling down"] {
        let other_number = rig.bind(client(1), &alice, 0x4001, peer(1));
        assert_eq!(other_number, Some(400));
        let other_peer = rig.bind(client(1), &alice, 0x4000, peer(2));
        assert_eq!(other_peer, Some(400));
        let other_client = rig.bind(client(2), &bob, 0x4000, peer(2));
        assert_eq!(other_client, None, "numbers are each client's own");
        for (from, who) in [(client(1), &alice), (client(2), &bob)] {
            rig.ask(from, who, &Ask::refresh(secs(3_600)));
        }
        rig.pass(secs(601));
    }
}

#[test]
fn the_extremes_of_the_range_can_be_bound() {
    let mut rig = Rig::new();
    rig.allocate(client(1), &user("a"));

    assert_eq!(rig.bind(client(1), &user("a"), 0x4000, peer(1)), None);
    assert_eq!(rig.bind(client(1), &user("a"), 0x4FFF, peer(2)), None);
}

#[test]
fn a_channel_expires_cools_down_and_is_free_again() {
    let mut rig = Rig::new();
    let alice = user("a");
    let port = rig.allocate(client(1), &alice);
    rig.ask(client(1), &alice, &Ask::refresh(secs(3_600)));
    rig.bind(client(1), &alice, 0x4000, peer(1));
    assert_eq!(rig.next_deadline(), Some(secs(600)));
    assert_eq!(rig.server.stats().channels, 1);

    rig.pass(secs(601));
    assert_eq!(rig.server.stats().channels, 0);
    let to_peer = rig.send_data(client(1), 0x4000, b"x").dropped();
    let to_client = rig.send_from_peer(port, peer(1), b"x").dropped();
    assert_eq!([to_peer, to_client], [DropReason::NoChannel; 2]);
    let (at, reason) = rig.server.poll_timeout().unwrap();
    assert_eq!(at.duration_since(rig.now), secs(299));
    assert_eq!(reason, Reason::ChannelCooledDown);

    rig.pass(secs(298));
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(2)), Some(400));
    rig.pass(secs(1));
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(2)), None);
    assert_eq!(rig.bind(client(1), &alice, 0x4001, peer(1)), None);
}

#[test]
fn a_refresh_while_cooling_down_revives_both_directions() {
    let mut rig = Rig::new();
    let alice = user("a");
    let port = rig.allocate(client(1), &alice);
    rig.ask(client(1), &alice, &Ask::refresh(secs(3_600)));
    rig.bind(client(1), &alice, 0x4000, peer(1));
    rig.pass(secs(700));

    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(1)), None);

    assert_eq!(rig.send_data(client(1), 0x4000, b"x").forward().to, peer(1));
    let back = rig.send_from_peer(port, peer(1), b"x").forward();
    assert_eq!(back.to, client(1));
    rig.pass(secs(599));
    assert_eq!(rig.server.stats().channels, 1, "for 600 s from then");
    rig.pass(secs(1));
    assert_eq!(rig.server.stats().channels, 0);
}

#[test]
fn refreshing_the_allocation_does_not_refresh_its_channels() {
    let mut rig = Rig::new();
    let alice = user("a");
    rig.allocate(client(1), &alice);
    rig.bind(client(1), &alice, 0x4000, peer(1));
    rig.pass(secs(599));
    rig.ask(client(1), &alice, &Ask::refresh(secs(600)));
    rig.pass(secs(1));

    let _ = rig.send_data(client(1), 0x4000, b"x").dropped();
}

#[test]
fn a_late_timer_does_not_extend_a_channel() {
    let mut rig = Rig::new();
    let alice = user("a");
    rig.allocate(client(1), &alice);
    rig.ask(client(1), &alice, &Ask::refresh(secs(3_600)));
    rig.bind(client(1), &alice, 0x4000, peer(1));

    rig.now += secs(600);
    let _ = rig.send_data(client(1), 0x4000, b"x").dropped();
    rig.now += secs(300);
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(2)), None);
}

#[test]
fn a_peer_of_a_family_without_an_address_is_a_mismatch() {
    let mut rig = Rig::new();
    rig.ask(client(1), &user("a"), &Ask::allocate());
    assert_eq!(
        rig.bind(client(1), &user("a"), 0x4000, peer_v6(1)),
        Some(443)
    );
}

const LOCAL: [&str; 7] = [
    "127.0.0.1:80",
    "127.255.0.1:80",
    "169.254.169.254:80",
    "[::1]:80",
    "[fe80::1]:80",
    "203.0.113.9:3478",
    "[2001:db8::9]:3478",
];

const NEVER: [&str; 10] = [
    "0.0.0.0:80",
    "0.1.2.3:80",
    "224.0.0.1:80",
    "239.1.2.3:80",
    "255.255.255.255:80",
    "[::]:80",
    "[ff02::1]:80",
    "[::ffff:127.0.0.1]:80",
    "[::127.0.0.1]:80",
    "192.0.2.1:0",
];

#[test]
fn peers_on_this_machine_are_forbidden() {
    let mut rig = Rig::new();
    rig.allocate(client(1), &user("a"));
    for text in LOCAL.into_iter().chain(NEVER) {
        let code = rig.bind(client(1), &user("a"), 0x4000, addr(text));
        assert_eq!(code, Some(403), "{text}");
    }
    assert_eq!(rig.server.stats().channels, 0);

    let private = ["10.0.0.1:80", "192.168.1.1:3478", "[fd00::1]:80"];
    for (n, text) in (0x4000..).zip(private) {
        let code = rig.bind(client(1), &user("a"), n, addr(text));
        assert_eq!(code, None, "{text}: gateways live there");
    }
    for (n, own) in (0x4100..).zip([(PUBLIC_V4, 22).into(), (PUBLIC_V6, 50_000).into()]) {
        let code = rig.bind(client(1), &user("a"), n, own);
        assert_eq!(code, None, "a gateway may run on the relay's machine");
    }
    assert_eq!(LISTEN_PORT, 3478, "as in the table");
}

#[test]
fn peers_on_this_machine_can_be_allowed() {
    let mut rig = Rig::with(Config {
        loopback_peers: LoopbackPeers::Allowed,
        ..config()
    });
    rig.allocate(client(1), &user("a"));
    for (n, text) in (0x4000..).zip(LOCAL) {
        let code = rig.bind(client(1), &user("a"), n, addr(text));
        assert_eq!(code, None, "{text}");
    }
    for (n, text) in (0x4100..).zip(NEVER) {
        let code = rig.bind(client(1), &user("a"), n, addr(text));
        assert_eq!(code, Some(403), "{text}");
    }
}

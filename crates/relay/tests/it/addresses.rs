//! Which addresses an allocation gets by the standard, for how long, and whose it is: RFC 8656 §7.2, §8.

use connlib_relay::{Command, Config};
use connlib_wire::stun::{Attribute, Family};

use crate::support::{
    Answer, Ask, Binding, PUBLIC_V4, PUBLIC_V6, Rig, VerdictExt as _, client, peer, peer_v6,
    rest_user, rest_user_until, secs, standard, user,
};

/// Whether the relay has IPv4 and IPv6, what is asked for, and what it gets: the addresses and why one is missing, or a code.
type Row<'a> = (
    (bool, bool),
    &'a [Attribute<'a>],
    Result<(&'a [Family], Option<(Family, u16)>), u16>,
);

#[test]
fn families_follow_the_standard_and_what_is_missing_is_told() {
    use Family::{V4, V6};
    let requested = Attribute::RequestedAddressFamily;
    let additional = Attribute::AdditionalAddressFamily;
    let (dual, v4_only, v6_only) = ((true, true), (true, false), (false, true));
    let table: &[Row<'_>] = &[
        (dual, &[], Ok((&[V4], None))),
        (dual, &[requested(V4)], Ok((&[V4], None))),
        (dual, &[requested(V6)], Ok((&[V6], None))),
        (dual, &[additional(V6)], Ok((&[V4, V6], None))),
        (dual, &[additional(V4)], Err(400)),
        (dual, &[requested(V4), additional(V6)], Err(400)),
        (v4_only, &[requested(V6)], Err(440)),
        (v4_only, &[additional(V6)], Ok((&[V4], Some((V6, 440))))),
        (v6_only, &[], Err(440)),
        (v6_only, &[requested(V4)], Err(440)),
        (v6_only, &[requested(V6)], Ok((&[V6], None))),
        (v6_only, &[additional(V6)], Ok((&[V6], Some((V4, 440))))),
    ];

    for ((v4, v6), attributes, expected) in table {
        let mut rig = Rig::with(Config {
            public_v4: v4.then_some(PUBLIC_V4),
            public_v6: v6.then_some(PUBLIC_V6),
            ..standard()
        });
        let mut ask = Ask::allocate();
        ask.attributes.extend_from_slice(attributes);
        let answer = rig.ask(client(1), &rest_user("a"), &ask).unwrap();
        let families: Vec<_> = answer.relayed().into_iter().map(Family::of).collect();
        let got = match answer.code() {
            None => Ok((families.as_slice(), lacking(&answer))),
            Some(code) => Err(code),
        };
        assert_eq!(got, *expected, "v4 {v4}, v6 {v6}, {attributes:?}");
        assert_eq!(rig.open.len(), families.len());
    }
}

#[test]
fn the_portals_clients_are_not_told_what_is_missing() {
    let mut rig = Rig::with(Config {
        public_v6: None,
        ..crate::support::config()
    });
    let answer = rig.ask(client(1), &user("a"), &Ask::allocate().both());
    assert_eq!(lacking(&answer.unwrap()), None);
}

#[test]
fn one_port_that_can_not_be_bound_leaves_the_other() {
    for (broken, left) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let mut rig = Rig::with(standard());
        rig.binding = Binding::FailsFor(broken);
        let alice = rest_user("a");
        let request = rig.request(client(1), &alice, &Ask::allocate().both());
        let _ = rig.send(client(1), &request);
        let answer = rig.answer().unwrap();
        assert_eq!(answer.relayed().len(), 1);
        assert_eq!(Family::of(answer.relayed()[0]), left);
        assert_eq!(lacking(&answer), Some((broken, 508)));
        let _ = rig.send(client(1), &request);
        assert_eq!(rig.answer(), Some(answer.clone()), "and again");

        let lost = if broken == Family::V4 {
            peer(1)
        } else {
            peer_v6(1)
        };
        assert_eq!(rig.permit(client(1), &alice, &[lost]), Some(443));
        rig.ask(client(1), &alice, &Ask::refresh(secs(0)));
        assert_eq!(rig.closed(), [(answer.port().0, left)]);
        assert_eq!(rig.server.poll_timeout(), None);
    }

    let mut rig = Rig::with(standard());
    rig.binding = Binding::Fails;
    let answer = rig.ask(client(1), &rest_user("a"), &Ask::allocate().both());
    assert_eq!(answer.unwrap().code(), Some(508));
    assert!(rig.server.is_empty());
}

#[test]
fn a_port_that_breaks_later_takes_its_allocation_with_it() {
    let mut rig = Rig::with(standard());
    let port = rig.allocate(client(1), &rest_user("a"));
    rig.server.handle_port_failed(rig.now, port, Family::V4);
    assert!(rig.server.is_empty());
}

#[test]
fn other_transports_are_not_supported() {
    let mut rig = Rig::with(standard());
    for protocol in [6, 0, 255] {
        let ask = Ask::new(connlib_wire::stun::Method::Allocate)
            .with(Attribute::RequestedTransport(protocol));
        let answer = rig.ask(client(1), &rest_user("a"), &ask).unwrap();
        assert_eq!(answer.code(), Some(442), "{protocol}");
    }
}

#[test]
fn lifetimes_are_ten_minutes_to_an_hour() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    for (n, asked, granted) in [
        (1, 0, 600),
        (2, 1, 600),
        (3, 601, 601),
        (4, 3_600, 3_600),
        (5, 10_000_000, 3_600),
    ] {
        let ask = Ask::allocate().lifetime(secs(asked));
        let answer = rig.ask(client(n), &alice, &ask).unwrap();
        assert_eq!(answer.lifetime(), secs(granted), "{asked}");

        if asked > 0 {
            let answer = rig.ask(client(n), &alice, &Ask::refresh(secs(asked)));
            assert_eq!(answer.unwrap().lifetime(), secs(granted), "{asked}");
        }
    }
    let default = rig.ask(client(6), &alice, &Ask::allocate()).unwrap();
    assert_eq!(default.lifetime(), secs(600));
    let ended = rig.ask(client(6), &alice, &Ask::refresh(secs(0))).unwrap();
    assert_eq!(ended.lifetime(), secs(0));
    assert_eq!(rig.server.stats().allocations, 5);
}

#[test]
fn an_allocation_is_its_users() {
    let mut rig = Rig::with(standard());
    let (alice, bob) = (rest_user("a"), rest_user("b"));
    rig.allocate(client(1), &alice);
    for ask in [
        Ask::refresh(secs(600)),
        Ask::refresh(secs(0)),
        Ask::channel_bind(0x4000, peer(1)),
        Ask::create_permission(&[peer(1)]),
    ] {
        let answer = rig.ask(client(1), &bob, &ask).unwrap();
        assert_eq!(answer.code(), Some(441));
    }
    let allocate = rig.ask(client(1), &bob, &Ask::allocate()).unwrap();
    assert_eq!(allocate.code(), Some(437));
    assert_eq!(rig.server.stats().allocations, 1);

    // Fresh credentials of the same user go on with it.
    let fresh = rest_user_until(2_145_916_801, "a");
    let answer = rig
        .ask(client(1), &fresh, &Ask::refresh(secs(600)))
        .unwrap();
    assert!(answer.is_success());
}

#[test]
fn whoever_is_at_the_socket_of_a_portals_client_may_use_its_allocation() {
    let mut rig = Rig::new();
    rig.allocate(client(1), &user("a"));
    let answer = rig.ask(client(1), &user("b"), &Ask::refresh(secs(0)));
    assert!(answer.unwrap().is_success());
    assert!(rig.server.is_empty());
}

#[test]
fn a_refresh_for_a_family_that_is_not_there_is_a_mismatch() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    rig.ask(client(1), &alice, &Ask::allocate());
    let v6 = Attribute::RequestedAddressFamily(Family::V6);
    let v4 = Attribute::RequestedAddressFamily(Family::V4);
    for lifetime in [0, 600] {
        let ask = Ask::refresh(secs(lifetime)).with(v6);
        assert_eq!(rig.ask(client(1), &alice, &ask).unwrap().code(), Some(443));
    }
    let ask = Ask::refresh(secs(700)).with(v4);
    let answer = rig.ask(client(1), &alice, &ask).unwrap();
    assert_eq!(answer.lifetime(), secs(700));

    let mut rig = Rig::new();
    rig.ask(client(1), &user("a"), &Ask::allocate());
    let ask = Ask::refresh(secs(600)).with(v6);
    assert!(rig.ask(client(1), &user("a"), &ask).unwrap().is_success());
}

#[test]
fn one_address_of_two_can_be_given_back() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let port = rig.allocate(client(1), &alice);
    rig.bind(client(1), &alice, 0x4000, peer(1));
    rig.bind(client(1), &alice, 0x4001, peer_v6(1));
    rig.commands.clear();

    let ask = Ask::refresh(secs(0)).with(Attribute::RequestedAddressFamily(Family::V4));
    let answer = rig.ask(client(1), &alice, &ask).unwrap();
    assert_eq!(answer.lifetime(), secs(0));
    let family = Family::V4;
    assert_eq!(rig.commands, [Command::ClosePort { port, family }]);
    let _ = rig.send_data(client(1), 0x4000, b"x").dropped();
    assert_eq!(
        rig.send_data(client(1), 0x4001, b"x").forward().to,
        peer_v6(1)
    );
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(1)), Some(443));
    assert_eq!(rig.server.stats().channels, 1);

    let ask = Ask::refresh(secs(0)).with(Attribute::RequestedAddressFamily(Family::V6));
    assert!(rig.ask(client(1), &alice, &ask).unwrap().is_success());
    assert!(rig.server.is_empty() && rig.open.is_empty());
    assert_eq!(rig.server.poll_timeout(), None);
}

fn lacking(answer: &Answer) -> Option<(Family, u16)> {
    answer
        .message()
        .attributes()
        .find_map(|attribute| match attribute {
            Ok(Attribute::AddressErrorCode(family, code, _)) => Some((family, code)),
            _ => None,
        })
}

//! Allocations: relay.md §8, §9.

use connlib_relay::{AllocationPort, Command, Config, Reason, Verdict};
use connlib_wire::stun::{Attribute, Family, Method};

use crate::support::{
    Ask, Binding, PUBLIC_V4, PUBLIC_V6, Rig, VerdictExt as _, client, config, peer, secs, user,
};

#[test]
fn an_allocation_tells_its_addresses_and_its_lifetime() {
    let mut rig = Rig::new();
    let answer = rig
        .ask(client(1), &user("a"), &Ask::allocate().both())
        .unwrap();

    let port = answer.port().0;
    assert!((49_152..=65_535).contains(&port));
    assert_eq!(
        answer.relayed(),
        [(PUBLIC_V4, port).into(), (PUBLIC_V6, port).into()]
    );
    assert_eq!(answer.message().mapped_address(), Some(client(1)));
    assert_eq!(answer.lifetime(), secs(600));
    assert_eq!(rig.next_deadline(), Some(secs(600)));
    assert_eq!(rig.server.stats().allocations, 1);

    rig.pass(secs(599));
    assert_eq!(rig.closed(), []);
    rig.pass(secs(1));
    assert_eq!(rig.closed(), [(port, Family::V4), (port, Family::V6)]);
    assert_eq!(rig.server.poll_timeout(), None);
    assert_eq!(rig.server.stats().allocations, 0);
}

#[test]
fn ports_come_from_the_seed() {
    let [mut one, mut same] = [Rig::new(), Rig::new()];
    let ports: Vec<_> = (1..=5)
        .map(|n| {
            let port = one.allocate(client(n), &user(&n.to_string()));
            assert_eq!(port, same.allocate(client(n), &user(&n.to_string())));
            port.0
        })
        .collect();

    assert!(!ports.is_sorted(), "they can't be guessed: {ports:?}");
}

/// Whether the relay has IPv4 and IPv6, what is asked for, and the addresses or the code that it gets.
type Row<'a> = ((bool, bool), &'a [Attribute<'a>], Result<&'a [Family], u16>);

#[test]
fn families_follow_the_table() {
    use Family::{V4, V6};
    let requested = Attribute::RequestedAddressFamily;
    let additional = Attribute::AdditionalAddressFamily;
    let (dual, v4_only, v6_only) = ((true, true), (true, false), (false, true));
    let table: &[Row<'_>] = &[
        (dual, &[], Ok(&[V4])),
        (dual, &[requested(V4)], Ok(&[V4])),
        (dual, &[requested(V6)], Ok(&[V6])),
        (dual, &[additional(V6)], Ok(&[V4, V6])),
        (dual, &[additional(V4)], Err(400)),
        (v4_only, &[], Ok(&[V4])),
        (v4_only, &[requested(V4)], Ok(&[V4])),
        (v4_only, &[requested(V6)], Err(440)),
        (v4_only, &[additional(V6)], Ok(&[V4])),
        (v4_only, &[additional(V4)], Err(400)),
        (v6_only, &[], Err(440)),
        (v6_only, &[requested(V4)], Err(440)),
        (v6_only, &[requested(V6)], Ok(&[V6])),
        (v6_only, &[additional(V6)], Ok(&[V6])),
        (v6_only, &[additional(V4)], Err(400)),
        (dual, &[requested(V4), additional(V6)], Err(400)),
        (v4_only, &[requested(V6), additional(V6)], Err(400)),
        (v6_only, &[requested(V4), additional(V4)], Err(400)),
    ];

    for ((v4, v6), attributes, expected) in table {
        let mut rig = Rig::with(Config {
            public_v4: v4.then_some(PUBLIC_V4),
            public_v6: v6.then_some(PUBLIC_V6),
            ..config()
        });
        let mut ask = Ask::allocate();
        ask.attributes.extend_from_slice(attributes);
        let answer = rig.ask(client(1), &user("a"), &ask).unwrap();
        let families: Vec<_> = answer.relayed().into_iter().map(Family::of).collect();
        let got = match answer.code() {
            None => Ok(families.as_slice()),
            Some(code) => Err(code),
        };
        assert_eq!(got, *expected, "v4 {v4}, v6 {v6}, {attributes:?}");
        assert_eq!(rig.open.len(), families.len());
    }
}

#[test]
fn lifetimes_are_at_most_an_hour() {
    let mut rig = Rig::new();
    for (n, asked, granted) in [
        (1, 10_000_000, 3_600),
        (2, 3_601, 3_600),
        (3, 60, 60),
        (4, 1, 1),
    ] {
        let alice = user(&n.to_string());
        let ask = Ask::allocate().lifetime(secs(asked));
        let answer = rig.ask(client(n), &alice, &ask).unwrap();
        assert_eq!(answer.lifetime(), secs(granted));

        let ask = Ask::refresh(secs(asked));
        let answer = rig.ask(client(n), &alice, &ask).unwrap();
        assert_eq!(answer.lifetime(), secs(granted));
    }
}

#[test]
fn an_allocation_for_no_time_expires_at_once() {
    let mut rig = Rig::new();
    let ask = Ask::allocate().lifetime(secs(0));
    let answer = rig.ask(client(1), &user("a"), &ask).unwrap();
    assert_eq!(answer.lifetime(), secs(0));
    assert_eq!(rig.next_deadline(), Some(secs(0)));

    rig.pass(secs(0));
    assert!(rig.open.is_empty());
    assert_eq!(rig.server.poll_timeout(), None);
}

#[test]
fn a_second_allocation_of_one_socket_is_a_mismatch() {
    let mut rig = Rig::new();
    let port = rig.allocate(client(1), &user("a"));
    for who in ["a", "b"] {
        let answer = rig.ask(client(1), &user(who), &Ask::allocate()).unwrap();
        assert_eq!(answer.code(), Some(437));
    }
    assert!(rig.open.contains(&(port, Family::V4)));
}

#[test]
fn a_repeated_allocate_gets_the_same_answer_again() {
    let mut rig = Rig::new();
    let alice = user("a");
    let request = rig.request(client(1), &alice, &Ask::allocate().both());
    let _ = rig.send(client(1), &request);
    let first = rig.answer().unwrap();
    assert!(first.is_success());

    rig.pass(secs(5));
    let _ = rig.send(client(1), &request);
    assert_eq!(rig.answer(), Some(first));
    assert_eq!(rig.server.stats().allocations_made, 1);
    assert_eq!(rig.next_deadline(), Some(secs(595)), "it gains no time");
}

#[test]
fn an_allocate_repeated_while_the_port_opens_is_answered_once() {
    let mut rig = Rig::new();
    rig.binding = Binding::NeverEnds;
    let request = rig.request(client(1), &user("a"), &Ask::allocate());
    let _ = rig.send(client(1), &request);
    let _ = rig.send(client(1), &request);
    assert_eq!(rig.answer(), None);
    let [Command::OpenPort { port, family }] = rig.commands[..] else {
        panic!("{:?}", rig.commands);
    };

    rig.server.handle_port_opened(rig.now, port, family);
    assert!(rig.answer().unwrap().is_success());
}

#[test]
fn the_answer_waits_until_all_ports_are_open() {
    let mut rig = Rig::new();
    rig.binding = Binding::NeverEnds;
    let alice = user("a");
    assert!(
        rig.ask(client(1), &alice, &Ask::allocate().both())
            .is_none()
    );
    let Some(Command::OpenPort { port, .. }) = rig.commands.first().copied() else {
        panic!("{:?}", rig.commands);
    };
    // Its client can't know of it yet.
    let early = rig.ask(client(1), &alice, &Ask::refresh(secs(600)));
    assert_eq!(early.unwrap().code(), Some(437));

    rig.server.handle_port_opened(rig.now, port, Family::V6);
    assert_eq!(rig.answer(), None);
    rig.pass(secs(1));
    rig.server.handle_port_opened(rig.now, port, Family::V4);
    let answer = rig.answer().unwrap();
    assert!(answer.is_success() && answer.is_signed_for(&alice));
    assert_eq!(rig.next_deadline(), Some(secs(600)));

    rig.server.handle_port_opened(rig.now, port, Family::V4);
    assert_eq!(rig.answer(), None, "said twice, heard once");
}

#[test]
fn a_port_that_can_not_be_bound_is_no_capacity() {
    let mut rig = Rig::new();
    let alice = user("a");
    for binding in [
        Binding::Fails,
        Binding::FailsFor(Family::V4),
        Binding::FailsFor(Family::V6),
    ] {
        rig.binding = binding;
        let answer = rig.ask(client(1), &alice, &Ask::allocate().both()).unwrap();
        assert_eq!(answer.code(), Some(508), "{binding:?}");
        assert!(rig.open.is_empty(), "{binding:?}");
        assert_eq!(rig.server.poll_timeout(), None);
        assert_eq!(rig.server.stats().allocations, 0);
    }

    rig.binding = Binding::Works;
    rig.allocate(client(1), &alice);
}

#[test]
fn a_port_that_nobody_opens_is_no_capacity() {
    let mut rig = Rig::new();
    rig.binding = Binding::NeverEnds;
    let alice = user("a");
    assert!(rig.ask(client(1), &alice, &Ask::allocate()).is_none());
    let (at, reason) = rig.server.poll_timeout().unwrap();
    assert_eq!(reason, Reason::PortNotOpened);

    let wait = at.duration_since(rig.now);
    rig.pass(wait);
    let answer = rig.answer().unwrap();
    assert_eq!(answer.code(), Some(508));
    assert!(answer.is_signed_for(&alice));
    assert_eq!(rig.closed().len(), 1);
}

#[test]
fn a_port_that_breaks_takes_its_allocation_with_it() {
    let mut rig = Rig::new();
    let alice = user("a");
    let port = rig.allocate(client(1), &alice);
    rig.bind(client(1), &alice, 0x4000, peer(1));
    rig.server.handle_port_failed(rig.now, port, Family::V4);

    assert_eq!(rig.answer(), None);
    assert_eq!(rig.server.stats().allocations, 0);
    assert_eq!(rig.server.stats().channels, 0);
    rig.open.remove(&(port, Family::V4));
    rig.carry_out_commands();
    assert_eq!(rig.closed(), [(port.0, Family::V6)]);
}

#[test]
fn all_ports_in_use_is_no_capacity() {
    let mut rig = Rig::with(Config {
        ports: 50_000..=50_002,
        ..config()
    });
    let mut ports: Vec<_> = (1..=3)
        .map(|n| rig.allocate(client(n), &user(&n.to_string())).0)
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [50_000, 50_001, 50_002]);

    // The capacity is looked at before the transport and before the user's former allocation.
    let tcp = Ask::new(Method::Allocate).with(Attribute::RequestedTransport(6));
    for (who, ask) in [
        ("4", &Ask::allocate()),
        ("4", &tcp),
        ("1", &Ask::allocate()),
    ] {
        let answer = rig.ask(client(4), &user(who), ask).unwrap();
        assert_eq!(answer.code(), Some(508));
    }

    rig.ask(client(2), &user("2"), &Ask::refresh(secs(0)));
    rig.allocate(client(4), &user("4"));
}

#[test]
fn the_listen_port_is_never_allocated() {
    let mut rig = Rig::with(Config {
        listen_port: 50_000,
        ports: 50_000..=50_001,
        ..config()
    });

    assert_eq!(rig.allocate(client(1), &user("a")), AllocationPort(50_001));
    let answer = rig.ask(client(2), &user("b"), &Ask::allocate()).unwrap();
    assert_eq!(answer.code(), Some(508));
}

#[test]
fn a_port_is_free_only_after_its_closing_was_polled() {
    let mut rig = Rig::with(Config {
        ports: 50_000..=50_000,
        ..config()
    });
    rig.allocate(client(1), &user("a"));
    let free = rig.request(client(1), &user("a"), &Ask::refresh(secs(0)));
    let allocate = rig.request(client(2), &user("b"), &Ask::allocate());
    let nobody_polls = |rig: &mut Rig, from, request: &[u8]| {
        let arrival = rig.arrival(from, request);
        let verdict = rig.server.handle_client(rig.now, rig.unix, &arrival);
        assert_eq!(verdict, Verdict::Handled);
        rig.answer().unwrap().code()
    };

    assert_eq!(nobody_polls(&mut rig, client(1), &free), None);
    assert_eq!(nobody_polls(&mut rig, client(2), &allocate), Some(508));
    rig.carry_out_commands();
    rig.allocate(client(2), &user("b"));
}

#[test]
fn a_user_from_another_socket_loses_the_former_allocation_first() {
    let mut rig = Rig::new();
    let alice = user("a");
    let former = rig.allocate(client(1), &alice);
    rig.bind(client(1), &alice, 0x4000, peer(1));
    rig.nonce(client(2));
    rig.commands.clear();

    let latter = rig.allocate(client(2), &alice);

    let expected = [
        Command::ClosePort {
            port: former,
            family: Family::V4,
        },
        Command::ClosePort {
            port: former,
            family: Family::V6,
        },
        Command::OpenPort {
            port: latter,
            family: Family::V4,
        },
        Command::OpenPort {
            port: latter,
            family: Family::V6,
        },
    ];
    assert_eq!(rig.commands, expected);
    assert_eq!(rig.server.stats().channels, 0);
    // The peer of the stale twin doesn't stand in the way.
    assert_eq!(rig.bind(client(2), &alice, 0x4001, peer(1)), None);
    let stale = rig.ask(client(1), &alice, &Ask::refresh(secs(600)));
    assert_eq!(stale.unwrap().code(), Some(437));
}

#[test]
fn a_refresh_moves_the_expiry_even_nearer() {
    let mut rig = Rig::new();
    let alice = user("a");
    rig.allocate(client(1), &alice);
    rig.pass(secs(300));
    rig.ask(client(1), &alice, &Ask::refresh(secs(600)));
    assert_eq!(rig.next_deadline(), Some(secs(600)));

    rig.pass(secs(300));
    assert_eq!(rig.closed(), [], "the old deadline says nothing");
    rig.ask(client(1), &alice, &Ask::refresh(secs(60)));
    rig.pass(secs(59));
    assert_eq!(rig.closed(), []);
    rig.pass(secs(1));
    assert_eq!(rig.closed().len(), 2);
}

#[test]
fn a_refresh_for_no_time_gives_everything_back_at_once() {
    let mut rig = Rig::new();
    let alice = user("a");
    let port = rig.allocate(client(1), &alice);
    rig.bind(client(1), &alice, 0x4000, peer(1));

    let answer = rig.ask(client(1), &alice, &Ask::refresh(secs(0))).unwrap();

    assert_eq!(answer.lifetime(), secs(0));
    assert_eq!(rig.closed().len(), 2);
    assert_eq!(rig.server.poll_timeout(), None, "channels are gone too");
    let _ = rig.send_data(client(1), 0x4000, b"x").dropped();
    let _ = rig.send_from_peer(port, peer(1), b"x").dropped();
    rig.pass(secs(4_000));
    assert_eq!(rig.closed(), [], "later times say nothing");

    // No cool-down outlives the allocation.
    rig.forget_nonces();
    rig.allocate(client(1), &alice);
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(2)), None);
    assert_eq!(rig.bind(client(1), &alice, 0x4001, peer(1)), None);
}

#[test]
fn a_refresh_without_a_lifetime_gets_the_default() {
    let mut rig = Rig::new();
    rig.allocate(client(1), &user("a"));
    let answer = rig.ask(client(1), &user("a"), &Ask::new(Method::Refresh));

    assert_eq!(answer.unwrap().lifetime(), secs(600));
}

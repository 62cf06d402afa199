//! How much anybody gets.

use std::net::SocketAddr;

use connlib_relay::{DropReason, Limits, Verdict};
use connlib_wire::stun::Method;

use crate::support::{
    Ask, Rig, VerdictExt as _, client, client_v6, config, peer, rest_user, secs, standard, user,
};

fn tight() -> Limits {
    Limits {
        allocations: 2,
        channels_per_allocation: 2,
        unproven_burst: 3,
        unproven_per_sec: 2,
        ..Limits::default()
    }
}

#[test]
fn allocations_are_bounded() {
    let mut rig = Rig::limited(config(), tight());
    for n in 1..=2 {
        rig.allocate(client(n), &user(&n.to_string()));
    }
    let answer = rig.ask(client(3), &user("3"), &Ask::allocate()).unwrap();
    assert_eq!(answer.code(), Some(508));

    rig.ask(client(1), &user("1"), &Ask::refresh(secs(0)));
    rig.allocate(client(3), &user("3"));
}

#[test]
fn channels_are_bounded_but_can_be_refreshed() {
    let mut rig = Rig::limited(config(), tight());
    let alice = user("a");
    rig.allocate(client(1), &alice);
    assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(1)), None);
    assert_eq!(rig.bind(client(1), &alice, 0x4001, peer(2)), None);
    assert_eq!(rig.bind(client(1), &alice, 0x4002, peer(3)), Some(508));
    assert_eq!(rig.bind(client(1), &alice, 0x4001, peer(2)), None);
    assert_eq!(rig.server.stats().channels, 2);
}

#[test]
fn unproven_answers_are_bounded_per_source() {
    let mut rig = Rig::limited(config(), tight());
    assert_eq!(burst(&mut rig, client(1)), 3);
    assert!(rig.server.stats().dropped(DropReason::TooManyAnswers) > 0);

    // Another port of the same source doesn't help; another source isn't concerned.
    let other_port = (client(1).ip(), 1).into();
    assert_eq!(burst(&mut rig, other_port), 0);
    assert_eq!(burst(&mut rig, client(2)), 3);

    rig.pass(secs(1));
    assert_eq!(burst(&mut rig, client(1)), 2);
    rig.pass(secs(60));
    assert_eq!(burst(&mut rig, client(1)), 3);
}

#[test]
fn a_source_of_ipv6_is_a_subnet() {
    let mut rig = Rig::limited(config(), tight());
    assert_eq!(burst(&mut rig, client_v6(1)), 3);
    assert_eq!(burst(&mut rig, client_v6(2)), 0);
}

#[test]
fn challenges_and_bad_requests_count_as_well() {
    let mut rig = Rig::limited(config(), tight());
    let requests = [
        rig.bare(&Ask::allocate()),
        rig.bare(&Ask::new(Method::Allocate)),
        rig.request_with(&user("a"), None, &Ask::allocate()),
        rig.bare(&Ask::allocate()),
    ];
    for request in &requests[..3] {
        assert_eq!(rig.send(client(1), request), Verdict::Handled);
    }
    let verdict = rig.send(client(1), &requests[3]);
    assert_eq!(verdict.dropped(), DropReason::TooManyAnswers);
}

#[test]
fn a_flood_in_a_clients_name_does_not_keep_it_out() {
    for (config, alice) in [(config(), user("a")), (standard(), rest_user("a"))] {
        let mut rig = Rig::limited(config, tight());
        let nonce = rig.nonce(client(1));
        burst(&mut rig, client(1));
        let stale = rig.request_with(&alice, Some("stale"), &Ask::allocate());
        let verdict = rig.send(client(1), &stale);
        assert_eq!(verdict.dropped(), DropReason::TooManyAnswers);

        let right = rig.request_with(&alice, Some(&nonce), &Ask::allocate());
        assert_eq!(rig.send(client(1), &right), Verdict::Handled);
        assert!(rig.answer().unwrap().is_success());
    }
}

#[test]
fn those_who_proved_themselves_are_not_bounded() {
    let mut rig = Rig::limited(config(), tight());
    rig.allocate(client(1), &user("a"));
    burst(&mut rig, client(1));
    for _ in 0..20 {
        let answer = rig.ask(client(1), &user("a"), &Ask::refresh(secs(600)));
        assert!(answer.unwrap().is_success());
    }
}

#[test]
fn counting_sources_takes_no_timer() {
    let mut rig = Rig::limited(config(), tight());
    burst(&mut rig, client(1));

    assert_eq!(rig.server.poll_timeout(), None);
}

#[test]
fn a_flood_of_sources_is_survived() {
    let mut rig = Rig::limited(config(), tight());
    let request = rig.bare(&Ask::new(Method::Binding));
    for n in 0..40_000_u32 {
        let from = SocketAddr::from(((0x0A00_0000 + n).to_be_bytes(), 1));
        assert_eq!(rig.send(from, &request), Verdict::Handled);
    }
    assert_eq!(rig.answers().len(), 40_000);
}

/// How many of some requests are answered.
fn burst(rig: &mut Rig, from: SocketAddr) -> usize {
    let request = rig.bare(&Ask::new(Method::Binding));
    for _ in 0..10 {
        let _ = rig.send(from, &request);
    }

    rig.answers().len()
}

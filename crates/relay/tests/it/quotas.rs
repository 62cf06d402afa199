//! How much a user gets, and how often a source may fail.

use connlib_relay::{DropReason, Limits, Verdict};
use connlib_wire::stun::Attribute;

use crate::support::{
    Ask, Rig, User, VerdictExt as _, addr, client, config, rest_user, rest_user_until, secs,
    standard, user,
};

#[test]
fn a_user_has_so_many_allocations_and_no_more() {
    let mut rig = Rig::limited(standard(), two_each());
    let alice = rest_user("a");
    rig.allocate(client(1), &alice);
    rig.allocate(client(2), &alice);
    for who in [&alice, &rest_user_until(2_145_916_801, "a")] {
        let third = rig.ask(client(3), who, &Ask::allocate()).unwrap();
        assert_eq!(third.code(), Some(486), "of whichever credentials");
    }
    rig.allocate(client(3), &rest_user("b"));

    rig.ask(client(1), &alice, &Ask::refresh(secs(0)));
    rig.allocate(client(4), &alice);
}

#[test]
fn kept_ports_count_until_they_become_allocations() {
    let mut rig = Rig::limited(standard(), two_each());
    let alice = rest_user("a");
    let pair = Ask::allocate().with(Attribute::EvenPort { reserve: true });
    let first = rig.ask(client(1), &alice, &pair).unwrap();
    let other = rig.ask(client(2), &alice, &Ask::allocate()).unwrap();
    assert_eq!(other.code(), Some(486));

    let token = first
        .message()
        .attributes()
        .find(|attribute| matches!(attribute, Ok(Attribute::ReservationToken(_))));
    let redeem = Ask::allocate().with(token.unwrap().unwrap());
    assert!(rig.ask(client(2), &alice, &redeem).unwrap().is_success());

    let bob = rest_user("b");
    rig.allocate(client(3), &bob);
    let one_too_many = rig.ask(client(4), &bob, &pair).unwrap();
    assert_eq!(one_too_many.code(), Some(486));
}

#[test]
fn a_users_second_socket_leaves_the_first_alone() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let (first, second) = (
        rig.allocate(client(1), &alice),
        rig.allocate(client(2), &alice),
    );
    assert_ne!(first, second);
    assert_eq!(rig.server.stats().allocations, 2);
}

#[test]
fn the_portals_users_have_one_each_whatever_the_quota() {
    let limits = Limits {
        allocations_per_user: 0,
        ..Limits::default()
    };
    let mut rig = Rig::limited(config(), limits);
    rig.allocate(client(1), &user("a"));
    rig.allocate(client(2), &user("a"));
    assert_eq!(rig.server.stats().allocations, 1);
}

#[test]
fn wrong_credentials_are_bounded_per_source() {
    for (config, alice) in [(config(), user("a")), (standard(), rest_user("a"))] {
        let limits = Limits {
            failed_burst: 3,
            failed_per_sec: 2,
            ..Limits::default()
        };
        let mut rig = Rig::limited(config, limits);
        let impostor = User {
            name: alice.name.clone(),
            key: user("guessed").key,
        };
        let guest = addr("198.51.100.1:60000");
        rig.allocate(guest, &alice);
        let fail = |rig: &mut Rig| {
            let request = rig.request(client(1), &impostor, &Ask::allocate());
            let verdict = rig.send(client(1), &request);
            (verdict, rig.answer().and_then(|answer| answer.code()))
        };
        for _ in 0..3 {
            assert_eq!(fail(&mut rig), (Verdict::Handled, Some(401)));
        }
        let too_often = Verdict::Drop(DropReason::TooManyFailures);
        assert_eq!(fail(&mut rig), (too_often, None));

        // The right password doesn't help now, nor another port; sockets that hold an allocation aren't concerned.
        let right = rig.request(client(1), &alice, &Ask::allocate());
        assert_eq!(rig.send(client(1), &right), too_often);
        let other_port = addr("198.51.100.1:50001");
        let right = rig.request_with(&alice, Some("any"), &Ask::allocate());
        assert_eq!(rig.send(other_port, &right), too_often);
        let refresh = rig.ask(guest, &alice, &Ask::refresh(secs(700)));
        assert!(refresh.unwrap().is_success());
        rig.allocate(client(2), &rest_user_or(&alice));

        rig.pass(secs(1));
        assert_eq!(fail(&mut rig).1, Some(401));
        let allocate = rig.ask(client(1), &alice, &Ask::allocate());
        assert!(allocate.unwrap().is_success());
    }
}

#[test]
fn nobody_is_responsible_for_what_is_sent_in_its_name() {
    let limits = Limits {
        failed_burst: 3,
        failed_per_sec: 1,
        ..Limits::default()
    };
    for (config, alice) in [(config(), user("a")), (standard(), rest_user("a"))] {
        let mut rig = Rig::limited(config, limits);
        let impostor = User {
            name: alice.name.clone(),
            key: user("guessed").key,
        };
        let foreign = rig.nonce(client(9));
        for nonce in ["", "none", foreign.as_str()] {
            for _ in 0..5 {
                let request = rig.request_with(&impostor, Some(nonce), &Ask::allocate());
                let _ = rig.send(client(1), &request);
            }
        }
        assert_eq!(rig.answers().len(), 15);
        assert!(
            rig.ask(client(1), &alice, &Ask::allocate())
                .unwrap()
                .is_success()
        );
    }
}

#[test]
fn expired_credentials_count_as_wrong() {
    let limits = Limits {
        failed_burst: 1,
        failed_per_sec: 1,
        ..Limits::default()
    };
    let mut rig = Rig::limited(standard(), limits);
    let late = rest_user_until(1, "a");
    let request = rig.request(client(1), &late, &Ask::allocate());
    let _ = rig.send(client(1), &request);
    assert_eq!(rig.answer().unwrap().code(), Some(401));
    let verdict = rig.send(client(1), &request);
    assert_eq!(verdict.dropped(), DropReason::TooManyFailures);
}

fn two_each() -> Limits {
    Limits {
        allocations_per_user: 2,
        ..Limits::default()
    }
}

/// Another user of the same scheme.
fn rest_user_or(user_of_scheme: &User) -> User {
    let is_rest = user_of_scheme.name == rest_user("a").name
        && user_of_scheme.key.expose() == rest_user("a").key.expose();

    if is_rest { rest_user("b") } else { user("b") }
}

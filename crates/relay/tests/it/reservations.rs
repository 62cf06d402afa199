//! EVEN-PORT and RESERVATION-TOKEN: RFC 8656 §7.2.

use connlib_relay::{Config, Reason};
use connlib_wire::stun::{Attribute, Family};

use crate::support::{Answer, Ask, Binding, Rig, client, rest_user, secs, standard, user};

const EVEN: Attribute<'_> = Attribute::EvenPort { reserve: false };
const PAIR: Attribute<'_> = Attribute::EvenPort { reserve: true };

#[test]
fn an_even_port_is_even_and_keeps_nothing() {
    let mut rig = Rig::with(standard());
    for n in 1..=20 {
        let answer = rig
            .ask(client(n), &rest_user("a"), &Ask::allocate().with(EVEN))
            .unwrap();
        assert!(answer.port().0.is_multiple_of(2));
        assert_eq!(token(&answer), None);
    }
    assert_eq!(rig.server.stats().reservations, 0);
}

#[test]
fn the_next_port_is_kept_and_given_to_who_knows_its_token() {
    let mut rig = Rig::with(standard());
    let first = rig
        .ask(client(1), &rest_user("a"), &Ask::allocate().with(PAIR))
        .unwrap();
    let port = first.port().0;
    assert!(port.is_multiple_of(2));
    let token = token(&first).unwrap();
    assert_eq!(rig.server.stats().reservations, 1);
    let (at, reason) = rig.server.poll_timeout().unwrap();
    assert_eq!(at.duration_since(rig.now), secs(30));
    assert_eq!(reason, Reason::ReservationExpires);

    rig.pass(secs(29));
    let redeem = Ask::allocate().with(Attribute::ReservationToken(token));
    let second = rig.ask(client(2), &rest_user("b"), &redeem).unwrap();
    assert_eq!(second.port().0, port + 1);
    assert_eq!(rig.server.stats().reservations, 0);
    let again = rig.ask(client(3), &rest_user("a"), &redeem).unwrap();
    assert_eq!(again.code(), Some(508), "it was good for once");
    rig.pass(secs(10));
    assert_eq!(
        rig.server.stats().allocations,
        2,
        "the old deadline says nothing"
    );
}

#[test]
fn a_repeated_allocate_tells_the_same_token() {
    let mut rig = Rig::with(standard());
    let request = rig.request(client(1), &rest_user("a"), &Ask::allocate().with(PAIR));
    let _ = rig.send(client(1), &request);
    let first = rig.answer().unwrap();
    let _ = rig.send(client(1), &request);
    assert_eq!(rig.answer(), Some(first));
    assert_eq!(rig.server.stats().reservations, 1);
}

#[test]
fn a_kept_port_is_nobody_elses_and_free_after_half_a_minute() {
    let mut rig = Rig::with(Config {
        ports: 50_000..=50_002,
        ..standard()
    });
    let first = rig
        .ask(client(1), &rest_user("a"), &Ask::allocate().with(PAIR))
        .unwrap();
    assert_eq!(first.port().0, 50_000);
    assert_eq!(rig.allocate(client(2), &rest_user("a")).0, 50_002);
    let full = rig.ask(client(3), &rest_user("a"), &Ask::allocate());
    assert_eq!(full.unwrap().code(), Some(508));

    rig.pass(secs(30));
    assert_eq!(rig.server.stats().reservations, 0);
    let token = token(&first).unwrap();
    let late = Ask::allocate().with(Attribute::ReservationToken(token));
    let late = rig.ask(client(3), &rest_user("a"), &late).unwrap();
    assert_eq!(late.code(), Some(508));
    assert_eq!(rig.allocate(client(3), &rest_user("a")).0, 50_001);
}

#[test]
fn no_even_port_or_no_pair_is_no_capacity() {
    let mut rig = Rig::with(Config {
        ports: 50_001..=50_002,
        ..standard()
    });
    let pair = rig.ask(client(1), &rest_user("a"), &Ask::allocate().with(PAIR));
    assert_eq!(pair.unwrap().code(), Some(508));
    let even = rig
        .ask(client(1), &rest_user("a"), &Ask::allocate().with(EVEN))
        .unwrap();
    assert_eq!(even.port().0, 50_002);
    let even = rig.ask(client(2), &rest_user("a"), &Ask::allocate().with(EVEN));
    assert_eq!(even.unwrap().code(), Some(508));
    assert_eq!(rig.allocate(client(2), &rest_user("a")).0, 50_001);

    // 65,535 has no next port.
    let mut rig = Rig::with(Config {
        ports: 65_535..=65_535,
        ..standard()
    });
    let pair = rig.ask(client(1), &rest_user("a"), &Ask::allocate().with(PAIR));
    assert_eq!(pair.unwrap().code(), Some(508));
}

#[test]
fn what_contradicts_itself_is_a_bad_request() {
    let mut rig = Rig::with(standard());
    let token = Attribute::ReservationToken([1; 8]);
    let v4 = Attribute::RequestedAddressFamily(Family::V4);
    let v6_too = Attribute::AdditionalAddressFamily(Family::V6);
    for (attributes, code) in [
        (&[token, EVEN][..], 400),
        (&[token, PAIR], 400),
        (&[token, v4], 400),
        (&[token, v6_too], 400),
        (&[PAIR, v6_too], 400),
        (&[token], 508),
    ] {
        let mut ask = Ask::allocate();
        ask.attributes.extend_from_slice(attributes);
        let answer = rig.ask(client(1), &rest_user("a"), &ask).unwrap();
        assert_eq!(answer.code(), Some(code), "{attributes:?}");
        assert_eq!(rig.server.stats().reservations, 0);
    }
    let both = Ask::allocate().with(EVEN).with(v6_too);
    let answer = rig.ask(client(1), &rest_user("a"), &both).unwrap();
    assert_eq!(answer.relayed().len(), 2);
}

#[test]
fn a_pair_of_ipv6_stays_ipv6() {
    let mut rig = Rig::with(standard());
    let ask = Ask::allocate()
        .with(PAIR)
        .with(Attribute::RequestedAddressFamily(Family::V6));
    let first = rig.ask(client(1), &rest_user("a"), &ask).unwrap();
    let redeem = Ask::allocate().with(Attribute::ReservationToken(token(&first).unwrap()));
    let second = rig.ask(client(2), &rest_user("a"), &redeem).unwrap();

    assert!(second.relayed()[0].is_ipv6());
}

#[test]
fn a_port_that_can_not_be_bound_keeps_none() {
    let mut rig = Rig::with(standard());
    rig.binding = Binding::Fails;
    let answer = rig
        .ask(client(1), &rest_user("a"), &Ask::allocate().with(PAIR))
        .unwrap();
    assert_eq!(answer.code(), Some(508));
    assert_eq!(rig.server.stats().reservations, 0);
    assert_eq!(rig.server.poll_timeout(), None);
}

#[test]
fn the_portals_clients_have_none() {
    let mut rig = Rig::new();
    let ask = Ask::allocate()
        .with(PAIR)
        .with(Attribute::ReservationToken([1; 8]));
    let answer = rig.ask(client(1), &user("a"), &ask).unwrap();
    assert!(answer.is_success());
    assert_eq!(token(&answer), None);
    assert_eq!(rig.server.stats().reservations, 0);
}

fn token(answer: &Answer) -> Option<[u8; 8]> {
    answer
        .message()
        .attributes()
        .find_map(|attribute| match attribute {
            Ok(Attribute::ReservationToken(token)) => Some(token),
            _ => None,
        })
}

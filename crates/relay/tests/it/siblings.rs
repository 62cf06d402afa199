//! Servers that share a listen port: whose a port is, how their clients reach each other, and who has moved.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use connlib_relay::{AllocationPort, Config, DropReason, Share, Via};
use connlib_wire::stun::Family;

use super::support::*;

fn two(config: &Config) -> [Rig; 2] {
    [0, 1].map(|index| {
        let mut rig = Rig::with(config.clone());
        rig.server = rig.server.with_share(Share::new(index, 2));
        rig
    })
}

#[test]
fn no_port_is_lent_twice_and_none_is_lost() {
    let config = Config {
        ports: 50_000..=50_009,
        ..config()
    };
    let mut rigs = two(&config);

    let mut lent = BTreeSet::new();
    for (index, rig) in rigs.iter_mut().enumerate() {
        for number in 0..10 {
            let from = client(10 * index as u8 + number);
            let answer = rig.ask(from, &user(&from.ip().to_string()), &Ask::allocate());
            if let Some(answer) = answer.filter(Answer::is_success) {
                assert!(lent.insert(answer.port()));
            }
        }
    }
    assert_eq!(lent.len(), 10);
}

#[test]
fn clients_of_two_servers_reach_each_other_over_loopback() {
    for (public, loopback) in [
        (IpAddr::V4(PUBLIC_V4), IpAddr::V4(Ipv4Addr::LOCALHOST)),
        (IpAddr::V6(PUBLIC_V6), IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ] {
        let [mut a, mut b] = two(&config());
        let port_a = a.allocate(client(1), &user("a"));
        let port_b = b.allocate(client(2), &user("b"));
        let known_as = |port: AllocationPort| SocketAddr::from((public, port.0));
        assert_eq!(
            a.bind(client(1), &user("a"), 0x4001, known_as(port_b)),
            None
        );
        assert_eq!(
            b.bind(client(2), &user("b"), 0x4002, known_as(port_a)),
            None
        );

        let out = a.send_data(client(1), 0x4001, b"hi").forward();
        assert_eq!(
            out.via,
            Via::Allocation(port_a, Family::of(known_as(port_a)))
        );
        assert_eq!(out.to, SocketAddr::from((loopback, port_b.0)));

        let seen_from = SocketAddr::from((loopback, port_a.0));
        let back = b.send_from_peer(port_b, seen_from, b"hi").forward();
        assert_eq!((back.to, back.channel), (client(2), Some(number(0x4002))));
    }
}

#[test]
fn nobody_else_on_this_machine_is_taken_for_a_client_of_another_server() {
    let [mut a, _] = two(&config());
    let port = a.allocate(client(1), &user("a"));
    let own = SocketAddr::from((PUBLIC_V4, port.0));
    let outside = SocketAddr::from((PUBLIC_V4, 40_000));
    assert_eq!(a.bind(client(1), &user("a"), 0x4001, own), None);
    assert_eq!(a.bind(client(1), &user("a"), 0x4002, outside), None);

    // Neither a port of the server's own nor one that none of them lends.
    for from in [port.0, 40_000] {
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, from));
        let dropped = a.send_from_peer(port, from, b"x").dropped();
        assert_eq!(dropped, DropReason::NoChannel);
    }
}

#[test]
fn clients_by_the_standard_reach_those_of_another_server_by_indications() {
    let [mut a, mut b] = two(&standard());
    let (alice, bob) = (rest_user("a"), rest_user("b"));
    let port_a = a.allocate(client(1), &alice);
    let port_b = b.allocate(client(2), &bob);
    let known_as = |port: AllocationPort| SocketAddr::from((PUBLIC_V4, port.0));
    assert_eq!(a.permit(client(1), &alice, &[known_as(port_b)]), None);
    assert_eq!(b.permit(client(2), &bob, &[known_as(port_a)]), None);

    let _ = a.send_to(client(1), known_as(port_b), b"hi");
    let sent = a.relayed();
    assert_eq!(
        sent[0].to,
        SocketAddr::from((Ipv4Addr::LOCALHOST, port_b.0))
    );

    let _ = b.send_from_peer(port_b, (Ipv4Addr::LOCALHOST, port_a.0).into(), b"hi");
    let indicated = b.relayed();
    assert_eq!(indicated[0].to, client(2));
    assert_eq!(indicated[0].data(), (known_as(port_a), &b"hi"[..]));

    // Ports that nobody lends are the relay's own services.
    let _ = a.send_to(client(1), (PUBLIC_V4, 40_000).into(), b"hi");
    assert_eq!(a.relayed(), []);
}

#[test]
fn a_user_who_comes_back_by_another_server_is_forgotten_by_the_first() {
    let [mut a, mut b] = two(&config());
    a.allocate(client(1), &user("u"));
    let first = a.server.poll_claim().unwrap();
    b.pass(secs(1));
    b.allocate(client(2), &user("u"));
    let second = b.server.poll_claim().unwrap();
    assert_eq!(first.user, second.user);

    // What is older than the allocation says nothing against it.
    let older = connlib_relay::Claim {
        at: first.at,
        ..second.clone()
    };
    b.server.yield_to(&older);
    assert!(!b.server.is_empty());

    let newer = connlib_relay::Claim {
        at: a.now + secs(1),
        ..second
    };
    a.server.yield_to(&newer);
    assert!(a.server.is_empty());
    a.pass(secs(0));
    assert!(a.open.is_empty(), "its ports are closed");
}

#[test]
fn a_server_that_is_alone_claims_nobody() {
    let mut rig = Rig::new();
    rig.allocate(client(1), &user("a"));

    assert_eq!(rig.server.poll_claim(), None);
}

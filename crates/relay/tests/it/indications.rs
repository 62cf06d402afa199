//! Send and Data indications: RFC 8656 §11.

use connlib_relay::{DropReason, Server, Verdict, Via};
use connlib_wire::buffer::Pool;
use connlib_wire::channel;
use connlib_wire::ecn::Ecn;
use connlib_wire::stun::{Attribute, Builder, Class, Family, Message, Method, TransactionId};
use connlib_wire::train::Arrival;

use crate::support::{
    LISTEN_PORT, PUBLIC_V4, PUBLIC_V6, Rig, User, VerdictExt as _, client, client_v6, peer,
    peer_v6, rest_user, standard, user,
};

#[test]
fn data_goes_both_ways_across_families() {
    let v4 = (client(1), (PUBLIC_V4, LISTEN_PORT).into());
    let v6 = (client_v6(1), (PUBLIC_V6, LISTEN_PORT).into());
    for ((from, server), to) in [
        (v4, peer(1)),
        (v4, peer_v6(1)),
        (v6, peer(1)),
        (v6, peer_v6(1)),
    ] {
        let mut rig = Rig::with(standard());
        let port = rig.allocate(from, &rest_user("a"));
        rig.permit(from, &rest_user("a"), &[to]);

        assert_eq!(rig.send_to(from, to, b"ping"), Verdict::Handled);
        let [out] = &rig.relayed()[..] else { panic!() };
        assert_eq!(out.via, Via::Allocation(port, Family::of(to)));
        assert_eq!((out.from, out.to, &out.bytes[..]), (None, to, &b"ping"[..]));

        assert_eq!(rig.send_from_peer(port, to, b"pong!"), Verdict::Handled);
        let [back] = &rig.relayed()[..] else { panic!() };
        assert_eq!(back.via, Via::Listen(Family::of(from)));
        assert_eq!((back.from, back.to), (Some(server), from));
        assert_eq!(back.data(), (to, &b"pong!"[..]));

        let stats = rig.server.stats();
        assert_eq!(
            (stats.sent_to_peers.bytes, stats.sent_to_peers.datagrams),
            (4, 1)
        );
        assert_eq!(stats.indicated_to_clients.bytes, 5);
        assert_eq!((stats.to_peers.bytes, stats.to_clients.bytes), (0, 0));
    }
}

#[test]
fn a_channel_to_the_peer_is_preferred() {
    let (mut rig, alice, port) = permitted();
    rig.bind(client(1), &alice, 0x4000, peer(1));

    let back = rig.send_from_peer(port, peer(1), b"x").forward();
    assert_eq!(back.channel.unwrap().number(), 0x4000);
    // Another port of the same address has none.
    let other_port = (peer(1).ip(), 1).into();
    assert_eq!(rig.send_from_peer(port, other_port, b"x"), Verdict::Handled);
    assert_eq!(rig.relayed()[0].data(), (other_port, &b"x"[..]));
    // Indications may be sent all the same.
    assert_eq!(rig.send_to(client(1), peer(1), b"x"), Verdict::Handled);
    assert_eq!(rig.relayed().len(), 1);
}

#[test]
fn each_has_a_transaction_of_its_own() {
    let (mut rig, _, port) = permitted();
    let _ = rig.send_from_peer(port, peer(1), b"x");
    let _ = rig.send_from_peer(port, peer(1), b"x");
    let ids: Vec<_> = rig
        .relayed()
        .iter()
        .map(|relayed| Message::parse(&relayed.bytes).unwrap().transaction_id())
        .collect();

    assert_ne!(ids[0], ids[1]);
}

#[test]
fn what_is_wrong_is_dropped_in_silence() {
    let (mut rig, _, _) = permitted();
    let to = Attribute::XorPeerAddress(peer(1));
    let data = Attribute::Data(b"x");
    let required = Attribute::Unknown(0x7FFF, b"");
    let optional = Attribute::Unknown(0xFFFF, b"");
    let invalid = Attribute::Unknown(0x0012, b"short");
    for (attributes, reason) in [
        (&[to][..], DropReason::MalformedIndication),
        (&[data], DropReason::MalformedIndication),
        (&[invalid, data], DropReason::MalformedIndication),
        (&[to, data, required], DropReason::MalformedIndication),
        (
            &[Attribute::XorPeerAddress(peer(2)), data],
            DropReason::NoPermission,
        ),
        (
            &[Attribute::XorPeerAddress(peer_v6(1)), data],
            DropReason::NoPermission,
        ),
    ] {
        let indication = rig.indication(attributes);
        assert_eq!(
            rig.send(client(1), &indication).dropped(),
            reason,
            "{attributes:?}"
        );
        assert_eq!(rig.relayed(), []);
        assert_eq!(rig.answer(), None);
    }
    let stranger = rig.send_to(client(2), peer(1), b"x").dropped();
    assert_eq!(stranger, DropReason::NoAllocation);

    let fine = rig.indication(&[to, data, optional, Attribute::DontFragment]);
    assert_eq!(rig.send(client(1), &fine), Verdict::Handled);
    assert_eq!(rig.relayed().len(), 1, "all our sockets leave them whole");
}

#[test]
fn a_wrong_fingerprint_is_noticed() {
    let (mut rig, _, _) = permitted();
    let build = |rig: &mut Rig| {
        Builder::new(
            rig.pool.take(0),
            Method::Send,
            Class::Indication,
            TransactionId([3; 12]),
        )
        .attribute(Attribute::XorPeerAddress(peer(1)))
        .attribute(Attribute::Data(b"x"))
    };
    let good = build(&mut rig).fingerprint().finish().unwrap();
    assert_eq!(rig.send(client(1), &good), Verdict::Handled);
    let mut bad = good.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(
        rig.send(client(1), &bad).dropped(),
        DropReason::WrongFingerprint
    );
}

#[test]
fn other_indications_mean_nothing() {
    let (mut rig, _, _) = permitted();
    for method in [
        Method::Binding,
        Method::Data,
        Method::Refresh,
        Method::Other(0x00C),
    ] {
        let message = Builder::new(
            rig.pool.take(0),
            method,
            Class::Indication,
            TransactionId([1; 12]),
        )
        .finish()
        .unwrap();
        assert_eq!(
            rig.send(client(1), &message).dropped(),
            DropReason::NotARequest
        );
    }
}

#[test]
fn an_empty_payload_and_the_longest_are_relayed() {
    let (mut rig, _, port) = permitted();
    for len in [0, 1, 3, 1_500, 2_000, 2_048, 9_000, 65_480] {
        let payload = vec![7; len];
        assert_eq!(
            rig.send_from_peer(port, peer(1), &payload),
            Verdict::Handled
        );
        assert_eq!(rig.relayed()[0].data(), (peer(1), &payload[..]), "{len}");
    }
    let payload = vec![7; 65_507];
    assert_eq!(
        rig.send_from_peer(port, peer(1), &payload),
        Verdict::Handled
    );
    assert_eq!(rig.relayed(), [], "no datagram is so long");
    assert_eq!(rig.server.stats().dropped(DropReason::AnswerTooLong), 1);

    for len in [0, 1, 3, 1_500, 9_000] {
        let payload = vec![7; len];
        let large = Pool::new(65_535, 1);
        let indication = Builder::new(
            large.take(0),
            Method::Send,
            Class::Indication,
            TransactionId([3; 12]),
        )
        .attribute(Attribute::XorPeerAddress(peer(1)))
        .attribute(Attribute::Data(&payload))
        .finish()
        .unwrap();
        assert_eq!(rig.send(client(1), &indication), Verdict::Handled);
        assert_eq!(rig.relayed()[0].bytes, payload);
    }
}

#[test]
fn a_train_is_taken_datagram_by_datagram_and_its_mark_travels_on() {
    let (mut rig, _, port) = permitted();
    let arrival = Arrival {
        stride: 4,
        ecn: Ecn::Ce,
        ..rig.arrival(peer(1), b"aaaabbbbc")
    };
    let verdict = rig.server.handle_peer(rig.now, port, &arrival);
    assert_eq!(verdict, Verdict::Handled);
    let relayed = rig.relayed();
    let payloads: Vec<_> = relayed.iter().map(|relayed| relayed.data().1).collect();
    assert_eq!(payloads, [&b"aaaa"[..], b"bbbb", b"c"]);
    assert!(relayed.iter().all(|relayed| relayed.ecn == Ecn::Ce));
    assert_eq!(rig.server.stats().indicated_to_clients.datagrams, 3);

    let mut train = Vec::new();
    for data in [b"one!", b"two!"] {
        train.extend(rig.indication(&[Attribute::XorPeerAddress(peer(1)), Attribute::Data(data)]));
    }
    assert_eq!(
        rig.send_train(client(1), train.len() / 2, &train),
        Verdict::Handled
    );
    let sent: Vec<_> = rig
        .relayed()
        .into_iter()
        .map(|relayed| relayed.bytes)
        .collect();
    assert_eq!(sent, [b"one!", b"two!"]);
}

#[test]
fn outputs_that_wait_are_due_at_once() {
    let (mut rig, _, _) = permitted();
    let _ = rig.send_to(client(1), peer(1), b"x");
    assert_eq!(rig.next_deadline(), Some(std::time::Duration::ZERO));
    rig.relayed();
    assert_ne!(rig.next_deadline(), Some(std::time::Duration::ZERO));
}

/// How a client sends to its twin.
#[derive(Clone, Copy, Debug)]
enum How {
    Channel,
    Indication,
}

#[test]
fn two_clients_of_this_relay_reach_each_other_in_any_way() {
    for (a_sends, b_receives) in [
        (How::Channel, How::Indication),
        (How::Indication, How::Channel),
        (How::Indication, How::Indication),
    ] {
        let mut rig = Rig::with(standard());
        let (alice, bob) = (rest_user("a"), rest_user("b"));
        let port_a = rig.allocate(client(1), &alice).0;
        let port_b = rig.allocate(client(2), &bob).0;
        let (relayed_a, relayed_b) = ((PUBLIC_V4, port_a).into(), (PUBLIC_V4, port_b).into());
        assert_eq!(rig.permit(client(1), &alice, &[relayed_b]), None);
        if matches!(a_sends, How::Channel) {
            assert_eq!(rig.bind(client(1), &alice, 0x4001, relayed_b), None);
        }
        let say = |rig: &mut Rig| match a_sends {
            How::Channel => rig.send_data(client(1), 0x4001, b"hi"),
            How::Indication => rig.send_to(client(1), relayed_b, b"hi"),
        };
        let early = say(&mut rig).dropped();
        assert_eq!(
            early,
            DropReason::NoPermission,
            "the other one has to agree"
        );

        rig.permit(client(2), &bob, &[relayed_a]);
        if matches!(b_receives, How::Channel) {
            rig.bind(client(2), &bob, 0x4002, relayed_a);
        }
        assert_eq!(say(&mut rig), Verdict::Handled);
        let [got] = &rig.relayed()[..] else { panic!() };
        assert_eq!(got.via, Via::Listen(Family::V4));
        assert_eq!(got.to, client(2));
        match b_receives {
            How::Indication => assert_eq!(got.data(), (relayed_a, &b"hi"[..])),
            How::Channel => {
                let (number, payload) = channel::decode(&got.bytes).unwrap();
                assert_eq!((number.number(), payload), (0x4002, &b"hi"[..]));
            }
        }
        assert_eq!(rig.server.stats().between_clients.bytes, 2);
        assert_eq!(rig.server.stats().sent_to_peers.bytes, 0);
    }
}

#[test]
fn the_portals_clients_have_none() {
    let mut rig = Rig::new();
    let port = rig.allocate(client(1), &user("a"));
    rig.bind(client(1), &user("a"), 0x4000, peer(1));

    let sent = rig.send_to(client(1), peer(1), b"x").dropped();
    assert_eq!(sent, DropReason::NotARequest);
    let other_port = (peer(1).ip(), 1).into();
    let got = rig.send_from_peer(port, other_port, b"x").dropped();
    assert_eq!(got, DropReason::NoChannel);
    assert_eq!(rig.relayed(), []);
}

#[test]
fn a_server_says_how_it_behaves() {
    let rig = Rig::with(standard());
    let conduct = Server::conduct(&rig.server);
    assert_eq!(conduct, connlib_relay::Conduct::Standard);
    assert_eq!(Rig::new().server.conduct(), connlib_relay::Conduct::Portal);
}

/// Client 1 permits peer 1.
fn permitted() -> (Rig, User, connlib_relay::AllocationPort) {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let port = rig.allocate(client(1), &alice);
    assert_eq!(rig.permit(client(1), &alice, &[peer(1)]), None);

    (rig, alice, port)
}

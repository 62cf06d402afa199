//! Data: relay.md §12.

use std::net::IpAddr;

use connlib_relay::{DropReason, Forward, Server, Verdict, Via, runs};
use connlib_wire::channel;
use connlib_wire::ecn::Ecn;
use connlib_wire::stun::Family;
use connlib_wire::train::Arrival;
use proptest::prelude::*;

use crate::support::{
    Ask, LISTEN_PORT, PUBLIC_V4, PUBLIC_V6, Rig, VerdictExt as _, client, client_v6, number, peer,
    peer_v6, user,
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
        let mut rig = Rig::new();
        let port = rig.allocate(from, &user("a"));
        assert_eq!(rig.bind(from, &user("a"), 0x4001, to), None);

        let out = rig.send_data(from, 0x4001, b"ping").forward();
        assert_eq!(
            out,
            Forward {
                via: Via::Allocation(port, Family::of(to)),
                src: None,
                to,
                ecn: Ecn::NotEct,
                strip: 4,
                channel: None,
                segment_size: 4,
            }
        );
        let back = rig.send_from_peer(port, to, b"pong!").forward();
        assert_eq!(
            back,
            Forward {
                via: Via::Listen(Family::of(from)),
                src: Some(server),
                to: from,
                ecn: Ecn::NotEct,
                strip: 0,
                channel: Some(number(0x4001)),
                segment_size: 5,
            }
        );
        assert_eq!(back.header(b"pong!"), Some([0x40, 0x01, 0, 5]));
        assert_eq!(back.route().dst, from);
        assert_eq!(rig.server.stats().to_peers.bytes, 4);
        assert_eq!(rig.server.stats().to_clients.bytes, 5);
    }
}

#[test]
fn padding_and_header_are_left_out() {
    let mut rig = bound();
    let bytes = b"\x40\x00\x00\x02hi\0\0";
    let forward = rig.send(client(1), bytes).forward();

    assert_eq!(payloads(&forward, &rig.arrival(client(1), bytes)), [b"hi"]);
}

#[test]
fn an_empty_payload_is_relayed() {
    let mut rig = bound();
    let port = rig.allocate(client(2), &user("b"));
    rig.bind(client(2), &user("b"), 0x4000, peer(1));

    let forward = rig.send(client(1), &[0x40, 0, 0, 0]).forward();
    let arrival = rig.arrival(client(1), &[0x40, 0, 0, 0]);
    assert_eq!(payloads(&forward, &arrival), [b""]);
    let forward = rig.send_from_peer(port, peer(1), b"").forward();
    assert_eq!(payloads(&forward, &rig.arrival(peer(1), b"")), [b""]);
    assert_eq!(forward.header(b""), Some([0x40, 0, 0, 0]));
}

#[test]
fn data_that_leads_nowhere_is_dropped() {
    let mut rig = bound();
    for (bytes, reason) in [
        (&[0x40, 0, 0][..], DropReason::MalformedChannelData),
        (&[0x40, 0, 0, 2, 1], DropReason::MalformedChannelData),
        (&[0x50, 0, 0, 1, 1], DropReason::NoChannel),
        (&[0x80, 0, 0, 1, 1], DropReason::UnknownProtocol),
        (&[0x40, 1, 0, 1, 1], DropReason::NoChannel),
    ] {
        let before = rig.server.stats().dropped(reason);
        assert_eq!(rig.send(client(1), bytes).dropped(), reason, "{bytes:?}");
        assert_eq!(rig.server.stats().dropped(reason), before + 1);
    }
    let stranger = rig.send_data(client(9), 0x4000, b"x").dropped();
    assert_eq!(stranger, DropReason::NoAllocation);
}

#[test]
fn a_peer_needs_a_channel_of_its_own_address_and_port() {
    let mut rig = Rig::new();
    let port = rig.allocate(client(1), &user("a"));
    rig.bind(client(1), &user("a"), 0x4000, peer(1));
    let other_port = (peer(1).ip(), 1).into();
    let port_zero = (peer(1).ip(), 0).into();
    let no_allocation = connlib_relay::AllocationPort(1);

    for (at, from, reason) in [
        (port, other_port, DropReason::NoChannel),
        (port, peer(2), DropReason::NoChannel),
        (port, port_zero, DropReason::SourcePortZero),
        (no_allocation, peer(1), DropReason::NoAllocation),
    ] {
        assert_eq!(rig.send_from_peer(at, from, b"x").dropped(), reason);
    }
}

#[test]
fn the_mark_travels_on() {
    let mut rig = bound();
    let bytes = [0x40, 0, 0, 1, 1];
    let arrival = Arrival {
        ecn: Ecn::Ce,
        ..rig.arrival(client(1), &bytes)
    };
    let verdict = rig.server.handle_client(rig.now, rig.unix, &arrival);

    assert_eq!(verdict.forward().ecn, Ecn::Ce);
}

#[test]
fn a_train_of_one_channel_gets_one_verdict() {
    let mut rig = bound();
    let train = train(&[(0x4000, b"aaa"), (0x4000, b"bbb"), (0x4000, b"c")]);
    let forward = rig.send_train(client(1), 7, &train).forward();

    assert_eq!(forward.segment_size, 3);
    let arrival = Arrival {
        stride: 7,
        ..rig.arrival(client(1), &train)
    };
    assert_eq!(payloads(&forward, &arrival), [&b"aaa"[..], b"bbb", b"c"]);
    let counted = rig.server.stats().to_peers;
    assert_eq!((counted.datagrams, counted.bytes), (3, 7));
}

#[test]
fn a_train_of_several_channels_is_judged_run_by_run() {
    let mut rig = bound();
    rig.bind(client(1), &user("a"), 0x4001, peer(2));
    let train = train(&[
        (0x4000, b"aaa"),
        (0x4000, b"bbb"),
        (0x4001, b"ccc"),
        (0x4002, b"ddd"),
        (0x4000, b"e"),
    ]);
    assert_eq!(rig.send_train(client(1), 7, &train), Verdict::Mixed);
    assert_eq!(rig.server.stats().to_peers.datagrams, 0, "nothing was done");

    let arrival = Arrival {
        stride: 7,
        ..rig.arrival(client(1), &train)
    };
    let targets: Vec<_> = runs(&arrival)
        .map(
            |run| match rig.server.handle_client(rig.now, rig.unix, &run) {
                Verdict::Forward(forward) => Ok((forward.to, payloads(&forward, &run).len())),
                other @ (Verdict::Handled | Verdict::Drop(_) | Verdict::Mixed) => Err(other),
            },
        )
        .collect();
    assert_eq!(
        targets,
        [
            Ok((peer(1), 2)),
            Ok((peer(2), 1)),
            Err(Verdict::Drop(DropReason::NoChannel)),
            Ok((peer(1), 1)),
        ]
    );
}

#[test]
fn a_train_from_a_peer_gets_one_verdict() {
    let mut rig = Rig::new();
    let port = rig.allocate(client(1), &user("a"));
    rig.bind(client(1), &user("a"), 0x4000, peer(1));
    let arrival = Arrival {
        stride: 4,
        ..rig.arrival(peer(1), b"aaaabbbbc")
    };
    let forward = rig.server.handle_peer(rig.now, port, &arrival).forward();

    assert_eq!(forward.segment_size, 4);
    assert_eq!(payloads(&forward, &arrival), [&b"aaaa"[..], b"bbbb", b"c"]);
    assert_eq!(rig.server.stats().to_clients.datagrams, 3);
}

#[test]
fn two_clients_of_this_relay_reach_each_other() {
    let (v4, v6) = (IpAddr::V4(PUBLIC_V4), IpAddr::V6(PUBLIC_V6));
    for (a, b, public) in [
        (client(1), client(2), v4),
        (client(1), client_v6(2), v4),
        (client(1), client_v6(2), v6),
        (client_v6(1), client_v6(2), v6),
    ] {
        let mut rig = Rig::new();
        let (alice, bob) = (user("a"), user("b"));
        let port_a = rig.allocate(a, &alice).0;
        let port_b = rig.allocate(b, &bob).0;
        assert_eq!(rig.bind(a, &alice, 0x4001, (public, port_b).into()), None);

        let early = rig.send_data(a, 0x4001, b"hi").dropped();
        assert_eq!(early, DropReason::NoChannel, "the other one has to agree");

        assert_eq!(rig.bind(b, &bob, 0x4002, (public, port_a).into()), None);
        for (from, to, out, back) in [(a, b, 0x4001, 0x4002), (b, a, 0x4002, 0x4001)] {
            let forward = rig.send_data(from, out, b"hi").forward();
            assert_eq!(forward.via, Via::Listen(Family::of(to)));
            assert_eq!(forward.src, Some(rig.arrival(to, &[]).to));
            assert_eq!((forward.to, forward.strip), (to, 4));
            assert_eq!(forward.channel, Some(number(back)));
        }
        assert_eq!(rig.server.stats().between_clients.bytes, 4);
        assert_eq!(rig.server.stats().to_peers.bytes, 0);
    }
}

#[test]
fn a_gateway_on_the_relays_own_machine_is_an_ordinary_peer() {
    let mut rig = Rig::new();
    let port = rig.allocate(client(1), &user("a"));
    let neighbour = (PUBLIC_V4, port.0 ^ 1).into();
    rig.bind(client(1), &user("a"), 0x4000, neighbour);

    let forward = rig.send_data(client(1), 0x4000, b"x").forward();
    assert_eq!(forward.via, Via::Allocation(port, Family::V4));
    assert_eq!(forward.to, neighbour);
}

#[test]
fn data_follows_a_client_to_the_address_it_talks_to() {
    let mut rig = Rig::new();
    let alice = user("a");
    let port = rig.allocate(client(1), &alice);
    rig.bind(client(1), &alice, 0x4000, peer(1));
    let elsewhere = "203.0.113.10:3478".parse().unwrap();
    let request = rig.request(client(1), &alice, &Ask::refresh(crate::support::secs(600)));
    let arrival = Arrival {
        to: elsewhere,
        ..rig.arrival(client(1), &request)
    };
    let verdict = rig.server.handle_client(rig.now, rig.unix, &arrival);
    assert_eq!(verdict, Verdict::Handled);
    assert_eq!(rig.answer().unwrap().from, Some(elsewhere));

    let forward = rig.send_from_peer(port, peer(1), b"x").forward();
    assert_eq!(forward.src, Some(elsewhere));
}

proptest! {
    #[test]
    fn runs_lose_nothing_and_each_gets_one_verdict(
        datagrams in prop::collection::vec((0x4000_u16..0x4003, 0_u8..5, 0_u8..6), 1..12),
        last in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut rig = bound();
        rig.bind(client(1), &user("a"), 0x4001, peer(2));
        // Eight bytes each; the stated length may be shorter, or longer than what is there.
        let mut bytes = Vec::new();
        for (n, length, fill) in &datagrams {
            bytes.extend_from_slice(&n.to_be_bytes());
            bytes.extend_from_slice(&[0, *length + u8::from(*length == 4 && *fill == 0)]);
            bytes.extend_from_slice(&[*fill; 4]);
        }
        bytes.extend_from_slice(&last);
        let arrival = Arrival { stride: 8, ..rig.arrival(client(1), &bytes) };

        let together: Vec<u8> = runs(&arrival).flat_map(|run| run.bytes.to_vec()).collect();
        prop_assert_eq!(&together, &bytes);

        let expected: Vec<_> = arrival
            .datagrams()
            .filter_map(|datagram| {
                let bound = matches!(datagram, [0x40, 0 | 1, ..]);
                channel::decode(datagram).filter(|_| bound)
            })
            .map(|(number, payload)| {
                (if number.number() == 0x4000 { peer(1) } else { peer(2) }, payload.to_vec())
            })
            .collect();
        let mut got = Vec::new();
        for run in runs(&arrival) {
            match rig.server.handle_client(rig.now, rig.unix, &run) {
                Verdict::Mixed => prop_assert!(false, "a run is never mixed"),
                Verdict::Forward(forward) => {
                    let payloads = payloads(&forward, &run);
                    // The train that leaves: all equal but the last, which isn't empty unless alone.
                    let (tail, head) = payloads.split_last().unwrap();
                    prop_assert!(head.iter().all(|payload| payload.len() == forward.segment_size));
                    prop_assert!(tail.len() <= forward.segment_size);
                    prop_assert!(head.is_empty() || !tail.is_empty());
                    got.extend(payloads.iter().map(|payload| (forward.to, payload.to_vec())));
                }
                Verdict::Handled | Verdict::Drop(_) => {}
            }
        }
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        first in prop::option::of(prop::sample::select(vec![0_u8, 1, 0x40, 0x41])),
        stride in 0_usize..100,
    ) {
        let mut rig = bound();
        let port = rig.allocate(client(2), &user("b"));
        let mut bytes = bytes;
        if let (Some(first), Some(byte)) = (first, bytes.first_mut()) {
            *byte = first;
        }
        let arrival = Arrival { stride, ..rig.arrival(client(1), &bytes) };
        for run in runs(&arrival).chain([arrival]) {
            let _ = rig.server.handle_client(rig.now, rig.unix, &run);
            let _ = rig.server.handle_peer(rig.now, port, &run);
        }
        prop_assert_eq!(rig.server.stats().allocations, 2);
    }

    #[test]
    fn no_damage_to_a_request_panics_or_passes(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
    ) {
        let mut rig = Rig::new();
        let mut request = rig.request(client(1), &user("a"), &Ask::allocate().both());
        for (at, mask) in flips {
            let at = at.index(request.len());
            request[at] ^= mask;
        }
        let parses = connlib_wire::stun::Message::parse(&request)
            .is_ok_and(|message| message.verify(user("a").key.expose()));
        let _ = rig.send(client(1), &request);
        prop_assert!(parses || rig.server.stats().allocations == 0);
    }
}

/// Client 1 has 0x4000 bound to peer 1.
fn bound() -> Rig {
    let mut rig = Rig::new();
    rig.allocate(client(1), &user("a"));
    assert_eq!(rig.bind(client(1), &user("a"), 0x4000, peer(1)), None);

    rig
}

fn train(datagrams: &[(u16, &[u8])]) -> Vec<u8> {
    datagrams
        .iter()
        .flat_map(|(n, payload)| {
            let header = channel::header(number(*n), payload.len()).unwrap();
            [&header, *payload].concat()
        })
        .collect()
}

fn payloads<'a>(forward: &Forward, arrival: &Arrival<'a>) -> Vec<&'a [u8]> {
    forward.payloads(arrival).collect()
}

#[test]
fn a_server_can_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Server>();
}

use super::*;

use std::io::IoSlice;

use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::train::{Route, Transmit};

use crate::udp::{MAX_TRAIN_BYTES, Payload};

/// The loopback address of each family.
const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

#[test]
fn a_train_arrives_with_its_boundaries_addresses_and_mark() {
    for loopback in LOOPBACKS {
        for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
            let (mut a, mut b) = (socket(loopback), socket(loopback));
            let payload = pattern(3 * 1000 + 17);

            let train = train(None, b.local_addr(), ecn, 1000, &payload);
            assert_eq!(a.send(&[Outgoing::new(&train, 0)]).unwrap(), 4);

            let arrivals = receive(&mut b, 4);
            assert_eq!(datagrams(&arrivals), cut(&payload, 1000));
            for arrival in &arrivals {
                assert_eq!(arrival.from, a.local_addr());
                assert_eq!(arrival.to, b.local_addr());
                assert_eq!(arrival.ecn, ecn);
            }
        }
    }
}

#[test]
fn loopback_carries_a_train_as_one_arrival() {
    for loopback in LOOPBACKS {
        let (mut a, mut b) = (socket(loopback), socket(loopback));
        let payload = pattern(10 * 1200);

        a.send(&[Outgoing::new(
            &train(None, b.local_addr(), Ecn::Ce, 1200, &payload),
            0,
        )])
        .unwrap();

        let arrivals = receive(&mut b, 10);
        assert_eq!(arrivals.len(), 1, "the kernel coalesces on loopback");
        assert_eq!(arrivals[0].stride, 1200);
        assert_eq!(arrivals[0].ecn, Ecn::Ce, "the mark survives coalescing");
    }
}

#[test]
fn a_train_longer_than_one_call_is_split() {
    for loopback in LOOPBACKS {
        let (mut a, mut b) = (socket(loopback), socket(loopback));
        for (segment_size, datagram_count) in [(1316, 60), (16, 200), (40_000, 3)] {
            let payload = pattern(segment_size * datagram_count - 5);

            let train = train(None, b.local_addr(), Ecn::Ect0, segment_size, &payload);
            assert_eq!(a.send(&[Outgoing::new(&train, 0)]).unwrap(), datagram_count);

            let arrivals = receive(&mut b, datagram_count);
            assert_eq!(datagrams(&arrivals), cut(&payload, segment_size));
        }
    }
}

#[test]
fn trains_to_several_peers_leave_with_one_call() {
    for loopback in LOOPBACKS {
        let mut a = socket(loopback);
        let (mut b, mut c) = (socket(loopback), socket(loopback));
        let (first, second) = (pattern(3 * 500), pattern(70 * 100 + 1));
        let to_b = train(None, b.local_addr(), Ecn::Ect0, 500, &first);
        let to_c = train(None, c.local_addr(), Ecn::Ce, 100, &second);

        let trains = [Outgoing::new(&to_b, 1), Outgoing::new(&to_c, 0)];
        assert_eq!(a.send(&trains).unwrap(), 2 + 71);

        let arrivals = receive(&mut b, 2);
        assert_eq!(datagrams(&arrivals), cut(&first[500..], 500));
        assert!(arrivals.iter().all(|arrival| arrival.ecn == Ecn::Ect0));
        let arrivals = receive(&mut c, 71);
        assert_eq!(datagrams(&arrivals), cut(&second, 100));
        assert!(arrivals.iter().all(|arrival| arrival.ecn == Ecn::Ce));
    }
}

#[test]
fn more_trains_than_a_call_looks_at_are_left() {
    let (mut a, mut b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let train = train(None, b.local_addr(), Ecn::NotEct, 2, b"aabb");
    let trains = [Outgoing::new(&train, 0); MAX_SENDS + 1];

    for segmentation in [Segmentation::On, Segmentation::Off] {
        a.segmentation = segmentation;
        assert_eq!(a.send(&trains).unwrap(), 2 * MAX_SENDS);
        receive(&mut b, 2 * MAX_SENDS);
        let blocked = b.recv(&mut RecvBatch::new(Pool::new(100, 1), 1));
        assert_eq!(blocked.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn gathered_datagrams_are_the_same_as_contiguous_ones_on_the_wire() {
    for loopback in LOOPBACKS {
        let (mut a, mut b) = (socket(loopback), socket(loopback));
        let payload = pattern(150 * 100 + 40);
        for per_datagram in [1, 2] {
            let parts = payload
                .chunks(100)
                .flat_map(|datagram| {
                    let (head, tail) = datagram.split_at(if per_datagram == 2 { 32 } else { 0 });
                    [head, tail]
                        .map(IoSlice::new)
                        .into_iter()
                        .skip(2 - per_datagram)
                })
                .collect::<Vec<_>>();
            let dst = b.local_addr();
            let gathered = |first| Outgoing {
                route: Route {
                    src: None,
                    dst,
                    ecn: Ecn::Ect1,
                },
                segment_size: 100,
                payload: Payload::Gathered {
                    parts: &parts,
                    per_datagram,
                },
                first,
            };

            for (segmentation, first) in [(Segmentation::On, 0), (Segmentation::Off, 7)] {
                a.segmentation = segmentation;
                assert_eq!(a.send(&[gathered(first)]).unwrap(), 151 - first);

                let arrivals = receive(&mut b, 151 - first);
                assert_eq!(datagrams(&arrivals), cut(&payload[100 * first..], 100));
            }
        }
    }
}

#[test]
fn parts_that_are_no_datagrams_of_the_trains_size_are_refused() {
    let (mut a, b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let parts = [&b"aa"[..], b"b", b"cc"].map(IoSlice::new);
    let gathered = Outgoing {
        route: Route {
            src: None,
            dst: b.local_addr(),
            ecn: Ecn::NotEct,
        },
        segment_size: 2,
        payload: Payload::Gathered {
            parts: &parts,
            per_datagram: 1,
        },
        first: 0,
    };

    let refused = a.send(&[gathered]).unwrap_err();

    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn what_stops_a_later_train_is_the_next_calls_error() {
    let (mut a, mut b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let good = train(None, b.local_addr(), Ecn::NotEct, 2, b"aabb");
    let other_family = train(None, "[::1]:9".parse().unwrap(), Ecn::NotEct, 1, b"x");
    let no_way = train(None, "192.0.2.1:9".parse().unwrap(), Ecn::NotEct, 2, b"xxx");

    for bad in [&other_family, &no_way] {
        let mut trains = [&good, bad, &good].map(|train| Outgoing::new(train, 0));
        assert_eq!(a.send(&trains).unwrap(), 2);
        assert!(a.send(&trains[1..]).is_err());
        trains[1].first = bad.segments();
        assert_eq!(a.send(&trains[1..]).unwrap(), 2);

        let payloads = datagrams(&receive(&mut b, 4));
        assert_eq!(payloads, [b"aa", b"bb", b"aa", b"bb"]);
    }
    assert!(matches!(a.segmentation, Segmentation::On));
}

#[test]
fn a_send_resumes_at_the_datagram_it_is_told() {
    let (mut a, mut b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let payload = pattern(5 * 100);
    let train = train(None, b.local_addr(), Ecn::NotEct, 100, &payload);

    assert_eq!(a.send(&[Outgoing::new(&train, 3)]).unwrap(), 2);
    assert_eq!(a.send(&[Outgoing::new(&train, 5)]).unwrap(), 0);
    assert_eq!(a.send(&[Outgoing::new(&train, 9)]).unwrap(), 0);

    let arrivals = receive(&mut b, 2);
    assert_eq!(datagrams(&arrivals), cut(&payload[300..], 100));
}

#[test]
fn the_source_address_is_the_routes() {
    let mut a = socket("0.0.0.0:0");
    let mut b = socket(LOOPBACKS[0]);
    let source = SocketAddr::new("127.0.0.2".parse().unwrap(), a.local_addr().port());

    let train = train(Some(source), b.local_addr(), Ecn::Ect1, 4, b"aaaabb");
    a.send(&[Outgoing::new(&train, 0)]).unwrap();

    let arrivals = receive(&mut b, 2);
    assert_eq!(arrivals[0].from, source);
    assert_eq!(arrivals[0].ecn, Ecn::Ect1);
}

#[test]
fn the_local_address_is_the_one_the_peer_used() {
    let mut a = socket(LOOPBACKS[0]);
    let mut b = socket("0.0.0.0:0");
    let used = SocketAddr::new("127.0.0.3".parse().unwrap(), b.local_addr().port());

    a.send(&[Outgoing::new(&train(None, used, Ecn::NotEct, 1, b"x"), 0)])
        .unwrap();

    assert_eq!(receive(&mut b, 1)[0].to, used);
}

#[test]
fn a_source_that_is_not_ours_is_refused_and_segmentation_stays_on() {
    let mut a = socket(LOOPBACKS[0]);
    let b = socket(LOOPBACKS[0]);
    let foreign = "192.0.2.1:1".parse().unwrap();

    let train = train(Some(foreign), b.local_addr(), Ecn::NotEct, 2, b"aabb");

    assert!(a.send(&[Outgoing::new(&train, 0)]).is_err());
    assert!(matches!(a.segmentation, Segmentation::On));
}

#[test]
fn a_socket_without_segmentation_sends_one_by_one() {
    for loopback in LOOPBACKS {
        let (mut a, mut b) = (socket(loopback), socket(loopback));
        a.segmentation = Segmentation::Off;
        let payload = pattern(4 * 700 + 1);

        let train = train(None, b.local_addr(), Ecn::Ect0, 700, &payload);
        assert_eq!(a.send(&[Outgoing::new(&train, 0)]).unwrap(), 5);

        let arrivals = receive(&mut b, 5);
        assert_eq!(datagrams(&arrivals), cut(&payload, 700));
        assert!(arrivals.iter().all(|arrival| arrival.ecn == Ecn::Ect0));
    }
}

#[test]
fn a_refused_segmentation_is_turned_off_and_nothing_is_lost() {
    let (mut a, mut b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    // Linux refuses to segment what it may not checksum, with the error of a device that can't.
    set(&a.fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let payload = pattern(200 * 70 + 1);

    let train = train(None, b.local_addr(), Ecn::Ect0, 70, &payload);
    let trains = [Outgoing::new(&train, 1), Outgoing::new(&train, 199)];
    assert_eq!(a.send(&trains).unwrap(), 202);

    assert!(matches!(a.segmentation, Segmentation::Off));
    let mut expected = cut(&payload[70..], 70);
    expected.extend(cut(&payload[199 * 70..], 70));
    assert_eq!(datagrams(&receive(&mut b, 202)), expected);
}

#[test]
fn a_datagram_too_large_for_udp_is_refused_and_what_came_before_counts() {
    let (mut a, b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let mut train = train(None, b.local_addr(), Ecn::NotEct, 65_600, &pattern(65_600));

    let refused = a.send(&[Outgoing::new(&train, 0)]).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));

    train.segment_size = 65_599;
    assert!(a.send(&[Outgoing::new(&train, 0)]).is_err());
    assert_eq!(
        a.send(&[Outgoing::new(&train, 1)]).unwrap(),
        1,
        "the short last one fits"
    );
}

#[test]
fn a_datagram_without_contents_is_carried_like_any_other() {
    for loopback in LOOPBACKS {
        let (mut a, mut b) = (socket(loopback), socket(loopback));
        let to = b.local_addr();
        let empty = train(None, to, Ecn::Ect0, 1, b"");
        let gathered = Outgoing {
            payload: Payload::Gathered {
                parts: &[IoSlice::new(b"")],
                per_datagram: 1,
            },
            ..Outgoing::new(&empty, 0)
        };
        let full = train(None, to, Ecn::Ect0, 2, b"aabb");
        let trains = [
            Outgoing::new(&empty, 0),
            Outgoing::new(&full, 0),
            gathered,
            Outgoing::new(&empty, 1),
        ];
        assert_eq!(a.send(&trains).unwrap(), 4, "nothing is left of the last");

        let arrivals = receive(&mut b, 4);
        assert_eq!(datagrams(&arrivals), [&b""[..], b"aa", b"bb", b""]);
        assert!(
            arrivals
                .iter()
                .all(|arrival| arrival.from == a.local_addr())
        );
        assert!(arrivals.iter().all(|arrival| arrival.ecn == Ecn::Ect0));
        assert_eq!(b.stats(), UdpStats::default());
    }
}

#[test]
fn unusable_trains_are_counted_and_the_others_delivered() {
    let (a, mut b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let mut small = RecvBatch::new(Pool::new(100, 4), 4);

    for payload in [&[1; 101][..], b"good"] {
        let message = sys::udp::Message {
            payload: sys::udp::Parts::One(IoSlice::new(payload)),
            route: Route {
                src: None,
                dst: b.local_addr(),
                ecn: Ecn::NotEct,
            },
            segment: None,
        };
        sys::udp::send::<1>(a.as_fd(), iter::once(message)).unwrap();
    }

    assert_eq!(b.recv(&mut small).unwrap(), 1);
    assert_eq!(small.arrivals().next().unwrap().bytes, b"good");
    let expected = UdpStats {
        truncated: 1,
        ..UdpStats::default()
    };
    assert_eq!(b.stats(), expected);
}

#[test]
fn received_trains_keep_their_memory_and_the_batch_takes_other() {
    let (mut a, mut b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let pool = Pool::new(1000, 8);
    let mut batch = RecvBatch::new(pool.clone(), 2);
    let mut kept = Vec::new();

    for round in [b"a", b"b", b"c"] {
        let train = train(None, b.local_addr(), Ecn::NotEct, 1, round);
        a.send(&[Outgoing::new(&train, 0)]).unwrap();
        assert_eq!(b.recv(&mut batch).unwrap(), 1);
        kept.extend(batch.pop());
        assert!(batch.pop().is_none());
    }

    let bytes = kept.iter().map(|train| &*train.bytes);
    assert_eq!(bytes.collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    drop((kept, batch));
    assert_eq!(pool.idle(), 4, "three trains, and one that stood ready");
}

#[test]
fn the_backlog_grows_until_the_kernel_drops_and_shrinks_again() {
    let mut a = socket(LOOPBACKS[0]);
    let config = UdpConfig::new(LOOPBACKS[0].parse().unwrap()).with_buffers(0, 100_000);
    let mut b = UdpSocket::bind(&config).unwrap();
    let idle = b.backlog().unwrap();
    assert_eq!((idle.bytes, idle.dropped), (0, 0));

    let train = train(None, b.local_addr(), Ecn::NotEct, 1000, &pattern(20_000));
    a.send(&[Outgoing::new(&train, 0)]).unwrap();
    let some = b.backlog().unwrap();
    assert!(some.bytes >= 20_000 && some.bytes < some.limit);
    assert_eq!(some.dropped, 0);

    a.send(&[Outgoing::new(&train, 0); MAX_SENDS]).unwrap();
    assert!(b.backlog().unwrap().dropped > 0);

    let mut batch = RecvBatch::new(Pool::new(MAX_TRAIN_BYTES, 32), 32);
    while b.recv(&mut batch).is_ok() {}
    assert_eq!(b.backlog().unwrap().bytes, 0);
}

#[test]
fn metadata_that_makes_no_sense_is_counted() {
    let good = sys::udp::Received {
        len: 10,
        from: Some("192.0.2.1:1".parse().unwrap()),
        to: Some(("fe80::1".parse().unwrap(), 7)),
        ecn: Ecn::NotEct,
        stride: Some(4),
        came_at: None,
        truncated: false,
    };
    let mut stats = UdpStats::default();
    let mut accepts = |train| accept(9, &train, &mut stats);

    let kept = accepts(good).unwrap();
    assert_eq!(kept.to, "[fe80::1%7]:9".parse().unwrap());
    for bad in [
        sys::udp::Received {
            stride: Some(11),
            ..good
        },
        sys::udp::Received {
            stride: Some(0),
            ..good
        },
        sys::udp::Received { to: None, ..good },
        sys::udp::Received { from: None, ..good },
    ] {
        assert!(accepts(bad).is_none());
    }
    assert_eq!((stats.bad_stride, stats.unaddressed), (2, 2));
}

#[test]
fn an_idle_socket_would_block() {
    let mut socket = socket(LOOPBACKS[0]);

    let blocked = socket
        .recv(&mut RecvBatch::new(Pool::new(100, 4), 4))
        .unwrap_err();

    assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_taken_port_is_named_and_a_preferred_one_given_up() {
    let first = socket("127.0.7.1:0");
    let taken = UdpConfig::new(first.local_addr());

    let error = UdpSocket::bind(&taken).unwrap_err();
    assert!(matches!(error, UdpError::AddrInUse { addr } if addr == first.local_addr()));
    assert!(error.to_string().contains(&first.local_addr().to_string()));

    let other = UdpSocket::bind_preferred(&taken).unwrap();
    assert_eq!(other.local_addr().ip(), first.local_addr().ip());
    assert_ne!(other.local_addr().port(), first.local_addr().port());
}

#[test]
fn a_port_is_free_again_as_soon_as_its_socket_is_dropped() {
    let first = socket("127.0.7.2:0");
    let config = UdpConfig::new(first.local_addr());
    drop(first);

    UdpSocket::bind(&config).unwrap();
}

#[test]
fn an_address_of_another_machine_can_not_be_bound() {
    let config = UdpConfig::new("192.0.2.1:0".parse().unwrap());

    let error = UdpSocket::bind_preferred(&config).unwrap_err();

    assert!(matches!(error, UdpError::AddrNotAvailable { .. }));
}

#[test]
fn both_families_can_have_the_same_port() {
    let v4 = socket("0.0.0.0:0");
    let addr = SocketAddr::new("::".parse().unwrap(), v4.local_addr().port());

    UdpSocket::bind(&UdpConfig::new(addr)).unwrap();
}

#[test]
fn the_other_familys_addresses_are_refused() {
    let mut v4 = socket(LOOPBACKS[0]);
    let v6 = socket(LOOPBACKS[1]);

    let wrong_dst = train(None, v6.local_addr(), Ecn::NotEct, 1, b"x");
    let wrong_src = train(Some(v6.local_addr()), v4.local_addr(), Ecn::NotEct, 1, b"x");

    for train in [wrong_dst, wrong_src] {
        let refused = v4.send(&[Outgoing::new(&train, 0)]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn buffers_of_any_wanted_size_are_no_reason_to_fail() {
    for size in [0, 1, 64 * 1024, usize::MAX] {
        let config = UdpConfig::new(LOOPBACKS[0].parse().unwrap()).with_buffers(size, size);

        let (send, recv) = UdpSocket::bind(&config).unwrap().buffer_sizes().unwrap();

        assert!(send > 0 && recv > 0);
    }
}

fn socket(addr: &str) -> UdpSocket {
    UdpSocket::bind(&UdpConfig::new(addr.parse().unwrap())).unwrap()
}

fn train(
    src: Option<SocketAddr>,
    dst: SocketAddr,
    ecn: Ecn,
    segment_size: usize,
    payload: &[u8],
) -> Transmit {
    Transmit {
        route: Route { src, dst, ecn },
        segment_size,
        payload: Pool::new(payload.len(), 1).copy(payload).unwrap(),
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn cut(bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
    bytes.chunks(size).map(<[u8]>::to_vec).collect()
}

/// A received train with its bytes copied out of the batch.
struct Owned {
    from: SocketAddr,
    to: SocketAddr,
    ecn: Ecn,
    stride: usize,
    datagrams: Vec<Vec<u8>>,
}

/// Receives until `count` datagrams are there. On loopback a send delivers before it returns.
fn receive(socket: &mut UdpSocket, count: usize) -> Vec<Owned> {
    let mut batch = RecvBatch::new(Pool::new(MAX_TRAIN_BYTES, 32), 32);
    let mut arrivals = Vec::new();
    let mut received = 0;
    while received < count {
        socket.recv(&mut batch).unwrap();
        for arrival in batch.arrivals() {
            let datagrams = arrival.datagrams().map(<[u8]>::to_vec).collect::<Vec<_>>();
            received += datagrams.len();
            arrivals.push(Owned {
                from: arrival.from,
                to: arrival.to,
                ecn: arrival.ecn,
                stride: arrival.stride,
                datagrams,
            });
        }
    }

    arrivals
}

fn datagrams(arrivals: &[Owned]) -> Vec<Vec<u8>> {
    let datagrams = arrivals
        .iter()
        .flat_map(|arrival| arrival.datagrams.clone());

    datagrams.collect()
}

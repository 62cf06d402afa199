use super::*;
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::train::Route;

use crate::udp::MAX_TRAIN_BYTES;

/// The loopback address of each family.
const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

#[test]
fn a_train_arrives_with_its_boundaries_addresses_and_mark() {
    for loopback in LOOPBACKS {
        for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
            let (mut a, mut b) = (socket(loopback), socket(loopback));
            let payload = pattern(3 * 1000 + 17);

            let train = train(None, b.local_addr(), ecn, 1000, &payload);
            assert_eq!(a.send(&train, 0).unwrap(), 4);

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

        a.send(&train(None, b.local_addr(), Ecn::Ce, 1200, &payload), 0)
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
            assert_eq!(a.send(&train, 0).unwrap(), datagram_count);

            let arrivals = receive(&mut b, datagram_count);
            assert_eq!(datagrams(&arrivals), cut(&payload, segment_size));
        }
    }
}

#[test]
fn a_send_resumes_at_the_datagram_it_is_told() {
    let (mut a, mut b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let payload = pattern(5 * 100);
    let train = train(None, b.local_addr(), Ecn::NotEct, 100, &payload);

    assert_eq!(a.send(&train, 3).unwrap(), 2);
    assert_eq!(a.send(&train, 5).unwrap(), 0);
    assert_eq!(a.send(&train, 9).unwrap(), 0);

    let arrivals = receive(&mut b, 2);
    assert_eq!(datagrams(&arrivals), cut(&payload[300..], 100));
}

#[test]
fn the_source_address_is_the_routes() {
    let mut a = socket("0.0.0.0:0");
    let mut b = socket(LOOPBACKS[0]);
    let source = SocketAddr::new("127.0.0.2".parse().unwrap(), a.local_addr().port());

    let train = train(Some(source), b.local_addr(), Ecn::Ect1, 4, b"aaaabb");
    a.send(&train, 0).unwrap();

    let arrivals = receive(&mut b, 2);
    assert_eq!(arrivals[0].from, source);
    assert_eq!(arrivals[0].ecn, Ecn::Ect1);
}

#[test]
fn the_local_address_is_the_one_the_peer_used() {
    let mut a = socket(LOOPBACKS[0]);
    let mut b = socket("0.0.0.0:0");
    let used = SocketAddr::new("127.0.0.3".parse().unwrap(), b.local_addr().port());

    a.send(&train(None, used, Ecn::NotEct, 1, b"x"), 0).unwrap();

    assert_eq!(receive(&mut b, 1)[0].to, used);
}

#[test]
fn a_source_that_is_not_ours_is_refused_and_segmentation_stays_on() {
    let mut a = socket(LOOPBACKS[0]);
    let b = socket(LOOPBACKS[0]);
    let foreign = "192.0.2.1:1".parse().unwrap();

    let train = train(Some(foreign), b.local_addr(), Ecn::NotEct, 2, b"aabb");

    assert!(a.send(&train, 0).is_err());
    assert!(matches!(a.segmentation, Segmentation::On));
}

#[test]
fn a_socket_without_segmentation_sends_one_by_one() {
    for loopback in LOOPBACKS {
        let (mut a, mut b) = (socket(loopback), socket(loopback));
        a.segmentation = Segmentation::Off;
        let payload = pattern(4 * 700 + 1);

        let train = train(None, b.local_addr(), Ecn::Ect0, 700, &payload);
        assert_eq!(a.send(&train, 0).unwrap(), 5);

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
    let payload = pattern(4 * 700 + 1);

    let train = train(None, b.local_addr(), Ecn::Ect0, 700, &payload);
    assert_eq!(a.send(&train, 1).unwrap(), 4);

    assert!(matches!(a.segmentation, Segmentation::Off));
    let arrivals = receive(&mut b, 4);
    assert_eq!(datagrams(&arrivals), cut(&payload[700..], 700));
}

#[test]
fn a_datagram_too_large_for_udp_is_refused_and_what_came_before_counts() {
    let (mut a, b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let mut train = train(None, b.local_addr(), Ecn::NotEct, 65_600, &pattern(65_600));

    let refused = a.send(&train, 0).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));

    train.segment_size = 65_599;
    assert!(a.send(&train, 0).is_err());
    assert_eq!(a.send(&train, 1).unwrap(), 1, "the short last one fits");
}

#[test]
fn unusable_trains_are_counted_and_the_others_delivered() {
    let (a, mut b) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let mut small = RecvBatch::new(4, 100);

    for payload in [&b""[..], &[1; 101], b"good"] {
        sys::udp::send(a.as_fd(), payload, b.local_addr(), None, Ecn::NotEct, None).unwrap();
    }

    assert_eq!(b.recv(&mut small).unwrap(), 1);
    assert_eq!(small.arrivals().next().unwrap().bytes, b"good");
    let expected = UdpStats {
        empty: 1,
        truncated: 1,
        ..UdpStats::default()
    };
    assert_eq!(b.stats(), expected);
}

#[test]
fn metadata_that_makes_no_sense_is_counted() {
    let good = sys::udp::Received {
        len: 10,
        from: Some("192.0.2.1:1".parse().unwrap()),
        to: Some(("fe80::1".parse().unwrap(), 7)),
        ecn: Ecn::NotEct,
        stride: Some(4),
        truncated: false,
    };
    let mut stats = UdpStats::default();
    let mut accepts = |train| accept(0, 9, &train, &mut stats);

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

    let blocked = socket.recv(&mut RecvBatch::new(4, 100)).unwrap_err();

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
        let refused = v4.send(&train, 0).unwrap_err();
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
    let mut batch = RecvBatch::new(32, MAX_TRAIN_BYTES);
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

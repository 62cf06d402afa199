use super::*;

const D1: &str = "192.0.2.1:1000";
const D2: &str = "192.0.2.2:2000";

#[test]
fn the_largest_train_depends_on_the_family() {
    let v4 = D1.parse().unwrap();
    let v6 = "[2001:db8::1]:1".parse().unwrap();

    assert_eq!(max_len(v4, 1023), 63 * 1023); // V7
    assert_eq!(max_len(v6, 1023), 64 * 1023);
    assert_eq!(max_len(v4, 100), 6400);
    assert_eq!(max_len(v4, 1316), 49 * 1316);
}

#[test]
fn a_segment_too_large_for_udp_has_no_train() {
    for dst in [D1, "[2001:db8::1]:1"] {
        assert_eq!(max_len(dst.parse().unwrap(), 70_000), 0); // V8
    }
}

#[test]
fn an_arrival_is_cut_at_its_stride() {
    let bytes = [0; 38];
    let arrival = |stride| Arrival {
        from: D1.parse().unwrap(),
        to: D2.parse().unwrap(),
        ecn: Ecn::NotEct,
        stride,
        bytes: &bytes,
    };

    let lens = |stride| {
        arrival(stride)
            .datagrams()
            .map(<[u8]>::len)
            .collect::<Vec<_>>()
    };
    assert_eq!(lens(7), [7, 7, 7, 7, 7, 3]); // V9
    assert_eq!(lens(0), [38]);
}

#[test]
fn a_train_of_no_bytes_is_one_datagram() {
    for size in [0, 1, 1_200] {
        assert_eq!(segments(0, size), 1, "{size}");
        assert!(datagrams(b"", size).eq([b""]), "{size}");
    }
    assert_eq!(segments(4, 2), 2);
    assert!(datagrams(b"abcd", 2).eq([b"ab", b"cd"]), "none behind it");
}

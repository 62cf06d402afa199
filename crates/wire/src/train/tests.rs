use std::convert::Infallible;

use super::*;

const D1: &str = "192.0.2.1:1000";
const D2: &str = "192.0.2.2:2000";

fn route(dst: &str) -> Route {
    Route {
        src: None,
        dst: dst.parse().unwrap(),
        ecn: Ecn::NotEct,
    }
}

fn trains() -> Trains {
    Trains::new(Pool::new(65_535, 4))
}

fn push(trains: &mut Trains, dst: &str, len: usize) {
    trains
        .push_with(route(dst), len, |slot| {
            slot.fill(len as u8);
            Ok::<_, Infallible>(())
        })
        .unwrap();
}

/// Destination, bytes and segment size of each train.
fn drain(trains: &mut Trains) -> Vec<(String, usize, usize)> {
    std::iter::from_fn(|| trains.pop())
        .map(|t| (t.route.dst.to_string(), t.payload.len(), t.segment_size))
        .collect()
}

fn enqueue(lens: &[(&str, usize)]) -> Vec<(String, usize, usize)> {
    let mut trains = trains();
    for (dst, len) in lens {
        push(&mut trains, dst, *len);
    }
    drain(&mut trains)
}

#[test]
fn equal_datagrams_and_a_short_tail_make_one_train() {
    let lens = [(D1, 6), (D1, 6), (D1, 6), (D1, 3)];
    assert_eq!(enqueue(&lens), [(D1.into(), 21, 6)]); // io.md V1
}

#[test]
fn nothing_follows_a_short_tail() {
    let lens = [(D1, 6), (D1, 6), (D1, 3), (D1, 6)];
    assert_eq!(enqueue(&lens), [(D1.into(), 15, 6), (D1.into(), 6, 6)]); // V2
}

#[test]
fn routes_do_not_disturb_each_other() {
    let lens = [(D1, 6), (D1, 6), (D2, 8), (D2, 6), (D1, 6), (D1, 6)];
    assert_eq!(enqueue(&lens), [(D1.into(), 24, 6), (D2.into(), 14, 8)]); // V3
}

#[test]
fn a_datagram_never_joins_an_older_train() {
    let lens = [(D1, 4), (D1, 6), (D1, 3), (D1, 2)];
    let expected = [(D1.into(), 4, 4), (D1.into(), 9, 6), (D1.into(), 2, 2)];
    assert_eq!(enqueue(&lens), expected); // V4
}

#[test]
fn a_train_ends_at_the_size_and_at_the_count_the_kernel_takes() {
    let trains = enqueue(&[(D1, 1316); 50]);
    assert_eq!(
        trains,
        [(D1.into(), 49 * 1316, 1316), (D1.into(), 1316, 1316)]
    ); // V5

    let trains = enqueue(&[(D1, 100); 65]);
    assert_eq!(trains, [(D1.into(), 6400, 100), (D1.into(), 100, 100)]); // V6
}

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
fn a_datagram_too_large_for_udp_is_refused() {
    let refused = trains().push_with(route(D1), 70_000, |_| Ok::<_, Infallible>(()));
    assert_eq!(refused, Err(TrainError::TooLarge { len: 70_000 })); // V8
}

#[test]
fn a_datagram_that_could_not_be_filled_leaves_no_trace() {
    let mut trains = trains();
    let refused = trains.push_with(route(D1), 6, |_| Err("no"));
    assert_eq!(refused, Err(TrainError::NotFilled("no")));
    assert!(trains.is_empty());

    push(&mut trains, D1, 6);
    assert!(trains.push_with(route(D1), 6, |_| Err("no")).is_err());
    push(&mut trains, D1, 6);
    assert_eq!(drain(&mut trains), [(D1.into(), 12, 6)]);
    assert_eq!(trains.queued_bytes(), 0);
}

#[test]
fn order_within_a_route_survives_draining_in_between() {
    let mut trains = trains();
    push(&mut trains, D1, 6);
    push(&mut trains, D2, 6);
    assert_eq!(trains.pop().unwrap().route.dst.to_string(), D1);

    push(&mut trains, D1, 5);
    push(&mut trains, D2, 6);
    assert_eq!(drain(&mut trains), [(D2.into(), 12, 6), (D1.into(), 5, 5)]);
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

proptest::proptest! {
    /// io.md P1–P3: per route the datagrams come out as they went in, and every train is one the kernel takes.
    #[test]
    fn trains_keep_order_and_content(lens in proptest::collection::vec((0..3usize, 1..1400usize), 0..300)) {
        let mut trains = trains();
        let mut expected: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 3];
        let dst = |i: usize| format!("192.0.2.{i}:7");

        for (n, (to, len)) in lens.iter().enumerate() {
            let datagram: Vec<u8> = (0..*len).map(|i| (i + n) as u8).collect();
            trains.push_with(route(&dst(*to)), *len, |slot| {
                slot.copy_from_slice(&datagram);
                Ok::<_, Infallible>(())
            }).unwrap();
            expected[*to].push(datagram);
        }

        let mut seen: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 3];
        while let Some(train) = trains.pop() {
            proptest::prop_assert!(train.segments() <= MAX_SEGMENTS);
            proptest::prop_assert!(train.payload.len() <= max_len(train.route.dst, train.segment_size));
            let to = (0..3).find(|i| dst(*i) == train.route.dst.to_string()).unwrap();
            seen[to].extend(train.datagrams().map(<[u8]>::to_vec));
        }
        proptest::prop_assert_eq!(seen, expected);
        proptest::prop_assert_eq!(trains.queued_bytes(), 0);
    }
}

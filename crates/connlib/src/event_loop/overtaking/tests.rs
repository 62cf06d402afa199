use connlib_wire::ip;

use super::super::arrivals::{Arrivals, Order, Sender};
use super::super::stats::Stats;
use super::*;

#[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
fn start() -> Instant {
    Instant::now()
}

fn packet(port: u16, payload: usize) -> Buffer {
    let from = format!("100.64.0.1:{port}").parse().unwrap();
    let to = "10.20.0.10:7".parse().unwrap();

    ip::udp(&Pool::new(2_048, 1), from, to, &vec![0; payload])
        .unwrap()
        .into_inner()
}

/// A place behind a large train, and the arrivals that it waits in.
fn place(now: Instant) -> (Place, Arrivals) {
    use connlib_wire::ecn::Ecn;
    use connlib_wire::train::Received;

    let mut arrivals = Arrivals::new(7, Order::SmallFirst);
    for len in [1_312, 96] {
        let mut bytes = Pool::new(2_048, 1).take(0);
        bytes.extend(len).unwrap().fill(0);
        let received = Received {
            from: "192.0.2.1:1".parse().unwrap(),
            to: "192.0.2.2:2".parse().unwrap(),
            ecn: Ecn::NotEct,
            stride: 0,
            bytes,
            number: 0,
        };
        arrivals.push(
            now,
            Duration::ZERO,
            received,
            Sender::Known,
            &mut Stats::default(),
        );
    }

    (arrivals.pop(now).unwrap().overtakes.unwrap(), arrivals)
}

#[test]
fn a_packet_whose_datagram_may_be_large_is_no_small_one() {
    let mut overtaking = Overtaking::new(7);
    let now = start();
    overtaking.note(now, &packet(1, 64));
    // 544 bytes in 576; one more takes 592.
    overtaking.note(now, &packet(1, 545 - 28));
    assert!(!overtaking.may_leave(now, &packet(1, 64)));
}

#[test]
fn a_flow_overtakes_once_it_is_known_for_small_packets_alone() {
    let mut overtaking = Overtaking::new(7);
    let now = start();
    let small = packet(1, 64);
    assert!(!overtaking.may_leave(now, &small), "nothing is known of it");

    overtaking.note(now, &small);
    assert!(overtaking.may_leave(now, &small));
    assert!(!overtaking.may_leave(now, &packet(2, 64)), "another one");

    overtaking.note(now, &packet(1, 1_000));
    assert!(!overtaking.may_leave(now, &small));
    assert!(!overtaking.may_leave(now + QUIET / 2, &small));
    assert!(overtaking.may_leave(now + QUIET, &small));
}

#[test]
fn what_is_no_packet_overtakes_nothing() {
    let mut overtaking = Overtaking::new(7);
    overtaking.note(start(), &[0; 40]);

    assert!(!overtaking.may_leave(start(), &[0; 40]));
}

#[test]
fn trains_are_known_again_by_their_numbers() {
    let now = start();
    let (place, _) = place(now);
    let mut overtaking = Overtaking::new(7);
    let origin = (Family::V4, place);
    let _ = overtaking.begin(None);
    let _of_which_nothing_comes = overtaking.begin(Some(origin));
    let large = overtaking.begin(None);
    let small = overtaking.begin(Some(origin));

    assert_eq!(overtaking.opened(large), None);
    assert_eq!(overtaking.opened(small), Some(origin));
    assert_eq!(overtaking.opened(small), None);
}

#[test]
fn what_has_to_wait_leaves_after_what_came_before_it() {
    let now = start();
    let (place, mut arrivals) = place(now);
    let mut overtaking = Overtaking::new(7);
    let origin = (Family::V4, place);
    for port in [1, 2] {
        let packet = packet(port, 64);
        assert!(overtaking.hold(origin, &packet, 0..packet.len()));
    }
    assert!(
        overtaking
            .release(|(_, place)| arrivals.is_past(place))
            .is_none()
    );

    arrivals.pop(now).unwrap();
    for port in [1, 2] {
        let released = overtaking.release(|(_, place)| arrivals.is_past(place));
        assert_eq!(released.as_deref(), Some(&packet(port, 64)[..]));
    }
    assert!(!overtaking.holds_any());
}

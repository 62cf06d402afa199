//! Devices that take no more.

use super::super::fair::MAX_BYTES as MAX_FAIR_BYTES;
use super::super::tun::MAX_WAITING as MAX_TUN_WAITING;
use super::super::{Command, MAX_WAITING};
use super::*;

#[test]
fn a_full_socket_keeps_its_trains_in_order_and_resumes_inside_of_one() {
    let mut rig = Rig::new();
    rig.core().train_len = 8;
    rig.io.v4().limit_queue(5);
    for number in 0..20 {
        rig.send(packet(4, number));
    }

    let wait = rig.turn();
    assert_eq!(sent(rig.io.v4()), [0, 1, 2, 3, 4]);
    assert!(wait.interest.udp_v4.writable);
    assert!(!wait.interest.udp_v6.writable);
    assert_ne!(wait.until, Some(rig.now), "nothing can be done now");

    rig.io.v4().limit_queue(usize::MAX);
    let wait = rig.turn();
    assert_eq!(sent(rig.io.v4()), (0..20).collect::<Vec<_>>());
    assert!(!wait.interest.udp_v4.writable);
}

#[test]
fn partial_accepts_lose_and_repeat_nothing() {
    let mut rig = Rig::new();
    rig.core().train_len = 10;
    rig.io.v4().limit_accept(3);
    for number in 0..30 {
        rig.send(packet(4, number));
    }

    let _ = rig.turn();

    assert_eq!(sent(rig.io.v4()), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_stuck_ipv6_does_not_block_ipv4() {
    let mut rig = Rig::new();
    rig.io.v6().limit_queue(0);
    for number in 0..10 {
        rig.send(packet(6, number));
        rig.send(packet(4, number));
        rig.io.v6().inbox.push_back(arrival(Family::V6, number));
    }

    let _ = rig.turn();

    assert_eq!(sent(rig.io.v4()), (0..10).collect::<Vec<_>>());
    assert_eq!(written(&rig.io.tun.device), (0..10).collect::<Vec<_>>());
    assert_eq!(rig.io.v6().queued(), 0);
}

#[test]
fn a_full_tun_does_not_block_the_sockets() {
    let mut rig = Rig::new();
    rig.io.tun().limit_outbox(0);
    for number in 0..10 {
        rig.io.v4().inbox.push_back(arrival(Family::V4, number));
        rig.send(packet(4, number));
    }

    let wait = rig.turn();
    assert_eq!(
        rig.core().count(|seen| matches!(seen, Seen::Datagram(_))),
        10
    );
    assert_eq!(sent(rig.io.v4()), (0..10).collect::<Vec<_>>());
    assert!(wait.interest.tun.writable);
    assert_eq!(rig.due_at(&wait), None);

    rig.io.v4().inbox.push_back(arrival(Family::V4, 10));
    rig.io.tun().limit_outbox(usize::MAX);
    let _ = rig.turn();
    assert_eq!(written(&rig.io.tun.device), (0..=10).collect::<Vec<_>>());
}

#[test]
fn packets_for_a_full_tun_are_bounded_and_the_rest_is_counted() {
    let mut rig = Rig::new();
    rig.io.tun().limit_outbox(0);
    let mut train = train_of(Family::V4, [0]);
    train.bytes = sized(packet(4, 0), 1_280);
    train.stride = 0;
    let all = 2 * MAX_TUN_WAITING / 1_280;
    for _ in 0..all {
        rig.io.v4().inbox.push_back(train.clone());
    }
    while !rig.io.v4().inbox.is_empty() {
        let _ = rig.turn();
    }

    rig.io.tun().limit_outbox(usize::MAX);
    let _ = rig.turn();

    let kept = rig.io.tun().outbox.len();
    let dropped = rig.event_loop.stats().dropped(DropReason::TunFull);
    assert_eq!(kept, MAX_TUN_WAITING / 1_280);
    assert_eq!(kept as u64 + dropped, all as u64);
}

#[test]
fn the_tun_is_read_while_a_socket_is_full_and_what_waits_is_bounded() {
    let mut rig = Rig::new();
    rig.io.v6().limit_queue(0);
    let all = 4 * MAX_FAIR_BYTES / 1_280;
    for number in 0..all {
        rig.send(sized(packet(6, number as u16), 1_280));
        if number % 512 == 0 {
            rig.settle();
        }
    }
    rig.settle();

    assert!(rig.io.tun().inbox.is_empty(), "the standing queue is ours");
    let stats = rig.event_loop.stats();
    assert_eq!(stats.dropped(DropReason::SocketFull), 0, "none is sealed");
    let waiting = all - stats.dropped(DropReason::QueueFull) as usize;
    assert!(waiting * 1_280 <= MAX_FAIR_BYTES + MAX_WAITING + 64 * 1_280);
    assert!(!rig.event_loop.is_flushed());
}

#[test]
fn a_full_socket_holds_up_another_family_not_for_ever() {
    let mut rig = Rig::new();
    rig.io.v6().limit_queue(0);
    for _ in 0..2 * MAX_WAITING / 1_280 {
        rig.send(sized(packet(6, 0), 1_280));
    }
    rig.settle();
    let wait = rig.turn();
    rig.advance(Duration::from_millis(1));
    rig.send(packet(4, 1));
    rig.settle();

    rig.now = wait.until.unwrap();
    rig.settle();

    assert_eq!(sent(rig.io.v4()), [1]);
    assert_eq!(rig.io.v6().queued(), 0);
}

#[test]
fn a_slow_socket_loses_nothing_that_was_sealed() {
    let mut rig = Rig::new();
    let all = MAX_WAITING * 3 / 1_280;
    for number in 0..all {
        rig.send(sized(packet(4, number as u16), 1_280));
    }

    let mut arrived = Vec::new();
    while !rig.event_loop.is_flushed() || arrived.is_empty() {
        rig.io.v4().limit_queue(100);
        let _ = rig.turn();
        arrived.extend(sent(rig.io.v4()));
        rig.io.v4().sent.clear();
        rig.advance(Duration::from_millis(10));
    }

    let stats = rig.event_loop.stats();
    let waited = stats.dropped(DropReason::WaitedTooLong) as usize;
    assert!(arrived.is_sorted_by(|a, b| a < b));
    assert_eq!(arrived.len() + waited, all);
    assert!(arrived.len() > MAX_WAITING / 1_280);
}

#[test]
fn datagrams_for_a_missing_socket_are_counted() {
    let mut rig = Rig::new();
    rig.io.v6 = None;
    rig.send(packet(6, 1));
    rig.send(packet(4, 2));

    let wait = rig.turn();

    assert_eq!(rig.event_loop.stats().dropped(DropReason::NoSocket), 1);
    assert_eq!(sent(rig.io.v4()), [2]);
    assert!(!wait.interest.udp_v6.readable);
    assert_eq!(rig.due_at(&wait), None);
}

#[test]
fn what_waits_leaves_after_a_change_of_network() {
    let mut rig = Rig::new();
    rig.io.v4().limit_queue(0);
    rig.send(packet(4, 1));
    let _ = rig.turn();

    rig.command(Command::NetworkChanged);
    let _ = rig.turn();
    rig.io.v4().limit_queue(usize::MAX);
    let _ = rig.turn();

    assert!(rig.core().seen.contains(&Seen::NetworkChanged));
    assert_eq!(rig.io.v4().queued(), 1);
}

#[test]
fn what_waited_for_the_old_network_is_forgotten_at_a_reset() {
    let mut rig = Rig::new();
    rig.io.v4().limit_queue(0);
    rig.send(packet(4, 1));
    let _ = rig.turn();

    rig.command(Command::Reset);
    let _ = rig.turn();
    rig.io.v4().limit_queue(usize::MAX);
    let _ = rig.turn();

    assert!(rig.core().seen.contains(&Seen::Reset));
    assert_eq!(rig.io.v4().queued(), 0);
}

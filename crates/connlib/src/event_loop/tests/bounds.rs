//! What the loop keeps, whatever stands still; and that it gives it back.

use super::super::fair::{MAX_BYTES as MAX_FAIR_BYTES, MAX_WAIT};
use super::super::tun::MAX_WAITING as MAX_TUN_WAITING;
use super::super::{Command, MAX_WAITING};
use super::*;

/// P7: bounded memory, whatever stands still, and for however long.
#[test]
fn what_waits_is_bounded_while_every_device_stands_still() {
    let mut rig = Rig::new();
    rig.io.v4().limit_queue(0);
    rig.io.v6().limit_queue(0);
    rig.io.tun().limit_outbox(0);
    rig.io.room = 0;
    for round in 0..20 {
        for number in 0..60 {
            rig.send(sized(packet([4, 6][round % 2], number), 60_000));
            let mut train = train_of(Family::V4, [0]);
            train.bytes = sized(packet(4, number), 60_000);
            train.stride = 0;
            rig.io.v4().inbox.push_back(train);
            rig.command(Command::Portal(PROBE));
        }
        rig.settle();
        rig.advance(Duration::from_millis(7));
    }

    // Nothing was taken, so all buffers of the core are in what waits for the sockets.
    let stats = rig.event_loop.stats().clone();
    assert!(stats.dropped(DropReason::TunFull) > 0);
    assert!(
        stats.dropped(DropReason::SocketFull) > 0,
        "control too is bounded"
    );
    rig.io.v4().limit_queue(usize::MAX);
    rig.io.v6().limit_queue(usize::MAX);
    rig.io.tun().limit_outbox(usize::MAX);
    let _ = rig.turn();
    for family in [Family::V4, Family::V6] {
        let sent = rig.io.socket(family).sent.iter();
        let bytes: usize = sent.map(|train| train.payload.len()).sum();
        assert!(
            bytes <= 2 * MAX_WAITING + MAX_FAIR_BYTES + 60_000,
            "{bytes}"
        );
    }
    let written = rig.io.tun().outbox.iter();
    let bytes: usize = written.map(|(_, packet)| packet.len()).sum();
    assert!(bytes <= MAX_TUN_WAITING, "{bytes}");
}

#[test]
fn what_stood_too_long_leaves_neither_late_nor_uncounted() {
    let mut rig = Rig::new();
    rig.io.v4().limit_queue(0);
    let all = 2 * MAX_WAITING / 1_280;
    for number in 0..all {
        rig.send(sized(packet(4, number as u16), 1_280));
    }
    rig.settle();
    rig.advance(2 * MAX_WAIT);
    rig.io.v4().limit_queue(usize::MAX);
    rig.settle();

    let dropped = rig.event_loop.stats().dropped(DropReason::WaitedTooLong);
    assert!(dropped > 0);
    assert_eq!(sent(rig.io.v4()).len() + dropped as usize, all);
}

/// "Count stays flat over 10⁶ packets"; a tenth of that here.
#[test]
fn memory_comes_back_whatever_becomes_of_the_packets() {
    let mut rig = Rig::new();
    rig.event_loop.core.pool = connlib_wire::buffer::Pool::new(65_535, 100_000);
    let mut idle = Vec::new();
    for round in 0..100 {
        rig.core().denies = round % 7 == 0;
        rig.io
            .v4()
            .limit_queue(if round % 3 == 0 { 0 } else { usize::MAX });
        rig.io
            .tun()
            .limit_outbox(if round % 5 == 0 { 0 } else { usize::MAX });
        let refused = std::io::Error::from_raw_os_error(libc::EPERM);
        rig.io.v6().fail_send(round % 11, refused);
        for number in 0..500 {
            rig.send(packet([4, 6][usize::from(number % 2)], number));
            rig.io.v4().inbox.push_back(arrival(Family::V4, number));
            if number % 50 == 0 {
                rig.send(vec![0x45; 3]);
            }
        }
        while rig.turn_anyhow().until == Some(rig.now) {}
        if round % 13 == 0 {
            rig.command(Command::Reset);
            let _ = rig.turn_anyhow();
        }
        rig.advance(Duration::from_millis(30));
        rig.io.v4().limit_queue(usize::MAX);
        rig.io.tun().limit_outbox(usize::MAX);
        while rig.turn_anyhow().until == Some(rig.now) {}

        assert!(rig.event_loop.is_flushed() && rig.event_loop.tun.is_empty());
        rig.io.v4().sent.clear();
        rig.io.v6().sent.clear();
        rig.io.tun().outbox.clear();
        rig.core().seen.clear();
        idle.push(rig.core().pool.idle());
    }

    assert_eq!(idle[20], idle[99], "{idle:?}");
}

#[test]
fn an_idle_loop_asks_for_a_last_turn_to_tidy_up_and_then_for_none() {
    let mut rig = Rig::new();
    rig.send(packet(4, 1));
    let wait = rig.turn();
    rig.now = wait.until.unwrap();
    let wait = rig.turn();
    rig.now = wait.until.unwrap();

    assert_eq!(rig.turn().until, None);
}

#[test]
fn a_reset_while_sends_are_under_way_sends_nothing_of_before_afterwards() {
    for seed in 0..50 {
        let mut rig = Rig::new();
        rig.core().train_len = 4;
        rig.io.workers = TestWorkers::Shuffled(Shuffled::new(seed));
        rig.io.v4().limit_queue(2);
        for number in 0..100 {
            rig.send(packet(4, number));
        }
        let _ = rig.turn();
        // What the core is still at is the core's to forget; this one doesn't.
        while rig.core().jobs_under_way() > 0 {
            let _ = rig.turn();
        }
        let _ = rig.turn();

        rig.command(Command::Reset);
        let _ = rig.turn();
        assert!(rig.event_loop.is_flushed());
        rig.io.v4().limit_queue(usize::MAX);
        rig.send(packet(4, 100));
        rig.settle();
        while rig.core().jobs_under_way() > 0 {
            let _ = rig.turn();
        }
        rig.settle();

        assert_eq!(sent(rig.io.v4()), [0, 1, 100], "seed {seed}");
    }
}

/// "Unset TUN does not block sockets": the device says that nothing waits, and nobody reads what is written.
#[test]
fn a_tun_that_has_yet_to_come_blocks_nothing_and_is_used_when_it_comes() {
    let mut rig = Rig::new();
    rig.io.tun().storm_read(u64::MAX);
    rig.core().deadline = Some(rig.now);
    rig.command(Command::Portal(PROBE));
    rig.io.v4().inbox.push_back(arrival(Family::V4, 1));
    rig.io.v6().inbox.push_back(arrival(Family::V6, 2));
    let wait = rig.turn();

    assert_eq!(rig.due_at(&wait), None);
    assert_eq!(rig.io.v4().sent[0].payload, b"probe");
    assert_eq!(
        rig.core().count(|seen| matches!(seen, Seen::Datagram(_))),
        2
    );
    assert_eq!(rig.core().timeouts, 1);

    rig.io.tun.device = connlib_os::fake::FakeTun::new("late");
    rig.send(packet(6, 3));
    rig.io.v4().inbox.push_back(arrival(Family::V4, 4));
    let _ = rig.turn();
    assert_eq!(sent(rig.io.v6()), [3]);
    assert_eq!(written(&rig.io.tun.device), [4]);
}

#[test]
fn control_leaves_before_data_that_waits_and_while_the_other_socket_is_stuck() {
    let mut rig = Rig::new();
    rig.io.v4().limit_queue(0);
    rig.io.v6().limit_queue(0);
    for number in 0..20 {
        rig.send(packet(4, number));
    }
    rig.settle();
    rig.command(Command::Portal(PROBE));
    let _ = rig.turn();

    rig.io.v4().limit_queue(3);
    let _ = rig.turn();
    let first = &rig.io.v4().sent[0].payload;
    assert_eq!(first, b"probe");
}

#[test]
fn a_packet_that_waited_is_judged_again_if_rules_have_changed() {
    for denies in [false, true] {
        let mut rig = Rig::new();
        rig.io.v4().limit_queue(0);
        for number in 0..2 * MAX_WAITING / 60_000 {
            rig.send(sized(packet(4, number as u16), 60_000));
        }
        rig.settle();
        let sealed = rig.core().count(|seen| matches!(seen, Seen::Packet(_)));
        assert!(!rig.event_loop.fair.is_empty());

        rig.core().revision += 1;
        rig.core().denies = denies;
        rig.io.v4().limit_queue(usize::MAX);
        rig.settle();

        let all = 2 * MAX_WAITING / 60_000;
        let expected = if denies { sealed } else { all };
        assert_eq!(sent(rig.io.v4()).len(), expected);
        assert_eq!(rig.core().denied, all - expected);
    }
}

/// A socket in which everything waits for milliseconds is not full, and yet stands in everybody's way.
#[test]
fn a_socket_that_stands_tells_the_bulk_in_it_and_nobody_else() {
    let mut rig = Rig::new();
    rig.io.v4().set_stood_for(Some(Duration::from_millis(5)));
    for turn in 0..500 {
        // More than a turn takes.
        for train in 0..60 {
            let numbers = if train % 2 == 0 { 0..8 } else { 0..1 };
            rig.io.v4().inbox.push_back(train_of(Family::V4, numbers));
        }
        let _ = rig.turn();
        rig.advance(Duration::from_millis(1));
        if turn < 95 {
            assert_eq!(rig.event_loop.stats().dropped(DropReason::SocketStands), 0);
        }
    }

    let told = rig.event_loop.stats().dropped(DropReason::SocketStands);
    assert!((5..100).contains(&told), "{told}");
    let written = rig.io.tun().outbox.len() as u64;
    let received = rig.event_loop.stats().datagrams_received;
    assert!(written <= received - told, "each cost one packet");
}

#[test]
fn a_socket_that_empties_tells_nobody() {
    let mut rig = Rig::new();
    rig.io.v4().set_stood_for(Some(Duration::from_millis(5)));
    for _ in 0..200 {
        rig.io.v4().inbox.push_back(train_of(Family::V4, 0..8));
        let _ = rig.turn();
        rig.advance(Duration::from_millis(1));
    }

    assert_eq!(rig.event_loop.stats().dropped(DropReason::SocketStands), 0);
}

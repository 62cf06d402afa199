//! What the forerunner's loop got wrong (io.md §1.9), and what else it is known to get wrong (io.md §9).

use std::io;

use super::super::{Command, Error, Fatal, budget};
use super::*;

/// Defect 2.
#[test]
fn every_error_of_a_turn_is_told_whatever_comes_first() {
    for fatal_first in [false, true] {
        let mut rig = Rig::new();
        // Which source comes first changes from turn to turn.
        for _ in 0..5 {
            let harmless = io::Error::from(io::ErrorKind::ConnectionRefused);
            rig.io.v4().fail_recv(0, harmless);
            rig.send(packet(4, 1));
            let fatal = io::Error::from_raw_os_error(libc::EBADFD);
            match fatal_first {
                true => rig.io.tun().fail_read(0, fatal),
                false => rig.io.tun().fail_read(1, fatal),
            }
            let mut wait = rig.turn_with_errors();
            let errors: Vec<_> = wait.errors.drain().collect();

            assert_eq!(errors.len(), 2, "{errors:?}");
            let is_fatal = |error: &Error| matches!(error, Error::Fatal(Fatal::TunGone { .. }));
            assert_eq!(errors.iter().filter(|error| is_fatal(error)).count(), 1);
            rig.settle();
        }
    }
}

/// Defect 3.
#[test]
fn an_error_of_one_family_costs_the_other_nothing_whichever_comes_first() {
    for failing in [Family::V4, Family::V6] {
        let mut rig = Rig::new();
        for turn in 0..5 {
            let error = io::Error::from(io::ErrorKind::ConnectionRefused);
            rig.io.socket(failing).fail_recv(0, error);
            for family in [Family::V4, Family::V6] {
                rig.io.socket(family).inbox.push_back(arrival(family, turn));
            }
            rig.core().seen.clear();
            let mut wait = rig.turn_with_errors();

            assert_eq!(wait.errors.drain().count(), 1);
            let is_datagram = |seen: &Seen| matches!(seen, Seen::Datagram(_));
            assert_eq!(rig.core().count(is_datagram), 2);
        }
    }
}

/// Defect 4.
#[test]
fn a_turn_takes_many_commands_and_many_packets() {
    let mut rig = Rig::new();
    for number in 0..40 {
        rig.command(Command::Portal(SAY));
        rig.send(packet(4, number));
    }
    let _ = rig.turn();

    assert_eq!(rig.core().count(|seen| *seen == Seen::Message(SAY)), 40);
    assert_eq!(sent(rig.io.v4()).len(), 40);
}

/// Defect 5 in another guise: a socket that is slow, and so never counts as stuck.
#[test]
fn a_slow_ipv6_does_not_hold_up_ipv4() {
    let mut rig = Rig::new();
    rig.io.v6().limit_queue(0);
    let mut sent_v6 = 0;
    for number in 0..400 {
        for _ in 0..40 {
            rig.send(sized(packet(6, 0), 1_280));
        }
        rig.send(packet(4, number));
        // One datagram leaves now and then.
        if number % 10 == 0 {
            sent_v6 += 1;
            rig.io.v6().limit_queue(sent_v6);
        }
        rig.settle();
        rig.advance(Duration::from_millis(1));
    }
    rig.advance(Duration::from_millis(20));
    rig.settle();

    assert!(sent(rig.io.v4()).is_sorted());
    assert_eq!(sent(rig.io.v4()).len(), 400, "all of IPv4 leaves");
}

/// Defect 6.
#[test]
fn a_packet_that_goes_nowhere_does_not_run_the_timer() {
    let mut rig = Rig::new();
    rig.core().denies = true;
    for number in 0..50 {
        rig.send(packet(4, number));
        rig.send(vec![0; 20]);
    }
    let _ = rig.turn();

    assert_eq!((rig.core().denied, rig.core().malformed), (50, 50));
    assert_eq!(rig.core().timeouts, 0);
    assert_eq!(rig.io.v4().queued(), 0);
}

/// V12.
#[test]
fn a_kernel_that_takes_ten_of_32_datagrams_is_given_the_eleventh_next() {
    let mut rig = Rig::new();
    rig.core().train_len = 32;
    rig.io.v4().limit_queue(10);
    for number in 0..32 {
        rig.send(packet(4, number));
    }
    let _ = rig.turn();
    assert_eq!(sent(rig.io.v4()), (0..10).collect::<Vec<_>>());

    rig.io.v4().limit_queue(usize::MAX);
    let _ = rig.turn();
    let trains: Vec<_> = rig.io.v4().sent.iter().collect();
    assert_eq!(numbers(trains[1].datagrams())[0], 10);
    assert_eq!(sent(rig.io.v4()), (0..32).collect::<Vec<_>>());
}

/// V13, as far as the loop has a part in it: what has left isn't sent again, and the rest goes on.
#[test]
fn an_io_error_in_the_middle_of_a_train_repeats_nothing() {
    let mut rig = Rig::new();
    rig.core().train_len = 64;
    rig.io.v4().limit_accept(10);
    let eio = io::Error::from_raw_os_error(libc::EIO);
    rig.io.v4().fail_send(1, eio);
    for number in 0..30 {
        rig.send(packet(4, number));
    }
    let _ = rig.turn_anyhow();

    let expected: Vec<_> = (0..30).filter(|number| *number != 10).collect();
    assert_eq!(sent(rig.io.v4()), expected);
    assert_eq!(rig.event_loop.stats().dropped(DropReason::Other), 1);
}

/// V14.
#[test]
fn a_deadline_in_the_past_is_served_at_once_and_time_does_not_go_back() {
    let mut rig = Rig::new();
    rig.advance(Duration::from_secs(10));
    rig.core().deadline = Some(rig.now - Duration::from_secs(10));
    let _ = rig.turn();

    assert_eq!(rig.core().count(|seen| *seen == Seen::Timeout), 1);
    assert_eq!(rig.event_loop.core.latest, Some(rig.now));
    let delays = &rig.event_loop.stats().timer_delays;
    assert!(delays.quantile(1.0) >= Duration::from_secs(4));
}

/// V15.
#[test]
fn a_timer_that_has_fired_does_not_fire_again_by_itself() {
    let mut rig = Rig::new();
    rig.core().deadline = Some(rig.now);
    for _ in 0..10 {
        let wait = rig.turn();
        assert_eq!(rig.due_at(&wait), None);
        rig.advance(Duration::from_secs(1));
    }

    assert_eq!(rig.core().timeouts, 1);
}

/// V16: what counts is what the core says last; the loop remembers no deadline of its own.
#[test]
fn a_deadline_moves_freely_in_both_directions() {
    let mut rig = Rig::new();
    for millis in [2_000, 1_000, 5_000, 1_000] {
        rig.command(Command::Portal(millis));
        let due_at = rig.now + Duration::from_millis(millis.into());
        assert_eq!(rig.turn().until, Some(due_at));
    }

    rig.core().deadline = None;
    let wait = rig.turn();
    assert_eq!(rig.due_at(&wait), None);
}

/// P6.
#[test]
fn sources_that_are_always_ready_are_each_served_in_each_turn() {
    for tick in [Duration::ZERO, Duration::from_micros(30), budget::MAX_TIME] {
        let mut rig = Rig::new();
        rig.io.tick = tick;
        rig.core().is_stuck = true;
        rig.core().deadline = Some(rig.now);
        for _ in 0..50 {
            for number in 0..300 {
                rig.io.v4().inbox.push_back(arrival(Family::V4, number));
                rig.io.v6().inbox.push_back(arrival(Family::V6, number));
                rig.send(packet(4, number));
                rig.command(Command::Portal(SAY));
            }
            rig.core().seen.clear();
            let _ = rig.turn();

            let core = rig.core();
            let of = |version| move |seen: &Seen| matches!(seen, Seen::Datagram(bytes) if family_of(bytes) == version);
            assert_ne!(core.count(of(4)), 0);
            assert_ne!(core.count(of(6)), 0);
            assert_ne!(core.count(|seen| matches!(seen, Seen::Packet(_))), 0);
            assert_ne!(core.count(|seen| *seen == Seen::Message(SAY)), 0);
            assert_eq!(core.count(|seen| *seen == Seen::Timeout), 1);
        }
    }
}

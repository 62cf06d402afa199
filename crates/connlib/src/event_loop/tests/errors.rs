//! System calls that fail.

use std::io;

use super::super::errors::{Degraded, Error, Fatal};

use super::*;

#[test]
fn a_refused_datagram_costs_itself_alone() {
    for errno in [
        libc::EMSGSIZE,
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EPERM,
        libc::EINVAL,
        libc::EIO,
    ] {
        let mut rig = Rig::new();
        rig.io.v4().limit_accept(1);
        for number in 0..5 {
            rig.send(packet(4, number));
        }
        rig.io
            .v4()
            .fail_send(2, io::Error::from_raw_os_error(errno));

        let mut wait = rig.turn_with_errors();

        let errors: Vec<_> = wait.errors.drain().collect();
        assert!(matches!(errors[..], [Error::PerPacket(_)]), "{errors:?}");
        assert_eq!(sent(rig.io.v4()), [0, 1, 3, 4]);
        let dropped = DropReason::ALL.map(|reason| rig.event_loop.stats().dropped(reason));
        assert_eq!(dropped.iter().sum::<u64>(), 1);
    }
}

#[test]
fn a_failed_receive_costs_nothing() {
    let mut rig = Rig::new();
    for number in 0..40 {
        rig.io.v4().inbox.push_back(arrival(Family::V4, number));
        rig.io.v6().inbox.push_back(arrival(Family::V6, number));
    }
    rig.io
        .v6()
        .fail_recv(1, io::ErrorKind::ConnectionRefused.into());

    let mut wait = rig.turn_with_errors();

    assert_eq!(wait.errors.drain().count(), 1);
    assert_eq!(
        rig.core().count(|seen| matches!(seen, Seen::Datagram(_))),
        80
    );
}

#[test]
fn a_failed_read_or_write_of_the_tun_keeps_the_rest() {
    let mut rig = Rig::new();
    for number in 0..40 {
        rig.send(packet(4, number));
        rig.io.v4().inbox.push_back(arrival(Family::V4, number));
    }
    rig.io.tun().fail_read(3, io::ErrorKind::Other.into());
    rig.io
        .tun()
        .fail_write(5, io::ErrorKind::InvalidInput.into());

    let mut wait = rig.turn_with_errors();

    assert_eq!(wait.errors.drain().count(), 2);
    assert_eq!(sent(rig.io.v4()), (0..40).collect::<Vec<_>>());
    let expected: Vec<_> = (0..40).filter(|number| *number != 5).collect();
    assert_eq!(written(&rig.io.tun.device), expected);
    assert_eq!(rig.event_loop.stats().dropped(DropReason::TunRefused), 1);
}

#[test]
fn a_tun_that_is_gone_is_fatal_whatever_else_happened() {
    let mut rig = Rig::new();
    rig.send(packet(4, 1));
    rig.io
        .tun()
        .fail_read(1, io::Error::from_raw_os_error(libc::EBADFD));
    rig.io
        .v4()
        .fail_send(0, io::ErrorKind::NetworkUnreachable.into());

    let mut wait = rig.turn_with_errors();

    let errors: Vec<_> = wait.errors.drain().collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    let is_fatal = |error: &Error| matches!(error, Error::Fatal(Fatal::TunGone { .. }));
    assert!(errors.iter().any(is_fatal));
}

#[test]
fn a_lost_socket_is_told_once_and_its_trains_wait_for_the_next_one() {
    let mut rig = Rig::new();
    rig.io.v4().limit_accept(1);
    for number in 0..3 {
        rig.send(packet(4, number));
    }
    rig.io
        .v4()
        .fail_send(1, io::Error::from_raw_os_error(libc::EBADF));

    let mut wait = rig.turn_with_errors();
    let errors: Vec<_> = wait.errors.drain().collect();
    assert!(
        matches!(errors[..], [Error::Degraded(Degraded::SocketLost { .. })]),
        "{errors:?}"
    );
    assert_eq!(sent(rig.io.v4()), [0]);

    rig.io.v4 = Some(Watched::new(FakeUdp::new("192.0.2.1:10".parse().unwrap())));
    let _ = rig.turn();
    assert_eq!(sent(rig.io.v4()), [1, 2]);
}

#[test]
fn no_buffers_is_tried_again_by_a_deadline_and_not_for_ever() {
    let no_buffers = || io::Error::from_raw_os_error(libc::ENOBUFS);
    let mut rig = Rig::new();
    rig.send(packet(4, 1));
    rig.io.v4().fail_send(0, no_buffers());

    let wait = rig.turn();
    assert_eq!(wait.until, Some(rig.now + Duration::from_millis(1)));
    assert_eq!(rig.io.v4().queued(), 0);
    rig.now = wait.until.unwrap();
    let wait = rig.turn();
    assert_eq!(sent(rig.io.v4()), [1]);
    assert_eq!(rig.due_at(&wait), None);

    rig.send(packet(4, 2));
    rig.send(packet(4, 3));
    for sends in 0..24 {
        rig.io.v4().fail_send(sends, no_buffers());
    }
    for _ in 0..24 {
        let _ = rig.turn_anyhow();
        rig.advance(Duration::from_millis(1));
    }
    assert_eq!(sent(rig.io.v4()), [1, 3]);
    assert_eq!(rig.event_loop.stats().dropped(DropReason::NoBuffers), 1);
}

#[test]
fn a_device_that_only_fails_does_not_keep_the_loop_busy() {
    let mut rig = Rig::new();
    for calls in 0..1_000 {
        rig.io.v4().fail_recv(calls, io::ErrorKind::Other.into());
        rig.io.tun().fail_read(calls, io::ErrorKind::Other.into());
    }

    let mut wait = rig.turn_with_errors();

    assert!(wait.errors.drain().count() < 50);
    let until = wait.until.unwrap();
    assert!(until > rig.now, "it is asked again, later");
}

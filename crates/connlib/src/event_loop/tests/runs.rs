//! Runs of packets for the TUN device: joined where it takes that, whole in any case.

use std::io;

use connlib_os::fake::FakeTrain;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::super_packet::SuperPacket;

use super::*;

const PAYLOAD: usize = 100;

#[test]
fn packets_of_a_flow_are_written_in_one_run() {
    let mut rig = Rig::new();
    rig.io.v4().inbox.push_back(train(0..10));
    let _ = rig.turn();

    assert_eq!(rig.io.tun().outbox.len(), 1);
    assert_eq!(cut(&rig), (0..10).collect::<Vec<_>>());
    assert_eq!(rig.event_loop.stats().packets_written, 10);
}

#[test]
fn a_device_that_refuses_runs_gets_their_packets_one_by_one() {
    let mut rig = Rig::new();
    rig.io.tun().refuse_runs();
    for first in [0, 10] {
        rig.io.v4().inbox.push_back(train(first..first + 10));
    }
    let _ = rig.turn();

    assert_eq!(rig.io.tun().outbox.len(), 20);
    assert_eq!(cut(&rig), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_run_that_waited_and_is_refused_then_is_taken_apart() {
    for room in [0, 1, 3] {
        let mut rig = Rig::new();
        rig.io.tun().limit_outbox(0);
        rig.io.v4().inbox.push_back(train(0..10));
        let _ = rig.turn();
        rig.io.tun().refuse_runs();
        rig.io.v4().inbox.push_back(train(10..15));

        rig.io.tun().limit_outbox(room);
        let _ = rig.turn();
        rig.io.tun().limit_outbox(usize::MAX);
        let _ = rig.turn();

        assert_eq!(cut(&rig), (0..15).collect::<Vec<_>>(), "room for {room}");
        assert_eq!(rig.event_loop.stats().dropped_total(), 0);
        assert!(rig.event_loop.tun.is_empty());
    }
}

#[test]
fn a_device_that_takes_no_runs_is_never_asked() {
    let mut rig = Rig::new();
    rig.io.tun().set_joins(connlib_os::tun::Joins::default());
    rig.io.v4().inbox.push_back(train(0..10));
    let _ = rig.turn();

    assert_eq!(rig.io.tun().outbox.len(), 10);
    assert_eq!(cut(&rig), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_refused_run_is_counted_in_packets() {
    let mut rig = Rig::new();
    rig.io.tun().fail_write(0, io::ErrorKind::Other.into());
    rig.io.v4().inbox.push_back(train(0..10));
    let _ = rig.turn_anyhow();

    assert_eq!(rig.event_loop.stats().dropped(DropReason::TunRefused), 10);
}

#[test]
fn runs_wait_behind_what_waits_already_however_full_and_blocked_the_device_is() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut rig = Rig::new();
        let mut next = 0;
        for _ in 0..30 {
            for _ in 0..random.below(4) {
                let numbers = next..next + 1 + random.below(12) as u16;
                next = numbers.end;
                rig.io.v4().inbox.push_back(train(numbers));
            }
            let written = rig.io.tun().outbox.len();
            rig.io.tun().limit_outbox(written + random.below(4));
            match random.below(8) {
                0 => rig.io.tun().storm_write(random.below(3) as u64),
                1 => rig
                    .io
                    .tun()
                    .fail_write(1, io::ErrorKind::Interrupted.into()),
                2 if random.one_in(10) => rig.io.tun().refuse_runs(),
                _ => {}
            }
            let _ = rig.turn();
        }
        rig.io.tun().limit_outbox(usize::MAX);
        rig.io.tun().storm_write(0);
        let _ = rig.turn();

        assert_eq!(cut(&rig), (0..next).collect::<Vec<_>>(), "seed {seed}");
    }
}

/// Packets of one flow; the payload tells the number.
fn train(numbers: std::ops::Range<u16>) -> FakeTrain {
    udp_train(1, numbers, PAYLOAD)
}

/// The numbers of all packets that the device was given, as its host will see them.
fn cut(rig: &Rig) -> Vec<u16> {
    let mut numbers = Vec::new();
    for (header, bytes) in &rig.io.tun.device.outbox {
        let mut packet = SuperPacket::parse(*header, bytes.clone()).unwrap();
        assert_eq!(packet.segments() > 1, *header != VirtioHeader::default());
        let mut segments = packet.split();
        while let Some(segment) = segments.next_segment() {
            assert_eq!(segment.len(), 28 + PAYLOAD);
            numbers.push(u16::from_be_bytes([segment[28], segment[29]]));
        }
    }

    numbers
}

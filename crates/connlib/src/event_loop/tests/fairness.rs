//! Who is served, when, and how much; when to come back.

use connlib_tunnel::PortalState;

use super::super::budget::{MAX_PACKETS, MAX_TIME};
use super::super::{Command, OVERDUE_PAUSE, Output};
use super::*;

#[test]
fn every_ready_source_is_served_in_the_same_turn() {
    let mut rig = Rig::new();
    rig.core().deadline = Some(rig.now);
    rig.command(Command::PortalState(PortalState::Joined));
    rig.io.v4().inbox.push_back(arrival(Family::V4, 1));
    rig.io.v6().inbox.push_back(arrival(Family::V6, 2));
    rig.send(packet(4, 3));

    let wait = rig.turn();

    assert!(rig.core().seen.contains(&Seen::Timeout));
    assert!(rig.core().seen.contains(&Seen::Portal(PortalState::Joined)));
    assert_eq!(written(&rig.io.tun.device), [1, 2]);
    assert_eq!(sent(rig.io.v4()), [3]);
    assert_eq!(rig.due_at(&wait), None);
}

#[test]
fn a_saturated_socket_starves_nobody() {
    let mut rig = Rig::new();
    for number in 0..10_000 {
        rig.io.v4().inbox.push_back(arrival(Family::V4, number));
    }
    rig.core().deadline = Some(rig.now + Duration::from_micros(1));
    let _ = rig.turn();
    rig.advance(Duration::from_micros(1));
    rig.command(Command::Portal(SAY));
    rig.send(packet(6, 7));
    rig.io.v6().inbox.push_back(arrival(Family::V6, 8));

    let wait = rig.turn();

    assert!(rig.core().seen.contains(&Seen::Timeout));
    assert!(rig.core().seen.contains(&Seen::Message(SAY)));
    assert!(rig.core().seen.contains(&Seen::Packet(packet(6, 7))));
    assert!(rig.core().seen.contains(&Seen::Datagram(packet(6, 8))));
    assert_eq!(wait.until, Some(rig.now), "more waits");
}

#[test]
fn a_turn_handles_no_more_than_the_budget_of_each_source() {
    let mut rig = Rig::new();
    for number in 0..2_000 {
        rig.io.v4().inbox.push_back(arrival(Family::V4, number));
        rig.send(packet(4, number));
    }

    let _ = rig.turn();

    let datagrams = rig.core().count(|seen| matches!(seen, Seen::Datagram(_)));
    let packets = rig.core().count(|seen| matches!(seen, Seen::Packet(_)));
    assert!((MAX_PACKETS / 2..=MAX_PACKETS).contains(&datagrams));
    assert_eq!(packets, MAX_PACKETS);
}

#[test]
fn what_a_receive_brought_beyond_the_budget_comes_with_the_next_turns() {
    let mut rig = Rig::new();
    for train in 0..16 {
        let numbers = train * 64..(train + 1) * 64;
        rig.io.v4().inbox.push_back(train_of(Family::V4, numbers));
    }

    for _ in 0..3 {
        let wait = rig.turn();
        assert_eq!(wait.until, Some(rig.now), "some of the batch is left");
    }
    rig.settle();

    assert_eq!(written(&rig.io.tun.device), (0..1_024).collect::<Vec<_>>());
}

#[test]
fn a_slow_turn_still_serves_everybody_once() {
    let mut rig = Rig::new();
    rig.io.tick = MAX_TIME;
    for number in 0..100 {
        rig.io.v4().inbox.push_back(arrival(Family::V4, number));
        rig.io.v6().inbox.push_back(arrival(Family::V6, number));
        rig.send(packet(4, number));
        rig.command(Command::Portal(SAY));
    }

    let _ = rig.turn();

    let of = |family| move |seen: &Seen| matches!(seen, Seen::Datagram(bytes) if family_of(bytes) == family);
    let core = rig.core();
    assert!((1..100).contains(&core.count(of(4))));
    assert!((1..100).contains(&core.count(of(6))));
    assert!((1..100).contains(&core.count(|seen| matches!(seen, Seen::Packet(_)))));
    assert!((1..100).contains(&core.count(|seen| matches!(seen, Seen::Message(_)))));
}

#[test]
fn another_source_comes_first_each_turn() {
    let mut rig = Rig::new();
    let mut firsts = Vec::new();
    for turn in 0..5 {
        rig.core().seen.clear();
        rig.core().deadline = Some(rig.now);
        rig.command(Command::Portal(SAY));
        rig.io.v4().inbox.push_back(arrival(Family::V4, turn));
        rig.io.v6().inbox.push_back(arrival(Family::V6, turn));
        rig.send(packet(4, turn));
        let _ = rig.turn();
        firsts.push(rig.core().seen.first().cloned().unwrap());
    }

    for (index, first) in firsts.iter().enumerate() {
        assert!(!firsts[..index].contains(first), "{firsts:?}");
    }
}

#[test]
fn packets_of_the_tun_leave_before_the_next_datagram_is_opened() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        rig.core().seen.clear();
        rig.send(packet(4, 1));
        rig.io.v4().inbox.push_back(arrival(Family::V4, 2));
        let _ = rig.turn();

        let seen = &rig.core().seen;
        let at = |wanted: &dyn Fn(&Seen) -> bool| seen.iter().position(wanted).unwrap();
        let packet_at = at(&|seen| matches!(seen, Seen::Packet(_)));
        let transmit_at = at(&|seen| matches!(seen, Seen::Transmit));
        assert_eq!(transmit_at, packet_at + 1, "{seen:?}");
    }
}

#[test]
fn packets_that_come_fast_and_one_by_one_are_let_gather() {
    let mut rig = Rig::new();
    let mut pauses = |every: Duration| {
        let turns = (0..1_000).map(|number| {
            rig.send(packet(4, number));
            let wait = rig.turn();
            rig.advance(every);
            wait.pause.is_some()
        });
        turns.filter(|pauses| *pauses).count()
    };

    assert_eq!(pauses(Duration::from_micros(100)), 0);
    assert!(pauses(Duration::from_micros(10)) > 800);
}

#[test]
fn the_end_of_a_load_is_told_once() {
    let mut rig = Rig::new();
    for number in 0..2_000 {
        rig.send(packet(4, number));
        assert!(!rig.turn().load_is_over);
    }

    let told = (0..6).map(|_| {
        rig.advance(Duration::from_secs(10));
        rig.turn().load_is_over
    });
    assert_eq!(told.filter(|is_over| *is_over).count(), 1);
}

#[test]
fn a_deadline_that_a_command_brought_about_is_told_without_any_io() {
    let mut rig = Rig::new();
    let wait = rig.turn();
    assert_eq!(rig.due_at(&wait), None);

    rig.command(Command::Portal(25));
    let due_at = rig.now + Duration::from_millis(25);
    let wait = rig.turn();
    assert_eq!(wait.until, Some(due_at));

    rig.now = due_at;
    let wait = rig.turn();
    assert_eq!(rig.due_at(&wait), None, "it fires once");
    assert_eq!(rig.core().count(|seen| *seen == Seen::Timeout), 1);
}

#[test]
fn a_core_that_is_always_due_gets_pauses() {
    let mut rig = Rig::new();
    rig.core().deadline = Some(rig.now);
    rig.core().is_stuck = true;

    let waits: Vec<_> = (0..8).map(|_| rig.turn().until.unwrap()).collect();

    assert_eq!(waits[0], rig.now);
    assert_eq!(waits[7], rig.now + OVERDUE_PAUSE);
}

#[test]
fn outputs_wait_for_room_and_none_is_lost() {
    let mut rig = Rig::new();
    rig.io.room = 1;
    for message in [SAY, TELL, SAY] {
        rig.command(Command::Portal(message));
    }
    rig.command(Command::Status);
    let wait = rig.turn();
    assert_eq!(rig.io.outputs.len(), 1);
    assert_eq!(rig.due_at(&wait), None, "who makes room says so");

    rig.io.room = 10;
    let _ = rig.turn();

    let outputs: Vec<_> = rig
        .io
        .outputs
        .iter()
        .map(|output| format!("{output:?}"))
        .collect();
    assert_eq!(outputs, ["Event", "Message", "Message", "Status"]);
    assert!(matches!(rig.io.outputs[3], Output::Status(3, _)));
}

#[test]
fn packets_made_here_go_to_the_tun() {
    let mut rig = Rig::new();
    rig.command(Command::Portal(ANSWER));
    let _ = rig.turn();

    assert_eq!(rig.io.tun().outbox[0].1, [0x45, 0xAA]);
}

#[test]
fn goodbyes_are_flushed() {
    let mut rig = Rig::new();
    rig.io.v4().limit_queue(0);
    rig.command(Command::ShutDown);
    let _ = rig.turn();
    assert!(!rig.event_loop.is_flushed());

    rig.io.v4().limit_queue(1);
    let _ = rig.turn();
    assert!(rig.event_loop.is_flushed());
    assert_eq!(rig.io.v4().sent[0].payload, b"goodbye");
}

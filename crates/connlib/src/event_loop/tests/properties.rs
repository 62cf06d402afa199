//! Whatever the devices do: nothing is reordered, nothing is lost without being counted.

use std::io;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What a world does before a turn.
#[derive(Clone, Debug)]
struct Step {
    arrivals_v4: u16,
    arrivals_v6: u16,
    packets_v4: u16,
    packets_v6: u16,
    room_v4: usize,
    room_v6: usize,
    room_tun: usize,
    faults: Vec<Fault>,
}

#[derive(Clone, Debug)]
struct Fault {
    call: Call,
    after: u64,
    kind: io::ErrorKind,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Send(Family),
    Receive(Family),
    Read,
    Write,
}

fn step() -> impl Strategy<Value = Step> {
    let load = prop_oneof![Just(0u16), 1..20u16, 300..400u16];
    let room = prop_oneof![Just(0usize), 1..10usize, Just(usize::MAX)];
    let loads = (load.clone(), load.clone(), load.clone(), load);
    let rooms = (room.clone(), room.clone(), room);

    (loads, rooms, vec(fault(), 0..4)).prop_map(|(loads, rooms, faults)| Step {
        arrivals_v4: loads.0,
        arrivals_v6: loads.1,
        packets_v4: loads.2,
        packets_v6: loads.3,
        room_v4: rooms.0,
        room_v6: rooms.1,
        room_tun: rooms.2,
        faults,
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let call = prop_oneof![
        family.clone().prop_map(Call::Send),
        family.prop_map(Call::Receive),
        Just(Call::Read),
        Just(Call::Write),
    ];
    let kind = prop_oneof![
        Just(io::ErrorKind::NetworkUnreachable),
        Just(io::ErrorKind::PermissionDenied),
        Just(io::ErrorKind::WouldBlock),
        Just(io::ErrorKind::Interrupted),
        Just(io::ErrorKind::Other),
    ];

    (call, 0..20u64, kind).prop_map(|(call, after, kind)| Fault { call, after, kind })
}

/// Counts up in each direction, so that order and loss can be seen.
#[derive(Default)]
struct Counters {
    arrivals: [u16; 2],
    packets: [u16; 2],
}

impl Counters {
    fn apply(&mut self, step: &Step, rig: &mut Rig) {
        for (index, family) in [Family::V4, Family::V6].into_iter().enumerate() {
            let (arrivals, packets, room) = match family {
                Family::V4 => (step.arrivals_v4, step.packets_v4, step.room_v4),
                Family::V6 => (step.arrivals_v6, step.packets_v6, step.room_v6),
            };
            for _ in 0..arrivals {
                let arrival = arrival(family, self.arrivals[index]);
                rig.io.socket(family).inbox.push_back(arrival);
                self.arrivals[index] += 1;
            }
            for _ in 0..packets {
                let version = [4, 6][index];
                rig.send(packet(version, self.packets[index]));
                self.packets[index] += 1;
            }
            let queued = rig.io.socket(family).queued();
            rig.io
                .socket(family)
                .limit_queue(queued.saturating_add(room));
        }
        let queued = rig.io.tun().outbox.len();
        rig.io
            .tun()
            .limit_outbox(queued.saturating_add(step.room_tun));
        for fault in &step.faults {
            let error = fault.kind.into();
            match fault.call {
                Call::Send(family) => rig.io.socket(family).fail_send(fault.after, error),
                Call::Receive(family) => rig.io.socket(family).fail_recv(fault.after, error),
                Call::Read => rig.io.tun().fail_read(fault.after, error),
                Call::Write => rig.io.tun().fail_write(fault.after, error),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_reordered_repeated_or_lost_uncounted(steps in vec(step(), 1..12), train_len in 1..20usize) {
        let mut rig = Rig::new();
        rig.core().train_len = train_len;
        let mut counters = Counters::default();
        for step in &steps {
            counters.apply(step, &mut rig);
            let _ = rig.turn_anyhow();
            rig.advance(Duration::from_millis(1));
        }

        // In the end everything works again.
        for family in [Family::V4, Family::V6] {
            rig.io.socket(family).limit_queue(usize::MAX);
        }
        rig.io.tun().limit_outbox(usize::MAX);
        for _ in 0..200 {
            let _ = rig.turn_anyhow();
            rig.advance(Duration::from_millis(10));
        }

        let stats = rig.event_loop.stats().clone();
        let dropped: u64 = DropReason::ALL.iter().map(|reason| stats.dropped(*reason)).sum();
        let mut delivered = 0;
        for family in [Family::V4, Family::V6] {
            let sent = sent(rig.io.socket(family));
            prop_assert!(sent.is_sorted_by(|a, b| a < b), "{sent:?}");
            delivered += sent.len();
        }
        for version in [4, 6] {
            let outbox = &rig.io.tun().outbox;
            let of_version = outbox.iter().map(|(_, packet)| packet.as_slice()).filter(|packet| family_of(packet) == version);
            let written = numbers(of_version);
            prop_assert!(written.is_sorted_by(|a, b| a < b), "{written:?}");
            delivered += written.len();
        }
        let all: u16 = counters.arrivals.iter().chain(&counters.packets).sum();
        prop_assert_eq!(delivered as u64 + dropped, u64::from(all));
    }
}

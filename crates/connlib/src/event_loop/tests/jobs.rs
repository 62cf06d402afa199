//! Encryption by others, done in any order and at any time.

use std::collections::BTreeMap;

use super::super::Command;
use super::*;

/// What each flow got through, in order: by direction, family and flow.
type Outcome = BTreeMap<(&'static str, u8, u8), Vec<u16>>;

#[test]
fn jobs_done_in_any_order_at_any_time_change_nothing() {
    for seed in 0..200 {
        let inline = run(seed, TestWorkers::Inline(Inline::default()));
        let shuffled = run(seed, TestWorkers::Shuffled(Shuffled::new(seed)));

        assert_eq!(inline, shuffled, "seed {seed}");
    }
}

#[test]
fn the_loop_goes_on_while_jobs_are_under_way() {
    let mut rig = Rig::new();
    rig.io.workers = TestWorkers::Shuffled(Shuffled::new(1));
    for number in 0..100 {
        rig.send(packet(4, number));
        rig.io.v4().inbox.push_back(arrival(Family::V4, number));
    }
    rig.core().deadline = Some(rig.now);
    rig.command(Command::Portal(SAY));

    let _ = rig.turn();

    assert!(rig.core().seen.contains(&Seen::Timeout));
    assert!(rig.core().seen.contains(&Seen::Message(SAY)));
    assert!(rig.core().most_jobs > 1, "several at once");
}

fn run(seed: u64, workers: TestWorkers<TestJob>) -> Outcome {
    let mut random = Random(seed);
    let mut rig = Rig::new();
    rig.io.workers = workers;
    rig.core().train_len = 1 + random.below(8);
    for number in 0..200 {
        let family = [4, 6][random.below(2)];
        let flow = random.below(3) as u8;
        rig.send(flow_packet(family, 0, flow, number));
        let family = [Family::V4, Family::V6][random.below(2)];
        rig.io
            .socket(family)
            .inbox
            .push_back(arrival(family, number));
        if random.one_in(20) {
            let _ = rig.turn();
        }
    }
    rig.settle();
    while rig.core().jobs_under_way() > 0 {
        let _ = rig.turn();
    }
    rig.settle();

    outcome(&rig)
}

fn outcome(rig: &Rig) -> Outcome {
    let mut outcome = Outcome::new();
    let mut add = |direction, packet: &[u8]| {
        let flow = (direction, family_of(packet), flow_of(packet));
        outcome.entry(flow).or_default().push(number_of(packet));
    };
    for socket in [&rig.io.v4, &rig.io.v6].into_iter().flatten() {
        let trains = socket.device.sent.iter();
        trains
            .flat_map(|train| train.datagrams())
            .for_each(|datagram| add("sent", datagram));
    }
    let written = rig.io.tun.device.outbox.iter();
    written.for_each(|(_, packet)| add("written", packet));

    outcome
}

//! Queues that stand: their senders are told, and nothing waits for long.

use super::*;

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn a_standing_queue_marks_packets_whose_senders_understand_it() {
    for ecn in [Ecn::Ect0, Ecn::Ect1] {
        let mut rig = Rig::new();
        let taken = stand(&mut rig, |rig| rig.push_marked(1, 1, 1_280, ecn));

        let marked = taken.iter().filter(|taken| taken.ecn == Ecn::Ce).count();
        assert!(marked >= 5, "{marked}");
        assert_eq!(rig.stats.marked, marked as u64);
        assert_eq!(rig.stats.dropped_total(), 0);
    }
}

#[test]
fn a_standing_queue_drops_what_can_not_be_marked() {
    for ecn in [Ecn::NotEct, Ecn::Ce] {
        let mut rig = Rig::new();
        let taken = stand(&mut rig, |rig| rig.push_marked(1, 1, 1_280, ecn));

        assert!(rig.stats.dropped(DropReason::QueueStands) >= 5);
        assert_eq!(rig.stats.marked, 0);
        assert!(
            taken
                .iter()
                .all(|taken| taken.ecn == ecn && taken.skip == 0)
        );
    }
}

#[test]
fn a_standing_queue_of_super_packets_loses_single_segments() {
    let mut rig = Rig::new();
    let taken = stand(&mut rig, |rig| {
        rig.push_run(1, 1, 12_028, 1_200, Ecn::NotEct)
    });

    let skipped: usize = taken.iter().map(|taken| taken.skip).sum();
    assert!(skipped >= 5, "{skipped}");
    assert!(
        taken
            .iter()
            .all(|taken| taken.skip <= 1 && taken.segments == 10)
    );
    assert_eq!(rig.stats.dropped_total(), skipped as u64);
    assert!(
        taken
            .windows(2)
            .all(|pair| pair[1].number == pair[0].number + 1),
        "none is lost as a whole"
    );
}

#[test]
fn a_queue_that_moves_loses_and_marks_nothing() {
    let mut rig = Rig::new();
    for _ in 0..1_000 {
        for _ in 0..4 {
            rig.push(1, 1, 1_280);
            rig.push_marked(1, 2, 1_280, Ecn::Ect0);
        }
        rig.now += 4 * MILLI;
        assert_eq!(rig.drain().len(), 8);
    }

    assert_eq!(rig.stats.dropped_total() + rig.stats.marked, 0);
}

#[test]
fn one_standing_flow_costs_its_neighbours_nothing() {
    let mut rig = Rig::new();
    let taken = stand(&mut rig, |rig| {
        rig.push(1, 1, 1_280);
        if rig.next.is_multiple_of(10) {
            rig.push(1, 2, 100);
            rig.push(2, 3, 100);
        }
    });

    rig.drain();
    assert_eq!(taken.last().map(|taken| taken.lane), Some(1));
    assert_eq!(
        rig.waiting[&(1, 2)] + rig.waiting[&(2, 3)],
        0,
        "all of theirs came"
    );
    assert_ne!(rig.stats.dropped(DropReason::QueueStands), 0);
}

#[test]
fn nothing_leaves_after_twenty_milliseconds() {
    let mut rig = Rig::new();
    for age in (0..60).rev() {
        rig.push(1, age, 100);
        rig.push(2, 1, 100);
        rig.now += MILLI;
    }
    // The youngest is a millisecond old now.
    let left = rig.drain();

    assert_eq!(left.iter().filter(|taken| taken.lane == 1).count(), 20);
    assert!(left.iter().all(|taken| taken.lane == 2 || taken.flow < 20));
    assert_eq!(left.iter().filter(|taken| taken.lane == 2).count(), 20);
    assert_eq!(rig.stats.dropped(DropReason::WaitedTooLong), 80);
}

/// Half a second in which each packet waits for ten milliseconds; what was taken out.
fn stand(rig: &mut Rig, push: impl Fn(&mut Rig)) -> Vec<Taken> {
    let mut taken = Vec::new();
    for millis in 0..500 {
        push(rig);
        if millis < 10 {
            rig.now += MILLI;
            continue;
        }
        let wanted = rig.queue.packets - 9;
        for _ in 0..wanted {
            taken.extend(rig.pop());
        }
        rig.now += MILLI;
    }

    taken
}

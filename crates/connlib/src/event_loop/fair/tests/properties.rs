//! Whatever is pushed and popped, whenever.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Push {
        lane: u8,
        flow: u32,
        len: usize,
        gso_size: u16,
        ecn: u8,
        times: usize,
    },
    Pop(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![40..100usize, 1_000..1_400usize, 20_000..60_000usize];
    let gso_size = prop_oneof![Just(0u16), 400..1_300u16];
    let push = (0..4u8, 0..4u32, len, gso_size, 0..4u8, 1..12usize).prop_map(
        |(lane, flow, len, gso_size, ecn, times)| Step::Push {
            lane,
            flow,
            len,
            gso_size,
            ecn,
            times,
        },
    );

    prop_oneof![
        3 => push,
        2 => (1..20usize).prop_map(Step::Pop),
        1 => (0..8_000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn flows_keep_their_order_and_every_segment_is_accounted_for(steps in vec(step(), 1..400)) {
        let mut rig = Rig::new();
        let mut pushed = 0;
        let mut taken = Vec::new();
        for step in steps {
            match step {
                Step::Push { lane, flow, len, gso_size, ecn, times } => {
                    for _ in 0..times {
                        rig.push_run(lane, flow, len, gso_size, Ecn::from_bits(ecn));
                    }
                    let segments = match gso_size {
                        0 => 1,
                        size => (len - 28).div_ceil(size.into()),
                    };
                    pushed += times * segments;
                }
                Step::Pop(times) => taken.extend((0..times).filter_map(|_| rig.pop())),
                Step::Wait(micros) => rig.now += Duration::from_micros(micros),
            }
            check_sums(&rig.queue)?;
        }
        taken.extend(rig.drain());

        let mut last = BTreeMap::new();
        for taken in &taken {
            if let Some(before) = last.insert((taken.lane, taken.flow), taken.number) {
                prop_assert!(before < taken.number, "{taken:?} after {before}");
            }
        }
        let left: usize = taken.iter().map(|taken| taken.segments - taken.skip).sum();
        prop_assert_eq!(pushed as u64, left as u64 + rig.stats.dropped_total());
        prop_assert_eq!((rig.queue.bytes, rig.queue.packets), (0, 0));
        prop_assert!(rig.queue.by_key.is_empty() && rig.queue.by_id.is_empty());
    }
}

fn check_sums(queue: &FairQueue<u8>) -> Result<(), TestCaseError> {
    let waiting = || queue.flows.iter().flat_map(|flow| &flow.packets);
    let bytes: usize = waiting().map(|waiting| waiting.packet.bytes().len()).sum();
    prop_assert_eq!(queue.bytes, bytes);
    prop_assert_eq!(queue.packets, waiting().count());
    prop_assert!(queue.bytes <= MAX_BYTES && queue.packets <= MAX_PACKETS);

    Ok(())
}

use proptest::prelude::*;

use super::*;

/// How a packet differs from the plain next one of its flow.
#[derive(Clone, Copy, Debug)]
enum Twist {
    None,
    Short,
    Flags(u8),
    Gap,
    Ack,
    Window,
    Ttl,
    Tos,
    Options,
    IpOptions,
    Fragmentable,
    Empty,
    NoChecksum,
    Damaged(usize),
}

fn twists() -> impl Strategy<Value = Twist> {
    prop_oneof![
        30 => Just(Twist::None),
        3 => Just(Twist::Short),
        2 => Just(Twist::Flags(PSH)),
        2 => any::<u8>().prop_map(Twist::Flags),
        1 => Just(Twist::Gap),
        1 => Just(Twist::Ack),
        1 => Just(Twist::Window),
        1 => Just(Twist::Ttl),
        1 => Just(Twist::Tos),
        1 => Just(Twist::Options),
        1 => Just(Twist::IpOptions),
        1 => Just(Twist::Fragmentable),
        1 => Just(Twist::Empty),
        1 => Just(Twist::NoChecksum),
        2 => (0_usize..100).prop_map(Twist::Damaged),
    ]
}

/// Makes packets of up to eight flows out of their twists.
fn script(steps: &[(u8, Twist)], size: usize) -> Vec<Vec<u8>> {
    let mut sequences = [0_u32; 8];
    let mut packets = Vec::new();
    for (id, (flow, twist)) in steps.iter().enumerate() {
        let version = VERSIONS[usize::from(flow & 1)];
        let sequence = &mut sequences[usize::from(*flow)];
        let payload = vec![id as u8; size];
        let mut sample = if flow & 2 == 0 {
            Sample::tcp(version, *sequence, 0, &payload)
        } else {
            Sample::udp(version, &payload)
        };
        sample.host = flow >> 2;
        sample.id = id as u16;
        match (twist, sample.tcp.as_mut()) {
            (Twist::Short, _) => sample.payload.truncate(size / 2),
            (Twist::Flags(flags), Some(tcp)) => tcp.flags ^= flags,
            (Twist::Gap, Some(tcp)) => tcp.sequence = tcp.sequence.wrapping_sub(1),
            (Twist::Ack, Some(tcp)) => tcp.ack += 1,
            (Twist::Window, Some(tcp)) => tcp.window += 1,
            (Twist::Options, Some(tcp)) => tcp.options = vec![1; 4],
            (Twist::Ttl, _) => sample.ttl -= 1,
            (Twist::Tos, _) => sample.tos = 0x12,
            (Twist::IpOptions, _) => sample.ip_options = vec![0; 8],
            (Twist::Fragmentable, _) => sample.dont_fragment = false,
            (Twist::Empty, _) => sample.payload.clear(),
            (_, _) => {}
        }
        *sequence = sequence.wrapping_add(sample.payload.len() as u32);
        let mut packet = sample.build();
        if let Twist::NoChecksum = twist {
            let at = sample.checksum_at();
            packet[at..at + 2].fill(0);
        }
        if let Twist::Damaged(at) = twist {
            let at = at % packet.len();
            packet[at] ^= 0x10;
        }
        packets.push(packet);
    }
    packets
}

proptest! {
    /// io.md P4, P5 and the order of each flow.
    #[test]
    fn a_receiver_cannot_tell(
        steps in proptest::collection::vec((0_u8..8, twists()), 0..200),
        size in 2_usize..1_200,
        flows_used in 1_u8..=8,
        tcp in proptest::bool::weighted(0.9),
        udp in proptest::bool::weighted(0.9),
    ) {
        let steps: Vec<_> = steps.into_iter().map(|(flow, twist)| (flow % flows_used, twist)).collect();
        let packets = script(&steps, size);
        let batch = Batch::of(&packets, Joins { tcp, udp });

        prop_assert_eq!(flows(&batch.received()), flows(&packets));
        let taken: Vec<Vec<u8>> = (0..batch.runs.len())
            .flat_map(|n| batch.runs.packets(n))
            .map(|range| batch.memory[range].to_vec())
            .collect();
        prop_assert_eq!(flows(&taken), flows(&packets), "one by one");
    }

    #[test]
    fn no_bytes_panic(
        memory in proptest::collection::vec(any::<u8>(), 0..300),
        ranges in proptest::collection::vec((0_usize..310, 0_usize..310), 0..20),
        first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
    ) {
        let mut memory = memory;
        let mut runs = Runs::new();
        for (start, end) in ranges {
            if let Some(byte) = memory.get_mut(start) {
                *byte = first;
            }
            runs.push(&memory, start..end, BOTH);
        }
        for n in 0..=runs.len() {
            runs.with_parts(n, &memory, |_, parts| parts.len());
            runs.packets(n).count();
        }
    }
}

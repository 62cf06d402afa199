mod properties;

use super::*;
use crate::samples::{SYN, Sample, URG};
use crate::super_packet::SuperPacket;

const VERSIONS: [Version; 2] = [Version::V4, Version::V6];
const BOTH: Joins = Joins {
    tcp: true,
    udp: true,
};

/// A batch as a session leaves it: packets in memory with room between them.
#[derive(Default)]
struct Batch {
    memory: Vec<u8>,
    runs: Runs,
}

impl Batch {
    fn of<'a>(packets: impl IntoIterator<Item = &'a Vec<u8>>, joins: Joins) -> Self {
        let mut batch = Self::default();
        for packet in packets {
            batch.memory.extend_from_slice(&[0xAA; 16]);
            let start = batch.memory.len();
            batch.memory.extend_from_slice(packet);
            batch
                .runs
                .push(&batch.memory, start..batch.memory.len(), joins);
        }
        batch
    }

    /// The number of packets in each run.
    fn counts(&self) -> Vec<usize> {
        (0..self.runs.len())
            .map(|n| self.runs.packets(n).count())
            .collect()
    }

    /// What is written for run `n`.
    fn written(&self, n: usize) -> (VirtioHeader, Vec<u8>) {
        self.runs
            .with_parts(n, &self.memory, |header, parts| {
                (
                    header,
                    parts.iter().flat_map(|part| part.to_vec()).collect(),
                )
            })
            .unwrap()
    }

    /// What a receiver gets from the device.
    fn received(&self) -> Vec<Vec<u8>> {
        let mut received = Vec::new();
        for n in 0..self.runs.len() {
            let (header, bytes) = self.written(n);
            if header == VirtioHeader::default() {
                received.push(bytes);
                continue;
            }
            let mut whole = SuperPacket::parse(header, bytes).unwrap();
            assert_eq!(whole.segments(), self.runs.packets(n).count());
            let mut split = whole.split();
            while let Some(segment) = split.next_segment() {
                received.push(segment.to_vec());
            }
        }
        received
    }
}

/// The number of packets in each run that `samples` make.
fn counts(samples: &[Sample]) -> Vec<usize> {
    let packets: Vec<Vec<u8>> = samples.iter().map(Sample::build).collect();
    let batch = Batch::of(&packets, BOTH);
    assert_eq!(
        seen(&batch.received()),
        seen(&packets),
        "of one flow: all in order"
    );
    batch.counts()
}

/// A packet without what may differ: the identification, and so the sum of that header, the flow label, and which of the two
/// zeros of ones' complement a right TCP checksum is.
fn seen_one(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let Ok(view) = Packet::parse_any_size(packet.as_slice()) else {
        return packet;
    };
    if view.checksums_match() {
        let is_tcp = view.transport() == Transport::Tcp;
        let at = view.bytes().len() - view.transport_bytes().len() + 16;
        let version = view.version();
        if is_tcp && packet[at..at + 2] == [0, 0] {
            packet[at..at + 2].fill(0xFF);
        }
        match version {
            Version::V4 => {
                packet[4..6].fill(0);
                packet[10..12].fill(0);
            }
            Version::V6 => {
                packet[1] &= 0xF0;
                packet[2..4].fill(0);
            }
        }
    }
    packet
}

fn seen(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    packets.iter().map(|packet| seen_one(packet)).collect()
}

/// TCP segments of `lens` bytes that follow each other.
fn stream(version: Version, lens: &[usize]) -> Vec<Sample> {
    let mut sequence = u32::MAX - 150;
    lens.iter()
        .enumerate()
        .map(|(n, len)| {
            let payload = vec![n as u8; *len];
            let sample = Sample::tcp(version, sequence, 0, &payload).with(|s| s.id = n as u16 * 9);
            sequence = sequence.wrapping_add(*len as u32);
            sample
        })
        .collect()
}

fn changed(lens: &[usize], n: usize, change: impl Fn(&mut Sample)) -> Vec<usize> {
    let [v4, v6] = VERSIONS.map(|version| {
        let mut samples = stream(version, lens);
        change(&mut samples[n]);
        counts(&samples)
    });
    assert_eq!(v4, v6);
    v4
}

#[test]
fn the_vectors_of_the_io_spec() {
    // io.md V19
    let three = [100, 100, 100];
    let flags = |flag: u8| move |s: &mut Sample| s.tcp.as_mut().unwrap().flags |= flag;

    assert_eq!(changed(&three, 0, |_| ()), [3], "contiguous");
    assert_eq!(changed(&three, 1, flags(PSH)), [2, 1], "PSH on the second");
    assert_eq!(changed(&[100, 60, 100], 0, |_| ()), [2, 1], "short second");
    let gap = |s: &mut Sample| s.tcp.as_mut().unwrap().sequence += 1;
    assert_eq!(changed(&three, 1, gap), [1, 1, 1], "gaps on both sides");
    assert_eq!(changed(&three, 2, gap), [2, 1], "a gap");
    let ack = |s: &mut Sample| s.tcp.as_mut().unwrap().ack += 1;
    assert_eq!(changed(&three, 1, ack), [1, 1, 1], "differing ACK");
    assert_eq!(
        changed(&three, 1, |s| s.ttl = 9),
        [1, 1, 1],
        "differing TTL"
    );
    assert_eq!(changed(&three, 1, flags(SYN)), [1, 1, 1], "SYN in between");
}

#[test]
fn what_cutting_does_not_restore_is_not_joined() {
    let three = [100, 100, 100];
    let alone = [1, 1, 1];
    let tcp = |change: fn(&mut crate::samples::Tcp)| {
        move |s: &mut Sample| change(s.tcp.as_mut().unwrap())
    };

    assert_eq!(changed(&three, 1, |s| s.tos = 1), alone, "mark");
    assert_eq!(changed(&three, 1, |s| s.tos = 0x40), alone, "class");
    assert_eq!(changed(&three, 1, tcp(|t| t.flags |= URG)), alone);
    assert_eq!(changed(&three, 1, tcp(|t| t.flags |= 0x40)), alone, "ECE");
    assert_eq!(changed(&three, 1, tcp(|t| t.flags |= 0x80)), alone, "CWR");
    assert_eq!(changed(&three, 1, tcp(|t| t.flags |= 1)), alone, "FIN");
    assert_eq!(changed(&three, 1, tcp(|t| t.flags |= 4)), alone, "RST");
    assert_eq!(changed(&three, 1, tcp(|t| t.flags = 0)), alone, "no ACK");
    assert_eq!(changed(&three, 1, tcp(|t| t.window += 1)), alone);
    let options = tcp(|t| t.options = vec![1; 4]);
    assert_eq!(changed(&three, 1, options), alone, "TCP options");
    let ip_options = |s: &mut Sample| s.ip_options = vec![0; 8];
    assert_eq!(changed(&three, 1, ip_options), alone, "IP options");
    assert_eq!(changed(&three, 1, |s| s.payload.clear()), alone, "empty");

    let mut fragmentable = stream(Version::V4, &three);
    fragmentable[1].dont_fragment = false;
    assert_eq!(counts(&fragmentable), alone);
    // The identification and the flow label may differ.
    assert_eq!(changed(&three, 1, |s| s.id = 3_000), [3]);
    assert_eq!(changed(&three, 1, |s| s.flow_label = 7), [3]);
}

#[test]
fn equal_options_are_joined_and_differing_ones_are_not() {
    let mut samples = stream(Version::V6, &[50, 50, 50]);
    for sample in &mut samples {
        sample.tcp.as_mut().unwrap().options = vec![1; 12];
    }
    assert_eq!(counts(&samples), [3]);

    samples[1].tcp.as_mut().unwrap().options[11] = 0;
    assert_eq!(counts(&samples), [1, 1, 1]);
}

#[test]
fn a_run_is_described_as_the_device_wants_it() {
    for version in VERSIONS {
        let mut samples = stream(version, &[1_000, 1_000, 400]);
        for sample in &mut samples {
            sample.tcp.as_mut().unwrap().options = vec![1; 12];
        }
        samples[2].tcp.as_mut().unwrap().flags |= PSH;
        let packets: Vec<_> = samples.iter().map(Sample::build).collect();
        let (header, bytes) = Batch::of(&packets, BOTH).written(0);

        let mut whole = samples[0].clone().with_tcp(|tcp| tcp.flags |= PSH);
        whole.payload = samples.iter().flat_map(|s| s.payload.clone()).collect();
        let (mut expected, expected_bytes) = whole.to_be_cut(1_000);
        expected.hdr_len = whole.transport_at() as u16 + 32;
        assert_eq!((header, bytes), (expected, expected_bytes));

        let packets = [b"ab", b"cd", b"ef"].map(|payload| Sample::udp(version, payload).build());
        let (header, bytes) = Batch::of(&packets, BOTH).written(0);
        let (mut expected, expected_bytes) = Sample::udp(version, b"abcdef").to_be_cut(2);
        expected.hdr_len = expected.csum_start + 8;
        assert_eq!((header, bytes), (expected, expected_bytes));
    }
}

#[test]
fn a_packet_alone_is_one_part_and_untouched() {
    for sample in [
        Sample::tcp(Version::V4, 5, 0, b"hello"),
        Sample::udp(Version::V6, b"hello"),
    ] {
        let batch = Batch::of([&sample.build()], BOTH);
        let parts = |header, parts: &[IoSlice<'_>]| {
            assert_eq!(header, VirtioHeader::default());
            assert_eq!(parts.len(), 1);
            parts[0].as_ptr()
        };
        let part = batch.runs.with_parts(0, &batch.memory, parts).unwrap();
        assert_eq!(part, batch.memory[16..].as_ptr());
        assert_eq!(batch.written(0).1, sample.build());
    }
}

#[test]
fn datagrams_join_until_a_shorter_one() {
    for version in VERSIONS {
        let sizes = |sizes: &[usize]| {
            let samples: Vec<_> = sizes
                .iter()
                .map(|size| Sample::udp(version, &vec![9; *size]))
                .collect();
            counts(&samples)
        };
        assert_eq!(sizes(&[10, 10, 10, 4, 10, 12, 12]), [4, 1, 2]);
        assert_eq!(sizes(&[10, 0, 10, 10]), [1, 1, 2]);
    }
}

#[test]
fn a_device_is_given_only_the_runs_it_takes() {
    let mut packets: Vec<_> = stream(Version::V4, &[50; 3])
        .iter()
        .map(Sample::build)
        .collect();
    packets.extend([b"ab", b"cd"].map(|payload| Sample::udp(Version::V4, payload).build()));

    let runs = |tcp, udp| Batch::of(&packets, Joins { tcp, udp }).counts();
    assert_eq!(runs(true, true), [3, 2]);
    assert_eq!(runs(true, false), [3, 1, 1]);
    assert_eq!(runs(false, true), [1, 1, 1, 2]);
    assert_eq!(runs(false, false), [1; 5]);
}

#[test]
fn a_wrong_checksum_travels_alone_and_keeps_its_place() {
    for version in VERSIONS {
        for damage in [0, 1] {
            let samples = stream(version, &[100; 5]);
            let mut packets: Vec<_> = samples.iter().map(Sample::build).collect();
            // The payload, or (of IPv4) the identification, which only the header's own checksum covers.
            let at = match (damage, version) {
                (0, _) | (_, Version::V6) => packets[2].len() - 1,
                (_, Version::V4) => 4,
            };
            packets[2][at] ^= 1;

            let batch = Batch::of(&packets, BOTH);
            assert_eq!(batch.counts(), [2, 1, 2]);
            assert_eq!(
                batch.written(1),
                (VirtioHeader::default(), packets[2].clone())
            );
        }
    }
}

#[test]
fn a_checksum_of_zero_is_right_where_all_ones_are() {
    for version in VERSIONS {
        let mut samples = stream(version, &[100; 5]);
        let reads_all_ones = |sample: &Sample| {
            let at = sample.checksum_at();
            sample.build()[at..at + 2] == [0xFF; 2]
        };
        let all_ones = (0..=u16::MAX).any(|word| {
            samples[2].payload[..2].copy_from_slice(&word.to_be_bytes());
            reads_all_ones(&samples[2])
        });
        assert!(all_ones);
        let mut packets: Vec<_> = samples.iter().map(Sample::build).collect();
        let at = samples[2].checksum_at();
        packets[2][at..at + 2].fill(0);

        let batch = Batch::of(&packets, BOTH);
        assert_eq!(batch.counts(), [5]);
        assert_eq!(seen(&batch.received()), seen(&packets));
    }
}

#[test]
fn datagrams_without_a_checksum_travel_alone() {
    for version in VERSIONS {
        let sample = Sample::udp(version, b"hello");
        let mut packets = vec![sample.build(); 5];
        let at = sample.checksum_at();
        packets[2][at..at + 2].fill(0);

        let batch = Batch::of(&packets, BOTH);
        assert_eq!(batch.counts(), [2, 1, 2]);
        assert_eq!(batch.written(1).1, packets[2]);
    }
}

#[test]
fn a_full_run_is_followed_by_another() {
    for version in VERSIONS {
        let header = stream(version, &[1])[0].transport_at() + 20;
        let fit = (65_535 - header) / 1_220;
        assert_eq!(counts(&stream(version, &[1_220; 60])), [fit, 60 - fit]);
        assert_eq!(counts(&stream(version, &[10; 300])), [128, 128, 44]);
        let datagrams = vec![Sample::udp(version, b"hello"); 300];
        assert_eq!(counts(&datagrams), [128, 128, 44]);
    }
}

#[test]
fn flows_that_alternate_each_make_a_run() {
    let mut samples = Vec::new();
    for n in 0..40 {
        for version in VERSIONS {
            for port in [1, 2] {
                samples.push(Sample::tcp(version, n * 100, 0, &[7; 100]).with(|s| s.port = port));
                samples.push(Sample::udp(version, &[7; 100]).with(|s| s.port = port));
            }
        }
    }
    let packets: Vec<_> = samples.iter().map(Sample::build).collect();

    assert_eq!(Batch::of(&packets, BOTH).counts(), [40; 8]);
}

#[test]
fn a_flow_that_is_not_found_again_keeps_its_order() {
    let streams: Vec<Vec<Sample>> = (0..20)
        .map(|host| {
            let mut samples = stream(Version::V4, &[100; 6]);
            samples.iter_mut().for_each(|s| s.host = host);
            samples
        })
        .collect();
    // More flows take turns than are looked back to; then one goes on alone.
    let turns = (0..3).flat_map(|n| streams.iter().map(move |flow| &flow[n]));
    let packets: Vec<_> = turns.chain(&streams[19][3..]).map(Sample::build).collect();

    let batch = Batch::of(&packets, BOTH);
    let mut counts = vec![1; 59];
    counts.push(4);
    assert_eq!(batch.counts(), counts);
    assert_eq!(flows(&batch.received()), flows(&packets));
}

#[test]
fn cleared_runs_are_used_again() {
    let packets: Vec<_> = stream(Version::V4, &[100; 4])
        .iter()
        .map(Sample::build)
        .collect();
    let mut batch = Batch::of(&packets, BOTH);
    let room = (batch.runs.runs.capacity(), batch.runs.packets.capacity());

    batch.runs.clear();
    assert!(batch.runs.is_empty());
    let len = packets[0].len();
    batch.runs.push(&batch.memory, 16..16 + len, BOTH);
    assert_eq!(batch.counts(), [1]);
    assert_eq!(
        (batch.runs.runs.capacity(), batch.runs.packets.capacity()),
        room
    );
}

#[test]
fn ranges_and_runs_that_do_not_exist_are_none() {
    let mut runs = Runs::new();
    runs.push(&[0; 10], 5..11, BOTH);
    assert_eq!(runs.len(), 0);
    assert_eq!(runs.with_parts(0, &[], |_, _| ()), None);
    assert_eq!(runs.packets(0).count(), 0);

    runs.push(&[0; 10], 5..10, BOTH);
    assert_eq!(runs.with_parts(0, &[0; 9], |_, _| ()), None);
}

/// What each flow sees, in order; packets without ports are one flow.
fn flows(packets: &[Vec<u8>]) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut flows: std::collections::BTreeMap<String, Vec<Vec<u8>>> = Default::default();
    for packet in packets {
        let flow = Packet::parse_any_size(packet.as_slice())
            .ok()
            .and_then(|view| Flow::of(&view));
        flows
            .entry(format!("{flow:?}"))
            .or_default()
            .push(seen_one(packet));
    }
    flows.into_iter().collect()
}

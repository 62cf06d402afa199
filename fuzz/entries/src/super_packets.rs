//! Super-packets and runs.
//!
//! * What a TUN device hands over is cut into segments of the promised sizes whose checksums are right, and nothing of it
//!   is lost.
//! * What comes in is joined, and cut again: a receiver can't tell what was joined on the way.

use connlib_wire::ip::protocol;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::runs::{Joins, Runs};
use connlib_wire::super_packet::SuperPacket;

use crate::repair::repair;

/// A byte that says what to do, then packets. Bit 0: joined, not cut; bit 1: repaired before; bits 2 and 3: neither TCP nor
/// UDP may be joined.
pub fn super_packets(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    if mode & 1 == 0 {
        cut(mode & 2 != 0, data);
    } else {
        let joins = Joins {
            tcp: mode & 4 == 0,
            udp: mode & 8 == 0,
        };
        join(mode & 2 != 0, data, joins);
    }
}

/// The device's header, then one packet; its segments are joined and must be found again.
fn cut(repaired: bool, data: &[u8]) {
    let Some((header, packet)) = data.split_first_chunk() else {
        return;
    };
    let mut bytes = packet.to_vec();
    if repaired {
        repair(&mut bytes);
    }
    let header = VirtioHeader::decode(*header);
    let Ok(mut whole) = SuperPacket::parse(header, bytes) else {
        return;
    };
    let count = whole.segments();
    let lens = (whole.segment_len(), whole.last_segment_len());
    let payload = whole.packet().payload().to_vec();

    let segments = split(&mut whole);
    assert_eq!(segments.len(), count);
    let mut found = Vec::new();
    for (n, segment) in segments.iter().enumerate() {
        let expected = if n + 1 < count { lens.0 } else { lens.1 };
        assert_eq!(segment.len(), expected);
        if count > 1 {
            let packet = SuperPacket::parse(VirtioHeader::default(), segment.clone())
                .expect("a segment is a packet");
            assert!(packet.packet().checksums_match());
        }
        found.extend_from_slice(payload_of(segment));
    }
    assert_eq!(found, payload);

    joined(
        &segments,
        Joins {
            tcp: true,
            udp: true,
        },
    );
}

/// Packets, each behind its length in two bytes.
fn join(repaired: bool, mut data: &[u8], joins: Joins) {
    let mut packets = Vec::new();
    while let Some((len, rest)) = data.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(*len)) % 1_281;
        let (packet, rest) = rest.split_at(len.min(rest.len()));
        data = rest;

        let mut packet = packet.to_vec();
        if repaired {
            repair(&mut packet);
        }
        packets.push(packet);
    }
    joined(&packets, joins);
}

/// Joins packets and asserts that nobody could tell.
fn joined(packets: &[Vec<u8>], joins: Joins) {
    let mut memory = Vec::new();
    let mut runs = Runs::new();
    for packet in packets {
        let start = memory.len();
        memory.extend_from_slice(packet);
        runs.push(&memory, start..memory.len(), joins);
    }

    let mut taken = 0;
    for n in 0..runs.len() {
        let members: Vec<&[u8]> = runs.packets(n).map(|range| &memory[range]).collect();
        taken += members.len();
        let (header, bytes) = runs
            .with_parts(n, &memory, |header, parts| {
                let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
                (header, bytes)
            })
            .expect("the run exists");

        if let [alone] = members.as_slice() {
            assert_eq!(
                (header, bytes.as_slice()),
                (VirtioHeader::default(), *alone)
            );
            continue;
        }
        let mut whole = SuperPacket::parse(header, bytes).expect("a run can be cut");
        let segments = split(&mut whole);
        assert_eq!(segments.len(), members.len());
        for (segment, member) in segments.iter().zip(members) {
            assert_eq!(seen(segment), seen(member));
        }
    }
    assert_eq!(taken, packets.len());
}

fn split(whole: &mut SuperPacket<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut split = whole.split();
    let mut segments = Vec::new();
    while let Some(segment) = split.next_segment() {
        segments.push(segment.to_vec());
    }
    segments
}

fn payload_of(segment: &[u8]) -> &[u8] {
    let whole = SuperPacket::parse(VirtioHeader::default(), segment.to_vec());
    let len = whole.map_or(0, |whole| whole.packet().payload().len());
    &segment[segment.len() - len..]
}

/// A packet of a run without what may differ: the identification, the flow label, the two ways to write a sum of zero.
fn seen(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let at = if packet[0] >> 4 == 4 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
        20 + if packet[9] == protocol::TCP { 16 } else { 6 }
    } else {
        packet[1] &= 0xF0;
        packet[2..4].fill(0);
        40 + if packet[6] == protocol::TCP { 16 } else { 6 }
    };
    if packet[at..at + 2] == [0xFF, 0xFF] {
        packet[at..at + 2].fill(0);
    }
    packet
}

//! Super-packets: cut, joined, and cut again.
#![no_main]

use connlib_wire::ip::checksum::{Sum, pseudo_header};
use connlib_wire::ip::{Packet, Transport, Version, protocol};
use connlib_wire::offload::VirtioHeader;
use connlib_wire::runs::{Joins, Runs};
use connlib_wire::super_packet::SuperPacket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
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
});

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

/// Makes lengths and checksums right, so that deeper code is reached.
fn repair(bytes: &mut [u8]) {
    let len = bytes.len();
    let Some(first) = bytes.first().copied() else {
        return;
    };
    let (number, transport_at) = match first >> 4 {
        4 if len >= 20 => {
            put(bytes, 2, len as u16);
            (bytes[9], usize::from(first & 0x0F) * 4)
        }
        6 if len >= 40 => {
            put(bytes, 4, (len - 40) as u16);
            (bytes[6], 40)
        }
        _ => return,
    };
    if number == protocol::UDP {
        put(
            bytes,
            transport_at + 4,
            len.saturating_sub(transport_at) as u16,
        );
    }

    let Ok(packet) = Packet::parse(&*bytes) else {
        return;
    };
    let (version, transport) = (packet.version(), packet.transport());
    let route = (packet.source(), packet.destination());
    let checksum_at = match transport {
        Transport::Tcp => 16,
        Transport::Udp => 6,
        Transport::Icmp | Transport::Other(_) => return,
    };
    let transport_at = len - packet.transport_bytes().len();
    if version == Version::V4 {
        put(bytes, 10, 0);
        let sum = Sum::default().bytes(&bytes[..transport_at]);
        put(bytes, 10, sum.checksum());
    }
    put(bytes, transport_at + checksum_at, 0);
    let number = if transport == Transport::Tcp {
        protocol::TCP
    } else {
        protocol::UDP
    };
    let sum = pseudo_header(route.0, route.1, number, len - transport_at);
    let sum = sum.bytes(&bytes[transport_at..]);
    put(bytes, transport_at + checksum_at, sum.checksum());
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(slot) = bytes.get_mut(at..at + 2) {
        slot.copy_from_slice(&value.to_be_bytes());
    }
}

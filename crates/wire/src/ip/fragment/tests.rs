use proptest::prelude::*;

use super::*;
use crate::buffer::Pool;
use crate::ip::{self, Packet, PacketError};
use crate::offload::VirtioHeader;
use crate::super_packet::SuperPacket;

/// A whole packet of UDP that may be cut, with `len` bytes of payload.
fn whole(is_v6: bool, len: usize) -> Vec<u8> {
    let (from, to) = if is_v6 {
        ("[fd00::1]:1", "[fd00::2]:2")
    } else {
        ("100.64.0.1:1", "10.20.0.10:2")
    };
    let pool = Pool::new(2_048, 1);
    let made = ip::udp(&pool, from.parse().unwrap(), to.parse().unwrap(), &[]).unwrap();
    let start = made.transport_at();
    let mut bytes = made.bytes().to_vec();
    bytes.extend((0..len).map(|n| (n % 251) as u8));
    let udp_len = (len + 8) as u16;
    put(&mut bytes, start + 4, udp_len).unwrap();
    put(&mut bytes, start + 6, 0).unwrap();
    match is_v6 {
        true => put(&mut bytes, 4, udp_len),
        false => put(&mut bytes, 2, udp_len + 20),
    };
    let packet = Packet::parse_any_size(bytes.as_slice()).unwrap();
    let sum = packet.pseudo_header().bytes(packet.transport_bytes());
    put(&mut bytes, start + 6, sum.checksum()).unwrap();
    if is_v6 {
        bytes[6] = protocol::FRAGMENT;
        let stated = u16::from_be_bytes([bytes[4], bytes[5]]) + 8;
        bytes[4..6].copy_from_slice(&stated.to_be_bytes());
        bytes.splice(40..40, [protocol::UDP, 0, 0, 0, 1, 2, 3, 4]);
    } else {
        bytes[4..6].copy_from_slice(&[1, 2]);
        bytes[6] = 0;
        complete_v4_checksum(&mut bytes[..20]).unwrap();
    }

    bytes
}

fn cut(bytes: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let mut packet = SuperPacket::parse(VirtioHeader::default(), bytes.to_vec()).unwrap();
    assert!(packet.fit_into(limit));
    let count = packet.segments();
    let longest = packet.segment_len();
    let mut parts = Vec::new();
    let mut segments = packet.split();
    while let Some(part) = segments.next_segment() {
        assert!(part.len() <= longest);
        parts.push(part.to_vec());
    }
    assert_eq!(parts.len(), count);

    parts
}

/// Puts parts together as a host would.
fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| Fragment::parse(part).unwrap())
        .collect();
    let payload: Vec<u8> = parts
        .iter()
        .flat_map(|part| part.payload)
        .copied()
        .collect();
    let mut bytes = parts[0].headers.to_vec();
    make_whole(&mut bytes, payload.len()).unwrap();
    bytes.extend_from_slice(&payload);

    bytes
}

proptest! {
    #[test]
    fn parts_fit_and_make_the_whole_again(
        is_v6: bool,
        len in 0_usize..=65_479,
        limit in 576_usize..=1_500,
    ) {
        let bytes = whole(is_v6, len);
        if bytes.len() <= limit {
            return Ok(());
        }
        let parts = cut(&bytes, limit);
        prop_assert!(parts.iter().all(|part| part.len() <= limit));
        let fragments: Vec<_> = parts.iter().map(|part| Fragment::parse(part).unwrap()).collect();
        let mut expected = 0;
        for (index, fragment) in fragments.iter().enumerate() {
            prop_assert_eq!(fragment.offset, expected);
            prop_assert_eq!(fragment.has_more, index + 1 < fragments.len());
            prop_assert_eq!(fragment.of, fragments[0].of);
            expected = fragment.end().unwrap();
        }
        let again = joined(&parts);
        prop_assert_eq!(&again, &bytes);
        prop_assert!(Packet::parse_any_size(again.as_slice()).unwrap().checksums_match());
    }

    #[test]
    fn any_bytes_are_a_part_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        if let Some(fragment) = Fragment::parse(&bytes) {
            let _ = fragment.end();
            let _ = make_whole(&mut fragment.headers.to_vec(), fragment.payload.len());
            prop_assert_eq!(fragment.headers.len() + fragment.payload.len(), bytes.len());
        }
        let _ = SuperPacket::part(bytes);
    }
}

#[test]
fn known_parts_are_read_as_they_stand() {
    let parts = cut(&whole(false, 2_000), 1_280);
    let [first, last] = [0, 1].map(|at| Fragment::parse(&parts[at]).unwrap());
    assert_eq!(
        (first.offset, first.payload.len(), first.has_more),
        (0, 1_256, true)
    );
    assert_eq!(
        (last.offset, last.payload.len(), last.has_more),
        (1_256, 752, false)
    );
    assert_eq!((first.of.id, first.of.protocol), (0x0102, protocol::UDP));
    assert_eq!(parts[1][6..8], (1_256_u16 / 8).to_be_bytes());

    let parts = cut(&whole(true, 2_000), 1_280);
    let last = Fragment::parse(&parts[1]).unwrap();
    assert_eq!((last.of.id, last.of.protocol), (0x0102_0304, protocol::UDP));
    assert_eq!((last.offset, last.headers.len()), (1_232, 48));
}

#[test]
fn who_forbids_it_is_not_cut() {
    let mut bytes = whole(false, 2_000);
    bytes[6] = 0x40;
    complete_v4_checksum(&mut bytes[..20]).unwrap();
    let mut packet = SuperPacket::parse(VirtioHeader::default(), bytes).unwrap();
    assert!(!packet.fit_into(1_280));
    assert_eq!((packet.segments(), packet.segment_len()), (1, 2_028));

    // Routers never cut IPv6; its sender has to have begun it.
    let mut bytes = whole(true, 2_000);
    bytes.drain(40..48);
    bytes[6] = protocol::UDP;
    let stated = u16::from_be_bytes([bytes[4], bytes[5]]) - 8;
    bytes[4..6].copy_from_slice(&stated.to_be_bytes());
    let mut packet = SuperPacket::parse(VirtioHeader::default(), bytes).unwrap();
    assert!(!packet.fit_into(1_280));
}

#[test]
fn a_packet_may_be_cut_again_for_a_narrower_way_and_changed_before() {
    let mut packet = SuperPacket::parse(VirtioHeader::default(), whole(false, 3_000)).unwrap();
    assert!(packet.fit_into(1_280) && packet.fit_into(1_000));
    assert!(packet.segment_len() <= 1_000);
    packet.set_destination("10.20.0.11".parse().unwrap());
    packet.set_source_port(77);
    let mut parts = Vec::new();
    let mut segments = packet.split();
    while let Some(part) = segments.next_segment() {
        parts.push(part.to_vec());
    }
    let again = joined(&parts);
    let again = Packet::parse_any_size(again.as_slice()).unwrap();
    assert!(again.checksums_match());
    assert_eq!(again.source_port(), Some(77));
}

#[test]
fn a_part_is_sent_as_it_is_and_decides_nothing() {
    let parts = cut(&whole(false, 2_000), 1_280);
    let mut sent = SuperPacket::part(parts[1].clone()).unwrap();
    assert_eq!(sent.packet().source_port(), None);
    assert_eq!(sent.split().next_segment(), Some(parts[1].as_slice()));
    let refused = Packet::parse(parts[1].as_slice()).err();
    assert_eq!(refused, Some(PacketError::Fragment));
}

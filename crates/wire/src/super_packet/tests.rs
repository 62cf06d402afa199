mod rewriting;

use proptest::prelude::*;

use super::*;
use crate::samples::{ACK, Sample};

const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

fn numbers(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

fn parsed(sample: &Sample, size: u16) -> SuperPacket<Vec<u8>> {
    let (header, bytes) = sample.to_be_cut(size);
    SuperPacket::parse(header, bytes).unwrap()
}

fn segments(mut whole: SuperPacket<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut split = whole.split();
    let mut segments = Vec::new();
    while let Some(segment) = split.next_segment() {
        segments.push(segment.to_vec());
    }
    segments
}

fn reason(result: Result<SuperPacket<Vec<u8>>, PacketError>) -> &'static str {
    match result {
        Err(PacketError::Offload { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

/// What must come out: each segment as if it had been sent alone.
fn expected(sample: &Sample, size: usize) -> Vec<Vec<u8>> {
    let payloads: Vec<&[u8]> = sample.payload.chunks(size).collect();
    payloads
        .iter()
        .enumerate()
        .map(|(n, payload)| {
            let segment = sample.clone().with(|segment| {
                segment.id = segment.id.wrapping_add(n as u16);
                segment.payload = payload.to_vec();
                if let Some(tcp) = &mut segment.tcp {
                    tcp.sequence = tcp.sequence.wrapping_add((n * size) as u32);
                    if n > 0 {
                        tcp.flags &= !CWR;
                    }
                    if n + 1 < payloads.len() {
                        tcp.flags &= !(FIN | PSH);
                    }
                }
            });
            segment.build()
        })
        .collect()
}

#[test]
fn three_thousand_bytes_make_three_segments_of_tcp() {
    // io.md V20
    for version in VERSIONS {
        let sample = Sample::tcp(version, 1_000, FIN | PSH, &numbers(3_000));
        let whole = parsed(&sample, 1_200);
        let headers = sample.transport_at() + 20;
        assert_eq!(
            (
                whole.segments(),
                whole.segment_len(),
                whole.last_segment_len()
            ),
            (3, headers + 1_200, headers + 600)
        );

        let segments = segments(whole);
        let fields: Vec<(u32, u8)> = segments
            .iter()
            .map(|segment| {
                let packet = Packet::parse(segment.as_slice()).unwrap();
                assert!(packet.checksums_match());
                let tcp = packet.transport_bytes();
                (
                    u32::from_be_bytes(*tcp[4..].first_chunk().unwrap()),
                    tcp[13],
                )
            })
            .collect();
        assert_eq!(
            fields,
            [(1_000, ACK), (2_200, ACK), (3_400, ACK | FIN | PSH)]
        );
        assert_eq!(segments, expected(&sample, 1_200));
    }
}

#[test]
fn cwr_stays_with_the_first_segment() {
    let sample = Sample::tcp(Version::V4, u32::MAX - 5, CWR, &numbers(30)).with(|s| s.id = 0xFFFF);
    let (mut header, bytes) = sample.to_be_cut(10);
    header.gso_type |= VirtioHeader::GSO_ECN;
    let whole = SuperPacket::parse(header, bytes).unwrap();

    let segments = segments(whole);
    let flags: Vec<u8> = segments.iter().map(|s| s[20 + 13] & CWR).collect();
    assert_eq!(flags, [CWR, 0, 0]);
    assert_eq!(
        segments,
        expected(&sample, 10),
        "id and sequence wrap around"
    );
}

#[test]
fn datagrams_keep_their_boundaries() {
    for version in VERSIONS {
        let sample = Sample::udp(version, &numbers(2_500));
        let segments = segments(parsed(&sample, 1_000));

        assert_eq!(segments, expected(&sample, 1_000));
        assert_eq!(segments[2].len(), sample.transport_at() + 8 + 500);
    }
}

#[test]
fn segments_of_one_byte_are_built_in_place() {
    for version in VERSIONS {
        let tcp = Sample::tcp(version, 5, PSH, &numbers(256))
            .with_tcp(|tcp| tcp.options = [[1, 1, 8, 10]; 10].concat());
        assert_eq!(segments(parsed(&tcp, 1)), expected(&tcp, 1));

        let udp = Sample::udp(version, &numbers(256));
        assert_eq!(segments(parsed(&udp, 1)), expected(&udp, 1));
    }
}

#[test]
fn sixty_four_kibibytes_are_cut() {
    for version in VERSIONS {
        let sample = Sample::tcp(version, 5, PSH, &[]);
        let sample = sample.clone().with(|s| {
            // The largest that the length field of either family can state.
            s.payload = numbers(65_535 - sample.transport_at() - 20);
        });
        assert_eq!(segments(parsed(&sample, 1_220)), expected(&sample, 1_220));
    }
}

#[test]
fn options_and_extension_headers_are_repeated() {
    let v4 = Sample::udp(Version::V4, &numbers(100)).with(|s| s.ip_options = vec![1; 40]);
    assert_eq!(segments(parsed(&v4, 33)), expected(&v4, 33));

    let v6 = Sample::tcp(Version::V6, 5, PSH, &numbers(100))
        .with(|s| s.ip_options = [[1; 8], [0; 8]].concat());
    assert_eq!(segments(parsed(&v6, 33)), expected(&v6, 33));
}

#[test]
fn a_mark_reaches_each_segment() {
    for version in VERSIONS {
        let sample = Sample::tcp(version, 5, 0, &numbers(30)).with(|s| s.tos = 0b1010_0010);
        let mut whole = parsed(&sample, 10);
        assert_eq!(whole.packet().ecn(), Ecn::Ect0);
        whole.set_ecn(Ecn::Ce);

        let marked = sample.with(|s| s.tos = 0b1010_0011);
        assert_eq!(segments(whole), expected(&marked, 10));
    }
}

#[test]
fn the_whole_is_seen_as_one_packet() {
    let sample = Sample::tcp(Version::V6, 5, 0, &numbers(9_000));
    let whole = parsed(&sample, 1_200);
    let packet = whole.packet();

    assert_eq!((packet.source(), packet.destination()), sample.route());
    assert_eq!(packet.destination_port(), Some(443));
    assert_eq!(packet.payload(), numbers(9_000));
}

#[test]
fn one_packet_stays_as_it_is_but_for_its_checksum() {
    for version in VERSIONS {
        for sample in [
            Sample::tcp(version, 5, FIN | PSH | CWR, &numbers(33)),
            Sample::udp(version, &numbers(33)),
            Sample::udp(version, &[]),
        ] {
            let complete = SuperPacket::parse(VirtioHeader::default(), sample.build()).unwrap();
            assert_eq!(complete.bytes(), sample.build());

            let needs_checksum = parsed(&sample, 0);
            assert_eq!(needs_checksum.bytes(), sample.build());
            assert_eq!(needs_checksum.segment_len(), sample.build().len());
            assert_eq!(needs_checksum.last_segment_len(), sample.build().len());
            assert_eq!(segments(needs_checksum), [sample.build()]);
        }

        let short = Sample::tcp(version, 5, FIN | PSH | CWR, &numbers(33));
        assert_eq!(segments(parsed(&short, 33)), [short.build()]);
        assert_eq!(segments(parsed(&short, 1_200)), [short.build()]);
    }
}

#[test]
fn a_datagram_whose_sum_is_zero_says_all_ones() {
    let sample = Sample::udp(Version::V4, &[0, 0]);
    let sum = !u16::from_be_bytes(*sample.build()[26..].first_chunk().unwrap());
    // A payload that makes the sum of everything 0xFFFF, the complement of which is zero.
    let sample = sample.with(|s| s.payload = (0xFFFF - sum).to_be_bytes().to_vec());

    assert_eq!(parsed(&sample, 0).bytes()[26..28], [0xFF, 0xFF]);
    let twice = sample.with(|s| s.payload = s.payload.repeat(2));
    assert_eq!(segments(parsed(&twice, 2))[1][26..28], [0xFF, 0xFF]);
}

#[test]
fn a_packet_larger_than_a_tunnel_carries_is_left_to_the_caller() {
    let sample = Sample::udp(Version::V4, &numbers(8_000));
    let whole = SuperPacket::parse(VirtioHeader::default(), sample.build()).unwrap();

    assert_eq!((whole.segments(), whole.segment_len()), (1, 8_028));
}

#[test]
fn the_kernels_header_length_does_not_matter() {
    let sample = Sample::tcp(Version::V4, 5, PSH, &numbers(100));
    for hdr_len in [0, 1, 54, 9_999, u16::MAX] {
        let (header, bytes) = sample.to_be_cut(40);
        let whole = SuperPacket::parse(VirtioHeader { hdr_len, ..header }, bytes).unwrap();
        assert_eq!(segments(whole), expected(&sample, 40));
    }
}

#[test]
fn a_header_that_contradicts_the_packet_is_refused() {
    let tcp = Sample::tcp(Version::V4, 5, PSH, &numbers(300));
    let lie = |sample: &Sample, lie: fn(&mut VirtioHeader)| {
        let (mut header, bytes) = sample.to_be_cut(100);
        lie(&mut header);
        reason(SuperPacket::parse(header, bytes))
    };

    assert_eq!(lie(&tcp, |h| h.gso_size = 0), "its segments are empty");
    assert_eq!(
        lie(&tcp, |h| h.gso_size = 1),
        "it makes more than 256 segments"
    );
    let other = "its segments are of another family or protocol";
    assert_eq!(lie(&tcp, |h| h.gso_type = VirtioHeader::GSO_TCPV6), other);
    assert_eq!(lie(&tcp, |h| h.gso_type = VirtioHeader::GSO_UDP_L4), other);
    for version in VERSIONS {
        let udp = Sample::udp(version, &numbers(300));
        assert_eq!(lie(&udp, |h| h.gso_type = VirtioHeader::GSO_TCPV4), other);
        assert_eq!(lie(&udp, |h| h.gso_type = VirtioHeader::GSO_TCPV6), other);
    }
    for unknown in [2, 3, 6, 0x7F, 0xFF] {
        let (header, bytes) = tcp.to_be_cut(100);
        let header = VirtioHeader {
            gso_type: unknown,
            ..header
        };
        let refused = reason(SuperPacket::parse(header, bytes));
        assert_eq!(refused, "its kind of segments is unknown");
    }
    assert_eq!(
        lie(&tcp, |h| h.flags = VirtioHeader::DATA_VALID),
        "it asks for segments but not for their checksums"
    );
    let elsewhere = "its checksum lies elsewhere";
    assert_eq!(lie(&tcp, |h| h.csum_start += 2), elsewhere);
    assert_eq!(lie(&tcp, |h| h.csum_offset = 6), elsewhere);
    assert_eq!(lie(&tcp, |h| h.csum_start = u16::MAX), elsewhere);
    assert_eq!(
        lie(&tcp, |h| {
            h.csum_start += 10;
            h.csum_offset -= 10;
        }),
        elsewhere
    );

    let empty = tcp.with(|s| s.payload.clear());
    assert_eq!(lie(&empty, |_| ()), "there is nothing to cut");
    let long = Sample::tcp(Version::V6, 5, 0, &numbers(300)).with(|s| s.ip_options = vec![0; 72]);
    assert_eq!(
        lie(&long, |_| ()),
        "it would repeat headers of more than 128 bytes"
    );
}

#[test]
fn fragments_and_false_lengths_are_refused() {
    let sample = Sample::tcp(Version::V4, 5, PSH, &numbers(300));
    let (header, bytes) = sample.to_be_cut(100);

    let mut fragment = bytes.clone();
    fragment[6] = 0x20;
    let refused = SuperPacket::parse(header, fragment).err();
    assert_eq!(refused, Some(PacketError::Fragment));

    let short = bytes[..bytes.len() - 1].to_vec();
    let refused = SuperPacket::parse(header, short).err();
    assert_eq!(refused, Some(PacketError::Length { header: "IPv4" }));

    // A claim of more than 64 KiB says zero where the length should be.
    let huge = Sample::tcp(Version::V6, 5, PSH, &numbers(70_000));
    let (header, mut bytes) = huge.to_be_cut(1_200);
    bytes[4..6].fill(0);
    let refused = SuperPacket::parse(header, bytes).err();
    assert_eq!(refused, Some(PacketError::Length { header: "IPv6" }));
}

proptest! {
    #[test]
    fn segments_are_what_would_have_been_sent_alone(
        v6: bool,
        tcp: bool,
        sequence: u32,
        flags: u8,
        id: u16,
        options in 0_usize..=10,
        payload in proptest::collection::vec(any::<u8>(), 1..3_000),
        size in 12_u16..1_300,
    ) {
        let version = VERSIONS[usize::from(v6)];
        let sample = if tcp {
            Sample::tcp(version, sequence, flags, &payload)
                .with_tcp(|tcp| tcp.options = vec![1; options * 4])
        } else {
            Sample::udp(version, &payload)
        };
        let sample = sample.with(|s| s.id = id);

        prop_assert_eq!(segments(parsed(&sample, size)), expected(&sample, size.into()));
    }

    #[test]
    fn no_bytes_panic(header: [u8; VirtioHeader::LEN], bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(whole) = SuperPacket::parse(VirtioHeader::decode(header), bytes) {
            prop_assert_eq!(whole.segments(), segments(whole).len());
        }
    }

    #[test]
    fn no_changed_byte_panics(
        v6: bool,
        tcp: bool,
        size in 0_u16..40,
        changes in proptest::collection::vec((0_usize..100, any::<u8>()), 0..4),
        header_change in proptest::option::of((0..VirtioHeader::LEN, any::<u8>())),
        options in 0_usize..4,
    ) {
        let version = VERSIONS[usize::from(v6)];
        let sample = if tcp {
            Sample::tcp(version, 5, 0, &numbers(40))
        } else {
            Sample::udp(version, &numbers(40))
        };
        let (header, mut bytes) = sample.with(|s| s.ip_options = vec![0; options * 8]).to_be_cut(size);
        for (at, byte) in changes {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        let mut header = header.encode();
        if let Some((at, byte)) = header_change {
            header[at] = byte;
        }

        if let Ok(mut whole) = SuperPacket::parse(VirtioHeader::decode(header), bytes) {
            let lens = (whole.segment_len(), whole.last_segment_len());
            let count = whole.segments();
            // Splitting twice makes no sense, and no harm.
            prop_assert!(whole.split().next_segment().is_some());
            let segments = segments(whole);
            prop_assert_eq!(segments.len(), count);
            for segment in &segments[..count - 1] {
                prop_assert_eq!(segment.len(), lens.0);
            }
            prop_assert_eq!(segments[count - 1].len(), lens.1);
        }
    }
}

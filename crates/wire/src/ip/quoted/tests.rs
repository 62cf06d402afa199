use proptest::prelude::*;

use super::*;
use crate::buffer::{Buffer, Pool};
use crate::ip::checksum::{Sum, pseudo_header};
use crate::ip::{Echo, IcmpError, echo, icmp_error};
use crate::samples::Sample;

fn pool() -> Pool {
    Pool::new(2_048, 8)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let byte = |pair: &[u32]| (pair[0] * 16 + pair[1]) as u8;
    digits.chunks(2).map(byte).collect()
}

/// An ICMP error from some router.
fn error(kind: [u8; 2], quote: &[u8]) -> Packet<Vec<u8>> {
    let v4 = quote[0] >> 4 == 4;
    let mut icmp = [&kind[..], &[0; 6], quote].concat();
    let (from, to) = if v4 {
        ("192.0.2.1", "10.1.0.1")
    } else {
        ("2001:db8::9", "fd00::1")
    };
    let sum = if v4 {
        Sum::default()
    } else {
        pseudo_header(ip(from), ip(to), protocol::ICMPV6, icmp.len())
    };
    let checksum = sum.bytes(&icmp).checksum();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut bytes = if v4 {
        let mut header = hex("450000000000400040010000c00002010a010001");
        header[2..4].copy_from_slice(&(icmp.len() as u16 + 20).to_be_bytes());
        let checksum = Sum::default().bytes(&header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    } else {
        let mut header = hex(
            "6000000000003a40 20010db8000000000000000000000009 fd000000000000000000000000000001",
        );
        header[4..6].copy_from_slice(&(icmp.len() as u16).to_be_bytes());
        header
    };
    bytes.extend(icmp);
    let packet = Packet::parse_any_size(bytes).unwrap();
    assert!(packet.checksums_match());

    packet
}

#[test]
fn what_the_vector_translates_becomes_what_was_sent() {
    // gateway.md V10, with the checksums inside the quote repaired: what the client sent is V6's input.
    let sent = hex("45000021000040004011722464400007646000019c4001bb000d555e68656c6c6f");
    let outside = hex("45000021000040004011ca81644000070a0102039c4101bb000dadba68656c6c6f");
    let mut packet = error([11, 0], &outside[..28]);
    let quoted = packet.quoted().unwrap();
    assert_eq!(
        (quoted.source, quoted.destination),
        (ip("100.64.0.7"), ip("10.1.2.3"))
    );
    assert_eq!(quoted.transport, Transport::Udp);
    let ports = |source| PortsOrId::Ports {
        source,
        destination: 443,
    };
    assert_eq!(quoted.ports_or_id, ports(40_001));

    let proxy = ip("100.96.0.1");
    packet.set_source(proxy);
    packet.set_destination(ip("100.64.0.7"));
    let inside = Quoted {
        destination: proxy,
        ports_or_id: ports(40_000),
        ..quoted
    };
    assert!(packet.rewrite_quoted(&inside));

    assert_eq!(packet.payload(), &sent[..28]);
    assert_eq!(packet.quoted(), Some(inside));
    assert!(packet.checksums_match());
    assert_eq!(
        (packet.source(), packet.icmp_type()),
        (proxy, Some((11, 0)))
    );
}

#[test]
fn echoes_are_known_by_their_id() {
    for (from, to, kind) in [
        ("10.0.0.1", "10.0.0.2", [3, 1]),
        ("fd00::1", "fd00::2", [3, 0]),
    ] {
        for direction in [Echo::Request, Echo::Reply] {
            let route = (ip(from), ip(to));
            let sent = echo(&pool(), route, direction, (7, 1), b"ping").unwrap();
            assert_eq!(sent.echo_id(), Some(7));
            let mut changed = sent;
            changed.set_echo_id(9);
            assert!(changed.checksums_match());
            assert_eq!(changed.echo_id(), Some(9));

            let mut packet = error(kind, changed.bytes());
            let quoted = packet.quoted().unwrap();
            assert_eq!(quoted.ports_or_id, PortsOrId::EchoId(9));
            let before = Quoted {
                ports_or_id: PortsOrId::EchoId(7),
                ..quoted
            };
            assert!(packet.rewrite_quoted(&before) && packet.checksums_match());
            let again = echo(&pool(), route, direction, (7, 1), b"ping").unwrap();
            assert_eq!(packet.payload(), again.bytes());
            assert_eq!(packet.echo_id(), None, "it is an error");
            packet.set_echo_id(1);
            assert!(packet.checksums_match() && packet.payload() == again.bytes());
        }
    }
}

#[test]
fn quotes_that_say_too_little_are_not_understood() {
    for version in [Version::V4, Version::V6] {
        let sample = Sample::tcp(version, 5, 0, b"hello");
        let bytes = sample.build();
        let least = sample.transport_at() + 8;
        assert!(error([3, 0], &bytes[..least]).quoted().is_some());
        for len in [1, 19, 20, 39, 40, least - 1] {
            if len < least {
                assert_eq!(error([3, 0], &bytes[..len]).quoted(), None, "{len}");
            }
        }
        // The quote states the whole packet's length, which isn't there.
        let cut = error([3, 0], &bytes[..bytes.len() - 1]).quoted();
        assert_eq!(cut.unwrap().transport, Transport::Tcp);
    }
    let v4 = Sample::udp(Version::V4, b"hello").build();
    let with = |at: usize, value: u8| {
        let mut quote = v4.clone();
        quote[at] = value;
        error([3, 0], &quote).quoted()
    };
    assert_eq!(with(7, 1), None, "not the first fragment");
    assert!(with(6, 0x20).is_some(), "the first fragment");
    assert_eq!(with(0, 0x44), None, "a header of 16 bytes");
    assert_eq!(
        with(0, 0x4F),
        None,
        "a header that is longer than the quote"
    );
    assert_eq!(with(9, 47).unwrap().ports_or_id, PortsOrId::Neither);
    assert_eq!(with(9, 1).unwrap().transport, Transport::Icmp);

    let mut other_family = error([3, 0], &v4).into_inner();
    other_family[28] = 0x65;
    assert_eq!(Packet::parse(other_family).unwrap().quoted(), None);
    assert_eq!(
        Packet::parse(v4.as_slice()).unwrap().quoted(),
        None,
        "no error"
    );
}

#[test]
fn only_the_same_kind_of_packet_is_written_over_a_quote() {
    let mut packet = error([3, 0], &Sample::udp(Version::V4, b"hello").build());
    let before = packet.bytes().to_vec();
    let quoted = packet.quoted().unwrap();
    for other in [
        Quoted {
            source: ip("::1"),
            ..quoted
        },
        Quoted {
            destination: ip("::1"),
            ..quoted
        },
        Quoted {
            transport: Transport::Tcp,
            ..quoted
        },
        Quoted {
            ports_or_id: PortsOrId::EchoId(1),
            ..quoted
        },
    ] {
        assert!(!packet.rewrite_quoted(&other));
        assert_eq!(packet.bytes(), before);
    }
    assert!(packet.rewrite_quoted(&quoted));
    assert_eq!(packet.bytes(), before);
}

#[test]
fn a_quoted_checksum_of_zero_stays_zero() {
    let mut udp = Sample::udp(Version::V4, b"hello").build();
    udp[26..28].fill(0);
    let mut packet = error([3, 3], &udp);
    let quoted = packet.quoted().unwrap();
    let new = Quoted {
        destination: ip("10.1.2.3"),
        ..quoted
    };
    assert!(packet.rewrite_quoted(&new) && packet.checksums_match());
    assert_eq!(packet.payload()[26..28], [0, 0]);
}

#[test]
fn flags_of_tcp_are_told() {
    let flags = |flags: u8| {
        let sample = Sample::tcp(Version::V4, 5, flags, b"");
        Packet::parse(sample.build()).unwrap().tcp_flags().unwrap()
    };
    assert!(flags(0x01).is_fin() && flags(0x02).is_syn() && flags(0x04).is_rst());
    let ack = flags(0);
    assert!(ack.is_ack() && !ack.is_fin() && !ack.is_syn() && !ack.is_rst());
    let udp = Packet::parse(Sample::udp(Version::V4, &[0xFF; 9]).build()).unwrap();
    assert_eq!(udp.tcp_flags(), None);
    assert_eq!(udp.echo_id(), None);
}

/// The same packet to and from elsewhere.
fn translated(sample: &Sample, route: (IpAddr, IpAddr), ports: (u16, u16)) -> Packet<Vec<u8>> {
    let mut packet = Packet::parse(sample.build()).unwrap();
    packet.set_source(route.0);
    packet.set_destination(route.1);
    packet.set_source_port(ports.0);
    packet.set_destination_port(ports.1);
    assert!(packet.checksums_match());
    packet
}

proptest! {
    #[test]
    fn an_error_about_what_went_out_becomes_one_about_what_came_in(
        v6: bool, tcp: bool, options in 0_usize..4, ips: [u128; 2], ports: (u16, u16),
        payload in prop::collection::vec(any::<u8>(), 0..100), len in 8_usize..200,
    ) {
        let version = if v6 { Version::V6 } else { Version::V4 };
        let sample = if tcp {
            Sample::tcp(version, 9, 0, &payload)
        } else {
            Sample::udp(version, &payload)
        };
        let sample = sample.with(|s| s.ip_options = vec![0; options * 8]);
        let route = ips.map(|bits| match version {
            Version::V4 => IpAddr::V4((bits as u32).into()),
            Version::V6 => IpAddr::V6(bits.into()),
        });
        let sent = sample.build();
        let outside = translated(&sample, (route[0], route[1]), ports);
        // Half a checksum can't be repaired.
        let len = if tcp && len == 17 { 16 } else { len };
        let len = (sample.transport_at() + len).min(sent.len());

        let mut packet = error([3, 0], &outside.bytes()[..len]);
        let quoted = packet.quoted().unwrap();
        prop_assert_eq!((quoted.source, quoted.destination), (route[0], route[1]));
        let (source, destination) = sample.route();
        let inside = Quoted {
            source,
            destination,
            ports_or_id: PortsOrId::Ports { source: sample.port, destination: 443 },
            ..quoted
        };
        prop_assert!(packet.rewrite_quoted(&inside));
        prop_assert_eq!(packet.payload(), &sent[..len]);
        prop_assert!(packet.checksums_match());
    }

    #[test]
    fn no_bytes_panic(quote: Vec<u8>, v6: bool, number: u8, ports: [u16; 2], kind: [u8; 2]) {
        let mut quote = quote;
        let first = quote.first().copied().unwrap_or_default() & 0x0F;
        let head: &[u8] = if v6 { &[0x60, 0, 0, 0, 0, 9, number] } else { &[0x40 | first, 0, 0, 9, 0, 0, 0, 0, 9, number] };
        for (slot, byte) in quote.iter_mut().zip(head) {
            *slot = *byte;
        }
        if quote.is_empty() {
            quote.push(head[0]);
        }
        let mut packet = error(kind, &quote);
        if let Some(quoted) = packet.quoted() {
            let ports_or_id = match quoted.ports_or_id {
                PortsOrId::Ports { .. } => PortsOrId::Ports { source: ports[0], destination: ports[1] },
                PortsOrId::EchoId(_) => PortsOrId::EchoId(ports[0]),
                PortsOrId::Neither => PortsOrId::Neither,
            };
            let new = Quoted { source: quoted.destination, destination: quoted.source, ports_or_id, ..quoted };
            prop_assert!(packet.rewrite_quoted(&new));
            prop_assert_eq!(packet.quoted(), Some(new));
            prop_assert!(packet.checksums_match());
        } else {
            packet.set_echo_id(3);
            prop_assert!(packet.checksums_match());
        }
    }

    #[test]
    fn errors_that_we_make_quote_what_they_are_about(v6: bool, tcp: bool) {
        let version = if v6 { Version::V6 } else { Version::V4 };
        let sample = if tcp { Sample::tcp(version, 9, 0, b"x") } else { Sample::udp(version, b"x") };
        let original = Packet::parse(sample.build()).unwrap();
        let error: Packet<Buffer> = icmp_error(&pool(), &original, IcmpError::Prohibited).unwrap();
        let quoted = error.quoted().unwrap();
        prop_assert_eq!((quoted.source, quoted.destination), sample.route());
        prop_assert_eq!(quoted.transport, original.transport());
    }
}

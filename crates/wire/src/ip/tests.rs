use std::net::SocketAddr;

use super::*;
use crate::buffer::{Buffer, Pool};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] * 16 + pair[1]) as u8)
        .collect()
}

fn pool() -> Pool {
    Pool::new(2_048, 4)
}

/// UDP from 100.64.0.7:40000 to 100.96.0.1:443, "hello" (gateway.md V6).
fn hello() -> Vec<u8> {
    hex("45000021000040004011722464400007646000019c4001bb000d555e68656c6c6f")
}

fn made(source: &str, destination: &str, payload: &[u8]) -> Packet<Buffer> {
    udp(
        &pool(),
        source.parse().unwrap(),
        destination.parse().unwrap(),
        payload,
    )
    .unwrap()
}

#[test]
fn reads_what_the_vector_says() {
    let bytes = hello();
    let packet = Packet::parse(bytes.as_slice()).unwrap();

    assert_eq!(packet.source(), "100.64.0.7".parse::<IpAddr>().unwrap());
    assert_eq!(
        packet.destination(),
        "100.96.0.1".parse::<IpAddr>().unwrap()
    );
    assert_eq!(
        (packet.source_port(), packet.destination_port()),
        (Some(40_000), Some(443))
    );
    assert_eq!(
        (packet.transport(), packet.payload()),
        (Transport::Udp, b"hello".as_slice())
    );
    assert!(packet.checksums_match());
    assert_eq!(
        made("100.64.0.7:40000", "100.96.0.1:443", b"hello").bytes(),
        bytes
    );
}

#[test]
fn a_new_address_and_port_patch_every_checksum() {
    let mut packet = Packet::parse(hello()).unwrap();
    packet.set_destination("10.1.2.3".parse().unwrap());
    let expected = hex("45000021000040004011ca81644000070a0102039c4001bb000dadbb68656c6c6f");
    assert_eq!(packet.bytes(), expected);

    packet.set_source_port(40_001);
    let expected = hex("45000021000040004011ca81644000070a0102039c4101bb000dadba68656c6c6f"); // V7
    assert_eq!(packet.bytes(), expected);
}

#[test]
fn a_udp_checksum_of_zero_stays_zero() {
    let mut bytes = hello();
    bytes[26..28].fill(0);
    let mut packet = Packet::parse(bytes).unwrap();
    packet.set_destination("10.1.2.3".parse().unwrap());

    assert_eq!(packet.bytes()[26..28], [0, 0]); // V13
    assert!(packet.checksums_match());
}

#[test]
fn prohibited_is_written_as_the_vector_has_it() {
    let bytes = hello();
    let original = Packet::parse(bytes.as_slice()).unwrap();
    let error = icmp_error(&pool(), &original, IcmpError::Prohibited).unwrap();

    assert_eq!(
        error.transport_bytes(),
        [hex("030d098c00000000"), bytes[..28].to_vec()].concat()
    ); // V8
    assert_eq!(
        (error.source(), error.destination()),
        (original.destination(), original.source())
    );
    assert_eq!((error.bytes().len(), error.hop_limit()), (56, 20));
    assert!(error.checksums_match() && error.is_icmp_error());

    let unreachable = icmp_error(&pool(), &original, IcmpError::Unreachable).unwrap();
    assert_eq!(unreachable.transport_bytes()[..8], hex("0300099900000000")); // V9
    assert!(
        icmp_error(&pool(), &error, IcmpError::Prohibited).is_none(),
        "no error about an error"
    );
}

#[test]
fn errors_about_ipv6_fit_the_tunnel() {
    let original = made("[fd00:2021:1111::7]:1", "[2001:db8::1]:2", &[7; 1_200]);
    let error = icmp_error(&pool(), &original, IcmpError::TooBig { mtu: 1_280 }).unwrap();

    assert_eq!(error.icmp_type(), Some((2, 0)));
    assert!(error.bytes().len() <= MAX_PACKET && error.checksums_match());
}

#[test]
fn a_packet_that_would_be_too_large_is_not_made() {
    let [from, to] = ["100.64.0.7:1", "10.0.0.1:2"].map(|end| end.parse().unwrap());
    let most = MAX_PACKET - 28;
    assert!(udp(&pool(), from, to, &vec![7; most]).is_some());
    for more in [most + 1, 2 * MAX_PACKET, 65_535, 70_000] {
        assert!(udp(&pool(), from, to, &vec![7; more]).is_none());
    }
    // Whatever the pool's buffers hold.
    assert!(udp(&Pool::new(64, 1), from, to, &[7; 100]).is_none());
}

#[test]
fn what_is_not_one_whole_packet_is_refused() {
    use PacketError::{Fragment, Length, NotIp, TooLarge, WrongIcmp};
    let refused = |bytes: &[u8]| Packet::parse(bytes).err();
    let good = hello();
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };

    assert_eq!(refused(&[]), Some(NotIp));
    assert_eq!(refused(&with(0, 0x55)), Some(NotIp));
    assert_eq!(
        refused(&with(0, 0x44)),
        Some(Length { header: "IPv4" }),
        "IHL 4"
    );
    assert_eq!(
        refused(&good[..good.len() - 1]),
        Some(Length { header: "IPv4" })
    );
    assert_eq!(refused(&with(6, 0x20)), Some(Fragment), "more fragments");
    assert_eq!(refused(&with(7, 0x01)), Some(Fragment), "an offset");
    assert_eq!(refused(&with(25, 14)), Some(Length { header: "UDP" }));
    assert_eq!(refused(&with(9, protocol::ICMPV6)), Some(WrongIcmp));
    assert_eq!(
        refused(&with(9, protocol::TCP)),
        Some(Length { header: "TCP" })
    );
    assert_eq!(
        refused(&[0x45; MAX_PACKET + 1]),
        Some(TooLarge {
            len: MAX_PACKET + 1
        })
    );
}

#[test]
fn an_atomic_fragment_of_ipv6_is_a_whole_packet() {
    let inner = made("[fd00::1]:1", "[fd00::2]:2", b"x");
    let with_fragment_header = |offset: u16| {
        let mut bytes = inner.bytes()[..40].to_vec();
        bytes[6] = protocol::FRAGMENT;
        bytes[4..6].copy_from_slice(&(inner.transport_bytes().len() as u16 + 8).to_be_bytes());
        bytes.extend_from_slice(&[protocol::UDP, 0]);
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(inner.transport_bytes());
        bytes
    };

    let atomic = with_fragment_header(0);
    let packet = Packet::parse(atomic.as_slice()).unwrap();
    assert_eq!(
        (packet.transport(), packet.payload()),
        (Transport::Udp, b"x".as_slice())
    );
    assert!(packet.checksums_match());
    assert_eq!(
        Packet::parse(with_fragment_header(1).as_slice()).err(),
        Some(PacketError::Fragment)
    );
    assert_eq!(
        Packet::parse(with_fragment_header(8).as_slice()).err(),
        Some(PacketError::Fragment)
    );
}

#[test]
fn the_stated_length_leaves_padding_out() {
    let mut padded = hello();
    let len = padded.len();
    padded.resize(48, 0);
    assert_eq!(stated_len(&padded), Some(len));
    assert_eq!(stated_len(&[]), None);
}

proptest::proptest! {
    /// gateway.md P7: after any change, every checksum still holds.
    #[test]
    fn mutators_keep_checksums(
        v6: bool, payload in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        ips: [u128; 4], ports: [u16; 4], ecn: u8,
    ) {
        let ip = |bits: u128| if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
        let mut packet = udp(
            &pool(),
            SocketAddr::new(ip(ips[0]), ports[0]),
            SocketAddr::new(ip(ips[1]), ports[1]),
            &payload,
        ).unwrap();
        proptest::prop_assert!(packet.checksums_match());

        packet.set_source(ip(ips[2]));
        packet.set_destination(ip(ips[3]));
        packet.set_source_port(ports[2]);
        packet.set_destination_port(ports[3]);
        packet.set_ecn(Ecn::from_bits(ecn));

        proptest::prop_assert!(packet.checksums_match());
        proptest::prop_assert_eq!((packet.source(), packet.destination()), (ip(ips[2]), ip(ips[3])));
        proptest::prop_assert_eq!(packet.source_port(), Some(ports[2]));
        proptest::prop_assert_eq!(packet.destination_port(), Some(ports[3]));
        proptest::prop_assert_eq!(packet.ecn(), Ecn::from_bits(ecn));
        proptest::prop_assert_eq!(packet.payload(), payload);
    }

    #[test]
    fn no_bytes_panic(mut bytes: Vec<u8>, version in 4..=6_u8, transport: u8) {
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | (*first & 0xF);
        }
        let len = bytes.len() as u16;
        if version == 4 && bytes.len() >= 20 {
            bytes[0] = 0x45;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[6..8].fill(0);
            bytes[9] = transport;
        } else if bytes.len() >= 40 {
            bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            bytes[6] = transport;
        }
        if let Ok(mut packet) = Packet::parse(bytes) {
            packet.payload();
            packet.checksums_match();
            packet.set_ecn(Ecn::Ce);
            packet.set_source_port(1);
            crate::control::Control::parse(&packet);
            icmp_error(&pool(), &packet, IcmpError::Prohibited);
        }
    }
}

use super::*;

/// New ends for a packet, which are the same whether they are set before it is cut or after.
macro_rules! rewrite {
    ($packet:expr, $version:expr) => {
        let (source, destination) = match $version {
            Version::V4 => ("100.64.0.7", "100.96.0.1"),
            Version::V6 => ("fd00:2021:1111::7", "2001:db8::1"),
        };
        $packet.set_source(source.parse().unwrap());
        $packet.set_destination(destination.parse().unwrap());
        $packet.set_source_port(1_234);
        $packet.set_destination_port(53);
    };
}

fn assert_rewritten_alike(sample: &Sample, whole: SuperPacket<Vec<u8>>) {
    let mut rewritten = whole.clone();
    rewrite!(rewritten, sample.version);
    assert_eq!(rewritten.packet().destination_port(), Some(53));

    let later: Vec<Vec<u8>> = segments(whole)
        .into_iter()
        .map(|segment| {
            let mut packet = Packet::parse_any_size(segment).unwrap();
            rewrite!(packet, sample.version);
            assert!(packet.checksums_match());
            packet.into_inner()
        })
        .collect();
    assert_eq!(segments(rewritten), later);
}

#[test]
fn new_addresses_and_ports_reach_each_segment() {
    for version in VERSIONS {
        let tcp = Sample::tcp(version, 5, PSH | CWR, &numbers(3_000));
        let udp = Sample::udp(version, &numbers(3_000));
        for sample in [tcp, udp] {
            for size in [0, 1_200, 3_000, 12] {
                assert_rewritten_alike(&sample, parsed(&sample, size));
            }
            let complete = SuperPacket::parse(VirtioHeader::default(), sample.build()).unwrap();
            assert_rewritten_alike(&sample, complete);
        }
    }
}

#[test]
fn an_echo_gets_another_id() {
    let pool = crate::buffer::Pool::new(2_048, 1);
    let route = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let sent = crate::ip::echo(&pool, route, crate::ip::Echo::Request, (7, 1), b"ping").unwrap();
    let bytes = sent.bytes().to_vec();
    let mut whole = SuperPacket::parse(VirtioHeader::default(), bytes).unwrap();
    whole.set_echo_id(8);
    whole.set_source_port(9);

    assert_eq!(whole.packet().echo_id(), Some(8));
    assert!(whole.packet().checksums_match());
}

proptest! {
    #[test]
    fn rewritten_then_cut_is_cut_then_rewritten(
        v6: bool,
        tcp: bool,
        flags: u8,
        payload in proptest::collection::vec(any::<u8>(), 1..2_000),
        size in 10_u16..1_300,
        options in 0_usize..3,
    ) {
        let version = VERSIONS[usize::from(v6)];
        let sample = if tcp {
            Sample::tcp(version, 7, flags, &payload)
        } else {
            Sample::udp(version, &payload)
        };
        let sample = sample.with(|s| s.ip_options = vec![0; options * 8]);

        assert_rewritten_alike(&sample, parsed(&sample, size));
    }
}

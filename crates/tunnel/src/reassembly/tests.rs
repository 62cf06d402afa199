use connlib_wire::ip;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::super_packet::SuperPacket;
use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
fn start() -> Instant {
    Instant::now()
}

fn peer(n: u128) -> Option<PeerId> {
    Some(PeerId(uuid::Uuid::from_u128(n)))
}

/// A packet of UDP over IPv4 that may be cut; its number is `id`, its checksum left out.
fn whole(id: u16, len: usize) -> Vec<u8> {
    let pool = Pool::new(2_048, 1);
    let (from, to) = ("100.64.0.1:1", "10.20.0.10:2");
    let made = ip::udp(&pool, from.parse().unwrap(), to.parse().unwrap(), &[]).unwrap();
    let mut headers = made.bytes()[..20].to_vec();
    headers[4..6].copy_from_slice(&id.to_be_bytes());
    make_whole(&mut headers, 8 + len).unwrap();
    let mut bytes = [&headers, &made.bytes()[20..]].concat();
    bytes[24..26].copy_from_slice(&(8 + len as u16).to_be_bytes());
    bytes[26..28].fill(0);
    bytes.extend((0..len).map(|n| (n % 251) as u8));

    bytes
}

fn parts(whole: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let mut packet = SuperPacket::parse(VirtioHeader::default(), whole.to_vec()).unwrap();
    assert!(packet.fit_into(limit));
    let mut parts = Vec::new();
    let mut segments = packet.split();
    while let Some(part) = segments.next_segment() {
        parts.push(part.to_vec());
    }

    parts
}

fn take(to: &mut Reassembly, now: Instant, from: Option<PeerId>, part: &[u8]) -> Option<Vec<u8>> {
    let part = Fragment::parse(part).unwrap();

    to.take(now, from, &part, part.ecn)
        .map(|whole| whole.to_vec())
}

proptest! {
    #[test]
    fn parts_in_any_order_some_of_them_twice_make_the_whole_once(
        len in 1_300_usize..20_000,
        limit in 576_usize..1_280,
        order in proptest::collection::vec(any::<u16>(), 60),
    ) {
        let whole = whole(7, len);
        let mut mixed = parts(&whole, limit);
        let twice = mixed[order.len() % mixed.len()].clone();
        mixed.push(twice);
        for (at, random) in order.iter().enumerate() {
            let (at, random) = (at % mixed.len(), usize::from(*random) % mixed.len());
            mixed.swap(at, random);
        }
        let mut reassembly = Reassembly::new();
        let now = start();
        let made: Vec<_> = mixed
            .iter()
            .filter_map(|part| take(&mut reassembly, now, None, part))
            .collect();
        prop_assert_eq!(made, [whole]);
    }
}

#[test]
fn packets_of_two_peers_with_one_number_are_two() {
    let mut reassembly = Reassembly::new();
    let now = start();
    let whole = whole(7, 2_000);
    let [first, last] = parts(&whole, 1_280).try_into().unwrap();
    assert_eq!(take(&mut reassembly, now, peer(1), &first), None);
    assert_eq!(take(&mut reassembly, now, peer(2), &last), None);
    assert_eq!(take(&mut reassembly, now, peer(1), &last), Some(whole));
    assert_eq!(reassembly.waiting.len(), 1);
    reassembly.trim(now + PATIENCE);
    assert_eq!((reassembly.waiting.len(), reassembly.held), (0, 0));
    assert_eq!(reassembly.take_lost(), 1);
}

#[test]
fn parts_that_overlap_or_contradict_make_nothing_whatever_follows() {
    let now = start();
    let whole = whole(7, 3_000);
    let [first, middle, last] = parts(&whole, 1_280).try_into().unwrap();
    let shifted = |part: &[u8], eights: u16| {
        let mut part = part.to_vec();
        let field = u16::from_be_bytes([part[6], part[7]]) - eights;
        part[6..8].copy_from_slice(&field.to_be_bytes());
        part
    };
    let mut other = middle.clone();
    other[40] ^= 1;
    let mut longer_after_last = middle.clone();
    longer_after_last[6..8].copy_from_slice(&(0x2000 | 500_u16).to_be_bytes());
    for evil in [
        shifted(&middle, 1),
        shifted(&last, 20),
        other,
        longer_after_last,
    ] {
        let mut reassembly = Reassembly::new();
        for part in [&middle, &last, &evil, &first, &middle, &last] {
            assert_eq!(take(&mut reassembly, now, None, part), None);
        }
        assert_eq!((reassembly.held, reassembly.take_lost()), (0, 6));

        // The number is free again once all of that is long gone.
        let later = now + PATIENCE;
        assert_eq!(take(&mut reassembly, later, None, &first), None);
        assert_eq!(take(&mut reassembly, later, None, &middle), None);
        assert!(take(&mut reassembly, later, None, &last).is_some());
    }
}

#[test]
fn a_part_that_can_not_be_one_voids_the_packet() {
    let mut uneven = parts(&whole(7, 3_000), 1_280)[0].clone();
    uneven.pop();
    let len = uneven.len() as u16;
    uneven[2..4].copy_from_slice(&len.to_be_bytes());
    let mut reassembly = Reassembly::new();
    assert_eq!(take(&mut reassembly, start(), None, &uneven), None);
    let mut beyond = parts(&whole(8, 3_000), 1_280)[2].clone();
    beyond[6..8].copy_from_slice(&0x1FFF_u16.to_be_bytes());
    assert_eq!(take(&mut reassembly, start(), None, &beyond), None);
    assert_eq!((reassembly.held, reassembly.take_lost()), (0, 2));
}

#[test]
fn what_waits_is_bounded_in_time_and_memory_and_who_has_most_loses() {
    let mut reassembly = Reassembly::new();
    let now = start();
    let honest = whole(7, 2_000);
    let [first, last] = parts(&honest, 1_280).try_into().unwrap();
    assert_eq!(take(&mut reassembly, now, peer(1), &first), None);
    for id in 0..5_000 {
        let parts = parts(&whole(id, 2_000), 1_280);
        assert_eq!(take(&mut reassembly, now, peer(2), &parts[0]), None);
        assert!(reassembly.waiting.len() <= MAX_WAITING && reassembly.held <= MAX_HELD);
    }
    for id in 0..64 {
        for part in &parts(&whole(id, 60_000), 1_280)[1..] {
            assert_eq!(take(&mut reassembly, now, peer(2), part), None);
            assert!(reassembly.waiting.len() <= MAX_WAITING && reassembly.held <= MAX_HELD);
        }
    }
    assert_eq!(take(&mut reassembly, now, peer(1), &last), Some(honest));

    let later = now + PATIENCE;
    reassembly.trim(later);
    assert_eq!((reassembly.waiting.len(), reassembly.held), (0, 0));
}

#[test]
fn a_mark_on_one_part_is_on_the_whole_if_it_can_carry_one() {
    for (capable, marked) in [(Ecn::Ect0, Ecn::Ce), (Ecn::NotEct, Ecn::NotEct)] {
        let mut bytes = whole(7, 2_000);
        Packet::parse_any_size(bytes.as_mut_slice())
            .unwrap()
            .set_ecn(capable);
        let [first, last] = parts(&bytes, 1_280).try_into().unwrap();
        let mut reassembly = Reassembly::new();
        assert_eq!(take(&mut reassembly, start(), None, &first), None);
        let last = Fragment::parse(&last).unwrap();
        let made = reassembly.take(start(), None, &last, Ecn::Ce).unwrap();
        let made = Packet::parse_any_size(made).unwrap();
        assert_eq!(made.ecn(), marked);
        assert!(made.checksums_match());
    }
}

//! Views of IP, TCP, UDP and ICMP, and their checksums.
//!
//! * A sum doesn't depend on how it is added up, and an update of it equals a sum made anew.
//! * A changed address, port or mark is read back, changes nothing else, and leaves right checksums right and wrong ones
//!   wrong.
//! * Packets that we make are read back as they were meant, and errors are never answered with errors.

use std::net::{IpAddr, SocketAddr};

use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::ip::checksum::{self, Sum};
use connlib_wire::ip::{
    Echo, IcmpError, Packet, Transport, Version, echo, flow_hash, icmp_error, stated_len, udp,
};

use crate::choices::Choices;
use crate::repair::repair;

/// What to do, what to write, and a packet: as it is, or made right before.
pub fn ip_packets(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let is_repaired = choices.byte() & 1 == 1;
    let change = Change::new(&mut choices);
    let mut packet = choices.rest().to_vec();

    sums(&packet, change.port.into());
    made(&change, &packet);
    if is_repaired {
        repair(&mut packet);
    }
    let Ok(parsed) = Packet::parse(packet.as_slice()) else {
        return;
    };
    read(&parsed);
    answered(&parsed, change.port);
    changed(&packet, &change);
}

/// What is written into a packet.
struct Change {
    v4: IpAddr,
    v6: IpAddr,
    port: u16,
    ecn: Ecn,
}

impl Change {
    fn new(choices: &mut Choices<'_>) -> Self {
        let v4: [u8; 4] = choices.array();
        let v6: [u8; 16] = choices.array();

        Self {
            v4: v4.into(),
            v6: v6.into(),
            port: choices.word(),
            ecn: Ecn::from_bits(choices.byte()),
        }
    }

    fn address(&self, version: Version) -> IpAddr {
        match version {
            Version::V4 => self.v4,
            Version::V6 => self.v6,
        }
    }
}

/// Word by word, as RFC 1071 defines it.
fn plain_sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0_u16, |sum, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]);
        let (sum, carried) = sum.overflowing_add(word);
        sum + u16::from(carried)
    })
}

fn sums(bytes: &[u8], cut: usize) {
    assert_eq!(Sum::default().bytes(bytes).folded(), plain_sum(bytes));

    let cut = cut.min(bytes.len()) & !1;
    let (front, back) = bytes.split_at(cut);
    let in_parts = Sum::default().bytes(front).bytes(back);
    assert_eq!(in_parts.folded(), plain_sum(bytes));

    // `front` is replaced by something as long, made of `back`.
    let new: Vec<u8> = back
        .iter()
        .copied()
        .chain([0xA5; 2])
        .cycle()
        .take(cut)
        .collect();
    let whole = Sum::default().bytes(bytes).checksum();
    let updated = checksum::updated(whole, front, &new);
    let anew = Sum::default().bytes(&new).bytes(back).checksum();
    assert!(same_sum(updated, anew), "{updated:04x} {anew:04x}");
}

/// Zero has two forms in ones' complement.
fn same_sum(a: u16, b: u16) -> bool {
    a % 0xFFFF == b % 0xFFFF
}

fn read(packet: &Packet<&[u8]>) {
    let bytes = packet.bytes();
    assert!(bytes.len() <= MAX_PACKET);
    assert_eq!(stated_len(bytes), Some(bytes.len()));
    assert!(bytes.ends_with(packet.transport_bytes()));
    assert!(packet.transport_bytes().ends_with(packet.payload()));
    assert_eq!(packet.source().is_ipv4(), packet.version() == Version::V4);
    let has_ports = matches!(packet.transport(), Transport::Tcp | Transport::Udp);
    assert_eq!(packet.source_port().is_some(), has_ports);
    assert_eq!(packet.destination_port().is_some(), has_ports);
    assert!(!packet.is_icmp_error() || packet.icmp_type().is_some());
}

fn answered(packet: &Packet<&[u8]>, mtu: u16) {
    let pool = Pool::new(2_048, 1);
    for error in [
        IcmpError::Prohibited,
        IcmpError::Unreachable,
        IcmpError::TooBig { mtu },
    ] {
        let Some(answer) = icmp_error(&pool, packet, error) else {
            assert!(packet.is_icmp_error());
            continue;
        };
        assert!(!packet.is_icmp_error());
        assert!(answer.is_icmp_error() && answer.checksums_match());
        assert_eq!(answer.source(), packet.destination());
        assert_eq!(answer.destination(), packet.source());
        assert!(packet.bytes().starts_with(answer.payload()));
        assert!(icmp_error(&pool, &answer, error).is_none());
    }
}

fn changed(packet: &[u8], change: &Change) {
    let before = Packet::parse(packet).expect("it was a packet");
    let address = change.address(before.version());
    // A UDP checksum of zero says "none", and stays whatever the sum would be.
    let has_checksum = match (before.transport(), before.version()) {
        (Transport::Udp, _) => before.transport_bytes()[6..8] != [0, 0],
        _ => true,
    };
    let was_right = before.checksums_match();

    let mut bytes = packet.to_vec();
    let mut after = Packet::parse(bytes.as_mut_slice()).expect("it was a packet");
    after.set_source(address);
    after.set_destination(address);
    after.set_source_port(change.port);
    after.set_destination_port(change.port);
    after.set_ecn(change.ecn);
    assert_eq!(after.source(), address);
    assert_eq!(after.destination(), address);
    assert_eq!(after.ecn(), change.ecn);
    if before.source_port().is_some() {
        assert_eq!(after.source_port(), Some(change.port));
        assert_eq!(after.destination_port(), Some(change.port));
    }
    if has_checksum {
        assert_eq!(after.checksums_match(), was_right);
    }

    let after = Packet::parse(bytes.as_slice()).expect("it is still one");
    assert_eq!(after.transport(), before.transport());
    assert_eq!(after.payload(), before.payload());
    assert_eq!(after.hop_limit(), before.hop_limit());
    assert_eq!(after.icmp_type(), before.icmp_type());

    // There and back again: nothing else was touched.
    let mut back = Packet::parse(bytes.as_mut_slice()).expect("it is still one");
    back.set_source(before.source());
    back.set_destination(before.destination());
    back.set_source_port(before.source_port().unwrap_or_default());
    back.set_destination_port(before.destination_port().unwrap_or_default());
    back.set_ecn(before.ecn());
    assert_eq!(flow_hash(&back, 7), flow_hash(&before, 7));
    assert_eq!(without_sums(&bytes), without_sums(packet));
}

/// A packet without its checksums, of which zero can be written in two ways.
fn without_sums(packet: &[u8]) -> Vec<u8> {
    let parsed = Packet::parse(packet).expect("it is a packet");
    let at = packet.len() - parsed.transport_bytes().len();
    let sum_at = match parsed.transport() {
        Transport::Tcp => Some(at + 16),
        Transport::Udp => Some(at + 6),
        Transport::Icmp => Some(at + 2),
        Transport::Other(_) => None,
    };
    let is_v4 = parsed.version() == Version::V4;
    let mut bytes = packet.to_vec();
    for at in sum_at.into_iter().chain(is_v4.then_some(10)) {
        bytes[at..at + 2].fill(0);
    }

    bytes
}

/// Packets made of parts.
fn made(change: &Change, payload: &[u8]) {
    let pool = Pool::new(2_048, 1);
    for ip in [change.v4, change.v6] {
        let source = SocketAddr::new(ip, change.port);
        let destination = SocketAddr::new(ip, change.port.rotate_left(8));
        let headers = if ip.is_ipv4() { 20 } else { 40 } + 8;
        let fits = headers + payload.len() <= MAX_PACKET;

        let packet = udp(&pool, source, destination, payload);
        assert_eq!(packet.is_some(), fits);
        if let Some(packet) = packet {
            assert!(packet.checksums_match());
            assert_eq!(packet.payload(), payload);
            assert_eq!(packet.source_port(), Some(source.port()));
            assert_eq!(packet.destination_port(), Some(destination.port()));
        }
        for direction in [Echo::Request, Echo::Reply] {
            let ids = (change.port, change.port);
            let packet = echo(&pool, (ip, ip), direction, ids, payload);
            assert_eq!(packet.is_some(), fits);
            if let Some(packet) = packet {
                assert!(packet.checksums_match() && !packet.is_icmp_error());
                assert_eq!(packet.payload(), payload);
            }
        }
    }
    let (v4, v6) = (SocketAddr::new(change.v4, 1), SocketAddr::new(change.v6, 1));
    assert!(udp(&pool, v4, v6, payload).is_none());
}

//! Messages inside the tunnel.
//!
//! * What is understood and written again means the same; written once more, the same bytes.
//! * A message is known by its addresses and its protocol alone: no other packet is taken for one.

use std::net::{IpAddr, Ipv6Addr};

use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::Pool;
use connlib_wire::control::Control;
use connlib_wire::ip::{Packet, Transport, protocol};

/// How much room a message's headers take.
const HEADERS: usize = 48;

/// An even first byte: a packet as it is. An odd one: the kind of a message, and its payload.
pub fn control(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else {
        return;
    };
    if mode & 1 == 0 {
        packet(rest);
    } else if let Some((kind, payload)) = rest.split_first() {
        packet(&message(*kind, payload));
    }
}

fn packet(bytes: &[u8]) {
    let Ok(packet) = Packet::parse(bytes) else {
        return;
    };
    let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let looks_like_one = packet.transport() == Transport::Other(protocol::RESERVED)
        && packet.source().is_unspecified()
        && packet.destination().is_unspecified();

    let control = match Control::parse(&packet) {
        None => {
            assert!(!looks_like_one || packet.transport_bytes().len() < 8);
            return;
        }
        Some(Err(error)) => {
            assert!(looks_like_one);
            // Told to a log.
            assert!(!error.to_string().is_empty());
            return;
        }
        Some(Ok(control)) => control,
    };
    assert!(looks_like_one);

    let pool = Pool::new(2_048, 1);
    // What was read in a compact form may not fit when it is written in ours.
    let Some(written) = control.to_packet(&pool) else {
        return;
    };
    assert!(written.bytes().len() <= MAX_PACKET);
    assert_eq!(
        (written.source(), written.destination()),
        (unspecified, unspecified)
    );
    let again = Control::parse(&written)
        .expect("it is a control packet")
        .expect("what we write can be read");
    assert_eq!(again, control);
    let same = again.to_packet(&pool).expect("it fitted before");
    assert_eq!(same.bytes(), written.bytes());
}

fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(MAX_PACKET - HEADERS)];
    let mut packet = vec![0; HEADERS];
    let [l0, l1] = u16::try_from(payload.len() + 8).unwrap().to_be_bytes();
    packet[..8].copy_from_slice(&[0x60, 0, 0, 0, l0, l1, protocol::RESERVED, 0]);
    packet[40] = kind;
    packet.extend_from_slice(payload);

    packet
}

//! Packets made right, so that code behind the checks is reached.

use connlib_wire::ip::checksum::{Sum, pseudo_header};
use connlib_wire::ip::{Packet, Transport, Version, protocol};

/// Makes lengths and checksums right.
pub(crate) fn repair(bytes: &mut [u8]) {
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

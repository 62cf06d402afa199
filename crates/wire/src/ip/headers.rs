//! Where the headers of a packet end, and whether their lengths agree.

use super::{PacketError, Transport, Version, protocol};

/// The length an IP header states; what lies behind it is WireGuard's padding.
pub fn stated_len(bytes: &[u8]) -> Option<usize> {
    let u16_at = |at: usize| {
        let pair = bytes.get(at..)?.first_chunk::<2>()?;
        Some(usize::from(u16::from_be_bytes(*pair)))
    };

    match bytes.first()? >> 4 {
        4 => u16_at(2),
        6 => Some(u16_at(4)? + 40),
        _ => None,
    }
}

pub(super) fn v4_headers(raw: &[u8]) -> Result<(Version, u8, usize), PacketError> {
    const ERROR: PacketError = PacketError::Length { header: "IPv4" };
    let header = raw.first_chunk::<20>().ok_or(ERROR)?;
    let [first, _, l0, l1, _, _, f0, f1, _, number, ..] = *header;
    let header_len = usize::from(first & 0x0F) * 4;
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    if header_len < 20 || total != raw.len() || header_len > total {
        return Err(ERROR);
    }
    // More fragments, or an offset.
    if u16::from_be_bytes([f0, f1]) & 0x3FFF != 0 {
        return Err(PacketError::Fragment);
    }

    Ok((Version::V4, number, header_len))
}

pub(super) fn v6_headers(raw: &[u8]) -> Result<(Version, u8, usize), PacketError> {
    const ERROR: PacketError = PacketError::Length { header: "IPv6" };
    let header = raw.first_chunk::<40>().ok_or(ERROR)?;
    let [_, _, _, _, l0, l1, ..] = *header;
    if usize::from(u16::from_be_bytes([l0, l1])) + 40 != raw.len() {
        return Err(ERROR);
    }

    let (number, transport_at) = v6_transport(raw)?;

    Ok((Version::V6, number, transport_at))
}

/// Follows the extension headers, whatever length the packet states: what comes behind them, and where.
pub(super) fn v6_transport(raw: &[u8]) -> Result<(u8, usize), PacketError> {
    const ERROR: PacketError = PacketError::Length { header: "IPv6" };
    let [_, _, _, _, _, _, next, ..] = *raw.first_chunk::<40>().ok_or(ERROR)?;
    let (mut next, mut at) = (next, 40);
    // Hop-by-hop, routing and destination options have one shape; a chain ends at anything else.
    while let 0 | 43 | 60 | protocol::FRAGMENT = next {
        let [following, length, o0, o1] = *raw
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(ERROR)?;
        if next == protocol::FRAGMENT {
            // An offset, or more to come; without either it is an atomic fragment (RFC 6946).
            if u16::from_be_bytes([o0, o1]) & 0xFFF9 != 0 {
                return Err(PacketError::Fragment);
            }
            at += 8;
        } else {
            at += 8 + usize::from(length) * 8;
        }
        next = following;
        if at > raw.len() {
            return Err(ERROR);
        }
    }

    Ok((next, at))
}

pub(super) fn transport(
    version: Version,
    number: u8,
    bytes: &[u8],
) -> Result<Transport, PacketError> {
    match (number, version) {
        (protocol::TCP, _) => {
            let len = tcp_header_len(bytes);
            if bytes.len() < 20 || len < 20 || len > bytes.len() {
                return Err(PacketError::Length { header: "TCP" });
            }
            Ok(Transport::Tcp)
        }
        (protocol::UDP, _) => {
            let stated = bytes
                .first_chunk::<8>()
                .map(|[_, _, _, _, l0, l1, _, _]| usize::from(u16::from_be_bytes([*l0, *l1])));
            if stated != Some(bytes.len()) {
                return Err(PacketError::Length { header: "UDP" });
            }
            Ok(Transport::Udp)
        }
        (protocol::ICMP, Version::V4) | (protocol::ICMPV6, Version::V6) => {
            if bytes.len() < 8 {
                return Err(PacketError::Length { header: "ICMP" });
            }
            Ok(Transport::Icmp)
        }
        (protocol::ICMP, Version::V6) | (protocol::ICMPV6, Version::V4) => {
            Err(PacketError::WrongIcmp)
        }
        (number, _) => Ok(Transport::Other(number)),
    }
}

pub(super) fn tcp_header_len(bytes: &[u8]) -> usize {
    bytes
        .get(12)
        .map_or(0, |offset| usize::from(offset >> 4) * 4)
}

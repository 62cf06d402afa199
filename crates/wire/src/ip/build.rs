//! Packets that we make ourselves.

use std::net::{IpAddr, SocketAddr};

use super::checksum::{Sum, pseudo_header};
use super::{Packet, Version, protocol};
use crate::MAX_PACKET;
use crate::buffer::{Buffer, Pool};

/// The hop limit of ordinary packets.
const HOP_LIMIT: u8 = 64;

/// The hop limit of ICMP errors that a client or a gateway makes itself (gateway.md §1). Those of hosts have another one: systems
/// begin with 64 or more, and few networks are forty hops wide.
pub const ERROR_HOP_LIMIT: u8 = 20;

/// What an ICMP error reports (gateway.md §10.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum IcmpError {
    /// Access is not granted; a client takes it as the sign to ask again.
    Prohibited,
    /// Access is granted, but the destination can't be reached.
    Unreachable,
    /// The packet is larger than the path carries.
    TooBig {
        /// What the path carries, in bytes.
        mtu: u16,
    },
}

/// Makes a UDP packet; `None` if the families differ or it exceeds [`MAX_PACKET`].
pub fn udp(
    pool: &Pool,
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
) -> Option<Packet<Buffer>> {
    let length = u16::try_from(payload.len() + 8).ok()?;
    let mut transport = Vec::with_capacity(payload.len() + 8);
    transport.extend_from_slice(&source.port().to_be_bytes());
    transport.extend_from_slice(&destination.port().to_be_bytes());
    transport.extend_from_slice(&length.to_be_bytes());
    transport.extend_from_slice(&[0, 0]);
    transport.extend_from_slice(payload);

    let route = (source.ip(), destination.ip());
    let sum = pseudo_header(route.0, route.1, protocol::UDP, transport.len()).bytes(&transport);
    transport
        .get_mut(6..8)?
        .copy_from_slice(&sum.checksum().to_be_bytes());

    packet(pool, route, protocol::UDP, HOP_LIMIT, &transport)
}

/// Makes the first segment of a TCP connection; `None` if the families differ.
pub fn syn(pool: &Pool, source: SocketAddr, destination: SocketAddr) -> Option<Packet<Buffer>> {
    /// A header of five words, and the flag.
    const REST: [u8; 4] = [0x50, 0x02, 0xff, 0xff];
    let mut transport = Vec::with_capacity(20);
    transport.extend_from_slice(&source.port().to_be_bytes());
    transport.extend_from_slice(&destination.port().to_be_bytes());
    transport.extend_from_slice(&[0; 8]);
    transport.extend_from_slice(&REST);
    transport.extend_from_slice(&[0; 4]);

    let route = (source.ip(), destination.ip());
    let sum = pseudo_header(route.0, route.1, protocol::TCP, transport.len()).bytes(&transport);
    transport
        .get_mut(16..18)?
        .copy_from_slice(&sum.checksum().to_be_bytes());

    packet(pool, route, protocol::TCP, HOP_LIMIT, &transport)
}

/// Makes an ICMP or ICMPv6 echo request or reply; `None` as for [`udp`].
pub fn echo(
    pool: &Pool,
    (source, destination): (IpAddr, IpAddr),
    direction: Echo,
    (id, sequence): (u16, u16),
    payload: &[u8],
) -> Option<Packet<Buffer>> {
    let kind = match (direction, source) {
        (Echo::Request, IpAddr::V4(_)) => 8,
        (Echo::Reply, IpAddr::V4(_)) => 0,
        (Echo::Request, IpAddr::V6(_)) => 128,
        (Echo::Reply, IpAddr::V6(_)) => 129,
    };
    let mut rest = Vec::with_capacity(payload.len() + 4);
    rest.extend_from_slice(&id.to_be_bytes());
    rest.extend_from_slice(&sequence.to_be_bytes());
    rest.extend_from_slice(payload);

    icmp(pool, (source, destination), HOP_LIMIT, [kind, 0], &rest)
}

/// The direction of an echo.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Echo {
    /// A question.
    Request,
    /// Its answer.
    Reply,
}

/// Makes the ICMP error that answers `original`, as if its destination had sent it.
///
/// `None` if `original` is an ICMP error itself: an error about an error could go round for ever (RFC 1122 §3.2.2).
pub fn icmp_error<T: AsRef<[u8]>>(
    pool: &Pool,
    original: &Packet<T>,
    error: IcmpError,
) -> Option<Packet<Buffer>> {
    if original.is_icmp_error() {
        return None;
    }

    let (kind, value, quoted) = match original.version() {
        Version::V4 => {
            let (code, value) = match error {
                IcmpError::Prohibited => (13, 0),
                IcmpError::Unreachable => (0, 0),
                IcmpError::TooBig { mtu } => (4, u32::from(mtu)),
            };
            // The IP header and the first eight bytes behind it.
            let header = original.bytes().len() - original.transport_bytes().len();
            ([3, code], value, header + 8)
        }
        Version::V6 => {
            let (kind, value) = match error {
                IcmpError::Prohibited => ([1, 1], 0),
                IcmpError::Unreachable => ([1, 3], 0),
                IcmpError::TooBig { mtu } => ([2, 0], u32::from(mtu)),
            };
            (kind, value, MAX_PACKET - 40 - 8)
        }
    };
    let quoted = original
        .bytes()
        .get(..quoted)
        .unwrap_or_else(|| original.bytes());
    let mut rest = value.to_be_bytes().to_vec();
    rest.extend_from_slice(quoted);

    let route = (original.destination(), original.source());
    icmp(pool, route, ERROR_HOP_LIMIT, kind, &rest)
}

fn icmp(
    pool: &Pool,
    route: (IpAddr, IpAddr),
    hop_limit: u8,
    kind: [u8; 2],
    rest: &[u8],
) -> Option<Packet<Buffer>> {
    let mut transport = Vec::with_capacity(rest.len() + 4);
    transport.extend_from_slice(&kind);
    transport.extend_from_slice(&[0, 0]);
    transport.extend_from_slice(rest);

    let (number, sum) = match route.0 {
        IpAddr::V4(_) => (protocol::ICMP, Sum::default()),
        IpAddr::V6(_) => (
            protocol::ICMPV6,
            pseudo_header(route.0, route.1, protocol::ICMPV6, transport.len()),
        ),
    };
    let checksum = sum.bytes(&transport).checksum();
    transport
        .get_mut(2..4)?
        .copy_from_slice(&checksum.to_be_bytes());

    packet(pool, route, number, hop_limit, &transport)
}

fn packet(
    pool: &Pool,
    route: (IpAddr, IpAddr),
    number: u8,
    hop_limit: u8,
    transport: &[u8],
) -> Option<Packet<Buffer>> {
    let mut buffer = pool.take(0);
    match route {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = u16::try_from(20 + transport.len()).ok()?;
            let mut header = [0; 20];
            let [l0, l1] = total.to_be_bytes();
            // No options; don't fragment.
            let [start @ .., _, _, _, _, _, _, _, _, _, _] = &mut header;
            *start = [0x45, 0, l0, l1, 0, 0, 0x40, 0, hop_limit, number];
            let addresses = [source.octets(), destination.octets()].concat();
            header.get_mut(12..)?.copy_from_slice(&addresses);
            let checksum = Sum::default().bytes(&header).checksum();
            header
                .get_mut(10..12)?
                .copy_from_slice(&checksum.to_be_bytes());
            buffer.extend(20)?.copy_from_slice(&header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [l0, l1] = u16::try_from(transport.len()).ok()?.to_be_bytes();
            buffer
                .extend(8)?
                .copy_from_slice(&[0x60, 0, 0, 0, l0, l1, number, hop_limit]);
            buffer.extend(16)?.copy_from_slice(&source.octets());
            buffer.extend(16)?.copy_from_slice(&destination.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    buffer.extend(transport.len())?.copy_from_slice(transport);

    Packet::parse(buffer).ok()
}

//! Packets of programs, whatever carries them.

use std::net::{IpAddr, SocketAddr};

use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::Pool;
use connlib_wire::ip::checksum::{Sum, pseudo_header};
use connlib_wire::ip::{self, Echo, Packet, PortsOrId, Quoted, Transport, Version};

use crate::scenario::{Protocol, Service};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Request,
    Reply,
}

/// Why a request went nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// Nobody may use what was asked for (gateway.md §10.1).
    Prohibited,
    /// It can't be reached.
    Unreachable,
    /// Something else is wrong with the packet.
    Other,
}

/// What echoes are sent by.
const ECHO: Service = Service {
    protocol: Protocol::Icmp,
    port: 0,
};

/// The number of TCP.
const TCP: u8 = 6;

/// A header of five words, and the flags of a segment in the middle of a stream.
const TCP_REST: [u8; 4] = [0x50, 0x18, 0xff, 0xff];

/// Makes a packet between a program and a service: the program's address and port, or what it numbers its echoes by, come first.
/// Segments of one flow number what they carry by `number`. `None` if it doesn't fit.
pub(crate) fn packet_of(
    pool: &Pool,
    way: Way,
    ((program, own), (host, service)): ((IpAddr, u16), (IpAddr, Service)),
    number: u32,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let ends = [
        SocketAddr::new(program, own),
        SocketAddr::new(host, service.port),
    ];
    let [from, to] = match way {
        Way::Request => ends,
        Way::Reply => [ends[1], ends[0]],
    };
    let packet = match service.protocol {
        Protocol::Udp => ip::udp(pool, from, to, payload)?.bytes().to_vec(),
        Protocol::Icmp => {
            let direction = match way {
                Way::Request => Echo::Request,
                Way::Reply => Echo::Reply,
            };
            let sequence = (number & 0xffff) as u16;
            let route = (from.ip(), to.ip());
            let echo = ip::echo(pool, route, direction, (own, sequence), payload)?;
            echo.bytes().to_vec()
        }
        Protocol::Tcp => segment(from, to, number, payload)?,
    };

    Some(packet)
}

/// A segment in the middle of a stream: nobody is to see whether there was a beginning.
fn segment(from: SocketAddr, to: SocketAddr, number: u32, payload: &[u8]) -> Option<Vec<u8>> {
    let len = u32::try_from(payload.len()).ok()?;
    let mut transport = Vec::with_capacity(20 + payload.len());
    transport.extend_from_slice(&from.port().to_be_bytes());
    transport.extend_from_slice(&to.port().to_be_bytes());
    transport.extend_from_slice(&number.wrapping_mul(len).wrapping_add(1).to_be_bytes());
    transport.extend_from_slice(&1_u32.to_be_bytes());
    transport.extend_from_slice(&TCP_REST);
    transport.extend_from_slice(&[0; 4]);
    transport.extend_from_slice(payload);
    let sum = pseudo_header(from.ip(), to.ip(), TCP, transport.len()).bytes(&transport);
    transport
        .get_mut(16..18)?
        .copy_from_slice(&sum.checksum().to_be_bytes());

    ip_packet((from.ip(), to.ip()), TCP, &transport)
}

/// Puts an IP header in front of anything.
pub(crate) fn ip_packet(
    (from, to): (IpAddr, IpAddr),
    protocol: u8,
    transport: &[u8],
) -> Option<Vec<u8>> {
    let len = u16::try_from(transport.len()).ok()?;
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend_from_slice(&(len.checked_add(20)?).to_be_bytes());
            header.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            let checksum = Sum::default().bytes(&header).checksum();
            header
                .get_mut(10..12)?
                .copy_from_slice(&checksum.to_be_bytes());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend_from_slice(&len.to_be_bytes());
            header.extend_from_slice(&[protocol, 64]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            header
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    packet.extend_from_slice(transport);

    (packet.len() <= MAX_PACKET).then_some(packet)
}

/// A program's end of a packet, and the service at the other end. Echoes have an id in place of ports.
pub(super) fn ends<T: AsRef<[u8]>>(packet: &Packet<T>, way: Way) -> Option<(u16, Service)> {
    let protocol = match packet.transport() {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Icmp => return packet.echo_id().map(|id| (id, ECHO)),
        Transport::Other(_) => return None,
    };
    let (source, destination) = (packet.source_port()?, packet.destination_port()?);
    let (own, port) = match way {
        Way::Request => (source, destination),
        Way::Reply => (destination, source),
    };

    Some((own, Service { protocol, port }))
}

/// The same of a request that an ICMP error quotes.
pub(super) fn quoted_ends(quoted: &Quoted) -> Option<(u16, Service)> {
    let protocol = match quoted.transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Icmp | Transport::Other(_) => Protocol::Icmp,
    };

    match quoted.ports_or_id {
        PortsOrId::Ports {
            source,
            destination: port,
        } => Some((source, Service { protocol, port })),
        PortsOrId::EchoId(id) => Some((id, ECHO)),
        PortsOrId::Neither => None,
    }
}

/// Why a request went nowhere, as its program is told.
pub(super) fn refusal<T: AsRef<[u8]>>(error: &Packet<T>) -> Refusal {
    match (error.version(), error.icmp_type()) {
        (Version::V4, Some((3, 13))) | (Version::V6, Some((1, 1))) => Refusal::Prohibited,
        (Version::V4, Some((3, 0))) | (Version::V6, Some((1, 3))) => Refusal::Unreachable,
        _ => Refusal::Other,
    }
}

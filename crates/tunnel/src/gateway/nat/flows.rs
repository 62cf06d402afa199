//! Flows as each end knows them, and how packets tell which they belong to.

use std::net::IpAddr;

use connlib_wire::ip::{Packet, PortsOrId, Quoted, Transport, Version};

use crate::ranges;

/// What of a transport tells flows apart.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(in crate::gateway) enum Kind {
    Tcp,
    Udp,
    Echo,
}

/// A flow as the client knows it: its own port or echo id, and the address that stands for the name, or one of the network's
/// that a name has too.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(in crate::gateway) struct Inside {
    pub(in crate::gateway) kind: Kind,
    pub(in crate::gateway) port: u16,
    pub(in crate::gateway) proxy: IpAddr,
}

impl Inside {
    /// Whether the client knows the network's own address.
    pub(in crate::gateway) fn is_direct(&self) -> bool {
        !ranges::is_proxy(self.proxy)
    }
}

/// The same flow as the resource knows it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(in crate::gateway) struct Outside {
    pub(in crate::gateway) kind: Kind,
    pub(in crate::gateway) port: u16,
    pub(in crate::gateway) real: IpAddr,
}

/// What a TCP packet says about the end of its flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::gateway) enum TcpEnd {
    Finished,
    Reset,
}

impl TcpEnd {
    /// What a packet says, if anything.
    pub(in crate::gateway) fn of<T: AsRef<[u8]>>(packet: &Packet<T>) -> Option<Self> {
        let flags = packet.tcp_flags()?;
        if flags.is_rst() {
            return Some(Self::Reset);
        }

        flags.is_fin().then_some(Self::Finished)
    }
}

/// Whether an ICMP error is one that clients get to see (gateway.md §10.2). Others are about the site's own routers.
pub(in crate::gateway) fn is_passed_on<T: AsRef<[u8]>>(error: &Packet<T>) -> bool {
    match (error.version(), error.icmp_type()) {
        (_, None) => false,
        // Unreachable, time exceeded.
        (Version::V4, Some((kind, _))) => matches!(kind, 3 | 11),
        // Unreachable, too big, time exceeded.
        (Version::V6, Some((kind, _))) => matches!(kind, 1..=3),
    }
}

/// What tells the flows of a packet's sender apart.
pub(in crate::gateway) fn source_of<T: AsRef<[u8]>>(packet: &Packet<T>) -> Option<(Kind, u16)> {
    match packet.transport() {
        Transport::Tcp => Some((Kind::Tcp, packet.source_port()?)),
        Transport::Udp => Some((Kind::Udp, packet.source_port()?)),
        Transport::Icmp => Some((Kind::Echo, packet.echo_id()?)),
        Transport::Other(_) => None,
    }
}

/// What tells the flows to a packet's receiver apart.
pub(super) fn destination_of<T: AsRef<[u8]>>(packet: &Packet<T>) -> Option<(Kind, u16)> {
    match packet.transport() {
        Transport::Tcp => Some((Kind::Tcp, packet.destination_port()?)),
        Transport::Udp => Some((Kind::Udp, packet.destination_port()?)),
        Transport::Icmp => Some((Kind::Echo, packet.echo_id()?)),
        Transport::Other(_) => None,
    }
}

/// The flow that an ICMP error is about: it quotes a packet of the client's as the network saw it.
pub(super) fn quoted_flow<T: AsRef<[u8]>>(packet: &Packet<T>) -> Option<Outside> {
    let quoted = packet.quoted()?;
    let (kind, port) = match (quoted.transport, quoted.ports_or_id) {
        (Transport::Tcp, PortsOrId::Ports { source, .. }) => (Kind::Tcp, source),
        (Transport::Udp, PortsOrId::Ports { source, .. }) => (Kind::Udp, source),
        (_, PortsOrId::EchoId(id)) => (Kind::Echo, id),
        _ => return None,
    };

    Some(Outside {
        kind,
        port,
        real: quoted.destination,
    })
}

/// What tells the flows apart that the receiver of a quoted packet has.
pub(super) fn receiver_of(quoted: &Quoted) -> Option<(Kind, u16)> {
    match (quoted.transport, quoted.ports_or_id) {
        (Transport::Tcp, PortsOrId::Ports { destination, .. }) => Some((Kind::Tcp, destination)),
        (Transport::Udp, PortsOrId::Ports { destination, .. }) => Some((Kind::Udp, destination)),
        (_, PortsOrId::EchoId(id)) => Some((Kind::Echo, id)),
        _ => None,
    }
}

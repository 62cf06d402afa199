//! What translation and its time limits look at beside addresses and ports.

use super::{Packet, Transport, Version};

/// Where the id of an echo lies in its header.
pub(super) const ECHO_ID_AT: usize = 4;

/// The flags of a TCP header (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// Whether the sender has no more to send.
    pub fn is_fin(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// Whether a connection begins.
    pub fn is_syn(self) -> bool {
        self.0 & 0x02 != 0
    }

    /// Whether the connection is torn down.
    pub fn is_rst(self) -> bool {
        self.0 & 0x04 != 0
    }

    /// Whether it acknowledges something.
    pub fn is_ack(self) -> bool {
        self.0 & 0x10 != 0
    }
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// The flags of TCP.
    pub fn tcp_flags(&self) -> Option<TcpFlags> {
        let flags = self.transport_bytes().get(13)?;

        (self.transport == Transport::Tcp).then_some(TcpFlags(*flags))
    }

    /// The id of an ICMP or ICMPv6 echo request or reply.
    pub fn echo_id(&self) -> Option<u16> {
        is_echo(self.version, self.icmp_type()?)
            .then(|| self.u16_at(self.transport_at + ECHO_ID_AT))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the id of an echo request or reply; no change for anything else.
    pub fn set_echo_id(&mut self, id: u16) {
        if self.echo_id().is_some() {
            self.set_transport_u16(self.transport_at + ECHO_ID_AT, id);
        }
    }
}

/// Whether type and code are those of an echo request or reply.
pub(super) fn is_echo(version: Version, kind: (u8, u8)) -> bool {
    match version {
        Version::V4 => matches!(kind, (0 | 8, 0)),
        Version::V6 => matches!(kind, (128 | 129, 0)),
    }
}

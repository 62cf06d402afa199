//! IP packets: checked once, read by offset, changed with their checksums kept right (gateway.md §16).

mod build;
pub mod checksum;
mod fields;
mod flow;
pub(crate) mod fragment;
mod headers;
mod mss;
mod quoted;

pub use build::{ERROR_HOP_LIMIT, Echo, IcmpError, echo, icmp_error, syn, udp};
pub use fields::TcpFlags;
pub use flow::flow_hash;
pub use fragment::{Datagram, Fragment, make_whole};
pub use headers::stated_len;
pub use quoted::{PortsOrId, Quoted};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::MAX_PACKET;
use crate::ecn::Ecn;
use checksum::Sum;
use headers::{tcp_header_len, transport, v4_headers, v6_headers, v6_transport};

/// Why bytes are not a packet that we carry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Neither IPv4 nor IPv6.
    #[error("not an IP packet")]
    NotIp,
    /// A part of a larger packet: see [`Fragment`].
    #[error("a fragment")]
    Fragment,
    /// A length field contradicts the number of bytes.
    #[error("the {header} header contradicts the packet's length")]
    Length {
        /// Which header.
        header: &'static str,
    },
    /// Larger than [`MAX_PACKET`].
    #[error("{len} bytes are more than the {MAX_PACKET} a tunnel carries")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
    },
    /// ICMP in IPv6 or ICMPv6 in IPv4.
    #[error("ICMP of the other address family")]
    WrongIcmp,
    /// What the device says beside a packet contradicts it.
    #[error("the device's header doesn't fit the packet: {reason}")]
    Offload {
        /// What is wrong.
        reason: &'static str,
    },
}

/// The IP version.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Transport {
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Any other protocol, by its number.
    Other(u8),
}

/// The number of a protocol in the next-header fields.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// The number in-tunnel control uses.
    pub const RESERVED: u8 = 255;
}

/// A packet whose headers were checked when it was made.
///
/// `T` is what holds the bytes: `&[u8]`, `&mut [u8]`, a [`Buffer`](crate::buffer::Buffer).
#[derive(Clone, Copy, Debug)]
pub struct Packet<T> {
    bytes: T,
    version: Version,
    transport: Transport,
    transport_at: usize,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks that `bytes` are exactly one packet.
    ///
    /// # Errors
    ///
    /// [`PacketError`], by what is wrong.
    pub fn parse(bytes: T) -> Result<Self, PacketError> {
        let len = bytes.as_ref().len();
        if len > MAX_PACKET {
            return Err(PacketError::TooLarge { len });
        }

        Self::parse_any_size(bytes)
    }

    /// [`parse`](Self::parse) for what doesn't enter a tunnel as it is: up to 65,535 bytes, and 40 more of IPv6.
    ///
    /// # Errors
    ///
    /// As of [`parse`](Self::parse), but [`PacketError::TooLarge`].
    pub fn parse_any_size(bytes: T) -> Result<Self, PacketError> {
        let raw = bytes.as_ref();
        let (version, number, transport_at) = match raw.first().map(|byte| byte >> 4) {
            Some(4) => v4_headers(raw)?,
            Some(6) => v6_headers(raw)?,
            _ => return Err(PacketError::NotIp),
        };
        let transport = transport(version, number, raw.get(transport_at..).unwrap_or_default())?;

        Ok(Self {
            bytes,
            version,
            transport,
            transport_at,
        })
    }

    /// Takes a packet for a part of one, which no decision is made about any more: behind its headers lies nothing known.
    pub(crate) fn part(bytes: T) -> Result<Self, PacketError> {
        let Some(fragment) = Fragment::parse(bytes.as_ref()) else {
            return Self::parse_any_size(bytes);
        };
        let version = match fragment.of.source {
            IpAddr::V4(_) => Version::V4,
            IpAddr::V6(_) => Version::V6,
        };
        let transport_at = fragment.headers.len();

        Ok(Self {
            bytes,
            version,
            transport: Transport::Other(protocol::FRAGMENT),
            transport_at,
        })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// The same packet, borrowed.
    pub(crate) fn view(&self) -> Packet<&[u8]> {
        Packet {
            bytes: self.bytes.as_ref(),
            version: self.version,
            transport: self.transport,
            transport_at: self.transport_at,
        }
    }

    /// Gives the bytes back.
    pub fn into_inner(self) -> T {
        self.bytes
    }

    /// The IP version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What it carries.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The source address.
    pub fn source(&self) -> IpAddr {
        match self.version {
            Version::V4 => IpAddr::V4(self.array::<4>(12).into()),
            Version::V6 => IpAddr::V6(self.array::<16>(8).into()),
        }
    }

    /// The destination address.
    pub fn destination(&self) -> IpAddr {
        match self.version {
            Version::V4 => IpAddr::V4(self.array::<4>(16).into()),
            Version::V6 => IpAddr::V6(self.array::<16>(24).into()),
        }
    }

    /// The source port of TCP or UDP.
    pub fn source_port(&self) -> Option<u16> {
        matches!(self.transport, Transport::Tcp | Transport::Udp)
            .then(|| self.u16_at(self.transport_at))
    }

    /// The destination port of TCP or UDP.
    pub fn destination_port(&self) -> Option<u16> {
        matches!(self.transport, Transport::Tcp | Transport::Udp)
            .then(|| self.u16_at(self.transport_at + 2))
    }

    /// Time to live or hop limit.
    pub fn hop_limit(&self) -> u8 {
        let [limit] = match self.version {
            Version::V4 => self.array(8),
            Version::V6 => self.array(7),
        };
        limit
    }

    /// The congestion mark.
    pub fn ecn(&self) -> Ecn {
        let [second] = self.array(1);
        match self.version {
            Version::V4 => Ecn::from_bits(second),
            Version::V6 => Ecn::from_bits(second >> 4),
        }
    }

    /// The length of the IP headers: where the transport header begins.
    pub(crate) fn transport_at(&self) -> usize {
        self.transport_at
    }

    /// What lies behind the IP headers, transport header included.
    pub fn transport_bytes(&self) -> &[u8] {
        self.bytes().get(self.transport_at..).unwrap_or_default()
    }

    /// What lies behind the transport header; for ICMP, behind its eight bytes.
    pub fn payload(&self) -> &[u8] {
        let transport = self.transport_bytes();
        let header = match self.transport {
            Transport::Icmp | Transport::Udp => 8,
            Transport::Tcp => tcp_header_len(transport),
            Transport::Other(_) => 0,
        };
        transport.get(header..).unwrap_or_default()
    }

    /// Type and code of ICMP or ICMPv6.
    pub fn icmp_type(&self) -> Option<(u8, u8)> {
        let [kind, code] = *self.transport_bytes().first_chunk::<2>()?;

        (self.transport == Transport::Icmp).then_some((kind, code))
    }

    /// Whether it reports an error about another packet; such packets are never answered with an error.
    pub fn is_icmp_error(&self) -> bool {
        match (self.version, self.icmp_type()) {
            (_, None) => false,
            (Version::V4, Some((kind, _))) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (Version::V6, Some((kind, _))) => kind < 128,
        }
    }

    /// Whether every checksum it carries is right. UDP over IPv4 may carry none.
    pub fn checksums_match(&self) -> bool {
        let bytes = self.bytes();
        if self.version == Version::V4 {
            let header = bytes.get(..self.transport_at).unwrap_or_default();
            if Sum::default().bytes(header).folded() != 0xFFFF {
                return false;
            }
        }
        let Some(at) = self.transport_checksum_at() else {
            return true;
        };
        if self.transport == Transport::Udp && self.version == Version::V4 && self.u16_at(at) == 0 {
            return true;
        }

        self.pseudo_header().bytes(self.transport_bytes()).folded() == 0xFFFF
    }

    /// The sum that the transport's checksum begins with; empty for ICMP over IPv4, which covers no addresses.
    fn pseudo_header(&self) -> Sum {
        let number = match (self.transport, self.version) {
            (Transport::Icmp, Version::V4) => return Sum::default(),
            (Transport::Icmp, Version::V6) => protocol::ICMPV6,
            (Transport::Tcp, _) => protocol::TCP,
            (Transport::Udp, _) => protocol::UDP,
            (Transport::Other(number), _) => number,
        };

        checksum::pseudo_header(
            self.source(),
            self.destination(),
            number,
            self.transport_bytes().len(),
        )
    }

    /// Where the transport's checksum lies, if it has one.
    pub(crate) fn transport_checksum_at(&self) -> Option<usize> {
        let offset = match self.transport {
            Transport::Icmp => 2,
            Transport::Tcp => 16,
            Transport::Udp => 6,
            Transport::Other(_) => return None,
        };

        Some(self.transport_at + offset)
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    /// Bytes that `parse` made sure are there.
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes()
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the congestion mark.
    pub fn set_ecn(&mut self, ecn: Ecn) {
        match self.version {
            Version::V4 => {
                let old: [u8; 2] = self.array(0);
                let [first, second] = old;
                let new = [first, (second & !0b11) | ecn.bits()];
                self.put(0, &new);
                self.patch(10, &old, &new);
            }
            Version::V6 => {
                let [second] = self.array(1);
                self.put(1, &[(second & 0b1100_1111) | (ecn.bits() << 4)]);
            }
        }
    }

    /// Sets the source address; no change if it is of the other family.
    pub fn set_source(&mut self, source: IpAddr) {
        match (self.version, source) {
            (Version::V4, IpAddr::V4(ip)) => self.set_v4(12, ip),
            (Version::V6, IpAddr::V6(ip)) => self.set_v6(8, ip),
            (Version::V4, IpAddr::V6(_)) | (Version::V6, IpAddr::V4(_)) => {}
        }
    }

    /// Sets the destination address; no change if it is of the other family.
    pub fn set_destination(&mut self, destination: IpAddr) {
        match (self.version, destination) {
            (Version::V4, IpAddr::V4(ip)) => self.set_v4(16, ip),
            (Version::V6, IpAddr::V6(ip)) => self.set_v6(24, ip),
            (Version::V4, IpAddr::V6(_)) | (Version::V6, IpAddr::V4(_)) => {}
        }
    }

    /// Sets the source port of TCP or UDP; no change for other transports.
    pub fn set_source_port(&mut self, port: u16) {
        if self.source_port().is_some() {
            self.set_transport_u16(self.transport_at, port);
        }
    }

    /// Sets the destination port of TCP or UDP; no change for other transports.
    pub fn set_destination_port(&mut self, port: u16) {
        if self.destination_port().is_some() {
            self.set_transport_u16(self.transport_at + 2, port);
        }
    }

    /// The bytes, to be changed at the caller's risk: nothing is checked again.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.as_mut()
    }

    /// Completes a transport checksum whose field holds the sum of the pseudo-header.
    pub(crate) fn complete_checksum(&mut self) {
        let checksum = Sum::default().bytes(self.transport_bytes()).checksum();
        if let Some(at) = self.transport_checksum_at() {
            self.put(at, &checksum.to_be_bytes());
        }
    }

    fn set_v4(&mut self, at: usize, ip: Ipv4Addr) {
        let old: [u8; 4] = self.array(at);
        let new = ip.octets();
        self.put(at, &new);
        self.patch(10, &old, &new);
        if self.transport != Transport::Icmp {
            self.patch_transport(&old, &new);
        }
    }

    fn set_v6(&mut self, at: usize, ip: Ipv6Addr) {
        let old: [u8; 16] = self.array(at);
        let new = ip.octets();
        self.put(at, &new);
        self.patch_transport(&old, &new);
    }

    fn set_transport_u16(&mut self, at: usize, value: u16) {
        let old: [u8; 2] = self.array(at);
        let new = value.to_be_bytes();
        self.put(at, &new);
        self.patch_transport(&old, &new);
    }

    fn patch_transport(&mut self, old: &[u8], new: &[u8]) {
        let Some(at) = self.transport_checksum_at() else {
            return;
        };
        // A UDP checksum of zero says that there is none (RFC 768); it stays so.
        if self.transport == Transport::Udp && self.u16_at(at) == 0 {
            return;
        }
        self.patch(at, old, new);
    }

    fn patch(&mut self, at: usize, old: &[u8], new: &[u8]) {
        let patched = checksum::updated(self.u16_at(at), old, new);
        self.put(at, &patched.to_be_bytes());
    }

    fn put(&mut self, at: usize, new: &[u8]) {
        if let Some(slot) = self.bytes.as_mut().get_mut(at..at + new.len()) {
            slot.copy_from_slice(new);
        }
    }
}

#[cfg(test)]
mod tests;
